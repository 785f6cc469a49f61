/* hix: by what hixai2api knew a conversation: the digest of its last question and answer, as Go writes them. HIX protocol notes, section 4. */
#include "hix_int.h"

#include "chatmux/base/crypto.h"

#include <stdio.h>
#include <stdlib.h>

#define HEX_SIZE (2 * CM_SHA256_SIZE)

/* What encoding/json escapes, besides what JSON must. */
static size_t escaped(struct cm_str s, char out[8])
{
    const unsigned char c = (unsigned char)s.p[0];
    const char *const shorts = "\"\"\\\\\bb\ff\nn\rr\tt";

    for (size_t i = 0; shorts[i]; i += 2)
        if ((unsigned char)shorts[i] == c) {
            out[0] = '\\';
            out[1] = shorts[i + 1];
            out[2] = '\0';
            return 1;
        }
    if (c < 0x20 || c == '<' || c == '>' || c == '&') {
        snprintf(out, 8, "\\u%04x", c);
        return 1;
    }
    if (cm_str_starts(s, CM_S("\xe2\x80\xa8")) || cm_str_starts(s, CM_S("\xe2\x80\xa9"))) {
        snprintf(out, 8, "\\u20%02x", (unsigned char)s.p[2] - 0x80);
        return 3;
    }
    out[0] = (char)c;
    out[1] = '\0';
    return 1;
}

static void put_text(struct cm_buf *out, struct cm_str s)
{
    char piece[8];

    cm_buf_put(out, '"');
    while (s.n > 0) {
        s = cm_str_from(s, escaped(s, piece));
        cm_buf_append(out, cm_str_of(piece));
    }
    cm_buf_put(out, '"');
}

static void put_value(struct cm_buf *out, yyjson_val *v);

struct member {
    yyjson_val *name, *value;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(yyjson_get_str(((const struct member *)a)->name),
                  yyjson_get_str(((const struct member *)b)->name));
}

/* A Go map is written in the order of its names. */
static void put_object(struct cm_buf *out, yyjson_val *v)
{
    struct member *members = cm_calloc(yyjson_obj_size(v) + 1, sizeof(*members));
    yyjson_val *name, *value;
    size_t i, n;

    yyjson_obj_foreach(v, i, n, name, value)
    {
        members[i] = (struct member){name, value};
    }
    qsort(members, yyjson_obj_size(v), sizeof(*members), by_name);
    cm_buf_put(out, '{');
    for (i = 0; i < yyjson_obj_size(v); i++) {
        if (i > 0)
            cm_buf_put(out, ',');
        put_text(out, cm_json_str(members[i].name));
        cm_buf_put(out, ':');
        put_value(out, members[i].value);
    }
    cm_buf_put(out, '}');
    free(members);
}

/* As deep as the request was read, which is bounded. */
static void put_value(struct cm_buf *out, yyjson_val *v)
{
    yyjson_val *item;
    size_t i, n;

    if (yyjson_is_str(v)) {
        put_text(out, cm_json_str(v));
    } else if (yyjson_is_obj(v)) {
        put_object(out, v);
    } else if (yyjson_is_arr(v)) {
        cm_buf_put(out, '[');
        yyjson_arr_foreach(v, i, n, item)
        {
            if (i > 0)
                cm_buf_put(out, ',');
            put_value(out, item);
        }
        cm_buf_put(out, ']');
    } else {
        cm_json_put_val(out, v);
    }
}

/* Each backslash with an n, t or r behind it is taken out, also the second half of an escaped backslash. */
static void drop_line_ends(struct cm_buf *text)
{
    size_t to = 0;

    for (size_t i = 0; i < text->n; i++) {
        if (text->p[i] == '\\' && i + 1 < text->n && strchr("ntr", text->p[i + 1]))
            i++;
        else
            text->p[to++] = text->p[i];
    }
    text->n = to;
}

struct cm_str hix_seed_pair(struct cm_arena *arena, yyjson_val *question, yyjson_val *answer)
{
    unsigned char digest[CM_SHA256_SIZE];
    char hex[HEX_SIZE + 1];
    struct cm_buf text = {0};

    cm_buf_append(&text, CM_S("[{\"role\":\"user\",\"content\":"));
    put_value(&text, question);
    cm_buf_append(&text, CM_S("},{\"role\":\"assistant\",\"content\":"));
    if (yyjson_is_str(answer))
        put_text(&text, cm_str_trim(cm_json_str(answer)));
    else
        put_value(&text, answer);
    cm_buf_append(&text, CM_S("}]"));
    drop_line_ends(&text);
    cm_sha256(cm_buf_str(&text), digest);
    cm_buf_clear(&text);
    for (size_t i = 0; i < sizeof(digest); i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return cm_arena_str(arena, cm_str(hex, HEX_SIZE));
}

static bool is_role(yyjson_val *message, const char *role)
{
    return cm_str_eq(cm_json_str(cm_json_get(message, "role")), cm_str_of(role));
}

/* The nearest answer before the last message that stands directly behind a question. */
static size_t last_answer(yyjson_val *messages)
{
    size_t n = yyjson_arr_size(messages);

    if (n < 3 || !is_role(yyjson_arr_get(messages, n - 1), "user"))
        return 0;
    for (size_t i = n - 2; i > 0; i--)
        if (is_role(yyjson_arr_get(messages, i), "assistant") &&
            is_role(yyjson_arr_get(messages, i - 1), "user"))
            return i;
    return 0;
}

/* Its clients spoke OpenAI's dialect, and it went by what they wrote and not by what that means. */
bool hix_old_thread(struct cm_arena *arena, const struct cm_chat *chat, struct cm_str *name,
                    size_t *from)
{
    yyjson_doc *doc;
    yyjson_val *messages;
    size_t at;

    if (chat->dialect != CM_DIALECT_OPENAI_CHAT)
        return false;
    doc = cm_json_parse(chat->raw, &cm_json_limits_request, NULL);
    messages = cm_json_get(yyjson_doc_get_root(doc), "messages");
    at = yyjson_arr_size(messages) == chat->n_msgs ? last_answer(messages) : 0;
    if (at > 0) {
        *name = hix_seed_pair(arena, cm_json_get(yyjson_arr_get(messages, at - 1), "content"),
                              cm_json_get(yyjson_arr_get(messages, at), "content"));
        *from = at + 1;
    }
    yyjson_doc_free(doc);
    return at > 0;
}
