/* Prices: which one is found, and what an exchange costs by it. */
#include "chatmux/usage/price.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include "usage/price_table.h"

static struct cm_prices *prices;

static void clean_up(void)
{
    cm_prices_free(prices);
    prices = NULL;
}

static void own(const struct cm_price_row *rows, size_t n)
{
    cm_prices_free(prices);
    prices = cm_prices_new(rows, n);
}

/* Of a name's price the input; -1 = not known. */
static int64_t input_of(const char *model)
{
    const struct cm_price *price = cm_price_find(prices, cm_str_of(model));

    return price ? price->input : -1;
}

/* --- finding -------------------------------------------------------------------------------- */

START_TEST(well_known_models_have_prices)
{
    const struct cm_price *price;

    own(NULL, 0);
    price = cm_price_find(prices, CM_S("claude-sonnet-4-5-20250929"));
    ck_assert_ptr_nonnull(price);
    ck_assert_int_eq(price->input, 3000000);
    ck_assert_int_eq(price->output, 15000000);
    ck_assert_int_eq(price->cache_read, 300000);
    ck_assert_int_eq(price->cache_write, 3750000);
    ck_assert_int_eq(price->reasoning, -1);
    ck_assert_int_eq(price->image, 0);
    price = cm_price_find(prices, CM_S("gpt-4o"));
    ck_assert_int_eq(price->cache_read, 1250000);
    ck_assert_int_eq(price->cache_write, -1);
    ck_assert_int_eq(input_of("gemini-1.5-flash-8b"), 37500);
    ck_assert_int_eq(input_of("glm-4.5-flash"), 0); /* free is not unknown */
    ck_assert_int_eq(input_of("gpt-4o-mini-tts"), -1);
    ck_assert_int_eq(input_of("my-own-model"), -1);
    ck_assert_int_eq(input_of(""), -1);
}
END_TEST

START_TEST(names_have_several_forms)
{
    own(NULL, 0);
    ck_assert_int_eq(input_of("gpt-4o"), 2500000);
    ck_assert_int_eq(input_of("gpt-4o-2024-08-06"), 2500000);
    ck_assert_int_eq(input_of("gpt-4o-2024-05-13"), 5000000); /* that one had its own */
    ck_assert_int_eq(input_of("openai/gpt-4o-2024-05-13"), 5000000);
    ck_assert_int_eq(input_of("openrouter/openai/gpt-4o"), 2500000);
    ck_assert_int_eq(input_of("a/b/openai/GPT-4o-2024-08-06"), 2500000);
    ck_assert_int_eq(input_of("claude-3-5-haiku@20241022"), 800000);
    ck_assert_int_eq(input_of("claude-3-5-haiku-latest"), 800000);
    ck_assert_int_eq(input_of("chatgpt-4o-latest"), 5000000);
    ck_assert_int_eq(input_of("anthropic/claude-3.5-haiku"), 800000);
    ck_assert_int_eq(input_of("MiniMax-M2"), 300000);
    ck_assert_int_eq(input_of("gpt-4o-2024-8-06"), -1);
    ck_assert_int_eq(input_of("gpt-4o-20240806x"), -1);
    ck_assert_int_eq(input_of("gpt-4o-"), -1);
    ck_assert_int_eq(input_of("gpt-4o/"), -1);
    ck_assert_int_eq(input_of("-20240806"), -1);
    ck_assert_int_eq(input_of("/////////////////////gpt-4o"), -1);
}
END_TEST

START_TEST(the_operators_rows_win)
{
    const struct cm_price_row rows[] = {
        {CM_S_INIT("gpt-4o*"), {.input = 1}},
        {CM_S_INIT("gpt-4o-mini*"), {.input = 2}},
        {CM_S_INIT("gpt-4o-mini-x"), {.input = 3}},
        {CM_S_INIT("Other"), {.input = 4}},
        {CM_S_INIT("host/other"), {.input = 5}},
        {CM_S_INIT("o3"), {.input = 6}},
        {CM_S_INIT("o3"), {.input = 7}},
        {CM_S_INIT("host/*"), {.input = 8}},
    };

    own(rows, CM_COUNT(rows));
    ck_assert_int_eq(input_of("gpt-4o"), 1); /* its prefix beats the exact built-in one */
    ck_assert_int_eq(input_of("gpt-4o-2024-05-13"), 1);
    ck_assert_int_eq(input_of("gpt-4o-mini"), 2); /* the longer one */
    ck_assert_int_eq(input_of("gpt-4o-mini-x"), 3);
    ck_assert_int_eq(input_of("gpt-4o-mini-x-2024-01-01"), 3); /* exact without its date */
    ck_assert_int_eq(input_of("gpt-4o-mini-xy"), 2);
    ck_assert_int_eq(input_of("any/gpt-4o-mini"), 2);
    ck_assert_int_eq(input_of("other"), 4);
    ck_assert_int_eq(input_of("elsewhere/OTHER"), 4);
    ck_assert_int_eq(input_of("host/other"), 5);
    ck_assert_int_eq(input_of("o3"), 7);
    ck_assert_int_eq(input_of("host/o3"), 7);
    ck_assert_int_eq(input_of("host/gpt-4o"), 1); /* the longer prefix, though of a shorter form */
    ck_assert_int_eq(input_of("host/gpt-4"), 8);
    ck_assert_int_eq(input_of("gpt-4"), 30000000);
    own((const struct cm_price_row[]){{CM_S_INIT("*"), {.input = 9}}}, 1);
    ck_assert_int_eq(input_of("gpt-4o"), 9);
    ck_assert_int_eq(input_of(""), 9);
}
END_TEST

