/* Models that an account does without: those that the platform said are not there, and those that fail too often on this account (a breaker for each
 * account and model). Both end as a bit in its mask, which is all that choosing looks at. */
#include "pool_int.h"

#include "chatmux/base/log.h"

#include <stdlib.h>

#define BUCKET_MS (6 * SECOND_MS) /* ten of them are a breaker's window */
#define OPEN_FIRST_MS (30 * SECOND_MS)
#define OPEN_MAX_MS (10 * MINUTE_MS)
#define LOOK_MS SECOND_MS   /* how soon to look again whether a trial has ended */
#define OTHERS_MS MINUTE_MS /* an answer of another model clears the account for so long */
#define PAIRS_PER_CRED 32   /* names that clients make up must not fill the memory … */
#define PAIRS_MAX 8192      /* … of all accounts together */

const char *cm_model_state_name(enum cm_model_state state)
{
    static const char *const names[] = {
#define X(name, text) text,
        CM_MODEL_STATES(X)
#undef X
    };

    return names[state];
}

uint64_t model_hash(struct cm_str model)
{
    return model.n ? cm_hash(model) | 1 : 0;
}

uint64_t model_bit(const struct provider *p, uint64_t hash)
{
    for (uint64_t left = hash ? p->models : 0; left; left &= left - 1) {
        int slot = __builtin_ctzll(left);

        if (p->model[slot].hash == hash)
            return UINT64_C(1) << slot;
    }
    return 0;
}

/* ---- models that are cooled ---- */

static void cred_remask(struct cred *c, uint64_t mask)
{
    c->mask = mask;
    if (c->place == PLACE_FIT)
        tree_remask(&c->group->fit, c);
    else if (c->place == PLACE_BUSY)
        tree_remask(&c->provider->busy, c);
}

static struct cooled *cooled_find(const struct cred *c, uint64_t bit)
{
    struct cooled *m = bit ? c->cooled : NULL;

    while (m && m->slot != (unsigned)__builtin_ctzll(bit))
        m = m->next;
    return m;
}

/* 0: too many are. */
static uint64_t bit_for(struct provider *p, uint64_t hash, const char *name)
{
    uint64_t bit = model_bit(p, hash);
    struct model_slot *slot;

    if (bit)
        return bit;
    if (p->models == UINT64_MAX) {
        cm_warn("pool", "%s: more than %d models are limited, \"%s\" is not remembered", p->name,
                MODELS_MAX, name);
        return 0;
    }
    bit = ~p->models & (p->models + 1);
    p->models |= bit;
    slot = &p->model[__builtin_ctzll(bit)];
    slot->hash = hash;
    cm_str_copy(slot->name, sizeof(slot->name), cm_str_of(name));
    return bit;
}

static void cooled_end(struct cooled *m)
{
    struct cred *c = m->cred;
    struct provider *p = c->provider;
    struct model_slot *slot = &p->model[m->slot];
    struct cooled **at = &c->cooled;

    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    heap_del(&slot->over, &m->over);
    cred_remask(c, c->mask & ~(UINT64_C(1) << m->slot));
    if (slot->over.n == 0) {
        p->models &= ~(UINT64_C(1) << m->slot);
        heap_shrink(&slot->over);
    }
    m->next = p->pool->spare_cooled;
    p->pool->spare_cooled = m;
    cred_stir(c);
}

/* After one of its times has changed. */
static void cooled_settle(struct cooled *m)
{
    struct provider *p = m->cred->provider;
    const uint64_t until_ms = most(m->absent_until_ms, m->broken_until_ms);

    if (until_ms <= p->pool->now_ms)
        cooled_end(m);
    else
        heap_put(&p->model[m->slot].over, &m->over, until_ms);
}

/* A choice may begin a trial, and choices do not allocate: what was used before is used again. */
static struct cooled *cooled_new(struct cm_pool *pool)
{
    struct cooled *m = pool->spare_cooled;

