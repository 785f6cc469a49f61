/* Body of POST /v1/chat/completions -> canonical request.
 *
 * Types and ranges are checked for every member that is read; members nobody here reads are left
 * to the relay lane. What the canonical model has no words for (custom tools, spoken answers,
 * parts of other vendors) is noted in chat->untranslatable. */
#include "fields_int.h"
#include "openai_chat_int.h"

#include "chatmux/base/map.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

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
    struct cm_chat *chat;
    struct cm_err *err;
    yyjson_val *top[CM_COUNT(member_names)];
    /* lists while they grow: their lengths are the client's choice */
    struct cm_buf parts, msgs, tools;
    struct cm_map calls; /* ids of the calls that may be answered now -> `waiting` or `answered` */
    size_t unanswered;   /* calls among them without a result */
    struct cm_str function_id; /* made up for the last function_call, which has none */
};

static char waiting[1], answered[1];

static void push_part(struct reader *r, const struct cm_part *part)
{
    cm_buf_append(&r->parts, cm_str((const char *)part, sizeof(*part)));
}

static struct cm_part *parts_so_far(const struct reader *r, size_t *n)
{
    *n = r->parts.n / sizeof(struct cm_part);
    return (void *)r->parts.p;
}

/* Moves a grown list of items of `size` bytes into the arena. */
static void *settle(struct reader *r, struct cm_buf *list, size_t size, size_t *n)
{
    void *items = cm_arena_alloc(r->chat->arena, list->n);

    if (list->n > 0)
        memcpy(items, list->p, list->n);
    *n = list->n / size;
    cm_buf_reset(list);
    return items;
}

static void note_untranslatable(struct reader *r, const struct cm_err *why)
{
    if (r->chat->untranslatable.cls == CM_ERR_NONE)
        r->chat->untranslatable = *why;
}

/* ---- Content ---- */

typedef int part_fn(struct reader *r, yyjson_val *v, const struct cm_spot *at,
                    struct cm_part *part);

static int read_text(struct reader *r, yyjson_val *v, const struct cm_spot *at,
                     struct cm_part *part)
{
    part->kind = CM_PART_TEXT;
    return cm_field_need_str(cm_json_get(v, "text"), CM_SPOT(at, "text"), &part->text, r->err);
}

static int read_refusal(struct reader *r, yyjson_val *v, const struct cm_spot *at,
                        struct cm_part *part)
{
    part->kind = CM_PART_REFUSAL;
    return cm_field_need_str(cm_json_get(v, "refusal"), CM_SPOT(at, "refusal"), &part->text,
                             r->err);
}

/* The object that a part of type `key` has under that key. */
static yyjson_val *part_object(struct reader *r, yyjson_val *v, const struct cm_spot *spot)
{
    yyjson_val *object = cm_json_opt(v, spot->key);

    if (!object)
        cm_field_missing(r->err, spot);
    else if (cm_field_is_object(object, spot, r->err))
        object = NULL;
    return object;
}

static int read_image(struct reader *r, yyjson_val *v, const struct cm_spot *at,
                      struct cm_part *part)
{
    const struct cm_spot *spot = CM_SPOT(at, "image_url"), *url_spot = CM_SPOT(spot, "url");
    yyjson_val *image = part_object(r, v, spot);
    struct cm_str url;

    part->kind = CM_PART_IMAGE;
    if (!image || cm_field_need_str(cm_json_get(image, "url"), url_spot, &url, r->err) ||
        cm_field_str(cm_json_get(image, "detail"), CM_SPOT(spot, "detail"), &part->detail, r->err))
        return -1;
    return cm_field_url(url, url_spot, part, r->err);
}

static int read_audio(struct reader *r, yyjson_val *v, const struct cm_spot *at,
                      struct cm_part *part)
{
    const struct cm_spot *spot = CM_SPOT(at, "input_audio");
    yyjson_val *audio = part_object(r, v, spot);

