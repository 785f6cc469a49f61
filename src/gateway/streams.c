/* Routes of kept streams, and the headers of other routes that lead to them. */
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "gateway_int.h"

/* The log is made of server-sent events. A job in the background has one already. */
static bool can_be_kept(const struct exchange *ex)
{
    if (ex->chat->response && ex->chat->response->background)
        return false;
    return ex->chat->stream && ex->surface->stream_type.n == 0 &&
           (ex->chat->task == CM_TASK_CHAT || ex->chat->task == CM_TASK_COMPLETION);
}

static int wanted(const struct exchange *ex, bool *out, struct cm_err *err)
{
    const struct cm_str value = cm_req_header(ex->req, CM_S("x-chatmux-resumable"));

    *out = false;
    if (value.n == 0 || !can_be_kept(ex))
        return 0;
    if (cm_conf_bool(value, out, NULL) < 0)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "x-chatmux-resumable", "must be 1 or 0");
    return 0;
}

int streams_keep(struct exchange *ex, struct cm_err *err)
{
    bool keep;

    if (wanted(ex, &keep, err) < 0)
        return -1;
    return keep ? resume_reserve(ex, RESUME_STREAM, CM_STR_NONE, err) : 0;
}

void streams_head(struct respond *r)
{
    respond_add(r, CM_S("content-type"), CM_S("text/event-stream; charset=utf-8"));
    respond_add(r, CM_S("cache-control"), CM_S("no-cache"));
    respond_add(r, CM_S("x-accel-buffering"), CM_S("no"));
}

void streams_follow(struct exchange *ex, struct resume_stream *s, uint64_t from)
{
    struct respond r;

    respond_begin(&r, ex);
    if (!resume_is_job(s))
        respond_add(&r, CM_S("x-chatmux-stream"), cm_arena_str(&ex->arena, resume_id(s)));
    streams_head(&r);
    ex->status = 200;
    cm_resp_start(ex->req, ex->status, r.v, r.n);
    if (ex->req->head) {
        struct cm_req *req = ex->req;

        exchange_note_bytes(ex);
        ex->req = NULL;
        cm_resp_end(req);
    } else {
        resume_follow(s, ex, from);
    }
    exchange_end(ex, OUTCOME_OK, NULL);
}

static int no_such_stream(struct cm_err *err)
{
    cm_fail(err, CM_ERR_NOT_FOUND,
            "there is no such stream: it has never been, or is not kept any more");
    cm_str_copy(err->code, sizeof(err->code), CM_S("stream_not_found"));
    return -1;
}

static struct resume_stream *find(struct exchange *ex, struct cm_str id, struct cm_err *err)
{
    struct resume_stream *s = resume_find(ex->gw->resume, id, ex->client_key);

    if (s && !resume_is_job(s))
        return s;
    no_such_stream(err);
    return NULL;
}

bool streams_again(struct exchange *ex)
{
    struct cm_str last = cm_req_header(ex->req, CM_S("last-event-id")), number = last, id;
    struct resume_stream *s;
    struct cm_err err = {0};
    uint64_t from;
    bool keep;

    if (last.n == 0 || wanted(ex, &keep, &err) < 0 || !keep)
        return false;
    id = cm_str_cut(&number, ':');
    s = find(ex, id, &err);
    if (!s || resume_after(s, last, &from, &err) < 0 || resume_check(s, from, &err) < 0)
        exchange_fail(ex, &err);
    else
        streams_follow(ex, s, from);
    return true;
}

struct cm_str streams_query(struct exchange *ex, struct cm_str wanted_name)
{
    struct cm_str rest = ex->req->query;

    while (rest.n > 0) {
        struct cm_str value = cm_str_cut(&rest, '&'), name = cm_str_cut(&value, '=');

        if (cm_str_eq(name, wanted_name))
            return route_decoded(&ex->arena, value, true);
    }
    return CM_STR_NONE;
}

int streams_from(struct exchange *ex, const struct resume_stream *s, uint64_t *from,
                 struct cm_err *err)
{
    struct cm_str last = cm_req_header(ex->req, CM_S("last-event-id"));

    *from = 0;
    if (last.n == 0)
        last = streams_query(ex, CM_S("starting_after"));
    if (last.n > 0 && resume_after(s, last, from, err) < 0)
        return -1;
    return resume_check(s, *from, err);
}

void serve_stream(struct exchange *ex, struct cm_str id)
{
    struct cm_err err = {0};
    struct resume_stream *s = find(ex, id, &err);
    uint64_t from;

    if (!s || streams_from(ex, s, &from, &err) < 0)
        exchange_fail(ex, &err);
    else
        streams_follow(ex, s, from);
}

void serve_stream_cancel(struct exchange *ex, struct cm_str id)
{
    struct cm_err err = {0};
    struct cm_buf out = {0};
    struct resume_stream *s = find(ex, id, &err);

    if (!s) {
        exchange_fail(ex, &err);
        return;
    }
    cm_buf_append(&out, CM_S("{\"id\":"));
    cm_json_put_str(&out, resume_id(s));
    cm_buf_append(&out, CM_S(",\"object\":\"chatmux.stream\",\"deleted\":true}"));
    resume_cancel(s);
    exchange_answer(ex, 200, CM_S("application/json"), cm_buf_str(&out));
    cm_buf_clear(&out);
}
