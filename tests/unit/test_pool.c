/* Pool: what each verdict makes of a credential and how it comes back, who is chosen, who waits, what survives a restart. The clocks are the test's. */
#include "unit.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"
#include "pool/pool_int.h"

#include <stdio.h>
#include <stdlib.h>

#define UP CM_S("up")
#define MODEL CM_S("m")
#define S 1000 /* milliseconds */
#define MIN (60 * S)
#define HOUR (60 * MIN)
#define DAY (24 * HOUR)
#define START_UNIX INT64_C(1700000000000)

static uint64_t mono;
static int64_t wall;
static struct cm_pool *pool;
static struct cm_pool_provider provider;

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

/* ---- the host: remembers what it was told ---- */

static struct {
    size_t states, refreshes, probes;
    uint64_t id;
    enum cm_cred_state state;
    char reason[64];
    int64_t until_ms;
} told;

static void on_state(void *arg, const struct cm_cred_info *cred)
{
    (void)arg;
    told.states++;
    told.id = cred->id;
    told.state = cred->state;
    told.until_ms = cred->until_ms;
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

static void set_up(void)
{
    const struct cm_log_setup quiet = {.fd = 2, .level = CM_LOG_ERROR};

    cm_log_setup(&quiet);
    mono = 5 * MIN;
    wall = START_UNIX;
    memset(&told, 0, sizeof(told));
    provider = (struct cm_pool_provider){.name = UP, .cooldown_ms = 20 * S};
    pool = cm_pool_new(&test_clock, &host, 7);
    cm_pool_providers(pool, &provider, 1);
}

static void clean_up(void)
{
    cm_pool_free(pool);
    pool = NULL;
}

/* Another life of the process: what the store kept is all there is. */
static void restart(void)
{
    cm_pool_free(pool);
    pool = cm_pool_new(&test_clock, &host, 8);
    cm_pool_providers(pool, &provider, 1);
}

static void set_provider(struct cm_pool_provider p)
{
    provider = p;
    provider.name = UP;
    provider.cooldown_ms = provider.cooldown_ms ? provider.cooldown_ms : 20 * S;
    cm_pool_providers(pool, &provider, 1);
}

static void pass(int64_t ms)
{
    mono += (uint64_t)ms;
    wall += ms;
    cm_pool_tick(pool);
}

static struct cm_cred_info info_of(uint64_t id, const char *secret)
{
    return (struct cm_cred_info){.id = id,
                                 .provider = UP,
                                 .secret = cm_str_of(secret),
                                 .enabled = true,
                                 .weight = 1,
                                 .state = CM_CRED_STATE_OK};
}

static void add(uint64_t id)
{
    char secret[24];
    struct cm_cred_info info;

    snprintf(secret, sizeof(secret), "sk-%llu", (unsigned long long)id);
    info = info_of(id, secret);
    cm_pool_put(pool, &info);
}

static void add_many(uint64_t n)
{
    for (uint64_t id = 1; id <= n; id++)
        add(id);
}

static struct cm_cred_info get(uint64_t id)
{
    struct cm_cred_info info = {0};

    ck_assert(cm_pool_get(pool, id, &info));
    return info;
}

static struct cm_err why_of(enum cm_err_class cls, int retry_after_s)
{
    return (struct cm_err){.cls = cls, .retry_after_s = retry_after_s};
}

static struct cm_lease *lease_as(struct cm_pool_ask ask)
{
    ask.provider = ask.provider.n ? ask.provider : UP;
    ask.model = ask.model.n ? ask.model : MODEL;
    return cm_pool_lease(pool, &ask, NULL);
}

static struct cm_lease *lease(void)
{
    return lease_as((struct cm_pool_ask){0});
}

static void back(struct cm_lease *l, enum cm_err_class cls, int retry_after_s)
{
    struct cm_err why = why_of(cls, retry_after_s);

    cm_lease_give_back(l, cls ? &why : NULL, 0, 0);
}

/* One request on that credential, with that end. */
static void use(uint64_t id, enum cm_err_class cls, int retry_after_s)
{
    struct cm_lease *l = lease_as((struct cm_pool_ask){.only = id});

    ck_assert_msg(l != NULL, "credential %llu is %s", (unsigned long long)id,
                  cm_cred_state_name(get(id).state));
    back(l, cls, retry_after_s);
}

/* Whom the next one would be. */
static uint64_t serves(struct cm_pool_ask ask)
{
    struct cm_lease *l = lease_as(ask);
    uint64_t id = l ? cm_lease_id(l) : 0;

    if (l)
        back(l, CM_ERR_NONE, 0);
    return id;
}

#define expect(id, want, left_ms) expect_at(__LINE__, id, CM_CRED_STATE_##want, left_ms)
static void expect_at(int line, uint64_t id, enum cm_cred_state state, int64_t left_ms)
{
    struct cm_cred_info info = get(id);
    int64_t left = info.until_ms ? info.until_ms - wall : 0;

    ck_assert_msg(info.state == state && left == left_ms,
                  "line %d: %s for %lld ms, not %s for %lld ms", line,
                  cm_cred_state_name(info.state), (long long)left, cm_cred_state_name(state),
                  (long long)left_ms);
}

/* ---- names ---- */

START_TEST(state_names_and_back)
{
    for (size_t i = 0; i < CM_CRED_STATES_N; i++) {
        enum cm_cred_state state = CM_CRED_STATES_N;

        ck_assert_int_eq(
            cm_cred_state_parse(cm_str_of(cm_cred_state_name((enum cm_cred_state)i)), &state), 0);
        ck_assert_uint_eq(state, i);
    }
    ck_assert_int_eq(cm_cred_state_parse(CM_S("well"), &(enum cm_cred_state){0}), -1);
}
END_TEST

/* ---- what one verdict does to a credential that was ok ---- */

static const struct {
    enum cm_err_class cls;
    int told_s;
    enum cm_cred_state state;
    int64_t for_ms;
} verdicts[] = {
    {CM_ERR_NONE, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_BAD_REQUEST, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_CONTEXT_LENGTH, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_CONTENT_FILTER, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_CLIENT_LIMIT, 9, CM_CRED_STATE_OK, 0},
    {CM_ERR_MODEL_UNAVAILABLE, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_CUT, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_TIMEOUT, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_OVERLOADED, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_UPSTREAM_DOWN, 0, CM_CRED_STATE_OK, 0},
    {CM_ERR_RATE_LIMITED, 0, CM_CRED_STATE_COOLING, 20 * S},
    {CM_ERR_RATE_LIMITED, 7, CM_CRED_STATE_COOLING, 7 * S},
    {CM_ERR_RATE_LIMITED, 90 * 86400, CM_CRED_STATE_COOLING, INT64_C(31) * DAY},
    {CM_ERR_QUOTA_EXHAUSTED, 0, CM_CRED_STATE_EXHAUSTED, HOUR},
    {CM_ERR_QUOTA_EXHAUSTED, 3 * 86400, CM_CRED_STATE_EXHAUSTED, INT64_C(3) * DAY},
    {CM_ERR_INVALID_CREDENTIAL, 0, CM_CRED_STATE_DISABLED, 0},
    {CM_ERR_EXPIRED, 0, CM_CRED_STATE_NEEDS_LOGIN, 0},
    {CM_ERR_VERIFICATION_REQUIRED, 0, CM_CRED_STATE_VERIFY, 0},
};

START_TEST(each_verdict)
{
    add(1);
    use(1, verdicts[_i].cls, verdicts[_i].told_s);
    expect_at(__LINE__, 1, verdicts[_i].state, verdicts[_i].for_ms);
    if (verdicts[_i].state == CM_CRED_STATE_OK) {
        ck_assert_uint_eq(told.states, 0);
        ck_str(get(1).reason, "");
    } else {
        ck_assert_uint_eq(told.states, 1);
        ck_assert_uint_eq(told.state, verdicts[_i].state);
        ck_assert_str_eq(told.reason, cm_err_info(verdicts[_i].cls)->name);
        ck_assert_int_eq(told.until_ms, verdicts[_i].for_ms ? wall + verdicts[_i].for_ms : 0);
        ck_assert_ptr_null(lease());
    }
}
END_TEST

/* The same on one that has nothing to blame. */
START_TEST(no_secret_no_blame)
{
    struct cm_cred_info info = info_of(1, "");

    cm_pool_put(pool, &info);
    for (int k = 0; k < 4; k++)
        use(1, verdicts[_i].cls, verdicts[_i].told_s);
    expect(1, OK, 0);
    ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 1);
}
END_TEST

/* A challenge is about the address: whoever goes out the same way rests, an account behind a proxy of its own does not, and nobody waits for an
 * operator. */
START_TEST(a_challenge_rests_those_behind_the_address)
{
    struct cm_cred_info info = info_of(3, "sk-3");
    struct cm_err why = why_of(CM_ERR_VERIFICATION_REQUIRED, 60);

    why.of_address = true;
    add(1);
    add(2);
    info.proxy = CM_S("http://proxy:1");
    cm_pool_put(pool, &info);
    cm_lease_give_back(lease_as((struct cm_pool_ask){.only = 1}), &why, 0, 0);
    expect(1, COOLING, 60 * S);
    expect(2, COOLING, 60 * S);
    expect(3, OK, 0);
    ck_str(get(2).reason, "verification_required");
    ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 3);
    pass(60 * S);
    expect(2, HALF_OPEN, 0);
    cm_lease_give_back(lease_as((struct cm_pool_ask){.only = 2}), &why, 0, 0);
    expect(2, COOLING, 120 * S);
    expect(1, COOLING, 60 * S);
    cm_lease_give_back(lease_as((struct cm_pool_ask){.only = 3}), &why, 0, 0);
    expect(3, COOLING, 60 * S);
}
END_TEST

