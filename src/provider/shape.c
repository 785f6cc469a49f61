/* What an answer is made into before it goes out: calls read out of its text, reasoning folded into it or left out.
 *
 * Only for runs that need it: others pass by (run->shape is NULL). */
#include "run_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/enc.h"
#include "chatmux/base/rand.h"
#include "chatmux/base/utf8.h"

#define CALL_ID_BYTES 12
#define FOLD_BEGIN CM_S("<details><summary>Reasoning</summary>\n\n")
#define FOLD_END CM_S("\n\n</details>\n\n")

bool run_emulates_tools(const struct cm_instance *in, const struct cm_chat *chat)
{
    return in->adapter->tools_by_prompt && tools_are_wanted(chat) &&
           cm_str_eq(cm_option_value(in, "tools"), CM_S("prompt"));
}

void run_shape_init(struct cm_run *run)
{
    const struct cm_target *t = run->setup.target;
    const bool tools = run->setup.chat && run_emulates_tools(run->setup.instance, run->setup.chat);

    if (!tools && !(t && (t->silent || t->fold)))
        return;
    run->shape = CM_ARENA_NEW(&run->arena, struct run_shape);
    run->shape->silent = t->silent;
    run->shape->fold = t->fold && !t->silent;
    if (!tools)
        return;
    run->shape->tools = true;
    tools_reader_init(&run->shape->reader, &run->arena, run->setup.chat);
    run->setup.chat = tools_as_text(&run->arena, run->setup.chat);
}

void run_shape_clear(struct cm_run *run)
{
    if (run->shape)
        tools_reader_clear(&run->shape->reader);
}

static void put_text(struct cm_run *run, struct cm_str text)
{
    run_emit(run, &(struct cm_event){.kind = CM_EVENT_TEXT, .text = text});
}

/* Of a block that is folded into the text. */
static void put_folded(struct cm_run *run, struct cm_str text)
{
    struct run_shape *s = run->shape;

    s->blocks[s->n_blocks - 1].chars += (int64_t)cm_utf8_count(text);
    put_text(run, text);
}

static void put_call(struct cm_run *run, const struct tools_found *found)
{
    unsigned char random[CALL_ID_BYTES];
    struct cm_event ev = {.kind = CM_EVENT_TOOL_CALL, .name = found->name};
    struct cm_buf id = {0}, as_text = {0};

    ev.index = (int)run->shape->reader.calls - 1;
    cm_rand_bytes(random, sizeof(random));
    cm_buf_append(&id, CM_S("call_"));
    cm_hex(&id, cm_str((const char *)random, sizeof(random)));
    ev.id = cm_buf_str(&id);
    run_emit(run, &ev);
    run_emit(run, &(struct cm_event){
                      .kind = CM_EVENT_TOOL_ARGS, .index = ev.index, .text = found->arguments});
    if (run->memory.follows) { /* it comes back as this text: tools_as_text() */
        tools_put_call(&as_text, found->name, found->arguments);
        run_memory_heard(&run->memory,
                         &(struct cm_event){.kind = CM_EVENT_TEXT, .text = cm_buf_str(&as_text)});
        cm_buf_clear(&as_text);
    }
    cm_buf_clear(&id);
}

static void on_found(void *arg, const struct tools_found *found)
{
    struct cm_run *run = arg;

    if (found->name.n > 0)
        put_call(run, found);
    else
        put_text(run, found->text);
}

static void read_text(struct cm_run *run, struct cm_str text)
{
    struct tools_reader *r = &run->shape->reader;

    tools_read(r, text, on_found, run);
    if (r->in_call && run->semantic_us == 0)
        run->semantic_us = cm_mono_us(); /* the platform is saying something */
}

/* What follows reasoning stands behind it. */
static void unfold(struct cm_run *run, const struct cm_event *ev)
{
    if (!run->shape->folding || (!cm_event_semantic(ev) && ev->kind != CM_EVENT_FINISH))
        return;
    run->shape->folding = false;
    put_folded(run, FOLD_END);
}

static void fold(struct cm_run *run, struct cm_str text)
{
    struct run_shape *s = run->shape;

    if (text.n == 0)
        return;
    if (!s->folding) {
        if (s->n_blocks < CM_COUNT(s->blocks))
            s->blocks[s->n_blocks++] = (struct run_folded){.at = s->text_chars};
        else
            s->lost_places = true;
        put_folded(run, FOLD_BEGIN);
    }
    s->folding = true;
    put_folded(run, text);
}

/* A place in the platform's text, in ours. */
static int64_t place(const struct run_shape *s, int64_t at)
{
    int64_t moved = at;

    for (size_t i = 0; i < s->n_blocks; i++)
        if (s->blocks[i].at <= at)
            moved += s->blocks[i].chars;
    return moved;
}

/* Calls were taken out of the text, or it was folded too often: then nobody knows the place. */
static void cite(struct cm_run *run, const struct cm_event *ev)
{
    const struct run_shape *s = run->shape;
    struct cm_event moved = *ev;

    if (s->lost_places || s->reader.calls > 0)
        moved.from = moved.to = 0;
    else if (ev->to > 0)
        moved.from = place(s, ev->from), moved.to = place(s, ev->to - 1) + 1;
    run_emit(run, &moved);
}

static void finish(struct cm_run *run, const struct cm_event *ev)
{
    struct cm_event last = *ev;

    if (run->shape->tools) {
        tools_read_end(&run->shape->reader, on_found, run);
        if (run->shape->reader.calls > 0 && ev->finish == CM_FINISH_STOP)
            last.finish = CM_FINISH_TOOL_CALLS;
    }
    run_emit(run, &last);
}

void run_shape(struct cm_run *run, const struct cm_event *ev)
{
    struct run_shape *s = run->shape;

    if (s->silent && (ev->kind == CM_EVENT_REASONING || ev->kind == CM_EVENT_CITATION))
        return;
    if (s->fold && ev->kind == CM_EVENT_REASONING) {
        fold(run, ev->text);
        return;
    }
    unfold(run, ev);
    if (s->fold && ev->kind == CM_EVENT_TEXT && ev->choice == 0)
        s->text_chars += (int64_t)cm_utf8_count(ev->text);
    if (s->tools && ev->kind == CM_EVENT_TEXT && ev->choice == 0)
        read_text(run, ev->text);
    else if (ev->kind == CM_EVENT_FINISH && ev->choice == 0)
        finish(run, ev);
    else if (ev->kind == CM_EVENT_CITATION && ev->choice == 0)
        cite(run, ev);
    else
        run_emit(run, ev);
}
