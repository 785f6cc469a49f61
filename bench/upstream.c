/* A fake platform that costs as little as possible: one thread, epoll, keep-alive HTTP/1.1. It speaks
 * OpenAI's dialect, Anthropic's below /v1/messages, and Gemini's where the path has a colon.
 *
 *   upstream [PORT]       listens on 127.0.0.1, prints the port (0 or none: a free one)
 *
 * A POST whose body has "stream":true (Gemini: to :streamGenerateContent) is answered with
 * server-sent events: `deltas` of them, `interval_us` apart, each in a write of its own, then usage
 * and end mark. Every other POST gets one whole answer. Both begin `delay_us` after the request. All this is set while it runs:
 *
 *   GET /set?deltas=20&interval_us=0&delay_us=0&text_bytes=12
 *
 * and holds for answers that begin later. A connection serves one request at a time. */
#include "common.h"

#include <signal.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/queue.h>

#define MAX_REQUEST ((size_t)16 << 20)
#define LISTEN_BACKLOG 16384

/* What every answer is made of; settings in force when an answer begins stay with it to its end. */
struct wire {
    char *json;                       /* a whole answer: head and body */
    char *stream_head, *delta, *tail; /* of a streamed one; delta and tail are HTTP chunks */
    size_t json_n, head_n, delta_n, tail_n;
};
struct script {
    uint64_t deltas, interval_us, delay_us, text_bytes;
    struct wire wires[N_DIALECTS];
};

enum step { IDLE, JSON, STREAM_HEAD, DELTA, TAIL }; /* what a connection sends next */

struct client {
    int fd;
    char *in; /* what has arrived and is not answered yet */
    size_t in_n, in_capacity;
    enum step step;
    const struct script *script; /* of the answer under way */
    const struct wire *wire;     /* in its dialect */
    uint64_t deltas_left;
    const char *out; /* the rest of the piece that the socket did not take; lives in a script */
    size_t out_n;
    uint64_t due_us;             /* when `step` happens; only while in the queue */
    TAILQ_ENTRY(client) waiting; /* in `queue` */
    bool queued;
};

static struct script *script; /* for the next answer */
/* Clients that wait, earliest first. */
static TAILQ_HEAD(client_queue, client) queue = TAILQ_HEAD_INITIALIZER(queue);

/* --- the script ------------------------------------------------------------------------------ */

/* Text that is put together with stdio; the caller owns it. */
struct text {
    FILE *out;
    char *p;
    size_t n;
};

static void text_open(struct text *t)
{
    t->out = open_memstream(&t->p, &t->n);
    if (t->out == NULL)
        die("out of memory");
}

static char *text_close(struct text *t, size_t *n)
{
    if (fclose(t->out) != 0)
        die("out of memory");
    *n = t->n;
    return t->p;
}

/* Takes `content`, returns it as one chunk of a chunked body, with `after` behind it. */
static char *as_chunk(char *content, size_t content_n, const char *after, size_t *n)
{
    struct text t;

    text_open(&t);
    fprintf(t.out, "%zx\r\n", content_n);
    fwrite(content, 1, content_n, t.out);
    fprintf(t.out, "\r\n%s", after);
    free(content);
    return text_close(&t, n);
}

static void put_answer_text(FILE *out, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++)
        fputc(i % 6 == 5 ? ' ' : 'o', out);
}

#define COMMON_MEMBERS                                                                             \
    "\"id\":\"chatcmpl-bench0000000000000000000\",\"created\":1790000000,\"model\":\"bench\","     \
    "\"system_fingerprint\":\"fp_bench00001\","

#define ANTHROPIC_MEMBERS                                                                          \
    "\"id\":\"msg_01bench00000000000000000\",\"type\":\"message\",\"role\":\"assistant\","         \
    "\"model\":\"bench\",\"stop_sequence\":null,"
#define ANTHROPIC_INPUT "\"input_tokens\":12,\"cache_read_input_tokens\":0"
#define GEMINI_MEMBERS "\"modelVersion\":\"bench\",\"responseId\":\"bench000000000000\""
#define GEMINI_USAGE                                                                               \
    "\"usageMetadata\":{\"promptTokenCount\":12,\"candidatesTokenCount\":20,\"totalTokenCount\":32},"

