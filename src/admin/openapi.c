/* /openapi.json, written from the tables of operations and shapes. */
#include "admin_int.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/version.h"

/* What the gateway serves by itself; a test holds it against its table of routes. Each is found without /v1, too. */
const struct op client_ops[] = {
    {"POST", "/v1/chat/completions", NULL, "Answer a conversation, as a whole or as a stream", NULL,
     "ChatRequest", "Object", 200, OP_CLIENT},
    {"POST", "/v1/responses", NULL, "The same in the dialect of OpenAI's Responses API", NULL,
     "Object", "Object", 200, OP_CLIENT},
    {"POST", "/v1/responses/input_tokens", NULL, "Count, or guess, the tokens of such a request",
     NULL, "Object", "Object", 200, OP_CLIENT},
    {"GET", "/v1/responses/{id}", NULL,
     "A response that is kept; with stream=true the events of a job in the background; {id} may be "
     "ID/input_items: what it was asked with",
     NULL, NULL, "Object", 200, OP_CLIENT},
    {"DELETE", "/v1/responses/{id}", NULL, "Forget a response", NULL, NULL, "Object", 200,
     OP_CLIENT},
    {"POST", "/v1/responses/{id}", NULL, "{id} is ID/cancel: end a response that is being made",
     NULL, NULL, "Object", 200, OP_CLIENT},
    {"POST", "/v1/completions", NULL, "Continue a text, as a whole or as a stream", NULL, "Object",
     "Object", 200, OP_CLIENT},
    {"POST", "/v1/embeddings", NULL, "A vector for each text", NULL, "Object", "Object", 200,
     OP_CLIENT},
    {"POST", "/v1/moderations", NULL, "Whether texts and pictures are harmful", NULL, "Object",
     "Object", 200, OP_CLIENT},
    {"POST", "/v1/images/generations", NULL, "Make pictures of a prompt", NULL, "Object", "Object",
     200, OP_CLIENT},
    {"POST", "/v1/images/edits", NULL, "Change pictures (multipart/form-data)", NULL, NULL,
     "Object", 200, OP_CLIENT},
    {"POST", "/v1/images/variations", NULL, "Vary a picture (multipart/form-data)", NULL, NULL,
     "Object", 200, OP_CLIENT},
    {"POST", "/v1/audio/speech", NULL, "Speak a text: bytes of sound", NULL, "Object",
     "application/octet-stream", 200, OP_CLIENT},
    {"POST", "/v1/audio/transcriptions", NULL, "Write down speech (multipart/form-data)", NULL,
     NULL, "Object", 200, OP_CLIENT},
    {"POST", "/v1/audio/translations", NULL, "Write down speech in English (multipart/form-data)",
     NULL, NULL, "Object", 200, OP_CLIENT},
    {"POST", "/v1/videos/generations", NULL, "Make a video of a prompt", NULL, "Object", "Object",
     200, OP_CLIENT},
    {"GET", "/v1/realtime", NULL,
     "A realtime session: a WebSocket (Connection: Upgrade, Upgrade: websocket, Sec-WebSocket-*), "
     "relayed both ways; 426 without the upgrade",
     "model", NULL, "Object", 101, OP_CLIENT},
    {"POST", "/v1/messages", NULL, "The same in Anthropic's dialect", NULL, "Object", "Object", 200,
     OP_CLIENT},
    {"POST", "/v1/messages/count_tokens", NULL, "Count, or guess, the tokens of such a request",
     NULL, "Object", "Object", 200, OP_CLIENT},
    {"POST", "/v1beta/models/{model}", NULL,
     "The same in Gemini's dialect: {model} is NAME:generateContent, :streamGenerateContent, "
     ":countTokens, :embedContent or :batchEmbedContents",
     NULL, "Object", "Object", 200, OP_CLIENT},
    {"GET", "/v1beta/models", NULL, "Every model, as Gemini lists them", NULL, NULL, "Object", 200,
     OP_CLIENT},
    {"GET", "/v1beta/models/{model}", NULL, "One model, likewise", NULL, NULL, "Object", 200,
     OP_CLIENT},
    {"POST", "/v1/models/{model}", NULL, "As below /v1beta", NULL, "Object", "Object", 200,
     OP_CLIENT},
    {"GET", "/v1/models", NULL, "Every model", NULL, NULL, "ModelList", 200, OP_CLIENT},
    {"GET", "/v1/models/{model}", NULL, "One model", NULL, NULL, "ListedModel", 200, OP_CLIENT},
    {"GET", "/v1/chatmux/streams/{stream}", NULL,
     "The events of a stream that was asked for with x-chatmux-resumable, after the one that "
     "Last-Event-ID (or starting_after) names",
     NULL, NULL, "text/event-stream", 200, OP_CLIENT},
    {"DELETE", "/v1/chatmux/streams/{stream}", NULL, "Cancel and forget it", NULL, NULL, "Object",
     200, OP_CLIENT},
    {"GET", "/healthz", NULL, "The process is alive", NULL, NULL, "text/plain", 200, OP_PUBLIC},
    {"GET", "/readyz", NULL, "It serves; 503 while it does not", NULL, NULL, "text/plain", 200,
     OP_PUBLIC},
    {"GET", "/metrics", NULL, "Figures for Prometheus", NULL, NULL, "text/plain", 200, OP_PUBLIC},
    {"HEAD", "/api/hello", NULL, "What some clients ask first", NULL, NULL, "text/plain", 200,
     OP_PUBLIC},
    {"GET", "/", NULL, "One line of text", NULL, NULL, "text/plain", 200, OP_PUBLIC},
};
const size_t client_ops_n = CM_COUNT(client_ops);

