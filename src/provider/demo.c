/* demo: answers by itself, without account or network, for trying a client and for tests.
 *
 * Happy path: what will be said is planned at the start, then SAY cuts it into pieces and hands them
 * out, one after a pause of x.chunk_ms each, or as fast as the client takes them. Failures:
 * demo-error fails with the class whose name the last user text holds. */
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"
#include "chatmux/base/utf8.h"
#include "chatmux/codec/json.h"
#include "chatmux/provider/list.h"
#include "chatmux/provider/run.h"

enum demo_model { DEMO_ECHO, DEMO_REASONING, DEMO_TOOL, DEMO_IMAGE, DEMO_ERROR };

static const struct cm_model_row models[] = {
    {.name = CM_S_INIT("demo"),
     .number = DEMO_ECHO,
     .features = CM_MODEL_THINKING,
     .context_tokens = 128000},
    {.name = CM_S_INIT("demo-reasoning"), .number = DEMO_REASONING, .context_tokens = 128000},
    {.name = CM_S_INIT("demo-tool"), .number = DEMO_TOOL, .context_tokens = 128000},
    {.name = CM_S_INIT("demo-image"),
     .number = DEMO_IMAGE,
     .features = CM_MODEL_IMAGE_OUT,
     .context_tokens = 128000},
    {.name = CM_S_INIT("demo-error"), .number = DEMO_ERROR, .context_tokens = 128000},
};

static const struct cm_option options[] = {
    {.name = "delay",
     .type = CM_CONF_DURATION,
     .def = "0",
     .help = "pause before the first piece of an answer"},
    {.name = "chunk_ms",
     .type = CM_CONF_DURATION,
     .def = "0",
     .max = 60 * 60 * 1000,
     .help = "pause between two pieces; a bare number is milliseconds"},
    {.name = "chunks",
     .type = CM_CONF_INT,
     .def = "0",
     .help = "into how many pieces a text is cut; 0 = word by word"},
    {.name = NULL},
};

struct demo_options {
    int64_t delay_ms, chunk_ms, chunks;
};

static int configure(struct cm_instance *in, struct cm_problems *problems)
{
    struct demo_options *o = CM_ARENA_NEW(in->arena, struct demo_options);

    (void)problems; /* the values were checked by their types */
    o->delay_ms = cm_option_int(in, "delay");
    o->chunk_ms = cm_option_int(in, "chunk_ms");
    o->chunks = cm_option_int(in, "chunks");
    in->options = o;
    return 0;
}

#define DEMO_STATES(X) X(START) X(SAY)
enum demo_state {
#define X(name) DEMO_##name,
    DEMO_STATES(X)
#undef X
};

struct demo {
    enum demo_state state;
    struct cm_event *plan; /* in the run's arena; a text is whole here */
    size_t n, cap, next;
    size_t said_bytes, said_pieces; /* of the text at `next` */
    struct cm_usage usage;
};

static const char *state_name(const void *state)
{
    static const char *const names[] = {
#define X(name) #name,
        DEMO_STATES(X)
#undef X
    };

    return names[((const struct demo *)state)->state];
}

static const struct demo_options *options_of(const struct cm_run *run)
{
    return cm_run_instance(run)->options;
}

/* ---- Planning ---- */

static void plan(struct cm_run *run, struct demo *d, struct cm_event ev)
{
    if (d->n == d->cap) {
        struct cm_event *grown;

        d->cap = d->cap ? d->cap * 2 : 16;
        grown = CM_ARENA_ARRAY(cm_run_arena(run), struct cm_event, d->cap);
        if (d->n > 0)
            memcpy(grown, d->plan, d->n * sizeof(*grown));
        d->plan = grown;
    }
    d->plan[d->n++] = ev;
}

static void plan_text(struct cm_run *run, struct demo *d, enum cm_event_kind kind, int choice,
                      struct cm_str text)
{
    const int64_t tokens = cm_estimate_tokens(text);

    if (text.n > 0)
        plan(run, d, (struct cm_event){.kind = kind, .choice = choice, .text = text});
    if (kind == CM_EVENT_REASONING)
        d->usage.out_reasoning += tokens;
    else
        d->usage.out_text += tokens;
}

