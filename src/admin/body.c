/* Bodies of requests: JSON objects read by the table of shapes. */
#include "admin_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"

#include <math.h>

#define USD_MAX 1e9
#define STRS_MAX 10000

static const struct cm_json_limits limits = {50000, 8};

bool id_parse(struct cm_str text, uint64_t *id)
{
    uint64_t v;

    if (!cm_str_to_u64(text, UINT64_MAX, &v) || v == 0)
        return false;
    *id = v;
    return true;
}

/* ---- one member ---- */

static int wrong_type(const struct field *f, const char *wanted, struct cm_err *err)
{
    return cm_fail_param(err, CM_ERR_BAD_REQUEST, f->name, "%s must be %s%s", f->name, wanted,
                         f->nullable ? " or null" : "");
}

static int read_text(const struct field *f, yyjson_val *v, struct cm_arena *arena,
                     struct value *out, struct cm_err *err)
{
    struct cm_str s = cm_json_str(v);

    if (!yyjson_is_str(v))
        return wrong_type(f, "a string", err);
    if (f->max > 0 && s.n > (size_t)f->max)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, f->name,
                             "%s has %zu bytes, at most %lld are taken", f->name, s.n,
                             (long long)f->max);
    if (s.n > 0 && memchr(s.p, 0, s.n))
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, f->name, "%s holds a NUL", f->name);
    out->s = cm_arena_str(arena, s);
    return 0;
}

static int read_word(const struct field *f, yyjson_val *v, struct cm_arena *arena,
                     struct value *out, struct cm_err *err)
{
    struct cm_str words = cm_str_of(f->words), s = cm_json_str(v);

    if (!yyjson_is_str(v))
        return wrong_type(f, "a string", err);
    while (words.n > 0) {
        if (cm_str_eq(cm_str_cut(&words, '|'), s)) {
            out->s = cm_arena_str(arena, s);
            return 0;
        }
    }
    return cm_fail_param(err, CM_ERR_BAD_REQUEST, f->name, "%s must be one of %s", f->name,
                         f->words);
}

static int read_int(const struct field *f, yyjson_val *v, struct value *out, struct cm_err *err)
{
    if (!yyjson_is_int(v))
        return wrong_type(f, "an integer", err);
    out->i = yyjson_is_sint(v)                ? yyjson_get_sint(v)
             : yyjson_get_uint(v) > INT64_MAX ? INT64_MAX
                                              : (int64_t)yyjson_get_uint(v);
    if (f->max > 0 && (out->i < f->min || out->i > f->max))
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, f->name, "%s must be %lld to %lld", f->name,
                             (long long)f->min, (long long)f->max);
    return 0;
}

static int read_usd(const struct field *f, yyjson_val *v, struct value *out, struct cm_err *err)
{
    double usd = yyjson_get_num(v);

    if (!yyjson_is_num(v))
        return wrong_type(f, "a number", err);
    if (!(usd >= 0 && usd <= USD_MAX))
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, f->name, "%s must be 0 to %.0f dollars",
                             f->name, USD_MAX);
    out->i = llround(usd * 1e6);
    if (out->i == 0 && usd > 0)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, f->name,
                             "%s must be at least 0.000001 dollars", f->name);
    return 0;
}

static int read_strs(const struct field *f, yyjson_val *v, struct cm_arena *arena,
                     struct value *out, struct cm_err *err)
{
    struct cm_buf text = {0};
    yyjson_val *item;
    size_t i, n;

    if (!yyjson_is_arr(v))
        return wrong_type(f, "an array of strings", err);
    if (yyjson_arr_size(v) > STRS_MAX)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, f->name, "%s has more than %d items", f->name,
                             STRS_MAX);
    yyjson_arr_foreach(
        v, i, n, item) if (!yyjson_is_str(item) ||
                           yyjson_get_len(item) ==
                               0) return wrong_type(f, "an array of strings that are not empty",
                                                    err);
    cm_json_put_val(&text, v);
    out->s = cm_arena_str(arena, cm_buf_str(&text));
    cm_buf_clear(&text);
    return 0;
}

static int read_time(const struct field *f, yyjson_val *v, struct value *out, struct cm_err *err)
{
    if (yyjson_is_str(v) && cm_rfc3339_parse(cm_json_str(v), &out->i))
        return 0;
    return wrong_type(f, "a time such as \"2026-01-31T08:15:00Z\"", err);
}

