/* Randomness: secrets from the kernel, jitter from a fast generator, and identifiers. Any
 * thread unless said. */
#ifndef CHATMUX_BASE_RAND_H
#define CHATMUX_BASE_RAND_H

#include "chatmux/base/str.h"

void cm_rand_bytes(void *out, size_t n); /* getrandom(2); ends the process if the kernel has none */

/* Seedable generator for jitter and shuffles: not for secrets. One thread at a time. */
struct cm_rng {
    uint64_t s[4];
};
void cm_rng_seed(struct cm_rng *r, uint64_t seed);
uint64_t cm_rng_next(struct cm_rng *r);
uint64_t cm_rng_below(struct cm_rng *r, uint64_t n); /* 0 .. n-1, n > 0 */

/* prefix (at most 13 bytes) followed by 26 characters of a ULID (48 bits of Unix milliseconds,
 * 80 random bits), NUL-terminated. Within one millisecond identifiers ascend by random steps.
 * The bits come from a generator seeded by the kernel once: identifiers are unguessable enough
 * to be unique, they are no secrets. Loop thread only. */
#define CM_ID_CAP 40
void cm_id_make(char out[CM_ID_CAP], const char *prefix, int64_t unix_ms);

/* RFC 9562 version 4, lower case, 36 characters and a NUL; from the kernel. */
#define CM_UUID_CAP 37
void cm_uuid4(char out[CM_UUID_CAP]);

#endif
