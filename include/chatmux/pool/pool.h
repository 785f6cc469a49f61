/* Pool: every credential with its state; which one serves the next attempt. Loop thread only.
 *
 * Pure: time comes from a clock, randomness from a seed, what must be kept goes out through `cm_pool_host`; nothing here touches a
 * handle, the store or a platform. The gateway calls cm_pool_tick() at cm_pool_next_ms().
 *
 *     ok -> cooling(until) -> half_open -> ok         one real request decides; failing cools twice as long, up to an hour or the time told
 *     ok -> exhausted(until) -> half_open -> ok      the month's requests are used up: -> exhausted(the 1st) -> ok
 *     ok -> refreshing -> ok | needs_login            it was refused, or its token is over; not chosen meanwhile. Ahead of its end a token is refreshed
 *                                                     while the credential goes on serving with it
 *     ok -> needs_login | verify | disabled           an operator acts (reset, enable, new secret); needs_login is probed every 6 h
 *
 * Every change goes through one function, is logged with its reason and told to the host. Limits only move later, also while a refresh or a login
 * comes between. A credential without a secret (a provider that needs none) is never blamed. */
#ifndef CHATMUX_POOL_POOL_H
#define CHATMUX_POOL_POOL_H

#include "chatmux/base/clock.h"
#include "chatmux/base/err.h"

struct cm_pool;
struct cm_lease; /* one credential, promised to one attempt */

#define CM_CRED_STATES(X)                                                                          \
    X(OK, "ok")                                                                                    \
    X(COOLING, "cooling")                                                                          \
    X(HALF_OPEN, "half_open")                                                                      \
    X(REFRESHING, "refreshing")                                                                    \
    X(EXHAUSTED, "exhausted")                                                                      \
    X(NEEDS_LOGIN, "needs_login")                                                                  \
    X(VERIFY, "verify")                                                                            \
    X(DISABLED, "disabled")
enum cm_cred_state {
#define X(name, text) CM_CRED_STATE_##name,
    CM_CRED_STATES(X)
#undef X
        CM_CRED_STATES_N
};
const char *cm_cred_state_name(enum cm_cred_state state);
/* -1: no such word. */
int cm_cred_state_parse(struct cm_str word, enum cm_cred_state *out);

/* What an account has left at its platform, in the platform's own unit. Kinds that a platform keeps apart are purses (hix: standard and advanced credit). */
#define CM_PURSES 2
struct cm_credit {
    bool known;              /* false: taken for enough */
    int64_t left[CM_PURSES]; /* what a platform has only one of is purse 0 */
    int64_t renews_ms;       /* Unix: the platform fills it up again; 0 = not told */
};

/* One credential as the outside sees it; slices are valid until the pool is called again. */
struct cm_cred_info {
    uint64_t id;
    struct cm_str provider, label; /* label: the operator's, else "openai#2" */
    struct cm_str secret;          /* never logged, never shown */
    struct cm_str token;           /* what refreshing made of it; "" = none */
    struct cm_str proxy;           /* "" = the provider's */
    struct cm_str isolation;       /* told, not taken: as cm_lease_isolation() */
    bool from_config, enabled;
    int64_t weight, max_inflight; /* 1 … 1000, else the nearest; max_inflight 0 = the provider's */
    enum cm_cred_state state;
    struct cm_str reason;    /* error class or an operator's word; "" = none */
    int64_t until_ms;        /* Unix; 0 = none */
    struct cm_str quota;     /* JSON as the platform told it; "" = not known */
    struct cm_credit credit; /* as told, less what has been spent since */
    int64_t inflight, requests, failures, tokens_in, tokens_out;
    int64_t last_used_ms, created_ms; /* Unix; 0 = never */
    int64_t token_expires_ms;         /* Unix; 0 = not known: no refresh ahead of time */
    int64_t month_ms,
        month_requests; /* when the month began (Unix, UTC) that month_requests counts; 0 = none yet */
    int64_t monthly_limit; /* the provider's; told, never read */
};

/* What the pool asks of the world. All may be NULL: then nothing can be refreshed or probed. refresh and probe come at the end of cm_pool_put(),
 * cm_pool_reset(), cm_pool_tick(), of handing back a lease and of the answers below; they may call the pool, the answer may be given at once. */
struct cm_pool_host {
    /* State, reason, until or quota changed (or the wall clock, so that `until` is another): to be kept. From within any call; must not call the pool. */
    void (*on_state)(void *arg, const struct cm_cred_info *cred);
    /* A refresh is due: start one run and answer with cm_pool_refreshed(), once. Never more than one per credential is asked for. */
    void (*refresh)(void *arg, const struct cm_cred_info *cred);
    /* A state without an end wants to know whether it has ended: start a probe and answer with cm_pool_probed(). */
    void (*probe)(void *arg, const struct cm_cred_info *cred);
    void *arg;
};

