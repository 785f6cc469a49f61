/* Pictures and files in genspark's messages (protocol notes, section 6).
 *
 * Happy path: FETCH (what a message only points at, provider/attach.h) -> pictures go along as data: URLs; of each other file UPLOAD_URL (where to) ->
 * UPLOAD (there, without the cookie), and its handle goes along. What something is, its bytes tell. */
#include "genspark_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"

#include <stdio.h>

#define SNIFF_CHARS 64 /* base64 of enough bytes to know a kind by */

/* ---- Which there are ---- */

static bool is_wanted(const struct cm_part *part)
{
    return part->kind == CM_PART_IMAGE || part->kind == CM_PART_FILE;
}

static size_t count(const struct cm_part *parts, size_t n)
{
    size_t found = 0;

    for (size_t i = 0; i < n; i++)
        found += is_wanted(&parts[i]) + count(parts[i].parts, parts[i].n_parts);
    return found;
}

static struct cm_str sniffed(struct cm_str base64)
{
    struct cm_buf bytes = {0};
    struct cm_str type = CM_STR_NONE;

    if (!cm_base64_decode(&bytes, cm_str_head(base64, SNIFF_CHARS)))
        type = cm_media_type_of(cm_buf_str(&bytes));
    cm_buf_clear(&bytes);
    return type;
}

static int note(struct genspark *g, const struct cm_part *part, struct cm_err *err)
{
    const struct cm_attached *fetched = cm_attach_find(&g->attach, part);
    struct genspark_file *f = &g->files[g->n_files++];
    const struct cm_str declared = fetched ? fetched->media_type : part->media_type;

    f->part = part;
    f->data = fetched ? fetched->data : part->data;
    if (f->data.n == 0) {
        cm_fail_param(err, CM_ERR_BAD_REQUEST, "messages",
                      "genspark takes files with their bytes or an address, not by id");
        cm_str_copy(err->code, sizeof(err->code), CM_S("unsupported_value"));
        return -1;
    }
    f->type = sniffed(f->data);
    f->is_picture = cm_str_starts(f->type, CM_S("image/"));
    if (f->type.n == 0)
        f->type = cm_str_has(declared, CM_S("/")) ? declared : CM_S("application/octet-stream");
    return 0;
}

static int note_all(struct genspark *g, const struct cm_part *parts, size_t n, struct cm_err *err)
{
    for (size_t i = 0; i < n; i++) {
        if ((is_wanted(&parts[i]) && note(g, &parts[i], err)) ||
            note_all(g, parts[i].parts, parts[i].n_parts, err))
            return -1;
    }
    return 0;
}

/* Those of the messages that are sent, or of what is to be made. */
static int note_files(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);
    const bool media = genspark_makes_media(g->ask.kind);
    const struct cm_msg *wish = &g->wish.msg;
    size_t n = count(wish->parts, wish->n_parts);

    for (size_t i = g->ask.from; i < chat->n_msgs; i++)
        n += count(chat->msgs[i].parts, chat->msgs[i].n_parts);
    g->files = CM_ARENA_ARRAY(cm_run_arena(run), struct genspark_file, n);
    g->n_files = g->file = 0;
    if (media)
        return note_all(g, wish->parts, wish->n_parts, err);
    for (size_t i = g->ask.from; i < chat->n_msgs; i++) {
        if (note_all(g, chat->msgs[i].parts, chat->msgs[i].n_parts, err))
            return -1;
    }
    return 0;
}

/* ---- Uploads ---- */

static enum cm_step next_upload(struct cm_run *run, struct genspark *g)
{
    struct cm_call call = {.method = "GET", .url = genspark_option(run, "upload_path")};

    while (g->file < g->n_files && g->files[g->file].is_picture)
        g->file++;
    if (g->file == g->n_files)
        return CM_STEP_DONE;
    g->state = GENSPARK_UPLOAD_URL;
    return genspark_fetch(run, &g->ask, &call);
}

static enum cm_step upload(struct cm_run *run, struct genspark *g, struct cm_str url,
                           struct cm_err *err)
{
    struct genspark_file *f = &g->files[g->file];
    struct genspark_headers h = {.n = 0};
    struct cm_call call = {.method = "PUT", .url = url, .headers = h.v};
    struct cm_buf bytes = {0};

    if (cm_base64_decode(&bytes, f->data)) {
        cm_buf_clear(&bytes);
        cm_fail_param(err, CM_ERR_BAD_REQUEST, "messages", "a file is no valid base64");
        return CM_STEP_FAIL;
    }
    f->size = bytes.n;
    call.body = cm_buf_settle(&bytes, cm_run_arena(run));
    genspark_add(&h, CM_S("Content-Type"), CM_S("application/octet-stream"));
    genspark_add(&h, CM_S("x-ms-blob-type"), CM_S("BlockBlob"));
    genspark_add(&h, CM_S("User-Agent"), cm_run_browser(run)->user_agent);
    call.n_headers = h.n;
    g->state = GENSPARK_UPLOAD;
    return cm_run_fetch(run, &call);
}

