/* The pool in memory: round robin over what is fit, states by error class, cooling by the time told.
 *
 * A credential: OK -> COOLING (until) -> OK; EXHAUSTED (until) -> OK; NEEDS_LOGIN, VERIFY, DISABLED wait for an operator: a reload that brings the
 * secret again does not change them, a changed secret is a new credential. Every change goes through set_state(). */
#include "chatmux/pool/pool.h"

#include "chatmux/base/crypto.h"
#include "chatmux/base/list.h"
#include "chatmux/base/log.h"
#include "chatmux/base/map.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/secret.h"
#include <stdio.h>
#include <stdlib.h>

#define COOLDOWN_DEFAULT_MS 60000
#define EXHAUSTED_DEFAULT_MS (60 * 60 * 1000)
#define MODEL_COOLDOWN_MS (10 * 60 * 1000)
#define COUNT_WINDOW_MS                                                                            \
    60000 /* so many failures within it cool a credential for as long, doubling */
#define COUNT_LIMIT 3
#define COUNT_COOLDOWN_MAX_MS (60 * 60 * 1000)

/* A model that one account does not have, or not now. */
struct cooled_model {
    struct cooled_model *next;
    uint64_t until_ms;
    size_t n;
    char name[];
};

struct credential {
    struct cm_list link;       /* in its provider's ring, least recently used first */
    struct provider *provider; /* NULL once it is gone from the configuration */
    uint64_t id;               /* from 1, never used twice */
    struct cm_str secret;      /* owned: cm_secret_dup() */
    char label[96];
    char isolation[32]; /* "" = shares connections with others */
    enum cm_cred_state state;
    uint64_t until_ms;           /* monotonic; COOLING, EXHAUSTED */
    struct cooled_model *models; /* owned */
    uint64_t
        failed_ms[COUNT_LIMIT - 1]; /* latest failures that only count, newest first; 0 = none */
    int64_t count_cooldown_ms;      /* what the next series of failures costs */
    int64_t inflight;
    bool keep; /* seen in the configuration that is being applied */
};

struct provider {
    struct cm_str name;  /* owned */
    struct cm_list ring; /* struct credential */
    int64_t max_inflight, cooldown_ms;
    bool isolated, keep;
    uint64_t numbered; /* labels given so far */
};

struct cm_pool {
    const struct cm_clock *clock;
    struct cm_map providers; /* name -> struct provider */
    uint64_t last_id;
};

struct cm_lease {
    struct cm_pool *pool;
    struct credential *cred;
    size_t n_model;
    char model[];
};

const char *cm_cred_state_name(enum cm_cred_state state)
{
    static const char *const names[] = {
#define X(name, text) text,
        CM_CRED_STATES(X)
#undef X
    };

    return names[state];
}

static uint64_t now_of(const struct cm_pool *pool)
{
    return pool->clock->mono_ms(pool->clock->arg);
}

/* ---- states ---- */

static bool waits_for_operator(enum cm_cred_state state)
{
    return state == CM_CRED_STATE_NEEDS_LOGIN || state == CM_CRED_STATE_VERIFY ||
           state == CM_CRED_STATE_DISABLED;
}

/* Several attempts can be out at once and come back with different news: the worst counts. */
static bool outlasts(const struct credential *c, enum cm_cred_state state, uint64_t until_ms)
{
    if (c->state == CM_CRED_STATE_OK || state == CM_CRED_STATE_OK)
        return c->state == state;
    if (waits_for_operator(c->state) || waits_for_operator(state))
        return waits_for_operator(c->state);
    return until_ms <= c->until_ms;
}

/* The only place where a state changes. */
static void set_state(struct credential *c, enum cm_cred_state state, uint64_t until_ms,
                      uint64_t now_ms, const char *why)
{
    if (outlasts(c, state, until_ms))
        return;
    c->state = state;
    c->until_ms = until_ms;
    if (state == CM_CRED_STATE_OK)
        cm_info("pool", "%s is back", c->label);
    else if (until_ms)
        cm_info("pool", "%s is %s for %llu s: %s", c->label, cm_cred_state_name(state),
                (unsigned long long)(until_ms - now_ms + 999) / 1000, why);
    else
        cm_warn("pool", "%s is %s until an operator acts: %s", c->label, cm_cred_state_name(state),
                why);
}

