/* JSON: the scan agrees with the parser, what is written parses again, and edits change what
 * they name and nothing else. Input: the JSON text; when its first byte is 1 to 0x1f and no
 * white space, that byte chooses the edits and the text follows. */
#include "chatmux/codec/json.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct cm_json_limits limits = {.max_values = 100000, .max_depth = 64};

static void check_string(struct cm_str s)
{
    struct cm_buf out = {0}, clean = {0};
    yyjson_doc *doc;

    cm_json_put_str(&out, s);
    cm_utf8_clean(&clean, s);
    doc = cm_json_parse(cm_buf_str(&out), &limits, NULL);
    CM_ASSERT(doc);
    CM_ASSERT(cm_str_eq(cm_json_str(yyjson_doc_get_root(doc)), cm_buf_str(&clean)));
    yyjson_doc_free(doc);
    cm_buf_clear(&out);
    cm_buf_clear(&clean);
}

static void check_counts(struct cm_str text, yyjson_doc *doc)
{
    struct cm_json_limits exact = {yyjson_doc_get_val_count(doc), limits.max_depth};

    CM_ASSERT(cm_json_scan(text, &exact, NULL) == 0);
    exact.max_values--;
    CM_ASSERT(cm_json_scan(text, &exact, NULL) == -1);
}

static void check_writing(yyjson_val *root)
{
    struct cm_buf out = {0};
    yyjson_doc *again;

    cm_json_put_val(&out, root);
    again = cm_json_parse(cm_buf_str(&out), &limits, NULL);
    CM_ASSERT(again && yyjson_equals(yyjson_doc_get_root(again), root));
    yyjson_doc_free(again);
    cm_buf_clear(&out);
}

static const struct cm_json_edit *edit_of(const struct cm_json_edit *edits, size_t n,
                                          struct cm_str key)
{
    for (size_t i = 0; i < n; i++)
        if (cm_str_eq(edits[i].key, key))
            return &edits[i];
    return NULL;
}

/* Walks both objects side by side: members that no edit names are equal, of the others the first
 * has the new value and the rest are gone. */
static void check_members(yyjson_val *before, yyjson_val *after, const struct cm_json_edit *edits,
                          size_t n)
{
    yyjson_obj_iter old = yyjson_obj_iter_with(before), new = yyjson_obj_iter_with(after);
    bool seen[8] = {false};
    yyjson_val *key, *there;

    while ((key = yyjson_obj_iter_next(&old))) {
        const struct cm_json_edit *e = edit_of(edits, n, cm_json_str(key));

        if (e && (e->value.n == 0 || seen[e - edits]))
            continue;
        there = yyjson_obj_iter_next(&new);
        CM_ASSERT(there && yyjson_equals(key, there));
        if (e)
            seen[e - edits] = true;
        else
            CM_ASSERT(yyjson_equals(yyjson_obj_iter_get_val(key), yyjson_obj_iter_get_val(there)));
    }
    for (size_t i = 0; i < n; i++) {
        if (edits[i].value.n == 0 || seen[i])
            continue;
        there = yyjson_obj_iter_next(&new);
        CM_ASSERT(there && cm_str_eq(cm_json_str(there), edits[i].key));
    }
    CM_ASSERT(!yyjson_obj_iter_next(&new));
    for (size_t i = 0; i < n; i++) {
        there = yyjson_obj_getn(after, edits[i].key.p, edits[i].key.n);
        CM_ASSERT(edits[i].value.n == 0 ? !there : yyjson_get_uint(there) == 12345 + i);
    }
}

/* Bit 0 and 1: what happens to "a"; 2 and 3: to "model"; 4: whether the first member is removed. */
static void check_splice(struct cm_str text, yyjson_val *root, unsigned choice)
{
    static const struct cm_str new_values[3] = {CM_S_INIT("12345"), CM_S_INIT("12346"),
                                                CM_S_INIT("12347")};
    struct cm_json_edit edits[3];
    yyjson_obj_iter it = yyjson_obj_iter_with(root);
    struct cm_str first = cm_json_str(yyjson_obj_iter_next(&it));
    struct cm_buf out = {0};
    yyjson_doc *after;
    size_t n = 0;

    for (int i = 0; i < 2; i++, choice >>= 2) {
        if (!(choice & 1))
            continue;
        edits[n].key = i ? CM_S("model") : CM_S("a");
        edits[n].value = choice & 2 ? new_values[n] : CM_STR_NONE;
        n++;
    }
    if (choice & 1 && first.p && !edit_of(edits, n, first))
        edits[n++] = (struct cm_json_edit){first, CM_STR_NONE};
    CM_ASSERT(cm_json_splice(text, edits, n, &out, NULL) == 0);
    if (n == 0)
        CM_ASSERT(cm_str_eq(cm_buf_str(&out), text));
    after = cm_json_parse(cm_buf_str(&out), &limits, NULL);
    CM_ASSERT(after);
    check_members(root, yyjson_doc_get_root(after), edits, n);
    yyjson_doc_free(after);
    cm_buf_clear(&out);
}

/* The value's own text parses to the value. */
static void check_member(struct cm_str text, yyjson_val *root)
{
    yyjson_val *value = cm_json_get(root, "a");
    struct cm_str slice = cm_json_member(text, CM_S("a"));
    yyjson_doc *doc;

    CM_ASSERT((slice.n > 0) == (value != NULL));
    if (!value)
        return;
    doc = cm_json_parse(slice, &limits, NULL);
    CM_ASSERT(doc && yyjson_equals(yyjson_doc_get_root(doc), value));
    yyjson_doc_free(doc);
}

/* Text that is no JSON, or none we accept: safe, and out is as before when the edit was refused. */
static void check_broken(struct cm_str text)
{
    const struct cm_json_edit edit = {CM_S("a"), CM_S("1")};
    struct cm_buf out = {0};
    struct cm_err err = {0};

    if (cm_json_splice(text, &edit, 1, &out, &err))
        CM_ASSERT(out.n == 0 && err.cls == CM_ERR_BAD_REQUEST);
    (void)cm_json_member(text, CM_S("a"));
    cm_buf_clear(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_str text = cm_str((const char *)data, size);
    unsigned choice = 0;
    struct cm_err err = {0};
    yyjson_doc *doc;

    check_string(text);
    if (size > 0 && data[0] > 0 && data[0] < 0x20 && !strchr("\t\n\r", data[0])) {
        choice = data[0];
        text = cm_str_from(text, 1);
    }
    doc = cm_json_parse(text, &limits, &err);
    if (!doc) {
        CM_ASSERT(err.cls == CM_ERR_BAD_REQUEST && err.msg[0]);
        check_broken(text);
        return 0;
    }
    check_counts(text, doc);
    check_writing(yyjson_doc_get_root(doc));
    if (yyjson_is_obj(yyjson_doc_get_root(doc))) {
        check_splice(text, yyjson_doc_get_root(doc), choice);
        check_member(text, yyjson_doc_get_root(doc));
    }
    yyjson_doc_free(doc);
    return 0;
}
