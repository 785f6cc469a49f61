/* The credentials of the pool: they come, change, are shown and go. */
#include "pool_int.h"

#include "chatmux/base/log.h"

#include "chatmux/base/secret.h"
#include <stdio.h>
#include <stdlib.h>

#define WEIGHT_MAX 1000

static const char *const state_names[] = {
#define X(name, text) text,
    CM_CRED_STATES(X)
#undef X
};

const char *cm_cred_state_name(enum cm_cred_state state)
{
    CM_ASSERT((size_t)state < CM_COUNT(state_names));
    return state_names[state];
}

int cm_cred_state_parse(struct cm_str word, enum cm_cred_state *out)
{
    for (size_t i = 0; i < CM_COUNT(state_names); i++) {
        if (cm_str_eq(word, cm_str_of(state_names[i]))) {
            *out = (enum cm_cred_state)i;
            return 0;
        }
    }
    return -1;
}

/* ---- what a lease sees ---- */

static struct cm_str put_bytes(char **at, struct cm_str s)
{
    struct cm_str kept = cm_str(*at, s.n);

    if (s.n)
        memcpy(*at, s.p, s.n);
    *at += s.n;
    return kept;
}

struct ident *ident_new(const struct cred *c, struct cm_str label, struct cm_str secret,
                        struct cm_str token, struct cm_str proxy)
{
    struct ident *i = cm_secret_alloc(sizeof(*i) + label.n + secret.n + token.n + proxy.n);
    char *at = i->bytes;

    i->refs = 1;
    snprintf(i->isolation, sizeof(i->isolation), c->secret_gen ? "cred-%llu.%u" : "cred-%llu",
             (unsigned long long)c->id, c->secret_gen);
    i->label = put_bytes(&at, label);
    i->secret = put_bytes(&at, secret);
    i->token = put_bytes(&at, token);
    i->proxy = put_bytes(&at, proxy);
    return i;
}

void ident_unref(struct ident *i)
{
    if (--i->refs > 0)
        return;
    cm_secret_free(i);
}

/* ---- looking up ---- */

static struct cm_str id_key(const uint64_t *id)
{
    return cm_str((const char *)id, sizeof(*id));
}

struct cred *cred_find(const struct cm_pool *pool, uint64_t id)
{
    return cm_map_get(&pool->by_id, id_key(&id));
}

/* Several ids may have one secret: they are chained, the map knows the first. Its key lies in that one's ident. */
static void index_secret(struct cred *c)
{
    struct cm_map *secrets = &c->provider->secrets;

    c->twin = cm_map_put(secrets, c->ident->secret, c);
}

static void unindex_secret(struct cred *c)
{
    struct cm_map *secrets = &c->provider->secrets;
    struct cred *first = cm_map_get(secrets, c->ident->secret);

    if (first == c) {
        cm_map_del(secrets, c->ident->secret);
        if (c->twin)
            cm_map_put(secrets, c->twin->ident->secret, c->twin);
    } else {
        while (first->twin != c)
            first = first->twin;
        first->twin = c->twin;
    }
    c->twin = NULL;
}

uint64_t cm_pool_find_secret(const struct cm_pool *pool, struct cm_str provider,
                             struct cm_str secret)
{
    const struct provider *p = provider_find(pool, provider);
    const struct cred *c = p ? cm_map_get(&p->secrets, secret) : NULL;

    return c ? c->id : 0;
}

/* ---- showing ---- */

void cred_info(const struct cm_pool *pool, const struct cred *c, struct cm_cred_info *out)
{
    *out = (struct cm_cred_info){
        .id = c->id,
        .provider = cm_str_of(c->provider->name),
        .label = c->ident->label,
        .secret = c->ident->secret,
        .token = c->ident->token,
        .proxy = c->ident->proxy,
        .isolation = cm_str_of(c->provider->isolated ? c->ident->isolation : ""),
        .from_config = c->from_config,
        .enabled = c->enabled,
        .weight = (int64_t)c->group->weight,
        .max_inflight = c->max_inflight,
        .state = c->state,
        .reason = cm_str_of(c->reason),
        .until_ms = pool_unix_of(pool, c->until_ms),
        .quota = cm_str_of(c->quota),
        .credit = c->credit,
        .inflight = c->inflight,
        .requests = c->requests,
        .failures = c->failures,
        .tokens_in = c->tokens_in,
        .tokens_out = c->tokens_out,
        .last_used_ms = c->used_ms ? pool_unix_of(pool, c->used_ms) : c->used_unix_ms,
        .created_ms = c->created_ms,
        .token_expires_ms = pool_unix_of(pool, c->expires_ms),
        .month_ms = c->month_ms,
        .month_requests = month_used(c),
        .monthly_limit = c->provider->monthly_limit,
    };
}

