/* Byte slices: comparing, searching, cutting. */
#include "chatmux/base/str.h"

#include "chatmux/base/mem.h"

static unsigned char lower(char c)
{
    unsigned char u = (unsigned char)c;

    return u >= 'A' && u <= 'Z' ? (unsigned char)(u + ('a' - 'A')) : u;
}

bool cm_str_eq_nocase(struct cm_str a, struct cm_str b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++) {
        if (lower(a.p[i]) != lower(b.p[i]))
            return false;
    }
    return true;
}

int cm_str_cmp(struct cm_str a, struct cm_str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n > 0 ? memcmp(a.p, b.p, n) : 0;

    return order != 0 ? order : (a.n > b.n) - (a.n < b.n);
}

bool cm_str_starts(struct cm_str s, struct cm_str prefix)
{
    return s.n >= prefix.n && cm_str_eq(cm_str_head(s, prefix.n), prefix);
}

bool cm_str_starts_nocase(struct cm_str s, struct cm_str prefix)
{
    return s.n >= prefix.n && cm_str_eq_nocase(cm_str_head(s, prefix.n), prefix);
}

bool cm_str_ends(struct cm_str s, struct cm_str suffix)
{
    return s.n >= suffix.n && cm_str_eq(cm_str_from(s, s.n - suffix.n), suffix);
}

bool cm_str_is_word(struct cm_str s, size_t max)
{
    for (size_t i = 0; i < s.n; i++) {
        const char c = s.p[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '-'))
            return false;
    }
    return s.n > 0 && s.n <= max;
}

size_t cm_str_find(struct cm_str s, struct cm_str needle)
{
    const char *at;

    if (needle.n == 0)
        return 0;
    if (s.n < needle.n)
        return SIZE_MAX;
    at = memmem(s.p, s.n, needle.p, needle.n);
    return at ? (size_t)(at - s.p) : SIZE_MAX;
}

size_t cm_str_find_char(struct cm_str s, char c)
{
    const char *at = s.n > 0 ? memchr(s.p, c, s.n) : NULL;

    return at ? (size_t)(at - s.p) : SIZE_MAX;
}

struct cm_str cm_str_cut(struct cm_str *s, char c)
{
    struct cm_str whole = *s;
    size_t at = cm_str_find_char(whole, c);

    if (at == SIZE_MAX) {
        *s = cm_str_from(whole, whole.n);
        return whole;
    }
    *s = cm_str_from(whole, at + 1);
    return cm_str_head(whole, at);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct cm_str cm_str_trim(struct cm_str s)
{
    while (s.n > 0 && is_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

bool cm_str_to_u64(struct cm_str s, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;

    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned digit = (unsigned char)s.p[i] - (unsigned)'0';

        if (digit > 9 || v > max / 10 || v * 10 > max - digit || digit > max)
            return false;
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}

char *cm_str_dup(struct cm_str s)
{
    char *z = cm_alloc(s.n + 1);

    cm_str_copy(z, s.n + 1, s);
    return z;
}

size_t cm_str_copy(char *dst, size_t cap, struct cm_str s)
{
    size_t n;

    if (cap == 0)
        return 0;
    n = s.n < cap ? s.n : cap - 1;
    if (n > 0)
        memcpy(dst, s.p, n);
    dst[n] = '\0';
    return n;
}
