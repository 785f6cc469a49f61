/* HTTP server: real connections on a real loop; every request is also fed at other cuts, every refusal is a row of a table, and after each test
 * the loop closes with nothing left. */
#include "unit.h"

#include "chatmux/io/httpd.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/rand.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define OK_HEAD "HTTP/1.1 200 OK\r\n"
#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST(target, headers) "POST " target " HTTP/1.1\r\nHost: a\r\n" headers "\r\n\r\n"

/* A server whose handler does what the path says, and notes what happens. */
struct site {
    struct cm_loop *loop;
    struct cm_httpd *h;
    struct cm_httpd_setup setup;
    struct cm_buf notes; /* "GET /path;" on_request, "body N;", "gone why;", "drain;" */
    struct cm_req *held; /* the request that waits for the test to answer it */
    size_t deepest;      /* stack used by handlers, bytes */
    const char *stack_top;
    unsigned idle; /* on_idle calls */
};

static const struct cm_header text_plain[] = {{CM_S_INIT("Content-Type"), CM_S_INIT("text/plain")}};

static void note(struct site *s, const char *what, struct cm_str more)
{
    cm_buf_append(&s->notes, cm_str_of(what));
    cm_buf_append(&s->notes, more);
    cm_buf_put(&s->notes, ';');
}

static void answer(struct cm_req *req, struct cm_str body)
{
    cm_resp_send(req, 200, text_plain, 1, body);
}

/* "/bytes/1000" */
static size_t number_in(struct cm_str path)
{
    uint64_t n = 0;

    while (cm_str_find_char(path, '/') != SIZE_MAX)
        cm_str_cut(&path, '/');
    return cm_str_to_u64(path, 1u << 30, &n) ? (size_t)n : 0;
}

static void answer_bytes(struct cm_req *req, size_t n)
{
    char *p = cm_arena_alloc(&req->arena, n);

    for (size_t i = 0; i < n; i++)
        p[i] = (char)('a' + i % 26);
    answer(req, cm_str(p, n));
}

static void on_body(void *arg, struct cm_req *req, struct cm_str body)
{
    struct site *s = arg;
    char digits[24];

    snprintf(digits, sizeof(digits), "%zu", body.n);
    note(s, "body ", cm_str_of(digits));
    ck_quick(req->bytes_in == body.n);
    if (cm_str_eq(req->path, CM_S("/hold")))
        s->held = req;
    else
        answer(req, body);
}

static void on_gone(void *arg, struct cm_req *req, const struct cm_err *why)
{
    struct site *s = arg;

    note(s, "gone ", why ? cm_str_of(cm_err_info(why->cls)->name) : CM_S(""));
    if (s->held == req)
        s->held = NULL;
    cm_resp_abort(req); /* late calls do nothing */
}

static void on_drain(void *arg, struct cm_req *req)
{
    struct site *s = arg;

    (void)req;
    note(s, "drain", CM_STR_NONE);
}

static const struct cm_req_cb callbacks = {on_body, on_gone, on_drain};

static void on_request(void *arg, struct cm_req *req)
{
    struct site *s = arg;
    const char here = 0;
    size_t depth = (size_t)(s->stack_top - &here);

    if (depth > s->deepest && depth < (1u << 24))
        s->deepest = depth;
    cm_req_listen(req, &callbacks, s);
    cm_buf_append(&s->notes, req->method);
    cm_buf_put(&s->notes, ' ');
    cm_buf_append(&s->notes, req->target);
    cm_buf_put(&s->notes, ';');
    if (cm_str_eq(req->path, CM_S("/echo")) || cm_str_eq(req->method, CM_S("CONNECT"))) {
        cm_req_read(req, 100000);
    } else if (cm_str_eq(req->path, CM_S("/hold"))) {
        if (req->has_body)
            cm_req_read(req, 100000);
        else
            s->held = req;
    } else if (cm_str_eq(req->path, CM_S("/later"))) {
        s->held = req; /* and the body, if any, is not asked for */
    } else if (cm_str_starts(req->path, CM_S("/bytes/"))) {
        answer_bytes(req, number_in(req->path));
    } else if (cm_str_eq(req->path, CM_S("/stream"))) {
        cm_resp_start(req, 200, text_plain, 1);
        cm_resp_write(req, CM_S("Hello "));
        cm_resp_write(req, CM_S(""));
        cm_resp_write(req, CM_S("stream of twenty-six bytes"));
        cm_resp_end(req);
    } else if (cm_str_eq(req->path, CM_S("/cut"))) {
        cm_resp_start(req, 200, text_plain, 1);
        cm_resp_write(req, CM_S("some"));
        cm_resp_abort(req);
    } else if (cm_str_eq(req->path, CM_S("/status"))) {
        cm_resp_send(req, 204, NULL, 0, CM_S("not sent"));
    } else if (cm_str_eq(req->path, CM_S("/close-server"))) {
        cm_httpd_close(s->h), s->h = NULL;
    } else {
        answer(req, CM_S("ok"));
    }
}

static void describe_error(void *arg, const struct cm_err *err, struct cm_buf *body)
{
    (void)arg;
    cm_buf_printf(body, "{\"error\":\"%s\"}", cm_err_info(err->cls)->name);
}

static void site_open(struct site *s)
{
    const struct cm_httpd_handler handler = {on_request, describe_error, s};
    struct cm_err err;
    const char top = 0;

    s->stack_top = &top;
    s->loop = cm_loop_new();
    if (s->setup.max_connections == 0)
        s->setup = (struct cm_httpd_setup){.max_header_bytes = 4096,
                                           .max_body_bytes = 1 << 20,
                                           .header_timeout_ms = 20000,
                                           .body_timeout_ms = 20000,
                                           .keepalive_timeout_ms = 20000,
                                           .max_connections = 100};
    s->h = cm_httpd_new(s->loop, &s->setup, &handler);
    ck_assert_msg(cm_httpd_listen(s->h, CM_S("127.0.0.1:0"), &err) == 0, "%s", err.msg);
}

static void site_close(struct site *s)
{
    cm_httpd_close(s->h);
    cm_loop_free(s->loop); /* ends the process when a handle is open */
    cm_buf_clear(&s->notes);
}

/* ---- a client in the same thread */

struct client {
    struct site *s;
    int fd;
    struct cm_buf got;
    bool eof, reset;
};

static void turn(struct site *s)
{
    uv_run(cm_loop_uv(s->loop), UV_RUN_NOWAIT);
}

static void wait_ms(struct site *s, uint64_t ms)
{
    for (uint64_t until_ms = cm_mono_ms() + ms; cm_mono_ms() < until_ms;) {
        turn(s);
        poll(NULL, 0, 1);
    }
}

static void client_open_small(struct client *c, struct site *s, int receive_bytes)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)cm_httpd_port(s->h, 0))};
    int one = 1;

    *c = (struct client){.s = s, .fd = socket(AF_INET, SOCK_STREAM, 0)};
    ck_quick(c->fd >= 0);
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (receive_bytes > 0)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    ck_quick(connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
}

static void client_open(struct client *c, struct site *s)
{
    client_open_small(c, s, 0);
}

static void client_close(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    cm_buf_clear(&c->got);
}

static void client_send(struct client *c, struct cm_str bytes)
{
    for (uint64_t until_ms = cm_mono_ms() + 10000; bytes.n > 0;) {
        ssize_t n = send(c->fd, bytes.p, bytes.n, MSG_NOSIGNAL);

        if (n > 0)
            bytes = cm_str_from(bytes, (size_t)n);
        else if (errno != EAGAIN)
            return; /* the server has closed: the test will see what it read */
        turn(c->s);
        ck_quick(cm_mono_ms() < until_ms);
    }
}

static void client_pull(struct client *c)
{
    char bytes[65536];
    ssize_t n = recv(c->fd, bytes, sizeof(bytes), 0);

    if (n > 0)
        cm_buf_append(&c->got, cm_str(bytes, (size_t)n));
    else if (n == 0)
        c->eof = true;
    else if (errno != EAGAIN)
        c->reset = true;
}

/* Until `c` has n bytes, or the connection has ended. False after `ms`. */
static bool client_await(struct client *c, size_t n, uint64_t ms)
{
    for (uint64_t until_ms = cm_mono_ms() + ms; c->got.n < n && !c->eof && !c->reset;) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};

        turn(c->s);
        if (poll(&p, 1, 1) > 0)
            client_pull(c);
        if (cm_mono_ms() >= until_ms)
            return false;
    }
    return true;
}

static bool client_has(const struct client *c, const char *text)
{
    return cm_str_has(cm_buf_str(&c->got), cm_str_of(text));
}

static unsigned count_of(const struct client *c, const char *text)
{
    struct cm_str rest = cm_buf_str(&c->got);
    unsigned n = 0;

    for (size_t at; (at = cm_str_find(rest, cm_str_of(text))) != SIZE_MAX; n++)
        rest = cm_str_from(rest, at + strlen(text));
    return n;
}

/* Until the text has come; fails the test otherwise. */
static void client_expect(struct client *c, const char *text)
{
    for (uint64_t until_ms = cm_mono_ms() + 10000; !client_has(c, text);) {
        ck_assert_msg(!c->eof && !c->reset && cm_mono_ms() < until_ms, "no \"%s\" but %s \"%.*s\"",
                      text,
                      c->eof     ? "EOF after"
                      : c->reset ? "a reset after"
                                 : "silence after",
                      CM_ARG(cm_buf_str(&c->got)));
        client_await(c, c->got.n + 1, 100);
    }
}

static void client_expect_eof(struct client *c)
{
    client_await(c, SIZE_MAX, 10000);
    ck_assert_msg(c->eof, "%s instead of EOF after \"%.*s\"", c->reset ? "a reset" : "silence",
                  CM_ARG(cm_buf_str(&c->got)));
}

static void expect_notes(struct site *s, const char *notes)
{
    for (uint64_t until_ms = cm_mono_ms() + 10000;
         !cm_str_eq(cm_buf_str(&s->notes), cm_str_of(notes));) {
        ck_assert_msg(cm_mono_ms() < until_ms, "notes are \"%.*s\", not \"%s\"",
                      CM_ARG(cm_buf_str(&s->notes)), notes);
        wait_ms(s, 1);
    }
}

