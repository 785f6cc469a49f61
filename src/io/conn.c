/* One accepted connection on a libuv stream.
 *
 * Reads go into one buffer that all connections share, since they are handed over at once: an idle connection holds none. Writes try the socket
 * first; only what it does not take is queued, as one uv_write at a time while later bytes collect in `out`.
 *
 * TLS sits between the two: what the owner queues in `out` is sealed by cm_conn_flush() and leaves through the wire of io/tls, what comes is opened in
 * tls_input() and handed over piece by piece. */
#include "conn_int.h"

#include "chatmux/base/log.h"

#include <stdlib.h>
#include <sys/socket.h>

#define OUT_KEEP_BYTES                                                                             \
    2048 /* an emptied buffer up to this size is kept for the next event of a stream */
#define RECORD_BYTES 16384 /* plain bytes that fit one TLS record */

/* Owned by libuv until its callback. */
struct conn_write {
    uv_write_t req;
    struct cm_conn *c;
    struct cm_buf bytes;
};

/* ---- wire: the socket itself */

static void on_wire_alloc(uv_handle_t *handle, size_t hint, uv_buf_t *buf)
{
    struct cm_conn *c = handle->data;

    (void)hint;
    *buf = uv_buf_init(c->read_buf, CM_CONN_READ_BYTES);
}

static void tls_input(struct cm_conn *c, struct cm_str bytes);

static void on_wire_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct cm_conn *c = stream->data;

    if (n > 0 && c->tls) {
        tls_input(c, cm_str(buf->base, (size_t)n));
    } else if (n > 0) {
        c->cb->on_data(c, cm_str(buf->base, (size_t)n));
    } else if (n < 0) {
        cm_conn_read(c, false);
        c->cb->on_eof(c, n == UV_EOF ? 0 : (int)n);
    }
}

static void wire_queue(struct cm_conn *c);

/* What goes to the socket next. */
static struct cm_buf *wire_of(struct cm_conn *c)
{
    return c->tls ? cm_tls_wire(c->tls) : &c->out;
}

static void on_wire_written(uv_write_t *req, int status)
{
    struct conn_write *w = CM_CONTAINER(req, struct conn_write, req);
    struct cm_conn *c = w->c;

    cm_buf_clear(&w->bytes);
    free(w);
    c->writing = NULL;
    if (c->closing)
        return;
    if (status != 0) {
        c->lost = status;
        cm_conn_read(c, false);
        c->cb->on_eof(c, status);
        return;
    }
    if (wire_of(c)->n > 0)
        wire_queue(c);
    c->cb->on_sent(c);
}

/* Hands the wire's bytes to libuv, which takes its time. */
static void wire_queue(struct cm_conn *c)
{
    struct conn_write *w = CM_NEW(struct conn_write);
    uv_buf_t buf;
    int rc;

    w->c = c;
    w->bytes = *wire_of(c);
    cm_buf_init(wire_of(c), 0);
    buf = uv_buf_init(w->bytes.p, (unsigned)w->bytes.n);
    rc = uv_write(&w->req, &c->uv.stream, &buf, 1, on_wire_written);
    CM_ASSERT(rc == 0); /* an open stream takes every write; failures come through the callback */
    c->writing = w;
}

/* As much as the socket takes at once; 0 when it is full, else a uv error. */
static ssize_t wire_write(struct cm_conn *c, struct cm_str tail)
{
    const struct cm_buf *out = wire_of(c);
    const uv_buf_t bufs[2] = {
        {.base = out->p, .len = out->n},
        {.base = (char *)(uintptr_t)tail.p, .len = tail.n}, /* libuv only reads it */
    };
    int rc = out->n > 0 ? uv_try_write(&c->uv.stream, bufs, tail.n > 0 ? 2 : 1)
                        : uv_try_write(&c->uv.stream, bufs + 1, 1);

    return rc == UV_EAGAIN ? 0 : rc;
}

static void empty(struct cm_buf *b)
{
    if (b->cap > OUT_KEEP_BYTES)
        cm_buf_clear(b);
    else
        cm_buf_reset(b);
}

static int wire_flush(struct cm_conn *c, struct cm_str tail)
{
    struct cm_buf *out = wire_of(c);
    ssize_t sent;

    if (c->lost != 0)
        return -1;
    if (c->writing) {
        cm_buf_append(out, tail);
        return 0;
    }
    if (out->n + tail.n == 0)
        return 0;
    sent = wire_write(c, tail);
    if (sent < 0) {
        c->lost = (int)sent;
        return -1;
    }
    if ((size_t)sent < out->n + tail.n) {
        if ((size_t)sent > out->n)
            tail = cm_str_from(tail, (size_t)sent - out->n);
        cm_buf_consume(out, (size_t)sent);
        cm_buf_append(out, tail);
        wire_queue(c);
    } else if (c->tls) {
        cm_buf_clear(out); /* `out` of the connection is the one that is kept */
    } else {
        empty(out);
    }
    return 0;
}

/* ---- TLS */

/* What is queued becomes records on the wire: one, if it fits. Before the handshake is done it waits. */
static void tls_seal(struct cm_conn *c, struct cm_str tail)
{
    bool ready = cm_tls_ready(c->tls);

    if (!ready || (c->out.n > 0 && c->out.n + tail.n <= RECORD_BYTES)) {
        cm_buf_append(&c->out, tail);
        tail = CM_STR_NONE;
    }
    if (!ready)
        return;
    cm_tls_write(c->tls, cm_buf_str(&c->out));
    cm_tls_write(c->tls, tail);
    empty(&c->out);
}

