/* What an account needs outside of answers: a token out of a password, another token for one that is refused, and whether it still works.
 *
 * A user token is used as it is. When the platform refuses it, it may still be good to get another one, as an older client of the site did; when that is
 * refused, too, the account waits for its operator, unless it has a password to log in with.
 * Wire facts: DeepSeek protocol notes, sections 1, 3.1 and 3.7. */
#include "deepseek_int.h"

#include "chatmux/base/crypto.h"
#include "chatmux/base/enc.h"

/* ---- Login ---- */

/* The same for an account each time: a new one looks like a new device. */
static void put_device_id(struct cm_run *run, const struct deepseek_account *a, struct cm_buf *out)
{
    const struct cm_str set = deepseek_option(run, "device_id");
    const struct cm_str name = a->email.n > 0 ? a->email : a->mobile;
    unsigned char digest[CM_SHA256_SIZE];
    struct cm_buf id = {0};

    cm_sha256(cm_arena_printf(cm_run_arena(run), "deepseek device " CM_PRI, CM_ARG(name)), digest);
    cm_hex(&id, cm_str((const char *)digest, 16));
    cm_json_put_str(out, set.n > 0 ? set : cm_buf_str(&id));
    cm_buf_clear(&id);
}

static enum cm_step log_in(struct cm_run *run, const struct deepseek_account *a)
{
    struct deepseek_ask ask = {.path_option = "login_path", .anonymous = true};
    struct cm_buf body = {0};

    if (a->email.n > 0) {
        cm_buf_append(&body, CM_S("{\"email\":"));
        cm_json_put_str(&body, a->email);
    } else {
        cm_buf_append(&body, CM_S("{\"mobile\":"));
        cm_json_put_str(&body, a->mobile);
        cm_buf_append(&body, CM_S(",\"area_code\":"));
        if (a->area_code.n > 0)
            cm_json_put_str(&body, a->area_code);
        else
            cm_buf_append(&body, CM_S("null"));
    }
    cm_buf_append(&body, CM_S(",\"password\":"));
    cm_json_put_str(&body, a->password);
    cm_buf_append(&body, CM_S(",\"device_id\":"));
    put_device_id(run, a, &body);
    cm_buf_append(&body, CM_S(",\"os\":"));
    cm_json_put_str(&body, deepseek_option(run, "login_os"));
    cm_buf_put(&body, '}');
    ask.body = cm_buf_settle(&body, cm_run_arena(run));
    return deepseek_fetch(run, a, &ask);
}

/* The token that a login brought, in the arena; empty with *err. */
static struct cm_str logged_in(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct deepseek_reply reply;
    struct cm_str token;

    deepseek_reply_of(run, ev, &reply);
    token = cm_json_str(cm_json_get(cm_json_get(reply.biz, "user"), "token"));
    if (reply.cls != CM_ERR_NONE) {
        deepseek_refuse(&reply, "the login", err);
        /* Whatever it does not like about the login, repeating it makes it worse. */
        if (reply.cls == CM_ERR_BAD_REQUEST)
            err->cls = CM_ERR_EXPIRED;
        token = CM_STR_NONE;
    } else if (token.n == 0) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, "deepseek let the account in without a token");
    }
    token = cm_arena_str(cm_run_arena(run), token);
    yyjson_doc_free(reply.doc);
    return token;
}

enum cm_step deepseek_login_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct deepseek_account account;
    struct cm_str token;

    if (ev->kind == CM_EV_START) {
        deepseek_account(run, &account);
        if (account.password.n > 0)
            return log_in(run, &account);
        cm_fail(err, CM_ERR_EXPIRED, "deepseek refuses this user token: it needs a new one");
        return CM_STEP_FAIL;
    }
    if (ev->kind == CM_EV_STOP)
        return CM_STEP_DONE;
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return CM_STEP_FAIL;
    }
    token = logged_in(run, ev, err);
    if (token.n == 0)
        return CM_STEP_FAIL;
    cm_run_token(run, token, 0); /* protocol notes: UNKNOWN how long it lives */
    return CM_STEP_DONE;
}

/* ---- Another token for the user token ---- */

static enum cm_step ask_current(struct cm_run *run, const struct deepseek_account *account,
                                struct cm_str bearer)
{
    const struct deepseek_ask ask = {
        .method = "GET", .path_option = "current_path", .bearer = bearer};

