/* Reading a fixture. */
#include "fixture.h"

#include "chatmux/base/buf.h"

#include <check.h>
#include <stdio.h>

char *fixture(const char *name)
{
    struct cm_buf path = {0}, text = {0};
    size_t n;
    FILE *f;

    cm_buf_printf(&path, "tests/fixtures/%s", name);
    f = fopen(cm_buf_z(&path), "rb");
    ck_assert_msg(f != NULL, "%s cannot be read", path.p);
    while (!feof(f) && !ferror(f)) {
        n = fread(cm_buf_reserve(&text, 4096), 1, 4096, f);
        text.n += n;
    }
    fclose(f);
    cm_buf_clear(&path);
    cm_buf_z(&text);
    return text.p;
}
