/* The logger. Happy path: a line is formatted into `logger.lines` under the mutex; one write(2)
 * a loop turn takes them away. Failure: a reader that is slow gets 20 ms once; from then on
 * nothing waits for it until it reads again, 256 KiB are kept and lines beyond are counted. A
 * descriptor that is broken loses what was collected, and the count says so if it ever recovers. */
#include "chatmux/base/log.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX 4096        /* bytes of one message */
#define COLLECT_BYTES 32768u /* a long loop turn writes in between */
#define KEEP_BYTES 262144u   /* kept for a reader that is slow */
#define SLOW_WAIT_MS 20
#define REPEATS_SHOWN 5
#define REPEAT_WINDOW_MS 1000
#define REPEAT_SLOTS 64u
#define REPEAT_PROBES 4u

/* Lines of one format string within the current second. */
struct repeat {
    const char *module, *fmt; /* both literals: compared as pointers; fmt NULL = free */
    enum cm_log_level level;
    uint64_t since_ms; /* monotonic: the first line of the window */
    uint64_t count;    /* lines in the window, shown or not */
};

static struct {
    pthread_mutex_t lock;
    struct cm_log_setup setup;
    struct cm_buf lines;
    uint64_t lost; /* lines dropped and not reported yet */
    bool torn;     /* the rest of a line was dropped: the next output starts with a line end */
    bool slow;     /* the reader let us wait: not again before it has caught up */
    bool whole;    /* write(2) of any length returns at once; else only PIPE_BUF after poll(2) */
    bool socket;
    bool examined;   /* `whole` and `socket` were found out */
    int64_t stamp_s; /* Unix second of `stamp` */
    char stamp[CM_RFC3339_CAP];
    struct repeat repeats[REPEAT_SLOTS];
    unsigned repeating; /* slots that hide lines now: usually 0 */
} logger = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .setup = {.fd = STDERR_FILENO, .level = CM_LOG_INFO},
    .stamp_s = INT64_MIN,
};

_Atomic(enum cm_log_level) cm_log_threshold = CM_LOG_INFO;
static atomic_bool access_on;

static const char *const level_names[] = {
#define X(name, text) text,
    CM_LOG_LEVELS(X)
#undef X
};

static const struct cm_clock *log_clock(void)
{
    return logger.setup.clock ? logger.setup.clock : &cm_clock_system;
}

static uint64_t now_ms(void)
{
    return log_clock()->mono_ms(log_clock()->arg);
}

static struct cm_str stamp(void)
{
    int64_t ms = log_clock()->unix_ms(log_clock()->arg);
    unsigned rest = (unsigned)((ms % 1000 + 1000) % 1000);
    int64_t second = (ms - rest) / 1000;

    if (second != logger.stamp_s) {
        cm_rfc3339(ms, logger.stamp);
        logger.stamp_s = second;
    } else {
        logger.stamp[20] = (char)('0' + rest / 100);
        logger.stamp[21] = (char)('0' + rest / 10 % 10);
        logger.stamp[22] = (char)('0' + rest % 10);
    }
    return cm_str(logger.stamp, CM_RFC3339_CAP - 1);
}

static void put_hex(struct cm_buf *b, unsigned v, int digits)
{
    while (digits-- > 0)
        cm_buf_put(b, "0123456789abcdef"[v >> (4 * digits) & 15]);
}

/* Ends of line of other readers, and what turns the direction of text: a terminal or a viewer
 * would obey them. */
