/* The Responses surface, and its stream: canonical events -> response.… events (OpenAI protocol notes, sections 10 and 12).
 *
 * Items are numbered in the order in which they appear and never overlap: one is done before the next is added. Calls whose arguments an upstream sends
 * alternately wait for their turn, and a call's turn is over when its arguments are a whole JSON value. What is done is kept as text, because the last
 * event repeats all of it. After response.failed nothing follows. */
#include "responses_int.h"

#include "call_turns.h"
#include "chatmux/base/mem.h"
#include "openai_chat_int.h"

#include <stdlib.h>

enum item { NO_ITEM, REASONING, MESSAGE, CALL };
enum part { NO_PART, TEXT, REFUSAL };

struct stream {
    struct cm_answer_meta meta;
    int64_t sequence; /* of the next event */
    enum item open;
    enum part part;       /* of the open message */
    size_t index;         /* of the open item, else of the next */
    size_t n_parts;       /* of the open message, that are done */
    struct cm_str id;     /* of the open item; owned */
    struct cm_buf items;  /* those that are done, with commas between */
    struct cm_buf parts;  /* of the open message */
    struct cm_buf text;   /* of the open part, of reasoning, or arguments */
    struct cm_buf notes;  /* of the open part: annotations */
    struct cm_buf proofs; /* of the open part: logprobs */
    size_t n_notes;
    struct cm_call_turns turns;
    enum cm_finish finish;
    bool refused;
    struct cm_buf object; /* the response at its end */
    struct cm_buf begun;  /* relayed: as its upstream began it */
};

/* ---- Events ---- */

/* Up to its own members. */
static void put_event(struct stream *st, struct cm_buf *out, struct cm_str type)
{
    cm_buf_append(out, CM_S("event: "));
    cm_buf_append(out, type);
    cm_buf_append(out, CM_S("\ndata: {\"type\":\""));
    cm_buf_append(out, type);
    cm_buf_append(out, CM_S("\",\"sequence_number\":"));
    cm_json_put_int(out, st->sequence++);
}

static void end_event(struct cm_buf *out)
{
    cm_buf_append(out, CM_S("}\n\n"));
}

/* An event of the whole response. */
static void put_state(struct stream *st, struct cm_buf *out, struct cm_str type,
                      struct cm_str object)
{
    put_event(st, out, type);
    cm_buf_append(out, CM_S(",\"response\":"));
    cm_buf_append(out, object);
    end_event(out);
}

/* An event of the open item: which, and where. */
static void put_item_event(struct stream *st, struct cm_buf *out, struct cm_str type)
{
    put_event(st, out, type);
    cm_buf_append(out, CM_S(",\"item_id\":"));
    cm_json_put_str(out, st->id);
    cm_buf_append(out, CM_S(",\"output_index\":"));
    cm_buf_put_u64(out, st->index);
}

/* … of a part of it. */
static void put_part_event(struct stream *st, struct cm_buf *out, struct cm_str type)
{
    put_item_event(st, out, type);
    cm_buf_append(out, CM_S(",\"content_index\":"));
    cm_buf_put_u64(out, st->n_parts);
}

static void put_text_member(struct cm_buf *out, struct cm_str before, struct cm_str text)
{
    cm_buf_append(out, before);
    cm_json_put_str(out, text);
}

/* ---- Items ---- */

static void begin_item(struct stream *st, enum item kind, const char *prefix)
{
    struct cm_arena scratch = {0};
    const struct cm_str id = cm_responses_item_id(&scratch, prefix, st->meta.id, st->index);

    st->open = kind;
    st->id = cm_str(cm_str_dup(id), id.n);
    cm_arena_clear(&scratch);
}

