/* A load generator for chat gateways: a chat completion again and again over keep-alive HTTP/1.1.
 *
 *   load [OPTION]... PORT              the gateway, on 127.0.0.1
 *
 *   --connections N  (16)   each carries one request at a time
 *   --seconds S      (3)    how long new requests are sent; those under way are waited for
 *   --rate R                R requests a second, whatever the answers do: a latency counts from
 *                           the moment its request was meant to leave. Without it each answer is
 *                           followed by the next request at once.
 *   --hold                  opens one stream on every connection, prints {"held":N} when each has
 *                           had its first delta (or after 30 s), and keeps them open until
 *                           standard input ends
 *   --stream                asks for streamed answers
 *   --prompt BYTES   (200)  size of the user message
 *   --dialect NAME (openai) openai, anthropic or gemini: how the gateway is asked
 *   --key K, --model M      what the gateway knows us and the upstream by
 *
 * Ends with one line of JSON; times are microseconds. `first`: until the head of an answer that is
 * not streamed, or until the first delta; `gap`: between two deltas of a stream. An answer that is
 * not 200, is cut, or is a stream without its end mark counts as failed; Gemini's have none. */
#include "common.h"

#include <getopt.h>
#include <signal.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#define MAX_HEAD 4096
#define DRAIN_US 3000000     /* how long answers under way are waited for at the end */
#define HOLD_RATE 10000      /* streams opened in a second */
#define PATIENCE_US 30000000 /* until all are connected, and until all streams speak */

/* --- samples --------------------------------------------------------------------------------- */

struct samples {
    uint32_t *us;
    size_t n, capacity;
};

static void sample(struct samples *s, uint64_t us)
{
    if (s->n == s->capacity) {
        s->capacity = s->capacity > 0 ? s->capacity * 2 : 4096;
        s->us = regrab(s->us, s->capacity * sizeof *s->us);
    }
    s->us[s->n++] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

static int by_size(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static uint32_t percentile(const struct samples *sorted, double share)
{
    size_t i = (size_t)(share * (double)sorted->n);

    if (sorted->n == 0)
        return 0;
    return sorted->us[i < sorted->n ? i : sorted->n - 1];
}

static void print_samples(const char *name, struct samples *s)
{
    if (s->n > 0)
        qsort(s->us, s->n, sizeof *s->us, by_size);
    printf(",\"%s\":{\"p50\":%u,\"p90\":%u,\"p99\":%u,\"max\":%u}", name, percentile(s, 0.5),
           percentile(s, 0.9), percentile(s, 0.99), percentile(s, 1));
}

/* --- one connection -------------------------------------------------------------------------- */

enum part {
    HEAD,       /* of the response */
    BODY,       /* `left` bytes of it */
    CHUNK_SIZE, /* the line before a chunk */
    CHUNK,      /* `left` bytes of it */
    CHUNK_END,  /* the line end behind it */
    TRAILER,    /* behind the last chunk, up to an empty line */
    COMPLETE
};

struct answer {
    enum part part;
    int status;
    uint64_t left;
    char head[MAX_HEAD];
    size_t head_n;
    size_t line_n;  /* of a chunk size or a trailer: what has been seen of it */
    char event[24]; /* how the present line of the event stream begins */
    size_t event_n;
    bool end_mark; /* data: [DONE], event: message_stop */
};

struct client {
    int fd;
    bool connected;
    bool idle; /* in the ring; a connection that the gateway closed meanwhile stays there */
    bool busy;
    size_t sent;       /* bytes of the request */
    uint64_t meant_us; /* when the request was to leave */
    uint64_t delta_us; /* when the latest delta came, 0 = none yet */
    struct answer answer;
};

static struct {
    struct request_options request;
    size_t connections;
    uint64_t seconds, rate;
    bool hold;
} options = {
    .request = {.key = "sk-bench", .model = "bench", .prompt_bytes = 200},
    .connections = 16,
    .seconds = 3,
};

static char *request; /* what every client sends */
static size_t request_n;
static struct client *clients;
static int poll_fd;

/* Clients without work, first in, first out, so that all connections are used equally. */
static struct {
    struct client **ring;
    size_t first, n;
} idle;

static struct {
    uint64_t answered, failed, reconnected;
    int last_bad_status;
    size_t busy, held;
    struct samples latency, first, gap;
} totals;

static void idle_push(struct client *c)
{
    c->idle = true;
    idle.ring[(idle.first + idle.n++) % options.connections] = c;
}

static struct client *idle_pop(void)
{
    struct client *c = idle.ring[idle.first];

    c->idle = false;
    idle.first = (idle.first + 1) % options.connections;
    idle.n--;
    return c;
}

static void client_dial(struct client *c)
{
    struct sockaddr_in address = loopback(options.request.port);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};

    c->fd = tcp_socket(SOCK_STREAM | SOCK_NONBLOCK);
    c->connected = false;
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS)
        die("load: connect: %s", strerror(errno));
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event) != 0)
        die("load: epoll_ctl: %s", strerror(errno));
}

