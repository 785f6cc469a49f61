/* Kept streams: the table of them, their followers, their clocks. */
#include "resume.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/sse.h"
#include "eventlog.h"
#include "gateway_int.h"
#include <stdlib.h>

#define LAST_WORDS (32u * 1024) /* bytes above the bounds, for the event that says why it ends */

/* Streams of one client key. */
struct owner {
    struct cm_key *key; /* held; NULL = none was needed */
    size_t n;
};

struct resume {
    struct cm_gateway *gw;
    struct cm_map by_id;        /* struct resume_stream */
    struct cm_map by_key;       /* struct owner, by the key's address */
    struct cm_list live, ended; /* struct resume_stream; ended: in the order in which they did */
    size_t n, n_live, followers;
    struct eventlog_shelf shelf;
    struct cm_buf event; /* the one that is being put together */
};

struct resume_stream {
    struct resume *r;
    struct cm_list link; /* in r->live or r->ended */
    struct cm_str id;    /* owned */
    struct owner *owner;
    struct exchange *ex; /* NULL once it has ended */
    const struct cm_surface *dialect;
    enum resume_kind kind;
    struct cm_sse split; /* bytes -> events */
    struct eventlog log;
    struct cm_list followers;
    struct cm_deadline due; /* keep-alives; nobody is there; it has been kept long enough */
    struct cm_task full;    /* ends the exchange: there was no room */
    size_t extra;           /* bytes above the bounds, at its end */
    uint64_t said_ms;       /* latest event */
    bool begun, clean;
    bool paused;    /* the upstream: its readers are as far behind as they may be */
    bool overflown; /* an event is missing at the end */
};

struct follower {
    struct eventlog_reader reader;
    struct cm_list link; /* in stream->followers */
    struct resume_stream *s;
    struct cm_req *req;
    uint64_t seen; /* of an ended stream: where it was when the clock was last asked */
};

static struct resume_stream *stream_at(struct cm_list *link)
{
    return CM_LIST_ITEM(link, struct resume_stream, link);
}

static struct follower *follower_at(struct cm_list *link)
{
    return CM_LIST_ITEM(link, struct follower, link);
}

static struct cm_loop *loop_of(const struct resume_stream *s)
{
    return s->r->gw->host->loop;
}

static const struct cm_config *config_of(const struct resume *r)
{
    return r->gw->now->config;
}

/* ---- the table ---- */

static struct cm_str key_name(struct cm_key *const *key)
{
    return cm_str((const char *)key, sizeof(*key));
}

static struct owner *owner_of(struct resume *r, struct cm_key *key)
{
    struct owner *o = cm_map_get(&r->by_key, key_name(&key));

    if (o)
        return o;
    o = CM_NEW(struct owner);
    o->key = key ? cm_key_ref(key) : NULL;
    cm_map_put(&r->by_key, key_name(&o->key), o);
    return o;
}

static void owner_release(struct resume *r, struct owner *o)
{
    if (o->n > 0)
        return;
    cm_map_del(&r->by_key, key_name(&o->key));
    cm_key_unref(o->key);
    free(o);
}

static void follower_free(struct follower *f)
{
    f->s->r->followers--;
    eventlog_detach(&f->reader);
    cm_list_remove(&f->link);
    free(f);
}

static void hang_up(struct follower *f, bool clean)
{
    struct cm_req *req = f->req;

    follower_free(f);
    if (clean)
        cm_resp_end(req);
    else
        cm_resp_abort(req);
}

/* Its memory; followers that are still there end as if cut. */
static void forget(struct resume_stream *s)
{
    struct resume *r = s->r;

    CM_ASSERT(!s->ex);
    CM_LIST_EACH(&s->followers, it)
    {
        hang_up(follower_at(it), false);
    }
    cm_deadline_clear(loop_of(s), &s->due);
    cm_task_cancel(&s->full);
    cm_map_del(&r->by_id, s->id);
    cm_list_remove(&s->link);
    r->n--;
    s->owner->n--;
    owner_release(r, s->owner);
    eventlog_clear(&s->log);
    cm_sse_clear(&s->split);
    free((void *)(uintptr_t)s->id.p);
    free(s);
}

