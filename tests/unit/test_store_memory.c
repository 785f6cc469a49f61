/* Store: what adapters remember beyond a restart. */
#include "store_fixture.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#include <stdio.h>

#define NOW INT64_C(1767225600000)

static struct fix f;
static struct cm_memory_row *rows;
static size_t n;

static void set_up(void)
{
    fix_init(&f);
    f.now_ms = NOW;
    fix_open(&f);
}

static void clean_up(void)
{
    fix_clear(&f);
}

static struct cm_memory_row row_of(int key, uint64_t cred, const char *value, int64_t until_ms)
{
    struct cm_memory_row row = {
        .cred_id = cred, .kind = 1, .until_ms = until_ms, .value = cm_str_of(value)};

    memcpy(row.key, &key, sizeof(key));
    return row;
}

static void remember(int key, uint64_t cred, const char *value, int64_t until_ms)
{
    const struct cm_memory_row row = row_of(key, cred, value, until_ms);

    cm_store_remember(f.store, &row);
}

static void forget(int key)
{
    const struct cm_memory_row row = row_of(key, 0, "", 0);

    cm_store_forget(f.store, row.key);
}

static void load(void)
{
    ck_assert_int_eq(cm_store_load_memories(f.store, &f.arena, &rows, &n, &f.err), 0);
}

/* What is there after a restart, in the order of its end. */
static void expect(const char *values)
{
    struct cm_buf got = {0};

    fix_close(&f);
    fix_open(&f);
    load();
    for (size_t i = 0; i < n; i++)
        cm_buf_printf(&got, CM_PRI " ", CM_ARG(rows[i].value));
    ck_assert_str_eq(cm_buf_z(&got), values);
    cm_buf_clear(&got);
}

START_TEST(they_come_back_until_their_end)
{
    struct cm_memory_row twin;

    remember(1, 7, "late", NOW + 3000);
    remember(2, 7, "soon", NOW + 1000);
    remember(3, 8, "over", NOW);
    expect("soon late ");
    ck_assert_uint_eq(rows[0].cred_id, 7);
    ck_assert_int_eq(rows[0].kind, 1);
    ck_assert_int_eq(rows[0].until_ms, NOW + 1000);
    twin = row_of(2, 7, "", 0);
    ck_assert_mem_eq(rows[0].key, twin.key, sizeof(twin.key));
    f.now_ms += 1000;
    expect("late ");
}
END_TEST

START_TEST(the_last_word_counts)
{
    remember(1, 7, "one", NOW + 1000);
    remember(1, 7, "two", NOW + 1000); /* in the same group */
    ck_assert_int_eq(fix_flush(&f), 0);
    expect("two ");
    remember(1, 7, "three", NOW + 1000);
    remember(2, 7, "four", NOW + 2000);
    forget(2);
    forget(3);
    expect("three ");
    forget(1);
    remember(1, 7, "five", NOW + 1000);
    expect("five ");
    forget(1);
    expect("");
}
END_TEST

START_TEST(they_go_with_their_credential)
{
    struct cm_cred_row row = fix_cred(7, "secret"), other = fix_cred(8, "other");

    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    ck_assert_int_eq(fix_put_cred(&f, &other), 0);
    remember(1, 7, "one", NOW + 1000);
    remember(2, 8, "two", NOW + 2000);
    ck_assert_int_eq(fix_flush(&f), 0);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0); /* a new label, perhaps */
    expect("one two ");
    remember(3, 7, "three", NOW + 3000); /* waits, and is of the old account */
    row.month_anew = true;
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    expect("two ");
    ck_assert_int_eq(fix_change(&f, &(struct cm_change){.kind = CM_CHANGE_DEL_CRED, .id = 8}, 1),
                     0);
    expect("");
}
END_TEST

START_TEST(a_change_brings_them_with_the_rest)
{
    struct cm_cred_row cred = fix_cred(7, "secret");
    const struct cm_memory_row row = row_of(1, 7, "one", NOW + 1000);
    const struct cm_change changes[] = {{.kind = CM_CHANGE_PUT_CRED, .cred = &cred},
                                        {.kind = CM_CHANGE_PUT_MEMORY, .memory = &row}};

    ck_assert_int_eq(fix_change(&f, changes, 2), 0);
    expect("one ");
}
END_TEST

