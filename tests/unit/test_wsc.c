/* WebSocket client, against a scripted server on a thread of its own. */
#include "chatmux/io/wsc.h"
#include "unit.h"

#include "chatmux/base/buf.h"
#include "chatmux/base/clock.h"
#include "io/httpc_int.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- the server: blocking, one thread for each connection */

struct peer {
    int fd;
    SSL *ssl;        /* NULL: plain */
    size_t piece;    /* bytes per write; 0 = all at once */
    char head[4096]; /* of the request */
    char answer[32]; /* to its key */
};

struct frame {
    int op; /* 0: the connection ended */
    bool final;
    size_t n;
    uint8_t *data; /* owned */
};

static uint16_t port;
static SSL_CTX *server_tls; /* NULL: plain */
static atomic_int connections, gone;
static atomic_size_t flooded; /* bytes written by serve_flood */
static atomic_int seen_close; /* code of the last close frame that came; -1 = none */
static atomic_int seen_pongs, seen_text;
static size_t script_piece, script_cut;

static int peer_write(struct peer *p, const void *bytes, size_t n)
{
    const char *at = bytes;
    size_t piece = p->piece > 0 ? p->piece : n;

    while (n > 0) {
        size_t part = n < piece ? n : piece;
        ssize_t did =
            p->ssl ? SSL_write(p->ssl, at, (int)part) : send(p->fd, at, part, MSG_NOSIGNAL);

        if (did <= 0)
            return -1;
        at += did;
        n -= (size_t)did;
        if (p->piece > 0)
            usleep(200);
    }
    return 0;
}

static bool peer_read(struct peer *p, void *out, size_t n)
{
    for (char *at = out; n > 0;) {
        ssize_t did =
            p->ssl ? SSL_read(p->ssl, at, (int)(n < 65536 ? n : 65536)) : recv(p->fd, at, n, 0);

        if (did <= 0)
            return false;
        at += did;
        n -= (size_t)did;
    }
    return true;
}

static int put_frame(struct peer *p, int first, const void *data, size_t n)
{
    uint8_t head[10] = {(uint8_t)first};
    size_t head_n = 2;

    if (n < 126) {
        head[1] = (uint8_t)n;
    } else if (n < 65536) {
        head[1] = 126, head[2] = (uint8_t)(n >> 8), head[3] = (uint8_t)n;
        head_n = 4;
    } else {
        head[1] = 127;
        for (int i = 0; i < 8; i++)
            head[9 - i] = (uint8_t)(n >> (8 * i));
        head_n = 10;
    }
    return peer_write(p, head, head_n) < 0 || peer_write(p, data, n) < 0 ? -1 : 0;
}

/* op 0: the connection ended, or the client sent what a client must not. */
static struct frame get_frame(struct peer *p)
{
    struct frame f = {0};
    uint8_t head[2], wide[8], mask[4];
    size_t wide_n;
    uint64_t n;

    if (!peer_read(p, head, 2) || !(head[1] & 0x80) || (head[0] & 0x70))
        return f;
    n = head[1] & 0x7f;
    wide_n = n < 126 ? 0 : n == 126 ? 2 : 8;
    if (wide_n > 0)
        n = 0;
    if (!peer_read(p, wide, wide_n))
        return f;
    for (size_t i = 0; i < wide_n; i++)
        n = n << 8 | wide[i];
    f.n = (size_t)n;
    f.data = malloc(f.n + 1);
    if (!peer_read(p, mask, 4) || !peer_read(p, f.data, f.n))
        return f;
    for (size_t i = 0; i < f.n; i++)
        f.data[i] ^= mask[i & 3];
    f.op = head[0] & 15;
    f.final = head[0] & 0x80;
    if (f.op == 8)
        atomic_store(&seen_close, f.n >= 2 ? f.data[0] << 8 | f.data[1] : 1005);
    if (f.op == 10)
        atomic_fetch_add(&seen_pongs, 1);
    return f;
}

static void get_rest(struct peer *p)
{
    struct frame f;

    do {
        f = get_frame(p);
        free(f.data);
    } while (f.op != 0);
}

static int accept_upgrade(struct peer *p)
{
    char text[256];
    int n = snprintf(text, sizeof(text),
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                     p->answer);

    return peer_write(p, text, (size_t)n);
}