/* … and it is the address that was asked from, not the one that the account has since. */
START_TEST(a_challenge_is_of_the_address_that_was_asked_from)
{
    struct cm_cred_info info = info_of(1, "sk-1");
    struct cm_err why = why_of(CM_ERR_VERIFICATION_REQUIRED, 60);
    struct cm_lease *l;

    why.of_address = true;
    add(1);
    add(2);
    info.proxy = CM_S("http://proxy:1");
    l = lease_as((struct cm_pool_ask){.only = 1});
    cm_pool_put(pool, &info);
    info = info_of(3, "sk-3");
    info.proxy = CM_S("http://proxy:1");
    cm_pool_put(pool, &info);
    cm_lease_give_back(l, &why, 0, 0);
    expect(1, OK, 0);
    expect(2, COOLING, 60 * S);
    expect(3, OK, 0);
}
END_TEST

START_TEST(a_provider_without_cooldown_cools_a_minute)
{
    provider.cooldown_ms = 0;
    cm_pool_providers(pool, &provider, 1);
    add(1);
    use(1, CM_ERR_RATE_LIMITED, 0);
    expect(1, COOLING, MIN);
}
END_TEST

/* ---- limits ---- */

START_TEST(cooling_ends_half_open_and_one_request_decides)
{
    struct cm_lease *trial;

    add(1);
    use(1, CM_ERR_RATE_LIMITED, 10);
    pass(10 * S - 1);
    expect(1, COOLING, 1);
    ck_assert_uint_eq(cm_pool_next_ms(pool), mono + 1);
    pass(1);
    expect(1, HALF_OPEN, 0);
    ck_assert_str_eq(told.reason, "rate_limited");
    trial = lease();
    ck_assert_ptr_nonnull(trial);
    ck_assert_ptr_null(lease());
    back(trial, CM_ERR_NONE, 0);
    expect(1, OK, 0);
    ck_assert_uint_eq(told.state, CM_CRED_STATE_OK);
    ck_assert_uint_eq(told.states, 3);
}
END_TEST

/* Nobody ticks: choosing sees itself that the time has come. */
START_TEST(cooling_ends_for_a_choice)
{
    add(1);
    use(1, CM_ERR_RATE_LIMITED, 10);
    mono += 10 * S;
    ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 1);
}
END_TEST

START_TEST(failing_half_open_doubles_up_to_an_hour)
{
    static const int64_t next[] = {40 * S,   80 * S,   160 * S, 320 * S, 640 * S,
                                   1280 * S, 2560 * S, HOUR,    HOUR};

    add(1);
    use(1, CM_ERR_RATE_LIMITED, 0);
    expect(1, COOLING, 20 * S);
    for (size_t i = 0; i < CM_COUNT(next); i++) {
        pass(get(1).until_ms - wall);
        use(1, i % 2 ? CM_ERR_CUT : CM_ERR_RATE_LIMITED, i % 2 ? 0 : 5);
        expect(1, COOLING, next[i] < MIN && i % 2 ? MIN : next[i]);
    }
    pass(HOUR);
    use(1, CM_ERR_RATE_LIMITED, 7200); /* the time told counts when it is longer */
    expect(1, COOLING, 2 * HOUR);
    pass(2 * HOUR);
    use(1, CM_ERR_NONE, 0);
    use(1, CM_ERR_RATE_LIMITED, 0); /* it has served: from the beginning */
    expect(1, COOLING, 20 * S);
}
END_TEST

START_TEST(an_exhausted_one_comes_back_half_open)
{
    add(1);
    use(1, CM_ERR_QUOTA_EXHAUSTED, 0);
    pass(HOUR);
    expect(1, HALF_OPEN, 0);
    use(1, CM_ERR_QUOTA_EXHAUSTED, 0);
    expect(1, EXHAUSTED, HOUR);
    pass(HOUR);
    use(1, CM_ERR_NONE, 0);
    expect(1, OK, 0);
}
END_TEST

START_TEST(half_open_stays_for_what_is_not_its_doing)
{
    struct cm_lease *l;

    add(1);
    use(1, CM_ERR_RATE_LIMITED, 10);
    pass(10 * S);
    use(1, CM_ERR_BAD_REQUEST, 0);
    expect(1, HALF_OPEN, 0);
    l = lease();
    cm_lease_cancel(l, NULL);
    expect(1, HALF_OPEN, 0);
    use(1, CM_ERR_NONE, 0);
    expect(1, OK, 0);
}
END_TEST

START_TEST(an_older_lease_does_not_decide)
{
    struct cm_lease *old, *trial;

    add(1);
    old = lease();
    use(1, CM_ERR_RATE_LIMITED, 10);
    pass(10 * S);
    trial = lease(); /* beside the old one */
    ck_assert_ptr_nonnull(trial);
    back(old, CM_ERR_NONE, 0);
    expect(1, HALF_OPEN, 0);
    ck_assert_ptr_null(lease());
    back(trial, CM_ERR_NONE, 0);
    expect(1, OK, 0);
}
END_TEST

START_TEST(deadlines_only_move_later)
{
    struct cm_lease *l[4];

    add(1);
    for (int i = 0; i < 4; i++)
        l[i] = lease();
    back(l[0], CM_ERR_RATE_LIMITED, 100);
    expect(1, COOLING, 100 * S);
    back(l[1], CM_ERR_RATE_LIMITED, 30);
    expect(1, COOLING, 100 * S);
    back(l[2], CM_ERR_QUOTA_EXHAUSTED, 200);
    expect(1, EXHAUSTED, 200 * S);
    back(l[3], CM_ERR_RATE_LIMITED, 150);
    expect(1, EXHAUSTED, 200 * S);
}
END_TEST

START_TEST(the_graver_state_stays)
{
    struct cm_lease *l[4];

    add(1);
    for (int i = 0; i < 4; i++)
        l[i] = lease();
    back(l[0], CM_ERR_INVALID_CREDENTIAL, 0);
    back(l[1], CM_ERR_RATE_LIMITED, 30);
    back(l[2], CM_ERR_EXPIRED, 0);
    back(l[3], CM_ERR_NONE, 0);
    expect(1, DISABLED, 0);
    ck_assert_uint_eq(told.states, 1);
}
END_TEST

/* ---- failures that only count ---- */

START_TEST(three_within_a_minute_cool)
{
    static const enum cm_err_class three[] = {CM_ERR_CUT, CM_ERR_TIMEOUT, CM_ERR_OVERLOADED};

    add(1);
    for (int i = 0; i < 3; i++) {
        expect(1, OK, 0);
        use(1, three[i], 0);
        if (i < 2)
            pass(30 * S);
    }
    expect(1, COOLING, MIN);
    ck_assert_str_eq(told.reason, "overloaded");
}
END_TEST

START_TEST(three_in_a_longer_time_do_not)
{
    add(1);
    for (int i = 0; i < 10; i++) {
        use(1, CM_ERR_CUT, 0);
        pass(30 * S + 1);
    }
    expect(1, OK, 0);
}
END_TEST

START_TEST(nor_do_three_among_more_that_go_well)
{
    add(1);
    for (int i = 0; i < 200; i++) /* four a second, one in eight fails */
        use(1, i % 8 ? CM_ERR_NONE : CM_ERR_CUT, 0);
    expect(1, OK, 0);
    for (int i = 0; i < 3; i++) /* but when it fails for good, it is soon found */
        use(1, CM_ERR_CUT, 0);
    expect(1, COOLING, MIN);
}
END_TEST

START_TEST(each_further_series_costs_twice)
{
    add(1);
    for (int64_t cost = MIN; cost < 4 * HOUR; cost *= 2) {
        for (int i = 0; i < 3; i++)
            use(1, CM_ERR_CUT, 0);
        expect(1, COOLING, cost < HOUR ? cost : HOUR);
        pass(cost < HOUR ? cost : HOUR);
        use(1, CM_ERR_NONE, 0);
    }
    pass(10 * MIN + 1); /* quiet for long enough */
    for (int i = 0; i < 3; i++)
        use(1, CM_ERR_CUT, 0);
    expect(1, COOLING, MIN);
}
END_TEST

/* ---- models ---- */

START_TEST(a_model_is_cooled_alone)
{
    struct cm_lease *l;
    struct cm_pool_ask ask = {.provider = UP, .model = MODEL};
    struct cm_err err = {0};

    add(1);
    use(1, CM_ERR_MODEL_UNAVAILABLE, 0);
    expect(1, OK, 0);
    ck_assert_ptr_null(cm_pool_lease(pool, &ask, &err));
    ck_assert_int_eq(err.retry_after_s, 600);
    ck_assert(strstr(err.msg, "1 without this model") != NULL);
    l = lease_as((struct cm_pool_ask){.model = CM_S("other")});
    ck_assert_ptr_nonnull(l);
    back(l, CM_ERR_MODEL_UNAVAILABLE, 30);
    pass(30 * S);
    ck_assert_uint_eq(serves((struct cm_pool_ask){.model = CM_S("other")}), 1);
    ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 0);
    pass(570 * S);
    ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 1);
}
END_TEST

START_TEST(a_model_deadline_only_moves_later)
{
    struct cm_lease *a, *b;

    add(1);
    a = lease();
    b = lease();
    back(a, CM_ERR_MODEL_UNAVAILABLE, 100);
    back(b, CM_ERR_MODEL_UNAVAILABLE, 10);
    pass(99 * S);
    ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 0);
    pass(1 * S);
    ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 1);
}
END_TEST

/* Each is found at once, however deep it is in the tree of those for whom the model stays limited. */
START_TEST(limits_of_a_model_end_one_by_one)
{
    add_many(51);
    for (uint64_t id = 1; id <= 51; id++)
        use(id, CM_ERR_MODEL_UNAVAILABLE, (int)id);
    for (uint64_t id = 1; id <= 51; id++) {
        ck_assert_uint_ne(serves((struct cm_pool_ask){0}), id);
        pass(1 * S);
        ck_assert_uint_eq(serves((struct cm_pool_ask){0}), id);
    }
}
END_TEST

