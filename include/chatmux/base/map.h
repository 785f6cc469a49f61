/* Hash map from byte strings to pointers, seeded at random so that clients cannot choose
 * collisions. Owner's thread. */
#ifndef CHATMUX_BASE_MAP_H
#define CHATMUX_BASE_MAP_H

#include "chatmux/base/str.h"

struct cm_map_slot {
    struct cm_str key; /* not copied: must outlive the entry or the next put; p NULL = empty slot */
    uint64_t hash;
    void *value;
};

/* Zeroed memory is an empty map. Open addressing; deletion moves followers back. */
struct cm_map {
    struct cm_map_slot *slots; /* owned */
    size_t n, cap;             /* entries; slots (a power of two, 0 at first) */
};

void cm_map_clear(struct cm_map *m);                         /* frees the slots, not the values */
void *cm_map_get(const struct cm_map *m, struct cm_str key); /* NULL when absent */
void *cm_map_put(struct cm_map *m, struct cm_str key, void *value); /* returns the one before */
void *cm_map_del(struct cm_map *m, struct cm_str key);              /* returns what was removed */

/* Every entry once, in no order; *pos starts at 0; NULL at the end. The map must not change
 * meanwhile. */
const struct cm_map_slot *cm_map_next(const struct cm_map *m, size_t *pos);

uint64_t cm_hash(struct cm_str s); /* the seeded hash itself; differs from run to run */

#endif
