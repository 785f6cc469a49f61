/* Store, inside: filling and emptying a group (struct cm_store_group). One thread at a time. */
#ifndef CHATMUX_STORE_GROUP_INT_H
#define CHATMUX_STORE_GROUP_INT_H

#include "store_int.h"

void cm_group_init(struct cm_store_group *g);
void cm_group_clear(struct cm_store_group *g);
void cm_group_clear_pool(struct cm_store_group *g); /* what goes into the pool file */
void cm_group_free_day(struct cm_store_day *day);   /* out of its list, too */
bool cm_group_empty(const struct cm_store_group *g);
bool cm_group_has_pool(const struct cm_store_group *g);
size_t cm_group_entries(const struct cm_store_group *g);
size_t cm_group_bytes(const struct cm_store_group *g); /* of the entries */

void cm_group_count(struct cm_store_group *g, const struct cm_cred_count *add);
void cm_group_month_anew(struct cm_store_group *g,
                         uint64_t id); /* what it counts in a month is forgotten */
void cm_group_state(struct cm_store_group *g, const struct cm_store_state *state); /* copied */
/* Copied; takes the place of what waits under this key. Not when MEMORIES_MAX others wait. */
void cm_group_memory(struct cm_store_group *g, const struct cm_memory_row *row, bool gone);
/* What waits to be remembered of a credential is not. */
void cm_group_drop_memories(struct cm_store_group *g, uint64_t cred_id);
/* Copied, and added to the sums of its hour; returns the bytes of the copy. */
size_t cm_group_log(struct cm_store_group *g, const struct cm_request_row *row);
/* One entry, not what it added to the sums; its bytes, 0 when there is none. */
size_t cm_group_drop_oldest(struct cm_store_group *g);
/* What stored keys spent by hours; malloc'd, *costs NULL when there is nothing. Returns how many. */
struct cm_group_cost {
    int64_t hour;
    uint64_t key_id;
    int64_t micro_usd;
};
size_t cm_group_costs(const struct cm_store_group *g, struct cm_group_cost **costs);

/* What `from` still holds goes to `to`, before what came since. `from` is empty then. */
void cm_group_return(struct cm_store_group *to, struct cm_store_group *from);

#endif
