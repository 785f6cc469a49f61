/* Tools by prompt.
 *
 * The model is told the functions and writes calls as blocks,
 *
 *     <tool_call>
 *     {"name": "get_weather", "arguments": {"city": "Oslo"}}
 *     </tool_call>
 *
 * the form that open models are trained on. Earlier calls are shown to it in the same form, results as <tool_response> blocks. What it writes is
 * checked: JSON, with the name of a function that the client offers; anything else stays text. */
#include "tools_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"

#define CALL_MAX (1024u * 1024) /* a longer block is text */
#define ENDS_MAX 8              /* end marks within the texts of one call's arguments */
#define BLOCKS_MAX 64           /* after so many that were no calls no more are looked for */
#define SPACE_MAX 1024          /* white space that is held back, as it is left out before a call */

bool tools_are_wanted(const struct cm_chat *chat)
{
    return chat->n_tools > 0 && chat->tool_choice != CM_TOOLS_NONE;
}

/* ---- What the model is told ---- */

static void put_tool(struct cm_buf *out, const struct cm_tool *tool)
{
    cm_buf_append(out, CM_S("\n{\"name\": "));
    cm_json_put_str(out, tool->name);
    if (tool->description.n > 0) {
        cm_buf_append(out, CM_S(", \"description\": "));
        cm_json_put_str(out, tool->description);
    }
    if (tool->parameters.n > 0) {
        cm_buf_append(out, CM_S(", \"parameters\": "));
        cm_buf_append(out, tool->parameters);
    }
    cm_buf_put(out, '}');
}

static void put_prompt(struct cm_buf *out, const struct cm_chat *chat)
{
    cm_buf_append(out,
                  CM_S("You can call functions of the user's program. These are all there are, "
                       "with the JSON schema of their arguments:"));
    for (size_t i = 0; i < chat->n_tools; i++)
        put_tool(out, &chat->tools[i]);
    cm_buf_append(
        out,
        CM_S("\nTo call a function, write a block of exactly this form, in plain text, not in a "
             "code fence:\n" TOOLS_CALL_BEGIN
             "\n{\"name\": \"NAME\", \"arguments\": {…}}\n" TOOLS_CALL_END
             "\nOne block for each call, and nothing behind the last one: the results come with "
             "the next message as <tool_response> blocks. Never write such a block yourself, and "
             "never make up a result."));
    if (chat->parallel_tool_calls == 0)
        cm_buf_append(out, CM_S(" Call at most one function in an answer."));
    if (chat->tool_choice == CM_TOOLS_REQUIRED)
        cm_buf_append(out, CM_S(" This time you must call at least one function."));
    else if (chat->tool_choice == CM_TOOLS_NAMED)
        cm_buf_printf(out, " This time you must call the function " CM_PRI ".",
                      CM_ARG(chat->tool_name));
    else
        cm_buf_append(out, CM_S(" When no function is needed, answer as usual."));
}

void tools_put_call(struct cm_buf *out, struct cm_str name, struct cm_str arguments)
{
    cm_buf_append(out, CM_S(TOOLS_CALL_BEGIN "\n{\"name\": "));
    cm_json_put_str(out, name);
    cm_buf_append(out, CM_S(", \"arguments\": "));
    cm_buf_append(out, arguments.n > 0 ? arguments : CM_S("{}"));
    cm_buf_append(out, CM_S("}\n" TOOLS_CALL_END));
}

static void put_result(struct cm_buf *out, const struct cm_chat *chat, const struct cm_part *part)
{
    const struct cm_part *call = cm_chat_call_of(chat, part->id);
    const struct cm_str name = part->name.n > 0 ? part->name : call ? call->name : CM_STR_NONE;

    cm_buf_append(out, CM_S("<tool_response"));
    if (name.n > 0) {
        cm_buf_append(out, CM_S(" name="));
        cm_json_put_str(out, name);
    }
    cm_buf_printf(out, "%s>\n", part->failed ? " failed" : "");
    cm_buf_append(out, part->text);
    cm_buf_append(out, CM_S("\n</tool_response>"));
}

static struct cm_part text_part(struct cm_str text)
{
    return (struct cm_part){.kind = CM_PART_TEXT, .text = text};
}

