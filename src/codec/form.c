/* multipart/form-data: one pass over the body from seam to seam. */
#include "chatmux/codec/form.h"

#include "chatmux/base/mem.h"

#define BOUNDARY_MAX 70              /* RFC 2046 5.1.1 */
#define HEAD_MAX ((size_t)16 * 1024) /* of one part */

static int bad(struct cm_err *err, const char *why)
{
    return cm_fail(err, CM_ERR_BAD_REQUEST, "The form in the request body cannot be read: %s.",
                   why);
}

/* ---- Header values with parameters ---- */

static bool is_token_char(char c)
{
    return c > ' ' && c < 127 && !strchr("()<>@,;:\\\"/[]?=", c);
}

static void skip_blanks(struct cm_str *s)
{
    while (s->n > 0 && (s->p[0] == ' ' || s->p[0] == '\t'))
        *s = cm_str_from(*s, 1);
}

static struct cm_str take_token(struct cm_str *s)
{
    size_t n = 0;
    struct cm_str token;

    while (n < s->n && is_token_char(s->p[n]))
        n++;
    token = cm_str_head(*s, n);
    *s = cm_str_from(*s, n);
    return token;
}

/* What stands between quotes, as written; false without a closing one. */
static bool take_quoted(struct cm_str *s, struct cm_str *out)
{
    size_t n = 1;

    while (n < s->n && s->p[n] != '"')
        n += s->p[n] == '\\' ? 2 : 1;
    if (n >= s->n)
        return false;
    *out = cm_str(s->p + 1, n - 1);
    *s = cm_str_from(*s, n + 1);
    return true;
}

/* "; name=value" from the front of *s: 1, 0 at its end, -1 when it is none. */
static int take_param(struct cm_str *s, struct cm_str *name, struct cm_str *value)
{
    skip_blanks(s);
    if (s->n == 0)
        return 0;
    if (s->p[0] != ';')
        return -1;
    *s = cm_str_from(*s, 1);
    skip_blanks(s);
    if (s->n == 0)
        return 0; /* one semicolon too many is common */
    *name = take_token(s);
    if (name->n == 0 || s->n == 0 || s->p[0] != '=')
        return -1;
    *s = cm_str_from(*s, 1);
    if (s->n > 0 && s->p[0] == '"')
        return take_quoted(s, value) ? 1 : -1;
    *value = take_token(s);
    return value->n > 0 ? 1 : -1;
}

static const struct cm_str form_type = CM_S_INIT("multipart/form-data");

bool cm_form_is(struct cm_str content_type)
{
    content_type = cm_str_trim(content_type);
    return cm_str_starts_nocase(content_type, form_type) &&
           (content_type.n == form_type.n || !is_token_char(content_type.p[form_type.n]));
}

static bool boundary_ok(struct cm_str b)
{
    for (size_t i = 0; i < b.n; i++)
        if (b.p[i] < ' ' || b.p[i] > '~' || b.p[i] == '"' || b.p[i] == '\\')
            return false;
    return b.n > 0 && b.n <= BOUNDARY_MAX && b.p[b.n - 1] != ' ';
}

static int read_boundary(struct cm_str content_type, struct cm_str *out, struct cm_err *err)
{
    struct cm_str rest = cm_str_from(cm_str_trim(content_type), form_type.n), name, value;
    int more;

    if (!cm_form_is(content_type))
        return cm_fail(err, CM_ERR_BAD_REQUEST,
                       "This request takes a form: send it as multipart/form-data.");
    *out = CM_STR_NONE;
    while ((more = take_param(&rest, &name, &value)) > 0) {
        if (!cm_str_eq_nocase(name, CM_S("boundary")))
            continue;
        if (out->n > 0 || !boundary_ok(value))
            more = -1;
        if (more < 0)
            break;
        *out = value;
    }
    return more < 0 || out->n == 0 ? bad(err, "its Content-Type names no usable boundary") : 0;
}

/* ---- The head of a part ---- */

/* Readers resolve escapes in different ways, and some the extended spelling: such names are none. */
static bool name_ok(struct cm_str name)
{
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] < ' ' || name.p[i] == '\\' || name.p[i] == 127)
            return false;
    return name.n > 0;
}

static int read_disposition(struct cm_str value, struct cm_form_field *field, struct cm_err *err)
{
    struct cm_str kind, name, text;
    int more;

    skip_blanks(&value);
    kind = take_token(&value);
    if (!cm_str_eq_nocase(kind, CM_S("form-data")))
        return bad(err, "a part is no form-data");
    while ((more = take_param(&value, &name, &text)) > 0) {
        if (cm_str_eq_nocase(name, CM_S("name"))) {
            if (field->name.n > 0 || !name_ok(text))
                return bad(err, "the name of a field must be there once, in plain characters");
            field->name = text;
        } else if (cm_str_eq_nocase(name, CM_S("name*"))) {
            return bad(err, "the name of a field must be there once, in plain characters");
        } else if (cm_str_eq_nocase(name, CM_S("filename"))) {
            field->file = text;
            field->is_file = true;
        } else if (cm_str_eq_nocase(name, CM_S("filename*"))) {
            field->is_file = true;
        }
    }
    if (more < 0 || field->name.n == 0)
        return bad(err, "a part has no name that can be read");
    return 0;
}

