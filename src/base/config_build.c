/* From the entries of a file to values: finds each key's row, makes providers and models, applies
 * every source in its turn. */
#include "config_int.h"

#include <stdlib.h>

#include "chatmux/base/mem.h"

#define PROVIDERS_MAX 1000u
#define MODELS_MAX 10000u
#define PRICES_MAX 10000u

const char *cm_conf_scope_name(enum cm_conf_scope_kind kind)
{
    static const char *const names[] = {NULL, "provider", "model", "price"};

    return names[kind];
}

size_t cm_conf_scope_count(const struct cm_config *c, enum cm_conf_scope_kind kind)
{
    switch (kind) {
    case CM_SCOPE_FIXED:
        break;
    case CM_SCOPE_PROVIDER:
        return c->n_providers;
    case CM_SCOPE_MODEL:
        return c->n_models;
    case CM_SCOPE_PRICE:
        return c->n_prices;
    }
    return 1;
}

struct cm_conf_scope cm_conf_scope_of(const struct cm_config *c, enum cm_conf_scope_kind kind,
                                      size_t index)
{
    struct cm_conf_scope s = {.kind = kind};

    switch (kind) {
    case CM_SCOPE_FIXED:
        s.base = (void *)(uintptr_t)c; /* readers of a finished snapshot only read */
        s.origins = c->origins->fixed;
        break;
    case CM_SCOPE_PROVIDER:
        s.base = &c->providers[index];
        s.name = c->providers[index].name;
        s.origins = c->origins->providers[index];
        break;
    case CM_SCOPE_MODEL:
        s.base = &c->models[index];
        s.name = c->models[index].name;
        s.origins = c->origins->models[index];
        break;
    case CM_SCOPE_PRICE:
        s.base = &c->prices[index];
        s.name = c->prices[index].name;
        s.origins = c->origins->prices[index];
        break;
    }
    return s;
}

struct cm_str cm_conf_prefix(struct cm_arena *a, const struct cm_conf_scope *scope,
                             const struct cm_conf_key *row)
{
    if (scope->kind == CM_SCOPE_FIXED)
        return cm_arena_printf(a, "%s.", row->section);
    return cm_arena_printf(a, "%s." CM_PRI ".", cm_conf_scope_name(scope->kind),
                           CM_ARG(scope->name));
}

bool cm_conf_is_open_key(struct cm_str key)
{
    return cm_str_starts(key, CM_S("header.")) || cm_str_starts(key, CM_S("x."));
}

/* Provider names are part of model names, header values and URLs; both stand in a [section] and
 * before "=". */
static bool is_name(struct cm_str name, bool provider)
{
    for (size_t i = 0; i < name.n; i++) {
        unsigned char c = (unsigned char)name.p[i];

        if (c <= ' ' || c == 0x7f || strchr("=,\"[]", c) || (provider && (c == '/' || c > 0x7f)))
            return false;
    }
    return name.n > 0 && name.n <= 200;
}

static bool is_token(struct cm_str s) /* RFC 9110 5.6.2 */
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c <= ' ' || c >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}", c))
            return false;
    }
    return s.n > 0;
}

bool cm_conf_is_option_name(struct cm_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '-' || c == '.'))
            return false;
    }
    return s.n > 0;
}

/* Something that was meant as a value may stand where a key belongs: what is long or odd is not
 * told. */
static bool may_be_told(struct cm_str key)
{
    return key.n <= 32 && cm_conf_is_option_name(key);
}

static const char *section_that_has(struct cm_str key)
{
    for (size_t i = 0; i < cm_conf_keys_n; i++) {
        if (cm_str_eq(cm_str_of(cm_conf_keys[i].key), key))
            return cm_conf_keys[i].section;
    }
    return NULL;
}

static void complain_unknown_key(struct cm_conf_load *l, struct cm_str where, struct cm_str section,
                                 struct cm_str key)
{
    struct cm_str nearest = cm_conf_nearest_key(section, key);
    const char *elsewhere = section_that_has(key);

