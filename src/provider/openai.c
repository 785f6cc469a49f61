/* openai: api.openai.com and every server that speaks its dialect.
 *
 * Relay lane: the client's body goes up with spliced edits, the answer comes back byte for byte, and a tap reads what the gateway must know of it.
 * Translate lane (`said`): the request is written anew, and the answer becomes canonical events.
 * Happy path: the head decides what comes (enum openai_state) -> done at [DONE], or at the end of the body.
 * Failures: REFUSED collects the body of an error status; an event with an `error` member, an unreadable event, a stream without its end mark (CUT).
 * Wire facts: OpenAI protocol notes. */
#include "limits_int.h"
#include "openai_int.h"

#include "chatmux/provider/list.h"

/* ---- The flow ---- */

static bool has_type(const struct cm_ev *ev, struct cm_str type)
{
    return cm_str_starts_nocase(cm_header_find(ev->headers, ev->n_headers, CM_S("content-type")),
                                type);
}

/* What is only passed on is refused where another credential may fare better; else the answer is the client's, whatever it says. */
static enum openai_state passed(const struct cm_ev *ev)
{
    return ev->status == 401 || ev->status == 429 || ev->status >= 500 ? OPENAI_REFUSED
                                                                       : OPENAI_BYTES;
}

static enum openai_state state_of(const struct openai *o, const struct cm_ev *ev)
{
    const bool events = has_type(ev, CM_S("text/event-stream")),
               json = has_type(ev, CM_S("application/json"));

    if (o->task == CM_TASK_PASS)
        return passed(ev);
    if (ev->status != 200)
        return OPENAI_REFUSED;
    if (o->response)
        return !o->stream ? OPENAI_WHOLE : events ? OPENAI_RESPONSE : OPENAI_REFUSED;
    if (openai_talks(
            o)) /* JSON where events were asked for is an error object, on servers that always say 200 */
        return !o->stream ? OPENAI_WHOLE : json ? OPENAI_REFUSED : OPENAI_TALK;
    if (events)
        return OPENAI_EVENTS;
    if (json)
        return OPENAI_WHOLE;
    switch (o->task) {
    case CM_TASK_SPEECH:
        return OPENAI_BYTES;
    case CM_TASK_TRANSCRIPTION:
    case CM_TASK_TRANSLATION:
        return OPENAI_PLAIN;
    default:
        return OPENAI_WHOLE; /* servers that say no type, or another one */
    }
}

/* The client is told the upstream's own type of what is neither the dialect's JSON nor its events. */
static struct cm_str told_type(const struct openai *o, const struct cm_ev *ev)
{
    const struct cm_str type = cm_header_find(ev->headers, ev->n_headers, CM_S("content-type"));

    if (o->state == OPENAI_PLAIN || o->state == OPENAI_BYTES ||
        (o->state == OPENAI_WHOLE && o->stream))
        return type.n > 0 || o->task == CM_TASK_PASS ? type : CM_S("application/octet-stream");
    return CM_STR_NONE;
}

static enum cm_step openai_head(struct cm_run *run, struct openai *o, const struct cm_ev *ev,
                                struct cm_err *err)
{
    struct cm_event head = {.kind = CM_EVENT_HEAD,
                            .status = ev->status,
                            .headers = ev->headers,
                            .n_headers = ev->n_headers};

    o->status = ev->status;
    o->retry_after_s = cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run));
    o->state = state_of(o, ev);
    if (ev->status == 200 && has_type(ev, CM_S("text/html")) && o->task != CM_TASK_PASS) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " answered with a web page",
                CM_ARG(cm_run_instance(run)->name));
        return CM_STEP_FAIL;
    }
    if (o->state == OPENAI_EVENTS && !o->stream) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " answered with a stream that nobody asked for",
                CM_ARG(cm_run_instance(run)->name));
        return CM_STEP_FAIL;
    }
    cm_buf_init(&o->body, o->state == OPENAI_REFUSED ? OPENAI_REFUSAL_MAX : CM_ANSWER_MAX);
    head.media_type = told_type(o, ev);
    if (o->said)
        limits_tell(run, ev->headers, ev->n_headers);
    else
        cm_run_emit(run, &head);
    return CM_STEP_WAIT;
}

static enum cm_step openai_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct openai *o = cm_run_state(run);

    if (o->session)
        return openai_session_step(run, o, ev, err);
    switch (ev->kind) {
    case CM_EV_START:
        if (cm_run_chat(run)->task == CM_TASK_REALTIME)
            return openai_session_ask(run, o);
        return openai_ask(run, o, err);
    case CM_EV_HEAD:
        return openai_head(run, o, ev, err);
    case CM_EV_DATA:
        if (o->state != OPENAI_REFUSED)
            return o->said ? openai_talk_data(run, o, ev->data, err)
                           : openai_relay_data(run, o, ev->data, err);
        cm_buf_append(&o->body, ev->data);
        return o->body.failed ? openai_refused_body(run, o, err) : CM_STEP_WAIT;
    case CM_EV_END:
        if (o->state == OPENAI_REFUSED)
            return openai_refused_body(run, o, err);
        return o->said ? openai_talk_ended(run, o, err) : openai_relay_ended(run, o, err);
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
    struct cm_header headers[OPENAI_HEADERS_MAX] = {{CM_S("Accept"), CM_S("application/json")}};
    struct cm_call call = {.method = "GET",
                           .url = openai_url(run, CM_S("/models"), CM_STR_NONE),
                           .headers = headers,
                           .n_headers = openai_headers(run, headers, 1),
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
                       openai_error_of(root), err);
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
    const struct openai_options *o = in->options;

    return dialect == CM_DIALECT_OPENAI_CHAT ||
           (dialect == CM_DIALECT_OPENAI_RESPONSES && o->responses);
}

