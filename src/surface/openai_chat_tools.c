/* What a chat completion may call: tools, the functions before them, and the choice among them. */
#include "openai_chat_int.h"
#include "openai_chat_read_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

/* Of a tool or of the older functions. */
static int read_function(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at)
{
    struct cm_tool tool = {0};
    struct cm_err why;

    if (cm_openai_function(r->chat, v, at, &tool, r->err))
        return -1;
    if (!cm_str_is_word(tool.name, CM_TOOL_NAME_MAX)) {
        cm_field_fail(&why, CM_SPOT(at, "name"), "invalid_value",
                      "A function's name has 1 to 64 letters, digits, underscores and hyphens.");
        cm_openai_untranslatable(r, &why);
    }
    cm_buf_append(&r->tools, cm_str((const char *)&tool, sizeof(tool)));
    return 0;
}

static int read_tool(struct cm_openai_reader *r, yyjson_val *v, const struct cm_spot *at)
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
        cm_openai_untranslatable(r, &why);
        return 0;
    }
    function = cm_openai_part_object(r, v, spot);
    return function ? read_function(r, function, spot) : -1;
}

int cm_openai_read_tools(struct cm_openai_reader *r, yyjson_val *tools, yyjson_val *functions)
{
    yyjson_val *v;
    const struct cm_spot *at = CM_SPOT(NULL, "tools"), *old = CM_SPOT(NULL, "functions");
    size_t i, max;

    r->has_tools = tools || functions;
    if (!r->has_tools)
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
    r->chat->tools = cm_openai_settle(r, &r->tools, sizeof(*r->chat->tools), &r->chat->n_tools);
    return 0;
}

static int choose_named(struct cm_openai_reader *r, yyjson_val *function, const struct cm_spot *at)
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

/* {type, …}: one function, or some of the tools. */
static int choose(struct cm_openai_reader *r, yyjson_val *choice, const struct cm_spot *at)
{
    const struct cm_spot *type_spot = CM_SPOT(at, "type"), *spot = CM_SPOT(at, "function"),
                         *some_spot = CM_SPOT(at, "allowed_tools");
    yyjson_val *inside;
    struct cm_str type;
    struct cm_err why;

    if (cm_field_need_str(cm_json_get(choice, "type"), type_spot, &type, r->err))
        return -1;
    if (cm_str_eq(type, CM_S("allowed_tools"))) {
        inside = cm_openai_part_object(r, choice, some_spot);
        return inside ? cm_openai_choose_among(r->chat, inside, r->has_tools, some_spot, r->err)
                      : -1;
    }
    if (!cm_str_eq(type, CM_S("function"))) {
        cm_field_wrong_value(&why, type_spot, type, "'function' and 'allowed_tools'");
        cm_openai_untranslatable(r, &why);
        return 0;
    }
    inside = cm_openai_part_object(r, choice, spot);
    return inside ? choose_named(r, inside, spot) : -1;
}

int cm_openai_read_tool_choice(struct cm_openai_reader *r, yyjson_val *choice,
                               yyjson_val *function_call)
{
    const struct cm_spot *at = CM_SPOT(NULL, "tool_choice"), *old = CM_SPOT(NULL, "function_call");

    if (!choice && function_call) {
        if (yyjson_is_str(function_call))
            return cm_openai_tool_mode(r->chat, cm_json_str(function_call), r->has_tools, old,
                                       r->err);
        if (!yyjson_is_obj(function_call))
            return cm_field_wrong_type(r->err, old, "a string or an object", function_call);
        return choose_named(r, function_call, old);
    }
    if (!choice)
        return 0;
    if (yyjson_is_str(choice))
        return cm_openai_tool_mode(r->chat, cm_json_str(choice), r->has_tools, at, r->err);
    if (!yyjson_is_obj(choice))
        return cm_field_wrong_type(r->err, at, "a string or an object", choice);
    return choose(r, choice, at);
}
