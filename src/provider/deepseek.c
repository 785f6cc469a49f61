/* deepseek: chat.deepseek.com, by the user token of an account, or by its e-mail or mobile number and password.
 *
 * Happy path: FILES (what the messages carry goes up) -> CREATE (a conversation, unless one goes on) -> CHALLENGE, PROVE (unless a proof of work was made
 * ahead) -> TALK (the question; the answer comes as a stream of patches) -> done at status FINISHED; the client has its answer, and then: TAIL (the
 * stream's end) -> DELETE -> AHEAD, AHEAD_PROVE (a proof for the next question).
 * Failures: REFUSED collects an answer that is no stream; MUTED asks until when; a refused proof is made once more; a conversation that is gone begins
 * anew; UNDO deletes a conversation that came to nothing. The client leaves: STOPPING, then DELETE. A stream without an end status was cut.
 * Wire facts: DeepSeek protocol notes, sections 3 to 7. */
#include "deepseek_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/provider/list.h"

#define REFUSAL_MAX (64u * 1024)
#define THREAD_MS (3 * 24 * 3600 * 1000LL) /* ttl_seconds of a conversation */
#define CHALLENGES_MAX 2                   /* broken ones, or proofs refused, for one question */

static const char *state_name(const void *state)
{
    static const char *const names[] = {
#define X(name) #name,
        DEEPSEEK_STATES(X)
#undef X
    };

    return names[((const struct deepseek *)state)->state];
}

static void clear(void *state)
{
    struct deepseek *d = state;

    deepseek_stream_clear(&d->stream);
    cm_buf_clear(&d->body);
    deepseek_prover_clear(&d->prover);
    deepseek_files_clear(&d->files);
}

/* ---- The proof of work ---- */

enum cm_step deepseek_flow_challenge(struct cm_run *run, struct deepseek *d,
                                     enum deepseek_state state)
{
    d->state = state;
    return deepseek_ask_challenge(run, &d->account, "chat_path",
                                  state == DEEPSEEK_DO_AHEAD ? DEEPSEEK_TIDY_MS : 0);
}

enum cm_step deepseek_flow_prove(struct cm_run *run, struct deepseek *d, enum deepseek_state state)
{
    d->state = state;
    return deepseek_prove(run, &d->prover);
}

static enum cm_step another_challenge(struct cm_run *run, struct deepseek *d, struct cm_err *err)
{
    if (++d->challenges < CHALLENGES_MAX)
        return deepseek_flow_challenge(run, d, DEEPSEEK_DO_CHALLENGE);
    cm_fail(err, CM_ERR_UPSTREAM_DOWN, "deepseek gave challenges that have no solution");
    return deepseek_fail(run, d, err);
}

/* ---- The question ---- */

static enum cm_step talk(struct cm_run *run, struct deepseek *d, const char *path,
                         struct cm_str body)
{
    const struct deepseek_ask ask = {.path_option = path, .body = body, .proof = d->proof};

    d->state = DEEPSEEK_DO_TALK;
    return deepseek_stream(run, &d->account, &ask);
}

static enum cm_step ask_question(struct cm_run *run, struct deepseek *d)
{
    return talk(run, d, "chat_path", deepseek_question(run, d));
}

static enum cm_step ask_or_prove(struct cm_run *run, struct deepseek *d)
{
    struct cm_str proof;

    if (d->challenges == 0 && cm_run_recall(run, DEEPSEEK_PROOF_KEY, &proof)) {
        d->proof = cm_arena_str(cm_run_arena(run), proof);
        cm_run_forget(run, DEEPSEEK_PROOF_KEY); /* it is good once */
        return ask_question(run, d);
    }
    return deepseek_flow_challenge(run, d, DEEPSEEK_DO_CHALLENGE);
}

static enum cm_step create_session(struct cm_run *run, struct deepseek *d)
{
    const struct deepseek_ask ask = {
        .path_option = "create_path", .body = deepseek_option(run, "create_body"), .lands = true};

    d->state = DEEPSEEK_DO_CREATE;
    return deepseek_fetch(run, &d->account, &ask);
}

