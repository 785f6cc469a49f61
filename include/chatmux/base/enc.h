/* Text encodings of bytes: hex, base64, percent. Any thread. */
#ifndef CHATMUX_BASE_ENC_H
#define CHATMUX_BASE_ENC_H

#include "chatmux/base/buf.h"

void cm_hex(struct cm_buf *out, struct cm_str bytes); /* lower case */

/* RFC 4648 section 4 (padded) and section 5 (url: -_ and no padding). */
void cm_base64(struct cm_buf *out, struct cm_str bytes);
void cm_base64url(struct cm_buf *out, struct cm_str bytes);

/* Accepts both alphabets, with or without padding, and white space between; -1 on anything else
 * and when *out reaches its limit (out may hold a part). Unused bits of the last digit are
 * ignored. */
int cm_base64_decode(struct cm_buf *out, struct cm_str text);

/* Encodes every byte but A-Z a-z 0-9 - . _ ~ (RFC 3986 unreserved). */
void cm_percent(struct cm_buf *out, struct cm_str text);

/* %XX only; `plus` turns + into a space as forms do. -1 on a broken sequence and when *out
 * reaches its limit (out may hold a part). */
int cm_percent_decode(struct cm_buf *out, struct cm_str text, bool plus);

#endif
