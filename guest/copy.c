// SPDX-License-Identifier: Apache-2.0
// Copies what is missing, so that a power failure at any moment is mended by doing it again.
//
// Onto a volume that holds nothing else, everything is copied once, over what an earlier try left.
// Onto any other, in two passes. First pass: folders, links and devices appear under their names (the journal keeps their order),
// and file contents under temporary names. Then everything goes to the disk at once. Second pass:
// the files get their names. Without this, a file cut off in the middle would exist next time and
// so would never be completed.
#define _GNU_SOURCE
#include "common.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct copy {
    const struct owner *owner;
    int naming;  // the second pass
    int fresh;   // the one pass of a volume that holds nothing else
};

static const char new_entry[] = ".martlet-new";

static void temporary_name(char name[NAME_MAX + 1], const char *final) {
    // A name of the full length keeps its tail, so that two long names seldom meet; when they do,
    // the file is copied at the next start.
    size_t length = strlen(final), most = NAME_MAX - sizeof new_entry;
    snprintf(name, NAME_MAX + 1, "%s.%s", new_entry, length > most ? final + length - most : final);
}

static void own(int folder, const char *name, const struct stat *info, const struct owner *owner) {
    uid_t uid = owner ? owner->uid : info->st_uid;
    gid_t gid = owner ? owner->gid : info->st_gid;
    if (fchownat(folder, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0) fail("cannot chown %s", name);
    if (!S_ISLNK(info->st_mode) && fchmodat(folder, name, info->st_mode & 07777, 0) < 0)
        fail("cannot chmod %s", name);
    struct timespec times[2] = {info->st_atim, info->st_mtim};
    utimensat(folder, name, times, AT_SYMLINK_NOFOLLOW);
}

static void copy_content(int from, int to, const char *name, const char *temporary) {
    int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int out = openat(to, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (in < 0 || out < 0) fail("cannot copy %s to the data volume", name);
    static char buffer[65536];
    ssize_t n;
    while ((n = read(in, buffer, sizeof buffer)) != 0) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 || write(out, buffer, (size_t)n) != n)
            fail("cannot copy %s to the data volume", name);
    }
    close(in);
    if (close(out) < 0) fail("cannot copy %s to the data volume", name);
}

static void copy_folder(int from, int to, const struct copy *copy);

static void enter(int from, int to, const char *name, const struct copy *copy) {
    int inner_from = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int inner_to = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (inner_from < 0 || inner_to < 0) fail("cannot open the folder %s", name);
    copy_folder(inner_from, inner_to, copy);
    close(inner_to);
}

// Anything but a folder's content and a file's name is made under one temporary name first.
static void make_entry(int from, int to, const char *name, const struct stat *info,
                       const struct copy *copy) {
    const char *first = copy->fresh ? name : new_entry;
    if (!copy->fresh) {
        unlinkat(to, new_entry, 0);
        unlinkat(to, new_entry, AT_REMOVEDIR);
    }
    int made = -1;
    if (S_ISDIR(info->st_mode)) {
        made = mkdirat(to, first, 0700);
    } else if (S_ISLNK(info->st_mode)) {
        char target[PATH_MAX];
        ssize_t length = readlinkat(from, name, target, sizeof target - 1);
        if (length >= 0) {
            target[length] = 0;
            made = symlinkat(target, to, first);
        }
    } else {
        made = mknodat(to, first, info->st_mode & (S_IFMT | 0600), info->st_rdev);
    }
    if (made < 0) fail("cannot make %s on the data volume", name);
    own(to, first, info, copy->owner);
    if (copy->fresh) return;
    if (renameat(to, new_entry, to, name) < 0) fail("cannot make %s on the data volume", name);
}

static void copy_one(int from, int to, const char *name, const struct copy *copy) {
    struct stat info, there;
    if (fstatat(from, name, &info, AT_SYMLINK_NOFOLLOW) < 0) fail("cannot stat %s", name);
    int exists = fstatat(to, name, &there, AT_SYMLINK_NOFOLLOW) == 0;
    if (S_ISREG(info.st_mode)) {
        char temporary[NAME_MAX + 1];
        if (copy->fresh) {
            copy_content(from, to, name, name);
            own(to, name, &info, NULL);
            return;
        }
        temporary_name(temporary, name);
        if (exists) return;
        if (copy->naming) {
            if (renameat(to, temporary, to, name) < 0 && errno != ENOENT)
                fail("cannot make %s on the data volume", name);
        } else {
            copy_content(from, to, name, temporary);
            own(to, temporary, &info, copy->owner);
        }
        return;
    }
    if (!exists && !copy->naming && !S_ISSOCK(info.st_mode)) {
        make_entry(from, to, name, &info, copy);
        there.st_mode = info.st_mode;
        exists = 1;
    }
    if (exists && copy->fresh) own(to, name, &info, NULL);
    if (exists && S_ISDIR(info.st_mode) && S_ISDIR(there.st_mode)) enter(from, to, name, copy);
}

// Closes `from`.
static void copy_folder(int from, int to, const struct copy *copy) {
    DIR *folder = fdopendir(from);
    if (!folder) fail("cannot read a folder");
    struct dirent *entry;
    while ((entry = readdir(folder)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            copy_one(from, to, entry->d_name, copy);
    closedir(folder);
}

static void run(const char *from, const char *to, const struct copy *copy) {
    int out = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (out < 0) fail("cannot open %s", to);
    int in = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (in < 0 && errno != ENOENT) fail("cannot open %s", from);
    if (in >= 0) copy_folder(in, out, copy);
    if (syncfs(out) < 0) fail("cannot write to the data volume");
    close(out);
}

void copy_missing(const char *from, const char *to, const struct owner *owner) {
    run(from, to, &(struct copy){.owner = owner});
    run(from, to, &(struct copy){.owner = owner, .naming = 1});
}

void copy_fresh(const char *from, const char *to) { run(from, to, &(struct copy){.fresh = 1}); }
