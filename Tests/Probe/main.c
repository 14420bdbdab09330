// SPDX-License-Identifier: Apache-2.0
// For tests alone: tries what somebody would try who has taken over a hypervisor, and says of each
// attempt `NAME ok` or `NAME` and the error. Each is made by a child of its own.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *argument;

// Each returns 0, or -1 with errno.
static int do_read(void) {
    char byte;
    int fd = open(argument, O_RDONLY);
    return fd < 0 || read(fd, &byte, 1) < 0 ? -1 : 0;
}
static int do_write(void) { return open(argument, O_WRONLY | O_CREAT, 0600) < 0 ? -1 : 0; }
static int do_list(void) { return opendir(argument) ? 0 : -1; }
static int do_connect(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strncpy(a.sun_path, argument, sizeof a.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(fd, (struct sockaddr *)&a, sizeof a);
}
static int do_inet(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argument))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? -1 : connect(fd, (struct sockaddr *)&a, sizeof a);
}
// The same by a socket of IPv6.
static int do_mapped(void) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(argument))};
    if (inet_pton(AF_INET6, "::ffff:127.0.0.1", &a.sin6_addr) != 1) return -1;
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    return fd < 0 ? -1 : connect(fd, (struct sockaddr *)&a, sizeof a);
}
// Datagrams without a connection, to whatever does not listen there.
static int do_datagram(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argument))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    return fd < 0 || sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof a) < 0 ? -1 : 0;
}
static int do_datagram6(void) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(argument))};
    a.sin6_addr = in6addr_loopback;
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    return fd < 0 || sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof a) < 0 ? -1 : 0;
}
static int do_netlink(void) { return socket(AF_NETLINK, SOCK_RAW, 0) < 0 ? -1 : 0; }
static pid_t victim(void) {
    pid_t child = fork();
    if (child == 0) for (;;) pause();
    return child;
}
static int after(pid_t child, long result) {
    int saved = errno;
    kill(child, SIGKILL);
    errno = saved;
    return result < 0 ? -1 : 0;
}
static int do_ptrace(void) {
    pid_t child = victim();
    return after(child, ptrace(PTRACE_SEIZE, child, 0, 0));
}
static int do_peek(void) {
    static char here;
    pid_t child = victim();
    struct iovec one = {&here, 1};
    return after(child, process_vm_readv(child, &one, 1, &one, 1, 0));
}
static int do_others(void) {
    // Somebody else's process: the first one.
    struct stat info;
    return stat("/proc/1/status", &info);
}
static int do_namespace(void) { return unshare(CLONE_NEWUSER); }
static int do_clone(void) {
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    return pid < 0 ? -1 : 0;
}
static int do_mount(void) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) return -1;
    return mount("none", "/", "tmpfs", 0, 0);
}
static int do_setns(void) {
    int fd = open("/proc/self/ns/uts", O_RDONLY);
    return setns(fd, CLONE_NEWUTS);
}
static int do_keys(void) {
    return (int)syscall(SYS_add_key, "user", "martlet-probe", "x", 1, -3) < 0 ? -1 : 0;
}
static int do_uring(void) {
    char parameters[120] = {0};
    return syscall(SYS_io_uring_setup, 1, parameters) < 0 ? -1 : 0;
}
static int do_module(void) { return syscall(SYS_init_module, "", 0, "") < 0 ? -1 : 0; }
static int do_file_module(void) { return syscall(SYS_finit_module, -1, "", 0) < 0 ? -1 : 0; }
static int do_kexec(void) { return syscall(SYS_kexec_load, 0, 0, 0, 0) < 0 ? -1 : 0; }
static int do_bpf(void) {
    char attributes[64] = {1, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1};
    return syscall(SYS_bpf, 0, attributes, sizeof attributes) < 0 ? -1 : 0;
}
static int do_perf(void) {
    char attributes[128] = {0};
    return syscall(SYS_perf_event_open, attributes, -1, 0, -1, 0) < 0 ? -1 : 0;
}
static int do_device(void) { return mknod(argument, S_IFCHR | 0600, 0x103); }
static int do_user(void) { return setuid(0); }
static int do_executable_memory(void) {
    return mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
                   MAP_FAILED ? -1 : 0;
}
static int do_set_id(void) {
    int fd = open(argument, O_WRONLY | O_CREAT, 0700);
    return fd < 0 ? -1 : fchmod(fd, 04755);
}
static int do_drop(void) {
    // A program that one writes oneself.
    int from = open("/proc/self/exe", O_RDONLY), to = open(argument, O_WRONLY | O_CREAT | O_TRUNC, 0700);
    char bytes[65536];
    ssize_t n;
    if (from < 0 || to < 0) return -1;
    while ((n = read(from, bytes, sizeof bytes)) > 0)
        if (write(to, bytes, (size_t)n) != n) return -1;
    close(to);
    execl(argument, argument, "nothing", (char *)0);
    return -1;
}
static int do_become_root(void) {
    // A set-user-id program that answers by its exit code whose rights it has.
    execl(argument, argument, "whose", (char *)0);
    return -1;
}
static int do_memory(void) {
    size_t size = (size_t)atoi(argument) << 20;
    char *bytes = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) return -1;
    for (size_t at = 0; at < size; at += 4096) bytes[at] = 1;
    return 0;
}
static int do_tasks(void) {
    int wanted = atoi(argument), made = 0, failure = 0;
    setpgid(0, 0);
    for (; made < wanted; made++) {
        pid_t child = fork();
        if (child < 0) {
            failure = errno;
            break;
        }
        if (child == 0) for (;;) pause();
    }
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    while (wait(NULL) > 0) {}
    errno = failure;
    return failure ? -1 : 0;
}

static const struct {
    const char *name;
    int (*attempt)(void);
} attempts[] = {
    {"read", do_read}, {"write", do_write}, {"list", do_list}, {"connect", do_connect},
    {"inet", do_inet}, {"mapped", do_mapped}, {"datagram", do_datagram},
    {"datagram6", do_datagram6}, {"netlink", do_netlink}, {"ptrace", do_ptrace}, {"peek", do_peek},
    {"others", do_others}, {"namespace", do_namespace}, {"clone", do_clone}, {"mount", do_mount},
    {"setns", do_setns}, {"keys", do_keys}, {"uring", do_uring}, {"module", do_module},
    {"file-module", do_file_module}, {"kexec", do_kexec}, {"bpf", do_bpf}, {"perf", do_perf},
    {"device", do_device}, {"user", do_user}, {"executable-memory", do_executable_memory},
    {"set-id", do_set_id}, {"drop", do_drop}, {"become-root", do_become_root},
    {"memory", do_memory}, {"tasks", do_tasks},
};

static void attempt(const char *label, const char *name) {
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        if (strcmp(attempts[i].name, name)) continue;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) _exit(attempts[i].attempt() == 0 ? 0 : errno ? errno : 255);
        int status = 0;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status)) printf("%s signal %d\n", label, WTERMSIG(status));
        else if (WEXITSTATUS(status)) printf("%s %s\n", label, strerrorname_np(WEXITSTATUS(status)));
        else printf("%s ok\n", label);
        return;
    }
    printf("%s unknown\n", label);
}

// Arguments: LABEL NAME ARGUMENT, again and again.
int main(int count, char **words) {
    if (count == 2 && !strcmp(words[1], "nothing")) return 0;
    if (count == 2 && !strcmp(words[1], "whose")) return geteuid() == 0 ? 0 : EPERM;
    for (int i = 1; i + 2 < count; i += 3) {
        argument = words[i + 2];
        attempt(words[i], words[i + 1]);
    }
    return 0;
}
