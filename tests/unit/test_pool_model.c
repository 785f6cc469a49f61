/* Pool: a million random steps beside a model that is too simple to be wrong.
 *
 * The model remembers what was told to the pool, and judges what comes out: who may serve, in which order those who wait are served, that nobody waits
 * while somebody fit is free, that every figure equals a recount. SEED repeats a run, STEPS makes it longer. */
#include "unit.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"
#include "chatmux/pool/pool.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define PROVIDERS 3
#define PER_PROVIDER 6
#define CREDS                                                                                      \
    (PROVIDERS * PER_PROVIDER) /* ids 1 … CREDS; id - 1 modulo PROVIDERS is the provider */
#define MODELS 4
#define TALKS 8
#define LEASES 64
#define WAITS 24
#define HOUR INT64_C(3600000)
#define MALLOC_KEEPS 65536

enum blame { BLAME_NONE, BLAME_EXPIRED, BLAME_VERIFY, BLAME_DEAD };

struct shadow { /* a credential */
    bool present, enabled, keyless;
    unsigned life, secret_gen, token_gen; /* of its number, of its secret, of its token */
    int64_t weight, cap;
    int64_t inflight, trials;
    uint64_t ready_ms, limit_ms, model_ms[MODELS];
    uint64_t seq;
    enum blame blame;
    bool refreshing, refresh_void;
    bool rich; /* its credit is not known, which is taken for enough */
    int64_t left[CM_PURSES], held[CM_PURSES];
};

struct held {
    struct cm_lease *lease; /* NULL = free place */
    uint64_t id;
    unsigned life, secret_gen, token_gen;
    bool keyless, trial, sets_aside;
    int model;
    int64_t cost;
    unsigned purse;
};

struct waiter {
    struct cm_pool_wait *wait; /* NULL = free place */
    uint64_t order, since_ms, deadline_ms;
    int provider, model;
    struct cm_tried tried;
    uint64_t only, talk;
    int64_t cost;
    unsigned purse;
};

static struct cm_pool *pool;
static struct cm_rng rng;
static uint64_t seed, step, mono, seq, orders, calls;
static uint64_t trials, waited; /* leases given while half open, and after waiting */
static int64_t wall_ahead;
static bool nesting;
static struct cm_pool_provider providers[PROVIDERS];
static struct shadow cred[CREDS + 1];
static struct cm_cred_info
    info[CREDS + 1]; /* as the pool shows them; the slices are not looked at */
static struct held held[LEASES];
static struct waiter waiters[WAITS];
static struct {
    uint64_t home, used_ms;
} talks[TALKS + 1];
static const struct cm_str models[MODELS] = {CM_S_INIT("a"), CM_S_INIT("b"), CM_S_INIT("c"),
                                             CM_S_INIT("d")};

