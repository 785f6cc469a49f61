/* What a model takes, by its name; addresses and headers of the calls; the list of models, which also proves that a key works.
 *
 * Wire facts: Gemini protocol notes, sections 1 to 3. Names are read as gemini-GENERATION-KIND; what the list tells of a model (sizes) wins over what its
 * name suggests. */
#include "gemini_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/version.h"

/* ---- names ---- */

/* "gemini-2.5-flash" -> 25; "gemini-3-pro-preview" -> 30; "gemini-flash-latest" -> 30: aliases follow the newest. 0 = another family. */
static int generation_of(struct cm_str name)
{
    const struct cm_str family = CM_S("gemini-");
    int generation;

    if (!cm_str_starts(name, family))
        return 0;
    name = cm_str_from(name, family.n);
    if (name.n == 0 || name.p[0] < '0' || name.p[0] > '9')
        return cm_str_ends(name, CM_S("-latest")) ? 30 : 0;
    generation = 10 * (name.p[0] - '0');
    if (name.n > 2 && name.p[1] == '.' && name.p[2] >= '0' && name.p[2] <= '9')
        generation += name.p[2] - '0';
    return generation;
}

void gemini_traits_of(const struct cm_run *run, struct gemini_traits *out)
{
    const struct cm_instance *in = cm_run_instance(run);
    const struct cm_target *target = cm_run_target(run);
    struct cm_str name = target->model, wanted = cm_option_value(in, "thinking");
    int generation = generation_of(name);

    *out = (struct gemini_traits){
        .pro = cm_str_has(name, CM_S("-pro")),
        .images = cm_str_has(name, CM_S("-image")) ||
                  (target->row && target->row->features & CM_MODEL_IMAGE_OUT),
        .json_with_tools = generation >= 30,
        .signatures = generation >= 30,
        .budget_min = 0,
        .budget_max = cm_option_int(in, "budget_max"),
    };
    if (out->pro) {
        out->budget_min = 128;
        out->budget_max = cm_option_int(in, "budget_max_pro");
    }
    out->max_output = target->row ? target->row->max_output_tokens : 0;
    if (out->max_output == 0 && generation > 0)
        out->max_output = generation < 25 ? 8192 : out->images ? 32768 : 65536;
    if (cm_str_eq(wanted, CM_S("budget")))
        out->thinking = GEMINI_BUDGET;
    else if (cm_str_eq(wanted, CM_S("level")))
        out->thinking = GEMINI_LEVEL;
    else if (cm_str_eq(wanted, CM_S("auto")) && generation >= 25 && !out->images)
        out->thinking = generation >= 30 ? GEMINI_LEVEL : GEMINI_BUDGET;
}

/* ---- calls ---- */

static struct cm_str version_of(const struct cm_instance *in)
{
    return ((const struct gemini_options *)in->options)->version;
}

/* "tunedModels/x" is a name of its own kind; slashes stay. */
struct cm_str gemini_url(struct cm_run *run, const char *operation, struct cm_str query)
{
    struct cm_str model = cm_run_target(run)->model;
    bool whole = cm_str_has(model, CM_S("/"));
    struct cm_buf url = {0};

    cm_buf_printf(&url, "/" CM_PRI "/%s", CM_ARG(version_of(cm_run_instance(run))),
                  whole ? "" : "models/");
    while (model.n > 0) {
        cm_percent(&url, cm_str_cut(&model, '/'));
        if (model.n > 0)
            cm_buf_put(&url, '/');
    }
    cm_buf_printf(&url, ":%s%s" CM_PRI, operation, query.n > 0 ? "?" : "", CM_ARG(query));
    return cm_buf_settle(&url, cm_run_arena(run));
}

const struct cm_header *gemini_headers(struct cm_run *run, size_t *n)
{
    struct cm_header *h = CM_ARENA_ARRAY(cm_run_arena(run), struct cm_header, 4);

    h[0] = (struct cm_header){CM_S("Content-Type"), CM_S("application/json")};
    h[1] = (struct cm_header){CM_S("Accept"), CM_S("*/*")};
    h[2] = (struct cm_header){CM_S("User-Agent"), CM_S("chatmux/" CM_VERSION)};
    h[3] = (struct cm_header){CM_S("x-goog-api-key"), cm_run_cred(run)->secret};
    *n = 4;
    return h;
}

/* ---- configuration ---- */

/* A base URL that has the version at its end, as some clients want it, means that one. */
int gemini_configure(struct cm_instance *in, struct cm_problems *problems)
{
    static const struct cm_str versions[] = {CM_S_INIT("/v1beta"), CM_S_INIT("/v1alpha"),
                                             CM_S_INIT("/v1")};
    struct gemini_options *o = CM_ARENA_NEW(in->arena, struct gemini_options);

    (void)problems;
    o->version = cm_option_value(in, "api_version");
    for (size_t i = 0; i < CM_COUNT(versions); i++) {
        if (!cm_str_ends(in->base_url, versions[i]))
            continue;
        in->base_url = cm_str_head(in->base_url, in->base_url.n - versions[i].n);
        o->version = cm_str_from(versions[i], 1);
        break;
    }
    in->options = o;
    return 0;
}

