/* gemini: the Generative Language API of Google, by API key.
 *
 * Relay lane (clients of the same dialect): the body goes up as it came, the answer comes back byte for byte; a tap reads each object for usage, errors
 * and the end. Translate lane (all others): PICTURES fetches what the request only points at, then the canonical request becomes a body.
 * Happy path: TALK (a stream: events, or one JSON array in pieces) or WHOLE (one body) -> done at its end, when every candidate has a finishReason.
 * EMBED and COUNT are small replies: vectors, batch by batch, and the number of tokens.
 * Failures: REFUSED collects the body of an error status; an error object in the middle of a stream; a stream that ends without a finishReason (CUT).
 * Wire facts: Gemini protocol notes, sections 1 to 6. */
#include "gemini_int.h"

#include "chatmux/provider/list.h"

#define GEMINI_STATES(X) X(PICTURES) X(TALK) X(WHOLE) X(REFUSED) X(EMBED) X(COUNT)
enum gemini_state {
#define X(name) GEMINI_##name,
    GEMINI_STATES(X)
#undef X
};

#define EVENT_MAX (32u * 1024 * 1024) /* one event can be a picture in base64 */
#define REFUSAL_MAX (64u * 1024)      /* of an error body */
#define PICTURES_MAX 10               /* of one request; each is asked for by itself */

struct gemini {
    enum gemini_state state;
    bool relayed, stream, array; /* array: the stream is one JSON array */
    int status, retry_after_s;   /* of the answer */
    struct cm_attach attach;
    struct cm_sse sse;
    struct cm_json_items items;
    struct cm_buf sent, body; /* what was asked; WHOLE, REFUSED: what came so far */
    struct gemini_reader reader;
    int64_t more;            /* pictures still to be asked for */
    size_t n_inputs, vector; /* EMBED: how many texts, and the first of the batch */
    /* relay: what is being fed, and neighbours in it that go on together */
    struct cm_str piece, run_of_raw;
    bool raw_semantic;
    bool lf_passed; /* the first byte of the next event is out already */
};

static const char *gemini_state_name(const void *state)
{
    static const char *const names[] = {
#define X(name) #name,
        GEMINI_STATES(X)
#undef X
    };

    return names[((const struct gemini *)state)->state];
}

static void gemini_clear(void *state)
{
    struct gemini *g = state;

    cm_sse_clear(&g->sse);
    cm_json_items_clear(&g->items);
    cm_buf_clear(&g->sent);
    cm_buf_clear(&g->body);
}

/* ---- asking ---- */

static enum cm_step ask(struct cm_run *run, struct gemini *g, const char *operation,
                        struct cm_str query, struct cm_str body)
{
    struct cm_call call = {.method = "POST",
                           .url = gemini_url(run, operation, query),
                           .body = body,
                           .long_wait = !g->stream};

    call.headers = gemini_headers(run, &call.n_headers);
    g->state = g->stream ? GEMINI_TALK : GEMINI_WHOLE;
    cm_sse_clear(&g->sse);
    cm_sse_init(&g->sse, EVENT_MAX);
    cm_json_items_init(&g->items, EVENT_MAX);
    return cm_run_stream(run, &call);
}

static enum cm_step ask_relayed(struct cm_run *run, struct gemini *g, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    const char *operation = gemini_operation(run);
    struct cm_str body;

    g->stream = chat->stream;
    g->array = g->stream && !gemini_wants_events(chat->query);
    g->reader.relayed = true;
    if (gemini_relay_body(run, &g->sent, &body, err))
        return CM_STEP_FAIL;
    return ask(run, g, operation, chat->query, body);
}

static enum cm_step ask_vectors(struct cm_run *run, struct gemini *g, struct cm_err *err)
{
    g->state = GEMINI_EMBED;
    g->n_inputs = cm_run_chat(run)->n_inputs;
    return gemini_embed_ask(run, g->vector, &g->sent, err);
}