    if (!may_be_told(key))
        key = CM_S("(not shown)");
    if (nearest.n > 0)
        cm_problem_add(l->problems, where, CM_PRI "." CM_PRI ": unknown key, is it " CM_PRI "?",
                       CM_ARG(section), CM_ARG(key), CM_ARG(nearest));
    else if (elsewhere)
        cm_problem_add(l->problems, where, CM_PRI "." CM_PRI ": unknown key, it belongs to [%s]",
                       CM_ARG(section), CM_ARG(key), elsewhere);
    else
        cm_problem_add(l->problems, where,
                       CM_PRI "." CM_PRI ": unknown key; config.example.ini has all of them",
                       CM_ARG(section), CM_ARG(key));
}

void cm_conf_add_setting(struct cm_conf_load *l, struct cm_conf_setting s, struct cm_str section,
                         struct cm_str key)
{
    s.row = cm_conf_row(section, key);
    s.key = key;
    if (!s.row && s.kind == CM_SCOPE_PROVIDER && cm_conf_is_open_key(key)) {
        (void)cm_str_cut(&s.key, '.');
        s.header = cm_str_starts(key, CM_S("header."));
    } else if (!s.row) {
        complain_unknown_key(l, s.where, section, key);
        return;
    }
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 64;
        l->settings = cm_realloc(l->settings, l->cap * sizeof *l->settings);
    }
    l->settings[l->n++] = s;
}

/* --- the file's sections
 * ------------------------------------------------------------------------- */

struct section {
    bool known;
    enum cm_conf_scope_kind kind;
    size_t index;
};

static struct cm_str place(struct cm_arena *a, const struct cm_config *c, int line)
{
    if (c->builtin_demo)
        return CM_S("built-in");
    return cm_arena_printf(a, CM_PRI ":%d", CM_ARG(c->file), line);
}

static void complain_unknown_section(struct cm_conf_load *l, struct cm_str where,
                                     struct cm_str kind)
{
    struct cm_str nearest = cm_conf_nearest_section(kind);

    cm_problem_add(l->problems, where, "unknown section%s" CM_PRI "%s%s" CM_PRI "%s",
                   may_be_told(kind) ? " [" : "", CM_ARG(may_be_told(kind) ? kind : CM_STR_NONE),
                   may_be_told(kind) ? "]" : "", nearest.n > 0 ? ", is it [" : "", CM_ARG(nearest),
                   nearest.n > 0 ? "]?" : "");
}

static enum cm_conf_scope_kind named_kind(struct cm_str kind)
{
    for (enum cm_conf_scope_kind k = CM_SCOPE_PROVIDER; k <= CM_SCOPE_PRICE; k++) {
        if (cm_str_eq(kind, cm_str_of(cm_conf_scope_name(k))))
            return k;
    }
    return CM_SCOPE_FIXED;
}

/* A section begins: makes the provider, model or price it is about. */
static struct section begin_section(struct cm_conf_load *l, const struct cm_ini_entry *e)
{
    static const size_t most[] = {1, PROVIDERS_MAX, MODELS_MAX, PRICES_MAX};
    struct cm_config *c = l->c;
    struct cm_str where = place(&c->arena, c, e->line), name = cm_arena_str(&c->arena, e->name);
    enum cm_conf_scope_kind kind = named_kind(e->kind);
    bool provider = kind == CM_SCOPE_PROVIDER;
    size_t index = cm_conf_scope_count(c, kind);

