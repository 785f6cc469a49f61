/* Values as JSON: credentials, keys, rows of the log. Secrets are never written, but for a key that was just made. */
#include "admin_int.h"

#include "chatmux/base/clock.h"

struct out out_begin(struct cm_buf *buf)
{
    cm_buf_put(buf, '{');
    return (struct out){.buf = buf};
}

void out_end(struct out *o)
{
    cm_buf_put(o->buf, '}');
}

void out_name(struct out *o, const char *name)
{
    if (o->some)
        cm_buf_put(o->buf, ',');
    o->some = true;
    cm_json_put_z(o->buf, name);
    cm_buf_put(o->buf, ':');
}

void out_str(struct out *o, const char *name, struct cm_str s)
{
    out_name(o, name);
    cm_json_put_str(o->buf, s);
}

void out_str_or_null(struct out *o, const char *name, struct cm_str s)
{
    if (s.n > 0)
        out_str(o, name, s);
    else
        out_json(o, name, CM_STR_NONE);
}

void out_int(struct out *o, const char *name, int64_t v)
{
    out_name(o, name);
    cm_json_put_int(o->buf, v);
}

void out_int_or_null(struct out *o, const char *name, int64_t v)
{
    if (v != 0)
        out_int(o, name, v);
    else
        out_json(o, name, CM_STR_NONE);
}

void out_bool(struct out *o, const char *name, bool v)
{
    out_json(o, name, v ? CM_S("true") : CM_S("false"));
}

/* By integers: a double would write 0.30000000000000004. */
void out_usd(struct out *o, const char *name, int64_t micro_usd)
{
    uint64_t v = micro_usd < 0 ? -(uint64_t)micro_usd : (uint64_t)micro_usd, rest = v % 1000000;
    int width = 6;

    out_name(o, name);
    cm_buf_printf(o->buf, "%s%llu", micro_usd < 0 ? "-" : "", (unsigned long long)(v / 1000000));
    if (rest == 0)
        return;
    for (; rest % 10 == 0; rest /= 10)
        width--;
    cm_buf_printf(o->buf, ".%0*llu", width, (unsigned long long)rest);
}

void out_time(struct out *o, const char *name, int64_t unix_ms)
{
    char text[CM_RFC3339_CAP] = "";

    if (unix_ms != 0)
        cm_rfc3339(unix_ms, text);
    out_str_or_null(o, name, cm_str_of(text));
}

void out_id(struct out *o, const char *name, uint64_t id)
{
    if (id == 0) {
        out_json(o, name, CM_STR_NONE);
        return;
    }
    out_name(o, name);
    cm_buf_printf(o->buf, "\"%llu\"", (unsigned long long)id);
}

void out_json(struct out *o, const char *name, struct cm_str json)
{
    out_name(o, name);
    cm_buf_append(o->buf, json.n > 0 ? json : CM_S("null"));
}

/* ---- what of a secret may be seen ---- */

struct cm_str url_shown(struct cm_arena *arena, struct cm_str url)
{
    size_t scheme = cm_str_find(url, CM_S("://")), at = SIZE_MAX, colon;
    struct cm_str user;

    if (scheme == SIZE_MAX)
        return url;
    user = cm_str_from(url, scheme + 3);
    user = cm_str_head(user, cm_str_find_char(user, '/'));
    for (size_t i = 0; i < user.n; i++)
        if (user.p[i] == '@')
            at = i;
    if (at == SIZE_MAX)
        return url;
    user = cm_str_head(user, at);
    colon = cm_str_find_char(user, ':');
    if (colon == SIZE_MAX)
        return url;
    return cm_arena_printf(arena, CM_PRI CM_PRI ":***" CM_PRI, CM_ARG(cm_str_head(url, scheme + 3)),
                           CM_ARG(cm_str_head(user, colon)),
                           CM_ARG(cm_str_from(url, scheme + 3 + at)));
}

/* ---- rows ---- */

static void model_write(void *arg, const struct cm_cred_model *model)
{
    struct cm_buf *out = arg;
    struct out o;

    if (out->p[out->n - 1] != '[')
        cm_buf_put(out, ',');
    o = out_begin(out);
    out_str(&o, "model", model->model);
    out_str(&o, "state", cm_str_of(cm_model_state_name(model->state)));
    out_time(&o, "until", model->until_ms);
    out_int(&o, "attempts", model->attempts);
    out_int(&o, "failed", model->failed);
    out_end(&o);
}

void cred_write(struct cm_buf *out, struct cm_arena *arena, const struct cm_pool *pool,
                const struct cm_cred_info *cred)
{
    struct out o = out_begin(out);

    out_id(&o, "id", cred->id);
    out_str(&o, "provider", cred->provider);
    out_str(&o, "label", cred->label);
    out_str(&o, "hint", cm_hint(cred->secret));
    out_str(&o, "source", cred->from_config ? CM_S("config") : CM_S("api"));
    out_bool(&o, "enabled", cred->enabled);
    out_str(&o, "state", cm_str_of(cm_cred_state_name(cred->state)));
    out_str_or_null(&o, "reason", cred->reason);
    out_time(&o, "until", cred->until_ms);
    out_int(&o, "inflight", cred->inflight);
    out_int(&o, "max_inflight", cred->max_inflight);
    out_int(&o, "weight", cred->weight);
    out_str_or_null(&o, "proxy", url_shown(arena, cred->proxy));
    out_json(&o, "quota", cred->quota);
    out_int(&o, "requests", cred->requests);
    out_int(&o, "failures", cred->failures);
    out_int(&o, "tokens_in", cred->tokens_in);
    out_int(&o, "tokens_out", cred->tokens_out);
    out_int(&o, "month_requests", cred->month_requests);
    out_int(&o, "monthly_limit", cred->monthly_limit);
    out_name(&o, "models");
    cm_buf_put(out, '[');
    if (pool)
        cm_pool_each_model(pool, cred->id, model_write, out);
    cm_buf_put(out, ']');
    out_time(&o, "last_used", cred->last_used_ms);
    out_time(&o, "created", cred->created_ms);
    out_end(&o);
}