void cred_tell(const struct cred *c)
{
    const struct cm_pool *pool = c->provider->pool;
    struct cm_cred_info info;

    if (!pool->host.on_state)
        return;
    cred_info(pool, c, &info);
    pool->host.on_state(pool->host.arg, &info);
}

bool cm_pool_get(const struct cm_pool *pool, uint64_t id, struct cm_cred_info *out)
{
    const struct cred *c = cred_find(pool, id);

    if (c)
        cred_info(pool, c, out);
    return c != NULL;
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = (*(struct cred *const *)a)->id, y = (*(struct cred *const *)b)->id;

    return (x > y) - (x < y);
}

void cm_pool_each(const struct cm_pool *pool, struct cm_str provider,
                  void (*fn)(void *arg, const struct cm_cred_info *cred), void *arg)
{
    struct cred **all = cm_calloc(pool->by_id.n + 1, sizeof(struct cred *));
    size_t n = 0;

    CM_LIST_EACH(&pool->providers, link)
    {
        const struct provider *p = CM_LIST_ITEM(link, struct provider, link);

        if (provider.n && !cm_str_eq(provider, cm_str_of(p->name)))
            continue;
        CM_LIST_EACH(&p->creds, at)
        all[n++] = CM_LIST_ITEM(at, struct cred, link);
    }
    qsort(all, n, sizeof(struct cred *), by_id);
    for (size_t i = 0; i < n; i++) {
        struct cm_cred_info info;

        cred_info(pool, all[i], &info);
        fn(arg, &info);
    }
    free(all);
}

void cm_pool_count(const struct cm_pool *pool, struct cm_str provider, struct cm_pool_counts *out)
{
    *out = (struct cm_pool_counts){0};
    CM_LIST_EACH(&pool->providers, link)
    {
        const struct provider *p = CM_LIST_ITEM(link, struct provider, link);

        if (provider.n && !cm_str_eq(provider, cm_str_of(p->name)))
            continue;
        for (size_t i = 0; i < CM_CRED_STATES_N; i++)
            out->state[i] += p->count.state[i];
        out->total += p->count.total;
        out->inflight += p->count.inflight;
        out->waiting += p->count.waiting;
    }
}

uint64_t cm_pool_cooling_ms(const struct cm_pool *pool, struct cm_str provider)
{
    const struct provider *p = provider_find(pool, provider);
    const uint64_t now_ms = pool->clock->mono_ms(pool->clock->arg);
    uint64_t first_ms = UINT64_MAX;

    if (!p || p->count.state[CM_CRED_STATE_COOLING] == 0)
        return 0;
    for (size_t pos = 1; pos <= p->returns.n; pos++) {
        struct due *d = p->returns.v[pos];

        if (d->at_ms < first_ms &&
            CM_CONTAINER(d, struct cred, ret)->state == CM_CRED_STATE_COOLING)
            first_ms = d->at_ms;
    }
    return first_ms != UINT64_MAX && first_ms > now_ms ? first_ms - now_ms : 0;
}

/* ---- credentials ---- */

static void group_leave(struct cred *c)
{
    struct group *g = c->group;

    c->group = NULL;
    if (--g->refs > 0)
        return;
    cm_list_remove(&g->link);
    free(g);
}

static void group_join(struct cred *c, int64_t told)
{
    struct provider *p = c->provider;
    uint64_t weight = told < 1 ? 1 : told > WEIGHT_MAX ? WEIGHT_MAX : (uint64_t)told;

    CM_LIST_EACH(&p->groups, link)
    {
        struct group *g = CM_LIST_ITEM(link, struct group, link);

        if (g->weight == weight)
            c->group = g;
    }
    if (!c->group) {
        c->group = CM_NEW(struct group);
        c->group->weight = weight;
        c->group->pass = p->vtime;
        c->group->fit.ops = &p->pool->ops;
        cm_list_push(&p->groups, &c->group->link);
    }
    c->group->refs++;
}

