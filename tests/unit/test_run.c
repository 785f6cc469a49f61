/* Runs: one thing at a time, clocks, pausing, closing at every point, a bounded farewell, nothing left behind. */
#include "fake_host.h"
#include "unit.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- an adapter that does what the test says and notes what it hears ---- */

typedef enum cm_step step_fn(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err);

static struct {
    step_fn *next;
    char log[4096]; /* "START HEAD DATA …" */
    struct cm_buf data;
    int status;
    struct cm_err err;
    struct cm_run *run;
    unsigned cleared;
    struct cm_call call;
    int64_t sleep_ms;
} adapter;

static const char *const event_names[] = {
#define X(name) #name,
    CM_EV_KINDS(X)
#undef X
};

static enum cm_step note_and_step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    size_t n = strlen(adapter.log);

    adapter.run = run;
    if (n > 0 && n + 1 < sizeof(adapter.log))
        adapter.log[n++] = ' ';
    cm_str_copy(adapter.log + n, sizeof(adapter.log) - n, cm_str_of(event_names[ev->kind]));
    if (ev->kind == CM_EV_DATA || ev->kind == CM_EV_REPLY)
        cm_buf_append(&adapter.data, ev->data);
    if (ev->kind == CM_EV_REPLY || ev->kind == CM_EV_HEAD || ev->kind == CM_EV_END)
        adapter.status = ev->status;
    if (ev->kind == CM_EV_FAILED)
        adapter.err = *ev->err;
    return adapter.next(run, ev, err);
}

static const char *state_name(const void *state)
{
    (void)state;
    return "TESTING";
}

static void clear_state(void *state)
{
    (void)state;
    adapter.cleared++;
}

static const struct cm_flow flow = {
    .step = note_and_step, .state_size = 64, .state_name = state_name, .clear = clear_state};
static const struct cm_provider provider = {.name = "test", .chat = {.step = note_and_step}};

static void setup(struct fake *f, step_fn *next)
{
    fake_init(f);
    cm_buf_clear(&adapter.data);
    memset(&adapter, 0, sizeof(adapter));
    adapter.next = next;
    adapter.call = (struct cm_call){.method = "POST", .url = CM_S("/talk"), .body = CM_S("{}")};
    f->instance.adapter = &provider;
    f->flow = &flow;
}

static void teardown(struct fake *f)
{
    fake_clear(f);
    ck_assert_uint_eq(adapter.cleared, 1); /* the run is gone, and its state with it */
    cm_buf_clear(&adapter.data);
}

static enum cm_step failed(const struct cm_ev *ev, struct cm_err *err)
{
    *err = *ev->err;
    return CM_STEP_FAIL;
}

/* START -> one request; whatever it gives is the end. */
static enum cm_step fetch_once(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    if (ev->kind == CM_EV_START)
        return cm_run_fetch(run, &adapter.call);
    return ev->kind == CM_EV_FAILED ? failed(ev, err) : CM_STEP_DONE;
}

/* Says every piece; done at its end, or at a piece that is "!". */
static enum cm_step stream_once(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    switch (ev->kind) {
    case CM_EV_START:
        return cm_run_stream(run, &adapter.call);
    case CM_EV_HEAD:
        return CM_STEP_WAIT;
    case CM_EV_DATA:
        if (cm_str_eq(ev->data, CM_S("!")))
            return CM_STEP_DONE;
        if (!cm_str_eq(ev->data, CM_S("."))) /* a ping */
            cm_run_text(run, ev->data);
        return CM_STEP_WAIT;
    case CM_EV_FAILED:
        return failed(ev, err);
    default:
        return CM_STEP_DONE;
    }
}

static enum cm_step ws_once(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    switch (ev->kind) {
    case CM_EV_START:
        return cm_run_ws(run, &adapter.call);
    case CM_EV_OPEN:
        cm_run_ws_send(run, CM_S("hello"), false);
        return CM_STEP_WAIT;
    case CM_EV_DATA:
        cm_run_text(run, ev->data);
        return cm_str_eq(ev->data, CM_S("!")) ? CM_STEP_DONE : CM_STEP_WAIT;
    case CM_EV_FAILED:
        return failed(ev, err);
    default:
        return CM_STEP_DONE;
    }
}

static enum cm_step sleep_once(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    if (ev->kind == CM_EV_START)
        return cm_run_sleep(run, adapter.sleep_ms);
    return ev->kind == CM_EV_FAILED ? failed(ev, err) : CM_STEP_DONE;
}

/* ---- fetch ---- */

START_TEST(fetch_gives_the_whole_reply_at_every_split)
{
    const struct fake_answer replies[] = {
        {201, "Content-Type: text/x\nX-Two: 2\n", CM_S_INIT("0123456789abcdef"), FAKE_COMPLETE}};

    for (size_t piece = 0; piece <= 17; piece++) {
        struct fake f;

        setup(&f, fetch_once);
        f.answers = replies;
        f.n_answers = 1;
        f.piece = piece;
        fake_play(&f);
        ck_assert(f.ended && f.err.cls == CM_ERR_NONE);
        ck_assert_str_eq(adapter.log, "START REPLY");
        ck_assert_int_eq(adapter.status, 201);
        ck_str(cm_buf_str(&adapter.data), "0123456789abcdef");
        ck_str(f.calls[0].url, "https://up.test/v1/talk");
        ck_str(f.calls[0].method, "POST");
        ck_str(f.calls[0].body, "{}");
        teardown(&f);
    }
}
END_TEST

START_TEST(fetch_is_bounded)
{
    const struct fake_answer replies[] = {{200, NULL, CM_S_INIT("0123456789a"), FAKE_COMPLETE}};
    struct fake f;

    setup(&f, fetch_once);
    adapter.call.max_reply = 10;
    f.answers = replies;
    f.n_answers = 1;
    f.piece = 3;
    fake_play(&f);
    ck_assert_int_eq(f.err.cls, CM_ERR_UPSTREAM_DOWN);
    ck_assert_str_eq(adapter.log, "START FAILED");
    teardown(&f);
}
END_TEST

static enum cm_step fetch_again(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    enum cm_step step;

    (void)err;
    if (ev->kind == CM_EV_START)
        return cm_run_fetch(run, &adapter.call);
    if (strcmp(adapter.log, "START REPLY") != 0)
        return CM_STEP_DONE;
    adapter.call.url = ev->data;
    step = cm_run_fetch(run, &adapter.call);
    ck_str(ev->data, "https://elsewhere.test/next"); /* good until step returns */
    ck_str(cm_header_find(ev->headers, ev->n_headers, CM_S("x-a")), "b");
    return step;
}

START_TEST(a_reply_stays_good_while_the_next_is_asked_for)
{
    const struct fake_answer replies[] = {
        {200, "X-A: b\n", CM_S_INIT("https://elsewhere.test/next"), FAKE_COMPLETE},
        {200, NULL, CM_S_INIT("two"), FAKE_COMPLETE}};
    struct fake f;

    setup(&f, fetch_again);
    f.answers = replies;
    f.n_answers = 2;
    fake_play(&f);
    ck_assert_str_eq(adapter.log, "START REPLY REPLY");
    ck_str(cm_buf_str(&adapter.data), "https://elsewhere.test/nexttwo");
    ck_str(f.calls[1].url, "https://elsewhere.test/next");
    teardown(&f);
}
END_TEST

