/* Calls of tools in a model's text: what is found does not depend on where the text is cut, and no byte is lost or made up. Input: step of the cuts,
 * whether one call is all, then the text. */
#include "provider/tools_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    struct cm_buf all, text; /* with calls; without */
};

static void on_found(void *arg, const struct tools_found *found)
{
    struct seen *s = arg;
    yyjson_doc *doc;

    if (found->name.n == 0) {
        CM_ASSERT(found->text.n > 0);
        cm_buf_append(&s->all, found->text);
        cm_buf_append(&s->text, found->text);
        return;
    }
    CM_ASSERT(cm_str_eq(found->name, CM_S("add")) || cm_str_eq(found->name, CM_S("now")));
    doc = cm_json_parse(found->arguments, &cm_json_limits_event, NULL);
    CM_ASSERT(doc && yyjson_is_obj(yyjson_doc_get_root(doc)));
    yyjson_doc_free(doc);
    cm_buf_printf(&s->all, "\001" CM_PRI "\002" CM_PRI "\003", CM_ARG(found->name),
                  CM_ARG(found->arguments));
}

static struct seen read_by(struct cm_str text, size_t step, bool only_one)
{
    struct cm_tool tools[] = {{.name = CM_S("add")}, {.name = CM_S("now")}};
    const struct cm_chat chat = {
        .tools = tools, .n_tools = 2, .parallel_tool_calls = only_one ? 0 : 1};
    struct cm_arena arena = {0};
    struct seen s = {0};
    struct tools_reader r;

    tools_reader_init(&r, &arena, &chat);
    for (size_t at = 0; at < text.n; at += step) {
        const struct cm_str piece = cm_str_head(cm_str_from(text, at), step);
        char *copy =
            cm_alloc(piece.n); /* of its exact size, so that a sanitizer sees a read beyond it */

        memcpy(copy, piece.p, piece.n);
        tools_read(&r, cm_str(copy, piece.n), on_found, &s);
        free(copy);
    }
    tools_read_end(&r, on_found, &s);
    CM_ASSERT(r.calls > 0 || cm_str_eq(cm_buf_str(&s.all), text));
    CM_ASSERT(!only_one || r.calls <= 1);
    CM_ASSERT(s.text.n <= text.n);
    tools_reader_clear(&r);
    cm_arena_clear(&arena);
    return s;
}

static void clear(struct seen *s)
{
    cm_buf_clear(&s->all);
    cm_buf_clear(&s->text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_str text;
    struct seen whole, cut;
    bool only_one;

    if (size < 3 || size > 64 * 1024)
        return 0;
    only_one = data[1] & 1;
    text = cm_str((const char *)data + 2, size - 2);
    whole = read_by(text, text.n, only_one);
    cut = read_by(text, 1 + data[0] % 64, only_one);
    CM_ASSERT(cm_str_eq(cm_buf_str(&whole.all), cm_buf_str(&cut.all)));
    clear(&whole);
    clear(&cut);
    return 0;
}
