/* Configuration values: text to value and back. */
#include "config_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

struct unit {
    const char *name;
    int64_t factor;
};
/* largest first: the first that divides a value is the one to write it with */
static const struct unit duration_units[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1},
};
static const struct unit size_units[] = {{"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}};

#define LARGEST (INT64_C(1) << 53) /* what any of our units can reach and JSON can hold */

static size_t count_digits(struct cm_str s)
{
    size_t n = 0;

    while (n < s.n && s.p[n] >= '0' && s.p[n] <= '9')
        n++;
    return n;
}

static bool read_scaled(struct cm_str s, const struct unit *units, size_t n, int64_t *out)
{
    size_t digits = count_digits(s);
    struct cm_str unit = cm_str_from(s, digits);
    uint64_t number;

    for (size_t i = 0; i < n; i++) {
        if (!cm_str_eq_nocase(unit, cm_str_of(units[i].name)))
            continue;
        if (!cm_str_to_u64(cm_str_head(s, digits), (uint64_t)(LARGEST / units[i].factor), &number))
            return false;
        *out = (int64_t)number * units[i].factor;
        return true;
    }
    return false;
}

int cm_conf_duration(struct cm_str s, int64_t *out_ms, struct cm_err *err)
{
    size_t digits = count_digits(s);
    uint64_t number;

    if (digits == s.n && cm_str_to_u64(s, 0, &number)) {
        *out_ms = 0;
        return 0;
    }
    if (read_scaled(s, duration_units, CM_COUNT(duration_units), out_ms))
        return 0;
    return cm_fail(err, CM_ERR_CONFIG, "must be a duration %s(500ms, 10s, 5m, 1h, 7d)",
                   digits == s.n && s.n > 0 ? "with its unit " : "");
}

int cm_conf_size(struct cm_str s, int64_t *out, struct cm_err *err)
{
    uint64_t number;

    if (cm_str_to_u64(s, (uint64_t)LARGEST, &number)) {
        *out = (int64_t)number;
        return 0;
    }
    if (read_scaled(s, size_units, CM_COUNT(size_units), out))
        return 0;
    return cm_fail(err, CM_ERR_CONFIG, "must be a number of bytes (100, 64k, 32m, 2g)");
}

int cm_conf_bool(struct cm_str s, bool *out, struct cm_err *err)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};

    for (size_t i = 0; i < CM_COUNT(words); i++) {
        if (cm_str_eq_nocase(s, cm_str_of(words[i]))) {
            *out = i % 2 == 1;
            return 0;
        }
    }
    return cm_fail(err, CM_ERR_CONFIG, "must be yes or no");
}

int cm_conf_usd(struct cm_str s, int64_t *out_micro, struct cm_err *err)
{
    size_t whole = count_digits(s);
    struct cm_str behind = cm_str_from(s, whole + 1);
    uint64_t dollars, micro = 0;
    bool good = cm_str_to_u64(cm_str_head(s, whole), (uint64_t)CM_CONF_USD_MAX / 1000000, &dollars);

    if (good && whole < s.n)
        good = s.p[whole] == '.' && behind.n <= 6 && cm_str_to_u64(behind, 999999, &micro);
    for (size_t i = behind.n; i < 6; i++)
        micro *= 10;
    if (!good || dollars * 1000000 + micro > (uint64_t)CM_CONF_USD_MAX)
        return cm_fail(err, CM_ERR_CONFIG,
                       "must be USD from 0 to 1000000, with at most 6 digits behind the point "
                       "(2.50, 0.075)");
    *out_micro = (int64_t)(dollars * 1000000 + micro);
    return 0;
}

int cm_conf_int(struct cm_str s, int64_t min, int64_t max, int64_t *out, struct cm_err *err)
{
    bool negative = s.n > 0 && s.p[0] == '-';
    uint64_t number;

    if (cm_str_to_u64(cm_str_from(s, negative ? 1 : 0), (uint64_t)LARGEST, &number)) {
        int64_t value = negative ? -(int64_t)number : (int64_t)number;

        if (value >= min && value <= max) {
            *out = value;
            return 0;
        }
    }
    return cm_fail(err, CM_ERR_CONFIG, "must be a whole number from %lld to %lld", (long long)min,
                   (long long)max);
}

/* The place of `word` among "a|b|c", or -1. */
static int find_choice(const char *choices, struct cm_str word)
{
    struct cm_str rest = cm_str_of(choices);

    for (int i = 0; rest.n > 0; i++) {
        if (cm_str_eq_nocase(cm_str_cut(&rest, '|'), word))
            return i;
    }
    return -1;
}

static struct cm_str choice_at(const char *choices, int place)
{
    struct cm_str rest = cm_str_of(choices), word = cm_str_cut(&rest, '|');

