// SPDX-License-Identifier: Apache-2.0
#include "CStorage.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

// A function of another signature would be called wrongly and say nothing: the headers that this
// was compiled with and the library's soname promise together that there is none.
#define ML_LOAD(function) \
    if (!(symbol = dlsym(library, #function))) return NULL; \
    memcpy(&functions.function, &symbol, sizeof symbol);

static const struct ml_archive *load_archive(void) {
    static struct ml_archive functions;
    void *symbol, *library = dlopen("libarchive.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!library) return NULL;
    ML_ARCHIVE_FUNCTIONS(ML_LOAD)
    return &functions;
}

static const struct ml_nbd *load_nbd(void) {
    static struct ml_nbd functions;
    void *symbol, *library = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) return NULL;
    ML_NBD_FUNCTIONS(ML_LOAD)
    return &functions;
}

static const struct ml_zstd *load_zstd(void) {
    static struct ml_zstd functions;
    void *symbol, *library = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return NULL;
    ML_ZSTD_FUNCTIONS(ML_LOAD)
    return &functions;
}

static const struct ml_archive *archive;
static const struct ml_nbd *nbd;
static const struct ml_zstd *zstd;

static void load(void) {
    archive = load_archive();
    nbd = load_nbd();
    zstd = load_zstd();
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

const struct ml_archive *ml_archive(void) {
    pthread_once(&once, load);
    return archive;
}

const struct ml_nbd *ml_nbd(void) {
    pthread_once(&once, load);
    return nbd;
}

const struct ml_zstd *ml_zstd(void) {
    pthread_once(&once, load);
    return zstd;
}
