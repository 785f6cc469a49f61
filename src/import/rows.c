/* Values of foreign rows as text and as times. */
#include "import_int.h"

#include "chatmux/base/mem.h"

#include <stdio.h>
#include <time.h>

#define DATE_TIME strlen("2025-03-01 10:00:00")

static const struct import_value *find(const struct import_row *row, const char *column)
{
    for (size_t i = 0; i < row->n; i++)
        if (cm_str_eq_nocase(row->columns[i], cm_str_of(column)))
            return &row->values[i];
    return NULL;
}

/* MySQL 8, "String Literals": an unknown escape is the character itself. */
static char unescaped(char c)
{
    switch (c) {
    case '0':
        return '\0';
    case 'b':
        return '\b';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'Z':
        return 0x1a;
    default:
        return c;
    }
}

static struct cm_str plain(struct cm_arena *arena, const struct import_value *v)
{
    char *out = cm_arena_alloc(arena, v->raw.n + 1);
    size_t n = 0;

    for (size_t i = 0; i < v->raw.n; i++) {
        char c = v->raw.p[i];

        if (c == '\\' && v->kind == IMPORT_BACKSLASH && i + 1 < v->raw.n)
            c = unescaped(v->raw.p[++i]);
        else if (c == v->quote && i + 1 < v->raw.n)
            i++; /* doubled */
        out[n++] = c;
    }
    return cm_str(out, n);
}

static unsigned digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

static struct cm_str from_hex(struct cm_arena *arena, struct cm_str hex)
{
    char *out = cm_arena_alloc(arena, hex.n / 2 + 1);

    for (size_t i = 0; i + 1 < hex.n; i += 2)
        out[i / 2] = (char)(digit(hex.p[i]) << 4 | digit(hex.p[i + 1]));
    return cm_str(out, hex.n / 2);
}

bool import_text(struct cm_arena *arena, const struct import_row *row, const char *column,
                 struct cm_str *out)
{
    const struct import_value *v = find(row, column);

    if (!v)
        return false;
    switch (v->kind) {
    case IMPORT_NULL:
    case IMPORT_UNREAD:
        return false;
    case IMPORT_PLAIN:
        *out = v->raw;
        break;
    case IMPORT_QUOTED:
    case IMPORT_BACKSLASH:
        *out = plain(arena, v);
        break;
    case IMPORT_HEX:
        *out = from_hex(arena, v->raw);
        break;
    }
    return true;
}

int64_t import_time(struct cm_arena *arena, const struct import_row *row, const char *column)
{
    struct cm_str text;
    struct tm tm = {.tm_isdst = -1};
    int hours = 0, minutes = 0;
    char sign[2] = "", *z;
    const char *zone;
    time_t at;

    if (!import_text(arena, row, column, &text))
        return 0;
    z = cm_arena_z(arena, text);
    if (text.n < DATE_TIME || sscanf(z, "%4d-%2d-%2d%*1[ T]%2d:%2d:%2d", &tm.tm_year, &tm.tm_mon,
                                     &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6)
        return 0;
    tm.tm_year -= 1900;
    tm.tm_mon--;
    zone = z + DATE_TIME;
    zone += strspn(zone, ".0123456789 ");
    if (*zone == 'Z')
        return (int64_t)timegm(&tm);
    if (sscanf(zone, "%1[+-]%2d:%2d", sign, &hours, &minutes) != 3) {
        at = mktime(&tm);
        return at > 0 ? (int64_t)at : 0;
    }
    return (int64_t)timegm(&tm) - (*sign == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
}
