/* The canonical request: what every surface parses into and every adapter reads. Loop thread only.
 * All slices live in `arena` or in `raw`, which lives as long. */
#ifndef CHATMUX_CHAT_REQUEST_H
#define CHATMUX_CHAT_REQUEST_H

#include "chatmux/base/arena.h"
#include "chatmux/base/err.h"
#include "chatmux/base/header.h"

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
    X(COUNT_TOKENS, "token counts")                                                                \
    X(REALTIME, "realtime sessions")                                                               \
    X(PASS, "requests that are only passed on")
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

/* Which members count for which kind:
 *
 *   TEXT         text; signature (Gemini's proof of a text)
 *   REFUSAL      text
 *   IMAGE        url, or media_type and data; detail
 *   AUDIO        media_type ("wav", "mp3", or a whole media type) and data
 *   FILE         id, or url, or media_type and data; name, context. Documents that are given as
 *                plain text are TEXT
 *   REASONING    text, id (of a Responses item), signature; redacted: data instead of text
 *   TOOL_CALL    id, name, text = arguments as JSON text, signature
 *   TOOL_RESULT  id, name (when the dialect tells it), text = all its text together; parts when it
 *                has more than text; failed
 *
 * What is opaque (signature, data of redacted reasoning) belongs to the platform whose dialect the
 * client speaks; no other platform understands it. */
struct cm_part {
    enum cm_part_kind kind;
    struct cm_str text;
    struct cm_str id;
    struct cm_str name;
    struct cm_str url;        /* http(s), or empty when `data` is given */
    struct cm_str media_type; /* "image/png" */
    struct cm_str data;       /* base64 without the data: prefix */
    struct cm_str detail;     /* IMAGE: low, high, auto or empty */
    struct cm_str signature;  /* opaque; "" = none */
    struct cm_str context;    /* FILE: what the client says about it besides its name */
    struct cm_str cache;      /* a cache breakpoint stands behind this part: its life time, "5m" or
                               * "1h"; "" = none */
    struct cm_part *parts;    /* TOOL_RESULT: its text, image and file parts in order; NULL when
                               * it is only text */
    size_t n_parts;
    bool failed;   /* TOOL_RESULT: the tool reports an error */
    bool redacted; /* REASONING: the platform gave it sealed */
};

struct cm_msg {
    enum cm_role role;
    struct cm_str name;
    struct cm_part *parts;
    size_t n_parts;
};

/* A function that the client offers. Tools that a platform runs itself (web search, code execution)
 * are not here: they are untranslatable, or dropped where the answer works without. What the client
 * excluded from the choice (allowed_tools) is left out. */
struct cm_tool {
    struct cm_str name, description;
    struct cm_str parameters; /* JSON text of the schema; empty = none */
    int strict;               /* the schema is enforced: 1, 0, -1 = not said */
    struct cm_str cache;      /* as in cm_part */
};

enum cm_tool_choice {
    CM_TOOLS_UNSET,
    CM_TOOLS_AUTO,
    CM_TOOLS_NONE,
    CM_TOOLS_REQUIRED,
    CM_TOOLS_NAMED
};
enum cm_format { CM_FORMAT_TEXT, CM_FORMAT_JSON, CM_FORMAT_SCHEMA };

/* Pictures or a video to be made. How many is cm_chat.n. "" = not said. Pictures that came as files
 * have their bytes in `text` until cm_chat_load_media(). */
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

/* Where the model stands in a body that is a form, so that it can be replaced. */
struct cm_form_place {
    struct cm_str boundary; /* "" = the body is no form */
    struct cm_str model;    /* slice of raw; p NULL = the client left the field out */
    size_t begins;          /* offset of the first seam */
};

/* Whether to think before answering. How much: thinking_budget, else reasoning_effort. */
enum cm_thinking {
    CM_THINKING_UNSET,
    CM_THINKING_OFF,
    CM_THINKING_ON,      /* as the budget says, if there is one */
    CM_THINKING_ADAPTIVE /* the model decides */
};

/* OPENAI_RESPONSES: what only that dialect says, and what the gateway knows for it. */
struct cm_response_turn {   /* JSON text */
    struct cm_str input;    /* as the client wrote it: a text, or an array of items */
    struct cm_str response; /* the response object that answered it */
};
struct cm_response_ask {
    /* From the gateway before the body is read: the turns up to previous_id, the oldest first.
     * None with a previous_id: the response is an upstream's own. */
    const struct cm_response_turn *turns;
    size_t n_turns;
    struct cm_str previous_id; /* "" = a conversation begins */
    struct cm_str echo;        /* members of the response object that repeat what was asked, with a
                                * comma behind each */
    struct cm_str sealed;      /* id of the first item of reasoning that is encrypted: only the
                                * account that made it can read it; "" = none */
    bool store;                /* the client wants it kept, and may have it kept */
    bool background;
};

