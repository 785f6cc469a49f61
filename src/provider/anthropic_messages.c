/* Canonical messages -> `messages` (protocol notes of Anthropic, section 6).
 *
 * Messages of one role that follow each other become one, so that all results of a turn stand in one
 * user message, before its text. The conversation begins with the user. Thinking that the client could
 * not carry is put back in front of its calls. */
#include "anthropic_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

struct writer {
    struct cm_run *run;
    struct cm_buf *out;
    struct cm_err *err;
    enum { NOBODY, USER, ASSISTANT } speaker; /* of the message that is open */
    bool some;                                /* it has a block already */
    bool first;                               /* no message has been begun */
};

/* ---- Messages and blocks ---- */

static void close_message(struct writer *w)
{
    if (w->speaker != NOBODY)
        cm_buf_append(w->out, CM_S("]}"));
    w->speaker = NOBODY;
}

static void open_message(struct writer *w, int speaker)
{
    if ((int)w->speaker == speaker)
        return;
    close_message(w);
    if (w->first && speaker == ASSISTANT) /* the first one has to be the user's */
        cm_buf_append(w->out, CM_S("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
                                   "\".\"}]},"));
    else if (!w->first)
        cm_buf_put(w->out, ',');
    cm_buf_append(w->out, speaker == USER ? CM_S("{\"role\":\"user\",\"content\":[")
                                          : CM_S("{\"role\":\"assistant\",\"content\":["));
    w->speaker = speaker == USER ? USER : ASSISTANT;
    w->some = false;
    w->first = false;
}

/* Before a block of this speaker's. */
static void begin_block(struct writer *w, int speaker)
{
    open_message(w, speaker);
    if (w->some)
        cm_buf_put(w->out, ',');
    w->some = true;
}

