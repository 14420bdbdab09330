// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { max_programs = 64 };

static const enum bpf_attach_type kinds[] = {
    [ML_REACH_CONNECT4] = BPF_CGROUP_INET4_CONNECT,
    [ML_REACH_CONNECT6] = BPF_CGROUP_INET6_CONNECT,
    [ML_REACH_SEND4] = BPF_CGROUP_UDP4_SENDMSG,
    [ML_REACH_SEND6] = BPF_CGROUP_UDP6_SENDMSG,
};

static int bpf(int command, union bpf_attr *attr) {
    int result = (int)syscall(SYS_bpf, command, attr, sizeof *attr);
    return result < 0 ? -errno : result;
}

// The programs of a name that hold for a group; `flags` says whether those of the groups above count.
// Returns how many there are, their descriptors the caller's, or -errno.
static int find(
    int group, enum bpf_attach_type kind, uint32_t flags, const char *name, int found[max_programs]) {
    uint32_t ids[max_programs];
    union bpf_attr query = {0};
    query.query.target_fd = (uint32_t)group;
    query.query.attach_type = kind;
    query.query.query_flags = flags;
    query.query.prog_ids = (uintptr_t)ids;
    query.query.prog_cnt = max_programs;
    int result = bpf(BPF_PROG_QUERY, &query);
    if (result < 0) return result;
    int count = 0;
    for (uint32_t i = 0; i < query.query.prog_cnt; i++) {
        union bpf_attr open = {0};
        open.prog_id = ids[i];
        int fd = bpf(BPF_PROG_GET_FD_BY_ID, &open);
        // One that went away meanwhile.
        if (fd < 0) continue;
        struct bpf_prog_info about = {0};
        union bpf_attr info = {0};
        info.info.bpf_fd = (uint32_t)fd;
        info.info.info = (uintptr_t)&about;
        info.info.info_len = sizeof about;
        if (bpf(BPF_OBJ_GET_INFO_BY_FD, &info) == 0 &&
            strncmp(about.name, name, sizeof about.name) == 0)
            found[count++] = fd;
        else
            close(fd);
    }
    return count;
}

int ml_reach_set(
    int group, enum ml_reach call, const char *name, const uint64_t *program, size_t count) {
    union bpf_attr load = {0};
    load.prog_type = BPF_PROG_TYPE_CGROUP_SOCK_ADDR;
    load.expected_attach_type = kinds[call];
    load.insns = (uintptr_t)program;
    load.insn_cnt = (uint32_t)count;
    load.license = (uintptr_t) "Apache-2.0";
    strncpy(load.prog_name, name, sizeof load.prog_name - 1);
    int fd = bpf(BPF_PROG_LOAD, &load);
    if (fd < 0) return fd;
    int old[max_programs];
    int number = find(group, kinds[call], 0, name, old);
    if (number < 0) {
        close(fd);
        return number;
    }
    union bpf_attr attach = {0};
    attach.target_fd = (uint32_t)group;
    attach.attach_bpf_fd = (uint32_t)fd;
    attach.attach_type = kinds[call];
    // Beside those of others, the service manager's among them.
    attach.attach_flags = BPF_F_ALLOW_MULTI;
    int result = bpf(BPF_PROG_ATTACH, &attach);
    close(fd);
    for (int i = 0; i < number; i++) {
        // Only now: between the two there is never none.
        attach.attach_bpf_fd = (uint32_t)old[i];
        attach.attach_flags = 0;
        if (result == 0) (void)bpf(BPF_PROG_DETACH, &attach);
        close(old[i]);
    }
    return result;
}

int ml_reach_holds(int group, enum ml_reach call, const char *name) {
    int found[max_programs];
    int count = find(group, kinds[call], BPF_F_QUERY_EFFECTIVE, name, found);
    for (int i = 0; i < count; i++) close(found[i]);
    return count > 0 ? 1 : count;
}
