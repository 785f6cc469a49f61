/* One accepted connection: bytes in, bytes out, and its end. Loop thread only.
 *
 * Embedded in its owner. With TLS the owner reads and writes plain bytes all the same; only cm_conn_greeting() shows it. */
#ifndef CHATMUX_IO_CONN_INT_H
#define CHATMUX_IO_CONN_INT_H

#include "chatmux/base/buf.h"
#include "chatmux/io/loop.h"
#include "chatmux/io/tls.h"

#define CM_CONN_PEER_CAP 46 /* INET6_ADDRSTRLEN */
#define CM_CONN_READ_BYTES 65536

struct cm_conn;

struct cm_conn_cb {
    void (*on_data)(struct cm_conn *c, struct cm_str bytes); /* valid until the return */
    /* Nothing more comes. uv_err 0: the peer has ended its side, else why the connection is lost. */
    void (*on_eof)(struct cm_conn *c, int uv_err);
    /* A part of the queue has left after it could not at first. */
    void (*on_sent)(struct cm_conn *c);
    /* The last callback: the memory belongs to the owner again. */
    void (*on_closed)(struct cm_conn *c);
};

struct cm_conn {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
    const struct cm_conn_cb *cb;
    char *read_buf;             /* not owned: CM_CONN_READ_BYTES, shared by all connections */
    struct cm_tls_conn *tls;    /* owned; NULL = plain */
    struct cm_buf out;          /* not handed to the kernel (or to TLS) yet */
    struct conn_write *writing; /* handed to libuv, which waits for the socket; NULL = none */
    int lost;                   /* uv error of a write; nothing is sent any more */
    bool reading, closing;
    char peer[CM_CONN_PEER_CAP]; /* address without port, "unix" */
};

/* Takes the connection that waits at `server`. tls: what a TCP connection must speak; NULL = plain. Returns a uv error; on_closed comes in either case,
 * after cm_conn_close() or by itself on failure. */
int cm_conn_accept(struct cm_conn *c, uv_stream_t *server, struct cm_tls *tls, char *read_buf,
                   const struct cm_conn_cb *cb);

/* The TLS handshake is not done. */
bool cm_conn_greeting(const struct cm_conn *c);

void cm_conn_read(struct cm_conn *c, bool on);

/* What is appended to c->out goes out with the next cm_conn_flush(), together with `tail`, in one write as far as the kernel takes it; the rest is
 * queued. -1 when the connection is lost (c->lost): no callback tells of it then. */
int cm_conn_flush(struct cm_conn *c, struct cm_str tail);
size_t cm_conn_queued(const struct cm_conn *c);

/* Ends our side, after the queue is empty. With TLS a peer then knows that nothing was cut off. */
void cm_conn_shutdown(struct cm_conn *c);
/* Final: only on_closed comes. What is queued is dropped; with an empty queue TLS is ended properly. */
void cm_conn_close(struct cm_conn *c);

#endif