static bool is_unsafe(unsigned c)
{
    return (c >= 0x80 && c < 0xa0) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

/* The code point of a valid sequence of 2 or 3 bytes; longer ones are safe. */
static unsigned decode(const unsigned char *p, size_t n)
{
    if (n == 2)
        return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    return n == 3 ? (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu) : 0xfffd;
}

/* One character or byte that is not plain; returns how many bytes it had. */
static size_t put_special(struct cm_buf *b, const unsigned char *p, size_t n, bool json)
{
    size_t width = 2;
    unsigned c = p[0];

    if (c < 0x80) {
        if (c == '\n' || c == '\r' || c == '\t') {
            cm_buf_put(b, '\\');
            cm_buf_put(b, c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        } else if (c >= 0x20 && c != 0x7f) { /* quote or backslash */
            cm_buf_put(b, '\\');
            cm_buf_put(b, (char)c);
        } else if (json) {
            cm_buf_append(b, CM_S("\\u"));
            put_hex(b, c, 4);
        } else {
            cm_buf_append(b, CM_S("\\x"));
            put_hex(b, c, 2);
        }
        return 1;
    }
    while (width <= 4 && width <= n && cm_utf8_valid(cm_str((const char *)p, width)) != width)
        width++;
    if (width > 4 || width > n) { /* not UTF-8 */
        cm_buf_append(b, json ? CM_S("\\ufffd") : CM_S("\\x"));
        if (!json)
            put_hex(b, c, 2);
        return 1;
    }
    if (is_unsafe(decode(p, width))) {
        cm_buf_append(b, CM_S("\\u"));
        put_hex(b, decode(p, width), 4);
    } else {
        cm_buf_append(b, cm_str((const char *)p, width));
    }
    return width;
}

/* `quoted`: quotes and backslashes are escaped too. */
static void put_escaped(struct cm_buf *b, struct cm_str s, bool json, bool quoted)
{
    const unsigned char *p = (const unsigned char *)s.p;

    for (size_t i = 0; i < s.n;) {
        size_t plain = i;

        while (i < s.n && p[i] >= 0x20 && p[i] < 0x7f && !(quoted && (p[i] == '"' || p[i] == '\\')))
            i++;
        cm_buf_append(b, cm_str(s.p + plain, i - plain));
        if (i < s.n)
            i += put_special(b, p + i, s.n - i, json);
    }
}

/* False: no room, the line is counted as lost. */
static bool line_begin(enum cm_log_level level, const char *module)
{
    struct cm_buf *b = &logger.lines;
    struct cm_str name = cm_str_of(level_names[level]);
    size_t pad = 5;

    if (b->n >= KEEP_BYTES) {
        logger.lost++;
        return false;
    }
    if (logger.setup.json) {
        cm_buf_append(b, CM_S("{\"time\":\""));
        cm_buf_append(b, stamp());
        cm_buf_append(b, CM_S("\",\"level\":\""));
        cm_buf_append(b, name);
        cm_buf_append(b, CM_S("\",\"module\":\""));
        cm_buf_append(b, cm_str_of(module));
        cm_buf_put(b, '"');
        return true;
    }
    cm_buf_append(b, stamp());
    cm_buf_put(b, ' ');
    cm_buf_append(b, name);
    for (; name.n < pad; name.n++)
        cm_buf_put(b, ' ');
    cm_buf_put(b, ' ');
    cm_buf_append(b, cm_str_of(module));
    for (name = cm_str_of(module); name.n < pad; name.n++)
        cm_buf_put(b, ' ');
    return true;
}

static void put_line(enum cm_log_level level, const char *module, struct cm_str text, bool cut)
{
    struct cm_buf *b = &logger.lines;
    bool json = logger.setup.json;

    if (!line_begin(level, module))
        return;
    cm_buf_append(b, json ? CM_S(",\"msg\":\"") : CM_S(" "));
    put_escaped(b, text, json, json);
    if (cut)
        cm_buf_append(b, CM_S("…"));
    cm_buf_append(b, json ? CM_S("\"}\n") : CM_S("\n"));
}

static void examine_fd(void)
{
    struct stat st;
    int flags = fcntl(logger.setup.fd, F_GETFL);

    logger.examined = true;
    logger.socket = false;
    logger.whole = flags >= 0 && (flags & O_NONBLOCK);
    if (fstat(logger.setup.fd, &st) != 0)
        return;
    logger.socket = S_ISSOCK(st.st_mode);
    logger.whole = logger.whole || logger.socket || S_ISREG(st.st_mode);
}

static bool wait_writable(int timeout_ms)
{
    struct pollfd pfd = {.fd = logger.setup.fd, .events = POLLOUT};

    return poll(&pfd, 1, timeout_ms) > 0;
}

/* Never blocks. We share standard error with others and must not set O_NONBLOCK on it, so a pipe
 * or terminal is asked first and gets no more than it promises to take. */
static ssize_t write_some(struct cm_str s)
{
    if (logger.socket)
        return send(logger.setup.fd, s.p, s.n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (!logger.whole) {
        s = cm_str_head(s, PIPE_BUF);
        if (!wait_writable(0)) {
            errno = EAGAIN;
            return -1;
        }
    }
    return write(logger.setup.fd, s.p, s.n);
}

static void drop_lines(struct cm_str rest, bool torn)
{
    for (size_t at; (at = cm_str_find_char(rest, '\n')) != SIZE_MAX;
         rest = cm_str_from(rest, at + 1))
        logger.lost++;
    logger.torn = logger.torn || torn;
    cm_buf_reset(&logger.lines);
}

static void write_lines(void)
{
    struct cm_buf *b = &logger.lines;
    size_t done = 0;
    bool waited = false;

    while (done < b->n) {
        ssize_t n = write_some(cm_str_from(cm_buf_str(b), done));

        if (n >= 0) {
            done += (size_t)n;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (waited || logger.slow || !wait_writable(SLOW_WAIT_MS)) {
                logger.slow = true;
                break;
            }
            waited = true;
        } else if (errno != EINTR) {
            drop_lines(cm_str_from(cm_buf_str(b), done), done > 0 && b->p[done - 1] != '\n');
            return;
        }
    }
    cm_buf_consume(b, done);
    if (b->n > 0)
        return;
    logger.slow = false; /* caught up: may wait again */
    if (b->cap > 2 * COLLECT_BYTES)
        cm_buf_clear(b); /* a burst is over */
}

static void report_lost(void)
{
    uint64_t lost = logger.lost;
    bool torn = logger.torn;
    char text[80];
    int n = snprintf(text, sizeof(text), "%llu lines were lost: the log could not be written",
                     (unsigned long long)lost);

    logger.lost = 0;
    logger.torn = false;
    if (torn)
        cm_buf_put(&logger.lines, '\n');
    put_line(CM_LOG_WARN, "log", cm_str(text, (size_t)n), false);
    write_lines();
    if (logger.lost > 0) { /* this line too: say it another time */
        logger.lost = lost;
        logger.torn = torn;
    }
}

static void flush_locked(void)
{
    if (!logger.examined)
        examine_fd();
    if (logger.lines.n > 0)
        write_lines();
    if (logger.lost > 0 && logger.lines.n == 0)
        report_lost();
}

static void sum_up(struct repeat *r)
{
    char text[512];
    int n;

    if (r->fmt && r->count > REPEATS_SHOWN) {
        n = snprintf(text, sizeof(text), "… %llu more like this: %s",
                     (unsigned long long)(r->count - REPEATS_SHOWN), r->fmt);
        put_line(r->level, r->module, cm_str_head(cm_str_of(text), (size_t)n), false);
        logger.repeating--;
    }
    r->fmt = NULL;
}

static void sum_up_since(uint64_t before_ms)
{
    for (size_t i = 0; i < REPEAT_SLOTS && logger.repeating > 0; i++) {
        struct repeat *r = &logger.repeats[i];

        if (r->fmt && r->count > REPEATS_SHOWN && r->since_ms <= before_ms)
            sum_up(r);
    }
}

/* The slot of this format string; the oldest of its neighbours makes room if need be. */
static struct repeat *repeat_slot(const char *module, const char *fmt)
{
    size_t start = (size_t)(((uintptr_t)fmt * 0x9e3779b1u) >> 7) ^ (uintptr_t)module;
    struct repeat *oldest = &logger.repeats[start % REPEAT_SLOTS];

    for (size_t i = 0; i < REPEAT_PROBES; i++) {
        struct repeat *r = &logger.repeats[(start + i) % REPEAT_SLOTS];

        if (r->fmt == fmt && r->module == module)
            return r;
        if (!r->fmt || (oldest->fmt && r->since_ms < oldest->since_ms))
            oldest = r;
    }
    sum_up(oldest);
    return oldest;
}

static bool repeats_too_often(enum cm_log_level level, const char *module, const char *fmt)
{
    uint64_t now = now_ms();
    struct repeat *r = repeat_slot(module, fmt);

    if (r->fmt && now - r->since_ms >= REPEAT_WINDOW_MS)
        sum_up(r);
    if (!r->fmt)
        *r = (struct repeat){.module = module, .fmt = fmt, .level = level, .since_ms = now};
    r->count++;
    if (r->count == REPEATS_SHOWN + 1)
        logger.repeating++;
    return r->count > REPEATS_SHOWN;
}

void cm_log_write(enum cm_log_level level, const char *module, const char *fmt, ...)
{
    char text[TEXT_MAX];
    int saved_errno = errno;
    struct cm_str s;
    bool hidden, cut;
    va_list ap;
    int n;

    pthread_mutex_lock(&logger.lock);
    hidden = repeats_too_often(level, module, fmt);
    pthread_mutex_unlock(&logger.lock);
    if (hidden) {
        errno = saved_errno;
        return;
    }

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0)
        n = 0;
    cut = (size_t)n >= sizeof(text);
    s = cm_str_head(cm_str(text, (size_t)n), sizeof(text) - 1);
    if (cut)
        s.n -= cm_utf8_tail(s);

    pthread_mutex_lock(&logger.lock);
    put_line(level, module, s, cut);
    if (level == CM_LOG_ERROR || logger.lines.n >= COLLECT_BYTES)
        flush_locked();
    pthread_mutex_unlock(&logger.lock);
    errno = saved_errno;
}

/* Text values stand bare when no reader could misunderstand them. */
static bool needs_quotes(struct cm_str s)
{
    if (s.n == 0 || cm_str_eq(s, CM_S("-")))
        return true;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c <= 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '=')
            return true;
    }
    return false;
}

