/* WebSocket server: real connections on a real loop, every conversation cut at every byte, and after each test the loop closes with nothing left. */
#include "unit.h"

#include "chatmux/io/wsd.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/ws.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 1000
#define HEAD                                                                                       \
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"                 \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

struct site {
    struct cm_loop *loop;
    struct cm_httpd *h;
    struct cm_req *req;
    struct cm_wsd *w;
    struct cm_buf notes; /* "T:hello;", "B:…;", "C1000:bye;", "!1002;", "gone;", "drain;" */
    bool echo, hold_at_message, close_at_message;
    int fd;
    struct cm_buf got;
    bool eof;
};

static void on_message(void *arg, struct cm_str message, bool binary)
{
    struct site *s = arg;

    cm_buf_append(&s->notes, binary ? CM_S("B:") : CM_S("T:"));
    cm_buf_append(&s->notes, message);
    cm_buf_put(&s->notes, ';');
    if (s->echo) {
        cm_wsd_send(s->w, message, binary);
        cm_resp_flush(s->req);
    }
    if (s->hold_at_message)
        cm_wsd_hold(s->w, true);
    if (s->close_at_message) {
        cm_wsd_close(s->w, 4000, CM_S("enough"));
        s->w = NULL;
        s->req = NULL;
    }
}

static void on_close(void *arg, int code, struct cm_str reason, const struct cm_err *err)
{
    struct site *s = arg;

    cm_buf_printf(&s->notes, "%s%d%s", err ? "!" : "C", code, err ? "" : ":");
    cm_buf_append(&s->notes, reason);
    cm_buf_put(&s->notes, ';');
    cm_wsd_close(s->w, code, reason);
    s->w = NULL;
    s->req = NULL;
}

static const struct cm_wsd_cb callbacks = {on_message, on_close};

static void on_gone(void *arg, struct cm_req *req, const struct cm_err *why)
{
    struct site *s = arg;

    (void)req;
    ck_assert_ptr_null(why);
    cm_buf_append(&s->notes, CM_S("gone;"));
    cm_wsd_free(s->w);
    s->w = NULL;
    s->req = NULL;
}

static void on_drain(void *arg, struct cm_req *req)
{
    struct site *s = arg;

    (void)req;
    cm_buf_append(&s->notes, CM_S("drain;"));
}

static const struct cm_req_cb req_cb = {.on_gone = on_gone, .on_drain = on_drain};

static void on_request(void *arg, struct cm_req *req)
{
    struct site *s = arg;
    struct cm_err err = {0};

    cm_req_listen(req, &req_cb, s);
    if (cm_wsd_check(req, &err) < 0) {
        cm_resp_send(req, err.http_status ? err.http_status : 400, NULL, 0, cm_str_of(err.msg));
        return;
    }
    s->req = req;
    s->w = cm_wsd_open(req, NULL, 0,
                       cm_wsd_offers(req, CM_S("realtime")) ? CM_S("realtime") : CM_STR_NONE, MOST,
                       &callbacks, s);
}

static void open_site(struct site *s)
{
    const struct cm_httpd_handler handler = {on_request, NULL, s};
    const struct cm_httpd_setup setup = {.max_header_bytes = 4096,
                                         .max_body_bytes = 4096,
                                         .header_timeout_ms = 20000,
                                         .body_timeout_ms = 20000,
                                         .keepalive_timeout_ms = 20000,
                                         .max_connections = 100};
    struct cm_err err;

    *s = (struct site){.fd = -1};
    s->loop = cm_loop_new();
    s->h = cm_httpd_new(s->loop, &setup, &handler);
    ck_assert_msg(cm_httpd_listen(s->h, CM_S("127.0.0.1:0"), &err) == 0, "%s", err.msg);
}

