/* Hashes and secrets. */
#include "chatmux/base/crypto.h"
#include "unit.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/utf8.h"

START_TEST(sha256_vectors_of_fips_180)
{
    unsigned char hash[CM_SHA256_SIZE];
    struct cm_buf hex = {0};

    cm_sha256(CM_S("abc"), hash);
    cm_hex(&hex, cm_str((char *)hash, sizeof(hash)));
    ck_str(cm_buf_str(&hex), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    cm_buf_reset(&hex);
    cm_sha256(CM_STR_NONE, hash);
    cm_hex(&hex, cm_str((char *)hash, sizeof(hash)));
    ck_str(cm_buf_str(&hex), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    cm_buf_clear(&hex);
}
END_TEST

START_TEST(secrets_compare)
{
    ck_assert(cm_secret_eq(CM_S("sk-a"), CM_S("sk-a")));
    ck_assert(!cm_secret_eq(CM_S("sk-a"), CM_S("sk-b")));
    ck_assert(!cm_secret_eq(CM_S("sk-a"), CM_S("sk-")));
    ck_assert(!cm_secret_eq(CM_S("sk-"), CM_S("sk-a")));
    ck_assert(cm_secret_eq(CM_STR_NONE, CM_S("")));
}
END_TEST

START_TEST(fingerprint_hides_short_secrets)
{
    char shown[CM_FINGERPRINT_CAP];

    cm_fingerprint(CM_S("abc"), shown);
    ck_assert_str_eq(shown, "…#ba7816bf");
    cm_fingerprint(CM_S("12345678901"), shown);
    ck_assert_uint_eq(strlen(shown), strlen("…#ba7816bf"));
    ck_assert_ptr_null(strstr(shown, "8901#"));
    cm_fingerprint(CM_S("123456789012"), shown);
    ck_assert_int_eq(strncmp(shown, "…9012#", strlen("…9012#")), 0);
    ck_assert_uint_eq(strlen(shown), strlen("…9012#ba7816bf"));
    cm_fingerprint(CM_STR_NONE, shown);
    ck_assert_str_eq(shown, "…#e3b0c442");
}
END_TEST

START_TEST(fingerprint_is_printable)
{
    char shown[CM_FINGERPRINT_CAP];

    cm_fingerprint(CM_S("0123456789\n\x7f\xe4 "), shown);
    ck_assert_int_eq(strncmp(shown, "…????#", strlen("…????#")), 0);
    ck_assert_uint_eq(cm_utf8_valid(cm_str_of(shown)), strlen(shown));
}
END_TEST

Suite *suite_crypto(void)
{
    Suite *s = suite_create("crypto");
    TCase *t = tcase_create("crypto");

    tcase_add_test(t, sha256_vectors_of_fips_180);
    tcase_add_test(t, secrets_compare);
    tcase_add_test(t, fingerprint_hides_short_secrets);
    tcase_add_test(t, fingerprint_is_printable);
    suite_add_tcase(s, t);
    return s;
}
