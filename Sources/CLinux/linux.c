// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CLinux.h"

#include <crypt.h>
#include <errno.h>
#include <linux/close_range.h>
#include <linux/magic.h>
#include <linux/sched.h>
#include <net/if.h>
// After sys/ioctl.h, which CLinux.h includes: its numbers are made with _IOW.
#include <linux/if_tun.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

enum { max_fds = 64 };

/// What a child that fails tells its parent.
struct report {
    int error, step, place;
};

/// Confines this process as it is told and executes the program; returns when something failed.
static void execute(const struct ml_spawn_options *o, pid_t parent, struct report *failed) {
    const struct ml_sandbox *s = o->sandbox;
    failed->step = ML_STEP_OTHER;
    if (s) {
        if (ml_enter_view(s, o->new_network, &failed->step, &failed->place) < 0) return;
        failed->step = ML_STEP_CAPABILITIES;
        if (ml_seal_capabilities(s) < 0) return;
        failed->step = ML_STEP_OTHER;
    } else if (o->new_network && unshare(CLONE_NEWNET) < 0) {
        return;
    }
    if (o->cwd && chdir(o->cwd) < 0) return;
    if (o->gid != UINT32_MAX || o->uid != UINT32_MAX) {
        // Not by glibc's functions: they wait for all threads to follow, and the parent's threads,
        // which this copy of its memory still lists, are not here to answer.
        if (syscall(SYS_setgroups, o->ngroups, o->groups) < 0 && errno != EPERM) return;
        if (o->gid != UINT32_MAX && syscall(SYS_setresgid, o->gid, o->gid, o->gid) < 0) return;
        if (o->uid != UINT32_MAX && syscall(SYS_setresuid, o->uid, o->uid, o->uid) < 0) return;
    }
    if (s) {
        failed->step = ML_STEP_CAPABILITIES;
        if (ml_drop_capabilities(s) < 0 || ml_seal(s) < 0) return;
        failed->step = ML_STEP_LANDLOCK;
        if (s->landlock && ml_close_files(s, &failed->place) < 0) return;
        failed->step = ML_STEP_OTHER;
    }
    if (o->pdeathsig) {
        // After the change of uid: the kernel clears the setting when credentials change.
        if (prctl(PR_SET_PDEATHSIG, o->pdeathsig) < 0) return;
        if (getppid() != parent) _exit(126);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    failed->step = ML_STEP_FILTER;
    if (s && ml_filter(s) < 0) return;
    failed->step = ML_STEP_EXEC;
    execve(o->path, o->argv, o->envp);
}

// Runs in the child between clone and exec: async-signal-safe calls only.
static void become(const struct ml_spawn_options *o, int report, pid_t parent) {
    const struct ml_sandbox *s = o->sandbox;
    struct report failed = {0, ML_STEP_OTHER, -1};
    int above = 3, moved[max_fds];
    for (size_t i = 0; i < o->nfds; i++)
        if (o->fds[i].to >= above) above = o->fds[i].to + 1;
    if (o->nfds > max_fds) {
        errno = E2BIG;
        goto fail;
    }
    if (o->new_session && setsid() < 0) goto fail;
    if (o->ctty_fd >= 0 && ioctl(o->ctty_fd, TIOCSCTTY, 0) < 0) goto fail;
    // Before descriptors change their numbers.
    failed.step = ML_STEP_CGROUP;
    if (s && ml_join_cgroups(s) < 0) goto fail;
    failed.step = ML_STEP_OTHER;
    // The report pipe and all sources first move above the range that they will be copied into.
    int high = fcntl(report, F_DUPFD_CLOEXEC, above);
    if (high < 0) goto fail;
    report = high;
    for (size_t i = 0; i < o->nfds; i++)
        if ((moved[i] = fcntl(o->fds[i].from, F_DUPFD_CLOEXEC, above)) < 0) goto fail;
    for (size_t i = 0; i < o->nfds; i++)
        if (dup2(moved[i], o->fds[i].to) < 0) goto fail;
    for (int fd = 3; fd < above; fd++) {
        int keep = 0;
        for (size_t i = 0; i < o->nfds; i++) keep |= o->fds[i].to == fd;
        if (!keep) close(fd);
    }
    if (syscall(SYS_close_range, (unsigned)above, ~0u, CLOSE_RANGE_CLOEXEC) < 0) goto fail;
    execute(o, parent, &failed);
fail:
    failed.error = errno;
    (void)!write(report, &failed, sizeof failed);
    _exit(127);
}

/// A copy of this process with no handlers of signals and a pidfd. Returns 0 in it.
static long copy_self(int *pidfd) {
    struct clone_args args = {
        .flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        .pidfd = (uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
    };
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid >= 0 || errno != ENOSYS) return pid;
    // Refused by a filter of system calls, which cannot look into the arguments of clone3.
#if defined(__s390__) || defined(__CRIS__)
#error "the order of clone's arguments is another one here"
#endif
    pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, pidfd, NULL, NULL);
    if (pid != 0) return pid;
    for (int number = 1; number < NSIG; number++) {
        struct sigaction action;
        // A handler must not run here, where the parent's threads are missing.
        if (sigaction(number, NULL, &action) < 0 || action.sa_handler == SIG_IGN ||
            action.sa_handler == SIG_DFL)
            continue;
        action = (struct sigaction){.sa_handler = SIG_DFL};
        sigaction(number, &action, NULL);
    }
    return 0;
}