    if (!m)
        return CM_NEW(struct cooled);
    pool->spare_cooled = m->next;
    memset(m, 0, sizeof(*m));
    return m;
}

/* The one that is there, or a new one, which is to be settled; NULL: no room. */
static struct cooled *cooled_make(struct cred *c, uint64_t hash, const char *name)
{
    const uint64_t bit = bit_for(c->provider, hash, name);
    struct cooled *m = cooled_find(c, bit);

    if (m || !bit)
        return m;
    m = cooled_new(c->provider->pool);
    m->cred = c;
    m->slot = (unsigned)__builtin_ctzll(bit);
    m->next = c->cooled;
    c->cooled = m;
    cred_remask(c, c->mask | bit);
    return m;
}

void model_absent(struct cm_lease *lease, uint64_t until_ms)
{
    struct cred *c = lease->cred;
    struct cooled *m = lease->model_hash ? cooled_make(c, lease->model_hash, lease->model) : NULL;

    if (!m)
        return;
    if (!m->absent_until_ms)
        cm_info("pool", CM_PRI " does without model \"%s\" for %llu s", CM_ARG(c->ident->label),
                lease->model,
                (unsigned long long)(until_ms - c->provider->pool->now_ms + 999) / 1000);
    m->absent_until_ms = most(m->absent_until_ms, until_ms);
    cooled_settle(m);
}

void cooled_wake(struct cooled *m)
{
    if (m->trial)
        m->broken_until_ms = m->cred->provider->pool->now_ms + LOOK_MS;
    cooled_settle(m);
}

/* ---- the breaker of an account with a model ---- */

static struct pair *pair_find(const struct cred *c, uint64_t hash)
{
    struct pair *p = c->pairs;

    while (p && p->hash != hash)
        p = p->next;
    return p;
}

static enum cm_model_state pair_state(const struct pair *p, uint64_t now_ms)
{
    if (p->open_ms == 0)
        return CM_MODEL_WATCHED;
    if (now_ms >= p->until_ms)
        return CM_MODEL_HALF_OPEN;
    return p->limited ? CM_MODEL_LIMITED : CM_MODEL_BROKEN;
}

/* The account does without it until then, for this reason; 0 = for this reason no more. False: no room to remember it. */
static bool pair_block(struct pair *p, uint64_t until_ms, bool trial)
{
    struct cooled *m = until_ms ? cooled_make(p->cred, p->hash, p->model)
                                : cooled_find(p->cred, model_bit(p->cred->provider, p->hash));

    if (!m)
        return until_ms == 0;
    m->broken_until_ms = until_ms;
    m->trial = trial;
    cooled_settle(m);
    return true;
}

static void pair_free(struct pair *p)
{
    struct cred *c = p->cred;
    struct pair **at = &c->pairs;

    if (p->open_ms > 0)
        pair_block(p, 0, false);
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    c->n_pairs--;
    c->provider->pool->n_pairs--;
    cm_list_remove(&p->used);
    free(p);
}

/* The one unused for longest goes, of this account if it has too many. False: none may, as the platform limits them all. */
static bool forget_one(struct cm_pool *pool, const struct cred *of)
{
    CM_LIST_EACH(&pool->pairs, link)
    {
        struct pair *p = CM_LIST_ITEM(link, struct pair, used);

        if ((!of || p->cred == of) && pair_state(p, pool->now_ms) != CM_MODEL_LIMITED) {
            pair_free(p);
            return true;
        }
    }
    return false;
}

/* NULL: no room. */
static struct pair *pair_new(const struct cm_lease *lease)
{
    struct cred *c = lease->cred;
    struct cm_pool *pool = c->provider->pool;
    struct pair *p;

