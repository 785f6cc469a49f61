/* What accounts have left at their platform: told by it, spent by answers, and who can still pay for what.
 *
 * A lease sets the price of its answer aside, so that two at once do not spend the same credit. An answer that was served, or that its client left, is
 * taken as charged for; the next figure from the platform says how it really is. */
#include "pool_int.h"

#include "chatmux/base/log.h"

#include <stdlib.h>

#define CREDIT_MS                                                                                  \
    (24 * HOUR_MS) /* a figure is believed so long: the account is used elsewhere, too */

int64_t cred_purse(const struct cred *c, unsigned purse)
{
    if (!c->credit.known)
        return INT64_MAX;
    return c->credit.left[purse] > c->held[purse] ? c->credit.left[purse] - c->held[purse] : 0;
}

bool credit_gone(const struct cred *c)
{
    for (unsigned i = 0; i < CM_PURSES; i++)
        if (!c->credit.known || c->credit.left[i] > 0)
            return false;
    return true;
}

bool credit_short(const struct cm_lease *l)
{
    const struct cred *c = l->cred;

    return l->secret_gen == c->secret_gen && c->credit.known && c->credit.left[l->purse] < l->cost;
}

void credit_hold(struct cm_lease *l)
{
    l->held = l->cost > 0;
    if (l->held)
        l->cred->held[l->purse] += l->cost;
}

void credit_release(struct cm_lease *l, bool spent)
{
    struct cred *c = l->cred;
    int64_t *left = &c->credit.left[l->purse];

    if (!l->held)
        return;
    l->held = false;
    if (l->secret_gen != c->secret_gen)
        return; /* of another account, whose figures are gone */
    c->held[l->purse] -= l->cost;
    if (spent)
        *left = *left > l->cost ? *left - l->cost : 0;
}

/* Before it has a place, or between cred_take() and cred_place(). */
void cred_restore_credit(struct cred *c, const struct cm_credit *kept)
{
    struct cm_pool *pool = c->provider->pool;
    uint64_t renews;

    if (!kept->known)
        return;
    c->credit = *kept;
    for (unsigned i = 0; i < CM_PURSES; i++)
        if (c->credit.left[i] < 0)
            c->credit.left[i] = 0;
    c->credit_until_ms = pool->now_ms + CREDIT_MS;
    if (kept->renews_ms <= pool_unix_now(pool))
        return;
    renews = pool_mono_of(pool, kept->renews_ms);
    if (renews < c->credit_until_ms)
        c->credit_until_ms = renews;
}

static void set_credit(struct cred *c, const struct cm_credit *told)
{
    cred_take(c);
    cred_restore_credit(c, told);
    cred_place(c);
    cred_stir(c);
    cred_replan(c);
}

void cred_forget_credit(struct cred *c)
{
    if (!c->credit.known)
        return;
    cred_take(c);
    c->credit = (struct cm_credit){0};
    c->credit_until_ms = 0;
    cred_place(c);
    cred_stir(c);
}

void cred_told(struct cred *c, struct cm_str quota, const struct cm_credit *credit)
{
    const bool news = quota.n && !cm_str_eq(quota, cm_str_of(c->quota));

    if (credit && credit->known)
        set_credit(c, credit);
    if (!news)
        return;
    free(c->quota);
    c->quota = cm_str_dup(quota);
    cred_tell(c);
}

void cm_pool_told(struct cm_pool *pool, uint64_t id, struct cm_str quota,
                  const struct cm_credit *credit)
{
    struct cred *c = cred_find(pool, id);

    pool_enter(pool);
    if (!c)
        return;
    cred_told(c, quota, credit);
    pool_settle(pool);
}

void cm_lease_told(struct cm_lease *l, struct cm_str quota, const struct cm_credit *credit)
{
    struct cred *c = l->cred;

    pool_enter(l->pool);
    if (!c->provider || l->secret_gen != c->secret_gen)
        return;
    if (credit && credit->known) {
        cred_take(c);
        credit_release(l, false);
        cred_place(c);
    }
    cred_told(c, quota, credit);
    if (credit_short(l))
        cm_info("pool", CM_PRI " has %lld credits left, \"%s\" costs %lld: passed over for it",
                CM_ARG(c->ident->label), (long long)c->credit.left[l->purse], l->model,
                (long long)l->cost);
    pool_settle(l->pool);
}
