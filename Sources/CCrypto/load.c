// SPDX-License-Identifier: Apache-2.0
#include "CCrypto.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

static struct ml_crypto functions;
static const struct ml_crypto *crypto;

#define ML_LOAD(type, function, parameters) \
    if (!(symbol = dlsym(library, #function))) return; \
    memcpy(&functions.function, &symbol, sizeof symbol);

static void load(void) {
    void *symbol, *library = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    ML_CRYPTO_FUNCTIONS(ML_LOAD)
    crypto = &functions;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

const struct ml_crypto *ml_crypto(void) {
    pthread_once(&once, load);
    return crypto;
}
