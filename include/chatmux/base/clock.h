/* Time. Durations and deadlines are monotonic milliseconds, instants that are shown or stored
 * are Unix time. */
#ifndef CHATMUX_BASE_CLOCK_H
#define CHATMUX_BASE_CLOCK_H

#include "chatmux/base/str.h"

/* Code that waits or dates takes a clock, so that a test owns it. */
struct cm_clock {
    uint64_t (*mono_ms)(void *arg);
    int64_t (*unix_ms)(void *arg);
    void *arg;
};

extern const struct cm_clock cm_clock_system;

uint64_t cm_mono_ms(void);
uint64_t cm_mono_us(void);
int64_t cm_unix_ms(void);

/* RFC 3339 in UTC with milliseconds: "2026-01-31T08:15:00.123Z", 24 bytes and a NUL. */
#define CM_RFC3339_CAP 25
void cm_rfc3339(int64_t unix_ms, char out[CM_RFC3339_CAP]);
/* With or without a fraction (milliseconds are kept), with Z or an offset; also a date alone
 * (midnight UTC). False and *unix_ms untouched for anything else. */
bool cm_rfc3339_parse(struct cm_str text, int64_t *unix_ms);

/* The month of the calendar that holds this instant, in UTC: its first millisecond, and the first of
 * the month after. */
int64_t cm_month_began_ms(int64_t unix_ms);
int64_t cm_month_ends_ms(int64_t unix_ms);

#endif
