/* Allocation that ends the process instead of returning NULL, and failed assertions. */
#include "chatmux/base/mem.h"

#include "chatmux/base/log.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRIM_KEEPS ((size_t)256 << 10) /* at the top of the heap */

/* Needs no memory: there is none. */
_Noreturn static void die(const char *why)
{
    ssize_t written = write(STDERR_FILENO, why, strlen(why));

    (void)written; /* nobody is left to tell */
    abort();
}

void *cm_alloc(size_t n)
{
    void *p = malloc(n > 0 ? n : 1);

    if (!p)
        die("chatmux: out of memory\n");
    return p;
}

void *cm_calloc(size_t count, size_t n)
{
    void *p = calloc(count > 0 ? count : 1, n > 0 ? n : 1);

    if (!p)
        die("chatmux: out of memory\n");
    return p;
}

void *cm_realloc(void *p, size_t n)
{
    p = realloc(p, n > 0 ? n : 1);
    if (!p)
        die("chatmux: out of memory\n");
    return p;
}

char *cm_strdup(const char *z)
{
    size_t n = strlen(z) + 1;

    return memcpy(cm_alloc(n), z, n);
}

void cm_mem_trim(void)
{
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
    malloc_trim(TRIM_KEEPS);
#endif
}

void cm_wipe(void *p, size_t n)
{
    if (n > 0)
        explicit_bzero(p, n);
}

_Noreturn void cm_assert_failed(const char *cond, const char *file, int line)
{
    char text[512];

    cm_log_abandon(); /* what led here comes first */
    snprintf(text, sizeof(text), "chatmux: %s:%d: assertion failed: %s\n", file, line, cond);
    die(text);
}
