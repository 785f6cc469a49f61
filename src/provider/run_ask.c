/* What adapters call from within a step: asking for one thing, reading what they were given, telling what they learned. */
#include "run_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"

#define CM_FETCH_MAX (4 * 1024 * 1024)
#define CM_WS_MESSAGE_MAX (16 * 1024 * 1024)

/* --- for adapters: asking ------------------------------------------------------------------------- */

static struct cm_str call_url(struct cm_run *run, struct cm_str url)
{
    const struct cm_instance *in = run->setup.instance;

    if (cm_str_has(cm_str_head(url, 8), CM_S("://")))
        return cm_arena_str(&run->arena, url);
    if (cm_str_starts(url, CM_S("/")))
        return cm_arena_join(&run->arena, in->base_url, url);
    return cm_arena_printf(&run->arena, CM_PRI "/" CM_PRI, CM_ARG(in->base_url), CM_ARG(url));
}

static bool names_header(const struct cm_header *headers, size_t n, struct cm_str name)
{
    for (size_t i = 0; i < n; i++)
        if (cm_str_eq_nocase(headers[i].name, name))
            return true;
    return false;
}

/* The operator's header.… win over the adapter's of the same name; a configured user_agent wins over both. */
static void call_headers(struct cm_run *run, const struct cm_call *call, struct cm_xfer_req *req)
{
    const struct cm_provider_conf *conf = run->setup.instance->conf;
    size_t n_conf = call->foreign ? 0 : conf->n_headers, n = 0;
    struct cm_header *out =
        CM_ARENA_ARRAY(&run->arena, struct cm_header, call->n_headers + n_conf + 1);
    bool agent = conf->upstream.user_agent.n > 0;

    for (size_t i = 0; i < n_conf; i++)
        if (!agent || !cm_str_eq_nocase(conf->headers[i].key, CM_S("User-Agent")))
            out[n++] = (struct cm_header){conf->headers[i].key, conf->headers[i].value};
    for (size_t i = 0, own = n; i < call->n_headers; i++) {
        struct cm_header h = call->headers[i];

        if (names_header(out, own, h.name) ||
            (agent && cm_str_eq_nocase(h.name, CM_S("User-Agent"))))
            continue;
        out[n++] = (struct cm_header){cm_arena_str(&run->arena, h.name),
                                      cm_arena_str(&run->arena, h.value)};
    }
    if (agent)
        out[n++] = (struct cm_header){CM_S("User-Agent"), conf->upstream.user_agent};
    req->headers = out;
    req->n_headers = n;
}

static bool within(struct cm_str part, struct cm_str whole)
{
    return part.n > 0 && (uintptr_t)part.p - (uintptr_t)whole.p < whole.n;
}

static void call_prepare(struct cm_run *run, const struct cm_call *call, enum flight flight,
                         struct cm_xfer_req *req)
{
    const struct cm_upstream_conf *c = run_conf(run);
    const struct cm_cred *cred = &run->setup.cred;

    CM_ASSERT(run->flight == FLIGHT_NONE && !run->xfer && !run->ws && !run->job);
    *req = (struct cm_xfer_req){.method = cm_str_of(call->method),
                                .url = call_url(run, call->url),
                                .body = call->body,
                                .isolation = cred->isolation,
                                .proxy = cred->proxy.n ? cred->proxy : c->proxy,
                                .ca_file = c->ca_file,
                                .http_version = c->http_version,
                                .unverified = call->unverified,
                                .connect_timeout_ms = c->connect_timeout_ms};
    if (call->foreign) {
        req->isolation = CM_S("\1foreign");
        req->ca_file = CM_STR_NONE;
        req->public_only = !c->allow_private_fetch;
        if (req->public_only)
            req->proxy = CM_STR_NONE;
    }
    call_headers(run, call, req);
    if (run->setup.on_trace)
        run_trace(run, (struct cm_trace){.what = "ask",
                                         .bytes = call->body.n,
                                         .text = cm_arena_printf(&run->arena, "%s " CM_PRI,
                                                                 call->method, CM_ARG(req->url)),
                                         .piece = call->body});
    run->flight = flight;
    run->head_seen = false;
    run->lends_chat = run->setup.chat && !run->closed && within(call->body, run->setup.chat->raw);
    run->long_wait = call->long_wait;
    run->lands = call->lands;
    run->session = call->session;
    run->call_ms = run->byte_ms = cm_loop_now_ms(run->host->loop);
    run->call_timeout_ms = call->timeout_ms ? call->timeout_ms : c->response_timeout_ms;
    run->bytes_up += call->body.n;
    run->refs++; /* the transfer's, given back when it is dropped */
}

