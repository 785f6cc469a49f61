/* The environments of other gateways: which one is in force, what its variables become, what is told. */
#include "chatmux/base/config.h"
#include "unit.h"

#include "base/config_int.h"
#include "base/seeds.h"
#include "fixture.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"

#include <stdlib.h>

static struct cm_arena arena;
static struct cm_problems problems;
static struct cm_config *c;
static const char *variables[16];

static void clean_up(void)
{
    cm_config_unref(c);
    c = NULL;
    cm_arena_clear(&arena);
}

/* With these variables ("A=1 B=2 …"), and a file of that text or (NULL) none. */
static void load(const char *env, const char *file)
{
    struct cm_conf_source src = {.environ_list = (char **)(uintptr_t)variables};
    struct cm_str rest = cm_str_of(env);
    size_t n = 0;

    while (rest.n > 0)
        variables[n++] = cm_arena_z(&arena, cm_str_cut(&rest, ' '));
    variables[n] = NULL;
    cm_config_unref(c);
    cm_problems_init(&problems, &arena);
    c = file ? cm_config_parse("f.ini", cm_str_of(file), &src, &problems)
             : cm_config_load(&src, &problems);
    ck_assert((c == NULL) == (problems.n > 0));
}

static void accept(const char *env, const char *file)
{
    load(env, file);
    if (problems.n > 0)
        ck_abort_msg("%s: %s: %s", env, problems.first->where.p, problems.first->text.p);
}

static void refuse(const char *env, const char *file, const char *where, const char *part)
{
    load(env, file);
    if (problems.n != 1)
        ck_abort_msg("%u problems with \"%s\", first: %s", problems.n, env,
                     problems.n ? problems.first->text.p : "none");
    ck_assert_str_eq(problems.first->where.p, where);
    ck_assert_msg(cm_str_has(problems.first->text, cm_str_of(part)), "\"%s\" lacks \"%s\"",
                  problems.first->text.p, part);
}

static struct cm_str joined(struct cm_strs list)
{
    struct cm_str all = CM_STR_NONE;

    for (size_t i = 0; i < list.n; i++)
        all = cm_arena_printf(&arena, CM_PRI "%s" CM_PRI, CM_ARG(all), i ? "|" : "",
                              CM_ARG(list.v[i]));
    return all;
}

static bool is_told(const char *part)
{
    for (size_t i = 0; i < c->remarks.n; i++)
        if (cm_str_has(c->remarks.v[i], cm_str_of(part)))
            return true;
    return false;
}

START_TEST(a_variable_chooses_the_system)
{
    accept("MYSQL_DSN=u:p@tcp(db:3306)/x", NULL);
    ck_str(c->seed, "hixai2api");
    ck_assert(!c->builtin_demo);
    ck_assert_uint_eq(c->n_providers, 1);
    ck_str(c->providers[0].name, "hix");
    ck_str(c->providers[0].type, "hix");
    ck_str(c->providers[0].where, "environment MYSQL_DSN");
    accept("BACKEND_SECRET=x", NULL);
    ck_str(c->seed, "hixai2api");
    accept("CHATMUX_COMPAT=hixai2api", NULL);
    ck_str(c->seed, "hixai2api");
    accept("CHATMUX_COMPAT= BACKEND_SECRET=", NULL);
    ck_assert(c->builtin_demo && c->seed.n == 0);
    /* with a file nothing but CHATMUX_COMPAT does */
    accept("BACKEND_SECRET=x", "[provider demo]\ntype = demo\n");
    ck_assert(c->seed.n == 0 && c->auth.admin_secret.n == 0);
}
END_TEST

START_TEST(what_contradicts_itself_is_refused)
{
    refuse("GS_COOKIE=a AS_COOKIE=b", NULL, "environment GS_COOKIE", "AS_COOKIE");
    refuse("CHATMUX_COMPAT=hixapi", NULL, "environment CHATMUX_COMPAT", "must be one of hixai2api");
    refuse("CHATMUX_COMPAT=hot-apis", NULL, "environment CHATMUX_COMPAT", "not understood yet");
    refuse("CHATMUX_COMPAT=aiproxy", NULL, "environment CHATMUX_COMPAT", "not understood yet");
}
END_TEST

