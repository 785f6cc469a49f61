/* hix: what belongs to an account: its cookie, its headers, its session, its credit. The flows `refresh` (SESSION) and `probe` (SESSION -> CREDIT) ask for
 * them; both cost nothing. HIX protocol notes, sections 1, 2 and 3.7. */
#include "chatmux/base/clock.h"
#include "chatmux/base/secret.h"
#include "hix_int.h"

#define AGED_MAX 200   /* old chats that one probe deletes */
#define SMALL_MS 15000 /* for the calls around an answer */

/* ---- the cookie ---- */

/* A bare token gets its cookie's name; a whole Cookie header keeps its names. Percent sequences are decoded in both. */
int hix_normalize(struct cm_arena *arena, struct cm_str given, struct cm_str *out,
                  struct cm_err *err)
{
    struct cm_buf cookie = {0};
    int failed;

    given = cm_str_trim(given);
    /* once: what moves leaves a copy behind */
    cm_buf_reserve(&cookie, sizeof(HIX_SESSION_COOKIE) + given.n);
    if (cm_str_starts_nocase(given, CM_S("Cookie:")))
        given = cm_str_trim(cm_str_from(given, sizeof("Cookie:") - 1));
    if (given.n == 0) {
        cm_buf_clear(&cookie);
        return cm_fail(err, CM_ERR_BAD_REQUEST,
                       "paste the value of the cookie " HIX_SESSION_COOKIE);
    }
    /* NextAuth splits long cookies into NAME.0, NAME.1 … */
    if (!cm_str_has(given, CM_S(HIX_SESSION_COOKIE "=")) &&
        !cm_str_has(given, CM_S(HIX_SESSION_COOKIE ".")))
        cm_buf_append(&cookie, CM_S(HIX_SESSION_COOKIE "="));
    failed = cm_percent_decode(&cookie, given, true) || !cm_header_value_ok(cm_buf_str(&cookie));
    if (failed)
        cm_fail(err, CM_ERR_BAD_REQUEST,
                "the cookie has a broken %% sequence or a control character");
    else
        *out = cm_secret_in(arena, cm_buf_str(&cookie));
    cm_wipe(cookie.p, cookie.n);
    cm_buf_clear(&cookie);
    return failed ? -1 : 0;
}

/* As the operator gave it, or as the platform has renewed it since. */
static struct cm_str cookie_of(const struct cm_run *run)
{
    const struct cm_cred *cred = cm_run_cred(run);

    return cred->token.n > 0 ? cred->token : cred->secret;
}

/* NAME, or NAME.0, NAME.1 … */
static bool is_session(struct cm_str name)
{
    const struct cm_str rest = cm_str_from(name, sizeof(HIX_SESSION_COOKIE) - 1);

    return cm_str_starts(name, CM_S(HIX_SESSION_COOKIE)) &&
           (rest.n == 0 || cm_str_starts(rest, CM_S(".")));
}

static void put_cookie(struct cm_buf *out, struct cm_str pair)
{
    if (out->n > 0)
        cm_buf_append(out, CM_S("; "));
    cm_buf_append(out, pair);
}

/* The cookie with the session that the answer sets in the place of the old one; "" when it sets none. In the arena, which is wiped. */
static struct cm_str renewed(struct cm_run *run, const struct cm_ev *ev)
{
    struct cm_str rest = cookie_of(run), out = CM_STR_NONE;
    struct cm_buf cookie = {0};
    size_t room = rest.n, n = 0;

    for (size_t i = 0; i < ev->n_headers; i++)
        room += ev->headers[i].value.n;
    cm_buf_reserve(&cookie, room + 2 * ev->n_headers); /* once: what moves leaves a copy behind */
    while (rest.n > 0) {
        const struct cm_str pair = cm_str_trim(cm_str_cut(&rest, ';'));
        struct cm_str name = pair;

        name = cm_str_cut(&name, '=');
        if (pair.n > 0 && !is_session(name))
            put_cookie(&cookie, pair);
    }
    for (size_t i = 0; i < ev->n_headers; i++) {
        struct cm_str value = ev->headers[i].value, pair = cm_str_trim(cm_str_cut(&value, ';'));
        struct cm_str text = pair, name = cm_str_cut(&text, '=');

        if (!cm_str_eq_nocase(ev->headers[i].name, CM_S("set-cookie")) || !is_session(name) ||
            text.n == 0 || !cm_header_value_ok(pair))
            continue;
        put_cookie(&cookie, pair);
        n++;
    }
    if (n > 0)
        out = cm_secret_in(cm_run_arena(run), cm_buf_str(&cookie));
    cm_wipe(cookie.p, cookie.n);
    cm_buf_clear(&cookie);
    return out;
}

/* ---- calls ---- */

