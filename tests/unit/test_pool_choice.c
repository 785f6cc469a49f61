/* Pool: a lease tells why it was this one. */
#include "pool_fixture.h"

#define expect_choice(l, id, word) choice_at(__LINE__, l, id, CM_CHOICE_##word)
static const struct cm_choice *choice_at(int line, struct cm_lease *l, uint64_t id,
                                         enum cm_choice_by by)
{
    const struct cm_choice *got = l ? cm_lease_choice(l) : NULL;

    ck_assert_msg(got != NULL, "line %d: nobody", line);
    ck_assert_msg(cm_lease_id(l) == id && got->by == by, "line %d: %llu by %s, not %llu by %s",
                  line, (unsigned long long)cm_lease_id(l), cm_choice_name(got->by),
                  (unsigned long long)id, cm_choice_name(by));
    return got;
}

static void expect_own(const struct cm_choice *choice)
{
    ck_assert(!choice->half_open);
    ck_assert_uint_eq(choice->bound, 0);
}

START_TEST(by_rank)
{
    struct cm_lease *a, *b, *c;

    add(1);
    expect_own(expect_choice(a = lease(), 1, ALONE));
    add(2);
    expect_own(expect_choice(b = lease(), 2, INFLIGHT)); /* 1 has one */
    expect_own(expect_choice(c = lease(), 1, RECENTLY)); /* both have one, 1 has waited longer */
    back(a, CM_ERR_NONE, 0);
    back(b, CM_ERR_NONE, 0);
    back(c, CM_ERR_NONE, 0);
    use(2, CM_ERR_RATE_LIMITED, 60);
    expect_choice(a = lease(), 1, ALONE);
    back(a, CM_ERR_NONE, 0);
}
END_TEST

START_TEST(what_was_tried_or_lacks_the_model_is_no_second)
{
    struct cm_tried tried = {.ids = {2}, .n = 1};
    struct cm_lease *l;

    add(1);
    add(2);
    expect_choice(l = lease_as((struct cm_pool_ask){.tried = &tried}), 1, ALONE);
    back(l, CM_ERR_NONE, 0);
    use(1, CM_ERR_MODEL_UNAVAILABLE, 0);
    expect_choice(l = lease(), 2, ALONE);
    back(l, CM_ERR_NONE, 0);
}
END_TEST

START_TEST(by_weight)
{
    struct cm_cred_info heavy = info_of(2, "sk-2");
    struct cm_lease *l;

    add(1);
    heavy.weight = 3;
    cm_pool_put(pool, &heavy);
    for (int i = 0; i < 8; i++) {
        l = lease();
        ck_assert_int_eq(cm_lease_choice(l)->by, CM_CHOICE_WEIGHT);
        back(l, CM_ERR_NONE, 0);
    }
    use(1, CM_ERR_RATE_LIMITED, 60);
    expect_choice(l = lease(), 2, ALONE);
    back(l, CM_ERR_NONE, 0);
}
END_TEST

START_TEST(by_conversation)
{
    const struct cm_pool_ask first = {.affinity = 77, .begins = true}, next = {.affinity = 77};
    const struct cm_choice *choice;
    struct cm_lease *l, *busy;

    add(1);
    add(2);
    add(3);
    expect_own(expect_choice(l = lease_as(first), 1, RECENTLY));
    back(l, CM_ERR_NONE, 0);
    expect_own(expect_choice(l = lease_as(next), 1, CONVERSATION));
    back(l, CM_ERR_RATE_LIMITED, 60);
    choice = expect_choice(l = lease_as(next), 2, RECENTLY); /* borrowed for the first time */
    ck_assert_uint_eq(choice->bound, 1);
    ck_assert_int_eq(choice->bound_state, CM_CRED_STATE_COOLING);
    back(l, CM_ERR_NONE, 0);
    choice = expect_choice(l = lease_as(next), 2, BORROWED);
    ck_assert_uint_eq(choice->bound, 1);
    back(l, CM_ERR_NONE, 0);
    pass(60 * S);
    choice = expect_choice(l = lease_as(next), 1, CONVERSATION);
    ck_assert(choice->half_open);
    ck_assert_uint_eq(choice->bound, 0);
    back(l, CM_ERR_NONE, 0);
    set_provider((struct cm_pool_provider){.max_inflight = 1});
    busy = lease_as((struct cm_pool_ask){.only = 1});
    choice = expect_choice(l = lease_as(next), 3, RECENTLY);
    ck_assert_uint_eq(choice->bound, 1);
    ck_assert_int_eq(choice->bound_state, CM_CRED_STATE_OK); /* and busy */
    back(l, CM_ERR_NONE, 0);
    back(busy, CM_ERR_NONE, 0);
    use(1, CM_ERR_INVALID_CREDENTIAL, 0);
    choice = expect_choice(l = lease_as(next), 3, BORROWED);
    ck_assert_int_eq(choice->bound_state, CM_CRED_STATE_DISABLED);
    back(l, CM_ERR_NONE, 0);
    expect_own(expect_choice(l = lease_as(next), 3, CONVERSATION)); /* its home from now on */
    back(l, CM_ERR_NONE, 0);
}
END_TEST

