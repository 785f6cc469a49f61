/* Messages of POST /v1/messages -> canonical messages (protocol notes of Anthropic, sections 2 and 7).
 *
 * Types are checked for what is read. What only Anthropic understands (files of its own, blocks nobody
 * here knows) and what its rules of tool pairing forbid is noted in chat->untranslatable, so that the
 * relay lane leaves the verdict, and its words, to Anthropic. Results stand in messages of their own,
 * before the rest of the user's message. */
#include "anthropic_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

typedef struct cm_anthropic_reader reader;

enum place { IN_SYSTEM = 1, IN_USER = 2, IN_ASSISTANT = 4, IN_RESULT = 8, IN_DOCUMENT = 16 };

/* Text parts become one part where a document or a search result is given as text. */
static void push(struct cm_buf *list, const struct cm_part *part)
{
    cm_buf_append(list, cm_str((const char *)part, sizeof(*part)));
}

/* ---- Blocks ---- */

/* Where the part goes, and what the block says about itself. */
struct block {
    yyjson_val *v;
    const struct cm_spot *at;
    enum place place;
    struct cm_buf *list;
};

static int read_text(reader *r, const struct block *b)
{
    struct cm_part part = {.kind = CM_PART_TEXT};

    if (cm_field_need_str(cm_json_get(b->v, "text"), CM_SPOT(b->at, "text"), &part.text, r->err) ||
        cm_anthropic_read_cache(r, b->v, b->at, &part.cache))
        return -1;
    push(b->list, &part);
    return 0;
}

/* The source of an image or a document, but for those that are text. */
static int read_source(reader *r, yyjson_val *source, const struct cm_spot *at, struct cm_str type,
                       struct cm_part *part)
{
    if (cm_str_eq(type, CM_S("base64"))) {
        if (cm_field_need_str(cm_json_get(source, "media_type"), CM_SPOT(at, "media_type"),
                              &part->media_type, r->err) ||
            cm_field_need_str(cm_json_get(source, "data"), CM_SPOT(at, "data"), &part->data,
                              r->err))
            return -1;
        if (part->data.n == 0)
            return cm_field_fail(r->err, CM_SPOT(at, "data"), NULL, "The data is empty.");
    } else if (cm_str_eq(type, CM_S("url"))) {
        if (cm_field_need_str(cm_json_get(source, "url"), CM_SPOT(at, "url"), &part->url, r->err))
            return -1;
        if (!cm_str_starts_nocase(part->url, CM_S("https://")) &&
            !cm_str_starts_nocase(part->url, CM_S("http://")))
            return cm_field_fail(r->err, CM_SPOT(at, "url"), NULL,
                                 "Expected a URL that begins with http:// or https://.");
    } else {
        cm_anthropic_untranslatable(r, CM_SPOT(at, "type"),
                                    "a source of type \"" CM_PRI
                                    "\" is only understood by Anthropic itself",
                                    CM_ARG(cm_utf8_head(type, 40)));
    }
    return 0;
}

/* The member `source` and its type. NULL: *r->err is filled. */
static yyjson_val *source_of(reader *r, const struct block *b, struct cm_str *type)
{
    const struct cm_spot *at = CM_SPOT(b->at, "source");
    yyjson_val *source = cm_json_opt(b->v, "source");

    if (!source)
        cm_field_missing(r->err, at);
    else if (cm_field_is_object(source, at, r->err) ||
             cm_field_need_str(cm_json_get(source, "type"), CM_SPOT(at, "type"), type, r->err))
        source = NULL;
    return source;
}

static int read_image(reader *r, const struct block *b)
{
    struct cm_part part = {.kind = CM_PART_IMAGE};
    struct cm_str type;
    yyjson_val *source = source_of(r, b, &type);

    if (!source || cm_anthropic_read_cache(r, b->v, b->at, &part.cache) ||
        read_source(r, source, CM_SPOT(b->at, "source"), type, &part))
        return -1;
    push(b->list, &part);
    return 0;
}

static int read_blocks(reader *r, yyjson_val *content, const struct cm_spot *at, enum place place,
                       struct cm_buf *list);

/* Title, context and text of a document in plain text, blank lines between. */
static struct cm_str with_title(reader *r, struct cm_str title, struct cm_str context,
                                struct cm_str text)
{
    if (title.n == 0 && context.n == 0)
        return text;
    return cm_arena_printf(r->chat->arena, CM_PRI "%s" CM_PRI "%s" CM_PRI, CM_ARG(title),
                           title.n > 0 && context.n > 0 ? "\n\n" : "", CM_ARG(context),
                           text.n > 0 ? "\n\n" : "", CM_ARG(text));
}

