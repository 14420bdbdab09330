// SPDX-License-Identifier: Apache-2.0
// /init of the initramfs: from an image's layers and a VM's data volume to a root that systemd can
// run on. Everything below / is read-only, because an overlay without an upper folder cannot be
// anything else; /var, /home and /root are the data volume. In the modes overlay and mutable, a
// folder of the data volume is the upper one, and takes what is written to the system.
//
// Disks are found by their virtio serial: layer0 (the lowest) to layerN, and data.
// Kernel command line: martlet.layers=N (default 1), martlet.data=tmpfs (a VM that keeps nothing),
// martlet.mode=overlay (what is written is dropped when the image changes) or mutable.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common.h"
#include "identity.h"
#include "overlay.h"
#include "verity.h"

#define ROOT "/sysroot"
#define OWN_LAYER "/own"
#define DATA "/data"
#define LAYER_PATH "/layers/%d"
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

enum { disk_deadline_ms = 10000, max_layers = 32 };

static void mount_kernel_filesystems(void) {
    make_folders("/dev", 0755);
    make_folders("/proc", 0755);
    make_folders("/sys", 0755);
    make_folders("/run", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
    int console = open("/dev/console", O_RDWR | O_NOCTTY);
    for (int fd = 0; console >= 0 && fd < 3; fd++) dup2(console, fd);
    if (console > 2) close(console);
    mount_or_fail("proc", "/proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
    mount_or_fail("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
    mount_or_fail("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=20%");
}

// The order of loading; after a line "-" what the root does not need.
static struct text module_list;

// Whether the kernel took a module. It may refuse what it took a thousand times before: once in many
// hundred starts of emulated guests, it found that a signature did not fit.
static int load_module(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "/modules/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int is_loaded = 0;
    for (int tries = 0; fd >= 0 && !is_loaded && tries < 3; tries++) {
        is_loaded = syscall(SYS_finit_module, fd, "", 0) == 0 || errno == EEXIST;
        if (!is_loaded) dprintf(2, "\nmartlet-init: module %s: %s\n", name, strerror(errno));
    }
    int error = errno;
    if (fd >= 0) close(fd);
    unlink(path);
    errno = error;
    return is_loaded;
}

static void load_root_modules(void) {
    if (read_file("/modules/list", &module_list) < 0) fail("cannot read the list of modules");
    char *name = strtok(module_list.bytes, "\n");
    for (; name && strcmp(name, "-"); name = strtok(NULL, "\n"))
        if (!load_module(name)) fail("cannot load the module %s", name);
}

// As fork(2); with CLONE_NEWNS in `flags` the child has mounts of its own from its first moment, and
// what we move afterwards stays where it was for it.
static pid_t start(unsigned long flags, void (*work)(void)) {
    pid_t pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid < 0) fail("cannot start a process");
    if (pid) return pid;
    work();
    _exit(0);
}

// Beside all else: on a second CPU it costs no time. systemd finds most of it done, and says of what
// cannot be loaded which unit lacks it: a guest without a balloon is better than none.
static void load_later_modules(void) {
    for (char *name; (name = strtok(NULL, "\n"));) load_module(name);
}

// The kernel settings of the VM and its image, as soon as the root is there: they take a fraction of
// the time that systemd needs to come to its first service. The VM's are below /run.
static void apply_settings(void) {
    mount_or_fail("/proc", ROOT "/proc", NULL, MS_BIND, NULL);
    mount_or_fail("/run", ROOT "/run", NULL, MS_BIND, NULL);
    if (chroot(ROOT) < 0 || chdir("/") < 0) fail("cannot enter the root");
    // What it cannot set, systemd-sysctl.service reports later.
    execl("/usr/lib/systemd/systemd-sysctl", "systemd-sysctl", (char *)NULL);
    fail("cannot start systemd-sysctl");
}

// The value of a word on the kernel command line, or `fallback`.
static const char *option(const char *name, const char *fallback) {
    static struct text line;
    size_t length = strlen(name);
    if (!line.bytes && read_file("/proc/cmdline", &line) < 0) fail("cannot read /proc/cmdline");
    for (char *word = line.bytes; *word;) {
        size_t size = strcspn(word, " \n");
        if (size > length && !strncmp(word, name, length) && word[length] == '=')
            return strndup(word + length + 1, size - length - 1);
        word += size + strspn(word + size, " \n");
    }
    return fallback;
}

static int disk_with_serial(const char *serial, char device[64]) {
    DIR *folder = opendir("/sys/block");
    struct dirent *entry;
    int found = 0;
    while (folder && !found && (entry = readdir(folder))) {
        char path[300];
        struct text text = {0};
        snprintf(path, sizeof path, "/sys/block/%s/serial", entry->d_name);
        if (!strncmp(entry->d_name, "vd", 2) && read_file(path, &text) == 0) {
            text.bytes[strcspn(text.bytes, "\n")] = 0;
            found = !strcmp(text.bytes, serial);
            snprintf(device, 64, "/dev/%.50s", entry->d_name);
        }
        free(text.bytes);
    }
    if (folder) closedir(folder);
    return found;
}

static void wait_for_disk(const char *serial, char device[64]) {
    for (int waited = 0; waited < disk_deadline_ms; waited++) {
        if (disk_with_serial(serial, device)) return;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    reject("no disk with the serial '%s'", serial);
}

static void mount_layers(int layers) {
    verity_load(layers);
    for (int layer = 0; layer < layers; layer++) {
        char serial[16], path[64], device[64];
        snprintf(serial, sizeof serial, "layer%d", layer);
        snprintf(path, sizeof path, LAYER_PATH, layer);
        wait_for_disk(serial, device);
        verity_open(layer, device);
        make_folders(path, 0755);
        if (mount(device, path, "erofs", MS_RDONLY, NULL) < 0)
            fail("cannot mount %s (%s)", serial, device);
    }
    make_folders(OWN_LAYER, 0755);
    mount_or_fail("martlet", OWN_LAYER, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
}

// The identity on top, then the layers from the highest to the lowest; an upper folder only in the
// modes that have one.
static void mount_root(int layers, int writable) {
    struct text options = {0};
    append_string(&options, "lowerdir=" OWN_LAYER);
    for (int layer = layers - 1; layer >= 0; layer--) {
        char path[64];
        snprintf(path, sizeof path, ":" LAYER_PATH, layer);
        append_string(&options, path);
    }
    // Plain layers, whatever the kernel's defaults: what another layer or kernel would have to
    // understand must not get into the upper folder.
    if (writable)
        append_string(&options, ",upperdir=" DATA OVERLAY_UPPER ",workdir=" DATA OVERLAY_WORK
                                ",redirect_dir=off,index=off,metacopy=off");
    make_folders(ROOT, 0755);
    mount_or_fail("martlet", ROOT, "overlay", writable ? MS_NOATIME : MS_RDONLY, options.bytes);
    free(options.bytes);
}

// Looks at the data volume before mounting it, so that the message says what is wrong. Returns the
// number of blocks to grow to, or 0 when the filesystem fills its disk.
static uint64_t examine_data(const char *device) {
    unsigned char super[1024];
    uint64_t bytes;
    int disk = open(device, O_RDONLY | O_CLOEXEC);
    if (disk < 0 || pread(disk, super, sizeof super, 1024) != sizeof super ||
        ioctl(disk, BLKGETSIZE64, &bytes) < 0)
        fail("cannot read the data volume");
    close(disk);
    uint16_t magic;
    uint32_t low, high, log_block;
    memcpy(&low, super + 0x4, 4);
    memcpy(&log_block, super + 0x18, 4);
    memcpy(&magic, super + 0x38, 2);
    memcpy(&high, super + 0x150, 4);
    if (magic != 0xef53) reject("the data volume holds no ext4 filesystem");
    uint64_t blocks = low | (uint64_t)high << 32, wanted = bytes >> (10 + log_block);
    if (blocks > wanted)
        reject("the data volume has %llu blocks, but its filesystem %llu: it was made smaller",
               (unsigned long long)wanted, (unsigned long long)blocks);
    return blocks < wanted ? wanted : 0;
}

static void mount_data(const char *target) {
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOATIME;
    if (!strcmp(option("martlet.data", "disk"), "tmpfs")) {
        mount_or_fail("data", target, "tmpfs", flags, "mode=0755,size=50%");
        return;
    }
    char device[64];
    wait_for_disk("data", device);
    uint64_t wanted = examine_data(device);
    mount_or_fail(device, target, "ext4", flags, "errors=remount-ro");
    if (!wanted) return;
    int folder = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 || ioctl(folder, EXT4_IOC_RESIZE_FS, &wanted) < 0)
        fail("cannot grow the filesystem of the data volume");
    close(folder);
}

static int is_empty_volume(const char *path) {
    DIR *folder = opendir(path);
    struct dirent *entry;
    int empty = folder != NULL;
    while (empty && (entry = readdir(folder)))
        empty = entry->d_name[0] == '.' || !strcmp(entry->d_name, "lost+found");
    if (folder) closedir(folder);
    return empty;
}

// Fills /var from the image's factory folder, once per image: the stamp comes last. A volume that
// was empty is filled without regard to what is there: only an earlier try can have put it there.
static void fill_data(void) {
    static const char factory[] = ROOT "/usr/share/factory/var", var[] = ROOT "/var",
                      stamp[] = ROOT "/var/lib/martlet/image",
                      filling[] = ROOT "/var/.martlet-filling";
    struct text text = {0};
    const char *image = identity_image();
    int stamped = read_file(stamp, &text) == 0;
    if (image && stamped && !strcmp(text.bytes, image)) return;
    if (!stamped && (access(filling, F_OK) == 0 || is_empty_volume(var))) {
        write_file(filling, "", 0, 0600, 0);
        copy_fresh(factory, var);
    } else {
        copy_missing(factory, var, NULL);
    }
    make_folders(ROOT "/var/home", 0755);
    make_folders(ROOT "/var/roothome", 0700);
    if (image) {
        write_file(ROOT "/var/lib/martlet/image.new", image, strlen(image), 0644, 0);
        sync();
        if (rename(ROOT "/var/lib/martlet/image.new", stamp) < 0) fail("cannot write %s", stamp);
    }
    unlink(filling);
}

static int exists(const char *folder, const char *name, const char *suffix) {
    char path[600];
    snprintf(path, sizeof path, ROOT "%s/%s%s", folder, name, suffix);
    return access(path, F_OK) == 0;
}

// Whether a script in /etc/init.d has no unit of its name, so that systemd must make one.
static int has_foreign_scripts(void) {
    DIR *folder = opendir(ROOT "/etc/init.d");
    struct dirent *entry;
    int found = 0;
    while (folder && !found && (entry = readdir(folder))) {
        char path[600], *name = entry->d_name;
        struct stat info;
        snprintf(path, sizeof path, ROOT "/etc/init.d/%s", name);
        if (stat(path, &info) < 0 || !S_ISREG(info.st_mode) || !(info.st_mode & 0111)) continue;
        size_t length = strlen(name);
        if (length > 3 && !strcmp(name + length - 3, ".sh")) name[length - 3] = 0;
        found = !exists("/usr/lib/systemd/system", name, ".service") &&
                !exists("/etc/systemd/system", name, ".service");
    }
    if (folder) closedir(folder);
    return found;
}

// Generators that would find nothing: each is a process that systemd waits for.
static void mask_idle_generators(void) {
    static const char folder[] = "/run/systemd/system-generators";
    int mounts = exists("/etc", "fstab", "") ||
                 access("/sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials/fstab.extra",
                        F_OK) == 0 ||
                 *option("systemd.mount-extra", "") || *option("systemd.swap-extra", "") ||
                 *option("fstab", "");
    make_folders(folder, 0755);
    if (chdir(folder) < 0) fail("cannot open %s", folder);
    if (!mounts) symlink("/dev/null", "systemd-fstab-generator");
    if (!has_foreign_scripts()) symlink("/dev/null", "systemd-sysv-generator");
    if (chdir("/") < 0) fail("cannot open /");
}

static void move_mount(const char *from, const char *to) {
    if (mount(from, to, NULL, MS_MOVE, NULL) < 0) fail("cannot move %s to %s", from, to);
}

int main(void) {
    umask(022);
    mount_kernel_filesystems();
    load_root_modules();
    start(0, load_later_modules);
    int layers = atoi(option("martlet.layers", "1"));
    if (layers < 1 || layers > max_layers) reject("martlet.layers must be 1 to %d", max_layers);
    const char *mode = option("martlet.mode", "immutable");
    int keep = !strcmp(mode, "mutable"), writable = keep || !strcmp(mode, "overlay");
    if (!writable && strcmp(mode, "immutable")) reject("martlet.mode: unknown mode '%s'", mode);
    identity_load();
    mount_layers(layers);
    if (writable) {
        make_folders(DATA, 0755);
        mount_data(DATA);
        overlay_prepare(DATA, identity_image(), keep);
    }
    identity_apply(OWN_LAYER, LAYER_PATH, layers, writable ? DATA OVERLAY_UPPER : NULL);
    mount_root(layers, writable);
    start(CLONE_NEWNS, apply_settings);
    if (writable) move_mount(DATA, ROOT "/var");
    else mount_data(ROOT "/var");
    fill_data();
    identity_make_homes(ROOT);
    mount_or_fail(ROOT "/var/home", ROOT "/home", NULL, MS_BIND, NULL);
    mount_or_fail(ROOT "/var/roothome", ROOT "/root", NULL, MS_BIND, NULL);
    mask_idle_generators();

    move_mount("/dev", ROOT "/dev");
    move_mount("/proc", ROOT "/proc");
    move_mount("/sys", ROOT "/sys");
    move_mount("/run", ROOT "/run");
    if (chdir(ROOT) < 0) fail("cannot enter the root");
    move_mount(".", "/");
    if (chroot(".") < 0 || chdir("/") < 0) fail("cannot enter the root");
    execl("/usr/lib/systemd/systemd", "systemd", (char *)NULL);
    fail("cannot start systemd");
}
