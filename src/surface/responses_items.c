/* Items of the Responses API -> messages (OpenAI protocol notes, sections 10 and 12).
 *
 * Neighbouring items of the assistant become one message: reasoning, text, calls. The results of its calls follow it at once, wherever they stand in the
 * list, because most platforms want them there; so outputs are found first, and a call without output or an output without call is refused. */
#include "responses_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

struct output {
    yyjson_val *item;
    struct output *next; /* of the same call id: some models number each turn anew */
    bool used;
};

static struct cm_str string_of(yyjson_val *item, const char *key)
{
    return cm_json_str(cm_json_get(item, key));
}

static void push_part(struct cm_responses_reader *r, const struct cm_part *part)
{
    cm_buf_append(&r->parts, cm_str((const char *)part, sizeof(*part)));
}

static void push_msg(struct cm_responses_reader *r, enum cm_role role, struct cm_buf *parts)
{
    struct cm_msg msg = {.role = role};

    msg.parts = cm_responses_settle(r, parts, sizeof(*msg.parts), &msg.n_parts);
    cm_buf_append(&r->msgs, cm_str((const char *)&msg, sizeof(msg)));
}

/* What cannot be told of an upstream's own response, because we have not seen it, is its business. */
static bool sees_all(const struct cm_responses_reader *r)
{
    const struct cm_response_ask *ask = r->chat->response;

    return ask->previous_id.n == 0 || ask->n_turns > 0;
}

static int unpaired(struct cm_responses_reader *r, const struct cm_spot *at, const char *what,
                    struct cm_str id)
{
    struct cm_err why;

    cm_field_fail(&why, at, NULL, "%s " CM_PRI ".", what, CM_ARG(cm_utf8_head(id, 64)));
    if (sees_all(r)) {
        *r->err = why;
        return -1;
    }
    cm_responses_untranslatable(r, &why);
    return 0;
}

/* ---- Content ---- */

static int read_image(struct cm_responses_reader *r, yyjson_val *v, const struct cm_spot *at,
                      struct cm_part *part)
{
    const struct cm_spot *spot = CM_SPOT(at, "image_url");
    struct cm_str url = CM_STR_NONE;
    struct cm_err why;

    part->kind = CM_PART_IMAGE;
    if (cm_field_str(cm_json_get(v, "image_url"), spot, &url, r->err) ||
        cm_field_str(cm_json_get(v, "detail"), CM_SPOT(at, "detail"), &part->detail, r->err))
        return -1;
    if (url.n > 0)
        return cm_field_url(url, spot, part, r->err);
    if (string_of(v, "file_id").n == 0)
        return cm_field_missing(r->err, spot);
    cm_field_fail(&why, CM_SPOT(at, "file_id"), "unsupported_parameter",
                  "Pictures by 'file_id' are not supported by this model's provider: send them in "
                  "'image_url'.");
    cm_responses_untranslatable(r, &why);
    return 0;
}

static int read_file(struct cm_responses_reader *r, yyjson_val *v, const struct cm_spot *at,
                     struct cm_part *part)
{
    const struct cm_spot *data_spot = CM_SPOT(at, "file_data"), *url_spot = CM_SPOT(at, "file_url");
    struct cm_str data = CM_STR_NONE, url = CM_STR_NONE;

    part->kind = CM_PART_FILE;
    if (cm_field_str(cm_json_get(v, "file_id"), CM_SPOT(at, "file_id"), &part->id, r->err) ||
        cm_field_str(cm_json_get(v, "filename"), CM_SPOT(at, "filename"), &part->name, r->err) ||
        cm_field_str(cm_json_get(v, "file_data"), data_spot, &data, r->err) ||
        cm_field_str(cm_json_get(v, "file_url"), url_spot, &url, r->err))
        return -1;
    if (data.n > 0)
        return cm_field_url(data, data_spot, part, r->err);
    if (url.n > 0)
        return cm_field_url(url, url_spot, part, r->err);
    return part->id.n > 0 ? 0 : cm_field_missing(r->err, data_spot);
}

static int read_audio(struct cm_responses_reader *r, yyjson_val *v, const struct cm_spot *at,
                      struct cm_part *part)
{
    const struct cm_spot *spot = CM_SPOT(at, "input_audio");
    yyjson_val *audio = cm_json_opt(v, "input_audio");

    part->kind = CM_PART_AUDIO;
    if (!audio)
        return cm_field_missing(r->err, spot);
    return cm_field_is_object(audio, spot, r->err) ||
                   cm_field_need_str(cm_json_get(audio, "data"), CM_SPOT(spot, "data"), &part->data,
                                     r->err) ||
                   cm_field_need_str(cm_json_get(audio, "format"), CM_SPOT(spot, "format"),
                                     &part->media_type, r->err)
               ? -1
               : 0;
}