/* The clock is not owned; *host is copied. */
struct cm_pool *cm_pool_new(const struct cm_clock *clock, const struct cm_pool_host *host,
                            uint64_t seed);
void cm_pool_free(
    struct cm_pool *pool); /* after all leases were given back and all waits cancelled */

/* ---- what is in it ---- */

struct cm_pool_provider {
    struct cm_str name;
    bool isolated;           /* web platform: connections are never shared between credentials */
    int64_t max_inflight;    /* per credential; 0 = unlimited */
    int64_t min_interval_ms; /* between two requests on one credential */
    int64_t cooldown_ms;     /* after a limit without a time; 0 = 60 s */
    /* Requests per credential in a calendar month (UTC); 0 = any number. One that has had them is exhausted (reason "monthly_limit") until the 1st, and
     * then ok at once. Never more are out than are left. A reset does not begin the month anew. */
    int64_t monthly_limit;
    bool can_refresh, can_probe;
    int64_t
        probe_every_ms; /* also one that serves is probed so often, the first time within ten minutes; 0 = only who waits for an operator */
    bool needs_token;   /* no request without one: who has none is refreshed first */
    /* An account of whose requests for one model so many per cent (0 = never) have failed within a minute, once so many have ended since the first failure,
     * gets none for that model for 30 s, doubling up to ten minutes; then one real request at a time decides. While it serves other models, such failures
     * are not held against the account itself. */
    int64_t breaker_rate, breaker_attempts;
    /* A setting that is missing, in a sentence for operators and clients; "" = nothing. As long as it is, all who are enabled are needs_login (reason
     * "config"), nobody is refreshed, and cm_pool_lease() fails with it (code "not_configured"). A refresh that fails with CM_ERR_CONFIG has the same effect, until providers
     * are told again or one of the credentials is reset. */
    struct cm_str lacks;
};
/* Providers that are not named any more lose their credentials (those go when their last lease is back). */
void cm_pool_providers(struct cm_pool *pool, const struct cm_pool_provider *providers, size_t n);

/* Adds, or replaces what an operator can set (label, secret, token, proxy, enabled, weight, max_inflight, from_config) of the same id. State and counters of
 * `info` count only for a new one (restart): cooling until a Unix time is turned into monotonic time, at most 31 days ahead; what is over by now is half
 * open. A changed secret resets the state; with the same secret an empty token keeps the one that is there, and a new one ends refreshing and
 * needs_login. All is copied. An id that belongs to another provider is our own bug; one of a provider that is not configured is left out with a
 * warning. */
void cm_pool_put(struct cm_pool *pool, const struct cm_cred_info *info);
void cm_pool_remove(struct cm_pool *pool, uint64_t id);
/* Operator: forget cooldowns, errors and model limits; ok unless disabled by hand (`enabled`; reason "operator") or the token is over. false: no such
 * id. */
bool cm_pool_reset(struct cm_pool *pool, uint64_t id);

bool cm_pool_get(const struct cm_pool *pool, uint64_t id, struct cm_cred_info *out);
/* The credential of this provider with this secret; 0 = none. */
uint64_t cm_pool_find_secret(const struct cm_pool *pool, struct cm_str provider,
                             struct cm_str secret);
/* In the order of ids; provider "" = all, here and in cm_pool_count(). fn must not change the pool. */
void cm_pool_each(const struct cm_pool *pool, struct cm_str provider,
                  void (*fn)(void *arg, const struct cm_cred_info *cred), void *arg);

struct cm_pool_counts {
    size_t state[CM_CRED_STATES_N], total, inflight, waiting;
};
void cm_pool_count(const struct cm_pool *pool, struct cm_str provider, struct cm_pool_counts *out);
/* Milliseconds until the first of those that are cooling serves again; 0 = none is cooling. Looks at all that return at a known time. */
uint64_t cm_pool_cooling_ms(const struct cm_pool *pool, struct cm_str provider);

/* What one account does without, and what is being watched: at most 32 models whose breaker knows failures or that the platform limits, and those that it
 * said are not there. */
#define CM_MODEL_STATES(X)                                                                         \
    X(WATCHED, "closed")       /* it fails now and then */                                         \
    X(BROKEN, "open")          /* it failed too often */                                           \
    X(HALF_OPEN, "half_open")  /* one real request decides */                                      \
    X(ABSENT, "unavailable")   /* the platform said so */                                          \
    X(LIMITED, "rate_limited") /* the platform limits the account for it alone */
