/* Client keys: text, table, windows, budgets, and a random walk beside a model that cannot be
 * wrong. */
#include "chatmux/keys/keys.h"
#include "unit.h"

#include "chatmux/base/crypto.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include <stdio.h>
#include <stdlib.h>

#define DAY INT64_C(86400000)
#define USD INT64_C(1000000)
#define FRIDAY INT64_C(1795132800000) /* 2026-11-20T00:00:00Z */
#define MONDAY (FRIDAY - 4 * DAY)
#define FIRST (FRIDAY - 19 * DAY) /* 2026-11-01 */

static uint64_t mono;
static int64_t unix_now;

static uint64_t read_mono(void *arg)
{
    (void)arg;
    return mono;
}

static int64_t read_unix(void *arg)
{
    (void)arg;
    return unix_now;
}

static const struct cm_clock test_clock = {read_mono, read_unix, NULL};
static struct cm_keys *keys;
static struct cm_err err;

static void set_up(void)
{
    mono = 1000000;
    unix_now = FRIDAY + 12 * 3600000;
    keys = cm_keys_new(&test_clock);
}

static void clean_up(void)
{
    cm_keys_free(keys);
    keys = NULL;
}

static void pass(int64_t ms)
{
    mono += (uint64_t)ms;
    unix_now += ms;
}

static struct cm_key_row row_of(uint64_t id, const char *secret)
{
    struct cm_key_row row = {.id = id, .enabled = true, .budget_period = CM_S("total")};

    row.name = CM_S("name");
    cm_sha256(cm_str_of(secret), row.digest);
    return row;
}

static struct cm_key *find(const char *secret)
{
    return cm_keys_find(keys, cm_str_of(secret), &err);
}

static struct cm_key *put(const struct cm_key_row *row, const char *secret)
{
    struct cm_key *key;

    cm_keys_put(keys, row);
    key = find(secret);
    ck_assert_ptr_nonnull(key);
    return key;
}

static struct cm_key_limits limits_of(const struct cm_key *key)
{
    struct cm_key_limits l;

    cm_key_limits(key, &l);
    return l;
}

static bool told(const char *part)
{
    return cm_str_has(cm_str_of(err.msg), cm_str_of(part));
}

/* Expects the refusal of a limit, with this in its message. */
static void refused(struct cm_key *key, int64_t tokens, int64_t micro_usd, int retry_after_s,
                    const char *part)
{
    struct cm_key_limits before = limits_of(key), after;
    struct cm_reservation r = {0};

    ck_assert_int_eq(cm_key_reserve(key, tokens, micro_usd, &r, &err), -1);
    ck_assert_int_eq(err.cls, CM_ERR_CLIENT_LIMIT);
    ck_assert_msg(told(part), "\"%s\" lacks \"%s\"", err.msg, part);
    ck_assert_int_eq(err.retry_after_s, retry_after_s);
    ck_assert_ptr_null(r.key);
    after = limits_of(key);
    ck_assert_mem_eq(&before, &after, sizeof(before));
}

static struct cm_reservation taken(struct cm_key *key, int64_t tokens, int64_t micro_usd)
{
    struct cm_reservation r = {0};

    if (cm_key_reserve(key, tokens, micro_usd, &r, &err) != 0)
        ck_abort_msg("%s", err.msg);
    return r;
}

/* A request that begins and ends at once. */
static void used(struct cm_key *key, int64_t tokens, int64_t micro_usd)
{
    struct cm_reservation r = taken(key, tokens, micro_usd);

    cm_key_settle(&r, tokens, micro_usd);
}

/* --- text ----------------------------------------------------------------------------------- */

