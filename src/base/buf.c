/* Growing byte buffer with a limit. */
#include "chatmux/base/buf.h"

#include "chatmux/base/arena.h"
#include "chatmux/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define FIRST_CAP 63 /* with the byte kept for a NUL a power of two, and so it stays when doubled */

void cm_buf_init(struct cm_buf *b, size_t limit)
{
    *b = (struct cm_buf){.limit = limit};
}

void cm_buf_clear(struct cm_buf *b)
{
    free(b->p);
    cm_buf_init(b, b->limit);
}

/* Makes room for n more bytes, or sets `failed`. */
static bool grow(struct cm_buf *b, size_t n)
{
    size_t limit = b->limit > 0 ? b->limit : SIZE_MAX / 4;
    size_t cap = b->cap > 0 ? b->cap : FIRST_CAP;

    if (b->failed || b->n > limit || n > limit - b->n) {
        b->failed = true;
        return false;
    }
    while (cap - b->n < n)
        cap = cap * 2 + 1;
    if (cap > limit)
        cap = limit;
    b->p = cm_realloc(b->p, cap + 1);
    b->cap = cap;
    return true;
}

static inline bool fits(struct cm_buf *b, size_t n)
{
    return (n <= b->cap - b->n && b->p && !b->failed) || grow(b, n);
}

void cm_buf_append(struct cm_buf *b, struct cm_str s)
{
    if (s.n == 0 || !fits(b, s.n))
        return;
    memcpy(b->p + b->n, s.p, s.n);
    b->n += s.n;
}

void cm_buf_put(struct cm_buf *b, char c)
{
    if (fits(b, 1))
        b->p[b->n++] = c;
}

void cm_buf_printf(struct cm_buf *b, const char *fmt, ...)
{
    size_t room = b->p ? b->cap - b->n + 1 : 0; /* the NUL has its place beyond cap */
    va_list ap, again;
    int n;

    if (b->failed)
        return;
    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(room > 0 ? b->p + b->n : NULL, room, fmt, ap);
    CM_ASSERT(n >= 0);
    if ((size_t)n >= room) {
        if (!grow(b, (size_t)n))
            goto out;
        vsnprintf(b->p + b->n, (size_t)n + 1, fmt, again);
    }
    b->n += (size_t)n;
out:
    va_end(again);
    va_end(ap);
}

void cm_buf_put_u64(struct cm_buf *b, uint64_t v)
{
    char digits[20];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    cm_buf_append(b, cm_str(digits + at, sizeof(digits) - at));
}

char *cm_buf_reserve(struct cm_buf *b, size_t n)
{
    return fits(b, n) ? b->p + b->n : NULL;
}

void cm_buf_consume(struct cm_buf *b, size_t n)
{
    if (n >= b->n) {
        b->n = 0;
        return;
    }
    if (n > 0)
        memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}

const char *cm_buf_z(struct cm_buf *b)
{
    if (!fits(b, 0))
        return NULL;
    b->p[b->n] = '\0';
    return b->p;
}

struct cm_str cm_buf_settle(struct cm_buf *b, struct cm_arena *arena)
{
    struct cm_str s = cm_arena_str(arena, cm_buf_str(b));

    cm_buf_clear(b);
    return s;
}
