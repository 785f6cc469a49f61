/* Rows of foreign tables, whatever file they come from. */
#ifndef CHATMUX_SRC_IMPORT_INT_H
#define CHATMUX_SRC_IMPORT_INT_H

#include "chatmux/import/import.h"

#define IMPORT_COLUMNS_MAX 64

struct import_value {
    enum {
        IMPORT_NULL,
        IMPORT_PLAIN,     /* as it is */
        IMPORT_QUOTED,    /* between quotes, which are doubled within */
        IMPORT_BACKSLASH, /* the same, with backslashes, as MySQL writes */
        IMPORT_HEX,       /* digits of 0x… or X'…' */
        IMPORT_UNREAD     /* an expression that is not understood */
    } kind;
    struct cm_str raw; /* borrowed for the callback */
    char quote;
};
/* Names are without quotes and database, as the file spells them. */
struct import_row {
    struct cm_str table;
    const struct cm_str *columns;
    const struct import_value *values;
    size_t n;
    size_t line; /* of the file; 0 = it has none */
};
/* -1 with *err ends the reading. */
typedef int import_row_fn(void *arg, const struct import_row *row, struct cm_err *err);

/* The value of a column (names are compared without letter case) as text, in the arena or borrowed. False: NULL, no such column, or not
 * understood. */
bool import_text(struct cm_arena *arena, const struct import_row *row, const char *column,
                 struct cm_str *out);
/* "2025-03-01 10:00:00", with a fraction and an offset perhaps; without an offset local time. 0 = none. Unix seconds. */
int64_t import_time(struct cm_arena *arena, const struct import_row *row, const char *column);

/* sql_text.c: every row of every INSERT or REPLACE of a dump. */
int import_sql(struct cm_str text, import_row_fn *fn, void *arg, struct cm_err *err);
/* sqlite_file.c: every row of these tables (NULL at the end); one that is not there has none. */
int import_sqlite(const char *path, const char *const *tables, import_row_fn *fn, void *arg,
                  struct cm_err *err);

#endif
