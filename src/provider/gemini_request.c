/* The canonical request as a body of generateContent, but for its conversation. Wire facts: Gemini protocol notes, sections 2 and 5. */
#include "gemini_int.h"

#include "chatmux/base/mem.h"

#include <math.h>

#define STOP_MAX 5

/* ---- small things ---- */

static void put_number(struct cm_buf *out, const char *name, double v)
{
    if (isnan(v))
        return;
    gemini_key(out, name);
    cm_buf_printf(out, "%.10g", v);
}

static void put_integer(struct cm_buf *out, const char *name, int64_t v)
{
    gemini_key(out, name);
    cm_json_put_int(out, v);
}

/* ---- tools ---- */

static bool small_schemas(const struct gemini_writer *w)
{
    return cm_str_eq(cm_option_value(cm_run_instance(w->run), "schema"), CM_S("openapi"));
}

static void put_declaration(struct gemini_writer *w, const struct cm_tool *tool)
{
    const bool small = small_schemas(w);
    struct cm_str schema = gemini_schema(cm_run_arena(w->run), tool->parameters, small);

    gemini_element(w->out);
    cm_buf_put(w->out, '{');
    gemini_key(w->out, "name");
    cm_json_put_str(w->out, tool->name);
    if (tool->description.n > 0) {
        gemini_key(w->out, "description");
        cm_json_put_str(w->out, tool->description);
    }
    if (schema.n > 0) {
        gemini_key(w->out, small ? "parameters" : "parametersJsonSchema");
        cm_buf_append(w->out, schema);
    }
    cm_buf_put(w->out, '}');
}

static void put_tool_choice(struct gemini_writer *w)
{
    static const char *const modes[] = {[CM_TOOLS_AUTO] = "AUTO",
                                        [CM_TOOLS_NONE] = "NONE",
                                        [CM_TOOLS_REQUIRED] = "ANY",
                                        [CM_TOOLS_NAMED] = "ANY"};

    if (w->chat->tool_choice == CM_TOOLS_UNSET)
        return;
    gemini_key(w->out, "toolConfig");
    cm_buf_append(w->out, CM_S("{\"functionCallingConfig\":{\"mode\":"));
    cm_json_put_z(w->out, modes[w->chat->tool_choice]);
    if (w->chat->tool_choice == CM_TOOLS_NAMED) {
        gemini_key(w->out, "allowedFunctionNames");
        cm_buf_put(w->out, '[');
        cm_json_put_str(w->out, w->chat->tool_name);
        cm_buf_put(w->out, ']');
    }
    cm_buf_append(w->out, CM_S("}}"));
}

static void put_tools(struct gemini_writer *w)
{
    const bool search = cm_run_target(w->run)->search;

    if (w->chat->n_tools == 0 && !search)
        return;
    gemini_key(w->out, "tools");
    cm_buf_put(w->out, '[');
    if (w->chat->n_tools > 0) {
        cm_buf_append(w->out, CM_S("{\"functionDeclarations\":["));
        for (size_t i = 0; i < w->chat->n_tools; i++)
            put_declaration(w, &w->chat->tools[i]);
        cm_buf_append(w->out, CM_S("]}"));
    }
    if (search) {
        gemini_element(w->out);
        cm_buf_append(w->out, CM_S("{\"googleSearch\":{}}"));
    }
    cm_buf_put(w->out, ']');
    if (w->chat->n_tools > 0)
        put_tool_choice(w);
}

/* ---- how to answer ---- */

static int64_t option_int(const struct gemini_writer *w, const char *name)
{
    return cm_option_int(cm_run_instance(w->run), name);
}

/* Tokens for thinking: the client's own figure, or what its word stands for; -1 = the model decides. */
static int64_t budget_of(const struct gemini_writer *w, struct cm_str effort)
{
    int64_t budget = w->chat->thinking_budget;

    if (budget < 0 && effort.n == 0)
        return -1;
    if (budget < 0) {
        if (cm_str_eq(effort, CM_S("minimal")) || cm_str_eq(effort, CM_S("low")))
            budget = option_int(w, "budget_low");
        else if (cm_str_eq(effort, CM_S("medium")))
            budget = option_int(w, "budget_medium");
        else if (cm_str_eq(effort, CM_S("high")))
            budget = option_int(w, "budget_high");
        else
            budget = w->traits->budget_max;
    }
    budget = budget < w->traits->budget_max ? budget : w->traits->budget_max;
    return budget > w->traits->budget_min ? budget : w->traits->budget_min;
}

