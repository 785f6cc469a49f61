/* Hashes and comparisons of secrets, on OpenSSL. Any thread. */
#ifndef CHATMUX_BASE_CRYPTO_H
#define CHATMUX_BASE_CRYPTO_H

#include "chatmux/base/str.h"

#define CM_SHA256_SIZE 32
void cm_sha256(struct cm_str bytes, unsigned char out[CM_SHA256_SIZE]);

void cm_hmac_sha256(struct cm_str key, struct cm_str bytes, unsigned char out[CM_SHA256_SIZE]);

/* Constant time in the bytes of equal-length inputs. */
bool cm_secret_eq(struct cm_str a, struct cm_str b);

/* How a secret is shown: "…abcd#1f3a5c77", its last four characters (none of a secret shorter
 * than 12) and the first 8 hex digits of its SHA-256. */
#define CM_FINGERPRINT_CAP 32
void cm_fingerprint(struct cm_str secret, char out[CM_FINGERPRINT_CAP]);
/* Those four characters, as a slice of it. */
struct cm_str cm_hint(struct cm_str secret);

#endif
