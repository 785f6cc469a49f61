/* Body and path of generateContent, streamGenerateContent and countTokens -> canonical request.
 *
 * Types and ranges are checked for every member that is read; members nobody here reads are left to the relay lane, whose upstream judges them. What the
 * canonical model has no words for is noted in chat->untranslatable, what an answer can do without in chat->dropped (protocol notes of Gemini, sections
 * 2 and 6). */
#include "gemini_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>

typedef struct cm_gemini_reader reader;

/* camelCase, snake_case */
#define MEMBERS(X)                                                                                 \
    X(contents, contents)                                                                          \
    X(systemInstruction, system_instruction)                                                       \
    X(tools, tools)                                                                                \
    X(toolConfig, tool_config)                                                                     \
    X(generationConfig, generation_config)                                                         \
    X(safetySettings, safety_settings)                                                             \
    X(cachedContent, cached_content)                                                               \
    X(serviceTier, service_tier)                                                                   \
    X(store, store)                                                                                \
    X(labels, labels)                                                                              \
    X(generateContentRequest, generate_content_request) /* of countTokens */

enum member {
#define X(camel, snake) M_##camel,
    MEMBERS(X)
#undef X
        M_COUNT
};
static const struct cm_str member_names[] = {
#define X(camel, snake) [M_##camel] = CM_S_INIT(#camel), [M_COUNT + M_##camel] = CM_S_INIT(#snake),
    MEMBERS(X)
#undef X
};

yyjson_val *cm_gemini_member(const yyjson_val *obj, const char *camel)
{
    char snake[64];
    yyjson_val *v = cm_json_opt(obj, camel);
    size_t n = 0;

    if (v)
        return v;
    for (; *camel && n + 3 < sizeof(snake); camel++) {
        const bool upper = *camel >= 'A' && *camel <= 'Z';

        if (upper)
            snake[n++] = '_';
        snake[n++] = upper ? (char)(*camel - 'A' + 'a') : *camel;
    }
    snake[n] = '\0';
    return cm_json_opt(obj, snake);
}

void cm_gemini_untranslatable(reader *r, const struct cm_spot *at, const char *fmt, ...)
{
    char msg[300], where[64];
    va_list ap;

    if (r->chat->untranslatable.cls != CM_ERR_NONE)
        return;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    cm_spot_text(at, where, sizeof(where));
    cm_fail_param(&r->chat->untranslatable, CM_ERR_BAD_REQUEST, where, "%s: %s", where, msg);
    cm_str_copy(r->chat->untranslatable.code, sizeof(r->chat->untranslatable.code),
                CM_S("unsupported_value"));
}

int cm_gemini_read_model(struct cm_chat *chat, struct cm_err *err)
{
    struct cm_str model = chat->path;

    while (model.n > 0 && model.p[model.n - 1] != ':')
        model.n--;
    model = cm_str_head(model, model.n > 0 ? model.n - 1 : 0);
    while (cm_str_starts(model, CM_S("models/")))
        model = cm_str_from(model, sizeof("models/") - 1);
    chat->model = model;
    chat->stream = cm_str_ends(chat->path, CM_S(":streamGenerateContent"));
    chat->include_usage = true; /* this dialect always tells */
    if (model.n == 0)
        return cm_fail(err, CM_ERR_BAD_REQUEST, "the path names no model: models/NAME:operation");
    return 0;
}

/* ---- generationConfig ---- */

/* A whole number may come as text or with a point. */
static int read_int(yyjson_val *v, const struct cm_spot *at, int64_t min, int64_t max, int64_t *out,
                    struct cm_err *err)
{
    const double number = yyjson_is_real(v) ? yyjson_get_real(v) : 0.5;
    uint64_t told;

    if (number >= (double)min && number <= (double)max && number == (double)(int64_t)number) {
        *out = (int64_t)number;
        return 0;
    }
    if (yyjson_is_str(v) && cm_str_to_u64(cm_json_str(v), (uint64_t)max, &told) &&
        (int64_t)told >= min) {
        *out = (int64_t)told;
        return 0;
    }
    return cm_field_int(v, at, min, max, out, err);
}

