/* embedContent and batchEmbedContents: texts in, a vector for each out. Protocol notes, sections 3 and 6. */
#include "gemini_int.h"

#include "chatmux/base/mem.h"

#include <math.h>

typedef struct cm_gemini_reader reader;

#define BATCH_MAX 100
#define DIMENSIONS_MAX 65536

/* {"parts":[{"text":…}]} as one text. */
static int read_text(reader *r, yyjson_val *content, const struct cm_spot *at, struct cm_str *out)
{
    const struct cm_spot *parts_spot = CM_SPOT(at, "parts");
    yyjson_val *parts = cm_gemini_member(content, "parts"), *v;
    struct cm_buf text = {0};
    int failed = 0;
    size_t i, n;

    if (!content)
        return cm_field_missing(r->err, at);
    if (cm_field_is_object(content, at, r->err) || cm_field_is_array(parts, parts_spot, r->err))
        return -1;
    yyjson_arr_foreach(parts, i, n, v)
    {
        struct cm_str piece = CM_STR_NONE;

        failed = failed || cm_field_str(cm_gemini_member(v, "text"),
                                        CM_SPOT(CM_SPOT_AT(parts_spot, i), "text"), &piece, r->err);
        if (!cm_gemini_member(v, "text"))
            cm_gemini_untranslatable(r, CM_SPOT_AT(parts_spot, i),
                                     "this model's provider makes vectors of texts only");
        if (text.n > 0 && piece.n > 0)
            cm_buf_put(&text, '\n');
        cm_buf_append(&text, piece);
    }
    *out = cm_buf_settle(&text, r->chat->arena);
    return failed ? -1 : 0;
}

/* One request of a batch; for other providers they have to agree on the size. */
static int read_one(reader *r, yyjson_val *v, const struct cm_spot *at, size_t index)
{
    static const char *const dropped[] = {"taskType", "title"};
    struct cm_chat *chat = r->chat;
    int64_t dimensions = -1;

    if (read_text(r, cm_gemini_member(v, "content"), CM_SPOT(at, "content"),
                  &chat->inputs[index]) ||
        cm_field_int(cm_gemini_member(v, "outputDimensionality"),
                     CM_SPOT(at, "outputDimensionality"), 1, DIMENSIONS_MAX, &dimensions, r->err))
        return -1;
    if (index > 0 && dimensions != chat->dimensions)
        cm_gemini_untranslatable(r, CM_SPOT(at, "outputDimensionality"),
                                 "this model's provider makes vectors of one size at a time");
    chat->dimensions = dimensions;
    for (size_t i = 0; i < CM_COUNT(dropped); i++) {
        if (cm_gemini_member(v, dropped[i]))
            cm_chat_drop(chat, cm_str_of(dropped[i]));
    }
    return 0;
}

static int parse_one(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    /* both spellings, so that none occurs twice */
    static const struct cm_str names[] = {CM_S_INIT("content"),
                                          CM_S_INIT("outputDimensionality"),
                                          CM_S_INIT("output_dimensionality"),
                                          CM_S_INIT("taskType"),
                                          CM_S_INIT("task_type"),
                                          CM_S_INIT("title")};
    yyjson_val *top[CM_COUNT(names)];
    reader r = {.chat = chat, .err = err};

    if (cm_field_body(chat, CM_DIALECT_GEMINI, CM_TASK_EMBEDDING, body, names, CM_COUNT(names), top,
                      err) ||
        cm_gemini_read_model(chat, err))
        return -1;
    chat->inputs = CM_ARENA_ARRAY(chat->arena, struct cm_str, 1);
    chat->n_inputs = 1;
    if (top[3] || top[4])
        cm_chat_drop(chat, names[3]);
    if (top[5])
        cm_chat_drop(chat, names[5]);
    return read_text(&r, top[0], CM_SPOT(NULL, "content"), &chat->inputs[0]) ||
                   cm_field_int(top[1] ? top[1] : top[2], CM_SPOT(NULL, "outputDimensionality"), 1,
                                DIMENSIONS_MAX, &chat->dimensions, err)
               ? -1
               : 0;
}

static int parse_batch(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    static const struct cm_str names[] = {CM_S_INIT("requests")};
    const struct cm_spot *at = CM_SPOT(NULL, "requests");
    yyjson_val *top[CM_COUNT(names)], *v;
    reader r = {.chat = chat, .err = err};
    size_t i, n;

    if (cm_field_body(chat, CM_DIALECT_GEMINI, CM_TASK_EMBEDDING, body, names, CM_COUNT(names), top,
                      err) ||
        cm_gemini_read_model(chat, err))
        return -1;
    n = yyjson_arr_size(top[0]);
    if (!top[0])
        return cm_field_missing(err, at);
    if (cm_field_is_array(top[0], at, err))
        return -1;
    if (n == 0 || n > BATCH_MAX)
        return cm_field_fail(err, at, NULL, "A batch has 1 to %d requests.", BATCH_MAX);
    chat->inputs = CM_ARENA_ARRAY(chat->arena, struct cm_str, n);
    chat->n_inputs = n;
    yyjson_arr_foreach(top[0], i, n, v)
    {
        if (read_one(&r, v, CM_SPOT_AT(at, i), i))
            return -1;
    }
    return 0;
}

/* Nine digits tell every float32 from its neighbours. */
static void put_values(struct cm_buf *out, struct cm_str vector)
{
    cm_buf_append(out, CM_S("{\"values\":["));
    for (size_t i = 0; i + sizeof(float) <= vector.n; i += sizeof(float)) {
        float f;

        memcpy(&f, vector.p + i, sizeof(f));
        cm_buf_printf(out, i > 0 ? ",%.9g" : "%.9g", isfinite(f) ? (double)f : 0.0);
    }
    cm_buf_append(out, CM_S("]}"));
}

static void whole_one(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                      struct cm_buf *out)
{
    (void)meta;
    cm_buf_append(out, CM_S("{\"embedding\":"));
    put_values(out, answer->n_vectors > 0 ? cm_buf_str(&answer->vectors[0]) : CM_STR_NONE);
    cm_buf_put(out, '}');
}

static void whole_batch(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                        struct cm_buf *out)
{
    (void)meta;
    cm_buf_append(out, CM_S("{\"embeddings\":["));
    for (size_t i = 0; i < answer->n_vectors; i++) {
        if (i > 0)
            cm_buf_put(out, ',');
        put_values(out, cm_buf_str(&answer->vectors[i]));
    }
    cm_buf_append(out, CM_S("]}"));
}

const struct cm_surface cm_surface_gemini_embed = {
    .dialect = CM_DIALECT_GEMINI,
    .task = CM_TASK_EMBEDDING,
    .id_prefix = CM_S_INIT("embd-"),
    .parse = parse_one,
    .whole = whole_one,
    .error_body = cm_gemini_put_error,
};

const struct cm_surface cm_surface_gemini_batch_embed = {
    .dialect = CM_DIALECT_GEMINI,
    .task = CM_TASK_EMBEDDING,
    .id_prefix = CM_S_INIT("embd-"),
    .parse = parse_batch,
    .whole = whole_batch,
    .error_body = cm_gemini_put_error,
};
