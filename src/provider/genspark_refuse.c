/* What genspark's refusals mean: pages, bodies, and failures that are told as the text of an answer.
 *
 * Wire facts: genspark protocol notes, section 9. A text within a stream is looked at only when it is short, and what would
 * rest an account only when the platform named no model as its writer: an answer that talks about limits is none, and a client must not be
 * able to have accounts put to rest by what it lets a model say. */
#include "genspark_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

#define PREFIX "genspark "

static struct cm_str option(const struct cm_run *run, const char *name)
{
    return cm_option_value(cm_run_instance(run), name);
}

int genspark_cooldown_s(const struct cm_run *run, const char *name)
{
    return (int)((cm_option_int(cm_run_instance(run), name) + 999) / 1000);
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* ASCII letters in any case; for short texts. */
static bool has_nocase(struct cm_str text, struct cm_str word)
{
    for (size_t i = 0; i + word.n <= text.n; i++) {
        size_t k = 0;

        while (k < word.n && lower(text.p[i + k]) == lower(word.p[k]))
            k++;
        if (k == word.n)
            return true;
    }
    return false;
}

static bool is_short(struct cm_str text)
{
    return text.n <= 4 * GENSPARK_CANNED_CHARS && cm_utf8_count(text) <= GENSPARK_CANNED_CHARS;
}

/* ---- Failures told as text ---- */

enum sign {
    SIGN_BEGINS, /* the text begins so: the site's own sentence */
    SIGN_HAS     /* the words are somewhere in it */
};

static const struct canned {
    enum sign sign;
    struct cm_str words;
    enum cm_err_class cls;
    const char *cooldown; /* option; NULL = none is told */
} canned[] = {
    {SIGN_BEGINS, CM_S_INIT("Sorry, I couldn't produce a response"), CM_ERR_UPSTREAM_DOWN,
     "failure_cooldown"},
    {SIGN_BEGINS, CM_S_INIT("Sorry, I couldn\xe2\x80\x99t produce a response"),
     CM_ERR_UPSTREAM_DOWN, "failure_cooldown"},
    {SIGN_BEGINS, CM_S_INIT("Server overloaded, please try again later."), CM_ERR_UPSTREAM_DOWN,
     NULL},
    {SIGN_BEGINS, CM_S_INIT("You've reached your free usage limit"), CM_ERR_QUOTA_EXHAUSTED,
     "quota_cooldown"},
    {SIGN_BEGINS, CM_S_INIT("Rate limit exceeded cf"), CM_ERR_RATE_LIMITED, "rate_limit_cooldown"},
    {SIGN_HAS, CM_S_INIT("could not produce a response"), CM_ERR_UPSTREAM_DOWN, "failure_cooldown"},
    {SIGN_HAS, CM_S_INIT("couldn't produce a response"), CM_ERR_UPSTREAM_DOWN, "failure_cooldown"},
    {SIGN_HAS, CM_S_INIT("used all your credits"), CM_ERR_QUOTA_EXHAUSTED, "quota_cooldown"},
    {SIGN_HAS, CM_S_INIT("CREDIT_EXHAUSTED"), CM_ERR_QUOTA_EXHAUSTED, "quota_cooldown"},
    {SIGN_HAS, CM_S_INIT("积分已用完"), CM_ERR_QUOTA_EXHAUSTED, "quota_cooldown"},
    {SIGN_HAS, CM_S_INIT("too quickly"), CM_ERR_RATE_LIMITED, "rate_limit_cooldown"},
    {SIGN_HAS, CM_S_INIT("rate limit"), CM_ERR_RATE_LIMITED, "rate_limit_cooldown"},
};

#define RETIRED CM_S("this feature has been retired")

bool genspark_retired(struct cm_str text)
{
    return is_short(text) && has_nocase(text, RETIRED) && has_nocase(text, CM_S("ai chat"));
}

/* One of the two is the beginning of the other. */
static bool may_become(struct cm_str text, struct cm_str words)
{
    return cm_str_starts_nocase(text, words) || cm_str_starts_nocase(words, text);
}

bool genspark_suspicious(struct cm_str text)
{
    if (may_become(text, RETIRED) || has_nocase(text, RETIRED))
        return true;
    for (size_t i = 0; i < CM_COUNT(canned); i++) {
        if (canned[i].sign == SIGN_BEGINS ? may_become(text, canned[i].words)
                                          : has_nocase(text, canned[i].words))
            return true;
    }
    return false;
}

static int fail_canned(const struct cm_run *run, const struct canned *c, struct cm_err *err)
{
    cm_fail(err, c->cls, PREFIX "says instead of an answer: " CM_PRI, CM_ARG(c->words));
    err->retry_after_s = c->cooldown ? genspark_cooldown_s(run, c->cooldown) : 0;
    return -1;
}

int genspark_canned(const struct cm_run *run, enum genspark_dialect dialect, struct cm_str text,
                    bool served, struct cm_err *err)
{
    text = cm_str_trim(text);
    if (!is_short(text))
        return 0;
    for (size_t i = 0; i < CM_COUNT(canned); i++) {
        const struct canned *c = &canned[i];
        const bool sure = c->sign == SIGN_BEGINS && c->cls == CM_ERR_UPSTREAM_DOWN;

        if ((sure || (!served && dialect == GENSPARK_AGENT)) &&
            (c->sign == SIGN_BEGINS ? cm_str_starts_nocase(text, c->words)
                                    : has_nocase(text, c->words)))
            return fail_canned(run, c, err);
    }
    return 0;
}

/* ---- Refusals ---- */

static bool is_challenge(struct cm_str body)
{
    return cm_str_has(body, CM_S("<title>Just a moment...</title>")) ||
           cm_str_has(body, CM_S("window._cf_chl_opt")) ||
           cm_str_has(body, CM_S("cdn-cgi/challenge-platform"));
}

static bool is_block(struct cm_str body)
{
    return cm_str_has(body, CM_S("data-translate=\"block_headline\"")) ||
           cm_str_has(body, CM_S("Sorry, you have been blocked"));
}

/* Three of five: the page is redecorated now and then. */
static bool is_out_of_service(struct cm_str body)
{
    const int signs =
        cm_str_has(body, CM_S("<title>Genspark</title>")) +
        cm_str_has(body, CM_S("Service Unavailable")) +
        cm_str_has(body, CM_S("genspark_logo.png")) +
        (cm_str_has(body, CM_S("gensparkpublicblob-cdn")) &&
         cm_str_has(body, CM_S("azurefd.net"))) +
        (cm_str_has(body, CM_S("class=\"tt\"")) || cm_str_has(body, CM_S("class='tt'")));

    return signs >= 3;
}

/* {"status":-5,"message":"not login","data":{}} */
static bool is_not_login(struct cm_str body)
{
    yyjson_doc *doc = cm_json_parse(body, &cm_json_limits_event, NULL);
    yyjson_val *status = doc ? cm_json_opt(yyjson_doc_get_root(doc), "status") : NULL;
    const bool found = yyjson_is_int(status) && yyjson_get_sint(status) == -5;

    yyjson_doc_free(doc);
    return found;
}

static void refuse_page(const struct cm_run *run, int status, struct cm_str body,
                        struct cm_err *err)
{
    if (is_challenge(body)) {
        cm_fail(err, CM_ERR_VERIFICATION_REQUIRED,
                PREFIX "wants a human to verify this account or address (status %d)", status);
        err->of_address = true;
        err->retry_after_s = genspark_cooldown_s(run, "challenge_cooldown");
    } else if (is_block(body)) {
        cm_fail(err, CM_ERR_VERIFICATION_REQUIRED,
                PREFIX "has blocked this address: set a proxy for the provider or the account");
        err->of_address = true;
        err->retry_after_s = genspark_cooldown_s(run, "block_cooldown");
    } else if (is_out_of_service(body)) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, PREFIX "is out of service (status %d)", status);
        err->retry_after_s = genspark_cooldown_s(run, "page_cooldown");
    }
}

