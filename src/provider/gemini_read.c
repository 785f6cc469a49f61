/* What the platform says: response objects, each a delta in a stream, into canonical events. Wire facts: Gemini protocol notes, sections 3 and 5. */
#include "gemini_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/rand.h"

#define COUNT_MAX (INT64_C(1) << 40) /* nobody means more, and sums of such cannot overflow */
#define CALL_ID_MAX 40               /* of an OpenAI client */

/* ---- usage ---- */

/* 64-bit integers may be strings. */
static int64_t count_of(yyjson_val *obj, const char *key)
{
    yyjson_val *v = cm_json_get(obj, key);
    uint64_t n = 0;

    if (yyjson_is_uint(v))
        n = yyjson_get_uint(v);
    else if (!cm_str_to_u64(cm_json_str(v), COUNT_MAX, &n))
        n = 0;
    return n <= COUNT_MAX ? (int64_t)n : 0;
}

static int64_t sound_of(yyjson_val *details)
{
    int64_t sum = 0;
    yyjson_val *d;
    size_t i, n;

    if (!yyjson_is_arr(details))
        return 0;
    yyjson_arr_foreach(details, i, n, d)
    {
        if (cm_str_eq(cm_json_str(cm_json_get(d, "modality")), CM_S("AUDIO")))
            sum += count_of(d, "tokenCount");
    }
    return sum;
}

/* Cumulative: the last one counts. The prompt's figure includes what was cached, the candidates' does not include thoughts. */
static void read_usage(struct cm_run *run, struct gemini_reader *r, yyjson_val *u)
{
    const int64_t prompt = count_of(u, "promptTokenCount") + count_of(u, "toolUsePromptTokenCount");
    const int64_t told = count_of(u, "cachedContentTokenCount");
    const int64_t cached = told < prompt ? told : prompt;
    const struct cm_usage *b = &r->before;

    if (!yyjson_is_obj(u))
        return;
    r->usage = (struct cm_usage){
        .source = CM_USAGE_UPSTREAM,
        .in_uncached = b->in_uncached + prompt - cached,
        .in_cache_read = b->in_cache_read + cached,
        .out_text = b->out_text + count_of(u, "candidatesTokenCount"),
        .out_reasoning = b->out_reasoning + count_of(u, "thoughtsTokenCount"),
        .in_audio = b->in_audio + sound_of(cm_json_get(u, "promptTokensDetails")),
        .out_audio = b->out_audio + sound_of(cm_json_get(u, "candidatesTokensDetails"))};
    cm_run_usage(run, &r->usage);
}

/* ---- finish reasons ---- */

static const struct {
    const char *reason;
    enum cm_finish finish;
} finishes[] = {
    {"STOP", CM_FINISH_STOP},
    {"MAX_TOKENS", CM_FINISH_LENGTH},
    {"SAFETY", CM_FINISH_CONTENT_FILTER},
    {"RECITATION", CM_FINISH_CONTENT_FILTER},
    {"LANGUAGE", CM_FINISH_CONTENT_FILTER},
    {"BLOCKLIST", CM_FINISH_CONTENT_FILTER},
    {"PROHIBITED_CONTENT", CM_FINISH_CONTENT_FILTER},
    {"SPII", CM_FINISH_CONTENT_FILTER},
    {"IMAGE_SAFETY", CM_FINISH_CONTENT_FILTER},
    {"IMAGE_PROHIBITED_CONTENT", CM_FINISH_CONTENT_FILTER},
    {"IMAGE_RECITATION", CM_FINISH_CONTENT_FILTER},
};

static enum cm_finish finish_of(struct cm_str reason)
{
    for (size_t i = 0; i < CM_COUNT(finishes); i++) {
        if (cm_str_eq(reason, cm_str_of(finishes[i].reason)))
            return finishes[i].finish;
    }
    return CM_FINISH_STOP;
}

static bool is_malformed(struct cm_str reason)
{
    return cm_str_eq(reason, CM_S("MALFORMED_FUNCTION_CALL")) ||
           cm_str_eq(reason, CM_S("UNEXPECTED_TOOL_CALL")) ||
           cm_str_eq(reason, CM_S("TOO_MANY_TOOL_CALLS"));
}

/* ---- parts ---- */

