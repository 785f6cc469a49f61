/* Body of POST /v1/chat/completions -> canonical request; openai_chat_messages.c and
 * openai_chat_tools.c read what they are named after.
 *
 * Types and ranges are checked for every member that is read; members nobody here reads are left
 * to the relay lane. What the canonical model has no words for (custom tools, spoken answers,
 * parts of other vendors) is noted in chat->untranslatable. */
#include "openai_chat_int.h"
#include "openai_chat_read_int.h"

#include "chatmux/base/mem.h"

#define MEMBERS(X)                                                                                 \
    X(model)                                                                                       \
    X(messages)                                                                                    \
    X(stream)                                                                                      \
    X(stream_options)                                                                              \
    X(temperature)                                                                                 \
    X(top_p)                                                                                       \
    X(max_tokens)                                                                                  \
    X(max_completion_tokens)                                                                       \
    X(n)                                                                                           \
    X(stop)                                                                                        \
    X(seed)                                                                                        \
    X(presence_penalty)                                                                            \
    X(frequency_penalty)                                                                           \
    X(logprobs)                                                                                    \
    X(top_logprobs)                                                                                \
    X(logit_bias)                                                                                  \
    X(tools)                                                                                       \
    X(tool_choice)                                                                                 \
    X(parallel_tool_calls)                                                                         \
    X(functions)                                                                                   \
    X(function_call)                                                                               \
    X(response_format)                                                                             \
    X(reasoning_effort)                                                                            \
    X(modalities)                                                                                  \
    X(audio)                                                                                       \
    X(user)                                                                                        \
    X(safety_identifier)                                                                           \
    X(verbosity)                                                                                   \
    X(service_tier)                                                                                \
    X(metadata)                                                                                    \
    X(prompt_cache_key)                                                                            \
    X(store)                                                                                       \
    X(prediction)                                                                                  \
    X(web_search_options)                                                                          \
    X(moderation)                                                                                  \
    X(prompt_cache_retention)                                                                      \
    X(prompt_cache_options)

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

struct reader {
    struct cm_openai_reader in; /* what the readers of messages and tools see */
    struct cm_chat *chat;       /* its chat and error */
    struct cm_err *err;
    yyjson_val *top[CM_COUNT(member_names)];
};

void *cm_openai_settle(struct cm_openai_reader *r, struct cm_buf *list, size_t size, size_t *n)
{
    void *items = cm_arena_alloc(r->chat->arena, list->n);

    if (list->n > 0)
        memcpy(items, list->p, list->n);
    *n = list->n / size;
    cm_buf_reset(list);
    return items;
}

void cm_openai_untranslatable(struct cm_openai_reader *r, const struct cm_err *why)
{
    if (r->chat->untranslatable.cls == CM_ERR_NONE)
        r->chat->untranslatable = *why;
}

yyjson_val *cm_openai_part_object(struct cm_openai_reader *r, yyjson_val *v,
                                  const struct cm_spot *spot)
{
    yyjson_val *object = cm_json_opt(v, spot->key);

    if (!object)
        cm_field_missing(r->err, spot);
    else if (cm_field_is_object(object, spot, r->err))
        object = NULL;
    return object;
}

/* ---- The other members ---- */

static int read_sampling(struct reader *r)
{
    struct cm_chat *chat = r->chat;
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

    for (size_t i = 0; i < CM_COUNT(numbers); i++) {
        const enum member m = numbers[i].member;

        if (r->top[m] && cm_field_num(r->top[m], CM_SPOT(NULL, member_names[m].p), numbers[i].min,
                                      numbers[i].max, numbers[i].out, r->err))
            return -1;
    }
    if (cm_field_int(r->top[M_max_tokens], CM_SPOT(NULL, "max_tokens"), 1, INT64_MAX,
                     &chat->max_tokens, r->err) ||
        cm_field_int(r->top[M_max_completion_tokens], CM_SPOT(NULL, "max_completion_tokens"), 1,
                     INT64_MAX, &chat->max_tokens, r->err) ||
        cm_field_int(r->top[M_n], CM_SPOT(NULL, "n"), 1, 128, &chat->n, r->err) ||
        cm_field_int(r->top[M_seed], CM_SPOT(NULL, "seed"), INT64_MIN, INT64_MAX, &chat->seed,
                     r->err) ||
        cm_field_bool(r->top[M_logprobs], CM_SPOT(NULL, "logprobs"), &chat->logprobs, r->err) ||
        cm_field_int(r->top[M_top_logprobs], CM_SPOT(NULL, "top_logprobs"), 0, 20,
                     &chat->top_logprobs, r->err) ||
        cm_field_is_object(r->top[M_logit_bias], CM_SPOT(NULL, "logit_bias"), r->err))
        return -1;
    chat->has_seed = r->top[M_seed] != NULL;
    chat->logit_bias = cm_field_json(chat->arena, r->top[M_logit_bias]);
    if (chat->top_logprobs > 0 && !chat->logprobs)
        return cm_field_fail(r->err, CM_SPOT(NULL, "top_logprobs"), NULL,
                             "'top_logprobs' is only allowed when 'logprobs' is true.");
    return 0;
}

