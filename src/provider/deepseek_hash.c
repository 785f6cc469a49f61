/* DeepSeekHashV1: SHA3-256 (FIPS 202) whose permutation leaves its first round out, and the search for a number by its hash.
 *
 * A search hashes one short block for each number. What differs between two numbers are some digits, and one lane of the result tells nearly every
 * number apart; where the processor has vectors of 256 bits, four numbers go through the rounds side by side.
 * Wire facts: DeepSeek protocol notes, section 4. */
#include "deepseek_int.h"

#include <stdlib.h>

#define ROUNDS 24
#define FIRST 1 /* round 0 is never done */
#define RATE 136
#define DIGITS_MAX 20
#define LOOK_EVERY 1024 /* numbers between two looks at `cancelled` */

static const uint64_t iota[ROUNDS] = {
    0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000,
    0x000000000000808b, 0x0000000080000001, 0x8000000080008081, 0x8000000000008009,
    0x000000000000008a, 0x0000000000000088, 0x0000000080008009, 0x000000008000000a,
    0x000000008000808b, 0x800000000000008b, 0x8000000000008089, 0x8000000000008003,
    0x8000000000008002, 0x8000000000000080, 0x000000000000800a, 0x800000008000000a,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008};

/* ---- Rounds, for single lanes and for vectors of them ---- */

#define ROL(v, n) (((v) << (n)) | ((v) >> (64 - (n))))

/* θ: the column parities c of state a, and what each column is changed by. */
#define THETA(T, a)                                                                                \
    const T c0 = a[0] ^ a[5] ^ a[10] ^ a[15] ^ a[20], c1 = a[1] ^ a[6] ^ a[11] ^ a[16] ^ a[21],    \
            c2 = a[2] ^ a[7] ^ a[12] ^ a[17] ^ a[22], c3 = a[3] ^ a[8] ^ a[13] ^ a[18] ^ a[23],    \
            c4 = a[4] ^ a[9] ^ a[14] ^ a[19] ^ a[24];                                              \
    const T d0 = c4 ^ ROL(c1, 1), d1 = c0 ^ ROL(c2, 1), d2 = c1 ^ ROL(c3, 1)

/* χ of one row, whose five lanes θ, ρ and π have made. */
#define ROW(T, to, y, b0, b1, b2, b3, b4)                                                          \
    do {                                                                                           \
        const T e0 = (b0), e1 = (b1), e2 = (b2), e3 = (b3), e4 = (b4);                             \
        to[y] = e0 ^ (~e1 & e2);                                                                   \
        to[(y) + 1] = e1 ^ (~e2 & e3);                                                             \
        to[(y) + 2] = e2 ^ (~e3 & e4);                                                             \
        to[(y) + 3] = e3 ^ (~e4 & e0);                                                             \
        to[(y) + 4] = e4 ^ (~e0 & e1);                                                             \
    } while (0)

#define ROUND(T, from, to, constant)                                                               \
    do {                                                                                           \
        THETA(T, from);                                                                            \
        const T d3 = c2 ^ ROL(c4, 1), d4 = c3 ^ ROL(c0, 1);                                        \
        ROW(T, to, 0, from[0] ^ d0, ROL(from[6] ^ d1, 44), ROL(from[12] ^ d2, 43),                 \
            ROL(from[18] ^ d3, 21), ROL(from[24] ^ d4, 14));                                       \
        to[0] ^= (constant);                                                                       \
        ROW(T, to, 5, ROL(from[3] ^ d3, 28), ROL(from[9] ^ d4, 20), ROL(from[10] ^ d0, 3),         \
            ROL(from[16] ^ d1, 45), ROL(from[22] ^ d2, 61));                                       \
        ROW(T, to, 10, ROL(from[1] ^ d1, 1), ROL(from[7] ^ d2, 6), ROL(from[13] ^ d3, 25),         \
            ROL(from[19] ^ d4, 8), ROL(from[20] ^ d0, 18));                                        \
        ROW(T, to, 15, ROL(from[4] ^ d4, 27), ROL(from[5] ^ d0, 36), ROL(from[11] ^ d1, 10),       \
            ROL(from[17] ^ d2, 15), ROL(from[23] ^ d3, 56));                                       \
        ROW(T, to, 20, ROL(from[2] ^ d2, 62), ROL(from[8] ^ d3, 55), ROL(from[14] ^ d4, 39),       \
            ROL(from[15] ^ d0, 41), ROL(from[21] ^ d1, 2));                                        \
    } while (0)

/* Lane 0 after the last round, which is all that a search looks at. */
#define LAST_LANE(T, from, out)                                                                    \
    do {                                                                                           \
        THETA(T, from);                                                                            \
        (out) =                                                                                    \
            from[0] ^ d0 ^ (~ROL(from[6] ^ d1, 44) & ROL(from[12] ^ d2, 43)) ^ iota[ROUNDS - 1];   \
    } while (0)

void deepseek_permute(uint64_t lanes[25], unsigned first)
{
    uint64_t other[25];

    for (unsigned i = first; i < ROUNDS; i++) {
        ROUND(uint64_t, lanes, other, iota[i]);
        memcpy(lanes, other, sizeof(other));
    }
}

/* ---- The hash ---- */