static void put_example(struct cm_buf *out, const yyjson_val *property)
{
    static const struct {
        struct cm_str type, value;
    } examples[] = {
        {CM_S_INIT("integer"), CM_S_INIT("1")},    {CM_S_INIT("number"), CM_S_INIT("1")},
        {CM_S_INIT("boolean"), CM_S_INIT("true")}, {CM_S_INIT("array"), CM_S_INIT("[]")},
        {CM_S_INIT("object"), CM_S_INIT("{}")},    {CM_S_INIT("null"), CM_S_INIT("null")},
    };
    const struct cm_str type = cm_json_str(cm_json_get(property, "type"));
    const yyjson_val *first = yyjson_arr_get_first(cm_json_get(property, "enum"));

    if (first) {
        cm_json_put_val(out, first);
        return;
    }
    for (size_t i = 0; i < CM_COUNT(examples); i++) {
        if (cm_str_eq(examples[i].type, type)) {
            cm_buf_append(out, examples[i].value);
            return;
        }
    }
    cm_json_put_str(out, CM_S("demo"));
}

/* An object with an example for each property the schema requires. */
static struct cm_str example_arguments(struct cm_arena *arena, struct cm_str schema)
{
    struct cm_buf out = {0};
    yyjson_doc *doc = cm_json_parse(schema, &cm_json_limits_request, NULL);
    yyjson_val *root = doc ? yyjson_doc_get_root(doc) : NULL, *name;
    yyjson_val *properties = cm_json_get(root, "properties"),
               *required = cm_json_get(root, "required");
    size_t i, max;

    cm_buf_put(&out, '{');
    yyjson_arr_foreach(required, i, max, name)
    {
        const struct cm_str key = cm_json_str(name);

        cm_buf_append(&out, out.n > 1 ? CM_S(",") : CM_S(""));
        cm_json_put_str(&out, key);
        cm_buf_put(&out, ':');
        put_example(&out, yyjson_obj_getn(properties, key.p ? key.p : "", key.n));
    }
    cm_buf_put(&out, '}');
    yyjson_doc_free(doc);
    return cm_buf_settle(&out, arena);
}

static const struct cm_tool *chosen_tool(const struct cm_chat *chat)
{
    for (size_t i = 0; i < chat->n_tools && chat->tool_choice == CM_TOOLS_NAMED; i++) {
        if (cm_str_eq(chat->tools[i].name, chat->tool_name))
            return &chat->tools[i];
    }
    return chat->n_tools > 0 && chat->tool_choice != CM_TOOLS_NONE ? &chat->tools[0] : NULL;
}

static enum cm_finish plan_tool(struct cm_run *run, struct demo *d, int choice)
{
    const struct cm_chat *chat = cm_run_chat(run);
    const struct cm_msg *last = &chat->msgs[chat->n_msgs - 1];
    const struct cm_tool *tool = chosen_tool(chat);
    struct cm_arena *arena = cm_run_arena(run);
    char id[CM_ID_CAP];

    for (size_t i = 0; i < last->n_parts; i++) {
        if (last->parts[i].kind == CM_PART_TOOL_RESULT) {
            plan_text(run, d, CM_EVENT_TEXT, choice, last->parts[i].text);
            return CM_FINISH_STOP;
        }
    }
    if (!tool) {
        plan_text(run, d, CM_EVENT_TEXT, choice, CM_S("The request has no tools that I may call."));
        return CM_FINISH_STOP;
    }
    cm_id_make(id, "call_", cm_run_unix_ms(run));
    plan(run, d,
         (struct cm_event){.kind = CM_EVENT_TOOL_CALL,
                           .choice = choice,
                           .id = cm_arena_str(arena, cm_str_of(id)),
                           .name = tool->name});
    plan_text(run, d, CM_EVENT_TOOL_ARGS, choice, example_arguments(arena, tool->parameters));
    return CM_FINISH_TOOL_CALLS;
}

static struct cm_str question(struct cm_run *run)
{
    const struct cm_msg *last = cm_chat_last(cm_run_chat(run), CM_ROLE_USER);

