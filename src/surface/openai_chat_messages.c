/* The messages of a chat completion: who said what, and which results answer which calls. */
#include "openai_chat_read_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

static char waiting[1], answered[1];

static void push_part(struct cm_openai_reader *r, const struct cm_part *part)
{
    cm_buf_append(&r->parts, cm_str((const char *)part, sizeof(*part)));
}

static struct cm_part *parts_so_far(const struct cm_openai_reader *r, size_t *n)
{
    *n = r->parts.n / sizeof(struct cm_part);
    return (void *)r->parts.p;
}

/* ---- Content ---- */

typedef int part_fn(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at,
                    struct cm_part *part);

static int read_text(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at,
                     struct cm_part *part)
{
    part->kind = CM_PART_TEXT;
    return cm_field_need_str(cm_json_get(v, "text"), CM_SPOT(at, "text"), &part->text, r->err);
}

static int read_refusal(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at,
                        struct cm_part *part)
{
    part->kind = CM_PART_REFUSAL;
    return cm_field_need_str(cm_json_get(v, "refusal"), CM_SPOT(at, "refusal"), &part->text,
                             r->err);
}

static int read_image(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at,
                      struct cm_part *part)
{
    const struct cm_spot *spot = CM_SPOT(at, "image_url"), *url_spot = CM_SPOT(spot, "url");
    yyjson_val *image = cm_openai_part_object(r, v, spot);
    struct cm_str url;

    part->kind = CM_PART_IMAGE;
    if (!image || cm_field_need_str(cm_json_get(image, "url"), url_spot, &url, r->err) ||
        cm_field_str(cm_json_get(image, "detail"), CM_SPOT(spot, "detail"), &part->detail, r->err))
        return -1;
    return cm_field_url(url, url_spot, part, r->err);
}

static int read_audio(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at,
                      struct cm_part *part)
{
    const struct cm_spot *spot = CM_SPOT(at, "input_audio");
    yyjson_val *audio = cm_openai_part_object(r, v, spot);

    part->kind = CM_PART_AUDIO;
    if (!audio ||
        cm_field_need_str(cm_json_get(audio, "data"), CM_SPOT(spot, "data"), &part->data, r->err))
        return -1;
    return cm_field_need_str(cm_json_get(audio, "format"), CM_SPOT(spot, "format"),
                             &part->media_type, r->err);
}

static int read_file(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at,
                     struct cm_part *part)
{
    const struct cm_spot *spot = CM_SPOT(at, "file"), *data_spot = CM_SPOT(spot, "file_data");
    yyjson_val *file = cm_openai_part_object(r, v, spot);
    struct cm_str data = CM_STR_NONE;

    part->kind = CM_PART_FILE;
    if (!file ||
        cm_field_str(cm_json_get(file, "file_id"), CM_SPOT(spot, "file_id"), &part->id, r->err) ||
        cm_field_str(cm_json_get(file, "filename"), CM_SPOT(spot, "filename"), &part->name,
                     r->err) ||
        cm_field_str(cm_json_get(file, "file_data"), data_spot, &data, r->err))
        return -1;
    if (part->id.n == 0 && data.n == 0)
        return cm_field_missing(r->err, data_spot);
    return data.n > 0 ? cm_field_url(data, data_spot, part, r->err) : 0;
}

#define BIT(kind) (1u << CM_PART_##kind)

static const struct part_type {
    struct cm_str name;
    unsigned bit;
    part_fn *read;
} part_types[] = {
    {CM_S_INIT("text"), BIT(TEXT), read_text},
    {CM_S_INIT("image_url"), BIT(IMAGE), read_image},
    {CM_S_INIT("input_audio"), BIT(AUDIO), read_audio},
    {CM_S_INIT("file"), BIT(FILE), read_file},
    {CM_S_INIT("refusal"), BIT(REFUSAL), read_refusal},
};

