/* Limits of a key: reserving, settling, and what is left. */
#include "keys_int.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* What one request can take at most, in tokens or micro-USD: sums of these stay far from 2^63. */
#define AMOUNT_MAX INT64_C(1000000000000)

static int64_t bounded(int64_t amount)
{
    if (amount < 0)
        return 0;
    return amount < AMOUNT_MAX ? amount : AMOUNT_MAX;
}

/* --- money ---------------------------------------------------------------------------------- */

void key_turn_periods(struct cm_key *key, int64_t now_unix_ms)
{
    for (enum period p = 0; p < PERIODS; p++) {
        int64_t began_ms = period_began_ms(p, now_unix_ms);
        struct spending left = key->spent[p];

        if (left.began_ms == began_ms)
            continue;
        key->spent[p] = (struct spending){began_ms, 0};
        if (key->other[p].began_ms == began_ms)
            key->spent[p] = key->other[p];
        key->other[p] = left;
    }
}

/* Without turning, for those who only look. */
static int64_t spent_now(const struct cm_key *key)
{
    int64_t now_unix_ms = key->clock->unix_ms(key->clock->arg);
    int64_t began_ms = period_began_ms(key->period, now_unix_ms);

    if (key->spent[key->period].began_ms == began_ms)
        return key->spent[key->period].micro_usd;
    return key->other[key->period].began_ms == began_ms ? key->other[key->period].micro_usd : 0;
}

static void spend(struct cm_key *key, int64_t micro_usd)
{
    key_turn_periods(key, key->clock->unix_ms(key->clock->arg));
    for (enum period p = 0; p < PERIODS; p++) {
        int64_t *spent = &key->spent[p].micro_usd;

        *spent = *spent < SPENT_MAX - micro_usd ? *spent + micro_usd : SPENT_MAX;
    }
}

/* "$12.50"; to the micro-dollar where that says more. */
#define USD_CAP 32
static const char *usd(char out[USD_CAP], int64_t micro_usd)
{
    int n = snprintf(out, USD_CAP, "$%lld.%06lld", (long long)(micro_usd / 1000000),
                     (long long)(micro_usd % 1000000));

    for (int zeros = 0; zeros < 4 && out[n - 1] == '0'; zeros++)
        out[--n] = '\0';
    return out;
}

/* --- refusing ------------------------------------------------------------------------------- */

/* For retry-after: never too early, and 0 is left for "does not help". */
static int seconds_of(int64_t ms)
{
    int64_t s = ms > 0 ? (ms + 999) / 1000 : 1;

    return s < INT_MAX ? (int)s : INT_MAX;
}

static int come_back(struct cm_err *err, int retry_after_s)
{
    if (err)
        err->retry_after_s = retry_after_s;
    return -1;
}

static int check_parallel(const struct cm_key *key, struct cm_err *err)
{
    int64_t most = key->row.max_parallel;

    if (most <= 0 || key->parallel < most)
        return 0;
    (void)cm_fail(err, CM_ERR_CLIENT_LIMIT,
                  "this key may have %lld requests open at once, and has %lld: wait until one ends",
                  (long long)most, (long long)key->parallel);
    return come_back(err, 1);
}

static int check_requests(const struct cm_key *key, uint64_t now_ms, struct cm_err *err)
{
    int64_t most = key->row.rpm;
    int wait_s;

    if (most <= 0 || !key->requests || window_sum(key->requests, now_ms / 1000) < most)
        return 0;
    wait_s = seconds_of(window_wait_ms(key->requests, now_ms, most - 1));
    (void)cm_fail(err, CM_ERR_CLIENT_LIMIT,
                  "this key may make %lld requests per minute: try again in %d s", (long long)most,
                  wait_s);
    return come_back(err, wait_s);
}

static int check_tokens(const struct cm_key *key, int64_t tokens, uint64_t now_ms,
                        struct cm_err *err)
{
    int64_t most = key->row.tpm, used;
    int wait_s;

