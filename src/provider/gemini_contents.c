/* The conversation as contents that take turns. Wire facts: Gemini protocol notes, sections 2 and 5.
 *
 * What one side says in several messages becomes one content; the results of a turn's calls stand alone in one, in the order of the calls; what such a
 * result holds besides text follows in a content of its own. */
#include "gemini_int.h"

#define SKIP_SIGNATURE "skip_thought_signature_validator"

void gemini_key(struct cm_buf *out, const char *name)
{
    if (out->n > 0 && out->p[out->n - 1] != '{' && out->p[out->n - 1] != '[')
        cm_buf_put(out, ',');
    cm_json_put_z(out, name);
    cm_buf_put(out, ':');
}

void gemini_element(struct cm_buf *out)
{
    if (out->n > 0 && out->p[out->n - 1] != '[')
        cm_buf_put(out, ',');
}

static bool is_blank(struct cm_str text)
{
    return cm_str_trim(text).n == 0;
}

void gemini_keep_signature(struct cm_run *run, struct cm_str call_id, struct cm_str signature)
{
    cm_run_keep(run, call_id, signature);
}

/* ---- one content after the other ---- */

static void close_content(struct gemini_writer *w)
{
    if (w->turn != GEMINI_NOBODY)
        cm_buf_append(w->out, CM_S("]}"));
    w->turn = GEMINI_NOBODY;
}

/* A new content when somebody else speaks now. */
static void speak(struct gemini_writer *w, enum gemini_turn turn)
{
    if (w->turn == turn && turn != GEMINI_RESULTS) {
        gemini_element(w->out);
        return;
    }
    close_content(w);
    if (!w->any && turn == GEMINI_MODEL) { /* a conversation begins with the user */
        cm_buf_append(w->out, CM_S("{\"role\":\"user\",\"parts\":[{\"text\":\".\"}]}"));
        w->any = true;
    }
    gemini_element(w->out);
    cm_buf_append(w->out, turn == GEMINI_MODEL ? CM_S("{\"role\":\"model\",\"parts\":[")
                                               : CM_S("{\"role\":\"user\",\"parts\":["));
    w->turn = turn;
    w->any = true;
    w->n_calls = 0;
}

static void put_text(struct gemini_writer *w, enum gemini_turn turn, struct cm_str text)
{
    if (is_blank(text))
        return;
    speak(w, turn);
    cm_buf_append(w->out, CM_S("{\"text\":"));
    cm_json_put_str(w->out, text);
    cm_buf_put(w->out, '}');
}

static int refuse_part(struct gemini_writer *w, const char *what)
{
    cm_fail_param(w->err, CM_ERR_BAD_REQUEST, "messages", "%s cannot be sent to this model", what);
    cm_str_copy(w->err->code, sizeof(w->err->code), CM_S("unsupported_content"));
    return -1;
}

/* "wav" -> "audio/wav"; a whole type stays. */
static struct cm_str blob_type(struct cm_arena *arena, const struct cm_part *part)
{
    struct cm_str type = part->media_type;

    if (cm_str_eq_nocase(type, CM_S("image/jpg")))
        return CM_S("image/jpeg");
    if (part->kind == CM_PART_AUDIO && !cm_str_has(type, CM_S("/")))
        return cm_arena_printf(arena, "audio/" CM_PRI, CM_ARG(type));
    return type;
}

static int put_blob(struct gemini_writer *w, const struct cm_part *part)
{
    const struct cm_attached *fetched = cm_attach_find(w->attached, part);
    struct cm_part whole = *part;

    if (fetched) {
        whole.media_type = fetched->media_type;
        whole.data = fetched->data;
    }
    if (whole.data.n == 0)
        return refuse_part(w, part->id.n > 0 ? "A file id of another provider"
                                             : "A picture or file without data");
    if (whole.media_type.n == 0)
        return refuse_part(w, "A file without a media type");
    speak(w, GEMINI_USER);
    cm_buf_append(w->out, CM_S("{\"inlineData\":{\"mimeType\":"));
    cm_json_put_str(w->out, blob_type(cm_run_arena(w->run), &whole));
    cm_buf_append(w->out, CM_S(",\"data\":"));
    cm_json_put_str(w->out, whole.data);
    cm_buf_append(w->out, CM_S("}}"));
    return 0;
}

/* Arguments are an object, whatever text came: "" has none, and what is no object is told as it is. */
static void put_args(struct cm_buf *out, struct cm_str text)
{
    yyjson_doc *doc = cm_json_parse(text, &cm_json_limits_event, NULL);
    yyjson_val *root = yyjson_doc_get_root(doc);

    if (yyjson_is_obj(root)) {
        cm_json_put_val(out, root);
    } else if (is_blank(text) || yyjson_is_null(root)) {
        cm_buf_append(out, CM_S("{}"));
    } else {
        cm_buf_append(out, CM_S("{\"raw\":"));
        cm_json_put_str(out, text);
        cm_buf_put(out, '}');
    }
    yyjson_doc_free(doc);
}

