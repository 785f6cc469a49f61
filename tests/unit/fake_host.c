/* A transport for runs that tests play: everything it hands out is memory of its own that dies with the call, so that AddressSanitizer sees who keeps
 * a slice. */
#include "fake_host.h"

#include "chatmux/base/mem.h"
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

/* As in httpc, an error belongs to the transfer and goes with it. */
struct cm_xfer {
    struct cm_list link; /* in fake.opened */
    struct fake *f;
    const struct cm_xfer_cb *cb;
    const struct cm_ws_cb *ws_cb; /* NULL: no WebSocket */
    void *arg;
    struct cm_xfer_req req;
    char *body; /* what req.body must still hold while the transfer is open */
    const struct fake_answer *answer;
    struct cm_task task;
    size_t at;
    struct cm_err *err;
    bool headed, ended, paused, closed;
};

struct cm_ws {
    struct cm_xfer x;
};

/* ---- what a transfer tells ---- */

static void check_body(const struct cm_xfer *x)
{
    if (x->req.body.n > 0)
        ck_quick(memcmp(x->body, x->req.body.p, x->req.body.n) == 0);
}

static void tell_head(struct cm_xfer *x, int status, const char *text)
{
    struct cm_str rest = cm_str_of(text);
    char *lines = cm_str_dup(rest);
    struct cm_header *headers;
    size_t n = 0, cap = 1;

    for (const char *p = lines; *p; p++)
        cap += *p == '\n';
    headers = cm_calloc(cap, sizeof(*headers));
    rest = cm_str_of(lines);
    while (rest.n > 0) {
        struct cm_str value = cm_str_cut(&rest, '\n'), name = cm_str_cut(&value, ':');

        headers[n++] = (struct cm_header){cm_str_trim(name), cm_str_trim(value)};
    }
    x->headed = true;
    x->cb->on_head(x->arg, status, headers, n);
    free(headers);
    free(lines);
}

static void tell_data(struct cm_xfer *x, struct cm_str piece)
{
    char *copy = cm_str_dup(piece);

    ck_quick(!x->paused);
    check_body(x);
    x->cb->on_data(x->arg, cm_str(copy, piece.n));
    free(copy);
}

static struct cm_err *make_error(struct cm_xfer *x, enum cm_err_class cls)
{
    x->err = CM_NEW(struct cm_err);
    cm_fail(x->err, cls, "scripted: %s", cm_err_info(cls)->name);
    return x->err;
}

static void tell_end(struct cm_xfer *x, enum cm_err_class cls)
{
    ck_quick(!x->ended);
    x->ended = true;
    check_body(x);
    x->cb->on_end(x->arg, cls == CM_ERR_NONE ? NULL : make_error(x, cls));
}

static void on_deliver(void *arg)
{
    struct cm_xfer *x = arg;
    const struct fake_answer *a = x->answer;
    struct fake *f = x->f;

    if (!x->headed) {
        if (a->rest == FAKE_NOTHING)
            tell_end(x, CM_ERR_UPSTREAM_DOWN);
        else
            tell_head(x, a->status, a->headers);
        if (!x->closed && !x->ended)
            cm_task_post(f->loop, &x->task);
        return;
    }
    while (!x->closed && !x->paused && x->at < a->body.n) {
        struct cm_str piece =
            cm_str_head(cm_str_from(a->body, x->at), f->piece ? f->piece : SIZE_MAX);

        x->at += piece.n;
        tell_data(x, piece);
    }
    if (x->closed || x->paused || x->ended || a->rest == FAKE_SILENT)
        return;
    tell_end(x, a->rest == FAKE_BREAKS ? CM_ERR_CUT : CM_ERR_NONE);
}

/* ---- the transport ---- */