/* {"status":0,"data":{"upload_image_url":"https://…","private_storage_url":"…"}} */
static enum cm_step told_where(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                               struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(ev->data, &cm_json_limits_event, NULL);
    yyjson_val *data = doc ? cm_json_opt(yyjson_doc_get_root(doc), "data") : NULL;
    struct cm_str url = cm_json_str(cm_json_get(data, "upload_image_url"));

    g->files[g->file].handle =
        cm_arena_str(cm_run_arena(run), cm_json_str(cm_json_get(data, "private_storage_url")));
    url = cm_arena_str(cm_run_arena(run), url);
    yyjson_doc_free(doc);
    if (ev->status == 200 && cm_str_has(cm_str_head(url, 8), CM_S("://")) &&
        g->files[g->file].handle.n > 0)
        return upload(run, g, url, err);
    genspark_refuse(run, ev->status, 0, ev->data, err);
    return CM_STEP_FAIL;
}

static enum cm_step uploaded(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                             struct cm_err *err)
{
    if (ev->status >= 200 && ev->status < 300) {
        g->file++;
        return next_upload(run, g);
    }
    cm_fail(err, CM_ERR_UPSTREAM_DOWN, "genspark's storage refused a file with status %d",
            ev->status);
    return CM_STEP_FAIL;
}

static enum cm_step fetched(struct cm_run *run, struct genspark *g, enum cm_step step,
                            struct cm_err *err)
{
    if (step != CM_STEP_DONE)
        return step;
    return note_files(run, g, err) ? CM_STEP_FAIL : next_upload(run, g);
}

enum cm_step genspark_parts_begin(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    g->state = GENSPARK_FETCH;
    return fetched(run, g,
                   cm_attach_start(run, &g->attach, CM_ATTACH_IMAGES | CM_ATTACH_FILES, err), err);
}

enum cm_step genspark_parts_again(struct cm_run *run, struct genspark *g, struct cm_err *err)
{
    return fetched(run, g, CM_STEP_DONE, err);
}

enum cm_step genspark_parts_step(struct cm_run *run, struct genspark *g, const struct cm_ev *ev,
                                 struct cm_err *err)
{
    if (g->state == GENSPARK_FETCH)
        return fetched(run, g, cm_attach_step(run, &g->attach, ev, err), err);
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return CM_STEP_FAIL;
    }
    return g->state == GENSPARK_UPLOAD ? uploaded(run, g, ev, err) : told_where(run, g, ev, err);
}

/* ---- In a message ---- */

static const struct genspark_file *file_of(const struct genspark *g, const struct cm_part *part)
{
    for (size_t i = 0; i < g->n_files; i++) {
        if (g->files[i].part == part)
            return &g->files[i];
    }
    return NULL;
}

/* The site's own client always says jpeg, and calls every file "file". */
static void put_file(struct cm_buf *out, const struct genspark_file *f)
{
    struct cm_str ext = f->type;

    if (f->is_picture) {
        cm_buf_append(out, CM_S("{\"type\":\"image_url\",\"image_url\":{\"url\":"
                                "\"data:image/jpeg;base64,"));
        cm_buf_append(out, f->data);
        cm_buf_append(out, CM_S("\"}}"));
        return;
    }
    cm_str_cut(&ext, '/');
    cm_buf_append(out, CM_S("{\"type\":\"private_file\",\"private_file\":{\"name\":\"file\","
                            "\"type\":"));
    cm_json_put_str(out, f->type);
    cm_buf_printf(out, ",\"size\":%zu,\"ext\":", f->size);
    cm_json_put_str(out, ext);
    cm_buf_append(out, CM_S(",\"private_storage_url\":"));
    cm_json_put_str(out, f->handle);
    cm_buf_append(out, CM_S("}}"));
}

static void put_files(struct cm_buf *out, const struct genspark *g, const struct cm_part *parts,
                      size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct genspark_file *f = file_of(g, &parts[i]);

        if (f) {
            put_file(out, f);
            cm_buf_put(out, ',');
        }
        put_files(out, g, parts[i].parts, parts[i].n_parts);
    }
}

void genspark_put_content(struct cm_buf *out, const struct genspark *g, struct cm_str text,
                          const struct cm_msg *msgs, size_t n)
{
    const size_t begin = out->n + 1;

    cm_buf_put(out, '[');
    for (size_t i = 0; i < n; i++)
        put_files(out, g, msgs[i].parts, msgs[i].n_parts);
    if (out->n == begin) { /* none: a plain text */
        out->n--;
        cm_json_put_str(out, text);
        return;
    }
    if (text.n > 0) {
        cm_buf_append(out, CM_S("{\"type\":\"text\",\"text\":"));
        cm_json_put_str(out, text);
        cm_buf_append(out, CM_S("}]"));
    } else {
        out->p[out->n - 1] = ']'; /* for the last comma */
    }
}

bool genspark_has_files(const struct genspark *g, const struct cm_msg *msg)
{
    for (size_t i = 0; i < msg->n_parts; i++) {
        if (file_of(g, &msg->parts[i]) ||
            (msg->parts[i].n_parts > 0 && count(msg->parts[i].parts, msg->parts[i].n_parts) > 0))
            return true;
    }
    return false;
}