START_TEST(hixai2api_has_its_defaults)
{
    accept("BACKEND_SECRET=x", NULL);
    ck_str(joined(c->server.listen), "0.0.0.0:7044");
    ck_str(joined(c->server.cors_origins), "*");
    ck_assert_int_eq(c->server.compat, CM_COMPAT_HIXAI2API);
    ck_assert(c->server.swagger && c->auth.open_until_keys && !c->auth.open && !c->auth.open_here);
    ck_assert_int_eq(c->auth.ip_requests_per_minute, 60);
    ck_assert_int_eq(c->stream.reasoning, CM_REASONING_THINK);
    ck_str(c->auth.admin_secret, "x");
    ck_assert_uint_eq(c->remarks.n, 0);
}
END_TEST

START_TEST(hixai2api_has_its_variables)
{
    accept("BACKEND_SECRET=x PORT=7100 DEBUG=true ROUTE_PREFIX=hf/ PROXY_URL=socks5://h:1 "
           "REQUEST_RATE_LIMIT=7 SWAGGER_ENABLE=0 IP_BLACK_LIST=1.2.3.4,,10.0.0.0/8 "
           "API_SECRET=a,b REASONING_HIDE=1",
           NULL);
    ck_str(joined(c->server.listen), "0.0.0.0:7100");
    ck_assert_int_eq(c->log.level, 3);
    ck_str(c->server.route_prefix, "/hf");
    ck_str(c->upstream.proxy, "socks5h://h:1");
    ck_str(c->providers[0].upstream.proxy, "socks5h://h:1");
    ck_assert_int_eq(c->auth.ip_requests_per_minute, 7);
    ck_assert(!c->server.swagger);
    ck_str(joined(c->auth.ip_block), "1.2.3.4|10.0.0.0/8");
    ck_str(joined(c->auth.keys), "a|b");
    ck_assert_int_eq(c->stream.reasoning, CM_REASONING_HIDE);

    accept("BACKEND_SECRET=x SWAGGER_ENABLE=1 DEBUG=TRUE REASONING_HIDE=0", NULL);
    ck_assert(c->server.swagger);
    ck_assert_int_eq(c->log.level, 2);
    ck_assert_int_eq(c->stream.reasoning, CM_REASONING_THINK);

    accept("BACKEND_SECRET=x BACKEND_API_ENABLE=0", NULL);
    ck_assert_uint_eq(c->auth.admin_secret.n, 0);
    accept("BACKEND_SECRET=x BACKEND_API_ENABLE=1", NULL);
    ck_str(c->auth.admin_secret, "x");
}
END_TEST

static struct cm_str option(const char *name)
{
    const struct cm_provider_conf *p = &c->providers[0];

    for (size_t i = 0; i < p->n_options; i++)
        if (cm_str_eq(p->options[i].key, cm_str_of(name)))
            return p->options[i].value;
    return CM_STR_NONE;
}

START_TEST(chats_of_hixai2api_have_an_age)
{
    accept("BACKEND_SECRET=x CHAT_MAX_DAYS=7", NULL);
    ck_str(option("continue_ttl"), "7d");
    ck_str(option("delete_after"), "7d");
    ck_assert_uint_eq(c->remarks.n, 0);
    accept("BACKEND_SECRET=x CHAT_MAX_DAYS=0", NULL);
    ck_str(option("delete_chat"), "yes");
    ck_assert_uint_eq(option("continue_ttl").n, 0);
    for (const char *const *all = (const char *const[]){"-1", "99999", "soon", NULL}; *all; all++) {
        struct cm_str env = cm_arena_printf(&arena, "BACKEND_SECRET=x CHAT_MAX_DAYS=%s", *all);

        accept(env.p, NULL);
        ck_assert_uint_eq(c->providers[0].n_options + c->remarks.n, 0);
    }
}
END_TEST

