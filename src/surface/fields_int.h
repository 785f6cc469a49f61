/* Reading the members of a request body: types, ranges, and errors that name the member as the
 * client wrote it. Loop thread only. */
#ifndef SURFACE_FIELDS_INT_H
#define SURFACE_FIELDS_INT_H

#include "chatmux/base/arena.h"
#include "chatmux/base/err.h"
#include "chatmux/chat/request.h"
#include "chatmux/codec/json.h"

/* Where a value stands: a chain on the stack, made into text ("messages[2].content") only when
 * something is wrong there. */
struct cm_spot {
    const struct cm_spot *up; /* NULL = the body itself */
    const char *key;          /* NULL = an element: index counts */
    size_t index;
};
#define CM_SPOT(up, key) (&(const struct cm_spot){(up), (key), 0})
#define CM_SPOT_AT(up, index) (&(const struct cm_spot){(up), NULL, (index)})

/* "messages[2].content"; cut when longer than fits. */
void cm_spot_text(const struct cm_spot *at, char *out, size_t cap);

/* CM_ERR_BAD_REQUEST with the spot as param; `code` NULL = null. Returns -1. */
int cm_field_fail(struct cm_err *err, const struct cm_spot *at, const char *code, const char *fmt,
                  ...) __attribute__((format(printf, 4, 5)));
/* "Invalid type for 'x': expected a string, but got an integer instead." */
int cm_field_wrong_type(struct cm_err *err, const struct cm_spot *at, const char *expected,
                        const yyjson_val *v);
/* "Missing required parameter: 'x'." */
int cm_field_missing(struct cm_err *err, const struct cm_spot *at);
/* "Invalid value: 'x'. Supported values are: …" */
int cm_field_wrong_value(struct cm_err *err, const struct cm_spot *at, struct cm_str value,
                         const char *supported);

/* A whole body: parsed, kept as long as the chat, which begins with it; then as cm_field_drop_others() and cm_field_members(). */
int cm_field_body(struct cm_chat *chat, enum cm_dialect dialect, enum cm_chat_task task,
                  struct cm_str body, const struct cm_str *names, size_t n, yyjson_val **out,
                  struct cm_err *err);
/* Members that nobody here reads: only the relay lane carries them. Those of the body itself are told at once, those below it when somebody asks
 * (known_int.h). `root` must live as long as the chat. */
void cm_field_drop_others(struct cm_chat *chat, yyjson_val *root, const struct cm_str *names,
                          size_t n);
/* Names of dropped members go into a header: what is no word (cm_str_is_word()) of that length is only told to be there, as "unknown". */
#define CM_FIELD_NAME_MAX 64
/* The longest name of a function that every provider takes; it is a word, too. */
#define CM_TOOL_NAME_MAX 64
/* The members of a body that are read, in the order of `names`; null counts as absent. One that
 * occurs twice is refused: parsers differ on which of them counts. */
int cm_field_members(yyjson_val *root, const struct cm_str *names, size_t n, yyjson_val **out,
                     struct cm_err *err);

/* Readers: NULL and JSON null leave *out alone and succeed. */
int cm_field_str(yyjson_val *v, const struct cm_spot *at, struct cm_str *out, struct cm_err *err);
int cm_field_bool(yyjson_val *v, const struct cm_spot *at, bool *out, struct cm_err *err);
int cm_field_int(yyjson_val *v, const struct cm_spot *at, int64_t min, int64_t max, int64_t *out,
                 struct cm_err *err);
int cm_field_num(yyjson_val *v, const struct cm_spot *at, double min, double max, double *out,
                 struct cm_err *err);
/* The value is an array or an object, or absent. */
int cm_field_is_array(yyjson_val *v, const struct cm_spot *at, struct cm_err *err);
int cm_field_is_object(yyjson_val *v, const struct cm_spot *at, struct cm_err *err);

/* The same for a member that must be there. */
int cm_field_need_str(yyjson_val *v, const struct cm_spot *at, struct cm_str *out,
                      struct cm_err *err);

/* Compact JSON text of a value, in the arena; empty for NULL. */
struct cm_str cm_field_json(struct cm_arena *arena, const yyjson_val *v);

/* An address of a picture or a file: "data:image/png;base64,…" is split into media type and
 * data, http(s) stays whole; base64 alone is taken where its first bytes tell a kind. */
int cm_field_url(struct cm_str url, const struct cm_spot *at, struct cm_part *part,
                 struct cm_err *err);

#endif