/* The signature that came with the call; where it is lost, the first call of a step says so. */
static struct cm_str signature_of(struct gemini_writer *w, const struct cm_part *call, bool first)
{
    struct cm_str kept;

    if (cm_run_kept(w->run, call->id, &kept))
        return kept;
    return first && w->traits->signatures ? CM_S(SKIP_SIGNATURE) : CM_STR_NONE;
}

static void put_call(struct gemini_writer *w, const struct cm_part *call)
{
    struct cm_str signature;

    speak(w, GEMINI_MODEL);
    signature = signature_of(w, call, w->n_calls++ == 0);
    cm_buf_append(w->out, CM_S("{\"functionCall\":{\"name\":"));
    cm_json_put_str(w->out, call->name);
    cm_buf_append(w->out, CM_S(",\"args\":"));
    put_args(w->out, call->text);
    cm_buf_put(w->out, '}');
    if (signature.n > 0) {
        gemini_key(w->out, "thoughtSignature");
        cm_json_put_str(w->out, signature);
    }
    cm_buf_put(w->out, '}');
}

static void put_model(struct gemini_writer *w, const struct cm_msg *msg)
{
    for (size_t i = 0; i < msg->n_parts; i++) {
        const struct cm_part *p = &msg->parts[i];

        switch (p->kind) {
        case CM_PART_TEXT:
        case CM_PART_REFUSAL:
            put_text(w, GEMINI_MODEL, p->text);
            break;
        case CM_PART_TOOL_CALL:
            put_call(w, p);
            break;
        case CM_PART_REASONING: /* thoughts are not sent back */
        case CM_PART_IMAGE:
        case CM_PART_AUDIO:
        case CM_PART_FILE:
        case CM_PART_TOOL_RESULT:
            break;
        }
    }
}

static int put_user(struct gemini_writer *w, const struct cm_part *parts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct cm_part *p = &parts[i];

        switch (p->kind) {
        case CM_PART_TEXT:
            put_text(w, GEMINI_USER, p->text);
            break;
        case CM_PART_IMAGE:
        case CM_PART_AUDIO:
        case CM_PART_FILE:
            if (put_blob(w, p))
                return -1;
            break;
        case CM_PART_REFUSAL:
        case CM_PART_REASONING:
        case CM_PART_TOOL_CALL:
        case CM_PART_TOOL_RESULT: /* those of its kind stand in messages of their own */
            break;
        }
    }
    return 0;
}

/* ---- results of calls ---- */

static bool is_results(const struct cm_msg *msg)
{
    for (size_t i = 0; i < msg->n_parts; i++) {
        if (msg->parts[i].kind == CM_PART_TOOL_RESULT)
            return true;
    }
    return false;
}

/* Of the messages first … end-1 the result of that call; the latest, if there are several. */
static const struct cm_part *result_of(const struct gemini_writer *w, size_t first, size_t end,
                                       struct cm_str id)
{
    const struct cm_part *found = NULL;

    for (size_t i = first; i < end; i++) {
        const struct cm_msg *msg = &w->chat->msgs[i];

        for (size_t k = 0; k < msg->n_parts; k++) {
            if (msg->parts[k].kind == CM_PART_TOOL_RESULT && cm_str_eq(msg->parts[k].id, id))
                found = &msg->parts[k];
        }
    }
    return found;
}

static void put_result(struct gemini_writer *w, const struct cm_part *call,
                       const struct cm_part *result)
{
    cm_buf_append(w->out, CM_S("{\"functionResponse\":{\"name\":"));
    cm_json_put_str(w->out, call->name);
    cm_buf_append(w->out, CM_S(",\"response\":{"));
    gemini_key(w->out, !result || result->failed ? "error" : "output");
    cm_json_put_str(w->out, result ? result->text : CM_S("the call was not answered"));
    cm_buf_append(w->out, CM_S("}}}"));
}

/* Calls of the messages first … end-1, the last turn of the model, each with its result among the messages end … stop-1. Whatever a result holds besides
 * text follows in a content of its own. */
