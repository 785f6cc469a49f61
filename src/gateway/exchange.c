/* Exchange: one client request from first byte to last.
 *
 * Happy path: begin -> route, key -> read the body -> parse -> targets -> attempt -> events are held until one means something -> head and stream (or one
 * whole answer) -> end: lease back, figures, one log line.
 * Failures: before anything was sent, the next credential, a retry after a pause, the next target, and at last an error answer; afterwards an
 * error inside the stream and the connection's end. The client may leave at any point (on_gone). exchange_end() is the only way out, and safe to reach
 * from everywhere: what is still on the stack finds `ended`. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include <stdlib.h>

#define HOLD_MAX (8u * 1024 * 1024)     /* before anything meant something */
#define PARSE_ON_LOOP_MAX (256u * 1024) /* bytes; more is parsed on another thread */
#define BACKOFF_FIRST_MS 500
#define BACKOFF_MAX_MS 8000

/* Parsing of a big body: the exchange's memory belongs to the thread until `done`. */
struct parse_job {
    struct cm_job job; /* first */
    struct exchange *ex;
    struct cm_err err;
    bool failed;
};

static void try_next(struct exchange *ex);
static void write_out(struct exchange *ex, struct cm_str bytes);

const char *outcome_name(enum outcome o)
{
    static const char *const names[] = {
#define X(name, text) text,
        EXCHANGE_OUTCOMES(X)
#undef X
    };

    return names[o];
}

const char *phase_name(enum phase p)
{
    static const char *const names[] = {
#define X(name, text) text,
        EXCHANGE_PHASES(X)
#undef X
    };

    return names[p];
}

static struct cm_loop *loop_of(const struct exchange *ex)
{
    return ex->gw->host->loop;
}

static const struct cm_instance *target_instance(const struct exchange *ex)
{
    return &ex->snap->instances[ex->targets[ex->target].provider];
}

/* ---- the end ---- */

static void exchange_free(struct exchange *ex)
{
    if (ex->stream)
        ex->surface->stream_clear(ex->stream);
    cm_answer_clear(&ex->answer);
    cm_buf_clear(&ex->hold);
    cm_buf_clear(&ex->tries);
    cm_key_unref(ex->client_key);
    cm_arena_clear(&ex->arena); /* the parsed body first, then what it was parsed from */
    cm_buf_clear(&ex->body);
    snapshot_unref(ex->snap);
    free(ex);
}

/* Figures the upstream did not tell are estimated; an answer that broke off has at least what was seen. */
static void settle_usage(struct exchange *ex, enum outcome outcome)
{
    if (ex->usage.source == CM_USAGE_UPSTREAM || !ex->chat || ex->attempts == 0 ||
        outcome == OUTCOME_ERROR)
        return;
    if (ex->usage.in_uncached == 0)
        ex->usage.in_uncached = cm_chat_estimate_tokens(ex->chat);
    ex->usage.source = outcome == OUTCOME_OK ? CM_USAGE_ESTIMATED : CM_USAGE_PARTIAL;
}

/* What was reserved for the key becomes what was used; without figures it is given back. */
static void settle_reservation(struct exchange *ex)
{
    const struct cm_price *price;

    if (ex->usage.source == CM_USAGE_NONE) {
        cm_key_release(&ex->reservation);
        return;
    }
    price = cm_price_find(ex->snap->prices, ex->targets[ex->target].model);
    if (!price)
        price = cm_price_find(ex->snap->prices, ex->chat->model);
    ex->cost_micro_usd = cm_price_cost(price, &ex->usage, 0);
    cm_key_settle(&ex->reservation, cm_usage_in(&ex->usage) + cm_usage_out(&ex->usage),
                  ex->cost_micro_usd);
}

/* Exactly once per exchange. The request, if there still is one, has got its answer. */
static void exchange_end(struct exchange *ex, enum outcome outcome, const struct cm_err *err)
{
    CM_ASSERT(!ex->ended && !ex->attempt);
    ex->ended = true;
    ex->req = NULL;
    cm_deadline_clear(loop_of(ex), &ex->wait);
    cm_deadline_clear(loop_of(ex), &ex->alive);
    cm_list_remove(&ex->link);
    if (ex->waiting)
        cm_pool_wait_cancel(ex->waiting);
    if (ex->web)
        web_gone(ex);
    if (ex->head_sent) /* only streams have one of their own; `chat` may still be another thread's */
        report_streams(ex->gw, -1);
    settle_usage(ex, outcome);
    settle_reservation(ex);
    report_exchange(ex, outcome, err);
    if (ex->parsing)
        cm_job_cancel(ex->gw->host->jobs, &ex->parsing->job); /* its done() frees */
    else
        exchange_free(ex);
}

