// SPDX-License-Identifier: Apache-2.0
// sshd on a virtio-serial port, so that `exec` needs no network in the guest.
//
// A serial port has no connections: when the host's end is closed and opened again, bytes of the
// old session may still be on their way in both directions, and the change itself can be missed
// when it is fast. So every session begins with a handshake that the host starts:
//
//     host:   \x01martlet-hello NONCE\n      NONCE: 32 hexadecimal digits, new for each hello
//     guest:  \x01martlet-ready NONCE\n
//
// The guest looks for a hello always, in a running session too (sshd's stream is encrypted, so
// nobody can put one there by chance or by intent): it ends that session and begins a new one. The
// host drops all bytes until the answer with its latest nonce, and says hello with a new nonce
// when no answer comes for a while. From there on the bytes are those of `sshd -i`.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

static const char hello[] = "\x01martlet-hello ", answer[] = "\x01martlet-ready ";
enum { look_again_ms = 250 };
enum { hello_length = sizeof hello - 1, nonce_length = 32, buffer_size = 65536 };

struct buffer {
    char bytes[buffer_size];
    size_t start, end;
};

static struct {
    int port, events;
    int child;  // our end of the socket pair, -1 without a session
    int looked_again;
    struct buffer in, out;
    size_t matched;  // bytes of a hello seen so far
    char nonce[nonce_length + 1];
} self = {.child = -1};

static int is_empty(const struct buffer *buffer) { return buffer->start == buffer->end; }

static void clear(struct buffer *buffer) { buffer->start = buffer->end = 0; }

static void end_session(void) {
    if (self.child < 0) return;
    close(self.child);  // sshd ends at the end of its input; this also leaves the epoll set
    self.child = -1;
    clear(&self.in);
    clear(&self.out);
}

static void begin_session(void) {
    int pair[2];
    end_session();
    clear(&self.out);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return;
    pid_t pid = fork();
    if (pid == 0) {
        // sshd's own alarm for a login that takes too long ends a whole process group, and only one
        // that it leads: else the process that holds the connection would stay.
        setsid();
        signal(SIGCHLD, SIG_DFL);  // sshd waits for its children
        dup2(pair[1], 0);
        dup2(pair[1], 1);
        execl("/usr/sbin/sshd", "sshd", "-i", "-f", "/usr/lib/martlet/sshd_exec_config",
              (char *)NULL);
        _exit(127);
    }
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return;
    }
    self.child = pair[0];
    fcntl(self.child, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
    epoll_ctl(self.events, EPOLL_CTL_ADD, self.child, &event);
    self.out.end = (size_t)snprintf(self.out.bytes, buffer_size, "%s%s\n", answer, self.nonce);
}

// Goes on with the search for a hello by one byte; true when it is complete.
static int matches(char byte) {
    size_t at = self.matched++;
    if (at < hello_length && byte == hello[at]) return 0;
    if (at >= hello_length && at < hello_length + nonce_length && strchr("0123456789abcdef", byte) &&
        byte) {
        self.nonce[at - hello_length] = byte;
        return 0;
    }
    if (at == hello_length + nonce_length && byte == '\n') {
        self.matched = 0;
        return 1;
    }
    // The first byte of a hello occurs nowhere else in it.
    self.matched = byte == hello[0];
    return 0;
}

// Returns whether anything moved.
static int read_port(void) {
    if (!is_empty(&self.in)) return 0;
    ssize_t n = read(self.port, self.in.bytes, buffer_size);
    if (n == 0) end_session();  // the host's end is closed
    if (n <= 0) return 0;
    if (self.looked_again) fprintf(stderr, "%zd bytes came without an event\n", n);
    self.in.start = 0;
    self.in.end = (size_t)n;
    for (size_t i = 0; i < (size_t)n; i++) {
        if (!matches(self.in.bytes[i])) continue;
        size_t end = self.in.end;
        begin_session();
        self.in.start = i + 1;
        self.in.end = end;
    }
    if (self.child < 0) clear(&self.in);
    return 1;
}

static int pour(struct buffer *buffer, int fd) {
    if (is_empty(buffer)) return 0;
    ssize_t n = write(fd, buffer->bytes + buffer->start, buffer->end - buffer->start);
    if (n < 0 && errno == EPIPE) end_session();
    if (n <= 0) return 0;
    buffer->start += (size_t)n;
    return 1;
}

static int read_child(void) {
    if (self.child < 0 || !is_empty(&self.out)) return 0;
    ssize_t n = read(self.child, self.out.bytes, buffer_size);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (n <= 0) {
        end_session();
        return 1;
    }
    self.out.start = 0;
    self.out.end = (size_t)n;
    return 1;
}

static int host_is_gone(void) {
    struct pollfd one = {.fd = self.port, .events = POLLIN};
    // With bytes still to read, they come first.
    return poll(&one, 1, 0) > 0 && (one.revents & POLLHUP) && !(one.revents & POLLIN);
}

int port(void) {
    self.port = open_port("org.martlet.ssh", O_RDWR | O_NONBLOCK);
    if (self.port < 0) {
        fprintf(stderr, "no port org.martlet.ssh: %s\n", strerror(errno));
        return errno == ENOENT ? 0 : 1;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);  // children are reaped by the kernel
    // Edge-triggered: a port without a host is always "hung up", and would spin otherwise. The
    // kernel wakes us when the host's end opens or closes, and when bytes or room appear.
    self.events = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
    if (self.events < 0 || epoll_ctl(self.events, EPOLL_CTL_ADD, self.port, &event) < 0) return 1;
    for (;;) {
        int moved;
        do {
            moved = read_port();
            if (self.child >= 0) moved |= pour(&self.in, self.child);
            moved |= read_child();
            moved |= pour(&self.out, self.port);
            if (self.child >= 0 && host_is_gone()) end_session();
        } while (moved);
        // While a session is open, look again soon: once, bytes that QEMU had taken were not read
        // here for minutes, without an event, while the other side waited for our answer. Why is not
        // known; what is found in this way is said above.
        int limit = self.child < 0 ? -1 : look_again_ms;
        self.looked_again = epoll_wait(self.events, &event, 1, limit) == 0;
    }
}
