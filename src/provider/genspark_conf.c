/* What genspark is told: its options, what a model's name stands for, and the chats that models are bound to. */
#include "genspark_int.h"

#include "chatmux/base/mem.h"

#include <stdio.h>

/* ---- Options ---- */

#define HOUR_MS INT64_C(3600000)
#define STR(name_, def_, help_)                                                                    \
    {.name = (name_), .type = CM_CONF_STR, .def = (def_), .help = (help_)}
#define BOOL(name_, def_, help_)                                                                   \
    {.name = (name_), .type = CM_CONF_BOOL, .def = (def_), .help = (help_)}
#define ENUM(name_, def_, choices_, help_)                                                         \
    {.name = (name_), .type = CM_CONF_ENUM, .def = (def_), .choices = (choices_), .help = (help_)}
#define TIME(name_, def_, min_, max_, help_)                                                       \
    {.name = (name_),                                                                              \
     .type = CM_CONF_DURATION,                                                                     \
     .def = (def_),                                                                                \
     .min = (min_),                                                                                \
     .max = (max_),                                                                                \
     .help = (help_)}

const struct cm_option genspark_options[] = {
    ENUM("dialect", "agent", "agent|copilot",
         "how the site is asked: the web client's call of today, or the older one"),
    ENUM("unknown_models", "mixture", "mixture|forward",
         "names in no list (with models = *): the mixture answers, or they are sent as they are"),
    STR("mixture", "gpt-5.1-low, claude-sonnet-4-5, gemini-3-pro-preview",
        "models that answer together as mixture-of-agents"),
    STR("image_models", "", "more names that make pictures, comma separated"),
    STR("video_models", "", "more names that make videos, comma separated"),
    STR("model_chat_map", "",
        "MODEL=CHAT, comma separated: requests of a model go on in that chat"),
    STR("model_chat_client", "",
        "name of the client key whose requests go on there; empty = the first that does"),
    BOOL("model_chat_shared", "no",
         "yes = all clients go on in those chats, and read what others asked"),
    ENUM("continue", "no", "no|thread|model",
         "chats that go on: none, the conversation's own, or the last one of client and model"),
    TIME("continue_ttl", "24h", 1000, 30 * 24 * HOUR_MS, "how long after its last use"),
    STR("pre_messages", "", "JSON array of messages put behind the system text of every new chat"),
    ENUM("tools", "prompt", "prompt|refuse",
         "requests with tools: told in the prompt, calls are read out of the answer; or refused"),
    BOOL("delete_chat", "no", "delete the chat on the site after the answer"),
    BOOL("create_chat", "yes",
         "with delete_chat: make the chat before the question, so that its id is always known"),
    BOOL("abort", "yes", "stop the answer on the site when the client leaves"),
    STR("verifier_url", "", "service of yours that is asked for a token before each question"),
    BOOL("verifier_required", "yes", "no = ask without a token when that service fails"),
    BOOL("verifier_tls_check", "yes", "no = take any certificate of that service"),
    BOOL("personalization", "yes", "the site may use what it knows about the account"),
    BOOL("private", "yes", "chats are private"),
    BOOL("send_state", "yes", "repeat the messages in session_state, as the web client does"),
    ENUM("citations", "annotations", "annotations|links|both|none",
         "sources of a searched answer: as annotations, as links below the text"),
    BOOL("mixture_reasoning", "no", "tell the intermediate answers of a mixture as reasoning"),
    TIME("rate_limit_cooldown", "600s", 1000, 30 * 24 * HOUR_MS,
         "rest of an account when the site says that it asks too often"),
    TIME("quota_cooldown", "24h", 1000, 30 * 24 * HOUR_MS, "rest of an account without credit"),
    TIME("window_cooldown", "1800s", 1000, 30 * 24 * HOUR_MS,
         "rest after a window's limit that tells no time"),
    TIME("failure_cooldown", "60s", 1000, 24 * HOUR_MS,
         "told with an answer that failed on the site"),
    TIME("challenge_cooldown", "60s", 1000, 24 * HOUR_MS,
         "rest of all accounts behind an address that the site wants a human to verify"),
    TIME("block_cooldown", "1h", 1000, 30 * 24 * HOUR_MS,
         "the same behind an address that it has blocked"),
    TIME("page_cooldown", "30s", 1000, 24 * HOUR_MS, "told with the site's out-of-service page"),
    ENUM("bad_request_cf", "bad_request", "bad_request|expired",
         "what status 400 'bad request cf' means"),
    STR("session_image_chat_map", "",
        "SESSION_ID=CHAT, comma separated: where an account makes its pictures and videos"),
    STR("image_ratio", "auto", "aspect ratio of pictures that are asked for without"),
    STR("video_ratio", "16:9", "the same of videos"),
    TIME("video_duration", "5s", 1000, HOUR_MS, "length of videos that are asked for without"),
    ENUM(
        "media_delivery", "auto", "auto|url|data",
        "what was made: as bytes where only the account can open it, always as its address, always "
        "as bytes"),
    {.name = "max_media",
     .type = CM_CONF_SIZE,
     .def = "32m",
     .min = 1024,
     .max = 48 * 1024 * 1024,
     .help = "largest picture or video that is fetched; of a larger one the address is told"},
    TIME("poll_interval", "3s", 10, 60000, "between two questions whether it is made"),
    TIME("image_timeout", "5m", 1000, 24 * HOUR_MS, "how long a picture may take"),
    TIME("video_timeout", "15m", 1000, 24 * HOUR_MS, "how long a video may take"),
    STR("origin", "https://www.genspark.ai", "sent as Origin and in front of Referer"),
    STR("agent_referer", "/agents?type=ai_chat", "page that asks in the agent dialect"),
    STR("copilot_referer", "/", "page that asks in the copilot dialect"),
    STR("timezone", "", "sent as X-Timezone, e.g. Europe/Paris; empty = left out"),
    BOOL("trace_headers", "yes", "send request-id and traceparent, as the web client does"),
    STR("agent_path", "/api/agent/ask_proxy", "call that asks, agent dialect"),
    STR("copilot_path", "/api/copilot/ask", "call that asks, copilot dialect"),
    STR("upload_path", "/api/get_upload_personal_image_url",
        "call that tells where a file is to be put"),
    STR("create_path", "/api/project/create", "call that makes a chat"),
    STR("image_task_path", "/api/spark/image_generation_task_detail",
        "call that tells of a picture, agent dialect"),
    STR("video_task_path", "/api/spark/video_generation_task_detail",
        "call that tells of a video, agent dialect"),
    STR("image_status_path", "/api/ig_tasks_status",
        "call that tells of pictures, copilot dialect"),
    STR("video_status_path", "/api/vg_tasks_status", "call that tells of videos, copilot dialect"),
    STR("abort_path", "/api/agent/ask_abort", "call that stops an answer"),
    STR("login_path", "/api/is_login", "call that tells whether an account is logged in"),
    STR("credit_path", "/api/credit_audit/billing_cycle", "call that tells what it has left"),
    STR("delete_path", "/api/project/delete", "call that deletes a chat"),
    {.name = NULL},
};

