/* Functions of a Gemini request and their schemas. Protocol notes, sections 2 and 6. */
#include "gemini_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

typedef struct cm_gemini_reader reader;

/* ---- schemas ---- */

static struct cm_str lower(struct cm_arena *arena, struct cm_str s)
{
    char *out = cm_arena_z(arena, s);

    for (size_t i = 0; i < s.n; i++) {
        if (out[i] >= 'A' && out[i] <= 'Z')
            out[i] = (char)(out[i] - 'A' + 'a');
    }
    return cm_str(out, s.n);
}

static void put_schema(struct cm_arena *arena, const yyjson_val *v, struct cm_buf *out);

static void put_key(struct cm_buf *out, struct cm_str key)
{
    if (out->p[out->n - 1] != '{')
        cm_buf_put(out, ',');
    cm_json_put_str(out, key);
    cm_buf_put(out, ':');
}

static void put_list(struct cm_arena *arena, yyjson_val *list, struct cm_buf *out)
{
    yyjson_val *v;
    size_t i, n;

    cm_buf_put(out, '[');
    yyjson_arr_foreach(list, i, n, v)
    {
        if (i > 0)
            cm_buf_put(out, ',');
        put_schema(arena, v, out);
    }
    cm_buf_put(out, ']');
}

static void put_members(struct cm_arena *arena, yyjson_val *members, struct cm_buf *out)
{
    yyjson_obj_iter it = yyjson_obj_iter_with(members);
    yyjson_val *key;

    cm_buf_put(out, '{');
    while ((key = yyjson_obj_iter_next(&it))) {
        put_key(out, cm_json_str(key));
        put_schema(arena, yyjson_obj_iter_get_val(key), out);
    }
    cm_buf_put(out, '}');
}

/* Both spellings into JSON Schema's one: "any_of" -> "anyOf". */
static struct cm_str schema_word(struct cm_str name)
{
    static const char *const words[][2] = {
        {"any_of", "anyOf"},
        {"max_items", "maxItems"},
        {"min_items", "minItems"},
        {"max_length", "maxLength"},
        {"min_length", "minLength"},
        {"min_properties", "minProperties"},
        {"max_properties", "maxProperties"},
    };

    for (size_t i = 0; i < CM_COUNT(words); i++) {
        if (cm_str_eq(name, cm_str_of(words[i][0])))
            return cm_str_of(words[i][1]);
    }
    return name;
}

/* Bounds are 64-bit integers, which may be strings. */
static bool is_bound(struct cm_str name, yyjson_val *v)
{
    uint64_t n;

    return (cm_str_starts(name, CM_S("max")) || cm_str_starts(name, CM_S("min"))) &&
           cm_str_to_u64(cm_json_str(v), INT64_MAX, &n);
}

static void put_member(struct cm_arena *arena, struct cm_str name, yyjson_val *v, bool nullable,
                       struct cm_buf *out)
{
    uint64_t bound = 0;

    put_key(out, name);
    if (cm_str_eq(name, CM_S("type")) && yyjson_is_str(v)) {
        if (nullable)
            cm_buf_put(out, '[');
        cm_json_put_str(out, lower(arena, cm_json_str(v)));
        if (nullable)
            cm_buf_append(out, CM_S(",\"null\"]"));
    } else if (cm_str_eq(name, CM_S("properties")) && yyjson_is_obj(v)) {
        put_members(arena, v, out);
    } else if (cm_str_eq(name, CM_S("items")) && yyjson_is_obj(v)) {
        put_schema(arena, v, out);
    } else if (cm_str_eq(name, CM_S("anyOf")) && yyjson_is_arr(v)) {
        put_list(arena, v, out);
    } else if (is_bound(name, v)) {
        cm_str_to_u64(cm_json_str(v), INT64_MAX, &bound);
        cm_buf_put_u64(out, bound);
    } else {
        cm_json_put_val(out, v);
    }
}

