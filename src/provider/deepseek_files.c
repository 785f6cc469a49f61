/* Pictures and files of a request, before the question that refers to them.
 *
 * Happy path: FETCH (what is behind addresses) -> for each file CHALLENGE, PROVE (on the same thread the file is taken out of its base64), UPLOAD -> REST,
 * POLL until the platform has read them all. A picture in which the platform's default model finds nothing to read is given to another model (FORK).
 * Failures are the request's, unless the account was refused.
 * Wire facts: DeepSeek protocol notes, section 3.8. */
#include "deepseek_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include <stdio.h>
#include <stdlib.h>

#define POLL_MS 400
#define BOUNDARY "----WebKitFormBoundary"

/* A thread's work: the proof, and the body of the upload. Owns everything in it. */
struct deepseek_upload {
    struct deepseek_search *search;
    struct cm_buf base64;
    struct cm_buf body; /* begins with what stands before the file */
    struct cm_buf tail;
    size_t head_bytes, file_bytes;
    bool broken; /* no base64 */
};

static void upload_work(void *arg, const atomic_bool *cancelled)
{
    struct deepseek_upload *u = arg;

    u->broken = cm_base64_decode(&u->body, cm_buf_str(&u->base64)) != 0;
    u->file_bytes = u->body.n - u->head_bytes;
    cm_buf_append(&u->body, cm_buf_str(&u->tail));
    deepseek_search_work(u->search, cancelled);
}

static void upload_free(void *arg)
{
    struct deepseek_upload *u = arg;

    if (!u)
        return;
    deepseek_search_free(u->search);
    cm_buf_clear(&u->base64);
    cm_buf_clear(&u->body);
    cm_buf_clear(&u->tail);
    free(u);
}

/* What a thread still has is freed when it lets go. */
void deepseek_files_clear(struct deepseek_files *f)
{
    if (!f->computing)
        upload_free(f->upload);
    f->upload = NULL;
    f->computing = false;
}

/* ---- What is there ---- */

static int refuse_part(struct cm_err *err, size_t message, const char *why)
{
    char param[sizeof(err->param)];

    snprintf(param, sizeof(param), "messages[%zu].content", message);
    cm_fail_param(err, CM_ERR_BAD_REQUEST, param, "%s", why);
    cm_str_copy(err->code, sizeof(err->code), CM_S("unsupported_value"));
    return -1;
}

static int list_parts(struct cm_run *run, struct deepseek_files *f, const struct cm_part *parts,
                      size_t n, size_t message, struct cm_err *err)
{
    for (size_t i = 0; i < n; i++) {
        const struct cm_part *p = &parts[i];

        if (p->n_parts > 0 && list_parts(run, f, p->parts, p->n_parts, message, err))
            return -1;
        if (p->kind == CM_PART_AUDIO)
            return refuse_part(err, message, "deepseek takes no sound.");
        if (p->kind != CM_PART_IMAGE && p->kind != CM_PART_FILE)
            continue;
        if (p->url.n == 0 && p->data.n == 0)
            return refuse_part(err, message,
                               "deepseek needs the file itself: give 'file_data' instead of "
                               "'file_id'.");
        if (f->n == DEEPSEEK_FILES_MAX)
            return refuse_part(err, message, "too many pictures and files for one question.");
        f->list[f->n++] = (struct deepseek_file){.part = p};
        if (p->url.n > 0 && cm_attach_add(run, &f->attach, p, err))
            return -1;
    }
    return 0;
}

static struct cm_str media_type_of(const struct deepseek_files *f, const struct cm_part *p)
{
    const struct cm_attached *fetched = cm_attach_find(&f->attach, p);
    const struct cm_str type = fetched ? fetched->media_type : p->media_type;

    return type.n > 0 && cm_header_value_ok(type) ? type : CM_S("application/octet-stream");
}

static bool is_image(const struct deepseek_files *f, const struct cm_part *p)
{
    return p->kind == CM_PART_IMAGE || cm_str_starts_nocase(media_type_of(f, p), CM_S("image/"));
}

static const struct {
    struct cm_str type, ending;
} endings[] = {
    {CM_S_INIT("image/png"), CM_S_INIT(".png")},
    {CM_S_INIT("image/jpeg"), CM_S_INIT(".jpg")},
    {CM_S_INIT("image/gif"), CM_S_INIT(".gif")},
    {CM_S_INIT("image/webp"), CM_S_INIT(".webp")},
    {CM_S_INIT("image/bmp"), CM_S_INIT(".bmp")},
    {CM_S_INIT("application/pdf"), CM_S_INIT(".pdf")},
    {CM_S_INIT("text/markdown"), CM_S_INIT(".md")},
    {CM_S_INIT("text/csv"), CM_S_INIT(".csv")},
    {CM_S_INIT("application/json"), CM_S_INIT(".json")},
    {CM_S_INIT("text/html"), CM_S_INIT(".html")},
    {CM_S_INIT("text/plain"), CM_S_INIT(".txt")},
};