/* ---- Reading them ---- */

/* The next item of a list by commas or lines; false at its end. */
static bool next_item(struct cm_str *rest, struct cm_str *item)
{
    while (rest->n > 0) {
        size_t end = 0;

        while (end < rest->n && rest->p[end] != ',' && rest->p[end] != '\n')
            end++;
        *item = cm_str_trim(cm_str_head(*rest, end));
        *rest = cm_str_from(*rest, end + 1);
        if (item->n > 0)
            return true;
    }
    return false;
}

static size_t count_items(struct cm_str list)
{
    struct cm_str item;
    size_t n = 0;

    while (next_item(&list, &item))
        n++;
    return n;
}

static bool has_item(struct cm_str list, struct cm_str name)
{
    struct cm_str item;

    while (next_item(&list, &item)) {
        if (cm_str_eq(item, name))
            return true;
    }
    return false;
}

static bool is_project_id(struct cm_str id)
{
    for (size_t i = 0; i < id.n; i++) {
        const char c = id.p[i];

        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              c == '-' || c == '.' || c == '_'))
            return false;
    }
    return id.n > 0;
}

int genspark_read_map(struct cm_arena *arena, struct cm_str text, struct genspark_bound **out,
                      size_t *n, struct cm_err *err)
{
    struct genspark_bound *bound = CM_ARENA_ARRAY(arena, struct genspark_bound, count_items(text));
    struct cm_str item;
    size_t count = 0;

    while (next_item(&text, &item)) {
        const size_t at = cm_str_find_char(item, '=');
        struct genspark_bound *b = &bound[count++];

        b->model = cm_str_trim(cm_str_head(item, at));
        b->project = at == SIZE_MAX ? CM_STR_NONE : cm_str_trim(cm_str_from(item, at + 1));
        if (b->model.n == 0 || !is_project_id(b->project))
            return cm_fail(err, CM_ERR_CONFIG, "'" CM_PRI "' must be MODEL=CHAT", CM_ARG(item));
    }
    *out = bound;
    *n = count;
    return 0;
}

