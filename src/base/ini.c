/* INI reader: one pass over the lines; a key is finished when something follows that does not
 * continue it. */
#include "chatmux/base/ini.h"

#include "chatmux/base/buf.h"
#include "chatmux/base/map.h"
#include "chatmux/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void cm_problems_init(struct cm_problems *p, struct cm_arena *arena)
{
    *p = (struct cm_problems){.arena = arena};
    p->last = &p->first;
}

static struct cm_str without_controls(struct cm_arena *arena, struct cm_str s)
{
    char *z = cm_arena_z(arena, s);

    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)z[i] < ' ' || z[i] == 0x7f)
            z[i] = '?';
    }
    return cm_str(z, s.n);
}

void cm_problem_add(struct cm_problems *p, struct cm_str where, const char *fmt, ...)
{
    char text[1024];
    struct cm_problem *problem;
    va_list ap;
    int n;

    if (p->n++ >= CM_PROBLEMS_KEPT)
        return;
    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    CM_ASSERT(n >= 0);
    problem = CM_ARENA_NEW(p->arena, struct cm_problem);
    problem->where = without_controls(p->arena, where);
    problem->text = without_controls(p->arena, cm_str(text, strlen(text)));
    *p->last = problem;
    p->last = &problem->next;
}

/* One item of a list, or one line of a value, before its variables are expanded. */
struct piece {
    struct cm_str text;
    bool quoted;
};

struct pieces {
    struct piece *v; /* owned */
    size_t n, cap;
};

static void pieces_add(struct pieces *p, struct cm_str text, bool quoted)
{
    if (p->n == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 16;
        p->v = cm_realloc(p->v, p->cap * sizeof(*p->v));
    }
    p->v[p->n++] = (struct piece){text, quoted};
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Reads a quoted string at the beginning of s ("" inside stands for one quote); returns its length
 * with both quotes, or 0 when there is none. */
static size_t read_quoted(struct cm_arena *arena, struct cm_str s, struct cm_str *out)
{
    size_t end = 1, n = 0;
    char *text;

    if (s.n < 2 || s.p[0] != '"')
        return 0;
    while (end < s.n && (s.p[end] != '"' || (end + 1 < s.n && s.p[end + 1] == '"')))
        end += s.p[end] == '"' ? 2 : 1;
    if (end >= s.n)
        return 0;
    text = cm_arena_alloc(arena, end);
    for (size_t i = 1; i < end; i++) {
        if (s.p[i] == '"')
            i++;
        text[n++] = s.p[i];
    }
    *out = cm_str(text, n);
    return end + 1;
}

static void split_line(struct pieces *out, struct cm_arena *arena, struct cm_str line)
{
    struct cm_str inner;

    line = cm_str_trim(line);
    if (line.n > 0 && read_quoted(arena, line, &inner) == line.n)
        pieces_add(out, inner, true);
    else if (line.n > 0)
        pieces_add(out, line, false);
}

/* The next comma, or the end; where variables are still to be expanded, their defaults may hold
 * commas. */
static size_t find_comma(struct cm_str s, bool variables)
{
    size_t i = 0;

    while (i < s.n && s.p[i] != ',') {
        struct cm_str rest = cm_str_from(s, i);

        if (variables && cm_str_starts(rest, CM_S("$${")))
            i += 3;
        else if (variables && cm_str_starts(rest, CM_S("${")))
            i += cm_str_head(rest, cm_str_find_char(rest, '}')).n;
        else
            i++;
    }
    return i;
}

static void split_commas(struct pieces *out, struct cm_arena *arena, struct cm_str line,
                         bool variables)
{
    struct cm_str rest = cm_str_trim(line), item;

    while (rest.n > 0) {
        size_t n = read_quoted(arena, rest, &item), after = n;

        while (after < rest.n && is_blank(rest.p[after]))
            after++;
        if (n > 0 && (after == rest.n || rest.p[after] == ',')) {
            pieces_add(out, item, true);
            rest = cm_str_from(rest, after + 1);
        } else {
            n = find_comma(rest, variables);
            item = cm_str_trim(cm_str_head(rest, n));
            if (item.n > 0)
                pieces_add(out, item, false);
            rest = cm_str_from(rest, n + 1);
        }
        rest = cm_str_trim(rest);
    }
}

struct cm_strs cm_ini_list(struct cm_arena *arena, struct cm_str value)
{
    struct pieces pieces = {0};
    struct cm_strs list = {0};

    if (cm_str_find_char(value, '\n') == SIZE_MAX) {
        split_commas(&pieces, arena, value, false);
    } else {
        while (value.n > 0)
            split_line(&pieces, arena, cm_str_cut(&value, '\n'));
    }
    list.v = CM_ARENA_ARRAY(arena, struct cm_str, pieces.n);
    for (size_t i = 0; i < pieces.n; i++) {
        if (pieces.v[i].text.n > 0)
            list.v[list.n++] = cm_arena_str(arena, pieces.v[i].text);
    }
    free(pieces.v);
    return list;
}

/* All of these slices are in an arena, where only we know them. */
static void wipe(struct cm_str s)
{
    if (s.n > 0)
        cm_wipe((void *)(uintptr_t)s.p, s.n);
}

void cm_ini_wipe(struct cm_ini_entry *entries, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        wipe(entries[i].value);
        for (size_t j = 0; j < entries[i].items.n; j++)
            wipe(entries[i].items.v[j]);
    }
}

