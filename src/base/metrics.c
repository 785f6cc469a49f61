/* Metrics: a series renders its labels once, when it is made, and costs an addition afterwards. */
#include "chatmux/base/metrics.h"

#include "chatmux/base/arena.h"
#include "chatmux/base/map.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SERIES_MAX 2000u
#define VALUE_MAX 128u /* bytes of a label value; longer ones are cut */

struct cm_metric {
    struct cm_metric_family *family;
    struct cm_metric *next;
    struct cm_str key;    /* in `series` */
    struct cm_str labels; /* a="x",b="y", escaped */
    double value;         /* histogram: the sum */
    uint64_t count;       /* histogram */
    uint64_t *buckets; /* histogram: of each bucket alone; above the last bound only in `count` */
};

struct cm_metric_family {
    struct cm_metrics *registry;
    struct cm_metric_family *next;
    enum cm_metric_type type;
    const char *name, *help;
    const char *labels[CM_METRIC_LABELS_MAX];
    size_t n_labels;
    const double *buckets;
    size_t n_buckets;
    struct cm_map series; /* by the label values as they are shown, each behind its length */
    struct cm_metric *first, **last;
    struct cm_metric *
        latest; /* asked for last but for "other", and most often asked for again; NULL = none yet */
};

struct render_hook {
    struct render_hook *next;
    void (*fn)(void *arg);
    void *arg;
};

struct cm_metrics {
    struct cm_arena arena; /* everything below lives here */
    struct cm_metric_family *first, **last;
    struct render_hook *hooks, **last_hook;
};

struct cm_metrics *cm_metrics_new(void)
{
    struct cm_metrics *m = CM_NEW(struct cm_metrics);

    m->last = &m->first;
    m->last_hook = &m->hooks;
    return m;
}

void cm_metrics_free(struct cm_metrics *m)
{
    if (!m)
        return;
    for (struct cm_metric_family *f = m->first; f; f = f->next)
        cm_map_clear(&f->series);
    cm_arena_clear(&m->arena);
    free(m);
}

struct cm_metric_family *cm_metrics_family(struct cm_metrics *m, enum cm_metric_type type,
                                           const char *name, const char *help,
                                           const char *const labels[], const double *buckets,
                                           size_t n_buckets)
{
    struct cm_metric_family *f = CM_ARENA_NEW(&m->arena, struct cm_metric_family);

    for (struct cm_metric_family *other = m->first; other; other = other->next)
        CM_ASSERT(strcmp(other->name, name) != 0);
    for (size_t i = 1; i < n_buckets; i++)
        CM_ASSERT(buckets[i - 1] < buckets[i]);
    *f = (struct cm_metric_family){.registry = m,
                                   .type = type,
                                   .name = name,
                                   .help = help,
                                   .buckets = buckets,
                                   .n_buckets = n_buckets};
    for (; labels && labels[f->n_labels]; f->n_labels++) {
        CM_ASSERT(f->n_labels < CM_METRIC_LABELS_MAX);
        f->labels[f->n_labels] = labels[f->n_labels];
    }
    f->last = &f->first;
    *m->last = f;
    m->last = &f->next;
    return f;
}

/* `quotes`: a label value; without: a help text. */
static void put_escaped(struct cm_buf *out, struct cm_str s, bool quotes)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];

        if (c == '\\' || c == '\n' || (quotes && c == '"'))
            cm_buf_put(out, '\\');
        cm_buf_put(out, c == '\n' ? 'n' : c);
    }
}

/* What makes a series its own. Invalid bytes are blanked here already: two values that look the
 * same are one series. */
struct series_key {
    char text[CM_METRIC_LABELS_MAX * (VALUE_MAX + 1)];
    size_t n;
};

static void key_add(struct series_key *key, struct cm_str value)
{
    struct cm_str rest = cm_utf8_head(value, VALUE_MAX);

    key->text[key->n++] = (char)rest.n;
    while (rest.n > 0) {
        const size_t good = cm_utf8_valid(rest);

        memcpy(key->text + key->n, rest.p, good);
        key->n += good;
        if (good < rest.n)
            key->text[key->n++] = '?';
        rest = cm_str_from(rest, good + 1);
    }
}

static struct cm_metric *series_new(struct cm_metric_family *f, struct cm_str key)
{
    struct cm_arena *arena = &f->registry->arena;
    struct cm_metric *s = CM_ARENA_NEW(arena, struct cm_metric);
    struct cm_str rest = key;
    struct cm_buf text = {0};

    for (size_t i = 0; i < f->n_labels; i++) {
        const struct cm_str value = cm_str_head(cm_str_from(rest, 1), (unsigned char)rest.p[0]);

        cm_buf_printf(&text, "%s%s=\"", i > 0 ? "," : "", f->labels[i]);
        put_escaped(&text, value, true);
        cm_buf_put(&text, '"');
        rest = cm_str_from(rest, value.n + 1);
    }
    s->family = f;
    s->labels = cm_buf_settle(&text, arena);
    if (f->n_buckets > 0)
        s->buckets = CM_ARENA_ARRAY(arena, uint64_t, f->n_buckets);
    s->key = cm_arena_str(arena, key);
    cm_map_put(&f->series, s->key, s);
    *f->last = s;
    f->last = &s->next;
    return s;
}

