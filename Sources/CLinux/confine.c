// SPDX-License-Identifier: Apache-2.0
// What a child does to itself between clone and exec so that it sees and may do no more than it is
// told: async-signal-safe calls only, and none of glibc's that would wait for the parent's threads.
#define _GNU_SOURCE
#include "confine.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

// Newer than the headers of Debian 12.
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif

enum { max_places = 192, max_hidden = 8 };

const char *ml_step_name(int step) {
    static const char *const names[] = {
        [ML_STEP_OTHER] = "start it",
        [ML_STEP_CGROUP] = "join its control group",
        [ML_STEP_USER_NAMESPACE] = "make a user namespace",
        [ML_STEP_NAMESPACES] = "make its namespaces",
        [ML_STEP_ROOT] = "make an empty root",
        [ML_STEP_PLACE] = "show it a file or folder",
        [ML_STEP_DEVICES] = "make its device nodes",
        [ML_STEP_PROC] = "mount /proc",
        [ML_STEP_PIVOT] = "leave the host's root",
        [ML_STEP_LANDLOCK] = "close the host's files by Landlock",
        [ML_STEP_CAPABILITIES] = "give up all capabilities",
        [ML_STEP_FILTER] = "filter its system calls",
        [ML_STEP_EXEC] = "execute it",
    };
    if (step < 0 || step >= (int)(sizeof names / sizeof *names) || !names[step]) step = 0;
    return names[step];
}

int ml_join_cgroups(const struct ml_sandbox *s) {
    for (size_t i = 0; i < s->ncgroups; i++)
        // 0 is whoever writes it.
        if (write(s->cgroups[i], "0", 1) != 1) return -1;
    return 0;
}

static int write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t n = write(fd, text, strlen(text));
    int saved = errno;
    close(fd);
    errno = saved;
    return n < 0 ? -1 : 0;
}

static int own_user(const struct ml_sandbox *s) {
    if (unshare(CLONE_NEWUSER) < 0) return -1;
    // Else the kernel lets nobody without privilege map a group.
    if (write_file("/proc/self/setgroups", "deny") < 0 && errno != ENOENT) return -1;
    if (write_file("/proc/self/uid_map", s->uid_map) < 0) return -1;
    return write_file("/proc/self/gid_map", s->gid_map);
}

static int empty_mount(unsigned attributes) {
    int context = fsopen("tmpfs", FSOPEN_CLOEXEC);
    if (context < 0) return -1;
    int mount = -1;
    if (fsconfig(context, FSCONFIG_SET_STRING, "mode", "755", 0) == 0 &&
        fsconfig(context, FSCONFIG_SET_STRING, "size", "1m", 0) == 0 &&
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        mount = fsmount(context, FSMOUNT_CLOEXEC, attributes);
    int saved = errno;
    close(context);
    errno = saved;
    return mount;
}

static int set_attributes(int mount, unsigned recursive, uint64_t set) {
    struct mount_attr attributes = {.attr_set = set, .propagation = MS_PRIVATE};
    return mount_setattr(mount, "", AT_EMPTY_PATH | recursive, &attributes, sizeof attributes);
}

/// Opens what is at a path of the new root, as whoever has it for a root would see it.
static int look(int root, const char *path) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

static int make_parents(int root, const char *path) {
    char part[4096];
    size_t length = strlen(path);
    if (length >= sizeof part) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (size_t i = 1; i < length; i++) {
        if (path[i] != '/') continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdirat(root, part + 1, 0755) < 0 && errno != EEXIST) return -1;
    }
    return 0;
}

static int mount_at(int root, const char *path, int mount) {
    int target = look(root, path);
    if (target < 0) return -1;
    int result = move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    int saved = errno;
    close(target);
    errno = saved;
    return result;
}

static int put_tree(int root, const char *path, int tree) {
    struct stat info;
    if (fstat(tree, &info) < 0 || make_parents(root, path) < 0) return -1;
    if (S_ISDIR(info.st_mode)) {
        if (mkdirat(root, path + 1, 0755) < 0 && errno != EEXIST) return -1;
    } else {
        if (mknodat(root, path + 1, S_IFREG | 0444, 0) < 0 && errno != EEXIST) return -1;
    }
    return mount_at(root, path, tree);
}

