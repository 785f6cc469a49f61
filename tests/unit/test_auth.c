/* Auth: where clients put their key, and who may use a gateway without one. */
#include "unit.h"

#include "chatmux/base/mem.h"
#include "gateway/gateway_int.h"

#include <stdarg.h>

static struct snapshot *snapshot_of(const char *config_text)
{
    static char *const nothing[] = {NULL};
    struct cm_conf_source source = {.environ_list = nothing};
    struct cm_arena texts = {0};
    struct cm_map listed = {0};
    struct cm_problems problems;
    struct cm_config *config;
    struct snapshot *s;

    cm_problems_init(&problems, &texts);
    config = cm_config_parse("test.ini", cm_str_of(config_text), &source, &problems);
    ck_assert_msg(config != NULL, "%.*s", CM_ARG(problems.first->text));
    s = snapshot_new(config, &listed, &problems);
    ck_assert_msg(s != NULL, "%.*s", CM_ARG(problems.first->text));
    cm_config_unref(config); /* the snapshot has its own */
    cm_arena_clear(&texts);
    return s;
}

#define DEMO "[provider demo]\ntype = demo\n"
#define KEYED "[auth]\nkeys = sk-one, \"sk,two+x\"\n" DEMO

struct answer {
    int status; /* 0 = may pass */
    char key[32];
    struct cm_err err;
};

/* A request with these headers: "name", "value", …, NULL. */
static struct answer ask(const char *config_text, const char *peer, const char *query, ...)
{
    struct snapshot *s = snapshot_of(config_text);
    struct cm_header headers[8];
    struct cm_req req = {.peer = cm_str_of(peer), .query = cm_str_of(query), .headers = headers};
    struct cm_gateway gw = {.now = s, .keys = cm_keys_new(&cm_clock_system)};
    struct answer a = {.status = 0};
    struct cm_key *key = NULL;
    const char *name;
    va_list ap;

    va_start(ap, query);
    while ((name = va_arg(ap, const char *)))
        headers[req.n_headers++] =
            (struct cm_header){cm_str_of(name), cm_str_of(va_arg(ap, const char *))};
    va_end(ap);
    cm_keys_configure(gw.keys, s->config->auth.keys.v, s->config->auth.keys.n);
    if (auth_check(&gw, &req, &key, &a.err) < 0)
        a.status = cm_err_status(&a.err);
    cm_str_copy(a.key, sizeof(a.key), key ? cm_key_row(key)->name : CM_S("open"));
    cm_keys_free(gw.keys);
    cm_arena_clear(&req.arena);
    snapshot_unref(s);
    return a;
}

#define HERE "127.0.0.1"
#define HOST "Host", "127.0.0.1:8080"

static void passes(struct answer a, const char *key)
{
    ck_assert_msg(a.status == 0, "%s", a.err.msg);
    ck_assert_str_eq(a.key, key);
}

static void refused(struct answer a, int status)
{
    ck_assert_int_eq(a.status, status);
    ck_assert(!strstr(a.err.msg, "sk-"));
}

START_TEST(a_key_is_read_wherever_clients_put_it)
{
    passes(ask(KEYED, HERE, "", HOST, "Authorization", "Bearer sk-one", NULL), "key#1");
    passes(ask(KEYED, HERE, "", HOST, "authorization", "bearer   sk-one", NULL), "key#1");
    passes(ask(KEYED, HERE, "", HOST, "Authorization", "sk-one", NULL), "key#1");
    passes(ask(KEYED, HERE, "", HOST, "X-Api-Key", "sk-one", NULL), "key#1");
    passes(ask(KEYED, HERE, "", HOST, "x-goog-api-key", "sk-one", NULL), "key#1");
    passes(ask(KEYED, HERE, "key=sk-one", HOST, NULL), "key#1");
    passes(ask(KEYED, HERE, "alt=sse&key=sk%2Ctwo%2Bx", HOST, NULL), "key#2");
    passes(ask(KEYED, HERE, "key=sk,two%2bx&x=1", HOST, NULL), "key#2");
    passes(ask(KEYED, HERE, "key=a%zz&key=sk-one", HOST, NULL),
           "key#1"); /* what is no key is none */
    passes(ask(KEYED, HERE, "", HOST, "Sec-WebSocket-Protocol",
               "realtime, openai-insecure-api-key.sk-one, openai-beta.realtime-v1", NULL),
           "key#1");
    passes(ask(KEYED, HERE, "key=sk-one", HOST, "Authorization", "Bearer ", "X-Api-Key", "", NULL),
           "key#1");
}
END_TEST

START_TEST(a_wrong_key_is_401)
{
    refused(ask(KEYED, HERE, "", HOST, NULL), 401);
    refused(ask(KEYED, HERE, "", HOST, "Authorization", "Bearer sk-wrong", NULL), 401);
    refused(ask(KEYED, HERE, "", HOST, "Authorization", "Bearer sk-on", NULL), 401);
    refused(ask(KEYED, HERE, "", HOST, "Authorization", "Bearer sk-one2", NULL), 401);
    refused(ask(KEYED, HERE, "", HOST, "Authorization", "Bearer SK-ONE", NULL), 401);
    refused(ask(KEYED, HERE, "", HOST, "Authorization", "Basic c2stb25l", NULL), 401);
    refused(ask(KEYED, HERE, "keys=sk-one&akey=sk-one&key", HOST, NULL), 401);
    refused(ask(KEYED, HERE, "", HOST, "Sec-WebSocket-Protocol", "realtime", NULL), 401);
    refused(ask(KEYED, "unix", "", NULL), 401); /* a key is a key, on this machine too */
    /* the first place that holds one counts */
    refused(ask(KEYED, HERE, "key=sk-one", HOST, "Authorization", "Bearer sk-wrong", NULL), 401);
}
END_TEST

