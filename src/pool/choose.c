/* Which credential serves: leases out and back.
 *
 * The one a conversation is bound to comes first. Otherwise the provider's groups (same weight) take turns by what they have paid, and in a group the
 * top of its tree serves: least in flight, then least recently used. Those that cannot serve are not in the trees; those cooled for the model are
 * skipped by whole subtrees; only the few that were tried are looked at in vain. */
#include "pool_int.h"

#include <stdlib.h>

/* ---- leases ---- */

struct cm_lease *lease_new(struct cred *c, const struct cm_pool_ask *ask, uint64_t hash)
{
    struct provider *p = c->provider;
    struct cm_pool *pool = p->pool;
    struct cm_lease *l = pool->spare;

    if (l)
        pool->spare = l->next;
    else
        l = CM_NEW(struct cm_lease);
    l->pool = pool;
    l->cred = c;
    l->ident = c->ident;
    l->ident->refs++;
    l->secret_gen = c->secret_gen;
    l->isolated = p->isolated;
    l->trial = c->state == CM_CRED_STATE_HALF_OPEN;
    l->uncounted = ask->uncounted;
    l->model_hash = hash;
    cm_str_copy(l->model, sizeof(l->model), ask->model);
    pool->n_leases++;

    cred_take(c);
    c->inflight++;
    c->trials += l->trial;
    c->seq = ++pool->seq;
    c->used_ms = pool->now_ms ? pool->now_ms : 1;
    if (p->min_interval_ms > 0)
        c->ready_ms = pool->now_ms + (uint64_t)p->min_interval_ms;
    p->count.inflight++;
    cred_place(c);
    return l;
}

void lease_end(struct cm_lease *l)
{
    struct cm_pool *pool = l->pool;
    struct cred *c = l->cred;

    cred_take(c);
    c->inflight--;
    c->trials -= l->trial;
    if (c->provider)
        c->provider->count.inflight--;
    cred_place(c);
    if (!c->provider && c->inflight == 0)
        cred_free(c);
    ident_unref(l->ident);
    l->cred = NULL;
    l->ident = NULL;
    l->next = pool->spare;
    pool->spare = l;
    pool->n_leases--;
}

/* The platform has answered, or has been at it when it broke off. */
static bool costs(const struct cm_err *why)
{
    return !why || why->cls == CM_ERR_CUT || why->cls == CM_ERR_TIMEOUT;
}

int64_t cm_lease_give_back(struct cm_lease *lease, const struct cm_err *why, int64_t tokens_in,
                           int64_t tokens_out)
{
    struct cm_pool *pool = lease->pool;
    struct cred *c = lease->cred;
    int64_t month;

    pool_enter(pool);
    if (why && why->cls == CM_ERR_NONE)
        why = NULL;
    month = costs(why) ? month_count(lease) : 0;
    c->requests++;
    c->failures += why && cm_err_info(why->cls)->cred != CM_CRED_KEEP;
    c->tokens_in += tokens_in;
    c->tokens_out += tokens_out;
    if (c->provider) {
        cred_judge(lease, why);
        month_judge(c);
    }
    lease_end(lease);
    pool_settle(pool);
    return month;
}

int64_t cm_lease_cancel(struct cm_lease *lease, const struct cm_err *why)
{
    struct cm_pool *pool = lease->pool;
    struct cred *c = lease->cred;
    int64_t month;

    pool_enter(pool);
    month = costs(why) ? month_count(lease) : 0;
    c->requests++;
    if (c->provider)
        month_judge(c);
    lease_end(lease);
    pool_settle(pool);
    return month;
}

uint64_t cm_lease_id(const struct cm_lease *lease)
{
    return lease->cred->id;
}

struct cm_str cm_lease_secret(const struct cm_lease *lease)
{
    return lease->ident->secret;
}

struct cm_str cm_lease_token(const struct cm_lease *lease)
{
    return lease->ident->token;
}

struct cm_str cm_lease_label(const struct cm_lease *lease)
{
    return lease->ident->label;
}

struct cm_str cm_lease_proxy(const struct cm_lease *lease)
{
    return lease->ident->proxy;
}

struct cm_str cm_lease_isolation(const struct cm_lease *lease)
{
    return lease->isolated ? cm_str_of(lease->cred->isolation) : CM_S("");
}

/* ---- choosing ---- */

/* Apart from its place. */
static bool suits(const struct cm_pool_ask *ask, uint64_t bit, const struct cred *c)
{
    return !(c->mask & bit) && !was_tried(ask->tried, c->id) && (!ask->only || ask->only == c->id);
}

bool ask_suits(const struct cm_pool_ask *ask, uint64_t bit, const struct cred *c)
{
    return c->place == PLACE_FIT && suits(ask, bit, c);
}

static struct cred *fit_one(const struct provider *p, const struct cm_pool_ask *ask, uint64_t bit,
                            uint64_t id)
{
    struct cred *c = id ? cred_find(p->pool, id) : NULL;

    return c && c->provider == p && ask_suits(ask, bit, c) ? c : NULL;
}

