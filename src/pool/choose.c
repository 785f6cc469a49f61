/* Which credential serves: leases out and back.
 *
 * The one a conversation is bound to comes first. Otherwise the provider's groups (same weight) take turns by what they have paid, and in a group the
 * top of its tree serves: least in flight, then least recently used. Those that cannot serve are not in the trees; those cooled for the model, and those
 * that cannot pay, are skipped by whole subtrees; only the few that were tried are looked at in vain. */
#include "pool_int.h"

#include <stdlib.h>

#define LOOKS_MAX 256 /* into a heap by time, for one that suits */

/* ---- leases ---- */

struct cm_lease *lease_new(struct cred *c, const struct cm_pool_ask *ask, uint64_t hash,
                           struct cm_choice choice)
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
    l->choice = choice;
    l->choice.half_open = l->trial;
    l->model_hash = hash;
    l->pair_trial = 0;
    l->cost = ask->cost;
    l->purse = ask->purse;
    cm_str_copy(l->model, sizeof(l->model), ask->model);
    pool->n_leases++;

    cred_take(c);
    credit_hold(l);
    c->inflight++;
    c->trials += l->trial;
    c->seq = ++pool->seq;
    c->used_ms = pool->now_ms ? pool->now_ms : 1;
    if (p->min_interval_ms > 0)
        c->ready_ms = pool->now_ms + (uint64_t)p->min_interval_ms;
    p->count.inflight++;
    cred_place(c);
    if (c->pairs)
        pair_begins(l);
    return l;
}

void lease_end(struct cm_lease *l, bool spent)
{
    struct cm_pool *pool = l->pool;
    struct cred *c = l->cred;
    const bool back = l->held && !spent;

    cred_take(c);
    credit_release(l, spent);
    c->inflight--;
    c->trials -= l->trial;
    if (c->provider)
        c->provider->count.inflight--;
    cred_place(c);
    if (back)
        cred_stir(c);
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
    pair_ends(lease, PAIR_UNDECIDED); /* unless it has told more */
    lease_end(lease, costs(why));
    pool_settle(pool);
    return month;
}

int64_t cm_lease_cancel(struct cm_lease *lease, const struct cm_err *why)
{
    struct cm_pool *pool = lease->pool;
    struct cred *c = lease->cred;
    /* whoever is to decide about account and model decides, also by a repetition that failed */
    const bool failed = lease->pair_trial && why && cm_err_info(why->cls)->cred == CM_CRED_COUNT;
    int64_t month;

    pool_enter(pool);
    month = costs(why) ? month_count(lease) : 0;
    c->requests++;
    if (c->provider)
        month_judge(c);
    pair_ends(lease, failed ? PAIR_FAILED : PAIR_UNDECIDED);
    lease_end(lease, costs(why));
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
    return lease->isolated ? cm_str_of(lease->ident->isolation) : CM_S("");
}

const struct cm_choice *cm_lease_choice(const struct cm_lease *lease)
{
    return &lease->choice;
}

const char *cm_choice_name(enum cm_choice_by by)
{
    static const char *const names[] = {
#define X(name, text) text,
        CM_CHOICES(X)
#undef X
    };

    return names[by];
}

/* ---- choosing ---- */

struct want ask_want(const struct provider *p, const struct cm_pool_ask *ask, uint64_t hash)
{
    CM_ASSERT(ask->purse < CM_PURSES);
    return (struct want){.bit = model_bit(p, hash),
                         .cost = ask->cost,
                         .purse = ask->purse,
                         .tried = ask->tried,
                         .only = ask->only};
}

bool want_suits(const struct want *w, const struct cred *c)
{
    return !(c->mask & w->bit) && cred_purse(c, w->purse) >= w->cost &&
           !was_tried(w->tried, c->id) && (!w->only || w->only == c->id);
}

static struct cred *fit_one(const struct provider *p, const struct want *w, uint64_t id)
{
    struct cred *c = id ? cred_find(p->pool, id) : NULL;

    return c && c->provider == p && c->place == PLACE_FIT && want_suits(w, c) ? c : NULL;
}

/* A group that has paid less than the turn is worth (it had nobody, or not for this model) does not get the rest in one go. */
static uint64_t turn_of(const struct provider *p, const struct group *g)
{
    return g->pass - p->vtime > STRIDE_ONE ? 0 : g->pass - p->vtime;
}