static int read_part(struct cm_responses_reader *r, yyjson_val *v, const struct cm_spot *at,
                     struct cm_buf *parts)
{
    struct cm_part part = {.kind = CM_PART_TEXT};
    struct cm_str type;
    struct cm_err why;
    int rc;

    if (!yyjson_is_obj(v))
        return cm_field_wrong_type(r->err, at, "an object", v);
    if (cm_field_need_str(cm_json_get(v, "type"), CM_SPOT(at, "type"), &type, r->err))
        return -1;
    if (cm_str_eq(type, CM_S("input_text")) || cm_str_eq(type, CM_S("output_text")) ||
        cm_str_eq(type, CM_S("text"))) {
        rc = cm_field_need_str(cm_json_get(v, "text"), CM_SPOT(at, "text"), &part.text, r->err);
    } else if (cm_str_eq(type, CM_S("refusal"))) {
        part.kind = CM_PART_REFUSAL;
        rc = cm_field_need_str(cm_json_get(v, "refusal"), CM_SPOT(at, "refusal"), &part.text,
                               r->err);
    } else if (cm_str_eq(type, CM_S("input_image"))) {
        rc = read_image(r, v, at, &part);
    } else if (cm_str_eq(type, CM_S("input_file"))) {
        rc = read_file(r, v, at, &part);
    } else if (cm_str_eq(type, CM_S("input_audio"))) {
        rc = read_audio(r, v, at, &part);
    } else {
        cm_field_wrong_value(&why, CM_SPOT(at, "type"), type,
                             "'input_text', 'input_image', 'input_file', 'output_text' and "
                             "'refusal'");
        cm_responses_untranslatable(r, &why);
        return 0;
    }
    if (rc == 0)
        cm_buf_append(parts, cm_str((const char *)&part, sizeof(part)));
    return rc;
}

/* A text, or a list of parts. */
static int read_content(struct cm_responses_reader *r, yyjson_val *content,
                        const struct cm_spot *at, struct cm_buf *parts)
{
    const struct cm_part text = {.kind = CM_PART_TEXT, .text = cm_json_str(content)};
    size_t i, max;
    yyjson_val *v;

    if (!content || yyjson_is_null(content))
        return cm_field_missing(r->err, at);
    if (yyjson_is_str(content)) {
        cm_buf_append(parts, cm_str((const char *)&text, sizeof(text)));
        return 0;
    }
    if (!yyjson_is_arr(content))
        return cm_field_wrong_type(r->err, at, "a string or an array of objects", content);
    yyjson_arr_foreach(content, i, max, v)
    {
        if (read_part(r, v, CM_SPOT_AT(at, i), parts))
            return -1;
    }
    return 0;
}

/* ---- Calls and their outputs ---- */

static void note_output(struct cm_responses_reader *r, yyjson_val *item)
{
    const struct cm_str id = string_of(item, "call_id");
    struct output *o = CM_ARENA_NEW(r->chat->arena, struct output), *last;

    if (id.n == 0)
        return; /* refused where it is read */
    o->item = item;
    last = cm_map_get(&r->outputs, id);
    if (!last) {
        cm_map_put(&r->outputs, id, o);
        return;
    }
    while (last->next)
        last = last->next;
    last->next = o;
}

static struct output *next_output(struct cm_responses_reader *r, struct cm_str call_id)
{
    struct output *o = cm_map_get(&r->outputs, call_id);

    while (o && o->used)
        o = o->next;
    return o;
}

static bool only_text(const struct cm_part *parts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (parts[i].kind != CM_PART_TEXT)
            return false;
    return true;
}

static int read_result(struct cm_responses_reader *r, yyjson_val *item, const struct cm_spot *at,
                       const struct cm_part *call)
{
    struct cm_part result = {.kind = CM_PART_TOOL_RESULT, .id = call->id, .name = call->name};
    struct cm_buf inner = {0}, list = {0};
    struct cm_msg content = {0};

    if (read_content(r, cm_json_get(item, "output"), CM_SPOT(at, "output"), &inner)) {
        cm_buf_clear(&inner);
        return -1;
    }
    content.parts = cm_responses_settle(r, &inner, sizeof(*content.parts), &content.n_parts);
    cm_buf_clear(&inner);
    result.text = cm_msg_text(r->chat->arena, &content);
    if (!only_text(content.parts, content.n_parts)) {
        result.parts = content.parts;
        result.n_parts = content.n_parts;
    }
    cm_buf_append(&list, cm_str((const char *)&result, sizeof(result)));
    push_msg(r, CM_ROLE_TOOL, &list);
    cm_buf_clear(&list);
    return 0;
}

