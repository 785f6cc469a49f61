/* hix: hix.ai, by the session cookie of an account.
 *
 * Happy path: FETCH (files that the client only points at) -> CREATE (a chat for the model's bot) -> SIGN, PUT for each file -> TALK (the question; the
 * answer comes as a stream) -> done at [DONE]; after the answer DELETE (if chats are to go) and TALLY (what credit is left, now and then).
 * The platform keeps history by chat. A conversation that this account has answered before goes on in its chat and only what is new is asked; otherwise
 * earlier messages go flattened into the question, oldest left out first when the model's limit of characters is reached.
 * Failures: REFUSED collects the body of an answer that is no stream and tells its class; a chat that is not ours is begun anew, once; SESSION and CREDIT
 * ask what a refusal really means; a stream that breaks off is asked for its rest, once. What was created goes (DELETE) before a failure is told, and
 * when the client leaves.
 * Wire facts: HIX protocol notes, sections 1 to 7. */
#include "chatmux/provider/list.h"
#include "hix_int.h"

#define EVENT_MAX (1024u * 1024)
#define SEARCHED_MAX (1024u * 1024) /* of links beyond it nothing is told */
#define REFUSAL_MAX (64u * 1024)
#define PROBE_MS (24 * 60 * 60 * 1000) /* keeps the session alive, and the credit known */

static const char *hix_state_name(const void *state)
{
    static const char *const names[] = {
#define X(name) #name,
        HIX_STATES(X)
#undef X
    };

    return names[((const struct hix *)state)->state];
}

static void hix_clear(void *state)
{
    struct hix *h = state;

    cm_sse_clear(&h->sse);
    cm_buf_clear(&h->body);
    cm_buf_clear(&h->cursor);
    cm_buf_clear(&h->searched);
}

/* ---- Calls ---- */

static enum cm_step create_chat(struct cm_run *run, struct hix *h)
{
    struct cm_header headers[HIX_HEADERS_MAX];
    struct cm_call call = {
        .method = "POST", .url = hix_option(run, "create_path"), .headers = headers, .lands = true};
    struct cm_buf body = {0};

    h->state = HIX_CREATE;
    call.n_headers = hix_headers(run, CM_S("application/json"), CM_S("/"), headers);
    cm_buf_append(&body, CM_S("{\"0\":{\"json\":{\"title\":"));
    cm_json_put_str(&body, hix_option(run, "title"));
    cm_buf_append(&body, CM_S(",\"botId\":"));
    cm_json_put_int(&body, hix_bot(run));
    cm_buf_append(&body, CM_S("}}}"));
    call.body = cm_buf_settle(&body, cm_run_arena(run));
    return cm_run_fetch(run, &call);
}

static struct cm_str search_type(const struct cm_run *run)
{
    const struct cm_target *target = cm_run_target(run);

    return target->news       ? CM_S("news")
           : target->academic ? CM_S("academic")
                              : hix_option(run, "search_type");
}

static void put_question(struct cm_run *run, const struct hix *h, struct cm_buf *body)
{
    cm_buf_append(body, CM_S("{\"chatId\":"));
    cm_json_put_str(body, h->chat_id);
    cm_buf_append(body, CM_S(",\"fileUrl\":"));
    cm_json_put_str(body, h->n_put > 0 ? h->urls[0] : CM_S(""));
    if (h->n_put > 1) {
        cm_buf_append(body, CM_S(",\"fileUrls\":["));
        for (size_t i = 0; i < h->n_put; i++) {
            if (i > 0)
                cm_buf_put(body, ',');
            cm_json_put_str(body, h->urls[i]);
        }
        cm_buf_put(body, ']');
    }
    cm_buf_append(body, CM_S(",\"question\":"));
    cm_json_put_str(body, h->ask.question);
    if (cm_run_target(run)->search) {
        cm_buf_append(body, CM_S(",\"search\":true,\"searchType\":"));
        cm_json_put_str(body, search_type(run));
    }
    cm_buf_put(body, '}');
}

static enum cm_step stream(struct cm_run *run, struct hix *h, struct cm_str path,
                           struct cm_buf *body)
{
    struct cm_header headers[HIX_HEADERS_MAX];
    struct cm_call call = {.method = "POST", .url = path, .headers = headers};
    struct cm_buf referer = {0};