/* response.output_item.added or .done with the item that `item` holds. */
static void put_item(struct stream *st, struct cm_buf *out, struct cm_str type,
                     const struct cm_buf *item)
{
    put_event(st, out, type);
    cm_buf_append(out, CM_S(",\"output_index\":"));
    cm_buf_put_u64(out, st->index);
    cm_buf_append(out, CM_S(",\"item\":"));
    cm_buf_append(out, cm_buf_str(item));
    end_event(out);
}

/* The open item as it stands. */
static void write_item(const struct stream *st, const char *status, struct cm_buf *item)
{
    const struct cm_turn_call *c;

    if (st->open == REASONING) {
        cm_responses_put_reasoning(item, st->id, cm_buf_str(&st->text));
    } else if (st->open == MESSAGE) {
        cm_responses_put_message(item, st->id, status, cm_buf_str(&st->parts));
    } else {
        c = &st->turns.calls[st->turns.current];
        cm_responses_put_call(item, st->id, status, c->id, c->name, cm_buf_str(&st->text));
    }
}

static void item_added(struct stream *st, struct cm_buf *out)
{
    struct cm_buf item = {0};

    write_item(st, "in_progress", &item);
    put_item(st, out, CM_S("response.output_item.added"), &item);
    cm_buf_clear(&item);
}

static void part_text(const struct stream *st, struct cm_buf *part)
{
    if (st->part == TEXT)
        cm_responses_put_text(part, cm_buf_str(&st->text), cm_buf_str(&st->notes),
                              cm_buf_str(&st->proofs));
    else
        cm_responses_put_refusal(part, cm_buf_str(&st->text));
}

static void close_part(struct stream *st, struct cm_buf *out)
{
    struct cm_buf part = {0};

    if (st->part == NO_PART)
        return;
    if (st->part == TEXT) {
        put_part_event(st, out, CM_S("response.output_text.done"));
        put_text_member(out, CM_S(",\"text\":"), cm_buf_str(&st->text));
        cm_buf_append(out, CM_S(",\"logprobs\":["));
        cm_buf_append(out, cm_buf_str(&st->proofs));
        cm_buf_put(out, ']');
    } else {
        put_part_event(st, out, CM_S("response.refusal.done"));
        put_text_member(out, CM_S(",\"refusal\":"), cm_buf_str(&st->text));
    }
    end_event(out);
    part_text(st, &part);
    put_part_event(st, out, CM_S("response.content_part.done"));
    cm_buf_append(out, CM_S(",\"part\":"));
    cm_buf_append(out, cm_buf_str(&part));
    end_event(out);
    if (st->n_parts++ > 0)
        cm_buf_put(&st->parts, ',');
    cm_buf_append(&st->parts, cm_buf_str(&part));
    cm_buf_clear(&part);
    cm_buf_reset(&st->text);
    cm_buf_reset(&st->notes);
    cm_buf_reset(&st->proofs);
    st->n_notes = 0;
    st->part = NO_PART;
}

static void end_summary(struct stream *st, struct cm_buf *out)
{
    put_item_event(st, out, CM_S("response.reasoning_summary_text.done"));
    put_text_member(out, CM_S(",\"summary_index\":0,\"text\":"), cm_buf_str(&st->text));
    end_event(out);
    put_item_event(st, out, CM_S("response.reasoning_summary_part.done"));
    put_text_member(out, CM_S(",\"summary_index\":0,\"part\":{\"type\":\"summary_text\",\"text\":"),
                    cm_buf_str(&st->text));
    cm_buf_put(out, '}');
    end_event(out);
}

static void put_args(struct stream *st, struct cm_turn_call *c, struct cm_str args,
                     struct cm_buf *out)
{
    cm_whole_json_feed(&c->args, args);
    cm_buf_append(&st->text, args);
    put_item_event(st, out, CM_S("response.function_call_arguments.delta"));
    put_text_member(out, CM_S(",\"delta\":"), args);
    end_event(out);
}