static int spawn_once(const struct ml_spawn_options *o, struct ml_spawn_result *result) {
    int pipefd[2], pidfd = -1;
    *result = (struct ml_spawn_result){.pidfd = -1, .step = ML_STEP_OTHER, .place = -1};
    if (pipe2(pipefd, O_CLOEXEC) < 0) return -errno;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    pid_t parent = getpid();
    long pid = copy_self(&pidfd);
    if (pid == 0) become(o, pipefd[1], parent);
    int saved = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    close(pipefd[1]);
    if (pid < 0) {
        close(pipefd[0]);
        return -saved;
    }
    struct report failed;
    ssize_t n;
    do n = read(pipefd[0], &failed, sizeof failed);
    while (n < 0 && errno == EINTR);
    close(pipefd[0]);
    if (n == sizeof failed) {
        waitpid((pid_t)pid, NULL, 0);
        close(pidfd);
        result->step = failed.step;
        result->place = failed.place;
        return -failed.error;
    }
    result->pidfd = pidfd;
    return (int)pid;
}

int ml_spawn(const struct ml_spawn_options *o, struct ml_spawn_result *result) {
    // A file that was just written is busy as long as some other child, between its clone and its
    // exec, still has the copy of the descriptor that wrote it. From here and not in the child:
    // two children that wait for each other's copies would never end.
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
    for (int tries = 0;; tries++) {
        int pid = spawn_once(o, result);
        if (pid != -ETXTBSY || tries == 100) return pid;
        nanosleep(&pause, NULL);
    }
}

int ml_become(const struct ml_spawn_options *o, struct ml_spawn_result *result) {
    struct report failed = {0, ML_STEP_OTHER, -1};
    execute(o, getppid(), &failed);
    int error = errno;
    *result = (struct ml_spawn_result){.pidfd = -1, .step = failed.step, .place = failed.place};
    return -error;
}

int ml_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0; }

static int signal_writer = -1;

static void on_signal(int number) {
    int saved = errno;
    unsigned char byte = (unsigned char)number;
    (void)!write(signal_writer, &byte, 1);
    errno = saved;
}

int ml_signal_pipe(const int *signals, int count) {
    int p[2];
    if (pipe2(p, O_CLOEXEC | O_NONBLOCK) < 0) return -errno;
    signal_writer = p[1];
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigfillset(&action.sa_mask);
    for (int i = 0; i < count; i++) sigaction(signals[i], &action, NULL);
    return p[0];
}

enum { max_passed = 8 };

int64_t ml_send_fds(int socket, const void *bytes, size_t size, const int *fds, size_t count) {
    if (count > max_passed) return -E2BIG;
    char space[CMSG_SPACE(sizeof(int) * max_passed)] = {0};
    struct iovec vector = {.iov_base = (void *)bytes, .iov_len = size};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    if (count) {
        message.msg_control = space;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * count);
    }
    ssize_t n;
    do n = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int64_t ml_recv_fds(int socket, void *bytes, size_t size, int *fds, size_t max, size_t *found) {
    char space[CMSG_SPACE(sizeof(int) * max_passed)];
    struct iovec vector = {.iov_base = bytes, .iov_len = size};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1,
                             .msg_control = space, .msg_controllen = sizeof space};
    ssize_t n;
    do n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0) return -errno;
    *found = 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
        size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof fd);
            if (*found < max) fds[(*found)++] = fd;
            else close(fd);
        }
    }
    return n;
}

int64_t ml_peer_uid(int socket) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) return -errno;
    return peer.uid;
}

int ml_openpty(int *primary, int *secondary) {
    int p = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (p < 0) return -errno;
    char name[64];
    int s = -1;
    if (grantpt(p) == 0 && unlockpt(p) == 0 && ptsname_r(p, name, sizeof name) == 0)
        s = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (s < 0) {
        int e = errno;
        close(p);
        return -e;
    }
    *primary = p;
    *secondary = s;
    return 0;
}

int ml_accept(int listener) {
    int fd;
    do fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

int ml_pidfd_open(pid_t pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : fd;
}

int ml_pidfd_send_signal(int pidfd, int signal) {
    return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) < 0 ? -errno : 0;
}

int ml_rename_noreplace(const char *from, const char *to) {
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
    // NFS, sshfs, 9p and older ZFS know no flags; a link is not made over what is there either.
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) return -errno;
    if (link(from, to) == 0) return unlink(from) < 0 ? -errno : 0;
    if (errno != EPERM && errno != EOPNOTSUPP && errno != EISDIR) return -errno;
    // Folders, and file systems without links: nobody else makes this name in the meantime.
    struct stat info;
    if (lstat(to, &info) == 0) return -EEXIST;
    return rename(from, to) < 0 ? -errno : 0;
}

