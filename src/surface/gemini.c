/* The Gemini surface: generateContent, streamGenerateContent in both of its framings, countTokens.
 *
 * A stream is a row of response objects, each with a delta in its parts; the last one has the finish reasons and the figures. As server-sent events
 * (alt=sse) there are only `data:` frames: official clients recognise nothing else. As an array each object is an element, and nothing but white space
 * may stand between them. Protocol notes, sections 3 and 6. */
#include "gemini_int.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>

#define CHOICES_MAX 128

struct call {
    struct cm_str id, name; /* owned */
    struct cm_buf args;
};

struct choice {
    enum cm_finish finish;
    struct call *calls; /* whole only when the choice ends: pieces of several may alternate */
    size_t n_calls;
    struct cm_citation *citations; /* owned texts */
    size_t n_citations;
    struct cm_gemini_mean mean;
};

struct stream {
    struct cm_answer_meta meta;
    bool array, begun; /* begun: an element of the array was written */
    struct choice *choices;
    size_t n_choices;
};

static struct cm_str own(struct cm_str s)
{
    return cm_str(cm_str_dup(s), s.n);
}

static void own_free(struct cm_str s)
{
    free((char *)(uintptr_t)s.p);
}

static struct choice *choice_at(struct stream *st, int index)
{
    const size_t want = (size_t)index + 1;

    CM_ASSERT(index >= 0 && index < CHOICES_MAX);
    if (want > st->n_choices) {
        st->choices = cm_realloc(st->choices, want * sizeof(*st->choices));
        memset(st->choices + st->n_choices, 0, (want - st->n_choices) * sizeof(*st->choices));
        st->n_choices = want;
    }
    return &st->choices[index];
}

/* ---- frames ---- */

static void frame_begin(struct stream *st, struct cm_buf *out)
{
    if (!st->array)
        cm_buf_append(out, CM_S("data: "));
    else
        cm_buf_append(out, st->begun ? CM_S(",\n") : CM_S("["));
    st->begun = true;
}

static void frame_end(const struct stream *st, struct cm_buf *out)
{
    cm_buf_append(out, st->array ? CM_S("\n") : CM_S("\r\n\r\n"));
}

/* Up to the parts of one candidate. */
static void chunk_begin(struct stream *st, struct cm_buf *out)
{
    frame_begin(st, out);
    cm_buf_append(out, CM_S("{\"candidates\":[{\"content\":{\"parts\":["));
}

static void chunk_end(struct stream *st, const struct cm_event *ev, struct cm_buf *out)
{
    cm_buf_append(out, CM_S("],\"role\":\"model\"},\"index\":"));
    cm_json_put_int(out, ev->choice);
    cm_gemini_put_logprobs(out, &st->meta, ev->logprobs, &choice_at(st, ev->choice)->mean);
    cm_buf_append(out, CM_S("}]"));
    cm_gemini_put_meta(out, &st->meta);
    cm_buf_put(out, '}');
    frame_end(st, out);
}

static void put_text(struct stream *st, const struct cm_event *ev, bool thought, struct cm_buf *out)
{
    if (ev->text.n == 0 && ev->logprobs.n <= CM_S("[]").n)
        return;
    chunk_begin(st, out);
    cm_buf_append(out, CM_S("{\"text\":"));
    cm_json_put_str(out, ev->text);
    cm_buf_append(out, thought ? CM_S(",\"thought\":true}") : CM_S("}"));
    chunk_end(st, ev, out);
}

static void put_image(struct stream *st, const struct cm_event *ev, struct cm_buf *out)
{
    struct cm_image_acc image;

    cm_event_image(ev, &image);
    chunk_begin(st, out);
    cm_gemini_put_image(out, &image);
    chunk_end(st, ev, out);
}

/* ---- what is held until the choice ends ---- */

static struct call *call_at(struct choice *c, int index)
{
    const size_t want = (size_t)index + 1;

