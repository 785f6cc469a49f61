/* anthropic: api.anthropic.com and every server that speaks its Messages dialect.
 *
 * Relay lane, for clients of the same dialect: the body goes up as it came but for the model's name, the
 * answer comes back byte for byte; a tap reads each event for usage, errors and the end mark. Translate
 * lane, for all others: the body is made by anthropic_request.c, and what comes, streamed or whole, is turned
 * into canonical events by anthropic_answer.c.
 * Happy path: TALK (events, until message_stop) or WHOLE (one JSON body) -> done. Counting tokens is one
 * fetch: COUNT. Batches, files and whatever else clients of the dialect ask for: anthropic_pass.c.
 * Failures: REFUSED collects the body of an error status; an `error` event, an unreadable event, a stream
 * without message_stop (CUT).
 * Wire facts: Anthropic protocol notes, sections 1-5. */
#include "anthropic_int.h"
#include "limits_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/provider/list.h"

#define ANTHROPIC_STATES(X) X(TALK) X(WHOLE) X(REFUSED) X(COUNT)
enum anthropic_state {
#define X(name) ANTHROPIC_STATE_##name,
    ANTHROPIC_STATES(X)
#undef X
};

#define EVENT_MAX (32u * 1024 * 1024)
#define REFUSAL_MAX (64u * 1024) /* of an error body */

struct anthropic {
    enum anthropic_state state;
    struct anthropic_refusal refusal;
    struct cm_sse sse;
    struct cm_buf body;       /* WHOLE, REFUSED: what came so far */
    struct cm_buf sent;       /* relay: the request's spliced body */
    struct cm_str piece;      /* TALK: what is being fed */
    struct cm_str run_of_raw; /* neighbouring events of `piece`, not yet emitted */
    bool raw_semantic;
    bool relays;
    struct anthropic_answer answer;
    struct anthropic_pass *pass; /* what is only passed on; NULL: a chat, or a count */
};

/* ---- Asking ---- */

static void make_headers(struct cm_run *run, const struct cm_chat *chat, bool stream,
                         struct anthropic_headers *h)
{
    h->n = 0;
    if (chat)
        anthropic_add_header(h, CM_S("Content-Type"), CM_S("application/json"));
    anthropic_add_header(h, CM_S("Accept"),
                         stream ? CM_S("text/event-stream") : CM_S("application/json"));
    anthropic_credential(run, chat, h);
}

/* The client's own body, with what has to be different. */
static int relayed_body(struct cm_run *run, struct anthropic *o, struct cm_str *body,
                        struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    const struct cm_target *target = cm_run_target(run);
    const struct cm_str cleaned = anthropic_without_ours(run);
    struct cm_json_edit edits[2];
    struct cm_buf model = {0};
    size_t n = 0;
    int failed;

    *body = cleaned.n > 0 ? cleaned : chat->raw;
    if (!cm_str_eq(target->model, chat->model)) {
        cm_json_put_str(&model, target->model);
        edits[n++] = (struct cm_json_edit){CM_S("model"), cm_buf_str(&model)};
    }
    if (target->thinking && chat->thinking == CM_THINKING_UNSET &&
        chat->task == CM_TASK_CHAT) { /* asked for by the model's name */
        edits[n] = (struct cm_json_edit){CM_S("thinking"), anthropic_thinking_member(run)};
        n += edits[n].value.n > 0;
    }
    /* a stream has its own copy, so that the connection may outlive the exchange and serve again */
    failed = n > 0 || chat->stream ? cm_json_splice(*body, edits, n, &o->sent, err) : 0;
    if (n > 0 || chat->stream)
        *body = cm_buf_str(&o->sent);
    cm_buf_clear(&model);
    return failed;
}

static enum cm_step ask(struct cm_run *run, struct anthropic *o, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    const bool counts = chat->task == CM_TASK_COUNT_TOKENS;
    struct cm_call call = {.method = "POST"};
    struct anthropic_headers headers;
    bool stream = chat->stream && !counts;
    int failed;

    o->relays = cm_instance_relays(cm_run_instance(run), chat);
    failed = o->relays ? relayed_body(run, o, &call.body, err)
                       : anthropic_body(run, &call.body, &stream, err);
    if (failed)
        return CM_STEP_FAIL;
    call.long_wait = !stream;
    make_headers(run, chat, stream, &headers);
    call.headers = headers.v;
    call.n_headers = headers.n;
    call.url = anthropic_path(run, counts ? CM_S("/messages/count_tokens") : CM_S("/messages"),
                              o->relays ? chat->query : CM_STR_NONE);
    if (counts) {
        o->state = ANTHROPIC_STATE_COUNT;
        return cm_run_fetch(run, &call);
    }
    if (!o->relays)
        anthropic_answer_begin(run, &o->answer);
    o->state = stream ? ANTHROPIC_STATE_TALK : ANTHROPIC_STATE_WHOLE;
    cm_sse_init(&o->sse, EVENT_MAX);
    return cm_run_stream(run, &call);
}

