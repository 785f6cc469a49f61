#include "reading.h"
#include "world.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"

#include <stdio.h>

struct reading {
    const struct answer *a;
    struct cm_buf text;
    bool begun, open, finish, done, error; /* open: a block of Anthropic's */
    bool failed; /* of the Responses API: the answer's state, behind its error */
    int64_t n_events;
};

#define FAIL(r, ...) world_fail_about((r)->a->q, __VA_ARGS__)

_Noreturn static void world_fail_about(uint64_t q, const char *what, const char *more)
{
    world_fail("question %llu: %s%s", (unsigned long long)q, what, more);
}

/* "B:q:attempt:n w0 w1 … " of this question, its words in order; all of them when it is whole. */
static void check_text(const struct answer *a, struct cm_str text, bool whole)
{
    unsigned long long q, attempt;
    unsigned n, i = 0;
    char head[80];

    if (text.n == 0 && !whole)
        return;
    cm_str_copy(head, sizeof(head), text);
    if (sscanf(head, "B:%llu:%llu:%u ", &q, &attempt, &n) != 3 || q != a->q)
        world_fail("question %llu is answered with \"%s\"", (unsigned long long)a->q, head);
    cm_str_cut(&text, ' ');
    while (text.n > 0) {
        struct cm_str word = cm_str_cut(&text, ' ');
        char expected[16];

        snprintf(expected, sizeof(expected), "w%u", i++);
        if (!cm_str_eq(word, cm_str_of(expected)))
            world_fail("question %llu: \"" CM_PRI "\" stands where \"%s\" should be",
                       (unsigned long long)a->q, CM_ARG(cm_str_head(word, 20)), expected);
    }
    if (whole && i != n)
        world_fail("question %llu: the answer ends well after %u of %u words",
                   (unsigned long long)a->q, i, n);
}

static struct cm_str str_at(yyjson_val *v, const char *name)
{
    return cm_json_str(cm_json_get(v, name));
}

static void said(struct reading *r, struct cm_str text)
{
    if (text.n > 0 && r->finish)
        FAIL(r, "text behind the finish", "");
    cm_buf_append(&r->text, text);
}

/* ---- events of each dialect */

static void read_chunk(struct reading *r, yyjson_val *root)
{
    yyjson_val *choice = yyjson_arr_get_first(cm_json_get(root, "choices")),
               *delta = cm_json_get(choice, "delta");
    const bool chat = r->a->dialect == CHAT;
    const struct cm_str text = chat ? str_at(delta, "content") : str_at(choice, "text");

    r->begun |= yyjson_is_str(cm_json_get(delta, "role"));
    if (chat && text.n > 0 && !r->begun)
        FAIL(r, "text before the role", "");
    said(r, text);
    r->finish |= yyjson_is_str(cm_json_get(choice, "finish_reason"));
}

static void read_message_event(struct reading *r, struct cm_str event, yyjson_val *root)
{
    const struct cm_str type = str_at(root, "type");
    char name[40];

    cm_str_copy(name, sizeof(name), type);
    if (!cm_str_eq(type, event))
        FAIL(r, "an event of another name than its type ", name);
    if (cm_str_eq(type, CM_S("ping")))
        return;
    if (cm_str_eq(type, CM_S("message_start"))) {
        if (r->begun)
            FAIL(r, "a second ", name);
        r->begun = true;
        return;
    }
    if (!r->begun)
        FAIL(r, "before message_start comes ", name);
    if (cm_str_eq(type, CM_S("content_block_start"))) {
        if (r->open || r->finish)
            FAIL(r, "a block begins inside another, or behind the finish", "");
        r->open = true;
    } else if (cm_str_eq(type, CM_S("content_block_delta"))) {
        if (!r->open)
            FAIL(r, "text outside of a block", "");
        said(r, str_at(cm_json_get(root, "delta"), "text"));
    } else if (cm_str_eq(type, CM_S("content_block_stop"))) {
        if (!r->open)
            FAIL(r, "a block ends that is not open", "");
        r->open = false;
    } else if (cm_str_eq(type, CM_S("message_delta"))) {
        if (r->open)
            FAIL(r, "message_delta inside a block", "");
        r->finish |= yyjson_is_str(cm_json_get(cm_json_get(root, "delta"), "stop_reason"));
    } else if (cm_str_eq(type, CM_S("message_stop"))) {
        if (!r->finish)
            FAIL(r, "message_stop without a message_delta", "");
        r->done = true;
    } else {
        FAIL(r, "an unknown event ", name);
    }
}

