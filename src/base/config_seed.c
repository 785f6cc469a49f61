/* Settings from the variables of another gateway: which system it is, its defaults below the file, its variables above it.
 *
 * CHATMUX_COMPAT names the system. Without it, and without a file, a variable that only one of them has chooses. */
#include "config_int.h"

#include <stdio.h>
#include <sys/stat.h>

#include "chatmux/base/mem.h"
#include "seeds.h"

/* Inside our image, when no system is chosen: platforms hand the port over in PORT. */
#define CONTAINER_VARIABLE "CHATMUX_CONTAINER"
#define CONTAINER_PORT "8080"
#define DAYS_MAX 36500

static const struct cm_seed *seed_find(const char *name)
{
    for (size_t i = 0; i < cm_seeds_n; i++) {
        if (strcmp(cm_seeds[i].name, name) == 0)
            return &cm_seeds[i];
    }
    return NULL;
}

/* NULL: not set, or empty, which means the same everywhere here. */
static const char *variable(const struct cm_conf_load *l, const char *name)
{
    const char *value = cm_conf_getenv(l->environ_list, name);

    return value && *value ? value : NULL;
}

static struct cm_str where_of(struct cm_conf_load *l, const char *name)
{
    return cm_arena_printf(&l->scratch, "environment %s", name);
}

static void remark(struct cm_conf_load *l, struct cm_str text)
{
    struct cm_strs *r = &l->c->remarks;
    bool told = r->n > 0 && cm_str_eq(r->v[r->n - 1], text); /* of another row of the variable */
    struct cm_str *v = CM_ARENA_ARRAY(&l->c->arena, struct cm_str, r->n + 1);

    if (told)
        return;
    if (r->n > 0)
        memcpy(v, r->v, r->n * sizeof(*v));
    v[r->n++] = cm_arena_str(&l->c->arena, text);
    r->v = v;
}

/* ---- which system ---- */

/* The first variable that tells a system; of two that tell different ones, both are named. */
static const struct cm_seed *seed_by_variables(struct cm_conf_load *l, const char **by)
{
    static const struct {
        const char *name, *seed;
        bool only_if_alone; /* other systems have a variable of this name, too */
    } signs[] = {{"GS_COOKIE", "genspark2api", false},
                 {"AS_COOKIE", "alexsidebar2api", false},
                 {"MYSQL_DSN", "hixai2api", true},
                 {"BACKEND_SECRET", "hixai2api", true}};
    const char *seed = NULL;

    for (size_t i = 0; i < CM_COUNT(signs); i++) {
        if (!variable(l, signs[i].name) || (seed && signs[i].only_if_alone))
            continue;
        if (seed) {
            cm_problem_add(l->problems, where_of(l, *by),
                           "means %s, and %s means %s: take one of the two away, or say by "
                           "CHATMUX_COMPAT which it is",
                           seed, signs[i].name, signs[i].seed);
            return NULL;
        }
        seed = signs[i].seed;
        *by = signs[i].name;
    }
    return seed ? seed_find(seed) : NULL;
}

static void complain_unknown_seed(struct cm_conf_load *l, const char *name)
{
    struct cm_str known = CM_STR_NONE;

    for (size_t i = 0; i < cm_seeds_n; i++)
        known = cm_arena_printf(&l->scratch, CM_PRI "%s%s", CM_ARG(known), i > 0 ? ", " : "",
                                cm_seeds[i].name);
    cm_problem_add(l->problems, where_of(l, "CHATMUX_COMPAT"),
                   "must be one of " CM_PRI ", not \"" CM_PRI "\"", CM_ARG(known),
                   CM_ARG(cm_conf_shown(&l->scratch, cm_str_of(name))));
}

void cm_conf_choose_seed(struct cm_conf_load *l, bool has_file)
{
    const char *asked = variable(l, "CHATMUX_COMPAT"), *by = "CHATMUX_COMPAT";
    const struct cm_seed *seed = NULL;

    if (asked) {
        seed = seed_find(asked);
        if (!seed)
            complain_unknown_seed(l, asked);
    } else if (!has_file) {
        seed = seed_by_variables(l, &by);
    }
    if (seed && !seed->provider) {
        cm_problem_add(l->problems, where_of(l, by),
                       "the environment of %s is not understood yet: write a chatmux.ini",
                       seed->name);
        seed = NULL;
    }
    l->seed = seed;
    l->seed_by = by;
}

/* ---- values ---- */

