/* Body of POST /v1/messages and /v1/messages/count_tokens -> canonical request.
 *
 * Types and ranges are checked for every member that is read; members nobody here reads are left to
 * the relay lane. What the canonical model has no words for is noted in chat->untranslatable, what an
 * answer can do without in chat->dropped (protocol notes of Anthropic, sections 2, 7 and 8). */
#include "anthropic_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>

typedef struct cm_anthropic_reader reader;

#define MEMBERS(X)                                                                                 \
    X(model)                                                                                       \
    X(messages)                                                                                    \
    X(system)                                                                                      \
    X(max_tokens)                                                                                  \
    X(stream)                                                                                      \
    X(temperature)                                                                                 \
    X(top_p)                                                                                       \
    X(top_k)                                                                                       \
    X(stop_sequences)                                                                              \
    X(tools)                                                                                       \
    X(tool_choice)                                                                                 \
    X(thinking)                                                                                    \
    X(output_config)                                                                               \
    X(output_format)                                                                               \
    X(metadata)                                                                                    \
    X(service_tier)                                                                                \
    X(cache_control)                                                                               \
    X(container)                                                                                   \
    X(mcp_servers)                                                                                 \
    X(context_management)                                                                          \
    X(diagnostics)                                                                                 \
    X(inference_geo)                                                                               \
    X(speed)

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

void cm_anthropic_untranslatable(reader *r, const struct cm_spot *at, const char *fmt, ...)
{
    char msg[300];
    va_list ap;

    if (r->chat->untranslatable.cls != CM_ERR_NONE)
        return;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    cm_field_fail(&r->chat->untranslatable, at, "unsupported_value", "%s", msg);
    cm_str_copy(r->chat->untranslatable.msg, sizeof(r->chat->untranslatable.msg), cm_str_of(msg));
}

void *cm_anthropic_settle(reader *r, struct cm_buf *list, size_t size, size_t *n)
{
    void *items = cm_arena_alloc(r->chat->arena, list->n);

    if (list->n > 0)
        memcpy(items, list->p, list->n);
    *n = list->n / size;
    cm_buf_reset(list);
    return items;
}

int cm_anthropic_read_cache(reader *r, yyjson_val *v, const struct cm_spot *at, struct cm_str *out)
{
    const struct cm_spot *spot = CM_SPOT(at, "cache_control");
    yyjson_val *mark = cm_json_opt(v, "cache_control");
    struct cm_str ttl = CM_S("5m");

    if (!mark)
        return 0;
    if (cm_field_is_object(mark, spot, r->err) ||
        cm_field_str(cm_json_get(mark, "ttl"), CM_SPOT(spot, "ttl"), &ttl, r->err))
        return -1;
    *out = ttl;
    return 0;
}

/* ---- Tools ---- */

static int read_tool(reader *r, yyjson_val *v, const struct cm_spot *at)
{
    struct cm_tool tool = {0};
    yyjson_val *schema = cm_json_opt(v, "input_schema"), *strict = cm_json_opt(v, "strict");
    struct cm_str type = CM_S("custom");
    bool is_strict = false;

    if (!yyjson_is_obj(v))
        return cm_field_wrong_type(r->err, at, "an object", v);
    if (cm_field_str(cm_json_get(v, "type"), CM_SPOT(at, "type"), &type, r->err))
        return -1;
    if (!cm_str_eq(type, CM_S("custom"))) {
        cm_anthropic_untranslatable(r, CM_SPOT(at, "type"),
                                    "the tool \"" CM_PRI
                                    "\" is one of Anthropic's own, which this model's provider "
                                    "does not have",
                                    CM_ARG(cm_utf8_head(type, 60)));
        return 0;
    }
    if (cm_field_need_str(cm_json_get(v, "name"), CM_SPOT(at, "name"), &tool.name, r->err) ||
        cm_field_str(cm_json_get(v, "description"), CM_SPOT(at, "description"), &tool.description,
                     r->err) ||
        cm_field_is_object(schema, CM_SPOT(at, "input_schema"), r->err) ||
        cm_field_bool(strict, CM_SPOT(at, "strict"), &is_strict, r->err) ||
        cm_anthropic_read_cache(r, v, at, &tool.cache))
        return -1;
    tool.parameters = cm_field_json(r->chat->arena, schema);
    tool.strict = strict ? is_strict : -1;
    cm_buf_append(&r->tools, cm_str((const char *)&tool, sizeof(tool)));
    return 0;
}

