/* The table of adapters, and one configured instance of one: its options, its models. */
#include "chatmux/provider/provider.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/provider/list.h"

#include <stdlib.h>

#define THREAD_MS (7 * 24 * 60 * 60 * INT64_C(1000)) /* where the adapter has no setting for it */

static const struct cm_provider *const adapters[] = {
#define X(id) &cm_provider_##id,
    CM_PROVIDER_LIST(X)
#undef X
};

const struct cm_provider *cm_provider_find(struct cm_str type)
{
    for (size_t i = 0; i < CM_COUNT(adapters); i++) {
        if (cm_str_eq(cm_str_of(adapters[i]->name), type))
            return adapters[i];
    }
    return NULL;
}

const char *cm_provider_names(void)
{
    static char names[CM_COUNT(adapters) * 20];
    size_t n = 0;

    if (names[0] != '\0')
        return names;
    for (size_t i = 0; i < CM_COUNT(adapters); i++) {
        if (i > 0)
            n += cm_str_copy(names + n, sizeof(names) - n, CM_S(", "));
        n += cm_str_copy(names + n, sizeof(names) - n, cm_str_of(adapters[i]->name));
    }
    return names;
}

/* ---- Options ---- */

static const struct cm_option *find_option(const struct cm_provider *adapter, struct cm_str name)
{
    for (const struct cm_option *o = adapter->options; o && o->name; o++) {
        if (cm_str_eq(cm_str_of(o->name), name))
            return o;
    }
    return NULL;
}

static bool is_choice(const char *choices, struct cm_str value)
{
    struct cm_str rest = cm_str_of(choices);

    while (rest.n > 0) {
        if (cm_str_eq(cm_str_cut(&rest, '|'), value))
            return true;
    }
    return false;
}

/* Reads numbers, durations (ms) and sizes, and checks their range. A duration whose name ends in its
 * unit, "…_ms", may be a bare number. */
static int read_number(const struct cm_option *o, struct cm_str value, int64_t *out,
                       struct cm_err *err)
{
    uint64_t number = 0;
    int64_t got = 0;

    const bool bare = o->type == CM_CONF_DURATION && cm_str_ends(cm_str_of(o->name), CM_S("_ms"));

    if ((bare || o->type == CM_CONF_INT) && cm_str_to_u64(value, INT64_MAX, &number)) {
        got = (int64_t)number;
    } else if (o->type == CM_CONF_INT) {
        return cm_fail(err, CM_ERR_CONFIG, "must be a number");
    } else if (o->type == CM_CONF_DURATION ? cm_conf_duration(value, &got, err)
                                           : cm_conf_size(value, &got, err)) {
        return -1;
    }
    if ((o->min != 0 || o->max != 0) && (got < o->min || got > o->max))
        return cm_fail(err, CM_ERR_CONFIG, "must be %lld to %lld%s", (long long)o->min,
                       (long long)o->max, o->type == CM_CONF_DURATION ? " (milliseconds)" : "");
    *out = got;
    return 0;
}

static int check_value(const struct cm_option *o, struct cm_str value, struct cm_err *err)
{
    int64_t number;
    bool truth;

    switch (o->type) {
    case CM_CONF_INT:
    case CM_CONF_DURATION:
    case CM_CONF_SIZE:
        return read_number(o, value, &number, err);
    case CM_CONF_USD:
        return cm_conf_usd(value, &number, err);
    case CM_CONF_BOOL:
        return cm_conf_bool(value, &truth, err);
    case CM_CONF_ENUM:
        if (!is_choice(o->choices, value))
            return cm_fail(err, CM_ERR_CONFIG, "must be one of %s", o->choices);
        return 0;
    case CM_CONF_STR:
    case CM_CONF_LIST:
        break;
    }
    return 0;
}

/* NULL when it is not set; nobody changes the environment while we run. */
static const char *variable_of(const struct cm_option *o)
{
    const char *value = o->env ? getenv(o->env) : NULL;

    return value && *value ? value : NULL;
}