static bool forget_oldest(struct resume *r, const struct owner *of)
{
    CM_LIST_EACH(&r->ended, it)
    {
        struct resume_stream *s = stream_at(it);

        if ((of && s->owner != of) || !cm_list_empty(&s->followers))
            continue;
        forget(s);
        return true;
    }
    return false;
}

static int make_room(struct resume *r, const struct owner *o, struct cm_err *err)
{
    const struct cm_config *c = config_of(r);

    while (o->n > (size_t)c->resume.max_per_key) /* the new one is counted */
        if (!forget_oldest(r, o)) {
            cm_fail(err, CM_ERR_CLIENT_LIMIT,
                    "%zu streams of this key are kept: wait for one to end, or cancel one",
                    o->n - 1);
            err->retry_after_s = 5;
            return -1;
        }
    while (r->n >= (size_t)c->resume.max_streams)
        if (!forget_oldest(r, NULL)) {
            cm_fail(err, CM_ERR_OVERLOADED,
                    "the gateway keeps %zu streams, which is as many as it may: please try again",
                    r->n);
            err->retry_after_s = 5;
            return -1;
        }
    return 0;
}

static struct cm_str id_made(void)
{
    unsigned char random[16];
    struct cm_buf out = {0};

    cm_rand_bytes(random, sizeof(random));
    cm_buf_append(&out, CM_S("strm_"));
    cm_hex(&out, cm_str((const char *)random, sizeof(random)));
    return cm_buf_str(&out);
}

static void on_due(void *stream);
static void on_full(void *stream);

int resume_reserve(struct exchange *ex, enum resume_kind kind, struct cm_str id, struct cm_err *err)
{
    struct resume *r = ex->gw->resume;
    struct owner *o = owner_of(r, ex->client_key);
    struct resume_stream *s;

    o->n++; /* first: making room may let go of all others of this key */
    if (make_room(r, o, err) < 0) {
        o->n--;
        owner_release(r, o);
        return -1;
    }
    s = CM_NEW(struct resume_stream);
    s->r = r;
    s->owner = o;
    s->ex = ex;
    s->dialect = ex->surface;
    s->kind = kind;
    s->id = id.n > 0 ? cm_str(cm_str_dup(id), id.n) : id_made();
    cm_list_init(&s->link);
    cm_list_push(&r->live, &s->link);
    cm_list_init(&s->followers);
    cm_sse_init(&s->split, (size_t)config_of(r)->resume.max_bytes);
    eventlog_init(&s->log, &r->shelf, kind == RESUME_JOB);
    cm_deadline_init(&s->due, on_due, s);
    cm_task_init(&s->full, on_full, s);
    cm_map_put(&r->by_id, s->id, s);
    r->n++;
    r->n_live++;
    ex->kept = s;
    return 0;
}

struct cm_str resume_id(const struct resume_stream *s)
{
    return s->id;
}

bool resume_begun(const struct resume_stream *s)
{
    return s->begun;
}

uint64_t resume_next(const struct resume_stream *s)
{
    return s->log.next;
}

bool resume_is_job(const struct resume_stream *s)
{
    return s->kind == RESUME_JOB;
}

struct exchange *resume_exchange(const struct resume_stream *s)
{
    return s->ex;
}

size_t resume_running(const struct resume *r)
{
    return r->n_live;
}

/* ---- clocks ---- */

