/* Routes: with and without /v1, below the prefix, however many slashes a client adds. */
#include "unit.h"

#include "chatmux/base/mem.h"
#include "gateway/gateway_int.h"

struct found {
    enum route_found how;
    const struct route *route;
    struct cm_str rest, allow;
};

static struct cm_arena arena;

static struct found find(const char *prefix, const char *method, struct cm_str path)
{
    struct found f = {.how = ROUTE_NONE};

    f.how =
        route_find(&arena, cm_str_of(prefix), cm_str_of(method), path, &f.route, &f.rest, &f.allow);
    return f;
}

static void clear(void)
{
    cm_arena_clear(&arena);
}

START_TEST(every_spelling_of_a_path_is_found)
{
    static const struct {
        const char *prefix, *path, *route; /* route NULL: none */
    } cases[] = {
        {"", "/v1/chat/completions", "/chat/completions"},
        {"", "/chat/completions", "/chat/completions"},
        {"", "/v1/v1/chat/completions", "/chat/completions"},
        {"", "//v1//chat///completions", "/chat/completions"},
        {"", "/v1/chat/completions/", "/chat/completions"},
        {"", "/v1/chat/completions//", "/chat/completions"},
        {"/hf", "/hf/v1/chat/completions", "/chat/completions"},
        {"/hf", "/hf/chat/completions", "/chat/completions"},
        {"/hf", "/hf/v1/v1/chat/completions", "/chat/completions"},
        {"/hf", "//hf//chat/completions/", "/chat/completions"},
        {"/hf", "/v1/chat/completions", "/chat/completions"}, /* the prefix comes on top */
        {"/a/b", "/a/b/v1/chat/completions", "/chat/completions"},
        {"/v1", "/v1/v1/chat/completions", "/chat/completions"},
        {"", "/hf/v1/chat/completions", NULL},
        {"/hf", "/hfx/v1/chat/completions", NULL},
        {"/hf", "/hf/hf/v1/chat/completions", NULL},
        {"/hf", "/v1/hf/chat/completions", NULL},
        {"", "/v1x/chat/completions", NULL},
        {"", "/v2/chat/completions", NULL},
        {"", "/v1/chat", NULL},
        {"", "/v1/chat/completions/more", NULL},
        {"", "/v1/chat/completionsx", NULL},
        {"", "/V1/chat/completions", NULL},
        {"", "v1/chat/completions", NULL},
        {"", "/v1/../v1/chat/completions", NULL},
        {"", "/v1/%63hat/completions", NULL}, /* only names are decoded */
        {"", "", NULL},
        {"", "*", NULL},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct found f = find(cases[i].prefix, "POST", cm_str_of(cases[i].path));

        if (cases[i].route) {
            ck_assert_msg(f.how == ROUTE_OK, "%s", cases[i].path);
            ck_assert_str_eq(f.route->path, cases[i].route);
            ck_assert_uint_eq(f.rest.n, 0);
        } else {
            ck_assert_msg(f.how == ROUTE_NONE, "%s", cases[i].path);
        }
    }
    clear();
}
END_TEST

START_TEST(the_root_is_found)
{
    static const struct {
        const char *prefix, *path;
    } cases[] = {{"", "/"},      {"", "//"},     {"", "/v1"},     {"", "/v1/"},
                 {"", "/v1/v1"}, {"/hf", "/hf"}, {"/hf", "/hf/"}, {"/hf", "/hf/v1"}};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct found f = find(cases[i].prefix, "GET", cm_str_of(cases[i].path));

        ck_assert_msg(f.how == ROUTE_OK, "%s", cases[i].path);
        ck_assert_str_eq(f.route->path, "/");
    }
    clear();
}
END_TEST