static void end_attempt(struct exchange *ex, const struct cm_err *verdict, bool blame,
                        bool cancelled)
{
    struct attempt *a = ex->attempt;

    if (!a)
        return;
    ex->attempt = NULL;
    ex->served_by = cm_arena_str(&ex->arena, attempt_label(a));
    ex->served_by_id = attempt_credential(a);
    attempt_end(a, verdict, blame, cancelled);
}

/* It served well. */
static void attempt_served(struct exchange *ex)
{
    end_attempt(ex, NULL, false, false);
}

/* Nobody wants its answer any more. */
static void attempt_drop(struct exchange *ex)
{
    end_attempt(ex, NULL, false, true);
}

/* What the request knows is lost when its response ends. */
static void note_bytes(struct exchange *ex)
{
    ex->bytes_in = ex->req->bytes_in;
}

static void finish_response(struct exchange *ex, bool clean)
{
    struct cm_req *req = ex->req;

    if (!req)
        return;
    note_bytes(ex);
    ex->req = NULL;
    if (clean)
        cm_resp_end(req);
    else
        cm_resp_abort(req);
}

void exchange_answer(struct exchange *ex, int status, struct cm_str content_type,
                     struct cm_str body)
{
    struct respond r;

    respond_begin(&r, ex);
    respond_add(&r, CM_S("content-type"), content_type);
    ex->status = status;
    note_bytes(ex);
    ex->bytes_out = body.n;
    cm_resp_send(ex->req, status, r.v, r.n, body);
    exchange_end(ex, OUTCOME_OK, NULL);
}

static void fail(struct exchange *ex, const struct cm_err *err, bool spent)
{
    enum outcome outcome = ex->committed ? OUTCOME_CUT : OUTCOME_ERROR;
    struct cm_err why = *err; /* err may live in what is dropped below */

    attempt_drop(ex);
    if (ex->req && ex->head_sent) {
        struct cm_buf out = {0};

        ex->surface->stream_error(ex->stream, &why, &out);
        write_out(ex, cm_buf_str(&out));
        cm_buf_clear(&out);
        finish_response(ex, false);
    } else if (ex->req) {
        note_bytes(ex);
        respond_error(ex, &why, spent);
    }
    exchange_end(ex, ex->abandoned ? OUTCOME_CLIENT_GONE : outcome, &why);
}

void exchange_fail(struct exchange *ex, const struct cm_err *err)
{
    fail(ex, err, false);
}

/* ---- towards the client ---- */

static void write_out(struct exchange *ex, struct cm_str bytes)
{
    if (!ex->req || bytes.n == 0)
        return;
    ex->bytes_out += bytes.n;
    if (cm_resp_write(ex->req, bytes) > CM_HTTPD_HIGH && ex->attempt)
        attempt_pause(ex->attempt, true);
}

static void send_head(struct exchange *ex)
{
    struct respond r;

    respond_begin(&r, ex);
    respond_add(&r, CM_S("content-type"), CM_S("text/event-stream; charset=utf-8"));
    respond_add(&r, CM_S("cache-control"), CM_S("no-cache"));
    respond_add(&r, CM_S("x-accel-buffering"), CM_S("no"));
    ex->head_sent = true;
    ex->status = 200;
    report_streams(ex->gw, +1);
    if (ex->req)
        cm_resp_start(ex->req, 200, r.v, r.n);
}

static void alive_arm(struct exchange *ex)
{
    const struct cm_config *c = ex->snap->config;
    uint64_t now_ms = cm_loop_now_ms(loop_of(ex));

    if (!ex->head_sent && c->stream.commit_after_ms > 0)
        cm_deadline_set(loop_of(ex), &ex->alive, now_ms + (uint64_t)c->stream.commit_after_ms);
    else if (ex->head_sent && c->stream.keepalive_ms > 0)
        cm_deadline_set(loop_of(ex), &ex->alive, ex->sent_ms + (uint64_t)c->stream.keepalive_ms);
}

/* From here on a failure is told inside the stream. */
static void commit(struct exchange *ex)
{
    ex->committed = true;
    if (!ex->head_sent)
        send_head(ex);
    if (ex->relay) {
        write_out(ex, cm_buf_str(&ex->hold));
        cm_buf_clear(&ex->hold);
    }
    ex->sent_ms = cm_loop_now_ms(loop_of(ex));
    alive_arm(ex);
}

