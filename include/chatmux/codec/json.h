/* JSON: limits checked before memory is taken, parsing by yyjson, byte-preserving edits, writing.
 * Values are read with yyjson's own functions; this header adds what is needed around them. Any
 * thread. */
#ifndef CHATMUX_CODEC_JSON_H
#define CHATMUX_CODEC_JSON_H

#include "chatmux/base/buf.h"
#include "chatmux/base/err.h"

#include <yyjson.h>

struct cm_json_limits {
    size_t max_values;  /* values and keys together; yyjson takes 16 bytes for each */
    unsigned max_depth; /* at most CM_JSON_DEPTH_MAX */
};
#define CM_JSON_DEPTH_MAX 1024
/* Client bodies: 4 million values, depth 128. One streamed event: 200,000 values, depth 64. */
extern const struct cm_json_limits cm_json_limits_request, cm_json_limits_event;

/* One pass that counts values and depth without allocating; brackets and quotes must match, the
 * grammar is yyjson's business. CM_ERR_BAD_REQUEST names the limit and the byte position. */
int cm_json_scan(struct cm_str text, const struct cm_json_limits *limits, struct cm_err *err);

/* Scan and parse. NULL with CM_ERR_BAD_REQUEST "invalid JSON at line L, column C (byte N): why":
 * lines and columns count from 1, columns in characters, the byte is an offset from 0. Free with
 * yyjson_doc_free(). A lone surrogate escape or invalid UTF-8 is an error. The document does not
 * refer to `text`. */
yyjson_doc *cm_json_parse(struct cm_str text, const struct cm_json_limits *limits,
                          struct cm_err *err);

/* Strings of a value as a slice; empty for anything that is no string. Valid as long as the
 * document. */
struct cm_str cm_json_str(const yyjson_val *v);
/* Member of an object; NULL when absent or when obj is no object (or NULL). A member that is
 * JSON null is returned as such. */
yyjson_val *cm_json_get(const yyjson_val *obj, const char *key);
/* The same, but null counts as absent. */
yyjson_val *cm_json_opt(const yyjson_val *obj, const char *key);

/* One edit of an object's own text: `value` is JSON text that replaces the member's value or is
 * appended as a new member; empty removes it. */
struct cm_json_edit {
    struct cm_str key; /* plain, unescaped; of two edits with one key the first counts */
    struct cm_str value;
};
#define CM_JSON_EDITS_MAX 64

/* Appends `object` (valid JSON, an object, white space around allowed) to out with the edits
 * applied; every other byte stays as it was: order, spelling of numbers, white space, unknown
 * members. Keys are compared with their escapes resolved. Of a member that occurs more than once
 * the first is replaced and the others are removed, so that every parser reads the same value. A
 * member that is not there and is to be removed is no error. A removed member takes one comma
 * with it; a new one follows the last value. Linear time; nested objects are edited by splicing
 * cm_json_member() and passing the result as a value. -1: not an object, out is as before and
 * *err says where (CM_ERR_BAD_REQUEST). Nested values are only stepped over, not checked;
 * out->failed is the caller's to look at. */
int cm_json_splice(struct cm_str object, const struct cm_json_edit *edits, size_t n,
                   struct cm_buf *out, struct cm_err *err);

/* Value text of a top-level member as a slice of `object` (the first one of that name, escapes
 * in names resolved); empty when absent or when `object` is malformed up to there. */
struct cm_str cm_json_member(struct cm_str object, struct cm_str key);

/* The items of an array's own text, one by one; *at is 0 at first. 1: *item is a slice of `array`;
 * 0: there are no more; -1: malformed from here on. */
int cm_json_item(struct cm_str array, size_t *at, struct cm_str *item);

/* Writing. Strings are quoted and escaped (RFC 8259: control characters, quote, backslash); each
 * byte of invalid UTF-8 becomes U+FFFD. */
void cm_json_put_str(struct cm_buf *out, struct cm_str s);
void cm_json_put_z(struct cm_buf *out, const char *z); /* NULL gives null */
void cm_json_put_int(struct cm_buf *out, int64_t v);
/* Compact text of a parsed value; NULL gives null. */
void cm_json_put_val(struct cm_buf *out, const yyjson_val *v);

#endif