static void note_call(struct fake *f, const struct cm_xfer_req *req, bool ws)
{
    struct fake_call *call = &f->calls[f->n_calls];
    struct cm_buf headers = {0};

    ck_assert_uint_lt(f->n_calls, FAKE_CALLS_MAX);
    f->n_calls++;
    for (size_t i = 0; i < req->n_headers; i++)
        cm_buf_printf(&headers, CM_PRI ": " CM_PRI "\n", CM_ARG(req->headers[i].name),
                      CM_ARG(req->headers[i].value));
    *call = (struct fake_call){.ws = ws,
                               .method = cm_arena_str(&f->arena, req->method),
                               .url = cm_arena_str(&f->arena, req->url),
                               .headers = cm_arena_str(&f->arena, cm_buf_str(&headers)),
                               .body = cm_arena_str(&f->arena, req->body),
                               .isolation = cm_arena_str(&f->arena, req->isolation),
                               .proxy = cm_arena_str(&f->arena, req->proxy)};
    cm_buf_clear(&headers);
}

static void begin(struct cm_xfer *x, struct fake *f, const struct cm_xfer_req *req, void *arg)
{
    ck_assert(!f->xfer && !f->ws); /* one thing at a time */
    x->f = f;
    x->arg = arg;
    x->req = *req;
    x->body = cm_str_dup(req->body);
    cm_list_push(&f->opened, &x->link);
    cm_task_init(&x->task, on_deliver, x);
    f->held = false;
}

static struct cm_xfer *xfer_open(void *arg, const struct cm_xfer_req *req,
                                 const struct cm_xfer_cb *cb, void *cb_arg)
{
    struct fake *f = arg;
    struct cm_xfer *x = &CM_NEW(struct cm_ws)->x;

    begin(x, f, req, cb_arg);
    x->cb = cb;
    f->xfer = x;
    if (f->answers) {
        ck_assert_uint_lt(f->n_calls, f->n_answers);
        x->answer = &f->answers[f->n_calls];
        cm_task_post(f->loop, &x->task);
    }
    note_call(f, req, false);
    return x;
}

static void xfer_pause(void *arg, struct cm_xfer *x)
{
    (void)arg;
    ck_assert(!x->closed);
    x->paused = x->f->held = true;
}

static void xfer_resume(void *arg, struct cm_xfer *x)
{
    (void)arg;
    ck_assert(!x->closed);
    x->paused = x->f->held = false;
    if (x->answer && !x->ended)
        cm_task_post(x->f->loop, &x->task);
}

static void xfer_close(void *arg, struct cm_xfer *x)
{
    struct fake *f = arg;

    ck_assert(!x->closed);
    x->closed = true;
    f->xfer = NULL;
    f->ws = NULL;
    cm_task_cancel(&x->task);
    free(x->err), x->err = NULL;
}

static struct cm_ws *ws_open(void *arg, const struct cm_xfer_req *req, size_t max_message,
                             const struct cm_ws_cb *cb, void *cb_arg)
{
    struct fake *f = arg;
    struct cm_ws *ws = CM_NEW(struct cm_ws);

    ck_assert_uint_gt(max_message, 0);
    begin(&ws->x, f, req, cb_arg);
    ws->x.ws_cb = cb;
    f->ws = ws;
    note_call(f, req, true);
    return ws;
}

static size_t ws_send(void *arg, struct cm_ws *ws, struct cm_str message, bool binary)
{
    struct fake *f = arg;

    (void)binary;
    ck_assert(!ws->x.closed);
    cm_buf_append(&f->ws_sent, message);
    cm_buf_put(&f->ws_sent, '\n');
    return f->ws_queued;
}

static void ws_ping(void *arg, struct cm_ws *ws)
{
    struct fake *f = arg;

    ck_assert(!ws->x.closed);
    f->ws_pings++;
}

static void ws_say_close(void *arg, struct cm_ws *ws, int code, struct cm_str reason)
{
    struct fake *f = arg;

    ck_assert(!ws->x.closed);
    f->ws_code = code;
    cm_buf_append(&f->ws_reason, reason);
}

static void ws_pause(void *arg, struct cm_ws *ws)
{
    xfer_pause(arg, &ws->x);
}

static void ws_resume(void *arg, struct cm_ws *ws)
{
    xfer_resume(arg, &ws->x);
}