START_TEST(more_models_than_are_remembered)
{
    char name[24];

    add_many(2);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "model-%d", i);
        back(lease_as((struct cm_pool_ask){.only = 1, .model = cm_str_of(name)}),
             CM_ERR_MODEL_UNAVAILABLE, 60 + i);
    }
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "model-%d", i);
        ck_assert_uint_eq(serves((struct cm_pool_ask){.only = 1, .model = cm_str_of(name)}),
                          i < 64 ? 0 : 1);
    }
    pass(60 * S); /* the first bit is free again, for any model */
    back(lease_as((struct cm_pool_ask){.only = 2, .model = CM_S("late")}), CM_ERR_MODEL_UNAVAILABLE,
         60);
    ck_assert_uint_eq(serves((struct cm_pool_ask){.only = 2, .model = CM_S("late")}), 0);
    ck_assert_uint_eq(serves((struct cm_pool_ask){.only = 1, .model = CM_S("model-0")}), 1);
    ck_assert(cm_pool_reset(pool, 1));
    ck_assert_uint_eq(serves((struct cm_pool_ask){.only = 1, .model = CM_S("model-9")}), 1);
}
END_TEST

/* ---- refreshing ---- */

static void set_refreshing_provider(void)
{
    set_provider((struct cm_pool_provider){.can_refresh = true, .can_probe = true});
}

static void answer(uint64_t id, const char *token, int64_t life_ms, enum cm_err_class cls)
{
    struct cm_err why = why_of(cls, 0);

    cm_pool_refreshed(pool, id, cm_str_of(token), life_ms ? wall + life_ms : 0, cls ? &why : NULL);
}

START_TEST(an_expired_one_is_refreshed_once)
{
    struct cm_lease *a, *b, *l;

    set_refreshing_provider();
    add(1);
    a = lease();
    b = lease();
    back(a, CM_ERR_EXPIRED, 0);
    expect(1, REFRESHING, 0);
    ck_assert_uint_eq(told.refreshes, 1);
    back(b, CM_ERR_EXPIRED, 0);
    ck_assert_uint_eq(told.refreshes, 1);
    ck_assert_ptr_null(lease());
    pass(HOUR);
    ck_assert_uint_eq(told.refreshes, 1);
    answer(1, "t1", 0, CM_ERR_NONE);
    expect(1, OK, 0);
    l = lease();
    ck_str(cm_lease_token(l), "t1");
    ck_str(cm_lease_secret(l), "sk-1");
    back(l, CM_ERR_NONE, 0);
}
END_TEST

START_TEST(an_old_token_does_not_blame_the_new_one)
{
    struct cm_lease *old;

    set_refreshing_provider();
    add(1);
    old = lease();
    use(1, CM_ERR_EXPIRED, 0);
    answer(1, "t1", 0, CM_ERR_NONE);
    back(old, CM_ERR_EXPIRED, 0);
    expect(1, OK, 0);
    ck_assert_uint_eq(told.refreshes, 1);
}
END_TEST

START_TEST(a_new_token_that_is_refused_needs_a_login)
{
    set_refreshing_provider();
    add(1);
    use(1, CM_ERR_EXPIRED, 0);
    answer(1, _i ? "" : "t1", 0, CM_ERR_NONE); /* "": the old one goes on, it is said */
    use(1, CM_ERR_EXPIRED, 0);
    expect(1, NEEDS_LOGIN, 0);
    ck_assert(cm_pool_reset(pool, 1));
    use(1, CM_ERR_NONE, 0); /* now it is proven: the next time it has simply expired */
    use(1, CM_ERR_EXPIRED, 0);
    expect(1, REFRESHING, 0);
}
END_TEST

static const struct {
    enum cm_err_class cls;
    enum cm_cred_state state;
} refusals[] = {
    {CM_ERR_INVALID_CREDENTIAL, CM_CRED_STATE_NEEDS_LOGIN},
    {CM_ERR_EXPIRED, CM_CRED_STATE_NEEDS_LOGIN},
    {CM_ERR_VERIFICATION_REQUIRED, CM_CRED_STATE_VERIFY},
};

START_TEST(a_refused_refresh_waits_for_an_operator)
{
    set_refreshing_provider();
    add(1);
    use(1, CM_ERR_EXPIRED, 0);
    answer(1, "", 0, refusals[_i].cls);
    expect_at(__LINE__, 1, refusals[_i].state, 0);
    ck_assert_uint_eq(told.state, refusals[_i].state);
}
END_TEST

START_TEST(a_refresh_that_does_not_get_through_is_tried_again)
{
    static const int64_t pauses[] = {30 * S, 60 * S, 120 * S, 240 * S, 480 * S, 600 * S, 600 * S};

    set_refreshing_provider();
    add(1);
    use(1, CM_ERR_EXPIRED, 0);
    for (size_t i = 0; i < CM_COUNT(pauses); i++) {
        ck_assert_uint_eq(told.refreshes, i + 1);
        answer(1, "", 0, i % 2 ? CM_ERR_TIMEOUT : CM_ERR_RATE_LIMITED);
        expect(1, REFRESHING, pauses[i]);
        pass(pauses[i] - 1);
        ck_assert_uint_eq(told.refreshes, i + 1);
        ck_assert_ptr_null(lease());
        pass(1);
    }
    answer(1, "t", 0, CM_ERR_NONE);
    expect(1, OK, 0);
    use(1, CM_ERR_NONE, 0);
    use(1, CM_ERR_EXPIRED, 0);
    answer(1, "", 0, CM_ERR_CUT);
    expect(1, REFRESHING, 30 * S);
}
END_TEST

START_TEST(a_refresh_does_not_lift_a_limit)
{
    struct cm_lease *l;

    set_refreshing_provider();
    add(1);
    l = lease();
    use(1, CM_ERR_RATE_LIMITED, 100);
    back(l, CM_ERR_EXPIRED, 0);
    expect(1, REFRESHING, 0);
    pass(40 * S);
    answer(1, "t", 0, CM_ERR_NONE);
    expect(1, COOLING, 60 * S);
    pass(60 * S);
    expect(1, HALF_OPEN, 0);
}
END_TEST

START_TEST(a_trial_that_finds_it_expired_is_tried_again)
{
    set_refreshing_provider();
    add(1);
    use(1, CM_ERR_RATE_LIMITED, 100);
    pass(100 * S);
    use(1, CM_ERR_EXPIRED, 0);
    expect(1, REFRESHING, 0);
    answer(1, "t", 0, CM_ERR_NONE);
    expect(1, HALF_OPEN, 0);
}
END_TEST

static void put_token(uint64_t id, const char *token, int64_t life_ms)
{
    struct cm_cred_info info = info_of(id, "sk-x");

    info.token = cm_str_of(token);
    info.token_expires_ms = wall + life_ms;
    cm_pool_put(pool, &info);
}

/* Of many tokens made at once: each between 80 and 90 % of its life, at least a minute ahead, and not all at one moment. */
START_TEST(tokens_are_refreshed_ahead_of_their_end)
{
    static const int64_t lives[] = {HOUR, 10 * MIN, 4 * MIN, 90 * S};
    int64_t life = lives[_i], from = life / 10 * 8, to = life / 10 * 9;
    size_t moments = 0;

    from = from > life - MIN ? life - MIN : from;
    to = to > life - MIN ? life - MIN : to;
    set_refreshing_provider();
    for (uint64_t id = 1; id <= 50; id++)
        put_token(id, "t", life);
    if (from < life / 2) { /* so short a life: half of it, at most 30 s, is spent in peace */
        from = from < 30 * S ? 30 * S : from;
        to = from;
    }
    pass(from - 1);
    ck_assert_uint_eq(told.refreshes, 0);
    while (told.refreshes < 50) {
        ck_assert_int_le((int64_t)cm_pool_next_ms(pool), (int64_t)mono + to - from + 1);
        pass((int64_t)(cm_pool_next_ms(pool) - mono));
        moments++;
    }
    ck_assert_int_le(wall, START_UNIX + to + 1);
    ck_assert_uint_ge(moments, to > from ? 20 : 1);
    ck_assert_uint_eq(serves((struct cm_pool_ask){.only = told.id}), told.id); /* meanwhile */
}
END_TEST

START_TEST(a_token_that_ends_unrefreshed_serves_no_more)
{
    set_refreshing_provider();
    put_token(1, "t", HOUR);
    pass(55 * MIN);
    ck_assert_uint_eq(told.refreshes, 1);
    answer(1, "", 0, CM_ERR_UPSTREAM_DOWN);
    expect(1, OK, 0);
    pass(30 * S);
    ck_assert_uint_eq(told.refreshes, 2);
    pass(5 * MIN);
    expect(1, REFRESHING, 0);
    ck_assert_ptr_null(lease());
    answer(1, "", 0, CM_ERR_UPSTREAM_DOWN);
    expect(1, REFRESHING, MIN);
    pass(MIN);
    answer(1, "t2", HOUR, CM_ERR_NONE);
    expect(1, OK, 0);
    ck_assert_uint_eq(told.refreshes, 3);
}
END_TEST

START_TEST(an_ended_token_is_refreshed_before_use)
{
    set_refreshing_provider();
    put_token(1, "t", -HOUR);
    expect(1, REFRESHING, 0);
    ck_assert_uint_eq(told.refreshes, 1);
    answer(1, "t2", -HOUR, CM_ERR_NONE); /* a platform whose clock is wrong */
    expect(1, OK, 0);
    pass(DAY);
    ck_assert_uint_eq(told.refreshes, 1);
}
END_TEST

