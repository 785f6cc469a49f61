/* The store: credentials, keys and identifiers survive; wrong keys, broken files and other programs get a sentence. */
#include "store_fixture.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "store/sqlite_int.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct fix f;

static void setup(void)
{
    fix_init(&f);
}

static void teardown(void)
{
    fix_clear(&f);
}

static void reopen(void)
{
    fix_close(&f);
    fix_open(&f);
}

static mode_t mode_of(const char *path)
{
    struct stat st;

    ck_assert_msg(stat(path, &st) == 0, "%s", path);
    return st.st_mode & 07777;
}

#define ck_says(text)                                                                              \
    ck_assert_msg(strstr(f.err.msg, text), "\"%s\" does not say \"%s\"", f.err.msg, text)

/* ---- files */

START_TEST(the_first_start_makes_private_files)
{
    mode_t before = umask(0);
    size_t n;

    f.setup.master_key = CM_STR_NONE;
    fix_open(&f);
    ck_assert_int_eq(mode_of(f.state), 0700);
    ck_assert_int_eq(mode_of(fix_path(&f, "chatmux.db")), 0600);
    ck_assert_int_eq(mode_of(fix_path(&f, "chatmux.db-wal")), 0600);
    ck_assert_int_eq(mode_of(fix_path(&f, "master.key")), 0600);
    cm_store_log(f.store, &(struct cm_request_row){.at_ms = f.now_ms});
    ck_assert_int_eq(fix_flush(&f), 0);
    ck_assert_int_eq(mode_of(fix_path(&f, "requests-2026-01-01.db")), 0600);
    fix_creds(&f, &n);
    ck_assert_uint_eq(n, 0);
    fix_keys(&f, &n);
    ck_assert_uint_eq(n, 0);
    ck_assert_ptr_null(cm_store_trouble(f.store));
    ck_assert(cm_store_key_is_ours(f.store));
    reopen(); /* with the key it made */
    umask(before);
}
END_TEST

START_TEST(urls)
{
    f.setup.url = CM_S("postgresql://user:pw@host/db");
    ck_assert(!fix_try(&f));
    ck_assert_int_eq(f.err.cls, CM_ERR_CONFIG);
    ck_says("store.url");
    ck_assert_ptr_null(strstr(f.err.msg, "pw"));
    f.setup.url = CM_S("sqlite:");
    ck_assert(!fix_try(&f));
    ck_says("store.url");
    f.setup.url = cm_str_of(fix_path(&f, "deep/down/other.db"));
    ck_assert(!fix_try(&f)); /* no scheme */
    f.setup.url = cm_arena_printf(&f.arena, "sqlite:%s/absolute/x.db", f.dir);
    fix_open(&f);
    ck_assert_int_eq(access(cm_arena_printf(&f.arena, "%s/absolute/x.db", f.dir).p, F_OK), 0);
}
END_TEST

/* ---- credentials and keys */

START_TEST(credentials_come_back_as_they_were)
{
    struct cm_cred_row row = {
        .id = 5,
        .provider = CM_S("genspark"),
        .label = CM_S("Büro \"1\""),
        .secret = CM_S("session=abc\0;=\xff bytes"),
        .token = CM_S("{\"access\":\"eyJ\"}"),
        .proxy = CM_S("http://user:pw@proxy:3128"),
        .from_config = true,
        .gone = true,
        .enabled = true,
        .weight = 3,
        .max_inflight = 2,
        .state = CM_S("cooling"),
        .reason = CM_S("rate_limited"),
        .until_ms = 1767225612345,
        .quota = CM_S("{\"left\":3}"),
        .requests = 10,
        .failures = 2,
        .tokens_in = INT64_C(5000000000),
        .tokens_out = 7,
        .last_used_ms = 1767225600001,
        .created_ms = 1767225600000,
        .month_ms = 1764547200000,
        .month_requests = 199,
        .token_expires_ms = 1767229200000,
    };
    const struct cm_cred_row *got;
    size_t n;

    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    reopen();
    got = fix_creds(&f, &n);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(got->id, 5);
    ck_str(got->provider, "genspark");
    ck_str(got->label, "Büro \"1\"");
    ck_str(got->secret, "session=abc\0;=\xff bytes");
    ck_str(got->token, "{\"access\":\"eyJ\"}");
    ck_str(got->proxy, "http://user:pw@proxy:3128");
    ck_assert(got->from_config && got->gone && got->enabled && !got->damaged);
    ck_assert_int_eq(got->weight, 3);
    ck_assert_int_eq(got->max_inflight, 2);
    ck_str(got->state, "cooling");
    ck_str(got->reason, "rate_limited");
    ck_assert_int_eq(got->until_ms, 1767225612345);
    ck_str(got->quota, "{\"left\":3}");
    ck_assert_int_eq(got->requests, 10);
    ck_assert_int_eq(got->failures, 2);
    ck_assert_int_eq(got->tokens_in, INT64_C(5000000000));
    ck_assert_int_eq(got->tokens_out, 7);
    ck_assert_int_eq(got->last_used_ms, 1767225600001);
    ck_assert_int_eq(got->created_ms, 1767225600000);
    ck_assert_int_eq(got->month_ms, 1764547200000);
    ck_assert_int_eq(got->month_requests, 199);
    ck_assert_int_eq(got->token_expires_ms, 1767229200000);

    row = fix_cred(5, "other");
    ck_assert_int_eq(fix_put_cred(&f, &row), 0); /* all but the counters */
    got = fix_find_cred(&f, 5);
    ck_str(got->secret, "other");
    ck_str(got->token, "");
    ck_str(got->proxy, "");
    ck_assert(!got->from_config && !got->gone);
    ck_assert_int_eq(got->requests, 10);
    ck_assert_int_eq(got->month_requests, 199);
    ck_assert_int_eq(got->token_expires_ms, 0);
    ck_assert_int_eq(fix_change(&f, &(struct cm_change){.kind = CM_CHANGE_DEL_CRED, .id = 5}, 1),
                     0);
    ck_assert_ptr_null(fix_find_cred(&f, 5));
}
END_TEST