/* ---- Refusals ---- */

/* `body` goes to a client of the same dialect as it is, when the request was at fault. */
static enum cm_step refused(struct cm_run *run, struct anthropic *o, struct cm_str body,
                            struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(body, &cm_json_limits_event, NULL);
    yyjson_val *error = cm_json_opt(yyjson_doc_get_root(doc), "error");
    const struct cm_str secret = cm_run_cred(run)->secret;

    anthropic_refused(run, &o->refusal, error, err);
    if (o->relays && error && cm_err_info(err->cls)->next == CM_NEXT_STOP &&
        !(secret.n > 0 && cm_str_has(body, secret))) {
        err->http_status = o->refusal.status >= 400 && o->refusal.status < 500 ? o->refusal.status
                                                                               : err->http_status;
        cm_run_emit(run, &(struct cm_event){
                             .kind = CM_EVENT_RELAY, .status = cm_err_status(err), .text = body});
    }
    yyjson_doc_free(doc);
    return CM_STEP_FAIL;
}

static enum cm_step unreadable(struct cm_run *run, const char *what, const char *why,
                               struct cm_err *err)
{
    cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent %s that cannot be read: %s",
            CM_ARG(cm_run_instance(run)->name), what, why);
    return CM_STEP_FAIL;
}

/* ---- The stream ---- */

static bool has_text(yyjson_val *object, const char *key)
{
    return cm_json_str(cm_json_get(object, key)).n > 0;
}

/* Text, thinking, its signature, a call, what a tool of the platform's found: everything but the frame. */
static bool is_semantic(yyjson_val *root, struct cm_str type)
{
    yyjson_val *delta = cm_json_get(root, "delta"), *block = cm_json_get(root, "content_block");
    const struct cm_str kind = cm_json_str(cm_json_get(block, "type"));

    if (cm_str_eq(type, CM_S("content_block_delta")))
        return has_text(delta, "text") || has_text(delta, "thinking") ||
               has_text(delta, "signature") || has_text(delta, "partial_json") ||
               cm_json_get(delta, "citation");
    if (cm_str_eq(type, CM_S("content_block_start")))
        return (!cm_str_eq(kind, CM_S("text")) && !cm_str_eq(kind, CM_S("thinking"))) ||
               has_text(block, "text") || has_text(block, "thinking");
    return false;
}

static void raw_flush(struct cm_run *run, struct anthropic *o)
{
    struct cm_event ev = {
        .kind = CM_EVENT_RELAY, .text = o->run_of_raw, .semantic = o->raw_semantic};

    if (o->run_of_raw.n > 0)
        cm_run_emit(run, &ev);
    o->run_of_raw = CM_STR_NONE;
    o->raw_semantic = false;
}

/* Neighbours in one piece go on together; what the reader had to hold goes on at once, because it
 * does not stay. */
static void raw_pass(struct cm_run *run, struct anthropic *o, const struct cm_sse_event *ev,
                     bool semantic)
{
    const struct cm_event blank = {.kind = CM_EVENT_RELAY, .text = CM_S("\n\n")};
    const struct cm_str raw = ev->raw;
    const bool in_piece = o->piece.n > 0 && raw.p >= o->piece.p && raw.p < o->piece.p + o->piece.n;

    if (o->run_of_raw.n > 0 && o->run_of_raw.p + o->run_of_raw.n == raw.p) {
        o->run_of_raw.n += raw.n;
    } else {
        raw_flush(run, o);
        o->run_of_raw = raw;
    }
    o->raw_semantic |= semantic;
    if (!in_piece)
        raw_flush(run, o);
    if (ev->unfinished)
        cm_run_emit(run, &blank);
}

struct tap {
    struct cm_run *run;
    struct anthropic *o;
    struct cm_err *err;
};

