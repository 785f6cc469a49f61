/* INI text in, entries out (contract, section 2): sections, keys, list values on indented lines,
 * comments, ${VAR}. No I/O. Any thread. */
#ifndef CHATMUX_BASE_INI_H
#define CHATMUX_BASE_INI_H

#include "chatmux/base/arena.h"
#include "chatmux/base/err.h"

struct cm_strs {
    struct cm_str *v;
    size_t n;
};

/* Every section begins with an entry whose key is empty; its keys follow in their order. Lists are
 * split before variables are expanded: a comma that a variable brings splits nothing. */
struct cm_ini_entry {
    struct cm_str kind, name; /* "[provider openai]" -> "provider", "openai"; else name is "" */
    struct cm_str key;
    struct cm_str value;  /* its lines, trimmed, joined by LF; variables expanded */
    struct cm_strs items; /* the same as a list: each indented line is one item */
    int line;             /* where the key (or the section) stands */
};

/* A problem in the configuration, told as "where: text". */
struct cm_problem {
    struct cm_problem *next;
    struct cm_str where; /* "chatmux.ini:12", "environment CHATMUX_LOG_LEVEL", "--set log.level" */
    struct cm_str text;
};
#define CM_PROBLEMS_KEPT 1000
struct cm_problems {
    struct cm_problem *first, **last; /* in the order found; the first CM_PROBLEMS_KEPT of them */
    unsigned n;                       /* all of them */
    struct cm_arena *arena;           /* not owned; holds the texts */
};
void cm_problems_init(struct cm_problems *p, struct cm_arena *arena);
/* Both texts are copied; control characters in them become '?'. */
void cm_problem_add(struct cm_problems *p, struct cm_str where, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

typedef const char *cm_getenv_fn(void *arg, const char *name); /* NULL = not set */

/* Entries and their text live in the arena. Goes on after a problem, so that all are told at once;
 * a section or key that occurs twice is one, and its second occurrence yields nothing. No problem
 * tells a value: it may be a secret. `env` NULL = no variable is set. */
void cm_ini_parse(struct cm_arena *arena, const char *file, struct cm_str text, cm_getenv_fn *env,
                  void *env_arg, struct cm_ini_entry **out, size_t *n,
                  struct cm_problems *problems);

/* Overwrites every value, for what may hold secrets and is not needed any more. */
void cm_ini_wipe(struct cm_ini_entry *entries, size_t n);

/* A plain value as a list: lines, or on a single line comma separated items; "quoted" where an
 * item holds a comma (a quote inside is doubled). Items are trimmed unless quoted, and live in the
 * arena; empty ones are dropped. */
struct cm_strs cm_ini_list(struct cm_arena *arena, struct cm_str value);

#endif
