/* provider/memory: conversations and what is remembered durably, over a restart; and those that another gateway led. */
#include "fake_host.h"
#include "fixture.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "provider/hix_int.h"

#include <stdio.h>
#include <stdlib.h>

/* A disk: what a keeper was told, last word first to last. */
static struct cm_arena disk;
static struct cm_memory kept[32];
static size_t n_kept;

static void drop(void *arg, const unsigned char key[CM_SHA256_SIZE])
{
    (void)arg;
    for (size_t i = 0; i < n_kept; i++)
        if (memcmp(kept[i].key, key, CM_SHA256_SIZE) == 0)
            kept[i--] = kept[--n_kept];
}

static void put(void *arg, const struct cm_memory *m)
{
    drop(arg, m->key);
    ck_assert_uint_lt(n_kept, CM_COUNT(kept));
    kept[n_kept] = *m;
    kept[n_kept++].value = cm_arena_str(&disk, m->value);
}

static struct cm_memo *memo;

static void set_up(void)
{
    n_kept = 0;
    memo = cm_memo_new(&cm_clock_system, 1024 * 1024);
}

static void clean_up(void)
{
    cm_memo_free(memo);
    cm_arena_clear(&disk);
}

static void restart(const char *secret)
{
    cm_memo_free(memo);
    memo = cm_memo_new(&cm_clock_system, 1024 * 1024);
    for (size_t i = 0; i < n_kept; i++)
        cm_memory_restore(memo, CM_S("up"), cm_str_of(secret), &kept[i], cm_unix_ms());
}

/* ---- one turn ---- */

static struct cm_thread found;
static bool was_found;
static char value[32];
static int turns;

static enum cm_step converse(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    (void)ev;
    (void)err;
    was_found = cm_run_thread(run, &found);
    cm_str_copy(value, sizeof(value), was_found ? found.value : CM_STR_NONE);
    cm_run_text(run, CM_S("Good day."));
    cm_run_finish(run, CM_FINISH_STOP);
    cm_run_thread_keep(run, cm_arena_printf(cm_run_arena(run), "chat-%d", ++turns), 60000);
    return CM_STEP_DONE;
}

static const struct cm_provider plain = {.name = "test", .chat = {.step = converse}};
static const struct cm_provider with_old = {
    .name = "test", .old_thread = hix_old_thread, .chat = {.step = converse}};

static const struct cm_provider *adapter = &plain;
static uint64_t account = 4;
static const char *scope = "1 key";
static uint64_t holder; /* who was asked first */

#define FIRST "{\"role\":\"user\",\"content\":\"Hi  there\"}"
#define SAID ",{\"role\":\"assistant\",\"content\":\"Good \\nday.\"}"
#define NEXT ",{\"role\":\"user\",\"content\":\"and?\"}"

static void play(const struct cm_provider *p, const char *messages)
{
    struct cm_memo *own;
    struct fake f;

    fake_init(&f);
    own = f.host.memo;
    f.host.memo = memo;
    f.host.keeper = (struct cm_keeper){put, drop, NULL};
    f.instance.adapter = p;
    f.flow = &p->chat;
    f.cred.id = account;
    f.scope = cm_str_of(scope);
    fake_chat(&f, cm_arena_printf(&f.arena, "{\"model\":\"m\",\"messages\":[%s]}", messages));
    holder = cm_thread_holder(memo, &f.instance, &f.target, f.chat, f.scope);
    fake_play(&f);
    f.host.memo = own;
    fake_clear(&f);
}

static void turn(const char *messages)
{
    play(adapter, messages);
}

START_TEST(a_conversation_survives_a_restart)
{
    turn(FIRST);
    ck_assert(!was_found);
    ck_assert_uint_eq(holder, 0);
    ck_assert_uint_eq(n_kept, 1);
    ck_assert_int_eq(kept[0].kind, CM_MEMORY_THREAD);
    ck_assert_uint_eq(kept[0].cred, 4);
    ck_assert_int_gt(kept[0].until_ms, cm_unix_ms() + 50000);
    restart("sk-secret");
    turn(FIRST SAID NEXT);
    ck_assert(was_found);
    ck_assert_uint_eq(holder, 4);
    ck_assert_uint_eq(found.from, 2);
    ck_assert_uint_eq(n_kept, 1); /* in the place of the turn before */
    restart("sk-secret");
    turn(FIRST SAID NEXT); /* which is on no disk any more */
    ck_assert(!was_found);
    turn(FIRST SAID NEXT SAID NEXT);
    ck_assert(was_found);
}
END_TEST

