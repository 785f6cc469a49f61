/* The admin API's pure parts: bodies, what of a secret is shown, what lists say, and the document of all routes. */
#include "unit.h"

#include "admin/admin_int.h"
#include "chatmux/base/mem.h"
#include "chatmux/ui/docs.h"
#include "gateway/gateway_int.h"

static struct cm_arena arena;

static void setup(void)
{
    arena = (struct cm_arena){0};
}

static void teardown(void)
{
    cm_arena_clear(&arena);
}

START_TEST(ids_are_decimal_from_one)
{
    uint64_t id = 0;

    ck_assert(id_parse(CM_S("1"), &id) && id == 1);
    ck_assert(id_parse(CM_S("18446744073709551615"), &id) && id == UINT64_MAX);
    ck_assert(!id_parse(CM_S(""), &id) && !id_parse(CM_S("0"), &id) && !id_parse(CM_S("-1"), &id) &&
              !id_parse(CM_S("1/x"), &id) && !id_parse(CM_S("18446744073709551616"), &id));
}
END_TEST

/* ---- secrets ---- */

START_TEST(a_hint_is_four_characters_of_a_long_secret)
{
    ck_str(cm_hint(CM_S("sk-0123456789abcdef")), "cdef");
    ck_str(cm_hint(CM_S("0123456789ab")), "89ab");
    ck_str(cm_hint(CM_S("0123456789a")), "");
    ck_str(cm_hint(CM_S("")), "");
    ck_str(cm_hint(CM_S("012345678äöü€")), "äöü€"); /* characters, not bytes */
}
END_TEST

START_TEST(a_url_is_shown_without_its_password)
{
    ck_str(url_shown(&arena, CM_S("http://user:pa:ss@host:3128")), "http://user:***@host:3128");
    ck_str(url_shown(&arena, CM_S("socks5h://user:p@ss@host/x@y")), "socks5h://user:***@host/x@y");
    ck_str(url_shown(&arena, CM_S("http://user@host")), "http://user@host");
    ck_str(url_shown(&arena, CM_S("http://host:1/a:b@c")), "http://host:1/a:b@c");
    ck_str(url_shown(&arena, CM_S("")), "");
}
END_TEST

/* ---- bodies ---- */

static struct body body;
static struct cm_err err;

static int read_as(const char *shape, const char *text)
{
    err = (struct cm_err){0};
    return body_read(&body, &arena, cm_str_of(text), shape, &err);
}

/* Refused, and `param` is named. */
#define ck_refused(shape, text, param_)                                                            \
    do {                                                                                           \
        ck_assert_msg(read_as(shape, text) < 0, "%s was taken", text);                             \
        ck_assert_int_eq(err.cls, CM_ERR_BAD_REQUEST);                                             \
        ck_assert_str_eq(err.param, param_);                                                       \
        if (*(param_))                                                                             \
            ck_assert_msg(strstr(err.msg, param_) != NULL, "%s", err.msg);                         \
    } while (0)

START_TEST(a_credential_is_read)
{
    ck_assert_int_eq(
        read_as("CredentialNew",
                "{\"provider\":\"openai\",\"secret\":\"sk-\\u00e4\",\"label\":null,\"weight\":3,"
                "\"proxy\":\"http://p:1\",\"max_inflight\":0,\"enabled\":false}"),
        0);
    ck_str(body_str(&body, "provider"), "openai");
    ck_str(body_str(&body, "secret"), "sk-ä");
    ck_assert(body_get(&body, "label")->null);
    ck_str(body_str(&body, "label"), "");
    ck_assert_int_eq(body_int(&body, "weight", 1), 3);
    ck_assert_int_eq(body_int(&body, "max_inflight", 9), 0);
    ck_assert(body_get(&body, "enabled") && !body_get(&body, "enabled")->b);
    ck_assert_int_eq(read_as("CredentialChange", ""), 0);
    ck_assert_ptr_null(body_get(&body, "weight"));
    ck_assert_int_eq(body_int(&body, "weight", 1), 1);
}
END_TEST

