/* The table of configuration keys, and finding one in it. */
#include "config_int.h"

#include "chatmux/base/mem.h"

#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define KIB INT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define MANY INT64_C(1000000)

#define IN(member) offsetof(struct cm_config, member)
#define IN_PROVIDER(member) offsetof(struct cm_provider_conf, member)
#define IN_MODEL(member) offsetof(struct cm_model_conf, member)
#define IN_PRICE(member) offsetof(struct cm_price_conf, member)

/* whether a reload is enough, and whether the value is shown */
#define LIVE true
#define RESTART false
#define OPEN false
#define SECRET true

const struct cm_conf_key cm_conf_keys[] = {
    {"server", "listen", CM_CONF_LIST, IN(server.listen), "127.0.0.1:8080", 0, 0, NULL, RESTART,
     OPEN, "list of host:port, [v6]:port, unix:/path, systemd (socket activation)"},
    {"server", "route_prefix", CM_CONF_STR, IN(server.route_prefix), "", 0, 0, NULL, LIVE, OPEN,
     "\"hf\": every route is also served under /hf"},
    {"server", "tls_cert", CM_CONF_STR, IN(server.tls_cert), "", 0, 0, NULL, LIVE, OPEN,
     "PEM file with the certificate chain; read again on SIGHUP; empty = plain HTTP"},
    {"server", "tls_key", CM_CONF_STR, IN(server.tls_key), "", 0, 0, NULL, LIVE, OPEN,
     "PEM file with the private key of tls_cert"},
    {"server", "max_header_bytes", CM_CONF_SIZE, IN(server.max_header_bytes), "32k", 256, 16 * MIB,
     NULL, LIVE, OPEN, "largest request head; over it: 431"},
    {"server", "max_body_bytes", CM_CONF_SIZE, IN(server.max_body_bytes), "64m", 1, 4 * GIB, NULL,
     LIVE, OPEN, "largest request body; over it: 413"},
    {"server", "header_timeout", CM_CONF_DURATION, IN(server.header_timeout_ms), "10s", 1, DAY,
     NULL, LIVE, OPEN, "a request head that is not complete by then: 408 and close"},
    {"server", "body_timeout", CM_CONF_DURATION, IN(server.body_timeout_ms), "60s", 1, DAY, NULL,
     LIVE, OPEN, "no byte of the request body for so long: 408 and close"},
    {"server", "keepalive_timeout", CM_CONF_DURATION, IN(server.keepalive_timeout_ms), "75s", 1,
     DAY, NULL, LIVE, OPEN, "an idle connection is closed after so long"},
    {"server", "max_connections", CM_CONF_INT, IN(server.max_connections), "10000", 1, MANY, NULL,
     LIVE, OPEN, "client connections at once; over it accepting waits"},
    {"server", "max_streams", CM_CONF_INT, IN(server.max_streams), "0", 0, MANY, NULL, LIVE, OPEN,
     "streams at once; over: new requests get 503; 0 = no limit"},
    {"server", "max_memory", CM_CONF_SIZE, IN(server.max_memory), "0", 0, 1024 * GIB, NULL, LIVE,
     OPEN, "resident memory; over: new requests get 503; 0 = no limit"},
    {"server", "max_lag", CM_CONF_DURATION, IN(server.max_lag_ms), "1s", 0, HOUR, NULL, LIVE, OPEN,
     "delay of the event loop; over: new requests get 503 for a second or two; 0 = no limit"},
    {"server", "drain_timeout", CM_CONF_DURATION, IN(server.drain_timeout_ms), "300s", 0, DAY, NULL,
     LIVE, OPEN, "how long requests in flight may go on after SIGTERM"},
    {"server", "core_dumps", CM_CONF_BOOL, IN(server.core_dumps), "no", 0, 0, NULL, RESTART, OPEN,
     "yes = a crash may leave a core, as far as the system allows; it can hold secrets"},
    {"server", "cors_origins", CM_CONF_LIST, IN(server.cors_origins), "", 0, 0, NULL, LIVE, OPEN,
     "\"*\" or a list of origins (https://chat.example.com); empty = no CORS headers"},
    {"server", "trusted_proxies", CM_CONF_LIST, IN(server.trusted_proxies), "", 0, 0, NULL, LIVE,
     OPEN, "list of networks (10.0.0.0/8) whose X-Forwarded-For counts"},

    {"server", "compat", CM_CONF_ENUM, IN(server.compat), "none", 0, 0,
     "none|hixai2api|genspark2api|alexsidebar2api", LIVE, OPEN,
     "error texts and fields of another gateway, for clients that look for them"},
    {"server", "swagger", CM_CONF_BOOL, IN(server.swagger), "no", 0, 0, NULL, LIVE, OPEN,
     "yes = the page of /docs is at /swagger/index.html, too"},

    {"auth", "keys", CM_CONF_LIST, IN(auth.keys), "", 0, 0, NULL, LIVE, SECRET,
     "list of client keys; stored keys come on top"},
    {"auth", "open", CM_CONF_BOOL, IN(auth.open), "no", 0, 0, NULL, LIVE, OPEN,
     "yes = clients need no key; without any key and not open, only loopback listeners start"},
    {"auth", "open_until_keys", CM_CONF_BOOL, IN(auth.open_until_keys), "no", 0, 0, NULL, LIVE,
     OPEN, "yes = open to everybody as long as there is no key at all, not even a stored one"},
    {"auth", "ip_block", CM_CONF_LIST, IN(auth.ip_block), "", 0, 0, NULL, LIVE, OPEN,
     "list of client addresses or networks (10.0.0.0/8) that are refused"},
    {"auth", "admin_secret", CM_CONF_STR, IN(auth.admin_secret), "", 0, 0, NULL, LIVE, SECRET,
     "secret of the admin API; empty = admin API off"},
    {"auth", "ip_requests_per_minute", CM_CONF_INT, IN(auth.ip_requests_per_minute), "0", 0, MANY,
     NULL, LIVE, OPEN, "requests of one client address per minute; 0 = any number"},
    {"auth", "ip_bad_auth_per_minute", CM_CONF_INT, IN(auth.ip_bad_auth_per_minute), "30", 0, MANY,
     NULL, LIVE, OPEN, "wrong keys of one client address per minute, then 429; 0 = any number"},

    {"store", "url", CM_CONF_STR, IN(store.url), "sqlite:chatmux.db", 0, 0, NULL, RESTART, OPEN,
     "sqlite:FILE, relative to state_dir"},
    {"store", "state_dir", CM_CONF_STR, IN(store.state_dir), "", 0, 0, NULL, RESTART, OPEN,
     "directory of all durable files; empty = $STATE_DIRECTORY, else ./data"},
    {"store", "master_key", CM_CONF_STR, IN(store.master_key), "", 0, 0, NULL, RESTART, SECRET,
     "key that encrypts stored secrets; empty = a key file is made beside the database"},
    {"store", "master_key_file", CM_CONF_STR, IN(store.master_key_file), "", 0, 0, NULL, RESTART,
     OPEN, "file that holds the master key, instead of master_key"},
    {"store", "request_log", CM_CONF_BOOL, IN(store.request_log), "yes", 0, 0, NULL, LIVE, OPEN,
     "one row for each request, with its attempts; without it only usage and costs are kept"},
    {"store", "keep_days", CM_CONF_INT, IN(store.keep_days), "30", 0, 36500, NULL, RESTART, OPEN,
     "how long rows of the request log are kept; 0 = for ever"},
    {"store", "responses_ttl", CM_CONF_DURATION, IN(store.responses_ttl_ms), "24h", 0,
     INT64_C(3660) * 24 * 3600 * 1000, NULL, RESTART, OPEN,
     "how long after its last use a response of the Responses API is kept, with its prompt; 0 = "
     "none is"},
    {"store", "responses_max", CM_CONF_INT, IN(store.responses_max), "10000", 1, MANY, NULL,
     RESTART, OPEN, "how many responses are kept; the least recently used go first"},
    {"store", "responses_bytes", CM_CONF_SIZE, IN(store.responses_bytes), "256m", 65536,
     INT64_C(1) << 50, NULL, RESTART, OPEN, "how much they may hold together"},

    {"log", "level", CM_CONF_ENUM, IN(log.level), "info", 0, 0, "error|warn|info|debug|trace", LIVE,
     OPEN, "least important lines that are written"},
    {"log", "format", CM_CONF_ENUM, IN(log.format), "text", 0, 0, "text|json", LIVE, OPEN,
     "text for people, json (one object a line) for programs"},
    {"log", "access", CM_CONF_BOOL, IN(log.access), "yes", 0, 0, NULL, LIVE, OPEN,
     "one line for each request that was answered"},

    {"upstream", "proxy", CM_CONF_STR, IN(upstream.proxy), "", 0, 0, NULL, LIVE, OPEN,
     "http://, https:// or socks5h://[user:password@]host:port for every connection to the platform"},
    {"upstream", "connect_timeout", CM_CONF_DURATION, IN(upstream.connect_timeout_ms), "10s", 1,
     HOUR, NULL, LIVE, OPEN, "name resolution, connection and TLS"},
    {"upstream", "first_token_timeout", CM_CONF_DURATION, IN(upstream.first_token_timeout_ms),
     "120s", 1, DAY, NULL, LIVE, OPEN,
     "a streamed answer must have begun to say something by then"},
    {"upstream", "idle_timeout", CM_CONF_DURATION, IN(upstream.idle_timeout_ms), "120s", 1, DAY,
     NULL, LIVE, OPEN, "longest silence within a streamed answer"},
    {"upstream", "response_timeout", CM_CONF_DURATION, IN(upstream.response_timeout_ms), "600s", 1,
     DAY, NULL, LIVE, OPEN, "head of an answer that is not streamed"},
    {"upstream", "total_timeout", CM_CONF_DURATION, IN(upstream.total_timeout_ms), "3600s", 1,
     7 * DAY, NULL, LIVE, OPEN, "one attempt from first to last byte"},
    {"upstream", "max_inflight", CM_CONF_INT, IN(upstream.max_inflight), "0", 0, MANY, NULL, LIVE,
     OPEN, "attempts at once per credential; 0 = the adapter's default"},
    {"upstream", "min_interval", CM_CONF_DURATION, IN(upstream.min_interval_ms), "0", 0, HOUR, NULL,
     LIVE, OPEN,
     "least time from the begin of one attempt of a credential to that of its next one"},
    {"upstream", "cooldown", CM_CONF_DURATION, IN(upstream.cooldown_ms), "", 0, 30 * DAY, "", LIVE,
     OPEN,
     "rest of a rate limited credential when the platform tells no time; empty = the adapter's own"},
    {"upstream", "monthly_limit", CM_CONF_INT, IN(upstream.monthly_limit), "", 0, MANY, "", LIVE,
     OPEN,
     "requests per credential in a calendar month (UTC); 0 = any number, empty = the adapter's own"},
    {"upstream", "on_disconnect", CM_CONF_ENUM, IN(upstream.on_disconnect), "cancel", 0, 0,
     "cancel|drain", LIVE, OPEN,
     "when the client leaves: cancel the answer, or drain it to its end"},
    {"upstream", "drain_time", CM_CONF_DURATION, IN(upstream.drain_time_ms), "60s", 1, DAY, NULL,
     LIVE, OPEN, "an answer is drained for so long at most"},
    {"upstream", "drain_bytes", CM_CONF_SIZE, IN(upstream.drain_bytes), "4m", 1, GIB, NULL, LIVE,
     OPEN, "and no further than so many bytes of it"},
    {"upstream", "drain_max", CM_CONF_INT, IN(upstream.drain_max), "100", 0, MANY, NULL, LIVE, OPEN,
     "answers that are drained at once; more are cancelled"},
    {"upstream", "breaker_rate", CM_CONF_INT, IN(upstream.breaker_rate), "50", 0, 100, NULL, LIVE,
     OPEN,
     "per cent of attempts failing within 30 s (down, overloaded, cut, silent) that close the provider for a while; 0 = never"},
    {"upstream", "breaker_attempts", CM_CONF_INT, IN(upstream.breaker_attempts), "20", 1, MANY,
     NULL, LIVE, OPEN, "attempts in these 30 s before breaker_rate counts"},
    {"upstream", "breaker_account_attempts", CM_CONF_INT, IN(upstream.breaker_account_attempts),
     "5", 1, MANY, NULL, LIVE, OPEN,
     "attempts of one credential with one model in a minute before breaker_rate counts for the two of them"},
    {"upstream", "user_agent", CM_CONF_STR, IN(upstream.user_agent), "", 0, 0, NULL, LIVE, OPEN,
     "User-Agent towards the platform; empty = the adapter's own"},
    {"upstream", "ca_file", CM_CONF_STR, IN(upstream.ca_file), "", 0, 0, NULL, LIVE, OPEN,
     "PEM file of the authorities to trust; empty = the system's"},
    {"upstream", "http_version", CM_CONF_ENUM, IN(upstream.http_version), "auto", 0, 0,
     "auto|1.1|2", LIVE, OPEN, "HTTP version towards the platform"},
    {"upstream", "allow_private_fetch", CM_CONF_BOOL, IN(upstream.allow_private_fetch), "no", 0, 0,
     NULL, LIVE, OPEN, "image URLs in messages may point at private or loopback addresses"},
    {"upstream", "strict", CM_CONF_BOOL, IN(upstream.strict), "no", 0, 0, NULL, LIVE, OPEN,
     "yes = a request member that has no effect at the provider is refused instead of dropped"},

    {"retry", "credentials", CM_CONF_INT, IN(retry.credentials), "8", 1, 1000, NULL, LIVE, OPEN,
     "how many credentials one request may try"},
    {"retry", "retries", CM_CONF_INT, IN(retry.retries), "2", 0, 100, NULL, LIVE, OPEN,
     "repetitions of one target, with growing pauses"},
    {"retry", "max_wait", CM_CONF_DURATION, IN(retry.max_wait_ms), "10s", 0, HOUR, NULL, LIVE, OPEN,
     "wait when all credentials are busy, or when the earliest cooldown ends within it; else 429 at once"},

    {"stream", "keepalive", CM_CONF_DURATION, IN(stream.keepalive_ms), "15s", 0, HOUR, NULL, LIVE,
     OPEN, "a comment (or ping) into a stream that is silent for so long; 0 = off"},
    {"stream", "commit_after", CM_CONF_DURATION, IN(stream.commit_after_ms), "0", 0, HOUR, NULL,
     LIVE, OPEN,
     "send 200 and keep-alives to a streaming client after so long without an answer; 0 = never"},
    {"stream", "reasoning", CM_CONF_ENUM, IN(stream.reasoning), "field", 0, 0,
     "field|think|think_colon|think_colon_delta|plain|hide", LIVE, OPEN,
     "where reasoning goes: field = reasoning_content, think = <think> in the text, hide = nowhere"},

    {"realtime", "max_message", CM_CONF_SIZE, IN(realtime.max_message), "16m", 1, 256 * MIB, NULL,
     LIVE, OPEN, "largest WebSocket message of either side; over it: close code 1009"},
    {"realtime", "max_sessions", CM_CONF_INT, IN(realtime.max_sessions), "1000", 0, MANY, NULL,
     LIVE, OPEN, "sessions at once; over: 503; 0 = any number"},
    {"realtime", "max_sessions_per_key", CM_CONF_INT, IN(realtime.max_sessions_per_key), "100", 0,
     MANY, NULL, LIVE, OPEN, "of one client key; over: 429; 0 = any number"},
    {"realtime", "ping", CM_CONF_DURATION, IN(realtime.ping_ms), "30s", 0, HOUR, NULL, LIVE, OPEN,
     "a silent side is pinged after so long, and lost after twice as long; 0 = never"},
    {"realtime", "idle_timeout", CM_CONF_DURATION, IN(realtime.idle_ms), "15m", 0, DAY, NULL, LIVE,
     OPEN, "a session without any message for so long is closed (1008); 0 = never"},
    {"realtime", "max_duration", CM_CONF_DURATION, IN(realtime.max_duration_ms), "2h", 0, DAY, NULL,
     LIVE, OPEN, "a session is closed after so long (1008); 0 = never"},

    {"resume", "keep", CM_CONF_DURATION, IN(resume.keep_ms), "5m", 0, DAY, NULL, LIVE, OPEN,
     "a kept stream that has ended can be read again for so long"},
    {"resume", "away", CM_CONF_DURATION, IN(resume.away_ms), "2m", 0, DAY, NULL, LIVE, OPEN,
     "a kept stream goes on for so long without any client, then its upstream is closed"},
    {"resume", "job_wait", CM_CONF_DURATION, IN(resume.job_wait_ms), "10m", 0, DAY, NULL, LIVE,
     OPEN, "a job in the background waits for so long for a credential that is busy or limited"},
    {"resume", "max_bytes", CM_CONF_SIZE, IN(resume.max_bytes), "8m", 16 * KIB, GIB, NULL, LIVE,
     OPEN, "events of one kept stream that are held; what nobody has read is not dropped"},
    {"resume", "max_total", CM_CONF_SIZE, IN(resume.max_total_bytes), "128m", 16 * KIB, 64 * GIB,
     NULL, LIVE, OPEN, "the same of all together; streams that have ended make room first"},
    {"resume", "max_per_key", CM_CONF_INT, IN(resume.max_per_key), "100", 1, MANY, NULL, LIVE, OPEN,
     "kept streams of one client key, those that have ended included; over: 429"},
    {"resume", "max_streams", CM_CONF_INT, IN(resume.max_streams), "2000", 1, MANY, NULL, LIVE,
     OPEN, "the same of all keys; over: 503"},

    {"provider", "type", CM_CONF_STR, IN_PROVIDER(type), "", 0, 0, NULL, LIVE, OPEN,
     "the adapter: openai, demo ... (needed)"},
    {"provider", "base_url", CM_CONF_STR, IN_PROVIDER(base_url), "", 0, 0, NULL, LIVE, OPEN,
     "where the platform is; empty = the adapter's default"},
    {"provider", "credentials", CM_CONF_LIST, IN_PROVIDER(credentials), "", 0, 0, NULL, LIVE,
     SECRET, "list of API keys, cookies or tokens; stored credentials come on top"},
    {"provider", "models", CM_CONF_LIST, IN_PROVIDER(models), "", 0, 0, NULL, LIVE, OPEN,
     "list; \"ours=theirs\" renames; \"*\" accepts any name; empty = all the platform has"},
    {"provider", "priority", CM_CONF_INT, IN_PROVIDER(priority), "0", -1000, 1000, NULL, LIVE, OPEN,
     "lower first, when several providers have a model"},
    {"provider", "weight", CM_CONF_INT, IN_PROVIDER(weight), "1", 1, 1000, NULL, LIVE, OPEN,
     "share among providers of the same priority"},

    {"model", "targets", CM_CONF_LIST, IN_MODEL(targets), "", 0, 0, NULL, LIVE, OPEN,
     "list of provider/model, each with weight=N if wanted (needed)"},
    {"model", "strategy", CM_CONF_ENUM, IN_MODEL(strategy), "priority", 0, 0,
     "priority|weighted|least_busy|fastest", LIVE, OPEN,
     "which target is tried first: priority = in the order written"},
    {"model", "larger_targets", CM_CONF_LIST, IN_MODEL(larger), "", 0, 0, NULL, LIVE, OPEN,
     "list of provider/model: tried when the prompt is too long for the targets"},
    {"model", "hedge_after", CM_CONF_DURATION, IN_MODEL(hedge_after_ms), "0", 0, HOUR, "auto", LIVE,
     OPEN,
     "a second attempt beside the first when nothing was said by then; 0 = off, auto = from the target's own times"},

    {"price", "input", CM_CONF_USD, IN_PRICE(input), "0", 0, 0, NULL, LIVE, OPEN,
     "USD per million tokens of input that no cache had"},
    {"price", "cache_read", CM_CONF_USD, IN_PRICE(cache_read), "", 0, 0, "", LIVE, OPEN,
     "USD per million tokens of input that came from a cache; empty = as input"},
    {"price", "cache_write", CM_CONF_USD, IN_PRICE(cache_write), "", 0, 0, "", LIVE, OPEN,
     "USD per million tokens of input that were put into a cache; empty = as input"},
    {"price", "output", CM_CONF_USD, IN_PRICE(output), "0", 0, 0, NULL, LIVE, OPEN,
     "USD per million tokens of text in the answer"},
    {"price", "reasoning", CM_CONF_USD, IN_PRICE(reasoning), "", 0, 0, "", LIVE, OPEN,
     "USD per million tokens of reasoning; empty = as output"},
    {"price", "audio_input", CM_CONF_USD, IN_PRICE(audio_input), "", 0, 0, "", LIVE, OPEN,
     "USD per million tokens of sound in the input; empty = as input"},
    {"price", "audio_cache_read", CM_CONF_USD, IN_PRICE(audio_cache_read), "", 0, 0, "", LIVE, OPEN,
     "USD per million tokens of sound that came from a cache; empty = as cache_read"},
    {"price", "audio_output", CM_CONF_USD, IN_PRICE(audio_output), "", 0, 0, "", LIVE, OPEN,
     "USD per million tokens of sound in the answer; empty = as output"},
    {"price", "image", CM_CONF_USD, IN_PRICE(image), "0", 0, 0, NULL, LIVE, OPEN,
     "USD for each image that was made"},
};
const size_t cm_conf_keys_n = CM_COUNT(cm_conf_keys);