START_TEST(a_made_key_is_whole)
{
    char text[CM_KEY_TEXT_CAP], other[CM_KEY_TEXT_CAP];

    for (int i = 0; i < 1000; i++) {
        cm_key_make(text);
        ck_quick(strlen(text) == 54 && memcmp(text, "sk-cmx-", 7) == 0);
        ck_quick(strspn(text + 7, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz") == 47);
        ck_quick(cm_key_plausible(cm_str_of(text)));
        cm_key_make(other);
        ck_quick(strcmp(text, other) != 0);
    }
}
END_TEST

/* As the header says it is made; computed by another program. */
START_TEST(the_checksum_is_the_documented_one)
{
    ck_assert(cm_key_plausible(CM_S("sk-cmx-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgbwdK")));
    ck_assert(cm_key_plausible(CM_S("sk-cmx-0000000000000000000000000000000000000000000OZXz")));
    ck_assert(!cm_key_plausible(CM_S("sk-cmx-00000000000000000000000000000000000000000000000")));
}
END_TEST

START_TEST(a_mistyped_key_is_told)
{
    char text[CM_KEY_TEXT_CAP + 1];

    cm_key_make(text);
    for (size_t i = 7; i < 54; i++) {
        char was = text[i];

        text[i] = was == 'x' ? 'y' : 'x';
        ck_assert(!cm_key_plausible(cm_str_of(text)));
        text[i] = was;
    }
    for (size_t n = 7; n < 54; n++)
        ck_assert(!cm_key_plausible(cm_str(text, n)));
    text[54] = 'x';
    ck_assert(!cm_key_plausible(cm_str(text, 55)));
    ck_assert(cm_key_plausible(CM_S("")) && cm_key_plausible(CM_S("sk-cmx")) &&
              cm_key_plausible(CM_S("sk-proj-abc")));

    text[54] = '\0';
    text[20] = text[20] == 'x' ? 'y' : 'x';
    ck_assert_ptr_null(find(text));
    ck_assert_int_eq(err.cls, CM_ERR_UNAUTHORIZED);
    ck_assert(told("mistyped"));
    ck_assert_ptr_null(find("sk-proj-abc"));
    ck_assert_int_eq(err.cls, CM_ERR_UNAUTHORIZED);
    ck_assert(!told("mistyped"));
}
END_TEST

/* --- the table ------------------------------------------------------------------------------ */

START_TEST(stored_and_configured_keys_are_found)
{
    const struct cm_str secrets[] = {CM_S("first-of-the-file"), CM_S("short"),
                                     CM_S("first-of-the-file")};
    struct cm_key_row row = row_of(7, "stored");

    ck_assert_uint_eq(cm_keys_count(keys), 0);
    cm_keys_configure(keys, secrets, CM_COUNT(secrets));
    row.name = CM_S("alice");
    row.rpm = 5;
    cm_keys_put(keys, &row);
    ck_assert_uint_eq(cm_keys_count(keys), 3);

    ck_str(cm_key_row(find("first-of-the-file"))->name, "key#1");
    ck_str(cm_key_row(find("first-of-the-file"))->hint, "file");
    ck_assert_uint_eq(cm_key_row(find("short"))->id, 0);
    ck_str(cm_key_row(find("short"))->name, "key#2");
    ck_str(cm_key_row(find("short"))->hint, "");
    ck_str(cm_key_row(find("stored"))->name, "alice");
    ck_assert_int_eq(cm_key_row(find("stored"))->rpm, 5);

    cm_keys_delete(keys, 8);
    ck_assert_ptr_nonnull(find("stored"));
    cm_keys_delete(keys, 7);
    ck_assert_ptr_null(find("stored"));
    ck_assert_uint_eq(cm_keys_count(keys), 2);
}
END_TEST

START_TEST(a_key_may_be_disabled_or_expire)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_reservation r = {0};
    struct cm_key *key;

    row.expires_s = FRIDAY / 1000 + DAY / 1000;
    key = put(&row, "s");
    unix_now = FRIDAY + DAY - 1;
    ck_assert_ptr_eq(find("s"), key);
    unix_now++;
    ck_assert_ptr_null(find("s"));
    ck_assert_int_eq(err.cls, CM_ERR_UNAUTHORIZED);
    ck_assert(told("expired at 2026-11-21T00:00:00"));
    ck_assert_int_eq(cm_key_reserve(key, 0, 0, &r, &err), -1);
    ck_assert_int_eq(err.cls, CM_ERR_UNAUTHORIZED);

    row.expires_s = 0;
    row.enabled = false;
    cm_keys_put(keys, &row);
    ck_assert_ptr_null(find("s"));
    ck_assert(told("disabled"));
    ck_assert_uint_eq(cm_keys_count(keys), 1); /* or the gateway would be open to everybody */
    row.enabled = true;
    ck_assert_ptr_eq(put(&row, "s"), key);
}
END_TEST

START_TEST(a_replaced_key_may_have_another_secret)
{
    struct cm_key_row row = row_of(1, "old");
    struct cm_key *key = put(&row, "old");

    row = row_of(1, "new");
    row.name = CM_S("renamed");
    ck_assert_ptr_eq(put(&row, "new"), key);
    ck_str(cm_key_row(key)->name, "renamed");
    ck_assert_ptr_null(find("old"));
    cm_keys_put(keys, cm_key_row(key)); /* its own row */
    ck_str(cm_key_row(find("new"))->name, "renamed");
    ck_assert_uint_eq(cm_keys_count(keys), 1);
}
END_TEST

START_TEST(of_keys_with_one_secret_the_limited_one_counts)
{
    const struct cm_str secret = CM_S("same");
    struct cm_key_row three = row_of(3, "same"), two = row_of(2, "same"), four = row_of(4, "same");

    cm_keys_configure(keys, &secret, 1);
    ck_str(cm_key_row(find("same"))->name, "key#1");
    cm_keys_put(keys, &three);
    ck_assert_uint_eq(cm_key_row(find("same"))->id, 3);
    cm_keys_put(keys, &four);
    ck_assert_uint_eq(cm_key_row(find("same"))->id, 3);
    cm_keys_put(keys, &two);
    ck_assert_uint_eq(cm_key_row(find("same"))->id, 2);
    cm_keys_delete(keys, 3);
    ck_assert_uint_eq(cm_key_row(find("same"))->id, 2);
    cm_keys_delete(keys, 2);
    ck_assert_uint_eq(cm_key_row(find("same"))->id, 4);
    cm_keys_configure(keys, NULL, 0);
    cm_keys_configure(keys, &secret, 1);
    ck_assert_uint_eq(cm_key_row(find("same"))->id, 4);
    cm_keys_delete(keys, 4);
    ck_str(cm_key_row(find("same"))->name, "key#1");
    cm_keys_configure(keys, NULL, 0);
    ck_assert_ptr_null(find("same"));
    ck_assert_uint_eq(cm_keys_count(keys), 0);
}
END_TEST

static void note_name(void *arg, const struct cm_key *key)
{
    struct cm_buf *out = arg;

    cm_buf_append(out, cm_key_row(key)->name);
    cm_buf_put(out, ' ');
}

START_TEST(configured_keys_keep_their_counters)
{
    const struct cm_str before[] = {CM_S("a"), CM_S("b")}, after[] = {CM_S("c"), CM_S("a")};
    struct cm_reservation r;
    struct cm_key_row row = row_of(1, "d");
    struct cm_buf names = {0};

    cm_keys_put(keys, &row);
    cm_keys_configure(keys, before, 2);
    r = taken(find("a"), 10, 5);
    cm_keys_configure(keys, after, 2);
    ck_assert_ptr_eq(find("a"), r.key);
    ck_str(cm_key_row(r.key)->name, "key#2");
    ck_assert_int_eq(limits_of(r.key).parallel, 1);
    ck_assert_int_eq(limits_of(r.key).limit_requests, -1);
    ck_assert_int_eq(limits_of(r.key).remaining_tokens, -1);
    ck_assert_int_eq(limits_of(r.key).reset_tokens_ms, -1);
    ck_assert_ptr_null(find("b"));
    ck_assert_uint_eq(cm_keys_count(keys), 3);
    cm_keys_each(keys, note_name, &names);
    ck_str(cm_buf_str(&names), "key#1 key#2 name ");
    cm_buf_clear(&names);
    cm_key_settle(&r, 10, 5);
    ck_assert_int_eq(limits_of(find("a")).spent_micro_usd, 5);
}
END_TEST

START_TEST(models_are_allowed_by_name)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_key *key = put(&row, "s");

    ck_assert(cm_key_allows(key, CM_S("anything")) && cm_key_allows(key, CM_S("")));
    row.models = CM_S("[\"gpt-4o\", \"o3*\", \"demo/\\u002a\", \"openai/gpt-4.1\"]");
    key = put(&row, "s");
    ck_assert(cm_key_allows(key, CM_S("gpt-4o")));
    ck_assert(!cm_key_allows(key, CM_S("gpt-4o-mini")) && !cm_key_allows(key, CM_S("gpt-4")));
    ck_assert(!cm_key_allows(key, CM_S("openai/gpt-4o")) && !cm_key_allows(key, CM_S("GPT-4o")));
    ck_assert(cm_key_allows(key, CM_S("o3")) && cm_key_allows(key, CM_S("o3-mini")));
    ck_assert(cm_key_allows(key, CM_S("demo/x/y")) && !cm_key_allows(key, CM_S("demo")));
    ck_assert(cm_key_allows(key, CM_S("openai/gpt-4.1")) && !cm_key_allows(key, CM_S("gpt-4.1")));
    row.models = CM_S("[\"*\"]");
    ck_assert(cm_key_allows(put(&row, "s"), CM_S("x")));
}
END_TEST

