/* JSON Schema into what the platform takes: references resolved, and for the small kind (`parameters`, responseSchema) only what it knows.
 *
 * Wire facts: Gemini protocol notes, sections 2 and 5. A reference that leads into itself cannot be resolved: it stays one in the large kind, with the
 * definitions beside it, and becomes an object of anything in the small one. */
#include "gemini_int.h"

#define DEPTH_MAX 40         /* of references within each other */
#define BYTES_MAX (1u << 20) /* resolved references repeat themselves */

struct writer {
    struct cm_buf *out;
    yyjson_val *root;
    bool small;
    bool left_refs;              /* one could not be resolved */
    yyjson_val *open[DEPTH_MAX]; /* definitions that are being written */
    unsigned n_open;
};

static void put_schema(struct writer *w, yyjson_val *v);

/* "#/$defs/Node" -> the value there; NULL when it leads nowhere, or out of the document. */
static yyjson_val *referred(const struct writer *w, yyjson_val *v)
{
    struct cm_str ref = cm_json_str(cm_json_get(v, "$ref"));

    if (cm_str_eq(ref, CM_S("#")))
        return w->root;
    if (!cm_str_starts(ref, CM_S("#/")))
        return NULL;
    return yyjson_ptr_getn(w->root, ref.p + 1, ref.n - 1);
}

static bool is_open(const struct writer *w, const yyjson_val *target)
{
    for (unsigned i = 0; i < w->n_open; i++) {
        if (w->open[i] == target)
            return true;
    }
    return target == w->root;
}

static void comma(struct cm_buf *out)
{
    if (out->n > 0 && out->p[out->n - 1] != '{' && out->p[out->n - 1] != '[')
        cm_buf_put(out, ',');
}

static void put_key(struct writer *w, struct cm_str key)
{
    comma(w->out);
    cm_json_put_str(w->out, key);
    cm_buf_put(w->out, ':');
}

/* {"name": schema, …} */
static void put_members(struct writer *w, yyjson_val *members)
{
    yyjson_obj_iter it = yyjson_obj_iter_with(members);
    yyjson_val *key;

    cm_buf_put(w->out, '{');
    while ((key = yyjson_obj_iter_next(&it))) {
        put_key(w, cm_json_str(key));
        put_schema(w, yyjson_obj_iter_get_val(key));
    }
    cm_buf_put(w->out, '}');
}

static void put_list(struct writer *w, yyjson_val *list)
{
    yyjson_val *v;
    size_t i, n;

    cm_buf_put(w->out, '[');
    yyjson_arr_foreach(list, i, n, v)
    {
        comma(w->out);
        put_schema(w, v);
    }
    cm_buf_put(w->out, ']');
}

/* ---- the small kind ---- */

static bool is_null_type(yyjson_val *v)
{
    return cm_str_eq(cm_json_str(cm_json_get(v, "type")), CM_S("null"));
}

/* The one of two choices that is not null; NULL when it is no such pair. */
static yyjson_val *beside_null(yyjson_val *choices)
{
    yyjson_val *a = yyjson_arr_get(choices, 0), *b = yyjson_arr_get(choices, 1);

    if (yyjson_arr_size(choices) != 2 || is_null_type(a) == is_null_type(b))
        return NULL;
    return is_null_type(a) ? b : a;
}

/* ["string", "null"]: one type, and nullable. Of several the first that is not null: the platform takes one. */
static struct cm_str one_type(yyjson_val *type, bool *nullable)
{
    struct cm_str found = CM_STR_NONE;
    yyjson_val *t;
    size_t i, n;

    if (!yyjson_is_arr(type))
        return cm_json_str(type);
    yyjson_arr_foreach(type, i, n, t)
    {
        if (cm_str_eq(cm_json_str(t), CM_S("null")))
            *nullable = true;
        else if (found.n == 0)
            found = cm_json_str(t);
    }
    return found;
}

static bool all_strings(yyjson_val *list)
{
    yyjson_val *v;
    size_t i, n;

    if (!yyjson_is_arr(list) || yyjson_arr_size(list) == 0)
        return false;
    yyjson_arr_foreach(list, i, n, v)
    {
        if (!yyjson_is_str(v))
            return false;
    }
    return true;
}

