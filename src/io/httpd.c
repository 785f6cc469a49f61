/* HTTP/1.1 server.
 *
 * Happy path of a connection: HEAD (bytes -> head -> on_request) -> HOLD (the handler has not asked for the body) -> BODY (collects it ->
 * on_body) -> WAIT (the answer is due) -> HEAD. Without a body HOLD and BODY are skipped.
 * Side ways: the answer ended before the body: DISCARD, then HEAD. Framing errors, time-outs and sizes: the answer is made here, then FLUSH
 * (what is queued goes out) -> LINGER (our side is shut, what the client still sends is thrown away, so that it reads the answer and not a
 * reset) -> closed. The client leaves: on_gone -> closed, at once. An upgrade: WAIT -> UPGRADED (bytes go to the handler as they are) -> FLUSH.
 *
 * A client that ends its side while a request is open counts as gone, as with nginx: a half-closed connection looks just like one whose
 * client has left. Requests that had arrived complete before that are answered.
 *
 * conn_run() is a loop over the bytes at hand and the only place that parses, so that a thousand pipelined requests need no stack. Handlers
 * run from within it; what they do (answer, ask for the body, abort) changes the state that the loop looks at next. What it cannot use yet is
 * kept in `in`, and a task goes on with it. */
#include "httpd_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/secret.h"

#include <stdlib.h>

#define BACKLOG_BYTES 65536 /* pipelined bytes kept; more stay in the kernel */
#define SERVE_PER_TURN 16u  /* pipelined requests of one connection before others get their turn */
#define BODY_FIRST_BYTES 65536u /* taken on Content-Length's word; more only as bytes come */
#define LINGER_BYTES (4u << 20)
#define LINGER_MS 2000u
#define ABORT_MS 10000u   /* for what is queued when a response is aborted */
#define IDLE_MS 1000u     /* so long without a request, and a connection makes room at the limit */
#define REFUSED_MAX 32u   /* connections beyond the limit, that are only told so */
#define REFUSED_AGAIN_S 2 /* when they may come back */

static const char *state_name(enum state s)
{
    static const char *const names[] = {
#define X(name) #name,
        STATES(X)
#undef X
    };
    return names[s];
}

uint64_t hconn_now_ms(const struct hconn *c)
{
    return cm_loop_now_ms(c->h->loop);
}

/* ---- ends */

void hconn_close(struct hconn *c)
{
    cm_task_cancel(&c->task);
    cm_deadline_clear(c->h->loop, &c->deadline);
    cm_conn_close(&c->conn);
}

void httpd_req_free(struct req *r)
{
    cm_buf_clear(&r->body);
    cm_arena_clear(&r->pub.arena);
    free(r);
}

/* The handler hears of the end of a request that it did not end. */
static void req_gone(struct hconn *c, const struct cm_err *why)
{
    struct req *r = c->req;

    if (!r)
        return;
    c->req = NULL;
    r->c = NULL;
    if (r->cb && r->cb->on_gone)
        r->cb->on_gone(r->arg, &r->pub, why);
    httpd_req_free(r);
}

static void conn_drop(struct hconn *c)
{
    req_gone(c, NULL);
    hconn_close(c);
}

/* FLUSH is done. */
static void conn_flushed(struct hconn *c)
{
    bool between = c->h1.state == CM_H1_END || c->h1.state == CM_H1_LEAD;

    if (c->eof || (between && c->in.n == 0)) {
        hconn_close(c);
        return;
    }
    cm_conn_shutdown(&c->conn);
    if (!c->running) /* else conn_run() is reading it, and is done with it next */
        cm_buf_clear(&c->in);
    c->state = STATE_LINGER;
    c->mark = 0;
    hconn_set_due(c, hconn_now_ms(c) + LINGER_MS);
    cm_conn_read(&c->conn, true);
}

/* No request is open any more; what is queued still goes out. */
void hconn_end(struct hconn *c, bool aborted)
{
    if (c->conn.closing)
        return;
    if (cm_conn_flush(&c->conn, CM_STR_NONE) != 0) {
        hconn_close(c);
        return;
    }
    c->state = STATE_FLUSH;
    c->aborted = aborted;
    c->mark = 0;
    if (cm_conn_queued(&c->conn) == 0) {
        conn_flushed(c);
        return;
    }
    if (aborted)
        hconn_set_due(c, hconn_now_ms(c) + ABORT_MS); /* UNTESTED: that it ends takes 10 s */
    else
        hconn_rearm(c);
}

