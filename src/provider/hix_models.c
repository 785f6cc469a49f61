/* hix: its models with their bots, prices and limits, and its options. HIX protocol notes, sections 3.7 and 6. */
#include "hix_int.h"

#define FEATURES (CM_MODEL_SEARCH | CM_MODEL_NEWS | CM_MODEL_ACADEMIC)

/* name, bot, credits for a question, of which kind, characters in a question */
#define BOTS(X)                                                                                    \
    X("deepseek-r1", 85426, 1, STANDARD, 8000)                                                     \
    X("deepseek-v3", 85427, 1, STANDARD, 8000)                                                     \
    X("gpt-4o-mini", 86, 4, STANDARD, 8000)                                                        \
    X("claude", 42, 4, STANDARD, 8000)                                                             \
    X("claude-3-haiku", 52, 4, STANDARD, 8000)                                                     \
    X("claude-3-5-haiku-200k", 85423, 4, STANDARD, 100000)                                         \
    X("gemini-1-5-flash", 59, 4, STANDARD, 8000)                                                   \
    X("chatgpt", 2, 4, STANDARD, 8000)                                                             \
    X("gemini-1-0-pro", 58, 4, STANDARD, 8000)                                                     \
    X("gemini", 83, 4, STANDARD, 8000)                                                             \
    X("gpt-3-5-turbo", 3, 4, STANDARD, 8000)                                                       \
    X("claude-instant-100k", 44, 8, STANDARD, 50000)                                               \
    X("claude-3-5-haiku", 85422, 10, STANDARD, 8000)                                               \
    X("gpt-3-5-turbo-16k", 4, 12, STANDARD, 8000)                                                  \
    X("gemini-1-5-pro", 60, 18, STANDARD, 8000)                                                    \
    X("claude-3-haiku-200k", 56, 20, STANDARD, 100000)                                             \
    X("claude-3-sonnet", 51, 20, STANDARD, 8000)                                                   \
    X("gpt-4o", 5, 30, STANDARD, 8000)                                                             \
    X("gemini-1-5-flash-128k", 62, 30, STANDARD, 64000)                                            \
    X("claude-2", 45, 35, STANDARD, 8000)                                                          \
    X("claude-2-100k", 47, 75, STANDARD, 50000)                                                    \
    X("grok-2", 85428, 100, STANDARD, 8000)                                                        \
    X("claude-3-5-sonnet", 50, 100, STANDARD, 8000)                                                \
    X("claude-3-5-sonnet-200k", 54, 100, STANDARD, 100000)                                         \
    X("claude-3-sonnet-200k", 55, 100, STANDARD, 100000)                                           \
    X("gpt-4o-128k", 6, 125, STANDARD, 64000)                                                      \
    X("gemini-1-5-pro-128k", 63, 175, STANDARD, 64000)                                             \
    X("gemini-1-5-flash-1m", 65, 170, STANDARD, 100000)                                            \
    X("openai-o3-mini", 85424, 200, STANDARD, 8000)                                                \
    X("openai-o1-mini", 1182, 200, STANDARD, 8000)                                                 \
    X("claude-2-1-200k", 49, 300, STANDARD, 100000)                                                \
    X("gemini-1-5-pro-1m", 67, 2500, STANDARD, 100000)                                             \
    X("gpt-4-turbo", 8, 20, ADVANCED, 8000)                                                        \
    X("gpt-4-turbo-128k", 9, 20, ADVANCED, 64000)                                                  \
    X("claude-3-7-sonnet", 85429, 20, ADVANCED, 8000)                                              \
    X("openai-o1", 1181, 40, ADVANCED, 8000)                                                       \
    X("claude-3-opus", 53, 45, ADVANCED, 8000)                                                     \
    X("gpt4", 10, 45, ADVANCED, 8000)                                                              \
    X("claude-3-opus-200k", 57, 120, ADVANCED, 100000)

