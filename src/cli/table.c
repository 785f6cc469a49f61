/* Tables for terminals, and values as people read them. */
#include "command.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#include <stdio.h>
#include <stdlib.h>

#define GAP 2

void table_init(struct table *t, const char *const *heads, size_t columns)
{
    *t = (struct table){.heads = heads, .columns = columns};
}

void table_add(struct table *t, struct cm_str cell)
{
    size_t at = t->n;
    char *shown = cm_arena_z(&t->arena, cell.n > 0 ? cell : CM_S("-"));

    for (char *p = shown; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    if (at == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 64;
        t->cells = cm_realloc(t->cells, t->cap * sizeof(*t->cells));
    }
    t->cells[at] = cm_str_of(shown);
    t->n++;
}

void table_add_int(struct table *t, int64_t v)
{
    table_add(t, cm_arena_printf(&t->arena, "%lld", (long long)v));
}

static void put_cell(struct cm_str cell, size_t width, bool right, bool last)
{
    size_t chars = cm_utf8_count(cell);
    int pad = width > chars ? (int)(width - chars) : 0;

    if (right)
        printf("%*s" CM_PRI, pad, "", CM_ARG(cell));
    else
        printf(CM_PRI "%*s", CM_ARG(cell), last ? 0 : pad, "");
    printf("%*s", last ? 0 : GAP, "");
}

void table_print(const struct table *t)
{
    size_t *widths = cm_calloc(t->columns, sizeof(*widths));

    for (size_t c = 0; c < t->columns; c++)
        widths[c] = strlen(t->heads[c]) - (t->heads[c][0] == '>');
    for (size_t i = 0, c = 0; i < t->n; i++, c = c + 1 == t->columns ? 0 : c + 1) {
        size_t chars = cm_utf8_count(t->cells[i]);

        if (chars > widths[c])
            widths[c] = chars;
    }
    for (size_t c = 0; c < t->columns; c++) {
        bool right = t->heads[c][0] == '>';

        put_cell(cm_str_of(t->heads[c] + right), widths[c], right, c + 1 == t->columns);
    }
    putchar('\n');
    for (size_t i = 0, c = 0; i < t->n; i++, c = c + 1 == t->columns ? 0 : c + 1) {
        put_cell(t->cells[i], widths[c], t->heads[c][0] == '>', c + 1 == t->columns);
        if (c + 1 == t->columns)
            putchar('\n');
    }
    free(widths);
}

void table_clear(struct table *t)
{
    free(t->cells);
    cm_arena_clear(&t->arena);
}

struct cm_str time_told(struct cm_arena *arena, struct cm_str rfc3339, int64_t now_ms)
{
    static const struct {
        int64_t s;
        const char *name;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    int64_t ms, s;
    size_t u = 0;

    if (!cm_rfc3339_parse(rfc3339, &ms))
        return CM_STR_NONE;
    s = ((ms < now_ms ? now_ms - ms : ms - now_ms) + 500) / 1000;
    while (u + 1 < CM_COUNT(units) && s < 2 * units[u].s)
        u++;
    s = (s + units[u].s / 2) / units[u].s;
    return cm_arena_printf(arena, ms < now_ms ? "%lld %s ago" : "in %lld %s", (long long)s,
                           units[u].name);
}

struct cm_str member_text(struct cm_arena *arena, yyjson_val *object, const char *name)
{
    yyjson_val *v = cm_json_opt(object, name);
    struct cm_buf text = {0};
    struct cm_str s;

    if (!v || yyjson_is_str(v))
        return cm_json_str(v);
    if (yyjson_is_bool(v))
        return yyjson_get_bool(v) ? CM_S("yes") : CM_S("no");
    cm_json_put_val(&text, v);
    s = cm_arena_str(arena, cm_buf_str(&text));
    cm_buf_clear(&text);
    return s;
}
