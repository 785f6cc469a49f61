/* Realtime sessions: an exchange whose answer is a WebSocket, relayed both ways.
 *
 * Happy path: serve_realtime -> routed, reserved and tried like any request -> the upstream has opened (HEAD) -> 101 to the client -> messages both ways,
 * as they are -> one side closes -> its code goes to the other -> the exchange ends.
 * A side that does not read holds the other: above the high-water mark of what is queued for it nothing more is read from the other, until it is below the
 * low one. So a session holds at most two messages and twice that mark.
 * Failures: until the upstream has opened, as ever: the next credential, or an error in plain HTTP. Afterwards close codes: 1011 when the upstream broke,
 * 1001 when we stop, 1008 when a limit is reached, 1002, 1007, 1009 for what the client did; the upstream then hears 1001. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "chatmux/codec/ws.h"
#include "chatmux/io/wsd.h"

struct session {
    struct exchange *ex;
    struct cm_list link; /* in gw->sessions */
    struct cm_wsd *wsd;  /* owned; NULL before the upgrade and after the end */
    struct cm_str protocol;
    struct cm_deadline clock;
    uint64_t began_ms, moved_ms; /* opened; latest message of either side */
    uint64_t tick_ms;            /* when the client's silence was looked at */
    uint64_t seen_in;            /* bytes it had sent by then */
    bool pinged;                 /* then, and nothing came since */
    bool held;                   /* the client, until the upstream has taken more */
    bool answering;              /* an answer is under way */
    bool counted;                /* figures came that the key has not heard of */
    unsigned answers;            /* that told their figures */
    int code;                    /* the upstream has closed with it; 0 = not */
    struct cm_str reason;        /* in the arena */
};

static uint64_t now_of(const struct exchange *ex)
{
    return cm_loop_now_ms(ex->gw->host->loop);
}

/* ---- ends ---- */

static void close_client(struct exchange *ex, int code, struct cm_str reason)
{
    struct cm_wsd *w = ex->session->wsd;

    if (!w || !ex->req)
        return;
    exchange_note_bytes(ex);
    ex->req = NULL;
    ex->session->wsd = NULL;
    cm_wsd_close(w, code, reason);
}

/* It ends here, and the upstream is not to blame. `why` NULL: it is nobody's fault. */
static void leave(struct exchange *ex, int code, int upstream_code, struct cm_str reason,
                  const struct cm_err *why)
{
    if (ex->attempt)
        attempt_say_close(ex->attempt, upstream_code, reason);
    close_client(ex, code, reason);
    exchange_attempt_served(ex);
    exchange_end(ex, why ? OUTCOME_CUT : OUTCOME_OK, why);
}

static void leave_for(struct exchange *ex, int code, const struct cm_err *why)
{
    struct cm_err told = *why;

    leave(ex, code, CM_WSF_GOING_AWAY, cm_str_of(told.msg), &told);
}

static void leave_to_stop(struct exchange *ex)
{
    leave(ex, CM_WSF_GOING_AWAY, CM_WSF_GOING_AWAY,
          CM_S("the gateway is shutting down: please connect again"), NULL);
}

void session_answered(struct exchange *ex)
{
    struct session *s = ex->session;

    close_client(ex, s->code, s->reason);
    exchange_attempt_served(ex);
    exchange_end(ex, OUTCOME_OK, NULL);
}

void session_fail(struct exchange *ex, const struct cm_err *err)
{
    struct session *s = ex->session;

    if (s->code > 0)
        close_client(ex, s->code, s->reason);
    else
        close_client(ex, err->cls == CM_ERR_SHUTTING_DOWN ? CM_WSF_GOING_AWAY : CM_WSF_TROUBLE,
                     cm_str_of(err->msg));
}

void session_gone(struct exchange *ex)
{
    cm_wsd_free(ex->session->wsd);
    ex->session->wsd = NULL;
    if (ex->attempt)
        attempt_say_close(ex->attempt, CM_WSF_GOING_AWAY, CM_STR_NONE);
}

void session_end(struct exchange *ex)
{
    cm_list_remove(&ex->session->link);
    cm_deadline_clear(ex->gw->host->loop, &ex->session->clock);
    CM_ASSERT(!ex->session->wsd);
}

/* ---- from the client ---- */

static void on_message(void *arg, struct cm_str message, bool binary)
{
    struct session *s = arg;
    struct exchange *ex = s->ex;

    s->moved_ms = now_of(ex);
    if (!ex->attempt || attempt_say(ex->attempt, message, binary) <= CM_WS_HIGH)
        return;
    s->held = true;
    cm_wsd_hold(s->wsd, true);
}

static void on_close(void *arg, int code, struct cm_str reason, const struct cm_err *err)
{
    struct session *s = arg;

    if (err)
        leave_for(s->ex, code, err);
    else
        leave(s->ex, code, code, reason, NULL);
}

static const struct cm_wsd_cb wsd_cb = {.on_message = on_message, .on_close = on_close};

