// SPDX-License-Identifier: Apache-2.0
// What the parts of the initramfs's /init share: failing with one clear line, text that grows,
// whole files, and the copying of folders.
#pragma once
#include <stddef.h>
#include <sys/types.h>

/// Prints `martlet-init: error: …: reason of errno` on the console and powers the machine off.
/// The supervisor quotes that line.
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/// The same for what is wrong without a failed system call.
_Noreturn void reject(const char *format, ...) __attribute__((format(printf, 1, 2)));

/// Text that grows; always ends in a NUL that is not counted.
struct text {
    char *bytes;
    size_t length, capacity;
};

void append(struct text *text, const char *bytes, size_t length);
void append_string(struct text *text, const char *string);

/// Reads a whole file into `text`; returns 0, or -1 with errno set.
int read_file(const char *path, struct text *text);

/// Writes a file anew, with exactly this mode and group; its folders are made with mode 0755.
void write_file(const char *path, const char *bytes, size_t length, mode_t mode, gid_t group);

/// Makes a folder and its parents; existing ones are left as they are.
void make_folders(const char *path, mode_t mode);

void mount_or_fail(const char *source, const char *target, const char *type, unsigned long flags,
                   const char *options);

struct owner {
    uid_t uid;
    gid_t gid;
};

/// Copies what is missing in `to` from `from` with owner (or the one given), mode and links, and
/// leaves what exists untouched. After a power failure at any moment, doing it again completes it:
/// no file appears under its name before its content is on the disk.
void copy_missing(const char *from, const char *to, const struct owner *owner);

/// Copies everything onto a volume that holds nothing but the remains of an earlier try.
void copy_fresh(const char *from, const char *to);