/* The closing brace of a block, and its breakpoint. */
static void end_block(struct writer *w, struct cm_str cache)
{
    if (cache.n > 0) {
        cm_buf_append(w->out, CM_S(",\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":"));
        cm_json_put_str(w->out, cache);
        cm_buf_put(w->out, '}');
    }
    cm_buf_put(w->out, '}');
}

static bool is_blank(struct cm_str text)
{
    return cm_str_trim(text).n == 0;
}

static void put_text(struct writer *w, int speaker, struct cm_str text, struct cm_str cache)
{
    if (is_blank(text))
        return; /* refused, and says nothing */
    begin_block(w, speaker);
    cm_buf_append(w->out, CM_S("{\"type\":\"text\",\"text\":"));
    cm_json_put_str(w->out, text);
    end_block(w, cache);
}

/* `what` is said about the content. */
static int unsupported(struct writer *w, const char *said, struct cm_str what)
{
    cm_fail_param(w->err, CM_ERR_BAD_REQUEST, "messages", "%s (" CM_PRI ")", said,
                  CM_ARG(cm_utf8_head(what, 60)));
    cm_str_copy(w->err->code, sizeof(w->err->code), CM_S("unsupported_content"));
    return -1;
}

/* "source":{…} of an image or a document in base64, or at an address. */
static void put_source(struct writer *w, const struct cm_part *part, struct cm_str media_type)
{
    if (part->url.n > 0) {
        cm_buf_append(w->out, CM_S("\"source\":{\"type\":\"url\",\"url\":"));
        cm_json_put_str(w->out, part->url);
    } else {
        cm_buf_append(w->out, CM_S("\"source\":{\"type\":\"base64\",\"media_type\":"));
        cm_json_put_str(w->out, media_type);
        cm_buf_append(w->out, CM_S(",\"data\":"));
        cm_json_put_str(w->out, part->data);
    }
    cm_buf_put(w->out, '}');
}

static int put_image(struct writer *w, int speaker, const struct cm_part *part)
{
    struct cm_str type = part->media_type;

    if (part->url.n == 0 && part->data.n == 0)
        return unsupported(w, "this model takes no picture that is only named", part->id);
    if (cm_str_eq_nocase(type, CM_S("image/jpg")))
        type = CM_S("image/jpeg");
    if (speaker != NOBODY)
        begin_block(w, speaker);
    cm_buf_append(w->out, CM_S("{\"type\":\"image\","));
    put_source(w, part, type);
    end_block(w, part->cache);
    return 0;
}

static void put_title(struct writer *w, const struct cm_part *part)
{
    if (part->name.n > 0) {
        cm_buf_append(w->out, CM_S(",\"title\":"));
        cm_json_put_str(w->out, part->name);
    }
    if (part->context.n > 0) {
        cm_buf_append(w->out, CM_S(",\"context\":"));
        cm_json_put_str(w->out, part->context);
    }
}

static int put_file(struct writer *w, int speaker, const struct cm_part *part)
{
    const bool is_text = cm_str_starts_nocase(part->media_type, CM_S("text/"));
    struct cm_buf text = {0};

    if (cm_str_starts_nocase(part->media_type, CM_S("image/")))
        return put_image(w, speaker, part);
    if (part->url.n == 0 && part->data.n == 0)
        return unsupported(w, "this model cannot reach files of another platform", part->id);
    if (part->data.n > 0 && !is_text &&
        !cm_str_eq_nocase(part->media_type, CM_S("application/pdf")))
        return unsupported(
            w, "this model takes files of the types application/pdf and text/plain only",
            part->media_type);
    if (is_text && part->data.n > 0 && cm_base64_decode(&text, part->data) < 0) {
        cm_buf_clear(&text);
        return unsupported(w, "the data of a file is no base64", part->name);
    }
    if (speaker != NOBODY)
        begin_block(w, speaker);
    cm_buf_append(w->out, CM_S("{\"type\":\"document\","));
    if (is_text && part->data.n > 0) {
        cm_buf_append(w->out, CM_S("\"source\":{\"type\":\"text\",\"media_type\":\"text/plain\","
                                   "\"data\":"));
        cm_json_put_str(w->out, cm_buf_str(&text));
        cm_buf_put(w->out, '}');
    } else {
        put_source(w, part, CM_S("application/pdf"));
    }
    cm_buf_clear(&text);
    put_title(w, part);
    end_block(w, part->cache);
    return 0;
}

/* ---- Calls and results ---- */

static struct cm_str safe_id(struct writer *w, struct cm_str id)
{
    return cm_tool_id_safe(cm_run_arena(w->run), id, ANTHROPIC_ID_MAX);
}

/* An object, whatever an earlier model wrote. */
static void put_input(struct cm_buf *out, struct cm_str args)
{
    const struct cm_str text = cm_str_trim(args);
    yyjson_doc *doc;

    if (text.n == 0) {
        cm_buf_append(out, CM_S("{}"));
        return;
    }
    doc = cm_json_parse(text, &cm_json_limits_request, NULL);
    if (yyjson_is_obj(yyjson_doc_get_root(doc))) {
        cm_buf_append(out, text);
    } else {
        cm_buf_append(out, CM_S("{\"raw\":"));
        cm_json_put_str(out, args);
        cm_buf_put(out, '}');
    }
    yyjson_doc_free(doc);
}

static void put_call(struct writer *w, const struct cm_part *call)
{
    begin_block(w, ASSISTANT);
    cm_buf_append(w->out, CM_S("{\"type\":\"tool_use\",\"id\":"));
    cm_json_put_str(w->out, safe_id(w, call->id));
    cm_buf_append(w->out, CM_S(",\"name\":"));
    cm_json_put_str(w->out, anthropic_name(cm_run_arena(w->run), call->name));
    cm_buf_append(w->out, CM_S(",\"input\":"));
    put_input(w->out, call->text);
    end_block(w, call->cache);
}

/* The parts of a result that has more than text. */
static int put_result_parts(struct writer *w, const struct cm_part *result)
{
    bool some = false;

    for (size_t i = 0; i < result->n_parts; i++) {
        const struct cm_part *p = &result->parts[i];

        if (p->kind == CM_PART_TEXT && is_blank(p->text))
            continue;
        if (some)
            cm_buf_put(w->out, ',');
        some = true;
        if (p->kind == CM_PART_TEXT) {
            cm_buf_append(w->out, CM_S("{\"type\":\"text\",\"text\":"));
            cm_json_put_str(w->out, p->text);
            end_block(w, p->cache);
        } else if (p->kind == CM_PART_IMAGE ? put_image(w, NOBODY, p) : put_file(w, NOBODY, p)) {
            return -1;
        }
    }
    return 0;
}

static int put_result(struct writer *w, const struct cm_part *result)
{
    begin_block(w, USER);
    cm_buf_append(w->out, CM_S("{\"type\":\"tool_result\",\"tool_use_id\":"));
    cm_json_put_str(w->out, safe_id(w, result->id));
    if (result->n_parts > 0) {
        cm_buf_append(w->out, CM_S(",\"content\":["));
        if (put_result_parts(w, result))
            return -1;
        cm_buf_put(w->out, ']');
    } else if (!is_blank(result->text)) {
        cm_buf_append(w->out, CM_S(",\"content\":"));
        cm_json_put_str(w->out, result->text);
    }
    if (result->failed)
        cm_buf_append(w->out, CM_S(",\"is_error\":true"));
    end_block(w, result->cache);
    return 0;
}

/* ---- The conversation ---- */

static int put_part(struct writer *w, int speaker, const struct cm_part *part)
{
    switch (part->kind) {
    case CM_PART_TEXT:
    case CM_PART_REFUSAL:
        put_text(w, speaker, part->text, part->cache);
        return 0;
    case CM_PART_IMAGE:
        return put_image(w, speaker, part);
    case CM_PART_FILE:
        return put_file(w, speaker, part);
    case CM_PART_AUDIO:
        return unsupported(w, "this model takes no sound", part->media_type);
    case CM_PART_TOOL_CALL:
        put_call(w, part);
        return 0;
    case CM_PART_TOOL_RESULT:
        return put_result(w, part);
    case CM_PART_REASONING: /* of another platform, or without its signature */
        break;
    }
    return 0;
}

/* As the platform gave it, where that is known; true: with its thinking. */
static bool put_kept(struct writer *w, const struct cm_msg *msg)
{
    const struct cm_str kept = anthropic_kept(w->run, msg);

    if (kept.n == 0)
        return false;
    begin_block(w, ASSISTANT);
    cm_buf_append(w->out, kept);
    return true;
}

static bool calls_something(const struct cm_msg *msg)
{
    for (size_t i = 0; i < msg->n_parts; i++) {
        if (msg->parts[i].kind == CM_PART_TOOL_CALL)
            return true;
    }
    return false;
}

/* The text of a prefill must not end in white space. */
static void put_prefill(struct writer *w, const struct cm_msg *msg)
{
    for (size_t i = 0; i < msg->n_parts; i++) {
        struct cm_part part = msg->parts[i];

        if (i + 1 == msg->n_parts && part.kind == CM_PART_TEXT) {
            while (part.text.n > 0 && cm_str_trim(cm_str(part.text.p + part.text.n - 1, 1)).n == 0)
                part.text.n--;
        }
        put_part(w, ASSISTANT, &part);
    }
}

static int put_message(struct writer *w, const struct cm_msg *msg, bool last, bool *thought)
{
    const int speaker = msg->role == CM_ROLE_ASSISTANT ? ASSISTANT : USER;

    if (msg->role == CM_ROLE_SYSTEM || msg->role == CM_ROLE_DEVELOPER)
        return 0; /* in `system` */
    if (speaker == ASSISTANT) {
        const bool calls = calls_something(msg);

        if (calls && put_kept(w, msg)) {
            *thought = true;
            return 0;
        }
        *thought = !calls;
        if (last) {
            put_prefill(w, msg);
            return 0;
        }
    }
    for (size_t i = 0; i < msg->n_parts; i++) {
        if (put_part(w, speaker, &msg->parts[i]))
            return -1;
    }
    return 0;
}

int anthropic_put_messages(struct cm_run *run, struct cm_buf *out, bool *thought,
                           struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    struct writer w = {.run = run, .out = out, .err = err, .first = true};

    *thought = true;
    cm_buf_append(out, CM_S("\"messages\":["));
    for (size_t i = 0; i < chat->n_msgs; i++) {
        if (put_message(&w, &chat->msgs[i], i + 1 == chat->n_msgs, thought))
            return -1;
    }
    if (w.first) /* nobody has said anything */
        put_text(&w, USER, CM_S("."), CM_STR_NONE);
    close_message(&w);
    cm_buf_put(out, ']');
    return 0;
}

/* ---- What came from us ---- */

static bool is_ours(yyjson_val *block)
{
    return cm_str_eq(cm_json_str(cm_json_get(block, "type")), CM_S("thinking")) &&
           cm_json_str(cm_json_get(block, "signature")).n == 0;
}

static void put_member(struct cm_buf *out, yyjson_val *key, bool *some)
{
    if (*some)
        cm_buf_put(out, ',');
    *some = true;
    cm_json_put_val(out, key);
    cm_buf_put(out, ':');
}

/* The message without those blocks; nothing when it consisted of them. */
static bool put_clean(struct cm_buf *out, yyjson_val *msg)
{
    yyjson_val *content = cm_json_get(msg, "content"), *v, *key;
    yyjson_obj_iter it = yyjson_obj_iter_with(msg);
    size_t i, n, left = 0;
    bool some = false, some_block = false;

    yyjson_arr_foreach(content, i, n, v) left += !is_ours(v);
    if (yyjson_is_arr(content) && left == 0 && n > 0)
        return false;
    cm_buf_put(out, '{');
    while ((key = yyjson_obj_iter_next(&it))) {
        put_member(out, key, &some);
        if (yyjson_obj_iter_get_val(key) != content || !yyjson_is_arr(content)) {
            cm_json_put_val(out, yyjson_obj_iter_get_val(key));
            continue;
        }
        cm_buf_put(out, '[');
        yyjson_arr_foreach(content, i, n, v)
        {
            if (is_ours(v))
                continue;
            if (some_block)
                cm_buf_put(out, ',');
            some_block = true;
            cm_json_put_val(out, v);
        }
        cm_buf_put(out, ']');
    }
    cm_buf_put(out, '}');
    return true;
}

static bool has_ours(const struct cm_chat *chat)
{
    for (size_t i = 0; i < chat->n_msgs; i++) {
        for (size_t k = 0; k < chat->msgs[i].n_parts; k++) {
            const struct cm_part *p = &chat->msgs[i].parts[k];

            if (p->kind == CM_PART_REASONING && !p->redacted && p->signature.n == 0)
                return true;
        }
    }
    return false;
}

struct cm_str anthropic_without_ours(struct cm_run *run)
{
    const struct cm_chat *chat = cm_run_chat(run);
    struct cm_json_edit edit = {.key = CM_S("messages")};
    struct cm_buf messages = {0}, out = {0};
    yyjson_doc *doc;
    yyjson_val *v;
    bool some = false;
    size_t i, n;

    if (!has_ours(chat))
        return CM_STR_NONE;
    doc = cm_json_parse(chat->raw, &cm_json_limits_request, NULL);
    cm_buf_put(&messages, '[');
    yyjson_arr_foreach(cm_json_get(yyjson_doc_get_root(doc), "messages"), i, n, v)
    {
        const size_t before = messages.n;

        if (some)
            cm_buf_put(&messages, ',');
        if (put_clean(&messages, v))
            some = true;
        else
            messages.n = before;
    }
    cm_buf_put(&messages, ']');
    edit.value = cm_buf_str(&messages);
    cm_json_splice(chat->raw, &edit, 1, &out, NULL);
    yyjson_doc_free(doc);
    cm_buf_clear(&messages);
    return cm_buf_settle(&out, cm_run_arena(run));
}
