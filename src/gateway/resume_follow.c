/* Clients that follow a kept stream: each reads its log at its own pace. */
#include "chatmux/base/mem.h"
#include "resume_int.h"
#include <stdlib.h>

static void follower_free(struct follower *f)
{
    f->s->r->followers--;
    eventlog_detach(&f->reader);
    cm_list_remove(&f->link);
    free(f);
}

void resume_hang_up(struct follower *f, bool clean)
{
    struct cm_req *req = f->req;

    follower_free(f);
    if (clean)
        cm_resp_end(req);
    else
        cm_resp_abort(req);
}

/* Gives it what it can take; it may be over then. */
static void feed(struct follower *f)
{
    struct resume_stream *s = f->s;
    size_t queued = cm_resp_queued(f->req);
    struct cm_str event;

    while (queued <= CM_HTTPD_HIGH && eventlog_take(&f->reader, &event))
        queued = cm_resp_write(f->req, event);
    if (f->reader.lost)
        resume_hang_up(f, false);
    else if (!s->ex && f->reader.next == s->log.next)
        resume_hang_up(f, s->clean);
    else
        cm_resp_flush(f->req);
}

void resume_feed(struct resume_stream *s)
{
    CM_LIST_EACH(&s->followers, it)
    {
        feed(resume_follower_at(it));
    }
}

/* Clients that have left without a word look like slow ones: they must not stop one that reads. */
static void leave_behind(struct resume_stream *s)
{
    const uint64_t far = (s->log.next - s->log.first) / 2;
    uint64_t front = 0;

    CM_LIST_EACH(&s->followers, it)
    {
        const uint64_t next = resume_follower_at(it)->reader.next;

        front = next > front ? next : front;
    }
    CM_LIST_EACH(&s->followers, it)
    {
        struct follower *f = resume_follower_at(it);

        if (front - f->reader.next > far)
            resume_hang_up(f, false);
    }
}

void resume_mind_bound(struct resume_stream *s)
{
    const size_t max = (size_t)resume_config(s->r)->resume.max_bytes;
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
        resume_arm(s);
    resume_mind_bound(s);
}

static void on_follower_drained(void *arg, struct cm_req *req)
{
    struct follower *f = arg;
    struct resume_stream *s = f->s;

    (void)req;
    feed(f);
    resume_mind_bound(s);
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
    resume_arm(s);
    feed(f);
}
