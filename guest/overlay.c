// SPDX-License-Identifier: Apache-2.0
// A stamp beside the upper folder names the image that it was written over. The stamp is made
// before the folder is used for the first time, so one without a stamp holds nothing yet; and a
// folder that has to go is renamed first, so that none is ever used which is half removed.
#define _GNU_SOURCE
#include "overlay.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

// What systemd takes from the image or from a credential only when /etc does not say otherwise.
static const char *const identity_files[] = {"/etc/machine-id", "/etc/hostname", "/etc/localtime"};
// Account databases, which are read and written anew by identity.c; anything but a file is none.
static const char *const databases[] = {"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"};

static void path_in(char path[512], const char *data, const char *name) {
    snprintf(path, 512, "%s%s", data, name);
}

static void remove_tree(int parent, const char *name) {
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT) return;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder) fail("cannot remove %s from the data volume", name);
    struct dirent *entry;
    while ((entry = readdir(folder)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) remove_tree(fd, entry->d_name);
    closedir(folder);
    if (unlinkat(parent, name, AT_REMOVEDIR) < 0)
        fail("cannot remove %s from the data volume", name);
}

static void sync_volume(const char *data) {
    int fd = open(data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || syncfs(fd) < 0) fail("cannot write to the data volume");
    close(fd);
}

// An entry of the upper folder that is no file hides the image's: a deletion, for one.
static void remove_unless_file(const char *path) {
    struct stat info;
    if (lstat(path, &info) == 0 && !S_ISREG(info.st_mode)) remove_tree(AT_FDCWD, path);
}

void overlay_prepare(const char *data, const char *image, int keep) {
    char folder[512], old[512], stamp[512], fresh[512], path[512];
    struct text text = {0};
    path_in(folder, data, OVERLAY_FOLDER);
    path_in(old, data, OVERLAY_FOLDER ".old");
    path_in(stamp, data, OVERLAY_FOLDER "/image");
    path_in(fresh, data, OVERLAY_FOLDER "/image.new");
    if (!image) reject("identity: no image is named, which the mode needs");
    remove_tree(AT_FDCWD, old);

    int stamped = read_file(stamp, &text) == 0;
    if (!stamped || strcmp(text.bytes, image)) {
        if (stamped && keep)
            reject(
                "what was written to the system belongs to the image %.12s, and this is %.12s: use "
                "the old image, 'mode: overlay' to drop what was written, or 'martlet recreate'",
                text.bytes, image);
        if (rename(folder, old) < 0 && errno != ENOENT) fail("cannot rename %s", folder);
        sync_volume(data);
        path_in(path, data, OVERLAY_UPPER);
        make_folders(path, 0755);
        path_in(path, data, OVERLAY_WORK);
        make_folders(path, 0700);
        write_file(fresh, image, strlen(image), 0644, 0);
        sync_volume(data);
        if (rename(fresh, stamp) < 0) fail("cannot write %s", stamp);
        sync_volume(data);
        remove_tree(AT_FDCWD, old);
    }
    free(text.bytes);
    // The parent of all is nobody's to look into: a file there may have been for root alone.
    path_in(path, data, "/.martlet");
    if (chmod(path, 0700) < 0) fail("cannot close %s", path);

    for (size_t i = 0; i < sizeof identity_files / sizeof *identity_files; i++) {
        snprintf(path, sizeof path, "%s%s%s", data, OVERLAY_UPPER, identity_files[i]);
        if (unlink(path) < 0 && errno != ENOENT && errno != ENOTDIR) remove_unless_file(path);
    }
    for (size_t i = 0; i < sizeof databases / sizeof *databases; i++) {
        snprintf(path, sizeof path, "%s%s%s", data, OVERLAY_UPPER, databases[i]);
        remove_unless_file(path);
    }
}