/* The wanted level or the next higher one that the model has: "MINIMAL LOW MEDIUM HIGH" from left to right. */
static struct cm_str level_of(const struct gemini_writer *w, struct cm_str effort)
{
    static const struct {
        const char *effort;
        unsigned rank;
    } ranks[] = {{"none", 0}, {"minimal", 0}, {"low", 1}, {"medium", 2}};
    static const char *const names[] = {"MINIMAL", "LOW", "MEDIUM", "HIGH"};
    struct cm_str levels =
        cm_option_value(cm_run_instance(w->run), w->traits->pro ? "levels_pro" : "levels");
    unsigned rank = 3;

    for (size_t i = 0; i < CM_COUNT(ranks); i++) {
        if (cm_str_eq(effort, cm_str_of(ranks[i].effort)))
            rank = ranks[i].rank;
    }
    for (; rank < CM_COUNT(names); rank++) {
        struct cm_str rest = levels;

        while (rest.n > 0) {
            if (cm_str_eq_nocase(cm_str_cut(&rest, ' '), cm_str_of(names[rank])))
                return cm_str_of(names[rank]);
        }
    }
    return CM_S("HIGH");
}

static void put_thinking(struct gemini_writer *w)
{
    const struct cm_chat *chat = w->chat;
    struct cm_str effort = cm_chat_effort(chat);
    const bool off = cm_str_eq(effort, CM_S("none"));
    const bool asked = effort.n > 0 || chat->thinking != CM_THINKING_UNSET;

    if (!asked && !cm_run_target(w->run)->thinking && chat->show_thinking != 1)
        return;
    if (w->traits->thinking == GEMINI_NO_THINKING) {
        if (asked && !off)
            cm_run_dropped(w->run, "reasoning_effort");
        return;
    }
    if (off && w->traits->thinking == GEMINI_BUDGET && w->traits->budget_min > 0) {
        cm_run_dropped(w->run, "reasoning_effort"); /* this model always thinks */
        return;
    }
    gemini_key(w->out, "thinkingConfig");
    cm_buf_append(w->out, off || chat->show_thinking == 0 ? CM_S("{\"includeThoughts\":false")
                                                          : CM_S("{\"includeThoughts\":true"));
    if (w->traits->thinking == GEMINI_BUDGET && asked) {
        put_integer(w->out, "thinkingBudget", off ? 0 : budget_of(w, effort));
    } else if (w->traits->thinking == GEMINI_LEVEL && effort.n > 0) {
        gemini_key(w->out, "thinkingLevel");
        cm_json_put_str(w->out, level_of(w, effort));
    }
    cm_buf_put(w->out, '}');
}

static void put_format(struct gemini_writer *w)
{
    const struct cm_chat *chat = w->chat;
    const bool small = small_schemas(w);
    struct cm_str schema = CM_STR_NONE;

    if (chat->format == CM_FORMAT_TEXT)
        return;
    if (chat->n_tools > 0 &&
        !w->traits->json_with_tools) { /* refused together; tools matter more */
        cm_run_dropped(w->run, "response_format");
        return;
    }
    gemini_key(w->out, "responseMimeType");
    cm_buf_append(w->out, CM_S("\"application/json\""));
    if (chat->format == CM_FORMAT_SCHEMA)
        schema = gemini_schema(cm_run_arena(w->run), chat->schema, small);
    if (schema.n > 0) {
        gemini_key(w->out, small ? "responseSchema" : "responseJsonSchema");
        cm_buf_append(w->out, schema);
    }
}

static void put_stop(struct gemini_writer *w)
{
    size_t n = 0;

    for (size_t i = 0; i < w->chat->n_stop && n < STOP_MAX; i++) {
        if (w->chat->stop[i].n == 0)
            continue;
        if (n++ == 0) {
            gemini_key(w->out, "stopSequences");
            cm_buf_put(w->out, '[');
        }
        gemini_element(w->out);
        cm_json_put_str(w->out, w->chat->stop[i]);
    }
    if (n > 0)
        cm_buf_put(w->out, ']');
}

/* ---- pictures ---- */

/* "1024x1536" -> "2:3": the nearest of those that the platform knows. */
static struct cm_str ratio_of(const struct gemini_writer *w)
{
    const struct cm_media *media = &w->chat->media;
    struct cm_str rest = cm_option_value(cm_run_instance(w->run), "aspect_ratios");
    struct cm_str height = media->size, width = cm_str_cut(&height, 'x'), best = CM_STR_NONE;
    uint64_t wide, high;
    double distance = INFINITY;