const struct field query_params[] = {
    {.name = "provider", .type = SHAPE_STR, .help = "only of this provider"},
    {.name = "limit", .type = SHAPE_INT, .min = 1, .max = 10000, .help = "of rows on a page"},
    {.name = "cursor", .type = SHAPE_STR, .help = "\"next\" of the page before"},
    {.name = "key", .type = SHAPE_STR, .help = "only of the key of this name"},
    {.name = "model", .type = SHAPE_STR, .help = "of this model"},
    {.name = "outcome",
     .type = SHAPE_WORD,
     .words = "ok|error|cut|client_gone",
     .help = "only those that ended so"},
    {.name = "from",
     .type = SHAPE_TIME,
     .help = "RFC 3339, or a date; 30 days before \"to\" unless told"},
    {.name = "to", .type = SHAPE_TIME, .help = "likewise; now unless told"},
    {.name = "by",
     .type = SHAPE_WORD,
     .words = "key|model|provider|credential|hour|day",
     .help = "day unless told"},
    {.name = "start_date",
     .type = SHAPE_STR,
     .help = "a date; the first of this month unless told"},
    {.name = "end_date", .type = SHAPE_STR, .help = "a date, counted in; today unless told"},
};
const size_t query_params_n = CM_COUNT(query_params);

static const char *const tags[] = {
    [OP_ADMIN] = "Admin", [OP_SEED] = "hixai2api", [OP_CLIENT] = "Clients", [OP_PUBLIC] = "Public"};

/* ---- schemas ---- */

static void put_ref(struct cm_buf *out, const char *shape)
{
    cm_buf_printf(out, "{\"$ref\":\"#/components/schemas/%s\"}", shape);
}

static void put_type(struct out *o, const char *type, bool nullable)
{
    if (!nullable) {
        out_str(o, "type", cm_str_of(type));
        return;
    }
    out_name(o, "type");
    cm_buf_printf(o->buf, "[\"%s\",\"null\"]", type);
}

static void put_words(struct out *o, const struct field *f)
{
    struct cm_str words = cm_str_of(f->words);
    bool some = false;

    put_type(o, "string", f->nullable);
    out_name(o, "enum");
    cm_buf_put(o->buf, '[');
    for (; words.n > 0; some = true) {
        if (some)
            cm_buf_put(o->buf, ',');
        cm_json_put_str(o->buf, cm_str_cut(&words, '|'));
    }
    cm_buf_append(o->buf, f->nullable ? CM_S(",null]") : CM_S("]"));
}

static void put_field_type(struct out *o, const struct field *f)
{
    switch (f->type) {
    case SHAPE_STR:
        put_type(o, "string", f->nullable);
        break;
    case SHAPE_WORD:
        put_words(o, f);
        break;
    case SHAPE_INT:
        put_type(o, "integer", f->nullable);
        if (f->max > 0) {
            out_int(o, "minimum", f->min);
            out_int(o, "maximum", f->max);
        }
        break;
    case SHAPE_USD:
    case SHAPE_NUMBER:
        put_type(o, "number", f->nullable);
        out_int(o, "minimum", 0);
        break;
    case SHAPE_BOOL:
        put_type(o, "boolean", f->nullable);
        break;
    case SHAPE_TIME:
        put_type(o, "string", f->nullable);
        out_str(o, "format", CM_S("date-time"));
        break;
    case SHAPE_STRS:
        put_type(o, "array", f->nullable);
        out_json(o, "items", CM_S("{\"type\":\"string\"}"));
        break;
    case SHAPE_ANY:
        put_type(o, "object", f->nullable);
        break;
    case SHAPE_ONE:
        out_name(o, "allOf");
        cm_buf_put(o->buf, '[');
        put_ref(o->buf, f->words);
        cm_buf_put(o->buf, ']');
        break;
    case SHAPE_MANY:
        put_type(o, "array", f->nullable);
        out_name(o, "items");
        put_ref(o->buf, f->words);
        break;
    }
}

