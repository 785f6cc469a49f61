/* Figures of an answer, which come in several pieces (protocol notes of Anthropic, section 3). */
#include "anthropic_int.h"

#define COUNT_MAX (UINT64_C(1) << 40) /* nobody means more, and sums of such cannot overflow */

static void read_count(yyjson_val *usage, const char *key, int64_t *out)
{
    yyjson_val *v = cm_json_get(usage, key);

    if (yyjson_is_uint(v) && yyjson_get_uint(v) <= COUNT_MAX)
        *out = (int64_t)yyjson_get_uint(v);
}

void anthropic_read_usage(yyjson_val *usage, struct cm_usage *out)
{
    int64_t produced = cm_usage_out(out), thought = out->out_reasoning;

    if (!yyjson_is_obj(usage))
        return;
    out->source = CM_USAGE_UPSTREAM;
    /* disjoint as they come: input_tokens is without cached ones */
    read_count(usage, "input_tokens", &out->in_uncached);
    read_count(usage, "cache_read_input_tokens", &out->in_cache_read);
    read_count(usage, "cache_creation_input_tokens", &out->in_cache_write);
    read_count(usage, "output_tokens", &produced);
    read_count(cm_json_get(usage, "output_tokens_details"), "thinking_tokens", &thought);
    out->out_reasoning = thought < produced ? thought : produced;
    out->out_text = produced - out->out_reasoning;
    if (yyjson_is_str(cm_json_get(usage, "service_tier")))
        cm_str_copy(out->service_tier, sizeof(out->service_tier),
                    cm_json_str(cm_json_get(usage, "service_tier")));
}

void anthropic_begin_usage(struct cm_run *run, yyjson_val *root, struct cm_usage *out)
{
    struct cm_usage so_far;

    anthropic_read_usage(cm_json_get(cm_json_get(root, "message"), "usage"), out);
    if (out->source == CM_USAGE_NONE)
        return;
    so_far = *out;
    so_far.source = CM_USAGE_PARTIAL;
    so_far.out_text = so_far.out_reasoning = 0; /* counted as it comes */
    cm_run_usage(run, &so_far);
}