static int is_link(const struct ml_place *p, char *to, size_t size) {
    if (p->kind == ML_PLACE_LINK) {
        size_t length = strlen(p->target);
        if (length >= size) return 0;
        memcpy(to, p->target, length + 1);
        return 1;
    }
    // /bin is a link where /usr holds everything, and whoever runs /bin/sh must find it so.
    if (p->kind != ML_PLACE_READABLE || !p->optional) return 0;
    ssize_t n = readlink(p->path, to, size - 1);
    if (n <= 0) return 0;
    to[n] = 0;
    return 1;
}

static int open_place(const struct ml_place *p) {
    int tree = open_tree(AT_FDCWD, p->path, AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0) return -1;
    uint64_t set = MOUNT_ATTR_NOSUID;
    if (p->kind != ML_PLACE_DEVICE) set |= MOUNT_ATTR_NODEV;
    if (p->kind == ML_PLACE_READABLE) set |= MOUNT_ATTR_RDONLY;
    // What it can write it must not be able to run.
    if (p->kind != ML_PLACE_READABLE) set |= MOUNT_ATTR_NOEXEC;
    if (set_attributes(tree, AT_RECURSIVE, set) == 0) return tree;
    int saved = errno;
    close(tree);
    errno = saved;
    return -1;
}

static int make_device(const struct ml_sandbox *s, int root, const struct ml_place *p) {
    struct stat info;
    if (stat(p->path, &info) < 0) return p->optional && errno == ENOENT ? 0 : -1;
    if (!S_ISCHR(info.st_mode)) {
        errno = ENODEV;
        return -1;
    }
    if (make_parents(root, p->path) < 0) return -1;
    const char *at = p->path + 1;
    if (mknodat(root, at, S_IFCHR | 0600, info.st_rdev) < 0) return errno == EEXIST ? 0 : -1;
    mode_t mode = info.st_mode & 0777;
    if (s->device_owner != UINT32_MAX && (mode & 0006) != 0006) {
        // The node is its own: it needs no group, which would open other files of the host, too.
        info.st_uid = info.st_gid = s->device_owner;
        mode = 0600;
    }
    if (fchownat(root, at, info.st_uid, info.st_gid, AT_SYMLINK_NOFOLLOW) < 0) return -1;
    return fchmodat(root, at, mode, 0);
}

static int link_streams(int root) {
    static const char *const names[][2] = {{"dev/fd", "/proc/self/fd"},
                                           {"dev/stdin", "/proc/self/fd/0"},
                                           {"dev/stdout", "/proc/self/fd/1"},
                                           {"dev/stderr", "/proc/self/fd/2"}};
    if (mkdirat(root, "dev", 0755) < 0 && errno != EEXIST) return -1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (symlinkat(names[i][1], root, names[i][0]) < 0 && errno != EEXIST) return -1;
    return 0;
}

