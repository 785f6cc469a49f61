/* The cookies of a genspark account: how a pasted secret is kept, and what the site sets besides.
 *
 * What answers set (a fresh __cf_bm every half an hour) is remembered between runs, one line a cookie: "UNTIL_MS NAME=VALUE". session_id is
 * never taken from there: the stored one would be lost with a stray Set-Cookie. Wire facts: genspark protocol notes, section 1. */
#include "genspark_int.h"

#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/secret.h"

#define SESSION CM_S("session_id")
#define KEY CM_S("cookies")
#define COOKIES_MAX 16
#define COOKIE_BYTES_MAX 4096
#define LIFE_MS (30 * INT64_C(60000)) /* of a cookie that tells none */
#define LIFE_MAX_MS (24 * 60 * INT64_C(60000))

int genspark_normalize(struct cm_arena *arena, struct cm_str given, struct cm_str *out,
                       struct cm_err *err)
{
    struct cm_buf cookie = {0};

    given = cm_str_trim(given);
    if (cm_str_starts_nocase(given, CM_S("Cookie:")))
        given = cm_str_trim(cm_str_from(given, sizeof("Cookie:") - 1));
    if (given.n == 0 || !cm_header_value_ok(given))
        return cm_fail(err, CM_ERR_BAD_REQUEST,
                       given.n == 0 ? "paste the value of the cookie session_id"
                                    : "the cookie has a control character");
    if (!cm_str_has(given, CM_S("session_id=")) && cm_str_find_char(given, '=') != SIZE_MAX)
        cm_warn("genspark", "a credential names cookies but no session_id: it is sent as it is");
    cm_buf_reserve(&cookie, given.n + sizeof("session_id=")); /* once: what moves leaves a copy */
    if (cm_str_find_char(given, '=') == SIZE_MAX)
        cm_buf_append(&cookie, CM_S("session_id="));
    cm_buf_append(&cookie, given);
    *out = cm_secret_in(arena, cm_buf_str(&cookie));
    cm_wipe(cookie.p, cookie.n);
    cm_buf_clear(&cookie);
    return 0;
}

/* ---- What the site has set ---- */

struct cookie {
    struct cm_str name, pair; /* "NAME", "NAME=VALUE" */
    int64_t until_ms;         /* Unix */
};
struct jar {
    struct cookie v[COOKIES_MAX];
    size_t n;
};

static struct cm_str name_of(struct cm_str pair)
{
    return cm_str_trim(cm_str_cut(&pair, '='));
}

static void jar_put(struct jar *jar, struct cookie c)
{
    size_t at = 0;

    while (at < jar->n && !cm_str_eq(jar->v[at].name, c.name))
        at++;
    if (at == COOKIES_MAX)
        return;
    jar->n += at == jar->n;
    jar->v[at] = c;
}

/* Room for all of them, written in either form. */
static size_t jar_bytes(const struct jar *jar)
{
    size_t n = 0;

    for (size_t i = 0; i < jar->n; i++)
        n += jar->v[i].pair.n + 32;
    return n;
}

/* Into the run's arena, leaving no copy behind: what was reserved has not moved. */
static struct cm_str settle(struct cm_run *run, struct cm_buf *text)
{
    const struct cm_str kept = cm_arena_str(cm_run_arena(run), cm_buf_str(text));

    cm_wipe(text->p, text->n);
    cm_buf_clear(text);
    return kept;
}

/* Those that are still good; slices of what is remembered, copied into the run's arena. */
static void jar_read(struct cm_run *run, struct jar *jar)
{
    const int64_t now_ms = cm_run_unix_ms(run);
    struct cm_str text;

    jar->n = 0;
    if (!cm_run_recall(run, KEY, &text))
        return;
    text = cm_arena_str(cm_run_arena(run), text);
    while (text.n > 0) {
        struct cm_str line = cm_str_cut(&text, '\n');
        uint64_t until_ms = 0;

        cm_str_to_u64(cm_str_cut(&line, ' '), INT64_MAX, &until_ms);
        if ((int64_t)until_ms > now_ms)
            jar_put(jar, (struct cookie){name_of(line), line, (int64_t)until_ms});
    }
}

/* "NAME=VALUE; Max-Age=1800; Path=/". false: not one to keep. */
static bool read_set_cookie(struct cm_str text, int64_t now_ms, struct cookie *c)
{
    c->pair = cm_str_trim(cm_str_cut(&text, ';'));
    c->name = name_of(c->pair);
    c->until_ms = now_ms + LIFE_MS;
    while (text.n > 0) {
        struct cm_str attribute = cm_str_trim(cm_str_cut(&text, ';'));
        const struct cm_str name = cm_str_trim(cm_str_cut(&attribute, '='));
        uint64_t seconds = 0;
        int64_t at_s;

        if (cm_str_eq_nocase(name, CM_S("max-age"))) {
            cm_str_to_u64(cm_str_trim(attribute), LIFE_MAX_MS / 1000, &seconds);
            c->until_ms = now_ms + (int64_t)seconds * 1000; /* 0, or nonsense: it is taken away */
            break;
        }
        if (cm_str_eq_nocase(name, CM_S("expires")) &&
            !cm_http_date_parse(cm_str_trim(attribute), &at_s))
            c->until_ms = at_s < (now_ms + LIFE_MAX_MS) / 1000 ? at_s * 1000 : now_ms + LIFE_MAX_MS;
    }
    return c->name.n > 0 && c->pair.n <= COOKIE_BYTES_MAX && !cm_str_eq(c->name, SESSION);
}

void genspark_cookie_learn(struct cm_run *run, const struct cm_header *headers, size_t n)
{
    const int64_t now_ms = cm_run_unix_ms(run);
    struct jar jar = {.n = 0};
    struct cm_buf text = {0};
    bool read = false;

    for (size_t i = 0; i < n; i++) {
        struct cookie c;

        if (!cm_str_eq_nocase(headers[i].name, CM_S("set-cookie")) ||
            !read_set_cookie(headers[i].value, now_ms, &c))
            continue;
        if (!read)
            jar_read(run, &jar);
        read = true;
        jar_put(&jar, c);
    }
    if (!read)
        return;
    cm_buf_reserve(&text, jar_bytes(&jar));
    for (size_t i = 0; i < jar.n; i++) {
        if (jar.v[i].until_ms <= now_ms)
            continue;
        cm_buf_printf(&text, "%lld ", (long long)jar.v[i].until_ms);
        cm_buf_append(&text, jar.v[i].pair);
        cm_buf_put(&text, '\n');
    }
    cm_run_remember(run, KEY, settle(run, &text), LIFE_MAX_MS);
}

struct cm_str genspark_cookie(struct cm_run *run)
{
    struct cm_str secret = cm_run_cred(run)->secret;
    struct cm_buf out = {0};
    struct jar jar;

    jar_read(run, &jar);
    if (jar.n == 0)
        return secret;
    cm_buf_reserve(&out, secret.n + jar_bytes(&jar));
    while (secret.n > 0) {
        const struct cm_str pair = cm_str_trim(cm_str_cut(&secret, ';'));
        bool newer = pair.n == 0;

        for (size_t i = 0; i < jar.n; i++)
            newer |= cm_str_eq(jar.v[i].name, name_of(pair));
        if (newer)
            continue;
        cm_buf_append(&out, pair);
        cm_buf_append(&out, CM_S("; "));
    }
    for (size_t i = 0; i < jar.n; i++) {
        cm_buf_append(&out, jar.v[i].pair);
        if (i + 1 < jar.n)
            cm_buf_append(&out, CM_S("; "));
    }
    return settle(run, &out);
}
