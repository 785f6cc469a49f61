/* libcurl's memory: it holds headers, URLs and passwords, so it comes from base/secret, with one exception.
 *
 * To send a body libcurl takes a zeroed buffer of 16 KiB per transfer, fills what a small request needs and keeps the rest until the transfer is over. From
 * the heap it would be 16 KiB of resident memory per held stream, mostly zeros. Here such a buffer gets a place of whole pages which the kernel fills in
 * when they are written to, and which go back to it when the buffer is freed. */
#include "httpc_int.h"

#include "chatmux/base/secret.h"
#include <stdlib.h>
#include <sys/mman.h>

#define SLOT_MIN (16 * 1024 + 1) /* without the receive buffers of 16 KiB sharp, which are filled */
#define SLOT_BYTES (20 * 1024)   /* whole pages of 4 KiB */
#define SLOTS 65536    /* more than descriptors can serve: 1.25 GiB of addresses, no memory */
#define SLOTS_STEP 256 /* made usable at a time */

static struct {
    char *base;     /* reserved addresses; NULL = not available, the heap does it all */
    uint32_t *free; /* owned; numbers of slots that are free and zero */
    size_t n_free, n_usable;
} slots;

static bool in_slot(const void *p)
{
    return slots.base && (const char *)p >= slots.base &&
           (const char *)p < slots.base + (size_t)SLOTS * SLOT_BYTES;
}

static bool slots_grow(void)
{
    char *at = slots.base + slots.n_usable * SLOT_BYTES;

    if (slots.n_usable + SLOTS_STEP > SLOTS ||
        mprotect(at, (size_t)SLOTS_STEP * SLOT_BYTES, PROT_READ | PROT_WRITE) != 0)
        return false;
    slots.free = cm_realloc(slots.free, (slots.n_usable + SLOTS_STEP) * sizeof(*slots.free));
    for (size_t i = SLOTS_STEP; i > 0; i--)
        slots.free[slots.n_free++] = (uint32_t)(slots.n_usable + i - 1);
    slots.n_usable += SLOTS_STEP;
    return true;
}

static void *slot_get(size_t n)
{
    if (n < SLOT_MIN || n > SLOT_BYTES || !slots.base || (slots.n_free == 0 && !slots_grow()))
        return NULL;
    return slots.base + (size_t)slots.free[--slots.n_free] * SLOT_BYTES;
}

static void *mem_alloc(size_t n)
{
    void *p = slot_get(n);

    return p ? p : cm_secret_alloc(n);
}

static void *mem_calloc(size_t count, size_t n)
{
    size_t bytes;

    return __builtin_mul_overflow(count, n, &bytes) ? NULL : mem_alloc(bytes); /* both are zeroed */
}

static void mem_free(void *p)
{
    if (!in_slot(p)) {
        cm_secret_free(p);
        return;
    }
    if (madvise(p, SLOT_BYTES, MADV_DONTNEED) != 0)
        memset(p, 0, SLOT_BYTES); /* UNTESTED: only for locked memory */
    slots.free[slots.n_free++] = (uint32_t)((size_t)((char *)p - slots.base) / SLOT_BYTES);
}

static void *mem_realloc(void *p, size_t n)
{
    size_t had = p ? in_slot(p) ? SLOT_BYTES : cm_secret_size(p) : 0;
    void *q = mem_alloc(n);

    if (p)
        memcpy(q, p, n < had ? n : had);
    mem_free(p);
    return q;
}

static char *mem_strdup(const char *z)
{
    size_t n = strlen(z) + 1;

    return memcpy(mem_alloc(n), z, n);
}

/* Counted by libcurl, which takes the functions of the first call. Loop thread: no other uses libcurl. */
void hc_curl_init(void)
{
    void *base;

    if (!slots.base) {
        base = mmap(NULL, (size_t)SLOTS * SLOT_BYTES, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        slots.base = base == MAP_FAILED ? NULL : base;
        if (slots.base)
            (void)madvise(slots.base, (size_t)SLOTS * SLOT_BYTES, MADV_DONTDUMP);
    }
    CM_ASSERT(curl_global_init_mem(CURL_GLOBAL_DEFAULT, mem_alloc, mem_free, mem_realloc,
                                   mem_strdup, mem_calloc) == CURLE_OK);
}
