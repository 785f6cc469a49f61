/* openai: realtime sessions. A WebSocket whose messages go through as they are, both ways; what the client says does not pass here (cm_run_say()).
 *
 * A tap looks at the type of each event: from response.created to response.done an answer is under way (there may be several at once), and the second one
 * has its figures, which are added up. Refused handshakes have no body that libcurl would hand on, so their status alone tells the class.
 * Wire facts: OpenAI protocol notes, section 11. */
#include "openai_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"

struct openai_session {
    struct cm_usage usage; /* of all answers so far */
    unsigned answering;    /* answers under way */
    bool open;
};

/* ---- the handshake ---- */

/* wss://host/v1/realtime?model=NAME, and what else the client has in its query. */
static struct cm_str session_url(struct cm_run *run)
{
    const struct openai_options *o = openai_options_of(run);
    struct cm_arena *arena = cm_run_arena(run);
    struct cm_str url =
        cm_arena_printf(arena, CM_PRI "/realtime", CM_ARG(cm_run_instance(run)->base_url));
    const struct cm_str rest = cm_run_chat(run)->query;
    struct cm_buf query = {0};

    if (o->realtime_url.n > 0)
        url = o->realtime_url;
    else if (cm_str_starts_nocase(url, CM_S("http"))) /* and https: wss */
        url = cm_arena_printf(arena, "ws" CM_PRI, CM_ARG(cm_str_from(url, 4)));
    cm_buf_append(&query, o->deployments ? CM_S("deployment=") : CM_S("model="));
    cm_percent(&query, cm_run_target(run)->model);
    if (rest.n > 0)
        cm_buf_printf(&query, "&" CM_PRI, CM_ARG(rest));
    return openai_url(run, url, cm_buf_settle(&query, arena));
}

enum cm_step openai_session_ask(struct cm_run *run, struct openai *o)
{
    static const struct cm_str beta = CM_S_INIT("OpenAI-Beta");
    const struct cm_chat *chat = cm_run_chat(run);
    struct cm_header headers[OPENAI_HEADERS_MAX];
    struct cm_call call = {
        .method = "GET", .url = session_url(run), .headers = headers, .session = true};
    const struct cm_str given = cm_header_find(chat->headers, chat->n_headers, beta);
    size_t n = 0;

    o->state = OPENAI_SESSION;
    o->task = chat->task;
    o->session = CM_ARENA_NEW(cm_run_arena(run), struct openai_session);
    if (given.n > 0)
        headers[n++] = (struct cm_header){beta, given};
    call.n_headers = openai_headers(run, headers, n);
    return cm_run_ws(run, &call);
}

/* ---- the tap ---- */

static int64_t sum(int64_t a, int64_t b)
{
    return a + b < INT64_MAX / 4 ? a + b : a;
}

/* The figures of one answer: as those of other routes but for the names of the details. */
static void add_usage(struct cm_run *run, struct openai_session *s, yyjson_val *usage)
{
    yyjson_val *ins = cm_json_get(usage, "input_token_details"),
               *outs = cm_json_get(usage, "output_token_details");
    int64_t in = openai_count_of(usage, "input_tokens"),
            cached = openai_count_of(ins, "cached_tokens");

    if (!yyjson_is_obj(usage))
        return;
    cached = cached < in ? cached : in;
    s->usage.source = CM_USAGE_UPSTREAM;
    s->usage.in_uncached = sum(s->usage.in_uncached, in - cached);
    s->usage.in_cache_read = sum(s->usage.in_cache_read, cached);
    s->usage.out_text = sum(s->usage.out_text, openai_count_of(usage, "output_tokens"));
    s->usage.in_audio = sum(s->usage.in_audio, openai_count_of(ins, "audio_tokens"));
    s->usage.in_audio_cached =
        sum(s->usage.in_audio_cached,
            openai_count_of(cm_json_get(ins, "cached_tokens_details"), "audio_tokens"));
    s->usage.out_audio = sum(s->usage.out_audio, openai_count_of(outs, "audio_tokens"));
    cm_run_usage(run, &s->usage);
}