static void expect_connections(struct site *s, size_t n)
{
    for (uint64_t until_ms = cm_mono_ms() + 10000; cm_httpd_connections(s->h) != n;) {
        ck_assert_msg(cm_mono_ms() < until_ms, "%zu connections, not %zu",
                      cm_httpd_connections(s->h), n);
        wait_ms(s, 1);
    }
}

/* ---- requests and answers */

START_TEST(answers_and_keeps_the_connection)
{
    struct site s = {0};
    struct client c;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, CM_S(GET("/a?x=1")));
    client_expect(&c, "\r\n\r\nok");
    ck_assert(cm_str_starts(cm_buf_str(&c.got), CM_S(OK_HEAD "Date: ")));
    ck_assert(client_has(&c, "\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"));
    ck_assert(!client_has(&c, "Connection:"));
    cm_buf_reset(&c.got);
    client_send(&c, CM_S(POST("/echo", "Content-Length: 5") "hello"));
    client_expect(&c, "Content-Length: 5\r\n\r\nhello");
    ck_str(cm_buf_str(&s.notes), "GET /a?x=1;POST /echo;body 5;");
    ck_assert_uint_eq(cm_httpd_connections(s.h), 1);
    client_close(&c);
    expect_connections(&s, 0);
    site_close(&s);
}
END_TEST

/* The server's end of the client's connection: in the same process, so among its descriptors. */
static int other_end(const struct client *c)
{
    struct sockaddr_in mine = {0}, peer = {0};
    socklen_t n = sizeof(mine);

    getsockname(c->fd, (struct sockaddr *)&mine, &n);
    for (int fd = 3; fd < 1024; fd++) {
        n = sizeof(peer);
        if (fd != c->fd && getpeername(fd, (struct sockaddr *)&peer, &n) == 0 &&
            peer.sin_family == AF_INET && peer.sin_port == mine.sin_port)
            return fd;
    }
    return -1;
}

/* A small piece must not wait for the client's confirmation of the one before. */
START_TEST(small_pieces_leave_at_once)
{
    struct site s = {0};
    struct client c;
    int on = 0, fd;
    socklen_t n = sizeof(on);

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, CM_S(GET("/a")));
    client_expect(&c, "\r\n\r\nok");
    fd = other_end(&c);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &n), 0);
    ck_assert_int_ne(on, 0);
    client_close(&c);
    expect_connections(&s, 0);
    site_close(&s);
}
END_TEST

#define CUT_REQUESTS                                                                                       \
    "\r\nPOST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world"                          \
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"                                 \
    "5;x=y\r\nhello\r\n00006\r\n world\r\n0\r\nTrailer: x\r\n\r\n"                                         \
    "GET /stream HTTP/1.1\r\nhost:a\r\n\r\n"                                                               \
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nskipHEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n" \
    "GET /last HTTP/1.0\r\n\r\n"

/* Dates differ: they are blotted out. */
static void blot_dates(struct cm_buf *b)
{
    for (size_t at = 0; at + 35 < b->n; at++) {
        if (memcmp(b->p + at, "Date: ", 6) == 0)
            memset(b->p + at + 6, '-', CM_HTTP_DATE_CAP - 1);
    }
}

START_TEST(same_answers_for_every_cut)
{
    static const char requests[] = CUT_REQUESTS;
    const struct cm_str all = CM_S(CUT_REQUESTS);
    struct site s = {0};
    struct client whole, cut;

    site_open(&s);
    client_open(&whole, &s);
    client_send(&whole, all);
    client_expect_eof(&whole);
    blot_dates(&whole.got);
    ck_assert_uint_eq(count_of(&whole, OK_HEAD), 6);
    ck_assert_uint_eq(count_of(&whole, "\r\n\r\nhello world"), 2);
    ck_assert_uint_eq(
        count_of(&whole, "\r\n\r\n6\r\nHello \r\n1a\r\nstream of twenty-six bytes\r\n0\r\n\r\n"),
        1);
    ck_assert(cm_str_ends(cm_buf_str(&whole.got), CM_S("Connection: close\r\n\r\nok")));
    for (size_t at = 1; at < sizeof(requests) - 1; at++) {
        client_open(&cut, &s);
        client_send(&cut, cm_str_head(all, at));
        turn(&s);
        turn(&s);
        client_send(&cut, cm_str_from(all, at));
        client_expect_eof(&cut);
        blot_dates(&cut.got);
        ck_assert_msg(cm_str_eq(cm_buf_str(&cut.got), cm_buf_str(&whole.got)),
                      "cut at %zu: \"%.*s\"", at, CM_ARG(cm_buf_str(&cut.got)));
        client_close(&cut);
    }
    client_open(&cut, &s);
    for (size_t at = 0; at < all.n; at++)
        client_send(&cut, cm_str(all.p + at, 1));
    client_expect_eof(&cut);
    blot_dates(&cut.got);
    ck_assert(cm_str_eq(cm_buf_str(&cut.got), cm_buf_str(&whole.got)));
    client_close(&cut);
    client_close(&whole);
    site_close(&s);
}
END_TEST

struct exchange_row {
    const char *request;
    const char *answer; /* in it, or at its end when it begins with '$' */
    bool keeps;
};

/* Requests that are answered, and whether another may follow. */
static const struct exchange_row served[] = {
    {"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n", "$Content-Length: 2\r\n\r\n", true},
    {"HEAD /bytes/70000 HTTP/1.1\r\nHost: a\r\n\r\n", "$Content-Length: 70000\r\n\r\n", true},
    {"HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n", "$Transfer-Encoding: chunked\r\n\r\n", true},
    {"GET /status HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 204 No Content\r\nDate: ", true},
    {"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "Connection: close\r\n\r\nok",
     false},
    {"GET /a HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n", "Connection: close\r\n\r\nok",
     false},
    {"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close-ish\r\n\r\n", "$Content-Length: 2\r\n\r\nok",
     true},
    {"GET /a HTTP/1.0\r\n\r\n", "Connection: close\r\n\r\nok", false},
    {"GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "Connection: keep-alive\r\n\r\nok", true},
    {"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
     "$text/plain\r\nConnection: close\r\n\r\nHello stream of twenty-six bytes", false},
    {"POST /echo HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", "\r\n\r\nhi", false},
    {"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n", "Content-Length: 0\r\n\r\n", true},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "Content-Length: 0\r\n\r\n",
     true},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0002\r\n\r\nhi", "\r\n\r\nhi", true},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
     "Length: 0\r\n\r\n", true},
    /* a trailer is no header, whatever it is called */
    {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nConnection: close\r\n"
     "Host: b\r\n\r\n",
     "Content-Length: 2\r\n\r\nhi", true},
    {"GET /a HTTP/1.1\r\nHost:\r\n\r\n", OK_HEAD, true}, /* RFC 9112 3.2: may be empty */
    {"GET /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", OK_HEAD, true},
    {"GET http://b/a?b#no HTTP/1.1\r\nHost: a\r\n\r\n", "400 Bad Request", false},
    {"GET http://b.c/a HTTP/1.1\r\nHost: b.c\r\n\r\n", OK_HEAD, true},
    {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", OK_HEAD, true},
    /* upgrades are ignored */
    {"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
     "$Content-Length: 2\r\n\r\nok", true},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
     "Content-Length: 2\r\n\r\nhi", true},
    {"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
     "Content-Length: 0\r\nConnection: close\r\n\r\n", false},
    {"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\nTransfer-Encoding: chunked\r\n\r\n"
     "2\r\nhi\r\n0\r\n\r\n",
     "Content-Length: 2\r\nConnection: close\r\n\r\nhi", false},
    /* the interim answer, and an answer instead of it */
    {"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
     "Connection: close\r\n\r\nok", false},
    {"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
     "\r\n\r\nhi", true},
    {"\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", OK_HEAD, true},
};

START_TEST(serves)
{
    const struct exchange_row *row = &served[_i];
    struct site s = {0};
    struct client c;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, cm_str_of(row->request));
    client_expect(&c, row->answer[0] == '$' ? row->answer + 1 : row->answer);
    if (row->keeps) {
        wait_ms(&s, 20);
        client_pull(&c);
        ck_assert(!c.eof);
    } else {
        client_expect_eof(&c);
    }
    if (row->answer[0] == '$')
        ck_assert_msg(cm_str_ends(cm_buf_str(&c.got), cm_str_of(row->answer + 1)), "\"%.*s\"",
                      CM_ARG(cm_buf_str(&c.got)));
    if (row->keeps) {
        client_send(&c, CM_S(GET("/again")));
        client_expect(&c, "\r\n\r\nok");
        ck_assert_msg(client_has(&c, OK_HEAD), "%.*s", CM_ARG(cm_buf_str(&c.got)));
        ck_assert(cm_str_has(cm_buf_str(&s.notes), CM_S("GET /again;")));
    }
    client_close(&c);
    site_close(&s);
}
END_TEST

#define BODY(headers, text) POST("/echo", headers) text
#define CHUNKED(text) BODY("Transfer-Encoding: chunked", text)

struct refusal {
    const char *request;
    int status;
};

