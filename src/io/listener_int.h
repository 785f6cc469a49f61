/* Listening sockets: addresses, accepting, and waiting when there are enough connections. Loop thread only. */
#ifndef CHATMUX_IO_LISTENER_INT_H
#define CHATMUX_IO_LISTENER_INT_H

#include "chatmux/base/err.h"
#include "chatmux/base/list.h"
#include "chatmux/io/loop.h"

/* One socket; an address may need several ("localhost"). Owned by its set until it is closed, then by libuv until the close callback. */
struct cm_listener {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
    struct cm_list link;
    struct cm_listeners *set;
    size_t index; /* of its address */
    int port;     /* 0 for a unix socket */
    bool any4;    /* listens on 0.0.0.0 */
    bool waiting; /* a connection waits for the owner's leave */
};

struct cm_listeners {
    struct cm_loop *loop;
    struct cm_list all; /* of cm_listener, owned */
    size_t n_addresses;
    /* Takes the connection with cm_conn_accept() and returns true, or false: then it waits, and so do later ones, until cm_listeners_resume(). */
    bool (*on_connection)(void *arg, uv_stream_t *server);
    void *arg;
};

void cm_listeners_init(struct cm_listeners *set, struct cm_loop *loop);
int cm_listeners_add(struct cm_listeners *set, struct cm_str address, struct cm_err *err);
int cm_listeners_port(const struct cm_listeners *set, size_t address);
void cm_listeners_resume(struct cm_listeners *set);
/* No callback follows; the sockets free themselves. Repeatable. */
void cm_listeners_close(struct cm_listeners *set);

#endif