/* The platform goes by the name's ending. */
static void put_name(const struct deepseek_files *f, const struct cm_part *p, struct cm_buf *out)
{
    struct cm_str name = p->name, type = media_type_of(f, p);
    const size_t begin = out->n;

    while (cm_str_find_char(name, '/') != SIZE_MAX)
        cm_str_cut(&name, '/');
    for (size_t i = 0; i < name.n && out->n - begin < 200; i++) {
        const unsigned char c = (unsigned char)name.p[i];

        cm_buf_put(out, c < ' ' || c == 0x7f || c == '"' || c == '\\' ? '_' : (char)c);
    }
    if (out->n > begin)
        return;
    cm_buf_append(out, is_image(f, p) ? CM_S("image") : CM_S("file"));
    for (size_t i = 0; i < CM_COUNT(endings); i++) {
        if (cm_str_eq_nocase(endings[i].type, type))
            cm_buf_append(out, endings[i].ending);
    }
}

/* ---- Going up ---- */

static enum cm_step fail(struct cm_err *err, const char *why)
{
    cm_fail_param(err, CM_ERR_BAD_REQUEST, "messages", "%s", why);
    return CM_STEP_FAIL;
}

static enum cm_step rest(struct cm_run *run, struct deepseek_files *f, struct cm_err *err)
{
    if (cm_run_unix_ms(run) - f->began_ms >= cm_option_int(cm_run_instance(run), "file_timeout")) {
        cm_fail(err, CM_ERR_TIMEOUT, "deepseek did not read the files within x.file_timeout");
        return CM_STEP_FAIL;
    }
    f->state = DEEPSEEK_FILES_REST;
    return cm_run_sleep(run, POLL_MS);
}

static enum cm_step upload_next(struct cm_run *run, struct deepseek_files *f, struct cm_err *err)
{
    if (f->next == f->n) {
        f->began_ms = cm_run_unix_ms(run);
        return rest(run, f, err);
    }
    f->state = DEEPSEEK_FILES_CHALLENGE;
    return deepseek_ask_challenge(run, f->account, "upload_path", 0);
}

static enum cm_step prove(struct cm_run *run, struct deepseek_files *f)
{
    const struct cm_part *p = f->list[f->next].part;
    const struct cm_attached *fetched = cm_attach_find(&f->attach, p);
    struct deepseek_upload *u = CM_NEW(struct deepseek_upload);
    char boundary[CM_UUID_CAP];

    cm_uuid4(boundary);
    u->search = deepseek_search_new(&f->challenge);
    cm_buf_append(&u->base64, fetched ? fetched->data : p->data);
    cm_buf_reserve(&u->body, u->base64.n / 4 * 3 + 1024);
    cm_buf_printf(&u->body, "--" BOUNDARY "%.8s\r\n", boundary);
    cm_buf_append(&u->body, CM_S("Content-Disposition: form-data; name=\"file\"; filename=\""));
    put_name(f, p, &u->body);
    cm_buf_printf(&u->body, "\"\r\nContent-Type: " CM_PRI "\r\n\r\n", CM_ARG(media_type_of(f, p)));
    u->head_bytes = u->body.n;
    cm_buf_printf(&u->tail, "\r\n--" BOUNDARY "%.8s--\r\n", boundary);
    deepseek_files_clear(f);
    f->upload = u;
    f->computing = true;
    f->state = DEEPSEEK_FILES_PROVE;
    return cm_run_compute(run, upload_work, u, upload_free);
}

/* The first line of the body is "--" and the boundary. */
static struct cm_str content_type_of(struct cm_run *run, const struct deepseek_upload *u)
{
    struct cm_str body = cm_buf_str(&u->body);
    const struct cm_str boundary = cm_str_from(cm_str_cut(&body, '\r'), 2);

    return cm_arena_printf(cm_run_arena(run), "multipart/form-data; boundary=" CM_PRI,
                           CM_ARG(boundary));
}

