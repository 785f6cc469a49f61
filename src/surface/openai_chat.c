/* The chat completions surface, and its stream: canonical events -> chat.completion.chunk.
 *
 * Order of a stream (protocol notes, section 3): role chunk of each choice, deltas, finish chunk
 * of each choice, the usage chunk when it was asked for, [DONE]. After an error nothing follows. */
#include "chatmux/surface/surface.h"

#include "chatmux/base/config.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "openai_chat_int.h"

#include <stdlib.h>

struct choice {
    bool thinking; /* a tag of reasoning is open in the text */
    bool finished;
    const char *finish;  /* compat: told at the end, with the usage */
    struct cm_buf calls; /* one byte a call: did arguments come? */
};

struct stream {
    struct cm_answer_meta meta;
    struct cm_think_tags tags;
    struct cm_buf prefix; /* `data: {…"choices":[{"index":0,"delta":{"content":` */
    size_t n_to_index;    /* of it, up to `"index":` */
    size_t n_to_delta;    /* of it, up to `"delta":{` */
    struct cm_buf
        told; /* members of ours beside `choices` in the finish chunk, each with a comma in front */
    struct choice *choices;
    size_t n_choices;
};

#define CHOICES_MAX 128 /* adapters number choices below the `n` that was asked for */

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

/* They also have an empty `message` in every chunk; OpenAI's SDK takes it for the text so far and forgets what came. */
#define COMPAT_CHOICE "\"logprobs\":null,"
#define COMPAT_DELTA "\"role\":\"assistant\","

/* Up to the brace of the delta; compat: and its role, with a comma. */
static void put_head(const struct stream *st, int choice, struct cm_buf *out)
{
    if (choice == 0) {
        cm_buf_append(out, cm_str_head(cm_buf_str(&st->prefix), st->n_to_delta));
        return;
    }
    cm_buf_append(out, cm_str_head(cm_buf_str(&st->prefix), st->n_to_index));
    cm_json_put_int(out, choice);
    cm_buf_append(out, st->meta.compat ? CM_S("," COMPAT_CHOICE "\"delta\":{" COMPAT_DELTA)
                                       : CM_S(",\"delta\":{"));
}

/* Every chunk has figures, which are zero but for the last one: whoever adds them up, and whoever takes the last ones, is right. */
static void put_compat_end(const struct cm_usage *usage, struct cm_buf *out)
{
    const int64_t in = usage ? cm_usage_in(usage) : 0, produced = usage ? cm_usage_out(usage) : 0,
                  total = in + produced;

    cm_buf_printf(out,
                  ",\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,"
                  "\"total_tokens\":%lld},\"system_fingerprint\":null,\"suggestions\":null}\n\n",
                  (long long)in, (long long)produced, (long long)total);
}

/* From the brace of the delta on; `finish` NULL = not yet. */
static void put_tail(const struct stream *st, const char *finish, struct cm_buf *out)
{
    if (finish) {
        cm_buf_append(out, CM_S("},\"finish_reason\":"));
        cm_json_put_z(out, finish);
        cm_buf_append(out, CM_S("}]"));
    } else {
        cm_buf_append(out, CM_S("},\"finish_reason\":null}]"));
    }
    if (finish)
        cm_buf_append(out, cm_buf_str(&st->told));
    if (st->meta.compat)
        put_compat_end(NULL, out);
    else if (st->meta.include_usage)
        cm_buf_append(out, CM_S(",\"usage\":null}\n\n"));
    else
        cm_buf_append(out, CM_S("}\n\n"));
}

static void put_content(const struct stream *st, int choice, struct cm_str text, struct cm_buf *out)
{
    if (choice == 0) {
        cm_buf_append(out, cm_buf_str(&st->prefix));
    } else {
        put_head(st, choice, out);
        cm_buf_append(out, CM_S("\"content\":"));
    }
    cm_json_put_str(out, text);
    put_tail(st, NULL, out);
}

static void put_with_logprobs(const struct stream *st, const struct cm_event *ev,
                              struct cm_buf *out)
{
    put_head(st, ev->choice, out);
    cm_buf_append(out, CM_S("\"content\":"));
    cm_json_put_str(out, ev->text);
    cm_buf_append(out, CM_S("},\"logprobs\":{\"content\":"));
    cm_buf_append(out, ev->logprobs);
    cm_buf_append(out, CM_S(",\"refusal\":null"));
    put_tail(st, NULL, out);
}

/* A delta with one string member. */
static void put_string(const struct stream *st, int choice, struct cm_str member,
                       struct cm_str text, struct cm_buf *out)
{
    put_head(st, choice, out);
    cm_buf_append(out, member);
    cm_json_put_str(out, text);
    put_tail(st, NULL, out);
}

static void put_reasoning(const struct stream *st, struct choice *c, const struct cm_event *ev,
                          struct cm_buf *out)
{
    struct cm_buf tagged = {0};