static void ws_close(void *arg, struct cm_ws *ws)
{
    xfer_close(arg, &ws->x);
}

/* ---- by hand ---- */

void fake_head(struct fake *f, int status, const char *headers)
{
    ck_assert_ptr_nonnull(f->xfer);
    tell_head(f->xfer, status, headers);
}

void fake_data(struct fake *f, struct cm_str piece)
{
    ck_assert_ptr_nonnull(f->xfer);
    tell_data(f->xfer, piece);
}

void fake_end(struct fake *f)
{
    ck_assert_ptr_nonnull(f->xfer);
    tell_end(f->xfer, CM_ERR_NONE);
}

void fake_fail(struct fake *f, enum cm_err_class cls)
{
    ck_assert_ptr_nonnull(f->xfer);
    tell_end(f->xfer, cls);
}

void fake_ws_open(struct fake *f)
{
    ck_assert_ptr_nonnull(f->ws);
    f->ws->x.ws_cb->on_open(f->ws->x.arg);
}

void fake_ws_message(struct fake *f, struct cm_str message, bool binary)
{
    char *copy = cm_str_dup(message);

    ck_assert_ptr_nonnull(f->ws);
    f->ws->x.ws_cb->on_message(f->ws->x.arg, cm_str(copy, message.n), binary);
    free(copy);
}

void fake_ws_end(struct fake *f, int code)
{
    ck_assert_ptr_nonnull(f->ws);
    f->ws->x.ws_cb->on_end(f->ws->x.arg, code, CM_STR_NONE, NULL);
}

void fake_ws_refuse(struct fake *f, int status, const char *headers)
{
    struct cm_xfer x = {.arg = f->ws->x.arg,
                        .cb = &(struct cm_xfer_cb){f->ws->x.ws_cb->on_head, NULL, NULL}};

    tell_head(&x, status, headers);
    f->ws->x.ws_cb->on_end(f->ws->x.arg, status, CM_STR_NONE,
                           make_error(&f->ws->x, CM_ERR_UPSTREAM_DOWN));
}

void fake_ws_pong(struct fake *f)
{
    f->ws->x.ws_cb->on_pong(f->ws->x.arg);
}

void fake_ws_drain(struct fake *f)
{
    f->ws->x.ws_cb->on_drain(f->ws->x.arg);
}

void fake_ws_fail(struct fake *f, enum cm_err_class cls)
{
    ck_assert_ptr_nonnull(f->ws);
    f->ws->x.ws_cb->on_end(f->ws->x.arg, 0, CM_STR_NONE, make_error(&f->ws->x, cls));
}

/* ---- what the adapter says ---- */

static void on_event(void *arg, const struct cm_event *ev)
{
    struct fake *f = arg;

    ck_quick(f->run && !f->ended);
    f->n_events++;
    if (cm_event_semantic(ev) && f->n_semantic++ == 0)
        f->relay_before = f->relay.n;
    if (ev->kind == CM_EVENT_TEXT)
        cm_buf_append(&f->text, ev->text);
    if (ev->kind == CM_EVENT_RELAY)
        cm_buf_append(&f->relay, ev->text);
    if (ev->kind == CM_EVENT_USAGE) {
        f->usage = *ev->usage;
        f->n_usages++;
    }
    if (ev->kind == CM_EVENT_HEAD) {
        f->head_status = ev->status;
        f->n_heads++;
    }
    if (f->on_event)
        f->on_event(f, ev);
}

static void on_batch(void *arg)
{
    struct fake *f = arg;

    ck_quick(f->run && !f->ended);
    f->n_batches++;
    if (f->on_batch)
        f->on_batch(f);
}

static void on_run_drain(void *arg)
{
    struct fake *f = arg;

    f->n_drains++;
}

static void on_end(void *arg, const struct cm_err *err)
{
    struct fake *f = arg;

    ck_assert(f->run && !f->ended);
    f->ended = true;
    if (err)
        f->err = *err;
    if (f->answers)
        cm_loop_stop(f->loop);
    if (f->on_end)
        f->on_end(f);
}