static bool format_known(struct cm_str type, struct cm_str format)
{
    if (cm_str_eq(type, CM_S("string")))
        return cm_str_eq(format, CM_S("enum")) || cm_str_eq(format, CM_S("date-time"));
    return cm_str_eq(format, CM_S("int32")) || cm_str_eq(format, CM_S("int64")) ||
           cm_str_eq(format, CM_S("float")) || cm_str_eq(format, CM_S("double"));
}

/* Names of `required` that are among the properties: others are refused. */
static void put_required(struct writer *w, yyjson_val *required, yyjson_val *properties)
{
    yyjson_val *name;
    bool any = false;
    size_t i, n;

    if (!yyjson_is_arr(required))
        return;
    yyjson_arr_foreach(required, i, n, name)
    {
        if (!yyjson_obj_getn(properties, yyjson_get_str(name), yyjson_get_len(name)))
            continue;
        if (!any) {
            put_key(w, CM_S("required"));
            cm_buf_put(w->out, '[');
        }
        comma(w->out);
        cm_json_put_str(w->out, cm_json_str(name));
        any = true;
    }
    if (any)
        cm_buf_put(w->out, ']');
}

static void copy_small(struct writer *w, yyjson_val *v)
{
    static const char *const kept[] = {
        "title",     "description",   "pattern",       "default",         "example",
        "minimum",   "maximum",       "minItems",      "maxItems",        "minLength",
        "maxLength", "minProperties", "maxProperties", "propertyOrdering"};

    for (size_t i = 0; i < CM_COUNT(kept); i++) {
        yyjson_val *member = cm_json_opt(v, kept[i]);

        if (!member)
            continue;
        put_key(w, cm_str_of(kept[i]));
        cm_json_put_val(w->out, member);
    }
}

static void put_values(struct writer *w, yyjson_val *v, struct cm_str type)
{
    yyjson_val *constant = cm_json_get(v, "const"), *values = cm_json_get(v, "enum"),
               *format = cm_json_get(v, "format");

    if (all_strings(values)) {
        put_key(w, CM_S("enum"));
        cm_json_put_val(w->out, values);
    } else if (yyjson_is_str(constant)) {
        put_key(w, CM_S("enum"));
        cm_buf_put(w->out, '[');
        cm_json_put_str(w->out, cm_json_str(constant));
        cm_buf_put(w->out, ']');
    }
    if (format_known(type, cm_json_str(format))) {
        put_key(w, CM_S("format"));
        cm_json_put_str(w->out, cm_json_str(format));
    }
}

static void put_children(struct writer *w, yyjson_val *v, struct cm_str type, yyjson_val *choices)
{
    yyjson_val *properties = cm_json_get(v, "properties"), *items = cm_json_opt(v, "items");

    if (yyjson_obj_size(properties) > 0) { /* an empty one is refused */
        put_key(w, CM_S("properties"));
        put_members(w, properties);
        put_required(w, cm_json_get(v, "required"), properties);
    }
    if (yyjson_is_obj(items)) {
        put_key(w, CM_S("items"));
        put_schema(w, items);
    } else if (cm_str_eq(type, CM_S("array"))) { /* arrays need one; of tuples the first will do */
        yyjson_val *first = yyjson_arr_get_first(cm_json_get(v, "prefixItems"));

        put_key(w, CM_S("items"));
        if (first)
            put_schema(w, first);
        else
            cm_buf_append(w->out, CM_S("{\"type\":\"string\"}"));
    }
    if (yyjson_arr_size(choices) > 0) {
        put_key(w, CM_S("anyOf"));
        put_list(w, choices);
    }
}

static void put_small(struct writer *w, yyjson_val *v)
{
    yyjson_val *choices = cm_json_get(v, "anyOf"), *only;
    bool nullable = yyjson_is_true(cm_json_get(v, "nullable"));
    struct cm_str type = one_type(cm_json_get(v, "type"), &nullable);

    if (!yyjson_is_arr(choices))
        choices = cm_json_get(v, "oneOf");
    only = beside_null(choices);
    if (only) { /* "this or nothing" */
        const size_t before = w->out->n;

        put_schema(w, only);
        if (w->out->n - before > 2 && w->out->p[w->out->n - 1] == '}') {
            w->out->n--;
            cm_buf_append(w->out, CM_S(",\"nullable\":true}"));
        }
        return;
    }
    cm_buf_put(w->out, '{');
    if (type.n == 0 && yyjson_is_str(cm_json_get(v, "const")))
        type = CM_S("string");
    if (type.n == 0 && yyjson_is_obj(cm_json_get(v, "properties")))
        type = CM_S("object");
    if (type.n > 0) {
        put_key(w, CM_S("type"));
        cm_json_put_str(w->out, type);
    }
    if (nullable) {
        put_key(w, CM_S("nullable"));
        cm_buf_append(w->out, CM_S("true"));
    }
    copy_small(w, v);
    put_values(w, v, type);
    put_children(w, v, type, choices);
    cm_buf_put(w->out, '}');
}

