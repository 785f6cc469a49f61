/* Memory that lives as long as one exchange, given back at once. One thread at a time. */
#ifndef CHATMUX_BASE_ARENA_H
#define CHATMUX_BASE_ARENA_H

#include "chatmux/base/str.h"

struct cm_arena_block;
struct cm_arena_defer;

/* Zeroed memory is an empty arena. */
struct cm_arena {
    struct cm_arena_block *blocks; /* newest first; owned */
    char *next, *end;              /* free part of the newest block */
    struct cm_arena_defer *defers; /* newest first */
    bool
        secret; /* set before the first use: its memory is that of base/secret, in no core dump and wiped at the end */
};

/* Runs the deferred calls, newest first, then frees everything. The arena is empty and usable
 * again. */
void cm_arena_clear(struct cm_arena *a);

/* Aligned for any type. Never NULL. cm_arena_zalloc() and cm_arena_calloc() zero; an overflowing
 * product ends the process. */
void *cm_arena_alloc(struct cm_arena *a, size_t n);
void *cm_arena_zalloc(struct cm_arena *a, size_t n);
void *cm_arena_calloc(struct cm_arena *a, size_t count, size_t n);
#define CM_ARENA_NEW(a, type) ((type *)cm_arena_zalloc((a), sizeof(type)))
#define CM_ARENA_ARRAY(a, type, count) ((type *)cm_arena_calloc((a), (size_t)(count), sizeof(type)))

struct cm_str cm_arena_str(struct cm_arena *a, struct cm_str s); /* copy; a NUL follows it */
char *cm_arena_z(struct cm_arena *a, struct cm_str s);           /* copy as a C string */
struct cm_str cm_arena_join(struct cm_arena *a, struct cm_str x,
                            struct cm_str y); /* one after the other; a NUL follows */
struct cm_str cm_arena_printf(struct cm_arena *a, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Ties another resource to the arena: fn(arg) runs in cm_arena_clear(). */
void cm_arena_defer(struct cm_arena *a, void (*fn)(void *arg), void *arg);

#endif