static const struct cm_option options[] = {
    {.name = "stream_options",
     .type = CM_CONF_BOOL,
     .def = "yes",
     .help = "ask for usage in streams; no: the server refuses stream_options"},
    {.name = "tasks",
     .type = CM_CONF_STR,
     .def = "chat completions embeddings moderations images image_edits image_variations speech "
            "transcriptions translations realtime pass",
     .help =
         "what the server can do; videos, too. Without completions they are made by chat; pass: "
         "files, batches and whatever else clients ask for under /v1"},
    {.name = "responses",
     .type = CM_CONF_ENUM,
     .def = "auto",
     .choices = "auto|yes|no",
     .help =
         "yes: the server speaks the Responses API, and requests of it go there as they are; no: they are "
         "made by chat; auto: yes for api.openai.com"},
    {.name = "max_tokens",
     .type = CM_CONF_ENUM,
     .def = "as_sent",
     .choices = "as_sent|max_tokens|max_completion_tokens",
     .help = "the only name of the output limit that the server knows"},
    {.name = "developer",
     .type = CM_CONF_BOOL,
     .def = "yes",
     .help = "no: the role developer is sent as system"},
    {.name = "history_reasoning",
     .type = CM_CONF_ENUM,
     .def = "as_sent",
     .choices = "as_sent|drop|send",
     .help =
         "drop: the server refuses reasoning_content in messages of the assistant; send: it wants it "
         "back from clients of other dialects, too"},
    {.name = "reasoning",
     .type = CM_CONF_ENUM,
     .def = "auto",
     .choices = "auto|reasoning_effort|reasoning|enable_thinking|thinking|none",
     .help =
         "translated requests: by which member thinking is asked for; auto: reasoning_effort, of "
         "reasoning_models"},
    {.name = "reasoning_models",
     .type = CM_CONF_STR,
     .def = "o1* o3* o4* gpt-5* !gpt-5-chat*",
     .help = "translated requests: models that think and refuse sampling; ! takes back"},
    {.name = "efforts",
     .type = CM_CONF_STR,
     .def = "minimal low medium high",
     .help = "translated requests: the levels of effort that the server knows"},
    {.name = "top_k",
     .type = CM_CONF_BOOL,
     .def = "no",
     .help = "translated requests: yes: the server takes top_k"},
    {.name = "short_ids",
     .type = CM_CONF_BOOL,
     .def = "yes",
     .help =
         "ids of tool calls longer than 40 characters become shorter ones, which OpenAI demands"},
    {.name = "drop",
     .type = CM_CONF_STR,
     .def = "",
     .help = "members of request bodies that the server refuses: service_tier, metadata …"},
    {.name = "realtime_url",
     .type = CM_CONF_STR,
     .def = "",
     .help = "where realtime sessions are, wss://host/path; empty = /realtime below base_url"},
    {.name = "key_header",
     .type = CM_CONF_STR,
     .def = "Authorization",
     .help =
         "header of the key; another than Authorization holds it without Bearer, as Azure's api-key"},
    {.name = "api_version",
     .type = CM_CONF_STR,
     .def = "",
     .help = "Azure: goes into the query of each request as api-version"},
    {.name = "deployments",
     .type = CM_CONF_BOOL,
     .def = "no",
     .help = "Azure: the model is in the path, /deployments/MODEL/chat/completions"},
    {.name = NULL},
};

#define OPENAI_TASKS                                                                               \
    (CM_TASK_BIT(CHAT) | CM_TASK_BIT(COMPLETION) | CM_TASK_BIT(EMBEDDING) |                        \
     CM_TASK_BIT(MODERATION) | CM_TASK_BIT(IMAGE) | CM_TASK_BIT(IMAGE_EDIT) |                      \
     CM_TASK_BIT(IMAGE_VARIATION) | CM_TASK_BIT(VIDEO) | CM_TASK_BIT(SPEECH) |                     \
     CM_TASK_BIT(TRANSCRIPTION) | CM_TASK_BIT(TRANSLATION) | CM_TASK_BIT(REALTIME) |               \
     CM_TASK_BIT(COUNT_TOKENS) | CM_TASK_BIT(PASS))

const struct cm_provider cm_provider_openai = {
    .name = "openai",
    .help = "OpenAI and every server that speaks its dialect, by API key",
    .base_url = "https://api.openai.com/v1",
    .options = options,
    .keyless = true,
    .cooldown_ms = 20000,
    .tasks = OPENAI_TASKS,
    .relayed_tasks = CM_TASK_BIT(COUNT_TOKENS), /* the Responses API's */
    .understands =
        ~(unsigned)(CM_FIELD_METADATA | CM_FIELD_SERVICE_TIER | CM_FIELD_CACHE | CM_FIELD_CONTEXT),
    .configure = openai_configure,
    .relays = openai_relays,
    .chat = {.step = openai_step,
             .state_size = sizeof(struct openai),
             .state_name = openai_state_name,
             .clear = openai_clear},
    .probe = {.step = models_step},
    .models_list = {.step = models_step},
};
