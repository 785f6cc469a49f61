/* Resolver, with lookups that the test controls. */
#include "chatmux/io/resolve.h"
#include "unit.h"

#include "chatmux/base/clock.h"
#include "io/resolve_int.h"

#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_int calls, inside;
static atomic_bool gate, fails;

/* Names that begin with "slow" wait for the gate, those with "hang" for ever. */
static int lookup(const char *host, char *out, size_t cap)
{
    int call = atomic_fetch_add(&calls, 1) + 1;

    atomic_fetch_add(&inside, 1);
    if (strncmp(host, "hang", 4) == 0)
        sleep(1000);
    while (strncmp(host, "slow", 4) == 0 && !atomic_load(&gate))
        usleep(1000);
    snprintf(out, cap, "192.0.2.%d", call);
    atomic_fetch_sub(&inside, 1);
    return strncmp(host, "bad", 3) == 0 || atomic_load(&fails) ? EAI_NONAME : 0;
}

static struct cm_loop *loop;
static struct cm_resolver *resolver;

struct answer {
    int n;
    char addresses[64];
    struct cm_err err;
    struct cm_resolve_wait **cancel; /* cancelled when the answer comes */
    bool close;
};

static void on_answer(void *arg, struct cm_str addresses, const struct cm_err *err)
{
    struct answer *a = arg;

    a->n++;
    cm_str_copy(a->addresses, sizeof(a->addresses), addresses);
    ck_assert_int_eq(err == NULL, addresses.n > 0);
    if (err)
        a->err = *err;
    if (a->cancel)
        cm_resolve_cancel(*a->cancel), *a->cancel = NULL;
    if (a->close)
        cm_resolver_close(resolver), resolver = NULL;
}

/* Sets itself again: uv_run() may fire it before it polls, and must not sleep for ever then. */
static void on_tick(void *arg)
{
    cm_deadline_set(loop, arg, cm_loop_now_ms(loop) + 5);
}

static void turn(unsigned ms)
{
    uint64_t end = cm_mono_ms() + ms;
    struct cm_deadline tick;

    cm_deadline_init(&tick, on_tick, &tick);
    on_tick(&tick);
    while (cm_mono_ms() < end) {
        uv_run(cm_loop_uv(loop), UV_RUN_ONCE);
    }
    cm_deadline_clear(loop, &tick);
}

static void wait_for(const struct answer *a)
{
    for (int i = 0; i < 1000 && a->n == 0; i++)
        turn(5);
    ck_assert_int_eq(a->n, 1);
}

/* Waits for the answer when it is not known at once. */
static void ask(const char *host, struct answer *a)
{
    struct cm_str addresses;

    memset(a, 0, sizeof(*a));
    if (cm_resolve(resolver, cm_str_of(host), CM_RESOLVE_OWN, &addresses, &a->err, on_answer, a)) {
        ck_assert_int_eq(a->n, 0); /* never from within the call */
        wait_for(a);
        return;
    }
    a->n = 1;
    cm_str_copy(a->addresses, sizeof(a->addresses), addresses);
}

static struct cm_resolve_wait *ask_later(const char *host, enum cm_resolve_for who,
                                         struct answer *a)
{
    struct cm_str addresses;
    struct cm_resolve_wait *w =
        cm_resolve(resolver, cm_str_of(host), who, &addresses, &a->err, on_answer, a);

    ck_assert_ptr_nonnull(w);
    return w;
}

static struct cm_resolver_setup setup = {
    .lookup = lookup,
    .ttl_ms = 60000,
    .fail_ttl_ms = 60000,
    .stale_ms = 60000,
    .max_lookups = 3,
    .max_client_lookups = 1,
    .max_entries = 4,
};

static void open_loop(void)
{
    loop = cm_loop_new();
    resolver = cm_resolver_new_with(loop, &setup);
}

static void close_loop(void)
{
    uint64_t began_ms = cm_mono_ms();

    cm_resolver_close(resolver);
    cm_loop_free(loop); /* ends the process unless uv_loop_close() is 0 */
    ck_assert_uint_lt(cm_mono_ms() - began_ms, 1000); /* whatever hangs */
}

