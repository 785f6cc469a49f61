/* The text completions surface (OpenAI protocol notes, sections 4 and 12): one prompt in, its
 * continuation out. Over a provider that only chats the prompt is a message of a user. */
#include "chatmux/surface/surface.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "fields_int.h"
#include "openai_chat_int.h"

#define MEMBERS(X)                                                                                 \
    X(model)                                                                                       \
    X(prompt)                                                                                      \
    X(max_tokens)                                                                                  \
    X(temperature)                                                                                 \
    X(top_p)                                                                                       \
    X(presence_penalty)                                                                            \
    X(frequency_penalty)                                                                           \
    X(n)                                                                                           \
    X(best_of)                                                                                     \
    X(echo)                                                                                        \
    X(suffix)                                                                                      \
    X(logprobs)                                                                                    \
    X(logit_bias)                                                                                  \
    X(stop)                                                                                        \
    X(seed)                                                                                        \
    X(stream)                                                                                      \
    X(stream_options)                                                                              \
    X(user)

enum member {
#define X(name) M_##name,
    MEMBERS(X)
#undef X
};

static const struct cm_str member_names[] = {
#define X(name) [M_##name] = CM_S_INIT(#name),
    MEMBERS(X)
#undef X
};

#define CHOICES_MAX 128
#define MAX_TOKENS_DEFAULT 16 /* of the route */

static void untranslatable(struct cm_chat *chat, const char *member, const char *why)
{
    if (chat->untranslatable.cls == CM_ERR_NONE)
        cm_field_fail(&chat->untranslatable, CM_SPOT(NULL, member), "unsupported_parameter",
                      "'%s': the provider of this model only chats, and %s.", member, why);
}

static void say(struct cm_chat *chat, struct cm_str prompt)
{
    struct cm_part *part = CM_ARENA_NEW(chat->arena, struct cm_part);

    part->kind = CM_PART_TEXT;
    part->text = prompt;
    chat->msgs = CM_ARENA_NEW(chat->arena, struct cm_msg);
    chat->msgs[0] = (struct cm_msg){.role = CM_ROLE_USER, .parts = part, .n_parts = 1};
    chat->n_msgs = 1;
}

/* A text, texts, tokens, or lists of tokens. Each prompt gets its own choices. */
static int read_prompt(struct cm_chat *chat, yyjson_val *prompt, size_t *prompts,
                       struct cm_err *err)
{
    const struct cm_spot *at = CM_SPOT(NULL, "prompt");
    yyjson_val *first = yyjson_arr_get_first(prompt), *v;
    size_t i, max;

    *prompts = 1;
    if (!prompt) { /* the model begins by itself */
        say(chat, CM_STR_NONE);
        return 0;
    }
    if (yyjson_is_str(prompt)) {
        say(chat, cm_json_str(prompt));
        return 0;
    }
    if (!yyjson_is_arr(prompt))
        return cm_field_wrong_type(err, at, "a string or an array", prompt);
    if (!first)
        return cm_field_fail(err, at, "empty_array", "Invalid 'prompt': it is an empty array.");
    if (!yyjson_is_int(first))
        *prompts = yyjson_arr_size(prompt);
    yyjson_arr_foreach(prompt, i, max, v)
    {
        if (yyjson_get_type(v) != yyjson_get_type(first) ||
            !(yyjson_is_str(v) || yyjson_is_int(v) || yyjson_is_arr(v)))
            return cm_field_wrong_type(err, CM_SPOT_AT(at, i), "what the first item is", v);
        chat->input_tokens += yyjson_is_int(v) ? 1 : (int64_t)yyjson_arr_size(v);
    }
    if (yyjson_is_str(first) && *prompts == 1) {
        say(chat, cm_json_str(first));
        return 0;
    }
    untranslatable(chat, "prompt",
                   yyjson_is_str(first) ? "takes one prompt at a time" : "reads text, not tokens");
    if (yyjson_is_str(first)) {
        chat->inputs = CM_ARENA_ARRAY(chat->arena, struct cm_str, *prompts);
        yyjson_arr_foreach(prompt, i, max, v) chat->inputs[chat->n_inputs++] = cm_json_str(v);
    }
    return 0;
}