static void read_call(struct cm_run *run, struct gemini_candidate *c, int choice, yyjson_val *part,
                      yyjson_val *call)
{
    struct cm_event begin = {.kind = CM_EVENT_TOOL_CALL,
                             .choice = choice,
                             .index = c->calls++,
                             .id = cm_json_str(cm_json_get(call, "id")),
                             .name = cm_json_str(cm_json_get(call, "name"))};
    struct cm_event args = {
        .kind = CM_EVENT_TOOL_ARGS, .choice = choice, .index = begin.index, .text = CM_S("{}")};
    yyjson_val *given = cm_json_opt(call, "args");
    struct cm_str signature = cm_json_str(cm_json_get(part, "thoughtSignature"));
    char made[CM_ID_CAP];
    struct cm_buf text = {0};

    if (!cm_str_is_word(begin.id, CALL_ID_MAX)) {
        cm_id_make(made, "call_", cm_run_unix_ms(run));
        begin.id = cm_str_of(made);
    }
    if (signature.n > 0)
        gemini_keep_signature(run, begin.id, signature);
    if (yyjson_is_obj(given)) {
        cm_json_put_val(&text, given);
        args.text = cm_buf_str(&text);
    }
    cm_run_emit(run, &begin);
    cm_run_emit(run, &args);
    cm_buf_clear(&text);
}

static bool read_blob(struct cm_run *run, int choice, yyjson_val *blob)
{
    struct cm_event image = {.kind = CM_EVENT_IMAGE,
                             .choice = choice,
                             .media_type = cm_json_str(cm_json_get(blob, "mimeType")),
                             .data = cm_json_str(cm_json_get(blob, "data"))};

    if (image.data.n == 0 || !(cm_str_starts(image.media_type, CM_S("image/")) ||
                               cm_str_starts(image.media_type, CM_S("video/"))))
        return false;
    cm_run_emit(run, &image);
    return true;
}

/* True when the part means something. */
static bool read_part(struct cm_run *run, struct gemini_reader *r, struct gemini_candidate *c,
                      int choice, yyjson_val *part)
{
    yyjson_val *call = cm_json_opt(part, "functionCall"), *blob = cm_json_opt(part, "inlineData"),
               *thought = cm_json_get(part, "thought");
    struct cm_event said = {.kind = yyjson_is_true(thought) ? CM_EVENT_REASONING : CM_EVENT_TEXT,
                            .choice = choice,
                            .text = cm_json_str(cm_json_get(part, "text"))};

    if (r->relayed)
        return said.text.n > 0 || call || blob || cm_json_opt(part, "executableCode") ||
               cm_json_opt(part, "codeExecutionResult") || cm_json_opt(part, "fileData");
    if (yyjson_is_obj(call)) {
        read_call(run, c, choice, part, call);
        return true;
    }
    if (yyjson_is_obj(blob) && !yyjson_is_true(thought)) /* pictures of thoughts are drafts */
        return read_blob(run, choice, blob);
    if (said.text.n > 0)
        cm_run_emit(run, &said);
    return said.text.n > 0; /* an empty text part only carries a signature */
}

static bool read_candidate(struct cm_run *run, struct gemini_reader *r, yyjson_val *candidate)
{
    const int64_t index = count_of(candidate, "index");
    struct cm_str reason = cm_json_str(cm_json_get(candidate, "finishReason"));
    yyjson_val *parts = cm_json_get(cm_json_get(candidate, "content"), "parts"), *part,
               *grounding = cm_json_opt(candidate, "groundingMetadata");
    struct gemini_candidate *c;
    bool semantic = false;
    size_t i, n;

    if (index >= GEMINI_CANDIDATES_MAX) {
        cm_run_odd(run, "a candidate beyond those that were asked for", CM_STR_NONE);
        return false;
    }
    c = &r->candidates[index];
    c->seen = true;
    if (yyjson_is_arr(parts)) {
        yyjson_arr_foreach(parts, i, n, part)
        {
            semantic |= read_part(run, r, c, (int)index, part);
        }
    }
    if (grounding && index == 0 && !r->relayed) {
        struct cm_buf text = {0};

        cm_json_put_val(&text, grounding);
        r->grounding = cm_buf_settle(&text, cm_run_arena(run));
    }
    if (reason.n > 0 && !cm_str_eq(reason, CM_S("FINISH_REASON_UNSPECIFIED"))) {
        c->finished = true;
        c->finish = finish_of(reason);
        r->malformed |= is_malformed(reason);
    }
    return semantic;
}