START_TEST(a_failed_fetch_tells_why)
{
    static const struct {
        enum fake_rest end;
        enum cm_err_class cls;
    } cases[] = {{FAKE_NOTHING, CM_ERR_UPSTREAM_DOWN}, {FAKE_BREAKS, CM_ERR_CUT}};

    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        const struct fake_answer replies[] = {{200, NULL, CM_S_INIT("x"), cases[i].end}};
        struct fake f;

        setup(&f, fetch_once);
        f.answers = replies;
        f.n_answers = 1;
        fake_play(&f);
        ck_assert_str_eq(adapter.log, "START FAILED");
        ck_assert_int_eq(f.err.cls, cases[i].cls);
        ck_assert_str_eq(f.err.msg, adapter.err.msg); /* word for word */
        teardown(&f);
    }
}
END_TEST

START_TEST(the_operators_headers_win)
{
    static const struct cm_header headers[] = {{CM_S_INIT("X-Own"), CM_S_INIT("1")},
                                               {CM_S_INIT("x-taken"), CM_S_INIT("adapter")},
                                               {CM_S_INIT("User-Agent"), CM_S_INIT("adapter/1")}};
    struct cm_conf_pair pairs[] = {{.key = CM_S("X-Taken"), .value = CM_S("operator")},
                                   {.key = CM_S("user-agent"), .value = CM_S("pair/1")}};
    static const char *const agents[] = {"", "configured/1"};

    for (size_t i = 0; i < CM_COUNT(agents); i++) {
        struct fake f;

        setup(&f, fetch_once);
        adapter.call.headers = headers;
        adapter.call.n_headers = CM_COUNT(headers);
        f.conf.headers = pairs;
        f.conf.n_headers = CM_COUNT(pairs);
        f.conf.upstream.user_agent = cm_str_of(agents[i]);
        fake_open(&f);
        fake_turn(&f);
        if (i == 0)
            ck_str(f.calls[0].headers, "X-Taken: operator\nuser-agent: pair/1\nX-Own: 1\n");
        else
            ck_str(f.calls[0].headers, "X-Taken: operator\nX-Own: 1\nUser-Agent: configured/1\n");
        teardown(&f);
    }
}
END_TEST

START_TEST(the_credentials_proxy_and_isolation_go_along)
{
    struct fake f;

    setup(&f, fetch_once);
    f.conf.upstream.proxy = CM_S("http://all.test:1");
    f.cred.isolation = CM_S("cred-1");
    fake_open(&f);
    fake_turn(&f);
    ck_str(f.calls[0].isolation, "cred-1");
    ck_str(f.calls[0].proxy, "http://all.test:1");
    teardown(&f);

    setup(&f, fetch_once);
    f.conf.upstream.proxy = CM_S("http://all.test:1");
    f.cred.proxy = CM_S("http://mine.test:1");
    fake_open(&f);
    fake_turn(&f);
    ck_str(f.calls[0].proxy, "http://mine.test:1");
    teardown(&f);
}
END_TEST

/* ---- stream ---- */

START_TEST(stream_gives_every_piece_and_its_end)
{
    const struct fake_answer replies[] = {{200, NULL, CM_S_INIT("abcdef"), FAKE_COMPLETE}};

    for (size_t piece = 1; piece <= 6; piece++) {
        unsigned pieces = (unsigned)((6 + piece - 1) / piece);
        struct cm_run_info info;
        struct fake f;

        setup(&f, stream_once);
        f.answers = replies;
        f.n_answers = 1;
        f.piece = piece;
        fake_open(&f);
        cm_loop_run(f.loop);
        ck_str(cm_buf_str(&f.text), "abcdef");
        ck_assert_uint_eq(f.n_events, pieces);
        ck_assert_uint_eq(f.n_batches, pieces); /* one after each piece that said something */
        ck_assert(f.ended && f.err.cls == CM_ERR_NONE);
        cm_run_info(f.run, &info);
        ck_assert_str_eq(info.state, "TESTING");
        ck_assert_uint_eq(info.bytes_up, 2);
        ck_assert_uint_eq(info.bytes_down, 6);
        ck_assert_uint_ge(info.first_byte_us, info.began_us);
        ck_assert_uint_ge(info.semantic_us, info.first_byte_us);
        teardown(&f);
    }
}
END_TEST

START_TEST(a_cut_stream_fails)
{
    const struct fake_answer replies[] = {{200, NULL, CM_S_INIT("ab"), FAKE_BREAKS}};
    struct fake f;

    setup(&f, stream_once);
    f.answers = replies;
    f.n_answers = 1;
    fake_play(&f);
    ck_assert_str_eq(adapter.log, "START HEAD DATA FAILED");
    ck_assert_int_eq(f.err.cls, CM_ERR_CUT);
    ck_assert_str_eq(f.err.msg, "scripted: cut");
    teardown(&f);
}
END_TEST

START_TEST(empty_text_is_no_event)
{
    struct fake f;

    setup(&f, stream_once);
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    fake_data(&f, CM_S("."));
    ck_assert_uint_eq(f.n_events, 0);
    ck_assert_uint_eq(f.n_batches, 0);
    cm_run_text(adapter.run, CM_STR_NONE);
    cm_run_reasoning(adapter.run, CM_STR_NONE);
    ck_assert_uint_eq(f.n_events, 0);
    teardown(&f);
}
END_TEST

/* What has said all lingers until its message ends, so that the connection can serve again; only then the credential is free. */
START_TEST(a_finished_stream_lingers_until_its_end)
{
    struct fake f;

    setup(&f, stream_once);
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    fake_data(&f, CM_S("text"));
    fake_data(&f, CM_S("!"));
    ck_assert(f.ended && f.err.cls == CM_ERR_NONE);
    ck_assert_ptr_nonnull(f.xfer);
    fake_close(&f);
    ck_assert_uint_eq(f.n_released, 0);
    fake_data(&f, CM_S("trailing")); /* nobody hears of it */
    fake_end(&f);
    ck_assert_ptr_null(f.xfer);
    ck_assert_uint_eq(f.n_released, 1);
    ck_assert_str_eq(adapter.log, "START HEAD DATA DATA");
    teardown(&f);
}
END_TEST

START_TEST(lingering_is_bounded)
{
    for (int close_first = 0; close_first < 2; close_first++) {
        uint64_t began_ms;
        struct fake f;

        setup(&f, stream_once);
        fake_open(&f);
        fake_turn(&f);
        began_ms = cm_mono_ms();
        fake_head(&f, 200, NULL);
        fake_data(&f, CM_S("!"));
        if (close_first)
            fake_close(&f);
        while (f.xfer)
            fake_wait(&f, 20);
        ck_assert_uint_ge(cm_mono_ms() - began_ms, 950);
        ck_assert_uint_lt(cm_mono_ms() - began_ms, 3000);
        teardown(&f);
    }
}
END_TEST

