/* Probabilities of tokens: OpenAI's entries as logprobsResult. Protocol notes, section 3. */
#include "gemini_int.h"

#include <math.h>

static void put_candidate(struct cm_buf *out, yyjson_val *entry)
{
    yyjson_val *logprob = cm_json_get(entry, "logprob");

    cm_buf_append(out, CM_S("{\"token\":"));
    cm_json_put_str(out, cm_json_str(cm_json_get(entry, "token")));
    if (yyjson_is_num(logprob)) {
        cm_buf_append(out, CM_S(",\"logProbability\":"));
        cm_json_put_val(out, logprob);
    }
    cm_buf_put(out, '}');
}

static void put_candidates(struct cm_buf *out, yyjson_val *entries)
{
    yyjson_val *entry;
    size_t i, n;

    yyjson_arr_foreach(entries, i, n, entry)
    {
        if (i > 0)
            cm_buf_put(out, ',');
        put_candidate(out, entry);
    }
}

static void put_tops(struct cm_buf *out, yyjson_val *entries)
{
    yyjson_val *entry;
    size_t i, n;

    cm_buf_append(out, CM_S("\"topCandidates\":["));
    yyjson_arr_foreach(entries, i, n, entry)
    {
        cm_buf_append(out, i > 0 ? CM_S(",{\"candidates\":[") : CM_S("{\"candidates\":["));
        put_candidates(out, cm_json_get(entry, "top_logprobs"));
        cm_buf_append(out, CM_S("]}"));
    }
    cm_buf_append(out, CM_S("],"));
}

static void count(struct cm_gemini_mean *mean, yyjson_val *entries)
{
    yyjson_val *entry;
    size_t i, n;

    yyjson_arr_foreach(entries, i, n, entry)
    {
        yyjson_val *logprob = cm_json_get(entry, "logprob");

        if (yyjson_is_num(logprob)) {
            mean->sum += yyjson_get_num(logprob);
            mean->n++;
        }
    }
}

void cm_gemini_put_logprobs(struct cm_buf *out, const struct cm_answer_meta *meta,
                            struct cm_str array, struct cm_gemini_mean *mean)
{
    yyjson_doc *doc = array.n > 0 ? cm_json_parse(array, &cm_json_limits_request, NULL) : NULL;
    yyjson_val *entries = yyjson_doc_get_root(doc);

    if (yyjson_arr_size(entries) > 0) {
        cm_buf_append(out, CM_S(",\"logprobsResult\":{"));
        if (meta->chat->top_logprobs > 0)
            put_tops(out, entries);
        cm_buf_append(out, CM_S("\"chosenCandidates\":["));
        put_candidates(out, entries);
        cm_buf_append(out, CM_S("]}"));
        count(mean, entries);
    }
    yyjson_doc_free(doc);
}

void cm_gemini_put_mean(struct cm_buf *out, const struct cm_gemini_mean *mean)
{
    const double value = mean->n > 0 ? mean->sum / (double)mean->n : NAN;

    if (isfinite(value))
        cm_buf_printf(out, ",\"avgLogprobs\":%.9g", value);
}
