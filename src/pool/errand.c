/* What the pool asks the host to do for a credential: refreshing ahead of time or when it is refused, and asking the platform whether a state without an
 * end is over and, where it tells, what is left. One of each at a time; the host is asked at the end of the call in which it became due. */
#include "pool_int.h"

#include "chatmux/base/log.h"

#include <stdlib.h>

#define PROBE_MS (6 * HOUR_MS)         /* one that waits for an operator */
#define FIRST_PROBE_MS (9 * MINUTE_MS) /* one that was never asked: within that, after a minute */
#define AHEAD_MS MINUTE_MS             /* a token is refreshed at least so long before its end */
#define REST_MS                                                                                    \
    (30 * SECOND_MS) /* … but not sooner than that, or half its life, after it was made */
#define BACKOFF_MS (30 * SECOND_MS) /* a refresh that did not get through; doubles */
#define BACKOFF_MAX_MS (10 * MINUTE_MS)

bool can_refresh(const struct cred *c)
{
    return c->provider->can_refresh && !c->provider->lacks && c->provider->pool->host.refresh;
}

static bool can_probe(const struct cred *c)
{
    return c->provider->can_probe && !c->provider->lacks && c->provider->pool->host.probe;
}

/* ---- when ---- */

static bool uses_token(const struct cred *c)
{
    return c->state == CM_CRED_STATE_OK || c->state == CM_CRED_STATE_HALF_OPEN;
}

static bool keeps_token(const struct cred *c)
{
    return uses_token(c) || c->state == CM_CRED_STATE_COOLING ||
           c->state == CM_CRED_STATE_EXHAUSTED;
}

static bool asks_operator(const struct cred *c)
{
    return c->state == CM_CRED_STATE_NEEDS_LOGIN || c->state == CM_CRED_STATE_VERIFY;
}

static uint64_t probe_gap(const struct cred *c)
{
    if (asks_operator(c))
        return PROBE_MS;
    return c->state == CM_CRED_STATE_DISABLED ? 0 : (uint64_t)c->provider->probe_every_ms;
}

/* Those of a restart do not come all at once. */
void cred_plan_first_probe(struct cred *c)
{
    uint64_t within = c->probe_gap_ms = probe_gap(c);

    if (!asks_operator(c) && !c->credit.known && within > FIRST_PROBE_MS)
        within = FIRST_PROBE_MS;
    if (within)
        c->probe_at_ms = c->provider->pool->now_ms + (asks_operator(c) ? 1 : MINUTE_MS) +
                         cm_rng_below(&c->provider->pool->rng, within);
}

void cred_replan(struct cred *c)
{
    struct cm_pool *pool = c->provider->pool;
    uint64_t at = UINT64_MAX, gap = probe_gap(c);

    if (gap != c->probe_gap_ms) {
        c->probe_gap_ms = gap;
        c->probe_at_ms = gap ? pool->now_ms + gap : 0;
    }
    if (c->credit_until_ms)
        at = c->credit_until_ms;
    if (c->probe_at_ms && c->probe_at_ms < at && can_probe(c))
        at = c->probe_at_ms;
    if (can_refresh(c) && keeps_token(c) && c->refresh_at_ms && !c->refreshing &&
        c->refresh_at_ms < at)
        at = c->refresh_at_ms;
    if (can_refresh(c) && uses_token(c) && c->expires_ms && c->expires_ms < at)
        at = c->expires_ms;
    if (at == UINT64_MAX)
        heap_del(&pool->chores, &c->chore);
    else
        heap_put(&pool->chores, &c->chore, at);
}

static uint64_t never_0(uint64_t ms)
{
    return ms ? ms : 1;
}

/* At 80 to 90 % of what it has to live, so that many do not come at once. */
void cred_plan(struct cred *c, int64_t expires_unix_ms)
{
    struct cm_pool *pool = c->provider->pool;
    uint64_t now = pool->now_ms, life, at;

    c->expires_ms = 0;
    c->refresh_at_ms = 0;
    if (expires_unix_ms) {
        c->expires_ms = never_0(pool_mono_of(pool, expires_unix_ms));
        life = c->expires_ms > now ? c->expires_ms - now : 0;
        at = life / 10 * 8 + cm_rng_below(&pool->rng, life / 10 + 1);
        if (at + AHEAD_MS > life)
            at = life > AHEAD_MS ? life - AHEAD_MS : 0;
        if (at < life / 2 && at < REST_MS)
            at = life / 2 < REST_MS ? life / 2 : REST_MS;
        c->refresh_at_ms = never_0(now + at);
    }
    cred_replan(c);
}

/* ---- asking ---- */

static void want(struct cred *c, unsigned what)
{
    c->wanted |= what;
    if (cm_list_empty(&c->errand))
        cm_list_push(&c->provider->pool->errands, &c->errand);
}

void cred_want_refresh(struct cred *c)
{
    if (c->refreshing)
        return;
    c->refreshing = true;
    want(c, WANT_REFRESH);
}

static void want_probe(struct cred *c)
{
    if (!can_probe(c) || c->probing)
        return;
    c->probing = true;
    want(c, WANT_PROBE);
}