START_TEST(long_names_are_not_known)
{
    char name[300];

    memset(name, 'a', sizeof(name));
    own((const struct cm_price_row[]){{CM_S_INIT("*"), {.input = 9}}}, 1);
    ck_assert_ptr_nonnull(cm_price_find(prices, cm_str(name, 200)));
    ck_assert_ptr_null(cm_price_find(prices, cm_str(name, 201)));
    memset(name, '/', sizeof(name));
    ck_assert_ptr_nonnull(cm_price_find(prices, cm_str(name, 200)));
}
END_TEST

START_TEST(the_table_is_sound)
{
    own(NULL, 0);
    for (size_t i = 0; i < price_table_n; i++) {
        const char *name = price_table[i].model;
        const struct cm_price *p = cm_price_find(prices, cm_str_of(name));

        for (const char *c = name; *c; c++)
            ck_assert_msg(*c != '/' && *c != ' ' && (*c < 'A' || *c > 'Z'), "%s", name);
        for (size_t j = 0; j < i; j++)
            ck_assert_msg(strcmp(name, price_table[j].model) != 0, "%s stands there twice", name);
        /* An embedding has no output; everywhere else it is dearer, and a cache is cheaper. */
        ck_assert_msg(p && p->input >= 0 && (p->output >= p->input || p->output == 0), "%s", name);
        ck_assert_msg(p->cache_read <= p->input, "%s", name);
        ck_assert_msg(p->cache_write == -1 || p->cache_write >= p->input, "%s", name);
        ck_assert_msg(p->input <= 200 * INT64_C(1000000) && p->output <= 600 * INT64_C(1000000),
                      "%s", name);
    }
}
END_TEST

static int64_t longest(const char *model)
{
    return cm_price_max_output(cm_str_of(model));
}

START_TEST(the_longest_answers_of_well_known_models)
{
    char name[300];

    ck_assert_int_eq(longest("gpt-4o"), 16384);
    ck_assert_int_eq(longest("openai/GPT-4o-2024-08-06"), 16384);
    ck_assert_int_eq(longest("gpt-4o-2024-05-13"), 4096); /* its own, shorter */
    ck_assert_int_eq(longest("gpt-4.1-nano-2025-04-14"), 32768);
    ck_assert_int_eq(longest("o3-mini"), 100000);
    ck_assert_int_eq(longest("gpt-5-mini"), 128000);
    ck_assert_int_eq(longest("gpt-5-chat-latest"), 16384);
    ck_assert_int_eq(longest("deepseek-chat"), 8192);
    ck_assert_int_eq(longest("gpt-4o-"), 0);
    ck_assert_int_eq(longest("my-own-model"), 0);
    ck_assert_int_eq(longest(""), 0);
    memset(name, '/', sizeof(name));
    ck_assert_int_eq(cm_price_max_output(cm_str(name, sizeof(name))), 0);
    own(NULL, 0);
    for (size_t i = 0; i < price_table_output_n; i++) {
        const struct price_table_output_row *row = &price_table_output[i];

        ck_assert_msg(row->max_tokens >= 4096 && row->max_tokens <= 272000, "%s", row->model);
        ck_assert_msg(longest(row->model) == row->max_tokens, "%s stands there twice", row->model);
        ck_assert_msg(input_of(row->model) > 0, "%s has no price", row->model);
    }
}
END_TEST