static void on_dropped(void *arg, struct cm_str field)
{
    struct fake *f = arg;

    if (f->on_dropped)
        f->on_dropped(f, field);
}

static void on_model(void *arg, const struct cm_model_row *row)
{
    struct fake *f = arg;

    cm_buf_append(&f->models, row->name);
    cm_buf_put(&f->models, '\n');
}

static void on_spared(void *arg)
{
    struct fake *f = arg;

    ck_assert(!f->run); /* the owner has gone */
    f->n_spared++;
    if (f->on_spared)
        f->on_spared(f);
}

static void on_quota(void *arg, struct cm_str json)
{
    struct fake *f = arg;

    cm_buf_reset(&f->quota);
    cm_buf_append(&f->quota, json);
}

static void on_token(void *arg, struct cm_str token, int64_t expires_unix_ms)
{
    struct fake *f = arg;

    (void)expires_unix_ms;
    cm_buf_reset(&f->token);
    cm_buf_append(&f->token, token);
}

static const struct cm_run_cb run_cb = {
    .on_event = on_event, .on_batch = on_batch, .on_end = on_end, .on_drain = on_run_drain};

/* ---- the machine ---- */

void fake_init(struct fake *f)
{
    memset(f, 0, sizeof(*f));
    f->loop = cm_loop_new();
    f->jobs = cm_jobs_new(f->loop);
    f->host = (struct cm_host){.loop = f->loop,
                               .jobs = f->jobs,
                               .transport = {.open = xfer_open,
                                             .pause = xfer_pause,
                                             .resume = xfer_resume,
                                             .close = xfer_close,
                                             .ws_open = ws_open,
                                             .ws_send = ws_send,
                                             .ws_ping = ws_ping,
                                             .ws_say_close = ws_say_close,
                                             .ws_pause = ws_pause,
                                             .ws_resume = ws_resume,
                                             .ws_close = ws_close,
                                             .arg = f},
                               .memo = cm_memo_new(&cm_clock_system, 1024 * 1024)};
    cm_list_init(&f->opened);
    f->conf.name = f->instance.name = CM_S("up");
    f->conf.base_url = f->instance.base_url = CM_S("https://up.test/v1");
    f->instance.conf = &f->conf;
    f->instance.arena = &f->arena;
    f->cred = (struct cm_cred){.id = 1, .secret = CM_S("sk-secret"), .label = CM_S("up#1")};
    f->target.weight = 1;
}

void fake_use(struct fake *f, const char *type)
{
    struct cm_problems problems;

    f->conf.type = cm_str_of(type);
    cm_problems_init(&problems, &f->arena);
    ck_assert_msg(cm_instance_init(&f->instance, &f->conf, &f->arena, &problems) == 0, "%.*s",
                  CM_ARG(problems.first->text));
    f->flow = &f->instance.adapter->chat;
}

void fake_chat(struct fake *f, struct cm_str body)
{
    fake_request(f, f->surface ? f->surface : &cm_surface_openai_chat, NULL, body);
}

void fake_request(struct fake *f, const struct cm_surface *surface, const char *content_type,
                  struct cm_str body)
{
    struct cm_err err = {0};

    f->chat = CM_ARENA_NEW(&f->chat_arena, struct cm_chat);
    f->chat->arena = &f->chat_arena;
    f->chat->content_type = cm_str_of(content_type ? content_type : "application/json");
    f->chat->path = cm_str_of(f->path);
    f->chat->query = cm_str_of(f->query);
    body = cm_arena_str(&f->chat_arena, body);
    ck_assert_msg(surface->parse(f->chat, body, &err) == 0, "%s", err.msg);
    if (f->target.model.n == 0)
        f->target.model = cm_arena_str(&f->arena, f->chat->model);
}