START_TEST(what_still_sends_the_chats_body_does_not_linger)
{
    struct fake f;

    setup(&f, stream_once);
    fake_chat(&f, CM_S("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    adapter.call.body = f.chat->raw;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    fake_data(&f, CM_S("!"));
    ck_assert_ptr_nonnull(f.xfer);
    fake_close(&f);
    ck_assert_ptr_null(f.xfer);
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);
}
END_TEST

static void close_from_event(struct fake *f, const struct cm_event *ev)
{
    (void)ev;
    if (f->run)
        fake_close(f);
}

static enum cm_step stream_all_in_one(struct cm_run *run, const struct cm_ev *ev,
                                      struct cm_err *err)
{
    if (ev->kind != CM_EV_DATA)
        return stream_once(run, ev, err);
    cm_run_text(run, ev->data);
    return CM_STEP_DONE;
}

START_TEST(nor_when_the_owner_closes_while_it_is_said)
{
    struct fake f;

    setup(&f, stream_all_in_one);
    fake_chat(&f, CM_S("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    adapter.call.body = f.chat->raw;
    f.on_event = close_from_event;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    fake_data(&f, CM_S("text"));
    ck_assert_ptr_null(f.xfer);
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);
}
END_TEST

/* ---- sleep, compute ---- */

START_TEST(sleep_is_over_in_time)
{
    uint64_t began_us;
    struct fake f;

    setup(&f, sleep_once);
    adapter.sleep_ms = 60;
    fake_open(&f);
    fake_turn(&f);
    began_us = cm_mono_us();
    cm_loop_run(f.loop);
    ck_assert_uint_ge(cm_mono_us() - began_us, 55000);
    ck_assert_str_eq(adapter.log, "START TIMER");
    ck_assert(f.ended);
    teardown(&f);

    setup(&f, sleep_once);
    adapter.sleep_ms = -5; /* nothing to wait for: on a later turn all the same */
    fake_open(&f);
    cm_loop_run(f.loop);
    ck_assert_str_eq(adapter.log, "START TIMER");
    teardown(&f);
}
END_TEST

struct work {
    atomic_int began, saw_cancel, dropped;
    atomic_bool may_end;
    int result;
    pthread_t thread;
};

static void work_quickly(void *arg, const atomic_bool *cancelled)
{
    struct work *w = arg;

    (void)cancelled;
    w->thread = pthread_self();
    w->result = 42;
}

static void work_until_cancelled(void *arg, const atomic_bool *cancelled)
{
    struct work *w = arg;

    atomic_fetch_add(&w->began, 1);
    while (!atomic_load(cancelled) && !atomic_load(&w->may_end))
        usleep(1000);
    if (atomic_load(cancelled))
        atomic_fetch_add(&w->saw_cancel, 1);
}

static void drop_work(void *arg)
{
    struct work *w = arg;

    atomic_fetch_add(&w->dropped, 1);
}

static struct work work;
static void (*work_fn)(void *arg, const atomic_bool *cancelled);

static enum cm_step compute_once(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    if (ev->kind == CM_EV_START)
        return cm_run_compute(run, work_fn, &work, drop_work);
    return ev->kind == CM_EV_FAILED ? failed(ev, err) : CM_STEP_DONE;
}

START_TEST(compute_runs_on_another_thread)
{
    struct fake f;

    memset(&work, 0, sizeof(work));
    work_fn = work_quickly;
    setup(&f, compute_once);
    fake_open(&f);
    cm_loop_run(f.loop);
    ck_assert_str_eq(adapter.log, "START COMPUTED");
    ck_assert_int_eq(work.result, 42);
    ck_assert(!pthread_equal(work.thread, pthread_self()));
    ck_assert_int_eq(atomic_load(&work.dropped), 0); /* the adapter has it */
    teardown(&f);
}
END_TEST

START_TEST(a_cancelled_computation_is_dropped_once)
{
    struct fake f;

    memset(&work, 0, sizeof(work));
    work_fn = work_until_cancelled;
    setup(&f, compute_once);
    fake_open(&f);
    while (atomic_load(&work.began) == 0)
        fake_wait(&f, 2);
    fake_close(&f);
    ck_assert_uint_eq(f.n_released, 1); /* the thread has not let go yet, and nobody waits for it */
    ck_assert_str_eq(adapter.log, "START STOP");
    cm_loop_run(f.loop);
    ck_assert_int_eq(atomic_load(&work.saw_cancel), 1);
    ck_assert_int_eq(atomic_load(&work.dropped), 1);
    teardown(&f);
    ck_assert_int_eq(atomic_load(&work.dropped), 1);
}
END_TEST

START_TEST(the_last_computations_are_dropped_when_the_lanes_close)
{
    struct fake f;

    memset(&work, 0, sizeof(work));
    work_fn = work_until_cancelled;
    setup(&f, compute_once);
    fake_open(&f);
    fake_turn(&f);
    fake_close(&f);
    teardown(&f); /* closes the lanes before another turn of the loop */
    ck_assert_int_eq(atomic_load(&work.dropped), 1);
}
END_TEST

START_TEST(a_computation_that_is_late_fails_by_total_timeout)
{
    struct fake f;

    memset(&work, 0, sizeof(work));
    work_fn = work_until_cancelled;
    setup(&f, compute_once);
    f.conf.upstream.total_timeout_ms = 60;
    fake_open(&f);
    cm_loop_run(f.loop);
    ck_assert_str_eq(adapter.log, "START FAILED");
    ck_assert_int_eq(f.err.cls, CM_ERR_TIMEOUT);
    ck_assert_int_eq(atomic_load(&work.dropped), 1);
    teardown(&f);
}
END_TEST

/* ---- WebSocket ---- */

START_TEST(ws_talks_both_ways)
{
    struct fake f;

    setup(&f, ws_once);
    adapter.call.url = CM_S("wss://up.test/socket");
    fake_open(&f);
    fake_turn(&f);
    ck_assert(f.calls[0].ws);
    ck_str(f.calls[0].url, "wss://up.test/socket");
    fake_ws_open(&f);
    ck_str(cm_buf_str(&f.ws_sent), "hello\n");
    fake_ws_message(&f, CM_S("one"), false);
    fake_ws_message(&f, CM_S("!"), true);
    ck_str(cm_buf_str(&f.text), "one!");
    ck_assert(f.ended && f.err.cls == CM_ERR_NONE);
    ck_assert_ptr_null(f.ws); /* nothing to linger for */
    ck_assert_str_eq(adapter.log, "START OPEN DATA DATA");
    teardown(&f);
}
END_TEST

START_TEST(ws_ends_with_a_code_or_an_error)
{
    struct fake f;

    setup(&f, ws_once);
    fake_open(&f);
    fake_turn(&f);
    fake_ws_open(&f);
    fake_ws_end(&f, 1001);
    ck_assert_str_eq(adapter.log, "START OPEN END");
    ck_assert_int_eq(adapter.status, 1001);
    teardown(&f);

    setup(&f, ws_once);
    fake_open(&f);
    fake_turn(&f);
    fake_ws_fail(&f, CM_ERR_CUT);
    ck_assert_str_eq(adapter.log, "START FAILED");
    ck_assert_str_eq(f.err.msg, "scripted: cut");
    teardown(&f);
}
END_TEST

/* ---- sessions: a WebSocket that is the client's ---- */

static enum cm_step session_once(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    if (ev->kind == CM_EV_START) {
        adapter.call.session = true;
        return cm_run_ws(run, &adapter.call);
    }
    if (ev->kind == CM_EV_OPEN)
        return CM_STEP_WAIT;
    if (ev->kind == CM_EV_FAILED)
        adapter.status = ev->n_headers > 0 ? ev->status : -1;
    return ws_once(run, ev, err);
}

START_TEST(what_a_client_says_goes_up_as_long_as_the_session_is_open)
{
    struct fake f;

    setup(&f, session_once);
    fake_open(&f);
    fake_turn(&f);
    ck_assert_uint_eq(cm_run_say(f.run, CM_S("too early"), false), 0);
    fake_ws_open(&f);
    f.ws_queued = 4711;
    ck_assert_uint_eq(cm_run_say(f.run, CM_S("one"), false), 4711);
    ck_str(cm_buf_str(&f.ws_sent), "one\n");
    fake_ws_drain(&f);
    ck_assert_uint_eq(f.n_drains, 1);
    cm_run_say_close(f.run, 4001, CM_S("bye"));
    ck_assert_int_eq(f.ws_code, 4001);
    ck_str(cm_buf_str(&f.ws_reason), "bye");
    fake_ws_end(&f, 4001);
    ck_assert_uint_eq(cm_run_say(f.run, CM_S("too late"), false), 0);
    ck_str(cm_buf_str(&f.ws_sent), "one\n");
    teardown(&f);

    setup(&f, ws_once); /* one that is the flow's own */
    fake_open(&f);
    fake_turn(&f);
    fake_ws_open(&f);
    cm_run_say(f.run, CM_S("not asked"), false);
    ck_str(cm_buf_str(&f.ws_sent), "hello\n");
    fake_ws_end(&f, 1000);
    teardown(&f);
}
END_TEST

START_TEST(a_refused_handshake_has_status_and_headers)
{
    struct fake f;

    setup(&f, session_once);
    fake_open(&f);
    fake_turn(&f);
    fake_ws_refuse(&f, 429, "Retry-After: 7\n");
    ck_assert_str_eq(adapter.log, "START FAILED");
    ck_assert_int_eq(adapter.status, 429);
    teardown(&f);
}
END_TEST

START_TEST(a_silent_session_is_pinged_and_no_other_clock_runs)
{
    struct fake f;

    setup(&f, session_once);
    f.conf.upstream.first_token_timeout_ms = f.conf.upstream.idle_timeout_ms = 30;
    f.conf.upstream.total_timeout_ms = 60;
    f.ping_ms = 400;
    fake_open(&f);
    fake_turn(&f);
    fake_ws_open(&f);
    fake_wait(&f, 320);
    ck_assert_uint_eq(f.ws_pings, 0);
    fake_wait(&f, 320);
    ck_assert_uint_eq(f.ws_pings, 1);
    fake_ws_pong(&f);
    fake_wait(&f, 600);
    ck_assert_uint_eq(f.ws_pings, 2);
    cm_run_pause(f.run); /* nobody reads its pongs */
    fake_wait(&f, 1000);
    ck_assert(!f.ended);
    cm_run_resume(f.run);
    fake_wait(&f, 1400);
    ck_assert(f.ended);
    ck_assert_int_eq(f.err.cls, CM_ERR_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(f.err.msg, "ping"));
    teardown(&f);
}
END_TEST

/* ---- one thing at a time ---- */

static enum cm_step two_fetches(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    (void)ev;
    (void)err;
    cm_run_fetch(run, &adapter.call);
    return cm_run_fetch(run, &adapter.call);
}

static enum cm_step fetch_and_sleep(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    (void)ev;
    (void)err;
    cm_run_fetch(run, &adapter.call);
    return cm_run_sleep(run, 1);
}

static enum cm_step sleep_and_compute(struct cm_run *run, const struct cm_ev *ev,
                                      struct cm_err *err)
{
    (void)ev;
    (void)err;
    cm_run_sleep(run, 1);
    return cm_run_compute(run, work_quickly, &work, NULL);
}

static enum cm_step wait_for_nothing(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    (void)run;
    (void)ev;
    (void)err;
    return CM_STEP_WAIT;
}

static enum cm_step fail_without_a_reason(struct cm_run *run, const struct cm_ev *ev,
                                          struct cm_err *err)
{
    (void)run;
    (void)ev;
    (void)err;
    return CM_STEP_FAIL;
}

static step_fn *const wrong[] = {two_fetches, fetch_and_sleep, sleep_and_compute, wait_for_nothing,
                                 fail_without_a_reason};

START_TEST(an_adapter_that_breaks_the_rules_ends_the_process)
{
    struct fake f;

    setup(&f, wrong[_i]);
    fake_open(&f);
    fake_turn(&f); /* SIGABRT */
}
END_TEST

static enum cm_step hang_up_and_ask_again(struct cm_run *run, const struct cm_ev *ev,
                                          struct cm_err *err)
{
    (void)err;
    if (ev->kind == CM_EV_START)
        return cm_run_stream(run, &adapter.call);
    if (ev->kind == CM_EV_REPLY)
        return CM_STEP_DONE;
    if (ev->kind == CM_EV_STOP)
        return CM_STEP_DONE;
    cm_run_hang_up(run);
    return cm_run_fetch(run, &adapter.call);
}

START_TEST(a_stream_can_be_left_for_another_call)
{
    struct fake f;

    setup(&f, hang_up_and_ask_again);
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    ck_assert_uint_eq(f.n_calls, 2);
    fake_head(&f, 200, NULL);
    fake_end(&f);
    ck_assert(f.ended);
    ck_assert_str_eq(adapter.log, "START HEAD REPLY");
    teardown(&f);
}
END_TEST

/* ---- clocks ---- */

static void expect_timeout(const struct fake *f, const char *word)
{
    ck_assert(f->ended);
    ck_assert_int_eq(f->err.cls, CM_ERR_TIMEOUT);
    ck_assert_msg(cm_str_has(cm_str_of(f->err.msg), cm_str_of(word)), "%s", f->err.msg);
    ck_assert_ptr_null(f->xfer); /* the connection is closed */
}

START_TEST(only_what_means_something_stops_first_token)
{
    struct fake f;

    setup(&f, stream_once);
    f.conf.upstream.first_token_timeout_ms = 150;
    f.conf.upstream.idle_timeout_ms = 10000;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    for (int i = 0; i < 40 && !f.ended; i++) {
        fake_wait(&f, 20);
        if (!f.ended)
            fake_data(&f, CM_S(".")); /* pings do not count */
    }
    expect_timeout(&f, "first_token_timeout");
    teardown(&f);

    setup(&f, stream_once);
    f.conf.upstream.first_token_timeout_ms = 100;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    fake_data(&f, CM_S("text"));
    fake_wait(&f, 250);
    ck_assert(!f.ended);
    teardown(&f);
}
END_TEST

START_TEST(any_byte_stops_idle)
{
    struct fake f;

    setup(&f, stream_once);
    f.conf.upstream.idle_timeout_ms = 150;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    for (int i = 0; i < 10; i++) {
        fake_wait(&f, 50);
        ck_assert(!f.ended);
        fake_data(&f, CM_S("."));
    }
    fake_wait(&f, 250);
    expect_timeout(&f, "idle_timeout");
    teardown(&f);

    setup(&f, ws_once); /* the same for WebSockets */
    f.conf.upstream.idle_timeout_ms = 80;
    fake_open(&f);
    fake_turn(&f);
    fake_ws_open(&f);
    fake_wait(&f, 200);
    expect_timeout(&f, "idle_timeout");
    ck_assert_ptr_null(f.ws);
    teardown(&f);
}
END_TEST

START_TEST(total_bounds_everything)
{
    static step_fn *const flows[] = {fetch_once, stream_once, ws_once, sleep_once};

    for (size_t i = 0; i < CM_COUNT(flows); i++) {
        struct fake f;

        setup(&f, flows[i]);
        adapter.sleep_ms = 60000;
        f.conf.upstream.total_timeout_ms = 400;
        fake_open(&f);
        fake_wait(&f, 40);
        ck_assert(!f.ended);
        fake_wait(&f, 800);
        expect_timeout(&f, "total_timeout");
        ck_assert_str_eq(adapter.log, "START FAILED");
        teardown(&f);
    }
}
END_TEST

START_TEST(a_long_wait_has_response_timeout_until_its_head)
{
    struct fake f;

    setup(&f, stream_once);
    adapter.call.long_wait = true;
    f.conf.upstream.response_timeout_ms = 200;
    f.conf.upstream.first_token_timeout_ms = 30;
    f.conf.upstream.idle_timeout_ms = 30;
    fake_open(&f);
    fake_turn(&f);
    fake_wait(&f, 100);
    ck_assert(!f.ended);
    fake_wait(&f, 250);
    expect_timeout(&f, "response_timeout");
    teardown(&f);

    setup(&f, stream_once);
    adapter.call.long_wait = true;
    f.conf.upstream.response_timeout_ms = 60;
    f.conf.upstream.first_token_timeout_ms = 30;
    f.conf.upstream.idle_timeout_ms = 200;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    fake_wait(&f, 120); /* neither the wait for the head nor first_token counts now */
    ck_assert(!f.ended);
    fake_wait(&f, 250);
    expect_timeout(&f, "idle_timeout");
    teardown(&f);

    setup(&f, stream_once); /* the clock that begins with the head is the sooner one */
    adapter.call.long_wait = true;
    f.conf.upstream.response_timeout_ms = 60000;
    f.conf.upstream.idle_timeout_ms = 60;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    fake_wait(&f, 200);
    expect_timeout(&f, "idle_timeout");
    teardown(&f);
}
END_TEST

START_TEST(a_fetch_has_its_own_time_or_response_timeout)
{
    struct fake f;

    setup(&f, fetch_once);
    adapter.call.timeout_ms = 60;
    f.conf.upstream.response_timeout_ms = 10000;
    f.conf.upstream.idle_timeout_ms = 10;
    f.conf.upstream.first_token_timeout_ms = 10;
    fake_open(&f);
    fake_wait(&f, 30);
    ck_assert(!f.ended);
    fake_wait(&f, 120);
    expect_timeout(&f, "no complete reply");
    teardown(&f);

    setup(&f, fetch_once);
    f.conf.upstream.response_timeout_ms = 60;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    for (int i = 0; i < 20 && !f.ended; i++) { /* a reply that drips is late all the same */
        fake_data(&f, CM_S("x"));
        fake_wait(&f, 20);
    }
    expect_timeout(&f, "no complete reply");
    teardown(&f);
}
END_TEST

/* ---- pausing ---- */

START_TEST(a_paused_stream_is_not_idle)
{
    struct fake f;

    setup(&f, stream_once);
    f.conf.upstream.idle_timeout_ms = 120;
    f.conf.upstream.first_token_timeout_ms = 120;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    fake_data(&f, CM_S("text"));
    cm_run_pause(f.run);
    cm_run_pause(f.run); /* twice is once */
    ck_assert(f.held);
    fake_wait(&f, 300);
    ck_assert(!f.ended);
    cm_run_resume(f.run);
    ck_assert(!f.held);
    fake_wait(&f, 60); /* the clock begins anew */
    ck_assert(!f.ended);
    fake_wait(&f, 200);
    expect_timeout(&f, "idle_timeout");
    teardown(&f);
}
END_TEST

START_TEST(what_is_opened_while_paused_is_held)
{
    static step_fn *const flows[] = {stream_once, ws_once};

    for (size_t i = 0; i < CM_COUNT(flows); i++) {
        struct fake f;

        setup(&f, flows[i]);
        fake_open(&f);
        cm_run_pause(f.run);
        fake_turn(&f);
        ck_assert(f.held);
        cm_run_resume(f.run);
        ck_assert(!f.held);
        teardown(&f);
    }
}
END_TEST

START_TEST(a_timer_due_while_paused_waits)
{
    struct fake f;

    setup(&f, sleep_once);
    adapter.sleep_ms = 30;
    fake_open(&f);
    fake_turn(&f);
    cm_run_pause(f.run);
    fake_wait(&f, 100);
    ck_assert_str_eq(adapter.log, "START");
    cm_run_resume(f.run);
    ck_assert_str_eq(adapter.log, "START"); /* not from within the call */
    fake_wait(&f, 30);
    ck_assert_str_eq(adapter.log, "START TIMER");
    teardown(&f);

    setup(&f, sleep_once); /* one that is not due yet keeps its time */
    adapter.sleep_ms = 120;
    fake_open(&f);
    fake_turn(&f);
    cm_run_pause(f.run);
    fake_wait(&f, 20);
    cm_run_resume(f.run);
    fake_wait(&f, 20);
    ck_assert_str_eq(adapter.log, "START");
    fake_wait(&f, 150);
    ck_assert_str_eq(adapter.log, "START TIMER");
    teardown(&f);
}
END_TEST

START_TEST(total_runs_on_while_a_due_timer_waits)
{
    struct fake f;

    setup(&f, sleep_once);
    adapter.sleep_ms = 20;
    f.conf.upstream.total_timeout_ms = 120;
    fake_open(&f);
    fake_turn(&f);
    cm_run_pause(f.run);
    fake_wait(&f, 60);
    ck_assert(!f.ended);
    fake_wait(&f, 150);
    expect_timeout(&f, "total_timeout");
    teardown(&f);
}
END_TEST

static void pause_from_event(struct fake *f, const struct cm_event *ev)
{
    (void)ev;
    cm_run_pause(f->run);
}

/* The answer ended in the very piece that was too much for the client: the rest of the message is taken all the same. */
START_TEST(a_stream_that_ends_paused_lingers_unpaused)
{
    const struct fake_answer replies[] = {{200, NULL, CM_S_INIT("t!rest"), FAKE_COMPLETE}};
    struct fake f;

    setup(&f, stream_all_in_one);
    f.on_event = pause_from_event;
    f.answers = replies;
    f.n_answers = 1;
    f.piece = 2;
    fake_open(&f);
    cm_loop_run(f.loop);
    ck_assert(f.ended);
    ck_assert(!f.held);
    for (int i = 0; i < 10; i++)
        fake_turn(&f);
    ck_assert_ptr_null(f.xfer); /* long before the patience ends */
    fake_close(&f);
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);
}
END_TEST

/* ---- closing ---- */

static step_fn *const all_flows[] = {fetch_once, stream_once, ws_once, sleep_once, compute_once};

START_TEST(closing_is_heard_once_in_every_flight)
{
    struct fake f;

    memset(&work, 0, sizeof(work));
    work_fn = work_until_cancelled;
    setup(&f, all_flows[_i]);
    adapter.sleep_ms = 60000;
    f.conf.upstream.total_timeout_ms = 100000;
    fake_open(&f);
    fake_turn(&f);
    fake_close(&f);
    ck_assert_str_eq(adapter.log, "START STOP");
    ck_assert_uint_eq(f.n_released, 1);
    ck_assert(!f.xfer && !f.ws && !f.ended);
    teardown(&f);

    setup(&f, all_flows[_i]); /* before the first step */
    fake_open(&f);
    fake_close(&f);
    fake_turn(&f);
    ck_assert_str_eq(adapter.log, "STOP");
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);

    setup(&f, all_flows[_i]); /* while paused */
    adapter.sleep_ms = 60000;
    fake_open(&f);
    fake_turn(&f);
    cm_run_pause(f.run);
    fake_close(&f);
    ck_assert_str_eq(adapter.log, "START STOP");
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);
}
END_TEST

