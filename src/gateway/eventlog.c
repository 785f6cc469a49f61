/* Logs of events: segments that are filled once and dropped whole. */
#include "eventlog.h"

#include "chatmux/base/mem.h"
#include <stdlib.h>
#include <string.h>

#define SEGMENT_FIRST                                                                              \
    1024u /* bytes of the first segment; each further one has twice as many, up to */
#define SEGMENT_MAX (16u * 1024)

/* Texts grow from the front, the places where each ends from the back. */
struct eventlog_segment {
    uint64_t first;      /* number of its first event */
    uint32_t n;          /* events */
    uint32_t used, size; /* bytes of texts; bytes of both */
    _Alignas(uint32_t) char bytes[];
};

static struct eventlog *log_at(struct cm_list *link)
{
    return CM_LIST_ITEM(link, struct eventlog, link);
}

static struct eventlog_reader *reader_at(struct cm_list *link)
{
    return CM_LIST_ITEM(link, struct eventlog_reader, link);
}

static uint32_t *end_of(struct eventlog_segment *s, uint32_t i)
{
    return (uint32_t *)(void *)(s->bytes + s->size) - 1 - i;
}

static struct cm_str event_at(struct eventlog_segment *s, uint32_t i)
{
    const uint32_t from = i > 0 ? *end_of(s, i - 1) : 0;

    return cm_str(s->bytes + from, *end_of(s, i) - from);
}

static bool fits(const struct eventlog_segment *s, size_t n)
{
    return n + sizeof(uint32_t) <= s->size - s->used - s->n * sizeof(uint32_t);
}

static size_t weight(const struct eventlog_segment *s)
{
    return sizeof(*s) + s->size;
}

/* Bytes of text of the segment that would be made for an event of n bytes. */
static size_t segment_size(const struct eventlog *log, size_t n)
{
    const size_t least = (n + sizeof(uint32_t) + 15) / 16 * 16;
    size_t size = SEGMENT_FIRST;

    if (log->n_segments > 0)
        size = 2 * (size_t)log->segments[log->n_segments - 1]->size;
    size = size < SEGMENT_MAX ? size : SEGMENT_MAX;
    return size > least ? size : least;
}

void eventlog_shelf_init(struct eventlog_shelf *shelf)
{
    *shelf = (struct eventlog_shelf){0};
    cm_list_init(&shelf->ended);
}

void eventlog_init(struct eventlog *log, struct eventlog_shelf *shelf, bool lossy)
{
    *log = (struct eventlog){.shelf = shelf, .lossy = lossy};
    cm_list_init(&log->readers);
    cm_list_init(&log->link);
}

/* ---- making room ---- */

static void drop_oldest(struct eventlog *log)
{
    struct eventlog_segment *s = log->segments[0];

    log->n_segments--;
    memmove(log->segments, log->segments + 1, log->n_segments * sizeof(struct eventlog_segment *));
    log->first = s->first + s->n;
    log->bytes -= weight(s);
    log->shelf->bytes -= weight(s);
    free(s);
    CM_LIST_EACH(&log->readers, it)
    {
        if (reader_at(it)->next < log->first)
            reader_at(it)->lost = true;
    }
}

static void give_up_oldest(struct eventlog *log)
{
    const uint64_t before = log->first;

    drop_oldest(log);
    log->shelf->evicted += log->first - before;
}

/* Whether somebody reads, and nobody waits for the oldest segment. */
static bool oldest_is_read(struct eventlog *log)
{
    const struct eventlog_segment *s = log->segments[0];
    bool read = false;

    CM_LIST_EACH(&log->readers, it)
    {
        if (reader_at(it)->lost)
            continue;
        if (reader_at(it)->next < s->first + s->n)
            return false;
        read = true;
    }
    return read;
}

static bool evict_ended(struct eventlog_shelf *shelf)
{
    CM_LIST_EACH(&shelf->ended, it)
    {
        struct eventlog *log = log_at(it);

        if (!cm_list_empty(&log->readers) || log->n_segments == 0)
            continue;
        while (log->n_segments > 0)
            give_up_oldest(log);
        return true;
    }
    return false;
}

static bool shrink(struct eventlog *log)
{
    if (log->n_segments == 0 || (!log->lossy && !oldest_is_read(log)))
        return false;
    give_up_oldest(log);
    return true;
}