void hconn_refuse(struct hconn *c, const struct cm_err *err)
{
    bool cut = c->req && c->req->started; /* too late for an answer */

    cm_debug("httpd", "%s: refused in %s, closes: %s", c->conn.peer, state_name(c->state),
             err->msg);
    if (!cut)
        httpd_put_error(c, err);
    req_gone(c, err);
    hconn_end(c, cut);
}

/* ---- requests */

static struct req *req_new(struct hconn *c, struct cm_str used, struct cm_err *err)
{
    struct req *r = CM_NEW(struct req);
    struct cm_h1_head head;

    r->pub.arena.secret = true;
    if (cm_h1_head(&c->h1, used, &r->pub.arena, &head, err) != 0) {
        httpd_req_free(r);
        return NULL;
    }
    r->c = c;
    r->keep = head.keep_alive &&
              !cm_str_eq(head.method, CM_S("CONNECT")); /* what follows that is no HTTP */
    r->expects = head.expects_continue;
    r->pub.method = head.method;
    r->pub.target = head.target;
    r->pub.path = head.path;
    r->pub.query = head.query;
    r->pub.headers = head.headers;
    r->pub.n_headers = head.n_headers;
    r->pub.peer = cm_str_of(c->conn.peer);
    r->pub.head = cm_str_eq(head.method, CM_S("HEAD"));
    r->pub.has_body = c->h1.state != CM_H1_END;
    r->pub.content_length = head.content_length;
    r->pub.http_minor = head.minor;
    r->pub.began_us = c->began_us;
    return r;
}

/* Back to the start, for the next request. */
void hconn_next(struct hconn *c)
{
    if (c->conn.out.n == 0)
        cm_buf_clear(&c->conn.out); /* an idle connection holds no buffers */
    c->state = STATE_HEAD;
    c->since_ms = hconn_now_ms(c);
    c->mark = 0;
    cm_h1_reset(&c->h1, (size_t)c->h->setup.max_header_bytes);
}

/* The handler wants the body. */
static void body_begin(struct hconn *c, struct cm_str rest)
{
    struct req *r = c->req;

    c->state = STATE_BODY;
    c->since_ms = c->last_ms = hconn_now_ms(c);
    c->mark = 0;
    c->h1.body = &r->body;
    c->h1.body_max = r->body_max;
    if (c->h1.state == CM_H1_LENGTH && c->h1.left > c->h1.body_max)
        return; /* refused before a byte of it */
    if (c->h1.state == CM_H1_LENGTH) {
        r->body.limit = (size_t)c->h1.left;
        cm_buf_reserve(&r->body,
                       c->h1.left < BODY_FIRST_BYTES ? (size_t)c->h1.left : BODY_FIRST_BYTES);
    }
    if (r->expects && rest.n == 0 && !r->started) {
        cm_buf_append(&c->conn.out, CM_S("HTTP/1.1 100 Continue\r\n\r\n"));
        hconn_send(c, CM_STR_NONE);
    }
    r->expects = false;
}

/* Parses a head and hands it over. Returns the bytes used; those of an incomplete head stay. */
static size_t run_head(struct hconn *c, struct cm_str rest)
{
    struct cm_err err;
    size_t used;

    if (c->h1.state == CM_H1_LEAD) {
        c->began_us = cm_mono_us();
        c->since_ms = hconn_now_ms(c);
    }
    switch (cm_h1_next(&c->h1, rest, &used, &err)) {
    case CM_H1_GOT_HEAD:
        c->req = req_new(c, cm_str_head(rest, used), &err);
        if (!c->req)
            break;
        if (c->refused) {
            cm_fail(&err, CM_ERR_OVERLOADED,
                    "all %lld connections of this gateway are busy: come back in %d s",
                    (long long)c->h->setup.max_connections, REFUSED_AGAIN_S);
            err.retry_after_s = REFUSED_AGAIN_S;
            break;
        }
        c->state = c->req->pub.has_body ? STATE_HOLD : STATE_WAIT;
        c->h->handler.on_request(c->h->handler.arg, &c->req->pub);
        return used;
    case CM_H1_MORE:
    case CM_H1_GOT_END:
        return used;
    case CM_H1_ERROR:
        break;
    }
    hconn_refuse(c, &err);
    return rest.n;
}