START_TEST(a_key_is_read)
{
    ck_assert_int_eq(
        read_as(
            "KeyNew",
            "{\"name\":\"team\",\"models\":[\"gpt-4o\",\"a\\\"b\"],\"rpm\":60,\"budget_usd\":12.34,"
            "\"budget_period\":\"month\",\"expires\":\"2026-01-31T08:15:00Z\"}"),
        0);
    ck_str(body_str(&body, "models"), "[\"gpt-4o\",\"a\\\"b\"]");
    ck_assert_int_eq(body_int(&body, "budget_usd", 0), 12340000);
    ck_assert_int_eq(body_int(&body, "expires", 0), INT64_C(1769847300000));
    ck_assert_int_eq(
        read_as("KeyNew", "{\"name\":\"x\",\"budget_usd\":0.000001,\"models\":null,\"rpm\":null}"),
        0);
    ck_assert_int_eq(body_int(&body, "budget_usd", 0), 1);
    ck_assert_int_eq(body_int(&body, "rpm", 5), 0); /* null takes the limit away */
    ck_assert_int_eq(read_as("KeyNew", "{\"name\":\"x\",\"budget_usd\":7}"), 0);
    ck_assert_int_eq(body_int(&body, "budget_usd", 0), 7000000);
}
END_TEST

START_TEST(what_is_wrong_is_named)
{
    ck_refused("CredentialNew", "{\"provider\":\"p\"}", "secret");
    ck_refused("CredentialNew", "{\"secret\":\"s\"}", "provider");
    ck_refused("CredentialNew", "{\"provider\":\"p\",\"secret\":\"s\",\"Weight\":1}", "Weight");
    ck_refused("CredentialNew", "{\"provider\":\"p\",\"secret\":\"s\",\"provider\":\"q\"}",
               "provider");
    ck_refused("CredentialNew", "{\"provider\":null,\"secret\":\"s\"}", "provider");
    ck_refused("CredentialNew", "{\"provider\":\"p\",\"secret\":7}", "secret");
    ck_refused("CredentialNew", "{\"provider\":\"p\",\"secret\":\"a\\u0000b\"}", "secret");
    ck_refused("CredentialChange", "{\"weight\":0}", "weight");
    ck_refused("CredentialChange", "{\"weight\":1001}", "weight");
    ck_refused("CredentialChange", "{\"weight\":1.5}", "weight");
    ck_refused("CredentialChange", "{\"weight\":\"3\"}", "weight");
    ck_refused("CredentialChange", "{\"weight\":null}", "weight");
    ck_refused("CredentialChange", "{\"weight\":18446744073709551615}", "weight");
    ck_refused("CredentialChange", "{\"enabled\":1}", "enabled");
    ck_refused("CredentialChange", "{\"enabled\":null}", "enabled");
    ck_refused("KeyChange", "{\"models\":\"gpt-4o\"}", "models");
    ck_refused("KeyChange", "{\"models\":[1]}", "models");
    ck_refused("KeyChange", "{\"models\":[\"\"]}", "models");
    ck_refused("KeyChange", "{\"rpm\":-1}", "rpm");
    ck_refused("KeyChange", "{\"budget_usd\":-0.5}", "budget_usd");
    ck_refused("KeyChange", "{\"budget_usd\":1e-9}", "budget_usd");
    ck_refused("KeyChange", "{\"budget_usd\":1e12}", "budget_usd");
    ck_refused("KeyChange", "{\"budget_period\":\"year\"}", "budget_period");
    ck_refused("KeyChange", "{\"expires\":1769847300}", "expires");
    ck_refused("KeyChange", "[]", "");
    ck_refused("KeyChange", "{\"rpm\":}", "");
    ck_refused("KeyChange", "null", "");
}
END_TEST

START_TEST(too_long_a_text_is_refused)
{
    char text[400];

    snprintf(text, sizeof(text), "{\"label\":\"%0201d\"}", 1);
    ck_refused("CredentialChange", text, "label");
    snprintf(text, sizeof(text), "{\"label\":\"%0200d\"}", 1);
    ck_assert_int_eq(read_as("CredentialChange", text), 0);
}
END_TEST