struct cm_metric *cm_metric_with(struct cm_metric_family *f, const struct cm_str *values)
{
    struct series_key key, other;
    struct cm_metric *s;

    key.n = other.n = 0;
    for (size_t i = 0; i < f->n_labels; i++)
        key_add(&key, values[i]);
    if (f->latest && cm_str_eq(f->latest->key, cm_str(key.text, key.n)))
        return f->latest;
    s = cm_map_get(&f->series, cm_str(key.text, key.n));
    if (s)
        return f->latest = s;
    if (f->series.n < SERIES_MAX)
        return f->latest = series_new(f, cm_str(key.text, key.n));
    for (size_t i = 0; i < f->n_labels; i++)
        key_add(&other, CM_S("other"));
    s = cm_map_get(&f->series, cm_str(other.text, other.n));
    return s ? s : series_new(f, cm_str(other.text, other.n));
}

void cm_metric_add(struct cm_metric *s, double v)
{
    CM_ASSERT(s->family->type != CM_HISTOGRAM);
    /* a counter never falls, whatever an upstream reports */
    if (v > 0 || s->family->type == CM_GAUGE)
        s->value += v;
}

void cm_metric_set(struct cm_metric *s, double v)
{
    CM_ASSERT(s->family->type == CM_GAUGE);
    s->value = v;
}

void cm_metric_observe(struct cm_metric *s, double v)
{
    const struct cm_metric_family *f = s->family;
    size_t i = 0;

    CM_ASSERT(f->type == CM_HISTOGRAM);
    if (isnan(v)) /* would spoil the sum for ever */
        return;
    while (i < f->n_buckets && v > f->buckets[i])
        i++;
    if (i < f->n_buckets)
        s->buckets[i]++;
    s->count++;
    s->value += v;
}

double cm_metric_value(const struct cm_metric *s)
{
    return s->family->type == CM_HISTOGRAM ? (double)s->count : s->value;
}

void cm_metrics_on_render(struct cm_metrics *m, void (*fn)(void *arg), void *arg)
{
    struct render_hook *hook = CM_ARENA_NEW(&m->arena, struct render_hook);

    hook->fn = fn;
    hook->arg = arg;
    *m->last_hook = hook;
    m->last_hook = &hook->next;
}

/* The shortest text that reads back as the same number. */
static void put_number(struct cm_buf *out, double v)
{
    char text[32];

    if (isnan(v) || isinf(v)) {
        cm_buf_append(out, isnan(v) ? CM_S("NaN") : v > 0 ? CM_S("+Inf") : CM_S("-Inf"));
        return;
    }
    if (v >= 0 && v < 0x1p53 && v == (double)(uint64_t)v) {
        cm_buf_put_u64(out, (uint64_t)v);
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    cm_buf_append(out, cm_str_of(text));
}

/* name_suffix{labels,le="bound"} ; `bound` NULL for all but buckets */
static void put_name(struct cm_buf *out, const struct cm_metric *s, const char *suffix,
                     const double *bound)
{
    cm_buf_append(out, cm_str_of(s->family->name));
    cm_buf_append(out, cm_str_of(suffix));
    if (s->labels.n > 0 || bound) {
        cm_buf_put(out, '{');
        cm_buf_append(out, s->labels);
        if (bound) {
            cm_buf_append(out, s->labels.n > 0 ? CM_S(",le=\"") : CM_S("le=\""));
            put_number(out, *bound);
            cm_buf_put(out, '"');
        }
        cm_buf_put(out, '}');
    }
    cm_buf_put(out, ' ');
}

static void put_histogram(struct cm_buf *out, const struct cm_metric *s)
{
    const double infinite = INFINITY;
    uint64_t below = 0;

    for (size_t i = 0; i < s->family->n_buckets; i++) {
        below += s->buckets[i];
        put_name(out, s, "_bucket", &s->family->buckets[i]);
        cm_buf_put_u64(out, below);
        cm_buf_put(out, '\n');
    }
    put_name(out, s, "_bucket", &infinite);
    cm_buf_put_u64(out, s->count);
    cm_buf_put(out, '\n');
    put_name(out, s, "_sum", NULL);
    put_number(out, s->value);
    cm_buf_put(out, '\n');
    put_name(out, s, "_count", NULL);
    cm_buf_put_u64(out, s->count);
    cm_buf_put(out, '\n');
}

static const char *const type_names[] = {
    [CM_COUNTER] = "counter", [CM_GAUGE] = "gauge", [CM_HISTOGRAM] = "histogram"};

void cm_metrics_render(struct cm_metrics *m, struct cm_buf *out)
{
    for (struct render_hook *hook = m->hooks; hook; hook = hook->next)
        hook->fn(hook->arg);
    for (const struct cm_metric_family *f = m->first; f; f = f->next) {
        cm_buf_printf(out, "# HELP %s ", f->name);
        put_escaped(out, cm_str_of(f->help), false);
        cm_buf_printf(out, "\n# TYPE %s %s\n", f->name, type_names[f->type]);
        for (const struct cm_metric *s = f->first; s; s = s->next) {
            if (f->type == CM_HISTOGRAM) {
                put_histogram(out, s);
                continue;
            }
            put_name(out, s, "", NULL);
            put_number(out, s->value);
            cm_buf_put(out, '\n');
        }
    }
}
