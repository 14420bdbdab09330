// SPDX-License-Identifier: Apache-2.0
// What Martlet uses of libcrypto (OpenSSL 3), loaded when a file of sops is read or an image is hashed: linked, it
// would cost every start of martlet time. The prototypes stand here so that building needs no
// headers of OpenSSL; its soname promises that they stay.
#pragma once
#include <stddef.h>

typedef struct evp_cipher_st EVP_CIPHER;
typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;
typedef struct evp_md_st EVP_MD;
typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct engine_st ENGINE;

#define ML_CRYPTO_FUNCTIONS(X) \
    X(const EVP_CIPHER *_Nullable, EVP_aes_256_gcm, (void)) \
    X(EVP_CIPHER_CTX *_Nullable, EVP_CIPHER_CTX_new, (void)) \
    X(void, EVP_CIPHER_CTX_free, (EVP_CIPHER_CTX *_Nullable)) \
    X(int, EVP_CIPHER_CTX_ctrl, (EVP_CIPHER_CTX *_Nonnull, int, int, void *_Nullable)) \
    X(int, EVP_CipherInit_ex, \
      (EVP_CIPHER_CTX *_Nonnull, const EVP_CIPHER *_Nullable, ENGINE *_Nullable, \
       const unsigned char *_Nullable, const unsigned char *_Nullable, int)) \
    X(int, EVP_CipherUpdate, \
      (EVP_CIPHER_CTX *_Nonnull, unsigned char *_Nullable, int *_Nonnull, \
       const unsigned char *_Nullable, int)) \
    X(int, EVP_CipherFinal_ex, \
      (EVP_CIPHER_CTX *_Nonnull, unsigned char *_Nullable, int *_Nonnull)) \
    X(const EVP_MD *_Nullable, EVP_sha256, (void)) \
    X(const EVP_MD *_Nullable, EVP_sha512, (void)) \
    X(EVP_MD_CTX *_Nullable, EVP_MD_CTX_new, (void)) \
    X(void, EVP_MD_CTX_free, (EVP_MD_CTX *_Nullable)) \
    X(int, EVP_DigestInit_ex, \
      (EVP_MD_CTX *_Nonnull, const EVP_MD *_Nullable, ENGINE *_Nullable)) \
    X(int, EVP_DigestUpdate, (EVP_MD_CTX *_Nonnull, const void *_Nullable, size_t)) \
    X(int, EVP_DigestFinal_ex, \
      (EVP_MD_CTX *_Nonnull, unsigned char *_Nonnull, unsigned int *_Nullable))

#define ML_MEMBER(type, function, parameters) type (*_Nonnull function) parameters;
struct ml_crypto { ML_CRYPTO_FUNCTIONS(ML_MEMBER) };
#undef ML_MEMBER

/// The functions of libcrypto.so.3, or NULL where it is not installed.
const struct ml_crypto *_Nullable ml_crypto(void);

/// Macros of openssl/evp.h.
enum { ml_gcm_set_iv_length = 0x9, ml_gcm_get_tag = 0x10, ml_gcm_set_tag = 0x11 };