static void end_args(struct stream *st, struct cm_buf *out)
{
    struct cm_turn_call *c = &st->turns.calls[st->turns.current];

    if (st->text.n == 0)
        put_args(st, c, CM_S("{}"), out);
    put_item_event(st, out, CM_S("response.function_call_arguments.done"));
    put_text_member(out, CM_S(",\"arguments\":"), cm_buf_str(&st->text));
    put_text_member(out, CM_S(",\"name\":"), c->name);
    end_event(out);
}

static void close_item(struct stream *st, const char *status, struct cm_buf *out)
{
    const size_t comma = st->items.n > 0;
    struct cm_buf item = {0};

    if (st->open == NO_ITEM)
        return;
    if (st->open == MESSAGE)
        close_part(st, out);
    else if (st->open == REASONING)
        end_summary(st, out);
    else
        end_args(st, out);
    write_item(st, status, &item);
    put_item(st, out, CM_S("response.output_item.done"), &item);
    if (comma)
        cm_buf_put(&st->items, ',');
    cm_buf_append(&st->items, cm_buf_str(&item));
    cm_buf_clear(&item);
    cm_buf_reset(&st->text);
    cm_buf_reset(&st->parts);
    free((char *)(uintptr_t)st->id.p), st->id = CM_STR_NONE;
    st->n_parts = 0;
    st->open = NO_ITEM;
    st->index++;
}

/* ---- Calls ---- */

static void begin_call(struct stream *st, struct cm_turn_call *c, struct cm_buf *out)
{
    close_item(st, "completed", out);
    cm_call_turns_begin(&st->turns, c);
    begin_item(st, CALL, "fc_");
    item_added(st, out);
    if (c->held.n > 0)
        put_args(st, c, cm_buf_str(&c->held), out);
    cm_buf_clear(&c->held);
}

/* Those that wait, as long as the one before is whole; `all`: whatever it is. */
static void begin_calls(struct stream *st, bool all, struct cm_buf *out)
{
    struct cm_turn_call *c;

    while ((c = cm_call_turns_next(&st->turns, !all && st->open == CALL)))
        begin_call(st, c, out);
}

static void on_call(struct stream *st, const struct cm_event *ev, struct cm_buf *out)
{
    cm_call_turns_add(&st->turns, ev);
    begin_calls(st, false, out);
}

static void on_args(struct stream *st, const struct cm_event *ev, struct cm_buf *out)
{
    struct cm_turn_call *c = cm_call_turns_args(&st->turns, ev, st->open == CALL);

    if (!c)
        return;
    put_args(st, c, ev->text, out);
    begin_calls(st, false, out);
}

/* ---- Messages ---- */

static void open_item(struct stream *st, enum item kind, const char *prefix, struct cm_buf *out)
{
    if (st->open == kind)
        return;
    begin_calls(st, true, out);
    close_item(st, "completed", out);
    begin_item(st, kind, prefix);
    item_added(st, out);
}

static void open_part(struct stream *st, enum part kind, struct cm_buf *out)
{
    struct cm_buf part = {0};

    open_item(st, MESSAGE, "msg_", out);
    if (st->part == kind)
        return;
    close_part(st, out);
    st->part = kind;
    part_text(st, &part);
    put_part_event(st, out, CM_S("response.content_part.added"));
    cm_buf_append(out, CM_S(",\"part\":"));
    cm_buf_append(out, cm_buf_str(&part));
    end_event(out);
    cm_buf_clear(&part);
}

static void on_text(struct stream *st, struct cm_str text, struct cm_str logprobs,
                    struct cm_buf *out)
{
    const struct cm_str proofs =
        logprobs.n >= 2 ? cm_str_trim(cm_str(logprobs.p + 1, logprobs.n - 2)) : CM_STR_NONE;

