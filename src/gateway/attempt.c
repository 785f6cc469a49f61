/* One try of an exchange with one credential: lease, run, and the lease's way back.
 *
 * The attempt outlives the exchange when a platform is tidied up after the client has left: it holds the lease and the snapshot until then. */
#include "gateway_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/enc.h"
#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include <stdlib.h>

#define SCOPE_BYTES 8 /* of a configured key's digest */

struct attempt {
    struct exchange *ex; /* NULL once the exchange has let go */
    struct cm_gateway *gw;
    struct snapshot *snap;  /* a reference */
    struct cm_lease *lease; /* NULL once the account serves others */
    uint64_t cred_id;
    struct cm_run *run;
    const struct cm_instance *in;   /* the snapshot's */
    const struct cm_target *target; /* the exchange's; not after its end */
    bool relay, rival, lost;        /* which lane; began beside another; was slower than that */
    bool first;                     /* of its exchange */
    struct cm_err *verdict;         /* owned; how it failed, NULL = not */
    bool cancelled; /* the client left, or a repetition failed: neither blame nor praise */
    bool trial;     /* decides about the provider's breaker */
    int64_t tokens_in, tokens_out;
    uint64_t began_us;
};

/* The account is free for others. */
static void give_back(void *arg)
{
    struct attempt *a = arg;
    struct cm_lease *lease = a->lease;
    struct cm_cred_count count = {.id = a->cred_id,
                                  .requests = 1,
                                  .failures = a->verdict && !a->cancelled &&
                                              cm_err_info(a->verdict->cls)->cred != CM_CRED_KEEP,
                                  .tokens_in = a->tokens_in,
                                  .tokens_out = a->tokens_out};

    a->lease = NULL;
    if (a->cancelled)
        count.month_ms = cm_lease_cancel(lease, a->verdict);
    else
        count.month_ms = cm_lease_give_back(lease, a->verdict, a->tokens_in, a->tokens_out);
    creds_count(a->gw, &count);
    gateway_pool_moved(a->gw);
}

static void on_released(void *arg)
{
    struct attempt *a = arg;
    struct cm_gateway *gw = a->gw;

    if (a->lease)
        give_back(a);
    snapshot_unref(a->snap);
    free(a->verdict);
    free(a);
    gateway_attempt_over(gw);
}

static void on_event(void *arg, const struct cm_event *ev)
{
    struct attempt *a = arg;

    if (hedge_is_rival(a->ex, a))
        hedge_event(a->ex, ev);
    else
        exchange_event(a->ex, ev);
}

static void on_batch(void *arg)
{
    struct attempt *a = arg;

    if (!hedge_is_rival(a->ex, a))
        exchange_flush(a->ex);
}

static void on_end(void *arg, const struct cm_err *err)
{
    struct attempt *a = arg;

    if (hedge_is_rival(a->ex, a))
        hedge_ended(a->ex, err);
    else
        exchange_attempt_ended(a->ex, err);
}

static void on_drain(void *arg)
{
    struct attempt *a = arg;

    session_drained(a->ex);
}

static const struct cm_run_cb run_cb = {
    .on_event = on_event, .on_batch = on_batch, .on_end = on_end, .on_drain = on_drain};

/* The request as this target is asked. */
static struct cm_chat *chat_for(struct exchange *ex, const struct cm_target *t)
{
    return t->overrides.n > 0 ? cm_chat_override(&ex->arena, ex->chat, t->overrides) : ex->chat;
}

/* Not a matter of credentials: the next target may be of a provider that can. */
static int lacks_task(const struct exchange *ex, struct cm_err *err)
{
    const struct cm_instance *in = exchange_instance(ex);

    cm_fail_param(err, CM_ERR_NOT_FOUND, "model",
                  "the model \"" CM_PRI "\" is served by the provider " CM_PRI
                  " (%s), which has no %s",
                  CM_ARG(cm_str_head(ex->chat->model, 100)), CM_ARG(in->name), in->adapter->name,
                  cm_chat_task_name(ex->chat->task));
    cm_str_copy(err->code, sizeof(err->code), CM_S("model_not_found"));
    return -1;
}

static void on_quota(void *arg, struct cm_str json)
{
    struct attempt *a = arg;

    creds_quota(a->gw, a->cred_id, a->lease, json);
}

struct cm_str attempt_dropped(struct exchange *ex, struct cm_str list, struct cm_str field)
{
    struct cm_str rest = list;