    if (c->n_pairs >= PAIRS_PER_CRED ? !forget_one(pool, c)
                                     : pool->n_pairs >= PAIRS_MAX && !forget_one(pool, NULL))
        return NULL;
    p = CM_NEW(struct pair);
    p->cred = c;
    p->hash = lease->model_hash;
    p->next = c->pairs;
    c->pairs = p;
    c->n_pairs++;
    pool->n_pairs++;
    cm_list_init(&p->used);
    cm_str_copy(p->model, sizeof(p->model), cm_str_of(lease->model));
    return p;
}

void cred_forget_models(struct cred *c)
{
    while (c->pairs)
        pair_free(c->pairs);
    while (c->cooled)
        cooled_end(c->cooled);
    memset(c->served_ms, 0, sizeof(c->served_ms));
}

static void window_clear(struct pair *p)
{
    memset(p->ended, 0, sizeof(p->ended));
    memset(p->failed, 0, sizeof(p->failed));
}

static void window_move(struct pair *p, uint64_t now_ms)
{
    const uint64_t bucket = now_ms / BUCKET_MS;

    if (bucket - p->bucket >= PAIR_BUCKETS) {
        window_clear(p);
        p->bucket = bucket;
    }
    while (p->bucket < bucket) {
        p->bucket++;
        p->ended[p->bucket % PAIR_BUCKETS] = p->failed[p->bucket % PAIR_BUCKETS] = 0;
    }
}

static void window_sum(const struct pair *p, uint64_t now_ms, unsigned *ended, unsigned *failed)
{
    const uint64_t bucket = now_ms / BUCKET_MS;

    *ended = *failed = 0;
    for (uint64_t at = p->bucket; bucket - at < PAIR_BUCKETS; at--) {
        *ended += p->ended[at % PAIR_BUCKETS];
        *failed += p->failed[at % PAIR_BUCKETS];
    }
}

static void pair_open(struct pair *p, uint64_t for_ms)
{
    const uint64_t now_ms = p->cred->provider->pool->now_ms;

    if (for_ms > OPEN_MAX_MS)
        for_ms = OPEN_MAX_MS;
    p->trial = 0;
    if (!pair_block(p, now_ms + for_ms, false)) { /* with its next failure, perhaps */
        p->open_ms = 0;
        return;
    }
    window_clear(p);
    p->open_ms = for_ms;
    p->until_ms = now_ms + for_ms;
    p->limited = false;
    cm_info("pool", CM_PRI ": model \"%s\" fails too often and gets no requests for %llu s",
            CM_ARG(p->cred->ident->label), p->model, (unsigned long long)for_ms / 1000);
}

static void pair_used(struct pair *p)
{
    cm_list_remove(&p->used);
    cm_list_push(&p->cred->provider->pool->pairs, &p->used);
}

bool pair_limit(struct cm_lease *lease, uint64_t for_ms)
{
    struct cred *c = lease->cred;
    struct pair *p = pair_find(c, lease->model_hash);
    const bool known = p != NULL,
               decided = p && p->limited && p->trial && p->trial == lease->pair_trial;
    uint64_t until_ms;

    if (lease->model_hash == 0 || (!p && !(p = pair_new(lease))))
        return false;
    pair_used(p);
    for_ms = limit_length(for_ms, p->open_ms, decided);
    until_ms = lease->pool->now_ms + for_ms;
    if (until_ms <= p->until_ms)
        return true;
    if (!pair_block(p, until_ms, false)) {
        if (!known)
            pair_free(p);
        return false;
    }
    window_clear(p);
    p->trial = 0;
    p->open_ms = for_ms;
    p->until_ms = until_ms;
    p->limited = true;
    cm_info("pool", CM_PRI ": model \"%s\" is limited for %llu s", CM_ARG(c->ident->label),
            p->model, (unsigned long long)(for_ms + 999) / 1000);
    return true;
}

static void pair_close(struct pair *p)
{
    cm_info("pool", CM_PRI ": model \"%s\" answers again", CM_ARG(p->cred->ident->label), p->model);
    pair_free(p);
}

