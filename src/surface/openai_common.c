/* What the surfaces of OpenAI's dialect have in common: members that several of them read, and how
 * they tell a failure. */
#include "openai_chat_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "fields_int.h"

int cm_openai_model_member(struct cm_chat *chat, yyjson_val *model, const char *otherwise,
                           struct cm_err *err)
{
    const struct cm_spot *at = CM_SPOT(NULL, "model");

    chat->model = cm_str_of(otherwise);
    if (otherwise && !model)
        return 0;
    if (cm_field_need_str(model, at, &chat->model, err))
        return -1;
    return chat->model.n > 0 ? 0 : cm_field_missing(err, at);
}

int cm_openai_function(struct cm_chat *chat, yyjson_val *v, const struct cm_spot *at,
                       struct cm_tool *tool, struct cm_err *err)
{
    yyjson_val *parameters = cm_json_opt(v, "parameters"), *strict = cm_json_opt(v, "strict");
    bool is_strict = false;

    if (cm_field_need_str(cm_json_get(v, "name"), CM_SPOT(at, "name"), &tool->name, err) ||
        cm_field_str(cm_json_get(v, "description"), CM_SPOT(at, "description"), &tool->description,
                     err) ||
        cm_field_is_object(parameters, CM_SPOT(at, "parameters"), err) ||
        cm_field_bool(strict, CM_SPOT(at, "strict"), &is_strict, err))
        return -1;
    tool->parameters = cm_field_json(chat->arena, parameters);
    tool->strict = strict ? is_strict : -1;
    return 0;
}

int cm_openai_tool_mode(struct cm_chat *chat, struct cm_str mode, bool has_tools,
                        const struct cm_spot *at, struct cm_err *err)
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
        chat->tool_choice = modes[i].choice;
        if (modes[i].choice == CM_TOOLS_REQUIRED && !has_tools)
            return cm_field_fail(err, at, NULL,
                                 "'tool_choice' is only allowed when 'tools' are specified.");
        return 0;
    }
    return cm_field_wrong_value(err, at, mode, "'none', 'auto' and 'required'");
}

static struct cm_str name_of(const yyjson_val *tool)
{
    yyjson_val *function = cm_json_opt(tool, "function");

    return cm_json_str(cm_json_get(function ? function : tool, "name"));
}

static bool is_among(yyjson_val *tools, struct cm_str name)
{
    yyjson_val *v;
    size_t i, max;

    yyjson_arr_foreach(tools, i, max, v)
    {
        if (cm_str_eq(name_of(v), name))
            return true;
    }
    return false;
}

int cm_openai_choose_among(struct cm_chat *chat, yyjson_val *allowed, bool has_tools,
                           const struct cm_spot *at, struct cm_err *err)
{
    const struct cm_spot *mode_spot = CM_SPOT(at, "mode"), *tools_spot = CM_SPOT(at, "tools");
    yyjson_val *tools = cm_json_opt(allowed, "tools");
    struct cm_str mode = CM_S("auto");
    size_t n = 0;

    if (!tools)
        return cm_field_missing(err, tools_spot);
    if (cm_field_is_array(tools, tools_spot, err) ||
        cm_field_str(cm_json_get(allowed, "mode"), mode_spot, &mode, err) ||
        cm_openai_tool_mode(chat, mode, has_tools, mode_spot, err))
        return -1;
    for (size_t i = 0; i < chat->n_tools; i++)
        if (is_among(tools, chat->tools[i].name))
            chat->tools[n++] = chat->tools[i];
    chat->n_tools = n;
    if (n == 0)
        chat->tool_choice = CM_TOOLS_UNSET;
    return 0;
}

int cm_openai_format(struct cm_chat *chat, yyjson_val *format, const struct cm_spot *at,
                     struct cm_err *why, struct cm_err *err)
{
    struct cm_str type;