/* Pictures and files among a result's parts stay parts, behind its text. */
static size_t copy_part(struct cm_arena *arena, const struct cm_chat *chat,
                        const struct cm_part *part, struct cm_part *to)
{
    struct cm_buf out = {0};
    size_t n = 1;

    *to = *part;
    if (part->kind == CM_PART_TOOL_CALL) {
        tools_put_call(&out, part->name, part->text);
        *to = text_part(cm_buf_settle(&out, arena));
    } else if (part->kind == CM_PART_TOOL_RESULT) {
        put_result(&out, chat, part);
        *to = text_part(cm_buf_settle(&out, arena));
        for (size_t i = 0; i < part->n_parts; i++) {
            if (part->parts[i].kind != CM_PART_TEXT)
                to[n++] = part->parts[i];
        }
    }
    return n;
}

static void copy_msg(struct cm_arena *arena, const struct cm_chat *chat, const struct cm_msg *msg,
                     struct cm_msg *to)
{
    size_t max = msg->n_parts;

    for (size_t i = 0; i < msg->n_parts; i++)
        max += msg->parts[i].n_parts;
    *to = *msg;
    if (to->role == CM_ROLE_TOOL)
        to->role = CM_ROLE_USER;
    to->parts = CM_ARENA_ARRAY(arena, struct cm_part, max);
    to->n_parts = 0;
    for (size_t i = 0; i < msg->n_parts; i++)
        to->n_parts += copy_part(arena, chat, &msg->parts[i], &to->parts[to->n_parts]);
}

struct cm_chat *tools_as_text(struct cm_arena *arena, const struct cm_chat *chat)
{
    struct cm_chat *copy = CM_ARENA_NEW(arena, struct cm_chat);
    struct cm_buf prompt = {0};
    struct cm_part *part = CM_ARENA_NEW(arena, struct cm_part);

    *copy = *chat;
    copy->tools = NULL;
    copy->n_tools = 0;
    copy->tool_choice = CM_TOOLS_UNSET;
    copy->n_msgs = chat->n_msgs + 1;
    copy->msgs = CM_ARENA_ARRAY(arena, struct cm_msg, copy->n_msgs);
    put_prompt(&prompt, chat);
    *part = text_part(cm_buf_settle(&prompt, arena));
    copy->msgs[0] = (struct cm_msg){.role = CM_ROLE_SYSTEM, .parts = part, .n_parts = 1};
    for (size_t i = 0; i < chat->n_msgs; i++)
        copy_msg(arena, chat, &chat->msgs[i], &copy->msgs[i + 1]);
    return copy;
}

/* ---- What it says ---- */

static const struct cm_str begin_mark = CM_S_INIT(TOOLS_CALL_BEGIN),
                           end_mark = CM_S_INIT(TOOLS_CALL_END);

void tools_reader_init(struct tools_reader *r, struct cm_arena *arena, const struct cm_chat *chat)
{
    *r = (struct tools_reader){.names = CM_ARENA_ARRAY(arena, struct cm_str, chat->n_tools),
                               .n_names = chat->n_tools,
                               .only_one = chat->parallel_tool_calls == 0};
    for (size_t i = 0; i < chat->n_tools; i++)
        r->names[i] = cm_arena_str(arena, chat->tools[i].name);
}

static bool offers(const struct tools_reader *r, struct cm_str name)
{
    for (size_t i = 0; i < r->n_names; i++) {
        if (cm_str_eq(r->names[i], name))
            return true;
    }
    return false;
}

static bool is_object(struct cm_str json)
{
    yyjson_doc *doc = cm_json_parse(json, &cm_json_limits_event, NULL);
    const bool fine = doc && yyjson_is_obj(yyjson_doc_get_root(doc));

    yyjson_doc_free(doc);
    return fine;
}

/* As the model spelled them; some write them as a text with JSON in it. */
static bool arguments_of(struct cm_str json, yyjson_val *root, struct cm_str *out)
{
    static const char *const names[] = {"arguments", "parameters"};

    *out = CM_S("{}");
    for (size_t i = 0; i < CM_COUNT(names); i++) {
        yyjson_val *v = cm_json_opt(root, names[i]);

        if (!v)
            continue;
        if (!yyjson_is_str(v)) {
            *out = cm_json_member(json, cm_str_of(names[i]));
            return yyjson_is_obj(v);
        }
        *out = cm_str_trim(cm_json_str(v));
        return is_object(*out);
    }
    return true;
}

/* Whether it is a call; if so it is told. */
static bool take_call(struct tools_reader *r, struct cm_str json, tools_found_fn *fn, void *arg)
{
    struct tools_found found = {.text = CM_STR_NONE};
    yyjson_doc *doc;
    bool fine;

    json = cm_str_trim(json);
    doc = cm_json_parse(json, &cm_json_limits_event, NULL);
    if (!doc)
        return false;
    found.name = cm_json_str(cm_json_get(yyjson_doc_get_root(doc), "name"));
    fine = offers(r, found.name) && arguments_of(json, yyjson_doc_get_root(doc), &found.arguments);
    if (fine && !(r->only_one && r->calls > 0)) {
        r->calls++;
        fn(arg, &found);
    }
    yyjson_doc_free(doc);
    return fine;
}