static void close_in_hook(struct fake *f)
{
    if (f->run)
        fake_close(f);
}

START_TEST(the_owner_may_close_from_within_any_callback)
{
    struct fake f;

    setup(&f, stream_once); /* on_event, and the step wants to go on */
    f.on_event = close_from_event;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    fake_data(&f, CM_S("text"));
    ck_assert_str_eq(adapter.log, "START HEAD DATA STOP");
    ck_assert_uint_eq(f.n_events, 1);
    ck_assert_uint_eq(f.n_batches, 0);
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);

    setup(&f, stream_all_in_one); /* on_event, and the step is the last */
    f.on_event = close_from_event;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    fake_data(&f, CM_S("text"));
    ck_assert_str_eq(adapter.log, "START HEAD DATA"); /* it has ended by itself: no farewell */
    fake_end(&f);                                     /* it lingered */
    ck_assert_uint_eq(f.n_released, 1);
    ck_assert(!f.ended);
    teardown(&f);

    setup(&f, stream_once); /* on_batch, and the step wants to go on */
    f.on_batch = close_in_hook;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    fake_data(&f, CM_S("text"));
    ck_assert_str_eq(adapter.log, "START HEAD DATA STOP");
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);

    setup(&f, stream_all_in_one); /* on_batch of the last step */
    f.on_batch = close_in_hook;
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    fake_data(&f, CM_S("text"));
    ck_assert_str_eq(adapter.log, "START HEAD DATA");
    ck_assert(!f.ended);
    fake_end(&f);
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);

    for (size_t i = 0; i < CM_COUNT(all_flows); i++) { /* on_end, after a failure */
        memset(&work, 0, sizeof(work));
        work_fn = work_until_cancelled;
        setup(&f, all_flows[i]);
        adapter.sleep_ms = 60000;
        f.on_end = close_in_hook;
        f.conf.upstream.total_timeout_ms = 20;
        fake_open(&f);
        cm_loop_run(f.loop);
        ck_assert_str_eq(adapter.log, "START FAILED");
        ck_assert_uint_eq(f.n_released, 1);
        teardown(&f);
    }
}
END_TEST