static void dial(struct site *s)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)cm_httpd_port(s->h, 0))};
    int one = 1;

    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_quick(s->fd >= 0 && connect(s->fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(s->fd, F_SETFL, O_NONBLOCK);
    s->eof = false;
    cm_buf_reset(&s->got);
    cm_buf_reset(&s->notes);
}

static void hang_up(struct site *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static void close_site(struct site *s)
{
    hang_up(s);
    cm_httpd_close(s->h);
    cm_loop_free(s->loop); /* ends the process when a handle is open */
    cm_buf_clear(&s->notes);
    cm_buf_clear(&s->got);
}

static void turn(struct site *s)
{
    char bytes[65536];
    ssize_t n;

    uv_run(cm_loop_uv(s->loop), UV_RUN_NOWAIT);
    if (s->fd < 0)
        return;
    while ((n = recv(s->fd, bytes, sizeof(bytes), 0)) > 0)
        cm_buf_append(&s->got, cm_str(bytes, (size_t)n));
    s->eof |= n == 0;
}

static void say(struct site *s, struct cm_str bytes)
{
    for (uint64_t until_ms = cm_mono_ms() + 10000; bytes.n > 0;) {
        ssize_t n = send(s->fd, bytes.p, bytes.n, MSG_NOSIGNAL);

        if (n > 0)
            bytes = cm_str_from(bytes, (size_t)n);
        uv_run(cm_loop_uv(s->loop), UV_RUN_NOWAIT);
        ck_quick(cm_mono_ms() < until_ms);
    }
}

static void wait_for(struct site *s, const char *notes)
{
    for (uint64_t until_ms = cm_mono_ms() + 10000;
         !cm_str_eq(cm_buf_str(&s->notes), cm_str_of(notes)); poll(NULL, 0, 1)) {
        ck_assert_msg(cm_mono_ms() < until_ms, "\"" CM_PRI "\" instead of \"%s\"",
                      CM_ARG(cm_buf_str(&s->notes)), notes);
        turn(s);
    }
}

/* What came behind the 101, until it ends so. */
static void expect_frames(struct site *s, struct cm_str frames)
{
    for (uint64_t until_ms = cm_mono_ms() + 10000;; poll(NULL, 0, 1)) {
        struct cm_str got = cm_buf_str(&s->got);
        size_t end = cm_str_find(got, CM_S("\r\n\r\n"));

        turn(s);
        if (end != SIZE_MAX && cm_str_eq(cm_str_from(got, end + 4), frames))
            return;
        ck_assert_msg(cm_mono_ms() < until_ms, "%zu bytes instead of %zu", got.n, frames.n);
    }
}

static void expect_eof(struct site *s)
{
    for (uint64_t until_ms = cm_mono_ms() + 10000; !s->eof; turn(s))
        ck_quick(cm_mono_ms() < until_ms);
}

/* A frame with a mask of zeros. */
static struct cm_buf frames_of(const struct cm_str *plain, size_t n)
{
    struct cm_buf out = {0};

    for (size_t i = 0; i < n; i++) {
        cm_buf_append(&out, cm_str_head(plain[i], 2));
        out.p[out.n - 1] = (char)(out.p[out.n - 1] | 0x80);
        cm_buf_append(&out, CM_S("\0\0\0\0"));
        cm_buf_append(&out, cm_str_from(plain[i], 2));
    }
    return out;
}

START_TEST(handshakes)
{
    static const struct {
        const char *request;
        int status;
    } cases[] = {
        {HEAD, 101},
        {"GET / HTTP/1.1\r\nHost: a\r\nconnection: keep-alive, upgrade\r\nUPGRADE: h2c, WebSocket\r\n"
         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
         101},
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\r\n", 426},
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", 426},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 426},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
         426},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA\r\n\r\n",
         400},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ?\r\n\r\n",
         400},
        {"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
         400},
        {"GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
         400},
    };
    struct site s;

    open_site(&s);
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        char want[32];

        snprintf(want, sizeof(want), "HTTP/1.1 %d ", cases[i].status);
        dial(&s);
        say(&s, cm_str_of(cases[i].request));
        for (uint64_t until_ms = cm_mono_ms() + 10000;
             !cm_str_has(cm_buf_str(&s.got), CM_S("\r\n\r\n")); turn(&s))
            ck_quick(cm_mono_ms() < until_ms);
        ck_assert_msg(cm_str_starts(cm_buf_str(&s.got), cm_str_of(want)), "%zu: " CM_PRI, i,
                      CM_ARG(cm_buf_str(&s.got)));
        if (i == 0) { /* RFC 6455 1.3 */
            ck_assert(cm_str_has(cm_buf_str(&s.got),
                                 CM_S("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")));
            ck_assert(cm_str_has(cm_buf_str(&s.got), CM_S("Connection: Upgrade\r\n")));
            ck_assert(!cm_str_has(cm_buf_str(&s.got), CM_S("Content-Length")));
            ck_assert(!cm_str_has(cm_buf_str(&s.got), CM_S("Connection: close")));
        }
        hang_up(&s);
        turn(&s);
    }
    close_site(&s);
}
END_TEST