enum cm_model_state {
#define X(name, text) CM_MODEL_##name,
    CM_MODEL_STATES(X)
#undef X
        CM_MODEL_STATES_N
};
const char *cm_model_state_name(enum cm_model_state state);
struct cm_cred_model {
    struct cm_str model; /* cut at 63 bytes; valid until the pool is called again */
    enum cm_model_state state;
    int64_t until_ms;          /* Unix; 0 = none */
    unsigned attempts, failed; /* in the window of WATCHED; a minute */
};
/* fn must not change the pool. Unknown ids have none. */
void cm_pool_each_model(const struct cm_pool *pool, uint64_t id,
                        void (*fn)(void *arg, const struct cm_cred_model *model), void *arg);
/* How the account stands to this model; false: nothing is known of it, it serves. */
bool cm_pool_model(const struct cm_pool *pool, uint64_t id, struct cm_str model,
                   struct cm_cred_model *out);
/* How many accounts of this provider do without this model now; cheap. */
size_t cm_pool_without(const struct cm_pool *pool, struct cm_str provider, struct cm_str model);
/* How many accounts of this provider are in each of the states with some model. */
void cm_pool_count_models(const struct cm_pool *pool, struct cm_str provider,
                          size_t count[CM_MODEL_STATES_N]);

/* ---- leases ---- */

#define CM_TRIED_MAX 64
struct
    cm_tried { /* what an exchange has tried: it never gets the same credential twice for a reason that will not change */
    uint64_t ids[CM_TRIED_MAX];
    size_t n;
};

struct cm_pool_ask {
    struct cm_str provider, model;
    const struct cm_tried *tried; /* NULL = none */
    uint64_t affinity;            /* hash of the conversation, scoped by client key; 0 = none */
    uint64_t only;                /* this credential or none; 0 = any */
    uint64_t holder; /* has the conversation on its platform: this one if it can; 0 = nobody */
    int64_t cost;    /* of one answer by this model; 0 = nothing, or not known */
    unsigned purse;  /* what it is paid from */
    bool
        begins; /* the conversation's first turn: it is bound, and follows no older binding (equal beginnings are common) */
    bool uncounted; /* an errand, no request: nothing of the month is used up by it */
};

/* Among those that are fit (ok, or the one request of half_open; not cooled for the model, not busy, not too soon, not tried, and able to pay: what leases
 * that are out will cost is set aside): the one that holds the conversation, which is then bound to it; else the one it is bound to;
 * else by weight, then least in flight, then least recently used. Weight is a share: while all are fit, one with weight 3 gets three of these choices
 * for each that one with weight 1 gets, however long they last; the other two criteria decide among equal weights. The first lease of a conversation
 * binds it for an hour after its last use; while its credential is limited or busy, another is borrowed (the same again, if it can) and the binding
 * stays; one that waits for an operator or was removed loses it. Costs O(log n), given few distinct weights, and no allocation but the lease.
 * NULL and *err CM_ERR_NO_CREDENTIAL: err->retry_after_s when some will return, err->param "busy" when one is only busy; the message tells how many are
 * in which state. CM_ERR_QUOTA_EXHAUSTED: credit is all that is missing. err may be NULL. The lease belongs to the caller, who hands it back with cm_lease_give_back() exactly once, also on failure and on cancel. */
struct cm_lease *cm_pool_lease(struct cm_pool *pool, const struct cm_pool_ask *ask,
                               struct cm_err *err);

/* Whom cm_pool_lease() would take now; 0 and the same *err: nobody. Leaves no trace: nothing is counted, and whose turn it is stays as it is. Only what is due
 * anyway happens (a limit that is over, those who wait in line). */
uint64_t cm_pool_peek(struct cm_pool *pool, const struct cm_pool_ask *ask, struct cm_err *err);

/* Waits in line, first come first served per provider, until a lease can be given or `max_wait_ms` has passed; at most 1,000 wait per provider (then
 * refused at once with the same error as above: NULL and *err). Only worth it when something returns in time: otherwise refused at once, too. Who comes
 * later overtakes only those who cannot use what is free (its model is limited there, or it was tried). `fn` comes from where host->refresh may come,
 * never from within this call, cm_pool_lease() or cancelling; once, with a lease, or NULL and err; it may call the pool. The ask is copied, `tried`
 * must live and stay as it is until then. */
struct cm_pool_wait;
typedef void cm_pool_wait_fn(void *arg, struct cm_lease *lease, const struct cm_err *err);
struct cm_pool_wait *cm_pool_wait(struct cm_pool *pool, const struct cm_pool_ask *ask,
                                  int64_t max_wait_ms, cm_pool_wait_fn *fn, void *arg,
                                  struct cm_err *err);
void cm_pool_wait_cancel(struct cm_pool_wait *wait); /* not after fn has been called */

