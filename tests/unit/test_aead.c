/* Sealed values: what was sealed opens, and nothing else does. */
#include "unit.h"

#include "chatmux/base/aead.h"
#include "chatmux/base/mem.h"

#include <stdlib.h>

static struct cm_aead_key key_of(const char *master)
{
    struct cm_aead_key key;

    ck_assert_int_eq(cm_aead_derive(&key, cm_str_of(master), CM_S("test"), NULL), 0);
    return key;
}

START_TEST(what_was_sealed_opens)
{
    struct cm_aead_key key = key_of("a master key of sorts");
    char plain[300];

    for (size_t n = 0; n < sizeof(plain); n++) {
        unsigned char *sealed = cm_alloc(n + CM_AEAD_OVERHEAD), *out = cm_alloc(n + 1);

        memset(plain, (int)n, sizeof(plain));
        cm_aead_seal(&key, CM_S("here"), cm_str(plain, n), sealed);
        ck_assert_int_eq(
            cm_aead_open(&key, CM_S("here"), cm_str((char *)sealed, n + CM_AEAD_OVERHEAD), out), 0);
        ck_assert(n == 0 || memcmp(out, plain, n) == 0);
        free(sealed);
        free(out);
    }
}
END_TEST

START_TEST(nothing_else_opens)
{
    struct cm_aead_key key = key_of("a master key of sorts"), other = key_of("another master key");
    unsigned char sealed[6 + CM_AEAD_OVERHEAD], out[6];
    struct cm_str s = cm_str((char *)sealed, sizeof(sealed));

    cm_aead_seal(&key, CM_S("creds/1/secret"), CM_S("sk-123"), sealed);
    ck_assert_int_eq(cm_aead_open(&key, CM_S("creds/1/secret"), s, out), 0);
    ck_assert_int_eq(cm_aead_open(&key, CM_S("creds/2/secret"), s, out), -1);
    ck_assert_int_eq(cm_aead_open(&other, CM_S("creds/1/secret"), s, out), -1);
    for (size_t i = 0; i < sizeof(sealed); i++) /* each byte counts, the format too */
        for (unsigned bit = 0; bit < 8; bit++) {
            sealed[i] ^= (unsigned char)(1U << bit);
            ck_quick(cm_aead_open(&key, CM_S("creds/1/secret"), s, out) == -1);
            sealed[i] ^= (unsigned char)(1U << bit);
        }
    for (size_t n = 0; n < sizeof(sealed); n++)
        ck_quick(cm_aead_open(&key, CM_S("creds/1/secret"), cm_str_head(s, n), out) == -1);
    ck_assert_int_eq(cm_aead_open(&key, CM_S("creds/1/secret"), s, out), 0);
}
END_TEST

START_TEST(a_value_that_does_not_open_leaves_nothing_behind)
{
    struct cm_aead_key key = key_of("a master key of sorts");
    unsigned char sealed[6 + CM_AEAD_OVERHEAD], out[6] = {0};

    cm_aead_seal(&key, CM_S("p"), CM_S("sk-123"), sealed);
    sealed[sizeof(sealed) - 1] ^= 1;
    ck_assert_int_eq(cm_aead_open(&key, CM_S("p"), cm_str((char *)sealed, sizeof(sealed)), out),
                     -1);
    ck_assert(memcmp(out, "\0\0\0\0\0\0", 6) == 0);
}
END_TEST

START_TEST(the_same_text_never_seals_to_the_same_bytes)
{
    struct cm_aead_key key = key_of("a master key of sorts");
    unsigned char a[6 + CM_AEAD_OVERHEAD], b[6 + CM_AEAD_OVERHEAD];

    cm_aead_seal(&key, CM_S("p"), CM_S("sk-123"), a);
    cm_aead_seal(&key, CM_S("p"), CM_S("sk-123"), b);
    ck_assert(memcmp(a, b, sizeof(a)) != 0);
    ck_assert(memcmp(a + 13, b + 13, 6) != 0);
}
END_TEST

/* HKDF-SHA256 with salt "chatmux", computed by another implementation. */
START_TEST(keys_are_what_hkdf_says)
{
    static const unsigned char expected[CM_AEAD_KEY_SIZE] = {
        0xf2, 0x5b, 0x51, 0x75, 0xd0, 0x7c, 0xc6, 0x39, 0xf1, 0x0d, 0x49,
        0xfd, 0x38, 0xb8, 0x92, 0xb6, 0x5e, 0xd1, 0xe4, 0xb3, 0x60, 0x4d,
        0xe6, 0x00, 0x81, 0xf5, 0xb6, 0x82, 0x88, 0xde, 0x4f, 0x74};
    struct cm_aead_key key = key_of("a master key of sorts");

    ck_assert(memcmp(key.bytes, expected, sizeof(expected)) == 0);
}
END_TEST

START_TEST(hex_is_taken_as_bytes_and_short_texts_are_refused)
{
    struct cm_aead_key lower =
        key_of("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
    struct cm_aead_key upper =
        key_of("00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF");
    struct cm_aead_key text =
        key_of("00112233445566778899aabbccddeeff00112233445566778899aabbccddeefg");
    struct cm_aead_key other;
    struct cm_err err = {0};

    ck_assert(memcmp(&lower, &upper, sizeof(lower)) == 0);
    ck_assert(memcmp(&lower, &text, sizeof(lower)) != 0);
    ck_assert_int_eq(cm_aead_derive(&other, CM_S("fifteen bytes.."), CM_S("test"), &err), -1);
    ck_assert_int_eq(err.cls, CM_ERR_CONFIG);
    ck_assert_ptr_nonnull(strstr(err.msg, "15 bytes"));
    ck_assert_int_eq(cm_aead_derive(&other, CM_S("a master key of sorts"), CM_S("other"), NULL), 0);
    text = key_of("a master key of sorts");
    ck_assert(memcmp(&text, &other, sizeof(text)) != 0); /* the purpose counts */
}
END_TEST

Suite *suite_aead(void)
{
    Suite *s = suite_create("aead");
    TCase *t = tcase_create("aead");

    tcase_add_test(t, what_was_sealed_opens);
    tcase_add_test(t, nothing_else_opens);
    tcase_add_test(t, a_value_that_does_not_open_leaves_nothing_behind);
    tcase_add_test(t, the_same_text_never_seals_to_the_same_bytes);
    tcase_add_test(t, keys_are_what_hkdf_says);
    tcase_add_test(t, hex_is_taken_as_bytes_and_short_texts_are_refused);
    suite_add_tcase(s, t);
    return s;
}
