// SPDX-License-Identifier: Apache-2.0
// Where the processes of a control group may connect to: programs of the kernel (BPF) that look at
// the address of each connect, and of each datagram to an address of its own.
#ifndef ML_REACH_H
#define ML_REACH_H

#include <stddef.h>
#include <stdint.h>

enum ml_reach {
    ML_REACH_CONNECT4,
    ML_REACH_CONNECT6,
    ML_REACH_SEND4,
    ML_REACH_SEND6,
};

/// Puts a program of `count` instructions, each as the kernel reads it, in the place of those of the same
/// name that the group has for this call. Others stay. Returns 0 or -errno.
int ml_reach_set(
    int group, enum ml_reach call, const char *name, const uint64_t *program, size_t count);
/// Whether a program of that name holds for the group, by itself or by a group above: 1, 0 or -errno.
int ml_reach_holds(int group, enum ml_reach call, const char *name);

#endif
