/* openai, relay lane of the Responses API: events with names, of which the last has the figures, and an id that only the account that made the response
 * knows. What a failure means is read before anything is passed on; it is told in the gateway's own events, which go on where these have ended. Wire facts:
 * OpenAI protocol notes, section 10. */
#include "openai_int.h"

struct tap {
    struct cm_run *run;
    struct openai *o;
    struct cm_err *err;
};

/* Items and parts that only begin, and how the response stands: everything else says something. */
static bool means_something(struct cm_str type, yyjson_val *root)
{
    static const struct cm_str begun[] = {
        CM_S_INIT("response.created"), CM_S_INIT("response.in_progress"),
        CM_S_INIT("response.queued"), CM_S_INIT("response.content_part.added"),
        CM_S_INIT("response.reasoning_summary_part.added")};
    const struct cm_str item = cm_json_str(cm_json_get(cm_json_get(root, "item"), "type"));

    for (size_t i = 0; i < CM_COUNT(begun); i++)
        if (cm_str_eq(type, begun[i]))
            return false;
    if (cm_str_eq(type, CM_S("response.output_item.added")))
        return !cm_str_eq(item, CM_S("message")) && !cm_str_eq(item, CM_S("reasoning"));
    return true;
}

static int unreadable(const struct tap *t, const struct cm_err *why)
{
    return cm_fail(t->err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an event that cannot be read: %s",
                   CM_ARG(cm_run_instance(t->run)->name), why->msg);
}

/* The error that an event tells of; NULL = none. */
static yyjson_val *error_in(yyjson_val *root, struct cm_str type)
{
    yyjson_val *error = openai_error_of(root);

    if (error)
        return error;
    if (cm_str_eq(type, CM_S("error")))
        return root;
    if (!cm_str_eq(type, CM_S("response.failed")))
        return NULL;
    error = cm_json_opt(cm_json_get(root, "response"), "error");
    return error ? error : root;
}

static bool ends(struct cm_str type)
{
    return cm_str_eq(type, CM_S("response.completed")) ||
           cm_str_eq(type, CM_S("response.incomplete")) ||
           cm_str_eq(type, CM_S("response.cancelled"));
}

/* The id of reasoning that only the account that made it can read; "" = it is something else. */
static struct cm_str sealed_id(yyjson_val *item)
{
    return cm_json_str(cm_json_get(item, "encrypted_content")).n > 0
               ? cm_json_str(cm_json_get(item, "id"))
               : CM_STR_NONE;
}

static struct cm_str first_sealed(yyjson_val *output)
{
    struct cm_str id = CM_STR_NONE;
    size_t i, n;
    yyjson_val *item;

    yyjson_arr_foreach(output, i, n, item)
    {
        if (id.n == 0)
            id = sealed_id(item);
    }
    return id;
}

static void pass(const struct tap *t, const struct cm_sse_event *ev, yyjson_val *root,
                 struct cm_str type)
{
    yyjson_val *response = cm_json_get(root, "response");
    struct cm_event relay = {.kind = CM_EVENT_RELAY,
                             .text = ev->raw,
                             .id = cm_json_str(cm_json_get(response, "id")),
                             .from = openai_count_of(root, "sequence_number"),
                             .semantic = means_something(type, root)};
    struct cm_event blank = {.kind = CM_EVENT_RELAY, .text = CM_S("\n\n"), .from = relay.from};

    if (cm_str_eq(type, CM_S("response.output_item.done")))
        relay.name = sealed_id(cm_json_get(root, "item"));
    if (cm_str_eq(type, CM_S("response.created")))
        relay.data = cm_json_member(ev->data, CM_S("response"));
    cm_run_emit(t->run, &relay);
    if (ev->unfinished) /* a server that leaves the last empty line out */
        cm_run_emit(t->run, &blank);
}

static int tap_event(void *arg, const struct cm_sse_event *ev)
{
    struct tap *t = arg;
    struct cm_event chatter = {.kind = CM_EVENT_RELAY, .text = ev->raw, .from = -1};
    yyjson_val *root, *error;
    struct cm_err why = {0};
    struct cm_usage usage;
    struct cm_str type;
    yyjson_doc *doc;

    if (t->o->done)
        return 0; /* behind the end: nobody's business */
    if (cm_str_trim(ev->data).n == 0 || cm_str_eq(cm_str_trim(ev->data), CM_S("[DONE]"))) {
        if (cm_str_trim(ev->data).n == 0)
            cm_run_emit(t->run, &chatter);
        return 0;
    }
    doc = cm_json_parse(ev->data, &cm_json_limits_event, &why);
    if (!doc)
        return unreadable(t, &why);
    root = yyjson_doc_get_root(doc);
    type = cm_json_str(cm_json_get(root, "type"));
    error = error_in(root, type);
    if (error) {
        openai_refused(t->run, 0, t->o->retry_after_s, error, t->err);
    } else {
        if (openai_read_usage(cm_json_opt(cm_json_get(root, "response"), "usage"), &usage))
            cm_run_usage(t->run, &usage);
        pass(t, ev, root, type);
        t->o->done = ends(type);
    }
    yyjson_doc_free(doc);
    return error ? -1 : 0;
}

enum cm_step openai_responses_data(struct cm_run *run, struct openai *o, struct cm_str piece,
                                   struct cm_err *err)
{
    struct tap t = {run, o, err};

    if (cm_sse_feed(&o->sse, piece, tap_event, &t, err) < 0)
        return CM_STEP_FAIL;
    return o->done ? CM_STEP_DONE : CM_STEP_WAIT;
}

enum cm_step openai_responses_ended(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    struct tap t = {run, o, err};

    if (cm_sse_end(&o->sse, tap_event, &t, err) < 0)
        return CM_STEP_FAIL;
    if (o->done)
        return CM_STEP_DONE;
    cm_fail(err, CM_ERR_CUT, CM_PRI " ended its stream before the answer was complete",
            CM_ARG(cm_run_instance(run)->name));
    return CM_STEP_FAIL;
}

enum cm_step openai_response_whole(struct cm_run *run, struct openai *o, struct cm_err *err)
{
    struct cm_event relay = {
        .kind = CM_EVENT_RELAY, .text = cm_buf_str(&o->body), .semantic = true};
    struct cm_err why = {0};
    yyjson_doc *doc = cm_json_parse(relay.text, &cm_json_limits_request, &why);
    yyjson_val *root = yyjson_doc_get_root(doc), *error = openai_error_of(root);
    struct cm_usage usage;

    relay.id = cm_json_str(cm_json_get(root, "id"));
    relay.name = first_sealed(cm_json_get(root, "output"));
    if (error) {
        openai_refused(run, 0, o->retry_after_s, error, err);
    } else if (o->task == CM_TASK_COUNT_TOKENS &&
               yyjson_is_int(cm_json_get(root, "input_tokens"))) {
        cm_run_emit(run, &relay);
    } else if (relay.id.n == 0 || !yyjson_is_arr(cm_json_get(root, "output"))) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an answer that is no response%s%s",
                CM_ARG(cm_run_instance(run)->name), doc ? "" : ": ", why.msg);
    } else {
        if (openai_read_usage(cm_json_opt(root, "usage"), &usage))
            cm_run_usage(run, &usage);
        cm_run_emit(run, &relay);
    }
    yyjson_doc_free(doc);
    return err->cls == CM_ERR_NONE ? CM_STEP_DONE : CM_STEP_FAIL;
}