void session_drained(struct exchange *ex)
{
    struct session *s = ex->session;

    if (!s || !s->held || !s->wsd)
        return;
    s->held = false;
    cm_wsd_hold(s->wsd, false);
}

/* ---- clocks ---- */

static uint64_t sooner(uint64_t at_ms, uint64_t from_ms, int64_t limit_ms)
{
    return limit_ms > 0 && from_ms + (uint64_t)limit_ms < at_ms ? from_ms + (uint64_t)limit_ms
                                                                : at_ms;
}

static void arm(struct session *s)
{
    const struct cm_config *c = s->ex->snap->config;
    uint64_t at_ms = sooner(UINT64_MAX, s->began_ms, c->realtime.max_duration_ms);

    at_ms = sooner(at_ms, s->moved_ms, c->realtime.idle_ms);
    at_ms = sooner(at_ms, s->tick_ms, c->realtime.ping_ms);
    if (at_ms < UINT64_MAX)
        cm_deadline_set(s->ex->gw->host->loop, &s->clock, at_ms);
}

/* -1: nothing came from the client for two looks in a row, not even the answer to a ping. While it is held nobody listens to it. */
static int look_for_client(struct session *s, uint64_t now_ms)
{
    const uint64_t in = s->ex->req->bytes_in;

    s->tick_ms = now_ms;
    if (in != s->seen_in || s->held) {
        s->seen_in = in;
        s->pinged = false;
        return 0;
    }
    if (s->pinged)
        return -1;
    s->pinged = true;
    cm_wsd_ping(s->wsd);
    return 0;
}

static void on_clock(void *arg)
{
    struct session *s = arg;
    const struct cm_config *c = s->ex->snap->config;
    uint64_t now_ms = now_of(s->ex);
    struct cm_err err = {0};

    if (now_ms >= sooner(UINT64_MAX, s->began_ms, c->realtime.max_duration_ms)) {
        cm_fail(&err, CM_ERR_CLIENT_LIMIT, "the session has lasted %lld s, as long as it may",
                (long long)c->realtime.max_duration_ms / 1000);
        leave_for(s->ex, CM_WSF_POLICY, &err);
    } else if (now_ms >= sooner(UINT64_MAX, s->moved_ms, c->realtime.idle_ms)) {
        cm_fail(&err, CM_ERR_CLIENT_LIMIT, "no message came for %lld s",
                (long long)c->realtime.idle_ms / 1000);
        leave_for(s->ex, CM_WSF_POLICY, &err);
    } else if (now_ms >= sooner(UINT64_MAX, s->tick_ms, c->realtime.ping_ms) &&
               look_for_client(s, now_ms) < 0) {
        cm_fail(&err, CM_ERR_TIMEOUT_CLIENT, "the client did not answer a ping");
        leave_for(s->ex, CM_WSF_TROUBLE, &err);
    } else {
        arm(s);
    }
}

/* ---- from the upstream ---- */

/* It has opened: so do we. */
static void open_client(struct exchange *ex, const struct cm_event *head)
{
    struct session *s = ex->session;
    struct respond r;

    respond_keep(ex, head);
    respond_begin(&r, ex);
    ex->committed = ex->head_sent = true;
    ex->status = 101;
    report_streams(ex->gw, +1);
    s->began_ms = s->moved_ms = s->tick_ms = now_of(ex);
    s->wsd = cm_wsd_open(ex->req, r.v, r.n, s->protocol,
                         (size_t)ex->snap->config->realtime.max_message, &wsd_cb, s);
    arm(s);
}

static void relay(struct exchange *ex, const struct cm_event *ev)
{
    struct session *s = ex->session;

    s->moved_ms = now_of(ex);
    s->answering = ev->semantic;
    if (ev->semantic && ex->first_us == 0)
        ex->first_us = cm_mono_us();
    ex->bytes_out += ev->text.n;
    if (s->wsd && cm_wsd_send(s->wsd, ev->text, ev->binary) > CM_HTTPD_HIGH && ex->attempt)
        attempt_pause(ex->attempt, true);
}

void session_event(struct exchange *ex, const struct cm_event *ev)
{
    struct session *s = ex->session;

    if (ev->kind == CM_EVENT_HEAD) {
        open_client(ex, ev);
    } else if (ev->kind == CM_EVENT_RELAY) {
        relay(ex, ev);
    } else if (ev->kind == CM_EVENT_USAGE) {
        s->counted = true;
        s->answers++;
    } else if (ev->kind == CM_EVENT_FINISH) {
        s->code = ev->status;
        s->reason = cm_arena_str(&ex->arena, ev->text);
    }
}

/* What the session has used so far, for its key. */
static int count(struct exchange *ex, struct cm_err *err)
{
    const struct cm_price *price = exchange_price(ex, &ex->targets[ex->target]);

    ex->session->counted = false;
    return cm_key_raise(&ex->reservation, cm_usage_in(&ex->usage) + cm_usage_out(&ex->usage),
                        cm_price_cost(price, &ex->usage, ex->usage.images), err);
}