START_TEST(the_seeds_bodies_may_hold_more)
{
    ck_assert_int_eq(
        read_as("SeedKey",
                "{\"id\":\"7\",\"apiKey\":\"abc\",\"createTime\":\"2026\",\"remark\":\"\"}"),
        0);
    ck_str(body_str(&body, "apiKey"), "abc");
    ck_refused("SeedKey", "{\"id\":7}", "id");
}
END_TEST

/* ---- answers ---- */

static yyjson_val *parsed(struct cm_buf *out)
{
    yyjson_doc *doc = cm_json_parse(cm_buf_str(out), &cm_json_limits_event, &err);

    ck_assert_msg(doc != NULL, "%s: %.*s", err.msg, CM_ARG(cm_buf_str(out)));
    cm_arena_defer(&arena, (void (*)(void *))yyjson_doc_free, doc);
    cm_buf_clear(out);
    return yyjson_doc_get_root(doc);
}

/* Exactly the members of the shape, in its order; those that are not required may be left out. */
static void ck_shape(yyjson_val *object, const char *shape)
{
    const struct shape *s = shape_find(shape);
    yyjson_obj_iter iter = yyjson_obj_iter_with(object);
    yyjson_val *name = yyjson_obj_iter_next(&iter);

    for (size_t i = 0; i < s->n; i++) {
        if (name && cm_str_eq(cm_json_str(name), cm_str_of(s->fields[i].name))) {
            ck_assert_msg(s->fields[i].nullable || !yyjson_is_null(yyjson_obj_iter_get_val(name)),
                          "%s.%s is null", shape, s->fields[i].name);
            name = yyjson_obj_iter_next(&iter);
        } else {
            ck_assert_msg(!s->fields[i].required, "%s has no %s", shape, s->fields[i].name);
        }
    }
    ck_assert_msg(name == NULL, "%s says nothing of a member", shape);
}

START_TEST(a_credential_is_shown_without_its_secret)
{
    struct cm_cred_info cred = {.id = 12,
                                .provider = CM_S("openai"),
                                .label = CM_S("openai#2"),
                                .secret = CM_S("sk-very-secret-4711"),
                                .token = CM_S("token-very-secret"),
                                .proxy = CM_S("http://me:hidden@proxy:1"),
                                .from_config = true,
                                .enabled = true,
                                .weight = 1,
                                .state = CM_CRED_STATE_COOLING,
                                .reason = CM_S("rate_limited"),
                                .until_ms = 1769847300000,
                                .quota = CM_S("{\"credit\":5}"),
                                .requests = 3};
    struct cm_buf out = {0};
    yyjson_val *o;

    cred_write(&out, &arena, NULL, &cred);
    ck_assert(!cm_str_has(cm_buf_str(&out), CM_S("secret-")) &&
              !cm_str_has(cm_buf_str(&out), CM_S("very")) &&
              !cm_str_has(cm_buf_str(&out), CM_S("hidden")));
    o = parsed(&out);
    ck_shape(o, "Credential");
    ck_str(cm_json_str(cm_json_get(o, "id")), "12");
    ck_str(cm_json_str(cm_json_get(o, "hint")), "4711");
    ck_str(cm_json_str(cm_json_get(o, "source")), "config");
    ck_str(cm_json_str(cm_json_get(o, "state")), "cooling");
    ck_str(cm_json_str(cm_json_get(o, "until")), "2026-01-31T08:15:00.000Z");
    ck_str(cm_json_str(cm_json_get(o, "proxy")), "http://me:***@proxy:1");
    ck_assert_int_eq(yyjson_get_int(cm_json_get(cm_json_get(o, "quota"), "credit")), 5);
    ck_assert(yyjson_is_null(cm_json_get(o, "last_used")));

    cred = (struct cm_cred_info){.id = 1, .provider = CM_S("p"), .secret = CM_S("short")};
    cred_write(&out, &arena, NULL, &cred);
    o = parsed(&out);
    ck_shape(o, "Credential");
    ck_str(cm_json_str(cm_json_get(o, "hint")), "");
    ck_str(cm_json_str(cm_json_get(o, "source")), "api");
    ck_assert(yyjson_is_null(cm_json_get(o, "quota")) && yyjson_is_null(cm_json_get(o, "reason")) &&
              yyjson_is_null(cm_json_get(o, "until")) && yyjson_is_null(cm_json_get(o, "proxy")));
}
END_TEST

