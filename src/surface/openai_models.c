/* GET /v1/models: entries that the SDKs of OpenAI and of Anthropic both accept, with the extra
 * fields clients read. */
#include "chatmux/surface/surface.h"

#include "chatmux/base/clock.h"
#include "chatmux/chat/models.h"
#include "chatmux/codec/json.h"

void cm_openai_model(const struct cm_model_listed *model, int64_t created_s, struct cm_buf *out)
{
    char created_at[CM_RFC3339_CAP];

    cm_rfc3339(created_s * 1000, created_at);
    cm_buf_append(out, CM_S("{\"id\":"));
    cm_json_put_str(out, model->id);
    cm_buf_append(out, CM_S(",\"object\":\"model\",\"created\":"));
    cm_json_put_int(out, created_s);
    cm_buf_append(out, CM_S(",\"owned_by\":"));
    cm_json_put_str(out, model->owner);
    cm_buf_append(out, CM_S(",\"type\":\"model\",\"display_name\":"));
    cm_json_put_str(out, model->id);
    cm_buf_append(out, CM_S(",\"created_at\":"));
    cm_json_put_z(out, created_at);
    if (model->row && model->row->context_tokens > 0) {
        cm_buf_append(out, CM_S(",\"context_length\":"));
        cm_json_put_int(out, model->row->context_tokens);
        cm_buf_append(out, CM_S(",\"max_input_tokens\":"));
        cm_json_put_int(out, model->row->context_tokens);
    }
    if (model->row && model->row->max_output_tokens > 0) {
        cm_buf_append(out, CM_S(",\"max_tokens\":"));
        cm_json_put_int(out, model->row->max_output_tokens);
        cm_buf_append(out, CM_S(",\"top_provider\":{\"max_completion_tokens\":"));
        cm_json_put_int(out, model->row->max_output_tokens);
        cm_buf_put(out, '}');
    }
    cm_buf_put(out, '}');
}

static void put_id(const struct cm_model_listed *model, struct cm_buf *out)
{
    if (model)
        cm_json_put_str(out, model->id);
    else
        cm_buf_append(out, CM_S("null"));
}

void cm_openai_models(const struct cm_model_listed *models, size_t n, int64_t created_s,
                      struct cm_buf *out)
{
    cm_buf_append(out, CM_S("{\"object\":\"list\",\"data\":["));
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            cm_buf_put(out, ',');
        cm_openai_model(&models[i], created_s, out);
    }
    cm_buf_append(out, CM_S("],\"has_more\":false,\"first_id\":"));
    put_id(n > 0 ? &models[0] : NULL, out);
    cm_buf_append(out, CM_S(",\"last_id\":"));
    put_id(n > 0 ? &models[n - 1] : NULL, out);
    cm_buf_put(out, '}');
}