/* What an answer may consist of; 0 = not said. */
#define CM_MODALITY_TEXT 1u
#define CM_MODALITY_IMAGE 2u
#define CM_MODALITY_AUDIO 4u

struct cm_unread;
struct cm_chat {
    /* From the gateway, before a surface reads the body; cm_chat_begin() leaves them alone. */
    struct cm_arena *arena; /* the exchange's; not owned */
    struct cm_str method;   /* "POST" */
    struct cm_str path;     /* what the route's * matched, decoded; PASS: all of it, from a slash */
    struct cm_str content_type; /* of the body, as the client wrote it: a form's boundary */
    struct cm_str query;        /* of the URL, as it came, but without keys */
    struct cm_header *headers;  /* of the client, but for those of the connection and its key: the
                                * relay lane passes on those of its dialect */
    size_t n_headers;
    struct cm_response_ask *response; /* OPENAI_RESPONSES: in the arena; NULL otherwise */

    enum cm_dialect dialect; /* in which the client spoke */
    enum cm_chat_task task;
    struct cm_str raw;   /* the client's body as it came */
    struct cm_str model; /* as the client wrote it */

    struct cm_msg *msgs; /* system texts that stand outside of the conversation come first */
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
    int64_t top_k;
    double temperature, top_p, presence_penalty, frequency_penalty; /* NAN = not said */
    struct cm_str *stop;
    size_t n_stop;
    bool logprobs;
    int64_t top_logprobs;     /* with logprobs: how many alternatives; -1 = not said */
    struct cm_str logit_bias; /* JSON text; "" = none */

    enum cm_thinking thinking;
    int64_t thinking_budget; /* tokens */
    int show_thinking;       /* the client wants to read it: 1, 0, -1 = not said */
    struct cm_str
        reasoning_effort;    /* none, minimal, low, medium, high, xhigh, max; "" = not said */
    struct cm_str verbosity; /* low, medium, high; "" = not said */

    unsigned modalities; /* CM_MODALITY_… */
    enum cm_format format;
    struct cm_str schema_name, schema; /* CM_FORMAT_SCHEMA: name, JSON text */
    struct cm_str schema_description;
    int schema_strict; /* 1, 0, -1 = not said */

    struct cm_str user;         /* the client's name for its own user */
    struct cm_str metadata;     /* JSON text of an object; "" = none */
    struct cm_str service_tier; /* in the dialect's words; "" = not said */
    struct cm_str cache_key;    /* prompt_cache_key; "" = none */
    struct cm_str cache;        /* cache what can be cached, for so long ("5m"); "" = not said */

    bool stream, include_usage;
    bool translate;            /* `raw` does not say what is meant: no provider may relay it */
    struct cm_media media;     /* the tasks that make media */
    struct cm_form_place form; /* IMAGE_EDIT, IMAGE_VARIATION, TRANSCRIPTION, TRANSLATION */
    struct cm_str *inputs;     /* EMBEDDING, MODERATION, SPEECH: the texts, where they are texts */
    size_t n_inputs;
    int64_t input_tokens; /* those that came as numbers instead */
    int64_t dimensions;   /* EMBEDDING: of a vector; -1 = not said */
    bool base64;          /* EMBEDDING: vectors as bytes in base64 instead of numbers */
    struct cm_str echo;   /* COMPLETION: what goes in front of each answer */
    bool bytes; /* SPEECH, PASS: the answer is bytes in pieces; nothing of ours may stand among
                           * them */

    /* The first thing asked for that this struct cannot express (a custom tool, spoken answers …).
     * The relay lane carries it; a provider that is translated for must not guess: it answers with
     * this error. CM_ERR_NONE = everything was understood. */
    struct cm_err untranslatable;
    /* Members that this struct cannot express and without which the answer means the same: told to
     * the client in x-chatmux-dropped, refused where `strict` is set. Not those that the relay lane
     * carries. */
    struct cm_str *dropped;
    size_t n_dropped;
    struct cm_unread *unread; /* in the arena; NULL = there is nothing to look through */
};

/* What a surface has not looked through yet for members that nobody reads. */
struct cm_unread {
    void (*find)(struct cm_chat *chat, const struct cm_unread *unread); /* adds to `dropped` */
};
/* Before cm_instance_drops(), where the answer is not relayed: `dropped` is complete from now on. */
void cm_chat_find_unread(struct cm_chat *chat);

/* A copy in the arena with other parameters: "temperature=0.2 max_tokens=500 weight=3", of which weight is not meant. What the
 * relay lane carries says so, too; where the dialect has no such member, the copy is to be translated. */
