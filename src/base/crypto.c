/* SHA-256 and comparison of secrets. */
#include "chatmux/base/crypto.h"

#include "chatmux/base/mem.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <stdio.h>

/* OpenSSL 3 looks a digest up by name for each use unless it was fetched: that costs more than
 * hashing a key. */
static EVP_MD *sha256;
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;

static void sha256_fetch(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    CM_ASSERT(sha256);
}

void cm_sha256(struct cm_str bytes, unsigned char out[CM_SHA256_SIZE])
{
    int ok;

    pthread_once(&sha256_once, sha256_fetch);
    ok = EVP_Digest(bytes.n > 0 ? bytes.p : "", bytes.n, out, NULL, sha256, NULL);
    CM_ASSERT(ok == 1);
}

void cm_hmac_sha256(struct cm_str key, struct cm_str bytes, unsigned char out[CM_SHA256_SIZE])
{
    const unsigned char *ok;

    CM_ASSERT(key.n <= INT_MAX);
    pthread_once(&sha256_once, sha256_fetch);
    ok = HMAC(sha256, key.n > 0 ? key.p : "", (int)key.n,
              (const unsigned char *)(bytes.n > 0 ? bytes.p : ""), bytes.n, out, NULL);
    CM_ASSERT(ok);
}

bool cm_secret_eq(struct cm_str a, struct cm_str b)
{
    return a.n == b.n && (a.n == 0 || CRYPTO_memcmp(a.p, b.p, a.n) == 0);
}

void cm_fingerprint(struct cm_str secret, char out[CM_FINGERPRINT_CAP])
{
    struct cm_str tail = secret.n >= 12 ? cm_str_from(secret, secret.n - 4) : CM_STR_NONE;
    unsigned char hash[CM_SHA256_SIZE];
    char shown[5] = "";

    for (size_t i = 0; i < tail.n; i++) /* it goes into logs and pages: visible ASCII only */
        shown[i] = tail.p[i] > 0x20 && tail.p[i] < 0x7f ? tail.p[i] : '?';
    cm_sha256(secret, hash);
    snprintf(out, CM_FINGERPRINT_CAP, "…%s#%02x%02x%02x%02x", shown, (unsigned)hash[0],
             (unsigned)hash[1], (unsigned)hash[2], (unsigned)hash[3]);
}

#define HINT_FROM 12 /* of a shorter secret nothing is shown */
#define HINT_CHARS 4

struct cm_str cm_hint(struct cm_str secret)
{
    size_t at = secret.n;

    if (secret.n < HINT_FROM)
        return CM_STR_NONE;
    for (int chars = 0; chars < HINT_CHARS; chars++) {
        do
            at--;
        while (at > 0 && ((unsigned char)secret.p[at] & 0xc0) == 0x80); /* within a character */
        if (at == 0)
            return CM_STR_NONE; /* no text: bytes that are in no character */
    }
    return cm_str_from(secret, at);
}