    cm_buf_put(&referer, '/');
    cm_buf_append(&referer, h->model);
    cm_buf_append(&referer, CM_S("?/id="));
    cm_percent(&referer, h->chat_id);
    call.n_headers = hix_headers(run, CM_S("text/event-stream"),
                                 cm_buf_settle(&referer, cm_run_arena(run)), headers);
    call.body = cm_buf_settle(body, cm_run_arena(run));
    cm_sse_clear(&h->sse);
    cm_sse_init(&h->sse, EVENT_MAX);
    h->state = HIX_TALK;
    return cm_run_stream(run, &call);
}

static enum cm_step talk(struct cm_run *run, struct hix *h)
{
    struct cm_buf body = {0};

    put_question(run, h, &body);
    return stream(run, h, hix_option(run, "chat_path"), &body);
}

/* The rest of an answer that broke off, if the platform has told how to ask for it. Whether plain bots can do that is UNKNOWN. */
static bool can_resume(const struct cm_run *run, const struct hix *h)
{
    return !h->resumed && h->detail_id.n > 0 && h->cursor.n > 0 &&
           hix_option(run, "resume_path").n > 0;
}

static enum cm_step resume(struct cm_run *run, struct hix *h)
{
    struct cm_buf body = {0};

    h->resumed = true;
    cm_buf_append(&body, CM_S("{\"chatId\":"));
    cm_json_put_str(&body, h->chat_id);
    cm_buf_append(&body, CM_S(",\"detailId\":"));
    cm_buf_append(&body, h->detail_id);
    cm_buf_append(&body, CM_S(",\"lastCursor\":"));
    cm_json_put_str(&body, cm_buf_str(&h->cursor));
    cm_buf_put(&body, '}');
    return stream(run, h, hix_option(run, "resume_path"), &body);
}

/* The next file, or the question when there is none. */
static enum cm_step send_next(struct cm_run *run, struct hix *h, struct cm_err *err)
{
    const struct cm_part *part;
    const struct cm_attached *fetched;
    struct cm_err why = {0};
    enum cm_step step;

    if (h->n_put == h->ask.n_files)
        return talk(run, h);
    part = h->ask.files[h->n_put];
    fetched = cm_attach_find(&h->attach, part);
    h->state = HIX_SIGN;
    step = hix_sign(run, h->chat_id, fetched ? fetched->data : part->data,
                    fetched ? fetched->media_type : part->media_type, &h->bytes, &h->type, &why);
    return step == CM_STEP_FAIL ? hix_fail(run, h, &why, err) : step;
}

static enum cm_step after_fetch(struct cm_run *run, struct hix *h, enum cm_step step,
                                const struct cm_err *why, struct cm_err *err)
{
    if (step == CM_STEP_FAIL)
        return hix_fail(run, h, why, err);
    if (step == CM_STEP_WAIT)
        return CM_STEP_WAIT;
    return h->threaded ? send_next(run, h, err) : create_chat(run, h);
}

/* Makes the question, and fetches what it points at. */
static enum cm_step prepare(struct cm_run *run, struct hix *h, size_t from, struct cm_err *err)
{
    struct cm_err why = {0};

    h->state = HIX_FETCH;
    if (hix_make_ask(run, from, &h->ask, &why))
        return hix_fail(run, h, &why, err);
    h->usage.in_uncached = cm_estimate_tokens(h->ask.question);
    for (size_t i = 0; i < h->ask.n_files; i++) {
        if (cm_attach_add(run, &h->attach, h->ask.files[i], &why))
            return hix_fail(run, h, &why, err);
    }
    return after_fetch(run, h, cm_attach_fetch(run, &h->attach, &why), &why, err);
}

static enum cm_step start(struct cm_run *run, struct hix *h, struct cm_err *err)
{
    struct cm_thread thread = {0};
    struct cm_buf model = {0};

