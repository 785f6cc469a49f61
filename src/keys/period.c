/* Budget periods: when the running one began and ends, in UTC. */
#include "keys_int.h"

#include "chatmux/base/clock.h"

#define DAY_MS INT64_C(86400000)

static const char *const names[PERIODS] = {"total", "day", "week", "month"};

enum period period_of(struct cm_str word)
{
    for (size_t i = 0; i < CM_COUNT(names); i++) {
        if (cm_str_eq(word, cm_str_of(names[i])))
            return (enum period)i;
    }
    return PERIOD_TOTAL;
}

const char *period_name(enum period p)
{
    return names[p];
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

int64_t period_began_ms(enum period p, int64_t now_unix_ms)
{
    int64_t day = floor_div(now_unix_ms, DAY_MS);

    switch (p) {
    case PERIOD_TOTAL:
    case PERIODS:
        return 0;
    case PERIOD_DAY:
        break;
    case PERIOD_WEEK:
        day -= day + 3 - floor_div(day + 3, 7) * 7; /* 1970-01-01 was a Thursday */
        break;
    case PERIOD_MONTH:
        return cm_month_began_ms(now_unix_ms);
    }
    return day * DAY_MS;
}

int64_t period_ends_ms(enum period p, int64_t now_unix_ms)
{
    int64_t began = period_began_ms(p, now_unix_ms);

    switch (p) {
    case PERIOD_TOTAL:
    case PERIODS:
        return INT64_MAX;
    case PERIOD_DAY:
        return began + DAY_MS;
    case PERIOD_WEEK:
        return began + 7 * DAY_MS;
    case PERIOD_MONTH:
        break;
    }
    return cm_month_ends_ms(now_unix_ms);
}
