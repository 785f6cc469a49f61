/* The daemon: creates every module in order, runs the loop, reloads, drains, closes in reverse.
 *
 * Start: loop -> notify -> jobs -> httpc -> gateway -> httpd -> listeners -> signals -> the service manager is told. SIGHUP: the file is read again; when it has problems nothing changes.
 * End: SIGTERM -> no new connections, answers in flight finish -> (drain_timeout: the rest is cut with an error) -> everything closes -> the loop is empty.
 * A second signal skips the waiting. */
#include "app.h"

#include "chatmux/admin/admin.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/secret.h"
#include "chatmux/base/version.h"
#include "chatmux/gateway/gateway.h"
#include "chatmux/import/import.h"
#include "chatmux/io/httpd.h"
#include "chatmux/io/notify.h"
#include "chatmux/io/signals.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define CUT_GRACE_MS 2000            /* for the last errors to reach their clients */
#define MEMO_MAX (32u * 1024 * 1024) /* bytes of what adapters remember between runs */

struct app {
    const struct cm_conf_source *source; /* not owned */
    struct cm_config *config;            /* a reference: what is served now */
    struct cm_loop *loop;
    struct cm_jobs *jobs;
    struct cm_httpc *httpc;
    struct cm_memo *memo;
    struct cm_host host;
    struct cm_store *store;
    struct cm_gateway *gateway;
    struct cm_admin *admin;
    struct cm_httpd *httpd;
    struct cm_signals *signals;
    struct cm_notify *notify;
    struct cm_deadline drain;
    bool draining, cut, closing;
    bool no_connections, quiet; /* while draining: nobody is connected; no kept stream runs */
};

void app_print_problems(const struct cm_problems *problems)
{
    for (const struct cm_problem *p = problems->first; p; p = p->next)
        fprintf(stderr, CM_PRI ": " CM_PRI "\n", CM_ARG(p->where), CM_ARG(p->text));
}

static void log_problems(const struct cm_problems *problems)
{
    for (const struct cm_problem *p = problems->first; p; p = p->next)
        cm_error("config", CM_PRI ": " CM_PRI, CM_ARG(p->where), CM_ARG(p->text));
}

/* What was set and has no effect. */
static void log_remarks(const struct cm_config *c)
{
    for (size_t i = 0; i < c->remarks.n; i++)
        cm_warn("config", CM_PRI, CM_ARG(c->remarks.v[i]));
}

static void setup_log(const struct cm_config *c)
{
    struct cm_log_setup setup = {.fd = 2,
                                 .level = (enum cm_log_level)c->log.level,
                                 .json = c->log.json,
                                 .access = c->log.access};

    cm_log_setup(&setup);
}

static struct cm_httpd_setup httpd_setup(const struct cm_config *c)
{
    return (struct cm_httpd_setup){.max_header_bytes = c->server.max_header_bytes,
                                   .max_body_bytes = c->server.max_body_bytes,
                                   .header_timeout_ms = c->server.header_timeout_ms,
                                   .body_timeout_ms = c->server.body_timeout_ms,
                                   .keepalive_timeout_ms = c->server.keepalive_timeout_ms,
                                   .max_connections = c->server.max_connections};
}

int app_load_tls(const struct cm_config *config, struct cm_tls **out, struct cm_problems *problems)
{
    struct cm_err err = {0};
    bool bad_key = false;
    const char *key;

    *out = NULL;
    if (config->server.tls_cert.n == 0 || config->server.tls_key.n == 0)
        return 0; /* one without the other is a problem of its own */
    *out = cm_tls_new(config->server.tls_cert, config->server.tls_key, &bad_key, &err);
    if (*out)
        return 0;
    key = bad_key ? "tls_key" : "tls_cert";
    cm_problem_add(problems, cm_config_where(config, "server", key), "server.%s: %s", key, err.msg);
    return -1;
}

static void use_tls(struct app *app, const struct cm_config *c, struct cm_tls *tls)
{
    const char *remark = tls ? cm_tls_remark(tls) : NULL;

    if (remark)
        cm_warn("app", CM_PRI ": the certificate %s; clients will refuse it",
                CM_ARG(c->server.tls_cert), remark);
    cm_httpd_tls(app->httpd, tls);
}

/* One descriptor for each client and each upstream connection: the soft limit of many systems is 1024. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* ---- the end ---- */

