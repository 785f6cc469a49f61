/* The shapes of bodies and answers: one table that the parser of bodies and /openapi.json read. */
#include "admin_int.h"

#include "chatmux/base/mem.h"

#define LABEL_MAX 200
#define SECRET_MAX 65536
#define MAX_INT INT64_C(1000000000)

#define MODEL_STATES "closed|open|half_open|unavailable|rate_limited"
#define CRED_STATES "ok|cooling|half_open|refreshing|exhausted|needs_login|verify|disabled"
#define PERIODS "day|week|month|total"

/* name, type, help, then what else is to be said of it */
#define FIELD(name_, type_, help_, ...)                                                            \
    {.name = name_, .type = SHAPE_##type_, .help = help_, __VA_ARGS__}
/* What answers are mostly made of: members that are always there; N: also as null. */
#define STR(name_, help_) FIELD(name_, STR, help_, .required = true)
#define INT(name_, help_) FIELD(name_, INT, help_, .required = true)
#define BOOL(name_, help_) FIELD(name_, BOOL, help_, .required = true)
#define USD(name_, help_) FIELD(name_, USD, help_, .required = true)
#define STR_N(name_, help_) FIELD(name_, STR, help_, .required = true, .nullable = true)
#define INT_N(name_, help_) FIELD(name_, INT, help_, .required = true, .nullable = true)
#define TIME_N(name_, help_) FIELD(name_, TIME, help_, .required = true, .nullable = true)

static const struct field credential[] = {
    STR("id", "decimal digits"),
    STR("provider", "name of its [provider …] section"),
    STR("label", "what logs and lists call it"),
    STR("hint", "last four characters of the secret; empty when it is shorter than 12"),
    FIELD("source", WORD, "config: it stands in the configuration file and is changed there",
          .required = true, .words = "config|api"),
    BOOL("enabled", "no: switched off by hand"),
    FIELD("state", WORD, "", .required = true, .words = CRED_STATES),
    STR_N("reason", "why it is in that state"),
    TIME_N("until", "when the state ends by itself"),
    INT("inflight", "requests on it now"),
    INT("max_inflight", "at most so many at once; 0 = the provider's setting"),
    INT("weight", "share of the requests among the fit ones"),
    STR_N("proxy", "null = the provider's; its password is not shown"),
    FIELD("quota", ANY, "what the platform told of credit and quota", .required = true,
          .nullable = true),
    INT("requests", "attempts so far"),
    INT("failures", "of them failed"),
    INT("tokens_in", ""),
    INT("tokens_out", ""),
    INT("month_requests", "of them in this month (UTC): those that were served or broke off"),
    INT("monthly_limit", "it is exhausted until the 1st after so many; 0 = any number"),
    FIELD("models", MANY, "those it does without, and those that fail on it now and then",
          .required = true, .words = "CredentialModel"),
    TIME_N("last_used", ""),
    TIME_N("created", ""),
};
static const struct field credential_model[] = {
    STR("model", "the provider's name of it"),
    FIELD("state", WORD,
          "closed: it failed within the last minute; open: too often, it gets no requests; "
          "half_open: one request decides; unavailable, rate_limited: the platform said so",
          .required = true, .words = MODEL_STATES),
    TIME_N("until", ""),
    INT("attempts", "within the last minute, while closed"),
    INT("failed", "of them"),
};

#define CREDENTIAL_SETTINGS                                                                        \
    FIELD("label", STR, "null = the provider's name and a number", .nullable = true,               \
          .max = LABEL_MAX),                                                                       \
        FIELD("weight", INT, "", .min = 1, .max = 1000),                                           \
        FIELD("proxy", STR, "http://, https:// or socks5h://; null = the provider's",              \
              .nullable = true, .max = 2000),                                                      \
        FIELD("max_inflight", INT, "null or 0 = the provider's setting", .nullable = true,         \
              .min = 0, .max = 100000),                                                            \
        FIELD("enabled", BOOL, "")

static const struct field credential_new[] = {
    STR("provider", "name of a [provider …] section"),
    FIELD("secret", STR, "API key, cookie or token; it is never shown again", .required = true,
          .max = SECRET_MAX),
    CREDENTIAL_SETTINGS,
};
static const struct field credential_change[] = {
    FIELD("secret", STR, "a new one resets the state", .max = SECRET_MAX),
    CREDENTIAL_SETTINGS,
};

static const struct field conversations_new[] = {
    STR("provider", "name of a [provider …] section"),
    FIELD("secret", STR, "of the account that led them; it must be here already", .required = true,
          .max = SECRET_MAX),
    FIELD("conversations", STRS,
          "\"MODEL NAME CHAT\": the model as clients wrote it, the name by which that gateway knew "
          "the conversation again, the platform's id of it; at most 1000",
          .required = true),
};
static const struct field conversations_taken[] = {
    STR("credential", "id of the account"),
    INT("taken", "each goes on once by that name"),
};

static const struct field check[] = {
    BOOL("ok", ""),
    FIELD("state", WORD, "", .required = true, .words = CRED_STATES),
    STR("message", "what the platform said"),
    INT("ms", "how long it took"),
};

static const struct field probe_ask[] = {
    FIELD("credential", STR, "id of one; one that works, unless told", .max = 20),
    FIELD("flow", WORD, "chat unless told", .words = "chat|refresh|login|check|models"),
    FIELD("model", STR, "the provider's first unless told", .max = 200),
    FIELD("question", STR, "a short one of ours unless told", .max = 4000),
};
static const struct field probe[] = {
    BOOL("ok", ""),
    STR("provider", ""),
    STR("type", "the adapter"),
    STR("credential", "its label"),
    STR("flow", ""),
    FIELD("model", STR, "as the platform is asked for it"),
    INT("ms", "how long it took"),
    FIELD("error", ANY, "class and message, when it failed"),
    FIELD("answer", STR, "the beginning of what the platform said"),
    FIELD("models", INT, "how many it listed"),
    FIELD("quota", ANY, "what the platform tells of the account"),
    FIELD("steps_left_out", INT, "when there were too many"),
    FIELD("steps", MANY, "in their order", .required = true, .words = "ProbeStep"),
};
static const struct field probe_step[] = {
    STR("what", "ask, HEAD, REPLY, DATA, FAILED …, an event of the answer, or odd: not understood"),
    INT("ms", "since the beginning"),
    FIELD("state", STR, "the adapter's own name of where it is"),
    FIELD("status", INT, "of the platform's answer"),
    FIELD("bytes", INT, "of the body"),
    FIELD("text", STR, "method and URL, beginning of the body, or why"),
    FIELD("piece", STR, "the body that was sent, or the piece that was not understood"),
};

static const struct field explain_ask[] = {
    FIELD("model", STR, "as a client would write it", .required = true, .max = 300),
    FIELD("key", STR, "name of a client key", .max = LABEL_MAX),
    FIELD("stream", BOOL, "yes unless told"),
};
static const struct field explanation[] = {
    STR("model", ""),
    STR_N("strategy", "of the route; null = the name is none"),
    FIELD("key", ONE, "when one was named", .words = "ExplainedKey"),
    FIELD("targets", MANY, "in the order in which they would be tried", .required = true,
          .words = "ExplainedTarget"),
};
static const struct field explained_key[] = {
    STR("name", ""),
    BOOL("allowed", "may use this model"),
    BOOL("enabled", ""),
};
static const struct field explained_target[] = {
    STR("provider", ""),
    STR("model", "the provider's name of it"),
    INT("priority", "lower first"),
    INT("weight", ""),
    INT("inflight", "answers under way"),
    FIELD("breaker", WORD, "", .required = true, .words = "closed|open|half_open"),
    INT_N("first_token_ms", "what is expected; null = not known"),
    STR_N("excluded", "why nobody would be asked"),
    FIELD("credentials", MANY, "at most 200", .required = true, .words = "ExplainedCredential"),
};
static const struct field explained_credential[] = {
    STR("id", ""),
    STR("label", ""),
    FIELD("state", WORD, "", .required = true, .words = CRED_STATES),
    STR("reason", ""),
    TIME_N("until", ""),
    INT("weight", ""),
    INT("inflight", ""),
    FIELD("model_state", WORD, "of this model on it; null = nothing is known against it",
          .required = true, .nullable = true, .words = MODEL_STATES),
    TIME_N("model_until", ""),
    BOOL("chosen", "this one would be asked first"),
};

static const struct field deleted[] = {STR("id", ""), BOOL("deleted", "")};

static const struct field key[] = {
    STR_N("id", "null: it stands in the configuration file"),
    STR("name", ""),
    STR("hint", "last four characters"),
    FIELD("source", WORD, "", .required = true, .words = "config|api"),
    BOOL("enabled", ""),
    FIELD("models", STRS, "names it may ask for, \"gpt-4o*\" by their beginning; null = all",
          .required = true, .nullable = true),
    INT_N("rpm", "requests in any 60 s; null = no limit"),
    INT_N("tpm", "tokens in any 60 s; null = no limit"),
    INT_N("max_parallel", "requests at once; null = no limit"),
    FIELD("budget_usd", USD, "dollars in a period; null = no limit", .required = true,
          .nullable = true),
    FIELD("budget_period", WORD, "UTC", .required = true, .words = PERIODS),
    TIME_N("expires", "null = never"),
    USD("spent_usd", "in the running period"),
    USD("reserved_usd", "estimates of requests in flight"),
    INT("inflight", "requests in flight"),
    TIME_N("created", ""),
    FIELD("key", STR, "the key itself; only in the answer that made it"),
};

#define KEY_SETTINGS                                                                               \
    FIELD("models", STRS, "names it may ask for, \"gpt-4o*\" by their beginning; null = all",      \
          .nullable = true),                                                                       \
        FIELD("rpm", INT, "requests in any 60 s; null or 0 = no limit", .nullable = true,          \
              .max = MAX_INT),                                                                     \
        FIELD("tpm", INT, "tokens in any 60 s; null or 0 = no limit", .nullable = true,            \
              .max = MAX_INT),                                                                     \
        FIELD("max_parallel", INT, "requests at once; null or 0 = no limit", .nullable = true,     \
              .max = MAX_INT),                                                                     \
        FIELD("budget_usd", USD, "dollars in a period; null or 0 = no limit", .nullable = true),   \
        FIELD("budget_period", WORD, "UTC; total unless told", .words = PERIODS),                  \
        FIELD("expires", TIME, "null = never", .nullable = true), FIELD("enabled", BOOL, ""),      \
        FIELD("key", STR, "take this one instead of a random one", .max = 500)

static const struct field key_new[] = {
    FIELD("name", STR, "what logs, lists and figures call it", .required = true, .max = LABEL_MAX),
    KEY_SETTINGS,
};
static const struct field key_change[] = {
    FIELD("name", STR, "", .max = LABEL_MAX),
    KEY_SETTINGS,
};

static const struct field counts[] = {
    INT("total", ""),       INT("ok", ""),         INT("cooling", ""),
    INT("half_open", ""),   INT("refreshing", ""), INT("exhausted", ""),
    INT("needs_login", ""), INT("verify", ""),     INT("disabled", ""),
};
static const struct field provider[] = {
    STR("name", ""),
    STR("type", "of its adapter"),
    STR("base_url", ""),
    INT("priority", ""),
    INT("weight", ""),
    FIELD("credentials", ONE, "how many are in which state", .required = true, .words = "Counts"),
    INT("inflight", "requests on them now"),
    INT("waiting", "requests that wait for one"),
    FIELD("breaker", WORD, "whether it gets requests: open = not, half_open = one at a time",
          .required = true, .words = "closed|open|half_open"),
    FIELD("models", STRS, "names it serves", .required = true),
    BOOL("any_model", "takes names that are in no list"),
};

static const struct field target[] = {
    STR("provider", ""),
    STR("model", "the provider's name of it"),
    INT("priority", "lower first"),
    INT("weight", ""),
};
static const struct field model[] = {
    STR("id", "what clients write"),
    STR("owned_by", ""),
    FIELD("strategy", WORD, "of a [model …] section; null = none of that name", .required = true,
          .nullable = true, .words = "priority|weighted|least_busy|fastest"),
    INT_N("context_tokens", "null = not known"),
    INT_N("max_output_tokens", "null = not known"),
    FIELD("targets", MANY, "who serves it, in order", .required = true, .words = "Target"),
};

static const struct field usage[] = {
    STR("group", "the key, model, provider, credential, hour or day"),
    STR_N("id", "of the key or credential"),
    INT("requests", ""),
    INT("input_uncached", "tokens, like the next four"),
    INT("input_cache_read", ""),
    INT("input_cache_write", ""),
    INT("output_text", ""),
    INT("output_reasoning", ""),
    INT("images", ""),
    USD("cost_usd", ""),
};

static const struct field request_row[] = {
    STR("id", "x-request-id"),
    TIME_N("at", "when it ended"),
    STR("key", ""),
    STR_N("key_id", ""),
    STR("surface", "dialect of the client"),
    STR("model", ""),
    STR("provider", ""),
    STR("credential", "label of the one that answered"),
    STR_N("credential_id", ""),
    INT("status", "of the answer"),
    STR("outcome", "ok, error, cut or client_gone"),
    STR_N("error", "its class"),
    STR_N("why", "in words"),
    INT("duration_ms", ""),
    INT_N("ttft_ms", "until the first word; null = none came"),
    INT("bytes_in", ""),
    INT("bytes_out", ""),
    INT("input_uncached", "tokens, like the next four"),
    INT("input_cache_read", ""),
    INT("input_cache_write", ""),
    INT("output_text", ""),
    INT("output_reasoning", ""),
    INT("images", ""),
    STR("usage_source", "upstream, estimated, partial or none"),
    USD("cost_usd", ""),
    INT("attempt_count", ""),
    FIELD("attempts", MANY, "each try with its credential, why it was this one, class and times",
          .required = true, .words = "Attempt"),
    FIELD("skipped", MANY,
          "targets that were passed over without an attempt, in their order, with the reason",
          .required = true, .words = "SkippedTarget"),
    FIELD("session", ANY,
          "of a realtime session: answers that told their figures, closed_by_upstream (the code; 0 "
          "= not), and the sound among the tokens: audio_input, audio_cache_read, audio_output",
          .required = true, .nullable = true),
    FIELD("others", MANY,
          "credentials that could not be chosen, with state and reason, as it was at the end",
          .required = true, .words = "PassedOver"),
};

static const struct field stats[] = {
    TIME_N("started", ""),
    INT("uptime_s", ""),
    BOOL("draining", "no new requests are taken"),
    INT("requests", "since the start"),
    FIELD("requests_per_s", NUMBER, "over the last rate_window_s", .required = true),
    INT("rate_window_s", "since an earlier look, at most a minute ago; else since the start"),
    INT("exchanges", "open now"),
    INT("streams", "open now"),
    INT("attempts", "open now"),
    INT("kept_streams", "that survive their client, jobs in the background too: those that run"),
    INT("kept_ended", "of them, those that have ended and can still be read"),
    INT("kept_bytes", "memory of the events they hold"),
    INT("loop_lag_us", "the longest that one turn of the loop took in the last second or two"),
    INT("rss_bytes", "resident memory"),
    INT("keys", "client keys"),
    FIELD("credentials", ONE, "", .required = true, .words = "Counts"),
    INT("waiting", "requests that wait for a credential"),
    STR_N("store_trouble", "null = fine"),
    INT("dropped_rows", "of the request log, because the disk could not follow"),
};

static const struct field changed[] = {
    FIELD("changed", STRS, "names of the settings that differ", .required = true),
};
static const struct field rekey[] = {
    FIELD(
        "key", STR,
        "64 hex digits, or any text of 16 bytes or more; left out: a random one, where the key file is the gateway's own",
        .max = 4096),
};
static const struct field rekeyed[] = {
    STR("key_source", "where the master key is read from"),
    BOOL(
        "configured",
        "it stands in the configuration or a systemd credential: change it there before the next start"),
};
static const struct field backup[] = {
    FIELD("path", STR, "absolute, on the gateway's machine; must not exist yet", .required = true,
          .max = 4096),
};
static const struct field backed_up[] = {STR("path", ""), INT("bytes", "")};

static const struct field seed_answer[] = {
    INT("code", "0 = fine"),
    STR("message", ""),
};
static const struct field seed_key[] = {
    FIELD("id", STR, "of an update"),
    FIELD("apiKey", STR, "an update with the listed hint keeps the key", .max = 500),
    FIELD("remark", STR, "", .max = LABEL_MAX),
};
static const struct field seed_cookie[] = {
    FIELD("id", STR, "of an update"),
    FIELD("cookie", STR, "an update with the listed hint keeps the cookie", .max = SECRET_MAX),
    FIELD("remark", STR, "", .max = LABEL_MAX),
};

static const struct field chat_request[] = {
    STR("model", "one of GET /v1/models"),
    FIELD("messages", MANY, "", .required = true, .words = "Object"),
    FIELD("stream", BOOL, "answer with server-sent events"),
};
static const struct field listed_model[] = {
    STR("id", ""),
    STR("object", "\"model\""),
    INT("created", ""),
    STR("owned_by", ""),
};
static const struct field model_list[] = {
    STR("object", "\"list\""),
    FIELD("data", MANY, "", .required = true, .words = "ListedModel"),
};

static const struct field error_body[] = {
    STR("message", "what is wrong and what to do"),
    STR("type", ""),
    STR_N("param", "the member or parameter at fault"),
    STR_N("code", ""),
};
static const struct field error[] = {
    FIELD("error", ONE, "", .required = true, .words = "ErrorBody"),
};

#define SHAPE(name_, fields_) {.name = name_, .fields = fields_, .n = CM_COUNT(fields_)}
#define OPEN_SHAPE(name_, fields_)                                                                 \
    {.name = name_, .fields = fields_, .n = CM_COUNT(fields_), .open = true}
const struct shape shapes[] = {
    SHAPE("Credential", credential),
    SHAPE("CredentialNew", credential_new),
    SHAPE("CredentialChange", credential_change),
    SHAPE("ConversationsNew", conversations_new),
    SHAPE("ConversationsTaken", conversations_taken),
    SHAPE("Check", check),
    SHAPE("ProbeAsk", probe_ask),
    SHAPE("Probe", probe),
    SHAPE("ProbeStep", probe_step),
    SHAPE("ExplainAsk", explain_ask),
    SHAPE("Explanation", explanation),
    SHAPE("ExplainedKey", explained_key),
    SHAPE("ExplainedTarget", explained_target),
    SHAPE("ExplainedCredential", explained_credential),
    SHAPE("CredentialModel", credential_model),
    SHAPE("Deleted", deleted),
    SHAPE("Key", key),
    SHAPE("KeyNew", key_new),
    SHAPE("KeyChange", key_change),
    SHAPE("Counts", counts),
    SHAPE("Provider", provider),
    SHAPE("Target", target),
    SHAPE("Model", model),
    SHAPE("Usage", usage),
    SHAPE("Request", request_row),
    {.name = "Attempt", .open = true},
    {.name = "SkippedTarget", .open = true},
    {.name = "PassedOver", .open = true},
    SHAPE("Stats", stats),
    SHAPE("Changed", changed),
    SHAPE("Rekey", rekey),
    SHAPE("Rekeyed", rekeyed),
    SHAPE("Backup", backup),
    SHAPE("BackedUp", backed_up),
    OPEN_SHAPE("SeedAnswer", seed_answer),
    OPEN_SHAPE("SeedKey", seed_key),
    OPEN_SHAPE("SeedCookie", seed_cookie),
    OPEN_SHAPE("ChatRequest", chat_request),
    OPEN_SHAPE("ListedModel", listed_model),
    OPEN_SHAPE("ModelList", model_list),
    {.name = "Object", .open = true},
    SHAPE("Error", error),
    SHAPE("ErrorBody", error_body),
};
const size_t shapes_n = CM_COUNT(shapes);

const struct shape *shape_find(const char *name)
{
    for (size_t i = 0; i < shapes_n; i++)
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    return NULL;
}
