/* provider/alexsidebar: its access tokens, and what it says without the key they need. */
#include "fake_run.h"
#include "fixture.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "chatmux/provider/list.h"
#include "unit.h"

#include <stdlib.h>

#define BODY "{\"model\":\"o1\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"
#define TOKEN "{\"access\":\"acc.ess\",\"refresh\":\"AMf-later\",\"user\":\"uid-1\"}"

static struct fake_result r;
static const char *const keyed[] = {"firebase_key", "AIza-test&key", NULL};

static const char *header(size_t request, const char *name)
{
    const struct fake_request *q = &r.requests[request];

    return cm_arena_z(&r.arena, cm_header_find(q->headers, q->n_headers, cm_str_of(name)));
}

static void refresh(const char *token, struct fake_reply reply)
{
    fake_run(&(struct fake_setup){.type = "alexsidebar",
                                  .body = BODY,
                                  .secret = "AMf-first+/=",
                                  .token = token,
                                  .refresh = true,
                                  .options = keyed,
                                  .replies = &reply,
                                  .n_replies = 1},
             &r);
}

START_TEST(the_refused_tokens_of_the_notes)
{
    yyjson_val *list, *v;
    char *text = fixture("alexsidebar/vectors.json");
    yyjson_doc *doc = cm_json_parse(cm_str_of(text), &cm_json_limits_request, NULL);
    size_t i, max;

    free(text);
    list = cm_json_get(yyjson_doc_get_root(doc), "token_errors");
    ck_assert_uint_gt(yyjson_arr_size(list), 0);

    yyjson_arr_foreach(list, i, max, v)
    {
        char *body = cm_str_dup(cm_json_str(cm_json_get(v, "body")));

        refresh(NULL, (struct fake_reply){.status = yyjson_get_int(cm_json_get(v, "status")),
                                          .body = body});
        ck_assert(!r.done);
        ck_assert_str_eq(cm_err_info(r.err.cls)->name, yyjson_get_str(cm_json_get(v, "class")));
        fake_result_clear(&r);
        free(body);
    }
    yyjson_doc_free(doc);
}
END_TEST

static void expect_token(const char *access, const char *refresh_token, const char *user,
                         int64_t life_s)
{
    yyjson_doc *doc = cm_json_parse(r.token, &cm_json_limits_event, NULL);
    yyjson_val *root = yyjson_doc_get_root(doc);

    ck_assert_msg(r.done, "%s", r.err.msg);
    ck_assert(cm_str_eq(cm_json_str(cm_json_get(root, "access")), cm_str_of(access)));
    ck_assert(cm_str_eq(cm_json_str(cm_json_get(root, "refresh")), cm_str_of(refresh_token)));
    ck_assert(cm_str_eq(cm_json_str(cm_json_get(root, "user")), cm_str_of(user)));
    if (life_s == 0)
        ck_assert_int_eq(r.token_expires_ms, 0);
    else
        ck_assert_int_le(llabs(r.token_expires_ms - cm_unix_ms() - life_s * 1000), 2000);
    yyjson_doc_free(doc);
}

START_TEST(the_token_call_of_the_notes)
{
    refresh(NULL,
            (struct fake_reply){
                .body = "{\"access_token\":\"new.acc\",\"expires_in\":\"3600\",\"token_type\":"
                        "\"Bearer\",\"refresh_token\":\"AMf-first+/=\",\"id_token\":\"new.acc\","
                        "\"user_id\":\"uid-1\",\"project_id\":\"252179682924\"}"});
    ck_assert_uint_eq(r.n_requests, 1);
    ck_str(r.requests[0].method, "POST");
    ck_str(r.requests[0].url, "https://securetoken.googleapis.com/v1/token?key=AIza-test%26key");
    ck_str(r.requests[0].body, "grant_type=refresh_token&refresh_token=AMf-first%2B%2F%3D");
    ck_assert_str_eq(header(0, "content-type"), "application/x-www-form-urlencoded");
    ck_assert_str_eq(header(0, "user-agent"),
                     "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)");
    ck_assert_str_eq(header(0, "x-client-version"), "Node/JsCore/10.5.2/FirebaseCore-web");
    ck_assert_str_eq(header(0, "x-firebase-gmpid"), "1:252179682924:web:9c80c6a32cb4682cbfaa49");
    expect_token("new.acc", "AMf-first+/=", "uid-1", 3600);
    fake_result_clear(&r);
}
END_TEST

/* The platform's latest refresh token is the one that counts, also when an answer brings none. */
START_TEST(a_rotated_refresh_token_replaces_the_first)
{
    refresh(TOKEN,
            (struct fake_reply){.body = "{\"access_token\":\"a2\",\"expires_in\":60,"
                                        "\"refresh_token\":\"AMf-third\",\"user_id\":\"u\"}"});
    ck_str(r.requests[0].body, "grant_type=refresh_token&refresh_token=AMf-later");
    expect_token("a2", "AMf-third", "u", 60);
    fake_result_clear(&r);
    refresh(TOKEN, (struct fake_reply){.body = "{\"access_token\":\"a3\"}"});
    expect_token("a3", "AMf-later", "", 0);
    fake_result_clear(&r);
}
END_TEST

START_TEST(a_jwt_tells_its_end_and_its_user)
{
    struct cm_buf json = {0}, body = {0};

    cm_buf_printf(&json, "{\"exp\":%lld,\"sub\":\"uid-9\"}", (long long)cm_unix_ms() / 1000 + 1800);
    cm_buf_append(&body, CM_S("{\"id_token\":\"eyJh."));
    cm_base64url(&body, cm_buf_str(&json));
    cm_buf_append(&body, CM_S(".sig\"}"));
    refresh(NULL, (struct fake_reply){.body = cm_buf_z(&body)});
    ck_assert(r.done);
    ck_assert_int_le(llabs(r.token_expires_ms - cm_unix_ms() - 1800000), 2000);
    ck_assert(cm_str_has(r.token, CM_S("\"user\":\"uid-9\"")));
    fake_result_clear(&r);
    cm_buf_clear(&json);
    cm_buf_clear(&body);
}
END_TEST

