/* What a stream has said, for clients that come back: every event once and in order, whatever comes and goes; bounded memory; who loses what. */
#include "gateway/eventlog.h"
#include "unit.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLENTY (64u * 1024 * 1024)

static struct eventlog_shelf shelf;

static void setup(void)
{
    eventlog_shelf_init(&shelf);
    shelf.max_bytes = PLENTY;
}

static void teardown(void)
{
    ck_assert_uint_eq(shelf.bytes, 0);
    ck_assert(cm_list_empty(&shelf.ended));
}

/* The text of an event follows from its log and number, its length too: 0 to some hundred bytes, now and then many. */
static struct cm_str text_of(uint64_t log, uint64_t number, char *out, size_t cap)
{
    uint64_t mix = (log * 1000003 + number) * UINT64_C(0x9e3779b97f4a7c15);
    size_t n = number % 97 == 96 ? 5000 + mix % 40000 : mix % 400;
    char head[40];

    n = n < cap ? n : cap;
    memset(out, 'a' + (int)(mix % 26), n);
    snprintf(head, sizeof(head), "%llu:%llu", (unsigned long long)log, (unsigned long long)number);
    memcpy(out, head, n < strlen(head) ? n : strlen(head));
    return cm_str(out, n);
}

static int say(struct eventlog *log, size_t n, size_t max_bytes)
{
    char *text = cm_alloc(n + 1);
    int rc;

    memset(text, 'x', n);
    rc = eventlog_append(log, cm_str(text, n), max_bytes);
    free(text);
    return rc;
}

START_TEST(replay_and_follow_are_one)
{
    struct eventlog log;
    struct eventlog_reader r = {0};
    struct cm_str got;

    eventlog_init(&log, &shelf, false);
    ck_assert_int_eq(eventlog_append(&log, CM_S("zero"), PLENTY), 0);
    ck_assert_int_eq(eventlog_append(&log, CM_S(""), PLENTY), 0);
    ck_assert_int_eq(eventlog_append(&log, CM_S("two"), PLENTY), 0);
    eventlog_attach(&log, &r, 1);
    ck_assert(eventlog_take(&r, &got));
    ck_str(got, "");
    ck_assert(eventlog_take(&r, &got));
    ck_str(got, "two");
    ck_assert(!eventlog_take(&r, &got));
    ck_assert_int_eq(eventlog_append(&log, CM_S("three"), PLENTY), 0);
    ck_assert(eventlog_take(&r, &got));
    ck_str(got, "three");
    eventlog_detach(&r);
    eventlog_detach(&r);
    eventlog_clear(&log);
}
END_TEST

START_TEST(an_event_above_the_bound_is_refused_before_memory_is_taken)
{
    struct eventlog log;

    eventlog_init(&log, &shelf, true);
    ck_assert_int_eq(say(&log, 5000, 4096), -1);
    ck_assert_uint_eq(log.bytes, 0);
    ck_assert_int_eq(say(&log, 100, 4096), 0);
    ck_assert_uint_eq(log.next, 1);
    eventlog_clear(&log);
}
END_TEST

START_TEST(what_nobody_has_read_is_not_dropped)
{
    struct eventlog log;
    struct eventlog_reader r = {0}, slow = {0};
    struct cm_str got;
    uint64_t n;

    eventlog_init(&log, &shelf, false);
    while (say(&log, 500, 256 * 1024) == 0) {
    }
    ck_assert_uint_eq(log.first, 0);
    ck_assert_uint_gt(log.next, 400);
    n = log.next;

    eventlog_attach(&log, &r, 0);
    eventlog_attach(&log, &slow, 0);
    while (eventlog_take(&r, &got)) {
    }
    ck_assert_int_eq(say(&log, 500, 256 * 1024), -1); /* one reader has it, the other has not */
    for (int i = 0; i < 300; i++)
        ck_assert(eventlog_take(&slow, &got));
    ck_assert_int_eq(say(&log, 500, 256 * 1024), 0);
    ck_assert_uint_gt(log.first, 0);
    ck_assert_uint_le(log.first, 300);
    ck_assert_uint_eq(log.next, n + 1);
    ck_assert(!slow.lost);
    eventlog_detach(&slow);
    while (eventlog_take(&r, &got)) {
    }
    eventlog_detach(&r);
    /* nobody is there: what the last one was given may not have arrived */
    n = log.first;
    while (say(&log, 500, 256 * 1024) == 0) {
    }
    ck_assert_uint_eq(log.first, n);
    ck_assert_uint_eq(shelf.evicted, n);
    eventlog_attach(&log, &r, n);
    while (eventlog_take(&r, &got)) {
    }
    eventlog_trim(&log, 200 * 1024);
    ck_assert_uint_le(log.bytes, 200 * 1024);
    ck_assert_uint_gt(log.bytes, 150 * 1024);
    ck_assert_int_eq(say(&log, 500, 256 * 1024), 0);
    eventlog_detach(&r);
    eventlog_clear(&log);
}
END_TEST

