/* HTTP header fields as name and value slices, and what several modules read from them. Any
 * thread. */
#ifndef CHATMUX_BASE_HEADER_H
#define CHATMUX_BASE_HEADER_H

#include "chatmux/base/str.h"

struct cm_header {
    struct cm_str name, value;
};

/* Value of the first header of that name (ASCII case folded), empty when absent. */
struct cm_str cm_header_find(const struct cm_header *headers, size_t n, struct cm_str name);

/* Seconds to wait as the answer tells: retry-after-ms (rounded up), else Retry-After as a number or
 * an HTTP date. 0 = not told; at most 30 days. */
int cm_retry_after_s(const struct cm_header *headers, size_t n, int64_t now_unix_ms);

/* RFC 9110 IMF-fixdate: "Sun, 06 Nov 1994 08:49:37 GMT", 29 bytes and a NUL. */
#define CM_HTTP_DATE_CAP 30
void cm_http_date(int64_t unix_s, char out[CM_HTTP_DATE_CAP]);
/* The three forms of RFC 9110 5.6.7; -1 when it is none of them. */
int cm_http_date_parse(struct cm_str text, int64_t *unix_s);

/* A header name is a token; a value has no CR, LF, NUL or other control characters but tab. */
bool cm_header_name_ok(struct cm_str name);
bool cm_header_value_ok(struct cm_str value);

#endif
