/* The parts of the Gemini surface. Loop thread only, parsing apart, which may happen on another. */
#ifndef SURFACE_GEMINI_INT_H
#define SURFACE_GEMINI_INT_H

#include "chatmux/surface/surface.h"
#include "fields_int.h"

/* ---- gemini_parse.c ---- */

/* Protobuf JSON knows every member in two spellings: "topP" and "top_p"; null counts as absent. `camel` is the first one. */
yyjson_val *cm_gemini_member(const yyjson_val *obj, const char *camel);

struct cm_gemini_reader {
    struct cm_chat *chat;
    struct cm_err *err;
    struct cm_buf msgs, parts; /* lists while they grow */
    size_t n_calls;            /* in the whole conversation */
};

/* Remembers the first thing that the canonical model has no words for; `fmt` completes the sentence about the spot. */
void cm_gemini_untranslatable(struct cm_gemini_reader *r, const struct cm_spot *at, const char *fmt,
                              ...) __attribute__((format(printf, 3, 4)));
/* The model of "models/NAME:operation", which is chat->path. */
int cm_gemini_read_model(struct cm_chat *chat, struct cm_err *err);

int cm_gemini_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err);
int cm_gemini_count_parse(struct cm_chat *chat, struct cm_str body, struct cm_err *err);

/* ---- gemini_contents.c: who said what ---- */

int cm_gemini_read_system(struct cm_gemini_reader *r, yyjson_val *v);
int cm_gemini_read_contents(struct cm_gemini_reader *r, yyjson_val *v);

/* ---- gemini_tools.c: what may be called ---- */

int cm_gemini_read_tools(struct cm_gemini_reader *r, yyjson_val *tools, yyjson_val *config);
/* The schema of `parameters` and responseSchema as JSON Schema: types in lower case, nullable as a type or a choice. In the arena. */
struct cm_str cm_gemini_json_schema(struct cm_arena *arena, const yyjson_val *v);

/* ---- gemini_write.c: what an answer has in common with a stream ---- */

const char *cm_gemini_finish(enum cm_finish finish);
void cm_gemini_put_usage(struct cm_buf *out, const struct cm_usage *usage);
/* {"functionCall":{…}} */
void cm_gemini_put_call(struct cm_buf *out, struct cm_str id, struct cm_str name,
                        struct cm_str args);
/* {"inlineData":{…}}, or a link in a text where there is only an address. */
void cm_gemini_put_image(struct cm_buf *out, const struct cm_image_acc *image);
/* "groundingMetadata":{…} */
void cm_gemini_put_grounding(struct cm_buf *out, const struct cm_citation *citations, size_t n);
/* ,"modelVersion":…,"responseId":… */
void cm_gemini_put_meta(struct cm_buf *out, const struct cm_answer_meta *meta);
void cm_gemini_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                     struct cm_buf *out);

/* ---- gemini_logprobs.c ---- */

struct cm_gemini_mean {
    double sum;
    uint64_t n;
};
/* ,"logprobsResult":{…} of OpenAI's entries, which count in *mean; nothing where there are none. */
void cm_gemini_put_logprobs(struct cm_buf *out, const struct cm_answer_meta *meta,
                            struct cm_str array, struct cm_gemini_mean *mean);
/* ,"avgLogprobs":… */
void cm_gemini_put_mean(struct cm_buf *out, const struct cm_gemini_mean *mean);

/* ---- gemini_write.c again: errors and thoughts ---- */

/* {"error":{…}}, bare or as the only element of an array. */
void cm_gemini_put_error(const struct cm_err *err, struct cm_buf *out);
void cm_gemini_put_error_array(const struct cm_err *err, struct cm_buf *out);

/* Thoughts are told to clients that asked for them. */
bool cm_gemini_shows_thoughts(const struct cm_answer_meta *meta);

#endif