    if (media->aspect_ratio.n > 0)
        return media->aspect_ratio;
    if (!cm_str_to_u64(width, 100000, &wide) || !cm_str_to_u64(height, 100000, &high) ||
        wide == 0 || high == 0)
        return CM_STR_NONE;
    while (rest.n > 0) {
        struct cm_str name = cm_str_cut(&rest, ' '), y = name, x = cm_str_cut(&y, ':');
        uint64_t a, b;
        double d;

        if (!cm_str_to_u64(x, 1000, &a) || !cm_str_to_u64(y, 1000, &b) || a == 0 || b == 0)
            continue;
        d = fabs(log((double)wide / (double)high) - log((double)a / (double)b));
        if (d < distance) {
            distance = d;
            best = name;
        }
    }
    return best;
}

static void put_modalities(struct gemini_writer *w)
{
    struct cm_str ratio;

    if (!cm_task_makes_media(w->chat->task) && !w->traits->images &&
        !(w->chat->modalities & CM_MODALITY_IMAGE))
        return;
    gemini_key(w->out, "responseModalities");
    cm_buf_append(w->out, CM_S("[\"TEXT\",\"IMAGE\"]"));
    ratio = ratio_of(w);
    if (ratio.n > 0) {
        gemini_key(w->out, "imageConfig");
        cm_buf_append(w->out, CM_S("{\"aspectRatio\":"));
        cm_json_put_str(w->out, ratio);
        cm_buf_put(w->out, '}');
    }
}

/* ---- all of it ---- */

/* 64 bits of the client's into the 32 that the platform has. */
static int64_t seed_of(int64_t seed)
{
    const uint64_t u = (uint64_t)seed;

    return seed >= INT32_MIN && seed <= INT32_MAX ? seed : (int64_t)((u ^ u >> 32) & INT32_MAX);
}

static void put_config(struct gemini_writer *w)
{
    const struct cm_chat *chat = w->chat;
    int64_t max = chat->max_tokens;
    struct cm_buf config = {0}, *out = &config, *body = w->out;

    w->out = out;
    put_number(out, "temperature", chat->temperature);
    put_number(out, "topP", chat->top_p);
    if (chat->top_k > 0)
        put_integer(out, "topK", chat->top_k);
    if (max > 0) {
        if (w->traits->max_output > 0 && max > w->traits->max_output)
            max = w->traits->max_output;
        put_integer(out, "maxOutputTokens", max);
    }
    if (chat->n > 1 && !cm_task_makes_media(chat->task))
        put_integer(out, "candidateCount", chat->n);
    if (chat->has_seed)
        put_integer(out, "seed", seed_of(chat->seed));
    put_number(out, "presencePenalty", chat->presence_penalty);
    put_number(out, "frequencyPenalty", chat->frequency_penalty);
    put_stop(w);
    put_format(w);
    put_thinking(w);
    put_modalities(w);
    w->out = body;
    if (config.n > 0) {
        gemini_key(body, "generationConfig");
        cm_buf_put(body, '{');
        cm_buf_append(body, cm_buf_str(&config));
        cm_buf_put(body, '}');
    }
    cm_buf_clear(&config);
}

/* What the operator set for every request. */
static void put_safety(struct gemini_writer *w)
{
    static const char *const categories[] = {"HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT",
                                             "DANGEROUS_CONTENT", "CIVIC_INTEGRITY"};
    struct cm_str threshold = cm_option_value(cm_run_instance(w->run), "safety");

    if (cm_str_eq(threshold, CM_S("default")))
        return;
    gemini_key(w->out, "safetySettings");
    cm_buf_put(w->out, '[');
    for (size_t i = 0; i < CM_COUNT(categories); i++) {
        gemini_element(w->out);
        cm_buf_printf(w->out, "{\"category\":\"HARM_CATEGORY_%s\",\"threshold\":\"" CM_PRI "\"}",
                      categories[i], CM_ARG(threshold));
    }
    cm_buf_put(w->out, ']');
}

int gemini_put_request(struct cm_run *run, const struct cm_attach *attached, struct cm_buf *out,
                       struct cm_err *err)
{
    struct gemini_traits traits;
    struct gemini_writer w = {.run = run,
                              .chat = cm_run_chat(run),
                              .attached = attached,
                              .traits = &traits,
                              .out = out,
                              .err = err};

    gemini_traits_of(run, &traits);
    if (w.chat->n > GEMINI_CANDIDATES_MAX) {
        cm_fail_param(err, CM_ERR_BAD_REQUEST, "n", "this model gives at most %d answers at once",
                      GEMINI_CANDIDATES_MAX);
        return -1;
    }
    cm_buf_put(out, '{');
    if (cm_task_makes_media(w.chat->task) ? gemini_put_drawing(&w) : gemini_put_contents(&w))
        return -1;
    gemini_put_system(&w);
    put_tools(&w);
    put_config(&w);
    put_safety(&w);
    cm_buf_put(out, '}');
    return 0;
}