struct ini {
    struct cm_arena *arena;
    const char *file;
    cm_getenv_fn *env;
    void *env_arg;
    struct cm_problems *problems;
    struct cm_ini_entry *entries; /* owned until the end */
    size_t n, cap;
    struct cm_map seen; /* "[kind name]" of the file, keys of the section -> entry number + 1 */
    struct cm_map seen_keys;
    struct cm_str kind, name; /* of the section we are in */
    enum { NO_SECTION, IN_SECTION, IN_BAD_SECTION } section;
    enum { NO_KEY, IN_KEY, IN_BAD_KEY } key_state; /* what an indented line would continue */
    struct cm_ini_entry key;                       /* the open key; its value is not read yet */
    struct pieces lines; /* of the open key: what stood behind "=", then each indented line */
    struct pieces items; /* scratch */
    int line;
};

#define COMPLAIN(ini, at_line, ...)                                                                \
    cm_problem_add((ini)->problems,                                                                \
                   cm_arena_printf((ini)->problems->arena, "%s:%d", (ini)->file, (at_line)),       \
                   __VA_ARGS__)

static bool is_variable_name(struct cm_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';

        if (!letter && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    return s.n > 0;
}

/* `inside` is what stands between the braces. NULL when `value` was found, else what to say about
 * it. */
static const char *look_up(struct ini *ini, struct cm_str inside, struct cm_str *name,
                           struct cm_str *value)
{
    size_t mark = cm_str_find(inside, CM_S(":-"));
    const char *found;

    *name = cm_str_head(inside, mark);
    if (!is_variable_name(*name))
        return "is not written as ${NAME} or ${NAME:-default}; a literal ${ is written $${";
    found = ini->env ? ini->env(ini->env_arg, cm_arena_z(ini->arena, *name)) : NULL;
    if (mark != SIZE_MAX && (!found || !*found)) {
        *value = cm_str_from(inside, mark + 2);
        return cm_str_has(*value, CM_S("${")) ? "has another variable in its default" : NULL;
    }
    if (!found)
        return "is not set in the environment; set it, or write ${NAME:-default}";
    *value = cm_str_trim(cm_str_of(found));
    for (size_t i = 0; i < value->n; i++) {
        if ((unsigned char)value->p[i] < ' ' && value->p[i] != '\t')
            return "holds a line break or control character";
    }
    return NULL;
}

/* Replaces variables; what they bring in is not looked at again. `tell` false: problems were told
 * before. */
static struct cm_str expand(struct ini *ini, struct cm_str s, int line, bool tell)
{
    struct cm_buf out = {0};
    struct cm_str result;

    while (s.n > 0) {
        size_t at = cm_str_find(s, CM_S("${")), end;
        struct cm_str name, value = CM_STR_NONE;
        const char *wrong;

        if (at == SIZE_MAX)
            break;
        if (at > 0 && s.p[at - 1] == '$') {
            cm_buf_append(&out, cm_str_head(s, at - 1));
            cm_buf_append(&out, CM_S("${"));
            s = cm_str_from(s, at + 2);
            continue;
        }
        cm_buf_append(&out, cm_str_head(s, at));
        s = cm_str_from(s, at + 2);
        end = cm_str_find_char(s, '}');
        if (end == SIZE_MAX) {
            if (tell)
                COMPLAIN(ini, line, "${ without its }; a literal ${ is written $${");
            s = CM_STR_NONE;
            break;
        }
        wrong = look_up(ini, cm_str_head(s, end), &name, &value);
        if (wrong && tell && is_variable_name(name))
            COMPLAIN(ini, line, "variable " CM_PRI " %s", CM_ARG(name), wrong);
        else if (wrong && tell)
            COMPLAIN(ini, line, "a variable %s", wrong);
        cm_buf_append(&out, value);
        s = cm_str_from(s, end + 1);
    }
    cm_buf_append(&out, s);
    result = cm_arena_str(ini->arena, cm_buf_str(&out));
    if (out.p)
        cm_wipe(out.p, out.cap);
    cm_buf_clear(&out);
    return result;
}

static struct cm_ini_entry *add_entry(struct ini *ini, struct cm_ini_entry entry)
{
    if (ini->n == ini->cap) {
        ini->cap = ini->cap ? 2 * ini->cap : 64;
        ini->entries = cm_realloc(ini->entries, ini->cap * sizeof(*ini->entries));
    }
    ini->entries[ini->n] = entry;
    return &ini->entries[ini->n++];
}

/* The open key has all its lines: reads its value both ways. */
static void finish_key(struct ini *ini)
{
    struct cm_buf joined = {0};
    struct cm_ini_entry *e = &ini->key;
    int line = e->line;

    if (ini->key_state == IN_KEY) {
        ini->items.n = 0;
        split_commas(&ini->items, ini->arena, ini->lines.v[0].text, true);
        for (size_t i = 0; i < ini->lines.n; i++, line++) {
            struct cm_str copy = expand(ini, ini->lines.v[i].text, line, true);
            struct cm_str text = cm_str_trim(copy);

            if (text.n > 0 && joined.n > 0)
                cm_buf_put(&joined, '\n');
            cm_buf_append(&joined, text);
            wipe(copy);
            if (i > 0)
                split_line(&ini->items, ini->arena, ini->lines.v[i].text);
        }
        e->value = cm_arena_str(ini->arena, cm_buf_str(&joined));
        e->items = (struct cm_strs){CM_ARENA_ARRAY(ini->arena, struct cm_str, ini->items.n), 0};
        for (size_t i = 0; i < ini->items.n; i++) {
            struct cm_str item = expand(ini, ini->items.v[i].text, e->line, false);

            if (ini->items.v[i].quoted)
                wipe(ini->items.v[i].text); /* a copy without its quotes */
            else
                item = cm_str_trim(item);
            if (item.n > 0)
                e->items.v[e->items.n++] = item;
        }
        add_entry(ini, *e);
        if (joined.p)
            cm_wipe(joined.p, joined.cap);
        cm_buf_clear(&joined);
    }
    ini->key_state = NO_KEY;
    ini->lines.n = 0;
}

/* The line at which `key` was seen before in this map, or 0; remembers it. */
static int seen_before(struct ini *ini, struct cm_map *map, struct cm_str key)
{
    const int *before = cm_map_get(map, key);
    int *line;

    if (before)
        return *before;
    line = CM_ARENA_NEW(ini->arena, int);
    *line = ini->line;
    cm_map_put(map, key, line);
    return 0;
}

static void begin_section(struct ini *ini, struct cm_str line)
{
    struct cm_str inside, kind, name, title;
    int before;

    ini->section = IN_BAD_SECTION;
    if (line.p[line.n - 1] != ']') {
        COMPLAIN(ini, ini->line,
                 "a section is written [section] or [provider name], with nothing behind the ]");
        return;
    }
    inside = cm_str_trim(cm_str(line.p + 1, line.n - 2));
    name = inside;
    while (name.n > 0 && !is_blank(name.p[0]))
        name = cm_str_from(name, 1);
    kind = cm_str_head(inside, inside.n - name.n);
    name = cm_str_trim(name);
    if (kind.n == 0) {
        COMPLAIN(ini, ini->line, "a section without a name");
        return;
    }
    title = cm_arena_printf(ini->arena, CM_PRI " " CM_PRI, CM_ARG(kind), CM_ARG(name));
    before = seen_before(ini, &ini->seen, title);
    if (before) {
        COMPLAIN(ini, ini->line,
                 "section [" CM_PRI "] stands in line %d already; put its keys there",
                 CM_ARG(cm_str_trim(title)), before);
        return;
    }
    ini->section = IN_SECTION;
    ini->kind = cm_arena_str(ini->arena, kind);
    ini->name = cm_arena_str(ini->arena, name);
    cm_map_clear(&ini->seen_keys);
    add_entry(ini, (struct cm_ini_entry){.kind = ini->kind, .name = ini->name, .line = ini->line});
}

static void begin_key(struct ini *ini, struct cm_str line)
{
    struct cm_str rest = line, key;
    int before;

    ini->key_state = IN_BAD_KEY;
    if (cm_str_find_char(line, '=') == SIZE_MAX) {
        COMPLAIN(ini, ini->line,
                 "neither key = value nor [section] nor a comment; an item of a list is indented");
        return;
    }
    key = cm_str_trim(cm_str_cut(&rest, '='));
    if (key.n == 0) {
        COMPLAIN(ini, ini->line, "a value without a key before the =");
        return;
    }
    if (ini->section == NO_SECTION)
        COMPLAIN(ini, ini->line, "a key before the first [section]");
    if (ini->section != IN_SECTION)
        return;
    key = cm_arena_str(ini->arena, key);
    before = seen_before(ini, &ini->seen_keys, key);
    if (before) {
        COMPLAIN(ini, ini->line, CM_PRI " stands in line %d of this section already", CM_ARG(key),
                 before);
        return;
    }
    ini->key_state = IN_KEY;
    ini->key =
        (struct cm_ini_entry){.kind = ini->kind, .name = ini->name, .key = key, .line = ini->line};
    pieces_add(&ini->lines, cm_str_trim(rest), false);
}

static void continue_key(struct ini *ini, struct cm_str line)
{
    if (ini->key_state != IN_KEY)
        return; /* what it continues has been complained about */
    /* finish_key() finds the line number of a piece by its place, so lines without text keep
     * theirs */
    while (ini->key.line + (int)ini->lines.n < ini->line)
        pieces_add(&ini->lines, CM_STR_NONE, false);
    pieces_add(&ini->lines, line, false);
}

static bool has_control(struct ini *ini, struct cm_str line)
{
    for (size_t i = 0; i < line.n; i++) {
        unsigned char c = (unsigned char)line.p[i];

        if ((c < ' ' && c != '\t') || c == 0x7f) {
            COMPLAIN(ini, ini->line, "%s in the line",
                     c == 0 ? "a NUL byte" : "a control character");
            return true;
        }
    }
    return false;
}

static void read_line(struct ini *ini, struct cm_str line)
{
    bool indented = line.n > 0 && is_blank(line.p[0]), continues, readable;
    struct cm_str text;

    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    text = cm_str_trim(line);
    if (text.n == 0)
        return; /* an empty line separates nothing: lists may have gaps */
    continues = indented && ini->key_state != NO_KEY;
    readable = !has_control(ini, line);
    if (!continues && readable && (text.p[0] == '#' || text.p[0] == ';'))
        return;
    if (!continues)
        finish_key(ini);
    if (!readable) {
        if (!continues)
            ini->key_state = IN_BAD_KEY;
    } else if (continues) {
        continue_key(ini, text);
    } else if (indented) {
        COMPLAIN(ini, ini->line,
                 "an indented line continues the value above, and there is none; begin the line "
                 "without blanks");
    } else if (text.p[0] == '[') {
        begin_section(ini, text);
    } else {
        begin_key(ini, text);
    }
}

void cm_ini_parse(struct cm_arena *arena, const char *file, struct cm_str text, cm_getenv_fn *env,
                  void *env_arg, struct cm_ini_entry **out, size_t *n, struct cm_problems *problems)
{
    struct ini ini = {
        .arena = arena, .file = file, .env = env, .env_arg = env_arg, .problems = problems};

    if (cm_str_starts(text, CM_S("\xEF\xBB\xBF")))
        text = cm_str_from(text, 3);
    while (text.n > 0) {
        ini.line++;
        read_line(&ini, cm_str_cut(&text, '\n'));
    }
    finish_key(&ini);
    *out = CM_ARENA_ARRAY(arena, struct cm_ini_entry, ini.n);
    if (ini.n > 0)
        memcpy(*out, ini.entries, ini.n * sizeof(*ini.entries));
    *n = ini.n;
    free(ini.entries);
    free(ini.lines.v);
    free(ini.items.v);
    cm_map_clear(&ini.seen);
    cm_map_clear(&ini.seen_keys);
}