START_TEST(an_allow_list_that_cannot_be_read_allows_nothing)
{
    static const char *const broken[] = {"[]", "[1]", "{\"a\":\"*\"}", "[\"*\"", "x", "[[\"*\"]]"};
    struct cm_key_row row = row_of(1, "s");

    for (size_t i = 0; i < CM_COUNT(broken); i++) {
        row.models = cm_str_of(broken[i]);
        ck_assert_msg(!cm_key_allows(put(&row, "s"), CM_S("x")), "%s", broken[i]);
        ck_assert(!cm_key_allows(find("s"), CM_S("")));
    }
}
END_TEST

/* --- windows -------------------------------------------------------------------------------- */

START_TEST(requests_per_minute)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_key *key;
    struct cm_key_limits l;

    row.rpm = 3;
    key = put(&row, "s");
    l = limits_of(key);
    ck_assert_int_eq(l.limit_requests, 3);
    ck_assert_int_eq(l.remaining_requests, 3);
    ck_assert_int_eq(l.reset_requests_ms, 0);
    mono = 1000999; /* at the very end of a second */
    used(key, 0, 0);
    pass(10000);
    used(key, 0, 0);
    used(key, 0, 0);
    l = limits_of(key);
    ck_assert_int_eq(l.remaining_requests, 0);
    ck_assert_int_eq(l.reset_requests_ms, 1010000 + 61000 - 1010999);
    refused(key, 0, 0, 51, "3 requests per minute: try again in 51 s");
    mono = 1060998; /* not yet 60 s */
    refused(key, 0, 0, 1, "try again in 1 s");
    pass(1);
    refused(key, 0, 0, 1, "");
    pass(1);
    used(key, 0, 0);
    refused(key, 0, 0, 10, "try again in 10 s");
    pass(10000);
    used(key, 0, 0);
    used(key, 0, 0);
    refused(key, 0, 0, 51, "");
    pass(100000000);
    ck_assert_int_eq(limits_of(key).remaining_requests, 3);
}
END_TEST

/* Whoever comes back when told gets in: at every phase of a second. */
START_TEST(the_time_told_is_enough)
{
    for (uint64_t phase = 37; phase < 1000; phase += 37) {
        struct cm_key_row row = row_of(phase + 1, "s");
        struct cm_key *key;

        row.rpm = 2;
        row.tpm = 100;
        cm_keys_put(keys, &row);
        key = find("s");
        mono += phase;
        used(key, 60, 0);
        pass((int64_t)phase * 50);
        used(key, 40, 0);
        ck_assert_int_eq(cm_key_reserve(key, 1, 0, &(struct cm_reservation){0}, &err), -1);
        ck_assert_int_le(err.retry_after_s, 61);
        pass(err.retry_after_s * 1000);
        used(key, 60, 0);
        ck_assert_int_eq(cm_key_reserve(key, 1, 0, &(struct cm_reservation){0}, &err), -1);
        pass(err.retry_after_s * 1000);
        used(key, 1, 0);
        cm_keys_delete(keys, phase + 1);
    }
}
END_TEST

START_TEST(tokens_per_minute)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_reservation a, b;
    struct cm_key *key;

    row.tpm = 1000;
    key = put(&row, "s");
    refused(key, 1001, 0, 0, "may need 1001 tokens, and this key may use 1000 per minute");
    a = taken(key, 700, 0);
    refused(key, 301, 0, 61,
            "may use 1000 tokens per minute, has used 700, and this request may need 301");
    pass(5000);
    b = taken(key, 300, 0);
    cm_key_settle(&a, 200, 0); /* 500 come back */
    ck_assert_int_eq(limits_of(key).remaining_tokens, 500);
    cm_key_settle(&b, 900, 0); /* 600 more than thought, from now on */
    ck_assert_int_eq(limits_of(key).remaining_tokens, 0);
    refused(key, 1, 0, 56, "has used 1100");
    pass(56000);
    refused(key, 500, 0, 5, "has used 900");
    used(key, 100, 0);
    pass(5000);
    ck_assert_int_eq(limits_of(key).remaining_tokens, 900);
    ck_assert_int_eq(limits_of(key).limit_tokens, 1000);
    ck_assert_int_eq(limits_of(key).reset_tokens_ms, 56000);
}
END_TEST

START_TEST(tokens_of_long_answers)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_reservation a, b;
    struct cm_key *key;

    row.tpm = 1000;
    key = put(&row, "s");
    a = taken(key, 400, 0);
    b = taken(key, 400, 0);
    pass(300000);
    ck_assert_int_eq(limits_of(key).remaining_tokens, 1000);
    used(key, 50, 0);
    cm_key_settle(&a, 100, 0); /* what came back then does not come back twice */
    ck_assert_int_eq(limits_of(key).remaining_tokens, 950);
    cm_key_settle(&b, 500, 0);
    ck_assert_int_eq(limits_of(key).remaining_tokens, 850);
}
END_TEST

START_TEST(a_released_request_gives_its_tokens_back)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_reservation r;
    struct cm_key *key;

    row.tpm = 1000;
    row.rpm = 10;
    row.budget_micro_usd = 100;
    row.max_parallel = 1;
    key = put(&row, "s");
    r = taken(key, 1000, 100);
    ck_assert_int_eq(limits_of(key).reserved_micro_usd, 100);
    cm_key_release(&r);
    ck_assert_ptr_null(r.key);
    cm_key_release(&r);
    cm_key_settle(&r, 5, 5);
    ck_assert_int_eq(limits_of(key).remaining_tokens, 1000);
    ck_assert_int_eq(limits_of(key).remaining_requests, 9);
    ck_assert_int_eq(limits_of(key).reserved_micro_usd, 0);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 0);
    ck_assert_int_eq(limits_of(key).parallel, 0);
}
END_TEST

