/* Small things remembered between runs: a conversation's id, a challenge fetched ahead. Loop thread only; lost at a restart.
 *
 * Bounded: the entry unused for longest goes first. Memory that no core dump holds, wiped. */
#ifndef CHATMUX_PROVIDER_MEMO_H
#define CHATMUX_PROVIDER_MEMO_H

#include "chatmux/base/clock.h"

struct cm_memo;

/* The clock is not owned. Keys and values beyond max_bytes push the oldest out. */
struct cm_memo *cm_memo_new(const struct cm_clock *clock, size_t max_bytes);
void cm_memo_free(struct cm_memo *memo);

/* Keys are compared as bytes; `owner` is whose they are. *value is valid until the memo is called again. false: nothing, or it is over. */
bool cm_memo_get(struct cm_memo *memo, struct cm_str owner, struct cm_str key,
                 struct cm_str *value);
/* Copies all; replaces. What alone is larger than an eighth of the memo is not kept. */
void cm_memo_put(struct cm_memo *memo, struct cm_str owner, struct cm_str key, struct cm_str value,
                 int64_t ttl_ms);
/* The same, for what nobody must be able to push out with what clients make it remember: it goes only when there is too much of its kind, more than half of
 * the memo. */
void cm_memo_keep(struct cm_memo *memo, struct cm_str owner, struct cm_str key, struct cm_str value,
                  int64_t ttl_ms);
void cm_memo_del(struct cm_memo *memo, struct cm_str owner, struct cm_str key);

#endif
