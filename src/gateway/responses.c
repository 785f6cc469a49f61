/* Responses that are kept: the conversation that a request goes on with, what becomes of its answer, and the routes of one response.
 *
 * Ids decide whose a response is. Those that begin as ours do are in the store with all that was said; the store puts them in front of the next request, whatever
 * provider answers it. Of an upstream's own only the account that made it is known, and everything that names it goes there. Both belong to the client key
 * that asked: for another they are not there.
 *
 * Happy path: request_parse() -> responses_prepare() reads the earlier turns -> the surface parses -> responses_check() -> … -> responses_keep().
 * The client may leave while the store is asked: the exchange has ended by then, and its memory waits for the answer (`reading`). */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"

#define PAGE_DEFAULT 20
#define PAGE_MAX 100

static struct cm_store *store_of(const struct exchange *ex)
{
    return ex->gw->store && cm_store_keeps_responses(ex->gw->store) ? ex->gw->store : NULL;
}

static struct responses_part *part_of(struct exchange *ex)
{
    if (!ex->responses) {
        ex->responses = CM_ARENA_NEW(&ex->arena, struct responses_part);
        ex->responses->kept.secret = true;
    }
    return ex->responses;
}

/* ---- asking the store ---- */

static void read_rows(struct exchange *ex, struct cm_str id, bool turns, cm_store_responses_fn *fn)
{
    struct responses_part *part = part_of(ex);

    part->reading = true;
    ex->gw->attempts_out++; /* the gateway stays until it is back */
    cm_store_responses(store_of(ex), id, exchange_scope(ex), turns,
                       (size_t)ex->snap->config->server.max_body_bytes, &part->kept, fn, ex);
}

/* The answer has come. false: nobody waits for it any more, and the exchange is gone. */
static bool still_wanted(struct exchange *ex)
{
    struct cm_gateway *gw = ex->gw;
    const bool wanted = !ex->ended;

    ex->responses->reading = false;
    if (!wanted)
        exchange_free(ex);
    gateway_attempt_over(gw);
    return wanted;
}

bool responses_hold(const struct exchange *ex)
{
    return ex->responses && ex->responses->reading;
}

void responses_free(struct exchange *ex)
{
    if (ex->responses)
        cm_arena_clear(&ex->responses->kept);
}

/* ---- the conversation ---- */

static int no_previous(struct cm_str id, struct cm_err *err)
{
    cm_fail_param(err, CM_ERR_BAD_REQUEST, "previous_response_id",
                  "Previous response with id '" CM_PRI "' not found.", CM_ARG(cm_str_head(id, 80)));
    cm_str_copy(err->code, sizeof(err->code), CM_S("previous_response_not_found"));
    return -1;
}

/* A job that runs, or was interrupted: there is no answer to go on from. */
static bool is_unfinished(const struct cm_response_row *row)
{
    struct cm_buf out = {0};
    const bool yes = cm_responses_interrupted(row->response, &out);

    cm_buf_clear(&out);
    return yes;
}

/* What the store told becomes a part of the request. */
static int take_turns(struct exchange *ex, const struct cm_response_row *rows, size_t n,
                      const struct cm_err *why, struct cm_err *err)
{
    struct responses_part *part = ex->responses;
    const struct cm_response_row *last = n > 0 ? &rows[n - 1] : NULL;
    struct cm_response_turn *turns;

    if (why) {
        *err = *why;
        if (why->cls == CM_ERR_NOT_FOUND) {
            no_previous(CM_STR_NONE, err);
            cm_str_copy(err->msg, sizeof(err->msg), cm_str_of(why->msg));
        }
        return -1;
    }
    if (!last)
        return no_previous(part->previous, err);
    if (is_unfinished(last))
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "previous_response_id",
                             "The previous response '" CM_PRI "' has no answer to go on from.",
                             CM_ARG(cm_str_head(part->previous, 80)));
    part->conversation = last->conversation;
    if (last->provider.n > 0) {
        if (!cm_pool_get(ex->gw->pool, last->cred_id, &(struct cm_cred_info){0}))
            return no_previous(part->previous, err); /* the account is not ours any more */
        ex->pinned = cm_arena_str(&ex->arena, last->provider);
        part->only = last->cred_id;
        return 0;
    }
    turns = CM_ARENA_ARRAY(&ex->arena, struct cm_response_turn, n);
    for (size_t i = 0; i < n; i++) {
        turns[i] = (struct cm_response_turn){rows[i].input, rows[i].response};
        part->bytes += rows[i].input.n + rows[i].response.n;
    }
    ex->chat->response->turns = turns;
    ex->chat->response->n_turns = n;
    return 0;
}