START_TEST(a_long_request_counts_what_it_has_used_so_far)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_reservation r;
    struct cm_key *key;

    row.tpm = 1000;
    row.budget_micro_usd = 100;
    key = put(&row, "s");
    r = taken(key, 50, 40);
    ck_assert_int_eq(cm_key_raise(&r, 20, 30, &err), 0); /* less than was reserved */
    ck_assert_int_eq(limits_of(key).reserved_micro_usd, 40);
    ck_assert_int_eq(limits_of(key).remaining_tokens, 950);
    ck_assert_int_eq(cm_key_raise(&r, 300, 90, &err), 0);
    ck_assert_int_eq(limits_of(key).reserved_micro_usd, 90);
    ck_assert_int_eq(limits_of(key).remaining_tokens, 700);
    refused(key, 1, 20, 1, "are reserved by open requests");
    ck_assert_int_eq(cm_key_raise(&r, 400, 110, &err), -1);
    ck_assert_int_eq(err.cls, CM_ERR_CLIENT_LIMIT);
    ck_assert_str_eq(err.code, "insufficient_quota");
    ck_assert_int_eq(limits_of(key).reserved_micro_usd, 110);
    cm_key_settle(&r, 400, 110);
    ck_assert_int_eq(limits_of(key).reserved_micro_usd, 0);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 110);
    ck_assert_int_eq(limits_of(key).remaining_tokens, 600);
    ck_assert_int_eq(limits_of(key).parallel, 0);
    ck_assert_int_eq(cm_key_raise(&r, 1, 1, &err), 0); /* settled already: nothing */
}
END_TEST

START_TEST(a_long_request_ends_with_its_key)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_reservation r = taken(put(&row, "s"), 5, 5);

    cm_keys_delete(keys, 1);
    ck_assert_int_eq(cm_key_raise(&r, 10, 10, &err), -1);
    ck_assert_int_eq(err.cls, CM_ERR_UNAUTHORIZED);
    cm_key_settle(&r, 10, 10);
}
END_TEST

START_TEST(requests_at_once)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_reservation a, b;
    struct cm_key *key;

    row.max_parallel = 2;
    key = put(&row, "s");
    a = taken(key, 0, 0);
    b = taken(key, 0, 0);
    pass(1000000);
    refused(key, 0, 0, 1, "may have 2 requests open at once, and has 2");
    cm_key_release(&a);
    a = taken(key, 0, 0);
    cm_key_release(&a);
    cm_key_release(&b);
    ck_assert_int_eq(limits_of(key).parallel, 0);
}
END_TEST

START_TEST(replaced_limits_hold_from_the_next_request_on)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_reservation a, b, c;
    struct cm_key *key;

    row.rpm = 10;
    row.tpm = 100;
    row.max_parallel = 3;
    row.budget_micro_usd = 100;
    key = put(&row, "s");
    a = taken(key, 50, 50);
    b = taken(key, 50, 50);
    row.rpm = 2;
    ck_assert_ptr_eq(put(&row, "s"), key);
    refused(key, 0, 0, 61, "2 requests per minute");
    row.rpm = 0;
    row.tpm = 60;
    cm_keys_put(keys, &row);
    refused(key, 1, 0, 61, "has used 100");
    ck_assert_int_eq(limits_of(key).limit_requests, -1);
    row.tpm = 0;
    row.max_parallel = 1;
    cm_keys_put(keys, &row);
    refused(key, 0, 0, 1, "has 2");
    row.max_parallel = 0;
    row.budget_micro_usd = 80;
    cm_keys_put(keys, &row);
    refused(key, 0, 1, 1, "may spend $0.00008 in total");
    row.budget_micro_usd = 0;
    cm_keys_put(keys, &row);
    c = taken(key, 1000, 1000); /* nothing is limited */
    row.tpm = 100;
    cm_keys_put(keys, &row);
    cm_key_settle(&a, 20, 20);
    cm_key_settle(&b, 30, 30);
    ck_assert_int_eq(limits_of(key).remaining_tokens, 50);
    cm_key_settle(&c, 7, 1000); /* was not counted; is now */
    ck_assert_int_eq(limits_of(key).remaining_tokens, 43);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 1050);
    ck_assert_int_eq(limits_of(key).reserved_micro_usd, 0);
    ck_assert_int_eq(limits_of(key).parallel, 0);
}
END_TEST

START_TEST(absurd_figures_are_bounded)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_reservation r[3];
    struct cm_key *key = put(&row, "s");

    for (size_t i = 0; i < CM_COUNT(r); i++)
        r[i] = taken(key, INT64_MAX, INT64_MAX);
    row.tpm = row.rpm = row.budget_micro_usd = INT64_MAX;
    cm_keys_put(keys, &row);
    cm_key_settle(&r[0], INT64_MAX, INT64_MAX);
    cm_key_settle(&r[1], -5, -5);
    cm_key_settle(&r[2], INT64_MIN, INT64_MIN);
    used(key, -1, -1);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, INT64_C(1000000000000));
    cm_keys_true_up(keys, 1, INT64_MAX);
    used(key, INT64_MAX, INT64_MAX);
    cm_keys_true_up(keys, 1, -3);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 0);
    row.tpm = row.rpm = row.budget_micro_usd = row.max_parallel = row.expires_s = INT64_MIN;
    cm_keys_put(keys, &row);
    ck_assert_ptr_null(find("s"));
    ck_assert(told("expired"));
}
END_TEST

/* --- budgets -------------------------------------------------------------------------------- */

START_TEST(a_budget_in_total)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_reservation r;
    struct cm_key *key;

    row.budget_micro_usd = 10 * USD;
    key = put(&row, "s");
    r = taken(key, 0, 6 * USD);
    refused(key, 0, 4 * USD + 1, 1,
            "may spend $10.00 in total, has spent $0.00, $6.00 are reserved by open requests, and "
            "this request may cost $4.000001");
    ck_assert_str_eq(cm_err_code(&err), "rate_limit_exceeded");
    used(key, 0, 4 * USD);
    cm_key_settle(&r, 0, 5 * USD + USD / 2);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 9 * USD + USD / 2);
    pass(400 * DAY);
    refused(key, 0, USD, 0, "has spent $9.50, $0.00 are reserved");
    ck_assert_str_eq(cm_err_code(&err), "insufficient_quota");
    used(key, 0, USD / 2);
    used(key, 0, 0); /* what costs nothing goes on */
    ck_assert_int_eq(cm_key_period_began_ms(key, unix_now), 0);
}
END_TEST

