/* Masking: every part is known by its last bytes; at each place of a text it is asked whether a part ends there. */
#include "mask.h"

#include "chatmux/base/mem.h"
#include "chatmux/codec/json.h"

#include <stdlib.h>

#define TAIL 8 /* bytes: a shorter secret could be any word */
#define PART_MIN                                                                                   \
    12 /* of a value within: what is shorter, or has no digit or no letter, is a word or a number */
#define DEPTH_MAX 16 /* of JSON */

struct mask_part {
    struct mask_part *twin; /* another one with this tail */
    struct cm_str text;     /* borrowed */
};

static struct cm_str tail_of(struct cm_str text)
{
    return cm_str_from(text, text.n - TAIL);
}

/* ---- parts ---- */

static void put(struct mask_parts *parts, struct cm_str text)
{
    if (text.n < TAIL || parts->n == MASK_PARTS_MAX)
        return;
    if (!parts->v)
        parts->v = cm_calloc(MASK_PARTS_MAX, sizeof(struct mask_part));
    parts->v[parts->n++].text = text;
}

static bool is_plain(struct cm_str value)
{
    bool digit = false, letter = false;

    for (size_t i = 0; i < value.n; i++) {
        const char c = value.p[i];

        digit |= c >= '0' && c <= '9';
        letter |= (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    }
    return value.n < PART_MIN || !digit || !letter;
}

/* A value of `text` as it stands there; one with escapes stands there in another form and is left out. */
static void put_value(struct mask_parts *parts, struct cm_str text, struct cm_str value)
{
    size_t at = is_plain(value) ? SIZE_MAX : cm_str_find(text, value);

    if (at != SIZE_MAX)
        put(parts, cm_str_head(cm_str_from(text, at), value.n));
}

/* NOLINTNEXTLINE(misc-no-recursion): bounded */
static void put_json(struct mask_parts *parts, struct cm_str text, yyjson_val *v, unsigned depth)
{
    size_t i, n;
    yyjson_val *key, *value;

    if (yyjson_is_str(v)) {
        put_value(parts, text, cm_json_str(v));
    } else if (depth < DEPTH_MAX && yyjson_is_arr(v)) {
        yyjson_arr_foreach(v, i, n, value) put_json(parts, text, value, depth + 1);
    } else if (depth < DEPTH_MAX && yyjson_is_obj(v)) {
        yyjson_obj_foreach(v, i, n, key, value) put_json(parts, text, value, depth + 1);
    }
}

static void put_cookies(struct mask_parts *parts, struct cm_str text)
{
    struct cm_str rest = text;

    while (rest.n > 0) {
        struct cm_str value = cm_str_cut(&rest, ';');

        cm_str_cut(&value, '=');
        put_value(parts, text, cm_str_trim(value));
    }
}

static void put_secret(struct mask_parts *parts, struct cm_str text)
{
    yyjson_doc *doc = NULL;

    if (cm_str_starts(text, CM_S("{")) || cm_str_starts(text, CM_S("[")))
        doc = cm_json_parse(text, &cm_json_limits_event, NULL);
    if (doc) {
        put_json(parts, text, yyjson_doc_get_root(doc), 0);
    } else {
        put(parts, text);
        put_cookies(parts, text);
    }
    yyjson_doc_free(doc);
}

/* http://user:password@host */
static void put_password(struct mask_parts *parts, struct cm_str proxy)
{
    struct cm_str user;
    size_t at = cm_str_find(proxy, CM_S("://"));

    proxy = at == SIZE_MAX ? proxy : cm_str_from(proxy, at + 3);
    for (at = proxy.n; at > 0 && proxy.p[at - 1] != '@'; at--)
        ;
    if (at == 0)
        return;
    user = cm_str_head(proxy, at - 1);
    cm_str_cut(&user, ':');
    put(parts, user);
}

/* ---- all of them ---- */

void mask_add(struct mask *m, struct mask_parts *parts, struct cm_str secret, struct cm_str token,
              struct cm_str proxy)
{
    put_secret(parts, secret);
    put_secret(parts, token);
    put_password(parts, proxy);
    for (size_t i = 0; i < parts->n; i++) {
        struct mask_part *p = &parts->v[i];

        p->twin = cm_map_put(&m->tails, tail_of(p->text), p);
    }
}

static void remove_one(struct mask *m, struct mask_part *p)
{
    struct mask_part *at = cm_map_get(&m->tails, tail_of(p->text));

    if (!at) {
        return; /* all were cleared */
    } else if (at == p) {
        cm_map_del(&m->tails, tail_of(p->text));
        if (p->twin)
            cm_map_put(&m->tails, tail_of(p->twin->text), p->twin);
    } else {
        while (at->twin != p)
            at = at->twin;
        at->twin = p->twin;
    }
}

void mask_remove(struct mask *m, struct mask_parts *parts)
{
    for (size_t i = 0; i < parts->n; i++)
        remove_one(m, &parts->v[i]);
    free(parts->v);
    *parts = (struct mask_parts){0};
}

bool mask_finds(const struct mask *m, struct cm_str text)
{
    for (size_t end = TAIL; end <= text.n; end++) {
        const struct cm_str until = cm_str_head(text, end);

        for (const struct mask_part *p = cm_map_get(&m->tails, tail_of(until)); p; p = p->twin)
            if (cm_str_ends(until, p->text))
                return true;
    }
    return false;
}

void mask_clear(struct mask *m)
{
    cm_map_clear(&m->tails);
}
