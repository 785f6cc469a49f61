/* The canonical answer: a sequence of events from an adapter to a surface. Loop thread only. Slices
 * are valid until the receiver returns. */
#ifndef CHATMUX_CHAT_EVENT_H
#define CHATMUX_CHAT_EVENT_H

#include "chatmux/base/buf.h"
#include "chatmux/base/header.h"
#include "chatmux/chat/request.h"

/* name, OpenAI's word */
#define CM_FINISHES(X)                                                                             \
    X(NONE, "")                                                                                    \
    X(STOP, "stop")                                                                                \
    X(STOP_SEQUENCE, "stop") /* one of the request's own; FINISH.text = which, where it is told */ \
    X(PAUSE, "stop")         /* the platform wants to be asked to go on */                         \
    X(LENGTH, "length")                                                                            \
    X(CONTEXT, "length") /* no room is left in the model's context */                              \
    X(TOOL_CALLS, "tool_calls")                                                                    \
    X(CONTENT_FILTER, "content_filter") /* the platform stopped it */                              \
    X(REFUSAL, "content_filter")        /* the model refused; FINISH.text = why, where it is told */
enum cm_finish {
#define X(name, text) CM_FINISH_##name,
    CM_FINISHES(X)
#undef X
};
const char *cm_finish_name(enum cm_finish f); /* OpenAI's word */

enum cm_usage_source { CM_USAGE_NONE, CM_USAGE_UPSTREAM, CM_USAGE_ESTIMATED, CM_USAGE_PARTIAL };

/* Disjoint buckets: input = uncached + cache_read + cache_write, output = text + reasoning. Never
 * negative; 0 = none or not told. */
struct cm_usage {
    enum cm_usage_source source;
    int64_t in_uncached, in_cache_read, in_cache_write;
    int64_t out_text, out_reasoning;
    int64_t images; /* made; told by what is relayed only: IMAGE events count themselves */
    int64_t in_audio, out_audio; /* sound among them, of whatever bucket */
    int64_t in_audio_cached;     /* of in_audio, what is in in_cache_read; 0 also when not told */
    char service_tier[16]; /* that it was served with, in the platform's word; "" = not told */
};
static inline int64_t cm_usage_in(const struct cm_usage *u)
{
    return u->in_uncached + u->in_cache_read + u->in_cache_write;
}
static inline int64_t cm_usage_out(const struct cm_usage *u)
{
    return u->out_text + u->out_reasoning;
}

/* Limits of the account at the platform, as its answer told them; -1 = not told. */
struct cm_limit {
    int64_t limit, remaining, reset_unix_ms;
};
struct cm_limits {
    struct cm_limit requests, tokens;
};

#define CM_EVENT_KINDS(X)                                                                                                                   \
    X(TEXT)      /* text; logprobs of its tokens where they were asked for */                                                               \
    X(REASONING) /* text */                                                                                                                 \
    X(SIGNATURE) /* text = opaque proof of the reasoning before it: that block is over */                                                   \
    X(REDACTED)  /* text = a block of reasoning that the platform gives sealed */                                                           \
    X(REFUSAL)   /* text */                                                                                                                 \
    X(TOOL_CALL) /* index, id, name: a call begins; pieces of its arguments follow */                                                       \
    X(TOOL_ARGS) /* index, text */                                                                                                          \
    X(IMAGE) /* a picture, or a video (media_type "video/…"): url (http or data:), or base64   \
                    data and media_type; text = alternative text; name = the prompt, if rewritten */                                          \
    X(CITATION)  /* url, name = title, text = what is cited; from, to */                                                                    \
    X(EMBEDDING) /* index = of the input; data = float32 numbers as bytes, little-endian */                                                 \
    X(USAGE)     /* usage, running totals: the last one counts */                                                                           \
    X(SERVED) /* name = the model that answers, in the platform's words, where it is another than was asked for */                          \
    X(CONVERSATION) /* id = what a client may hand back to go on in the platform's own conversation; before FINISH */                       \
    X(FINISH) /* finish: one choice has ended; text: see there. Of a session: it was closed with the code `status` and the reason `text` */ \
    X(HEAD) /* relay lane: status, headers of the upstream's answer, before any RELAY; media_type \
               = what the client is told, "" = what its dialect says. Elsewhere: only limits, where they came */                                         \
    X(RELAY) /* relay lane: text = bytes in the client's own dialect, ready to be sent; id = of the response that an upstream makes, where it keeps responses, name = of encrypted reasoning in it. Of a session: one message; `semantic` as long as an answer is under way */
