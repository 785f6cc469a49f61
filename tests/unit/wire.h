/* The three dialects that are spoken in both directions, on one loop: a chat as the body that an adapter would send, a body as the chat that a surface reads,
 * an answer's bytes as the events that an adapter would tell. Cheap enough for thousands of rounds in one test. */
#ifndef CHATMUX_TEST_WIRE_H
#define CHATMUX_TEST_WIRE_H

#include "chatmux/chat/event.h"
#include "chatmux/surface/surface.h"

#define WIRE_DIALECTS(X) X(openai) X(anthropic) X(gemini)
enum wire_dialect {
#define X(name) WIRE_##name,
    WIRE_DIALECTS(X)
#undef X
        WIRE_N
};
extern const char *const wire_names[WIRE_N];
extern const struct cm_surface *const wire_surfaces[WIRE_N];

struct wire;
struct wire *wire_new(void);
void wire_free(struct wire *w);

/* The body that the adapter of that dialect sends for the chat, in the arena. p NULL: it refuses, *err tells why. */
struct cm_str wire_write(struct wire *w, enum wire_dialect d, const struct cm_chat *chat,
                         struct cm_arena *arena, struct cm_err *err);
/* NULL: the surface of that dialect refuses. The body must live as long as the arena. */
struct cm_chat *wire_parse(enum wire_dialect d, struct cm_str body, bool stream,
                           struct cm_arena *arena, struct cm_err *err);
/* How an upstream answers. */
struct wire_answer {
    int status; /* 0 = 200 */
    bool stream;
    struct cm_str bytes; /* of its body, in pieces of `piece` */
    size_t piece;
};
typedef void wire_event_fn(void *arg, const struct cm_event *ev);
/* What the adapter tells of it. `relay`: in the lane of its own dialect, which must be the chat's. -1: it fails. */
int wire_play(struct wire *w, enum wire_dialect d, const struct cm_chat *chat, bool relay,
              const struct wire_answer *answer, wire_event_fn *fn, void *arg, struct cm_err *err);
/* The same, translated and collected. */
int wire_read(struct wire *w, enum wire_dialect d, const struct cm_chat *chat, struct cm_str bytes,
              bool stream, size_t piece, struct cm_answer *out, struct cm_err *err);
/* The list of models, when this is the answer: how many there are; -1: it fails. */
int wire_models(struct wire *w, enum wire_dialect d, const struct wire_answer *answer,
                struct cm_err *err);

#endif