    if (kind == CM_SCOPE_FIXED) {
        if (!cm_conf_is_section(e->kind))
            complain_unknown_section(l, where, e->kind);
        else if (e->name.n > 0)
            cm_problem_add(l->problems, where, "[" CM_PRI "] takes no name", CM_ARG(e->kind));
        return (struct section){.known = cm_conf_is_section(e->kind), .kind = CM_SCOPE_FIXED};
    }
    if (!is_name(name, provider)) {
        cm_problem_add(l->problems, where,
                       "[" CM_PRI " NAME] needs a name without blanks%s and any of = , \" [ ]",
                       CM_ARG(e->kind), provider ? ", /" : "");
        return (struct section){0};
    }
    if (index == most[kind]) {
        cm_problem_add(l->problems, where, "more than %zu of these sections", most[kind]);
        return (struct section){0};
    }
    if (provider)
        c->providers[c->n_providers++] = (struct cm_provider_conf){.name = name, .where = where};
    else if (kind == CM_SCOPE_MODEL)
        c->models[c->n_models++] = (struct cm_model_conf){.name = name, .where = where};
    else
        c->prices[c->n_prices++] = (struct cm_price_conf){.name = name, .where = where};
    return (struct section){true, kind, index};
}

static size_t count_sections(const struct cm_ini_entry *entries, size_t n, struct cm_str kind,
                             size_t max)
{
    size_t found = 0;

    for (size_t i = 0; i < n && found < max; i++)
        found += entries[i].key.n == 0 && cm_str_eq(entries[i].kind, kind);
    return found;
}

void cm_conf_add_file(struct cm_conf_load *l, const struct cm_ini_entry *entries, size_t n)
{
    struct cm_config *c = l->c;
    struct section section = {0};

    /* one more for another gateway's, config_seed.c */
    c->providers = CM_ARENA_ARRAY(&c->arena, struct cm_provider_conf,
                                  count_sections(entries, n, CM_S("provider"), PROVIDERS_MAX) + 1);
    c->models = CM_ARENA_ARRAY(&c->arena, struct cm_model_conf,
                               count_sections(entries, n, CM_S("model"), MODELS_MAX));
    c->prices = CM_ARENA_ARRAY(&c->arena, struct cm_price_conf,
                               count_sections(entries, n, CM_S("price"), PRICES_MAX));
    for (size_t i = 0; i < n; i++) {
        const struct cm_ini_entry *e = &entries[i];

        if (e->key.n == 0) {
            section = begin_section(l, e);
            continue;
        }
        if (section.known)
            cm_conf_add_setting(l,
                                (struct cm_conf_setting){.kind = section.kind,
                                                         .index = section.index,
                                                         .value = e->value,
                                                         .items = e->items,
                                                         .where = place(&l->scratch, c, e->line),
                                                         .from_file = true},
                                e->kind, e->key);
    }
    if (!l->seed && c->n_providers == 0 && count_sections(entries, n, CM_S("provider"), 1) == 0)
        cm_problem_add(l->problems, c->file,
                       "no [provider NAME] section: add one, with type = demo below it to try out, "
                       "or type = openai and credentials");
}

/* --- from settings to values
 * --------------------------------------------------------------------- */

static void apply_defaults(struct cm_conf_load *l, const struct cm_conf_scope *scope)
{
    for (size_t i = 0; i < cm_conf_keys_n; i++) {
        const struct cm_conf_key *row = &cm_conf_keys[i];
        struct cm_str def = cm_str_of(row->def);

        int failed;

        if (cm_conf_row_scope(row) != scope->kind)
            continue;
        failed = cm_conf_read(&l->c->arena, row, def, cm_ini_list(&l->scratch, def),
                              cm_conf_slot(scope, row), NULL);
        CM_ASSERT(!failed);
    }
}

static bool has_control(struct cm_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (((unsigned char)s.p[i] < ' ' && s.p[i] != '\t' && s.p[i] != '\n') || s.p[i] == 0x7f)
            return true;
    }
    return false;
}

static const char *wrong_with_pair(const struct cm_conf_setting *s)
{
    if (s->header && !is_token(s->key))
        return "a header's name has only letters, digits and !#$%&'*+-.^_`|~";
    if (s->header && cm_str_find_char(s->value, '\n') != SIZE_MAX)
        return "takes one value on one line";
    if (has_control(s->value))
        return "holds a control character";
    if (!s->header && !cm_conf_is_option_name(s->key))
        return "an option's name has only letters, digits and - _ .";
    return NULL;
}

