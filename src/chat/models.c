/* The catalogue of model names: routes, what providers list, and what they take unseen. */
#include "chatmux/chat/models.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#include <stdlib.h>

/* One name at one provider. */
struct entry {
    struct cm_str name;
    const char *z; /* the same as a C string */
    const struct cm_model_row *row;
    size_t offer;
    int64_t priority;
};

struct route {
    const struct cm_model_conf *conf;
    struct cm_target *targets, *larger;
    size_t n, n_larger;
};

struct cm_models {
    const struct cm_offer *offers; /* borrowed */
    size_t n_offers;
    size_t *by_priority;   /* indexes of all offers, lower priority first */
    struct entry *entries; /* by name, then by priority, then in the order of the offers */
    size_t n_entries;
    struct route *routes;
    size_t n_routes;
    struct cm_map first_of; /* name -> its first entry */
    struct cm_map offer_of; /* provider -> its offer */
    struct cm_map route_of; /* name -> struct route */
    struct cm_model_listed *list;
    size_t n_list;
    struct cm_arena arena; /* holds the arrays */
};

#define ANY_OFFER SIZE_MAX

/* A name with the modifiers that were taken off its end. */
struct wish {
    struct cm_str base;
    unsigned features;
};

#define MODIFIERS                                                                                  \
    (CM_MODEL_SEARCH | CM_MODEL_THINKING | CM_MODEL_NEWS | CM_MODEL_ACADEMIC | CM_MODEL_SILENT |   \
     CM_MODEL_FOLD)

/* Takes one of the `allowed` modifiers off that was not taken before. */
static bool wish_strip(struct wish *w, unsigned allowed)
{
    static const struct {
        struct cm_str suffix;
        unsigned feature;
    } modifiers[] = {
        {CM_S_INIT("-search"), CM_MODEL_SEARCH}, {CM_S_INIT("-thinking"), CM_MODEL_THINKING},
        {CM_S_INIT("-news"), CM_MODEL_NEWS},     {CM_S_INIT("-academic"), CM_MODEL_ACADEMIC},
        {CM_S_INIT("-silent"), CM_MODEL_SILENT}, {CM_S_INIT("-fold"), CM_MODEL_FOLD},
    };

    for (size_t i = 0; i < CM_COUNT(modifiers); i++) {
        const struct cm_str suffix = modifiers[i].suffix;

        if (!(allowed & ~w->features & modifiers[i].feature) || w->base.n <= suffix.n ||
            !cm_str_ends(w->base, suffix))
            continue;
        w->base = cm_str_head(w->base, w->base.n - suffix.n);
        w->features |= modifiers[i].feature;
        return true;
    }
    return false;
}

static struct cm_target make_target(const struct cm_models *m, size_t offer,
                                    const struct cm_model_row *row, const struct wish *w)
{
    return (struct cm_target){
        .provider = offer,
        .model = !row                  ? w->base
                 : row->upstream.n > 0 ? row->upstream
                                       : row->name,
        .row = row,
        .priority = m->offers[offer].priority,
        .weight = m->offers[offer].weight,
        .search = w->features & (CM_MODEL_SEARCH | CM_MODEL_NEWS | CM_MODEL_ACADEMIC),
        .thinking = w->features & CM_MODEL_THINKING,
        .news = w->features & CM_MODEL_NEWS,
        .academic = w->features & CM_MODEL_ACADEMIC,
        .silent = w->features & CM_MODEL_SILENT,
        .fold = w->features & CM_MODEL_FOLD,
    };
}

static bool entry_serves(const struct entry *e, size_t only, const struct wish *w)
{
    return (only == ANY_OFFER || only == e->offer) &&
           (e->row->features & w->features) == w->features;
}

/* Every provider (or only one) that lists the name and has the features. */
static size_t find_listed(const struct cm_models *m, struct cm_arena *arena, size_t only,
                          const struct wish *w, struct cm_target **out)
{
    const struct entry *first = cm_map_get(&m->first_of, w->base), *end = m->entries + m->n_entries;
    struct cm_target *targets;
    size_t n = 0;

    for (const struct entry *e = first; e && e < end && cm_str_eq(e->name, w->base); e++)
        n += entry_serves(e, only, w);
    if (n == 0)
        return 0;
    targets = CM_ARENA_ARRAY(arena, struct cm_target, n);
    *out = targets;
    for (const struct entry *e = first; targets < *out + n; e++) {
        if (entry_serves(e, only, w))
            *targets++ = make_target(m, e->offer, e->row, w);
    }
    return n;
}