static enum cm_step open_xfer(struct cm_run *run, const struct cm_call *call, enum flight flight)
{
    const struct cm_transport *t = &run->host->transport;
    struct cm_xfer_req req;

    call_prepare(run, call, flight, &req);
    run->xfer = t->open(t->arg, &req, &run_xfer_cb, run);
    if (run->paused && flight == FLIGHT_STREAM)
        t->pause(t->arg, run->xfer);
    run_clock_arm(run);
    return CM_STEP_WAIT;
}

enum cm_step cm_run_fetch(struct cm_run *run, const struct cm_call *call)
{
    cm_buf_clear(&run->reply);
    cm_buf_init(&run->reply, call->max_reply ? call->max_reply : CM_FETCH_MAX);
    return open_xfer(run, call, FLIGHT_FETCH);
}

enum cm_step cm_run_stream(struct cm_run *run, const struct cm_call *call)
{
    return open_xfer(run, call, FLIGHT_STREAM);
}

enum cm_step cm_run_ws(struct cm_run *run, const struct cm_call *call)
{
    const struct cm_transport *t = &run->host->transport;
    struct cm_xfer_req req;

    call_prepare(run, call, FLIGHT_WS, &req);
    run->reply_status = 0;
    run->n_reply_headers = 0;
    run->ws = t->ws_open(t->arg, &req,
                         run->setup.max_message ? run->setup.max_message : CM_WS_MESSAGE_MAX,
                         &run_ws_cb, run);
    if (run->paused)
        t->ws_pause(t->arg, run->ws);
    run_clock_arm(run);
    return CM_STEP_WAIT;
}

void cm_run_ws_send(struct cm_run *run, struct cm_str message, bool binary)
{
    CM_ASSERT(run->ws);
    run->bytes_up += message.n;
    (void)run->host->transport.ws_send(run->host->transport.arg, run->ws, message, binary);
}

enum cm_step cm_run_sleep(struct cm_run *run, int64_t ms)
{
    CM_ASSERT(run->flight == FLIGHT_NONE);
    run->flight = FLIGHT_SLEEP;
    run->timer_due = false;
    run->timer_ms = cm_loop_now_ms(run->host->loop) + (uint64_t)(ms > 0 ? ms : 0);
    run_clock_arm(run);
    return CM_STEP_WAIT;
}

enum cm_step cm_run_compute(struct cm_run *run, void (*fn)(void *arg, const atomic_bool *cancelled),
                            void *arg, void (*drop)(void *arg))
{
    struct run_job *j = CM_NEW(struct run_job);

    CM_ASSERT(run->flight == FLIGHT_NONE);
    *j = (struct run_job){.job = {.work = run_job_work, .done = run_job_done},
                          .run = run,
                          .fn = fn,
                          .arg = arg,
                          .drop = drop};
    run->flight = FLIGHT_COMPUTE;
    run->job = j;
    cm_job_start(run->host->jobs, &j->job, CM_LANE_CPU);
    run_clock_arm(run);
    return CM_STEP_WAIT;
}

void cm_run_hang_up(struct cm_run *run)
{
    run_drop_flight(run);
}

void cm_run_answered(struct cm_run *run)
{
    run->answered = true;
}

void cm_run_spare(struct cm_run *run)
{
    CM_ASSERT(run->answered);
    run->spare = true;
    run_spare_credential(run);
}

/* --- for adapters: reading and telling ------------------------------------------------------------ */

void *cm_run_state(struct cm_run *run)
{
    return run->state;
}

struct cm_arena *cm_run_arena(struct cm_run *run)
{
    return &run->arena;
}

const struct cm_chat *cm_run_chat(const struct cm_run *run)
{
    CM_ASSERT(!run->closed);
    return run->setup.chat;
}

