/* Lists that are only read: providers, models, usage, the request log. */
#include "admin_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/provider/provider.h"

#define REQUESTS_DEFAULT 50
#define REQUESTS_MAX 500
#define USAGE_DEFAULT_MS (INT64_C(30) * 86400000)

/* ---- providers and models ---- */

/* Each model with its targets; looked up once for a whole answer. */
struct served {
    const struct cm_config *config;
    struct cm_model_listed *models;
    struct cm_target **targets;
    size_t *n_targets, n;
};

static struct served served_models(struct cm_admin *admin, struct cm_arena *arena)
{
    const struct cm_models *models = cm_gateway_models(admin->gw);
    struct served s = {.config = cm_gateway_config(admin->gw)};

    s.n = cm_models_list(models, arena, &s.models);
    s.targets = CM_ARENA_ARRAY(arena, struct cm_target *, s.n);
    s.n_targets = CM_ARENA_ARRAY(arena, size_t, s.n);
    for (size_t i = 0; i < s.n; i++)
        s.n_targets[i] = cm_models_find(models, arena, s.models[i].id, &s.targets[i], NULL);
    return s;
}

static void put_models_of(struct out *o, const struct served *s, size_t provider)
{
    bool some = false;

    out_name(o, "models");
    cm_buf_put(o->buf, '[');
    for (size_t i = 0; i < s->n; i++) {
        if (!s->models[i].row)
            continue; /* a route is no provider's */
        for (size_t t = 0; t < s->n_targets[i]; t++) {
            if (s->targets[i][t].provider != provider)
                continue;
            if (some)
                cm_buf_put(o->buf, ',');
            some = true;
            cm_json_put_str(o->buf, s->models[i].id);
            break;
        }
    }
    cm_buf_put(o->buf, ']');
}

static void put_provider(struct cm_buf *out, struct cm_admin *admin, struct cm_arena *arena,
                         const struct served *s, size_t at)
{
    const struct cm_provider_conf *conf = &s->config->providers[at];
    const struct cm_instance *in = cm_gateway_instance(admin->gw, conf->name);
    struct cm_pool_counts counts = {0};
    struct out o = out_begin(out);

    cm_pool_count(cm_gateway_pool(admin->gw), conf->name, &counts);
    out_str(&o, "name", conf->name);
    out_str(&o, "type", conf->type);
    out_str(&o, "base_url", url_shown(arena, in ? in->base_url : conf->base_url));
    out_int(&o, "priority", conf->priority);
    out_int(&o, "weight", conf->weight);
    out_name(&o, "credentials");
    counts_write(out, &counts);
    out_int(&o, "inflight", (int64_t)counts.inflight);
    out_int(&o, "waiting", (int64_t)counts.waiting);
    out_str(&o, "breaker", cm_str_of(cm_gateway_breaker(admin->gw, conf->name)));
    put_models_of(&o, s, at);
    out_bool(&o, "any_model", in && (in->any || (in->listed && in->n_rows == 0)));
    out_end(&o);
}

void providers_list(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct served s = served_models(admin, cm_web_arena(web));
    struct cm_buf out = {0};

    list_begin(&out);
    for (size_t i = 0; i < s.config->n_providers; i++) {
        if (i > 0)
            cm_buf_put(&out, ',');
        put_provider(&out, admin, cm_web_arena(web), &s, i);
    }
    list_end(&out, CM_STR_NONE);
    answer_json(web, 200, &out);
}

static void on_probed(void *arg, struct cm_str json, const struct cm_err *err)
{
    struct cm_web *web = arg;

    if (err)
        cm_web_fail(web, err);
    else
        cm_web_answer(web, 200, CM_S("application/json"), json);
}

void providers_probe(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_probe_ask ask = {.provider = cm_web_segment(web, 0)};
    struct cm_err err = {0};
    struct cm_str id;
    struct body body;

    if (body_read(&body, cm_web_arena(web), cm_web_body(web), "ProbeAsk", &err) < 0) {
        cm_web_fail(web, &err);
        return;
    }
    id = body_str(&body, "credential");
    ask.flow = body_str(&body, "flow");
    ask.model = body_str(&body, "model");
    ask.question = body_str(&body, "question");
    if (id.n > 0 && !id_parse(id, &ask.credential))
        answer_missing(web, "credential", id);
    else
        cm_gateway_probe(admin->gw, &ask, on_probed, web);
}

void explain(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_explain_ask ask = {0};
    const struct value *streamed;
    struct cm_buf out = {0};
    struct cm_err err = {0};
    struct body body;

    if (body_read(&body, cm_web_arena(web), cm_web_body(web), "ExplainAsk", &err) == 0) {
        ask.model = body_str(&body, "model");
        ask.key = body_str(&body, "key");
        streamed = body_get(&body, "stream");
        ask.streamed = !streamed || streamed->b;
        if (cm_gateway_explain(admin->gw, &ask, &out, &err) == 0) {
            answer_json(web, 200, &out);
            return;
        }
    }
    cm_buf_clear(&out);
    cm_web_fail(web, &err);
}

