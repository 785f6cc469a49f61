/* Rows out of another program's SQLite file, which is only read. */
#include "import_int.h"

#include "chatmux/base/mem.h"

#include <sqlite3.h>
#include <stdio.h>

static struct cm_str column_text(sqlite3_stmt *st, int at)
{
    const void *p = sqlite3_column_blob(st, at);

    return cm_str(p, p ? (size_t)sqlite3_column_bytes(st, at) : 0);
}

static int give_row(sqlite3_stmt *st, const char *table, import_row_fn *fn, void *arg,
                    struct cm_err *err)
{
    struct import_value values[IMPORT_COLUMNS_MAX];
    struct cm_str columns[IMPORT_COLUMNS_MAX];
    struct import_row row = {.table = cm_str_of(table), .columns = columns, .values = values};
    int n = sqlite3_column_count(st);

    for (int i = 0; i < n && i < IMPORT_COLUMNS_MAX; i++) {
        bool null = sqlite3_column_type(st, i) == SQLITE_NULL;

        columns[i] = cm_str_of(sqlite3_column_name(st, i));
        values[i] = (struct import_value){.kind = null ? IMPORT_NULL : IMPORT_PLAIN,
                                          .raw = column_text(st, i)};
        row.n++;
    }
    return fn(arg, &row, err);
}

static int read_table(sqlite3 *db, const char *table, import_row_fn *fn, void *arg,
                      struct cm_err *err)
{
    sqlite3_stmt *st = NULL;
    char sql[128];
    int rc, failed = 0;

    rc = sqlite3_table_column_metadata(db, NULL, table, NULL, NULL, NULL, NULL, NULL, NULL);
    if (rc == SQLITE_ERROR)
        return 0; /* no such table */
    if (rc != SQLITE_OK)
        return cm_fail(err, CM_ERR_IO, "%s", sqlite3_errmsg(db));
    snprintf(sql, sizeof(sql), "SELECT * FROM \"%s\"", table);
    rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);
    while (rc == SQLITE_OK && !failed && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        failed = give_row(st, table, fn, arg, err);
        rc = SQLITE_OK;
    }
    if (!failed && rc != SQLITE_DONE)
        failed = cm_fail(err, CM_ERR_IO, "table %s: %s", table, sqlite3_errmsg(db));
    sqlite3_finalize(st);
    return failed;
}

int import_sqlite(const char *path, const char *const *tables, import_row_fn *fn, void *arg,
                  struct cm_err *err)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL),
        failed = 0;

    if (rc == SQLITE_OK) {
        sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
        sqlite3_busy_timeout(db, 2500);
        for (; *tables && !failed; tables++)
            failed = read_table(db, *tables, fn, arg, err);
    } else {
        failed = cm_fail(err, CM_ERR_IO, "%s", db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
    }
    sqlite3_close(db);
    return failed;
}
