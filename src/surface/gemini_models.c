/* GET /v1beta/models and one entry. Protocol notes, sections 3 and 6. */
#include "chatmux/chat/models.h"
#include "gemini_int.h"

static void put_methods(const struct cm_model_listed *m, struct cm_buf *out)
{
    if (cm_str_has(m->id, CM_S("embed")))
        cm_buf_append(out, CM_S("[\"embedContent\",\"batchEmbedContents\"]"));
    else
        cm_buf_append(out, CM_S("[\"generateContent\",\"countTokens\"]"));
}

void cm_gemini_model(const struct cm_model_listed *m, struct cm_buf *out)
{
    struct cm_buf name = {0};

    cm_buf_append(&name, CM_S("models/"));
    cm_buf_append(&name, m->id);
    cm_buf_append(out, CM_S("{\"name\":"));
    cm_json_put_str(out, cm_buf_str(&name));
    cm_buf_clear(&name);
    cm_buf_append(out, CM_S(",\"baseModelId\":"));
    cm_json_put_str(out, m->id);
    cm_buf_append(out, CM_S(",\"version\":\"001\",\"displayName\":"));
    cm_json_put_str(out, m->id);
    if (m->row && m->row->context_tokens > 0) {
        cm_buf_append(out, CM_S(",\"inputTokenLimit\":"));
        cm_json_put_int(out, m->row->context_tokens);
    }
    if (m->row && m->row->max_output_tokens > 0) {
        cm_buf_append(out, CM_S(",\"outputTokenLimit\":"));
        cm_json_put_int(out, m->row->max_output_tokens);
    }
    cm_buf_append(out, CM_S(",\"supportedGenerationMethods\":"));
    put_methods(m, out);
    if (m->row && m->row->features & CM_MODEL_THINKING)
        cm_buf_append(out, CM_S(",\"thinking\":true"));
    cm_buf_put(out, '}');
}

void cm_gemini_models(const struct cm_model_listed *models, size_t n, size_t from, size_t count,
                      struct cm_buf *out)
{
    size_t end = from < n ? from + (count < n - from ? count : n - from) : n;

    cm_buf_append(out, CM_S("{\"models\":["));
    for (size_t i = from; i < end; i++) {
        if (i > from)
            cm_buf_put(out, ',');
        cm_gemini_model(&models[i], out);
    }
    cm_buf_put(out, ']');
    if (end < n)
        cm_buf_printf(out, ",\"nextPageToken\":\"%zu\"", end);
    cm_buf_put(out, '}');
}
