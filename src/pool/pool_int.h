/* What the parts of the pool share: the whole (pool.c), who is in it (cred.c), orders (order.c), states (state.c), models an account does without (model.c),
 * credit (credit.c), what a month allows (month.c), errands (errand.c), choosing (choose.c), waiting (wait.c), conversations (affinity.c).
 *
 * A credential is in at most one place: in the tree of those that can serve (per provider and weight), in the tree of those that are busy, or in the
 * heap of those that return at a known time. Whatever changes its place or its rank goes through cred_take() … cred_place().
 *
 * Every public call: pool_enter() reads the clock; pool_settle() serves those who wait and lets the host and the waiters know. */
#ifndef CHATMUX_SRC_POOL_POOL_INT_H
#define CHATMUX_SRC_POOL_POOL_INT_H

#include "chatmux/base/list.h"
#include "chatmux/base/map.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"
#include "chatmux/pool/pool.h"

#define SECOND_MS UINT64_C(1000)
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS (60 * MINUTE_MS)
#define LIMIT_MAX_MS (31 * 24 * HOUR_MS) /* no platform is believed beyond that */

#define MODELS_MAX 64 /* models cooled somewhere in a provider at once: one bit each */
#define WAITING_MAX 1000
#define STRIDE_ONE (UINT64_C(1) << 32) /* what one choice costs a group of one with weight 1 */

/* ---- orders ---- */

struct due { /* in a heap by time */
    uint64_t at_ms;
    size_t pos; /* from 1; 0 = in none */
};

struct heap {       /* zeroed memory is an empty one */
    struct due **v; /* owned; v[1] is the soonest */
    size_t n, cap;
    uint64_t *ops; /* counts steps */
};

struct cred;

struct tree { /* by least in flight, then least recently used; zeroed memory is an empty one */
    struct cred *root;
    size_t n;
    uint64_t *ops;
};

void heap_put(struct heap *h, struct due *d, uint64_t at_ms); /* in it already: moves */
void heap_del(struct heap *h, struct due *d);                 /* fine when it is in none */
void heap_shrink(struct heap *h); /* an empty one: keeps room for a few */
static inline struct due *heap_top(const struct heap *h)
{
    return h->n > 0 ? h->v[1] : NULL;
}

/* What somebody asks of a credential, apart from its place. */
struct want {
    uint64_t bit; /* of the model, if anybody is cooled for it; 0 = none is */
    int64_t cost;
    unsigned purse;
    const struct cm_tried *tried; /* NULL = none */
    uint64_t only;                /* 0 = any */
};

void tree_put(struct tree *t, struct cred *c);
void tree_del(struct tree *t, struct cred *c);
void tree_remask(struct tree *t, struct cred *c); /* after c->mask or its credit has changed */
/* The first that suits. Subtrees in which all are cooled for the model are not entered, nor those in which nobody can pay. */
struct cred *tree_first(const struct tree *t, const struct want *w);
/* Who would have been next of those that suit; a few are looked at, then the last of them. NULL: nobody. */
const struct cred *tree_second(const struct tree *t, const struct cred *first,
                               const struct want *w);
/* Somebody in it may suit: the same two things, looked at for the whole tree. */
bool tree_hopeful(const struct tree *t, const struct want *w);

bool was_tried(const struct cm_tried *tried, uint64_t id);

/* ---- who is in it ---- */

/* What a lease may look at while it is out: never changed, replaced as a whole, counted. */
struct ident {
    unsigned refs;
    struct cm_str label, secret, token, proxy;
    char isolation[32]; /* the secret's name as an owner of connections */
    char bytes[];       /* wiped at the end */
};

/* Those of a provider with the same weight. Which group serves is decided by stride: choosing costs a group 1 / (weight x members that are fit), the
 * one that has paid least is next; so the share of each credential is proportional to its weight. */