/* The first and the last millisecond of the period belong to it. */
static void spend_over(const char *period, int64_t begins, int64_t ends, const char *next)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_key *key;

    row.budget_micro_usd = USD;
    row.budget_period = cm_str_of(period);
    unix_now = begins - 1;
    key = put(&row, "s");
    used(key, 0, USD);
    refused(key, 0, 1, 1, next);
    ck_assert_str_eq(cm_err_code(&err), "insufficient_quota");
    pass(1);
    ck_assert_int_eq(cm_key_period_began_ms(key, unix_now), begins);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 0);
    used(key, 0, USD);
    refused(key, 0, 1, (int)((ends - begins) / 1000), "has spent $1.00");
    refused(key, 0, USD + 1, 0, "may cost $1.000001");
    unix_now = ends - 1;
    ck_assert_int_eq(cm_key_period_began_ms(key, unix_now), begins);
    refused(key, 0, 1, 1, "has spent $1.00");
    pass(1);
    used(key, 0, USD);
    cm_keys_delete(keys, 1);
}

START_TEST(budgets_by_day_week_and_month)
{
    spend_over("day", FRIDAY, FRIDAY + DAY, "the next day begins at 2026-11-20T00:00:00");
    spend_over("week", MONDAY, MONDAY + 7 * DAY, "the next week begins at 2026-11-16T00:00:00");
    spend_over("month", FIRST, FIRST + 30 * DAY, "the next month begins at 2026-11-01T00:00:00");
    spend_over("month", INT64_C(1798761600000), INT64_C(1798761600000) + 31 * DAY, "2027-01-01T");
    spend_over("month", INT64_C(1706745600000), INT64_C(1706745600000) + 29 * DAY, "2024-02-01T");
    spend_over("month", INT64_C(1738368000000), INT64_C(1738368000000) + 28 * DAY, "2025-02-01T");
    spend_over("month", -31 * DAY, 0, "1969-12-01T"); /* a machine without a clock of its own */
    spend_over("week", -3 * DAY, 4 * DAY, "1969-12-29T");
    spend_over("day", -DAY, 0, "1969-12-31T");
}
END_TEST

/* Every month from 1968 to 2110, by another way to count. */
START_TEST(months_begin_where_the_calendar_says)
{
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    struct cm_key_row row = row_of(1, "s");
    struct cm_key *key;
    int64_t day = -731;

    row.budget_micro_usd = 1;
    row.budget_period = CM_S("month");
    key = put(&row, "s");
    for (int year = 1968; year < 2110; year++) {
        for (int month = 0; month < 12; month++) {
            bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            int days = lengths[month] + (month == 1 && leap);

            for (int d = 0; d < days; d++)
                ck_quick(cm_key_period_began_ms(key, (day + d) * DAY + d * 1000) == day * DAY);
            day += days;
        }
    }
}
END_TEST

START_TEST(a_period_changes_while_requests_are_open)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_reservation a, b;
    struct cm_key *key;

    row.budget_micro_usd = 10 * USD;
    row.budget_period = CM_S("day");
    unix_now = FRIDAY + DAY - 1000;
    key = put(&row, "s");
    used(key, 0, 3 * USD);
    a = taken(key, 0, 5 * USD);
    b = taken(key, 0, 2 * USD);
    pass(2000); /* Saturday: the open ones weigh on it, what ended yesterday does not */
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 0);
    ck_assert_int_eq(limits_of(key).reserved_micro_usd, 7 * USD);
    refused(key, 0, 3 * USD + 1, 1, "has spent $0.00, $7.00 are reserved");
    cm_key_settle(&a, 0, 4 * USD);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 4 * USD);
    refused(key, 0, 4 * USD + 1, 1, "");
    cm_key_release(&b);
    used(key, 0, 6 * USD);
    refused(key, 0, 1, (int)(DAY / 1000) - 1, "has spent $10.00");
}
END_TEST

START_TEST(a_unix_clock_that_jumps)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_key *key;

    row.budget_micro_usd = 10 * USD;
    row.budget_period = CM_S("day");
    row.rpm = 4;
    key = put(&row, "s");
    used(key, 0, 7 * USD);
    unix_now += DAY; /* set wrong */
    used(key, 0, 2 * USD);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 2 * USD);
    unix_now -= DAY; /* and right again */
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 7 * USD);
    refused(key, 0, 3 * USD + 1, 12 * 3600, "has spent $7.00");
    used(key, 0, USD);
    unix_now -= 3 * DAY;
    used(key, 0, 10 * USD);
    refused(key, 0, 0, 61, "4 requests per minute"); /* windows do not know of it */
    unix_now += 3 * DAY;
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 8 * USD);
}
END_TEST

START_TEST(a_budget_with_another_period)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_key *key;

    row.budget_micro_usd = 10 * USD;
    row.budget_period = CM_S("month");
    unix_now = MONDAY - DAY;
    key = put(&row, "s");
    used(key, 0, 4 * USD); /* Sunday */
    pass(DAY);
    used(key, 0, 2 * USD); /* Monday */
    pass(DAY);
    used(key, 0, USD);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 7 * USD);
    row.budget_period = CM_S("week");
    cm_keys_put(keys, &row);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 3 * USD);
    row.budget_period = CM_S("day");
    cm_keys_put(keys, &row);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, USD);
    refused(key, 0, 9 * USD + 1, (int)(DAY / 1000), "per day");
    row.budget_period = CM_S("total");
    cm_keys_put(keys, &row);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 7 * USD);
}
END_TEST

/* --- the ledger ----------------------------------------------------------------------------- */

