/* openai: what OpenAI's dialect demands of names and schemas, and which models reason. */
#include "openai_int.h"

#include "chatmux/base/crypto.h"
#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"

/* ---- Ids and names ---- */

#define ID_MAX 40 /* OpenAI protocol notes, section 2 */
#define NAME_MAX_BYTES 64

/* `prefix` and n bytes of the digest of a text, in hex. */
static struct cm_str digest_name(struct cm_arena *arena, struct cm_str prefix, struct cm_str text,
                                 size_t n)
{
    unsigned char digest[CM_SHA256_SIZE];
    struct cm_buf out = {0};

    cm_sha256(text, digest);
    cm_buf_append(&out, prefix);
    cm_hex(&out, cm_str((const char *)digest, n));
    return cm_buf_settle(&out, arena);
}

bool openai_id_too_long(struct cm_str id)
{
    return id.n > ID_MAX;
}

struct cm_str openai_short_id(struct cm_arena *arena, struct cm_str id)
{
    return openai_id_too_long(id) ? digest_name(arena, CM_S("call_"), id, 16) : id;
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
}

static bool name_fits(struct cm_str name)
{
    for (size_t i = 0; i < name.n; i++)
        if (!name_char(name.p[i]))
            return false;
    return name.n > 0 && name.n <= NAME_MAX_BYTES;
}

/* Two names that differ only in what is replaced must not become one: a part of their digest tells them apart. */
struct cm_str openai_tool_name(struct cm_arena *arena, struct cm_str name)
{
    char plain[NAME_MAX_BYTES];
    size_t n = 0;

    if (name_fits(name))
        return name;
    for (; n < name.n && n < NAME_MAX_BYTES - 9; n++)
        plain[n] = name_char(name.p[n]) ? name.p[n] : '_';
    plain[n++] = '_';
    return digest_name(arena, cm_str(plain, n), name, 4);
}

/* ---- Models ---- */

/* "o3*" among patterns with spaces between; a "!" in front takes back what an earlier one said. */
static bool matches_any(struct cm_str patterns, struct cm_str name)
{
    bool matched = false;

    while (cm_str_trim(patterns).n > 0) {
        struct cm_str p = openai_next_word(&patterns);
        const bool not = cm_str_starts(p, CM_S("!"));

        if (not)
            p = cm_str_from(p, 1);
        if (cm_str_ends(p, CM_S("*")) ? cm_str_starts(name, cm_str_head(p, p.n - 1))
                                      : p.n > 0 && cm_str_eq(name, p))
            matched = !not;
    }
    return matched;
}

bool openai_thinks(const struct openai_options *o, struct cm_str model)
{
    struct cm_str name = model;

    while (cm_str_find_char(name, '/') != SIZE_MAX) /* "openai/o3" */
        cm_str_cut(&name, '/');
    return matches_any(o->reasoning_models, name);
}

/* ---- Effort ---- */

static const struct cm_str levels[] = {
    CM_S_INIT("none"), CM_S_INIT("minimal"), CM_S_INIT("low"), CM_S_INIT("medium"),
    CM_S_INIT("high"), CM_S_INIT("xhigh"),   CM_S_INIT("max"),
};

static bool lists_word(struct cm_str list, struct cm_str word)
{
    while (cm_str_trim(list).n > 0)
        if (cm_str_eq(openai_next_word(&list), word))
            return true;
    return false;
}

struct cm_str openai_effort(const struct openai_options *o, struct cm_str asked)
{
    size_t at = 0;

    while (at < CM_COUNT(levels) && !cm_str_eq(levels[at], asked))
        at++;
    if (at == CM_COUNT(levels) || lists_word(o->efforts, asked))
        return asked; /* a word we do not know either: the server decides */
    if (at == 0)
        return CM_STR_NONE; /* it cannot be switched off: then nothing is said */
    for (size_t d = 1; d < CM_COUNT(levels); d++) {
        if (at + d < CM_COUNT(levels) && lists_word(o->efforts, levels[at + d]))
            return levels[at + d];
        if (at > d && lists_word(o->efforts, levels[at - d]))
            return levels[at - d];
    }
    return CM_STR_NONE;
}

/* ---- Schemas ---- */

static bool is_required(yyjson_val *required, yyjson_val *name)
{
    size_t i, n;
    yyjson_val *v;

    yyjson_arr_foreach(required, i, n, v)
    {
        if (yyjson_equals_strn(v, yyjson_get_str(name), yyjson_get_len(name)))
            return true;
    }
    return false;
}

/* An object is closed, and all its properties are required. */
static bool object_is_strict(yyjson_val *schema)
{
    yyjson_val *properties = cm_json_get(schema, "properties"),
               *required = cm_json_get(schema, "required"), *key, *value;
    size_t i, n;

    if (!yyjson_is_false(cm_json_get(schema, "additionalProperties")))
        return false;
    yyjson_obj_foreach(properties, i, n, key, value)
    {
        (void)value;
        if (!is_required(required, key))
            return false;
    }
    return true;
}

static bool is_object_schema(yyjson_val *schema)
{
    yyjson_val *type = cm_json_get(schema, "type");

    return cm_str_eq(cm_json_str(type), CM_S("object")) || cm_json_get(schema, "properties");
}

/* The depth was checked when the text was parsed. */
static bool is_strict(yyjson_val *v) // NOLINT(misc-no-recursion)
{
    size_t i, n;
    yyjson_val *key, *value;

    if (yyjson_is_obj(v) && is_object_schema(v) && !object_is_strict(v))
        return false;
    yyjson_obj_foreach(v, i, n, key, value)
    {
        (void)key;
        if (!is_strict(value))
            return false;
    }
    yyjson_arr_foreach(v, i, n, value)
    {
        if (!is_strict(value))
            return false;
    }
    return true;
}

bool openai_strict_schema(struct cm_str schema)
{
    yyjson_doc *doc = schema.n > 0 ? cm_json_parse(schema, &cm_json_limits_event, NULL) : NULL;
    yyjson_val *root = yyjson_doc_get_root(doc);
    const bool strict = yyjson_is_obj(root) && is_object_schema(root) && is_strict(root);

    yyjson_doc_free(doc);
    return strict;
}
