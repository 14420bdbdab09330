// SPDX-License-Identifier: Apache-2.0
// What Swift's Glibc module does not show: process creation with a pidfd, signals into a pipe,
// descriptors over sockets, pseudo-terminals.
//
// Never define _GNU_SOURCE here: it changes glibc types that the Glibc module has already defined
// and breaks every build from an empty .build folder. Only the .c file defines it.
#pragma once
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "confine.h"
#include "reach.h"

struct ml_fd_map {
    int from, to;
};

struct ml_spawn_options {
    const char *path;            // absolute
    char *const *argv;
    char *const *envp;
    const char *cwd;             // NULL: keep
    const struct ml_fd_map *fds; // every other descriptor is closed in the child
    size_t nfds;
    int pdeathsig;               // 0: none; follows the spawning THREAD, which must not exit
    int new_session;             // setsid
    int new_network;             // an empty network namespace; needs privilege
    int ctty_fd;                 // -1: none
    uint32_t uid, gid;           // UINT32_MAX: keep
    const uint32_t *groups;      // supplementary groups when uid or gid is set
    size_t ngroups;
    const struct ml_sandbox *sandbox; // NULL: none
};

struct ml_spawn_result {
    int pidfd;
    int step;  // of what failed, ML_STEP_OTHER when it was no step of the sandbox
    int place; // the place that it failed with, or -1
};

/// Starts a process. Returns the pid, or -errno (a failing execve included).
int ml_spawn(const struct ml_spawn_options *o, struct ml_spawn_result *result);

/// Confines this process, which must have one thread, and executes the program in its place: what
/// is said of descriptors, session and terminal does not count. Returns -errno when something failed;
/// what was done until then is not taken back.
int ml_become(const struct ml_spawn_options *o, struct ml_spawn_result *result);

/// Routes the signals into a pipe; returns its read end or -errno. Call once, first thing in main.
int ml_signal_pipe(const int *signals, int count);

/// pipe2 with O_CLOEXEC: ends[0] reads, ends[1] writes. Returns 0 or -errno.
int ml_pipe(int ends[2]);

/// Sends bytes and up to 8 descriptors with the first of them. Returns the bytes taken or -errno.
int64_t ml_send_fds(int socket, const void *bytes, size_t size, const int *fds, size_t count);
/// Receives bytes and up to `max` descriptors (close-on-exec). Returns the number of bytes, 0 at
/// the end, or -errno.
int64_t ml_recv_fds(int socket, void *bytes, size_t size, int *fds, size_t max, size_t *found);

/// The uid of the process at the other end of a unix socket, or -errno.
int64_t ml_peer_uid(int socket);

/// Opens a pseudo-terminal; writes both ends. Returns 0 or -errno.
int ml_openpty(int *primary, int *secondary);

/// accept4 with SOCK_CLOEXEC. Returns a descriptor or -errno.
int ml_accept(int listener);

int ml_pidfd_open(pid_t pid);
int ml_pidfd_send_signal(int pidfd, int signal);

/// renameat2 with RENAME_NOREPLACE. Returns 0 or -errno.
int ml_rename_noreplace(const char *from, const char *to);

/// ioctl(FICLONE): lets `to` share all blocks of `from`. Returns 0 or -errno.
int ml_clone_file(int to, int from);

/// Hashes a password with yescrypt and a fresh salt into `out`. Returns 0 or -errno.
int ml_hash_password(const char *password, char *out, size_t size);

/// unshare(CLONE_NEWNET) for the calling thread, with loopback up. Returns 0 or -errno.
int ml_new_network(void);

/// Makes the tap `name` and attaches it to an open /dev/net/tun. Returns 0 or -errno; EBUSY: exists.
int ml_tap_attach(int tun, const char *name);
/// Lets `uid` attach to the tap. Returns 0 or -errno.
int ml_tap_set_owner(int tun, uint32_t uid);

/// Mounts a fresh file system of a kind without parameters, such as sysfs, at no path.
/// Returns a descriptor of its root or -errno.
int ml_mount_detached(const char *kind);
/// Opens the character device of a number: through `path` if that is its node, else through a node
/// on a file system that no path leads to. Returns a descriptor or -errno.
int ml_open_device(const char *path, unsigned major, unsigned minor);

/// unshare(CLONE_NEWNS) for the calling thread. What is mounted here is not seen elsewhere; what is
/// mounted and unmounted elsewhere happens here, too, when asked. Returns 0 or -errno.
int ml_new_mounts(int following);

/// Mounts an open folder, with all that is mounted below it, at `target`: never with device nodes
/// or set-id programs, and read-only when asked; what is mounted below it later is not seen. Nothing is seen of it before that holds everywhere.
/// Returns 0 or -errno.
int ml_bind_folder(int folder, const char *target, int read_only);

/// When a file was made, in nanoseconds; 0 where its file system does not know, or -errno.
int64_t ml_birth_time(int file);

/// Whether files in a folder can have extended attributes.
int ml_has_attributes(const char *path);
/// Whether a file has an access list beyond its mode.
int ml_has_access_list(const char *path);

/// setns(CLONE_NEWNET) for the calling thread. Returns 0 or -errno.
int ml_enter_network(int namespace_fd);

/// fallocate with FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE. Returns 0 or -errno.
int ml_punch_hole(int file, int64_t offset, int64_t length);

/// statfs. Returns 1 when a path is on tmpfs or ramfs, 0 when not, or -errno.
int ml_is_in_memory(const char *path);

/// openat2: opens the folder `path` below the folder `root`, which nothing leads out of. Symbolic
/// links are followed as if `root` were `/`, or with `no_links` refused (ELOOP); `..` stays below
/// it, too. Returns a descriptor (O_PATH) or -errno.
int ml_open_below(int root, const char *path, int no_links);