START_TEST(prices_of_a_configuration)
{
    const char *text = "[provider demo]\ntype = demo\n[price m]\ninput = 2.50\noutput = 10\n"
                       "cache_read = 0.000001\nimage = 0.04\n[price m*]\ncache_write = 3.125\n"
                       "reasoning = 1000000\n";
    struct cm_arena arena = {0};
    struct cm_problems problems;
    struct cm_config *c;
    const struct cm_price *p;

    cm_problems_init(&problems, &arena);
    c = cm_config_parse("f", cm_str_of(text), NULL, &problems);
    ck_assert_ptr_nonnull(c);
    prices = cm_prices_of(c);
    cm_config_unref(c);
    cm_arena_clear(&arena);
    p = cm_price_find(prices, CM_S("m"));
    ck_assert_int_eq(p->input, 2500000);
    ck_assert_int_eq(p->output, 10000000);
    ck_assert_int_eq(p->cache_read, 1);
    ck_assert_int_eq(p->cache_write, -1);
    ck_assert_int_eq(p->reasoning, -1);
    ck_assert_int_eq(p->image, 40000);
    p = cm_price_find(prices, CM_S("m2"));
    ck_assert_int_eq(p->input, 0);
    ck_assert_int_eq(p->cache_write, 3125000);
    ck_assert_int_eq(p->reasoning, INT64_C(1000000000000));
}
END_TEST

/* --- adding up ------------------------------------------------------------------------------ */

START_TEST(sound_has_prices_of_its_own)
{
    struct cm_price price = {.input = 4000000,
                             .output = 16000000,
                             .cache_read = 400000,
                             .cache_write = -1,
                             .reasoning = -1,
                             .audio_input = 32000000,
                             .audio_cache_read = 500000,
                             .audio_output = 64000000};
    struct cm_usage u = {.in_uncached = 146,
                         .in_cache_read = 64,
                         .out_text = 120,
                         .in_audio = 100,
                         .in_audio_cached = 40,
                         .out_audio = 100};
    const struct cm_price *known;

    /* 86 and 60 of the input, 24 and 40 of the cache, 20 and 100 of the answer */
    ck_assert_int_eq(cm_price_cost(&price, &u, 0),
                     86 * 4 + 60 * 32 + (24 * 4 + 40 * 5 + 9) / 10 + 20 * 16 + 100 * 64);
    price.audio_input = price.audio_cache_read = price.audio_output = -1;
    ck_assert_int_eq(cm_price_cost(&price, &u, 0), 146 * 4 + (64 * 4 + 9) / 10 + 120 * 16);
    u.in_audio = u.out_audio = INT64_MAX; /* more sound than there is */
    price.audio_input = 0;
    ck_assert_int_eq(cm_price_cost(&price, &u, 0), (64 * 4 + 9) / 10 + 120 * 16);
    price.audio_output = 99000000;
    ck_assert_int_eq(cm_price_estimate(&price, 0, 10), 990);
    own(NULL, 0);
    known = cm_price_find(prices, CM_S("gpt-realtime-2025-08-28"));
    ck_assert_ptr_nonnull(known);
    ck_assert_int_eq(known->audio_output, 64000000);
    ck_assert_int_eq(cm_price_find(prices, CM_S("gpt-4o"))->audio_output, -1);
}
END_TEST

START_TEST(cost_of_an_exchange)
{
    struct cm_price price = {.input = 2500000,
                             .output = 10000000,
                             .cache_read = 1250000,
                             .cache_write = -1,
                             .reasoning = -1,
                             .image = 40000};
    struct cm_usage u = {.in_uncached = 1000,
                         .in_cache_read = 2000,
                         .in_cache_write = 4000,
                         .out_text = 100,
                         .out_reasoning = 200};

    ck_assert_int_eq(cm_price_cost(&price, &u, 0), 2500 + 2500 + 10000 + 1000 + 2000);
    ck_assert_int_eq(cm_price_cost(&price, &u, 3), 18000 + 120000);
    price.cache_write = 0;
    price.reasoning = 20000000;
    ck_assert_int_eq(cm_price_cost(&price, &u, 0), 2500 + 2500 + 1000 + 4000);
    ck_assert_int_eq(cm_price_cost(NULL, &u, 3), 0);
    ck_assert_int_eq(cm_price_estimate(NULL, 1000, 1000), 0);
    ck_assert_int_eq(cm_price_cost(&price, &(struct cm_usage){0}, 0), 0);
}
END_TEST

START_TEST(costs_are_rounded_up_once)
{
    const struct cm_price price = {.input = 150000, .output = 1, .cache_read = 1, .cache_write = 1};
    struct cm_usage u = {.in_uncached = 1};

    ck_assert_int_eq(cm_price_cost(&price, &u, 0), 1); /* 0.15 */
    u.in_uncached = 20;
    ck_assert_int_eq(cm_price_cost(&price, &u, 0), 3); /* 3.0 */
    u.in_uncached = 21;
    ck_assert_int_eq(cm_price_cost(&price, &u, 0), 4);
    u = (struct cm_usage){.in_cache_read = 1, .in_cache_write = 1, .out_text = 1};
    ck_assert_int_eq(cm_price_cost(&price, &u, 0), 1);
}
END_TEST

