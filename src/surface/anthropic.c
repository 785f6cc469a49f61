/* The Messages surface, and its stream: canonical events -> message_start, content blocks,
 * message_delta, message_stop.
 *
 * Blocks are numbered in the order in which they appear and never overlap: one is closed before the
 * next begins. Calls whose arguments an upstream sends alternately wait for their turn, and a call's
 * turn is over when its arguments are a whole JSON value. stop_reason and usage come last, because
 * upstreams tell them last. After an error nothing follows (protocol notes of Anthropic, sections 3
 * and 7). */
#include "anthropic_int.h"

#include "call_turns.h"
#include "chatmux/base/mem.h"

#include <stdlib.h>

enum open_block { NO_BLOCK, THINKING, TEXT, CALL };

struct stream {
    struct cm_answer_meta meta;
    bool shows_thinking;
    enum open_block open;
    int64_t index; /* of the open block, else of the next */
    struct cm_call_turns turns;
    enum cm_finish finish;
    struct cm_str finish_text; /* owned */
    bool refused;
};

static void put_event(struct cm_buf *out, struct cm_str name)
{
    cm_buf_append(out, CM_S("event: "));
    cm_buf_append(out, name);
    cm_buf_append(out, CM_S("\ndata: {\"type\":\""));
    cm_buf_append(out, name);
    cm_buf_put(out, '"');
}

static void end_event(struct cm_buf *out)
{
    cm_buf_append(out, CM_S("}\n\n"));
}

static void put_block_event(const struct stream *st, struct cm_buf *out, struct cm_str name)
{
    put_event(out, name);
    cm_buf_append(out, CM_S(",\"index\":"));
    cm_json_put_int(out, st->index);
}

/* ,"delta":{"type":…,MEMBER:text} */
static void put_delta(const struct stream *st, struct cm_buf *out, struct cm_str before,
                      struct cm_str text)
{
    put_block_event(st, out, CM_S("content_block_delta"));
    cm_buf_append(out, CM_S(",\"delta\":{\"type\":"));
    cm_buf_append(out, before);
    cm_json_put_str(out, text);
    cm_buf_put(out, '}');
    end_event(out);
}

static void close_block(struct stream *st, struct cm_buf *out)
{
    if (st->open == NO_BLOCK)
        return;
    put_block_event(st, out, CM_S("content_block_stop"));
    end_event(out);
    st->open = NO_BLOCK;
    st->index++;
}

/* ---- Calls ---- */

static void put_args(struct stream *st, struct cm_turn_call *c, struct cm_str args,
                     struct cm_buf *out)
{
    cm_whole_json_feed(&c->args, args);
    put_delta(st, out, CM_S("\"input_json_delta\",\"partial_json\":"), args);
}