void eventlog_trim(struct eventlog *log, size_t bytes)
{
    while (log->n_segments > 0 && log->bytes > bytes && oldest_is_read(log))
        give_up_oldest(log);
}

/* What the event would add; changes with what is dropped meanwhile. */
static size_t cost(const struct eventlog *log, size_t n)
{
    if (log->n_segments > 0 && fits(log->segments[log->n_segments - 1], n))
        return 0;
    return sizeof(struct eventlog_segment) + segment_size(log, n);
}

/* More than the bound may be taken already, by somebody's last words or since the bound was lowered. */
static bool is_within(size_t taken, size_t more, size_t bound)
{
    return more == 0 || taken + more <= bound;
}

static int make_room(struct eventlog *log, size_t n, size_t max_bytes)
{
    struct eventlog_shelf *shelf = log->shelf;

    if (n > max_bytes || n > UINT32_MAX / 4)
        return -1;
    while (!is_within(log->bytes, cost(log, n), max_bytes))
        if (!shrink(log))
            return -1;
    while (!is_within(shelf->bytes, cost(log, n), shelf->max_bytes))
        if (!evict_ended(shelf) && !shrink(log))
            return -1;
    return 0;
}

/* ---- writing and reading ---- */

static struct eventlog_segment *segment_new(struct eventlog *log, size_t n)
{
    const size_t size = segment_size(log, n);
    struct eventlog_segment *s = cm_alloc(sizeof(*s) + size);

    *s = (struct eventlog_segment){.first = log->next, .size = (uint32_t)size};
    if (log->n_segments == log->cap_segments) {
        log->cap_segments = log->cap_segments ? 2 * log->cap_segments : 4;
        log->segments = cm_realloc((void *)log->segments,
                                   log->cap_segments * sizeof(struct eventlog_segment *));
    }
    log->segments[log->n_segments++] = s;
    log->bytes += weight(s);
    log->shelf->bytes += weight(s);
    return s;
}

int eventlog_append(struct eventlog *log, struct cm_str event, size_t max_bytes)
{
    struct eventlog_segment *s;

    if (make_room(log, event.n, max_bytes) < 0)
        return -1;
    s = log->n_segments > 0 ? log->segments[log->n_segments - 1] : NULL;
    if (!s || !fits(s, event.n))
        s = segment_new(log, event.n);
    memcpy(s->bytes + s->used, event.p, event.n);
    s->used += (uint32_t)event.n;
    *end_of(s, s->n++) = s->used;
    log->next++;
    return 0;
}

void eventlog_end(struct eventlog *log)
{
    cm_list_remove(&log->link);
    cm_list_push(&log->shelf->ended, &log->link);
}

void eventlog_clear(struct eventlog *log)
{
    CM_ASSERT(cm_list_empty(&log->readers));
    while (log->n_segments > 0)
        drop_oldest(log);
    free((void *)log->segments), log->segments = NULL;
    log->cap_segments = 0;
    cm_list_remove(&log->link);
}

void eventlog_attach(struct eventlog *log, struct eventlog_reader *r, uint64_t from)
{
    CM_ASSERT(from >= log->first && from <= log->next);
    *r = (struct eventlog_reader){.log = log, .next = from};
    cm_list_init(&r->link);
    cm_list_push(&log->readers, &r->link);
}

static struct eventlog_segment *segment_with(const struct eventlog *log, uint64_t number)
{
    size_t low = 0, high = log->n_segments - 1;

    while (low < high) {
        const size_t middle = (low + high + 1) / 2;

        if (log->segments[middle]->first <= number)
            low = middle;
        else
            high = middle - 1;
    }
    return log->segments[low];
}

bool eventlog_take(struct eventlog_reader *r, struct cm_str *event)
{
    struct eventlog_segment *s;

    if (!r->log || r->lost || r->next == r->log->next)
        return false;
    s = segment_with(r->log, r->next);
    *event = event_at(s, (uint32_t)(r->next - s->first));
    r->next++;
    return true;
}

void eventlog_detach(struct eventlog_reader *r)
{
    if (!r->log)
        return;
    cm_list_remove(&r->link);
    r->log = NULL;
}
