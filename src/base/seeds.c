/* Variables and defaults of hixai2api, genspark2api and alexsidebar2api. Facts: protocol notes of hix, genspark and alexsidebar, their
 * sections on the environment. docs/compat.md tells operators the same. */
#include "seeds.h"

#include "chatmux/base/mem.h"

/* What the three share: one author, one framework. */
#define COMMON_DEFAULTS                                                                            \
    {"server", "cors_origins", "*"}, {"auth", "open_until_keys", "yes"},                           \
        {"auth", "ip_requests_per_minute", "60"}, {"stream", "reasoning", "think"}

#define COMMON_VARS                                                                                \
    {"PORT", CM_SEED_PORT, "server", "listen", NULL},                                              \
        {"API_SECRET", CM_SEED_LIST, "auth", "keys", NULL},                                        \
        {"ROUTE_PREFIX", CM_SEED_TEXT, "server", "route_prefix", NULL},                            \
        {"PROXY_URL", CM_SEED_PROXY, "upstream", "proxy", NULL},                                   \
        {"REQUEST_RATE_LIMIT", CM_SEED_NUMBER, "auth", "ip_requests_per_minute", NULL},            \
        {"IP_BLACK_LIST", CM_SEED_LIST, "auth", "ip_block", NULL},                                 \
        {"DEBUG", CM_SEED_WORDS, "log", "level", "true=debug"},                                    \
        {"REASONING_HIDE", CM_SEED_WORDS, "stream", "reasoning", "1=hide"},                        \
        {"GIN_MODE", CM_SEED_IGNORED, NULL, NULL,                                                  \
         "it sets the mode of a framework that is not used here; DEBUG=true makes the log verbose"}

#define SWAGGER {"SWAGGER_ENABLE", CM_SEED_WORDS, "server", "swagger", "1=yes|*=no"}
#define NO_SQL "there is no pool of database connections here"

static const struct cm_seed_var hix_vars[] = {
    COMMON_VARS,
    SWAGGER,
    {"BACKEND_SECRET", CM_SEED_TEXT, "auth", "admin_secret", NULL},
    {"BACKEND_API_ENABLE", CM_SEED_WORDS, "auth", "admin_secret", "0="},
    {"CHAT_MAX_DAYS", CM_SEED_WORDS, "provider", "x.delete_chat", "0=yes"},
    {"CHAT_MAX_DAYS", CM_SEED_DAYS, "provider", "x.continue_ttl", NULL},
    {"CHAT_MAX_DAYS", CM_SEED_DAYS, "provider", "x.delete_after", NULL},
    {"PRE_MESSAGES_JSON", CM_SEED_IGNORED, NULL, NULL, "it has none in hixai2api"},
    {"MYSQL_DSN", CM_SEED_IGNORED, NULL, NULL,
     "no MySQL is needed, everything is kept in SQLite (store.state_dir); chatmux import hixai2api FILE.sql takes over a dump"},
    {"DEBUG_SQL", CM_SEED_IGNORED, NULL, NULL, "statements of the database are not logged"},
    {"SQLITE_BUSY_TIMEOUT", CM_SEED_IGNORED, NULL, NULL, "the gateway has its database to itself"},
    {"SQL_MAX_IDLE_CONNS", CM_SEED_IGNORED, NULL, NULL, NO_SQL},
    {"SQL_MAX_OPEN_CONNS", CM_SEED_IGNORED, NULL, NULL, NO_SQL},
    {"SQL_MAX_LIFETIME", CM_SEED_IGNORED, NULL, NULL, NO_SQL},
    {NULL, CM_SEED_TEXT, NULL, NULL, NULL},
};
static const struct cm_seed_default hix_defaults[] = {
    {"server", "listen", "0.0.0.0:7044"},
    COMMON_DEFAULTS,
    {"server", "swagger", "yes"},
    {NULL, NULL, NULL},
};

/* Chats go on with their own conversation. That system has one for each account and model, in which everybody reads what others asked; saying so
 * outright (1) gives one for each client and model. */
