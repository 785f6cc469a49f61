/* What flows remember: the memo's bounds and ends, whose it is, and conversations that go on. */
#include "fake_host.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#include <stdio.h>

/* ---- the memo ---- */

static uint64_t now_ms;

static uint64_t read_mono(void *arg)
{
    (void)arg;
    return now_ms;
}

static const struct cm_clock test_clock = {.mono_ms = read_mono};

static void put(struct cm_memo *m, const char *owner, const char *key, const char *value)
{
    cm_memo_put(m, cm_str_of(owner), cm_str_of(key), cm_str_of(value), 1000);
}

static const char *get(struct cm_memo *m, const char *owner, const char *key)
{
    static char text[64];
    struct cm_str value;

    if (!cm_memo_get(m, cm_str_of(owner), cm_str_of(key), &value))
        return "-";
    cm_str_copy(text, sizeof(text), value);
    return text;
}

START_TEST(each_owner_has_its_own)
{
    struct cm_memo *m = cm_memo_new(&test_clock, 64 * 1024);

    put(m, "a", "key", "1");
    put(m, "b", "key", "2");
    put(m, "", "", "");
    ck_assert_str_eq(get(m, "a", "key"), "1");
    ck_assert_str_eq(get(m, "b", "key"), "2");
    ck_assert_str_eq(get(m, "ab", "key"), "-");
    ck_assert_str_eq(get(m, "", ""), "");
    put(m, "a", "key", "3");
    ck_assert_str_eq(get(m, "a", "key"), "3");
    cm_memo_del(m, CM_S("a"), CM_S("key"));
    cm_memo_del(m, CM_S("a"), CM_S("key"));
    ck_assert_str_eq(get(m, "a", "key"), "-");
    ck_assert_str_eq(get(m, "b", "key"), "2");
    cm_memo_free(m);
}
END_TEST

START_TEST(entries_end)
{
    struct cm_memo *m = cm_memo_new(&test_clock, 64 * 1024);

    put(m, "a", "key", "1");
    now_ms += 999;
    ck_assert_str_eq(get(m, "a", "key"), "1");
    now_ms++;
    ck_assert_str_eq(get(m, "a", "key"), "-");
    cm_memo_free(m);
}
END_TEST

START_TEST(the_one_unused_for_longest_goes_first)
{
    struct cm_memo *m = cm_memo_new(&test_clock, 2000);
    char key[12];

    put(m, "a", "first", "1");
    put(m, "a", "second", "2");
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof(key), "%d", i);
        put(m, "a", key, "x");
        ck_assert_str_eq(get(m, "a", "first"), "1"); /* in use all the time */
    }
    ck_assert_str_eq(get(m, "a", "second"), "-");
    ck_assert_str_eq(get(m, "a", "99"), "x");
    cm_memo_free(m);
}
END_TEST

START_TEST(what_is_too_large_is_not_kept)
{
    struct cm_memo *m = cm_memo_new(&test_clock, 2000);
    char large[400] = {0};

    put(m, "a", "key", "old");
    cm_memo_put(m, CM_S("a"), CM_S("key"), cm_str(large, sizeof(large)), 1000);
    ck_assert_str_eq(get(m, "a", "key"), "-"); /* not the old one either */
    cm_memo_free(m);
}
END_TEST

START_TEST(a_value_may_replace_itself)
{
    struct cm_memo *m = cm_memo_new(&test_clock, 2000);
    struct cm_str value;

    put(m, "a", "key", "value");
    ck_assert(cm_memo_get(m, CM_S("a"), CM_S("key"), &value));
    cm_memo_put(m, CM_S("a"), CM_S("key"), cm_str_from(value, 1), 1000);
    ck_assert_str_eq(get(m, "a", "key"), "alue");
    cm_memo_free(m);
}
END_TEST

/* ---- conversations ---- */

static struct cm_thread found;
static bool was_found;
static const char *answer[4]; /* the pieces of what the platform says */

static enum cm_step converse(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    (void)ev;
    (void)err;
    was_found = cm_run_thread(run, &found);
    if (was_found)
        ck_assert(cm_str_eq(found.value, CM_S("chat-7")));
    for (size_t i = 0; i < CM_COUNT(answer) && answer[i]; i++)
        cm_run_text(run, cm_str_of(answer[i]));
    cm_run_finish(run, CM_FINISH_STOP);
    cm_run_thread_keep(run, CM_S("chat-7"), 60000);
    return CM_STEP_DONE;
}

static const struct cm_provider provider = {.name = "test", .chat = {.step = converse}};

struct turn {
    const char *scope, *model, *secret;
    const char *messages; /* behind {"role":"user","content":"Hi  there"} */
};

