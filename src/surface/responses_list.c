/* The items that a response was asked with, as pages (OpenAI protocol notes, section 10). Texts become items, and what has no id gets one of its place. */
#include "responses_int.h"

struct page {
    struct cm_arena arena; /* of ids */
    struct cm_buf *out;
    struct cm_str first, last;
    size_t n;
};

static bool is_assistant(yyjson_val *item)
{
    return cm_str_eq(cm_json_str(cm_json_get(item, "role")), CM_S("assistant"));
}

/* A text as the one part that it stands for. */
static void put_content(struct cm_buf *out, yyjson_val *item, yyjson_val *content)
{
    if (!yyjson_is_str(content)) {
        cm_json_put_val(out, content);
        return;
    }
    if (is_assistant(item)) {
        cm_buf_put(out, '[');
        cm_responses_put_text(out, cm_json_str(content), CM_STR_NONE, CM_STR_NONE);
    } else {
        cm_buf_append(out, CM_S("[{\"type\":\"input_text\",\"text\":"));
        cm_json_put_str(out, cm_json_str(content));
        cm_buf_put(out, '}');
    }
    cm_buf_put(out, ']');
}

static void put_missing(struct cm_buf *out, yyjson_val *item, const char *name, const char *value)
{
    if (cm_json_opt(item, name))
        return;
    cm_buf_printf(out, ",\"%s\":\"%s\"", name, value);
}

static void put_item(struct cm_buf *out, struct cm_str id, yyjson_val *item)
{
    yyjson_obj_iter it = yyjson_obj_iter_with(item);
    yyjson_val *key;

    cm_buf_append(out, CM_S("{\"id\":"));
    cm_json_put_str(out, id);
    put_missing(out, item, "type", "message");
    put_missing(out, item, "status", "completed");
    while ((key = yyjson_obj_iter_next(&it))) {
        yyjson_val *value = yyjson_obj_iter_get_val(key);

        if (yyjson_is_null(value) || yyjson_equals_str(key, "id"))
            continue;
        cm_buf_put(out, ',');
        cm_json_put_str(out, cm_json_str(key));
        cm_buf_put(out, ':');
        if (yyjson_equals_str(key, "content"))
            put_content(out, item, value);
        else
            cm_json_put_val(out, value);
    }
    cm_buf_put(out, '}');
}

/* The item's own id, else one of its place. */
static struct cm_str id_of(struct page *p, struct cm_str response, yyjson_val *item, size_t index)
{
    const struct cm_str id = cm_json_str(cm_json_get(item, "id"));

    return id.n > 0 ? id : cm_responses_item_id(&p->arena, "in_", response, index);
}

static void add(struct page *p, struct cm_str id, yyjson_val *item)
{
    if (p->n++ > 0)
        cm_buf_put(p->out, ',');
    else
        p->first = id;
    p->last = id;
    put_item(p->out, id, item);
}

/* A text is a list of one message. */
static void add_text(struct page *p, struct cm_str id, struct cm_str text)
{
    p->n = 1;
    p->first = p->last = id;
    cm_buf_append(p->out, CM_S("{\"id\":"));
    cm_json_put_str(p->out, id);
    cm_buf_append(p->out, CM_S(",\"type\":\"message\",\"status\":\"completed\",\"content\":[{"
                               "\"type\":\"input_text\",\"text\":"));
    cm_json_put_str(p->out, text);
    cm_buf_append(p->out, CM_S("}],\"role\":\"user\"}"));
}

static struct cm_str id_at(struct page *p, struct cm_str response, yyjson_val *list, size_t index)
{
    return yyjson_is_str(list) ? cm_responses_item_id(&p->arena, "in_", response, index)
                               : id_of(p, response, yyjson_arr_get(list, index), index);
}

/* Where the page begins, which may be beyond either end; -1: there is no item to begin after. */
static int begin(struct page *p, struct cm_str response, yyjson_val *list, int64_t n,
                 const struct cm_response_page *page, int64_t *at)
{
    *at = page->ascending ? 0 : n - 1;
    if (page->after.n == 0)
        return 0;
    for (int64_t i = 0; i < n; i++) {
        if (!cm_str_eq(id_at(p, response, list, (size_t)i), page->after))
            continue;
        *at = page->ascending ? i + 1 : i - 1;
        return 0;
    }
    return -1;
}

static void put_page(struct page *p, struct cm_str response, yyjson_val *list, int64_t n,
                     const struct cm_response_page *page, int64_t at)
{
    cm_buf_append(p->out, CM_S("{\"object\":\"list\",\"data\":["));
    for (; at >= 0 && at < n && (int64_t)p->n < page->limit; at += page->ascending ? 1 : -1) {
        const struct cm_str id = id_at(p, response, list, (size_t)at);

        if (yyjson_is_str(list))
            add_text(p, id, cm_json_str(list));
        else
            add(p, id, yyjson_arr_get(list, (size_t)at));
    }
    cm_buf_append(p->out, CM_S("],\"first_id\":"));
    cm_json_put_z(p->out, p->n > 0 ? cm_arena_z(&p->arena, p->first) : NULL);
    cm_buf_append(p->out, CM_S(",\"last_id\":"));
    cm_json_put_z(p->out, p->n > 0 ? cm_arena_z(&p->arena, p->last) : NULL);
    cm_buf_append(p->out,
                  at >= 0 && at < n ? CM_S(",\"has_more\":true}") : CM_S(",\"has_more\":false}"));
}

int cm_responses_items(struct cm_str id, struct cm_str input, const struct cm_response_page *page,
                       struct cm_buf *out, struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(input, &cm_json_limits_request, err);
    yyjson_val *list = yyjson_doc_get_root(doc);
    const int64_t n = yyjson_is_str(list) ? 1 : (int64_t)yyjson_arr_size(list);
    struct page p = {.out = out};
    int64_t at;
    int rc = -1;

    if (!doc)
        return -1;
    if (begin(&p, id, list, n, page, &at) < 0)
        cm_fail_param(err, CM_ERR_BAD_REQUEST, "after",
                      "There is no item of that id in this response.");
    else
        rc = 0;
    if (rc == 0)
        put_page(&p, id, list, n, page, at);
    cm_arena_clear(&p.arena);
    yyjson_doc_free(doc);
    return rc;
}