/* ---- what it does on each path */

static void serve_echo(struct peer *p)
{
    struct frame f;

    (void)accept_upgrade(p);
    while ((f = get_frame(p)).op != 0) {
        int rc = put_frame(p, 0x80 | f.op, f.data, f.n); /* a close frame, too */

        free(f.data);
        if (rc < 0 || f.op == 8)
            return;
    }
}

/* Everything a server may do, without a wait between. */
#define SCRIPT                                                                                     \
    "\x81\x05hello"                                                                                \
    "\x01\x03Gr\xc3"                                                                               \
    "\x89\x02hi"                                                                                   \
    "\x80\x03\xbc\xc3\x9f"                                                                         \
    "\x82\x03\x00\xff\x01"                                                                         \
    "\x8a\x00"                                                                                     \
    "\x81\x00"                                                                                     \
    "\x88\x05\x0b\xb9"                                                                             \
    "bye"
#define SCRIPT_GIVES "T:hello;T:Gr\xc3\xbc\xc3\x9f;B:\0\xff\x01;T:;"

static void serve_script(struct peer *p)
{
    char text[512];
    int n = snprintf(text, sizeof(text),
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                     p->answer);

    memcpy(text + n, SCRIPT, sizeof(SCRIPT) - 1);
    p->piece = script_piece;
    if (peer_write(p, text, (size_t)n + sizeof(SCRIPT) - 1 - script_cut) == 0 && script_cut == 0)
        get_rest(p);
}

static void serve_refusal(struct peer *p)
{
    static const char text[] = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";

    (void)peer_write(p, text, sizeof(text) - 1);
    get_rest(p);
}

static void serve_page(struct peer *p)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno";

    (void)peer_write(p, text, sizeof(text) - 1);
    get_rest(p);
}

static void serve_wrong_key(struct peer *p)
{
    p->answer[3] ^= 1;
    (void)accept_upgrade(p);
    get_rest(p);
}

static void serve_compressed(struct peer *p)
{
    char text[256];
    int n = snprintf(text, sizeof(text),
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
                     "Upgrade\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
                     "Sec-WebSocket-Accept: %s\r\n\r\n",
                     p->answer);

    (void)peer_write(p, text, (size_t)n);
    get_rest(p);
}

static void serve_nothing(struct peer *p)
{
    get_rest(p);
}

static void serve_hangup(struct peer *p)
{
    (void)p;
}

static void serve_bad_text(struct peer *p)
{
    (void)accept_upgrade(p);
    (void)put_frame(p, 0x81, "\xc3\x28", 2);
    get_rest(p);
}

static void serve_too_big(struct peer *p)
{
    (void)accept_upgrade(p);
    (void)put_frame(p, 0x01, "x", 1);
    (void)peer_write(p, "\x80\x7f\x00\x00\x00\x7f\xff\xff\xff\xff", 10);
    get_rest(p);
}

static void serve_masked(struct peer *p)
{
    (void)accept_upgrade(p);
    (void)peer_write(p, "\x81\x81\0\0\0\0h", 7);
    get_rest(p);
}

/* Never reads, never closes. */
static void serve_deaf(struct peer *p)
{
    (void)accept_upgrade(p);
    (void)put_frame(p, 0x81, "hello", 5);
    for (int i = 0; i < 100; i++) {
        struct pollfd gone_too = {.fd = p->fd, .events = POLLRDHUP};

        if (poll(&gone_too, 1, 100) > 0)
            return;
    }
}

/* Sends a ping, reads late, then checks that messages of rising numbers come whole and in order; says how many. */
static void serve_slow(struct peer *p)
{
    uint32_t want = 0;
    struct frame f;
    char text[32];

    (void)accept_upgrade(p);
    (void)put_frame(p, 0x89, "early", 5);
    usleep(300000);
    (void)put_frame(p, 0x89, "late", 4);
    usleep(700000); /* time to answer before anything is read, on a busy machine too */
    while ((f = get_frame(p)).op != 0) {
        bool right = f.op == 10 || (f.op == 2 && f.n == 65537 && memcmp(f.data, &want, 4) == 0 &&
                                    memcmp(f.data + f.n - 4, &want, 4) == 0);

        want += f.op == 2;
        free(f.data);
        if (!right)
            return;
        if (f.op == 2 && want == 128)
            (void)put_frame(p, 0x81, text,
                            (size_t)snprintf(text, sizeof(text), "%u, %d pongs", want,
                                             atomic_load(&seen_pongs)));
    }
}

