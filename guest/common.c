// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

static _Noreturn void stop(const char *format, va_list arguments, const char *reason) {
    char line[1024];
    vsnprintf(line, sizeof line, format, arguments);
    // The newline before it: the kernel may have left half a line on the console.
    dprintf(2, "\nmartlet-init: error: %s%s%s\n", line, *reason ? ": " : "", reason);
    tcdrain(2);
    sync();
    reboot(RB_POWER_OFF);
    for (;;) pause();  // PID 1 must never end: the kernel would panic
}

_Noreturn void fail(const char *format, ...) {
    const char *reason = strerror(errno);
    va_list arguments;
    va_start(arguments, format);
    stop(format, arguments, reason);
}

_Noreturn void reject(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    stop(format, arguments, "");
}

void append(struct text *text, const char *bytes, size_t length) {
    if (text->length + length + 1 > text->capacity) {
        text->capacity = (text->length + length + 1) * 2;
        text->bytes = realloc(text->bytes, text->capacity);
        if (!text->bytes) fail("out of memory");
    }
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = 0;
}

void append_string(struct text *text, const char *string) {
    append(text, string, strlen(string));
}

int read_file(const char *path, struct text *text) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    char buffer[4096];
    ssize_t n;
    append(text, "", 0);
    while ((n = read(fd, buffer, sizeof buffer)) > 0) append(text, buffer, (size_t)n);
    int saved = errno;
    close(fd);
    errno = saved;
    return n < 0 ? -1 : 0;
}

void make_folders(const char *path, mode_t mode) {
    if (mkdir(path, mode) == 0 || errno == EEXIST) return;
    char *parent = strdup(path), *slash = parent ? strrchr(parent, '/') : NULL;
    if (errno != ENOENT || !slash || slash == parent) fail("cannot make the folder %s", path);
    *slash = 0;
    make_folders(parent, 0755);
    free(parent);
    if (mkdir(path, mode) < 0 && errno != EEXIST) fail("cannot make the folder %s", path);
}

void write_file(const char *path, const char *bytes, size_t length, mode_t mode, gid_t group) {
    char *parent = strdup(path), *slash = parent ? strrchr(parent, '/') : NULL;
    if (slash && slash != parent) {
        *slash = 0;
        make_folders(parent, 0755);
    }
    free(parent);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) fail("cannot write %s", path);
    while (length) {
        ssize_t n = write(fd, bytes, length);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) fail("cannot write %s", path);
        bytes += n;
        length -= (size_t)n;
    }
    // The group before the mode: chown clears set-id bits.
    if (fchown(fd, 0, group) < 0 || fchmod(fd, mode) < 0 || close(fd) < 0)
        fail("cannot write %s", path);
}

void mount_or_fail(const char *source, const char *target, const char *type, unsigned long flags,
                   const char *options) {
    if (mount(source, target, type, flags, options) < 0)
        fail("cannot mount %s on %s", source, target);
}