/* Everything that was pointed at is here. */
static enum cm_step ask_translated(struct cm_run *run, struct gemini *g, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);

    if (chat->task == CM_TASK_COUNT_TOKENS) {
        g->state = GEMINI_COUNT;
        return gemini_count_ask(run, &g->attach, &g->sent, err);
    }
    g->stream = chat->stream && !cm_task_makes_media(chat->task);
    cm_buf_reset(&g->sent);
    if (gemini_put_request(run, &g->attach, &g->sent, err))
        return CM_STEP_FAIL;
    return ask(run, g, g->stream ? "streamGenerateContent" : "generateContent",
               g->stream ? CM_S("alt=sse") : CM_STR_NONE, cm_buf_str(&g->sent));
}

static enum cm_step begin(struct cm_run *run, struct gemini *g, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    enum cm_step step;

    g->relayed = cm_instance_relays(cm_run_instance(run), chat);
    if (g->relayed)
        return ask_relayed(run, g, err);
    if (chat->task == CM_TASK_EMBEDDING)
        return ask_vectors(run, g, err);
    if (cm_task_makes_media(chat->task) && chat->n > PICTURES_MAX) {
        cm_fail_param(err, CM_ERR_BAD_REQUEST, "n", "this model makes at most %d pictures at once",
                      PICTURES_MAX);
        return CM_STEP_FAIL;
    }
    g->reader.draws = cm_task_makes_media(chat->task);
    g->more = g->reader.draws ? chat->n - 1 : 0;
    step = cm_attach_start(run, &g->attach, CM_ATTACH_IMAGES | CM_ATTACH_FILES, err);
    return step == CM_STEP_DONE ? ask_translated(run, g, err) : step;
}

static enum cm_step fetched(struct cm_run *run, struct gemini *g, const struct cm_ev *ev,
                            struct cm_err *err)
{
    enum cm_step step = cm_attach_step(run, &g->attach, ev, err);

    return step == CM_STEP_DONE ? ask_translated(run, g, err) : step;
}

/* ---- vectors and counts: small replies ---- */

static enum cm_step replied(struct cm_run *run, struct gemini *g, const struct cm_ev *ev,
                            struct cm_err *err)
{
    const bool count = g->state == GEMINI_COUNT;
    int failed;

    if (ev->status != 200)
        failed = gemini_refused_text(
            run, ev->status, cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run)),
            ev->data, err);
    else if (count)
        failed = gemini_count_read(run, ev->data, err);
    else
        failed = gemini_embed_read(run, g->vector, g->n_inputs, ev->data, err);
    if (failed)
        return CM_STEP_FAIL;
    g->vector += GEMINI_EMBED_BATCH;
    if (!count && g->vector < g->n_inputs)
        return cm_run_sleep(run, 0); /* asks on a later turn: the client may have left meanwhile */
    cm_run_finish(run, CM_FINISH_STOP);
    return CM_STEP_DONE;
}

/* ---- the answer ---- */

static bool has_type(const struct cm_ev *ev, struct cm_str type)
{
    return cm_str_starts_nocase(cm_header_find(ev->headers, ev->n_headers, CM_S("content-type")),
                                type);
}

static enum cm_step head(struct cm_run *run, struct gemini *g, const struct cm_ev *ev,
                         struct cm_err *err)
{
    struct cm_event head = {.kind = CM_EVENT_HEAD,
                            .status = ev->status,
                            .headers = ev->headers,
                            .n_headers = ev->n_headers};

    g->status = ev->status;
    g->retry_after_s = cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run));
    if (ev->status == 200 && has_type(ev, CM_S("text/html"))) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " answered with a web page",
                CM_ARG(cm_run_instance(run)->name));
        return CM_STEP_FAIL;
    }
    cm_buf_clear(&g->body);
    /* JSON where events were asked for is an error object */
    if (ev->status != 200 ||
        (g->state == GEMINI_TALK && !g->array && has_type(ev, CM_S("application/json"))))
        g->state = GEMINI_REFUSED;
    cm_buf_init(&g->body, g->state == GEMINI_REFUSED ? REFUSAL_MAX : CM_ANSWER_MAX);
    if (g->relayed)
        cm_run_emit(run, &head);
    return CM_STEP_WAIT;
}