START_TEST(messages_at_every_cut)
{
    static const struct cm_str plain[] = {
        CM_S_INIT("\x81\x05hello"),
        CM_S_INIT("\x01\x02Gr"),
        CM_S_INIT("\x89\x02hi"),
        CM_S_INIT("\x00\x01\xc3"),
        CM_S_INIT("\x8a\x00"),
        CM_S_INIT("\x80\x01\xbc"),
        CM_S_INIT("\x82\x01\xff"),
        CM_S_INIT("\x88\x05\x0f\xa1"
                  "bye"),
        CM_S_INIT("\x81\x01x"), /* nobody reads that */
    };
    struct cm_buf frames = frames_of(plain, CM_COUNT(plain)), all = {0};
    struct site s;

    cm_buf_append(&all, CM_S(HEAD));
    cm_buf_append(&all, cm_buf_str(&frames));
    open_site(&s);
    for (size_t cut = 1; cut <= all.n; cut++) {
        dial(&s);
        s.echo = true;
        say(&s, cm_str_head(cm_buf_str(&all), cut));
        turn(&s);
        say(&s, cm_str_from(cm_buf_str(&all), cut));
        wait_for(&s, "T:hello;T:Gr\xc3\xbc;B:\xff;C4001:bye;");
        expect_frames(&s,
                      CM_S("\x81\x05hello\x8a\x02hi\x81\x04Gr\xc3\xbc\x82\x01\xff\x88\x05\x0f\xa1"
                           "bye"));
        expect_eof(&s);
        hang_up(&s);
    }
    close_site(&s);
    cm_buf_clear(&frames);
    cm_buf_clear(&all);
}
END_TEST

START_TEST(who_breaks_the_protocol_is_told)
{
    static const struct {
        struct cm_str plain;
        const char *notes;
        struct cm_str answer;
    } cases[] = {
        {CM_S_INIT("\xc1\x01x"), "!1002;", CM_S_INIT("\x88\x02\x03\xea")},
        {CM_S_INIT("\x81\x02\xc3\x28"), "!1007;", CM_S_INIT("\x88\x02\x03\xef")},
        {CM_S_INIT("\x88\x02\x03\xee"), "!1002;", CM_S_INIT("\x88\x02\x03\xea")},
        {CM_S_INIT("\x88\x00"), "C1005:;", CM_S_INIT("\x88\x00")},
    };
    struct site s;

    open_site(&s);
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_buf frames = frames_of(&cases[i].plain, 1);

        dial(&s);
        say(&s, CM_S(HEAD));
        say(&s, cm_buf_str(&frames));
        wait_for(&s, cases[i].notes);
        expect_frames(&s, cases[i].answer);
        expect_eof(&s);
        hang_up(&s);
        cm_buf_clear(&frames);
    }
    dial(&s);
    say(&s, CM_S(HEAD "\x82\xfe\x03\xe9"
                      "mask"));
    wait_for(&s, "!1009;");
    expect_frames(&s, CM_S("\x88\x02\x03\xf1"));
    hang_up(&s);
    dial(&s);
    say(&s, CM_S(HEAD "\x81\x01x"));
    wait_for(&s, "!1002;"); /* no mask */
    close_site(&s);
}
END_TEST

START_TEST(held_clients_wait_and_nothing_is_lost)
{
    static const struct cm_str plain[] = {CM_S_INIT("\x81\x01"
                                                    "a"),
                                          CM_S_INIT("\x81\x01"
                                                    "b")};
    struct cm_buf frames = frames_of(plain, 2);
    struct site s;

    open_site(&s);
    for (size_t cut = 0; cut <= frames.n; cut++) {
        dial(&s);
        s.hold_at_message = true;
        say(&s, CM_S(HEAD));
        say(&s, cm_str_head(cm_buf_str(&frames), cut));
        for (int i = 0; i < 5; i++)
            turn(&s);
        say(&s, cm_str_from(cm_buf_str(&frames), cut));
        wait_for(&s, "T:a;");
        for (int i = 0; i < 5; i++)
            turn(&s);
        ck_str(cm_buf_str(&s.notes), "T:a;");
        s.hold_at_message = false;
        cm_wsd_hold(s.w, false);
        ck_str(cm_buf_str(&s.notes), "T:a;"); /* never from within the call */
        wait_for(&s, "T:a;T:b;");
        hang_up(&s);
        wait_for(&s, "T:a;T:b;gone;");
    }
    close_site(&s);
    cm_buf_clear(&frames);
}
END_TEST

