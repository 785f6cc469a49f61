/* Members of a request body: types, ranges, and errors in OpenAI's words. */
#include "fields_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"
#include "known_int.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define DEPTH_MAX 8 /* messages[0].content[1].image_url.url has six */

void cm_spot_text(const struct cm_spot *at, char *out, size_t cap)
{
    const struct cm_spot *chain[DEPTH_MAX];
    size_t depth = 0, n = 0;

    for (; at && depth < DEPTH_MAX; at = at->up)
        chain[depth++] = at;
    out[0] = '\0';
    while (depth-- > 0 && n < cap) {
        const struct cm_spot *s = chain[depth];
        const int wrote = s->key ? snprintf(out + n, cap - n, "%s%s", n > 0 ? "." : "", s->key)
                                 : snprintf(out + n, cap - n, "[%zu]", s->index);

        n += (size_t)wrote;
    }
}

int cm_field_fail(struct cm_err *err, const struct cm_spot *at, const char *code, const char *fmt,
                  ...)
{
    char param[64], msg[200];
    va_list ap;

    cm_spot_text(at, param, sizeof(param));
    va_start(ap, fmt);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    cm_fail_param(err, CM_ERR_BAD_REQUEST, param, "%s", msg);
    if (err)
        cm_str_copy(err->code, sizeof(err->code), cm_str_of(code));
    return -1;
}

static const char *type_name(const yyjson_val *value)
{
    yyjson_val *v = (yyjson_val *)(uintptr_t)value; /* yyjson's readers take no const */

    if (yyjson_is_str(v))
        return "a string";
    if (yyjson_is_int(v))
        return "an integer";
    if (yyjson_is_real(v))
        return "a decimal number";
    if (yyjson_is_bool(v))
        return "a boolean";
    if (yyjson_is_arr(v))
        return "an array";
    return yyjson_is_obj(v) ? "an object" : "null";
}

int cm_field_wrong_type(struct cm_err *err, const struct cm_spot *at, const char *expected,
                        const yyjson_val *v)
{
    char where[64];

    cm_spot_text(at, where, sizeof(where));
    return cm_field_fail(err, at, "invalid_type",
                         "Invalid type for '%s': expected %s, but got %s instead.", where, expected,
                         type_name(v));
}

int cm_field_missing(struct cm_err *err, const struct cm_spot *at)
{
    char where[64];

    cm_spot_text(at, where, sizeof(where));
    return cm_field_fail(err, at, "missing_required_parameter", "Missing required parameter: '%s'.",
                         where);
}

int cm_field_wrong_value(struct cm_err *err, const struct cm_spot *at, struct cm_str value,
                         const char *supported)
{
    const struct cm_str shown = cm_utf8_head(value, 40);

    return cm_field_fail(err, at, "invalid_value",
                         "Invalid value: '" CM_PRI "'. Supported values are: %s.", CM_ARG(shown),
                         supported);
}

int cm_field_members(yyjson_val *root, const struct cm_str *names, size_t n, yyjson_val **out,
                     struct cm_err *err)
{
    yyjson_obj_iter it = yyjson_obj_iter_with(root);
    yyjson_val *key;