static void put_target(struct cm_buf *out, const struct cm_config *config,
                       const struct cm_target *target)
{
    struct out o = out_begin(out);

    out_str(&o, "provider", config->providers[target->provider].name);
    out_str(&o, "model", target->model);
    out_int(&o, "priority", target->priority);
    out_int(&o, "weight", target->weight);
    out_end(&o);
}

static void put_model(struct cm_buf *out, const struct served *s, size_t at)
{
    static const char *const strategies[] = {"priority", "weighted", "least_busy", "fastest"};
    const struct cm_target *targets = s->targets[at];
    const struct cm_model_row *row = s->models[at].row;
    const struct cm_model_conf *route = s->n_targets[at] > 0 ? targets[0].route : NULL;
    struct out o = out_begin(out);

    out_str(&o, "id", s->models[at].id);
    out_str(&o, "owned_by", s->models[at].owner);
    out_str_or_null(&o, "strategy", route ? cm_str_of(strategies[route->strategy]) : CM_STR_NONE);
    out_int_or_null(&o, "context_tokens", row ? row->context_tokens : 0);
    out_int_or_null(&o, "max_output_tokens", row ? row->max_output_tokens : 0);
    out_name(&o, "targets");
    cm_buf_put(out, '[');
    for (size_t i = 0; i < s->n_targets[at]; i++) {
        if (i > 0)
            cm_buf_put(out, ',');
        put_target(out, s->config, &targets[i]);
    }
    cm_buf_put(out, ']');
    out_end(&o);
}

void models_list(void *arg, struct cm_web *web)
{
    struct served s = served_models(arg, cm_web_arena(web));
    struct cm_buf out = {0};

    list_begin(&out);
    for (size_t i = 0; i < s.n; i++) {
        if (i > 0)
            cm_buf_put(&out, ',');
        put_model(&out, &s, i);
    }
    list_end(&out, CM_STR_NONE);
    answer_json(web, 200, &out);
}

/* ---- usage ---- */

static int query_time(struct cm_web *web, const char *name, int64_t otherwise, int64_t *out,
                      struct cm_err *err)
{
    struct cm_str text = cm_web_query(web, cm_str_of(name));

    *out = otherwise;
    if (text.n == 0 || cm_rfc3339_parse(text, out))
        return 0;
    return cm_fail_param(err, CM_ERR_BAD_REQUEST, name,
                         "%s must be a time such as 2026-01-31T08:15:00Z, or a date", name);
}

static void on_usage(void *arg, const struct cm_usage_row *rows, size_t n, const struct cm_err *err)
{
    struct task *t = arg;
    struct cm_buf out = {0};

    if (task_failed(t, err))
        return;
    list_begin(&out);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            cm_buf_put(&out, ',');
        usage_write(&out, &rows[i]);
    }
    list_end(&out, CM_STR_NONE);
    answer_json(t->web, 200, &out);
}

void usage_list(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    int64_t now = cm_unix_ms();
    struct cm_usage_query q = {.by = cm_web_query(web, CM_S("by"))};
    struct cm_store *store;
    struct cm_err err = {0};

    if (q.by.n == 0)
        q.by = CM_S("day");
    if (query_time(web, "to", now, &q.to_ms, &err) < 0 ||
        query_time(web, "from", q.to_ms - USAGE_DEFAULT_MS, &q.from_ms, &err) < 0) {
        cm_web_fail(web, &err);
        return;
    }
    store = need_store(admin, web);
    if (store)
        cm_store_usage(store, &q, on_usage, task_new(admin, web));
}

/* ---- the request log ---- */

static void on_requests(void *arg, const struct cm_request_row *rows, size_t n, struct cm_str next,
                        const struct cm_err *err)
{
    struct task *t = arg;
    struct cm_buf out = {0};

    if (task_failed(t, err))
        return;
    list_begin(&out);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            cm_buf_put(&out, ',');
        request_write(&out, &rows[i]);
    }
    list_end(&out, next);
    answer_json(t->web, 200, &out);
}

static void on_request(void *arg, const struct cm_request_row *rows, size_t n, struct cm_str next,
                       const struct cm_err *err)
{
    struct task *t = arg;
    struct cm_buf out = {0};

    (void)next;
    if (err) {
        cm_web_fail(t->web, err);
    } else if (n == 0) {
        answer_missing(t->web, "request", t->text);
    } else {
        request_write(&out, &rows[0]);
        answer_json(t->web, 200, &out);
    }
}

void requests_list(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_request_query q = {.cursor = cm_web_query(web, CM_S("cursor")),
                                 .key = cm_web_query(web, CM_S("key")),
                                 .model = cm_web_query(web, CM_S("model")),
                                 .outcome = cm_web_query(web, CM_S("outcome"))};
    struct cm_store *store;
    struct cm_err err = {0};

    if (query_int(web, "limit", REQUESTS_DEFAULT, REQUESTS_MAX, &q.limit, &err) < 0) {
        cm_web_fail(web, &err);
        return;
    }
    store = need_store(admin, web);
    if (store)
        cm_store_requests(store, &q, on_requests, task_new(admin, web));
}

void requests_get(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_store *store = need_store(admin, web);
    struct task *t;

    if (!store)
        return;
    t = task_new(admin, web);
    t->text = cm_web_segment(web, 0);
    cm_store_requests(store, &(struct cm_request_query){.limit = 1, .id = t->text}, on_request, t);
}