static void apply_pair(struct cm_conf_load *l, const struct cm_conf_setting *s)
{
    struct cm_arena *a = &l->c->arena;
    struct cm_provider_conf *p = &l->c->providers[s->index];
    struct cm_conf_pair *pairs = s->header ? p->headers : p->options;
    size_t *n = s->header ? &p->n_headers : &p->n_options, at = 0;
    const char *wrong = wrong_with_pair(s);

    while (at < *n && !(s->header ? cm_str_eq_nocase(pairs[at].key, s->key)
                                  : cm_str_eq(pairs[at].key, s->key)))
        at++;
    if (!wrong && at < *n && s->from_file)
        wrong = "stands in this section already, spelled in other letters";
    if (wrong) {
        cm_problem_add(l->problems, s->where, "provider." CM_PRI ".%s" CM_PRI ": %s",
                       CM_ARG(p->name), s->header ? "header." : "x.",
                       CM_ARG(may_be_told(s->key) ? s->key : CM_S("(not shown)")), wrong);
        return;
    }
    pairs[at] = (struct cm_conf_pair){.key = cm_arena_str(a, s->key),
                                      .value = cm_arena_str(a, s->value),
                                      .items = {CM_ARENA_ARRAY(a, struct cm_str, s->items.n), 0},
                                      .where = cm_arena_str(a, s->where)};
    for (size_t i = 0; i < s->items.n; i++)
        pairs[at].items.v[pairs[at].items.n++] = cm_arena_str(a, s->items.v[i]);
    if (at == *n)
        ++*n;
}

static void apply(struct cm_conf_load *l, const struct cm_conf_setting *s)
{
    struct cm_conf_scope scope = cm_conf_scope_of(l->c, s->kind, s->index);
    struct cm_err err = {0};

    if (!s->row)
        apply_pair(l, s);
    else if (cm_conf_read(&l->c->arena, s->row, s->value, s->items, cm_conf_slot(&scope, s->row),
                          &err) != 0)
        cm_problem_add(l->problems, s->where, CM_PRI "%s: %s",
                       CM_ARG(cm_conf_prefix(&l->scratch, &scope, s->row)), s->row->key, err.msg);
    else
        scope.origins[s->row - cm_conf_keys] = cm_arena_str(&l->c->arena, s->where);
}

static void apply_all(struct cm_conf_load *l, bool fixed)
{
    for (size_t i = 0; i < l->n; i++) {
        if ((l->settings[i].kind == CM_SCOPE_FIXED) == fixed)
            apply(l, &l->settings[i]);
    }
}

static void make_origins(struct cm_config *c)
{
    struct cm_conf_origins *o = CM_ARENA_NEW(&c->arena, struct cm_conf_origins);

    o->fixed = CM_ARENA_ARRAY(&c->arena, struct cm_str, cm_conf_keys_n);
    o->providers = CM_ARENA_ARRAY(&c->arena, struct cm_str *, c->n_providers);
    for (size_t i = 0; i < c->n_providers; i++)
        c->providers[i].origins = o->providers[i] =
            CM_ARENA_ARRAY(&c->arena, struct cm_str, cm_conf_keys_n);
    o->models = CM_ARENA_ARRAY(&c->arena, struct cm_str *, c->n_models);
    for (size_t i = 0; i < c->n_models; i++)
        o->models[i] = CM_ARENA_ARRAY(&c->arena, struct cm_str, cm_conf_keys_n);
    o->prices = CM_ARENA_ARRAY(&c->arena, struct cm_str *, c->n_prices);
    for (size_t i = 0; i < c->n_prices; i++)
        o->prices[i] = CM_ARENA_ARRAY(&c->arena, struct cm_str, cm_conf_keys_n);
    c->origins = o;
}

