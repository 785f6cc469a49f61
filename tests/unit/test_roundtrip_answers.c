/* What two dialects can both say in an answer survives the way through both: events -> the surface's bytes -> the adapter's events, as a stream at random
 * cuts and as a whole body, for each pair of dialects. SEED and CASES as in test_roundtrip.c. */
#include "unit.h"
#include "wire.h"

#include "chatmux/base/config.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"
#include "chatmux/codec/json.h"

#include <stdio.h>
#include <stdlib.h>

struct call {
    struct cm_str id, name, args;
};

/* An answer, as it is meant. */
struct meant {
    struct cm_str reasoning, text;
    struct call calls[3];
    size_t n_calls;
    enum cm_finish finish;
    struct cm_usage usage;
};

struct maker {
    struct cm_rng rng;
    struct cm_arena *arena;
};

static size_t below(struct maker *m, size_t n)
{
    return (size_t)cm_rng_below(&m->rng, n);
}

static struct cm_str text(struct maker *m)
{
    static const char *const bits[] = {"a", "é",  "世", "🌍",   "\"",       "\\", "\n",
                                       " ", "\t", "{}", "\x01", "</think>", "\r", "data: "};
    struct cm_buf out = {0};

    cm_buf_append(&out, CM_S("t"));
    for (size_t i = below(m, 30); i > 0; i--)
        cm_buf_append(&out, cm_str_of(bits[below(m, CM_COUNT(bits))]));
    return cm_buf_settle(&out, m->arena);
}

static struct cm_str arguments(struct maker *m)
{
    struct cm_buf out = {0};
    const size_t n = below(m, 4);

    cm_buf_put(&out, '{');
    for (size_t i = 0; i < n; i++) {
        cm_buf_printf(&out, "%s\"k%zu\":", i > 0 ? "," : "", i);
        if (below(m, 2))
            cm_json_put_str(&out, text(m));
        else
            cm_buf_printf(&out, "[%zu,{\"x\":null},-0.5]", below(m, 100000));
    }
    cm_buf_put(&out, '}');
    return cm_buf_settle(&out, m->arena);
}

static void make(struct maker *m, bool cache_writes, struct meant *a)
{
    static const enum cm_finish finishes[] = {CM_FINISH_STOP, CM_FINISH_LENGTH,
                                              CM_FINISH_CONTENT_FILTER};

    *a = (struct meant){.n_calls = below(m, 2) * (1 + below(m, 3)),
                        .usage = {.source = CM_USAGE_UPSTREAM,
                                  .in_uncached = 1 + (int64_t)below(m, 1000),
                                  .out_text = 1 + (int64_t)below(m, 1000)}};
    if (below(m, 2))
        a->usage.in_cache_read = (int64_t)below(m, 1000);
    if (cache_writes && below(m, 3) == 0)
        a->usage.in_cache_write = (int64_t)below(m, 1000);
    if (below(m, 2)) {
        a->reasoning = text(m);
        a->usage.out_reasoning = (int64_t)below(m, 500);
    }
    if (a->n_calls == 0 || below(m, 2))
        a->text = text(m);
    for (size_t i = 0; i < a->n_calls; i++)
        a->calls[i] = (struct call){cm_arena_printf(m->arena, "call_%zu-%zu", i, below(m, 1000)),
                                    cm_arena_printf(m->arena, "f_%zu", below(m, 3)), arguments(m)};
    a->finish = a->n_calls > 0 ? CM_FINISH_TOOL_CALLS : finishes[below(m, CM_COUNT(finishes))];
}

/* ---- as events ---- */

typedef void tell_fn(void *arg, const struct cm_event *ev);

/* Whole characters of at least one byte, up to `max` of them. */
static struct cm_str bite(struct cm_str *rest, size_t max)
{
    size_t n = max < rest->n ? max : rest->n;
    struct cm_str piece;

    while (n < rest->n && ((unsigned char)rest->p[n] & 0xC0u) == 0x80u)
        n++;
    piece = cm_str_head(*rest, n);
    *rest = cm_str_from(*rest, n);
    return piece;
}

static void tell_pieces(struct maker *m, struct cm_event ev, struct cm_str rest, tell_fn *fn,
                        void *arg)
{
    while (rest.n > 0) {
        ev.text = bite(&rest, 1 + below(m, 12));
        fn(arg, &ev);
    }
}

