/* Sliding windows: 61 buckets of one second. */
#include "keys_int.h"

static int64_t *bucket(struct window *w, uint64_t second)
{
    return &w->n[second % WINDOW_SECONDS];
}

/* The oldest second that counts now. */
static uint64_t oldest(uint64_t now_s)
{
    return now_s >= WINDOW_SECONDS ? now_s - WINDOW_SECONDS + 1 : 0;
}

/* Empties the buckets that now stand for later seconds. */
static void turn(struct window *w, uint64_t now_s)
{
    if (now_s >= w->newest + WINDOW_SECONDS)
        *w = (struct window){.newest = now_s};
    while (w->newest < now_s)
        *bucket(w, ++w->newest) = 0;
}

void window_add(struct window *w, uint64_t now_s, int64_t n)
{
    turn(w, now_s);
    *bucket(w, now_s) += n;
}

void window_give_back(struct window *w, uint64_t now_s, uint64_t second, int64_t n)
{
    turn(w, now_s);
    if (second >= oldest(now_s))
        *bucket(w, second) -= n;
}

int64_t window_sum(const struct window *w, uint64_t now_s)
{
    int64_t sum = 0;

    for (uint64_t s = oldest(now_s); s <= w->newest; s++)
        sum += w->n[s % WINDOW_SECONDS];
    return sum;
}

int64_t window_wait_ms(const struct window *w, uint64_t now_ms, int64_t most)
{
    int64_t sum = window_sum(w, now_ms / 1000);
    uint64_t free_ms = now_ms;

    for (uint64_t s = oldest(now_ms / 1000); s <= w->newest && sum > most; s++) {
        sum -= w->n[s % WINDOW_SECONDS];
        free_ms = (s + WINDOW_SECONDS) * 1000;
    }
    return (int64_t)(free_ms - now_ms);
}
