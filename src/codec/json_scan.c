/* JSON before parsing: how many values, how deep, do quotes and brackets match. Allocates
 * nothing. */
#include "chatmux/codec/json.h"

#include "chatmux/base/mem.h"
#include "json_int.h"

const struct cm_json_limits cm_json_limits_request = {.max_values = 4000000, .max_depth = 128};
const struct cm_json_limits cm_json_limits_event = {.max_values = 200000, .max_depth = 64};

const unsigned char cm_json_classes[256] = {
    [' '] = JSON_SPACE, ['\t'] = JSON_SPACE, ['\n'] = JSON_SPACE, ['\r'] = JSON_SPACE,
    [','] = JSON_MARK,  [':'] = JSON_MARK,   ['"'] = JSON_QUOTE,  ['{'] = JSON_OPEN,
    ['['] = JSON_OPEN,  ['}'] = JSON_CLOSE,  [']'] = JSON_CLOSE,
};

size_t cm_json_string_end(struct cm_str text, size_t at)
{
    const char *p = text.p + at, *end = text.p + text.n;

    while ((p = memchr(p, '"', (size_t)(end - p)))) {
        const char *slash = p;

        while (slash[-1] == '\\') /* the opening quote ends the run at the latest */
            slash--;
        p++;
        if ((p - 1 - slash) % 2 == 0)
            return (size_t)(p - text.p);
    }
    return 0;
}

/* Lines and columns count from 1, columns in characters; the byte is an offset from 0. */
int cm_json_fail_at(struct cm_str text, struct json_trouble trouble, struct cm_err *err)
{
    size_t line = 1, column = 1;

    for (size_t i = 0; i < trouble.at && i < text.n; i++) {
        if (text.p[i] == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)text.p[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    return cm_fail(err, CM_ERR_BAD_REQUEST, "invalid JSON at line %zu, column %zu (byte %zu): %s",
                   line, column, trouble.at, trouble.why);
}

/* NULL when the bracket at hand closes the innermost open one. */
static const char *why_not_closed(char closer, const char *closers, unsigned depth)
{
    if (depth == 0)
        return "this bracket closes nothing";
    if (closer == closers[depth - 1])
        return NULL;
    return closer == ']' ? "']' where '}' must end the object" : "'}' where ']' must end the array";
}

int cm_json_measure(struct cm_str text, const struct cm_json_limits *limits,
                    struct json_trouble *trouble, struct cm_err *err)
{
    char closers[CM_JSON_DEPTH_MAX];
    unsigned depth = 0;
    size_t values = 0, at = 0;

    CM_ASSERT(limits->max_depth <= CM_JSON_DEPTH_MAX);
    *trouble = (struct json_trouble){0, NULL};
    while (at < text.n) {
        size_t next = at + 1;

        switch (json_class_of(text.p[at])) {
        case JSON_SPACE:
        case JSON_MARK:
            at = next;
            continue;
        case JSON_CLOSE:
            *trouble = (struct json_trouble){at, why_not_closed(text.p[at], closers, depth)};
            if (trouble->why)
                return 0;
            depth--;
            at = next;
            continue;
        case JSON_OPEN:
            if (depth == limits->max_depth)
                return cm_fail(err, CM_ERR_BAD_REQUEST,
                               "JSON is nested deeper than %u levels at byte %zu",
                               limits->max_depth, at);
            closers[depth++] = text.p[at] == '{' ? '}' : ']';
            break;
        case JSON_QUOTE:
            next = cm_json_string_end(text, next);
            if (next == 0) {
                *trouble = (struct json_trouble){at, "the string that begins here has no end"};
                return 0;
            }
            break;
        case JSON_PLAIN:
            while (next < text.n && json_class_of(text.p[next]) == JSON_PLAIN)
                next++;
            break;
        }
        if (++values > limits->max_values)
            return cm_fail(err, CM_ERR_BAD_REQUEST,
                           "JSON has more than %zu values (the limit is passed at byte %zu)",
                           limits->max_values, at);
        at = next;
    }
    if (depth > 0)
        *trouble = (struct json_trouble){text.n, closers[depth - 1] == '}'
                                                     ? "the text ends where '}' is missing"
                                                     : "the text ends where ']' is missing"};
    return 0;
}

int cm_json_scan(struct cm_str text, const struct cm_json_limits *limits, struct cm_err *err)
{
    struct json_trouble trouble;

    if (cm_json_measure(text, limits, &trouble, err))
        return -1;
    return trouble.why ? cm_json_fail_at(text, trouble, err) : 0;
}