/* Half open, one request goes through: it keeps the others away until it has decided. */
void pair_begins(struct cm_lease *lease)
{
    const uint64_t now_ms = lease->pool->now_ms;
    struct pair *p = pair_find(lease->cred, lease->model_hash);

    if (!p || p->trial || pair_state(p, now_ms) != CM_MODEL_HALF_OPEN)
        return;
    p->trial = lease->pair_trial = lease->cred->seq;
    lease->choice.half_open = true;
    pair_block(p, now_ms + LOOK_MS, true);
}

static void pair_decides(struct pair *p, enum pair_result result)
{
    p->trial = 0;
    switch (result) {
    case PAIR_ANSWERED:
        pair_close(p);
        break;
    case PAIR_FAILED:
        if (p->cred->provider->breaker_rate > 0) {
            pair_open(p, most(2 * p->open_ms, OPEN_FIRST_MS));
            break;
        } /* else: a limit that is over, beside a breaker that is off */
        pair_block(p, 0, false);
        break;
    case PAIR_UNDECIDED:
        pair_block(p, 0, false);
        break;
    }
}

static void pair_counts(struct pair *p, bool failure)
{
    const struct provider *of = p->cred->provider;
    const uint64_t now_ms = of->pool->now_ms;
    unsigned ended, failed;
    size_t at;

    pair_used(p);
    window_move(p, now_ms);
    at = p->bucket % PAIR_BUCKETS;
    if (p->ended[at] < UINT16_MAX) {
        p->ended[at]++;
        p->failed[at] += failure;
    }
    window_sum(p, now_ms, &ended, &failed);
    if (failed == 0)
        pair_free(p);
    else if (failure && ended >= (uint64_t)of->breaker_attempts &&
             (uint64_t)failed * 100 >= (uint64_t)ended * (uint64_t)of->breaker_rate)
        pair_open(p, OPEN_FIRST_MS);
}

static void note_served(struct cred *c, uint64_t model, bool served)
{
    const uint64_t now_ms = c->provider->pool->now_ms;
    const unsigned at = c->served_model[0] == model ? 0 : 1;

    if (at == 1 && served && c->served_model[1] != model) {
        c->served_model[1] = c->served_model[0];
        c->served_ms[1] = c->served_ms[0];
        c->served_model[0] = model;
        c->served_ms[0] = now_ms;
    } else if (c->served_model[at] == model) {
        c->served_ms[at] = served ? now_ms : 0;
    }
}

void pair_ends(struct cm_lease *lease, enum pair_result result)
{
    struct cred *c = lease->cred;
    struct pair *p;

    if (!c->provider || !lease->model_hash)
        return;
    if (result != PAIR_UNDECIDED)
        note_served(c, lease->model_hash, result == PAIR_ANSWERED);
    p = pair_find(c, lease->model_hash);
    if (p && p->trial && p->trial == lease->pair_trial) {
        pair_decides(p, result);
        return;
    }
    if (result == PAIR_UNDECIDED || c->provider->breaker_rate <= 0)
        return;
    if (!p && result == PAIR_FAILED)
        p = pair_new(lease);
    if (p && p->open_ms == 0) /* else it began before it opened, and decides nothing */
        pair_counts(p, result == PAIR_FAILED);
}

bool pair_takes_blame(const struct cm_lease *lease, bool decides)
{
    struct cred *c = lease->cred;
    const uint64_t now_ms = lease->pool->now_ms, model = lease->model_hash;
    struct pair *p;

    if (!model || c->provider->breaker_rate <= 0)
        return false;
    if (!decides) {
        for (size_t i = 0; i < CM_COUNT(c->served_model); i++)
            if (c->served_model[i] != model && c->served_ms[i] &&
                now_ms - c->served_ms[i] <= OTHERS_MS)
                return true;
        return false;
    }
    /* All that it was limited for were failures of this model: the request that decides about the account is to be one for another. */
    p = pair_find(c, model);
    if (c->series_model != model || !p)
        return false;
    pair_open(p, most(2 * c->limit_ms, p->open_ms));
    return p->open_ms > 0;
}