/* A group that has paid less than the turn is worth (it had nobody, or not for this model) does not get the rest in one go. */
static uint64_t turn_of(const struct provider *p, struct group *g)
{
    if (g->pass - p->vtime > STRIDE_ONE)
        g->pass = p->vtime;
    return g->pass - p->vtime;
}

static struct group *next_group(struct provider *p, uint64_t bit)
{
    struct group *best = NULL;
    uint64_t best_turn = 0;

    CM_LIST_EACH(&p->groups, link)
    {
        struct group *g = CM_LIST_ITEM(link, struct group, link);
        uint64_t turn;

        ++p->pool->ops;
        if (!g->fit.root || (g->fit.root->all & bit) || g->passed_over == p->choices)
            continue;
        turn = turn_of(p, g);
        if (!best || turn < best_turn || (turn == best_turn && g->weight > best->weight)) {
            best = g;
            best_turn = turn;
        }
    }
    return best;
}

static struct cred *choose(struct provider *p, const struct cm_pool_ask *ask, uint64_t bit)
{
    struct group *g;

    p->choices++;
    while ((g = next_group(p, bit))) {
        struct cred *c = tree_first(&g->fit, bit, ask->tried);

        if (c) {
            p->vtime = g->pass;
            g->pass += STRIDE_ONE / (g->weight * g->fit.n);
            return c;
        }
        g->passed_over = p->choices;
    }
    return NULL;
}

static uint64_t binding_key(const struct provider *p, const struct cm_pool_ask *ask)
{
    return ask->affinity ^ (p->salt * 0x9e3779b97f4a7c15);
}

static struct cred *pick(struct provider *p, const struct cm_pool_ask *ask, uint64_t bit)
{
    struct cred *c = NULL;

    if (ask->only)
        return fit_one(p, ask, bit, ask->only);
    if (ask->affinity && !ask->begins) {
        const struct binding *b = affinity_find(p->pool, binding_key(p, ask));

        if (b && !(c = fit_one(p, ask, bit, b->home)))
            c = fit_one(p, ask, bit, b->guest);
    }
    return c ? c : choose(p, ask, bit);
}

/* True when it will not serve again by itself: its conversations find another home. */
static bool is_out(const struct cred *c)
{
    return !c || c->state == CM_CRED_STATE_NEEDS_LOGIN || c->state == CM_CRED_STATE_VERIFY ||
           c->state == CM_CRED_STATE_DISABLED;
}

void ask_bind(struct cm_pool *pool, const struct provider *p, const struct cm_pool_ask *ask,
              const struct cred *c)
{
    struct binding *b;

    if (!ask->affinity || ask->only)
        return;
    b = affinity_use(pool, binding_key(p, ask));
    if (ask->begins || (b->home != c->id && is_out(cred_find(pool, b->home))))
        b->home = c->id;
    b->guest = b->home == c->id ? 0 : c->id;
}

struct cm_lease *ask_lease(struct provider *p, const struct cm_pool_ask *ask, uint64_t hash)
{
    struct cred *c = pick(p, ask, model_bit(p, hash));

    if (!c)
        return NULL;
    ask_bind(p->pool, p, ask, c);
    return lease_new(c, ask, hash);
}

struct cm_lease *cm_pool_lease(struct cm_pool *pool, const struct cm_pool_ask *ask,
                               struct cm_err *err)
{
    struct provider *p = provider_find(pool, ask->provider);
    struct cm_lease *lease = NULL;

    pool_enter(pool);
    if (p) {
        provider_wake(p);
        wait_match(pool); /* those who came before go first; they are told at the next tick */
        lease = ask_lease(p, ask, model_hash(ask->model));
    }
    if (!lease)
        ask_fail(pool, p, ask, err);
    return lease;
}

/* ---- why nobody can ---- */

static size_t n_tried(struct provider *p, const struct cm_tried *tried)
{
    size_t n = 0;

    for (size_t i = 0; tried && i < tried->n; i++) {
        const struct cred *c = cred_find(p->pool, tried->ids[i]);

        n += c && c->provider == p && c->place == PLACE_FIT;
    }
    return n;
}

static uint64_t model_over_ms(const struct cred *c, uint64_t bit)
{
    for (const struct cooled *m = c->cooled; m; m = m->next)
        if (bit & (UINT64_C(1) << m->slot))
            return m->over.at_ms;
    return 0;
}

/* When somebody can serve again for whom time alone has to pass; UINT64_MAX = nobody. Whether this exchange has tried it does not count: the answer is
 * for the client, who will come with another. */