/* The request is over, well or not; a connection that ended is made anew. */
static void client_settle(struct client *c, bool good, bool connection_ended)
{
    if (c->busy) {
        c->busy = false;
        totals.busy--;
        if (good) {
            totals.answered++;
            sample(&totals.latency, now_us() - c->meant_us);
        } else {
            totals.failed++;
            totals.last_bad_status = c->answer.status;
        }
        if (!connection_ended)
            idle_push(c);
    }
    if (connection_ended) {
        close(c->fd);
        if (!c->connected)
            die("load: nobody answers on port %u", options.request.port);
        totals.reconnected++;
        client_dial(c);
    }
}

/* A broken connection shows in the next event, not here. */
static void client_send(struct client *c)
{
    while (c->busy && c->sent < request_n) {
        ssize_t sent = send(c->fd, request + c->sent, request_n - c->sent, MSG_NOSIGNAL);

        if (sent < 0)
            return;
        c->sent += (size_t)sent;
    }
}

static void client_start(struct client *c, uint64_t meant_us)
{
    c->busy = true;
    c->sent = 0;
    c->meant_us = meant_us;
    c->delta_us = 0;
    c->answer.part = HEAD;
    c->answer.status = 0;
    c->answer.head_n = c->answer.line_n = c->answer.event_n = 0;
    c->answer.end_mark = false;
    totals.busy++;
    client_send(c);
}

/* --- reading an answer ----------------------------------------------------------------------- */

static void on_event_line(struct client *c, uint64_t now)
{
    static const char *const marks[N_DIALECTS] = {"data: [DONE]", "event: message_stop", "data: "};
    const char *mark = marks[options.request.dialect];
    struct answer *a = &c->answer;

    if (a->event_n >= strlen(mark) && memcmp(a->event, mark, strlen(mark)) == 0)
        a->end_mark = true;
    if (options.request.dialect == OPENAI && a->end_mark) {
        a->event_n = 0;
        return;
    }
    if (a->event_n >= 6 && memcmp(a->event, "data: ", 6) == 0) {
        if (c->delta_us == 0) {
            sample(&totals.first, now - c->meant_us);
            totals.held++;
        } else {
            sample(&totals.gap, now - c->delta_us);
        }
        c->delta_us = now;
    }
    a->event_n = 0;
}

/* Lines of the event stream; only their beginnings matter. */
static void read_events(struct client *c, const char *p, size_t n, uint64_t now)
{
    struct answer *a = &c->answer;

    while (n > 0) {
        const char *newline = memchr(p, '\n', n);
        size_t line_n = newline != NULL ? (size_t)(newline - p) : n;
        size_t room = sizeof a->event - a->event_n;
        size_t keep = line_n < room ? line_n : room;

        memcpy(a->event + a->event_n, p, keep);
        a->event_n += keep;
        if (newline == NULL)
            return;
        on_event_line(c, now);
        p += line_n + 1;
        n -= line_n + 1;
    }
}

static void on_head(struct client *c, uint64_t now)
{
    static const char length_field[] = "\ncontent-length:";
    struct answer *a = &c->answer;
    const char *length;

    a->head[a->head_n - 1] = '\0';
    a->status = (int)strtol(a->head + strlen("HTTP/1.1 "), NULL, 10);
    length = strcasestr(a->head, length_field);
    if (length == NULL) {
        a->part = CHUNK_SIZE;
    } else {
        a->left = strtoull(length + sizeof length_field - 1, NULL, 10);
        a->part = a->left > 0 ? BODY : COMPLETE;
    }
    if (!options.request.stream && a->status == 200)
        sample(&totals.first, now - c->meant_us);
}