static struct cm_str where_of(const struct cm_instance *in, const char *option)
{
    for (size_t i = 0; i < in->conf->n_options; i++) {
        if (cm_str_eq(in->conf->options[i].key, cm_str_of(option)))
            return in->conf->options[i].where;
    }
    return in->conf->where;
}

static void complain(const struct cm_instance *in, struct cm_problems *problems, const char *option,
                     const char *what)
{
    cm_problem_add(problems, where_of(in, option), "provider." CM_PRI ".x.%s: %s", CM_ARG(in->name),
                   option, what);
}

static bool known_model(const struct cm_instance *in, struct cm_str name)
{
    for (size_t i = 0; i < in->n_rows; i++) {
        if (cm_str_eq(in->rows[i].name, name) || cm_str_eq(in->rows[i].upstream, name))
            return true;
    }
    for (size_t i = 0; i < in->adapter->n_models; i++) {
        if (cm_str_eq(in->adapter->models[i].name, name))
            return true;
    }
    return false;
}

static void read_map(struct cm_instance *in, struct genspark_conf *c, struct cm_problems *problems)
{
    struct cm_err err;
    char what[200];

    if (genspark_read_map(in->arena, cm_option_value(in, "model_chat_map"), &c->bound, &c->n_bound,
                          &err)) {
        complain(in, problems, "model_chat_map", err.msg);
        return;
    }
    for (size_t i = 0; i < c->n_bound; i++) {
        if (known_model(in, c->bound[i].model))
            continue;
        snprintf(what, sizeof(what), "there is no model '" CM_PRI "'", CM_ARG(c->bound[i].model));
        complain(in, problems, "model_chat_map", what);
    }
}

/* The complaint does not repeat what is written there: session ids are secret. */
static void read_sessions(struct cm_instance *in, struct genspark_conf *c,
                          struct cm_problems *problems)
{
    const struct cm_str text = cm_option_value(in, "session_image_chat_map");
    struct cm_err err;

    if (genspark_read_map(in->arena, text, &c->sessions, &c->n_sessions, &err))
        complain(in, problems, "session_image_chat_map", "an item must be SESSION_ID=CHAT");
}

static bool read_role(struct cm_str name, enum cm_role *role)
{
    static const enum cm_role roles[] = {CM_ROLE_SYSTEM, CM_ROLE_USER, CM_ROLE_ASSISTANT};

    for (size_t i = 0; i < CM_COUNT(roles); i++) {
        if (cm_str_eq(cm_str_of(cm_role_name(roles[i])), name)) {
            *role = roles[i];
            return true;
        }
    }
    return false;
}