/* "0=|1=hide|*=think": what the value becomes; false: nothing. */
static bool translate(const char *words, struct cm_str value, struct cm_str *out)
{
    struct cm_str rest = cm_str_of(words);

    while (rest.n > 0) {
        struct cm_str ours = cm_str_cut(&rest, '|'), theirs = cm_str_cut(&ours, '=');

        if (cm_str_eq(theirs, value) || cm_str_eq(theirs, CM_S("*"))) {
            *out = ours;
            return true;
        }
    }
    return false;
}

static struct cm_strs split(struct cm_arena *a, struct cm_str value)
{
    struct cm_strs list = {CM_ARENA_ARRAY(a, struct cm_str, value.n / 2 + 1), 0};

    while (value.n > 0) {
        struct cm_str item = cm_str_trim(cm_str_cut(&value, ','));

        if (item.n > 0)
            list.v[list.n++] = cm_arena_str(a, item);
    }
    return list;
}

/* False: the variable changes nothing; what there is to say was said. */
static bool read_value(struct cm_conf_load *l, const struct cm_seed_var *var,
                       struct cm_conf_setting *s)
{
    struct cm_arena *a = &l->scratch;
    uint64_t number;

    switch (var->form) {
    case CM_SEED_NUMBER:
    case CM_SEED_SECONDS:
        if (!cm_str_to_u64(s->value, INT32_MAX, &number)) {
            remark(l, cm_arena_printf(a, "%s is no number: the default of %s counts", var->name,
                                      l->seed->name));
            return false;
        }
        if (var->form == CM_SEED_SECONDS)
            s->value = cm_arena_printf(a, CM_PRI "s", CM_ARG(s->value));
        break;
    case CM_SEED_DAYS:
        if (!cm_str_to_u64(s->value, DAYS_MAX, &number) || number == 0)
            return false;
        s->value = cm_arena_printf(a, CM_PRI "d", CM_ARG(s->value));
        break;
    case CM_SEED_PORT:
        s->value = cm_arena_printf(a, "0.0.0.0:" CM_PRI, CM_ARG(s->value));
        break;
    case CM_SEED_PROXY:
        if (cm_str_starts(s->value, CM_S("socks5://")))
            s->value = cm_arena_printf(a, "socks5h" CM_PRI, CM_ARG(cm_str_from(s->value, 6)));
        break;
    case CM_SEED_WORDS:
        if (!translate(var->words, s->value, &s->value))
            return false;
        break;
    case CM_SEED_IGNORED:
        remark(l, cm_arena_printf(a, "%s has no effect: %s", var->name, var->words));
        return false;
    case CM_SEED_LIST:
        s->items = split(a, s->value);
        return true;
    case CM_SEED_TEXT:
        break;
    }
    s->items = cm_ini_list(a, s->value);
    return true;
}

/* ---- settings ---- */

static void add(struct cm_conf_load *l, struct cm_conf_setting s, const char *section,
                const char *key)
{
    if (strcmp(section, "provider") == 0) {
        s.kind = CM_SCOPE_PROVIDER;
        s.index = l->seed_provider;
    }
    cm_conf_add_setting(l, s, cm_str_of(section), cm_str_of(key));
}

static void add_text(struct cm_conf_load *l, const char *section, const char *key,
                     const char *value, struct cm_str where)
{
    struct cm_conf_setting s = {.value = cm_str_of(value), .where = where};

    s.items = cm_ini_list(&l->scratch, s.value);
    add(l, s, section, key);
}

/* Settings from `from` on go before all others: a file counts more. */
static void move_to_front(struct cm_conf_load *l, size_t from)
{
    size_t n = l->n - from;
    struct cm_conf_setting *moved = CM_ARENA_ARRAY(&l->scratch, struct cm_conf_setting, n);

    if (n == 0)
        return;
    memcpy(moved, l->settings + from, n * sizeof(*moved));
    memmove(l->settings + n, l->settings, from * sizeof(*moved));
    memcpy(l->settings, moved, n * sizeof(*moved));
}

/* Its provider: the file's of that name, or one more. */
static void find_provider(struct cm_conf_load *l)
{
    struct cm_config *c = l->c;
    struct cm_str name = cm_str_of(l->seed->provider);
    size_t i = 0;

    while (i < c->n_providers && !cm_str_eq(c->providers[i].name, name))
        i++;
    l->seed_provider = i;
    if (i == c->n_providers) /* cm_conf_add_file() has left room for it */
        c->providers[c->n_providers++] = (struct cm_provider_conf){
            .name = name, .where = cm_arena_str(&c->arena, where_of(l, l->seed_by))};
}

