/* Metrics. */
#include "chatmux/base/metrics.h"
#include "unit.h"

#include <math.h>
#include <stdio.h>

static const char *rendered(struct cm_metrics *m)
{
    static struct cm_buf out;

    cm_buf_reset(&out);
    cm_metrics_render(m, &out);
    return cm_buf_z(&out);
}

static size_t lines(const char *text, const char *start)
{
    size_t n = 0;

    for (; text; text = strchr(text, '\n'), text = text ? text + 1 : NULL)
        n += strncmp(text, start, strlen(start)) == 0;
    return n;
}

START_TEST(counters_and_gauges_are_rendered)
{
    static const char *const labels[] = {"model", "outcome", NULL};
    struct cm_metrics *m = cm_metrics_new();
    struct cm_metric_family *f =
        cm_metrics_family(m, CM_COUNTER, "x_total", "Requests.", labels, NULL, 0);
    struct cm_metric_family *g =
        cm_metrics_family(m, CM_GAUGE, "open", "Back\\slash\nand \"line\".", NULL, NULL, 0);
    struct cm_metric *s = cm_metric_with(f, (struct cm_str[]){CM_S("a"), CM_S("ok")});

    ck_assert_ptr_eq(cm_metric_with(f, (struct cm_str[]){CM_S("a"), CM_S("ok")}), s);
    ck_assert_ptr_ne(cm_metric_with(f, (struct cm_str[]){CM_S("ao"), CM_S("k")}), s);
    cm_metric_add(s, 1);
    cm_metric_add(s, 2);
    cm_metric_add(s, -5); /* a counter never falls */
    cm_metric_add(s, NAN);
    cm_metric_set(cm_metric_with(g, NULL), 7);
    cm_metric_add(cm_metric_with(g, NULL), -7.5);
    ck_assert(cm_metric_value(s) == 3);
    ck_assert_str_eq(rendered(m), "# HELP x_total Requests.\n"
                                  "# TYPE x_total counter\n"
                                  "x_total{model=\"a\",outcome=\"ok\"} 3\n"
                                  "x_total{model=\"ao\",outcome=\"k\"} 0\n"
                                  "# HELP open Back\\\\slash\\nand \"line\".\n"
                                  "# TYPE open gauge\n"
                                  "open -0.5\n");
    cm_metrics_free(m);
    cm_metrics_free(NULL);
}
END_TEST

START_TEST(label_values_are_escaped_and_bounded)
{
    static const char *const labels[] = {"v", NULL};
    struct cm_metrics *m = cm_metrics_new();
    struct cm_metric_family *f = cm_metrics_family(m, CM_COUNTER, "x", "h", labels, NULL, 0);
    char value[300], want[400];

    cm_metric_with(f, &CM_S("a\"b\\c\nd\xffä"));
    ck_assert_ptr_nonnull(strstr(rendered(m), "\nx{v=\"a\\\"b\\\\c\\nd?ä\"} 0\n"));
    memset(value, 'a', sizeof(value));
    memcpy(value + 127, "ä", 2); /* would be cut in the middle */
    cm_metric_with(f, &(struct cm_str){value, sizeof(value)});
    snprintf(want, sizeof(want), "\nx{v=\"%.127s\"} 0\n", value);
    ck_assert_ptr_nonnull(strstr(rendered(m), want));
    memset(value, 'b', 128);
    ck_assert_ptr_eq(cm_metric_with(f, &(struct cm_str){value, 128}),
                     cm_metric_with(f, &(struct cm_str){value, 300}));
    snprintf(want, sizeof(want), "\nx{v=\"%.128s\"} 0\n", value);
    ck_assert_ptr_nonnull(strstr(rendered(m), want));
    cm_metrics_free(m);
}
END_TEST

START_TEST(histogram_buckets_are_cumulative)
{
    static const char *const labels[] = {"phase", NULL};
    static const double bounds[] = {0.005, 0.1, 2.5};
    struct cm_metrics *m = cm_metrics_new();
    struct cm_metric_family *f =
        cm_metrics_family(m, CM_HISTOGRAM, "t_seconds", "Time.", labels, bounds, 3);
    struct cm_metric *s = cm_metric_with(f, &CM_S("parse"));

    cm_metric_observe(s, 0.001);
    cm_metric_observe(s, 0.005); /* a bound belongs to its bucket */
    cm_metric_observe(s, 0.1);
    cm_metric_observe(s, 1);
    cm_metric_observe(s, 3);
    cm_metric_observe(s, 100);
    cm_metric_observe(s, NAN);
    ck_assert(cm_metric_value(s) == 6);
    ck_assert_str_eq(rendered(m), "# HELP t_seconds Time.\n"
                                  "# TYPE t_seconds histogram\n"
                                  "t_seconds_bucket{phase=\"parse\",le=\"0.005\"} 2\n"
                                  "t_seconds_bucket{phase=\"parse\",le=\"0.1\"} 3\n"
                                  "t_seconds_bucket{phase=\"parse\",le=\"2.5\"} 4\n"
                                  "t_seconds_bucket{phase=\"parse\",le=\"+Inf\"} 6\n"
                                  "t_seconds_sum{phase=\"parse\"} 104.106\n"
                                  "t_seconds_count{phase=\"parse\"} 6\n");
    cm_metrics_free(m);
}
END_TEST