static int set_token(uint64_t id, const char *secret, const char *token)
{
    struct cm_cred_row row = {
        .id = id, .secret = cm_str_of(secret), .token = cm_str_of(token), .token_expires_ms = 77};

    return fix_change(&f, &(struct cm_change){.kind = CM_CHANGE_SET_TOKEN, .cred = &row}, 1);
}

/* Whatever else is being written of the row meanwhile. */
START_TEST(a_token_is_set_alone_and_for_its_own_secret)
{
    struct cm_cred_row row = fix_cred(1, "secret");

    row.label = CM_S("mine");
    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    ck_assert_int_eq(set_token(1, "secret", "one"), 0);
    ck_assert_int_eq(set_token(1, "another", "two"),
                     0); /* was made of what is not there any more */
    ck_assert_int_eq(set_token(2, "secret", "three"), 0);
    reopen();
    ck_str(fix_find_cred(&f, 1)->token, "one");
    ck_str(fix_find_cred(&f, 1)->label, "mine");
    ck_str(fix_find_cred(&f, 1)->secret, "secret");
    ck_assert_int_eq(fix_find_cred(&f, 1)->token_expires_ms, 77);
    ck_assert_ptr_null(fix_find_cred(&f, 2));
    ck_assert_int_eq(set_token(1, "secret", ""), 0);
    ck_str(fix_find_cred(&f, 1)->token, "");
}
END_TEST

static void on_cred(void *arg, const struct cm_cred_row *row, const struct cm_err *err)
{
    int *answers = arg;

    ck_assert_ptr_null(err);
    if (row) {
        ck_assert_uint_eq(row->id, 1);
        ck_str(row->secret, "secret");
        ck_str(row->token, "new");
        *answers += 1;
    } else {
        *answers += 10;
    }
}

START_TEST(one_credential_is_read_again)
{
    struct cm_cred_row row = fix_cred(1, "secret"), change = row;
    int answers = 0;

    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    change.token = CM_S("new");
    cm_store_change(f.store, &(struct cm_change){.kind = CM_CHANGE_SET_TOKEN, .cred = &change}, 1,
                    NULL, NULL);
    cm_store_cred(f.store, 1, on_cred, &answers); /* behind that one */
    cm_store_cred(f.store, 9, on_cred, &answers);
    ck_assert_int_eq(answers, 0);
    ck_assert_int_eq(fix_flush(&f), 0);
    fix_run_ms(&f, 50);
    ck_assert_int_eq(answers, 11);
    cm_store_cred(f.store, 1, on_cred, &answers);
    fix_close(&f); /* answers before it is closed */
    ck_assert_int_eq(answers, 12);
}
END_TEST

START_TEST(secrets_are_not_in_the_files)
{
    static const char *const names[] = {"chatmux.db", "chatmux.db-wal"};
    struct cm_cred_row row = fix_cred(1, "sk-very-secret-one");

    row.token = CM_S("refreshed-token-two");
    row.proxy = CM_S("http://user:password-three@host");
    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    for (int i = 0; i < 3; i++) {
        const char *path = fix_path(&f, names[i % 2]);

        ck_assert(!fix_text_in_file(path, "sk-very-secret-one"));
        ck_assert(!fix_text_in_file(path, "refreshed-token-two"));
        ck_assert(!fix_text_in_file(path, "password-three"));
        if (i == 0)
            ck_assert(fix_text_in_file(fix_path(&f, "chatmux.db-wal"), "first account"));
        if (i == 1)
            reopen();
    }
}
END_TEST

START_TEST(keys_come_back_as_they_were)
{
    struct cm_key_row row = fix_key(9, "team");
    const struct cm_key_row *got;
    size_t n;

    row.models = CM_S("[\"gpt-4o\",\"openai/*\"]");
    row.rpm = 60;
    row.tpm = 100000;
    row.max_parallel = 4;
    row.budget_micro_usd = 5000000;
    row.expires_s = 1800000000;
    fix_open(&f);
    ck_assert_int_eq(fix_put_key(&f, &row), 0);
    reopen();
    got = fix_keys(&f, &n);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(got->id, 9);
    ck_assert(memcmp(got->digest, row.digest, sizeof(row.digest)) == 0);
    ck_str(got->name, "team");
    ck_str(got->hint, "abcd");
    ck_str(got->models, "[\"gpt-4o\",\"openai/*\"]");
    ck_str(got->budget_period, "month");
    ck_assert_int_eq(got->rpm, 60);
    ck_assert_int_eq(got->tpm, 100000);
    ck_assert_int_eq(got->max_parallel, 4);
    ck_assert_int_eq(got->budget_micro_usd, 5000000);
    ck_assert_int_eq(got->expires_s, 1800000000);
    ck_assert_int_eq(got->created_s, 1767225600);
    ck_assert(got->enabled);
    row.rpm = 0;
    row.enabled = false;
    ck_assert_int_eq(fix_put_key(&f, &row), 0);
    got = fix_keys(&f, &n);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(got->rpm, 0);
    ck_assert(!got->enabled);
    ck_assert_int_eq(fix_change(&f, &(struct cm_change){.kind = CM_CHANGE_DEL_KEY, .id = 9}, 1), 0);
    fix_keys(&f, &n);
    ck_assert_uint_eq(n, 0);
}
END_TEST