static enum cm_step create_or_ask(struct cm_run *run, struct deepseek *d)
{
    if (d->files.forked)
        d->model_type = deepseek_option(run, "vision_model_type");
    return d->threaded ? ask_or_prove(run, d) : create_session(run, d);
}

static enum cm_step upload(struct cm_run *run, struct deepseek *d, size_t from, struct cm_err *err)
{
    enum cm_step step;

    d->state = DEEPSEEK_DO_FILES;
    d->files.thinking = d->thinking;
    d->files.model_type = d->model_type;
    step = deepseek_files_start(run, &d->files, &d->account, from, err);
    return step == CM_STEP_DONE ? create_or_ask(run, d) : step;
}

static enum cm_step uploading(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev,
                              struct cm_err *err)
{
    const enum cm_step step = deepseek_files_step(run, &d->files, ev, err);

    return step == CM_STEP_DONE ? create_or_ask(run, d) : step;
}

static enum cm_step start(struct cm_run *run, struct deepseek *d, struct cm_err *err)
{
    size_t from = 0;

    if (deepseek_check_request(cm_run_chat(run), err))
        return CM_STEP_FAIL;
    deepseek_account(run, &d->account);
    if (deepseek_bearer(run, &d->account).n == 0) {
        cm_fail(err, CM_ERR_EXPIRED, "this deepseek account has to log in first");
        return CM_STEP_FAIL;
    }
    d->conversations = deepseek_conversations(run);
    d->thinking = deepseek_wants_thinking(run);
    d->searching = cm_run_target(run)->search;
    d->model_type = deepseek_model_type(run);
    deepseek_stream_init(&d->stream, run, deepseek_marks(run));
    if (deepseek_find_thread(run, d, &from, err) || deepseek_make_prompt(run, d, from, err))
        return CM_STEP_FAIL;
    return upload(run, d, from, err);
}

/* The conversation that was to go on is gone: all of it is told to a new one. */
static enum cm_step begin_anew(struct cm_run *run, struct deepseek *d, struct cm_err *err)
{
    cm_run_hang_up(run);
    d->threaded = false;
    d->session = CM_STR_NONE;
    d->parent = 0;
    if (d->alone) {
        cm_fail_param(err, CM_ERR_NOT_FOUND, "conversation_id",
                      "deepseek does not have this conversation any more: send it as a whole");
        return CM_STEP_FAIL;
    }
    if (deepseek_make_prompt(run, d, 0, err))
        return CM_STEP_FAIL;
    return upload(run, d, 0, err);
}

/* ---- The answer ---- */

static void tell_usage(struct cm_run *run, struct deepseek *d)
{
    struct cm_usage *u = &d->usage;

    u->out_text = d->stream.out_text;
    u->out_reasoning = d->stream.out_reasoning;
    /* The platform tells how long the conversation is now, question and answer together. */
    if (d->stream.tokens > u->out_text + u->out_reasoning) {
        u->source = CM_USAGE_UPSTREAM;
        u->in_uncached = d->stream.tokens - u->out_text - u->out_reasoning;
    }
    cm_run_usage(run, u);
}

/* `over`: the stream has ended, too. */
static enum cm_step complete(struct cm_run *run, struct deepseek *d, enum cm_finish finish,
                             bool over)
{
    const bool goes_on = d->conversations == DEEPSEEK_CONTINUE && finish == CM_FINISH_STOP &&
                         d->stream.message_id > 0;

    deepseek_stream_flush(&d->stream);
    tell_usage(run, d);
    if (goes_on)
        cm_run_conversation(run, deepseek_thread_value(run, d));
    cm_run_finish(run, finish);
    if (goes_on)
        cm_run_thread_keep(run, deepseek_thread_value(run, d), THREAD_MS);
    if (d->conversations == DEEPSEEK_DELETE)
        cm_run_left_put(run, d->session, CM_LEFT_ALONE_MS);
    if (!deepseek_wants_more(run, d))
        return CM_STEP_DONE;
    cm_run_answered(run);
    d->state = DEEPSEEK_DO_TAIL;
    return over ? deepseek_after(run, d) : CM_STEP_WAIT;
}

