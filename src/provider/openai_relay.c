/* openai, relay lane: the client's body goes up with spliced edits, the answer comes back byte for byte, and a tap reads what the gateway must know of it:
 * usage, errors, the end mark. Wire facts: OpenAI protocol notes, sections 2 to 9. */
#include "openai_int.h"

#include "chatmux/base/mem.h"

/* ---- Chat and completions: events with choices ---- */

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
        uint64_t index = (uint64_t)openai_count_of(choice, "index");

        semantic |= delta_semantic(cm_json_get(choice, "delta")) || says_something(choice, "text");
        if (says_something(choice, "finish_reason") && index < OPENAI_CHOICES_MAX &&
            !o->finished[index]) {
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
    bool in_piece = o->piece.n > 0 && raw.p >= o->piece.p && raw.p < o->piece.p + o->piece.n;

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

static int unreadable_event(const struct tap *t, const struct cm_err *why)
{
    return cm_fail(t->err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an event that cannot be read: %s",
                   CM_ARG(cm_run_instance(t->run)->name), why->msg);
}

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
        return unreadable_event(t, &why);
    }
    error = openai_error_of(root);
    if (error) {
        raw_flush(t->run, o);
        openai_refused(t->run, 0, o->retry_after_s, error, t->err);
        yyjson_doc_free(doc);
        return -1;
    }
    choices = cm_json_get(root, "choices");
    semantic = read_choices(o, choices);
    if (!openai_read_usage(cm_json_opt(root, "usage"), &usage)) {
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

/* ---- Other events: pictures, transcripts, sound ---- */

/* "image_generation.completed", "transcript.text.done": something is whole now. */
static bool ends_something(struct cm_str type)
{
    return cm_str_ends(type, CM_S(".completed")) || cm_str_ends(type, CM_S(".done"));
}

/* An error has the member, or is an event of that type. */
static yyjson_val *event_error(yyjson_val *root, struct cm_str type)
{
    yyjson_val *error = openai_error_of(root);

    return !error && cm_str_eq(type, CM_S("error")) ? root : error;
}

static int tap_named_event(void *arg, const struct cm_sse_event *ev)
{
    struct tap *t = arg;
    struct openai *o = t->o;
    struct cm_usage usage = {0};
    struct cm_err why = {0};
    yyjson_val *root, *error;
    struct cm_str type;
    yyjson_doc *doc;

    if (cm_str_trim(ev->data).n == 0 || cm_str_eq(cm_str_trim(ev->data), CM_S("[DONE]"))) {
        o->done |= ev->data.n > 0;
        raw_pass(t->run, o, ev, false);
        return 0;
    }
    doc = cm_json_parse(ev->data, &cm_json_limits_event, &why);
    root = yyjson_doc_get_root(doc);
    type = cm_json_str(cm_json_get(root, "type"));
    error = event_error(root, type.n > 0 ? type : ev->event);
    if (!doc || error) {
        raw_flush(t->run, o);
        if (error)
            openai_refused(t->run, 0, o->retry_after_s, error, t->err);
        else
            unreadable_event(t, &why);
        yyjson_doc_free(doc);
        return -1;
    }
    if (ends_something(type))
        o->n_ended++;
    if (cm_str_starts(type, CM_S("image_")))
        usage.images = o->n_ended;
    if (openai_read_usage(cm_json_opt(root, "usage"), &usage) || usage.images > 0) {
        usage.images = cm_str_starts(type, CM_S("image_")) ? o->n_ended : 0;
        cm_run_usage(t->run, &usage);
    }
    raw_pass(t->run, o, ev, true);
    yyjson_doc_free(doc);
    return 0;
}

static enum cm_step events_ended(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    struct tap t = {run, o, err};

    o->piece = CM_STR_NONE;
    if (cm_sse_end(&o->sse, tap_named_event, &t, err) < 0)
        return CM_STEP_FAIL;
    raw_flush(run, o);
    if (!o->done && o->n_ended == 0) {
        cm_fail(err, CM_ERR_CUT, CM_PRI " ended its stream before the answer was complete",
                CM_ARG(cm_run_instance(run)->name));
        return CM_STEP_FAIL;
    }
    return CM_STEP_DONE;
}

/* ---- Answers that are no events ---- */

/* Any number of values: vectors are long lists, and nothing is allocated for looking over them. */
static const struct cm_json_limits whole_limits = {.max_values = CM_ANSWER_MAX, .max_depth = 128};

static yyjson_doc *member_of(struct cm_str object, struct cm_str key)
{
    const struct cm_str text = cm_json_member(object, key);

    return text.n > 0 ? cm_json_parse(text, &cm_json_limits_event, NULL) : NULL;
}

/* `error` as openai_error_of() knows it, from the text: without a tree of megabytes. */
static bool told_error(struct cm_run *run, struct openai *o, struct cm_str body, struct cm_err *err)
{
    yyjson_doc *doc = member_of(body, CM_S("error"));
    yyjson_val *error = yyjson_doc_get_root(doc);
    const bool told = error && !yyjson_is_null(error) && !yyjson_is_false(error);

    if (told)
        openai_refused(run, 0, o->retry_after_s, error, err);
    yyjson_doc_free(doc);
    return told;
}

static void tell_usage(struct cm_run *run, struct openai *o, struct cm_str body)
{
    yyjson_doc *doc = member_of(body, CM_S("usage"));
    struct cm_usage usage = {0};
    const bool told = openai_read_usage(yyjson_doc_get_root(doc), &usage);

    usage.images = cm_task_makes_media(o->task) ? o->n_wanted : 0;
    if (told || usage.images > 0)
        cm_run_usage(run, &usage);
    yyjson_doc_free(doc);
}

static enum cm_step large_ended(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    struct cm_event relay = {
        .kind = CM_EVENT_RELAY, .text = cm_buf_str(&o->body), .semantic = true};
    const struct cm_str start = cm_str_trim(relay.text);
    struct cm_err why = {0};

    if (cm_json_scan(relay.text, &whole_limits, &why) < 0 || !cm_str_starts(start, CM_S("{"))) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an answer that cannot be read: %s",
                CM_ARG(cm_run_instance(run)->name), why.cls ? why.msg : "it is no JSON object");
        return CM_STEP_FAIL;
    }
    if (told_error(run, o, relay.text, err))
        return CM_STEP_FAIL;
    tell_usage(run, o, relay.text);
    cm_run_emit(run, &relay);
    return CM_STEP_DONE;
}

