/* Exchange: one client request from first byte to last.
 *
 * Happy path: request.c brings it to its targets -> attempt -> events are held until one means something -> head and stream (or one whole answer) -> end:
 * lease back, figures, one log line.
 * Failures: before anything was sent failover.c looks for another attempt, and at last there is an error answer; afterwards an error inside the
 * stream and the connection's end. The client may leave at any point (on_gone). exchange_end() is the only way out, and safe to reach
 * from everywhere: what is still on the stack finds `ended`. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include <stdlib.h>

#define HOLD_MAX (8u * 1024 * 1024) /* before anything meant something */
#define SERVED_MAX 200              /* bytes of a model's name */

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

const struct cm_instance *exchange_instance(const struct exchange *ex)
{
    return &ex->snap->instances[ex->targets[ex->target].provider];
}

/* ---- the end ---- */

void exchange_free(struct exchange *ex)
{
    if (ex->stream)
        ex->surface->stream_clear(ex->stream);
    cm_answer_clear(&ex->answer);
    cm_buf_clear(&ex->hold);
    cm_buf_clear(&ex->tries);
    cm_buf_clear(&ex->skipped);
    cm_key_unref(ex->client_key);
    responses_free(ex);
    cm_arena_clear(&ex->arena); /* the parsed body first, then what it was parsed from */
    cm_buf_clear(&ex->body);
    snapshot_unref(ex->snap);
    free(ex);
}

/* Figures the upstream did not tell are estimated; an answer that broke off has at least what was seen. */
static void settle_usage(struct exchange *ex, enum outcome outcome)
{
    if (ex->usage.source == CM_USAGE_UPSTREAM || !ex->chat || ex->attempts == 0 ||
        outcome == OUTCOME_ERROR || ex->surface->task == CM_TASK_COUNT_TOKENS || ex->session)
        return;
    if (ex->usage.in_uncached == 0)
        ex->usage.in_uncached = cm_chat_estimate_tokens(ex->chat);
    ex->usage.source = outcome == OUTCOME_OK ? CM_USAGE_ESTIMATED : CM_USAGE_PARTIAL;
}

const struct cm_price *exchange_price(const struct exchange *ex, const struct cm_target *target)
{
    const struct cm_price *price = cm_price_find(ex->snap->prices, target->model);

    return price ? price : cm_price_find(ex->snap->prices, ex->chat->model);
}

/* What was reserved for the key becomes what was used; without figures it is given back. */
static void settle_reservation(struct exchange *ex)
{
    if (ex->usage.source == CM_USAGE_NONE) {
        cm_key_release(&ex->reservation);
        return;
    }
    ex->cost_micro_usd =
        cm_price_cost(exchange_price(ex, &ex->targets[ex->target]), &ex->usage, ex->usage.images);
    cm_key_settle(&ex->reservation, cm_usage_in(&ex->usage) + cm_usage_out(&ex->usage),
                  ex->cost_micro_usd);
}

/* Exactly once per exchange. The request, if there still is one, has got its answer. */
void exchange_end(struct exchange *ex, enum outcome outcome, const struct cm_err *err)
{
    CM_ASSERT(!ex->ended && !ex->attempt);
    ex->ended = true;
    ex->req = NULL;
    ex->gw->drains -= ex->abandoned;
    cm_deadline_clear(loop_of(ex), &ex->wait);
    cm_deadline_clear(loop_of(ex), &ex->alive);
    cm_list_remove(&ex->link);
    if (ex->waiting)
        cm_pool_wait_cancel(ex->waiting);
    if (ex->web)
        web_gone(ex);
    if (ex->session)
        session_end(ex);
    if (ex->kept)
        resume_drop(ex);
    if (ex->background)
        background_end(ex);
    if (ex->head_sent) /* only streams have one of their own; `chat` may still be another thread's */
        report_streams(ex->gw, -1);
    overload_stream_ended(ex);
    settle_usage(ex, outcome);
    settle_reservation(ex);
    report_exchange(ex, outcome, err);
    if (ex->parsing)
        request_stop_parsing(ex); /* frees when the thread has let go */
    else if (!responses_hold(ex))
        exchange_free(ex);
}

static void stream_begin_anew(struct exchange *ex);

void exchange_end_attempt(struct exchange *ex, const struct cm_err *verdict, bool blame,
                          bool cancelled)
{
    struct attempt *a = ex->attempt;

    cm_deadline_clear(loop_of(ex), &ex->hedge_due);
    if (!a)
        return;
    ex->attempt = NULL;
    ex->served_by = cm_arena_str(&ex->arena, attempt_label(a));
    ex->served_by_id = attempt_credential(a);
    attempt_end(a, verdict, blame, cancelled);
}

