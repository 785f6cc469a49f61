/* Growing byte buffer with a limit that remembers that it was reached. One thread at a time. */
#ifndef CHATMUX_BASE_BUF_H
#define CHATMUX_BASE_BUF_H

#include "chatmux/base/str.h"

struct cm_arena;

/* Zeroed memory is an empty buffer without a limit. An append that would pass the limit changes
 * nothing and sets `failed`; later appends change nothing either: append ten times, check once. */
struct cm_buf {
    char *p;      /* owned; NULL while nothing was ever appended */
    size_t n;     /* bytes in use */
    size_t cap;   /* bytes that fit; one more is allocated, for a NUL */
    size_t limit; /* 0 = none; set before the first append */
    bool failed;  /* an append would have passed the limit; sticky until cm_buf_reset() */
};

void cm_buf_init(struct cm_buf *b, size_t limit);
void cm_buf_clear(struct cm_buf *b); /* frees; empty and usable again, with its limit */
static inline void cm_buf_reset(struct cm_buf *b)
{
    b->n = 0;
    b->failed = false;
}

void cm_buf_append(struct cm_buf *b, struct cm_str s); /* s must not lie in b itself */
void cm_buf_put(struct cm_buf *b, char c);
void cm_buf_printf(struct cm_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cm_buf_put_u64(struct cm_buf *b, uint64_t v); /* decimal */

/* Room for n more bytes behind b->p + b->n, which the caller fills and counts into b->n. NULL (and
 * `failed`) when the limit forbids it. */
char *cm_buf_reserve(struct cm_buf *b, size_t n);

/* Drops n bytes from the front. */
void cm_buf_consume(struct cm_buf *b, size_t n);

static inline struct cm_str cm_buf_str(const struct cm_buf *b)
{
    return cm_str(b->p, b->n);
}

/* Appends a NUL that is not counted, so that b->p is a C string. NULL when `failed`. */
const char *cm_buf_z(struct cm_buf *b);

/* Moves what was written into the arena; the buffer is as after cm_buf_clear(). */
struct cm_str cm_buf_settle(struct cm_buf *b, struct cm_arena *arena);

#endif
