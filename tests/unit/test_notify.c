/* Service manager: what is said on a real socket, by path and by abstract name, and how often the watchdog is fed. */
#include "unit.h"

#include "chatmux/io/notify.h"

#include "chatmux/base/clock.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* The manager's end. */
struct manager {
    int fd;
    char dir[32], path[64], got[512];
};

static void manager_bind(struct manager *m, bool abstract)
{
    const struct timeval patience = {.tv_sec = 2};
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    socklen_t n;

    snprintf(m->dir, sizeof(m->dir), "/tmp/cm-notify-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(m->dir));
    snprintf(m->path, sizeof(m->path), "%s%s", m->dir, abstract ? "" : "/s");
    memcpy(addr.sun_path + abstract, m->path, strlen(m->path));
    n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(m->path) + 1);
    m->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(m->fd, (struct sockaddr *)&addr, n), 0);
    ck_assert_int_eq(setsockopt(m->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    if (abstract)
        memmove(m->path + 1, m->path, strlen(m->path) + 1), m->path[0] = '@';
    setenv("NOTIFY_SOCKET", m->path, 1);
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

static const char *manager_hears(struct manager *m, int flags)
{
    ssize_t n = recv(m->fd, m->got, sizeof(m->got) - 1, flags);

    m->got[n > 0 ? n : 0] = '\0';
    return m->got;
}

static void manager_close(struct manager *m)
{
    close(m->fd);
    if (m->path[0] != '@')
        unlink(m->path);
    rmdir(m->dir);
}

START_TEST(says_each_state_in_one_datagram)
{
    struct manager m = {0};
    struct cm_loop *loop = cm_loop_new();
    struct cm_notify *n;
    unsigned long long at_us = 0;
    uint64_t before_us, after_us;

    manager_bind(&m, _i == 1);
    n = cm_notify_new(loop);
    ck_assert_ptr_null(getenv("NOTIFY_SOCKET"));
    cm_notify_ready(n);
    ck_assert_str_eq(manager_hears(&m, 0), "READY=1");
    cm_notify_status(n, "serving %d\nproviders", 3);
    ck_assert_str_eq(manager_hears(&m, 0), "STATUS=serving 3 providers");
    before_us = cm_mono_us();
    cm_notify_reloading(n);
    after_us = cm_mono_us();
    ck_assert_int_eq(sscanf(manager_hears(&m, 0), "RELOADING=1\nMONOTONIC_USEC=%llu", &at_us), 1);
    ck_assert_uint_ge(at_us, before_us);
    ck_assert_uint_le(at_us, after_us);
    cm_notify_stopping(n);
    ck_assert_str_eq(manager_hears(&m, 0), "STOPPING=1");
    cm_notify_close(n);
    cm_loop_free(loop);
    ck_assert_str_eq(manager_hears(&m, MSG_DONTWAIT), "");
    manager_close(&m);
}
END_TEST

static void stop_loop(void *arg)
{
    cm_loop_stop(arg);
}

START_TEST(feeds_the_watchdog_at_half_of_its_time)
{
    struct manager m = {0};
    struct cm_loop *loop = cm_loop_new();
    struct cm_deadline end;
    struct cm_notify *n;
    unsigned heard = 0;

    manager_bind(&m, false);
    setenv("WATCHDOG_USEC", "200000", 1);
    n = cm_notify_new(loop);
    ck_assert_ptr_null(getenv("WATCHDOG_USEC"));
    cm_deadline_init(&end, stop_loop, loop);
    cm_deadline_set(loop, &end, cm_loop_now_ms(loop) + 560);
    cm_loop_run(loop);
    while (strcmp(manager_hears(&m, MSG_DONTWAIT), "WATCHDOG=1") == 0)
        heard++;
    ck_assert_uint_ge(heard, 4); /* five when nothing delays this process */
    ck_assert_uint_le(heard, 5);
    cm_notify_close(n);
    cm_loop_run(loop); /* ends: nothing keeps the loop alive any more */
    cm_loop_free(loop);
    manager_close(&m);
}
END_TEST

START_TEST(leaves_the_watchdog_of_another_process_alone)
{
    struct manager m = {0};
    struct cm_loop *loop = cm_loop_new();
    struct cm_notify *n;

    manager_bind(&m, false);
    setenv("WATCHDOG_USEC", "20000", 1);
    setenv("WATCHDOG_PID", "1", 1);
    n = cm_notify_new(loop);
    cm_loop_run(loop); /* ends at once */
    ck_assert_str_eq(manager_hears(&m, MSG_DONTWAIT), "");
    cm_notify_close(n);
    cm_loop_free(loop);
    manager_close(&m);
}
END_TEST

START_TEST(is_silent_without_a_manager_and_survives_a_dead_one)
{
    static const char *const addresses[] = {
        "", "@", "relative", "vsock:2:1234", "/tmp/nobody/here", NULL};
    char too_long[200] = "/";

    memset(too_long + 1, 'x', sizeof(too_long) - 2);
    for (size_t i = 0; i <= CM_COUNT(addresses); i++) {
        struct cm_loop *loop = cm_loop_new();
        struct cm_notify *n;

        unsetenv("NOTIFY_SOCKET");
        if (i == CM_COUNT(addresses))
            setenv("NOTIFY_SOCKET", too_long, 1);
        else if (addresses[i])
            setenv("NOTIFY_SOCKET", addresses[i], 1);
        setenv("WATCHDOG_USEC", "abc", 1);
        n = cm_notify_new(loop);
        cm_notify_ready(n);
        cm_notify_status(n, "%s", too_long);
        cm_notify_close(n);
        cm_loop_run(loop);
        cm_loop_free(loop);
    }
    cm_notify_close(NULL);
}
END_TEST

Suite *suite_notify(void)
{
    Suite *s = suite_create("notify");
    TCase *tc = tcase_create("notify");

    tcase_add_loop_test(tc, says_each_state_in_one_datagram, 0, 2);
    tcase_add_test(tc, feeds_the_watchdog_at_half_of_its_time);
    tcase_add_test(tc, leaves_the_watchdog_of_another_process_alone);
    tcase_add_test(tc, is_silent_without_a_manager_and_survives_a_dead_one);
    suite_add_tcase(s, tc);
    return s;
}