void exchange_attempt_served(struct exchange *ex)
{
    exchange_end_attempt(ex, NULL, false, false);
}

/* Nobody wants its answer any more. */
void exchange_drop_attempt(struct exchange *ex)
{
    hedge_cancel(ex);
    exchange_end_attempt(ex, NULL, false, true);
}

void exchange_lose_attempt(struct exchange *ex)
{
    struct attempt *a = ex->attempt;

    ex->attempt = NULL;
    cm_deadline_clear(loop_of(ex), &ex->hedge_due);
    report_waste(ex->gw, attempt_waste(a));
    attempt_lose(a);
    exchange_forget_attempt(ex);
}

/* What the request knows is lost when its response ends. */
void exchange_note_bytes(struct exchange *ex)
{
    ex->bytes_in = ex->req->bytes_in;
}

static void finish_response(struct exchange *ex, bool clean)
{
    struct cm_req *req = ex->req;

    if (ex->background)
        clean = background_keep(ex); /* how it has ended is told by its last event */
    if (ex->kept)
        resume_end(ex, clean);
    if (!req)
        return;
    exchange_note_bytes(ex);
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
    exchange_note_bytes(ex);
    ex->bytes_out = body.n;
    cm_resp_send(ex->req, status, r.v, r.n, body);
    exchange_end(ex, OUTCOME_OK, NULL);
}

/* Whether what goes out are events of the dialect, among which we may put our own. */
static bool sends_events(const struct exchange *ex)
{
    return !ex->chat->bytes && !(ex->relay && ex->answer_type.n > 0);
}

/* Whether anybody gets what is written: a client, or those of a stream that is kept. */
static bool is_heard(const struct exchange *ex)
{
    return ex->req || ex->kept;
}

void exchange_tell(struct exchange *ex, const struct cm_err *why)
{
    struct cm_buf out = {0};

    if (!sends_events(ex))
        return;
    if (!ex->committed || (ex->background && ex->relay))
        stream_begin_anew(ex);
    if (ex->committed && ex->background && ex->relay) { /* the upstream has told how it began */
        cm_buf_reset(&ex->hold);
        cm_responses_number(ex->stream, (int64_t)resume_next(ex->kept));
    }
    write_out(ex, cm_buf_str(&ex->hold)); /* events may be numbered: none may be missing */
    cm_buf_reset(&ex->hold);
    if (why)
        ex->surface->stream_error(ex->stream, why, &out);
    else
        cm_responses_cancel(ex->stream, &out);
    write_out(ex, cm_buf_str(&out));
    cm_buf_clear(&out);
}

static void fail(struct exchange *ex, const struct cm_err *err, bool spent)
{
    enum outcome outcome = ex->committed ? OUTCOME_CUT : OUTCOME_ERROR;
    struct cm_err why = *err; /* err may live in what is dropped below */

    exchange_drop_attempt(ex);
    if (ex->session && ex->head_sent) {
        session_fail(ex, &why);
    } else if (is_heard(ex) && ex->head_sent) {
        exchange_tell(ex, &why);
        finish_response(ex, false);
    } else if (ex->req) {
        exchange_note_bytes(ex);
        if (ex->refusal.n > 0 && cm_err_info(why.cls)->next == CM_NEXT_STOP)
            respond_refusal(ex, &why);
        else
            respond_error(ex, &why, spent);
    }
    exchange_end(ex, ex->abandoned ? OUTCOME_CLIENT_GONE : outcome, &why);
}

void exchange_fail(struct exchange *ex, const struct cm_err *err)
{
    fail(ex, err, false);
}

void exchange_fail_spent(struct exchange *ex, const struct cm_err *err)
{
    fail(ex, err, true);
}

/* ---- towards the client ---- */

static void write_out(struct exchange *ex, struct cm_str bytes)
{
    if (!is_heard(ex) || bytes.n == 0)
        return;
    ex->bytes_out += bytes.n;
    if (ex->kept)
        resume_write(ex->kept, bytes);
    else if (cm_resp_write(ex->req, bytes) > CM_HTTPD_HIGH && ex->attempt)
        attempt_pause(ex->attempt, true);
}

static void send_head(struct exchange *ex)
{
    struct respond r;

    respond_begin(&r, ex);
    if (ex->kept && !sends_events(ex))
        resume_drop(ex);
    if (ex->kept)
        respond_add(&r, CM_S("x-chatmux-stream"), resume_id(ex->kept));
    if (sends_events(ex)) {
        respond_add(&r, CM_S("content-type"),
                    ex->surface->stream_type.n > 0 ? ex->surface->stream_type
                                                   : CM_S("text/event-stream; charset=utf-8"));
        respond_add(&r, CM_S("cache-control"), CM_S("no-cache"));
        respond_add(&r, CM_S("x-accel-buffering"), CM_S("no"));
    } else {
        respond_add(&r, CM_S("content-type"), ex->answer_type);
    }
    ex->head_sent = true;
    ex->status = ex->answer_status > 0 ? ex->answer_status : 200;
    report_streams(ex->gw, +1);
    if (ex->req)
        cm_resp_start(ex->req, ex->status, r.v, r.n);
    if (ex->kept)
        resume_begin(ex);
}

