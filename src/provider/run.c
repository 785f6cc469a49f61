/* Drives one flow of an adapter: events in, one thing in flight at a time, clocks, pausing, a bounded farewell.
 *
 * Happy path: open -> START -> fetch/stream/ws/sleep/compute -> events … -> DONE -> on_end -> close -> freed.
 * Failures: a clock or the transfer fails -> FAILED to the adapter, which returns FAIL; the owner closes early -> STOP, and the adapter may tidy up for
 * CM_TIDY_MS; a flow that said cm_run_answered() goes on for CM_AFTER_MS. A stream whose adapter has heard enough lingers CM_LINGER_MS, so that its
 * connection can serve again.
 * `refs` counts who may still come back: the owner (until the credential is released, so that a farewell has somebody to live for), a step on the
 * stack, a transfer. */
#include "run_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include <stdlib.h>

#define CM_TIDY_MS 5000
#define CM_AFTER_MS 15000
#define CM_LINGER_MS 1000

static void run_settle(struct cm_run *run, enum cm_step step, const struct cm_err *err);
static void run_part(struct cm_run *run);

static void run_unref(struct cm_run *run)
{
    if (--run->refs > 0)
        return;
    cm_task_cancel(&run->start);
    cm_deadline_clear(run->host->loop, &run->clock);
    if (run->setup.flow->clear)
        run->setup.flow->clear(run->state);
    cm_buf_clear(&run->reply);
    cm_buf_clear(&run->memory.said);
    run_shape_clear(run);
    cm_arena_clear(&run->arena);
    free(run);
}

const char *run_state_name(const struct cm_run *run)
{
    return run->setup.flow->state_name ? run->setup.flow->state_name(run->state) : "-";
}

#define TRACE_TEXT_MAX 2000 /* bytes of a body that are shown */

void run_trace(const struct cm_run *run, struct cm_trace t)
{
    if (!run->setup.on_trace || run->closed)
        return;
    t.state = run_state_name(run);
    t.ms = (int64_t)(cm_mono_us() - run->began_us) / 1000;
    t.text = cm_str_head(t.text, TRACE_TEXT_MAX);
    t.piece = cm_str_head(t.piece, TRACE_TEXT_MAX);
    run->setup.on_trace(run->arg, &t);
}

/* --- clocks --------------------------------------------------------------------------------------- */

const struct cm_upstream_conf *run_conf(const struct cm_run *run)
{
    return &run->setup.instance->conf->upstream;
}

static const char tail[] = "the stream did not end after the answer";
static const char ping[] = "time for a ping";

struct due {
    uint64_t at_ms;
    const char *what; /* for the message; NULL = not a failure but the end of a sleep */
    int64_t limit_ms;
};

static void due_sooner(struct due *d, uint64_t from_ms, int64_t limit_ms, const char *what)
{
    uint64_t at_ms = from_ms + (uint64_t)limit_ms;

    if (limit_ms > 0 && at_ms < d->at_ms)
        *d = (struct due){at_ms, what, limit_ms};
}

/* The clock that runs out first (design, section 2 "Clocks"). */
static struct due run_due(const struct cm_run *run)
{
    const struct cm_upstream_conf *c = run_conf(run);
    struct due d = {UINT64_MAX, NULL, 0};