    part->kind = CM_PART_AUDIO;
    if (!audio ||
        cm_field_need_str(cm_json_get(audio, "data"), CM_SPOT(spot, "data"), &part->data, r->err))
        return -1;
    return cm_field_need_str(cm_json_get(audio, "format"), CM_SPOT(spot, "format"),
                             &part->media_type, r->err);
}

static int read_file(struct reader *r, yyjson_val *v, const struct cm_spot *at,
                     struct cm_part *part)
{
    const struct cm_spot *spot = CM_SPOT(at, "file"), *data_spot = CM_SPOT(spot, "file_data");
    yyjson_val *file = part_object(r, v, spot);
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
static int read_cache(struct reader *r, yyjson_val *v, const struct cm_spot *at,
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
static int read_part(struct reader *r, yyjson_val *v, const struct cm_spot *at,
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
    note_untranslatable(r, &why);
    return 0;
}

static int read_content(struct reader *r, yyjson_val *content, const struct cm_spot *at,
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
static int push_call(struct reader *r, const struct cm_spot *at, const struct cm_part *call)
{
    if (cm_map_put(&r->calls, call->id, waiting))
        return cm_field_fail(r->err, CM_SPOT(at, "id"), "invalid_value",
                             "Two tool calls of one message have the same id.");
    push_part(r, call);
    r->unanswered++;
    return 0;
}

static int read_call(struct reader *r, yyjson_val *v, const struct cm_spot *at)
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
        note_untranslatable(r, &why);
    } else if (!(function = part_object(r, v, spot)) ||
               cm_field_need_str(cm_json_get(function, "name"), CM_SPOT(spot, "name"), &call.name,
                                 r->err) ||
               cm_field_need_str(cm_json_get(function, "arguments"), CM_SPOT(spot, "arguments"),
                                 &call.text, r->err)) {
        return -1;
    }
    return push_call(r, at, &call);
}

/* The form before tools: one call without an id. */
static int read_function_call(struct reader *r, yyjson_val *v, const struct cm_spot *at)
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

static int read_assistant(struct reader *r, yyjson_val *v, const struct cm_spot *at,
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
        note_untranslatable(r, &why);
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
static int read_result(struct reader *r, yyjson_val *v, const struct cm_spot *at, bool legacy)
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
static int close_calls(struct reader *r, const struct cm_spot *at)
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

static int read_parts(struct reader *r, yyjson_val *v, const struct cm_spot *at,
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

static int read_message(struct reader *r, yyjson_val *v, const struct cm_spot *at)
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
    msg.parts = settle(r, &r->parts, sizeof(*msg.parts), &msg.n_parts);
    cm_buf_append(&r->msgs, cm_str((const char *)&msg, sizeof(msg)));
    return 0;
}

static int read_messages(struct reader *r)
{
    yyjson_val *messages = r->top[M_messages], *v;
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
    r->chat->msgs = settle(r, &r->msgs, sizeof(*r->chat->msgs), &r->chat->n_msgs);
    return 0;
}

/* ---- Tools ---- */

static bool tool_name_ok(struct cm_str name)
{
    for (size_t i = 0; i < name.n; i++) {
        const char c = name.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '-'))
            return false;
    }
    return name.n > 0 && name.n <= 64;
}

/* {name, description, parameters, strict}, of a tool or of the older functions. */
static int read_function(struct reader *r, yyjson_val *v, const struct cm_spot *at)
{
    struct cm_tool tool = {0};
    yyjson_val *parameters = cm_json_opt(v, "parameters"), *strict = cm_json_opt(v, "strict");
    const struct cm_spot *name_spot = CM_SPOT(at, "name");
    bool is_strict = false;
    struct cm_err why;

    if (cm_field_need_str(cm_json_get(v, "name"), name_spot, &tool.name, r->err) ||
        cm_field_str(cm_json_get(v, "description"), CM_SPOT(at, "description"), &tool.description,
                     r->err) ||
        cm_field_is_object(parameters, CM_SPOT(at, "parameters"), r->err) ||
        cm_field_bool(strict, CM_SPOT(at, "strict"), &is_strict, r->err))
        return -1;
    if (!tool_name_ok(tool.name)) {
        cm_field_fail(&why, name_spot, "invalid_value",
                      "A function's name has 1 to 64 letters, digits, underscores and hyphens.");
        note_untranslatable(r, &why);
    }
    tool.parameters = cm_field_json(r->chat->arena, parameters);
    tool.strict = strict ? is_strict : -1;
    cm_buf_append(&r->tools, cm_str((const char *)&tool, sizeof(tool)));
    return 0;
}