    if (cm_run_chat(run)->task == CM_TASK_IMAGE)
        return cm_run_chat(run)->media.prompt;
    return last ? cm_msg_text(cm_run_arena(run), last) : CM_STR_NONE;
}

/* A blue pixel. */
#define PIXEL                                                                                      \
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mPQz78HAAJNAX0mh+/CAAAAAElFTkSuQmCC"

static enum cm_finish plan_choice(struct cm_run *run, struct demo *d, enum demo_model model,
                                  struct cm_str text, int choice)
{
    if (model == DEMO_TOOL)
        return plan_tool(run, d, choice);
    if (model == DEMO_REASONING || cm_run_target(run)->thinking)
        plan_text(run, d, CM_EVENT_REASONING, choice,
                  cm_arena_printf(cm_run_arena(run),
                                  "The user wrote %zu characters. I will say them back.",
                                  cm_utf8_count(text)));
    if (model == DEMO_IMAGE)
        plan(run, d,
             (struct cm_event){.kind = CM_EVENT_IMAGE,
                               .choice = choice,
                               .text = CM_S("a blue pixel"),
                               .url = CM_S("data:image/png;base64," PIXEL)});
    else
        plan_text(run, d, CM_EVENT_TEXT, choice, text.n > 0 ? text : CM_S("Hello from chatmux."));
    return CM_FINISH_STOP;
}

/* As many pictures as were asked for, as bytes. */
static void plan_images(struct cm_run *run, struct demo *d)
{
    const struct cm_chat *chat = cm_run_chat(run);

    for (int64_t i = 0; i < chat->n; i++)
        plan(run, d,
             (struct cm_event){.kind = CM_EVENT_IMAGE,
                               .text = CM_S("a blue pixel"),
                               .name = CM_S("a blue pixel"),
                               .media_type = CM_S("image/png"),
                               .data = CM_S(PIXEL)});
    plan(run, d, (struct cm_event){.kind = CM_EVENT_FINISH, .finish = CM_FINISH_STOP});
}

static void plan_answer(struct cm_run *run, struct demo *d, enum demo_model model)
{
    const struct cm_chat *chat = cm_run_chat(run);
    const struct cm_str text = question(run);

    d->usage.source = CM_USAGE_ESTIMATED;
    d->usage.in_uncached = cm_chat_estimate_tokens(chat);
    for (int choice = 0; choice < chat->n; choice++) {
        const enum cm_finish finish = plan_choice(run, d, model, text, choice);

        if (choice == chat->n - 1)
            plan(run, d, (struct cm_event){.kind = CM_EVENT_USAGE, .usage = &d->usage});
        plan(run, d,
             (struct cm_event){.kind = CM_EVENT_FINISH, .choice = choice, .finish = finish});
    }
}

/* ---- Failing ---- */

static bool is_class_char(char c)
{
    return (c >= 'a' && c <= 'z') || c == '_';
}

/* The first word of the text that is the name of an error class. */
static enum cm_err_class named_class(struct cm_str text)
{
    static const enum cm_err_class classes[] = {
#define X(name, ...) CM_ERR_##name,
        CM_ERR_MAP(X)
#undef X
    };

    for (size_t i = 0; i < text.n;) {
        size_t n = 0;

        while (i + n < text.n && is_class_char(text.p[i + n]))
            n++;
        for (size_t k = 0; k < CM_COUNT(classes); k++) {
            if (cm_str_eq(cm_str(text.p + i, n), cm_str_of(cm_err_info(classes[k])->name)))
                return classes[k];
        }
        i += n + 1;
    }
    return CM_ERR_UPSTREAM_DOWN;
}

static enum cm_step fail(struct cm_run *run, struct cm_err *err)
{
    const enum cm_err_class cls = named_class(question(run));

    cm_fail(err, cls, "demo-error was asked to fail: %s", cm_err_info(cls)->name);
    if (cls == CM_ERR_RATE_LIMITED)
        err->retry_after_s = 7;
    return CM_STEP_FAIL;
}

/* ---- Saying ---- */