static void raw_flush(struct cm_run *run, struct gemini *g)
{
    struct cm_event ev = {
        .kind = CM_EVENT_RELAY, .text = g->run_of_raw, .semantic = g->raw_semantic};

    if (g->run_of_raw.n > 0)
        cm_run_emit(run, &ev);
    g->run_of_raw = CM_STR_NONE;
    g->raw_semantic = false;
}

/* Neighbours in one piece go on together; what the reader had to hold goes on at once, because it does not stay. */
static void raw_pass(struct cm_run *run, struct gemini *g, struct cm_str raw, bool semantic)
{
    const bool in_piece = g->piece.n > 0 && raw.p >= g->piece.p && raw.p < g->piece.p + g->piece.n;

    if (!g->relayed)
        return;
    if (g->lf_passed)
        raw = cm_str_from(raw, 1);
    g->lf_passed = false;
    if (g->run_of_raw.n > 0 && g->run_of_raw.p + g->run_of_raw.n == raw.p) {
        g->run_of_raw.n += raw.n;
    } else {
        raw_flush(run, g);
        g->run_of_raw = raw;
    }
    g->raw_semantic |= semantic;
    if (!in_piece)
        raw_flush(run, g);
}

/* An event whose CR LF was cut in the middle was given out without its LF, which now waits for the next event. Google's clients wait for it. */
static void pass_late_lf(struct cm_run *run, struct gemini *g)
{
    struct cm_event ev = {.kind = CM_EVENT_RELAY, .text = CM_S("\n")};

    if (!g->relayed || g->array || g->lf_passed || g->sse.hold.n != 1 || g->sse.hold.p[0] != '\n')
        return;
    g->lf_passed = true;
    cm_run_emit(run, &ev);
}

struct tap {
    struct cm_run *run;
    struct gemini *g;
    struct cm_err *err;
};

static int on_object(struct tap *t, struct cm_str object, struct cm_str raw)
{
    bool semantic = false;

    if (cm_str_trim(object).n > 0 &&
        gemini_read(t->run, &t->g->reader, object, &semantic, t->err)) {
        raw_flush(t->run, t->g);
        return -1;
    }
    raw_pass(t->run, t->g, raw, semantic);
    return 0;
}

static int on_event(void *arg, const struct cm_sse_event *ev)
{
    struct cm_event blank = {.kind = CM_EVENT_RELAY, .text = CM_S("\r\n\r\n")};
    struct tap *t = arg;

    if (on_object(t, ev->data, ev->raw))
        return -1;
    if (ev->unfinished && t->g->relayed) { /* nothing must run into the last event */
        raw_flush(t->run, t->g);
        cm_run_emit(t->run, &blank);
    }
    return 0;
}

static int on_item(void *arg, struct cm_str item, struct cm_str raw)
{
    return on_object(arg, item, raw);
}

static enum cm_step data(struct cm_run *run, struct gemini *g, struct cm_str piece,
                         struct cm_err *err)
{
    struct tap t = {run, g, err};
    int failed;

    if (g->state != GEMINI_TALK) {
        cm_buf_append(&g->body, piece);
        if (!g->body.failed)
            return CM_STEP_WAIT;
        if (g->state == GEMINI_REFUSED)
            gemini_refused_text(run, g->status, g->retry_after_s, cm_buf_str(&g->body), err);
        else
            cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an answer larger than %d bytes",
                    CM_ARG(cm_run_instance(run)->name), CM_ANSWER_MAX);
        return CM_STEP_FAIL;
    }
    g->piece = piece;
    failed = g->array ? cm_json_items_feed(&g->items, piece, on_item, &t, err)
                      : cm_sse_feed(&g->sse, piece, on_event, &t, err);
    if (failed)
        return CM_STEP_FAIL;
    raw_flush(run, g);
    pass_late_lf(run, g);
    return CM_STEP_WAIT;
}

/* ---- the end ---- */

/* An error that came as bare JSON where an event was expected. */
static int bare_error(struct cm_run *run, struct gemini *g, struct cm_err *err)
{
    struct cm_str held = cm_str_trim(cm_buf_str(&g->sse.hold));
    yyjson_doc *doc;
    yyjson_val *error;
    int failed = 0;

    if (g->array || !(cm_str_starts(held, CM_S("{")) || cm_str_starts(held, CM_S("["))))
        return 0;
    doc = cm_json_parse(held, &cm_json_limits_event, NULL);
    error = gemini_error_of(yyjson_doc_get_root(doc));
    if (error)
        failed = gemini_refused(run, 0, g->retry_after_s, error, err);
    yyjson_doc_free(doc);
    return failed;
}

