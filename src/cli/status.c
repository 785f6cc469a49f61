/* chatmux status: is the gateway there, does it serve, and what does it say of itself. */
#include "client.h"

#include "chatmux/codec/json.h"

#include <stdio.h>

#define LABEL "  %-14s "

/* "chatmux 1.2.3: …" on the first page. */
static struct cm_str version_of(struct cm_str page)
{
    struct cm_str name = cm_str_cut(&page, ' ');

    return cm_str_eq(name, CM_S("chatmux")) ? cm_str_head(page, cm_str_find_char(page, ':'))
                                            : CM_STR_NONE;
}

static void print_duration(int64_t s)
{
    if (s >= 86400)
        printf("%lld d %lld h\n", (long long)s / 86400, (long long)s % 86400 / 3600);
    else if (s >= 3600)
        printf("%lld h %lld min\n", (long long)s / 3600, (long long)s % 3600 / 60);
    else
        printf("%lld min %lld s\n", (long long)s / 60, (long long)s % 60);
}

static void print_value(struct cm_str name, yyjson_val *v)
{
    if (cm_str_eq(name, CM_S("uptime_s"))) {
        printf(LABEL, "uptime");
        print_duration((int64_t)yyjson_get_num(v));
        return;
    }
    printf("  ");
    client_print(name);
    printf("%*s", name.n < 15 ? (int)(15 - name.n) : 1, "");
    if (yyjson_is_str(v))
        client_print(cm_json_str(v));
    else if (yyjson_is_bool(v))
        printf("%s", yyjson_get_bool(v) ? "yes" : "no");
    else
        printf("%.15g", yyjson_get_num(v));
    putchar('\n');
}

/* Every figure of the top level, whatever a later version adds; lists and objects are for the admin page. */
static void print_stats(struct cm_str text)
{
    yyjson_doc *doc = cm_json_parse(text, &cm_json_limits_event, NULL);
    yyjson_obj_iter iter;
    yyjson_val *key;

    if (!doc)
        return;
    iter = yyjson_obj_iter_with(yyjson_doc_get_root(doc));
    while ((key = yyjson_obj_iter_next(&iter))) {
        yyjson_val *v = yyjson_obj_iter_get_val(key);

        if (yyjson_is_num(v) || yyjson_is_str(v) || yyjson_is_bool(v))
            print_value(cm_json_str(key), v);
    }
    yyjson_doc_free(doc);
}

/* What is beside the point while it serves: an older gateway, a wrong secret. */
static void print_details(struct client *c)
{
    struct client_answer answer = {0};
    struct cm_err err = {0};

    if (client_ask(c, "GET", "/", CM_STR_NONE, CLIENT_TIMEOUT_MS, &answer, &err) == 0) {
        struct cm_str version = version_of(cm_buf_str(&answer.body));

        if (version.n > 0 ||
            answer.body.n > 0) { /* an empty page: in the place of a gateway that has one */
            printf(LABEL, "version");
            client_print(version.n > 0 ? version : CM_S("unknown"));
            putchar('\n');
        }
    }
    if (c->secret.n > 0 && client_ask(c, "GET", "/admin/api/stats", CM_STR_NONE, CLIENT_TIMEOUT_MS,
                                      &answer, &err) == 0) {
        if (answer.status == 200)
            print_stats(cm_buf_str(&answer.body));
        else if (answer.status == 401 || answer.status == 403)
            printf(LABEL "the admin secret was refused\n", "statistics");
    }
    cm_buf_clear(&answer.body);
}

int cm_cli_status(const struct cm_conf_source *source, int argc, char **argv)
{
    struct client_answer answer = {0};
    struct cm_err err = {0};
    struct client c;
    int status = CM_EXIT_UNREACHABLE;

    (void)argv;
    if (argc > 0) {
        fprintf(stderr, "chatmux status takes no arguments; see: chatmux help status\n");
        return CM_EXIT_USAGE;
    }
    if (client_open(&c, source, &err) < 0) {
        fprintf(stderr, "chatmux status: %s\n", err.msg);
        return CM_EXIT_USAGE;
    }
    if (client_ask(&c, "GET", "/readyz", CM_STR_NONE, CLIENT_TIMEOUT_MS, &answer, &err) < 0) {
        printf("not reachable\n" LABEL CM_PRI "\n" LABEL "%s\n", "address", CM_ARG(c.address),
               "reason", err.msg);
    } else {
        struct cm_str said = cm_str_trim(cm_buf_str(&answer.body));

        if (answer.status == 200) {
            printf("ready\n");
            status = 0;
        } else {
            printf("not ready: status %d, ", answer.status);
            client_print(cm_str_head(said, 200));
            putchar('\n');
        }
        printf(LABEL CM_PRI "\n", "address", CM_ARG(c.address));
        print_details(&c);
    }
    cm_buf_clear(&answer.body);
    client_close(&c);
    return status;
}