static void unknown_option(const struct cm_instance *in, const struct cm_conf_pair *pair,
                           struct cm_problems *problems)
{
    const char *names[64], *nearest;
    size_t n = 0;

    for (const struct cm_option *o = in->adapter->options; o && o->name && n < CM_COUNT(names); o++)
        names[n++] = o->name;
    nearest = cm_conf_nearest(pair->key, names, n);
    cm_problem_add(problems, pair->where,
                   "provider." CM_PRI ".x." CM_PRI ": the type %s has no such option%s%s%s",
                   CM_ARG(in->name), CM_ARG(pair->key), in->adapter->name,
                   nearest ? ", did you mean x." : "", nearest ? nearest : "", nearest ? "?" : "");
}

static void check_options(const struct cm_instance *in, struct cm_problems *problems)
{
    for (size_t i = 0; i < in->conf->n_options; i++) {
        const struct cm_conf_pair *pair = &in->conf->options[i];
        const struct cm_option *o = find_option(in->adapter, pair->key);
        struct cm_err err;

        if (!o)
            unknown_option(in, pair, problems);
        else if (check_value(o, pair->value, &err))
            cm_problem_add(problems, pair->where, "provider." CM_PRI ".x." CM_PRI ": %s",
                           CM_ARG(in->name), CM_ARG(pair->key), err.msg);
    }
    for (const struct cm_option *o = in->adapter->options; o && o->name; o++) {
        struct cm_err err;

        if (variable_of(o) && check_value(o, cm_str_of(variable_of(o)), &err))
            cm_problem_add(problems, cm_arena_printf(in->arena, "environment %s", o->env), "%s",
                           err.msg);
    }
}

struct cm_str cm_option_value(const struct cm_instance *in, const char *name)
{
    const struct cm_option *o = find_option(in->adapter, cm_str_of(name));

    CM_ASSERT(o);
    for (size_t i = 0; i < in->conf->n_options; i++) {
        if (cm_str_eq(in->conf->options[i].key, cm_str_of(name)))
            return in->conf->options[i].value;
    }
    return variable_of(o) ? cm_str_of(variable_of(o)) : cm_str_of(o->def);
}

bool cm_option_bool(const struct cm_instance *in, const char *name)
{
    bool value = false;

    cm_conf_bool(cm_option_value(in, name), &value, NULL);
    return value;
}

int64_t cm_option_int(const struct cm_instance *in, const char *name)
{
    const struct cm_option *o = find_option(in->adapter, cm_str_of(name));
    int64_t value = 0;

    CM_ASSERT(o);
    read_number(o, cm_option_value(in, name), &value, NULL);
    return value;
}

int64_t cm_instance_thread_ms(const struct cm_instance *in)
{
    return find_option(in->adapter, CM_S("continue_ttl")) ? cm_option_int(in, "continue_ttl")
                                                          : THREAD_MS;
}

struct cm_str cm_instance_upstream(const struct cm_instance *in, struct cm_str model)
{
    for (size_t i = 0; i < in->n_rows; i++)
        if (cm_str_eq(in->rows[i].name, model) && in->rows[i].upstream.n > 0)
            return in->rows[i].upstream;
    return model;
}

/* ---- Instance ---- */

static const struct cm_model_row *find_row(const struct cm_provider *adapter, struct cm_str name)
{
    for (size_t i = 0; i < adapter->n_models; i++) {
        if (cm_str_eq(adapter->models[i].name, name))
            return &adapter->models[i];
    }
    return NULL;
}

/* "ours=theirs" or "name": what the adapter's table knows of theirs, under our name. */
static struct cm_model_row operator_row(const struct cm_provider *adapter, struct cm_str ours,
                                        struct cm_str theirs)
{
    const struct cm_model_row *known = find_row(adapter, theirs);
    struct cm_model_row row = {.features = adapter->any_features};