START_TEST(genspark2api_has_its_own)
{
    accept("GS_COOKIE=session_id=a,b AUTO_DEL_CHAT=1 AUTO_MODEL_CHAT_MAP_TYPE=0 "
           "MODEL_CHAT_MAP=gpt-5.2=abc RECAPTCHA_PROXY_URL=http://r:1 "
           "RATE_LIMIT_COOKIE_LOCK_DURATION=90 PRE_MESSAGES_JSON=[] SESSION_IMAGE_CHAT_MAP=s=p "
           "YES_CAPTCHA_CLIENT_KEY=k UPLOAD_PATH=/x BACKEND_SECRET=b",
           NULL);
    ck_str(c->seed, "genspark2api");
    ck_str(joined(c->server.listen), "0.0.0.0:7044");
    ck_assert_int_eq(c->server.compat, CM_COMPAT_GENSPARK2API);
    ck_assert(!c->server.swagger); /* it has none */
    ck_str(c->providers[0].type, "genspark");
    ck_str(joined(c->providers[0].credentials), "session_id=a|b");
    ck_str(joined(c->providers[0].models), "*");
    ck_assert_int_eq(c->providers[0].upstream.cooldown_ms, 90000);
    ck_str(option("rate_limit_cooldown"), "90s");
    ck_str(option("delete_chat"), "yes");
    ck_str(option("continue"), "no");
    ck_str(option("model_chat_map"), "gpt-5.2=abc");
    ck_str(option("session_image_chat_map"), "s=p");
    ck_str(option("verifier_url"), "http://r:1");
    ck_str(option("pre_messages"), "[]");
    ck_assert_uint_eq(c->auth.admin_secret.n, 0);
    ck_assert_uint_eq(c->remarks.n, 2);
    accept("GS_COOKIE=a RATE_LIMIT_COOKIE_LOCK_DURATION=x", NULL);
    ck_assert_uint_eq(c->remarks.n, 1); /* two settings, one line */
    ck_assert_int_eq(c->providers[0].upstream.cooldown_ms, 600000);
    ck_str(option("continue"), "thread");
    accept("GS_COOKIE=a AUTO_MODEL_CHAT_MAP_TYPE=1 CHATMUX_CONTAINER=1", NULL);
    ck_str(option("continue"), "model");
    ck_str(joined(c->server.listen), "0.0.0.0:7044|0.0.0.0:7055");
    accept("GS_COOKIE=a PORT=9000 CHATMUX_CONTAINER=1", NULL);
    ck_str(joined(c->server.listen), "0.0.0.0:9000");
    refuse("CHATMUX_COMPAT=genspark2api", NULL, "environment CHATMUX_COMPAT", "needs GS_COOKIE");
}
END_TEST

START_TEST(alexsidebar2api_has_its_own)
{
    accept("AS_COOKIE=AMf-one,,AMf-two RATE_LIMIT_COOKIE_LOCK_DURATION=60 USER_AGENT=App/1 "
           "AS_FIREBASE_KEY=AIza API_SECRET=k BACKEND_SECRET=x BACKEND_API_ENABLE=1 "
           "CHINESE_CHAT_ENABLED=true PRE_MESSAGES_JSON=[] SWAGGER_ENABLE=0",
           NULL);
    ck_str(c->seed, "alexsidebar2api");
    ck_str(joined(c->server.listen), "0.0.0.0:10033");
    ck_assert_int_eq(c->server.compat, CM_COMPAT_ALEXSIDEBAR2API);
    ck_assert(!c->server.swagger);
    ck_str(c->providers[0].type, "alexsidebar");
    ck_str(joined(c->providers[0].credentials), "AMf-one|AMf-two");
    ck_assert_int_eq(c->providers[0].upstream.cooldown_ms, 60000);
    ck_str(c->providers[0].upstream.user_agent, "App/1");
    ck_str(c->providers[0].options[0].key, "firebase_key");
    ck_str(c->providers[0].options[0].where, "environment AS_FIREBASE_KEY");
    ck_str(joined(c->auth.keys), "k");
    ck_assert_uint_eq(c->auth.admin_secret.n, 0); /* it has no admin routes */
    ck_assert_uint_eq(c->remarks.n, 4);
    accept("AS_COOKIE=AMf-one RATE_LIMIT_COOKIE_LOCK_DURATION=soon", NULL);
    ck_assert_int_eq(c->providers[0].upstream.cooldown_ms, 600000);
    ck_assert(c->server.swagger && is_told("RATE_LIMIT_COOKIE_LOCK_DURATION is no number"));
    refuse("CHATMUX_COMPAT=alexsidebar2api", NULL, "environment CHATMUX_COMPAT", "needs AS_COOKIE");
    accept("CHATMUX_COMPAT=alexsidebar2api", "[provider alexsidebar]\ncredentials = a\n");
}
END_TEST

START_TEST(a_number_that_is_none_leaves_the_default)
{
    accept("BACKEND_SECRET=x REQUEST_RATE_LIMIT=many", NULL);
    ck_assert_int_eq(c->auth.ip_requests_per_minute, 60);
    ck_assert(is_told("REQUEST_RATE_LIMIT is no number"));
}
END_TEST