static enum cm_step upload(struct cm_run *run, struct deepseek_files *f, struct cm_err *err)
{
    struct cm_arena *arena = cm_run_arena(run);
    struct deepseek_upload *u = f->upload;
    struct deepseek_ask ask = {
        .path_option = "upload_path",
        .body = cm_buf_str(&u->body),
        .content_type = content_type_of(run, u),
        .file_size = cm_arena_printf(arena, "%zu", u->file_bytes),
        .thinking = f->thinking ? CM_S("1") : CM_S("0"),
        .model_type = f->model_type.n > 0 ? f->model_type : CM_S("default"),
    };

    f->computing = false;
    if (u->broken || u->file_bytes == 0)
        return fail(err, "a picture or file is empty, or its data is no base64");
    if (u->search->answer < 0) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, "deepseek gave a challenge that has no solution");
        return CM_STEP_FAIL;
    }
    ask.proof = deepseek_proof(arena, &f->challenge, u->search->answer);
    f->state = DEEPSEEK_FILES_UPLOAD;
    return deepseek_fetch(run, f->account, &ask);
}

/* ---- What the platform makes of it ---- */

static enum cm_step poll(struct cm_run *run, struct deepseek_files *f)
{
    struct deepseek_ask ask = {.method = "GET", .path_option = "files_path"};
    struct cm_buf query = {0};

    for (size_t i = 0; i < f->n; i++) {
        if (f->list[i].ready)
            continue;
        cm_buf_append(&query, query.n ? CM_S(",") : CM_S("?file_ids="));
        cm_percent(&query, f->list[i].id);
    }
    ask.query = cm_buf_settle(&query, cm_run_arena(run));
    f->state = DEEPSEEK_FILES_POLL;
    return deepseek_fetch(run, f->account, &ask);
}

static enum cm_step fork_file(struct cm_run *run, struct deepseek_files *f)
{
    struct deepseek_ask ask = {.path_option = "fork_path"};
    struct cm_buf body = {0};

    cm_buf_append(&body, CM_S("{\"file_id\":"));
    cm_json_put_str(&body, f->list[f->next].id);
    cm_buf_append(&body, CM_S(",\"to_model_type\":"));
    cm_json_put_str(&body, deepseek_option(run, "vision_model_type"));
    cm_buf_put(&body, '}');
    ask.body = cm_buf_settle(&body, cm_run_arena(run));
    f->state = DEEPSEEK_FILES_FORK;
    return deepseek_fetch(run, f->account, &ask);
}

static struct cm_str status_of(const yyjson_val *files, struct cm_str id)
{
    const size_t n = yyjson_arr_size((yyjson_val *)(uintptr_t)files);

    for (size_t i = 0; i < n; i++) {
        const yyjson_val *one = yyjson_arr_get((yyjson_val *)(uintptr_t)files, i);

        if (cm_str_eq(cm_json_str(cm_json_get(one, "id")), id))
            return cm_json_str(cm_json_get(one, "status"));
    }
    return CM_STR_NONE;
}

/* Looks at each file that is not ready; the first picture that was not understood is forked. */
static enum cm_step polled(struct cm_run *run, struct deepseek_files *f,
                           const struct deepseek_reply *reply, struct cm_err *err)
{
    const yyjson_val *files = cm_json_get(reply->biz, "files");
    bool waits = false;

    for (size_t i = 0; i < f->n; i++) {
        struct deepseek_file *file = &f->list[i];
        const struct cm_str status = status_of(files, file->id);

        if (file->ready)
            continue;
        if (cm_str_eq(status, CM_S("SUCCESS"))) {
            file->ready = true;
        } else if (cm_str_eq(status, CM_S("CONTENT_EMPTY"))) {
            if (file->forked || !is_image(f, file->part))
                return fail(err, "deepseek finds nothing to read in a file");
            f->next = i;
            return fork_file(run, f);
        } else if (status.n == 0 || cm_str_eq(status, CM_S("PENDING")) ||
                   cm_str_eq(status, CM_S("PARSING"))) {
            waits = true;
        } else {
            cm_fail_param(err, CM_ERR_BAD_REQUEST, "messages",
                          "deepseek cannot read a picture or file (" CM_PRI ")",
                          CM_ARG(cm_str_head(status, 40)));
            return CM_STEP_FAIL;
        }
    }
    return waits ? rest(run, f, err) : CM_STEP_DONE;
}

