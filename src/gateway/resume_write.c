/* What an exchange says becomes numbered events of its kept stream. */
#include "chatmux/base/mem.h"
#include "resume_int.h"

#define LAST_WORDS (32u * 1024) /* bytes above the bounds, for the event that says why it ends */

void resume_begin(struct exchange *ex)
{
    struct resume_stream *s = ex->kept;

    s->begun = true;
    s->said_ms = cm_loop_now_ms(resume_loop(s));
    if (ex->req)
        resume_follow(s, ex, 0);
    else
        resume_arm(s);
}

static int append(struct resume_stream *s, struct cm_str event)
{
    const struct cm_config *c = resume_config(s->r);

    s->r->shelf.max_bytes = (size_t)c->resume.max_total_bytes + s->extra;
    return eventlog_append(&s->log, event, (size_t)c->resume.max_bytes + s->extra);
}

/* Nothing more of it can be kept. A job goes on all the same; a stream ends. */
static void overflow(struct resume_stream *s)
{
    s->overflown = true;
    if (s->kind == RESUME_STREAM)
        cm_task_post(resume_loop(s), &s->full);
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
    resume_feed(s); /* what they can take now may go then */
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
    s->said_ms = cm_loop_now_ms(resume_loop(s));
    resume_feed(s);
    resume_mind_bound(s);
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

void resume_on_full(void *stream)
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
    s->said_ms = cm_loop_now_ms(resume_loop(s));
    s->ex = NULL;
    ex->kept = NULL;
    eventlog_end(&s->log);
    cm_list_remove(&s->link);
    cm_list_push(&s->r->ended, &s->link);
    s->r->n_live--;
    resume_feed(s);
    resume_arm(s);
    gateway_stream_over(s->r->gw);
}