static void on_alive(void *arg)
{
    struct exchange *ex = arg;
    uint64_t now_ms = cm_loop_now_ms(loop_of(ex)),
             pause_ms = (uint64_t)ex->snap->config->stream.keepalive_ms;

    if (!ex->req)
        return;
    if (!ex->head_sent || now_ms - ex->sent_ms >= pause_ms) {
        bool reads =
            cm_resp_queued(ex->req) == 0; /* a client that does not read needs no more to read */

        if (!ex->head_sent)
            send_head(ex); /* commit_after: proxies in front want to see something */
        if (reads)
            write_out(ex, ex->surface->keepalive);
        cm_resp_flush(ex->req);
        ex->sent_ms = now_ms;
    }
    alive_arm(ex);
}

void exchange_flush(struct exchange *ex)
{
    if (!ex->committed || !ex->req)
        return;
    if (ex->hold.n > 0) {
        write_out(ex, cm_buf_str(&ex->hold));
        cm_buf_reset(&ex->hold);
    }
    ex->sent_ms = cm_loop_now_ms(loop_of(ex));
    cm_resp_flush(ex->req);
}

/* ---- from the upstream ---- */

static bool passes(struct cm_str name)
{
    static const struct cm_str prefixes[] = {
        CM_S_INIT("x-ratelimit-"), CM_S_INIT("openai-processing-ms"), CM_S_INIT("openai-version"),
        CM_S_INIT("anthropic-ratelimit-")};

    for (size_t i = 0; i < CM_COUNT(prefixes); i++)
        if (cm_str_starts_nocase(name, prefixes[i]))
            return true;
    return false;
}

static void keep_headers(struct exchange *ex, const struct cm_event *ev)
{
    ex->passed = CM_ARENA_ARRAY(&ex->arena, struct cm_header, ev->n_headers);
    ex->n_passed = 0;
    for (size_t i = 0; i < ev->n_headers; i++)
        if (passes(ev->headers[i].name) && cm_header_value_ok(ev->headers[i].value))
            ex->passed[ex->n_passed++] =
                (struct cm_header){cm_arena_str(&ex->arena, ev->headers[i].name),
                                   cm_arena_str(&ex->arena, ev->headers[i].value)};
}

static void count_output(struct exchange *ex, const struct cm_event *ev)
{
    if (ex->usage.source == CM_USAGE_UPSTREAM)
        return;
    if (ev->kind == CM_EVENT_TEXT || ev->kind == CM_EVENT_TOOL_ARGS)
        ex->usage.out_text += cm_estimate_tokens(ev->text);
    else if (ev->kind == CM_EVENT_REASONING)
        ex->usage.out_reasoning += cm_estimate_tokens(ev->text);
}

static void first_meaning(struct exchange *ex)
{
    if (ex->first_us == 0) {
        ex->first_us = cm_mono_us();
    }
}

static void stream_begin(struct exchange *ex)
{
    if (ex->stream)
        return;
    ex->stream = cm_arena_zalloc(&ex->arena, ex->surface->stream_size);
    ex->surface->stream_begin(ex->stream, &ex->meta, &ex->hold);
}

/* Too much came without any of it meaning something. */
static void hold_overflow(struct exchange *ex)
{
    struct cm_err err;

    cm_fail(&err, CM_ERR_UPSTREAM_DOWN,
            "the upstream sent more than %u bytes without an answer in them", HOLD_MAX);
    exchange_attempt_ended(ex, &err);
}

static void stream_event(struct exchange *ex, const struct cm_event *ev)
{
    bool semantic = cm_event_semantic(ev);

    if (ex->relay) {
        if (ex->committed)
            write_out(ex, ev->text);
        else
            cm_buf_append(&ex->hold, ev->text);
    } else {
        stream_begin(ex);
        ex->surface->stream_event(ex->stream, ev, &ex->hold);
    }
    if (ex->committed)
        return;
    if (semantic) {
        first_meaning(ex);
        commit(ex);
    } else if (ex->hold.n > HOLD_MAX) {
        hold_overflow(ex);
    }
}

