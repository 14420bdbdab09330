// SPDX-License-Identifier: Apache-2.0
// Health checks from inside the guest: they see a service as it is, whatever its networks allow.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "agent.h"

int dial(int port, int seconds) {
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port),
                               .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const struct {
        const struct sockaddr *address;
        socklen_t length;
    } tries[] = {{(struct sockaddr *)&four, sizeof four}, {(struct sockaddr *)&six, sizeof six}};
    int saved = 0;
    for (size_t i = 0; i < 2; i++) {
        int fd = socket(tries[i].address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        // The send timeout bounds connect too.
        struct timeval timeout = {.tv_sec = seconds};
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
        if (connect(fd, tries[i].address, tries[i].length) == 0) return fd;
        // What IPv4 said is the message, unless the service is on IPv6 alone.
        if (!saved) saved = errno == EINPROGRESS ? ETIMEDOUT : errno;
        close(fd);
    }
    errno = saved;
    return -1;
}

// The status code of a GET, or -1 with errno.
static int get(int fd, int port, const char *path) {
    char text[2048];
    int length = snprintf(text, sizeof text,
                          "GET %s HTTP/1.1\r\nHost: localhost:%d\r\nUser-Agent: martlet\r\n"
                          "Accept: */*\r\nConnection: close\r\n\r\n",
                          path, port);
    errno = EMSGSIZE;
    if (length >= (int)sizeof text || send(fd, text, (size_t)length, MSG_NOSIGNAL) != length)
        return -1;
    size_t have = 0;
    int code = 0;
    // Only the first line counts: HTTP/1.1 200 OK
    while (have < 64) {
        ssize_t n = recv(fd, text + have, sizeof text - 1 - have, 0);
        if (n < 0) return -1;
        if (n == 0) break;
        have += (size_t)n;
        text[have] = 0;
        if (strchr(text, '\n')) break;
    }
    errno = EPROTO;
    if (have && !strncmp(text, "HTTP/", 5) && strchr(text, ' ')) code = atoi(strchr(text, ' '));
    return code > 0 ? code : -1;
}

static void too_late(int number) {
    (void)number;
    static const char line[] = "no answer in time\n";
    (void)!write(1, line, sizeof line - 1);
    _exit(1);
}

int probe(int count, char **arguments) {
    int http = count >= 3 && !strcmp(arguments[0], "http");
    if (!http && !(count >= 2 && !strcmp(arguments[0], "tcp"))) {
        fprintf(stderr, "usage: guest probe tcp PORT [SECONDS] | http PORT PATH [SECONDS]\n");
        return 64;
    }
    int port = atoi(arguments[1]), last = http ? 3 : 2;
    int seconds = count > last ? atoi(arguments[last]) : 2;
    signal(SIGALRM, too_late);
    alarm((unsigned)seconds + 1);  // a server that drips bytes must not hold the check
    int fd = dial(port, seconds > 0 ? seconds : 1);
    if (fd < 0) {
        printf("port %d: %s\n", port, strerror(errno));
        return 1;
    }
    if (!http) {
        printf("port %d: connected\n", port);
        return 0;
    }
    int code = get(fd, port, arguments[2]);
    if (code < 0) {
        int timeout = errno == EAGAIN || errno == EWOULDBLOCK;
        printf("http port %d %s: %s\n", port, arguments[2],
               timeout ? "no answer in time" : strerror(errno));
        return 1;
    }
    printf("http port %d %s: %d\n", port, arguments[2], code);
    return code >= 200 && code < 400 ? 0 : 1;
}