static enum cm_step fail_with(struct cm_run *run, struct deepseek *d, enum cm_err_class cls,
                              const char *why, struct cm_err *err)
{
    cm_fail(err, cls, "%s", why);
    return deepseek_fail(run, d, err);
}

/* An answer that the platform cut goes on in another stream; the proof serves once more. */
static enum cm_step go_on(struct cm_run *run, struct deepseek *d, bool over)
{
    struct cm_buf body = {0};

    if (d->rounds >= (unsigned)cm_option_int(cm_run_instance(run), "continue_limit") ||
        d->stream.message_id <= 0)
        return complete(run, d, CM_FINISH_LENGTH, over);
    d->rounds++;
    cm_run_hang_up(run);
    deepseek_stream_again(&d->stream);
    cm_buf_append(&body, CM_S("{\"chat_session_id\":"));
    cm_json_put_str(&body, d->session);
    cm_buf_printf(&body, ",\"message_id\":%lld,\"fallback_to_resume\":true}",
                  (long long)d->stream.message_id);
    return talk(run, d, "continue_path", cm_buf_settle(&body, cm_run_arena(run)));
}

static enum cm_step finished(struct cm_run *run, struct deepseek *d, bool over, struct cm_err *err)
{
    if (!d->stream.said)
        return fail_with(run, d, CM_ERR_UPSTREAM_DOWN, "deepseek ended its answer without any text",
                         err);
    return complete(run, d, CM_FINISH_STOP, over);
}

/* What the stream has said so far, and whether that is all. */
static enum cm_step judge(struct cm_run *run, struct deepseek *d, bool over, struct cm_err *err)
{
    const struct deepseek_stream *s = &d->stream;
    const bool last = over || s->closed || s->finished;

    switch (s->status) {
    case DEEPSEEK_FINISHED:
        return finished(run, d, over, err);
    case DEEPSEEK_INCOMPLETE:
        return go_on(run, d, over);
    case DEEPSEEK_CONTENT_FILTER:
        if (!last)
            return CM_STEP_WAIT; /* words of the platform's own may follow */
        if (s->said)
            return complete(run, d, CM_FINISH_CONTENT_FILTER, over);
        return fail_with(run, d, CM_ERR_CONTENT_FILTER,
                         "deepseek does not answer this (content filter)", err);
    case DEEPSEEK_CONTEXT_LENGTH_EXCEEDED:
    case DEEPSEEK_CONTENT_TOO_LONG:
        return fail_with(run, d, CM_ERR_CONTEXT_LENGTH, "the conversation is too long for deepseek",
                         err);
    case DEEPSEEK_CANCELLED:
        return fail_with(run, d, CM_ERR_CUT, "deepseek cancelled its answer", err);
    case DEEPSEEK_WIP:
        break;
    }
    if (s->finished || (last && s->quasi_status == DEEPSEEK_FINISHED))
        return finished(run, d, over, err);
    if (!last)
        return CM_STEP_WAIT;
    if (s->auto_continue)
        return go_on(run, d, over);
    return fail_with(run, d, CM_ERR_CUT, "deepseek broke off its answer before the end", err);
}

/* The stream, or the reply in its place, tells a failure. */
static enum cm_step refused_question(struct cm_run *run, struct deepseek *d, bool bad_proof,
                                     bool bad_session, struct cm_err *err)
{
    if (d->rounds > 0 && d->stream.said && d->state == DEEPSEEK_DO_REFUSED) {
        cm_run_odd(run, "the answer could not be continued", cm_str_of(err->msg));
        return complete(run, d, CM_FINISH_LENGTH, true);
    }
    if (d->stream.said)
        return deepseek_fail(run, d, err);
    if (bad_proof && ++d->challenges < CHALLENGES_MAX) {
        cm_run_hang_up(run);
        return deepseek_flow_challenge(run, d, DEEPSEEK_DO_CHALLENGE);
    }
    if (bad_session && d->threaded)
        return begin_anew(run, d, err);
    return deepseek_fail(run, d, err);
}

static enum cm_step talk_began(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev)
{
    const struct cm_str type = cm_header_find(ev->headers, ev->n_headers, CM_S("content-type"));
    struct cm_arena *arena = cm_run_arena(run);

