/* /admin/api/conversations: what another gateway led with an account. */
#include "admin_int.h"

#define AT_ONCE_MAX                                                                                \
    1000 /* what waits for the store is bounded, and what is told as taken is on the disk */

/* "MODEL NAME CHAT" */
static int read_item(struct cm_str item, struct cm_old_thread *out, struct cm_err *err)
{
    out->model = cm_str_cut(&item, ' ');
    out->name = cm_str_cut(&item, ' ');
    out->value = item;
    if (out->value.n > 0 && out->value.n <= CM_MEMORY_VALUE_MAX &&
        cm_str_find_char(out->value, ' ') == SIZE_MAX)
        return 0;
    return cm_fail_param(err, CM_ERR_BAD_REQUEST, "conversations",
                         "each of conversations must be \"MODEL NAME CHAT\"");
}

static int read_items(struct cm_arena *arena, struct cm_str json, struct cm_old_thread **out,
                      size_t *n, struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(json, &cm_json_limits_request, err);
    yyjson_val *item;
    size_t i, max;
    int rc = doc ? 0 : -1;

    *n = yyjson_arr_size(yyjson_doc_get_root(doc));
    if (*n > AT_ONCE_MAX)
        rc = cm_fail_param(err, CM_ERR_BAD_REQUEST, "conversations",
                           "conversations may hold %d at once: send the others after them",
                           AT_ONCE_MAX);
    *out = CM_ARENA_ARRAY(arena, struct cm_old_thread, *n);
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, max, item)
    {
        if (rc == 0)
            rc = read_item(cm_arena_str(arena, cm_json_str(item)), &(*out)[i], err);
    }
    yyjson_doc_free(doc);
    return rc;
}

static void on_taken(void *arg, uint64_t id, const struct cm_err *err)
{
    struct task *t = arg;
    struct cm_buf out = {0};
    struct out o;

    if (task_failed(t, err))
        return;
    o = out_begin(&out);
    out_id(&o, "credential", id);
    out_int(&o, "taken", (int64_t)t->id);
    out_end(&o);
    answer_json(t->web, 200, &out);
}

void conversations_take(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_arena *arena = cm_web_arena(web);
    struct cm_old_thread *threads = NULL;
    struct cm_err err = {0};
    struct body body;
    struct task *t;
    size_t n = 0;

    if (body_read(&body, arena, cm_web_body(web), "ConversationsNew", &err) < 0 ||
        read_items(arena, body_str(&body, "conversations"), &threads, &n, &err) < 0) {
        cm_web_fail(web, &err);
        return;
    }
    t = task_new(admin, web);
    t->id = n;
    cm_gateway_take_threads(admin->gw, body_str(&body, "provider"), body_str(&body, "secret"),
                            threads, n, on_taken, t);
}