START_TEST(a_new_secret_ignores_the_answer_for_the_old_one)
{
    struct cm_cred_info info = info_of(1, "sk-new");

    set_refreshing_provider();
    add(1);
    use(1, CM_ERR_EXPIRED, 0);
    cm_pool_put(pool, &info);
    expect(1, OK, 0);
    use(1, CM_ERR_EXPIRED, 0);
    expect(1, REFRESHING, 0);
    ck_assert_uint_eq(told.refreshes, 1); /* the first has not been answered */
    answer(1, "of the old", 0, CM_ERR_NONE);
    ck_str(get(1).token, "");
    expect(1, REFRESHING, 0);
    ck_assert_uint_eq(told.refreshes, 2);
    answer(1, "of the new", 0, CM_ERR_NONE);
    ck_str(get(1).token, "of the new");
    expect(1, OK, 0);
}
END_TEST

/* ---- probes ---- */

START_TEST(who_needs_an_operator_is_asked_every_six_hours)
{
    struct cm_err down = why_of(CM_ERR_UPSTREAM_DOWN, 0), still = why_of(CM_ERR_EXPIRED, 0);

    set_provider((struct cm_pool_provider){.can_probe = true});
    add(1);
    use(1, _i ? CM_ERR_VERIFICATION_REQUIRED : CM_ERR_EXPIRED, 0);
    for (size_t i = 0; i < 3; i++) {
        pass(6 * HOUR - 1);
        ck_assert_uint_eq(told.probes, i);
        pass(1);
        ck_assert_uint_eq(told.probes, i + 1);
        cm_pool_probed(pool, 1, CM_STR_NONE, i % 2 ? &still : &down);
        expect_at(__LINE__, 1, _i ? CM_CRED_STATE_VERIFY : CM_CRED_STATE_NEEDS_LOGIN, 0);
    }
    pass(6 * HOUR);
    cm_pool_probed(pool, 1, CM_S("{\"left\":3}"), NULL);
    expect(1, OK, 0);
    ck_str(get(1).quota, "{\"left\":3}");
    pass(DAY);
    ck_assert_uint_eq(told.probes, 4);
}
END_TEST

START_TEST(a_check_tells_what_it_finds)
{
    struct cm_err limited = why_of(CM_ERR_RATE_LIMITED, 50),
                  dead = why_of(CM_ERR_INVALID_CREDENTIAL, 0);

    add(1);
    cm_pool_probed(pool, 1, CM_STR_NONE, &limited);
    expect(1, COOLING, 50 * S);
    cm_pool_probed(pool, 1, CM_S("{}"), NULL); /* no limit is lifted by it */
    expect(1, COOLING, 50 * S);
    cm_pool_probed(pool, 1, CM_S("{}"), &dead);
    expect(1, DISABLED, 0);
    cm_pool_probed(pool, 1, CM_S("{}"), NULL);
    expect(1, COOLING, 50 * S);
    cm_pool_probed(pool, 99, CM_S("{}"), NULL);
}
END_TEST

/* ---- the operator ---- */

START_TEST(disabled_by_hand)
{
    struct cm_cred_info info = info_of(1, "sk-1");

    add(1);
    use(1, CM_ERR_RATE_LIMITED, 100);
    info.enabled = false;
    cm_pool_put(pool, &info);
    expect(1, DISABLED, 0);
    ck_assert_str_eq(told.reason, "operator");
    ck_assert(cm_pool_reset(pool, 1));
    expect(1, DISABLED, 0);
    info.enabled = true;
    cm_pool_put(pool, &info);
    expect(1, OK, 0); /* the reset has forgotten the limit */
    ck_assert(!cm_pool_reset(pool, 2));
}
END_TEST

START_TEST(enabling_does_not_lift_a_limit)
{
    struct cm_cred_info info = info_of(1, "sk-1");

    add(1);
    use(1, CM_ERR_RATE_LIMITED, 100);
    info.enabled = false;
    cm_pool_put(pool, &info);
    pass(10 * S);
    info.enabled = true;
    cm_pool_put(pool, &info);
    expect(1, COOLING, 90 * S);
}
END_TEST

START_TEST(reset_and_a_new_secret_make_it_well)
{
    static const enum cm_err_class bad[] = {CM_ERR_RATE_LIMITED, CM_ERR_QUOTA_EXHAUSTED,
                                            CM_ERR_INVALID_CREDENTIAL, CM_ERR_EXPIRED,
                                            CM_ERR_VERIFICATION_REQUIRED};
    struct cm_cred_info info = info_of(1, "sk-1");
    struct cm_lease *old;

    add(1);
    for (size_t i = 0; i < CM_COUNT(bad); i++) {
        use(1, bad[i], 0);
        cm_pool_put(pool, &info); /* the same again changes nothing */
        ck_assert_uint_ne(get(1).state, CM_CRED_STATE_OK);
        ck_assert(cm_pool_reset(pool, 1));
        expect(1, OK, 0);
    }
    old = lease();
    use(1, CM_ERR_INVALID_CREDENTIAL, 0);
    info.secret = CM_S("sk-other");
    cm_pool_put(pool, &info);
    expect(1, OK, 0);
    ck_str(cm_lease_secret(old), "sk-1");
    back(old, CM_ERR_INVALID_CREDENTIAL, 0); /* of the old secret */
    expect(1, OK, 0);
}
END_TEST

START_TEST(put_replaces_what_an_operator_sets)
{
    struct cm_cred_info info = info_of(1, "sk-1"), now;

    info.token = CM_S("t");
    info.requests = 5;
    cm_pool_put(pool, &info);
    use(1, CM_ERR_CUT, 0);
    info.label = CM_S("mine");
    info.proxy = CM_S("http://p");
    info.token = CM_STR_NONE;
    info.weight = 5000;
    info.max_inflight = 3;
    info.from_config = true;
    info.requests = 0;
    info.state = CM_CRED_STATE_DISABLED;
    cm_pool_put(pool, &info);
    now = get(1);
    ck_str(now.label, "mine");
    ck_str(now.proxy, "http://p");
    ck_str(now.token, "t");
    ck_assert_int_eq(now.weight, 1000);
    ck_assert_int_eq(now.max_inflight, 3);
    ck_assert(now.from_config);
    ck_assert_int_eq(now.requests, 6);
    ck_assert_int_eq(now.failures, 1);
    ck_assert_int_eq(now.last_used_ms, wall);
    ck_assert_int_eq(now.created_ms, START_UNIX);
    expect(1, OK, 0);
    info.label = CM_STR_NONE;
    cm_pool_put(pool, &info);
    ck_str(get(1).label, "up#1");
}
END_TEST

START_TEST(a_new_token_ends_waiting_for_it)
{
    struct cm_cred_info info = info_of(1, "sk-1");

    add(1);
    use(1, CM_ERR_EXPIRED, 0);
    expect(1, NEEDS_LOGIN, 0);
    info.token = CM_S("fresh");
    cm_pool_put(pool, &info);
    expect(1, OK, 0);
}
END_TEST

START_TEST(removed_while_it_serves)
{
    struct cm_lease *l;
    struct cm_pool_counts n;

    set_provider((struct cm_pool_provider){.isolated = true});
    add(1);
    l = lease();
    cm_pool_remove(pool, 1);
    cm_pool_remove(pool, 1);
    ck_assert(!cm_pool_get(pool, 1, &(struct cm_cred_info){0}));
    ck_assert_ptr_null(lease());
    ck_assert_uint_eq(cm_lease_id(l), 1);
    ck_str(cm_lease_secret(l), "sk-1");
    ck_str(cm_lease_label(l), "up#1");
    ck_str(cm_lease_isolation(l), "cred-1");
    cm_pool_count(pool, UP, &n);
    ck_assert_uint_eq(n.total + n.inflight, 0);
    add(1); /* another with its number */
    back(l, CM_ERR_INVALID_CREDENTIAL, 0);
    expect(1, OK, 0);
}
END_TEST

START_TEST(another_secret_has_other_connections)
{
    struct cm_cred_info info = info_of(1, "another account's");
    struct cm_lease *old, *l;

    set_provider((struct cm_pool_provider){.isolated = true});
    add(1);
    old = lease();
    ck_str(get(1).isolation, "cred-1");
    cm_pool_put(pool, &info);
    l = lease();
    ck_assert(!cm_str_eq(cm_lease_isolation(l), CM_S("cred-1")));
    ck_assert(cm_str_eq(cm_lease_isolation(l), get(1).isolation));
    ck_str(cm_lease_isolation(old), "cred-1");
    info.label = CM_S("renamed");
    cm_pool_put(pool, &info);
    ck_assert(cm_str_eq(cm_lease_isolation(l), get(1).isolation));
    back(old, CM_ERR_NONE, 0);
    back(l, CM_ERR_NONE, 0);
    set_provider((struct cm_pool_provider){.isolated = false});
    ck_str(get(1).isolation, "");
}
END_TEST

START_TEST(a_provider_that_goes_takes_its_credentials)
{
    struct cm_pool_provider two[] = {{.name = UP}, {.name = CM_S("down")}};
    struct cm_cred_info info = info_of(9, "sk-9");
    struct cm_lease *l;
    struct cm_pool_counts n;

    cm_pool_providers(pool, two, 2);
    add(1);
    info.provider = CM_S("down");
    cm_pool_put(pool, &info);
    l = lease();
    cm_pool_providers(pool, two + 1, 1);
    ck_assert_ptr_null(lease());
    cm_pool_count(pool, CM_S(""), &n);
    ck_assert_uint_eq(n.total, 1);
    ck_str(cm_lease_secret(l), "sk-1");
    back(l, CM_ERR_RATE_LIMITED, 3);
    add(2); /* of a provider that is not there */
    ck_assert(!cm_pool_get(pool, 2, &(struct cm_cred_info){0}));
}
END_TEST

static void note_id(void *arg, const struct cm_cred_info *cred)
{
    char *text = arg;
    size_t n = strlen(text);

    snprintf(text + n, 64 - n, "%llu ", (unsigned long long)cred->id);
}

