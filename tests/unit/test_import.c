/* import: rows out of dumps and SQLite files, and what is taken from them. */
#include "chatmux/import/import.h"
#include "unit.h"

#include "fixture.h"
#include "import/import_int.h"

#include "chatmux/base/mem.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define COOKIE(a) "__Secure-next-auth.session-token=eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0.." a

#define NAME(a) a "a094f0234e57c28bf9067e199f703af80da434988e83afd0e5278ef1318350"

static struct cm_import im;
static struct cm_err err;
static char path[] = "/tmp/chatmux-import-XXXXXX";

static void setup(void)
{
    int fd;

    memcpy(path + sizeof(path) - 7, "XXXXXX", 6); /* the one before has replaced them */
    fd = mkstemp(path);
    ck_assert(fd >= 0);
    close(fd);
    setenv("TZ", "Asia/Shanghai", 1);
}

static void teardown(void)
{
    cm_import_clear(&im);
    unlink(path);
}

static int read_text(struct cm_str text)
{
    FILE *f = fopen(path, "w");

    ck_assert(f && fwrite(text.p, 1, text.n, f) == text.n && fclose(f) == 0);
    cm_import_clear(&im);
    err = (struct cm_err){0};
    return cm_import_hixai2api(&im, path, &err);
}

static void take(const char *text)
{
    ck_assert_msg(read_text(cm_str_of(text)) == 0, "%s", err.msg);
}

static void refuse(const char *text, const char *part)
{
    ck_assert_int_eq(read_text(cm_str_of(text)), -1);
    ck_assert_msg(strstr(err.msg, part), "\"%s\" lacks \"%s\"", err.msg, part);
    ck_assert_uint_eq(im.n_keys + im.n_creds, 0);
}

START_TEST(a_dump_of_mysql)
{
    char *text = fixture("seed/hixai2api.sql");

    take(text);
    ck_assert_str_eq(im.type, "hix");
    ck_assert_uint_eq(im.n_keys, 2);
    ck_str(im.keys[0].secret, "sk-old-one-4711");
    ck_str(im.keys[0].name, "team 'a', (b); 世");
    ck_assert_int_eq(im.keys[0].created_s, 1740794400); /* 10:00 in Shanghai */
    ck_str(im.keys[1].secret, "sk-old-two-4711");
    ck_assert_uint_eq(im.keys[1].name.n, 0);
    ck_assert_uint_eq(im.n_creds, 2);
    ck_str(im.creds[0].secret,
           COOKIE("aaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbb.cccccccccccccccccccccc"));
    ck_str(im.creds[0].label, "first");
    ck_str(im.creds[1].secret,
           COOKIE("dddddddddddddddd.eeeeeeeeeeeeeeeeeeeeeeee.ffffffffffffffffffffff"));
    ck_str(im.creds[1].label, "世");
    ck_assert_uint_eq(im.n_chats, 1);
    ck_str(im.chats[0].secret, "__Secure-next-auth.session-token=x");
    ck_str(im.chats[0].model, "gpt-4o");
    ck_str(im.chats[0].name, NAME("86"));
    ck_str(im.chats[0].chat, "chat-1");
    ck_assert_int_eq(im.chats[0].used_s, 1740794400);
    ck_assert_uint_eq(im.unusable, 2);
    free(text);
}
END_TEST

/* A dump that was cut is refused, or gives what stands before the cut; never something else. */
START_TEST(a_dump_cut_at_every_byte)
{
    char *text = fixture("seed/hixai2api.sql");
    struct cm_str whole = cm_str_of(text);
    size_t refused = 0;

    for (size_t n = 0; n < whole.n; n++) {
        if (read_text(cm_str_head(whole, n)) < 0) {
            refused++;
            ck_quick(err.msg[0]);
            continue;
        }
        ck_quick(im.n_keys <= 2 && im.n_creds <= 2 && im.n_chats <= 1);
        for (size_t i = 0; i < im.n_keys; i++)
            ck_quick(im.keys[i].secret.n == strlen("sk-old-one-4711"));
    }
    ck_assert_uint_gt(refused, 100);
    free(text);
}
END_TEST