static size_t run_body(struct hconn *c, struct cm_str rest)
{
    struct cm_err err;
    size_t used;
    enum cm_h1_event ev = cm_h1_next(&c->h1, rest, &used, &err);

    if (used > 0)
        c->last_ms = hconn_now_ms(c);
    if (c->req)
        c->req->pub.bytes_in = c->h1.body_n;
    if (ev == CM_H1_ERROR && c->state == STATE_DISCARD)
        hconn_end(c, false); /* answered already */
    else if (ev == CM_H1_ERROR)
        hconn_refuse(c, &err);
    else if (ev == CM_H1_GOT_END && c->state == STATE_DISCARD)
        hconn_next(c);
    else if (ev == CM_H1_GOT_END)
        c->state = STATE_WAIT;
    return used;
}

/* Its handler may end it from within. */
static size_t run_upgraded(struct hconn *c, struct cm_str rest)
{
    const struct cm_upgrade *up = c->req->up;
    uint64_t before = c->req->pub.bytes_in;
    size_t used;

    c->req->pub.bytes_in += rest.n;
    used = up->on_bytes(up->arg, rest);
    if (c->state == STATE_UPGRADED)
        c->req->pub.bytes_in = before + used;
    return used;
}

/* Goes as far as it can; returns how many bytes it is done with. */
static size_t conn_run(struct hconn *c, struct cm_str in)
{
    unsigned served = 0;
    size_t at = 0;

    while (!c->conn.closing) {
        struct cm_str rest = cm_str_from(in, at);
        size_t used;

        switch (c->state) {
        case STATE_HEAD:
            if (rest.n == 0 || cm_conn_queued(&c->conn) > 0)
                return at; /* one who does not read answers need not ask */
            if (served++ == SERVE_PER_TURN) {
                cm_task_post(c->h->loop, &c->task);
                return at;
            }
            used = run_head(c, rest);
            at += used;
            if (c->state == STATE_HEAD && c->h1.state == CM_H1_HEAD)
                return at; /* incomplete */
            break;
        case STATE_HOLD:
            if (!c->req->reading)
                return at;
            body_begin(c, rest);
            at += run_body(c, rest);
            break;
        case STATE_BODY:
        case STATE_DISCARD:
            if (rest.n == 0)
                return at;
            at += run_body(c, rest);
            break;
        case STATE_WAIT:
            if (!c->req->reading || c->req->told)
                return at;
            c->req->told = true;
            if (c->req->cb && c->req->cb->on_body)
                c->req->cb->on_body(c->req->arg, &c->req->pub, cm_buf_str(&c->req->body));
            break;
        case STATE_UPGRADED:
            if (rest.n == 0 || c->req->held)
                return at;
            used = run_upgraded(c, rest);
            if (used == 0 && c->state == STATE_UPGRADED)
                return at; /* it holds */
            at += used;
            break;
        case STATE_FLUSH:
        case STATE_LINGER:
            c->mark += c->state == STATE_LINGER ? rest.n : 0;
            if (c->state == STATE_LINGER && c->mark > LINGER_BYTES)
                hconn_close(c);
            return in.n;
        }
    }
    return in.n;
}

/* After anything that moved the connection: reads as long as there is room, and waits no longer than it should. */
void hconn_settle(struct hconn *c)
{
    bool queued = cm_conn_queued(&c->conn) > 0, blocked;

    if (c->conn.closing)
        return;
    blocked = c->state == STATE_HEAD ? queued || !cm_list_empty(&c->task.link)
                                     : c->state == STATE_HOLD || c->state == STATE_WAIT ||
                                           (c->state == STATE_UPGRADED && c->req->held);
    if (c->eof && !c->req && !blocked && c->state != STATE_FLUSH) {
        hconn_end(c, false); /* all that came before has been answered */
        return;
    }
    cm_conn_read(&c->conn, !c->eof && !(blocked && c->in.n >= BACKLOG_BYTES));
    hconn_rearm(c);
}

/* Goes on with what was kept. */
static void conn_resume(struct hconn *c)
{
    size_t used;

    c->running = true;
    used = conn_run(c, cm_buf_str(&c->in));
    c->running = false;
    cm_buf_consume(&c->in, used);
    if (c->in.n == 0)
        cm_buf_clear(&c->in);
    hconn_settle(c);
}