static int read_encoding(struct cm_str value, struct cm_err *err)
{
    static const struct cm_str plain[] = {CM_S_INIT("binary"), CM_S_INIT("8bit"),
                                          CM_S_INIT("7bit")};

    for (size_t i = 0; i < CM_COUNT(plain); i++)
        if (cm_str_eq_nocase(cm_str_trim(value), plain[i]))
            return 0;
    return bad(err, "a part is encoded; send its bytes as they are");
}

static int read_head(struct cm_str head, struct cm_form_field *field, struct cm_err *err)
{
    bool disposed = false;

    while (head.n > 0) {
        const size_t end = cm_str_find(head, CM_S("\r\n"));
        struct cm_str line = cm_str_head(head, end), name;

        head = end == SIZE_MAX ? CM_STR_NONE : cm_str_from(head, end + 2);
        if (cm_str_find_char(line, '\n') != SIZE_MAX || cm_str_find_char(line, '\r') != SIZE_MAX)
            return bad(err, "a line of a part's head ends without CRLF");
        if (cm_str_find_char(line, ':') == SIZE_MAX)
            return bad(err, "a line of a part's head is no header");
        name = cm_str_cut(&line, ':');
        for (size_t i = 0; i < name.n; i++)
            if (!is_token_char(name.p[i]))
                return bad(err, "a line of a part's head is no header");
        if (cm_str_eq_nocase(name, CM_S("content-disposition"))) {
            if (disposed)
                return bad(err, "a part has two Content-Dispositions");
            disposed = true;
            if (read_disposition(line, field, err))
                return -1;
        } else if (cm_str_eq_nocase(name, CM_S("content-type"))) {
            field->media_type = cm_str_trim(line);
        } else if (cm_str_eq_nocase(name, CM_S("content-transfer-encoding")) &&
                   read_encoding(line, err)) {
            return -1;
        }
    }
    return disposed ? 0 : bad(err, "a part has no Content-Disposition");
}

/* ---- The body ---- */

struct reading {
    struct cm_str body;
    struct cm_str seam; /* "--" and the boundary */
    size_t at;          /* behind the seam that was passed last */
};

/* Offset of the next seam, which must begin a line; SIZE_MAX when there is none or it does not. */
static size_t next_seam(const struct reading *r, size_t from)
{
    const size_t found = cm_str_find(cm_str_from(r->body, from), r->seam);
    const size_t at = found == SIZE_MAX ? SIZE_MAX : from + found;

    if (at == SIZE_MAX || at == 0)
        return at;
    return at >= 2 && memcmp(r->body.p + at - 2, "\r\n", 2) == 0 ? at : SIZE_MAX;
}

/* What follows a seam: 1 = a part, 0 = it was the last one, -1. */
static int after_seam(struct reading *r)
{
    struct cm_str rest = cm_str_from(r->body, r->at);

    if (cm_str_starts(rest, CM_S("--")))
        return cm_str_has(cm_str_from(rest, 2), r->seam) ? -1 : 0;
    skip_blanks(&rest);
    if (!cm_str_starts(rest, CM_S("\r\n")))
        return -1;
    r->at = r->body.n - rest.n + 2;
    return 1;
}

/* From the first line of its head up to the next seam. */
static int read_part(struct reading *r, struct cm_form_field *field, struct cm_err *err)
{
    struct cm_str rest = cm_str_from(r->body, r->at);
    const size_t head_end = cm_str_find(cm_str_head(rest, HEAD_MAX), CM_S("\r\n\r\n"));
    size_t data, seam;

    if (head_end == SIZE_MAX)
        return bad(err, "a part has no head, or one that is too large");
    *field = (struct cm_form_field){0};
    if (read_head(cm_str_head(rest, head_end), field, err))
        return -1;
    data = r->at + head_end + 4;
    seam = next_seam(r, r->at);
    if (seam == SIZE_MAX || seam < data)
        return bad(err, "a part has no end");
    /* a part without a body has the line end of its head in front of the seam */
    field->data = seam == data ? CM_STR_NONE : cm_str(r->body.p + data, seam - 2 - data);
    r->at = seam + r->seam.n;
    return 0;
}

int cm_form_parse(struct cm_arena *arena, struct cm_str content_type, struct cm_str body,
                  struct cm_form *out, struct cm_err *err)
{
    struct cm_form_field *fields = CM_ARENA_ARRAY(arena, struct cm_form_field, CM_FORM_FIELDS_MAX);
    struct reading r = {.body = body};
    struct cm_form form = {.fields = fields};
    size_t first;
    int more;

    if (read_boundary(content_type, &form.boundary, err))
        return -1;
    r.seam = cm_arena_printf(arena, "--" CM_PRI, CM_ARG(form.boundary));
    first = next_seam(&r, 0);
    if (first == SIZE_MAX)
        return bad(err, "the boundary of its Content-Type does not begin a line of it");
    form.begins = first;
    r.at = first + r.seam.n;
    while ((more = after_seam(&r)) > 0) {
        if (form.n == CM_FORM_FIELDS_MAX)
            return bad(err, "it has too many fields");
        if (read_part(&r, &fields[form.n++], err))
            return -1;
    }
    if (more < 0)
        return bad(err, "a boundary is followed by something else than a line end");
    *out = form;
    return 0;
}

const struct cm_form_field *cm_form_find(const struct cm_form *form, struct cm_str name)
{
    for (size_t i = 0; i < form->n; i++)
        if (cm_str_eq(form->fields[i].name, name))
            return &form->fields[i];
    return NULL;
}