static void serve_flood(struct peer *p)
{
    static char kib[1024];

    memset(kib, 'x', sizeof(kib));
    (void)accept_upgrade(p);
    for (int i = 0; i < 32768; i++) {
        if (put_frame(p, 0x82, kib, sizeof(kib)) < 0)
            return;
        atomic_fetch_add(&flooded, sizeof(kib));
    }
    (void)put_frame(p, 0x88, "\x03\xe8", 2);
    get_rest(p);
}

/* Counts texts until the close frame, which it answers. */
static void serve_count(struct peer *p)
{
    struct frame f;

    (void)accept_upgrade(p);
    while ((f = get_frame(p)).op != 0) {
        if (f.op == 1)
            atomic_fetch_add(&seen_text, 1);
        if (f.op == 8)
            (void)put_frame(p, 0x88, f.data, f.n);
        free(f.data);
    }
}

static const struct {
    const char *path;
    void (*serve)(struct peer *p);
} paths[] = {
    {"/echo", serve_echo},       {"/script", serve_script}, {"/403", serve_refusal},
    {"/200", serve_page},        {"/key", serve_wrong_key}, {"/deflate", serve_compressed},
    {"/nothing", serve_nothing}, {"/hangup", serve_hangup}, {"/text", serve_bad_text},
    {"/big", serve_too_big},     {"/masked", serve_masked}, {"/deaf", serve_deaf},
    {"/slow", serve_slow},       {"/flood", serve_flood},   {"/count", serve_count},
};

static char last_head[4096]; /* of the last request; read after the connection was accepted */

static bool read_head(struct peer *p)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char sha[EVP_MAX_MD_SIZE];
    char text[128], *key;
    size_t n = 0;
    unsigned sha_n;

    while (n < sizeof(p->head) - 1 && !strstr(p->head, "\r\n\r\n"))
        if (!peer_read(p, p->head + n++, 1))
            return false;
    memcpy(last_head, p->head, sizeof(last_head));
    key = strstr(p->head, "\r\nSec-WebSocket-Key: ");
    if (!key)
        return true;
    snprintf(text, sizeof(text), "%.24s%s", key + 21, guid);
    EVP_Digest(text, strlen(text), sha, &sha_n, EVP_sha1(), NULL);
    EVP_EncodeBlock((unsigned char *)p->answer, sha, (int)sha_n);
    return true;
}

static void *peer_thread(void *arg)
{
    struct peer *p = arg;

    if (server_tls) {
        p->ssl = SSL_new(server_tls);
        SSL_set_fd(p->ssl, p->fd);
    }
    if ((!p->ssl || SSL_accept(p->ssl) == 1) && read_head(p))
        for (size_t i = 0; i < CM_COUNT(paths); i++) {
            size_t n = strlen(paths[i].path);

            if (strncmp(p->head, "GET ", 4) == 0 && strncmp(p->head + 4, paths[i].path, n) == 0 &&
                p->head[4 + n] == ' ')
                paths[i].serve(p);
        }
    SSL_free(p->ssl);
    close(p->fd);
    atomic_fetch_add(&gone, 1);
    free(p);
    return NULL;
}

static void *accept_thread(void *arg)
{
    int listener = *(int *)arg;

    for (;;) {
        struct peer *p = calloc(1, sizeof(*p));
        pthread_t thread;

        p->fd = accept(listener, NULL, NULL);
        if (p->fd < 0)
            return NULL;
        atomic_fetch_add(&connections, 1);
        pthread_create(&thread, NULL, peer_thread, p);
        pthread_detach(thread);
    }
}

