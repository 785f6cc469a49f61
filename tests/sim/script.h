/* What platforms say in each dialect: good answers, and everything that can be wrong with one. */
#ifndef CHATMUX_SIM_SCRIPT_H
#define CHATMUX_SIM_SCRIPT_H

#include "chatmux/base/buf.h"

/* RESPONSES is spoken by clients only; ARRAY: a stream that is one JSON array. */
enum dialect { CHAT, TEXT, RESPONSES, MESSAGES, GEMINI, GEMINI_ARRAY };
#define DIALECTS (GEMINI_ARRAY + 1)

#define FAULTS(X)                                                                                  \
    X(LIMITED)      /* 429 with a time */                                                          \
    X(LIMITED_MUTE) /* 429 without */                                                              \
    X(DOWN)         /* 500, 502, 503 */                                                            \
    X(HTML)         /* 200 with a page */                                                          \
    X(NOTHING)      /* no answer, the connection is gone */                                        \
    X(CUT_HEAD)     /* gone behind the head */                                                     \
    X(CUT)          /* gone in the middle */                                                       \
    X(NO_END)       /* ends well, without the end mark */                                          \
    X(HANG)         /* silence from the beginning */                                               \
    X(HANG_MIDDLE)  /* silence in the middle */                                                    \
    X(ERROR_FIRST)  /* 200, and the first event is an error */                                     \
    X(ERROR_MIDDLE) /* an error in the middle */                                                   \
    X(EMPTY)        /* 200, and nothing in it */                                                   \
    X(GARBAGE)      /* 200, and bytes that are no events */                                        \
    X(TOO_LONG)     /* 400, the prompt is too long */                                              \
    X(REFUSED)      /* 401: the account is dead */
enum fault {
    NONE,
#define X(name) name,
    FAULTS(X)
#undef X
        FAULTS_N
};

enum ending { ENDS, BREAKS, SILENT };

struct script {
    int status; /* 0 = not even a head */
    const char *content_type;
    unsigned limited_s;   /* LIMITED: as told */
    char retry_after[16]; /* the header; "" = none, or told in the body */
    struct cm_buf body;
    enum ending ending;
};

/* Fills a zeroed one: question `q` is answered in attempt `attempt` with "B:q:attempt:n w0 w1 … ", so that a reader knows whether it is whole and of one
 * attempt. */
void script_write(struct script *s, enum dialect dialect, bool streamed, enum fault fault,
                  uint64_t q, uint64_t attempt, unsigned n);

#endif