/* Of a chat or a completion: small enough to be read as a whole. */
static enum cm_step whole_ended(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    struct cm_event relay = {
        .kind = CM_EVENT_RELAY, .text = cm_buf_str(&o->body), .semantic = true};
    struct cm_err why = {0};
    yyjson_doc *doc = cm_json_parse(relay.text, &cm_json_limits_request, &why);
    yyjson_val *root = yyjson_doc_get_root(doc), *error = openai_error_of(root);
    struct cm_usage usage;

    if (!doc || !yyjson_is_obj(root)) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an answer that cannot be read: %s",
                CM_ARG(cm_run_instance(run)->name), doc ? "it is no JSON object" : why.msg);
    } else if (error) {
        openai_refused(run, 0, o->retry_after_s, error, err);
    } else if (yyjson_arr_size(cm_json_opt(root, "choices")) == 0) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an answer without choices",
                CM_ARG(cm_run_instance(run)->name));
    } else {
        if (openai_read_usage(cm_json_opt(root, "usage"), &usage))
            cm_run_usage(run, &usage);
        cm_run_emit(run, &relay);
    }
    yyjson_doc_free(doc);
    return err->cls == CM_ERR_NONE ? CM_STEP_DONE : CM_STEP_FAIL;
}

static enum cm_step plain_ended(struct cm_run *run, struct openai *o)
{
    struct cm_event relay = {
        .kind = CM_EVENT_RELAY, .text = cm_buf_str(&o->body), .semantic = true};

    cm_run_emit(run, &relay);
    return CM_STEP_DONE;
}

/* ---- The lane ---- */

static enum cm_step keep(struct cm_run *run, struct openai *o, struct cm_str piece,
                         struct cm_err *err)
{
    cm_buf_append(&o->body, piece);
    if (!o->body.failed)
        return CM_STEP_WAIT;
    cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an answer larger than %d bytes",
            CM_ARG(cm_run_instance(run)->name), CM_ANSWER_MAX);
    return CM_STEP_FAIL;
}

static enum cm_step feed(struct cm_run *run, struct openai *o, struct cm_str piece, cm_sse_fn *tap,
                         struct cm_err *err)
{
    struct tap t = {run, o, err};

    o->piece = piece;
    if (cm_sse_feed(&o->sse, piece, tap, &t, err) < 0)
        return CM_STEP_FAIL;
    raw_flush(run, o);
    return CM_STEP_WAIT;
}

enum cm_step openai_relay_data(struct cm_run *run, struct openai *o, struct cm_str piece,
                               struct cm_err *err)
{
    struct cm_event bytes = {.kind = CM_EVENT_RELAY, .text = piece, .semantic = true};

    switch (o->state) {
    case OPENAI_TALK:
        if (feed(run, o, piece, tap_event, err) == CM_STEP_FAIL)
            return CM_STEP_FAIL;
        return o->done ? CM_STEP_DONE : CM_STEP_WAIT;
    case OPENAI_RESPONSE:
        return openai_responses_data(run, o, piece, err);
    case OPENAI_EVENTS:
        return feed(run, o, piece, tap_named_event, err);
    case OPENAI_BYTES:
        cm_run_emit(run, &bytes);
        return CM_STEP_WAIT;
    case OPENAI_WHOLE:
    case OPENAI_PLAIN:
        return keep(run, o, piece, err);
    case OPENAI_REFUSED: /* openai.c's */
    case OPENAI_SESSION: /* openai_session.c's */
        break;
    }
    return CM_STEP_WAIT;
}

enum cm_step openai_relay_ended(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    switch (o->state) {
    case OPENAI_TALK:
        return talk_ended(run, o, err);
    case OPENAI_RESPONSE:
        return openai_responses_ended(run, o, err);
    case OPENAI_EVENTS:
        return events_ended(run, o, err);
    case OPENAI_WHOLE:
        if (o->response)
            return openai_response_whole(run, o, err);
        return openai_talks(o) ? whole_ended(run, o, err) : large_ended(run, o, err);
    case OPENAI_PLAIN:
        return plain_ended(run, o);
    case OPENAI_BYTES:
    case OPENAI_REFUSED:
    case OPENAI_SESSION:
        break;
    }
    return CM_STEP_DONE;
}
