/* openai: api.openai.com and every server that speaks its dialect.
 *
 * Relay lane: the client's body goes up with spliced edits (model name, stream_options), the answer
 * comes back byte for byte; a tap reads each event for usage, errors and the end mark.
 * Happy path: TALK (stream of events) or WHOLE (one JSON body) -> done at [DONE] or at the end of
 * the body.
 * Failures: REFUSED collects the body of an error status; an event with an `error` member, an
 * unreadable event, a stream without its end mark (CUT).
 * Wire facts: OpenAI protocol notes, sections 1-3 and 12. */
#include "chatmux/base/version.h"
#include "chatmux/codec/json.h"
#include "chatmux/codec/sse.h"
#include "chatmux/provider/list.h"
#include "chatmux/provider/run.h"

#define OPENAI_STATES(X) X(TALK) X(WHOLE) X(REFUSED)
enum openai_state {
#define X(name) OPENAI_##name,
    OPENAI_STATES(X)
#undef X
};

#define EVENT_MAX (32u * 1024 * 1024) /* one event can be a picture in base64 */
#define REFUSAL_MAX (64u * 1024)      /* of an error body */
#define CHOICES_MAX 128               /* n of the dialect */

struct openai {
    enum openai_state state;
    int status; /* of the upstream's answer */
    int retry_after_s;
    struct cm_sse sse;
    struct cm_buf body;       /* WHOLE, REFUSED: what came so far */
    struct cm_buf sent;       /* the request's spliced body */
    struct cm_str piece;      /* TALK: what is being fed */
    struct cm_str run_of_raw; /* neighbouring events of `piece`, not yet emitted */
    bool raw_semantic;
    bool done;                  /* [DONE] was seen */
    bool finished[CHOICES_MAX]; /* a finish_reason was seen for this choice */
    int64_t n_finished;
    bool want_usage_chunk; /* the client asked for it */
    int64_t n_wanted;      /* choices; here because the chat may go in the middle of a step */
};

/* ---- What an upstream's refusal means ---- */

static const struct {
    const char *code;
    enum cm_err_class cls;
} code_classes[] = {
    {"context_length_exceeded", CM_ERR_CONTEXT_LENGTH},
    {"string_above_max_length", CM_ERR_BAD_REQUEST},
    {"content_filter", CM_ERR_CONTENT_FILTER},
    {"content_policy_violation", CM_ERR_CONTENT_FILTER},
    {"insufficient_quota", CM_ERR_QUOTA_EXHAUSTED},
    {"billing_hard_limit_reached", CM_ERR_QUOTA_EXHAUSTED},
    {"rate_limit_exceeded", CM_ERR_RATE_LIMITED},
    {"invalid_api_key", CM_ERR_INVALID_CREDENTIAL},
    {"account_deactivated", CM_ERR_INVALID_CREDENTIAL},
    {"model_not_found", CM_ERR_MODEL_UNAVAILABLE},
    {"unsupported_country_region_territory", CM_ERR_UPSTREAM_DOWN},
    {"overloaded", CM_ERR_OVERLOADED},
    {"overloaded_error", CM_ERR_OVERLOADED},
};

static enum cm_err_class class_of_status(int status)
{
    switch (status) {
    case 401:
        return CM_ERR_INVALID_CREDENTIAL;
    case 402:
        return CM_ERR_QUOTA_EXHAUSTED;
    case 403:
        return CM_ERR_MODEL_UNAVAILABLE; /* a permission this account lacks; another may have it */
    case 408:
        return CM_ERR_TIMEOUT;
    case 429:
        return CM_ERR_RATE_LIMITED;
    case 503:
    case 529:
        return CM_ERR_OVERLOADED;
    default:
        return status >= 400 && status < 500 ? CM_ERR_BAD_REQUEST : CM_ERR_UPSTREAM_DOWN;
    }
}

static enum cm_err_class class_of_code(struct cm_str code, enum cm_err_class otherwise)
{
    for (size_t i = 0; i < CM_COUNT(code_classes); i++)
        if (cm_str_eq(code, cm_str_of(code_classes[i].code)))
            return code_classes[i].cls;
    return otherwise;
}

/* The `error` value of an answer: an object, or only a text; Google's shim wraps the whole in an
 * array. NULL when there is none. */