/* ---- the farewell ---- */

static step_fn *farewell;

static enum cm_step polite(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    if (!strstr(adapter.log, "STOP"))
        return stream_once(run, ev, err);
    cm_run_text(run, CM_S("nobody hears this"));
    return farewell(run, ev, err);
}

static void leave_in_the_middle(struct fake *f)
{
    setup(f, polite);
    fake_chat(f, CM_S("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    fake_open(f);
    fake_turn(f);
    fake_head(f, 200, NULL);
    fake_data(f, CM_S("text"));
    fake_close(f);
}

static enum cm_step delete_it(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    (void)err;
    return ev->kind == CM_EV_STOP ? cm_run_fetch(run, &adapter.call) : CM_STEP_DONE;
}

START_TEST(a_farewell_may_ask_the_platform)
{
    struct fake f;

    farewell = delete_it;
    leave_in_the_middle(&f);
    ck_assert_uint_eq(f.n_released, 0); /* the credential is in use */
    ck_assert_uint_eq(f.n_calls, 2);
    ck_assert_uint_eq(f.n_events, 1);
    fake_head(&f, 204, NULL);
    ck_assert_uint_eq(f.n_released, 0);
    fake_end(&f);
    ck_assert_uint_eq(f.n_released, 1);
    ck_assert_str_eq(adapter.log, "START HEAD DATA STOP REPLY");
    teardown(&f);

    leave_in_the_middle(&f);
    fake_fail(&f, CM_ERR_UPSTREAM_DOWN);
    ck_assert_str_eq(adapter.log, "START HEAD DATA STOP FAILED");
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);
}
END_TEST

static enum cm_step delete_slowly(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    (void)err;
    switch (ev->kind) {
    case CM_EV_STOP:
        return cm_run_sleep(run, 10);
    case CM_EV_TIMER:
        return cm_run_compute(run, work_quickly, &work, NULL);
    case CM_EV_COMPUTED:
        return cm_run_fetch(run, &adapter.call);
    default:
        return CM_STEP_DONE;
    }
}

START_TEST(a_farewell_may_take_several_steps)
{
    struct fake f;

    farewell = delete_slowly;
    leave_in_the_middle(&f);
    while (!f.xfer)
        fake_wait(&f, 10);
    ck_assert_uint_eq(f.n_released, 0);
    fake_head(&f, 204, NULL);
    fake_end(&f);
    ck_assert_str_eq(adapter.log, "START HEAD DATA STOP TIMER COMPUTED REPLY");
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);
}
END_TEST

