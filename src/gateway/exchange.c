/* Exchange: one client request from first byte to last.
 *
 * Happy path: request.c brings it to its targets -> attempt -> events are held until one means something -> head and stream (or one whole answer) -> end:
 * lease back, figures, one log line.
 * Failures: before anything was sent, the next credential, a retry after a pause, the next target, and at last an error answer; afterwards an
 * error inside the stream and the connection's end. The client may leave at any point (on_gone). exchange_end() is the only way out, and safe to reach
 * from everywhere: what is still on the stack finds `ended`. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include <stdlib.h>

#define HOLD_MAX (8u * 1024 * 1024) /* before anything meant something */
#define SERVED_MAX 200              /* bytes of a model's name */
#define BACKOFF_FIRST_MS 500
#define BACKOFF_MAX_MS 8000

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
    ex->cost_micro_usd = cm_price_cost(price, &ex->usage, ex->usage.images);
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
    settle_usage(ex, outcome);
    settle_reservation(ex);
    report_exchange(ex, outcome, err);
    if (ex->parsing)
        request_stop_parsing(ex); /* frees when the thread has let go */
    else if (!responses_hold(ex))
        exchange_free(ex);
}

static void forget_attempt(struct exchange *ex);
static void stream_begin_anew(struct exchange *ex);

static void end_attempt(struct exchange *ex, const struct cm_err *verdict, bool blame,
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
    end_attempt(ex, NULL, false, false);
}

/* Nobody wants its answer any more. */
void exchange_drop_attempt(struct exchange *ex)
{
    hedge_cancel(ex);
    end_attempt(ex, NULL, false, true);
}

void exchange_lose_attempt(struct exchange *ex)
{
    struct attempt *a = ex->attempt;

    ex->attempt = NULL;
    cm_deadline_clear(loop_of(ex), &ex->hedge_due);
    report_waste(ex->gw, attempt_waste(a));
    attempt_lose(a);
    forget_attempt(ex);
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

/* ---- failover ---- */

/* Nothing of this attempt may show in the next one. */
static void forget_attempt(struct exchange *ex)
{
    stream_forget(ex);
    cm_answer_clear(&ex->answer);
    memset(&ex->usage, 0, sizeof(ex->usage));
    ex->refusal = CM_STR_NONE;
    ex->served_model = CM_STR_NONE;
}

/* Every credential and target was tried. `err`: why the last lease was refused. */
static void give_up(struct exchange *ex, const struct cm_err *err)
{
    struct cm_err told = ex->last ? *ex->last : *err;

    /* dialects with statuses of their own have words for this */
    if (!ex->last && err->cls == CM_ERR_NO_CREDENTIAL && err->retry_after_s > 0 &&
        !ex->surface->error_status)
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
    ex->attempt_us = cm_mono_us();
    if (ex->asked_us == 0)
        ex->asked_us = ex->attempt_us;
    ex->attempts++;
    ex->rotated++;
    ex->n_passed = 0;
    hedge_arm(ex);
    ex->answer_type = CM_STR_NONE;
    ex->answer_status = 0;
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

/* A pause that doubles, with up to a quarter taken off at random, so that clients do not come back in step. */
static uint64_t backoff_ms(struct exchange *ex)
{
    uint64_t ms = BACKOFF_FIRST_MS << (ex->retries < 5 ? ex->retries : 5);

    ms = ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
    return ms - cm_rng_below(&ex->gw->rng, ms / 4);
}

/* A job has time. It asks again and again instead of standing in line, where clients wait who have not. */
static bool bide(struct exchange *ex, const struct cm_err *err)
{
    const uint64_t now_ms = cm_loop_now_ms(loop_of(ex));

    if (!ex->background || err->retry_after_s <= 0)
        return false;
    if (ex->wait_began_ms == 0)
        ex->wait_began_ms = now_ms;
    if (now_ms - ex->wait_began_ms >= (uint64_t)ex->snap->config->resume.job_wait_ms)
        return false;
    ex->target = 0;
    ex->retries = 0;
    wait_for(ex, 250 + cm_rng_below(&ex->gw->rng, 500));
    return true;
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
        exchange_next(ex);
        return;
    }
    if (bide(ex, err) || (!ex->background && err->cls == CM_ERR_NO_CREDENTIAL &&
                          err->retry_after_s > 0 && stand_in_line(ex)))
        return;
    give_up(ex, err);
}

/* A provider that fails all the time gets none: its breaker is open. -1: *err tells when to come back. */
static int admitted(const struct exchange *ex, struct cm_err *err)
{
    struct cm_str provider = exchange_instance(ex)->name;
    uint64_t wait_ms;

    if (health_admits(ex->gw->health, provider, cm_loop_now_ms(loop_of(ex)), &wait_ms))
        return 0;
    cm_fail(err, CM_ERR_OVERLOADED,
            CM_PRI " fails too often now and gets no requests; the next one is tried in %llu s",
            CM_ARG(provider), (unsigned long long)(wait_ms + 999) / 1000);
    err->retry_after_s = (int)((wait_ms + 999) / 1000);
    return -1;
}

/* The next credential, without a pause; a retry after a pause is one attempt, not another round through the pool. */
void exchange_next(struct exchange *ex)
{
    struct cm_pool_ask ask;
    struct cm_lease *lease = NULL;
    struct cm_err err = {0};

    if (ex->rotated < (unsigned)ex->snap->config->retry.credentials + ex->retries &&
        admitted(ex, &err) == 0 && attempt_ask(ex, &ask, &err) == 0)
        lease = cm_pool_lease(ex->gw->pool, &ask, &err);
    if (!lease && ex->only_credential && cm_chat_last(ex->chat, CM_ROLE_ASSISTANT)) {
        ex->only_credential = 0; /* all of the conversation is there: another account can be told */
        exchange_next(ex);
        return;
    }
    if (lease)
        take_lease(ex, lease);
    else
        target_spent(ex, &err);
}

static void answered(struct exchange *ex)
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

/* Remembers why, and that this credential has had its turn. */
static void note_failure(struct exchange *ex, const struct cm_err *err)
{
    if (!ex->last) {
        ex->last = CM_ARENA_NEW(&ex->arena, struct cm_err);
        ex->tried = CM_ARENA_NEW(&ex->arena, struct cm_tried);
    }
    *ex->last = *err;
    attempt_mask(ex->attempt, ex->last);
    err = ex->last;
    if (err->cls == CM_ERR_RATE_LIMITED || err->cls == CM_ERR_QUOTA_EXHAUSTED) {
        ex->limited = ex->limited ? ex->limited : CM_ARENA_NEW(&ex->arena, struct cm_err);
        *ex->limited = *err;
    }
    /* One that is being refreshed may be waited for. */
    if (ex->tried->n < CM_TRIED_MAX &&
        !(err->cls == CM_ERR_EXPIRED && cm_provider_makes_tokens(exchange_instance(ex)->adapter)))
        ex->tried->ids[ex->tried->n++] = attempt_credential(ex->attempt);
    cm_debug("exchange", CM_PRI ": attempt %u failed: %s", CM_ARG(ex->id), ex->attempts, err->msg);
}

/* A platform may talk about the picture instead of making it, or leave a vector out, and call that an answer. */
static bool lacks_something(const struct exchange *ex, struct cm_err *err)
{
    if (ex->relay)
        return false;
    if (cm_task_makes_media(ex->chat->task) && ex->usage.images == 0) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " answered without a picture or video",
                CM_ARG(exchange_instance(ex)->name));
        return true;
    }
    if (ex->chat->task == CM_TASK_EMBEDDING &&
        !cm_answer_has_vectors(&ex->answer, ex->chat->n_inputs)) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " answered with fewer vectors than texts",
                CM_ARG(exchange_instance(ex)->name));
        return true;
    }
    return false;
}