    if (run->flight == FLIGHT_SLEEP && !run->timer_due)
        d.at_ms = run->timer_ms;
    if (run->stopping) {
        due_sooner(&d, run->stop_ms, run->answered ? CM_AFTER_MS : CM_TIDY_MS,
                   "the farewell took too long");
        if (run->answered && run->flight == FLIGHT_STREAM)
            due_sooner(&d, run->byte_ms, CM_LINGER_MS, tail);
        return d;
    }
    if (run->session && run->head_seen) {
        if (run->setup.ping_ms > 0 && !run->paused)
            d = (struct due){run->byte_ms + (run->pinged ? 2 : 1) * (uint64_t)run->setup.ping_ms,
                             run->pinged ? "no answer to a ping" : ping, run->setup.ping_ms};
        return d;
    }
    due_sooner(&d, run->began_ms, c->total_timeout_ms,
               "the whole answer took longer than total_timeout");
    switch (run->flight) {
    case FLIGHT_FETCH:
        due_sooner(&d, run->call_ms, run->call_timeout_ms,
                   "no complete reply within the time limit");
        break;
    case FLIGHT_WS:
    case FLIGHT_STREAM:
        if (run->paused)
            break;
        if (run->long_wait && !run->head_seen) {
            due_sooner(&d, run->call_ms, c->response_timeout_ms,
                       "no answer began within response_timeout");
            break;
        }
        if (!run->long_wait && run->semantic_us == 0)
            due_sooner(&d, run->call_ms, c->first_token_timeout_ms,
                       "nothing of the answer came within first_token_timeout");
        due_sooner(&d, run->byte_ms, c->idle_timeout_ms, "the stream was silent for idle_timeout");
        break;
    case FLIGHT_SLEEP:
    case FLIGHT_COMPUTE:
    case FLIGHT_NONE:
        break;
    }
    return d;
}

void run_clock_arm(struct cm_run *run)
{
    struct due d = run_due(run);

    if (d.at_ms == UINT64_MAX)
        cm_deadline_clear(run->host->loop, &run->clock);
    else
        cm_deadline_set(run->host->loop, &run->clock, d.at_ms);
}

/* --- steps ---------------------------------------------------------------------------------------- */

static void trace_event(const struct cm_run *run, const struct cm_ev *ev)
{
    static const char *const names[] = {
#define X(name) [CM_EV_##name] = #name,
        CM_EV_KINDS(X)
#undef X
    };

    run_trace(run, (struct cm_trace){.what = names[ev->kind],
                                     .status = ev->status,
                                     .bytes = ev->data.n,
                                     .text = ev->err ? cm_str_of(ev->err->msg) : ev->data});
}

/* Adapters know members by the names of the canonical model; where they relay, they know the client's. */
static void respell(const struct cm_run *run, struct cm_err *err)
{
    const struct cm_chat *chat = run->setup.chat;

    if (chat && err->param[0] != '\0' && !cm_instance_relays(run->setup.instance, chat))
        cm_chat_respell(chat, err);
}

static void run_step(struct cm_run *run, const struct cm_ev *ev)
{
    struct cm_err err = {0};
    enum cm_step step;

    if (run->setup.on_trace)
        trace_event(run, ev);
    run->refs++;
    run->depth++;
    step = run->setup.flow->step(run, ev, &err);
    run->depth--;
    if (step == CM_STEP_FAIL) {
        respell(run, &err);
    } else if (run->refused.n > 0) {
        step = CM_STEP_FAIL;
        cm_fail_dropped(&err, run->setup.instance, run->refused);
    }
    run_settle(run, step, &err);
    run_unref(run);
}

/* What the call in flight has spent on a new connection. */
static uint64_t connecting_us(const struct cm_run *run)
{
    const struct cm_transport *t = &run->host->transport;
    struct cm_xfer_info info = {0};

    if (run->xfer && t->info)
        t->info(t->arg, run->xfer, &info);
    else if (run->ws && t->ws_info)
        t->ws_info(t->arg, run->ws, &info);
    return info.reused ? 0 : info.connected_us;
}

static void drop_transfer(struct cm_run *run)
{
    if (run->xfer) {
        const struct cm_transport *t = &run->host->transport;

        run->connect_us += connecting_us(run);
        t->close(t->arg, run->xfer);
        run->xfer = NULL;
        run_unref(run);
    }
}

/* Ends whatever is in flight. */
void run_drop_flight(struct cm_run *run)
{
    const struct cm_transport *t = &run->host->transport;

    drop_transfer(run);
    if (run->ws) {
        run->connect_us += connecting_us(run);
        t->ws_close(t->arg, run->ws);
        run->ws = NULL;
        run_unref(run);
    }
    if (run->job) {
        run->job->run = NULL;
        cm_job_cancel(run->host->jobs, &run->job->job);
        run->job = NULL;
    }
    run->flight = FLIGHT_NONE;
}

