/* Forms: every slice lies in the body, fields stand in order, the seams are where the fields end, and putting a field's own bytes back changes
 * nothing. Input: a content type, LF, the body. */
#include "chatmux/codec/form.h"

#include "chatmux/base/buf.h"
#include "chatmux/base/mem.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool lies_in(struct cm_str part, struct cm_str whole)
{
    return part.n == 0 || (part.p >= whole.p && part.p + part.n <= whole.p + whole.n);
}

/* The same body with other bytes in one field has the same fields around it. */
static void check_replaced(struct cm_arena *arena, struct cm_str type, struct cm_str body,
                           const struct cm_form *form, size_t at)
{
    const struct cm_form_field *f = &form->fields[at];
    const size_t begins = (size_t)(f->data.p - body.p);
    struct cm_form again;
    struct cm_buf out = {0};
    struct cm_err err;

    cm_buf_append(&out, cm_str_head(body, begins));
    cm_buf_append(&out, CM_S("theirs"));
    cm_buf_append(&out, cm_str_from(body, begins + f->data.n));
    CM_ASSERT(cm_form_parse(arena, type, cm_buf_str(&out), &again, &err) == 0);
    CM_ASSERT(again.n == form->n);
    for (size_t i = 0; i < form->n; i++) {
        CM_ASSERT(cm_str_eq(again.fields[i].name, form->fields[i].name));
        CM_ASSERT(cm_str_eq(again.fields[i].data, i == at ? CM_S("theirs") : form->fields[i].data));
    }
    cm_buf_clear(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_str body = cm_str((const char *)data, size), type = cm_str_cut(&body, '\n');
    struct cm_arena arena = {0};
    struct cm_err err = {0};
    struct cm_form form;
    const char *last = body.p;

    if (cm_form_parse(&arena, type, body, &form, &err) < 0) {
        CM_ASSERT(err.cls == CM_ERR_BAD_REQUEST && err.msg[0] != '\0');
        cm_arena_clear(&arena);
        return 0;
    }
    CM_ASSERT(cm_form_is(type) && form.begins < body.n && form.n <= CM_FORM_FIELDS_MAX);
    for (size_t i = 0; i < form.n; i++) {
        const struct cm_form_field *f = &form.fields[i];

        CM_ASSERT(f->name.n > 0 && lies_in(f->name, body) && lies_in(f->data, body));
        CM_ASSERT(lies_in(f->file, body) && lies_in(f->media_type, body));
        CM_ASSERT(f->name.p >= last);
        last = f->data.n > 0 ? f->data.p + f->data.n : f->name.p;
    }
    for (size_t i = 0; i < form.n && i < 3; i++)
        if (form.fields[i].data.n > 0)
            check_replaced(&arena, type, body, &form, i);
    cm_arena_clear(&arena);
    return 0;
}