#define TURN_BYTES (64 * 1024) /* said in one go, so that a slow client can pause us */

/* A word with the white space behind it, or an equal share; never a part of a character. */
static size_t piece_length(struct cm_str rest, size_t pieces_left)
{
    size_t n = 0;

    if (pieces_left > 0) {
        n = (rest.n + pieces_left - 1) / pieces_left;
        while (n < rest.n && ((unsigned char)rest.p[n] & 0xc0) == 0x80)
            n++;
        return n;
    }
    while (n < rest.n && rest.p[n] != ' ' && rest.p[n] != '\n')
        n++;
    while (n < rest.n && (rest.p[n] == ' ' || rest.p[n] == '\n'))
        n++;
    return n;
}

/* The next event, which is a piece where the plan has a text. Cut only now: a long text in words
 * would be a plan of many times its size. */
static struct cm_event take_event(struct demo *d, size_t pieces)
{
    struct cm_event ev = d->plan[d->next];
    const struct cm_str rest = cm_str_from(ev.text, d->said_bytes);
    const size_t pieces_left = pieces > d->said_pieces ? pieces - d->said_pieces : pieces > 0;

    if (ev.kind == CM_EVENT_TEXT || ev.kind == CM_EVENT_REASONING ||
        ev.kind == CM_EVENT_TOOL_ARGS) {
        ev.text = cm_str_head(rest, piece_length(rest, pieces_left));
        if (ev.text.n < rest.n) {
            d->said_bytes += ev.text.n;
            d->said_pieces++;
            return ev;
        }
    }
    d->next++;
    d->said_bytes = d->said_pieces = 0;
    return ev;
}

static enum cm_step say(struct cm_run *run, struct demo *d)
{
    const int64_t chunk_ms = options_of(run)->chunk_ms;
    size_t said = 0;

    while (d->next < d->n && said < TURN_BYTES) {
        const struct cm_event ev = take_event(d, (size_t)options_of(run)->chunks);

        cm_run_emit(run, &ev);
        said += ev.text.n + ev.url.n + ev.data.n;
        if (chunk_ms > 0 && d->next < d->n && cm_event_semantic(&d->plan[d->next]))
            return cm_run_sleep(run, chunk_ms);
    }
    return d->next < d->n ? cm_run_sleep(run, 0) : CM_STEP_DONE;
}

static enum demo_model model_of(const struct cm_run *run)
{
    const struct cm_model_row *row = cm_run_target(run)->row;

    return row ? (enum demo_model)row->number : DEMO_ECHO;
}

static enum cm_step step(struct cm_run *run, const struct cm_ev *ev, struct cm_err *err)
{
    struct demo *d = cm_run_state(run);

    if (ev->kind == CM_EV_STOP)
        return CM_STEP_DONE;
    if (ev->kind == CM_EV_FAILED) {
        *err = *ev->err;
        return CM_STEP_FAIL;
    }
    switch (d->state) {
    case DEMO_START:
        if (cm_run_chat(run)->untranslatable.cls != CM_ERR_NONE) {
            *err = cm_run_chat(run)->untranslatable;
            return CM_STEP_FAIL;
        }
        d->state = DEMO_SAY;
        if (options_of(run)->delay_ms > 0)
            return cm_run_sleep(run, options_of(run)->delay_ms);
        break;
    case DEMO_SAY:
        break;
    }
    if (d->n == 0) {
        if (model_of(run) == DEMO_ERROR)
            return fail(run, err);
        if (cm_run_chat(run)->task == CM_TASK_IMAGE)
            plan_images(run, d);
        else
            plan_answer(run, d, model_of(run));
    }
    return say(run, d);
}

const struct cm_provider cm_provider_demo = {
    .name = "demo",
    .help = "answers by itself, for trying things out",
    .base_url = "",
    .options = options,
    .models = models,
    .n_models = CM_COUNT(models),
    .keyless = true,
    .tasks = CM_TASK_BIT(CHAT) | CM_TASK_BIT(IMAGE),
    .configure = configure,
    .chat = {.step = step, .state_size = sizeof(struct demo), .state_name = state_name},
};
