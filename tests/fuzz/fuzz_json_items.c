/* The reader of array elements: what it finds does not depend on where the text is cut. Input: limit, step of the cuts, then the text. */
#include "chatmux/codec/json_items.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    struct cm_buf items, raws;
    int rc;
};

static int note(void *arg, struct cm_str item, struct cm_str raw)
{
    struct seen *s = arg;

    CM_ASSERT(raw.n > 0 && item.n <= raw.n);
    cm_buf_put(&s->items, item.p ? '+' : '-');
    cm_buf_append(&s->items, item);
    cm_buf_append(&s->raws, raw);
    return 0;
}

/* Each piece in memory of its own, so that AddressSanitizer sees who keeps a slice. */
static struct seen read_all(struct cm_str text, size_t step, size_t limit)
{
    struct seen s = {0};
    struct cm_json_items reader;
    struct cm_err err;

    cm_json_items_init(&reader, limit);
    while (text.n > 0 && s.rc == 0) {
        struct cm_str now = cm_str_head(text, step);
        char *copy = cm_str_dup(now);

        s.rc = cm_json_items_feed(&reader, cm_str(copy, now.n), note, &s, &err);
        free(copy);
        text = cm_str_from(text, now.n);
    }
    cm_json_items_clear(&reader);
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_str text;
    struct seen whole, cut;
    size_t limit, step;

    if (size < 2)
        return 0;
    limit = 1 + (size_t)data[0] * 4;
    step = 1 + data[1] % 16;
    text = cm_str((const char *)data + 2, size - 2);
    whole = read_all(text, SIZE_MAX, limit);
    cut = read_all(text, step, limit);
    /* an error may be found sooner or later, what was given before it is the same */
    CM_ASSERT(whole.rc == cut.rc);
    if (whole.rc == 0) {
        CM_ASSERT(cm_str_eq(cm_buf_str(&whole.items), cm_buf_str(&cut.items)));
        CM_ASSERT(cm_str_eq(cm_buf_str(&whole.raws), cm_buf_str(&cut.raws)));
    }
    CM_ASSERT(cm_str_starts(text, cm_buf_str(&whole.raws)));
    CM_ASSERT(cm_str_starts(text, cm_buf_str(&cut.raws)));
    cm_buf_clear(&whole.items);
    cm_buf_clear(&whole.raws);
    cm_buf_clear(&cut.items);
    cm_buf_clear(&cut.raws);
    return 0;
}
