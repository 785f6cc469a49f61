/* HTTP client, against a scripted server on a thread of its own. */
#include "chatmux/io/httpc.h"
#include "unit.h"

#include "chatmux/base/buf.h"
#include "chatmux/base/clock.h"
#include "chatmux/base/config.h"
#include "io/httpc_int.h"
#include "io/resolve_int.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- the server */

enum after {
    KEEP,
    CLOSE,
    RESET,
    HANG,
    DEAF
}; /* what follows a reply; DEAF: the next request is read and the connection closed */

struct reply {
    const char *path;
    struct cm_str bytes; /* whole response, as it goes over the wire */
    enum after after;
    size_t piece;      /* bytes per write; 0 = all at once */
    unsigned pause_ms; /* between pieces */
};

struct server {
    int fd;
    uint16_t port;
    const struct reply *replies;
    size_t n_replies;
    atomic_int connections, requests, gone; /* accepted; heads read; connections that ended */
    atomic_size_t sent;                     /* bytes written by /flood */
    pthread_mutex_t mutex;
    char last[8192]; /* last request as it came */
};

struct server_conn {
    struct server *s;
    int fd;
};

static int send_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

        if (sent <= 0)
            return -1;
        p += sent;
        n -= (size_t)sent;
    }
    return 0;
}

/* Head and body of one request into s->last, cut to what fits; false at the end of the connection. */
static bool read_request(struct server_conn *c)
{
    struct server *s = c->s;
    char text[sizeof(s->last)], sink[65536], *end = NULL, *length;
    size_t n = 0, kept, want;

    while (!end) {
        ssize_t got = recv(c->fd, text + n, sizeof(text) - 1 - n, 0);

        if (got <= 0)
            return false;
        n += (size_t)got;
        text[n] = '\0';
        end = strstr(text, "\r\n\r\n");
    }
    length = strstr(text, "\r\nContent-Length: ");
    want = (size_t)(end + 4 - text) + (length && length < end ? strtoul(length + 18, NULL, 10) : 0);
    for (kept = n; n < want;) {
        ssize_t got = recv(c->fd, sink, sizeof(sink) < want - n ? sizeof(sink) : want - n, 0);
        size_t room = sizeof(text) - 1 - kept;

        if (got <= 0)
            return false;
        n += (size_t)got;
        room = room < (size_t)got ? room : (size_t)got;
        memcpy(text + kept, sink, room);
        kept += room;
    }
    pthread_mutex_lock(&s->mutex);
    memcpy(s->last, text, kept);
    s->last[kept] = '\0';
    pthread_mutex_unlock(&s->mutex);
    return true;
}

static void flood(struct server_conn *c)
{
    static char block[65536];
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n";

    (void)send_all(c->fd, head, sizeof(head) - 1);
    for (int i = 0; i < 1600; i++) {
        if (send_all(c->fd, block, sizeof(block)) < 0)
            return;
        atomic_fetch_add(&c->s->sent, sizeof(block));
    }
}

static enum after serve(struct server_conn *c, const struct reply *r)
{
    size_t piece = r->piece > 0 ? r->piece : r->bytes.n;

    for (size_t at = 0; at < r->bytes.n; at += piece) {
        size_t n = r->bytes.n - at < piece ? r->bytes.n - at : piece;

        if (send_all(c->fd, r->bytes.p + at, n) < 0)
            return CLOSE;
        if (r->pause_ms > 0)
            usleep(r->pause_ms * 1000);
    }
    return r->after;
}

static void *conn_thread(void *arg)
{
    struct server_conn *c = arg;
    struct server *s = c->s;
    enum after after = KEEP;

    while (after == KEEP && read_request(c)) {
        const struct reply *r = NULL;
        char path[64] = "";

        atomic_fetch_add(&s->requests, 1);
        pthread_mutex_lock(&s->mutex);
        (void)sscanf(s->last, "%*s %63s", path);
        pthread_mutex_unlock(&s->mutex);
        for (size_t i = 0; i < s->n_replies; i++)
            if (strcmp(s->replies[i].path, path) == 0)
                r = &s->replies[i];
        if (strcmp(path, "/flood") == 0)
            flood(c);
        else
            after = r ? serve(c, r) : CLOSE;
    }
    if (after == DEAF && read_request(c))
        atomic_fetch_add(&s->requests, 1);
    if (after == HANG) {
        char c1;

        while (recv(c->fd, &c1, 1, 0) > 0)
            ;
    }
    if (after == RESET) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};

        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    close(c->fd);
    atomic_fetch_add(&s->gone, 1);
    free(c);
    return NULL;
}

static void *accept_thread(void *arg)
{
    struct server *s = arg;

    for (;;) {
        struct server_conn *c = malloc(sizeof(*c));
        pthread_t thread;

        c->s = s;
        c->fd = accept(s->fd, NULL, NULL);
        if (c->fd < 0) {
            free(c);
            return NULL;
        }
        atomic_fetch_add(&s->connections, 1);
        pthread_create(&thread, NULL, conn_thread, c);
        pthread_detach(thread);
    }
}

static int listen_on(const char *host, uint16_t *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t n = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    ck_assert_int_ge(fd, 0);
    inet_pton(AF_INET, host, &at.sin_addr);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(listen(fd, 512), 0);
    getsockname(fd, (struct sockaddr *)&at, &n);
    *port = ntohs(at.sin_port);
    return fd;
}

/* Lives as long as the test's process. Takes the replies, which other threads read until then. */
static struct server *serve_taken(struct reply *replies, size_t n)
{
    struct server *s = calloc(1, sizeof(*s));
    pthread_t thread;

    s->replies = replies;
    s->n_replies = n;
    pthread_mutex_init(&s->mutex, NULL);
    s->fd = listen_on("127.0.0.1", &s->port);
    pthread_create(&thread, NULL, accept_thread, s);
    pthread_detach(thread);
    return s;
}

static struct reply *copied(const struct reply *replies, size_t n)
{
    struct reply *copy = calloc(n + 1, sizeof(*copy));

    for (size_t i = 0; i < n; i++)
        copy[i] = replies[i];
    return copy;
}

static struct server *serve_replies(const struct reply *replies, size_t n)
{
    return serve_taken(copied(replies, n), n);
}

#define REPLY(p, text, ...) {.path = (p), .bytes = CM_S_INIT(text), __VA_ARGS__}
#define OK_HEAD "HTTP/1.1 200 OK\r\n"

/* ---- the client's side */

struct got {
    struct cm_xfer *x;
    int heads, pieces, ends;
    int status;
    struct cm_buf headers, body; /* "name=value\n" */
    bool failed;
    struct cm_err err;
    enum moment { NEVER, AT_HEAD, AT_DATA, AT_END } close_at, pause_at;
    struct got *also_close; /* at the same moment */
};

static struct cm_loop *loop;
static struct cm_httpc *hc;
static struct server *server;

static void moment_came(struct got *g, enum moment m)
{
    if (g->pause_at == m)
        cm_xfer_pause(g->x);
    if (g->close_at == m) {
        cm_xfer_close(g->x), g->x = NULL;
        if (g->also_close)
            cm_xfer_close(g->also_close->x), g->also_close->x = NULL;
    }
}

static void on_head(void *arg, int status, const struct cm_header *headers, size_t n)
{
    struct got *g = arg;

    ck_assert_int_eq(g->heads++ + g->pieces + g->ends, 0);
    g->status = status;
    for (size_t i = 0; i < n; i++)
        cm_buf_printf(&g->headers, CM_PRI "=" CM_PRI "\n", CM_ARG(headers[i].name),
                      CM_ARG(headers[i].value));
    moment_came(g, AT_HEAD);
}

static void on_data(void *arg, struct cm_str piece)
{
    struct got *g = arg;

    ck_quick(g->heads == 1 && g->ends == 0 && piece.n > 0);
    g->pieces++;
    cm_buf_append(&g->body, piece);
    moment_came(g, AT_DATA);
}

static void on_end(void *arg, const struct cm_err *err)
{
    struct got *g = arg;

    ck_assert_int_eq(g->ends++, 0);
    g->failed = err != NULL;
    if (err)
        g->err = *err;
    moment_came(g, AT_END);
}

static const struct cm_xfer_cb callbacks = {on_head, on_data, on_end};

static char url_buf[8][128];