static int read_value(const struct field *f, yyjson_val *v, struct cm_arena *arena,
                      struct value *out, struct cm_err *err)
{
    out->given = true;
    if (yyjson_is_null(v) && f->nullable) {
        out->null = true;
        return 0;
    }
    switch (f->type) {
    case SHAPE_STR:
        return read_text(f, v, arena, out, err);
    case SHAPE_WORD:
        return read_word(f, v, arena, out, err);
    case SHAPE_INT:
        return read_int(f, v, out, err);
    case SHAPE_USD:
        return read_usd(f, v, out, err);
    case SHAPE_BOOL:
        out->b = yyjson_get_bool(v);
        return yyjson_is_bool(v) ? 0 : wrong_type(f, "true or false", err);
    case SHAPE_TIME:
        return read_time(f, v, out, err);
    case SHAPE_STRS:
        return read_strs(f, v, arena, out, err);
    case SHAPE_NUMBER:
    case SHAPE_ANY:
    case SHAPE_ONE:
    case SHAPE_MANY:
        break;
    }
    CM_ASSERT(false); /* such members are only written */
    return -1;
}

/* ---- the object ---- */

static size_t field_at(const struct shape *shape, struct cm_str name)
{
    size_t i = 0;

    while (i < shape->n && !cm_str_eq(cm_str_of(shape->fields[i].name), name))
        i++;
    return i;
}

static int unknown(const struct shape *shape, struct cm_arena *arena, struct cm_str name,
                   struct cm_err *err)
{
    struct cm_str known = CM_STR_NONE;
    char *param = cm_arena_z(arena, cm_str_head(name, 60));

    for (size_t i = 0; i < shape->n; i++)
        known = cm_arena_printf(arena, CM_PRI "%s%s", CM_ARG(known), i > 0 ? ", " : "",
                                shape->fields[i].name);
    return cm_fail_param(err, CM_ERR_BAD_REQUEST, param, "unknown member \"%s\"; known are " CM_PRI,
                         param, CM_ARG(known));
}

static int read_members(struct body *body, struct cm_arena *arena, yyjson_val *root,
                        struct cm_err *err)
{
    yyjson_val *name, *v;
    size_t i, n;

    if (!yyjson_is_obj(root))
        return cm_fail(err, CM_ERR_BAD_REQUEST, "the body must be a JSON object");
    yyjson_obj_foreach(root, i, n, name, v)
    {
        size_t at = field_at(body->shape, cm_json_str(name));

        if (at == body->shape->n && body->shape->open)
            continue;
        if (at == body->shape->n)
            return unknown(body->shape, arena, cm_json_str(name), err);
        if (body->values[at].given)
            return cm_fail_param(err, CM_ERR_BAD_REQUEST, body->shape->fields[at].name,
                                 "%s is there twice", body->shape->fields[at].name);
        if (read_value(&body->shape->fields[at], v, arena, &body->values[at], err) < 0)
            return -1;
    }
    for (size_t at = 0; at < body->shape->n; at++)
        if (body->shape->fields[at].required && !body->values[at].given)
            return cm_fail_param(err, CM_ERR_BAD_REQUEST, body->shape->fields[at].name,
                                 "%s is missing", body->shape->fields[at].name);
    return 0;
}

int body_read(struct body *body, struct cm_arena *arena, struct cm_str text, const char *shape,
              struct cm_err *err)
{
    yyjson_doc *doc;
    int rc;

    *body = (struct body){.shape = shape_find(shape)};
    CM_ASSERT(body->shape && body->shape->n <= FIELDS_MAX);
    doc = cm_json_parse(cm_str_trim(text).n > 0 ? text : CM_S("{}"), &limits, err);
    if (!doc)
        return -1;
    rc = read_members(body, arena, yyjson_doc_get_root(doc), err);
    yyjson_doc_free(doc);
    return rc;
}

const struct value *body_get(const struct body *body, const char *name)
{
    size_t at = field_at(body->shape, cm_str_of(name));

    CM_ASSERT(at < body->shape->n);
    return body->values[at].given ? &body->values[at] : NULL;
}

struct cm_str body_str(const struct body *body, const char *name)
{
    const struct value *v = body_get(body, name);

    return v ? v->s : CM_STR_NONE;
}

int64_t body_int(const struct body *body, const char *name, int64_t otherwise)
{
    const struct value *v = body_get(body, name);

    return v ? v->i : otherwise;
}
