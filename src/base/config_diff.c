/* What differs between two configurations: what a reload tells. */
#include "config_int.h"

struct diff {
    struct cm_arena *arena;
    struct cm_strs names;
    size_t cap, restart;
};

static void add_name(struct diff *d, struct cm_str name)
{
    if (d->names.n == d->cap) {
        struct cm_str *bigger;

        d->cap = d->cap ? 2 * d->cap : 16;
        bigger = CM_ARENA_ARRAY(d->arena, struct cm_str, d->cap);
        if (d->names.n > 0)
            memcpy(bigger, d->names.v, d->names.n * sizeof *bigger);
        d->names.v = bigger;
    }
    d->names.v[d->names.n++] = name;
}

static void compare_row(struct diff *d, const struct cm_conf_key *row,
                        const struct cm_conf_scope *a, const struct cm_conf_scope *b)
{
    if (cm_conf_equal(row, cm_conf_slot(a, row), cm_conf_slot(b, row)))
        return;
    d->restart += !row->reloadable;
    add_name(d, cm_arena_printf(d->arena, CM_PRI "%s%s", CM_ARG(cm_conf_prefix(d->arena, a, row)),
                                row->key, row->reloadable ? "" : " (after a restart)"));
}

static const struct cm_conf_pair *find_pair(const struct cm_conf_pair *pairs, size_t n,
                                            struct cm_str key)
{
    for (size_t i = 0; i < n; i++) {
        if (cm_str_eq(pairs[i].key, key))
            return &pairs[i];
    }
    return NULL;
}

static bool same_pair(const struct cm_conf_pair *a, const struct cm_conf_pair *b)
{
    static const struct cm_conf_key list = {.type = CM_CONF_LIST};

    return cm_str_eq(a->value, b->value) && cm_conf_equal(&list, &a->items, &b->items);
}

/* What `a` has and `b` has not, or otherwise; `also_changed` false: only what b lacks. */
static void compare_pairs(struct diff *d, struct cm_str provider, const char *prefix,
                          const struct cm_conf_pair *a, size_t n_a, const struct cm_conf_pair *b,
                          size_t n_b, bool also_changed)
{
    for (size_t i = 0; i < n_a; i++) {
        const struct cm_conf_pair *other = find_pair(b, n_b, a[i].key);

        if (other && (!also_changed || same_pair(&a[i], other)))
            continue;
        add_name(d, cm_arena_printf(d->arena, "provider." CM_PRI ".%s" CM_PRI, CM_ARG(provider),
                                    prefix, CM_ARG(a[i].key)));
    }
}

static void compare_providers(struct diff *d, const struct cm_config *a, size_t i,
                              const struct cm_config *b, size_t j)
{
    const struct cm_provider_conf *p = &a->providers[i], *q = &b->providers[j];
    struct cm_conf_scope sa = cm_conf_scope_of(a, CM_SCOPE_PROVIDER, i);
    struct cm_conf_scope sb = cm_conf_scope_of(b, CM_SCOPE_PROVIDER, j);

    for (size_t k = 0; k < cm_conf_keys_n; k++) {
        bool own = sa.origins[k].n > 0 || sb.origins[k].n > 0; /* else told as [upstream]'s */

        if (cm_conf_row_is(&cm_conf_keys[k], "provider") ||
            (cm_conf_row_is(&cm_conf_keys[k], "upstream") && own))
            compare_row(d, &cm_conf_keys[k], &sa, &sb);
    }
    compare_pairs(d, p->name, "header.", p->headers, p->n_headers, q->headers, q->n_headers, true);
    compare_pairs(d, p->name, "header.", q->headers, q->n_headers, p->headers, p->n_headers, false);
    compare_pairs(d, p->name, "x.", p->options, p->n_options, q->options, q->n_options, true);
    compare_pairs(d, p->name, "x.", q->options, q->n_options, p->options, p->n_options, false);
}

/* Two models or two prices. */
static void compare_named(struct diff *d, const struct cm_conf_scope *a,
                          const struct cm_conf_scope *b)
{
    for (size_t k = 0; k < cm_conf_keys_n; k++) {
        if (cm_conf_row_scope(&cm_conf_keys[k]) == a->kind)
            compare_row(d, &cm_conf_keys[k], a, b);
    }
}

/* The place of the section of this name, or how many there are. */
static size_t find_named(const struct cm_config *c, enum cm_conf_scope_kind kind,
                         struct cm_str name)
{
    size_t i = 0, n = cm_conf_scope_count(c, kind);

    while (i < n && !cm_str_eq(cm_conf_scope_of(c, kind, i).name, name))
        i++;
    return i;
}

/* Providers, models and prices of `a` that `b` has not. */
static void add_missing(struct diff *d, const struct cm_config *a, const struct cm_config *b)
{
    for (enum cm_conf_scope_kind kind = CM_SCOPE_PROVIDER; kind <= CM_SCOPE_PRICE; kind++) {
        for (size_t i = 0; i < cm_conf_scope_count(a, kind); i++) {
            struct cm_str name = cm_conf_scope_of(a, kind, i).name;

            if (find_named(b, kind, name) == cm_conf_scope_count(b, kind))
                add_name(d, cm_arena_printf(d->arena, "%s." CM_PRI, cm_conf_scope_name(kind),
                                            CM_ARG(name)));
        }
    }
}

/* What both have. */
static void compare_kind(struct diff *d, const struct cm_config *a, const struct cm_config *b,
                         enum cm_conf_scope_kind kind)
{
    for (size_t i = 0; i < cm_conf_scope_count(a, kind); i++) {
        struct cm_conf_scope sa = cm_conf_scope_of(a, kind, i), sb;
        size_t j = find_named(b, kind, sa.name);

        if (j == cm_conf_scope_count(b, kind))
            continue;
        sb = cm_conf_scope_of(b, kind, j);
        if (kind == CM_SCOPE_PROVIDER)
            compare_providers(d, a, i, b, j);
        else
            compare_named(d, &sa, &sb);
    }
}

struct cm_strs cm_config_diff(struct cm_arena *arena, const struct cm_config *a,
                              const struct cm_config *b, size_t *restart)
{
    struct diff d = {.arena = arena};
    struct cm_conf_scope sa = cm_conf_scope_of(a, CM_SCOPE_FIXED, 0);
    struct cm_conf_scope sb = cm_conf_scope_of(b, CM_SCOPE_FIXED, 0);

    for (size_t k = 0; k < cm_conf_keys_n; k++) {
        if (cm_conf_row_scope(&cm_conf_keys[k]) == CM_SCOPE_FIXED)
            compare_row(&d, &cm_conf_keys[k], &sa, &sb);
    }
    add_missing(&d, a, b);
    add_missing(&d, b, a);
    for (enum cm_conf_scope_kind kind = CM_SCOPE_PROVIDER; kind <= CM_SCOPE_PRICE; kind++)
        compare_kind(&d, a, b, kind);
    *restart = d.restart;
    return d.names;
}
