/* Whether a JSON text that comes in pieces is whole: arguments of calls. Loop thread only. */
#ifndef SURFACE_WHOLE_JSON_H
#define SURFACE_WHOLE_JSON_H

#include "chatmux/base/str.h"

/* Zeroed memory has seen nothing. */
struct cm_whole_json {
    bool in_string, escaped, any; /* any: a bracket was opened */
    int depth;
};
void cm_whole_json_feed(struct cm_whole_json *w, struct cm_str piece);
/* Everything that was opened is closed. */
bool cm_whole_json_is(const struct cm_whole_json *w);

#endif
