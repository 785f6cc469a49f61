/* anthropic: batches, files and whatever else clients of the dialect ask for below /v1 is passed on as it is.
 *
 * Happy path: head -> bytes as they come -> done. Batches tell a whole address where their results are, which would lead clients past the gateway and
 * their key to the platform: it becomes a path. Failures: what another credential may fare better with (401, 429, 5xx) is read and refused; any other
 * answer is the client's, whatever it says. */
#include "anthropic_int.h"

#include "chatmux/base/mem.h"

#define REFUSAL_MAX (64u * 1024)
#define BATCHES_MAX (8u * 1024 * 1024) /* a page of them */

static enum cm_step ask(struct cm_run *run, struct anthropic_pass *p)
{
    const struct cm_chat *chat = cm_run_chat(run);
    const struct cm_str once =
        cm_header_find(chat->headers, chat->n_headers, CM_S("idempotency-key"));
    struct anthropic_headers headers = {.n = 0};
    struct cm_call call = {.method = cm_arena_z(cm_run_arena(run), chat->method),
                           .url = anthropic_path(run, chat->path, chat->query),
                           .body = chat->raw,
                           .headers = headers.v,
                           .long_wait = true};

    if (chat->content_type.n > 0)
        anthropic_add_header(&headers, CM_S("Content-Type"), chat->content_type);
    anthropic_add_header(&headers, CM_S("Accept"), CM_S("*/*"));
    if (once.n > 0)
        anthropic_add_header(&headers, CM_S("Idempotency-Key"), once);
    anthropic_credential(run, chat, &headers);
    call.n_headers = headers.n;
    p->asks_batches = cm_str_starts(chat->path, CM_S("/messages/batches"));
    return cm_run_stream(run, &call);
}

static bool has_type(const struct cm_ev *ev, struct cm_str type)
{
    return cm_str_starts_nocase(cm_header_find(ev->headers, ev->n_headers, CM_S("content-type")),
                                type);
}

static enum cm_step on_head(struct cm_run *run, struct anthropic_pass *p, const struct cm_ev *ev)
{
    const struct cm_event head = {
        .kind = CM_EVENT_HEAD,
        .status = ev->status,
        .headers = ev->headers,
        .n_headers = ev->n_headers,
        .media_type = cm_header_find(ev->headers, ev->n_headers, CM_S("content-type"))};

    anthropic_refusal_read(&p->refusal, ev->status, ev->headers, ev->n_headers,
                           cm_run_unix_ms(run));
    p->refused = ev->status == 401 || ev->status == 429 || ev->status >= 500;
    p->batches = !p->refused && p->asks_batches && has_type(ev, CM_S("application/json"));
    cm_buf_init(&p->body, p->batches ? BATCHES_MAX : REFUSAL_MAX);
    cm_run_emit(run, &head);
    return CM_STEP_WAIT;
}

static enum cm_step refuse(struct cm_run *run, struct anthropic_pass *p, struct cm_err *err)
{
    yyjson_doc *doc = cm_json_parse(cm_buf_str(&p->body), &cm_json_limits_event, NULL);

    anthropic_refused(run, &p->refusal, cm_json_opt(yyjson_doc_get_root(doc), "error"), err);
    yyjson_doc_free(doc);
    return CM_STEP_FAIL;
}

/* Length of "https://host" at the beginning of a text; 0: it has none. */
static size_t host_of(struct cm_str text)
{
    const size_t colon = cm_str_starts(text, CM_S("https://"))  ? sizeof("https://") - 1
                         : cm_str_starts(text, CM_S("http://")) ? sizeof("http://") - 1
                                                                : 0;
    const size_t slash = cm_str_find_char(cm_str_from(text, colon), '/');

    return colon > 0 && slash != SIZE_MAX ? colon + slash : 0;
}

/* The whole body, with paths for addresses of results. The member's name cannot occur inside of a text: there its quotes are escaped. */
static void tell_batches(struct cm_run *run, struct cm_str body)
{
    const struct cm_str name = CM_S("\"results_url\"");
    struct cm_event piece = {.kind = CM_EVENT_RELAY, .semantic = true};

    while (body.n > 0) {
        const char *at = memmem(body.p, body.n, name.p, name.n);
        size_t n = at ? (size_t)(at - body.p) + name.n : body.n;

        while (n < body.n && strchr(" \t\r\n:\"", body.p[n]))
            n++;
        piece.text = cm_str_head(body, n);
        cm_run_emit(run, &piece);
        body = cm_str_from(body, n);
        body = cm_str_from(body, host_of(body));
    }
}

static enum cm_step on_data(struct cm_run *run, struct anthropic_pass *p, struct cm_str piece,
                            struct cm_err *err)
{
    const struct cm_event bytes = {.kind = CM_EVENT_RELAY, .text = piece, .semantic = true};

    if (!p->refused && !p->batches) {
        cm_run_emit(run, &bytes);
        return CM_STEP_WAIT;
    }
    cm_buf_append(&p->body, piece);
    if (!p->body.failed)
        return CM_STEP_WAIT;
    if (p->refused)
        return refuse(run, p, err);
    cm_fail(err, CM_ERR_UPSTREAM_DOWN, CM_PRI " sent a list of batches larger than %u bytes",
            CM_ARG(cm_run_instance(run)->name), BATCHES_MAX);
    return CM_STEP_FAIL;
}

enum cm_step anthropic_pass_step(struct cm_run *run, struct anthropic_pass *p,
                                 const struct cm_ev *ev, struct cm_err *err)
{
    switch (ev->kind) {
    case CM_EV_START:
        return ask(run, p);
    case CM_EV_HEAD:
        return on_head(run, p, ev);
    case CM_EV_DATA:
        return on_data(run, p, ev->data, err);
    case CM_EV_END:
        if (p->refused)
            return refuse(run, p, err);
        if (p->batches)
            tell_batches(run, cm_buf_str(&p->body));
        return CM_STEP_DONE;
    case CM_EV_FAILED:
        *err = *ev->err;
        return CM_STEP_FAIL;
    case CM_EV_STOP:
    case CM_EV_REPLY:
    case CM_EV_OPEN:
    case CM_EV_TIMER:
    case CM_EV_COMPUTED:
        break; /* never asked for, or nothing to tidy up */
    }
    return CM_STEP_DONE;
}