/// A /proc that shows what it is told to: only where the numbers of processes are the host's, and
/// with privilege over them.
static int new_proc(const struct ml_sandbox *s) {
    int context = fsopen("proc", FSOPEN_CLOEXEC);
    if (context < 0) return -1;
    int mount = -1;
    if (fsconfig(context, FSCONFIG_SET_STRING, "hidepid", s->hidepid, 0) == 0 &&
        (!s->only_processes ||
         fsconfig(context, FSCONFIG_SET_STRING, "subset", "pid", 0) == 0) &&
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        mount = fsmount(context, FSMOUNT_CLOEXEC,
                        MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    int saved = errno;
    close(context);
    errno = saved;
    return mount;
}

static int put_proc(const struct ml_sandbox *s, int root) {
    int tree;
    if (s->uid_map) {
        tree = open_tree(AT_FDCWD, "/proc", AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (tree >= 0 && set_attributes(tree, AT_RECURSIVE, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID) < 0)
            return -1;
    } else {
        tree = new_proc(s);
    }
    return tree < 0 ? -1 : put_tree(root, "/proc", tree);
}

static int show_places(const struct ml_sandbox *s, int *step, int *place) {
    int trees[max_places], hidden[max_hidden];
    size_t nhidden = 0;
    if (s->nplaces > max_places) {
        errno = E2BIG;
        return -1;
    }
    // Before anything is covered, for a place may lie where the new root is put together.
    *step = ML_STEP_PLACE;
    for (size_t i = 0; i < s->nplaces; i++) {
        const struct ml_place *p = &s->places[i];
        char target[4096];
        trees[i] = -1;
        *place = (int)i;
        if (p->kind == ML_PLACE_HIDDEN || p->kind == ML_PLACE_LINK ||
            (p->kind == ML_PLACE_DEVICE && !s->uid_map) || is_link(p, target, sizeof target))
            continue;
        trees[i] = open_place(p);
        if (trees[i] < 0 && !(p->optional && (errno == ENOENT || errno == ENOTDIR))) return -1;
    }
    *place = -1;
    *step = ML_STEP_ROOT;
    int root = empty_mount(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    if (root < 0 || move_mount(root, "", AT_FDCWD, s->stage, MOVE_MOUNT_F_EMPTY_PATH) < 0) return -1;
    if (link_streams(root) < 0) return -1;
    for (size_t i = 0; i < s->nplaces; i++) {
        const struct ml_place *p = &s->places[i];
        char target[4096];
        *step = p->kind == ML_PLACE_DEVICE ? ML_STEP_DEVICES : ML_STEP_PLACE;
        *place = (int)i;
        if (p->kind == ML_PLACE_HIDDEN) {
            int there = look(root, p->path);
            if (there < 0) continue;
            close(there);
            int empty = nhidden < max_hidden ? empty_mount(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV) : -1;
            if (empty < 0 || mount_at(root, p->path, empty) < 0) return -1;
            hidden[nhidden++] = empty;
        } else if (p->kind == ML_PLACE_DEVICE && !s->uid_map) {
            if (make_device(s, root, p) < 0) return -1;
        } else if (trees[i] >= 0) {
            if (put_tree(root, p->path, trees[i]) < 0) return -1;
            close(trees[i]);
        } else if (is_link(p, target, sizeof target)) {
            if (make_parents(root, p->path) < 0) return -1;
            if (symlinkat(target, root, p->path + 1) < 0 && errno != EEXIST) return -1;
        }
    }
    *place = -1;
    *step = ML_STEP_PROC;
    if (put_proc(s, root) < 0) return -1;
    *step = ML_STEP_PIVOT;
    for (size_t i = 0; i < nhidden; i++)
        if (set_attributes(hidden[i], 0, MOUNT_ATTR_RDONLY) < 0) return -1;
    if (set_attributes(root, 0, MOUNT_ATTR_RDONLY) < 0) return -1;
    // The old root lands on the new one's own place, and is taken away from there.
    if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0)
        return -1;
    return chdir("/");
}

int ml_enter_view(const struct ml_sandbox *s, int new_network, int *step, int *place) {
    if (s->uid_map) {
        *step = ML_STEP_USER_NAMESPACE;
        if (own_user(s) < 0) return -1;
    }
    *step = ML_STEP_NAMESPACES;
    // Landlock closes files where nobody lets us have mounts of our own.
    int own_root = s->nplaces && !s->landlock;
    int spaces = (own_root ? CLONE_NEWNS : 0) | (s->own_ipc ? CLONE_NEWIPC : 0) |
                 (s->own_hostname ? CLONE_NEWUTS : 0) | (new_network ? CLONE_NEWNET : 0);
    if (spaces && unshare(spaces) < 0) return -1;
    if (!own_root) return 0;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return -1;
    // The folders of the new root are for another user, whoever starts this.
    umask(0022);
    return show_places(s, step, place);
}

int ml_close_files(const struct ml_sandbox *s, int *place) {
    const uint64_t read = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE |
                          LANDLOCK_ACCESS_FS_READ_DIR;
    uint64_t all = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1, files = read | LANDLOCK_ACCESS_FS_WRITE_FILE;
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 0) return -1;
    if (version >= 2) all |= LANDLOCK_ACCESS_FS_REFER;
    if (version >= 3) {
        all |= LANDLOCK_ACCESS_FS_TRUNCATE;
        files |= LANDLOCK_ACCESS_FS_TRUNCATE;
    }
    struct landlock_ruleset_attr attributes = {.handled_access_fs = all};
    int rules = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0);
    if (rules < 0) return -1;
    for (size_t i = 0; i < s->nplaces; i++) {
        const struct ml_place *p = &s->places[i];
        *place = (int)i;
        if (p->kind == ML_PLACE_HIDDEN) continue;
        int fd = open(p->path, O_PATH | O_CLOEXEC);
        if (fd < 0) {
            if (p->optional) continue;
            return -1;
        }
        struct stat info;
        if (fstat(fd, &info) < 0) return -1;
        int writes = p->kind != ML_PLACE_READABLE && p->kind != ML_PLACE_LINK;
        uint64_t access = !writes ? read : all & ~LANDLOCK_ACCESS_FS_EXECUTE;
        // What only a folder can be asked for is refused for a file.
        if (!S_ISDIR(info.st_mode)) access &= files & ~LANDLOCK_ACCESS_FS_READ_DIR;
        struct landlock_path_beneath_attr beneath = {.allowed_access = access, .parent_fd = fd};
        if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0)
            return -1;
        close(fd);
    }
    *place = -1;
    int result = (int)syscall(SYS_landlock_restrict_self, rules, 0);
    close(rules);
    return result;
}

