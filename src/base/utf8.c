/* UTF-8: checking, cleaning, counting, cutting. */
#include "chatmux/base/utf8.h"

/* Bytes a sequence with this first byte has; 0 = no sequence starts so. C0, C1 and F5.. only
 * begin overlong or too large ones. */
static size_t length_of(unsigned char first)
{
    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/* How many of the n bytes (at least 1) at p agree with a well-formed sequence (RFC 3629 section
 * 4); *need is its length. */
static size_t match(const unsigned char *p, size_t n, size_t *need)
{
    unsigned char lo = 0x80, hi = 0xbf; /* range of the second byte */
    size_t i;

    *need = length_of(p[0]);
    if (*need == 0)
        return 0;
    switch (p[0]) {
    case 0xe0:
        lo = 0xa0;
        break;
    case 0xed:
        hi = 0x9f;
        break;
    case 0xf0:
        lo = 0x90;
        break;
    case 0xf4:
        hi = 0x8f;
        break;
    default:
        break;
    }
    for (i = 1; i < *need && i < n; i++) {
        if (p[i] < lo || p[i] > hi)
            break;
        lo = 0x80;
        hi = 0xbf;
    }
    return i;
}

/* Length of the valid sequence at p, or 0. */
static size_t sequence(const unsigned char *p, size_t n)
{
    size_t need, got = match(p, n, &need);

    return got == need ? need : 0;
}

size_t cm_utf8_valid(struct cm_str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    size_t i = 0;

    while (i < s.n) {
        uint64_t word;
        size_t step;

        if (p[i] < 0x80) {
            while (s.n - i >= sizeof(word)) {
                memcpy(&word, p + i, sizeof(word));
                if (word & 0x8080808080808080)
                    break;
                i += sizeof(word);
            }
            while (i < s.n && p[i] < 0x80)
                i++;
            continue;
        }
        step = sequence(p + i, s.n - i);
        if (step == 0)
            break;
        i += step;
    }
    return i;
}

size_t cm_utf8_tail(struct cm_str s)
{
    const unsigned char *p = (const unsigned char *)s.p;

    for (size_t back = 1; back <= 3 && back <= s.n; back++) {
        size_t need, got;

        if ((p[s.n - back] & 0xc0) == 0x80)
            continue;
        got = match(p + s.n - back, back, &need);
        return got == back && need > back ? back : 0;
    }
    return 0;
}

void cm_utf8_clean(struct cm_buf *out, struct cm_str s)
{
    for (;;) {
        size_t good = cm_utf8_valid(s);

        cm_buf_append(out, cm_str_head(s, good));
        if (good == s.n)
            return;
        cm_buf_append(out, CM_S("\xef\xbf\xbd"));
        s = cm_str_from(s, good + 1);
    }
}

size_t cm_utf8_count(struct cm_str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    size_t count = 0;

    for (size_t i = 0; i < s.n; count++) {
        size_t step = sequence(p + i, s.n - i);

        i += step > 0 ? step : 1;
    }
    return count;
}

struct cm_str cm_utf8_head(struct cm_str s, size_t max_bytes)
{
    const unsigned char *p = (const unsigned char *)s.p;

    if (s.n <= max_bytes)
        return s;
    for (size_t back = 0; back <= 3 && back <= max_bytes; back++) {
        size_t at = max_bytes - back;

        if ((p[at] & 0xc0) != 0x80)
            return cm_str_head(s, sequence(p + at, s.n - at) > back ? at : max_bytes);
    }
    return cm_str_head(s, max_bytes); /* stray continuation bytes: there is no character to spare */
}

void cm_utf8_put(struct cm_buf *out, uint32_t c)
{
    char b[4];

    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        c = 0xfffd;
    if (c < 0x80) {
        cm_buf_put(out, (char)c);
    } else if (c < 0x800) {
        b[0] = (char)(0xc0 | c >> 6);
        b[1] = (char)(0x80 | (c & 0x3f));
        cm_buf_append(out, cm_str(b, 2));
    } else if (c < 0x10000) {
        b[0] = (char)(0xe0 | c >> 12);
        b[1] = (char)(0x80 | (c >> 6 & 0x3f));
        b[2] = (char)(0x80 | (c & 0x3f));
        cm_buf_append(out, cm_str(b, 3));
    } else {
        b[0] = (char)(0xf0 | c >> 18);
        b[1] = (char)(0x80 | (c >> 12 & 0x3f));
        b[2] = (char)(0x80 | (c >> 6 & 0x3f));
        b[3] = (char)(0x80 | (c & 0x3f));
        cm_buf_append(out, cm_str(b, 4));
    }
}
