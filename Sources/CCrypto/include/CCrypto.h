// SPDX-License-Identifier: Apache-2.0
// What Martlet uses of libcrypto (OpenSSL 3), loaded when a file of sops is read or an image is hashed: linked, it
// would cost every start of martlet time. The prototypes stand here so that building needs no
// headers of OpenSSL; its soname promises that they stay.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <time.h>

typedef struct evp_cipher_st EVP_CIPHER;
typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;
typedef struct evp_md_st EVP_MD;
typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct engine_st ENGINE;
typedef struct evp_pkey_st EVP_PKEY;
typedef struct bio_st BIO;
typedef struct x509_st X509;
typedef struct X509_name_st X509_NAME;
typedef struct asn1_string_st ASN1_TIME;
typedef int ml_pem_password(char *_Nullable, int, int, void *_Nullable);

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
      (EVP_MD_CTX *_Nonnull, unsigned char *_Nonnull, unsigned int *_Nullable)) \
    X(BIO *_Nullable, BIO_new_mem_buf, (const void *_Nonnull, int)) \
    X(int, BIO_free, (BIO *_Nullable)) \
    X(X509 *_Nullable, PEM_read_bio_X509, \
      (BIO *_Nonnull, X509 *_Nullable *_Nullable, ml_pem_password *_Nullable, void *_Nullable)) \
    X(EVP_PKEY *_Nullable, PEM_read_bio_PrivateKey, \
      (BIO *_Nonnull, EVP_PKEY *_Nullable *_Nullable, ml_pem_password *_Nullable, \
       void *_Nullable)) \
    X(void, X509_free, (X509 *_Nullable)) \
    X(void, EVP_PKEY_free, (EVP_PKEY *_Nullable)) \
    X(int, X509_check_private_key, (const X509 *_Nonnull, const EVP_PKEY *_Nonnull)) \
    X(int, X509_check_host, \
      (X509 *_Nonnull, const char *_Nonnull, size_t, unsigned int, char *_Nullable *_Nullable)) \
    X(const ASN1_TIME *_Nullable, X509_get0_notBefore, (const X509 *_Nonnull)) \
    X(const ASN1_TIME *_Nullable, X509_get0_notAfter, (const X509 *_Nonnull)) \
    X(int, ASN1_TIME_to_tm, (const ASN1_TIME *_Nonnull, struct tm *_Nonnull)) \
    X(X509_NAME *_Nullable, X509_get_issuer_name, (const X509 *_Nonnull)) \
    X(int, X509_NAME_get_text_by_NID, (X509_NAME *_Nonnull, int, char *_Nullable, int))

#define ML_MEMBER(type, function, parameters) type (*_Nonnull function) parameters;
struct ml_crypto { ML_CRYPTO_FUNCTIONS(ML_MEMBER) };
#undef ML_MEMBER

/// The functions of libcrypto.so.3, or NULL where it is not installed.
const struct ml_crypto *_Nullable ml_crypto(void);

/// Macros of openssl/evp.h.
enum { ml_gcm_set_iv_length = 0x9, ml_gcm_get_tag = 0x10, ml_gcm_set_tag = 0x11 };

/// What is in a certificate, as far as whoever serves it must know.
struct ml_certificate {
    /// Seconds since 1970.
    int64_t begins, ends;
    /// The common name of whoever signed it, else its organisation.
    char issuer[256];
    int names_host, fits_key;
};
enum { ml_certificate_ok, ml_certificate_no_library, ml_certificate_unreadable, ml_certificate_no_key };

/// Reads the first certificate of a PEM text; `key` may be NULL, then `fits_key` is 0.
int ml_read_certificate(const char *_Nonnull pem, size_t length, const char *_Nonnull host,
                        const char *_Nullable key, size_t key_length,
                        struct ml_certificate *_Nonnull found);
