// SPDX-License-Identifier: Apache-2.0
// What `ml_spawn` makes of a child, or `ml_become` of the process itself, before the program is executed.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <fcntl.h>
#include <unistd.h>

enum {
    ML_PLACE_READABLE,
    ML_PLACE_WRITABLE,
    ML_PLACE_DEVICE,
    ML_PLACE_HIDDEN, // an empty folder, where another place shows one
    ML_PLACE_LINK,   // a symbolic link; under Landlock, what the host has there
};

struct ml_place {
    const char *path; // absolute
    int kind;
    int optional; // may be missing; a link of the host stays a link
    const char *target; // of a link
};

struct ml_sandbox {
    const struct ml_place *places; // the outer ones first; none: the host's files
    size_t nplaces;
    int landlock;              // close the host's files but for the places, without a root of its own
    const char *stage;         // a folder to put the new root together at; nothing is seen of it elsewhere
    const char *hidepid;       // of a new /proc: "invisible", "noaccess", "off", "ptraceable"
    int only_processes;        // of a new /proc: nothing else is in it
    const char *uid_map;       // NULL: no user namespace of its own; then /proc is the host's
    const char *gid_map;
    int own_ipc, own_hostname, own_keyring;
    int capability;            // the one that the program gets, or -1
    uint32_t device_owner;     // of nodes that are not everybody's; UINT32_MAX: as on the host
    const void *filter;        // of seccomp
    size_t filter_size;        // bytes
    const int *cgroups;        // open files cgroup.procs
    size_t ncgroups;
};

enum {
    ML_STEP_OTHER,
    ML_STEP_CGROUP,
    ML_STEP_USER_NAMESPACE,
    ML_STEP_NAMESPACES,
    ML_STEP_ROOT,
    ML_STEP_PLACE,
    ML_STEP_DEVICES,
    ML_STEP_PROC,
    ML_STEP_PIVOT,
    ML_STEP_LANDLOCK,
    ML_STEP_CAPABILITIES,
    ML_STEP_FILTER,
    ML_STEP_EXEC,
};

/// What a step is for, in words that follow "cannot".
const char *ml_step_name(int step);

// For the child alone, in this order; each returns 0, or -1 and errno.
int ml_join_cgroups(const struct ml_sandbox *s);
int ml_enter_view(const struct ml_sandbox *s, int new_network, int *step, int *place);
int ml_seal_capabilities(const struct ml_sandbox *s);
int ml_drop_capabilities(const struct ml_sandbox *s);
int ml_close_files(const struct ml_sandbox *s, int *place);
int ml_seal(const struct ml_sandbox *s);
int ml_filter(const struct ml_sandbox *s);
