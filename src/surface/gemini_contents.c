/* Contents of a Gemini request -> canonical messages. Protocol notes, sections 2 and 6.
 *
 * Function calls get an id when they have none, made of place, name and arguments, so that it is the same whenever the conversation comes back; results
 * find their call by id, else by place. */
#include "gemini_int.h"

#include "chatmux/base/crypto.h"
#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"

typedef struct cm_gemini_reader reader;

static void push_part(reader *r, const struct cm_part *part)
{
    cm_buf_append(&r->parts, cm_str((const char *)part, sizeof(*part)));
}

/* A message of what was pushed; none when that was nothing. */
static struct cm_msg *push_msg(reader *r, enum cm_role role)
{
    struct cm_msg msg = {.role = role, .n_parts = r->parts.n / sizeof(struct cm_part)};

    if (msg.n_parts == 0)
        return NULL;
    msg.parts = cm_arena_alloc(r->chat->arena, r->parts.n);
    memcpy(msg.parts, r->parts.p, r->parts.n);
    cm_buf_reset(&r->parts);
    cm_buf_append(&r->msgs, cm_str((const char *)&msg, sizeof(msg)));
    return (struct cm_msg *)(void *)(r->msgs.p + r->msgs.n) - 1;
}

/* Of n parts of the model's: how many texts from the first one on belong together. A text with a signature stands alone. */
static size_t texts_in_row(const struct cm_part *parts, size_t n)
{
    size_t i = 0;

    while (i < n && parts[i].kind == CM_PART_TEXT && parts[i].signature.n == 0)
        i++;
    return i;
}

static struct cm_str joined(struct cm_arena *arena, const struct cm_part *parts, size_t n)
{
    size_t bytes = 0, at = 0;
    char *text;

    for (size_t i = 0; i < n; i++)
        bytes += parts[i].text.n;
    text = cm_arena_alloc(arena, bytes);
    for (size_t i = 0; i < n; at += parts[i++].text.n)
        memcpy(text + at, parts[i].text.p, parts[i].text.n);
    return cm_str(text, bytes);
}

/* Clients send back the pieces of a stream as they came, each a part: they are one text. */
static void join_texts(reader *r)
{
    struct cm_part *parts = (void *)r->parts.p;
    const size_t n = r->parts.n / sizeof(*parts);
    size_t kept = 0;

    for (size_t i = 0; i < n;) {
        const size_t row = texts_in_row(parts + i, n - i);
        struct cm_part part = parts[i];

        if (row > 1)
            part.text = joined(r->chat->arena, parts + i, row);
        parts[kept++] = part;
        i += row > 1 ? row : 1;
    }
    r->parts.n = kept * sizeof(*parts);
}

/* ---- blobs and files ---- */

static bool is_url_alphabet(struct cm_str base64)
{
    return cm_str_find_char(base64, '-') != SIZE_MAX || cm_str_find_char(base64, '_') != SIZE_MAX;
}

/* Bytes come in either alphabet of base64; everybody else knows one. */
static struct cm_str plain_base64(struct cm_arena *arena, struct cm_str given)
{
    struct cm_buf bytes = {0}, out = {0};

    if (is_url_alphabet(given) && cm_base64_decode(&bytes, given) == 0) {
        cm_base64(&out, cm_buf_str(&bytes));
        given = cm_buf_settle(&out, arena);
    }
    cm_buf_clear(&bytes);
    return given;
}

/* "audio/x-wav" -> "wav", as OpenAI calls it; others stay whole. */
static struct cm_str sound_type(struct cm_str type)
{
    static const struct {
        struct cm_str type, name;
    } known[] = {
        {CM_S_INIT("audio/wav"), CM_S_INIT("wav")},  {CM_S_INIT("audio/x-wav"), CM_S_INIT("wav")},
        {CM_S_INIT("audio/wave"), CM_S_INIT("wav")}, {CM_S_INIT("audio/mp3"), CM_S_INIT("mp3")},
        {CM_S_INIT("audio/mpeg"), CM_S_INIT("mp3")},
    };

