/* What concerns the gateway as a whole: figures of the moment, reload, a new master key, a backup. */
#include "admin_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define RATE_WINDOW_MS 60000

/* ---- stats ---- */

static int64_t rss_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    long total, resident = 0;

    if (!file)
        return 0;
    if (fscanf(file, "%ld %ld", &total, &resident) !=
        2) /* NOLINT(cert-err34-c): the kernel's own format */
        resident = 0;
    fclose(file);
    return (int64_t)resident * sysconf(_SC_PAGESIZE);
}

/* Requests per second since the oldest look within the last minute, or since the start when there is none: nothing runs while nobody looks. */
static double request_rate(struct cm_admin *admin, const struct cm_gateway_stats *stats,
                           int64_t uptime_ms, int64_t *window_s)
{
    uint64_t now = cm_mono_ms(), span = uptime_ms > 0 ? (uint64_t)uptime_ms : 1, before = 0;
    const struct sample *last = &admin->samples[admin->last_sample];

    for (size_t i = 1; i <= SAMPLES; i++) {
        const struct sample *s = &admin->samples[(admin->last_sample + i) % SAMPLES];

        if (s->at_ms > 0 && now - s->at_ms >= 1000 && now - s->at_ms <= RATE_WINDOW_MS) {
            span = now - s->at_ms;
            before = s->requests;
            break;
        }
    }
    if (last->at_ms == 0 || now - last->at_ms >= 1000) {
        admin->last_sample = (admin->last_sample + 1) % SAMPLES;
        admin->samples[admin->last_sample] =
            (struct sample){.at_ms = now, .requests = stats->requests};
    }
    *window_s = (int64_t)(span + 500) / 1000;
    return (double)(stats->requests - before) * 1000.0 / (double)span;
}

void system_stats(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_store *store = cm_gateway_store(admin->gw);
    const char *trouble =
        store ? cm_store_trouble(store) : "there is no store: nothing survives a restart";
    struct cm_gateway_stats s = {0};
    struct cm_pool_counts counts = {0};
    struct cm_buf out = {0};
    struct out o = out_begin(&out);
    int64_t uptime_ms, window_s;
    double rate;

    cm_gateway_stats(admin->gw, &s);
    cm_pool_count(cm_gateway_pool(admin->gw), CM_STR_NONE, &counts);
    uptime_ms = cm_unix_ms() - s.started_ms;
    rate = request_rate(admin, &s, uptime_ms, &window_s);
    out_time(&o, "started", s.started_ms);
    out_int(&o, "uptime_s", uptime_ms / 1000);
    out_bool(&o, "draining", s.draining);
    out_int(&o, "requests", (int64_t)s.requests);
    out_name(&o, "requests_per_s");
    cm_buf_printf(&out, "%.3f", rate);
    out_int(&o, "rate_window_s", window_s);
    out_int(&o, "exchanges", (int64_t)s.exchanges);
    out_int(&o, "streams", (int64_t)s.streams);
    out_int(&o, "attempts", (int64_t)s.attempts);
    out_int(&o, "kept_streams", (int64_t)s.kept_running);
    out_int(&o, "kept_ended", (int64_t)s.kept_ended);
    out_int(&o, "kept_bytes", (int64_t)s.kept_bytes);
    out_int(&o, "loop_lag_us", (int64_t)s.loop_lag_us);
    out_int(&o, "rss_bytes", rss_bytes());
    out_int(&o, "keys", (int64_t)cm_keys_count(cm_gateway_keys(admin->gw)));
    out_name(&o, "credentials");
    counts_write(&out, &counts);
    out_int(&o, "waiting", (int64_t)counts.waiting);
    out_str_or_null(&o, "store_trouble", cm_str_of(trouble));
    out_int(&o, "dropped_rows", store ? (int64_t)cm_store_dropped(store) : 0);
    out_end(&o);
    answer_json(web, 200, &out);
}

/* ---- reload ---- */

