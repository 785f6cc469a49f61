/* Names to addresses, once per host, on threads of its own, cached. Loop thread only. A lookup that hangs holds nobody but those who wait for it.
 *
 * Each lookup has a thread of its own and at most 32 run at once, of which at most 16 for names that clients chose; more wait for their turn. libuv's
 * pool is not used: four hanging lookups would stop all others there, and the loop could not be closed before they return. */
#ifndef CHATMUX_IO_RESOLVE_H
#define CHATMUX_IO_RESOLVE_H

#include "chatmux/base/err.h"
#include "chatmux/io/loop.h"

struct cm_resolver;
struct cm_resolve_wait; /* one caller that waits; gone when fn is called or after the cancel */

enum cm_resolve_for {
    CM_RESOLVE_OWN,
    CM_RESOLVE_CLIENT
}; /* who chose the name: the configuration, or a client */

/* `addresses`: comma separated numeric addresses as CURLOPT_RESOLVE takes them ("192.0.2.1,[2001:db8::1]"); empty with err set (CM_ERR_UPSTREAM_DOWN) on
 * failure. Both valid until the return. Never called from within cm_resolve(). */
typedef void cm_resolve_fn(void *arg, struct cm_str addresses, const struct cm_err *err);

struct cm_resolver *cm_resolver_new(struct cm_loop *loop);
/* Waiters hear nothing more. Lookups that hang are left to their threads: the memory goes when they return. NULL is fine. */
void cm_resolver_close(struct cm_resolver *r);

/* NULL when the answer is cached: then *addresses is set (valid until the next turn; empty with *err filled for a cached failure) and fn is not called.
 * Entries live 60 s (failures 2 s); an expired one is served for 5 minutes more while a new lookup runs, also when that one fails.
 * "localhost" and what ends in ".localhost" is loopback without a lookup (RFC 6761 6.3). */
struct cm_resolve_wait *cm_resolve(struct cm_resolver *r, struct cm_str host,
                                   enum cm_resolve_for who, struct cm_str *addresses,
                                   struct cm_err *err, cm_resolve_fn *fn, void *arg);
void cm_resolve_cancel(struct cm_resolve_wait *w); /* NULL is fine */

#endif
