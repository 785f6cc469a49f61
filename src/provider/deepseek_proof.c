/* A challenge becomes a search for a number, and the number a header.
 * Wire facts: DeepSeek protocol notes, sections 3.3, 4.2 and 4.3. */
#include "deepseek_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"

#include <stdlib.h>

#define ALGORITHM "DeepSeekHashV1"
#define EXPIRE_MARGIN_MS 15000 /* a proof must reach the platform in time */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int read_hash(struct cm_str hex, unsigned char out[DEEPSEEK_HASH_BYTES])
{
    if (hex.n != 2 * (size_t)DEEPSEEK_HASH_BYTES)
        return -1;
    for (size_t i = 0; i < DEEPSEEK_HASH_BYTES; i++) {
        const int high = hex_digit(hex.p[2 * i]), low = hex_digit(hex.p[2 * i + 1]);

        if (high < 0 || low < 0)
            return -1;
        out[i] = (unsigned char)(high << 4 | low);
    }
    return 0;
}

/* A whole number however it is written; -1 when it is none, or out of bounds. */
static int64_t whole_number(yyjson_val *v)
{
    double d;

    if (yyjson_is_int(v))
        return yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX ? -1 : yyjson_get_sint(v);
    d = yyjson_is_real(v) ? yyjson_get_real(v) : -1;
    return d >= 0 && d < 9e15 ? (int64_t)d : -1;
}

int deepseek_challenge_read(struct cm_arena *arena, yyjson_val *v, int64_t now_unix_ms,
                            int64_t max_tries, struct deepseek_challenge *out, struct cm_err *err)
{
    int64_t lives_ms;

    *out = (struct deepseek_challenge){
        .algorithm = cm_arena_str(arena, cm_json_str(cm_json_get(v, "algorithm"))),
        .challenge = cm_arena_str(arena, cm_json_str(cm_json_get(v, "challenge"))),
        .salt = cm_arena_str(arena, cm_json_str(cm_json_get(v, "salt"))),
        .signature = cm_arena_str(arena, cm_json_str(cm_json_get(v, "signature"))),
        .target_path = cm_arena_str(arena, cm_json_str(cm_json_get(v, "target_path"))),
        .tries = whole_number(cm_json_get(v, "difficulty")),
        .expire_at_ms = whole_number(cm_json_get(v, "expire_at")),
    };
    if (out->algorithm.n > 0 && !cm_str_eq(out->algorithm, CM_S(ALGORITHM)))
        return cm_fail(err, CM_ERR_UPSTREAM_DOWN,
                       "deepseek asks for a proof of work of the kind \"" CM_PRI
                       "\", which this version does not know",
                       CM_ARG(cm_str_head(out->algorithm, 40)));
    if (out->algorithm.n == 0 || out->tries < 0 || out->expire_at_ms < 0 ||
        read_hash(out->challenge, out->want))
        return 1;
    if (out->tries > max_tries)
        return cm_fail(err, CM_ERR_UPSTREAM_DOWN,
                       "deepseek asks for a proof of work of up to %lld tries; x.max_tries allows "
                       "%lld",
                       (long long)out->tries, (long long)max_tries);
    lives_ms = whole_number(cm_json_get(v, "expire_after"));
    if (lives_ms < 0)
        lives_ms = out->expire_at_ms - now_unix_ms;
    out->lives_ms = lives_ms > EXPIRE_MARGIN_MS ? lives_ms - EXPIRE_MARGIN_MS : 0;
    return 0;
}

struct deepseek_search *deepseek_search_new(const struct deepseek_challenge *c)
{
    struct deepseek_search *s = CM_NEW(struct deepseek_search);

    cm_buf_append(&s->prefix, c->salt);
    cm_buf_put(&s->prefix, '_');
    cm_buf_put_u64(&s->prefix, (uint64_t)c->expire_at_ms);
    cm_buf_put(&s->prefix, '_');
    memcpy(s->want, c->want, sizeof(s->want));
    s->tries = c->tries;
    s->answer = -1;
    return s;
}

void deepseek_search_work(void *search, const atomic_bool *cancelled)
{
    struct deepseek_search *s = search;

    s->answer = deepseek_solve(cm_buf_str(&s->prefix), s->want, s->tries, cancelled);
}

void deepseek_search_free(void *search)
{
    struct deepseek_search *s = search;

    if (!s)
        return;
    cm_buf_clear(&s->prefix);
    free(s);
}

static void put_member(struct cm_buf *out, const char *name, struct cm_str value)
{
    cm_buf_printf(out, "\"%s\":", name);
    cm_json_put_str(out, value);
    cm_buf_put(out, ',');
}

struct cm_str deepseek_proof(struct cm_arena *arena, const struct deepseek_challenge *c,
                             int64_t answer)
{
    struct cm_buf json = {0}, header = {0};

    cm_buf_put(&json, '{');
    put_member(&json, "algorithm", c->algorithm);
    put_member(&json, "challenge", c->challenge);
    put_member(&json, "salt", c->salt);
    cm_buf_printf(&json, "\"answer\":%lld,", (long long)answer);
    put_member(&json, "signature", c->signature);
    cm_buf_append(&json, CM_S("\"target_path\":"));
    cm_json_put_str(&json, c->target_path);
    cm_buf_put(&json, '}');
    cm_base64(&header, cm_buf_str(&json));
    cm_buf_clear(&json);
    return cm_buf_settle(&header, arena);
}

/* ---- On the way to a call ---- */

enum cm_step deepseek_ask_challenge(struct cm_run *run, const struct deepseek_account *account,
                                    const char *path_option, int64_t timeout_ms)
{
    struct deepseek_ask ask = {.path_option = "challenge_path", .timeout_ms = timeout_ms};
    struct cm_buf body = {0};

    cm_buf_append(&body, CM_S("{\"target_path\":"));
    cm_json_put_str(&body, deepseek_option(run, path_option));
    cm_buf_put(&body, '}');
    ask.body = cm_buf_settle(&body, cm_run_arena(run));
    return deepseek_fetch(run, account, &ask);
}

int deepseek_challenged(struct cm_run *run, struct deepseek_prover *p,
                        const struct deepseek_reply *reply, struct cm_err *err)
{
    return deepseek_challenge_read(
        cm_run_arena(run), cm_json_get(reply->biz, "challenge"), cm_run_unix_ms(run),
        cm_option_int(cm_run_instance(run), "max_tries"), &p->challenge, err);
}

enum cm_step deepseek_prove(struct cm_run *run, struct deepseek_prover *p)
{
    deepseek_prover_clear(p);
    p->search = deepseek_search_new(&p->challenge);
    p->computing = true;
    return cm_run_compute(run, deepseek_search_work, p->search, deepseek_search_free);
}

struct cm_str deepseek_proved(struct cm_run *run, struct deepseek_prover *p)
{
    p->computing = false;
    return p->search->answer < 0
               ? CM_STR_NONE
               : deepseek_proof(cm_run_arena(run), &p->challenge, p->search->answer);
}

/* What a thread still has is freed when it lets go. */
void deepseek_prover_clear(struct deepseek_prover *p)
{
    if (!p->computing)
        deepseek_search_free(p->search);
    p->search = NULL;
    p->computing = false;
}