static yyjson_val *error_of(yyjson_val *root)
{
    yyjson_val *e;

    if (yyjson_is_arr(root))
        root = yyjson_arr_get_first(root);
    e = cm_json_opt(root, "error");
    if (!e || (yyjson_is_bool(e) && !yyjson_get_bool(e)))
        return NULL;
    return e;
}

/* A status that is told as a number in an answer that began well: OpenRouter, Google. */
static int status_told(int status, yyjson_val *error)
{
    yyjson_val *code = cm_json_get(error, "code");

    return status < 400 && yyjson_is_int(code) && yyjson_get_sint(code) >= 400 &&
                   yyjson_get_sint(code) < 600
               ? yyjson_get_int(code)
               : status;
}

/* status 0: the error came inside a 200. */
static int openai_refused(struct cm_run *run, int status, int retry_after_s, yyjson_val *error,
                          struct cm_err *err)
{
    const struct cm_instance *in = cm_run_instance(run);
    const struct cm_cred *cred = cm_run_cred(run);
    struct cm_str message =
        yyjson_is_str(error) ? cm_json_str(error) : cm_json_str(cm_json_get(error, "message"));
    struct cm_str code = cm_json_str(cm_json_get(error, "code")),
                  type = cm_json_str(cm_json_get(error, "type"));
    enum cm_err_class cls;
    bool own_words;

    status = status_told(status, error);
    cls = class_of_code(code, class_of_code(type, class_of_status(status)));
    if (cls == CM_ERR_BAD_REQUEST && cm_str_has(message, CM_S("must be verified")))
        cls = CM_ERR_VERIFICATION_REQUIRED;
    if (cls == CM_ERR_BAD_REQUEST && status == 404 && cm_str_has(message, CM_S("model")))
        cls = CM_ERR_MODEL_UNAVAILABLE; /* servers that know no codes */
    if (cls == CM_ERR_INVALID_CREDENTIAL || (cred->secret.n && cm_str_has(message, cred->secret)))
        message = CM_STR_NONE;                          /* it may quote the key */
    own_words = cm_err_info(cls)->next == CM_NEXT_STOP; /* it is about the request itself */
    if (cls == CM_ERR_INVALID_CREDENTIAL)
        cm_fail(err, cls, CM_PRI " refused the operator's credential (" CM_PRI "%s" CM_PRI ")",
                CM_ARG(in->name), CM_ARG(cred->label), code.n ? ", " : "", CM_ARG(code));
    else if (message.n && own_words)
        cm_fail(err, cls, CM_PRI, CM_ARG(message));
    else if (message.n)
        cm_fail(err, cls, CM_PRI ": " CM_PRI, CM_ARG(in->name), CM_ARG(message));
    else if (status == 0)
        cm_fail(err, cls, CM_PRI " reported an error without words", CM_ARG(in->name));
    else
        cm_fail(err, cls, CM_PRI " answered with status %d", CM_ARG(in->name), status);
    if (own_words) {
        cm_str_copy(err->code, sizeof(err->code), code);
        cm_str_copy(err->param, sizeof(err->param), cm_json_str(cm_json_get(error, "param")));
    }
    /* a 403 goes on as one where it tells of a permission or a region, not of our credential */
    if ((status >= 400 && status < 500 && cls == CM_ERR_BAD_REQUEST) ||
        (status == 403 && (cls == CM_ERR_MODEL_UNAVAILABLE || cls == CM_ERR_UPSTREAM_DOWN)))
        err->http_status = status;
    err->retry_after_s = retry_after_s;
    return -1;
}

static enum cm_step refused_whole(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(cm_buf_str(&o->body), &cm_json_limits_event, NULL);

    openai_refused(run, o->status, o->retry_after_s, error_of(yyjson_doc_get_root(doc)), err);
    yyjson_doc_free(doc);
    return CM_STEP_FAIL;
}

/* ---- Usage ---- */

#define COUNT_MAX (UINT64_C(1) << 40) /* nobody means more, and sums of such cannot overflow */

static int64_t count_of(yyjson_val *obj, const char *key)
{
    yyjson_val *v = cm_json_get(obj, key);

    return yyjson_is_uint(v) && yyjson_get_uint(v) <= COUNT_MAX ? (int64_t)yyjson_get_uint(v) : 0;
}

/* Cached tokens are a part of prompt_tokens, reasoning tokens a part of completion_tokens; ours are
 * disjoint. */