static void put_problems(struct cm_buf *out, const struct cm_problems *problems)
{
    struct cm_buf text = {0};

    for (const struct cm_problem *p = problems->first; p; p = p->next)
        cm_buf_printf(&text, "%s" CM_PRI ": " CM_PRI, p == problems->first ? "" : "\n",
                      CM_ARG(p->where), CM_ARG(p->text));
    cm_buf_append(out, CM_S("{\"error\":{\"message\":"));
    cm_json_put_str(out, cm_buf_str(&text));
    cm_buf_append(
        out,
        CM_S(
            ",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"config_problems\"},\"problems\":["));
    for (const struct cm_problem *p = problems->first; p; p = p->next) {
        struct out o;

        if (p != problems->first)
            cm_buf_put(out, ',');
        o = out_begin(out);
        out_str(&o, "where", p->where);
        out_str(&o, "text", p->text);
        out_end(&o);
    }
    cm_buf_append(out, CM_S("]}"));
    cm_buf_clear(&text);
}

void system_reload(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_arena *arena = cm_web_arena(web);
    struct cm_strs changed = {0};
    struct cm_problems problems;
    struct cm_buf out = {0};

    cm_problems_init(&problems, arena);
    if (admin->reload(admin->reload_arg, arena, &changed, &problems) < 0) {
        put_problems(&out, &problems);
        answer_json(web, 400, &out);
        return;
    }
    cm_buf_append(&out, CM_S("{\"changed\":["));
    for (size_t i = 0; i < changed.n; i++) {
        if (i > 0)
            cm_buf_put(&out, ',');
        cm_json_put_str(&out, changed.v[i]);
    }
    cm_buf_append(&out, CM_S("]}"));
    answer_json(web, 200, &out);
}

/* ---- the store ---- */

static void on_rekeyed(void *arg, const struct cm_err *err)
{
    struct task *t = arg;
    struct cm_store *store = cm_gateway_store(t->admin->gw);
    struct cm_buf out = {0};
    struct out o;

    if (task_failed(t, err))
        return;
    o = out_begin(&out);
    out_str(&o, "key_source", cm_str_of(cm_store_key_source(store)));
    out_bool(&o, "configured", !cm_store_key_is_ours(store));
    out_end(&o);
    answer_json(t->web, 200, &out);
}

void system_rekey(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_store *store;
    struct cm_err err = {0};
    struct body body;

    if (body_read(&body, cm_web_arena(web), cm_web_body(web), "Rekey", &err) < 0) {
        cm_web_fail(web, &err);
        return;
    }
    store = need_store(admin, web);
    if (store)
        cm_store_rekey(store, body_str(&body, "key"), on_rekeyed, task_new(admin, web));
}

static void on_copied(void *arg, const struct cm_err *err)
{
    struct task *t = arg;
    struct cm_buf out = {0};
    struct stat st = {0};
    struct out o;

    if (task_failed(t, err))
        return;
    stat(t->text.p, &st);
    o = out_begin(&out);
    out_str(&o, "path", t->text);
    out_int(&o, "bytes", st.st_size);
    out_end(&o);
    answer_json(t->web, 200, &out);
}

void system_backup(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_err err = {0};
    struct cm_store *store;
    struct cm_str path;
    struct body body;
    struct task *t;

    if (body_read(&body, cm_web_arena(web), cm_web_body(web), "Backup", &err) < 0) {
        cm_web_fail(web, &err);
        return;
    }
    path = body_str(&body, "path");
    if (!cm_str_starts(path, CM_S("/"))) {
        cm_fail_param(&err, CM_ERR_BAD_REQUEST, "path",
                      "path must be absolute: it is on the gateway's machine");
        cm_web_fail(web, &err);
        return;
    }
    store = need_store(admin, web);
    if (!store)
        return;
    t = task_new(admin, web);
    t->text = path;
    cm_store_backup(store, path, on_copied, t);
}
