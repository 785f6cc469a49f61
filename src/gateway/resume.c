/* Kept streams: the table of them, their clocks, and who may have them. */
#include "resume_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include <stdlib.h>

/* Streams of one client key. */
struct owner {
    struct cm_key *key; /* held; NULL = none was needed */
    size_t n;
};

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

/* Its memory; followers that are still there end as if cut. */
static void forget(struct resume_stream *s)
{
    struct resume *r = s->r;

    CM_ASSERT(!s->ex);
    CM_LIST_EACH(&s->followers, it)
    {
        resume_hang_up(resume_follower_at(it), false);
    }
    cm_deadline_clear(resume_loop(s), &s->due);
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
        struct resume_stream *s = resume_stream_at(it);

        if ((of && s->owner != of) || !cm_list_empty(&s->followers))
            continue;
        forget(s);
        return true;
    }
    return false;
}

static int make_room(struct resume *r, const struct owner *o, struct cm_err *err)
{
    const struct cm_config *c = resume_config(r);

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

int resume_reserve(struct exchange *ex, enum resume_kind kind, struct cm_str id, struct cm_err *err)
{
    struct resume *r = ex->gw->resume;
    struct owner *o = owner_of(r, ex->client_key);
    struct resume_stream *s;

    CM_ASSERT(!ex->kept);
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
    cm_sse_init(&s->split, (size_t)resume_config(r)->resume.max_bytes);
    eventlog_init(&s->log, &r->shelf, kind == RESUME_JOB);
    cm_deadline_init(&s->due, on_due, s);
    cm_task_init(&s->full, resume_on_full, s);
    cm_map_put(&r->by_id, s->id, s);
    r->n++;
    r->n_live++;
    ex->kept = s;
    return 0;
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

void resume_arm(struct resume_stream *s)
{
    const struct cm_config *c = resume_config(s->r);
    const bool followed = !cm_list_empty(&s->followers);
    uint64_t at_ms = cm_loop_now_ms(resume_loop(s));

    if (!s->ex) {
        at_ms = s->said_ms + (uint64_t)c->resume.keep_ms; /* whoever reads it meanwhile */
    } else if (followed && c->stream.keepalive_ms > 0) {
        at_ms = s->said_ms + (uint64_t)c->stream.keepalive_ms;
    } else if (!followed && s->begun && s->kind == RESUME_STREAM) {
        at_ms += s->r->gw->draining ? 0 : (uint64_t)c->resume.away_ms;
    } else {
        cm_deadline_clear(resume_loop(s), &s->due);
        return;
    }
    cm_deadline_set(resume_loop(s), &s->due, at_ms);
}

static void keep_alive(struct resume_stream *s)
{
    const uint64_t pause_ms = (uint64_t)resume_config(s->r)->stream.keepalive_ms,
                   now_ms = cm_loop_now_ms(resume_loop(s));

    if (now_ms - s->said_ms >= pause_ms) {
        CM_LIST_EACH(&s->followers, it)
        {
            struct cm_req *req = resume_follower_at(it)->req;

            if (cm_resp_queued(req) > 0)
                continue; /* it does not read: it needs no more to read */
            cm_resp_write(req, s->dialect->keepalive);
            cm_resp_flush(req);
        }
        s->said_ms = now_ms;
    }
    resume_arm(s);
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
                (long long)resume_config(s->r)->resume.away_ms / 1000);
    stop(s, OUTCOME_CLIENT_GONE, &err);
}

/* It has been kept long enough, but for clients that are still reading. */
static void stop_keeping(struct resume_stream *s)
{
    CM_LIST_EACH(&s->followers, it)
    {
        struct follower *f = resume_follower_at(it);

        if (f->seen == f->reader.next)
            resume_hang_up(f, false);
        else
            f->seen = f->reader.next;
    }
    if (cm_list_empty(&s->followers)) {
        forget(s);
        return;
    }
    s->said_ms = cm_loop_now_ms(resume_loop(s));
    resume_arm(s);
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
        resume_arm(resume_stream_at(it));
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
        forget(resume_stream_at(r->ended.next));
    cm_map_clear(&r->by_id);
    cm_map_clear(&r->by_key);
    cm_buf_clear(&r->event);
    free(r);
}
