// SPDX-License-Identifier: Apache-2.0
#define _DEFAULT_SOURCE
#include "CCrypto.h"

#include <limits.h>
#include <string.h>

// NID_commonName and NID_organizationName of openssl/obj_mac.h.
enum { common_name = 13, organisation = 17 };

// Without one, a key with a passphrase would have libcrypto ask for it on the terminal.
static int no_password(char *text, int size, int writing, void *data) {
    (void)text, (void)size, (void)writing, (void)data;
    return -1;
}

static int seconds(const struct ml_crypto *crypto, const ASN1_TIME *time, int64_t *result) {
    struct tm parts;
    if (!time || crypto->ASN1_TIME_to_tm(time, &parts) != 1) return 0;
    *result = timegm(&parts);
    return 1;
}

static int look(const struct ml_crypto *crypto, X509 *certificate, const char *host,
                struct ml_certificate *found) {
    if (!seconds(crypto, crypto->X509_get0_notBefore(certificate), &found->begins) ||
        !seconds(crypto, crypto->X509_get0_notAfter(certificate), &found->ends))
        return ml_certificate_unreadable;
    X509_NAME *name = crypto->X509_get_issuer_name(certificate);
    const int size = sizeof found->issuer;
    if (name && crypto->X509_NAME_get_text_by_NID(name, common_name, found->issuer, size) <= 0)
        crypto->X509_NAME_get_text_by_NID(name, organisation, found->issuer, size);
    found->names_host = crypto->X509_check_host(certificate, host, strlen(host), 0, NULL) == 1;
    return ml_certificate_ok;
}

int ml_read_certificate(const char *pem, size_t length, const char *host, const char *key,
                        size_t key_length, struct ml_certificate *found) {
    memset(found, 0, sizeof *found);
    const struct ml_crypto *crypto = ml_crypto();
    if (!crypto) return ml_certificate_no_library;
    if (length > INT_MAX || key_length > INT_MAX) return ml_certificate_unreadable;
    BIO *text = crypto->BIO_new_mem_buf(pem, (int)length);
    if (!text) return ml_certificate_unreadable;
    X509 *certificate = crypto->PEM_read_bio_X509(text, NULL, no_password, NULL);
    crypto->BIO_free(text);
    if (!certificate) return ml_certificate_unreadable;
    int result = look(crypto, certificate, host, found);
    if (result == ml_certificate_ok && key && key_length) {
        BIO *key_text = crypto->BIO_new_mem_buf(key, (int)key_length);
        EVP_PKEY *pair =
            key_text ? crypto->PEM_read_bio_PrivateKey(key_text, NULL, no_password, NULL) : NULL;
        crypto->BIO_free(key_text);
        if (!pair)
            result = ml_certificate_no_key;
        else
            found->fits_key = crypto->X509_check_private_key(certificate, pair) == 1;
        crypto->EVP_PKEY_free(pair);
    }
    crypto->X509_free(certificate);
    return result;
}