static void whole_event(struct exchange *ex, const struct cm_event *ev)
{
    struct cm_err err = {0};

    first_meaning(ex);
    if (!ex->relay) {
        if (cm_answer_add(&ex->answer, ev, &err) < 0)
            exchange_attempt_ended(ex, &err);
        return;
    }
    if (ex->req) { /* the body stays where the adapter has it: sent now, ended in exchange_attempt_ended() */
        struct respond r;

        respond_begin(&r, ex);
        respond_add(&r, CM_S("content-type"), CM_S("application/json"));
        ex->status = 200;
        note_bytes(ex);
        ex->bytes_out = ev->text.n;
        cm_resp_send(ex->req, 200, r.v, r.n, ev->text);
        ex->req = NULL;
    }
}

void exchange_event(struct exchange *ex, const struct cm_event *ev)
{
    if (ev->kind == CM_EVENT_USAGE) {
        ex->usage = *ev->usage;
        return;
    }
    if (ev->kind == CM_EVENT_HEAD) {
        keep_headers(ex, ev);
        return;
    }
    count_output(ex, ev);
    if (ex->abandoned)
        return;
    if (ex->chat->stream)
        stream_event(ex, ev);
    else
        whole_event(ex, ev);
}

/* ---- failover ---- */

/* Nothing of this attempt may show in the next one. */
static void forget_attempt(struct exchange *ex)
{
    if (ex->stream) {
        ex->surface->stream_clear(ex->stream);
        ex->stream = NULL;
    }
    cm_buf_clear(&ex->hold);
    cm_answer_clear(&ex->answer);
    memset(&ex->usage, 0, sizeof(ex->usage));
}

/* Every credential and target was tried. `err`: why the last lease was refused. */
static void give_up(struct exchange *ex, const struct cm_err *err)
{
    struct cm_err told = ex->last ? *ex->last : *err;

    if (!ex->last && err->cls == CM_ERR_NO_CREDENTIAL && err->retry_after_s > 0)
        cm_fail(&told, CM_ERR_RATE_LIMITED, "%s",
                err->msg); /* to the client a limit like any other */
    if (ex->limited && err->retry_after_s > 0)
        told = *ex->limited; /* of several reasons the one that ends by itself is the most useful */
    if (err->retry_after_s > 0 && cm_err_info(told.cls)->cred == CM_CRED_COOL)
        told.retry_after_s = err->retry_after_s;
    fail(ex, &told, true);
}

static void take_lease(struct exchange *ex, struct cm_lease *lease)
{
    attempt_begin(ex, lease);
    gateway_pool_moved(ex->gw);
    if (ex->asked_us == 0)
        ex->asked_us = cm_mono_us();
    ex->attempts++;
    ex->rotated++;
    ex->n_passed = 0;
}

static void on_turn(void *arg, struct cm_lease *lease, const struct cm_err *err)
{
    struct exchange *ex = arg;

    ex->waiting = NULL;
    if (lease)
        take_lease(ex, lease);
    else
        give_up(ex, err);
}

/* All are busy, or one returns soon: waits in line for what is left of retry.max_wait. */
static bool stand_in_line(struct exchange *ex)
{
    uint64_t now_ms = cm_loop_now_ms(loop_of(ex));
    int64_t left_ms;
    struct cm_pool_ask ask;
    struct cm_err err = {0};

    if (ex->wait_began_ms == 0)
        ex->wait_began_ms = now_ms;
    left_ms = ex->snap->config->retry.max_wait_ms - (int64_t)(now_ms - ex->wait_began_ms);
    if (left_ms <= 0 || attempt_ask(ex, &ask, &err) < 0)
        return false;
    ask.tried =
        NULL; /* what was limited may be tried again when its time has come; what has not changed, the pool refuses */
    ex->waiting = cm_pool_wait(ex->gw->pool, &ask, left_ms, on_turn, ex, &err);
    gateway_pool_moved(ex->gw);
    return ex->waiting != NULL;
}

static void wait_for(struct exchange *ex, uint64_t ms)
{
    if (ex->tried)
        ex->tried->n =
            0; /* what has changed meanwhile may be tried again; what has not, the pool refuses */
    cm_deadline_set(loop_of(ex), &ex->wait, cm_loop_now_ms(loop_of(ex)) + ms);
}

static void on_wait_over(void *arg)
{
    try_next(arg);
}

/* A pause that doubles, with up to a quarter taken off at random, so that clients do not come back in step. */
static uint64_t backoff_ms(struct exchange *ex)
{
    uint64_t ms = BACKOFF_FIRST_MS << (ex->retries < 5 ? ex->retries : 5);

    ms = ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
    return ms - cm_rng_below(&ex->gw->rng, ms / 4);
}