struct group {
    struct cm_list link; /* in provider->groups */
    size_t refs;         /* credentials of this weight */
    uint64_t weight;
    uint64_t pass;        /* wraps: compared as a difference */
    uint64_t passed_over; /* the last choice that found nobody here */
    struct tree fit;
};

struct model_slot {
    uint64_t hash;    /* of its name */
    char name[64];    /* to be shown; cut */
    struct heap over; /* struct cooled: soonest over first; never empty while in use */
};

/* A model that one account does without: the later of two reasons counts. */
struct cooled {
    struct due over;
    struct cred *cred;
    struct cooled *next; /* of the same credential */
    unsigned slot;
    uint64_t absent_until_ms; /* the platform said that it is not there */
    uint64_t broken_until_ms; /* it fails too often, or one request is finding out */
    bool trial;               /* … and nobody knows how long that takes */
};

/* The breaker of one account with one model: there from its first failure on, until it is closed and has none left in its window. Half open it lets one
 * real request through, which decides. A limit of the platform for this model opens it too. */
#define PAIR_BUCKETS 10
struct pair {
    struct cm_list used; /* in pool->pairs, the latest at the end */
    struct cred *cred;
    struct pair *next; /* of the same credential */
    uint64_t hash;     /* of the model */
    uint16_t ended[PAIR_BUCKETS], failed[PAIR_BUCKETS];
    uint64_t bucket;   /* number of the latest */
    uint64_t until_ms; /* open until then */
    uint64_t open_ms;  /* how long it was opened last; 0 = closed */
    bool limited;      /* by a limit of the platform, not by failures */
    uint64_t trial;    /* the lease that decides; 0 = none is out */
    char model[64];    /* to be shown; cut */
};

struct provider {
    struct cm_pool *pool;
    struct cm_list link; /* in pool->providers */
    char *name;          /* owned */
    struct cm_list creds;
    struct cm_map secrets; /* secret -> struct cred; others with the same follow in ->twin */
    int64_t max_inflight, min_interval_ms, cooldown_ms, monthly_limit, probe_every_ms;
    int64_t breaker_rate, breaker_attempts; /* of an account with a model */
    bool isolated, can_refresh, can_probe, needs_token;
    char *lacks;       /* owned; what an operator has to set first, NULL = nothing */
    bool lacks_known;  /* the configuration itself tells it: a reset does not help */
    bool named;        /* while a configuration is applied: still in it */
    uint64_t numbered; /* labels given so far */

    struct cm_list groups;
    uint64_t salt;  /* tells conversations of different providers apart */
    uint64_t vtime; /* pass of the group that was chosen last */
    uint64_t choices;
    struct tree busy;    /* at their cap, or being refreshed: return at a time nobody knows */
    struct heap returns; /* cred->ret: limited, to be refreshed again, or used a moment ago */
    uint64_t models;     /* bits in use */
    struct model_slot model[MODELS_MAX];

    struct cm_list waiting; /* struct cm_pool_wait, in order of arrival */
    struct cm_pool_counts count;
};

#define WANT_REFRESH 1u
#define WANT_PROBE 2u

enum place { PLACE_NONE, PLACE_FIT, PLACE_BUSY, PLACE_RETURNS };

struct cred {
    struct provider *provider; /* NULL once removed: goes with its last lease */
    struct cm_list link;       /* in provider->creds */
    uint64_t id;
    struct ident *ident; /* a reference */
    struct cred *twin;
    unsigned secret_gen; /* counts changed secrets: old leases do not blame new ones */
    uint64_t number;     /* for the label that nobody gave */
    bool from_config, enabled;
    int64_t max_inflight; /* 0 = the provider's */
    struct group *group;

    enum cm_cred_state state;
    const char *reason; /* static, or = reason_kept */
    char reason_kept[32];
    uint64_t until_ms; /* 0 = none */
    char *quota;       /* owned; NULL = not known */
    struct cm_credit credit;
    int64_t held[CM_PURSES];  /* of it, what leases that are out will cost */
    uint64_t credit_until_ms; /* when it is not known any more; 0 = it is not known */