START_TEST(with_a_key_any_page_and_name_will_do)
{
    passes(ask(KEYED, "192.0.2.1", "", "Host", "gateway.example", "Origin", "https://app.example",
               "Authorization", "Bearer sk-one", NULL),
           "key#1");
}
END_TEST

START_TEST(an_open_gateway_serves_its_own_machine)
{
    static const char *const good[] = {"localhost", "localhost:8080", "LOCALHOST:8080",
                                       "127.0.0.1", "127.0.0.1:8080", "[::1]",
                                       "[::1]:8080"};
    static const char *const bad[] = {
        "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil:8080",
        "[::2]:8080",   "[::1].evil",        "0.0.0.0:8080",           "evil.example:127.0.0.1:1",
        "[::1"};

    for (size_t i = 0; i < CM_COUNT(good); i++)
        passes(ask(DEMO, HERE, "", "Host", good[i], NULL), "open");
    for (size_t i = 0; i < CM_COUNT(bad); i++)
        refused(ask(DEMO, HERE, "", "Host", bad[i], NULL), 403);
    passes(ask(DEMO, HERE, "", HOST, "Authorization", "Bearer anything", NULL),
           "open"); /* SDKs always send one */
    passes(ask(DEMO, "unix", "", "Host", "whatever", NULL), "open");
}
END_TEST

START_TEST(an_open_gateway_serves_no_foreign_page)
{
    static const char *const bad[] = {"https://evil.example",
                                      "null",
                                      "http://127.0.0.1:3000",
                                      "http://localhost:8080",
                                      "127.0.0.1:8080",
                                      "xx127.0.0.1:8080",
                                      "file://"};

    for (size_t i = 0; i < CM_COUNT(bad); i++)
        refused(ask(DEMO, HERE, "", HOST, "Origin", bad[i], NULL), 403);
    passes(ask(DEMO, HERE, "", HOST, "Origin", "http://127.0.0.1:8080", NULL),
           "open"); /* its own */
    passes(ask("[server]\ncors_origins = https://app.example\n" DEMO, HERE, "", HOST, "Origin",
               "https://APP.example", NULL),
           "open");
    refused(ask("[server]\ncors_origins = https://app.example\n" DEMO, HERE, "", HOST, "Origin",
                "https://app.example.evil", NULL),
            403);
    passes(ask("[server]\ncors_origins = *\n" DEMO, HERE, "", HOST, "Origin", "https://any.example",
               NULL),
           "open");
}
END_TEST

START_TEST(open_to_the_world_is_the_operators_word)
{
    static const char *const world = "[server]\nlisten = 0.0.0.0:8080\n[auth]\nopen = yes\n" DEMO;

    passes(ask(world, "192.0.2.1", "", "Host", "gateway.example:8080", NULL), "open");
    passes(ask(world, "192.0.2.1", "", NULL), "open");
    refused(ask(world, "192.0.2.1", "", "Host", "gateway.example:8080", "Origin",
                "https://evil.example", NULL),
            403);
    /* open wins over keys; who sends a known one is known by it */
    passes(ask("[auth]\nopen = yes\nkeys = sk-one\n" DEMO, HERE, "", HOST, "Authorization",
               "Bearer sk-one", NULL),
           "key#1");
    passes(ask("[auth]\nopen = yes\nkeys = sk-one\n" DEMO, HERE, "", HOST, "Authorization",
               "Bearer sk-other", NULL),
           "open");
}
END_TEST

static int ask_admin(const char *config_text, const char *authorization)
{
    struct snapshot *s = snapshot_of(config_text);
    struct cm_header header = {CM_S("Authorization"), cm_str_of(authorization)};
    struct cm_req req = {.headers = &header, .n_headers = authorization ? 1 : 0};
    struct cm_err err = {0};
    int status = auth_check_admin(s, &req, &err) < 0 ? cm_err_status(&err) : 0;

    ck_assert(!strstr(err.msg, "s3cret"));
    snapshot_unref(s);
    return status;
}

START_TEST(the_admin_secret)
{
    static const char *const on = "[auth]\nadmin_secret = s3cret-of-mine\n" DEMO;

    ck_assert_int_eq(ask_admin(on, "Bearer s3cret-of-mine"), 0);
    ck_assert_int_eq(ask_admin(on, "s3cret-of-mine"), 0);
    ck_assert_int_eq(ask_admin(on, "Bearer s3cret-of-min"), 401);
    ck_assert_int_eq(ask_admin(on, "Bearer s3cret-of-mine2"), 401);
    ck_assert_int_eq(ask_admin(on, ""), 401);
    ck_assert_int_eq(ask_admin(on, NULL), 401);
    ck_assert_int_eq(ask_admin(DEMO, "Bearer "),
                     404); /* no secret: no admin API, whatever is sent */
    ck_assert_int_eq(ask_admin(DEMO, NULL), 404);
}
END_TEST

Suite *suite_auth(void)
{
    Suite *s = suite_create("auth");
    TCase *t = tcase_create("keys");

    tcase_add_test(t, a_key_is_read_wherever_clients_put_it);
    tcase_add_test(t, a_wrong_key_is_401);
    tcase_add_test(t, with_a_key_any_page_and_name_will_do);
    suite_add_tcase(s, t);

    t = tcase_create("open");
    tcase_add_test(t, an_open_gateway_serves_its_own_machine);
    tcase_add_test(t, an_open_gateway_serves_no_foreign_page);
    tcase_add_test(t, open_to_the_world_is_the_operators_word);
    tcase_add_test(t, the_admin_secret);
    suite_add_tcase(s, t);
    return s;
}