START_TEST(a_key_is_shown_once)
{
    struct cm_key_row row = {.id = 3,
                             .name = CM_S("team"),
                             .hint = CM_S("wxyz"),
                             .enabled = true,
                             .created_s = 1769847300};
    struct cm_key_limits limits = {
        .spent_micro_usd = 250000, .reserved_micro_usd = 1, .parallel = 2};
    struct cm_buf out = {0};
    yyjson_val *o;

    key_write(&out, &row, &limits, CM_S("sk-cmx-once"));
    o = parsed(&out);
    ck_shape(o, "Key");
    ck_str(cm_json_str(cm_json_get(o, "key")), "sk-cmx-once");
    ck_assert(yyjson_is_null(cm_json_get(o, "models")) && yyjson_is_null(cm_json_get(o, "rpm")) &&
              yyjson_is_null(cm_json_get(o, "budget_usd")) &&
              yyjson_is_null(cm_json_get(o, "expires")));
    ck_str(cm_json_str(cm_json_get(o, "budget_period")), "total");
    ck_assert_double_eq(yyjson_get_num(cm_json_get(o, "spent_usd")), 0.25);

    row = (struct cm_key_row){.models = CM_S("[\"m\"]"),
                              .rpm = 5,
                              .budget_micro_usd = 1500000,
                              .budget_period = CM_S("day"),
                              .name = CM_S("key#1"),
                              .expires_s = 1769847300};
    key_write(&out, &row, NULL, CM_STR_NONE);
    ck_assert(cm_str_has(cm_buf_str(&out), CM_S("\"budget_usd\":1.5,")));
    o = parsed(&out);
    ck_shape(o, "Key");
    ck_assert(yyjson_is_null(cm_json_get(o, "id")) && cm_json_get(o, "key") == NULL);
    ck_str(cm_json_str(cm_json_get(o, "source")), "config");
    ck_str(cm_json_str(cm_json_get(o, "expires")), "2026-01-31T08:15:00.000Z");
    ck_assert_int_eq(yyjson_get_int(cm_json_get(o, "rpm")), 5);
}
END_TEST

START_TEST(dollars_are_written_exactly)
{
    static const struct {
        int64_t micro;
        const char *text;
    } cases[] = {{0, "0"},           {1, "0.000001"},     {100000, "0.1"},      {300000, "0.3"},
                 {1000000, "1"},     {12340000, "12.34"}, {999999, "0.999999"}, {-2500000, "-2.5"},
                 {10050000, "10.05"}};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct cm_buf out = {0};
        struct out o = out_begin(&out);

        out_usd(&o, "x", cases[i].micro);
        ck_assert_str_eq(cm_buf_z(&out) + strlen("{\"x\":"), cases[i].text);
        cm_buf_clear(&out);
    }
}
END_TEST

START_TEST(a_row_of_the_log_has_its_attempts)
{
    struct cm_request_row row = {
        .id = CM_S("req_1"),
        .at_ms = 1769847300000,
        .outcome = CM_S("ok"),
        .ttft_ms = -1,
        .cost_micro_usd = 42,
        .attempts = 2,
        .detail = CM_S("{\"attempts\":[{\"credential\":\"a\"},{\"credential\":\"b\"}],\"x\":1}")};
    struct cm_usage_row usage = {.group = CM_S("2026-01-31"), .requests = 1, .cost_micro_usd = 42};
    struct cm_buf out = {0};
    yyjson_val *o;

    request_write(&out, &row);
    o = parsed(&out);
    ck_shape(o, "Request");
    ck_assert_int_eq((int)yyjson_arr_size(cm_json_get(o, "attempts")), 2);
    ck_assert_int_eq(yyjson_get_int(cm_json_get(o, "attempt_count")), 2);
    ck_assert(yyjson_is_null(cm_json_get(o, "ttft_ms")) &&
              yyjson_is_null(cm_json_get(o, "key_id")));

    row.detail = CM_STR_NONE;
    row.ttft_ms = 0;
    request_write(&out, &row);
    o = parsed(&out);
    ck_assert(yyjson_is_arr(cm_json_get(o, "attempts")) &&
              yyjson_is_int(cm_json_get(o, "ttft_ms")));

    usage_write(&out, &usage);
    ck_shape(parsed(&out), "Usage");
}
END_TEST

