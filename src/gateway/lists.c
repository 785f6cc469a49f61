/* What models upstreams have: asked at the start, after a reload and every ten minutes, where neither the operator nor the adapter named any. */
#include "gateway_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include <stdlib.h>

#define LISTS_EVERY_MS (10 * 60 * 1000)
#define LISTS_AGAIN_MS (60 * 1000) /* after a failure */
#define LISTED_MAX 20000

struct listed *listed_new(struct cm_str provider)
{
    struct listed *l = CM_NEW(struct listed);

    l->provider = cm_arena_str(&l->arena, provider);
    return l;
}

void listed_free(struct listed *l)
{
    if (!l)
        return;
    cm_arena_clear(&l->arena);
    free(l->rows);
    free(l);
}

void listed_free_all(struct cm_map *listed)
{
    const struct cm_map_slot *slot;
    size_t pos = 0;

    while ((slot = cm_map_next(listed, &pos)))
        listed_free(slot->value);
    cm_map_clear(listed);
}

void listed_add(struct listed *l, const struct cm_model_row *row)
{
    if (l->n_rows == LISTED_MAX)
        return;
    if (l->n_rows == l->cap_rows) {
        l->cap_rows = l->cap_rows ? l->cap_rows * 2 : 64;
        l->rows = cm_realloc(l->rows, l->cap_rows * sizeof(*l->rows));
    }
    l->rows[l->n_rows] = *row;
    l->rows[l->n_rows].name = cm_arena_str(&l->arena, row->name);
    l->rows[l->n_rows++].upstream = cm_arena_str(&l->arena, row->upstream);
}

static bool same_list(const struct listed *a, const struct listed *b)
{
    if (!a || a->n_rows != b->n_rows)
        return false;
    for (size_t i = 0; i < a->n_rows; i++)
        if (!cm_str_eq(a->rows[i].name, b->rows[i].name))
            return false;
    return true;
}

static void due_in(struct cm_gateway *gw, uint64_t ms)
{
    uint64_t at_ms = cm_loop_now_ms(gw->host->loop) + ms;

    if (gw->lists_due.slot == SIZE_MAX || gw->lists_due.at_ms > at_ms)
        cm_deadline_set(gw->host->loop, &gw->lists_due, at_ms);
}

/* What was found becomes part of what is served. */
static void adopt(struct cm_gateway *gw, struct listed *found)
{
    struct cm_arena texts = {0};
    struct cm_problems problems;
    struct listed *before = cm_map_get(&gw->listed, found->provider);
    struct snapshot *s;

    if (same_list(before, found)) {
        listed_free(found);
        return;
    }
    cm_problems_init(&problems, &texts);
    cm_map_put(&gw->listed, found->provider, found);
    s = snapshot_new(gw->now->config, &gw->listed, &problems);
    CM_ASSERT(s); /* the configuration was good before, and a list makes no problems */
    cm_arena_clear(&texts);
    cm_info("models", CM_PRI " lists %zu models", CM_ARG(found->provider), found->n_rows);
    listed_free(before);
    gateway_swap(gw, s);
}

void lists_found(struct cm_gateway *gw, const struct cm_instance *in, struct listed *found)
{
    due_in(gw, found ? LISTS_EVERY_MS : LISTS_AGAIN_MS);
    if (found)
        adopt(gw, found);
    else if (!cm_map_get(&gw->listed, in->name))
        cm_info("models", CM_PRI ": its models cannot be listed now, so any name is tried",
                CM_ARG(in->name));
}

void lists_refresh(struct cm_gateway *gw)
{
    cm_deadline_clear(gw->host->loop, &gw->lists_due);
    for (size_t i = 0; i < gw->now->n_instances && !gw->closing; i++) {
        const struct cm_instance *in = &gw->now->instances[i];

        if (in->listed && in->adapter->models_list.step && !errand_under_way(gw, in->name))
            errand_models(gw, in);
    }
}
