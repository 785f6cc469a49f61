/* The relay lane: which operation the client asked for, and its body, changed only where it names the model. */
#include "gemini_int.h"

/* The client's path is "models…:operation". */
const char *gemini_operation(const struct cm_run *run)
{
    static const char *const operations[] = {"generateContent", "streamGenerateContent",
                                             "countTokens", "embedContent", "batchEmbedContents"};
    struct cm_str path = cm_run_chat(run)->path;

    for (size_t i = 0; i < CM_COUNT(operations); i++) {
        struct cm_str name = cm_str_of(operations[i]);

        if (cm_str_ends(path, name) && path.n > name.n && path.p[path.n - name.n - 1] == ':')
            return operations[i];
    }
    return operations[0];
}

bool gemini_wants_events(struct cm_str query)
{
    while (query.n > 0) {
        struct cm_str pair = cm_str_cut(&query, '&');

        if (cm_str_eq(pair, CM_S("alt=sse")) || cm_str_eq(pair, CM_S("%24alt=sse")) ||
            cm_str_eq(pair, CM_S("$alt=sse")))
            return true;
    }
    return false;
}

struct cm_str gemini_model_json(struct cm_run *run)
{
    struct cm_str model = cm_run_target(run)->model;
    struct cm_buf out = {0};

    cm_json_put_str(&out,
                    cm_arena_printf(cm_run_arena(run), "%s" CM_PRI,
                                    cm_str_has(model, CM_S("/")) ? "" : "models/", CM_ARG(model)));
    return cm_buf_settle(&out, cm_run_arena(run));
}

/* The object with its "model" replaced, where it has one that is another. -1: no object. */
static int with_model(struct cm_str object, struct cm_str model, struct cm_buf *out,
                      struct cm_err *err)
{
    const struct cm_json_edit edit = {CM_S("model"), model};
    struct cm_str given = cm_json_member(object, CM_S("model"));

    return cm_json_splice(object, &edit, given.n > 0 && !cm_str_eq(given, model) ? 1 : 0, out, err);
}

/* {"requests":[{"model":…}, …]}: every one of them names the model. */
static int requests_with_model(struct cm_str list, struct cm_str model, struct cm_buf *out,
                               struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(list, &cm_json_limits_request, err);
    yyjson_val *one;
    int failed = doc ? 0 : -1;
    size_t i, n;

    cm_buf_put(out, '[');
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, n, one)
    {
        struct cm_buf text = {0};

        cm_json_put_val(&text, one);
        gemini_element(out);
        if (failed == 0)
            failed = with_model(cm_buf_str(&text), model, out, err);
        cm_buf_clear(&text);
    }
    cm_buf_put(out, ']');
    yyjson_doc_free(doc);
    return failed;
}

/* Whether every "model" in the list is this one already: then the bytes stay as they came. */
static bool all_name(struct cm_str list, struct cm_str model)
{
    yyjson_doc *doc = cm_json_parse(list, &cm_json_limits_request, NULL);
    bool same = yyjson_is_arr(yyjson_doc_get_root(doc));
    yyjson_val *one;
    size_t i, n;

    if (same) {
        yyjson_arr_foreach(yyjson_doc_get_root(doc), i, n, one)
        {
            struct cm_str given = cm_json_str(cm_json_get(one, "model"));

            same &= given.n == 0 || cm_str_eq(given, cm_str(model.p + 1, model.n - 2));
        }
    }
    yyjson_doc_free(doc);
    return same;
}

int gemini_relay_body(struct cm_run *run, struct cm_buf *out, struct cm_str *body,
                      struct cm_err *err)
{
    static const char *const nested[][2] = {{"generateContentRequest", "generate_content_request"},
                                            {"requests", "requests"}};
    const struct cm_chat *chat = cm_run_chat(run);
    struct cm_str model = gemini_model_json(run), given = cm_json_member(chat->raw, CM_S("model"));
    struct cm_json_edit edits[2];
    struct cm_buf inner = {0};
    int failed = 0;
    size_t n = 0;

    if (given.n > 0 && !cm_str_eq(given, model))
        edits[n++] = (struct cm_json_edit){CM_S("model"), model};
    for (size_t i = 0; i < CM_COUNT(nested) && failed == 0 && inner.n == 0; i++) {
        for (size_t k = 0; k < 2 && inner.n == 0; k++) {
            struct cm_str name = cm_str_of(nested[i][k]), value = cm_json_member(chat->raw, name),
                          named = cm_json_member(value, CM_S("model"));

            if (value.n == 0 ||
                (i == 0 ? named.n == 0 || cm_str_eq(named, model) : all_name(value, model)))
                continue;
            failed = i == 0 ? with_model(value, model, &inner, err)
                            : requests_with_model(value, model, &inner, err);
            edits[n++] = (struct cm_json_edit){name, cm_buf_str(&inner)};
        }
    }
    *body = chat->raw;
    /* a stream has its own copy, so that the connection may outlive the exchange and serve again */
    if (failed == 0 && (n > 0 || chat->stream)) {
        failed = cm_json_splice(chat->raw, edits, n, out, err);
        *body = cm_buf_str(out);
    }
    cm_buf_clear(&inner);
    return failed;
}