    if (most <= 0)
        return 0;
    if (tokens > most) {
        (void)cm_fail(err, CM_ERR_CLIENT_LIMIT,
                      "this request may need %lld tokens, and this key may use %lld per minute: "
                      "send less, or lower max_tokens",
                      (long long)tokens, (long long)most);
        return come_back(err, 0);
    }
    used = key->tokens ? window_sum(key->tokens, now_ms / 1000) : 0;
    if (used <= most - tokens)
        return 0;
    wait_s = seconds_of(window_wait_ms(key->tokens, now_ms, most - tokens));
    (void)cm_fail(err, CM_ERR_CLIENT_LIMIT,
                  "this key may use %lld tokens per minute, has used %lld, and this request may "
                  "need %lld: try again in %d s",
                  (long long)most, (long long)used, (long long)tokens, wait_s);
    return come_back(err, wait_s);
}

static void tell_budget(const struct cm_key *key, int64_t micro_usd, int64_t now_unix_ms,
                        struct cm_err *err)
{
    char budget[USD_CAP], spent[USD_CAP], reserved[USD_CAP], cost[USD_CAP], until[CM_RFC3339_CAP];
    char period[16] = "in total", more[64] = "";

    if (key->period != PERIOD_TOTAL) {
        cm_rfc3339(period_ends_ms(key->period, now_unix_ms), until);
        snprintf(period, sizeof(period), "per %s", period_name(key->period));
        snprintf(more, sizeof(more), "; the next %s begins at %s", period_name(key->period), until);
    }
    (void)cm_fail(err, CM_ERR_CLIENT_LIMIT,
                  "this key may spend %s %s, has spent %s, %s are reserved by open requests, and "
                  "this request may cost %s%s",
                  usd(budget, key->row.budget_micro_usd), period,
                  usd(spent, key->spent[key->period].micro_usd), usd(reserved, key->reserved),
                  usd(cost, micro_usd), more);
}

static int check_budget(const struct cm_key *key, int64_t micro_usd, int64_t now_unix_ms,
                        struct cm_err *err)
{
    int64_t most = key->row.budget_micro_usd, spent = key->spent[key->period].micro_usd;
    int64_t left = most - spent - key->reserved;
    int wait_s = 0;

    if (most <= 0 || micro_usd <= left)
        return 0;
    tell_budget(key, micro_usd, now_unix_ms, err);
    if (micro_usd <= left + key->reserved)
        return come_back(err, 1); /* open requests may give back enough */
    if (key->period != PERIOD_TOTAL && micro_usd <= most)
        wait_s = seconds_of(period_ends_ms(key->period, now_unix_ms) - now_unix_ms);
    if (err)
        cm_str_copy(err->code, sizeof(err->code), CM_S("insufficient_quota"));
    return come_back(err, wait_s);
}

int key_usable(const struct cm_key *key, int64_t now_unix_ms, struct cm_err *err)
{
    char when[CM_RFC3339_CAP];

    if (key->gone)
        return cm_fail(err, CM_ERR_UNAUTHORIZED, "this API key was deleted");
    if (!key->row.enabled)
        return cm_fail(err, CM_ERR_UNAUTHORIZED, "this API key is disabled");
    if (key->row.expires_s == 0 || now_unix_ms / 1000 < key->row.expires_s)
        return 0;
    cm_rfc3339(key->row.expires_s > 0 ? key->row.expires_s * 1000 : 0, when);
    return cm_fail(err, CM_ERR_UNAUTHORIZED, "this API key expired at %s", when);
}

/* --- reserving ------------------------------------------------------------------------------ */

static void count(struct window **w, uint64_t now_s, int64_t n)
{
    if (!*w)
        *w = CM_NEW(struct window);
    window_add(*w, now_s, n);
}

int cm_key_reserve(struct cm_key *key, int64_t tokens, int64_t micro_usd,
                   struct cm_reservation *out, struct cm_err *err)
{
    uint64_t now_ms = key->clock->mono_ms(key->clock->arg);
    int64_t now_unix_ms = key->clock->unix_ms(key->clock->arg);