enum cm_event_kind {
#define X(name) CM_EVENT_##name,
    CM_EVENT_KINDS(X)
#undef X
};
const char *cm_event_name(enum cm_event_kind kind);

struct cm_event {
    enum cm_event_kind kind;
    int choice; /* 0 … n-1 */
    int index;  /* ordinal of the tool call in its message, from 0 without gaps */
    struct cm_str text, id, name, url, data, media_type;
    struct cm_str logprobs; /* TEXT: JSON array of OpenAI's entries; "" = none */
    int64_t from, to; /* CITATION: the characters of the choice's text that rest on it; both 0 =
                             * not told */
    enum cm_finish finish;
    bool semantic; /* RELAY: holds text, a tool call …, not only roles, pings and comments */
    bool binary;   /* RELAY of a session: no text */
    const struct cm_usage *usage;
    int status; /* HEAD; FINISH of a session. RELAY: 0, or the status of an error whose body `text` is: what a client is told that asked for
                 * something wrong */
    const struct cm_header *headers;
    size_t n_headers;
    const struct cm_limits *limits; /* HEAD; NULL = none, or in the headers */
};

/* Text, reasoning, refusal, tool call, image, citation: what ends the holding back (design,
 * section 2). */
bool cm_event_semantic(const struct cm_event *ev);

/* With everything it points to. */
struct cm_event cm_event_copy(struct cm_arena *arena, const struct cm_event *ev);

/* An IMAGE event as "![alternative text](url)", a video as a link, for dialects whose answers are
 * text. */
void cm_event_put_markdown(const struct cm_event *image, struct cm_buf *out);

/* An answer collected for clients that did not ask for a stream. */
struct cm_call_acc {
    struct cm_str id, name;
    struct cm_buf args;
};
struct cm_citation {
    struct cm_str url, title, cited;
    int64_t from, to;
};
struct cm_image_acc {
    struct cm_str url, data, media_type, prompt; /* as in IMAGE; a data: URL is taken apart */
};
struct cm_choice_acc {
    struct cm_buf text, reasoning, refusal;
    struct cm_buf logprobs; /* entries with commas between, without brackets */
    struct cm_call_acc *calls;
    size_t n_calls, cap_calls;
    struct cm_citation *citations;
    size_t n_citations, cap_citations;
    enum cm_finish finish;
    struct cm_str finish_text; /* FINISH.text; owned */
};
struct cm_answer {
    struct cm_choice_acc *choices;
    size_t n_choices;
    struct cm_image_acc *images; /* of all choices, in their order; empty unless keep_images */
    size_t n_images, cap_images;
    struct cm_buf *vectors; /* EMBEDDING: one for each input, bytes as in the event */
    size_t n_vectors;
    struct cm_str served, conversation; /* as in the events; owned */
    bool keep_images; /* they stay what they are; else Markdown in the text. Set before the first */
    struct cm_usage usage;
    size_t bytes; /* held so far */
};
#define CM_ANSWER_MAX (64 * 1024 * 1024)
/* Zeroed memory is an empty answer. -1: more than CM_ANSWER_MAX bytes, or a choice or call numbered
 * out of bounds (CM_ERR_UPSTREAM_DOWN). HEAD and RELAY are not for it; signatures and sealed reasoning
 * are left out. */
int cm_answer_add(struct cm_answer *a, const struct cm_event *ev, struct cm_err *err);
/* One vector for each of n inputs, none of them empty. */
bool cm_answer_has_vectors(const struct cm_answer *a, size_t n);
void cm_answer_clear(struct cm_answer *a); /* empty again; keep_images stays */

/* An IMAGE event as url, or as data and media_type: a data: URL is taken apart. Borrowed slices. */
void cm_event_image(const struct cm_event *ev, struct cm_image_acc *out);

#endif