START_TEST(the_ledger_is_believed)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_key *key;

    row.budget_micro_usd = 10 * USD;
    row.budget_period = CM_S("day");
    key = put(&row, "s");
    cm_keys_true_up(keys, 1, 8 * USD); /* at start */
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 8 * USD);
    ck_assert_int_eq(cm_keys_drift(keys), 0);
    refused(key, 0, 2 * USD + 1, 12 * 3600, "has spent $8.00");

    used(key, 0, USD);
    cm_keys_true_up_begin(keys);
    used(key, 0, USD / 2); /* not in the answer */
    cm_keys_true_up(keys, 1, 8 * USD + USD / 4);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 8 * USD + USD / 4 + USD / 2);
    ck_assert_int_eq(limits_of(key).drift_micro_usd, 3 * USD / 4);
    ck_assert_int_eq(cm_keys_drift(keys), 3 * USD / 4);
    cm_keys_true_up(keys, 1, 0); /* one answer each */
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 8 * USD + 3 * USD / 4);

    cm_keys_true_up_begin(keys);
    cm_keys_true_up(keys, 1, 9 * USD);
    ck_assert_int_eq(limits_of(key).drift_micro_usd, -USD / 4);
    ck_assert_int_eq(cm_keys_drift(keys), USD / 4);
    cm_keys_true_up(keys, 2, 9 * USD); /* nobody's */

    cm_keys_true_up_begin(keys);
    pass(DAY);
    cm_keys_true_up(keys, 1, 9 * USD); /* of yesterday */
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 0);
}
END_TEST

START_TEST(the_ledger_is_asked_for_each_period)
{
    struct cm_key_row day = row_of(1, "day"), week = row_of(2, "week"), none = row_of(3, "none");
    const struct cm_spent of_today[] = {{1, 5}, {2, 5}, {3, 5}, {4, 5}}, of_week[] = {{2, 50}};
    const struct cm_spent ever[] = {{3, 700}};

    day.budget_period = CM_S("day");
    week.budget_period = CM_S("week");
    day.budget_micro_usd = week.budget_micro_usd = USD;
    cm_keys_put(keys, &day);
    cm_keys_put(keys, &week);
    cm_keys_put(keys, &none);
    cm_keys_true_up_since(keys, FRIDAY, of_today, CM_COUNT(of_today));
    cm_keys_true_up_since(keys, MONDAY, of_week, CM_COUNT(of_week));
    cm_keys_true_up_since(keys, 0, ever, CM_COUNT(ever));
    ck_assert_int_eq(limits_of(find("day")).spent_micro_usd, 5);
    ck_assert_int_eq(limits_of(find("week")).spent_micro_usd, 50);
    ck_assert_int_eq(limits_of(find("none")).spent_micro_usd, 700);

    unix_now = MONDAY + 7 * DAY; /* a day and a week begin together: two answers for each */
    cm_keys_true_up_begin(keys);
    used(find("day"), 0, 3);
    cm_keys_true_up_since(keys, unix_now, NULL, 0);
    cm_keys_true_up_since(keys, unix_now, NULL, 0);
    cm_keys_true_up_since(keys, 0, NULL, 0);
    ck_assert_int_eq(limits_of(find("day")).spent_micro_usd, 3);
    ck_assert_int_eq(limits_of(find("none")).spent_micro_usd, 0);
    ck_assert_int_eq(cm_keys_drift(keys), 700);
}
END_TEST

START_TEST(an_answer_about_another_period_is_not_taken)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_key *key;

    row.budget_micro_usd = USD;
    row.budget_period = CM_S("month");
    unix_now = MONDAY;
    key = put(&row, "s");
    cm_keys_true_up(keys, 1, 700);
    cm_keys_true_up_begin(keys);
    row.budget_period = CM_S("day");
    cm_keys_put(keys, &row);
    row.budget_period = CM_S("week"); /* begins with the day */
    cm_keys_put(keys, &row);
    cm_keys_true_up(keys, 1, 800);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 0);
    cm_keys_true_up_begin(keys);
    cm_keys_true_up(keys, 1, 50); /* the first about the week: nothing to compare with */
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 50);
    ck_assert_int_eq(cm_keys_drift(keys), 0);
    cm_keys_true_up_begin(keys);
    row.budget_period = CM_S("day");
    cm_keys_put(keys, &row);
    cm_keys_true_up(keys, 1, 60); /* was asked for the week */
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 0);
}
END_TEST

/* --- what outlives what --------------------------------------------------------------------- */

START_TEST(a_key_is_deleted_while_requests_are_open)
{
    struct cm_key_row row = row_of(1, "s");
    struct cm_reservation a, b, more = {0};
    struct cm_key *key;

    row.tpm = 100;
    row.models = CM_S("[\"m\"]");
    row.name = CM_S("alice");
    key = put(&row, "s");
    a = taken(key, 50, 5);
    b = taken(key, 50, 5);
    cm_keys_delete(keys, 1);
    ck_assert_ptr_null(find("s"));
    ck_str(cm_key_row(a.key)->name, "alice");
    ck_assert(cm_key_allows(a.key, CM_S("m")));
    ck_assert_int_eq(cm_key_reserve(key, 0, 0, &more, &err), -1);
    ck_assert_int_eq(err.cls, CM_ERR_UNAUTHORIZED);
    ck_assert(told("deleted"));
    cm_key_settle(&a, 1, 1);
    ck_assert_int_eq(limits_of(key).parallel, 1);
    cm_key_release(&b); /* here it goes */

    key = cm_key_ref(put(&row, "s")); /* the same secret and number, and a new life */
    ck_assert_int_eq(limits_of(key).parallel, 0);
    a = taken(key, 50, 5);
    cm_keys_free(keys);
    keys = NULL;
    cm_key_settle(&a, 1, 1);
    ck_assert_int_eq(limits_of(key).spent_micro_usd, 1);
    cm_key_unref(key);
    cm_key_unref(NULL);
    cm_keys_free(NULL);
}
END_TEST

/* --- a model that cannot be wrong ------------------------------------------------------------ */

enum { WALK_KEYS = 5, OPEN_MAX = 40 };

struct charge {
    uint64_t at_ms;
    int64_t n;
};

struct charges {
    struct charge v[4096];
    size_t n;
};

struct walk_open {
    struct cm_reservation r;
    int64_t tokens, micro_usd;
    uint64_t at_ms;  /* when its tokens were charged */
    int64_t charged; /* to the window of tokens */
};

struct bill { /* what was spent on one day */
    int64_t day_ms, micro_usd;
};

struct walk_key {
    struct cm_key_row row;
    char secret[16];
    struct cm_key *key;
    struct charges requests, tokens;
    struct walk_open open[OPEN_MAX];
    size_t n_open;
    struct bill bills[2000];
    size_t n_bills;
    int64_t ever;
};

struct walk {
    struct cm_rng rng;
    uint64_t next_id;
    struct walk_key keys[WALK_KEYS];
    size_t admitted, refusals, settled, over;
    bool wrong_clocks; /* days that were already there may come again */
};

static int64_t below(struct walk *w, int64_t n)
{
    return (int64_t)cm_rng_below(&w->rng, (uint64_t)n);
}