/* What stands before and behind the text, in the order of enum dialect. */
static const struct {
    const char *before, *behind;
} whole_forms[N_DIALECTS] = {
    {"{" COMMON_MEMBERS "\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":"
     "{\"role\":\"assistant\",\"content\":\"",
     "\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
     "\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":20,\"total_tokens\":32,"
     "\"prompt_tokens_details\":{\"cached_tokens\":0},"
     "\"completion_tokens_details\":{\"reasoning_tokens\":0}}}"},
    {"{" ANTHROPIC_MEMBERS "\"content\":[{\"type\":\"text\",\"text\":\"",
     "\"}],\"stop_reason\":\"end_turn\",\"usage\":{" ANTHROPIC_INPUT ",\"output_tokens\":20}}"},
    {"{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"",
     "\"}],\"role\":\"model\"},\"finishReason\":\"STOP\",\"index\":0}]," GEMINI_USAGE GEMINI_MEMBERS
     "}"},
};
static const struct {
    const char *first;           /* events before the first delta */
    const char *before, *behind; /* of a delta's text */
    const char *last;
} stream_forms[N_DIALECTS] = {
    {"",
     "data: {" COMMON_MEMBERS "\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,"
     "\"delta\":{\"content\":\"",
     "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
     "data: {" COMMON_MEMBERS "\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,"
     "\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{"
     "\"prompt_tokens\":12,\"completion_tokens\":20,\"total_tokens\":32}}\n\ndata: [DONE]\n\n"},
    {"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{" ANTHROPIC_MEMBERS
     "\"content\":[],\"stop_reason\":null,\"usage\":{" ANTHROPIC_INPUT ",\"output_tokens\":1}}}\n\n"
     "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
     "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
     "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
     "\"delta\":{\"type\":\"text_delta\",\"text\":\"",
     "\"}}\n\n",
     "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
     "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
     "\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":20}}\n\n"
     "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"},
    {"", "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"",
     "\"}],\"role\":\"model\"},\"index\":0}]," GEMINI_USAGE GEMINI_MEMBERS "}\r\n\r\n",
     "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}],\"role\":\"model\"},"
     "\"finishReason\":\"STOP\",\"index\":0}]," GEMINI_USAGE GEMINI_MEMBERS "}\r\n\r\n"},
};

static void write_json(struct script *s, enum dialect d)
{
    struct text body, whole;
    char *content;
    size_t content_n;

    text_open(&body);
    fputs(whole_forms[d].before, body.out);
    put_answer_text(body.out, s->text_bytes);
    fputs(whole_forms[d].behind, body.out);
    content = text_close(&body, &content_n);
    text_open(&whole);
    fprintf(whole.out,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
            content_n, content);
    free(content);
    s->wires[d].json = text_close(&whole, &s->wires[d].json_n);
}

/* The same for a text that stays its owner's. */
static char *text_as_chunk(const char *given, const char *after, size_t *n)
{
    struct text t;
    char *content;
    size_t content_n;

    text_open(&t);
    fputs(given, t.out);
    content = text_close(&t, &content_n);
    return as_chunk(content, content_n, after, n);
}

static void write_stream(struct script *s, enum dialect d)
{
    struct wire *w = &s->wires[d];
    struct text t;
    char *content;
    size_t n;

    text_open(&t);
    fputs("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
          "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n",
          t.out);
    if (*stream_forms[d].first) {
        content = text_as_chunk(stream_forms[d].first, "", &n);
        fwrite(content, 1, n, t.out);
        free(content);
    }
    w->stream_head = text_close(&t, &w->head_n);

    text_open(&t);
    fputs(stream_forms[d].before, t.out);
    put_answer_text(t.out, s->text_bytes);
    fputs(stream_forms[d].behind, t.out);
    content = text_close(&t, &n);
    w->delta = as_chunk(content, n, "", &w->delta_n);
    w->tail = text_as_chunk(stream_forms[d].last, "0\r\n\r\n", &w->tail_n);
}

/* The old script is kept: answers under way still point into it, and there are only a few. */
static void set_script(struct script settings)
{
    script = grab(1, sizeof *script);
    *script = settings;
    for (int d = 0; d < N_DIALECTS; d++) {
        write_json(script, (enum dialect)d);
        write_stream(script, (enum dialect)d);
    }
}