/* The one that has the conversation on its platform comes before the one it is bound to. */
START_TEST(by_holder)
{
    const struct cm_pool_ask first = {.affinity = 77, .begins = true},
                             next = {.affinity = 77, .holder = 3}, later = {.affinity = 77};
    const struct cm_choice *choice;
    struct cm_lease *l;

    add(1);
    add(2);
    add(3);
    expect_choice(l = lease_as(first), 1, RECENTLY);
    back(l, CM_ERR_NONE, 0);
    expect_own(expect_choice(l = lease_as(next), 3, CONVERSATION));
    back(l, CM_ERR_NONE, 0);
    expect_own(expect_choice(l = lease_as(later), 3, CONVERSATION)); /* and is bound to it now */
    back(l, CM_ERR_RATE_LIMITED, 60);
    choice = expect_choice(l = lease_as(next), 2, RECENTLY); /* who cannot is passed over */
    ck_assert_uint_eq(choice->bound, 3);
    back(l, CM_ERR_NONE, 0);
    expect_choice(l = lease_as((struct cm_pool_ask){.holder = 99}), 1, RECENTLY);
    back(l, CM_ERR_NONE, 0);
    expect_choice(l = lease_as((struct cm_pool_ask){.holder = 2}), 2, CONVERSATION);
    back(l, CM_ERR_NONE, 0);
}
END_TEST

static void on_lease(void *arg, struct cm_lease *l, const struct cm_err *err)
{
    ck_assert_ptr_null(err);
    *(struct cm_lease **)arg = l;
}

START_TEST(by_name_and_by_waiting)
{
    struct cm_pool_ask ask = {.provider = UP, .model = MODEL, .affinity = 5};
    struct cm_lease *l, *waited = NULL;

    set_provider((struct cm_pool_provider){.max_inflight = 1});
    add(1);
    expect_choice(l = lease_as((struct cm_pool_ask){.only = 1}), 1, ASKED);
    ck_assert_ptr_nonnull(cm_pool_wait(pool, &ask, 10 * S, on_lease, &waited, NULL));
    back(l, CM_ERR_NONE, 0);
    expect_choice(waited, 1, FREED);
    ck_assert_ptr_nonnull(cm_pool_wait(pool, &ask, 10 * S, on_lease, &l, NULL));
    back(waited, CM_ERR_NONE, 0);
    expect_choice(l, 1, CONVERSATION); /* the one it waited for */
    back(l, CM_ERR_NONE, 0);
}
END_TEST

static void expect_same(const struct cm_cred_info *a, const struct cm_cred_info *b)
{
    ck_assert_int_eq(a->state, b->state);
    ck_assert_int_eq(a->inflight, b->inflight);
    ck_assert_int_eq(a->requests, b->requests);
    ck_assert_int_eq(a->month_requests, b->month_requests);
    ck_assert_int_eq(a->last_used_ms, b->last_used_ms);
}

/* Also of a request for another conversation; returns whom it shows. */
static uint64_t peek_often(void)
{
    const struct cm_pool_ask ask = {.provider = UP, .model = MODEL},
                             bound = {.provider = UP, .model = MODEL, .affinity = 5};
    struct cm_cred_info before[4], after;
    const uint64_t id = cm_pool_peek(pool, &ask, NULL);

    for (uint64_t i = 0; i < 4; i++)
        before[i] = get(i + 1);
    for (int i = 0; i < 3; i++) {
        pass(10);
        ck_assert_uint_eq(cm_pool_peek(pool, &ask, NULL), id);
        ck_assert_uint_eq(cm_pool_peek(pool, &bound, NULL), id);
    }
    for (uint64_t i = 0; i < 4; i++) {
        after = get(i + 1);
        expect_same(&before[i], &after);
    }
    return id;
}

START_TEST(a_look_leaves_no_trace)
{
    struct cm_err err;
    struct cm_lease *l;
    const struct cm_pool_ask nobody = {.provider = UP, .model = MODEL, .only = 9};

    set_provider((struct cm_pool_provider){.min_interval_ms = 5, .monthly_limit = 100});
    for (uint64_t id = 1; id <= 4; id++) {
        struct cm_cred_info c = info_of(id, "sk-1");

        c.weight = id <= 2 ? 1 : 3;
        cm_pool_put(pool, &c);
    }
    for (int i = 0; i < 24; i++) { /* weights, ranks */
        const uint64_t shown = peek_often();

        ck_assert_uint_eq(cm_lease_id(l = lease()), shown);
        back(l, CM_ERR_NONE, 0);
    }
    for (uint64_t id = 1; id <= 4; id++)
        ck_assert_int_eq(get(id).requests, id <= 2 ? 3 : 9);
    pass(10);
    for (uint64_t id = 1; id <= 4; id++)
        use(id, CM_ERR_RATE_LIMITED, 60);
    ck_assert_uint_eq(cm_pool_peek(pool, &nobody, &err), 0);
    ck_assert_int_eq(err.cls, CM_ERR_NO_CREDENTIAL);
    pass(60 * S);
    ck_assert_uint_ne(peek_often(), 0); /* the one request of half open is still to come */
    ck_assert(expect_choice(l = lease_as((struct cm_pool_ask){.only = 1}), 1, ASKED)->half_open);
    back(l, CM_ERR_NONE, 0);
}
END_TEST

START_TEST(every_word_once)
{
    static const char *const words[] = {
#define X(name, text) text,
        CM_CHOICES(X)
#undef X
    };

    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
        ck_assert_str_eq(cm_choice_name((enum cm_choice_by)i), words[i]);
}
END_TEST

Suite *suite_pool_choice(void)
{
    Suite *s = suite_create("pool_choice");
    TCase *c = tcase_create("choice");

    tcase_add_checked_fixture(c, set_up, clean_up);
    tcase_add_test(c, by_rank);
    tcase_add_test(c, what_was_tried_or_lacks_the_model_is_no_second);
    tcase_add_test(c, by_weight);
    tcase_add_test(c, by_conversation);
    tcase_add_test(c, by_holder);
    tcase_add_test(c, by_name_and_by_waiting);
    tcase_add_test(c, a_look_leaves_no_trace);
    tcase_add_test(c, every_word_once);
    suite_add_tcase(s, c);
    return s;
}