static void pay_turn(struct provider *p, struct group *g)
{
    p->vtime += turn_of(p, g);
    g->pass = p->vtime + STRIDE_ONE / (g->weight * g->fit.n);
}

/* *n: how many may have somebody. */
static struct group *next_group(struct provider *p, const struct want *w, size_t *n)
{
    struct group *best = NULL;
    uint64_t best_turn = 0;

    *n = 0;
    CM_LIST_EACH(&p->groups, link)
    {
        struct group *g = CM_LIST_ITEM(link, struct group, link);
        uint64_t turn;

        ++p->pool->ops;
        if (!tree_hopeful(&g->fit, w) || g->passed_over == p->choices)
            continue;
        ++*n;
        turn = turn_of(p, g);
        if (!best || turn < best_turn || (turn == best_turn && g->weight > best->weight)) {
            best = g;
            best_turn = turn;
        }
    }
    return best;
}

static enum cm_choice_by by_rank(const struct group *g, const struct cred *c, const struct want *w)
{
    const struct cred *second = tree_second(&g->fit, c, w);

    if (!second)
        return CM_CHOICE_ALONE;
    return second->inflight > c->inflight ? CM_CHOICE_INFLIGHT : CM_CHOICE_RECENTLY;
}

/* *turn: the group whose turn it is. */
static struct cred *choose(struct provider *p, const struct want *w, enum cm_choice_by *by,
                           struct group **turn)
{
    struct group *g;
    size_t n;