    CM_ASSERT(!out->key);
    tokens = bounded(tokens);
    micro_usd = bounded(micro_usd);
    key_turn_periods(key, now_unix_ms);
    if (key_usable(key, now_unix_ms, err) != 0 || check_parallel(key, err) != 0 ||
        check_requests(key, now_ms, err) != 0 || check_tokens(key, tokens, now_ms, err) != 0 ||
        check_budget(key, micro_usd, now_unix_ms, err) != 0)
        return -1;
    *out = (struct cm_reservation){
        .key = cm_key_ref(key), .tokens = tokens, .micro_usd = micro_usd, .second = now_ms / 1000};
    key->parallel++;
    key->reserved += micro_usd;
    if (key->row.rpm > 0)
        count(&key->requests, out->second, 1);
    if (key->row.tpm > 0) {
        count(&key->tokens, out->second, tokens);
        out->counted = tokens;
    }
    return 0;
}

int cm_key_raise(struct cm_reservation *r, int64_t tokens, int64_t micro_usd, struct cm_err *err)
{
    struct cm_key *key = r->key;
    int64_t now_unix_ms;

    if (!key)
        return 0;
    now_unix_ms = key->clock->unix_ms(key->clock->arg);
    tokens = bounded(tokens);
    micro_usd = bounded(micro_usd);
    key_turn_periods(key, now_unix_ms);
    if (micro_usd > r->micro_usd) {
        key->reserved += micro_usd - r->micro_usd;
        r->micro_usd = micro_usd;
    }
    if (tokens > r->counted && key->row.tpm > 0) {
        count(&key->tokens, key->clock->mono_ms(key->clock->arg) / 1000, tokens - r->counted);
        r->counted = tokens;
    }
    if (key_usable(key, now_unix_ms, err) != 0)
        return -1;
    if (key->row.budget_micro_usd <= 0 ||
        key->spent[key->period].micro_usd + key->reserved <= key->row.budget_micro_usd)
        return 0;
    tell_budget(key, micro_usd, now_unix_ms, err);
    if (err)
        cm_str_copy(err->code, sizeof(err->code), CM_S("insufficient_quota"));
    return -1;
}

void cm_key_settle(struct cm_reservation *r, int64_t tokens, int64_t micro_usd)
{
    struct cm_key *key = r->key;
    uint64_t now_s;

    if (!key)
        return;
    now_s = key->clock->mono_ms(key->clock->arg) / 1000;
    tokens = bounded(tokens);
    CM_ASSERT(key->parallel > 0 && key->reserved >= r->micro_usd);
    key->parallel--;
    key->reserved -= r->micro_usd;
    spend(key, bounded(micro_usd));
    if (tokens < r->counted)
        window_give_back(key->tokens, now_s, r->second, r->counted - tokens);
    else if (tokens > r->counted && key->row.tpm > 0)
        count(&key->tokens, now_s, tokens - r->counted);
    *r = (struct cm_reservation){0};
    cm_key_unref(key);
}

void cm_key_release(struct cm_reservation *r)
{
    cm_key_settle(r, 0, 0);
}

/* --- what is left --------------------------------------------------------------------------- */

static void tell_window(const struct window *w, int64_t most, uint64_t now_ms, int64_t *limit,
                        int64_t *remaining, int64_t *reset_ms)
{
    int64_t used = w ? window_sum(w, now_ms / 1000) : 0;

    *limit = *remaining = *reset_ms = -1;
    if (most <= 0)
        return;
    *limit = most;
    *remaining = used < most ? most - used : 0;
    *reset_ms = w ? window_wait_ms(w, now_ms, 0) : 0;
}

void cm_key_limits(const struct cm_key *key, struct cm_key_limits *out)
{
    uint64_t now_ms = key->clock->mono_ms(key->clock->arg);

    tell_window(key->requests, key->row.rpm, now_ms, &out->limit_requests, &out->remaining_requests,
                &out->reset_requests_ms);
    tell_window(key->tokens, key->row.tpm, now_ms, &out->limit_tokens, &out->remaining_tokens,
                &out->reset_tokens_ms);
    out->spent_micro_usd = spent_now(key);
    out->reserved_micro_usd = key->reserved;
    out->drift_micro_usd = key->drift;
    out->parallel = key->parallel;
}
