/* Settings from outside of the file: CHATMUX_… of the environment and --set of the command line. */
#include "config_int.h"

#include "chatmux/base/map.h"
#include "chatmux/base/mem.h"

const char *cm_conf_getenv(char *const *environ_list, const char *name)
{
    size_t n = strlen(name);

    for (; *environ_list; environ_list++) {
        if (strncmp(*environ_list, name, n) == 0 && (*environ_list)[n] == '=')
            return *environ_list + n + 1;
    }
    return NULL;
}

/* "x.chunk_ms" -> "X_CHUNK_MS" */
static struct cm_str env_form(struct cm_arena *a, struct cm_str s)
{
    char *z = cm_arena_z(a, s);

    for (size_t i = 0; i < s.n; i++) {
        char c = z[i];

        if (c >= 'a' && c <= 'z')
            z[i] = (char)(c - 'a' + 'A');
        else if ((c < 'A' || c > 'Z') && (c < '0' || c > '9'))
            z[i] = '_';
    }
    return cm_str(z, s.n);
}

/* The key whose form in the environment is `form`, as the table writes it; empty when the section
 * has none. */
static struct cm_str key_of_form(struct cm_arena *a, struct cm_str section, struct cm_str form)
{
    for (size_t i = 0; i < cm_conf_keys_n; i++) {
        struct cm_str key = cm_str_of(cm_conf_keys[i].key);

        if (cm_conf_row(section, key) == &cm_conf_keys[i] && cm_str_eq(env_form(a, key), form))
            return key;
    }
    return CM_STR_NONE;
}

/* The environment cannot tell "." from "_" or "-": a header or option that a file gave to the
 * provider is meant when the forms agree; else we choose the usual spelling. */
static struct cm_str open_key_of_form(struct cm_conf_load *l, size_t provider, struct cm_str form)
{
    bool header = cm_str_starts(form, CM_S("HEADER_"));
    struct cm_str prefix = header ? CM_S("header.") : CM_S("x.");
    char *z;

    if (form.n <= prefix.n || (!header && !cm_str_starts(form, CM_S("X_"))))
        return CM_STR_NONE;
    for (size_t i = 0; i < l->n; i++) {
        const struct cm_conf_setting *s = &l->settings[i];
        struct cm_str known;

        if (s->kind != CM_SCOPE_PROVIDER || s->index != provider || s->row || s->header != header)
            continue;
        known = cm_arena_printf(&l->scratch, CM_PRI CM_PRI, CM_ARG(prefix), CM_ARG(s->key));
        if (cm_str_eq(env_form(&l->scratch, known), form))
            return known;
    }
    z = cm_arena_z(&l->scratch, form);
    for (size_t i = 0; i < form.n; i++) {
        if (z[i] >= 'A' && z[i] <= 'Z')
            z[i] = (char)(z[i] - 'A' + 'a');
        else if (z[i] == '_' && header)
            z[i] = '-';
    }
    z[prefix.n - 1] = '.';
    return cm_str(z, form.n);
}

static void complain_unknown_provider(struct cm_conf_load *l, struct cm_str where)
{
    struct cm_str names = CM_STR_NONE;

    for (size_t i = 0; i < l->c->n_providers && i < 10; i++)
        names = cm_arena_printf(&l->scratch, CM_PRI "%s" CM_PRI, CM_ARG(names), i > 0 ? ", " : "",
                                CM_ARG(l->c->providers[i].name));
    cm_problem_add(
        l->problems, where, "no provider of this name is configured (there %s " CM_PRI ")",
        l->c->n_providers <= 1 ? "is" : "are", CM_ARG(names.n > 0 ? names : CM_S("none")));
}

/* CHATMUX_PROVIDER_<NAME>_<KEY>; `form` is what follows CHATMUX_PROVIDER_. */
static void add_provider_variable(struct cm_conf_load *l, struct cm_conf_setting s,
                                  struct cm_str form)
{
    struct cm_str found_key = CM_STR_NONE, best_name = CM_STR_NONE, rest;
    size_t found = 0, best = 0;
    bool exact = false;

