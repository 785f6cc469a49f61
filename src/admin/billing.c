/* What NextChat and one-api ask an OpenAI account: its limit in USD, and what was spent between two dates in cents. Here both are the
 * client key's: its budget, and the ledger. What is left of the budget is limit minus usage, so the usage of a key with a budget is that of
 * the running period. */
#include "admin_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"

#define DAY_MS INT64_C(86400000)
#define NO_LIMIT_USD 100000000 /* what one-api tells of a key without a limit, and takes for one */
#define MICRO_PER_CENT 10000

void billing_subscription(void *arg, struct cm_web *web)
{
    const struct cm_key *key = cm_web_key(web);
    const struct cm_key_row *row = key ? cm_key_row(key) : NULL;
    int64_t budget = row ? row->budget_micro_usd : 0;
    static const char *const limits[] = {"soft_limit_usd", "hard_limit_usd",
                                         "system_hard_limit_usd"};
    struct cm_buf out = {0};
    struct out o = out_begin(&out);

    (void)arg;
    out_str(&o, "object", CM_S("billing_subscription"));
    /* with one one-api asks for this month, else for the last hundred days */
    out_bool(&o, "has_payment_method",
             budget == 0 || !cm_str_eq(row->budget_period, CM_S("total")));
    for (size_t i = 0; i < CM_COUNT(limits); i++) {
        if (budget > 0)
            out_usd(&o, limits[i], budget);
        else
            out_int(&o, limits[i], NO_LIMIT_USD);
    }
    out_int(&o, "access_until", row ? row->expires_s : 0);
    out_end(&o);
    answer_json(web, 200, &out);
}

static void answer_usage(struct cm_web *web, int64_t micro_usd)
{
    struct cm_buf out = {0};
    struct out o = out_begin(&out);

    out_str(&o, "object", CM_S("list"));
    out_name(&o, "total_usage");
    cm_buf_printf(&out, "%lld.%04lld", (long long)(micro_usd / MICRO_PER_CENT),
                  (long long)(micro_usd % MICRO_PER_CENT));
    out_end(&o);
    answer_json(web, 200, &out);
}

static void on_usage(void *arg, const struct cm_usage_row *rows, size_t n, const struct cm_err *err)
{
    struct task *t = arg;
    struct cm_str name = cm_web_key_name(t->web);
    int64_t micro_usd = 0;

    if (task_failed(t, err))
        return;
    for (size_t i = 0; i < n; i++) { /* configured keys have no number, but names of their own */
        if (rows[i].id == t->id && (t->id > 0 || cm_str_eq(rows[i].group, name)))
            micro_usd += rows[i].cost_micro_usd;
    }
    answer_usage(t->web, micro_usd);
}

static int query_date(struct cm_web *web, const char *name, int64_t *out, struct cm_err *err)
{
    struct cm_str text = cm_web_query(web, cm_str_of(name));

    if (text.n == 0 || cm_rfc3339_parse(text, out))
        return 0;
    return cm_fail_param(err, CM_ERR_BAD_REQUEST, name, "%s must be a date such as 2026-01-31",
                         name);
}

/* The first day of the month, UTC. */
static int64_t month_began_ms(int64_t now_ms)
{
    char text[CM_RFC3339_CAP];
    int64_t began = now_ms;

    cm_rfc3339(now_ms, text);
    memcpy(text + 8, "01", 2);
    (void)cm_rfc3339_parse(cm_str(text, 10), &began);
    return began;
}

void billing_usage(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    const struct cm_key *key = cm_web_key(web);
    int64_t now = cm_unix_ms(), began = key ? cm_key_period_began_ms(key, now) : 0;
    struct cm_usage_query q = {
        .by = CM_S("key"), .from_ms = month_began_ms(now), .to_ms = now - now % DAY_MS};
    struct cm_store *store = cm_gateway_store(admin->gw);
    struct cm_err err = {0};
    struct task *t;

    if (query_date(web, "start_date", &q.from_ms, &err) < 0 ||
        query_date(web, "end_date", &q.to_ms, &err) < 0) {
        cm_web_fail(web, &err);
        return;
    }
    q.to_ms += DAY_MS; /* that day counts */
    if (key && cm_key_row(key)->budget_micro_usd > 0 && q.from_ms < began)
        q.from_ms = began;
    if (!store || q.from_ms >= q.to_ms) {
        answer_usage(web, 0);
        return;
    }
    t = task_new(admin, web);
    t->id = key ? cm_key_row(key)->id : 0;
    cm_store_usage(store, &q, on_usage, t);
}