/* Framing that must never be served (RFC 9112, and where llhttp is more generous). */
static const struct refusal refused[] = {
    {BODY("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"), 400},
    {BODY("Transfer-Encoding: chunked, gzip", "0\r\n\r\n"), 400},
    {BODY("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"), 400},
    {BODY("Transfer-Encoding: xchunked", "0\r\n\r\n"), 400},
    {BODY("Transfer-Encoding: identity", "hi"), 400},
    {BODY("Transfer-Encoding:", "0\r\n\r\n"), 400},
    {BODY("Transfer-Encoding: \"chunked\"", "0\r\n\r\n"), 400},
    {BODY("Transfer-Encoding: chunked;x=y", "0\r\n\r\n"), 400},
    {BODY("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 400},
    {BODY("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"), 400},
    {BODY("Transfer-Encoding: \vchunked", "0\r\n\r\n"), 400},
    {BODY("Transfer-Encoding : chunked", "0\r\n\r\n"), 400},
    {BODY("Transfer_Encoding: chunked\r\nTransfer-Encoding\t: chunked", "0\r\n\r\n"), 400},
    {BODY("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 400},
    {BODY("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"), 400},
    {"POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
    {BODY("Content-Length: 2\r\nContent-Length: 3", "hi!"), 400},
    {BODY("Content-Length: 2\r\nContent-Length: 2", "hi"), 400},
    {BODY("Content-Length: 2, 2", "hi"), 400},
    {BODY("Content-Length: +2", "hi"), 400},
    {BODY("Content-Length: -2", "hi"), 400},
    {BODY("Content-Length: 0x2", "hi"), 400},
    {BODY("Content-Length: 2 3", "hi"), 400},
    {BODY("Content-Length: 2.0", "hi"), 400},
    {BODY("Content-Length:", "hi"), 400},
    {BODY("Content-Length: 18446744073709551617", "h"), 400},
    {BODY("Content-Length: 9223372036854775808", "h"), 400},
    {BODY("Content-Length : 2", "hi"), 400},
    {BODY("Content-Length: 1048577", "h"), 413},
    {BODY("Content-Length: 9223372036854775807", "h"), 413},
    {CHUNKED("x\r\nhi\r\n0\r\n\r\n"), 400},
    {CHUNKED("-2\r\nhi\r\n0\r\n\r\n"), 400},
    {CHUNKED("+2\r\nhi\r\n0\r\n\r\n"), 400},
    {CHUNKED("0x2\r\nhi\r\n0\r\n\r\n"), 400},
    {CHUNKED(" 2\r\nhi\r\n0\r\n\r\n"), 400},
    {CHUNKED("2 \r\nhi\r\n0\r\n\r\n"), 400},
    {CHUNKED("\r\nhi\r\n0\r\n\r\n"), 400},
    {CHUNKED("2\nhi\r\n0\r\n\r\n"), 400},
    {CHUNKED("2\r\nhi\n0\r\n\r\n"), 400},
    {CHUNKED("2\r\nhi0\r\n\r\n"), 400},
    {CHUNKED("2\r\nhi!\r\n0\r\n\r\n"), 400},
    {CHUNKED("2;a\nb\r\nhi\r\n0\r\n\r\n"), 400},
    {CHUNKED("2;a=\rb\r\nhi\r\n0\r\n\r\n"), 400},
    {CHUNKED("2\r\nhi\r\n0\r\nT: x\n\r\n"), 400},
    {CHUNKED("2\r\nhi\r\n0\r\nT : x\r\n\r\n"), 400},
    {CHUNKED("2\r\nhi\r\n0\r\n\rx"), 400},
    {CHUNKED("ffffffffffffffff1\r\nhi"), 400},
    {CHUNKED("186a1\r\nhi"), 0}, /* 100001 bytes, told but not there: nothing to refuse yet */
    {"GET /a HTTP/1.1\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
    {"GET /a HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
    {"GET /a HTTP/2.0\r\nHost: a\r\n\r\n", 400},
    {"GET /a HTTP/0.9\r\nHost: a\r\n\r\n", 400},
    {"GET /a HTTP/1.2\r\nHost: a\r\n\r\n", 400},
    {"GET /a HTTP/1.10\r\nHost: a\r\n\r\n", 400},
    {"GET /a HTTP/01.1\r\nHost: a\r\n\r\n", 400},
    {"GET /a http/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /a HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
    {"GET /a\r\n\r\n", 400},
    {"GET /a \r\n\r\n", 400},
    {"GET\r\n\r\n", 400},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
    {"SOURCE /a ICE/1.0\r\nHost: a\r\n\r\n", 400},
    {"SOURCE /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /a ICE/1.0\r\nHost: a\r\n\r\n", 400},
    {"DESCRIBE /a RTSP/1.0\r\nHost: a\r\n\r\n", 400},
    {"GET /a RTSP/1.0\r\nHost: a\r\n\r\n", 400},
    {"FOO /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"get /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"G ET /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {" GET /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET  /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /a  HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET\t/a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"\rGET /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"\r\n\r\n\r\n\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"GET /a HTTP/1.1\nHost: a\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\r\n\n", 400},
    {"GET /a HTTP/1.1\n\nHost: a\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\r\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\r\n\xc3\xa4: z\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\r\nX: y\x01z\r\n\r\n", 400},
    {"GET /a HTTP/1.1\r\nHost: a\r\nX: y\x7fz\r\n\r\n", 400},
    {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400}, /* TLS on a plain port */
};

/* One answer with that status, JSON and an id, then the end; nothing behind it is served. */
static void expect_refusal(struct site *s, struct cm_str request, int status, const char *name)
{
    struct client c;
    char line[24];

    client_open(&c, s);
    client_send(&c, request);
    client_send(&c, CM_S(GET("/smuggled")));
    if (status == 0) {
        wait_ms(s, 20);
        client_pull(&c);
        ck_assert_uint_eq(c.got.n, 0);
        client_close(&c);
        return;
    }
    client_expect_eof(&c);
    snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
    ck_assert_msg(cm_str_starts(cm_buf_str(&c.got), cm_str_of(line)), "\"%s\" is answered \"%.*s\"",
                  name, CM_ARG(cm_buf_str(&c.got)));
    ck_assert_uint_eq(count_of(&c, "HTTP/1."), 1);
    ck_assert(client_has(&c, "\r\nContent-Type: application/json\r\nx-request-id: req_"));
    ck_assert(client_has(&c, "\r\nConnection: close\r\n\r\n{\"error\":\""));
    ck_assert_msg(!cm_str_has(cm_buf_str(&s->notes), CM_S("smuggled")), "%s", name);
    client_close(&c);
}

START_TEST(refuses)
{
    const struct refusal *row = &refused[_i];
    const struct cm_str request = cm_str_of(row->request);
    struct site s = {0};

    site_open(&s);
    expect_refusal(&s, request, row->status, row->request);
    for (size_t at = 1; at < request.n && row->status > 0; at += 7) { /* the same after a cut */
        struct client c;
        char line[24];

        client_open(&c, &s);
        client_send(&c, cm_str_head(request, at));
        turn(&s);
        client_send(&c, cm_str_from(request, at));
        shutdown(c.fd, SHUT_WR);
        client_expect_eof(&c);
        snprintf(line, sizeof(line), "HTTP/1.1 %d ", row->status);
        ck_assert_msg(cm_str_starts(cm_buf_str(&c.got), cm_str_of(line)), "cut at %zu: \"%.*s\"",
                      at, CM_ARG(cm_buf_str(&c.got)));
        client_close(&c);
    }
    expect_connections(&s, 0);
    site_close(&s);
}
END_TEST

START_TEST(refuses_nul_bytes)
{
    static const struct cm_str requests[] = {
        CM_S_INIT("GET /a HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        CM_S_INIT("GET /a HTTP/1.1\r\nHost: a\r\nX\0Y: b\r\n\r\n"),
        CM_S_INIT("GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"),
        CM_S_INIT("GET /a HTTP/1.1\0\r\nHost: a\r\n\r\n"),
        CM_S_INIT("\0GET /a HTTP/1.1\r\nHost: a\r\n\r\n"),
        CM_S_INIT(
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n"),
        CM_S_INIT("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\0\r\n\r\nhi"),
    };
    struct site s = {0};

    site_open(&s);
    for (size_t i = 0; i < CM_COUNT(requests); i++)
        expect_refusal(&s, requests[i], 400, "NUL");
    site_close(&s);
}
END_TEST

static void put_repeated(struct cm_buf *b, const char *text, size_t times)
{
    for (size_t i = 0; i < times; i++)
        cm_buf_append(b, cm_str_of(text));
}

START_TEST(bounds_the_head)
{
    struct site s = {0};
    struct cm_buf b = {0};
    struct client c;

    site_open(&s);
    cm_buf_append(&b, CM_S("GET /a HTTP/1.1\r\nHost: a\r\n"));
    put_repeated(&b, "a:b\r\n", 199); /* 200 with Host, within the size */
    cm_buf_append(&b, CM_S("\r\n"));
    client_open(&c, &s);
    client_send(&c, cm_buf_str(&b));
    client_expect(&c, "\r\n\r\nok");
    client_close(&c);

    b.n -= 2; /* one more */
    cm_buf_append(&b, CM_S("a:b\r\n\r\n"));
    expect_refusal(&s, cm_buf_str(&b), 431, "201 headers");

    cm_buf_reset(&b); /* exactly the limit */
    cm_buf_append(&b, CM_S("GET /a HTTP/1.1\r\nHost: a\r\nX: "));
    put_repeated(&b, "x", 4096 - b.n - 4);
    cm_buf_append(&b, CM_S("\r\n\r\n"));
    ck_assert_uint_eq(b.n, 4096);
    client_open(&c, &s);
    client_send(&c, cm_buf_str(&b));
    client_expect(&c, "\r\n\r\nok");
    client_close(&c);

    cm_buf_reset(&b); /* a byte more */
    cm_buf_append(&b, CM_S("GET /a HTTP/1.1\r\nHost: a\r\nX: "));
    put_repeated(&b, "x", 4097 - b.n - 4);
    cm_buf_append(&b, CM_S("\r\n\r\n"));
    expect_refusal(&s, cm_buf_str(&b), 431, "4097 bytes");

    cm_buf_reset(&b);
    cm_buf_append(&b, CM_S("GET /"));
    put_repeated(&b, "x", 300000);
    expect_refusal(&s, cm_buf_str(&b), 431, "endless target");

    cm_buf_reset(&b);
    cm_buf_append(&b, CM_S("GET /a HTTP/1.1\r\nHost: a\r\n"));
    put_repeated(&b, "header: value\r\n", 10000);
    expect_refusal(&s, cm_buf_str(&b), 431, "10,000 headers");
    expect_connections(&s, 0);
    cm_buf_clear(&b);
    site_close(&s);
}
END_TEST

/* A chunked body that goes on with framing for ever, and nothing after it that would be wrong. */
static void expect_framing_bound(struct site *s, const char *start, const char *more)
{
    struct cm_buf b = {0};
    struct client c;

    cm_buf_append(&b, CM_S(CHUNKED("")));
    cm_buf_append(&b, cm_str_of(start));
    put_repeated(&b, more, 100000);
    client_open(&c, s);
    client_send(&c, cm_buf_str(&b));
    client_expect_eof(&c);
    ck_assert(cm_str_starts(cm_buf_str(&c.got), CM_S("HTTP/1.1 400 ")));
    client_close(&c);
    cm_buf_clear(&b);
}

START_TEST(bounds_chunk_framing)
{
    struct site s = {0};
    struct cm_buf b = {0};
    struct client c;

    site_open(&s);
    expect_framing_bound(&s, "2;", "x");
    expect_framing_bound(&s, "2;a=\"", "x");
    expect_framing_bound(&s, "", "0");
    expect_framing_bound(&s, "2\r\nhi\r\n0\r\n", "T: x\r\n");
    expect_framing_bound(&s, "2\r\nhi\r\n0\r\nT: ", "x");

    cm_buf_reset(&b); /* signed chunks, as some upload clients send */
    cm_buf_append(&b, CM_S(CHUNKED("")));
    put_repeated(
        &b,
        "1;chunk-signature=0123456789012345678901234567890123456789012345678901234567890123\r\nx\r\n",
        3000);
    cm_buf_append(&b, CM_S("0\r\n\r\n"));
    client_open(&c, &s);
    client_send(&c, cm_buf_str(&b));
    client_expect(&c, "Content-Length: 3000\r\n\r\n");
    client_close(&c);
    cm_buf_clear(&b);
    site_close(&s);
}
END_TEST

/* ---- bodies */

START_TEST(body_of_any_size_arrives_whole)
{
    static const size_t sizes[] = {1, 65535, 65536, 65537, 99999, 100000};
    struct site s = {0};

    site_open(&s);
    for (size_t i = 0; i < CM_COUNT(sizes) * 2; i++) {
        size_t n = sizes[i / 2];
        struct cm_buf b = {0}, body = {0};
        struct client c;

        for (size_t k = 0; k < n; k++)
            cm_buf_put(&body, (char)(k * 31 % 251));
        if (i % 2 == 0) {
            cm_buf_printf(&b, BODY("Content-Length: %zu", ""), n);
            cm_buf_append(&b, cm_buf_str(&body));
        } else {
            cm_buf_append(&b, CM_S(CHUNKED("")));
            for (struct cm_str rest = cm_buf_str(&body); rest.n > 0;) {
                struct cm_str piece = cm_str_head(rest, 7777);

                cm_buf_printf(&b, "%zX\r\n", piece.n);
                cm_buf_append(&b, piece);
                cm_buf_append(&b, CM_S("\r\n"));
                rest = cm_str_from(rest, piece.n);
            }
            cm_buf_append(&b, CM_S("0\r\n\r\n"));
        }
        client_open(&c, &s);
        client_send(&c, cm_buf_str(&b));
        client_expect(&c, "\r\n\r\n");
        client_await(&c, cm_str_find(cm_buf_str(&c.got), CM_S("\r\n\r\n")) + 4 + n, 10000);
        ck_assert_msg(cm_str_ends(cm_buf_str(&c.got), cm_buf_str(&body)), "%zu bytes", n);
        client_close(&c);
        cm_buf_clear(&b);
        cm_buf_clear(&body);
    }
    site_close(&s);
}
END_TEST

START_TEST(body_too_large_is_413_and_the_client_can_read_it)
{
    struct site s = {0};
    struct cm_buf b = {0};
    struct client c;

    site_open(&s);
    /* more than socket buffers hold, all of it sent: without the lingering close the answer would be lost to a reset */
    cm_buf_append(&b, CM_S(BODY("Content-Length: 3000000", "")));
    put_repeated(&b, "0123456789", 300000);
    client_open(&c, &s);
    client_send(&c, cm_buf_str(&b));
    client_expect_eof(&c);
    ck_assert(client_has(&c, "HTTP/1.1 413 Content Too Large\r\n"));
    client_close(&c);

    cm_buf_reset(&b);
    cm_buf_append(&b, CM_S(CHUNKED("")));
    put_repeated(&b, "a\r\n0123456789\r\n", 100000);
    client_open(&c, &s);
    client_send(&c, cm_buf_str(&b));
    client_expect_eof(&c);
    ck_assert(client_has(&c, "HTTP/1.1 413 "));
    client_close(&c);
    expect_notes(&s, "POST /echo;gone too_large;POST /echo;gone too_large;");
    expect_connections(&s, 0);
    cm_buf_clear(&b);
    site_close(&s);
}
END_TEST

START_TEST(continues_when_the_client_waits_for_it)
{
    struct site s = {0};
    struct client c;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, CM_S(POST("/echo", "Expect: 100-Continue\r\nContent-Length: 2")));
    client_expect(&c, "HTTP/1.1 100 Continue\r\n\r\n");
    wait_ms(&s, 10);
    client_pull(&c);
    ck_str(cm_buf_str(&c.got), "HTTP/1.1 100 Continue\r\n\r\n");
    client_send(&c, CM_S("hi"));
    client_expect(&c, "\r\n\r\nhi");
    ck_assert_uint_eq(count_of(&c, "100 Continue"), 1);
    cm_buf_reset(&c.got);
    client_send(&c, CM_S(POST("/echo", "Expect: 100-continue\r\nContent-Length: 2") "hi"));
    client_expect(&c, "\r\n\r\nhi");
    ck_assert(!client_has(&c, "100 Continue")); /* it did not wait */
    cm_buf_reset(&c.got);
    client_send(&c, CM_S("POST /echo HTTP/1.0\r\nConnection: keep-alive\r\n"
                         "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"));
    wait_ms(&s, 10);
    client_pull(&c);
    ck_assert_uint_eq(c.got.n, 0); /* HTTP/1.0 has no interim answers */
    client_send(&c, CM_S("hi"));
    client_expect(&c, "\r\n\r\nhi");
    cm_buf_reset(&c.got);
    client_send(&c, CM_S(POST("/echo", "Expect: 100-continue\r\nContent-Length: 2000000")));
    client_expect_eof(&c);
    ck_assert(cm_str_starts(cm_buf_str(&c.got), CM_S("HTTP/1.1 413 "))); /* instead of 100 */
    client_close(&c);
    site_close(&s);
}
END_TEST

START_TEST(body_that_nobody_reads_is_skipped)
{
    struct site s = {0};
    struct cm_buf b = {0};
    struct client c;

    site_open(&s);
    client_open(&c, &s);
    cm_buf_append(&b, CM_S(POST("/a", "Content-Length: 200000")));
    put_repeated(&b, "0123456789", 20000);
    cm_buf_append(&b, CM_S(GET("/next")));
    client_send(&c, cm_buf_str(&b));
    expect_notes(&s, "POST /a;GET /next;");
    client_close(&c);

    cm_buf_reset(&s.notes);
    cm_buf_reset(&b); /* too much to skip: the answer arrives all the same */
    cm_buf_append(&b, CM_S(POST("/a", "Content-Length: 2000000")));
    put_repeated(&b, "0123456789", 200000);
    cm_buf_append(&b, CM_S(GET("/next")));
    client_open(&c, &s);
    client_send(&c, cm_buf_str(&b));
    client_expect_eof(&c);
    ck_assert(client_has(&c, "Connection: close\r\n\r\nok"));
    ck_str(cm_buf_str(&s.notes), "POST /a;");
    client_close(&c);
    cm_buf_clear(&b);
    site_close(&s);
}
END_TEST

START_TEST(body_asked_for_later_and_answer_before_the_body)
{
    struct site s = {0};
    struct client c;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, CM_S(POST("/later", "Content-Length: 5") "hello"));
    expect_notes(&s, "POST /later;");
    cm_req_read(s.held, 100);
    ck_str(cm_buf_str(&s.notes), "POST /later;"); /* not from within the call */
    expect_notes(&s, "POST /later;body 5;");
    client_expect(&c, "\r\n\r\nhello");

    client_send(&c, CM_S(POST("/later", "Content-Length: 5") "he"));
    expect_notes(&s, "POST /later;body 5;POST /later;");
    answer(s.held, CM_S("early"));
    client_expect(&c, "\r\n\r\nearly");
    client_send(&c, CM_S("lloGET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
    expect_notes(&s, "POST /later;body 5;POST /later;GET /next;");
    client_close(&c);
    site_close(&s);
}
END_TEST

START_TEST(body_can_be_taken)
{
    struct site s = {0};
    struct client c;
    struct cm_buf body;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, CM_S(POST("/hold", "Content-Length: 5") "hello"));
    expect_notes(&s, "POST /hold;body 5;");
    body = cm_req_take_body(s.held);
    answer(s.held, CM_S("ok"));
    ck_str(cm_buf_str(&body), "hello");
    cm_buf_append(&body, CM_S(" and more"));
    ck_assert(!body.failed);
    cm_buf_clear(&body);
    client_close(&c);
    site_close(&s);
}
END_TEST

/* ---- pipelines */

START_TEST(thousand_pipelined_requests_need_no_stack)
{
    struct site s = {0};
    struct cm_buf b = {0};
    struct client c;
    size_t shallow;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, CM_S(GET("/a")));
    client_expect(&c, "ok");
    shallow = s.deepest;
    put_repeated(&b, GET("/a"), 1000);
    client_send(&c, cm_buf_str(&b));
    for (uint64_t until_ms = cm_mono_ms() + 10000; count_of(&c, OK_HEAD) < 1001;) {
        client_await(&c, c.got.n + 1, 100);
        ck_quick(cm_mono_ms() < until_ms);
    }
    ck_assert_uint_lt(s.deepest, shallow + 4096);
    client_close(&c);
    cm_buf_clear(&b);
    site_close(&s);
}
END_TEST

START_TEST(pipelined_requests_wait_for_the_answer_before)
{
    struct site s = {0};
    struct client c;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c,
                CM_S("GET /hold HTTP/1.1\r\nHost: a\r\n\r\nGET /hold HTTP/1.1\r\nHost: a\r\n\r\n"
                     "GET /bytes/3 HTTP/1.1\r\nHost: a\r\n\r\nGET /stre"));
    expect_notes(&s, "GET /hold;");
    wait_ms(&s, 10);
    ck_str(cm_buf_str(&s.notes), "GET /hold;");
    answer(s.held, CM_S("first"));
    ck_str(cm_buf_str(&s.notes), "GET /hold;"); /* the next comes on a later turn */
    expect_notes(&s, "GET /hold;GET /hold;");
    answer(s.held, CM_S("second"));
    expect_notes(&s, "GET /hold;GET /hold;GET /bytes/3;");
    client_send(&c, CM_S("am HTTP/1.1\r\nHost: a\r\n\r\n"));
    client_expect(&c, "0\r\n\r\n");
    ck_assert_uint_lt(cm_str_find(cm_buf_str(&c.got), CM_S("first")),
                      cm_str_find(cm_buf_str(&c.got), CM_S("second")));
    ck_assert_uint_lt(cm_str_find(cm_buf_str(&c.got), CM_S("second")),
                      cm_str_find(cm_buf_str(&c.got), CM_S("abc")));
    client_close(&c);
    site_close(&s);
}
END_TEST

/* A first request, and 24 MB of others behind it: more than the kernel takes. Returns what was not taken. */
static struct cm_str send_flood(struct client *c, const char *first, unsigned requests,
                                struct cm_buf *flood)
{
    struct cm_buf pad = {0};
    struct cm_str rest;

    put_repeated(&pad, "x", 3000);
    for (unsigned i = 0; i < requests; i++)
        cm_buf_printf(flood, "GET /a HTTP/1.1\r\nHost: a\r\nX: %.*s\r\n\r\n", (int)pad.n, pad.p);
    cm_buf_clear(&pad);
    client_send(c, cm_str_of(first));
    wait_ms(c->s, 5);
    rest = cm_buf_str(flood);
    for (unsigned still = 0; still < 50;) {
        ssize_t n = send(c->fd, rest.p, rest.n, MSG_NOSIGNAL);

        if (n > 0)
            rest = cm_str_from(rest, (size_t)n), still = 0;
        else
            still++;
        wait_ms(c->s, 1);
    }
    ck_assert_msg(rest.n > 0, "everything was read");
    return rest;
}

START_TEST(pipelined_backlog_is_bounded_and_read_later)
{
    enum { REQUESTS = 8000 };
    struct site s = {0};
    struct cm_buf flood = {0};
    struct client c;
    struct cm_str rest;

    site_open(&s);
    client_open(&c, &s);
    rest = send_flood(&c, GET("/hold"), REQUESTS, &flood);
    ck_str(cm_buf_str(&s.notes), "GET /hold;");
    answer(s.held, CM_S("first"));
    for (uint64_t until_ms = cm_mono_ms() + 20000;
         count_of(&c, "\r\n\r\nok") < REQUESTS && !c.reset && !c.eof;) {
        ssize_t n = rest.n > 0 ? send(c.fd, rest.p, rest.n, MSG_NOSIGNAL) : 0;

        if (n > 0)
            rest = cm_str_from(rest, (size_t)n);
        for (unsigned i = 0; i < 200; i++) { /* count_of() reads everything again */
            turn(&s);
            client_pull(&c);
        }
        ck_quick(cm_mono_ms() < until_ms);
    }
    ck_assert(!c.reset && !c.eof);
    client_close(&c);
    cm_buf_clear(&flood);
    site_close(&s);
}
END_TEST

START_TEST(pipelined_backlog_is_bounded_also_behind_an_answer_nobody_reads)
{
    struct site s = {0};
    struct cm_buf flood = {0};
    struct client c;

    site_open(&s);
    client_open_small(&c, &s, 8192);
    send_flood(&c, GET("/bytes/20000000"), 8000, &flood);
    ck_str(cm_buf_str(&s.notes), "GET /bytes/20000000;");
    client_close(&c);
    cm_buf_clear(&flood);
    site_close(&s);
}
END_TEST

START_TEST(pipeline_does_not_starve_others)
{
    struct site s = {0};
    struct cm_buf b = {0};
    struct client greedy, modest;
    const struct cm_str one = CM_S(GET("/modest"));

    site_open(&s);
    client_open(&greedy, &s);
    client_open(&modest, &s);
    expect_connections(&s, 2);
    put_repeated(&b, GET("/a"), 1000);
    ck_assert_int_eq(send(greedy.fd, b.p, b.n, MSG_NOSIGNAL), (ssize_t)b.n);
    ck_assert_int_eq(send(modest.fd, one.p, one.n, MSG_NOSIGNAL), (ssize_t)one.n);
    client_expect(&modest, "\r\n\r\nok");
    ck_assert_uint_lt(cm_str_find(cm_buf_str(&s.notes), CM_S("GET /modest;")),
                      100 * strlen("GET /a;"));
    client_close(&greedy);
    client_close(&modest);
    cm_buf_clear(&b);
    site_close(&s);
}
END_TEST

START_TEST(head_may_be_larger_than_the_backlog)
{
    struct site s = {0};
    struct cm_buf b = {0};
    struct client c;

    s.setup = (struct cm_httpd_setup){400000, 1 << 20, 20000, 20000, 20000, 10};
    site_open(&s);
    cm_buf_append(&b, CM_S("GET /hold HTTP/1.1\r\nHost: a\r\nX: "));
    put_repeated(&b, "x", 300000);
    cm_buf_append(&b, CM_S("\r\n\r\n"));
    client_open(&c, &s);
    client_send(&c, cm_buf_str(&b));
    expect_notes(&s, "GET /hold;");
    ck_assert_uint_eq(cm_req_header(s.held, CM_S("x")).n, 300000);
    answer(s.held, CM_S("ok"));
    client_close(&c);
    cm_buf_clear(&b);
    site_close(&s);
}
END_TEST

/* ---- clients that leave */

START_TEST(client_leaves_while_its_request_is_open)
{
    struct site s = {0};
    struct client c;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, CM_S(GET("/hold")));
    expect_notes(&s, "GET /hold;");
    client_close(&c);
    expect_notes(&s, "GET /hold;gone ;");
    expect_connections(&s, 0);
    cm_buf_reset(&s.notes);

    client_open(&c, &s); /* while a stream runs, by a reset */
    client_send(&c, CM_S(GET("/hold")));
    expect_notes(&s, "GET /hold;");
    cm_resp_start(s.held, 200, NULL, 0);
    cm_resp_write(s.held, CM_S("some"));
    cm_resp_flush(s.held);
    client_expect(&c, "some");
    setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    client_close(&c);
    expect_notes(&s, "GET /hold;gone ;");
    expect_connections(&s, 0);
    cm_buf_reset(&s.notes);

    client_open(&c,
                &s); /* by ending its side, while its body is expected, with more requests behind */
    client_send(&c, CM_S(POST("/hold", "Content-Length: 5") "hi"));
    expect_notes(&s, "POST /hold;");
    shutdown(c.fd, SHUT_WR);
    client_expect_eof(&c);
    expect_notes(&s, "POST /hold;gone ;");
    client_close(&c);
    expect_connections(&s, 0);
    cm_buf_reset(&s.notes);

    client_open(&c, &s); /* before and amid a head: nobody is told */
    client_send(&c, CM_S("GET /hold HTTP/1.1\r\nHo"));
    turn(&s);
    client_close(&c);
    expect_connections(&s, 0);
    ck_assert_uint_eq(s.notes.n, 0);
    site_close(&s);
}
END_TEST

START_TEST(what_came_before_the_end_is_answered)
{
    struct site s = {0};
    struct cm_buf b = {0};
    struct client c;

    site_open(&s);
    put_repeated(&b, GET("/a"), 100);
    client_open(&c, &s);
    client_send(&c, cm_buf_str(&b));
    shutdown(c.fd, SHUT_WR);
    client_expect_eof(&c);
    ck_assert_uint_eq(count_of(&c, OK_HEAD), 100);
    client_close(&c);
    expect_connections(&s, 0);
    cm_buf_clear(&b);
    site_close(&s);
}
END_TEST

START_TEST(write_to_one_who_left_ends_in_on_gone_later)
{
    struct site s = {0};
    struct client c;
    size_t notes;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, CM_S(GET("/hold")));
    expect_notes(&s, "GET /hold;");
    notes = s.notes.n;
    setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    client_close(&c);
    cm_resp_start(s.held, 200, NULL, 0); /* the loop has not noticed yet */
    cm_resp_write(s.held, CM_S("some"));
    cm_resp_flush(s.held);
    cm_resp_write(s.held, CM_S("more"));
    cm_resp_flush(s.held);
    ck_assert_uint_eq(s.notes.n, notes);
    expect_notes(&s, "GET /hold;gone ;");
    expect_connections(&s, 0);
    site_close(&s);
}
END_TEST

START_TEST(write_to_one_who_left_is_noticed_also_when_nothing_is_read)
{
    struct site s = {0};
    struct cm_buf b = {0};
    struct client c;

    site_open(&s);
    client_open(&c, &s);
    cm_buf_append(&b, CM_S(GET("/hold")));
    put_repeated(&b, GET("/a"), 20000);
    client_send(&c, cm_buf_str(&b)); /* the backlog is full: the socket is not watched now */
    setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    client_close(&c);
    wait_ms(&s, 10);
    ck_str(cm_buf_str(&s.notes), "GET /hold;");
    cm_resp_start(s.held, 200, NULL, 0);
    cm_resp_write(s.held, CM_S("some"));
    cm_resp_flush(s.held);
    ck_str(cm_buf_str(&s.notes), "GET /hold;");
    expect_notes(&s, "GET /hold;gone ;");
    expect_connections(&s, 0);
    cm_buf_clear(&b);
    site_close(&s);
}
END_TEST

START_TEST(broken_body_behind_a_begun_answer_cuts_it)
{
    struct site s = {0};
    struct client c;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, CM_S(POST("/later", "Transfer-Encoding: chunked") "2\r\nhi\r\n"));
    expect_notes(&s, "POST /later;");
    cm_req_read(s.held, 100);
    cm_resp_start(s.held, 200, NULL, 0);
    cm_resp_write(s.held, CM_S("some"));
    client_send(&c, CM_S("broken"));
    client_expect_eof(&c);
    ck_assert_uint_eq(count_of(&c, "HTTP/1.1"), 1);
    ck_assert(cm_str_ends(cm_buf_str(&c.got), CM_S("4\r\nsome\r\n")));
    expect_notes(&s, "POST /later;gone bad_request;");
    client_close(&c);
    site_close(&s);
}
END_TEST

START_TEST(server_closes_with_requests_open_also_from_a_handler)
{
    struct site s = {0};
    struct client c, d, e;

    site_open(&s);
    client_open(&c, &s);
    client_open(&d, &s);
    client_open(&e, &s);
    client_send(&c, CM_S(GET("/hold")));
    client_send(&e, CM_S("GET /ho"));
    expect_notes(&s, "GET /hold;");
    client_send(&d, CM_S(GET("/close-server") GET("/never")));
    expect_notes(&s, "GET /hold;GET /close-server;gone ;gone ;");
    client_await(&d, SIZE_MAX, 10000);
    ck_assert(d.eof || d.reset);
    client_close(&c);
    client_close(&d);
    client_close(&e);
    site_close(&s);
}
END_TEST

/* ---- slow clients, back-pressure, cuts */

START_TEST(big_answer_reaches_a_slow_reader_whole)
{
    enum { BYTES = 20000000 }; /* more than the kernel takes */
    struct site s = {0};
    struct client c;
    size_t body_at;

    site_open(&s);
    client_open_small(&c, &s, 8192);
    client_send(&c, CM_S(GET("/bytes/20000000") GET("/next")));
    wait_ms(&s, 20);
    ck_str(cm_buf_str(&s.notes), "GET /bytes/20000000;"); /* one who does not read need not ask */
    client_expect(&c, "\r\n\r\n");
    body_at = cm_str_find(cm_buf_str(&c.got), CM_S("\r\n\r\n")) + 4;
    ck_assert(client_await(&c, body_at + BYTES, 20000));
    for (size_t i = 0; i < BYTES; i++)
        ck_quick(c.got.p[body_at + i] == (char)('a' + i % 26));
    cm_buf_consume(&c.got, body_at + BYTES);
    client_expect(&c, "\r\n\r\nok");
    client_close(&c);
    site_close(&s);
}
END_TEST

START_TEST(stream_to_a_slow_reader_stops_at_high_and_resumes_at_low)
{
    struct site s = {0};
    struct client c;
    char piece[8192];
    size_t queued = 0, written = 0;

    site_open(&s);
    memset(piece, 'x', sizeof(piece));
    client_open_small(&c, &s, 8192);
    client_send(&c, CM_S(GET("/hold")));
    expect_notes(&s, "GET /hold;");
    cm_resp_start(s.held, 200, NULL, 0);
    while (queued <= CM_HTTPD_HIGH) {
        queued = cm_resp_write(s.held, cm_str(piece, sizeof(piece)));
        cm_resp_flush(s.held);
        written += sizeof(piece);
        turn(&s);
        ck_quick(written < (64u << 20));
    }
    ck_assert_uint_lt(queued, CM_HTTPD_HIGH + 2 * sizeof(piece));
    wait_ms(&s, 20);
    ck_str(cm_buf_str(&s.notes), "GET /hold;");
    for (uint64_t until_ms = cm_mono_ms() + 10000;
         !cm_str_has(cm_buf_str(&s.notes), CM_S("drain;"));) {
        ck_quick(cm_resp_queued(s.held) > 0);
        client_await(&c, c.got.n + 1, 100);
        ck_quick(cm_mono_ms() < until_ms);
    }
    ck_assert_uint_lt(cm_resp_queued(s.held), CM_HTTPD_LOW);
    cm_resp_end(s.held);
    client_expect(&c, "\r\n0\r\n\r\n");
    ck_assert_uint_gt(c.got.n, written);
    ck_str(cm_buf_str(&s.notes), "GET /hold;drain;");
    client_close(&c);
    site_close(&s);
}
END_TEST

START_TEST(drain_is_told_also_when_the_flush_took_everything)
{
    struct site s = {0};
    struct client c;
    char *piece = cm_calloc(1, CM_HTTPD_HIGH + 1);

    site_open(&s);
    client_open_small(&c, &s, 4 << 20);
    client_send(&c, CM_S(GET("/hold")));
    expect_notes(&s, "GET /hold;");
    cm_resp_start(s.held, 200, NULL, 0);
    ck_assert_uint_gt(cm_resp_write(s.held, cm_str(piece, CM_HTTPD_HIGH + 1)), CM_HTTPD_HIGH);
    cm_resp_flush(s.held);
    ck_str(cm_buf_str(&s.notes), "GET /hold;"); /* not from within */
    for (unsigned i = 0; i < 100; i++) {
        wait_ms(&s, 1);
        client_pull(&c);
    }
    expect_notes(&s, "GET /hold;drain;");
    cm_resp_end(s.held);
    client_close(&c);
    free(piece);
    site_close(&s);
}
END_TEST

START_TEST(nothing_goes_out_before_the_flush)
{
    struct site s = {0};
    struct client c;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, CM_S(GET("/hold")));
    expect_notes(&s, "GET /hold;");
    ck_assert(!cm_resp_started(s.held));
    cm_resp_start(s.held, 200, NULL, 0);
    cm_resp_write(s.held, CM_S("one"));
    ck_assert(cm_resp_started(s.held));
    wait_ms(&s, 10);
    client_pull(&c);
    ck_assert_uint_eq(c.got.n, 0);
    ck_assert_uint_eq(s.held->bytes_out, cm_resp_queued(s.held));
    cm_resp_flush(s.held);
    client_expect(&c, "3\r\none\r\n");
    ck_assert_uint_eq(s.held->bytes_out, c.got.n);
    ck_assert_uint_eq(cm_resp_queued(s.held), 0);
    cm_resp_end(s.held);
    client_close(&c);
    site_close(&s);
}
END_TEST

START_TEST(aborted_answer_shows_that_something_is_missing)
{
    struct site s = {0};
    struct client c;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, CM_S(GET("/cut")));
    client_expect_eof(&c);
    ck_assert(cm_str_ends(cm_buf_str(&c.got), CM_S("4\r\nsome\r\n")));
    client_close(&c);
    expect_notes(&s, "GET /cut;");

    client_open_small(&c, &s, 8192); /* with a queue: it still goes out */
    client_send(&c, CM_S(GET("/hold")));
    expect_notes(&s, "GET /cut;GET /hold;");
    cm_resp_start(s.held, 200, NULL, 0);
    for (unsigned i = 0; i < 500; i++)
        cm_resp_write(
            s.held, CM_S("0123456789012345678901234567890123456789012345678901234567890123456789"
                         "0123456789012345678901234567890123456789012345678901234567890123456789"
                         "0123456789012345678901234567890123456789012345678901234567890123456789"
                         "0123456789012345678901234567890123456789012345678901234567890123456789"));
    cm_resp_write(s.held, CM_S("last"));
    cm_resp_abort(s.held);
    client_expect_eof(&c);
    ck_assert(cm_str_ends(cm_buf_str(&c.got), CM_S("4\r\nlast\r\n")));
    client_close(&c);
    expect_connections(&s, 0);
    site_close(&s);
}
END_TEST

START_TEST(response_headers_cannot_split_the_answer)
{
    const struct cm_header headers[] = {{CM_S("X-Good"), CM_S("1")},
                                        {CM_S("X-Bad"), CM_S("1\r\nSet-Cookie: a=b")},
                                        {CM_S("X-Bad\r\nY"), CM_S("1")},
                                        {CM_S("X-Bad"), CM_S("1\0")}};
    struct site s = {0};
    struct client c;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, CM_S(GET("/hold")));
    expect_notes(&s, "GET /hold;");
    cm_resp_send(s.held, 299, headers, 4, CM_S("ok"));
    client_expect(&c, "\r\n\r\nok");
    ck_assert(cm_str_starts(cm_buf_str(&c.got), CM_S("HTTP/1.1 299 \r\n")));
    ck_assert(client_has(&c, "\r\nX-Good: 1\r\nContent-Length: 2\r\n\r\n"));
    client_close(&c);
    site_close(&s);
}
END_TEST

/* ---- time */

static void site_open_hasty(struct site *s)
{
    s->setup = (struct cm_httpd_setup){.max_header_bytes = 4096,
                                       .max_body_bytes = 1 << 20,
                                       .header_timeout_ms = 100,
                                       .body_timeout_ms = 100,
                                       .keepalive_timeout_ms = 100,
                                       .max_connections = 100};
    site_open(s);
}

/* A byte every 5 ms, so that a time-out that starts anew with each byte would never come. */
static uint64_t drip(struct client *c, struct cm_str bytes)
{
    uint64_t start_ms = cm_mono_ms();

    while (bytes.n > 0 && !c->eof && !c->reset && cm_mono_ms() - start_ms < 10000) {
        client_send(c, cm_str_head(bytes, 1));
        bytes = cm_str_from(bytes, 1);
        wait_ms(c->s, 5);
        client_pull(c);
    }
    return cm_mono_ms() - start_ms;
}

START_TEST(slow_head_is_408)
{
    struct site s = {0};
    struct cm_buf b = {0};
    struct client c;
    uint64_t took_ms;

    site_open_hasty(&s);
    cm_buf_append(&b, CM_S("GET /a HTTP/1.1\r\nHost: a\r\n"));
    put_repeated(&b, "a: b\r\n", 300);
    client_open(&c, &s);
    took_ms = drip(&c, cm_buf_str(&b));
    ck_assert(cm_str_starts(cm_buf_str(&c.got), CM_S("HTTP/1.1 408 Request Timeout\r\n")));
    ck_assert(client_has(&c, "{\"error\":\"request_timeout\"}"));
    ck_assert_uint_ge(took_ms, 95);
    ck_assert_uint_lt(took_ms, 5000);
    client_close(&c);
    ck_assert_uint_eq(s.notes.n, 0);

    client_open(&c, &s); /* also the second head of a connection */
    client_send(&c, CM_S("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b"));
    client_expect_eof(&c);
    ck_assert_uint_eq(count_of(&c, "HTTP/1.1 408"), 1);
    client_close(&c);
    expect_connections(&s, 0);
    cm_buf_clear(&b);
    site_close(&s);
}
END_TEST

START_TEST(stalled_and_dripping_bodies_are_408)
{
    struct site s = {0};
    struct cm_buf b = {0};
    struct client c;

    site_open_hasty(&s);
    client_open(&c, &s);
    client_send(&c, CM_S(BODY("Content-Length: 100", "x")));
    client_expect_eof(&c);
    ck_assert(client_has(&c, "HTTP/1.1 408"));
    client_close(&c);

    client_open(&c, &s); /* enough for the floor, then nothing */
    cm_buf_append(&b, CM_S(BODY("Content-Length: 90000", "")));
    put_repeated(&b, "0123456789", 5000);
    client_send(&c, cm_buf_str(&b));
    client_expect_eof(&c);
    ck_assert(client_has(&c, "HTTP/1.1 408"));
    client_close(&c);

    cm_buf_reset(&b);
    put_repeated(&b, "x", 3000);
    client_open(&c, &s);
    client_send(&c, CM_S(BODY("Content-Length: 3000", "")));
    ck_assert_uint_lt(drip(&c, cm_buf_str(&b)), 5000);
    ck_assert(client_has(&c, "HTTP/1.1 408"));
    client_close(&c);
    expect_notes(
        &s,
        "POST /echo;gone request_timeout;POST /echo;gone request_timeout;POST /echo;gone request_timeout;");
    expect_connections(&s, 0);
    cm_buf_clear(&b);
    site_close(&s);
}
END_TEST

START_TEST(body_that_comes_steadily_may_take_longer)
{
    struct site s = {0};
    struct cm_buf b = {0};
    struct client c;

    site_open_hasty(&s);
    put_repeated(&b, "0123456789", 200);
    client_open(&c, &s);
    client_send(&c, CM_S(BODY("Content-Length: 80000", "")));
    for (unsigned i = 0; i < 40; i++) { /* 2,000 bytes each 10 ms: well above 4 KiB in 100 ms */
        client_send(&c, cm_buf_str(&b));
        wait_ms(&s, 10);
    }
    client_expect(&c, "Content-Length: 80000\r\n\r\n");
    client_close(&c);
    cm_buf_clear(&b);
    site_close(&s);
}
END_TEST

START_TEST(idle_connections_close_without_a_word)
{
    struct site s = {0};
    struct client fresh, used, busy;
    uint64_t start_ms = cm_mono_ms();

    site_open_hasty(&s);
    client_open(&fresh, &s);
    client_open(&used, &s);
    client_open(&busy, &s);
    client_send(&used, CM_S(GET("/a")));
    client_expect(&used, "ok");
    cm_buf_reset(&used.got);
    client_send(&busy, CM_S(GET("/hold")));
    client_expect_eof(&used);
    client_expect_eof(&fresh);
    ck_assert_uint_eq(fresh.got.n + used.got.n, 0);
    ck_assert_uint_ge(cm_mono_ms() - start_ms, 95);
    wait_ms(&s, 150);
    answer(s.held, CM_S("late")); /* a request that is served is not idle */
    client_expect(&busy, "late");
    client_expect_eof(&busy);
    client_close(&fresh);
    client_close(&used);
    client_close(&busy);
    site_close(&s);
}
END_TEST

START_TEST(one_who_never_reads_is_let_go)
{
    struct site s = {0};
    struct client c;

    site_open_hasty(&s);
    client_open_small(&c, &s, 8192);
    client_send(&c, CM_S(GET("/bytes/20000000")));
    expect_notes(&s, "GET /bytes/20000000;");
    expect_connections(&s, 0);
    client_close(&c);

    cm_buf_reset(&s.notes);
    client_open_small(&c, &s, 8192);
    client_send(&c, CM_S("GET /bytes/20000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    expect_notes(&s, "GET /bytes/20000000;");
    expect_connections(&s, 0);
    client_close(&c);
    site_close(&s);
}
END_TEST

START_TEST(one_who_sends_on_after_a_refusal_is_let_go)
{
    struct site s = {0};
    struct client c;
    struct cm_buf b = {0};
    uint64_t start_ms;

    site_open(&s);
    client_open(&c, &s); /* keeps the connection open and says nothing more */
    client_send(&c, CM_S(BODY("Content-Length: 2000000", "hi")));
    client_expect_eof(&c);
    start_ms = cm_mono_ms();
    wait_ms(&s, 1000);
    ck_assert_uint_eq(cm_httpd_connections(s.h), 1); /* the client has time to read the answer */
    expect_connections(&s, 0);
    ck_assert_uint_lt(cm_mono_ms() - start_ms, 5000);
    client_close(&c);

    client_open(&c, &s); /* never ends its body */
    client_send(&c, CM_S(BODY("Content-Length: 2000000000", "hi")));
    put_repeated(&b, "x", 1 << 20);
    start_ms = cm_mono_ms();
    for (unsigned i = 0; i < 100 && cm_httpd_connections(s.h) > 0; i++)
        client_send(&c, cm_buf_str(&b));
    expect_connections(&s, 0);
    ck_assert_uint_lt(cm_mono_ms() - start_ms, 1800);
    client_close(&c);
    cm_buf_clear(&b);
    site_close(&s);
}
END_TEST

/* ---- drain, limits, addresses */

static void on_idle(void *arg)
{
    struct site *s = arg;

    s->idle++;
}

START_TEST(drain_lets_answers_finish)
{
    struct site s = {0};
    struct client idle, open, streaming, late;

    site_open(&s);
    client_open(&idle, &s);
    client_open(&open, &s);
    client_open(&streaming, &s);
    client_open(&late, &s);
    client_send(&idle, CM_S(GET("/a")));
    client_expect(&idle, "ok");
    client_send(&late, CM_S(GET("/a")));
    client_expect(&late, "ok");
    client_send(&streaming, CM_S(GET("/hold")));
    expect_notes(&s, "GET /a;GET /a;GET /hold;");
    cm_resp_start(s.held, 200, NULL, 0);
    cm_resp_write(s.held, CM_S("one"));
    cm_resp_flush(s.held);
    streaming.s = &s;
    {
        struct cm_req *stream = s.held;

        client_send(&open, CM_S(GET("/hold")));
        expect_notes(&s, "GET /a;GET /a;GET /hold;GET /hold;");
        cm_httpd_drain(s.h, on_idle, &s);
        ck_assert_int_eq(cm_httpd_port(s.h, 0), 0);
        wait_ms(&s, 50);
        client_send(&late, CM_S(GET("/on-its-way"))); /* crossed the drain: served, not lost */
        client_expect_eof(&late);
        ck_assert_uint_eq(count_of(&late, "\r\n\r\nok"), 2);
        ck_assert_uint_eq(count_of(&late, "Connection: close"), 1);
        client_expect_eof(&idle);
        ck_assert_uint_eq(s.idle, 0);
        answer(s.held, CM_S("done"));
        client_expect_eof(&open);
        ck_assert(client_has(&open, "Connection: close\r\n\r\ndone"));
        cm_resp_write(stream, CM_S("two"));
        cm_resp_end(stream);
    }
    client_expect_eof(&streaming);
    ck_assert(client_has(&streaming, "3\r\ntwo\r\n0\r\n\r\n"));
    expect_connections(&s, 0);
    wait_ms(&s, 5);
    ck_assert_uint_eq(s.idle, 1);
    client_close(&idle);
    client_close(&open);
    client_close(&streaming);
    client_close(&late);
    site_close(&s);
}
END_TEST

START_TEST(drain_of_an_idle_server_is_told_later)
{
    struct site s = {0};

    site_open(&s);
    cm_httpd_drain(s.h, on_idle, &s);
    ck_assert_uint_eq(s.idle, 0);
    wait_ms(&s, 5);
    ck_assert_uint_eq(s.idle, 1);
    site_close(&s);
}
END_TEST

START_TEST(an_idle_connection_makes_room_at_the_limit)
{
    struct site s = {0};
    struct client c[4];

    s.setup = (struct cm_httpd_setup){4096, 1 << 20, 20000, 20000, 20000, 2};
    site_open(&s);
    for (size_t i = 0; i < 2; i++) {
        client_open(&c[i], &s);
        client_send(&c[i], CM_S(GET("/a")));
        client_expect(&c[i], "ok");
    }
    wait_ms(&s, 1100);
    client_send(&c[0], CM_S(GET("/a"))); /* used a moment ago: the other one goes */
    client_expect(&c[0], "ok");
    client_open(&c[2], &s);
    client_send(&c[2], CM_S(GET("/a")));
    client_expect(&c[2], "ok");
    client_expect_eof(&c[1]);
    ck_assert_uint_eq(cm_httpd_connections(s.h), 2);
    s.setup.max_connections = 4;
    cm_httpd_limits(s.h, &s.setup);
    client_open(&c[3], &s);
    client_send(&c[3], CM_S(GET("/a")));
    client_expect(&c[3], "ok");
    ck_assert_uint_eq(cm_httpd_connections(s.h), 3);
    for (size_t i = 0; i < CM_COUNT(c); i++)
        client_close(&c[i]);
    site_close(&s);
}
END_TEST

START_TEST(when_all_are_busy_new_ones_are_told_and_the_rest_waits)
{
    struct site s = {0};
    struct client busy, c[40];
    size_t told = 0;

    s.setup = (struct cm_httpd_setup){4096, 1 << 20, 20000, 20000, 20000, 1};
    site_open(&s);
    client_open(&busy, &s);
    client_send(
        &busy,
        CM_S("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhal")); /* not whole yet */
    wait_ms(&s, 20);
    for (size_t i = 0; i < CM_COUNT(c); i++)
        client_open(&c[i], &s);
    for (int i = 0; i < 100 && cm_httpd_connections(s.h) < 33; i++)
        wait_ms(&s, 50);
    ck_assert_uint_eq(cm_httpd_connections(s.h), 33);
    for (size_t i = 0; i < CM_COUNT(c); i++)
        client_send(&c[i], CM_S("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"));
    for (int waited = 0; waited < 100 && told < 32; waited++) {
        wait_ms(&s, 50);
        told = 0;
        for (size_t i = 0; i < CM_COUNT(c); i++) {
            client_pull(&c[i]);
            if (!cm_str_starts(cm_buf_str(&c[i].got), CM_S("HTTP/1.1 503 Service Unavailable\r\n")))
                continue;
            ck_assert(client_has(&c[i], "\r\nRetry-After: 2\r\n"));
            told++;
        }
    }
    ck_assert_uint_ge(told, 32);
    client_send(&busy, CM_S("lo"));
    wait_ms(&s, 20);
    client_pull(&busy);
    ck_assert(cm_str_starts(cm_buf_str(&busy.got), CM_S("HTTP/1.1 200"))); /* what runs goes on */
    for (size_t i = 0; i < CM_COUNT(c); i++)
        client_close(&c[i]);
    client_close(&busy);
    site_close(&s);
}
END_TEST

/* The error text of an address, or "" when it works. */
static const char *listen_error(struct site *s, const char *address)
{
    static struct cm_err err;

    if (cm_httpd_listen(s->h, cm_str_of(address), &err) == 0)
        return "";
    ck_assert_int_eq(err.cls, CM_ERR_CONFIG);
    return err.msg;
}

START_TEST(addresses)
{
    struct site s = {0};
    char address[64];

    site_open(&s);
    snprintf(address, sizeof(address), "127.0.0.1:%d", cm_httpd_port(s.h, 0));
    ck_assert(strstr(listen_error(&s, address),
                     ": address already in use (another program has this port"));
    ck_assert(strstr(listen_error(&s, address), address));
    ck_assert(strstr(listen_error(&s, "192.0.2.1:0"), "does not have that address"));
    ck_assert(strstr(listen_error(&s, "8080"), "write 127.0.0.1:8080"));
    ck_assert(strstr(listen_error(&s, "::1:8080"), "write 127.0.0.1:8080"));
    ck_assert(strstr(listen_error(&s, "127.0.0.1:65536"), "write 127.0.0.1:8080"));
    ck_assert(strstr(listen_error(&s, "127.0.0.1:"), "write 127.0.0.1:8080"));
    ck_assert(strstr(listen_error(&s, "no-such-host.invalid:80"),
                     "cannot listen on no-such-host.invalid:80: "));
    ck_assert_str_eq(listen_error(&s, ":0"), "");
    ck_assert_str_eq(listen_error(&s, "localhost:0"), "");
    ck_assert_int_gt(cm_httpd_port(s.h, 1), 0);
    ck_assert_int_gt(cm_httpd_port(s.h, 2), 0);
    ck_assert_int_eq(cm_httpd_port(s.h, 3), 0);
    snprintf(address, sizeof(address), "localhost:%d", cm_httpd_port(s.h, 2));
    ck_assert(strstr(listen_error(&s, address), "already in use"));
    /* taken on 127.0.0.1 only: what [::1] had opened before is closed again */
    snprintf(address, sizeof(address), "localhost:%d", cm_httpd_port(s.h, 0));
    ck_assert(strstr(listen_error(&s, address), "already in use"));
    ck_assert_int_eq(cm_httpd_port(s.h, 3), 0);
    site_close(&s);
}
END_TEST

/* Connects to a unix socket and gets an answer. */
static void ask_unix(struct site *s, const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct client c = {.s = s, .fd = socket(AF_UNIX, SOCK_STREAM, 0)};

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    ck_quick(c.fd >= 0);
    ck_assert_int_eq(connect(c.fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    fcntl(c.fd, F_SETFL, O_NONBLOCK);
    client_send(&c, CM_S(GET("/hold")));
    cm_buf_reset(&s->notes);
    expect_notes(s, "GET /hold;");
    ck_str(s->held->peer, "unix");
    answer(s->held, CM_S("unix ok"));
    client_expect(&c, "unix ok");
    client_close(&c);
}

START_TEST(unix_sockets)
{
    struct site s = {0};
    char dir[] = "/tmp/cm-httpd-XXXXXX", path[64], address[80], longer[160];
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct stat st;
    int fd;

    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/socket", dir);
    snprintf(address, sizeof(address), "unix:%s", path);
    site_open(&s);
    ck_assert_str_eq(listen_error(&s, address), "");
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0660);
    ck_assert_int_eq(cm_httpd_port(s.h, 1), 0);
    ask_unix(&s, path);
    ck_assert(strstr(listen_error(&s, address), "another program listens on this socket"));
    ask_unix(&s, path); /* it was left alone */
    site_close(&s);
    ck_assert_int_ne(stat(path, &st), 0);

    fd = socket(AF_UNIX, SOCK_STREAM, 0); /* a leftover */
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    close(fd);
    s = (struct site){0};
    site_open(&s);
    ck_assert_str_eq(listen_error(&s, address), "");
    ask_unix(&s, path);
    site_close(&s);

    fd = open(path, O_CREAT | O_WRONLY, 0600); /* somebody's file */
    close(fd);
    s = (struct site){0};
    site_open(&s);
    ck_assert(strstr(listen_error(&s, address), "exists and is not a socket"));
    ck_assert_int_eq(stat(path, &st), 0);
    unlink(path);
    snprintf(longer, sizeof(longer), "unix:%s/%0120d", dir, 0);
    ck_assert(strstr(listen_error(&s, longer), "the path must have 1 to 107 bytes"));
    ck_assert(strstr(listen_error(&s, "unix:"), "the path must have"));
    ck_assert(strstr(listen_error(&s, "unix:/nowhere/at/all"), "the directory does not exist"));
    site_close(&s);
    rmdir(dir);
}
END_TEST

START_TEST(peer_addresses)
{
    struct site s = {0};
    struct client c;

    site_open(&s);
    client_open(&c, &s);
    client_send(&c, CM_S("GET /hold HTTP/1.1\r\nHost: a\r\nX-One:  two \r\nx-one: three\r\n\r\n"));
    expect_notes(&s, "GET /hold;");
    ck_str(s.held->peer, "127.0.0.1");
    ck_str(cm_req_header(s.held, CM_S("X-ONE")), "two");
    ck_assert_uint_eq(s.held->n_headers, 3);
    ck_assert_uint_gt(s.held->began_us, 0);
    ck_assert_uint_le(s.held->began_us, cm_mono_us());
    answer(s.held, CM_S("ok"));
    client_close(&c);
    site_close(&s);
}
END_TEST

Suite *suite_httpd(void)
{
    Suite *suite = suite_create("httpd");
    TCase *tc = tcase_create("httpd");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, answers_and_keeps_the_connection);
    tcase_add_test(tc, small_pieces_leave_at_once);
    tcase_add_test(tc, same_answers_for_every_cut);
    tcase_add_loop_test(tc, serves, 0, (int)CM_COUNT(served));
    tcase_add_loop_test(tc, refuses, 0, (int)CM_COUNT(refused));
    tcase_add_test(tc, refuses_nul_bytes);
    tcase_add_test(tc, bounds_the_head);
    tcase_add_test(tc, bounds_chunk_framing);
    tcase_add_test(tc, body_of_any_size_arrives_whole);
    tcase_add_test(tc, body_too_large_is_413_and_the_client_can_read_it);
    tcase_add_test(tc, continues_when_the_client_waits_for_it);
    tcase_add_test(tc, body_that_nobody_reads_is_skipped);
    tcase_add_test(tc, body_asked_for_later_and_answer_before_the_body);
    tcase_add_test(tc, body_can_be_taken);
    tcase_add_test(tc, thousand_pipelined_requests_need_no_stack);
    tcase_add_test(tc, pipelined_requests_wait_for_the_answer_before);
    tcase_add_test(tc, pipelined_backlog_is_bounded_and_read_later);
    tcase_add_test(tc, pipelined_backlog_is_bounded_also_behind_an_answer_nobody_reads);
    tcase_add_test(tc, pipeline_does_not_starve_others);
    tcase_add_test(tc, head_may_be_larger_than_the_backlog);
    tcase_add_test(tc, client_leaves_while_its_request_is_open);
    tcase_add_test(tc, what_came_before_the_end_is_answered);
    tcase_add_test(tc, write_to_one_who_left_ends_in_on_gone_later);
    tcase_add_test(tc, write_to_one_who_left_is_noticed_also_when_nothing_is_read);
    tcase_add_test(tc, broken_body_behind_a_begun_answer_cuts_it);
    tcase_add_test(tc, server_closes_with_requests_open_also_from_a_handler);
    tcase_add_test(tc, big_answer_reaches_a_slow_reader_whole);
    tcase_add_test(tc, stream_to_a_slow_reader_stops_at_high_and_resumes_at_low);
    tcase_add_test(tc, drain_is_told_also_when_the_flush_took_everything);
    tcase_add_test(tc, nothing_goes_out_before_the_flush);
    tcase_add_test(tc, aborted_answer_shows_that_something_is_missing);
    tcase_add_test(tc, response_headers_cannot_split_the_answer);
    tcase_add_test(tc, slow_head_is_408);
    tcase_add_test(tc, stalled_and_dripping_bodies_are_408);
    tcase_add_test(tc, body_that_comes_steadily_may_take_longer);
    tcase_add_test(tc, idle_connections_close_without_a_word);
    tcase_add_test(tc, one_who_never_reads_is_let_go);
    tcase_add_test(tc, one_who_sends_on_after_a_refusal_is_let_go);
    tcase_add_test(tc, drain_lets_answers_finish);
    tcase_add_test(tc, drain_of_an_idle_server_is_told_later);
    tcase_add_test(tc, an_idle_connection_makes_room_at_the_limit);
    tcase_add_test(tc, when_all_are_busy_new_ones_are_told_and_the_rest_waits);
    tcase_add_test(tc, addresses);
    tcase_add_test(tc, unix_sockets);
    tcase_add_test(tc, peer_addresses);
    suite_add_tcase(suite, tc);
    return suite;
}
