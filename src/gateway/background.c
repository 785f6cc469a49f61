/* Jobs in the background: responses whose client does not wait for them.
 *
 * A job is an exchange without a client, whose events go into a kept stream (resume.h) under the response's own id. Whatever the upstream is, it is asked
 * for a stream; one that speaks the dialect does not hear of the background, and its events get our id.
 *
 * Happy path: background_begin() -> the job is on the disk as queued -> its client is answered, and follows if it wants a stream -> first attempt -> … ->
 * background_keep() puts the result in its place. What the disk says is queued, and no job of this process is at it, was interrupted: it is told as failed.
 * The client may leave before it was answered: then there is no job, and nothing of it stays. */
#include "gateway_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include <stdlib.h>

struct background {
    struct cm_gateway *gw;
    struct exchange *ex;   /* NULL once it has ended */
    struct cm_arena arena; /* what the store tells */
    struct cm_buf object;  /* relay lane: the response as its last event told it */
    bool storing;  /* the store is asked; its answer frees this when the exchange has ended */
    bool streamed; /* its client wants to follow */
    bool accepted; /* its client has been answered */
};

static struct cm_store *store_of(const struct exchange *ex)
{
    return ex->gw->store && cm_store_keeps_responses(ex->gw->store) ? ex->gw->store : NULL;
}

static void background_free(struct background *b)
{
    cm_arena_clear(&b->arena);
    cm_buf_clear(&b->object);
    free(b);
}

void background_end(struct exchange *ex)
{
    struct background *b = ex->background;

    ex->background = NULL;
    b->ex = NULL;
    if (!b->accepted)
        cm_store_drop_response(ex->gw->store, ex->meta.id, exchange_scope(ex), NULL, NULL);
    if (!b->storing)
        background_free(b);
}

/* As it stands: nothing has been said, or nothing that can be told yet. */
static void put_progress(const struct exchange *ex, struct cm_buf *out)
{
    cm_responses_put_progress(out, &ex->meta, ex->attempt ? "in_progress" : "queued");
}

/* ---- the beginning ---- */

/* The client has its answer, or the head of it; from here on it is a job. */
static void accept_job(struct exchange *ex)
{
    struct background *b = ex->background;
    struct cm_req *req = ex->req;
    struct cm_buf out = {0};
    struct respond r;

    b->accepted = true;
    ex->head_sent = true; /* whatever comes is told in its events */
    ex->status = 200;
    report_streams(ex->gw, +1);
    respond_begin(&r, ex);
    if (b->streamed) {
        streams_head(&r);
        cm_resp_start(req, ex->status, r.v, r.n);
    } else {
        put_progress(ex, &out);
        respond_add(&r, CM_S("content-type"), CM_S("application/json"));
        exchange_note_bytes(ex);
        ex->req = NULL;
        cm_resp_send(req, ex->status, r.v, r.n, cm_buf_str(&out));
        cm_buf_clear(&out);
    }
    resume_begin(ex);
    exchange_next(ex);
}

static void on_kept(void *arg, const struct cm_response_row *rows, size_t n,
                    const struct cm_err *why)
{
    struct background *b = arg;
    struct cm_gateway *gw = b->gw;
    struct exchange *ex = b->ex;
    struct cm_err err = {0};

    (void)rows;
    b->storing = false;
    cm_arena_clear(&b->arena);
    if (!ex) {
        background_free(b);
    } else if (!why && n == 1) {
        accept_job(ex);
    } else {
        cm_fail(&err, CM_ERR_OVERLOADED, "the response could not be stored: please try again");
        exchange_fail(ex, why ? why : &err);
    }
    gateway_attempt_over(gw);
}

/* What an upstream of the same dialect is sent: it answers at once, as a stream. */
static int without_background(struct cm_chat *chat, struct cm_err *err)
{
    static const struct cm_json_edit edits[] = {{CM_S_INIT("background"), CM_S_INIT("")},
                                                {CM_S_INIT("stream"), CM_S_INIT("true")}};
    struct cm_buf out = {0};

    if (cm_json_splice(chat->raw, edits, CM_COUNT(edits), &out, err) < 0)
        return -1;
    chat->raw = cm_buf_settle(&out, chat->arena);
    return 0;
}

/* Nobody can answer it: said now, not in the result. */
static bool is_for_nobody(const struct exchange *ex)
{
    for (size_t i = 0; i < ex->n_targets; i++)
        if (cm_instance_relays(&ex->snap->instances[ex->targets[i].provider], ex->chat))
            return false;
    return ex->chat->untranslatable.cls != CM_ERR_NONE;
}