    memset(out, 0, n * sizeof(*out));
    while ((key = yyjson_obj_iter_next(&it))) {
        const struct cm_str name = cm_json_str(key);

        for (size_t i = 0; i < n; i++) {
            if (!cm_str_eq(names[i], name))
                continue;
            if (out[i])
                return cm_field_fail(err, CM_SPOT(NULL, names[i].p), "duplicate_parameter",
                                     "The parameter '%s' occurs more than once.", names[i].p);
            out[i] = yyjson_obj_iter_get_val(key);
            break;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (yyjson_is_null(out[i]))
            out[i] = NULL;
    }
    return 0;
}

static bool is_known(const struct cm_str *names, size_t n, struct cm_str name)
{
    for (size_t i = 0; i < n; i++)
        if (cm_str_eq(names[i], name))
            return true;
    return false;
}

void cm_field_drop_others(struct cm_chat *chat, yyjson_val *root, const struct cm_str *names,
                          size_t n)
{
    yyjson_obj_iter it = yyjson_obj_iter_with(root);
    yyjson_val *key;

    while ((key = yyjson_obj_iter_next(&it))) {
        const struct cm_str name = cm_json_str(key);

        if (!yyjson_is_null(yyjson_obj_iter_get_val(key)) && !is_known(names, n, name))
            cm_chat_drop(chat, cm_str_is_word(name, CM_FIELD_NAME_MAX) ? name : CM_S("unknown"));
    }
    cm_known_note(chat, root);
}

static void free_doc(void *doc)
{
    yyjson_doc_free(doc);
}

int cm_field_body(struct cm_chat *chat, enum cm_dialect dialect, enum cm_chat_task task,
                  struct cm_str body, const struct cm_str *names, size_t n, yyjson_val **out,
                  struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(body, &cm_json_limits_request, err);

    if (!doc)
        return -1;
    cm_arena_defer(chat->arena, free_doc, doc);
    if (!yyjson_is_obj(yyjson_doc_get_root(doc)))
        return cm_fail(err, CM_ERR_BAD_REQUEST, "The request body must be a JSON object.");
    cm_chat_begin(chat, dialect, task, body);
    cm_field_drop_others(chat, yyjson_doc_get_root(doc), names, n);
    return cm_field_members(yyjson_doc_get_root(doc), names, n, out, err);
}

static bool absent(yyjson_val *v)
{
    return !v || yyjson_is_null(v);
}

int cm_field_str(yyjson_val *v, const struct cm_spot *at, struct cm_str *out, struct cm_err *err)
{
    if (absent(v))
        return 0;
    if (!yyjson_is_str(v))
        return cm_field_wrong_type(err, at, "a string", v);
    *out = cm_json_str(v);
    return 0;
}

int cm_field_need_str(yyjson_val *v, const struct cm_spot *at, struct cm_str *out,
                      struct cm_err *err)
{
    return absent(v) ? cm_field_missing(err, at) : cm_field_str(v, at, out, err);
}

int cm_field_bool(yyjson_val *v, const struct cm_spot *at, bool *out, struct cm_err *err)
{
    if (absent(v))
        return 0;
    if (!yyjson_is_bool(v))
        return cm_field_wrong_type(err, at, "a boolean", v);
    *out = yyjson_get_bool(v);
    return 0;
}

static int out_of_range(struct cm_err *err, const struct cm_spot *at, const char *kind, bool low,
                        const char *limit, const char *got)
{
    char where[64], code[48];

    cm_spot_text(at, where, sizeof(where));
    snprintf(code, sizeof(code), "%s_%s_value", kind, low ? "below_min" : "above_max");
    return cm_field_fail(
        err, at, code, "Invalid '%s': %s %s value. Expected a value %s %s, but got %s instead.",
        where, kind, low ? "below minimum" : "above maximum", low ? ">=" : "<=", limit, got);
}

int cm_field_int(yyjson_val *v, const struct cm_spot *at, int64_t min, int64_t max, int64_t *out,
                 struct cm_err *err)
{
    char limit[24], got[24];
    bool high;

    if (absent(v))
        return 0;
    if (!yyjson_is_int(v))
        return cm_field_wrong_type(err, at, "an integer", v);
    /* what is not negative may exceed int64_t */
    high = yyjson_is_uint(v) && yyjson_get_uint(v) > (uint64_t)max;
    if (!high && yyjson_get_sint(v) >= min) {
        *out = yyjson_get_sint(v);
        return 0;
    }
    snprintf(limit, sizeof(limit), "%" PRId64, high ? max : min);
    if (high)
        snprintf(got, sizeof(got), "%" PRIu64, yyjson_get_uint(v));
    else
        snprintf(got, sizeof(got), "%" PRId64, yyjson_get_sint(v));
    return out_of_range(err, at, "integer", !high, limit, got);
}

int cm_field_num(yyjson_val *v, const struct cm_spot *at, double min, double max, double *out,
                 struct cm_err *err)
{
    char limit[32], got[32];
    double value;