void exchange_alive_arm(struct exchange *ex)
{
    const struct cm_config *c = ex->snap->config;
    uint64_t now_ms = cm_loop_now_ms(loop_of(ex));

    if (!sends_events(ex))
        return;
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
    exchange_alive_arm(ex);
}

/* Nobody reads this answer, and it has been awaited long enough. */
static void stop_draining(struct exchange *ex)
{
    exchange_drop_attempt(ex);
    exchange_end(ex, OUTCOME_CLIENT_GONE, NULL);
}

static void on_alive(void *arg)
{
    struct exchange *ex = arg;
    uint64_t now_ms = cm_loop_now_ms(loop_of(ex)),
             pause_ms = (uint64_t)ex->snap->config->stream.keepalive_ms;

    if (ex->abandoned) {
        stop_draining(ex);
        return;
    }
    if (!ex->req)
        return;
    if (!ex->head_sent || now_ms - ex->sent_ms >= pause_ms) {
        bool reads =
            cm_resp_queued(ex->req) == 0; /* a client that does not read needs no more to read */

        if (!ex->head_sent)
            send_head(ex); /* commit_after: proxies in front want to see something */
        if (ex->kept)
            return; /* from now on its followers have keep-alives of their own */
        if (reads)
            write_out(ex, ex->surface->keepalive);
        cm_resp_flush(ex->req);
        ex->sent_ms = now_ms;
    }
    exchange_alive_arm(ex);
}

void exchange_flush(struct exchange *ex)
{
    if (!ex->committed || !is_heard(ex))
        return;
    if (ex->hold.n > 0) {
        write_out(ex, cm_buf_str(&ex->hold));
        cm_buf_reset(&ex->hold);
    }
    ex->sent_ms = cm_loop_now_ms(loop_of(ex));
    if (ex->kept)
        resume_flush(ex->kept);
    else
        cm_resp_flush(ex->req);
    if (ex->session)
        session_batch(ex);
}

/* ---- from the upstream ---- */

static void count_output(struct exchange *ex, const struct cm_event *ev)
{
    if (ev->kind == CM_EVENT_IMAGE)
        ex->usage.images++;
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
        hedge_cancel(ex);
    }
}

static void stream_begin(struct exchange *ex)
{
    if (ex->stream)
        return;
    ex->stream = cm_arena_zalloc(&ex->arena, ex->surface->stream_size);
    ex->surface->stream_begin(ex->stream, &ex->meta, &ex->hold);
}

static void stream_forget(struct exchange *ex)
{
    if (ex->stream) {
        ex->surface->stream_clear(ex->stream);
        ex->stream = NULL;
    }
    cm_buf_clear(&ex->hold);
}

/* commit_after: the head went out, and nothing of any attempt. */
static void stream_begin_anew(struct exchange *ex)
{
    stream_forget(ex);
    stream_begin(ex);
}

/* Too much came without any of it meaning something. */
static void hold_overflow(struct exchange *ex)
{
    struct cm_err err;

    cm_fail(&err, CM_ERR_UPSTREAM_DOWN,
            "the upstream sent more than %u bytes without an answer in them", HOLD_MAX);
    exchange_attempt_ended(ex, &err);
}

/* The dialect repeats the whole answer at its end, and it does not fit. */
static void answer_overflow(struct exchange *ex)
{
    struct cm_err err;

    cm_fail(&err, CM_ERR_UPSTREAM_DOWN, "the answer has more than %d MiB",
            CM_ANSWER_MAX / (1024 * 1024));
    exchange_attempt_ended(ex, &err);
}

static void stream_relayed(struct exchange *ex, const struct cm_event *ev)
{
    if (!ex->stream)
        ex->stream = cm_arena_zalloc(&ex->arena, ex->surface->stream_size);
    ex->surface->stream_relayed(ex->stream, &ex->meta, ev);
}

