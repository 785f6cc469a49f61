/* Rows out of a dump: the text that mysqldump, `sqlite3 .dump` and similar tools write. Of SQL only as much is understood as is needed
 * to find the values: CREATE TABLE (for the order of the columns) and INSERT or REPLACE with VALUES; everything else is stepped over. */
#include "import_int.h"

#include "chatmux/base/map.h"
#include "chatmux/base/mem.h"

#include <strings.h>

struct dump {
    struct cm_str text;
    size_t at;
    size_t line, line_at;  /* line of the byte line_at, which is before `at`; from 1 */
    bool backslash;        /* strings have escapes: MySQL */
    struct cm_arena arena; /* names of columns */
    struct cm_map tables;  /* name -> struct columns */
    import_row_fn *fn;
    void *arg;
    struct cm_err *err;
};

struct columns {
    struct cm_str names[IMPORT_COLUMNS_MAX];
    size_t n;
};

static size_t line_of(struct dump *d, size_t at)
{
    for (; d->line_at < at; d->line_at++)
        d->line += d->text.p[d->line_at] == '\n';
    return d->line;
}

static int fail(struct dump *d, size_t at, const char *what)
{
    return cm_fail(d->err, CM_ERR_BAD_REQUEST, "line %zu: %s", line_of(d, at), what);
}

static char peek(const struct dump *d, size_t ahead)
{
    return d->at + ahead < d->text.n ? d->text.p[d->at + ahead] : '\0';
}

static bool at_end(const struct dump *d)
{
    return d->at >= d->text.n;
}

static void skip_line(struct dump *d)
{
    while (!at_end(d) && d->text.p[d->at] != '\n')
        d->at++;
}

static void skip_block(struct dump *d)
{
    struct cm_str rest = cm_str_from(d->text, d->at + 2);
    size_t n = cm_str_find(rest, CM_S("*/"));

    d->at = n == SIZE_MAX ? d->text.n : d->at + 2 + n + 2;
}

/* White space and comments; what MySQL executes within comments holds no rows. */
static void skip_space(struct dump *d)
{
    for (;;) {
        char c = peek(d, 0);

        if (at_end(d))
            return;
        if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
            d->at++;
        else if (c == '#' || (c == '-' && peek(d, 1) == '-'))
            skip_line(d);
        else if (c == '/' && peek(d, 1) == '*')
            skip_block(d);
        else
            return;
    }
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '$' || (unsigned char)c >= 0x80;
}

/* What stands between quotes, escapes and all; the quote is at d->at. */
static int quoted(struct dump *d, struct cm_str *raw)
{
    size_t from = d->at;
    char quote = d->text.p[d->at++];

    for (; !at_end(d); d->at++) {
        char c = d->text.p[d->at];

        if (c == '\\' && d->backslash && quote != '`') {
            d->at++;
        } else if (c == quote && peek(d, 1) == quote) {
            d->at++;
        } else if (c == quote) {
            *raw = cm_str(d->text.p + from + 1, d->at - from - 1);
            d->at++;
            return 0;
        }
    }
    return fail(d, from, "a text that begins here does not end: the dump is cut");
}

static struct cm_str word(struct dump *d)
{
    size_t from = d->at;

    while (!at_end(d) && is_word(d->text.p[d->at]))
        d->at++;
    return cm_str(d->text.p + from, d->at - from);
}

static bool is(struct cm_str s, const char *keyword)
{
    return cm_str_eq_nocase(s, cm_str_of(keyword));
}

/* `name`, "name", [name], name; of database.name the last. */
static int name(struct dump *d, struct cm_str *out)
{
    *out = CM_STR_NONE;
    do {
        char c;

        skip_space(d);
        c = peek(d, 0);
        if (c == '[') {
            struct cm_str rest = cm_str_from(d->text, d->at + 1);

            if (cm_str_find_char(rest, ']') == SIZE_MAX)
                return fail(d, d->at, "a name that begins here does not end: the dump is cut");
            *out = cm_str_cut(&rest, ']');
            d->at += out->n + 2;
        } else if (c == '`' || c == '"' || c == '\'') {
            if (quoted(d, out) < 0)
                return -1;
        } else {
            *out = word(d);
        }
        skip_space(d);
    } while (peek(d, 0) == '.' && ++d->at);
    return out->n > 0 ? 0 : fail(d, d->at, "a name is expected here");
}