    if (absent(v))
        return 0;
    if (!yyjson_is_num(v))
        return cm_field_wrong_type(err, at, "a number", v);
    value = yyjson_get_num(v);
    if (value >= min && value <= max) {
        *out = value;
        return 0;
    }
    snprintf(limit, sizeof(limit), "%g", value < min ? min : max);
    snprintf(got, sizeof(got), "%g", value);
    return out_of_range(err, at, "decimal", value < min, limit, got);
}

int cm_field_is_array(yyjson_val *v, const struct cm_spot *at, struct cm_err *err)
{
    return absent(v) || yyjson_is_arr(v) ? 0 : cm_field_wrong_type(err, at, "an array", v);
}

int cm_field_is_object(yyjson_val *v, const struct cm_spot *at, struct cm_err *err)
{
    return absent(v) || yyjson_is_obj(v) ? 0 : cm_field_wrong_type(err, at, "an object", v);
}

struct cm_str cm_field_json(struct cm_arena *arena, const yyjson_val *v)
{
    struct cm_buf text = {0};

    if (!v)
        return CM_STR_NONE;
    cm_json_put_val(&text, v);
    return cm_buf_settle(&text, arena);
}

static bool is_base64(struct cm_str text)
{
    for (size_t i = 0; i < text.n; i++) {
        const char c = text.p[i];

        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '+' || c == '/' || c == '-' || c == '_' || c == '='))
            return false;
    }
    return true;
}

/* Base64 without `data:` in front, as clients of some gateways send it: of kinds that their first bytes tell. */
static bool is_bare_data(struct cm_str url, struct cm_part *part)
{
    static const struct {
        struct cm_str begins, media_type;
    } kinds[] = {
        {CM_S_INIT("iVBORw0KGgo"), CM_S_INIT("image/png")},
        {CM_S_INIT("/9j/"), CM_S_INIT("image/jpeg")},
        {CM_S_INIT("R0lGODl"), CM_S_INIT("image/gif")},
        {CM_S_INIT("R0lGODd"), CM_S_INIT("image/gif")},
        {CM_S_INIT("UklGR"), CM_S_INIT("image/webp")},
        {CM_S_INIT("JVBERi0"), CM_S_INIT("application/pdf")},
    };

    for (size_t i = 0; i < CM_COUNT(kinds); i++) {
        if (!cm_str_starts(url, kinds[i].begins) || !is_base64(url))
            continue;
        part->media_type = kinds[i].media_type;
        part->data = url;
        return true;
    }
    return false;
}

int cm_field_url(struct cm_str url, const struct cm_spot *at, struct cm_part *part,
                 struct cm_err *err)
{
    struct cm_str head, data = url;

    if (cm_str_starts_nocase(url, CM_S("https://")) || cm_str_starts_nocase(url, CM_S("http://"))) {
        part->url = url;
        return 0;
    }
    if (is_bare_data(url, part))
        return 0;
    if (!cm_str_starts_nocase(url, CM_S("data:")))
        return cm_field_fail(err, at, "invalid_value",
                             "Expected a URL that begins with http://, https:// or data:.");
    head = cm_str_cut(&data, ',');
    if (!cm_str_ends(head, CM_S(";base64")) || data.n == 0)
        return cm_field_fail(err, at, "invalid_value",
                             "Expected a base64-encoded data URL, e.g. "
                             "'data:image/png;base64,…'.");
    head = cm_str_from(head, sizeof("data:") - 1);
    part->media_type = cm_str_cut(&head, ';'); /* further parameters are dropped */
    part->data = data;
    return 0;
}