START_TEST(problems_name_the_variable)
{
    refuse("BACKEND_SECRET=x PORT=abc", NULL, "environment PORT", "server.listen");
    refuse("BACKEND_SECRET=x PROXY_URL=ftp://h:1", NULL, "environment PROXY_URL", "proxy");
    refuse("BACKEND_SECRET=x IP_BLACK_LIST=home", NULL, "environment IP_BLACK_LIST", "ip_block");
    refuse("BACKEND_SECRET=x ROUTE_PREFIX=a//b", NULL, "environment ROUTE_PREFIX", "route_prefix");
}
END_TEST

START_TEST(what_has_no_effect_is_told_in_one_line)
{
    accept("MYSQL_DSN=user:very-secret@tcp(db)/x SQL_MAX_OPEN_CONNS=5 GIN_MODE=debug", NULL);
    ck_assert_uint_eq(c->remarks.n, 3);
    ck_assert(is_told("MYSQL_DSN has no effect") && is_told("SQLite") && is_told("import"));
    ck_assert(is_told("SQL_MAX_OPEN_CONNS has no effect") && is_told("GIN_MODE has no effect"));
    ck_assert(!is_told("very-secret"));
    accept("CHATMUX_COMPAT=hixai2api GS_COOKIE=a", NULL);
    ck_assert_uint_eq(c->remarks.n, 1);
    ck_assert(is_told("GS_COOKIE has no effect") && is_told("genspark2api"));
}
END_TEST

START_TEST(a_file_stands_between_defaults_and_variables)
{
    const char *file = "[server]\nlisten = 127.0.0.1:5\ncors_origins = https://a.example\n"
                       "[auth]\nip_requests_per_minute = 1\n[provider hix]\nweight = 3\n";

    accept("CHATMUX_COMPAT=hixai2api REQUEST_RATE_LIMIT=2", file);
    ck_str(joined(c->server.listen), "127.0.0.1:5");
    ck_str(joined(c->server.cors_origins), "https://a.example");
    ck_assert_int_eq(c->auth.ip_requests_per_minute, 2);
    ck_assert_uint_eq(c->n_providers, 1); /* the file's */
    ck_str(c->providers[0].type, "hix");
    ck_assert_int_eq(c->providers[0].weight, 3);
    accept("CHATMUX_COMPAT=hixai2api REQUEST_RATE_LIMIT=2 CHATMUX_AUTH_IP_REQUESTS_PER_MINUTE=3 "
           "CHATMUX_PROVIDER_HIX_WEIGHT=4",
           "[provider other]\ntype = demo\n");
    ck_assert_int_eq(c->auth.ip_requests_per_minute, 3);
    ck_assert_uint_eq(c->n_providers, 2);
    ck_str(c->providers[1].name, "hix");
    ck_assert_int_eq(c->providers[1].weight, 4);
    accept("CHATMUX_COMPAT=hixai2api", ""); /* no provider in the file: the system brings one */
}
END_TEST

START_TEST(a_container_listens_where_it_is_told)
{
    accept("CHATMUX_CONTAINER=1 CHATMUX_AUTH_KEYS=k", NULL);
    ck_str(joined(c->server.listen), "0.0.0.0:8080");
    accept("CHATMUX_CONTAINER=1 CHATMUX_AUTH_KEYS=k PORT=9000",
           "[server]\nlisten = 127.0.0.1:1\n[provider demo]\ntype = demo\n");
    ck_str(joined(c->server.listen), "0.0.0.0:9000");
    accept("CHATMUX_CONTAINER=1 CHATMUX_AUTH_KEYS=k PORT=9000 CHATMUX_SERVER_LISTEN=127.0.0.1:2",
           NULL);
    ck_str(joined(c->server.listen), "127.0.0.1:2");
    accept("CHATMUX_CONTAINER=1 BACKEND_SECRET=x", NULL);
    ck_str(joined(c->server.listen), "0.0.0.0:7044");
    accept("PORT=9000", NULL); /* outside of a container it is anybody's */
    ck_str(joined(c->server.listen), "127.0.0.1:8080");
}
END_TEST