/* The assistant's message is over: it goes out, and behind it what its calls came to. */
static int end_assistant(struct cm_responses_reader *r, const struct cm_spot *at)
{
    const struct cm_msg *msg;
    struct cm_part *parts;
    size_t n;

    if (!r->has_text && r->n_calls == 0)
        cm_buf_reset(&r->parts); /* reasoning that led to nothing */
    if (r->parts.n == 0)
        return 0;
    push_msg(r, CM_ROLE_ASSISTANT, &r->parts);
    msg = (const struct cm_msg *)(void *)(r->msgs.p + r->msgs.n - sizeof(*msg));
    parts = msg->parts;
    n = msg->n_parts; /* the list grows below */
    r->has_text = false;
    r->n_calls = 0;
    for (size_t i = 0; i < n; i++) {
        struct output *o;

        if (parts[i].kind != CM_PART_TOOL_CALL)
            continue;
        o = next_output(r, parts[i].id);
        if (!o) {
            if (unpaired(r, CM_SPOT(NULL, "input"), "No tool output found for function call",
                         parts[i].id))
                return -1;
            continue;
        }
        o->used = true;
        if (read_result(r, o->item, at, &parts[i]))
            return -1;
    }
    return 0;
}

static int read_output(struct cm_responses_reader *r, yyjson_val *item, const struct cm_spot *at)
{
    const struct output *o;
    struct cm_str id;

    if (cm_field_need_str(cm_json_get(item, "call_id"), CM_SPOT(at, "call_id"), &id, r->err) ||
        end_assistant(r, at))
        return -1;
    for (o = cm_map_get(&r->outputs, id); o; o = o->next)
        if (o->item == item && o->used)
            return 0; /* stands behind its call already */
    return unpaired(r, at, "No tool call found for function call output with call_id", id);
}

static int read_call(struct cm_responses_reader *r, yyjson_val *item, const struct cm_spot *at)
{
    struct cm_part call = {.kind = CM_PART_TOOL_CALL};

    if (cm_field_need_str(cm_json_get(item, "call_id"), CM_SPOT(at, "call_id"), &call.id, r->err) ||
        cm_field_need_str(cm_json_get(item, "name"), CM_SPOT(at, "name"), &call.name, r->err) ||
        cm_field_need_str(cm_json_get(item, "arguments"), CM_SPOT(at, "arguments"), &call.text,
                          r->err))
        return -1;
    push_part(r, &call);
    r->n_calls++;
    return 0;
}

/* ---- Items ---- */

/* The summary, or where there is one the reasoning itself. What is encrypted only its own upstream reads. */
static int read_reasoning(struct cm_responses_reader *r, yyjson_val *item, const struct cm_spot *at)
{
    struct cm_part part = {.kind = CM_PART_REASONING, .id = string_of(item, "id")};
    yyjson_val *list = cm_json_opt(item, "content"), *v;
    struct cm_buf text = {0};
    size_t i, max;

    if (yyjson_arr_size(list) == 0)
        list = cm_json_opt(item, "summary");
    if (cm_field_is_array(list, CM_SPOT(at, "summary"), r->err))
        return -1;
    yyjson_arr_foreach(list, i, max, v)
    {
        if (text.n > 0)
            cm_buf_append(&text, CM_S("\n\n"));
        cm_buf_append(&text, string_of(v, "text"));
    }
    part.text = cm_buf_settle(&text, r->chat->arena);
    if (r->chat->response->sealed.n == 0 && string_of(item, "encrypted_content").n > 0)
        r->chat->response->sealed = part.id;
    if (part.text.n > 0)
        push_part(r, &part);
    return 0;
}

static int read_assistant(struct cm_responses_reader *r, yyjson_val *item, const struct cm_spot *at)
{
    if ((r->has_text || r->n_calls > 0) && end_assistant(r, at))
        return -1;
    if (yyjson_equals_str(cm_json_get(item, "content"), ""))
        return 0;
    r->has_text = true;
    return read_content(r, cm_json_get(item, "content"), CM_SPOT(at, "content"), &r->parts);
}