static int read_thinking(reader *r, yyjson_val *v, const struct cm_spot *at)
{
    static const char *const levels[][2] = {
        {"MINIMAL", "minimal"}, {"LOW", "low"}, {"MEDIUM", "medium"}, {"HIGH", "high"}};
    yyjson_val *include = cm_gemini_member(v, "includeThoughts");
    struct cm_chat *chat = r->chat;
    struct cm_str level = CM_STR_NONE;
    int64_t budget = INT64_MIN;
    bool shown = false;

    if (cm_field_is_object(v, at, r->err) ||
        cm_field_bool(include, CM_SPOT(at, "includeThoughts"), &shown, r->err) ||
        read_int(cm_gemini_member(v, "thinkingBudget"), CM_SPOT(at, "thinkingBudget"), -1,
                 INT32_MAX, &budget, r->err) ||
        cm_field_str(cm_gemini_member(v, "thinkingLevel"), CM_SPOT(at, "thinkingLevel"), &level,
                     r->err))
        return -1;
    chat->show_thinking = include ? shown : -1;
    if (budget == 0) {
        chat->thinking = CM_THINKING_OFF;
    } else if (budget == -1) {
        chat->thinking = CM_THINKING_ADAPTIVE;
    } else if (budget > 0) {
        chat->thinking = CM_THINKING_ON;
        chat->thinking_budget = budget;
    }
    for (size_t i = 0; i < CM_COUNT(levels); i++) {
        if (!cm_str_eq_nocase(level, cm_str_of(levels[i][0])))
            continue;
        chat->reasoning_effort = cm_str_of(levels[i][1]);
        chat->thinking = CM_THINKING_ON;
    }
    return 0;
}

static int read_stops(reader *r, yyjson_val *v, const struct cm_spot *at)
{
    struct cm_chat *chat = r->chat;
    yyjson_val *one;
    size_t i, n;

    if (cm_field_is_array(v, at, r->err))
        return -1;
    if (yyjson_arr_size(v) > 5)
        return cm_field_fail(r->err, at, NULL, "There may be at most 5 stop sequences.");
    chat->stop = CM_ARENA_ARRAY(chat->arena, struct cm_str, yyjson_arr_size(v));
    yyjson_arr_foreach(v, i, n, one)
    {
        if (!yyjson_is_str(one))
            return cm_field_wrong_type(r->err, CM_SPOT_AT(at, i), "a string", one);
        chat->stop[chat->n_stop++] = cm_json_str(one);
    }
    return 0;
}

static int read_format(reader *r, yyjson_val *config, const struct cm_spot *at)
{
    const struct cm_spot *type_spot = CM_SPOT(at, "responseMimeType");
    yyjson_val *small = cm_gemini_member(config, "responseSchema"),
               *large = cm_gemini_member(config, "responseJsonSchema");
    struct cm_chat *chat = r->chat;
    struct cm_str type = CM_STR_NONE;

    if (cm_field_str(cm_gemini_member(config, "responseMimeType"), type_spot, &type, r->err) ||
        cm_field_is_object(small, CM_SPOT(at, "responseSchema"), r->err))
        return -1;
    if (cm_str_eq(type, CM_S("text/x.enum")))
        cm_gemini_untranslatable(r, type_spot,
                                 "this model's provider cannot answer in text/x.enum");
    if (!cm_str_eq(type, CM_S("application/json")))
        return 0;
    chat->format = small || large ? CM_FORMAT_SCHEMA : CM_FORMAT_JSON;
    chat->schema_name = CM_S("response");
    if (large)
        chat->schema = cm_field_json(chat->arena, large);
    else if (small)
        chat->schema = cm_gemini_json_schema(chat->arena, small);
    return 0;
}

static int read_modalities(reader *r, yyjson_val *v, const struct cm_spot *at)
{
    yyjson_val *one;
    size_t i, n;

    if (cm_field_is_array(v, at, r->err))
        return -1;
    yyjson_arr_foreach(v, i, n, one)
    {
        struct cm_str name = cm_json_str(one);

        if (cm_str_eq_nocase(name, CM_S("TEXT")))
            r->chat->modalities |= CM_MODALITY_TEXT;
        else if (cm_str_eq_nocase(name, CM_S("IMAGE")))
            r->chat->modalities |= CM_MODALITY_IMAGE;
        else
            cm_gemini_untranslatable(r, CM_SPOT_AT(at, i),
                                     "this model's provider answers in text and pictures only");
    }
    return 0;
}