START_TEST(changes_come_together_or_not_at_all)
{
    struct cm_key_row one = fix_key(1, "one"), two = fix_key(2, "two");
    struct cm_cred_row cred = fix_cred(3, "secret");
    struct cm_change changes[] = {
        {.kind = CM_CHANGE_PUT_CRED, .cred = &cred},
        {.kind = CM_CHANGE_PUT_KEY, .key = &two},
    };
    size_t n;

    fix_open(&f);
    ck_assert_int_eq(fix_put_key(&f, &one), 0);
    memcpy(two.digest, one.digest, sizeof(two.digest)); /* the same key again */
    ck_assert_int_eq(fix_change(&f, changes, 2), -1);
    ck_assert_int_eq(f.err.cls, CM_ERR_BAD_REQUEST);
    ck_says("another key");
    ck_assert_ptr_null(cm_store_trouble(f.store)); /* the store is fine */
    ck_assert_ptr_null(fix_find_cred(&f, 3));
    fix_keys(&f, &n);
    ck_assert_uint_eq(n, 1);
    memset(two.digest, 2, sizeof(two.digest));
    ck_assert_int_eq(fix_change(&f, changes, 2), 0);
    ck_assert_ptr_nonnull(fix_find_cred(&f, 3));
}
END_TEST

START_TEST(counters_add_up_and_the_last_state_counts)
{
    struct cm_cred_row row = fix_cred(1, "secret");
    const struct cm_cred_row *got;

    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    for (int i = 1; i <= 10; i++) {
        cm_store_count(f.store, &(struct cm_cred_count){.id = 1,
                                                        .requests = 1,
                                                        .failures = i == 3,
                                                        .tokens_in = 100,
                                                        .tokens_out = 10,
                                                        .last_used_ms = 1000 + i});
        if (i == 5)
            ck_assert_int_eq(fix_flush(&f), 0);
    }
    cm_store_count(f.store,
                   &(struct cm_cred_count){.id = 99, .requests = 1}); /* no such credential */
    cm_store_state(f.store, 1, CM_S("cooling"), CM_S("rate_limited"), 5000, CM_S("{}"));
    cm_store_state(f.store, 1, CM_S("exhausted"), CM_S("quota"), 9000, CM_S("{\"left\":0}"));
    ck_assert_int_eq(fix_flush(&f), 0);
    got = fix_find_cred(&f, 1);
    ck_assert_int_eq(got->requests, 10);
    ck_assert_int_eq(got->failures, 1);
    ck_assert_int_eq(got->tokens_in, 1000);
    ck_assert_int_eq(got->tokens_out, 100);
    ck_assert_int_eq(got->last_used_ms, 1010);
    ck_str(got->state, "exhausted");
    ck_str(got->reason, "quota");
    ck_str(got->quota, "{\"left\":0}");
    ck_assert_int_eq(got->until_ms, 9000);
    ck_assert_ptr_null(fix_find_cred(&f, 99));
    cm_store_state(f.store, 1, CM_S("ok"), CM_S(""), 0, CM_S(""));
    reopen(); /* closing writes what is collected */
    ck_str(fix_find_cred(&f, 1)->state, "ok");
    cm_store_state(f.store, 1, CM_S("disabled"), CM_S(""), 0,
                   CM_S("")); /* newer than those before the restart */
    ck_assert_int_eq(fix_flush(&f), 0);
    ck_str(fix_find_cred(&f, 1)->state, "disabled");
}
END_TEST

static void count_in(int64_t month_ms)
{
    cm_store_count(f.store, &(struct cm_cred_count){.id = 1, .requests = 1, .month_ms = month_ms});
}

static void expect_month(int64_t month_ms, int64_t requests)
{
    const struct cm_cred_row *got = fix_find_cred(&f, 1);

    ck_assert_int_eq(got->month_ms, month_ms);
    ck_assert_int_eq(got->month_requests, requests);
}