static void charge(struct charges *c, uint64_t at_ms, int64_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < c->n; i++) { /* forget what nobody asks for any more */
        if (c->v[i].at_ms + 62000 > mono && c->v[i].n != 0)
            c->v[kept++] = c->v[i];
    }
    c->n = kept;
    ck_quick(c->n < CM_COUNT(c->v));
    c->v[c->n++] = (struct charge){at_ms, n};
}

static void uncharge(struct charges *c, uint64_t at_ms, int64_t n)
{
    for (size_t i = 0; i < c->n && n > 0; i++) {
        int64_t less = c->v[i].n < n ? c->v[i].n : n;

        if (c->v[i].at_ms != at_ms)
            continue;
        c->v[i].n -= less;
        n -= less;
    }
}

static int64_t sum_of(const struct charges *c, uint64_t window_ms)
{
    int64_t sum = 0;

    for (size_t i = 0; i < c->n; i++) {
        if (c->v[i].at_ms + window_ms > mono)
            sum += c->v[i].n;
    }
    return sum;
}

/* Takes the beginning of the period from the code under test, and nothing else. */
static int64_t billed(const struct walk_key *wk)
{
    int64_t began = cm_key_period_began_ms(wk->key, unix_now), sum = 0;

    if (began == 0)
        return wk->ever;
    for (size_t i = 0; i < wk->n_bills; i++) {
        if (wk->bills[i].day_ms >= began &&
            cm_key_period_began_ms(wk->key, wk->bills[i].day_ms) == began)
            sum += wk->bills[i].micro_usd;
    }
    return sum;
}

static void bill(struct walk_key *wk, int64_t micro_usd)
{
    int64_t day_ms = unix_now / DAY * DAY;
    size_t i = 0;

    while (i < wk->n_bills && wk->bills[i].day_ms != day_ms)
        i++;
    ck_quick(i < CM_COUNT(wk->bills));
    if (i == wk->n_bills)
        wk->bills[wk->n_bills++] = (struct bill){day_ms, 0};
    wk->bills[i].micro_usd += micro_usd;
    wk->ever += micro_usd;
}

static int64_t reserved(const struct walk_key *wk)
{
    int64_t sum = 0;

    for (size_t i = 0; i < wk->n_open; i++)
        sum += wk->open[i].micro_usd;
    return sum;
}

static int64_t maybe(struct walk *w, int64_t n)
{
    return below(w, 3) == 0 ? 0 : 1 + below(w, n);
}

static void walk_limits(struct walk *w, struct walk_key *wk)
{
    static const char *const periods[] = {"day", "week", "month", "total"};
    enum { FEW_CHANGES = 8 };

    wk->row.rpm = maybe(w, 60);
    wk->row.tpm = maybe(w, 5000);
    wk->row.max_parallel = maybe(w, 12);
    wk->row.budget_micro_usd = maybe(w, 20000);
    if (below(w, FEW_CHANGES) == 0)
        wk->row.budget_period = cm_str_of(periods[below(w, CM_COUNT(periods))]);
    cm_keys_put(keys, &wk->row);
}

static void walk_ask(struct walk *w, bool aligned)
{
    cm_keys_true_up_begin(keys);
    for (size_t i = 0; i < WALK_KEYS; i++)
        cm_keys_true_up(keys, w->keys[i].row.id, billed(&w->keys[i]));
    if (aligned)
        ck_quick(cm_keys_drift(keys) == 0);
}

static void walk_new_key(struct walk *w, struct walk_key *wk)
{
    memset(wk, 0, sizeof(*wk));
    snprintf(wk->secret, sizeof(wk->secret), "secret-%llu", (unsigned long long)w->next_id);
    wk->row = row_of(w->next_id++, wk->secret);
    walk_limits(w, wk);
    wk->key = find(wk->secret);
    ck_quick(wk->key);
}

static void walk_reserve(struct walk *w, struct walk_key *wk)
{
    const struct cm_key_row *row = &wk->row;
    int64_t tokens = below(w, 700), cost = below(w, 900), spent = billed(wk);
    struct cm_reservation r = {0};
    bool in;

    if (wk->n_open == OPEN_MAX)
        return;
    in = cm_key_reserve(wk->key, tokens, cost, &r, &err) == 0;
    if (!in) {
        w->refusals++;
        ck_quick(err.cls == CM_ERR_CLIENT_LIMIT && err.retry_after_s >= 0);
        ck_quick(
            (row->max_parallel > 0 && (int64_t)wk->n_open >= row->max_parallel) ||
            (row->rpm > 0 && sum_of(&wk->requests, 61000) >= row->rpm) ||
            (row->tpm > 0 && sum_of(&wk->tokens, 61000) + tokens > row->tpm) ||
            (row->budget_micro_usd > 0 && spent + reserved(wk) + cost > row->budget_micro_usd));
        return;
    }
    w->admitted++;
    if (row->max_parallel > 0)
        ck_quick((int64_t)wk->n_open < row->max_parallel);
    if (row->rpm > 0) {
        ck_quick(sum_of(&wk->requests, 60000) < row->rpm);
        charge(&wk->requests, mono, 1);
    }
    if (row->tpm > 0) {
        ck_quick(sum_of(&wk->tokens, 60000) + tokens <= row->tpm);
        charge(&wk->tokens, mono, tokens);
    }
    if (row->budget_micro_usd > 0)
        ck_quick(spent + reserved(wk) + cost <= row->budget_micro_usd);
    wk->open[wk->n_open++] = (struct walk_open){r, tokens, cost, mono, row->tpm > 0 ? tokens : 0};
}

static void walk_end(struct walk *w, struct walk_key *wk)
{
    size_t i = (size_t)below(w, (int64_t)wk->n_open + 1);
    bool over = below(w, 10) == 0;
    struct walk_open *o = &wk->open[i];
    int64_t tokens, cost;

    if (i == wk->n_open)
        return;
    tokens = below(w, o->tokens + 1) + (over ? below(w, 300) : 0);
    cost = below(w, o->micro_usd + 1) + (over ? below(w, 300) : 0);
    if (below(w, 5) == 0) {
        tokens = cost = 0;
        cm_key_release(&o->r);
    } else {
        cm_key_settle(&o->r, tokens, cost);
    }
    ck_quick(o->r.key == NULL);
    w->settled++;
    w->over += tokens > o->tokens || cost > o->micro_usd;
    if (tokens < o->charged)
        uncharge(&wk->tokens, o->at_ms, o->charged - tokens);
    else if (tokens > o->charged && wk->row.tpm > 0)
        charge(&wk->tokens, mono, tokens - o->charged);
    bill(wk, cost);
    *o = wk->open[--wk->n_open];
}

