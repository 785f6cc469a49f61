/* The images surface, and the video route that gateways of its kind have: a prompt in, addresses or
 * bytes of pictures out (OpenAI protocol notes, section 7).
 *
 * A stream has one event for each picture that is done; there are no partial ones, because no
 * platform that is translated for tells them. */
#include "chatmux/surface/surface.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"
#include "fields_int.h"
#include "openai_media_int.h"

#define MEMBERS(X)                                                                                 \
    X(model)                                                                                       \
    X(prompt)                                                                                      \
    X(n)                                                                                           \
    X(size)                                                                                        \
    X(aspect_ratio)                                                                                \
    X(quality)                                                                                     \
    X(style)                                                                                       \
    X(background)                                                                                  \
    X(output_format)                                                                               \
    X(response_format)                                                                             \
    X(image)                                                                                       \
    X(duration)                                                                                    \
    X(auto_prompt)                                                                                 \
    X(stream)                                                                                      \
    X(user)

enum member {
#define X(name) M_##name,
    MEMBERS(X)
#undef X
};

static const struct cm_str member_names[] = {
#define X(name) [M_##name] = CM_S_INIT(#name),
    MEMBERS(X)
#undef X
};

#define IMAGES_MAX 10 /* of one answer, and of those that come with the request */

static int read_texts(struct cm_chat *chat, yyjson_val **top, struct cm_err *err)
{
    struct cm_media *m = &chat->media;
    const struct {
        enum member member;
        struct cm_str *out;
    } texts[] = {
        {M_size, &m->size},
        {M_aspect_ratio, &m->aspect_ratio},
        {M_quality, &m->quality},
        {M_style, &m->style},
        {M_background, &m->background},
        {M_output_format, &m->output_format},
        {M_user, &chat->user},
    };
    struct cm_str form = CM_STR_NONE;

    for (size_t i = 0; i < CM_COUNT(texts); i++) {
        const enum member which = texts[i].member;

        if (cm_field_str(top[which], CM_SPOT(NULL, member_names[which].p), texts[i].out, err))
            return -1;
    }
    if (cm_field_str(top[M_response_format], CM_SPOT(NULL, "response_format"), &form, err))
        return -1;
    return cm_openai_media_form(form, &m->response_format, err);
}

/* One address, or a list of them. */
static int read_images(struct cm_chat *chat, yyjson_val *image, struct cm_err *err)
{
    const struct cm_spot *at = CM_SPOT(NULL, "image");
    const size_t count = yyjson_is_arr(image) ? yyjson_arr_size(image) : 1;
    struct cm_media *m = &chat->media;
    size_t i, max;
    yyjson_val *v;

    if (!image)
        return 0;
    if (!yyjson_is_str(image) && !yyjson_is_arr(image))
        return cm_field_wrong_type(err, at, "a string or an array of strings", image);
    if (count > IMAGES_MAX)
        return cm_field_fail(err, at, "array_above_max_length",
                             "Invalid 'image': expected at most %d pictures, but got %zu instead.",
                             IMAGES_MAX, count);
    m->images = CM_ARENA_ARRAY(chat->arena, struct cm_part, IMAGES_MAX);
    if (yyjson_is_str(image)) {
        if (yyjson_get_len(image) == 0) /* what forms send for "none" */
            return 0;
        m->images[m->n_images].kind = CM_PART_IMAGE;
        return cm_field_url(cm_json_str(image), at, &m->images[m->n_images++], err);
    }
    yyjson_arr_foreach(image, i, max, v)
    {
        if (!yyjson_is_str(v))
            return cm_field_wrong_type(err, CM_SPOT_AT(at, i), "a string", v);
        m->images[m->n_images].kind = CM_PART_IMAGE;
        if (cm_field_url(cm_json_str(v), CM_SPOT_AT(at, i), &m->images[m->n_images++], err))
            return -1;
    }
    return 0;
}