static void on_store_closed(void *arg)
{
    struct app *app = arg;

    app->store = NULL;
    cm_signals_close(
        app->signals); /* until now another signal must not end what is being written */
    cm_httpc_close(app->httpc);
    cm_jobs_close(app->jobs);
    cm_memo_free(app->memo);
    app->memo = NULL;
    app->httpc = NULL;
    app->jobs = NULL;
}

static void on_gateway_closed(void *arg)
{
    struct app *app = arg;

    app->gateway = NULL;
    cm_admin_free(app->admin);
    app->admin = NULL;
    if (app->store)
        cm_store_close(app->store, on_store_closed, app);
    else
        on_store_closed(app);
}

static void app_close(struct app *app)
{
    if (app->closing)
        return;
    app->closing = true;
    cm_deadline_clear(app->loop, &app->drain);
    cm_notify_close(app->notify);
    cm_httpd_close(app->httpd);
    cm_gateway_close(app->gateway, on_gateway_closed, app);
}

static void close_when_idle(struct app *app)
{
    if (app->no_connections && app->quiet)
        app_close(app);
}

static void on_idle(void *arg)
{
    struct app *app = arg;

    app->no_connections = true;
    close_when_idle(app);
}

static void on_quiet(void *arg)
{
    struct app *app = arg;

    app->quiet = true;
    close_when_idle(app);
}

static void on_drain_over(void *arg)
{
    struct app *app = arg;

    if (app->cut) {
        app_close(app);
        return;
    }
    cm_warn("app", "drain_timeout is over: %zu connections are cut",
            cm_httpd_connections(app->httpd));
    app->cut = true;
    cm_gateway_cut(app->gateway);
    cm_deadline_set(app->loop, &app->drain, cm_loop_now_ms(app->loop) + CUT_GRACE_MS);
}

static void stop(struct app *app)
{
    if (app->draining) {
        cm_warn("app", "second signal: ending at once");
        app_close(app);
        return;
    }
    app->draining = true;
    cm_info("app", "stopping: answers in flight finish first, for at most %lld s",
            (long long)app->config->server.drain_timeout_ms / 1000);
    cm_notify_stopping(app->notify);
    cm_notify_status(app->notify, "stopping: answers in flight finish");
    cm_gateway_drain(app->gateway, on_quiet, app);
    cm_deadline_set(app->loop, &app->drain,
                    cm_loop_now_ms(app->loop) + (uint64_t)app->config->server.drain_timeout_ms);
    cm_httpd_drain(app->httpd, on_idle, app);
}

/* ---- reload ---- */

/* The service manager knows that we serve, and what. */
static void tell_ready(const struct app *app, const char *remark)
{
    cm_notify_ready(app->notify);
    cm_notify_status(app->notify, "serving %zu provider%s%s", app->config->n_providers,
                     app->config->n_providers == 1 ? "" : "s", remark);
}

static void log_changes(const struct cm_strs *changed, size_t restart)
{
    cm_info("app", "configuration reloaded: %zu settings changed%s", changed->n,
            restart ? ", some take effect only after a restart" : "");
    for (size_t i = 0; i < changed->n; i++)
        cm_info("app", "changed: " CM_PRI, CM_ARG(changed->v[i]));
}

/* By signal or by the admin API. */
static int reload(void *arg, struct cm_arena *arena, struct cm_strs *changed,
                  struct cm_problems *problems)
{
    struct app *app = arg;
    struct cm_httpd_setup setup;
    struct cm_tls *tls = NULL;
    struct cm_config *c;
    size_t restart = 0;

    cm_notify_reloading(app->notify);
    c = cm_config_load(app->source, problems);
    if (!c || app_load_tls(c, &tls, problems) < 0 ||
        cm_gateway_reload(app->gateway, c, problems) < 0) {
        log_problems(problems);
        cm_error("app", "reload refused: the configuration that was in force stays");
        cm_tls_unref(tls);
        cm_config_unref(c);
        tell_ready(app, "; the last reload was refused, see the log");
        return -1;
    }
    *changed = cm_config_diff(arena, app->config, c, &restart);
    log_changes(changed, restart);
    cm_config_unref(app->config);
    app->config = c;
    setup = httpd_setup(c);
    cm_httpd_limits(app->httpd, &setup);
    use_tls(app, c, tls);
    setup_log(c);
    tell_ready(app, "");
    return 0;
}