static void on_turns(void *arg, const struct cm_response_row *rows, size_t n,
                     const struct cm_err *why)
{
    struct exchange *ex = arg;
    struct cm_err err = {0};

    if (!still_wanted(ex))
        return;
    if (take_turns(ex, rows, n, why, &err) < 0)
        exchange_fail(ex, &err);
    else
        request_parse_body(ex);
}

/* The id in the body, which nobody has read yet; "" = none, or no plain text: then the surface complains. */
static struct cm_str previous_of(struct cm_str body)
{
    static const struct cm_str name = CM_S_INIT("previous_response_id");
    struct cm_str value;

    if (!cm_str_has(body, name)) /* most have none: cheaper to look than to walk */
        return CM_STR_NONE;
    value = cm_str_trim(cm_json_member(body, name));
    if (value.n <= 2 || value.p[0] != '"' || cm_str_has(value, CM_S("\\")))
        return CM_STR_NONE;
    return cm_str(value.p + 1, value.n - 2);
}

bool responses_prepare(struct exchange *ex)
{
    struct responses_part *part = part_of(ex);
    struct cm_err err = {0};

    ex->chat->response = CM_ARENA_NEW(&ex->arena, struct cm_response_ask);
    part->previous = previous_of(cm_buf_str(&ex->body));
    if (part->previous.n == 0)
        return false;
    if (!store_of(ex)) {
        no_previous(part->previous, &err);
        cm_str_copy(err.msg, sizeof(err.msg),
                    CM_S("Responses are not kept here (store.responses_ttl = 0): send the whole "
                         "conversation as input."));
        exchange_fail(ex, &err);
        return true;
    }
    read_rows(ex, part->previous, true, on_turns);
    return true;
}

int responses_check(struct exchange *ex, struct cm_err *err)
{
    struct cm_chat *chat = ex->chat;
    struct cm_response_ask *ask = chat->response;

    if (ask->previous_id.n > 0 && ask->n_turns == 0 && ex->responses->only == 0)
        return no_previous(ask->previous_id, err);
    if (ask->n_turns > 0)
        chat->translate = true; /* no upstream knows the id that stands in the body */
    if (!store_of(ex))
        ask->store = false;
    return 0;
}

/* ---- encrypted reasoning ---- */

/* What is not known goes to whoever the conversation is bound to. */
static void on_maker(void *arg, const struct cm_response_row *rows, size_t n,
                     const struct cm_err *why)
{
    struct exchange *ex = arg;

    if (!still_wanted(ex))
        return;
    if (!why && n == 1 && cm_pool_get(ex->gw->pool, rows[0].cred_id, &(struct cm_cred_info){0})) {
        ex->responses->only = rows[0].cred_id;
        ex->responses->maker = rows[0].provider;
    }
    request_parsed(ex);
}

bool responses_find_maker(struct exchange *ex)
{
    const struct cm_response_ask *ask = ex->chat->response;

    if (ask->sealed.n == 0 || ask->previous_id.n > 0 || !store_of(ex))
        return false;
    read_rows(ex, ask->sealed, true, on_maker);
    return true;
}

void responses_narrow(struct exchange *ex)
{
    struct responses_part *part = ex->responses;
    size_t n = 0;

    if (part->maker.n == 0)
        return;
    for (size_t i = 0; i < ex->n_targets; i++) {
        const struct cm_instance *in = &ex->snap->instances[ex->targets[i].provider];

        if (cm_str_eq(in->name, part->maker) && cm_instance_relays(in, ex->chat))
            ex->targets[n++] = ex->targets[i];
    }
    if (n > 0)
        ex->n_targets = n;
    else
        part->only = 0; /* another provider does not get what is sealed */
}

uint64_t responses_conversation(const struct exchange *ex)
{
    return ex->responses ? ex->responses->conversation : 0;
}

uint64_t responses_only(const struct exchange *ex)
{
    return ex->responses ? ex->responses->only : 0;
}

/* ---- what becomes of the answer ---- */

void responses_keep(struct exchange *ex, struct cm_str object)
{
    const struct cm_response_ask *ask = ex->chat->response;
    struct cm_response_row row = {.id = ex->meta.id, .response = object};

    if (!ask || !ask->store || ex->chat->task != CM_TASK_CHAT)
        return;
    row.scope = exchange_scope(ex);
    row.previous = ask->previous_id;
    row.conversation = ex->affinity;
    row.input = cm_json_member(ex->chat->raw, CM_S("input"));
    row.created_ms = ex->meta.created_s * 1000;
    if (row.input.n == 0 || cm_str_eq(row.input, CM_S("null")))
        row.input = CM_S("[]");
    cm_store_keep_response(ex->gw->store, &row);
}