START_TEST(a_log_that_may_lose_events_loses_the_oldest_and_tells_its_readers)
{
    struct eventlog log;
    struct eventlog_reader slow = {0}, quick = {0};
    struct cm_str got;

    eventlog_init(&log, &shelf, true);
    ck_assert_int_eq(say(&log, 500, 32 * 1024), 0);
    eventlog_attach(&log, &slow, 0);
    eventlog_attach(&log, &quick, 0);
    for (int i = 0; i < 1000; i++) {
        ck_assert_int_eq(say(&log, 500, 32 * 1024), 0);
        ck_assert_uint_le(log.bytes, 32 * 1024);
        while (eventlog_take(&quick, &got)) {
        }
    }
    ck_assert_uint_eq(log.next, 1001);
    ck_assert_uint_eq(quick.next, 1001);
    ck_assert(!quick.lost);
    ck_assert(slow.lost);
    ck_assert(!eventlog_take(&slow, &got));
    eventlog_detach(&slow);
    eventlog_detach(&quick);
    eventlog_clear(&log);
}
END_TEST

START_TEST(what_fits_in_memory_that_is_there_needs_no_room)
{
    struct eventlog log;

    eventlog_init(&log, &shelf, false);
    ck_assert_int_eq(say(&log, 100, PLENTY), 0);
    shelf.max_bytes =
        shelf.bytes - 1; /* another log has said its last words, or the bound was lowered */
    ck_assert_int_eq(say(&log, 100, log.bytes - 1), 0);
    ck_assert_int_eq(say(&log, 1000, PLENTY), -1);
    shelf.max_bytes = PLENTY;
    ck_assert_int_eq(say(&log, 1000, PLENTY), 0);
    eventlog_clear(&log);
}
END_TEST

START_TEST(those_that_have_ended_make_room_the_oldest_first)
{
    struct eventlog old, read, young, now;
    struct eventlog_reader r = {0};
    struct cm_str got;

    shelf.max_bytes = 64 * 1024;
    eventlog_init(&old, &shelf, false);
    eventlog_init(&read, &shelf, false);
    eventlog_init(&young, &shelf, false);
    eventlog_init(&now, &shelf, false);
    for (int i = 0; i < 30; i++) {
        ck_assert_int_eq(say(&old, 400, PLENTY), 0);
        ck_assert_int_eq(say(&read, 400, PLENTY), 0);
        ck_assert_int_eq(say(&young, 400, PLENTY), 0);
    }
    eventlog_end(&read);
    eventlog_end(&old);
    eventlog_end(&young);
    eventlog_attach(&read, &r, 0);
    while (old.bytes > 0)
        ck_assert_int_eq(say(&now, 400, PLENTY), 0);
    ck_assert_uint_eq(old.first, 30);
    ck_assert_uint_eq(shelf.evicted, 30);
    ck_assert_uint_eq(young.first, 0);
    while (young.bytes > 0)
        ck_assert_int_eq(say(&now, 400, PLENTY), 0);
    while (say(&now, 400, PLENTY) == 0)
        ck_assert_uint_le(shelf.bytes, shelf.max_bytes);
    ck_assert_uint_eq(now.first, 0);
    ck_assert_uint_eq(read.first, 0); /* somebody is at it */
    for (int i = 0; i < 30; i++)
        ck_assert(eventlog_take(&r, &got));
    eventlog_detach(&r);
    ck_assert_int_eq(say(&now, 400, PLENTY), 0);
    ck_assert_uint_eq(read.first, 30);
    eventlog_clear(&old);
    eventlog_clear(&read);
    eventlog_clear(&young);
    eventlog_clear(&now);
}
END_TEST

/* ---- anything in any order ---- */

#define LOGS 4
#define READERS 6

struct model_reader {
    struct eventlog_reader r;
    uint64_t next; /* what it has to get */
};

struct model {
    struct cm_rng rng;
    struct eventlog logs[LOGS];
    uint64_t ids[LOGS], next_id; /* a log is thrown away and another takes its place */
    bool ended[LOGS];
    struct model_reader readers[LOGS][READERS];
    uint64_t takes, losses, refusals;
};

static void model_open(struct model *m, size_t i)
{
    m->ids[i] = m->next_id++;
    m->ended[i] = false;
    eventlog_init(&m->logs[i], &shelf, m->ids[i] % 2 == 1);
}