size_t hix_headers(struct cm_run *run, struct cm_str accept, struct cm_str referer,
                   struct cm_header out[HIX_HEADERS_MAX])
{
    const struct cm_browser *browser = cm_run_browser(run);
    const struct cm_str origin = hix_option(run, "origin");
    const struct cm_header headers[] = {
        {CM_S("Content-Type"), CM_S("application/json")},
        {CM_S("Accept"), accept},
        {CM_S("Origin"), origin},
        {CM_S("Referer"),
         cm_arena_printf(cm_run_arena(run), CM_PRI CM_PRI, CM_ARG(origin), CM_ARG(referer))},
        {CM_S("Cookie"), cookie_of(run)},
        {CM_S("User-Agent"), browser->user_agent},
        {CM_S("Accept-Language"), browser->accept_language},
        {CM_S("Sec-Fetch-Dest"), CM_S("empty")},
        {CM_S("Sec-Fetch-Mode"), CM_S("cors")},
        {CM_S("Sec-Fetch-Site"), CM_S("same-origin")},
        /* what an operator's own user_agent might deny */
        {CM_S("sec-ch-ua"), browser->sec_ch_ua},
        {CM_S("sec-ch-ua-mobile"), CM_S("?0")},
        {CM_S("sec-ch-ua-platform"), browser->sec_ch_ua_platform},
    };
    const size_t hints = cm_run_instance(run)->conf->upstream.user_agent.n > 0 ? 0 : 3;
    const size_t n = CM_COUNT(headers) - 3 + hints;

    memcpy(out, headers, n * sizeof(*out));
    return n;
}

enum cm_step hix_fetch(struct cm_run *run, struct cm_str path, struct cm_str referer,
                       struct cm_str body)
{
    struct cm_header headers[HIX_HEADERS_MAX];
    struct cm_call call = {.method = body.n > 0 ? "POST" : "GET",
                           .url = path,
                           .headers = headers,
                           .body = body,
                           .timeout_ms = SMALL_MS};

    call.n_headers = hix_headers(run, CM_S("application/json"), referer, headers);
    return cm_run_fetch(run, &call);
}

/* ---- credit ---- */

enum cm_step hix_ask_credit(struct cm_run *run)
{
    struct cm_buf path = {0};

    cm_buf_append(&path, hix_option(run, "usage_path"));
    cm_buf_append(&path, CM_S("&input="));
    cm_percent(&path, hix_option(run, "usage_input"));
    return hix_fetch(run, cm_buf_settle(&path, cm_run_arena(run)), CM_S("/"), CM_STR_NONE);
}

/* Some of the vendor's products answer in camelCase; numbers may be texts. */
static int64_t count_of(yyjson_val *entry, const char *snake, const char *camel)
{
    yyjson_val *v = cm_json_opt(entry, snake);
    uint64_t n = 0;

    if (!v)
        v = cm_json_opt(entry, camel);
    if (yyjson_is_num(v))
        return (int64_t)yyjson_get_num(v);
    cm_str_to_u64(cm_json_str(v), INT64_MAX, &n);
    return (int64_t)n;
}

static int64_t left_of(yyjson_val *entry)
{
    const int64_t left =
        count_of(entry, "total_count", "totalCount") - count_of(entry, "use_count", "useCount");

    return left > 0 ? left : 0;
}

/* In which form dates come is UNKNOWN: ISO, or seconds or milliseconds. 0 = none of them. */
static int64_t date_of(yyjson_val *entry)
{
    yyjson_val *v = cm_json_opt(entry, "date_end");
    int64_t ms = 0;

    if (!v)
        v = cm_json_opt(entry, "dateEnd");
    if (yyjson_is_num(v)) {
        const double n = yyjson_get_num(v);

        return n <= 0 || n > 1e15 ? 0 : (int64_t)(n < 1e11 ? n * 1000 : n);
    }
    return cm_rfc3339_parse(cm_json_str(v), &ms) ? ms : 0;
}

static int read_credit(yyjson_val *root, int64_t now_ms, struct hix_credit *out)
{
    yyjson_val *usage = yyjson_arr_get_last(root), *list, *first, *second;

    usage = cm_json_get(cm_json_get(cm_json_get(usage, "result"), "data"), "json");
    list = cm_json_get(usage, "usageList");
    first = yyjson_arr_get_first(list);
    if (!first)
        return -1;
    *out = (struct hix_credit){.subscribed = yyjson_get_bool(cm_json_get(usage, "isActiveSub"))};
    out->left[HIX_STANDARD] = left_of(first);
    if (!out->subscribed)
        return 0;
    second = yyjson_arr_get(list, 1);
    out->left[HIX_ADVANCED] = second ? left_of(second) : 0;
    for (size_t i = 0; i < 2; i++) {
        const int64_t ends_ms = date_of(yyjson_arr_get(list, i));

        if (ends_ms > now_ms && (out->renews_ms == 0 || ends_ms < out->renews_ms))
            out->renews_ms = ends_ms;
    }
    return 0;
}

