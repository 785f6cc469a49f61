/* The canonical request: reading it as text, and guessing its size in tokens. */
#include "chatmux/chat/request.h"

#include "chatmux/base/buf.h"
#include "chatmux/base/mem.h"

#include <math.h>

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
        .content_type = chat->content_type,
        .dialect = dialect,
        .task = task,
        .raw = raw,
        .max_tokens = -1,
        .n = 1,
        .parallel_tool_calls = -1,
        .temperature = NAN,
        .top_p = NAN,
        .presence_penalty = NAN,
        .frequency_penalty = NAN,
        .media = {.duration_s = -1, .auto_prompt = -1},
    };
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

static int64_t part_tokens(const struct cm_part *part)
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
    return sum + cm_estimate_tokens(chat->schema);
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