/* The pieces of parallel calls take turns. */
static void tell_calls(struct maker *m, const struct meant *a, tell_fn *fn, void *arg)
{
    struct cm_str rest[3];
    size_t begun = 0, left = 0;

    while (begun < a->n_calls || left > 0) {
        const size_t at = begun > 0 ? below(m, begun) : 0;
        struct cm_event ev = {.kind = CM_EVENT_TOOL_CALL, .index = (int)begun};

        if (begun < a->n_calls && (left == 0 || below(m, 4) == 0)) {
            ev.id = a->calls[begun].id;
            ev.name = a->calls[begun].name;
            rest[begun] = a->calls[begun].args;
            left += rest[begun++].n;
            fn(arg, &ev);
        } else if (rest[at].n > 0) {
            const size_t before = rest[at].n;

            ev = (struct cm_event){.kind = CM_EVENT_TOOL_ARGS, .index = (int)at};
            ev.text = bite(&rest[at], 1 + below(m, 9));
            left -= before - rest[at].n;
            fn(arg, &ev);
        }
    }
}

static void tell(struct maker *m, const struct meant *a, tell_fn *fn, void *arg)
{
    tell_pieces(m, (struct cm_event){.kind = CM_EVENT_REASONING}, a->reasoning, fn, arg);
    tell_pieces(m, (struct cm_event){.kind = CM_EVENT_TEXT}, a->text, fn, arg);
    tell_calls(m, a, fn, arg);
    fn(arg, &(struct cm_event){.kind = CM_EVENT_FINISH, .finish = a->finish});
}

/* ---- through one dialect ---- */

struct streaming {
    const struct cm_surface *surface;
    void *state;
    struct cm_buf *out;
};

static void to_stream(void *arg, const struct cm_event *ev)
{
    struct streaming *s = arg;

    s->surface->stream_event(s->state, ev, s->out);
}

static void to_answer(void *arg, const struct cm_event *ev)
{
    struct cm_err err = {0};

    ck_quick(cm_answer_add(arg, ev, &err) == 0);
}

/* What a client of the dialect gets. */
static struct cm_str written(struct maker *m, enum wire_dialect d, const struct cm_chat *chat,
                             const struct meant *a)
{
    const struct cm_answer_meta meta = {.id = CM_S("id-1"),
                                        .model = CM_S("m"),
                                        .created_s = 1,
                                        .include_usage = true,
                                        .n = 1,
                                        .reasoning = CM_REASONING_FIELD,
                                        .chat = chat};
    const struct cm_surface *surface = wire_surfaces[d];
    struct cm_buf out = {0};

    if (chat->stream) {
        struct streaming s = {surface, cm_arena_alloc(m->arena, surface->stream_size), &out};

        memset(s.state, 0, surface->stream_size);
        surface->stream_begin(s.state, &meta, &out);
        tell(m, a, to_stream, &s);
        surface->stream_end(s.state, &a->usage, &out);
        surface->stream_clear(s.state);
    } else {
        struct cm_answer answer = {.usage = a->usage};

        tell(m, a, to_answer, &answer);
        surface->whole(&meta, &answer, &out);
        cm_answer_clear(&answer);
    }
    return cm_buf_settle(&out, m->arena);
}

/* ---- what was said, as a text ---- */