/* No credential of this target is left: pause and retry, wait for one that returns soon, go to the next target, or give up. */
static void target_spent(struct exchange *ex, const struct cm_err *err)
{
    const struct cm_config *c = ex->snap->config;

    if (ex->last && cm_err_info(ex->last->cls)->next == CM_NEXT_RETRY &&
        ex->retries < (unsigned)c->retry.retries) {
        wait_for(ex, backoff_ms(ex));
        ex->retries++;
        return;
    }
    if (ex->target + 1 < ex->n_targets) {
        ex->target++;
        if (ex->tried)
            ex->tried->n = 0;
        ex->retries = 0;
        try_next(ex);
        return;
    }
    if (err->retry_after_s > 0 && stand_in_line(ex))
        return;
    give_up(ex, err);
}

/* The next credential, without a pause; a retry after a pause is one attempt, not another round through the pool. */
static void try_next(struct exchange *ex)
{
    struct cm_pool_ask ask;
    struct cm_lease *lease = NULL;
    struct cm_err err = {0};

    if (ex->rotated < (unsigned)ex->snap->config->retry.credentials + ex->retries &&
        attempt_ask(ex, &ask, &err) == 0)
        lease = cm_pool_lease(ex->gw->pool, &ask, &err);
    if (lease)
        take_lease(ex, lease);
    else
        target_spent(ex, &err);
}

static void answered(struct exchange *ex)
{
    struct cm_buf out = {0};

    if (ex->chat->stream) {
        if (!ex->relay) {
            stream_begin(ex);
            settle_usage(ex, OUTCOME_OK); /* the last chunk tells it */
            ex->surface->stream_end(ex->stream, &ex->usage, &ex->hold);
        }
        if (ex->req) {
            if (!ex->committed)
                commit(ex); /* an answer without any text is an answer, too */
            exchange_flush(ex);
        }
        finish_response(ex, true);
    } else if (ex->req) {
        settle_usage(ex, OUTCOME_OK);
        ex->answer.usage = ex->usage;
        ex->surface->whole(&ex->meta, &ex->answer, &out);
        attempt_served(ex);
        exchange_answer(ex, 200, CM_S("application/json"), cm_buf_str(&out));
        cm_buf_clear(&out);
        return;
    }
    attempt_served(ex);
    exchange_end(ex, ex->abandoned ? OUTCOME_CLIENT_GONE : OUTCOME_OK, NULL);
}

/* Remembers why, and that this credential has had its turn. */
static void note_failure(struct exchange *ex, const struct cm_err *err)
{
    if (!ex->last) {
        ex->last = CM_ARENA_NEW(&ex->arena, struct cm_err);
        ex->tried = CM_ARENA_NEW(&ex->arena, struct cm_tried);
    }
    *ex->last = *err;
    creds_mask(ex->gw, ex->last);
    err = ex->last;
    if (err->cls == CM_ERR_RATE_LIMITED || err->cls == CM_ERR_QUOTA_EXHAUSTED) {
        ex->limited = ex->limited ? ex->limited : CM_ARENA_NEW(&ex->arena, struct cm_err);
        *ex->limited = *err;
    }
    /* One that is being refreshed may be waited for. */
    if (ex->tried->n < CM_TRIED_MAX &&
        !(err->cls == CM_ERR_EXPIRED && target_instance(ex)->adapter->refresh.step))
        ex->tried->ids[ex->tried->n++] = attempt_credential(ex->attempt);
    cm_debug("exchange", CM_PRI ": attempt %u failed: %s", CM_ARG(ex->id), ex->attempts, err->msg);
}

void exchange_attempt_ended(struct exchange *ex, const struct cm_err *err)
{
    bool retries_count;

    if (!err) {
        answered(ex);
        return;
    }
    note_failure(ex, err);
    err = ex->last;
    /* A retry of the same request that fails again says nothing new about the account. */
    retries_count = ex->retries == 0 || cm_err_info(err->cls)->cred != CM_CRED_COUNT;
    end_attempt(ex, err, retries_count, false);
    if (ex->committed || ex->abandoned || (!ex->req && !ex->chat->stream) ||
        cm_err_info(err->cls)->next == CM_NEXT_STOP) {
        exchange_fail(ex, err);
        return;
    }
    forget_attempt(ex);
    if (ex->retries > 0 && cm_err_info(err->cls)->next == CM_NEXT_RETRY)
        target_spent(ex, &(struct cm_err){0});
    else
        try_next(ex);
}

