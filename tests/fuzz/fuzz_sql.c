/* Dumps of other gateways: any text gives rows or a refusal with a line, and values read as text. Input: the dump. */
#include "chatmux/base/mem.h"
#include "import/import_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_row(void *arg, const struct import_row *row, struct cm_err *err)
{
    struct cm_arena arena = {0};
    struct cm_str text;

    (void)err;
    ++*(size_t *)arg;
    CM_ASSERT(row->table.n > 0 && row->n > 0 && row->n <= IMPORT_COLUMNS_MAX && row->line > 0);
    for (size_t i = 0; i < row->n; i++) {
        char *column = cm_arena_z(&arena, row->columns[i]);

        CM_ASSERT(row->columns[i].n > 0);
        /* of doubled names the first value */
        (void)import_text(&arena, row, column, &text);
        (void)import_time(&arena, row, column);
    }
    cm_arena_clear(&arena);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_err err = {0};
    size_t rows = 0;

    if (import_sql(cm_str((const char *)data, size), on_row, &rows, &err) < 0)
        CM_ASSERT(err.cls == CM_ERR_BAD_REQUEST && strncmp(err.msg, "line ", 5) == 0);
    return 0;
}
