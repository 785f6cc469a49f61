/* Requests that are forms: the fields of image edits and variations, and what all forms have in
 * common. */
#include "chatmux/surface/surface.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/utf8.h"
#include "fields_int.h"
#include "openai_media_int.h"

#define IMAGES_MAX 16

static bool is_text(struct cm_str s)
{
    return cm_utf8_valid(s) == s.n;
}

/* A field with a text; one that occurs twice is refused, as in JSON, and so is what is no UTF-8. Absent: *out stays. */
static int text_field(const struct cm_form *form, const char *name, struct cm_str *out,
                      struct cm_err *err)
{
    bool seen = false;

    for (size_t i = 0; i < form->n; i++) {
        if (!cm_str_eq(form->fields[i].name, cm_str_of(name)))
            continue;
        if (seen)
            return cm_field_fail(err, CM_SPOT(NULL, name), "duplicate_parameter",
                                 "The parameter '%s' occurs more than once.", name);
        seen = true;
        if (!is_text(form->fields[i].data))
            return cm_field_fail(err, CM_SPOT(NULL, name), "invalid_value",
                                 "The parameter '%s' is not valid UTF-8.", name);
        *out = form->fields[i].data;
    }
    return 0;
}

int cm_openai_form(struct cm_chat *chat, enum cm_chat_task task, struct cm_str body,
                   const char *otherwise, struct cm_form *form, struct cm_err *err)
{
    const struct cm_spot *at = CM_SPOT(NULL, "model");
    struct cm_str stream = CM_STR_NONE;

    cm_chat_begin(chat, CM_DIALECT_OPENAI_CHAT, task, body);
    if (cm_form_parse(chat->arena, chat->content_type, body, form, err) ||
        text_field(form, "model", &chat->form.model, err) ||
        text_field(form, "stream", &stream, err))
        return -1;
    chat->form.boundary = form->boundary;
    chat->form.begins = form->begins;
    chat->model = chat->form.model.p ? chat->form.model : cm_str_of(otherwise);
    chat->stream = cm_str_eq_nocase(stream, CM_S("true")) || cm_str_eq(stream, CM_S("1"));
    return chat->model.n > 0 ? 0 : cm_field_missing(err, at);
}

static int read_number(const struct cm_form *form, struct cm_chat *chat, struct cm_err *err)
{
    struct cm_str n = CM_STR_NONE;
    uint64_t value;

    if (text_field(form, "n", &n, err))
        return -1;
    if (n.n == 0)
        return 0;
    if (!cm_str_to_u64(n, 10, &value) || value == 0)
        return cm_field_wrong_value(err, CM_SPOT(NULL, "n"), n, "1 to 10");
    chat->n = (int64_t)value;
    return 0;
}

/* "image", "image[]", "image[0]" */
static bool names_image(struct cm_str name)
{
    return cm_str_eq(name, CM_S("image")) || cm_str_starts(name, CM_S("image["));
}

/* Many clients send no media type, or one that says nothing. */
static struct cm_str media_type(const struct cm_form_field *f)
{
    if (cm_str_starts_nocase(f->media_type, CM_S("image/")) && is_text(f->media_type))
        return f->media_type;
    if (cm_str_starts(f->data, CM_S("\xff\xd8\xff")))
        return CM_S("image/jpeg");
    if (cm_str_starts(f->data, CM_S("RIFF")))
        return CM_S("image/webp");
    return cm_str_starts(f->data, CM_S("GIF8")) ? CM_S("image/gif") : CM_S("image/png");
}

static struct cm_part picture(const struct cm_form_field *f)
{
    return (struct cm_part){.kind = CM_PART_IMAGE,
                            .name = is_text(f->file) ? f->file : CM_STR_NONE,
                            .media_type = media_type(f),
                            .text = f->data};
}

static int read_pictures(const struct cm_form *form, struct cm_chat *chat, struct cm_err *err)
{
    struct cm_media *m = &chat->media;
    const struct cm_form_field *mask = cm_form_find(form, CM_S("mask"));

    m->images = CM_ARENA_ARRAY(chat->arena, struct cm_part, IMAGES_MAX);
    for (size_t i = 0; i < form->n; i++) {
        if (!names_image(form->fields[i].name))
            continue;
        if (m->n_images == IMAGES_MAX)
            return cm_field_fail(err, CM_SPOT(NULL, "image"), "array_above_max_length",
                                 "There may be at most %d pictures.", IMAGES_MAX);
        m->images[m->n_images++] = picture(&form->fields[i]);
    }
    if (mask) {
        m->mask = CM_ARENA_NEW(chat->arena, struct cm_part);
        *m->mask = picture(mask);
    }
    return m->n_images > 0 ? 0 : cm_field_missing(err, CM_SPOT(NULL, "image"));
}

static int read_media(const struct cm_form *form, struct cm_chat *chat, struct cm_err *err)
{
    struct cm_media *m = &chat->media;
    const struct {
        const char *name;
        struct cm_str *out;
    } texts[] = {
        {"prompt", &m->prompt},         {"size", &m->size},
        {"quality", &m->quality},       {"aspect_ratio", &m->aspect_ratio},
        {"background", &m->background}, {"output_format", &m->output_format},
        {"user", &chat->user},
    };
    struct cm_str answer_form = CM_STR_NONE;

    for (size_t i = 0; i < CM_COUNT(texts); i++)
        if (text_field(form, texts[i].name, texts[i].out, err))
            return -1;
    if (text_field(form, "response_format", &answer_form, err) ||
        cm_openai_media_form(answer_form, &m->response_format, err) || read_number(form, chat, err))
        return -1;
    return read_pictures(form, chat, err);
}

/* Newer models take JSON, too, with addresses instead of files. */
static int parse_edit_json(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    if (cm_openai_media_json(chat, CM_TASK_IMAGE_EDIT, body, err))
        return -1;
    if (chat->media.n_images == 0)
        cm_openai_only_relayed(chat);
    return 0;
}

static int parse_edit(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    struct cm_form form;

    if (cm_str_starts_nocase(chat->content_type, CM_S("application/json")))
        return parse_edit_json(chat, body, err);
    if (cm_openai_form(chat, CM_TASK_IMAGE_EDIT, body, NULL, &form, err) ||
        read_media(&form, chat, err))
        return -1;
    return chat->media.prompt.n > 0 ? 0 : cm_field_missing(err, CM_SPOT(NULL, "prompt"));
}

static int parse_variation(struct cm_chat *chat, struct cm_str body, struct cm_err *err)
{
    struct cm_form form;

    /* the one model that has ever made any */
    if (cm_openai_form(chat, CM_TASK_IMAGE_VARIATION, body, "dall-e-2", &form, err))
        return -1;
    return read_media(&form, chat, err);
}

const struct cm_surface cm_surface_openai_image_edits =
    CM_OPENAI_MEDIA_SURFACE(IMAGE_EDIT, "img-", parse_edit, cm_openai_media_whole);
const struct cm_surface cm_surface_openai_image_variations =
    CM_OPENAI_MEDIA_SURFACE(IMAGE_VARIATION, "img-", parse_variation, cm_openai_media_whole);