static enum cm_step delete_too_much(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct cm_call call = adapter.call;

    (void)err;
    call.max_reply = 3;
    return ev->kind == CM_EV_STOP ? cm_run_fetch(run, &call) : CM_STEP_DONE;
}

START_TEST(a_farewell_may_fail_in_its_own_reply)
{
    struct fake f;

    farewell = delete_too_much;
    leave_in_the_middle(&f);
    fake_head(&f, 200, NULL);
    fake_data(&f, CM_S("four"));
    ck_assert_str_eq(adapter.log, "START HEAD DATA STOP FAILED");
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);
}
END_TEST

static enum cm_step sleep_long(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    (void)err;
    return ev->kind == CM_EV_STOP ? cm_run_sleep(run, 60000) : CM_STEP_DONE;
}

START_TEST(a_farewell_is_bounded)
{
    static step_fn *const farewells[] = {delete_it, sleep_long};
    uint64_t began_ms;
    struct fake f;

    farewell = farewells[_i];
    leave_in_the_middle(&f);
    began_ms = cm_mono_ms();
    while (f.n_released == 0)
        fake_wait(&f, 20);
    ck_assert_uint_ge(cm_mono_ms() - began_ms, 4900);
    ck_assert_uint_lt(cm_mono_ms() - began_ms, 8000);
    ck_assert(!f.xfer);
    ck_assert(!strstr(adapter.log, "FAILED")); /* it is not asked again */
    teardown(&f);
}
END_TEST