static void walk_check(const struct walk_key *wk)
{
    struct cm_key_limits l = limits_of(wk->key);
    int64_t sum = sum_of(&wk->tokens, 60000), most = wk->row.tpm;

    ck_quick(l.parallel == (int64_t)wk->n_open);
    ck_quick(l.reserved_micro_usd == reserved(wk));
    ck_quick(l.spent_micro_usd == billed(wk));
    ck_quick(most == 0 ? l.remaining_tokens == -1
                       : l.remaining_tokens <= (sum < most ? most - sum : 0) &&
                             l.remaining_tokens >= 0 && l.reset_tokens_ms <= 61000);
}

static void walk_pass(struct walk *w, int64_t ms)
{
    int64_t day = unix_now / DAY;

    pass(ms);
    if (w->wrong_clocks && unix_now / DAY != day)
        walk_ask(w, false); /* as the timer would, soon */
}

static void walk_step(struct walk *w)
{
    struct walk_key *wk = &w->keys[below(w, WALK_KEYS)];
    int64_t dice = below(w, 10000);

    if (dice < 4200) {
        walk_reserve(w, wk);
    } else if (dice < 7500) {
        walk_end(w, wk);
    } else if (dice < 9900) {
        walk_pass(w, below(w, 2500));
    } else if (dice < 9960) {
        walk_limits(w, wk);
        walk_ask(w, false);
    } else if (dice < 9970) {
        walk_pass(w, below(w, DAY / 2));
    } else if (dice < 9980) {
        walk_ask(w, true);
    } else if (dice < 9981 && w->wrong_clocks) { /* a wrong clock: the ledger puts things right */
        unix_now += (below(w, 2) == 0 ? 1 : -1) * below(w, 40 * DAY);
        walk_ask(w, false);
    } else if (dice < 9983) { /* deleted with what is open */
        struct walk_open left[OPEN_MAX];
        size_t n = wk->n_open;

        memcpy(left, wk->open, sizeof(left));
        cm_keys_delete(keys, wk->row.id);
        walk_new_key(w, wk);
        for (size_t i = 0; i < n; i++)
            cm_key_settle(&left[i].r, left[i].tokens, left[i].micro_usd);
    }
    walk_check(wk);
}

START_TEST(a_million_steps_beside_a_model)
{
    enum { STEPS = 1000000 };
    const char *given = getenv("WALK_SEED");
    struct walk *w = CM_NEW(struct walk);
    uint64_t seed;

    cm_rand_bytes(&seed, sizeof(seed));
    if (given)
        seed = strtoull(given, NULL, 10);
    printf("keys: WALK_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    cm_rng_seed(&w->rng, seed);
    w->next_id = 1;
    for (size_t i = 0; i < WALK_KEYS; i++)
        walk_new_key(w, &w->keys[i]);
    for (int i = 0; i < STEPS; i++) {
        w->wrong_clocks = i >= STEPS / 2;
        walk_step(w);
    }
    /* The walk must have gone everywhere to mean anything. */
    ck_assert_uint_gt(w->admitted, STEPS / 20);
    ck_assert_uint_gt(w->refusals, STEPS / 20);
    ck_assert_uint_gt(w->settled, STEPS / 20);
    ck_assert_uint_gt(w->over, STEPS / 1000);
    for (size_t i = 0; i < WALK_KEYS; i++) {
        struct walk_key *wk = &w->keys[i];

        while (wk->n_open > 0)
            walk_end(w, wk);
        walk_check(wk);
        ck_assert_int_eq(limits_of(wk->key).parallel, 0);
        ck_assert_int_eq(limits_of(wk->key).reserved_micro_usd, 0);
    }
    free(w);
}
END_TEST

Suite *suite_keys(void)
{
    Suite *s = suite_create("keys");
    TCase *t = tcase_create("keys"), *walk = tcase_create("walk");

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, set_up, clean_up);
    tcase_add_test(t, a_made_key_is_whole);
    tcase_add_test(t, the_checksum_is_the_documented_one);
    tcase_add_test(t, a_mistyped_key_is_told);
    tcase_add_test(t, stored_and_configured_keys_are_found);
    tcase_add_test(t, a_key_may_be_disabled_or_expire);
    tcase_add_test(t, a_replaced_key_may_have_another_secret);
    tcase_add_test(t, of_keys_with_one_secret_the_limited_one_counts);
    tcase_add_test(t, configured_keys_keep_their_counters);
    tcase_add_test(t, models_are_allowed_by_name);
    tcase_add_test(t, an_allow_list_that_cannot_be_read_allows_nothing);
    tcase_add_test(t, requests_per_minute);
    tcase_add_test(t, the_time_told_is_enough);
    tcase_add_test(t, tokens_per_minute);
    tcase_add_test(t, tokens_of_long_answers);
    tcase_add_test(t, a_released_request_gives_its_tokens_back);
    tcase_add_test(t, a_long_request_counts_what_it_has_used_so_far);
    tcase_add_test(t, a_long_request_ends_with_its_key);
    tcase_add_test(t, requests_at_once);
    tcase_add_test(t, replaced_limits_hold_from_the_next_request_on);
    tcase_add_test(t, absurd_figures_are_bounded);
    tcase_add_test(t, a_budget_in_total);
    tcase_add_test(t, budgets_by_day_week_and_month);
    tcase_add_test(t, months_begin_where_the_calendar_says);
    tcase_add_test(t, a_period_changes_while_requests_are_open);
    tcase_add_test(t, a_unix_clock_that_jumps);
    tcase_add_test(t, a_budget_with_another_period);
    tcase_add_test(t, the_ledger_is_believed);
    tcase_add_test(t, the_ledger_is_asked_for_each_period);
    tcase_add_test(t, an_answer_about_another_period_is_not_taken);
    tcase_add_test(t, a_key_is_deleted_while_requests_are_open);

    suite_add_tcase(s, walk);
    tcase_set_timeout(walk, 120);
    tcase_add_checked_fixture(walk, set_up, clean_up);
    tcase_add_test(walk, a_million_steps_beside_a_model);
    return s;
}