/* "deltas=20&interval_us=0", up to a blank. Unknown names are an error of the caller. */
static void set_from_query(const char *query)
{
    struct script next = *script;
    char name[32];
    unsigned long long value;
    int used;

    while (sscanf(query, "%31[a-z_]=%llu%n", name, &value, &used) == 2) {
        if (strcmp(name, "deltas") == 0)
            next.deltas = value;
        else if (strcmp(name, "interval_us") == 0)
            next.interval_us = value;
        else if (strcmp(name, "delay_us") == 0)
            next.delay_us = value;
        else if (strcmp(name, "text_bytes") == 0)
            next.text_bytes = value;
        else
            die("upstream: there is no setting \"%s\"", name);
        query += used;
        if (*query == '&')
            query++;
    }
    set_script(next);
}

/* --- connections ----------------------------------------------------------------------------- */

static void client_unqueue(struct client *c)
{
    if (c->queued)
        TAILQ_REMOVE(&queue, c, waiting);
    c->queued = false;
}

/* Nearly everybody waits equally long, so the place is at the end or close to it. */
static void client_wait(struct client *c, uint64_t due_us)
{
    struct client *before = TAILQ_LAST(&queue, client_queue);

    while (before != NULL && before->due_us > due_us)
        before = TAILQ_PREV(before, client_queue, waiting);
    c->due_us = due_us;
    c->queued = true;
    if (before != NULL)
        TAILQ_INSERT_AFTER(&queue, before, c, waiting);
    else
        TAILQ_INSERT_HEAD(&queue, c, waiting);
}

static void client_close(struct client *c)
{
    client_unqueue(c);
    close(c->fd);
    free(c->in);
    free(c);
}

/* Sends what is in `out`. False: the peer is gone. */
static bool client_flush(struct client *c)
{
    while (c->out_n > 0) {
        ssize_t sent = send(c->fd, c->out, c->out_n, MSG_NOSIGNAL);

        if (sent < 0)
            return errno == EAGAIN;
        c->out += sent;
        c->out_n -= (size_t)sent;
    }
    return true;
}

static bool client_send(struct client *c, const char *p, size_t n)
{
    c->out = p;
    c->out_n = n;
    return client_flush(c);
}

/* Goes on until the answer is complete, must wait, or the socket is full. False: peer gone. */
static bool client_advance(struct client *c)
{
    const struct script *s = c->script;
    const struct wire *w = c->wire;

    while (c->step != IDLE && c->out_n == 0 && !c->queued) {
        bool alive = true;

        switch (c->step) {
        case IDLE:
            break;
        case JSON:
            c->step = IDLE;
            alive = client_send(c, w->json, w->json_n);
            break;
        case STREAM_HEAD:
            c->step = s->deltas > 0 ? DELTA : TAIL;
            alive = client_send(c, w->stream_head, w->head_n);
            break;
        case DELTA:
            c->deltas_left--;
            if (c->deltas_left == 0)
                c->step = TAIL;
            if (s->interval_us > 0)
                client_wait(c, c->due_us + s->interval_us);
            alive = client_send(c, w->delta, w->delta_n);
            break;
        case TAIL:
            c->step = IDLE;
            alive = client_send(c, w->tail, w->tail_n);
            break;
        }
        if (!alive)
            return false;
    }
    return true;
}

/* Bytes of the first request in the buffer, 0 while it is not whole; *head_n is its head. */
static size_t request_length(struct client *c, size_t *head_n)
{
    static const char field[] = "\ncontent-length:";
    const char *end = c->in_n == 0 ? NULL : memmem(c->in, c->in_n, "\r\n\r\n", 4);
    const char *length;
    size_t whole;

    if (end == NULL)
        return 0;
    *head_n = (size_t)(end - c->in) + 4;
    c->in[*head_n - 1] = '\0'; /* strcasestr must not look into the body */
    length = strcasestr(c->in, field);
    c->in[*head_n - 1] = '\n';
    whole = *head_n;
    if (length != NULL)
        whole += strtoul(length + sizeof field - 1, NULL, 10);
    return whole <= c->in_n ? whole : 0;
}

static void client_begin(struct client *c, enum dialect dialect, enum step first)
{
    c->script = script;
    c->wire = &script->wires[dialect];
    c->step = first;
    c->deltas_left = script->deltas;
    c->due_us = now_us();
    if (script->delay_us > 0)
        client_wait(c, c->due_us + script->delay_us);
}

/* By the path of the request line. */
static enum dialect dialect_of_request(const struct client *c)
{
    const char *path = memchr(c->in, ' ', c->in_n);
    const char *end =
        path == NULL ? NULL : memchr(path + 1, ' ', c->in_n - (size_t)(path + 1 - c->in));