/* No callback when the peer is gone: a read tells. */
static void tls_end(struct cm_conn *c)
{
    cm_tls_end(c->tls);
    (void)wire_flush(c, CM_STR_NONE);
}

static void tls_over(struct cm_conn *c, int uv_err)
{
    cm_conn_read(c, false);
    c->cb->on_eof(c, uv_err);
}

static void tls_input(struct cm_conn *c, struct cm_str bytes)
{
    char plain[RECORD_BYTES];
    enum cm_tls_got got;
    size_t n;

    cm_tls_input(c->tls, bytes);
    while ((got = cm_tls_read(c->tls, plain, sizeof(plain), &n)) == CM_TLS_DATA) {
        if (wire_flush(c, CM_STR_NONE) != 0)
            break; /* first, as an owner takes for its own what is queued */
        c->cb->on_data(c, cm_str(plain, n));
        if (c->closing)
            return;
    }
    if (c->out.n > 0)
        tls_seal(c, CM_STR_NONE); /* UNTESTED: an owner that speaks first */
    if (wire_flush(c, CM_STR_NONE) != 0) {
        tls_over(c, c->lost);
    } else if (got == CM_TLS_END) {
        tls_over(c, 0);
    } else if (got == CM_TLS_BROKEN) {
        cm_debug("conn", "%s: TLS broke: %s", c->peer, cm_tls_why(c->tls));
        tls_over(c, UV_EPROTO);
    } else if (got == CM_TLS_PLAIN) {
        cm_debug("conn", "%s: speaks plain HTTP to a TLS port", c->peer);
        cm_conn_shutdown(c); /* reads on, so that the answer is not lost in a reset */
    }
}

/* ---- the connection */

int cm_conn_flush(struct cm_conn *c, struct cm_str tail)
{
    if (c->tls && c->lost == 0) {
        tls_seal(c, tail);
        tail = CM_STR_NONE;
    }
    return wire_flush(c, tail);
}

size_t cm_conn_queued(const struct cm_conn *c)
{
    return c->out.n + (c->tls ? cm_tls_wire(c->tls)->n : 0) + c->uv.stream.write_queue_size;
}

bool cm_conn_greeting(const struct cm_conn *c)
{
    return c->tls && !cm_tls_ready(c->tls);
}

void cm_conn_read(struct cm_conn *c, bool on)
{
    if (c->reading == on || c->closing)
        return;
    c->reading = on;
    if (on)
        uv_read_start(&c->uv.stream, on_wire_alloc, on_wire_read);
    else
        uv_read_stop(&c->uv.stream);
}

void cm_conn_shutdown(struct cm_conn *c)
{
    uv_os_fd_t fd;

    if (c->tls)
        tls_end(c);
    /* The queue is empty, so that libuv's own shutdown would do just this, on a later turn. */
    if (!c->closing && !c->writing && uv_fileno(&c->uv.handle, &fd) == 0)
        shutdown(fd, SHUT_WR);
}

static void on_wire_closed(uv_handle_t *handle)
{
    struct cm_conn *c = handle->data;

    cm_buf_clear(&c->out);
    cm_tls_free(c->tls);
    c->cb->on_closed(c);
}

void cm_conn_close(struct cm_conn *c)
{
    if (c->closing)
        return;
    if (c->tls && c->lost == 0 && cm_conn_queued(c) == 0)
        tls_end(c);
    c->closing = true;
    uv_close(&c->uv.handle,
             on_wire_closed); /* a write in flight is called back before, with UV_ECANCELED */
}

static void name_peer(struct cm_conn *c)
{
    struct sockaddr_storage addr;
    int n = sizeof(addr);

    if (c->uv.handle.type != UV_TCP) {
        cm_str_copy(c->peer, sizeof(c->peer), CM_S("unix"));
        return;
    }
    if (uv_tcp_getpeername(&c->uv.tcp, (struct sockaddr *)&addr, &n) != 0)
        return; /* left already: the first read tells */
    if (addr.ss_family == AF_INET)
        uv_ip4_name((struct sockaddr_in *)&addr, c->peer, sizeof(c->peer));
    else
        uv_ip6_name((struct sockaddr_in6 *)&addr, c->peer, sizeof(c->peer));
    if (cm_str_starts(cm_str_of(c->peer), CM_S("::ffff:")) && strchr(c->peer, '.'))
        memmove(c->peer, c->peer + 7,
                strlen(c->peer + 7) + 1); /* IPv4 through a dual-stack listener */
}

int cm_conn_accept(struct cm_conn *c, uv_stream_t *server, struct cm_tls *tls, char *read_buf,
                   const struct cm_conn_cb *cb)
{
    int rc;

    *c = (struct cm_conn){.cb = cb, .read_buf = read_buf};
    if (server->type == UV_TCP)
        rc = uv_tcp_init(server->loop, &c->uv.tcp);
    else
        rc = uv_pipe_init(server->loop, &c->uv.pipe, 0);
    CM_ASSERT(rc == 0); /* without flags nothing can fail */
    c->uv.handle.data = c;
    rc = uv_accept(server, &c->uv.stream);
    if (rc != 0) {
        cm_conn_close(c);
        return rc;
    }
    if (tls && server->type == UV_TCP)
        c->tls = cm_tls_accept(tls);
    name_peer(c);
    return 0;
}