START_TEST(the_rest_of_a_path_is_a_name)
{
    static const struct {
        const char *path, *rest;
    } cases[] = {
        {"/v1/models/gpt-4o", "gpt-4o"},
        {"/models/openai/gpt-4o", "openai/gpt-4o"},
        {"/v1/models/openai%2Fgpt-4o", "openai/gpt-4o"},
        {"/v1/models/openai%2fgpt%204", "openai/gpt 4"},
        {"/v1/models/a/b/c/", "a/b/c"},
        {"/v1/models/v1/x", "v1/x"},
        {"/v1/models/a+b", "a+b"}, /* a plus is a plus in a path */
        {"/v1/models/%E4%B8%96", "世"},
        {"/v1/models/50%", "50%"}, /* no escape: as it is */
        {"/v1/models/%zz", "%zz"},
        {"/v1/models/chat/completions", "chat/completions"},
        {"/v1/models/models", "models"},
    };

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct found f = find("", "GET", cm_str_of(cases[i].path));

        ck_assert_msg(f.how == ROUTE_OK, "%s", cases[i].path);
        ck_assert_str_eq(f.route->path, "/models/*");
        ck_assert_msg(cm_str_eq(f.rest, cm_str_of(cases[i].rest)), "%s: %.*s", cases[i].path,
                      CM_ARG(f.rest));
    }
    ck_assert_str_eq(find("", "GET", CM_S("/v1/models/")).route->path,
                     "/models"); /* no name, no model */
    ck_assert_str_eq(find("", "GET", CM_S("/v1/models")).route->path, "/models");
    ck_str(find("", "GET", CM_S("/models/a%00b")).rest, "a\0b");
    clear();
}
END_TEST

START_TEST(a_wrong_method_hears_the_right_ones)
{
    static const struct {
        const char *method, *path, *allow;
    } cases[] = {{"GET", "/v1/chat/completions", "POST"},
                 {"HEAD", "/chat/completions", "POST"},
                 {"OPTIONS", "/chat/completions", "POST"},
                 {"post", "/chat/completions", "POST"},
                 {"POST", "/v1/models", "GET, HEAD"},
                 {"DELETE", "/v1/models/x", "POST, GET, HEAD"},
                 {"GET", "/api/hello", "HEAD"},
                 {"POST", "/", "GET, HEAD"},
                 {"GE", "/models", "GET, HEAD"},
                 {"", "/models", "GET, HEAD"},
                 {"GET HEAD", "/models", "GET, HEAD"}};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct found f = find("", cases[i].method, cm_str_of(cases[i].path));

        ck_assert_msg(f.how == ROUTE_METHOD, "%s %s", cases[i].method, cases[i].path);
        ck_assert_msg(cm_str_eq(f.allow, cm_str_of(cases[i].allow)), "%s: %.*s", cases[i].path,
                      CM_ARG(f.allow));
    }
    ck_assert_int_eq(find("", "HEAD", CM_S("/v1/models")).how, ROUTE_OK);
    ck_assert_int_eq(find("", "HEAD", CM_S("/api/hello")).how, ROUTE_OK);
    clear();
}
END_TEST

START_TEST(long_paths_are_paths)
{
    char path[20000];
    struct found f;

    memset(path, '/', sizeof(path));
    f = find("", "GET", cm_str(path, sizeof(path)));
    ck_assert_int_eq(f.how, ROUTE_OK);
    memcpy(path, "/v1/models/", 11);
    memset(path + 11, 'x', sizeof(path) - 11);
    f = find("", "GET", cm_str(path, sizeof(path)));
    ck_assert_int_eq(f.how, ROUTE_OK);
    ck_assert_uint_eq(f.rest.n, sizeof(path) - 11);
    for (size_t i = 0; i + 3 <= sizeof(path); i += 3)
        memcpy(path + i, "/v1", 3);
    f = find("", "GET", cm_str(path, sizeof(path) - sizeof(path) % 3));
    ck_assert_int_eq(f.how, ROUTE_OK);
    ck_assert_str_eq(f.route->path, "/");
    clear();
}
END_TEST

START_TEST(the_table_holds_together)
{
    for (size_t i = 0; i < routes_n; i++) {
        ck_assert_ptr_nonnull(routes[i].surface);
        ck_assert(routes[i].serve != NULL);
        ck_assert_int_eq(routes[i].path[0], '/');
        for (size_t k = 0; k < i; k++) /* the first that matches would hide the second */
            ck_assert(strcmp(routes[i].path, routes[k].path) != 0 ||
                      strcmp(routes[i].methods, routes[k].methods) != 0);
    }
}
END_TEST

Suite *suite_route(void)
{
    Suite *s = suite_create("route");
    TCase *t = tcase_create("routes");

    tcase_add_test(t, every_spelling_of_a_path_is_found);
    tcase_add_test(t, the_root_is_found);
    tcase_add_test(t, the_rest_of_a_path_is_a_name);
    tcase_add_test(t, a_wrong_method_hears_the_right_ones);
    tcase_add_test(t, long_paths_are_paths);
    tcase_add_test(t, the_table_holds_together);
    suite_add_tcase(s, t);
    return s;
}