START_TEST(states_are_counted_under_their_names)
{
    struct cm_pool_counts counts = {
        .total = 3, .state = {[CM_CRED_STATE_OK] = 2, [CM_CRED_STATE_DISABLED] = 1}};
    struct cm_buf out = {0};
    yyjson_val *o;

    counts_write(&out, &counts);
    o = parsed(&out);
    ck_shape(o, "Counts");
    ck_assert_int_eq(yyjson_get_int(cm_json_get(o, "ok")), 2);
    ck_assert_int_eq(yyjson_get_int(cm_json_get(o, "disabled")), 1);
}
END_TEST

/* ---- the document ---- */

/* "/v1/models/{model}" -> "/models/" and a star, as the gateway's table has it */
static struct cm_str as_route(const char *path)
{
    struct cm_str rest = cm_str_of(path), out = CM_STR_NONE;

    if (cm_str_starts(rest, CM_S("/v1/")))
        rest = cm_str_from(rest, 3);
    while (rest.n > 0) {
        out = cm_arena_printf(&arena, CM_PRI CM_PRI, CM_ARG(out),
                              CM_ARG(cm_str_head(rest, cm_str_find_char(rest, '{'))));
        if (cm_str_find_char(rest, '{') == SIZE_MAX)
            break;
        cm_str_cut(&rest, '}');
        out = cm_arena_printf(&arena, CM_PRI "*", CM_ARG(out));
    }
    return out;
}

static bool has_method(const char *methods, const char *method)
{
    struct cm_str rest = cm_str_of(methods);

    while (rest.n > 0)
        if (cm_str_eq(cm_str_cut(&rest, ' '), cm_str_of(method)))
            return true;
    return false;
}

static bool is_documented(const struct route *r, struct cm_str method)
{
    for (size_t i = 0; i < client_ops_n; i++)
        if (cm_str_eq(as_route(client_ops[i].path), cm_str_of(r->path)) &&
            cm_str_eq(cm_str_of(client_ops[i].method), method))
            return true;
    return false;
}

START_TEST(every_route_of_the_gateway_is_told)
{
    for (size_t i = 0; i < routes_n; i++) {
        struct cm_str methods = cm_str_of(routes[i].methods);

        while (methods.n > 0) {
            struct cm_str method = cm_str_cut(&methods, ' ');

            if (cm_str_eq(method, CM_S("HEAD")) && has_method(routes[i].methods, "GET"))
                method = CM_S("GET");
            ck_assert_msg(is_documented(&routes[i], method), "%.*s %s is not in openapi.c",
                          CM_ARG(method), routes[i].path);
        }
    }
    for (size_t i = 0; i < client_ops_n; i++) {
        bool found = false;

        for (size_t k = 0; k < routes_n; k++)
            found = found || (cm_str_eq(as_route(client_ops[i].path), cm_str_of(routes[k].path)) &&
                              has_method(routes[k].methods, client_ops[i].method));
        ck_assert_msg(found, "%s %s is no route", client_ops[i].method, client_ops[i].path);
    }
}
END_TEST

static void ck_ops(yyjson_val *paths, const struct op *ops, size_t n, size_t *told)
{
    for (size_t i = 0; i < n; i++) {
        char method[16] = "";
        yyjson_val *op;

        for (size_t c = 0; ops[i].method[c]; c++)
            method[c] = (char)(ops[i].method[c] | 0x20);
        op = cm_json_get(cm_json_get(paths, ops[i].path), method);
        if (ops[i].access == OP_ALIAS) {
            ck_assert_msg(!op, "%s is told of", ops[i].path);
            continue;
        }
        ck_assert_msg(yyjson_is_obj(op), "%s %s is missing", ops[i].method, ops[i].path);
        ck_assert(yyjson_is_str(cm_json_get(op, "summary")) &&
                  yyjson_is_arr(cm_json_get(op, "security")) &&
                  yyjson_is_obj(cm_json_get(op, "responses")));
        ck_assert(!ops[i].body || yyjson_is_obj(cm_json_get(op, "requestBody")));
        ++*told;
    }
}