static struct cm_str url_of(const char *path)
{
    static int turn;
    char *buf = url_buf[turn++ % 8];

    snprintf(buf, sizeof(url_buf[0]), "http://127.0.0.1:%u%s", server->port, path);
    return cm_str_of(buf);
}

static struct cm_xfer_req get_of(const char *path)
{
    return (struct cm_xfer_req){
        .method = CM_S("GET"), .url = url_of(path), .connect_timeout_ms = 5000};
}

static void get_start(struct got *g, const char *path)
{
    struct cm_xfer_req req = get_of(path);

    g->x = cm_xfer_open(hc, &req, &callbacks, g);
}

/* Sets itself again: uv_run() may fire it before it polls, and must not sleep for ever then. */
static void on_tick(void *arg)
{
    cm_deadline_set(loop, arg, cm_loop_now_ms(loop) + 20);
}

static unsigned turns; /* of the loop; a loop that spins has many */

static void turn_until(const int *what, int n, unsigned ms)
{
    uint64_t end = cm_mono_ms() + ms;
    struct cm_deadline tick;

    cm_deadline_init(&tick, on_tick, &tick);
    on_tick(&tick);
    while (*what < n && cm_mono_ms() < end) {
        uv_run(cm_loop_uv(loop), UV_RUN_ONCE);
        turns++;
    }
    cm_deadline_clear(loop, &tick);
}

static void turn_until_atomic(atomic_int *what, int n, unsigned ms)
{
    for (unsigned i = 0; i < ms / 20 && atomic_load(what) < n; i++) {
        static const int never;

        turn_until(&never, 1, 20);
    }
    ck_assert_int_ge(atomic_load(what), n);
}

static void wait_end(struct got *g)
{
    turn_until(&g->ends, 1, 20000);
    ck_assert_int_eq(g->ends, 1);
}

/* Lets the loop go on for a while. */
static void turn_for(unsigned ms)
{
    static const int never;

    turn_until(&never, 1, ms);
}

static void got_clear(struct got *g)
{
    cm_xfer_close(g->x);
    cm_buf_clear(&g->headers);
    cm_buf_clear(&g->body);
    memset(g, 0, sizeof(*g));
}

static void run(struct got *g, const struct cm_xfer_req *req)
{
    g->x = cm_xfer_open(hc, req, &callbacks, g);
    ck_assert_int_eq(g->heads + g->ends, 0); /* nothing comes inside the call */
    wait_end(g);
}

static void open_loop(void)
{
    loop = cm_loop_new();
    hc = cm_httpc_new(loop);
}

static void close_loop(void)
{
    ck_assert_uint_eq(cm_httpc_active(hc), 0);
    cm_httpc_close(hc);
    cm_loop_free(loop); /* ends the process unless uv_loop_close() is 0 */
}

/* ---- resolver of the tests */

static atomic_int lookups;
static _Atomic(const char *) moving = "127.0.0.1"; /* what "moving.test" resolves to */

static int fake_lookup(const char *host, char *out, size_t cap)
{
    atomic_fetch_add(&lookups, 1);
    if (strncmp(host, "hang", 4) == 0)
        sleep(1000);
    if (strcmp(host, "here.test") == 0)
        snprintf(out, cap, "127.0.0.1");
    else if (strcmp(host, "second.test") == 0)
        snprintf(out, cap, "127.0.0.2,127.0.0.1"); /* nobody listens on the first */
    else if (strcmp(host, "inside.test") == 0)
        snprintf(out, cap, "10.0.0.1,[::1],[::ffff:127.0.0.1],127.0.0.1");
    else if (strcmp(host, "moving.test") == 0)
        snprintf(out, cap, "%s", atomic_load(&moving));
    else
        return EAI_NONAME;
    return 0;
}

static void open_loop_with_names(uint64_t ttl_ms)
{
    struct cm_resolver_setup setup = {.lookup = fake_lookup,
                                      .ttl_ms = ttl_ms,
                                      .fail_ttl_ms = 2000,
                                      .max_lookups = 4,
                                      .max_client_lookups = 2,
                                      .max_entries = 100};

    loop = cm_loop_new();
    hc = cm_httpc_new_with(loop, cm_resolver_new_with(loop, &setup));
}

static struct cm_str url_at(const char *scheme, const char *host, const char *path)
{
    static char buf[8][256];
    static int turn;
    char *at = buf[turn++ % 8];

    snprintf(at, sizeof(buf[0]), "%s://%s:%u%s", scheme, host, server->port, path);
    return cm_str_of(at);
}

/* ---- whole messages */

static const struct reply good[] = {
    REPLY("/length", OK_HEAD "Content-Length: 5\r\nX-Note:  two words \r\n\r\nhello"),
    REPLY("/chunked",
          OK_HEAD "Transfer-Encoding: chunked\r\nX-Note: two words\r\nTrailer: X-Late\r\n\r\n"
                  "1;ext=1\r\nh\r\n4\r\nello\r\n0\r\nX-Late: 1\r\n\r\n"),
    REPLY("/close", OK_HEAD "X-Note: two words\r\n\r\nhello", .after = CLOSE),
    REPLY(
        "/early",
        "HTTP/1.1 100 Continue\r\nX-Note: no\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" OK_HEAD
        "x-note:two words\r\nContent-Length: 5\r\n\r\nhello"),
    REPLY("/folded", OK_HEAD "X-Note: two\r\n  words\r\nContent-Length: 5\r\n\r\nhello"),
    REPLY("/lf", "HTTP/1.1 200 OK\nX-Note: two words\nContent-Length: 5\n\nhello"),
    REPLY("/old", "HTTP/1.0 200 OK\r\nX-Note: two words\r\nContent-Length: 5\r\n\r\nhello",
          .after = CLOSE),
};

/* The same replies with other `piece` and `pause_ms`. */
static struct server *serve_in_pieces(const struct reply *replies, size_t n, size_t piece,
                                      unsigned pause_ms)
{
    struct reply *copy = copied(replies, n);

    for (size_t i = 0; i < n; i++) {
        copy[i].piece = piece;
        copy[i].pause_ms = pause_ms;
    }
    return serve_taken(copy, n);
}

START_TEST(every_framing_whole_and_in_pieces)
{
    static const size_t pieces[] = {0, 1, 2, 7};

    open_loop();
    for (size_t p = 0; p < CM_COUNT(pieces); p++) {
        server = serve_in_pieces(good, CM_COUNT(good), pieces[p], pieces[p] == 1 ? 1 : 0);
        for (size_t i = 0; i < CM_COUNT(good); i++) {
            struct cm_xfer_req req = get_of(good[i].path);
            struct cm_xfer_info info;
            struct got g = {0};

            run(&g, &req);
            ck_assert_msg(!g.failed, "%s: %s", good[i].path, g.err.msg);
            ck_assert_int_eq(g.status, 200);
            ck_assert_msg(cm_str_has(cm_buf_str(&g.headers), CM_S("two")) &&
                              !cm_str_has(cm_buf_str(&g.headers), CM_S("X-Late=")) &&
                              !cm_str_has(cm_buf_str(&g.headers), CM_S("\r")) &&
                              cm_str_has(cm_buf_str(&g.headers), CM_S("words\n")),
                          "%s: " CM_PRI, good[i].path, CM_ARG(cm_buf_str(&g.headers)));
            ck_str(cm_buf_str(&g.body), "hello");
            cm_xfer_info(g.x, &info);
            ck_assert_uint_eq(info.bytes_down, 5);
            ck_assert(info.head_us > 0);
            got_clear(&g);
        }
    }
    close_loop();
}
END_TEST

