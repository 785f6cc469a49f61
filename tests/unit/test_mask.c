/* gateway/mask: what of an account a text may not quote. */
#include "gateway/mask.h"
#include "unit.h"

#include "chatmux/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

#define JWT "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJlLTEyMzQ1"

static struct mask m;

static bool quotes(const char *text)
{
    return mask_finds(&m, cm_str_of(text));
}

static const struct {
    const char *secret, *token, *proxy, *text;
    bool quotes;
} cases[] = {
    {"sk-abcd1234", "", "", "Incorrect API key: sk-abcd1234.", true},
    {"sk-abcd1234", "", "", "sk-abcd1234", true},
    {"sk-abcd1234", "", "", "Incorrect API key: sk-abcd****", false},
    {"sk-abcd1234", "", "", "k-abcd1234", false},
    {"short-1", "", "", "short-1", false}, /* could be any word */
    {"eightchr", "", "", "so eightchr it is", true},
    /* tokens, and what they are made of */
    {"sk-abcd1234", "plain-token-77", "", "the token plain-token-77 is over", true},
    {"x", "{\"access\":\"" JWT "\",\"refresh\":\"AMf-vB123456789\",\"n\":12345678901234}", "",
     "Invalid token " JWT, true},
    {"x", "{\"access\":\"" JWT "\",\"refresh\":\"AMf-vB123456789\"}", "",
     "INVALID_REFRESH_TOKEN : AMf-vB123456789", true},
    {"x", "{\"a\":[{\"b\":[\"deep-secret-42\"]}]}", "", "deep-secret-42?", true},
    /* what is a word or a number in them is none of a secret */
    {"x", "{\"refresh_token\":\"AMf-vB123456789\",\"type\":\"authorization\"}", "",
     "refresh_token: authorization needed", false},
    {"x", "{\"at\":\"20261120123456\"}", "", "until 20261120123456", false},
    {"x", "{\"broken\":\"AMf-vB123456789\"", "", "AMf-vB123456789", false},
    {"x", "{\"broken\":\"AMf-vB123456789\"", "", "{\"broken\":\"AMf-vB123456789\"", true},
    /* cookies */
    {"theme=darkdarkdarkdark; session=abcDEF123456ghi; lang=en", "", "",
     "no session abcDEF123456ghi", true},
    {"theme=darkdarkdarkdark; session=abcDEF123456ghi; lang=en", "", "", "darkdarkdarkdark", false},
    {"session=abcDEF123456==; x=1", "", "", "abcDEF123456==", true},
    /* a proxy's password */
    {"x", "", "socks5h://user:pass:word@proxy.example:1080", "cannot log in as user with pass:word",
     true},
    {"x", "", "http://proxy.example:3128", "proxy.example:3128 refused", false},
};

START_TEST(what_is_quoted)
{
    struct mask_parts parts = {0};

    mask_add(&m, &parts, cm_str_of(cases[_i].secret), cm_str_of(cases[_i].token),
             cm_str_of(cases[_i].proxy));
    ck_assert_msg(quotes(cases[_i].text) == cases[_i].quotes, "%s", cases[_i].text);
    mask_remove(&m, &parts);
    ck_assert(!quotes(cases[_i].text));
    ck_assert_uint_eq(m.tails.n, 0);
    mask_clear(&m);
}
END_TEST

/* Parts with the same end, and the same part in several accounts. */
START_TEST(accounts_come_and_go)
{
    static const char *const secrets[] = {"one-tail-1234", "two-tail-1234", "one-tail-1234",
                                          "tail-1234"};
    struct mask_parts parts[4] = {0};

    for (size_t i = 0; i < 4; i++)
        mask_add(&m, &parts[i], cm_str_of(secrets[i]), CM_STR_NONE, CM_STR_NONE);
    ck_assert(quotes("two-tail-1234"));
    mask_remove(&m, &parts[3]);
    ck_assert(!quotes("xxx tail-1234"));
    mask_remove(&m, &parts[0]);
    ck_assert(quotes("one-tail-1234")); /* another one has it, too */
    mask_remove(&m, &parts[2]);
    ck_assert(!quotes("one-tail-1234"));
    ck_assert(quotes("two-tail-1234"));
    mask_remove(&m, &parts[1]);
    ck_assert(!quotes("two-tail-1234"));
    mask_clear(&m);
}
END_TEST

/* In any order, all at once. */
START_TEST(cleared_before_its_accounts)
{
    struct mask_parts parts = {0};

    mask_add(&m, &parts, CM_S("sk-abcd1234"), CM_S("plain-token-77"), CM_STR_NONE);
    mask_clear(&m);
    ck_assert(!quotes("sk-abcd1234"));
    mask_remove(&m, &parts);
}
END_TEST

START_TEST(ten_thousand_accounts)
{
    static char secrets[10000][32];
    struct mask_parts *parts = cm_calloc(CM_COUNT(secrets), sizeof(*parts));

    for (size_t i = 0; i < CM_COUNT(secrets); i++) {
        snprintf(secrets[i], sizeof(secrets[i]), "sk-%zu-abcdef", i * 7919);
        mask_add(&m, &parts[i], cm_str_of(secrets[i]), CM_STR_NONE, CM_STR_NONE);
    }
    ck_assert(quotes("the key sk-79182081-abcdef is wrong"));
    ck_assert(!quotes("the key sk-79182080-abcdef is wrong"));
    mask_clear(&m);
    for (size_t i = 0; i < CM_COUNT(secrets); i++)
        mask_remove(&m, &parts[i]);
    free(parts);
}
END_TEST

Suite *suite_mask(void)
{
    Suite *s = suite_create("mask");
    TCase *t = tcase_create("mask");

    tcase_add_loop_test(t, what_is_quoted, 0, CM_COUNT(cases));
    tcase_add_test(t, accounts_come_and_go);
    tcase_add_test(t, cleared_before_its_accounts);
    tcase_add_test(t, ten_thousand_accounts);
    suite_add_tcase(s, t);
    return s;
}