static void model_close(struct model *m, size_t i)
{
    for (size_t k = 0; k < READERS; k++)
        eventlog_detach(&m->readers[i][k].r);
    eventlog_clear(&m->logs[i]);
}

static void model_append(struct model *m, size_t i, size_t max_bytes)
{
    static char text[64 * 1024];
    struct eventlog *log = &m->logs[i];
    const uint64_t next = log->next, first = log->first;
    struct cm_str event = text_of(m->ids[i], next, text, sizeof(text));

    if (m->ended[i])
        return;
    if (eventlog_append(log, event, max_bytes) < 0) {
        m->refusals++;
        ck_quick(log->next == next);
        return;
    }
    ck_quick(log->next == next + 1);
    ck_quick(log->bytes <= max_bytes && shelf.bytes <= shelf.max_bytes);
    if (!log->lossy && log->first > first) { /* only what was read, and by all */
        bool read = false;

        for (size_t k = 0; k < READERS; k++) {
            read |= m->readers[i][k].r.log != NULL;
            ck_quick(!m->readers[i][k].r.log || m->readers[i][k].next >= log->first);
        }
        ck_quick(read);
    }
}

static void model_take(struct model *m, size_t i, size_t k)
{
    static char text[64 * 1024];
    struct eventlog *log = &m->logs[i];
    struct model_reader *r = &m->readers[i][k];
    struct cm_str got;

    for (uint64_t left = cm_rng_below(&m->rng, 20); left > 0 && r->r.log; left--) {
        const bool there = r->next >= log->first && r->next < log->next;

        ck_quick(eventlog_take(&r->r, &got) == there);
        if (!there) {
            ck_quick(r->r.lost == (r->next < log->first));
            if (r->r.lost) {
                m->losses++;
                eventlog_detach(&r->r);
            }
            return;
        }
        ck_quick(cm_str_eq(got, text_of(m->ids[i], r->next, text, sizeof(text))));
        r->next++;
        m->takes++;
    }
}

static void model_step(struct model *m)
{
    const size_t i = cm_rng_below(&m->rng, LOGS), k = cm_rng_below(&m->rng, READERS);
    struct eventlog *log = &m->logs[i];
    struct model_reader *r = &m->readers[i][k];

    switch (cm_rng_below(&m->rng, 12)) {
    case 0: /* comes, or comes back, anywhere that is still there */
        eventlog_detach(&r->r);
        r->next = log->first + cm_rng_below(&m->rng, log->next - log->first + 1);
        eventlog_attach(log, &r->r, r->next);
        break;
    case 1: /* leaves */
        eventlog_detach(&r->r);
        break;
    case 2:
        if (cm_rng_below(&m->rng, 100) == 0 && !m->ended[i]) {
            m->ended[i] = true;
            eventlog_end(log);
        } else if (m->ended[i] && cm_rng_below(&m->rng, 10) == 0) {
            model_close(m, i);
            model_open(m, i);
        }
        break;
    case 3:
    case 4:
    case 5:
    case 6:
        model_take(m, i, k);
        break;
    default:
        model_append(m, i, 100 * 1024);
    }
}

START_TEST(every_event_comes_once_whatever_happens)
{
    static struct model m;

    memset(&m, 0, sizeof(m));
    cm_rng_seed(&m.rng, (uint64_t)_i * 7919 + 1);
    shelf.max_bytes = 250 * 1024;
    for (size_t i = 0; i < LOGS; i++)
        model_open(&m, i);
    for (int step = 0; step < 40000; step++)
        model_step(&m);
    for (size_t i = 0; i < LOGS; i++)
        model_close(&m, i);
    ck_assert_uint_gt(m.takes, 5000);
    ck_assert_uint_gt(m.losses + m.refusals, 10); /* the bounds were met */
}
END_TEST

Suite *suite_eventlog(void)
{
    Suite *s = suite_create("eventlog");
    TCase *t = tcase_create("log");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, replay_and_follow_are_one);
    tcase_add_test(t, an_event_above_the_bound_is_refused_before_memory_is_taken);
    tcase_add_test(t, what_nobody_has_read_is_not_dropped);
    tcase_add_test(t, a_log_that_may_lose_events_loses_the_oldest_and_tells_its_readers);
    tcase_add_test(t, what_fits_in_memory_that_is_there_needs_no_room);
    tcase_add_test(t, those_that_have_ended_make_room_the_oldest_first);
    tcase_add_loop_test(t, every_event_comes_once_whatever_happens, 0, 8);
    suite_add_tcase(s, t);
    return s;
}