static void cred_rename(struct cred *c, struct ident *ident)
{
    unindex_secret(c);
    ident_unref(c->ident);
    c->ident = ident;
    index_secret(c);
}

void cred_set_token(struct cred *c, struct cm_str token)
{
    cred_rename(c, ident_new(c, c->ident->label, c->ident->secret, token, c->ident->proxy));
    c->token_unproven = true;
    c->token_made_ms = c->provider->pool->now_ms;
}

void cred_free(struct cred *c)
{
    CM_ASSERT(!c->provider && c->inflight == 0);
    ident_unref(c->ident);
    free(c->quota);
    free(c);
}

void cred_remove(struct cred *c)
{
    struct provider *p = c->provider;

    cred_take(c);
    cred_forget_models(c);
    heap_del(&p->pool->chores, &c->chore);
    cm_list_remove(&c->errand);
    cm_list_remove(&c->fresh);
    cm_list_remove(&c->link);
    unindex_secret(c);
    cm_map_del(&p->pool->by_id, id_key(&c->id));
    group_leave(c);
    p->count.state[c->state]--;
    p->count.total--;
    p->count.inflight -= (size_t)c->inflight;
    c->provider = NULL;
    if (c->inflight == 0)
        cred_free(c);
}

/* The label an operator gave, else "openai#2": `room` holds it. */
static struct cm_str label_of(const struct cred *c, struct cm_str given, char *room, size_t cap)
{
    if (given.n)
        return given;
    snprintf(room, cap, "%s#%llu", c->provider->name, (unsigned long long)c->number);
    return cm_str_of(room);
}

/* What was kept of it over a restart. What has changed meanwhile is told. */
static void cred_restore(struct cred *c, const struct cm_cred_info *info)
{
    struct cm_pool *pool = c->provider->pool;
    bool of_month = cm_str_eq(info->reason, cm_str_of(month_reason));
    bool limited = info->state == CM_CRED_STATE_COOLING ||
                   (info->state == CM_CRED_STATE_EXHAUSTED && !of_month);

    c->requests = info->requests;
    c->failures = info->failures;
    c->tokens_in = info->tokens_in;
    c->tokens_out = info->tokens_out;
    c->used_unix_ms = info->last_used_ms;
    c->created_ms = info->created_ms ? info->created_ms : pool_unix_now(pool);
    c->month_ms = info->month_ms;
    c->month_requests = info->month_requests;
    c->quota = info->quota.n ? cm_str_dup(info->quota) : NULL;
    cred_restore_credit(c, &info->credit);
    cm_str_copy(c->reason_kept, sizeof(c->reason_kept), info->reason);
    c->reason = of_month ? month_reason : c->reason_kept;
    c->limit_reason = c->reason_kept;
    if (limited) {
        c->limit = info->state;
        c->limit_until_ms = pool_mono_of(pool, info->until_ms);
        c->limit_ms = c->limit_until_ms - pool->now_ms;
    }
    if (limited || info->state == CM_CRED_STATE_HALF_OPEN)
        c->limit_ms = c->limit_ms ? c->limit_ms : MINUTE_MS; /* a real request decides */
    c->state = info->state;
    if (c->limit_until_ms > pool->now_ms)
        c->until_ms = c->limit_until_ms;
    c->provider->count.state[c->state]++;
    cred_place(c);
    cred_plan_first_probe(c);
    cred_plan(c, info->token_expires_ms);
    switch (c->state) {
    case CM_CRED_STATE_OK:
        c->reason = "";
        break;
    case CM_CRED_STATE_REFRESHING: /* nobody knows how far it came: once more */
    case CM_CRED_STATE_COOLING:
    case CM_CRED_STATE_EXHAUSTED:
    case CM_CRED_STATE_HALF_OPEN:
        break;
    case CM_CRED_STATE_NEEDS_LOGIN:
        if (c->enabled && !cm_str_eq(info->reason, cm_str_of(lacks_reason)))
            return;
        break;
    case CM_CRED_STATE_VERIFY:
        if (c->enabled)
            return;
        break;
    case CM_CRED_STATE_DISABLED:
        if (!c->enabled || !cm_str_eq(info->reason, CM_S("operator")))
            return; /* disabled for a reason of its own, or still by hand */
        break;
    case CM_CRED_STATES_N:
        break;
    }
    if (c->state == CM_CRED_STATE_REFRESHING && c->enabled && can_refresh(c))
        cred_want_refresh(c);
    else
        cred_resume(c, "the process has started");
}

