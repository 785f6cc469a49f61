/* Waiting in line for a lease, first come first served per provider.
 *
 * Between two calls nobody in the line could be served by anybody who is fit. So when a credential becomes able to serve (given back, cooled down,
 * added …) only that one is offered, to each in the order of arrival: who cannot use it holds up nobody. Leases are attached at once, which keeps the
 * order against those who ask later; the owners are told from a call that may do so, at the latest the next tick. */
#include "pool_int.h"

#include <stdlib.h>

struct cm_pool_wait {
    struct cm_pool *pool;
    struct provider *provider; /* NULL once it is served or given up */
    struct cm_list link;       /* in provider->waiting, then in pool->answers */
    struct due patience;       /* in pool->patience while in line */
    struct cm_pool_ask ask;    /* provider and model lie in `text` */
    uint64_t hash;             /* of the model */
    cm_pool_wait_fn *fn;
    void *arg;
    struct cm_lease *lease; /* NULL when it is in vain */
    struct cm_err err;
    char text[];
};

static struct cm_pool_wait *wait_new(struct cm_pool *pool, const struct cm_pool_ask *ask,
                                     uint64_t hash, cm_pool_wait_fn *fn, void *arg)
{
    struct cm_pool_wait *w = cm_calloc(1, sizeof(*w) + ask->provider.n + ask->model.n);

    w->pool = pool;
    w->ask = *ask;
    if (ask->provider.n)
        memcpy(w->text, ask->provider.p, ask->provider.n);
    if (ask->model.n)
        memcpy(w->text + ask->provider.n, ask->model.p, ask->model.n);
    w->ask.provider.p = w->text;
    w->ask.model.p = w->text + ask->provider.n;
    w->hash = hash;
    w->fn = fn;
    w->arg = arg;
    cm_list_init(&w->link);
    pool->n_waits++;
    return w;
}

static void wait_free(struct cm_pool_wait *w)
{
    w->pool->n_waits--;
    free(w);
}

/* Out of the line, if it is in one. */
static void leave(struct cm_pool_wait *w)
{
    cm_list_remove(&w->link);
    heap_del(&w->pool->patience, &w->patience);
    if (w->provider)
        w->provider->count.waiting--;
    w->provider = NULL;
}

static void answer(struct cm_pool_wait *w, struct cm_lease *lease)
{
    leave(w);
    w->lease = lease;
    cm_list_push(&w->pool->answers, &w->link);
}

struct cm_pool_wait *cm_pool_wait(struct cm_pool *pool, const struct cm_pool_ask *ask,
                                  int64_t max_wait_ms, cm_pool_wait_fn *fn, void *arg,
                                  struct cm_err *err)
{
    struct provider *p = provider_find(pool, ask->provider);
    uint64_t now = pool_enter(pool), hash = model_hash(ask->model), by_ms;
    struct cm_pool_wait *w;
    struct cm_lease *lease;

    if (!p) {
        ask_fail(pool, NULL, ask, err);
        return NULL;
    }
    provider_wake(p);
    wait_match(pool);
    lease = ask_lease(p, ask, hash);
    by_ms = now + (max_wait_ms > 0 ? (uint64_t)max_wait_ms : 0);
    if (!lease && (max_wait_ms <= 0 || p->count.waiting >= WAITING_MAX ||
                   !ask_hopeful(p, ask, hash, by_ms))) {
        ask_fail(pool, p, ask, err);
        return NULL;
    }
    w = wait_new(pool, ask, hash, fn, arg);
    if (lease) {
        answer(w, lease);
        return w;
    }
    w->provider = p;
    p->count.waiting++;
    cm_list_push(&p->waiting, &w->link);
    heap_put(&pool->patience, &w->patience, by_ms);
    return w;
}

void cm_pool_wait_cancel(struct cm_pool_wait *w)
{
    struct cm_pool *pool = w->pool;

    pool_enter(pool);
    leave(w);
    if (w->lease) { /* it never went out */
        pair_ends(w->lease, PAIR_UNDECIDED);
        lease_end(w->lease, false);
    }
    wait_free(w);
    wait_match(pool);
}

/* `c` to those in line, until it can do no more. */
static void offer(struct cred *c)
{
    struct provider *p = c->provider;

    CM_LIST_EACH(&p->waiting, link)
    {
        struct cm_pool_wait *w = CM_LIST_ITEM(link, struct cm_pool_wait, link);
        struct cm_choice choice;
        struct want want;

        if (c->place != PLACE_FIT)
            return;
        ++p->pool->ops;
        want = ask_want(p, &w->ask, c->mask ? w->hash : 0);
        if (!want_suits(&want, c))
            continue;
        choice = (struct cm_choice){.by = CM_CHOICE_FREED};
        ask_bind(p->pool, p, &w->ask, c, &choice);
        answer(w, lease_new(c, &w->ask, w->hash, choice));
    }
}

void wait_match(struct cm_pool *pool)
{
    struct cm_list *link;

    while ((link = cm_list_pop(&pool->fresh)))
        offer(CM_LIST_ITEM(link, struct cred, fresh));
}

void wait_give_up(struct cm_pool *pool)
{
    struct due *d;

    while ((d = heap_top(&pool->patience)) && d->at_ms <= pool->now_ms) {
        struct cm_pool_wait *w = CM_CONTAINER(d, struct cm_pool_wait, patience);

        ask_fail(pool, w->provider, &w->ask, &w->err);
        answer(w, NULL);
    }
}

void wait_orphan(struct provider *p)
{
    CM_LIST_EACH(&p->waiting, link)
    {
        struct cm_pool_wait *w = CM_LIST_ITEM(link, struct cm_pool_wait, link);

        ask_fail(p->pool, NULL, &w->ask, &w->err);
        answer(w, NULL);
    }
}

/* An owner may call the pool from fn: cancel others, give leases back, wait again. */
void pool_tell(struct cm_pool *pool)
{
    struct cm_list *link;

    while ((link = cm_list_pop(&pool->answers))) {
        struct cm_pool_wait told, *w = CM_LIST_ITEM(link, struct cm_pool_wait, link);

        told = *w;
        wait_free(w);
        told.fn(told.arg, told.lease, told.lease ? NULL : &told.err);
    }
}
