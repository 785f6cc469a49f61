/* chat/models: which targets serve a name, and what is said when none does. */
#include "chatmux/chat/models.h"

#include "chatmux/base/mem.h"
#include "unit.h"

#include <stdio.h>

#define ROW(n, f) {.name = CM_S_INIT(n), .features = (f)}

static const struct cm_model_row rows_a[] = {
    ROW("gpt-4o", 0),
    {.name = CM_S_INIT("renamed"), .upstream = CM_S_INIT("theirs-1")},
    ROW("both", CM_MODEL_SEARCH | CM_MODEL_THINKING),
    ROW("both", 0), /* the second of one name does not count */
    ROW("meta/llama", CM_MODEL_SEARCH),
    ROW("odd-search", 0),
};
static const struct cm_model_row rows_b[] = {
    ROW("gpt-4o", CM_MODEL_SEARCH), ROW("odd", CM_MODEL_SEARCH), ROW("b/c/d", 0),
    ROW("wide", CM_MODEL_SEARCH | CM_MODEL_THINKING | CM_MODEL_NEWS | CM_MODEL_ACADEMIC)};

static const struct cm_offer offers[] = {
    {.provider = CM_S_INIT("a"),
     .owner = CM_S_INIT("openai"),
     .priority = 5,
     .weight = 1,
     .rows = rows_a,
     .n_rows = CM_COUNT(rows_a)},
    {.provider = CM_S_INIT("b"),
     .owner = CM_S_INIT("hix"),
     .priority = 1,
     .weight = 2,
     .rows = rows_b,
     .n_rows = CM_COUNT(rows_b)},
};
static const struct cm_offer with_any[] = {
    {.provider = CM_S_INIT("a"), .priority = 5, .rows = rows_a, .n_rows = CM_COUNT(rows_a)},
    {.provider = CM_S_INIT("wild"), .priority = 3, .any = true, .any_features = CM_MODEL_SEARCH},
    {.provider = CM_S_INIT("wilder"), .priority = 2, .any = true},
};

static struct cm_arena arena;
static struct cm_problems problems;

static void setup(void)
{
    cm_problems_init(&problems, &arena);
}

static void teardown(void)
{
    cm_arena_clear(&arena);
}

/* "provider:model+s+t@priority …" */
static const char *found(const struct cm_models *m, const struct cm_offer *from, const char *name)
{
    struct cm_target *t = NULL;
    struct cm_err err = {0};
    const size_t n = cm_models_find(m, &arena, cm_str_of(name), &t, &err);
    struct cm_buf out = {0};
    const char *z;

    if (n == 0) {
        ck_assert_int_eq(err.cls, CM_ERR_NOT_FOUND);
        ck_assert_str_eq(err.param, "model");
        ck_assert_str_eq(cm_err_code(&err), "model_not_found");
        return cm_arena_z(&arena, cm_str_of(err.msg));
    }
    for (size_t i = 0; i < n; i++)
        cm_buf_printf(&out, "%s" CM_PRI ":" CM_PRI "%s%s%s%s@%lld", i > 0 ? " " : "",
                      CM_ARG(from[t[i].provider].provider), CM_ARG(t[i].model),
                      t[i].search ? "+s" : "", t[i].thinking ? "+t" : "", t[i].news ? "+n" : "",
                      t[i].academic ? "+a" : "", (long long)t[i].priority);
    z = cm_arena_z(&arena, cm_buf_str(&out));
    cm_buf_clear(&out);
    return z;
}