/* Providers that take names unseen. */
static size_t find_any(const struct cm_models *m, struct cm_arena *arena, size_t only,
                       struct cm_str name, struct cm_target **out)
{
    struct cm_target *targets = NULL;
    size_t n = 0;

    for (size_t i = 0; i < m->n_offers && name.n > 0; i++) {
        const size_t offer = m->by_priority[i];
        struct wish w = {.base = name};

        if (!m->offers[offer].any || (only != ANY_OFFER && only != offer))
            continue;
        if (!targets)
            targets = CM_ARENA_ARRAY(arena, struct cm_target, m->n_offers);
        while (wish_strip(&w, m->offers[offer].any_features))
            continue;
        targets[n++] = make_target(m, offer, NULL, &w);
    }
    if (n > 0)
        *out = targets;
    return n;
}

/* A name without a provider in front, at all providers or at one. The name as it is wins over
 * any modifiers read out of it. */
static size_t find_bare(const struct cm_models *m, struct cm_arena *arena, size_t only,
                        struct cm_str name, struct cm_target **out)
{
    struct wish w = {.base = name};
    size_t n;

    do {
        n = find_listed(m, arena, only, &w, out);
        if (n > 0)
            return n;
    } while (wish_strip(&w, MODIFIERS));
    return find_any(m, arena, only, name, out);
}

/* Index of the provider in front of the first slash, with what follows in *rest; ANY_OFFER when
 * none is named. */
static size_t pinned_offer(const struct cm_models *m, struct cm_str name, struct cm_str *rest)
{
    struct cm_str provider;
    const struct cm_offer *offer;

    *rest = name;
    if (cm_str_find_char(name, '/') == SIZE_MAX)
        return ANY_OFFER;
    provider = cm_str_cut(rest, '/');
    offer = cm_map_get(&m->offer_of, provider);
    if (offer)
        return (size_t)(offer - m->offers);
    *rest = name;
    return ANY_OFFER;
}

#define SUGGEST_MAX 100 /* longest name with a suggestion: the search takes quadratic time */
#define SHOWN_MAX 80

static int not_found(const struct cm_models *m, struct cm_arena *arena, size_t only,
                     struct cm_str name, struct cm_str rest, struct cm_err *err)
{
    const struct cm_str shown = cm_utf8_head(name, SHOWN_MAX);
    const char **known = CM_ARENA_ARRAY(arena, const char *, m->n_entries + m->n_routes);
    const char *nearest = NULL;
    struct cm_str provider = CM_STR_NONE;
    size_t n = 0;

    if (rest.n > 0 && rest.n <= SUGGEST_MAX) {
        for (size_t i = 0; i < m->n_entries; i++) {
            if (only == ANY_OFFER || only == m->entries[i].offer)
                known[n++] = m->entries[i].z;
        }
        for (size_t i = 0; i < m->n_routes && only == ANY_OFFER; i++)
            known[n++] = cm_arena_z(arena, m->routes[i].conf->name);
        nearest = cm_conf_nearest(rest, known, n);
    }
    if (only != ANY_OFFER)
        provider = m->offers[only].provider;
    if (nearest)
        cm_fail_param(err, CM_ERR_NOT_FOUND, "model",
                      "The model '" CM_PRI "' does not exist, did you mean '" CM_PRI "%s%s'?",
                      CM_ARG(shown), CM_ARG(provider), provider.n > 0 ? "/" : "", nearest);
    else
        cm_fail_param(err, CM_ERR_NOT_FOUND, "model",
                      "The model '" CM_PRI "' does not exist. GET /v1/models lists what does.",
                      CM_ARG(shown));
    if (err)
        cm_str_copy(err->code, sizeof(err->code), CM_S("model_not_found"));
    return 0;
}

size_t cm_models_find(const struct cm_models *m, struct cm_arena *arena, struct cm_str name,
                      struct cm_target **out, struct cm_err *err)
{
    const struct route *route = cm_map_get(&m->route_of, name);
    const struct wish exact = {.base = name};
    struct cm_str rest;
    size_t only, n;

    if (route) {
        *out = CM_ARENA_ARRAY(arena, struct cm_target, route->n);
        memcpy(*out, route->targets, route->n * sizeof(**out));
        return route->n;
    }
    n = find_listed(m, arena, ANY_OFFER, &exact, out);
    if (n > 0)
        return n;
    only = pinned_offer(m, name, &rest);
    n = find_bare(m, arena, only, rest, out);
    if (n == 0)
        not_found(m, arena, only, name, rest, err);
    return n;
}

