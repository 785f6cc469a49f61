/* A pool for tests. */
#include "pool_fixture.h"

#include "chatmux/base/log.h"

#include <stdio.h>

uint64_t mono;
int64_t wall;
struct cm_pool *pool;
struct cm_pool_provider provider;
struct told told;

static uint64_t read_mono(void *arg)
{
    (void)arg;
    return mono;
}

static int64_t read_wall(void *arg)
{
    (void)arg;
    return wall;
}

static const struct cm_clock test_clock = {read_mono, read_wall, NULL};

static void on_state(void *arg, const struct cm_cred_info *cred)
{
    (void)arg;
    told.states++;
    told.id = cred->id;
    told.state = cred->state;
    cm_str_copy(told.reason, sizeof(told.reason), cred->reason);
}

static void on_refresh(void *arg, const struct cm_cred_info *cred)
{
    (void)arg;
    told.refreshes++;
    told.id = cred->id;
}

static void on_probe(void *arg, const struct cm_cred_info *cred)
{
    (void)arg;
    told.probes++;
    told.id = cred->id;
}

static const struct cm_pool_host host = {on_state, on_refresh, on_probe, NULL};

void set_up(void)
{
    const struct cm_log_setup quiet = {.fd = 2, .level = CM_LOG_ERROR};

    cm_log_setup(&quiet);
    mono = 300 * S;
    wall = START_UNIX;
    memset(&told, 0, sizeof(told));
    pool = cm_pool_new(&test_clock, &host, 7);
    set_provider((struct cm_pool_provider){0});
}

void clean_up(void)
{
    cm_pool_free(pool);
    pool = NULL;
}

void set_provider(struct cm_pool_provider p)
{
    provider = p;
    provider.name = UP;
    provider.cooldown_ms = 20 * S;
    cm_pool_providers(pool, &provider, 1);
}

void restart(void)
{
    cm_pool_free(pool);
    pool = cm_pool_new(&test_clock, &host, 8);
    cm_pool_providers(pool, &provider, 1);
}

void pass(int64_t ms)
{
    mono += (uint64_t)ms;
    wall += ms;
    cm_pool_tick(pool);
}

struct cm_cred_info info_of(uint64_t id, const char *secret)
{
    return (struct cm_cred_info){.id = id,
                                 .provider = UP,
                                 .secret = cm_str_of(secret),
                                 .enabled = true,
                                 .weight = 1,
                                 .state = CM_CRED_STATE_OK};
}

void add(uint64_t id)
{
    char secret[24];
    struct cm_cred_info info;

    snprintf(secret, sizeof(secret), "sk-%llu", (unsigned long long)id);
    info = info_of(id, secret);
    cm_pool_put(pool, &info);
}

struct cm_cred_info get(uint64_t id)
{
    struct cm_cred_info info = {0};

    ck_assert(cm_pool_get(pool, id, &info));
    return info;
}

struct cm_err why_of(enum cm_err_class cls, int retry_after_s)
{
    return (struct cm_err){.cls = cls, .retry_after_s = retry_after_s};
}

struct cm_lease *lease_as(struct cm_pool_ask ask)
{
    ask.provider = UP;
    ask.model = MODEL;
    return cm_pool_lease(pool, &ask, NULL);
}

struct cm_lease *lease(void)
{
    return lease_as((struct cm_pool_ask){0});
}

void back(struct cm_lease *l, enum cm_err_class cls, int retry_after_s)
{
    struct cm_err why = why_of(cls, retry_after_s);

    cm_lease_give_back(l, cls ? &why : NULL, 0, 0);
}

void use(uint64_t id, enum cm_err_class cls, int retry_after_s)
{
    struct cm_lease *l = lease_as((struct cm_pool_ask){.only = id});

    ck_assert_msg(l != NULL, "credential %llu is %s", (unsigned long long)id,
                  cm_cred_state_name(get(id).state));
    back(l, cls, retry_after_s);
}

uint64_t serves(void)
{
    struct cm_lease *l = lease();
    uint64_t id = l ? cm_lease_id(l) : 0;

    if (l)
        back(l, CM_ERR_NONE, 0);
    return id;
}

void expect_at(int line, uint64_t id, enum cm_cred_state state, int64_t left_ms)
{
    struct cm_cred_info info = get(id);
    int64_t left = info.until_ms ? info.until_ms - wall : 0;

    ck_assert_msg(info.state == state && left == left_ms,
                  "line %d: %s for %lld ms, not %s for %lld ms", line,
                  cm_cred_state_name(info.state), (long long)left, cm_cred_state_name(state),
                  (long long)left_ms);
}
