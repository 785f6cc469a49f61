/* JSON text: strings, numbers and parsed values. */
#include "chatmux/codec/json.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"
#include "json_int.h"

#include <stdlib.h>

static bool must_escape(char c)
{
    return (unsigned char)c < 0x20 || c == '"' || c == '\\';
}

#define EACH_BYTE(byte) (UINT64_C(0x0101010101010101) * (byte))

/* True when none of eight bytes must be escaped. A byte is zero where subtracting 1 borrows into
 * its clear top bit; a borrow can only make a neighbour of a real hit look like one. */
static bool eight_are_plain(const char *p)
{
    uint64_t v, quote, slash, below_space;

    memcpy(&v, p, sizeof(v));
    quote = v ^ EACH_BYTE('"');
    slash = v ^ EACH_BYTE('\\');
    below_space = (v - EACH_BYTE(0x20)) & ~v;
    quote = (quote - EACH_BYTE(1)) & ~quote;
    slash = (slash - EACH_BYTE(1)) & ~slash;
    return ((below_space | quote | slash) & EACH_BYTE(0x80)) == 0;
}

static size_t plain_prefix(struct cm_str s)
{
    size_t i = 0;

    while (s.n - i >= 8 && eight_are_plain(s.p + i))
        i += 8;
    while (i < s.n && !must_escape(s.p[i]))
        i++;
    return i;
}

static void put_escape(struct cm_buf *out, char c)
{
    static const char short_forms[0x20] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    static const char hex[] = "0123456789abcdef";
    const unsigned char byte = (unsigned char)c;
    char text[6] = {'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 0xf]};
    size_t n = 6;

    if (byte >= 0x20 || short_forms[byte]) {
        text[1] = byte >= 0x20 ? c : short_forms[byte];
        n = 2;
    }
    cm_buf_append(out, cm_str(text, n));
}

static void put_escaped(struct cm_buf *out, struct cm_str s)
{
    for (;;) {
        size_t n = plain_prefix(s);

        cm_buf_append(out, cm_str_head(s, n));
        if (n == s.n)
            return;
        put_escape(out, s.p[n]);
        s = cm_str_from(s, n + 1);
    }
}

void cm_json_put_str(struct cm_buf *out, struct cm_str s)
{
    size_t valid;

    cm_buf_put(out, '"');
    while ((valid = cm_utf8_valid(s)) < s.n) {
        put_escaped(out, cm_str_head(s, valid));
        cm_buf_append(out, CM_S("\xEF\xBF\xBD"));
        s = cm_str_from(s, valid + 1);
    }
    put_escaped(out, s);
    cm_buf_put(out, '"');
}

void cm_json_put_z(struct cm_buf *out, const char *z)
{
    if (z)
        cm_json_put_str(out, cm_str_of(z));
    else
        cm_buf_append(out, CM_S("null"));
}

void cm_json_put_int(struct cm_buf *out, int64_t v)
{
    if (v < 0)
        cm_buf_put(out, '-');
    cm_buf_put_u64(out, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void cm_json_put_val(struct cm_buf *out, const yyjson_val *v)
{
    size_t n;
    char *text;

    if (!v) {
        cm_buf_append(out, CM_S("null"));
        return;
    }
    text = yyjson_val_write_opts(v, YYJSON_WRITE_NOFLAG, &cm_json_alc, &n, NULL);
    CM_ASSERT(text); /* what was parsed can be written: no NaN, no invalid UTF-8 */
    cm_buf_append(out, cm_str(text, n));
    free(text);
}