size_t cm_models_larger(const struct cm_models *m, struct cm_arena *arena,
                        const struct cm_model_conf *conf, struct cm_target **out)
{
    const struct route *route = conf ? cm_map_get(&m->route_of, conf->name) : NULL;

    if (!route || route->n_larger == 0)
        return 0;
    *out = CM_ARENA_ARRAY(arena, struct cm_target, route->n_larger);
    memcpy(*out, route->larger, route->n_larger * sizeof(**out));
    return route->n_larger;
}

size_t cm_models_list(const struct cm_models *m, struct cm_arena *arena,
                      struct cm_model_listed **out)
{
    *out = CM_ARENA_ARRAY(arena, struct cm_model_listed, m->n_list);
    if (m->n_list > 0)
        memcpy(*out, m->list, m->n_list * sizeof(**out));
    return m->n_list;
}

/* ---- Building ---- */

static int by_number(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int entry_order(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int order = cm_str_cmp(x->name, y->name);

    if (order == 0)
        order = by_number(x->priority, y->priority);
    if (order == 0)
        order = by_number((int64_t)x->offer, (int64_t)y->offer);
    return order != 0 ? order : (x->row > y->row) - (x->row < y->row);
}

static int offer_order(const void *a, const void *b, void *arg)
{
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    const struct cm_offer *offers = arg;
    const int order = by_number(offers[x].priority, offers[y].priority);

    return order != 0 ? order : by_number((int64_t)x, (int64_t)y);
}

static void add_offers(struct cm_models *m)
{
    size_t rows = 0;

    m->by_priority = CM_ARENA_ARRAY(&m->arena, size_t, m->n_offers);
    for (size_t i = 0; i < m->n_offers; i++) {
        m->by_priority[i] = i;
        rows += m->offers[i].n_rows;
        cm_map_put(&m->offer_of, m->offers[i].provider, (void *)(uintptr_t)&m->offers[i]);
    }
    if (m->n_offers > 0)
        qsort_r(m->by_priority, m->n_offers, sizeof(size_t), offer_order,
                (void *)(uintptr_t)m->offers);

    m->entries = CM_ARENA_ARRAY(&m->arena, struct entry, rows);
    for (size_t i = 0; i < m->n_offers; i++) {
        const struct cm_offer *offer = &m->offers[i];

        for (size_t k = 0; k < offer->n_rows; k++)
            m->entries[m->n_entries++] = (struct entry){
                .name = offer->rows[k].name,
                .z = cm_arena_z(&m->arena, offer->rows[k].name),
                .row = &offer->rows[k],
                .offer = i,
                .priority = offer->priority,
            };
    }
}

/* Sorts the entries, drops the second of two rows of one name at one provider, and makes the
 * map. */
static void index_entries(struct cm_models *m)
{
    size_t n = 0;

    if (m->n_entries > 0)
        qsort(m->entries, m->n_entries, sizeof(*m->entries), entry_order);
    for (size_t i = 0; i < m->n_entries; i++) {
        const bool same_name = n > 0 && cm_str_eq(m->entries[n - 1].name, m->entries[i].name);

        if (same_name && m->entries[n - 1].offer == m->entries[i].offer)
            continue;
        m->entries[n] = m->entries[i];
        if (!same_name)
            cm_map_put(&m->first_of, m->entries[n].name, &m->entries[n]);
        n++;
    }
    m->n_entries = n;
}

static void unknown_provider(const struct cm_models *m, const struct cm_model_conf *conf,
                             const char *key, struct cm_str provider, struct cm_problems *problems)
{
    const char **names = CM_ARENA_ARRAY(problems->arena, const char *, m->n_offers);
    const char *nearest;

    for (size_t i = 0; i < m->n_offers; i++)
        names[i] = cm_arena_z(problems->arena, m->offers[i].provider);
    nearest = cm_conf_nearest(provider, names, m->n_offers);
    cm_problem_add(problems, conf->where,
                   "model." CM_PRI ".%s: there is no provider '" CM_PRI "'%s%s%s",
                   CM_ARG(conf->name), key, CM_ARG(provider), nearest ? ", did you mean '" : "",
                   nearest ? nearest : "", nearest ? "'?" : "");
}

static bool read_target(struct cm_models *m, const struct cm_model_conf *conf, const char *key,
                        struct cm_str text, struct cm_target *out, struct cm_problems *problems)
{
    const struct cm_offer *offer;
    struct cm_target_spec spec;
    struct cm_target *found;
    struct cm_err err;

    if (cm_conf_target(text, &spec, &err)) {
        cm_problem_add(problems, conf->where, "model." CM_PRI ".%s: '" CM_PRI "': %s",
                       CM_ARG(conf->name), key, CM_ARG(text), err.msg);
        return false;
    }
    offer = cm_map_get(&m->offer_of, spec.provider);
    if (!offer) {
        unknown_provider(m, conf, key, spec.provider, problems);
        return false;
    }
    if (find_bare(m, &m->arena, (size_t)(offer - m->offers), spec.model, &found) > 0) {
        *out = found[0];
    } else {
        /* The operator may know a model that the list does not have (yet): the upstream decides. */
        const struct wish as_written = {.base = spec.model};

        *out = make_target(m, (size_t)(offer - m->offers), NULL, &as_written);
    }
    out->weight = spec.weight;
    out->overrides = spec.overrides;
    out->route = conf;
    return true;
}

static void add_routes(struct cm_models *m, const struct cm_model_conf *confs, size_t n,
                       struct cm_problems *problems)
{
    m->routes = CM_ARENA_ARRAY(&m->arena, struct route, n);
    for (size_t i = 0; i < n; i++) {
        const struct cm_model_conf *conf = &confs[i];
        struct route *route = &m->routes[m->n_routes++];

        route->conf = conf;
        route->targets = CM_ARENA_ARRAY(&m->arena, struct cm_target, conf->targets.n);
        if (conf->targets.n == 0)
            cm_problem_add(problems, conf->where,
                           "model." CM_PRI ".targets: name at least one PROVIDER/MODEL",
                           CM_ARG(conf->name));
        for (size_t k = 0; k < conf->targets.n; k++) {
            struct cm_target *target = &route->targets[route->n];

            if (!read_target(m, conf, "targets", conf->targets.v[k], target, problems))
                continue;
            target->priority = conf->strategy == CM_ROUTE_PRIORITY ? (int64_t)route->n : 0;
            route->n++;
        }
        route->larger = CM_ARENA_ARRAY(&m->arena, struct cm_target, conf->larger.n);
        for (size_t k = 0; k < conf->larger.n; k++)
            if (read_target(m, conf, "larger_targets", conf->larger.v[k],
                            &route->larger[route->n_larger], problems))
                route->larger[route->n_larger++].priority = (int64_t)k;
        cm_map_put(&m->route_of, conf->name, route);
    }
}

static int listed_order(const void *a, const void *b)
{
    const struct cm_model_listed *x = a, *y = b;

    return cm_str_cmp(x->id, y->id);
}

static void make_list(struct cm_models *m)
{
    m->list = CM_ARENA_ARRAY(&m->arena, struct cm_model_listed, m->n_entries + m->n_routes);
    for (size_t i = 0; i < m->n_routes; i++)
        m->list[m->n_list++] =
            (struct cm_model_listed){.id = m->routes[i].conf->name, .owner = CM_S("chatmux")};
    for (size_t i = 0; i < m->n_entries; i++) {
        const struct entry *e = &m->entries[i];

        if (cm_map_get(&m->first_of, e->name) == e && !cm_map_get(&m->route_of, e->name))
            m->list[m->n_list++] = (struct cm_model_listed){
                .id = e->name, .owner = m->offers[e->offer].owner, .row = e->row};
    }
    if (m->n_list > 0)
        qsort(m->list, m->n_list, sizeof(*m->list), listed_order);
}

struct cm_models *cm_models_new(const struct cm_offer *offers, size_t n_offers,
                                const struct cm_model_conf *routes, size_t n_routes,
                                struct cm_problems *problems)
{
    struct cm_models *m = CM_NEW(struct cm_models);
    const unsigned before = problems->n;

    m->offers = offers;
    m->n_offers = n_offers;
    add_offers(m);
    index_entries(m);
    add_routes(m, routes, n_routes, problems);
    if (problems->n > before) {
        cm_models_free(m);
        return NULL;
    }
    make_list(m);
    return m;
}

void cm_models_free(struct cm_models *m)
{
    if (!m)
        return;
    cm_map_clear(&m->first_of);
    cm_map_clear(&m->offer_of);
    cm_map_clear(&m->route_of);
    cm_arena_clear(&m->arena);
    free(m);
}