static void on_hangup(struct app *app)
{
    struct cm_arena texts = {0};
    struct cm_problems problems;
    struct cm_strs changed = {0};

    cm_problems_init(&problems, &texts);
    reload(app, &texts, &changed, &problems);
    cm_arena_clear(&texts);
}

static void on_signal(void *arg, int number)
{
    struct app *app = arg;

    if (number == SIGHUP) {
        if (!app->draining)
            on_hangup(app);
        return;
    }
    stop(app);
}

/* ---- the beginning ---- */

static int listen_all(struct app *app)
{
    const struct cm_strs *addresses = &app->config->server.listen;
    bool systemd = false;
    struct cm_err err = {0};

    for (size_t i = 0; i < addresses->n; i++)
        systemd = systemd || cm_str_eq(addresses->v[i], CM_S("systemd"));
    if (!systemd && getenv("LISTEN_FDS"))
        cm_warn("app", "systemd passes sockets, but server.listen does not name systemd: they are "
                       "not used");
    for (size_t i = 0; i < addresses->n; i++) {
        if (cm_httpd_listen(app->httpd, addresses->v[i], &err) < 0) {
            cm_error("app", "%s", err.msg);
            return -1;
        }
    }
    return 0;
}

/* ":8080" and "0.0.0.0:8080" are nothing a person can type into a browser. */
static void log_addresses(const struct app *app)
{
    const struct cm_config *c = app->config;
    const char *scheme = c->server.tls_cert.n > 0 ? "https" : "http";
    bool open = cm_keys_count(cm_gateway_keys(app->gateway)) == 0; /* stored ones count, too */

    for (size_t i = 0; i < c->server.listen.n; i++) {
        struct cm_str a = c->server.listen.v[i];

        if (cm_str_eq(a, CM_S("systemd")))
            continue; /* the listener has told which these are */
        if (cm_str_starts(a, CM_S("unix:")))
            cm_info("app", "listening on " CM_PRI, CM_ARG(a));
        else
            cm_info("app", "listening on %s://" CM_PRI "/v1", scheme, CM_ARG(a));
    }
    if (c->auth.open)
        cm_warn("app", "auth.open is on: whoever reaches this port uses your accounts");
    else if (open && c->auth.open_until_keys)
        cm_warn("app",
                "there is no client key: whoever reaches this port uses your accounts, until "
                "there is one%s",
                c->seed.n ? " (API_SECRET, or chatmux key add)" : "");
    else if (open)
        cm_info("app", "no client key is set: open to this machine only");
    if (c->builtin_demo && c->server.listen.n > 0 &&
        !cm_str_starts(c->server.listen.v[0], CM_S("unix:")) &&
        !cm_str_eq(c->server.listen.v[0], CM_S("systemd")))
        cm_info(
            "app",
            "no configuration file: serving the built-in demo. Try: curl %s://" CM_PRI
            "/v1/chat/completions -H 'Content-Type: application/json' -d '{\"model\":\"demo\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}'",
            scheme, CM_ARG(c->server.listen.v[0]));
}

/* The first start in the place of another gateway: what it kept comes along. When that fails the gateway starts without it; nobody can use
 * accounts that are not there. */
static void take_over(struct app *app)
{
    const struct cm_config *c = app->config;
    const struct cm_provider_conf *provider;
    struct cm_import im = {0};
    struct cm_import_result r;
    struct cm_err err = {0};

    if (cm_import_hixai2api(&im, c->old_data.p, &err) < 0 ||
        !(provider = cm_import_provider(c, &im, &err)) ||
        cm_import_into(app->loop, app->store, provider, &im, &r, &err) < 0)
        cm_error("app",
                 CM_PRI " cannot be taken over: %s. To try again: chatmux import " CM_PRI
                        " " CM_PRI,
                 CM_ARG(c->old_data), err.msg, CM_ARG(c->seed), CM_ARG(c->old_data));
    else
        cm_info("app",
                "took over %zu accounts, %zu client keys and %zu conversations from " CM_PRI
                "%s%s; that file is not used any more",
                r.creds, r.keys, r.chats, CM_ARG(c->old_data),
                r.refused_creds + r.refused_keys ? ", others cannot be used: " : "",
                r.refused_creds + r.refused_keys ? r.why.msg : "");
    cm_import_clear(&im);
}