static const struct role_row {
    struct cm_str name;
    enum cm_role role;
    unsigned parts; /* which kinds its content may have */
    const char *supported;
    bool legacy; /* results before tools had ids */
} roles[] = {
    {CM_S_INIT("user"), CM_ROLE_USER, BIT(TEXT) | BIT(IMAGE) | BIT(AUDIO) | BIT(FILE),
     "'text', 'image_url', 'input_audio' and 'file'", false},
    {CM_S_INIT("assistant"), CM_ROLE_ASSISTANT, BIT(TEXT) | BIT(REFUSAL), "'text' and 'refusal'",
     false},
    {CM_S_INIT("system"), CM_ROLE_SYSTEM, BIT(TEXT), "'text'", false},
    {CM_S_INIT("developer"), CM_ROLE_DEVELOPER, BIT(TEXT), "'text'", false},
    {CM_S_INIT("tool"), CM_ROLE_TOOL, BIT(TEXT), "'text'", false},
    {CM_S_INIT("function"), CM_ROLE_TOOL, BIT(TEXT), "'text'", true},
};

/* Not of OpenAI's own API: how clients of several vendors mark what Claude is to cache. */
static int read_cache(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at,
                      struct cm_part *part)
{
    const struct cm_spot *spot = CM_SPOT(at, "cache_control");
    yyjson_val *mark = cm_json_opt(v, "cache_control");

    if (!mark)
        return 0;
    part->cache = CM_S("5m");
    return cm_field_is_object(mark, spot, r->err) ||
                   cm_field_str(cm_json_get(mark, "ttl"), CM_SPOT(spot, "ttl"), &part->cache,
                                r->err)
               ? -1
               : 0;
}

/* One part of a content list. */
static int read_part(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at,
                     const struct role_row *role)
{
    struct cm_part part = {0};
    struct cm_str type;
    struct cm_err why;

    if (!yyjson_is_obj(v))
        return cm_field_wrong_type(r->err, at, "an object", v);
    if (cm_field_need_str(cm_json_get(v, "type"), CM_SPOT(at, "type"), &type, r->err))
        return -1;
    for (size_t i = 0; i < CM_COUNT(part_types); i++) {
        if (!(part_types[i].bit & role->parts) || !cm_str_eq(part_types[i].name, type))
            continue;
        if (part_types[i].read(r, v, at, &part) || read_cache(r, v, at, &part))
            return -1;
        push_part(r, &part);
        return 0;
    }
    cm_field_wrong_value(&why, CM_SPOT(at, "type"), type, role->supported);
    cm_openai_untranslatable(r, &why);
    return 0;
}

static int read_content(struct cm_openai_reader *r, yyjson_val *content, const struct cm_spot *at,
                        const struct role_row *role)
{
    const struct cm_part text = {.kind = CM_PART_TEXT, .text = cm_json_str(content)};
    size_t i, max;
    yyjson_val *v;

    if (yyjson_is_str(content)) {
        /* an assistant that only calls tools often says "" */
        if (text.text.n > 0 || role->role != CM_ROLE_ASSISTANT)
            push_part(r, &text);
        return 0;
    }
    if (!yyjson_is_arr(content))
        return cm_field_wrong_type(r->err, at, "a string or an array of objects", content);
    yyjson_arr_foreach(content, i, max, v)
    {
        if (read_part(r, v, CM_SPOT_AT(at, i), role))
            return -1;
    }
    return 0;
}

/* ---- Messages ---- */

/* A call that waits for its result from now on. */
static int push_call(struct cm_openai_reader *r, const struct cm_spot *at,
                     const struct cm_part *call)
{
    if (cm_map_put(&r->calls, call->id, waiting))
        return cm_field_fail(r->err, CM_SPOT(at, "id"), "invalid_value",
                             "Two tool calls of one message have the same id.");
    push_part(r, call);
    r->unanswered++;
    return 0;
}