static int read_document(reader *r, const struct block *b)
{
    const struct cm_spot *at = CM_SPOT(b->at, "source");
    struct cm_part part = {.kind = CM_PART_FILE};
    struct cm_str type;
    yyjson_val *source = source_of(r, b, &type), *content;
    struct cm_str text;

    if (!source || cm_anthropic_read_cache(r, b->v, b->at, &part.cache) ||
        cm_field_str(cm_json_get(b->v, "title"), CM_SPOT(b->at, "title"), &part.name, r->err) ||
        cm_field_str(cm_json_get(b->v, "context"), CM_SPOT(b->at, "context"), &part.context,
                     r->err))
        return -1;
    if (yyjson_is_true(cm_json_get(cm_json_get(b->v, "citations"), "enabled")))
        cm_chat_drop(r->chat, CM_S("citations"));
    if (cm_str_eq(type, CM_S("text"))) {
        if (cm_field_need_str(cm_json_get(source, "data"), CM_SPOT(at, "data"), &text, r->err))
            return -1;
        part.text = with_title(r, part.name, part.context, text);
    } else if (cm_str_eq(type, CM_S("content"))) {
        content = cm_json_opt(source, "content");
        if (!yyjson_is_str(content)) {
            part.text = with_title(r, part.name, part.context, CM_STR_NONE);
            part.kind = CM_PART_TEXT;
            if (part.text.n > 0)
                push(b->list, &part);
            return read_blocks(r, content, CM_SPOT(at, "content"), IN_DOCUMENT, b->list);
        }
        part.text = with_title(r, part.name, part.context, cm_json_str(content));
    } else if (read_source(r, source, at, type, &part)) {
        return -1;
    }
    if (part.text.n > 0) { /* every platform can read it so */
        part.kind = CM_PART_TEXT;
        part.name = part.context = CM_STR_NONE;
    }
    push(b->list, &part);
    return 0;
}

static int read_search_result(reader *r, const struct block *b)
{
    struct cm_part part = {.kind = CM_PART_TEXT};
    struct cm_str title = CM_STR_NONE, source = CM_STR_NONE;

    if (cm_field_str(cm_json_get(b->v, "title"), CM_SPOT(b->at, "title"), &title, r->err) ||
        cm_field_str(cm_json_get(b->v, "source"), CM_SPOT(b->at, "source"), &source, r->err) ||
        cm_anthropic_read_cache(r, b->v, b->at, &part.cache))
        return -1;
    part.text =
        cm_arena_printf(r->chat->arena, CM_PRI " (" CM_PRI ")", CM_ARG(title), CM_ARG(source));
    push(b->list, &part);
    return read_blocks(r, cm_json_opt(b->v, "content"), CM_SPOT(b->at, "content"), IN_SYSTEM,
                       b->list);
}

static int read_thinking(reader *r, const struct block *b)
{
    struct cm_part part = {.kind = CM_PART_REASONING};

    if (cm_field_need_str(cm_json_get(b->v, "thinking"), CM_SPOT(b->at, "thinking"), &part.text,
                          r->err) ||
        cm_field_str(cm_json_get(b->v, "signature"), CM_SPOT(b->at, "signature"), &part.signature,
                     r->err))
        return -1;
    push(b->list, &part);
    return 0;
}

static int read_redacted(reader *r, const struct block *b)
{
    struct cm_part part = {.kind = CM_PART_REASONING, .redacted = true};

    if (cm_field_need_str(cm_json_get(b->v, "data"), CM_SPOT(b->at, "data"), &part.data, r->err))
        return -1;
    push(b->list, &part);
    return 0;
}

static int read_call(reader *r, const struct block *b)
{
    struct cm_part part = {.kind = CM_PART_TOOL_CALL};
    yyjson_val *input = cm_json_opt(b->v, "input");

    if (cm_field_need_str(cm_json_get(b->v, "id"), CM_SPOT(b->at, "id"), &part.id, r->err) ||
        cm_field_need_str(cm_json_get(b->v, "name"), CM_SPOT(b->at, "name"), &part.name, r->err) ||
        cm_field_is_object(input, CM_SPOT(b->at, "input"), r->err) ||
        cm_anthropic_read_cache(r, b->v, b->at, &part.cache))
        return -1;
    part.text = input ? cm_field_json(r->chat->arena, input) : CM_S("{}");
    part.id = cm_tool_id_plain(r->chat->arena, part.id);
    if (cm_map_put(&r->calls, part.id, r))
        cm_anthropic_untranslatable(r, CM_SPOT(b->at, "id"), "`tool_use` ids must be unique");
    push(b->list, &part);
    return 0;
}

/* The text of the parts is the result's text; the parts stay where there is more than text. */
static void put_result(reader *r, struct cm_part *result)
{
    struct cm_msg content = {0};
    bool only_text = true;

    content.parts = cm_anthropic_settle(r, &r->inner, sizeof(struct cm_part), &content.n_parts);
    for (size_t i = 0; i < content.n_parts; i++)
        only_text &= content.parts[i].kind == CM_PART_TEXT;
    result->text = cm_msg_text(r->chat->arena, &content);
    if (!only_text) {
        result->parts = content.parts;
        result->n_parts = content.n_parts;
    }
}