/* What the stream waits for next. */
static void arm(struct resume_stream *s)
{
    const struct cm_config *c = config_of(s->r);
    const bool followed = !cm_list_empty(&s->followers);
    uint64_t at_ms = cm_loop_now_ms(loop_of(s));

    if (!s->ex) {
        at_ms += (uint64_t)c->resume.keep_ms;
    } else if (followed && c->stream.keepalive_ms > 0) {
        at_ms = s->said_ms + (uint64_t)c->stream.keepalive_ms;
    } else if (!followed && s->begun && s->kind == RESUME_STREAM) {
        at_ms += s->r->gw->draining ? 0 : (uint64_t)c->resume.away_ms;
    } else {
        cm_deadline_clear(loop_of(s), &s->due);
        return;
    }
    cm_deadline_set(loop_of(s), &s->due, at_ms);
}

static void keep_alive(struct resume_stream *s)
{
    const uint64_t pause_ms = (uint64_t)config_of(s->r)->stream.keepalive_ms,
                   now_ms = cm_loop_now_ms(loop_of(s));

    if (now_ms - s->said_ms >= pause_ms) {
        CM_LIST_EACH(&s->followers, it)
        {
            struct cm_req *req = follower_at(it)->req;

            if (cm_resp_queued(req) > 0)
                continue; /* it does not read: it needs no more to read */
            cm_resp_write(req, s->dialect->keepalive);
            cm_resp_flush(req);
        }
        s->said_ms = now_ms;
    }
    arm(s);
}

/* The exchange goes no further; its readers, today's and later ones, are told why. */
static void stop(struct resume_stream *s, enum outcome outcome, const struct cm_err *why)
{
    struct exchange *ex = s->ex;

    exchange_drop_attempt(ex);
    exchange_tell(ex, why);
    resume_end(ex, false);
    exchange_end(ex, outcome, why);
}

static void stop_unread(struct resume_stream *s)
{
    struct cm_err err;

    if (s->r->gw->draining)
        cm_fail(&err, CM_ERR_SHUTTING_DOWN, "the gateway is shutting down: please try again");
    else
        cm_fail(&err, CM_ERR_TIMEOUT,
                "the answer was given up: no client has read it for %lld s (resume.away)",
                (long long)config_of(s->r)->resume.away_ms / 1000);
    stop(s, OUTCOME_CLIENT_GONE, &err);
}

/* It has been kept long enough, but for clients that are still reading. */
static void stop_keeping(struct resume_stream *s)
{
    CM_LIST_EACH(&s->followers, it)
    {
        struct follower *f = follower_at(it);

        if (f->seen == f->reader.next)
            hang_up(f, false);
        else
            f->seen = f->reader.next;
    }
    if (cm_list_empty(&s->followers))
        forget(s);
    else
        arm(s);
}

static void on_due(void *stream)
{
    struct resume_stream *s = stream;

    if (!s->ex)
        stop_keeping(s);
    else if (!cm_list_empty(&s->followers))
        keep_alive(s);
    else
        stop_unread(s);
}

/* ---- followers ---- */

/* Gives it what it can take; it may be over then. */
static void feed(struct follower *f)
{
    struct resume_stream *s = f->s;
    size_t queued = cm_resp_queued(f->req);
    struct cm_str event;

    while (queued <= CM_HTTPD_HIGH && eventlog_take(&f->reader, &event))
        queued = cm_resp_write(f->req, event);
    if (f->reader.lost)
        hang_up(f, false);
    else if (!s->ex && f->reader.next == s->log.next)
        hang_up(f, s->clean);
    else
        cm_resp_flush(f->req);
}

static void feed_all(struct resume_stream *s)
{
    CM_LIST_EACH(&s->followers, it)
    {
        feed(follower_at(it));
    }
}

/* Clients that have left without a word look like slow ones: they must not stop one that reads. */
static void leave_behind(struct resume_stream *s)
{
    const uint64_t far = (s->log.next - s->log.first) / 2;
    uint64_t front = 0;

    CM_LIST_EACH(&s->followers, it)
    {
        const uint64_t next = follower_at(it)->reader.next;

        front = next > front ? next : front;
    }
    CM_LIST_EACH(&s->followers, it)
    {
        struct follower *f = follower_at(it);

        if (front - f->reader.next > far)
            hang_up(f, false);
    }
}