/* ---- showing ---- */

/* False: it has no failures any more. */
static bool pair_tell(const struct cm_pool *pool, const struct pair *p, struct cm_cred_model *out)
{
    const uint64_t now_ms = pool->clock->mono_ms(pool->clock->arg);

    *out = (struct cm_cred_model){.model = cm_str_of(p->model), .state = pair_state(p, now_ms)};
    if (out->state == CM_MODEL_WATCHED)
        window_sum(p, now_ms, &out->attempts, &out->failed);
    if (out->state == CM_MODEL_BROKEN || out->state == CM_MODEL_LIMITED)
        out->until_ms = pool_unix_of(pool, p->until_ms);
    return out->state != CM_MODEL_WATCHED || out->failed > 0;
}

static bool absent_now(const struct cm_pool *pool, const struct cooled *m)
{
    return m->absent_until_ms > pool->clock->mono_ms(pool->clock->arg);
}

static void absent_tell(const struct cm_pool *pool, const struct cooled *m,
                        struct cm_cred_model *out)
{
    *out = (struct cm_cred_model){.model = cm_str_of(m->cred->provider->model[m->slot].name),
                                  .state = CM_MODEL_ABSENT,
                                  .until_ms = pool_unix_of(pool, m->absent_until_ms)};
}

void cm_pool_each_model(const struct cm_pool *pool, uint64_t id,
                        void (*fn)(void *arg, const struct cm_cred_model *model), void *arg)
{
    const struct cred *c = cred_find(pool, id);
    struct cm_cred_model told;

    for (const struct cooled *m = c ? c->cooled : NULL; m; m = m->next) {
        if (absent_now(pool, m)) {
            absent_tell(pool, m, &told);
            fn(arg, &told);
        }
    }
    for (const struct pair *p = c ? c->pairs : NULL; p; p = p->next) {
        if (pair_tell(pool, p, &told))
            fn(arg, &told);
    }
}

bool cm_pool_model(const struct cm_pool *pool, uint64_t id, struct cm_str model,
                   struct cm_cred_model *out)
{
    const struct cred *c = cred_find(pool, id);
    const uint64_t hash = model_hash(model);
    const struct cooled *m = c ? cooled_find(c, model_bit(c->provider, hash)) : NULL;
    const struct pair *p = c && hash ? pair_find(c, hash) : NULL;

    if (m && absent_now(pool, m)) {
        absent_tell(pool, m, out);
        return true;
    }
    return p && pair_tell(pool, p, out);
}

size_t cm_pool_without(const struct cm_pool *pool, struct cm_str provider, struct cm_str model)
{
    const struct provider *p = provider_find(pool, provider);
    const uint64_t bit = p ? model_bit(p, model_hash(model)) : 0;

    return bit ? p->model[__builtin_ctzll(bit)].over.n : 0;
}

void cm_pool_count_models(const struct cm_pool *pool, struct cm_str provider,
                          size_t count[CM_MODEL_STATES_N])
{
    const struct provider *of = provider_find(pool, provider);
    struct cm_cred_model told;

    memset(count, 0, CM_MODEL_STATES_N * sizeof(*count));
    CM_LIST_EACH(&pool->pairs, link)
    {
        const struct pair *p = CM_LIST_ITEM(link, struct pair, used);

        if (p->cred->provider == of && pair_tell(pool, p, &told))
            count[told.state]++;
    }
    for (uint64_t left = of ? of->models : 0; left; left &= left - 1) {
        const struct heap *over = &of->model[__builtin_ctzll(left)].over;

        for (size_t i = 1; i <= over->n; i++)
            count[CM_MODEL_ABSENT] +=
                absent_now(pool, CM_CONTAINER(over->v[i], struct cooled, over));
    }
}