    if (want > c->n_calls) {
        c->calls = cm_realloc(c->calls, want * sizeof(*c->calls));
        memset(c->calls + c->n_calls, 0, (want - c->n_calls) * sizeof(*c->calls));
        c->n_calls = want;
    }
    return &c->calls[index];
}

static void hold_call(struct choice *c, const struct cm_event *ev)
{
    struct call *call = call_at(c, ev->index);

    own_free(call->id);
    own_free(call->name);
    call->id = own(ev->id);
    call->name = own(ev->name);
}

static void hold_citation(struct choice *c, const struct cm_event *ev)
{
    c->citations = cm_realloc(c->citations, (c->n_citations + 1) * sizeof(*c->citations));
    c->citations[c->n_citations++] =
        (struct cm_citation){.url = own(ev->url), .title = own(ev->name)};
}

static void finish(struct stream *st, struct choice *c, const struct cm_event *ev,
                   struct cm_buf *out)
{
    if (c->finish != CM_FINISH_NONE)
        return;
    c->finish = ev->finish == CM_FINISH_NONE ? CM_FINISH_STOP : ev->finish;
    if (c->n_calls == 0)
        return;
    chunk_begin(st, out);
    for (size_t i = 0; i < c->n_calls; i++) {
        if (i > 0)
            cm_buf_put(out, ',');
        cm_gemini_put_call(out, c->calls[i].id, c->calls[i].name, cm_buf_str(&c->calls[i].args));
    }
    chunk_end(st, ev, out);
}

/* ---- the surface's functions ---- */

static void begin(struct stream *st, const struct cm_answer_meta *meta, bool array)
{
    st->meta = *meta;
    st->array = array;
}

static void stream_begin(void *state, const struct cm_answer_meta *meta, struct cm_buf *out)
{
    (void)out; /* nothing is said before something means something */
    begin(state, meta, false);
}

static void array_begin(void *state, const struct cm_answer_meta *meta, struct cm_buf *out)
{
    (void)out;
    begin(state, meta, true);
}

static void stream_event(void *state, const struct cm_event *ev, struct cm_buf *out)
{
    struct stream *st = state;
    struct choice *c = choice_at(st, ev->choice);

    switch (ev->kind) {
    case CM_EVENT_TEXT:
    case CM_EVENT_REFUSAL:
        put_text(st, ev, false, out);
        break;
    case CM_EVENT_REASONING:
        if (cm_gemini_shows_thoughts(&st->meta))
            put_text(st, ev, true, out);
        break;
    case CM_EVENT_TOOL_CALL:
        hold_call(c, ev);
        break;
    case CM_EVENT_TOOL_ARGS:
        cm_buf_append(&call_at(c, ev->index)->args, ev->text);
        break;
    case CM_EVENT_IMAGE:
        put_image(st, ev, out);
        break;
    case CM_EVENT_CITATION:
        hold_citation(c, ev);
        break;
    case CM_EVENT_FINISH:
        finish(st, c, ev, out);
        break;
    case CM_EVENT_SIGNATURE: /* another platform's: nobody here could use it */
    case CM_EVENT_REDACTED:
    case CM_EVENT_EMBEDDING:
    case CM_EVENT_USAGE: /* comes with the end */
    case CM_EVENT_SERVED:
    case CM_EVENT_CONVERSATION:
    case CM_EVENT_HEAD: /* the relay lane does not pass here */
    case CM_EVENT_RELAY:
        break;
    }
}

/* The reason of every candidate, and the figures. An empty text is what clients expect where there is nothing more to say. */
static void stream_end(void *state, const struct cm_usage *usage, struct cm_buf *out)
{
    struct stream *st = state;

    choice_at(st, 0);
    frame_begin(st, out);
    cm_buf_append(out, CM_S("{\"candidates\":["));
    for (size_t i = 0; i < st->n_choices; i++) {
        const struct choice *c = &st->choices[i];

        cm_buf_append(out, i > 0 ? CM_S(",{") : CM_S("{"));
        cm_buf_append(
            out,
            CM_S("\"content\":{\"parts\":[{\"text\":\"\"}],\"role\":\"model\"},\"finishReason\":"));
        cm_json_put_z(out, cm_gemini_finish(c->finish));
        cm_buf_append(out, CM_S(",\"index\":"));
        cm_buf_put_u64(out, i);
        cm_gemini_put_mean(out, &c->mean);
        if (c->n_citations > 0) {
            cm_buf_put(out, ',');
            cm_gemini_put_grounding(out, c->citations, c->n_citations);
        }
        cm_buf_put(out, '}');
    }
    cm_buf_append(out, CM_S("],\"usageMetadata\":"));
    cm_gemini_put_usage(out, usage);
    cm_gemini_put_meta(out, &st->meta);
    cm_buf_put(out, '}');
    frame_end(st, out);
    if (st->array)
        cm_buf_put(out, ']');
}

