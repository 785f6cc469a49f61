/* An answer, streamed or whole -> canonical events (protocol notes of Anthropic, sections 3 and 6), and the
 * blocks that have to come back.
 *
 * Thinking before a call must be sent back unmodified, which a client of another dialect cannot do. So the
 * blocks of such an answer are kept, under the id of its first call, and put in the place of the client's
 * message when that comes back unchanged. */
#include "anthropic_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"

#define KEPT_MAX (1u << 20) /* bytes of one answer; longer ones are not kept */

/* ---- Keeping ---- */

static void keep_block(struct anthropic_answer *a)
{
    if (a->content.n > 0)
        cm_buf_put(&a->content, ',');
}

static void keep_text(struct anthropic_answer *a)
{
    if (a->text.n == 0)
        return;
    keep_block(a);
    cm_buf_append(&a->content, CM_S("{\"type\":\"text\",\"text\":"));
    cm_json_put_str(&a->content, cm_buf_str(&a->text));
    cm_buf_put(&a->content, '}');
    cm_buf_append(&a->all_text, cm_buf_str(&a->text));
}

static void keep_thinking(struct anthropic_answer *a)
{
    keep_block(a);
    cm_buf_append(&a->content, CM_S("{\"type\":\"thinking\",\"thinking\":"));
    cm_json_put_str(&a->content, cm_buf_str(&a->thought));
    cm_buf_append(&a->content, CM_S(",\"signature\":"));
    cm_json_put_str(&a->content, a->signature);
    cm_buf_put(&a->content, '}');
    a->sealed = true;
}

