/* HTTP/1 requests out of bytes.
 *
 * Two readers must agree on a head: llhttp finds its end and refuses bad tokens, then a walk over the lines builds the headers and refuses
 * what llhttp lets through (RFC 9112 2.2, 3, 5.1, 5.2, 6.1, 6.3). A body of known length is counted; chunks are llhttp's again. */
#include "http1_int.h"

#define LEAD_MAX                                                                                   \
    8 /* four empty lines: RFC 9112 2.2 asks for one, old clients send some after a body */

static int on_headers_complete(llhttp_t *parser)
{
    parser->upgrade = 0; /* upgrades are ignored (RFC 9110 7.8): what follows is HTTP/1.1 */
    return HPE_PAUSED;
}

static int on_message_complete(llhttp_t *parser)
{
    (void)parser;
    return HPE_PAUSED;
}

static int on_body(llhttp_t *parser, const char *at, size_t n);

static const llhttp_settings_t parser_settings = {
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

void cm_h1_reset(struct cm_h1 *h, size_t head_max)
{
    *h = (struct cm_h1){.state = CM_H1_LEAD, .head_max = head_max, .body_max = UINT64_MAX};
    llhttp_init(&h->parser, HTTP_REQUEST, &parser_settings);
}

static enum cm_h1_event fail(struct cm_h1 *h)
{
    h->state = CM_H1_FAILED;
    return CM_H1_ERROR;
}

/* ---- head */

/* Empty lines before a request are skipped, whole ones and few. */
static int skip_lead(struct cm_h1 *h, struct cm_str in, size_t *used, struct cm_err *err)
{
    for (size_t i = 0; i < in.n; i++) {
        char want = h->lead % 2 == 0 ? '\r' : '\n';

        if (in.p[i] == want && h->lead < LEAD_MAX) {
            h->lead++;
            *used = i + 1;
            continue;
        }
        if (in.p[i] == '\r' || in.p[i] == '\n' || want == '\n')
            return cm_fail(err, CM_ERR_BAD_REQUEST, "the request begins with stray line ends");
        h->state = CM_H1_HEAD;
        break;
    }
    return 0;
}

static enum cm_h1_event next_head(struct cm_h1 *h, struct cm_str in, size_t *used,
                                  struct cm_err *err)
{
    struct cm_str fresh;
    llhttp_errno_t rc;

    if (h->state == CM_H1_LEAD) {
        if (skip_lead(h, in, used, err) != 0)
            return fail(h);
        in = cm_str_from(in, *used);
    }
    if (in.n == 0)
        return CM_H1_MORE;
    fresh = cm_str_from(cm_str_head(in, h->head_max), h->head_n);
    rc = llhttp_execute(&h->parser, fresh.p, fresh.n);
    if (rc == HPE_PAUSED) {
        h->head_n = (size_t)(llhttp_get_error_pos(&h->parser) - in.p);
        *used += h->head_n;
        return CM_H1_GOT_HEAD;
    }
    if (rc != HPE_OK) {
        cm_fail(err, CM_ERR_BAD_REQUEST, "this is not an HTTP/1.1 request: %s",
                llhttp_get_error_reason(&h->parser));
        return fail(h);
    }
    h->head_n += fresh.n;
    if (h->head_n < h->head_max)
        return CM_H1_MORE;
    cm_fail(err, CM_ERR_HEADER_TOO_LARGE, "the request line and headers exceed %zu bytes",
            h->head_max);
    return fail(h);
}

/* What the walk collects about framing. */
struct framing {
    unsigned hosts, lengths, codings;
    bool chunked, close, keep_alive;
};

static bool host_ok(struct cm_str s)
{
    for (size_t i = 0; i < s.n;
         i++) { /* RFC 3986 reg-name, IP-literal, port; may be empty (RFC 9112 3.2) */
        unsigned char c = (unsigned char)s.p[i];

        if (c <= ' ' || c >= 0x7f || memchr("/?#@\\\"<>^`{|}", c, 13))
            return false;
    }
    return true;
}

static void read_connection(struct cm_str value, struct framing *f)
{
    while (value.n > 0) {
        struct cm_str token = cm_str_trim(cm_str_cut(&value, ','));

        f->close |= cm_str_eq_nocase(token, CM_S("close"));
        f->keep_alive |= cm_str_eq_nocase(token, CM_S("keep-alive"));
    }
}

/* Headers that decide where the message ends. By length first: most headers match none. */
static int read_framing(const struct cm_header *f, struct cm_h1_head *out, struct framing *seen,
                        struct cm_err *err)
{
    uint64_t length;

    switch (f->name.n) {
    case sizeof("Host") - 1:
        if (cm_str_eq_nocase(f->name, CM_S("Host"))) {
            if (seen->hosts++ > 0)
                return cm_fail(err, CM_ERR_BAD_REQUEST, "more than one Host header");
            if (!host_ok(f->value))
                return cm_fail(err, CM_ERR_BAD_REQUEST, "the Host header is not a host name");
        }
        break;
    case sizeof("Expect") - 1:
        if (cm_str_eq_nocase(f->name, CM_S("Expect")))
            out->expects_continue |= cm_str_eq_nocase(f->value, CM_S("100-continue"));
        break;
    case sizeof("Connection") - 1:
        if (cm_str_eq_nocase(f->name, CM_S("Connection")))
            read_connection(f->value, seen);
        break;
    case sizeof("Content-Length") - 1:
        if (cm_str_eq_nocase(f->name, CM_S("Content-Length"))) {
            if (seen->lengths++ > 0)
                return cm_fail(err, CM_ERR_BAD_REQUEST, "more than one Content-Length header");
            if (!cm_str_to_u64(f->value, INT64_MAX, &length))
                return cm_fail(err, CM_ERR_BAD_REQUEST, "Content-Length is not a number of bytes");
            out->content_length = (int64_t)length;
        }
        break;
    case sizeof("Transfer-Encoding") - 1:
        if (cm_str_eq_nocase(f->name, CM_S("Transfer-Encoding"))) {
            if (seen->codings++ > 0 || !cm_str_eq_nocase(f->value, CM_S("chunked")))
                return cm_fail(err, CM_ERR_BAD_REQUEST,
                               "Transfer-Encoding can only be \"chunked\" here");
            out->chunked = true;
        }
        break;
    default:
        break;
    }
    return 0;
}

/* The next line without its CRLF, -1 when it ends otherwise or has a CR inside. */
static int cut_line(struct cm_str *rest, struct cm_str *line, struct cm_err *err)
{
    *line = cm_str_cut(rest, '\n');
    if (line->n == 0 || cm_str_find_char(*line, '\r') != line->n - 1)
        return cm_fail(err, CM_ERR_BAD_REQUEST,
                       "a line of the request head does not end with CR LF");
    line->n--;
    return 0;
}

static int read_target(struct cm_h1_head *out, struct cm_err *err)
{
    struct cm_str rest = out->target;
    size_t at;

    for (size_t i = 0; i < rest.n; i++) {
        unsigned char c = (unsigned char)rest.p[i];

        if (c <= ' ' || c >= 0x7f || c == '#')
            return cm_fail(err, CM_ERR_BAD_REQUEST,
                           "the request target holds a character that must be percent-encoded");
    }
    if (rest.n > 0 && rest.p[0] != '/' && (at = cm_str_find(rest, CM_S("://"))) != SIZE_MAX) {
        rest = cm_str_from(rest, at + 3); /* absolute form, as proxies are asked (RFC 9112 3.2.2) */
        for (at = 0; at < rest.n && rest.p[at] != '/' && rest.p[at] != '?'; at++)
            ;
        rest = cm_str_from(rest, at);
        if (rest.n == 0)
            rest = CM_S("/");
    }
    out->path = cm_str_cut(&rest, '?');
    out->query = rest;
    if (out->path.n == 0)
        out->path = CM_S("/");
    return 0;
}

/* "GET /path HTTP/1.1". llhttp also takes HTTP/0.9 and 2.0, RTSP and ICE, and several spaces. */
static int read_request_line(struct cm_str line, struct cm_h1_head *out, struct cm_err *err)
{
    out->method = cm_str_cut(&line, ' ');
    out->target = cm_str_cut(&line, ' ');
    if (cm_str_eq(line, CM_S("HTTP/1.1")))
        out->minor = 1;
    else if (cm_str_eq(line, CM_S("HTTP/1.0")))
        out->minor = 0;
    else
        return cm_fail(err, CM_ERR_BAD_REQUEST,
                       "the request line must be METHOD TARGET HTTP/1.1 (or HTTP/1.0)");
    if (cm_str_eq(out->method, CM_S("SOURCE"))) /* streaming servers' own, known to llhttp */
        return cm_fail(err, CM_ERR_BAD_REQUEST, "SOURCE is not a method of HTTP");
    return read_target(out, err);
}

static int read_head(struct cm_h1 *h, struct cm_str rest, struct cm_arena *arena,
                     struct cm_h1_head *out, struct cm_err *err)
{
    struct cm_header headers[CM_H1_HEADERS_MAX];
    struct framing seen = {0};
    struct cm_str line;
    size_t n = 0;

    if (cut_line(&rest, &line, err) != 0 || read_request_line(line, out, err) != 0)
        return -1;
    for (;;) {
        struct cm_header *f = &headers[n];

        if (cut_line(&rest, &line, err) != 0)
            return -1;
        if (line.n == 0)
            break;
        if (n == CM_H1_HEADERS_MAX)
            return cm_fail(err, CM_ERR_HEADER_TOO_LARGE, "more than %d headers", CM_H1_HEADERS_MAX);
        if (cm_str_find_char(line, ':') == SIZE_MAX)
            return cm_fail(err, CM_ERR_BAD_REQUEST, "a header line has no colon");
        f->name = cm_str_cut(&line, ':');
        f->value = cm_str_trim(line);
        if (!cm_header_name_ok(f->name)) /* an empty or folded one too */
            return cm_fail(err, CM_ERR_BAD_REQUEST, "a header name is not a token");
        if (read_framing(f, out, &seen, err) != 0)
            return -1;
        n++;
    }
    if (rest.n > 0)
        return cm_fail(err, CM_ERR_BAD_REQUEST, "the request head holds an empty line");
    if (out->chunked && (out->minor == 0 || seen.lengths > 0))
        return cm_fail(err, CM_ERR_BAD_REQUEST, "Transfer-Encoding cannot stand with %s",
                       seen.lengths > 0 ? "Content-Length" : "HTTP/1.0");
    if (out->minor == 1 && seen.hosts == 0)
        return cm_fail(err, CM_ERR_BAD_REQUEST, "the Host header is missing");
    if (out->chunked != ((h->parser.flags & F_CHUNKED) != 0) ||
        (out->content_length > 0 && h->parser.content_length != (uint64_t)out->content_length))
        return cm_fail(err, CM_ERR_BAD_REQUEST, "the length of the request body is ambiguous");
    out->keep_alive = !seen.close && (out->minor == 1 || seen.keep_alive);
    out->expects_continue &= out->minor == 1;
    out->n_headers = n;
    out->headers = cm_arena_alloc(arena, n * sizeof(headers[0]));
    memcpy(out->headers, headers, n * sizeof(headers[0]));
    return 0;
}

int cm_h1_head(struct cm_h1 *h, struct cm_str used, struct cm_arena *arena, struct cm_h1_head *out,
               struct cm_err *err)
{
    struct cm_str raw = cm_str_from(used, used.n - h->head_n);

    *out = (struct cm_h1_head){.content_length = -1};
    if (read_head(h, cm_arena_str(arena, raw), arena, out, err) != 0) {
        h->state = CM_H1_FAILED;
        return -1;
    }
    if (out->chunked) {
        h->state = CM_H1_CHUNKED;
    } else if (out->content_length > 0) {
        h->left = (uint64_t)out->content_length;
        h->state = CM_H1_LENGTH;
    } else {
        h->state = CM_H1_END;
    }
    return 0;
}

/* ---- body */

static int body_too_large(struct cm_h1 *h, struct cm_err *err)
{
    return cm_fail(err, CM_ERR_TOO_LARGE, "the request body exceeds %llu bytes",
                   (unsigned long long)h->body_max);
}

static enum cm_h1_event next_length(struct cm_h1 *h, struct cm_str in, size_t *used,
                                    struct cm_err *err)
{
    struct cm_str piece = cm_str_head(in, h->left < in.n ? (size_t)h->left : in.n);

    if (h->body_n + h->left > h->body_max) { /* told by Content-Length, before the first byte */
        body_too_large(h, err);
        return fail(h);
    }
    if (h->body)
        cm_buf_append(h->body, piece);
    *used = piece.n;
    h->body_n += piece.n;
    h->left -= piece.n;
    if (h->left > 0)
        return CM_H1_MORE;
    h->state = CM_H1_END;
    return CM_H1_GOT_END;
}

/* Where llhttp's last piece of body began to be counted; only while it runs. */
struct chunk_run {
    struct cm_h1 *h;
    const char *from; /* first byte that is not accounted for */
};

static bool chunk_overhead(struct chunk_run *run, const char *to)
{
    run->h->overhead += (size_t)(to - run->from);
    run->from = to;
    return run->h->overhead <= CM_H1_OVERHEAD_MAX;
}

static int on_body(llhttp_t *parser, const char *at, size_t n)
{
    struct chunk_run *run = parser->data;
    struct cm_h1 *h = run->h;

    if (!chunk_overhead(run, at))
        return HPE_USER;
    h->overhead = 0;
    run->from = at + n;
    h->body_n += n;
    if (h->body_n > h->body_max)
        return HPE_USER;
    if (h->body)
        cm_buf_append(h->body, cm_str(at, n));
    return 0;
}

static enum cm_h1_event next_chunked(struct cm_h1 *h, struct cm_str in, size_t *used,
                                     struct cm_err *err)
{
    struct chunk_run run = {h, in.p};
    const char *end = in.p + in.n;
    llhttp_errno_t rc;

    if (llhttp_get_errno(&h->parser) == HPE_PAUSED)
        llhttp_resume(&h->parser);
    h->parser.data = &run;
    rc = llhttp_execute(&h->parser, in.p, in.n);
    h->parser.data = NULL;
    if (rc != HPE_OK)
        end = llhttp_get_error_pos(&h->parser);
    if (h->body_n > h->body_max) {
        body_too_large(h, err);
        return fail(h);
    }
    if (rc == HPE_USER || !chunk_overhead(&run, end)) {
        cm_fail(err, CM_ERR_BAD_REQUEST, "more than %d bytes of chunk framing without a body byte",
                CM_H1_OVERHEAD_MAX);
        return fail(h);
    }
    *used = (size_t)(end - in.p);
    if (rc == HPE_OK)
        return CM_H1_MORE;
    if (rc == HPE_PAUSED) {
        h->state = CM_H1_END;
        return CM_H1_GOT_END;
    }
    cm_fail(err, CM_ERR_BAD_REQUEST, "the chunked body is broken: %s",
            llhttp_get_error_reason(&h->parser));
    return fail(h);
}

enum cm_h1_event cm_h1_next(struct cm_h1 *h, struct cm_str in, size_t *used, struct cm_err *err)
{
    *used = 0;
    switch (h->state) {
    case CM_H1_LEAD:
    case CM_H1_HEAD:
        return next_head(h, in, used, err);
    case CM_H1_LENGTH:
        return next_length(h, in, used, err);
    case CM_H1_CHUNKED:
        return in.n > 0 ? next_chunked(h, in, used, err) : CM_H1_MORE;
    case CM_H1_END:
        return CM_H1_GOT_END;
    case CM_H1_FAILED:
        break;
    }
    cm_fail(err, CM_ERR_BAD_REQUEST, "the connection is not readable any more");
    return CM_H1_ERROR;
}
