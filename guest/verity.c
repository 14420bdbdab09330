// SPDX-License-Identifier: Apache-2.0
// /verity has a line for each layer, the lowest first: the bytes of its content, behind which the
// tree begins, and the root hash. It comes with the initramfs, which the host has checked, so that
// neither a layer nor the guest can say what the layer ought to be.
//
// A block that is not what it was ends the guest by a panic, and is given to nobody. Errors of
// reading would let it go on without what it could not read: a firewall, for one.
#include "verity.h"

#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common.h"

enum { block = 4096, sector = 512, root_length = 64 };

static struct text list;
static int control = -1;

static int is_root_hash(const char *text) {
    return strspn(text, "0123456789abcdef") == root_length && !text[root_length];
}

void verity_load(int layers) {
    if (access("/verity", F_OK) < 0) return;
    if (read_file("/verity", &list) < 0) fail("cannot read /verity");
    int lines = 0;
    for (size_t i = 0; i < list.length; i++) lines += list.bytes[i] == '\n';
    if (lines != layers) reject("/verity names %d layers, and there are %d", lines, layers);
    control = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
    if (control < 0) fail("cannot open /dev/mapper/control");
}

// The line of a layer: the bytes of its content and its root hash.
static uint64_t described(int layer, char root[root_length + 1]) {
    const char *line = list.bytes;
    for (int i = 0; i < layer; i++) line = strchr(line, '\n') + 1;
    char text[128], *end;
    snprintf(text, sizeof text, "%.*s", (int)strcspn(line, "\n"), line);
    uint64_t bytes = strtoull(text, &end, 10);
    if (!bytes || bytes % block || *end != ' ' || !is_root_hash(end + 1))
        reject("/verity: '%s' describes no layer", text);
    memcpy(root, end + 1, root_length + 1);
    return bytes;
}

// One request about a device of the device mapper; `table` is what it is made of, if that is asked.
static void request(unsigned long what, int layer, uint32_t flags, uint64_t sectors,
                    const char *table, struct dm_ioctl *answer) {
    struct {
        struct dm_ioctl head;
        struct dm_target_spec target;
        char table[512];
    } message = {
        .head = {.version = {DM_VERSION_MAJOR, 0, 0},
                 .data_size = sizeof message,
                 .data_start = sizeof message.head,
                 .flags = flags},
    };
    snprintf(message.head.name, sizeof message.head.name, "layer%d", layer);
    if (table) {
        message.head.target_count = 1;
        message.target.length = sectors;
        strcpy(message.target.target_type, "verity");
        snprintf(message.table, sizeof message.table, "%s", table);
    }
    if (ioctl(control, what, &message) < 0) fail("cannot check the layer %d as it is read", layer);
    if (answer) *answer = message.head;
}

void verity_open(int layer, char device[64]) {
    if (control < 0) return;
    char root[root_length + 1], table[400];
    uint64_t bytes = described(layer, root), blocks = bytes / block;
    struct dm_ioctl answer;
    request(DM_DEV_CREATE, layer, DM_READONLY_FLAG, 0, NULL, &answer);
    snprintf(table, sizeof table,
             "1 %s %s %d %d %llu %llu sha256 %s - 1 panic_on_corruption", device,
             device, block, block, (unsigned long long)blocks, (unsigned long long)blocks, root);
    request(DM_TABLE_LOAD, layer, DM_READONLY_FLAG, bytes / sector, table, NULL);
    request(DM_DEV_SUSPEND, layer, 0, 0, NULL, NULL);
    snprintf(device, 64, "/dev/dm-%u", minor((dev_t)answer.dev));
}