/* Relay lane: only looked at. */
static int look(struct tap *t, const struct cm_sse_event *ev, yyjson_val *root)
{
    const struct cm_str type = cm_json_str(cm_json_get(root, "type"));
    const struct anthropic_refusal inside = {0};
    struct anthropic_answer *a = &t->o->answer;

    if (cm_str_eq(type, CM_S("error"))) {
        raw_flush(t->run, t->o);
        return anthropic_refused(t->run, &inside, cm_json_get(root, "error"), t->err);
    }
    if (cm_str_eq(type, CM_S("message_start")))
        anthropic_begin_usage(t->run, root, &a->usage);
    else if (cm_str_eq(type, CM_S("message_delta")))
        anthropic_read_usage(cm_json_opt(root, "usage"), &a->usage);
    else if (cm_str_eq(type, CM_S("message_stop")))
        a->done = true;
    if (a->done && a->usage.source != CM_USAGE_NONE)
        cm_run_usage(t->run, &a->usage);
    raw_pass(t->run, t->o, ev, is_semantic(root, type));
    return 0;
}

static int on_sse(void *arg, const struct cm_sse_event *ev)
{
    struct tap *t = arg;
    struct cm_err why = {0};
    yyjson_doc *doc;
    int failed;

    if (t->o->answer.done)
        return 0; /* behind the end mark: nobody's business */
    if (cm_str_trim(ev->data).n == 0) {
        if (t->o->relays)
            raw_pass(t->run, t->o, ev, false);
        return 0;
    }
    doc = cm_json_parse(ev->data, &cm_json_limits_event, &why);
    if (!doc) {
        raw_flush(t->run, t->o);
        unreadable(t->run, "an event", why.msg, t->err);
        return -1;
    }
    failed = t->o->relays
                 ? look(t, ev, yyjson_doc_get_root(doc))
                 : anthropic_event(t->run, &t->o->answer, yyjson_doc_get_root(doc), t->err);
    yyjson_doc_free(doc);
    return failed;
}

static bool has_type(const struct cm_ev *ev, struct cm_str type)
{
    return cm_str_starts_nocase(cm_header_find(ev->headers, ev->n_headers, CM_S("content-type")),
                                type);
}

static enum cm_step on_head(struct cm_run *run, struct anthropic *o, const struct cm_ev *ev,
                            struct cm_err *err)
{
    const struct cm_event head = {.kind = CM_EVENT_HEAD,
                                  .status = ev->status,
                                  .headers = ev->headers,
                                  .n_headers = ev->n_headers};

    anthropic_refusal_read(&o->refusal, ev->status, ev->headers, ev->n_headers,
                           cm_run_unix_ms(run));
    if (ev->status == 200 && has_type(ev, CM_S("text/html"))) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " answered with a web page",
                CM_ARG(cm_run_instance(run)->name));
        return CM_STEP_FAIL;
    }
    /* some servers always stream */
    if (o->state == ANTHROPIC_STATE_WHOLE && !o->relays && has_type(ev, CM_S("text/event-stream")))
        o->state = ANTHROPIC_STATE_TALK;
    /* JSON where events were asked for is an error object, on servers that always say 200 */
    if (ev->status != 200 ||
        (o->state == ANTHROPIC_STATE_TALK && has_type(ev, CM_S("application/json")))) {
        o->state = ANTHROPIC_STATE_REFUSED;
        cm_buf_init(&o->body, REFUSAL_MAX);
    } else {
        cm_buf_init(&o->body, CM_ANSWER_MAX);
    }
    if (o->relays)
        cm_run_emit(run, &head);
    else
        limits_tell(run, ev->headers, ev->n_headers);
    return CM_STEP_WAIT;
}

static enum cm_step on_data(struct cm_run *run, struct anthropic *o, struct cm_str piece,
                            struct cm_err *err)
{
    struct tap t = {run, o, err};

    if (o->state != ANTHROPIC_STATE_TALK) {
        cm_buf_append(&o->body, piece);
        if (!o->body.failed)
            return CM_STEP_WAIT;
        if (o->state == ANTHROPIC_STATE_REFUSED)
            return refused(run, o, cm_buf_str(&o->body), err);
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an answer larger than %d bytes",
                CM_ARG(cm_run_instance(run)->name), CM_ANSWER_MAX);
        return CM_STEP_FAIL;
    }
    o->piece = piece;
    if (cm_sse_feed(&o->sse, piece, on_sse, &t, err) < 0)
        return CM_STEP_FAIL;
    raw_flush(run, o);
    return o->answer.done ? CM_STEP_DONE : CM_STEP_WAIT;
}