int hix_told_credit(struct cm_run *run, const struct cm_ev *ev, struct hix_credit *out)
{
    yyjson_doc *doc = NULL;
    struct cm_buf json = {0};
    int failed;

    if (ev->status == 200 || ev->status == 207)
        doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    failed = read_credit(yyjson_doc_get_root(doc), cm_run_unix_ms(run), out);
    yyjson_doc_free(doc);
    if (failed)
        return -1;
    cm_buf_printf(&json, "{\"credit\":%lld,\"advanced_credit\":%lld,\"subscribed\":%s",
                  (long long)out->left[HIX_STANDARD], (long long)out->left[HIX_ADVANCED],
                  out->subscribed ? "true" : "false");
    if (out->renews_ms)
        cm_buf_printf(&json, ",\"renews_ms\":%lld", (long long)out->renews_ms);
    cm_buf_put(&json, '}');
    cm_run_quota(run, cm_buf_str(&json));
    cm_buf_clear(&json);
    return 0;
}

/* ---- the session ---- */

enum cm_step hix_ask_session(struct cm_run *run)
{
    return hix_fetch(run, hix_option(run, "session_path"), CM_S("/"), CM_STR_NONE);
}

static int refused(const struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    const struct hix_refusal r = {
        .call = HIX_CALL_OTHER,
        .status = ev->status,
        .retry_after_s = cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run)),
        .challenge_s = (int)(cm_option_int(cm_run_instance(run), "challenge_cooldown") / 1000),
        .body = ev->data};

    hix_refuse(&r, err);
    return -1;
}

int hix_told_session(struct cm_run *run, const struct cm_ev *ev, bool renew, struct cm_err *err)
{
    yyjson_doc *doc =
        ev->status == 200 ? cm_json_parse(ev->data, &cm_json_limits_event, NULL) : NULL;
    yyjson_val *root = yyjson_doc_get_root(doc);
    const bool here = yyjson_is_obj(cm_json_opt(root, "user"));
    const bool gone = yyjson_is_null(root) || (yyjson_is_obj(root) && yyjson_obj_size(root) == 0);
    int64_t ends_ms = 0;

    if (here)
        cm_rfc3339_parse(cm_json_str(cm_json_get(root, "expires")), &ends_ms);
    yyjson_doc_free(doc);
    if (!here && !gone)
        return refused(run, ev, err);
    if (here && renew) {
        const struct cm_str cookie = renewed(run, ev);

        cm_run_token(run, cookie.n > 0 ? cookie : cm_run_cred(run)->token, ends_ms);
    }
    return here;
}

/* ---- errands ---- */

const char *hix_account_state_name(const void *state)
{
    static const char *const names[] = {"SESSION", "CREDIT", "AGED"};

    return names[((const struct hix_account *)state)->state];
}

/* True: logged in. */
static bool session_told(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return false;
    }
    switch (hix_told_session(run, ev, true, err)) {
    case 1:
        return true;
    case 0:
        cm_fail(err, CM_ERR_EXPIRED,
                "hix does not know this cookie any more: sign in and paste it anew");
        return false;
    default:
        return false;
    }
}

enum cm_step hix_refresh_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    if (ev->kind == CM_EV_STOP)
        return CM_STEP_DONE;
    if (ev->kind == CM_EV_START)
        return hix_ask_session(run);
    return session_told(run, ev, err) ? CM_STEP_DONE : CM_STEP_FAIL;
}

/* The account works; what is left is to tidy up in it, and no failure of the probe. */
static enum cm_step delete_aged(struct cm_run *run, struct hix_account *a)
{
    a->state = HIX_ACCOUNT_AGED;
    if (a->n_deleted++ == AGED_MAX || !hix_take_aged(run, &a->chat, &a->stretch))
        return CM_STEP_DONE;
    return hix_delete_chat(run, a->chat);
}

static enum cm_step aged_deleted(struct cm_run *run, struct hix_account *a, const struct cm_ev *ev)
{
    if (hix_is_deleted(ev))
        return delete_aged(run, a);
    cm_run_odd(run, "an old chat is not deleted", ev->data);
    hix_put_back(run, a->chat, a->stretch);
    return CM_STEP_DONE;
}

enum cm_step hix_probe_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct hix_account *a = cm_run_state(run);
    struct hix_credit credit;

    if (ev->kind == CM_EV_STOP)
        return CM_STEP_DONE;
    if (ev->kind == CM_EV_START)
        return hix_ask_session(run);
    if (a->state == HIX_ACCOUNT_SESSION) {
        a->state = HIX_ACCOUNT_CREDIT;
        return session_told(run, ev, err) ? hix_ask_credit(run) : CM_STEP_FAIL;
    }
    if (a->state == HIX_ACCOUNT_AGED)
        return aged_deleted(run, a, ev);
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return CM_STEP_FAIL;
    }
    if (hix_told_credit(run, ev, &credit) == 0)
        return delete_aged(run, a);
    refused(run, ev, err);
    if (ev->status == 200 && err->cls == CM_ERR_UPSTREAM_DOWN)
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, "hix tells no credit of this account");
    return CM_STEP_FAIL;
}
