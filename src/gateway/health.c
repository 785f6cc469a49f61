/* Two bounded tables: targets by provider and model, breakers by provider. */
#include "health.h"

#include "chatmux/base/list.h"
#include "chatmux/base/map.h"
#include <math.h>
#include <stdlib.h>

#define TARGETS_MAX 4096
#define SAMPLES 64
#define SAMPLES_KNOWN 10 /* fewer make no percentile */
#define HALF_LIFE_MS 60000.0
#define NEWER 0.3       /* weight of the latest sample */
#define FAILED_MS 10000 /* on top of the time a failure took */
#define BUCKETS 10      /* of the breaker's window */
#define BUCKET_MS 3000
#define OPEN_FIRST_MS 10000
#define OPEN_MAX_MS 60000

struct speed {
    double first_ms; /* moving average; < 0 = not known */
    uint64_t measured_ms;
    uint32_t samples[SAMPLES]; /* ring */
    size_t n_samples;          /* so far */
};

struct target {
    struct cm_list link; /* by last use */
    char *key;           /* owned: provider, NUL, model */
    size_t key_n;
    unsigned inflight;
    struct speed speeds[2]; /* whole answers, streamed ones */
};

struct breaker {
    char *key; /* owned: the provider */
    uint32_t ended[BUCKETS], failed[BUCKETS];
    uint64_t bucket; /* number of the latest */
    uint64_t until_ms;
    uint64_t open_ms; /* how long it was opened; 0 = closed */
    bool trial;       /* the attempt that decides is under way */
};

struct health {
    struct cm_map targets, breakers;
    struct cm_list by_use; /* targets, the latest at the end */
};

struct health *health_new(void)
{
    struct health *h = CM_NEW(struct health);

    cm_list_init(&h->by_use);
    return h;
}

static void target_free(struct health *h, struct target *t)
{
    cm_map_del(&h->targets, cm_str(t->key, t->key_n));
    cm_list_remove(&t->link);
    free(t->key);
    free(t);
}

void health_free(struct health *h)
{
    const struct cm_map_slot *slot;
    size_t pos = 0;

    if (!h)
        return;
    CM_LIST_EACH(&h->by_use, link)
    target_free(h, CM_LIST_ITEM(link, struct target, link));
    while ((slot = cm_map_next(&h->breakers, &pos))) {
        struct breaker *b = slot->value;

        free(b->key);
        free(b);
    }
    cm_map_clear(&h->targets);
    cm_map_clear(&h->breakers);
    free(h);
}

/* ---- targets ---- */

#define KEY_MAX 600 /* a name that a client made up may be long: what is behind does not count */

static struct cm_str key_of(char out[KEY_MAX], struct cm_str provider, struct cm_str model)
{
    provider = cm_str_head(provider, 200);
    model = cm_str_head(model, 300);
    memcpy(out, provider.p, provider.n);
    out[provider.n] = '\0';
    if (model.n > 0) /* what is only passed on names none */
        memcpy(out + provider.n + 1, model.p, model.n);
    return cm_str(out, provider.n + 1 + model.n);
}

static struct target *target_find(const struct health *h, struct cm_str provider,
                                  struct cm_str model)
{
    char key[KEY_MAX];

    return cm_map_get(&h->targets, key_of(key, provider, model));
}

/* Names that clients make up must not fill the memory: the one unused for longest goes. */
static void forget_some(struct health *h)
{
    CM_LIST_EACH(&h->by_use, link)
    {
        struct target *t = CM_LIST_ITEM(link, struct target, link);

        if (h->targets.n < TARGETS_MAX)
            return;
        if (t->inflight == 0)
            target_free(h, t);
    }
}

static struct target *target_make(struct health *h, struct cm_str provider, struct cm_str model)
{
    struct target *t = target_find(h, provider, model);
    char text[KEY_MAX];
    struct cm_str key;

    if (t)
        return t;
    forget_some(h);
    key = key_of(text, provider, model);
    t = CM_NEW(struct target);
    t->key = cm_str_dup(key);
    t->key_n = key.n;
    t->speeds[false].first_ms = t->speeds[true].first_ms = -1;
    cm_list_init(&t->link);
    cm_map_put(&h->targets, cm_str(t->key, t->key_n), t);
    return t;
}

/* A worse figure counts at once, a better one bit by bit. */
static void measured(struct speed *s, double ms, uint64_t now_ms)
{
    s->first_ms = s->first_ms < 0 || ms > s->first_ms ? ms : s->first_ms * (1 - NEWER) + ms * NEWER;
    s->measured_ms = now_ms;
}

unsigned health_busy(const struct health *h, struct cm_str provider, struct cm_str model)
{
    const struct target *t = target_find(h, provider, model);

    return t ? t->inflight : 0;
}

double health_first_ms(const struct health *h, struct cm_str provider, struct cm_str model,
                       bool streamed, uint64_t now_ms)
{
    const struct target *t = target_find(h, provider, model);
    const struct speed *s;

    if (!t)
        return 0;
    s = &t->speeds[streamed];
    if (t->inflight > 0) /* somebody is finding out */
        return s->first_ms < 0 ? HUGE_VAL : s->first_ms;
    if (s->first_ms < 0)
        return 0;
    return s->first_ms * exp2(-(double)(now_ms - s->measured_ms) / HALF_LIFE_MS);
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

int64_t health_first_p95(const struct health *h, struct cm_str provider, struct cm_str model,
                         bool streamed)
{
    const struct target *t = target_find(h, provider, model);
    const struct speed *s = t ? &t->speeds[streamed] : NULL;
    uint32_t sorted[SAMPLES];
    size_t n;

    if (!s || s->n_samples < SAMPLES_KNOWN)
        return -1;
    n = s->n_samples < SAMPLES ? s->n_samples : SAMPLES;
    memcpy(sorted, s->samples, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), by_size);
    return sorted[(n * 95 + 99) / 100 - 1];
}