    if (text.n == 0)
        return;
    open_part(st, TEXT, out);
    cm_buf_append(&st->text, text);
    put_part_event(st, out, CM_S("response.output_text.delta"));
    put_text_member(out, CM_S(",\"delta\":"), text);
    cm_buf_append(out, CM_S(",\"logprobs\":["));
    cm_buf_append(out, proofs);
    cm_buf_put(out, ']');
    end_event(out);
    if (proofs.n > 0 && st->proofs.n > 0)
        cm_buf_put(&st->proofs, ',');
    cm_buf_append(&st->proofs, proofs);
}

static void on_refusal(struct stream *st, struct cm_str text, struct cm_buf *out)
{
    if (text.n == 0)
        return;
    st->refused = true;
    open_part(st, REFUSAL, out);
    cm_buf_append(&st->text, text);
    put_part_event(st, out, CM_S("response.refusal.delta"));
    put_text_member(out, CM_S(",\"delta\":"), text);
    end_event(out);
}

static void on_citation(struct stream *st, const struct cm_event *ev, struct cm_buf *out)
{
    const struct cm_citation c = {
        .url = ev->url, .title = ev->name, .from = ev->from, .to = ev->to};

    open_part(st, TEXT, out);
    put_part_event(st, out, CM_S("response.output_text.annotation.added"));
    cm_buf_append(out, CM_S(",\"annotation_index\":"));
    cm_buf_put_u64(out, st->n_notes);
    cm_buf_append(out, CM_S(",\"annotation\":"));
    cm_responses_put_citation(out, &c);
    end_event(out);
    if (st->n_notes++ > 0)
        cm_buf_put(&st->notes, ',');
    cm_responses_put_citation(&st->notes, &c);
}

static void on_reasoning(struct stream *st, struct cm_str text, struct cm_buf *out)
{
    const bool opens = st->open != REASONING;

    if (text.n == 0 || !cm_responses_shows_reasoning(&st->meta))
        return;
    open_item(st, REASONING, "rs_", out);
    if (opens) {
        put_item_event(st, out, CM_S("response.reasoning_summary_part.added"));
        cm_buf_append(
            out, CM_S(",\"summary_index\":0,\"part\":{\"type\":\"summary_text\",\"text\":\"\"}"));
        end_event(out);
    }
    cm_buf_append(&st->text, text);
    put_item_event(st, out, CM_S("response.reasoning_summary_text.delta"));
    put_text_member(out, CM_S(",\"summary_index\":0,\"delta\":"), text);
    end_event(out);
}

static void on_image(struct stream *st, const struct cm_event *ev, struct cm_buf *out)
{
    struct cm_buf markdown = {0};

    cm_event_put_markdown(ev, &markdown);
    on_text(st, cm_buf_str(&markdown), CM_STR_NONE, out);
    cm_buf_clear(&markdown);
}

/* ---- The stream ---- */

static void put_progress(struct stream *st, struct cm_buf *out, struct cm_str type)
{
    const struct cm_responses_state begun = {.status = "in_progress"};
    struct cm_buf object = {0};

    cm_responses_put_object(&object, &st->meta, &begun);
    put_state(st, out, type, cm_buf_str(&object));
    cm_buf_clear(&object);
}

static void stream_begin(void *state, const struct cm_answer_meta *meta, struct cm_buf *out)
{
    struct stream *st = state;

    st->meta = *meta;
    put_progress(st, out, CM_S("response.created"));
    put_progress(st, out, CM_S("response.in_progress"));
}