START_TEST(a_month_is_counted_for_itself)
{
    struct cm_cred_row row = fix_cred(1, "secret");

    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    count_in(1000);
    count_in(0); /* a request that cost nothing */
    count_in(1000);
    ck_assert_int_eq(fix_flush(&f), 0);
    expect_month(1000, 2);
    count_in(1000);
    ck_assert_int_eq(fix_flush(&f), 0);
    expect_month(1000, 3);
    count_in(0);
    ck_assert_int_eq(fix_flush(&f), 0);
    expect_month(1000, 3);
    count_in(1000); /* the next month begins within a group */
    count_in(2000);
    count_in(2000);
    reopen();
    expect_month(2000, 2);
    ck_assert_int_eq(fix_find_cred(&f, 1)->requests, 8);

    count_in(2000); /* an edit leaves the count alone, but for another account */
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    ck_assert_int_eq(fix_flush(&f), 0);
    expect_month(2000, 3);
    count_in(2000);
    row.month_anew = true;
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    ck_assert_int_eq(fix_flush(&f), 0);
    expect_month(2000, 0);
    count_in(2000);
    ck_assert_int_eq(fix_flush(&f), 0);
    expect_month(2000, 1);
}
END_TEST

/* What the first release wrote. */
START_TEST(a_file_of_the_first_schema_is_brought_up_to_date)
{
    struct sq_schema first = sq_pool_schema;
    struct sq_file file = {0};
    const struct cm_cred_row *got;
    char path[128];

    first.n = 1;
    snprintf(path, sizeof(path), "%s/state", f.dir);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s", fix_path(&f, "chatmux.db"));
    close(open(path, O_CREAT | O_WRONLY, 0600));
    ck_assert_int_eq(sq_open(&file, path, &first, &f.err), 0);
    sq_close(&file);
    fix_sql(path, "INSERT INTO creds VALUES (7, 1, 0, 0, 1, 1, 0, 0, 11, 0, 0, 0, 0, 0, 'p', 'l', "
                  "'ok', '', '', x'', x'', x'')");
    fix_open(&f);
    got = fix_find_cred(&f, 7);
    ck_assert_ptr_nonnull(got);
    ck_assert_int_eq(got->requests, 11);
    ck_assert_int_eq(got->month_ms + got->month_requests + got->token_expires_ms, 0);
    cm_store_count(f.store, &(struct cm_cred_count){.id = 7, .requests = 1, .month_ms = 1000});
    ck_assert_int_eq(fix_flush(&f), 0);
    ck_assert_int_eq(fix_find_cred(&f, 7)->month_requests, 1);
}
END_TEST

START_TEST(an_older_state_never_overwrites_a_newer_row)
{
    struct cm_cred_row row = fix_cred(1, "secret");

    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    cm_store_state(f.store, 1, CM_S("cooling"), CM_S("old"), 5000, CM_S(""));
    row.state = CM_S("disabled");
    ck_assert_int_eq(fix_put_cred(&f, &row), 0); /* reaches the disk before the state above */
    ck_assert_int_eq(fix_flush(&f), 0);
    ck_str(fix_find_cred(&f, 1)->state, "disabled");
}
END_TEST

START_TEST(groups_are_written_within_half_a_second)
{
    struct cm_cred_row row = fix_cred(1, "secret");

    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    cm_store_count(f.store, &(struct cm_cred_count){.id = 1, .requests = 1});
    ck_assert_int_eq(fix_find_cred(&f, 1)->requests, 0);
    fix_run_ms(&f, 600);
    ck_assert_int_eq(fix_find_cred(&f, 1)->requests, 1);
}
END_TEST

/* ---- identifiers */

START_TEST(identifiers_are_never_given_twice)
{
    uint64_t last = 0;

    for (int round = 0; round < 3; round++) {
        fix_open(&f);
        for (int i = 0; i < 200; i++) {
            uint64_t id = cm_store_next_id(f.store);

            ck_quick(id == last + 1); /* and without gaps when the process ends well */
            last = id;
        }
        fix_close(&f);
    }
    fix_open(&f);
    fix_sql(fix_path(&f, "chatmux.db"), "DELETE FROM meta WHERE name='ids_below'");
    fix_close(&f);
    fix_sql(fix_path(&f, "chatmux.db"), "DELETE FROM meta WHERE name='ids_below'");
    fix_open(&f);
    ck_assert_uint_eq(cm_store_next_id(f.store), 1); /* nothing is stored: nothing is taken */
    fix_close(&f);
    fix_open(&f);
    {
        struct cm_key_row key = fix_key(5000, "far");

        ck_assert_int_eq(fix_put_key(&f, &key), 0);
    }
    reopen();
    ck_assert_uint_gt(cm_store_next_id(f.store), 5000);
}
END_TEST

/* ---- the master key */

START_TEST(a_wrong_master_key_is_told_at_start)
{
    struct cm_cred_row row = fix_cred(1, "secret");

    fix_open(&f);
    ck_assert_str_eq(cm_store_key_source(f.store), "store.master_key");
    ck_assert(!cm_store_key_is_ours(f.store));
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    fix_close(&f);
    f.setup.master_key = CM_S("not the master key of the tests");
    ck_assert(!fix_try(&f));
    ck_assert_int_eq(f.err.cls, CM_ERR_CONFIG);
    ck_says("chatmux.db");
    ck_says("store.master_key");
    ck_says("Lost with it: stored credentials");
    ck_says("Not lost: client keys, usage, request log, credentials of the configuration");
    f.setup.master_key = CM_S("too short");
    ck_assert(!fix_try(&f));
    ck_says("store.master_key: ");
    ck_says("openssl rand -hex 32");
    f.setup.master_key = CM_S(FIX_KEY);
    fix_open(&f);
    ck_str(fix_find_cred(&f, 1)->secret, "secret");
}
END_TEST