/* The stream has ended by its framing, and message_stop has not been seen. */
static enum cm_step talk_ended(struct cm_run *run, struct anthropic *o, struct cm_err *err)
{
    struct tap t = {run, o, err};

    o->piece = CM_STR_NONE;
    if (cm_sse_end(&o->sse, on_sse, &t, err) < 0)
        return CM_STEP_FAIL;
    raw_flush(run, o);
    if (o->answer.done)
        return CM_STEP_DONE;
    cm_fail(err, CM_ERR_CUT, CM_PRI " ended its stream before the answer was complete",
            CM_ARG(cm_run_instance(run)->name));
    return CM_STEP_FAIL;
}

/* ---- Whole bodies ---- */

/* Of servers that always say 200; some leave the outer type out. */
static bool is_error(yyjson_val *root)
{
    return cm_str_eq(cm_json_str(cm_json_get(root, "type")), CM_S("error")) ||
           (yyjson_is_obj(cm_json_get(root, "error")) && !cm_json_get(root, "content"));
}

static enum cm_step whole_ended(struct cm_run *run, struct anthropic *o, struct cm_err *err)
{
    const struct cm_event relay = {
        .kind = CM_EVENT_RELAY, .text = cm_buf_str(&o->body), .semantic = true};
    struct cm_usage usage = {0};
    struct cm_err why = {0};
    yyjson_doc *doc = cm_json_parse(relay.text, &cm_json_limits_request, &why);
    yyjson_val *root = yyjson_doc_get_root(doc);
    enum cm_step step = CM_STEP_DONE;

    if (!doc || !yyjson_is_obj(root)) {
        step = unreadable(run, "an answer", doc ? "it is no JSON object" : why.msg, err);
    } else if (is_error(root)) {
        o->refusal.status = 0;
        anthropic_refused(run, &o->refusal, cm_json_get(root, "error"), err);
        step = CM_STEP_FAIL;
    } else if (!o->relays && !yyjson_is_arr(cm_json_get(root, "content"))) {
        step = unreadable(run, "an answer", "it has no content", err);
    } else if (!o->relays) {
        anthropic_message(run, &o->answer, root);
    } else {
        anthropic_read_usage(cm_json_opt(root, "usage"), &usage);
        if (usage.source != CM_USAGE_NONE)
            cm_run_usage(run, &usage);
        cm_run_emit(run, &relay);
    }
    yyjson_doc_free(doc);
    return step;
}

/* {"input_tokens":N} */
static enum cm_step counted(struct cm_run *run, struct anthropic *o, const struct cm_ev *ev,
                            struct cm_err *err)
{
    const struct cm_event head = {.kind = CM_EVENT_HEAD,
                                  .status = ev->status,
                                  .headers = ev->headers,
                                  .n_headers = ev->n_headers};
    const struct cm_event relay = {.kind = CM_EVENT_RELAY, .text = ev->data, .semantic = true};
    struct cm_usage usage = {0};
    yyjson_doc *doc;

    anthropic_refusal_read(&o->refusal, ev->status, ev->headers, ev->n_headers,
                           cm_run_unix_ms(run));
    if (o->relays)
        cm_run_emit(run, &head);
    else
        limits_tell(run, ev->headers, ev->n_headers);
    if (ev->status != 200)
        return refused(run, o, ev->data, err);
    doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    if (yyjson_is_uint(cm_json_get(yyjson_doc_get_root(doc), "input_tokens")))
        anthropic_read_usage(yyjson_doc_get_root(doc), &usage);
    yyjson_doc_free(doc);
    if (usage.source == CM_USAGE_NONE)
        return unreadable(run, "a count", "it has no input_tokens", err);
    if (o->relays)
        cm_run_emit(run, &relay);
    else
        cm_run_usage(run, &usage);
    return CM_STEP_DONE;
}

static enum cm_step ended(struct cm_run *run, struct anthropic *o, struct cm_err *err)
{
    switch (o->state) {
    case ANTHROPIC_STATE_TALK:
        return talk_ended(run, o, err);
    case ANTHROPIC_STATE_WHOLE:
        return whole_ended(run, o, err);
    case ANTHROPIC_STATE_REFUSED:
        return refused(run, o, cm_buf_str(&o->body), err);
    case ANTHROPIC_STATE_COUNT:
        break; /* a fetch ends with its reply */
    }
    return CM_STEP_DONE;
}

