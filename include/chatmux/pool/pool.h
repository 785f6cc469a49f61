/* Pool: which credential serves the next attempt. Loop thread only. State survives a reload of the configuration. */
#ifndef CHATMUX_POOL_POOL_H
#define CHATMUX_POOL_POOL_H

#include "chatmux/base/clock.h"
#include "chatmux/base/config.h"

struct cm_pool;
struct cm_lease; /* one credential, promised to one attempt */

#define CM_CRED_STATES(X)                                                                          \
    X(OK, "ok")                                                                                    \
    X(COOLING, "cooling") X(EXHAUSTED, "exhausted") X(NEEDS_LOGIN, "needs_login")                  \
        X(VERIFY, "verify") X(DISABLED, "disabled")
enum cm_cred_state {
#define X(name, text) CM_CRED_STATE_##name,
    CM_CRED_STATES(X)
#undef X
        CM_CRED_STATES_N
};
const char *cm_cred_state_name(enum cm_cred_state state);

struct cm_pool *cm_pool_new(const struct cm_clock *clock);
void cm_pool_free(struct cm_pool *pool); /* after all leases were given back */

/* One provider's part of the configuration. Secrets are copied. */
struct cm_pool_provider {
    struct cm_str name;
    const struct cm_str *secrets;
    size_t n_secrets;
    bool keyless; /* an empty list means one credential without a secret, not none */
    bool isolated;
    int64_t max_inflight; /* per credential; 0 = unlimited */
    int64_t cooldown_ms;  /* after a limit without a time */
};
/* Makes the pool hold exactly these. A credential that was there before (same provider, same secret) keeps its state; one that is gone lives on until its last lease is back. */
void cm_pool_configure(struct cm_pool *pool, const struct cm_pool_provider *providers, size_t n);

/* What an exchange has tried: it never gets the same credential twice. */
#define CM_TRIED_MAX 64
struct cm_tried {
    uint64_t ids[CM_TRIED_MAX];
    size_t n;
};

/* Least recently used among those not cooling (for `model` either), not busy and not tried. NULL and *err CM_ERR_NO_CREDENTIAL: err->retry_after_s when some will return; the message tells how many are
 * in which state. The lease belongs to the caller, who hands it back with cm_lease_give_back() exactly once, also on failure and on cancel. */
struct cm_lease *cm_pool_lease(struct cm_pool *pool, struct cm_str provider, struct cm_str model,
                               const struct cm_tried *tried, struct cm_err *err);
uint64_t cm_lease_id(const struct cm_lease *lease);
struct cm_str
cm_lease_secret(const struct cm_lease *lease); /* valid until given back; never logged */
struct cm_str cm_lease_label(const struct cm_lease *lease); /* "openai#2" */
struct cm_str
cm_lease_isolation(const struct cm_lease *lease); /* "" when connections may be shared */

/* `why` NULL: served well, or the client left: no blame. Otherwise its class decides (design, section 3). */
void cm_lease_give_back(struct cm_lease *lease, const struct cm_err *why);

/* How many credentials of a provider are in each state, and how many leases are out. */
struct cm_pool_counts {
    size_t state[CM_CRED_STATES_N], total, inflight;
};
void cm_pool_count(const struct cm_pool *pool, struct cm_str provider, struct cm_pool_counts *out);

#endif
