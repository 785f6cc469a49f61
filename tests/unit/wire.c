/* Adapters on a transport that keeps what is sent and plays one answer. */
#include "wire.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/provider/memo.h"
#include "chatmux/provider/run.h"

#include <stdlib.h>

const char *const wire_names[WIRE_N] = {
#define X(name) #name,
    WIRE_DIALECTS(X)
#undef X
};
const struct cm_surface *const wire_surfaces[WIRE_N] = {&cm_surface_openai_chat,
                                                        &cm_surface_anthropic, &cm_surface_gemini};

struct cm_xfer { /* the only one: this transport's own kind */
    struct wire *w;
    const struct cm_xfer_cb *cb;
    void *arg;
    struct cm_task turn;
    bool open, headed;
};

struct side {
    struct cm_provider_conf conf;
    struct cm_instance instance;
};

struct wire {
    struct cm_arena arena;
    struct cm_loop *loop;
    struct cm_jobs *jobs;
    struct cm_host host;
    struct cm_xfer xfer;
    struct side sides[WIRE_N];

    /* of the run under way */
    struct cm_buf sent;
    bool asked, ended, released;
    const struct wire_answer *answer; /* NULL = there is none */
    struct cm_str rest;               /* of it */
    wire_event_fn *fn;
    void *arg;
    int n_models;
    struct cm_err err;
};

/* ---- the transport ---- */

static void tell(void *arg)
{
    struct cm_xfer *x = arg;
    struct wire *w = x->w;

    if (!x->headed) {
        const struct cm_header type = {CM_S("Content-Type"), w->answer->stream
                                                                 ? CM_S("text/event-stream")
                                                                 : CM_S("application/json")};

        x->headed = true;
        x->cb->on_head(x->arg, w->answer->status ? w->answer->status : 200, &type, 1);
    }
    while (x->open && w->rest.n > 0) {
        const struct cm_str now = cm_str_head(w->rest, w->answer->piece);
        char *copy = cm_str_dup(now); /* reading beyond it is found */

        w->rest = cm_str_from(w->rest, now.n);
        x->cb->on_data(x->arg, cm_str(copy, now.n));
        free(copy);
    }
    if (x->open)
        x->cb->on_end(x->arg, NULL);
}

static struct cm_xfer *xfer_open(void *arg, const struct cm_xfer_req *req,
                                 const struct cm_xfer_cb *cb, void *cb_arg)
{
    struct wire *w = arg;
    struct cm_xfer *x = &w->xfer;

    CM_ASSERT(!x->open);
    *x = (struct cm_xfer){.w = w, .cb = cb, .arg = cb_arg, .open = true};
    cm_task_init(&x->turn, tell, x);
    cm_buf_reset(&w->sent);
    cm_buf_append(&w->sent, req->body);
    w->asked = true;
    if (w->answer)
        cm_task_post(w->loop, &x->turn);
    return x;
}

static void xfer_nothing(void *arg, struct cm_xfer *x)
{
    (void)arg;
    (void)x;
}

static void xfer_close(void *arg, struct cm_xfer *x)
{
    (void)arg;
    cm_task_cancel(&x->turn);
    x->open = false;
}

/* ---- the owner of the runs ---- */

static void on_event(void *arg, const struct cm_event *ev)
{
    struct wire *w = arg;

    if (w->fn)
        w->fn(w->arg, ev);
}

static void on_batch(void *arg)
{
    (void)arg;
}

static void on_end(void *arg, const struct cm_err *err)
{
    struct wire *w = arg;

    w->ended = true;
    if (err)
        w->err = *err;
}

static const struct cm_run_cb run_cb = {
    .on_event = on_event, .on_batch = on_batch, .on_end = on_end};

static void on_released(void *arg)
{
    struct wire *w = arg;

    w->released = true;
}

static void use(struct wire *w, enum wire_dialect d, struct cm_conf_pair *options, size_t n)
{
    struct side *s = &w->sides[d];
    struct cm_problems problems;

    s->conf = (struct cm_provider_conf){.name = cm_str_of(wire_names[d]),
                                        .type = cm_str_of(wire_names[d]),
                                        .base_url = CM_S("https://up.test/v1"),
                                        .options = options,
                                        .n_options = n};
    cm_problems_init(&problems, &w->arena);
    CM_ASSERT(cm_instance_init(&s->instance, &s->conf, &w->arena, &problems) == 0);
}

struct wire *wire_new(void)
{
    static struct cm_conf_pair efforts[] = {
        {.key = CM_S_INIT("reasoning"), .value = CM_S_INIT("reasoning_effort")},
        {.key = CM_S_INIT("efforts"), .value = CM_S_INIT("none low medium high")}};
    struct wire *w = CM_NEW(struct wire);