static void put_field(struct cm_buf *out, const struct field *f)
{
    struct out o = out_begin(out);

    put_field_type(&o, f);
    if (f->help && *f->help)
        out_str(&o, "description", cm_str_of(f->help));
    out_end(&o);
}

/* A body takes no other members than the known ones; an answer may get more of them in a later version. */
static bool is_body(const struct shape *s)
{
    for (size_t i = 0; i < admin_ops_n; i++)
        if (admin_ops[i].body && strcmp(admin_ops[i].body, s->name) == 0)
            return true;
    return false;
}

static void put_required(struct out *o, const struct shape *s)
{
    bool some = false;

    for (size_t i = 0; i < s->n; i++) {
        if (!s->fields[i].required)
            continue;
        if (some)
            cm_buf_put(o->buf, ',');
        else
            out_json(o, "required", CM_S("["));
        cm_json_put_z(o->buf, s->fields[i].name);
        some = true;
    }
    if (some)
        cm_buf_put(o->buf, ']');
}

static void put_shape(struct cm_buf *out, const struct shape *s)
{
    struct out o = out_begin(out), members;

    out_str(&o, "type", CM_S("object"));
    if (s->n > 0) {
        put_required(&o, s);
        out_name(&o, "properties");
        members = out_begin(out);
        for (size_t i = 0; i < s->n; i++) {
            out_name(&members, s->fields[i].name);
            put_field(out, &s->fields[i]);
        }
        out_end(&members);
    }
    if (is_body(s) && !s->open)
        out_bool(&o, "additionalProperties", false);
    out_end(&o);
}

/* "Key", or "Key[]" for a page of a list */
static void put_answer_schema(struct cm_buf *out, const char *answer)
{
    struct cm_str name = cm_str_of(answer);

    if (!cm_str_ends(name, CM_S("[]"))) {
        put_ref(out, answer);
        return;
    }
    name.n -= 2;
    cm_buf_printf(
        out,
        "{\"type\":\"object\",\"required\":[\"data\",\"next\"],\"properties\":{"
        "\"data\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/components/schemas/" CM_PRI "\"}},"
        "\"next\":{\"type\":[\"string\",\"null\"],\"description\":\"cursor of the next page\"}}}",
        CM_ARG(name));
}

/* ---- operations ---- */

static void put_content(struct out *o, const char *media, const char *answer)
{
    out_name(o, "content");
    cm_buf_printf(o->buf, "{\"%s\":{\"schema\":", media);
    if (answer)
        put_answer_schema(o->buf, answer);
    else
        cm_buf_append(o->buf, CM_S("{\"type\":\"string\"}"));
    cm_buf_append(o->buf, CM_S("}}"));
}

static void param_begin(struct out *params, struct cm_str name, const char *in)
{
    struct out o;

    cm_buf_append(params->buf, params->some ? CM_S(",") : CM_S("["));
    params->some = true;
    o = out_begin(params->buf);
    out_str(&o, "name", name);
    out_str(&o, "in", cm_str_of(in));
    out_bool(&o, "required", *in == 'p'); /* path, not query */
}

static void put_query(struct out *params, const char *names)
{
    struct cm_str rest = cm_str_of(names);

    while (rest.n > 0) {
        struct cm_str name = cm_str_cut(&rest, ' ');
        size_t i = 0;

        while (i < query_params_n && !cm_str_eq(cm_str_of(query_params[i].name), name))
            i++;
        CM_ASSERT(i < query_params_n);
        param_begin(params, name, "query");
        cm_buf_append(params->buf, CM_S(",\"schema\":"));
        put_field(params->buf, &query_params[i]);
        cm_buf_put(params->buf, '}');
    }
}

static void put_params(struct out *o, const struct op *op)
{
    struct cm_str rest = cm_str_of(op->path);
    struct out params = {.buf = o->buf};

    if (!strchr(op->path, '{') && !op->query)
        return;
    out_name(o, "parameters");
    while (cm_str_find_char(rest, '{') != SIZE_MAX) {
        cm_str_cut(&rest, '{');
        param_begin(&params, cm_str_cut(&rest, '}'), "path");
        cm_buf_append(o->buf, CM_S(",\"schema\":{\"type\":\"string\"}}"));
    }
    put_query(&params, op->query);
    cm_buf_put(o->buf, ']');
}