static int read_result(reader *r, const struct block *b)
{
    struct cm_part part = {.kind = CM_PART_TOOL_RESULT};
    struct cm_msg msg = {.role = CM_ROLE_TOOL, .n_parts = 1};
    yyjson_val *content = cm_json_opt(b->v, "content");

    if (cm_field_need_str(cm_json_get(b->v, "tool_use_id"), CM_SPOT(b->at, "tool_use_id"), &part.id,
                          r->err) ||
        cm_field_bool(cm_json_get(b->v, "is_error"), CM_SPOT(b->at, "is_error"), &part.failed,
                      r->err) ||
        cm_anthropic_read_cache(r, b->v, b->at, &part.cache))
        return -1;
    part.id = cm_tool_id_plain(r->chat->arena, part.id);
    if (yyjson_is_str(content))
        part.text = cm_json_str(content);
    else if (content && read_blocks(r, content, CM_SPOT(b->at, "content"), IN_RESULT, &r->inner))
        return -1;
    else
        put_result(r, &part);
    if (!cm_map_del(&r->calls, part.id))
        cm_anthropic_untranslatable(
            r, b->at,
            "unexpected `tool_use_id` found in `tool_result` blocks: " CM_PRI
            ". Each `tool_result` block must have a corresponding `tool_use` block in the "
            "previous message.",
            CM_ARG(cm_utf8_head(part.id, 64)));
    msg.parts = CM_ARENA_NEW(r->chat->arena, struct cm_part);
    *msg.parts = part;
    cm_buf_append(&r->msgs, cm_str((const char *)&msg, sizeof(msg)));
    return 0;
}

/* What Anthropic's own tools left behind: others do without it. */
static int drop_block(reader *r, const struct block *b)
{
    cm_chat_drop(r->chat, cm_json_str(cm_json_get(b->v, "type")));
    return 0;
}

static const struct block_type {
    struct cm_str name;
    unsigned places;
    int (*read)(reader *r, const struct block *b);
} block_types[] = {
    {CM_S_INIT("text"), IN_SYSTEM | IN_USER | IN_ASSISTANT | IN_RESULT | IN_DOCUMENT, read_text},
    {CM_S_INIT("image"), IN_USER | IN_RESULT | IN_DOCUMENT, read_image},
    {CM_S_INIT("document"), IN_USER | IN_RESULT, read_document},
    {CM_S_INIT("search_result"), IN_USER | IN_RESULT, read_search_result},
    {CM_S_INIT("tool_result"), IN_USER, read_result},
    {CM_S_INIT("tool_use"), IN_ASSISTANT, read_call},
    {CM_S_INIT("thinking"), IN_ASSISTANT, read_thinking},
    {CM_S_INIT("redacted_thinking"), IN_ASSISTANT, read_redacted},
    {CM_S_INIT("server_tool_use"), IN_ASSISTANT, drop_block},
    {CM_S_INIT("web_search_tool_result"), IN_ASSISTANT, drop_block},
    {CM_S_INIT("web_fetch_tool_result"), IN_ASSISTANT, drop_block},
    {CM_S_INIT("code_execution_tool_result"), IN_ASSISTANT, drop_block},
    {CM_S_INIT("bash_code_execution_tool_result"), IN_ASSISTANT, drop_block},
    {CM_S_INIT("text_editor_code_execution_tool_result"), IN_ASSISTANT, drop_block},
    {CM_S_INIT("tool_search_tool_result"), IN_ASSISTANT, drop_block},
    {CM_S_INIT("mcp_tool_use"), IN_ASSISTANT, drop_block},
    {CM_S_INIT("mcp_tool_result"), IN_ASSISTANT, drop_block},
};

static int read_block(reader *r, const struct block *b)
{
    struct cm_str type;

    if (!yyjson_is_obj(b->v))
        return cm_field_wrong_type(r->err, b->at, "an object", b->v);
    if (cm_field_need_str(cm_json_get(b->v, "type"), CM_SPOT(b->at, "type"), &type, r->err))
        return -1;
    for (size_t i = 0; i < CM_COUNT(block_types); i++) {
        if ((block_types[i].places & b->place) && cm_str_eq(block_types[i].name, type))
            return block_types[i].read(r, b);
    }
    cm_anthropic_untranslatable(r, CM_SPOT(b->at, "type"),
                                "a block of type \"" CM_PRI "\" is not understood here",
                                CM_ARG(cm_utf8_head(type, 40)));
    return 0;
}