int background_begin(struct exchange *ex, struct cm_err *err)
{
    struct cm_chat *chat = ex->chat;
    struct background *b;

    if (is_for_nobody(ex)) {
        *err = chat->untranslatable;
        return -1;
    }

    if (!chat->response->store)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "background",
                             "a response in the background must be stored: %s",
                             store_of(ex) ? "'store' is false"
                                          : "this gateway keeps none (store.responses_ttl = 0)");
    if (without_background(chat, err) < 0 || resume_reserve(ex, RESUME_JOB, ex->meta.id, err) < 0)
        return -1;
    b = CM_NEW(struct background);
    b->gw = ex->gw;
    b->ex = ex;
    b->streamed = chat->stream;
    chat->stream = true;
    ex->background = b;
    put_progress(ex, &b->object);
    responses_keep(ex, cm_buf_str(&b->object));
    cm_buf_clear(&b->object);
    b->storing = true;
    ex->gw->attempts_out++; /* the gateway stays until it is back */
    /* it is read again to know that it can be */
    cm_store_responses(store_of(ex), ex->meta.id, exchange_scope(ex), false, SIZE_MAX, &b->arena,
                       on_kept, b);
    return 0;
}

/* ---- its events ---- */

static bool is_end(struct cm_str type)
{
    return cm_str_eq(type, CM_S("\"response.completed\"")) ||
           cm_str_eq(type, CM_S("\"response.incomplete\"")) ||
           cm_str_eq(type, CM_S("\"response.failed\""));
}

/* The response object of an upstream as ours. */
static int put_object(const struct exchange *ex, struct cm_str response, struct cm_buf *out)
{
    struct cm_json_edit ours[] = {
        {.key = CM_S("id")}, {CM_S("background"), CM_S("true")}, {CM_S("store"), CM_S("true")}};
    struct cm_buf id = {0};
    int rc;

    cm_json_put_str(&id, ex->meta.id);
    ours[0].value = cm_buf_str(&id);
    rc = cm_json_splice(response, ours, CM_COUNT(ours), out, NULL);
    cm_buf_clear(&id);
    return rc;
}

bool background_event(struct exchange *ex, struct cm_str data, uint64_t number, struct cm_buf *out)
{
    struct cm_json_edit edits[] = {{.key = CM_S("sequence_number")}, {.key = CM_S("response")}};
    const struct cm_str response = cm_json_member(data, CM_S("response"));
    struct cm_buf digits = {0}, object = {0};
    bool whole = response.n > 0 && put_object(ex, response, &object) == 0, edited;

    cm_buf_put_u64(&digits, number);
    edits[0].value = cm_buf_str(&digits);
    edits[1].value = cm_buf_str(&object);
    edited = cm_json_splice(data, edits, whole ? 2 : 1, out, NULL) == 0;
    if (edited && whole && is_end(cm_json_member(data, CM_S("type")))) {
        cm_buf_reset(&ex->background->object);
        cm_buf_append(&ex->background->object, cm_buf_str(&object));
    }
    cm_buf_clear(&digits);
    cm_buf_clear(&object);
    return edited;
}

bool background_keep(struct exchange *ex)
{
    struct cm_str object = cm_buf_str(&ex->background->object);

    if (object.n == 0 && ex->stream)
        object = ex->surface->stream_object(ex->stream);
    if (object.n == 0)
        return false;
    responses_keep(ex, object);
    return true;
}

/* ---- one of them ---- */

static struct resume_stream *find_job(struct exchange *ex, struct cm_str id)
{
    struct resume_stream *s = resume_find(ex->gw->resume, id, ex->client_key);

    return s && resume_is_job(s) ? s : NULL;
}

bool background_get(struct exchange *ex, struct cm_str id)
{
    struct resume_stream *s = find_job(ex, id);
    const bool stream = cm_str_eq(streams_query(ex, CM_S("stream")), CM_S("true"));
    struct cm_err err = {0};
    struct cm_buf out = {0};
    uint64_t from;

    if (!s || (!stream && !resume_exchange(s)))
        return false;
    if (!stream) {
        put_progress(resume_exchange(s), &out);
        exchange_answer(ex, 200, CM_S("application/json"), cm_buf_str(&out));
        cm_buf_clear(&out);
    } else if (streams_from(ex, s, &from, &err) < 0) {
        exchange_fail(ex, &err);
    } else {
        streams_follow(ex, s, from);
    }
    return true;
}

void background_stop(struct exchange *ex, struct cm_str id, bool forget)
{
    struct resume_stream *s = find_job(ex, id);
    struct exchange *job = s ? resume_exchange(s) : NULL;

    if (job) {
        exchange_drop_attempt(job);
        exchange_tell(job, NULL);
        resume_end(job, background_keep(job));
        exchange_end(job, OUTCOME_CLIENT_GONE, NULL);
    }
    if (s && forget)
        resume_cancel(s);
}
