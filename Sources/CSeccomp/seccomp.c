// SPDX-License-Identifier: Apache-2.0
#include "CSeccomp.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#define FUNCTIONS(X) \
    X(seccomp_init) X(seccomp_release) X(seccomp_attr_set) X(seccomp_syscall_resolve_name) \
    X(seccomp_rule_add_array) X(seccomp_export_bpf)

#define MEMBER(function) __typeof__(&function) function;
static struct { FUNCTIONS(MEMBER) } functions;
static const char *problem;
static pthread_once_t once = PTHREAD_ONCE_INIT;

// A function of another signature would be called wrongly and say nothing: the header that this
// was compiled with and the library's soname promise together that there is none.
#define LOAD(function) \
    if (!(symbol = dlsym(library, #function))) { \
        problem = dlerror(); \
        return; \
    } \
    memcpy(&functions.function, &symbol, sizeof symbol);

static void load(void) {
    void *symbol, *library = dlopen("libseccomp.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        problem = dlerror();
        return;
    }
    FUNCTIONS(LOAD)
}

const char *ml_seccomp_missing(void) {
    pthread_once(&once, load);
    return problem;
}

scmp_filter_ctx ml_filter_new(int error) {
    scmp_filter_ctx filter = functions.seccomp_init(SCMP_ACT_ERRNO((uint16_t)error));
    if (!filter) return NULL;
    // A tree and not a list, where the library can; it decides nothing but the time it takes.
    functions.seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    return filter;
}

void ml_filter_free(scmp_filter_ctx filter) { functions.seccomp_release(filter); }

static int add(scmp_filter_ctx filter, uint32_t action, const char *name,
               const struct ml_argument *arguments, unsigned count) {
    struct scmp_arg_cmp comparisons[6];
    int number = functions.seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR || count > 6) return -EINVAL;
    for (unsigned i = 0; i < count; i++)
        comparisons[i] = (struct scmp_arg_cmp){.arg = arguments[i].number,
                                               .op = SCMP_CMP_MASKED_EQ,
                                               .datum_a = arguments[i].mask,
                                               .datum_b = arguments[i].value};
    int result = functions.seccomp_rule_add_array(filter, action, number, count, comparisons);
    // A negative number stands for a call of another machine: whatever is said of it, nobody can
    // make it here.
    return number < 0 ? 0 : result;
}

int ml_filter_allow(scmp_filter_ctx filter, const char *name, const struct ml_argument *arguments,
                    unsigned count) {
    return add(filter, SCMP_ACT_ALLOW, name, arguments, count);
}

int ml_filter_refuse(scmp_filter_ctx filter, const char *name, int error) {
    return add(filter, SCMP_ACT_ERRNO((uint16_t)error), name, NULL, 0);
}

int ml_filter_knows(const char *name) {
    return functions.seccomp_syscall_resolve_name(name) != __NR_SCMP_ERROR;
}

int ml_filter_write(scmp_filter_ctx filter, int fd) { return functions.seccomp_export_bpf(filter, fd); }