static int read_call(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at)
{
    struct cm_part call = {.kind = CM_PART_TOOL_CALL};
    const struct cm_spot *spot = CM_SPOT(at, "function");
    struct cm_str type = CM_S("function");
    yyjson_val *function;
    struct cm_err why;

    if (!yyjson_is_obj(v))
        return cm_field_wrong_type(r->err, at, "an object", v);
    if (cm_field_need_str(cm_json_get(v, "id"), CM_SPOT(at, "id"), &call.id, r->err) ||
        cm_field_str(cm_json_get(v, "type"), CM_SPOT(at, "type"), &type, r->err))
        return -1;
    if (!cm_str_eq(type, CM_S("function"))) {
        cm_field_wrong_value(&why, CM_SPOT(at, "type"), type, "'function'");
        cm_openai_untranslatable(r, &why);
    } else if (!(function = cm_openai_part_object(r, v, spot)) ||
               cm_field_need_str(cm_json_get(function, "name"), CM_SPOT(spot, "name"), &call.name,
                                 r->err) ||
               cm_field_need_str(cm_json_get(function, "arguments"), CM_SPOT(spot, "arguments"),
                                 &call.text, r->err)) {
        return -1;
    }
    return push_call(r, at, &call);
}

/* The form before tools: one call without an id. */
static int read_function_call(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at)
{
    struct cm_part call = {.kind = CM_PART_TOOL_CALL};
    const struct cm_spot *spot = CM_SPOT(at, "function_call");

    call.id = cm_arena_printf(r->chat->arena, "call_%zu", at->index);
    r->function_id = call.id;
    if (cm_field_is_object(v, spot, r->err) ||
        cm_field_need_str(cm_json_get(v, "name"), CM_SPOT(spot, "name"), &call.name, r->err) ||
        cm_field_need_str(cm_json_get(v, "arguments"), CM_SPOT(spot, "arguments"), &call.text,
                          r->err))
        return -1;
    return push_call(r, at, &call);
}

static int read_assistant(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at,
                          const struct role_row *role)
{
    yyjson_val *content = cm_json_opt(v, "content"), *calls = cm_json_opt(v, "tool_calls");
    yyjson_val *function_call = cm_json_opt(v, "function_call"), *call;
    const struct cm_spot *calls_spot = CM_SPOT(at, "tool_calls");
    struct cm_str reasoning = CM_STR_NONE, refusal = CM_STR_NONE;
    size_t i, max;

    if (cm_field_str(cm_json_get(v, "reasoning_content"), CM_SPOT(at, "reasoning_content"),
                     &reasoning, r->err) ||
        cm_field_str(cm_json_get(v, "refusal"), CM_SPOT(at, "refusal"), &refusal, r->err) ||
        cm_field_is_array(calls, calls_spot, r->err))
        return -1;
    if (!content && refusal.n == 0 && reasoning.n == 0 && yyjson_arr_size(calls) == 0 &&
        !function_call && !cm_json_opt(v, "audio"))
        return cm_field_missing(r->err, CM_SPOT(at, "content"));
    if (cm_json_opt(v, "audio")) {
        struct cm_err why;

        cm_field_fail(
            &why, CM_SPOT(at, "audio"), "unsupported_parameter",
            "Spoken answers of earlier turns are not supported by this model's provider.");
        cm_openai_untranslatable(r, &why);
    }

    if (reasoning.n > 0)
        push_part(r, &(struct cm_part){.kind = CM_PART_REASONING, .text = reasoning});
    if (content && read_content(r, content, CM_SPOT(at, "content"), role))
        return -1;
    if (refusal.n > 0)
        push_part(r, &(struct cm_part){.kind = CM_PART_REFUSAL, .text = refusal});
    yyjson_arr_foreach(calls, i, max, call)
    {
        if (read_call(r, call, CM_SPOT_AT(calls_spot, i)))
            return -1;
    }
    return function_call ? read_function_call(r, function_call, at) : 0;
}

