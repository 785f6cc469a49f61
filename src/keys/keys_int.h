/* One key from within: its row, its windows, its money. */
#ifndef CHATMUX_KEYS_KEYS_INT_H
#define CHATMUX_KEYS_KEYS_INT_H

#include "chatmux/base/list.h"
#include "chatmux/keys/keys.h"

/* What was taken in each of the last seconds. A bucket holds a whole second and what came at its
 * very end must count for 60 s: so it counts until the second 61 behind its own begins. */
#define WINDOW_SECONDS 61
struct window {
    uint64_t newest; /* the second of the last change; older buckets lie behind it */
    int64_t n[WINDOW_SECONDS];
};
void window_add(struct window *w, uint64_t now_s, int64_t n);
/* n of what was taken in `second`; nothing happens when that bucket has gone. */
void window_give_back(struct window *w, uint64_t now_s, uint64_t second, int64_t n);
int64_t window_sum(const struct window *w, uint64_t now_s);
/* Until at most `most` (>= 0) are left. */
int64_t window_wait_ms(const struct window *w, uint64_t now_ms, int64_t most);

enum period { PERIOD_TOTAL, PERIOD_DAY, PERIOD_WEEK, PERIOD_MONTH, PERIODS };
enum period period_of(struct cm_str word);                   /* unknown words: total */
const char *period_name(enum period p);                      /* "day" … */
int64_t period_began_ms(enum period p, int64_t now_unix_ms); /* 0 for total */
int64_t period_ends_ms(enum period p, int64_t now_unix_ms);  /* INT64_MAX for total */

struct spending { /* of one period */
    int64_t began_ms;
    int64_t micro_usd;
};
#define NO_PERIOD INT64_MIN /* no period begins then */

struct cm_key {
    struct cm_list link;   /* in the table; alone once deleted */
    struct cm_key *same;   /* the next best key with the same secret; not owned */
    struct cm_key_row row; /* its slices live in `texts` */
    struct cm_arena texts;
    struct cm_strs models; /* the allow-list */
    bool all_models;
    bool configured;
    bool listed; /* stands in the configuration that is being taken over */
    bool gone;   /* deleted, only held */
    unsigned refs;
    const struct cm_clock *clock;     /* not owned */
    struct window *requests, *tokens; /* owned; made by the first request under such a limit */
    int64_t parallel, reserved;       /* open reservations and their micro-USD */
    enum period period;               /* of the budget; total without one */
    struct spending spent[PERIODS];   /* in the running period of every kind */
    struct spending other[PERIODS];   /* in the one before: a clock that was wrong may come back */
    struct spending asked;            /* spent[period] when the ledger was asked */
    bool trued;                       /* the ledger has told spent[period] once */
    int64_t drift;
};

#define SPENT_MAX (INT64_C(1) << 62)
/* Makes every `spent` that of the period the Unix clock is in. */
void key_turn_periods(struct cm_key *key, int64_t now_unix_ms);
/* CM_ERR_UNAUTHORIZED when the key may not be used at all. */
int key_usable(const struct cm_key *key, int64_t now_unix_ms, struct cm_err *err);

#endif
