/* Limits per address, addresses behind proxies, networks. */
#include "unit.h"

#include "chatmux/base/net.h"
#include "gateway/address.h"

#include <stdio.h>

struct step {
    uint64_t at_s;
    bool accepted;
};

static void play(int64_t limit, const struct step *steps, size_t n)
{
    struct address_limiter l;
    int wait_s = 0;

    address_limiter_init(&l);
    for (size_t i = 0; i < n; i++) {
        bool fits = address_fits(&l, CM_S("192.0.2.1"), limit, 1000 + steps[i].at_s, &wait_s);

        ck_assert_msg(fits == steps[i].accepted, "limit %d, step %zu at %d s", (int)limit, i,
                      (int)steps[i].at_s);
        if (fits)
            address_record(&l, CM_S("192.0.2.1"), limit, 1000 + steps[i].at_s);
        else
            ck_assert_int_gt(wait_s, 0);
    }
    address_limiter_clear(&l);
}

/* The three rows of the limiter that the seed systems share. */
START_TEST(window_slides_in_whole_seconds)
{
    static const struct step a[] = {{0, true},   {0, true},    {0, true},  {0, false},
                                    {59, false}, {60, true},   {60, true}, {60, true},
                                    {60, false}, {119, false}, {120, true}};
    static const struct step b[] = {{0, true},  {30, false}, {59, false},
                                    {60, true}, {61, false}, {120, true}};
    static const struct step c[] = {{0, true},   {10, true}, {20, true}, {30, false},  {60, true},
                                    {61, false}, {70, true}, {80, true}, {119, false}, {120, true}};

    play(3, a, CM_COUNT(a));
    play(1, b, CM_COUNT(b));
    play(3, c, CM_COUNT(c));
}
END_TEST

START_TEST(addresses_do_not_share_a_window)
{
    struct address_limiter l;
    int wait_s = 0;

    address_limiter_init(&l);
    address_record(&l, CM_S("192.0.2.1"), 1, 5);
    ck_assert(!address_fits(&l, CM_S("192.0.2.1"), 1, 6, &wait_s));
    ck_assert_int_eq(wait_s, 59);
    ck_assert(address_fits(&l, CM_S("192.0.2.2"), 1, 6, &wait_s));
    ck_assert(address_fits(&l, CM_S("192.0.2.1"), 0, 6, &wait_s));
    address_limiter_clear(&l);
}
END_TEST

START_TEST(a_changed_limit_keeps_what_was_seen)
{
    struct address_limiter l;
    int wait_s = 0;

    address_limiter_init(&l);
    for (uint64_t t = 1; t <= 4; t++)
        address_record(&l, CM_S("a"), 4, t);
    ck_assert(!address_fits(&l, CM_S("a"), 2, 5, &wait_s));
    address_record(&l, CM_S("a"), 6, 5);
    ck_assert(address_fits(&l, CM_S("a"), 6, 5, &wait_s));
    address_record(&l, CM_S("a"), 6, 5);
    ck_assert(!address_fits(&l, CM_S("a"), 6, 5, &wait_s));
    address_limiter_clear(&l);
}
END_TEST

START_TEST(memory_is_bounded)
{
    struct address_limiter l;
    char name[32];

    address_limiter_init(&l);
    for (int i = 0; i < ADDRESSES_MAX + 100; i++) {
        snprintf(name, sizeof(name), "10.%d.%d", i / 256, i % 256);
        address_record(&l, cm_str_of(name), 1, 5);
    }
    ck_assert_uint_eq(l.addresses.n, ADDRESSES_MAX);
    ck_assert_ptr_null(cm_map_get(&l.addresses, CM_S("10.0.0")));
    ck_assert_ptr_nonnull(cm_map_get(&l.addresses, cm_str_of(name)));
    address_limiter_clear(&l);
}
END_TEST

START_TEST(networks)
{
    static const struct {
        const char *ip, *network;
        bool in;
    } rows[] = {
        {"10.1.2.3", "10.0.0.0/8", true},
        {"11.1.2.3", "10.0.0.0/8", false},
        {"10.1.2.3", "10.1.2.3", true},
        {"10.1.2.4", "10.1.2.3", false},
        {"192.168.7.9", "192.168.4.0/22", true},
        {"192.168.8.0", "192.168.4.0/22", false},
        {"::ffff:10.1.2.3", "10.0.0.0/8", true},
        {"fd00::1", "fd00::/8", true},
        {"fe00::1", "fd00::/8", false},
        {"1.2.3.4", "0.0.0.0/0", true},
        {"::1", "0.0.0.0/0", false},
        {"::1", "::/0", true},
        {"10.1.2.3", "10.0.0.0/33", false},
        {"10.1.2.3", "nonsense", false},
    };

    for (size_t i = 0; i < CM_COUNT(rows); i++) {
        struct cm_ip ip;

        ck_assert_int_eq(cm_ip_parse(cm_str_of(rows[i].ip), &ip), 0);
        ck_assert_msg(cm_ip_in(&ip, cm_str_of(rows[i].network)) == rows[i].in, "%s in %s",
                      rows[i].ip, rows[i].network);
    }
}
END_TEST

START_TEST(only_trusted_proxies_tell_addresses)
{
    struct cm_str nets[] = {CM_S("127.0.0.1"), CM_S("10.0.0.0/8")};
    struct cm_strs trusted = {nets, 2}, nobody = {NULL, 0};

    ck_str(address_of_client(&nobody, CM_S("127.0.0.1"), CM_S("1.2.3.4")), "127.0.0.1");
    ck_str(address_of_client(&trusted, CM_S("8.8.8.8"), CM_S("1.2.3.4")), "8.8.8.8");
    ck_str(address_of_client(&trusted, CM_S("127.0.0.1"), CM_S("1.2.3.4")), "1.2.3.4");
    ck_str(address_of_client(&trusted, CM_S("127.0.0.1"), CM_S("6.6.6.6, 1.2.3.4")), "1.2.3.4");
    ck_str(address_of_client(&trusted, CM_S("127.0.0.1"), CM_S("1.2.3.4 , 10.0.0.7")), "1.2.3.4");
    ck_str(address_of_client(&trusted, CM_S("127.0.0.1"), CM_S("10.0.0.8, 10.0.0.7")), "10.0.0.8");
    ck_str(address_of_client(&trusted, CM_S("127.0.0.1"), CM_S("1.2.3.4, unknown")), "127.0.0.1");
    ck_str(address_of_client(&trusted, CM_S("127.0.0.1"), CM_STR_NONE), "127.0.0.1");
    ck_str(address_of_client(&trusted, CM_S("unix"), CM_S("1.2.3.4")), "1.2.3.4");
    ck_str(address_of_client(&nobody, CM_S("unix"), CM_S("1.2.3.4")), "unix");
}
END_TEST

Suite *suite_address(void)
{
    Suite *s = suite_create("address");
    TCase *tc = tcase_create("address");

    tcase_add_test(tc, window_slides_in_whole_seconds);
    tcase_add_test(tc, addresses_do_not_share_a_window);
    tcase_add_test(tc, a_changed_limit_keeps_what_was_seen);
    tcase_add_test(tc, memory_is_bounded);
    tcase_add_test(tc, networks);
    tcase_add_test(tc, only_trusted_proxies_tell_addresses);
    suite_add_tcase(s, tc);
    return s;
}