static void read_response_event(struct reading *r, struct cm_str event, yyjson_val *root)
{
    const struct cm_str type = str_at(root, "type");
    yyjson_val *number = cm_json_get(root, "sequence_number");
    char name[60];

    cm_str_copy(name, sizeof(name), type);
    if (!cm_str_eq(type, event))
        FAIL(r, "an event of another name than its type ", name);
    if (!yyjson_is_int(number) || yyjson_get_sint(number) != r->n_events++)
        FAIL(r, "out of its sequence: ", name);
    if (!r->begun && !cm_str_eq(type, CM_S("response.created")) && !cm_str_eq(type, CM_S("error")))
        FAIL(r, "before response.created comes ", name);
    r->begun |= cm_str_eq(type, CM_S("response.created"));
    if (cm_str_eq(type, CM_S("response.output_text.delta"))) {
        said(r, str_at(root, "delta"));
    } else if (cm_str_eq(type, CM_S("response.completed"))) {
        r->finish = r->done = true;
    } else if (cm_str_eq(type, CM_S("error"))) {
        if (str_at(root, "message").n == 0)
            FAIL(r, "an error without words", "");
        r->error = true;
    } else if (cm_str_eq(type, CM_S("response.failed"))) {
        if (!r->error)
            FAIL(r, "response.failed without an error", "");
        r->failed = true;
    } else if (r->error) {
        FAIL(r, "behind the error comes ", name);
    }
}

static void read_candidates(struct reading *r, yyjson_val *root)
{
    yyjson_val *candidate = yyjson_arr_get_first(cm_json_get(root, "candidates")), *part;
    size_t i, n;

    yyjson_arr_foreach(cm_json_get(cm_json_get(candidate, "content"), "parts"), i, n, part)
        said(r, str_at(part, "text"));
    if (str_at(candidate, "finishReason").n > 0)
        r->finish = r->done = true; /* its dialect has no other mark */
}

static void read_value(struct reading *r, struct cm_str event, yyjson_val *root)
{
    const bool responses = r->a->dialect == RESPONSES;

    if ((responses ? r->failed : r->error) || (r->done && r->a->dialect < GEMINI))
        FAIL(r, "something comes behind the end", "");
    if (!responses && cm_json_get(root, "error")) {
        if (str_at(cm_json_get(root, "error"), "message").n == 0)
            FAIL(r, "an error without words", "");
        if (r->a->dialect == MESSAGES && !cm_str_eq(event, CM_S("error")))
            FAIL(r, "an error in an event of another name", "");
        r->error = true;
        return;
    }
    switch (r->a->dialect) {
    case CHAT:
    case TEXT:
        read_chunk(r, root);
        break;
    case RESPONSES:
        read_response_event(r, event, root);
        break;
    case MESSAGES:
        read_message_event(r, event, root);
        break;
    case GEMINI:
    case GEMINI_ARRAY:
        read_candidates(r, root);
        break;
    }
}