START_TEST(a_missing_key_file_is_not_made_anew)
{
    char moved[128];

    f.setup.master_key = CM_STR_NONE;
    fix_open(&f);
    fix_close(&f);
    snprintf(moved, sizeof(moved), "%s/away", f.dir);
    ck_assert_int_eq(rename(fix_path(&f, "master.key"), moved), 0);
    ck_assert(!fix_try(&f));
    ck_says("master.key");
    ck_says("Not lost: client keys");
    ck_assert_int_eq(access(fix_path(&f, "master.key"), F_OK), -1);
    ck_assert_int_eq(rename(moved, fix_path(&f, "master.key")), 0);
    fix_open(&f);
}
END_TEST

static void write_text(const char *path, const char *text)
{
    FILE *out = fopen(path, "w");

    ck_assert_ptr_nonnull(out);
    fputs(text, out);
    fclose(out);
    chmod(path, 0600);
}

START_TEST(the_key_comes_from_a_file_or_from_systemd)
{
    struct cm_cred_row row = fix_cred(1, "secret");
    char path[128];

    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    fix_close(&f);
    snprintf(path, sizeof(path), "%s/chatmux-master-key", f.dir);
    write_text(path, "  " FIX_KEY "\n");

    f.setup.master_key = CM_STR_NONE;
    f.setup.master_key_file = cm_str_of(path);
    fix_open(&f);
    ck_str(fix_find_cred(&f, 1)->secret, "secret");
    ck_assert_str_eq(cm_store_key_source(f.store), path);
    ck_assert(cm_store_key_is_ours(f.store));
    fix_close(&f);

    f.setup.master_key_file = CM_STR_NONE;
    setenv("CREDENTIALS_DIRECTORY", f.dir, 1);
    fix_open(&f);
    ck_str(fix_find_cred(&f, 1)->secret, "secret");
    ck_assert_str_eq(cm_store_key_source(f.store), path);
    ck_assert(!cm_store_key_is_ours(f.store));
    ck_assert_int_eq(fix_rekey(&f, ""), -1);
    ck_says("chatmux-master-key");
    fix_close(&f);
    unlink(path);
    ck_assert(!fix_try(&f)); /* falls back to the file beside the database, which is not there */
    ck_says("master.key");
    unsetenv("CREDENTIALS_DIRECTORY");

    f.setup.master_key_file = cm_str_of(path);
    ck_assert(!fix_try(&f));
    ck_says("cannot read");
    write_text(path, "short");
    ck_assert(!fix_try(&f));
    ck_says(path);
}
END_TEST

START_TEST(values_cannot_change_places)
{
    struct cm_cred_row one = fix_cred(1, "secret one"), two = fix_cred(2, "secret two");
    struct cm_cred_row three = fix_cred(3, "secret three");
    const struct cm_cred_row *got;
    char *path = cm_strdup(fix_path(&f, "chatmux.db"));

    two.from_config = true;
    three.token = CM_S("token three");
    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &one), 0);
    ck_assert_int_eq(fix_put_cred(&f, &two), 0);
    ck_assert_int_eq(fix_put_cred(&f, &three), 0);
    fix_close(&f);
    fix_sql(path, "CREATE TEMP TABLE t AS SELECT id, secret FROM creds;"
                  "UPDATE creds SET secret=(SELECT t.secret FROM t WHERE t.id=3-creds.id)"
                  " WHERE id<3");
    fix_sql(path, "UPDATE creds SET token=secret WHERE id=3");
    fix_open(&f);
    got = fix_find_cred(&f, 1);
    ck_assert(got->damaged && !got->enabled);
    ck_str(got->secret, "");
    ck_str(got->state, "disabled");
    ck_str(got->reason, "damaged_secret");
    got = fix_find_cred(&f, 2);
    ck_assert(got->damaged && got->enabled); /* the configuration brings its secret again */
    ck_str(got->secret, "");
    got = fix_find_cred(&f, 3);
    ck_assert(got->damaged);
    ck_str(got->secret, "secret three");
    ck_str(got->token, "");
    ck_assert_int_eq(fix_put_cred(&f, &one), 0); /* entered again */
    ck_str(fix_find_cred(&f, 1)->secret, "secret one");
    ck_assert(!fix_find_cred(&f, 1)->damaged);
    free(path);
}
END_TEST

/* ---- rekey */

START_TEST(rekey_encrypts_everything_anew)
{
    struct cm_cred_row row = fix_cred(1, "secret");
    size_t n;

    row.token = CM_S("token");
    fix_open(&f);
    for (row.id = 1; row.id <= 50; row.id++)
        ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    ck_assert_int_eq(fix_rekey(&f, "short"), -1);
    ck_assert_int_eq(f.err.cls, CM_ERR_BAD_REQUEST);
    ck_assert_int_eq(fix_rekey(&f, "another master key altogether"), 0);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0); /* with the new one from now on */
    ck_str(fix_find_cred(&f, 51)->secret, "secret");
    fix_close(&f);
    ck_assert(!fix_try(&f));
    f.setup.master_key = CM_S("another master key altogether");
    fix_open(&f);
    fix_creds(&f, &n);
    ck_assert_uint_eq(n, 51);
    for (uint64_t id = 1; id <= 51; id++) {
        ck_str(fix_find_cred(&f, id)->secret, "secret");
        ck_str(fix_find_cred(&f, id)->token, "token");
    }
}
END_TEST

