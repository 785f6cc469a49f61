/* Patience of the HTTP server: how long a connection may take for what it does, and what becomes of it then. */
#include "httpd_int.h"

#define BODY_FLOOR_BYTES 4096u /* a body brings at least so much in each body_timeout */
#define DRAIN_GRACE_MS                                                                             \
    500u /* a request may be on its way on a connection that served a moment ago */

/* ---- how long */

void hconn_set_due(struct hconn *c, uint64_t due_ms)
{
    if (c->conn.closing)
        return;
    c->due_ms = due_ms;
    if (due_ms > 0 && (c->deadline.slot == SIZE_MAX || c->deadline.at_ms > due_ms))
        cm_deadline_set(c->h->loop, &c->deadline, due_ms);
}

/* A queue that moves is not dead. */
static uint64_t stall_due(struct hconn *c)
{
    size_t queued = cm_conn_queued(&c->conn);

    if (queued != c->mark) {
        c->mark = queued;
        c->last_ms = hconn_now_ms(c);
    }
    return c->last_ms + (uint64_t)c->h->setup.body_timeout_ms;
}

static uint64_t body_due(const struct hconn *c)
{
    uint64_t from_ms = c->last_ms < c->since_ms ? c->last_ms : c->since_ms;

    return from_ms + (uint64_t)c->h->setup.body_timeout_ms;
}

static uint64_t head_due(struct hconn *c)
{
    const struct cm_httpd_setup *setup = &c->h->setup;

    if (cm_conn_queued(&c->conn) > 0)
        return stall_due(c);
    if (c->h1.state == CM_H1_HEAD || cm_conn_greeting(&c->conn))
        return c->since_ms + (uint64_t)setup->header_timeout_ms;
    if (c->h->draining)
        return c->since_ms + DRAIN_GRACE_MS;
    return c->since_ms + (uint64_t)setup->keepalive_timeout_ms;
}

void hconn_rearm(struct hconn *c)
{
    switch (c->state) {
    case STATE_HEAD:
        hconn_set_due(c, head_due(c));
        return;
    case STATE_HOLD:
    case STATE_WAIT:
    case STATE_UPGRADED:
        hconn_set_due(c, 0); /* the handler has clocks of its own */
        return;
    case STATE_BODY:
    case STATE_DISCARD:
        hconn_set_due(c, body_due(c));
        return;
    case STATE_FLUSH:
        if (!c->aborted)
            hconn_set_due(c, stall_due(c));
        return;
    case STATE_LINGER:
        return; /* set when it began */
    }
}

/* ---- it ends */

static void body_late(struct hconn *c)
{
    uint64_t now = hconn_now_ms(c), timeout = (uint64_t)c->h->setup.body_timeout_ms;
    struct cm_err err;

    if (now - c->last_ms < timeout && c->h1.body_n - c->mark >= BODY_FLOOR_BYTES) {
        c->since_ms = now;
        c->mark = c->h1.body_n;
        hconn_rearm(c);
        return;
    }
    if (c->state == STATE_DISCARD) {
        hconn_close(c);
        return;
    }
    cm_fail(&err, CM_ERR_TIMEOUT_CLIENT, "the request body came too slowly: %llu bytes so far",
            (unsigned long long)c->h1.body_n);
    hconn_refuse(c, &err);
}

void hconn_on_deadline(void *arg)
{
    struct hconn *c = arg;
    struct cm_err err;

    if (c->due_ms == 0)
        return; /* a request is being served; set again after it */
    hconn_rearm(c);
    if (c->due_ms > hconn_now_ms(c)) {
        cm_deadline_set(c->h->loop, &c->deadline, c->due_ms);
        return;
    }
    switch (c->state) {
    case STATE_HEAD:
        if (cm_conn_queued(&c->conn) > 0 || c->h1.state != CM_H1_HEAD) {
            hconn_close(c);
            return;
        }
        cm_fail(&err, CM_ERR_TIMEOUT_CLIENT, "the request head was not complete within %lld ms",
                (long long)c->h->setup.header_timeout_ms);
        hconn_refuse(c, &err);
        return;
    case STATE_BODY:
    case STATE_DISCARD:
        body_late(c);
        return;
    case STATE_HOLD:
    case STATE_WAIT:
    case STATE_UPGRADED:
        return;
    case STATE_FLUSH:
    case STATE_LINGER:
        hconn_close(c);
        return;
    }
}