    while (rest.n > 0)
        if (cm_str_eq(cm_str_trim(cm_str_cut(&rest, ',')), field))
            return list;
    return cm_arena_printf(&ex->arena, CM_PRI "%s" CM_PRI, CM_ARG(list), list.n > 0 ? ", " : "",
                           CM_ARG(field));
}

/* Told to the client with the head of the answer. */
static void on_dropped(void *arg, struct cm_str field)
{
    struct attempt *a = arg;
    struct exchange *ex = a->ex;

    if (hedge_is_rival(ex, a)) {
        hedge_dropped(ex, field);
        return;
    }
    ex->dropped = attempt_dropped(ex, ex->dropped, field);
}

/* What the answer to this request will do without; -1 where that is refused. */
static int note_dropped(struct exchange *ex, const struct cm_chat *chat, struct cm_err *err)
{
    const struct cm_instance *in = exchange_instance(ex);
    struct cm_str fields[CM_INSTANCE_DROPS_MAX];
    const size_t n = cm_instance_drops(in, chat, fields, CM_COUNT(fields));
    struct cm_buf list = {0};

    if (n > 0 && in->conf->upstream.strict)
        return cm_fail_dropped(err, in, fields[0]);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            cm_buf_append(&list, CM_S(", "));
        cm_buf_append(&list, fields[i]);
    }
    ex->dropped = cm_buf_settle(&list, &ex->arena);
    return 0;
}

/* An account that may not use it for one task may for another. */
struct cm_str attempt_model(struct exchange *ex)
{
    struct cm_str model = ex->targets[ex->target].model;

    if (ex->chat->task == CM_TASK_CHAT)
        return model;
    return cm_arena_printf(&ex->arena, CM_PRI " (%s)", CM_ARG(model),
                           cm_chat_task_name(ex->chat->task));
}

/* Names may repeat and change their owner, ids do not; a configured key has none, but a digest. */
struct cm_str exchange_scope(struct exchange *ex)
{
    const struct cm_key_row *row = ex->client_key ? cm_key_row(ex->client_key) : NULL;
    struct cm_buf text = {0};

    if (!row)
        return CM_STR_NONE;
    if (row->id)
        cm_buf_put_u64(&text, row->id);
    else
        cm_hex(&text, cm_str((const char *)row->digest, SCOPE_BYTES));
    cm_buf_put(&text, ' ');
    cm_buf_append(&text, ex->key);
    return cm_buf_settle(&text, &ex->arena);
}

/* The account that has led this conversation so far: the others would have to hear all of it again. */
static uint64_t holder_of(struct exchange *ex, const struct cm_target *t,
                          const struct cm_chat *chat)
{
    const struct cm_instance *in = exchange_instance(ex);

    if (!in->adapter->isolated || chat->task != CM_TASK_CHAT)
        return 0;
    return cm_thread_holder(ex->gw->host->memo, in, t, chat, exchange_scope(ex));
}

int attempt_ask(struct exchange *ex, struct cm_pool_ask *ask, struct cm_err *err)
{
    const struct cm_target *target = &ex->targets[ex->target];
    struct cm_chat *chat = chat_for(ex, target);

    if (!cm_instance_serves(exchange_instance(ex), chat))
        return lacks_task(ex, err);
    if (!cm_instance_relays(exchange_instance(ex), chat)) {
        if (chat->untranslatable.cls != CM_ERR_NONE) {
            *err = ex->chat->untranslatable;
            return -1;
        }
        cm_chat_find_unread(chat);
    }
    if (note_dropped(ex, chat, err) < 0)
        return -1;
    *ask =
        (struct cm_pool_ask){.provider = exchange_instance(ex)->name,
                             .model = attempt_model(ex),
                             .cost = target->row ? target->row->cost : 0,
                             .purse = target->row ? target->row->purse : 0,
                             .tried = ex->tried,
                             .affinity = ex->affinity,
                             .holder = holder_of(ex, target, chat),
                             .only = responses_only(ex) ? responses_only(ex) : ex->only_credential,
                             .begins = ex->begins};
    return 0;
}