static void put_body(struct out *o, const struct op *op)
{
    struct out body;
    bool needed = false;

    if (!op->body)
        return;
    for (size_t i = 0; i < shape_find(op->body)->n; i++)
        needed = needed || shape_find(op->body)->fields[i].required;
    out_name(o, "requestBody");
    body = out_begin(o->buf);
    out_bool(&body, "required", needed);
    put_content(&body, "application/json", op->body);
    out_end(&body);
}

static void put_answers(struct out *o, const struct op *op)
{
    bool text = strchr(op->answer, '/') != NULL;
    struct out answers, one;
    char status[16];

    out_name(o, "responses");
    answers = out_begin(o->buf);
    snprintf(status, sizeof(status), "%d", op->status);
    out_name(&answers, status);
    one = out_begin(o->buf);
    out_str(&one, "description", CM_S("fine"));
    if (strcmp(op->method, "HEAD") != 0 && op->status != 101)
        put_content(&one, text ? op->answer : "application/json", text ? NULL : op->answer);
    out_end(&one);
    if (op->access == OP_ADMIN || op->access == OP_CLIENT || op->access == OP_SEED) {
        out_name(&answers, "default");
        one = out_begin(o->buf);
        out_str(&one, "description", CM_S("refused"));
        put_content(&one, "application/json", op->access == OP_SEED ? "SeedAnswer" : "Error");
        out_end(&one);
    }
    out_end(&answers);
}

static void put_op(struct cm_buf *out, const struct op *op)
{
    struct out o = out_begin(out);

    out_str(&o, "summary", cm_str_of(op->summary));
    out_name(&o, "tags");
    cm_buf_printf(out, "[\"%s\"]", tags[op->access]);
    out_json(&o, "security",
             op->access == OP_PUBLIC   ? CM_S("[]")
             : op->access == OP_CLIENT ? CM_S("[{\"clientKey\":[]}]")
                                       : CM_S("[{\"adminSecret\":[]}]"));
    put_params(&o, op);
    put_body(&o, op);
    put_answers(&o, op);
    out_end(&o);
}

/* Operations of one path stand together, wherever they are in the table. */
static void put_paths(struct out *paths, const struct op *ops, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct out methods;
        bool again = false;

        for (size_t k = 0; k < i; k++)
            again = again || strcmp(ops[k].path, ops[i].path) == 0;
        if (again || ops[i].access == OP_ALIAS)
            continue;
        out_name(paths, ops[i].path);
        methods = out_begin(paths->buf);
        for (size_t k = i; k < n; k++) {
            char method[8] = "";

            if (strcmp(ops[k].path, ops[i].path) != 0)
                continue;
            for (size_t c = 0; ops[k].method[c] && c < sizeof(method) - 1; c++)
                method[c] = (char)(ops[k].method[c] | 0x20);
            out_name(&methods, method);
            put_op(paths->buf, &ops[k]);
        }
        out_end(&methods);
    }
}

void openapi_write(struct cm_buf *out, struct cm_str prefix)
{
    struct out o = out_begin(out), part, schemas;

    out_str(&o, "openapi", CM_S("3.1.0"));
    out_json(
        &o, "info",
        CM_S(
            "{\"title\":\"chatmux\",\"version\":\"" CM_VERSION
            "\",\"description\":\"Your chat accounts behind one "
            "OpenAI-compatible base URL. Every path below /v1 is found without it, too; GET answers HEAD.\"}"));
    out_name(&o, "servers");
    cm_buf_append(out, CM_S("[{\"url\":"));
    cm_json_put_str(out, prefix.n > 0 ? prefix : CM_S("/"));
    cm_buf_append(out, CM_S("}]"));
    out_name(&o, "paths");
    part = out_begin(out);
    put_paths(&part, client_ops, client_ops_n);
    put_paths(&part, admin_ops, admin_ops_n);
    out_end(&part);
    out_name(&o, "components");
    part = out_begin(out);
    out_json(
        &part, "securitySchemes",
        CM_S(
            "{\"clientKey\":{\"type\":\"http\",\"scheme\":\"bearer\",\"description\":\"a client key\"},"
            "\"adminSecret\":{\"type\":\"http\",\"scheme\":\"bearer\",\"description\":\"auth.admin_secret\"}}"));
    out_name(&part, "schemas");
    schemas = out_begin(out);
    for (size_t i = 0; i < shapes_n; i++) {
        out_name(&schemas, shapes[i].name);
        put_shape(out, &shapes[i]);
    }
    out_end(&schemas);
    out_end(&part);
    out_end(&o);
}