/* Readers of a stream are so slow that its log is nearly full: now the upstream has to wait for them, and until then it never has. */
static void mind_the_bound(struct resume_stream *s)
{
    const size_t max = (size_t)config_of(s->r)->resume.max_bytes;
    bool pause;

    if (s->kind != RESUME_STREAM || !s->ex || (!s->paused && s->log.bytes <= max / 4 * 3))
        return;
    eventlog_trim(&s->log, max / 2);
    if (s->log.bytes > max / 2) {
        leave_behind(s);
        eventlog_trim(&s->log, max / 2);
    }
    pause = !cm_list_empty(&s->followers) && s->log.bytes > (s->paused ? max / 2 : max / 4 * 3);
    if (pause == s->paused || !s->ex->attempt)
        return;
    s->paused = pause;
    attempt_pause(s->ex->attempt, pause);
}

static void on_follower_gone(void *arg, struct cm_req *req, const struct cm_err *why)
{
    struct follower *f = arg;
    struct resume_stream *s = f->s;

    (void)req;
    (void)why;
    follower_free(f);
    if (s->ex)
        report_disconnect(s->r->gw, PHASE_MIDDLE);
    if (cm_list_empty(&s->followers))
        arm(s);
    mind_the_bound(s);
}

static void on_follower_drained(void *arg, struct cm_req *req)
{
    struct follower *f = arg;
    struct resume_stream *s = f->s;

    (void)req;
    feed(f);
    mind_the_bound(s);
}

static const struct cm_req_cb follower_cb = {.on_gone = on_follower_gone,
                                             .on_drain = on_follower_drained};

/* Replay and following in one step: the log is read from `from` on, and read on when it has more. */
void resume_follow(struct resume_stream *s, struct exchange *ex, uint64_t from)
{
    struct follower *f = CM_NEW(struct follower);
    struct cm_req *req = ex->req;

    exchange_note_bytes(ex);
    ex->req = NULL;
    req->id = cm_arena_str(&req->arena, req->id); /* the exchange may end before it */
    f->s = s;
    f->req = req;
    f->seen = UINT64_MAX;
    cm_list_init(&f->link);
    cm_list_push(&s->followers, &f->link);
    s->r->followers++;
    eventlog_attach(&s->log, &f->reader, from);
    cm_req_listen(req, &follower_cb, f);
    arm(s);
    feed(f);
}

/* ---- the exchange's side ---- */

void resume_begin(struct exchange *ex)
{
    struct resume_stream *s = ex->kept;

    s->begun = true;
    s->said_ms = cm_loop_now_ms(loop_of(s));
    if (ex->req)
        resume_follow(s, ex, 0);
    else
        arm(s);
}

static int append(struct resume_stream *s, struct cm_str event)
{
    const struct cm_config *c = config_of(s->r);

    s->r->shelf.max_bytes = (size_t)c->resume.max_total_bytes + s->extra;
    return eventlog_append(&s->log, event, (size_t)c->resume.max_bytes + s->extra);
}

/* Nothing more of it can be kept. A job goes on all the same; a stream ends. */
static void overflow(struct resume_stream *s)
{
    s->overflown = true;
    if (s->kind == RESUME_STREAM)
        cm_task_post(loop_of(s), &s->full);
}

static bool is_line_end(char c)
{
    return c == '\n' || c == '\r';
}

/* The block without its empty line, and without what is left of the one before. */
static struct cm_str fields_of(struct cm_str raw)
{
    if (cm_str_starts(raw, CM_S("\xef\xbb\xbf")))
        raw = cm_str_from(raw, 3);
    while (raw.n > 0 && is_line_end(raw.p[0]))
        raw = cm_str_from(raw, 1);
    while (raw.n > 0 && is_line_end(raw.p[raw.n - 1]))
        raw.n--;
    return raw;
}