/* Every "$ref" leads somewhere. */
static void ck_refs(yyjson_val *v, yyjson_val *schemas)
{
    yyjson_val *ref = cm_json_get(v, "$ref"), *item, *name;
    size_t i, n;

    if (ref) {
        const char *shape = strrchr(yyjson_get_str(ref), '/') + 1;

        ck_assert_msg(yyjson_is_obj(cm_json_get(schemas, shape)), "%s is no schema",
                      yyjson_get_str(ref));
    }
    yyjson_arr_foreach(v, i, n, item) ck_refs(item, schemas);
    yyjson_obj_foreach(v, i, n, name, item) ck_refs(item, schemas);
}

START_TEST(the_document_holds_every_operation)
{
    struct cm_buf out = {0};
    yyjson_val *root, *paths, *path, *name;
    size_t told = 0, there = 0, i, n;

    openapi_write(&out, CM_S("/hf"));
    root = parsed(&out);
    ck_str(cm_json_str(cm_json_get(root, "openapi")), "3.1.0");
    ck_str(cm_json_str(cm_json_get(yyjson_arr_get_first(cm_json_get(root, "servers")), "url")),
           "/hf");
    paths = cm_json_get(root, "paths");
    ck_ops(paths, client_ops, client_ops_n, &told);
    ck_ops(paths, admin_ops, admin_ops_n, &told);
    yyjson_obj_foreach(paths, i, n, name, path) there += yyjson_obj_size(path);
    ck_assert_uint_eq(there, told); /* no path stands there twice */
    ck_refs(root, cm_json_get(cm_json_get(root, "components"), "schemas"));
    for (size_t s = 0; s < shapes_n; s++)
        for (size_t f = 0; f < shapes[s].n; f++)
            if (shapes[s].fields[f].type == SHAPE_ONE || shapes[s].fields[f].type == SHAPE_MANY)
                ck_assert_ptr_nonnull(shape_find(shapes[s].fields[f].words));
}
END_TEST

START_TEST(the_page_brings_all_it_needs)
{
    struct cm_buf out = {0};
    struct cm_str page;

    cm_ui_docs(&out);
    page = cm_buf_str(&out);
    ck_assert(cm_str_starts(page, CM_S("<!DOCTYPE html>")) && cm_str_ends(page, CM_S("</html>\n")));
    ck_assert(cm_str_has(page, CM_S("default-src 'none'; connect-src 'self'; style-src 'sha256-")));
    ck_assert(!cm_str_has(page, CM_S("http://")) && !cm_str_has(page, CM_S("https://")) &&
              !cm_str_has(page, CM_S(" src=")) && !cm_str_has(page, CM_S("innerHTML")));
    cm_buf_clear(&out);
}
END_TEST

Suite *suite_admin(void)
{
    Suite *s = suite_create("admin");
    TCase *t = tcase_create("texts");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, ids_are_decimal_from_one);
    tcase_add_test(t, a_hint_is_four_characters_of_a_long_secret);
    tcase_add_test(t, a_url_is_shown_without_its_password);
    suite_add_tcase(s, t);

    t = tcase_create("bodies");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_credential_is_read);
    tcase_add_test(t, a_key_is_read);
    tcase_add_test(t, what_is_wrong_is_named);
    tcase_add_test(t, too_long_a_text_is_refused);
    tcase_add_test(t, the_seeds_bodies_may_hold_more);
    suite_add_tcase(s, t);

    t = tcase_create("answers");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_credential_is_shown_without_its_secret);
    tcase_add_test(t, a_key_is_shown_once);
    tcase_add_test(t, dollars_are_written_exactly);
    tcase_add_test(t, a_row_of_the_log_has_its_attempts);
    tcase_add_test(t, states_are_counted_under_their_names);
    suite_add_tcase(s, t);

    t = tcase_create("document");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, every_route_of_the_gateway_is_told);
    tcase_add_test(t, the_document_holds_every_operation);
    tcase_add_test(t, the_page_brings_all_it_needs);
    suite_add_tcase(s, t);
    return s;
}