/* Up to a byte of `ends` outside of quotes and brackets, which is not taken. */
static int skip_to(struct dump *d, const char *ends)
{
    struct cm_str raw;
    int depth = 0;

    for (skip_space(d); !at_end(d); skip_space(d)) {
        char c = d->text.p[d->at];

        if (depth == 0 && strchr(ends, c))
            return 0;
        if (c == '\'' || c == '"' || c == '`') {
            if (quoted(d, &raw) < 0)
                return -1;
            continue;
        }
        depth += c == '(';
        depth -= c == ')' && depth > 0;
        d->at++;
    }
    return 0;
}

/* ---- CREATE TABLE ---- */

static bool is_column(struct cm_str first, bool was_quoted)
{
    static const char *const others[] = {"PRIMARY", "KEY",      "UNIQUE",  "INDEX", "CONSTRAINT",
                                         "FOREIGN", "FULLTEXT", "SPATIAL", "CHECK"};

    for (size_t i = 0; i < CM_COUNT(others) && !was_quoted; i++)
        if (is(first, others[i]))
            return false;
    return true;
}

static int create_table(struct dump *d)
{
    struct columns *columns = CM_ARENA_NEW(&d->arena, struct columns);
    struct cm_str table = CM_STR_NONE, column = CM_STR_NONE;

    if (name(d, &table) < 0)
        return -1;
    while (is(table, "IF") || is(table, "NOT") || is(table, "EXISTS")) {
        if (name(d, &table) < 0)
            return -1;
    }
    if (peek(d, 0) != '(')
        return 0; /* AS SELECT, LIKE: nothing to learn */
    do {
        bool was_quoted;

        d->at++;
        skip_space(d);
        was_quoted = !is_word(peek(d, 0));
        if (name(d, &column) < 0)
            return -1;
        if (is_column(column, was_quoted) && columns->n < IMPORT_COLUMNS_MAX)
            columns->names[columns->n++] = column;
        if (skip_to(d, ",)") < 0)
            return -1;
    } while (peek(d, 0) == ',');
    cm_map_put(&d->tables, table, columns);
    return 0;
}

/* ---- INSERT ---- */

static int column_list(struct dump *d, struct columns *out)
{
    out->n = 0;
    do {
        d->at++;
        if (out->n == IMPORT_COLUMNS_MAX)
            return fail(d, d->at, "more columns than any table of that system has");
        if (name(d, &out->names[out->n++]) < 0)
            return -1;
    } while (peek(d, 0) == ',');
    if (peek(d, 0) != ')')
        return fail(d, d->at, "a list of columns is expected to end here");
    d->at++;
    return 0;
}

static bool is_hex(struct cm_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!strchr("0123456789abcdefABCDEF", s.p[i]))
            return false;
    return s.n % 2 == 0;
}

/* A value that is no text: NULL, a number, 0x…, X'…', _binary '…', or something else. */
static int bare_value(struct dump *d, struct import_value *v)
{
    size_t from = d->at;
    struct cm_str w = word(d), raw;
    char quote = peek(d, 0);

    if (w.n > 0 && (w.p[0] == '_' || is(w, "N"))) { /* _binary, _utf8mb4, national */
        skip_space(d);
        quote = peek(d, 0);
    }
    if (w.n > 0 && (w.p[0] == '_' || is(w, "N") || is(w, "X")) && (quote == '\'' || quote == '"')) {
        if (quoted(d, &raw) < 0)
            return -1;
        v->kind = is(w, "X") ? IMPORT_HEX : d->backslash ? IMPORT_BACKSLASH : IMPORT_QUOTED;
        v->quote = quote;
        v->raw = raw;
        return 0;
    }
    if (skip_to(d, ",)") < 0)
        return -1;
    v->raw = cm_str_trim(cm_str(d->text.p + from, d->at - from));
    v->kind = IMPORT_PLAIN;
    if (is(v->raw, "NULL")) {
        v->kind = IMPORT_NULL;
    } else if (cm_str_starts_nocase(v->raw, CM_S("0x"))) {
        v->raw = cm_str_from(v->raw, 2);
        v->kind = is_hex(v->raw) ? IMPORT_HEX : IMPORT_UNREAD;
    } else if (!is(v->raw, "TRUE") && !is(v->raw, "FALSE")) {
        for (size_t i = 0; i < v->raw.n; i++)
            if (!strchr("0123456789+-.eE", v->raw.p[i]))
                v->kind = IMPORT_UNREAD;
    }
    return 0;
}