START_TEST(a_key_file_of_ours_is_replaced)
{
    struct cm_cred_row row = fix_cred(1, "secret");

    f.setup.master_key = CM_STR_NONE;
    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    ck_assert_int_eq(fix_rekey(&f, ""), 0);
    reopen();
    ck_str(fix_find_cred(&f, 1)->secret, "secret");
    ck_assert_int_eq(mode_of(fix_path(&f, "master.key")), 0600);
    ck_assert_int_eq(access(fix_path(&f, "master.key.new"), F_OK), -1);
    ck_assert_int_eq(fix_rekey(&f, "words that the operator chose"), 0);
    ck_assert(fix_text_in_file(fix_path(&f, "master.key"), "words that the operator chose"));
    reopen();
    ck_str(fix_find_cred(&f, 1)->secret, "secret");
}
END_TEST

START_TEST(a_crash_between_database_and_key_file_is_mended)
{
    struct cm_cred_row row = fix_cred(1, "secret");

    f.setup.master_key = CM_STR_NONE;
    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    fix_close(&f);
    /* As it stands when the database has the new key and the rename has not been done. */
    ck_assert_int_eq(rename(fix_path(&f, "master.key"), fix_path(&f, "master.key.new")), 0);
    write_text(fix_path(&f, "master.key"), "the key from before the change\n");
    fix_open(&f);
    ck_str(fix_find_cred(&f, 1)->secret, "secret");
    ck_assert_int_eq(access(fix_path(&f, "master.key.new"), F_OK), -1);
    fix_close(&f);
    /* And when only the new file was written. */
    write_text(fix_path(&f, "master.key.new"), "the key after the change\n");
    fix_open(&f);
    ck_str(fix_find_cred(&f, 1)->secret, "secret");
}
END_TEST

/* ---- backup */

static void on_backup(void *arg, const struct cm_err *err)
{
    *(int *)arg = err ? -1 : 1;
}

