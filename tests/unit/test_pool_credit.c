/* Pool: what accounts have left, and who is passed over because a model costs more. The clocks are the test's. */
#include "unit.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "pool/pool_int.h"

#include <stdio.h>

#define UP CM_S("up")
#define S 1000 /* milliseconds */
#define HOUR (3600 * S)
#define DAY (24 * HOUR)

static uint64_t mono;
static int64_t wall;
static struct cm_pool *pool;
static struct cm_pool_provider provider;
static size_t probes;

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

static void on_probe(void *arg, const struct cm_cred_info *cred)
{
    (void)arg;
    (void)cred;
    probes++;
}

static void set_up(void)
{
    static const struct cm_clock clock = {read_mono, read_wall, NULL};
    static const struct cm_pool_host host = {.probe = on_probe};
    const struct cm_log_setup quiet = {.fd = 2, .level = CM_LOG_ERROR};

    cm_log_setup(&quiet);
    mono = 300 * S;
    wall = INT64_C(1700000000000);
    probes = 0;
    provider = (struct cm_pool_provider){.name = UP, .can_probe = true};
    pool = cm_pool_new(&clock, &host, 7);
    cm_pool_providers(pool, &provider, 1);
}

static void clean_up(void)
{
    cm_pool_free(pool);
}

static void pass(int64_t ms)
{
    mono += (uint64_t)ms;
    wall += ms;
    cm_pool_tick(pool);
}

static struct cm_cred_info info_of(uint64_t id)
{
    static char secret[24];

    snprintf(secret, sizeof(secret), "sk-%llu", (unsigned long long)id);
    return (struct cm_cred_info){.id = id,
                                 .provider = UP,
                                 .secret = cm_str_of(secret),
                                 .enabled = true,
                                 .weight = 1,
                                 .state = CM_CRED_STATE_OK};
}

static struct cm_credit has(int64_t standard, int64_t advanced)
{
    return (struct cm_credit){.known = true, .left = {standard, advanced}};
}

static void tell(uint64_t id, int64_t standard, int64_t advanced)
{
    const struct cm_credit credit = has(standard, advanced);

    cm_pool_told(pool, id, CM_STR_NONE, &credit);
}

static void add(uint64_t id, int64_t standard, int64_t advanced)
{
    struct cm_cred_info info = info_of(id);

    info.credit = has(standard, advanced);
    cm_pool_put(pool, &info);
}

static void add_unknown(uint64_t id)
{
    const struct cm_cred_info info = info_of(id);

    cm_pool_put(pool, &info);
}

static struct cm_cred_info get(uint64_t id)
{
    struct cm_cred_info info = {0};

    ck_assert(cm_pool_get(pool, id, &info));
    return info;
}

static struct cm_pool_ask costs(int64_t cost, unsigned purse)
{
    return (struct cm_pool_ask){.provider = UP, .model = CM_S("m"), .cost = cost, .purse = purse};
}

static struct cm_lease *lease(int64_t cost, unsigned purse)
{
    const struct cm_pool_ask ask = costs(cost, purse);

    return cm_pool_lease(pool, &ask, NULL);
}

static void back(struct cm_lease *l, enum cm_err_class cls)
{
    const struct cm_err why = {.cls = cls};

    cm_lease_give_back(l, cls ? &why : NULL, 0, 0);
}

/* Whom the next one would be, given back as if nothing had been asked. */
static uint64_t serves(int64_t cost, unsigned purse)
{
    struct cm_lease *l = lease(cost, purse);
    const uint64_t id = l ? cm_lease_id(l) : 0;

    if (l)
        back(l, CM_ERR_BAD_REQUEST);
    return id;
}

START_TEST(who_cannot_pay_is_passed_over)
{
    add(1, 29, 1000);
    add(2, 30, 0);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(serves(30, 0), 2);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(serves(20, 1), 1);
    ck_assert_uint_ne(serves(0, 0), serves(0, 0)); /* what costs nothing: both, in turn */
    ck_assert_uint_ne(serves(29, 0), serves(29, 0));
    ck_assert_uint_eq(serves(31, 0), 0);
    add_unknown(3); /* taken for enough */
    ck_assert_uint_eq(serves(1000000, 1), 3);
}
END_TEST