START_TEST(no_figure_overflows)
{
    const struct cm_price dear = {.input = INT64_MAX,
                                  .output = INT64_MAX,
                                  .cache_read = INT64_MAX,
                                  .cache_write = INT64_MAX,
                                  .reasoning = INT64_MAX,
                                  .image = INT64_MAX,
                                  .audio_input = INT64_MAX,
                                  .audio_cache_read = INT64_MAX,
                                  .audio_output = INT64_MAX};
    struct cm_usage u = {.in_uncached = INT64_MAX,
                         .in_cache_read = INT64_MAX,
                         .in_cache_write = INT64_MAX,
                         .out_text = INT64_MAX,
                         .out_reasoning = INT64_MAX};

    ck_assert_int_eq(cm_price_cost(&dear, &u, INT64_MAX), INT64_MAX);
    ck_assert_int_eq(cm_price_estimate(&dear, INT64_MAX, INT64_MAX), INT64_MAX);
    u = (struct cm_usage){.in_uncached = 1};
    ck_assert_int_eq(cm_price_cost(&dear, &u, 0), CM_CONF_USD_MAX / 1000000);
    u = (struct cm_usage){.in_uncached = INT64_MIN, .out_text = -1};
    ck_assert_int_eq(cm_price_cost(&dear, &u, -5), 0);
    ck_assert_int_eq(cm_price_estimate(&dear, -1, INT64_MIN), 0);
    u = (struct cm_usage){.in_uncached = INT64_C(9000000000000000)};
    ck_assert_int_eq(cm_price_cost(&(struct cm_price){.input = 1000000000}, &u, 0),
                     INT64_C(9000000000000000000));
}
END_TEST

static struct cm_rng rng;

static int64_t below(int64_t n)
{
    return (int64_t)cm_rng_below(&rng, (uint64_t)n);
}

/* Small figures and large ones alike. */
static int64_t any_up_to(int64_t most)
{
    return below((most >> below(30)) + 1);
}

static struct cm_price any_price(void)
{
    const int64_t most = CM_CONF_USD_MAX / 1000;

    return (struct cm_price){.input = any_up_to(most),
                             .output = any_up_to(most),
                             .cache_read = below(3) == 0 ? -1 : any_up_to(most),
                             .cache_write = below(3) == 0 ? -1 : any_up_to(most),
                             .reasoning = below(3) == 0 ? -1 : any_up_to(most),
                             .image = any_up_to(most)};
}

START_TEST(costs_have_their_properties)
{
    cm_rng_seed(&rng, 4);
    for (int round = 0; round < 100000; round++) {
        struct cm_price price = any_price();
        int64_t v[5], images = any_up_to(1000), whole, parts = 0, n_parts = 6;
        struct cm_usage u = {0}, more;
        int64_t *fields[] = {&u.in_uncached, &u.in_cache_read, &u.in_cache_write, &u.out_text,
                             &u.out_reasoning};
        int64_t *more_fields[] = {&more.in_uncached, &more.in_cache_read, &more.in_cache_write,
                                  &more.out_text, &more.out_reasoning};

        /* The parts alone cost what the whole does, but for less than a micro-dollar each. */
        for (size_t i = 0; i < CM_COUNT(v); i++) {
            *fields[i] = v[i] = any_up_to(10000000);
            more = (struct cm_usage){0};
            *more_fields[i] = v[i];
            parts += cm_price_cost(&price, &more, 0);
        }
        parts += cm_price_cost(&price, &(struct cm_usage){0}, images);
        whole = cm_price_cost(&price, &u, images);
        ck_quick(whole <= parts && parts < whole + n_parts);

        /* More never costs less. */
        for (size_t i = 0; i < CM_COUNT(v); i++) {
            more = u;
            *more_fields[i] += any_up_to(1000);
            ck_quick(cm_price_cost(&price, &more, images) >= whole);
        }
        ck_quick(cm_price_cost(&price, &u, images + 1) >= whole);

        /* An estimate is enough for every way the sums can fall into the buckets. */
        ck_quick(cm_price_estimate(&price, cm_usage_in(&u), cm_usage_out(&u)) >=
                 cm_price_cost(&price, &u, 0));
    }
}
END_TEST

Suite *suite_price(void)
{
    Suite *s = suite_create("price");
    TCase *t = tcase_create("price");

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, NULL, clean_up);
    tcase_add_test(t, well_known_models_have_prices);
    tcase_add_test(t, names_have_several_forms);
    tcase_add_test(t, the_operators_rows_win);
    tcase_add_test(t, long_names_are_not_known);
    tcase_add_test(t, the_table_is_sound);
    tcase_add_test(t, the_longest_answers_of_well_known_models);
    tcase_add_test(t, prices_of_a_configuration);
    tcase_add_test(t, sound_has_prices_of_its_own);
    tcase_add_test(t, cost_of_an_exchange);
    tcase_add_test(t, costs_are_rounded_up_once);
    tcase_add_test(t, no_figure_overflows);
    tcase_add_test(t, costs_have_their_properties);
    return s;
}