/* Lives as long as the test's process. */
static void serve(void)
{
    static int listener;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(at);
    pthread_t thread;

    listener = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_ge(listener, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(listen(listener, 64), 0);
    getsockname(listener, (struct sockaddr *)&at, &n);
    port = ntohs(at.sin_port);
    atomic_store(&seen_close, -1);
    pthread_create(&thread, NULL, accept_thread, &listener);
    pthread_detach(thread);
}

/* ---- the client's side */

struct got {
    struct cm_ws *ws;
    int opens, messages, ends, code, pongs, drains, status;
    char reason[32];
    struct cm_buf text; /* "T:hello;B:..." */
    bool failed, keep_nothing;
    struct cm_err err;
    enum moment { NEVER, AT_OPEN, AT_MESSAGE, AT_END } close_at, pause_at;
    size_t bytes;
};

static struct cm_loop *loop;
static struct cm_httpc *hc;
static const char *scheme = "ws";
static struct cm_str ca_file;

static void moment_came(struct got *g, enum moment m)
{
    if (g->pause_at == m)
        cm_ws_pause(g->ws);
    if (g->close_at == m)
        cm_ws_close(g->ws), g->ws = NULL;
}

static void on_open(void *arg)
{
    struct got *g = arg;

    ck_assert_int_eq(g->opens++ + g->messages + g->ends, 0);
    moment_came(g, AT_OPEN);
}

static void on_message(void *arg, struct cm_str message, bool binary)
{
    struct got *g = arg;

    ck_quick(g->opens == 1 && g->ends == 0);
    g->messages++;
    g->bytes += message.n;
    if (!g->keep_nothing) {
        cm_buf_append(&g->text, binary ? CM_S("B:") : CM_S("T:"));
        cm_buf_append(&g->text, message);
        cm_buf_put(&g->text, ';');
    }
    moment_came(g, AT_MESSAGE);
}

static void on_end(void *arg, int code, struct cm_str reason, const struct cm_err *err)
{
    struct got *g = arg;

    cm_str_copy(g->reason, sizeof(g->reason), reason);
    ck_assert_int_eq(g->ends++, 0);
    g->code = code;
    g->failed = err != NULL;
    if (err)
        g->err = *err;
    moment_came(g, AT_END);
}

static void on_head(void *arg, int status, const struct cm_header *headers, size_t n)
{
    struct got *g = arg;

    ck_assert_int_eq(g->opens + g->ends, 0);
    ck_assert_uint_gt(n, 0);
    ck_assert_uint_gt(headers[0].name.n, 0);
    g->status = status;
}

static void on_pong(void *arg)
{
    struct got *g = arg;

    g->pongs++;
}

static void on_drain(void *arg)
{
    struct got *g = arg;

    g->drains++;
}

static const struct cm_ws_cb callbacks = {.on_open = on_open,
                                          .on_message = on_message,
                                          .on_end = on_end,
                                          .on_head = on_head,
                                          .on_drain = on_drain,
                                          .on_pong = on_pong};

static struct cm_xfer_req req_of(const char *path)
{
    static char url[4][128];
    static int turn;
    char *at = url[turn++ % 4];

    snprintf(at, sizeof(url[0]), "%s://127.0.0.1:%u%s", scheme, port, path);
    return (struct cm_xfer_req){
        .url = cm_str_of(at), .connect_timeout_ms = 5000, .ca_file = ca_file};
}

static void start(struct got *g, const char *path)
{
    struct cm_xfer_req req = req_of(path);

    g->ws = cm_ws_open(hc, &req, 1 << 20, &callbacks, g);
    ck_assert_int_eq(g->opens + g->ends, 0); /* nothing comes inside the call */
}

/* Sets itself again: uv_run() may fire it before it polls, and must not sleep for ever then. */
static void on_tick(void *arg)
{
    cm_deadline_set(loop, arg, cm_loop_now_ms(loop) + 20);
}

static unsigned turns;

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

static void turn_for(unsigned ms)
{
    static const int never;

    turn_until(&never, 1, ms);
}

static bool atomic_comes(atomic_int *what, int n, unsigned ms)
{
    for (unsigned i = 0; i < ms / 20 && atomic_load(what) != n; i++)
        turn_for(20);
    return atomic_load(what) == n;
}

static void wait_end(struct got *g)
{
    turn_until(&g->ends, 1, 20000);
    ck_assert_int_eq(g->ends, 1);
}

static void got_clear(struct got *g)
{
    cm_ws_close(g->ws);
    cm_buf_clear(&g->text);
    memset(g, 0, sizeof(*g));
}

static void open_loop(void)
{
    loop = cm_loop_new();
    hc = cm_httpc_new(loop);
}

static void close_loop(void)
{
    cm_httpc_close(hc);
    cm_loop_free(loop); /* ends the process unless uv_loop_close() is 0 */
}

/* ---- messages */

static void echo_sizes(void)
{
    static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, 300000};
    struct got g = {0};

    open_loop();
    start(&g, "/echo");
    for (size_t i = 0; i < CM_COUNT(sizes); i++) { /* the first is sent before the connection is */
        char *bytes = malloc(sizes[i] + 1);
        int want = g.messages + 1;

        memset(bytes, 'a' + (int)i, sizes[i]);
        cm_ws_send(g.ws, cm_str(bytes, sizes[i]), i % 2);
        turn_until(&g.messages, want, 10000);
        ck_assert_int_eq(g.messages, want);
        ck_assert_uint_eq(g.text.n, sizes[i] + 3);
        ck_assert_int_eq(g.text.p[0], i % 2 ? 'B' : 'T');
        ck_assert_mem_eq(g.text.p + 2, bytes, sizes[i]);
        cm_buf_reset(&g.text);
        free(bytes);
    }
    got_clear(&g);
    ck_assert(atomic_comes(&gone, 1, 5000));
    ck_assert_int_eq(atomic_load(&seen_close), 1000);
    close_loop();
}