/* ---- the request ---- */

/* Targets of the same priority take turns by weight: each place is drawn among those that are left. */
static void draw_order(struct exchange *ex)
{
    for (size_t i = 0; i + 1 < ex->n_targets; i++) {
        size_t end = i, pick = i;
        uint64_t total = 0, drawn;

        for (; end < ex->n_targets && ex->targets[end].priority == ex->targets[i].priority; end++)
            total += (uint64_t)ex->targets[end].weight;
        for (drawn = cm_rng_below(&ex->gw->rng, total); drawn >= (uint64_t)ex->targets[pick].weight;
             pick++)
            drawn -= (uint64_t)ex->targets[pick].weight;
        if (pick != i) {
            struct cm_target t = ex->targets[i];

            ex->targets[i] = ex->targets[pick];
            ex->targets[pick] = t;
        }
    }
}

#define OUTPUT_TOKENS_DEFAULT 4096 /* reserved for an answer whose length nobody limits */

/* The key's models, and its limits with an estimate of what this request may use. */
static int reserve(struct exchange *ex, struct cm_err *err)
{
    const struct cm_target *first = &ex->targets[0];
    const struct cm_chat *chat = ex->chat;
    int64_t in = cm_chat_estimate_tokens(chat), out = chat->max_tokens;

    if (!ex->client_key)
        return 0;
    if (!cm_key_allows(ex->client_key, chat->model)) {
        cm_fail_param(err, CM_ERR_FORBIDDEN, "model",
                      "this API key may not use the model \"" CM_PRI "\"",
                      CM_ARG(cm_str_head(chat->model, 100)));
        cm_str_copy(err->code, sizeof(err->code), CM_S("model_not_allowed"));
        return -1;
    }
    if (out < 0)
        out = first->row && first->row->max_output_tokens > 0 ? first->row->max_output_tokens
                                                              : OUTPUT_TOKENS_DEFAULT;
    out *= chat->n;
    return cm_key_reserve(ex->client_key, in + out,
                          cm_price_estimate(cm_price_find(ex->snap->prices, first->model), in, out),
                          &ex->reservation, err);
}

static void parsed(struct exchange *ex)
{
    struct cm_err err = {0};
    struct cm_chat *chat = ex->chat;
    char id[CM_ID_CAP];

    cm_id_make(id, "chatcmpl-", cm_unix_ms());
    ex->n_targets = cm_models_find(ex->snap->models, &ex->arena, chat->model, &ex->targets, &err);
    if (ex->n_targets == 0) {
        exchange_fail(ex, &err);
        return;
    }
    ex->meta = (struct cm_answer_meta){.id = cm_arena_str(&ex->arena, cm_str_of(id)),
                                       .model = chat->model,
                                       .created_s = cm_unix_ms() / 1000,
                                       .include_usage = chat->include_usage,
                                       .n = chat->n,
                                       .reasoning = ex->snap->config->stream.reasoning};
    draw_order(ex);
    if (reserve(ex, &err) < 0) {
        exchange_fail(ex, &err);
        return;
    }
    ex->affinity = affinity_of(ex, &ex->begins);
    if (chat->stream)
        alive_arm(ex);
    try_next(ex);
}

static void parse_work(struct cm_job *job)
{
    struct parse_job *p = (struct parse_job *)job;

    p->failed = p->ex->surface->parse(p->ex->chat, cm_buf_str(&p->ex->body), &p->err) < 0;
}

static void parse_done(struct cm_job *job)
{
    struct parse_job *p = (struct parse_job *)job;
    struct exchange *ex = p->ex;

    ex->parsing = NULL;
    if (ex->ended)
        exchange_free(ex);
    else if (p->failed)
        exchange_fail(ex, &p->err);
    else
        parsed(ex);
    free(p);
}

static void on_body(void *arg, struct cm_req *req, struct cm_str body)
{
    struct exchange *ex = arg;
    struct cm_err err = {0};

    (void)body;
    ex->body_us = cm_mono_us();
    ex->body = cm_req_take_body(req);
    if (ex->web) {
        web_body(ex);
        return;
    }
    ex->chat = CM_ARENA_NEW(&ex->arena, struct cm_chat);
    ex->chat->arena = &ex->arena;
    if (ex->body.n > PARSE_ON_LOOP_MAX) {
        ex->parsing = CM_NEW(struct parse_job);
        ex->parsing->ex = ex;
        ex->parsing->job.work = parse_work;
        ex->parsing->job.done = parse_done;
        cm_job_start(ex->gw->host->jobs, &ex->parsing->job, CM_LANE_CPU);
        return;
    }
    if (ex->surface->parse(ex->chat, cm_buf_str(&ex->body), &err) < 0)
        exchange_fail(ex, &err);
    else
        parsed(ex);
}

