/* Limits per client address, and which address a client has behind proxies that are trusted. Loop thread only. */
#ifndef CHATMUX_GATEWAY_ADDRESS_H
#define CHATMUX_GATEWAY_ADDRESS_H

#include "chatmux/base/config.h"
#include "chatmux/base/list.h"
#include "chatmux/base/map.h"

/* A sliding window: an event counts for a minute, in whole seconds. What is refused is not recorded. */
struct address_limiter {
    struct cm_map addresses; /* text -> struct seen */
    struct cm_list recent;   /* struct seen, least recently used first */
};
#define ADDRESS_WINDOW_S 60
#define ADDRESSES_MAX 16384 /* the least recently used one is forgotten */

void address_limiter_init(struct address_limiter *l);
void address_limiter_clear(struct address_limiter *l);

/* Whether one more event fits into `limit` a minute (0 = no limit), without recording it; otherwise the seconds until one does. */
bool address_fits(struct address_limiter *l, struct cm_str address, int64_t limit, uint64_t now_s,
                  int *retry_after_s);
/* Records an event that was let through. */
void address_record(struct address_limiter *l, struct cm_str address, int64_t limit,
                    uint64_t now_s);

/* The client's address: `peer`, or what X-Forwarded-For tells from right to left as long as the ones before are trusted. */
struct cm_str address_of_client(const struct cm_strs *trusted, struct cm_str peer,
                                struct cm_str forwarded_for);

#endif
