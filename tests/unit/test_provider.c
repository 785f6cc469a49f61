/* provider/provider: the table of adapters, checking a section, options, statuses. */
#include "chatmux/provider/provider.h"

#include "chatmux/base/mem.h"
#include "unit.h"

static struct cm_arena arena;
static struct cm_problems problems;
static struct cm_provider_conf conf;
static struct cm_instance in;

static void setup(void)
{
    cm_problems_init(&problems, &arena);
    conf = (struct cm_provider_conf){
        .name = CM_S("p"), .where = CM_S("f.ini:1"), .type = CM_S("demo")};
}

static void teardown(void)
{
    cm_arena_clear(&arena);
}

/* The only complaint holds this text and stands at this place. */
static void expect_problem(const char *where, const char *text)
{
    cm_problems_init(&problems, &arena);
    ck_assert_int_eq(cm_instance_init(&in, &conf, &arena, &problems), -1);
    ck_assert_uint_eq(problems.n, 1);
    ck_assert(cm_str_eq(problems.first->where, cm_str_of(where)));
    ck_assert_msg(cm_str_has(problems.first->text, cm_str_of(text)), CM_PRI,
                  CM_ARG(problems.first->text));
}

static void expect_fine(void)
{
    cm_problems_init(&problems, &arena);
    ck_assert_msg(cm_instance_init(&in, &conf, &arena, &problems) == 0, CM_PRI,
                  CM_ARG(problems.first ? problems.first->text : CM_STR_NONE));
}

START_TEST(adapters_by_name)
{
    ck_assert_str_eq(cm_provider_find(CM_S("demo"))->name, "demo");
    ck_assert_ptr_null(cm_provider_find(CM_S("dem")));
    ck_assert_ptr_null(cm_provider_find(CM_STR_NONE));
    ck_assert(cm_str_starts(cm_str_of(cm_provider_names()), CM_S("openai, demo, hix, ")));
}
END_TEST

START_TEST(wrong_sections_are_problems)
{
    struct cm_conf_pair pair = {
        .key = CM_S("chunk_mss"), .value = CM_S("1"), .where = CM_S("f.ini:4")};
    struct cm_str models[] = {CM_S("a="), CM_S("fine")};

    conf.type = CM_S("opanai");
    expect_problem("f.ini:1", "'opanai' is none of openai, demo, hix, ");
    expect_problem("f.ini:1", "; did you mean openai?");
    conf.type = CM_S("hix");
    conf.models = (struct cm_strs){models, 2};
    expect_problem("f.ini:1", "'a=' must be NAME or OURS=THEIRS");
    conf.models = (struct cm_strs){0};

    conf.type = CM_S("demo");
    conf.options = &pair;
    conf.n_options = 1;
    expect_problem("f.ini:4", "the type demo has no such option, did you mean x.chunk_ms?");
    pair.key = CM_S("chunk_ms");
    pair.value = CM_S("fast");
    expect_problem("f.ini:4", "x.chunk_ms: must be ");
    pair.key = CM_S("chunks");
    expect_problem("f.ini:4", "x.chunks: must be a number");
    pair.value = CM_S("20"); /* only a name that tells the unit makes a bare number a duration */
    pair.key = CM_S("delay");
    expect_problem("f.ini:4", "x.delay: ");
    conf.type = CM_S("hix");
    pair.key = CM_S("search_type");
    expect_problem("f.ini:4", "must be one of internet|news|academic");
    pair.key = CM_S("question_limit");
    pair.value = CM_S("5");
    expect_problem("f.ini:4", "must be 100 to 10000000");
    conf.n_options = 0;

    pair = (struct cm_conf_pair){.key = CM_S("X Y"), .value = CM_S("1"), .where = CM_S("f.ini:5")};
    conf.headers = &pair;
    conf.n_headers = 1;
    expect_problem("f.ini:5", "cannot be sent as a header");
}
END_TEST

START_TEST(options_and_their_defaults)
{
    struct cm_conf_pair pairs[] = {{.key = CM_S("delay"), .value = CM_S("2s")},
                                   {.key = CM_S("chunks"), .value = CM_S("4")}};

    conf.options = pairs;
    conf.n_options = 2;
    expect_fine();
    ck_assert_int_eq(cm_option_int(&in, "delay"), 2000);
    ck_assert_int_eq(cm_option_int(&in, "chunks"), 4);
    ck_assert_int_eq(cm_option_int(&in, "chunk_ms"), 0);
    ck_str(cm_option_value(&in, "delay"), "2s");
    pairs[0] = (struct cm_conf_pair){.key = CM_S("chunk_ms"), .value = CM_S("20")};
    expect_fine();
    ck_assert_int_eq(cm_option_int(&in, "chunk_ms"), 20);
    pairs[0].value = CM_S("2s");
    expect_fine();
    ck_assert_int_eq(cm_option_int(&in, "chunk_ms"), 2000);
}
END_TEST

START_TEST(base_urls)
{
    conf.type = CM_S("hix");
    expect_fine();
    ck_str(in.base_url, "https://hix.ai");
    conf.base_url = CM_S("http://127.0.0.1:1/v1//");
    expect_fine();
    ck_str(in.base_url, "http://127.0.0.1:1/v1");
}
END_TEST