/* ---- the large kind ---- */

static bool in_list(struct cm_str key, const char *const *list)
{
    for (; *list; list++) {
        if (cm_str_eq(key, cm_str_of(*list)))
            return true;
    }
    return false;
}

static void put_large(struct writer *w, yyjson_val *v)
{
    static const char *const schemas[] = {"items", "additionalProperties", "not", NULL};
    static const char *const lists[] = {"anyOf", "oneOf", "allOf", "prefixItems", NULL};
    /* protocol notes: UNKNOWN whether propertyNames, patternProperties, if … are taken; a model does well without */
    static const char *const known[] = {"type",
                                        "format",
                                        "title",
                                        "description",
                                        "nullable",
                                        "enum",
                                        "const",
                                        "default",
                                        "example",
                                        "examples",
                                        "items",
                                        "prefixItems",
                                        "minItems",
                                        "maxItems",
                                        "uniqueItems",
                                        "properties",
                                        "required",
                                        "minProperties",
                                        "maxProperties",
                                        "propertyOrdering",
                                        "minimum",
                                        "maximum",
                                        "multipleOf",
                                        "exclusiveMinimum",
                                        "exclusiveMaximum",
                                        "minLength",
                                        "maxLength",
                                        "pattern",
                                        "anyOf",
                                        "oneOf",
                                        "allOf",
                                        "not",
                                        "$ref",
                                        "$anchor",
                                        "additionalProperties",
                                        NULL};
    yyjson_obj_iter it = yyjson_obj_iter_with(v);
    yyjson_val *key;

    cm_buf_put(w->out, '{');
    while ((key = yyjson_obj_iter_next(&it))) {
        struct cm_str name = cm_json_str(key);
        yyjson_val *member = yyjson_obj_iter_get_val(key);

        if (!in_list(name, known))
            continue;
        put_key(w, name);
        if (yyjson_is_obj(member) && cm_str_eq(name, CM_S("properties")))
            put_members(w, member);
        else if (yyjson_is_obj(member) && in_list(name, schemas))
            put_schema(w, member);
        else if (yyjson_is_arr(member) && in_list(name, lists))
            put_list(w, member);
        else
            cm_json_put_val(w->out, member);
    }
    cm_buf_put(w->out, '}');
}

/* ---- both ---- */

static void put_referred(struct writer *w, yyjson_val *v, yyjson_val *target)
{
    if (target && !is_open(w, target) && w->n_open < DEPTH_MAX && w->out->n < BYTES_MAX) {
        w->open[w->n_open++] = target;
        put_schema(w, target);
        w->n_open--;
    } else if (w->small || !target) {
        cm_buf_append(w->out, CM_S("{\"type\":\"object\"}"));
    } else {
        w->left_refs = true;
        cm_json_put_val(w->out, v);
    }
}

/* Put together as one: members of the later ones win, properties and required add up. */
static yyjson_mut_val *merged(struct writer *w, yyjson_mut_doc *doc, yyjson_val *v)
{
    yyjson_mut_val *out = yyjson_mut_obj(doc), *properties = NULL, *required = NULL;
    yyjson_val *all = cm_json_get(v, "allOf"), *part;
    size_t i, n = yyjson_arr_size(all);

    for (i = 0; i <= n; i++) {
        yyjson_obj_iter it;
        yyjson_val *key, *target;

        part = i < n ? yyjson_arr_get(all, i) : v;
        target = referred(w, part);
        it = yyjson_obj_iter_with(target ? target : part);
        while ((key = yyjson_obj_iter_next(&it))) {
            struct cm_str name = cm_json_str(key);
            yyjson_val *member = yyjson_obj_iter_get_val(key);

            if (cm_str_eq(name, CM_S("allOf")) && part == v)
                continue;
            if (cm_str_eq(name, CM_S("properties")) && yyjson_is_obj(member)) {
                yyjson_obj_iter props = yyjson_obj_iter_with(member);
                yyjson_val *prop;

                properties = properties ? properties : yyjson_mut_obj(doc);
                while ((prop = yyjson_obj_iter_next(&props)))
                    yyjson_mut_obj_put(properties, yyjson_val_mut_copy(doc, prop),
                                       yyjson_val_mut_copy(doc, yyjson_obj_iter_get_val(prop)));
            } else if (cm_str_eq(name, CM_S("required")) && yyjson_is_arr(member)) {
                yyjson_val *one;
                size_t k, max;

                required = required ? required : yyjson_mut_arr(doc);
                yyjson_arr_foreach(member, k, max, one)
                {
                    yyjson_mut_arr_append(required, yyjson_val_mut_copy(doc, one));
                }
            } else {
                yyjson_mut_obj_put(out, yyjson_val_mut_copy(doc, key),
                                   yyjson_val_mut_copy(doc, member));
            }
        }
    }
    if (properties)
        yyjson_mut_obj_add_val(doc, out, "properties", properties);
    if (required)
        yyjson_mut_obj_add_val(doc, out, "required", required);
    return out;
}

