/* Client keys: who may use the gateway, how much, and what of it is spent. Loop thread only.
 *
 * Reserve with an estimate when a request is admitted, settle with the real figures when it has
 * ended, or release when nothing was used: exactly one of the two, once. A reservation is a struct
 * in the exchange.
 *
 * What the limits mean:
 * - rpm, tpm: in no 60 s (monotonic) more than the limit is admitted. Counted in buckets of a
 *   second, so what was taken comes back after 60 to 61 s. Tokens count from the moment they were
 *   reserved: with the estimate at first, with the real figure once settled. What was used beyond
 *   the estimate counts from the settlement. A released request counts in rpm, its tokens do not.
 * - max_parallel: open reservations.
 * - budget: spent + reserved <= budget whenever a request is admitted, for the running period of
 *   the Unix clock in UTC. A request is charged to the period in which it ends, as the ledger does,
 *   so a reservation open at midnight weighs on the new day.
 * Limits that are replaced hold from the next request on; nothing that is counted is forgotten. */
#ifndef CHATMUX_KEYS_KEYS_H
#define CHATMUX_KEYS_KEYS_H

#include "chatmux/base/clock.h"
#include "chatmux/base/config.h"
#include "chatmux/store/store.h"

struct cm_keys;
struct cm_key; /* one key; counted: the table, each reservation and each cm_key_ref() hold it */

/* The clock must outlive every key. */
struct cm_keys *cm_keys_new(const struct cm_clock *clock);
void cm_keys_free(struct cm_keys *k); /* NULL is fine; keys that somebody holds live on */

/* Keys of the configuration: all of them, each time it is loaded; without limits; named "key#1" …
 * by their place. One that stays keeps its counters. */
void cm_keys_configure(struct cm_keys *k, const struct cm_str *secrets, size_t n);
/* A stored key: added or replaced by id. Copied. A row whose models are no JSON array of strings
 * allows no model. Of two keys with one secret a stored one wins over a configured one (it has the
 * limits), a lower id over a higher. After a change of budget_period the ledger should be asked anew:
 * until then only what this process has seen of the new period counts. */
void cm_keys_put(struct cm_keys *k, const struct cm_key_row *row);
void cm_keys_delete(struct cm_keys *k, uint64_t id);
size_t cm_keys_count(const struct cm_keys *k); /* disabled and expired ones too; 0: no key exists */

/* The ledger's figures: what each key has spent in its running period. The first one of a key is
 * taken as it is, every later one is compared: the difference is the drift.
 * begin: the ledger is about to be asked, and its answer will hold all that was settled so far and
 * nothing of what is settled from now on. Each key takes one answer to it; none that comes after its
 * period has changed. Until the first begin (at start) an answer is taken to be of this moment. */
void cm_keys_true_up_begin(struct cm_keys *k);
void cm_keys_true_up(struct cm_keys *k, uint64_t id, int64_t micro_usd);
/* The answer to "spent since since_ms": for every stored key whose running period began then; one
 * without a row has spent nothing. */
void cm_keys_true_up_since(struct cm_keys *k, int64_t since_ms, const struct cm_spent *rows,
                           size_t n);
/* Sum over all keys of the last drift, without its sign (a metric). */
int64_t cm_keys_drift(const struct cm_keys *k);
/* When the running period of a key began (Unix ms, UTC; weeks begin on Monday; 0 for "total" and
 * no budget). */
int64_t cm_key_period_began_ms(const struct cm_key *key, int64_t now_unix_ms);

/* sk-cmx- + 43 characters of base62 (32 bytes from the kernel) + 4 of checksum, with a NUL.
 * Base62: 0-9 A-Z a-z, most significant digit first. The checksum is the first 8 bytes of the
 * SHA-256 of everything before it, read as a big-endian number, modulo 62^4. */
#define CM_KEY_TEXT_CAP 64
void cm_key_make(char out[CM_KEY_TEXT_CAP]);
/* False for a text that begins like ours and is not whole: cut, longer, or the checksum does not
 * fit. True for every other text. */
bool cm_key_plausible(struct cm_str text);
/* A key that clients can send: CM_ERR_BAD_REQUEST with the param "key". Fills digest and hint of the row; the hint lives in the arena. */
int cm_key_take(struct cm_key_row *row, struct cm_arena *arena, struct cm_str secret,
                struct cm_err *err);

/* NULL: unknown, mistyped, disabled or expired; *err says which (CM_ERR_UNAUTHORIZED). By SHA-256;
 * a miss costs the same as a hit. Borrowed: valid until the loop's next turn, unless held. */
struct cm_key *cm_keys_find(struct cm_keys *k, struct cm_str secret, struct cm_err *err);
struct cm_key *cm_key_ref(struct cm_key *key);
void cm_key_unref(struct cm_key *key); /* NULL is fine */
const struct cm_key_row *cm_key_row(const struct cm_key *key);
/* The name as the client wrote it against the allow-list: exact, or the beginning when an entry
 * ends with * ("gpt-4o*", "openai/" followed by *). "gpt-4o" does not allow "openai/gpt-4o". */
bool cm_key_allows(const struct cm_key *key, struct cm_str model);

struct cm_reservation {        /* zeroed = none */
    struct cm_key *key;        /* held */
    int64_t tokens, micro_usd; /* reserved */
    int64_t counted;           /* tokens that stand in the window of tpm */
    uint64_t second;           /* when they were taken (monotonic) */
};
/* Checks parallel, rpm, tpm and budget and takes the estimate; *out must be zeroed.
 * -1 and nothing is taken: CM_ERR_CLIENT_LIMIT with the limit, its value and when to come back in
 * the message and in retry_after_s (0: waiting does not help; a spent budget: until the period
 * ends, with the code insufficient_quota), or CM_ERR_UNAUTHORIZED when the key was deleted, disabled
 * or has expired since it was found. */
int cm_key_reserve(struct cm_key *key, int64_t tokens, int64_t micro_usd,
                   struct cm_reservation *out, struct cm_err *err);
/* For a request that is open for long: what it has used so far, when that is more than it reserved, counts from now on. -1: the key may not go on
 * (CM_ERR_CLIENT_LIMIT: over its budget; CM_ERR_UNAUTHORIZED); the figures count all the same, and a settlement is still due. Safe on a zeroed one. */
int cm_key_raise(struct cm_reservation *r, int64_t tokens, int64_t micro_usd, struct cm_err *err);
/* The real figures instead of the estimate; what was not used is given back. Zeroes the
 * reservation; safe on a zeroed one. */
void cm_key_settle(struct cm_reservation *r, int64_t tokens, int64_t micro_usd);
/* Nothing was used: every way out that has no figures. */
void cm_key_release(struct cm_reservation *r);

/* x-ratelimit-{limit,remaining,reset}-{requests,tokens}: values as OpenAI writes them; -1 = the key
 * has no such limit. reset: until all of the limit is there again. */
struct cm_key_limits {
    int64_t limit_requests, remaining_requests, reset_requests_ms;
    int64_t limit_tokens, remaining_tokens, reset_tokens_ms;
    int64_t spent_micro_usd, reserved_micro_usd; /* spent: in the running period */
    int64_t drift_micro_usd; /* our figure minus the ledger's, when it was last asked */
    int64_t parallel;        /* open reservations */
};
void cm_key_limits(const struct cm_key *key, struct cm_key_limits *out);

/* For lists: every configured key in its order, then every stored one in the order of adding. */
typedef void cm_keys_each_fn(void *arg, const struct cm_key *key);
void cm_keys_each(const struct cm_keys *k, cm_keys_each_fn *fn, void *arg);

#endif
