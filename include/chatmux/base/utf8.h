/* UTF-8 (RFC 3629: no surrogates, nothing above U+10FFFF, shortest forms). Any thread. */
#ifndef CHATMUX_BASE_UTF8_H
#define CHATMUX_BASE_UTF8_H

#include "chatmux/base/buf.h"

/* Length of the valid prefix; equals s.n when all is valid. */
size_t cm_utf8_valid(struct cm_str s);

/* Bytes at the end that begin a sequence which is not complete yet (0 to 3): keep them for the
 * next piece of a stream. */
size_t cm_utf8_tail(struct cm_str s);

/* Appends s with every invalid byte replaced by U+FFFD. */
void cm_utf8_clean(struct cm_buf *out, struct cm_str s);

size_t cm_utf8_count(struct cm_str s); /* code points; invalid bytes count as one each */

/* At most max_bytes of s, not cutting a character. */
struct cm_str cm_utf8_head(struct cm_str s, size_t max_bytes);

void cm_utf8_put(struct cm_buf *out, uint32_t code_point); /* an invalid one becomes U+FFFD */

#endif