/* What is made while the client leaves has to go again: its name comes with STOP. */
static enum cm_step make_and_unmake(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct cm_call make = adapter.call;

    (void)err;
    make.lands = true;
    if (ev->kind == CM_EV_START)
        return cm_run_fetch(run, &make);
    if (ev->kind != CM_EV_STOP || ev->status == 0)
        return CM_STEP_DONE;
    cm_buf_append(&adapter.data, ev->data);
    ck_str(cm_header_find(ev->headers, ev->n_headers, CM_S("etag")), "7");
    return cm_run_fetch(run, &adapter.call);
}

static void leave_while_it_is_made(struct fake *f)
{
    setup(f, make_and_unmake);
    fake_chat(f, CM_S("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    fake_open(f);
    fake_turn(f);
    fake_close(f);
    ck_assert_ptr_nonnull(f->xfer);
    ck_assert_uint_eq(f->n_released, 0);
}

START_TEST(a_farewell_waits_for_what_lands)
{
    struct fake f;

    leave_while_it_is_made(&f);
    fake_head(&f, 201, "ETag: 7\n");
    fake_data(&f, CM_S("its name"));
    fake_end(&f);
    ck_assert_str_eq(adapter.log, "START STOP");
    ck_str(cm_buf_str(&adapter.data), "its name");
    ck_assert_uint_eq(f.n_calls, 2);
    fake_head(&f, 200, NULL);
    fake_end(&f);
    ck_assert_str_eq(adapter.log, "START STOP REPLY");
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);

    leave_while_it_is_made(&f);
    fake_fail(&f, CM_ERR_UPSTREAM_DOWN);
    ck_assert_str_eq(adapter.log, "START STOP");
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);

    leave_while_it_is_made(&f); /* and not longer than any farewell */
    for (int i = 0; i < 400 && f.n_released == 0; i++)
        fake_wait(&f, 20);
    ck_assert_uint_eq(f.n_released, 1);
    ck_assert_str_eq(adapter.log, "START");
    teardown(&f);
}
END_TEST

/* ---- what comes after the answer ---- */

static enum cm_step answer_and_delete(struct cm_run *run, const struct cm_ev *ev,
                                      struct cm_err *err)
{
    switch (ev->kind) {
    case CM_EV_START:
        return cm_run_stream(run, &adapter.call);
    case CM_EV_DATA:
        cm_run_text(run, ev->data);
        cm_run_finish(run, CM_FINISH_STOP);
        cm_run_hang_up(run);
        cm_run_answered(run);
        cm_run_text(run, CM_S("nobody hears this"));
        return cm_run_fetch(run, &adapter.call);
    case CM_EV_FAILED:
        *err = *ev->err;
        return CM_STEP_FAIL;
    case CM_EV_REPLY:
        cm_run_quota(run, CM_S("{\"credit\":1}"));
        return CM_STEP_DONE;
    default:
        return CM_STEP_WAIT;
    }
}