static enum phase phase_of(const struct exchange *ex)
{
    return ex->committed ? PHASE_MIDDLE : ex->head_sent ? PHASE_BEFORE_TOKEN : PHASE_BEFORE_HEAD;
}

static void on_gone(void *arg, struct cm_req *req, const struct cm_err *why)
{
    struct exchange *ex = arg;
    bool drain =
        ex->attempt && target_instance(ex)->conf->upstream.on_disconnect == CM_DISCONNECT_DRAIN;

    ex->bytes_in = req->bytes_in;
    ex->req = NULL;
    if (why) { /* told by the HTTP server: too large, too slow, broken */
        ex->status = cm_err_status(why);
        exchange_end(ex, OUTCOME_ERROR, why);
        return;
    }
    report_disconnect(ex->gw, phase_of(ex));
    if (drain) { /* the answer is awaited without a reader, for its usage; the clocks bound it */
        ex->abandoned = true;
        attempt_pause(ex->attempt, false);
        cm_deadline_clear(loop_of(ex), &ex->alive);
        return;
    }
    attempt_drop(ex);
    exchange_end(ex, OUTCOME_CLIENT_GONE, NULL);
}

static void on_drain(void *arg, struct cm_req *req)
{
    struct exchange *ex = arg;

    (void)req;
    if (ex->attempt)
        attempt_pause(ex->attempt, false);
}

static const struct cm_req_cb req_cb = {
    .on_body = on_body, .on_gone = on_gone, .on_drain = on_drain};

void serve_chat(struct exchange *ex, struct cm_str rest)
{
    struct cm_str coding = cm_req_header(ex->req, CM_S("content-encoding"));
    struct cm_err err = {0};

    (void)rest;
    if (coding.n > 0 && !cm_str_eq_nocase(coding, CM_S("identity"))) {
        cm_fail(&err, CM_ERR_BAD_REQUEST,
                "the body is encoded (Content-Encoding: " CM_PRI "): send it plain",
                CM_ARG(cm_str_head(coding, 40)));
        err.http_status = 415;
        exchange_fail(ex, &err);
        return;
    }
    cm_req_read(ex->req, (size_t)ex->snap->config->server.max_body_bytes);
}

/* The client's own id, if it is short and visible: it goes to logs and back into a header. */
static struct cm_str request_id(struct exchange *ex, const struct cm_req *req)
{
    struct cm_str given = cm_req_header(req, CM_S("x-request-id"));
    bool sane = given.n > 0 && given.n <= 128;
    char made[CM_ID_CAP];

    for (size_t i = 0; i < given.n && sane; i++)
        sane = given.p[i] > ' ' && given.p[i] < 127;
    if (sane)
        return cm_arena_str(&ex->arena, given);
    cm_id_make(made, "req_", cm_unix_ms());
    return cm_arena_str(&ex->arena, cm_str_of(made));
}

static void answer_preflight(struct exchange *ex)
{
    struct respond r;

    respond_begin(&r, ex);
    r.n = 1; /* the id; CORS anew, with what a preflight asks for */
    respond_cors(&r, ex->snap->config, ex->req, true);
    ex->status = 204;
    note_bytes(ex);
    cm_resp_send(ex->req, 204, r.v, r.n, CM_STR_NONE);
    exchange_end(ex, OUTCOME_OK, NULL);
}

static void wrong_method(struct exchange *ex, struct cm_str allow)
{
    struct cm_err err = {0};

    cm_fail(&err, CM_ERR_METHOD, CM_PRI " is not allowed for " CM_PRI "; allowed: " CM_PRI,
            CM_ARG(cm_str_head(ex->method, 20)), CM_ARG(cm_str_head(ex->path, 100)), CM_ARG(allow));
    ex->passed = CM_ARENA_NEW(&ex->arena, struct cm_header);
    ex->passed[0] = (struct cm_header){CM_S("allow"), allow};
    ex->n_passed = 1;
    exchange_fail(ex, &err);
}