/* Once nothing is said and nothing is in flight any more, the credential is free: what lingers still uses its connections and strings. */
static void release_if_over(struct cm_run *run)
{
    if (!run->closed || !run->flow_done || run->xfer || run->gone)
        return;
    run->gone = true;
    if (run->released)
        run->released(run->released_arg);
    run_unref(run); /* the owner's */
}

static void tell_end(struct cm_run *run, const struct cm_err *err)
{
    if (run->end_told)
        return;
    run->end_told = true;
    run->cb->on_end(run->arg, err);
}

/* The flow has said its last word. */
static void run_finish(struct cm_run *run, const struct cm_err *err)
{
    run->flow_done = true;
    if (err && run->answered)
        cm_warn("run", CM_PRI " " CM_PRI " after its answer, in state %s: %s",
                CM_ARG(run->setup.id), CM_ARG(run->setup.cred.label), run_state_name(run),
                err->msg);
    cm_deadline_clear(run->host->loop, &run->clock);
    if (!err && run->flight == FLIGHT_STREAM && run->xfer && !run->stopping &&
        !(run->closed && run->lends_chat)) {
        run->flight = FLIGHT_NONE; /* lingers: only the end of the message is missing */
        cm_deadline_set(run->host->loop, &run->clock,
                        cm_loop_now_ms(run->host->loop) + CM_LINGER_MS);
        if (run->paused)
            run->host->transport.resume(run->host->transport.arg, run->xfer);
    } else {
        run_drop_flight(run);
    }
    if (run->closed)
        release_if_over(run);
    else
        tell_end(run, err);
}

static void run_settle(struct cm_run *run, enum cm_step step, const struct cm_err *err)
{
    bool last = step != CM_STEP_WAIT;

    CM_ASSERT(step != CM_STEP_FAIL || err->cls != CM_ERR_NONE);
    run->flow_done |=
        last; /* before the owner runs: closing from there must not ask the flow again */
    if (run->emitted && !run->closed) {
        run->emitted = false;
        if (run->cb->on_batch)
            run->cb->on_batch(run->arg);
    }
    if (last) {
        run_finish(run, step == CM_STEP_FAIL ? err : NULL);
    } else if (!run->flow_done) { /* else: closed from on_batch, and the farewell is over already */
        CM_ASSERT(run->flight != FLIGHT_NONE);
        if (run->closed && !run->stopping)
            run_part(run);
        else if (run->answered && !run->closed)
            tell_end(run, NULL); /* the owner closes the run, which goes on by itself */
    }
}

/* Once the owner has gone: the flow keeps copies of what was lent to it. */
void run_spare_credential(struct cm_run *run)
{
    struct cm_cred *cred = &run->setup.cred;

    if (!run->spare || run->spared || !run->closed || !run->setup.on_spared)
        return;
    run->spared = true;
    cred->secret = cm_arena_str(&run->arena, cred->secret);
    cred->token = cm_arena_str(&run->arena, cred->token);
    cred->label = cm_arena_str(&run->arena, cred->label);
    cred->isolation = cm_arena_str(&run->arena, cred->isolation);
    cred->proxy = cm_arena_str(&run->arena, cred->proxy);
    run->setup.on_spared(run->arg);
}

/* The flow goes on with what it has in flight, for a while. */
static void run_go_on(struct cm_run *run)
{
    bool was_paused = run->paused;

    CM_ASSERT(!run->lends_chat);
    run->stopping = true;
    run->stop_ms = cm_loop_now_ms(run->host->loop);
    run->paused = false;
    run_spare_credential(run);
    if (was_paused && run->flight == FLIGHT_STREAM && run->xfer)
        run->host->transport.resume(run->host->transport.arg, run->xfer);
    run_clock_arm(run);
}

/* Nobody listens any more: the adapter hears of it, once. */
static void run_part(struct cm_run *run)
{
    struct cm_ev stop = {.kind = CM_EV_STOP};

    if (run->flow_done) {
        if (run->lends_chat)
            drop_transfer(run); /* it may not have sent all of what goes away now */
        release_if_over(run);
        return;
    }
    if (run->answered) {
        run_go_on(run);
        return;
    }
    if (run->flight == FLIGHT_FETCH && run->lands) {
        run->stop_owed = true;
        run_go_on(run);
        return;
    }
    run->stopping = true;
    cm_task_cancel(&run->start);
    run_drop_flight(run);
    run->stop_ms = cm_loop_now_ms(run->host->loop);
    run->paused = false;
    run_step(run, &stop);
    if (!run->flow_done)
        run_clock_arm(run);
}