    if (known)
        row = *known;
    if (row.upstream.n == 0)
        row.upstream = theirs;
    row.name = ours;
    return row;
}

static void init_models(struct cm_instance *in, struct cm_problems *problems)
{
    const struct cm_provider *adapter = in->adapter;
    const struct cm_strs *wanted = &in->conf->models;

    in->rows = CM_ARENA_ARRAY(in->arena, struct cm_model_row, wanted->n + adapter->n_models);
    for (size_t i = 0; i < wanted->n; i++) {
        struct cm_str theirs = wanted->v[i], ours;

        if (cm_str_eq(theirs, CM_S("*"))) {
            in->any = true;
            continue;
        }
        ours = cm_str_trim(cm_str_cut(&theirs, '='));
        theirs = cm_str_find_char(wanted->v[i], '=') == SIZE_MAX ? ours : cm_str_trim(theirs);
        if (ours.n == 0 || theirs.n == 0) {
            cm_problem_add(problems, cm_provider_where(in->conf, "models"),
                           "provider." CM_PRI ".models: '" CM_PRI "' must be NAME or OURS=THEIRS",
                           CM_ARG(in->name), CM_ARG(wanted->v[i]));
            continue;
        }
        in->rows[in->n_rows++] = operator_row(adapter, ours, theirs);
    }
    if (in->n_rows == 0) {
        for (size_t i = 0; i < adapter->n_models; i++)
            in->rows[in->n_rows++] = adapter->models[i];
    }
    in->listed = in->n_rows == 0 && !in->any;
}

static struct cm_str base_url(const struct cm_provider_conf *conf,
                              const struct cm_provider *adapter)
{
    struct cm_str url = conf->base_url.n > 0 ? conf->base_url : cm_str_of(adapter->base_url);

    while (cm_str_ends(url, CM_S("/")))
        url = cm_str_head(url, url.n - 1);
    return url;
}

static void check_headers(const struct cm_instance *in, struct cm_problems *problems)
{
    for (size_t i = 0; i < in->conf->n_headers; i++) {
        const struct cm_conf_pair *pair = &in->conf->headers[i];

        if (!cm_header_name_ok(pair->key) || !cm_header_value_ok(pair->value))
            cm_problem_add(problems, pair->where,
                           "provider." CM_PRI ".header." CM_PRI ": this cannot be sent as a header",
                           CM_ARG(in->name), CM_ARG(pair->key));
    }
}

static void unknown_type(const struct cm_provider_conf *conf, struct cm_problems *problems)
{
    const char *names[CM_COUNT(adapters)], *nearest;

    for (size_t i = 0; i < CM_COUNT(adapters); i++)
        names[i] = adapters[i]->name;
    nearest = cm_conf_nearest(conf->type, names, CM_COUNT(names));
    cm_problem_add(problems, cm_provider_where(conf, "type"),
                   "provider." CM_PRI ".type: '" CM_PRI "' is none of %s%s%s%s", CM_ARG(conf->name),
                   CM_ARG(conf->type), cm_provider_names(), nearest ? "; did you mean " : "",
                   nearest ? nearest : "", nearest ? "?" : "");
}

/* Credentials in the form the adapter keeps them in: a cookie with its name in front, for
 * example. */
static void init_secrets(struct cm_instance *in, struct cm_problems *problems)
{
    const struct cm_strs *given = &in->conf->credentials;

    in->secrets = CM_ARENA_ARRAY(in->arena, struct cm_str, given->n);
    for (size_t i = 0; i < given->n; i++) {
        struct cm_str *kept = &in->secrets[in->n_secrets++];
        struct cm_err err;

        *kept = given->v[i];
        if (in->adapter->normalize && in->adapter->normalize(in->arena, given->v[i], kept, &err))
            cm_problem_add(problems, cm_provider_where(in->conf, "credentials"),
                           "provider." CM_PRI ".credentials: item %zu: %s", CM_ARG(in->name), i + 1,
                           err.msg);
    }
}