static int read_tools(reader *r, yyjson_val *tools)
{
    const struct cm_spot *at = CM_SPOT(NULL, "tools");
    size_t i, max;
    yyjson_val *v;

    if (cm_field_is_array(tools, at, r->err))
        return -1;
    yyjson_arr_foreach(tools, i, max, v)
    {
        if (read_tool(r, v, CM_SPOT_AT(at, i)))
            return -1;
    }
    r->chat->tools = cm_anthropic_settle(r, &r->tools, sizeof(*r->chat->tools), &r->chat->n_tools);
    return 0;
}

static int read_tool_name(reader *r, yyjson_val *choice, const struct cm_spot *at)
{
    struct cm_chat *chat = r->chat;

    if (cm_field_need_str(cm_json_get(choice, "name"), CM_SPOT(at, "name"), &chat->tool_name,
                          r->err))
        return -1;
    for (size_t i = 0; i < chat->n_tools; i++) {
        if (cm_str_eq(chat->tools[i].name, chat->tool_name))
            return 0;
    }
    cm_anthropic_untranslatable(r, CM_SPOT(at, "name"),
                                "Tool '" CM_PRI "' not found in provided tools",
                                CM_ARG(cm_utf8_head(chat->tool_name, 64)));
    return 0;
}

static int read_tool_choice(reader *r, yyjson_val *choice)
{
    static const struct {
        struct cm_str name;
        enum cm_tool_choice choice;
    } types[] = {
        {CM_S_INIT("auto"), CM_TOOLS_AUTO},
        {CM_S_INIT("any"), CM_TOOLS_REQUIRED},
        {CM_S_INIT("none"), CM_TOOLS_NONE},
        {CM_S_INIT("tool"), CM_TOOLS_NAMED},
    };
    const struct cm_spot *at = CM_SPOT(NULL, "tool_choice");
    struct cm_chat *chat = r->chat;
    struct cm_str type;
    bool one = false;

    if (!choice)
        return 0;
    if (cm_field_is_object(choice, at, r->err) ||
        cm_field_need_str(cm_json_get(choice, "type"), CM_SPOT(at, "type"), &type, r->err) ||
        cm_field_bool(cm_json_get(choice, "disable_parallel_tool_use"),
                      CM_SPOT(at, "disable_parallel_tool_use"), &one, r->err))
        return -1;
    if (one)
        chat->parallel_tool_calls = 0;
    for (size_t i = 0; i < CM_COUNT(types); i++) {
        if (!cm_str_eq(types[i].name, type))
            continue;
        chat->tool_choice = types[i].choice;
        return types[i].choice == CM_TOOLS_NAMED ? read_tool_name(r, choice, at) : 0;
    }
    return cm_field_wrong_value(r->err, CM_SPOT(at, "type"), type,
                                "'auto', 'any', 'tool' and 'none'");
}

/* ---- Thinking and form ---- */

static int read_thinking(reader *r, yyjson_val *thinking)
{
    const struct cm_spot *at = CM_SPOT(NULL, "thinking");
    struct cm_str type, display = CM_STR_NONE;
    struct cm_chat *chat = r->chat;

    if (!thinking)
        return 0;
    if (cm_field_is_object(thinking, at, r->err) ||
        cm_field_need_str(cm_json_get(thinking, "type"), CM_SPOT(at, "type"), &type, r->err) ||
        cm_field_str(cm_json_get(thinking, "display"), CM_SPOT(at, "display"), &display, r->err) ||
        cm_field_int(cm_json_get(thinking, "budget_tokens"), CM_SPOT(at, "budget_tokens"), 1,
                     INT64_MAX, &chat->thinking_budget, r->err))
        return -1;
    if (display.n > 0)
        chat->show_thinking = !cm_str_eq(display, CM_S("omitted"));
    if (cm_str_eq(type, CM_S("enabled")))
        chat->thinking = CM_THINKING_ON;
    else if (cm_str_eq(type, CM_S("adaptive")) || cm_str_eq(type, CM_S("between_tools")))
        chat->thinking = CM_THINKING_ADAPTIVE;
    else if (cm_str_eq(type, CM_S("disabled")))
        chat->thinking = CM_THINKING_OFF;
    else
        cm_anthropic_untranslatable(r, CM_SPOT(at, "type"),
                                    "this kind of thinking is only understood by Anthropic itself");
    if (chat->thinking == CM_THINKING_ON && chat->thinking_budget < 0)
        return cm_field_missing(r->err, CM_SPOT(at, "budget_tokens"));
    return 0;
}