static void put_json(struct cm_buf *out, struct cm_str json)
{
    yyjson_doc *doc = cm_json_parse(json, &cm_json_limits_request, NULL);

    ck_quick(doc != NULL);
    cm_json_put_val(out, yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
}

static struct cm_str said(struct cm_arena *arena, const struct meant *a)
{
    struct cm_buf out = {0};

    cm_buf_append(&out, CM_S("reasoning "));
    cm_json_put_str(&out, a->reasoning);
    cm_buf_append(&out, CM_S("\ntext "));
    cm_json_put_str(&out, a->text);
    for (size_t i = 0; i < a->n_calls; i++) {
        cm_buf_printf(&out, "\ncall " CM_PRI " " CM_PRI " ", CM_ARG(a->calls[i].id),
                      CM_ARG(a->calls[i].name));
        put_json(&out, a->calls[i].args);
    }
    cm_buf_printf(&out, "\nfinish %s; in %lld %lld %lld, out %lld %lld", cm_finish_name(a->finish),
                  (long long)a->usage.in_uncached, (long long)a->usage.in_cache_read,
                  (long long)a->usage.in_cache_write, (long long)a->usage.out_text,
                  (long long)a->usage.out_reasoning);
    return cm_buf_settle(&out, arena);
}

/* What was collected, to be told again. */
static void take(struct cm_arena *arena, const struct cm_answer *answer, struct meant *a)
{
    const struct cm_choice_acc *c = answer->choices;

    ck_quick(answer->n_choices == 1 && c->n_calls <= CM_COUNT(a->calls) && c->refusal.n == 0);
    *a = (struct meant){.reasoning = cm_arena_str(arena, cm_buf_str(&c->reasoning)),
                        .text = cm_arena_str(arena, cm_buf_str(&c->text)),
                        .n_calls = c->n_calls,
                        .finish = c->finish,
                        .usage = answer->usage};
    for (size_t i = 0; i < c->n_calls; i++)
        a->calls[i] = (struct call){cm_arena_str(arena, c->calls[i].id),
                                    cm_arena_str(arena, c->calls[i].name),
                                    cm_arena_str(arena, cm_buf_str(&c->calls[i].args))};
}

/* ---- through both ---- */

static struct cm_chat *question(struct cm_arena *arena, bool stream)
{
    struct cm_chat *chat = CM_ARENA_NEW(arena, struct cm_chat);

    chat->arena = arena;
    cm_chat_begin(chat, CM_DIALECT_OPENAI_RESPONSES, CM_TASK_CHAT, CM_STR_NONE);
    chat->model = CM_S("m");
    chat->msgs = CM_ARENA_NEW(arena, struct cm_msg);
    chat->msgs->parts = CM_ARENA_NEW(arena, struct cm_part);
    *chat->msgs->parts = (struct cm_part){.kind = CM_PART_TEXT, .text = CM_S("hi")};
    chat->msgs->role = CM_ROLE_USER;
    chat->msgs->n_parts = chat->n_msgs = 1;
    chat->stream = stream;
    chat->show_thinking = 1;
    return chat;
}

static void one_case(struct wire *w, enum wire_dialect a, enum wire_dialect b, uint64_t seed)
{
    struct cm_arena arena = {0};
    struct maker m = {.arena = &arena};
    const enum wire_dialect way[] = {a, b};
    struct meant answer;
    struct cm_str before;

    cm_rng_seed(&m.rng, seed);
    make(&m, a != WIRE_gemini && b != WIRE_gemini, &answer);
    before = said(&arena, &answer);
    for (size_t i = 0; i < CM_COUNT(way); i++) {
        const bool stream = below(&m, 2) == 0;
        struct cm_chat *chat = question(&arena, stream);
        const struct cm_str bytes = written(&m, way[i], chat, &answer);
        struct cm_answer got = {0};
        struct cm_err err = {0};
        struct cm_str now;

        ck_assert_msg(wire_read(w, way[i], chat, bytes, stream, 1 + below(&m, 200), &got, &err) ==
                          0,
                      "SEED=%llu: %s: %s", (unsigned long long)seed, wire_names[way[i]], err.msg);
        take(&arena, &got, &answer);
        cm_answer_clear(&got);
        now = said(&arena, &answer);
        if (!cm_str_eq(now, before)) {
            fprintf(stderr, CM_PRI "\nbecame\n" CM_PRI "\nin " CM_PRI "\n", CM_ARG(before),
                    CM_ARG(now), CM_ARG(bytes));
            ck_abort_msg("SEED=%llu: %s says something else", (unsigned long long)seed,
                         wire_names[way[i]]);
        }
    }
    cm_arena_clear(&arena);
}

static unsigned long long number(const char *name, unsigned long long otherwise)
{
    const char *given = getenv(name);

    return given ? strtoull(given, NULL, 10) : otherwise;
}

START_TEST(answers)
{
    const enum wire_dialect a = (enum wire_dialect)(_i / WIRE_N),
                            b = (enum wire_dialect)(_i % WIRE_N);
    const unsigned long long only = number("SEED", 0), cases = only ? 1 : number("CASES", 2000);
    struct wire *w = wire_new();

    for (unsigned long long i = 0; i < cases; i++)
        one_case(w, a, b, only ? only : 1 + i * WIRE_N * WIRE_N + (unsigned)_i);
    wire_free(w);
}
END_TEST

Suite *suite_roundtrip_answers(void)
{
    Suite *s = suite_create("roundtrip_answers");
    TCase *tc = tcase_create("answers");

    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, answers, 0, WIRE_N * WIRE_N);
    suite_add_tcase(s, tc);
    return s;
}