/* Of what an upstream made only its account is kept. */
static void keep_maker(struct exchange *ex, struct cm_str id)
{
    const struct cm_response_row row = {.id = id,
                                        .scope = exchange_scope(ex),
                                        .previous = ex->chat->response->previous_id,
                                        .provider = exchange_instance(ex)->name,
                                        .cred_id = attempt_credential(ex->attempt),
                                        .conversation = ex->affinity,
                                        .created_ms = cm_unix_ms()};

    cm_store_keep_response(ex->gw->store, &row);
}

void responses_made(struct exchange *ex, struct cm_str id, struct cm_str sealed)
{
    if ((id.n == 0 && sealed.n == 0) || !store_of(ex) || !ex->attempt)
        return;
    if (sealed.n > 0)
        keep_maker(ex, sealed); /* nothing of the client's: also where it says store: false */
    if (id.n == 0 || !ex->chat->response->store || cm_str_eq(ex->responses->made, id))
        return;
    ex->responses->made = cm_arena_str(&ex->arena, id);
    keep_maker(ex, id);
}

/* ---- one response ---- */

static int not_found(struct cm_str id, struct cm_err *err)
{
    return cm_fail(err, CM_ERR_NOT_FOUND, "Response with id '" CM_PRI "' not found.",
                   CM_ARG(cm_str_head(id, 80)));
}

static void fail_not_found(struct exchange *ex)
{
    struct cm_err err = {0};

    not_found(ex->responses->previous, &err);
    exchange_fail(ex, &err);
}

static void answer(struct exchange *ex, struct cm_str body)
{
    exchange_answer(ex, 200, CM_S("application/json"), body);
}

static void answer_items(struct exchange *ex, const struct cm_response_row *row)
{
    struct cm_response_page page = {.after = streams_query(ex, CM_S("after")),
                                    .limit = PAGE_DEFAULT};
    const struct cm_str limit = streams_query(ex, CM_S("limit")),
                        order = streams_query(ex, CM_S("order"));
    struct cm_buf out = {0};
    struct cm_err err = {0};
    uint64_t n = PAGE_DEFAULT;
    int rc = 0;

    if (limit.n > 0 && (!cm_str_to_u64(limit, PAGE_MAX, &n) || n == 0))
        rc = cm_fail_param(&err, CM_ERR_BAD_REQUEST, "limit", "Expected a number from 1 to %d.",
                           PAGE_MAX);
    else if (order.n > 0 && !cm_str_eq(order, CM_S("asc")) && !cm_str_eq(order, CM_S("desc")))
        rc = cm_fail_param(&err, CM_ERR_BAD_REQUEST, "order",
                           "Supported values are: 'asc' and 'desc'.");
    page.limit = (int64_t)n;
    page.ascending = cm_str_eq(order, CM_S("asc"));
    if (rc == 0)
        rc = cm_responses_items(row->id, row->input, &page, &out, &err);
    if (rc < 0)
        exchange_fail(ex, &err);
    else
        answer(ex, cm_buf_str(&out));
    cm_buf_clear(&out);
}

static void answer_deleted(struct exchange *ex, const struct cm_response_row *row)
{
    struct cm_buf out = {0};

    cm_store_drop_response(ex->gw->store, row->id, row->scope, NULL, NULL);
    cm_buf_append(&out, CM_S("{\"id\":"));
    cm_json_put_str(&out, row->id);
    cm_buf_append(&out, CM_S(",\"object\":\"response\",\"deleted\":true}"));
    answer(ex, cm_buf_str(&out));
    cm_buf_clear(&out);
}

static bool was_in_background(const struct cm_response_row *row)
{
    return cm_str_eq(cm_json_member(row->response, CM_S("background")), CM_S("true"));
}

/* No job is at it: it has ended, or its process has. */
static void answer_object(struct exchange *ex, const struct cm_response_row *row)
{
    struct cm_buf out = {0};

    answer(ex, cm_responses_interrupted(row->response, &out) ? cm_buf_str(&out) : row->response);
    cm_buf_clear(&out);
}

static void refuse_cancel(struct exchange *ex, const struct cm_response_row *row)
{
    struct cm_err err = {0};

    if (was_in_background(row)) {
        answer_object(ex, row); /* once is as good as twice */
        return;
    }
    cm_fail(&err, CM_ERR_BAD_REQUEST, "Cannot cancel a synchronous response.");
    exchange_fail(ex, &err);
}

