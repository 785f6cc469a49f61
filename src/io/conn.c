/* One accepted connection on a libuv stream.
 *
 * Reads go into one buffer that all connections share, since they are handed over at once: an idle connection holds none. Writes try the socket
 * first; only what it does not take is queued, as one uv_write at a time while later bytes collect in `out`. */
#include "conn_int.h"

#include <stdlib.h>
#include <sys/socket.h>

#define OUT_KEEP_BYTES                                                                             \
    2048 /* an emptied buffer up to this size is kept for the next event of a stream */

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

static void on_wire_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct cm_conn *c = stream->data;

    if (n > 0) {
        c->cb->on_data(c, cm_str(buf->base, (size_t)n));
    } else if (n < 0) {
        cm_conn_read(c, false);
        c->cb->on_eof(c, n == UV_EOF ? 0 : (int)n);
    }
}

static void wire_queue(struct cm_conn *c);

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
    if (c->out.n > 0)
        wire_queue(c);
    c->cb->on_sent(c);
}

/* Hands `out` to libuv, which takes its time. */
static void wire_queue(struct cm_conn *c)
{
    struct conn_write *w = CM_NEW(struct conn_write);
    uv_buf_t buf;
    int rc;

    w->c = c;
    w->bytes = c->out;
    cm_buf_init(&c->out, 0);
    buf = uv_buf_init(w->bytes.p, (unsigned)w->bytes.n);
    rc = uv_write(&w->req, &c->uv.stream, &buf, 1, on_wire_written);
    CM_ASSERT(rc == 0); /* an open stream takes every write; failures come through the callback */
    c->writing = w;
}

/* As much as the socket takes at once; 0 when it is full, else a uv error. */
static ssize_t wire_write(struct cm_conn *c, struct cm_str tail)
{
    const uv_buf_t bufs[2] = {
        {.base = c->out.p, .len = c->out.n},
        {.base = (char *)(uintptr_t)tail.p, .len = tail.n}, /* libuv only reads it */
    };
    int rc = c->out.n > 0 ? uv_try_write(&c->uv.stream, bufs, tail.n > 0 ? 2 : 1)
                          : uv_try_write(&c->uv.stream, bufs + 1, 1);

    return rc == UV_EAGAIN ? 0 : rc;
}

/* ---- the connection */

int cm_conn_flush(struct cm_conn *c, struct cm_str tail)
{
    ssize_t sent;

    if (c->lost != 0)
        return -1;
    if (c->writing) {
        cm_buf_append(&c->out, tail);
        return 0;
    }
    if (c->out.n + tail.n == 0)
        return 0;
    sent = wire_write(c, tail);
    if (sent < 0) {
        c->lost = (int)sent;
        return -1;
    }
    if ((size_t)sent < c->out.n + tail.n) {
        if ((size_t)sent > c->out.n)
            tail = cm_str_from(tail, (size_t)sent - c->out.n);
        cm_buf_consume(&c->out, (size_t)sent);
        cm_buf_append(&c->out, tail);
        wire_queue(c);
    } else if (c->out.cap > OUT_KEEP_BYTES) {
        cm_buf_clear(&c->out);
    } else {
        cm_buf_reset(&c->out);
    }
    return 0;
}

size_t cm_conn_queued(const struct cm_conn *c)
{
    return c->out.n + c->uv.stream.write_queue_size;
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

    /* The queue is empty, so that libuv's own shutdown would do just this, on a later turn. */
    if (!c->closing && uv_fileno(&c->uv.handle, &fd) == 0)
        shutdown(fd, SHUT_WR);
}

static void on_wire_closed(uv_handle_t *handle)
{
    struct cm_conn *c = handle->data;

    cm_buf_clear(&c->out);
    c->cb->on_closed(c);
}

void cm_conn_close(struct cm_conn *c)
{
    if (c->closing)
        return;
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

int cm_conn_accept(struct cm_conn *c, uv_stream_t *server, char *read_buf,
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
    name_peer(c);
    return 0;
}