static bool read_usage(yyjson_val *usage, struct cm_usage *out)
{
    int64_t in = count_of(usage, "prompt_tokens"), produced = count_of(usage, "completion_tokens");
    yyjson_val *in_details = cm_json_get(usage, "prompt_tokens_details");
    int64_t cached = count_of(in_details, "cached_tokens"),
            written = count_of(in_details, "cache_write_tokens");
    int64_t reasoning =
        count_of(cm_json_get(usage, "completion_tokens_details"), "reasoning_tokens");

    if (!yyjson_is_obj(usage))
        return false;
    if (cached == 0)
        cached = count_of(usage, "prompt_cache_hit_tokens"); /* DeepSeek */
    cached = cached < in ? cached : in;
    written = written < in - cached ? written : in - cached;
    reasoning = reasoning < produced ? reasoning : produced;
    *out = (struct cm_usage){.source = CM_USAGE_UPSTREAM,
                             .in_uncached = in - cached - written,
                             .in_cache_read = cached,
                             .in_cache_write = written,
                             .out_text = produced - reasoning,
                             .out_reasoning = reasoning};
    return true;
}

/* ---- The tap ---- */

static bool says_something(yyjson_val *obj, const char *key)
{
    yyjson_val *v = cm_json_get(obj, key);

    return yyjson_is_str(v) ? yyjson_get_len(v) > 0
                            : yyjson_is_ctn(v) && unsafe_yyjson_get_len(v) > 0;
}

/* Text, reasoning, refusal, tool call, audio, image: everything of a delta but the role. */
static bool delta_semantic(yyjson_val *delta)
{
    static const char *const members[] = {"content",    "reasoning_content", "reasoning", "refusal",
                                          "tool_calls", "function_call",     "audio",     "images"};

    for (size_t i = 0; i < CM_COUNT(members); i++)
        if (says_something(delta, members[i]))
            return true;
    return false;
}

static bool read_choices(struct openai *o, yyjson_val *choices)
{
    bool semantic = false;
    size_t i, n;
    yyjson_val *choice;

    yyjson_arr_foreach(choices, i, n, choice)
    {
        uint64_t index = (uint64_t)count_of(choice, "index");

        semantic |= delta_semantic(cm_json_get(choice, "delta")) || says_something(choice, "text");
        if (says_something(choice, "finish_reason") && index < CHOICES_MAX && !o->finished[index]) {
            o->finished[index] = true;
            o->n_finished++;
        }
    }
    return semantic;
}

static void raw_flush(struct cm_run *run, struct openai *o)
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
static void raw_pass(struct cm_run *run, struct openai *o, const struct cm_sse_event *ev,
                     bool semantic)
{
    struct cm_event blank = {.kind = CM_EVENT_RELAY, .text = CM_S("\n\n")};
    struct cm_str raw = ev->raw;
    bool in_piece = raw.p >= o->piece.p && raw.p < o->piece.p + o->piece.n;

    if (o->run_of_raw.n > 0 && o->run_of_raw.p + o->run_of_raw.n == raw.p) {
        o->run_of_raw.n += raw.n;
    } else {
        raw_flush(run, o);
        o->run_of_raw = raw;
    }
    o->raw_semantic |= semantic;
    if (!in_piece)
        raw_flush(run, o);
    /* the last event of a server that leaves its empty line out: nothing must run into it */
    if (ev->unfinished)
        cm_run_emit(run, &blank);
}

/* A chunk with a figure the client did not ask for: without choices it is dropped, else only the
 * figure is taken out. */
static void pass_without_usage(struct cm_run *run, struct openai *o, const struct cm_sse_event *ev,
                               yyjson_val *choices, bool semantic)
{
    struct cm_json_edit drop = {.key = CM_S("usage")};
    struct cm_event relay = {.kind = CM_EVENT_RELAY, .semantic = semantic};
    struct cm_buf data = {0}, out = {0};

    raw_flush(run, o);
    if (yyjson_arr_size(choices) > 0 && cm_json_splice(ev->data, &drop, 1, &data, NULL) == 0) {
        cm_sse_put(&out, ev->event, cm_buf_str(&data));
        relay.text = cm_buf_str(&out);
        cm_run_emit(run, &relay);
    }
    cm_buf_clear(&data);
    cm_buf_clear(&out);
}

