/* A transport that plays replies, and a client that collects events. */
#include "fake_run.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#include <check.h>
#include <stdlib.h>

struct cm_xfer { /* the transport's own kind: run.c only hands it around */
    struct fake *fake;
    const struct fake_reply *reply; /* NULL = the script has no more: never answers */
    const struct cm_xfer_cb *cb;
    void *arg;
    struct cm_str rest; /* of the body */
    struct cm_task turn;
    bool head_sent, ended, paused, closed, delivering;
};

struct fake {
    const struct fake_setup *setup;
    struct fake_result *out;
    struct cm_loop *loop;
    struct cm_run *run;
    struct cm_deadline resume;
    size_t n_opened;
};

static void xfer_close(void *arg, struct cm_xfer *x)
{
    (void)arg;
    cm_task_cancel(&x->turn);
    x->closed = true;
    if (!x->delivering)
        free(x);
}

static void deliver_one(struct cm_xfer *x)
{
    const size_t piece = x->fake->setup->piece ? x->fake->setup->piece : SIZE_MAX;
    const struct fake_reply *r = x->reply;
    struct cm_header headers[2];
    struct cm_err err = {0};
    size_t n = 0;

    if (!x->head_sent && r->end != FAKE_DOWN) {
        x->head_sent = true;
        if (r->content_type)
            headers[n++] = (struct cm_header){CM_S("Content-Type"), cm_str_of(r->content_type)};
        if (r->header)
            headers[n++] = (struct cm_header){cm_str_of(r->header), cm_str_of(r->header_value)};
        x->cb->on_head(x->arg, r->status ? r->status : 200, headers, n);
    } else if (x->rest.n > 0 && r->end != FAKE_DOWN) {
        /* in memory of its own, so that reading beyond the piece is found */
        const struct cm_str now = cm_str_head(x->rest, piece);
        char *copy = cm_str_dup(now);

        x->rest = cm_str_from(x->rest, now.n);
        x->cb->on_data(x->arg, cm_str(copy, now.n));
        free(copy);
    } else {
        x->ended = true;
        if (r->end == FAKE_CUT)
            cm_fail(&err, CM_ERR_CUT, "the connection broke off");
        else if (r->end == FAKE_DOWN)
            cm_fail(&err, CM_ERR_UPSTREAM_DOWN, "connection refused");
        x->cb->on_end(x->arg, err.cls ? &err : NULL);
    }
}

static void xfer_turn(void *arg)
{
    struct cm_xfer *x = arg;

    x->delivering = true;
    while (!x->closed && !x->paused && !x->ended &&
           (!x->head_sent || x->rest.n > 0 || x->reply->end != FAKE_HANG))
        deliver_one(x);
    x->delivering = false;
    if (x->closed)
        free(x);
}

static struct cm_xfer *xfer_open(void *arg, const struct cm_xfer_req *req,
                                 const struct cm_xfer_cb *cb, void *cb_arg)
{
    struct fake *f = arg;
    struct cm_arena *a = &f->out->arena;
    struct cm_xfer *x = CM_NEW(struct cm_xfer);
    struct fake_request *seen;

    ck_assert_uint_lt(f->out->n_requests, FAKE_REQUESTS_MAX);
    seen = &f->out->requests[f->out->n_requests++];
    seen->method = cm_arena_str(a, req->method);
    seen->url = cm_arena_str(a, req->url);
    seen->body = cm_arena_str(a, req->body);
    seen->headers = CM_ARENA_ARRAY(a, struct cm_header, req->n_headers);
    seen->n_headers = req->n_headers;
    for (size_t i = 0; i < req->n_headers; i++) {
        seen->headers[i].name = cm_arena_str(a, req->headers[i].name);
        seen->headers[i].value = cm_arena_str(a, req->headers[i].value);
    }
    *x = (struct cm_xfer){.fake = f, .cb = cb, .arg = cb_arg};
    cm_task_init(&x->turn, xfer_turn, x);
    if (f->n_opened < f->setup->n_replies) {
        x->reply = &f->setup->replies[f->n_opened++];
        x->rest = cm_str_of(x->reply->body);
        cm_task_post(f->loop, &x->turn);
    }
    return x;
}