static void read_done(struct cm_run *run, struct openai_session *s, struct cm_str event)
{
    yyjson_doc *doc = cm_json_parse(event, &cm_json_limits_event, NULL);

    if (!doc)
        cm_run_odd(run, "a response.done that cannot be read", event);
    add_usage(run, s, cm_json_get(cm_json_get(yyjson_doc_get_root(doc), "response"), "usage"));
    yyjson_doc_free(doc);
}

/* The figures go first: who is over its budget hears the end of its answer and no more. */
static void relay(struct cm_run *run, struct openai_session *s, const struct cm_ev *ev)
{
    const struct cm_str type = ev->binary ? CM_STR_NONE : cm_json_member(ev->data, CM_S("type"));
    const bool done = cm_str_eq(type, CM_S("\"response.done\""));

    if (cm_str_eq(type, CM_S("\"response.created\"")))
        s->answering++;
    if (done && s->answering > 0)
        s->answering--;
    cm_run_emit(run, &(struct cm_event){.kind = CM_EVENT_RELAY,
                                        .text = ev->data,
                                        .binary = ev->binary,
                                        .semantic = s->answering > 0});
    if (done)
        read_done(run, s, ev->data);
}

/* ---- the end ---- */

/* Nothing but the status is known. A server without such sessions, or without this model, says 404 or worse. */
static enum cm_step refused(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    const struct cm_instance *in = cm_run_instance(run);
    const int after_s = cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run));

    if (ev->status == 404 || ev->status == 405 || ev->status == 426)
        cm_fail(err, CM_ERR_MODEL_UNAVAILABLE,
                CM_PRI " has no realtime sessions with the model " CM_PRI " (status %d)",
                CM_ARG(in->name), CM_ARG(cm_run_target(run)->model), ev->status);
    else if (ev->status < 400)
        cm_fail(err, CM_ERR_UPSTREAM_DOWN,
                CM_PRI " answered the WebSocket handshake with status %d", CM_ARG(in->name),
                ev->status);
    else
        openai_refused(run, ev->status, after_s, NULL, err);
    return CM_STEP_FAIL;
}

/* Of the codes a server gives for troubles of its own: RFC 6455 7.4.1, IANA's registry. */
static bool is_trouble(int code)
{
    return code == 1002 || code == 1003 || (code >= 1011 && code <= 1014);
}

static enum cm_step ended(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    cm_run_emit(
        run, &(struct cm_event){.kind = CM_EVENT_FINISH, .status = ev->status, .text = ev->data});
    if (!is_trouble(ev->status))
        return CM_STEP_DONE;
    cm_fail(err, CM_ERR_CUT, CM_PRI " closed the session with code %d",
            CM_ARG(cm_run_instance(run)->name), ev->status);
    return CM_STEP_FAIL;
}

enum cm_step openai_session_step(struct cm_run *run, struct openai *o, const struct cm_ev *ev,
                                 struct cm_err *err)
{
    struct openai_session *s = o->session;

    switch (ev->kind) {
    case CM_EV_OPEN:
        s->open = true;
        cm_run_emit(run, &(struct cm_event){.kind = CM_EVENT_HEAD,
                                            .status = 101,
                                            .headers = ev->headers,
                                            .n_headers = ev->n_headers});
        return CM_STEP_WAIT;
    case CM_EV_DATA:
        relay(run, s, ev);
        return CM_STEP_WAIT;
    case CM_EV_END:
        return ended(run, ev, err);
    case CM_EV_FAILED:
        if (!s->open && ev->status >= 200 && ev->status < 600)
            return refused(run, ev, err);
        *err = *ev->err;
        return CM_STEP_FAIL;
    case CM_EV_START:
    case CM_EV_HEAD:
    case CM_EV_STOP:
    case CM_EV_REPLY:
    case CM_EV_TIMER:
    case CM_EV_COMPUTED:
        break; /* never asked for, or nothing to tidy up */
    }
    return CM_STEP_DONE;
}