    p->choices++;
    while ((g = next_group(p, w, &n))) {
        struct cred *c = tree_first(&g->fit, w);

        if (c) {
            *by = n > 1 ? CM_CHOICE_WEIGHT : by_rank(g, c, w);
            *turn = g;
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

/* Changes nothing that a later choice depends on. *turn: the group that has to pay for it, NULL = none. */
static struct cred *pick(struct provider *p, const struct cm_pool_ask *ask, const struct want *w,
                         enum cm_choice_by *by, struct group **turn)
{
    struct cred *c = NULL;

    *turn = NULL;
    *by = CM_CHOICE_ASKED;
    if (ask->only)
        return fit_one(p, w, ask->only);
    *by = CM_CHOICE_CONVERSATION;
    if (ask->holder && (c = fit_one(p, w, ask->holder)))
        return c;
    if (ask->affinity && !ask->begins) {
        const struct binding *b = affinity_find(p->pool, binding_key(p, ask));

        if (b && !(c = fit_one(p, w, b->home))) {
            *by = CM_CHOICE_BORROWED;
            c = fit_one(p, w, b->guest);
        }
    }
    return c ? c : choose(p, w, by, turn);
}

/* True when it will not serve again by itself: its conversations find another home. */
static bool is_out(const struct cred *c)
{
    return !c || c->state == CM_CRED_STATE_NEEDS_LOGIN || c->state == CM_CRED_STATE_VERIFY ||
           c->state == CM_CRED_STATE_DISABLED;
}

void ask_bind(struct cm_pool *pool, const struct provider *p, const struct cm_pool_ask *ask,
              const struct cred *c, struct cm_choice *choice)
{
    const struct cred *home;
    struct binding *b;

    if (!ask->affinity || ask->only)
        return;
    b = affinity_use(pool, binding_key(p, ask));
    if (ask->holder == c->id) { /* wherever it was bound: here it goes on */
        choice->by = CM_CHOICE_CONVERSATION;
        b->home = c->id;
        b->guest = 0;
        return;
    }
    home = ask->begins ? NULL : cred_find(pool, b->home);
    if (home == c) {
        choice->by = CM_CHOICE_CONVERSATION;
    } else if (home) {
        choice->bound = home->id;
        choice->bound_state = home->state;
    }
    if (ask->begins || (b->home != c->id && is_out(cred_find(pool, b->home))))
        b->home = c->id;
    b->guest = b->home == c->id ? 0 : c->id;
}

struct cm_lease *ask_lease(struct provider *p, const struct cm_pool_ask *ask, uint64_t hash)
{
    const struct want w = ask_want(p, ask, hash);
    struct cm_choice choice = {0};
    struct group *turn;
    struct cred *c = pick(p, ask, &w, &choice.by, &turn);

    if (!c)
        return NULL;
    if (turn)
        pay_turn(p, turn);
    ask_bind(p->pool, p, ask, c, &choice);
    return lease_new(c, ask, hash, choice);
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

uint64_t cm_pool_peek(struct cm_pool *pool, const struct cm_pool_ask *ask, struct cm_err *err)
{
    struct provider *p = provider_find(pool, ask->provider);
    enum cm_choice_by by;
    struct group *turn;
    struct cred *c = NULL;

    pool_enter(pool);
    if (p) {
        struct want w;

        provider_wake(p);
        wait_match(pool);
        w = ask_want(p, ask, model_hash(ask->model));
        c = pick(p, ask, &w, &by, &turn);
    }
    if (!c)
        ask_fail(pool, p, ask, err);
    return c ? c->id : 0;
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

/* The soonest of the returning from `pos` down who could pay. */
/* NOLINTNEXTLINE(misc-no-recursion): as deep as the heap */
static void soonest_return(struct provider *p, const struct want *w, size_t pos, unsigned *left,
                           uint64_t *at)
{
    const struct heap *heap = &p->returns;

    if (pos > heap->n || heap->v[pos]->at_ms >= *at || *left == 0)
        return;
    --*left;
    ++p->pool->ops;
    if (cred_purse(CM_CONTAINER(heap->v[pos], struct cred, ret), w->purse) >= w->cost) {
        *at = heap->v[pos]->at_ms;
        return;
    }
    soonest_return(p, w, 2 * pos, left, at);
    soonest_return(p, w, 2 * pos + 1, left, at);
}

/* When somebody can serve again for whom time alone has to pass; UINT64_MAX = nobody. Whether this exchange has tried it does not count: the answer is
 * for the client, who will come with another. */
static uint64_t soonest(struct provider *p, const struct want *w)
{
    const struct want untried = {.bit = w->bit, .cost = w->cost, .purse = w->purse};
    unsigned left = LOOKS_MAX;
    uint64_t at = UINT64_MAX;
    const struct due *over;

    if (w->only) {
        const struct cred *c = cred_find(p->pool, w->only);

        if (!c || c->provider != p || is_out(c) || cred_purse(c, w->purse) < w->cost)
            return UINT64_MAX;
        at = c->place == PLACE_RETURNS ? c->ret.at_ms : p->pool->now_ms;
        return model_over_ms(c, w->bit) > at ? model_over_ms(c, w->bit) : at;
    }
    if (tree_first(&p->busy, &untried))
        return p->pool->now_ms;
    soonest_return(p, w, 1, &left, &at);
    if (w->bit) {
        over = heap_top(&p->model[__builtin_ctzll(w->bit)].over);
        if (over->at_ms < at)
            at = over->at_ms;
    }
    return at;
}

static bool busy_one(struct provider *p, const struct want *w)
{
    const struct cred *c = w->only ? cred_find(p->pool, w->only) : tree_first(&p->busy, w);

    return c && c->provider == p && c->place == PLACE_BUSY && want_suits(w, c);
}

/* Apart from its cost somebody could serve it now, or as soon as somebody else is done. */
static bool only_credit_lacks(struct provider *p, const struct want *w)
{
    struct want free = *w;

    free.cost = 0;
    if (w->cost == 0)
        return false;
    if (w->only)
        return fit_one(p, &free, w->only) || busy_one(p, &free);
    CM_LIST_EACH(&p->groups, link)
    {
        if (tree_first(&CM_LIST_ITEM(link, struct group, link)->fit, &free))
            return true;
    }
    return busy_one(p, &free);
}

/* How many are in which state. */
static void tell_states(struct provider *p, const struct want *w, struct cm_err *err)
{
    const struct cm_pool_counts *n = &p->count;
    const size_t limited = n->state[CM_CRED_STATE_COOLING] + n->state[CM_CRED_STATE_EXHAUSTED];
    const size_t too_soon = p->returns.n > limited ? p->returns.n - limited : 0;

    cm_fail(err, CM_ERR_NO_CREDENTIAL,
            "%s: none of %zu credentials can serve now (%zu limited, %zu busy, %zu without this "
            "model, %zu tried for this request, %zu waiting for an operator)",
            p->name, n->total, limited, p->busy.n + too_soon,
            w->bit ? p->model[__builtin_ctzll(w->bit)].over.n : 0, n_tried(p, w->tried),
            n->state[CM_CRED_STATE_NEEDS_LOGIN] + n->state[CM_CRED_STATE_VERIFY] +
                n->state[CM_CRED_STATE_DISABLED]);
}

void ask_fail(struct cm_pool *pool, struct provider *p, const struct cm_pool_ask *ask,
              struct cm_err *err)
{
    struct want w;
    uint64_t at;

    if (!p || p->count.total == 0) {
        cm_fail(err, CM_ERR_NO_CREDENTIAL, CM_PRI " has no credential: an operator must add one",
                CM_ARG(ask->provider));
        return;
    }
    if (!err)
        return;
    if (p->lacks) {
        cm_fail(err, CM_ERR_NO_CREDENTIAL, CM_PRI ": %s", CM_ARG(ask->provider), p->lacks);
        cm_str_copy(err->code, sizeof(err->code), CM_S("not_configured"));
        return;
    }
    w = ask_want(p, ask, model_hash(ask->model));
    tell_states(p, &w, err);
    at = soonest(p, &w);
    if (at != UINT64_MAX) {
        err->http_status = 429;
        err->retry_after_s = at > pool->now_ms ? (int)((at - pool->now_ms + 999) / 1000) : 1;
    } else if (only_credit_lacks(p, &w)) {
        cm_fail(err, CM_ERR_QUOTA_EXHAUSTED,
                "%s: none of %zu credentials has the %lld credits left that an answer of " CM_PRI
                " costs",
                p->name, p->count.total, (long long)w.cost, CM_ARG(ask->model));
    }
    if (busy_one(p, &w))
        cm_str_copy(err->param, sizeof(err->param), CM_S("busy"));
}

/* ---- is it worth waiting? ---- */

struct hope {
    struct provider *p;
    struct want w;
    uint64_t by_ms;
    unsigned left; /* looks left: those that were tried, and models limited for longer, are few */
};

/* Apart from the limit of the model, which ends. */
static bool may_suit(const struct hope *h, const struct cred *c)
{
    return !was_tried(h->w.tried, c->id) && model_over_ms(c, h->w.bit) <= h->by_ms &&
           cred_purse(c, h->w.purse) >= h->w.cost;
}

/* From `pos` down somebody returns in time. */
/* NOLINTNEXTLINE(misc-no-recursion): as deep as the heap */
static bool returns_by(struct hope *h, size_t pos)
{
    const struct heap *heap = &h->p->returns;

    if (pos > heap->n || heap->v[pos]->at_ms > h->by_ms || h->left == 0)
        return false;
    h->left--;
    ++h->p->pool->ops;
    if (may_suit(h, CM_CONTAINER(heap->v[pos], struct cred, ret)))
        return true;
    return returns_by(h, 2 * pos) || returns_by(h, 2 * pos + 1);
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the heap */
static bool uncooled_by(struct hope *h, size_t pos)
{
    const struct heap *heap = &h->p->model[__builtin_ctzll(h->w.bit)].over;
    const struct cred *c;

    if (pos > heap->n || heap->v[pos]->at_ms > h->by_ms || h->left == 0)
        return false;
    h->left--;
    ++h->p->pool->ops;
    c = CM_CONTAINER(heap->v[pos], struct cooled, over)->cred;
    if (may_suit(h, c) && (c->place == PLACE_FIT || c->place == PLACE_BUSY))
        return true;
    return uncooled_by(h, 2 * pos) || uncooled_by(h, 2 * pos + 1);
}

bool ask_hopeful(struct provider *p, const struct cm_pool_ask *ask, uint64_t hash, uint64_t by_ms)
{
    struct hope h = {.p = p, .w = ask_want(p, ask, hash), .by_ms = by_ms, .left = LOOKS_MAX};

    if (ask->only)
        return !was_tried(ask->tried, ask->only) && soonest(p, &h.w) <= by_ms;
    return busy_one(p, &h.w) || returns_by(&h, 1) || (h.w.bit && uncooled_by(&h, 1));
}