/* One memo for several runs: what they leave to each other. */
static void converse_once(struct cm_memo *memo, const struct turn *turn)
{
    struct cm_memo *own;
    struct fake f;

    fake_init(&f);
    own = f.host.memo;
    f.host.memo = memo;
    f.instance.adapter = &provider;
    f.flow = &provider.chat;
    if (turn->secret)
        f.cred.secret = cm_str_of(turn->secret);
    if (turn->scope)
        f.scope = cm_str_of(turn->scope);
    fake_chat(&f, cm_arena_printf(&f.arena,
                                  "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\","
                                  "\"content\":\"Hi  there\"}%s]}",
                                  turn->model ? turn->model : "m", turn->messages));
    fake_play(&f);
    f.host.memo = own;
    fake_clear(&f);
}

#define SAID ",{\"role\":\"assistant\",\"content\":\"Good \\nday.\"}"
#define NEXT ",{\"role\":\"user\",\"content\":\"and?\"}"

static const struct turn strangers[] = {
    {.messages = ""},
    {.messages = NEXT},
    {.messages = SAID}, /* nothing new */
    {.messages = ",{\"role\":\"assistant\",\"content\":\"Bad day.\"}" NEXT},
    {.messages = SAID NEXT, .scope = "2 another"},
    {.messages = SAID NEXT, .model = "other"},
    {.messages = SAID NEXT, .secret = "sk-other"},
};

START_TEST(a_conversation_goes_on_where_it_was)
{
    struct cm_memo *memo = cm_memo_new(&cm_clock_system, 1024 * 1024);

    answer[0] = " Good", answer[1] = " day. ", answer[2] = NULL;
    converse_once(memo, &(struct turn){.messages = "", .scope = "1 key"});
    ck_assert(!was_found);
    converse_once(memo, &(struct turn){.messages = SAID NEXT, .scope = "1 key"});
    ck_assert(was_found);
    ck_assert_uint_eq(found.from, 2);
    /* and on, from the answer before */
    converse_once(memo, &(struct turn){.messages = SAID NEXT SAID NEXT, .scope = "1 key"});
    ck_assert(was_found);
    ck_assert_uint_eq(found.from, 4);
    cm_memo_free(memo);
}
END_TEST

START_TEST(nobody_continues_anothers)
{
    struct cm_memo *memo = cm_memo_new(&cm_clock_system, 1024 * 1024);

    answer[0] = "Good day.", answer[1] = NULL;
    converse_once(memo, &(struct turn){.messages = "", .scope = "1 key"});
    converse_once(memo, &(struct turn){.messages = "", .scope = NULL});
    converse_once(memo, &strangers[_i]);
    ck_assert(!was_found);
    cm_memo_free(memo);
}
END_TEST

/* ---- what belongs to a client's conversation ---- */

static bool keeps, kept;

static enum cm_step seal(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct cm_str value;

    (void)ev;
    (void)err;
    if (keeps)
        cm_run_keep(run, cm_run_text_key(run, CM_S("Good day.")), CM_S("sealed"));
    kept = cm_run_kept(run, cm_run_text_key(run, CM_S(" Good\n day.")), &value);
    if (kept)
        ck_str(value, "sealed");
    cm_run_finish(run, CM_FINISH_STOP);
    return CM_STEP_DONE;
}

static const struct cm_provider sealing = {.name = "test", .chat = {.step = seal}};

static void seal_once(struct cm_memo *memo, const char *scope, const char *secret, bool keep)
{
    struct cm_memo *own;
    struct fake f;

    fake_init(&f);
    own = f.host.memo;
    f.host.memo = memo;
    f.instance.adapter = &sealing;
    f.flow = &sealing.chat;
    f.cred.secret = cm_str_of(secret);
    f.scope = cm_str_of(scope);
    fake_chat(&f, CM_S("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"));
    keeps = keep;
    fake_play(&f);
    f.host.memo = own;
    fake_clear(&f);
}

START_TEST(what_is_kept_for_a_client)
{
    struct cm_memo *memo = cm_memo_new(&cm_clock_system, 1024 * 1024);

    seal_once(memo, "1 key", "sk-a", true);
    ck_assert(kept);
    seal_once(memo, "1 key", "sk-b", false); /* another account serves it */
    ck_assert(kept);
    seal_once(memo, "2 key", "sk-a", false);
    ck_assert(!kept);
    seal_once(memo, "", "sk-a", false);
    ck_assert(!kept);
    seal_once(NULL, "1 key", "sk-a", true);
    ck_assert(!kept);
    cm_memo_free(memo);
}
END_TEST

Suite *suite_remember(void)
{
    Suite *s = suite_create("remember");
    TCase *t = tcase_create("memo");

    tcase_add_test(t, each_owner_has_its_own);
    tcase_add_test(t, entries_end);
    tcase_add_test(t, the_one_unused_for_longest_goes_first);
    tcase_add_test(t, what_is_too_large_is_not_kept);
    tcase_add_test(t, a_value_may_replace_itself);
    suite_add_tcase(s, t);

    t = tcase_create("conversations");
    tcase_add_test(t, a_conversation_goes_on_where_it_was);
    tcase_add_loop_test(t, nobody_continues_anothers, 0, (int)CM_COUNT(strangers));
    tcase_add_test(t, what_is_kept_for_a_client);
    suite_add_tcase(s, t);
    return s;
}