static int put_results(struct gemini_writer *w, size_t first, size_t end, size_t stop)
{
    bool any = false;

    for (size_t i = first; i < end; i++) {
        const struct cm_msg *msg = &w->chat->msgs[i];

        for (size_t k = 0; k < msg->n_parts; k++) {
            if (msg->parts[k].kind != CM_PART_TOOL_CALL)
                continue;
            if (!any)
                speak(w, GEMINI_RESULTS);
            any = true;
            gemini_element(w->out);
            put_result(w, &msg->parts[k], result_of(w, end, stop, msg->parts[k].id));
        }
    }
    if (any)
        close_content(w);
    for (size_t i = end; i < stop; i++) {
        const struct cm_msg *msg = &w->chat->msgs[i];

        for (size_t k = 0; k < msg->n_parts; k++) {
            const struct cm_part *p = &msg->parts[k];

            if (p->kind == CM_PART_TOOL_RESULT && !any)
                return refuse_part(w, "A tool's result without its call");
            for (size_t m = 0; p->kind == CM_PART_TOOL_RESULT && m < p->n_parts; m++) {
                if (p->parts[m].kind != CM_PART_TEXT && put_user(w, &p->parts[m], 1))
                    return -1;
            }
        }
    }
    return 0;
}

/* ---- the conversation ---- */

static bool is_system(const struct cm_msg *msg)
{
    return msg->role == CM_ROLE_SYSTEM || msg->role == CM_ROLE_DEVELOPER;
}

/* A turn of the model, and the results of its calls; returns the next message, or SIZE_MAX. */
static size_t put_step(struct gemini_writer *w, size_t i)
{
    const struct cm_chat *chat = w->chat;
    size_t end = i, stop;
    bool calls = false;

    for (; end < chat->n_msgs &&
           (chat->msgs[end].role == CM_ROLE_ASSISTANT || is_system(&chat->msgs[end]));
         end++) {
        if (is_system(&chat->msgs[end]))
            continue;
        put_model(w, &chat->msgs[end]);
        for (size_t k = 0; k < chat->msgs[end].n_parts; k++)
            calls |= chat->msgs[end].parts[k].kind == CM_PART_TOOL_CALL;
    }
    for (stop = end; stop < chat->n_msgs &&
                     (chat->msgs[stop].role == CM_ROLE_TOOL || is_results(&chat->msgs[stop]));
         stop++)
        ;
    if ((calls || stop > end) && put_results(w, i, end, stop))
        return SIZE_MAX;
    for (size_t k = end; k < stop; k++) { /* what was said beside the results */
        if (put_user(w, chat->msgs[k].parts, chat->msgs[k].n_parts))
            return SIZE_MAX;
    }
    return stop;
}

int gemini_put_contents(struct gemini_writer *w)
{
    const struct cm_chat *chat = w->chat;
    size_t i = 0;

    gemini_key(w->out, "contents");
    cm_buf_put(w->out, '[');
    while (i < chat->n_msgs) {
        const struct cm_msg *msg = &chat->msgs[i];

        if (is_system(msg)) {
            i++;
        } else if (msg->role == CM_ROLE_USER && !is_results(msg)) {
            if (put_user(w, msg->parts, msg->n_parts))
                return -1;
            i++;
        } else {
            i = put_step(w, i);
            if (i == SIZE_MAX)
                return -1;
        }
    }
    /* nothing but system texts, or the last word was the model's: older models refuse both */
    if (!w->any || w->turn == GEMINI_MODEL)
        put_text(w, GEMINI_USER, CM_S("."));
    close_content(w);
    cm_buf_put(w->out, ']');
    return 0;
}

void gemini_put_system(struct gemini_writer *w)
{
    struct cm_buf joined = {0};

    for (size_t i = 0; i < w->chat->n_msgs; i++) {
        const struct cm_msg *msg = &w->chat->msgs[i];

        for (size_t k = 0; is_system(msg) && k < msg->n_parts; k++) {
            if (is_blank(msg->parts[k].text))
                continue;
            if (joined.n > 0)
                cm_buf_append(&joined, CM_S("\n\n"));
            cm_buf_append(&joined, msg->parts[k].text);
        }
    }
    if (joined.n > 0) {
        gemini_key(w->out, "systemInstruction");
        cm_buf_append(w->out, CM_S("{\"parts\":[{\"text\":"));
        cm_json_put_str(w->out, cm_buf_str(&joined));
        cm_buf_append(w->out, CM_S("}]}"));
    }
    cm_buf_clear(&joined);
}

/* The prompt and the pictures to work on, as one message. */
int gemini_put_drawing(struct gemini_writer *w)
{
    const struct cm_media *media = &w->chat->media;

    gemini_key(w->out, "contents");
    cm_buf_put(w->out, '[');
    if (put_user(w, media->images, media->n_images) || (media->mask && put_user(w, media->mask, 1)))
        return -1;
    if (media->mask)
        put_text(w, GEMINI_USER, CM_S("The last picture is a mask: change only what it marks."));
    put_text(w, GEMINI_USER,
             media->prompt.n > 0 ? media->prompt : CM_S("Make a variation of this picture."));
    close_content(w);
    cm_buf_put(w->out, ']');
    return 0;
}