static void on_data(struct cm_conn *conn, struct cm_str bytes)
{
    struct hconn *c = CM_CONTAINER(conn, struct hconn, conn);
    size_t used;

    if (c->in.n > 0) {
        cm_buf_append(&c->in, bytes);
        conn_resume(c);
        return;
    }
    c->running = true;
    used = conn_run(c, bytes);
    c->running = false;
    if (used < bytes.n && !c->conn.closing)
        cm_buf_append(&c->in, cm_str_from(bytes, used));
    hconn_settle(c);
}

static void on_eof(struct cm_conn *conn, int uv_err)
{
    struct hconn *c = CM_CONTAINER(conn, struct hconn, conn);

    c->eof = true;
    if (uv_err != 0 || c->req || c->state == STATE_LINGER)
        conn_drop(c);
    else
        hconn_settle(c);
}

static void tell_drain(struct hconn *c)
{
    struct req *r = c->req;

    if (!r || !r->high || cm_conn_queued(&c->conn) >= CM_HTTPD_LOW)
        return;
    r->high = false;
    if (r->cb && r->cb->on_drain)
        r->cb->on_drain(r->arg, &r->pub);
}

static void on_sent(struct cm_conn *conn)
{
    struct hconn *c = CM_CONTAINER(conn, struct hconn, conn);

    tell_drain(c);
    if (c->conn.closing || cm_conn_queued(&c->conn) > 0)
        return;
    if (c->state == STATE_FLUSH)
        conn_flushed(c);
    else
        conn_resume(c);
}

static void on_task(void *arg)
{
    struct hconn *c = arg;

    if (c->conn.lost != 0) {
        conn_drop(c);
        return;
    }
    tell_drain(c);
    if (!c->conn.closing)
        conn_resume(c);
}

/* ---- connections */

static void httpd_free(struct cm_httpd *h)
{
    cm_tls_unref(h->tls);
    cm_secret_free(h->read_buf);
    free(h);
}

static void on_closed(struct cm_conn *conn)
{
    struct hconn *c = CM_CONTAINER(conn, struct hconn, conn);
    struct cm_httpd *h = c->h;

    CM_ASSERT(c->deadline.slot == SIZE_MAX && cm_list_empty(&c->task.link));
    cm_list_remove(&c->link);
    cm_buf_clear(&c->in);
    free(c);
    h->n_conns--;
    if (h->closing && h->n_conns == 0)
        httpd_free(h);
    else if (h->draining && h->n_conns == 0)
        cm_task_post(h->loop, &h->idle_task);
    else if (!h->closing)
        cm_listeners_resume(&h->listeners);
}

static const struct cm_conn_cb conn_callbacks = {on_data, on_eof, on_sent, on_closed};

/* The connection that has been without a request for longest; NULL when all are at work, or were a moment ago. */
static struct hconn *longest_idle(struct cm_httpd *h)
{
    struct hconn *found = NULL;

    CM_LIST_EACH(&h->conns, link)
    {
        struct hconn *c = CM_LIST_ITEM(link, struct hconn, link);

        if (c->state == STATE_HEAD && c->h1.state == CM_H1_LEAD && c->in.n == 0 && !c->running &&
            !c->conn.closing && (!found || c->since_ms < found->since_ms))
            found = c;
    }
    return found && cm_loop_now_ms(h->loop) - found->since_ms >= IDLE_MS ? found : NULL;
}

/* At the limit an idle connection makes room; when none is idle, some more are accepted to be told so, and the others wait with the kernel. */
static bool may_accept(struct cm_httpd *h, bool *refused)
{
    size_t max = (size_t)h->setup.max_connections;
    struct hconn *idle;

    *refused = false;
    if (h->n_conns < max)
        return true;
    idle = longest_idle(h);
    if (idle) {
        hconn_close(idle); /* on_closed() goes on */
        return false;
    }
    cm_warn("httpd", "%zu connections are open: new ones are refused", h->n_conns);
    *refused = true;
    return h->n_conns < max + REFUSED_MAX;
}