static void answer_all(struct fake *f)
{
    setup(f, answer_and_delete);
    fake_chat(f, CM_S("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    fake_open(f);
    fake_turn(f);
    fake_head(f, 200, NULL);
    fake_data(f, CM_S("text"));
}

static enum cm_step drop_and_fetch(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    if (ev->kind == CM_EV_START)
        cm_run_dropped(run, "seed");
    return fetch_once(run, ev, err);
}

START_TEST(what_a_flow_drops_is_refused_where_that_is_asked_for)
{
    const struct fake_answer answer = {.status = 200, .body = CM_S("x")};
    struct fake f;

    for (int strict = 0; strict < 2; strict++) {
        setup(&f, drop_and_fetch);
        f.conf.upstream.strict = strict;
        f.answers = &answer;
        f.n_answers = 1;
        fake_play(&f);
        ck_assert_int_eq(f.err.cls, strict ? CM_ERR_BAD_REQUEST : CM_ERR_NONE);
        ck_assert_str_eq(f.err.param, strict ? "seed" : "");
        ck_assert_str_eq(adapter.log, strict ? "START" : "START REPLY");
        teardown(&f);
    }
}
END_TEST

START_TEST(after_the_answer_a_flow_goes_on_by_itself)
{
    struct fake f;

    answer_all(&f);
    ck_assert(f.ended); /* the client need not wait for the rest */
    ck_assert_int_eq(f.err.cls, CM_ERR_NONE);
    ck_assert_uint_eq(f.n_events, 2);
    fake_close(&f);
    ck_assert_uint_eq(f.n_calls, 2);
    ck_assert_uint_eq(f.n_released, 0); /* the credential is in use */
    fake_head(&f, 200, NULL);
    fake_end(&f);
    ck_assert_uint_eq(f.n_released, 1);
    ck_assert_str_eq(adapter.log, "START HEAD DATA REPLY"); /* and no STOP */
    ck_str(cm_buf_str(&f.quota), "{\"credit\":1}");         /* the credential's news are heard */
    teardown(&f);
}
END_TEST

static void close_at_the_end(struct fake *f)
{
    fake_close(f);
}

START_TEST(its_failure_then_is_nobodys)
{
    struct fake f;

    answer_all(&f);
    fake_close(&f);
    fake_fail(&f, CM_ERR_UPSTREAM_DOWN);
    ck_assert_str_eq(adapter.log, "START HEAD DATA FAILED");
    ck_assert_uint_eq(f.n_released, 1);
    ck_assert_int_eq(f.err.cls, CM_ERR_NONE);
    teardown(&f);
}
END_TEST

START_TEST(the_owner_may_close_when_it_hears_of_the_answer)
{
    struct fake f;

    setup(&f, answer_and_delete);
    f.on_end = close_at_the_end;
    fake_chat(&f, CM_S("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    fake_open(&f);
    fake_turn(&f);
    fake_head(&f, 200, NULL);
    fake_data(&f, CM_S("text"));
    ck_assert_uint_eq(f.n_released, 0);
    fake_head(&f, 200, NULL);
    fake_end(&f);
    ck_assert_uint_eq(f.n_released, 1);
    ck_assert_str_eq(adapter.log, "START HEAD DATA REPLY");
    teardown(&f);
}
END_TEST

START_TEST(what_comes_after_the_answer_is_bounded)
{
    uint64_t began_ms;
    struct fake f;

    answer_all(&f);
    fake_close(&f);
    began_ms = cm_mono_ms();
    while (f.n_released == 0)
        fake_wait(&f, 20);
    ck_assert_uint_ge(cm_mono_ms() - began_ms, 14900);
    ck_assert_str_eq(adapter.log, "START HEAD DATA");
    teardown(&f);
}
END_TEST

/* The stream stays in flight; what comes after it needs no turn of the account. */
static enum cm_step answer_and_wait_for_the_end(struct cm_run *run, const struct cm_ev *ev,
                                                struct cm_err *err)
{
    if (ev->kind == CM_EV_DATA) {
        cm_run_text(run, ev->data);
        cm_run_finish(run, CM_FINISH_STOP);
        cm_run_answered(run);
        return CM_STEP_WAIT;
    }
    if (ev->kind == CM_EV_END || ev->kind == CM_EV_FAILED) {
        struct cm_call call = adapter.call;

        cm_run_spare(run);
        call.headers = &(struct cm_header){CM_S("Cookie"), cm_run_cred(run)->secret};
        call.n_headers = 1;
        return cm_run_fetch(run, &call);
    }
    return answer_and_delete(run, ev, err);
}

static void forget_secret(struct fake *f)
{
    free((void *)(uintptr_t)f->cred.secret.p);
    f->cred.secret = CM_STR_NONE;
}

static void answer_with_open_end(struct fake *f)
{
    setup(f, answer_and_wait_for_the_end);
    f->cred.secret = cm_str(cm_str_dup(CM_S("s3cret")), 6);
    f->on_spared = forget_secret;
    fake_chat(f, CM_S("{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    fake_open(f);
    fake_turn(f);
    fake_head(f, 200, NULL);
    fake_data(f, CM_S("text"));
    ck_assert(f->ended);
    fake_close(f);
    ck_assert_uint_eq(f->n_spared, 0);
}

START_TEST(an_account_is_spared_for_others)
{
    struct fake f;

    answer_with_open_end(&f);
    fake_end(&f);
    ck_assert_uint_eq(f.n_spared, 1);
    ck_assert_uint_eq(f.n_released, 0);
    ck_assert_uint_eq(f.n_calls, 2); /* with copies of what was lent */
    ck_assert(cm_str_has(f.calls[1].headers, CM_S("Cookie: s3cret")));
    fake_head(&f, 200, NULL);
    fake_end(&f);
    ck_assert_uint_eq(f.n_released, 1);
    ck_assert_uint_eq(f.n_spared, 1);
    teardown(&f);
}
END_TEST

START_TEST(a_stream_that_stays_open_after_the_answer_ends_after_a_second)
{
    uint64_t began_ms;
    struct fake f;

    answer_with_open_end(&f);
    began_ms = cm_mono_ms();
    while (f.n_calls < 2 && cm_mono_ms() - began_ms < 5000)
        fake_wait(&f, 20);
    ck_assert_uint_ge(cm_mono_ms() - began_ms, 900);
    ck_assert_uint_eq(f.n_calls, 2);
    ck_assert_str_eq(adapter.log, "START HEAD DATA FAILED");
    fake_head(&f, 200, NULL);
    fake_end(&f);
    ck_assert_uint_eq(f.n_released, 1);
    teardown(&f);
}
END_TEST

Suite *suite_run(void)
{
    Suite *s = suite_create("run");
    TCase *t = tcase_create("flights");

    tcase_add_test(t, fetch_gives_the_whole_reply_at_every_split);
    tcase_add_test(t, fetch_is_bounded);
    tcase_add_test(t, a_reply_stays_good_while_the_next_is_asked_for);
    tcase_add_test(t, a_failed_fetch_tells_why);
    tcase_add_test(t, the_operators_headers_win);
    tcase_add_test(t, the_credentials_proxy_and_isolation_go_along);
    tcase_add_test(t, stream_gives_every_piece_and_its_end);
    tcase_add_test(t, a_cut_stream_fails);
    tcase_add_test(t, empty_text_is_no_event);
    tcase_add_test(t, a_finished_stream_lingers_until_its_end);
    tcase_add_test(t, lingering_is_bounded);
    tcase_add_test(t, what_still_sends_the_chats_body_does_not_linger);
    tcase_add_test(t, nor_when_the_owner_closes_while_it_is_said);
    tcase_add_test(t, sleep_is_over_in_time);
    tcase_add_test(t, compute_runs_on_another_thread);
    tcase_add_test(t, a_cancelled_computation_is_dropped_once);
    tcase_add_test(t, the_last_computations_are_dropped_when_the_lanes_close);
    tcase_add_test(t, a_computation_that_is_late_fails_by_total_timeout);
    tcase_add_test(t, ws_talks_both_ways);
    tcase_add_test(t, ws_ends_with_a_code_or_an_error);
    tcase_add_test(t, what_a_client_says_goes_up_as_long_as_the_session_is_open);
    tcase_add_test(t, a_refused_handshake_has_status_and_headers);
    tcase_add_test(t, a_silent_session_is_pinged_and_no_other_clock_runs);
    tcase_add_loop_test_raise_signal(t, an_adapter_that_breaks_the_rules_ends_the_process, SIGABRT,
                                     0, (int)CM_COUNT(wrong));
    tcase_add_test(t, a_stream_can_be_left_for_another_call);
    suite_add_tcase(s, t);

    t = tcase_create("clocks");
    tcase_add_test(t, only_what_means_something_stops_first_token);
    tcase_add_test(t, any_byte_stops_idle);
    tcase_add_test(t, total_bounds_everything);
    tcase_add_test(t, a_long_wait_has_response_timeout_until_its_head);
    tcase_add_test(t, a_fetch_has_its_own_time_or_response_timeout);
    tcase_add_test(t, a_paused_stream_is_not_idle);
    tcase_add_test(t, what_is_opened_while_paused_is_held);
    tcase_add_test(t, a_timer_due_while_paused_waits);
    tcase_add_test(t, total_runs_on_while_a_due_timer_waits);
    tcase_add_test(t, a_stream_that_ends_paused_lingers_unpaused);
    suite_add_tcase(s, t);

    t = tcase_create("closing");
    tcase_add_loop_test(t, closing_is_heard_once_in_every_flight, 0, (int)CM_COUNT(all_flows));
    tcase_add_test(t, the_owner_may_close_from_within_any_callback);
    tcase_add_test(t, a_farewell_may_ask_the_platform);
    tcase_add_test(t, a_farewell_waits_for_what_lands);
    tcase_add_test(t, a_farewell_may_take_several_steps);
    tcase_add_test(t, a_farewell_may_fail_in_its_own_reply);
    tcase_add_loop_test(t, a_farewell_is_bounded, 0, 2);
    suite_add_tcase(s, t);

    t = tcase_create("after the answer");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, what_a_flow_drops_is_refused_where_that_is_asked_for);
    tcase_add_test(t, after_the_answer_a_flow_goes_on_by_itself);
    tcase_add_test(t, its_failure_then_is_nobodys);
    tcase_add_test(t, the_owner_may_close_when_it_hears_of_the_answer);
    tcase_add_test(t, what_comes_after_the_answer_is_bounded);
    tcase_add_test(t, an_account_is_spared_for_others);
    tcase_add_test(t, a_stream_that_stays_open_after_the_answer_ends_after_a_second);
    suite_add_tcase(s, t);
    return s;
}