static void xfer_pause(void *arg, struct cm_xfer *x)
{
    (void)arg;
    x->paused = true;
}

static void xfer_resume(void *arg, struct cm_xfer *x)
{
    struct fake *f = arg;

    x->paused = false;
    if (x->reply && !x->ended && !x->delivering)
        cm_task_post(f->loop, &x->turn);
}

static void on_released(void *arg)
{
    struct fake *f = arg;

    f->out->released = true;
}

static void on_resume(void *arg)
{
    struct fake *f = arg;

    if (f->run)
        cm_run_resume(f->run);
}

static void on_event(void *arg, const struct cm_event *ev)
{
    struct fake *f = arg;
    struct fake_result *out = f->out;
    struct cm_err err;

    out->n_events++;
    ck_assert_uint_eq(cm_utf8_valid(ev->text), ev->text.n);
    out->finished_last = ev->kind == CM_EVENT_FINISH;
    ck_assert_int_eq(cm_answer_add(&out->answer, ev, &err), 0);
    if (out->n_events == f->setup->leave_after) {
        struct cm_run *run = f->run;

        f->run = NULL;
        cm_run_close(run, on_released, f);
    } else if (out->n_events == f->setup->pause_after) {
        cm_run_pause(f->run);
        cm_deadline_set(f->loop, &f->resume, cm_loop_now_ms(f->loop) + 20);
    }
}

static void on_end(void *arg, const struct cm_err *err)
{
    struct fake *f = arg;
    struct cm_run *run = f->run;

    f->out->done = !err;
    if (err)
        f->out->err = *err;
    f->run = NULL;
    cm_run_close(run, NULL, NULL);
}

static struct cm_strs list_of(struct cm_arena *a, const char *const *z)
{
    struct cm_strs list = {0};

    while (z && z[list.n])
        list.n++;
    list.v = CM_ARENA_ARRAY(a, struct cm_str, list.n);
    for (size_t i = 0; i < list.n; i++)
        list.v[i] = cm_str_of(z[i]);
    return list;
}

static void make_conf(struct cm_provider_conf *conf, const struct fake_setup *setup,
                      struct cm_arena *a)
{
    const struct cm_strs options = list_of(a, setup->options);
    const int64_t idle_ms = setup->idle_ms ? setup->idle_ms : 10000;

    *conf = (struct cm_provider_conf){.name = CM_S("p"),
                                      .where = CM_S("test:1"),
                                      .type = cm_str_of(setup->type),
                                      .models = list_of(a, setup->models),
                                      .n_options = options.n / 2};
    conf->options = CM_ARENA_ARRAY(a, struct cm_conf_pair, conf->n_options);
    for (size_t i = 0; i < conf->n_options; i++)
        conf->options[i] = (struct cm_conf_pair){
            .key = options.v[2 * i], .value = options.v[2 * i + 1], .where = CM_S("test:2")};
    conf->upstream.connect_timeout_ms = conf->upstream.response_timeout_ms = idle_ms;
    conf->upstream.idle_timeout_ms = conf->upstream.first_token_timeout_ms = idle_ms;
    conf->upstream.total_timeout_ms = 60000;
}

static void on_token(void *arg, struct cm_str token, int64_t expires_unix_ms)
{
    struct fake *f = arg;

    ck_assert_uint_eq(f->out->token.n, 0); /* once */
    f->out->token = cm_arena_str(&f->out->arena, token);
    f->out->token_expires_ms = expires_unix_ms;
}

static void on_quota(void *arg, struct cm_str json)
{
    struct fake *f = arg;

    f->out->quota = cm_arena_str(&f->out->arena, json);
}

static const struct cm_flow *flow_of(const struct cm_provider *adapter,
                                     const struct fake_setup *setup)
{
    if (setup->refresh)
        return &adapter->refresh;
    if (setup->errand)
        return strcmp(setup->errand, "login") == 0 ? &adapter->login : &adapter->probe;
    return &adapter->chat;
}

