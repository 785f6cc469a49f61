/* What the files of the deepseek adapter share. */
#ifndef CHATMUX_DEEPSEEK_INT_H
#define CHATMUX_DEEPSEEK_INT_H

#include "chatmux/provider/run.h"

/* ---- deepseek_hash.c: the hash of the proof of work. Any thread ---- */

#define DEEPSEEK_HASH_BYTES 32

/* Keccak's rounds first … 23 on lanes A[x + 5y]; from 0 on it is Keccak-f[1600]. */
void deepseek_permute(uint64_t lanes[25], unsigned first);
void deepseek_hash(struct cm_str message, unsigned char out[DEEPSEEK_HASH_BYTES]);
/* The number n below `limit` for which the hash of `prefix` with n in decimal behind it is `want`; -1: there is none, or `cancelled` (may be NULL) became
 * true, which is looked at every 0.3 ms or so. */
int64_t deepseek_solve(struct cm_str prefix, const unsigned char want[DEEPSEEK_HASH_BYTES],
                       int64_t limit, const atomic_bool *cancelled);

#endif