static const struct {
    struct fake_reply reply;
    enum cm_err_class cls;
    const char *says;
} token_failures[] = {
    {{.status = 400, .body = "{\"error\":{\"message\":\"TOKEN_EXPIRED : sign in again\"}}"},
     CM_ERR_EXPIRED,
     "TOKEN_EXPIRED"},
    {{.status = 400,
      .body = "{\"error\":{\"code\":400,\"message\":\"API key not valid. Please pass a valid API "
              "key.\",\"status\":\"INVALID_ARGUMENT\"}}"},
     CM_ERR_CONFIG,
     "x.firebase_key"},
    {{.status = 403,
      .body = "{\"error\":{\"code\":403,\"message\":\"Requests are blocked.\",\"status\":"
              "\"PERMISSION_DENIED\"}}"},
     CM_ERR_CONFIG,
     "AS_FIREBASE_KEY"},
    {{.status = 403, .body = "no"}, CM_ERR_UPSTREAM_DOWN, ""},
    {{.status = 503}, CM_ERR_OVERLOADED, ""},
    {{.status = 500, .body = "{\"error\":{\"message\":\"INTERNAL\"}}"}, CM_ERR_UPSTREAM_DOWN, ""},
    {{.status = 429}, CM_ERR_RATE_LIMITED, ""},
    {{.status = 200, .body = "{}"}, CM_ERR_UPSTREAM_DOWN, ""},
    {{.status = 200, .body = "{\"access_token\":\"a\\r\\nb\"}"}, CM_ERR_UPSTREAM_DOWN, ""},
    {{.status = 200, .body = "<html>"}, CM_ERR_UPSTREAM_DOWN, ""},
    {{.end = FAKE_DOWN}, CM_ERR_UPSTREAM_DOWN, ""},
};

START_TEST(refused_tokens_and_their_classes)
{
    refresh(TOKEN, token_failures[_i].reply);
    ck_assert(!r.done && r.token.n == 0);
    ck_assert_msg(r.err.cls == token_failures[_i].cls, "%s, %s", cm_err_info(r.err.cls)->name,
                  r.err.msg);
    ck_assert_ptr_nonnull(strstr(r.err.msg, token_failures[_i].says));
    ck_assert_ptr_null(strstr(r.err.msg, "AMf-"));
    fake_result_clear(&r);
}
END_TEST

/* ---- the setting that is not there ---- */

static void instance_of(struct cm_instance *in, struct cm_provider_conf *conf,
                        struct cm_arena *arena)
{
    struct cm_problems problems;

    *conf = (struct cm_provider_conf){.name = CM_S("p"), .type = CM_S("alexsidebar")};
    cm_problems_init(&problems, arena);
    ck_assert_int_eq(cm_instance_init(in, conf, arena, &problems), 0);
}

START_TEST(without_its_key_it_says_what_it_lacks)
{
    struct cm_arena arena = {0};
    struct cm_provider_conf conf;
    struct cm_instance in;

    unsetenv("AS_FIREBASE_KEY");
    instance_of(&in, &conf, &arena);
    ck_assert(cm_str_has(in.lacks, CM_S("x.firebase_key")));
    ck_assert(cm_str_has(in.lacks, CM_S("AS_FIREBASE_KEY")));
    setenv("AS_FIREBASE_KEY", "AIza-from-outside", 1);
    instance_of(&in, &conf, &arena);
    ck_assert_uint_eq(in.lacks.n, 0);
    ck_str(cm_option_value(&in, "firebase_key"), "AIza-from-outside");
    unsetenv("AS_FIREBASE_KEY");
    cm_arena_clear(&arena);
}
END_TEST

START_TEST(how_a_secret_is_kept)
{
    static const struct {
        const char *given, *kept; /* NULL = refused */
    } cases[] = {
        {"  AMf-vBabcdefghijklmnop \n", "AMf-vBabcdefghijklmnop"},
        {"", NULL},
        {"short", NULL},
        {"AMf-vBabcdef ghijklmnop", NULL},
        {"AMf-vBabcdefghijklmnö", NULL},
    };
    struct cm_arena arena = {0};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_str kept = CM_STR_NONE;
        struct cm_err err = {0};
        int rc = cm_provider_alexsidebar.normalize(&arena, cm_str_of(cases[i].given), &kept, &err);

        ck_assert_int_eq(rc, cases[i].kept ? 0 : -1);
        if (cases[i].kept)
            ck_assert(cm_str_eq(kept, cm_str_of(cases[i].kept)));
        else
            ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);
    }
    cm_arena_clear(&arena);
}
END_TEST

Suite *suite_alexsidebar_token(void)
{
    Suite *s = suite_create("alexsidebar_token");
    TCase *t = tcase_create("token");

    tcase_add_test(t, the_refused_tokens_of_the_notes);
    tcase_add_test(t, the_token_call_of_the_notes);
    tcase_add_test(t, a_rotated_refresh_token_replaces_the_first);
    tcase_add_test(t, a_jwt_tells_its_end_and_its_user);
    tcase_add_loop_test(t, refused_tokens_and_their_classes, 0, CM_COUNT(token_failures));
    tcase_add_test(t, without_its_key_it_says_what_it_lacks);
    tcase_add_test(t, how_a_secret_is_kept);
    suite_add_tcase(s, t);
    return s;
}
