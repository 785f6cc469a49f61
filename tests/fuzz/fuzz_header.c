/* Header fields: what may be sent cannot break out of its line, a wait is bounded whatever a
 * platform writes, and dates survive the way out and in. Input: a name, LF, a value. */
#include "chatmux/base/header.h"

#include "chatmux/base/mem.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW_S 1769847300
#define MAX_WAIT_S (30 * 24 * 3600)
#define LAST_S INT64_C(253402300799) /* the end of the year 9999 */

static void check_name(struct cm_str name)
{
    bool token = name.n > 0;

    for (size_t i = 0; i < name.n; i++)
        token &= name.p[i] > ' ' && name.p[i] < 0x7f && !strchr("\"(),/:;<=>?@[\\]{}", name.p[i]);
    CM_ASSERT(cm_header_name_ok(name) == token);
}

static void check_value(struct cm_str value)
{
    static const char breaking[] = {'\r', '\n', '\0', '\x1b', '\x7f'};

    if (!cm_header_value_ok(value))
        return;
    for (size_t i = 0; i < CM_COUNT(breaking); i++)
        CM_ASSERT(cm_str_find_char(value, breaking[i]) == SIZE_MAX);
}

/* The first of two is found, whatever the case of its letters. */
static void check_find(struct cm_str name, struct cm_str value)
{
    const struct cm_header headers[] = {
        {CM_S("x-none-of-them"), CM_S("1")}, {name, value}, {name, CM_S("second")}};
    char *other_case = cm_str_dup(name);

    for (size_t i = 0; i < name.n; i++) {
        const char c = name.p[i];

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
            other_case[i] = (char)(c ^ 0x20);
    }
    if (!cm_str_eq_nocase(name, headers[0].name))
        CM_ASSERT(cm_str_eq(cm_header_find(headers, 3, cm_str(other_case, name.n)), value));
    CM_ASSERT(cm_header_find(headers, 0, name).n == 0);
    free(other_case);
}

static void check_date(struct cm_str value)
{
    char text[CM_HTTP_DATE_CAP];
    int64_t at_s = -1, again_s;

    if (cm_http_date_parse(value, &at_s)) {
        CM_ASSERT(at_s == -1);
        return;
    }
    cm_http_date(at_s, text);
    CM_ASSERT(strlen(text) == CM_HTTP_DATE_CAP - 1);
    CM_ASSERT(cm_http_date_parse(cm_str_of(text), &again_s) == 0);
    CM_ASSERT(again_s == (at_s < 0 ? 0 : at_s > LAST_S ? LAST_S : at_s));
}

static int wait_s(struct cm_str name, struct cm_str value)
{
    const struct cm_header h = {name, value};
    const int s = cm_retry_after_s(&h, 1, INT64_C(1000) * NOW_S);

    CM_ASSERT(s >= 0 && s <= MAX_WAIT_S);
    return s;
}

static void check_wait(struct cm_str value)
{
    const int plain_s = wait_s(CM_S("Retry-After"), value);
    const int ms_s = wait_s(CM_S("retry-after-ms"), value);
    uint64_t n;
    int64_t at_s;

    if (cm_str_to_u64(value, UINT32_MAX, &n)) {
        CM_ASSERT((uint64_t)plain_s == (n < MAX_WAIT_S ? n : MAX_WAIT_S));
        n = (n + 999) / 1000;
        CM_ASSERT((uint64_t)ms_s == (n < MAX_WAIT_S ? n : MAX_WAIT_S));
    } else if (cm_http_date_parse(cm_str_trim(value), &at_s) == 0) {
        at_s -= NOW_S;
        CM_ASSERT(plain_s == (at_s < 0 ? 0 : at_s > MAX_WAIT_S ? MAX_WAIT_S : at_s));
        CM_ASSERT(ms_s == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_str value = cm_str((const char *)data, size), name = cm_str_cut(&value, '\n');

    check_name(name);
    check_value(value);
    check_find(name, value);
    check_date(value);
    check_wait(value);
    return 0;
}