START_TEST(other_spellings)
{
    take("INSERT INTO `db`.`api_keys` (`id`, `api_key`) VALUES (1,'a'),\n (2 , \"b\"\"c\" );");
    ck_assert_uint_eq(im.n_keys, 2);
    ck_str(im.keys[1].secret, "b\"c");
    take("replace into api_keys(api_key, remark) value ('it''s', N'x');");
    ck_str(im.keys[0].secret, "it's");
    ck_str(im.keys[0].name, "x");
    take("insert ignore into [api_keys] (API_KEY) values (X'6b6579'), (concat('a', ')')), (0x6B);");
    ck_assert_uint_eq(im.n_keys, 2);
    ck_str(im.keys[0].secret, "key");
    ck_str(im.keys[1].secret, "k");
    ck_assert_uint_eq(im.unusable, 1);
    /* sqlite3 .dump: texts without escapes */
    take(
        "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n"
        "CREATE TABLE \"api_keys\" (`id` varchar(64), `api_key` varchar(255), PRIMARY KEY (`id`));\n"
        "INSERT INTO api_keys VALUES('1','back\\slash\\');\nCOMMIT;\n");
    ck_str(im.keys[0].secret, "back\\slash\\");
    take(
        "\xEF\xBB\xBF# a comment; 'of one line\nINSERT INTO api_keys (api_key) VALUES ('\\\\n\\n\\%');");
    ck_str(im.keys[0].secret, "\\n\n%");
}
END_TEST

/* Which of its rows are conversations that can go on, and in which order. */
START_TEST(chats)
{
#define CHATS                                                                                      \
    "INSERT INTO chats (cookie, cookie_hash, model, hix_chat_id, last_messages_pair_sha256_hash, " \
    "update_time, create_time) VALUES "
    take(CHATS "('c1', '', 'm', 'late', '" NAME(
        "01") "', '2025-03-03 10:00:00', '2025-03-01 10:00:00'),"
              "('c1', '', 'm', 'soon', '" NAME(
                  "02") "', NULL, '2025-03-02 10:00:00'),"
                        "(NULL, 'h2', 'm-news', 'by-hash', '" NAME(
                            "03") "', NULL, NULL),"
                                  "(NULL, 'h3', 'm', 'nobody', '" NAME(
                                      "04") "', NULL, NULL),"
                                            "('c1', '', 'm', 'soon', '" NAME(
                                                "05") "', NULL, '2025-03-01 10:00:00'),"
                                                      "('c1', '', 'm', 'twin-1', '" NAME(
                                                          "06") "', NULL, NULL),"
                                                                "('c2', '', 'm', 'twin-2', '" NAME(
                                                                    "06") "', NULL, NULL),"
                                                                          "('c2', '', 'm', 'twin-3', '" NAME(
                                                                              "06") "', NULL, NULL),"
                                                                                    "('c2', '', 'n', 'no-twin', '" NAME(
                                                                                        "06") "', '2025-03-04 10:00:00', NULL),"
                                                                                              "('c1', '', '', 'x', '" NAME(
                                                                                                  "07") "', NULL, NULL),"
                                                                                                        "('c1', '', 'm', NULL, '" NAME(
                                                                                                            "07") "', NULL, NULL),"
                                                                                                                  "('c1', '', 'm', 'two words', '" NAME(
                                                                                                                      "07") "', NULL, NULL),"
                                                                                                                            "('c1', '', 'm', 'x', '" NAME(
                                                                                                                                "0G") "', NULL, NULL),"
                                                                                                                                      "('c1', '', 'm', 'x', 'abc', NULL, NULL);"
                                                                                                                                      "INSERT INTO cookies (cookie, cookie_hash) VALUES (' c2 ', 'h2');");
    ck_assert_uint_eq(im.n_chats, 4);
    ck_str(im.chats[0].chat, "by-hash");
    ck_str(im.chats[0].secret, "c2");
    ck_str(im.chats[0].model, "m");
    ck_str(im.chats[1].chat, "soon");
    ck_str(im.chats[1].name, NAME("02"));
    ck_str(im.chats[2].chat, "late");
    ck_str(im.chats[3].chat, "no-twin");
    ck_assert_ptr_eq(im.chats[0].secret.p, im.chats[3].secret.p);
    ck_assert_uint_eq(im.unclear, 3);
    ck_assert_uint_eq(im.unusable, 6);
    ck_assert_uint_eq(im.n_creds, 1);
}
END_TEST

