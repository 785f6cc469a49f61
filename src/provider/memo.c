/* A map of entries that are also in a ring by last use. */
#include "chatmux/provider/memo.h"

#include "chatmux/base/list.h"
#include "chatmux/base/map.h"
#include "chatmux/base/secret.h"
#include <stdlib.h>

#define ENTRY_COST 160 /* bytes of an entry besides its texts: itself, its slot in the map */

struct entry {
    struct cm_list link; /* in memo->by_use, the latest at the end */
    struct cm_str key;   /* owner, NUL, key; both slices in this allocation */
    struct cm_str value;
    uint64_t until_ms; /* monotonic */
};

struct cm_memo {
    const struct cm_clock *clock;
    struct cm_map map; /* entry.key -> entry */
    struct cm_list by_use;
    size_t bytes, max_bytes;
};

struct cm_memo *cm_memo_new(const struct cm_clock *clock, size_t max_bytes)
{
    struct cm_memo *memo = CM_NEW(struct cm_memo);

    memo->clock = clock;
    memo->max_bytes = max_bytes;
    cm_list_init(&memo->by_use);
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
    cm_secret_free(e);
}

void cm_memo_free(struct cm_memo *memo)
{
    if (!memo)
        return;
    CM_LIST_EACH(&memo->by_use, it)
    drop(memo, CM_LIST_ITEM(it, struct entry, link));
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
    cm_list_push(&memo->by_use, &e->link);
    *value = e->value;
    return true;
}

void cm_memo_del(struct cm_memo *memo, struct cm_str owner, struct cm_str key)
{
    struct entry *e = find(memo, owner, key);

    if (e)
        drop(memo, e);
}

void cm_memo_put(struct cm_memo *memo, struct cm_str owner, struct cm_str key, struct cm_str value,
                 int64_t ttl_ms)
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
    cm_list_init(&e->link);
    cm_list_push(&memo->by_use, &e->link);
    cm_map_put(&memo->map, e->key, e);
    memo->bytes += cost(e);
    while (memo->bytes > memo->max_bytes)
        drop(memo, CM_LIST_ITEM(memo->by_use.next, struct entry, link));
}
