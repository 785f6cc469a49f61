/* Snapshot: a configuration with its instances, models and prices, ready to serve; immutable and counted. */
#include "gateway_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/provider/list.h"
#include <stdlib.h>

static bool is_loopback(struct cm_str address)
{
    return cm_str_starts(address, CM_S("127.")) || cm_str_starts(address, CM_S("[::1]")) ||
           cm_str_starts(address, CM_S("localhost:")) || cm_str_starts(address, CM_S("unix:"));
}

/* What an upstream listed may be replaced while this snapshot is in use: copied. */
static void copy_listed(struct snapshot *s, struct cm_offer *o, const struct listed *l)
{
    struct cm_model_row *rows = CM_ARENA_ARRAY(&s->arena, struct cm_model_row, l->n_rows);

    for (size_t i = 0; i < l->n_rows; i++) {
        rows[i] = l->rows[i];
        rows[i].name = cm_arena_str(&s->arena, rows[i].name);
        rows[i].upstream = cm_arena_str(&s->arena, rows[i].upstream);
    }
    o->rows = rows;
    o->n_rows = l->n_rows;
}

/* Models an upstream listed count where the operator named none and the adapter has no table; until they are known any name is tried. */
static void offer_init(struct snapshot *s, struct cm_offer *o, const struct cm_instance *in,
                       const struct cm_map *listed)
{
    const struct listed *l = in->listed ? cm_map_get(listed, in->name) : NULL;

    *o = (struct cm_offer){.provider = in->name,
                           .owner = cm_str_of(in->adapter->name),
                           .priority = in->conf->priority,
                           .weight = in->conf->weight,
                           .rows = in->rows,
                           .n_rows = in->n_rows,
                           .any = in->any || (in->listed && !l),
                           .any_features = in->adapter->any_features};
    if (l)
        copy_listed(s, o, l);
}

struct snapshot *snapshot_new(struct cm_config *config, const struct cm_map *listed,
                              struct cm_problems *problems)
{
    struct snapshot *s = CM_NEW(struct snapshot);
    unsigned before = problems->n;

    s->refs = 1;
    s->arena.secret = true; /* adapters keep credentials there in their own form */
    s->config = cm_config_ref(config);
    s->n_instances = config->n_providers;
    s->instances = CM_ARENA_ARRAY(&s->arena, struct cm_instance, s->n_instances);
    s->offers = CM_ARENA_ARRAY(&s->arena, struct cm_offer, s->n_instances);
    for (size_t i = 0; i < s->n_instances; i++)
        if (cm_instance_init(&s->instances[i], &config->providers[i], &s->arena, problems) == 0)
            offer_init(s, &s->offers[i], &s->instances[i], listed);
    if (problems->n == before)
        s->models =
            cm_models_new(s->offers, s->n_instances, config->models, config->n_models, problems);
    s->prices = cm_prices_of(config);
    s->loopback_only = true;
    for (size_t i = 0; i < config->server.listen.n; i++)
        s->loopback_only &= is_loopback(config->server.listen.v[i]);
    if (problems->n > before || !s->models) {
        snapshot_unref(s);
        return NULL;
    }
    return s;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
    s->refs++;
    return s;
}

void snapshot_unref(struct snapshot *s)
{
    if (!s || --s->refs > 0)
        return;
    cm_models_free(s->models);
    cm_prices_free(s->prices);
    cm_arena_clear(&s->arena);
    cm_config_unref(s->config);
    free(s);
}
