/* The resolver's inner side: how it looks up and how long it remembers, for tests. */
#ifndef CHATMUX_SRC_IO_RESOLVE_INT_H
#define CHATMUX_SRC_IO_RESOLVE_INT_H

#include "chatmux/io/resolve.h"

struct cm_resolver_setup {
    /* On a thread of its own: writes comma separated addresses and returns 0, or returns an EAI_… code (EAI_SYSTEM with errno). May block. */
    int (*lookup)(const char *host, char *out, size_t cap);
    uint64_t ttl_ms, fail_ttl_ms, stale_ms;
    unsigned max_lookups, max_client_lookups; /* at once; the second is a part of the first */
    size_t max_entries;
};
struct cm_resolver *cm_resolver_new_with(struct cm_loop *loop,
                                         const struct cm_resolver_setup *setup);

#endif