static enum cm_step talked(struct cm_run *run, struct gemini *g, struct cm_err *err)
{
    struct cm_event close = {.kind = CM_EVENT_RELAY, .text = CM_S("]")};
    struct tap t = {run, g, err};

    g->piece = CM_STR_NONE;
    if (bare_error(run, g, err) || (!g->array && cm_sse_end(&g->sse, on_event, &t, err)))
        return CM_STEP_FAIL;
    raw_flush(run, g);
    if (!gemini_complete(&g->reader)) {
        cm_fail(err, CM_ERR_CUT, CM_PRI " ended its stream before the answer was complete",
                CM_ARG(cm_run_instance(run)->name));
        return CM_STEP_FAIL;
    }
    if (g->relayed && g->array && !g->items.ended) /* the answer is whole, its bracket is missing */
        cm_run_emit(run, &close);
    return gemini_finish(run, &g->reader, err) ? CM_STEP_FAIL : CM_STEP_DONE;
}

static enum cm_step whole(struct cm_run *run, struct gemini *g, struct cm_err *err)
{
    struct cm_event relay = {
        .kind = CM_EVENT_RELAY, .text = cm_buf_str(&g->body), .semantic = true};

    if (gemini_read(run, &g->reader, relay.text, NULL, err))
        return CM_STEP_FAIL;
    if (g->relayed) {
        cm_run_emit(run, &relay);
        return CM_STEP_DONE;
    }
    if (!gemini_complete(&g->reader)) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " answered without an answer",
                CM_ARG(cm_run_instance(run)->name));
        return CM_STEP_FAIL;
    }
    if (g->more > 0 && g->reader.said) { /* the next picture; one that is refused ends it */
        g->more--;
        gemini_reader_next(&g->reader);
        return cm_run_sleep(run, 0); /* asks on a later turn: the client may have left meanwhile */
    }
    return gemini_finish(run, &g->reader, err) ? CM_STEP_FAIL : CM_STEP_DONE;
}

static enum cm_step ended(struct cm_run *run, struct gemini *g, struct cm_err *err)
{
    switch (g->state) {
    case GEMINI_TALK:
        return talked(run, g, err);
    case GEMINI_WHOLE:
        return whole(run, g, err);
    case GEMINI_REFUSED:
        gemini_refused_text(run, g->status, g->retry_after_s, cm_buf_str(&g->body), err);
        return CM_STEP_FAIL;
    case GEMINI_PICTURES:
    case GEMINI_EMBED:
    case GEMINI_COUNT:
        break; /* they get a REPLY */
    }
    return CM_STEP_DONE;
}

static enum cm_step gemini_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct gemini *g = cm_run_state(run);

    switch (ev->kind) {
    case CM_EV_START:
        return begin(run, g, err);
    case CM_EV_REPLY:
        return g->state == GEMINI_PICTURES ? fetched(run, g, ev, err) : replied(run, g, ev, err);
    case CM_EV_HEAD:
        return head(run, g, ev, err);
    case CM_EV_DATA:
        return data(run, g, ev->data, err);
    case CM_EV_END:
        return ended(run, g, err);
    case CM_EV_FAILED:
        if (g->state == GEMINI_PICTURES)
            return fetched(run, g, ev, err);
        if (g->state == GEMINI_TALK && ev->err->cls == CM_ERR_CUT && gemini_complete(&g->reader))
            return talked(run, g, err); /* all was said before the connection broke */
        *err = *ev->err;
        return CM_STEP_FAIL;
    case CM_EV_TIMER:
        return g->state == GEMINI_EMBED ? ask_vectors(run, g, err) : ask_translated(run, g, err);
    case CM_EV_STOP:
    case CM_EV_OPEN:
    case CM_EV_COMPUTED:
        break; /* never asked for, or nothing to tidy up */
    }
    return CM_STEP_DONE;
}