START_TEST(empty_answers)
{
    static const struct reply replies[] = {
        REPLY("/204", "HTTP/1.1 204 No Content\r\n\r\n"),
        REPLY("/0", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        REPLY("/304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
        REPLY("/head", OK_HEAD "Content-Length: 99\r\n\r\n"),
        REPLY("/302", "HTTP/1.1 302 Found\r\nLocation: /0\r\nContent-Length: 0\r\n\r\n"),
    };
    static const int status[] = {204, 404, 304, 200, 302};

    server = serve_replies(replies, CM_COUNT(replies));
    open_loop();
    for (size_t i = 0; i < CM_COUNT(replies); i++) {
        struct cm_xfer_req req = get_of(replies[i].path);
        struct got g = {0};

        if (strcmp(replies[i].path, "/head") == 0)
            req.method = CM_S("HEAD");
        run(&g, &req);
        ck_assert(!g.failed);
        ck_assert_int_eq(g.status, status[i]);
        ck_assert_int_eq(g.pieces, 0);
        got_clear(&g);
    }
    ck_assert_int_eq(atomic_load(&server->connections), 1);
    close_loop();
}
END_TEST

/* ---- what breaks */

static void cut_everywhere(struct cm_str whole, size_t head_n, bool until_close)
{
    static char paths[400][8];
    struct reply *replies = calloc(whole.n + 1, sizeof(*replies));

    ck_assert_uint_lt(whole.n, CM_COUNT(paths));
    for (size_t k = 0; k <= whole.n; k++) {
        snprintf(paths[k], sizeof(paths[k]), "/%zu", k);
        replies[k] =
            (struct reply){.path = paths[k], .bytes = cm_str_head(whole, k), .after = CLOSE};
    }
    server = serve_taken(replies, whole.n + 1);
    for (size_t k = 0; k <= whole.n; k++) {
        struct cm_xfer_req req = get_of(paths[k]);
        struct got g = {0};
        bool complete = k == whole.n || (until_close && k >= head_n);

        run(&g, &req);
        ck_assert_msg(g.failed != complete, "cut at %zu: %s", k, g.err.msg);
        if (!complete)
            ck_assert_msg(g.err.cls == (k < head_n ? CM_ERR_UPSTREAM_DOWN : CM_ERR_CUT) &&
                              strstr(g.err.msg, "127.0.0.1:"),
                          "cut at %zu: class %d, %s", k, (int)g.err.cls, g.err.msg);
        ck_assert_int_eq(g.heads, k >= head_n);
        ck_assert_int_eq(atomic_load(&server->requests), (int)k + 1); /* not asked twice */
        got_clear(&g);
    }
}

START_TEST(cut_at_every_byte)
{
    open_loop();
    for (size_t i = 0; i < 3; i++) {
        struct cm_str whole = good[i].bytes;

        cut_everywhere(whole, cm_str_find(whole, CM_S("\r\n\r\n")) + 4, i == 2);
    }
    close_loop();
}
END_TEST

START_TEST(broken_in_other_ways)
{
    static const struct {
        struct reply reply;
        enum cm_err_class cls;
        const char *says;
    } cases[] = {
        {REPLY("/reset", "", .after = RESET), CM_ERR_UPSTREAM_DOWN, ""},
        {REPLY("/reset2", OK_HEAD "Content-Length: 9\r\n\r\nabc", .after = RESET), CM_ERR_CUT, ""},
        {REPLY("/garbage", "220 mail.example ESMTP\r\n\r\n", .after = CLOSE), CM_ERR_UPSTREAM_DOWN,
         "not valid HTTP"},
        {REPLY("/nul", OK_HEAD "X-A: a\0b\r\nContent-Length: 0\r\n\r\n"), CM_ERR_UPSTREAM_DOWN,
         "not valid HTTP"},
        {REPLY("/length", OK_HEAD "Content-Length: x5\r\n\r\nhello"), CM_ERR_UPSTREAM_DOWN, ""},
        {REPLY("/chunk", OK_HEAD "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"), CM_ERR_CUT, ""},
    };
    struct reply replies[CM_COUNT(cases)];

    for (size_t i = 0; i < CM_COUNT(cases); i++)
        replies[i] = cases[i].reply;
    server = serve_replies(replies, CM_COUNT(cases));
    open_loop();
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_xfer_req req = get_of(cases[i].reply.path);
        struct got g = {0};

        run(&g, &req);
        ck_assert_msg(g.failed, "%s", cases[i].reply.path);
        ck_assert_msg(g.err.cls == cases[i].cls && strstr(g.err.msg, cases[i].says), "%s: %s %s",
                      cases[i].reply.path, cm_err_info(g.err.cls)->name, g.err.msg);
        got_clear(&g);
    }
    close_loop();
}
END_TEST

START_TEST(refused_connection_tells_where_and_why)
{
    static struct server nobody;
    struct cm_xfer_req req;
    struct got g = {0};

    server = &nobody;
    close(listen_on("127.0.0.1", &nobody.port));
    open_loop();
    req = get_of("/path?key=secret");
    run(&g, &req);
    ck_assert_int_eq(g.err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_ptr_nonnull(strstr(g.err.msg, "Connection refused"));
    ck_assert_ptr_nonnull(strstr(g.err.msg, "127.0.0.1:"));
    ck_assert_ptr_null(strstr(g.err.msg, "secret"));
    got_clear(&g);
    close_loop();
}
END_TEST

START_TEST(head_is_bounded_and_cannot_carry_line_breaks)
{
    static char long_head[150000], many[20000]; /* libcurl's own limit for a line is 100 KiB */
    struct reply replies[] = {
        {.path = "/long", .bytes = cm_str(long_head, sizeof(long_head) - 1), .after = HANG},
        {.path = "/many"},
        REPLY("/cr", OK_HEAD "X-A: one\rSet-Cookie: b\r\nX-B:\tc\r\r\nContent-Length: 0\r\n\r\n"),
    };
    struct cm_xfer_req req;
    struct got g = {0};
    size_t n;

    memset(long_head, 'a', sizeof(long_head));
    memcpy(long_head, OK_HEAD "X: ", 20);
    n = (size_t)snprintf(many, sizeof(many), OK_HEAD);
    for (int i = 0; i < 1000; i++)
        n += (size_t)snprintf(many + n, sizeof(many) - n, "h%d: v%d\r\n", i, i);
    n += (size_t)snprintf(many + n, sizeof(many) - n, "Content-Length: 0\r\n\r\n");
    replies[1].bytes = cm_str(many, n);
    server = serve_replies(replies, CM_COUNT(replies));
    open_loop();

    req = get_of("/long");
    run(&g, &req);
    ck_assert_int_eq(g.err.cls, CM_ERR_UPSTREAM_DOWN);
    got_clear(&g);

    req = get_of("/many");
    run(&g, &req);
    ck_assert(!g.failed);
    ck_assert(cm_str_has(cm_buf_str(&g.headers), CM_S("h0=v0\nh1=v1\n")) &&
              cm_str_has(cm_buf_str(&g.headers), CM_S("\nh999=v999\n")));
    got_clear(&g);

    req.max_head_bytes = 4096;
    run(&g, &req);
    ck_assert_int_eq(g.err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_ptr_nonnull(strstr(g.err.msg, "4096"));
    got_clear(&g);

    req = get_of("/cr");
    run(&g, &req);
    ck_str(cm_buf_str(&g.headers), "X-A=one Set-Cookie: b\nX-B=c\nContent-Length=0\n");
    got_clear(&g);
    close_loop();
}
END_TEST

/* ---- what is sent */

static void sent_is(const char *line, const char *rest)
{
    char text[sizeof(server->last)];

    snprintf(text, sizeof(text), "%s\r\nHost: 127.0.0.1:%u\r\n%s", line, server->port, rest);
    pthread_mutex_lock(&server->mutex);
    ck_assert_str_eq(server->last, text);
    pthread_mutex_unlock(&server->mutex);
}

START_TEST(sends_what_it_was_given_and_nothing_else)
{
    static const struct reply replies[] = {
        REPLY("/", OK_HEAD "Content-Length: 0\r\n\r\n"),
    };
    static const struct cm_header headers[] = {
        {CM_S_INIT("X-Empty"), CM_S_INIT("")},
        {CM_S_INIT("authorization"), CM_S_INIT("Bearer ä; b")},
        {CM_S_INIT("Expect"), CM_S_INIT("100-continue")},
        {CM_S_INIT("Content-Length"), CM_S_INIT("77")},
        {CM_S_INIT("Transfer-Encoding"), CM_S_INIT("chunked")},
        {CM_S_INIT("User-Agent"), CM_S_INIT("me/1")},
        {CM_S_INIT("accept"), CM_S_INIT("x/y")},
        {CM_S_INIT("CONTENT-TYPE"), CM_S_INIT("a/b")},
    };
    static const struct {
        const char *method, *body, *line, *rest;
    } bare[] = {
        {"GET", "", "GET / HTTP/1.1", "\r\n"},
        {"POST", "abc", "POST / HTTP/1.1", "Content-Length: 3\r\n\r\nabc"},
        {"HEAD", "", "HEAD / HTTP/1.1", "\r\n"},
        {"POST", "", "POST / HTTP/1.1", "Content-Length: 0\r\n\r\n"},
        {"PUT", "xy", "PUT / HTTP/1.1", "Content-Length: 2\r\n\r\nxy"},
        {"DELETE", "", "DELETE / HTTP/1.1", "Content-Length: 0\r\n\r\n"},
        {"GET", "", "GET / HTTP/1.1", "\r\n"},
        {"GET", "q", "GET / HTTP/1.1", "Content-Length: 1\r\n\r\nq"},
        {"POST", "z", "POST / HTTP/1.1", "Content-Length: 1\r\n\r\nz"},
    };
    struct got g = {0};
    struct cm_xfer_req req;
    struct cm_xfer_info info;
    char *large = calloc(1, 3000000);

    server = serve_replies(replies, CM_COUNT(replies));
    open_loop();
    for (size_t i = 0; i < CM_COUNT(bare);
         i++) { /* all on one easy handle: nothing of one request is left in the next */
        req = get_of("/");
        req.method = cm_str_of(bare[i].method);
        req.body = cm_str_of(bare[i].body);
        run(&g, &req);
        ck_assert(!g.failed);
        sent_is(bare[i].line, bare[i].rest);
        got_clear(&g);
    }
    req = get_of("/");
    req.method = CM_S("POST");
    req.body = CM_S("abc");
    req.headers = headers;
    req.n_headers = CM_COUNT(headers);
    run(&g, &req);
    sent_is("POST / HTTP/1.1",
            "X-Empty:\r\nauthorization: Bearer ä; b\r\n"
            "User-Agent: me/1\r\naccept: x/y\r\nCONTENT-TYPE: a/b\r\nContent-Length: 3\r\n\r\nabc");
    cm_xfer_info(g.x, &info);
    ck_assert_uint_eq(info.bytes_up, 3);
    ck_assert(info.reused);
    got_clear(&g);

    req.n_headers = 0;
    req.body = cm_str(large, 3000000); /* libcurl would add Expect */
    run(&g, &req);
    ck_assert(!g.failed);
    ck_assert_ptr_null(strstr(server->last, "Expect"));
    ck_assert_ptr_nonnull(strstr(server->last, "Content-Length: 3000000\r\n"));
    got_clear(&g);
    ck_assert_int_eq(atomic_load(&server->connections), 1);
    free(large);
    close_loop();
}
END_TEST

/* One easy handle serves paths that are sent as they are and those that libcurl puts right, in turns. */
START_TEST(paths_are_sent_as_they_are_or_put_right)
{
    static const char *const paths[][2] = {
        {"/v1/chat/completions", "/v1/chat/completions"},
        {"/a/../b", "/b"},
        {"/a:b@c,d+e~f=g?h=/i&j", "/a:b@c,d+e~f=g?h=/i&j"},
        {"/a/./b", "/a/b"},
        {"/a/.hidden", "/a/.hidden"},
        {"/a%20b/%2e%2E/c", "/c"},
        {"/v2.1/x..y", "/v2.1/x..y"},
        {"/a#part", "/a"},
        {"?x=1", "/?x=1"},
        {"//a", "//a"},
        {"", "/"},
        {"/", "/"},
    };
    struct reply replies[CM_COUNT(paths)];
    struct got g = {0};
    char line[100];

    for (size_t i = 0; i < CM_COUNT(paths); i++)
        replies[i] = (struct reply)REPLY(paths[i][1], OK_HEAD "Content-Length: 0\r\n\r\n");
    server = serve_replies(replies, CM_COUNT(replies));
    open_loop();
    for (size_t i = 0; i < 2 * CM_COUNT(paths); i++) {
        const char *const *path = paths[i % CM_COUNT(paths)];
        struct cm_xfer_req req = get_of(path[0]);

        run(&g, &req);
        ck_assert_msg(!g.failed, "%s", path[0]);
        snprintf(line, sizeof(line), "GET %s HTTP/1.1", path[1]);
        sent_is(line, "\r\n");
        got_clear(&g);
    }
    ck_assert_int_eq(atomic_load(&server->connections), 1);
    close_loop();
}
END_TEST

START_TEST(refuses_headers_and_urls_that_would_split_the_request)
{
    static const struct cm_header bad[] = {
        {CM_S_INIT("A"), CM_S_INIT("b\r\nC: d")}, {CM_S_INIT("A"), CM_S_INIT("b\nC")},
        {CM_S_INIT("A"), CM_S_INIT("b\rC")},      {CM_S_INIT("A"), CM_S_INIT("b\0C")},
        {CM_S_INIT("A\r\nB"), CM_S_INIT("")},     {CM_S_INIT("A:B"), CM_S_INIT("c")},
        {CM_S_INIT("A B"), CM_S_INIT("c")},       {CM_S_INIT(""), CM_S_INIT("c")},
    };
    static const char *const urls[] = {
        "/a b",
        "/a\r\nX: y",
        "/a\nb",
        "/\x01",
    };
    static const char *const whole_urls[] = {
        "",
        "http://",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "127.0.0.1",
        "http://[::1",
        "http://a:99999/",
        "http:///x",
        "http://a b/",
    };
    struct got g = {0};

    server = serve_replies(good, CM_COUNT(good));
    open_loop();
    for (size_t i = 0; i < CM_COUNT(bad); i++) {
        struct cm_xfer_req req = get_of("/length");

        req.headers = &bad[i];
        req.n_headers = 1;
        run(&g, &req);
        ck_assert_int_eq(g.err.cls, CM_ERR_BAD_REQUEST);
        got_clear(&g);
    }
    for (size_t i = 0; i < CM_COUNT(urls); i++) {
        struct cm_xfer_req req = get_of(urls[i]);

        run(&g, &req);
        ck_assert_int_eq(g.err.cls, CM_ERR_UPSTREAM_DOWN);
        got_clear(&g);
    }
    for (size_t i = 0; i < CM_COUNT(whole_urls); i++) {
        struct cm_xfer_req req = get_of("/length");

        req.url = cm_str_of(whole_urls[i]);
        run(&g, &req);
        ck_assert_msg(g.err.cls == CM_ERR_UPSTREAM_DOWN, "%s", whole_urls[i]);
        got_clear(&g);
    }
    ck_assert_int_eq(atomic_load(&server->connections), 0);
    close_loop();
}
END_TEST

/* ---- connections */

static void get_ok(const char *path)
{
    struct cm_xfer_req req = get_of(path);
    struct got g = {0};

    run(&g, &req);
    ck_assert_msg(!g.failed, "%s", g.err.msg);
    got_clear(&g);
}

START_TEST(connections_are_reused)
{
    static struct got many[50];

    server = serve_replies(good, CM_COUNT(good));
    open_loop();
    for (int i = 0; i < 20; i++)
        get_ok(i % 2 ? "/length" : "/chunked");
    ck_assert_int_eq(atomic_load(&server->connections), 1);
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < CM_COUNT(many); i++)
            get_start(&many[i], "/length");
        for (size_t i = 0; i < CM_COUNT(many); i++) {
            wait_end(&many[i]);
            ck_assert(!many[i].failed);
            got_clear(&many[i]);
        }
    }
    ck_assert_int_le(atomic_load(&server->connections),
                     50); /* a fast one serves two in the same round */
    ck_assert_int_eq(atomic_load(&server->gone), 0);
    close_loop();
}
END_TEST

START_TEST(many_transfers_use_several_pools)
{
    enum { MANY = 2 * HC_MAX_ACTIVE + 1 };
    static const struct reply replies[] = {
        REPLY("/hang", OK_HEAD "Content-Length: 9\r\n\r\nhello", .after = HANG),
        REPLY("/length", OK_HEAD "Content-Length: 5\r\n\r\nhello"),
    };
    struct got *g = calloc(MANY, sizeof(*g));
    int pools = 0;

    server = serve_replies(replies, CM_COUNT(replies));
    open_loop();
    for (int i = 0; i < MANY; i++)
        get_start(&g[i], "/hang");
    turn_until(&g[MANY - 1].pieces, 1, 10000);
    turn_until(&g[0].pieces, 1, 10000);
    CM_LIST_EACH(&hc->all_pools, link)
    {
        ck_assert_uint_le(CM_LIST_ITEM(link, struct hc_pool, link)->n_active, HC_MAX_ACTIVE);
        pools++;
    }
    ck_assert_int_eq(pools, 3);
    got_clear(&g[0]);
    get_ok("/length"); /* in the first one again */
    get_ok("/length");
    ck_assert_int_eq(atomic_load(&server->connections), MANY + 1);
    for (int i = 1; i < MANY; i++) {
        if (i == MANY / 2)
            cm_httpc_forget(hc, CM_S(""));
        got_clear(&g[i]);
    }
    turn_until_atomic(&server->gone, MANY + 1, 5000);
    turn_for(100);
    ck_assert(cm_list_empty(&hc->all_pools));
    free(g);
    close_loop();
}
END_TEST

START_TEST(dead_connection_is_replaced)
{
    static const struct reply replies[] = {
        REPLY("/last", OK_HEAD "Content-Length: 1\r\n\r\na",
              .after = CLOSE), /* without saying so */
        REPLY("/deaf", OK_HEAD "Content-Length: 1\r\n\r\na", .after = DEAF),
        REPLY("/", OK_HEAD "Content-Length: 1\r\n\r\nb"),
    };
    static char large[100000];
    struct cm_xfer_req req;
    struct got g = {0};

    server = serve_replies(replies, CM_COUNT(replies));
    open_loop();
    get_ok("/last");
    turn_until_atomic(&server->gone, 1, 2000);
    get_ok("/");
    ck_assert_int_eq(atomic_load(&server->connections), 2);
    cm_httpc_forget(hc, CM_S(""));

    get_ok("/deaf");
    memset(large, 'x', sizeof(large));
    req = get_of("/");
    req.method = CM_S("POST");
    req.body = cm_str(large, sizeof(large));
    run(&g, &req);
    ck_assert_msg(!g.failed, "%s", g.err.msg);
    ck_str(cm_buf_str(&g.body), "b");
    ck_assert_ptr_nonnull(strstr(server->last, "\r\n\r\nxxxx")); /* the body went out again */
    ck_assert_int_eq(atomic_load(&server->connections), 4);
    ck_assert_int_eq(atomic_load(&server->requests), 5);
    got_clear(&g);
    close_loop();
}
END_TEST

START_TEST(isolations_share_nothing)
{
    static const char *const names[] = {"", "a", "b", "", "a", "b"};

    server = serve_replies(good, CM_COUNT(good));
    open_loop();
    for (size_t i = 0; i < CM_COUNT(names); i++) {
        struct cm_xfer_req req = get_of("/length");
        struct got g = {0};

        req.isolation = cm_str_of(names[i]);
        run(&g, &req);
        ck_assert(!g.failed);
        got_clear(&g);
        ck_assert_int_eq(atomic_load(&server->connections), i < 3 ? (int)i + 1 : 3);
    }
    cm_httpc_forget(hc, CM_S("a"));
    turn_until_atomic(&server->gone, 1, 2000);
    turn_for(50);
    ck_assert_int_eq(atomic_load(&server->gone), 1);
    close_loop();
}
END_TEST

START_TEST(forgotten_while_busy)
{
    static const struct reply replies[] = {
        REPLY("/slow", OK_HEAD "Content-Length: 5\r\n\r\nhello", .piece = 20, .pause_ms = 50),
    };
    struct got g = {0};

    server = serve_replies(replies, CM_COUNT(replies));
    open_loop();
    get_start(&g, "/slow");
    turn_until_atomic(&server->requests, 1, 2000);
    cm_httpc_forget(hc, CM_S(""));
    wait_end(&g);
    ck_assert(!g.failed);
    turn_until_atomic(&server->gone, 1, 2000);
    got_clear(&g);
    close_loop();
}
END_TEST

/* ---- closing */

START_TEST(close_at_every_moment)
{
    static const struct reply replies[] = {
        REPLY("/length", OK_HEAD "Content-Length: 5\r\n\r\nhello"),
        REPLY("/hang", OK_HEAD "Content-Length: 9\r\n\r\nhello", .after = HANG),
        REPLY("/mute", "", .after = HANG),
    };
    struct got g = {0};

    server = serve_replies(replies, CM_COUNT(replies));
    open_loop();
    get_start(&g, "/length"); /* before anything happened */
    got_clear(&g);
    for (enum moment m = AT_HEAD; m <= AT_END; m++) {
        int seen;

        g.close_at = m;
        get_start(&g, m == AT_END ? "/length" : "/hang");
        turn_until(m == AT_HEAD ? &g.heads : m == AT_DATA ? &g.pieces : &g.ends, 1, 5000);
        ck_assert_ptr_null(g.x);
        seen = g.heads + g.pieces + g.ends;
        if (m != AT_END)
            turn_until_atomic(&server->gone, (int)m, 2000); /* closed at once */
        turn_for(50);
        ck_assert_int_eq(seen, g.heads + g.pieces + g.ends);
        got_clear(&g);
    }
    get_start(&g, "/mute");
    turn_until_atomic(&server->requests, 4, 2000);
    got_clear(&g);
    turn_until_atomic(&server->gone, 3, 2000);
    close_loop();
}
END_TEST

START_TEST(two_transfers_close_each_other)
{
    server = serve_replies(good, CM_COUNT(good));
    open_loop();
    for (enum moment m = AT_HEAD; m <= AT_END; m++) {
        struct got a = {.close_at = m}, b = {.close_at = m};

        a.also_close = &b;
        b.also_close = &a;
        get_start(&a, "/length");
        get_start(&b, "/length");
        turn_for(100);
        ck_assert_ptr_null(a.x);
        ck_assert_ptr_null(b.x);
        ck_assert_int_eq(a.ends + b.ends, m == AT_END);
        got_clear(&a);
        got_clear(&b);
    }
    close_loop();
}
END_TEST

/* ---- pausing */

START_TEST(paused_transfer_is_not_read)
{
    struct got g = {.pause_at = AT_HEAD};
    size_t sent;

    server = serve_replies(NULL, 0);
    open_loop();
    get_start(&g, "/flood");
    turn_until(&g.heads, 1, 5000);
    turn_for(300);
    sent = atomic_load(&server->sent);
    ck_assert_uint_lt(sent, 16 * 1024 * 1024); /* what fits into the sockets */
    ck_assert_int_eq(g.pieces, 0);
    turns = 0;
    turn_for(300);
    ck_assert_uint_lt(turns, 60); /* 15 ticks; a spinning loop has thousands */
    ck_assert_uint_eq(atomic_load(&server->sent), sent);

    g.pause_at = AT_DATA;
    cm_xfer_resume(g.x);
    turn_until(&g.pieces, 1, 5000);
    ck_assert_uint_le(g.body.n, 128 * 1024);
    turn_for(100);
    ck_assert_int_eq(g.pieces, 1);
    ck_assert_uint_eq(g.x->in.n, 0);

    g.pause_at = NEVER;
    for (int i = 0; i < 50; i++) { /* to and fro at any time */
        cm_xfer_resume(g.x);
        if (i % 3 == 0)
            turn_for(1);
        cm_xfer_pause(g.x);
    }
    cm_xfer_resume(g.x);
    wait_end(&g);
    ck_assert(!g.failed);
    ck_assert_uint_eq(g.body.n, 104857600);
    got_clear(&g);
    close_loop();
}
END_TEST

START_TEST(pieces_are_bounded)
{
    struct got g = {0};
    size_t before = 0;

    server = serve_replies(NULL, 0);
    open_loop();
    get_start(&g, "/flood");
    while (g.body.n < 50000000) {
        turn_until(&g.pieces, g.pieces + 1, 5000);
        ck_quick(g.body.n - before <= (size_t)g.pieces * 96 * 1024);
        usleep(1000);
    }
    ck_assert_uint_lt(g.body.n / (size_t)g.pieces, 96 * 1024);
    got_clear(&g);
    close_loop();
}
END_TEST

START_TEST(paused_while_the_peer_breaks_off)
{
    static const struct reply replies[] = {
        REPLY("/reset", OK_HEAD "Content-Length: 9\r\n\r\nabc", .after = RESET),
        REPLY("/close", OK_HEAD "Content-Length: 9\r\n\r\nabc", .after = CLOSE),
        REPLY("/whole", OK_HEAD "Content-Length: 3\r\n\r\nabc", .after = CLOSE),
    };

    server = serve_replies(replies, CM_COUNT(replies));
    open_loop();
    for (size_t i = 0; i < CM_COUNT(replies); i++) {
        struct got g = {.pause_at = AT_HEAD};

        get_start(&g, replies[i].path);
        turn_until(&g.heads, 1, 5000);
        turn_until_atomic(&server->gone, (int)i + 1, 2000);
        turns = 0;
        turn_for(200);
        ck_assert_uint_lt(turns, 50);
        ck_assert_int_eq(g.ends + g.pieces, 0);
        cm_xfer_resume(g.x);
        wait_end(&g);
        ck_assert_int_eq(g.failed, i < 2);
        if (i < 2)
            ck_assert_int_eq(g.err.cls, CM_ERR_CUT);
        got_clear(&g);
    }
    close_loop();
}
END_TEST

START_TEST(paused_before_there_is_a_connection)
{
    struct got g = {0};

    server = serve_replies(good, CM_COUNT(good));
    open_loop();
    get_start(&g, "/chunked");
    cm_xfer_pause(g.x);
    turn_for(100);
    ck_assert_int_eq(g.pieces + g.ends, 0);
    cm_xfer_resume(g.x);
    wait_end(&g);
    ck_str(cm_buf_str(&g.body), "hello");
    got_clear(&g);
    close_loop();
}
END_TEST

START_TEST(paused_transfer_keeps_only_what_came_before)
{
    static const struct reply replies[] = {
        REPLY("/drip",
              OK_HEAD "Content-Length: 200\r\n\r\n"
                      "01234567890123456789012345678901234567890123456789"
                      "01234567890123456789012345678901234567890123456789"
                      "01234567890123456789012345678901234567890123456789"
                      "01234567890123456789012345678901234567890123456789",
              .piece = 10, .pause_ms = 5),
    };
    struct got g = {.pause_at = AT_HEAD};

    server = serve_replies(replies, CM_COUNT(replies));
    open_loop();
    get_start(&g, "/drip");
    turn_until(&g.heads, 1, 5000);
    turn_for(300);
    ck_assert_uint_lt(g.x->in.n, 100);
    cm_xfer_resume(g.x);
    wait_end(&g);
    ck_assert_uint_eq(g.body.n, 200);
    got_clear(&g);
    close_loop();
}
END_TEST

START_TEST(idle_connection_that_the_peer_closes_does_not_spin)
{
    static const struct reply replies[] = {
        REPLY("/last", OK_HEAD "Content-Length: 1\r\n\r\na", .after = CLOSE),
    };

    server = serve_replies(replies, CM_COUNT(replies));
    open_loop();
    get_ok("/last");
    turn_until_atomic(&server->gone, 1, 2000);
    turns = 0;
    turn_for(200);
    ck_assert_uint_lt(turns, 50);
    close_loop();
}
END_TEST
/* ---- names */

START_TEST(names_go_through_our_resolver)
{
    static const char *const hosts[] = {"here.test", "HERE.test", "second.test", "localhost"};
    struct cm_xfer_req req = {.method = CM_S("GET"), .connect_timeout_ms = 5000};
    struct got g = {0};

    server = serve_replies(good, CM_COUNT(good));
    open_loop_with_names(60000);
    for (size_t i = 0; i < CM_COUNT(hosts); i++) {
        for (int again = 0; again < 2; again++) {
            req.url = url_at("http", hosts[i], "/close"); /* a new connection each time */
            run(&g, &req);
            ck_assert_msg(!g.failed, "%s: %s", hosts[i], g.err.msg);
            got_clear(&g);
        }
    }
    ck_assert_int_eq(atomic_load(&lookups), 2); /* cached, and localhost needs none */

    req.url = url_at("http", "nowhere.test", "/length");
    run(&g, &req);
    ck_assert_int_eq(g.err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_ptr_nonnull(strstr(g.err.msg, "nowhere.test"));
    got_clear(&g);
    run(&g, &req); /* the failure is cached: still told on a later turn */
    ck_assert_int_eq(g.err.cls, CM_ERR_UPSTREAM_DOWN);
    got_clear(&g);
    close_loop();
}
END_TEST

START_TEST(new_addresses_are_used)
{
    struct cm_xfer_req req = {.method = CM_S("GET"), .connect_timeout_ms = 5000};
    struct got g = {0};

    server = serve_replies(good, CM_COUNT(good));
    open_loop_with_names(1);
    for (int i = 0; i < 4; i++) {
        atomic_store(&moving, i % 2 ? "127.0.0.2" : "127.0.0.1");
        req.url = url_at("http", "moving.test", "/close");
        run(&g, &req);
        ck_assert_int_eq(g.failed, i % 2);
        got_clear(&g);
        turn_for(30);
    }
    close_loop();
}
END_TEST

/* The first transfer brings the addresses but leaves before libcurl has used them. */
START_TEST(addresses_are_not_taken_for_known_too_early)
{
    struct cm_xfer_req req = {.method = CM_S("GET"), .connect_timeout_ms = 5000};
    struct got a = {0}, b = {0};

    server = serve_replies(good, CM_COUNT(good));
    open_loop_with_names(60000);
    req.url = url_at("http", "nowhere.test", "/length");
    run(&a, &req);
    got_clear(&a);
    req.url = url_at("http", "here.test", "/close");
    run(&a, &req); /* now in our cache */
    got_clear(&a);
    cm_httpc_forget(hc, CM_S(""));
    a.x = cm_xfer_open(hc, &req, &callbacks, &a);
    b.x = cm_xfer_open(hc, &req, &callbacks, &b);
    got_clear(&a);
    wait_end(&b);
    ck_assert_msg(!b.failed, "%s", b.err.msg);
    got_clear(&b);
    close_loop();
}
END_TEST

/* Should libcurl ever lose what it was given: it must not look names up itself, and the next transfer gives them again. */
START_TEST(addresses_that_libcurl_lost_are_given_again)
{
    struct cm_xfer_req req = {.method = CM_S("GET"), .connect_timeout_ms = 5000};
    struct got g = {0};
    struct hc_pool *pool;
    struct hc_host *h = CM_NEW(struct hc_host);

    server = serve_replies(good, CM_COUNT(good));
    open_loop_with_names(60000);
    get_ok("/length");
    pool = CM_LIST_ITEM(hc->all_pools.next, struct hc_pool, link);
    h->key = calloc(1, 64);
    snprintf(h->key, 64, "here.test:%u", server->port);
    h->addresses = cm_strdup("127.0.0.1");
    cm_map_put(&pool->hosts, cm_str_of(h->key), h);
    for (int i = 0; i < 2; i++) {
        req.url = url_at("http", "here.test", "/close");
        run(&g, &req);
        ck_assert_int_eq(g.failed, i == 0);
        got_clear(&g);
    }
    close_loop();
}
END_TEST

START_TEST(hanging_lookup_blocks_nobody)
{
    struct cm_xfer_req req = {.method = CM_S("GET"), .connect_timeout_ms = 5000}, slow = req;
    struct got a = {0}, b = {0}, c = {0};
    uint64_t began_ms;

    server = serve_replies(good, CM_COUNT(good));
    open_loop_with_names(60000);
    slow.url = CM_S("http://hang.test/");
    slow.connect_timeout_ms = 400;
    began_ms = cm_mono_ms();
    a.x = cm_xfer_open(hc, &slow, &callbacks, &a);
    slow.url = CM_S("http://hang2.test/");
    c.x = cm_xfer_open(hc, &slow, &callbacks, &c);
    ck_assert_uint_eq(cm_httpc_active(hc), 2);
    req.url = url_at("http", "here.test", "/length");
    run(&b, &req);
    ck_assert(!b.failed);
    ck_assert_int_eq(a.ends, 0);
    got_clear(&b);
    got_clear(&c); /* leaves during the lookup */
    wait_end(&a);
    ck_assert_int_eq(a.err.cls, CM_ERR_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(a.err.msg, "hang.test:80"));
    ck_assert_uint_ge(cm_mono_ms() - began_ms, 390);
    ck_assert_uint_lt(cm_mono_ms() - began_ms, 2000);
    got_clear(&a);
    close_loop();
    ck_assert_uint_lt(cm_mono_ms() - began_ms, 3000); /* the lookups still hang */
}
END_TEST

START_TEST(connect_timeout_covers_tls)
{
    static const struct reply replies[] = {REPLY("/", "")};
    struct cm_xfer_req req = {.method = CM_S("GET"), .connect_timeout_ms = 300};
    struct got g = {0};
    uint64_t began_ms = cm_mono_ms();

    server = serve_replies(replies, 1); /* waits for a head in clear text */
    open_loop();
    req.url = url_at("https", "127.0.0.1", "/");
    run(&g, &req);
    ck_assert_msg(g.err.cls == CM_ERR_TIMEOUT, "%s", g.err.msg);
    ck_assert_uint_ge(cm_mono_ms() - began_ms, 290);
    ck_assert_uint_lt(cm_mono_ms() - began_ms, 5000);
    got_clear(&g);
    close_loop();
}
END_TEST

/* ---- addresses that are not for clients */

START_TEST(public_addresses)
{
    static const struct {
        const char *addr;
        bool public;
    } cases[] = {
        {"8.8.8.8", true},
        {"1.1.1.1", true},
        {"0.0.0.0", false},
        {"10.1.2.3", false},
        {"11.0.0.0", true},
        {"100.63.255.255", true},
        {"100.64.0.0", false},
        {"100.127.255.255", false},
        {"100.128.0.0", true},
        {"127.0.0.1", false},
        {"127.255.0.1", false},
        {"128.0.0.1", true},
        {"169.254.169.254", false},
        {"169.253.0.1", true},
        {"172.15.0.1", true},
        {"172.16.0.1", false},
        {"172.31.255.255", false},
        {"172.32.0.1", true},
        {"192.0.0.8", false},
        {"192.168.0.1", false},
        {"192.169.0.1", true},
        {"198.18.0.1", false},
        {"198.19.9.9", false},
        {"198.20.0.1", true},
        {"224.0.0.1", false},
        {"239.1.1.1", false},
        {"240.0.0.1", false},
        {"255.255.255.255", false},
        {"223.255.255.255", true},
        {"203.0.113.5", false},
        {"::", false},
        {"::1", false},
        {"::ffff:8.8.8.8", false},
        {"::8.8.8.8", false},
        {"64:ff9b::808:808", false},
        {"64:ff9b:1::1", false},
        {"fe80::1", false},
        {"fc00::1", false},
        {"fdff::1", false},
        {"ff02::1", false},
        {"2001:db8::1", false},
        {"2001::1", false},
        {"2002:808:808::1", false},
        {"2606:4700::1111", true},
        {"2001:4860:4860::8888", true},
        {"2a00:1450::1", true},
        {"3fff::1", false},
        {"100::1", false},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct sockaddr_in in = {.sin_family = AF_INET};
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        bool v6 = strchr(cases[i].addr, ':') != NULL;

        ck_assert_int_eq(v6 ? inet_pton(AF_INET6, cases[i].addr, &in6.sin6_addr)
                            : inet_pton(AF_INET, cases[i].addr, &in.sin_addr),
                         1);
        ck_assert_msg(hc_addr_public(v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in) ==
                          cases[i].public,
                      "%s", cases[i].addr);
    }
    ck_assert(!hc_addr_public(&(struct sockaddr){.sa_family = AF_UNIX}));
}
END_TEST

START_TEST(public_only_reaches_nothing_inside)
{
    static const char *const hosts[] = {
        "127.0.0.1",          "127.1",     "0x7f000001", "2130706433",  "0177.0.0.1", "[::1]",
        "[::ffff:127.0.0.1]", "localhost", "here.test",  "inside.test", "0.0.0.0",    "[::]"};
    struct cm_xfer_req req = {.method = CM_S("GET"), .connect_timeout_ms = 5000};
    struct got g = {0};

    server = serve_replies(good, CM_COUNT(good));
    open_loop_with_names(60000);
    req.url =
        url_at("http", "here.test", "/length"); /* leaves an open connection to the very place */
    run(&g, &req);
    ck_assert(!g.failed);
    got_clear(&g);
    req.public_only = true;
    for (size_t i = 0; i < CM_COUNT(hosts); i++) {
        req.url = url_at("http", hosts[i], "/length");
        run(&g, &req);
        ck_assert_msg(g.err.cls == CM_ERR_BAD_REQUEST && strstr(g.err.msg, "no public address"),
                      "%s: %s", hosts[i], g.err.msg);
        got_clear(&g);
    }
    req.url = CM_S("http://8.8.8.8/");
    req.proxy = url_at("http", "127.0.0.1", "");
    run(&g, &req);
    ck_assert_int_eq(g.err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_ptr_nonnull(strstr(g.err.msg, "behind a proxy"));
    got_clear(&g);
    ck_assert_int_eq(atomic_load(&server->connections), 1);

    req = (struct cm_xfer_req){.method = CM_S("GET"), .connect_timeout_ms = 5000};
    req.url = url_at("http", "here.test",
                     "/close"); /* and what was learnt there does no harm to others */
    run(&g, &req);
    ck_assert(!g.failed);
    got_clear(&g);
    close_loop();
}
END_TEST

/* ---- proxies */

START_TEST(environment_is_ignored)
{
    static const char *const names[] = {"http_proxy",  "HTTP_PROXY", "https_proxy",
                                        "HTTPS_PROXY", "all_proxy",  "ALL_PROXY"};
    struct cm_xfer_req req;
    struct got g = {0};

    for (size_t i = 0; i < CM_COUNT(names); i++)
        setenv(names[i], "http://127.0.0.1:1", 1);
    setenv("NO_PROXY", "*", 1);
    setenv("no_proxy", "*", 1);
    server = serve_replies(good, CM_COUNT(good));
    open_loop();
    get_ok("/length");
    unsetenv("NO_PROXY");
    unsetenv("no_proxy");
    get_ok("/close");

    setenv("NO_PROXY", "*", 1);
    req = get_of("/length");
    req.proxy = CM_S("http://127.0.0.1:1"); /* nobody there: it must not go directly */
    run(&g, &req);
    ck_assert_int_eq(g.err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_ptr_nonnull(strstr(g.err.msg, "through 127.0.0.1:1"));
    got_clear(&g);
    ck_assert_int_eq(atomic_load(&server->requests), 2);
    close_loop();
}
END_TEST

START_TEST(http_proxy_gets_the_name)
{
    static const struct reply replies[] = {
        REPLY("http://nowhere.test/x", OK_HEAD "Content-Length: 2\r\n\r\nok"),
        REPLY("nowhere.test:443",
              "HTTP/1.1 403 Forbidden\r\nX-Proxy: 1\r\nContent-Length: 0\r\n\r\n"),
    };
    struct cm_xfer_req req = {
        .method = CM_S("GET"), .url = CM_S("http://nowhere.test/x"), .connect_timeout_ms = 5000};
    static char proxy[64];
    struct got g = {0};

    server = serve_replies(replies, CM_COUNT(replies));
    open_loop_with_names(60000);
    snprintf(proxy, sizeof(proxy), "http://joe:pass%%20word@here.test:%u", server->port);
    req.proxy = cm_str_of(proxy);
    run(&g, &req);
    ck_assert_msg(!g.failed, "%s", g.err.msg);
    ck_str(cm_buf_str(&g.body), "ok");
    ck_assert_ptr_nonnull(strstr(server->last, "GET http://nowhere.test/x HTTP/1.1\r\n"));
    ck_assert_ptr_nonnull(
        strstr(server->last, "Proxy-Authorization: Basic am9lOnBhc3Mgd29yZA==\r\n"));
    got_clear(&g);
    ck_assert_int_eq(atomic_load(&lookups), 1); /* the proxy's own name */

    req.url = CM_S("https://nowhere.test/y");
    run(&g, &req);
    ck_assert_int_eq(g.heads, 0);
    ck_assert_int_eq(g.err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_msg(strstr(g.err.msg, "refused with status 403") && strstr(g.err.msg, "here.test") &&
                      !strstr(g.err.msg, "joe"),
                  "%s", g.err.msg);
    got_clear(&g);
    ck_assert_int_eq(atomic_load(&lookups), 1);

    req.proxy = CM_S("ftp://here.test"); /* what cannot be used is not passed over */
    run(&g, &req);
    ck_assert_int_eq(g.err.cls, CM_ERR_UPSTREAM_DOWN);
    got_clear(&g);
    close_loop();
}
END_TEST

static char socks_host[256];

static void *socks_thread(void *arg)
{
    int listener = *(int *)arg, fd = accept(listener, NULL, NULL);
    static const char reply[] = OK_HEAD "Content-Length: 2\r\n\r\nok";
    unsigned char b[600];

    if (fd < 0)
        return NULL;
    (void)recv(fd, b, 2, MSG_WAITALL);
    (void)recv(fd, b + 2, b[1], MSG_WAITALL);
    (void)send_all(fd, "\x05\x00", 2);
    (void)recv(fd, b, 5, MSG_WAITALL);
    if (b[3] == 3) { /* a name */
        (void)recv(fd, socks_host, b[4], MSG_WAITALL);
        (void)recv(fd, b, 2, MSG_WAITALL);
        (void)send_all(fd, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", 10);
        (void)recv(fd, b, sizeof(b), 0);
        (void)send_all(fd, reply, sizeof(reply) - 1);
    }
    close(fd);
    return NULL;
}

START_TEST(socks_proxy_gets_the_name)
{
    struct cm_xfer_req req = {
        .method = CM_S("GET"), .url = CM_S("http://nowhere.test/x"), .connect_timeout_ms = 5000};
    struct got g = {0};
    char proxy[64];
    uint16_t port;
    int fd = listen_on("127.0.0.1", &port);
    pthread_t thread;

    pthread_create(&thread, NULL, socks_thread, &fd);
    open_loop_with_names(60000);
    snprintf(proxy, sizeof(proxy), "socks5h://here.test:%u", port);
    req.proxy = cm_str_of(proxy);
    run(&g, &req);
    ck_assert_msg(!g.failed, "%s", g.err.msg);
    ck_str(cm_buf_str(&g.body), "ok");
    pthread_join(thread, NULL);
    ck_assert_str_eq(socks_host, "nowhere.test");
    ck_assert_int_eq(atomic_load(&lookups), 1);
    got_clear(&g);
    close_loop();
}
END_TEST

/* ---- TLS */

static EVP_PKEY *tls_key;
static X509 *tls_cert;
static char tls_file[] = "/tmp/chatmux-test-ca-XXXXXX";
static atomic_int tls_requests, tls_resumed;

static void tls_make_cert(void)
{
    X509_NAME *name;
    X509_EXTENSION *san;
    int fd = mkstemp(tls_file);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;

    ck_assert_ptr_nonnull(f);
    tls_key = EVP_EC_gen("P-256");
    tls_cert = X509_new();
    X509_set_version(tls_cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(tls_cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(tls_cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(tls_cert), 3600);
    X509_set_pubkey(tls_cert, tls_key);
    name = X509_get_subject_name(tls_cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"here.test", -1, -1,
                               0);
    X509_set_issuer_name(tls_cert, name);
    san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:here.test");
    X509_add_ext(tls_cert, san, -1);
    X509_EXTENSION_free(san);
    ck_assert_int_gt(X509_sign(tls_cert, tls_key, EVP_sha256()), 0);
    PEM_write_X509(f, tls_cert);
    fclose(f);
}

/* One connection after the other: each serves one request and is closed by the server. */
static void *tls_thread(void *arg)
{
    static const char reply[] = OK_HEAD "Connection: close\r\nContent-Length: 2\r\n\r\nok";
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    int listener = *(int *)arg;

    SSL_CTX_use_certificate(ctx, tls_cert);
    SSL_CTX_use_PrivateKey(ctx, tls_key);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        SSL *ssl = SSL_new(ctx);
        char buf[4096];

        if (fd < 0)
            return NULL;
        SSL_set_fd(ssl, fd);
        if (SSL_accept(ssl) == 1 && SSL_read(ssl, buf, sizeof(buf)) > 0) {
            atomic_fetch_add(&tls_requests, 1);
            atomic_fetch_add(&tls_resumed, SSL_session_reused(ssl));
            (void)SSL_write(ssl, reply, sizeof(reply) - 1);
            (void)SSL_shutdown(ssl);
        }
        SSL_free(ssl);
        close(fd);
    }
}

START_TEST(tls_trusts_the_given_file_only)
{
    static struct server place;
    struct cm_xfer_req req = {.method = CM_S("GET"), .connect_timeout_ms = 5000}, bad;
    struct got g = {0};
    pthread_t thread;
    int fd;

    tls_make_cert();
    fd = listen_on("127.0.0.1", &place.port);
    server = &place;
    pthread_create(&thread, NULL, tls_thread, &fd);
    open_loop_with_names(60000);

    req.url = url_at("https", "here.test", "/");
    bad = req; /* the system's certificates know nothing of ours */
    run(&g, &bad);
    ck_assert_msg(g.err.cls == CM_ERR_UPSTREAM_DOWN && strstr(g.err.msg, "not trusted: self"), "%s",
                  g.err.msg);
    got_clear(&g);

    req.ca_file = cm_str_of(tls_file);
    bad = req;
    bad.url = url_at("https", "127.0.0.1", "/");
    run(&g, &bad);
    ck_assert_msg(g.err.cls == CM_ERR_UPSTREAM_DOWN && strstr(g.err.msg, "another name"), "%s",
                  g.err.msg);
    got_clear(&g);

    bad.ca_file = CM_S("/nonexistent/ca.pem");
    run(&g, &bad);
    ck_assert_msg(g.err.cls == CM_ERR_UPSTREAM_DOWN && strstr(g.err.msg, "/nonexistent/ca.pem"),
                  "%s", g.err.msg);
    got_clear(&g);

    for (int i = 0; i < 4; i++) { /* within an isolation a session is resumed, across it is not */
        req.isolation = i < 2 ? CM_S("a") : CM_S("b");
        run(&g, &req);
        ck_assert_msg(!g.failed, "%s", g.err.msg);
        ck_str(cm_buf_str(&g.body), "ok");
        got_clear(&g);
    }
    ck_assert_int_eq(atomic_load(&tls_requests), 4);
    ck_assert_int_eq(atomic_load(&tls_resumed), 2);
    close_loop();
    unlink(tls_file);
    X509_free(tls_cert);
    EVP_PKEY_free(tls_key);
}
END_TEST

Suite *suite_httpc(void)
{
    Suite *s = suite_create("httpc");
    TCase *t = tcase_create("httpc");

    tcase_add_test(t, every_framing_whole_and_in_pieces);
    tcase_add_test(t, empty_answers);
    tcase_add_test(t, cut_at_every_byte);
    tcase_add_test(t, broken_in_other_ways);
    tcase_add_test(t, refused_connection_tells_where_and_why);
    tcase_add_test(t, head_is_bounded_and_cannot_carry_line_breaks);
    tcase_add_test(t, sends_what_it_was_given_and_nothing_else);
    tcase_add_test(t, paths_are_sent_as_they_are_or_put_right);
    tcase_add_test(t, refuses_headers_and_urls_that_would_split_the_request);
    tcase_add_test(t, connections_are_reused);
    tcase_add_test(t, many_transfers_use_several_pools);
    tcase_add_test(t, dead_connection_is_replaced);
    tcase_add_test(t, isolations_share_nothing);
    tcase_add_test(t, forgotten_while_busy);
    tcase_add_test(t, close_at_every_moment);
    tcase_add_test(t, two_transfers_close_each_other);
    tcase_add_test(t, paused_transfer_is_not_read);
    tcase_add_test(t, pieces_are_bounded);
    tcase_add_test(t, paused_while_the_peer_breaks_off);
    tcase_add_test(t, paused_before_there_is_a_connection);
    tcase_add_test(t, paused_transfer_keeps_only_what_came_before);
    tcase_add_test(t, idle_connection_that_the_peer_closes_does_not_spin);
    tcase_add_test(t, names_go_through_our_resolver);
    tcase_add_test(t, new_addresses_are_used);
    tcase_add_test(t, addresses_are_not_taken_for_known_too_early);
    tcase_add_test(t, addresses_that_libcurl_lost_are_given_again);
    tcase_add_test(t, hanging_lookup_blocks_nobody);
    tcase_add_test(t, connect_timeout_covers_tls);
    tcase_add_test(t, public_addresses);
    tcase_add_test(t, public_only_reaches_nothing_inside);
    tcase_add_test(t, environment_is_ignored);
    tcase_add_test(t, http_proxy_gets_the_name);
    tcase_add_test(t, socks_proxy_gets_the_name);
    tcase_add_test(t, tls_trusts_the_given_file_only);
    suite_add_tcase(s, t);
    return s;
}
