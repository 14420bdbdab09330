// SPDX-License-Identifier: Apache-2.0
//
// Loaded into `martlet` by LD_PRELOAD, it stops the program before its n-th call that changes
// something, so that a test can do at exactly this place what it likes: kill the program or another
// one, fill the disk, cut the power. CALLTRAP=N:FILE says which call, and the file that says the pid.
//
// What libc calls inside itself is not seen, nor what a raw system call does; Martlet's own calls and
// those of the libraries that it loads are.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long left;
static char file[4096];

// Arms the trap in the program itself and hides it from all that it starts.
__attribute__((constructor)) static void arm(void) {
    const char *value = getenv("CALLTRAP");
    char *end;
    if (!value) return;
    long count = strtol(value, &end, 10);
    if (*end == ':' && strlen(end + 1) < sizeof file) {
        strcpy(file, end + 1);
        atomic_store(&left, count);
    }
    unsetenv("CALLTRAP");
    unsetenv("LD_PRELOAD");
}

// Raw system calls: whatever is called here must not be counted.
static void count(void) {
    if (atomic_load(&left) <= 0 || atomic_fetch_sub(&left, 1) != 1) return;
    int saved = errno;
    char pid[16];
    int length = snprintf(pid, sizeof pid, "%d", getpid());
    int fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) {
        syscall(SYS_write, fd, pid, (size_t)length);
        syscall(SYS_close, fd);
    }
    kill(getpid(), SIGSTOP);
    errno = saved;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define TRAP(type, name, declared, given) \
    type name declared {                  \
        REAL(name);                       \
        count();                          \
        return real given;                \
    }

TRAP(int, mkdir, (const char *p, mode_t m), (p, m))
TRAP(int, rename, (const char *a, const char *b), (a, b))
TRAP(int, renameat2, (int x, const char *a, int y, const char *b, unsigned f), (x, a, y, b, f))
TRAP(int, link, (const char *a, const char *b), (a, b))
TRAP(int, symlink, (const char *a, const char *b), (a, b))
TRAP(int, unlink, (const char *p), (p))
TRAP(int, unlinkat, (int d, const char *p, int f), (d, p, f))
TRAP(int, rmdir, (const char *p), (p))
TRAP(ssize_t, write, (int d, const void *b, size_t n), (d, b, n))
TRAP(ssize_t, pwrite, (int d, const void *b, size_t n, off_t o), (d, b, n, o))
TRAP(int, fsync, (int d), (d))
TRAP(int, ftruncate, (int d, off_t n), (d, n))
TRAP(int, fallocate, (int d, int m, off_t o, off_t n), (d, m, o, n))
TRAP(int, chmod, (const char *p, mode_t m), (p, m))
TRAP(int, fchmod, (int d, mode_t m), (d, m))
TRAP(int, fchown, (int d, uid_t u, gid_t g), (d, u, g))
TRAP(int, lchown, (const char *p, uid_t u, gid_t g), (p, u, g))
TRAP(ssize_t, send, (int d, const void *b, size_t n, int f), (d, b, n, f))
TRAP(ssize_t, sendmsg, (int d, const struct msghdr *m, int f), (d, m, f))

// Open for reading changes nothing, so it does not count.
#define CHANGES(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & (O_CREAT | O_TRUNC)))
#define MODE(flags, last)                         \
    mode_t mode = 0;                              \
    if (__OPEN_NEEDS_MODE(flags)) {               \
        va_list rest;                             \
        va_start(rest, last);                     \
        mode = (mode_t)va_arg(rest, unsigned);    \
        va_end(rest);                             \
    }                                             \
    if (CHANGES(flags)) count();

int open(const char *path, int flags, ...) {
    REAL(open);
    MODE(flags, flags)
    return real(path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    REAL(openat);
    MODE(flags, flags)
    return real(folder, path, flags, mode);
}

// What shares blocks between files, and what makes networks and loop devices.
int ioctl(int fd, unsigned long request, ...) {
    REAL(ioctl);
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    count();
    return real(fd, request, argument);
}
