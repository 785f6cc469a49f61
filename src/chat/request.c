/* The canonical request: reading it as text, and guessing its size in tokens. */
#include "chatmux/chat/request.h"

#include "chatmux/base/buf.h"
#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"

#include <math.h>

void cm_chat_drop(struct cm_chat *chat, struct cm_str field)
{
    for (size_t i = 0; i < chat->n_dropped; i++) {
        if (cm_str_eq(chat->dropped[i], field))
            return;
    }
    if (!chat->dropped)
        chat->dropped = CM_ARENA_ARRAY(chat->arena, struct cm_str, CM_DROPPED_MAX);
    if (chat->n_dropped < CM_DROPPED_MAX)
        chat->dropped[chat->n_dropped++] = field;
}

void cm_chat_find_unread(struct cm_chat *chat)
{
    const struct cm_unread *unread = chat->unread;

    chat->unread = NULL;
    if (unread)
        unread->find(chat, unread);
}

struct cm_str cm_chat_field_name(unsigned number)
{
    static const struct cm_str names[] = {
#define X(name, text) CM_S_INIT(text),
        CM_CHAT_FIELDS(X)
#undef X
    };

    CM_ASSERT(number < CM_COUNT(names));
    return names[number];
}

static unsigned fields_of_part(const struct cm_part *part)
{
    const bool detailed = part->detail.n > 0 && !cm_str_eq(part->detail, CM_S("auto"));

    return (part->cache.n > 0 ? CM_FIELD_CACHE : 0u) | (detailed ? CM_FIELD_DETAIL : 0u) |
           (part->context.n > 0 ? CM_FIELD_CONTEXT : 0u) |
           (part->kind == CM_PART_FILE && part->name.n > 0 ? CM_FIELD_FILE_NAME : 0u);
}

/* Those that tools, messages and their parts have. */
static unsigned fields_inside(const struct cm_chat *chat)
{
    unsigned said = 0;

    for (size_t i = 0; i < chat->n_tools; i++) {
        if (chat->tools[i].cache.n > 0)
            said |= CM_FIELD_CACHE;
        if (chat->tools[i].strict == 1)
            said |= CM_FIELD_STRICT;
    }
    for (size_t i = 0; i < chat->n_msgs; i++) {
        const struct cm_msg *msg = &chat->msgs[i];

        if (msg->name.n > 0 && msg->role != CM_ROLE_TOOL) /* there it is the function's */
            said |= CM_FIELD_NAME;
        for (size_t k = 0; k < msg->n_parts; k++)
            said |= fields_of_part(&msg->parts[k]);
    }
    return said;
}

unsigned cm_chat_fields(const struct cm_chat *chat)
{
    const struct {
        unsigned bit;
        bool said;
    } fields[] = {
        {CM_FIELD_TEMPERATURE, !isnan(chat->temperature)},
        {CM_FIELD_TOP_P, !isnan(chat->top_p)},
        {CM_FIELD_TOP_K, chat->top_k >= 0},
        {CM_FIELD_PRESENCE_PENALTY, !isnan(chat->presence_penalty)},
        {CM_FIELD_FREQUENCY_PENALTY, !isnan(chat->frequency_penalty)},
        {CM_FIELD_SEED, chat->has_seed},
        /* one dialect wants it always */
        {CM_FIELD_MAX_TOKENS, chat->max_tokens >= 0 && chat->dialect != CM_DIALECT_ANTHROPIC},
        {CM_FIELD_STOP, chat->n_stop > 0},
        {CM_FIELD_LOGPROBS, chat->logprobs},
        {CM_FIELD_LOGIT_BIAS, chat->logit_bias.n > 0},
        {CM_FIELD_EFFORT, chat->thinking != CM_THINKING_UNSET || chat->reasoning_effort.n > 0},
        {CM_FIELD_VERBOSITY, chat->verbosity.n > 0},
        {CM_FIELD_PARALLEL, chat->parallel_tool_calls >= 0 && chat->n_tools > 0},
        {CM_FIELD_FORMAT, chat->format != CM_FORMAT_TEXT},
        {CM_FIELD_USER, chat->user.n > 0},
        {CM_FIELD_METADATA, chat->metadata.n > 0},
        {CM_FIELD_SERVICE_TIER, chat->service_tier.n > 0},
        {CM_FIELD_CACHE, chat->cache.n > 0},
        {CM_FIELD_CACHE_KEY, chat->cache_key.n > 0},
    };
    unsigned said = fields_inside(chat);

    for (size_t i = 0; i < CM_COUNT(fields); i++) {
        if (fields[i].said)
            said |= fields[i].bit;
    }
    return said;
}