static void run_fail(struct cm_run *run, const struct cm_err *err)
{
    struct cm_ev ev = {.kind = CM_EV_FAILED, .err = err};

    run_drop_flight(run);
    if (run->stop_owed)
        ev = (struct cm_ev){.kind = CM_EV_STOP};
    run->stop_owed = false;
    run_step(run, &ev);
}

static void on_clock(void *arg)
{
    struct cm_run *run = arg;
    struct due d = run_due(run);
    uint64_t now_ms = cm_loop_now_ms(run->host->loop);
    struct cm_err err = {0};

    run->refs++;
    if (run->flow_done) {
        drop_transfer(run); /* lingered long enough */
        release_if_over(run);
    } else if (now_ms < d.at_ms) {
        run_clock_arm(run); /* something happened since */
    } else if (d.what == ping) {
        run->pinged = true;
        run->host->transport.ws_ping(run->host->transport.arg, run->ws);
        run_clock_arm(run);
    } else if (run->stopping && d.what == tail) {
        cm_fail(&err, CM_ERR_TIMEOUT, CM_PRI ": %s", CM_ARG(run->setup.instance->name), d.what);
        run_fail(run, &err);
    } else if (run->stopping && d.what) {
        cm_log(run->answered ? CM_LOG_WARN : CM_LOG_DEBUG, "run",
               CM_PRI " " CM_PRI ": gave up tidying up in state %s", CM_ARG(run->setup.id),
               CM_ARG(run->setup.cred.label), run_state_name(run));
        run_finish(run, NULL);
    } else if (!d.what) {
        if (run->paused) {
            run->timer_due = true;
            run_clock_arm(run);
        } else {
            run->flight = FLIGHT_NONE;
            run_step(run, &(struct cm_ev){.kind = CM_EV_TIMER});
        }
    } else {
        cm_fail(&err, CM_ERR_TIMEOUT, CM_PRI ": %s (%lld ms)", CM_ARG(run->setup.instance->name),
                d.what, (long long)d.limit_ms);
        cm_info("run", CM_PRI " " CM_PRI " in state %s: %s", CM_ARG(run->setup.id),
                CM_ARG(run->setup.cred.label), run_state_name(run), d.what);
        run_fail(run, &err);
    }
    run_unref(run);
}

static void on_start(void *arg)
{
    struct cm_run *run = arg;

    run_step(run, &(struct cm_ev){.kind = CM_EV_START});
}

/* --- what transfers report ------------------------------------------------------------------------ */

static void sign_of_life(struct cm_run *run)
{
    run->byte_ms = cm_loop_now_ms(run->host->loop);
    run->pinged = false;
    if (run->first_byte_us == 0)
        run->first_byte_us = cm_mono_us();
}

static void keep_reply_headers(struct cm_run *run, const struct cm_header *headers, size_t n)
{
    run->reply_headers = CM_ARENA_ARRAY(&run->arena, struct cm_header, n);
    run->n_reply_headers = n;
    for (size_t i = 0; i < n; i++) {
        run->reply_headers[i].name = cm_arena_str(&run->arena, headers[i].name);
        run->reply_headers[i].value = cm_arena_str(&run->arena, headers[i].value);
    }
}

static void on_head(void *arg, int status, const struct cm_header *headers, size_t n)
{
    struct cm_run *run = arg;
    struct cm_ev ev = {.kind = CM_EV_HEAD, .status = status, .headers = headers, .n_headers = n};

    if (run->flow_done)
        return;
    run->head_seen = true;
    sign_of_life(run);
    if (run->flight == FLIGHT_FETCH) {
        run->reply_status = status;
        keep_reply_headers(run, headers, n);
        return;
    }
    if (run->long_wait)
        run_clock_arm(run);
    run_step(run, &ev);
}