/* Takes bytes up to the end of the head; returns how many. */
static size_t read_head(struct client *c, const char *p, size_t n, uint64_t now)
{
    struct answer *a = &c->answer;

    for (size_t i = 0; i < n; i++) {
        if (a->head_n == MAX_HEAD)
            die("load: a response head has more than %d bytes", MAX_HEAD);
        a->head[a->head_n++] = p[i];
        if (p[i] == '\n' && a->head_n >= 12 &&
            memcmp(a->head + a->head_n - 4, "\r\n\r\n", 4) == 0) {
            on_head(c, now);
            return i + 1;
        }
    }
    return n;
}

static size_t read_content(struct client *c, const char *p, size_t n, uint64_t now)
{
    struct answer *a = &c->answer;
    size_t take = a->left < n ? (size_t)a->left : n;

    if (options.request.stream)
        read_events(c, p, take, now);
    a->left -= take;
    if (a->left == 0)
        a->part = a->part == BODY ? COMPLETE : CHUNK_END;
    return take;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One byte between chunks: a size, a line end, a trailer. */
static void read_framing(struct answer *a, char c)
{
    if (c == '\r')
        return;
    if (c != '\n') {
        if (a->part == CHUNK_SIZE && hex_digit(c) >= 0) {
            a->left = (a->line_n > 0 ? a->left * 16 : 0) + (uint64_t)hex_digit(c);
        }
        a->line_n++;
        return;
    }
    if (a->part == CHUNK_END)
        a->part = CHUNK_SIZE;
    else if (a->part == CHUNK_SIZE)
        a->part = a->left > 0 ? CHUNK : TRAILER;
    else if (a->line_n == 0)
        a->part = COMPLETE;
    a->line_n = 0;
}

static void client_feed(struct client *c, const char *p, size_t n)
{
    const uint64_t now = now_us();
    struct answer *a = &c->answer;

    while (n > 0 && a->part != COMPLETE) {
        size_t taken = 1;

        if (a->part == HEAD)
            taken = read_head(c, p, n, now);
        else if (a->part == BODY || a->part == CHUNK)
            taken = read_content(c, p, n, now);
        else
            read_framing(a, *p);
        p += taken;
        n -= taken;
    }
    if (a->part == COMPLETE)
        client_settle(c, a->status == 200 && (a->end_mark || !options.request.stream), false);
}

static void client_read(struct client *c)
{
    static char buffer[1 << 18];

    for (;;) {
        ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);

        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            client_settle(c, false, true);
            return;
        }
        if (c->busy)
            client_feed(c, buffer, (size_t)got);
    }
}

static void on_client(struct client *c, uint32_t events)
{
    if (!c->connected && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) == EPOLLOUT) {
        c->connected = true;
        if (!c->idle)
            idle_push(c);
    }
    if (events & EPOLLOUT)
        client_send(c);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        client_read(c);
}

/* --- pace ------------------------------------------------------------------------------------ */

/* When requests are meant to leave. Without a rate: whenever a connection is free. */
static struct {
    double next_us, step_us; /* step 0 = no rate */
    uint64_t remaining;      /* requests that may still be started */
    int timer;
} pace;

/* timerfd, because epoll_wait() counts in milliseconds. */
static void pace_wake_at(double at_us)
{
    uint64_t us = (uint64_t)at_us;
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000 + 1},
    };

    timerfd_settime(pace.timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void pace_start_due(uint64_t now)
{
    while (idle.n > 0 && pace.remaining > 0 && (pace.step_us <= 0 || pace.next_us <= (double)now)) {
        client_start(idle_pop(), pace.step_us > 0 ? (uint64_t)pace.next_us : now_us());
        pace.next_us += pace.step_us;
        pace.remaining--;
    }
    if (pace.step_us > 0 && pace.remaining > 0 && pace.next_us > (double)now)
        pace_wake_at(pace.next_us);
}

static void pace_open(void)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = &pace};
    uint64_t rate = options.rate > 0 ? options.rate : options.hold ? HOLD_RATE : 0;

    pace.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (pace.timer < 0 || epoll_ctl(poll_fd, EPOLL_CTL_ADD, pace.timer, &event) != 0)
        die("load: timer: %s", strerror(errno));
    pace.step_us = rate > 0 ? 1e6 / (double)rate : 0;
    pace.remaining = options.hold ? options.connections : UINT64_MAX;
}

/* --- the run --------------------------------------------------------------------------------- */

/* Handles what happens within `ms`. True: standard input has ended. */
static bool poll_once(int ms)
{
    struct epoll_event events[256];
    bool input_ended = false;
    int n = epoll_wait(poll_fd, events, 256, ms);

    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == NULL)
            input_ended = true;
        else if (events[i].data.ptr != &pace)
            on_client(events[i].data.ptr, events[i].events);
    }
    return input_ended;
}