    if (end == NULL)
        return OPENAI;
    if (memmem(path, (size_t)(end - path), "/messages", 9) != NULL)
        return ANTHROPIC;
    return memchr(path, ':', (size_t)(end - path)) != NULL ? GEMINI : OPENAI;
}

static bool client_settings(struct client *c, size_t head_n)
{
    static const char done[] = "HTTP/1.1 204 No Content\r\n\r\n";
    const char *query = memchr(c->in, '?', head_n);

    if (query != NULL)
        set_from_query(query + 1);
    return client_send(c, done, sizeof done - 1);
}

/* Answers what has arrived. False: the peer is gone. */
static bool client_serve(struct client *c)
{
    size_t head_n, whole;

    while (c->step == IDLE && c->out_n == 0 && (whole = request_length(c, &head_n)) > 0) {
        bool alive = true;
        enum dialect dialect = dialect_of_request(c);
        bool stream = dialect == GEMINI
                          ? memmem(c->in, head_n, ":streamGenerate", 15) != NULL
                          : memmem(c->in + head_n, whole - head_n, "\"stream\":true", 13) != NULL;

        if (strncmp(c->in, "GET /set", 8) == 0)
            alive = client_settings(c, head_n);
        else
            client_begin(c, dialect, stream ? STREAM_HEAD : JSON);
        c->in_n -= whole;
        memmove(c->in, c->in + whole, c->in_n);
        if (!alive || !client_advance(c))
            return false;
    }
    return true;
}

/* Reads all there is. False: the peer is gone. */
static bool client_read(struct client *c)
{
    for (;;) {
        ssize_t got;

        if (c->in_capacity - c->in_n < 4096) {
            c->in_capacity = c->in_capacity > 0 ? c->in_capacity * 2 : 8192;
            if (c->in_capacity > MAX_REQUEST)
                return false;
            c->in = regrab(c->in, c->in_capacity);
        }
        got = recv(c->fd, c->in + c->in_n, c->in_capacity - c->in_n, 0);
        if (got < 0)
            return errno == EAGAIN;
        if (got == 0)
            return false;
        c->in_n += (size_t)got;
    }
}

static void on_client(struct client *c, uint32_t events)
{
    bool alive = true;

    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        alive = client_read(c);
    if (alive && (events & EPOLLOUT))
        alive = client_flush(c) && client_advance(c);
    if (alive)
        alive = client_serve(c);
    if (!alive)
        client_close(c);
}

/* --- the loop -------------------------------------------------------------------------------- */

static void accept_all(int listener, int poll)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        const int on = 1;
        struct client *c = grab(1, sizeof *c);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};

        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        c->fd = fd;
        if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) != 0)
            die("epoll_ctl: %s", strerror(errno));
    }
}

static void advance_due(void)
{
    const uint64_t now = now_us();
    struct client *c;

    while ((c = TAILQ_FIRST(&queue)) != NULL && c->due_us <= now) {
        client_unqueue(c);
        if (!client_advance(c) || !client_serve(c))
            client_close(c);
    }
}

/* Until the first one in the queue is due; rounded up, so that we do not spin for a millisecond. */
static int wait_ms(void)
{
    const struct client *first = TAILQ_FIRST(&queue);
    uint64_t now;

    if (first == NULL)
        return -1;
    now = now_us();
    return first->due_us <= now ? 0 : (int)((first->due_us - now + 999) / 1000);
}

static int listen_on(uint16_t *port)
{
    const int on = 1;
    struct sockaddr_in address = loopback(*port);
    socklen_t length = sizeof address;
    int fd = tcp_socket(SOCK_STREAM | SOCK_NONBLOCK);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(fd, LISTEN_BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        die("upstream: port %u: %s", *port, strerror(errno));
    *port = ntohs(address.sin_port);
    return fd;
}

int main(int argc, char **argv)
{
    uint16_t port = argc > 1 ? (uint16_t)number("port", argv[1], 0, UINT16_MAX) : 0;
    int listener = listen_on(&port);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event listening = {.events = EPOLLIN, .data.ptr = NULL};

    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    set_script((struct script){.deltas = 20, .text_bytes = 12});
    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &listening) != 0)
        die("epoll: %s", strerror(errno));
    printf("%u\n", port);
    fflush(stdout);

    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(poll, events, 256, wait_ms());

        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL)
                accept_all(listener, poll);
            else
                on_client(events[i].data.ptr, events[i].events);
        }
        advance_due();
    }
}