/* `nullable` becomes a second type; where no type is said, a choice between the schema and null. */
static void put_schema(struct cm_arena *arena, const yyjson_val *v, struct cm_buf *out)
{
    static const char *const gone[] = {"nullable", "propertyOrdering", "property_ordering",
                                       "example"};
    bool nullable = yyjson_is_true(cm_json_get(v, "nullable"));
    const bool choice = nullable && !yyjson_is_str(cm_json_get(v, "type"));
    yyjson_obj_iter it = yyjson_obj_iter_with((yyjson_val *)(uintptr_t)v);
    yyjson_val *key;

    if (!yyjson_is_obj((yyjson_val *)(uintptr_t)v)) {
        cm_json_put_val(out, v);
        return;
    }
    if (choice)
        cm_buf_append(out, CM_S("{\"anyOf\":["));
    cm_buf_put(out, '{');
    while ((key = yyjson_obj_iter_next(&it))) {
        bool skip = false;

        for (size_t i = 0; i < CM_COUNT(gone); i++)
            skip |= cm_str_eq(cm_json_str(key), cm_str_of(gone[i]));
        if (!skip)
            put_member(arena, schema_word(cm_json_str(key)), yyjson_obj_iter_get_val(key), nullable,
                       out);
    }
    cm_buf_put(out, '}');
    if (choice)
        cm_buf_append(out, CM_S(",{\"type\":\"null\"}]}"));
}

struct cm_str cm_gemini_json_schema(struct cm_arena *arena, const yyjson_val *v)
{
    struct cm_buf out = {0};

    put_schema(arena, v, &out);
    return cm_buf_settle(&out, arena);
}

/* ---- functions ---- */

static int read_function(reader *r, yyjson_val *v, const struct cm_spot *at, struct cm_buf *tools)
{
    yyjson_val *small = cm_gemini_member(v, "parameters"),
               *large = cm_gemini_member(v, "parametersJsonSchema");
    struct cm_tool tool = {.strict = -1};

    if (!yyjson_is_obj(v))
        return cm_field_wrong_type(r->err, at, "an object", v);
    if (cm_field_need_str(cm_gemini_member(v, "name"), CM_SPOT(at, "name"), &tool.name, r->err) ||
        cm_field_str(cm_gemini_member(v, "description"), CM_SPOT(at, "description"),
                     &tool.description, r->err) ||
        cm_field_is_object(small, CM_SPOT(at, "parameters"), r->err) ||
        cm_field_is_object(large, CM_SPOT(at, "parametersJsonSchema"), r->err))
        return -1;
    if (!cm_str_is_word(tool.name, CM_TOOL_NAME_MAX))
        cm_gemini_untranslatable(
            r, CM_SPOT(at, "name"),
            "this model's provider takes names of 1 to 64 letters, digits, underscores and hyphens");
    if (large)
        tool.parameters = cm_field_json(r->chat->arena, large);
    else if (small)
        tool.parameters = cm_gemini_json_schema(r->chat->arena, small);
    cm_buf_append(tools, cm_str((const char *)&tool, sizeof(tool)));
    return 0;
}

/* One entry: functions, or something that Google runs itself. */
static int read_tool(reader *r, yyjson_val *v, const struct cm_spot *at, struct cm_buf *tools)
{
    const struct cm_spot *list_spot = CM_SPOT(at, "functionDeclarations");
    yyjson_val *list = cm_gemini_member(v, "functionDeclarations"), *one, *key;
    yyjson_obj_iter it;
    size_t i, n;

    if (!yyjson_is_obj(v))
        return cm_field_wrong_type(r->err, at, "an object", v);
    if (cm_field_is_array(list, list_spot, r->err))
        return -1;
    yyjson_arr_foreach(list, i, n, one)
    {
        if (read_function(r, one, CM_SPOT_AT(list_spot, i), tools))
            return -1;
    }
    it = yyjson_obj_iter_with(v);
    while ((key = yyjson_obj_iter_next(&it))) {
        struct cm_str name = cm_json_str(key);

        if (!cm_str_eq(name, CM_S("functionDeclarations")) &&
            !cm_str_eq(name, CM_S("function_declarations")) &&
            !yyjson_is_null(yyjson_obj_iter_get_val(key)))
            cm_gemini_untranslatable(
                r, at, "the tool \"" CM_PRI "\" is Google's own; this model's provider has none",
                CM_ARG(cm_utf8_head(name, 40)));
    }
    return 0;
}