static void wake(struct credential *c, uint64_t now_ms)
{
    if ((c->state == CM_CRED_STATE_COOLING || c->state == CM_CRED_STATE_EXHAUSTED) &&
        now_ms >= c->until_ms)
        set_state(c, CM_CRED_STATE_OK, 0, now_ms, NULL);
}

/* Until when the model is cooled on this credential; 0 = it is not. Forgets what is over. */
static uint64_t model_cooled(struct credential *c, struct cm_str model, uint64_t now_ms)
{
    for (struct cooled_model **p = &c->models; *p;) {
        struct cooled_model *m = *p;

        if (now_ms >= m->until_ms) {
            *p = m->next;
            free(m);
            continue;
        }
        if (cm_str_eq(cm_str(m->name, m->n), model))
            return m->until_ms;
        p = &m->next;
    }
    return 0;
}

static void cool_model(struct credential *c, struct cm_str model, uint64_t until_ms)
{
    struct cooled_model *m = cm_calloc(1, sizeof(*m) + model.n);

    memcpy(m->name, model.p, model.n);
    m->n = model.n;
    m->until_ms = until_ms;
    m->next = c->models;
    c->models = m;
    cm_info("pool", "%s does without model " CM_PRI " for a while", c->label, CM_ARG(model));
}

/* Three within a minute cool the credential, each further series twice as long. */
static void count_failure(struct credential *c, uint64_t now_ms, const char *why)
{
    uint64_t oldest = c->failed_ms[COUNT_LIMIT - 2];

    memmove(&c->failed_ms[1], &c->failed_ms[0], sizeof(c->failed_ms) - sizeof(c->failed_ms[0]));
    c->failed_ms[0] = now_ms ? now_ms : 1;
    if (oldest == 0 || now_ms - oldest > COUNT_WINDOW_MS)
        return;
    if (c->count_cooldown_ms == 0)
        c->count_cooldown_ms = COUNT_WINDOW_MS;
    set_state(c, CM_CRED_STATE_COOLING, now_ms + (uint64_t)c->count_cooldown_ms, now_ms, why);
    memset(c->failed_ms, 0, sizeof(c->failed_ms));
    c->count_cooldown_ms *= 2;
    if (c->count_cooldown_ms > COUNT_COOLDOWN_MAX_MS)
        c->count_cooldown_ms = COUNT_COOLDOWN_MAX_MS;
}

static void judge(struct credential *c, struct cm_str model, const struct cm_err *why,
                  uint64_t now_ms)
{
    const struct cm_err_info *info = cm_err_info(why->cls);
    uint64_t told_ms = (uint64_t)why->retry_after_s * 1000;
    int64_t default_ms = c->provider && c->provider->cooldown_ms > 0 ? c->provider->cooldown_ms
                                                                     : COOLDOWN_DEFAULT_MS;

    if (c->secret.n == 0)
        return; /* no account that could be to blame */
    switch (info->cred) {
    case CM_CRED_KEEP:
        break;
    case CM_CRED_DISABLE:
        set_state(c, CM_CRED_STATE_DISABLED, 0, now_ms, info->name);
        break;
    case CM_CRED_REFRESH:
        set_state(c, CM_CRED_STATE_NEEDS_LOGIN, 0, now_ms, info->name);
        break;
    case CM_CRED_VERIFY:
        set_state(c, CM_CRED_STATE_VERIFY, 0, now_ms, info->name);
        break;
    case CM_CRED_COOL:
        set_state(c, CM_CRED_STATE_COOLING, now_ms + (told_ms ? told_ms : (uint64_t)default_ms),
                  now_ms, info->name);
        break;
    case CM_CRED_EXHAUST:
        set_state(c, CM_CRED_STATE_EXHAUSTED, now_ms + (told_ms ? told_ms : EXHAUSTED_DEFAULT_MS),
                  now_ms, info->name);
        break;
    case CM_CRED_COOL_MODEL:
        if (!model_cooled(c, model, now_ms))
            cool_model(c, model, now_ms + (told_ms ? told_ms : MODEL_COOLDOWN_MS));
        break;
    case CM_CRED_COUNT:
        count_failure(c, now_ms, info->name);
        break;
    }
}

/* ---- configuration ---- */