static struct cm_str held(const struct tools_reader *r)
{
    return cm_str_from(cm_buf_str(&r->held), r->done);
}

static void tell_text(struct tools_reader *r, size_t n, tools_found_fn *fn, void *arg)
{
    const struct tools_found found = {.text = cm_str_head(held(r), n)};

    if (n == 0)
        return;
    r->behind_call = false;
    fn(arg, &found);
    r->done += n;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Where the white space before `end` begins. */
static size_t before_space(struct cm_str text, size_t end)
{
    size_t n = end;

    CM_ASSERT(end == 0 || text.p);
    while (n > 0 && end - n < SPACE_MAX && is_space(text.p[n - 1]))
        n--;
    return n;
}

/* How much of the text cannot be a part of a call any more: all but white space and a beginning of the mark at its end. */
static size_t sure_text(struct cm_str text)
{
    size_t n = text.n;

    for (size_t k = n < begin_mark.n ? n : begin_mark.n - 1; k > 0; k--) {
        if (cm_str_starts(begin_mark, cm_str_from(text, text.n - k))) {
            n -= k;
            break;
        }
    }
    return before_space(text, n);
}

/* Behind and between calls white space means nothing. */
static void skip_space(struct tools_reader *r)
{
    while (r->done < r->held.n && is_space(r->held.p[r->done]))
        r->done++;
}

/* False: more has to come. */
static bool read_text(struct tools_reader *r, tools_found_fn *fn, void *arg)
{
    const struct cm_str text = held(r);
    size_t at = cm_str_find(text, begin_mark), n;

    if (at == SIZE_MAX) {
        tell_text(r, sure_text(text), fn, arg);
        return false;
    }
    n = before_space(text, at);
    tell_text(r, n, fn, arg);
    r->in_call = true;
    r->json_at = at - n + begin_mark.n;
    r->looked = r->json_at;
    r->ends = 0;
    return true;
}

static bool read_call(struct tools_reader *r, tools_found_fn *fn, void *arg)
{
    const struct cm_str text = held(r);
    const size_t from = r->looked, at = cm_str_find(cm_str_from(text, from), end_mark);
    struct cm_str json;

    if (at == SIZE_MAX && text.n <= CALL_MAX) {
        if (text.n > from + end_mark.n)
            r->looked = text.n - end_mark.n;
        return false;
    }
    if (at != SIZE_MAX) {
        json = cm_str_from(cm_str_head(text, from + at), r->json_at);
        if (take_call(r, json, fn, arg)) {
            r->done += from + at + end_mark.n;
            r->behind_call = true;
            r->in_call = false;
            return true;
        }
        r->looked = from + at + end_mark.n; /* the mark may stand in a text of the arguments */
        if (text.n <= CALL_MAX && ++r->ends < ENDS_MAX)
            return true;
    }
    r->in_call = false;
    r->no_calls++;
    tell_text(r, r->json_at, fn, arg);
    return true;
}

void tools_read(struct tools_reader *r, struct cm_str text, tools_found_fn *fn, void *arg)
{
    bool more = true;

    cm_buf_append(&r->held, text);
    while (more && r->done < r->held.n) {
        if (r->behind_call)
            skip_space(r);
        if (r->no_calls == BLOCKS_MAX)
            tell_text(r, held(r).n, fn, arg);
        else
            more = r->in_call ? read_call(r, fn, arg) : read_text(r, fn, arg);
    }
    if (r->done > 0) { /* once, however many calls there were */
        r->held.n -= r->done;
        memmove(r->held.p, r->held.p + r->done, r->held.n);
        r->done = 0;
    }
}

void tools_read_end(struct tools_reader *r, tools_found_fn *fn, void *arg)
{
    /* the last end mark is forgotten now and then */
    if (r->in_call && take_call(r, cm_str_from(cm_buf_str(&r->held), r->json_at), fn, arg))
        cm_buf_reset(&r->held);
    r->in_call = false;
    if (r->behind_call)
        skip_space(r);
    tell_text(r, held(r).n, fn, arg);
}

void tools_reader_clear(struct tools_reader *r)
{
    cm_buf_clear(&r->held);
}