static void stream_event(struct exchange *ex, const struct cm_event *ev)
{
    bool semantic = cm_event_semantic(ev);

    if (semantic)
        report_piece(ex);
    if (ex->relay) {
        if (ex->surface->stream_relayed)
            stream_relayed(ex, ev);
        if (ex->committed)
            write_out(ex, ev->text);
        else
            cm_buf_append(&ex->hold, ev->text);
    } else {
        stream_begin(ex);
        ex->surface->stream_event(ex->stream, ev, &ex->hold);
    }
    if (ex->surface->stream_full && !ex->relay && ex->surface->stream_full(ex->stream)) {
        answer_overflow(ex);
        return;
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

    if (ev->kind != CM_EVENT_SERVED && ev->kind != CM_EVENT_CONVERSATION)
        first_meaning(ex);
    if (!ex->relay) {
        if (cm_answer_add(&ex->answer, ev, &err) < 0)
            exchange_attempt_ended(ex, &err);
        return;
    }
    if (ex->req) { /* the body stays where the adapter has it: sent now, ended in exchange_attempt_ended() */
        struct respond r;

        respond_begin(&r, ex);
        respond_add(&r, CM_S("content-type"),
                    ex->answer_type.n > 0 ? ex->answer_type : CM_S("application/json"));
        ex->status = 200;
        exchange_note_bytes(ex);
        ex->bytes_out = ev->text.n;
        cm_resp_send(ex->req, 200, r.v, r.n, ev->text);
        ex->req = NULL;
    }
}

void exchange_event(struct exchange *ex, const struct cm_event *ev)
{
    if (ev->kind == CM_EVENT_USAGE) {
        int64_t images = ex->usage.images; /* counted here, or told by what is relayed */

        ex->usage = *ev->usage;
        if (ex->usage.images == 0)
            ex->usage.images = images;
        if (ex->session)
            session_event(ex, ev);
        return;
    }
    if (ex->session) {
        session_event(ex, ev);
        return;
    }
    if (ev->kind == CM_EVENT_HEAD) {
        respond_keep(ex, ev);
        return;
    }
    if (ev->kind == CM_EVENT_RELAY && ev->status >= 400) {
        ex->refusal = cm_arena_str(&ex->arena, ev->text);
        return;
    }
    if (ev->kind == CM_EVENT_SERVED)
        ex->served_model = cm_arena_str(&ex->arena, cm_str_head(ev->name, SERVED_MAX));
    if (ev->kind == CM_EVENT_RELAY && ex->responses && !ex->background)
        responses_made(ex, ev->id, ev->name);
    count_output(ex, ev);
    if (ex->abandoned) {
        ex->drained += ev->text.n;
        if (ex->drained > (uint64_t)exchange_instance(ex)->conf->upstream.drain_bytes)
            stop_draining(ex);
        return;
    }
    if (ex->chat->stream)
        stream_event(ex, ev);
    else
        whole_event(ex, ev);
}

/* Nothing of this attempt may show in the next one. */
void exchange_forget_attempt(struct exchange *ex)
{
    stream_forget(ex);
    cm_answer_clear(&ex->answer);
    memset(&ex->usage, 0, sizeof(ex->usage));
    ex->refusal = CM_STR_NONE;
    ex->served_model = CM_STR_NONE;
}

void exchange_answered(struct exchange *ex)
{
    struct cm_buf out = {0};

    if (ex->session) {
        session_answered(ex);
        return;
    }
    if (ex->chat->stream) {
        if (!ex->relay) {
            stream_begin(ex);
            settle_usage(ex, OUTCOME_OK); /* the last chunk tells it */
            ex->surface->stream_end(ex->stream, &ex->usage, &ex->hold);
            if (ex->responses && !ex->abandoned && !ex->background)
                responses_keep(ex, ex->surface->stream_object(ex->stream));
        }
        if (is_heard(ex)) {
            if (!ex->committed)
                commit(ex); /* an answer without any text is an answer, too */
            exchange_flush(ex);
        }
        finish_response(ex, true);
    } else if (ex->req) {
        settle_usage(ex, OUTCOME_OK);
        ex->answer.usage = ex->usage;
        ex->surface->whole(&ex->meta, &ex->answer, &out);
        if (ex->responses)
            responses_keep(ex, cm_buf_str(&out));
        if (ex->surface->task == CM_TASK_COUNT_TOKENS)
            memset(&ex->usage, 0, sizeof(ex->usage)); /* nothing was used */
        exchange_attempt_served(ex);
        exchange_answer(ex, 200, CM_S("application/json"), cm_buf_str(&out));
        cm_buf_clear(&out);
        return;
    }
    exchange_attempt_served(ex);
    exchange_end(ex, ex->abandoned ? OUTCOME_CLIENT_GONE : OUTCOME_OK, NULL);
}

/* ---- the beginning ---- */

static void on_wait_over(void *arg)
{
    exchange_next(arg);
}

void exchange_init(struct exchange *ex)
{
    cm_list_init(&ex->link);
    cm_list_push(&ex->gw->exchanges, &ex->link);
    cm_deadline_init(&ex->wait, on_wait_over, ex);
    cm_deadline_init(&ex->alive, on_alive, ex);
    cm_deadline_init(&ex->hedge_due, hedge_due, ex);
}
