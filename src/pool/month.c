/* What a month allows: requests of a credential within one calendar month in UTC.
 *
 * The count is ours, so nothing has to be tried when it begins anew: from the 1st the credential is ok, not half open. Requests that are out are taken
 * for used until they are back, so that many at once do not run past the limit. */
#include "pool_int.h"

const char month_reason[] = "monthly_limit";

/* The calendar is asked only when a month is over, or the clock was set. */
static int64_t month_now(struct cm_pool *pool)
{
    int64_t now = pool_unix_now(pool);

    if (now < pool->month_ms || now >= pool->month_ends_ms) {
        pool->month_ms = cm_month_began_ms(now);
        pool->month_ends_ms = cm_month_ends_ms(now);
    }
    return pool->month_ms;
}

int64_t month_used(const struct cred *c)
{
    return c->month_ms == month_now(c->provider->pool) ? c->month_requests : 0;
}

static bool month_over(const struct cred *c)
{
    int64_t limit = c->provider->monthly_limit;

    return limit > 0 && month_used(c) >= limit;
}

bool month_is_out(const struct cred *c)
{
    int64_t limit = c->provider->monthly_limit;

    return limit > 0 && month_used(c) + c->inflight >= limit;
}

static bool rests(const struct cred *c)
{
    return c->state == CM_CRED_STATE_EXHAUSTED && c->reason == month_reason;
}

bool month_rest(struct cred *c)
{
    struct cm_pool *pool = c->provider->pool;
    uint64_t until;

    if (!month_over(c))
        return false;
    until = pool_mono_of(pool, pool->month_ends_ms);
    if (until < c->limit_until_ms)
        return false;
    if (!rests(c) || c->until_ms <= pool->now_ms) /* else: it was computed a moment earlier */
        cred_set(c, CM_CRED_STATE_EXHAUSTED, until, month_reason);
    return true;
}

void month_judge(struct cred *c)
{
    bool serves = c->state == CM_CRED_STATE_OK || c->state == CM_CRED_STATE_HALF_OPEN;

    if (serves && month_over(c))
        cred_resume(c, month_reason);
    else if (rests(c) && !month_over(c))
        cred_resume(c, "requests are left in this month");
}

int64_t month_count(struct cm_lease *lease)
{
    struct cred *c = lease->cred;
    int64_t month;

    if (lease->uncounted || !c->provider || lease->secret_gen != c->secret_gen)
        return 0;
    month = month_now(lease->pool);
    if (c->month_ms != month)
        c->month_requests = 0;
    c->month_ms = month;
    c->month_requests++;
    return month;
}
