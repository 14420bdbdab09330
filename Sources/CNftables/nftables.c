// SPDX-License-Identifier: Apache-2.0
#include <CNftables.h>
#include <dlfcn.h>
#include <pthread.h>

static void *library;
static const char *problem;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void) {
    library = dlopen("libnftables.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) problem = dlerror();
}

const char *nft_missing(void) {
    pthread_once(&once, load);
    return problem;
}

// The library's own functions under their own names; each is looked up once, and twice by two
// threads at once does no harm.
#define FORWARD(type, name, parameters, arguments)                          \
    type name parameters {                                                  \
        static type(*_Atomic real) parameters;                              \
        if (!real) real = (type(*) parameters)dlsym(library, #name);        \
        return real arguments;                                              \
    }

FORWARD(struct nft_ctx *, nft_ctx_new, (uint32_t flags), (flags))
FORWARD(void, nft_ctx_free, (struct nft_ctx * context), (context))
FORWARD(int, nft_ctx_buffer_output, (struct nft_ctx * context), (context))
FORWARD(int, nft_ctx_buffer_error, (struct nft_ctx * context), (context))
FORWARD(const char *, nft_ctx_get_output_buffer, (struct nft_ctx * context), (context))
FORWARD(const char *, nft_ctx_get_error_buffer, (struct nft_ctx * context), (context))
FORWARD(void, nft_ctx_output_set_flags, (struct nft_ctx * context, unsigned int flags),
        (context, flags))
FORWARD(void, nft_ctx_set_dry_run, (struct nft_ctx * context, bool dry), (context, dry))
FORWARD(int, nft_run_cmd_from_buffer, (struct nft_ctx * context, const char *text),
        (context, text))