START_TEST(models_of_an_instance)
{
    struct cm_str renamed[] = {CM_S("mine=gpt-4"), CM_S("gpt-4o"), CM_S("x/y = bot=1"), CM_S("*")};

    conf.type = CM_S("hix");
    expect_fine();
    ck_assert_uint_gt(in.n_rows, 50);
    ck_assert(!in.any && !in.listed);

    conf.models = (struct cm_strs){renamed, 4};
    expect_fine();
    ck_assert_uint_eq(in.n_rows, 3);
    ck_str(in.rows[0].name, "mine");
    ck_str(in.rows[0].upstream, "gpt4"); /* what the table knows of theirs */
    ck_assert_int_eq(in.rows[0].number, 10);
    ck_str(in.rows[2].name, "x/y");
    ck_str(in.rows[2].upstream, "bot=1");
    ck_assert_uint_eq(in.rows[2].features, CM_MODEL_SEARCH | CM_MODEL_NEWS | CM_MODEL_ACADEMIC);
    ck_assert(in.any && !in.listed);

    conf.models = (struct cm_strs){&renamed[3], 1};
    expect_fine();
    ck_assert_uint_gt(in.n_rows, 50);
    ck_assert(in.any);

    conf.type = CM_S("openai");
    expect_fine();
    ck_assert(in.any && !in.listed);
    conf.models = (struct cm_strs){0};
    expect_fine();
    ck_assert(!in.any && in.listed);
}
END_TEST

START_TEST(what_an_instance_drops)
{
    const struct cm_provider adapter = {.name = "x", .understands = CM_FIELD_SEED};
    struct cm_instance some = {.adapter = &adapter, .name = CM_S("some")};
    struct cm_str fields[CM_INSTANCE_DROPS_MAX];
    struct cm_chat chat = {.arena = &arena};
    struct cm_err err;

    cm_chat_begin(&chat, CM_DIALECT_OPENAI_CHAT, CM_TASK_CHAT, CM_S("{}"));
    ck_assert_uint_eq(cm_instance_drops(&some, &chat, fields, CM_COUNT(fields)), 0);
    chat.has_seed = true;
    chat.top_k = 1;
    chat.user = CM_S("u");
    cm_chat_drop(&chat, CM_S("store"));
    ck_assert_uint_eq(cm_instance_drops(&some, &chat, fields, CM_COUNT(fields)), 3);
    ck_str(fields[0], "store");
    ck_str(fields[1], "top_k");
    ck_str(fields[2], "user");
    ck_assert_uint_eq(cm_instance_drops(&some, &chat, fields, 2), 2);
    chat.dialect = CM_DIALECT_ANTHROPIC;
    ck_assert_uint_eq(cm_instance_drops(&some, &chat, fields, CM_COUNT(fields)), 3);
    ck_str(fields[2], "metadata.user_id");
    chat.dialect = CM_DIALECT_OPENAI_CHAT;
    some.adapter = cm_provider_find(CM_S("openai")); /* speaks the dialect */
    some.tasks = CM_TASK_BIT(CHAT);
    ck_assert_uint_eq(cm_instance_drops(&some, &chat, fields, CM_COUNT(fields)), 0);

    ck_assert_int_eq(cm_fail_dropped(&err, &some, CM_S("top_k")), -1);
    ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_str_eq(err.param, "top_k");
    ck_assert_str_eq(err.code, "unsupported_parameter");
}
END_TEST

START_TEST(statuses_have_classes)
{
    static const struct {
        int status;
        enum cm_err_class cls;
    } cases[] = {
        {400, CM_ERR_BAD_REQUEST},       {401, CM_ERR_INVALID_CREDENTIAL},
        {402, CM_ERR_QUOTA_EXHAUSTED},   {403, CM_ERR_UPSTREAM_DOWN},
        {404, CM_ERR_MODEL_UNAVAILABLE}, {408, CM_ERR_TIMEOUT},
        {422, CM_ERR_BAD_REQUEST},       {429, CM_ERR_RATE_LIMITED},
        {500, CM_ERR_UPSTREAM_DOWN},     {503, CM_ERR_OVERLOADED},
        {504, CM_ERR_TIMEOUT},           {529, CM_ERR_OVERLOADED},
        {302, CM_ERR_UPSTREAM_DOWN},
    };
    const struct cm_header wait = {CM_S("Retry-After"), CM_S("9")};
    struct cm_err err;

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        ck_assert_int_eq(cm_http_fail(&err, cases[i].status, &wait, 1, CM_S("kite")), -1);
        ck_assert_msg(err.cls == cases[i].cls, "%d is %s", cases[i].status,
                      cm_err_info(err.cls)->name);
        ck_assert_int_eq(err.retry_after_s, 9);
    }
    ck_assert_str_eq(err.msg, "kite answered with status 302");
}
END_TEST

Suite *suite_provider(void)
{
    Suite *s = suite_create("provider");
    TCase *t = tcase_create("provider");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, adapters_by_name);
    tcase_add_test(t, wrong_sections_are_problems);
    tcase_add_test(t, options_and_their_defaults);
    tcase_add_test(t, base_urls);
    tcase_add_test(t, models_of_an_instance);
    tcase_add_test(t, what_an_instance_drops);
    tcase_add_test(t, statuses_have_classes);
    suite_add_tcase(s, t);
    return s;
}
