/* A map of entries that are also in one of two rings by last use. */
#include "chatmux/provider/memo.h"

#include "chatmux/base/list.h"
#include "chatmux/base/map.h"
#include "chatmux/base/secret.h"
#include <stdlib.h>

#define ENTRY_COST 160 /* bytes of an entry besides its texts: itself, its slot in the map */

struct entry {
    struct cm_list link; /* in its ring, the latest at the end */
    bool kept;
    struct cm_str key; /* owner, NUL, key; both slices in this allocation */
    struct cm_str value;
    uint64_t until_ms; /* monotonic */
};

struct cm_memo {
    const struct cm_clock *clock;
    struct cm_map map;           /* entry.key -> entry */
    struct cm_list by_use, kept; /* the rings: struct entry */
    size_t bytes, kept_bytes, max_bytes;
};

struct cm_memo *cm_memo_new(const struct cm_clock *clock, size_t max_bytes)
{
    struct cm_memo *memo = CM_NEW(struct cm_memo);

    memo->clock = clock;
    memo->max_bytes = max_bytes;
    cm_list_init(&memo->by_use);
    cm_list_init(&memo->kept);
    return memo;
}

static size_t cost(const struct entry *e)
{
    return ENTRY_COST + e->key.n + e->value.n;
}

static void drop(struct cm_memo *memo, struct entry *e)
{
    cm_map_del(&memo->map, e->key);
    cm_list_remove(&e->link);
    memo->bytes -= cost(e);
    memo->kept_bytes -= e->kept ? cost(e) : 0;
    cm_secret_free(e);
}

static void drop_oldest(struct cm_memo *memo, struct cm_list *ring)
{
    drop(memo, CM_LIST_ITEM(ring->next, struct entry, link));
}

void cm_memo_free(struct cm_memo *memo)
{
    if (!memo)
        return;
    while (!cm_list_empty(&memo->by_use))
        drop_oldest(memo, &memo->by_use);
    while (!cm_list_empty(&memo->kept))
        drop_oldest(memo, &memo->kept);
    cm_map_clear(&memo->map);
    free(memo);
}

static size_t key_size(struct cm_str owner, struct cm_str key)
{
    return owner.n + 1 + key.n;
}

static char *put(char *to, struct cm_str s)
{
    if (s.n > 0)
        memcpy(to, s.p, s.n);
    return to + s.n;
}

static void key_write(char *to, struct cm_str owner, struct cm_str key)
{
    to = put(to, owner);
    *to++ = '\0';
    put(to, key);
}

static struct entry *find(struct cm_memo *memo, struct cm_str owner, struct cm_str key)
{
    size_t n = key_size(owner, key);
    char *text = cm_alloc(n);
    struct entry *e;

    key_write(text, owner, key);
    e = cm_map_get(&memo->map, cm_str(text, n));
    free(text);
    if (e && memo->clock->mono_ms(memo->clock->arg) >= e->until_ms) {
        drop(memo, e);
        return NULL;
    }
    return e;
}

bool cm_memo_get(struct cm_memo *memo, struct cm_str owner, struct cm_str key, struct cm_str *value)
{
    struct entry *e = find(memo, owner, key);

    if (!e)
        return false;
    cm_list_remove(&e->link);
    cm_list_push(e->kept ? &memo->kept : &memo->by_use, &e->link);
    *value = e->value;
    return true;
}

void cm_memo_del(struct cm_memo *memo, struct cm_str owner, struct cm_str key)
{
    struct entry *e = find(memo, owner, key);

    if (e)
        drop(memo, e);
}

static void make_room(struct cm_memo *memo)
{
    while (memo->bytes > memo->max_bytes) {
        const bool too_much_kept = memo->kept_bytes > memo->max_bytes / 2;

        drop_oldest(memo,
                    too_much_kept || cm_list_empty(&memo->by_use) ? &memo->kept : &memo->by_use);
    }
}

static void put_entry(struct cm_memo *memo, struct cm_str owner, struct cm_str key,
                      struct cm_str value, int64_t ttl_ms, bool kept)
{
    size_t key_n = key_size(owner, key);
    struct entry *e;
    char *text;

    if (ttl_ms <= 0 || key_n + value.n > memo->max_bytes / 8) {
        cm_memo_del(memo, owner, key);
        return;
    }
    e = cm_secret_alloc(sizeof(*e) + key_n + value.n);
    text = (char *)(e + 1);
    key_write(text, owner, key);
    put(text + key_n, value);
    e->key = cm_str(text, key_n);
    e->value = cm_str(text + key_n, value.n);
    e->until_ms = memo->clock->mono_ms(memo->clock->arg) + (uint64_t)ttl_ms;
    cm_memo_del(memo, owner, key); /* only now: value may be a slice of what it replaces */
    e->kept = kept;
    cm_list_init(&e->link);
    cm_list_push(kept ? &memo->kept : &memo->by_use, &e->link);
    cm_map_put(&memo->map, e->key, e);
    memo->bytes += cost(e);
    memo->kept_bytes += kept ? cost(e) : 0;
    make_room(memo);
}

void cm_memo_put(struct cm_memo *memo, struct cm_str owner, struct cm_str key, struct cm_str value,
                 int64_t ttl_ms)
{
    put_entry(memo, owner, key, value, ttl_ms, false);
}

void cm_memo_keep(struct cm_memo *memo, struct cm_str owner, struct cm_str key, struct cm_str value,
                  int64_t ttl_ms)
{
    put_entry(memo, owner, key, value, ttl_ms, true);
}