struct attempt *attempt_open(struct exchange *ex, struct cm_lease *lease, size_t target)
{
    const struct cm_target *t = &ex->targets[target];
    const struct cm_instance *in = &ex->snap->instances[t->provider];
    struct cm_chat *chat = chat_for(ex, t);
    struct attempt *a = CM_NEW(struct attempt);
    struct cm_run_setup setup = {.flow = &in->adapter->chat,
                                 .instance = in,
                                 .chat = chat,
                                 .target = t,
                                 .cred = {.id = cm_lease_id(lease),
                                          .secret = cm_lease_secret(lease),
                                          .token = cm_lease_token(lease),
                                          .label = cm_lease_label(lease),
                                          .proxy = cm_lease_proxy(lease),
                                          .isolation = cm_lease_isolation(lease)},
                                 .id = ex->id,
                                 .scope = exchange_scope(ex),
                                 .on_quota = on_quota,
                                 .on_spared = give_back,
                                 .on_dropped = on_dropped};

    if (chat->task == CM_TASK_REALTIME) {
        setup.max_message = (size_t)ex->snap->config->realtime.max_message;
        setup.ping_ms = ex->snap->config->realtime.ping_ms;
    }
    a->ex = ex;
    a->gw = ex->gw;
    a->snap = snapshot_ref(ex->snap);
    a->in = in;
    a->target = t;
    a->lease = lease;
    a->cred_id = cm_lease_id(lease);
    a->began_us = cm_mono_us();
    a->rival = ex->attempt != NULL;
    a->first = ex->attempts == 0;
    a->relay = cm_instance_relays(in, chat);
    ex->gw->attempts_out++;
    a->trial = health_begun(ex->gw->health, in->name, t->model, cm_loop_now_ms(ex->gw->host->loop));
    if (!a->relay)
        cm_chat_load_media(chat);
    a->run = cm_run_open(ex->gw->host, &setup, &run_cb, a);
    return a;
}

void attempt_begin(struct exchange *ex, struct cm_lease *lease)
{
    ex->attempt = attempt_open(ex, lease, ex->target);
    ex->relay = ex->attempt->relay;
}

/* Why this target: the word of the request log. */
static const char *target_by(const struct exchange *ex, const struct attempt *a)
{
    const size_t at = (size_t)(a->target - ex->targets);
    const struct cm_model_conf *route = a->target->route;

    if (a->rival)
        return "hedge";
    if (at > 0)
        return a->first ? "skipped" : "next"; /* those before it could not be asked, have failed */
    if (ex->n_targets == 1)
        return "only_one";
    if (route && route->strategy == CM_ROUTE_LEAST_BUSY)
        return "least_busy";
    if (route && route->strategy == CM_ROUTE_FASTEST)
        return "fastest";
    return a->target->priority == ex->targets[1].priority ? "weight" : "priority";
}

/* Why this credential of it, and what became of the one that the conversation is bound to. */
static void note_choice(const struct exchange *ex, const struct attempt *a, struct cm_buf *out)
{
    const struct cm_choice *choice = cm_lease_choice(a->lease);
    struct cm_cred_info bound;

    cm_buf_append(out, CM_S(",\"target_by\":"));
    cm_json_put_z(out, target_by(ex, a));
    cm_buf_append(out, CM_S(",\"chosen\":"));
    cm_json_put_z(out, cm_choice_name(choice->by));
    if (choice->half_open)
        cm_buf_append(out, CM_S(",\"half_open\":true"));
    if (choice->bound && cm_pool_get(a->gw->pool, choice->bound, &bound)) {
        cm_buf_append(out, CM_S(",\"instead_of\":"));
        cm_json_put_str(out, bound.label);
        cm_buf_append(out, CM_S(",\"which_was\":"));
        cm_json_put_z(out, cm_cred_state_name(choice->bound_state));
    }
}

static void note_time(struct cm_buf *out, const char *name, uint64_t us)
{
    cm_buf_printf(out, ",\"%s\":", name);
    cm_json_put_int(out, (int64_t)us / 1000);
}

/* Where its time went; phases that it had not are left out. */
static void note_phases(const struct attempt *a, struct cm_buf *out)
{
    struct cm_run_info info;

    cm_run_info(a->run, &info);
    note_time(out, "ms", cm_mono_us() - a->began_us);
    if (info.connect_us)
        note_time(out, "connect_ms", info.connect_us);
    if (info.first_byte_us)
        note_time(out, "first_byte_ms", info.first_byte_us - a->began_us);
    if (info.semantic_us)
        note_time(out, "first_token_ms", info.semantic_us - a->began_us);
}