/* ---- breakers ---- */

const char *breaker_state_name(enum breaker_state s)
{
    static const char *const names[] = {"closed", "open", "half_open"};

    return names[s];
}

static struct breaker *breaker_find(const struct health *h, struct cm_str provider)
{
    return cm_map_get(&h->breakers, provider);
}

static struct breaker *breaker_make(struct health *h, struct cm_str provider)
{
    struct breaker *b = breaker_find(h, provider);

    if (b)
        return b;
    b = CM_NEW(struct breaker);
    b->key = cm_str_dup(provider);
    cm_map_put(&h->breakers, cm_str(b->key, provider.n), b);
    return b;
}

static enum breaker_state state_of(const struct breaker *b, uint64_t now_ms)
{
    if (!b || b->open_ms == 0)
        return BREAKER_CLOSED;
    return now_ms < b->until_ms ? BREAKER_OPEN : BREAKER_HALF_OPEN;
}

enum breaker_state health_breaker(const struct health *h, struct cm_str provider, uint64_t now_ms)
{
    return state_of(breaker_find(h, provider), now_ms);
}

bool health_admits(const struct health *h, struct cm_str provider, uint64_t now_ms,
                   uint64_t *wait_ms)
{
    const struct breaker *b = breaker_find(h, provider);

    *wait_ms = 0;
    switch (state_of(b, now_ms)) {
    case BREAKER_CLOSED:
        return true;
    case BREAKER_OPEN:
        *wait_ms = b->until_ms - now_ms;
        return false;
    case BREAKER_HALF_OPEN:
        *wait_ms = b->trial ? 1000 : 0;
        return !b->trial;
    }
    return true;
}

static void window_move(struct breaker *b, uint64_t now_ms)
{
    uint64_t bucket = now_ms / BUCKET_MS;

    for (unsigned i = 0; b->bucket < bucket && i < BUCKETS; i++) {
        b->bucket = bucket - b->bucket > BUCKETS ? bucket - BUCKETS + 1 : b->bucket + 1;
        b->ended[b->bucket % BUCKETS] = b->failed[b->bucket % BUCKETS] = 0;
    }
}

static void window_clear(struct breaker *b)
{
    memset(b->ended, 0, sizeof(b->ended));
    memset(b->failed, 0, sizeof(b->failed));
}

static void open_up(struct breaker *b, uint64_t now_ms)
{
    b->open_ms = b->open_ms == 0                ? OPEN_FIRST_MS
                 : b->open_ms * 2 < OPEN_MAX_MS ? b->open_ms * 2
                                                : OPEN_MAX_MS;
    b->until_ms = now_ms + b->open_ms;
    window_clear(b);
}

static bool too_many_failed(const struct breaker *b, const struct health_rule *rule)
{
    int64_t ended = 0, failed = 0;

    for (size_t i = 0; i < BUCKETS; i++) {
        ended += b->ended[i];
        failed += b->failed[i];
    }
    return rule->rate > 0 && ended >= rule->attempts && failed * 100 >= ended * rule->rate;
}

static void breaker_heard(struct breaker *b, const struct health_end *end,
                          const struct health_rule *rule, uint64_t now_ms)
{
    if (end->trial) {
        b->trial = false;
        if (end->result == HEALTH_FAILED) {
            open_up(b, now_ms);
        } else if (end->result == HEALTH_ANSWERED) {
            b->open_ms = 0;
            window_clear(b);
        }
        return;
    }
    if (state_of(b, now_ms) != BREAKER_CLOSED || end->result == HEALTH_LEFT)
        return; /* what began before it opened decides nothing */
    window_move(b, now_ms);
    b->ended[b->bucket % BUCKETS]++;
    b->failed[b->bucket % BUCKETS] += end->result == HEALTH_FAILED;
    if (too_many_failed(b, rule))
        open_up(b, now_ms);
}

/* ---- attempts ---- */

bool health_begun(struct health *h, struct cm_str provider, struct cm_str model, uint64_t now_ms)
{
    struct target *t = target_make(h, provider, model);
    struct breaker *b = breaker_make(h, provider);

    t->inflight++;
    cm_list_remove(&t->link);
    cm_list_push(&h->by_use, &t->link);
    if (state_of(b, now_ms) != BREAKER_HALF_OPEN || b->trial)
        return false;
    b->trial = true;
    return true;
}

void health_ended(struct health *h, struct cm_str provider, struct cm_str model,
                  const struct health_end *end, const struct health_rule *rule, uint64_t now_ms)
{
    struct target *t = target_find(h, provider, model);
    struct breaker *b = breaker_find(h, provider);
    struct speed *s;

    CM_ASSERT(t && b && t->inflight > 0);
    t->inflight--;
    s = &t->speeds[end->streamed];
    if (end->first_ms >= 0) {
        s->samples[s->n_samples++ % SAMPLES] = (uint32_t)end->first_ms;
        measured(s, (double)end->first_ms, now_ms);
    } else if (end->result == HEALTH_FAILED) {
        measured(s, (double)end->took_ms + FAILED_MS, now_ms);
    }
    breaker_heard(b, end, rule, now_ms);
}
