/* The canonical request: what every surface parses into and every adapter reads. Loop thread only.
 * All slices live in `arena` or in `raw`, which lives as long. */
#ifndef CHATMUX_CHAT_REQUEST_H
#define CHATMUX_CHAT_REQUEST_H

#include "chatmux/base/arena.h"
#include "chatmux/base/err.h"

#define CM_DIALECTS(X)                                                                             \
    X(OPENAI_CHAT, "openai")                                                                       \
    X(OPENAI_RESPONSES, "responses") X(ANTHROPIC, "anthropic") X(GEMINI, "gemini")
enum cm_dialect {
#define X(name, text) CM_DIALECT_##name,
    CM_DIALECTS(X)
#undef X
};

/* What is asked for, with the words an error calls it by. */
#define CM_TASKS(X)                                                                                \
    X(CHAT, "chat")                                                                                \
    X(COMPLETION, "text completions")                                                              \
    X(EMBEDDING, "embeddings")                                                                     \
    X(MODERATION, "moderations")                                                                   \
    X(IMAGE, "images")                                                                             \
    X(IMAGE_EDIT, "image edits")                                                                   \
    X(IMAGE_VARIATION, "image variations")                                                         \
    X(VIDEO, "videos")                                                                             \
    X(SPEECH, "speech")                                                                            \
    X(TRANSCRIPTION, "transcriptions")                                                             \
    X(TRANSLATION, "audio translations")                                                           \
    X(COUNT_TOKENS, "token counts")
enum cm_chat_task { /* not cm_task: a struct of io/loop.h has that name */
#define X(name, text) CM_TASK_##name,
                    CM_TASKS(X)
#undef X
};
const char *cm_chat_task_name(enum cm_chat_task task);
/* Sets of tasks: what an adapter can do. */
#define CM_TASK_BIT(name) (1u << CM_TASK_##name)
/* A text completion is made by whatever can chat, too: its prompt is then one message of a user. */
bool cm_tasks_serve(unsigned tasks, enum cm_chat_task task);
/* IMAGE, IMAGE_EDIT, IMAGE_VARIATION, VIDEO: answered by IMAGE events, described by cm_chat.media. */
bool cm_task_makes_media(enum cm_chat_task task);

#define CM_ROLES(X)                                                                                \
    X(SYSTEM, "system")                                                                            \
    X(DEVELOPER, "developer") X(USER, "user") X(ASSISTANT, "assistant") X(TOOL, "tool")
enum cm_role {
#define X(name, text) CM_ROLE_##name,
    CM_ROLES(X)
#undef X
};
const char *cm_role_name(enum cm_role role);

enum cm_part_kind {
    CM_PART_TEXT,
    CM_PART_IMAGE,
    CM_PART_AUDIO,
    CM_PART_FILE,
    CM_PART_REFUSAL,
    CM_PART_REASONING,
    CM_PART_TOOL_CALL,
    CM_PART_TOOL_RESULT
};

struct cm_part {
    enum cm_part_kind kind;
    /* TEXT, REFUSAL, REASONING: the text. TOOL_CALL: arguments as JSON text. TOOL_RESULT: the
     * result as text */
    struct cm_str text;
    struct cm_str id;   /* TOOL_CALL, TOOL_RESULT: call id. FILE: file_id. REASONING: signature */
    struct cm_str name; /* TOOL_CALL: function name. FILE: file name */
    struct cm_str url;  /* IMAGE, FILE: http(s) URL, or empty when `data` is given */
    struct cm_str media_type; /* IMAGE, AUDIO, FILE with data: "image/png", "wav" */
    struct cm_str data;       /* base64 without the data: prefix */
    struct cm_str detail;     /* IMAGE: low, high, auto or empty */
};

struct cm_msg {
    enum cm_role role;
    struct cm_str name;
    struct cm_part *parts;
    size_t n_parts;
};