static void credential_free(struct credential *c)
{
    for (struct cooled_model *m = c->models, *next; m; m = next) {
        next = m->next;
        free(m);
    }
    cm_secret_drop(c->secret);
    free(c);
}

static void credential_drop(struct credential *c)
{
    cm_list_remove(&c->link);
    c->provider = NULL;
    if (c->inflight == 0)
        credential_free(c);
}

static struct provider *provider_get(struct cm_pool *pool, struct cm_str name)
{
    struct provider *p = cm_map_get(&pool->providers, name);

    if (!p) {
        p = CM_NEW(struct provider);
        p->name = cm_str(cm_str_dup(name), name.n);
        cm_list_init(&p->ring);
        cm_map_put(&pool->providers, p->name, p);
    }
    return p;
}

static void provider_free(struct provider *p)
{
    CM_LIST_EACH(&p->ring, link)
    credential_drop(CM_LIST_ITEM(link, struct credential, link));
    free((char *)(uintptr_t)p->name.p);
    free(p);
}

static void add_secret(struct cm_pool *pool, struct provider *p, struct cm_str secret)
{
    struct credential *c;

    CM_LIST_EACH(&p->ring, link)
    {
        c = CM_LIST_ITEM(link, struct credential, link);
        if (cm_secret_eq(c->secret, secret)) {
            c->keep = true;
            return;
        }
    }
    c = CM_NEW(struct credential);
    c->id = ++pool->last_id;
    c->provider = p;
    c->secret = cm_secret_dup(secret);
    c->keep = true;
    snprintf(c->label, sizeof(c->label), CM_PRI "#%llu", CM_ARG(p->name),
             (unsigned long long)++p->numbered);
    if (p->isolated)
        snprintf(c->isolation, sizeof(c->isolation), "cred-%llu", (unsigned long long)c->id);
    cm_list_push(&p->ring, &c->link);
}

static void drop_unkept(struct cm_pool *pool)
{
    const struct cm_map_slot *slot;
    size_t pos = 0;

    while ((slot = cm_map_next(&pool->providers, &pos))) {
        struct provider *p = slot->value;

        CM_LIST_EACH(&p->ring, link)
        {
            struct credential *c = CM_LIST_ITEM(link, struct credential, link);

            if (!c->keep)
                credential_drop(c);
        }
    }
}

void cm_pool_configure(struct cm_pool *pool, const struct cm_pool_provider *providers, size_t n)
{
    const struct cm_map_slot *slot;

    for (size_t pos = 0; (slot = cm_map_next(&pool->providers, &pos));) {
        struct provider *p = slot->value;

        CM_LIST_EACH(&p->ring, link)
        CM_LIST_ITEM(link, struct credential, link)->keep = false;
    }
    for (size_t i = 0; i < n; i++) {
        struct provider *p = provider_get(pool, providers[i].name);

        p->max_inflight = providers[i].max_inflight;
        p->cooldown_ms = providers[i].cooldown_ms;
        p->isolated = providers[i].isolated;
        for (size_t k = 0; k < providers[i].n_secrets; k++)
            add_secret(pool, p, providers[i].secrets[k]);
        if (providers[i].n_secrets == 0 && providers[i].keyless)
            add_secret(pool, p, CM_STR_NONE);
    }
    drop_unkept(pool);
}

struct cm_pool *cm_pool_new(const struct cm_clock *clock)
{
    struct cm_pool *pool = CM_NEW(struct cm_pool);

    pool->clock = clock;
    return pool;
}

void cm_pool_free(struct cm_pool *pool)
{
    const struct cm_map_slot *slot;
    size_t pos = 0;

    if (!pool)
        return;
    while ((slot = cm_map_next(&pool->providers, &pos)))
        provider_free(slot->value);
    cm_map_clear(&pool->providers);
    free(pool);
}

/* ---- leases ---- */

static bool was_tried(const struct cm_tried *tried, uint64_t id)
{
    for (size_t i = 0; tried && i < tried->n; i++)
        if (tried->ids[i] == id)
            return true;
    return false;
}

/* Why nobody of a provider can serve now. */
struct absence {
    size_t total, tried, busy, cooling, waiting; /* waiting: for an operator */
    uint64_t soonest_ms;                         /* UINT64_MAX = nobody returns by time alone */
};