    w->loop = cm_loop_new();
    w->jobs = cm_jobs_new(w->loop);
    w->host = (struct cm_host){.loop = w->loop,
                               .jobs = w->jobs,
                               .transport = {.open = xfer_open,
                                             .pause = xfer_nothing,
                                             .resume = xfer_nothing,
                                             .close = xfer_close,
                                             .arg = w},
                               .memo = cm_memo_new(&cm_clock_system, 64 * 1024)};
    use(w, WIRE_openai, efforts, CM_COUNT(efforts));
    use(w, WIRE_anthropic, NULL, 0);
    use(w, WIRE_gemini, NULL, 0);
    return w;
}

void wire_free(struct wire *w)
{
    cm_jobs_close(w->jobs);
    cm_memo_free(w->host.memo);
    cm_loop_free(w->loop);
    cm_buf_clear(&w->sent);
    cm_arena_clear(&w->arena);
    free(w);
}

static void on_model(void *arg, const struct cm_model_row *row)
{
    struct wire *w = arg;

    CM_ASSERT(row->name.n > 0);
    w->n_models++;
}

static void run(struct wire *w, enum wire_dialect d, const struct cm_flow *flow,
                const struct cm_chat *chat, const struct wire_answer *answer)
{
    /* sampling, thinking by a budget, schemas: what these take */
    static const struct cm_str models[WIRE_N] = {CM_S_INIT("m"), CM_S_INIT("claude-sonnet-4-5"),
                                                 CM_S_INIT("gemini-2.5-flash")};
    const struct cm_target target = {.model = models[d], .weight = 1};
    const struct cm_run_setup setup = {.flow = flow,
                                       .instance = &w->sides[d].instance,
                                       .chat = chat,
                                       .target = chat ? &target : NULL,
                                       .cred = {.id = 1, .secret = CM_S("s"), .label = CM_S("l")},
                                       .id = CM_S("req"),
                                       .on_model = on_model};
    struct cm_run *r;

    w->asked = w->ended = w->released = false;
    w->err = (struct cm_err){0};
    w->n_models = 0;
    w->answer = answer;
    w->rest = answer ? answer->bytes : CM_STR_NONE;
    r = cm_run_open(&w->host, &setup, &run_cb, w);
    while (!w->ended && !(w->asked && !answer))
        uv_run(cm_loop_uv(w->loop), UV_RUN_NOWAIT);
    cm_run_close(r, on_released, w);
    while (!w->released)
        uv_run(cm_loop_uv(w->loop), UV_RUN_NOWAIT);
    w->fn = NULL;
}

struct cm_str wire_write(struct wire *w, enum wire_dialect d, const struct cm_chat *chat,
                         struct cm_arena *arena, struct cm_err *err)
{
    struct cm_chat asked = *chat;

    asked.translate = true; /* the relay lane is not meant */
    run(w, d, &w->sides[d].instance.adapter->chat, &asked, NULL);
    if (!w->asked) {
        *err = w->err;
        return CM_STR_NONE;
    }
    return cm_arena_str(arena, cm_buf_str(&w->sent));
}

struct cm_chat *wire_parse(enum wire_dialect d, struct cm_str body, bool stream,
                           struct cm_arena *arena, struct cm_err *err)
{
    struct cm_chat *chat = CM_ARENA_NEW(arena, struct cm_chat);

    chat->arena = arena;
    chat->method = CM_S("POST");
    chat->content_type = CM_S("application/json");
    chat->path = stream ? CM_S("m:streamGenerateContent") : CM_S("m:generateContent");
    return wire_surfaces[d]->parse(chat, body, err) ? NULL : chat;
}

int wire_play(struct wire *w, enum wire_dialect d, const struct cm_chat *chat, bool relay,
              const struct wire_answer *answer, wire_event_fn *fn, void *arg, struct cm_err *err)
{
    struct cm_chat asked = *chat;

    asked.translate = !relay;
    w->fn = fn;
    w->arg = arg;
    run(w, d, &w->sides[d].instance.adapter->chat, &asked, answer);
    *err = w->err;
    return w->err.cls == CM_ERR_NONE ? 0 : -1;
}

static void collect(void *arg, const struct cm_event *ev)
{
    struct cm_err err;

    CM_ASSERT(cm_answer_add(arg, ev, &err) == 0);
}

int wire_read(struct wire *w, enum wire_dialect d, const struct cm_chat *chat, struct cm_str bytes,
              bool stream, size_t piece, struct cm_answer *out, struct cm_err *err)
{
    const struct wire_answer answer = {.stream = stream, .bytes = bytes, .piece = piece};

    return wire_play(w, d, chat, false, &answer, collect, out, err);
}

int wire_models(struct wire *w, enum wire_dialect d, const struct wire_answer *answer,
                struct cm_err *err)
{
    run(w, d, &w->sides[d].instance.adapter->models_list, NULL, answer);
    *err = w->err;
    return w->err.cls == CM_ERR_NONE ? w->n_models : -1;
}