static int read_format(reader *r, yyjson_val *format, const struct cm_spot *at)
{
    struct cm_chat *chat = r->chat;
    yyjson_val *schema;
    struct cm_str type;

    if (!format)
        return 0;
    if (cm_field_is_object(format, at, r->err) ||
        cm_field_need_str(cm_json_get(format, "type"), CM_SPOT(at, "type"), &type, r->err))
        return -1;
    if (!cm_str_eq(type, CM_S("json_schema"))) {
        cm_anthropic_untranslatable(r, CM_SPOT(at, "type"),
                                    "a format of type \"" CM_PRI "\" is not understood here",
                                    CM_ARG(cm_utf8_head(type, 40)));
        return 0;
    }
    schema = cm_json_opt(format, "schema");
    if (!schema)
        return cm_field_missing(r->err, CM_SPOT(at, "schema"));
    if (cm_field_is_object(schema, CM_SPOT(at, "schema"), r->err))
        return -1;
    chat->format = CM_FORMAT_SCHEMA;
    chat->schema_name = CM_S("output");
    chat->schema = cm_field_json(chat->arena, schema);
    chat->schema_strict = 1; /* Anthropic always keeps to it */
    return 0;
}

static int read_output(reader *r, yyjson_val **top)
{
    const struct cm_spot *at = CM_SPOT(NULL, "output_config");
    yyjson_val *output = top[M_output_config];

    if (cm_field_is_object(output, at, r->err) ||
        cm_field_str(cm_json_get(output, "effort"), CM_SPOT(at, "effort"),
                     &r->chat->reasoning_effort, r->err))
        return -1;
    if (cm_json_opt(output, "format"))
        return read_format(r, cm_json_opt(output, "format"), CM_SPOT(at, "format"));
    return read_format(r, top[M_output_format], CM_SPOT(NULL, "output_format"));
}

/* ---- The other members ---- */

static int read_sampling(reader *r, yyjson_val **top, bool counting)
{
    struct cm_chat *chat = r->chat;
    const struct {
        enum member member;
        double *out;
    } numbers[] = {{M_temperature, &chat->temperature}, {M_top_p, &chat->top_p}};

    for (size_t i = 0; i < CM_COUNT(numbers); i++) {
        const enum member m = numbers[i].member;

        if (top[m] &&
            cm_field_num(top[m], CM_SPOT(NULL, member_names[m].p), 0, 1, numbers[i].out, r->err))
            return -1;
    }
    if (!top[M_max_tokens] && !counting)
        return cm_field_missing(r->err, CM_SPOT(NULL, "max_tokens"));
    if (cm_field_int(top[M_max_tokens], CM_SPOT(NULL, "max_tokens"), 0, INT64_MAX,
                     &chat->max_tokens, r->err) ||
        cm_field_int(top[M_top_k], CM_SPOT(NULL, "top_k"), 0, INT64_MAX, &chat->top_k, r->err))
        return -1;
    return 0;
}

static int read_stop(reader *r, yyjson_val *stop)
{
    const struct cm_spot *at = CM_SPOT(NULL, "stop_sequences");
    struct cm_chat *chat = r->chat;
    size_t i, max;
    yyjson_val *v;

    if (cm_field_is_array(stop, at, r->err))
        return -1;
    chat->stop = CM_ARENA_ARRAY(chat->arena, struct cm_str, yyjson_arr_size(stop) + 1);
    yyjson_arr_foreach(stop, i, max, v)
    {
        if (!yyjson_is_str(v))
            return cm_field_wrong_type(r->err, CM_SPOT_AT(at, i), "a string", v);
        chat->stop[chat->n_stop++] = cm_json_str(v);
    }
    return 0;
}

