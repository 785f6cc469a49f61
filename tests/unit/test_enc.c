/* Hex, base64, percent. */
#include "chatmux/base/enc.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

START_TEST(hex_is_lower_case)
{
    struct cm_buf b = {0};

    cm_hex(&b, CM_S("\x00\x1f\xab\xff"));
    ck_str(cm_buf_str(&b), "001fabff");
    cm_hex(&b, CM_STR_NONE);
    ck_assert_uint_eq(b.n, 8);
    cm_buf_clear(&b);
}
END_TEST

START_TEST(base64_vectors_of_rfc_4648)
{
    static const char *const vectors[][2] = {{"", ""},
                                             {"f", "Zg=="},
                                             {"fo", "Zm8="},
                                             {"foo", "Zm9v"},
                                             {"foob", "Zm9vYg=="},
                                             {"fooba", "Zm9vYmE="},
                                             {"foobar", "Zm9vYmFy"}};
    struct cm_buf b = {0};

    for (size_t i = 0; i < CM_COUNT(vectors); i++) {
        struct cm_str plain = cm_str_of(vectors[i][0]), coded = cm_str_of(vectors[i][1]);
        size_t bare = cm_str_find_char(coded, '=');

        cm_buf_reset(&b);
        cm_base64(&b, plain);
        ck_assert(cm_str_eq(cm_buf_str(&b), coded));
        cm_buf_reset(&b);
        cm_base64url(&b, plain);
        ck_assert(cm_str_eq(cm_buf_str(&b), cm_str_head(coded, bare)));
        cm_buf_reset(&b);
        ck_assert_int_eq(cm_base64_decode(&b, coded), 0);
        ck_assert(cm_str_eq(cm_buf_str(&b), plain));
        cm_buf_reset(&b);
        ck_assert_int_eq(cm_base64_decode(&b, cm_str_head(coded, bare)), 0);
        ck_assert(cm_str_eq(cm_buf_str(&b), plain));
    }
    cm_buf_reset(&b);
    cm_base64(&b, CM_S("\xfb\xff\xbf"));
    cm_base64url(&b, CM_S("\xfb\xff\xbf"));
    ck_str(cm_buf_str(&b), "+/+/-_-_");
    cm_buf_clear(&b);
}
END_TEST

START_TEST(base64_round_trip_of_every_length)
{
    struct cm_buf coded = {0}, back = {0};
    char bytes[2000];

    cm_rand_bytes(bytes, sizeof(bytes));
    for (size_t n = 0; n <= sizeof(bytes); n++) {
        cm_buf_reset(&coded);
        cm_buf_reset(&back);
        back.limit = n > 0 ? n : 1; /* not a byte more is needed */
        if (n % 2)
            cm_base64(&coded, cm_str(bytes, n));
        else
            cm_base64url(&coded, cm_str(bytes, n));
        ck_assert_int_eq(cm_base64_decode(&back, cm_buf_str(&coded)), 0);
        ck_assert(cm_str_eq(cm_buf_str(&back), cm_str(bytes, n)));
    }
    cm_buf_clear(&coded);
    cm_buf_clear(&back);
}
END_TEST

START_TEST(base64_takes_white_space_and_nothing_else)
{
    static const char *const broken[] = {
        "Z",        "Zm9vY", "Zg=",  "Zg===",    "Zm8==", "Zm9v=",     "=",
        "Zg==Zg==", "Z=g=",  "====", "Zm9v====", "Zm9*",  "Zm\xc3\xa4"};
    struct cm_buf b = {0};

    ck_assert_int_eq(cm_base64_decode(&b, CM_S(" Z m\r\n9v\tYg= =\n")), 0);
    ck_str(cm_buf_str(&b), "foob");
    for (size_t i = 0; i < CM_COUNT(broken); i++)
        ck_assert_msg(cm_base64_decode(&b, cm_str_of(broken[i])) == -1, "%s", broken[i]);
    ck_assert_int_eq(cm_base64_decode(&b, CM_S("Zm9\0")), -1);
    cm_buf_clear(&b);
    b.limit = 2;
    ck_assert_int_eq(cm_base64_decode(&b, CM_S("Zm9v")), -1);
    cm_buf_clear(&b);
}
END_TEST

START_TEST(percent_there_and_back)
{
    struct cm_buf b = {0}, back = {0};
    char all[256];

    cm_percent(&b, CM_S("aZ09-._~ /?&=+%ä\0"));
    ck_str(cm_buf_str(&b), "aZ09-._~%20%2F%3F%26%3D%2B%25%C3%A4%00");
    cm_buf_reset(&b);
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    cm_percent(&b, cm_str(all, sizeof(all)));
    ck_assert_uint_eq(b.n, 66 + 190 * 3);
    ck_assert_int_eq(cm_percent_decode(&back, cm_buf_str(&b), true), 0);
    ck_assert(cm_str_eq(cm_buf_str(&back), cm_str(all, sizeof(all))));
    cm_buf_clear(&b);
    cm_buf_clear(&back);
}
END_TEST

START_TEST(percent_decoding_is_strict)
{
    static const char *const broken[] = {"%", "%4", "a%", "%g0", "%0g", "%%41", "%+1", "% 1"};
    struct cm_buf b = {0};

    ck_assert_int_eq(cm_percent_decode(&b, CM_S("a+b%2b%2B"), false), 0);
    ck_str(cm_buf_str(&b), "a+b++");
    cm_buf_reset(&b);
    ck_assert_int_eq(cm_percent_decode(&b, CM_S("a+b%2b"), true), 0);
    ck_str(cm_buf_str(&b), "a b+");
    for (size_t i = 0; i < CM_COUNT(broken); i++)
        ck_assert_msg(cm_percent_decode(&b, cm_str_of(broken[i]), false) == -1, "%s", broken[i]);
    cm_buf_clear(&b);
    b.limit = 2;
    ck_assert_int_eq(cm_percent_decode(&b, CM_S("abc"), false), -1);
    cm_buf_clear(&b);
}
END_TEST

Suite *suite_enc(void)
{
    Suite *s = suite_create("enc");
    TCase *t = tcase_create("enc");

    tcase_add_test(t, hex_is_lower_case);
    tcase_add_test(t, base64_vectors_of_rfc_4648);
    tcase_add_test(t, base64_round_trip_of_every_length);
    tcase_add_test(t, base64_takes_white_space_and_nothing_else);
    tcase_add_test(t, percent_there_and_back);
    tcase_add_test(t, percent_decoding_is_strict);
    suite_add_tcase(s, t);
    return s;
}
