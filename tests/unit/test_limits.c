/* provider/limits: what heads tell of an account's limits, in both dialects. */
#include "provider/limits_int.h"

#include "unit.h"

#define NOW INT64_C(1700000000000) /* 2023-11-14T22:13:20Z */

static struct cm_limits limits;

static bool reads(size_t n, const char *const pairs[][2])
{
    struct cm_header h[16];

    ck_assert_uint_le(n, CM_COUNT(h));
    for (size_t i = 0; i < n; i++)
        h[i] = (struct cm_header){cm_str_of(pairs[i][0]), cm_str_of(pairs[i][1])};
    return limits_read(h, n, NOW, &limits);
}

#define READS(...)                                                                                 \
    reads(sizeof((const char *const[][2]){__VA_ARGS__}) / sizeof(const char *[2]),                 \
          (const char *const[][2]){__VA_ARGS__})

static void is(const struct cm_limit *l, int64_t limit, int64_t remaining, int64_t reset)
{
    ck_assert_int_eq(l->limit, limit);
    ck_assert_int_eq(l->remaining, remaining);
    ck_assert_int_eq(l->reset_unix_ms, reset);
}

START_TEST(of_openai)
{
    ck_assert(READS({"content-type", "x"}, {"X-RateLimit-Limit-Requests", "60"},
                    {"x-ratelimit-remaining-requests", " 59 "},
                    {"x-ratelimit-reset-requests", "20ms"}, {"x-ratelimit-limit-tokens", "150000"},
                    {"x-ratelimit-remaining-tokens", "0"}, {"x-ratelimit-reset-tokens", "1m30s"}));
    is(&limits.requests, 60, 59, NOW + 20);
    is(&limits.tokens, 150000, 0, NOW + 90000);
    /* one alone */
    ck_assert(READS({"x-ratelimit-limit-tokens", "7"}, {"x-ratelimit-remaining-tokens", "3"}));
    is(&limits.requests, -1, -1, -1);
    is(&limits.tokens, 7, 3, -1);
}
END_TEST

START_TEST(of_anthropic)
{
    ck_assert(READS({"anthropic-ratelimit-requests-limit", "50"},
                    {"anthropic-ratelimit-requests-remaining", "49"},
                    {"Anthropic-RateLimit-Requests-Reset", "2023-11-14T22:13:21Z"},
                    {"anthropic-ratelimit-tokens-limit", "900"},
                    {"anthropic-ratelimit-tokens-remaining", "800"},
                    {"anthropic-ratelimit-tokens-reset", "2023-11-14T22:14:20Z"},
                    {"anthropic-ratelimit-input-tokens-limit", "500"},
                    {"anthropic-ratelimit-input-tokens-remaining", "1"}));
    is(&limits.requests, 50, 49, NOW + 1000);
    is(&limits.tokens, 900, 800, NOW + 60000);
    /* input and output apart: the tighter one */
    ck_assert(READS({"anthropic-ratelimit-input-tokens-limit", "500"},
                    {"anthropic-ratelimit-input-tokens-remaining", "400"},
                    {"anthropic-ratelimit-output-tokens-limit", "80"},
                    {"anthropic-ratelimit-output-tokens-remaining", "70"}));
    is(&limits.tokens, 80, 70, -1);
    ck_assert(READS({"anthropic-ratelimit-input-tokens-limit", "500"},
                    {"anthropic-ratelimit-input-tokens-remaining", "60"},
                    {"anthropic-ratelimit-output-tokens-limit", "80"},
                    {"anthropic-ratelimit-output-tokens-remaining", "70"}));
    is(&limits.tokens, 500, 60, -1);
}
END_TEST

START_TEST(resets_in_every_form)
{
    static const struct {
        const char *text;
        int64_t at;
    } cases[] = {
        {"0s", NOW},
        {"1s", NOW + 1000},
        {"6m0s", NOW + 360000},
        {"2m59.56s", NOW + 179560},
        {"1h2m3s", NOW + 3723000},
        {"1d", NOW + 86400000},
        {"2023-11-14T22:13:20.500Z", NOW + 500},
        {"999999999999999999999d", NOW + INT64_C(366) * 86400000},
        {"", -1},
        {"7", -1},
        {"s", -1},
        {".5s", -1},
        {"1.2.3s", -1},
        {"1s!", -1},
        {"-1s", -1},
        {"soon", -1},
        {"9999-01-01T00:00:00Z", -1},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        ck_assert(READS({"x-ratelimit-limit-requests", "9"},
                        {"x-ratelimit-remaining-requests", "8"},
                        {"x-ratelimit-reset-requests", cases[i].text}));
        ck_assert_msg(limits.requests.reset_unix_ms == cases[i].at, "%s: %lld", cases[i].text,
                      (long long)(limits.requests.reset_unix_ms - NOW));
    }
}
END_TEST

START_TEST(what_tells_nothing)
{
    ck_assert(!limits_read(NULL, 0, NOW, &limits));
    ck_assert(!READS({"x-ratelimit-limit-requests", "60"}));
    ck_assert(
        !READS({"x-ratelimit-limit-requests", "60"}, {"x-ratelimit-remaining-requests", "-1"}));
    ck_assert(!READS({"x-ratelimit-limit", "60"}, {"x-ratelimit-remaining", "1"}));
    ck_assert(!READS({"x-ratelimit-", ""}, {"anthropic-ratelimit-", ""},
                     {"anthropic-ratelimit--", ""}, {"anthropic-ratelimit-limit", "1"},
                     {"x-ratelimit-limit-", "1"}));
}
END_TEST

Suite *suite_limits(void)
{
    Suite *s = suite_create("limits");
    TCase *t = tcase_create("limits");

    tcase_add_test(t, of_openai);
    tcase_add_test(t, of_anthropic);
    tcase_add_test(t, resets_in_every_form);
    tcase_add_test(t, what_tells_nothing);
    suite_add_tcase(s, t);
    return s;
}