/* Later ones, whose price and limit are UNKNOWN: any account may try them. */
#define LATER_BOTS(X)                                                                              \
    X("claude-opus-5", 85502)                                                                      \
    X("claude-opus-4.8", 85496)                                                                    \
    X("claude-opus-4.7", 85491)                                                                    \
    X("claude-sonnet-4.6", 85486)                                                                  \
    X("claude-opus-4.6", 85487)                                                                    \
    X("claude-opus-4.5", 85480)                                                                    \
    X("claude-sonnet-4.5", 85476)                                                                  \
    X("claude-haiku-4.5", 85477)                                                                   \
    X("gpt-5.5", 85492)                                                                            \
    X("gpt-5.6-luna", 85499)                                                                       \
    X("gemini-3.5-flash", 85495)                                                                   \
    X("deepseek-v4-pro", 85494)

#define ROW(ours, theirs, bot, credits, kind)                                                      \
    {.name = CM_S_INIT(ours),                                                                      \
     .upstream = CM_S_INIT(theirs),                                                                \
     .number = (bot),                                                                              \
     .features = FEATURES,                                                                         \
     .cost = (credits),                                                                            \
     .purse = (kind)}

const struct cm_model_row hix_models[HIX_N_MODELS] = {
    /* names of an older time */
    ROW("gpt-3.5-turbo", "gpt-3-5-turbo", 3, 4, HIX_STANDARD),
    ROW("gpt-3.5-turbo-16k", "gpt-3-5-turbo-16k", 4, 12, HIX_STANDARD),
    ROW("gpt-4", "gpt4", 10, 45, HIX_ADVANCED),
    ROW("claude-3-5-sonnet-v2", "claude-3-5-sonnet", 50, 100, HIX_STANDARD),
#define X(name, bot, credits, kind, chars) ROW(name, name, bot, credits, HIX_##kind),
    BOTS(X)
#undef X
#define X(name, bot) ROW(name, name, bot, 0, HIX_STANDARD),
        LATER_BOTS(X)
#undef X
};
#define X(...) +1
_Static_assert(HIX_N_MODELS == 4 BOTS(X) LATER_BOTS(X), "as many rows as are told");
#undef X

struct limit {
    int64_t bot, chars;
};
static const struct limit limits[] = {
#define X(name, bot, credits, kind, chars) {bot, chars},
    BOTS(X)
#undef X
};

/* ---- The operator's own table ---- */

struct bot { /* NAME=BOT[/CREDITS[a][/CHARS]] */
    struct cm_str name;
    int64_t id, cost, chars; /* chars 0 = not said */
    unsigned purse;
};

struct conf {
    struct bot *bots;
    size_t n_bots;
};

static bool read_number(struct cm_str text, int64_t *out)
{
    uint64_t n = 0;

    if (!cm_str_to_u64(text, INT32_MAX, &n))
        return false;
    *out = (int64_t)n;
    return true;
}

static bool read_bot(struct cm_str item, struct bot *out)
{
    struct cm_str id, cost;

    *out = (struct bot){.name = cm_str_trim(cm_str_cut(&item, '='))};
    id = cm_str_cut(&item, '/');
    cost = cm_str_cut(&item, '/');
    if (cm_str_ends(cost, CM_S("a"))) {
        out->purse = HIX_ADVANCED;
        cost = cm_str_head(cost, cost.n - 1);
    }
    return out->name.n > 0 && read_number(id, &out->id) && out->id > 0 &&
           (cost.n == 0 || read_number(cost, &out->cost)) &&
           (item.n == 0 || read_number(item, &out->chars));
}

static bool is_separator(char c)
{
    return c == ',' || c == ' ' || (c >= '\t' && c <= '\r');
}

static struct cm_str next_item(struct cm_str *rest)
{
    struct cm_str item;
    size_t n = 0;

    while (rest->n > 0 && is_separator(rest->p[0]))
        *rest = cm_str_from(*rest, 1);
    while (n < rest->n && !is_separator(rest->p[n]))
        n++;
    item = cm_str_head(*rest, n);
    *rest = cm_str_from(*rest, n);
    return item;
}

static const struct bot *find_bot(const struct conf *conf, struct cm_str name, int64_t id)
{
    for (size_t i = 0; i < conf->n_bots; i++) {
        if (id ? conf->bots[i].id == id : cm_str_eq(conf->bots[i].name, name))
            return &conf->bots[i];
    }
    return NULL;
}