    for (size_t i = 0; i < CM_COUNT(known); i++) {
        if (cm_str_eq_nocase(known[i].type, type))
            return known[i].name;
    }
    return type;
}

/* A document of plain text is text for everybody. False: it is none. */
static bool as_text(reader *r, struct cm_part *part)
{
    struct cm_buf bytes = {0};
    bool ok = cm_str_starts_nocase(part->media_type, CM_S("text/")) &&
              cm_base64_decode(&bytes, part->data) == 0 &&
              cm_utf8_valid(cm_buf_str(&bytes)) == bytes.n;

    if (ok)
        *part = (struct cm_part){.kind = CM_PART_TEXT,
                                 .text = cm_arena_str(r->chat->arena, cm_buf_str(&bytes))};
    cm_buf_clear(&bytes);
    return ok;
}

static int read_blob(reader *r, yyjson_val *v, const struct cm_spot *at, struct cm_part *part)
{
    if (cm_field_is_object(v, at, r->err) ||
        cm_field_need_str(cm_gemini_member(v, "mimeType"), CM_SPOT(at, "mimeType"),
                          &part->media_type, r->err) ||
        cm_field_need_str(cm_gemini_member(v, "data"), CM_SPOT(at, "data"), &part->data, r->err) ||
        cm_field_str(cm_gemini_member(v, "displayName"), CM_SPOT(at, "displayName"), &part->name,
                     r->err))
        return -1;
    if (as_text(r, part))
        return 0;
    part->data = plain_base64(r->chat->arena, part->data);
    if (cm_str_starts_nocase(part->media_type, CM_S("image/"))) {
        part->kind = CM_PART_IMAGE;
    } else if (cm_str_starts_nocase(part->media_type, CM_S("audio/"))) {
        part->kind = CM_PART_AUDIO;
        part->media_type = sound_type(part->media_type);
    } else {
        part->kind = CM_PART_FILE;
    }
    return 0;
}

static bool has_ending(struct cm_str url, const char *const *endings)
{
    struct cm_str path = cm_str_head(url, cm_str_find_char(url, '?'));

    for (; *endings; endings++) {
        struct cm_str end = cm_str_of(*endings);

        if (path.n > end.n && cm_str_eq_nocase(cm_str_from(path, path.n - end.n), end))
            return true;
    }
    return false;
}

static int read_file(reader *r, yyjson_val *v, const struct cm_spot *at, struct cm_part *part)
{
    static const char *const pictures[] = {".png", ".jpg", ".jpeg", ".gif", ".webp", NULL};
    const struct cm_spot *uri_spot = CM_SPOT(at, "fileUri");

    if (cm_field_is_object(v, at, r->err) ||
        cm_field_need_str(cm_gemini_member(v, "fileUri"), uri_spot, &part->url, r->err) ||
        cm_field_str(cm_gemini_member(v, "mimeType"), CM_SPOT(at, "mimeType"), &part->media_type,
                     r->err) ||
        cm_field_str(cm_gemini_member(v, "displayName"), CM_SPOT(at, "displayName"), &part->name,
                     r->err))
        return -1;
    part->kind = cm_str_starts_nocase(part->media_type, CM_S("image/")) ||
                         (part->media_type.n == 0 && has_ending(part->url, pictures))
                     ? CM_PART_IMAGE
                     : CM_PART_FILE;
    if (!cm_str_starts_nocase(part->url, CM_S("http://")) &&
        !cm_str_starts_nocase(part->url, CM_S("https://")))
        cm_gemini_untranslatable(r, uri_spot, "only http(s) addresses reach this model's provider");
    else if (cm_str_has(part->url, CM_S("generativelanguage.googleapis.com")))
        cm_gemini_untranslatable(r, uri_spot,
                                 "files kept by Google do not reach this model's provider");
    return 0;
}

/* ---- calls and results ---- */

static struct cm_str made_id(reader *r, const struct cm_part *call)
{
    unsigned char digest[CM_SHA256_SIZE];
    struct cm_buf text = {0}, hex = {0};
    struct cm_str id;