/* Rows in ascending order; a budget belongs to the first row whose `up_to` it does not exceed. */
static const struct {
    struct cm_str effort;
    int64_t up_to, budget;
} efforts[] = {
    {CM_S_INIT("none"), 0, 0},
    {CM_S_INIT("minimal"), -1, 1024},
    {CM_S_INIT("low"), 2048, 1024},
    {CM_S_INIT("medium"), 8192, 4096},
    {CM_S_INIT("high"), INT64_MAX, 8192},
    {CM_S_INIT("xhigh"), INT64_MAX, 16384},
    {CM_S_INIT("max"), INT64_MAX, 24576},
};

struct cm_str cm_chat_effort(const struct cm_chat *chat)
{
    if (chat->thinking == CM_THINKING_OFF)
        return CM_S("none");
    if (chat->reasoning_effort.n > 0 || chat->thinking_budget < 0)
        return chat->reasoning_effort;
    for (size_t i = 0; i < CM_COUNT(efforts); i++) {
        if (chat->thinking_budget <= efforts[i].up_to)
            return efforts[i].effort;
    }
    return CM_STR_NONE;
}

int64_t cm_chat_thinking_budget(const struct cm_chat *chat)
{
    if (chat->thinking == CM_THINKING_OFF)
        return 0;
    if (chat->thinking_budget >= 0)
        return chat->thinking_budget;
    for (size_t i = 0; i < CM_COUNT(efforts); i++) {
        if (cm_str_eq(chat->reasoning_effort, efforts[i].effort))
            return efforts[i].budget;
    }
    return -1;
}

const struct cm_part *cm_chat_call_of(const struct cm_chat *chat, struct cm_str id)
{
    for (size_t i = chat->n_msgs; i-- > 0;) {
        const struct cm_msg *msg = &chat->msgs[i];

        for (size_t k = 0; k < msg->n_parts; k++) {
            if (msg->parts[k].kind == CM_PART_TOOL_CALL && cm_str_eq(msg->parts[k].id, id))
                return &msg->parts[k];
        }
    }
    return NULL;
}

const char *cm_role_name(enum cm_role role)
{
    static const char *const names[] = {
#define X(name, text) text,
        CM_ROLES(X)
#undef X
    };

    CM_ASSERT((size_t)role < CM_COUNT(names));
    return names[role];
}

const char *cm_chat_task_name(enum cm_chat_task task)
{
    static const char *const names[] = {
#define X(name, text) text,
        CM_TASKS(X)
#undef X
    };

    CM_ASSERT((size_t)task < CM_COUNT(names));
    return names[task];
}

bool cm_tasks_serve(unsigned tasks, enum cm_chat_task task)
{
    return tasks & (1u << task) || (task == CM_TASK_COMPLETION && tasks & CM_TASK_BIT(CHAT));
}

bool cm_task_makes_media(enum cm_chat_task task)
{
    return (1u << task) & (CM_TASK_BIT(IMAGE) | CM_TASK_BIT(IMAGE_EDIT) |
                           CM_TASK_BIT(IMAGE_VARIATION) | CM_TASK_BIT(VIDEO));
}

void cm_chat_begin(struct cm_chat *chat, enum cm_dialect dialect, enum cm_chat_task task,
                   struct cm_str raw)
{
    *chat = (struct cm_chat){
        .arena = chat->arena,
        .method = chat->method,
        .path = chat->path,
        .content_type = chat->content_type,
        .query = chat->query,
        .headers = chat->headers,
        .n_headers = chat->n_headers,
        .response = chat->response,
        .dialect = dialect,
        .task = task,
        .raw = raw,
        .max_tokens = -1,
        .n = 1,
        .parallel_tool_calls = -1,
        .top_k = -1,
        .temperature = NAN,
        .top_p = NAN,
        .presence_penalty = NAN,
        .frequency_penalty = NAN,
        .top_logprobs = -1,
        .thinking_budget = -1,
        .show_thinking = -1,
        .schema_strict = -1,
        .dimensions = -1,
        .media = {.duration_s = -1, .auto_prompt = -1},
    };
}

static void load_picture(struct cm_arena *arena, struct cm_part *part)
{
    struct cm_buf out = {0};

    if (part->text.n == 0)
        return;
    cm_base64(&out, part->text);
    part->data = cm_buf_settle(&out, arena);
    part->text = CM_STR_NONE;
}

void cm_chat_load_media(struct cm_chat *chat)
{
    for (size_t i = 0; i < chat->media.n_images; i++)
        load_picture(chat->arena, &chat->media.images[i]);
    if (chat->media.mask)
        load_picture(chat->arena, chat->media.mask);
}

struct cm_str cm_msg_text(struct cm_arena *arena, const struct cm_msg *msg)
{
    struct cm_buf joined = {0};
    struct cm_str only = CM_STR_NONE;
    size_t n = 0;

    for (size_t i = 0; i < msg->n_parts; i++) {
        const struct cm_part *part = &msg->parts[i];

        if (part->kind != CM_PART_TEXT)
            continue;
        if (n == 0) {
            only = part->text;
        } else {
            if (n == 1)
                cm_buf_append(&joined, only);
            cm_buf_put(&joined, '\n');
            cm_buf_append(&joined, part->text);
        }
        n++;
    }
    return n > 1 ? cm_buf_settle(&joined, arena) : only;
}