    for (size_t i = 0; i < l->c->n_providers; i++) {
        struct cm_str name = env_form(&l->scratch, l->c->providers[i].name), key;
        bool in_table;

        if (!cm_str_starts(form, name) || form.n < name.n + 2 || form.p[name.n] != '_')
            continue;
        if (name.n >= best_name.n) {
            best_name = name;
            best = i;
        }
        rest = cm_str_from(form, name.n + 1);
        key = key_of_form(&l->scratch, CM_S("provider"), rest);
        in_table = key.n > 0;
        if (!in_table)
            key = open_key_of_form(l, i, rest);
        if (key.n == 0 || (exact && !in_table))
            continue;
        found = in_table && !exact ? 1 : found + 1;
        exact = in_table;
        if (found == 1) {
            s.index = i;
            found_key = key;
        }
    }
    if (found > 1) {
        cm_problem_add(l->problems, s.where,
                       "means keys of more than one provider; set it in the file, or by --set");
    } else if (found == 1) {
        cm_conf_add_setting(l, s, CM_S("provider"), found_key);
    } else if (best_name.n == 0) {
        complain_unknown_provider(l, s.where);
    } else {
        s.index = best;
        rest = cm_str_from(form, best_name.n + 1);
        cm_conf_add_setting(l, s, CM_S("provider"), rest);
    }
}

/* Kubernetes puts the address of every service of a name space there: CHATMUX_SERVER_PORT for one
 * called chatmux-server. */
static bool is_service_link(struct cm_str key)
{
    return cm_str_starts(key, CM_S("SERVICE_HOST")) || cm_str_starts(key, CM_S("SERVICE_PORT")) ||
           cm_str_eq(key, CM_S("PORT")) || cm_str_starts(key, CM_S("PORT_"));
}

/* `form` is what follows CHATMUX_. Other variables of ours (CHATMUX_ADMIN_URL …) begin with no
 * section's name. */
static void add_variable(struct cm_conf_load *l, struct cm_conf_setting s, struct cm_str form)
{
    struct cm_str key = form, section = cm_str_cut(&key, '_'), known;
    char *lower = cm_arena_z(&l->scratch, section);

    if (cm_str_eq(section, CM_S("PROVIDER"))) {
        s.kind = CM_SCOPE_PROVIDER;
        add_provider_variable(l, s, key);
        return;
    }
    for (size_t i = 0; i < section.n; i++) {
        if (lower[i] < 'A' || lower[i] > 'Z')
            return;
        lower[i] = (char)(lower[i] - 'A' + 'a');
    }
    section = cm_str(lower, section.n);
    if (key.n == 0 || !cm_conf_is_section(section) || is_service_link(key))
        return;
    known = key_of_form(&l->scratch, section, key);
    cm_conf_add_setting(l, s, section, known.n > 0 ? known : key);
}

/* Two providers whose variables would have the same names. */
static void check_names(struct cm_conf_load *l)
{
    struct cm_map seen = {0};

    for (size_t i = 0; i < l->c->n_providers; i++) {
        struct cm_provider_conf *p = &l->c->providers[i];
        struct cm_str form = env_form(&l->scratch, p->name);
        const struct cm_provider_conf *other = cm_map_get(&seen, form);

        if (other)
            cm_problem_add(l->problems, p->where,
                           "provider " CM_PRI " and " CM_PRI " (" CM_PRI
                           ") share the variables CHATMUX_PROVIDER_" CM_PRI "_...; rename one",
                           CM_ARG(p->name), CM_ARG(other->name), CM_ARG(other->where),
                           CM_ARG(form));
        else
            cm_map_put(&seen, form, p);
    }
    cm_map_clear(&seen);
}

