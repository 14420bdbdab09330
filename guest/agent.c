// SPDX-License-Identifier: Apache-2.0
// /usr/lib/martlet/guest: the small helpers inside a running VM, in one static program.
//
//     guest port                        sshd on a virtio-serial port (port.c)
//     guest ready                       tells the supervisor that sshd answers
//     guest state                       tells it how the start went, with the failed units
//     guest probe tcp PORT [SECONDS]    health checks (probe.c)
//     guest probe http PORT PATH [SECONDS]
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int open_port(const char *name, int flags) {
    // Not /dev/virtio-ports: its links come from udev, which starts later than we do.
    DIR *folder = opendir("/sys/class/virtio-ports");
    struct dirent *entry;
    int fd = -1;
    errno = ENOENT;
    while (folder && fd < 0 && (entry = readdir(folder))) {
        char path[300], found[64] = "";
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0) continue;
        ssize_t length = read(file, found, sizeof found - 1);
        close(file);
        found[length > 0 ? strcspn(found, "\n") : 0] = 0;
        if (strcmp(found, name)) continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        // The kernel lets one process at a time have a port: wait for the one before us.
        for (int tries = 0; fd < 0 && tries < 100; tries++) {
            fd = open(path, flags | O_CLOEXEC);
            if (fd >= 0 || errno != EBUSY) break;
            usleep(20000);
        }
        break;
    }
    if (folder) closedir(folder);
    return fd;
}

// Writes a line to the supervisor. A host that listens to nothing must not hold up anybody.
static int tell(const char *line) {
    int fd = open_port("org.martlet.ready", O_WRONLY);
    if (fd < 0) {
        fprintf(stderr, "no port org.martlet.ready: %s\n", strerror(errno));
        return 0;
    }
    alarm(10);
    ssize_t n = write(fd, line, strlen(line));
    alarm(0);
    close(fd);
    return n == (ssize_t)strlen(line) ? 0 : 1;
}

// Adds the first words of a command's lines to `line`, separated by spaces.
static void add_words(char *line, size_t size, const char *command) {
    FILE *pipe = popen(command, "r");
    char row[512];
    while (pipe && fgets(row, sizeof row, pipe)) {
        row[strcspn(row, " \n")] = 0;
        size_t used = strlen(line);
        if (*row) snprintf(line + used, size - used, " %s", row);
    }
    if (pipe) pclose(pipe);
}

// Waits for sshd's first words, so that "ready" is what a caller would find. An image without sshd
// is ready at once, and one whose sshd is ill must not hold up the rest.
static int ready(void) {
    char word[4] = "";
    int fd = dial(22, 3);
    if (fd >= 0 && read(fd, word, sizeof word) < 0) perror("sshd");
    if (fd >= 0) close(fd);
    return tell("ready\n");
}

// What would hinder the start and holds from its end on, such as that no module is loaded any more. A
// file of the image that comes later in the alphabet has the last word here, too.
static void apply_late_settings(void) {
    static const char settings[] = "/run/martlet/sysctl-late.conf",
                      link[] = "/run/sysctl.d/91-late.conf";
    if (access(settings, F_OK) < 0) return;
    mkdir("/run/sysctl.d", 0755);
    if (symlink(settings, link) < 0 && errno != EEXIST) return perror(link);
    if (system("/usr/lib/systemd/systemd-sysctl --prefix=/kernel/modules_disabled"))
        fprintf(stderr, "systemd-sysctl could not apply %s\n", settings);
}

static int state(void) {
    char line[4096] = "state";
    add_words(line, sizeof line - 1, "systemctl is-system-running --wait");
    // On a busy host the unit that is to say so may have run into its limit.
    ready();
    // The command line's rcupdate.rcu_expedited is for the start alone.
    int expedited = open("/sys/kernel/rcu_expedited", O_WRONLY | O_CLOEXEC);
    if (expedited >= 0 && write(expedited, "0", 1) < 0) perror("rcu_expedited");
    if (expedited >= 0) close(expedited);
    apply_late_settings();
    add_words(line, sizeof line - 1, "systemctl list-units --failed --plain --no-legend");
    strcat(line, "\n");
    return tell(line);
}

int main(int count, char **arguments) {
    const char *verb = count > 1 ? arguments[1] : "";
    if (!strcmp(verb, "port")) return port();
    if (!strcmp(verb, "ready")) return ready();
    if (!strcmp(verb, "state")) return state();
    if (!strcmp(verb, "probe")) return probe(count - 2, arguments + 2);
    fprintf(stderr, "usage: guest port | ready | state | probe tcp PORT | probe http PORT PATH\n");
    return 64;
}