/* A tool's result answers a call of the assistant's message before it. */
static int read_result(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at,
                       bool legacy)
{
    const struct cm_spot *id_spot = CM_SPOT(at, "tool_call_id");
    struct cm_part result = {.kind = CM_PART_TOOL_RESULT};
    struct cm_msg content = {0};
    void *call;

    content.parts = parts_so_far(r, &content.n_parts);
    result.text = cm_msg_text(r->chat->arena, &content);
    cm_buf_reset(&r->parts);
    if (legacy)
        result.id = r->function_id;
    else if (cm_field_need_str(cm_json_get(v, "tool_call_id"), id_spot, &result.id, r->err))
        return -1;
    if (r->calls.n == 0)
        return cm_field_fail(r->err, CM_SPOT(at, "role"), NULL,
                             "Invalid parameter: messages with role 'tool' must be a response to a "
                             "preceding message with 'tool_calls'.");
    call = cm_map_get(&r->calls, result.id);
    if (!call)
        return cm_field_fail(
            r->err, id_spot, NULL,
            "Invalid parameter: this 'tool_call_id' is not found in 'tool_calls' of "
            "the previous message.");
    if (call != answered) {
        r->unanswered--;
        cm_map_put(&r->calls, result.id, answered);
    }
    push_part(r, &result);
    return 0;
}

/* Another role than tool: the calls before it must all have their results by now. */
static int close_calls(struct cm_openai_reader *r, const struct cm_spot *at)
{
    const struct cm_map_slot *slot;
    size_t pos = 0;

    if (r->calls.n == 0)
        return 0;
    while (r->unanswered > 0 && (slot = cm_map_next(&r->calls, &pos))) {
        if (slot->value == answered)
            continue;
        return cm_field_fail(
            r->err, CM_SPOT(at, "role"), NULL,
            "An assistant message with 'tool_calls' must be followed by tool "
            "messages responding to each 'tool_call_id'. Without a response: " CM_PRI,
            CM_ARG(cm_utf8_head(slot->key, 40)));
    }
    cm_map_clear(&r->calls);
    return 0;
}

static const struct role_row *find_role(struct cm_str name)
{
    for (size_t i = 0; i < CM_COUNT(roles); i++) {
        if (cm_str_eq(roles[i].name, name))
            return &roles[i];
    }
    return NULL;
}

static int read_parts(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at,
                      const struct role_row *role)
{
    yyjson_val *content = cm_json_opt(v, "content");

    if (role->role == CM_ROLE_ASSISTANT)
        return read_assistant(r, v, at, role);
    if (!content)
        return cm_field_missing(r->err, CM_SPOT(at, "content"));
    if (read_content(r, content, CM_SPOT(at, "content"), role))
        return -1;
    return role->role == CM_ROLE_TOOL ? read_result(r, v, at, role->legacy) : 0;
}

static int read_message(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at)
{
    const struct role_row *role;
    struct cm_msg msg = {0};
    struct cm_str name;

    if (!yyjson_is_obj(v))
        return cm_field_wrong_type(r->err, at, "an object", v);
    if (cm_field_need_str(cm_json_get(v, "role"), CM_SPOT(at, "role"), &name, r->err) ||
        cm_field_str(cm_json_get(v, "name"), CM_SPOT(at, "name"), &msg.name, r->err))
        return -1;
    role = find_role(name);
    if (!role)
        return cm_field_wrong_value(
            r->err, CM_SPOT(at, "role"), name,
            "'system', 'developer', 'user', 'assistant', 'tool' and 'function'");
    if (role->role != CM_ROLE_TOOL && close_calls(r, at))
        return -1;
    if (read_parts(r, v, at, role))
        return -1;
    msg.role = role->role;
    msg.parts = cm_openai_settle(r, &r->parts, sizeof(*msg.parts), &msg.n_parts);
    cm_buf_append(&r->msgs, cm_str((const char *)&msg, sizeof(msg)));
    return 0;
}

int cm_openai_read_messages(struct cm_openai_reader *r, yyjson_val *messages)
{
    yyjson_val *v;
    const struct cm_spot *at = CM_SPOT(NULL, "messages");
    size_t i, max;

    if (!messages)
        return cm_field_missing(r->err, at);
    if (cm_field_is_array(messages, at, r->err))
        return -1;
    if (yyjson_arr_size(messages) == 0)
        return cm_field_fail(
            r->err, at, "empty_array",
            "Invalid 'messages': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead.");
    yyjson_arr_foreach(messages, i, max, v)
    {
        if (read_message(r, v, CM_SPOT_AT(at, i)))
            return -1;
    }
    r->chat->msgs = cm_openai_settle(r, &r->msgs, sizeof(*r->chat->msgs), &r->chat->n_msgs);
    return 0;
}