    if (ev->status == 200 &&
        (type.n == 0 || cm_str_starts_nocase(type, CM_S("text/event-stream")))) {
        d->talked = true;
        return CM_STEP_WAIT;
    }
    d->state = DEEPSEEK_DO_REFUSED;
    d->status = ev->status;
    d->n_headers = ev->n_headers;
    d->headers = CM_ARENA_ARRAY(arena, struct cm_header, ev->n_headers);
    for (size_t i = 0; i < ev->n_headers; i++) {
        d->headers[i].name = cm_arena_str(arena, ev->headers[i].name);
        d->headers[i].value = cm_arena_str(arena, ev->headers[i].value);
    }
    cm_buf_init(&d->body, REFUSAL_MAX);
    return CM_STEP_WAIT;
}

static enum cm_step talked(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev,
                           struct cm_err *err)
{
    const bool over = ev->kind == CM_EV_END;

    if (ev->kind == CM_EV_HEAD)
        return talk_began(run, d, ev);
    if (ev->kind == CM_EV_FAILED) {
        if (d->stream.status == DEEPSEEK_CONTENT_FILTER)
            return judge(run, d, true, err);
        *err = *ev->err;
        return deepseek_fail(run, d, err);
    }
    if (over ? deepseek_stream_end(&d->stream, err)
             : deepseek_stream_feed(&d->stream, ev->data, err))
        return refused_question(run, d, d->stream.bad_proof, d->stream.bad_session, err);
    return judge(run, d, over, err);
}

/* The platform mutes accounts for a time, which it does not always tell at once. */
static enum cm_step ask_mute(struct cm_run *run, struct deepseek *d, const struct cm_err *err)
{
    const struct deepseek_ask ask = {
        .method = "GET", .path_option = "current_path", .timeout_ms = DEEPSEEK_TIDY_MS};

    d->state = DEEPSEEK_DO_MUTED;
    d->failure = *err;
    return deepseek_fetch(run, &d->account, &ask);
}

static enum cm_step told_mute(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev,
                              struct cm_err *err)
{
    struct deepseek_reply reply;

    *err = d->failure;
    if (ev->kind == CM_EV_REPLY) {
        deepseek_reply_of(run, ev, &reply);
        deepseek_judge_mute(&reply);
        if (reply.muted)
            deepseek_refuse(&reply, "the question", err);
        yyjson_doc_free(reply.doc);
    }
    return deepseek_fail(run, d, err);
}

static enum cm_step refused(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev,
                            struct cm_err *err)
{
    struct deepseek_reply reply;

    if (ev->kind == CM_EV_DATA) {
        cm_buf_append(&d->body, cm_str_head(ev->data, REFUSAL_MAX - d->body.n));
        if (d->body.n < REFUSAL_MAX)
            return CM_STEP_WAIT;
        cm_run_hang_up(run);
    }
    deepseek_reply_read(run, d->status, d->headers, d->n_headers, cm_buf_str(&d->body), &reply);
    deepseek_refuse(&reply, "the question", err);
    yyjson_doc_free(reply.doc); /* only numbers and flags are read below */
    cm_buf_clear(&d->body);
    if (reply.muted && reply.retry_after_s == 0)
        return ask_mute(run, d, err);
    return refused_question(run, d, reply.bad_proof, reply.bad_session, err);
}

/* ---- The machine ---- */

static enum cm_step created(struct cm_run *run, struct deepseek *d,
                            const struct deepseek_reply *reply, struct cm_err *err)
{
    d->session = deepseek_session_of(run, reply);
    if (d->session.n == 0) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, "deepseek made a conversation without an id");
        return CM_STEP_FAIL;
    }
    d->own = true;
    if (d->conversations == DEEPSEEK_DELETE) /* should the process end meanwhile */
        cm_run_left_put(run, d->session, CM_LEFT_ASKED_MS);
    return ask_or_prove(run, d);
}

static enum cm_step challenged(struct cm_run *run, struct deepseek *d,
                               const struct deepseek_reply *reply, struct cm_err *err)
{
    const int failed = deepseek_challenged(run, &d->prover, reply, err);

    if (failed > 0)
        return another_challenge(run, d, err);
    return failed ? deepseek_fail(run, d, err) : deepseek_flow_prove(run, d, DEEPSEEK_DO_PROVE);
}