static int read_tool(struct reader *r, yyjson_val *v, const struct cm_spot *at)
{
    const struct cm_spot *spot = CM_SPOT(at, "function"), *type_spot = CM_SPOT(at, "type");
    yyjson_val *function;
    struct cm_str type;
    struct cm_err why;

    if (!yyjson_is_obj(v))
        return cm_field_wrong_type(r->err, at, "an object", v);
    if (cm_field_need_str(cm_json_get(v, "type"), type_spot, &type, r->err))
        return -1;
    if (!cm_str_eq(type, CM_S("function"))) {
        cm_field_wrong_value(&why, type_spot, type, "'function'");
        note_untranslatable(r, &why);
        return 0;
    }
    function = part_object(r, v, spot);
    return function ? read_function(r, function, spot) : -1;
}

static int read_tools(struct reader *r)
{
    yyjson_val *tools = r->top[M_tools], *functions = r->top[M_functions], *v;
    const struct cm_spot *at = CM_SPOT(NULL, "tools"), *old = CM_SPOT(NULL, "functions");
    size_t i, max;

    if (!tools && !functions)
        return 0;
    if (cm_field_is_array(tools, at, r->err) || cm_field_is_array(functions, old, r->err))
        return -1;
    yyjson_arr_foreach(tools, i, max, v)
    {
        if (read_tool(r, v, CM_SPOT_AT(at, i)))
            return -1;
    }
    yyjson_arr_foreach(functions, i, max, v)
    {
        const struct cm_spot *spot = CM_SPOT_AT(old, i);

        if (!yyjson_is_obj(v))
            return cm_field_wrong_type(r->err, spot, "an object", v);
        if (read_function(r, v, spot))
            return -1;
    }
    r->chat->tools = settle(r, &r->tools, sizeof(*r->chat->tools), &r->chat->n_tools);
    return 0;
}

static int choose_named(struct reader *r, yyjson_val *function, const struct cm_spot *at)
{
    struct cm_chat *chat = r->chat;

    if (cm_field_need_str(cm_json_get(function, "name"), CM_SPOT(at, "name"), &chat->tool_name,
                          r->err))
        return -1;
    chat->tool_choice = CM_TOOLS_NAMED;
    for (size_t i = 0; i < chat->n_tools; i++) {
        if (cm_str_eq(chat->tools[i].name, chat->tool_name))
            return 0;
    }
    return cm_field_fail(r->err, at->up ? at->up : at, "invalid_value",
                         "The function '" CM_PRI "' that is asked for is not among the tools.",
                         CM_ARG(cm_utf8_head(chat->tool_name, 64)));
}

/* "auto", "none", "required" */
static int choose_mode(struct reader *r, struct cm_str mode, const struct cm_spot *at)
{
    static const struct {
        struct cm_str name;
        enum cm_tool_choice choice;
    } modes[] = {
        {CM_S_INIT("auto"), CM_TOOLS_AUTO},
        {CM_S_INIT("none"), CM_TOOLS_NONE},
        {CM_S_INIT("required"), CM_TOOLS_REQUIRED},
    };

    for (size_t i = 0; i < CM_COUNT(modes); i++) {
        if (!cm_str_eq(modes[i].name, mode))
            continue;
        r->chat->tool_choice = modes[i].choice;
        if (modes[i].choice == CM_TOOLS_REQUIRED && !r->top[M_tools] && !r->top[M_functions])
            return cm_field_fail(r->err, at, NULL,
                                 "'tool_choice' is only allowed when 'tools' are specified.");
        return 0;
    }
    return cm_field_wrong_value(r->err, at, mode, "'none', 'auto' and 'required'");
}