static void put_field(struct cm_buf *b, const struct cm_log_field *f, bool json)
{
    bool quotes;

    switch (f->kind) {
    case CM_FIELD_STR:
        quotes = json || needs_quotes(f->str);
        if (quotes)
            cm_buf_put(b, '"');
        put_escaped(b, f->str, json, quotes);
        if (quotes)
            cm_buf_put(b, '"');
        return;
    case CM_FIELD_INT:
        if (f->num < 0)
            cm_buf_put(b, '-');
        cm_buf_put_u64(b, f->num < 0 ? 0 - (uint64_t)f->num : (uint64_t)f->num);
        return;
    case CM_FIELD_NONE:
        cm_buf_append(b, json ? CM_S("null") : CM_S("-"));
        return;
    }
}

void cm_log_access(const struct cm_log_field *fields, size_t n)
{
    struct cm_buf *b = &logger.lines;
    bool json;

    if (!access_on)
        return;
    pthread_mutex_lock(&logger.lock);
    json = logger.setup.json;
    if (line_begin(CM_LOG_INFO, "access")) {
        for (size_t i = 0; i < n; i++) {
            cm_buf_append(b, json ? CM_S(",\"") : CM_S(" "));
            cm_buf_append(b, cm_str_of(fields[i].name));
            cm_buf_append(b, json ? CM_S("\":") : CM_S("="));
            put_field(b, &fields[i], json);
        }
        cm_buf_append(b, json ? CM_S("}\n") : CM_S("\n"));
        if (b->n >= COLLECT_BYTES)
            flush_locked();
    }
    pthread_mutex_unlock(&logger.lock);
}