static void read_pre(struct cm_instance *in, struct genspark_conf *c, struct cm_problems *problems)
{
    const struct cm_str text = cm_str_trim(cm_option_value(in, "pre_messages"));
    struct cm_err err;
    yyjson_doc *doc;
    yyjson_val *v;
    size_t i, max;

    if (text.n == 0)
        return;
    doc = cm_json_parse(text, &cm_json_limits_event, &err);
    if (!doc) {
        complain(in, problems, "pre_messages", err.msg);
        return;
    }
    c->pre = CM_ARENA_ARRAY(in->arena, struct cm_msg, yyjson_arr_size(yyjson_doc_get_root(doc)));
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, v)
    {
        struct cm_msg *msg = &c->pre[c->n_pre];

        if (!read_role(cm_json_str(cm_json_get(v, "role")), &msg->role) ||
            !yyjson_is_str(cm_json_get(v, "content")))
            break;
        msg->parts = CM_ARENA_NEW(in->arena, struct cm_part);
        msg->parts->kind = CM_PART_TEXT;
        msg->parts->text = cm_arena_str(in->arena, cm_json_str(cm_json_get(v, "content")));
        msg->n_parts = 1;
        c->n_pre++;
    }
    if (!yyjson_is_arr(yyjson_doc_get_root(doc)) ||
        c->n_pre < yyjson_arr_size(yyjson_doc_get_root(doc)))
        complain(in, problems, "pre_messages",
                 "must be a JSON array of {\"role\":\"system|user|assistant\",\"content\":\"…\"}");
    yyjson_doc_free(doc);
}

static void read_verifier(struct cm_instance *in, struct genspark_conf *c,
                          struct cm_problems *problems)
{
    struct cm_str url = cm_str_trim(cm_option_value(in, "verifier_url"));

    while (cm_str_ends(url, CM_S("/")))
        url = cm_str_head(url, url.n - 1);
    if (url.n > 0 && !cm_str_starts_nocase(url, CM_S("http://")) &&
        !cm_str_starts_nocase(url, CM_S("https://")))
        complain(in, problems, "verifier_url", "must begin with http:// or https://");
    c->verifier_url = url;
}

static void read_mixture(struct cm_instance *in, struct genspark_conf *c,
                         struct cm_problems *problems)
{
    struct cm_str list = cm_option_value(in, "mixture");

    c->mixture = CM_ARENA_ARRAY(in->arena, struct cm_str, count_items(list) + 1);
    while (next_item(&list, &c->mixture[c->n_mixture]))
        c->n_mixture++;
    if (c->n_mixture == 0)
        complain(in, problems, "mixture", "must name at least one model");
}

int genspark_configure(struct cm_instance *in, struct cm_problems *problems)
{
    struct genspark_conf *c = CM_ARENA_NEW(in->arena, struct genspark_conf);

    c->dialect = cm_str_eq(cm_option_value(in, "dialect"), CM_S("copilot")) ? GENSPARK_COPILOT
                                                                            : GENSPARK_AGENT;
    read_mixture(in, c, problems);
    read_map(in, c, problems);
    read_sessions(in, c, problems);
    read_pre(in, c, problems);
    read_verifier(in, c, problems);
    in->options = c;
    return 0;
}

const struct genspark_conf *genspark_conf_of(const struct cm_run *run)
{
    return cm_run_instance(run)->options;
}

/* The site writes deep-seek-…. */
static struct cm_str site_name(struct cm_run *run, struct cm_str name)
{
    const struct cm_str ours = CM_S("deepseek"), rest = cm_str_from(name, ours.n);

    if (!cm_str_starts(name, ours))
        return name;
    return cm_arena_printf(cm_run_arena(run), "deep-seek" CM_PRI, CM_ARG(rest));
}

enum genspark_kind genspark_model(struct cm_run *run, struct cm_str *model)
{
    const struct cm_instance *in = cm_run_instance(run);
    const struct cm_target *target = cm_run_target(run);
    const struct genspark_conf *c = genspark_conf_of(run);

    *model = target->model;
    if (target->row && target->row->number == GENSPARK_MIXTURE) {
        *model = c->mixture[0];
        return GENSPARK_MIXTURE;
    }
    if (target->row && target->row->number != GENSPARK_LISTED)
        return (enum genspark_kind)target->row->number;
    if (has_item(cm_option_value(in, "image_models"), target->model))
        return GENSPARK_IMAGE;
    if (has_item(cm_option_value(in, "video_models"), target->model))
        return GENSPARK_VIDEO;
    if (!target->row && cm_str_eq(cm_option_value(in, "unknown_models"), CM_S("mixture"))) {
        *model = c->mixture[0];
        return GENSPARK_MIXTURE;
    }
    *model = site_name(run, target->model);
    return GENSPARK_LISTED;
}