/* Words in a short body. */
static void refuse_words(const struct cm_run *run, int retry_after_s, struct cm_str body,
                         struct cm_err *err)
{
    if (!is_short(body))
        return;
    for (size_t i = 0; i < CM_COUNT(canned); i++) {
        const struct canned *c = &canned[i];

        if (c->sign == SIGN_BEGINS ? !cm_str_starts_nocase(body, c->words)
                                   : !has_nocase(body, c->words))
            continue;
        cm_fail(err, c->cls, PREFIX "refused: " CM_PRI, CM_ARG(c->words));
        if (retry_after_s > 0)
            err->retry_after_s = retry_after_s;
        else
            err->retry_after_s = c->cooldown ? genspark_cooldown_s(run, c->cooldown) : 0;
        return;
    }
}

static void refuse_status(const struct cm_run *run, int status, int retry_after_s,
                          struct cm_str body, struct cm_err *err)
{
    enum cm_err_class cls = CM_ERR_UPSTREAM_DOWN;

    if (status == 400 && cm_str_eq(body, CM_S("bad request cf"))) {
        /* a missing User-Agent; the same text is said to mean "not logged in": protocol notes, UNKNOWN */
        cls = cm_str_eq(option(run, "bad_request_cf"), CM_S("expired")) ? CM_ERR_EXPIRED
                                                                        : CM_ERR_BAD_REQUEST;
        cm_fail(err, cls, PREFIX "refused the request at its edge: bad request cf");
        return;
    }
    if (status == 401)
        cls = CM_ERR_EXPIRED;
    else if (status == 402)
        cls = CM_ERR_QUOTA_EXHAUSTED;
    else if (status == 429)
        cls = CM_ERR_RATE_LIMITED;
    else if (status == 400 || status == 413 || status == 422)
        cls = CM_ERR_BAD_REQUEST;
    if (status == 404)
        cm_fail(err, cls, PREFIX "has no such call any more (status 404): see its x.…_path");
    else if (status == 200)
        cm_fail(err, cls, PREFIX "answered with something that is no stream");
    else
        cm_fail(err, cls, PREFIX "answered with status %d", status);
    err->retry_after_s = retry_after_s;
}

void genspark_refuse(const struct cm_run *run, int status, int retry_after_s, struct cm_str body,
                     struct cm_err *err)
{
    body = cm_str_trim(body);
    *err = (struct cm_err){0};
    refuse_page(run, status, body, err);
    if (err->cls == CM_ERR_NONE && is_not_login(body))
        cm_fail(err, status == 403 ? CM_ERR_INVALID_CREDENTIAL : CM_ERR_EXPIRED,
                PREFIX "says that this account is not logged in");
    if (err->cls == CM_ERR_NONE)
        refuse_words(run, retry_after_s, body, err);
    if (err->cls == CM_ERR_NONE)
        refuse_status(run, status, retry_after_s, body, err);
}