const struct cm_target *cm_run_target(const struct cm_run *run)
{
    CM_ASSERT(!run->closed);
    return run->setup.target;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_alnum(char c)
{
    return is_letter(c) || (c >= '0' && c <= '9');
}

static bool is_plain_word(struct cm_str name)
{
    for (size_t i = 0; i < name.n; i++)
        if (!is_letter(name.p[i]))
            return false;
    return true;
}

static bool alnum_at(struct cm_str s, size_t at)
{
    return s.p && at < s.n && is_alnum(s.p[at]);
}

/* "gpt-4o-mini" is not "gpt-4o"; "gpt-4o." at the end of a sentence and "models/gpt-4o" are. */
static bool ends_at(struct cm_str words, size_t at)
{
    return !alnum_at(words, at) &&
           !(alnum_at(words, at + 1) && strchr("-_.:/@", words.p[at]) != NULL);
}

static bool begins_at(struct cm_str words, size_t at)
{
    return at == 0 || (!alnum_at(words, at - 1) && !(at > 1 && alnum_at(words, at - 2) &&
                                                     strchr("-_.@", words.p[at - 1]) != NULL));
}

bool cm_run_names_model(const struct cm_run *run, struct cm_str words)
{
    const struct cm_target *target = cm_run_target(run);
    const struct cm_str name = target ? target->model : CM_STR_NONE;
    size_t at;

    if (is_plain_word(name))
        return false;
    for (size_t from = 0; (at = cm_str_find(cm_str_from(words, from), name)) != SIZE_MAX;
         from += at + 1) {
        if (begins_at(words, from + at) && ends_at(words, from + at + name.n))
            return true;
    }
    return false;
}

const struct cm_instance *cm_run_instance(const struct cm_run *run)
{
    return run->setup.instance;
}

const struct cm_cred *cm_run_cred(const struct cm_run *run)
{
    return &run->setup.cred;
}

struct cm_str cm_run_scope(const struct cm_run *run)
{
    return run->setup.scope;
}

struct run_memory *run_memory(struct cm_run *run)
{
    return &run->memory;
}

struct cm_memo *run_memo(const struct cm_run *run)
{
    return run->host->memo;
}

const struct cm_keeper *run_keeper(const struct cm_run *run)
{
    return &run->host->keeper;
}

bool run_is_closed(const struct cm_run *run)
{
    return run->closed;
}

int64_t cm_run_unix_ms(const struct cm_run *run)
{
    (void)run;
    return cm_unix_ms();
}

void cm_run_emit(struct cm_run *run, const struct cm_event *ev)
{
    if (run->shape)
        run_shape(run, ev);
    else
        run_emit(run, ev);
}

void run_emit(struct cm_run *run, const struct cm_event *ev)
{
    if (run->closed || run->answered)
        return;
    if (run->semantic_us == 0 && cm_event_semantic(ev))
        run->semantic_us = cm_mono_us();
    if (run->memory.follows)
        run_memory_heard(&run->memory, ev);
    if (run->setup.on_trace)
        run_trace(run, (struct cm_trace){
                           .what = cm_event_name(ev->kind), .bytes = ev->text.n, .text = ev->text});
    run->emitted = true;
    run->cb->on_event(run->arg, ev);
}

void cm_run_text(struct cm_run *run, struct cm_str text)
{
    if (text.n > 0)
        cm_run_emit(run, &(struct cm_event){.kind = CM_EVENT_TEXT, .text = text});
}

void cm_run_reasoning(struct cm_run *run, struct cm_str text)
{
    if (text.n > 0)
        cm_run_emit(run, &(struct cm_event){.kind = CM_EVENT_REASONING, .text = text});
}

void cm_run_usage(struct cm_run *run, const struct cm_usage *usage)
{
    cm_run_emit(run, &(struct cm_event){.kind = CM_EVENT_USAGE, .usage = usage});
}

void cm_run_finish(struct cm_run *run, enum cm_finish finish)
{
    cm_run_emit(run, &(struct cm_event){.kind = CM_EVENT_FINISH, .finish = finish});
}

void cm_run_served(struct cm_run *run, struct cm_str model)
{
    if (model.n > 0)
        cm_run_emit(run, &(struct cm_event){.kind = CM_EVENT_SERVED, .name = model});
}

void cm_run_model(struct cm_run *run, const struct cm_model_row *row)
{
    if (!run->closed && run->setup.on_model)
        run->setup.on_model(run->arg, row);
}

void cm_run_token(struct cm_run *run, struct cm_str token, int64_t expires_unix_ms)
{
    if (!run->gone && run->setup.on_token)
        run->setup.on_token(run->arg, token, expires_unix_ms);
}

void cm_run_quota(struct cm_run *run, struct cm_str json)
{
    if (!run->gone && run->setup.on_quota)
        run->setup.on_quota(run->arg, json);
}

void cm_run_dropped(struct cm_run *run, const char *field)
{
    struct cm_str said = cm_str_of(field);

    if (run->closed)
        return;
    if (run->setup.chat)
        said = cm_chat_spelling(run->setup.chat, said);
    if (run_conf(run)->strict && run->refused.n == 0)
        run->refused = said;
    if (run->setup.on_dropped)
        run->setup.on_dropped(run->arg, said);
}

void cm_run_odd(struct cm_run *run, const char *what, struct cm_str piece)
{
    /* The piece may echo what the account owns: only its length goes to the log. */
    cm_warn("run", CM_PRI " " CM_PRI " in state %s: %s (%zu bytes not understood)",
            CM_ARG(run->setup.id), CM_ARG(run->setup.cred.label), run_state_name(run), what,
            piece.n);
    run_trace(run, (struct cm_trace){
                       .what = "odd", .bytes = piece.n, .text = cm_str_of(what), .piece = piece});
}