/* Who asks: a client by its key, or the operator by the admin secret. */
static int known(struct exchange *ex, enum access access, struct cm_err *err)
{
    struct cm_key *key;

    if (access == ACCESS_ADMIN) {
        ex->key = CM_S("admin");
        return auth_check_admin(ex->snap, ex->req, err);
    }
    if (auth_check(ex->gw, ex->req, &key, err) < 0)
        return -1;
    ex->client_key = key ? cm_key_ref(key) : NULL;
    ex->key = key ? cm_arena_str(&ex->arena, cm_key_row(key)->name) : CM_S("open");
    return 0;
}

/* Addresses that ask too often, or that guess keys, are told to wait; a right key is served whatever its neighbours behind one address do. */
static int admit(struct exchange *ex, enum access access, struct cm_err *err)
{
    struct cm_gateway *gw = ex->gw;
    const struct cm_config *c = ex->snap->config;
    uint64_t now_s = cm_loop_now_ms(loop_of(ex)) / 1000;
    int wait_s = 0;

    if (access == ACCESS_ALL)
        return 0;
    if (!address_fits(&gw->requests, ex->address, c->auth.ip_requests_per_minute, now_s, &wait_s)) {
        cm_fail(err, CM_ERR_CLIENT_LIMIT, "too many requests from your address: please wait %d s",
                wait_s);
        err->retry_after_s = wait_s;
        return -1;
    }
    address_record(&gw->requests, ex->address, c->auth.ip_requests_per_minute, now_s);
    if (access == ACCESS_PAGE)
        return auth_is_open(gw) ? auth_check_open(ex->snap, ex->req, err) : 0;
    if (known(ex, access, err) == 0)
        return 0;
    if (err->cls == CM_ERR_UNAUTHORIZED) {
        if (address_fits(&gw->bad_keys, ex->address, c->auth.ip_bad_auth_per_minute, now_s,
                         &wait_s)) {
            address_record(&gw->bad_keys, ex->address, c->auth.ip_bad_auth_per_minute, now_s);
        } else {
            cm_fail(err, CM_ERR_CLIENT_LIMIT,
                    "too many wrong API keys from your address: please wait %d s", wait_s);
            err->retry_after_s = wait_s;
        }
    }
    return -1;
}

int exchange_check_admin(struct exchange *ex, struct cm_err *err)
{
    return admit(ex, ACCESS_ADMIN, err);
}

void exchange_begin(struct cm_gateway *gw, struct cm_req *req)
{
    struct exchange *ex = CM_NEW(struct exchange);
    struct cm_str rest, allow;
    struct cm_err err = {0};
    enum route_found found;

    ex->gw = gw;
    ex->snap = snapshot_ref(gw->now);
    ex->req = req;
    ex->began_us = req->began_us;
    cm_list_init(&ex->link);
    cm_list_push(&gw->exchanges, &ex->link);
    cm_deadline_init(&ex->wait, on_wait_over, ex);
    cm_deadline_init(&ex->alive, on_alive, ex);
    ex->id = request_id(ex, req);
    ex->method = cm_arena_str(&ex->arena, req->method);
    ex->path = cm_arena_str(&ex->arena, req->path);
    ex->address = cm_arena_str(
        &ex->arena, address_of_client(&ex->snap->config->server.trusted_proxies, req->peer,
                                      cm_req_header(req, CM_S("x-forwarded-for"))));
    cm_req_listen(req, &req_cb, ex);
    gw->requests_seen++;
    req->id = ex->id;
    found = route_find(&ex->arena, ex->snap->config->server.route_prefix, req->method, req->path,
                       &ex->route, &rest, &allow);
    if (found == ROUTE_NONE)
        found = web_find(ex, &allow);
    if (cm_str_eq(req->method, CM_S("OPTIONS")) && ex->snap->config->server.cors_origins.n > 0 &&
        cm_req_header(req, CM_S("access-control-request-method")).n > 0) {
        answer_preflight(ex);
    } else if (found == ROUTE_METHOD) {
        wrong_method(ex, allow);
    } else if (found == ROUTE_NONE) {
        cm_fail(&err, CM_ERR_NOT_FOUND,
                "unknown path " CM_PRI
                "; chat is at /v1/chat/completions, the models are at /v1/models",
                CM_ARG(cm_str_head(ex->path, 120)));
        exchange_fail(ex, &err);
    } else {
        ex->surface = ex->web ? &cm_surface_openai_chat : ex->route->surface;
        if (admit(ex, ex->web ? web_access(ex) : ex->route->access, &err) < 0)
            exchange_fail(ex, &err);
        else if (ex->web)
            web_serve(ex);
        else
            ex->route->serve(ex, rest);
    }
}