#define must(cond, ...)                                                                            \
    do {                                                                                           \
        if (!(cond))                                                                               \
            fail_at(__LINE__, #cond, __VA_ARGS__);                                                 \
    } while (0)

__attribute__((format(printf, 3, 4))) static void fail_at(int line, const char *cond,
                                                          const char *fmt, ...)
{
    char text[200];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    ck_abort_msg("SEED=%llu step %llu line %d: %s: %s", (unsigned long long)seed,
                 (unsigned long long)step, line, cond, text);
}

static uint64_t below(uint64_t n)
{
    return cm_rng_below(&rng, n);
}

static uint64_t read_mono(void *arg)
{
    (void)arg;
    return mono;
}

static int64_t read_wall(void *arg)
{
    (void)arg;
    return INT64_C(1700000000000) + (int64_t)mono + wall_ahead;
}

static int provider_of(uint64_t id)
{
    return (int)((id - 1) % PROVIDERS);
}

/* ---- the host ---- */

static void on_state(void *arg, const struct cm_cred_info *told)
{
    (void)arg;
    must(cred[told->id].present, "%llu is told", (unsigned long long)told->id);
}

static void on_refresh(void *arg, const struct cm_cred_info *told)
{
    struct shadow *c = &cred[told->id];

    (void)arg;
    must(c->present && !c->refreshing, "%llu is refreshed twice", (unsigned long long)told->id);
    c->refreshing = true;
}

static void on_probe(void *arg, const struct cm_cred_info *told)
{
    (void)arg;
    must(told->state == CM_CRED_STATE_NEEDS_LOGIN || told->state == CM_CRED_STATE_VERIFY ||
             !told->credit.known,
         "%llu is %s", (unsigned long long)told->id, cm_cred_state_name(told->state));
}

/* ---- who may serve ---- */

static bool tried_has(const struct cm_tried *tried, uint64_t id)
{
    for (size_t i = 0; i < tried->n; i++)
        if (tried->ids[i] == id)
            return true;
    return false;
}

static void look(uint64_t id)
{
    bool there = cm_pool_get(pool, id, &info[id]);

    must(there == cred[id].present, "%llu", (unsigned long long)id);
    if (there && !info[id].credit.known)
        cred[id].rich = true; /* a figure does not last: the pool's own test tells how long */
    for (unsigned i = 0; there && !cred[id].rich && i < CM_PURSES; i++)
        must(info[id].credit.left[i] == cred[id].left[i], "%llu has %lld, not %lld",
             (unsigned long long)id, (long long)info[id].credit.left[i],
             (long long)cred[id].left[i]);
}

static int64_t cap_of(uint64_t id)
{
    return cred[id].cap ? cred[id].cap : providers[provider_of(id)].max_inflight;
}

static bool pays(uint64_t id, const struct waiter *w)
{
    const struct shadow *c = &cred[id];

    return c->rich || w->cost == 0 || c->left[w->purse] - c->held[w->purse] >= w->cost;
}

static bool matches(uint64_t id, const struct waiter *w)
{
    return provider_of(id) == w->provider && !tried_has(&w->tried, id) &&
           (!w->only || w->only == id) && cred[id].model_ms[w->model] <= mono && pays(id, w);
}

static bool fit(uint64_t id)
{
    const struct shadow *c = &cred[id];
    enum cm_cred_state state = info[id].state;

    return c->present && (state == CM_CRED_STATE_OK || state == CM_CRED_STATE_HALF_OPEN) &&
           (state == CM_CRED_STATE_OK || c->trials == 0) &&
           (cap_of(id) == 0 || c->inflight < cap_of(id)) && c->ready_ms <= mono;
}

static void look_all(void)
{
    for (uint64_t id = 1; id <= CREDS; id++)
        if (cred[id].present)
            look(id);
}

/* A lease has come: it must have been allowed. */
static struct held *hold(struct cm_lease *lease, const struct waiter *w)
{
    uint64_t id = cm_lease_id(lease), talk = w->talk;
    struct shadow *c = &cred[id];
    struct held *h = held;
    bool home_is_out;

    look(id);
    must(c->present && c->enabled, "%llu", (unsigned long long)id);
    must(matches(id, w), "%llu does not suit", (unsigned long long)id);
    must(info[id].state == CM_CRED_STATE_OK || info[id].state == CM_CRED_STATE_HALF_OPEN,
         "%llu is %s", (unsigned long long)id, cm_cred_state_name(info[id].state));
    must(fit(id), "%llu: %lld in flight, cap %lld, %lld trials, ready %lld, now %lld",
         (unsigned long long)id, (long long)c->inflight, (long long)cap_of(id),
         (long long)c->trials, (long long)c->ready_ms, (long long)mono);
    must(c->limit_ms <= mono, "%llu is limited for %llu ms", (unsigned long long)id,
         (unsigned long long)(c->limit_ms - mono));
    must(c->blame == BLAME_NONE, "%llu was refused", (unsigned long long)id);
    if (talk && !w->only) {
        uint64_t home = mono - talks[talk].used_ms < HOUR ? talks[talk].home : 0;

        if (home)
            look(home);
        home_is_out = !home || !cred[home].present || info[home].state >= CM_CRED_STATE_NEEDS_LOGIN;
        talks[talk].home = home_is_out ? id : home;
        talks[talk].used_ms = mono;
    }
    c->inflight++;
    c->seq = ++seq;
    c->ready_ms = mono + (uint64_t)providers[w->provider].min_interval_ms;
    c->held[w->purse] += w->cost;
    while (h->lease)
        h++;
    *h = (struct held){.lease = lease,
                       .id = id,
                       .life = c->life,
                       .secret_gen = c->secret_gen,
                       .token_gen = c->token_gen,
                       .keyless = c->keyless,
                       .trial = info[id].state == CM_CRED_STATE_HALF_OPEN,
                       .sets_aside = w->cost > 0,
                       .model = w->model,
                       .cost = w->cost,
                       .purse = w->purse};
    c->trials += h->trial;
    trials += h->trial;
    return h;
}

/* ---- verdicts ---- */

static const enum cm_err_class ends[] = {
    CM_ERR_NONE,
    CM_ERR_NONE,
    CM_ERR_NONE,
    CM_ERR_NONE,
    CM_ERR_NONE,
    CM_ERR_NONE,
    CM_ERR_RATE_LIMITED,
    CM_ERR_RATE_LIMITED,
    CM_ERR_QUOTA_EXHAUSTED,
    CM_ERR_CUT,
    CM_ERR_TIMEOUT,
    CM_ERR_MODEL_UNAVAILABLE,
    CM_ERR_BAD_REQUEST,
    CM_ERR_EXPIRED,
    CM_ERR_INVALID_CREDENTIAL,
    CM_ERR_VERIFICATION_REQUIRED,
};

static void later(uint64_t *deadline_ms, uint64_t ms)
{
    if (mono + ms > *deadline_ms)
        *deadline_ms = mono + ms;
}

static void blame(struct shadow *c, enum blame b)
{
    if (b > c->blame)
        c->blame = b;
}

static bool gone(const struct shadow *c)
{
    for (unsigned i = 0; i < CM_PURSES; i++)
        if (c->rich || c->left[i] > 0)
            return false;
    return true;
}

static void judge(uint64_t id, enum cm_err_class cls, uint64_t told_ms, bool same_token,
                  const struct held *h)
{
    struct shadow *c = &cred[id];
    int64_t cooldown = providers[provider_of(id)].cooldown_ms;
    int model = h ? h->model : -1;

    if (cls == CM_ERR_QUOTA_EXHAUSTED && h && !c->rich && c->left[h->purse] < h->cost && !gone(c))
        return; /* it can pay for others */

    if (cls == CM_ERR_RATE_LIMITED)
        later(&c->limit_ms, told_ms ? told_ms : cooldown ? (uint64_t)cooldown : 60000);
    else if (cls == CM_ERR_QUOTA_EXHAUSTED)
        later(&c->limit_ms, told_ms ? told_ms : HOUR);
    else if (cls == CM_ERR_MODEL_UNAVAILABLE && model >= 0)
        later(&c->model_ms[model], told_ms ? told_ms : 600000);
    else if (cls == CM_ERR_INVALID_CREDENTIAL)
        blame(c, BLAME_DEAD);
    else if (cls == CM_ERR_VERIFICATION_REQUIRED)
        blame(c, BLAME_VERIFY);
    else if (cls == CM_ERR_EXPIRED && same_token)
        blame(c, BLAME_EXPIRED);
}

static void give_back(struct held *h, enum cm_err_class cls)
{
    struct cm_err why = {.cls = cls, .retry_after_s = below(2) ? (int)below(200) : 0};
    struct held was = *h;
    struct shadow *c = &cred[was.id];
    char secret[40];

    snprintf(secret, sizeof(secret), "sk-%llu-%u-%u", (unsigned long long)was.id, was.life,
             was.secret_gen);
    must(cm_str_eq(cm_lease_secret(was.lease), was.keyless ? CM_S("") : cm_str_of(secret)),
         "secret of %llu", (unsigned long long)was.id);
    h->lease = NULL;
    if (c->present && was.life == c->life) {
        c->inflight--;
        c->trials -= was.trial;
        if (!was.keyless && was.secret_gen == c->secret_gen)
            judge(was.id, cls, (uint64_t)why.retry_after_s * 1000, was.token_gen == c->token_gen,
                  &was);
        if (was.secret_gen == c->secret_gen && was.sets_aside) {
            c->held[was.purse] -= was.cost;
            if (cls == CM_ERR_NONE || cls == CM_ERR_CUT || cls == CM_ERR_TIMEOUT)
                c->left[was.purse] =
                    c->left[was.purse] > was.cost ? c->left[was.purse] - was.cost : 0;
        }
    }
    if (cls == CM_ERR_NONE && below(4) == 0)
        cm_lease_cancel(was.lease, NULL);
    else
        cm_lease_give_back(was.lease, cls ? &why : NULL, 1, 1);
}

/* ---- waiting ---- */

static void on_lease(void *arg, struct cm_lease *lease, const struct cm_err *err)
{
    struct waiter w = *(struct waiter *)arg;
    struct held *h;

    calls++;
    ((struct waiter *)arg)->wait = NULL;
    if (!lease) {
        must((err->cls == CM_ERR_NO_CREDENTIAL || err->cls == CM_ERR_QUOTA_EXHAUSTED) &&
                 mono >= w.deadline_ms,
             "given up too early");
        return;
    }
    for (struct waiter *o = waiters; o < waiters + WAITS; o++)
        must(!o->wait || o->order > w.order || o->provider != w.provider ||
                 !matches(cm_lease_id(lease), o),
             "%llu was overtaken", (unsigned long long)o->order);
    h = hold(lease, &w);
    waited += mono > w.since_ms;
    if (nesting && below(4) == 0)
        give_back(h, CM_ERR_NONE);
}

static void nobody_waits_in_vain(void)
{
    for (struct waiter *w = waiters; w < waiters + WAITS; w++)
        for (uint64_t id = 1; w->wait && id <= CREDS; id++)
            must(!matches(id, w) || !fit(id), "%llu is fit, and %llu waits", (unsigned long long)id,
                 (unsigned long long)w->order);
}

/* What the gateway's timer does. */
static void tick(void)
{
    cm_pool_tick(pool);
    for (struct waiter *w = waiters; w < waiters + WAITS; w++)
        must(!w->wait || w->deadline_ms > mono, "nobody told %llu", (unsigned long long)w->order);
}

static void pass(uint64_t ms)
{
    uint64_t until = mono + ms, due;
    int turns = 0;

    while ((due = cm_pool_next_ms(pool)) <= until) {
        mono = due > mono ? due : mono;
        tick();
        must(++turns < 10000, "the timer does not come to rest");
    }
    mono = until;
    look_all();
    nobody_waits_in_vain(); /* the timer went off for everybody who could be served by now */
}

/* ---- steps ---- */

static struct cm_tried random_tried(int provider)
{
    struct cm_tried tried = {.n = 0};

    while (below(3) == 0 && tried.n < 4)
        tried.ids[tried.n++] = (uint64_t)provider + 1 + below(PER_PROVIDER) * PROVIDERS;
    return tried;
}

static size_t n_held(void)
{
    size_t n = 0;

    for (size_t i = 0; i < LEASES; i++)
        n += held[i].lease != NULL;
    return n;
}

static struct cm_pool_ask random_ask(struct waiter *w)
{
    w->provider = (int)below(PROVIDERS);
    w->model = (int)below(MODELS);
    w->tried = random_tried(w->provider);
    w->only = below(8) ? 0 : (uint64_t)w->provider + 1 + below(PER_PROVIDER) * PROVIDERS;
    w->talk = below(2) ? 0 : (uint64_t)w->provider + 1 + below(2) * PROVIDERS;
    w->cost = below(3) ? 0 : (int64_t)below(60);
    w->purse = (unsigned)below(CM_PURSES);
    return (struct cm_pool_ask){.provider = providers[w->provider].name,
                                .model = models[w->model],
                                .tried = &w->tried,
                                .affinity = w->talk,
                                .only = w->only,
                                .cost = w->cost,
                                .purse = w->purse};
}

/* The best of its weight must serve; a conversation stays where it is when it can. */
static void must_be_best(uint64_t id, const struct waiter *w, uint64_t home)
{
    const struct shadow *c = &cred[id];

    if (w->only)
        return;
    if (home && home != id)
        must(!fit(home) || !matches(home, w), "not at home %llu but at %llu",
             (unsigned long long)home, (unsigned long long)id);
    if (w->talk)
        return;
    for (uint64_t o = 1; o <= CREDS; o++) {
        if (o == id || !cred[o].present || cred[o].weight != c->weight || !fit(o) || !matches(o, w))
            continue;
        must(c->inflight < cred[o].inflight ||
                 (c->inflight == cred[o].inflight && c->seq < cred[o].seq) ||
                 (c->seq == cred[o].seq && id < o),
             "%llu before %llu", (unsigned long long)id, (unsigned long long)o);
    }
}

static void step_lease(void)
{
    struct waiter w = {0};
    struct cm_pool_ask ask = random_ask(&w);
    uint64_t home = w.talk && mono - talks[w.talk].used_ms < HOUR ? talks[w.talk].home : 0;
    struct cm_err err = {0};
    struct cm_lease *lease;
    uint64_t before = calls;
    bool paid[CREDS + 1]; /* a figure that the tick below forgets was still believed */

    if (n_held() > LEASES - WAITS - 1)
        return;
    lease = cm_pool_lease(pool, &ask, &err);
    for (uint64_t id = 1; id <= CREDS; id++)
        paid[id] = pays(id, &w);
    nesting = false; /* those who wait come before us, and keep what they get */
    tick();
    nesting = true;
    look_all();
    if (lease) {
        if (talks[w.talk].used_ms == mono)
            home = 0; /* one of them may have moved the conversation */
        must_be_best(cm_lease_id(lease), &w, home);
        hold(lease, &w);
        return;
    }
    must(err.cls == CM_ERR_NO_CREDENTIAL || (w.cost && err.cls == CM_ERR_QUOTA_EXHAUSTED), "%s",
         err.msg);
    for (uint64_t id = 1; id <= CREDS && calls == before; id++)
        must(!cred[id].present || !fit(id) || !matches(id, &w) || !paid[id], "%llu is fit",
             (unsigned long long)id);
}

static void step_wait(void)
{
    struct waiter *w = &waiters[below(WAITS)];
    struct cm_pool_ask ask;
    int64_t max_ms = (int64_t)below(20000);
    struct cm_err err = {0};

    if (w->wait || n_held() > LEASES - WAITS - 1)
        return;
    ask = random_ask(w);
    w->order = ++orders;
    w->since_ms = mono;
    w->deadline_ms = mono + (uint64_t)max_ms;
    w->wait = cm_pool_wait(pool, &ask, max_ms, on_lease, w, &err);
    must(w->wait || err.cls == CM_ERR_NO_CREDENTIAL ||
             (w->cost && err.cls == CM_ERR_QUOTA_EXHAUSTED),
         "%s", err.msg);
}

static void step_cancel_wait(void)
{
    struct waiter *w = &waiters[below(WAITS)];

    if (w->wait)
        cm_pool_wait_cancel(w->wait);
    w->wait = NULL;
}

static void step_give_back(void)
{
    struct held *h = &held[below(LEASES)];

    for (int i = 0; i < LEASES && !h->lease; i++)
        h = h == held + LEASES - 1 ? held : h + 1;
    if (h->lease)
        give_back(h, ends[below(CM_COUNT(ends))]);
}

static void forget(struct shadow *c)
{
    c->rich = true;
    c->limit_ms = 0;
    memset(c->model_ms, 0, sizeof(c->model_ms));
    c->blame = BLAME_NONE;
}

static void step_told(void)
{
    uint64_t id = 1 + below(CREDS);
    struct shadow *c = &cred[id];
    struct cm_credit credit = {.known = true, .left = {0}};
    struct held *h = &held[below(LEASES)];

    bool own = below(2) && h->lease; /* what the end of an answer told */
    bool counts;

    for (unsigned i = 0; i < CM_PURSES; i++)
        credit.left[i] = (int64_t)below(below(3) ? 3000 : 100);
    c = own ? &cred[h->id] : c;
    counts = c->present && (!own || (h->life == c->life && h->secret_gen == c->secret_gen));
    if (counts && own && h->sets_aside)
        c->held[h->purse] -= h->cost;
    if (counts && own)
        h->sets_aside = false;
    if (counts)
        memcpy(c->left, credit.left, sizeof(c->left));
    if (counts)
        c->rich = false;
    if (own)
        cm_lease_told(h->lease, CM_STR_NONE, &credit);
    else
        cm_pool_told(pool, id, CM_STR_NONE, &credit);
}

static void step_put(void)
{
    uint64_t id = 1 + below(CREDS);
    struct shadow *c = &cred[id];
    char secret[40], token[40];
    bool is_new = !c->present;
    struct cm_cred_info put = {.id = id, .provider = providers[provider_of(id)].name};

    if (is_new) {
        unsigned life = c->life + 1;

        memset(c, 0, sizeof(*c));
        c->life = life;
        c->present = true;
        c->keyless = below(10) == 0;
        c->enabled = true;
        c->rich = true;
    } else if (!c->keyless && below(4) == 0) {
        c->secret_gen++;
        c->token_gen++;
        forget(c);
        memset(c->held, 0, sizeof(c->held));
        c->refresh_void = c->refreshing;
    } else if (below(4) == 0) {
        if (!c->enabled)
            c->blame = BLAME_NONE;
        c->enabled = !c->enabled;
    }
    c->weight = 1 + (int64_t)below(3);
    c->cap = (int64_t)below(3);
    snprintf(secret, sizeof(secret), "sk-%llu-%u-%u", (unsigned long long)id, c->life,
             c->secret_gen);
    snprintf(token, sizeof(token), "t-%u", c->token_gen);
    put.secret = c->keyless ? CM_STR_NONE : cm_str_of(secret);
    put.token = c->keyless ? CM_STR_NONE : cm_str_of(token);
    put.token_expires_ms = below(2) ? read_wall(NULL) + (int64_t)below(HOUR) : 0;
    put.enabled = c->enabled;
    put.weight = c->weight;
    put.max_inflight = c->cap;
    if (is_new && below(3) == 0) { /* from the store */
        put.state = CM_CRED_STATE_COOLING;
        put.reason = CM_S("rate_limited");
        put.until_ms = read_wall(NULL) + (int64_t)below(100000) - 20000;
        if (put.until_ms > read_wall(NULL))
            c->limit_ms = mono + (uint64_t)(put.until_ms - read_wall(NULL));
    }
    cm_pool_put(pool, &put);
}

static void step_remove(void)
{
    uint64_t id = 1 + below(CREDS);

    cm_pool_remove(pool, id);
    cred[id].present = false;
    cred[id].refreshing = false;
}

static void step_reset(void)
{
    uint64_t id = 1 + below(CREDS);

    forget(&cred[id]);
    must(cm_pool_reset(pool, id) == cred[id].present, "%llu", (unsigned long long)id);
}

static void step_refreshed(void)
{
    static const enum cm_err_class bad[] = {CM_ERR_TIMEOUT, CM_ERR_RATE_LIMITED, CM_ERR_EXPIRED,
                                            CM_ERR_VERIFICATION_REQUIRED};
    uint64_t id = 1 + below(CREDS);
    struct shadow *c = &cred[id];
    struct cm_err why = {0};
    char token[40];
    bool counts = c->present && !c->refresh_void;

    if (!c->refreshing)
        return;
    c->refreshing = c->refresh_void = false;
    if (below(2)) {
        if (counts)
            c->token_gen++;
        if (counts && c->blame == BLAME_EXPIRED)
            c->blame = BLAME_NONE;
        snprintf(token, sizeof(token), "t-%u", c->token_gen);
        cm_pool_refreshed(pool, id, cm_str_of(token),
                          below(2) ? read_wall(NULL) + (int64_t)below(HOUR) : 0, NULL);
    } else {
        why.cls = bad[below(CM_COUNT(bad))];
        if (counts && why.cls == CM_ERR_EXPIRED)
            blame(c, BLAME_EXPIRED);
        if (counts && why.cls == CM_ERR_VERIFICATION_REQUIRED)
            blame(c, BLAME_VERIFY);
        cm_pool_refreshed(pool, id, CM_STR_NONE, 0, &why);
    }
}

static void step_probed(void)
{
    uint64_t id = 1 + below(CREDS);
    struct shadow *c = &cred[id];
    struct cm_err why = {.cls = below(2) ? CM_ERR_NONE : ends[below(CM_COUNT(ends))],
                         .retry_after_s = (int)below(100)};

    if (!c->present || c->keyless)
        return;
    look(id);
    if (why.cls)
        judge(id, why.cls, (uint64_t)why.retry_after_s * 1000, true, NULL);
    else if (c->enabled && info[id].state >= CM_CRED_STATE_NEEDS_LOGIN)
        c->blame = BLAME_NONE;
    cm_pool_probed(pool, id, below(2) ? CM_S("{\"left\":1}") : CM_S("{\"left\":2}"),
                   why.cls ? &why : NULL);
}

static void step_providers(void)
{
    struct cm_pool_provider *p = &providers[below(PROVIDERS)];

    p->max_inflight = (int64_t)below(4);
    p->min_interval_ms = below(2) ? 0 : (int64_t)below(300);
    p->cooldown_ms = (int64_t)below(30000);
    p->isolated = below(2);
    cm_pool_providers(pool, providers, PROVIDERS);
}

static void step_time(void)
{
    uint64_t ms = below(50) ? below(400) : below(20) ? below(60000) : below(3 * HOUR);

    if (below(500) == 0)
        wall_ahead += (int64_t)below(48 * HOUR) - 24 * HOUR;
    if (below(4))
        pass(ms);
    else
        mono += below(400); /* the timer is late: what comes next sees the time first */
}

/* ---- after each step ---- */

static void recount(void)
{
    for (int p = 0; p < PROVIDERS; p++) {
        struct cm_pool_counts n, own = {0};

        for (uint64_t id = 1; id <= CREDS; id++) {
            if (!cred[id].present || provider_of(id) != p)
                continue;
            own.state[info[id].state]++;
            own.total++;
            own.inflight += (size_t)cred[id].inflight;
            must(info[id].inflight == cred[id].inflight, "%llu", (unsigned long long)id);
        }
        for (size_t i = 0; i < WAITS; i++)
            own.waiting += waiters[i].wait && waiters[i].provider == p;
        cm_pool_count(pool, providers[p].name, &n);
        must(memcmp(&n, &own, sizeof(n)) == 0, "counts of provider %d", p);
    }
}

static void one_step(void)
{
    uint64_t what = below(100);

    if (what < 30)
        step_lease();
    else if (what < 55)
        step_give_back();
    else if (what < 68)
        step_wait();
    else if (what < 70)
        step_cancel_wait();
    else if (what < 86)
        step_time();
    else if (what < 88)
        step_told();
    else if (what < 92)
        step_put();
    else if (what < 93)
        step_remove();
    else if (what < 95)
        step_reset();
    else if (what < 98)
        step_refreshed();
    else if (what < 99)
        step_probed();
    else
        step_providers();
    tick();
    look_all();
    recount();
    nobody_waits_in_vain();
}

static void a_life(uint64_t steps)
{
    static const struct cm_clock clock = {read_mono, read_wall, NULL};
    static const struct cm_pool_host host = {on_state, on_refresh, on_probe, NULL};
    uint64_t leases = 0;

    mono = 1 + below(1000000);
    memset(cred, 0, sizeof(cred));
    memset(talks, 0, sizeof(talks));
    for (int i = 0; i < PROVIDERS; i++) {
        static const struct cm_str names[] = {CM_S_INIT("up"), CM_S_INIT("down"),
                                              CM_S_INIT("side")};

        providers[i] = (struct cm_pool_provider){
            .name = names[i], .max_inflight = 2, .can_refresh = i > 0, .can_probe = i > 1};
    }
    pool = cm_pool_new(&clock, &host, seed);
    cm_pool_providers(pool, providers, PROVIDERS);
    leases = seq;
    for (step = 0; step < steps; step++)
        one_step();
    must(
        steps < 10000 || (seq - leases > steps / 8 && trials > steps / 200 && waited > steps / 100),
        "only %llu leases, %llu while half open, %llu after waiting",
        (unsigned long long)(seq - leases), (unsigned long long)trials, (unsigned long long)waited);
    nesting = false;
    for (struct waiter *w = waiters; w < waiters + WAITS; w++) {
        if (w->wait)
            cm_pool_wait_cancel(w->wait);
        w->wait = NULL;
    }
    for (struct held *h = held; h < held + LEASES; h++)
        if (h->lease)
            give_back(h, CM_ERR_NONE);
    cm_pool_free(pool);
}

/* malloc counts some of what was freed as in use; the sanitizer build looks for leaks exactly, at the end. */
static size_t in_use(void)
{
#ifdef UNIT_ASAN
    return 0;
#else
    return mallinfo2().uordblks;
#endif
}

START_TEST(a_million_steps)
{
    const struct cm_log_setup quiet = {.fd = 2, .level = CM_LOG_ERROR};
    const char *text = getenv("SEED"), *steps = getenv("STEPS");
    uint64_t n = steps ? strtoull(steps, NULL, 10) : 1000000;
    size_t before;

    cm_log_setup(&quiet);
    if (text)
        seed = strtoull(text, NULL, 10);
    else
        cm_rand_bytes(&seed, sizeof(seed));
    printf("pool_model: SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    cm_rng_seed(&rng, seed);
    nesting = true;
    a_life(1000); /* so that what stays for good is there */
    before = in_use();
    nesting = true;
    a_life(n);
    ck_assert_uint_le(in_use(), before + MALLOC_KEEPS);
}
END_TEST

Suite *suite_pool_model(void)
{
    Suite *s = suite_create("pool_model");
    TCase *c = tcase_create("walk");

    tcase_set_timeout(c, 240);
    tcase_add_test(c, a_million_steps);
    suite_add_tcase(s, c);
    return s;
}
