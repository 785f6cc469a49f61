/* What the JSON sources share: byte classes, the way over a string, errors with a position. */
#ifndef CODEC_JSON_INT_H
#define CODEC_JSON_INT_H

#include "chatmux/codec/json.h"

enum json_class {
    JSON_PLAIN, /* part of a number or a literal, or of nothing valid */
    JSON_SPACE,
    JSON_MARK, /* comma, colon */
    JSON_QUOTE,
    JSON_OPEN, /* brace, bracket */
    JSON_CLOSE
};
extern const unsigned char cm_json_classes[256];

static inline enum json_class json_class_of(char c)
{
    return (enum json_class)cm_json_classes[(unsigned char)c];
}

/* `at` stands behind an opening quote. Offset behind the closing one, or 0 when there is none. */
size_t cm_json_string_end(struct cm_str text, size_t at);

struct json_trouble {
    size_t at;       /* offset */
    const char *why; /* literal; NULL = none */
};

/* CM_ERR_BAD_REQUEST "invalid JSON at line L, column C (byte N): why". Returns -1. */
int cm_json_fail_at(struct cm_str text, struct json_trouble trouble, struct cm_err *err);

/* cm_json_scan() that fails only for a limit and reports quotes and brackets that do not match
 * in *trouble. Stops at the first of either. */
int cm_json_measure(struct cm_str text, const struct cm_json_limits *limits,
                    struct json_trouble *trouble, struct cm_err *err);

/* yyjson on our allocators, which end the process instead of returning NULL. */
extern const yyjson_alc cm_json_alc;

#endif
