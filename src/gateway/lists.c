/* What models upstreams have: asked at the start, after a reload and every ten minutes, where neither the operator nor the adapter named any. */
#include "gateway_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include <stdlib.h>

#define LISTS_EVERY_MS (10 * 60 * 1000)
#define LISTS_AGAIN_MS (60 * 1000) /* after a failure */
#define LISTED_MAX 20000

/* One GET of one provider's list. */
struct errand {
    struct cm_list link; /* in gw->errands */
    struct cm_gateway *gw;
    struct snapshot *snap; /* a reference */
    const struct cm_instance *in;
    struct cm_lease *lease;
    struct cm_run *run;   /* NULL once it has been closed */
    struct listed *found; /* owned until it is the gateway's */
    struct cm_err verdict;
};

static void listed_free(struct listed *l)
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

static void due_in(struct cm_gateway *gw, uint64_t ms)
{
    uint64_t at_ms = cm_loop_now_ms(gw->host->loop) + ms;

    if (gw->lists_due.slot == SIZE_MAX || gw->lists_due.at_ms > at_ms)
        cm_deadline_set(gw->host->loop, &gw->lists_due, at_ms);
}

static void on_released(void *arg)
{
    struct errand *e = arg;
    struct cm_gateway *gw = e->gw;

    cm_lease_give_back(e->lease, e->verdict.cls ? &e->verdict : NULL);
    cm_list_remove(&e->link);
    snapshot_unref(e->snap);
    listed_free(e->found);
    free(e);
    gateway_attempt_over(gw);
}

static void on_model(void *arg, const struct cm_model_row *row)
{
    struct errand *e = arg;
    struct listed *l = e->found;

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

/* What was found becomes part of what is served. */
static void adopt(struct errand *e)
{
    struct cm_gateway *gw = e->gw;
    struct cm_arena texts = {0};
    struct cm_problems problems;
    struct listed *before = cm_map_get(&gw->listed, e->found->provider);
    struct snapshot *s;

    if (same_list(before, e->found))
        return;
    cm_problems_init(&problems, &texts);
    cm_map_put(&gw->listed, e->found->provider, e->found);
    s = snapshot_new(gw->now->config, &gw->listed, &problems);
    CM_ASSERT(s); /* the configuration was good before, and a list makes no problems */
    cm_arena_clear(&texts);
    cm_info("models", CM_PRI " lists %zu models", CM_ARG(e->in->name), e->found->n_rows);
    e->found = NULL;
    listed_free(before);
    gateway_swap(gw, s);
}

static void on_end(void *arg, const struct cm_err *err)
{
    struct errand *e = arg;
    struct cm_run *run = e->run;

    if (err) {
        cm_warn("models", CM_PRI ": its models cannot be listed, so any name is tried: %s",
                CM_ARG(e->in->name), err->msg);
        e->verdict = *err;
    }
    due_in(e->gw, err ? LISTS_AGAIN_MS : LISTS_EVERY_MS);
    if (!err && !e->gw->closing)
        adopt(e);
    e->run = NULL;
    cm_run_close(run, on_released, e);
}

static const struct cm_run_cb errand_cb = {.on_end = on_end};

static bool under_way(struct cm_gateway *gw, struct cm_str provider)
{
    CM_LIST_EACH(&gw->errands, l)
    if (cm_str_eq(CM_LIST_ITEM(l, struct errand, link)->in->name, provider))
        return true;
    return false;
}

static void errand_begin(struct cm_gateway *gw, const struct cm_instance *in)
{
    struct cm_err err = {0};
    struct cm_lease *lease = cm_pool_lease(gw->pool, in->name, CM_STR_NONE, NULL, &err);
    struct cm_run_setup setup;
    struct errand *e;

    if (!lease) {
        due_in(gw, LISTS_AGAIN_MS);
        return;
    }
    e = CM_NEW(struct errand);
    e->gw = gw;
    e->snap = snapshot_ref(gw->now);
    e->in = in;
    e->lease = lease;
    e->found = CM_NEW(struct listed);
    e->found->provider = cm_arena_str(&e->found->arena, in->name);
    cm_list_push(&gw->errands, &e->link);
    gw->attempts_out++;
    setup = (struct cm_run_setup){.flow = &in->adapter->models_list,
                                  .instance = in,
                                  .cred = {.id = cm_lease_id(lease),
                                           .secret = cm_lease_secret(lease),
                                           .label = cm_lease_label(lease),
                                           .isolation = cm_lease_isolation(lease)},
                                  .id = CM_S("models"),
                                  .on_model = on_model};
    e->run = cm_run_open(gw->host, &setup, &errand_cb, e);
}

void lists_refresh(struct cm_gateway *gw)
{
    cm_deadline_clear(gw->host->loop, &gw->lists_due);
    for (size_t i = 0; i < gw->now->n_instances && !gw->closing; i++) {
        const struct cm_instance *in = &gw->now->instances[i];

        if (in->listed && in->adapter->models_list.step && !under_way(gw, in->name))
            errand_begin(gw, in);
    }
}

void lists_stop(struct cm_gateway *gw)
{
    cm_deadline_clear(gw->host->loop, &gw->lists_due);
    CM_LIST_EACH(&gw->errands, link)
    {
        struct errand *e = CM_LIST_ITEM(link, struct errand, link);
        struct cm_run *run = e->run;

        e->run = NULL;
        if (run)
            cm_run_close(run, on_released, e);
    }
}