static int read_stream(struct reader *r)
{
    yyjson_val *options = r->top[M_stream_options];
    const struct cm_spot *at = CM_SPOT(NULL, "stream_options");
    struct cm_chat *chat = r->chat;

    if (cm_field_bool(r->top[M_stream], CM_SPOT(NULL, "stream"), &chat->stream, r->err))
        return -1;
    if (!options)
        return 0;
    if (cm_field_is_object(options, at, r->err) ||
        cm_field_bool(cm_json_get(options, "include_usage"), CM_SPOT(at, "include_usage"),
                      &chat->include_usage, r->err))
        return -1;
    if (!chat->stream)
        return cm_field_fail(
            r->err, at, NULL,
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.");
    return 0;
}

static int read_format(struct reader *r)
{
    yyjson_val *format = r->top[M_response_format], *schema;
    const struct cm_spot *at = CM_SPOT(NULL, "response_format"), *spot = CM_SPOT(at, "json_schema");
    struct cm_err why = {0};
    int rc = cm_openai_format(r->chat, format, at, &why, r->err);

    if (why.cls != CM_ERR_NONE)
        cm_openai_untranslatable(&r->in, &why);
    if (rc <= 0)
        return rc;
    schema = cm_openai_part_object(&r->in, format, spot);
    return schema ? cm_openai_schema(r->chat, schema, spot, r->err) : -1;
}

static int read_modalities(struct reader *r)
{
    yyjson_val *modalities = r->top[M_modalities], *v;
    const struct cm_spot *at = CM_SPOT(NULL, "modalities");
    struct cm_err why;
    size_t i, max;

    if (cm_field_is_array(modalities, at, r->err) ||
        cm_field_is_object(r->top[M_audio], CM_SPOT(NULL, "audio"), r->err))
        return -1;
    yyjson_arr_foreach(modalities, i, max, v)
    {
        if (!yyjson_is_str(v))
            return cm_field_wrong_type(r->err, CM_SPOT_AT(at, i), "a string", v);
        if (cm_str_eq(cm_json_str(v), CM_S("text"))) {
            r->chat->modalities |= CM_MODALITY_TEXT;
            continue;
        }
        if (cm_str_eq(cm_json_str(v), CM_S("image"))) { /* of vendors whose models draw */
            r->chat->modalities |= CM_MODALITY_IMAGE;
            continue;
        }
        if (cm_str_eq(cm_json_str(v), CM_S("audio")))
            r->chat->modalities |= CM_MODALITY_AUDIO;
        cm_field_wrong_value(&why, CM_SPOT_AT(at, i), cm_json_str(v), "'text' and 'image'");
        cm_openai_untranslatable(&r->in, &why);
    }
    return 0;
}

static int read_rest(struct reader *r)
{
    struct cm_chat *chat = r->chat;
    static const enum member droppable[] = {M_prediction, M_web_search_options, M_moderation,
                                            M_prompt_cache_retention, M_prompt_cache_options};
    yyjson_val *parallel = r->top[M_parallel_tool_calls];
    bool is_parallel = false, store = false;

    if (cm_field_bool(parallel, CM_SPOT(NULL, "parallel_tool_calls"), &is_parallel, r->err) ||
        cm_field_str(r->top[M_reasoning_effort], CM_SPOT(NULL, "reasoning_effort"),
                     &chat->reasoning_effort, r->err) ||
        cm_field_str(r->top[M_user], CM_SPOT(NULL, "user"), &chat->user, r->err) ||
        cm_field_str(r->top[M_safety_identifier], CM_SPOT(NULL, "safety_identifier"), &chat->user,
                     r->err) ||
        cm_field_str(r->top[M_verbosity], CM_SPOT(NULL, "verbosity"), &chat->verbosity, r->err) ||
        cm_field_str(r->top[M_service_tier], CM_SPOT(NULL, "service_tier"), &chat->service_tier,
                     r->err) ||
        cm_field_str(r->top[M_prompt_cache_key], CM_SPOT(NULL, "prompt_cache_key"),
                     &chat->cache_key, r->err) ||
        cm_field_is_object(r->top[M_metadata], CM_SPOT(NULL, "metadata"), r->err) ||
        cm_field_bool(r->top[M_store], CM_SPOT(NULL, "store"), &store, r->err))
        return -1;
    chat->metadata = cm_field_json(chat->arena, r->top[M_metadata]);
    if (store)
        cm_chat_drop(chat, CM_S("store"));
    for (size_t i = 0; i < CM_COUNT(droppable); i++) {
        if (r->top[droppable[i]])
            cm_chat_drop(chat, member_names[droppable[i]]);
    }
    chat->parallel_tool_calls = parallel ? is_parallel : -1;
    return cm_openai_stop(chat, r->top[M_stop], r->err) || read_format(r) || read_modalities(r) ? -1
                                                                                                : 0;
}

int cm_openai_chat_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    struct reader r = {.in = {.chat = chat, .err = err}, .chat = chat, .err = err};
    int failed = cm_field_body(chat, CM_DIALECT_OPENAI_CHAT, CM_TASK_CHAT, body, member_names,
                               CM_COUNT(member_names), r.top, err) ||
                 cm_openai_model_member(chat, r.top[M_model], NULL, err) ||
                 cm_openai_read_messages(&r.in, r.top[M_messages]) || read_stream(&r) ||
                 read_sampling(&r) ||
                 cm_openai_read_tools(&r.in, r.top[M_tools], r.top[M_functions]) ||
                 cm_openai_read_tool_choice(&r.in, r.top[M_tool_choice], r.top[M_function_call]) ||
                 read_rest(&r);
    cm_map_clear(&r.in.calls);
    cm_buf_clear(&r.in.parts);
    cm_buf_clear(&r.in.msgs);
    cm_buf_clear(&r.in.tools);
    return failed ? -1 : 0;
}
