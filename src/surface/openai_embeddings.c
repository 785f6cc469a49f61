/* The embeddings surface (OpenAI protocol notes, section 5): texts in, a vector for each out. */
#include "chatmux/surface/surface.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "fields_int.h"
#include "openai_chat_int.h"

#include <math.h>

#define MEMBERS(X) X(model) X(input) X(encoding_format) X(dimensions) X(user)

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

#define INPUTS_MAX 2048
#define DIMENSIONS_MAX (1 << 16)

static int read_texts(struct cm_chat *chat, yyjson_val *list, struct cm_err *err)
{
    const struct cm_spot *at = CM_SPOT(NULL, "input");
    size_t i, max;
    yyjson_val *v;

    chat->inputs = CM_ARENA_ARRAY(chat->arena, struct cm_str, yyjson_arr_size(list));
    yyjson_arr_foreach(list, i, max, v)
    {
        if (!yyjson_is_str(v))
            return cm_field_wrong_type(err, CM_SPOT_AT(at, i), "a string", v);
        if (yyjson_get_len(v) == 0)
            return cm_field_fail(err, CM_SPOT_AT(at, i), "invalid_value",
                                 "An input of embeddings cannot be empty.");
        chat->inputs[chat->n_inputs++] = cm_json_str(v);
    }
    return 0;
}

/* Numbers that only the model's own tokenizer can read. */
static int read_tokens(struct cm_chat *chat, yyjson_val *list, struct cm_err *err)
{
    const struct cm_spot *at = CM_SPOT(NULL, "input");
    size_t i, max, k, n;
    yyjson_val *v, *token;

    yyjson_arr_foreach(list, i, max, v)
    {
        if (!yyjson_is_int(v) && !yyjson_is_arr(v))
            return cm_field_wrong_type(err, CM_SPOT_AT(at, i), "a token or an array of tokens", v);
        yyjson_arr_foreach(v, k, n, token)
        {
            if (!yyjson_is_int(token))
                return cm_field_wrong_type(err, CM_SPOT_AT(CM_SPOT_AT(at, i), k), "a token", token);
        }
        chat->input_tokens += yyjson_is_int(v) ? 1 : (int64_t)yyjson_arr_size(v);
    }
    cm_field_fail(&chat->untranslatable, at, "unsupported_parameter",
                  "'input': the provider of this model reads text, not tokens.");
    return 0;
}

static int read_input(struct cm_chat *chat, yyjson_val *input, struct cm_err *err)
{
    const struct cm_spot *at = CM_SPOT(NULL, "input");
    yyjson_val *first = yyjson_arr_get_first(input);

    if (!input)
        return cm_field_missing(err, at);
    if (yyjson_is_str(input)) {
        if (yyjson_get_len(input) == 0)
            return cm_field_fail(err, at, "invalid_value",
                                 "An input of embeddings cannot be empty.");
        chat->inputs = CM_ARENA_NEW(chat->arena, struct cm_str);
        chat->inputs[chat->n_inputs++] = cm_json_str(input);
        return 0;
    }
    if (!yyjson_is_arr(input))
        return cm_field_wrong_type(err, at, "a string or an array", input);
    if (!first)
        return cm_field_fail(err, at, "empty_array", "Invalid 'input': it is an empty array.");
    if (!yyjson_is_int(first) && yyjson_arr_size(input) > INPUTS_MAX)
        return cm_field_fail(err, at, "array_above_max_length",
                             "Invalid 'input': expected at most %d inputs, but got %zu instead.",
                             INPUTS_MAX, yyjson_arr_size(input));
    return yyjson_is_str(first) ? read_texts(chat, input, err) : read_tokens(chat, input, err);
}

static int parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    yyjson_val *top[CM_COUNT(member_names)];
    const struct cm_spot *format_spot = CM_SPOT(NULL, "encoding_format");
    struct cm_str format = CM_S("float");

    if (cm_field_body(chat, CM_DIALECT_OPENAI_CHAT, CM_TASK_EMBEDDING, body, member_names,
                      CM_COUNT(member_names), top, err) ||
        cm_openai_model_member(chat, top[M_model], NULL, err) ||
        read_input(chat, top[M_input], err) ||
        cm_field_int(top[M_dimensions], CM_SPOT(NULL, "dimensions"), 1, DIMENSIONS_MAX,
                     &chat->dimensions, err) ||
        cm_field_str(top[M_encoding_format], format_spot, &format, err) ||
        cm_field_str(top[M_user], CM_SPOT(NULL, "user"), &chat->user, err))
        return -1;
    chat->base64 = cm_str_eq(format, CM_S("base64"));
    if (!chat->base64 && !cm_str_eq(format, CM_S("float")))
        return cm_field_wrong_value(err, format_spot, format, "'float' and 'base64'");
    return 0;
}

/* ---- The answer ---- */

/* Nine digits tell every float32 from its neighbours. */
static void put_floats(struct cm_buf *out, struct cm_str vector)
{
    cm_buf_put(out, '[');
    for (size_t i = 0; i + sizeof(float) <= vector.n; i += sizeof(float)) {
        float f;

        memcpy(&f, vector.p + i, sizeof(f));
        cm_buf_printf(out, i > 0 ? ",%.9g" : "%.9g", isfinite(f) ? (double)f : 0.0);
    }
    cm_buf_put(out, ']');
}

static void put_base64(struct cm_buf *out, struct cm_str vector)
{
    cm_buf_put(out, '"');
    cm_base64(out, vector);
    cm_buf_put(out, '"');
}

static void whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                  struct cm_buf *out)
{
    const int64_t in = cm_usage_in(&answer->usage);

    cm_buf_append(out, CM_S("{\"object\":\"list\",\"data\":["));
    for (size_t i = 0; i < answer->n_vectors; i++) {
        const struct cm_str vector = cm_buf_str(&answer->vectors[i]);

        cm_buf_append(out, i > 0 ? CM_S(",{\"object\":\"embedding\",\"index\":")
                                 : CM_S("{\"object\":\"embedding\",\"index\":"));
        cm_buf_put_u64(out, i);
        cm_buf_append(out, CM_S(",\"embedding\":"));
        if (meta->chat->base64)
            put_base64(out, vector);
        else
            put_floats(out, vector);
        cm_buf_put(out, '}');
    }
    cm_buf_append(out, CM_S("],\"model\":"));
    cm_json_put_str(out, meta->model);
    cm_buf_append(out, CM_S(",\"usage\":{\"prompt_tokens\":"));
    cm_json_put_int(out, in);
    cm_buf_append(out, CM_S(",\"total_tokens\":"));
    cm_json_put_int(out, in);
    cm_buf_append(out, CM_S("}}"));
}

const struct cm_surface cm_surface_openai_embeddings = {
    .dialect = CM_DIALECT_OPENAI_CHAT,
    .task = CM_TASK_EMBEDDING,
    .id_prefix = CM_S_INIT("embd-"),
    .parse = parse,
    .stream_error = cm_openai_stream_error,
    .whole = whole,
    .error_body = cm_openai_put_error,
};