START_TEST(all_of_them_by_id)
{
    struct cm_pool_provider two[] = {{.name = UP}, {.name = CM_S("down")}};
    char text[64] = "";

    cm_pool_providers(pool, two, 2);
    for (uint64_t i = 0; i < 6; i++) {
        struct cm_cred_info info = info_of(1 + (i * 5) % 7, "sk");

        info.provider = two[i % 2].name;
        cm_pool_put(pool, &info);
    }
    cm_pool_each(pool, CM_S(""), note_id, text);
    ck_assert_str_eq(text, "1 2 4 5 6 7 ");
    text[0] = 0;
    cm_pool_each(pool, UP, note_id, text);
    ck_assert_str_eq(text, "1 4 7 ");
}
END_TEST

START_TEST(found_by_secret)
{
    add_many(3);
    struct cm_cred_info twin = info_of(4, "sk-2");

    ck_assert_uint_eq(cm_pool_find_secret(pool, UP, CM_S("sk-2")), 2);
    ck_assert_uint_eq(cm_pool_find_secret(pool, CM_S("x"), CM_S("sk-2")), 0);
    cm_pool_put(pool, &twin);
    for (uint64_t id = 2; id <= 4; id += 2) {
        uint64_t found = cm_pool_find_secret(pool, UP, CM_S("sk-2"));

        ck_assert(found == 2 || found == 4);
        cm_pool_remove(pool, id);
    }
    ck_assert_uint_eq(cm_pool_find_secret(pool, UP, CM_S("sk-2")), 0);
    ck_assert_uint_eq(cm_pool_find_secret(pool, UP, CM_S("sk-3")), 3);
}
END_TEST

/* ---- restart ---- */

static const struct {
    enum cm_cred_state state;
    int64_t left_ms;
    const char *reason;
    bool enabled, can_refresh;
    enum cm_cred_state want;
    int64_t want_left_ms;
} kept[] = {
    {CM_CRED_STATE_OK, 0, "", true, false, CM_CRED_STATE_OK, 0},
    {CM_CRED_STATE_OK, 0, "", false, false, CM_CRED_STATE_DISABLED, 0},
    {CM_CRED_STATE_COOLING, 30 * S, "rate_limited", true, false, CM_CRED_STATE_COOLING, 30 * S},
    {CM_CRED_STATE_COOLING, 30 * S, "cut", false, false, CM_CRED_STATE_DISABLED, 0},
    {CM_CRED_STATE_COOLING, -1, "rate_limited", true, false, CM_CRED_STATE_HALF_OPEN, 0},
    {CM_CRED_STATE_COOLING, INT64_C(400) * DAY, "rate_limited", true, false, CM_CRED_STATE_COOLING,
     INT64_C(31) * DAY},
    {CM_CRED_STATE_EXHAUSTED, DAY, "quota_exhausted", true, false, CM_CRED_STATE_EXHAUSTED, DAY},
    {CM_CRED_STATE_HALF_OPEN, 0, "cut", true, false, CM_CRED_STATE_HALF_OPEN, 0},
    {CM_CRED_STATE_REFRESHING, 0, "expired", true, true, CM_CRED_STATE_REFRESHING, 0},
    {CM_CRED_STATE_REFRESHING, 0, "expired", true, false, CM_CRED_STATE_OK, 0},
    {CM_CRED_STATE_REFRESHING, 0, "expired", false, true, CM_CRED_STATE_DISABLED, 0},
    {CM_CRED_STATE_NEEDS_LOGIN, 0, "expired", true, true, CM_CRED_STATE_NEEDS_LOGIN, 0},
    {CM_CRED_STATE_VERIFY, 0, "verification_required", true, false, CM_CRED_STATE_VERIFY, 0},
    {CM_CRED_STATE_DISABLED, 0, "invalid_credential", true, false, CM_CRED_STATE_DISABLED, 0},
    {CM_CRED_STATE_DISABLED, 0, "operator", true, false, CM_CRED_STATE_OK, 0},
    {CM_CRED_STATE_DISABLED, 0, "operator", false, false, CM_CRED_STATE_DISABLED, 0},
};

START_TEST(states_survive_a_restart)
{
    struct cm_cred_info info = info_of(1, "sk-1");

    set_provider((struct cm_pool_provider){.can_refresh = kept[_i].can_refresh});
    info.state = kept[_i].state;
    info.until_ms = kept[_i].left_ms ? wall + kept[_i].left_ms : 0;
    info.reason = cm_str_of(kept[_i].reason);
    info.enabled = kept[_i].enabled;
    info.quota = CM_S("{}");
    info.requests = 4;
    info.tokens_out = 9;
    info.last_used_ms = 77;
    info.created_ms = 66;
    cm_pool_put(pool, &info);
    expect_at(__LINE__, 1, kept[_i].want, kept[_i].want_left_ms);
    ck_assert_uint_eq(told.states, kept[_i].want != kept[_i].state);
    ck_assert_uint_eq(told.refreshes, kept[_i].want == CM_CRED_STATE_REFRESHING);
    info = get(1);
    if (info.state == kept[_i].state)
        ck_assert(cm_str_eq(info.reason, cm_str_of(kept[_i].reason)));
    ck_str(info.quota, "{}");
    ck_assert_int_eq(info.requests + info.tokens_out, 13);
    ck_assert_int_eq(info.last_used_ms, 77);
    ck_assert_int_eq(info.created_ms, 66);
}
END_TEST

START_TEST(a_round_through_the_store)
{
    struct cm_cred_info info = info_of(1, "sk-1");

    add(1);
    use(1, CM_ERR_RATE_LIMITED, 100);
    info.state = told.state;
    info.until_ms = told.until_ms;
    mono = 10; /* another machine start */
    wall += 40 * S;
    restart();
    cm_pool_put(pool, &info);
    expect(1, COOLING, 60 * S);
}
END_TEST

/* The running pool does not look at it, and what is on disk is corrected. */
START_TEST(the_wall_clock_jumps)
{
    int64_t by = _i ? -DAY : DAY;

    add(1);
    use(1, CM_ERR_RATE_LIMITED, 100);
    wall += by;
    pass(40 * S);
    ck_assert_uint_eq(told.states, 2);
    ck_assert_int_eq(told.until_ms, wall + 60 * S);
    expect(1, COOLING, 60 * S);
    pass(60 * S - 1);
    ck_assert_ptr_null(lease());
    pass(1);
    expect(1, HALF_OPEN, 0);
    ck_assert_uint_eq(told.states, 3);
}
END_TEST

/* ---- choosing ---- */

START_TEST(the_least_recently_used_serves_next)
{
    add_many(3);
    for (uint64_t i = 0; i < 9; i++)
        ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 1 + i % 3);
}
END_TEST

START_TEST(the_least_in_flight_serves_first)
{
    struct cm_lease *l[4];

    add_many(3);
    for (int i = 0; i < 4; i++) {
        l[i] = lease();
        ck_assert_uint_eq(cm_lease_id(l[i]), (uint64_t)(1 + i % 3));
    }
    back(l[1], CM_ERR_NONE, 0); /* 1 has two, 2 none, 3 one */
    ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 2);
    ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 2);
    back(l[2], CM_ERR_NONE, 0);
    ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 3);
    back(l[0], CM_ERR_NONE, 0);
    back(l[3], CM_ERR_NONE, 0);
    ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 1);
}
END_TEST

/* Ids 1, 2 weigh 1; 3 weighs 2; 4 weighs 5: of 900 requests 100, 100, 200, 500; whether they last or not. */
START_TEST(weight_is_a_share)
{
    static const int64_t weights[] = {1, 1, 2, 5};
    struct cm_lease *out[32] = {0};
    size_t got[5] = {0};

    for (uint64_t id = 1; id <= 4; id++) {
        struct cm_cred_info info = info_of(id, "sk");

        info.weight = weights[id - 1];
        cm_pool_put(pool, &info);
    }
    for (size_t i = 0; i < 900; i++) {
        size_t at = _i ? i % CM_COUNT(out) : 0;

        if (out[at])
            back(out[at], CM_ERR_NONE, 0);
        out[at] = lease();
        got[cm_lease_id(out[at])]++;
        if (i % 9 == 8) /* nor in bursts */
            for (uint64_t id = 1; id <= 4; id++)
                ck_assert_int_le(llabs((int64_t)got[id] * 9 - weights[id - 1] * (int64_t)(i + 1)),
                                 9);
    }
    for (size_t i = 0; i < CM_COUNT(out); i++)
        if (out[i])
            back(out[i], CM_ERR_NONE, 0);
}
END_TEST

/* Who was away does not get in one go what was missed. */
START_TEST(coming_back_is_no_burst)
{
    struct cm_cred_info heavy = info_of(2, "sk-2");
    size_t got = 0;

    add(1);
    heavy.weight = 3;
    cm_pool_put(pool, &heavy);
    use(2, CM_ERR_RATE_LIMITED, 10);
    for (int i = 0; i < 100; i++)
        ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 1);
    pass(10 * S);
    for (int i = 0; i < 8; i++)
        got += serves((struct cm_pool_ask){0}) == 2;
    ck_assert_uint_ge(got, 5);
    ck_assert_uint_le(got, 7);
}
END_TEST

START_TEST(caps)
{
    struct cm_lease *l[5];
    struct cm_cred_info own = info_of(2, "sk-2");
    struct cm_pool_ask ask = {.provider = UP, .model = MODEL};
    struct cm_err err = {0};

    set_provider((struct cm_pool_provider){.max_inflight = 2});
    add(1);
    own.max_inflight = 3;
    cm_pool_put(pool, &own);
    for (int i = 0; i < 5; i++)
        l[i] = lease();
    ck_assert_ptr_nonnull(l[4]);
    ck_assert_ptr_null(cm_pool_lease(pool, &ask, &err));
    ck_assert_str_eq(err.param, "busy");
    ck_assert_int_eq(err.retry_after_s, 1);
    ck_assert_int_eq(cm_err_status(&err), 429);
    ck_assert(strstr(err.msg, "2 busy") != NULL);
    ck_assert_int_eq(get(1).inflight, 2);
    ck_assert_int_eq(get(2).inflight, 3);
    set_provider((struct cm_pool_provider){.max_inflight = 3}); /* applies at once */
    ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 1);
    for (int i = 0; i < 5; i++)
        back(l[i], CM_ERR_NONE, 0);
}
END_TEST

