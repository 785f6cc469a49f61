/* Pictures and files behind addresses, fetched one after the other before a platform is asked.
 *
 * Happy path: start() lists the addresses -> fetch -> 200 -> its type by its first bytes -> base64 -> the next one.
 * Failures: every one of them is told to the client with the address, without its query, which may hold a signature. */
#include "chatmux/provider/attach.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/version.h"

/* ---- types ---- */

static const struct {
    size_t offset;
    struct cm_str mark, type;
} marks[] = {
    {0, CM_S_INIT("\x89PNG\r\n\x1a\n"), CM_S_INIT("image/png")},
    {0, CM_S_INIT("\xff\xd8\xff"), CM_S_INIT("image/jpeg")},
    {0, CM_S_INIT("GIF87a"), CM_S_INIT("image/gif")},
    {0, CM_S_INIT("GIF89a"), CM_S_INIT("image/gif")},
    {8, CM_S_INIT("WEBP"), CM_S_INIT("image/webp")},
    {4, CM_S_INIT("ftypheic"), CM_S_INIT("image/heic")},
    {4, CM_S_INIT("ftypheix"), CM_S_INIT("image/heic")},
    {4, CM_S_INIT("ftypmif1"), CM_S_INIT("image/heif")},
    {4, CM_S_INIT("ftypavif"), CM_S_INIT("image/avif")},
    {0, CM_S_INIT("BM"), CM_S_INIT("image/bmp")},
    {0, CM_S_INIT("%PDF-"), CM_S_INIT("application/pdf")},
    {8, CM_S_INIT("WAVE"), CM_S_INIT("audio/wav")},
    {0, CM_S_INIT("ID3"), CM_S_INIT("audio/mpeg")},
    {0, CM_S_INIT("OggS"), CM_S_INIT("audio/ogg")},
    {0, CM_S_INIT("fLaC"), CM_S_INIT("audio/flac")},
    {4, CM_S_INIT("ftyp"), CM_S_INIT("video/mp4")},
    {0, CM_S_INIT("\x1a\x45\xdf\xa3"), CM_S_INIT("video/webm")},
};

struct cm_str cm_media_type_of(struct cm_str bytes)
{
    for (size_t i = 0; i < CM_COUNT(marks); i++) {
        if (cm_str_starts(cm_str_from(bytes, marks[i].offset), marks[i].mark))
            return marks[i].type;
    }
    return CM_STR_NONE;
}

/* What the server calls it, where its bytes do not tell: "text/plain; charset=…" without the rest. */
static struct cm_str declared(struct cm_run *run, const struct cm_ev *ev)
{
    struct cm_str type =
        cm_str_trim(cm_header_find(ev->headers, ev->n_headers, CM_S("content-type")));

    return cm_arena_str(cm_run_arena(run), cm_str_trim(cm_str_cut(&type, ';')));
}

/* ---- redirects ---- */

static bool is_http(struct cm_str url)
{
    return cm_str_starts_nocase(url, CM_S("http://")) ||
           cm_str_starts_nocase(url, CM_S("https://"));
}

/* Up to the first of these characters. */
static size_t span(struct cm_str s, const char *stops)
{
    size_t n = 0;

    while (n < s.n && !strchr(stops, s.p[n]))
        n++;
    return n;
}

/* Of "https://host/a/b?q": without the path, without the last part of it, without the query. */
static void cut_url(struct cm_str url, struct cm_str *origin, struct cm_str *folder,
                    struct cm_str *page)
{
    const size_t scheme = cm_str_find(url, CM_S("://")) + 3;
    size_t last;

    *page = cm_str_head(url, span(url, "?#"));
    *origin = cm_str_head(*page, scheme + span(cm_str_from(*page, scheme), "/"));
    for (last = page->n; last > origin->n && page->p[last - 1] != '/'; last--)
        ;
    *folder = last > origin->n ? cm_str_head(*page, last - 1) : *origin;
}