    return deepseek_fetch(run, account, &ask);
}

enum cm_step deepseek_refresh_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct deepseek_account account;
    struct deepseek_reply reply;
    struct cm_str token;
    enum cm_step step = CM_STEP_DONE;

    if (ev->kind == CM_EV_START) {
        deepseek_account(run, &account);
        if (account.token.n > 0)
            return ask_current(run, &account, account.token);
        cm_fail(err, CM_ERR_EXPIRED, "this deepseek account has to log in");
        return CM_STEP_FAIL;
    }
    if (ev->kind == CM_EV_STOP)
        return CM_STEP_DONE;
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return CM_STEP_FAIL;
    }
    deepseek_reply_of(run, ev, &reply);
    token = cm_json_str(cm_json_get(reply.biz, "token"));
    if (reply.cls != CM_ERR_NONE) {
        step = deepseek_refuse(&reply, "another token", err);
    } else if (token.n == 0) {
        cm_fail(err, CM_ERR_EXPIRED, "deepseek gives no other token for this user token");
        step = CM_STEP_FAIL;
    } else {
        cm_run_token(run, token,
                     cm_run_unix_ms(run) + cm_option_int(cm_run_instance(run), "token_life"));
    }
    yyjson_doc_free(reply.doc);
    return step;
}

/* ---- Does it work? ---- */

static enum cm_step ask_quota(struct cm_run *run, struct deepseek_probe *p)
{
    const struct deepseek_ask ask = {.method = "GET", .path_option = "quota_path"};

    if (deepseek_option(run, "quota_path").n == 0)
        return CM_STEP_DONE;
    p->state = DEEPSEEK_PROBE_QUOTA;
    return deepseek_fetch(run, &p->account, &ask);
}

static enum cm_step checked(struct cm_run *run, struct deepseek_probe *p, const struct cm_ev *ev,
                            struct cm_err *err)
{
    struct deepseek_reply reply;
    enum cm_step step;

    deepseek_reply_of(run, ev, &reply);
    deepseek_judge_mute(&reply);
    step = reply.cls == CM_ERR_NONE ? ask_quota(run, p)
                                    : deepseek_refuse(&reply, "to tell about the account", err);
    yyjson_doc_free(reply.doc);
    return step;
}

/* The account works, whatever becomes of this. */
static enum cm_step told_quota(struct cm_run *run, const struct cm_ev *ev)
{
    struct deepseek_reply reply;
    struct cm_buf json = {0};

    if (ev->kind != CM_EV_REPLY)
        return CM_STEP_DONE;
    deepseek_reply_of(run, ev, &reply);
    if (reply.cls == CM_ERR_NONE && yyjson_is_obj(reply.biz)) {
        cm_json_put_val(&json, reply.biz);
        cm_run_quota(run, cm_buf_str(&json));
        cm_buf_clear(&json);
    }
    yyjson_doc_free(reply.doc);
    return CM_STEP_DONE;
}

/* A password that was never used is tried, which is the check that an operator wants; what it brings is kept. */
static enum cm_step probe_logged_in(struct cm_run *run, struct deepseek_probe *p,
                                    const struct cm_ev *ev, struct cm_err *err)
{
    const struct cm_str token = logged_in(run, ev, err);

    if (token.n == 0)
        return CM_STEP_FAIL;
    cm_run_token(run, token, 0);
    p->account.token = token;
    p->state = DEEPSEEK_PROBE_CURRENT;
    return ask_current(run, &p->account, token);
}

enum cm_step deepseek_probe_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct deepseek_probe *p = cm_run_state(run);

    if (ev->kind == CM_EV_START) {
        deepseek_account(run, &p->account);
        if (deepseek_bearer(run, &p->account).n == 0)
            return log_in(run, &p->account);
        p->state = DEEPSEEK_PROBE_CURRENT;
        return ask_current(run, &p->account, CM_STR_NONE);
    }
    if (ev->kind == CM_EV_STOP)
        return CM_STEP_DONE;
    if (p->state == DEEPSEEK_PROBE_QUOTA)
        return told_quota(run, ev);
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return CM_STEP_FAIL;
    }
    return p->state == DEEPSEEK_PROBE_LOGIN ? probe_logged_in(run, p, ev, err)
                                            : checked(run, p, ev, err);
}