    if (hix_check_request(cm_run_chat(run), err))
        return CM_STEP_FAIL;
    if (hix_bot(run) == 0) {
        cm_fail_param(err, CM_ERR_MODEL_UNAVAILABLE, "model", "hix has no bot for this model");
        return CM_STEP_FAIL;
    }
    cm_percent(&model, cm_run_target(run)->model);
    h->model = cm_buf_settle(&model, cm_run_arena(run));
    h->usage.source = CM_USAGE_ESTIMATED;
    h->tells_links =
        cm_run_target(run)->search && cm_str_eq(hix_option(run, "citations"), CM_S("annotations"));
    cm_buf_init(&h->searched, SEARCHED_MAX);
    if (hix_continues(run)) {
        const int found = cm_run_handed(run, &thread, err);

        if (found < 0)
            return CM_STEP_FAIL;
        h->threaded = found > 0 || cm_run_thread(run, &thread);
        h->alone = thread.alone;
    }
    h->chat_id = thread.value;
    return prepare(run, h, thread.from, err);
}

/* The chat has gone, or was never this account's: all that was said so far goes into another one. */
static enum cm_step begin_anew(struct cm_run *run, struct hix *h, struct cm_err *err)
{
    if (h->alone) {
        cm_fail_param(err, CM_ERR_NOT_FOUND, "conversation_id",
                      "hix does not have this conversation any more: send it as a whole");
        return CM_STEP_FAIL;
    }
    h->begun_anew = true;
    h->threaded = false;
    h->n_put = 0;
    return prepare(run, h, 0, err);
}

/* ---- Refusals ---- */

static struct hix_refusal refusal_of(const struct cm_run *run, enum hix_call call,
                                     const struct cm_ev *ev)
{
    return (struct hix_refusal){
        .call = call,
        .status = ev->status,
        .retry_after_s = cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run)),
        .challenge_s = (int)(cm_option_int(cm_run_instance(run), "challenge_cooldown") / 1000),
        .body = ev->data};
}

static enum cm_step refused(struct cm_run *run, struct hix *h, struct cm_err *err)
{
    struct cm_err why = {0};

    switch (hix_refuse(&h->refusal, &why)) {
    case HIX_AS_IT_IS:
    case HIX_ASK_CREDIT:
        break;
    case HIX_DOUBT_CREDIT:
        h->credit_doubted = true;
        break;
    case HIX_NOT_OURS:
        if (h->threaded && !h->begun_anew)
            return begin_anew(run, h, err);
        break;
    case HIX_ASK_SESSION:
        h->why = why;
        h->state = HIX_SESSION;
        return hix_ask_session(run);
    }
    return hix_fail(run, h, &why, err);
}

static enum cm_step created(struct cm_run *run, struct hix *h, const struct cm_ev *ev,
                            struct cm_err *err)
{
    h->chat_id = hix_read_chat_id(run, ev);
    h->created = h->chat_id.n > 0;
    if (h->created && hix_option_bool(run, "delete_chat")) /* should the process end meanwhile */
        cm_run_left_put(run, h->chat_id, CM_LEFT_ASKED_MS);
    if (h->created)
        return send_next(run, h, err);
    h->refusal = refusal_of(run, HIX_CALL_CREATE, ev);
    return refused(run, h, err);
}

static enum cm_step sign_told(struct cm_run *run, struct hix *h, const struct cm_ev *ev,
                              struct cm_err *err)
{
    struct cm_str to = ev->status == 200 ? hix_signed(run, ev->data) : CM_STR_NONE;

    if (to.n == 0) {
        h->refusal = refusal_of(run, HIX_CALL_OTHER, ev);
        return refused(run, h, err);
    }
    h->urls[h->n_put] = cm_str_cut(&to, '?');
    h->state = HIX_PUT;
    to = cm_str(h->urls[h->n_put].p, h->urls[h->n_put].n + (to.n > 0 ? to.n + 1 : 0));
    return hix_put(run, to, h->bytes, h->type);
}

static enum cm_step put(struct cm_run *run, struct hix *h, const struct cm_ev *ev,
                        struct cm_err *err)
{
    struct cm_err why = {0};

    if (ev->status == 200) {
        h->n_put++;
        return send_next(run, h, err);
    }
    cm_fail(&why, CM_ERR_UPSTREAM_DOWN, "the store of hix refused a file with status %d",
            ev->status);
    return hix_fail(run, h, &why, err);
}

/* ---- The answer ---- */

struct feed {
    struct cm_run *run;
    struct hix *h;
    struct cm_err *err;
};

