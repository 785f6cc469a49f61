/* Pool: the breaker of one account with one model. */
#include "pool_fixture.h"

#include "pool/pool_int.h"

#include <stdio.h>

#define RATE 50
#define ATTEMPTS 5

static void watch(void)
{
    set_up();
    set_provider((struct cm_pool_provider){.breaker_rate = RATE, .breaker_attempts = ATTEMPTS});
    add(1);
    add(2);
}

static struct cm_lease *ask(uint64_t id, const char *model)
{
    struct cm_pool_ask a = {.provider = UP, .model = cm_str_of(model), .only = id};

    return cm_pool_lease(pool, &a, NULL);
}

/* One request for this model on this account, with that end. */
static void once(uint64_t id, const char *model, enum cm_err_class cls)
{
    struct cm_lease *l = ask(id, model);

    ck_assert_msg(l != NULL, "%llu does not serve %s", (unsigned long long)id, model);
    back(l, cls, 0);
}

static bool refused(uint64_t id, const char *model)
{
    struct cm_lease *l = ask(id, model);

    if (l)
        cm_lease_cancel(l, &(struct cm_err){.cls = CM_ERR_SHUTTING_DOWN});
    return l == NULL;
}

#define expect_model(id, model, word, left_ms)                                                     \
    model_at(__LINE__, id, model, CM_MODEL_##word, left_ms)
static struct cm_cred_model model_at(int line, uint64_t id, const char *model,
                                     enum cm_model_state state, int64_t left_ms)
{
    struct cm_cred_model m = {0};
    int64_t left;

    ck_assert_msg(cm_pool_model(pool, id, cm_str_of(model), &m), "line %d: nothing is known", line);
    left = m.until_ms ? m.until_ms - wall : 0;
    ck_assert_msg(m.state == state && left == left_ms, "line %d: %s for %lld ms", line,
                  cm_model_state_name(m.state), (long long)left);
    return m;
}

static bool known(uint64_t id, const char *model)
{
    struct cm_cred_model m;

    return cm_pool_model(pool, id, cm_str_of(model), &m);
}

static size_t counted(enum cm_model_state state)
{
    size_t n[CM_MODEL_STATES_N];

    cm_pool_count_models(pool, UP, n);
    return n[state];
}

/* One account that serves "good" and has failed with "bad" until the breaker opened. */
static void break_it(uint64_t id)
{
    once(id, "good", CM_ERR_NONE);
    for (int i = 0; i < ATTEMPTS; i++)
        once(id, "bad", CM_ERR_CUT);
}

START_TEST(opens_for_one_model_on_one_account)
{
    struct cm_cred_model m;

    once(1, "good", CM_ERR_NONE);
    for (int i = 0; i < ATTEMPTS - 1; i++)
        once(1, "bad", CM_ERR_TIMEOUT);
    m = expect_model(1, "bad", WATCHED, 0);
    ck_assert_uint_eq(m.attempts, ATTEMPTS - 1);
    ck_assert_uint_eq(m.failed, ATTEMPTS - 1);
    ck_assert_uint_eq(counted(CM_MODEL_WATCHED), 1);
    once(1, "bad", CM_ERR_UPSTREAM_DOWN);
    expect_model(1, "bad", BROKEN, 30 * S);
    ck_assert_uint_eq(counted(CM_MODEL_BROKEN), 1);
    ck_assert(refused(1, "bad"));
    expect(1, OK, 0);
    once(1, "good", CM_ERR_NONE);
    once(2, "bad", CM_ERR_NONE);
    ck_assert(!known(2, "bad"));
}
END_TEST

START_TEST(below_the_rate_it_stays_closed)
{
    once(1, "good", CM_ERR_NONE);
    for (int i = 0; i < 40; i++) /* one of three fails */
        once(1, "bad", i % 3 == 2 ? CM_ERR_CUT : CM_ERR_NONE);
    expect_model(1, "bad", WATCHED, 0);
    expect(1, OK, 0);
}
END_TEST

START_TEST(the_window_moves)
{
    for (int i = 0; i < 40; i++) { /* never five in a minute */
        once(1, "good", CM_ERR_NONE);
        once(1, "bad", CM_ERR_CUT);
        pass(16 * S);
    }
    expect_model(1, "bad", WATCHED, 0);
    pass(61 * S);
    ck_assert(!known(1, "bad")); /* shown no more */
    once(1, "good", CM_ERR_NONE);
    for (int i = 0; i < ATTEMPTS; i++)
        once(1, "bad", CM_ERR_CUT);
    expect_model(1, "bad", BROKEN, 30 * S);
}
END_TEST

START_TEST(half_open_one_real_request_closes_it)
{
    struct cm_lease *trial;

    break_it(1);
    pass(30 * S - 1);
    ck_assert(refused(1, "bad"));
    pass(1);
    expect_model(1, "bad", HALF_OPEN, 0);
    ck_assert_uint_eq(counted(CM_MODEL_HALF_OPEN), 1);
    trial = ask(1, "bad");
    ck_assert_ptr_nonnull(trial);
    ck_assert(cm_lease_choice(trial)->half_open);
    for (int i = 0; i < 100; i++) { /* however long it takes, it is the only one */
        ck_assert(refused(1, "bad"));
        pass(700);
    }
    once(1, "good", CM_ERR_NONE);
    back(trial, CM_ERR_NONE, 0);
    ck_assert(!known(1, "bad"));
    once(1, "bad", CM_ERR_NONE);
    once(1, "bad", CM_ERR_CUT); /* and it takes as many again */
    expect_model(1, "bad", WATCHED, 0);
}
END_TEST

START_TEST(failing_again_doubles_up_to_ten_minutes)
{
    int64_t cost = 30 * S;

    break_it(1);
    for (int i = 0; i < 8; i++) {
        pass(cost);
        once(1, "good", CM_ERR_NONE);
        once(1, "bad", CM_ERR_OVERLOADED);
        cost = 2 * cost < 10 * MIN ? 2 * cost : 10 * MIN;
        expect_model(1, "bad", BROKEN, cost);
    }
    pass(cost);
    once(1, "bad", CM_ERR_NONE);
    break_it(1);
    expect_model(1, "bad", BROKEN, 30 * S); /* closed, it begins anew */
}
END_TEST

static const enum cm_err_class decide_nothing[] = {CM_ERR_RATE_LIMITED, CM_ERR_BAD_REQUEST,
                                                   CM_ERR_CONTEXT_LENGTH, CM_ERR_CONTENT_FILTER,
                                                   CM_ERR_QUOTA_EXHAUSTED};

START_TEST(what_says_nothing_of_the_model_decides_nothing)
{
    break_it(1);
    pass(30 * S);
    once(1, "bad", decide_nothing[_i]);
    expect_model(1, "bad", HALF_OPEN, 0);
    cm_pool_reset(pool, 2);
    pass(2 * HOUR); /* a limit of the account has ended, too */
    once(1, "good", CM_ERR_NONE);
    ck_assert(!refused(1, "bad")); /* cancelled: still half open */
    expect_model(1, "bad", HALF_OPEN, 0);
    once(1, "bad", CM_ERR_CUT);
    expect_model(1, "bad", BROKEN, MIN);
}
END_TEST

START_TEST(a_repetition_that_fails_decides_too)
{
    struct cm_lease *early = ask(1, "bad"), *trial;

    break_it(1);
    pass(30 * S);
    trial = ask(1, "bad");
    cm_lease_cancel(early, &(struct cm_err){.cls = CM_ERR_CUT});
    expect_model(1, "bad", HALF_OPEN, 0);
    cm_lease_cancel(trial, &(struct cm_err){.cls = CM_ERR_CUT});
    expect_model(1, "bad", BROKEN, MIN);
    pass(MIN);
    cm_lease_cancel(ask(1, "bad"), NULL); /* its client left */
    expect_model(1, "bad", HALF_OPEN, 0);
}
END_TEST

START_TEST(what_began_before_it_opened_decides_nothing)
{
    struct cm_lease *early = ask(1, "bad"), *another = ask(1, "bad");

    break_it(1);
    back(early, CM_ERR_NONE, 0);
    expect_model(1, "bad", BROKEN, 30 * S);
    pass(30 * S);
    back(another, CM_ERR_CUT, 0);
    expect_model(1, "bad", HALF_OPEN, 0);
}
END_TEST

START_TEST(beside_a_model_that_is_not_there)
{
    break_it(1);
    pass(30 * S);
    once(1, "bad", CM_ERR_MODEL_UNAVAILABLE); /* the one that was to decide */
    expect_model(1, "bad", ABSENT, 10 * MIN);
    ck_assert(refused(1, "bad"));
    pass(10 * MIN);
    expect_model(1, "bad", HALF_OPEN, 0);
    once(1, "bad", CM_ERR_NONE);
    ck_assert(!known(1, "bad"));
    once(1, "bad", CM_ERR_MODEL_UNAVAILABLE);
    ck_assert_uint_eq(counted(CM_MODEL_ABSENT), 1);
}
END_TEST

START_TEST(an_account_that_serves_others_is_not_blamed)
{
    for (int i = 0; i < 20; i++) {
        once(1, "good", CM_ERR_NONE);
        if (!refused(1, "bad"))
            once(1, "bad", CM_ERR_CUT);
        pass(1 * S);
    }
    expect(1, OK, 0);
    expect_model(1, "bad", BROKEN, 14 * S);
}
END_TEST

START_TEST(an_answer_of_another_model_clears_it_for_a_minute)
{
    for (uint64_t id = 1; id <= 2; id++) {
        once(id, "good", CM_ERR_NONE);
        pass(MIN + (int64_t)id - 1);
        for (int i = 0; i < 3; i++)
            once(id, "bad", CM_ERR_CUT);
    }
    expect(1, OK, 0);
    expect(2, COOLING, MIN);
}
END_TEST

START_TEST(an_account_that_is_down_is_found_out)
{
    once(1, "a", CM_ERR_NONE);
    once(1, "b", CM_ERR_NONE);
    once(1, "a", CM_ERR_CUT); /* b was answered: not the account's fault, perhaps */
    once(1, "b", CM_ERR_CUT); /* nobody was answered since */
    once(1, "a", CM_ERR_CUT);
    expect(1, OK, 0);
    once(1, "b", CM_ERR_CUT);
    expect(1, COOLING, MIN);
}
END_TEST

/* Only one model was asked for, so the account was cooled; when it comes back, another model may clear it. */
START_TEST(back_from_a_limit_of_one_model_another_decides)
{
    for (int i = 0; i < 3; i++)
        once(1, "bad", CM_ERR_CUT);
    expect(1, COOLING, MIN);
    pass(MIN);
    once(1, "bad", CM_ERR_CUT);
    expect(1, HALF_OPEN, 0);
    expect_model(1, "bad", BROKEN, 2 * MIN);
    ck_assert(refused(1, "bad"));
    once(1, "good", CM_ERR_NONE);
    expect(1, OK, 0);
    ck_assert(refused(1, "bad"));
    pass(2 * MIN);
    once(1, "bad", CM_ERR_NONE);
    ck_assert(!known(1, "bad"));
}
END_TEST

START_TEST(back_from_a_limit_and_all_models_fail)
{
    for (int i = 0; i < 3; i++)
        once(1, "bad", CM_ERR_CUT);
    pass(MIN);
    once(1, "bad", CM_ERR_CUT);
    once(1, "good", CM_ERR_CUT);
    expect(1, COOLING, 2 * MIN);
}
END_TEST

START_TEST(forgotten_by_a_reset_and_with_another_secret)
{
    struct cm_cred_info other = info_of(1, "another");
    struct cm_lease *old;

    break_it(1);
    cm_pool_reset(pool, 1);
    ck_assert(!known(1, "bad"));
    break_it(1);
    pass(30 * S);
    old = ask(1, "bad"); /* was to decide */
    cm_pool_put(pool, &other);
    ck_assert(!known(1, "bad"));
    break_it(1);
    back(old, CM_ERR_NONE, 0); /* is of the account before */
    expect_model(1, "bad", BROKEN, 30 * S);
    cm_pool_remove(pool, 1);
    ck_assert_uint_eq(counted(CM_MODEL_BROKEN), 0);
}
END_TEST

START_TEST(a_trial_outlives_its_account)
{
    struct cm_lease *trial;

    break_it(1);
    pass(30 * S);
    trial = ask(1, "bad");
    cm_pool_remove(pool, 1);
    back(trial, CM_ERR_NONE, 0);
    ck_assert_uint_eq(counted(CM_MODEL_HALF_OPEN), 0);
}
END_TEST

struct waiting {
    struct cm_lease *lease;
    int called;
};

static void on_turn(void *arg, struct cm_lease *lease, const struct cm_err *err)
{
    struct waiting *w = arg;

    (void)err;
    w->lease = lease;
    w->called++;
}

START_TEST(who_waits_gets_it_when_the_trial_has_ended)
{
    struct cm_pool_ask bad = {.provider = UP, .model = CM_S("bad")};
    struct waiting w = {0};
    struct cm_lease *trial;

    cm_pool_remove(pool, 2);
    break_it(1);
    pass(30 * S);
    trial = ask(1, "bad");
    ck_assert_ptr_nonnull(cm_pool_wait(pool, &bad, 10 * S, on_turn, &w, NULL));
    pass(3 * S);
    ck_assert_int_eq(w.called, 0);
    back(trial, CM_ERR_NONE, 0);
    ck_assert_int_eq(w.called, 1);
    ck_assert_ptr_nonnull(w.lease);
    back(w.lease, CM_ERR_NONE, 0);
}
END_TEST

START_TEST(when_it_may_serve_again_is_told)
{
    struct cm_pool_ask bad = {.provider = UP, .model = CM_S("bad")};
    struct cm_err err = {0};

    break_it(1);
    break_it(2);
    pass(10 * S);
    ck_assert_ptr_null(cm_pool_lease(pool, &bad, &err));
    ck_assert_int_eq(err.retry_after_s, 20);
    ck_assert(strstr(err.msg, "2 without this model") != NULL);
    ck_assert_uint_eq(cm_pool_next_ms(pool), mono + 20 * S);
}
END_TEST

START_TEST(rate_0_is_never)
{
    set_provider((struct cm_pool_provider){.breaker_rate = 0, .breaker_attempts = 1});
    once(1, "good", CM_ERR_NONE);
    for (int i = 0; i < 3; i++)
        once(1, "bad", CM_ERR_CUT);
    ck_assert(!known(1, "bad"));
    expect(1, COOLING, MIN);
}
END_TEST

/* Clients make names up. */
START_TEST(bounded_for_an_account_and_for_all)
{
    char name[32];
    size_t open, watched;

    set_provider((struct cm_pool_provider){.breaker_rate = RATE, .breaker_attempts = 1});
    for (int i = 0; i < 500; i++) {
        once(1, "good", CM_ERR_NONE);
        snprintf(name, sizeof(name), "model-%d", i);
        once(1, name, CM_ERR_CUT);
    }
    ck_assert_uint_eq(pool->n_pairs, 32);
    ck_assert(refused(1, "model-499"));
    ck_assert(!refused(1, "model-0")); /* forgotten, with its bit */
    set_provider((struct cm_pool_provider){.breaker_rate = RATE, .breaker_attempts = ATTEMPTS});
    for (uint64_t id = 3; id < 600; id++) {
        add(id);
        once(id, "good", CM_ERR_NONE);
        for (int i = 0; i < 20; i++) {
            snprintf(name, sizeof(name), "model-%d", i);
            once(id, name, CM_ERR_CUT);
            once(id, "good", CM_ERR_NONE);
        }
    }
    ck_assert_uint_eq(pool->n_pairs, 8192);
    open = counted(CM_MODEL_BROKEN);
    watched = counted(CM_MODEL_WATCHED);
    ck_assert_uint_eq(open + watched, 8192);
}
END_TEST

/* All bits are taken: then what is open is not remembered, and nothing breaks. */
START_TEST(no_bit_is_left)
{
    char name[32];

    for (int i = 0; i < 64; i++) {
        snprintf(name, sizeof(name), "model-%d", i);
        once(2, name, CM_ERR_MODEL_UNAVAILABLE);
    }
    break_it(1);
    expect_model(1, "bad", WATCHED, 0);
    ck_assert(!refused(1, "bad"));
    cm_pool_reset(pool, 2);
    once(1, "bad", CM_ERR_CUT);
    expect_model(1, "bad", BROKEN, 30 * S);
}
END_TEST

/* ---- limits of the platform for one model ---- */

static void end_limited(struct cm_lease *l, enum cm_err_class cls, int retry_after_s)
{
    struct cm_err why = why_of(cls, retry_after_s);

    ck_assert_ptr_nonnull(l);
    why.of_model = true;
    cm_lease_give_back(l, &why, 0, 0);
}

static void limit(uint64_t id, const char *model, int retry_after_s)
{
    end_limited(ask(id, model), CM_ERR_RATE_LIMITED, retry_after_s);
}

START_TEST(a_limit_of_a_model_is_for_it_alone)
{
    struct cm_pool_ask any = {.provider = UP, .model = CM_S("m2")};
    struct cm_err err = {0};

    limit(1, "m2", 30);
    expect(1, OK, 0);
    expect_model(1, "m2", LIMITED, 30 * S);
    ck_assert(refused(1, "m2"));
    once(1, "m1", CM_ERR_NONE);
    once(2, "m2", CM_ERR_NONE);
    limit(2, "m2", 50);
    ck_assert_uint_eq(counted(CM_MODEL_LIMITED), 2);
    ck_assert_str_eq(cm_model_state_name(CM_MODEL_LIMITED), "rate_limited");
    ck_assert_ptr_null(cm_pool_lease(pool, &any, &err));
    ck_assert_int_eq(cm_err_status(&err), 429);
    ck_assert_int_eq(err.retry_after_s, 30);
    pass(30 * S);
    once(1, "m2", CM_ERR_NONE);
    ck_assert(!known(1, "m2"));
    expect_model(2, "m2", LIMITED, 20 * S);
}
END_TEST

START_TEST(after_a_limit_of_a_model_one_request_decides)
{
    struct cm_lease *trial;

    limit(1, "m2", 30);
    pass(30 * S);
    trial = ask(1, "m2");
    ck_assert_ptr_nonnull(trial);
    ck_assert(refused(1, "m2"));
    end_limited(trial, CM_ERR_RATE_LIMITED, 5);
    expect_model(1, "m2", LIMITED, 60 * S);
    pass(MIN);
    limit(1, "m2", 2 * HOUR / S); /* what is told may be longer than doubling goes */
    expect_model(1, "m2", LIMITED, 2 * HOUR);
    pass(2 * HOUR);
    limit(1, "m2", 5);
    expect_model(1, "m2", LIMITED, HOUR);
    cm_pool_reset(pool, 1);
    limit(1, "m2", 5);
    expect_model(1, "m2", LIMITED, 5 * S);
    expect(1, OK, 0);
}
END_TEST

START_TEST(a_limit_of_a_model_only_moves_later)
{
    struct cm_lease *l[3];

    for (int i = 0; i < 3; i++)
        l[i] = ask(1, "m2");
    end_limited(l[0], CM_ERR_RATE_LIMITED, 30);
    end_limited(l[1], CM_ERR_RATE_LIMITED, 10);
    expect_model(1, "m2", LIMITED, 30 * S);
    pass(10 * S);
    end_limited(l[2], CM_ERR_QUOTA_EXHAUSTED, 0);
    expect_model(1, "m2", LIMITED, HOUR);
    expect(1, OK, 0);
}
END_TEST

START_TEST(a_limit_of_a_model_that_tells_no_time)
{
    limit(1, "m2", 0);
    expect_model(1, "m2", LIMITED, provider.cooldown_ms);
    set_provider((struct cm_pool_provider){.breaker_rate = 0});
    provider.cooldown_ms = 0; /* none set: the pool's own */
    cm_pool_providers(pool, &provider, 1);
    limit(2, "m2", 0);
    expect_model(2, "m2", LIMITED, MIN);
    pass(MIN);
    once(2, "m2", CM_ERR_CUT); /* without a breaker that decides nothing */
    expect_model(2, "m2", HALF_OPEN, 0);
    once(2, "m2", CM_ERR_NONE);
    ck_assert(!known(2, "m2"));
}
END_TEST

START_TEST(a_limit_that_cannot_be_remembered_is_the_accounts)
{
    char name[32];

    once(1, "failing", CM_ERR_CUT); /* forgotten for the sake of a limit */
    for (int i = 0; i < 32; i++) {
        snprintf(name, sizeof(name), "model-%d", i);
        limit(1, name, 60);
    }
    expect(1, OK, 0);
    ck_assert_uint_eq(pool->n_pairs, 32);
    once(1, "good", CM_ERR_NONE);
    once(1, "failing", CM_ERR_CUT);
    ck_assert(!known(1, "failing"));
    expect_model(1, "model-0", LIMITED, MIN);
    limit(1, "one-more", 20);
    expect(1, COOLING, 20 * S);
    ck_assert(!known(1, "one-more"));
    end_limited(ask(2, ""), CM_ERR_RATE_LIMITED, 20);
    expect(2, COOLING, 20 * S);
}
END_TEST

START_TEST(each_is_shown)
{
    break_it(1);
    once(1, "worse", CM_ERR_MODEL_UNAVAILABLE);
    ck_assert_uint_eq(counted(CM_MODEL_ABSENT), 1);
    ck_assert_uint_eq(counted(CM_MODEL_BROKEN), 1);
    ck_assert_str_eq(cm_model_state_name(CM_MODEL_WATCHED), "closed");
    ck_assert_str_eq(cm_model_state_name(CM_MODEL_HALF_OPEN), "half_open");
}
END_TEST

Suite *suite_pool_breaker(void)
{
    Suite *s = suite_create("pool_breaker");
    TCase *c = tcase_create("transitions");

    tcase_add_checked_fixture(c, watch, clean_up);
    tcase_add_test(c, opens_for_one_model_on_one_account);
    tcase_add_test(c, below_the_rate_it_stays_closed);
    tcase_add_test(c, the_window_moves);
    tcase_add_test(c, half_open_one_real_request_closes_it);
    tcase_add_test(c, failing_again_doubles_up_to_ten_minutes);
    tcase_add_loop_test(c, what_says_nothing_of_the_model_decides_nothing, 0,
                        CM_COUNT(decide_nothing));
    tcase_add_test(c, a_repetition_that_fails_decides_too);
    tcase_add_test(c, what_began_before_it_opened_decides_nothing);
    tcase_add_test(c, rate_0_is_never);
    suite_add_tcase(s, c);

    c = tcase_create("the account");
    tcase_add_checked_fixture(c, watch, clean_up);
    tcase_add_test(c, beside_a_model_that_is_not_there);
    tcase_add_test(c, an_account_that_serves_others_is_not_blamed);
    tcase_add_test(c, an_answer_of_another_model_clears_it_for_a_minute);
    tcase_add_test(c, an_account_that_is_down_is_found_out);
    tcase_add_test(c, back_from_a_limit_of_one_model_another_decides);
    tcase_add_test(c, back_from_a_limit_and_all_models_fail);
    tcase_add_test(c, forgotten_by_a_reset_and_with_another_secret);
    tcase_add_test(c, a_trial_outlives_its_account);
    suite_add_tcase(s, c);

    c = tcase_create("the pool");
    tcase_add_checked_fixture(c, watch, clean_up);
    tcase_add_test(c, who_waits_gets_it_when_the_trial_has_ended);
    tcase_add_test(c, when_it_may_serve_again_is_told);
    tcase_add_test(c, bounded_for_an_account_and_for_all);
    tcase_add_test(c, no_bit_is_left);
    tcase_add_test(c, each_is_shown);
    suite_add_tcase(s, c);

    c = tcase_create("limits");
    tcase_add_checked_fixture(c, watch, clean_up);
    tcase_add_test(c, a_limit_of_a_model_is_for_it_alone);
    tcase_add_test(c, after_a_limit_of_a_model_one_request_decides);
    tcase_add_test(c, a_limit_of_a_model_only_moves_later);
    tcase_add_test(c, a_limit_of_a_model_that_tells_no_time);
    tcase_add_test(c, a_limit_that_cannot_be_remembered_is_the_accounts);
    suite_add_tcase(s, c);
    return s;
}
