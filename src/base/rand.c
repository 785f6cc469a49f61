/* Randomness from the kernel, xoshiro256** for jitter, identifiers. */
#include "chatmux/base/rand.h"

#include "chatmux/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

void cm_rand_bytes(void *out, size_t n)
{
    char *p = out;

    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);

        if (got < 0) {
            CM_ASSERT(errno == EINTR);
            continue;
        }
        p += got;
        n -= (size_t)got;
    }
}

static inline uint64_t rotl(uint64_t x, unsigned by)
{
    return (x << by) | (x >> (64 - by));
}

/* SplitMix64 spreads the seed over the state, which must not be all zero. */
void cm_rng_seed(struct cm_rng *r, uint64_t seed)
{
    for (size_t i = 0; i < CM_COUNT(r->s); i++) {
        uint64_t z = (seed += 0x9e3779b97f4a7c15);

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        r->s[i] = z ^ (z >> 31);
    }
}

/* xoshiro256** by Blackman and Vigna. */
uint64_t cm_rng_next(struct cm_rng *r)
{
    uint64_t *s = r->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t cm_rng_below(struct cm_rng *r, uint64_t n)
{
    uint64_t biased = (0 - n) % n; /* so many of the smallest values are one too many */
    uint64_t v;

    do {
        v = cm_rng_next(r);
    } while (v < biased);
    return v % n;
}

static struct {
    struct cm_rng rng;
    bool seeded;
    int64_t ms;      /* of the last identifier */
    uint64_t hi, lo; /* its 80 random bits: 16 and 64 */
} ids;

/* Within one millisecond each identifier is a random step above the one before: they sort in the
 * order they were made. */
static void ids_advance(int64_t unix_ms)
{
    uint64_t before = ids.lo;

    if (!ids.seeded)
        cm_rand_bytes(&ids.rng, sizeof(ids.rng));
    if (!ids.seeded || ids.ms != unix_ms) {
        ids.seeded = true;
        ids.ms = unix_ms;
        ids.hi = cm_rng_next(&ids.rng) >> 49; /* the top bit stays clear: room for the steps */
        ids.lo = cm_rng_next(&ids.rng);
        return;
    }
    ids.lo += (cm_rng_next(&ids.rng) >> 16) + 1;
    ids.hi += ids.lo < before;
}

void cm_id_make(char out[CM_ID_CAP], const char *prefix, int64_t unix_ms)
{
    static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"; /* Crockford's base32 */
    size_t n = strlen(prefix);
    uint64_t ms = (uint64_t)unix_ms, hi, lo;

    CM_ASSERT(n + 26 < CM_ID_CAP);
    memcpy(out, prefix, n);
    out += n;
    ids_advance(unix_ms);
    for (int i = 9; i >= 0; i--, ms >>= 5)
        out[i] = alphabet[ms & 31];
    /* Two halves of 40 bits. */
    hi = ids.hi << 24 | ids.lo >> 40;
    lo = ids.lo;
    for (int i = 7; i >= 0; i--, hi >>= 5, lo >>= 5) {
        out[10 + i] = alphabet[hi & 31];
        out[18 + i] = alphabet[lo & 31];
    }
    out[26] = '\0';
}

void cm_uuid4(char out[CM_UUID_CAP])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char b[16];
    char *at = out;

    cm_rand_bytes(b, sizeof(b));
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    for (size_t i = 0; i < sizeof(b); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *at++ = '-';
        *at++ = digits[b[i] >> 4];
        *at++ = digits[b[i] & 15];
    }
    *at = '\0';
}