/* What is known of a bot goes into a row that names it, or only its number. */
static void fill_row(const struct conf *conf, struct cm_model_row *row)
{
    const struct bot *bot = find_bot(conf, row->upstream.n > 0 ? row->upstream : row->name, 0);
    int64_t id = 0;

    if (!bot && row->number == 0 && read_number(row->upstream, &id) && id > 0) {
        bot = find_bot(conf, CM_STR_NONE, id);
        for (size_t i = 0; i < HIX_N_MODELS && !bot; i++) {
            if (hix_models[i].number == id) {
                row->cost = hix_models[i].cost;
                row->purse = hix_models[i].purse;
            }
        }
    }
    if (bot) {
        row->number = bot->id;
        row->cost = bot->cost;
        row->purse = bot->purse;
    }
}

static void add_rows(struct cm_instance *in, const struct conf *conf)
{
    struct cm_model_row *rows =
        CM_ARENA_ARRAY(in->arena, struct cm_model_row, in->n_rows + conf->n_bots);
    const size_t before = in->n_rows;

    for (size_t i = 0; i < before; i++)
        rows[i] = in->rows[i];
    for (size_t i = 0; i < conf->n_bots; i++) {
        bool listed = false;

        for (size_t k = 0; k < before; k++)
            listed |= cm_str_eq(rows[k].name, conf->bots[i].name);
        if (!listed)
            rows[in->n_rows++] =
                (struct cm_model_row){.name = conf->bots[i].name, .features = FEATURES};
    }
    in->rows = rows;
}

static struct cm_str where(const struct cm_instance *in)
{
    for (size_t i = 0; i < in->conf->n_options; i++) {
        if (cm_str_eq(in->conf->options[i].key, CM_S("bots")))
            return in->conf->options[i].where;
    }
    return in->conf->where;
}

int hix_configure(struct cm_instance *in, struct cm_problems *problems)
{
    struct cm_str rest = cm_option_value(in, "bots"), item;
    struct conf *conf = CM_ARENA_NEW(in->arena, struct conf);

    conf->bots = CM_ARENA_ARRAY(in->arena, struct bot, rest.n / 2 + 1);
    in->options = conf;
    while ((item = next_item(&rest)).n > 0) {
        if (read_bot(item, &conf->bots[conf->n_bots])) {
            conf->n_bots++;
            continue;
        }
        cm_problem_add(problems, where(in),
                       "provider." CM_PRI ".x.bots: '" CM_PRI
                       "' must be NAME=BOT, NAME=BOT/CREDITS or NAME=BOT/CREDITS/CHARACTERS, with "
                       "an a behind the credits where they are advanced ones",
                       CM_ARG(in->name), CM_ARG(item));
        return -1;
    }
    if (in->conf->models.n == 0)
        add_rows(in, conf);
    for (size_t i = 0; i < in->n_rows; i++)
        fill_row(conf, &in->rows[i]);
    return 0;
}

/* A bot that is in no table can be named by its number: `models = new-model=85600`. */
int64_t hix_bot(const struct cm_run *run)
{
    const struct cm_target *target = cm_run_target(run);
    const struct bot *bot;
    int64_t id = 0;

    if (target->row && target->row->number > 0)
        return target->row->number;
    bot = find_bot(cm_run_instance(run)->options, target->model, 0);
    if (bot)
        return bot->id;
    read_number(target->model, &id);
    return id;
}

size_t hix_question_limit(const struct cm_run *run)
{
    const struct cm_instance *in = cm_run_instance(run);
    const int64_t id = hix_bot(run);
    const struct bot *bot = id ? find_bot(in->options, CM_STR_NONE, id) : NULL;

    if (bot && bot->chars > 0)
        return (size_t)bot->chars;
    for (size_t i = 0; i < CM_COUNT(limits); i++) {
        if (limits[i].bot == id)
            return (size_t)limits[i].chars;
    }
    return (size_t)cm_option_int(in, "question_limit");
}

