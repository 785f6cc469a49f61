/* deepseek's models and settings.
 * Wire facts: DeepSeek protocol notes, section 5.1. */
#include "deepseek_int.h"

#include "chatmux/base/mem.h"

/* ---- Models ---- */

enum { FLASH = 1, THINKER, EXPERT }; /* cm_model_row.number; the last two think unasked */

#define MODEL(id, kind) {.name = CM_S_INIT(id), .number = (kind), .features = DEEPSEEK_FEATURES}

const struct cm_model_row deepseek_models[DEEPSEEK_MODELS] = {
    MODEL("deepseek-chat", FLASH),     MODEL("deepseek", FLASH),
    MODEL("deepseek-v4-flash", FLASH), MODEL("deepseek-reasoner", THINKER),
    MODEL("deepseek-r1", THINKER),     MODEL("deepseek-v4-pro", EXPERT),
};

/* Names that are in no table ("*") tell by what they contain. */
static int64_t kind_of(const struct cm_target *target)
{
    static const char *const thinkers[] = {"reasoner", "r1", "think", "v4.5"};

    if (target->row && target->row->number)
        return target->row->number;
    if (cm_str_has(target->model, CM_S("pro")))
        return EXPERT;
    for (size_t i = 0; i < CM_COUNT(thinkers); i++) {
        if (cm_str_has(target->model, cm_str_of(thinkers[i])))
            return THINKER;
    }
    return FLASH;
}

bool deepseek_wants_thinking(const struct cm_run *run)
{
    const struct cm_str effort = cm_chat_effort(cm_run_chat(run));

    if (cm_run_target(run)->thinking)
        return true;
    if (effort.n > 0)
        return !cm_str_eq(effort, CM_S("none"));
    return kind_of(cm_run_target(run)) != FLASH;
}

struct cm_str deepseek_model_type(const struct cm_run *run)
{
    return deepseek_option(run, kind_of(cm_run_target(run)) == EXPERT ? "expert_model_type"
                                                                      : "default_model_type");
}

/* ---- Options ---- */

#define TEXT(option, value, what)                                                                  \
    {.name = (option), .type = CM_CONF_STR, .def = (value), .help = (what)}

const struct cm_option deepseek_options[] = {
    {.name = "conversations",
     .type = CM_CONF_ENUM,
     .def = "continue",
     .choices = "continue|new|delete",
     .help =
         "continue the platform's conversation when the client's goes on, begin a new one for each request, or also delete it after the answer"},
    {.name = "citations",
     .type = CM_CONF_ENUM,
     .def = "annotations",
     .choices = "annotations|links|marks",
     .help =
         "what becomes of [citation:N] in the text: taken out, a link, or left; annotations come in any case"},
    {.name = "prompt_style",
     .type = CM_CONF_ENUM,
     .def = "markers",
     .choices = "markers|brackets",
     .help = "how earlier messages are marked in the question"},
    {.name = "tools",
     .type = CM_CONF_ENUM,
     .def = "prompt",
     .choices = "prompt|refuse",
     .help =
         "requests with tools: told in the prompt, calls are read out of the answer; or refused"},
    {.name = "prefetch",
     .type = CM_CONF_BOOL,
     .def = "yes",
     .help = "make the proof of work for the next question ahead"},
    {.name = "continue_limit",
     .type = CM_CONF_INT,
     .def = "8",
     .max = 100,
     .help = "how often an answer that the platform cut is continued"},
    {.name = "max_tries",
     .type = CM_CONF_INT,
     .def = "10000000",
     .min = 1,
     .max = INT64_MAX / 2,
     .help = "hardest proof of work that is done"},
    TEXT("default_model_type", "default", "model_type of most models; empty = null"),
    TEXT("expert_model_type", "expert", "model_type of deepseek-v4-pro"),
    TEXT("vision_model_type", "vision", "model_type for pictures that the others cannot read"),
    TEXT("origin", "https://chat.deepseek.com", "sent as Origin and in Referer"),
    TEXT("client_platform", "web", "x-client-platform"),
    TEXT("client_locale", "zh_CN", "x-client-locale"),
    TEXT("client_version", "2.0.0", "x-client-version"),
    TEXT("app_version", "20241129.1", "x-app-version"),
    TEXT("timezone_offset", "28800", "x-client-timezone-offset, seconds east of UTC"),
    TEXT("bundle_id", "", "x-client-bundle-id; empty = not sent"),
    TEXT("accept_language", "zh-CN,zh;q=0.9,en;q=0.8", "Accept-Language"),
    {.name = "file_timeout",
     .type = CM_CONF_DURATION,
     .def = "60s",
     .min = 1000,
     .max = 3600000,
     .help = "how long the platform may take to read the files of a request"},
    {.name = "token_life",
     .type = CM_CONF_DURATION,
     .def = "1h",
     .min = 60000,
     .max = 30 * 24 * 3600000LL,
     .help = "life of a token that the user token was exchanged for"},
    TEXT("login_os", "web", "os, as a login tells it"),
    TEXT("device_id", "", "device_id of logins; empty = one for each account, always the same"),
    TEXT("login_path", "/api/v0/users/login", "call that logs in"),
    TEXT("current_path", "/api/v0/users/current",
         "call that tells about the account, and exchanges its token"),
    TEXT("quota_path", "/api/v0/users/feature_quota",
         "call that tells what is left; empty = not asked"),
    TEXT("create_path", "/api/v0/chat_session/create", "call that makes a conversation"),
    TEXT("create_body", "{}", "its body"),
    TEXT("delete_path", "/api/v0/chat_session/delete", "call that deletes one"),
    TEXT("challenge_path", "/api/v0/chat/create_pow_challenge", "call that gives a challenge"),
    TEXT("chat_path", "/api/v0/chat/completion", "call that asks"),
    TEXT("continue_path", "/api/v0/chat/continue", "call that continues a cut answer"),
    TEXT("stop_path", "/api/v0/chat/stop_stream", "call that stops an answer"),
    TEXT("upload_path", "/api/v0/file/upload_file", "call that takes a file"),
    TEXT("files_path", "/api/v0/file/fetch_files", "call that tells whether files were read"),
    TEXT("fork_path", "/api/v0/file/fork_file_task",
         "call that has a picture read by another model"),
    {.name = NULL},
};