START_TEST(not_too_soon)
{
    struct cm_pool_ask ask = {.provider = UP};
    struct cm_err err = {0};

    set_provider((struct cm_pool_provider){.min_interval_ms = 2500});
    add(1);
    use(1, CM_ERR_NONE, 0);
    ck_assert_ptr_null(cm_pool_lease(pool, &ask, &err));
    ck_assert_int_eq(err.retry_after_s, 3);
    ck_assert_uint_eq(cm_pool_next_ms(pool), mono + 2500);
    pass(2499);
    ck_assert_ptr_null(lease());
    pass(1);
    use(1, CM_ERR_NONE, 0);
}
END_TEST

START_TEST(tried_ones_and_only)
{
    struct cm_tried tried = {.ids = {1, 3}, .n = 2};
    struct cm_err err = {0};
    struct cm_pool_ask ask = {.provider = UP, .tried = &tried};

    add_many(3);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(serves((struct cm_pool_ask){.tried = &tried}), 2);
    tried.ids[tried.n++] = 2;
    ck_assert_ptr_null(cm_pool_lease(pool, &ask, &err));
    ck_assert_int_eq(err.retry_after_s, 0);
    ck_assert_int_eq(cm_err_status(&err), 503);
    ck_assert(strstr(err.msg, "3 tried") != NULL);
    ck_assert_uint_eq(serves((struct cm_pool_ask){.only = 3}), 3);
    ck_assert_uint_eq(serves((struct cm_pool_ask){.only = 3, .tried = &tried}), 0);
    ck_assert_uint_eq(serves((struct cm_pool_ask){.only = 4}), 0);
}
END_TEST

START_TEST(who_is_missing_is_told)
{
    struct cm_err err = {0};
    struct cm_pool_ask ask = {.provider = UP, .model = MODEL};

    ck_assert_ptr_null(cm_pool_lease(pool, &ask, &err));
    ck_assert_int_eq(err.cls, CM_ERR_NO_CREDENTIAL);
    ck_assert(strstr(err.msg, "up has no credential") != NULL);
    add_many(3);
    use(1, CM_ERR_RATE_LIMITED, 90);
    use(2, CM_ERR_QUOTA_EXHAUSTED, 30);
    use(3, CM_ERR_INVALID_CREDENTIAL, 0);
    ck_assert_ptr_null(cm_pool_lease(pool, &ask, &err));
    ck_assert(strstr(err.msg, "none of 3") && strstr(err.msg, "2 limited") &&
              strstr(err.msg, "1 waiting for an operator"));
    ck_assert_int_eq(err.retry_after_s, 30);
    ask.only = 1;
    ck_assert_ptr_null(cm_pool_lease(pool, &ask, &err));
    ck_assert_int_eq(err.retry_after_s, 90);
    ask.provider = CM_S("nobody");
    ck_assert_ptr_null(cm_pool_lease(pool, &ask, &err));
    ck_assert(strstr(err.msg, "nobody has no credential") != NULL);
}
END_TEST

START_TEST(counts)
{
    struct cm_pool_counts n;
    struct cm_lease *l;

    add_many(3);
    use(2, CM_ERR_RATE_LIMITED, 90);
    l = lease();
    cm_pool_count(pool, UP, &n);
    ck_assert_uint_eq(n.total, 3);
    ck_assert_uint_eq(n.state[CM_CRED_STATE_OK], 2);
    ck_assert_uint_eq(n.state[CM_CRED_STATE_COOLING], 1);
    ck_assert_uint_eq(n.inflight, 1);
    cm_lease_give_back(l, NULL, 30, 40);
    ck_assert_int_eq(get(1).tokens_in, 30);
    ck_assert_int_eq(get(1).tokens_out, 40);
    ck_assert_int_eq(get(1).requests, 1);
    ck_assert_int_eq(get(1).failures, 0);
}
END_TEST

START_TEST(the_first_to_return)
{
    add_many(4);
    ck_assert_uint_eq(cm_pool_cooling_ms(pool, UP), 0);
    use(2, CM_ERR_RATE_LIMITED, 90);
    ck_assert_uint_eq(cm_pool_cooling_ms(pool, UP), 90 * S);
    use(3, CM_ERR_QUOTA_EXHAUSTED, 80); /* exhausted is another state */
    ck_assert_uint_eq(cm_pool_cooling_ms(pool, UP), 90 * S);
    pass(20 * S);
    use(1, CM_ERR_RATE_LIMITED, 600);
    ck_assert_uint_eq(cm_pool_cooling_ms(pool, UP), 70 * S);
    pass(70 * S); /* … and the other one is left */
    ck_assert_uint_eq(cm_pool_cooling_ms(pool, UP), 530 * S);
    ck_assert_uint_eq(cm_pool_cooling_ms(pool, CM_S("nobody")), 0);
}
END_TEST

/* ---- conversations ---- */

static uint64_t talk(uint64_t conversation)
{
    return serves((struct cm_pool_ask){.affinity = conversation});
}

START_TEST(a_conversation_stays)
{
    add_many(3);
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(talk(100), 1);
        ck_assert_uint_eq(talk(200), 2);
        serves((struct cm_pool_ask){0});
    }
    pass(HOUR - 1);
    ck_assert_uint_eq(talk(100), 1);
    pass(HOUR - 1); /* since its last use */
    ck_assert_uint_eq(talk(100), 1);
    serves((struct cm_pool_ask){0});
    serves((struct cm_pool_ask){0});
    ck_assert_uint_eq(serves((struct cm_pool_ask){0}), 1);
    pass(HOUR);
    ck_assert_uint_eq(talk(100), 2); /* forgotten: the least recently used */
}
END_TEST

START_TEST(while_limited_another_is_borrowed)
{
    struct cm_lease *l;
    struct cm_tried tried = {.ids = {1}, .n = 1};

    set_provider((struct cm_pool_provider){.max_inflight = 1});
    add_many(4);
    ck_assert_uint_eq(talk(100), 1);
    use(1, CM_ERR_RATE_LIMITED, 90);
    ck_assert_uint_eq(talk(100), 2);
    ck_assert_uint_eq(talk(100), 2); /* the same again */
    pass(90 * S);
    ck_assert_uint_eq(talk(100), 1);
    l = lease_as((struct cm_pool_ask){.only = 1});
    ck_assert_uint_ne(talk(100), 1);
    back(l, CM_ERR_NONE, 0);
    ck_assert_uint_eq(talk(100), 1);
    ck_assert_uint_ne(serves((struct cm_pool_ask){.affinity = 100, .tried = &tried}), 1);
    ck_assert_uint_eq(talk(100), 1);
}
END_TEST

START_TEST(who_is_out_for_good_loses_its_conversations)
{
    uint64_t next;

    add_many(3);
    ck_assert_uint_eq(talk(100), 1);
    use(1, CM_ERR_INVALID_CREDENTIAL, 0);
    next = talk(100);
    ck_assert_uint_ne(next, 1);
    ck_assert(cm_pool_reset(pool, 1));
    ck_assert_uint_eq(talk(100), next);
    cm_pool_remove(pool, next);
    ck_assert_uint_ne(talk(100), next);
}
END_TEST

/* Many begin with the same words: the first turn takes anybody, the next ones stay with whom it took. */
START_TEST(a_beginning_is_bound_anew)
{
    add_many(3);
    for (uint64_t id = 1; id <= 3; id++) {
        ck_assert_uint_eq(serves((struct cm_pool_ask){.affinity = 100, .begins = true}), id);
        ck_assert_uint_eq(talk(100), id);
    }
}
END_TEST

START_TEST(conversations_are_per_provider)
{
    struct cm_pool_provider two[] = {{.name = UP}, {.name = CM_S("down")}};

    cm_pool_providers(pool, two, 2);
    add_many(2);
    for (uint64_t id = 11; id <= 12; id++) {
        struct cm_cred_info info = info_of(id, "sk");

        info.provider = CM_S("down");
        cm_pool_put(pool, &info);
    }
    ck_assert_uint_eq(serves((struct cm_pool_ask){.provider = CM_S("down")}), 11);
    for (int i = 0; i < 2; i++) {
        ck_assert_uint_eq(talk(100), 1);
        ck_assert_uint_eq(serves((struct cm_pool_ask){.provider = CM_S("down"), .affinity = 100}),
                          12);
    }
}
END_TEST

START_TEST(conversations_are_bounded)
{
    add_many(2);
    ck_assert_uint_eq(talk(1), 1);
    for (uint64_t i = 2; i <= 65536; i++)
        talk(i * 0x10001);
    ck_assert_uint_eq(affinity_count(pool), 65536);
    serves((struct cm_pool_ask){0});
    ck_assert_uint_eq(talk(1), 1); /* the last moment at which it is known */
    for (uint64_t i = 0; i < 65536; i++)
        talk((1000000 + i) * 0x10001);
    ck_assert_uint_eq(affinity_count(pool), 65536);
    use(1, CM_ERR_NONE, 0);
    ck_assert_uint_eq(talk(1), 2);
}
END_TEST

/* ---- waiting ---- */

struct waiter {
    struct cm_pool_wait *wait;
    struct cm_lease *lease;
    struct cm_err err;
    int called, rank;
    bool gives_back;
};
static int served, depth;

static void on_lease(void *arg, struct cm_lease *l, const struct cm_err *err)
{
    struct waiter *w = arg;

    ck_assert_int_eq(depth++, 0); /* one after the other, whatever they do */
    w->called++;
    w->rank = ++served;
    w->lease = l;
    w->wait = NULL;
    if (err)
        w->err = *err;
    if (l && w->gives_back) {
        w->lease = NULL;
        back(l, CM_ERR_NONE, 0);
    }
    depth--;
}

