/* Which credential a conversation stays with: a bounded table, the least recently used conversation is forgotten first. */
#include "pool_int.h"

#include <stdlib.h>

#define CONVERSATIONS 65536u
#define TTL_MS HOUR_MS

struct affinity {
    uint32_t n;              /* entries in use: 1 … n */
    uint32_t newest, oldest; /* 0 = none */
    uint32_t head[CONVERSATIONS];
    struct binding entry[CONVERSATIONS + 1]; /* pages that were never used take no memory */
};

static uint32_t *chain_of(struct affinity *a, uint64_t key)
{
    return &a->head[(key * 0x9e3779b97f4a7c15) >> 48];
}

static uint32_t find(struct affinity *a, uint64_t key)
{
    uint32_t i = *chain_of(a, key);

    while (i && a->entry[i].key != key)
        i = a->entry[i].chain;
    return i;
}

static bool is_over(const struct binding *b, uint64_t now_ms)
{
    return now_ms - b->used_ms >= TTL_MS;
}

struct binding *affinity_find(struct cm_pool *pool, uint64_t key)
{
    struct affinity *a = pool->affinity;
    uint32_t i = a ? find(a, key) : 0;

    return i && !is_over(&a->entry[i], pool->now_ms) ? &a->entry[i] : NULL;
}

static void take_out(struct affinity *a, uint32_t i)
{
    struct binding *b = &a->entry[i];

    if (b->older)
        a->entry[b->older].newer = b->newer;
    else
        a->oldest = b->newer;
    if (b->newer)
        a->entry[b->newer].older = b->older;
    else
        a->newest = b->older;
}

static void put_newest(struct affinity *a, uint32_t i)
{
    struct binding *b = &a->entry[i];

    b->older = a->newest;
    b->newer = 0;
    if (a->newest)
        a->entry[a->newest].newer = i;
    else
        a->oldest = i;
    a->newest = i;
}

/* An entry for a new conversation: that of the oldest one if it is over or there is no other, so that the table grows no more than it must. */
static uint32_t entry_for(struct affinity *a, uint64_t now_ms)
{
    uint32_t i = a->oldest, *at;

    if (!i || (a->n < CONVERSATIONS && !is_over(&a->entry[i], now_ms)))
        return ++a->n;
    take_out(a, i);
    for (at = chain_of(a, a->entry[i].key); *at != i; at = &a->entry[*at].chain)
        ;
    *at = a->entry[i].chain;
    return i;
}

struct binding *affinity_use(struct cm_pool *pool, uint64_t key)
{
    struct affinity *a = pool->affinity;
    struct binding *b;
    uint32_t i;

    if (!a)
        a = pool->affinity = CM_NEW(struct affinity);
    i = find(a, key);
    if (i) {
        take_out(a, i);
        b = &a->entry[i];
        if (is_over(b, pool->now_ms))
            b->home = b->guest = 0;
    } else {
        uint32_t *chain = chain_of(a, key);

        i = entry_for(a, pool->now_ms);
        b = &a->entry[i];
        *b = (struct binding){.key = key, .chain = *chain};
        *chain = i;
    }
    b->used_ms = pool->now_ms;
    put_newest(a, i);
    return b;
}

size_t affinity_count(const struct cm_pool *pool)
{
    return pool->affinity ? pool->affinity->n : 0;
}

void affinity_free(struct affinity *a)
{
    free(a);
}