static int value(struct dump *d, struct import_value *v)
{
    char c;

    *v = (struct import_value){.kind = IMPORT_NULL};
    skip_space(d);
    c = peek(d, 0);
    if (c != '\'' && c != '"')
        return bare_value(d, v);
    v->kind = d->backslash ? IMPORT_BACKSLASH : IMPORT_QUOTED;
    v->quote = c;
    if (quoted(d, &v->raw) < 0)
        return -1;
    skip_space(d);
    if (peek(d, 0) == ',' || peek(d, 0) == ')')
        return 0;
    v->kind = IMPORT_UNREAD; /* 'a' || 'b' and the like */
    return skip_to(d, ",)");
}

static int one_row(struct dump *d, struct cm_str table, const struct columns *columns)
{
    struct import_value values[IMPORT_COLUMNS_MAX];
    struct import_row row = {.table = table, .values = values};
    size_t from = d->at;

    do {
        d->at++;
        if (row.n == IMPORT_COLUMNS_MAX)
            return fail(d, from, "more values than any table of that system has columns");
        if (value(d, &values[row.n++]) < 0)
            return -1;
    } while (peek(d, 0) == ',');
    if (peek(d, 0) != ')')
        return fail(d, from, "the row that begins here does not end: the dump is cut");
    d->at++;
    if (!columns || columns->n != row.n)
        return fail(d, from,
                    columns
                        ? "this row has another number of values than its table has columns"
                        : "which columns are these? The dump has no CREATE TABLE of this table; "
                          "make it with --complete-insert");
    row.columns = columns->names;
    row.line = line_of(d, from);
    return d->fn(d->arg, &row, d->err);
}

static int insert(struct dump *d)
{
    struct columns own, *columns;
    struct cm_str table = CM_STR_NONE, w;

    do { /* INSERT IGNORE INTO, INSERT OR REPLACE INTO … */
        skip_space(d);
        w = word(d);
    } while (w.n > 0 && !is(w, "INTO"));
    if (name(d, &table) < 0)
        return -1;
    columns = cm_map_get(&d->tables, table);
    skip_space(d);
    if (peek(d, 0) == '(') {
        if (column_list(d, &own) < 0)
            return -1;
        columns = &own;
    }
    skip_space(d);
    w = word(d);
    if (!is(w, "VALUES") && !is(w, "VALUE"))
        return 0; /* INSERT … SELECT: no rows of its own */
    for (;;) {
        skip_space(d);
        if (peek(d, 0) == ',')
            d->at++;
        else if (peek(d, 0) != '(')
            return 0;
        else if (one_row(d, table, columns) < 0)
            return -1;
    }
}

/* ---- statements ---- */

static int statement(struct dump *d)
{
    struct cm_str first = word(d), second;

    if (is(first, "PRAGMA"))
        d->backslash = false; /* written by sqlite3, whose texts have no escapes */
    if (is(first, "INSERT") || is(first, "REPLACE")) {
        if (insert(d) < 0)
            return -1;
    } else if (is(first, "CREATE")) {
        skip_space(d);
        second = word(d);
        if (is(second, "TABLE") && create_table(d) < 0)
            return -1;
    }
    if (skip_to(d, ";") < 0)
        return -1;
    d->at++;
    return 0;
}

int import_sql(struct cm_str text, import_row_fn *fn, void *arg, struct cm_err *err)
{
    struct cm_err ignored;
    struct dump d = {.text = text,
                     .line = 1,
                     .backslash = true,
                     .fn = fn,
                     .arg = arg,
                     .err = err ? err : &ignored};
    int rc = 0;

    for (skip_space(&d); rc == 0 && !at_end(&d); skip_space(&d))
        rc = statement(&d);
    cm_map_clear(&d.tables);
    cm_arena_clear(&d.arena);
    return rc;
}
