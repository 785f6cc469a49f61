/* Memory of one exchange: blocks that double from 1 KiB to 64 KiB, so that an idle stream costs
 * little and a busy one few calls. */
#include "chatmux/base/arena.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/secret.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define ALIGNMENT _Alignof(max_align_t)
#define FIRST_SIZE 992u /* 1 KiB with the headers of block and allocator */
#define LAST_SIZE (FIRST_SIZE * 64)

struct cm_arena_block {
    struct cm_arena_block *older;
    size_t size; /* bytes of data; 0 = holds one large allocation, does not count for the next */
    _Alignas(max_align_t) char data[];
};

struct cm_arena_defer {
    struct cm_arena_defer *older;
    void (*fn)(void *arg);
    void *arg;
};

void cm_arena_clear(struct cm_arena *a)
{
    struct cm_arena_defer *d;
    struct cm_arena_block *b;

    while ((d = a->defers)) { /* a deferred call may defer another */
        a->defers = d->older;
        d->fn(d->arg);
    }
    while ((b = a->blocks)) {
        a->blocks = b->older;
        if (a->secret)
            cm_secret_free(b);
        else
            free(b);
    }
    *a = (struct cm_arena){.secret = a->secret};
}

static struct cm_arena_block *block_new(const struct cm_arena *a, size_t n)
{
    size_t bytes = sizeof(struct cm_arena_block) + n;

    return a->secret ? cm_secret_alloc(bytes) : cm_alloc(bytes);
}

static size_t next_size(const struct cm_arena *a)
{
    size_t size = a->blocks ? a->blocks->size * 2 : 0;

    if (size < FIRST_SIZE)
        return FIRST_SIZE;
    return size < LAST_SIZE ? size : LAST_SIZE;
}

/* n is aligned and does not fit into the newest block. */
static void *alloc_slow(struct cm_arena *a, size_t n)
{
    size_t size = next_size(a);
    struct cm_arena_block *b;

    if (n <= size) {
        b = block_new(a, size);
        b->size = size;
        b->older = a->blocks;
        a->blocks = b;
        a->next = b->data + n;
        a->end = b->data + size;
        return b->data;
    }
    /* Goes behind the newest block, whose free part stays in use. */
    b = block_new(a, n);
    b->size = 0;
    if (a->blocks) {
        b->older = a->blocks->older;
        a->blocks->older = b;
    } else {
        b->older = NULL;
        a->blocks = b;
    }
    return b->data;
}

void *cm_arena_alloc(struct cm_arena *a, size_t n)
{
    char *p = a->next;

    CM_ASSERT(n <= SIZE_MAX / 2);
    n = n > 0 ? (n + ALIGNMENT - 1) & ~(ALIGNMENT - 1) : ALIGNMENT;
    if (n > (uintptr_t)a->end - (uintptr_t)p)
        return alloc_slow(a, n);
    a->next = p + n;
    return p;
}

void *cm_arena_zalloc(struct cm_arena *a, size_t n)
{
    return memset(cm_arena_alloc(a, n), 0, n);
}

void *cm_arena_calloc(struct cm_arena *a, size_t count, size_t n)
{
    CM_ASSERT(n == 0 || count <= SIZE_MAX / n);
    return cm_arena_zalloc(a, count * n);
}

char *cm_arena_z(struct cm_arena *a, struct cm_str s)
{
    char *z = cm_arena_alloc(a, s.n + 1);

    cm_str_copy(z, s.n + 1, s);
    return z;
}

struct cm_str cm_arena_str(struct cm_arena *a, struct cm_str s)
{
    return cm_str(cm_arena_z(a, s), s.n);
}

struct cm_str cm_arena_join(struct cm_arena *a, struct cm_str x, struct cm_str y)
{
    char *p = cm_arena_alloc(a, x.n + y.n + 1);

    if (x.n > 0)
        memcpy(p, x.p, x.n);
    if (y.n > 0)
        memcpy(p + x.n, y.p, y.n);
    p[x.n + y.n] = '\0';
    return cm_str(p, x.n + y.n);
}

struct cm_str cm_arena_printf(struct cm_arena *a, const char *fmt, ...)
{
    char few[256];
    va_list ap, again;
    struct cm_str s;
    char *p;
    int n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(few, sizeof(few), fmt, ap);
    CM_ASSERT(n >= 0);
    p = cm_arena_alloc(a, (size_t)n + 1);
    s = cm_str(p, (size_t)n);
    if (s.n < sizeof(few))
        memcpy(p, few, s.n + 1);
    else
        vsnprintf(p, s.n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    return s;
}

void cm_arena_defer(struct cm_arena *a, void (*fn)(void *arg), void *arg)
{
    struct cm_arena_defer *d = cm_arena_alloc(a, sizeof(*d));

    *d = (struct cm_arena_defer){.older = a->defers, .fn = fn, .arg = arg};
    a->defers = d;
}