static int read_blocks(reader *r, yyjson_val *content, const struct cm_spot *at, enum place place,
                       struct cm_buf *list)
{
    size_t i, max;
    yyjson_val *v;

    if (!content)
        return cm_field_missing(r->err, at);
    if (!yyjson_is_arr(content))
        return cm_field_wrong_type(r->err, at, "a string or an array of objects", content);
    yyjson_arr_foreach(content, i, max, v)
    {
        const struct block b = {v, CM_SPOT_AT(at, i), place, list};

        if (read_block(r, &b))
            return -1;
    }
    return 0;
}

/* ---- Messages ---- */

/* A string, or blocks, into r->parts. */
static int read_content(reader *r, yyjson_val *content, const struct cm_spot *at, enum place place)
{
    const struct cm_part text = {.kind = CM_PART_TEXT, .text = cm_json_str(content)};

    if (!yyjson_is_str(content))
        return read_blocks(r, content, at, place, &r->parts);
    push(&r->parts, &text);
    return 0;
}

static void put_message(reader *r, enum cm_role role)
{
    struct cm_msg msg = {.role = role};

    msg.parts = cm_anthropic_settle(r, &r->parts, sizeof(*msg.parts), &msg.n_parts);
    cm_buf_append(&r->msgs, cm_str((const char *)&msg, sizeof(msg)));
}

int cm_anthropic_read_system(reader *r, yyjson_val *system)
{
    const struct cm_spot *at = CM_SPOT(NULL, "system");

    if (!system)
        return 0;
    if (read_content(r, system, at, IN_SYSTEM))
        return -1;
    if (r->parts.n > 0)
        put_message(r, CM_ROLE_SYSTEM);
    return 0;
}

/* Every call of the assistant's message has had its result before another role than the user's
 * speaks. */
static void close_calls(reader *r, const struct cm_spot *at)
{
    size_t pos = 0;
    const struct cm_map_slot *slot = cm_map_next(&r->calls, &pos);

    if (!slot)
        return;
    cm_anthropic_untranslatable(
        r, at,
        "`tool_use` ids were found without `tool_result` blocks immediately after: " CM_PRI
        ". Each `tool_use` block must have a corresponding `tool_result` block in the next "
        "message.",
        CM_ARG(cm_utf8_head(slot->key, 64)));
    cm_map_clear(&r->calls);
}

static int read_message(reader *r, yyjson_val *v, const struct cm_spot *at, bool last)
{
    static const struct {
        struct cm_str name;
        enum cm_role role;
        enum place place;
    } roles[] = {
        {CM_S_INIT("user"), CM_ROLE_USER, IN_USER},
        {CM_S_INIT("assistant"), CM_ROLE_ASSISTANT, IN_ASSISTANT},
        {CM_S_INIT("system"), CM_ROLE_SYSTEM, IN_SYSTEM},
    };
    const size_t before = r->msgs.n;
    struct cm_str name;

    if (!yyjson_is_obj(v))
        return cm_field_wrong_type(r->err, at, "an object", v);
    if (cm_field_need_str(cm_json_get(v, "role"), CM_SPOT(at, "role"), &name, r->err))
        return -1;
    for (size_t i = 0; i < CM_COUNT(roles); i++) {
        if (!cm_str_eq(roles[i].name, name))
            continue;
        if (roles[i].role != CM_ROLE_USER)
            close_calls(r, at);
        if (read_content(r, cm_json_opt(v, "content"), CM_SPOT(at, "content"), roles[i].place))
            return -1;
        if (r->parts.n > 0)
            put_message(r, roles[i].role);
        else if (r->msgs.n == before && !(last && roles[i].role == CM_ROLE_ASSISTANT))
            cm_anthropic_untranslatable(r, CM_SPOT(at, "content"),
                                        "all messages must have non-empty content");
        return 0;
    }
    return cm_field_wrong_value(r->err, CM_SPOT(at, "role"), name, "'user' and 'assistant'");
}

int cm_anthropic_read_messages(reader *r, yyjson_val *messages)
{
    const struct cm_spot *at = CM_SPOT(NULL, "messages");
    const size_t count = yyjson_arr_size(messages);
    size_t i, max;
    yyjson_val *v;

    if (!messages)
        return cm_field_missing(r->err, at);
    if (cm_field_is_array(messages, at, r->err))
        return -1;
    if (count == 0)
        return cm_field_fail(r->err, at, NULL, "at least one message is required");
    yyjson_arr_foreach(messages, i, max, v)
    {
        if (read_message(r, v, CM_SPOT_AT(at, i), i + 1 == count))
            return -1;
    }
    close_calls(r, CM_SPOT_AT(at, count - 1));
    r->chat->msgs = cm_anthropic_settle(r, &r->msgs, sizeof(*r->chat->msgs), &r->chat->n_msgs);
    return 0;
}
