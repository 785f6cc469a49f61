/* What the files of the HTTP server share: a connection, its request, the server. httpd.c reads, httpd_time.c keeps time, httpd_resp.c answers. */
#ifndef CHATMUX_HTTPD_INT_H
#define CHATMUX_HTTPD_INT_H

#include "chatmux/io/httpd.h"
#include "conn_int.h"
#include "http1_int.h"
#include "listener_int.h"

#define DISCARD_BYTES 262144u /* of a body nobody wants, to keep the connection */

#define STATES(X) X(HEAD) X(HOLD) X(BODY) X(WAIT) X(UPGRADED) X(DISCARD) X(FLUSH) X(LINGER)
enum state {
#define X(name) STATE_##name,
    STATES(X)
#undef X
};

struct hconn;

struct req {
    struct cm_req pub;
    struct hconn *c; /* NULL once it is over: a late call does nothing */
    const struct cm_req_cb *cb;
    void *arg;
    struct cm_buf body;
    size_t body_max;
    bool reading; /* the handler wants the body */
    bool told;    /* and has it */
    bool keep;    /* the connection may serve another request */
    bool expects; /* the client waits for 100 Continue before it sends the body */
    bool started; /* the response head is queued */
    bool mute;    /* HEAD, 204, 304: no body goes out */
    bool chunked;
    bool high; /* cm_resp_write() has said more than CM_HTTPD_HIGH: on_drain is owed */
    bool held; /* UPGRADED: its bytes stay where they are */
    const struct cm_upgrade *up; /* the handler's; NULL = HTTP */
};

struct hconn {
    struct cm_conn conn;
    struct cm_httpd *h;
    struct cm_list link; /* in h->conns */
    struct cm_h1 h1;
    struct req *req;             /* owned; NULL between requests */
    struct cm_buf in;            /* read and not parsed; a head that is not complete */
    struct cm_task task;         /* goes on with `in`, tells of a lost connection */
    struct cm_deadline deadline; /* never later than due_ms; moved when it fires */
    uint64_t due_ms;             /* when patience ends; 0 = not now */
    uint64_t began_us;           /* HEAD: first byte of the request */
    /* What they mean depends on the state. HEAD: since_ms idle, or the head began; last_ms the queue moved, mark its size then.
     * BODY, DISCARD: since_ms a period of BODY_FLOOR_BYTES began, mark bytes by then; last_ms last byte.
     * FLUSH: last_ms the queue moved, mark its size then. LINGER: mark bytes thrown away. */
    uint64_t since_ms, last_ms, mark;
    enum state state;
    bool running; /* conn_run() is on the stack */
    bool eof;     /* the client has ended its side */
    bool aborted; /* FLUSH: for ABORT_MS, whatever moves */
    bool refused; /* beyond max_connections: its first request is answered with 503 */
};

struct cm_httpd {
    struct cm_loop *loop;
    struct cm_httpd_setup setup;
    struct cm_httpd_handler handler;
    struct cm_listeners listeners;
    struct cm_tls *tls;   /* a reference; NULL = plain */
    struct cm_list conns; /* of hconn */
    size_t n_conns;       /* their memory goes with on_closed */
    char *read_buf;       /* owned: cm_secret_alloc(); CM_CONN_READ_BYTES */
    struct cm_task idle_task;
    void (*on_idle)(void *arg);
    void *idle_arg;
    int64_t date_s; /* of `date` */
    char date[CM_HTTP_DATE_CAP];
    bool draining, closing;
};

/* ---- httpd.c ---- */

uint64_t hconn_now_ms(const struct hconn *c);
void httpd_req_free(struct req *r);
/* No request is open any more; what is queued still goes out. */
void hconn_end(struct hconn *c, bool aborted);
/* Back to the start, for the next request. */
void hconn_next(struct hconn *c);
/* After anything that moved the connection. */
void hconn_settle(struct hconn *c);

void hconn_close(struct hconn *c);
/* The request cannot be served, and nothing after it can be read. */
void hconn_refuse(struct hconn *c, const struct cm_err *err);

/* ---- httpd_time.c ---- */

/* When its patience ends; 0 = not now. Moving a deadline on every byte would cost a walk through the heap: it is only ever moved forward here, and later
 * when it fires. */
void hconn_set_due(struct hconn *c, uint64_t due_ms);
void hconn_rearm(struct hconn *c); /* as its state asks */
void hconn_on_deadline(void *arg); /* struct hconn */

/* ---- httpd_resp.c ---- */

static inline struct req *req_of(struct cm_req *pub)
{
    return CM_CONTAINER(pub, struct req, pub);
}

/* -1 and a task when the connection is lost: the handler hears of it on a later turn, not from within its own call. */
int hconn_send(struct hconn *c, struct cm_str tail);
/* An answer of the server's own, for a request that no handler sees. */
void httpd_put_error(struct hconn *c, const struct cm_err *err);

#endif