    cm_buf_printf(&text, "%zu\n" CM_PRI "\n" CM_PRI, r->n_calls, CM_ARG(call->name),
                  CM_ARG(call->text));
    cm_sha256(cm_buf_str(&text), digest);
    cm_hex(&hex, cm_str((const char *)digest, 12));
    id = cm_arena_printf(r->chat->arena, "call_" CM_PRI, CM_ARG(cm_buf_str(&hex)));
    cm_buf_clear(&text);
    cm_buf_clear(&hex);
    return id;
}

static int read_call(reader *r, yyjson_val *v, const struct cm_spot *at, struct cm_part *part)
{
    yyjson_val *args = cm_gemini_member(v, "args");

    part->kind = CM_PART_TOOL_CALL;
    if (cm_field_is_object(v, at, r->err) ||
        cm_field_need_str(cm_gemini_member(v, "name"), CM_SPOT(at, "name"), &part->name, r->err) ||
        cm_field_str(cm_gemini_member(v, "id"), CM_SPOT(at, "id"), &part->id, r->err) ||
        cm_field_is_object(args, CM_SPOT(at, "args"), r->err))
        return -1;
    part->text = args ? cm_field_json(r->chat->arena, args) : CM_S("{}");
    if (part->id.n == 0)
        part->id = made_id(r, part);
    r->n_calls++;
    return 0;
}

/* {"name": "look", "content": …}: how the SDK `ai` puts what a tool said. */
static yyjson_val *named_content(yyjson_val *response, struct cm_str name)
{
    yyjson_val *content = cm_json_opt(response, "content");

    return content && yyjson_obj_size(response) == 2 &&
                   cm_str_eq(cm_json_str(cm_json_opt(response, "name")), name)
               ? content
               : NULL;
}

/* {"output": …}, {"result": …} or {"error": …}; anything else is the output as a whole. */
static void read_response(reader *r, yyjson_val *response, struct cm_part *part)
{
    yyjson_val *named = named_content(response, part->name);
    yyjson_val *error = cm_json_opt(response, "error"), *told = error;

    part->failed = error != NULL;
    if (!told)
        told = cm_json_opt(response, "output");
    if (!told)
        told = cm_json_opt(response, "result");
    if (named)
        told = named;
    if (yyjson_is_str(told))
        part->text = cm_json_str(told);
    else if (error || named || (told && yyjson_obj_size(response) == 1))
        part->text = cm_field_json(r->chat->arena, told);
    else
        part->text = cm_field_json(r->chat->arena, response);
}

/* The call that waits longest for a result of that name, or with that id. NULL: none. */
static struct cm_part *waiting_call(struct cm_msg *called, bool *answered, struct cm_str id,
                                    struct cm_str name)
{
    for (size_t i = 0; called && i < called->n_parts; i++) {
        struct cm_part *p = &called->parts[i];

        if (p->kind != CM_PART_TOOL_CALL || answered[i] ||
            !(id.n > 0 ? cm_str_eq(p->id, id) : cm_str_eq(p->name, name)))
            continue;
        answered[i] = true;
        return p;
    }
    return NULL;
}

/* Pictures and files beside the response. */
static int read_response_parts(reader *r, yyjson_val *list, const struct cm_spot *at,
                               struct cm_part *result)
{
    struct cm_buf parts = {0};
    int failed = cm_field_is_array(list, at, r->err);
    yyjson_val *v;
    size_t i, n;

    yyjson_arr_foreach(list, i, n, v)
    {
        struct cm_part part = {0};
        yyjson_val *blob = cm_gemini_member(v, "inlineData");

        if (failed || !blob)
            continue;
        failed = read_blob(r, blob, CM_SPOT(CM_SPOT_AT(at, i), "inlineData"), &part);
        cm_buf_append(&parts, cm_str((const char *)&part, sizeof(part)));
    }
    if (!failed && parts.n > 0) {
        result->n_parts = parts.n / sizeof(struct cm_part);
        result->parts = cm_arena_alloc(r->chat->arena, parts.n);
        memcpy(result->parts, parts.p, parts.n);
    }
    cm_buf_clear(&parts);
    return failed;
}

struct turn { /* of the model: its calls wait */
    struct cm_msg *called;
    bool *answered;
};

