/* What nobody waits for: deleting conversations, a proof of work for the account's next question, stopping an answer that nobody reads. */
#include "deepseek_int.h"

#define LEFT_AT_ONCE 3 /* conversations of earlier ones that are deleted after an answer */

static enum cm_step delete_session(struct cm_run *run, struct deepseek *d,
                                   enum deepseek_state state, struct cm_str session)
{
    const struct deepseek_ask ask = {.path_option = "delete_path",
                                     .body = deepseek_session_body(run, session, 0),
                                     .timeout_ms = DEEPSEEK_TIDY_MS};

    cm_run_hang_up(run);
    d->state = state;
    d->deleting = session;
    cm_run_left_put(run, session, CM_LEFT_ALONE_MS);
    return deepseek_fetch(run, &d->account, &ask);
}

/* A conversation that nobody wants to find in the account. */
static bool is_waste(const struct deepseek *d)
{
    return d->own && d->session.n > 0 && (d->conversations == DEEPSEEK_DELETE || !d->talked);
}

static bool can_call(enum cm_err_class cls)
{
    return cls != CM_ERR_EXPIRED && cls != CM_ERR_INVALID_CREDENTIAL &&
           cls != CM_ERR_VERIFICATION_REQUIRED;
}

enum cm_step deepseek_fail(struct cm_run *run, struct deepseek *d, struct cm_err *err)
{
    if (!is_waste(d))
        return CM_STEP_FAIL;
    if (!can_call(err->cls)) {
        cm_run_left_put(run, d->session, 0); /* until the account may call again */
        return CM_STEP_FAIL;
    }
    d->failure = *err;
    return delete_session(run, d, DEEPSEEK_DO_UNDO, d->session);
}

/* Whether the platform has it no more. */
static bool was_deleted(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev)
{
    struct deepseek_reply reply;
    bool gone = false;

    if (ev->kind == CM_EV_REPLY) {
        deepseek_reply_of(run, ev, &reply);
        gone = reply.cls == CM_ERR_NONE || reply.bad_session;
        yyjson_doc_free(reply.doc);
    }
    if (gone)
        cm_run_left_gone(run, d->deleting);
    else
        cm_run_left_failed(run, d->deleting);
    return gone;
}

enum cm_step deepseek_undone(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev,
                             struct cm_err *err)
{
    was_deleted(run, d, ev);
    *err = d->failure;
    return CM_STEP_FAIL;
}

static bool wants_proof(struct cm_run *run)
{
    struct cm_str proof;

    return cm_option_bool(cm_run_instance(run), "prefetch") &&
           !cm_run_recall(run, DEEPSEEK_PROOF_KEY, &proof);
}

/* ---- After the answer ---- */

bool deepseek_wants_more(struct cm_run *run, const struct deepseek *d)
{
    return d->conversations == DEEPSEEK_DELETE || cm_run_left_next(run).n > 0 || wants_proof(run);
}

static enum cm_step ahead(struct cm_run *run, struct deepseek *d)
{
    return wants_proof(run) ? deepseek_flow_challenge(run, d, DEEPSEEK_DO_AHEAD) : CM_STEP_DONE;
}

/* What earlier ones left. */
static enum cm_step delete_left(struct cm_run *run, struct deepseek *d)
{
    const struct cm_str next = cm_run_left_next(run);

    if (next.n > 0 && ++d->deleted <= LEFT_AT_ONCE)
        return delete_session(run, d, DEEPSEEK_DO_DELETE, next);
    return ahead(run, d);
}

/* The stream has ended: what is left is nothing that the platform counts as a question. */
enum cm_step deepseek_after(struct cm_run *run, struct deepseek *d)
{
    cm_run_spare(run);
    if (d->conversations == DEEPSEEK_DELETE)
        return delete_session(run, d, DEEPSEEK_DO_DELETE, d->session);
    return delete_left(run, d);
}

static enum cm_step deleted(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev)
{
    const bool gone = was_deleted(run, d, ev);

    if (d->leaving)
        return CM_STEP_DONE;
    return gone ? delete_left(run, d) : ahead(run, d);
}

static enum cm_step challenged_ahead(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev)
{
    struct deepseek_reply reply;
    struct cm_err err;
    int failed;

    if (ev->kind != CM_EV_REPLY)
        return CM_STEP_DONE;
    deepseek_reply_of(run, ev, &reply);
    failed = reply.cls != CM_ERR_NONE || deepseek_challenged(run, &d->prover, &reply, &err);
    yyjson_doc_free(reply.doc);
    return failed ? CM_STEP_DONE : deepseek_flow_prove(run, d, DEEPSEEK_DO_AHEAD_PROVE);
}

static enum cm_step proved_ahead(struct cm_run *run, struct deepseek *d)
{
    const struct cm_str proof = deepseek_proved(run, &d->prover);

    if (proof.n > 0 && d->prover.challenge.lives_ms > 0)
        cm_run_remember(run, DEEPSEEK_PROOF_KEY, proof, d->prover.challenge.lives_ms);
    return CM_STEP_DONE;
}

/* ---- The client leaves ---- */

static enum cm_step leave_session(struct cm_run *run, struct deepseek *d)
{
    if (!is_waste(d))
        return CM_STEP_DONE;
    return delete_session(run, d, DEEPSEEK_DO_DELETE, d->session);
}

struct cm_str deepseek_session_of(struct cm_run *run, const struct deepseek_reply *reply)
{
    yyjson_val *id = cm_json_opt(reply->biz, "id");

    if (!id)
        id = cm_json_opt(cm_json_opt(reply->biz, "chat_session"), "id");
    return cm_arena_str(cm_run_arena(run), cm_json_str(id));
}

static enum cm_step stop_answer(struct cm_run *run, struct deepseek *d)
{
    const struct deepseek_ask ask = {
        .path_option = "stop_path",
        .body = deepseek_session_body(run, d->session, d->stream.message_id),
        .timeout_ms = DEEPSEEK_TIDY_MS};

    d->state = DEEPSEEK_DO_STOPPING;
    return deepseek_fetch(run, &d->account, &ask);
}

enum cm_step deepseek_leave(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev)
{
    struct deepseek_reply reply;

    d->leaving = true;
    if (d->state == DEEPSEEK_DO_CREATE && ev->status != 0) { /* it was made after all */
        deepseek_reply_of(run, ev, &reply);
        d->session = deepseek_session_of(run, &reply);
        d->own = true;
        yyjson_doc_free(reply.doc);
    }
    if (d->state == DEEPSEEK_DO_TALK && d->stream.message_id > 0)
        return stop_answer(run, d);
    return leave_session(run, d);
}

enum cm_step deepseek_after_step(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev)
{
    if (d->state == DEEPSEEK_DO_DELETE)
        return deleted(run, d, ev);
    if (d->state == DEEPSEEK_DO_AHEAD)
        return challenged_ahead(run, d, ev);
    if (d->state == DEEPSEEK_DO_AHEAD_PROVE)
        return proved_ahead(run, d);
    return leave_session(run, d); /* the answer was stopped */
}