static const struct cm_seed_var genspark_vars[] = {
    COMMON_VARS,
    {"GS_COOKIE", CM_SEED_LIST, "provider", "credentials", NULL},
    {"AUTO_DEL_CHAT", CM_SEED_WORDS, "provider", "x.delete_chat", "1=yes|*=no"},
    {"AUTO_MODEL_CHAT_MAP_TYPE", CM_SEED_WORDS, "provider", "x.continue", "1=model|0=no"},
    {"MODEL_CHAT_MAP", CM_SEED_TEXT, "provider", "x.model_chat_map", NULL},
    {"SESSION_IMAGE_CHAT_MAP", CM_SEED_TEXT, "provider", "x.session_image_chat_map", NULL},
    {"RECAPTCHA_PROXY_URL", CM_SEED_TEXT, "provider", "x.verifier_url", NULL},
    {"PRE_MESSAGES_JSON", CM_SEED_TEXT, "provider", "x.pre_messages", NULL},
    {"RATE_LIMIT_COOKIE_LOCK_DURATION", CM_SEED_SECONDS, "provider", "cooldown", NULL},
    {"RATE_LIMIT_COOKIE_LOCK_DURATION", CM_SEED_SECONDS, "provider", "x.rate_limit_cooldown", NULL},
    {"YES_CAPTCHA_CLIENT_KEY", CM_SEED_IGNORED, NULL, NULL,
     "it has none in genspark2api either, and challenges are not solved here"},
    {"UPLOAD_PATH", CM_SEED_IGNORED, NULL, NULL, "no files are kept on this machine"},
    {NULL, CM_SEED_TEXT, NULL, NULL, NULL},
};
static const struct cm_seed_default genspark_defaults[] = {
    {"server", "listen", "0.0.0.0:7044"},
    COMMON_DEFAULTS,
    {"provider", "models", "*"}, /* a name that it does not know is answered by the mixture */
    {"provider", "cooldown", "600s"},
    {"provider", "x.continue", "thread"},
    {NULL, NULL, NULL},
};

static const struct cm_seed_var alexsidebar_vars[] = {
    COMMON_VARS,
    SWAGGER,
    {"AS_COOKIE", CM_SEED_LIST, "provider", "credentials", NULL},
    {"AS_FIREBASE_KEY", CM_SEED_TEXT, "provider", "x.firebase_key",
     NULL}, /* ours: it had it built in */
    {"RATE_LIMIT_COOKIE_LOCK_DURATION", CM_SEED_SECONDS, "provider", "cooldown", NULL},
    {"USER_AGENT", CM_SEED_TEXT, "provider", "user_agent", NULL},
    {"BACKEND_SECRET", CM_SEED_IGNORED, NULL, NULL,
     "alexsidebar2api has no admin routes; CHATMUX_AUTH_ADMIN_SECRET opens those of chatmux"},
    {"BACKEND_API_ENABLE", CM_SEED_IGNORED, NULL, NULL, "alexsidebar2api has no admin routes"},
    {"PRE_MESSAGES_JSON", CM_SEED_IGNORED, NULL, NULL, "it has none in alexsidebar2api"},
    {"CHINESE_CHAT_ENABLED", CM_SEED_IGNORED, NULL, NULL,
     "no language is refused, and messages are sent as they are"},
    {NULL, CM_SEED_TEXT, NULL, NULL, NULL},
};
static const struct cm_seed_default alexsidebar_defaults[] = {
    {"server", "listen", "0.0.0.0:10033"}, COMMON_DEFAULTS,    {"server", "swagger", "yes"},
    {"provider", "cooldown", "600s"},      {NULL, NULL, NULL},
};

const struct cm_seed cm_seeds[] = {
    {"hixai2api", "hix", NULL, "/app/hixai2api/data", "hix-ai-2-api.db", NULL, hix_vars,
     hix_defaults},
    {"genspark2api", "genspark", "GS_COOKIE", "/app/genspark2api/data", NULL, "0.0.0.0:7055",
     genspark_vars, genspark_defaults},
    {"alexsidebar2api", "alexsidebar", "AS_COOKIE", "/app/alexsidebar2api/data", NULL, NULL,
     alexsidebar_vars, alexsidebar_defaults},
    {"hot-apis", NULL, NULL, NULL, NULL, NULL, NULL, NULL},
    {"aiproxy", NULL, NULL, NULL, NULL, NULL, NULL, NULL},
};
const size_t cm_seeds_n = CM_COUNT(cm_seeds);