struct tap {
    struct cm_run *run;
    struct openai *o;
    struct cm_err *err;
};

static int tap_event(void *arg, const struct cm_sse_event *ev)
{
    struct tap *t = arg;
    struct openai *o = t->o;
    struct cm_usage usage;
    yyjson_val *root, *error, *choices;
    struct cm_err why = {0};
    yyjson_doc *doc;
    bool semantic;

    if (o->done)
        return 0; /* behind the end mark: nobody's business */
    if (cm_str_trim(ev->data).n == 0) {
        raw_pass(t->run, o, ev, false);
        return 0;
    }
    if (cm_str_eq(cm_str_trim(ev->data), CM_S("[DONE]"))) {
        o->done = true;
        raw_pass(t->run, o, ev, false);
        return 0;
    }
    doc = cm_json_parse(ev->data, &cm_json_limits_event, &why);
    root = yyjson_doc_get_root(doc);
    if (!doc) {
        raw_flush(t->run, o);
        return cm_fail(t->err, CM_ERR_UPSTREAM_DOWN,
                       CM_PRI " sent an event that cannot be read: %s",
                       CM_ARG(cm_run_instance(t->run)->name), why.msg);
    }
    error = error_of(root);
    if (error) {
        raw_flush(t->run, o);
        openai_refused(t->run, 0, o->retry_after_s, error, t->err);
        yyjson_doc_free(doc);
        return -1;
    }
    choices = cm_json_get(root, "choices");
    semantic = read_choices(o, choices);
    if (!read_usage(cm_json_opt(root, "usage"), &usage)) {
        raw_pass(t->run, o, ev, semantic);
    } else {
        cm_run_usage(t->run, &usage);
        if (o->want_usage_chunk)
            raw_pass(t->run, o, ev, semantic);
        else
            pass_without_usage(t->run, o, ev, choices, semantic);
    }
    yyjson_doc_free(doc);
    return 0;
}

/* ---- The flow ---- */

/* Local servers ask for no key: then Authorization, the last header of a call, is left out. */
static size_t without_key(const struct cm_run *run)
{
    return cm_run_cred(run)->secret.n == 0;
}

static struct cm_str bearer(struct cm_run *run)
{
    return cm_arena_printf(cm_run_arena(run), "Bearer " CM_PRI, CM_ARG(cm_run_cred(run)->secret));
}

static struct cm_str with_usage_asked(struct cm_run *run, const struct cm_chat *chat)
{
    struct cm_json_edit ask = {.key = CM_S("include_usage"), .value = CM_S("true")};
    struct cm_str given = cm_json_member(chat->raw, CM_S("stream_options"));
    struct cm_buf out = {0};

    if (cm_str_starts(given, CM_S("{")) && cm_json_splice(given, &ask, 1, &out, NULL) == 0)
        return cm_buf_settle(&out, cm_run_arena(run));
    cm_buf_clear(&out);
    return CM_S("{\"include_usage\":true}");
}

static enum cm_step openai_ask(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    const struct cm_target *target = cm_run_target(run);
    struct cm_buf model = {0};
    struct cm_json_edit edits[2];
    size_t n = 0;
    struct cm_header headers[] = {
        {CM_S("Content-Type"), CM_S("application/json")},
        {CM_S("Accept"), chat->stream ? CM_S("text/event-stream") : CM_S("application/json")},
        {CM_S("User-Agent"), CM_S("chatmux/" CM_VERSION)},
        {CM_S("Authorization"), bearer(run)},
    };
    struct cm_call call = {.method = "POST",
                           .url = CM_S("/chat/completions"),
                           .headers = headers,
                           .n_headers = CM_COUNT(headers) - without_key(run),
                           .long_wait = !chat->stream};
    int failed = 0;

    if (!cm_str_eq(target->model, chat->model)) {
        cm_json_put_str(&model, target->model);
        edits[n++] = (struct cm_json_edit){CM_S("model"), cm_buf_str(&model)};
    }
    if (chat->stream && cm_option_bool(cm_run_instance(run), "stream_options"))
        edits[n++] = (struct cm_json_edit){CM_S("stream_options"), with_usage_asked(run, chat)};
    call.body = chat->raw;
    /* a stream has its own copy, so that the connection may outlive the exchange and serve again */
    if (n > 0 || chat->stream) {
        failed = cm_json_splice(chat->raw, edits, n, &o->sent, err);
        call.body = cm_buf_str(&o->sent);
    }
    cm_buf_clear(&model);
    if (failed)
        return CM_STEP_FAIL;
    o->want_usage_chunk = chat->include_usage;
    o->n_wanted = chat->n;
    cm_sse_init(&o->sse, EVENT_MAX);
    return cm_run_stream(run, &call);
}