static enum cm_step proved(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev,
                           struct cm_err *err)
{
    if (ev->kind == CM_EV_FAILED) { /* total_timeout */
        *err = *ev->err;
        return deepseek_fail(run, d, err);
    }
    d->proof = deepseek_proved(run, &d->prover);
    return d->proof.n > 0 ? ask_question(run, d) : another_challenge(run, d, err);
}

/* CREATE, CHALLENGE. */
static enum cm_step replied(struct cm_run *run, struct deepseek *d, const struct cm_ev *ev,
                            struct cm_err *err)
{
    struct deepseek_reply reply;
    enum cm_step step;

    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return deepseek_fail(run, d, err);
    }
    deepseek_reply_of(run, ev, &reply);
    if (reply.cls != CM_ERR_NONE) {
        deepseek_refuse(&reply, d->state == DEEPSEEK_DO_CREATE ? "a conversation" : "a challenge",
                        err);
        step = deepseek_fail(run, d, err);
    } else if (d->state == DEEPSEEK_DO_CREATE) {
        step = created(run, d, &reply, err);
    } else {
        step = challenged(run, d, &reply, err);
    }
    yyjson_doc_free(reply.doc);
    return step;
}

static enum cm_step deepseek_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct deepseek *d = cm_run_state(run);

    if (ev->kind == CM_EV_START)
        return start(run, d, err);
    if (ev->kind == CM_EV_STOP)
        return deepseek_leave(run, d, ev);
    switch (d->state) {
    case DEEPSEEK_DO_FILES:
        return uploading(run, d, ev, err);
    case DEEPSEEK_DO_CREATE:
    case DEEPSEEK_DO_CHALLENGE:
        return replied(run, d, ev, err);
    case DEEPSEEK_DO_PROVE:
        return proved(run, d, ev, err);
    case DEEPSEEK_DO_TALK:
        return talked(run, d, ev, err);
    case DEEPSEEK_DO_REFUSED:
        return refused(run, d, ev, err);
    case DEEPSEEK_DO_MUTED:
        return told_mute(run, d, ev, err);
    case DEEPSEEK_DO_TAIL:
        return ev->kind == CM_EV_END || ev->kind == CM_EV_FAILED ? deepseek_after(run, d)
                                                                 : CM_STEP_WAIT;
    case DEEPSEEK_DO_STOPPING:
    case DEEPSEEK_DO_DELETE:
    case DEEPSEEK_DO_AHEAD:
    case DEEPSEEK_DO_AHEAD_PROVE:
        return deepseek_after_step(run, d, ev);
    case DEEPSEEK_DO_UNDO:
        break;
    }
    return deepseek_undone(run, d, ev, err);
}

static const char *probe_state_name(const void *state)
{
    static const char *const names[] = {"LOGIN", "CURRENT", "QUOTA"};

    return names[((const struct deepseek_probe *)state)->state];
}

const struct cm_provider cm_provider_deepseek = {
    .name = "deepseek",
    .help = "chat.deepseek.com, by user token, or e-mail (or mobile) and password",
    .base_url = "https://chat.deepseek.com",
    .options = deepseek_options,
    .models = deepseek_models,
    .n_models = DEEPSEEK_MODELS,
    .any_features = DEEPSEEK_FEATURES,
    .understands = CM_FIELD_EFFORT | CM_FIELD_PARALLEL | CM_FIELD_FILE_NAME,
    .tools_by_prompt = true,
    .isolated = true,
    .max_inflight = 1,
    .cooldown_ms = 60000,
    .normalize = deepseek_normalize,
    .chat = {.step = deepseek_step,
             .state_size = sizeof(struct deepseek),
             .state_name = state_name,
             .clear = clear},
    .refresh = {.step = deepseek_refresh_step},
    .login = {.step = deepseek_login_step},
    .probe = {.step = deepseek_probe_step,
              .state_size = sizeof(struct deepseek_probe),
              .state_name = probe_state_name},
};