/* {"detailId":900001}, which asking for the rest needs. */
static void note_detail(struct cm_run *run, struct hix *h, yyjson_val *root)
{
    yyjson_val *id = cm_json_opt(root, "detailId");
    struct cm_buf text = {0};

    if (!id || h->detail_id.n > 0)
        return;
    cm_json_put_val(&text, id);
    h->detail_id = cm_buf_settle(&text, cm_run_arena(run));
}

/* Frames of no known kind are the platform's own business, unless they tell a failure. */
static int on_other(const struct feed *f, yyjson_val *root)
{
    const enum cm_err_class cls = hix_frame_class(root);

    note_detail(f->run, f->h, root);
    if (cls == CM_ERR_NONE)
        return 0;
    cm_fail(f->err, cls, "hix broke off its answer: %s", cm_err_info(cls)->name);
    if (cls == CM_ERR_RATE_LIMITED)
        f->err->retry_after_s = HIX_RATE_LIMIT_S;
    return -1;
}

static int on_object(const struct feed *f, yyjson_val *root)
{
    yyjson_val *content = cm_json_opt(root, "content"),
               *reasoning = cm_json_opt(root, "reasoning_content");
    struct hix *h = f->h;

    if (reasoning) {
        h->usage.out_reasoning += cm_estimate_tokens(cm_json_str(reasoning));
        cm_run_reasoning(f->run, cm_json_str(reasoning));
    }
    if (content) {
        h->usage.out_text += cm_estimate_tokens(cm_json_str(content));
        h->said |= cm_json_str(content).n > 0;
        if (h->tells_links)
            cm_buf_append(&h->searched, cm_json_str(content));
        cm_run_text(f->run, cm_json_str(content));
    }
    return reasoning || content ? 0 : on_other(f, root);
}