static void on_data(void *arg, struct cm_str piece)
{
    struct cm_run *run = arg;
    struct cm_ev ev = {.kind = CM_EV_DATA, .data = piece};
    struct cm_err err = {0};

    run->bytes_down += piece.n;
    if (run->flow_done)
        return;
    sign_of_life(run);
    if (run->flight != FLIGHT_FETCH) {
        run_step(run, &ev);
        return;
    }
    cm_buf_append(&run->reply, piece);
    if (run->reply.failed) {
        cm_fail(&err, CM_ERR_UPSTREAM_DOWN, CM_PRI ": the reply is larger than %zu bytes",
                CM_ARG(run->setup.instance->name), run->reply.limit);
        run_fail(run, &err);
    }
}

static void on_xfer_end(void *arg, const struct cm_err *err)
{
    struct cm_run *run = arg;
    struct cm_ev ev = {.kind = CM_EV_END};
    struct cm_err why = err ? *err : (struct cm_err){0}; /* the transfer's own goes with it */
    enum flight was = run->flight;
    struct cm_buf reply =
        run->reply; /* the step may fetch again, and its slices are good until it returns */

    memset(&run->reply, 0, sizeof(run->reply));
    run->refs++;
    drop_transfer(run);
    if (run->flow_done) {
        release_if_over(run);
    } else {
        run->flight = FLIGHT_NONE;
        if (err && run->stop_owed)
            ev = (struct cm_ev){.kind = CM_EV_STOP};
        else if (err)
            ev = (struct cm_ev){.kind = CM_EV_FAILED, .err = &why};
        else if (was == FLIGHT_FETCH)
            ev = (struct cm_ev){.kind = run->stop_owed ? CM_EV_STOP : CM_EV_REPLY,
                                .status = run->reply_status,
                                .headers = run->reply_headers,
                                .n_headers = run->n_reply_headers,
                                .data = cm_buf_str(&reply)};
        run->stop_owed = false;
        run_step(run, &ev);
    }
    cm_buf_clear(&reply);
    run_unref(run);
}

const struct cm_xfer_cb run_xfer_cb = {
    .on_head = on_head, .on_data = on_data, .on_end = on_xfer_end};

static void on_ws_head(void *arg, int status, const struct cm_header *headers, size_t n)
{
    struct cm_run *run = arg;

    run->reply_status = status;
    keep_reply_headers(run, headers, n);
}

static void on_ws_open(void *arg)
{
    struct cm_run *run = arg;

    run->head_seen = true;
    sign_of_life(run);
    if (run->session)
        run_clock_arm(run);
    run_step(run, &(struct cm_ev){.kind = CM_EV_OPEN,
                                  .status = run->reply_status,
                                  .headers = run->reply_headers,
                                  .n_headers = run->n_reply_headers});
}

static void on_ws_message(void *arg, struct cm_str message, bool binary)
{
    struct cm_run *run = arg;

    run->bytes_down += message.n;
    sign_of_life(run);
    run_step(run, &(struct cm_ev){.kind = CM_EV_DATA, .data = message, .binary = binary});
}

static void on_ws_end(void *arg, int code, struct cm_str reason, const struct cm_err *err)
{
    struct cm_run *run = arg;
    struct cm_err why = err ? *err : (struct cm_err){0};
    struct cm_ev ev = {.kind = err ? CM_EV_FAILED : CM_EV_END, .status = code, .err = &why};

    if (err && !run->head_seen) {
        ev.headers = run->reply_headers;
        ev.n_headers = run->n_reply_headers;
    }
    if (!err) /* it lies in what is closed here */
        ev.data = cm_arena_str(&run->arena, reason);
    run->refs++;
    run_drop_flight(run);
    if (!run->flow_done)
        run_step(run, &ev);
    run_unref(run);
}

static void on_ws_drain(void *arg)
{
    struct cm_run *run = arg;

    if (!run->closed && run->cb->on_drain)
        run->cb->on_drain(run->arg);
}

static void on_ws_pong(void *arg)
{
    sign_of_life(arg);
}