static bool wait_as(struct waiter *w, struct cm_pool_ask ask, int64_t max_ms)
{
    ask.provider = UP;
    ask.model = ask.model.n ? ask.model : MODEL;
    w->wait = cm_pool_wait(pool, &ask, max_ms, on_lease, w, &w->err);
    return w->wait != NULL;
}

static bool wait_for(struct waiter *w, int64_t max_ms)
{
    return wait_as(w, (struct cm_pool_ask){0}, max_ms);
}

static size_t waiting(void)
{
    struct cm_pool_counts n;

    cm_pool_count(pool, UP, &n);
    return n.waiting;
}

static void set_one_at_a_time(void)
{
    served = 0;
    set_provider((struct cm_pool_provider){.max_inflight = 1});
}

START_TEST(first_come_first_served)
{
    struct waiter w[3] = {0};
    struct cm_lease *l;

    set_one_at_a_time();
    add(1);
    l = lease();
    for (int i = 0; i < 3; i++)
        ck_assert(wait_for(&w[i], 10 * S));
    ck_assert_uint_eq(waiting(), 3);
    ck_assert_uint_eq(cm_pool_next_ms(pool), mono + 10 * S);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(w[i].called, 0);
        back(l, CM_ERR_NONE, 0);
        ck_assert_int_eq(w[i].called, 1);
        ck_assert_ptr_nonnull(l = w[i].lease);
    }
    back(l, CM_ERR_NONE, 0);
    ck_assert_uint_eq(waiting(), 0);
}
END_TEST

START_TEST(time_is_up)
{
    struct waiter w = {0};
    struct cm_lease *l;

    set_one_at_a_time();
    add(1);
    l = lease();
    ck_assert(wait_for(&w, 10 * S));
    pass(10 * S - 1);
    ck_assert_int_eq(w.called, 0);
    pass(1);
    ck_assert_int_eq(w.called, 1);
    ck_assert_ptr_null(w.lease);
    ck_assert_int_eq(w.err.cls, CM_ERR_NO_CREDENTIAL);
    ck_assert_str_eq(w.err.param, "busy");
    back(l, CM_ERR_NONE, 0);
    ck_assert_int_eq(w.called, 1);
}
END_TEST

START_TEST(what_wakes)
{
    struct waiter w = {0};
    struct cm_lease *l = NULL;

    set_provider((struct cm_pool_provider){.max_inflight = 1, .min_interval_ms = 500});
    served = 0;
    add(1);
    switch (_i) {
    case 0: /* a cooldown ends */
        use(1, CM_ERR_RATE_LIMITED, 5);
        ck_assert(wait_for(&w, 10 * S));
        pass(5 * S - 1);
        ck_assert_int_eq(w.called, 0);
        pass(1);
        break;
    case 1: /* min_interval ends */
        use(1, CM_ERR_NONE, 0);
        ck_assert(wait_for(&w, 10 * S));
        pass(499);
        ck_assert_int_eq(w.called, 0);
        pass(1);
        break;
    case 2: /* another is added */
        l = lease();
        ck_assert(wait_for(&w, 10 * S));
        add(2);
        break;
    case 3: /* an operator resets */
        use(1, CM_ERR_RATE_LIMITED, 5);
        ck_assert(wait_for(&w, 10 * S));
        pass(500);
        ck_assert_int_eq(w.called, 0);
        cm_pool_reset(pool, 1);
        break;
    case 4: /* a model's limit ends */
        use(1, CM_ERR_MODEL_UNAVAILABLE, 5);
        pass(500);
        ck_assert(wait_for(&w, 10 * S));
        ck_assert_uint_eq(cm_pool_next_ms(pool), mono + 4500);
        pass(4499);
        ck_assert_int_eq(w.called, 0);
        pass(1);
        break;
    case 5: /* it is given back by a client who left, and may be used again a moment later */
        l = lease();
        pass(500);
        ck_assert(wait_for(&w, 10 * S));
        cm_lease_cancel(l, NULL);
        l = NULL;
        break;
    case 6: /* the cap is raised: told at the next tick */
        l = lease();
        pass(500);
        ck_assert(wait_for(&w, 10 * S));
        set_provider((struct cm_pool_provider){.max_inflight = 2});
        ck_assert_uint_eq(cm_pool_next_ms(pool), 0);
        pass(0);
        break;
    case 7: /* refreshed */
        set_refreshing_provider();
        use(1, CM_ERR_EXPIRED, 0);
        ck_assert(wait_for(&w, 10 * S));
        pass(1 * S);
        ck_assert_int_eq(w.called, 0);
        answer(1, "t", 0, CM_ERR_NONE);
        break;
    default: /* the one hoped for is gone, another comes */
        use(1, CM_ERR_RATE_LIMITED, 5);
        ck_assert(wait_for(&w, 10 * S));
        cm_pool_remove(pool, 1);
        ck_assert_int_eq(w.called, 0);
        add(3);
        break;
    }
    ck_assert_int_eq(w.called, 1);
    ck_assert_ptr_nonnull(w.lease);
    back(w.lease, CM_ERR_NONE, 0);
    if (l)
        back(l, CM_ERR_NONE, 0);
}
END_TEST

START_TEST(hopeless_is_refused_at_once)
{
    struct waiter w = {0};
    struct cm_tried tried = {.ids = {1}, .n = 1};

    set_one_at_a_time();
    ck_assert(!wait_for(&w, 10 * S));
    add(1);
    use(1, CM_ERR_RATE_LIMITED, 11);
    ck_assert(!wait_for(&w, 10 * S));
    ck_assert_int_eq(w.err.retry_after_s, 11);
    pass(1 * S);
    ck_assert(!wait_for(&w, 0));
    ck_assert(!wait_as(&w, (struct cm_pool_ask){.tried = &tried}, 10 * S));
    ck_assert(!wait_as(&w, (struct cm_pool_ask){.only = 2}, 10 * S));
    ck_assert(wait_as(&w, (struct cm_pool_ask){.only = 1}, 10 * S));
    cm_pool_wait_cancel(w.wait);
    ck_assert(cm_pool_reset(pool, 1));
    use(1, CM_ERR_MODEL_UNAVAILABLE, 30);
    ck_assert(!wait_for(&w, 10 * S));
    ck_assert(wait_for(&w, 30 * S));
    cm_pool_wait_cancel(w.wait);
    ck_assert(cm_pool_reset(pool, 1));
    use(1, CM_ERR_INVALID_CREDENTIAL, 0);
    ck_assert(!wait_for(&w, 10 * S));
    ck_assert_int_eq(w.called, 0);
}
END_TEST

START_TEST(who_cannot_use_it_blocks_nobody)
{
    struct waiter w[5] = {0};
    struct cm_tried tried = {.ids = {1}, .n = 1};
    struct cm_lease *a, *b;

    set_one_at_a_time();
    add_many(2);
    back(lease_as((struct cm_pool_ask){.only = 1, .model = CM_S("rare")}), CM_ERR_MODEL_UNAVAILABLE,
         600);
    a = lease_as((struct cm_pool_ask){.only = 1});
    b = lease_as((struct cm_pool_ask){.only = 2});
    ck_assert(wait_as(&w[0], (struct cm_pool_ask){.tried = &tried}, 10 * S));
    ck_assert(wait_as(&w[1], (struct cm_pool_ask){.model = CM_S("rare")}, 10 * S));
    ck_assert(wait_as(&w[2], (struct cm_pool_ask){.only = 2}, 10 * S));
    ck_assert(wait_for(&w[3], 10 * S));
    ck_assert(wait_for(&w[4], 10 * S));
    back(a, CM_ERR_NONE, 0);
    ck_assert_int_eq(w[3].called, 1);
    ck_assert_uint_eq(waiting(), 4);
    for (int i = 0; i < 3; i++) { /* and the others keep their order */
        back(b, CM_ERR_NONE, 0);
        ck_assert_int_eq(w[i].called, 1);
        b = w[i].lease;
    }
    back(b, CM_ERR_NONE, 0);
    back(w[3].lease, CM_ERR_NONE, 0);
    back(w[4].lease, CM_ERR_NONE, 0);
}
END_TEST

START_TEST(who_comes_later_does_not_overtake)
{
    struct waiter w = {0};

    set_one_at_a_time();
    add(1);
    use(1, CM_ERR_RATE_LIMITED, 5);
    ck_assert(wait_for(&w, 10 * S));
    mono += 5 * S; /* nobody has ticked yet */
    ck_assert_ptr_null(lease());
    ck_assert_int_eq(w.called, 0);
    ck_assert_uint_eq(cm_pool_next_ms(pool), 0);
    cm_pool_tick(pool);
    ck_assert_int_eq(w.called, 1);
    back(w.lease, CM_ERR_NONE, 0);
}
END_TEST

START_TEST(never_from_within_the_call)
{
    struct waiter w = {0};

    set_one_at_a_time();
    add(1);
    ck_assert(wait_for(&w, 10 * S)); /* it is free */
    ck_assert_int_eq(w.called, 0);
    ck_assert_uint_eq(cm_pool_next_ms(pool), 0);
    ck_assert_ptr_null(lease());
    cm_pool_tick(pool);
    ck_assert_int_eq(w.called, 1);
    back(w.lease, CM_ERR_NONE, 0);
}
END_TEST

START_TEST(cancelled_at_any_time)
{
    struct waiter w[3] = {0};
    struct cm_lease *l;

    set_one_at_a_time();
    add(1);
    l = lease();
    for (int i = 0; i < 3; i++)
        ck_assert(wait_for(&w[i], 10 * S));
    cm_pool_wait_cancel(w[0].wait);
    back(l, CM_ERR_NONE, 0);
    ck_assert_int_eq(w[1].called, 1);
    cm_pool_wait_cancel(w[2].wait);
    back(w[1].lease, CM_ERR_NONE, 0);
    ck_assert(wait_for(&w[0], 10 * S)); /* served, not told: the next in line gets it */
    ck_assert(wait_for(&w[1], 10 * S));
    w[1].called = 0;
    cm_pool_wait_cancel(w[0].wait);
    ck_assert_int_eq(w[1].called, 0);
    cm_pool_tick(pool);
    ck_assert_int_eq(w[1].called, 1);
    ck_assert_int_eq(w[0].called, 0);
    back(w[1].lease, CM_ERR_NONE, 0);
    ck_assert_int_eq(get(1).requests, 3); /* the one that never went out does not count */
}
END_TEST