static uint64_t soonest(struct provider *p, const struct cm_pool_ask *ask, uint64_t bit)
{
    const struct due *ret = heap_top(&p->returns);
    uint64_t at = UINT64_MAX;

    if (ask->only) {
        const struct cred *c = cred_find(p->pool, ask->only);

        if (!c || c->provider != p || is_out(c))
            return UINT64_MAX;
        at = c->place == PLACE_RETURNS ? c->ret.at_ms : p->pool->now_ms;
        return model_over_ms(c, bit) > at ? model_over_ms(c, bit) : at;
    }
    if (tree_first(&p->busy, bit, NULL))
        return p->pool->now_ms;
    if (ret)
        at = ret->at_ms;
    if (bit) {
        ret = heap_top(&p->model[__builtin_ctzll(bit)].over);
        if (ret->at_ms < at)
            at = ret->at_ms;
    }
    return at;
}

static bool busy_one(struct provider *p, const struct cm_pool_ask *ask, uint64_t bit)
{
    const struct cred *c =
        ask->only ? cred_find(p->pool, ask->only) : tree_first(&p->busy, bit, ask->tried);

    return c && c->provider == p && c->place == PLACE_BUSY && suits(ask, bit, c);
}

void ask_fail(struct cm_pool *pool, struct provider *p, const struct cm_pool_ask *ask,
              struct cm_err *err)
{
    const struct cm_pool_counts *n = p ? &p->count : NULL;
    uint64_t bit, at;
    size_t limited, too_soon;

    if (!n || n->total == 0) {
        cm_fail(err, CM_ERR_NO_CREDENTIAL, CM_PRI " has no credential: an operator must add one",
                CM_ARG(ask->provider));
        return;
    }
    if (!err)
        return;
    bit = model_bit(p, model_hash(ask->model));
    limited = n->state[CM_CRED_STATE_COOLING] + n->state[CM_CRED_STATE_EXHAUSTED];
    too_soon = p->returns.n > limited ? p->returns.n - limited : 0;
    cm_fail(err, CM_ERR_NO_CREDENTIAL,
            CM_PRI
            ": none of %zu credentials can serve now (%zu limited, %zu busy, %zu without this "
            "model, %zu tried for this request, %zu waiting for an operator)",
            CM_ARG(ask->provider), n->total, limited, p->busy.n + too_soon,
            bit ? p->model[__builtin_ctzll(bit)].over.n : 0, n_tried(p, ask->tried),
            n->state[CM_CRED_STATE_NEEDS_LOGIN] + n->state[CM_CRED_STATE_VERIFY] +
                n->state[CM_CRED_STATE_DISABLED]);
    at = soonest(p, ask, bit);
    if (at != UINT64_MAX) {
        err->http_status = 429;
        err->retry_after_s = at > pool->now_ms ? (int)((at - pool->now_ms + 999) / 1000) : 1;
    }
    if (busy_one(p, ask, bit))
        cm_str_copy(err->param, sizeof(err->param), CM_S("busy"));
}

/* ---- is it worth waiting? ---- */

struct hope {
    struct provider *p;
    const struct cm_pool_ask *ask;
    uint64_t bit, by_ms;
    unsigned left; /* looks left: those that were tried, and models limited for longer, are few */
};

/* From `pos` down somebody returns in time. */
/* NOLINTNEXTLINE(misc-no-recursion): as deep as the heap */
static bool returns_by(struct hope *h, size_t pos)
{
    const struct heap *heap = &h->p->returns;
    const struct cred *c;

    if (pos > heap->n || heap->v[pos]->at_ms > h->by_ms || h->left == 0)
        return false;
    h->left--;
    ++h->p->pool->ops;
    c = CM_CONTAINER(heap->v[pos], struct cred, ret);
    if (!was_tried(h->ask->tried, c->id) && model_over_ms(c, h->bit) <= h->by_ms)
        return true;
    return returns_by(h, 2 * pos) || returns_by(h, 2 * pos + 1);
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the heap */
static bool uncooled_by(struct hope *h, size_t pos)
{
    const struct heap *heap = &h->p->model[__builtin_ctzll(h->bit)].over;
    const struct cred *c;

    if (pos > heap->n || heap->v[pos]->at_ms > h->by_ms || h->left == 0)
        return false;
    h->left--;
    ++h->p->pool->ops;
    c = CM_CONTAINER(heap->v[pos], struct cooled, over)->cred;
    if (!was_tried(h->ask->tried, c->id) && (c->place == PLACE_FIT || c->place == PLACE_BUSY))
        return true;
    return uncooled_by(h, 2 * pos) || uncooled_by(h, 2 * pos + 1);
}

bool ask_hopeful(struct provider *p, const struct cm_pool_ask *ask, uint64_t hash, uint64_t by_ms)
{
    struct hope h = {.p = p, .ask = ask, .bit = model_bit(p, hash), .by_ms = by_ms, .left = 256};

    if (ask->only)
        return !was_tried(ask->tried, ask->only) && soonest(p, ask, h.bit) <= by_ms;
    return busy_one(p, ask, h.bit) || returns_by(&h, 1) || (h.bit && uncooled_by(&h, 1));
}