static enum cm_step chat_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct anthropic *o = cm_run_state(run);

    if (ev->kind == CM_EV_START && cm_run_chat(run)->task == CM_TASK_PASS)
        o->pass = CM_ARENA_NEW(cm_run_arena(run), struct anthropic_pass);
    if (o->pass)
        return anthropic_pass_step(run, o->pass, ev, err);
    switch (ev->kind) {
    case CM_EV_START:
        return ask(run, o, err);
    case CM_EV_HEAD:
        return on_head(run, o, ev, err);
    case CM_EV_DATA:
        return on_data(run, o, ev->data, err);
    case CM_EV_END:
        return ended(run, o, err);
    case CM_EV_REPLY:
        return counted(run, o, ev, err);
    case CM_EV_FAILED:
        *err = *ev->err;
        return CM_STEP_FAIL;
    case CM_EV_STOP:
    case CM_EV_OPEN:
    case CM_EV_TIMER:
    case CM_EV_COMPUTED:
        break; /* never asked for, or nothing to tidy up */
    }
    return CM_STEP_DONE;
}

static const char *state_name(const void *state)
{
    static const char *const names[] = {
#define X(name) #name,
        ANTHROPIC_STATES(X)
#undef X
    };

    return names[((const struct anthropic *)state)->state];
}

static void clear(void *state)
{
    struct anthropic *o = state;

    cm_sse_clear(&o->sse);
    cm_buf_clear(&o->body);
    cm_buf_clear(&o->sent);
    if (o->pass)
        cm_buf_clear(&o->pass->body);
    anthropic_answer_clear(&o->answer);
}

/* ---- GET /v1/models: the list, and proof that a credential works, at no cost ---- */

#define PAGES_MAX 20

struct listing {
    int pages;
};

static enum cm_step models_ask(struct cm_run *run, struct cm_str after)
{
    struct cm_call call = {.method = "GET", .timeout_ms = 30000};
    struct cm_str query = CM_S("limit=1000");
    struct anthropic_headers headers;

    if (after.n > 0) {
        struct cm_buf page = {0};

        cm_buf_append(&page, CM_S("limit=1000&after_id="));
        cm_percent(&page, after);
        query = cm_buf_settle(&page, cm_run_arena(run));
    }
    make_headers(run, NULL, false, &headers);
    call.headers = headers.v;
    call.n_headers = headers.n;
    call.url = anthropic_path(run, CM_S("/models"), query);
    return cm_run_fetch(run, &call);
}

static enum cm_step models_read(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct listing *l = cm_run_state(run);
    yyjson_doc *doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    yyjson_val *root = yyjson_doc_get_root(doc), *data = cm_json_get(root, "data"), *model;
    const struct cm_str last = cm_json_str(cm_json_get(root, "last_id"));
    struct anthropic_refusal refusal;
    enum cm_step step = CM_STEP_DONE;
    size_t i, n;

    if (ev->status != 200) {
        anthropic_refusal_read(&refusal, ev->status, ev->headers, ev->n_headers,
                               cm_run_unix_ms(run));
        anthropic_refused(run, &refusal, cm_json_opt(root, "error"), err);
        step = CM_STEP_FAIL;
    } else if (!yyjson_is_arr(data)) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI ": the list of models cannot be read",
                CM_ARG(cm_run_instance(run)->name));
        step = CM_STEP_FAIL;
    } else {
        yyjson_arr_foreach(data, i, n, model)
        {
            struct cm_model_row row;

            anthropic_model_row(model, &row);
            if (row.name.n > 0)
                cm_run_model(run, &row);
        }
        if (yyjson_is_true(cm_json_get(root, "has_more")) && last.n > 0 && ++l->pages < PAGES_MAX)
            step = models_ask(run, last);
    }
    yyjson_doc_free(doc);
    return step;
}

static enum cm_step models_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    switch (ev->kind) {
    case CM_EV_START:
        return models_ask(run, CM_STR_NONE);
    case CM_EV_REPLY:
        return models_read(run, ev, err);
    case CM_EV_FAILED:
        *err = *ev->err;
        return CM_STEP_FAIL;
    case CM_EV_STOP:
    case CM_EV_HEAD:
    case CM_EV_DATA:
    case CM_EV_END:
    case CM_EV_OPEN:
    case CM_EV_TIMER:
    case CM_EV_COMPUTED:
        break;
    }
    return CM_STEP_DONE;
}