START_TEST(their_number_is_bounded)
{
    char *path = fix_path(&f, "chatmux.db"), sql[400];

    snprintf(sql, sizeof(sql),
             "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) INSERT INTO "
             "memories SELECT CAST(printf('%%032d', i) AS BLOB), 1, 1, %lld+i, x'' FROM c",
             CM_MEMORIES_MAX + 10, (long long)NOW);
    fix_close(&f);
    fix_sql(path, sql);
    fix_open(&f);
    load();
    ck_assert_uint_eq(n, CM_MEMORIES_MAX);
    ck_assert_int_eq(rows[0].until_ms, NOW + 11);
    for (int i = 0; i < 1000; i++) /* then it is looked at */
        remember(i, 7, "new", NOW + 1000000 + i);
    ck_assert_int_eq(fix_flush(&f), 0);
    ck_assert_int_eq(fix_number(path, "SELECT count(*) FROM memories"), CM_MEMORIES_MAX);
    ck_assert_int_eq(fix_number(path, "SELECT count(*) FROM memories WHERE value<>x''"), 1000);
}
END_TEST

/* A writer that stands still costs a bounded piece of memory, and nobody waits for it. */
START_TEST(what_waits_is_bounded)
{
    char *path = fix_path(&f, "chatmux.db");
    sqlite3 *db = fix_raw(path);

    ck_assert_int_eq(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    for (int i = 0; i < 5000; i++)
        remember(i, 7, "x", NOW + 1000);
    remember(4095, 7, "kept", NOW + 1000);
    ck_assert_int_eq(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    ck_assert_int_eq(fix_flush(&f), 0);
    ck_assert_int_eq(fix_number(path, "SELECT count(*) FROM memories"), 4096);
    ck_assert_int_eq(fix_number(path, "SELECT count(*) FROM memories WHERE value=x'6b657074'"), 1);
}
END_TEST

START_TEST(what_is_too_large_is_not_kept)
{
    static char large[CM_MEMORY_VALUE_MAX + 2];

    memset(large, 'x', sizeof(large) - 1);
    remember(1, 7, large, NOW + 1000);
    expect("");
    remember(1, 7, large + 1, NOW + 1000);
    load();
    fix_close(&f);
    fix_open(&f);
    load();
    ck_assert_uint_eq(n, 1);
}
END_TEST

/* What a flush could not write comes with the next one, unless something newer is there. */
START_TEST(a_failed_write_is_tried_again)
{
    char *path = fix_path(&f, "chatmux.db");

    fix_sql(path,
            "CREATE TRIGGER no BEFORE INSERT ON memories BEGIN SELECT RAISE(FAIL, 'no'); END");
    remember(1, 7, "one", NOW + 1000);
    remember(2, 7, "two", NOW + 2000);
    ck_assert_int_eq(fix_flush(&f), -1);
    remember(2, 7, "newer", NOW + 2000);
    fix_sql(path, "DROP TRIGGER no");
    expect("one newer ");
}
END_TEST

Suite *suite_store_memory(void)
{
    Suite *s = suite_create("store_memory");
    TCase *t = tcase_create("memory");

    tcase_add_checked_fixture(t, set_up, clean_up);
    tcase_set_timeout(t, 30);
    tcase_add_test(t, they_come_back_until_their_end);
    tcase_add_test(t, the_last_word_counts);
    tcase_add_test(t, they_go_with_their_credential);
    tcase_add_test(t, a_change_brings_them_with_the_rest);
    tcase_add_test(t, their_number_is_bounded);
    tcase_add_test(t, what_waits_is_bounded);
    tcase_add_test(t, what_is_too_large_is_not_kept);
    tcase_add_test(t, a_failed_write_is_tried_again);
    suite_add_tcase(s, t);
    return s;
}