    /* The limit told last; it outlives a refresh or a login that comes between. */
    enum cm_cred_state limit; /* COOLING or EXHAUSTED */
    uint64_t limit_until_ms;
    const char *limit_reason;
    uint64_t limit_ms;        /* how long it was; 0 = it has served since */
    uint64_t failed_ms[2];    /* latest failures that only count, newest first; 0 = none */
    uint64_t failed_at[2];    /* `answered` at each of them */
    uint64_t failed_model[2]; /* hashes; 0 = none */
    uint64_t
        series_model; /* the one model that all failures were of which the limit is for; 0 = several, or another limit */
    uint64_t answered;       /* requests that went well */
    uint64_t series_ms;      /* what the last series of them cost */
    uint64_t series_over_ms; /* until when */

    bool refreshing;   /* asked of the host, not answered */
    bool refresh_void; /* … for a secret that has been replaced meanwhile */
    bool probing;
    bool token_unproven;    /* has served nobody yet */
    uint64_t token_made_ms; /* when it was brought */
    uint64_t expires_ms;    /* of the token; 0 = not known */
    uint64_t refresh_at_ms; /* 0 = not planned; ahead of that, or after backing off */
    uint64_t backoff_ms;    /* after the last refresh that did not get through; 0 = it did */
    uint64_t probe_at_ms, probe_gap_ms; /* 0 = never */
    struct due chore;                   /* in pool->chores: the earliest of them */
    struct cm_list errand;              /* in pool->errands while anything is wanted */
    unsigned wanted;                    /* WANT_… bits: the host is to be asked */

    struct cooled *cooled; /* owned */
    uint64_t mask;         /* their bits */
    struct pair *pairs;    /* owned */
    size_t n_pairs;
    uint64_t served_model[2],
        served_ms[2]; /* the last two models that were answered well, and when; 0 = none */

    int64_t inflight;
    unsigned trials;   /* leases given while half open */
    uint64_t seq;      /* rank of the last use; 0 = never */
    uint64_t ready_ms; /* min_interval */
    uint64_t used_ms;  /* 0 = not in this process */
    int64_t used_unix_ms, created_ms;
    int64_t requests, failures, tokens_in, tokens_out;
    int64_t month_ms, month_requests; /* of the month that began then; Unix */

    enum place place, was; /* was: before cred_take() */
    struct due ret;
    struct cred *up, *left, *right; /* in a tree */
    uint64_t all;                   /* models for which everybody from here down is cooled */
    int64_t rich[CM_PURSES];        /* the most that anybody from here down can pay */
    uint32_t prio;
    struct cm_list fresh; /* in pool->fresh */
};

struct affinity;

struct cm_pool {
    const struct cm_clock *clock;
    struct cm_pool_host host;
    struct cm_rng rng;
    struct cm_list providers;
    struct cm_map by_name, by_id;    /* -> struct provider, struct cred */
    uint64_t now_ms;                 /* as of the call that is running */
    int64_t wall_offset_ms;          /* Unix minus monotonic time when limits were told last */
    int64_t month_ms, month_ends_ms; /* the month it was when somebody asked last; Unix */
    uint64_t seq, salts;
    struct heap chores;     /* cred->chore */
    struct heap patience;   /* cm_pool_wait->patience */
    struct cm_list fresh;   /* struct cred: can serve more than when the queue was looked at */
    struct cm_list errands; /* struct cred */
    struct cm_list pairs;   /* struct pair, by last use */
    size_t n_pairs;
    struct cm_list answers; /* struct cm_pool_wait: served or given up, not told yet */
    bool telling;
    struct affinity *affinity; /* NULL until somebody needs it */
    struct cm_lease *spare;    /* to be used again */
    struct cooled *spare_cooled;
    size_t n_leases, n_waits;
    uint64_t ops; /* steps in trees, heaps and queues so far */
};