bool cm_conf_row_is(const struct cm_conf_key *row, const char *section)
{
    return strcmp(row->section, section) == 0;
}

enum cm_conf_scope_kind cm_conf_row_scope(const struct cm_conf_key *row)
{
    for (enum cm_conf_scope_kind kind = CM_SCOPE_PROVIDER; kind <= CM_SCOPE_PRICE; kind++) {
        if (cm_conf_row_is(row, cm_conf_scope_name(kind)))
            return kind;
    }
    return CM_SCOPE_FIXED;
}

static bool row_in(const struct cm_conf_key *row, struct cm_str section)
{
    return cm_str_eq(cm_str_of(row->section), section) ||
           (cm_str_eq(section, CM_S("provider")) && cm_conf_row_is(row, "upstream"));
}

const struct cm_conf_key *cm_conf_row(struct cm_str section, struct cm_str key)
{
    for (size_t i = 0; i < cm_conf_keys_n; i++) {
        const struct cm_conf_key *row = &cm_conf_keys[i];

        if (row_in(row, section) && cm_str_eq(cm_str_of(row->key), key))
            return row;
    }
    return NULL;
}

bool cm_conf_is_section(struct cm_str name)
{
    for (size_t i = 0; i < cm_conf_keys_n; i++) {
        if (cm_str_eq(cm_str_of(cm_conf_keys[i].section), name))
            return cm_conf_row_scope(&cm_conf_keys[i]) == CM_SCOPE_FIXED;
    }
    return false;
}