static void stream_event(void *state, const struct cm_event *ev, struct cm_buf *out)
{
    struct stream *st = state;

    if (ev->choice != 0)
        return;
    switch (ev->kind) {
    case CM_EVENT_TEXT:
        on_text(st, ev->text, ev->logprobs, out);
        break;
    case CM_EVENT_REFUSAL:
        on_refusal(st, ev->text, out);
        break;
    case CM_EVENT_REASONING:
        on_reasoning(st, ev->text, out);
        break;
    case CM_EVENT_SIGNATURE: /* another platform's: what counts is that the block is over */
        if (st->open == REASONING)
            close_item(st, "completed", out);
        break;
    case CM_EVENT_TOOL_CALL:
        on_call(st, ev, out);
        break;
    case CM_EVENT_TOOL_ARGS:
        on_args(st, ev, out);
        break;
    case CM_EVENT_IMAGE:
        on_image(st, ev, out);
        break;
    case CM_EVENT_CITATION:
        on_citation(st, ev, out);
        break;
    case CM_EVENT_FINISH:
        if (st->finish == CM_FINISH_NONE)
            st->finish = ev->finish;
        break;
    case CM_EVENT_REDACTED: /* only its own platform reads it */
    case CM_EVENT_EMBEDDING:
    case CM_EVENT_USAGE: /* comes with the end */
    case CM_EVENT_SERVED:
    case CM_EVENT_CONVERSATION:
    case CM_EVENT_HEAD: /* the relay lane does not pass here */
    case CM_EVENT_RELAY:
        break;
    }
}

static void stream_end(void *state, const struct cm_usage *usage, struct cm_buf *out)
{
    struct stream *st = state;
    struct cm_responses_state end = cm_responses_ended(st->finish, st->refused);

    begin_calls(st, true, out);
    if (st->index == 0 && st->open == NO_ITEM)
        open_part(st, TEXT, out); /* an empty answer is one, too */
    close_item(st, end.incomplete ? "incomplete" : "completed", out);
    end.output = cm_buf_str(&st->items);
    end.usage = usage;
    cm_buf_reset(&st->object);
    cm_responses_put_object(&st->object, &st->meta, &end);
    put_state(st, out, end.incomplete ? CM_S("response.incomplete") : CM_S("response.completed"),
              cm_buf_str(&st->object));
}

static bool stream_full(const void *state)
{
    const struct stream *st = state;
    size_t bytes = st->items.n + st->parts.n + st->text.n + st->proofs.n + st->notes.n;

    for (size_t i = 0; i < st->turns.n; i++)
        bytes += st->turns.calls[i].held.n;
    return bytes > CM_ANSWER_MAX;
}

static struct cm_str stream_object(const void *state)
{
    return cm_buf_str(&((const struct stream *)state)->object);
}

static void stream_relayed(void *state, const struct cm_answer_meta *meta,
                           const struct cm_event *ev)
{
    struct stream *st = state;

    st->meta = *meta;
    if (ev->from >= st->sequence)
        st->sequence = ev->from + 1;
    if (ev->data.n > 0 && st->begun.n == 0)
        cm_buf_append(&st->begun, ev->data);
}

static void put_error_event(struct stream *st, const struct cm_err *err, struct cm_buf *out)
{
    const char *code = cm_err_code(err);

    put_event(st, out, CM_S("error"));
    cm_buf_append(out, CM_S(",\"code\":"));
    cm_json_put_z(out, code ? code : "server_error");
    cm_buf_append(out, CM_S(",\"message\":"));
    cm_json_put_z(out, err->msg);
    cm_buf_append(out, CM_S(",\"param\":"));
    cm_json_put_z(out, err->param[0] != '\0' ? err->param : NULL);
    end_event(out);
}

/* An upstream's own response, as it began, and failed. */
static void put_relayed(const struct stream *st, const struct cm_err *err, struct cm_buf *out)
{
    struct cm_buf error = {0};
    struct cm_json_edit edits[] = {{CM_S("status"), CM_S("\"failed\"")}, {CM_S("error"), CM_S("")}};

    cm_responses_put_error(&error, err);
    edits[1].value = cm_buf_str(&error);
    cm_json_splice(cm_buf_str(&st->begun), edits, CM_COUNT(edits), out, NULL);
    cm_buf_clear(&error);
}

