/* alexsidebar, inside: its answer, from bytes to text (pure), and its access tokens. */
#ifndef CHATMUX_PROVIDER_ALEXSIDEBAR_INT_H
#define CHATMUX_PROVIDER_ALEXSIDEBAR_INT_H

#include "chatmux/base/buf.h"
#include "chatmux/base/err.h"
#include "chatmux/codec/json.h"
#include "chatmux/provider/run.h"

/* Whole JSON objects out of a stream of them, wherever it is cut and whatever stands between two (protocol notes, section 4). No byte is looked at
 * twice. Zeroed memory is a scan that has seen nothing. */
struct alex_scan {
    struct cm_buf object; /* the one that has begun */
    size_t depth;         /* of braces; 0 = between two objects */
    bool in_string, escaped;
};
#define ALEX_OBJECT_MAX (8u * 1024 * 1024)

typedef int alex_object_fn(void *arg, struct cm_str object, struct cm_err *err);
/* -1: an object above ALEX_OBJECT_MAX (CM_ERR_UPSTREAM_DOWN), or what fn returned. */
int alex_scan_feed(struct alex_scan *s, struct cm_str piece, alex_object_fn *fn, void *arg,
                   struct cm_err *err);
void alex_scan_clear(struct alex_scan *s);

/* What is new in each snapshot of an answer (protocol notes, section 4 "Deltas"). */
enum alex_kind { ALEX_NONE, ALEX_THINKING, ALEX_TEXT, ALEX_CODE };
struct alex_sections { /* zeroed memory: nothing was said */
    size_t index;      /* of the section in work */
    enum alex_kind kind;
    struct cm_buf text;  /* of it, as far as it was said */
    enum alex_kind said; /* what the answer's text ends with: TEXT, CODE, or NONE */
    bool gap;            /* a new section of it: what separates it from `said` comes first */
};
/* `reasoning`: text is thinking. Never empty. */
typedef void alex_say_fn(void *arg, bool reasoning, struct cm_str text);
void alex_sections_walk(struct alex_sections *s, yyjson_val *list, alex_say_fn *say, void *arg);
void alex_sections_clear(struct alex_sections *s);

/* What the refresh flow keeps as the token: {"access":…,"refresh":…,"user":…,"made":…}. `refresh` is the platform's latest, which replaces the one that the
 * operator gave. Slices live in the run's arena. */
struct alex_token {
    struct cm_str access, refresh, user;
    int64_t made_s; /* Unix; 0 = not known */
};
struct alex_token alex_token_of(struct cm_run *run);
enum cm_step alex_refresh_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err);
struct cm_str alex_option(const struct cm_run *run, const char *name);

#endif