static int on_sse(void *arg, const struct cm_sse_event *ev)
{
    const struct feed *f = arg;
    struct hix *h = f->h;
    yyjson_doc *doc;
    int failed = 0;

    if (!ev->data.p || h->done)
        return 0;
    if (cm_str_eq(cm_str_trim(ev->data), CM_S("[DONE]"))) {
        h->done = true;
        return 0;
    }
    doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    if (!doc)
        cm_run_odd(f->run, "an event that is no JSON", ev->data);
    else if (yyjson_is_obj(yyjson_doc_get_root(doc))) /* else: a bare number, of an event */
        failed = on_object(f, yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
    if (ev->id.n > 0) {
        cm_buf_reset(&h->cursor);
        cm_buf_append(&h->cursor, ev->id);
    }
    return failed;
}

static enum cm_step finish(struct cm_run *run, struct hix *h, struct cm_err *err)
{
    struct cm_err why = {0};

    if (!h->said) {
        cm_fail(&why, CM_ERR_UPSTREAM_DOWN, "hix ended its answer without any text");
        return hix_fail(run, h, &why, err);
    }
    hix_tell_links(run, cm_buf_str(&h->searched));
    cm_run_usage(run, &h->usage);
    if (hix_continues(run))
        cm_run_conversation(run, h->chat_id);
    cm_run_finish(run, CM_FINISH_STOP);
    if (hix_continues(run))
        cm_run_thread_keep(run, h->chat_id, cm_option_int(cm_run_instance(run), "continue_ttl"));
    if (!hix_option_bool(run, "delete_chat"))
        hix_note_use(run, h->chat_id);
    return hix_wind_up(run, h, err);
}

static enum cm_step broke_off(struct cm_run *run, struct hix *h, const struct cm_err *why,
                              struct cm_err *err)
{
    return can_resume(run, h) ? resume(run, h) : hix_fail(run, h, why, err);
}

static enum cm_step began(struct cm_run *run, struct hix *h, const struct cm_ev *ev)
{
    const struct cm_str type = cm_header_find(ev->headers, ev->n_headers, CM_S("content-type"));

    if (ev->status == 200 && (type.n == 0 || cm_str_starts_nocase(type, CM_S("text/event-stream"))))
        return CM_STEP_WAIT;
    h->state = HIX_REFUSED;
    h->refusal = refusal_of(run, HIX_CALL_CHAT, ev);
    cm_buf_clear(&h->body); /* of the chat that was not ours */
    cm_buf_init(&h->body, REFUSAL_MAX);
    return CM_STEP_WAIT;
}

static enum cm_step talked(struct cm_run *run, struct hix *h, const struct cm_ev *ev,
                           struct cm_err *err)
{
    struct cm_err why = {0};
    struct feed feed = {run, h, &why};

    if (ev->kind == CM_EV_HEAD)
        return began(run, h, ev);
    if (ev->kind == CM_EV_FAILED)
        return broke_off(run, h, ev->err, err);
    if (ev->kind == CM_EV_DATA ? cm_sse_feed(&h->sse, ev->data, on_sse, &feed, &why)
                               : cm_sse_end(&h->sse, on_sse, &feed, &why)) {
        return hix_fail(run, h, &why, err);
    }
    if (h->done)
        return finish(run, h, err);
    if (ev->kind == CM_EV_DATA)
        return CM_STEP_WAIT;
    cm_fail(&why, CM_ERR_CUT, "hix broke off its answer before the end");
    return broke_off(run, h, &why, err);
}

static enum cm_step refusal_read(struct cm_run *run, struct hix *h, const struct cm_ev *ev,
                                 struct cm_err *err)
{
    struct cm_err why;

    if (ev->kind == CM_EV_DATA) {
        cm_buf_append(&h->body, cm_str_head(ev->data, REFUSAL_MAX - h->body.n));
        if (h->body.n < REFUSAL_MAX)
            return CM_STEP_WAIT;
    }
    cm_run_hang_up(run);
    h->refusal.body = cm_buf_str(&h->body);
    if (!h->resumed)
        return refused(run, h, err);
    /* the rest cannot be had: what it was that broke off is all there is to say */
    cm_fail(&why, CM_ERR_CUT, "hix broke off its answer and refused its rest with status %d",
            h->refusal.status);
    return hix_fail(run, h, &why, err);
}

/* ---- The flow ---- */

static enum cm_step hix_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct hix *h = cm_run_state(run);
    struct cm_err why = {0};

    if (ev->kind == CM_EV_STOP)
        return hix_leave(run, h, ev);
    if (ev->kind == CM_EV_START)
        return start(run, h, err);
    switch (h->state) {
    case HIX_FETCH:
        return after_fetch(run, h, cm_attach_step(run, &h->attach, ev, &why), &why, err);
    case HIX_CREATE:
        return ev->kind == CM_EV_FAILED ? hix_fail(run, h, ev->err, err) : created(run, h, ev, err);
    case HIX_SIGN:
        return ev->kind == CM_EV_FAILED ? hix_fail(run, h, ev->err, err)
                                        : sign_told(run, h, ev, err);
    case HIX_PUT:
        return ev->kind == CM_EV_FAILED ? hix_fail(run, h, ev->err, err) : put(run, h, ev, err);
    case HIX_TALK:
        return talked(run, h, ev, err);
    case HIX_REFUSED:
        return refusal_read(run, h, ev, err);
    case HIX_SESSION:
        return hix_session_answered(run, h, ev, err);
    case HIX_CREDIT:
        return hix_credit_answered(run, h, ev, err);
    case HIX_DELETE:
        return hix_deleted(run, h, ev, err);
    case HIX_TALLY:
        break;
    }
    if (ev->kind == CM_EV_REPLY && hix_told_credit(run, ev, &(struct hix_credit){0}) < 0)
        cm_run_odd(run, "an account's credit", ev->data);
    return CM_STEP_DONE;
}

const struct cm_provider cm_provider_hix = {
    .name = "hix",
    .help = "hix.ai, by the cookie " HIX_SESSION_COOKIE,
    .base_url = "https://hix.ai",
    .options = hix_options,
    .models = hix_models,
    .n_models = HIX_N_MODELS,
    .any_features = CM_MODEL_SEARCH | CM_MODEL_NEWS | CM_MODEL_ACADEMIC,
    .isolated = true,
    .cooldown_ms = HIX_RATE_LIMIT_S * 1000,
    .probe_every_ms = PROBE_MS,
    .configure = hix_configure,
    .normalize = hix_normalize,
    .old_thread = hix_old_thread,
    .chat = {.step = hix_step,
             .state_size = sizeof(struct hix),
             .state_name = hix_state_name,
             .clear = hix_clear},
    .refresh = {.step = hix_refresh_step,
                .state_size = sizeof(struct hix_account),
                .state_name = hix_account_state_name},
    .probe = {.step = hix_probe_step,
              .state_size = sizeof(struct hix_account),
              .state_name = hix_account_state_name},
};