/* What is open stays open: it has not been done. */
static void stream_error(void *state, const struct cm_err *err, struct cm_buf *out)
{
    struct stream *st = state, unknown = {0};
    struct cm_responses_state failed = {.status = "failed", .error = err};

    put_error_event(st ? st : &unknown, err, out);
    if (!st || !st->meta.chat)
        return;
    failed.output = cm_buf_str(&st->items);
    cm_buf_reset(&st->object);
    if (st->begun.n > 0)
        put_relayed(st, err, &st->object);
    else
        cm_responses_put_object(&st->object, &st->meta, &failed);
    put_state(st, out, CM_S("response.failed"), cm_buf_str(&st->object));
}

void cm_responses_number(void *state, int64_t sequence)
{
    ((struct stream *)state)->sequence = sequence;
}

/* There is no event of that name: the one that says "this is all" carries the status. */
void cm_responses_cancel(void *state, struct cm_buf *out)
{
    struct stream *st = state;
    struct cm_responses_state cancelled = {.status = "cancelled", .output = cm_buf_str(&st->items)};

    cm_buf_reset(&st->object);
    cm_responses_put_object(&st->object, &st->meta, &cancelled);
    put_state(st, out, CM_S("response.incomplete"), cm_buf_str(&st->object));
}

void cm_responses_put_progress(struct cm_buf *out, const struct cm_answer_meta *meta,
                               const char *status)
{
    const struct cm_responses_state state = {.status = status};

    cm_responses_put_object(out, meta, &state);
}

bool cm_responses_interrupted(struct cm_str object, struct cm_buf *out)
{
    static const struct cm_json_edit edits[] = {
        {CM_S_INIT("status"), CM_S_INIT("\"failed\"")},
        {CM_S_INIT("error"),
         CM_S_INIT("{\"code\":\"server_error\",\"message\":\"the gateway was stopped before the "
                   "answer was there: please ask again\"}")},
    };
    const struct cm_str status = cm_json_member(object, CM_S("status"));

    if (!cm_str_eq(status, CM_S("\"queued\"")) && !cm_str_eq(status, CM_S("\"in_progress\"")))
        return false;
    cm_json_splice(object, edits, CM_COUNT(edits), out, NULL);
    return true;
}

static void stream_clear(void *state)
{
    struct stream *st = state;

    cm_call_turns_clear(&st->turns);
    free((char *)(uintptr_t)st->id.p), st->id = CM_STR_NONE;
    cm_buf_clear(&st->items);
    cm_buf_clear(&st->parts);
    cm_buf_clear(&st->text);
    cm_buf_clear(&st->notes);
    cm_buf_clear(&st->proofs);
    cm_buf_clear(&st->object);
    cm_buf_clear(&st->begun);
}

#define SURFACE(which, parse_fn, whole_fn)                                                         \
    {                                                                                              \
        .dialect = CM_DIALECT_OPENAI_RESPONSES,                                                    \
        .task = CM_TASK_##which,                                                                   \
        .id_prefix = CM_S_INIT(CM_RESPONSE_ID),                                                    \
        .parse = (parse_fn),                                                                       \
        .stream_size = sizeof(struct stream),                                                      \
        .stream_begin = stream_begin,                                                              \
        .stream_event = stream_event,                                                              \
        .stream_end = stream_end,                                                                  \
        .stream_full = stream_full,                                                                \
        .stream_object = stream_object,                                                            \
        .stream_relayed = stream_relayed,                                                          \
        .stream_error = stream_error,                                                              \
        .stream_clear = stream_clear,                                                              \
        .keepalive = CM_S_INIT(": keep-alive\n\n"),                                                \
        .whole = (whole_fn),                                                                       \
        .error_body = cm_openai_put_error,                                                         \
    }

const struct cm_surface cm_surface_responses =
    SURFACE(CHAT, cm_responses_parse, cm_responses_whole);
const struct cm_surface cm_surface_responses_tokens =
    SURFACE(COUNT_TOKENS, cm_responses_count_parse, cm_responses_count_whole);
