/* Pictures and videos of genspark: what is asked for, and the jobs that make it.
 *
 * Happy path: the answer names its jobs -> agent: POLL each of them, with a PAUSE between; copilot: STATUS, a stream about all of them -> what only
 * this account can open, or a client wants as bytes, is fetched (DOWNLOAD) -> one IMAGE event for each.
 * Failures: a job that fails is left out; nothing at all, or nothing in time, fails the run. Wire facts: genspark protocol notes, section 7. */
#include "genspark_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#define LINE_MAX_BYTES (4u * 1024 * 1024)
#define RATIO_PARTS_MAX 64

static bool is_video(const struct genspark *g)
{
    return g->ask.kind == GENSPARK_VIDEO;
}

/* ---- What is to be made ---- */

static int from_message(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    const struct cm_msg *last = cm_chat_last(cm_run_chat(run), CM_ROLE_USER);

    if (last)
        g->wish = (struct genspark_wish){cm_msg_text(cm_run_arena(run), last), *last};
    if (g->wish.prompt.n == 0)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "messages",
                             "the last message of the user must say what is to be made");
    return 0;
}

int genspark_media_wish(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);

    if (!cm_task_makes_media(chat->task))
        return from_message(run, g, err);
    g->wish.prompt = chat->media.prompt;
    g->wish.msg = (struct cm_msg){
        .role = CM_ROLE_USER, .parts = chat->media.images, .n_parts = chat->media.n_images};
    return 0;
}