static int read_numbers(struct cm_chat *chat, yyjson_val **top, size_t prompts, struct cm_err *err)
{
    const struct {
        enum member member;
        double min, max;
        double *out;
    } numbers[] = {
        {M_temperature, 0, 2, &chat->temperature},
        {M_top_p, 0, 1, &chat->top_p},
        {M_presence_penalty, -2, 2, &chat->presence_penalty},
        {M_frequency_penalty, -2, 2, &chat->frequency_penalty},
    };
    int64_t best_of = -1, logprobs = -1;

    for (size_t i = 0; i < CM_COUNT(numbers); i++) {
        const enum member m = numbers[i].member;

        if (cm_field_num(top[m], CM_SPOT(NULL, member_names[m].p), numbers[i].min, numbers[i].max,
                         numbers[i].out, err))
            return -1;
    }
    chat->max_tokens = MAX_TOKENS_DEFAULT;
    if (cm_field_int(top[M_max_tokens], CM_SPOT(NULL, "max_tokens"), 0, INT64_MAX,
                     &chat->max_tokens, err) ||
        cm_field_int(top[M_n], CM_SPOT(NULL, "n"), 1, CHOICES_MAX, &chat->n, err) ||
        cm_field_int(top[M_best_of], CM_SPOT(NULL, "best_of"), 0, 20, &best_of, err) ||
        cm_field_int(top[M_logprobs], CM_SPOT(NULL, "logprobs"), 0, 5, &logprobs, err) ||
        cm_field_int(top[M_seed], CM_SPOT(NULL, "seed"), INT64_MIN, INT64_MAX, &chat->seed, err) ||
        cm_field_is_object(top[M_logit_bias], CM_SPOT(NULL, "logit_bias"), err))
        return -1;
    chat->has_seed = top[M_seed] != NULL;
    chat->logit_bias = cm_field_json(chat->arena, top[M_logit_bias]);
    if (best_of > chat->n)
        untranslatable(chat, "best_of", "does not choose among several answers");
    if (logprobs >= 0)
        untranslatable(chat, "logprobs", "tells no probabilities in the form of this route");
    if (chat->max_tokens == 0) /* only to have the prompt's own probabilities */
        untranslatable(chat, "max_tokens", "always answers something");
    chat->n *= (int64_t)prompts;
    return 0;
}

static int read_rest(struct cm_chat *chat, yyjson_val **top, struct cm_err *err)
{
    const struct cm_spot *options = CM_SPOT(NULL, "stream_options");
    struct cm_str suffix = CM_STR_NONE;
    bool echo = false;

    if (cm_field_bool(top[M_stream], CM_SPOT(NULL, "stream"), &chat->stream, err) ||
        cm_field_is_object(top[M_stream_options], options, err) ||
        cm_field_bool(cm_json_get(top[M_stream_options], "include_usage"),
                      CM_SPOT(options, "include_usage"), &chat->include_usage, err) ||
        cm_field_bool(top[M_echo], CM_SPOT(NULL, "echo"), &echo, err) ||
        cm_field_str(top[M_suffix], CM_SPOT(NULL, "suffix"), &suffix, err) ||
        cm_field_str(top[M_user], CM_SPOT(NULL, "user"), &chat->user, err) ||
        cm_openai_stop(chat, top[M_stop], err))
        return -1;
    if (suffix.n > 0)
        untranslatable(chat, "suffix", "cannot fill a gap");
    if (echo && chat->n_msgs == 1)
        chat->echo = chat->msgs[0].parts[0].text;
    if (top[M_stream_options] && !chat->stream)
        return cm_field_fail(
            err, options, NULL,
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.");
    return 0;
}

static int parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    yyjson_val *top[CM_COUNT(member_names)];
    size_t prompts;

    if (cm_field_body(chat, CM_DIALECT_OPENAI_CHAT, CM_TASK_COMPLETION, body, member_names,
                      CM_COUNT(member_names), top, err) ||
        cm_openai_model_member(chat, top[M_model], NULL, err) ||
        read_prompt(chat, top[M_prompt], &prompts, err))
        return -1;
    return read_numbers(chat, top, prompts, err) || read_rest(chat, top, err) ? -1 : 0;
}

/* ---- The answer ---- */

static void put_head(const struct cm_answer_meta *meta, struct cm_buf *out)
{
    cm_buf_append(out, CM_S("{\"id\":"));
    cm_json_put_str(out, meta->id);
    cm_buf_append(out, CM_S(",\"object\":\"text_completion\",\"created\":"));
    cm_json_put_int(out, meta->created_s);
    cm_buf_append(out, CM_S(",\"model\":"));
    cm_json_put_str(out, meta->model);
    cm_buf_append(out, CM_S(",\"choices\":["));
}

