/* One flow of one account, watched: what `chatmux probe` shows when a platform has changed.
 *
 * Like an errand it owns a copy of the credential and a reference to the snapshot; it takes no lease, since the account that is looked at may be one
 * the pool would not give. Its end changes no state but one: a token that `refresh` brought home is kept, because the old one may be gone. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/secret.h"
#include "chatmux/codec/json.h"
#include <stdlib.h>

#define STEPS_MAX 300
#define ANSWER_MAX 4000
#define MASKED_MIN 6 /* shorter pieces of a secret are words that occur by themselves */

struct probe {
    struct cm_list link; /* in gw->probes */
    struct cm_gateway *gw;
    struct snapshot *snap; /* a reference */
    const struct cm_instance *in;
    struct cm_run *run; /* NULL once it has been closed */
    struct cm_arena arena;
    struct cm_cred cred; /* texts in the arena */
    struct cm_str flow;
    struct cm_chat chat;
    struct cm_target *target;
    struct cm_buf steps; /* JSON objects with commas between */
    size_t n_steps;
    struct cm_buf answer;
    struct cm_buf quota;
    size_t n_models;
    struct cm_str token; /* refreshed; in the arena */
    int64_t token_expires_ms;
    uint64_t began_us;
    cm_gateway_probed_fn *done;
    void *arg;
};

/* ---- what is shown ---- */

static bool is_part_of_secret(char c)
{
    return (unsigned char)c > ' ' && !strchr(";,=&:{}[]\"'", c);
}

/* Every piece of `secret` in `text` becomes "***". */
static struct cm_str without(struct cm_arena *arena, struct cm_str text, struct cm_str secret)
{
    while (secret.n > 0) {
        struct cm_str piece;
        size_t n = 0, at;

        while (n < secret.n && is_part_of_secret(secret.p[n]))
            n++;
        piece = cm_str_head(secret, n);
        secret = cm_str_from(secret, n < secret.n ? n + 1 : n);
        if (piece.n < MASKED_MIN)
            continue;
        for (size_t from = 0; (at = cm_str_find(cm_str_from(text, from), piece)) != SIZE_MAX;
             from += at + 3)
            text = cm_arena_printf(arena, CM_PRI "***" CM_PRI, CM_ARG(cm_str_head(text, from + at)),
                                   CM_ARG(cm_str_from(text, from + at + piece.n)));
    }
    return text;
}

static struct cm_str masked(struct probe *p, struct cm_arena *arena, struct cm_str text)
{
    return without(arena, without(arena, without(arena, text, p->cred.secret), p->cred.token),
                   p->token);
}

static void put_member(struct cm_buf *out, const char *name, struct cm_str value)
{
    if (value.n == 0)
        return;
    cm_buf_printf(out, ",\"%s\":", name);
    cm_json_put_str(out, value);
}

static void put_number(struct cm_buf *out, const char *name, int64_t value)
{
    cm_buf_printf(out, ",\"%s\":%lld", name, (long long)value);
}

static void on_trace(void *arg, const struct cm_trace *t)
{
    struct probe *p = arg;
    struct cm_arena texts = {0};
    struct cm_buf *out = &p->steps;
    bool sends_secrets = !cm_str_eq(p->flow, CM_S("chat")) && strcmp(t->what, "ask") == 0;

    if (++p->n_steps > STEPS_MAX)
        return;
    cm_buf_append(out, out->n ? CM_S(",{\"what\":") : CM_S("{\"what\":"));
    cm_json_put_z(out, t->what);
    put_number(out, "ms", t->ms);
    put_member(out, "state", cm_str_of(t->state));
    if (t->status)
        put_number(out, "status", t->status);
    if (t->bytes)
        put_number(out, "bytes", (int64_t)t->bytes);
    put_member(out, "text", masked(p, &texts, t->text));
    if (!sends_secrets)
        put_member(out, "piece", masked(p, &texts, t->piece));
    cm_buf_put(out, '}');
    cm_arena_clear(&texts);
}

/* ---- the run ---- */

static void on_event(void *arg, const struct cm_event *ev)
{
    struct probe *p = arg;

    if (ev->kind == CM_EVENT_TEXT || ev->kind == CM_EVENT_RELAY)
        cm_buf_append(&p->answer, cm_str_head(ev->text, ANSWER_MAX - p->answer.n));
    else if (ev->kind == CM_EVENT_IMAGE)
        cm_event_put_markdown(ev, &p->answer);
}

static void on_model(void *arg, const struct cm_model_row *row)
{
    struct probe *p = arg;

    (void)row;
    p->n_models++;
}

static void on_token(void *arg, struct cm_str token, int64_t expires_unix_ms)
{
    struct probe *p = arg;

    p->token = cm_secret_in(&p->arena, token);
    p->token_expires_ms = expires_unix_ms;
}

