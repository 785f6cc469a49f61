/* Which target of a request is tried first: by priority, then as the route's strategy says, then by weight. */
#include "gateway_int.h"

#include "chatmux/base/mem.h"

static void swap(struct cm_target *a, struct cm_target *b)
{
    struct cm_target t = *a;

    *a = *b;
    *b = t;
}

/* Targets of the same priority take turns by weight: each place is drawn among those that are left. */
static void draw(struct exchange *ex)
{
    for (size_t i = 0; i + 1 < ex->n_targets; i++) {
        size_t end = i, pick = i;
        uint64_t total = 0, drawn;

        for (; end < ex->n_targets && ex->targets[end].priority == ex->targets[i].priority; end++)
            total += (uint64_t)ex->targets[end].weight;
        for (drawn = cm_rng_below(&ex->gw->rng, total); drawn >= (uint64_t)ex->targets[pick].weight;
             pick++)
            drawn -= (uint64_t)ex->targets[pick].weight;
        if (pick != i)
            swap(&ex->targets[i], &ex->targets[pick]);
    }
}

/* Less is better. */
static double score(const struct exchange *ex, const struct cm_target *t)
{
    struct cm_str provider = ex->snap->instances[t->provider].name;
    const struct health *h = ex->gw->health;

    switch ((enum cm_route_strategy)t->route->strategy) {
    case CM_ROUTE_PRIORITY:
    case CM_ROUTE_WEIGHTED:
        break;
    case CM_ROUTE_LEAST_BUSY:
        return (double)health_busy(h, provider, t->model) / (double)t->weight;
    case CM_ROUTE_FASTEST:
        return health_first_ms(h, provider, t->model, ex->chat->stream,
                               cm_loop_now_ms(ex->gw->host->loop));
    }
    return 0;
}

/* Equal ones stay as they were drawn. */
static void sort_by_score(struct exchange *ex)
{
    double *scores = CM_ARENA_ARRAY(&ex->arena, double, ex->n_targets);

    for (size_t i = 0; i < ex->n_targets; i++) {
        scores[i] = score(ex, &ex->targets[i]);
        for (size_t k = i; k > 0 && scores[k] < scores[k - 1]; k--) {
            double s = scores[k];

            scores[k] = scores[k - 1];
            scores[k - 1] = s;
            swap(&ex->targets[k], &ex->targets[k - 1]);
        }
    }
}

void order_targets(struct exchange *ex)
{
    const struct cm_model_conf *route = ex->targets[0].route;

    draw(ex);
    if (route && (route->strategy == CM_ROUTE_LEAST_BUSY || route->strategy == CM_ROUTE_FASTEST))
        sort_by_score(ex);
}
