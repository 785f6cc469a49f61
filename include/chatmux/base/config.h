/* The configuration: one table of keys, read from file, environment and command line into an
 * immutable, counted snapshot. Reading is done by one thread; a finished snapshot is read-only. */
#ifndef CHATMUX_BASE_CONFIG_H
#define CHATMUX_BASE_CONFIG_H

#include "chatmux/base/buf.h"
#include "chatmux/base/ini.h"

/* [upstream], and the same keys inside [provider …] */
struct cm_upstream_conf {
    struct cm_str proxy;
    int64_t connect_timeout_ms, first_token_timeout_ms, idle_timeout_ms, response_timeout_ms,
        total_timeout_ms;
    int64_t max_inflight; /* 0 = the adapter's default */
    int64_t min_interval_ms;
    int64_t cooldown_ms; /* -1 = empty: the adapter's own */
    int64_t
        monthly_limit; /* requests per credential and month; 0 = none, -1 = empty: the adapter's own */
    int on_disconnect;                             /* enum cm_on_disconnect */
    int64_t drain_time_ms, drain_bytes, drain_max; /* bounds of CM_DISCONNECT_DRAIN */
    int64_t breaker_rate, breaker_attempts; /* per cent, 0 = never; attempts before it counts */
    int64_t breaker_account_attempts;       /* … of one credential with one model */
    struct cm_str user_agent, ca_file;
    int http_version; /* enum cm_http_version */
    bool allow_private_fetch;
    bool strict; /* a member that would be dropped is refused */
};
enum cm_on_disconnect { CM_DISCONNECT_CANCEL, CM_DISCONNECT_DRAIN };
enum cm_http_version { CM_HTTP_AUTO, CM_HTTP_1_1, CM_HTTP_2 };

struct cm_conf_pair {     /* header.NAME = value, x.OPTION = value */
    struct cm_str key;    /* without the prefix */
    struct cm_str value;  /* a header's is one line without control characters */
    struct cm_strs items; /* the value read as a list */
    struct cm_str where;  /* "FILE:LINE", "environment …" or "--set …", for complaints */
};

struct cm_provider_conf {
    struct cm_str name, where;    /* where: FILE:LINE of the section */
    struct cm_str type, base_url; /* base_url: "" or http(s)://host…, without a slash at its end */
    struct cm_strs credentials;   /* secret */
    struct cm_strs models;        /* "name" or "ours=theirs" or "*", checked */
    int64_t priority, weight;     /* lower first; 1 … 1000 */
    struct cm_upstream_conf upstream;
    struct cm_conf_pair *headers;
    size_t n_headers;
    struct cm_conf_pair *options; /* x.…; the adapter's table says which exist */
    size_t n_options;
    const struct cm_str *origins; /* private to cm_provider_where() */
};

enum cm_route_strategy {
    CM_ROUTE_PRIORITY,
    CM_ROUTE_WEIGHTED,
    CM_ROUTE_LEAST_BUSY,
    CM_ROUTE_FASTEST
};
struct cm_model_conf {
    struct cm_str name, where;
    struct cm_strs targets; /* "provider/model [weight=N]", checked; see cm_conf_target() */
    int strategy;           /* enum cm_route_strategy */
    struct cm_strs larger;  /* "provider/model", checked: for prompts too long for the targets */
    int64_t hedge_after_ms; /* 0 = off, -1 = auto */
};

struct cm_price_conf {         /* [price MODEL]; micro-USD per million tokens */
    struct cm_str name, where; /* name: of a model, or "prefix*" */
    int64_t input, output;
    int64_t cache_read, cache_write;                     /* -1 = as input */
    int64_t reasoning;                                   /* -1 = as output */
    int64_t audio_input, audio_cache_read, audio_output; /* -1 = as input, cache_read, output */
    int64_t image;                                       /* micro-USD each */
};

/* server.compat: whose error texts, fields and pages clients of the OpenAI routes get. */
enum cm_compat {
    CM_COMPAT_NONE,
    CM_COMPAT_HIXAI2API,
    CM_COMPAT_GENSPARK2API,
    CM_COMPAT_ALEXSIDEBAR2API
};

enum cm_reasoning {
    CM_REASONING_FIELD,
    CM_REASONING_THINK,
    CM_REASONING_THINK_COLON,
    CM_REASONING_THINK_COLON_DELTA,
    CM_REASONING_PLAIN,
    CM_REASONING_HIDE
};

