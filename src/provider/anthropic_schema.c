/* JSON Schema -> the part of it that structured outputs take (protocol notes of Anthropic, section 2
 * "Structured output schemas").
 *
 * Every object is closed, oneOf becomes anyOf, and keywords that are refused go into the description,
 * where the model still reads them. */
#include "anthropic_int.h"

#include "chatmux/base/mem.h"

struct writer {
    struct cm_buf *out;
    bool changed;
};

static bool one_of(struct cm_str name, const struct cm_str *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (cm_str_eq(name, list[i]))
            return true;
    }
    return false;
}

static bool is_format(struct cm_str format)
{
    static const struct cm_str formats[] = {
        CM_S_INIT("date-time"), CM_S_INIT("time"),     CM_S_INIT("date"), CM_S_INIT("duration"),
        CM_S_INIT("email"),     CM_S_INIT("hostname"), CM_S_INIT("uri"),  CM_S_INIT("ipv4"),
        CM_S_INIT("ipv6"),      CM_S_INIT("uuid")};

    return one_of(format, formats, CM_COUNT(formats));
}

enum keyword {
    KEEP,    /* as it is */
    SCHEMA,  /* a schema */
    SCHEMAS, /* a list of them */
    NAMED,   /* an object of them */
    OURS,    /* written by us */
    DROP,    /* means nothing to the model */
    DESCRIBE /* told in the description */
};

static enum keyword keyword_of(struct cm_str name, yyjson_val *value)
{
    static const struct cm_str kept[] = {CM_S_INIT("type"),  CM_S_INIT("enum"),
                                         CM_S_INIT("const"), CM_S_INIT("required"),
                                         CM_S_INIT("title"), CM_S_INIT("$ref")};
    static const struct cm_str named[] = {CM_S_INIT("properties"), CM_S_INIT("$defs"),
                                          CM_S_INIT("definitions")};
    static const struct cm_str lists[] = {CM_S_INIT("anyOf"), CM_S_INIT("allOf"),
                                          CM_S_INIT("oneOf")};
    static const struct cm_str noise[] = {CM_S_INIT("$schema"), CM_S_INIT("$id")};

    if (one_of(name, kept, CM_COUNT(kept)))
        return KEEP;
    if (one_of(name, named, CM_COUNT(named)))
        return yyjson_is_obj(value) ? NAMED : DROP;
    if (one_of(name, lists, CM_COUNT(lists)))
        return yyjson_is_arr(value) ? SCHEMAS : DROP;
    if (cm_str_eq(name, CM_S("items")) && yyjson_is_obj(value))
        return SCHEMA;
    if (one_of(name, noise, CM_COUNT(noise)))
        return DROP;
    if (cm_str_eq(name, CM_S("additionalProperties")) || cm_str_eq(name, CM_S("description")))
        return OURS;
    if (cm_str_eq(name, CM_S("format")) && is_format(cm_json_str(value)))
        return KEEP;
    if (cm_str_eq(name, CM_S("minItems")) && yyjson_is_uint(value) && yyjson_get_uint(value) <= 1)
        return KEEP;
    return DESCRIBE;
}

static void put_schema(struct writer *w, yyjson_val *schema);

static void put_key(struct writer *w, struct cm_str name, bool *some)
{
    cm_buf_append(w->out, *some ? CM_S(",") : CM_S(""));
    *some = true;
    cm_json_put_str(w->out, name);
    cm_buf_put(w->out, ':');
}

static void put_named(struct writer *w, yyjson_val *schemas)
{
    yyjson_obj_iter it = yyjson_obj_iter_with(schemas);
    yyjson_val *key;
    bool some = false;

    cm_buf_put(w->out, '{');
    while ((key = yyjson_obj_iter_next(&it))) {
        put_key(w, cm_json_str(key), &some);
        put_schema(w, yyjson_obj_iter_get_val(key));
    }
    cm_buf_put(w->out, '}');
}

static void put_list(struct writer *w, yyjson_val *schemas)
{
    size_t i, n;
    yyjson_val *v;

    cm_buf_put(w->out, '[');
    yyjson_arr_foreach(schemas, i, n, v)
    {
        cm_buf_append(w->out, i > 0 ? CM_S(",") : CM_S(""));
        put_schema(w, v);
    }
    cm_buf_put(w->out, ']');
}

