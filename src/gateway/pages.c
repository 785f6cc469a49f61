/* Everything that is no chat: models, health, metrics, the greeting at the root. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/version.h"

/* Lists need a date and upstreams tell none: the gateway's own first day. */
#define MODELS_CREATED_S 1763596800

static const struct cm_str json_type = CM_S_INIT("application/json");
static const struct cm_str text_type = CM_S_INIT("text/plain; charset=utf-8");

/* The most that one account has in each purse; -1: there is none. */
struct best {
    int64_t left[CM_PURSES];
};

static void note_credit(void *arg, const struct cm_cred_info *cred)
{
    struct best *best = arg;

    for (size_t i = 0; i < CM_PURSES && cred->enabled; i++) {
        const int64_t left = cred->credit.known ? cred->credit.left[i] : INT64_MAX;

        best->left[i] = left > best->left[i] ? left : best->left[i];
    }
}

/* hixai2api lists what some account of it can pay: nothing without an account. Routes stay, and what several providers serve. */
static size_t only_payable(struct exchange *ex, struct cm_model_listed *models, size_t n)
{
    const struct snapshot *s = ex->snap;
    size_t kept = 0, of = SIZE_MAX; /* whose credit `best` is */
    struct best best = {{0}};

    if ((enum cm_compat)s->config->server.compat != CM_COMPAT_HIXAI2API)
        return n;
    for (size_t i = 0; i < n; i++) {
        const struct cm_model_row *row = models[i].row;
        struct cm_target *targets;
        struct cm_err err;
        bool alone =
            row && cm_models_find(s->models, &ex->arena, models[i].id, &targets, &err) == 1;

        if (alone && targets[0].provider != of) {
            of = targets[0].provider;
            best = (struct best){{-1, -1}};
            cm_pool_each(ex->gw->pool, s->instances[of].name, note_credit, &best);
        }
        if (!alone || best.left[row->purse] >= row->cost)
            models[kept++] = models[i];
    }
    return kept;
}

void serve_models(struct exchange *ex, struct cm_str rest)
{
    struct cm_model_listed *models;
    size_t n = cm_models_list(ex->snap->models, &ex->arena, &models);
    struct cm_buf body = {0};

    (void)rest;
    n = only_payable(ex, models, n);
    if (ex->surface->dialect == CM_DIALECT_GEMINI)
        gemini_list_models(ex, models, n, &body);
    else
        cm_openai_models(models, n, MODELS_CREATED_S, &body);
    exchange_answer(ex, 200, json_type, cm_buf_str(&body));
    cm_buf_clear(&body);
}

void serve_model(struct exchange *ex, struct cm_str rest)
{
    struct cm_model_listed *models, taken = {.id = rest};
    size_t n = cm_models_list(ex->snap->models, &ex->arena, &models), at = 0;
    const struct cm_model_listed *found;
    struct cm_target *targets;
    struct cm_buf body = {0};
    struct cm_err err = {0};

    if (ex->surface->dialect == CM_DIALECT_GEMINI && cm_str_starts(rest, CM_S("models/")))
        taken.id = rest = cm_str_from(rest, sizeof("models/") - 1);
    if (cm_models_find(ex->snap->models, &ex->arena, rest, &targets, &err) == 0) {
        exchange_fail(ex, &err);
        return;
    }
    while (at < n && !cm_str_eq(models[at].id, rest))
        at++;
    taken.owner = ex->snap->offers[targets[0].provider].owner;
    found = at < n ? &models[at] : &taken;
    if (ex->surface->dialect == CM_DIALECT_GEMINI)
        cm_gemini_model(found, &body);
    else
        cm_openai_model(found, MODELS_CREATED_S, &body);
    exchange_answer(ex, 200, json_type, cm_buf_str(&body));
    cm_buf_clear(&body);
}

void serve_healthz(struct exchange *ex, struct cm_str rest)
{
    (void)rest;
    exchange_answer(ex, 200, text_type, CM_S("ok\n"));
}

void serve_readyz(struct exchange *ex, struct cm_str rest)
{
    const char *trouble = ex->gw->store ? cm_store_trouble(ex->gw->store) : NULL;

    (void)rest;
    if (ex->gw->draining)
        exchange_answer(ex, 503, text_type, CM_S("draining\n"));
    else if (trouble) /* serving all the same: only the memory of it suffers */
        exchange_answer(ex, 200, text_type,
                        cm_arena_printf(&ex->arena, "ready, degraded: %s\n", trouble));
    else
        exchange_answer(ex, 200, text_type, CM_S("ready\n"));
}

void serve_metrics(struct exchange *ex, struct cm_str rest)
{
    struct cm_buf body = {0};

    (void)rest;
    cm_metrics_render(ex->gw->metrics, &body);
    exchange_answer(ex, 200, CM_S("text/plain; version=0.0.4; charset=utf-8"), cm_buf_str(&body));
    cm_buf_clear(&body);
}

void serve_root(struct exchange *ex, struct cm_str rest)
{
    const struct cm_config *c = ex->snap->config;
    struct cm_str words = cm_compat_root((enum cm_compat)c->server.compat);

    (void)rest;
    if (words.p) {
        exchange_answer(ex, 200, text_type, words);
        return;
    }
    exchange_answer(
        ex, 200, text_type,
        CM_S("chatmux " CM_VERSION ": an OpenAI-compatible gateway; its base URL ends in /v1\n"));
}