static int64_t greatest_common(int64_t a, int64_t b)
{
    while (b != 0) {
        const int64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

/* "1536x1024" -> "3:2"; the sizes of other platforms that come near 16:9 are taken for it. */
static struct cm_str ratio_of(struct cm_run *run, struct cm_str size)
{
    static const struct {
        struct cm_str near, ratio;
    } known[] = {{CM_S_INIT("7:4"), CM_S_INIT("16:9")}, {CM_S_INIT("4:7"), CM_S_INIT("9:16")}};
    uint64_t width = 0, height = 0;
    struct cm_str ratio;
    int64_t by;

    cm_str_to_u64(cm_str_cut(&size, 'x'), INT32_MAX, &width);
    cm_str_to_u64(size, INT32_MAX, &height);
    if (width == 0 || height == 0)
        return CM_STR_NONE;
    by = greatest_common((int64_t)width, (int64_t)height);
    ratio = cm_arena_printf(cm_run_arena(run), "%lld:%lld", (long long)((int64_t)width / by),
                            (long long)((int64_t)height / by));
    for (size_t i = 0; i < CM_COUNT(known); i++) {
        if (cm_str_eq(known[i].near, ratio))
            return known[i].ratio;
    }
    return (int64_t)width / by > RATIO_PARTS_MAX || (int64_t)height / by > RATIO_PARTS_MAX
               ? CM_STR_NONE
               : ratio;
}

static struct cm_str first_of(struct cm_str a, struct cm_str b)
{
    return a.n > 0 ? a : b;
}

static struct cm_str aspect_ratio(struct cm_run *run, const struct genspark *g)
{
    const struct cm_media *m = &cm_run_chat(run)->media;
    const struct cm_str asked = first_of(m->aspect_ratio, ratio_of(run, m->size));

    return first_of(asked, genspark_option(run, is_video(g) ? "video_ratio" : "image_ratio"));
}

static int64_t duration(struct cm_run *run)
{
    const int64_t asked = cm_run_chat(run)->media.duration_s;

    return cm_run_chat(run)->task == CM_TASK_VIDEO && asked > 0
               ? asked
               : cm_option_int(cm_run_instance(run), "video_duration") / 1000;
}

static void put_str(struct cm_buf *out, const char *name, struct cm_str value)
{
    cm_buf_printf(out, ",\"%s\":", name);
    cm_json_put_str(out, value);
}

static void put_bool(struct cm_buf *out, const char *name, bool value)
{
    cm_buf_printf(out, ",\"%s\":%s", name, value ? "true" : "false");
}

/* The members of model_params for a video besides its type, model and ratio: UNKNOWN; those of the older dialect. */
static void put_model_params(struct cm_buf *out, struct cm_run *run, const struct genspark *g)
{
    const struct cm_chat *chat = cm_run_chat(run);
    const struct cm_media *m = &chat->media;
    const struct cm_str automatic = CM_S("auto");

    cm_buf_append(out, is_video(g) ? CM_S("{\"type\":\"video\"") : CM_S("{\"type\":\"image\""));
    put_str(out, "model", g->ask.model);
    put_str(out, "aspect_ratio", aspect_ratio(run, g));
    put_bool(out, "auto_prompt", chat->task != CM_TASK_CHAT && m->auto_prompt == 1);
    if (is_video(g)) {
        cm_buf_printf(out, ",\"duration\":%lld,\"generation_count\":1}", (long long)duration(run));
        return;
    }
    put_str(out, "style", first_of(m->style, automatic));
    put_str(out, "image_size", automatic);
    put_str(out, "quality", first_of(m->quality, automatic));
    put_str(out, "background_mode", first_of(m->background, automatic));
    cm_buf_printf(out, ",\"camera_control\":null,\"generation_count\":%lld}", (long long)chat->n);
}

static void put_agent(struct cm_buf *out, struct cm_run *run, const struct genspark *g)
{
    char id[CM_UUID_CAP];

    cm_uuid4(id);
    cm_buf_append(out, is_video(g) ? CM_S("{\"type\":\"video_generation_agent\"")
                                   : CM_S("{\"type\":\"image_generation_agent\""));
    put_str(out, "project_id", g->ask.project);
    cm_buf_append(out, CM_S(",\"messages\":[{\"role\":\"user\",\"id\":"));
    cm_json_put_z(out, id);
    cm_buf_append(out, CM_S(",\"content\":"));
    genspark_put_content(out, g, g->wish.prompt, &g->wish.msg, 1);
    cm_buf_append(out, CM_S("}],\"model_params\":"));
    put_model_params(out, run, g);
    put_str(out, "user_s_input", g->wish.prompt);
    put_str(out, "g_recaptcha_token", g->ask.token);
    put_bool(out, "is_private", genspark_option_bool(run, "private"));
    put_str(out, "push_token", CM_STR_NONE);
    cm_buf_put(out, '}');
}

static void put_copilot_config(struct cm_buf *out, struct cm_run *run, const struct genspark *g)
{
    const struct cm_chat *chat = cm_run_chat(run);
    const bool rewrite = chat->task == CM_TASK_VIDEO && chat->media.auto_prompt == 1;

    cm_buf_append(out, CM_S("{\"model\":"));
    cm_json_put_str(out, g->ask.model);
    put_str(out, "aspect_ratio", aspect_ratio(run, g));
    if (is_video(g)) {
        put_bool(out, "reflection_enabled", rewrite);
        cm_buf_printf(out, ",\"duration\":%lld}", (long long)duration(run));
        return;
    }
    cm_buf_append(out, CM_S(",\"use_personalized_models\":false,\"fashion_profile_id\":null,"
                            "\"hd\":false,\"reflection_enabled\":false"));
    put_str(out, "style", first_of(chat->media.style, CM_S("auto")));
    cm_buf_put(out, '}');
}

static void put_copilot(struct cm_buf *out, struct cm_run *run, const struct genspark *g)
{
    const char *type = is_video(g) ? "COPILOT_MOA_VIDEO" : "COPILOT_MOA_IMAGE";
    struct cm_str query;

    if (g->ask.project.n > 0)
        query = cm_arena_printf(cm_run_arena(run), "id=" CM_PRI "&type=%s", CM_ARG(g->ask.project),
                                type);
    else
        query = cm_arena_printf(cm_run_arena(run), "type=%s", type);
    cm_buf_printf(out, "{\"type\":\"%s\"", type);
    put_str(out, "current_query_string", query);
    cm_buf_append(out, CM_S(",\"messages\":[{\"role\":\"user\",\"content\":"));
    genspark_put_content(out, g, g->wish.prompt, &g->wish.msg, 1);
    cm_buf_append(out, CM_S("}]"));
    put_str(out, "user_s_input", g->wish.prompt);
    cm_buf_append(out, CM_S(",\"action_params\":{},\"extra_data\":{\"model_configs\":["));
    put_copilot_config(out, run, g);
    cm_buf_append(out, is_video(g) ? CM_S("],\"imageModelMap\":{}}")
                                   : CM_S("],\"llm_model\":\"gpt-4o\",\"imageModelMap\":{},"
                                          "\"writingContent\":null}"));
    if (g->ask.token.n > 0)
        put_str(out, "g_recaptcha_token", g->ask.token);
    cm_buf_put(out, '}');
}

struct cm_str genspark_media_body(struct cm_run *run, const struct genspark *g)
{
    struct cm_buf out = {0};

    if (g->ask.dialect == GENSPARK_COPILOT)
        put_copilot(&out, run, g);
    else
        put_agent(&out, run, g);
    return cm_buf_settle(&out, cm_run_arena(run));
}

/* ---- The jobs that an answer names ---- */

static struct genspark_job *job_of(struct cm_run *run, struct genspark_answer *a, struct cm_str id)
{
    if (id.n == 0)
        return NULL;
    for (size_t i = 0; i < a->n_jobs; i++) {
        if (cm_str_eq(a->jobs[i].id, id))
            return &a->jobs[i];
    }
    if (a->n_jobs == GENSPARK_JOBS_MAX)
        return NULL;
    if (!a->jobs)
        a->jobs = CM_ARENA_ARRAY(cm_run_arena(run), struct genspark_job, GENSPARK_JOBS_MAX);
    a->jobs[a->n_jobs].id = cm_arena_str(cm_run_arena(run), id);
    return &a->jobs[a->n_jobs++];
}

/* The first address, those without a watermark first. */
static struct cm_str address_in(yyjson_val *v)
{
    static const char *const names[] = {"image_urls_nowatermark", "video_urls_nowatermark",
                                        "image_urls", "video_urls"};

    for (size_t i = 0; i < CM_COUNT(names); i++) {
        const struct cm_str url = cm_json_str(yyjson_arr_get_first(cm_json_get(v, names[i])));

        if (url.n > 0)
            return url;
    }
    return CM_STR_NONE;
}

static bool is_word(struct cm_str status, const char *const *words)
{
    for (; *words; words++) {
        if (cm_str_eq_nocase(status, cm_str_of(*words)))
            return true;
    }
    return false;
}

/* What is told of a job, by whatever call. */
static void job_read(struct cm_run *run, struct genspark_job *job, yyjson_val *v)
{
    static const char *const made[] = {"SUCCESS", "COMPLETED", NULL};
    static const char *const failed[] = {"FAILED", "FAILURE", "ERROR", NULL};
    struct cm_arena *arena = cm_run_arena(run);
    const struct cm_str status = cm_json_str(cm_json_get(v, "status"));
    const struct cm_str prompt = cm_json_str(cm_json_get(v, "prompt"));
    const struct cm_str model = cm_json_str(cm_json_get(v, "model"));

    if (prompt.n > 0)
        job->prompt = cm_arena_str(arena, prompt);
    if (model.n > 0)
        job->model = cm_arena_str(arena, model);
    if (is_word(status, made)) {
        job->url = cm_arena_str(arena, address_in(v));
        job->over = true;
    } else if (is_word(status, failed)) {
        job->over = true;
    }
}

void genspark_media_jobs(struct cm_run *run, struct genspark_answer *a, yyjson_val *list)
{
    size_t i, max;
    yyjson_val *v;

    yyjson_arr_foreach(list, i, max, v)
    {
        struct genspark_job *job = job_of(run, a, cm_json_str(cm_json_get(v, "task_id")));

        if (job)
            job_read(run, job, v);
    }
}

void genspark_media_copilot_jobs(struct cm_run *run, struct genspark_answer *a, struct cm_str text)
{
    yyjson_doc *doc = cm_json_parse(text, &cm_json_limits_event, NULL);
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL;

    genspark_media_jobs(run, a, cm_json_get(root, "generated_images"));
    genspark_media_jobs(run, a, cm_json_get(root, "generated_videos"));
    yyjson_doc_free(doc);
}

/* ---- Telling ---- */

static bool is_own(struct cm_run *run, struct cm_str url)
{
    const struct cm_str base = cm_run_instance(run)->base_url,
                        origin = genspark_option(run, "origin");

    return cm_str_starts(url, CM_S("/")) ||
           (cm_str_starts(url, base) && cm_str_starts(cm_str_from(url, base.n), CM_S("/"))) ||
           (cm_str_starts(url, origin) && cm_str_starts(cm_str_from(url, origin.n), CM_S("/")));
}

/* What only this account can open, and what the client wants as bytes. */
static bool wants_bytes(struct cm_run *run, struct cm_str url)
{
    const struct cm_chat *chat = cm_run_chat(run);

    if (genspark_option_is(run, "media_delivery", "url"))
        return false;
    return genspark_option_is(run, "media_delivery", "data") || is_own(run, url) ||
           (cm_task_makes_media(chat->task) && chat->media.response_format == CM_MEDIA_B64);
}

static void check_model(struct cm_run *run, const struct genspark *g,
                        const struct genspark_job *job)
{
    if (job->model.n == 0 || cm_str_eq_nocase(job->model, g->ask.model))
        return;
    cm_warn("genspark", CM_PRI " was asked for model " CM_PRI ", but " CM_PRI " made it",
            CM_ARG(cm_run_cred(run)->label), CM_ARG(g->ask.model), CM_ARG(job->model));
    cm_run_served(run, job->model);
}

/* The address, or the bytes. */
static void tell(struct cm_run *run, struct genspark *g, struct cm_str url, struct cm_str type,
                 struct cm_str bytes)
{
    const struct genspark_job *job = &g->answer.jobs[g->job++];
    struct cm_event ev = {.kind = CM_EVENT_IMAGE,
                          .text = is_video(g) ? CM_S("Video") : CM_S("Image"),
                          .url = url,
                          .media_type = type};
    struct cm_buf data = {0};

    check_model(run, g, job);
    if (!cm_str_eq(job->prompt, g->wish.prompt))
        ev.name = job->prompt;
    if (g->told && cm_run_chat(run)->task == CM_TASK_CHAT)
        cm_run_text(run, CM_S("\n"));
    cm_base64(&data, bytes);
    ev.data = cm_buf_str(&data);
    cm_run_emit(run, &ev);
    cm_buf_clear(&data);
    g->told = true;
}

static struct cm_str default_type(const struct genspark *g)
{
    return is_video(g) ? CM_S("video/mp4") : CM_S("image/png");
}

static struct cm_str absolute(struct cm_run *run, struct cm_str url)
{
    const struct cm_str base = cm_run_instance(run)->base_url;

    if (!cm_str_starts(url, CM_S("/")))
        return url;
    return cm_arena_printf(cm_run_arena(run), CM_PRI CM_PRI, CM_ARG(base), CM_ARG(url));
}

static void tell_address(struct cm_run *run, struct genspark *g, struct cm_str url)
{
    tell(run, g, absolute(run, url), is_video(g) ? default_type(g) : CM_STR_NONE, CM_STR_NONE);
}

static enum cm_step download(struct cm_run *run, struct genspark *g, struct cm_str url)
{
    struct genspark_headers h = {.n = 0};
    struct cm_call call = {.method = "GET",
                           .url = absolute(run, url),
                           .headers = h.v,
                           .max_reply = (size_t)cm_option_int(cm_run_instance(run), "max_media")};

    if (is_own(run, url)) {
        genspark_headers(run, &g->ask, CM_S("*/*"), &h);
    } else { /* no cookie leaves the site */
        genspark_add(&h, CM_S("Accept"), CM_S("*/*"));
        genspark_add(&h, CM_S("User-Agent"), cm_run_browser(run)->user_agent);
    }
    call.n_headers = h.n;
    g->state = GENSPARK_DOWNLOAD;
    return cm_run_fetch(run, &call);
}

static enum cm_step downloaded(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                               struct cm_err *err)
{
    struct cm_str type =
        cm_str_trim(cm_header_find(ev->headers, ev->n_headers, CM_S("content-type")));
    const bool fine = ev->kind == CM_EV_REPLY && ev->status == 200 && ev->data.n > 0 &&
                      !cm_str_starts_nocase(type, CM_S("text/html"));

    type = cm_str_trim(cm_str_cut(&type, ';'));
    if (!cm_str_starts_nocase(type, CM_S("image/")) && !cm_str_starts_nocase(type, CM_S("video/")))
        type = default_type(g);
    if (fine) {
        tell(run, g, CM_STR_NONE, type, ev->data);
    } else {
        cm_warn("genspark", "what " CM_PRI " has made cannot be fetched (%s), its address is told",
                CM_ARG(cm_run_cred(run)->label), ev->err ? ev->err->msg : "the site refused");
        tell_address(run, g, g->answer.jobs[g->job].url);
    }
    return genspark_media_wait(run, g, err);
}

/* ---- Waiting ---- */

static enum cm_step poll(struct cm_run *run, struct genspark *g)
{
    struct cm_call call = {.method = "GET",
                           .url = genspark_url(run,
                                               is_video(g) ? "video_task_path" : "image_task_path",
                                               "task_id", g->answer.jobs[g->job].id)};

    g->state = GENSPARK_POLL;
    return genspark_fetch(run, &g->ask, &call);
}

static enum cm_step pause_a_while(struct cm_run *run, struct genspark *g)
{
    g->state = GENSPARK_PAUSE;
    return cm_run_sleep(run, cm_option_int(cm_run_instance(run), "poll_interval"));
}

/* {"status":0,"data":{"id","status","image_urls":[…]}} */
static enum cm_step polled(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                           struct cm_err *err)
{
    struct genspark_job *job = &g->answer.jobs[g->job];
    yyjson_doc *doc = NULL;
    yyjson_val *data;

    if (ev->kind == CM_EV_REPLY && ev->status == 200)
        doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    data = doc ? cm_json_opt(yyjson_doc_get_root(doc), "data") : NULL;
    if (doc && yyjson_get_sint(cm_json_get(yyjson_doc_get_root(doc), "status")) != 0)
        data = NULL; /* a refusal */
    job_read(run, job, data);
    yyjson_doc_free(doc);
    if (job->over)
        return genspark_media_wait(run, g, err);
    if (ev->kind == CM_EV_REPLY && !data) {
        genspark_refuse(run, ev->status, 0, ev->data, err);
        if (err->cls != CM_ERR_UPSTREAM_DOWN)
            return CM_STEP_FAIL; /* else it may have been a moment's weakness */
    }
    return pause_a_while(run, g);
}

static enum cm_step ask_status(struct cm_run *run, struct genspark *g)
{
    struct genspark_headers h = {.n = 0};
    struct cm_call call = {
        .method = "POST",
        .url = genspark_option(run, is_video(g) ? "video_status_path" : "image_status_path"),
        .headers = h.v,
        .long_wait = true};
    struct cm_buf body = {0};

    for (size_t i = 0; i < g->answer.n_jobs; i++) {
        cm_buf_append(&body, i > 0 ? CM_S(",") : CM_S("{\"task_ids\":["));
        cm_json_put_str(&body, g->answer.jobs[i].id);
    }
    cm_buf_append(&body, CM_S("]}"));
    call.body = cm_buf_settle(&body, cm_run_arena(run));
    genspark_headers(run, &g->ask, CM_S("text/event-stream"), &h);
    call.n_headers = h.n;
    cm_buf_clear(&g->line);
    cm_buf_init(&g->line, LINE_MAX_BYTES);
    g->status = 200;
    g->state = GENSPARK_STATUS;
    return cm_run_stream(run, &call);
}

/* {"type":"TASKS_STATUS_COMPLETE","final_status":{"<id>":{"status","image_urls":[…]}}}, with "data: " in front or without. True: that was it. */
static bool on_line(struct cm_run *run, struct genspark *g, struct cm_str line)
{
    yyjson_doc *doc;
    yyjson_val *root, *all;
    bool complete;

    if (cm_str_starts(line, CM_S("data:")))
        line = cm_str_from(line, sizeof("data:") - 1);
    line = cm_str_trim(line);
    doc = cm_str_starts(line, CM_S("{")) ? cm_json_parse(line, &cm_json_limits_event, NULL) : NULL;
    root = doc ? yyjson_doc_get_root(doc) : NULL;
    complete = cm_str_eq(cm_json_str(cm_json_get(root, "type")), CM_S("TASKS_STATUS_COMPLETE"));
    all = cm_json_get(root, "final_status");
    for (size_t i = 0; i < g->answer.n_jobs && complete; i++) {
        struct genspark_job *job = &g->answer.jobs[i];

        job_read(run, job, cm_json_get(all, cm_arena_z(cm_run_arena(run), job->id)));
        job->over = true; /* whatever is told of it: nothing more will be */
    }
    yyjson_doc_free(doc);
    return complete;
}

static enum cm_step status_ended(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    if (g->status != 200) {
        genspark_refuse(run, g->status, 0, cm_buf_str(&g->line), err);
        return CM_STEP_FAIL;
    }
    if (!on_line(run, g, cm_buf_str(&g->line))) {
        cm_fail(err, CM_ERR_CUT, "genspark broke off before its jobs were done");
        return CM_STEP_FAIL;
    }
    return genspark_media_wait(run, g, err);
}

static enum cm_step status_came(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                                struct cm_err *err)
{
    struct cm_str rest = ev->data;

    if (ev->kind == CM_EV_HEAD) {
        g->status = ev->status;
        return CM_STEP_WAIT;
    }
    if (ev->kind == CM_EV_END)
        return status_ended(run, g, err);
    while (rest.n > 0) {
        const size_t end = cm_str_find_char(rest, '\n');

        cm_buf_append(&g->line, cm_str_head(rest, end));
        rest = cm_str_from(rest, end == SIZE_MAX ? rest.n : end + 1);
        if (end == SIZE_MAX)
            break;
        if (g->status == 200 && on_line(run, g, cm_buf_str(&g->line))) {
            cm_run_hang_up(run);
            return genspark_media_wait(run, g, err);
        }
        cm_buf_reset(&g->line);
    }
    return CM_STEP_WAIT;
}

static bool too_late(struct cm_run *run, const struct genspark *g, struct cm_err *err)
{
    if (cm_run_unix_ms(run) < g->until_ms)
        return false;
    cm_fail(err, CM_ERR_TIMEOUT, "genspark did not finish what it makes within x.%s_timeout",
            is_video(g) ? "video" : "image");
    return true;
}

enum cm_step genspark_media_wait(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    while (g->job < g->answer.n_jobs) {
        const struct genspark_job *job = &g->answer.jobs[g->job];

        if (!job->over && too_late(run, g, err))
            return g->told ? CM_STEP_DONE : CM_STEP_FAIL;
        if (!job->over)
            return g->ask.dialect == GENSPARK_COPILOT ? ask_status(run, g) : poll(run, g);
        if (job->url.n == 0)
            g->job++;
        else if (wants_bytes(run, job->url))
            return download(run, g, job->url);
        else
            tell_address(run, g, job->url);
    }
    if (g->told)
        return CM_STEP_DONE;
    cm_fail(err, CM_ERR_UPSTREAM_DOWN, "genspark could not make it");
    err->retry_after_s = genspark_cooldown_s(run, "failure_cooldown");
    return CM_STEP_FAIL;
}

enum cm_step genspark_media_step(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                                 struct cm_err *err)
{
    if (g->state == GENSPARK_PAUSE)
        return genspark_media_wait(run, g, err);
    if (g->state == GENSPARK_DOWNLOAD)
        return downloaded(run, g, ev, err);
    if (g->state == GENSPARK_POLL)
        return polled(run, g, ev, err);
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return CM_STEP_FAIL;
    }
    return status_came(run, g, ev, err);
}