START_TEST(an_answer_is_asked_for_again_in_its_chat)
{
    turn(FIRST);
    turn(FIRST SAID NEXT);
    turn(FIRST SAID NEXT);
    ck_assert(was_found);
}
END_TEST

START_TEST(another_secret_finds_nothing)
{
    turn(FIRST);
    restart("sk-other"); /* of the same row */
    turn(FIRST SAID NEXT);
    ck_assert(!was_found);
}
END_TEST

START_TEST(another_client_or_account_finds_nothing)
{
    turn(FIRST);
    restart("sk-secret");
    scope = "2 key";
    turn(FIRST SAID NEXT);
    ck_assert(!was_found);
    ck_assert_uint_eq(holder, 0);
    scope = "1 key";
    turn(FIRST SAID NEXT);
    ck_assert(was_found);
}
END_TEST

START_TEST(without_a_number_nothing_is_kept)
{
    account = 0;
    turn(FIRST);
    ck_assert_uint_eq(n_kept, 0);
    turn(FIRST SAID NEXT); /* in memory it is */
    ck_assert(was_found);
    ck_assert_uint_eq(holder, 0);
    account = 4;
}
END_TEST

START_TEST(what_is_over_does_not_come_back)
{
    turn(FIRST);
    kept[0].until_ms = cm_unix_ms();
    restart("sk-secret");
    turn(FIRST SAID NEXT);
    ck_assert(!was_found);
}
END_TEST

/* ---- remembered durably ---- */

static const char *doing;

static enum cm_step recall(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct cm_str v;

    (void)ev;
    (void)err;
    if (*doing == 'p')
        cm_run_remember_durably(run, CM_S("bound to"), CM_S("1 key"), 60000);
    else if (*doing == 'm')
        cm_run_remember(run, CM_S("bound to"), CM_S("in memory"), 60000);
    else if (*doing == 'f')
        cm_run_forget(run, CM_S("bound to"));
    was_found = cm_run_recall(run, CM_S("bound to"), &v);
    cm_str_copy(value, sizeof(value), was_found ? v : CM_STR_NONE);
    cm_run_finish(run, CM_FINISH_STOP);
    return CM_STEP_DONE;
}

static const struct cm_provider recalling = {.name = "test", .chat = {.step = recall}};

static void with(const char *what)
{
    doing = what;
    play(&recalling, FIRST);
}

START_TEST(what_is_remembered_durably)
{
    with("put");
    ck_assert(was_found);
    ck_assert_uint_eq(n_kept, 1);
    ck_assert_int_eq(kept[0].kind, CM_MEMORY_OWN);
    restart("sk-secret");
    with("look");
    ck_assert_str_eq(value, "1 key");
    with("forget");
    ck_assert(!was_found);
    ck_assert_uint_eq(n_kept, 0);
    with("memory");
    ck_assert_str_eq(value, "in memory");
    ck_assert_uint_eq(n_kept, 0);
    with("forget");
    with("put");
    restart("sk-other");
    with("look");
    ck_assert(!was_found);
}
END_TEST

/* Whatever clients have remembered: who a bound chat belongs to is not forgotten for it. */
START_TEST(what_is_durable_is_not_pushed_out)
{
    static const char big[1000];
    const struct cm_str text = cm_str(big, sizeof(big));
    struct cm_str v;
    char key[32];

    with("put");
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof(key), "%d", i);
        cm_memo_put(memo, CM_S("a client"), cm_str_of(key), text, 60000);
    }
    with("look");
    ck_assert_str_eq(value, "1 key");
    restart("sk-secret");
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof(key), "%d", i);
        cm_memo_put(memo, CM_S("a client"), cm_str_of(key), text, 60000);
    }
    with("look");
    ck_assert_str_eq(value, "1 key");
    with("forget");
    ck_assert_uint_eq(n_kept, 0);
    /* and it has a bound of its own */
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof(key), "%d", i);
        cm_memo_keep(memo, CM_S("an account"), cm_str_of(key), text, 60000);
    }
    cm_memo_put(memo, CM_S("a client"), CM_S("1"), text, 60000);
    ck_assert(cm_memo_get(memo, CM_S("a client"), CM_S("1"), &v));
    ck_assert(cm_memo_get(memo, CM_S("an account"), CM_S("4999"), &v));
    ck_assert(!cm_memo_get(memo, CM_S("an account"), CM_S("4000"), &v));
}
END_TEST

/* ---- another gateway's ---- */