static int read_members(struct cm_chat *chat, yyjson_val **top, struct cm_err *err)
{
    struct cm_media *m = &chat->media;
    bool rewrite = false;

    if (cm_openai_model_member(chat, top[M_model], NULL, err) ||
        cm_field_need_str(top[M_prompt], CM_SPOT(NULL, "prompt"), &m->prompt, err) ||
        cm_field_int(top[M_n], CM_SPOT(NULL, "n"), 1, IMAGES_MAX, &chat->n, err) ||
        cm_field_int(top[M_duration], CM_SPOT(NULL, "duration"), 1, 3600, &m->duration_s, err) ||
        cm_field_bool(top[M_auto_prompt], CM_SPOT(NULL, "auto_prompt"), &rewrite, err) ||
        cm_field_bool(top[M_stream], CM_SPOT(NULL, "stream"), &chat->stream, err) ||
        read_texts(chat, top, err) || read_images(chat, top[M_image], err))
        return -1;
    if (top[M_auto_prompt])
        m->auto_prompt = rewrite;
    return m->prompt.n > 0 ? 0 : cm_field_missing(err, CM_SPOT(NULL, "prompt"));
}

int cm_openai_media_json(struct cm_chat *chat, enum cm_chat_task task, struct cm_str body,
                         struct cm_err *err)
{
    yyjson_val *top[CM_COUNT(member_names)];

    if (cm_field_body(chat, CM_DIALECT_OPENAI_CHAT, task, body, member_names,
                      CM_COUNT(member_names), top, err))
        return -1;
    return read_members(chat, top, err);
}

static int parse_images(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    return cm_openai_media_json(chat, CM_TASK_IMAGE, body, err);
}

static int parse_videos(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    if (cm_openai_media_json(chat, CM_TASK_VIDEO, body, err))
        return -1;
    chat->stream = false; /* one address at the end: there is nothing to stream */
    return 0;
}

/* ---- The answer ---- */

/* An address where one is wanted, else the bytes: whatever of them there is. */
static void put_source(struct cm_buf *out, const struct cm_image_acc *image,
                       enum cm_media_form wanted)
{
    struct cm_buf url = {0};

    if (image->data.n == 0) {
        cm_buf_append(out, CM_S("\"url\":"));
        cm_json_put_str(out, image->url);
    } else if (wanted == CM_MEDIA_URL) {
        cm_buf_printf(&url, "data:" CM_PRI ";base64,", CM_ARG(image->media_type));
        cm_buf_append(&url, image->data);
        cm_buf_append(out, CM_S("\"url\":"));
        cm_json_put_str(out, cm_buf_str(&url));
        cm_buf_clear(&url);
    } else {
        cm_buf_append(out, CM_S("\"b64_json\":"));
        cm_json_put_str(out, image->data);
    }
}

static void put_prompt(struct cm_buf *out, struct cm_str prompt)
{
    cm_buf_append(out, CM_S(",\"revised_prompt\":"));
    cm_json_put_str(out, prompt);
}

static void put_usage(struct cm_buf *out, const struct cm_usage *u)
{
    if (u->source != CM_USAGE_UPSTREAM)
        return; /* a guess in tokens says nothing about a picture */
    cm_buf_append(out, CM_S(",\"usage\":{\"input_tokens\":"));
    cm_json_put_int(out, cm_usage_in(u));
    cm_buf_append(out, CM_S(",\"output_tokens\":"));
    cm_json_put_int(out, cm_usage_out(u));
    cm_buf_append(out, CM_S(",\"total_tokens\":"));
    cm_json_put_int(out, cm_usage_in(u) + cm_usage_out(u));
    cm_buf_put(out, '}');
}

/* Clients of the gateways that have routes like these expect all three members. */
static void put_all(struct cm_buf *out, const struct cm_image_acc *made,
                    const struct cm_media *asked)
{
    const bool bytes = made->data.n > 0 && asked->response_format == CM_MEDIA_B64;

    if (bytes)
        cm_buf_append(out, CM_S("\"url\":\"\","));
    put_source(out, made, bytes ? CM_MEDIA_B64 : CM_MEDIA_URL);
    put_prompt(out, made->prompt.n > 0 ? made->prompt : asked->prompt);
    if (!bytes)
        cm_buf_append(out, CM_S(",\"b64_json\":\"\""));
}

static void put_made(struct cm_buf *out, const struct cm_image_acc *made,
                     const struct cm_media *asked)
{
    put_source(out, made, asked->response_format);
    if (made->prompt.n > 0)
        put_prompt(out, made->prompt);
}

