/* What each error class means, and how errors are made. */
#include "chatmux/base/err.h"

#include "chatmux/base/buf.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>

static const struct cm_err_info infos[] = {
    /* Shown when somebody failed without saying why: that is our own fault. */
    [CM_ERR_NONE] = {"none", 500, "server_error", NULL, CM_NEXT_STOP, CM_CRED_KEEP},
#define X(cls, text, status, type, code, next, cred)                                               \
    [CM_ERR_##cls] = {text, status, type, code, CM_NEXT_##next, CM_CRED_##cred},
    CM_ERR_MAP(X)
#undef X
};

const struct cm_err_info *cm_err_info(enum cm_err_class cls)
{
    CM_ASSERT((size_t)cls < CM_COUNT(infos));
    return &infos[cls];
}

/* Control characters are C0, DEL, and C1, which is C2 80 to C2 9F: terminals obey those as well. */
static void blank_controls(char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];

        if (c < 0x20 || c == 0x7f) {
            p[i] = ' ';
        } else if (c == 0xc2 && i + 1 < n && (unsigned char)p[i + 1] < 0xa0) {
            p[i] = ' ';
            p[++i] = ' ';
        }
    }
}

/* Text from anywhere into a field of the error: valid UTF-8, no control characters, cut at a
 * character. */
static void put_text(char *field, size_t cap, const char *text)
{
    struct cm_buf clean = {0};
    size_t n;

    cm_utf8_clean(&clean, cm_str_of(text));
    n = cm_str_copy(field, cap, cm_utf8_head(cm_buf_str(&clean), cap - 1));
    blank_controls(field, n);
    cm_buf_clear(&clean);
}

/* The arguments may point into *err: it is written last. */
__attribute__((format(printf, 4, 0))) static void
fill(struct cm_err *err, enum cm_err_class cls, const char *param, const char *fmt, va_list ap)
{
    char text[sizeof(err->msg) + 4]; /* a character cut here is not shown at all */
    struct cm_err made = {.cls = cls};

    if (!err)
        return;
    if (vsnprintf(text, sizeof(text), fmt, ap) < 0)
        text[0] = '\0';
    put_text(made.msg, sizeof(made.msg), text);
    put_text(made.param, sizeof(made.param), param);
    *err = made;
}

int cm_fail(struct cm_err *err, enum cm_err_class cls, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fill(err, cls, NULL, fmt, ap);
    va_end(ap);
    return -1;
}

int cm_fail_param(struct cm_err *err, enum cm_err_class cls, const char *param, const char *fmt,
                  ...)
{
    va_list ap;

    va_start(ap, fmt);
    fill(err, cls, param, fmt, ap);
    va_end(ap);
    return -1;
}

int cm_err_status(const struct cm_err *err)
{
    if (err->http_status != 0)
        return err->http_status;
    if (err->cls == CM_ERR_NO_CREDENTIAL && err->retry_after_s > 0)
        return 429;
    return cm_err_info(err->cls)->http_status;
}

const char *cm_err_code(const struct cm_err *err)
{
    return err->code[0] != '\0' ? err->code : cm_err_info(err->cls)->code;
}
