/* Checks of the whole configuration: what a value means beside the others. */
#include "config_int.h"

#include "chatmux/base/mem.h"

struct checker {
    struct cm_conf_load *l;
    struct cm_conf_scope scope;
    const char *section;
};

static const struct cm_conf_key *row_of(const struct checker *ck, const char *key)
{
    const struct cm_conf_key *row = cm_conf_row(cm_str_of(ck->section), cm_str_of(key));

    CM_ASSERT(row);
    return row;
}

static struct cm_str origin_of(const struct checker *ck, const struct cm_conf_key *row)
{
    return ck->scope.origins[row - cm_conf_keys];
}

/* Where the value came from; of a default, where its provider or model stands, else the file. */
static struct cm_str where_of(const struct checker *ck, const struct cm_conf_key *row)
{
    struct cm_str origin = origin_of(ck, row);

    if (origin.n > 0)
        return origin;
    if (ck->scope.kind == CM_SCOPE_PROVIDER)
        return ((const struct cm_provider_conf *)ck->scope.base)->where;
    if (ck->scope.kind == CM_SCOPE_MODEL)
        return ((const struct cm_model_conf *)ck->scope.base)->where;
    if (ck->scope.kind == CM_SCOPE_PRICE)
        return ((const struct cm_price_conf *)ck->scope.base)->where;
    return ck->l->c->file;
}

/* "section.key: text" at the place of the key's value. */
static void complain(const struct checker *ck, const char *key, const char *text)
{
    const struct cm_conf_key *row = row_of(ck, key);

    cm_problem_add(ck->l->problems, where_of(ck, row), CM_PRI "%s: %s",
                   CM_ARG(cm_conf_prefix(&ck->l->scratch, &ck->scope, row)), key, text);
}

typedef int check_fn(struct cm_str s, struct cm_err *err);

static void check_text(const struct checker *ck, const char *key, check_fn *check)
{
    const struct cm_str *s = cm_conf_slot(&ck->scope, row_of(ck, key));
    struct cm_err err = {0};

    if (s->n > 0 && check(*s, &err) != 0)
        complain(ck, key, err.msg);
}

static void check_items(const struct checker *ck, const char *key, check_fn *check)
{
    const struct cm_conf_key *row = row_of(ck, key);
    const struct cm_strs *list = cm_conf_slot(&ck->scope, row);
    struct cm_arena *a = &ck->l->scratch;

    for (size_t i = 0; i < list->n; i++) {
        struct cm_err err = {0};
        struct cm_str text;

        if (check(list->v[i], &err) == 0)
            continue;
        text = row->secret ? cm_arena_printf(a, "item %zu %s", i + 1, err.msg)
                           : cm_arena_printf(a, "%s, not \"" CM_PRI "\"", err.msg,
                                             CM_ARG(cm_conf_shown(a, list->v[i])));
        complain(ck, key, text.p);
    }
}

static int check_listen(struct cm_str s, struct cm_err *err)
{
    struct cm_listen_spec spec;

    return cm_conf_listen(s, &spec, err);
}

static int check_origin(struct cm_str s, struct cm_err *err)
{
    return cm_str_eq(s, CM_S("*")) ? 0 : cm_conf_origin(s, err);
}

static int check_client_key(struct cm_str s, struct cm_err *err)
{
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] <= ' ')
            return cm_fail(err, CM_ERR_CONFIG,
                           "must be one word (several keys stand on indented lines, or between "
                           "commas)");
    }
    return 0;
}

static int check_model(struct cm_str s, struct cm_err *err)
{
    size_t equals = cm_str_find_char(s, '=');

    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] <= ' ' || s.p[i] == ',')
            return cm_fail(err, CM_ERR_CONFIG,
                           "must be one name (each on an indented line, or between commas)");
    }
    if (equals == 0 || (equals != SIZE_MAX && equals + 1 == s.n))
        return cm_fail(err, CM_ERR_CONFIG, "must be name, ours=theirs or *");
    return 0;
}

