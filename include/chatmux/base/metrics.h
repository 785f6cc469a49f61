/* Counters, gauges and histograms in the Prometheus text format. Loop thread only. */
#ifndef CHATMUX_BASE_METRICS_H
#define CHATMUX_BASE_METRICS_H

#include "chatmux/base/buf.h"

enum cm_metric_type { CM_COUNTER, CM_GAUGE, CM_HISTOGRAM };

struct cm_metrics;       /* all families */
struct cm_metric_family; /* one name with its labels */
struct cm_metric;        /* one series: a family with label values */

struct cm_metrics *cm_metrics_new(void);
void cm_metrics_free(struct cm_metrics *m);

#define CM_METRIC_LABELS_MAX 5
/* Names and label names are literals that outlive the registry; labels end with NULL. `buckets`
 * (ascending upper bounds, a literal array) only for histograms. Each name is registered once. */
struct cm_metric_family *cm_metrics_family(struct cm_metrics *m, enum cm_metric_type type,
                                           const char *name, const char *help,
                                           const char *const labels[], const double *buckets,
                                           size_t n_buckets);

/* Finds or makes the series; `values` are copied, one per label (NULL without labels), at most
 * 128 bytes of each, with '?' for each byte that is no UTF-8. Above 2,000 series of a family
 * everything new is counted under "other" in each label. The pointer stays valid as long as the
 * registry. */
struct cm_metric *cm_metric_with(struct cm_metric_family *f, const struct cm_str *values);

void cm_metric_add(struct cm_metric *s, double v);     /* gauge, counter (which never falls) */
void cm_metric_set(struct cm_metric *s, double v);     /* gauge */
void cm_metric_observe(struct cm_metric *s, double v); /* histogram */
double cm_metric_value(const struct cm_metric *s);     /* counter, gauge; count of a histogram */

/* Called before each rendering to bring gauges up to date. */
void cm_metrics_on_render(struct cm_metrics *m, void (*fn)(void *arg), void *arg);
void cm_metrics_render(struct cm_metrics *m, struct cm_buf *out);

#endif