struct cm_tool {
    struct cm_str name, description;
    struct cm_str parameters; /* JSON text of the schema; empty = none */
    int strict;               /* 1, 0, -1 = not said */
};

enum cm_tool_choice {
    CM_TOOLS_UNSET,
    CM_TOOLS_AUTO,
    CM_TOOLS_NONE,
    CM_TOOLS_REQUIRED,
    CM_TOOLS_NAMED
};
enum cm_format { CM_FORMAT_TEXT, CM_FORMAT_JSON, CM_FORMAT_SCHEMA };

/* Pictures or a video to be made. How many is cm_chat.n. "" = not said. */
enum cm_media_form { CM_MEDIA_ANY, CM_MEDIA_URL, CM_MEDIA_B64 };
struct cm_media {
    struct cm_str prompt;
    struct cm_str size;         /* "1024x1024", "auto" */
    struct cm_str aspect_ratio; /* "16:9" */
    struct cm_str quality, style, background;
    struct cm_str output_format; /* "png", "jpeg", "webp" */
    int64_t duration_s;          /* VIDEO; -1 = not said */
    int auto_prompt;             /* the platform may rewrite the prompt: 1, 0, -1 = not said */
    enum cm_media_form response_format; /* the client wants an address, or the bytes */
    struct cm_part *images; /* to be worked on: IMAGE parts, url or media_type and data */
    size_t n_images;
    struct cm_part *mask; /* IMAGE_EDIT: what may change; NULL = none */
};

struct cm_chat {
    struct cm_arena *arena;  /* the exchange's; not owned */
    enum cm_dialect dialect; /* in which the client spoke */
    enum cm_chat_task task;
    struct cm_str content_type; /* of the body, as the client wrote it: a form's boundary */
    struct cm_str raw;          /* the client's body as it came */
    struct cm_str model;        /* as the client wrote it */

    struct cm_msg *msgs;
    size_t n_msgs;
    struct cm_tool *tools;
    size_t n_tools;
    enum cm_tool_choice tool_choice;
    struct cm_str tool_name; /* CM_TOOLS_NAMED */
    int parallel_tool_calls; /* 1, 0, -1 = not said */

    int64_t max_tokens; /* -1 = not said, like the integers below */
    int64_t n;          /* choices wanted; 1 when not said */
    int64_t seed;       /* only when has_seed */
    bool has_seed;
    double temperature, top_p, presence_penalty, frequency_penalty; /* NAN = not said */
    struct cm_str *stop;
    size_t n_stop;
    struct cm_str reasoning_effort; /* "" = not said */
    enum cm_format format;
    struct cm_str schema_name, schema; /* CM_FORMAT_SCHEMA: name, JSON text */
    struct cm_str user;

    bool stream, include_usage;
    struct cm_media media; /* the tasks that make media */

    /* The first thing asked for that this struct cannot express (a custom tool, spoken answers …).
     * The relay lane carries it; a provider that is translated for must not guess: it answers with
     * this error. CM_ERR_NONE = everything was understood. */
    struct cm_err untranslatable;
};

/* For surfaces: nothing was said yet. Keeps arena and content_type, which are the caller's. */
void cm_chat_begin(struct cm_chat *chat, enum cm_dialect dialect, enum cm_chat_task task,
                   struct cm_str raw);

/* Text parts of one message put together with LF between; no copy when there is one part. */
struct cm_str cm_msg_text(struct cm_arena *arena, const struct cm_msg *msg);
/* Last message of that role, or NULL. */
const struct cm_msg *cm_chat_last(const struct cm_chat *chat, enum cm_role role);
/* Rough count of the prompt's tokens: for budgets and for usage an upstream does not tell. */
int64_t cm_chat_estimate_tokens(const struct cm_chat *chat);
int64_t cm_estimate_tokens(struct cm_str text);
/* The whole conversation as one text, "role: text" per message, for platforms that take one
 * question. One user message alone gives its bare text. */
struct cm_str cm_chat_flatten(struct cm_arena *arena, const struct cm_chat *chat);

#endif