    while (place-- > 0)
        word = cm_str_cut(&rest, '|');
    return word;
}

static void write_scaled(struct cm_buf *out, int64_t value, const struct unit *units, size_t n)
{
    for (size_t i = 0; i < n && value > 0; i++) {
        if (value % units[i].factor == 0) {
            cm_buf_printf(out, "%lld%s", (long long)(value / units[i].factor), units[i].name);
            return;
        }
    }
    cm_buf_printf(out, "%lld", (long long)value);
}

/* Without zeros at the end. */
static void write_usd(struct cm_buf *out, int64_t micro)
{
    int64_t rest = micro % 1000000;
    int digits = 6;

    cm_buf_printf(out, "%lld", (long long)(micro / 1000000));
    for (; rest > 0 && rest % 10 == 0; rest /= 10)
        digits--;
    if (rest > 0)
        cm_buf_printf(out, ".%0*lld", digits, (long long)rest);
}

static void write_number(struct cm_buf *out, const struct cm_conf_key *row, int64_t value)
{
    if (row->type == CM_CONF_DURATION)
        write_scaled(out, value, duration_units, CM_COUNT(duration_units));
    else if (row->type == CM_CONF_SIZE)
        write_scaled(out, value, size_units, CM_COUNT(size_units));
    else if (row->type == CM_CONF_USD)
        write_usd(out, value);
    else
        cm_buf_printf(out, "%lld", (long long)value);
}

static int check_range(const struct cm_conf_key *row, int64_t value, struct cm_err *err)
{
    struct cm_buf range = {0};

    if (value >= row->min && value <= row->max)
        return 0;
    write_number(&range, row, row->min);
    cm_buf_append(&range, CM_S(" to "));
    write_number(&range, row, row->max);
    (void)cm_fail(err, CM_ERR_CONFIG, "must be from " CM_PRI "%s%s", CM_ARG(cm_buf_str(&range)),
                  row->choices && *row->choices ? ", or " : "",
                  row->choices && *row->choices ? row->choices : "");
    cm_buf_clear(&range);
    return -1;
}

static int read_number(const struct cm_conf_key *row, struct cm_str value, int64_t *out,
                       struct cm_err *err)
{
    int64_t number = 0;
    int r;

    if (row->choices && cm_str_eq(value, cm_str_of(row->choices))) {
        *out = -1;
        return 0;
    }
    if (row->type == CM_CONF_INT) {
        if (cm_conf_int(value, row->min, row->max, out, err) == 0)
            return 0;
        if (row->choices)
            (void)cm_fail(err, CM_ERR_CONFIG, "must be a whole number from %lld to %lld, or %s",
                          (long long)row->min, (long long)row->max,
                          *row->choices ? row->choices : "empty");
        return -1;
    }
    if (row->type == CM_CONF_USD)
        return cm_conf_usd(value, out, err);
    if (row->type == CM_CONF_SIZE) {
        r = cm_conf_size(value, &number, err);
    } else {
        r = cm_conf_duration(value, &number, err);
        if (r != 0 && row->choices)
            (void)cm_fail(err, CM_ERR_CONFIG, "must be a duration (500ms, 10s, 5m, 1h, 7d) or %s",
                          *row->choices ? row->choices : "empty");
    }
    if (r != 0 || check_range(row, number, err) != 0)
        return -1;
    *out = number;
    return 0;
}

static int read_enum(const struct cm_conf_key *row, struct cm_str value, int *out,
                     struct cm_err *err)
{
    int place = find_choice(row->choices, value);
    char words[120];
    size_t n = 0;

    if (place >= 0) {
        *out = place;
        return 0;
    }
    for (const char *c = row->choices; *c && n + 3 < sizeof words; c++) {
        words[n++] = *c == '|' ? ',' : *c;
        if (*c == '|')
            words[n++] = ' ';
    }
    return cm_fail(err, CM_ERR_CONFIG, "must be one of %.*s", (int)n, words);
}

static bool is_one_line(struct cm_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (((unsigned char)s.p[i] < ' ' && s.p[i] != '\t') || s.p[i] == 0x7f)
            return false;
    }
    return true;
}

static int read_list(struct cm_arena *arena, struct cm_strs items, struct cm_strs *out,
                     struct cm_err *err)
{
    struct cm_strs copy = {CM_ARENA_ARRAY(arena, struct cm_str, items.n), items.n};

    for (size_t i = 0; i < items.n; i++) {
        if (!is_one_line(items.v[i]))
            return cm_fail(err, CM_ERR_CONFIG, "item %zu holds a control character", i + 1);
    }
    for (size_t i = 0; i < items.n; i++)
        copy.v[i] = cm_arena_str(arena, items.v[i]);
    *out = copy;
    return 0;
}