const struct cm_ws_cb run_ws_cb = {.on_open = on_ws_open,
                                   .on_message = on_ws_message,
                                   .on_end = on_ws_end,
                                   .on_head = on_ws_head,
                                   .on_drain = on_ws_drain,
                                   .on_pong = on_ws_pong};

void run_job_work(struct cm_job *job)
{
    struct run_job *j = (struct run_job *)job;

    j->fn(j->arg, &job->cancelled);
}

void run_job_done(struct cm_job *job)
{
    struct run_job *j = (struct run_job *)job;
    struct cm_run *run = j->run;

    if (run) {
        run->job = NULL;
        run->flight = FLIGHT_NONE;
        run_step(run, &(struct cm_ev){.kind = CM_EV_COMPUTED});
    } else if (j->drop) {
        j->drop(j->arg);
    }
    free(j);
}

/* --- for the gateway ------------------------------------------------------------------------------ */

struct cm_run *cm_run_open(const struct cm_host *host, const struct cm_run_setup *setup,
                           const struct cm_run_cb *cb, void *arg)
{
    struct cm_run *run = CM_NEW(struct cm_run);

    run->arena.secret = true; /* headers with credentials are made there */
    run->setup = *setup;
    run->setup.id =
        cm_arena_str(&run->arena, setup->id); /* the log may need it after the exchange has gone */
    run->setup.scope = cm_arena_str(&run->arena, setup->scope);
    run->host = host;
    run->cb = cb;
    run->arg = arg;
    run->refs = 1;
    run->state =
        cm_arena_zalloc(&run->arena, setup->flow->state_size ? setup->flow->state_size : 1);
    run_shape_init(run);
    run->began_us = cm_mono_us();
    run->began_ms = run->call_ms = run->byte_ms = cm_loop_now_ms(host->loop);
    cm_deadline_init(&run->clock, on_clock, run);
    cm_task_init(&run->start, on_start, run);
    cm_task_post(host->loop, &run->start);
    return run;
}

static void set_paused(struct cm_run *run, bool paused)
{
    const struct cm_transport *t = &run->host->transport;

    if (run->paused == paused || run->flow_done || run->closed)
        return;
    run->paused = paused;
    run->byte_ms = cm_loop_now_ms(run->host->loop);
    run->pinged = false;
    if (run->flight == FLIGHT_STREAM && run->xfer)
        (paused ? t->pause : t->resume)(t->arg, run->xfer);
    if (run->ws)
        (paused ? t->ws_pause : t->ws_resume)(t->arg, run->ws);
    if (!paused && run->timer_due) {
        run->timer_due = false;
        run->timer_ms = run->byte_ms; /* fires on a later turn */
    }
    run_clock_arm(run);
}

void cm_run_pause(struct cm_run *run)
{
    set_paused(run, true);
}

void cm_run_resume(struct cm_run *run)
{
    set_paused(run, false);
}

static bool talks(const struct cm_run *run)
{
    return run->session && run->head_seen && run->ws && !run->flow_done && !run->closed;
}

size_t cm_run_say(struct cm_run *run, struct cm_str message, bool binary)
{
    if (!talks(run))
        return 0;
    run->bytes_up += message.n;
    return run->host->transport.ws_send(run->host->transport.arg, run->ws, message, binary);
}

void cm_run_say_close(struct cm_run *run, int code, struct cm_str reason)
{
    if (talks(run))
        run->host->transport.ws_say_close(run->host->transport.arg, run->ws, code, reason);
}

void cm_run_close(struct cm_run *run, void (*released)(void *arg), void *arg)
{
    if (!run)
        return;
    CM_ASSERT(!run->closed);
    run->refs++;
    run->closed = true;
    run->cb = NULL;
    run->released = released;
    run->released_arg = arg;
    if (run->depth == 0)
        run_part(run);
    run_unref(run);
}

void cm_run_info(const struct cm_run *run, struct cm_run_info *out)
{
    *out = (struct cm_run_info){.state = run_state_name(run),
                                .began_us = run->began_us,
                                .first_byte_us = run->first_byte_us,
                                .semantic_us = run->semantic_us,
                                .connect_us = run->connect_us + connecting_us(run),
                                .bytes_up = run->bytes_up,
                                .bytes_down = run->bytes_down};
}