/* Why it was this one. */
#define CM_CHOICES(X)                                                                              \
    X(ASKED, "asked_for")              /* only this one was wanted */                              \
    X(CONVERSATION, "conversation")    /* the conversation is bound to it */                       \
    X(BORROWED, "borrowed")            /* it has stood in for the bound one before */              \
    X(FREED, "first_in_line")          /* the request waited, and this one became free */          \
    X(ALONE, "only_one")               /* nobody else could */                                     \
    X(WEIGHT, "weight")                /* the turn of those with its weight */                     \
    X(INFLIGHT, "least_in_flight")     /* fewer requests on it than on the next */                 \
    X(RECENTLY, "least_recently_used") /* as many, and its last use is longer ago */
enum cm_choice_by {
#define X(name, text) CM_CHOICE_##name,
    CM_CHOICES(X)
#undef X
};
const char *cm_choice_name(enum cm_choice_by by);
struct cm_choice {
    enum cm_choice_by by;
    bool half_open; /* the request that decides after a limit, or about the model on this account */
    uint64_t bound; /* the conversation's own credential, which could not serve; 0 = none */
    enum cm_cred_state bound_state; /* in which it was then */
};
const struct cm_choice *cm_lease_choice(const struct cm_lease *lease);

uint64_t cm_lease_id(const struct cm_lease *lease);
struct cm_str cm_lease_secret(
    const struct cm_lease
        *lease); /* all valid until given back, also when it is replaced or removed; never logged */
struct cm_str cm_lease_token(const struct cm_lease *lease);
struct cm_str cm_lease_label(const struct cm_lease *lease);
struct cm_str cm_lease_proxy(const struct cm_lease *lease);
struct cm_str
cm_lease_isolation(const struct cm_lease *lease); /* "" when connections may be shared */

/* `why` NULL: served well. Otherwise its class decides (design, section 3): keep, cool, exhaust, refresh, disable …; three cuts, overloads or
 * time-outs within 60 s, with no more than three good answers in between, cool for 60 s, doubling up to an hour. Tokens are added to the credential's figures. Returns the month (when it began, Unix)
 * in which this was a request, 0 = it counts in none: what the platform refused or never got costs nothing, what was served, broke off or took too
 * long does. */
int64_t cm_lease_give_back(struct cm_lease *lease, const struct cm_err *why, int64_t tokens_in,
                           int64_t tokens_out);
/* The client left (`why` NULL), or this failure is nobody's fault: no blame, no praise; a half-open credential stays half open. Counts in the month like
 * the above; for a client that left the platform is taken to have answered. */
int64_t cm_lease_cancel(struct cm_lease *lease, const struct cm_err *why);

/* ---- credit ---- */

/* What the platform tells of a credential: `quota` for the operator ("" = nothing new), `credit` for choosing (NULL or not known = nothing new). Good until
 * the platform renews it, a day where it tells no time; then it is not known again, and a probe is asked for. What answers cost is subtracted
 * meanwhile. Unknown ids are fine. */
void cm_pool_told(struct cm_pool *pool, uint64_t id, struct cm_str quota,
                  const struct cm_credit *credit);
/* The same, read at the end of what the lease was for: its own cost is in these figures already. A credential that turns out unable to pay for the model is
 * passed over for that, and CM_ERR_QUOTA_EXHAUSTED does not exhaust it for cheaper ones, unless nothing is left at all. */
void cm_lease_told(struct cm_lease *lease, struct cm_str quota, const struct cm_credit *credit);

/* ---- errands' answers ---- */

/* err NULL: a new token (durable before this is called) that ends at a Unix time, 0 = not known; "" = the old one goes on. Otherwise its class decides:
 * refused (invalid_credential, expired) is needs_login, verification_required is verify, config see `lacks`, all else is tried again after 30 s, doubling
 * to 10 min.
 * Unknown ids are fine, as credentials may be removed meanwhile. */
void cm_pool_refreshed(struct cm_pool *pool, uint64_t id, struct cm_str token,
                       int64_t expires_unix_ms, const struct cm_err *err);
/* quota as in cm_pool_told(). err NULL: it works, which ends needs_login, verify and what the platform had disabled, but no limit. Otherwise as if a request had failed, except
 * that not getting through blames nobody. May be called without having been asked for. quota "" = not known. */
void cm_pool_probed(struct cm_pool *pool, uint64_t id, struct cm_str quota,
                    const struct cm_err *err);

/* ---- time ---- */

/* When to tick: monotonic; 0 = at once; UINT64_MAX = nothing is due. Any call may move it, earlier too: ask again after each. */
uint64_t cm_pool_next_ms(const struct cm_pool *pool);
void cm_pool_tick(struct cm_pool *pool);

#endif
