/* Time from the kernel, and how instants are written. */
#include "chatmux/base/clock.h"

#include <time.h>

static struct timespec read_clock(clockid_t id)
{
    struct timespec ts = {0};

    clock_gettime(id, &ts);
    return ts;
}

uint64_t cm_mono_us(void)
{
    struct timespec ts = read_clock(CLOCK_MONOTONIC);

    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t cm_mono_ms(void)
{
    return cm_mono_us() / 1000;
}

int64_t cm_unix_ms(void)
{
    struct timespec ts = read_clock(CLOCK_REALTIME);

    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static uint64_t system_mono_ms(void *arg)
{
    (void)arg;
    return cm_mono_ms();
}

static int64_t system_unix_ms(void *arg)
{
    (void)arg;
    return cm_unix_ms();
}

const struct cm_clock cm_clock_system = {.mono_ms = system_mono_ms, .unix_ms = system_unix_ms};

static char *put_digits(char *at, int64_t v, int width)
{
    for (int i = width - 1; i >= 0; i--, v /= 10)
        at[i] = (char)('0' + v % 10);
    return at + width;
}

/* Counts years from March, so that the leap day is the last day of a year and months follow a
 * straight line. */
void cm_rfc3339(int64_t unix_ms, char out[CM_RFC3339_CAP])
{
    const int64_t first_ms = -62167219200000, last_ms = 253402300799999; /* years 0000 to 9999 */
    const int64_t day_ms = 86400000, era_days = 146097;                  /* an era has 400 years */
    int64_t ms, days, era, of_era, year, of_year, month, day;
    char *at = out;

    unix_ms = unix_ms < first_ms ? first_ms : unix_ms > last_ms ? last_ms : unix_ms;
    ms = (unix_ms % day_ms + day_ms) % day_ms;
    days = (unix_ms - ms) / day_ms + 719468; /* since 0000-03-01 */
    era = (days >= 0 ? days : days - (era_days - 1)) / era_days;
    of_era = days - era * era_days;
    year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    of_year = of_era - (365 * year + year / 4 - year / 100);
    month = (5 * of_year + 2) / 153;
    day = of_year - (153 * month + 2) / 5 + 1;
    month += month < 10 ? 3 : -9;
    year += era * 400 + (month <= 2);

    at = put_digits(at, year, 4);
    *at++ = '-';
    at = put_digits(at, month, 2);
    *at++ = '-';
    at = put_digits(at, day, 2);
    *at++ = 'T';
    at = put_digits(at, ms / 3600000, 2);
    *at++ = ':';
    at = put_digits(at, ms / 60000 % 60, 2);
    *at++ = ':';
    at = put_digits(at, ms / 1000 % 60, 2);
    *at++ = '.';
    at = put_digits(at, ms % 1000, 3);
    *at++ = 'Z';
    *at = '\0';
}
