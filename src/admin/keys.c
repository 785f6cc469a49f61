/* /admin/api/keys: who may use the gateway, and how much. */
#include "admin_int.h"

#include "chatmux/base/clock.h"
#include "chatmux/base/crypto.h"
#include "chatmux/base/mem.h"

#define PAGE_DEFAULT 1000
#define PAGE_MAX 10000

/* ---- finding ---- */

struct wanted {
    uint64_t id; /* 0 = by digest */
    const unsigned char *digest;
    const struct cm_key *found;
};

static void is_wanted(void *arg, const struct cm_key *key)
{
    struct wanted *w = arg;
    const struct cm_key_row *row = cm_key_row(key);

    if (w->id ? row->id == w->id : memcmp(row->digest, w->digest, sizeof(row->digest)) == 0)
        w->found = key; /* stored ones come last */
}

const struct cm_key *keys_by_id(struct cm_keys *keys, uint64_t id)
{
    struct wanted w = {.id = id};

    cm_keys_each(keys, is_wanted, &w);
    return w.found;
}

const struct cm_key *keys_by_secret(struct cm_keys *keys, struct cm_str secret)
{
    unsigned char digest[CM_SHA256_SIZE];
    struct wanted w = {.digest = digest};

    cm_sha256(secret, digest);
    cm_keys_each(keys, is_wanted, &w);
    return w.found;
}

/* ---- answers ---- */

static void put_key(struct cm_buf *out, const struct cm_key *key, struct cm_str secret)
{
    struct cm_key_limits limits;

    cm_key_limits(key, &limits);
    key_write(out, cm_key_row(key), &limits, secret);
}

static void answer_key(struct cm_admin *admin, struct cm_web *web, int status, uint64_t id,
                       struct cm_str secret)
{
    const struct cm_key *key = keys_by_id(cm_gateway_keys(admin->gw), id);
    struct cm_buf out = {0};

    if (!key) {
        answer_missing(web, "key",
                       cm_arena_printf(cm_web_arena(web), "%llu", (unsigned long long)id));
        return;
    }
    put_key(&out, key, secret);
    answer_json(web, status, &out);
}

struct page {
    struct cm_buf out;
    uint64_t after,
        last; /* ids; those of the configuration have none and stand on the first page */
    int64_t left;
    bool some, more;
};

static void list_one(void *arg, const struct cm_key *key)
{
    struct page *p = arg;
    uint64_t id = cm_key_row(key)->id;

    if (p->after > 0 && id <= p->after)
        return;
    if (id > 0 && p->left <= 0) {
        p->more = true;
        return;
    }
    if (p->some)
        cm_buf_put(&p->out, ',');
    put_key(&p->out, key, CM_STR_NONE);
    p->some = true;
    p->last = id;
    p->left--;
}

void keys_list(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_str cursor = cm_web_query(web, CM_S("cursor")), next = CM_STR_NONE;
    struct cm_err err = {0};
    struct page p = {0};

    if (cursor.n > 0 && !id_parse(cursor, &p.after))
        cm_fail_param(&err, CM_ERR_BAD_REQUEST, "cursor",
                      "cursor must be the \"next\" of the page before");
    if (err.cls != CM_ERR_NONE ||
        query_int(web, "limit", PAGE_DEFAULT, PAGE_MAX, &p.left, &err) < 0) {
        cm_web_fail(web, &err);
        return;
    }
    list_begin(&p.out);
    cm_keys_each(cm_gateway_keys(admin->gw), list_one, &p);
    if (p.more)
        next = cm_arena_printf(cm_web_arena(web), "%llu", (unsigned long long)p.last);
    list_end(&p.out, next);
    answer_json(web, 200, &p.out);
}

void keys_get(void *arg, struct cm_web *web)
{
    uint64_t id = segment_id(web, "key");

    if (id)
        answer_key(arg, web, 200, id, CM_STR_NONE);
}

/* ---- changes ---- */

/* A stored twin of a configured key is welcome: it gives that one limits. */
static int take_free(struct cm_admin *admin, struct cm_key_row *row, struct cm_arena *arena,
                     struct cm_str secret, struct cm_err *err)
{
    const struct cm_key *twin;