static int read_rest(reader *r, yyjson_val **top)
{
    static const enum member droppable[] = {M_context_management, M_diagnostics, M_inference_geo,
                                            M_speed};
    const struct cm_spot *metadata = CM_SPOT(NULL, "metadata");
    struct cm_chat *chat = r->chat;

    if (cm_field_bool(top[M_stream], CM_SPOT(NULL, "stream"), &chat->stream, r->err) ||
        cm_field_is_object(top[M_metadata], metadata, r->err) ||
        cm_field_str(cm_json_get(top[M_metadata], "user_id"), CM_SPOT(metadata, "user_id"),
                     &chat->user, r->err) ||
        cm_field_str(top[M_service_tier], CM_SPOT(NULL, "service_tier"), &chat->service_tier,
                     r->err))
        return -1;
    for (size_t i = 0; i < CM_COUNT(droppable); i++) {
        if (top[droppable[i]])
            cm_chat_drop(chat, member_names[droppable[i]]);
    }
    if (top[M_container])
        cm_anthropic_untranslatable(r, CM_SPOT(NULL, "container"),
                                    "containers are only understood by Anthropic itself");
    if (yyjson_arr_size(top[M_mcp_servers]) > 0)
        cm_anthropic_untranslatable(r, CM_SPOT(NULL, "mcp_servers"),
                                    "only Anthropic itself calls MCP servers");
    return 0;
}

static void free_doc(void *doc)
{
    yyjson_doc_free(doc);
}

static int read_all(reader *r, yyjson_val *root, bool counting)
{
    yyjson_val *top[CM_COUNT(member_names)] = {0};
    const struct cm_spot *model = CM_SPOT(NULL, "model");

    if (cm_field_members(root, member_names, CM_COUNT(member_names), top, r->err) ||
        cm_field_need_str(top[M_model], model, &r->chat->model, r->err))
        return -1;
    if (r->chat->model.n == 0)
        return cm_field_missing(r->err, model);
    cm_field_drop_others(r->chat, root, member_names, CM_COUNT(member_names));
    return cm_anthropic_read_system(r, top[M_system]) ||
                   cm_anthropic_read_messages(r, top[M_messages]) ||
                   read_sampling(r, top, counting) || read_stop(r, top[M_stop_sequences]) ||
                   read_tools(r, top[M_tools]) || read_tool_choice(r, top[M_tool_choice]) ||
                   read_thinking(r, top[M_thinking]) || read_output(r, top) ||
                   cm_anthropic_read_cache(r, root, NULL, &r->chat->cache) || read_rest(r, top)
               ? -1
               : 0;
}

static int parse(struct cm_chat *chat, struct cm_str body, enum cm_chat_task task,
                 struct cm_err *err)
{
    reader r = {.chat = chat, .err = err};
    yyjson_doc *doc = cm_json_parse(body, &cm_json_limits_request, err);
    int failed;

    if (!doc)
        return -1;
    cm_arena_defer(chat->arena, free_doc, doc);
    if (!yyjson_is_obj(yyjson_doc_get_root(doc)))
        return cm_fail(err, CM_ERR_BAD_REQUEST, "The request body must be a JSON object.");
    cm_chat_begin(chat, CM_DIALECT_ANTHROPIC, task, body);
    failed = read_all(&r, yyjson_doc_get_root(doc), task == CM_TASK_COUNT_TOKENS);
    cm_map_clear(&r.calls);
    cm_buf_clear(&r.parts);
    cm_buf_clear(&r.inner);
    cm_buf_clear(&r.msgs);
    cm_buf_clear(&r.tools);
    return failed;
}

int cm_anthropic_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    return parse(chat, body, CM_TASK_CHAT, err);
}

int cm_anthropic_count_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    const int failed = parse(chat, body, CM_TASK_COUNT_TOKENS, err);

    chat->stream = false;
    return failed;
}