START_TEST(echo_of_every_size)
{
    serve();
    echo_sizes();
    ck_assert_ptr_nonnull(strstr(last_head, "\r\nUpgrade: websocket\r\n"));
    ck_assert_ptr_nonnull(strstr(last_head, "\r\nSec-WebSocket-Version: 13\r\n"));
    ck_assert_ptr_null(strstr(last_head, "Sec-WebSocket-Extensions"));
}
END_TEST

START_TEST(every_frame_at_every_split)
{
    static const size_t pieces[] = {0, 1, 2, 3, 7, 160};

    serve();
    open_loop();
    for (size_t i = 0; i < CM_COUNT(pieces); i++) {
        struct got g = {0};

        script_piece = pieces[i];
        atomic_store(&seen_pongs, 0);
        atomic_store(&seen_close, -1);
        start(&g, "/script");
        wait_end(&g);
        ck_assert_msg(!g.failed, "%s", g.err.msg);
        ck_assert_int_eq(g.code, 3001);
        ck_str(cm_buf_str(&g.text), SCRIPT_GIVES);
        got_clear(&g);
        ck_assert(atomic_comes(&gone, (int)i + 1, 5000));
        ck_assert_int_eq(atomic_load(&seen_pongs), 1);
        ck_assert_int_eq(atomic_load(&seen_close), 3001); /* answered with the same code */
    }
    close_loop();
}
END_TEST

START_TEST(cut_at_every_byte)
{
    serve();
    open_loop();
    for (script_cut = 1; script_cut < 300; script_cut++) {
        struct got g = {0};
        bool open;

        start(&g, "/script");
        wait_end(&g);
        open = script_cut <= sizeof(SCRIPT) - 1;
        ck_assert_msg(g.failed && g.code == 1006, "cut %zu from the end", script_cut);
        ck_assert_msg(g.opens == open, "cut %zu from the end: %d", script_cut, g.opens);
        ck_assert_msg(g.err.cls == (open ? CM_ERR_CUT : CM_ERR_UPSTREAM_DOWN), "cut %zu: %s",
                      script_cut, g.err.msg);
        got_clear(&g);
        if (script_cut > sizeof(SCRIPT) + 120)
            break;
    }
    close_loop();
}
END_TEST

/* ---- the handshake */

START_TEST(refused_handshakes)
{
    static const struct {
        const char *path, *says;
        int code;
    } cases[] = {
        {"/403", "status 403", 403},
        {"/200", "status 200", 200},
        {"/key", "handshake is wrong", 1006},
        {"/deflate", "handshake is wrong", 1006},
        {"/hangup", "closed without an answer", 1006},
    };

    serve();
    open_loop();
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct got g = {0};

        start(&g, cases[i].path);
        wait_end(&g);
        ck_assert_int_eq(g.opens, 0);
        ck_assert_msg(g.failed && g.err.cls == CM_ERR_UPSTREAM_DOWN && g.code == cases[i].code &&
                          strstr(g.err.msg, cases[i].says) && strstr(g.err.msg, "127.0.0.1:"),
                      "%s: %d %s", cases[i].path, g.code, g.err.msg);
        got_clear(&g);
        ck_assert(atomic_comes(&gone, (int)i + 1, 5000)); /* no connection is kept */
    }
    close_loop();
}
END_TEST

