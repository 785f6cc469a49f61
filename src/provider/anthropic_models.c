/* What Claude models take, by their names, or as GET /v1/models tells it (protocol notes of
 * Anthropic, section 2 "Thinking per model"). */
#include "anthropic_int.h"

/* In cm_model_row.number, of models that the upstream listed. */
#define TOLD (1 << 0)
#define HAS_BUDGET (1 << 1)
#define HAS_ADAPTIVE (1 << 2)
#define HAS_OFF (1 << 3)
#define HAS_EFFORT (1 << 4)
#define HAS_XHIGH (1 << 5)
#define HAS_MAX (1 << 6)
#define HAS_SCHEMA (1 << 7)

/* "claude-opus-4-8" -> 48, "claude-3-5-sonnet-20241022" -> 35, "claude-sonnet-5" -> 50; 0 = no
 * version in it, -1 = no Claude at all. */
static int version_of(struct cm_str model)
{
    const size_t at = cm_str_find(model, CM_S("claude-"));
    struct cm_str rest = cm_str_from(model, at == SIZE_MAX ? 0 : at + 7), words = CM_STR_NONE;
    int digits[2] = {0, 0};
    size_t n = 0;

    if (at == SIZE_MAX)
        return -1;
    while ((rest.n > 0 || words.n > 0) && n < 2) {
        struct cm_str word;
        uint64_t number;

        if (words.n == 0)
            words = cm_str_cut(&rest, '-');
        word = cm_str_cut(&words, '.'); /* some write 4.8 for 4-8 */

        if (word.n <= 2 && cm_str_to_u64(word, 99, &number))
            digits[n++] = (int)number;
        else if (n > 0)
            break; /* numbers of a version stand together: what follows is a date */
    }
    return digits[0] * 10 + (digits[1] < 10 ? digits[1] : 9);
}

static int64_t max_output_of(int version, bool opus)
{
    switch (version) {
    case 30:
        return 4096;
    case 35:
        return 8192;
    case 40:
    case 41:
        return opus ? 32000 : 64000;
    case 37:
    case 45:
        return 64000;
    default:
        return 0;
    }
}

static void by_name(struct cm_str model, struct anthropic_caps *out)
{
    const bool opus = cm_str_has(model, CM_S("opus"));
    const bool always = cm_str_has(model, CM_S("-fable")) || cm_str_has(model, CM_S("-mythos"));
    int v = version_of(model);

    if (v < 0) { /* another vendor's model behind the same dialect */
        *out = (struct anthropic_caps){.budget = true, .prefill = true};
        return;
    }
    if (v == 0 && always)
        v = 50;
    *out = (struct anthropic_caps){
        .budget = v >= 37 && v <= 45,
        .adaptive = v >= 46,
        .always = always,
        .by_default = always || v >= 50,
        .effort = v >= 46,
        .effort_xhigh = v >= 47,
        .effort_max = v >= 46,
        .schema = v >= 45 || (v == 41 && opus),
        .prefill = v <= 45,
        .sampling = v >= 47   ? ANTHROPIC_SAMPLING_NONE
                    : v >= 41 ? ANTHROPIC_SAMPLING_ONE
                              : ANTHROPIC_SAMPLING_ANY,
        .max_output = max_output_of(v, opus),
    };
}

void anthropic_caps_of(const struct cm_target *target, struct anthropic_caps *out)
{
    const struct cm_model_row *row = target->row;

    by_name(target->model, out);
    if (!row)
        return;
    if (row->max_output_tokens > 0)
        out->max_output = row->max_output_tokens;
    if (!(row->number & TOLD))
        return;
    out->adaptive = row->number & HAS_ADAPTIVE;
    out->budget = row->number & HAS_BUDGET && !out->adaptive;
    out->always = (out->adaptive || out->budget) && !(row->number & HAS_OFF);
    out->effort = out->adaptive && row->number & HAS_EFFORT;
    out->effort_xhigh = row->number & HAS_XHIGH;
    out->effort_max = row->number & HAS_MAX;
    out->schema = row->number & HAS_SCHEMA;
}

static bool supported(yyjson_val *capability, const char *name)
{
    return yyjson_is_true(cm_json_get(cm_json_get(capability, name), "supported"));
}

static int64_t count_of(yyjson_val *model, const char *key)
{
    yyjson_val *v = cm_json_get(model, key);

    return yyjson_is_uint(v) && yyjson_get_uint(v) < INT32_MAX ? (int64_t)yyjson_get_uint(v) : 0;
}

void anthropic_model_row(yyjson_val *model, struct cm_model_row *row)
{
    yyjson_val *caps = cm_json_opt(model, "capabilities");
    yyjson_val *thinking = cm_json_get(cm_json_get(caps, "thinking"), "types");
    yyjson_val *effort = cm_json_get(caps, "effort");

    *row = (struct cm_model_row){.name = cm_json_str(cm_json_get(model, "id")),
                                 .features = CM_MODEL_THINKING,
                                 .context_tokens = count_of(model, "max_input_tokens"),
                                 .max_output_tokens = count_of(model, "max_tokens")};
    if (!caps)
        return;
    row->number = TOLD | (supported(thinking, "enabled") ? HAS_BUDGET : 0) |
                  (supported(thinking, "adaptive") ? HAS_ADAPTIVE : 0) |
                  (supported(thinking, "disabled") ? HAS_OFF : 0) |
                  (supported(caps, "effort") ? HAS_EFFORT : 0) |
                  (supported(effort, "xhigh") ? HAS_XHIGH : 0) |
                  (supported(effort, "max") ? HAS_MAX : 0) |
                  (supported(caps, "structured_outputs") ? HAS_SCHEMA : 0);
    if (!(row->number & (HAS_BUDGET | HAS_ADAPTIVE)))
        row->features = 0;
}