static bool on_connection(void *arg, uv_stream_t *server)
{
    struct cm_httpd *h = arg;
    struct hconn *c;
    bool refused;

    if (!may_accept(h, &refused))
        return false;
    c = CM_NEW(struct hconn);
    c->h = h;
    c->refused = refused;
    cm_list_push(&h->conns, &c->link);
    h->n_conns++;
    cm_task_init(&c->task, on_task, c);
    cm_deadline_init(&c->deadline, hconn_on_deadline, c);
    if (cm_conn_accept(&c->conn, server, h->tls, h->read_buf, &conn_callbacks) != 0)
        return true; /* closes itself */
    hconn_next(c);
    hconn_settle(c);
    return true;
}

/* ---- the server */

static void on_idle_task(void *arg)
{
    struct cm_httpd *h = arg;
    void (*on_idle)(void *arg) = h->on_idle;

    h->on_idle = NULL;
    if (on_idle)
        on_idle(h->idle_arg);
}

struct cm_httpd *cm_httpd_new(struct cm_loop *loop, const struct cm_httpd_setup *setup,
                              const struct cm_httpd_handler *handler)
{
    struct cm_httpd *h = CM_NEW(struct cm_httpd);

    h->loop = loop;
    h->setup = *setup;
    h->handler = *handler;
    h->read_buf = cm_secret_alloc(CM_CONN_READ_BYTES); /* heads have the keys of clients */
    cm_list_init(&h->conns);
    cm_task_init(&h->idle_task, on_idle_task, h);
    cm_listeners_init(&h->listeners, loop);
    h->listeners.on_connection = on_connection;
    h->listeners.arg = h;
    return h;
}

void cm_httpd_limits(struct cm_httpd *h, const struct cm_httpd_setup *setup)
{
    h->setup = *setup;
    cm_listeners_resume(&h->listeners);
}

void cm_httpd_tls(struct cm_httpd *h, struct cm_tls *tls)
{
    cm_tls_unref(h->tls);
    h->tls = tls;
}

int cm_httpd_listen(struct cm_httpd *h, struct cm_str address, struct cm_err *err)
{
    return cm_listeners_add(&h->listeners, address, err);
}

int cm_httpd_port(const struct cm_httpd *h, size_t n)
{
    return cm_listeners_port(&h->listeners, n);
}

size_t cm_httpd_connections(const struct cm_httpd *h)
{
    return h->n_conns;
}

void cm_httpd_drain(struct cm_httpd *h, void (*on_idle)(void *arg), void *arg)
{
    h->on_idle = on_idle;
    h->idle_arg = arg;
    h->draining = true;
    cm_listeners_close(&h->listeners);
    CM_LIST_EACH(&h->conns, link)
    {
        struct hconn *c = CM_LIST_ITEM(link, struct hconn, link);

        if (!c->running)
            hconn_rearm(
                c); /* idle ones close within DRAIN_GRACE_MS, most of them with the next timer */
    }
    if (h->n_conns == 0)
        cm_task_post(h->loop, &h->idle_task);
}

void cm_httpd_close(struct cm_httpd *h)
{
    if (!h || h->closing)
        return;
    h->closing = true;
    h->on_idle = NULL;
    cm_task_cancel(&h->idle_task);
    cm_listeners_close(&h->listeners);
    if (h->n_conns == 0) {
        httpd_free(h);
        return;
    }
    CM_LIST_EACH(&h->conns, link)
    conn_drop(CM_LIST_ITEM(link, struct hconn, link));
}

/* ---- what handlers ask */

struct cm_str cm_req_header(const struct cm_req *req, struct cm_str name)
{
    return cm_header_find(req->headers, req->n_headers, name);
}

void cm_req_listen(struct cm_req *req, const struct cm_req_cb *cb, void *arg)
{
    struct req *r = req_of(req);

    r->cb = cb;
    r->arg = arg;
}

void cm_req_read(struct cm_req *req, size_t max_bytes)
{
    struct req *r = req_of(req);
    size_t max;

    if (!r->c)
        return;
    CM_ASSERT(!r->reading);
    max = (size_t)r->c->h->setup.max_body_bytes;
    r->reading = true;
    r->body_max = max_bytes < max ? max_bytes : max;
    if (!r->c->running)
        cm_task_post(r->c->h->loop, &r->c->task);
}

struct cm_buf cm_req_take_body(struct cm_req *req)
{
    struct req *r = req_of(req);
    struct cm_buf body = r->body;

    body.limit = 0;
    cm_buf_init(&r->body, 0);
    return body;
}