struct cm_str cm_attach_redirect(struct cm_arena *arena, struct cm_str base, struct cm_str location)
{
    struct cm_str origin, folder, page;

    location = cm_str_trim(location);
    if (location.n == 0 || !is_http(base))
        return CM_STR_NONE;
    if (cm_str_has(cm_str_head(location, span(location, "/?#")), CM_S(":"))) /* a scheme */
        return is_http(location) ? cm_arena_str(arena, location) : CM_STR_NONE;
    cut_url(base, &origin, &folder, &page);
    if (cm_str_starts(location, CM_S("?")))
        return cm_arena_printf(arena, CM_PRI CM_PRI, CM_ARG(page), CM_ARG(location));
    if (cm_str_starts(location, CM_S("//")))
        return cm_arena_printf(arena, CM_PRI CM_PRI,
                               CM_ARG(cm_str_head(base, cm_str_find_char(base, '/'))),
                               CM_ARG(location));
    if (cm_str_starts(location, CM_S("/")))
        return cm_arena_printf(arena, CM_PRI CM_PRI, CM_ARG(origin), CM_ARG(location));
    return cm_arena_printf(arena, CM_PRI "/" CM_PRI, CM_ARG(folder), CM_ARG(location));
}

static bool redirects(int status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* ---- the flow ---- */

static enum cm_step refuse(struct cm_attach *a, struct cm_err *err, const char *why)
{
    struct cm_str url = a->list[a->next].url;

    url = cm_str_head(url, cm_str_find_char(url, '?'));
    cm_fail(err, CM_ERR_BAD_REQUEST, CM_PRI " cannot be fetched: %s", CM_ARG(cm_str_head(url, 160)),
            why);
    cm_str_copy(err->code, sizeof(err->code), CM_S("invalid_image_url"));
    return CM_STEP_FAIL;
}

static enum cm_step fetch(struct cm_run *run, struct cm_attach *a, struct cm_err *err)
{
    static const struct cm_header headers[] = {
        {CM_S_INIT("Accept"), CM_S_INIT("*/*")},
        {CM_S_INIT("User-Agent"), CM_S_INIT("chatmux/" CM_VERSION)},
    };
    struct cm_call call = {.method = "GET",
                           .url = a->at,
                           .headers = headers,
                           .n_headers = CM_COUNT(headers),
                           .max_reply = CM_ATTACH_ONE_BYTES,
                           .timeout_ms = CM_ATTACH_ONE_MS,
                           .foreign = true};

    if (cm_run_unix_ms(run) - a->began_ms > CM_ATTACH_ALL_MS)
        return refuse(a, err, "all of the request's addresses together took too long");
    return cm_run_fetch(run, &call);
}

static enum cm_step fetch_next(struct cm_run *run, struct cm_attach *a, struct cm_err *err)
{
    if (a->next == a->n)
        return CM_STEP_DONE;
    a->at = a->list[a->next].url;
    a->redirects = 0;
    return fetch(run, a, err);
}

static bool listed(const struct cm_attach *a, struct cm_str url)
{
    for (size_t i = 0; i < a->n; i++) {
        if (cm_str_eq(a->list[i].url, url))
            return true;
    }
    return false;
}

static int list_parts(struct cm_run *run, struct cm_attach *a, const struct cm_part *parts,
                      size_t n, struct cm_err *err)
{
    for (size_t i = 0; i < n; i++) {
        const struct cm_part *p = &parts[i];

        if (p->n_parts > 0 && list_parts(run, a, p->parts, p->n_parts, err))
            return -1;
        if (p->url.n == 0 || !(a->kinds & (1u << p->kind)) || listed(a, p->url))
            continue;
        if (a->n == CM_ATTACH_MAX)
            return cm_fail(err, CM_ERR_BAD_REQUEST,
                           "the request points at more than %d pictures and files", CM_ATTACH_MAX);
        a->list[a->n++].url = cm_arena_str(cm_run_arena(run), p->url);
    }
    return 0;
}

int cm_attach_add(struct cm_run *run, struct cm_attach *a, const struct cm_part *part,
                  struct cm_err *err)
{
    a->kinds |= 1u << part->kind;
    return list_parts(run, a, part, 1, err);
}

enum cm_step cm_attach_fetch(struct cm_run *run, struct cm_attach *a, struct cm_err *err)
{
    a->began_ms = cm_run_unix_ms(run);
    return fetch_next(run, a, err);
}

enum cm_step cm_attach_start(struct cm_run *run, struct cm_attach *a, unsigned kinds,
                             struct cm_err *err)
{
    const struct cm_chat *chat = cm_run_chat(run);

    *a = (struct cm_attach){.kinds = kinds, .began_ms = cm_run_unix_ms(run)};
    for (size_t i = 0; i < chat->n_msgs; i++) {
        if (list_parts(run, a, chat->msgs[i].parts, chat->msgs[i].n_parts, err))
            return CM_STEP_FAIL;
    }
    if (list_parts(run, a, chat->media.images, chat->media.n_images, err) ||
        (chat->media.mask && list_parts(run, a, chat->media.mask, 1, err)))
        return CM_STEP_FAIL;
    return fetch_next(run, a, err);
}

static enum cm_step redirected(struct cm_run *run, struct cm_attach *a, const struct cm_ev *ev,
                               struct cm_err *err)
{
    struct cm_str location = cm_header_find(ev->headers, ev->n_headers, CM_S("location"));

    if (a->redirects++ == CM_ATTACH_REDIRECTS)
        return refuse(a, err, "it redirects too often");
    a->at = cm_attach_redirect(cm_run_arena(run), a->at, location);
    return a->at.n > 0 ? fetch(run, a, err) : refuse(a, err, "it redirects to nowhere");
}

static enum cm_step keep(struct cm_run *run, struct cm_attach *a, const struct cm_ev *ev,
                         struct cm_err *err)
{
    struct cm_attached *one = &a->list[a->next];
    struct cm_str type = cm_media_type_of(ev->data);
    struct cm_buf base64 = {0};

    a->bytes += ev->data.n;
    if (ev->data.n == 0)
        return refuse(a, err, "there is nothing");
    if (a->bytes > CM_ATTACH_ALL_BYTES)
        return refuse(a, err, "all of the request's addresses together hold too much");
    one->media_type = type.n > 0 ? type : declared(run, ev);
    if (one->media_type.n == 0 || cm_str_starts_nocase(one->media_type, CM_S("text/html")))
        return refuse(a, err, "it is neither a picture nor a known kind of file");
    cm_base64(&base64, ev->data);
    one->data = cm_buf_settle(&base64, cm_run_arena(run));
    a->next++;
    return fetch_next(run, a, err);
}

enum cm_step cm_attach_step(struct cm_run *run, struct cm_attach *a, const struct cm_ev *ev,
                            struct cm_err *err)
{
    char why[64];

    switch (ev->kind) {
    case CM_EV_REPLY:
        if (redirects(ev->status))
            return redirected(run, a, ev, err);
        if (ev->status == 200)
            return keep(run, a, ev, err);
        snprintf(why, sizeof(why), "it answers with status %d", ev->status);
        return refuse(a, err, why);
    case CM_EV_FAILED:
        return refuse(a, err, ev->err->msg);
    case CM_EV_START:
    case CM_EV_HEAD:
    case CM_EV_DATA:
    case CM_EV_END:
    case CM_EV_OPEN:
    case CM_EV_TIMER:
    case CM_EV_COMPUTED:
    case CM_EV_STOP:
        break; /* never asked for, or nothing to tidy up */
    }
    return CM_STEP_DONE;
}

const struct cm_attached *cm_attach_find(const struct cm_attach *a, const struct cm_part *part)
{
    for (size_t i = 0; i < a->next && part->url.n > 0 && a->kinds & (1u << part->kind); i++) {
        if (cm_str_eq(a->list[i].url, part->url))
            return &a->list[i];
    }
    return NULL;
}