START_TEST(silent_handshake_times_out)
{
    struct got g = {0};
    struct cm_xfer_req req;
    uint64_t began = cm_mono_ms();

    serve();
    open_loop();
    req = req_of("/nothing");
    req.connect_timeout_ms = 200;
    g.ws = cm_ws_open(hc, &req, 1 << 20, &callbacks, &g);
    wait_end(&g);
    ck_assert_int_eq(g.err.cls, CM_ERR_TIMEOUT);
    ck_assert_uint_ge(cm_mono_ms() - began, 200);
    ck_assert_uint_lt(cm_mono_ms() - began, 3000);
    got_clear(&g);
    ck_assert(atomic_comes(&gone, 1, 5000));
    close_loop();
}
END_TEST

START_TEST(schemes_do_not_mix)
{
    static const struct cm_xfer_cb none; /* closed before it is told */
    struct cm_xfer_req req;
    struct cm_xfer *x;
    struct got g = {0};

    serve();
    open_loop();
    scheme = "http";
    start(&g, "/echo");
    wait_end(&g);
    ck_assert_ptr_nonnull(strstr(g.err.msg, "ws:// or wss://"));
    got_clear(&g);
    scheme = "ws";
    req = req_of("/echo");
    req.method = CM_S("GET");
    x = cm_xfer_open(hc, &req, &none, NULL);
    ck_assert(x->ended && strstr(x->err->msg, "http:// or https://"));
    cm_xfer_close(x);
    ck_assert_int_eq(atomic_load(&connections), 0);
    close_loop();
}
END_TEST

/* ---- a peer that breaks the rules */

START_TEST(rule_breakers_are_told)
{
    static const struct {
        const char *path;
        int code;
    } cases[] = {{"/text", 1007}, {"/big", 1009}, {"/masked", 1002}};

    serve();
    open_loop();
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct got g = {0};

        start(&g, cases[i].path);
        wait_end(&g);
        ck_assert_msg(g.failed && g.err.cls == CM_ERR_CUT && g.code == cases[i].code, "%s: %d %s",
                      cases[i].path, g.code, g.err.msg);
        ck_assert_int_eq(g.messages, 0);
        ck_assert(atomic_comes(&seen_close, cases[i].code, 5000));
        got_clear(&g);
    }
    close_loop();
}
END_TEST

/* ---- a slow reader, and pausing */

static void send_much(void)
{
    struct got g = {0};
    char *bytes = calloc(1, 65537);
    unsigned before;
    size_t queued = 0;

    open_loop();
    start(&g, "/slow");
    for (uint32_t i = 0; i < 128; i++) {
        memcpy(bytes, &i, 4);
        memcpy(bytes + 65533, &i, 4);
        queued = cm_ws_send(g.ws, cm_str(bytes, 65537), true);
    }
    ck_assert_uint_gt(queued, CM_WS_HIGH);
    turn_for(100);
    before = turns;
    turn_for(150);
    ck_assert_uint_lt(turns - before, 50); /* what waits for the socket does not spin */
    turn_until(&g.messages, 1, 20000);
    ck_assert_msg(g.ends == 0, "%s", g.err.msg);
    ck_str(cm_buf_str(&g.text), "T:128, 2 pongs;"); /* answers do not wait behind the queue */
    ck_assert_int_eq(g.drains, 1);
    got_clear(&g);
    free(bytes);
    ck_assert(atomic_comes(&seen_close, 1000, 5000));
    close_loop();
}

START_TEST(slow_reader_gets_all_in_order)
{
    serve();
    send_much();
}
END_TEST