START_TEST(print_tells_the_variable)
{
    struct cm_buf out = {0};

    accept("BACKEND_SECRET=xyz-123456789 PORT=7100", NULL);
    cm_config_print(c, &out);
    ck_assert(cm_str_has(cm_buf_str(&out), CM_S("; environment PORT\nlisten = 0.0.0.0:7100\n")));
    ck_assert(cm_str_has(cm_buf_str(&out), CM_S("; environment BACKEND_SECRET\nadmin_secret")));
    ck_assert(cm_str_has(cm_buf_str(&out), CM_S("; from the defaults of hixai2api (BACKEND_SECRET "
                                                "is set)\ncompat = hixai2api\n")));
    ck_assert(!cm_str_has(cm_buf_str(&out), CM_S("xyz-123456789")));
    cm_buf_clear(&out);
}
END_TEST

START_TEST(route_prefixes_of_the_notes)
{
    char *text = fixture("seed/common.json");
    yyjson_doc *doc = cm_json_parse(cm_str_of(text), &cm_json_limits_request, NULL);
    yyjson_val *row;
    size_t i, n, tried = 0;

    yyjson_arr_foreach(cm_json_get(yyjson_doc_get_root(doc), "route_prefix"), i, n, row)
    {
        struct cm_str given = cm_json_str(cm_json_get(row, "given"));
        struct cm_str env =
            cm_arena_printf(&arena, "BACKEND_SECRET=x ROUTE_PREFIX=" CM_PRI, CM_ARG(given));

        accept(env.p, NULL);
        ck_assert_msg(cm_str_eq(c->server.route_prefix, cm_json_str(cm_json_get(row, "effective"))),
                      CM_PRI, CM_ARG(given));
        tried++;
    }
    ck_assert_uint_eq(tried, 6);
    yyjson_doc_free(doc);
    free(text);
}
END_TEST

/* Rows name settings that exist, and words that they take. */
START_TEST(every_row_of_every_system_is_sound)
{
    for (size_t i = 0; i < cm_seeds_n; i++) {
        const struct cm_seed *s = &cm_seeds[i];

        ck_assert((s->provider == NULL) == (s->vars == NULL) && s->name);
        for (const struct cm_seed_var *v = s->vars; v && v->name; v++) {
            bool option = v->key && cm_conf_is_open_key(cm_str_of(v->key));

            ck_assert_msg((v->form == CM_SEED_IGNORED) == (v->key == NULL), "%s", v->name);
            ck_assert_msg(v->words || (v->form != CM_SEED_IGNORED && v->form != CM_SEED_WORDS),
                          "%s", v->name);
            ck_assert_msg(!v->key || option ||
                              cm_conf_row(cm_str_of(v->section), cm_str_of(v->key)),
                          "%s", v->name);
            for (const struct cm_seed_var *w = s->vars; w < v; w++)
                ck_assert_msg(strcmp(w->name, v->name) != 0 ||
                                  (w->key && v->key && strcmp(w->key, v->key) != 0),
                              "%s twice", v->name);
        }
        for (const struct cm_seed_default *d = s->defaults; d && d->key; d++)
            ck_assert_msg(cm_conf_is_open_key(cm_str_of(d->key)) ||
                              cm_conf_row(cm_str_of(d->section), cm_str_of(d->key)),
                          "%s.%s", d->section, d->key);
    }
}
END_TEST

Suite *suite_config_seed(void)
{
    Suite *s = suite_create("config_seed");
    TCase *t = tcase_create("config_seed");

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, NULL, clean_up);
    tcase_add_test(t, a_variable_chooses_the_system);
    tcase_add_test(t, what_contradicts_itself_is_refused);
    tcase_add_test(t, hixai2api_has_its_defaults);
    tcase_add_test(t, hixai2api_has_its_variables);
    tcase_add_test(t, chats_of_hixai2api_have_an_age);
    tcase_add_test(t, genspark2api_has_its_own);
    tcase_add_test(t, alexsidebar2api_has_its_own);
    tcase_add_test(t, a_number_that_is_none_leaves_the_default);
    tcase_add_test(t, problems_name_the_variable);
    tcase_add_test(t, what_has_no_effect_is_told_in_one_line);
    tcase_add_test(t, a_file_stands_between_defaults_and_variables);
    tcase_add_test(t, a_container_listens_where_it_is_told);
    tcase_add_test(t, print_tells_the_variable);
    tcase_add_test(t, route_prefixes_of_the_notes);
    tcase_add_test(t, every_row_of_every_system_is_sound);
    return s;
}