START_TEST(histogram_without_labels)
{
    static const double bounds[] = {1};
    struct cm_metrics *m = cm_metrics_new();
    struct cm_metric_family *f = cm_metrics_family(m, CM_HISTOGRAM, "t", "h", NULL, bounds, 1);

    cm_metric_observe(cm_metric_with(f, NULL), 0.5);
    ck_assert_ptr_nonnull(strstr(rendered(m), "\nt_bucket{le=\"1\"} 1\nt_bucket{le=\"+Inf\"} 1\n"
                                              "t_sum 0.5\nt_count 1\n"));
    cm_metrics_free(m);
}
END_TEST

START_TEST(numbers_keep_their_value)
{
    struct cm_metrics *m = cm_metrics_new();
    struct cm_metric *s =
        cm_metric_with(cm_metrics_family(m, CM_GAUGE, "g", "h", NULL, NULL, 0), NULL);
    static const struct {
        double v;
        const char *text;
    } some[] = {{0, "\ng 0\n"},
                {1e15, "\ng 1000000000000000\n"},
                {1769847300.123, "\ng 1769847300.123\n"},
                {0.1 + 0.2, "\ng 0.30000000000000004\n"},
                {-3, "\ng -3\n"},
                {1e300, "\ng 1e+300\n"},
                {INFINITY, "\ng +Inf\n"},
                {-INFINITY, "\ng -Inf\n"},
                {NAN, "\ng NaN\n"}};

    for (size_t i = 0; i < sizeof(some) / sizeof(some[0]); i++) {
        cm_metric_set(s, some[i].v);
        ck_assert_msg(strstr(rendered(m), some[i].text), "%s not in %s", some[i].text, rendered(m));
    }
    cm_metrics_free(m);
}
END_TEST

START_TEST(too_many_series_become_other)
{
    static const char *const labels[] = {"a", "b", NULL};
    struct cm_metrics *m = cm_metrics_new();
    struct cm_metric_family *f = cm_metrics_family(m, CM_COUNTER, "x", "h", labels, NULL, 0);
    struct cm_metric *first = NULL;

    for (int i = 0; i < 5000; i++) {
        char name[16];
        struct cm_str v[2] = {{name, 0}, CM_S("b")};

        v[0].n = (size_t)snprintf(name, sizeof(name), "%d", i);
        cm_metric_add(cm_metric_with(f, v), 1);
        if (i == 0)
            first = cm_metric_with(f, v);
    }
    ck_assert_ptr_eq(cm_metric_with(f, (struct cm_str[]){CM_S("0"), CM_S("b")}), first);
    ck_assert_uint_eq(lines(rendered(m), "x{"), 2001);
    ck_assert_uint_eq(lines(rendered(m), "x{a=\"1999\",b=\"b\"} 1"), 1);
    ck_assert_uint_eq(lines(rendered(m), "x{a=\"2000\""), 0);
    ck_assert_uint_eq(lines(rendered(m), "x{a=\"other\",b=\"other\"} 3000"), 1);
    cm_metrics_free(m);
}
END_TEST

/* Two lines with the same labels would make a scrape fail. */
START_TEST(no_series_is_shown_twice)
{
    static const char *const labels[] = {"a", NULL};
    struct cm_metrics *m = cm_metrics_new();
    struct cm_metric_family *f = cm_metrics_family(m, CM_COUNTER, "x", "h", labels, NULL, 0);
    struct cm_str other = CM_S("other");

    cm_metric_add(cm_metric_with(f, &CM_S("m\xff")), 1);
    cm_metric_add(cm_metric_with(f, &CM_S("m\xfe")), 1);
    ck_assert_uint_eq(lines(rendered(m), "x{"), 1);
    cm_metric_add(cm_metric_with(f, &other), 1);
    for (int i = 0; i < 3000; i++) {
        char name[16];
        struct cm_str v = {name, (size_t)snprintf(name, sizeof(name), "%d", i)};

        cm_metric_add(cm_metric_with(f, &v), 1);
    }
    ck_assert_uint_eq(lines(rendered(m), "x{a=\"other\"}"), 1);
    ck_assert_uint_eq(lines(rendered(m), "x{a=\"other\"} 1003"), 1);
    cm_metrics_free(m);
}
END_TEST

static void bump(void *arg)
{
    cm_metric_add(arg, 1);
}

static void twice(void *arg)
{
    cm_metric_set(arg, 2 * cm_metric_value(arg));
}

START_TEST(hooks_run_in_order_before_each_rendering)
{
    struct cm_metrics *m = cm_metrics_new();
    struct cm_metric *s =
        cm_metric_with(cm_metrics_family(m, CM_GAUGE, "g", "h", NULL, NULL, 0), NULL);

    cm_metrics_on_render(m, bump, s);
    cm_metrics_on_render(m, twice, s);
    ck_assert_ptr_nonnull(strstr(rendered(m), "\ng 2\n"));
    ck_assert_ptr_nonnull(strstr(rendered(m), "\ng 6\n"));
    cm_metrics_free(m);
}
END_TEST

Suite *suite_metrics(void)
{
    Suite *s = suite_create("metrics");
    TCase *t = tcase_create("metrics");

    tcase_add_test(t, counters_and_gauges_are_rendered);
    tcase_add_test(t, label_values_are_escaped_and_bounded);
    tcase_add_test(t, histogram_buckets_are_cumulative);
    tcase_add_test(t, histogram_without_labels);
    tcase_add_test(t, numbers_keep_their_value);
    tcase_add_test(t, too_many_series_become_other);
    tcase_add_test(t, no_series_is_shown_twice);
    tcase_add_test(t, hooks_run_in_order_before_each_rendering);
    suite_add_tcase(s, t);
    return s;
}