    if (cm_key_take(row, arena, secret, err) < 0)
        return -1;
    twin = keys_by_secret(cm_gateway_keys(admin->gw), secret);
    if (twin && cm_key_row(twin)->id != 0 && cm_key_row(twin)->id != row->id)
        return cm_fail_param(err, CM_ERR_BAD_REQUEST, "key",
                             "this key is there already, as \"" CM_PRI "\"",
                             CM_ARG(cm_key_row(twin)->name));
    return 0;
}

static int read_settings(const struct body *body, struct cm_key_row *row, struct cm_err *err)
{
    const struct value *v;

    if ((v = body_get(body, "name"))) {
        row->name = cm_str_trim(v->s);
        if (row->name.n == 0)
            return cm_fail_param(err, CM_ERR_BAD_REQUEST, "name", "the name is empty");
    }
    if ((v = body_get(body, "models")))
        row->models = v->s;
    row->rpm = body_int(body, "rpm", row->rpm);
    row->tpm = body_int(body, "tpm", row->tpm);
    row->max_parallel = body_int(body, "max_parallel", row->max_parallel);
    row->budget_micro_usd = body_int(body, "budget_usd", row->budget_micro_usd);
    if ((v = body_get(body, "budget_period")))
        row->budget_period = v->s;
    if ((v = body_get(body, "expires"))) {
        row->expires_s = v->i / 1000;
        if (!v->null && v->i < 1000)
            return cm_fail_param(err, CM_ERR_BAD_REQUEST, "expires", "expires must be after 1970");
    }
    if ((v = body_get(body, "enabled")))
        row->enabled = v->b;
    return 0;
}

static void on_created(void *arg, uint64_t id, const struct cm_err *err)
{
    struct task *t = arg;

    if (err)
        cm_web_fail(t->web, err);
    else
        answer_key(t->admin, t->web, 201, id, t->text);
}

static void on_changed(void *arg, uint64_t id, const struct cm_err *err)
{
    struct task *t = arg;

    if (err)
        cm_web_fail(t->web, err);
    else
        answer_key(t->admin, t->web, 200, id, CM_STR_NONE);
}

void keys_create(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_arena *arena = cm_web_arena(web);
    struct cm_key_row row = {
        .budget_period = CM_S("total"), .enabled = true, .created_s = cm_unix_ms() / 1000};
    struct task *t = task_new(admin, web);
    struct cm_err err = {0};
    struct body body;
    char made[CM_KEY_TEXT_CAP];

    if (body_read(&body, arena, cm_web_body(web), "KeyNew", &err) == 0 &&
        read_settings(&body, &row, &err) == 0) {
        if (body_get(&body, "key")) {
            t->text = body_str(&body, "key");
        } else {
            cm_key_make(made);
            t->text = cm_arena_str(arena, cm_str_of(made));
            cm_wipe(made, sizeof(made));
        }
        if (take_free(admin, &row, arena, t->text, &err) == 0) {
            cm_gateway_put_key(admin->gw, &row, on_created, t);
            return;
        }
    }
    cm_web_fail(web, &err);
}

void keys_patch(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    struct cm_arena *arena = cm_web_arena(web);
    uint64_t id = segment_id(web, "key");
    const struct cm_key *key;
    struct cm_key_row row;
    struct cm_err err = {0};
    struct body body;

    if (!id)
        return;
    key = keys_by_id(cm_gateway_keys(admin->gw), id);
    if (!key) {
        answer_key(admin, web, 200, id, CM_STR_NONE);
        return;
    }
    row = *cm_key_row(key);
    if (body_read(&body, arena, cm_web_body(web), "KeyChange", &err) < 0 ||
        read_settings(&body, &row, &err) < 0 ||
        (body_get(&body, "key") && take_free(admin, &row, arena, body_str(&body, "key"), &err) < 0))
        cm_web_fail(web, &err);
    else
        cm_gateway_put_key(admin->gw, &row, on_changed, task_new(admin, web));
}

void keys_delete(void *arg, struct cm_web *web)
{
    struct cm_admin *admin = arg;
    uint64_t id = segment_id(web, "key");

    if (!id)
        return;
    if (!keys_by_id(cm_gateway_keys(admin->gw), id))
        answer_key(admin, web, 200, id, CM_STR_NONE);
    else
        cm_gateway_delete_key(admin->gw, id, task_deleted, task_new(admin, web));
}