void cm_conf_add_environment(struct cm_conf_load *l)
{
    const struct cm_str prefix = CM_S("CHATMUX_");

    check_names(l);
    for (char *const *e = l->environ_list; *e; e++) {
        struct cm_str value = cm_str_of(*e), name;
        struct cm_conf_setting s = {.kind = CM_SCOPE_FIXED};

        if (!cm_str_starts(value, prefix))
            continue;
        name = cm_str_cut(&value, '=');
        s.value = cm_str_trim(value);
        s.items = cm_ini_list(&l->scratch, s.value);
        s.where = cm_arena_printf(&l->scratch, "environment " CM_PRI, CM_ARG(name));
        add_variable(l, s, cm_str_from(name, prefix.n));
    }
}

static struct cm_str name_at(const struct cm_conf_load *l, enum cm_conf_scope_kind kind, size_t i)
{
    if (kind == CM_SCOPE_PRICE)
        return l->c->prices[i].name;
    return kind == CM_SCOPE_PROVIDER ? l->c->providers[i].name : l->c->models[i].name;
}

/* provider.NAME.key, model.NAME.key, price.NAME.key: names may hold dots, so the longest name that leaves a key we
 * know is meant. */
static void add_named_set(struct cm_conf_load *l, struct cm_conf_setting s, struct cm_str section,
                          struct cm_str rest)
{
    size_t n = cm_conf_scope_count(l->c, s.kind);
    struct cm_str best = CM_STR_NONE;
    bool best_known = false;

    for (size_t i = 0; i < n; i++) {
        struct cm_str name = name_at(l, s.kind, i), key = cm_str_from(rest, name.n + 1);
        bool known;

        if (!cm_str_starts(rest, name) || rest.n < name.n + 2 || rest.p[name.n] != '.')
            continue;
        known =
            cm_conf_row(section, key) || (s.kind == CM_SCOPE_PROVIDER && cm_conf_is_open_key(key));
        if (best.n == 0 || (known && !best_known) || (known == best_known && name.n > best.n)) {
            best = name;
            best_known = known;
            s.index = i;
        }
    }
    if (best.n > 0)
        cm_conf_add_setting(l, s, section, cm_str_from(rest, best.n + 1));
    else if (s.kind == CM_SCOPE_PROVIDER)
        complain_unknown_provider(l, s.where);
    else
        cm_problem_add(l->problems, s.where, "no %s of this name is configured",
                       cm_conf_scope_name(s.kind));
}

void cm_conf_add_sets(struct cm_conf_load *l, const char *const *sets, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct cm_str value = cm_str_of(sets[i]), key, section;
        struct cm_conf_setting s = {.kind = CM_SCOPE_FIXED};
        bool has_value = cm_str_find_char(value, '=') != SIZE_MAX;

        key = cm_str_trim(cm_str_cut(&value, '='));
        s.value = cm_str_trim(value);
        s.items = cm_ini_list(&l->scratch, s.value);
        /* without a "=" the text may be anything, a secret too */
        s.where =
            has_value ? cm_arena_printf(&l->scratch, "--set " CM_PRI, CM_ARG(key)) : CM_S("--set");
        section = cm_str_cut(&key, '.');
        if (cm_str_eq(section, CM_S("provider")))
            s.kind = CM_SCOPE_PROVIDER;
        else if (cm_str_eq(section, CM_S("model")))
            s.kind = CM_SCOPE_MODEL;
        else if (cm_str_eq(section, CM_S("price")))
            s.kind = CM_SCOPE_PRICE;
        if (!has_value || key.n == 0)
            cm_problem_add(l->problems, s.where,
                           "must be section.key=value or provider.NAME.key=value");
        else if (s.kind != CM_SCOPE_FIXED)
            add_named_set(l, s, section, key);
        else if (!cm_conf_is_section(section))
            cm_problem_add(l->problems, s.where, "unknown section \"" CM_PRI "\"%s" CM_PRI "%s",
                           CM_ARG(section), cm_conf_nearest_section(section).n ? ", is it " : "",
                           CM_ARG(cm_conf_nearest_section(section)),
                           cm_conf_nearest_section(section).n ? "?" : "");
        else
            cm_conf_add_setting(l, s, section, key);
    }
}
