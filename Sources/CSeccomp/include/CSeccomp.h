// SPDX-License-Identifier: Apache-2.0
// What Martlet uses of libseccomp, which knows the numbers of system calls on every machine. It is
// loaded by the first call: only a start of a VM needs it.
#pragma once
#include <seccomp.h>
#include <stdint.h>

/// Why the library cannot be loaded, or NULL when it can. Ask before any other call.
const char *_Nullable ml_seccomp_missing(void);

/// A filter that answers what no rule allows with an error number; NULL: no memory.
scmp_filter_ctx _Nullable ml_filter_new(int error);
void ml_filter_free(scmp_filter_ctx _Nonnull filter);

/// One argument of a call: it must be `value` in the bits of `mask`.
struct ml_argument {
    unsigned number;
    uint64_t mask, value;
};

/// Allows a call whose arguments are as given. Returns 0, or -errno; one that this machine does
/// not have is left out.
int ml_filter_allow(scmp_filter_ctx _Nonnull filter, const char *_Nonnull name,
                    const struct ml_argument *_Nullable arguments, unsigned count);
/// Answers a call with an error number of its own.
int ml_filter_refuse(scmp_filter_ctx _Nonnull filter, const char *_Nonnull name, int error);
/// Whether any machine has a call of that name.
int ml_filter_knows(const char *_Nonnull name);
/// Writes the filter as the kernel takes it. Returns 0, or -errno.
int ml_filter_write(scmp_filter_ctx _Nonnull filter, int fd);