const struct cm_msg *cm_chat_last(const struct cm_chat *chat, enum cm_role role)
{
    for (size_t i = chat->n_msgs; i-- > 0;) {
        if (chat->msgs[i].role == role)
            return &chat->msgs[i];
    }
    return NULL;
}

/* English takes about four bytes a token; two-byte letters (Greek, Cyrillic) two characters;
 * Han, kana and Hangul a bit less than one token each; what lies beyond (emoji) two. Counted in
 * quarters. */
int64_t cm_estimate_tokens(struct cm_str text)
{
    uint64_t quarters = 0;

    for (size_t i = 0; i < text.n; i++) {
        const unsigned char c = (unsigned char)text.p[i];

        quarters += c < 0x80 ? 1 : c < 0xc0 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 8;
    }
    return (int64_t)((quarters + 3) / 4);
}

#define TOKENS_PER_MESSAGE 4 /* role and separators */
#define TOKENS_PER_IMAGE 765 /* a picture of 1024 x 1024 in four tiles */
#define TOKENS_PER_TOOL 8

static int64_t own_tokens(const struct cm_part *part)
{
    switch (part->kind) {
    case CM_PART_IMAGE:
        return TOKENS_PER_IMAGE;
    case CM_PART_AUDIO:
    case CM_PART_FILE:
        return (int64_t)(part->data.n / 16);
    case CM_PART_TEXT:
    case CM_PART_REFUSAL:
    case CM_PART_REASONING:
    case CM_PART_TOOL_CALL:
    case CM_PART_TOOL_RESULT:
        break;
    }
    return cm_estimate_tokens(part->text) + cm_estimate_tokens(part->name);
}

static int64_t part_tokens(const struct cm_part *part)
{
    int64_t sum = own_tokens(part);

    for (size_t i = 0; i < part->n_parts; i++) {
        if (part->parts[i].kind != CM_PART_TEXT) /* a result's text has been counted */
            sum += own_tokens(&part->parts[i]);
    }
    return sum;
}

int64_t cm_chat_estimate_tokens(const struct cm_chat *chat)
{
    int64_t sum = 0;

    for (size_t i = 0; i < chat->n_msgs; i++) {
        const struct cm_msg *msg = &chat->msgs[i];

        sum += TOKENS_PER_MESSAGE;
        for (size_t k = 0; k < msg->n_parts; k++)
            sum += part_tokens(&msg->parts[k]);
    }
    for (size_t i = 0; i < chat->n_tools; i++) {
        const struct cm_tool *tool = &chat->tools[i];

        sum += TOKENS_PER_TOOL + cm_estimate_tokens(tool->name) +
               cm_estimate_tokens(tool->description) + cm_estimate_tokens(tool->parameters);
    }
    if (cm_task_makes_media(chat->task))
        sum += cm_estimate_tokens(chat->media.prompt) +
               TOKENS_PER_IMAGE * (int64_t)chat->media.n_images;
    for (size_t i = 0; i < chat->n_inputs; i++)
        sum += cm_estimate_tokens(chat->inputs[i]);
    return sum + chat->input_tokens + cm_estimate_tokens(chat->schema);
}

/* Reasoning of earlier turns is no part of the conversation. */
static bool tells_something(const struct cm_part *part)
{
    return part->kind == CM_PART_TEXT || part->kind == CM_PART_REFUSAL ||
           part->kind == CM_PART_TOOL_CALL || part->kind == CM_PART_TOOL_RESULT;
}

static void put_turn(struct cm_buf *out, const struct cm_msg *msg)
{
    bool any = false;

    for (size_t i = 0; i < msg->n_parts; i++) {
        const struct cm_part *part = &msg->parts[i];

        if (!tells_something(part))
            continue;
        if (any)
            cm_buf_put(out, '\n');
        else
            cm_buf_printf(out, "%s%s: ", out->n > 0 ? "\n\n" : "", cm_role_name(msg->role));
        any = true;
        if (part->kind == CM_PART_TOOL_CALL)
            cm_buf_printf(out, "[calls " CM_PRI " with ", CM_ARG(part->name));
        cm_buf_append(out, part->text);
        if (part->kind == CM_PART_TOOL_CALL)
            cm_buf_put(out, ']');
    }
}

struct cm_str cm_chat_flatten(struct cm_arena *arena, const struct cm_chat *chat)
{
    struct cm_buf out = {0};

    if (chat->n_msgs == 1 && chat->msgs[0].role == CM_ROLE_USER)
        return cm_msg_text(arena, &chat->msgs[0]);
    for (size_t i = 0; i < chat->n_msgs; i++)
        put_turn(&out, &chat->msgs[i]);
    return cm_buf_settle(&out, arena);
}