void fake_run(const struct fake_setup *setup, struct fake_result *out)
{
    static const struct cm_run_cb cb = {.on_event = on_event, .on_end = on_end};
    struct fake f = {.setup = setup, .out = out};
    struct cm_arena *a = &out->arena;
    struct cm_provider_conf conf;
    struct cm_instance in;
    struct cm_problems problems;
    struct cm_chat chat = {.arena = a, .path = cm_str_of(setup->path)};
    struct cm_target *target;
    struct cm_models *models;
    struct cm_offer offer;
    struct cm_err err = {0};
    struct cm_host host = {.transport = {.open = xfer_open,
                                         .pause = xfer_pause,
                                         .resume = xfer_resume,
                                         .close = xfer_close,
                                         .arg = &f},
                           .memo = setup->memo};
    struct cm_run_setup run = {.instance = &in,
                               .chat = &chat,
                               .id = CM_S("req-1"),
                               .on_token = on_token,
                               .on_quota = on_quota,
                               .scope = cm_str_of(setup->scope ? setup->scope : "")};
    const struct cm_surface *surface = setup->surface ? setup->surface : &cm_surface_openai_chat;

    *out = (struct fake_result){0};
    cm_problems_init(&problems, a);
    make_conf(&conf, setup, a);
    ck_assert_msg(cm_instance_init(&in, &conf, a, &problems) == 0, "%.*s",
                  CM_ARG(problems.first ? problems.first->text : CM_S("?")));
    offer = (struct cm_offer){.provider = conf.name,
                              .rows = in.rows,
                              .n_rows = in.n_rows,
                              .any = in.any || in.listed,
                              .any_features = in.adapter->any_features};
    models = cm_models_new(&offer, 1, NULL, 0, &problems);
    ck_assert_msg(surface->parse(&chat, cm_str_of(setup->body), &err) == 0, "%s", err.msg);
    out->answer.keep_images = cm_task_makes_media(chat.task);
    ck_assert_msg(cm_models_find(models, a, chat.model, &target, &err) > 0, "%s", err.msg);

    run.flow = flow_of(in.adapter, setup);
    run.target = run.flow == &in.adapter->chat ? target : NULL;
    run.chat = run.flow == &in.adapter->chat ? &chat : NULL;
    run.cred = (struct cm_cred){.id = 1,
                                .secret = cm_str_of(setup->secret ? setup->secret : "secret"),
                                .token = cm_str_of(setup->token),
                                .label = CM_S("p#1")};
    host.loop = f.loop = cm_loop_new();
    host.jobs = cm_jobs_new(f.loop);
    cm_deadline_init(&f.resume, on_resume, &f);
    f.run = cm_run_open(&host, &run, &cb, &f);
    out->took_ms = cm_loop_now_ms(f.loop);
    cm_loop_run(f.loop);
    out->took_ms = cm_loop_now_ms(f.loop) - out->took_ms;
    ck_assert_ptr_null(f.run);
    cm_deadline_clear(f.loop, &f.resume);
    cm_jobs_close(host.jobs);
    cm_loop_free(f.loop);
    cm_models_free(models);
}

void fake_result_clear(struct fake_result *r)
{
    cm_answer_clear(&r->answer);
    cm_arena_clear(&r->arena);
}

static const char *z_of(struct fake_result *r, size_t offset)
{
    const struct cm_buf *text;

    if (r->answer.n_choices == 0)
        return "";
    text = (const struct cm_buf *)(const void *)((const char *)&r->answer.choices[0] + offset);
    return cm_arena_z(&r->arena, cm_buf_str(text));
}

const char *fake_text(struct fake_result *r)
{
    return z_of(r, offsetof(struct cm_choice_acc, text));
}

const char *fake_reasoning(struct fake_result *r)
{
    return z_of(r, offsetof(struct cm_choice_acc, reasoning));
}