static int read_result(reader *r, yyjson_val *v, const struct cm_spot *at, struct turn *turn)
{
    yyjson_val *response = cm_gemini_member(v, "response");
    struct cm_part part = {.kind = CM_PART_TOOL_RESULT};
    const struct cm_part *call;

    if (cm_field_is_object(v, at, r->err) ||
        cm_field_need_str(cm_gemini_member(v, "name"), CM_SPOT(at, "name"), &part.name, r->err) ||
        cm_field_str(cm_gemini_member(v, "id"), CM_SPOT(at, "id"), &part.id, r->err) ||
        cm_field_is_object(response, CM_SPOT(at, "response"), r->err) ||
        read_response_parts(r, cm_gemini_member(v, "parts"), CM_SPOT(at, "parts"), &part))
        return -1;
    read_response(r, response, &part);
    push_msg(
        r, CM_ROLE_ASSISTANT); /* what is pending is the model's, with which this content is one */
    call = waiting_call(turn->called, turn->answered, part.id, part.name);
    if (!call)
        cm_gemini_untranslatable(r, CM_SPOT(at, "name"),
                                 "there is no function call that this response answers");
    else
        part.id = call->id;
    push_part(r, &part);
    push_msg(r, CM_ROLE_TOOL);
    return 0;
}

/* ---- parts ---- */

/* One part that is said; *said false: it has no place in a message. */
static int read_said(reader *r, yyjson_val *v, const struct cm_spot *at, struct cm_part *part,
                     bool *said)
{
    static const char *const unknown[] = {"toolCall", "toolResponse"};
    yyjson_val *text = cm_gemini_member(v, "text"), *blob = cm_gemini_member(v, "inlineData"),
               *file = cm_gemini_member(v, "fileData"), *call = cm_gemini_member(v, "functionCall");
    bool thought = false;

    *said = false;
    if (cm_field_bool(cm_gemini_member(v, "thought"), CM_SPOT(at, "thought"), &thought, r->err) ||
        cm_field_str(cm_gemini_member(v, "thoughtSignature"), CM_SPOT(at, "thoughtSignature"),
                     &part->signature, r->err) ||
        cm_field_str(text, CM_SPOT(at, "text"), &part->text, r->err))
        return -1;
    if (thought)
        return 0; /* nobody wants them back */
    *said = true;
    if (call)
        return read_call(r, call, CM_SPOT(at, "functionCall"), part);
    if (blob)
        return read_blob(r, blob, CM_SPOT(at, "inlineData"), part);
    if (file)
        return read_file(r, file, CM_SPOT(at, "fileData"), part);
    part->kind = CM_PART_TEXT;
    *said = part->text.n > 0;
    for (size_t i = 0; i < CM_COUNT(unknown); i++) {
        if (cm_gemini_member(v, unknown[i]))
            cm_gemini_untranslatable(r, CM_SPOT(at, unknown[i]),
                                     "this does not reach this model's provider");
    }
    return 0; /* executableCode and its results are Google's own: the text beside them stays */
}

/* Results first, then what was said beside them. */
static int read_parts(reader *r, yyjson_val *parts, const struct cm_spot *at, struct turn *turn)
{
    yyjson_val *v;
    size_t i, n;

    yyjson_arr_foreach(parts, i, n, v)
    {
        yyjson_val *result = cm_gemini_member(v, "functionResponse");

        if (!yyjson_is_obj(v))
            return cm_field_wrong_type(r->err, CM_SPOT_AT(at, i), "an object", v);
        if (result && read_result(r, result, CM_SPOT(CM_SPOT_AT(at, i), "functionResponse"), turn))
            return -1;
    }
    yyjson_arr_foreach(parts, i, n, v)
    {
        struct cm_part part = {0};
        bool said;

        if (cm_gemini_member(v, "functionResponse"))
            continue;
        if (read_said(r, v, CM_SPOT_AT(at, i), &part, &said))
            return -1;
        if (said)
            push_part(r, &part);
    }
    return 0;
}

/* ---- contents ---- */