START_TEST(nobody_can_pay)
{
    struct cm_pool_ask ask = costs(30, 0);
    struct cm_err err = {0};
    struct cm_lease *l;

    add(1, 29, 1000);
    ck_assert_ptr_null(cm_pool_lease(pool, &ask, &err));
    ck_assert_int_eq(err.cls, CM_ERR_QUOTA_EXHAUSTED);
    ck_assert_int_eq(err.retry_after_s, 0);
    ck_assert_ptr_nonnull(strstr(err.msg, "30 credits"));
    ask.only = 1;
    ck_assert_ptr_null(cm_pool_lease(pool, &ask, &err));
    ck_assert_int_eq(err.cls, CM_ERR_QUOTA_EXHAUSTED);
    ask.only = 0;
    /* a limit that ends is the better reason, when it is of one who can pay */
    add(2, 30, 0);
    l = lease(30, 0);
    cm_lease_give_back(l, &(struct cm_err){.cls = CM_ERR_RATE_LIMITED, .retry_after_s = 40}, 0, 0);
    ck_assert_ptr_null(cm_pool_lease(pool, &ask, &err));
    ck_assert_int_eq(err.cls, CM_ERR_NO_CREDENTIAL);
    ck_assert_int_eq(err.retry_after_s, 40);
    tell(2, 29, 0); /* now not any more */
    ck_assert_ptr_null(cm_pool_lease(pool, &ask, &err));
    ck_assert_int_eq(err.cls, CM_ERR_QUOTA_EXHAUSTED);
}
END_TEST

START_TEST(what_is_in_flight_is_set_aside)
{
    struct cm_lease *a, *b;

    add(1, 100, 0);
    a = lease(60, 0);
    ck_assert_ptr_null(lease(60, 0));
    b = lease(40, 0);
    ck_assert_ptr_nonnull(b);
    back(a, CM_ERR_UPSTREAM_DOWN); /* not charged */
    ck_assert_uint_eq(serves(60, 0), 1);
    ck_assert_uint_eq(serves(61, 0), 0);
    tell(1, 10, 0); /* less than what is set aside: what costs nothing is served all the same */
    ck_assert_uint_eq(serves(0, 0), 1);
    tell(1, 100, 0);
    back(b, CM_ERR_NONE); /* charged */
    ck_assert_int_eq(get(1).credit.left[0], 60);
    a = lease(60, 0);
    cm_lease_cancel(a, NULL); /* the client left: the platform has begun */
    ck_assert_int_eq(get(1).credit.left[0], 0);
    ck_assert_uint_eq(serves(1, 0), 0);
    ck_assert_uint_eq(serves(0, 0), 1);
}
END_TEST

START_TEST(a_figure_read_at_the_end_has_its_own_cost_in_it)
{
    const struct cm_credit now = has(70, 5);
    struct cm_lease *a, *other;

    add(1, 100, 0);
    a = lease(30, 0);
    other = lease(30, 0);
    cm_lease_told(a, CM_S("{\"credit\":70}"), &now);
    ck_str(get(1).quota, "{\"credit\":70}");
    ck_assert_uint_eq(serves(41, 0), 0); /* the other's is still set aside */
    ck_assert_uint_eq(serves(40, 0), 1);
    back(a, CM_ERR_NONE);
    ck_assert_int_eq(get(1).credit.left[0], 70);
    back(other, CM_ERR_NONE);
    ck_assert_int_eq(get(1).credit.left[0], 40);
    ck_assert_int_eq(get(1).credit.left[1], 5);
}
END_TEST

START_TEST(refused_for_credit_serves_what_is_cheaper)
{
    const struct cm_credit poor = has(12, 0), gone = has(0, 0);
    struct cm_lease *l;

    add_unknown(1);
    l = lease(30, 0);
    cm_lease_told(l, CM_STR_NONE, &poor);
    back(l, CM_ERR_QUOTA_EXHAUSTED);
    ck_assert_int_eq(get(1).state, CM_CRED_STATE_OK);
    ck_assert_uint_eq(serves(30, 0), 0);
    ck_assert_uint_eq(serves(12, 0), 1);
    l = lease(12, 0); /* refused though it could pay: not a matter of what we know */
    back(l, CM_ERR_QUOTA_EXHAUSTED);
    ck_assert_int_eq(get(1).state, CM_CRED_STATE_EXHAUSTED);
    pass(HOUR);
    ck_assert_int_eq(get(1).state, CM_CRED_STATE_HALF_OPEN);
    l = lease(12, 0);
    cm_lease_told(l, CM_STR_NONE, &gone);
    back(l, CM_ERR_QUOTA_EXHAUSTED);
    ck_assert_int_eq(get(1).state, CM_CRED_STATE_EXHAUSTED);
}
END_TEST

