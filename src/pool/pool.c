/* The pool as a whole: its time, its providers, its life. */
#include "pool_int.h"

#include "chatmux/base/log.h"

#include <stdlib.h>

#define WALL_JUMP_MS                                                                               \
    60000 /* a correction of the clock that makes stored limits wrong enough to tell them anew */

/* ---- time ---- */

uint64_t pool_enter(struct cm_pool *pool)
{
    pool->now_ms = pool->clock->mono_ms(pool->clock->arg);
    return pool->now_ms;
}

void pool_settle(struct cm_pool *pool)
{
    wait_match(pool);
    if (pool->telling)
        return; /* we were called from there: it goes on afterwards */
    pool->telling = true;
    pool_run_errands(pool);
    pool_tell(pool);
    pool->telling = false;
}

int64_t pool_unix_now(const struct cm_pool *pool)
{
    return pool->clock->unix_ms(pool->clock->arg);
}

/* A call that only reads finds pool->now_ms old: the two clocks are read together. */
int64_t pool_unix_of(const struct cm_pool *pool, uint64_t mono_ms)
{
    if (mono_ms == 0)
        return 0;
    return pool_unix_now(pool) + (int64_t)(mono_ms - pool->clock->mono_ms(pool->clock->arg));
}

uint64_t pool_mono_of(const struct cm_pool *pool, int64_t unix_ms)
{
    int64_t now = pool_unix_now(pool);

    if (unix_ms <= now)
        return pool->now_ms;
    if (unix_ms - now > (int64_t)LIMIT_MAX_MS)
        return pool->now_ms + LIMIT_MAX_MS;
    return pool->now_ms + (uint64_t)(unix_ms - now);
}

uint64_t pool_steps(const struct cm_pool *pool)
{
    return pool->ops;
}

uint64_t cm_pool_next_ms(const struct cm_pool *pool)
{
    uint64_t soonest = UINT64_MAX;
    const struct due *d;

    if (!cm_list_empty(&pool->answers) || !cm_list_empty(&pool->errands) ||
        !cm_list_empty(&pool->fresh))
        return 0;
    if ((d = heap_top(&pool->chores)))
        soonest = d->at_ms;
    if ((d = heap_top(&pool->patience)) && d->at_ms < soonest)
        soonest = d->at_ms;
    CM_LIST_EACH(&pool->providers, link)
    {
        const struct provider *p = CM_LIST_ITEM(link, struct provider, link);

        if ((d = heap_top(&p->returns)) && d->at_ms < soonest)
            soonest = d->at_ms;
        for (uint64_t left = p->models; left; left &= left - 1) {
            d = heap_top(&p->model[__builtin_ctzll(left)].over);
            if (d->at_ms < soonest)
                soonest = d->at_ms;
        }
    }
    return soonest;
}

/* What is kept on disk as Unix time was computed with a clock that has been set since. */
static void tell_limits_anew(struct cm_pool *pool)
{
    int64_t offset = pool_unix_now(pool) - (int64_t)pool->now_ms;
    int64_t by = offset - pool->wall_offset_ms;

    if (by > -WALL_JUMP_MS && by < WALL_JUMP_MS)
        return;
    pool->wall_offset_ms = offset;
    cm_warn("pool", "the wall clock was set by %lld s: limits stay as long as they were",
            (long long)by / 1000);
    CM_LIST_EACH(&pool->providers, link)
    {
        struct provider *p = CM_LIST_ITEM(link, struct provider, link);

        CM_LIST_EACH(&p->creds, at)
        {
            struct cred *c = CM_LIST_ITEM(at, struct cred, link);

            month_judge(c); /* another month, perhaps */
            if (c->until_ms)
                cred_tell(c);
        }
    }
}

void cm_pool_tick(struct cm_pool *pool)
{
    pool_enter(pool);
    tell_limits_anew(pool);
    pool_chores(pool);
    CM_LIST_EACH(&pool->providers, link)
    provider_wake(CM_LIST_ITEM(link, struct provider, link));
    wait_match(pool);
    wait_give_up(pool);
    pool_settle(pool);
}

struct provider *provider_find(const struct cm_pool *pool, struct cm_str name)
{
    return cm_map_get(&pool->by_name, name);
}

/* ---- providers ---- */

static struct provider *provider_new(struct cm_pool *pool, struct cm_str name)
{
    struct provider *p = CM_NEW(struct provider);