START_TEST(pings_are_answered_and_a_close_code_comes_back)
{
    struct got g = {0};

    serve();
    open_loop();
    start(&g, "/echo");
    cm_ws_ping(g.ws); /* not open: nothing */
    cm_ws_say_close(g.ws, 4000, CM_STR_NONE);
    turn_until(&g.opens, 1, 10000);
    ck_assert_int_eq(g.status, 101);
    cm_ws_ping(g.ws); /* comes back as it is; our answer to that comes back as an answer */
    turn_until(&g.pongs, 1, 10000);
    ck_assert_int_eq(g.pongs, 1);
    cm_ws_say_close(g.ws, 4001, CM_S("bye"));
    cm_ws_say_close(g.ws, 4002, CM_S("again"));
    cm_ws_send(g.ws, CM_S("too late"), false);
    wait_end(&g);
    ck_assert(!g.failed);
    ck_assert_int_eq(g.code, 4001);
    ck_assert_str_eq(g.reason, "bye");
    ck_assert_int_eq(g.messages, 0);
    ck_assert_int_eq(atomic_load(&seen_close), 4001);
    got_clear(&g);
    close_loop();
}
END_TEST

START_TEST(paused_socket_is_not_read)
{
    struct got g = {.keep_nothing = true, .pause_at = AT_MESSAGE};
    size_t held;

    serve();
    open_loop();
    start(&g, "/flood");
    turn_until(&g.messages, 1, 5000);
    turn_for(300);
    ck_assert_int_eq(g.messages, 1); /* not even those that had come along */
    held = atomic_load(&flooded);
    turns = 0;
    turn_for(300);
    ck_assert_uint_eq(atomic_load(&flooded), held);
    ck_assert_uint_lt(held, 16 << 20); /* of 32 MiB: the kernel's buffers and a little of ours */
    ck_assert_uint_lt(turns, 100);
    for (int i = 2; i < 200; i++) { /* step by step */
        cm_ws_resume(g.ws);
        turn_until(&g.messages, i, 5000);
        ck_assert_int_eq(g.messages, i);
    }
    g.pause_at = NEVER;
    cm_ws_resume(g.ws);
    wait_end(&g);
    ck_assert(!g.failed && g.code == 1000);
    ck_assert_int_eq(g.messages, 32768);
    ck_assert_uint_eq(g.bytes, (size_t)32768 * 1024);
    got_clear(&g);
    close_loop();
}
END_TEST

START_TEST(paused_keeps_the_end_back)
{
    struct got g = {.pause_at = AT_MESSAGE};

    serve();
    open_loop();
    start(&g, "/script");
    turn_until(&g.messages, 1, 5000);
    turn_for(200);
    ck_assert_int_eq(g.messages + g.ends, 1);
    g.pause_at = NEVER;
    cm_ws_resume(g.ws);
    wait_end(&g);
    ck_str(cm_buf_str(&g.text), SCRIPT_GIVES);
    ck_assert_int_eq(g.code, 3001);
    got_clear(&g);
    close_loop();
}
END_TEST

/* ---- closing */

START_TEST(close_sends_what_is_queued)
{
    struct got g = {0};
    uint64_t began;

    serve();
    open_loop();
    start(&g, "/count");
    turn_until(&g.opens, 1, 5000);
    for (int i = 0; i < 10; i++)
        cm_ws_send(g.ws, CM_S("x"), false);
    began = cm_mono_ms();
    got_clear(&g);
    ck_assert_uint_lt(cm_mono_ms() - began, 500);
    ck_assert(atomic_comes(&gone, 1, 1500)); /* with the server's answer, not with our patience */
    ck_assert_int_eq(atomic_load(&seen_text), 10);
    ck_assert_int_eq(atomic_load(&seen_close), 1000);
    ck_assert_uint_eq(cm_httpc_active(hc), 0);
    close_loop();
}
END_TEST

START_TEST(close_at_every_moment)
{
    static const enum moment moments[] = {AT_OPEN, AT_MESSAGE, AT_END};
    static const char *const where[] = {"/script", "/403", "/text", "/hangup", "/count"};

    serve();
    open_loop();
    script_cut = 0;
    for (size_t w = 0; w < CM_COUNT(where); w++)
        for (size_t i = 0; i < CM_COUNT(moments); i++) {
            struct got g = {.close_at = moments[i]};

            start(&g, where[w]);
            turn_for(60);
            ck_assert_int_le(g.messages, moments[i] == AT_OPEN      ? 0
                                         : moments[i] == AT_MESSAGE ? 1
                                                                    : 4);
            got_clear(&g);
        }
    for (int ms = 0; ms < 4; ms++) { /* in the middle of connecting, too */
        struct got g = {0};

        start(&g, "/script");
        turn_for((unsigned)ms);
        got_clear(&g);
    }
    ck_assert(atomic_comes(&gone, atomic_load(&connections), 5000));
    close_loop();
}
END_TEST

