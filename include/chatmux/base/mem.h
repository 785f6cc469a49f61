/* Allocation that never returns NULL, and assertions that stay on in release builds. Any thread. */
#ifndef CHATMUX_BASE_MEM_H
#define CHATMUX_BASE_MEM_H

#include <stddef.h>

/* Sizes chosen by a peer are checked before they come here: running out of memory ends the
 * process. */
void *cm_alloc(size_t n);                /* uninitialised */
void *cm_calloc(size_t count, size_t n); /* zeroed; an overflowing product ends the process */
void *cm_realloc(void *p, size_t n);
char *cm_strdup(const char *z);

#define CM_NEW(type) ((type *)cm_calloc(1, sizeof(type)))

/* What is free goes back to the system, as far as it is whole pages. Costs about a millisecond. */
void cm_mem_trim(void);

/* Overwrites secrets in a way the compiler keeps. */
void cm_wipe(void *p, size_t n);

/* States what only our own bug can break; no outside input ever reaches it. */
#define CM_ASSERT(cond)                                                                            \
    do {                                                                                           \
        if (!(cond))                                                                               \
            cm_assert_failed(#cond, __FILE__, __LINE__);                                           \
    } while (0)
_Noreturn void cm_assert_failed(const char *cond, const char *file, int line);

#define CM_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define CM_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