START_TEST(a_backup_is_consistent_and_can_be_restored)
{
    struct cm_cred_row row = fix_cred(1, "secret");
    char copy[128], label[9000];
    int done = 0;
    size_t n;

    snprintf(copy, sizeof(copy), "%s/copy.db", f.dir);
    memset(label, 'x', sizeof(label)); /* many pages: many steps */
    row.quota = cm_str(label, sizeof(label));
    fix_open(&f);
    for (row.id = 1; row.id <= 300; row.id++)
        ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    cm_store_backup(f.store, cm_str_of(copy), on_backup, &done);
    while (done == 0) { /* others write between the steps */
        ck_assert_int_eq(fix_put_cred(&f, &row), 0);
        row.id++;
    }
    ck_assert_int_eq(done, 1);
    ck_assert_uint_gt(row.id, 302);
    ck_assert_int_eq(mode_of(copy), 0600);
    ck_assert_int_eq(
        fix_number(copy, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check<>'ok'"),
        0);
    ck_assert_int_ge(fix_number(copy, "SELECT count(*) FROM creds"), 300);

    ck_assert_int_eq(fix_backup(&f, copy), -1);
    ck_assert_int_eq(f.err.cls, CM_ERR_BAD_REQUEST);
    ck_says("there already");
    ck_assert_int_eq(fix_number(copy, "SELECT count(*) FROM creds WHERE id=1"), 1); /* untouched */
    ck_assert_int_eq(fix_backup(&f, "/nowhere/copy.db"), -1);
    ck_says("/nowhere/copy.db");
    fix_close(&f);

    unlink(fix_path(&f, "chatmux.db"));
    unlink(fix_path(&f, "chatmux.db-wal"));
    ck_assert_int_eq(rename(copy, fix_path(&f, "chatmux.db")), 0);
    fix_open(&f);
    fix_creds(&f, &n);
    ck_assert_uint_ge(n, 300);
    ck_str(fix_find_cred(&f, 300)->secret, "secret");
}
END_TEST

START_TEST(closing_gives_up_a_backup)
{
    struct cm_cred_row row = fix_cred(1, "secret");
    char copy[128], label[9000];
    int done = 0;

    snprintf(copy, sizeof(copy), "%s/copy.db", f.dir);
    memset(label, 'x', sizeof(label));
    row.quota = cm_str(label, sizeof(label));
    fix_open(&f);
    for (row.id = 1; row.id <= 200; row.id++)
        ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    cm_store_backup(f.store, cm_str_of(copy), on_backup, &done);
    fix_close(&f);
    ck_assert_int_eq(done, -1);
    ck_assert_int_eq(access(copy, F_OK), -1);
}
END_TEST

/* ---- what cannot be opened */

START_TEST(a_newer_schema_is_refused)
{
    fix_open(&f);
    fix_close(&f);
    fix_sql(fix_path(&f, "chatmux.db"), "PRAGMA user_version=99");
    ck_assert(!fix_try(&f));
    ck_assert_int_eq(f.err.cls, CM_ERR_CONFIG);
    ck_says("newer chatmux (schema 99");
    ck_says("chatmux.db");
}
END_TEST

START_TEST(another_programs_database_is_refused)
{
    ck_assert_int_eq(mkdir(f.state, 0700), 0);
    close(open(fix_path(&f, "chatmux.db"), O_CREAT | O_WRONLY, 0600));
    fix_sql(fix_path(&f, "chatmux.db"), "CREATE TABLE songs (id)");
    ck_assert(!fix_try(&f));
    ck_says("another program");
    ck_assert_int_eq(fix_number(fix_path(&f, "chatmux.db"), "SELECT count(*) FROM sqlite_schema"),
                     1);
}
END_TEST

START_TEST(a_broken_file_is_told)
{
    struct cm_cred_row row = fix_cred(1, "secret");
    char noise[4096];
    int fd;

    fix_open(&f);
    for (row.id = 1; row.id <= 200; row.id++)
        ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    fix_close(&f);
    fd = open(fix_path(&f, "chatmux.db"), O_WRONLY);
    memset(noise, 0xa5, sizeof(noise));
    ck_assert_int_eq(pwrite(fd, noise, sizeof(noise), 4096L * 6), (ssize_t)sizeof(noise));
    ck_assert(!fix_try(&f));
    ck_assert_int_eq(f.err.cls, CM_ERR_IO);
    ck_says("damaged");
    ck_says("backup");
    ck_assert_int_eq(pwrite(fd, noise, sizeof(noise), 0), (ssize_t)sizeof(noise));
    ck_assert(!fix_try(&f));
    ck_says("chatmux.db is damaged or no SQLite database");
    close(fd);
}
END_TEST

/* A page that nothing reads before the first request that needs it. */
START_TEST(damage_is_found_at_start)
{
    struct cm_key_row row = fix_key(1, "team");
    char noise[4096];
    int64_t page;
    int fd;

    fix_open(&f);
    ck_assert_int_eq(fix_put_key(&f, &row), 0);
    fix_close(&f);
    page = fix_number(fix_path(&f, "chatmux.db"),
                      "SELECT rootpage FROM sqlite_schema WHERE name='sqlite_autoindex_keys_1'");
    ck_assert_int_gt(page, 1);
    fd = open(fix_path(&f, "chatmux.db"), O_WRONLY);
    memset(noise, 0xa5, sizeof(noise));
    ck_assert_int_eq(pwrite(fd, noise, sizeof(noise), (page - 1) * 4096), (ssize_t)sizeof(noise));
    close(fd);
    ck_assert(!fix_try(&f));
    ck_says("damaged");
}
END_TEST

START_TEST(directories_that_cannot_be_written_are_told)
{
    if (geteuid() != 0)
        return; /* becoming somebody else takes root */
    fix_open(&f);
    fix_close(&f);
    chmod(f.state, 0555);
    ck_assert_int_eq(chown(fix_path(&f, "chatmux.db"), 65534, 65534), 0);
    ck_assert_int_eq(seteuid(65534), 0);
    ck_assert(!fix_try(&f));
    ck_says(f.state);
    ck_says("state_dir");
    f.setup.state_dir = cm_arena_printf(&f.arena, "%s/new", f.dir); /* its parent is ours */
    ck_assert(!fix_try(&f));
    ck_says("cannot make the directory");
    ck_assert_int_eq(seteuid(0), 0);
    f.setup.state_dir = cm_arena_printf(&f.arena, "%s/chatmux.db/below", f.state);
    ck_assert(!fix_try(&f));
    f.setup.state_dir = cm_arena_printf(&f.arena, "%s/chatmux.db", f.state);
    ck_assert(!fix_try(&f));
    ck_says("not a directory");
}
END_TEST

START_TEST(a_locked_file_is_told)
{
    sqlite3 *other;

    fix_open(&f);
    fix_close(&f);
    other = fix_raw(fix_path(&f, "chatmux.db"));
    ck_assert_int_eq(
        sqlite3_exec(other, "PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE", NULL, NULL, NULL),
        SQLITE_OK);
    ck_assert(!fix_try(&f));
    ck_says("locked by another program");
    sqlite3_close(other);
    fix_open(&f);
}
END_TEST

/* ---- migrations */

static const char *const steps_one[] = {"CREATE TABLE a (x INTEGER) STRICT"};
static const char *const steps_two[] = {"CREATE TABLE a (x INTEGER) STRICT",
                                        "ALTER TABLE a ADD COLUMN y INTEGER; UPDATE a SET y=x+1"};
static const char *const steps_bad[] = {
    "CREATE TABLE a (x INTEGER) STRICT", "ALTER TABLE a ADD COLUMN y INTEGER; UPDATE a SET y=x+1",
    "CREATE TABLE b (z INTEGER) STRICT; DELETE FROM a; INSERT INTO nowhere VALUES (1)"};

START_TEST(migrations_go_forward_step_by_step)
{
    struct sq_schema one = {steps_one, 1, 77}, two = {steps_two, 2, 77}, bad = {steps_bad, 3, 77};
    struct sq_file file = {0};
    char path[128];

    snprintf(path, sizeof(path), "%s/m.db", f.dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    ck_assert_int_eq(sq_open(&file, path, &one, &f.err), 0);
    sq_close(&file);
    fix_sql(path, "INSERT INTO a VALUES (1)");
    ck_assert_int_eq(fix_number(path, "PRAGMA user_version"), 1);
    ck_assert_int_eq(sq_open(&file, path, &two, &f.err), 0);
    sq_close(&file);
    ck_assert_int_eq(fix_number(path, "PRAGMA user_version"), 2);
    ck_assert_int_eq(fix_number(path, "SELECT y FROM a"), 2);
    ck_assert_int_eq(sq_open(&file, path, &bad, &f.err), -1); /* leaves nothing half done */
    ck_says("nowhere");
    ck_assert_int_eq(fix_number(path, "PRAGMA user_version"), 2);
    ck_assert_int_eq(fix_number(path, "SELECT count(*) FROM a"), 1);
    ck_assert_int_eq(fix_number(path, "SELECT count(*) FROM sqlite_schema"), 1);
    ck_assert_int_eq(sq_open(&file, path, &one, &f.err), -1);
    ck_says("newer");
}
END_TEST

/* ---- closing */

static int closed;

static void on_close_done(void *arg, const struct cm_err *err)
{
    ck_assert_int_eq(closed, 0);
    *(int *)arg = err ? -1 : 1;
}

START_TEST(closing_answers_everybody_first)
{
    struct cm_cred_row row = fix_cred(1, "secret");
    int change = 0, flush = 0, second = 0;

    fix_open(&f);
    cm_store_count(f.store, &(struct cm_cred_count){.id = 1, .requests = 1});
    cm_store_change(f.store, &(struct cm_change){.kind = CM_CHANGE_PUT_CRED, .cred = &row}, 1,
                    on_close_done, &change);
    cm_store_flush(f.store, on_close_done, &flush);
    cm_store_flush(f.store, on_close_done, &second); /* waits for the one before */
    cm_store_log(f.store, &(struct cm_request_row){.at_ms = f.now_ms, .provider = CM_S("p")});
    fix_close(&f);
    closed = 1;
    ck_assert_int_eq(change, 1);
    ck_assert_int_eq(flush, 1);
    ck_assert_int_eq(second, 1);
    ck_assert_int_eq(
        fix_number(fix_path(&f, "requests-2026-01-01.db"), "SELECT count(*) FROM requests"), 1);
    closed = flush = second = 0;
    fix_open(&f);
    cm_store_flush(f.store, on_close_done, &flush);
    cm_store_flush(f.store, on_close_done, &second); /* with nothing to write */
    fix_close(&f);
    ck_assert_int_eq(second, 1);
}
END_TEST

START_TEST(lanes_that_end_first_lose_nothing_twice)
{
    struct cm_cred_row row = fix_cred(1, "secret");
    int change = 0;

    closed = 0;
    fix_open(&f);
    cm_store_log(f.store, &(struct cm_request_row){.at_ms = f.now_ms});
    cm_store_change(f.store, &(struct cm_change){.kind = CM_CHANGE_PUT_CRED, .cred = &row}, 1,
                    on_close_done, &change);
    cm_store_close(f.store, NULL, NULL);
    f.store = NULL;
    cm_jobs_close(f.jobs); /* answers, and frees the store */
    cm_loop_free(f.loop);
    ck_assert_int_ne(change, 0);
}
END_TEST

Suite *suite_store(void)
{
    Suite *s = suite_create("store");
    TCase *t = tcase_create("store");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, the_first_start_makes_private_files);
    tcase_add_test(t, urls);
    tcase_add_test(t, credentials_come_back_as_they_were);
    tcase_add_test(t, a_token_is_set_alone_and_for_its_own_secret);
    tcase_add_test(t, one_credential_is_read_again);
    tcase_add_test(t, secrets_are_not_in_the_files);
    tcase_add_test(t, keys_come_back_as_they_were);
    tcase_add_test(t, changes_come_together_or_not_at_all);
    tcase_add_test(t, counters_add_up_and_the_last_state_counts);
    tcase_add_test(t, a_month_is_counted_for_itself);
    tcase_add_test(t, a_file_of_the_first_schema_is_brought_up_to_date);
    tcase_add_test(t, an_older_state_never_overwrites_a_newer_row);
    tcase_add_test(t, groups_are_written_within_half_a_second);
    tcase_add_test(t, identifiers_are_never_given_twice);
    tcase_add_test(t, a_wrong_master_key_is_told_at_start);
    tcase_add_test(t, a_missing_key_file_is_not_made_anew);
    tcase_add_test(t, the_key_comes_from_a_file_or_from_systemd);
    tcase_add_test(t, values_cannot_change_places);
    tcase_add_test(t, rekey_encrypts_everything_anew);
    tcase_add_test(t, a_key_file_of_ours_is_replaced);
    tcase_add_test(t, a_crash_between_database_and_key_file_is_mended);
    tcase_add_test(t, a_backup_is_consistent_and_can_be_restored);
    tcase_add_test(t, closing_gives_up_a_backup);
    tcase_add_test(t, a_newer_schema_is_refused);
    tcase_add_test(t, another_programs_database_is_refused);
    tcase_add_test(t, a_broken_file_is_told);
    tcase_add_test(t, damage_is_found_at_start);
    tcase_add_test(t, directories_that_cannot_be_written_are_told);
    tcase_add_test(t, a_locked_file_is_told);
    tcase_add_test(t, migrations_go_forward_step_by_step);
    tcase_add_test(t, closing_answers_everybody_first);
    tcase_add_test(t, lanes_that_end_first_lose_nothing_twice);
    suite_add_tcase(s, t);
    return s;
}
