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

/* Exactly n digits. */
static bool digits(struct cm_str *s, size_t n, int64_t *out)
{
    uint64_t v;

    if (s->n < n || !cm_str_to_u64(cm_str_head(*s, n), UINT32_MAX, &v))
        return false;
    *out = (int64_t)v;
    *s = cm_str_from(*s, n);
    return true;
}

static bool take(struct cm_str *s, const char *any)
{
    if (s->n == 0 || !strchr(any, s->p[0]))
        return false;
    *s = cm_str_from(*s, 1);
    return true;
}

/* Days since 1970-01-01; years counted from March, as in cm_rfc3339(). */
static int64_t day_number(int64_t year, int64_t month, int64_t day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static int64_t days_of_month(int64_t year, int64_t month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return month == 2 && leap ? 29 : days[month - 1];
}

static bool date_parse(struct cm_str *s, int64_t *ms)
{
    int64_t year, month, day;

    if (!digits(s, 4, &year) || !take(s, "-") || !digits(s, 2, &month) || !take(s, "-") ||
        !digits(s, 2, &day) || month < 1 || month > 12 || day < 1 ||
        day > days_of_month(year, month))
        return false;
    *ms = day_number(year, month, day) * 86400000;
    return true;
}

/* "08:15:00", with a fraction of which milliseconds are kept. */
static bool clock_parse(struct cm_str *s, int64_t *ms)
{
    int64_t hour, minute, second, scale = 100;

    if (!digits(s, 2, &hour) || !take(s, ":") || !digits(s, 2, &minute) || !take(s, ":") ||
        !digits(s, 2, &second) || hour > 23 || minute > 59 || second > 60)
        return false;
    *ms += ((hour * 60 + minute) * 60 + second) * 1000;
    if (!take(s, "."))
        return true;
    if (s->n == 0 || !strchr("0123456789", s->p[0]))
        return false;
    for (; s->n > 0 && s->p[0] >= '0' && s->p[0] <= '9'; scale /= 10) {
        *ms += (s->p[0] - '0') * scale;
        *s = cm_str_from(*s, 1);
    }
    return true;
}

static bool offset_parse(struct cm_str *s, int64_t *ms)
{
    bool west = s->n > 0 && s->p[0] == '-';
    int64_t hours, minutes, offset;

    if (take(s, "Zz"))
        return true;
    if (!take(s, "+-") || !digits(s, 2, &hours) || !take(s, ":") || !digits(s, 2, &minutes) ||
        hours > 23 || minutes > 59)
        return false;
    offset = (hours * 60 + minutes) * 60000;
    *ms += west ? offset : -offset;
    return true;
}

bool cm_rfc3339_parse(struct cm_str text, int64_t *unix_ms)
{
    struct cm_str s = text;
    int64_t ms = 0;

    if (!date_parse(&s, &ms) || (s.n > 0 && (!take(&s, "Tt ") || !clock_parse(&s, &ms) ||
                                             !offset_parse(&s, &ms) || s.n > 0)))
        return false;
    *unix_ms = ms;
    return true;
}

/* ---- months ---- */

#define DAY_MS INT64_C(86400000)

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* From 0. Years that begin in March have their leap day at the end: then a day's place in its year
 * tells the month, 153 days for each five of them. */
static int64_t day_of_month(int64_t day)
{
    int64_t since = day + 719468; /* since 0000-03-01 */
    int64_t of_era = since - floor_div(since, 146097) * 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * of_year + 2) / 153;

    return of_year - (153 * month + 2) / 5;
}

int64_t cm_month_began_ms(int64_t unix_ms)
{
    int64_t day = floor_div(unix_ms, DAY_MS);

    return (day - day_of_month(day)) * DAY_MS;
}

int64_t cm_month_ends_ms(int64_t unix_ms)
{
    /* a day of the month after */
    return cm_month_began_ms(cm_month_began_ms(unix_ms) + 31 * DAY_MS);
}