// The number as <linux/fs.h> has it, which cannot stand beside glibc's <sys/mount.h>.
#ifndef FICLONE
#define FICLONE _IOW(0x94, 9, int)
#endif

int ml_clone_file(int to, int from) { return ioctl(to, FICLONE, from) < 0 ? -errno : 0; }

int ml_hash_password(const char *password, char *out, size_t size) {
    char salt[CRYPT_GENSALT_OUTPUT_SIZE];
    // No random bytes given: libcrypt takes them from the kernel.
    if (!crypt_gensalt_rn("$y$", 0, NULL, 0, salt, sizeof salt)) return -errno;
    struct crypt_data *data = calloc(1, sizeof *data);
    if (!data) return -ENOMEM;
    char *hash = crypt_rn(password, salt, data, sizeof *data);
    int result = !hash ? -errno : strlen(hash) >= size ? -ERANGE : 0;
    if (result == 0) strcpy(out, hash);
    explicit_bzero(data, sizeof *data);
    free(data);
    return result;
}

int ml_new_network(void) {
    if (unshare(CLONE_NEWNET) < 0) return -errno;
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int result = ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
    close(fd);
    return result;
}

int ml_tap_attach(int tun, const char *name) {
    // With IFF_TUN_EXCL a tap that somebody else made to last is EBUSY too, and not taken over.
    struct ifreq request = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL)};
    size_t length = strlen(name);
    if (length >= sizeof request.ifr_name) return -ENAMETOOLONG;
    memcpy(request.ifr_name, name, length);
    return ioctl(tun, TUNSETIFF, &request) < 0 ? -errno : 0;
}

int ml_tap_set_owner(int tun, uint32_t uid) {
    return ioctl(tun, TUNSETOWNER, (unsigned long)uid) < 0 ? -errno : 0;
}

int ml_mount_detached(const char *kind) {
    int context = fsopen(kind, FSOPEN_CLOEXEC);
    if (context < 0) return -errno;
    int mount = -1;
    if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        mount = fsmount(context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    int result = mount < 0 ? -errno : mount;
    close(context);
    return result;
}

// Opens what an O_PATH descriptor names. Returns a descriptor or -errno.
static int reopen(int node) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", node);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int ml_open_device(const char *path, unsigned major, unsigned minor) {
    dev_t number = makedev(major, minor);
    // Looked at before it is opened: opening the node of another device can already change that one.
    int node = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (node >= 0) {
        struct stat info;
        int is_ours = fstat(node, &info) == 0 && S_ISCHR(info.st_mode) && info.st_rdev == number;
        int result = is_ours ? reopen(node) : 0;
        close(node);
        if (is_ours) return result;
    }
    int mount = ml_mount_detached("tmpfs");
    if (mount < 0) return mount;
    int result = mknodat(mount, "node", S_IFCHR | 0600, number) < 0 ? -errno : 0;
    if (result == 0) {
        result = openat(mount, "node", O_RDWR | O_CLOEXEC);
        if (result < 0) result = -errno;
    }
    close(mount);
    return result;
}

int ml_new_mounts(int following) {
    if (unshare(CLONE_NEWNS) < 0) return -errno;
    // A copy of shared mounts still hands on what is mounted.
    unsigned long flags = MS_REC | (following ? MS_SLAVE : MS_PRIVATE);
    return mount("none", "/", NULL, flags, NULL) < 0 ? -errno : 0;
}

int ml_bind_folder(int folder, const char *target, int read_only) {
    int tree = open_tree(folder, "",
                         AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0) return -errno;
    // Private: what the host mounts below it later would come without these attributes.
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
                                    .propagation = MS_PRIVATE};
    if (read_only) attributes.attr_set |= MOUNT_ATTR_RDONLY;
    int result = 0;
    if (mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes) < 0 ||
        move_mount(tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        result = -errno;
    close(tree);
    return result;
}

int64_t ml_birth_time(int file) {
    struct statx about;
    if (statx(file, "", AT_EMPTY_PATH, STATX_BTIME, &about) < 0) return -errno;
    if (!(about.stx_mask & STATX_BTIME)) return 0;
    return about.stx_btime.tv_sec * 1000000000 + about.stx_btime.tv_nsec;
}

int ml_has_attributes(const char *path) {
    return getxattr(path, "user.martlet", NULL, 0) >= 0 || errno != ENOTSUP;
}

int ml_has_access_list(const char *path) {
    return getxattr(path, "system.posix_acl_access", NULL, 0) > 0;
}

int ml_enter_network(int namespace_fd) { return setns(namespace_fd, CLONE_NEWNET) < 0 ? -errno : 0; }

int ml_punch_hole(int file, int64_t offset, int64_t length) {
    return fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) < 0 ? -errno : 0;
}

int ml_is_in_memory(const char *path) {
    struct statfs info;
    if (statfs(path, &info) < 0) return -errno;
    return info.f_type == TMPFS_MAGIC || info.f_type == RAMFS_MAGIC;
}