static int read_role(reader *r, yyjson_val *v, const struct cm_spot *at, enum cm_role *role)
{
    struct cm_str name = CM_S("user");

    if (cm_field_str(cm_gemini_member(v, "role"), CM_SPOT(at, "role"), &name, r->err))
        return -1;
    *role = cm_str_eq(name, CM_S("model")) ? CM_ROLE_ASSISTANT : CM_ROLE_USER;
    if (*role == CM_ROLE_USER && name.n > 0 && !cm_str_eq(name, CM_S("user")) &&
        !cm_str_eq(name, CM_S("function")))
        return cm_field_fail(r->err, CM_SPOT(at, "role"), NULL,
                             "Please use a valid role: user, model.");
    return 0;
}

static bool is_model(const yyjson_val *content)
{
    return cm_str_eq(cm_json_str(cm_gemini_member(content, "role")), CM_S("model"));
}

/* `goes_on`: the next content is the model's, too, and is one message with this one: so are its calls answered. */
static int read_content(reader *r, yyjson_val *v, const struct cm_spot *at, struct turn *turn,
                        bool goes_on)
{
    const struct cm_spot *parts_spot = CM_SPOT(at, "parts");
    yyjson_val *parts = cm_gemini_member(v, "parts");
    struct cm_msg *msg;
    enum cm_role role;

    if (!yyjson_is_obj(v))
        return cm_field_wrong_type(r->err, at, "an object", v);
    if (read_role(r, v, at, &role) || cm_field_is_array(parts, parts_spot, r->err))
        return -1;
    if (yyjson_arr_size(parts) == 0)
        return cm_field_fail(r->err, parts_spot, NULL, "contents.parts must not be empty.");
    if (read_parts(r, parts, parts_spot, turn))
        return -1;
    if (role == CM_ROLE_ASSISTANT && goes_on)
        return 0;
    if (role == CM_ROLE_ASSISTANT)
        join_texts(r);
    msg = push_msg(r, role);
    if (role == CM_ROLE_ASSISTANT && msg) {
        /* the list of messages may move; a message's parts do not */
        turn->called = CM_ARENA_NEW(r->chat->arena, struct cm_msg);
        *turn->called = *msg;
        turn->answered = CM_ARENA_ARRAY(r->chat->arena, bool, msg->n_parts);
    }
    return 0;
}

int cm_gemini_read_contents(reader *r, yyjson_val *contents)
{
    const struct cm_spot *at = CM_SPOT(NULL, "contents");
    struct turn turn = {0};
    yyjson_arr_iter iter = yyjson_arr_iter_with(contents);
    yyjson_val *v, *next;
    size_t i = 0;

    if (!contents)
        return cm_field_fail(r->err, at, NULL, "contents is not specified");
    if (yyjson_is_str(contents) || yyjson_is_obj(contents) ||
        cm_field_is_array(contents, at, r->err))
        return cm_field_wrong_type(r->err, at, "an array", contents);
    if (yyjson_arr_size(contents) == 0)
        return cm_field_fail(r->err, at, NULL, "contents is not specified");
    for (v = yyjson_arr_iter_next(&iter); v; v = next, i++) {
        next = yyjson_arr_iter_next(&iter);
        if (read_content(r, v, CM_SPOT_AT(at, i), &turn, next && is_model(next)))
            return -1;
    }
    return 0;
}

int cm_gemini_read_system(reader *r, yyjson_val *v)
{
    const struct cm_spot *at = CM_SPOT(NULL, "systemInstruction"),
                         *parts_spot = CM_SPOT(at, "parts");
    yyjson_val *parts = cm_gemini_member(v, "parts"), *one;
    size_t i, n;

    if (!v)
        return 0;
    if (cm_field_is_object(v, at, r->err) || cm_field_is_array(parts, parts_spot, r->err))
        return -1;
    yyjson_arr_foreach(parts, i, n, one)
    {
        struct cm_part part = {.kind = CM_PART_TEXT};

        if (cm_field_str(cm_gemini_member(one, "text"), CM_SPOT(CM_SPOT_AT(parts_spot, i), "text"),
                         &part.text, r->err))
            return -1;
        if (part.text.n > 0)
            push_part(r, &part);
    }
    push_msg(r, CM_ROLE_SYSTEM);
    return 0;
}