/* One attempt as the request log tells it. */
static void note_try(struct exchange *ex, const struct attempt *a, const struct cm_err *verdict,
                     bool cancelled)
{
    struct cm_buf *out = &ex->tries;
    struct cm_str class = a->lost     ? CM_S("lost")
                          : cancelled ? CM_S("client_gone")
                          : verdict   ? cm_str_of(cm_err_info(verdict->cls)->name)
                                      : CM_S("ok");

    cm_buf_append(out, out->n ? CM_S(",{\"provider\":") : CM_S("{\"provider\":"));
    cm_json_put_str(out, a->in->name);
    cm_buf_append(out, CM_S(",\"credential\":"));
    cm_json_put_str(out, cm_lease_label(a->lease));
    cm_buf_append(out, CM_S(",\"model\":"));
    cm_json_put_str(out, a->target->model);
    if (!a->lost && ex->served_model.n > 0) {
        cm_buf_append(out, CM_S(",\"served\":"));
        cm_json_put_str(out, ex->served_model);
    }
    cm_buf_append(out, CM_S(",\"result\":"));
    cm_json_put_str(out, class);
    note_choice(ex, a, out);
    if (a->rival)
        cm_buf_append(out, CM_S(",\"hedge\":true"));
    note_phases(a, out);
    if (verdict) {
        cm_buf_append(out, CM_S(",\"why\":"));
        cm_json_put_z(out, verdict->msg);
    }
    cm_buf_put(out, '}');
}

/* What it tells of the target: an account that was refused says that the provider is there. */
static void note_health(const struct attempt *a, const struct cm_err *verdict, bool cancelled)
{
    const struct exchange *ex = a->ex;
    const struct cm_instance *in = a->in;
    const struct health_rule rule = {.rate = in->conf->upstream.breaker_rate,
                                     .attempts = in->conf->upstream.breaker_attempts};
    struct health_end end = {
        .result = HEALTH_ANSWERED, .trial = a->trial, .streamed = ex->chat->stream};
    struct cm_run_info info;

    cm_run_info(a->run, &info);
    if (cancelled && info.semantic_us == 0)
        end.result = HEALTH_LEFT;
    else if (verdict && cm_err_info(verdict->cls)->next == CM_NEXT_RETRY)
        end.result = HEALTH_FAILED;
    end.first_ms = info.semantic_us ? (int64_t)(info.semantic_us - a->began_us) / 1000 : -1;
    end.took_ms = (int64_t)(cm_mono_us() - a->began_us) / 1000;
    health_ended(a->gw->health, in->name, a->target->model, &end, &rule,
                 cm_loop_now_ms(a->gw->host->loop));
}

void attempt_end(struct attempt *a, const struct cm_err *verdict, bool blame, bool cancelled)
{
    struct cm_run *run = a->run;

    report_attempt(a->gw, a->in->name, verdict);
    note_try(a->ex, a, verdict, cancelled);
    note_health(a, verdict, cancelled);
    if (verdict) {
        a->verdict = cm_alloc(sizeof(*verdict));
        *a->verdict = *verdict;
    }
    a->cancelled = cancelled || (verdict && !blame);
    if (a == a->ex->attempt || !a->ex->attempt) {
        a->tokens_in = cm_usage_in(&a->ex->usage);
        a->tokens_out = cm_usage_out(&a->ex->usage);
    }
    a->ex = NULL;
    a->run = NULL;
    cm_run_close(run, on_released, a);
}

void attempt_lose(struct attempt *a)
{
    a->lost = true;
    attempt_end(a, NULL, false, true);
}

struct cm_str attempt_provider(const struct attempt *a)
{
    return a->in->name;
}

bool attempt_relays(const struct attempt *a)
{
    return a->relay;
}

int64_t attempt_waste(const struct attempt *a)
{
    return cm_price_estimate(exchange_price(a->ex, a->target), cm_chat_estimate_tokens(a->ex->chat),
                             0);
}

uint64_t attempt_credential(const struct attempt *a)
{
    return a->cred_id;
}

struct cm_str attempt_label(const struct attempt *a)
{
    return cm_lease_label(a->lease);
}

void attempt_mask(const struct attempt *a, struct cm_err *err)
{
    creds_mask(a->gw, err, exchange_instance(a->ex)->name, cm_lease_secret(a->lease),
               cm_lease_token(a->lease));
}

size_t attempt_say(struct attempt *a, struct cm_str message, bool binary)
{
    return cm_run_say(a->run, message, binary);
}

void attempt_say_close(struct attempt *a, int code, struct cm_str reason)
{
    cm_run_say_close(a->run, code, reason);
}

void attempt_pause(struct attempt *a, bool paused)
{
    if (paused)
        cm_run_pause(a->run);
    else
        cm_run_resume(a->run);
}