static int read_value(struct cm_arena *arena, const struct cm_conf_key *row, struct cm_str value,
                      struct cm_strs items, void *slot, struct cm_err *err)
{
    if (row->type != CM_CONF_LIST && !is_one_line(value))
        return cm_fail(err, CM_ERR_CONFIG, "takes one value on one line");
    switch (row->type) {
    case CM_CONF_STR:
        *(struct cm_str *)slot = cm_arena_str(arena, value);
        return 0;
    case CM_CONF_LIST:
        return read_list(arena, items, slot, err);
    case CM_CONF_BOOL:
        return cm_conf_bool(value, slot, err);
    case CM_CONF_ENUM:
        return read_enum(row, value, slot, err);
    case CM_CONF_INT:
    case CM_CONF_DURATION:
    case CM_CONF_SIZE:
    case CM_CONF_USD:
        break;
    }
    return read_number(row, value, slot, err);
}

int cm_conf_read(struct cm_arena *arena, const struct cm_conf_key *row, struct cm_str value,
                 struct cm_strs items, void *slot, struct cm_err *err)
{
    struct cm_err why = {0};

    if (read_value(arena, row, value, items, slot, &why) == 0)
        return 0;
    if (row->secret || row->type == CM_CONF_LIST || !is_one_line(value))
        return cm_fail(err, CM_ERR_CONFIG, "%s", why.msg);
    return cm_fail(err, CM_ERR_CONFIG, "%s, not \"" CM_PRI "\"", why.msg,
                   CM_ARG(cm_conf_shown(arena, value)));
}

void cm_conf_write(struct cm_buf *out, const struct cm_conf_key *row, const void *slot)
{
    int64_t number;

    switch (row->type) {
    case CM_CONF_STR:
        cm_buf_append(out, *(const struct cm_str *)slot);
        return;
    case CM_CONF_BOOL:
        cm_buf_append(out, *(const bool *)slot ? CM_S("yes") : CM_S("no"));
        return;
    case CM_CONF_ENUM:
        cm_buf_append(out, choice_at(row->choices, *(const int *)slot));
        return;
    case CM_CONF_INT:
    case CM_CONF_DURATION:
    case CM_CONF_SIZE:
    case CM_CONF_USD:
        number = *(const int64_t *)slot;
        if (number == -1 && row->choices)
            cm_buf_append(out, cm_str_of(row->choices));
        else
            write_number(out, row, number);
        return;
    case CM_CONF_LIST:
        break;
    }
    CM_ASSERT(row->type != CM_CONF_LIST);
}

static bool equal_lists(const struct cm_strs *a, const struct cm_strs *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        if (!cm_str_eq(a->v[i], b->v[i]))
            return false;
    }
    return true;
}

bool cm_conf_equal(const struct cm_conf_key *row, const void *a, const void *b)
{
    switch (row->type) {
    case CM_CONF_STR:
        return cm_str_eq(*(const struct cm_str *)a, *(const struct cm_str *)b);
    case CM_CONF_LIST:
        return equal_lists(a, b);
    case CM_CONF_BOOL:
        return *(const bool *)a == *(const bool *)b;
    case CM_CONF_ENUM:
        return *(const int *)a == *(const int *)b;
    case CM_CONF_INT:
    case CM_CONF_DURATION:
    case CM_CONF_SIZE:
    case CM_CONF_USD:
        break;
    }
    return *(const int64_t *)a == *(const int64_t *)b;
}

/* What stands before the last '@' and behind "://", if that is there: rather too much than too
 * little. */
static struct cm_str find_userinfo(struct cm_str url)
{
    size_t scheme = cm_str_find(url, CM_S("://")), at = url.n;
    size_t from = scheme == SIZE_MAX ? 0 : scheme + 3;

    while (at > from && url.p[at - 1] != '@')
        at--;
    return at > from ? cm_str(url.p + from, at - 1 - from) : CM_STR_NONE;
}

struct cm_str cm_conf_shown(struct cm_arena *a, struct cm_str value)
{
    struct cm_str hidden = find_userinfo(value);
    struct cm_buf clean = {0};
    struct cm_str shown;

    if (hidden.n > 0) {
        size_t before = (size_t)(hidden.p - value.p);

        value = cm_arena_printf(a, CM_PRI "***" CM_PRI, CM_ARG(cm_str_head(value, before)),
                                CM_ARG(cm_str_from(value, before + hidden.n)));
    }
    cm_utf8_clean(&clean, cm_utf8_head(value, 60));
    shown =
        cm_arena_printf(a, CM_PRI "%s", CM_ARG(cm_buf_str(&clean)), value.n > clean.n ? "…" : "");
    cm_buf_clear(&clean);
    return shown;
}