static int check_store_url(struct cm_str s, struct cm_err *err)
{
    if (cm_str_starts(s, CM_S("postgresql://")) || cm_str_starts(s, CM_S("postgres://")))
        return cm_fail(err, CM_ERR_CONFIG, "PostgreSQL is not supported yet; use sqlite:FILE");
    if (!cm_str_starts(s, CM_S("sqlite:")) || s.n == strlen("sqlite:"))
        return cm_fail(err, CM_ERR_CONFIG, "must be sqlite:FILE");
    return 0;
}

/* "hf", "/hf", "hf/" -> "/hf"; "/" -> "" */
static void normalise_prefix(const struct checker *ck, struct cm_str *prefix)
{
    struct cm_str s = *prefix;

    while (s.n > 0 && s.p[0] == '/')
        s = cm_str_from(s, 1);
    while (s.n > 0 && s.p[s.n - 1] == '/')
        s.n--;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        bool starts_part = i == 0 || s.p[i - 1] == '/';

        if ((!plain && !strchr("-._~/", c)) || (starts_part && (c == '/' || c == '.'))) {
            complain(ck, "route_prefix", "must be a path of plain words, such as hf or team/hf");
            return;
        }
    }
    *prefix = s.n == 0 ? CM_STR_NONE : cm_arena_printf(&ck->l->c->arena, "/" CM_PRI, CM_ARG(s));
}

/* Whoever reaches a listener that is not local needs a key, unless the operator says otherwise. */
static void check_reach(const struct checker *ck, const struct cm_strs *listen)
{
    for (size_t i = 0; i < listen->n; i++) {
        struct cm_listen_spec spec;
        struct cm_str text;

        if (cm_conf_listen(listen->v[i], &spec, NULL) != 0 || spec.local)
            continue;
        text = cm_arena_printf(&ck->l->scratch,
                               CM_PRI " lets other machines in, and clients need no key: set "
                                      "auth.keys, or auth.open = yes if everybody may use it "
                                      "(as variables: CHATMUX_AUTH_KEYS, CHATMUX_AUTH_OPEN)",
                               CM_ARG(cm_conf_shown(&ck->l->scratch, listen->v[i])));
        complain(ck, "listen", text.p);
    }
}

static void check_server(struct cm_conf_load *l, struct cm_conf_scope scope)
{
    struct checker ck = {l, scope, "server"};
    struct cm_config *c = l->c;

    if (c->server.listen.n == 0)
        complain(&ck, "listen", "must have at least one address, such as 127.0.0.1:8080");
    check_items(&ck, "listen", check_listen);
    if (c->auth.open_here)
        check_reach(&ck, &c->server.listen);
    normalise_prefix(&ck, &c->server.route_prefix);
    if (c->server.tls_cert.n > 0 && c->server.tls_key.n == 0)
        complain(&ck, "tls_cert", "needs server.tls_key beside it");
    if (c->server.tls_key.n > 0 && c->server.tls_cert.n == 0)
        complain(&ck, "tls_key", "needs server.tls_cert beside it");
    check_items(&ck, "cors_origins", check_origin);
    check_items(&ck, "trusted_proxies", cm_conf_network);
}

static void check_store(struct cm_conf_load *l, struct cm_conf_scope scope)
{
    struct checker ck = {l, scope, "store"};

    if (l->c->store.url.n == 0)
        complain(&ck, "url", "must be sqlite:FILE");
    check_text(&ck, "url", check_store_url);
    if (l->c->store.master_key.n > 0 && l->c->store.master_key_file.n > 0)
        complain(&ck, "master_key_file", "stands beside store.master_key; keep one of the two");
}

static void check_proxy(const struct checker *ck)
{
    if (ck->scope.kind == CM_SCOPE_FIXED || origin_of(ck, row_of(ck, "proxy")).n > 0)
        check_text(ck, "proxy", cm_conf_proxy);
}

static void check_provider(struct cm_conf_load *l, size_t index)
{
    struct checker ck = {l, cm_conf_scope_of(l->c, CM_SCOPE_PROVIDER, index), "provider"};
    struct cm_provider_conf *p = &l->c->providers[index];

    if (p->type.n == 0)
        complain(&ck, "type",
                 "is needed: openai for any OpenAI-compatible server, demo to try out");
    check_text(&ck, "base_url", cm_conf_url);
    while (p->base_url.n > 0 && p->base_url.p[p->base_url.n - 1] == '/')
        p->base_url.n--;
    check_items(&ck, "models", check_model);
    check_proxy(&ck);
}