START_TEST(the_names_of_the_vectors)
{
    char *text = fixture("hix/vectors.json");
    yyjson_doc *doc = cm_json_parse(cm_str_of(text), &cm_json_limits_event, NULL);
    yyjson_val *pair, *pairs = cm_json_get(yyjson_doc_get_root(doc), "pairs");
    struct cm_arena arena = {0};
    size_t i, max;

    ck_assert_uint_eq(yyjson_arr_size(pairs), 8);
    yyjson_arr_foreach(pairs, i, max, pair)
    {
        struct cm_str name =
            hix_seed_pair(&arena, cm_json_get(pair, "user"), cm_json_get(pair, "assistant"));

        ck_assert_msg(cm_str_eq(name, cm_json_str(cm_json_get(pair, "sha256"))), "pair %zu: %.*s",
                      i, CM_ARG(name));
    }
    cm_arena_clear(&arena);
    yyjson_doc_free(doc);
    free(text);
}
END_TEST

#define PAIR                                                                                       \
    "{\"role\":\"user\",\"content\":\"hello\"},"                                                   \
    "{\"role\":\"assistant\",\"content\":\" Hi there!\\n\"}"
#define PAIR_NAME "86a094f0234e57c28bf9067e199f703af80da434988e83afd0e5278ef1318350"
#define SYSTEM "{\"role\":\"system\",\"content\":\"Be brief.\"},"
#define BEFORE "{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"y\"},"

static void old_one(void)
{
    struct cm_memory m = {.kind = CM_MEMORY_OLD_THREAD,
                          .cred = 9,
                          .value = CM_S("hix-chat"),
                          .until_ms = cm_unix_ms() + 60000};

    cm_memory_old_key(CM_S("up"), CM_S("m"), CM_S(PAIR_NAME), m.key);
    cm_memory_restore(memo, CM_S("up"), CM_S("sk-secret"), &m, cm_unix_ms());
    put(NULL, &m);
    adapter = &with_old;
    account = 9;
}

START_TEST(another_gateways_goes_on_once)
{
    old_one();
    turn(SYSTEM BEFORE PAIR NEXT);
    ck_assert(was_found);
    ck_assert_uint_eq(holder, 9);
    ck_assert_str_eq(value, "hix-chat");
    ck_assert_uint_eq(found.from, 5);
    ck_assert_uint_eq(n_kept, 1); /* from now on as one of ours */
    ck_assert_int_eq(kept[0].kind, CM_MEMORY_THREAD);
    turn(BEFORE PAIR NEXT); /* whose else it might be */
    ck_assert(!was_found);
    turn(SYSTEM BEFORE PAIR NEXT SAID NEXT);
    ck_assert(was_found);
    ck_assert_uint_eq(found.from, 7);
}
END_TEST

static const char *const no_turns[] = {
    PAIR,                                                    /* nothing new */
    "{\"role\":\"user\",\"content\":\"hello\"}" NEXT,        /* nothing said */
    PAIR SAID NEXT,                                          /* that answer follows no question */
    PAIR NEXT SAID NEXT,                                     /* it went on elsewhere */
    PAIR NEXT ",{\"role\":\"system\",\"content\":\"Stop.\"}" /* the last one is no question */
};

START_TEST(what_is_no_turn_of_it)
{
    old_one();
    turn(no_turns[_i]);
    ck_assert_msg(_i == 2 ? was_found : !was_found, "%s", no_turns[_i]);
}
END_TEST

START_TEST(an_adapter_without_that_finds_none)
{
    old_one();
    adapter = &plain;
    turn(PAIR NEXT);
    ck_assert(!was_found);
}
END_TEST

Suite *suite_threads(void)
{
    Suite *s = suite_create("threads");
    TCase *t = tcase_create("restart");

    tcase_add_checked_fixture(t, set_up, clean_up);
    tcase_add_test(t, a_conversation_survives_a_restart);
    tcase_add_test(t, an_answer_is_asked_for_again_in_its_chat);
    tcase_add_test(t, another_secret_finds_nothing);
    tcase_add_test(t, another_client_or_account_finds_nothing);
    tcase_add_test(t, without_a_number_nothing_is_kept);
    tcase_add_test(t, what_is_over_does_not_come_back);
    tcase_add_test(t, what_is_remembered_durably);
    tcase_add_test(t, what_is_durable_is_not_pushed_out);
    suite_add_tcase(s, t);

    t = tcase_create("another gateway");
    tcase_add_checked_fixture(t, set_up, clean_up);
    tcase_add_test(t, the_names_of_the_vectors);
    tcase_add_test(t, another_gateways_goes_on_once);
    tcase_add_loop_test(t, what_is_no_turn_of_it, 0, (int)CM_COUNT(no_turns));
    tcase_add_test(t, an_adapter_without_that_finds_none);
    suite_add_tcase(s, t);
    return s;
}