/* What cannot be sent back as it came is not kept at all. */
static void check_input(struct anthropic_answer *a, struct cm_str args)
{
    yyjson_doc *doc;

    if (args.n == 0)
        return;
    doc = cm_json_parse(args, &cm_json_limits_request, NULL);
    a->content.failed |= !yyjson_is_obj(yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
}

static void keep_call(struct anthropic_answer *a)
{
    const struct cm_str args = cm_str_trim(cm_buf_str(&a->args));

    check_input(a, args);
    keep_block(a);
    cm_buf_append(&a->content, CM_S("{\"type\":\"tool_use\",\"id\":"));
    cm_json_put_str(&a->content, a->id);
    cm_buf_append(&a->content, CM_S(",\"name\":"));
    cm_json_put_str(&a->content, a->name);
    cm_buf_append(&a->content, CM_S(",\"input\":"));
    cm_buf_append(&a->content, args.n > 0 ? args : CM_S("{}"));
    cm_buf_put(&a->content, '}');
    cm_buf_append(&a->ids, a->id);
    cm_buf_put(&a->ids, ' ');
}

/* Model, digest of the text, ids of the calls: by them the client's message is known again. */
static struct cm_str heading(struct cm_run *run, struct cm_str model, struct cm_str text,
                             struct cm_str ids)
{
    struct cm_buf out = {0};

    cm_buf_append(&out, model);
    cm_buf_put(&out, '\n');
    cm_hex(&out, cm_run_text_key(run, text));
    cm_buf_put(&out, '\n');
    cm_buf_append(&out, ids);
    cm_buf_put(&out, '\n');
    return cm_buf_settle(&out, cm_run_arena(run));
}

static void keep(struct cm_run *run, struct anthropic_answer *a)
{
    struct cm_buf value = {0};

    if (!a->sealed || a->first_id.n == 0 || a->content.failed || a->all_text.failed)
        return;
    cm_buf_append(&value, heading(run, a->model, cm_buf_str(&a->all_text), cm_buf_str(&a->ids)));
    cm_buf_append(&value, cm_buf_str(&a->content));
    cm_run_keep(run, a->first_id, cm_buf_str(&value));
    cm_buf_clear(&value);
}

struct cm_str anthropic_kept(struct cm_run *run, const struct cm_msg *msg)
{
    struct cm_buf text = {0}, ids = {0};
    struct cm_str first = CM_STR_NONE, value = CM_STR_NONE, head;

    for (size_t i = 0; i < msg->n_parts; i++) {
        const struct cm_part *p = &msg->parts[i];

        if (p->kind == CM_PART_TEXT) {
            cm_buf_append(&text, p->text);
        } else if (p->kind == CM_PART_TOOL_CALL) {
            if (first.n == 0)
                first = p->id;
            cm_buf_append(&ids, p->id);
            cm_buf_put(&ids, ' ');
        }
    }
    head = heading(run, cm_run_target(run)->model, cm_buf_str(&text), cm_buf_str(&ids));
    if (!cm_run_kept(run, first, &value) || !cm_str_starts(value, head))
        value = CM_STR_NONE;
    else
        value = cm_arena_str(cm_run_arena(run), cm_str_from(value, head.n));
    cm_buf_clear(&text);
    cm_buf_clear(&ids);
    return value;
}

/* ---- Blocks ---- */

static int64_t index_of(yyjson_val *root)
{
    yyjson_val *v = cm_json_get(root, "index");

    return yyjson_is_uint(v) && yyjson_get_uint(v) < INT32_MAX ? (int64_t)yyjson_get_uint(v) : -1;
}

static void say_args(struct cm_run *run, struct anthropic_answer *a, struct cm_str args)
{
    struct cm_event ev = {.kind = CM_EVENT_TOOL_ARGS, .index = a->n_calls - 1, .text = args};

    if (args.n == 0)
        return;
    if (a->keeps)
        cm_buf_append(&a->args, args);
    cm_run_emit(run, &ev);
}

static void say_text(struct cm_run *run, struct anthropic_answer *a, struct cm_str text)
{
    if (a->keeps)
        cm_buf_append(&a->text, text);
    cm_run_text(run, text);
}

static void say_thought(struct cm_run *run, struct anthropic_answer *a, struct cm_str text)
{
    if (a->keeps)
        cm_buf_append(&a->thought, text);
    cm_run_reasoning(run, text);
}

/* The client's own name for the function. */
static struct cm_str name_back(const struct anthropic_answer *a)
{
    for (size_t i = 0; i < a->n_renamed; i++) {
        if (cm_str_eq(a->renamed[i].sent, a->name))
            return a->renamed[i].name;
    }
    return a->name;
}

static void begin_call(struct cm_run *run, struct anthropic_answer *a, yyjson_val *block)
{
    struct cm_arena *arena = cm_run_arena(run);
    yyjson_val *input = cm_json_opt(block, "input");
    struct cm_event ev = {.kind = CM_EVENT_TOOL_CALL, .index = a->n_calls++};
    struct cm_buf args = {0};

    a->id = cm_arena_str(arena, cm_json_str(cm_json_get(block, "id")));
    a->name = cm_arena_str(arena, cm_json_str(cm_json_get(block, "name")));
    if (a->first_id.n == 0)
        a->first_id = a->id;
    ev.id = a->id;
    ev.name = name_back(a);
    cm_run_emit(run, &ev);
    a->has_input = yyjson_is_obj(input) && (a->whole || yyjson_obj_size(input) > 0);
    if (a->has_input) { /* in a stream: servers that only look like this one */
        cm_json_put_val(&args, input);
        say_args(run, a, cm_buf_str(&args));
    }
    cm_buf_clear(&args);
}

static void end_block(struct cm_run *run, struct anthropic_answer *a)
{
    const struct cm_event seal = {.kind = CM_EVENT_SIGNATURE, .text = a->signature};

    a->content.failed |= a->text.failed || a->thought.failed || a->args.failed;
    switch (a->kind) {
    case ANTHROPIC_TEXT:
        keep_text(a);
        break;
    case ANTHROPIC_THINKING:
        keep_thinking(a);
        cm_run_emit(run, &seal);
        break;
    case ANTHROPIC_CALL:
        keep_call(a);
        break;
    case ANTHROPIC_NO_BLOCK:
    case ANTHROPIC_OTHER:
        break;
    }
    a->kind = ANTHROPIC_NO_BLOCK;
    cm_buf_reset(&a->text);
    cm_buf_reset(&a->thought);
    cm_buf_reset(&a->args);
    a->signature = CM_STR_NONE;
}

static void redacted(struct cm_run *run, struct anthropic_answer *a, yyjson_val *block)
{
    const struct cm_event ev = {.kind = CM_EVENT_REDACTED,
                                .text = cm_json_str(cm_json_get(block, "data"))};

    keep_block(a);
    cm_buf_append(&a->content, CM_S("{\"type\":\"redacted_thinking\",\"data\":"));
    cm_json_put_str(&a->content, ev.text);
    cm_buf_put(&a->content, '}');
    a->sealed = true;
    cm_run_emit(run, &ev);
}

static void begin_block(struct cm_run *run, struct anthropic_answer *a, yyjson_val *block)
{
    const struct cm_str type = cm_json_str(cm_json_get(block, "type"));

    a->kind = ANTHROPIC_OTHER; /* of tools that the platform runs itself */
    if (cm_str_eq(type, CM_S("text"))) {
        a->kind = ANTHROPIC_TEXT;
        say_text(run, a, cm_json_str(cm_json_get(block, "text")));
    } else if (cm_str_eq(type, CM_S("thinking"))) {
        a->kind = ANTHROPIC_THINKING;
        a->signature =
            cm_arena_str(cm_run_arena(run), cm_json_str(cm_json_get(block, "signature")));
        say_thought(run, a, cm_json_str(cm_json_get(block, "thinking")));
    } else if (cm_str_eq(type, CM_S("redacted_thinking"))) {
        redacted(run, a, block);
    } else if (cm_str_eq(type, CM_S("tool_use"))) {
        a->kind = ANTHROPIC_CALL;
        begin_call(run, a, block);
    }
}

static void on_block_start(struct cm_run *run, struct anthropic_answer *a, yyjson_val *root)
{
    if (a->kind != ANTHROPIC_NO_BLOCK)
        end_block(run, a); /* its end was left out */
    a->block = index_of(root);
    begin_block(run, a, cm_json_get(root, "content_block"));
}

static void on_citation(struct cm_run *run, yyjson_val *citation)
{
    struct cm_event ev = {.kind = CM_EVENT_CITATION,
                          .url = cm_json_str(cm_json_get(citation, "url")),
                          .name = cm_json_str(cm_json_get(citation, "title")),
                          .text = cm_json_str(cm_json_get(citation, "cited_text"))};

    if (ev.url.n == 0) /* of a document, or a search result of the client's */
        ev.url = cm_json_str(cm_json_get(citation, "source"));
    if (ev.name.n == 0)
        ev.name = cm_json_str(cm_json_get(citation, "document_title"));
    if (ev.url.n > 0)
        cm_run_emit(run, &ev);
}

static void on_delta(struct cm_run *run, struct anthropic_answer *a, yyjson_val *root)
{
    yyjson_val *delta = cm_json_get(root, "delta");
    const struct cm_str type = cm_json_str(cm_json_get(delta, "type"));

    if (index_of(root) != a->block)
        return;
    if (cm_str_eq(type, CM_S("text_delta")) && a->kind == ANTHROPIC_TEXT)
        say_text(run, a, cm_json_str(cm_json_get(delta, "text")));
    else if (cm_str_eq(type, CM_S("input_json_delta")) && a->kind == ANTHROPIC_CALL &&
             !a->has_input)
        say_args(run, a, cm_json_str(cm_json_get(delta, "partial_json")));
    else if (cm_str_eq(type, CM_S("thinking_delta")) && a->kind == ANTHROPIC_THINKING)
        say_thought(run, a, cm_json_str(cm_json_get(delta, "thinking")));
    else if (cm_str_eq(type, CM_S("signature_delta")) && a->kind == ANTHROPIC_THINKING)
        a->signature =
            cm_arena_str(cm_run_arena(run), cm_json_str(cm_json_get(delta, "signature")));
    else if (cm_str_eq(type, CM_S("citations_delta")))
        on_citation(run, cm_json_get(delta, "citation"));
}

/* ---- The message ---- */

static enum cm_finish finish_of(struct cm_str reason)
{
    static const struct {
        struct cm_str reason;
        enum cm_finish finish;
    } reasons[] = {
        {CM_S_INIT("end_turn"), CM_FINISH_STOP},
        {CM_S_INIT("stop_sequence"), CM_FINISH_STOP_SEQUENCE},
        {CM_S_INIT("max_tokens"), CM_FINISH_LENGTH},
        {CM_S_INIT("model_context_window_exceeded"), CM_FINISH_CONTEXT},
        {CM_S_INIT("tool_use"), CM_FINISH_TOOL_CALLS},
        {CM_S_INIT("refusal"), CM_FINISH_REFUSAL},
        {CM_S_INIT("pause_turn"), CM_FINISH_PAUSE},
    };

    for (size_t i = 0; i < CM_COUNT(reasons); i++) {
        if (cm_str_eq(reasons[i].reason, reason))
            return reasons[i].finish;
    }
    return CM_FINISH_STOP;
}

/* Of a whole message, or a delta of one: how it ended. */
static void read_stop(struct cm_run *run, struct anthropic_answer *a, yyjson_val *message)
{
    const struct cm_str reason = cm_json_str(cm_json_opt(message, "stop_reason"));
    struct cm_str text = cm_json_str(cm_json_get(message, "stop_sequence"));

    if (reason.n == 0)
        return;
    a->finish = finish_of(reason);
    if (a->finish == CM_FINISH_REFUSAL)
        text = cm_json_str(cm_json_get(cm_json_get(message, "stop_details"), "explanation"));
    a->finish_text = cm_arena_str(cm_run_arena(run), text);
}

static void on_message_delta(struct cm_run *run, struct anthropic_answer *a, yyjson_val *root)
{
    anthropic_read_usage(cm_json_opt(root, "usage"), &a->usage);
    read_stop(run, a, cm_json_get(root, "delta"));
}

static void on_message_stop(struct cm_run *run, struct anthropic_answer *a)
{
    struct cm_event finish = {.kind = CM_EVENT_FINISH};

    if (a->kind != ANTHROPIC_NO_BLOCK)
        end_block(run, a);
    keep(run, a);
    if (a->usage.source != CM_USAGE_NONE)
        cm_run_usage(run, &a->usage);
    finish.finish = a->finish == CM_FINISH_NONE ? CM_FINISH_STOP : a->finish;
    finish.text = a->finish_text;
    cm_run_emit(run, &finish);
    a->done = true;
}

int anthropic_event(struct cm_run *run, struct anthropic_answer *a, yyjson_val *root,
                    struct cm_err *err)
{
    const struct cm_str type = cm_json_str(cm_json_get(root, "type"));
    const struct anthropic_refusal inside = {0};

    if (cm_str_eq(type, CM_S("error")))
        return anthropic_refused(run, &inside, cm_json_get(root, "error"), err);
    if (cm_str_eq(type, CM_S("message_start")))
        anthropic_begin_usage(run, root, &a->usage);
    else if (cm_str_eq(type, CM_S("content_block_start")))
        on_block_start(run, a, root);
    else if (cm_str_eq(type, CM_S("content_block_delta")))
        on_delta(run, a, root);
    else if (cm_str_eq(type, CM_S("content_block_stop")))
        end_block(run, a);
    else if (cm_str_eq(type, CM_S("message_delta")))
        on_message_delta(run, a, root);
    else if (cm_str_eq(type, CM_S("message_stop")))
        on_message_stop(run, a);
    return 0; /* ping, and what is not known yet */
}

void anthropic_message(struct cm_run *run, struct anthropic_answer *a, yyjson_val *root)
{
    yyjson_val *block, *citation;
    size_t i, k, n, max;

    a->whole = true;
    anthropic_read_usage(cm_json_opt(root, "usage"), &a->usage);
    yyjson_arr_foreach(cm_json_get(root, "content"), i, n, block)
    {
        begin_block(run, a, block);
        yyjson_arr_foreach(cm_json_get(block, "citations"), k, max, citation)
        {
            on_citation(run, citation);
        }
        end_block(run, a);
    }
    read_stop(run, a, root);
    on_message_stop(run, a);
}

void anthropic_answer_begin(struct cm_run *run, struct anthropic_answer *a)
{
    struct cm_buf *const kept[] = {&a->content, &a->all_text, &a->text, &a->thought, &a->args};
    const struct cm_chat *chat = cm_run_chat(run);
    struct cm_arena *arena = cm_run_arena(run);

    a->model = cm_arena_str(arena, cm_run_target(run)->model);
    a->keeps = chat->n_tools > 0;
    a->renamed = CM_ARENA_ARRAY(arena, struct anthropic_renamed, chat->n_tools);
    for (size_t i = 0; i < chat->n_tools; i++) {
        const struct cm_str name = chat->tools[i].name, sent = anthropic_name(arena, name);

        if (!cm_str_eq(name, sent))
            a->renamed[a->n_renamed++] =
                (struct anthropic_renamed){sent, cm_arena_str(arena, name)};
    }
    for (size_t i = 0; i < CM_COUNT(kept); i++)
        cm_buf_init(kept[i], KEPT_MAX);
}

void anthropic_answer_clear(struct anthropic_answer *a)
{
    cm_buf_clear(&a->text);
    cm_buf_clear(&a->thought);
    cm_buf_clear(&a->args);
    cm_buf_clear(&a->content);
    cm_buf_clear(&a->all_text);
    cm_buf_clear(&a->ids);
}
