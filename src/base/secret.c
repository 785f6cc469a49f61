/* Blocks of a few sizes out of mapped chunks; those that are free are zero and hang on a list of their size: a few on one of the thread that gave them
 * back, which needs no lock, the others on one for all. */
#include "chatmux/base/secret.h"

#include "chatmux/base/mem.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define ON_HEAP true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ON_HEAP true
#endif
#endif
#ifndef ON_HEAP
#define ON_HEAP false
#endif

#define CHUNK_BYTES ((size_t)256 << 10) /* addresses; the kernel fills in what is written to */
/* Sizes of blocks: 64, 80, 96, 112, 128, 160, … 64 KiB; what is larger is mapped by itself. */
#define CLASS_MIN_BITS 6
#define CLASS_MAX_BITS 16
#define CLASSES ((CLASS_MAX_BITS - CLASS_MIN_BITS) * 4 + 1)
#define NEAR_BYTES ((size_t)16 << 10) /* of one size, that a thread keeps for itself */

/* Stands before every block. */
struct head {
    size_t n;          /* bytes that were asked for; the rest of the block is never written to */
    struct head *next; /* while it is free */
};
_Static_assert(sizeof(struct head) % _Alignof(max_align_t) == 0, "what follows is aligned");

static struct {
    pthread_mutex_t lock;
    struct head *free[CLASSES];
    size_t n[CLASSES],
        least[CLASSES]; /* how many those are, and were at least since the last trim */
    char *next, *end;   /* the chunk that blocks are cut from */
} store = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local struct {
    struct head *free[CLASSES];
    unsigned n[CLASSES];
} near;

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CM_ASSERT(p != MAP_FAILED);
    (void)madvise(p, bytes, MADV_DONTDUMP); /* without it there is only the limit on cores */
    return p;
}

/* CLASSES: mapped by itself. */
static unsigned class_of(size_t bytes)
{
    unsigned bits, quarter;

    if (bytes <= (size_t)1 << CLASS_MIN_BITS)
        return 0;
    bits = (unsigned)(63 - __builtin_clzll(bytes - 1));
    quarter = (unsigned)((bytes - 1 - ((size_t)1 << bits)) >> (bits - 2));
    return bits < CLASS_MAX_BITS ? (bits - CLASS_MIN_BITS) * 4 + quarter + 1 : CLASSES;
}

static size_t class_bytes(unsigned class)
{
    return (size_t)(4 + class % 4) << (CLASS_MIN_BITS - 2 + class / 4);
}

static struct head *take(unsigned class)
{
    size_t bytes = class_bytes(class);
    struct head *h = near.free[class];

    if (h) {
        near.free[class] = h->next;
        near.n[class]--;
        return h;
    }
    pthread_mutex_lock(&store.lock);
    h = store.free[class];
    if (h) {
        store.free[class] = h->next;
        if (--store.n[class] < store.least[class])
            store.least[class] = store.n[class];
    } else {
        if ((size_t)(store.end - store.next) < bytes) { /* the rest is smaller than a large block */
            store.next = map(CHUNK_BYTES);
            store.end = store.next + CHUNK_BYTES;
        }
        h = (struct head *)(void *)store.next;
        store.next += bytes;
    }
    pthread_mutex_unlock(&store.lock);
    return h;
}

static void give(unsigned class, struct head *h)
{
    if (near.n[class] < NEAR_BYTES / class_bytes(class)) {
        h->next = near.free[class];
        near.free[class] = h;
        near.n[class]++;
        return;
    }
    pthread_mutex_lock(&store.lock);
    h->next = store.free[class];
    store.free[class] = h;
    store.n[class]++;
    pthread_mutex_unlock(&store.lock);
}

/* The whole pages behind the head of a free block; they read as zero afterwards, as before. */
static void give_pages_back(struct head *h, size_t bytes, size_t page)
{
    const uintptr_t from = ((uintptr_t)(h + 1) + page - 1) & ~(page - 1),
                    to = ((uintptr_t)h + bytes) & ~(page - 1);

    if (h->n > 0 && to > from)
        (void)madvise((char *)from, to - from, MADV_DONTNEED);
    h->n = 0; /* they are gone already */
}

void cm_secret_trim(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);

    pthread_mutex_lock(&store.lock);
    for (unsigned class = 0; class < CLASSES; class ++) {
        size_t used = store.n[class] - store.least[class]; /* those on top: the list is a stack */

        store.least[class] = store.n[class];
        if (class_bytes(class) < 2 * page)
            continue;
        for (struct head *h = store.free[class]; h; h = h->next) {
            if (used > 0)
                used--;
            else
                give_pages_back(h, class_bytes(class), page);
        }
    }
    pthread_mutex_unlock(&store.lock);
}

void *cm_secret_alloc(size_t n)
{
    size_t bytes = n + sizeof(struct head);
    unsigned class = class_of(bytes);
    struct head *h;

    CM_ASSERT(bytes > n);
    if (ON_HEAP)
        h = cm_calloc(1, bytes);
    else
        h = class < CLASSES ? take(class) : map(bytes);
    h->n = n;
    return h + 1;
}

size_t cm_secret_size(const void *p)
{
    return ((const struct head *)p - 1)->n;
}

void cm_secret_free(void *p)
{
    struct head *h = p ? (struct head *)p - 1 : NULL;
    unsigned class;

    if (!h)
        return;
    cm_wipe(p, h->n);
    class = class_of(h->n + sizeof(*h));
    if (ON_HEAP) {
        free(h);
    } else if (class == CLASSES) {
        munmap(h, h->n + sizeof(*h));
    } else {
        give(class, h);
    }
}

struct cm_str cm_secret_dup(struct cm_str s)
{
    char *copy = cm_secret_alloc(s.n + 1);

    if (s.n > 0)
        memcpy(copy, s.p, s.n);
    return cm_str(copy, s.n);
}

struct cm_str cm_secret_in(struct cm_arena *arena, struct cm_str s)
{
    struct cm_str copy = cm_secret_dup(s);

    cm_arena_defer(arena, cm_secret_free, (void *)(uintptr_t)copy.p);
    return copy;
}

void cm_secret_hide_environment(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    for (char **v = environ; v && *v; v++) {
        uintptr_t from = (uintptr_t)*v & ~(page - 1), to = (uintptr_t)*v + strlen(*v) + 1;

        (void)madvise((char *)from, to - from, MADV_DONTDUMP);
    }
}

void cm_secret_forbid_cores(void)
{
    struct rlimit limit;

    /* core(5): a limit of 0 does not stop a pipe; 1 stops both, as no core is so small. */
    if (getrlimit(RLIMIT_CORE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max < 1 ? 0 : 1;
    (void)setrlimit(RLIMIT_CORE, &limit);
}