    if (st->meta.reasoning == CM_REASONING_FIELD) {
        put_string(st, ev->choice, CM_S("\"reasoning_content\":"), ev->text, out);
        return;
    }
    if (!st->tags.open.p)
        return;
    if (!c->thinking)
        cm_buf_append(&tagged, st->tags.open);
    cm_buf_append(&tagged, ev->text);
    if (st->meta.reasoning == CM_REASONING_THINK_COLON_DELTA)
        cm_buf_append(&tagged, st->tags.close);
    else
        c->thinking = true;
    put_content(st, ev->choice, cm_buf_str(&tagged), out);
    cm_buf_clear(&tagged);
}

/* Whatever follows reasoning stands behind its closing tag. */
static void end_reasoning(const struct stream *st, struct choice *c, int choice, struct cm_buf *out)
{
    if (!c->thinking)
        return;
    c->thinking = false;
    if (st->tags.close.n > 0)
        put_content(st, choice, st->tags.close, out);
}

static void put_args(const struct stream *st, int choice, int index, struct cm_str args,
                     struct cm_buf *out)
{
    put_head(st, choice, out);
    cm_buf_append(out, CM_S("\"tool_calls\":[{\"index\":"));
    cm_json_put_int(out, index);
    cm_buf_append(out, CM_S(",\"function\":{\"arguments\":"));
    cm_json_put_str(out, args);
    cm_buf_append(out, CM_S("}}]"));
    put_tail(st, NULL, out);
}

static void put_call(const struct stream *st, struct choice *c, const struct cm_event *ev,
                     struct cm_buf *out)
{
    while (c->calls.n <= (size_t)ev->index)
        cm_buf_put(&c->calls, false);
    put_head(st, ev->choice, out);
    cm_buf_append(out, CM_S("\"tool_calls\":[{\"index\":"));
    cm_json_put_int(out, ev->index);
    cm_buf_append(out, CM_S(",\"id\":"));
    cm_json_put_str(out, ev->id);
    cm_buf_append(out, CM_S(",\"type\":\"function\",\"function\":{\"name\":"));
    cm_json_put_str(out, ev->name);
    cm_buf_append(out, CM_S(",\"arguments\":\"\"}}]"));
    put_tail(st, NULL, out);
}

/* Arguments of calls may alternate, so only the finish tells that a call has none: then it gets
 * an empty object. */
static void put_finish(const struct stream *st, struct choice *c, const struct cm_event *ev,
                       struct cm_buf *out)
{
    if (c->finished)
        return;
    c->finished = true;
    for (size_t i = 0; i < c->calls.n; i++) {
        if (!c->calls.p[i])
            put_args(st, ev->choice, (int)i, CM_S("{}"), out);
    }
    c->finish = cm_openai_finish(ev->finish, c->calls.n > 0);
    if (st->meta.compat)
        return; /* stream_end() */
    put_head(st, ev->choice, out);
    put_tail(st, c->finish, out);
}

static void put_image(const struct stream *st, const struct cm_event *ev, struct cm_buf *out)
{
    struct cm_buf markdown = {0};

    cm_event_put_markdown(ev, &markdown);
    put_content(st, ev->choice, cm_buf_str(&markdown), out);
    cm_buf_clear(&markdown);
}

static void stream_begin(void *state, const struct cm_answer_meta *meta, struct cm_buf *out)
{
    struct stream *st = state;
    struct cm_buf *p = &st->prefix;
    const int64_t n = meta->n > 1 ? meta->n : 1;

    st->meta = *meta;
    st->tags = cm_openai_think_tags(meta->reasoning);
    cm_buf_append(p, CM_S("data: {\"id\":"));
    cm_json_put_str(p, meta->id);
    cm_buf_append(p, CM_S(",\"object\":\"chat.completion.chunk\",\"created\":"));
    cm_json_put_int(p, meta->created_s);
    cm_buf_append(p, CM_S(",\"model\":"));
    cm_json_put_str(p, meta->model);
    cm_buf_append(p, CM_S(",\"choices\":[{\"index\":"));
    st->n_to_index = p->n;
    cm_buf_append(p, meta->compat ? CM_S("0," COMPAT_CHOICE "\"delta\":{" COMPAT_DELTA)
                                  : CM_S("0,\"delta\":{"));
    st->n_to_delta = p->n;
    cm_buf_append(p, CM_S("\"content\":"));

    for (int i = 0; i < n && !meta->compat; i++) {
        put_head(st, i, out);
        cm_buf_append(out, CM_S("\"role\":\"assistant\",\"content\":\"\",\"refusal\":null"));
        put_tail(st, NULL, out);
    }
}

