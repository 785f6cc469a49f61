/* Addresses as text; networks are in test_address.c, with what they are for. */
#include "chatmux/base/net.h"

#include "chatmux/base/mem.h"
#include "unit.h"

START_TEST(addresses_in_their_notations)
{
    static const struct {
        const char *text, *same; /* NULL = no address */
    } rows[] = {
        {"10.0.0.1", "::ffff:10.0.0.1"},
        {"[::1]", "::1"},
        {"[::ffff:10.0.0.1]", "10.0.0.1"},
        {"[10.0.0.1]", NULL}, /* brackets are for colons */
        {"[]", NULL},
        {"[::1", NULL},
        {"::1%lo", NULL},
        {"10.1", NULL},
        {"010.0.0.1", NULL},
        {"10.0.0.1 ", NULL},
        {"localhost", NULL},
        {"", NULL},
    };

    for (size_t i = 0; i < CM_COUNT(rows); i++) {
        struct cm_ip ip, same;
        const int rc = cm_ip_parse(cm_str_of(rows[i].text), &ip);

        ck_assert_msg(rc == (rows[i].same ? 0 : -1), "%s", rows[i].text);
        if (rows[i].same) {
            ck_assert_int_eq(cm_ip_parse(cm_str_of(rows[i].same), &same), 0);
            ck_assert_mem_eq(ip.bytes, same.bytes, sizeof(ip.bytes));
        }
    }
    ck_assert_int_eq(cm_ip_parse(CM_S("::1\0"), &(struct cm_ip){0}), -1);
    ck_assert_int_eq(cm_ip_parse(CM_STR_NONE, &(struct cm_ip){0}), -1);
}
END_TEST

Suite *suite_net(void)
{
    Suite *s = suite_create("net");
    TCase *t = tcase_create("net");

    tcase_add_test(t, addresses_in_their_notations);
    suite_add_tcase(s, t);
    return s;
}