static uint64_t load_lane(const unsigned char *p)
{
    uint64_t v = 0;

    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static void absorb(uint64_t lanes[25], const unsigned char block[RATE])
{
    for (size_t i = 0; i < RATE / 8; i++)
        lanes[i] ^= load_lane(block + 8 * i);
    deepseek_permute(lanes, FIRST);
}

void deepseek_hash(struct cm_str message, unsigned char out[DEEPSEEK_HASH_BYTES])
{
    const unsigned char *p = (const unsigned char *)message.p;
    unsigned char last[RATE] = {0};
    uint64_t lanes[25] = {0};
    size_t left = message.n;

    for (; left >= RATE; left -= RATE, p += RATE)
        absorb(lanes, p);
    if (left > 0)
        memcpy(last, p, left);
    last[left] = 0x06;
    last[RATE - 1] |= 0x80;
    absorb(lanes, last);
    for (size_t i = 0; i < DEEPSEEK_HASH_BYTES; i++)
        out[i] = (unsigned char)(lanes[i / 8] >> (8 * (i % 8)));
}

/* ---- The search ---- */

/* One padded block with a number in it. */
struct guess {
    unsigned char block[RATE];
    size_t at, n; /* where its digits are, how many */
};

static void guess_init(struct guess *g, struct cm_str prefix, unsigned char digit)
{
    memset(g, 0, sizeof(*g));
    memcpy(g->block, prefix.p, prefix.n);
    g->at = prefix.n;
    g->n = 1;
    g->block[g->at] = digit;
    g->block[g->at + 1] = 0x06;
    g->block[RATE - 1] = 0x80;
}

/* The number grows by less than 10. */
static void guess_add(struct guess *g, unsigned step)
{
    unsigned char *digits = g->block + g->at;
    size_t i = g->n;

    while (i > 0 && step > 0) {
        const unsigned sum = digits[--i] - '0' + step;

        digits[i] = (unsigned char)('0' + sum % 10);
        step = sum / 10;
    }
    if (step > 0) {
        memmove(digits + 1, digits, g->n + 1); /* with the 0x06 behind it */
        digits[0] = '1';
        g->n++;
    }
}

/* Lane 0 of the hash of each guess. */
typedef void first_lanes_fn(const struct guess *g, uint64_t *out);

static void first_lane(const struct guess *g, uint64_t *out)
{
    uint64_t a[25] = {0}, b[25];

    for (size_t i = 0; i < RATE / 8; i++)
        a[i] = load_lane(g->block + 8 * i);
    for (unsigned i = FIRST; i < ROUNDS - 1; i += 2) {
        ROUND(uint64_t, a, b, iota[i]);
        ROUND(uint64_t, b, a, iota[i + 1]);
    }
    LAST_LANE(uint64_t, a, *out);
}

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define WIDE 4
typedef uint64_t lanes4 __attribute__((vector_size(32)));

__attribute__((target("avx2"))) static void first_lanes_wide(const struct guess *g, uint64_t *out)
{
    lanes4 a[25] = {0}, b[25], last;

    for (size_t i = 0; i < RATE / 8; i++)
        a[i] = (lanes4){load_lane(g[0].block + 8 * i), load_lane(g[1].block + 8 * i),
                        load_lane(g[2].block + 8 * i), load_lane(g[3].block + 8 * i)};
    for (unsigned i = FIRST; i < ROUNDS - 1; i += 2) {
        ROUND(lanes4, a, b, iota[i]);
        ROUND(lanes4, b, a, iota[i + 1]);
    }
    LAST_LANE(lanes4, a, last);
    memcpy(out, &last, sizeof(last));
}

static bool has_wide(void)
{
    return __builtin_cpu_supports("avx2");
}
#else
#define WIDE 1
#define first_lanes_wide first_lane

static bool has_wide(void)
{
    return false;
}
#endif

static bool is_solution(struct cm_str prefix, const unsigned char want[DEEPSEEK_HASH_BYTES],
                        int64_t number)
{
    unsigned char got[DEEPSEEK_HASH_BYTES];
    struct cm_buf text = {0};

    cm_buf_append(&text, prefix);
    cm_buf_put_u64(&text, (uint64_t)number);
    deepseek_hash(cm_buf_str(&text), got);
    cm_buf_clear(&text);
    return memcmp(got, want, sizeof(got)) == 0;
}

static bool is_cancelled(const atomic_bool *cancelled)
{
    return cancelled && atomic_load_explicit(cancelled, memory_order_relaxed);
}

/* Prefixes that leave no room for the digits in the first block do not occur; they only have to be right. */
static int64_t solve_slowly(struct cm_str prefix, const unsigned char want[DEEPSEEK_HASH_BYTES],
                            int64_t limit, const atomic_bool *cancelled)
{
    for (int64_t n = 0; n < limit; n++) {
        if (n % LOOK_EVERY == 0 && is_cancelled(cancelled))
            return -1;
        if (is_solution(prefix, want, n))
            return n;
    }
    return -1;
}

int64_t deepseek_solve(struct cm_str prefix, const unsigned char want[DEEPSEEK_HASH_BYTES],
                       int64_t limit, const atomic_bool *cancelled)
{
    const unsigned wide = has_wide() ? WIDE : 1;
    first_lanes_fn *first_lanes = wide > 1 ? first_lanes_wide : first_lane;
    const uint64_t first_wanted = load_lane(want);
    struct guess guesses[WIDE];
    uint64_t first[WIDE];

    if (prefix.n + DIGITS_MAX >= RATE)
        return solve_slowly(prefix, want, limit, cancelled);
    for (unsigned i = 0; i < wide; i++)
        guess_init(&guesses[i], prefix, (unsigned char)('0' + i));
    for (int64_t n = 0; n < limit; n += wide) {
        if (n % LOOK_EVERY == 0 && is_cancelled(cancelled))
            return -1;
        first_lanes(guesses, first);
        for (unsigned i = 0; i < wide; i++) {
            if (first[i] == first_wanted && n + i < limit && is_solution(prefix, want, n + i))
                return n + i;
            guess_add(&guesses[i], wide);
        }
    }
    return -1;
}