/* ---- Options ---- */

const struct cm_option hix_options[] = {
    {.name = "origin",
     .type = CM_CONF_STR,
     .def = "https://hix.ai",
     .help = "sent as Origin and in front of Referer"},
    {.name = "create_path",
     .type = CM_CONF_STR,
     .def = "/api/trpc/hixChat.createChat?batch=1",
     .help = "call that creates a chat"},
    {.name = "chat_path",
     .type = CM_CONF_STR,
     .def = "/api/hix/chat",
     .help = "call that asks and streams the answer"},
    {.name = "resume_path",
     .type = CM_CONF_STR,
     .def = "/api/hix/agentEvent",
     .help = "call that tells the rest of an answer that broke off; empty = none"},
    {.name = "delete_path",
     .type = CM_CONF_STR,
     .def = "/api/trpc/hixChat.deleteChat?batch=1",
     .help = "call that deletes a chat"},
    {.name = "sign_path",
     .type = CM_CONF_STR,
     .def = "/api/upload/sign",
     .help = "call that tells where to put a file"},
    {.name = "session_path",
     .type = CM_CONF_STR,
     .def = "/api/auth/session",
     .help = "call that tells who is logged in, and may renew the cookie"},
    {.name = "usage_path",
     .type = CM_CONF_STR,
     .def = "/api/trpc/hixChat.getUsedBotList,subLog.getSubLog,subUsage.getSubUsage?batch=1",
     .help = "call that tells the credit that is left, as its last result"},
    {.name = "usage_input",
     .type = CM_CONF_STR,
     .def = "{\"0\":{\"json\":{\"limit\":1000}},\"1\":{\"json\":null,\"meta\":{\"values\":"
            "[\"undefined\"]}},\"2\":{\"json\":{\"appName\":\"HIXChat\"}}}",
     .help = "its argument, JSON"},
    {.name = "title", .type = CM_CONF_STR, .def = "Untitled", .help = "title of the chats"},
    {.name = "search_type",
     .type = CM_CONF_ENUM,
     .def = "internet",
     .choices = "internet|news|academic",
     .help = "what -search searches; -news and -academic search what they say"},
    {.name = "bots",
     .type = CM_CONF_LIST,
     .def = "",
     .help = "models besides or instead of the built-in ones: NAME=BOT/CREDITS/CHARACTERS, "
             "CREDITS with an a behind it where they are advanced ones"},
    {.name = "question_limit",
     .type = CM_CONF_INT,
     .def = "8000",
     .min = 100,
     .max = 10000000,
     .help = "characters in a question to a bot whose limit is not in a table"},
    {.name = "file_urls",
     .type = CM_CONF_BOOL,
     .def = "no",
     .help = "several files with one question (fileUrls, as newer clients send them)"},
    {.name = "challenge_cooldown",
     .type = CM_CONF_DURATION,
     .def = "60s",
     .min = 1000,
     .max = 24 * 3600 * INT64_C(1000),
     .help = "rest of all accounts behind an address that the site wants a human to verify"},
    {.name = "citations",
     .type = CM_CONF_ENUM,
     .def = "annotations",
     .choices = "annotations|none",
     .help = "links in the text of a searched answer are told as annotations, too"},
    {.name = "continue",
     .type = CM_CONF_ENUM,
     .def = "thread",
     .choices = "no|thread",
     .help = "a conversation goes on in its chat; no = every request is a new one"},
    {.name = "continue_ttl",
     .type = CM_CONF_DURATION,
     .def = "7d",
     .help = "how long a chat is kept in mind for that"},
    {.name = "delete_chat",
     .type = CM_CONF_BOOL,
     .def = "no",
     .help = "delete each chat after its answer; nothing goes on then"},
    {.name = "delete_after",
     .type = CM_CONF_DURATION,
     .def = "0",
     .help = "delete chats that nobody has used for so long, once a day; 0 = they stay"},
    {.name = "credit_every",
     .type = CM_CONF_DURATION,
     .def = "10m",
     .help = "after an answer the credit is read again when that is so long ago; 0 = after each"},
    {.name = NULL},
};