START_TEST(one_lookup_for_all_who_ask)
{
    struct answer a[5] = {{0}};

    open_loop();
    for (int i = 0; i < 5; i++)
        (void)ask_later(i % 2 ? "SLOW.example" : "slow.example", CM_RESOLVE_OWN, &a[i]);
    turn(20);
    ck_assert_int_eq(a[0].n, 0);
    atomic_store(&gate, true);
    for (int i = 0; i < 5; i++) {
        wait_for(&a[i]);
        ck_assert_str_eq(a[i].addresses, "192.0.2.1");
    }
    ask("slow.example", &a[0]);
    ck_assert_str_eq(a[0].addresses, "192.0.2.1");
    ck_assert_int_eq(atomic_load(&calls), 1);
    close_loop();
}
END_TEST

START_TEST(stale_answers_are_served_while_a_new_one_is_fetched)
{
    struct answer a;

    setup.ttl_ms = 100;
    setup.stale_ms = 400;
    setup.fail_ttl_ms = 50;
    open_loop();
    ask("a.example", &a);
    turn(150);
    ask("a.example", &a); /* old, at once; the lookup runs behind it */
    ck_assert_str_eq(a.addresses, "192.0.2.1");
    turn(50);
    ask("a.example", &a);
    ck_assert_str_eq(a.addresses, "192.0.2.2");

    atomic_store(&fails, true);
    turn(150);
    ask("a.example", &a);
    turn(50);
    ask("a.example", &a); /* the new lookup failed: the old answer stays */
    ck_assert_str_eq(a.addresses, "192.0.2.2");
    turn(500);
    ask("a.example", &a); /* too old: asked again, and told the failure */
    ck_assert_str_eq(a.addresses, "");
    ck_assert_int_eq(a.err.cls, CM_ERR_UPSTREAM_DOWN);
    close_loop();
}
END_TEST