void session_batch(struct exchange *ex)
{
    struct session *s = ex->session;
    struct cm_err err = {0};

    if (!s->wsd || s->code > 0)
        return;
    if (s->counted && count(ex, &err) < 0)
        leave_for(ex, CM_WSF_POLICY, &err);
    else if (ex->gw->draining && !s->answering)
        leave_to_stop(ex);
}

void sessions_drain(struct cm_gateway *gw)
{
    CM_LIST_EACH(&gw->sessions, link)
    {
        struct session *s = CM_LIST_ITEM(link, struct session, link);

        if (s->wsd && !s->answering)
            leave_to_stop(s->ex);
    }
}

size_t sessions_open(const struct cm_gateway *gw)
{
    size_t n = 0;

    for (const struct cm_list *l = gw->sessions.next; l != &gw->sessions; l = l->next)
        n++;
    return n;
}

void session_log(const struct exchange *ex, struct cm_buf *out)
{
    const struct {
        const char *name;
        int64_t n;
    } figures[] = {
        {"answers", ex->session ? ex->session->answers : 0},
        {"closed_by_upstream", ex->session ? ex->session->code : 0},
        {"audio_input", ex->usage.in_audio - ex->usage.in_audio_cached},
        {"audio_cache_read", ex->usage.in_audio_cached},
        {"audio_output", ex->usage.out_audio},
    };

    if (!ex->session)
        return;
    for (size_t i = 0; i < CM_COUNT(figures); i++) {
        cm_buf_append(out, i ? CM_S(",") : CM_S(",\"session\":{"));
        cm_json_put_z(out, figures[i].name);
        cm_buf_put(out, ':');
        cm_json_put_int(out, figures[i].n);
    }
    cm_buf_put(out, '}');
}

/* ---- the beginning ---- */

static int check_numbers(struct exchange *ex, struct cm_err *err)
{
    const struct cm_config *c = ex->snap->config;
    int64_t all = 0, own = 0;

    CM_LIST_EACH(&ex->gw->sessions, link)
    {
        all++;
        own += CM_LIST_ITEM(link, struct session, link)->ex->client_key == ex->client_key;
    }
    if (ex->gw->draining)
        return cm_fail(err, CM_ERR_SHUTTING_DOWN,
                       "the gateway is shutting down: please connect again");
    if (c->realtime.max_sessions_per_key > 0 && own >= c->realtime.max_sessions_per_key) {
        cm_fail(err, CM_ERR_CLIENT_LIMIT,
                "this key may have %lld realtime sessions at once: wait until one ends",
                (long long)c->realtime.max_sessions_per_key);
        err->retry_after_s = 1;
        return -1;
    }
    if (c->realtime.max_sessions <= 0 || all < c->realtime.max_sessions)
        return overload_check(ex->gw, err);
    cm_fail(err, CM_ERR_OVERLOADED, "this gateway has %lld realtime sessions, as many as it may",
            (long long)c->realtime.max_sessions);
    err->retry_after_s = 1;
    return -1;
}

/* What another try of the client needs. */
static void tell_how(struct exchange *ex)
{
    ex->passed = CM_ARENA_ARRAY(&ex->arena, struct cm_header, 2);
    ex->passed[0] = (struct cm_header){CM_S("upgrade"), CM_S("websocket")};
    ex->passed[1] = (struct cm_header){CM_S("sec-websocket-version"), CM_S(CM_WSD_VERSION)};
    ex->n_passed = 2;
}

/* Browsers cannot set headers: this one has a subprotocol instead. */
static void take_beta(struct exchange *ex)
{
    struct cm_chat *chat = ex->chat;

    if (cm_wsd_offers(ex->req, CM_S("openai-beta.realtime-v1")) &&
        cm_header_find(chat->headers, chat->n_headers, CM_S("openai-beta")).n == 0)
        chat->headers[chat->n_headers++] = /* there is room: one header of the request is no such */
            (struct cm_header){CM_S("OpenAI-Beta"), CM_S("realtime=v1")};
}

void serve_realtime(struct exchange *ex, struct cm_str rest)
{
    struct session *s;
    struct cm_err err = {0};

    if (cm_wsd_check(ex->req, &err) < 0) {
        if (err.http_status == 426)
            tell_how(ex);
        exchange_fail(ex, &err);
        return;
    }
    if (check_numbers(ex, &err) < 0) {
        exchange_fail(ex, &err);
        return;
    }
    request_chat(ex, rest);
    take_beta(ex);
    s = CM_ARENA_NEW(&ex->arena, struct session);
    s->ex = ex;
    s->protocol = cm_wsd_offers(ex->req, CM_S("realtime")) ? CM_S("realtime") : CM_STR_NONE;
    cm_deadline_init(&s->clock, on_clock, s);
    cm_list_init(&s->link);
    cm_list_push(&ex->gw->sessions, &s->link);
    ex->session = s;
    ex->body_us = cm_mono_us();
    request_parse(ex);
}