START_TEST(a_held_client_that_leaves_is_noticed)
{
    struct site s;

    open_site(&s);
    dial(&s);
    s.hold_at_message = true;
    say(&s, CM_S(HEAD "\x81\x81\0\0\0\0a\x81\x81\0\0\0\0b"));
    wait_for(&s, "T:a;");
    say(&s, CM_S("\x81\x81\0\0\0\0c"));
    turn(&s);
    hang_up(&s);
    wait_for(&s, "T:a;gone;");
    close_site(&s);
}
END_TEST

START_TEST(a_held_socket_is_not_read)
{
    char block[65536] = {0};
    size_t sent = 0;
    ssize_t n;
    struct site s;

    open_site(&s);
    dial(&s);
    say(&s, CM_S(HEAD));
    for (int i = 0; i < 20 && !s.w; i++)
        turn(&s);
    cm_wsd_hold(s.w, true);
    for (int idle = 0; idle < 50; idle++) {
        turn(&s);
        while ((n = send(s.fd, block, sizeof(block), MSG_NOSIGNAL)) > 0) {
            sent += (size_t)n;
            idle = 0;
            turn(&s);
            ck_assert_uint_lt(sent, 64u << 20);
        }
    }
    ck_assert_uint_eq(s.notes.n, 0);
    close_site(&s);
}
END_TEST

START_TEST(slow_readers_are_told_of)
{
    struct cm_buf big = {0};
    struct site s;
    size_t queued = 0;

    for (int i = 0; i < 1000; i++)
        cm_buf_append(&big, CM_S("0123456789abcdef"));
    open_site(&s);
    dial(&s);
    say(&s, CM_S(HEAD));
    for (int i = 0; i < 20 && !s.w; i++)
        uv_run(cm_loop_uv(s.loop), UV_RUN_NOWAIT);
    while (queued <= CM_HTTPD_HIGH) {
        queued = cm_wsd_send(s.w, cm_buf_str(&big), true);
        cm_resp_flush(s.req);
        uv_run(cm_loop_uv(s.loop), UV_RUN_NOWAIT);
    }
    ck_assert_uint_eq(s.notes.n, 0);
    wait_for(&s, "drain;"); /* reads */
    cm_wsd_ping(s.w);
    hang_up(&s);
    wait_for(&s, "drain;gone;");
    close_site(&s);
    cm_buf_clear(&big);
}
END_TEST

START_TEST(it_may_end_from_within)
{
    struct site s;

    open_site(&s);
    dial(&s);
    s.close_at_message = true;
    say(&s, CM_S(HEAD "\x81\x81\0\0\0\0a\x81\x81\0\0\0\0b"));
    wait_for(&s, "T:a;");
    expect_frames(&s, CM_S("\x88\x08\x0f\xa0"
                           "enough"));
    expect_eof(&s);
    hang_up(&s);
    dial(&s); /* the server closes first, with a session open */
    s.close_at_message = false;
    say(&s, CM_S(HEAD));
    for (int i = 0; i < 20 && !s.w; i++)
        turn(&s);
    ck_assert_ptr_nonnull(s.w);
    close_site(&s);
}
END_TEST

Suite *suite_wsd(void)
{
    Suite *s = suite_create("wsd");
    TCase *t = tcase_create("wsd");

    tcase_set_timeout(t, 60);
    tcase_add_test(t, handshakes);
    tcase_add_test(t, messages_at_every_cut);
    tcase_add_test(t, who_breaks_the_protocol_is_told);
    tcase_add_test(t, held_clients_wait_and_nothing_is_lost);
    tcase_add_test(t, a_held_client_that_leaves_is_noticed);
    tcase_add_test(t, a_held_socket_is_not_read);
    tcase_add_test(t, slow_readers_are_told_of);
    tcase_add_test(t, it_may_end_from_within);
    suite_add_tcase(s, t);
    return s;
}
