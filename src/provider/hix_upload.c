/* hix: a file is put where the platform says, and named in the question. HIX protocol notes, section 3.3. */
#include "chatmux/base/utf8.h"
#include "hix_int.h"

#include <time.h>

#define TEXT_SAMPLE 4096
#define ODD_PERCENT 5 /* of the bytes of a text */

static const struct {
    struct cm_str mark;
    size_t offset;
    struct hix_file_type type;
} kinds[] = {
    {CM_S_INIT("%PDF"), 0, {".pdf", "application/pdf"}},
    {CM_S_INIT("\xff\xd8\xff"), 0, {".jpg", "image/jpeg"}},
    {CM_S_INIT("\x89PNG\r\n\x1a\n"), 0, {".png", "image/png"}},
    {CM_S_INIT("WEBP"), 8, {".webp", "image/webp"}},
    {CM_S_INIT("\xd0\xcf\x11\xe0"), 0, {".doc", "application/msword"}},
};
static const struct hix_file_type plain = {".txt", "text/plain"};

static bool is_text(struct cm_str bytes)
{
    const struct cm_str sample = cm_utf8_head(bytes, TEXT_SAMPLE);
    size_t odd = sample.n - cm_utf8_valid(sample);

    if (cm_str_starts(bytes, CM_S("\xef\xbb\xbf")) || cm_str_starts(bytes, CM_S("\xff\xfe")) ||
        cm_str_starts(bytes, CM_S("\xfe\xff")))
        return true;
    for (size_t i = 0; i < sample.n; i++) {
        const unsigned char c = (unsigned char)sample.p[i];

        odd += c == 0x7f || (c < ' ' && c != '\t' && c != '\n' && c != '\r');
    }
    return sample.n > 0 && odd * 100 < sample.n * ODD_PERCENT;
}

const struct hix_file_type *hix_file_type(struct cm_str bytes, bool text_said)
{
    for (size_t i = 0; i < CM_COUNT(kinds); i++) {
        const bool riff = kinds[i].offset == 0 || cm_str_starts(bytes, CM_S("RIFF"));

        if (riff && cm_str_starts(cm_str_from(bytes, kinds[i].offset), kinds[i].mark))
            return &kinds[i].type;
    }
    return text_said || is_text(bytes) ? &plain : NULL;
}

/* "20250131235959.png", local time */
static void file_name(const struct cm_run *run, const struct hix_file_type *type, char *out,
                      size_t cap)
{
    const time_t now = (time_t)(cm_run_unix_ms(run) / 1000);
    struct tm tm = {0};
    size_t n;

    localtime_r(&now, &tm);
    n = strftime(out, cap, "%Y%m%d%H%M%S", &tm);
    cm_str_copy(out + n, cap - n, cm_str_of(type->extension));
}

static enum cm_step invalid(struct cm_err *err, const char *why)
{
    cm_fail(err, CM_ERR_BAD_REQUEST, "%s", why);
    cm_str_copy(err->code, sizeof(err->code), CM_S("invalid_file"));
    return CM_STEP_FAIL;
}

enum cm_step hix_sign(struct cm_run *run, struct cm_str chat_id, struct cm_str data,
                      struct cm_str media_type, struct cm_str *bytes,
                      const struct hix_file_type **type, struct cm_err *err)
{
    struct cm_buf out = {0}, referer = {0};
    char name[40];

    if (cm_base64_decode(&out, data) < 0 || out.n == 0) {
        cm_buf_clear(&out);
        return invalid(err, "a file is empty, or its data is no base64");
    }
    *bytes = cm_buf_settle(&out, cm_run_arena(run));
    *type = hix_file_type(*bytes, cm_str_starts_nocase(media_type, CM_S("text/plain")));
    if (!*type)
        return invalid(err,
                       "invalid file type: hix takes PDF, JPEG, PNG, WebP, DOC and plain text");
    file_name(run, *type, name, sizeof(name));
    cm_buf_append(&out, CM_S("{\"filename\":"));
    cm_json_put_z(&out, name);
    cm_buf_append(&out, CM_S(",\"type\":\"file\"}"));
    cm_buf_append(&referer, CM_S("/home?id="));
    cm_percent(&referer, chat_id);
    return hix_fetch(run, hix_option(run, "sign_path"), cm_buf_settle(&referer, cm_run_arena(run)),
                     cm_buf_settle(&out, cm_run_arena(run)));
}

struct cm_str hix_signed(struct cm_run *run, struct cm_str reply)
{
    yyjson_doc *doc = cm_json_parse(reply, &cm_json_limits_event, NULL);
    struct cm_str url =
        doc ? cm_json_str(cm_json_get(yyjson_doc_get_root(doc), "sign")) : CM_STR_NONE;

    if (!cm_str_starts(url, CM_S("https://")) && !cm_str_starts(url, CM_S("http://")))
        url = CM_STR_NONE;
    url = cm_arena_str(cm_run_arena(run), url);
    yyjson_doc_free(doc);
    return url;
}

/* Goes to a store that is no part of the platform: no cookie, no origin. */
enum cm_step hix_put(struct cm_run *run, struct cm_str to, struct cm_str bytes,
                     const struct hix_file_type *type)
{
    const struct cm_header headers[] = {
        {CM_S("Content-Type"), cm_str_of(type->type)},
        {CM_S("User-Agent"), cm_run_browser(run)->user_agent},
    };
    const struct cm_call call = {.method = "PUT",
                                 .url = to,
                                 .headers = headers,
                                 .n_headers = CM_COUNT(headers),
                                 .body = bytes};

    return cm_run_fetch(run, &call);
}