START_TEST(the_line_is_bounded)
{
    static struct waiter w[1001];
    struct cm_lease *l;

    memset(w, 0, sizeof(w));
    set_one_at_a_time();
    add(1);
    l = lease();
    for (int i = 0; i < 1000; i++) {
        w[i].gives_back = true; /* from within: no deeper with each */
        ck_assert(wait_for(&w[i], 10 * S));
    }
    ck_assert(!wait_for(&w[1000], 10 * S));
    ck_assert_str_eq(w[1000].err.param, "busy");
    back(l, CM_ERR_NONE, 0);
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(w[i].rank, i + 1);
    ck_assert_uint_eq(waiting(), 0);
}
END_TEST

START_TEST(a_provider_that_goes_refuses_who_waits)
{
    struct waiter w = {0};
    struct cm_pool_provider other = {.name = CM_S("down")};
    struct cm_lease *l;

    set_one_at_a_time();
    add(1);
    l = lease();
    ck_assert(wait_for(&w, 10 * S));
    cm_pool_providers(pool, &other, 1);
    ck_assert_int_eq(w.called, 0);
    cm_pool_tick(pool);
    ck_assert_int_eq(w.called, 1);
    ck_assert_int_eq(w.err.cls, CM_ERR_NO_CREDENTIAL);
    back(l, CM_ERR_NONE, 0);
}
END_TEST

/* ---- what it costs ---- */

/* 10,000 credentials, 9,500 limited, of the others half without the model, those used least recently; 64 tried. */
START_TEST(a_choice_takes_few_steps)
{
    struct cm_tried tried = {.n = 0};
    struct cm_rng rng;
    uint64_t worst = 0, worst_back = 0;

    cm_rng_seed(&rng, 1);
    for (uint64_t id = 1; id <= 10000; id++) {
        char secret[24];
        struct cm_cred_info info;

        snprintf(secret, sizeof(secret), "sk-%llu", (unsigned long long)id);
        info = info_of(id, secret);
        if (id > 500) {
            info.state = CM_CRED_STATE_COOLING;
            info.until_ms = wall + 1 + (int64_t)cm_rng_below(&rng, HOUR);
        }
        cm_pool_put(pool, &info);
    }
    for (uint64_t id = 1; id <= 250; id++)
        use(id, CM_ERR_MODEL_UNAVAILABLE, 7200);
    for (uint64_t id = 251; id <= 500; id++)
        use(id, CM_ERR_NONE, 0);
    for (uint64_t id = 251; id <= 251 + 63; id++)
        tried.ids[tried.n++] = id;
    for (int i = 0; i < 2000; i++) {
        uint64_t before = pool_steps(pool), after;
        struct cm_lease *l = lease_as((struct cm_pool_ask){.affinity = 1 + cm_rng_below(&rng, 1000),
                                                           .tried = i % 2 ? &tried : NULL});

        ck_quick(l != NULL);
        after = pool_steps(pool);
        worst = i % 2 == 0 && after - before > worst ? after - before : worst;
        ck_quick(i % 2 == 0 || after - before < 64 * 32);
        before = after;
        back(l, i % 16 ? CM_ERR_NONE : CM_ERR_RATE_LIMITED, 3600);
        after = pool_steps(pool);
        worst_back = after - before > worst_back ? after - before : worst_back;
    }
    ck_assert_uint_le(worst, 200); /* about 2 log n for each of: find, take out, put in */
    ck_assert_uint_le(worst_back, 200);
}
END_TEST

Suite *suite_pool(void)
{
    Suite *s = suite_create("pool");
    TCase *c = tcase_create("states");

    tcase_add_checked_fixture(c, set_up, clean_up);
    tcase_add_test(c, state_names_and_back);
    tcase_add_loop_test(c, each_verdict, 0, CM_COUNT(verdicts));
    tcase_add_loop_test(c, no_secret_no_blame, 0, CM_COUNT(verdicts));
    tcase_add_test(c, a_challenge_is_of_the_address_that_was_asked_from);
    tcase_add_test(c, a_provider_without_cooldown_cools_a_minute);
    tcase_add_test(c, a_challenge_rests_those_behind_the_address);
    tcase_add_test(c, cooling_ends_half_open_and_one_request_decides);
    tcase_add_test(c, cooling_ends_for_a_choice);
    tcase_add_test(c, failing_half_open_doubles_up_to_an_hour);
    tcase_add_test(c, an_exhausted_one_comes_back_half_open);
    tcase_add_test(c, half_open_stays_for_what_is_not_its_doing);
    tcase_add_test(c, an_older_lease_does_not_decide);
    tcase_add_test(c, deadlines_only_move_later);
    tcase_add_test(c, the_graver_state_stays);
    tcase_add_test(c, three_within_a_minute_cool);
    tcase_add_test(c, three_in_a_longer_time_do_not);
    tcase_add_test(c, nor_do_three_among_more_that_go_well);
    tcase_add_test(c, each_further_series_costs_twice);
    tcase_add_test(c, a_model_is_cooled_alone);
    tcase_add_test(c, a_model_deadline_only_moves_later);
    tcase_add_test(c, limits_of_a_model_end_one_by_one);
    tcase_add_test(c, more_models_than_are_remembered);
    suite_add_tcase(s, c);

    c = tcase_create("errands");
    tcase_add_checked_fixture(c, set_up, clean_up);
    tcase_add_test(c, an_expired_one_is_refreshed_once);
    tcase_add_test(c, an_old_token_does_not_blame_the_new_one);
    tcase_add_loop_test(c, a_new_token_that_is_refused_needs_a_login, 0, 2);
    tcase_add_loop_test(c, a_refused_refresh_waits_for_an_operator, 0, CM_COUNT(refusals));
    tcase_add_test(c, a_refresh_that_does_not_get_through_is_tried_again);
    tcase_add_test(c, a_refresh_does_not_lift_a_limit);
    tcase_add_test(c, a_trial_that_finds_it_expired_is_tried_again);
    tcase_add_loop_test(c, tokens_are_refreshed_ahead_of_their_end, 0, 4);
    tcase_add_test(c, a_token_that_ends_unrefreshed_serves_no_more);
    tcase_add_test(c, an_ended_token_is_refreshed_before_use);
    tcase_add_test(c, a_new_secret_ignores_the_answer_for_the_old_one);
    tcase_add_loop_test(c, who_needs_an_operator_is_asked_every_six_hours, 0, 2);
    tcase_add_test(c, a_check_tells_what_it_finds);
    suite_add_tcase(s, c);

    c = tcase_create("operator");
    tcase_add_checked_fixture(c, set_up, clean_up);
    tcase_add_test(c, disabled_by_hand);
    tcase_add_test(c, enabling_does_not_lift_a_limit);
    tcase_add_test(c, reset_and_a_new_secret_make_it_well);
    tcase_add_test(c, put_replaces_what_an_operator_sets);
    tcase_add_test(c, a_new_token_ends_waiting_for_it);
    tcase_add_test(c, removed_while_it_serves);
    tcase_add_test(c, another_secret_has_other_connections);
    tcase_add_test(c, a_provider_that_goes_takes_its_credentials);
    tcase_add_test(c, all_of_them_by_id);
    tcase_add_test(c, found_by_secret);
    tcase_add_loop_test(c, states_survive_a_restart, 0, CM_COUNT(kept));
    tcase_add_test(c, a_round_through_the_store);
    tcase_add_loop_test(c, the_wall_clock_jumps, 0, 2);
    suite_add_tcase(s, c);

    c = tcase_create("choosing");
    tcase_add_checked_fixture(c, set_up, clean_up);
    tcase_add_test(c, the_least_recently_used_serves_next);
    tcase_add_test(c, the_least_in_flight_serves_first);
    tcase_add_loop_test(c, weight_is_a_share, 0, 2);
    tcase_add_test(c, coming_back_is_no_burst);
    tcase_add_test(c, caps);
    tcase_add_test(c, not_too_soon);
    tcase_add_test(c, tried_ones_and_only);
    tcase_add_test(c, who_is_missing_is_told);
    tcase_add_test(c, counts);
    tcase_add_test(c, the_first_to_return);
    tcase_add_test(c, a_conversation_stays);
    tcase_add_test(c, while_limited_another_is_borrowed);
    tcase_add_test(c, who_is_out_for_good_loses_its_conversations);
    tcase_add_test(c, a_beginning_is_bound_anew);
    tcase_add_test(c, conversations_are_per_provider);
    tcase_add_test(c, conversations_are_bounded);
    tcase_add_test(c, a_choice_takes_few_steps);
    suite_add_tcase(s, c);

    c = tcase_create("waiting");
    tcase_add_checked_fixture(c, set_up, clean_up);
    tcase_add_test(c, first_come_first_served);
    tcase_add_test(c, time_is_up);
    tcase_add_loop_test(c, what_wakes, 0, 9);
    tcase_add_test(c, hopeless_is_refused_at_once);
    tcase_add_test(c, who_cannot_use_it_blocks_nobody);
    tcase_add_test(c, who_comes_later_does_not_overtake);
    tcase_add_test(c, never_from_within_the_call);
    tcase_add_test(c, cancelled_at_any_time);
    tcase_add_test(c, the_line_is_bounded);
    tcase_add_test(c, a_provider_that_goes_refuses_who_waits);
    suite_add_tcase(s, c);
    return s;
}