static bool has_type(const struct cm_ev *ev, struct cm_str type)
{
    return cm_str_starts_nocase(cm_header_find(ev->headers, ev->n_headers, CM_S("content-type")),
                                type);
}

static enum cm_step openai_head(struct cm_run *run, struct openai *o, const struct cm_ev *ev,
                                struct cm_err *err)
{
    struct cm_event head = {.kind = CM_EVENT_HEAD,
                            .status = ev->status,
                            .headers = ev->headers,
                            .n_headers = ev->n_headers};
    bool stream = cm_run_chat(run)->stream;

    o->status = ev->status;
    o->retry_after_s = cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run));
    if (ev->status == 200 && has_type(ev, CM_S("text/html"))) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " answered with a web page",
                CM_ARG(cm_run_instance(run)->name));
        return CM_STEP_FAIL;
    }
    /* JSON where events were asked for is an error object, on servers that always say 200 */
    if (ev->status != 200 || (stream && has_type(ev, CM_S("application/json")))) {
        o->state = OPENAI_REFUSED;
        cm_buf_init(&o->body, REFUSAL_MAX);
    } else {
        o->state = stream ? OPENAI_TALK : OPENAI_WHOLE;
        cm_buf_init(&o->body, CM_ANSWER_MAX);
    }
    cm_run_emit(run, &head);
    return CM_STEP_WAIT;
}

static enum cm_step openai_data(struct cm_run *run, struct openai *o, struct cm_str piece,
                                struct cm_err *err)
{
    struct tap t = {run, o, err};

    if (o->state != OPENAI_TALK) {
        cm_buf_append(&o->body, piece);
        if (!o->body.failed)
            return CM_STEP_WAIT;
        if (o->state == OPENAI_REFUSED)
            return refused_whole(run, o, err);
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an answer larger than %d bytes",
                CM_ARG(cm_run_instance(run)->name), CM_ANSWER_MAX);
        return CM_STEP_FAIL;
    }
    o->piece = piece;
    if (cm_sse_feed(&o->sse, piece, tap_event, &t, err) < 0)
        return CM_STEP_FAIL;
    raw_flush(run, o);
    return o->done ? CM_STEP_DONE : CM_STEP_WAIT;
}

/* The stream has ended by its framing, and the end mark has not been seen. */
static enum cm_step talk_ended(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    struct cm_event mark = {.kind = CM_EVENT_RELAY, .text = CM_S("data: [DONE]\n\n")};
    struct tap t = {run, o, err};

    o->piece = CM_STR_NONE;
    if (cm_sse_end(&o->sse, tap_event, &t, err) < 0)
        return CM_STEP_FAIL;
    raw_flush(run, o);
    if (!o->done && o->n_finished < o->n_wanted) {
        cm_fail(err, CM_ERR_CUT, CM_PRI " ended its stream before the answer was complete",
                CM_ARG(cm_run_instance(run)->name));
        return CM_STEP_FAIL;
    }
    /* every choice is finished: a server that sends no end mark. Our clients get one */
    if (!o->done)
        cm_run_emit(run, &mark);
    return CM_STEP_DONE;
}

static enum cm_step whole_ended(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    struct cm_event relay = {
        .kind = CM_EVENT_RELAY, .text = cm_buf_str(&o->body), .semantic = true};
    struct cm_err why = {0};
    yyjson_doc *doc = cm_json_parse(relay.text, &cm_json_limits_request, &why);
    yyjson_val *root = yyjson_doc_get_root(doc), *error = error_of(root);
    struct cm_usage usage;

    if (!doc || !yyjson_is_obj(root)) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an answer that cannot be read: %s",
                CM_ARG(cm_run_instance(run)->name), doc ? "it is no JSON object" : why.msg);
    } else if (error) {
        openai_refused(run, 0, o->retry_after_s, error, err);
    } else {
        if (read_usage(cm_json_opt(root, "usage"), &usage))
            cm_run_usage(run, &usage);
        cm_run_emit(run, &relay);
    }
    yyjson_doc_free(doc);
    return err->cls == CM_ERR_NONE ? CM_STEP_DONE : CM_STEP_FAIL;
}