static struct cred *cred_new(struct provider *p, const struct cm_cred_info *info)
{
    struct cred *c = CM_NEW(struct cred);
    char room[160];

    c->id = info->id;
    c->provider = p;
    c->number = ++p->numbered;
    c->prio = (uint32_t)cm_rng_next(&p->pool->rng);
    c->enabled = info->enabled;
    c->from_config = info->from_config;
    c->max_inflight = info->max_inflight;
    c->ident = ident_new(c, label_of(c, info->label, room, sizeof(room)), info->secret, info->token,
                         info->proxy);
    cm_list_init(&c->errand);
    cm_list_init(&c->fresh);
    cm_list_push(&p->creds, &c->link);
    group_join(c, info->weight);
    index_secret(c);
    cm_map_put(&p->pool->by_id, id_key(&c->id), c);
    p->count.total++;
    cred_restore(c, info);
    return c;
}

/* A new secret is a new account: nothing that was said of the old one counts. */
static void cred_forget(struct cred *c)
{
    if (c->wanted & WANT_REFRESH) {
        c->wanted &= ~WANT_REFRESH;
        c->refreshing = false;
    }
    c->refresh_void = c->refreshing;
    c->token_unproven = false;
    c->month_requests = 0;
    free(c->quota), c->quota = NULL;
    memset(c->held, 0, sizeof(c->held));
    cred_reset(c, "new secret");
}

static void cred_replace(struct cred *c, const struct cm_cred_info *info)
{
    bool new_secret = !cm_str_eq(info->secret, c->ident->secret);
    bool new_token = info->token.n && !cm_str_eq(info->token, c->ident->token);
    bool was_enabled = c->enabled;
    char room[160];

    cred_take(c);
    c->from_config = info->from_config;
    c->max_inflight = info->max_inflight;
    group_leave(c);
    group_join(c, info->weight);
    c->secret_gen += new_secret; /* another account: it shares no connection with the old one */
    cred_rename(c, ident_new(c, label_of(c, info->label, room, sizeof(room)), info->secret,
                             new_secret || new_token ? info->token : c->ident->token, info->proxy));
    cred_place(c);
    c->enabled = info->enabled;
    if (new_secret)
        cred_forget(c);
    if (new_secret || new_token)
        cred_plan(c, info->token_expires_ms);
    if (!c->enabled)
        cred_set(c, CM_CRED_STATE_DISABLED, 0, "operator");
    else if (!was_enabled)
        cred_resume(c, "enabled");
    else if (new_token &&
             (c->state == CM_CRED_STATE_REFRESHING || c->state == CM_CRED_STATE_NEEDS_LOGIN))
        cred_resume(c, "new token");
}

void cm_pool_put(struct cm_pool *pool, const struct cm_cred_info *info)
{
    struct provider *p = provider_find(pool, info->provider);
    struct cred *c = cred_find(pool, info->id);

    pool_enter(pool);
    CM_ASSERT(info->id != 0 && (!c || c->provider == p));
    if (c)
        cred_replace(c, info);
    else if (p)
        cred_new(p, info);
    else
        cm_warn("pool", "credential %llu belongs to provider " CM_PRI ", which is not configured",
                (unsigned long long)info->id, CM_ARG(info->provider));
    pool_settle(pool);
}

void cm_pool_remove(struct cm_pool *pool, uint64_t id)
{
    struct cred *c = cred_find(pool, id);

    pool_enter(pool);
    if (!c)
        return;
    cm_info("pool", CM_PRI " is removed", CM_ARG(c->ident->label));
    cred_remove(c);
}

bool cm_pool_reset(struct cm_pool *pool, uint64_t id)
{
    struct cred *c = cred_find(pool, id);

    pool_enter(pool);
    if (!c)
        return false;
    if (c->provider->lacks && !c->provider->lacks_known)
        provider_lacks(c->provider, NULL,
                       false); /* it may have been mended where we cannot see it */
    cred_reset(c, "reset");
    pool_settle(pool);
    return true;
}