/* ---- GET /models, page by page ---- */

#define PAGES_MAX 50

static enum cm_step list_ask(struct cm_run *run, struct cm_str token)
{
    struct cm_buf url = {0};
    struct cm_call call = {.method = "GET", .timeout_ms = 30000};

    cm_buf_printf(&url, "/" CM_PRI "/models?pageSize=1000",
                  CM_ARG(version_of(cm_run_instance(run))));
    if (token.n > 0) {
        cm_buf_append(&url, CM_S("&pageToken="));
        cm_percent(&url, token);
    }
    call.url = cm_buf_settle(&url, cm_run_arena(run));
    call.headers = gemini_headers(run, &call.n_headers);
    call.headers++; /* no body, no type of it */
    call.n_headers--;
    return cm_run_fetch(run, &call);
}

static int64_t size_of(yyjson_val *model, const char *key)
{
    yyjson_val *v = cm_json_get(model, key);

    return yyjson_is_uint(v) && yyjson_get_uint(v) <= INT32_MAX ? (int64_t)yyjson_get_uint(v) : 0;
}

/* Can we ask it anything? Models that only talk in calls or make videos are left out. */
static bool is_ours(yyjson_val *model)
{
    yyjson_val *methods = cm_json_get(model, "supportedGenerationMethods"), *m;
    size_t i, n;

    if (!yyjson_is_arr(methods))
        return true;
    yyjson_arr_foreach(methods, i, n, m)
    {
        struct cm_str name = cm_json_str(m);

        if (cm_str_eq(name, CM_S("generateContent")) || cm_str_eq(name, CM_S("embedContent")) ||
            cm_str_eq(name, CM_S("batchEmbedContents")))
            return true;
    }
    return false;
}

static void list_model(struct cm_run *run, yyjson_val *model)
{
    struct cm_str name = cm_json_str(cm_json_get(model, "name"));
    struct cm_model_row row = {.context_tokens = size_of(model, "inputTokenLimit"),
                               .max_output_tokens = size_of(model, "outputTokenLimit"),
                               .features = CM_MODEL_SEARCH};

    if (cm_str_starts(name, CM_S("models/")))
        name = cm_str_from(name, sizeof("models/") - 1);
    row.name = name;
    if (yyjson_is_true(cm_json_get(model, "thinking")))
        row.features |= CM_MODEL_THINKING;
    if (cm_str_has(name, CM_S("-image")))
        row.features |= CM_MODEL_IMAGE_OUT;
    if (name.n > 0 && is_ours(model))
        cm_run_model(run, &row);
}

static enum cm_step list_read(struct cm_run *run, struct gemini_listing *l, const struct cm_ev *ev,
                              struct cm_err *err)
{
    yyjson_doc *doc;
    yyjson_val *root, *models, *model;
    struct cm_str token;
    size_t i, n;

    if (ev->status != 200) {
        gemini_refused_text(run, ev->status,
                            cm_retry_after_s(ev->headers, ev->n_headers, cm_run_unix_ms(run)),
                            ev->data, err);
        return CM_STEP_FAIL;
    }
    doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    root = yyjson_doc_get_root(doc);
    models = cm_json_get(root, "models");
    token = cm_arena_str(cm_run_arena(run), cm_json_str(cm_json_get(root, "nextPageToken")));
    if (!yyjson_is_arr(models)) {
        yyjson_doc_free(doc);
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI ": the list of models cannot be read",
                CM_ARG(cm_run_instance(run)->name));
        return CM_STEP_FAIL;
    }
    yyjson_arr_foreach(models, i, n, model)
    {
        list_model(run, model);
    }
    yyjson_doc_free(doc);
    return token.n > 0 && ++l->pages < PAGES_MAX ? list_ask(run, token) : CM_STEP_DONE;
}

enum cm_step gemini_models_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    switch (ev->kind) {
    case CM_EV_START:
        return list_ask(run, CM_STR_NONE);
    case CM_EV_REPLY:
        return list_read(run, cm_run_state(run), ev, err);
    case CM_EV_FAILED:
        *err = *ev->err;
        return CM_STEP_FAIL;
    case CM_EV_STOP:
    case CM_EV_HEAD:
    case CM_EV_DATA:
    case CM_EV_END:
    case CM_EV_OPEN:
    case CM_EV_TIMER:
    case CM_EV_COMPUTED:
        break; /* never asked for, or nothing to tidy up */
    }
    return CM_STEP_DONE;
}