static void on_quota(void *arg, struct cm_str json)
{
    struct probe *p = arg;

    cm_buf_reset(&p->quota);
    cm_buf_append(&p->quota, json);
}

static void probe_free(struct probe *p)
{
    cm_list_remove(&p->link);
    cm_buf_clear(&p->steps);
    cm_buf_clear(&p->answer);
    cm_buf_clear(&p->quota);
    cm_arena_clear(&p->arena);
    snapshot_unref(p->snap);
    free(p);
}

static void on_released(void *arg)
{
    struct probe *p = arg;
    struct cm_gateway *gw = p->gw;

    probe_free(p);
    gateway_attempt_over(gw);
}

static void report(struct probe *p, const struct cm_err *err)
{
    struct cm_buf out = {0};

    cm_buf_printf(&out, "{\"ok\":%s", err ? "false" : "true");
    put_member(&out, "provider", p->in->name);
    put_member(&out, "type", cm_str_of(p->in->adapter->name));
    put_member(&out, "credential", p->cred.label);
    put_member(&out, "flow", p->flow);
    if (p->target)
        put_member(&out, "model", p->target->model);
    put_number(&out, "ms", (int64_t)(cm_mono_us() - p->began_us) / 1000);
    if (err) {
        cm_buf_append(&out, CM_S(",\"error\":{\"class\":"));
        cm_json_put_z(&out, cm_err_info(err->cls)->name);
        put_member(&out, "message", masked(p, &p->arena, cm_str_of(err->msg)));
        cm_buf_put(&out, '}');
    }
    put_member(&out, "answer", masked(p, &p->arena, cm_buf_str(&p->answer)));
    if (p->n_models)
        put_number(&out, "models", (int64_t)p->n_models);
    if (p->quota.n > 0) {
        cm_buf_append(&out, CM_S(",\"quota\":"));
        cm_buf_append(&out, cm_buf_str(&p->quota));
    }
    if (p->n_steps > STEPS_MAX)
        put_number(&out, "steps_left_out", (int64_t)(p->n_steps - STEPS_MAX));
    cm_buf_append(&out, CM_S(",\"steps\":["));
    cm_buf_append(&out, cm_buf_str(&p->steps));
    cm_buf_append(&out, CM_S("]}"));
    p->done(p->arg, cm_buf_str(&out), NULL);
    cm_buf_clear(&out);
}

static void on_end(void *arg, const struct cm_err *err)
{
    struct probe *p = arg;
    struct cm_run *run = p->run;

    if (p->token.n > 0)
        creds_store_token(p->gw, p->cred.id, p->cred.secret, p->token, p->token_expires_ms);
    report(p, err);
    p->run = NULL;
    cm_run_close(run, on_released, p);
}

static const struct cm_run_cb run_cb = {.on_event = on_event, .on_end = on_end};

/* ---- which account, which flow, which question ---- */

struct pick {
    struct probe *p;
    bool found, good;
};

static void take(struct pick *pick, const struct cm_cred_info *c)
{
    struct probe *p = pick->p;

    pick->found = true;
    pick->good = c->state == CM_CRED_STATE_OK;
    p->cred = (struct cm_cred){.id = c->id,
                               .secret = cm_secret_in(&p->arena, c->secret),
                               .token = cm_secret_in(&p->arena, c->token),
                               .label = cm_arena_str(&p->arena, c->label),
                               .proxy = cm_secret_in(&p->arena, c->proxy),
                               .isolation = cm_arena_str(&p->arena, c->isolation)};
}

/* The first that works, else the first. */
static void consider(void *arg, const struct cm_cred_info *c)
{
    struct pick *pick = arg;

    if (!pick->found || (!pick->good && c->state == CM_CRED_STATE_OK))
        take(pick, c);
}

static int pick_credential(struct probe *p, uint64_t id, struct cm_err *err)
{
    struct pick pick = {.p = p};
    struct cm_cred_info c;

    if (id && (!cm_pool_get(p->gw->pool, id, &c) || !cm_str_eq(c.provider, p->in->name)))
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "credential",
                             CM_PRI " has no credential %llu", CM_ARG(p->in->name),
                             (unsigned long long)id);
    if (id)
        take(&pick, &c);
    else
        cm_pool_each(p->gw->pool, p->in->name, consider, &pick);
    if (!pick.found)
        return cm_fail(err, CM_ERR_BAD_REQUEST, CM_PRI " has no credentials", CM_ARG(p->in->name));
    return 0;
}

/* The provider's first model that answers with text. */
static struct cm_str some_model(const struct probe *p)
{
    const struct listed *listed = cm_map_get(&p->gw->listed, p->in->name);