void cm_openai_media_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                           struct cm_buf *out)
{
    cm_buf_append(out, CM_S("{\"created\":"));
    cm_json_put_int(out, meta->created_s);
    cm_buf_append(out, CM_S(",\"data\":["));
    for (size_t i = 0; i < answer->n_images; i++) {
        cm_buf_append(out, i > 0 ? CM_S(",{") : CM_S("{"));
        (meta->compat ? put_all : put_made)(out, &answer->images[i], &meta->chat->media);
        cm_buf_put(out, '}');
    }
    cm_buf_put(out, ']');
    if (meta->compat)
        cm_buf_append(out, CM_S(",\"dailyLimit\":false,\"suggestions\":null"));
    put_usage(out, &answer->usage);
    cm_buf_put(out, '}');
}

static void videos_whole(const struct cm_answer_meta *meta, const struct cm_answer *answer,
                         struct cm_buf *out)
{
    cm_buf_append(out, CM_S("{\"created\":"));
    cm_json_put_int(out, meta->created_s);
    cm_buf_append(out, CM_S(",\"data\":["));
    for (size_t i = 0; i < answer->n_images; i++) {
        cm_buf_append(out, i > 0 ? CM_S(",{") : CM_S("{"));
        put_all(out, &answer->images[i], &meta->chat->media);
        cm_buf_put(out, '}');
    }
    cm_buf_append(out, CM_S("]}"));
}

/* ---- The stream ---- */

void cm_openai_media_begin(void *state, const struct cm_answer_meta *meta, struct cm_buf *out)
{
    (void)out;
    ((struct cm_openai_media_stream *)state)->meta = *meta;
}

static void put_text(struct cm_buf *out, struct cm_str member, struct cm_str text)
{
    if (text.n == 0)
        return;
    cm_buf_append(out, member);
    cm_json_put_str(out, text);
}

void cm_openai_media_event(void *state, const struct cm_event *ev, struct cm_buf *out)
{
    const struct cm_openai_media_stream *st = state;
    const struct cm_media *m = &st->meta.chat->media;
    const char *kind =
        st->meta.chat->task == CM_TASK_IMAGE_EDIT ? "image_edit" : "image_generation";
    struct cm_image_acc image;

    if (ev->kind != CM_EVENT_IMAGE)
        return;
    cm_event_image(ev, &image);
    cm_buf_printf(
        out, "event: %s.completed\ndata: {\"type\":\"%s.completed\",\"created_at\":", kind, kind);
    cm_json_put_int(out, st->meta.created_s);
    cm_buf_put(out, ',');
    put_source(out, &image, m->response_format);
    put_text(out, CM_S(",\"revised_prompt\":"), image.prompt);
    put_text(out, CM_S(",\"size\":"), m->size);
    put_text(out, CM_S(",\"quality\":"), m->quality);
    put_text(out, CM_S(",\"background\":"), m->background);
    put_text(out, CM_S(",\"output_format\":"), m->output_format);
    cm_buf_append(out, CM_S("}\n\n"));
}

void cm_openai_media_end(void *state, const struct cm_usage *usage, struct cm_buf *out)
{
    (void)state;
    (void)usage;
    (void)out; /* no end mark in this dialect */
}

void cm_openai_media_clear(void *state)
{
    (void)state;
}

const struct cm_surface cm_surface_openai_images =
    CM_OPENAI_MEDIA_SURFACE(IMAGE, "img-", parse_images, cm_openai_media_whole);
const struct cm_surface cm_surface_openai_videos =
    CM_OPENAI_MEDIA_SURFACE(VIDEO, "vid-", parse_videos, videos_whole);
const struct cm_surface cm_surface_compat_images =
    CM_OPENAI_MEDIA_SURFACE_AS(IMAGE, "img-", parse_images, cm_openai_media_whole,
                               cm_compat_media_error, cm_compat_media_status);
const struct cm_surface cm_surface_compat_videos = CM_OPENAI_MEDIA_SURFACE_AS(
    VIDEO, "vid-", parse_videos, videos_whole, cm_compat_video_error, cm_compat_video_status);