/* ---- Configuration ---- */

static bool relays(const struct cm_instance *in, enum cm_dialect dialect)
{
    (void)in;
    return dialect == CM_DIALECT_ANTHROPIC;
}

static int normalize(struct cm_arena *arena, struct cm_str given, struct cm_str *out,
                     struct cm_err *err)
{
    struct cm_str secret = cm_str_trim(given);

    (void)arena;
    if (cm_str_starts_nocase(secret, CM_S("x-api-key:")))
        secret = cm_str_trim(cm_str_from(secret, sizeof("x-api-key:") - 1));
    if (cm_str_starts_nocase(secret, CM_S("Authorization:")))
        secret = cm_str_trim(cm_str_from(secret, sizeof("Authorization:") - 1));
    if (cm_str_starts_nocase(secret, CM_S("Bearer ")))
        secret = cm_str_trim(cm_str_from(secret, sizeof("Bearer ") - 1));
    for (size_t i = 0; i < secret.n; i++) {
        if (secret.p[i] <= ' ' || secret.p[i] >= 127)
            return cm_fail(err, CM_ERR_BAD_REQUEST,
                           "an API key (sk-ant-api03-…) or a token (sk-ant-oat01-…) has no white "
                           "space in it");
    }
    *out = secret;
    return 0;
}

static const struct cm_option options[] = {
    {.name = "version",
     .type = CM_CONF_STR,
     .def = "2023-06-01",
     .help = "anthropic-version of requests that are translated; clients of the dialect send their "
             "own"},
    {.name = "auth",
     .type = CM_CONF_ENUM,
     .def = "auto",
     .choices = "auto|x-api-key|bearer",
     .help = "where the credential goes; auto: tokens of an account (sk-ant-oat…) into "
             "Authorization, keys into x-api-key"},
    /* protocol notes: UNKNOWN whether it is still needed */
    {.name = "oauth_beta",
     .type = CM_CONF_STR,
     .def = "oauth-2025-04-20",
     .help = "added to anthropic-beta for tokens of an account; empty: nothing"},
    {.name = "max_tokens",
     .type = CM_CONF_INT,
     .def = "8192",
     .min = 1,
     .max = 1000000,
     .help = "length of an answer whose client names none; thinking comes on top"},
    {.name = "stream_above",
     .type = CM_CONF_INT,
     .def = "8192",
     .min = 0,
     .max = 1000000,
     .help = "tokens; whole answers that may be longer are asked for as streams when they are "
             "translated, so that a model that has died is told from a slow one"},
    {.name = "cache",
     .type = CM_CONF_ENUM,
     .def = "no",
     .choices = "no|5m|1h",
     .help = "prompt caching for requests that are translated, and for how long"},
    {.name = "untimed_limit",
     .type = CM_CONF_ENUM,
     .def = "month",
     .choices = "month|short",
     .help = "what a 429 without a time means: the limit of the month is used up, or an ordinary "
             "limit"},
    {.name = NULL},
};

const struct cm_provider cm_provider_anthropic = {
    .name = "anthropic",
    .help = "Anthropic and every server that speaks its Messages dialect, by API key or token",
    .base_url = "https://api.anthropic.com",
    .options = options,
    .any_features = CM_MODEL_THINKING,
    .understands = CM_FIELD_TEMPERATURE | CM_FIELD_TOP_P | CM_FIELD_TOP_K | CM_FIELD_MAX_TOKENS |
                   CM_FIELD_STOP | CM_FIELD_EFFORT | CM_FIELD_PARALLEL | CM_FIELD_FORMAT |
                   CM_FIELD_USER | CM_FIELD_CACHE | CM_FIELD_CONTEXT | CM_FIELD_FILE_NAME |
                   CM_FIELD_STRICT,
    .tasks = CM_TASK_BIT(CHAT) | CM_TASK_BIT(COUNT_TOKENS) | CM_TASK_BIT(PASS),
    .keyless = true,
    .cooldown_ms = 20000,
    .relays = relays,
    .normalize = normalize,
    .chat = {.step = chat_step,
             .state_size = sizeof(struct anthropic),
             .state_name = state_name,
             .clear = clear},
    .probe = {.step = models_step, .state_size = sizeof(struct listing)},
    .models_list = {.step = models_step, .state_size = sizeof(struct listing)},
};
