/* What an answer must be: legal in its dialect, of one attempt, in order, and whole or with an error at its end. */
#ifndef CHATMUX_SIM_READING_H
#define CHATMUX_SIM_READING_H

#include "script.h"

struct answer { /* as a client got it */
    uint64_t q;
    enum dialect dialect;
    bool left, aborted; /* the client has left; the connection broke off */
    int status;
    struct cm_str bytes;
};
struct verdict {
    bool whole, error;
};
/* Fail the simulation when it is not. */
struct verdict read_stream(const struct answer *a);
struct verdict read_whole(const struct answer *a);

#endif