void key_write(struct cm_buf *out, const struct cm_key_row *row, const struct cm_key_limits *limits,
               struct cm_str secret)
{
    static const struct cm_key_limits none;
    struct out o = out_begin(out);

    if (!limits)
        limits = &none;
    out_id(&o, "id", row->id);
    out_str(&o, "name", row->name);
    out_str(&o, "hint", row->hint);
    out_str(&o, "source", row->id == 0 ? CM_S("config") : CM_S("api"));
    out_bool(&o, "enabled", row->enabled);
    out_json(&o, "models", row->models);
    out_int_or_null(&o, "rpm", row->rpm);
    out_int_or_null(&o, "tpm", row->tpm);
    out_int_or_null(&o, "max_parallel", row->max_parallel);
    if (row->budget_micro_usd > 0)
        out_usd(&o, "budget_usd", row->budget_micro_usd);
    else
        out_json(&o, "budget_usd", CM_STR_NONE);
    out_str(&o, "budget_period", row->budget_period.n > 0 ? row->budget_period : CM_S("total"));
    out_time(&o, "expires", row->expires_s * 1000);
    out_usd(&o, "spent_usd", limits->spent_micro_usd);
    out_usd(&o, "reserved_usd", limits->reserved_micro_usd);
    out_int(&o, "inflight", limits->parallel);
    out_time(&o, "created", row->created_s * 1000);
    if (secret.n > 0)
        out_str(&o, "key", secret);
    out_end(&o);
}

void counts_write(struct cm_buf *out, const struct cm_pool_counts *counts)
{
    struct out o = out_begin(out);

    out_int(&o, "total", (int64_t)counts->total);
    for (int s = 0; s < CM_CRED_STATES_N; s++)
        out_int(&o, cm_cred_state_name((enum cm_cred_state)s), (int64_t)counts->state[s]);
    out_end(&o);
}

static void put_tokens(struct out *o, const int64_t tokens[5], int64_t images)
{
    static const char *const names[] = {"input_uncached", "input_cache_read", "input_cache_write",
                                        "output_text", "output_reasoning"};

    for (size_t i = 0; i < 5; i++)
        out_int(o, names[i], tokens[i]);
    out_int(o, "images", images);
}

void usage_write(struct cm_buf *out, const struct cm_usage_row *row)
{
    struct out o = out_begin(out);

    out_str(&o, "group", row->group);
    out_id(&o, "id", row->id);
    out_int(&o, "requests", row->requests);
    put_tokens(&o,
               (const int64_t[]){row->in_uncached, row->in_cache_read, row->in_cache_write,
                                 row->out_text, row->out_reasoning},
               row->images);
    out_usd(&o, "cost_usd", row->cost_micro_usd);
    out_end(&o);
}

/* The gateway keeps what it knows of the attempts as a JSON object of lists, and of a session in an object. Too much of it is not kept at all. */
static struct cm_str list_of(struct cm_str detail, struct cm_str member)
{
    struct cm_str list =
        cm_str_starts(detail, CM_S("{")) ? cm_json_member(detail, member) : CM_STR_NONE;

    return cm_str_starts(list, CM_S("[")) ? list : CM_S("[]");
}

static struct cm_str object_of(struct cm_str detail, struct cm_str member)
{
    struct cm_str object =
        cm_str_starts(detail, CM_S("{")) ? cm_json_member(detail, member) : CM_STR_NONE;

    return cm_str_starts(object, CM_S("{")) ? object : CM_S("null");
}

void request_write(struct cm_buf *out, const struct cm_request_row *row)
{
    struct out o = out_begin(out);

    out_str(&o, "id", row->id);
    out_time(&o, "at", row->at_ms);
    out_str(&o, "key", row->key);
    out_id(&o, "key_id", row->key_id);
    out_str(&o, "surface", row->surface);
    out_str(&o, "model", row->model);
    out_str(&o, "provider", row->provider);
    out_str(&o, "credential", row->credential);
    out_id(&o, "credential_id", row->cred_id);
    out_int(&o, "status", row->status);
    out_str(&o, "outcome", row->outcome);
    out_str_or_null(&o, "error", row->error);
    out_str_or_null(&o, "why", row->why);
    out_int(&o, "duration_ms", row->duration_ms);
    if (row->ttft_ms >= 0)
        out_int(&o, "ttft_ms", row->ttft_ms);
    else
        out_json(&o, "ttft_ms", CM_STR_NONE);
    out_int(&o, "bytes_in", row->bytes_in);
    out_int(&o, "bytes_out", row->bytes_out);
    put_tokens(&o,
               (const int64_t[]){row->in_uncached, row->in_cache_read, row->in_cache_write,
                                 row->out_text, row->out_reasoning},
               row->images);
    out_str(&o, "usage_source", row->usage_source);
    out_usd(&o, "cost_usd", row->cost_micro_usd);
    out_int(&o, "attempt_count", row->attempts);
    out_json(&o, "attempts", list_of(row->detail, CM_S("attempts")));
    out_json(&o, "skipped", list_of(row->detail, CM_S("skipped")));
    out_json(&o, "session", object_of(row->detail, CM_S("session")));
    out_json(&o, "others", list_of(row->detail, CM_S("others")));
    out_end(&o);
}