START_TEST(names_find_their_targets)
{
    static const struct {
        const char *name, *expected;
    } cases[] = {
        {"gpt-4o", "b:gpt-4o@1 a:gpt-4o@5"},
        {"a/gpt-4o", "a:gpt-4o@5"},
        {"renamed", "a:theirs-1@5"},
        {"a/renamed", "a:theirs-1@5"},
        {"gpt-4o-search", "b:gpt-4o+s@1"},
        {"b/gpt-4o-search", "b:gpt-4o+s@1"},
        {"both", "a:both@5"},
        {"both-search", "a:both+s@5"},
        {"both-thinking", "a:both+t@5"},
        {"both-search-thinking", "a:both+s+t@5"},
        {"both-thinking-search", "a:both+s+t@5"},
        {"a/both-thinking-search", "a:both+s+t@5"},
        {"meta/llama", "a:meta/llama@5"},
        {"a/meta/llama-search", "a:meta/llama+s@5"},
        {"b/c/d", "b:b/c/d@1"}, /* the exact name wins over the provider in front */
        {"b/b/c/d", "b:b/c/d@1"},
        {"wide-news", "b:wide+s+n@1"},
        {"wide-academic-thinking", "b:wide+s+t+a@1"},
        {"odd-search", "a:odd-search@5"}, /* and over the modifier */
        {"b/odd-search", "b:odd+s@1"},
    };
    struct cm_models *m = cm_models_new(offers, 2, NULL, 0, &problems);

    for (size_t i = 0; i < CM_COUNT(cases); i++)
        ck_assert_str_eq(found(m, offers, cases[i].name), cases[i].expected);
    cm_models_free(m);
}
END_TEST

START_TEST(unknown_names_get_a_suggestion)
{
    struct cm_models *m = cm_models_new(offers, 2, NULL, 0, &problems);

    ck_assert_str_eq(found(m, offers, "gpt-4"),
                     "The model 'gpt-4' does not exist, did you mean 'gpt-4o'?");
    ck_assert_str_eq(found(m, offers, "b/od"),
                     "The model 'b/od' does not exist, did you mean 'b/odd'?");
    ck_assert_ptr_nonnull(
        strstr(found(m, offers, "a/gpt-4o-search"), "does not exist")); /* no such feature */
    ck_assert_ptr_nonnull(strstr(found(m, offers, "qqqqqqqq"), "GET /v1/models"));
    ck_assert_ptr_nonnull(strstr(found(m, offers, ""), "does not exist"));
    ck_assert_ptr_nonnull(strstr(found(m, offers, "a/"), "does not exist"));
    ck_assert_ptr_nonnull(strstr(found(m, offers, "both-search-search"), "does not exist"));
    cm_models_free(m);
}
END_TEST

START_TEST(some_providers_take_any_name)
{
    struct cm_models *m = cm_models_new(with_any, 3, NULL, 0, &problems);

    ck_assert_str_eq(found(m, with_any, "new"), "wilder:new@2 wild:new@3");
    ck_assert_str_eq(found(m, with_any, "new-search"), "wilder:new-search@2 wild:new+s@3");
    ck_assert_str_eq(found(m, with_any, "gpt-4o"), "a:gpt-4o@5"); /* is in a list */
    ck_assert_str_eq(found(m, with_any, "wild/gpt-4o"), "wild:gpt-4o@3");
    ck_assert_str_eq(found(m, with_any, "wild/x/y"), "wild:x/y@3");
    ck_assert_str_eq(found(m, with_any, "x/y"), "wilder:x/y@2 wild:x/y@3");
    ck_assert_ptr_nonnull(strstr(found(m, with_any, "a/gpt-4"), "'a/gpt-4o'"));
    ck_assert_ptr_nonnull(strstr(found(m, with_any, "wild/"), "does not exist"));
    cm_models_free(m);
}
END_TEST

START_TEST(routes_name_their_targets)
{
    struct cm_str targets[] = {CM_S_INIT("a/gpt-4o weight=3"), CM_S_INIT("b/gpt-4o-search"),
                               CM_S_INIT("a/not-listed")};
    struct cm_model_conf conf[] = {
        {.name = CM_S("best"), .where = CM_S("f.ini:3"), .targets = {targets, 3}},
        {.name = CM_S("gpt-4o"),
         .where = CM_S("f.ini:9"),
         .targets = {targets, 2},
         .strategy = CM_ROUTE_WEIGHTED},
    };
    struct cm_models *m = cm_models_new(offers, 2, conf, 2, &problems);
    struct cm_target *t;
    struct cm_err err;

    ck_assert_str_eq(found(m, offers, "best"), "a:gpt-4o@0 b:gpt-4o+s@1 a:not-listed@2");
    ck_assert_str_eq(found(m, offers, "gpt-4o"),
                     "a:gpt-4o@0 b:gpt-4o+s@0"); /* hides the listed name */
    ck_assert_uint_eq(cm_models_find(m, &arena, CM_S("best"), &t, &err), 3);
    ck_assert_int_eq(t[0].weight, 3);
    ck_assert_int_eq(t[1].weight, 1);
    ck_assert_ptr_eq(t[0].route, &conf[0]);
    ck_assert_ptr_eq(t[0].row, &rows_a[0]);
    ck_assert_ptr_null(t[2].row);
    ck_assert_uint_eq(cm_models_find(m, &arena, CM_S("odd"), &t, &err), 1);
    ck_assert_ptr_null(t[0].route);
    ck_assert_str_eq(found(m, offers, "bets"),
                     "The model 'bets' does not exist, did you mean 'best'?");
    cm_models_free(m);
}
END_TEST