static void read_data(struct reading *r, struct cm_str event, struct cm_str data)
{
    yyjson_doc *doc;

    if (r->a->dialect <= TEXT && cm_str_eq(data, CM_S("[DONE]"))) {
        if (r->done || r->error)
            FAIL(r, "a second end", "");
        r->done = true;
        return;
    }
    doc = cm_json_parse(data, &cm_json_limits_event, NULL);
    if (!doc)
        FAIL(r, "an event is no JSON", "");
    read_value(r, event, yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
}

static void read_events(struct reading *r)
{
    struct cm_str rest = r->a->bytes, event = CM_STR_NONE;

    while (rest.n > 0) {
        struct cm_str line = cm_str_cut(&rest, '\n');

        line = cm_str_trim(line);
        if (cm_str_starts(line, CM_S("event: ")))
            event = cm_str_from(line, 7);
        else if (cm_str_starts(line, CM_S("data: ")))
            read_data(r, event, cm_str_from(line, 6));
        else if (line.n == 0)
            event = CM_STR_NONE;
        else if (line.p[0] != ':')
            world_fail("question %llu: a line of its stream is \"" CM_PRI "\"",
                       (unsigned long long)r->a->q, CM_ARG(cm_str_head(line, 60)));
    }
}

/* One JSON array, whole or with an error as its last element. */
static void read_array(struct reading *r)
{
    yyjson_doc *doc = cm_json_parse(r->a->bytes, &cm_json_limits_request, NULL);
    yyjson_val *root = yyjson_doc_get_root(doc), *element;
    size_t i, n;

    if (r->a->left && !doc)
        return; /* half an array says nothing */
    if (!yyjson_is_arr(root))
        world_fail("question %llu: its stream is no array: \"" CM_PRI "\"",
                   (unsigned long long)r->a->q, CM_ARG(cm_str_head(r->a->bytes, 200)));
    yyjson_arr_foreach(root, i, n, element) read_value(r, CM_STR_NONE, element);
    yyjson_doc_free(doc);
}

struct verdict read_stream(const struct answer *a)
{
    struct reading r = {.a = a};

    if (a->dialect == GEMINI_ARRAY)
        read_array(&r);
    else
        read_events(&r);
    if (!a->left && a->aborted != r.error)
        FAIL(&r, "a stream that breaks off must say why, and only that", "");
    if (!a->left && !a->aborted && (!r.done || !r.finish))
        FAIL(&r, "a stream ends well without its end mark", "");
    if (!a->left && a->dialect == RESPONSES && r.error != r.failed)
        FAIL(&r, "an error without response.failed", "");
    if (r.error && r.done && a->dialect < GEMINI)
        FAIL(&r, "a stream with an error ends well", "");
    check_text(a, cm_buf_str(&r.text), r.done && !r.error);
    cm_buf_clear(&r.text);
    return (struct verdict){.whole = r.done && !r.error, .error = r.error};
}

static struct cm_str text_of(const struct answer *a, yyjson_val *root)
{
    yyjson_val *choice = yyjson_arr_get_first(cm_json_get(root, "choices"));
    yyjson_val *candidate = yyjson_arr_get_first(cm_json_get(root, "candidates")), *output;

    switch (a->dialect) {
    case CHAT:
        return str_at(cm_json_get(choice, "message"), "content");
    case TEXT:
        return str_at(choice, "text");
    case RESPONSES:
        output = yyjson_arr_get_first(cm_json_get(root, "output"));
        return str_at(yyjson_arr_get_first(cm_json_get(output, "content")), "text");
    case MESSAGES:
        return str_at(yyjson_arr_get_first(cm_json_get(root, "content")), "text");
    case GEMINI:
    case GEMINI_ARRAY:
        break;
    }
    return str_at(yyjson_arr_get_first(cm_json_get(cm_json_get(candidate, "content"), "parts")),
                  "text");
}

struct verdict read_whole(const struct answer *a)
{
    yyjson_doc *doc = cm_json_parse(a->bytes, &cm_json_limits_request, NULL);
    yyjson_val *root = yyjson_doc_get_root(doc);
    struct verdict v = {.error = a->status != 200, .whole = a->status == 200};

    if (!doc)
        world_fail("question %llu: status %d, and a body that is no JSON: \"" CM_PRI "\"",
                   (unsigned long long)a->q, a->status, CM_ARG(cm_str_head(a->bytes, 200)));
    if (v.error && yyjson_is_arr(root)) /* of a stream that is an array */
        root = yyjson_arr_get_first(root);
    if (v.error && str_at(cm_json_get(root, "error"), "message").n == 0)
        world_fail("question %llu: status %d without an error", (unsigned long long)a->q,
                   a->status);
    if (v.error && a->dialect == MESSAGES && !cm_str_eq(str_at(root, "type"), CM_S("error")))
        world_fail("question %llu: an error in another dialect", (unsigned long long)a->q);
    if (v.whole)
        check_text(a, text_of(a, root), true);
    yyjson_doc_free(doc);
    return v;
}
