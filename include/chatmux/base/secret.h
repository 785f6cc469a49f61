/* Memory for secrets: pages that no core dump holds, wiped when they are given back. Any thread.
 *
 * For what lives long (credentials, keys, the configuration) and for what is made of it on the way to a platform (headers, all of libcurl's memory). Under
 * AddressSanitizer it is the heap, wiped as well, so that its checks see it. */
#ifndef CHATMUX_BASE_SECRET_H
#define CHATMUX_BASE_SECRET_H

#include "chatmux/base/arena.h"
#include "chatmux/base/str.h"

/* Zeroed, aligned for any type; never NULL. */
void *cm_secret_alloc(size_t n);
void cm_secret_free(void *p);         /* NULL is fine */
size_t cm_secret_size(const void *p); /* as it was asked for */

/* The memory of blocks that nobody has needed since the last call goes back to the system; a burst would otherwise be held for good. */
void cm_secret_trim(void);

/* A copy, with a NUL behind it. */
struct cm_str cm_secret_dup(struct cm_str s);
static inline void cm_secret_drop(struct cm_str s) /* of cm_secret_dup(), or CM_STR_NONE */
{
    cm_secret_free((void *)(uintptr_t)s.p);
}

/* A copy that goes, wiped, with the arena. */
struct cm_str cm_secret_in(struct cm_arena *arena, struct cm_str s);

/* The variables of the environment, which may hold secrets too, go into no core dump either. */
void cm_secret_hide_environment(void);
/* This process writes no core at all, not even to a program that the kernel would pipe it to. */
void cm_secret_forbid_cores(void);

#endif
