/* HTTP header fields: finding one, Retry-After, dates. */
#include "chatmux/base/header.h"

#include "chatmux/base/mem.h"

#include <time.h>

struct cm_str cm_header_find(const struct cm_header *headers, size_t n, struct cm_str name)
{
    for (size_t i = 0; i < n; i++) {
        if (headers[i].name.n == name.n && cm_str_eq_nocase(headers[i].name, name))
            return headers[i].value;
    }
    return CM_STR_NONE;
}

#define RETRY_AFTER_MAX_S (30 * 24 * 3600)

/* "1.5" in thousandths; what lies beyond the limit counts as the limit. False for anything that is
 * no such number. */
static bool read_thousandths(struct cm_str text, uint64_t max, uint64_t *out)
{
    struct cm_str whole = cm_str_cut(&text, '.');
    uint64_t value = 0, unit = 1000;

    if (whole.n == 0)
        return false;
    for (size_t i = 0; i < whole.n; i++) {
        if (whole.p[i] < '0' || whole.p[i] > '9')
            return false;
        if (value <= max)
            value = value * 10 + (uint64_t)(whole.p[i] - '0') * 1000;
    }
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return false;
        unit /= 10;
        value += (uint64_t)(text.p[i] - '0') * unit;
    }
    *out = value < max ? value : max;
    return true;
}

int cm_retry_after_s(const struct cm_header *headers, size_t n, int64_t now_unix_ms)
{
    const uint64_t max_ms = (uint64_t)RETRY_AFTER_MAX_S * 1000;
    struct cm_str ms = cm_str_trim(cm_header_find(headers, n, CM_S("retry-after-ms")));
    struct cm_str after = cm_str_trim(cm_header_find(headers, n, CM_S("retry-after")));
    uint64_t wait_ms = 0, micro;
    int64_t at_s;

    if (ms.n == 0 && after.n == 0)
        return 0;
    if (read_thousandths(ms, max_ms * 1000, &micro)) {
        wait_ms = (micro + 999) / 1000;
    } else if (read_thousandths(after, max_ms, &wait_ms)) {
        /* seconds in thousandths are milliseconds */
    } else if (cm_http_date_parse(after, &at_s) == 0 && at_s > now_unix_ms / 1000) {
        const int64_t wait_s = at_s - now_unix_ms / 1000;

        wait_ms = wait_s < RETRY_AFTER_MAX_S ? (uint64_t)wait_s * 1000 : max_ms;
    }
    return (int)((wait_ms + 999) / 1000);
}

/* strftime() and strptime() speak English here: the program never leaves the C locale. */

void cm_http_date(int64_t unix_s, char out[CM_HTTP_DATE_CAP])
{
    const int64_t last_s = INT64_C(253402300799); /* the end of the year 9999 */
    time_t t = (time_t)(unix_s < 0 ? 0 : unix_s < last_s ? unix_s : last_s);
    struct tm tm;

    gmtime_r(&t, &tm);
    strftime(out, CM_HTTP_DATE_CAP, "%a, %d %b %Y %H:%M:%S GMT", &tm);
}

int cm_http_date_parse(struct cm_str text, int64_t *unix_s)
{
    static const char *const forms[] = {
        "%a, %d %b %Y %H:%M:%S GMT", /* IMF-fixdate */
        "%a, %d-%b-%y %H:%M:%S GMT", /* RFC 850; years below 69 are of this century */
        "%a %b %d %H:%M:%S %Y",      /* asctime() */
    };
    char z[40];
    int64_t at_s;

    if (text.n >= sizeof(z) || memchr(text.p ? text.p : "", '\0', text.n))
        return -1;
    cm_str_copy(z, sizeof(z), text);
    for (size_t i = 0; i < CM_COUNT(forms); i++) {
        struct tm tm = {0};
        const char *end = strptime(z, forms[i], &tm);
        const int day = tm.tm_mday;

        if (!end || *end != '\0')
            continue;
        at_s = (int64_t)timegm(&tm);
        if (tm.tm_mday != day) /* timegm() makes the 2nd of March of a 30th of February */
            return -1;
        *unix_s = at_s;
        return 0;
    }
    return -1;
}

/* RFC 9110 5.6.2 */
static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || c == '-' || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+.^_`|~", c) != NULL);
}

bool cm_header_name_ok(struct cm_str name)
{
    for (size_t i = 0; i < name.n; i++) {
        if (!is_token_char(name.p[i]))
            return false;
    }
    return name.n > 0;
}

bool cm_header_value_ok(struct cm_str value)
{
    for (size_t i = 0; i < value.n; i++) {
        const unsigned char c = (unsigned char)value.p[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}
