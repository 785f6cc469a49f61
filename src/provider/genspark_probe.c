/* Is a genspark account fit, and what has it left?
 *
 * Happy path: LOGIN (is it logged in) -> CREDIT (what is left of the month). Nothing left is asked once more after a PAUSE before it is believed: an account
 * without credit is logged in and refuses every question. Wire facts: genspark protocol notes, section 8. */
#include "genspark_int.h"

#include <stdio.h>

#define AGAIN_MS 2000

const char *genspark_probe_state(const void *state)
{
    static const char *const names[] = {
#define X(name) #name,
        GENSPARK_PROBES(X)
#undef X
    };

    return names[((const struct genspark_probe *)state)->state];
}

static enum cm_step get(struct cm_run *run, struct genspark_probe *p, const char *path,
                        enum genspark_probe_state state)
{
    const struct genspark_ask nothing = {.dialect = genspark_conf_of(run)->dialect};
    struct cm_call call = {.method = "GET", .url = genspark_option(run, path)};

    p->state = state;
    return genspark_fetch(run, &nothing, &call);
}

static enum cm_step refuse(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    genspark_refuse(run, ev->status,
                    cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run)), ev->data,
                    err);
    return CM_STEP_FAIL;
}

/* {"status":0,"data":{"is_login":true,…}} */
static enum cm_step logged_in(struct cm_run *run, struct genspark_probe *p, const struct cm_ev *ev,
                              struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    yyjson_val *data = doc ? cm_json_opt(yyjson_doc_get_root(doc), "data") : NULL;
    yyjson_val *is_login = cm_json_opt(data, "is_login");
    const bool told = yyjson_is_bool(is_login), fine = told && yyjson_get_bool(is_login);

    yyjson_doc_free(doc);
    if (ev->status != 200 || !told)
        return refuse(run, ev, err);
    if (fine)
        return get(run, p, "credit_path", GENSPARK_PROBE_CREDIT);
    cm_fail(err, CM_ERR_EXPIRED, "genspark says that this account is not logged in");
    return CM_STEP_FAIL;
}

/* {"status":0,"data":{"remaining":N}} */
static enum cm_step counted(struct cm_run *run, struct genspark_probe *p, const struct cm_ev *ev,
                            struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    yyjson_val *data = doc ? cm_json_opt(yyjson_doc_get_root(doc), "data") : NULL;
    yyjson_val *remaining = cm_json_opt(data, "remaining");
    const bool told = ev->status == 200 && yyjson_is_num(remaining);
    const int64_t left = (int64_t)yyjson_get_num(remaining);
    char quota[64];

    yyjson_doc_free(doc);
    if (!told) { /* logged in it is */
        cm_run_odd(run, "the credit of an account", ev->data);
        return CM_STEP_DONE;
    }
    if (left <= 0 && !p->again) {
        p->again = true;
        p->state = GENSPARK_PROBE_PAUSE;
        return cm_run_sleep(run, AGAIN_MS);
    }
    snprintf(quota, sizeof(quota), "{\"credit\":%lld}", (long long)(left > 0 ? left : 0));
    cm_run_quota(run, cm_str_of(quota));
    if (left > 0)
        return CM_STEP_DONE;
    cm_fail(err, CM_ERR_QUOTA_EXHAUSTED, "genspark says that this account has no credit left");
    err->retry_after_s = genspark_cooldown_s(run, "quota_cooldown");
    return CM_STEP_FAIL;
}

enum cm_step genspark_probe_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct genspark_probe *p = cm_run_state(run);

    if (ev->kind == CM_EV_STOP)
        return CM_STEP_DONE;
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return CM_STEP_FAIL;
    }
    genspark_cookie_learn(run, ev->headers, ev->n_headers);
    switch (p->state) {
    case GENSPARK_PROBE_BEGIN:
        return get(run, p, "login_path", GENSPARK_PROBE_LOGIN);
    case GENSPARK_PROBE_LOGIN:
        return logged_in(run, p, ev, err);
    case GENSPARK_PROBE_PAUSE:
        return get(run, p, "credit_path", GENSPARK_PROBE_CREDIT);
    case GENSPARK_PROBE_CREDIT:
        break;
    }
    return counted(run, p, ev, err);
}