/* Room for every header and option a provider may get. */
static void make_pairs(struct cm_conf_load *l)
{
    size_t *counts = CM_ARENA_ARRAY(&l->scratch, size_t, 2 * l->c->n_providers);

    for (size_t i = 0; i < l->n; i++) {
        if (l->settings[i].kind == CM_SCOPE_PROVIDER && !l->settings[i].row)
            counts[2 * l->settings[i].index + l->settings[i].header]++;
    }
    for (size_t i = 0; i < l->c->n_providers; i++) {
        struct cm_provider_conf *p = &l->c->providers[i];

        p->options = CM_ARENA_ARRAY(&l->c->arena, struct cm_conf_pair, counts[2 * i]);
        p->headers = CM_ARENA_ARRAY(&l->c->arena, struct cm_conf_pair, counts[2 * i + 1]);
    }
}

static void resolve_state_dir(struct cm_conf_load *l)
{
    struct cm_conf_scope scope = cm_conf_scope_of(l->c, CM_SCOPE_FIXED, 0);
    const struct cm_conf_key *row = cm_conf_row(CM_S("store"), CM_S("state_dir"));
    struct cm_str dirs = cm_str_of(cm_conf_getenv(l->environ_list, "STATE_DIRECTORY"));
    struct cm_str dir = cm_str_cut(&dirs, ':'); /* systemd.exec(5): several are joined by colons */

    if (l->c->store.state_dir.n > 0)
        return;
    if (cm_conf_seed_dir(l, &l->c->store.state_dir)) {
        scope.origins[row - cm_conf_keys] =
            cm_arena_printf(&l->c->arena, "the folder of " CM_PRI, CM_ARG(l->c->seed));
        return;
    }
    l->c->store.state_dir = dir.n > 0 ? cm_arena_str(&l->c->arena, dir) : CM_S("./data");
    if (dir.n > 0)
        scope.origins[row - cm_conf_keys] = CM_S("environment STATE_DIRECTORY");
}

void cm_conf_build(struct cm_conf_load *l)
{
    struct cm_config *c = l->c;
    struct cm_conf_scope scope;

    make_origins(c);
    make_pairs(l);
    scope = cm_conf_scope_of(c, CM_SCOPE_FIXED, 0);
    apply_defaults(l, &scope);
    apply_all(l, true);
    for (size_t i = 0; i < c->n_providers; i++) {
        c->providers[i].upstream = c->upstream;
        scope = cm_conf_scope_of(c, CM_SCOPE_PROVIDER, i);
        apply_defaults(l, &scope);
    }
    for (size_t i = 0; i < c->n_models; i++) {
        scope = cm_conf_scope_of(c, CM_SCOPE_MODEL, i);
        apply_defaults(l, &scope);
    }
    for (size_t i = 0; i < c->n_prices; i++) {
        scope = cm_conf_scope_of(c, CM_SCOPE_PRICE, i);
        apply_defaults(l, &scope);
    }
    apply_all(l, false);
    resolve_state_dir(l);
    c->log.json = c->log.format == 1;
    c->auth.open_here = !c->auth.open && !c->auth.open_until_keys && c->auth.keys.n == 0;
}

struct cm_str cm_provider_where(const struct cm_provider_conf *p, const char *key)
{
    const struct cm_conf_key *row = cm_conf_row(CM_S("provider"), cm_str_of(key));

    CM_ASSERT(row);
    return p->origins && p->origins[row - cm_conf_keys].n > 0 ? p->origins[row - cm_conf_keys]
                                                              : p->where;
}

struct cm_str cm_config_where(const struct cm_config *c, const char *section, const char *key)
{
    const struct cm_conf_key *row = cm_conf_row(cm_str_of(section), cm_str_of(key));
    struct cm_str where;

    CM_ASSERT(row);
    where = c->origins->fixed[row - cm_conf_keys];
    return where.n > 0 ? where : c->file;
}
