/* multipart/form-data (RFC 7578) as slices of its body: which fields there are and where they stand,
 * so that one of them can be replaced and every other byte stays.
 *
 * Strict where readers differ, because the field that we read must be the one that a server behind us
 * reads: CRLF line ends, one Content-Disposition for each part, names in plain characters, no transfer
 * encoding, and the boundary nowhere but at the seams (RFC 2046 5.1.1). Any thread. */
#ifndef CHATMUX_CODEC_FORM_H
#define CHATMUX_CODEC_FORM_H

#include "chatmux/base/arena.h"
#include "chatmux/base/err.h"

struct cm_form_field {
    struct cm_str name;
    struct cm_str file;       /* its file name, as written; only when is_file */
    struct cm_str media_type; /* of the part; empty = not told */
    struct cm_str data;       /* slice of the body */
    bool is_file;
};

struct cm_form {
    struct cm_str boundary;
    struct cm_form_field *fields; /* in their order; in the arena */
    size_t n;
    size_t begins; /* offset of the first seam: a part put in there is the first one */
};

#define CM_FORM_FIELDS_MAX 256

/* Whether this Content-Type announces such a body. */
bool cm_form_is(struct cm_str content_type);
/* CM_ERR_BAD_REQUEST says what is wrong with the content type or the body. */
int cm_form_parse(struct cm_arena *arena, struct cm_str content_type, struct cm_str body,
                  struct cm_form *out, struct cm_err *err);
/* The first field of that name, or NULL. */
const struct cm_form_field *cm_form_find(const struct cm_form *form, struct cm_str name);

#endif