/* Whether instances can be objects, so that it has to be closed. */
static bool is_object(yyjson_val *schema)
{
    yyjson_val *type = cm_json_get(schema, "type"), *v;
    size_t i, n;

    if (cm_str_eq(cm_json_str(type), CM_S("object")))
        return true;
    yyjson_arr_foreach(type, i, n, v)
    {
        if (cm_str_eq(cm_json_str(v), CM_S("object")))
            return true;
    }
    return !type && yyjson_is_obj(cm_json_get(schema, "properties"));
}

static void put_member(struct writer *w, struct cm_str name, yyjson_val *value, enum keyword how,
                       bool *some)
{
    const bool one_of_them = cm_str_eq(name, CM_S("oneOf"));

    put_key(w, one_of_them ? CM_S("anyOf") : name, some);
    w->changed |= one_of_them;
    switch (how) {
    case SCHEMA:
        put_schema(w, value);
        break;
    case SCHEMAS:
        put_list(w, value);
        break;
    case NAMED:
        put_named(w, value);
        break;
    case KEEP:
    case OURS:
    case DROP:
    case DESCRIBE:
        cm_json_put_val(w->out, value);
        break;
    }
}

static void put_description(struct writer *w, yyjson_val *schema, struct cm_str remarks, bool *some)
{
    const struct cm_str given = cm_json_str(cm_json_get(schema, "description"));
    struct cm_buf text = {0};

    cm_buf_append(&text, given);
    if (remarks.n > 0)
        cm_buf_printf(&text, "%s{" CM_PRI "}", given.n > 0 ? "\n\n" : "", CM_ARG(remarks));
    if (text.n > 0) {
        put_key(w, CM_S("description"), some);
        cm_json_put_str(w->out, cm_buf_str(&text));
    }
    cm_buf_clear(&text);
}

static void put_schema(struct writer *w, yyjson_val *schema)
{
    yyjson_obj_iter it = yyjson_obj_iter_with(schema);
    yyjson_val *key, *more = cm_json_get(schema, "additionalProperties");
    struct cm_buf remarks = {0};
    bool some = false;

    if (!yyjson_is_obj(schema)) { /* true and false: not in this part of it */
        cm_buf_append(w->out, CM_S("{}"));
        w->changed = true;
        return;
    }
    cm_buf_put(w->out, '{');
    while ((key = yyjson_obj_iter_next(&it))) {
        const struct cm_str name = cm_json_str(key);
        yyjson_val *value = yyjson_obj_iter_get_val(key);
        enum keyword how = keyword_of(name, value);

        if (cm_str_eq(name, CM_S("oneOf")) && cm_json_get(schema, "anyOf"))
            how = DESCRIBE;
        if (how == DESCRIBE) {
            cm_buf_append(&remarks, remarks.n > 0 ? CM_S(", ") : CM_S(""));
            cm_buf_append(&remarks, name);
            cm_buf_append(&remarks, CM_S(": "));
            cm_json_put_val(&remarks, value);
        } else if (how != OURS && how != DROP) {
            put_member(w, name, value, how, &some);
        }
        w->changed |= how == DESCRIBE;
    }
    put_description(w, schema, cm_buf_str(&remarks), &some);
    cm_buf_clear(&remarks);
    if (is_object(schema)) {
        put_key(w, CM_S("additionalProperties"), &some);
        cm_buf_append(w->out, CM_S("false"));
        w->changed |= !more || !yyjson_is_false(more);
    }
    cm_buf_put(w->out, '}');
}

struct cm_str anthropic_schema(struct cm_arena *arena, struct cm_str schema, bool *changed)
{
    yyjson_doc *doc = cm_json_parse(schema, &cm_json_limits_request, NULL);
    struct cm_buf out = {0};
    struct writer w = {.out = &out};

    *changed = true;
    if (yyjson_is_obj(yyjson_doc_get_root(doc))) {
        put_schema(&w, yyjson_doc_get_root(doc));
        *changed = w.changed;
    }
    yyjson_doc_free(doc);
    return cm_buf_settle(&out, arena);
}