    if (!format)
        return 0;
    if (cm_field_is_object(format, at, err) ||
        cm_field_need_str(cm_json_get(format, "type"), CM_SPOT(at, "type"), &type, err))
        return -1;
    if (cm_str_eq(type, CM_S("json_schema")))
        return 1;
    if (cm_str_eq(type, CM_S("json_object")))
        chat->format = CM_FORMAT_JSON;
    else if (!cm_str_eq(type, CM_S("text")))
        cm_field_wrong_value(why, CM_SPOT(at, "type"), type,
                             "'text', 'json_object' and 'json_schema'");
    return 0;
}

int cm_openai_schema(struct cm_chat *chat, yyjson_val *v, const struct cm_spot *at,
                     struct cm_err *err)
{
    yyjson_val *schema = cm_json_opt(v, "schema"), *strict = cm_json_opt(v, "strict");
    bool is_strict = false;

    if (cm_field_need_str(cm_json_get(v, "name"), CM_SPOT(at, "name"), &chat->schema_name, err) ||
        cm_field_is_object(schema, CM_SPOT(at, "schema"), err) ||
        cm_field_str(cm_json_get(v, "description"), CM_SPOT(at, "description"),
                     &chat->schema_description, err) ||
        cm_field_bool(strict, CM_SPOT(at, "strict"), &is_strict, err))
        return -1;
    chat->schema_strict = strict ? is_strict : -1;
    chat->schema = cm_field_json(chat->arena, schema);
    chat->format = CM_FORMAT_SCHEMA;
    return 0;
}

#define STOP_MAX 4

int cm_openai_stop(struct cm_chat *chat, yyjson_val *stop, struct cm_err *err)
{
    const struct cm_spot *at = CM_SPOT(NULL, "stop");
    yyjson_val *v;
    const size_t count = yyjson_is_arr(stop) ? yyjson_arr_size(stop) : 1;
    size_t i, max;

    if (!stop)
        return 0;
    if (!yyjson_is_str(stop) && !yyjson_is_arr(stop))
        return cm_field_wrong_type(err, at, "a string or an array of strings", stop);
    if (count > STOP_MAX)
        return cm_field_fail(
            err, at, "array_above_max_length",
            "Invalid 'stop': array too long. Expected an array with maximum length %d, "
            "but got an array with length %zu instead.",
            STOP_MAX, count);
    chat->stop = CM_ARENA_ARRAY(chat->arena, struct cm_str, STOP_MAX);
    if (yyjson_is_str(stop))
        chat->stop[chat->n_stop++] = cm_json_str(stop);
    yyjson_arr_foreach(stop, i, max, v)
    {
        if (!yyjson_is_str(v))
            return cm_field_wrong_type(err, CM_SPOT_AT(at, i), "a string", v);
        chat->stop[chat->n_stop++] = cm_json_str(v);
    }
    return 0;
}

int cm_openai_media_form(struct cm_str name, enum cm_media_form *out, struct cm_err *err)
{
    if (cm_str_eq(name, CM_S("url")))
        *out = CM_MEDIA_URL;
    else if (cm_str_eq(name, CM_S("b64_json")))
        *out = CM_MEDIA_B64;
    else if (name.n > 0)
        return cm_field_wrong_value(err, CM_SPOT(NULL, "response_format"), name,
                                    "'url' and 'b64_json'");
    return 0;
}

void cm_openai_only_relayed(struct cm_chat *chat)
{
    cm_fail(&chat->untranslatable, CM_ERR_BAD_REQUEST,
            "The provider of this model cannot be asked for %s in this form.",
            cm_chat_task_name(chat->task));
}

void cm_openai_stream_error(void *state, const struct cm_err *err, struct cm_buf *out)
{
    (void)state;
    cm_buf_append(out, CM_S("data: "));
    cm_openai_put_error(err, out);
    cm_buf_append(out, CM_S("\n\n"));
}

/* With the line that names the event: what these streams have on all of theirs. */
void cm_openai_named_error(void *state, const struct cm_err *err, struct cm_buf *out)
{
    cm_buf_append(out, CM_S("event: error\n"));
    cm_openai_stream_error(state, err, out);
}