static const char *nearest_provider(const struct cm_config *c, struct cm_arena *a,
                                    struct cm_str name)
{
    const char **names = CM_ARENA_ARRAY(a, const char *, c->n_providers);

    for (size_t i = 0; i < c->n_providers; i++)
        names[i] = cm_arena_z(a, c->providers[i].name);
    return cm_conf_nearest(name, names, c->n_providers);
}

static void check_target(const struct checker *ck, const char *key, struct cm_str provider)
{
    struct cm_arena *a = &ck->l->scratch;
    const struct cm_config *c = ck->l->c;
    const char *nearest;
    struct cm_str text;

    for (size_t i = 0; i < c->n_providers; i++) {
        if (cm_str_eq(c->providers[i].name, provider))
            return;
    }
    nearest = nearest_provider(c, a, provider);
    text = cm_arena_printf(a, "no [provider " CM_PRI "] is configured%s%s%s",
                           CM_ARG(cm_conf_shown(a, provider)), nearest ? ", is it " : "",
                           nearest ? nearest : "", nearest ? "?" : "");
    complain(ck, key, text.p);
}

static int target_parses(struct cm_str s, struct cm_err *err)
{
    struct cm_target_spec spec;

    return cm_conf_target(s, &spec, err);
}

static void check_targets(const struct checker *ck, const char *key, const struct cm_strs *targets)
{
    check_items(ck, key, target_parses);
    for (size_t i = 0; i < targets->n; i++) {
        struct cm_target_spec spec;

        if (cm_conf_target(targets->v[i], &spec, NULL) == 0)
            check_target(ck, key, spec.provider);
    }
}

static void check_model_route(struct cm_conf_load *l, size_t index)
{
    struct checker ck = {l, cm_conf_scope_of(l->c, CM_SCOPE_MODEL, index), "model"};
    const struct cm_strs *targets = &l->c->models[index].targets;

    if (targets->n == 0)
        complain(&ck, "targets", "is needed: one provider/model on each indented line");
    check_targets(&ck, "targets", targets);
    check_targets(&ck, "larger_targets", &l->c->models[index].larger);
}

static void check_price(struct cm_conf_load *l, size_t index)
{
    const struct cm_price_conf *p = &l->c->prices[index];
    size_t star = cm_str_find_char(p->name, '*');
    bool any = false;

    for (size_t i = 0; i < l->n; i++) /* those with a problem too: it has been told */
        any = any || (l->settings[i].kind == CM_SCOPE_PRICE && l->settings[i].index == index);
    if (star != SIZE_MAX && star + 1 < p->name.n)
        cm_problem_add(l->problems, p->where,
                       "[price " CM_PRI "]: a * can only stand at the end of the name",
                       CM_ARG(p->name));
    if (!any)
        cm_problem_add(l->problems, p->where,
                       "[price " CM_PRI "] has no price: set input and output, or image; input = 0 "
                       "says that it costs nothing",
                       CM_ARG(p->name));
}

void cm_conf_check(struct cm_conf_load *l)
{
    struct cm_conf_scope fixed = cm_conf_scope_of(l->c, CM_SCOPE_FIXED, 0);
    struct checker auth = {l, fixed, "auth"}, upstream = {l, fixed, "upstream"};

    check_server(l, fixed);
    cm_conf_check_seed(l);
    check_items(&auth, "keys", check_client_key);
    check_items(&auth, "ip_block", cm_conf_network);
    check_text(&auth, "admin_secret", check_client_key);
    check_store(l, fixed);
    check_proxy(&upstream);
    for (size_t i = 0; i < l->c->n_providers; i++)
        check_provider(l, i);
    for (size_t i = 0; i < l->c->n_models; i++)
        check_model_route(l, i);
    for (size_t i = 0; i < l->c->n_prices; i++)
        check_price(l, i);
}