static void put_choice(size_t index, struct cm_str text, const char *finish, struct cm_buf *out)
{
    cm_buf_append(out, CM_S("{\"text\":"));
    cm_json_put_str(out, text);
    cm_buf_append(out, CM_S(",\"index\":"));
    cm_buf_put_u64(out, index);
    cm_buf_append(out, CM_S(",\"logprobs\":null,\"finish_reason\":"));
    cm_json_put_z(out, finish);
    cm_buf_put(out, '}');
}

static void whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                  struct cm_buf *out)
{
    put_head(meta, out);
    for (size_t i = 0; i < answer->n_choices; i++) {
        const struct cm_choice_acc *c = &answer->choices[i];
        struct cm_buf text = {0};

        cm_buf_append(&text, meta->chat->echo);
        cm_buf_append(&text, cm_buf_str(&c->text));
        cm_buf_append(&text, cm_buf_str(&c->refusal));
        if (i > 0)
            cm_buf_put(out, ',');
        put_choice(i, cm_buf_str(&text), cm_openai_finish(c->finish, false), out);
        cm_buf_clear(&text);
    }
    cm_buf_append(out, CM_S("],\"usage\":"));
    cm_openai_put_usage(out, &answer->usage);
    cm_buf_put(out, '}');
}

/* ---- The stream ---- */

struct stream {
    struct cm_answer_meta meta;
};

static void put_chunk(const struct stream *st, int choice, struct cm_str text, const char *finish,
                      struct cm_buf *out)
{
    cm_buf_append(out, CM_S("data: "));
    put_head(&st->meta, out);
    put_choice((size_t)choice, text, finish, out);
    cm_buf_append(out, st->meta.include_usage ? CM_S("],\"usage\":null}\n\n") : CM_S("]}\n\n"));
}

static void stream_begin(void *state, const struct cm_answer_meta *meta, struct cm_buf *out)
{
    struct stream *st = state;

    st->meta = *meta;
    for (int i = 0; i < meta->n && meta->chat->echo.n > 0; i++)
        put_chunk(st, i, meta->chat->echo, NULL, out);
}

static void stream_event(void *state, const struct cm_event *ev, struct cm_buf *out)
{
    const struct stream *st = state;
    struct cm_buf markdown = {0};

    switch (ev->kind) {
    case CM_EVENT_TEXT:
    case CM_EVENT_REFUSAL:
        if (ev->text.n > 0)
            put_chunk(st, ev->choice, ev->text, NULL, out);
        break;
    case CM_EVENT_IMAGE:
        cm_event_put_markdown(ev, &markdown);
        put_chunk(st, ev->choice, cm_buf_str(&markdown), NULL, out);
        cm_buf_clear(&markdown);
        break;
    case CM_EVENT_FINISH:
        put_chunk(st, ev->choice, CM_STR_NONE, cm_openai_finish(ev->finish, false), out);
        break;
    case CM_EVENT_REASONING: /* this dialect has no place for them */
    case CM_EVENT_SIGNATURE:
    case CM_EVENT_REDACTED:
    case CM_EVENT_TOOL_CALL:
    case CM_EVENT_TOOL_ARGS:
    case CM_EVENT_CITATION:
    case CM_EVENT_EMBEDDING:
    case CM_EVENT_USAGE:
    case CM_EVENT_SERVED:
    case CM_EVENT_CONVERSATION:
    case CM_EVENT_HEAD:
    case CM_EVENT_RELAY:
        break;
    }
}

static void stream_end(void *state, const struct cm_usage *usage, struct cm_buf *out)
{
    const struct stream *st = state;

    if (st->meta.include_usage) {
        cm_buf_append(out, CM_S("data: "));
        put_head(&st->meta, out);
        cm_buf_append(out, CM_S("],\"usage\":"));
        cm_openai_put_usage(out, usage);
        cm_buf_append(out, CM_S("}\n\n"));
    }
    cm_buf_append(out, CM_S("data: [DONE]\n\n"));
}

static void stream_clear(void *state)
{
    (void)state;
}

const struct cm_surface cm_surface_openai_completions = {
    .dialect = CM_DIALECT_OPENAI_CHAT,
    .task = CM_TASK_COMPLETION,
    .id_prefix = CM_S_INIT("cmpl-"),
    .parse = parse,
    .stream_size = sizeof(struct stream),
    .stream_begin = stream_begin,
    .stream_event = stream_event,
    .stream_end = stream_end,
    .stream_error = cm_openai_stream_error,
    .stream_clear = stream_clear,
    .keepalive = CM_S_INIT(": keep-alive\n\n"),
    .whole = whole,
    .error_body = cm_openai_put_error,
};