struct cm_lease {
    struct cm_pool *pool;
    struct cred *cred;
    struct ident *ident;   /* a reference */
    struct cm_lease *next; /* while spare */
    unsigned secret_gen;
    bool trial;     /* given while half open: it decides */
    bool isolated;  /* connections are not shared */
    bool uncounted; /* no request of the month */
    struct cm_choice choice;
    bool held; /* its cost is set aside */
    unsigned purse;
    int64_t cost;
    uint64_t model_hash; /* 0 = no model */
    uint64_t pair_trial; /* decides about account and model; 0 = does not */
    char model[64];      /* for the log; cut */
};

uint64_t pool_enter(struct cm_pool *pool); /* the time */
void pool_settle(struct cm_pool *pool);
int64_t pool_unix_now(const struct cm_pool *pool);
int64_t pool_unix_of(const struct cm_pool *pool, uint64_t mono_ms); /* 0 stays 0 */
uint64_t pool_mono_of(const struct cm_pool *pool,
                      int64_t unix_ms);          /* at most 31 days ahead; what is over is now */
uint64_t pool_steps(const struct cm_pool *pool); /* for tests: work done so far */

struct ident *ident_new(const struct cred *c, struct cm_str label, struct cm_str secret,
                        struct cm_str token, struct cm_str proxy);
void ident_unref(struct ident *i);

static inline uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

struct provider *provider_find(const struct cm_pool *pool, struct cm_str name);
struct cred *cred_find(const struct cm_pool *pool, uint64_t id);
void cred_info(const struct cm_pool *pool, const struct cred *c, struct cm_cred_info *out);
void cred_tell(const struct cred *c); /* the host, what is to be kept */
void cred_remove(struct cred *c);
void cred_free(struct cred *c); /* removed before, no lease is out */
void cred_set_token(struct cred *c, struct cm_str token);

/* ---- states ---- */

void cred_take(struct cred *c);  /* out of its place, before its rank or state changes */
void cred_place(struct cred *c); /* back to where it belongs now */
void cred_set(struct cred *c, enum cm_cred_state state, uint64_t until_ms, const char *reason);
/* To ok, unless a limit still runs, the token is over, or a real request has to decide. */
void cred_resume(struct cred *c, const char *reason);
void cred_reset(struct cred *c, const char *reason);
void cred_judge(struct cm_lease *lease, const struct cm_err *why); /* NULL: served well */
void cred_judge_probe(struct cred *c, const struct cm_err *why);
/* How long a limit lasts. `decided`: the one request of half_open met it, and the last time was `before_ms`. */
uint64_t limit_length(uint64_t for_ms, uint64_t before_ms, bool decided);
extern const char lacks_reason[]; /* of a credential that cannot serve before something is set */
/* `text` NULL: nothing any more. All who depend on it change their state. */
void provider_lacks(struct provider *p, const char *text, bool known);
void provider_wake(struct provider *p); /* whose time has come */
bool secretless(const struct cred *c);

void cred_stir(struct cred *c); /* it can serve more than before: somebody who waits may want it */

/* ---- models an account does without ---- */

uint64_t model_hash(struct cm_str model);
uint64_t model_bit(const struct provider *p, uint64_t hash);
void model_absent(struct cm_lease *lease, uint64_t until_ms);
void cooled_wake(struct cooled *m);      /* its time has come */
void cred_forget_models(struct cred *c); /* cooled ones and breakers */
void pair_begins(struct cm_lease *lease);
enum pair_result {
    PAIR_ANSWERED,
    PAIR_FAILED,
    PAIR_UNDECIDED /* the client left, a limit of the account, the request itself */
};
/* Before the state of the account is judged; the lease's secret is still the account's. */
void pair_ends(struct cm_lease *lease, enum pair_result result);
/* A limit of the model alone, for at least so long; the rest is as with a limit of the account. False: no room to remember it. */
bool pair_limit(struct cm_lease *lease, uint64_t for_ms);
/* What failed is the model's fault alone, as the account serves others. decides: it was the one request of half_open. */
bool pair_takes_blame(const struct cm_lease *lease, bool decides);

