/* The store when the machine dies or the disk refuses: what was acknowledged survives, and no file is ever broken. */
#include "store_fixture.h"
#include "test_vfs.h"
#include "unit.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define DAY INT64_C(86400000)
#define CREDS 12
#define CUTS 100
#define KILLS 25

static struct fix f;

/* What the dying process had been told; in memory that outlives it. */
static struct promises {
    int cred;    /* the credentials 1 to this one are there */
    int token;   /* credential 1 has this token or a later one */
    int rows;    /* so many rows of the log are there */
    int started; /* rows given to the log */
    uint64_t id; /* the last identifier that became part of a durable row */
} *promised;

static uint64_t seed_of_run(void)
{
    const char *given = getenv("SEED");
    uint64_t seed;

    cm_rand_bytes(&seed, sizeof(seed));
    if (given)
        seed = strtoull(given, NULL, 10);
    fprintf(stderr, "SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static void setup(void)
{
    struct cm_log_setup quiet = {.fd = 2, .level = CM_LOG_ERROR};

    promised =
        mmap(NULL, sizeof(*promised), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(promised, MAP_FAILED);
    if (!getenv("V"))
        quiet.fd = -1;
    cm_log_setup(&quiet);
}

static const char *secret_of(uint64_t id)
{
    static char text[32];

    snprintf(text, sizeof(text), "secret of %llu", (unsigned long long)id);
    return text;
}

static void put_token(int token)
{
    struct cm_cred_row row = fix_cred(1, secret_of(1));
    char text[32];

    snprintf(text, sizeof(text), "%d", token);
    row.token = cm_str_of(text);
    if (fix_put_cred(&f, &row) < 0)
        return;
    promised->token = token;
    if (promised->cred < 1)
        promised->cred = 1;
}

/* What a gateway does in a day, and in the first minutes of the next. */
static void work(int rounds)
{
    for (int i = 1; i <= rounds; i++) {
        uint64_t id = cm_store_next_id(f.store);
        struct cm_cred_row row = fix_cred(id, secret_of(id));

        if (fix_put_cred(&f, &row) == 0) {
            promised->cred = (int)id;
            promised->id = id;
        }
        for (int k = 0; k < 3; k++) {
            struct cm_request_row r = fix_row(f.now_ms + (i > rounds / 2 ? DAY : 0), "req");

            promised->started++;
            cm_store_log(f.store, &r);
            cm_store_count(f.store, &(struct cm_cred_count){.id = id, .requests = 1});
        }
        cm_store_state(f.store, id, CM_S("cooling"), CM_S("x"), 1, CM_S(""));
        if (i % 3 == 0 && fix_flush(&f) == 0)
            promised->rows = promised->started;
        if (i % 2 == 0)
            put_token(i);
    }
}

static void check_files(void)
{
    DIR *d = opendir(f.state);
    struct dirent *entry;

    ck_assert_ptr_nonnull(d);
    while ((entry = readdir(d)))
        if (cm_str_ends(cm_str_of(entry->d_name), CM_S(".db")))
            ck_assert_msg(
                fix_number(
                    fix_path(&f, entry->d_name),
                    "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check<>'ok'") == 0,
                "%s is broken", entry->d_name);
    closedir(d);
}

/* After the next start; `round` for the message. */
static void check_promises(const char *round)
{
    struct cm_usage_row *usage;
    struct cm_request_row *rows;
    int64_t token = 0, sum = 0, cost = 0;
    size_t n, n_rows;

    ck_assert_msg(fix_try(&f), "%s: %s", round, f.err.msg);
    for (int id = 1; id <= promised->cred; id++) {
        const struct cm_cred_row *row = fix_find_cred(&f, (uint64_t)id);

        ck_assert_msg(row && !row->damaged &&
                          cm_str_eq(row->secret, cm_str_of(secret_of((uint64_t)id))),
                      "%s: credential %d of %d is lost", round, id, promised->cred);
        if (id == 1 && row->token.n > 0)
            token = strtol(cm_arena_z(&f.arena, row->token), NULL, 10);
    }
    ck_assert_msg(token >= promised->token, "%s: token %d became %d", round, promised->token,
                  (int)token);
    ck_assert_msg(cm_store_next_id(f.store) > promised->id, "%s: an identifier came back", round);
    rows = fix_requests(&f, &(struct cm_request_query){.limit = 500}, &n_rows, NULL);
    ck_assert_msg(rows != NULL, "%s: %s", round, f.err.msg);
    ck_assert_msg((int)n_rows >= promised->rows && (int)n_rows <= promised->started,
                  "%s: %zu rows of %d to %d", round, n_rows, promised->rows, promised->started);
    usage = fix_usage(&f, "model", 0, f.now_ms + 2 * DAY, &n);
    ck_assert_msg(usage != NULL, "%s: %s", round, f.err.msg);
    for (size_t i = 0; i < n; i++) {
        sum += usage[i].requests;
        cost += usage[i].cost_micro_usd;
    }
    ck_assert_msg(sum == (int64_t)n_rows && cost == sum * 750, "%s: the ledger has %d of %zu rows",
                  round, (int)sum, n_rows);
    ck_assert_int_eq(fix_spent(&f, 7, 0), cost);
    fix_close(&f);
    check_files();
}

static int end_of(pid_t pid)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* One life up to the cut within the n-th call (0: none); calls it made in *promised when it ends well. */
static int live_and_die(int64_t nth, uint64_t seed)
{
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid > 0)
        return end_of(pid);
    test_vfs_install();
    test_vfs_crash_at(nth, seed);
    if (!fix_try(&f))
        _exit(3);
    work(CREDS);
    fix_close(&f);
    _exit((int)(test_vfs_calls() / 4));
}

/* ---- the machine dies */

START_TEST(what_was_acknowledged_survives_a_power_cut)
{
    struct cm_rng rng;
    int64_t calls;
    char round[96];

    cm_rng_seed(&rng, seed_of_run());
    fix_init(&f);
    calls = live_and_die(0, 1) * 4;
    check_promises("no cut");
    ck_assert_int_eq(promised->cred, CREDS);
    ck_assert_int_eq(promised->rows, CREDS * 3);
    ck_assert_int_gt(calls, 50);
    fix_clear(&f);
    for (int cut = 0; cut < CUTS; cut++) {
        int64_t nth = 1 + (int64_t)cm_rng_below(&rng, (uint64_t)calls);
        uint64_t seed = cm_rng_next(&rng);

        *promised = (struct promises){0};
        fix_init(&f);
        snprintf(round, sizeof(round), "cut %d: call %d of %d, seed %llu", cut, (int)nth,
                 (int)calls, (unsigned long long)seed);
        ck_assert_msg(live_and_die(nth, seed) == TEST_VFS_CRASHED, "%s: did not die", round);
        check_promises(round);
        fix_clear(&f);
    }
}
END_TEST

START_TEST(a_second_life_after_a_cut_is_as_safe)
{
    struct cm_rng rng;
    char round[96];

    cm_rng_seed(&rng, seed_of_run());
    fix_init(&f);
    for (int cut = 0; cut < 20; cut++) { /* the same files again and again */
        uint64_t seed = cm_rng_next(&rng);
        pid_t pid = fork();
        int rc;

        snprintf(round, sizeof(round), "life %d, seed %llu", cut, (unsigned long long)seed);
        if (pid == 0) {
            test_vfs_install();
            if (!fix_try(&f))
                _exit(3);
            test_vfs_crash_at(1 + (int64_t)(seed % 40), seed);
            put_token(cut + 1);
            put_token(cut + 2);
            for (int i = 0; i < 20; i++)
                put_token(cut + 2);
            _exit(0);
        }
        rc = end_of(pid);
        ck_assert_msg(rc == TEST_VFS_CRASHED || rc == 0, "%s: %d", round, rc);
        check_promises(round);
    }
    fix_clear(&f);
}
END_TEST

START_TEST(rekey_survives_a_power_cut)
{
    struct cm_rng rng;

    cm_rng_seed(&rng, seed_of_run());
    for (int64_t nth = 1;; nth++) {
        uint64_t seed = cm_rng_next(&rng);
        pid_t pid;
        int rc;

        fix_init(&f);
        f.setup.master_key = CM_STR_NONE;
        pid = fork();
        if (pid == 0) {
            test_vfs_install();
            if (!fix_try(&f))
                _exit(3);
            for (uint64_t id = 1; id <= 5; id++) {
                struct cm_cred_row row = fix_cred(id, secret_of(id));

                fix_put_cred(&f, &row);
            }
            test_vfs_crash_at(nth, seed);
            _exit(fix_rekey(&f, "") == 0 ? 0 : 4);
        }
        rc = end_of(pid);
        fix_open(&f); /* with the old key or with the new one */
        for (uint64_t id = 1; id <= 5; id++)
            ck_assert_msg(fix_find_cred(&f, id) &&
                              cm_str_eq(fix_find_cred(&f, id)->secret, cm_str_of(secret_of(id))),
                          "cut in call %d, seed %llu", (int)nth, (unsigned long long)seed);
        fix_clear(&f);
        if (rc == 0)
            break;
        ck_assert_int_eq(rc, TEST_VFS_CRASHED);
    }
}
END_TEST

/* ---- the process is killed */

START_TEST(what_was_acknowledged_survives_a_kill)
{
    struct cm_rng rng;
    char round[64];

    cm_rng_seed(&rng, seed_of_run());
    for (int kills = 0; kills < KILLS; kills++) {
        pid_t pid;

        *promised = (struct promises){0};
        fix_init(&f);
        snprintf(round, sizeof(round), "kill %d", kills);
        pid = fork();
        if (pid == 0) {
            if (!fix_try(&f))
                _exit(3);
            work(150);
            pause();
        }
        usleep((useconds_t)(2000 + cm_rng_below(&rng, 150000)));
        kill(pid, SIGKILL);
        ck_assert_int_eq(end_of(pid), -SIGKILL);
        check_promises(round);
        fix_clear(&f);
    }
}
END_TEST

/* Also when the row that bore it is gone: its history is not. */
START_TEST(an_identifier_of_a_deleted_row_stays_used)
{
    pid_t pid;

    fix_init(&f);
    pid = fork();
    if (pid == 0) {
        struct cm_cred_row row;

        fix_open(&f);
        row = fix_cred(cm_store_next_id(f.store), "secret");
        promised->id = row.id;
        _exit(fix_put_cred(&f, &row) == 0 &&
                      fix_change(&f, &(struct cm_change){.kind = CM_CHANGE_DEL_CRED, .id = row.id},
                                 1) == 0
                  ? 0
                  : 4);
    }
    ck_assert_int_eq(end_of(pid), 0);
    fix_open(&f);
    ck_assert_uint_gt(cm_store_next_id(f.store), promised->id);
    fix_clear(&f);
}
END_TEST

/* ---- the disk refuses */

/* Three changes and a group; what was acknowledged is noted. */
static unsigned changes_under_fire(void)
{
    unsigned acked = 0;

    for (uint64_t id = 1; id <= 3; id++) {
        struct cm_cred_row row = fix_cred(id, secret_of(id));
        struct cm_request_row r = fix_row(f.now_ms + (id == 3 ? DAY : 0), "req");

        if (fix_put_cred(&f, &row) == 0)
            acked |= 1U << id;
        else
            ck_assert_msg(f.err.cls == CM_ERR_IO && f.err.msg[0], "%s", f.err.msg);
        cm_store_log(f.store, &r);
        cm_store_count(f.store, &(struct cm_cred_count){.id = 1, .requests = 1});
        fix_flush(&f);
    }
    return acked;
}

/* The n-th call is refused, once or from then on, for every n there is. (A sync has one code for all reasons.) */
static void refuse_each(int code, bool forever, const char *words)
{
    bool troubled = false;
    int64_t calls;

    for (int64_t nth = 1;; nth++) {
        struct cm_usage_row *usage;
        struct cm_request_row *rows;
        unsigned acked;
        int64_t requests;
        size_t n;

        fix_init(&f);
        fix_open(&f);
        test_vfs_refuse(nth, code, forever);
        acked = changes_under_fire();
        calls = test_vfs_calls();
        if (cm_store_trouble(f.store)) {
            const char *trouble = cm_store_trouble(f.store);

            troubled = troubled || strstr(trouble, words);
            ck_assert_msg(strstr(trouble, words) || strstr(trouble, "check the disk"), "%s",
                          trouble);
        }
        ck_assert_msg(!forever || nth > calls || cm_store_trouble(f.store),
                      "call %d of %d was refused and nobody told", (int)nth, (int)calls);
        test_vfs_refuse(0, 0, 0);
        ck_assert_msg(fix_flush(&f) == 0, "call %d: not recovered: %s", (int)nth, f.err.msg);
        ck_assert_ptr_null(cm_store_trouble(f.store));
        for (uint64_t id = 1; id <= 3; id++) {
            const struct cm_cred_row *row = fix_find_cred(&f, id);

            ck_assert_msg((row != NULL) == ((acked >> id & 1) == 1),
                          "call %d: change %d was %s and is %s", (int)nth, (int)id,
                          acked >> id & 1 ? "acknowledged" : "refused",
                          row ? "there" : "not there");
        }
        requests = acked >> 1 & 1 ? fix_find_cred(&f, 1)->requests : 3;
        ck_assert_msg(requests == 3, "call %d: counted %d", (int)nth, (int)requests);
        rows = fix_requests(&f, &(struct cm_request_query){.limit = 9}, &n, NULL);
        ck_assert_msg(rows && n == 3, "call %d: %zu rows", (int)nth, n);
        for (size_t i = 0; i < n;
             i++) /* names are numbers of the file that a rollback takes back */
            ck_assert_msg(cm_str_eq(rows[i].model, CM_S("gpt-4o")) &&
                              cm_str_eq(rows[i].key, CM_S("team")),
                          "call %d: row %zu has lost its names", (int)nth, i);
        usage = fix_usage(&f, "model", 0, f.now_ms + 2 * DAY, &n);
        ck_assert_msg(usage && n == 1 && usage->requests == 3 && usage->cost_micro_usd == 3 * 750,
                      "call %d: the ledger lost something", (int)nth);
        fix_close(&f);
        check_files();
        fix_clear(&f);
        if (nth > calls)
            break;
    }
    ck_assert_msg(troubled, "nobody ever said \"%s\"", words);
}

START_TEST(a_full_disk_loses_nothing)
{
    test_vfs_install();
    refuse_each(SQLITE_FULL, false, "the disk is full");
    refuse_each(SQLITE_FULL, true, "the disk is full");
}
END_TEST

START_TEST(a_failing_disk_loses_nothing)
{
    test_vfs_install();
    refuse_each(SQLITE_IOERR_WRITE, false, "check the disk");
    refuse_each(SQLITE_IOERR_WRITE, true, "check the disk");
}
END_TEST

START_TEST(a_start_that_meets_a_bad_disk_can_be_repeated)
{
    bool refused = true;

    test_vfs_install();
    for (int64_t nth = 1; refused; nth++) {
        fix_init(&f);
        test_vfs_refuse(nth, nth % 2 ? SQLITE_FULL : SQLITE_IOERR_WRITE, 0);
        if (!fix_try(&f))
            ck_assert_msg(strstr(f.err.msg, "chatmux.db"), "%s", f.err.msg);
        refused = test_vfs_calls() >= nth;
        fix_close(&f);
        test_vfs_refuse(0, 0, 0);
        fix_open(&f);
        fix_close(&f);
        check_files();
        fix_clear(&f);
    }
}
END_TEST

/* Nothing else is waiting to be written: only a write of its own can tell. */
START_TEST(after_a_full_disk_the_store_probes)
{
    struct cm_cred_row row = fix_cred(1, "secret");

    test_vfs_install();
    fix_init(&f);
    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    test_vfs_refuse(1, SQLITE_FULL, 1);
    ck_assert_int_eq(fix_put_cred(&f, &row), -1);
    fix_run_ms(&f, 1500);
    ck_assert_ptr_nonnull(cm_store_trouble(f.store));
    test_vfs_refuse(0, 0, 0);
    fix_run_ms(&f, 2500);
    ck_assert_ptr_null(cm_store_trouble(f.store));
    fix_clear(&f);
}
END_TEST

START_TEST(a_backup_that_fails_leaves_nothing)
{
    struct cm_cred_row row = fix_cred(1, "secret");
    char path[128];

    test_vfs_install();
    fix_init(&f);
    fix_open(&f);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    snprintf(path, sizeof(path), "%s/copy.db", f.dir);
    test_vfs_refuse(1, SQLITE_FULL, 1);
    ck_assert_int_eq(fix_backup(&f, path), -1);
    ck_assert_msg(strstr(f.err.msg, "full"), "%s", f.err.msg);
    ck_assert_int_eq(access(path, F_OK), -1);
    test_vfs_refuse(0, 0, 0);
    ck_assert_int_eq(fix_backup(&f, path), 0);
    ck_assert_int_eq(fix_put_cred(&f, &row), 0);
    fix_clear(&f);
}
END_TEST

Suite *suite_store_crash(void)
{
    Suite *s = suite_create("store_crash");
    TCase *t = tcase_create("store_crash");

    tcase_add_checked_fixture(t, setup, NULL);
    tcase_set_timeout(t, 180);
    tcase_add_test(t, what_was_acknowledged_survives_a_power_cut);
    tcase_add_test(t, a_second_life_after_a_cut_is_as_safe);
    tcase_add_test(t, rekey_survives_a_power_cut);
    tcase_add_test(t, what_was_acknowledged_survives_a_kill);
    tcase_add_test(t, an_identifier_of_a_deleted_row_stays_used);
    tcase_add_test(t, a_full_disk_loses_nothing);
    tcase_add_test(t, a_failing_disk_loses_nothing);
    tcase_add_test(t, a_start_that_meets_a_bad_disk_can_be_repeated);
    tcase_add_test(t, after_a_full_disk_the_store_probes);
    tcase_add_test(t, a_backup_that_fails_leaves_nothing);
    suite_add_tcase(s, t);
    return s;
}