static int read_message(struct cm_responses_reader *r, yyjson_val *item, const struct cm_spot *at)
{
    static const struct {
        struct cm_str name;
        enum cm_role role;
    } roles[] = {
        {CM_S_INIT("user"), CM_ROLE_USER},
        {CM_S_INIT("assistant"), CM_ROLE_ASSISTANT},
        {CM_S_INIT("system"), CM_ROLE_SYSTEM},
        {CM_S_INIT("developer"), CM_ROLE_DEVELOPER},
    };
    struct cm_str role;
    size_t k = 0;

    if (cm_field_need_str(cm_json_get(item, "role"), CM_SPOT(at, "role"), &role, r->err))
        return -1;
    while (k < CM_COUNT(roles) && !cm_str_eq(roles[k].name, role))
        k++;
    if (k == CM_COUNT(roles))
        return cm_field_wrong_value(r->err, CM_SPOT(at, "role"), role,
                                    "'assistant', 'system', 'developer' and 'user'");
    if (roles[k].role == CM_ROLE_ASSISTANT)
        return read_assistant(r, item, at);
    if (end_assistant(r, at) ||
        read_content(r, cm_json_get(item, "content"), CM_SPOT(at, "content"), &r->parts))
        return -1;
    if (r->parts.n > 0)
        push_msg(r, roles[k].role, &r->parts);
    return 0;
}

static int read_item(struct cm_responses_reader *r, yyjson_val *item, const struct cm_spot *at)
{
    struct cm_str type = CM_S("message");
    struct cm_err why;

    if (!yyjson_is_obj(item))
        return cm_field_wrong_type(r->err, at, "an object", item);
    if (cm_field_str(cm_json_get(item, "type"), CM_SPOT(at, "type"), &type, r->err))
        return -1;
    if (cm_str_eq(type, CM_S("message")))
        return read_message(r, item, at);
    if (cm_str_eq(type, CM_S("function_call")))
        return read_call(r, item, at);
    if (cm_str_eq(type, CM_S("function_call_output")))
        return read_output(r, item, at);
    if (cm_str_eq(type, CM_S("reasoning")))
        return read_reasoning(r, item, at);
    if (cm_str_eq(type, CM_S("item_reference")))
        return 0; /* only its own upstream knows what it stands for */
    cm_field_wrong_value(&why, CM_SPOT(at, "type"), type,
                         "'message', 'function_call', 'function_call_output' and 'reasoning'");
    cm_responses_untranslatable(r, &why);
    return 0;
}

/* An array of items, or a text that is one of the user's. */
static int read_list(struct cm_responses_reader *r, yyjson_val *list, const struct cm_spot *at)
{
    const struct cm_part text = {.kind = CM_PART_TEXT, .text = cm_json_str(list)};
    size_t i, max;
    yyjson_val *v;

    if (yyjson_is_str(list)) {
        if (end_assistant(r, at))
            return -1;
        push_part(r, &text);
        push_msg(r, CM_ROLE_USER, &r->parts);
        return 0;
    }
    if (!yyjson_is_arr(list))
        return cm_field_wrong_type(r->err, at, "a string or an array of objects", list);
    yyjson_arr_foreach(list, i, max, v)
    {
        if (read_item(r, v, CM_SPOT_AT(at, i)))
            return -1;
    }
    return 0;
}

static void note_outputs(struct cm_responses_reader *r, yyjson_val *list)
{
    size_t i, max;
    yyjson_val *v;

    yyjson_arr_foreach(list, i, max, v)
    {
        if (cm_str_eq(string_of(v, "type"), CM_S("function_call_output")))
            note_output(r, v);
    }
}

static void free_doc(void *doc)
{
    yyjson_doc_free(doc);
}

/* One of the gateway's own texts. */
static yyjson_val *parsed(struct cm_responses_reader *r, struct cm_str text)
{
    yyjson_doc *doc = cm_json_parse(text, &cm_json_limits_request, r->err);

    if (doc)
        cm_arena_defer(r->chat->arena, free_doc, doc);
    return yyjson_doc_get_root(doc);
}

int cm_responses_read_items(struct cm_responses_reader *r, yyjson_val *input)
{
    const struct cm_response_ask *ask = r->chat->response;
    const struct cm_spot *at = CM_SPOT(NULL, "input"),
                         *before = CM_SPOT(NULL, "previous_response_id");
    /* of each turn what was asked, and what was answered; the input is the last */
    yyjson_val **lists = CM_ARENA_ARRAY(r->chat->arena, yyjson_val *, 2 * ask->n_turns + 1);
    size_t n = 0;

    for (size_t i = 0; i < ask->n_turns; i++) {
        yyjson_val *asked = parsed(r, ask->turns[i].input),
                   *answered = parsed(r, ask->turns[i].response);

        if (!asked || !answered)
            return -1;
        lists[n++] = asked;
        lists[n++] = cm_json_get(answered, "output");
    }
    if (input)
        lists[n++] = input;
    for (size_t i = 0; i < n; i++)
        note_outputs(r, lists[i]);
    for (size_t i = 0; i < n; i++)
        if (read_list(r, lists[i], input && i + 1 == n ? at : before))
            return -1;
    return end_assistant(r, at);
}