    for (size_t i = 0; i < p->in->n_rows; i++)
        if (!(p->in->rows[i].features & CM_MODEL_IMAGE_OUT))
            return p->in->rows[i].name;
    return listed && listed->n_rows > 0 ? listed->rows[0].name : CM_STR_NONE;
}

static int make_chat(struct probe *p, struct cm_str model, struct cm_str question,
                     struct cm_err *err)
{
    struct cm_buf body = {0};
    int rc;

    if (model.n == 0)
        model = some_model(p);
    if (model.n == 0)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "model",
                             "the models of " CM_PRI " are not known: name one",
                             CM_ARG(p->in->name));
    cm_buf_append(&body, CM_S("{\"model\":"));
    cm_json_put_str(
        &body, cm_arena_printf(&p->arena, CM_PRI "/" CM_PRI, CM_ARG(p->in->name), CM_ARG(model)));
    cm_buf_append(&body, CM_S(",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":"));
    cm_json_put_str(&body, question.n > 0 ? question : CM_S("Say hello in one short sentence."));
    cm_buf_append(&body, CM_S("}]}"));
    p->chat.arena = &p->arena;
    rc = cm_surface_openai_chat.parse(&p->chat, cm_arena_str(&p->arena, cm_buf_str(&body)), err);
    cm_buf_clear(&body);
    if (rc == 0 && cm_models_find(p->snap->models, &p->arena, p->chat.model, &p->target, err) == 0)
        return -1;
    return rc;
}

static const struct cm_flow *find_flow(const struct probe *p, struct cm_err *err)
{
    const struct cm_provider *a = p->in->adapter;
    const struct {
        const char *name;
        const struct cm_flow *flow;
    } flows[] = {{"chat", &a->chat},
                 {"refresh", &a->refresh},
                 {"login", &a->login},
                 {"check", &a->probe},
                 {"models", &a->models_list}};

    for (size_t i = 0; i < CM_COUNT(flows); i++)
        if (cm_str_eq(p->flow, cm_str_of(flows[i].name)) && flows[i].flow->step)
            return flows[i].flow;
    cm_fail_param(err, CM_ERR_BAD_REQUEST, "flow", "the adapter %s has no flow \"" CM_PRI "\"",
                  a->name, CM_ARG(cm_str_head(p->flow, 40)));
    return NULL;
}

void cm_gateway_probe(struct cm_gateway *gw, const struct cm_probe_ask *ask,
                      cm_gateway_probed_fn *done, void *arg)
{
    const struct cm_instance *in = cm_gateway_instance(gw, ask->provider);
    struct probe *p = CM_NEW(struct probe);
    const struct cm_flow *flow = NULL;
    struct cm_run_setup setup;
    struct cm_err err = {0};

    *p = (struct probe){.gw = gw,
                        .snap = snapshot_ref(gw->now),
                        .in = in,
                        .began_us = cm_mono_us(),
                        .done = done,
                        .arg = arg};
    cm_list_init(&p->link);
    p->flow = ask->flow.n > 0 ? cm_arena_str(&p->arena, ask->flow) : CM_S("chat");
    if (!in)
        cm_fail(&err, CM_ERR_NOT_FOUND, "there is no provider \"" CM_PRI "\"",
                CM_ARG(cm_str_head(ask->provider, 80)));
    else if (pick_credential(p, ask->credential, &err) == 0)
        flow = find_flow(p, &err);
    if (flow && flow == &in->adapter->chat && make_chat(p, ask->model, ask->question, &err) < 0)
        flow = NULL;
    if (!flow) {
        done(arg, CM_STR_NONE, &err);
        probe_free(p);
        return;
    }
    setup = (struct cm_run_setup){.flow = flow,
                                  .instance = in,
                                  .chat = p->target ? &p->chat : NULL,
                                  .target = p->target,
                                  .cred = p->cred,
                                  .id = CM_S("probe"),
                                  .on_model = on_model,
                                  .on_token = on_token,
                                  .on_quota = on_quota,
                                  .on_trace = on_trace};
    cm_list_push(&gw->probes, &p->link);
    gw->attempts_out++;
    p->run = cm_run_open(gw->host, &setup, &run_cb, p);
}

void probes_stop(struct cm_gateway *gw)
{
    CM_LIST_EACH(&gw->probes, link)
    {
        struct probe *p = CM_LIST_ITEM(link, struct probe, link);
        struct cm_run *run = p->run;
        struct cm_err err = {0};

        p->run = NULL;
        if (!run)
            continue;
        cm_fail(&err, CM_ERR_SHUTTING_DOWN, "the gateway is shutting down");
        p->done(p->arg, CM_STR_NONE, &err);
        cm_run_close(run, on_released, p);
    }
}