/* Something of it is due. */
static void chore(struct cred *c)
{
    uint64_t now = c->provider->pool->now_ms;

    if (c->probe_at_ms && now >= c->probe_at_ms) {
        c->probe_at_ms = now + c->probe_gap_ms;
        want_probe(c);
    }
    if (c->credit_until_ms && now >= c->credit_until_ms) {
        cred_forget_credit(c);
        want_probe(c);
    }
    if (keeps_token(c) && c->refresh_at_ms && now >= c->refresh_at_ms)
        cred_want_refresh(c);
    if (uses_token(c) && c->expires_ms && now >= c->expires_ms) {
        bool later = !c->refreshing && c->refresh_at_ms > now; /* backing off */

        if (!later)
            cred_want_refresh(c);
        cred_set(c, CM_CRED_STATE_REFRESHING, later ? c->refresh_at_ms : 0, "expired");
    }
    cred_replan(c);
}

void pool_chores(struct cm_pool *pool)
{
    struct due *d;

    while ((d = heap_top(&pool->chores)) && d->at_ms <= pool->now_ms)
        chore(CM_CONTAINER(d, struct cred, chore));
}

/* The host may answer at once, and may even remove the credential. */
void pool_run_errands(struct cm_pool *pool)
{
    struct cm_list *link;

    while ((link = cm_list_pop(&pool->errands))) {
        struct cred *c = CM_LIST_ITEM(link, struct cred, errand);
        uint64_t id = c->id;
        unsigned wanted = c->wanted;
        struct cm_cred_info info;

        c->wanted = 0;
        cred_info(pool, c, &info);
        if (wanted & WANT_REFRESH)
            pool->host.refresh(pool->host.arg, &info);
        if ((wanted & WANT_PROBE) && (c = cred_find(pool, id))) {
            cred_info(pool, c, &info);
            pool->host.probe(pool->host.arg, &info);
        }
    }
}

/* ---- answers ---- */

static void refresh_failed(struct cred *c, const struct cm_err *why)
{
    const struct cm_err_info *info = cm_err_info(why->cls);
    uint64_t now = c->provider->pool->now_ms, told;

    if (why->cls == CM_ERR_CONFIG) {
        provider_lacks(c->provider, why->msg, false);
        return;
    }
    switch (info->cred) {
    case CM_CRED_DISABLE:
    case CM_CRED_REFRESH:
        if (c->state < CM_CRED_STATE_NEEDS_LOGIN)
            cred_set(c, CM_CRED_STATE_NEEDS_LOGIN, 0, info->name);
        return;
    case CM_CRED_VERIFY:
        if (c->state < CM_CRED_STATE_VERIFY)
            cred_set(c, CM_CRED_STATE_VERIFY, 0, info->name);
        return;
    case CM_CRED_KEEP:
    case CM_CRED_COOL:
    case CM_CRED_EXHAUST:
    case CM_CRED_COOL_MODEL:
    case CM_CRED_COUNT:
        break;
    }
    c->backoff_ms = c->backoff_ms ? 2 * c->backoff_ms : BACKOFF_MS;
    if (c->backoff_ms > BACKOFF_MAX_MS)
        c->backoff_ms = BACKOFF_MAX_MS;
    told = why->retry_after_s > 0 ? (uint64_t)why->retry_after_s * SECOND_MS : 0;
    c->refresh_at_ms = now + (told > c->backoff_ms ? told : c->backoff_ms);
    if (c->state == CM_CRED_STATE_REFRESHING)
        cred_set(c, CM_CRED_STATE_REFRESHING, c->refresh_at_ms, info->name);
    cred_replan(c);
}

void cm_pool_refreshed(struct cm_pool *pool, uint64_t id, struct cm_str token,
                       int64_t expires_unix_ms, const struct cm_err *err)
{
    struct cred *c = cred_find(pool, id);
    bool void_answer;

    pool_enter(pool);
    if (!c)
        return;
    void_answer = c->refresh_void;
    c->refreshing = c->refresh_void = false;
    if (void_answer) { /* of a secret that was replaced: the new one may want its own */
        if (c->state == CM_CRED_STATE_REFRESHING)
            cred_want_refresh(c);
        cred_replan(c);
    } else if (err && err->cls != CM_ERR_NONE) {
        refresh_failed(c, err);
    } else {
        c->backoff_ms = 0;
        if (token.n) {
            cred_set_token(c, token);
        } else if (
            c->state ==
            CM_CRED_STATE_REFRESHING) { /* the old one goes on: if it is refused again, it is over */
            c->token_unproven = true;
            c->token_made_ms = pool->now_ms;
        }
        /* a platform whose clock is wrong may tell an end that is past: then the next refusal tells */
        cred_plan(c,
                  expires_unix_ms > pool->clock->unix_ms(pool->clock->arg) ? expires_unix_ms : 0);
        if (c->state == CM_CRED_STATE_REFRESHING || c->state == CM_CRED_STATE_NEEDS_LOGIN)
            cred_resume(c, "refreshed");
    }
    pool_settle(pool);
}

void cm_pool_probed(struct cm_pool *pool, uint64_t id, struct cm_str quota,
                    const struct cm_err *err)
{
    struct cred *c = cred_find(pool, id);

    pool_enter(pool);
    if (!c)
        return;
    c->probing = false;
    if (c->probe_gap_ms) {
        c->probe_at_ms = pool->now_ms + c->probe_gap_ms;
        cred_replan(c);
    }
    cred_told(c, quota, NULL);
    cred_judge_probe(c, err);
    pool_settle(pool);
}