/* allOf is none of the small kind's words: its parts become one schema. */
static void put_merged(struct writer *w, yyjson_val *v)
{
    yyjson_mut_doc *mut = yyjson_mut_doc_new(NULL);
    yyjson_doc *doc;

    yyjson_mut_doc_set_root(mut, merged(w, mut, v));
    doc = yyjson_mut_doc_imut_copy(mut, NULL);
    yyjson_mut_doc_free(mut);
    if (w->n_open < DEPTH_MAX) {
        w->open[w->n_open++] = v;
        put_schema(w, yyjson_doc_get_root(doc));
        w->n_open--;
    } else {
        cm_buf_append(w->out, CM_S("{\"type\":\"object\"}"));
    }
    yyjson_doc_free(doc);
}

static void put_schema(struct writer *w, yyjson_val *v)
{
    if (cm_json_get(v, "$ref"))
        put_referred(w, v, referred(w, v));
    else if (!yyjson_is_obj(v) && w->small) /* true: anything */
        cm_buf_append(w->out, CM_S("{\"type\":\"string\"}"));
    else if (!yyjson_is_obj(v))
        cm_json_put_val(w->out, v);
    else if (w->small && yyjson_is_arr(cm_json_get(v, "allOf")))
        put_merged(w, v);
    else if (w->small)
        put_small(w, v);
    else
        put_large(w, v);
}

/* What references that stay refer to. */
static void put_definitions(struct writer *w)
{
    static const char *const names[] = {"$defs", "definitions"};

    w->out->n--; /* the closing brace */
    for (size_t i = 0; i < CM_COUNT(names); i++) {
        yyjson_val *definitions = cm_json_opt(w->root, names[i]);

        if (!yyjson_is_obj(definitions))
            continue;
        put_key(w, cm_str_of(names[i]));
        cm_json_put_val(w->out, definitions);
    }
    cm_buf_put(w->out, '}');
}

/* An object that has no members, and none that are not listed: the platform wants no schema then. */
static bool says_nothing(yyjson_val *root)
{
    yyjson_val *more = cm_json_opt(root, "additionalProperties");

    return yyjson_obj_size(root) == 0 ||
           (cm_str_eq(cm_json_str(cm_json_get(root, "type")), CM_S("object")) &&
            yyjson_obj_size(cm_json_get(root, "properties")) == 0 && !yyjson_is_obj(more) &&
            !cm_json_get(root, "$ref") && !cm_json_get(root, "anyOf") &&
            !cm_json_get(root, "oneOf") && !cm_json_get(root, "allOf"));
}

struct cm_str gemini_schema(struct cm_arena *arena, struct cm_str schema, bool small)
{
    yyjson_doc *doc = cm_json_parse(schema, &cm_json_limits_event, NULL);
    struct cm_buf out = {0};
    struct writer w = {.out = &out, .root = yyjson_doc_get_root(doc), .small = small};

    if (yyjson_is_obj(w.root) && !says_nothing(w.root)) {
        if (cm_json_get(w.root, "$ref")) {
            yyjson_val *target = referred(&w, w.root);

            w.open[w.n_open++] = target;
            if (target && target != w.root)
                put_schema(&w, target);
        } else {
            put_schema(&w, w.root);
        }
        if (w.left_refs && out.n > 1)
            put_definitions(&w);
    }
    yyjson_doc_free(doc);
    return cm_buf_settle(&out, arena);
}
