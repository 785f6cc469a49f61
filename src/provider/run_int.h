/* What run.c shares with the files beside it. */
#ifndef CHATMUX_RUN_INT_H
#define CHATMUX_RUN_INT_H

#include "chatmux/provider/run.h"

/* remember.c's part of a run. */
struct run_memory {
    struct cm_str owner;  /* digest of provider and secret; in the arena; "" = not made yet */
    struct cm_str client; /* the same of provider and client */
    struct cm_buf
        said; /* the answer's text without white space, once the flow asked for its thread */
    bool follows;
};

struct run_memory *run_memory(struct cm_run *run);
struct cm_memo *run_memo(const struct cm_run *run); /* NULL: nothing is remembered */
bool run_is_closed(const struct cm_run *run);
/* An event of the answer, while the flow follows its thread. */
void run_memory_heard(struct run_memory *m, const struct cm_event *ev);

#endif
