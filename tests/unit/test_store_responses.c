/* Kept responses: whose they are, how many there may be, how long, and that nobody reads them in the file. */
#include "store_fixture.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct fix f;

#define HOUR_MS INT64_C(3600000)

static void setup(void)
{
    fix_init(&f);
    f.setup.responses_ttl_ms = HOUR_MS;
    f.setup.responses_max = 100;
    f.setup.responses_bytes = 1000;
}

static void teardown(void)
{
    fix_clear(&f);
}

struct found {
    bool told;
    const struct cm_response_row *rows;
    size_t n;
};

static void on_found(void *arg, const struct cm_response_row *rows, size_t n,
                     const struct cm_err *err)
{
    struct found *found = arg;

    *found = (struct found){.told = true, .rows = rows, .n = n};
    f.err = err ? *err : (struct cm_err){0};
}

static struct found find(const char *id, const char *scope, bool turns)
{
    struct found found = {0};

    cm_store_responses(f.store, cm_str_of(id), cm_str_of(scope), turns, 100000, &f.arena, on_found,
                       &found);
    while (!found.told)
        fix_run_ms(&f, 1);
    return found;
}

static void keep(const char *id, const char *previous, const char *input, const char *response)
{
    const struct cm_response_row row = {.id = cm_str_of(id),
                                        .scope = CM_S("1 alice"),
                                        .previous = cm_str_of(previous),
                                        .conversation = UINT64_MAX - 7,
                                        .input = cm_str_of(input),
                                        .response = cm_str_of(response),
                                        .created_ms = f.now_ms};

    cm_store_keep_response(f.store, &row);
}

static void on_done(void *arg, const struct cm_err *err)
{
    *(bool *)arg = true;
    ck_assert_ptr_null(err);
}

static void drop(const char *id, const char *scope)
{
    bool done = false;

    cm_store_drop_response(f.store, cm_str_of(id), cm_str_of(scope), on_done, &done);
    while (!done)
        fix_run_ms(&f, 1);
}

START_TEST(turns_come_back_in_their_order_and_to_their_owner)
{
    struct found found;

    fix_open(&f);
    ck_assert(cm_store_keeps_responses(f.store));
    keep("resp_1", "", "\"Hi\"", "{\"output\":[]}");
    keep("resp_2", "resp_1", "[2]", "{\"output\":[2]}");
    for (int round = 0; round < 2; round++) {
        found = find("resp_2", "1 alice", true);
        ck_assert_uint_eq(found.n, 2);
        ck_str(found.rows[0].input, "\"Hi\"");
        ck_str(found.rows[1].id, "resp_2");
        ck_str(found.rows[1].previous, "resp_1");
        ck_str(found.rows[1].response, "{\"output\":[2]}");
        ck_assert(found.rows[1].conversation == UINT64_MAX - 7);
        found = find("resp_2", "1 alice", false);
        ck_assert_uint_eq(found.n, 1);
        ck_assert_uint_eq(find("resp_2", "2 bob", true).n, 0);
        ck_assert_uint_eq(find("resp_3", "1 alice", true).n, 0);
        ck_assert_int_eq(f.err.cls, CM_ERR_NONE);
        fix_close(&f);
        fix_open(&f);
    }
}
END_TEST

START_TEST(a_missing_turn_is_told)
{
    fix_open(&f);
    keep("resp_1", "", "\"Hi\"", "{}");
    keep("resp_2", "resp_1", "[2]", "{}");
    drop("resp_1", "2 bob");
    ck_assert_uint_eq(find("resp_1", "1 alice", false).n, 1);
    drop("resp_1", "1 alice");
    ck_assert_uint_eq(find("resp_1", "1 alice", false).n, 0);
    ck_assert_uint_eq(find("resp_2", "1 alice", true).n, 0);
    ck_assert_int_eq(f.err.cls, CM_ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(f.err.msg, "resp_1"));
    ck_assert_uint_eq(find("resp_2", "1 alice", false).n, 1);
}
END_TEST

START_TEST(an_upstream_s_own)
{
    const struct cm_response_row row = {.id = CM_S("resp_u"),
                                        .scope = CM_S("1 alice"),
                                        .previous = CM_S("resp_older"),
                                        .provider = CM_S("up"),
                                        .cred_id = 5};
    struct found found;

    fix_open(&f);
    cm_store_keep_response(f.store, &row);
    found = find("resp_u", "1 alice", true);
    ck_assert_uint_eq(found.n, 1); /* what was before is its business */
    ck_str(found.rows[0].provider, "up");
    ck_assert_uint_eq(found.rows[0].cred_id, 5);
    ck_assert_uint_eq(found.rows[0].response.n, 0);
}
END_TEST

START_TEST(bounds)
{
    char text[401];

    memset(text, 'x', 400);
    text[400] = '\0';
    fix_open(&f);
    keep("resp_1", "", text, "");
    f.now_ms++;
    keep("resp_2", "", text, "");
    f.now_ms++;
    ck_assert_uint_eq(find("resp_1", "1 alice", true).n, 1); /* used: the other one is older now */
    keep("resp_3", "", text, "");
    ck_assert_uint_eq(find("resp_2", "1 alice", false).n, 0);
    ck_assert_uint_eq(find("resp_1", "1 alice", false).n, 1);
    /* the same id again takes its own place */
    keep("resp_3", "", text, "{}");
    ck_assert_uint_eq(find("resp_1", "1 alice", false).n, 1);
    fix_close(&f);
    f.setup.responses_max = 1;
    fix_open(&f);
    f.now_ms++;
    keep("resp_4", "", "[]", "");
    ck_assert_uint_eq(find("resp_4", "1 alice", false).n, 1);
    ck_assert_int_eq(fix_number(fix_path(&f, "responses.db"), "SELECT count(*) FROM responses"), 1);
}
END_TEST