/* The prompt was too long: the route may know a model that takes more, once. */
static bool go_larger(struct exchange *ex)
{
    struct cm_target *larger;
    size_t n;

    if (ex->enlarged)
        return false;
    n = cm_models_larger(ex->snap->models, &ex->arena, ex->targets[0].route, &larger);
    if (n == 0)
        return false;
    ex->enlarged = true;
    ex->targets = larger;
    ex->n_targets = n;
    ex->target = 0;
    ex->tried->n = 0;
    ex->retries = 0;
    return true;
}

void exchange_attempt_ended(struct exchange *ex, const struct cm_err *err)
{
    struct cm_err empty;
    bool retries_count,
        told; /* the client has something of it, or left, or it must not be done twice: no second try */

    if (!err && lacks_something(ex, &empty))
        err = &empty;
    if (!err) {
        hedge_cancel(ex);
        answered(ex);
        return;
    }
    note_failure(ex, err);
    err = ex->last;
    /* A retry of the same request that fails again says nothing new about the account. */
    retries_count = ex->retries == 0 || cm_err_info(err->cls)->cred != CM_CRED_COUNT;
    end_attempt(ex, err, retries_count, false);
    told = ex->committed || ex->abandoned || (!ex->req && !ex->chat->stream) ||
           (cm_err_info(err->cls)->next == CM_NEXT_RETRY && pass_only_once(ex));
    if (!told && err->cls == CM_ERR_CONTEXT_LENGTH && go_larger(ex)) {
        forget_attempt(ex);
        exchange_next(ex);
        return;
    }
    if (told || cm_err_info(err->cls)->next == CM_NEXT_STOP) {
        exchange_fail(ex, err);
        return;
    }
    forget_attempt(ex);
    if (hedge_runs(ex)) {
        hedge_take_over(ex);
        return;
    }
    if (ex->retries > 0 && cm_err_info(err->cls)->next == CM_NEXT_RETRY)
        target_spent(ex, &(struct cm_err){0});
    else
        exchange_next(ex);
}