/* ---- the adapter ---- */

static bool gemini_relays(const struct cm_instance *in, enum cm_dialect dialect)
{
    (void)in;
    return dialect == CM_DIALECT_GEMINI;
}

static const struct cm_option options[] = {
    {.name = "api_version",
     .type = CM_CONF_STR,
     .def = "v1beta",
     .help = "version in the path: v1beta, v1 or v1alpha"},
    {.name = "schema",
     .type = CM_CONF_ENUM,
     .def = "json",
     .choices = "json|openapi",
     .help = "how schemas of tools and answers are sent: JSON Schema, or the older small subset"},
    {.name = "safety",
     .type = CM_CONF_ENUM,
     .def = "default",
     .choices = "default|OFF|BLOCK_NONE|BLOCK_ONLY_HIGH|BLOCK_MEDIUM_AND_ABOVE|BLOCK_LOW_AND_ABOVE",
     .help = "threshold of every safety category in translated requests; default: the platform's"},
    {.name = "thinking",
     .type = CM_CONF_ENUM,
     .def = "auto",
     .choices = "auto|budget|level|none",
     .help = "how much thinking is asked for: by the model's name, in tokens, as a level, or not"},
    {.name = "budget_low",
     .type = CM_CONF_INT,
     .def = "1024",
     .help = "tokens of thinking for reasoning_effort minimal and low"},
    {.name = "budget_medium",
     .type = CM_CONF_INT,
     .def = "8192",
     .help = "tokens of thinking for reasoning_effort medium"},
    {.name = "budget_high",
     .type = CM_CONF_INT,
     .def = "16384",
     .help = "tokens of thinking for reasoning_effort high; above it: the model's most"},
    {.name = "budget_max",
     .type = CM_CONF_INT,
     .def = "24576",
     .help = "most tokens of thinking a model takes"},
    {.name = "budget_max_pro",
     .type = CM_CONF_INT,
     .def = "32768",
     .help = "the same of models with -pro in their name"},
    {.name = "levels",
     .type = CM_CONF_STR,
     .def = "MINIMAL LOW MEDIUM HIGH",
     .help = "levels of thinking that models of generation 3 take"},
    {.name = "levels_pro",
     .type = CM_CONF_STR,
     .def = "LOW HIGH",
     .help = "the same of models with -pro in their name"},
    {.name = "aspect_ratios",
     .type = CM_CONF_STR,
     .def = "1:1 2:3 3:2 3:4 4:3 4:5 5:4 9:16 16:9 21:9",
     .help = "shapes of pictures the platform makes; a size takes the nearest"},
    {.name = NULL},
};

const struct cm_provider cm_provider_gemini = {
    .name = "gemini",
    .help = "Google's Generative Language API (Gemini), by API key",
    .base_url = "https://generativelanguage.googleapis.com",
    .options = options,
    .any_features = CM_MODEL_SEARCH | CM_MODEL_THINKING,
    .understands = CM_FIELD_TEMPERATURE | CM_FIELD_TOP_P | CM_FIELD_TOP_K |
                   CM_FIELD_PRESENCE_PENALTY | CM_FIELD_FREQUENCY_PENALTY | CM_FIELD_SEED |
                   CM_FIELD_MAX_TOKENS | CM_FIELD_STOP | CM_FIELD_EFFORT | CM_FIELD_FORMAT,
    .tasks = CM_TASK_BIT(CHAT) | CM_TASK_BIT(IMAGE) | CM_TASK_BIT(IMAGE_EDIT) |
             CM_TASK_BIT(IMAGE_VARIATION) | CM_TASK_BIT(EMBEDDING) | CM_TASK_BIT(COUNT_TOKENS),
    .cooldown_ms = 30000,
    .relays = gemini_relays,
    .configure = gemini_configure,
    .chat = {.step = gemini_step,
             .state_size = sizeof(struct gemini),
             .state_name = gemini_state_name,
             .clear = gemini_clear},
    .probe = {.step = gemini_models_step, .state_size = sizeof(struct gemini_listing)},
    .models_list = {.step = gemini_models_step, .state_size = sizeof(struct gemini_listing)},
};
