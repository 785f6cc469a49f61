/* Text encodings of bytes. */
#include "chatmux/base/enc.h"

void cm_hex(struct cm_buf *out, struct cm_str bytes)
{
    static const char digits[] = "0123456789abcdef";
    char *at = cm_buf_reserve(out, bytes.n * 2);

    if (!at)
        return;
    for (size_t i = 0; i < bytes.n; i++) {
        unsigned char b = (unsigned char)bytes.p[i];

        *at++ = digits[b >> 4];
        *at++ = digits[b & 15];
    }
    out->n += bytes.n * 2;
}

static const char base64_alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base64url_alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void encode(struct cm_buf *out, struct cm_str bytes, const char *alphabet, bool padded)
{
    const unsigned char *p = (const unsigned char *)bytes.p;
    size_t rest = bytes.n % 3, whole = bytes.n - rest;
    size_t n = whole / 3 * 4 + (rest == 0 ? 0 : padded ? 4 : rest + 1);
    char *at = cm_buf_reserve(out, n);
    uint32_t v;

    if (!at)
        return;
    for (size_t i = 0; i < whole; i += 3, at += 4) {
        v = (uint32_t)p[i] << 16 | (uint32_t)p[i + 1] << 8 | p[i + 2];
        at[0] = alphabet[v >> 18];
        at[1] = alphabet[v >> 12 & 63];
        at[2] = alphabet[v >> 6 & 63];
        at[3] = alphabet[v & 63];
    }
    if (rest > 0) {
        v = (uint32_t)p[whole] << 16 | (rest > 1 ? (uint32_t)p[whole + 1] << 8 : 0);
        at[0] = alphabet[v >> 18];
        at[1] = alphabet[v >> 12 & 63];
        if (rest > 1)
            at[2] = alphabet[v >> 6 & 63];
        if (padded) {
            at[3] = '=';
            if (rest == 1)
                at[2] = '=';
        }
    }
    out->n += n;
}

void cm_base64(struct cm_buf *out, struct cm_str bytes)
{
    encode(out, bytes, base64_alphabet, true);
}

void cm_base64url(struct cm_buf *out, struct cm_str bytes)
{
    encode(out, bytes, base64url_alphabet, false);
}

/* 0 to 63, or -1. */
static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '-')
        return 62;
    return c == '/' || c == '_' ? 63 : -1;
}

int cm_base64_decode(struct cm_buf *out, struct cm_str text)
{
    char piece[768]; /* the length is only known at the end, and *out may have a tight limit */
    size_t n = 0, digits = 0, pads = 0;
    uint32_t v = 0;

    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        int value = base64_value(c);

        if (value < 0) {
            if (c == '=')
                pads++;
            else if (c != ' ' && c != '\t' && c != '\r' && c != '\n')
                return -1;
            continue;
        }
        if (pads > 0)
            return -1;
        v = v << 6 | (uint32_t)value;
        if (++digits % 4 != 0)
            continue;
        piece[n++] = (char)(v >> 16);
        piece[n++] = (char)(v >> 8);
        piece[n++] = (char)v;
        if (n == sizeof(piece)) {
            cm_buf_append(out, cm_str(piece, n));
            n = 0;
        }
    }
    if (digits % 4 == 1 || (pads > 0 && (digits % 4 == 0 || digits % 4 + pads != 4)))
        return -1;
    if (digits % 4 == 2) {
        piece[n++] = (char)(v >> 4);
    } else if (digits % 4 == 3) {
        piece[n++] = (char)(v >> 10);
        piece[n++] = (char)(v >> 2);
    }
    cm_buf_append(out, cm_str(piece, n));
    return out->failed ? -1 : 0;
}

static bool is_unreserved(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

void cm_percent(struct cm_buf *out, struct cm_str text)
{
    static const char digits[] = "0123456789ABCDEF"; /* RFC 3986 2.1 wants upper case */

    for (size_t i = 0; i < text.n; i++) {
        unsigned char b = (unsigned char)text.p[i];

        if (is_unreserved(text.p[i]))
            cm_buf_put(out, text.p[i]);
        else
            cm_buf_append(out, cm_str((char[]){'%', digits[b >> 4], digits[b & 15]}, 3));
    }
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int cm_percent_decode(struct cm_buf *out, struct cm_str text, bool plus)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];

        if (c == '+' && plus) {
            c = ' ';
        } else if (c == '%') {
            int hi = i + 2 < text.n ? hex_value(text.p[i + 1]) : -1;
            int lo = i + 2 < text.n ? hex_value(text.p[i + 2]) : -1;

            if (hi < 0 || lo < 0)
                return -1;
            c = (char)(hi << 4 | lo);
            i += 2;
        }
        cm_buf_put(out, c);
    }
    return out->failed ? -1 : 0;
}
