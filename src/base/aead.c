/* AES-256-GCM and HKDF on OpenSSL. A sealed value: format 1 | nonce 12 | ciphertext | tag 16. */
#include "chatmux/base/aead.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <pthread.h>

#define FORMAT 1
#define NONCE_SIZE 12
#define TAG_SIZE 16
#define HEAD_SIZE (1 + NONCE_SIZE)

static EVP_CIPHER *aes; /* fetched once: a look-up by name costs more than a short value */
static EVP_KDF *hkdf;
static pthread_once_t fetched = PTHREAD_ONCE_INIT;

static void fetch(void)
{
    aes = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    CM_ASSERT(aes && hkdf);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool hex_decode(struct cm_str text, unsigned char out[CM_AEAD_KEY_SIZE])
{
    if (text.n != (size_t)CM_AEAD_KEY_SIZE * 2)
        return false;
    for (size_t i = 0; i < text.n; i += 2) {
        int hi = hex_digit(text.p[i]), lo = hex_digit(text.p[i + 1]);

        if (hi < 0 || lo < 0)
            return false;
        out[i / 2] = (unsigned char)(hi << 4 | lo);
    }
    return true;
}

/* OpenSSL's parameters take pointers that are not const, and leave what they point at alone. */
static void *unconst(const void *p)
{
    return (void *)(uintptr_t)p;
}

int cm_aead_derive(struct cm_aead_key *key, struct cm_str master, struct cm_str purpose,
                   struct cm_err *err)
{
    unsigned char raw[CM_AEAD_KEY_SIZE];
    OSSL_PARAM params[5], *at = params;
    EVP_KDF_CTX *ctx;
    int ok;

    if (master.n < CM_MASTER_KEY_MIN)
        return cm_fail(err, CM_ERR_CONFIG,
                       "the master key has %zu bytes; give at least %d, or 64 hex digits "
                       "(openssl rand -hex 32)",
                       master.n, CM_MASTER_KEY_MIN);
    pthread_once(&fetched, fetch);
    if (hex_decode(master, raw))
        master = cm_str((const char *)raw, sizeof(raw));
    ctx = EVP_KDF_CTX_new(hkdf);
    CM_ASSERT(ctx);
    *at++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, unconst("SHA256"), 0);
    *at++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, unconst(master.p), master.n);
    *at++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, unconst("chatmux"), 7);
    *at++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, unconst(purpose.p), purpose.n);
    *at = OSSL_PARAM_construct_end();
    ok = EVP_KDF_derive(ctx, key->bytes, sizeof(key->bytes), params);
    EVP_KDF_CTX_free(ctx);
    cm_wipe(raw, sizeof(raw));
    CM_ASSERT(ok == 1);
    return 0;
}

void cm_aead_seal(const struct cm_aead_key *key, struct cm_str place, struct cm_str plain,
                  unsigned char *out)
{
    unsigned char *nonce = out + 1, *body = out + HEAD_SIZE;
    EVP_CIPHER_CTX *ctx;
    int n, ok;

    CM_ASSERT(plain.n < INT_MAX && place.n > 0 && place.n < INT_MAX);
    pthread_once(&fetched, fetch);
    ctx = EVP_CIPHER_CTX_new();
    CM_ASSERT(ctx);
    out[0] = FORMAT;
    cm_rand_bytes(nonce, NONCE_SIZE);
    ok = EVP_EncryptInit_ex2(ctx, aes, key->bytes, nonce, NULL) == 1 &&
         EVP_EncryptUpdate(ctx, NULL, &n, (const unsigned char *)place.p, (int)place.n) == 1 &&
         (plain.n == 0 ||
          EVP_EncryptUpdate(ctx, body, &n, (const unsigned char *)plain.p, (int)plain.n) == 1) &&
         EVP_EncryptFinal_ex(ctx, body + plain.n, &n) == 1 &&
         EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_SIZE, body + plain.n) == 1;
    EVP_CIPHER_CTX_free(ctx);
    CM_ASSERT(ok);
}

int cm_aead_open(const struct cm_aead_key *key, struct cm_str place, struct cm_str sealed,
                 unsigned char *out)
{
    const unsigned char *in = (const unsigned char *)sealed.p;
    unsigned char rest[TAG_SIZE]; /* GCM writes nothing at the end, but asks for room */
    EVP_CIPHER_CTX *ctx;
    size_t body_n;
    int n, ok;

    if (sealed.n < CM_AEAD_OVERHEAD || sealed.n >= INT_MAX || in[0] != FORMAT)
        return -1;
    CM_ASSERT(place.n > 0 && place.n < INT_MAX);
    pthread_once(&fetched, fetch);
    body_n = sealed.n - CM_AEAD_OVERHEAD;
    ctx = EVP_CIPHER_CTX_new();
    CM_ASSERT(ctx);
    ok = EVP_DecryptInit_ex2(ctx, aes, key->bytes, in + 1, NULL) == 1 &&
         EVP_DecryptUpdate(ctx, NULL, &n, (const unsigned char *)place.p, (int)place.n) == 1 &&
         (body_n == 0 || EVP_DecryptUpdate(ctx, out, &n, in + HEAD_SIZE, (int)body_n) == 1) &&
         EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_SIZE,
                             unconst(in + HEAD_SIZE + body_n)) == 1 &&
         EVP_DecryptFinal_ex(ctx, rest, &n) == 1;
    EVP_CIPHER_CTX_free(ctx);
    if (!ok)
        cm_wipe(out, body_n);
    return ok ? 0 : -1;
}