int gemini_read(struct cm_run *run, struct gemini_reader *r, struct cm_str object, bool *semantic,
                struct cm_err *err)
{
    struct cm_err why = {0};
    yyjson_doc *doc = cm_json_parse(object, &cm_json_limits_event, &why);
    yyjson_val *root = yyjson_doc_get_root(doc), *error = gemini_error_of(root),
               *candidates = cm_json_get(root, "candidates"), *candidate;
    bool meant = false;
    int failed = 0;
    size_t i, n;

    if (!yyjson_is_obj(root) && !error) {
        failed =
            cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent an answer that cannot be read: %s",
                    CM_ARG(cm_run_instance(run)->name), doc ? "it is no JSON object" : why.msg);
    } else if (error) {
        failed = gemini_refused(run, 0, 0, error, err);
    } else {
        if (yyjson_is_arr(candidates)) {
            yyjson_arr_foreach(candidates, i, n, candidate)
            {
                meant |= read_candidate(run, r, candidate);
            }
        }
        if (cm_json_str(cm_json_get(cm_json_get(root, "promptFeedback"), "blockReason")).n > 0)
            r->blocked = true;
        read_usage(run, r, cm_json_get(root, "usageMetadata"));
    }
    r->said |= meant;
    if (semantic)
        *semantic = meant;
    yyjson_doc_free(doc);
    return failed;
}

/* ---- the end ---- */

bool gemini_complete(const struct gemini_reader *r)
{
    bool any = false;

    for (size_t i = 0; i < GEMINI_CANDIDATES_MAX; i++) {
        if (r->candidates[i].seen && !r->candidates[i].finished)
            return false;
        any |= r->candidates[i].finished;
    }
    return any || r->blocked;
}

void gemini_reader_next(struct gemini_reader *r)
{
    r->before = r->usage;
    memset(r->candidates, 0, sizeof(r->candidates));
    r->said = r->blocked = r->malformed = false;
}

/* Pages that the answer rests on. */
static void cite(struct cm_run *run, const struct gemini_reader *r)
{
    yyjson_doc *doc = cm_json_parse(r->grounding, &cm_json_limits_event, NULL);
    yyjson_val *chunks = cm_json_get(yyjson_doc_get_root(doc), "groundingChunks"), *chunk;
    size_t i, n;

    if (yyjson_is_arr(chunks)) {
        yyjson_arr_foreach(chunks, i, n, chunk)
        {
            yyjson_val *web = cm_json_get(chunk, "web");
            struct cm_event ev = {.kind = CM_EVENT_CITATION,
                                  .url = cm_json_str(cm_json_get(web, "uri")),
                                  .name = cm_json_str(cm_json_get(web, "title"))};

            if (ev.url.n > 0)
                cm_run_emit(run, &ev);
        }
    }
    yyjson_doc_free(doc);
}

static bool is_filtered(const struct gemini_reader *r)
{
    return !r->said && (r->blocked || r->candidates[0].finish == CM_FINISH_CONTENT_FILTER);
}

int gemini_finish(struct cm_run *run, struct gemini_reader *r, struct cm_err *err)
{
    if (r->relayed)
        return 0;
    if (r->malformed && !r->said)
        return cm_fail(err, CM_ERR_UPSTREAM_DOWN,
                       CM_PRI ": the model made a function call that cannot be read",
                       CM_ARG(cm_run_instance(run)->name));
    if (r->draws && is_filtered(r))
        return cm_fail(err, CM_ERR_CONTENT_FILTER, "the platform refused to make this picture");
    if (r->grounding.n > 0)
        cite(run, r);
    for (size_t i = 0; i < GEMINI_CANDIDATES_MAX; i++) {
        const struct gemini_candidate *c = &r->candidates[i];
        struct cm_event ev = {.kind = CM_EVENT_FINISH, .choice = (int)i};

        if (!c->seen && !(i == 0 && r->blocked))
            continue;
        ev.finish = c->seen ? c->finish : CM_FINISH_CONTENT_FILTER;
        if (ev.finish == CM_FINISH_STOP && c->calls > 0)
            ev.finish = CM_FINISH_TOOL_CALLS;
        cm_run_emit(run, &ev);
    }
    return 0;
}