/* Of an upload or a fork: {"id":…} or {"file":{"id":…}}. */
static enum cm_step got_id(struct cm_run *run, struct deepseek_files *f,
                           const struct deepseek_reply *reply, struct cm_err *err)
{
    struct deepseek_file *file = &f->list[f->next];
    yyjson_val *id = cm_json_opt(reply->biz, "id");

    if (!id)
        id = cm_json_opt(cm_json_opt(reply->biz, "file"), "id");
    file->id = cm_arena_str(cm_run_arena(run), cm_json_str(id));
    if (file->id.n == 0) {
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, "deepseek took a file and gave no id for it");
        return CM_STEP_FAIL;
    }
    deepseek_files_clear(f); /* it has gone up */
    if (f->state == DEEPSEEK_FILES_FORK) {
        file->forked = f->forked = true;
        return rest(run, f, err);
    }
    f->next++;
    f->challenged = false;
    return upload_next(run, f, err);
}

static enum cm_step challenged(struct cm_run *run, struct deepseek_files *f,
                               const struct deepseek_reply *reply, struct cm_err *err)
{
    const int failed = deepseek_challenge_read(
        cm_run_arena(run), cm_json_get(reply->biz, "challenge"), cm_run_unix_ms(run),
        cm_option_int(cm_run_instance(run), "max_tries"), &f->challenge, err);

    if (failed > 0)
        cm_fail(err, CM_ERR_UPSTREAM_DOWN, "deepseek gave a broken challenge");
    return failed ? CM_STEP_FAIL : prove(run, f);
}

static const char *call_name(enum deepseek_files_state state)
{
    switch (state) {
    case DEEPSEEK_FILES_CHALLENGE:
        return "a challenge";
    case DEEPSEEK_FILES_UPLOAD:
        return "a file";
    case DEEPSEEK_FILES_FORK:
        return "to look at a picture";
    case DEEPSEEK_FILES_FETCH:
    case DEEPSEEK_FILES_PROVE:
    case DEEPSEEK_FILES_REST:
    case DEEPSEEK_FILES_POLL:
        break;
    }
    return "to tell about files";
}

static enum cm_step replied(struct cm_run *run, struct deepseek_files *f, const struct cm_ev *ev,
                            struct cm_err *err)
{
    struct deepseek_reply reply;
    enum cm_step step;

    deepseek_reply_of(run, ev, &reply);
    if (reply.bad_proof && f->state == DEEPSEEK_FILES_UPLOAD && !f->challenged) {
        f->challenged = true; /* once more */
        step = upload_next(run, f, err);
    } else if (reply.cls != CM_ERR_NONE) {
        step = deepseek_refuse(&reply, call_name(f->state), err);
    } else if (f->state == DEEPSEEK_FILES_CHALLENGE) {
        step = challenged(run, f, &reply, err);
    } else if (f->state == DEEPSEEK_FILES_POLL) {
        step = polled(run, f, &reply, err);
    } else {
        step = got_id(run, f, &reply, err);
    }
    yyjson_doc_free(reply.doc);
    return step;
}

/* ---- From outside ---- */

enum cm_step deepseek_files_start(struct cm_run *run, struct deepseek_files *f,
                                  const struct deepseek_account *account, size_t from,
                                  struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    enum cm_step step;

    f->account = account;
    f->n = f->next = 0;
    for (size_t i = from; i < chat->n_msgs; i++) {
        if (list_parts(run, f, chat->msgs[i].parts, chat->msgs[i].n_parts, i, err))
            return CM_STEP_FAIL;
    }
    if (f->n == 0)
        return CM_STEP_DONE;
    f->state = DEEPSEEK_FILES_FETCH;
    step = cm_attach_fetch(run, &f->attach, err);
    return step == CM_STEP_DONE ? upload_next(run, f, err) : step;
}

enum cm_step deepseek_files_step(struct cm_run *run, struct deepseek_files *f,
                                 const struct cm_ev *ev, struct cm_err *err)
{
    enum cm_step step;

    if (f->state == DEEPSEEK_FILES_FETCH) {
        step = cm_attach_step(run, &f->attach, ev, err);
        return step == CM_STEP_DONE ? upload_next(run, f, err) : step;
    }
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return CM_STEP_FAIL;
    }
    if (f->state == DEEPSEEK_FILES_PROVE)
        return upload(run, f, err);
    if (f->state == DEEPSEEK_FILES_REST)
        return poll(run, f);
    return replied(run, f, ev, err);
}

void deepseek_files_put_ids(const struct deepseek_files *f, struct cm_buf *out)
{
    cm_buf_put(out, '[');
    for (size_t i = 0; i < f->n; i++) {
        if (i > 0)
            cm_buf_put(out, ',');
        cm_json_put_str(out, f->list[i].id);
    }
    cm_buf_put(out, ']');
}