static int read_tool_choice(struct reader *r)
{
    yyjson_val *choice = r->top[M_tool_choice], *function_call = r->top[M_function_call], *function;
    const struct cm_spot *at = CM_SPOT(NULL, "tool_choice"), *old = CM_SPOT(NULL, "function_call");
    const struct cm_spot *type_spot = CM_SPOT(at, "type"), *spot = CM_SPOT(at, "function");
    struct cm_str type;
    struct cm_err why;

    if (!choice && function_call) {
        if (yyjson_is_str(function_call))
            return choose_mode(r, cm_json_str(function_call), old);
        if (!yyjson_is_obj(function_call))
            return cm_field_wrong_type(r->err, old, "a string or an object", function_call);
        return choose_named(r, function_call, old);
    }
    if (!choice)
        return 0;
    if (yyjson_is_str(choice))
        return choose_mode(r, cm_json_str(choice), at);
    if (!yyjson_is_obj(choice))
        return cm_field_wrong_type(r->err, at, "a string or an object", choice);
    if (cm_field_need_str(cm_json_get(choice, "type"), type_spot, &type, r->err))
        return -1;
    if (!cm_str_eq(type, CM_S("function"))) {
        cm_field_wrong_value(&why, type_spot, type, "'function'");
        note_untranslatable(r, &why);
        return 0;
    }
    function = part_object(r, choice, spot);
    return function ? choose_named(r, function, spot) : -1;
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
    yyjson_val *format = r->top[M_response_format], *schema, *inner, *strict;
    const struct cm_spot *at = CM_SPOT(NULL, "response_format"), *spot = CM_SPOT(at, "json_schema");
    struct cm_chat *chat = r->chat;
    struct cm_str type;
    bool is_strict = false;
    struct cm_err why;

    if (!format)
        return 0;
    if (cm_field_is_object(format, at, r->err) ||
        cm_field_need_str(cm_json_get(format, "type"), CM_SPOT(at, "type"), &type, r->err))
        return -1;
    if (cm_str_eq(type, CM_S("text")))
        return 0;
    if (cm_str_eq(type, CM_S("json_object"))) {
        chat->format = CM_FORMAT_JSON;
        return 0;
    }
    if (!cm_str_eq(type, CM_S("json_schema"))) {
        cm_field_wrong_value(&why, CM_SPOT(at, "type"), type,
                             "'text', 'json_object' and 'json_schema'");
        note_untranslatable(r, &why);
        return 0;
    }
    schema = part_object(r, format, spot);
    if (!schema || cm_field_need_str(cm_json_get(schema, "name"), CM_SPOT(spot, "name"),
                                     &chat->schema_name, r->err))
        return -1;
    inner = cm_json_opt(schema, "schema");
    strict = cm_json_opt(schema, "strict");
    if (cm_field_is_object(inner, CM_SPOT(spot, "schema"), r->err) ||
        cm_field_str(cm_json_get(schema, "description"), CM_SPOT(spot, "description"),
                     &chat->schema_description, r->err) ||
        cm_field_bool(strict, CM_SPOT(spot, "strict"), &is_strict, r->err))
        return -1;
    chat->schema_strict = strict ? is_strict : -1;
    chat->schema = cm_field_json(chat->arena, inner);
    chat->format = CM_FORMAT_SCHEMA;
    return 0;
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
        note_untranslatable(r, &why);
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
    struct reader r = {.chat = chat, .err = err};
    int failed = cm_field_body(chat, CM_DIALECT_OPENAI_CHAT, CM_TASK_CHAT, body, member_names,
                               CM_COUNT(member_names), r.top, err) ||
                 cm_openai_model_member(chat, r.top[M_model], NULL, err) || read_messages(&r) ||
                 read_stream(&r) || read_sampling(&r) || read_tools(&r) || read_tool_choice(&r) ||
                 read_rest(&r);
    cm_map_clear(&r.calls);
    cm_buf_clear(&r.parts);
    cm_buf_clear(&r.msgs);
    cm_buf_clear(&r.tools);
    return failed ? -1 : 0;
}