    p->pool = pool;
    p->name = cm_str_dup(name);
    p->salt = ++pool->salts;
    p->busy.ops = p->returns.ops = &pool->ops;
    for (size_t i = 0; i < MODELS_MAX; i++)
        p->model[i].over.ops = &pool->ops;
    cm_list_init(&p->creds);
    cm_list_init(&p->groups);
    cm_list_init(&p->waiting);
    cm_list_push(&pool->providers, &p->link);
    cm_map_put(&pool->by_name, cm_str_of(p->name), p);
    return p;
}

static void provider_free(struct provider *p)
{
    CM_LIST_EACH(&p->creds, link)
    cred_remove(CM_LIST_ITEM(link, struct cred, link));
    wait_orphan(p);
    cm_list_remove(&p->link);
    cm_map_del(&p->pool->by_name, cm_str_of(p->name));
    cm_map_clear(&p->secrets);
    for (size_t i = 0; i < MODELS_MAX; i++)
        free(p->model[i].over.v);
    free(p->returns.v);
    free(p->lacks);
    free(p->name);
    free(p);
}

static void provider_lacks_set(struct provider *p, struct cm_str told)
{
    char *text = told.n > 0 ? cm_str_dup(told) : NULL;

    if (text || p->lacks)
        provider_lacks(p, text, text != NULL);
    free(text);
}

static void provider_set(struct provider *p, const struct cm_pool_provider *told)
{
    p->named = true;
    p->isolated = told->isolated;
    p->max_inflight = told->max_inflight;
    p->min_interval_ms = told->min_interval_ms;
    p->cooldown_ms = told->cooldown_ms;
    p->monthly_limit = told->monthly_limit;
    p->can_refresh = told->can_refresh;
    p->can_probe = told->can_probe;
    p->probe_every_ms = told->probe_every_ms;
    p->needs_token = told->needs_token;
    p->breaker_rate = told->breaker_rate;
    p->breaker_attempts = told->breaker_attempts;
    provider_lacks_set(p, told->lacks);
    CM_LIST_EACH(&p->creds, link)
    {
        struct cred *c = CM_LIST_ITEM(link, struct cred, link);

        cred_take(c);
        cred_place(c);
        cred_replan(c);
        month_judge(c);
    }
}

void cm_pool_providers(struct cm_pool *pool, const struct cm_pool_provider *providers, size_t n)
{
    pool_enter(pool);
    CM_LIST_EACH(&pool->providers, link)
    CM_LIST_ITEM(link, struct provider, link)->named = false;
    for (size_t i = 0; i < n; i++) {
        struct provider *p = provider_find(pool, providers[i].name);

        provider_set(p ? p : provider_new(pool, providers[i].name), &providers[i]);
    }
    CM_LIST_EACH(&pool->providers, link)
    {
        struct provider *p = CM_LIST_ITEM(link, struct provider, link);

        if (!p->named)
            provider_free(p);
    }
    wait_match(pool);
}

struct cm_pool *cm_pool_new(const struct cm_clock *clock, const struct cm_pool_host *host,
                            uint64_t seed)
{
    struct cm_pool *pool = CM_NEW(struct cm_pool);

    pool->clock = clock;
    if (host)
        pool->host = *host;
    cm_rng_seed(&pool->rng, seed);
    cm_list_init(&pool->providers);
    cm_list_init(&pool->fresh);
    cm_list_init(&pool->errands);
    cm_list_init(&pool->pairs);
    cm_list_init(&pool->answers);
    pool->chores.ops = pool->patience.ops = &pool->ops;
    pool_enter(pool);
    pool->wall_offset_ms = pool_unix_now(pool) - (int64_t)pool->now_ms;
    return pool;
}

void cm_pool_free(struct cm_pool *pool)
{
    if (!pool)
        return;
    CM_ASSERT(pool->n_leases == 0 && pool->n_waits == 0);
    CM_LIST_EACH(&pool->providers, link)
    provider_free(CM_LIST_ITEM(link, struct provider, link));
    for (struct cm_lease *l = pool->spare, *next; l; l = next) {
        next = l->next;
        free(l);
    }
    for (struct cooled *m = pool->spare_cooled, *next; m; m = next) {
        next = m->next;
        free(m);
    }
    affinity_free(pool->affinity);
    cm_map_clear(&pool->by_name);
    cm_map_clear(&pool->by_id);
    free(pool->chores.v);
    free(pool->patience.v);
    free(pool);
}