START_TEST(failures_are_remembered_shortly)
{
    struct answer a;

    setup.fail_ttl_ms = 100;
    open_loop();
    ask("bad.example", &a);
    ck_assert_ptr_nonnull(strstr(a.err.msg, "bad.example"));
    ask("bad.example", &a);
    ck_assert_int_eq(a.err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_int_eq(atomic_load(&calls), 1);
    turn(150);
    ask("bad.example", &a);
    ck_assert_int_eq(atomic_load(&calls), 2);
    close_loop();
}
END_TEST

START_TEST(cancelled_waiters_hear_nothing)
{
    struct answer a = {0}, b = {0}, c = {0};
    struct cm_resolve_wait *w, *other;

    open_loop();
    w = ask_later("slow.example", CM_RESOLVE_OWN, &a);
    (void)ask_later("slow.example", CM_RESOLVE_OWN, &b);
    other = ask_later("slow.example", CM_RESOLVE_OWN, &c);
    b.cancel = &other; /* in b's callback */
    cm_resolve_cancel(w);
    cm_resolve_cancel(NULL);
    atomic_store(&gate, true);
    wait_for(&b);
    turn(20);
    ck_assert_int_eq(a.n + c.n, 0);
    close_loop();
}
END_TEST

START_TEST(names_of_clients_cannot_use_up_the_threads)
{
    struct answer hang[8] = {{0}}, a = {0}, b = {0};
    struct cm_resolve_wait *w[8];
    char host[32];

    open_loop();
    for (int i = 0; i < 8; i++) {
        snprintf(host, sizeof(host), "hang%d.example", i);
        w[i] = ask_later(host, CM_RESOLVE_CLIENT, &hang[i]);
    }
    for (int i = 0; i < 1000 && atomic_load(&calls) < 1; i++)
        turn(5);
    ask("own.example", &a);
    ck_assert_str_eq(a.addresses, "192.0.2.2");
    ck_assert_int_eq(atomic_load(&inside),
                     1); /* one of them hangs, the others wait for their turn */
    for (int i = 0; i < 8; i++)
        cm_resolve_cancel(w[i]);
    (void)ask_later("later.example", CM_RESOLVE_CLIENT, &b); /* behind the one that hangs … */
    turn(50);
    ck_assert_int_eq(b.n, 0);
    ask("later.example", &a); /* … until the configuration wants the same name */
    ck_assert_int_eq(b.n, 1);
    ck_assert_int_eq(atomic_load(&calls), 3); /* the cancelled ones never began */
    close_loop();
}
END_TEST

START_TEST(own_lookups_are_bounded_and_queue)
{
    struct answer a[6] = {{0}};
    char host[32];

    open_loop();
    for (int i = 0; i < 6; i++) {
        snprintf(host, sizeof(host), "slow%d.example", i);
        (void)ask_later(host, CM_RESOLVE_OWN, &a[i]);
    }
    turn(50);
    ck_assert_int_eq(atomic_load(&inside), 3);
    atomic_store(&gate, true);
    for (int i = 0; i < 6; i++)
        wait_for(&a[i]);
    close_loop();
}
END_TEST

START_TEST(forgets_the_least_recently_used)
{
    struct answer a;
    char host[32];

    open_loop();
    for (int i = 0; i < 4; i++) {
        snprintf(host, sizeof(host), "h%d.example", i);
        ask(host, &a);
    }
    ask("h0.example", &a);
    ask("new.example", &a); /* in place of h1 */
    ck_assert_int_eq(atomic_load(&calls), 5);
    ask("h0.example", &a);
    ask("h2.example", &a);
    ck_assert_int_eq(atomic_load(&calls), 5);
    ask("h1.example", &a);
    ck_assert_int_eq(atomic_load(&calls), 6);
    close_loop();
}
END_TEST

START_TEST(closes_at_any_time)
{
    struct answer hang = {0}, slow = {0}, a = {0}, b = {0};

    open_loop();
    (void)ask_later("hang.example", CM_RESOLVE_OWN, &hang);
    (void)ask_later("slow.example", CM_RESOLVE_OWN, &slow);
    (void)ask_later("a.example", CM_RESOLVE_OWN, &a);
    (void)ask_later("a.example", CM_RESOLVE_OWN, &b);
    a.close = true; /* in its callback, before b's */
    wait_for(&a);
    ck_assert_ptr_null(resolver);
    turn(20);
    ck_assert_int_eq(hang.n + slow.n + b.n, 0);
    close_loop();
    atomic_store(&gate, true); /* this one returns into a resolver that is gone */
    for (int i = 0; i < 1000 && atomic_load(&inside) > 1; i++)
        usleep(1000);
    usleep(20000);
}
END_TEST

START_TEST(localhost_and_the_system)
{
    struct answer a;
    struct cm_str addresses;
    struct cm_err err = {0};

    loop = cm_loop_new();
    resolver = cm_resolver_new(loop);
    ask("LocalHost", &a);
    ck_assert_str_eq(a.addresses, "127.0.0.1,[::1]");
    ask("x.localhost", &a);
    ck_assert_str_eq(a.addresses, "127.0.0.1,[::1]");
    ask("127.0.0.1", &a);
    ck_assert_str_eq(a.addresses, "127.0.0.1");
    ask("2001:db8::1", &a);
    ck_assert_str_eq(a.addresses, "[2001:db8::1]");
    ask("does-not-exist.invalid", &a);
    ck_assert_int_eq(a.err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_ptr_null(
        cm_resolve(resolver, CM_S(""), CM_RESOLVE_OWN, &addresses, &err, on_answer, &a));
    ck_assert_int_eq(err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_ptr_null(
        cm_resolve(resolver, CM_S("a\0b"), CM_RESOLVE_OWN, &addresses, &err, on_answer, &a));
    close_loop();
}
END_TEST

Suite *suite_resolve(void)
{
    Suite *s = suite_create("resolve");
    TCase *t = tcase_create("resolve");

    tcase_add_test(t, one_lookup_for_all_who_ask);
    tcase_add_test(t, stale_answers_are_served_while_a_new_one_is_fetched);
    tcase_add_test(t, failures_are_remembered_shortly);
    tcase_add_test(t, cancelled_waiters_hear_nothing);
    tcase_add_test(t, names_of_clients_cannot_use_up_the_threads);
    tcase_add_test(t, own_lookups_are_bounded_and_queue);
    tcase_add_test(t, forgets_the_least_recently_used);
    tcase_add_test(t, closes_at_any_time);
    tcase_add_test(t, localhost_and_the_system);
    suite_add_tcase(s, t);
    return s;
}