static void wait_connected(size_t wanted, uint64_t latest_us)
{
    while (idle.n < wanted) {
        if (now_us() > latest_us)
            die("load: only %zu of %zu connections were accepted", idle.n, options.connections);
        poll_once(100);
    }
}

/* Every connection is there before the first request leaves. */
static void connect_all(void)
{
    const uint64_t latest = now_us() + PATIENCE_US;

    clients = grab(options.connections, sizeof *clients);
    idle.ring = grab(options.connections, sizeof(struct client *));
    for (size_t i = 0; i < options.connections; i++) {
        client_dial(&clients[i]);
        if (i % 256 == 255) /* leave the listener's backlog some room */
            wait_connected(i + 1, latest);
    }
    wait_connected(options.connections, latest);
}

static void run_for_seconds(void)
{
    const uint64_t end = now_us() + options.seconds * 1000000;
    uint64_t now;

    while ((now = now_us()) < end) {
        pace_start_due(now);
        poll_once((int)((end - now) / 1000) + 1);
    }
    pace.remaining = 0;
    while (totals.busy > 0 && now_us() < end + DRAIN_US)
        poll_once(10);
}

static void run_and_hold(void)
{
    struct epoll_event input = {.events = EPOLLIN | EPOLLHUP, .data.ptr = NULL};
    const uint64_t latest = now_us() + PATIENCE_US;
    bool told = false, ended = false;

    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input) != 0)
        die("load: --hold needs a pipe as standard input");
    while (!ended) {
        pace_start_due(now_us());
        ended = poll_once(1000);
        if (!told && (totals.held + totals.failed >= options.connections || now_us() > latest)) {
            printf("{\"held\":%zu}\n", totals.held);
            fflush(stdout);
            told = true;
        }
    }
}

static void read_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"connections", required_argument, NULL, 'c'},
        {"seconds", required_argument, NULL, 's'},
        {"rate", required_argument, NULL, 'r'},
        {"hold", no_argument, NULL, 'h'},
        {"stream", no_argument, NULL, 't'},
        {"prompt", required_argument, NULL, 'p'},
        {"dialect", required_argument, NULL, 'd'},
        {"key", required_argument, NULL, 'k'},
        {"model", required_argument, NULL, 'm'},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'c':
            options.connections = number("--connections", optarg, 1, 28000);
            break;
        case 's':
            options.seconds = number("--seconds", optarg, 1, 3600);
            break;
        case 'r':
            options.rate = number("--rate", optarg, 1, 1000000);
            break;
        case 'h':
            options.hold = options.request.stream = true;
            break;
        case 't':
            options.request.stream = true;
            break;
        case 'p':
            options.request.prompt_bytes = number("--prompt", optarg, 0, 16 << 20);
            break;
        case 'd':
            options.request.dialect = dialect_of(optarg);
            break;
        case 'k':
            options.request.key = optarg;
            break;
        case 'm':
            options.request.model = optarg;
            break;
        default:
            exit(2);
        }
    }
    if (optind != argc - 1)
        die("usage: load [OPTION]... PORT (load.c has the options)");
    options.request.port = (uint16_t)number("port", argv[optind], 1, UINT16_MAX);
}

int main(int argc, char **argv)
{
    uint64_t begun;
    double elapsed_s;

    read_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    request = request_text(&options.request, &request_n);
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (poll_fd < 0)
        die("load: epoll: %s", strerror(errno));
    connect_all();
    pace_open();

    begun = now_us();
    pace.next_us = (double)begun;
    if (options.hold)
        run_and_hold();
    else
        run_for_seconds();
    elapsed_s = (double)(now_us() - begun) / 1e6;

    totals.failed += options.hold ? 0 : totals.busy;
    printf("{\"answered\":%llu,\"failed\":%llu,\"last_bad_status\":%d,\"reconnected\":%llu,"
           "\"seconds\":%.3f,\"per_second\":%.1f",
           (unsigned long long)totals.answered, (unsigned long long)totals.failed,
           totals.last_bad_status, (unsigned long long)totals.reconnected, elapsed_s,
           (double)totals.answered / elapsed_s);
    print_samples("latency", &totals.latency);
    print_samples("first", &totals.first);
    print_samples("gap", &totals.gap);
    puts("}");
    return 0;
}