START_TEST(time_ends_them)
{
    fix_open(&f);
    keep("resp_1", "", "\"Hi\"", "{}");
    f.now_ms += HOUR_MS - 1;
    ck_assert_uint_eq(find("resp_1", "1 alice", true).n, 1); /* a turn uses it */
    f.now_ms += HOUR_MS - 1;
    ck_assert_uint_eq(find("resp_1", "1 alice", false).n, 1); /* looking does not */
    f.now_ms += 1;
    ck_assert_uint_eq(find("resp_1", "1 alice", false).n, 0);
    fix_close(&f);
    fix_open(&f); /* each start looks, and each hour */
    fix_run_ms(&f, 20);
    fix_close(&f);
    ck_assert_int_eq(fix_number(fix_path(&f, "responses.db"), "SELECT count(*) FROM responses"), 0);
}
END_TEST

/* Nothing is written before the loop turns: what waits has a limit. */
START_TEST(what_waits_is_bounded)
{
    const size_t size = (size_t)30 * 1024 * 1024;
    char *text = cm_alloc(size + 1);

    memset(text, 'x', size);
    text[size] = '\0';
    f.setup.responses_bytes = INT64_C(1) << 30;
    fix_open(&f);
    keep("resp_1", "", text, "");
    keep("resp_2", "", text, "");
    keep("resp_3", "", text, "");
    keep("resp_4", "", "[]", "");
    free(text);
    ck_assert_uint_eq(find("resp_3", "1 alice", false).n, 0);
    ck_assert_uint_eq(find("resp_4", "1 alice", false).n, 1);
    keep("resp_3", "", "[]", "");
    ck_assert_uint_eq(find("resp_3", "1 alice", false).n, 1);
}
END_TEST

START_TEST(switched_off)
{
    fix_open(&f);
    keep("resp_1", "", "\"Hi\"", "{}");
    fix_close(&f);
    f.setup.responses_ttl_ms = 0;
    fix_open(&f);
    ck_assert(!cm_store_keeps_responses(f.store));
    keep("resp_2", "", "\"Hi\"", "{}");
    ck_assert_uint_eq(find("resp_2", "1 alice", false).n, 0);
    fix_run_ms(&f, 20);
    fix_close(&f);
    ck_assert_int_eq(fix_number(fix_path(&f, "responses.db"), "SELECT count(*) FROM responses"), 0);
}
END_TEST

START_TEST(nobody_reads_them_in_the_file)
{
    struct stat st;

    fix_open(&f);
    keep("resp_1", "", "\"the question of alice\"", "{\"output\":\"an answer for alice\"}");
    ck_assert_uint_eq(find("resp_1", "1 alice", true).n, 1);
    ck_assert_int_eq(fix_rekey(&f, "another master key of the tests"), 0);
    ck_assert_uint_eq(find("resp_1", "1 alice", true).n, 1);
    fix_close(&f);
    ck_assert(!fix_text_in_file(fix_path(&f, "responses.db"), "of alice"));
    ck_assert(!fix_text_in_file(fix_path(&f, "responses.db"), "for alice"));
    ck_assert(stat(fix_path(&f, "responses.db"), &st) == 0 && (st.st_mode & 07777) == 0600);
    f.setup.master_key = CM_S("another master key of the tests");
    fix_open(&f);
    ck_str(find("resp_1", "1 alice", true).rows[0].input, "\"the question of alice\"");
    fix_close(&f);
    /* a row that was moved to somebody else does not open */
    fix_sql(fix_path(&f, "responses.db"), "UPDATE responses SET scope='2 bob'");
    fix_open(&f);
    ck_assert_uint_eq(find("resp_1", "2 bob", true).n, 0);
    ck_assert_int_eq(f.err.cls, CM_ERR_NONE);
}
END_TEST

START_TEST(another_pool_file)
{
    fix_open(&f);
    keep("resp_1", "", "\"Hi\"", "{}");
    fix_close(&f);
    unlink(fix_path(&f, "chatmux.db"));
    fix_open(&f);
    ck_assert_uint_eq(find("resp_1", "1 alice", true).n, 0);
    keep("resp_1", "", "\"Ho\"", "{}");
    ck_str(find("resp_1", "1 alice", true).rows[0].input, "\"Ho\"");
}
END_TEST

Suite *suite_store_responses(void)
{
    Suite *s = suite_create("store_responses");
    TCase *tc = tcase_create("core");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, turns_come_back_in_their_order_and_to_their_owner);
    tcase_add_test(tc, a_missing_turn_is_told);
    tcase_add_test(tc, an_upstream_s_own);
    tcase_add_test(tc, bounds);
    tcase_add_test(tc, time_ends_them);
    tcase_add_test(tc, what_waits_is_bounded);
    tcase_add_test(tc, switched_off);
    tcase_add_test(tc, nobody_reads_them_in_the_file);
    tcase_add_test(tc, another_pool_file);
    suite_add_tcase(s, tc);
    return s;
}