static int read_config(reader *r, yyjson_val *v)
{
    const struct cm_spot *at = CM_SPOT(NULL, "generationConfig");
    struct cm_chat *chat = r->chat;
    yyjson_val *seed = cm_gemini_member(v, "seed");

    if (!v)
        return 0;
    if (cm_field_is_object(v, at, r->err) ||
        cm_field_num(cm_gemini_member(v, "temperature"), CM_SPOT(at, "temperature"), 0, 2,
                     &chat->temperature, r->err) ||
        cm_field_num(cm_gemini_member(v, "topP"), CM_SPOT(at, "topP"), 0, 1, &chat->top_p,
                     r->err) ||
        read_int(cm_gemini_member(v, "topK"), CM_SPOT(at, "topK"), 1, INT32_MAX, &chat->top_k,
                 r->err) ||
        read_int(cm_gemini_member(v, "candidateCount"), CM_SPOT(at, "candidateCount"), 1, 8,
                 &chat->n, r->err) ||
        read_int(cm_gemini_member(v, "maxOutputTokens"), CM_SPOT(at, "maxOutputTokens"), 1,
                 INT32_MAX, &chat->max_tokens, r->err) ||
        read_int(seed, CM_SPOT(at, "seed"), INT32_MIN, INT32_MAX, &chat->seed, r->err) ||
        cm_field_num(cm_gemini_member(v, "presencePenalty"), CM_SPOT(at, "presencePenalty"), -2, 2,
                     &chat->presence_penalty, r->err) ||
        cm_field_num(cm_gemini_member(v, "frequencyPenalty"), CM_SPOT(at, "frequencyPenalty"), -2,
                     2, &chat->frequency_penalty, r->err) ||
        cm_field_bool(cm_gemini_member(v, "responseLogprobs"), CM_SPOT(at, "responseLogprobs"),
                      &chat->logprobs, r->err) ||
        read_int(cm_gemini_member(v, "logprobs"), CM_SPOT(at, "logprobs"), 0, 20,
                 &chat->top_logprobs, r->err) ||
        read_stops(r, cm_gemini_member(v, "stopSequences"), CM_SPOT(at, "stopSequences")) ||
        read_format(r, v, at) ||
        read_thinking(r, cm_gemini_member(v, "thinkingConfig"), CM_SPOT(at, "thinkingConfig")) ||
        read_modalities(r, cm_gemini_member(v, "responseModalities"),
                        CM_SPOT(at, "responseModalities")))
        return -1;
    chat->has_seed = seed != NULL;
    return 0;
}

/* ---- the body ---- */

static int read_rest(reader *r, yyjson_val *const *top)
{
    static const enum member dropped[] = {M_safetySettings, M_serviceTier, M_labels};

    for (size_t i = 0; i < CM_COUNT(dropped); i++) {
        if (top[dropped[i]])
            cm_chat_drop(r->chat, member_names[dropped[i]]);
    }
    if (yyjson_is_true(top[M_store]))
        cm_chat_drop(r->chat, member_names[M_store]);
    if (top[M_cachedContent])
        cm_gemini_untranslatable(r, CM_SPOT(NULL, "cachedContent"),
                                 "content kept by Google does not reach this model's provider");
    return 0;
}

/* What came in the second spelling stands in the place of the first. */
static void one_spelling(yyjson_val **top)
{
    for (size_t i = 0; i < M_COUNT; i++) {
        if (!top[i])
            top[i] = top[M_COUNT + i];
    }
}

static int read_top(reader *r, yyjson_val **top)
{
    struct cm_chat *chat = r->chat;
    int failed;

    one_spelling(top);
    failed = cm_gemini_read_system(r, top[M_systemInstruction]) ||
             cm_gemini_read_contents(r, top[M_contents]) ||
             cm_gemini_read_tools(r, top[M_tools], top[M_toolConfig]) ||
             read_config(r, top[M_generationConfig]) || read_rest(r, top);
    if (!failed) {
        chat->n_msgs = r->msgs.n / sizeof(struct cm_msg);
        chat->msgs = cm_arena_alloc(chat->arena, r->msgs.n);
        if (r->msgs.n > 0)
            memcpy(chat->msgs, r->msgs.p, r->msgs.n);
    }
    cm_buf_clear(&r->msgs);
    cm_buf_clear(&r->parts);
    return failed ? -1 : 0;
}

int cm_gemini_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    yyjson_val *top[CM_COUNT(member_names)];
    reader r = {.chat = chat, .err = err};

    if (cm_field_body(chat, CM_DIALECT_GEMINI, CM_TASK_CHAT, body, member_names,
                      CM_COUNT(member_names), top, err) ||
        cm_gemini_read_model(chat, err))
        return -1;
    return read_top(&r, top);
}

/* {"contents": …}, or the whole request below generateContentRequest. */
int cm_gemini_count_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    yyjson_val *top[CM_COUNT(member_names)], *inner;
    reader r = {.chat = chat, .err = err};

    if (cm_field_body(chat, CM_DIALECT_GEMINI, CM_TASK_COUNT_TOKENS, body, member_names,
                      CM_COUNT(member_names), top, err) ||
        cm_gemini_read_model(chat, err))
        return -1;
    one_spelling(top);
    inner = top[M_generateContentRequest];
    if (inner && (cm_field_is_object(inner, CM_SPOT(NULL, "generateContentRequest"), err) ||
                  cm_field_members(inner, member_names, CM_COUNT(member_names), top, err)))
        return -1;
    return read_top(&r, top);
}