static void stream_event(void *state, const struct cm_event *ev, struct cm_buf *out)
{
    struct stream *st = state;
    struct choice *c = choice_at(st, ev->choice);

    if (ev->kind == CM_EVENT_REASONING && ev->text.n > 0)
        put_reasoning(st, c, ev, out);
    else if (cm_event_semantic(ev) || ev->kind == CM_EVENT_FINISH)
        end_reasoning(st, c, ev->choice, out);

    switch (ev->kind) {
    case CM_EVENT_TEXT:
        if (ev->logprobs.n > 0 && !st->meta.compat)
            put_with_logprobs(st, ev, out);
        else if (ev->text.n > 0)
            put_content(st, ev->choice, ev->text, out);
        break;
    case CM_EVENT_REFUSAL:
        if (ev->text.n > 0)
            put_string(st, ev->choice, CM_S("\"refusal\":"), ev->text, out);
        break;
    case CM_EVENT_TOOL_CALL:
        put_call(st, c, ev, out);
        break;
    case CM_EVENT_TOOL_ARGS:
        if (ev->text.n > 0) {
            CM_ASSERT((size_t)ev->index < c->calls.n);
            c->calls.p[ev->index] = true;
            put_args(st, ev->choice, ev->index, ev->text, out);
        }
        break;
    case CM_EVENT_IMAGE:
        put_image(st, ev, out);
        break;
    case CM_EVENT_CITATION:
        put_head(st, ev->choice, out);
        cm_buf_append(out, CM_S("\"annotations\":["));
        cm_openai_put_citation(
            out, &(struct cm_citation){
                     .url = ev->url, .title = ev->name, .from = ev->from, .to = ev->to});
        cm_buf_put(out, ']');
        put_tail(st, NULL, out);
        break;
    case CM_EVENT_SERVED:
        cm_openai_put_member(&st->told, CM_S("served_model"), ev->name);
        break;
    case CM_EVENT_CONVERSATION:
        cm_openai_put_member(&st->told, CM_S("conversation_id"), ev->id);
        break;
    case CM_EVENT_FINISH:
        put_finish(st, c, ev, out);
        break;
    case CM_EVENT_REASONING: /* above */
    case CM_EVENT_SIGNATURE: /* this dialect has no place for them */
    case CM_EVENT_REDACTED:
    case CM_EVENT_EMBEDDING:
    case CM_EVENT_USAGE: /* comes with the end */
    case CM_EVENT_HEAD:  /* the relay lane does not pass here */
    case CM_EVENT_RELAY:
        break;
    }
}

/* compat: the last chunk of each choice; the very last one has the figures, unless they were asked for as OpenAI tells them. */
static void put_compat_finishes(const struct stream *st, const struct cm_usage *usage,
                                struct cm_buf *out)
{
    for (size_t i = 0; i < st->n_choices; i++) {
        const bool last = i + 1 == st->n_choices;

        put_head(st, (int)i, out);
        cm_buf_append(out, CM_S("\"content\":\"\"},\"finish_reason\":"));
        cm_json_put_z(out, st->choices[i].finish);
        cm_buf_append(out, CM_S("}]"));
        put_compat_end(last && !st->meta.include_usage ? usage : NULL, out);
    }
}

static void stream_end(void *state, const struct cm_usage *usage, struct cm_buf *out)
{
    const struct stream *st = state;

    if (st->meta.compat)
        put_compat_finishes(st, usage, out);
    if (st->meta.include_usage) {
        const size_t n_to_choices = st->n_to_index - (sizeof("{\"index\":") - 1);

        cm_buf_append(out, cm_str_head(cm_buf_str(&st->prefix), n_to_choices));
        cm_buf_append(out, CM_S("],\"usage\":"));
        cm_openai_put_usage(out, usage);
        cm_buf_append(out, CM_S("}\n\n"));
    }
    cm_buf_append(out, CM_S("data: [DONE]\n\n"));
}

static void stream_clear(void *state)
{
    struct stream *st = state;

    for (size_t i = 0; i < st->n_choices; i++)
        cm_buf_clear(&st->choices[i].calls);
    free(st->choices), st->choices = NULL;
    st->n_choices = 0;
    cm_buf_clear(&st->prefix);
    cm_buf_clear(&st->told);
}

#define SURFACE(parse_body, put_stream_error, put_error, status)                                   \
    {                                                                                              \
        .dialect = CM_DIALECT_OPENAI_CHAT,                                                         \
        .task = CM_TASK_CHAT,                                                                      \
        .id_prefix = CM_S_INIT("chatcmpl-"),                                                       \
        .parse = parse_body,                                                                       \
        .stream_size = sizeof(struct stream),                                                      \
        .stream_begin = stream_begin,                                                              \
        .stream_event = stream_event,                                                              \
        .stream_end = stream_end,                                                                  \
        .stream_error = put_stream_error,                                                          \
        .stream_clear = stream_clear,                                                              \
        .keepalive = CM_S_INIT(": keep-alive\n\n"),                                                \
        .whole = cm_openai_chat_whole,                                                             \
        .error_body = put_error,                                                                   \
        .error_status = status,                                                                    \
    }

const struct cm_surface cm_surface_openai_chat =
    SURFACE(cm_openai_chat_parse, cm_openai_stream_error, cm_openai_put_error, NULL);

const struct cm_surface cm_surfaces_compat[] = {
#define X(name, id, parse)                                                                         \
    [id] = SURFACE(parse, cm_compat_##name##_stream_error, cm_compat_##name##_error,               \
                   cm_compat_##name##_status),
    CM_COMPAT_DIALECTS(X)
#undef X
};