START_TEST(wrong_routes_are_problems)
{
    static const struct {
        const char *target, *complaint;
    } cases[] = {
        {"bb/gpt-4o", "there is no provider 'bb'"},
        {"gpt-4o", "'gpt-4o': must be provider/model"},
        {"a/", "'a/': must be provider/model"},
        {"a/gpt-4o weight=0", "weight must be a whole number from 1 to 1000"},
        {"a/gpt-4o heavy", "may follow provider/model"},
        {"a/gpt-4o temperature=hot", "temperature has no such value"},
        {"a/gpt-4o max_tokens=-1", "max_tokens has no such value"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_str target = cm_str_of(cases[i].target);
        struct cm_model_conf conf = {
            .name = CM_S("best"), .where = CM_S("f.ini:3"), .targets = {&target, 1}};

        cm_problems_init(&problems, &arena);
        ck_assert_ptr_null(cm_models_new(offers, 2, &conf, 1, &problems));
        ck_assert_uint_eq(problems.n, 1);
        ck_str(problems.first->where, "f.ini:3");
        ck_assert_msg(cm_str_has(problems.first->text, cm_str_of(cases[i].complaint)), CM_PRI,
                      CM_ARG(problems.first->text));
    }
}
END_TEST

START_TEST(the_list_is_sorted_and_has_each_name_once)
{
    struct cm_str target = CM_S("a/gpt-4o");
    struct cm_model_conf conf[] = {{.name = CM_S("best"), .targets = {&target, 1}},
                                   {.name = CM_S("odd"), .targets = {&target, 1}}};
    struct cm_models *m = cm_models_new(offers, 2, conf, 2, &problems);
    struct cm_model_listed *list;
    const size_t n = cm_models_list(m, &arena, &list);
    struct cm_buf out = {0};

    for (size_t i = 0; i < n; i++)
        cm_buf_printf(&out, CM_PRI "(" CM_PRI ")%s ", CM_ARG(list[i].id), CM_ARG(list[i].owner),
                      list[i].row ? "" : "*");
    ck_str(cm_buf_str(&out),
           "b/c/d(hix) best(chatmux)* both(openai) gpt-4o(hix) meta/llama(openai) odd(chatmux)* "
           "odd-search(openai) renamed(openai) wide(hix) ");
    cm_buf_clear(&out);
    cm_models_free(m);
}
END_TEST

START_TEST(nothing_offered)
{
    struct cm_models *m = cm_models_new(NULL, 0, NULL, 0, &problems);
    struct cm_model_listed *list;

    ck_assert_ptr_nonnull(strstr(found(m, offers, "x"), "does not exist"));
    ck_assert_uint_eq(cm_models_list(m, &arena, &list), 0);
    cm_models_free(m);
}
END_TEST

Suite *suite_models(void)
{
    Suite *s = suite_create("models");
    TCase *t = tcase_create("models");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, names_find_their_targets);
    tcase_add_test(t, unknown_names_get_a_suggestion);
    tcase_add_test(t, some_providers_take_any_name);
    tcase_add_test(t, routes_name_their_targets);
    tcase_add_test(t, wrong_routes_are_problems);
    tcase_add_test(t, the_list_is_sorted_and_has_each_name_once);
    tcase_add_test(t, nothing_offered);
    suite_add_tcase(s, t);
    return s;
}
