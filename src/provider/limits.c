/* Rate limits in the headers of OpenAI's and Anthropic's dialect. */
#include "limits_int.h"

#include "chatmux/base/clock.h"

#define RESET_MAX_MS (INT64_C(366) * 24 * 3600 * 1000)

enum bound { REQUESTS, TOKENS, INPUT, OUTPUT, BOUNDS };

static enum bound bound_of(struct cm_str word)
{
    static const struct cm_str words[BOUNDS] = {CM_S_INIT("requests"), CM_S_INIT("tokens"),
                                                CM_S_INIT("input-tokens"),
                                                CM_S_INIT("output-tokens")};
    enum bound b = REQUESTS;

    while (b < BOUNDS && !cm_str_eq_nocase(words[b], word))
        b++;
    return b;
}

/* One "1m", "59.56s" or "20ms" in front of *text, which goes on behind it; -1 = it is none. */
static int64_t cut_duration(struct cm_str *text)
{
    static const struct {
        struct cm_str name;
        int64_t ms;
    } units[] = {{CM_S_INIT("ms"), 1},
                 {CM_S_INIT("s"), 1000},
                 {CM_S_INIT("m"), 60000},
                 {CM_S_INIT("h"), 3600000},
                 {CM_S_INIT("d"), 86400000}};
    double value = 0, unit = 1;
    bool fraction = false;
    size_t i = 0;

    for (; i < text->n && ((text->p[i] >= '0' && text->p[i] <= '9') || text->p[i] == '.'); i++) {
        if (text->p[i] == '.' && (fraction || i == 0))
            return -1;
        if (text->p[i] == '.')
            fraction = true;
        else if (fraction)
            value += (text->p[i] - '0') * (unit /= 10);
        else
            value = value * 10 + (text->p[i] - '0');
    }
    if (i == 0)
        return -1;
    *text = cm_str_from(*text, i);
    for (size_t u = 0; u < CM_COUNT(units); u++) {
        const double ms = value * (double)units[u].ms;

        if (!cm_str_starts(*text, units[u].name))
            continue;
        *text = cm_str_from(*text, units[u].name.n);
        return ms < (double)RESET_MAX_MS ? (int64_t)(ms + 0.5) : RESET_MAX_MS;
    }
    return -1;
}

/* "6m0s" and the like, or an instant; -1 = neither. */
static int64_t reset_of(struct cm_str text, int64_t now_unix_ms)
{
    int64_t at_ms, sum = 0;

    if (cm_rfc3339_parse(text, &at_ms))
        return at_ms >= 0 && at_ms < now_unix_ms + RESET_MAX_MS ? at_ms : -1;
    if (text.n == 0)
        return -1;
    while (text.n > 0) {
        const int64_t ms = cut_duration(&text);

        if (ms < 0)
            return -1;
        sum = sum + ms < RESET_MAX_MS ? sum + ms : RESET_MAX_MS;
    }
    return now_unix_ms + sum;
}

static void read_member(struct cm_limit *l, struct cm_str member, struct cm_str value,
                        int64_t now_unix_ms)
{
    uint64_t count;

    value = cm_str_trim(value);
    if (cm_str_eq_nocase(member, CM_S("reset"))) {
        l->reset_unix_ms = reset_of(value, now_unix_ms);
        return;
    }
    if (!cm_str_to_u64(value, INT64_MAX, &count))
        return;
    if (cm_str_eq_nocase(member, CM_S("limit")))
        l->limit = (int64_t)count;
    else if (cm_str_eq_nocase(member, CM_S("remaining")))
        l->remaining = (int64_t)count;
}

static void read_header(struct cm_limit bounds[BOUNDS], const struct cm_header *h,
                        int64_t now_unix_ms)
{
    const struct cm_str openai = CM_S("x-ratelimit-"), anthropic = CM_S("anthropic-ratelimit-");
    struct cm_str bound, member;

    if (cm_str_starts_nocase(h->name, openai)) {
        bound = cm_str_from(h->name, openai.n);
        member = cm_str_cut(&bound, '-');
    } else if (cm_str_starts_nocase(h->name, anthropic)) {
        struct cm_str rest = cm_str_from(h->name, anthropic.n);
        size_t end = rest.n;

        while (end > 0 && rest.p[end - 1] != '-')
            end--;
        member = cm_str_from(rest, end);
        bound = cm_str_head(rest, end > 0 ? end - 1 : 0);
    } else {
        return;
    }
    if (bound_of(bound) < BOUNDS)
        read_member(&bounds[bound_of(bound)], member, h->value, now_unix_ms);
}

static bool is_told(const struct cm_limit *l)
{
    return l->limit >= 0 && l->remaining >= 0;
}

bool limits_read(const struct cm_header *headers, size_t n, int64_t now_unix_ms,
                 struct cm_limits *out)
{
    struct cm_limit bounds[BOUNDS];
    enum bound tokens = TOKENS;

    for (enum bound b = REQUESTS; b < BOUNDS; b++)
        bounds[b] = (struct cm_limit){-1, -1, -1};
    for (size_t i = 0; i < n; i++)
        read_header(bounds, &headers[i], now_unix_ms);
    if (!is_told(&bounds[TOKENS]) && (is_told(&bounds[INPUT]) || is_told(&bounds[OUTPUT])))
        tokens = is_told(&bounds[INPUT]) && (!is_told(&bounds[OUTPUT]) ||
                                             bounds[INPUT].remaining <= bounds[OUTPUT].remaining)
                     ? INPUT
                     : OUTPUT;
    *out = (struct cm_limits){.requests = bounds[REQUESTS], .tokens = bounds[tokens]};
    return is_told(&out->requests) || is_told(&out->tokens);
}

void limits_tell(struct cm_run *run, const struct cm_header *headers, size_t n)
{
    struct cm_limits limits;

    if (limits_read(headers, n, cm_run_unix_ms(run), &limits))
        cm_run_emit(run, &(struct cm_event){.kind = CM_EVENT_HEAD, .limits = &limits});
}