/* ---- what a month allows ---- */

extern const char month_reason[];         /* of a credential that has had its requests */
int64_t month_used(const struct cred *c); /* requests of this month */
bool month_is_out(const struct cred *c);  /* all that are left are out */
/* True: it has had them, which ends no earlier than its limit, and is exhausted. */
bool month_rest(struct cred *c);
/* After the count, the limit or the clock has changed: exhausted, or no longer. */
void month_judge(struct cred *c);
int64_t month_count(struct cm_lease *lease); /* one request more; its month, 0 = none */

/* ---- credit ---- */

int64_t cred_purse(const struct cred *c,
                   unsigned purse); /* what it can pay; INT64_MAX = not known */
void cred_restore_credit(struct cred *c, const struct cm_credit *kept); /* of a new one */
void cred_forget_credit(struct cred *c);
void cred_told(struct cred *c, struct cm_str quota, const struct cm_credit *credit);
void credit_hold(struct cm_lease *lease); /* both between cred_take() and cred_place() */
void credit_release(struct cm_lease *lease, bool spent); /* held no more; spent: it is gone */
bool credit_short(const struct cm_lease *lease);         /* it is known not to be able to pay */
bool credit_gone(const struct cred *c);                  /* known, and nothing is left */

/* ---- errands ---- */

bool can_refresh(const struct cred *c);
void cred_want_refresh(struct cred *c); /* single flight */
void cred_plan(struct cred *c,
               int64_t expires_unix_ms); /* a token that is valid until then; 0 = not known */
void cred_replan(struct cred *c);        /* its state or its times have changed */
void cred_plan_first_probe(struct cred *c);
void pool_chores(struct cm_pool *pool);
void pool_run_errands(struct cm_pool *pool);

/* ---- choosing, waiting, conversations ---- */

struct cm_lease *lease_new(struct cred *c, const struct cm_pool_ask *ask, uint64_t hash,
                           struct cm_choice choice);
void lease_end(struct cm_lease *lease,
               bool spent); /* without a verdict; spent: the platform has charged for it */
bool want_suits(const struct want *w, const struct cred *c);
struct want ask_want(const struct provider *p, const struct cm_pool_ask *ask, uint64_t hash);
struct cm_lease *ask_lease(struct provider *p, const struct cm_pool_ask *ask, uint64_t hash);
/* Somebody may be able to serve it before then. */
bool ask_hopeful(struct provider *p, const struct cm_pool_ask *ask, uint64_t hash, uint64_t by_ms);
/* Notes in *choice what the conversation is bound to. */
void ask_bind(struct cm_pool *pool, const struct provider *p, const struct cm_pool_ask *ask,
              const struct cred *c, struct cm_choice *choice);
void ask_fail(struct cm_pool *pool, struct provider *p, const struct cm_pool_ask *ask,
              struct cm_err *err);

void wait_match(struct cm_pool *pool); /* those who became fit meet those who wait */
void wait_give_up(struct cm_pool *pool);
void wait_orphan(struct provider *p); /* its provider goes: all are refused */
void pool_tell(struct cm_pool *pool);

struct binding {
    uint64_t key;   /* conversation and provider */
    uint64_t home;  /* credential */
    uint64_t guest; /* borrowed while home is limited; 0 = none */
    uint64_t used_ms;
    uint32_t older, newer; /* 0 = none; entries count from 1 */
    uint32_t chain;
};
void affinity_free(struct affinity *a);
struct binding *affinity_find(struct cm_pool *pool,
                              uint64_t key); /* NULL: none that is still good */
struct binding *
affinity_use(struct cm_pool *pool,
             uint64_t key); /* makes one with home 0 if need be; now the most recently used */
size_t affinity_count(const struct cm_pool *pool);

#endif