static const unsigned long sealed_bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED |
                                         SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                         SECBIT_NO_CAP_AMBIENT_RAISE |
                                         SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

int ml_seal_capabilities(const struct ml_sandbox *s) {
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
        if (cap == s->capability) continue;
        // Whoever has no capability to lose may not set the bits; then no_new_privs says the same.
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) return errno == EPERM ? 0 : -1;
    }
    // Who keeps one has to take it along over the change of user, and is sealed after that.
    if (s->capability >= 0) return prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECUREBITS, sealed_bits, 0, 0, 0) < 0) return -1;
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

static int set_capabilities(uint64_t permitted, uint64_t effective, uint64_t inheritable) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    for (int i = 0; i < 2; i++)
        data[i] = (struct __user_cap_data_struct){.permitted = (uint32_t)(permitted >> 32 * i),
                                                  .effective = (uint32_t)(effective >> 32 * i),
                                                  .inheritable = (uint32_t)(inheritable >> 32 * i)};
    return (int)syscall(SYS_capset, &header, data);
}

int ml_drop_capabilities(const struct ml_sandbox *s) {
    if (s->capability < 0) return set_capabilities(0, 0, 0);
    uint64_t one = 1ULL << s->capability, seal = 1ULL << CAP_SETPCAP;
    // Without privilege there is none to keep.
    if (set_capabilities(one | seal, one | seal, one) < 0)
        return errno == EPERM ? set_capabilities(0, 0, 0) : -1;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, s->capability, 0, 0) < 0)
        return -1;
    if (prctl(PR_SET_SECUREBITS, sealed_bits, 0, 0, 0) < 0) return -1;
    return set_capabilities(one, one, one);
}

int ml_seal(const struct ml_sandbox *s) {
    struct rlimit no_core = {0, 0};
    umask(0077);
    if (setrlimit(RLIMIT_CORE, &no_core) < 0) return -1;
    // A kernel without keys has none to hide.
    if (s->own_keyring && syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 &&
        errno != ENOSYS && errno != EDQUOT)
        return -1;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

int ml_filter(const struct ml_sandbox *s) {
    if (!s->filter_size) return 0;
    struct {
        unsigned short count;
        const void *filter;
    } program = {(unsigned short)(s->filter_size / 8), s->filter};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

int ml_open_below(int root, const char *path, int no_links) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | O_DIRECTORY, .resolve = RESOLVE_IN_ROOT};
    if (no_links) how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
    int fd;
    // EAGAIN: something was renamed meanwhile, and the kernel could not be sure.
    do fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN);
    return fd < 0 ? -errno : fd;
}