/* Once more from the beginning, as an event stream: there is none of what was not made in the background. */
static void refuse_stream(struct exchange *ex, const struct cm_response_row *row)
{
    struct cm_err err = {0};

    if (was_in_background(row)) {
        resume_expired(&err, "GET the response without 'stream'");
        exchange_fail(ex, &err);
        return;
    }
    cm_fail_param(&err, CM_ERR_BAD_REQUEST, "stream",
                  "Only responses that were created with background=true can be streamed again.");
    exchange_fail(ex, &err);
}

static void serve_own(struct exchange *ex, const struct cm_response_row *row)
{
    switch (ex->responses->wants) {
    case RESPONSES_OBJECT:
        if (cm_str_eq(streams_query(ex, CM_S("stream")), CM_S("true")))
            refuse_stream(ex, row);
        else
            answer_object(ex, row);
        break;
    case RESPONSES_ITEMS:
        answer_items(ex, row);
        break;
    case RESPONSES_DELETE:
        answer_deleted(ex, row);
        break;
    case RESPONSES_CANCEL:
        refuse_cancel(ex, row);
        break;
    }
}

/* An upstream keeps it: the request goes there, as it is, with the account that made it. */
static void serve_foreign(struct exchange *ex, const struct cm_response_row *row)
{
    static const struct cm_str tails[] = {
        [RESPONSES_OBJECT] = CM_S_INIT(""),
        [RESPONSES_ITEMS] = CM_S_INIT("/input_items"),
        [RESPONSES_DELETE] = CM_S_INIT(""),
        [RESPONSES_CANCEL] = CM_S_INIT("/cancel"),
    };

    const struct cm_str tail = tails[ex->responses->wants];

    ex->responses->only = row->cred_id;
    ex->pinned = cm_arena_str(&ex->arena, row->provider);
    ex->surface = &cm_surface_openai_pass;
    serve_pass(ex, cm_arena_printf(&ex->arena, "/responses/" CM_PRI CM_PRI, CM_ARG(row->id),
                                   CM_ARG(tail)));
}

static void on_response(void *arg, const struct cm_response_row *rows, size_t n,
                        const struct cm_err *why)
{
    struct exchange *ex = arg;

    if (!still_wanted(ex))
        return;
    if (why)
        exchange_fail(ex, why);
    else if (n == 0)
        fail_not_found(ex);
    else if (rows[0].provider.n > 0)
        serve_foreign(ex, &rows[0]);
    else
        serve_own(ex, &rows[0]);
}

/* What is wanted of it, by method and the rest of the path; -1: there is no such route. */
static int wants_of(const struct exchange *ex, struct cm_str tail)
{
    const struct {
        const char *methods;
        struct cm_str tail;
        enum responses_wants wants;
    } routes_of_one[] = {
        {"GET HEAD", CM_S(""), RESPONSES_OBJECT},
        {"DELETE", CM_S(""), RESPONSES_DELETE},
        {"GET HEAD", CM_S("input_items"), RESPONSES_ITEMS},
        {"POST", CM_S("cancel"), RESPONSES_CANCEL},
    };

    for (size_t i = 0; i < CM_COUNT(routes_of_one); i++)
        if (route_lists_method(routes_of_one[i].methods, ex->method) &&
            cm_str_eq(tail, routes_of_one[i].tail))
            return (int)routes_of_one[i].wants;
    return -1;
}

void serve_response(struct exchange *ex, struct cm_str rest)
{
    struct cm_str tail = rest;
    const struct cm_str id = cm_str_cut(&tail, '/');
    const int wants = wants_of(ex, tail);
    struct responses_part *part = part_of(ex);
    struct cm_err err = {0};

    part->previous = id;
    ex->body_us = cm_mono_us();
    if (wants < 0) {
        cm_fail(&err, CM_ERR_NOT_FOUND,
                "unknown path " CM_PRI " for " CM_PRI
                "; there are GET and DELETE /v1/responses/ID, GET …/input_items, POST …/cancel",
                CM_ARG(cm_str_head(ex->path, 100)), CM_ARG(ex->method));
        exchange_fail(ex, &err);
        return;
    }
    part->wants = (enum responses_wants)wants;
    if (wants == RESPONSES_OBJECT && background_get(ex, id))
        return;
    if (wants == RESPONSES_CANCEL || wants == RESPONSES_DELETE)
        background_stop(ex, id, wants == RESPONSES_DELETE); /* what is left of it is in the store */
    if (store_of(ex))
        read_rows(ex, id, false, on_response);
    else
        fail_not_found(ex);
}