static enum cm_step openai_ended(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    switch (o->state) {
    case OPENAI_TALK:
        return talk_ended(run, o, err);
    case OPENAI_WHOLE:
        return whole_ended(run, o, err);
    case OPENAI_REFUSED:
        return refused_whole(run, o, err);
    }
    return CM_STEP_DONE;
}

static enum cm_step openai_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct openai *o = cm_run_state(run);

    switch (ev->kind) {
    case CM_EV_START:
        return openai_ask(run, o, err);
    case CM_EV_HEAD:
        return openai_head(run, o, ev, err);
    case CM_EV_DATA:
        return openai_data(run, o, ev->data, err);
    case CM_EV_END:
        return openai_ended(run, o, err);
    case CM_EV_FAILED:
        *err = *ev->err;
        return CM_STEP_FAIL;
    case CM_EV_STOP:
    case CM_EV_REPLY:
    case CM_EV_OPEN:
    case CM_EV_TIMER:
    case CM_EV_COMPUTED:
        break; /* never asked for, or nothing to tidy up */
    }
    return CM_STEP_DONE;
}

static const char *openai_state_name(const void *state)
{
    static const char *const names[] = {
#define X(name) #name,
        OPENAI_STATES(X)
#undef X
    };

    return names[((const struct openai *)state)->state];
}

static void openai_clear(void *state)
{
    struct openai *o = state;

    cm_sse_clear(&o->sse);
    cm_buf_clear(&o->body);
    cm_buf_clear(&o->sent);
}

/* ---- GET /models: the list, and proof that a key works, at no cost ---- */

static enum cm_step models_ask(struct cm_run *run)
{
    struct cm_header headers[] = {
        {CM_S("Accept"), CM_S("application/json")},
        {CM_S("User-Agent"), CM_S("chatmux/" CM_VERSION)},
        {CM_S("Authorization"), bearer(run)},
    };
    struct cm_call call = {.method = "GET",
                           .url = CM_S("/models"),
                           .headers = headers,
                           .n_headers = CM_COUNT(headers) - without_key(run),
                           .timeout_ms = 30000};

    return cm_run_fetch(run, &call);
}

static enum cm_step models_read(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    yyjson_val *root = yyjson_doc_get_root(doc), *data = cm_json_get(root, "data"), *model;
    bool failed = true;
    size_t i, n;

    if (ev->status != 200) {
        openai_refused(run, ev->status,
                       cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run)),
                       error_of(root), err);
    } else if (!yyjson_is_arr(data)) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI ": the list of models cannot be read",
                CM_ARG(cm_run_instance(run)->name));
    } else {
        yyjson_arr_foreach(data, i, n, model)
        {
            struct cm_model_row row = {.name = cm_json_str(cm_json_get(model, "id"))};

            if (row.name.n > 0)
                cm_run_model(run, &row);
        }
        failed = false;
    }
    yyjson_doc_free(doc);
    return failed ? CM_STEP_FAIL : CM_STEP_DONE;
}

static enum cm_step models_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    switch (ev->kind) {
    case CM_EV_START:
        return models_ask(run);
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
        break; /* never asked for, or nothing to tidy up */
    }
    return CM_STEP_DONE;
}

static bool openai_relays(const struct cm_instance *in, enum cm_dialect dialect)
{
    (void)in;
    return dialect == CM_DIALECT_OPENAI_CHAT;
}

static const struct cm_option options[] = {
    {.name = "stream_options",
     .type = CM_CONF_BOOL,
     .def = "yes",
     .help = "ask for usage in streams; no: the server refuses stream_options"},
    {.name = NULL},
};

const struct cm_provider cm_provider_openai = {
    .name = "openai",
    .help = "OpenAI and every server that speaks its dialect, by API key",
    .base_url = "https://api.openai.com/v1",
    .options = options,
    .keyless = true,
    .cooldown_ms = 20000,
    .relays = openai_relays,
    .chat = {.step = openai_step,
             .state_size = sizeof(struct openai),
             .state_name = openai_state_name,
             .clear = openai_clear},
    .probe = {.step = models_step},
    .models_list = {.step = models_step},
};