/* ---- which of them ---- */

static bool allowed(yyjson_val *names, struct cm_str name)
{
    yyjson_val *v;
    size_t i, n;

    yyjson_arr_foreach(names, i, n, v)
    {
        if (cm_str_eq(cm_json_str(v), name))
            return true;
    }
    return false;
}

static void keep_allowed(struct cm_chat *chat, yyjson_val *names)
{
    size_t kept = 0;

    for (size_t i = 0; i < chat->n_tools; i++) {
        if (allowed(names, chat->tools[i].name))
            chat->tools[kept++] = chat->tools[i];
    }
    chat->n_tools = kept;
}

/* The only one that is allowed, if it is there: every dialect can say so, and keeps the others for what was called before. */
static bool choose_named(struct cm_chat *chat, yyjson_val *names)
{
    for (size_t i = 0; yyjson_arr_size(names) == 1 && i < chat->n_tools; i++) {
        if (!allowed(names, chat->tools[i].name))
            continue;
        chat->tool_choice = CM_TOOLS_NAMED;
        chat->tool_name = chat->tools[i].name;
        return true;
    }
    return false;
}

static int read_choice(reader *r, yyjson_val *config)
{
    const struct cm_spot *top = CM_SPOT(NULL, "toolConfig"),
                         *at = CM_SPOT(top, "functionCallingConfig"),
                         *mode_spot = CM_SPOT(at, "mode"),
                         *names_spot = CM_SPOT(at, "allowedFunctionNames");
    yyjson_val *calling = cm_gemini_member(config, "functionCallingConfig"),
               *names = cm_gemini_member(calling, "allowedFunctionNames");
    struct cm_str mode = CM_STR_NONE;
    struct cm_chat *chat = r->chat;

    if (cm_field_is_object(config, top, r->err) || cm_field_is_object(calling, at, r->err) ||
        cm_field_str(cm_gemini_member(calling, "mode"), mode_spot, &mode, r->err) ||
        cm_field_is_array(names, names_spot, r->err))
        return -1;
    if (cm_str_eq(mode, CM_S("ANY")) && choose_named(chat, names))
        return 0;
    if (yyjson_arr_size(names) > 0)
        keep_allowed(chat, names);
    if (cm_str_eq(mode, CM_S("AUTO")) || cm_str_eq(mode, CM_S("VALIDATED")))
        chat->tool_choice = CM_TOOLS_AUTO;
    else if (cm_str_eq(mode, CM_S("NONE")))
        chat->tool_choice = CM_TOOLS_NONE;
    else if (cm_str_eq(mode, CM_S("ANY")))
        chat->tool_choice = CM_TOOLS_REQUIRED;
    else if (mode.n > 0 && !cm_str_eq(mode, CM_S("MODE_UNSPECIFIED")))
        return cm_field_wrong_value(r->err, mode_spot, mode, "AUTO, ANY, NONE and VALIDATED");
    if (chat->n_tools == 0)
        chat->tool_choice = CM_TOOLS_UNSET;
    return 0;
}

int cm_gemini_read_tools(reader *r, yyjson_val *tools, yyjson_val *config)
{
    const struct cm_spot *at = CM_SPOT(NULL, "tools");
    struct cm_buf list = {0};
    int failed = cm_field_is_array(tools, at, r->err);
    yyjson_val *v;
    size_t i, n;

    yyjson_arr_foreach(tools, i, n, v)
    {
        failed = failed || read_tool(r, v, CM_SPOT_AT(at, i), &list);
    }
    if (!failed && list.n > 0) {
        r->chat->n_tools = list.n / sizeof(struct cm_tool);
        r->chat->tools = cm_arena_alloc(r->chat->arena, list.n);
        memcpy(r->chat->tools, list.p, list.n);
    }
    cm_buf_clear(&list);
    return failed || (config && read_choice(r, config)) ? -1 : 0;
}
