// SPDX-License-Identifier: Apache-2.0
#include "CExpat.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

// A function of another signature would be called wrongly and say nothing: the header that this was
// compiled with and the library's soname promise together that there is none.
#define ML_LOAD(function) \
    if (!(symbol = dlsym(library, #function))) return; \
    memcpy(&functions.function, &symbol, sizeof symbol);

static struct ml_expat functions;
static const struct ml_expat *loaded;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void) {
    void *symbol, *library = dlopen("libexpat.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    ML_EXPAT_FUNCTIONS(ML_LOAD)
    loaded = &functions;
}

const struct ml_expat *ml_expat(void) {
    pthread_once(&once, load);
    return loaded;
}