START_TEST(a_figure_does_not_last)
{
    struct cm_credit credit = has(1, 0);

    add(1, 1, 0);
    ck_assert_uint_eq(serves(2, 0), 0);
    pass(DAY - 1);
    ck_assert_uint_eq(probes, 0);
    ck_assert_uint_eq(serves(2, 0), 0);
    pass(1);
    ck_assert_uint_eq(probes, 1);
    ck_assert(!get(1).credit.known);
    ck_assert_uint_eq(serves(2, 0), 1);
    credit.renews_ms = wall + HOUR;
    cm_pool_told(pool, 1, CM_STR_NONE, &credit);
    cm_pool_probed(pool, 1, CM_STR_NONE, NULL);
    ck_assert_uint_eq(cm_pool_next_ms(pool), mono + HOUR);
    pass(HOUR);
    ck_assert_uint_eq(probes, 2);
    ck_assert_uint_eq(serves(2, 0), 1);
    credit.renews_ms = wall + 40 * (int64_t)DAY; /* the account is used elsewhere, too */
    cm_pool_told(pool, 1, CM_STR_NONE, &credit);
    ck_assert_uint_eq(cm_pool_next_ms(pool), mono + DAY);
    credit.renews_ms = wall - HOUR; /* their clock, or an old subscription */
    cm_pool_told(pool, 1, CM_STR_NONE, &credit);
    ck_assert_uint_eq(cm_pool_next_ms(pool), mono + DAY);
}
END_TEST

START_TEST(another_secret_is_another_account)
{
    struct cm_cred_info info = info_of(1);
    struct cm_lease *l;

    add(1, 100, 0);
    l = lease(90, 0);
    info.secret = CM_S("another");
    cm_pool_put(pool, &info);
    ck_assert(!get(1).credit.known);
    tell(1, 50, 0);
    ck_assert_uint_eq(serves(50, 0), 1);
    cm_lease_told(l, CM_STR_NONE, &(struct cm_credit){.known = true});
    back(l, CM_ERR_NONE);
    ck_assert_int_eq(get(1).credit.left[0], 50);
    ck_assert_uint_eq(serves(50, 0), 1);
    cm_pool_reset(pool, 1); /* an operator says: try again */
    ck_assert_uint_eq(serves(1000, 0), 1);
}
END_TEST

START_TEST(removed_while_it_is_out)
{
    const struct cm_credit now = has(1, 0);
    struct cm_lease *l;

    add(1, 100, 0);
    l = lease(90, 0);
    cm_pool_remove(pool, 1);
    cm_lease_told(l, CM_S("{}"), &now);
    back(l, CM_ERR_UPSTREAM_DOWN);
    cm_pool_told(pool, 1, CM_S("{}"), &now);
    ck_assert_uint_eq(serves(0, 0), 0);
}
END_TEST

START_TEST(who_serves_is_asked_as_well)
{
    provider.probe_every_ms = DAY;
    cm_pool_providers(pool, &provider, 1);
    add_unknown(1);
    pass(60 * S - 1);
    ck_assert_uint_eq(probes, 0);
    pass(540 * S); /* never asked: soon */
    ck_assert_uint_eq(probes, 1);
    cm_pool_probed(pool, 1, CM_S("{}"), NULL);
    pass(DAY - 1);
    ck_assert_uint_eq(probes, 1);
    pass(1);
    ck_assert_uint_eq(probes, 2);
    pass(DAY); /* not answered: not asked again */
    ck_assert_uint_eq(probes, 2);
    cm_pool_probed(pool, 1, CM_S("{}"), &(struct cm_err){.cls = CM_ERR_EXPIRED});
    ck_assert_int_eq(get(1).state, CM_CRED_STATE_NEEDS_LOGIN);
    pass(6 * HOUR); /* one that waits for an operator is asked more often */
    ck_assert_uint_eq(probes, 3);
    cm_pool_probed(pool, 1, CM_S("{}"), NULL);
    ck_assert_int_eq(get(1).state, CM_CRED_STATE_OK);
    pass(DAY - 1);
    ck_assert_uint_eq(probes, 3);
    pass(1);
    ck_assert_uint_eq(probes, 4);
}
END_TEST

/* ---- waiting ---- */

struct waiter {
    struct cm_lease *lease;
    struct cm_err err;
    int called;
};

static void on_lease(void *arg, struct cm_lease *l, const struct cm_err *err)
{
    struct waiter *w = arg;

    w->called++;
    w->lease = l;
    if (err)
        w->err = *err;
}