static void begin_call(struct stream *st, struct cm_turn_call *c, struct cm_buf *out)
{
    close_block(st, out);
    cm_call_turns_begin(&st->turns, c);
    st->open = CALL;
    put_block_event(st, out, CM_S("content_block_start"));
    cm_buf_append(out, CM_S(",\"content_block\":"));
    cm_anthropic_put_call(out, c->id, c->name);
    cm_buf_append(out, CM_S("{}}"));
    end_event(out);
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

/* ---- Other blocks ---- */

static void open_block(struct stream *st, enum open_block kind, struct cm_buf *out)
{
    if (st->open == kind)
        return;
    begin_calls(st, true, out);
    close_block(st, out);
    st->open = kind;
    put_block_event(st, out, CM_S("content_block_start"));
    cm_buf_append(out, kind == THINKING
                           ? CM_S(",\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\","
                                  "\"signature\":\"\"}")
                           : CM_S(",\"content_block\":{\"type\":\"text\",\"text\":\"\"}"));
    end_event(out);
}

static void on_text(struct stream *st, struct cm_str text, struct cm_buf *out)
{
    if (text.n == 0)
        return;
    open_block(st, TEXT, out);
    put_delta(st, out, CM_S("\"text_delta\",\"text\":"), text);
}

static void on_reasoning(struct stream *st, struct cm_str text, struct cm_buf *out)
{
    if (text.n == 0 || !st->shows_thinking)
        return;
    open_block(st, THINKING, out);
    put_delta(st, out, CM_S("\"thinking_delta\",\"thinking\":"), text);
}

static void on_image(struct stream *st, const struct cm_event *ev, struct cm_buf *out)
{
    struct cm_buf markdown = {0};

    cm_event_put_markdown(ev, &markdown);
    on_text(st, cm_buf_str(&markdown), out);
    cm_buf_clear(&markdown);
}

static void on_finish(struct stream *st, const struct cm_event *ev, struct cm_buf *out)
{
    begin_calls(st, true, out);
    close_block(st, out);
    if (st->finish != CM_FINISH_NONE)
        return;
    st->finish = ev->finish;
    st->finish_text = cm_str(cm_str_dup(ev->text), ev->text.n);
}

/* ---- The stream ---- */

static void stream_begin(void *state, const struct cm_answer_meta *meta, struct cm_buf *out)
{
    static const struct cm_usage nothing;
    struct stream *st = state;

    st->meta = *meta;
    st->shows_thinking = cm_anthropic_shows_thinking(meta);
    put_event(out, CM_S("message_start"));
    cm_buf_append(out, CM_S(",\"message\":{\"id\":"));
    cm_json_put_str(out, meta->id);
    cm_buf_append(out, CM_S(",\"type\":\"message\",\"role\":\"assistant\",\"model\":"));
    cm_json_put_str(out, meta->model);
    cm_buf_append(out, CM_S(",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"
                            "\"stop_details\":null,\"usage\":{"));
    cm_anthropic_put_usage(out, &nothing); /* what counts comes with message_delta */
    cm_buf_append(out, CM_S("}}"));
    end_event(out);
}

static void stream_event(void *state, const struct cm_event *ev, struct cm_buf *out)
{
    struct stream *st = state;

    if (ev->choice != 0)
        return;
    switch (ev->kind) {
    case CM_EVENT_TEXT:
        on_text(st, ev->text, out);
        break;
    case CM_EVENT_REFUSAL:
        st->refused |= ev->text.n > 0;
        on_text(st, ev->text, out);
        break;
    case CM_EVENT_REASONING:
        on_reasoning(st, ev->text, out);
        break;
    case CM_EVENT_SIGNATURE: /* another platform's: what counts is that the block is over */
        if (st->open == THINKING)
            close_block(st, out);
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
    case CM_EVENT_FINISH:
        on_finish(st, ev, out);
        break;
    case CM_EVENT_REDACTED: /* only its own platform reads it */
    case CM_EVENT_CITATION: /* this dialect's refer to search results of its own kind */
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

    begin_calls(st, true, out);
    close_block(st, out);
    put_event(out, CM_S("message_delta"));
    cm_buf_append(out, CM_S(",\"delta\":{"));
    cm_anthropic_put_stop(out, st->refused ? CM_FINISH_REFUSAL : st->finish, st->finish_text,
                          st->turns.n > 0);
    cm_buf_append(out, CM_S("},\"usage\":{"));
    cm_anthropic_put_usage(out, usage);
    cm_buf_put(out, '}');
    end_event(out);
    put_event(out, CM_S("message_stop"));
    end_event(out);
}

static void stream_error(void *state, const struct cm_err *err, struct cm_buf *out)
{
    (void)state;
    cm_buf_append(out, CM_S("event: error\ndata: "));
    cm_anthropic_put_error(err, out);
    cm_buf_append(out, CM_S("\n\n"));
}

static void stream_clear(void *state)
{
    struct stream *st = state;

    cm_call_turns_clear(&st->turns);
    free((char *)(uintptr_t)st->finish_text.p), st->finish_text = CM_STR_NONE;
}

#define PING CM_S_INIT("event: ping\ndata: {\"type\":\"ping\"}\n\n")

const struct cm_surface cm_surface_anthropic = {
    .dialect = CM_DIALECT_ANTHROPIC,
    .task = CM_TASK_CHAT,
    .id_prefix = CM_S_INIT("msg_"),
    .parse = cm_anthropic_parse,
    .stream_size = sizeof(struct stream),
    .stream_begin = stream_begin,
    .stream_event = stream_event,
    .stream_end = stream_end,
    .stream_error = stream_error,
    .stream_clear = stream_clear,
    .keepalive = PING,
    .whole = cm_anthropic_whole,
    .error_body = cm_anthropic_put_error,
    .error_status = cm_anthropic_error_status,
    .error_id_member = CM_S_INIT("request_id"),
};

const struct cm_surface cm_surface_anthropic_count = {
    .dialect = CM_DIALECT_ANTHROPIC,
    .task = CM_TASK_COUNT_TOKENS,
    .id_prefix = CM_S_INIT("msg_"),
    .parse = cm_anthropic_count_parse,
    .stream_size = sizeof(struct stream),
    .stream_begin = stream_begin,
    .stream_event = stream_event,
    .stream_end = stream_end,
    .stream_error = stream_error,
    .stream_clear = stream_clear,
    .keepalive = PING,
    .whole = cm_anthropic_count_whole,
    .error_body = cm_anthropic_put_error,
    .error_status = cm_anthropic_error_status,
    .error_id_member = CM_S_INIT("request_id"),
};

/* Nobody here reads it. */
static int parse_pass(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    (void)err;
    cm_chat_begin(chat, CM_DIALECT_ANTHROPIC, CM_TASK_PASS, body);
    chat->stream = chat->bytes = true;
    cm_fail(&chat->untranslatable, CM_ERR_BAD_REQUEST,
            "only a provider that speaks Anthropic's dialect can be asked for this");
    return 0;
}

const struct cm_surface cm_surface_anthropic_pass = {
    .dialect = CM_DIALECT_ANTHROPIC,
    .task = CM_TASK_PASS,
    .id_prefix = CM_S_INIT("req_"),
    .parse = parse_pass,
    .stream_error = stream_error,
    .keepalive = PING,
    .error_body = cm_anthropic_put_error,
    .error_status = cm_anthropic_error_status,
    .error_id_member = CM_S_INIT("request_id"),
};