static int open_store(struct app *app)
{
    const struct cm_config *c = app->config;
    struct cm_store_setup setup = {.loop = app->loop,
                                   .jobs = app->jobs,
                                   .url = c->store.url,
                                   .state_dir = c->store.state_dir,
                                   .master_key = c->store.master_key,
                                   .master_key_file = c->store.master_key_file,
                                   .keep_days = c->store.keep_days,
                                   .responses_ttl_ms = c->store.responses_ttl_ms,
                                   .responses_max = c->store.responses_max,
                                   .responses_bytes = c->store.responses_bytes};
    struct cm_err err = {0};

    app->store = cm_store_open(&setup, &err);
    if (!app->store)
        cm_error("app", "%s", err.msg);
    else if (c->old_data.n > 0 && cm_store_is_unused(app->store))
        take_over(app);
    return app->store ? 0 : -1;
}

static int app_open(struct app *app)
{
    struct cm_httpd_setup setup = httpd_setup(app->config);
    struct cm_httpd_handler handler;
    struct cm_arena texts = {0};
    struct cm_problems problems;
    struct cm_tls *tls = NULL;

    cm_problems_init(&problems, &texts);
    app->loop = cm_loop_new();
    app->notify = cm_notify_new(app->loop);
    app->jobs = cm_jobs_new(app->loop);
    app->httpc = cm_httpc_new(app->loop);
    app->memo = cm_memo_new(&cm_clock_system, MEMO_MAX);
    app->host = (struct cm_host){.loop = app->loop,
                                 .jobs = app->jobs,
                                 .transport = cm_transport_httpc(app->httpc),
                                 .memo = app->memo};
    cm_deadline_init(&app->drain, on_drain_over, app);
    if (app_load_tls(app->config, &tls, &problems) == 0 && open_store(app) == 0) {
        app->host.keeper = cm_gateway_keeper(app->store);
        app->gateway = cm_gateway_new(&app->host, app->config, app->store, &problems);
    }
    if (!app->gateway) {
        cm_tls_unref(tls);
        app_print_problems(&problems);
        cm_arena_clear(&texts);
        return 2; /* the configuration was checked before: the store cannot be read */
    }
    cm_arena_clear(&texts);
    app->admin = cm_admin_new(app->gateway, reload, app);
    handler = cm_gateway_handler(app->gateway);
    app->httpd = cm_httpd_new(app->loop, &setup, &handler);
    use_tls(app, app->config, tls);
    if (listen_all(app) < 0)
        return 2;
    app->signals = cm_signals_new(app->loop, on_signal, app);
    log_addresses(app);
    tell_ready(app, "");
    return 0;
}

static void log_start(const struct cm_config *c)
{
    struct cm_str file = c->file.n || c->seed.n ? c->file : CM_S("built-in defaults");

    if (c->seed.n)
        cm_info("app", "chatmux " CM_VERSION " starts with the environment of " CM_PRI "%s" CM_PRI,
                CM_ARG(c->seed), file.n ? " and " : "", CM_ARG(file));
    else
        cm_info("app", "chatmux " CM_VERSION " starts with " CM_PRI, CM_ARG(file));
    log_remarks(c);
}

int app_run(struct cm_config *config, const struct cm_conf_source *source)
{
    struct app app = {.source = source, .config = config};
    int status;

    setup_log(config);
    cm_secret_hide_environment();
    if (!config->server.core_dumps)
        cm_secret_forbid_cores();
    raise_descriptor_limit();
    log_start(config);
    status = app_open(&app);
    if (status == 0) {
        cm_loop_run(app.loop);
        cm_info("app", "stopped");
    } else if (app.gateway) {
        cm_deadline_clear(app.loop, &app.drain);
        cm_notify_close(app.notify);
        cm_httpd_close(app.httpd);
        cm_gateway_close(app.gateway, on_gateway_closed, &app);
        cm_loop_run(app.loop); /* until that has come */
    } else {
        cm_notify_close(app.notify);
        on_gateway_closed(&app);
        cm_loop_run(app.loop);
    }
    cm_loop_free(app.loop);
    cm_config_unref(app.config);
    cm_log_flush();
    return status;
}