/* Two wait: one for an expensive answer, one for a cheap one. What wakes which. */
START_TEST(waiting_for_one_who_can_pay)
{
    struct cm_pool_ask dear = costs(80, 0), cheap = costs(5, 0);
    struct waiter a = {0}, b = {0};
    struct cm_lease *first, *second;

    provider.max_inflight = 1;
    cm_pool_providers(pool, &provider, 1);
    add(1, 100, 0);
    add(2, 10, 0);
    first = lease(50, 0);
    second = lease(5, 0);
    ck_assert_uint_eq(cm_lease_id(first), 1);
    ck_assert_ptr_null(cm_pool_wait(pool, &dear, 1000, on_lease, &a, &a.err)); /* never */
    ck_assert_int_eq(a.err.cls, CM_ERR_QUOTA_EXHAUSTED);
    tell(1, 130, 0); /* 50 are set aside: it will do, once it is free */
    ck_assert_ptr_nonnull(cm_pool_wait(pool, &dear, 100 * S, on_lease, &a, &a.err));
    ck_assert_ptr_nonnull(cm_pool_wait(pool, &cheap, 100 * S, on_lease, &b, &b.err));
    back(second, CM_ERR_NONE);
    ck_assert_int_eq(a.called, 0);
    ck_assert_int_eq(b.called, 1); /* who cannot use it holds up nobody */
    ck_assert_uint_eq(cm_lease_id(b.lease), 2);
    back(first, CM_ERR_NONE);
    ck_assert_int_eq(a.called, 1);
    ck_assert_uint_eq(cm_lease_id(a.lease), 1);
    back(a.lease, CM_ERR_NONE);
    back(b.lease, CM_ERR_NONE);
}
END_TEST

/* Fit all the time, too poor at first: each way of becoming rich enough. */
START_TEST(credit_that_comes_wakes)
{
    struct cm_pool_ask dear = costs(80, 0);
    struct cm_lease *hold, *busy;
    struct waiter w = {0};

    provider.max_inflight = 2;
    cm_pool_providers(pool, &provider, 1);
    add(1, 100, 0);
    add(2, 100, 0);
    busy = lease(0, 0); /* keeps hope alive: it could pay, but for its cap */
    ck_assert_uint_eq(cm_lease_id(busy), 1);
    hold = lease(50, 0);
    ck_assert_uint_eq(cm_lease_id(hold), 2);
    provider.max_inflight = 1;
    cm_pool_providers(pool, &provider, 1);
    ck_assert_ptr_nonnull(cm_pool_wait(pool, &dear, 2 * DAY, on_lease, &w, &w.err));
    provider.max_inflight = 2;
    tell(1, 10, 0);
    tell(2, 100, 0);
    cm_pool_providers(pool, &provider, 1);
    cm_pool_tick(pool);
    ck_assert_int_eq(w.called, 0);
    switch (_i) {
    case 0:
        back(hold, CM_ERR_UPSTREAM_DOWN); /* not charged */
        break;
    case 1:
        tell(1, 80, 0);
        break;
    case 2:
        pass(DAY); /* not known any more */
        break;
    default:
        cm_pool_reset(pool, 1);
        break;
    }
    ck_assert_int_eq(w.called, 1);
    ck_assert_ptr_nonnull(w.lease);
    ck_assert(_i == 2 || cm_lease_id(w.lease) == (_i == 0 ? 2 : 1));
    back(w.lease, CM_ERR_NONE);
    if (_i != 0)
        back(hold, CM_ERR_NONE);
    back(busy, CM_ERR_NONE);
}
END_TEST

/* ---- what it costs ---- */

/* 10,000 accounts, and one that can pay, used last of all. */
START_TEST(one_among_many_is_found_in_few_steps)
{
    uint64_t worst = 0;

    for (uint64_t id = 1; id <= 10000; id++)
        add(id, id == 5000 ? 1000000 : 9, 0);
    for (int i = 0; i < 2000; i++) {
        const uint64_t before = pool_steps(pool);
        struct cm_lease *l = lease(10, 0);

        ck_assert_uint_eq(cm_lease_id(l), 5000);
        back(l, CM_ERR_NONE);
        if (pool_steps(pool) - before > worst)
            worst = pool_steps(pool) - before;
    }
    ck_assert_uint_le(worst, 400); /* about 2 log n for each of: find, and twice take out, put in */
    ck_assert_int_eq(get(5000).credit.left[0], 980000);
}
END_TEST

Suite *suite_pool_credit(void)
{
    Suite *s = suite_create("pool_credit");
    TCase *c = tcase_create("credit");

    tcase_add_checked_fixture(c, set_up, clean_up);
    tcase_add_test(c, who_cannot_pay_is_passed_over);
    tcase_add_test(c, nobody_can_pay);
    tcase_add_test(c, what_is_in_flight_is_set_aside);
    tcase_add_test(c, a_figure_read_at_the_end_has_its_own_cost_in_it);
    tcase_add_test(c, refused_for_credit_serves_what_is_cheaper);
    tcase_add_test(c, a_figure_does_not_last);
    tcase_add_test(c, another_secret_is_another_account);
    tcase_add_test(c, removed_while_it_is_out);
    tcase_add_test(c, who_serves_is_asked_as_well);
    tcase_add_test(c, waiting_for_one_who_can_pay);
    tcase_add_loop_test(c, credit_that_comes_wakes, 0, 4);
    tcase_add_test(c, one_among_many_is_found_in_few_steps);
    suite_add_tcase(s, c);
    return s;
}