/* A job's event by an upstream of the same dialect: false when it can stay as it came. */
static bool in_our_words(struct resume_stream *s, const struct cm_sse_event *ev)
{
    struct cm_buf data = {0};
    bool other = background_event(s->ex, ev->data, s->log.next, &data);

    if (other) {
        cm_buf_reset(&s->r->event);
        cm_sse_put(&s->r->event, ev->event, cm_buf_str(&data));
    }
    cm_buf_clear(&data);
    return other;
}

/* The event as it is kept and sent, until the next one is made. */
static struct cm_str numbered(struct resume_stream *s, const struct cm_sse_event *ev)
{
    struct cm_buf *out = &s->r->event;

    cm_buf_reset(out);
    if (ev->id.n > 0) { /* the upstream's: without it */
        cm_sse_put(out, ev->event, ev->data);
        out->n -= 2; /* its last line and the empty one end here, too */
    } else {
        cm_buf_append(out, fields_of(ev->raw));
    }
    if (s->kind == RESUME_STREAM) {
        cm_buf_append(out, CM_S("\nid: "));
        cm_buf_append(out, s->id);
        cm_buf_put(out, ':');
        cm_buf_put_u64(out, s->log.next);
    }
    cm_buf_append(out, CM_S("\n\n"));
    return cm_buf_str(out);
}

static int on_block(void *arg, const struct cm_sse_event *ev)
{
    struct resume_stream *s = arg;
    struct cm_str event;

    if (!ev->data.p || s->overflown)
        return 0; /* comments are the connection's */
    event = s->kind == RESUME_JOB && s->ex->relay && in_our_words(s, ev) ? cm_buf_str(&s->r->event)
                                                                         : numbered(s, ev);
    if (append(s, event) == 0)
        return 0;
    feed_all(s); /* what they can take now may go then */
    if (append(s, event) < 0)
        overflow(s);
    return 0;
}

void resume_write(struct resume_stream *s, struct cm_str bytes)
{
    struct cm_err err;

    if (!s->overflown && cm_sse_feed(&s->split, bytes, on_block, s, &err) < 0)
        overflow(s);
}

void resume_flush(struct resume_stream *s)
{
    s->said_ms = cm_loop_now_ms(loop_of(s));
    feed_all(s);
    mind_the_bound(s);
}

/* The place that is left for it is small, and is there even when there is no other. */
static void put_overflow(struct resume_stream *s)
{
    struct cm_err err;
    struct cm_buf out = {0};

    cm_fail(&err, CM_ERR_TOO_LARGE,
            "the answer was given up: there was no room for what its client has not read (%lld "
            "bytes: resume.max_bytes, resume.max_total)",
            (long long)s->log.bytes);
    s->dialect->stream_error(s->ex->stream, &err, &out);
    s->overflown = false;
    s->extra = LAST_WORDS;
    cm_sse_feed(&s->split, cm_buf_str(&out), on_block, s, &err);
    cm_sse_clear(&s->split);
    s->overflown = true;
    cm_buf_clear(&out);
}

static void on_full(void *stream)
{
    struct resume_stream *s = stream;
    struct exchange *ex = s->ex;
    struct cm_err err;

    if (!ex)
        return;
    cm_fail(&err, CM_ERR_TOO_LARGE, "the kept stream had no room");
    exchange_drop_attempt(ex);
    resume_end(ex, false);
    exchange_end(ex, OUTCOME_CUT, &err);
}

