/* hix: what is done for an account after an answer, or in place of it: chats that are to go (DELETE), what is left (TALLY, CREDIT), whether the account is
 * logged in at all (SESSION). HIX protocol notes, sections 3.6, 3.7 and 7. */
#include "hix_int.h"

#define LEFT_AT_ONCE 3 /* chats of earlier ones that are deleted after an answer */
#define CREDIT_READ CM_S("credit read")

static void put_id(struct cm_buf *body, struct cm_str id)
{
    cm_buf_append(body, CM_S("{\"0\":{\"json\":{\"id\":"));
    cm_json_put_str(body, id);
    cm_buf_append(body, CM_S("}}}"));
}

enum cm_step hix_delete_chat(struct cm_run *run, struct cm_str chat)
{
    struct cm_buf body = {0};

    put_id(&body, chat);
    return hix_fetch(run, hix_option(run, "delete_path"), CM_S("/"),
                     cm_buf_settle(&body, cm_run_arena(run)));
}

static enum cm_step delete_one(struct cm_run *run, struct hix *h, struct cm_str chat)
{
    cm_run_hang_up(run); /* [DONE] was seen: the stream's own end is not waited for */
    h->state = HIX_DELETE;
    h->deleting = chat;
    cm_run_left_put(run, chat, CM_LEFT_ALONE_MS);
    return hix_delete_chat(run, chat);
}

/* This run's chat is to go. */
static bool must_delete(struct cm_run *run, struct hix *h)
{
    if (!h->created || h->chat_id.n == 0 || !hix_option_bool(run, "delete_chat"))
        return false;
    h->created = false;
    return true;
}

bool hix_is_deleted(const struct cm_ev *ev)
{
    yyjson_doc *doc =
        ev->kind == CM_EV_REPLY ? cm_json_parse(ev->data, &cm_json_limits_event, NULL) : NULL;
    yyjson_val *first = yyjson_arr_get_first(yyjson_doc_get_root(doc)), *error;
    bool gone;

    error = cm_json_get(cm_json_get(first, "error"), "json");
    gone = yyjson_get_sint(cm_json_get(error, "code")) == -32004; /* somebody was faster */
    gone |= !cm_json_get(first, "error") && ev->kind == CM_EV_REPLY && ev->status >= 200 &&
            ev->status < 300;
    yyjson_doc_free(doc);
    return gone;
}

/* Every so often, and only after an answer: the account was in use. */
static bool credit_is_due(struct cm_run *run)
{
    const int64_t every_ms = cm_option_int(cm_run_instance(run), "credit_every");
    struct cm_str read;

    if (every_ms > 0 && cm_run_recall(run, CREDIT_READ, &read))
        return false;
    if (every_ms > 0) /* also when it does not get through: not with every answer */
        cm_run_remember(run, CREDIT_READ, CM_S("1"), every_ms);
    return true;
}

/* The answer is with its client, or has failed: what is left to do for the account. */
enum cm_step hix_wind_up(struct cm_run *run, struct hix *h, struct cm_err *err)
{
    if (must_delete(run, h)) {
        if (h->why.cls == CM_ERR_NONE && !h->left)
            cm_run_answered(run);
        return delete_one(run, h, h->chat_id);
    }
    if (h->why.cls != CM_ERR_NONE && !h->left) {
        *err = h->why;
        return CM_STEP_FAIL;
    }
    if (h->left || !credit_is_due(run))
        return CM_STEP_DONE;
    cm_run_answered(run);
    cm_run_hang_up(run);
    h->state = HIX_TALLY;
    return hix_ask_credit(run);
}

/* Then some of those that earlier ones left behind. */
enum cm_step hix_deleted(struct cm_run *run, struct hix *h, const struct cm_ev *ev,
                         struct cm_err *err)
{
    const bool gone = hix_is_deleted(ev);
    struct cm_str next = CM_STR_NONE;

    if (gone) {
        cm_run_left_gone(run, h->deleting);
        next = cm_run_left_next(run);
    } else {
        cm_run_odd(run, "a chat is not deleted", ev->data);
        cm_run_left_failed(run, h->deleting);
    }
    h->deleting = CM_STR_NONE;
    if (next.n > 0 && ++h->n_deleted <= LEFT_AT_ONCE)
        return delete_one(run, h, next);
    return hix_wind_up(run, h, err);
}

enum cm_step hix_fail(struct cm_run *run, struct hix *h, const struct cm_err *why,
                      struct cm_err *err)
{
    if (why != &h->why)
        h->why = *why;
    if (h->why.cls == CM_ERR_QUOTA_EXHAUSTED && !h->credit_asked) {
        cm_run_hang_up(run);
        h->credit_asked = true;
        h->state = HIX_CREDIT;
        return hix_ask_credit(run);
    }
    return hix_wind_up(run, h, err);
}

/* What is left says what the refusal was about, and until when. */
enum cm_step hix_credit_answered(struct cm_run *run, struct hix *h, const struct cm_ev *ev,
                                 struct cm_err *err)
{
    const struct cm_model_row *row = cm_run_target(run)->row;
    struct hix_credit credit;

    if (h->why.retry_after_s == 0)
        h->why.retry_after_s = HIX_NO_CREDIT_S;
    if (ev->kind == CM_EV_REPLY && hix_told_credit(run, ev, &credit) == 0) {
        const int64_t s = (credit.renews_ms - cm_run_unix_ms(run)) / 1000;

        if (credit.renews_ms)
            h->why.retry_after_s = s < INT32_MAX ? (int)s + 1 : INT32_MAX;
        if (h->credit_doubted && row && row->cost > 0 && credit.left[row->purse] >= row->cost)
            cm_fail(&h->why, CM_ERR_MODEL_UNAVAILABLE,
                    "hix does not give this bot to this account, though it has the credit");
    }
    return hix_wind_up(run, h, err);
}

enum cm_step hix_session_answered(struct cm_run *run, struct hix *h, const struct cm_ev *ev,
                                  struct cm_err *err)
{
    struct cm_err nothing = {0};

    if (ev->kind == CM_EV_REPLY && hix_told_session(run, ev, false, &nothing) == 0)
        cm_fail(&h->why, CM_ERR_INVALID_CREDENTIAL,
                "hix refuses this account and does not know its cookie: sign in and paste it anew");
    return hix_wind_up(run, h, err);
}

struct cm_str hix_read_chat_id(struct cm_run *run, const struct cm_ev *ev)
{
    yyjson_doc *doc = ev->status == 200 || ev->status == 207
                          ? cm_json_parse(ev->data, &cm_json_limits_event, NULL)
                          : NULL;
    yyjson_val *v = yyjson_arr_get_first(yyjson_doc_get_root(doc));
    struct cm_str id;

    v = cm_json_get(cm_json_get(cm_json_get(cm_json_get(v, "result"), "data"), "json"), "id");
    id = cm_arena_str(cm_run_arena(run), cm_json_str(v));
    yyjson_doc_free(doc);
    return id;
}

/* The client has left. */
enum cm_step hix_leave(struct cm_run *run, struct hix *h, const struct cm_ev *ev)
{
    h->left = true;
    if (h->state == HIX_CREATE && ev->status) {
        h->chat_id = hix_read_chat_id(run, ev);
        h->created = h->chat_id.n > 0;
    }
    if (h->state == HIX_DELETE && h->deleting.n > 0) /* it was on its way */
        return delete_one(run, h, h->deleting);
    return must_delete(run, h) ? delete_one(run, h, h->chat_id) : CM_STEP_DONE;
}
