/* Byte slices: a pointer and a length, by value, owning nothing, without a NUL. Any thread. */
#ifndef CHATMUX_BASE_STR_H
#define CHATMUX_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cm_str {
    const char *p; /* NULL only when n is 0 */
    size_t n;
};

#define CM_S(literal) ((struct cm_str){"" literal, sizeof(literal) - 1})
#define CM_STR_NONE ((struct cm_str){NULL, 0})
/* For static tables, where a compound literal is no constant. */
#define CM_S_INIT(literal) {"" literal, sizeof(literal) - 1}

/* printf("model " CM_PRI, CM_ARG(model)); the argument is evaluated three times */
#define CM_PRI "%.*s"
#define CM_ARG(s) (int)(s).n, (s).n ? (s).p : ""

static inline struct cm_str cm_str(const char *p, size_t n)
{
    return (struct cm_str){p, n};
}

/* NULL gives the empty slice. */
static inline struct cm_str cm_str_of(const char *z)
{
    return (struct cm_str){z, z ? strlen(z) : 0};
}

static inline bool cm_str_eq(struct cm_str a, struct cm_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline struct cm_str cm_str_from(struct cm_str s, size_t offset)
{
    return offset >= s.n ? cm_str(s.p ? s.p + s.n : NULL, 0) : cm_str(s.p + offset, s.n - offset);
}

static inline struct cm_str cm_str_head(struct cm_str s, size_t n)
{
    return cm_str(s.p, n < s.n ? n : s.n);
}

bool cm_str_eq_nocase(struct cm_str a, struct cm_str b); /* ASCII letters only */
int cm_str_cmp(struct cm_str a, struct cm_str b);        /* by bytes, as memcmp */
bool cm_str_starts(struct cm_str s, struct cm_str prefix);
bool cm_str_starts_nocase(struct cm_str s, struct cm_str prefix);
bool cm_str_ends(struct cm_str s, struct cm_str suffix);
/* ASCII letters, digits, '_' and '-', from 1 to `max` of them: a name that stands anywhere without quotes. */
bool cm_str_is_word(struct cm_str s, size_t max);

/* Offset of the first occurrence, or SIZE_MAX. */
size_t cm_str_find(struct cm_str s, struct cm_str needle);
size_t cm_str_find_char(struct cm_str s, char c);
static inline bool cm_str_has(struct cm_str s, struct cm_str needle)
{
    return cm_str_find(s, needle) != SIZE_MAX;
}

/* Returns what stands before the first `c` and moves *s behind it; without a `c` all of it, and
 * *s becomes empty. */
struct cm_str cm_str_cut(struct cm_str *s, char c);

/* Without spaces, tabs, CR and LF at both ends. */
struct cm_str cm_str_trim(struct cm_str s);

/* Decimal digits only, no sign, no spaces; false and *out untouched when anything else stands
 * there or the value exceeds max. */
bool cm_str_to_u64(struct cm_str s, uint64_t max, uint64_t *out);

/* malloc'd, NUL-terminated; the caller frees. */
char *cm_str_dup(struct cm_str s);

/* Copies at most cap - 1 bytes and a NUL; returns how many bytes were copied. */
size_t cm_str_copy(char *dst, size_t cap, struct cm_str s);

#endif