struct cm_chat *cm_chat_override(struct cm_arena *arena, const struct cm_chat *chat,
                                 struct cm_str overrides);

/* For surfaces: nothing was said yet. What the gateway filled in stays. */
void cm_chat_begin(struct cm_chat *chat, enum cm_dialect dialect, enum cm_chat_task task,
                   struct cm_str raw);
/* Before a provider is translated for: pictures that came as files get their data. */
void cm_chat_load_media(struct cm_chat *chat);
/* Adds to `dropped`, once; at most CM_DROPPED_MAX. `field` must live as long as the chat. */
void cm_chat_drop(struct cm_chat *chat, struct cm_str field);
#define CM_DROPPED_MAX 32

/* Members that not every platform has a place for, and without which an answer means nearly the
 * same: bit, name in this model (cm_chat_spelling() has that of the client). */
#define CM_CHAT_FIELDS(X)                                                                          \
    X(TEMPERATURE, "temperature")                                                                  \
    X(TOP_P, "top_p")                                                                              \
    X(TOP_K, "top_k")                                                                              \
    X(PRESENCE_PENALTY, "presence_penalty")                                                        \
    X(FREQUENCY_PENALTY, "frequency_penalty")                                                      \
    X(SEED, "seed")                                                                                \
    X(MAX_TOKENS, "max_tokens")                                                                    \
    X(STOP, "stop")                                                                                \
    X(LOGPROBS, "logprobs")                                                                        \
    X(LOGIT_BIAS, "logit_bias")                                                                    \
    X(EFFORT, "reasoning_effort") /* and thinking with its budget */                               \
    X(VERBOSITY, "verbosity")                                                                      \
    X(PARALLEL, "parallel_tool_calls")                                                             \
    X(FORMAT, "response_format")                                                                   \
    X(USER, "user")                                                                                \
    X(METADATA, "metadata")                                                                        \
    X(SERVICE_TIER, "service_tier")                                                                \
    X(CACHE, "cache_control") /* breakpoints, too */                                               \
    X(CACHE_KEY, "prompt_cache_key")                                                               \
    X(NAME, "messages.name") /* of somebody who speaks */                                          \
    X(DETAIL, "detail")      /* of pictures */                                                     \
    X(CONTEXT, "context")    /* of documents */                                                    \
    X(FILE_NAME, "filename") /* their titles, too */                                               \
    X(STRICT, "strict")      /* of tools */
enum cm_chat_field_number {
#define X(name, text) CM_FIELD_NUMBER_##name,
    CM_CHAT_FIELDS(X)
#undef X
        CM_FIELDS_N
};
enum cm_chat_field {
#define X(name, text) CM_FIELD_##name = 1 << CM_FIELD_NUMBER_##name,
    CM_CHAT_FIELDS(X)
#undef X
};
/* Those that the client said, as bits. */
unsigned cm_chat_fields(const struct cm_chat *chat);
/* Of one bit's number: "top_k". */
struct cm_str cm_chat_field_name(unsigned number);

/* What the client calls a member of this model ("max_tokens": "generationConfig.maxOutputTokens"), or that in which a place is ("messages[2].content":
 * "contents"). What its dialect spells no other way stays as it is, and so does what is in the client's words already. */
struct cm_str cm_chat_spelling(const struct cm_chat *chat, struct cm_str field);
/* The same for an error's `param`, and for its sentence where that quotes it. */
void cm_chat_respell(const struct cm_chat *chat, struct cm_err *err);

/* How much thinking is wanted in the words of reasoning_effort, whichever way the client said it
 * (protocol notes of Anthropic, section 7): a budget up to 2048 tokens is low, up to 8192 medium.
 * "none" = off; "" = not said. */
struct cm_str cm_chat_effort(const struct cm_chat *chat);
/* The same in tokens: 0 = off, -1 = not said; a client's own budget as it is. */
int64_t cm_chat_thinking_budget(const struct cm_chat *chat);
/* The call of an earlier message that this result answers; NULL when there is none. */
const struct cm_part *cm_chat_call_of(const struct cm_chat *chat, struct cm_str id);

/* Ids of tool calls for platforms that take only letters, digits, '_' and '-', at most `max` (64 or more) of them: as it is where it fits, else
 * spelled so that cm_tool_id_plain() gives it back, or, when that is too long, a digest. The same id always gives the same. */
struct cm_str cm_tool_id_safe(struct cm_arena *arena, struct cm_str id, size_t max);
/* The id that was spelled so; any other as it is. */
struct cm_str cm_tool_id_plain(struct cm_arena *arena, struct cm_str id);

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