START_TEST(times)
{
    static const struct {
        const char *text;
        int64_t at;
    } cases[] = {
        {"2025-03-01 10:00:00", 1740794400},
        {"2025-03-01 10:00:00.123", 1740794400},
        {"2025-03-01 10:00:00.123+08:00", 1740794400},
        {"2025-03-01T02:00:00Z", 1740794400},
        {"2025-03-01 02:00:00 +0000", 1740765600},
        {"2025-02-28 20:30:00-05:30", 1740794400},
        {"0000-00-00 00:00:00", 0},
        {"soon", 0},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        char sql[256];

        snprintf(sql, sizeof(sql),
                 "INSERT INTO api_keys (api_key, create_time) VALUES ('k', '%s');", cases[i].text);
        take(sql);
        if (strstr(cases[i].text, "+0000"))
            continue; /* no colon: not written by that system, read as local */
        ck_assert_msg(im.keys[0].created_s == cases[i].at, "%s: %lld", cases[i].text,
                      (long long)im.keys[0].created_s);
    }
}
END_TEST

START_TEST(what_cannot_be_read_is_told)
{
    refuse("", "empty");
    refuse("SELECT 1;", "nothing of hixai2api");
    refuse("CREATE TABLE api_keys (id int);\n\nINSERT INTO api_keys VALUES (1,2);", "line 3");
    refuse("INSERT INTO api_keys VALUES (1,2);", "--complete-insert");
    refuse("INSERT INTO api_keys (api_key) VALUES ('a", "is cut");
    refuse("INSERT INTO api_keys (api_key) VALUES ('a', ", "is cut");
    refuse("\x1f\x8b..", "gunzip");
    refuse("\xff\xfe..", "UTF-16");
    refuse("SQLite format 3 and then not", "not a database");
    ck_assert_int_eq(cm_import_hixai2api(&im, "/tmp", &err), -1);
    ck_assert_int_eq(cm_import_hixai2api(&im, "/no/such/file", &err), -1);
    ck_assert(strstr(err.msg, "No such file"));
}
END_TEST

START_TEST(a_file_of_sqlite)
{
    sqlite3 *db;

    unlink(path);
    ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
    ck_assert_int_eq(
        sqlite3_exec(
            db,
            "CREATE TABLE api_keys (id varchar(64) PRIMARY KEY, api_key varchar(255), remark varchar(900), create_time datetime);"
            "CREATE TABLE cookies (id varchar(64) PRIMARY KEY, cookie text, credit bigint, remark varchar(900), create_time datetime);"
            "INSERT INTO api_keys VALUES ('1', 'sk-it''s', NULL, '2025-03-01 10:00:00.5+08:00');"
            "INSERT INTO cookies VALUES ('2', '" COOKIE(
                "a.b.c") "', 7, 'mine', NULL), ('3', NULL, 0, '', NULL);",
            NULL, NULL, NULL),
        SQLITE_OK);
    ck_assert_int_eq(sqlite3_close(db), SQLITE_OK);
    ck_assert_msg(cm_import_hixai2api(&im, path, &err) == 0, "%s", err.msg);
    ck_assert_uint_eq(im.n_keys, 1);
    ck_str(im.keys[0].secret, "sk-it's");
    ck_assert_int_eq(im.keys[0].created_s, 1740794400);
    ck_assert_uint_eq(im.n_creds, 1);
    ck_str(im.creds[0].secret, COOKIE("a.b.c"));
    ck_str(im.creds[0].label, "mine");
    ck_assert_uint_eq(im.n_chats, 0);
    ck_assert_uint_eq(im.unusable, 1);
}
END_TEST

Suite *suite_import(void)
{
    Suite *s = suite_create("import");
    TCase *t = tcase_create("import");

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_dump_of_mysql);
    tcase_add_test(t, a_dump_cut_at_every_byte);
    tcase_add_test(t, other_spellings);
    tcase_add_test(t, chats);
    tcase_add_test(t, times);
    tcase_add_test(t, what_cannot_be_read_is_told);
    tcase_add_test(t, a_file_of_sqlite);
    return s;
}