static int no_credential(struct cm_err *err, struct cm_str provider, const struct absence *a,
                         uint64_t now_ms)
{
    if (a->total == 0)
        cm_fail(err, CM_ERR_NO_CREDENTIAL, CM_PRI " has no credential: an operator must add one",
                CM_ARG(provider));
    else
        cm_fail(
            err, CM_ERR_NO_CREDENTIAL,
            CM_PRI
            ": none of %zu credentials can serve now (%zu limited, %zu busy, %zu tried for this request, %zu waiting for an operator)",
            CM_ARG(provider), a->total, a->cooling, a->busy, a->tried, a->waiting);
    if (err && a->soonest_ms != UINT64_MAX) {
        err->http_status = 429;
        err->retry_after_s =
            a->soonest_ms > now_ms ? (int)((a->soonest_ms - now_ms + 999) / 1000) : 1;
    }
    return -1;
}

static struct cm_lease *lease_new(struct cm_pool *pool, struct credential *c, struct cm_str model)
{
    struct cm_lease *lease = cm_calloc(1, sizeof(*lease) + model.n);

    lease->pool = pool;
    lease->cred = c;
    lease->n_model = model.n;
    if (model.n)
        memcpy(lease->model, model.p, model.n);
    c->inflight++;
    cm_list_remove(&c->link); /* to the end of the ring: now the most recently used */
    cm_list_push(&c->provider->ring, &c->link);
    return lease;
}

struct cm_lease *cm_pool_lease(struct cm_pool *pool, struct cm_str provider, struct cm_str model,
                               const struct cm_tried *tried, struct cm_err *err)
{
    struct provider *p = cm_map_get(&pool->providers, provider);
    uint64_t now_ms = now_of(pool);
    struct absence a = {.soonest_ms = UINT64_MAX};

    if (p) {
        CM_LIST_EACH(&p->ring, link)
        {
            struct credential *c = CM_LIST_ITEM(link, struct credential, link);
            uint64_t until_ms;

            a.total++;
            wake(c, now_ms);
            until_ms = c->state == CM_CRED_STATE_OK ? model_cooled(c, model, now_ms) : c->until_ms;
            if (c->state != CM_CRED_STATE_OK && c->state != CM_CRED_STATE_COOLING &&
                c->state != CM_CRED_STATE_EXHAUSTED) {
                a.waiting++;
            } else if (c->state != CM_CRED_STATE_OK || until_ms) {
                a.cooling++;
                a.soonest_ms = until_ms < a.soonest_ms ? until_ms : a.soonest_ms;
            } else if (was_tried(tried, c->id)) {
                a.tried++;
            } else if (p->max_inflight > 0 && c->inflight >= p->max_inflight) {
                a.busy++;
                a.soonest_ms = now_ms < a.soonest_ms ? now_ms : a.soonest_ms;
            } else {
                return lease_new(pool, c, model);
            }
        }
    }
    no_credential(err, provider, &a, now_ms);
    return NULL;
}

uint64_t cm_lease_id(const struct cm_lease *lease)
{
    return lease->cred->id;
}

struct cm_str cm_lease_secret(const struct cm_lease *lease)
{
    return lease->cred->secret;
}

struct cm_str cm_lease_label(const struct cm_lease *lease)
{
    return cm_str_of(lease->cred->label);
}

struct cm_str cm_lease_isolation(const struct cm_lease *lease)
{
    return cm_str_of(lease->cred->isolation);
}

void cm_lease_give_back(struct cm_lease *lease, const struct cm_err *why)
{
    struct credential *c = lease->cred;

    if (why)
        judge(c, cm_str(lease->model, lease->n_model), why, now_of(lease->pool));
    else
        c->count_cooldown_ms = 0;
    c->inflight--;
    if (!c->provider && c->inflight == 0)
        credential_free(c);
    free(lease);
}

void cm_pool_count(const struct cm_pool *pool, struct cm_str provider, struct cm_pool_counts *out)
{
    struct provider *p = cm_map_get(&pool->providers, provider);

    memset(out, 0, sizeof(*out));
    if (!p)
        return;
    CM_LIST_EACH(&p->ring, link)
    {
        struct credential *c = CM_LIST_ITEM(link, struct credential, link);

        wake(c, now_of(pool));
        out->state[c->state]++;
        out->inflight += (size_t)c->inflight;
        out->total++;
    }
}