/* A compose file of either version publishes its port; in a container nobody else can have it. */
static void also_listen(struct cm_conf_load *l)
{
    struct cm_conf_setting *s = &l->settings[l->n - 1];

    while (!s->row || s->row != cm_conf_row(CM_S("server"), CM_S("listen")))
        s--;
    s->value = cm_arena_printf(&l->scratch, CM_PRI ", %s", CM_ARG(s->value), l->seed->also_listen);
    s->items = cm_ini_list(&l->scratch, s->value);
}

static void add_defaults(struct cm_conf_load *l)
{
    struct cm_str where =
        cm_arena_printf(&l->scratch, "the defaults of %s (%s is set)", l->seed->name, l->seed_by);
    size_t from = l->n;

    add_text(l, "server", "compat", l->seed->name, where);
    add_text(l, "provider", "type", l->seed->provider, where);
    for (const struct cm_seed_default *d = l->seed->defaults; d->key; d++)
        add_text(l, d->section, d->key, d->value, where);
    if (l->seed->also_listen && variable(l, CONTAINER_VARIABLE))
        also_listen(l);
    move_to_front(l, from);
}

static void add_variables(struct cm_conf_load *l)
{
    for (const struct cm_seed_var *var = l->seed->vars; var->name; var++) {
        const char *value = variable(l, var->name);
        struct cm_conf_setting s = {.value = cm_str_trim(cm_str_of(value))};

        if (s.value.n == 0)
            continue;
        s.where = where_of(l, var->name);
        if (read_value(l, var, &s))
            add(l, s, var->section, var->key);
    }
}

/* Variables that only another system reads: whoever set them expects something. */
static void tell_foreign(struct cm_conf_load *l)
{
    static const struct {
        const char *name, *seed;
    } owned[] = {{"GS_COOKIE", "genspark2api"},
                 {"AS_COOKIE", "alexsidebar2api"},
                 {"MYSQL_DSN", "hixai2api"}};

    for (size_t i = 0; i < CM_COUNT(owned); i++) {
        if (variable(l, owned[i].name) && strcmp(owned[i].seed, l->seed->name) != 0)
            remark(l, cm_arena_printf(&l->scratch,
                                      "%s has no effect: it belongs to %s, and %s has chosen %s",
                                      owned[i].name, owned[i].seed, l->seed_by, l->seed->name));
    }
}

/* What it kept, where its image or (without one) its program had it: taken over at the first start. */
static void find_old_data(struct cm_conf_load *l)
{
    const struct cm_seed *seed = l->seed;
    struct cm_str paths[2];
    struct stat st;

    if (!seed->old_data)
        return;
    paths[0] = cm_arena_printf(&l->c->arena, "%s/%s", seed->data_dir, seed->old_data);
    paths[1] = cm_arena_printf(&l->c->arena, "./%s", seed->old_data);
    for (size_t i = 0; i < CM_COUNT(paths) && l->c->old_data.n == 0; i++)
        if (stat(paths[i].p, &st) == 0 && S_ISREG(st.st_mode))
            l->c->old_data = paths[i];
}

void cm_conf_add_seed(struct cm_conf_load *l)
{
    const char *port;

    if (l->seed) {
        l->c->seed = cm_str_of(l->seed->name);
        find_provider(l);
        add_defaults(l);
        add_variables(l);
        tell_foreign(l);
        find_old_data(l);
    } else if (variable(l, CONTAINER_VARIABLE)) {
        port = variable(l, "PORT");
        add_text(l, "server", "listen",
                 cm_arena_printf(&l->scratch, "0.0.0.0:%s", port ? port : CONTAINER_PORT).p,
                 where_of(l, port ? "PORT" : CONTAINER_VARIABLE));
    }
}

bool cm_conf_seed_dir(struct cm_conf_load *l, struct cm_str *dir)
{
    struct stat st;

    if (!l->seed || !l->seed->data_dir || stat(l->seed->data_dir, &st) != 0 || !S_ISDIR(st.st_mode))
        return false;
    *dir = cm_arena_printf(&l->c->arena, "%s/chatmux", l->seed->data_dir);
    return true;
}

void cm_conf_check_seed(struct cm_conf_load *l)
{
    const struct cm_provider_conf *p = l->seed ? &l->c->providers[l->seed_provider] : NULL;

    if (p && l->seed->needs && p->credentials.n == 0)
        cm_problem_add(l->problems, where_of(l, l->seed_by), "%s needs %s: it has the accounts",
                       l->seed->name, l->seed->needs);
}