void *cm_conf_slot(const struct cm_conf_scope *scope, const struct cm_conf_key *row)
{
    size_t offset = row->offset;

    if (scope->kind == CM_SCOPE_PROVIDER && cm_conf_row_is(row, "upstream"))
        offset = offset - IN(upstream) + IN_PROVIDER(upstream);
    return (char *)scope->base + offset;
}

struct cm_str cm_conf_nearest_section(struct cm_str name)
{
    const char *names[CM_COUNT(cm_conf_keys)];

    for (size_t i = 0; i < cm_conf_keys_n; i++)
        names[i] = cm_conf_keys[i].section;
    return cm_str_of(cm_conf_nearest(name, names, cm_conf_keys_n));
}

struct cm_str cm_conf_nearest_key(struct cm_str section, struct cm_str key)
{
    const char *names[CM_COUNT(cm_conf_keys)];
    size_t n = 0;

    for (size_t i = 0; i < cm_conf_keys_n; i++) {
        if (row_in(&cm_conf_keys[i], section))
            names[n++] = cm_conf_keys[i].key;
    }
    return cm_str_of(cm_conf_nearest(key, names, n));
}

/* Names are short words; what is longer than this is near none of them. */
#define NEAR_MAX 40

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Edit distance with swapped neighbours counted once (optimal string alignment). */
static size_t distance(struct cm_str a, struct cm_str b)
{
    size_t rows[3][NEAR_MAX + 1];

    for (size_t j = 0; j <= b.n; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a.n; i++) {
        size_t *now = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];

        now[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            bool same = lower(a.p[i - 1]) == lower(b.p[j - 1]);
            size_t best = last[j - 1] + (same ? 0 : 1);

            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && lower(a.p[i - 1]) == lower(b.p[j - 2]) &&
                lower(a.p[i - 2]) == lower(b.p[j - 1]) && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return rows[a.n % 3][b.n];
}

const char *cm_conf_nearest(struct cm_str name, const char *const *names, size_t n)
{
    const char *nearest = NULL;
    size_t best = SIZE_MAX;

    for (size_t i = 0; i < n && name.n <= NEAR_MAX; i++) {
        struct cm_str known = cm_str_of(names[i]);
        size_t longer = known.n > name.n ? known.n : name.n, d;

        if (known.n > NEAR_MAX)
            continue;
        d = distance(name, known);
        if (d < best && d < longer && d <= 1 + longer / 4) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}