START_TEST(deaf_peer_is_left_after_a_while)
{
    static char block[65536];
    struct got g = {0};

    serve();
    open_loop();
    start(&g, "/deaf");
    turn_until(&g.messages, 1, 5000);
    for (int i = 0; i < 200; i++) /* 13 MB wait for a socket that is full */
        cm_ws_send(g.ws, cm_str(block, sizeof(block)), true);
    got_clear(&g);
    turn_for(1000);
    ck_assert_uint_eq(cm_httpc_active(hc), 1);
    turn_for(1500);
    ck_assert_uint_eq(cm_httpc_active(hc), 0);

    start(&g, "/deaf"); /* the client's end does not wait for a farewell */
    turn_until(&g.messages, 1, 5000);
    got_clear(&g);
    ck_assert_uint_eq(cm_httpc_active(hc), 1);
    close_loop();
}
END_TEST

START_TEST(messages_without_a_word_take_room_too)
{
    static char block[4096];
    struct got g = {0};
    size_t queued = 0;

    serve();
    open_loop();
    start(&g, "/deaf");
    turn_until(&g.messages, 1, 5000);
    while (queued == 0)
        queued = cm_ws_send(g.ws, cm_str(block, sizeof(block)), true);
    for (int i = 0; i < 10000 && queued <= CM_WS_HIGH; i++)
        queued = cm_ws_send(g.ws, CM_STR_NONE, true);
    ck_assert_uint_gt(queued, CM_WS_HIGH);
    got_clear(&g);
    close_loop();
}
END_TEST

/* ---- over TLS */

static void make_certificate(char *file)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_NAME *name;
    X509_EXTENSION *san;
    int fd = mkstemp(file);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;

    ck_assert_ptr_nonnull(f);
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    name = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"here", -1, -1, 0);
    X509_set_issuer_name(cert, name);
    san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");
    X509_add_ext(cert, san, -1);
    X509_EXTENSION_free(san);
    ck_assert_int_gt(X509_sign(cert, key, EVP_sha256()), 0);
    PEM_write_X509(f, cert);
    fclose(f);
    server_tls = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(server_tls, cert);
    SSL_CTX_use_PrivateKey(server_tls, key);
    X509_free(cert);
    EVP_PKEY_free(key);
}

START_TEST(over_tls)
{
    static char file[] = "/tmp/cm-wsc-XXXXXX";

    make_certificate(file);
    scheme = "wss";
    ca_file = cm_str_of(file);
    serve();
    echo_sizes();
    unlink(file);
}
END_TEST

START_TEST(slow_reader_over_tls)
{
    static char file[] = "/tmp/cm-wsc-XXXXXX";

    make_certificate(file);
    scheme = "wss";
    ca_file = cm_str_of(file);
    serve();
    send_much();
    unlink(file);
}
END_TEST

Suite *suite_wsc(void)
{
    Suite *s = suite_create("wsc");
    TCase *t = tcase_create("wsc");

    tcase_add_test(t, echo_of_every_size);
    tcase_add_test(t, every_frame_at_every_split);
    tcase_add_test(t, cut_at_every_byte);
    tcase_add_test(t, refused_handshakes);
    tcase_add_test(t, silent_handshake_times_out);
    tcase_add_test(t, schemes_do_not_mix);
    tcase_add_test(t, rule_breakers_are_told);
    tcase_add_test(t, slow_reader_gets_all_in_order);
    tcase_add_test(t, pings_are_answered_and_a_close_code_comes_back);
    tcase_add_test(t, paused_socket_is_not_read);
    tcase_add_test(t, paused_keeps_the_end_back);
    tcase_add_test(t, close_sends_what_is_queued);
    tcase_add_test(t, close_at_every_moment);
    tcase_add_test(t, deaf_peer_is_left_after_a_while);
    tcase_add_test(t, messages_without_a_word_take_room_too);
    tcase_add_test(t, over_tls);
    tcase_add_test(t, slow_reader_over_tls);
    suite_add_tcase(s, t);
    return s;
}