void resume_end(struct exchange *ex, bool clean)
{
    struct resume_stream *s = ex->kept;
    struct cm_err err;

    if (!s->overflown && cm_sse_end(&s->split, on_block, s, &err) < 0)
        overflow(s);
    cm_task_cancel(&s->full);
    cm_sse_clear(&s->split);
    if (s->overflown && s->kind == RESUME_STREAM)
        put_overflow(s);
    s->clean = clean && !s->overflown;
    s->ex = NULL;
    ex->kept = NULL;
    eventlog_end(&s->log);
    cm_list_remove(&s->link);
    cm_list_push(&s->r->ended, &s->link);
    s->r->n_live--;
    feed_all(s);
    arm(s);
    gateway_stream_over(s->r->gw);
}

void resume_drop(struct exchange *ex)
{
    struct resume_stream *s = ex->kept;

    CM_ASSERT(!s->begun);
    s->ex = NULL;
    ex->kept = NULL;
    s->r->n_live--;
    forget(s);
}

/* ---- clients that come back ---- */

struct resume_stream *resume_find(struct resume *r, struct cm_str id, const struct cm_key *key)
{
    struct resume_stream *s = cm_map_get(&r->by_id, id);

    return s && s->begun && s->owner->key == key ? s : NULL;
}

int resume_check(const struct resume_stream *s, uint64_t from, struct cm_err *err)
{
    if (from > s->log.next) {
        cm_fail(err, CM_ERR_BAD_REQUEST, "the stream has only %llu events so far",
                (unsigned long long)s->log.next);
        cm_str_copy(err->code, sizeof(err->code), CM_S("no_such_event"));
        return -1;
    }
    if (from >= s->log.first && !(s->overflown && s->kind == RESUME_JOB))
        return 0;
    return resume_expired(err, s->kind == RESUME_JOB ? "GET the response without 'stream'"
                                                     : "the answer has to be asked for again");
}

int resume_expired(struct cm_err *err, const char *instead)
{
    cm_fail(err, CM_ERR_NOT_FOUND, "these events are not kept any more: %s", instead);
    cm_str_copy(err->code, sizeof(err->code), CM_S("events_expired"));
    err->http_status = 410;
    return -1;
}

int resume_after(const struct resume_stream *s, struct cm_str last, uint64_t *from,
                 struct cm_err *err)
{
    struct cm_str number = last;
    const size_t n = s->id.n;

    if (cm_str_starts(last, s->id) && last.n > n && last.p[n] == ':')
        number = cm_str_from(last, n + 1);
    if (!cm_str_to_u64(number, UINT64_MAX - 1, from))
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "Last-Event-ID",
                             "must be the id of an event of this stream");
    ++*from;
    return 0;
}

void resume_cancel(struct resume_stream *s)
{
    struct cm_err err;

    if (s->ex) {
        cm_fail(&err, CM_ERR_TIMEOUT_CLIENT, "the stream was cancelled by its client");
        stop(s, OUTCOME_CLIENT_GONE, &err);
    }
    forget(s);
}

/* ---- the gateway's side ---- */

void resume_drain(struct resume *r)
{
    CM_LIST_EACH(&r->live, it)
    {
        arm(stream_at(it));
    }
}

void resume_figures(const struct resume *r, struct resume_figures *out)
{
    *out = (struct resume_figures){.running = r->n_live,
                                   .ended = r->n - r->n_live,
                                   .bytes = r->shelf.bytes,
                                   .followers = r->followers,
                                   .evicted = r->shelf.evicted};
}

struct resume *resume_new(struct cm_gateway *gw)
{
    struct resume *r = CM_NEW(struct resume);

    r->gw = gw;
    cm_list_init(&r->live);
    cm_list_init(&r->ended);
    eventlog_shelf_init(&r->shelf);
    return r;
}

void resume_free(struct resume *r)
{
    if (!r)
        return;
    CM_ASSERT(cm_list_empty(&r->live));
    while (!cm_list_empty(&r->ended))
        forget(stream_at(r->ended.next));
    cm_map_clear(&r->by_id);
    cm_map_clear(&r->by_key);
    cm_buf_clear(&r->event);
    free(r);
}