void fake_open(struct fake *f)
{
    struct cm_run_setup setup = {.flow = f->flow,
                                 .instance = &f->instance,
                                 .chat = f->chat,
                                 .target = f->chat ? &f->target : NULL,
                                 .cred = f->cred,
                                 .id = CM_S("req_test"),
                                 .scope = f->scope,
                                 .ping_ms = f->ping_ms,
                                 .on_model = on_model,
                                 .on_dropped = on_dropped,
                                 .on_spared = on_spared,
                                 .on_token = on_token,
                                 .on_quota = on_quota};

    f->run = cm_run_open(&f->host, &setup, &run_cb, f);
}

static void on_released(void *arg)
{
    struct fake *f = arg;

    f->n_released++;
    /* What was lent until now goes: a run that still looks at it is seen. */
    memset(&f->instance, 0x5a, sizeof(f->instance));
    memset(&f->conf, 0x5a, sizeof(f->conf));
}

void fake_close(struct fake *f)
{
    struct cm_run *run = f->run;

    f->run = NULL;
    cm_run_close(run, on_released, f);
    cm_arena_clear(&f->chat_arena);
    f->chat = NULL;
}

void fake_play(struct fake *f)
{
    fake_open(f);
    cm_loop_run(f->loop);
    fake_close(f);
    while (f->n_released == 0)
        cm_loop_run(f->loop);
}

static void note(void *arg)
{
    *(bool *)arg = true;
}

void fake_turn(struct fake *f)
{
    struct cm_task task;
    bool over = false;

    cm_task_init(&task, note, &over);
    cm_task_post(f->loop, &task);
    while (!over)
        uv_run(cm_loop_uv(f->loop), UV_RUN_NOWAIT);
}

void fake_wait(struct fake *f, int ms)
{
    struct cm_deadline d;
    bool over = false;

    fake_turn(f); /* the loop's clock may be old */
    cm_deadline_init(&d, note, &over);
    cm_deadline_set(f->loop, &d, cm_loop_now_ms(f->loop) + (uint64_t)ms);
    while (!over)
        uv_run(cm_loop_uv(f->loop), UV_RUN_ONCE);
}

void fake_clear(struct fake *f)
{
    if (f->run)
        fake_close(f);
    cm_jobs_close(f->jobs);
    cm_memo_free(f->host.memo);
    cm_loop_free(f->loop);
    ck_assert_uint_eq(f->n_released, 1);
    CM_LIST_EACH(&f->opened, link)
    {
        struct cm_xfer *x = CM_LIST_ITEM(link, struct cm_xfer, link);

        ck_assert(x->closed);
        free(x->body);
        free(CM_CONTAINER(x, struct cm_ws, x));
    }
    cm_buf_clear(&f->text);
    cm_buf_clear(&f->relay);
    cm_buf_clear(&f->models);
    cm_buf_clear(&f->quota);
    cm_buf_clear(&f->token);
    cm_buf_clear(&f->ws_sent);
    cm_buf_clear(&f->ws_reason);
    cm_arena_clear(&f->chat_arena);
    cm_arena_clear(&f->arena);
}

/* ---- files ---- */

struct cm_str fake_fixture(struct fake *f, const char *name)
{
    struct cm_str path = cm_arena_printf(&f->arena, "tests/fixtures/%s", name);
    FILE *file = fopen(path.p, "re");
    struct cm_buf text = {0};
    struct cm_str kept;
    char piece[4096];
    size_t n;

    ck_assert_msg(file != NULL, "cannot open %s: run from the top of the tree", path.p);
    do {
        n = fread(piece, 1, sizeof(piece), file);
        cm_buf_append(&text, cm_str(piece, n));
    } while (n == sizeof(piece));
    ck_assert_msg(!ferror(file), "cannot read %s", path.p);
    fclose(file);
    kept = cm_arena_str(&f->arena, cm_buf_str(&text));
    cm_buf_clear(&text);
    return kept;
}

struct cm_str fake_crlf(struct fake *f, struct cm_str text)
{
    struct cm_buf out = {0};
    struct cm_str kept;

    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '\n')
            cm_buf_put(&out, '\r');
        cm_buf_put(&out, text.p[i]);
    }
    kept = cm_arena_str(&f->arena, cm_buf_str(&out));
    cm_buf_clear(&out);
    return kept;
}