struct cm_config {
    struct {
        struct cm_strs listen;
        struct cm_str route_prefix; /* normalised: "" or "/hf" */
        struct cm_str tls_cert, tls_key;
        int64_t max_header_bytes, max_body_bytes;
        int64_t header_timeout_ms, body_timeout_ms, keepalive_timeout_ms;
        int64_t max_connections;
        int64_t max_streams, max_memory, max_lag_ms; /* 0 = no limit */
        int64_t drain_timeout_ms;
        bool core_dumps;
        struct cm_strs cors_origins, trusted_proxies;
        int compat;   /* enum cm_compat */
        bool swagger; /* the page of /docs is also where the seeds had theirs */
    } server;
    struct {
        struct cm_strs keys; /* secret */
        bool open;
        bool open_until_keys; /* open as long as there is no key at all, on any listener */
        /* derived: neither open, nor so until there are keys, nor any key; then every listener is local */
        bool open_here;
        struct cm_strs ip_block;    /* addresses and networks */
        struct cm_str admin_secret; /* secret */
        int64_t ip_requests_per_minute, ip_bad_auth_per_minute;
    } auth;
    struct {
        struct cm_str url;       /* "sqlite:…" */
        struct cm_str state_dir; /* resolved: the setting, else $STATE_DIRECTORY, else ./data */
        struct cm_str master_key, master_key_file; /* master_key is secret; at most one is set */
        bool request_log;
        int64_t keep_days; /* of the request log; 0 = for ever */
        int64_t responses_ttl_ms, responses_max, responses_bytes; /* ttl 0 = none are kept */
    } store;
    struct {
        int level;  /* enum cm_log_level */
        int format; /* 0 text, 1 json */
        bool json;  /* derived from it */
        bool access;
    } log;
    struct cm_upstream_conf upstream;
    struct {
        int64_t credentials, retries, max_wait_ms;
    } retry;
    struct {
        int64_t keepalive_ms, commit_after_ms;
        int reasoning; /* enum cm_reasoning */
    } stream;
    struct {
        int64_t max_message;
        int64_t max_sessions, max_sessions_per_key; /* 0 = any number */
        int64_t ping_ms, idle_ms, max_duration_ms;  /* 0 = never */
    } realtime;
    struct {
        int64_t keep_ms, away_ms, job_wait_ms, max_bytes, max_total_bytes, max_per_key, max_streams;
    } resume;
    struct cm_provider_conf *providers;
    size_t n_providers;
    struct cm_model_conf *models;
    size_t n_models;
    struct cm_price_conf *prices;
    size_t n_prices;

    struct cm_str file;     /* as given; "" = built-in defaults, no file at all */
    bool builtin_demo;      /* no file exists: the one provider is "demo" */
    struct cm_str seed;     /* the system whose environment is in force: "hixai2api"; "" = none */
    struct cm_strs remarks; /* what was set and has no effect; told at every start */
    struct cm_str old_data; /* the file in which that system kept keys and accounts; "" = none */
    struct cm_arena arena;  /* holds every slice above */
    unsigned refs;
    struct cm_conf_origins *origins; /* where each value came from; in the arena */
};

/* The table, one row a key: the parser, the environment, print-config, `chatmux help config` and the
 * test of the example file read it. */
enum cm_conf_type {
    CM_CONF_STR,      /* struct cm_str, one line */
    CM_CONF_LIST,     /* struct cm_strs */
    CM_CONF_INT,      /* int64_t */
    CM_CONF_BOOL,     /* bool */
    CM_CONF_DURATION, /* int64_t, ms */
    CM_CONF_SIZE,     /* int64_t, bytes */
    CM_CONF_ENUM,     /* int, the position in `choices` */
    CM_CONF_USD       /* int64_t, micro-USD; 0 to CM_CONF_USD_MAX */
};
struct cm_conf_key {
    const char *section, *key; /* section "server" …, "provider", "model", "price" */
    enum cm_conf_type type;
    size_t offset;    /* into cm_config, cm_provider_conf, cm_model_conf or cm_price_conf */
    const char *def;  /* as one would write it */
    int64_t min, max; /* numbers, durations in ms, sizes in bytes */
    /* enum: "text|json"; number, duration, USD: the word that stands for -1 ("" = an empty value does)
     * or NULL */
    const char *choices;
    bool reloadable, secret;
    const char *help; /* one line */
};
/* Sorted by section. The rows of "upstream" hold for [provider …] too. */
extern const struct cm_conf_key cm_conf_keys[];
extern const size_t cm_conf_keys_n;