bool cm_log_access_on(void)
{
    return access_on;
}

void cm_log_flush(void)
{
    pthread_mutex_lock(&logger.lock);
    if (logger.repeating > 0) {
        uint64_t now = now_ms();

        sum_up_since(now >= REPEAT_WINDOW_MS ? now - REPEAT_WINDOW_MS : 0);
    }
    if (logger.lines.n > 0 || logger.lost > 0)
        flush_locked();
    pthread_mutex_unlock(&logger.lock);
}

void cm_log_abandon(void)
{
    if (pthread_mutex_trylock(&logger.lock) != 0)
        return;
    flush_locked();
    pthread_mutex_unlock(&logger.lock);
}

static void finish_locked(void)
{
    sum_up_since(UINT64_MAX);
    memset(logger.repeats, 0, sizeof(logger.repeats));
    flush_locked();
}

void cm_log_setup(const struct cm_log_setup *setup)
{
    pthread_mutex_lock(&logger.lock);
    finish_locked();
    logger.setup = *setup;
    logger.examined = logger.slow = false;
    logger.stamp_s = INT64_MIN;
    cm_log_threshold = setup->level;
    access_on = setup->access;
    pthread_mutex_unlock(&logger.lock);
}

void cm_log_close(void)
{
    pthread_mutex_lock(&logger.lock);
    finish_locked();
    cm_buf_clear(&logger.lines);
    pthread_mutex_unlock(&logger.lock);
}