static void stream_error(void *state, const struct cm_err *err, struct cm_buf *out)
{
    (void)state;
    cm_buf_append(out, CM_S("data: "));
    cm_gemini_put_error(err, out);
    cm_buf_append(out, CM_S("\r\n\r\n"));
}

/* state NULL: elements of the upstream's went out. */
static void array_error(void *state, const struct cm_err *err, struct cm_buf *out)
{
    const struct stream *st = state;

    cm_buf_append(out, !st || st->begun ? CM_S(",\n") : CM_S("["));
    cm_gemini_put_error(err, out);
    cm_buf_append(out, CM_S("\n]"));
}

static void stream_clear(void *state)
{
    struct stream *st = state;

    for (size_t i = 0; i < st->n_choices; i++) {
        struct choice *c = &st->choices[i];

        for (size_t k = 0; k < c->n_calls; k++) {
            own_free(c->calls[k].id);
            own_free(c->calls[k].name);
            cm_buf_clear(&c->calls[k].args);
        }
        for (size_t k = 0; k < c->n_citations; k++) {
            own_free(c->citations[k].url);
            own_free(c->citations[k].title);
        }
        free(c->calls);
        free(c->citations);
    }
    free(st->choices), st->choices = NULL;
    st->n_choices = 0;
}

static void count_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                        struct cm_buf *out)
{
    (void)meta;
    cm_buf_append(out, CM_S("{\"totalTokens\":"));
    cm_json_put_int(out, cm_usage_in(&answer->usage));
    cm_buf_put(out, '}');
}

const struct cm_surface cm_surface_gemini = {
    .dialect = CM_DIALECT_GEMINI,
    .task = CM_TASK_CHAT,
    .id_prefix = CM_S_INIT("resp_"),
    .parse = cm_gemini_parse,
    .stream_size = sizeof(struct stream),
    .stream_begin = stream_begin,
    .stream_event = stream_event,
    .stream_end = stream_end,
    .stream_error = stream_error,
    .stream_clear = stream_clear,
    .keepalive = CM_S_INIT(": keep-alive\r\n\r\n"),
    .keeps_images = true,
    .whole = cm_gemini_whole,
    .error_body = cm_gemini_put_error,
};

const struct cm_surface cm_surface_gemini_array = {
    .dialect = CM_DIALECT_GEMINI,
    .task = CM_TASK_CHAT,
    .id_prefix = CM_S_INIT("resp_"),
    .parse = cm_gemini_parse,
    .stream_size = sizeof(struct stream),
    .stream_type = CM_S_INIT("application/json; charset=utf-8"),
    .stream_begin = array_begin,
    .stream_event = stream_event,
    .stream_end = stream_end,
    .stream_error = array_error,
    .stream_clear = stream_clear,
    .keepalive = CM_S_INIT("\n"),
    .keeps_images = true,
    .whole = cm_gemini_whole,
    .error_body = cm_gemini_put_error_array,
};

const struct cm_surface cm_surface_gemini_count = {
    .dialect = CM_DIALECT_GEMINI,
    .task = CM_TASK_COUNT_TOKENS,
    .id_prefix = CM_S_INIT("resp_"),
    .parse = cm_gemini_count_parse,
    .stream_error = stream_error,
    .whole = count_whole,
    .error_body = cm_gemini_put_error,
};
