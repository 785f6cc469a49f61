/* What it costs to choose a credential: 10,000 of them, 95 % cooling until random moments, models cooled or failing on some, conversations bound, 64 requests in
 * flight. Prints nanoseconds per choice; exit 1 when the promise (2 µs, no allocation) is not met.
 *
 * Time in the pool is ours: a millisecond per request, so that deadlines pass as they would at 1,000 requests/s. */
#include "common.h"

#include "chatmux/base/log.h"
#include "chatmux/base/rand.h"
#include "chatmux/pool/pool.h"

#define CREDENTIALS 10000
#define INFLIGHT 64
#define MODELS 8
#define CONVERSATIONS 100000
#define WARM_UP 3000000 /* until as many cool down as cool */
#define ROUNDS 1000000
#define LIMITED_PER_MILLE 19 /* of the requests; each for 500 s on average: 9,500 at any time */
#define NO_MODEL_PER_MILLE 20
#define FAILED_PER_MILLE 10
#define COUNTED (ROUNDS / 1000 * 999) /* in the longest ones another process had the core */
#define TARGET_NS 2000

static uint64_t now_ms = 1000;
static uint64_t allocations, told;

/* The C library's own, by their other names, so that every allocation is seen. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n)
{
    allocations++;
    return __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    allocations++;
    return __libc_calloc(count, n);
}

void *realloc(void *p, size_t n)
{
    allocations++;
    return __libc_realloc(p, n);
}

static uint64_t mono(void *arg)
{
    (void)arg;
    return now_ms;
}

static int64_t unix_time(void *arg)
{
    (void)arg;
    return 1700000000000 + (int64_t)now_ms;
}

static void on_state(void *arg, const struct cm_cred_info *cred)
{
    (void)arg;
    (void)cred;
    told++;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static struct cm_rng rng;

static bool one_in(uint64_t per_mille)
{
    return cm_rng_below(&rng, 1000) < per_mille;
}

static void fill(struct cm_pool *pool)
{
    struct cm_pool_provider provider = {
        .name = CM_S("up"), .max_inflight = 8, .breaker_rate = 50, .breaker_attempts = 1};

    cm_pool_providers(pool, &provider, 1);
    for (uint64_t id = 1; id <= CREDENTIALS; id++) {
        char secret[32];
        int n = snprintf(secret, sizeof(secret), "sk-%llu", (unsigned long long)id);
        struct cm_cred_info info = {.id = id,
                                    .provider = provider.name,
                                    .secret = cm_str(secret, (size_t)n),
                                    .enabled = true,
                                    .weight = 1 + (int64_t)(id % 3),
                                    .state = CM_CRED_STATE_OK};

        if (!one_in(50)) {
            info.state = CM_CRED_STATE_COOLING;
            info.until_ms = unix_time(NULL) + (int64_t)cm_rng_below(&rng, 1000000);
        }
        cm_pool_put(pool, &info);
    }
}

/* Half of the requests come from a few busy conversations. */
static uint64_t conversation(void)
{
    uint64_t of = one_in(500) ? 1000 : CONVERSATIONS;

    return 1 + cm_rng_below(&rng, of) * 0x9e3779b97f4a7c15;
}

static void give_back(struct cm_lease *lease)
{
    struct cm_err why = {0};

    if (one_in(LIMITED_PER_MILLE)) {
        why.cls = CM_ERR_RATE_LIMITED;
        why.retry_after_s = 1 + (int)cm_rng_below(&rng, 1000);
    } else if (one_in(NO_MODEL_PER_MILLE)) {
        why.cls = CM_ERR_MODEL_UNAVAILABLE;
        why.retry_after_s = 600;
    } else if (one_in(FAILED_PER_MILLE)) {
        why.cls = CM_ERR_UPSTREAM_DOWN; /* opens the breaker of this account and model */
    }
    cm_lease_give_back(lease, why.cls ? &why : NULL, 10, 20);
}

struct figures {
    uint64_t back_ns, allocations, none;
    uint32_t each_ns[ROUNDS];
};

static void rounds(struct cm_pool *pool, size_t n, struct figures *f)
{
    static struct cm_lease *out[INFLIGHT];
    static char model[] = "model-0";

    for (size_t i = 0; i < n; i++) {
        struct cm_pool_ask ask = {.provider = CM_S("up"), .model = CM_S("")};
        uint64_t t0, t1, t2, before;
        size_t at = i % INFLIGHT;

        model[6] = (char)('0' + cm_rng_below(&rng, MODELS));
        ask.model = cm_str(model, sizeof(model) - 1);
        ask.affinity = conversation();
        now_ms++;
        t0 = now_ns();
        if (out[at])
            give_back(out[at]);
        t1 = now_ns();
        before = allocations;
        out[at] = cm_pool_lease(pool, &ask, NULL);
        t2 = now_ns();
        if (f) {
            f->allocations += allocations - before;
            f->back_ns += t1 - t0;
            f->each_ns[i] = (uint32_t)(t2 - t1);
            f->none += !out[at];
        }
    }
    for (size_t i = 0; i < INFLIGHT; i++) {
        if (out[i])
            cm_lease_cancel(out[i], NULL);
        out[i] = NULL;
    }
}

int main(void)
{
    static struct figures f;
    const struct cm_clock clock = {mono, unix_time, NULL};
    const struct cm_pool_host host = {.on_state = on_state};
    const struct cm_log_setup quiet = {.fd = 2, .level = CM_LOG_ERROR};
    struct cm_pool *pool;
    struct cm_pool_counts counts;
    uint64_t mean = 0;

    cm_log_setup(&quiet);
    cm_rng_seed(&rng, 1);
    pool = cm_pool_new(&clock, &host, 1);
    fill(pool);
    rounds(pool, WARM_UP, NULL);
    rounds(pool, ROUNDS, &f);
    cm_pool_count(pool, CM_S("up"), &counts);
    qsort(f.each_ns, ROUNDS, sizeof(f.each_ns[0]), ascending);
    for (size_t i = 0; i < COUNTED; i++)
        mean += f.each_ns[i];
    mean /= COUNTED;
    printf("%zu credentials, %zu cooling, %llu changes of state told\n", counts.total,
           counts.state[CM_CRED_STATE_COOLING], (unsigned long long)told);
    printf("choice     %5llu ns (half under %u, 99 %% under %u, longest %u; clock included)\n",
           (unsigned long long)mean, f.each_ns[ROUNDS / 2], f.each_ns[ROUNDS / 100 * 99],
           f.each_ns[ROUNDS - 1]);
    printf("give back  %5llu ns\n", (unsigned long long)(f.back_ns / ROUNDS));
    printf("%llu allocations in %d choices, %llu of them found nobody\n",
           (unsigned long long)f.allocations, ROUNDS, (unsigned long long)f.none);
    cm_pool_free(pool);
    cm_log_close();
    return mean < TARGET_NS && f.allocations == 0 ? 0 : 1;
}
