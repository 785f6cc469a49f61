/* What would become of a request that came now: its targets in their order, and for each the account that would be asked, or why there is none. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"

#define LISTED_MAX 200u /* credentials of a target; more are only counted */

static void put_name(struct cm_buf *out, const char *name)
{
    cm_buf_printf(out, ",\"%s\":", name);
}

struct listing {
    struct cm_buf *out;
    const struct cm_pool *pool;
    struct cm_str model;
    size_t n;
    uint64_t chosen;
};

/* What is known against this model on this account. */
static void put_model(const struct listing *l, uint64_t id)
{
    struct cm_cred_model m = {0};
    char until[CM_RFC3339_CAP];
    const bool known = cm_pool_model(l->pool, id, l->model, &m);

    put_name(l->out, "model_state");
    cm_json_put_z(l->out, known ? cm_model_state_name(m.state) : NULL);
    put_name(l->out, "model_until");
    cm_rfc3339(m.until_ms, until);
    cm_json_put_z(l->out, m.until_ms ? until : NULL);
}

static void put_credential(void *arg, const struct cm_cred_info *c)
{
    struct listing *l = arg;
    char until[CM_RFC3339_CAP];

    if (l->n == LISTED_MAX)
        return;
    cm_buf_printf(l->out, "%s{\"id\":\"%llu\",\"label\":", l->n++ ? "," : "",
                  (unsigned long long)c->id);
    cm_json_put_str(l->out, c->label);
    put_name(l->out, "state");
    cm_json_put_z(l->out, cm_cred_state_name(c->state));
    put_name(l->out, "reason");
    cm_json_put_str(l->out, c->reason);
    put_name(l->out, "until");
    cm_rfc3339(c->until_ms, until);
    cm_json_put_z(l->out, c->until_ms ? until : NULL);
    cm_buf_printf(l->out, ",\"weight\":%lld,\"inflight\":%lld", (long long)c->weight,
                  (long long)c->inflight);
    put_model(l, c->id);
    cm_buf_printf(l->out, ",\"chosen\":%s}", c->id == l->chosen ? "true" : "false");
}

/* Who would be asked; 0 and why nobody. */
static uint64_t who(struct cm_gateway *gw, const struct cm_instance *in, const struct cm_target *t,
                    struct cm_err *err)
{
    const struct cm_pool_ask ask = {.provider = in->name,
                                    .model = t->model,
                                    .cost = t->row ? t->row->cost : 0,
                                    .purse = t->row ? t->row->purse : 0};
    uint64_t id, wait_ms;

    if (!health_admits(gw->health, in->name, cm_loop_now_ms(gw->host->loop), &wait_ms)) {
        cm_fail(err, CM_ERR_OVERLOADED,
                "it fails too often now and gets no requests for another %llu s",
                (unsigned long long)(wait_ms + 999) / 1000);
        return 0;
    }
    id = cm_pool_peek(gw->pool, &ask, err);
    gateway_pool_moved(gw);
    return id;
}

static void put_target(struct cm_gateway *gw, const struct cm_target *t, bool streamed,
                       struct cm_buf *out)
{
    const struct cm_instance *in = &gw->now->instances[t->provider];
    uint64_t now_ms = cm_loop_now_ms(gw->host->loop);
    struct cm_err err = {0};
    struct listing l = {
        .out = out, .pool = gw->pool, .model = t->model, .chosen = who(gw, in, t, &err)};
    double first_ms = health_first_ms(gw->health, in->name, t->model, streamed, now_ms);

    cm_buf_append(out, CM_S("{\"provider\":"));
    cm_json_put_str(out, in->name);
    put_name(out, "model");
    cm_json_put_str(out, t->model);
    cm_buf_printf(out, ",\"priority\":%lld,\"weight\":%lld,\"inflight\":%u,\"breaker\":\"%s\"",
                  (long long)t->priority, (long long)t->weight,
                  health_busy(gw->health, in->name, t->model),
                  breaker_state_name(health_breaker(gw->health, in->name, now_ms)));
    put_name(out, "first_token_ms");
    if (first_ms > 0 && first_ms < 1e12)
        cm_json_put_int(out, (int64_t)first_ms);
    else
        cm_json_put_z(out, NULL);
    put_name(out, "excluded");
    cm_json_put_z(out, l.chosen ? NULL : err.msg);
    cm_buf_append(out, CM_S(",\"credentials\":["));
    cm_pool_each(gw->pool, in->name, put_credential, &l);
    cm_buf_append(out, CM_S("]}"));
}

struct named {
    struct cm_str name;
    const struct cm_key *found;
};

static void consider_key(void *arg, const struct cm_key *key)
{
    struct named *n = arg;

    if (!n->found && cm_str_eq(cm_key_row(key)->name, n->name))
        n->found = key;
}

static int put_key(struct cm_gateway *gw, const struct cm_explain_ask *ask, struct cm_buf *out,
                   struct cm_err *err)
{
    struct named n = {.name = ask->key};

    if (ask->key.n == 0)
        return 0;
    cm_keys_each(gw->keys, consider_key, &n);
    if (!n.found)
        return cm_fail_param(err, CM_ERR_NOT_FOUND, "key", "there is no key \"" CM_PRI "\"",
                             CM_ARG(cm_str_head(ask->key, 80)));
    cm_buf_append(out, CM_S(",\"key\":{\"name\":"));
    cm_json_put_str(out, ask->key);
    cm_buf_printf(out, ",\"allowed\":%s,\"enabled\":%s}",
                  cm_key_allows(n.found, ask->model) ? "true" : "false",
                  cm_key_row(n.found)->enabled ? "true" : "false");
    return 0;
}

int cm_gateway_explain(struct cm_gateway *gw, const struct cm_explain_ask *ask, struct cm_buf *out,
                       struct cm_err *err)
{
    static const char *const strategies[] = {"priority", "weighted", "least_busy", "fastest"};
    const struct cm_rng before = gw->rng; /* the next request draws what is shown here */
    struct cm_arena arena = {0};
    struct cm_target *targets;
    size_t n = cm_models_find(gw->now->models, &arena, ask->model, &targets, err);
    int rc = n > 0 ? 0 : -1;

    if (rc == 0) {
        order_targets(gw, gw->now, targets, n, ask->streamed);
        gw->rng = before;
        cm_buf_append(out, CM_S("{\"model\":"));
        cm_json_put_str(out, ask->model);
        put_name(out, "strategy");
        cm_json_put_z(out, targets[0].route ? strategies[targets[0].route->strategy] : NULL);
        rc = put_key(gw, ask, out, err);
    }
    if (rc == 0) {
        cm_buf_append(out, CM_S(",\"targets\":["));
        for (size_t i = 0; i < n; i++) {
            if (i > 0)
                cm_buf_put(out, ',');
            put_target(gw, &targets[i], ask->streamed, out);
        }
        cm_buf_append(out, CM_S("]}"));
    }
    cm_arena_clear(&arena);
    return rc;
}