int cm_instance_init(struct cm_instance *in, const struct cm_provider_conf *conf,
                     struct cm_arena *arena, struct cm_problems *problems)
{
    const unsigned before = problems->n;

    *in = (struct cm_instance){.conf = conf, .name = conf->name, .arena = arena};
    in->adapter = cm_provider_find(conf->type);
    if (!in->adapter) {
        if (conf->type.n > 0) /* else the configuration has said so */
            unknown_type(conf, problems);
        return -1;
    }
    in->base_url = base_url(conf, in->adapter);
    in->tasks = in->adapter->tasks ? in->adapter->tasks : CM_TASK_BIT(CHAT);
    init_models(in, problems);
    init_secrets(in, problems);
    check_headers(in, problems);
    check_options(in, problems);
    if (problems->n == before && in->adapter->configure)
        in->adapter->configure(in, problems);
    return problems->n == before ? 0 : -1;
}

bool cm_instance_relays(const struct cm_instance *in, const struct cm_chat *chat)
{
    return in->adapter->relays && !chat->translate && in->tasks & (1u << chat->task) &&
           in->adapter->relays(in, chat->dialect);
}

bool cm_instance_serves(const struct cm_instance *in, const struct cm_chat *chat)
{
    return cm_tasks_serve(in->tasks, chat->task) &&
           (!(in->adapter->relayed_tasks & (1u << chat->task)) || cm_instance_relays(in, chat));
}

/* ---- Failures ---- */

static enum cm_err_class status_class(int status)
{
    switch (status) {
    case 400:
    case 405:
    case 413:
    case 415:
    case 422:
        return CM_ERR_BAD_REQUEST;
    case 401:
        return CM_ERR_INVALID_CREDENTIAL;
    case 402:
        return CM_ERR_QUOTA_EXHAUSTED;
    case 404:
        return CM_ERR_MODEL_UNAVAILABLE;
    case 408:
    case 504:
        return CM_ERR_TIMEOUT;
    case 429:
        return CM_ERR_RATE_LIMITED;
    case 503:
    case 529: /* Anthropic's word for overloaded */
        return CM_ERR_OVERLOADED;
    default:
        /* 403 too: a region, a permission or a wall in front of the platform: another account or
         * address may pass, and no credential is disabled on suspicion */
        return CM_ERR_UPSTREAM_DOWN;
    }
}

size_t cm_instance_drops(const struct cm_instance *in, const struct cm_chat *chat,
                         struct cm_str *fields, size_t max)
{
    unsigned lost;
    size_t n = 0;

    if (cm_instance_relays(in, chat))
        return 0;
    lost = cm_chat_fields(chat) & ~in->adapter->understands;
    for (size_t i = 0; i < chat->n_dropped && n < max; i++)
        fields[n++] = chat->dropped[i];
    for (unsigned i = 0; i < CM_FIELDS_N && n < max; i++) {
        if (lost & (1u << i))
            fields[n++] = cm_chat_spelling(chat, cm_chat_field_name(i));
    }
    return n;
}

int cm_fail_dropped(struct cm_err *err, const struct cm_instance *in, struct cm_str field)
{
    char param[64];

    cm_str_copy(param, sizeof(param), field);
    cm_fail_param(err, CM_ERR_BAD_REQUEST, param,
                  "\"%s\" has no effect with this model (provider " CM_PRI
                  "): leave it out; this gateway is set to refuse what it would have to drop",
                  param, CM_ARG(in->name));
    if (err)
        cm_str_copy(err->code, sizeof(err->code), CM_S("unsupported_parameter"));
    return -1;
}

int cm_http_fail(struct cm_err *err, int status, const struct cm_header *headers, size_t n,
                 struct cm_str what)
{
    cm_fail(err, status_class(status), CM_PRI " answered with status %d", CM_ARG(what), status);
    if (err)
        err->retry_after_s = cm_retry_after_s(headers, n, cm_unix_ms());
    return -1;
}
