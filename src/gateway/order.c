/* Which target of a request is tried first: by priority, then as the route's strategy says, then by weight. */
#include "gateway_int.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>

static void swap(struct cm_target *a, struct cm_target *b)
{
    struct cm_target t = *a;

    *a = *b;
    *b = t;
}

/* Targets of the same priority take turns by weight: each place is drawn among those that are left. */
static void draw(struct cm_gateway *gw, struct cm_target *targets, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++) {
        size_t end = i, pick = i;
        uint64_t total = 0, drawn;

        for (; end < n && targets[end].priority == targets[i].priority; end++)
            total += (uint64_t)targets[end].weight;
        for (drawn = cm_rng_below(&gw->rng, total); drawn >= (uint64_t)targets[pick].weight; pick++)
            drawn -= (uint64_t)targets[pick].weight;
        if (pick != i)
            swap(&targets[i], &targets[pick]);
    }
}

/* Less is better. */
static double score(struct cm_gateway *gw, const struct snapshot *snap, const struct cm_target *t,
                    bool streamed)
{
    struct cm_str provider = snap->instances[t->provider].name;

    switch ((enum cm_route_strategy)t->route->strategy) {
    case CM_ROUTE_PRIORITY:
    case CM_ROUTE_WEIGHTED:
        break;
    case CM_ROUTE_LEAST_BUSY:
        return (double)health_busy(gw->health, provider, t->model) / (double)t->weight;
    case CM_ROUTE_FASTEST:
        return health_first_ms(gw->health, provider, t->model, streamed,
                               cm_loop_now_ms(gw->host->loop));
    }
    return 0;
}

/* Equal ones stay as they were drawn. */
static void sort_by_score(struct cm_gateway *gw, const struct snapshot *snap,
                          struct cm_target *targets, size_t n, bool streamed)
{
    double *scores = cm_calloc(n, sizeof(*scores));

    for (size_t i = 0; i < n; i++) {
        scores[i] = score(gw, snap, &targets[i], streamed);
        for (size_t k = i; k > 0 && scores[k] < scores[k - 1]; k--) {
            double s = scores[k];

            scores[k] = scores[k - 1];
            scores[k - 1] = s;
            swap(&targets[k], &targets[k - 1]);
        }
    }
    free(scores);
}

void order_targets(struct cm_gateway *gw, const struct snapshot *snap, struct cm_target *targets,
                   size_t n, bool streamed)
{
    const struct cm_model_conf *route = targets[0].route;

    draw(gw, targets, n);
    if (route && (route->strategy == CM_ROUTE_LEAST_BUSY || route->strategy == CM_ROUTE_FASTEST))
        sort_by_score(gw, snap, targets, n, streamed);
}