/* Where a provider's key was set, FILE:LINE; the section's place for one that was not. For complaints. */
struct cm_str cm_provider_where(const struct cm_provider_conf *p, const char *key);
/* The same of a key in a section without a name; the file for one that was not set. */
struct cm_str cm_config_where(const struct cm_config *c, const char *section, const char *key);

struct cm_conf_source {
    const char *file; /* NULL: ./chatmux.ini, /etc/chatmux/chatmux.ini, built-in */
    const char *const
        *sets; /* "section.key=value", "provider.NAME.key=value"; the last one counts */
    size_t n_sets;
    char *const *environ_list; /* "NAME=value" …, NULL at the end; NULL: the process's own */
    /* What only upper layers can check (provider types, routes); may be NULL. Called once for each configuration that was read, also for one with
     * problems, so that all are told at once. */
    void (*check)(void *arg, struct cm_config *config, struct cm_problems *problems);
    void *check_arg;
    /* For clients of a running gateway: a configuration with problems is given, too, without the values that have them. */
    bool lenient;
};

/* Reads everything; NULL when there is any problem (all are in *problems, texts in its arena). The
 * snapshot starts with one reference. */
struct cm_config *cm_config_load(const struct cm_conf_source *src, struct cm_problems *problems);
/* For tests: the text instead of a file; src->file is not looked at. `file` is what problems name. */
struct cm_config *cm_config_parse(const char *file, struct cm_str text,
                                  const struct cm_conf_source *src, struct cm_problems *problems);

struct cm_config *cm_config_ref(struct cm_config *c);
void cm_config_unref(struct cm_config *c); /* NULL is fine; wipes secrets when the last one goes */

/* The effective values as an INI text that can be read again, each below a comment that tells where
 * it came from. Secrets are fingerprints and user:password@ in a URL is hidden, so those have to be
 * filled in again. A provider shows the upstream keys of its own only. (An option's list into which a
 * variable brought a comma is shown as text and would be split there.) */
void cm_config_print(const struct cm_config *c, struct cm_buf *out);

/* Names of what differs between the two: "section.key", "provider.NAME", "provider.NAME.key",
 * "model.NAME.key", "price.NAME.key"; *restart counts those that take effect only after a restart
 * (" (after a restart)" follows their name). All lives in the arena. */
struct cm_strs cm_config_diff(struct cm_arena *arena, const struct cm_config *a,
                              const struct cm_config *b, size_t *restart);

/* Value readers, also used for adapter options. -1 and *err CM_ERR_CONFIG with what is expected ("must
 * be …"); the value itself is not told, it may be a secret. */
/* "500ms" "10s" "5m" "1h" "7d" "0" */
int cm_conf_duration(struct cm_str s, int64_t *out_ms, struct cm_err *err);
/* "64k" "32m" "2g" "100" */
int cm_conf_size(struct cm_str s, int64_t *out, struct cm_err *err);
int cm_conf_bool(struct cm_str s, bool *out, struct cm_err *err);
/* "2.50": digits, and at most 6 of them behind a point; exact. */
#define CM_CONF_USD_MAX INT64_C(1000000000000)
int cm_conf_usd(struct cm_str s, int64_t *out_micro, struct cm_err *err);
int cm_conf_int(struct cm_str s, int64_t min, int64_t max, int64_t *out, struct cm_err *err);

/* One item of server.listen. Slices point into s. */
struct cm_listen_spec {
    enum { CM_LISTEN_TCP, CM_LISTEN_UNIX, CM_LISTEN_SYSTEMD } kind;
    struct cm_str host; /* TCP: a name or address, without brackets */
    unsigned port;      /* TCP; 0 = any free one */
    struct cm_str path; /* UNIX; absolute */
    bool local;         /* reaches this machine only, as far as the text tells */
};
int cm_conf_listen(struct cm_str s, struct cm_listen_spec *out, struct cm_err *err);

/* One item of a route's targets. Slices point into s. */
struct cm_target_spec {
    struct cm_str provider, model;
    int64_t weight; /* 1 … 1000, 1 when not told */
    struct cm_str
        overrides; /* "temperature=0.2 max_tokens=500", names and values checked; "" = none */
};
int cm_conf_target(struct cm_str s, struct cm_target_spec *out, struct cm_err *err);

/* Whether a header or adapter option of this name is shown as a fingerprint: "Authorization",
 * "X-Api-Key", "session_id" … */
bool cm_conf_secret_name(struct cm_str name);

/* The nearest of `names` (n of them) by edit distance, letter case aside, or NULL when none is near:
 * for "unknown key, is it …?" */
const char *cm_conf_nearest(struct cm_str name, const char *const *names, size_t n);

#endif
