/* What upstreams of the three dialects answer: streams, whole bodies, refusals, vectors, counts and lists of models, in both lanes, at any cuts. Whatever comes, the adapter
 * ends with an answer or a sound error, and what it tells can be written in every dialect.
 *
 * Input: a byte for dialect and kind, one for the size of the pieces, the body. */
#include "../unit/wire.h"

#include "chatmux/base/config.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"
#include "chatmux/codec/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const questions[WIRE_N][2] = {
    {"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
     "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"},
    {"{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
     "{\"model\":\"m\",\"max_tokens\":9,\"stream\":true,\"messages\":[{\"role\":\"user\","
     "\"content\":\"hi\"}]}"},
    {"{\"contents\":[{\"parts\":[{\"text\":\"hi\"}]}]}",
     "{\"contents\":[{\"parts\":[{\"text\":\"hi\"}]}]}"},
};

/* A client of each dialect who gets what is told. */
struct reader {
    void *states[WIRE_N];
    struct cm_buf out[WIRE_N];
    struct cm_answer whole;
    bool collects; /* until it is too much, or has a part that only a stream may have */
    bool translated;
};

static void on_event(void *arg, const struct cm_event *ev)
{
    struct reader *r = arg;
    struct cm_err err;

    if (!r->translated)
        return;
    CM_ASSERT(ev->kind != CM_EVENT_HEAD && ev->kind != CM_EVENT_RELAY);
    if (ev->kind == CM_EVENT_TEXT || ev->kind == CM_EVENT_REASONING)
        CM_ASSERT(cm_utf8_valid(ev->text) == ev->text.n);
    for (int d = 0; d < WIRE_N; d++) {
        wire_surfaces[d]->stream_event(r->states[d], ev, &r->out[d]);
        CM_ASSERT(cm_utf8_valid(cm_buf_str(&r->out[d])) == r->out[d].n);
        cm_buf_reset(&r->out[d]);
    }
    r->collects = r->collects && cm_answer_add(&r->whole, ev, &err) == 0;
}

static void check_json(struct cm_buf *text)
{
    yyjson_doc *doc = cm_json_parse(cm_buf_str(text), &cm_json_limits_event, NULL);

    CM_ASSERT(doc);
    yyjson_doc_free(doc);
    cm_buf_reset(text);
}

static void play(struct wire *w, enum wire_dialect d, bool relay, const struct wire_answer *answer)
{
    struct cm_arena arena = {0};
    struct cm_err err = {0};
    struct cm_chat *chat =
        wire_parse(d, cm_str_of(questions[d][answer->stream]), answer->stream, &arena, &err);
    const struct cm_answer_meta meta = {.id = CM_S("id"),
                                        .model = CM_S("m"),
                                        .include_usage = true,
                                        .n = 1,
                                        .reasoning = CM_REASONING_FIELD,
                                        .chat = chat};
    const struct cm_usage usage = {0};
    struct reader r = {.collects = true, .translated = !relay};

    for (int i = 0; i < WIRE_N; i++) {
        r.states[i] = cm_arena_alloc(&arena, wire_surfaces[i]->stream_size);
        memset(r.states[i], 0, wire_surfaces[i]->stream_size);
        wire_surfaces[i]->stream_begin(r.states[i], &meta, &r.out[i]);
    }
    if (wire_play(w, d, chat, relay, answer, on_event, &r, &err))
        CM_ASSERT(err.msg[0] != '\0' && cm_utf8_valid(cm_str_of(err.msg)) == strlen(err.msg));
    for (int i = 0; i < WIRE_N; i++) {
        wire_surfaces[i]->stream_end(r.states[i], &usage, &r.out[i]);
        wire_surfaces[i]->stream_clear(r.states[i]);
        cm_buf_reset(&r.out[i]);
        if (r.collects && r.translated && r.whole.n_choices > 0) {
            wire_surfaces[i]->whole(&meta, &r.whole, &r.out[i]);
            check_json(&r.out[i]);
        }
        if (err.cls != CM_ERR_NONE) {
            wire_surfaces[i]->error_body(&err, &r.out[i]);
            check_json(&r.out[i]);
        }
        cm_buf_clear(&r.out[i]);
    }
    cm_answer_clear(&r.whole);
    cm_arena_clear(&arena);
}

static void count_vectors(void *arg, const struct cm_event *ev)
{
    struct cm_err err;

    if (ev->kind == CM_EVENT_EMBEDDING)
        CM_ASSERT(ev->data.n % sizeof(float) == 0);
    if (cm_answer_add(arg, ev, &err))
        CM_ASSERT(err.msg[0] != '\0');
}

/* Vectors, or a count: asked for in another dialect than the platform's. */
static void play_task(struct wire *w, enum wire_dialect d, const struct wire_answer *answer)
{
    static const struct {
        const struct cm_surface *surface;
        const char *body;
    } tasks[][2] = {
        {{&cm_surface_gemini_embed, "{\"content\":{\"parts\":[{\"text\":\"a\"}]}}"},
         {&cm_surface_openai_embeddings, "{\"model\":\"m\",\"input\":[\"a\",\"b\"]}"}},
        {{&cm_surface_gemini_count, "{\"contents\":[{\"parts\":[{\"text\":\"a\"}]}]}"},
         {&cm_surface_anthropic_count,
          "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}"}},
    };
    const size_t which = answer->piece % 2, how = d == WIRE_anthropic ? 1 : answer->piece / 2 % 2;
    struct cm_arena arena = {0};
    struct cm_chat chat = {.arena = &arena, .path = CM_S("m:embedContent")};
    struct cm_answer got = {0};
    struct cm_err err = {0};

    CM_ASSERT(tasks[how][which].surface->parse(&chat, cm_str_of(tasks[how][which].body), &err) ==
              0);
    if (how == 0 || d != WIRE_openai) /* which has no counts */
        wire_play(w, d, &chat, false, answer, count_vectors, &got, &err);
    cm_answer_clear(&got);
    cm_arena_clear(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum {
        STREAM,
        STREAM_RELAYED,
        WHOLE,
        WHOLE_RELAYED,
        REFUSED,
        REFUSED_RELAYED,
        MODELS,
        TASK,
        KINDS
    };
    static const int refusals[] = {400, 401, 403, 404, 413, 429, 500, 503, 529};
    static struct wire *w; /* one loop for all inputs */
    struct wire_answer answer = {0};
    struct cm_err err;
    enum wire_dialect d;
    int kind;

    if (size < 2)
        return 0;
    if (!w)
        w = wire_new();
    kind = data[0] % KINDS;
    d = (enum wire_dialect)(data[0] / KINDS % WIRE_N);
    answer.piece = data[1] > 0 ? data[1] : SIZE_MAX;
    answer.bytes = cm_str((const char *)data + 2, size - 2);
    answer.stream = kind == STREAM || kind == STREAM_RELAYED;
    if (kind == REFUSED || kind == REFUSED_RELAYED)
        answer.status = refusals[data[0] / (KINDS * WIRE_N) % CM_COUNT(refusals)];
    if (kind == MODELS)
        wire_models(w, d, &answer, &err);
    else if (kind == TASK)
        play_task(w, d, &answer);
    else
        play(w, d, kind % 2 == 1, &answer);
    return 0;
}
