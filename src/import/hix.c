/* hixai2api's tables: api_keys, cookies, chats. Facts: hix protocol notes, section on its tables. */
#include "import_int.h"

#include "chatmux/base/crypto.h"
#include "chatmux/base/map.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROWS_MAX 1000000u
#define WORD_MAX 200 /* bytes of a model's or a chat's name */
#define DIGEST_SIZE (2 * CM_SHA256_SIZE)

struct reading {
    struct cm_import *im;
    struct cm_arena scratch; /* of one row; secret */
    size_t keys_cap, creds_cap, chats_cap, hashes_cap;
    struct cm_str *hashes; /* of the cookies of im->chats, as the table says */
    struct cm_map cookies; /* text -> itself: each cookie is kept once, however many chats it has */
    struct cm_map by_hash; /* "cookie_hash" of the table of cookies -> the cookie */
};

void cm_import_clear(struct cm_import *im)
{
    cm_arena_clear(&im->arena);
    *im = (struct cm_import){0};
}

/* Room for one more of `n`; arrays live in the arena, and the old one stays until its end. */
static void *grow(struct cm_import *im, void *old, size_t n, size_t *cap, size_t size)
{
    void *bigger;

    if (n < *cap)
        return old;
    *cap = *cap ? 2 * *cap : 64;
    bigger = cm_arena_calloc(&im->arena, *cap, size);
    if (n > 0)
        memcpy(bigger, old, n * size);
    return bigger;
}

static struct cm_str kept(struct reading *r, struct cm_str s)
{
    return cm_arena_str(&r->im->arena, cm_str_trim(s));
}

static void take_key(struct reading *r, const struct import_row *row)
{
    struct cm_import *im = r->im;
    struct cm_str secret, remark = CM_STR_NONE;

    if (!import_text(&r->scratch, row, "api_key", &secret) || cm_str_trim(secret).n == 0) {
        im->unusable++;
        return;
    }
    (void)import_text(&r->scratch, row, "remark", &remark);
    im->keys = grow(im, im->keys, im->n_keys, &r->keys_cap, sizeof(*im->keys));
    im->keys[im->n_keys++] =
        (struct cm_import_key){.secret = kept(r, secret),
                               .name = kept(r, remark),
                               .created_s = import_time(&r->scratch, row, "create_time")};
}

/* The one slice of this cookie. */
static struct cm_str *cookie_of(struct reading *r, struct cm_str text)
{
    struct cm_str *known;

    text = cm_str_trim(text);
    known = cm_map_get(&r->cookies, text);
    if (!known) {
        known = CM_ARENA_NEW(&r->im->arena, struct cm_str);
        *known = cm_arena_str(&r->im->arena, text);
        cm_map_put(&r->cookies, *known, known);
    }
    return known;
}

static void note_cookie(struct reading *r, const struct import_row *row, struct cm_str secret)
{
    struct cm_str hash;

    if (import_text(&r->scratch, row, "cookie_hash", &hash) && hash.n > 0)
        cm_map_put(&r->by_hash, cm_arena_str(&r->im->arena, hash), cookie_of(r, secret));
}

static void take_cookie(struct reading *r, const struct import_row *row)
{
    struct cm_import *im = r->im;
    struct cm_str secret, remark = CM_STR_NONE;

    if (!import_text(&r->scratch, row, "cookie", &secret) || cm_str_trim(secret).n == 0) {
        im->unusable++;
        return;
    }
    (void)import_text(&r->scratch, row, "remark", &remark);
    note_cookie(r, row, secret);
    im->creds = grow(im, im->creds, im->n_creds, &r->creds_cap, sizeof(*im->creds));
    im->creds[im->n_creds++] =
        (struct cm_import_cred){.secret = *cookie_of(r, secret),
                                .label = kept(r, remark),
                                .created_s = import_time(&r->scratch, row, "create_time")};
}

/* One word of a list that a gateway is sent. */
static bool is_word(struct cm_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f)
            return false;
    return s.n > 0 && s.n <= WORD_MAX;
}

static bool is_digest(struct cm_str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!s.p[i] || !strchr("0123456789abcdef", s.p[i]))
            return false;
    return s.n == DIGEST_SIZE;
}

/* What a client writes behind a model's name is no part of it. */
static struct cm_str bare_model(struct cm_str model)
{
    static const char *const behind[] = {"-search", "-news", "-academic"};

    for (size_t i = 0; i < CM_COUNT(behind); i++)
        if (cm_str_ends(model, cm_str_of(behind[i])))
            return cm_str_head(model, model.n - strlen(behind[i]));
    return model;
}

/* Whose it is may be told by a digest of the cookie only, and the cookies may come later. */
static void take_chat(struct reading *r, const struct import_row *row)
{
    struct cm_import *im = r->im;
    struct cm_str model, chat, name, cookie = CM_STR_NONE, hash = CM_STR_NONE;
    int64_t used_s;

    (void)import_text(&r->scratch, row, "cookie", &cookie);
    (void)import_text(&r->scratch, row, "cookie_hash", &hash);
    if (!import_text(&r->scratch, row, "model", &model) ||
        !import_text(&r->scratch, row, "hix_chat_id", &chat) || !is_word(bare_model(model)) ||
        !is_word(chat) || !import_text(&r->scratch, row, "last_messages_pair_sha256_hash", &name) ||
        !is_digest(name)) {
        im->unusable++;
        return;
    }
    used_s = import_time(&r->scratch, row, "update_time");
    if (used_s == 0)
        used_s = import_time(&r->scratch, row, "create_time");
    r->hashes = grow(im, r->hashes, im->n_chats, &r->hashes_cap, sizeof(*r->hashes));
    r->hashes[im->n_chats] = kept(r, hash);
    im->chats = grow(im, im->chats, im->n_chats, &r->chats_cap, sizeof(*im->chats));
    im->chats[im->n_chats++] = (struct cm_import_chat){
        .secret = cm_str_trim(cookie).n > 0 ? *cookie_of(r, cookie) : CM_STR_NONE,
        .model = kept(r, bare_model(model)),
        .name = kept(r, name),
        .chat = kept(r, chat),
        .used_s = used_s};
}

static int take_row(void *arg, const struct import_row *row, struct cm_err *err)
{
    struct reading *r = arg;

    if (r->im->n_keys + r->im->n_creds + r->im->n_chats >= ROWS_MAX)
        return cm_fail(err, CM_ERR_BAD_REQUEST, "more than %u rows", ROWS_MAX);
    if (cm_str_eq_nocase(row->table, CM_S("api_keys")))
        take_key(r, row);
    else if (cm_str_eq_nocase(row->table, CM_S("cookies")))
        take_cookie(r, row);
    else if (cm_str_eq_nocase(row->table, CM_S("chats")))
        take_chat(r, row);
    cm_arena_clear(&r->scratch);
    return 0;
}

static void find_cookies(struct reading *r)
{
    struct cm_import *im = r->im;
    const size_t n = im->n_chats;

    im->n_chats = 0;
    for (size_t i = 0; i < n; i++) {
        struct cm_import_chat c = im->chats[i];
        const struct cm_str *known = cm_map_get(&r->by_hash, r->hashes[i]);

        if (c.secret.n == 0 && known)
            c.secret = *known;
        if (c.secret.n > 0)
            im->chats[im->n_chats++] = c;
        else
            im->unusable++;
    }
}

static int by_use(const void *a, const void *b)
{
    const struct cm_import_chat *x = a, *y = b;

    if (x->used_s != y->used_s)
        return x->used_s < y->used_s ? -1 : 1;
    return x->chat.n == y->chat.n ? memcmp(x->chat.p, y->chat.p, x->chat.n)
                                  : (x->chat.n < y->chat.n ? -1 : 1);
}

/* Each chat once, as it was used last; and none with a name that another has as well. */
static void sort_chats(struct cm_import *im)
{
    struct cm_map seen = {0}, names = {0};
    const size_t n = im->n_chats;
    char *drop = cm_calloc(n + 1, 1);

    if (n > 0)
        qsort(im->chats, n, sizeof(*im->chats), by_use);
    for (size_t i = n; i-- > 0;) { /* the latest first */
        struct cm_import_chat *c = &im->chats[i], *other;
        struct cm_str name =
            cm_arena_printf(&im->arena, CM_PRI " " CM_PRI, CM_ARG(c->model), CM_ARG(c->name));

        if (cm_map_get(&seen, c->chat)) {
            drop[i] = 1;
            continue;
        }
        cm_map_put(&seen, c->chat, c);
        other = cm_map_get(&names, name);
        if (!other) {
            cm_map_put(&names, name, c);
            continue;
        }
        im->unclear += drop[other - im->chats] ? 1 : 2;
        drop[i] = drop[other - im->chats] = 1;
    }
    im->n_chats = 0;
    for (size_t i = 0; i < n; i++)
        if (!drop[i])
            im->chats[im->n_chats++] = im->chats[i];
    cm_map_clear(&seen);
    cm_map_clear(&names);
    free(drop);
}

static int read_text(struct reading *r, struct cm_str text, struct cm_err *err)
{
    if (cm_str_starts(text, CM_S("\x1f\x8b")))
        return cm_fail(err, CM_ERR_BAD_REQUEST, "this is compressed: gunzip it first");
    if (cm_str_starts(text, CM_S("\xff\xfe")) || cm_str_starts(text, CM_S("\xfe\xff")))
        return cm_fail(
            err, CM_ERR_BAD_REQUEST,
            "this is UTF-16, as a redirection in PowerShell makes it: write the dump with "
            "--result-file");
    if (cm_str_starts(text, CM_S("\xEF\xBB\xBF")))
        text = cm_str_from(text, 3);
    return import_sql(text, take_row, r, err);
}

static int read_mapped(struct reading *r, const char *file, int fd, size_t n, struct cm_err *err)
{
    static const char *const tables[] = {"api_keys", "cookies", "chats", NULL};
    struct cm_str text;
    void *p = n > 0 ? mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    int rc;

    if (p == MAP_FAILED)
        return cm_fail(err, CM_ERR_IO, "%s", n > 0 ? strerror(errno) : "the file is empty");
    (void)madvise(p, n, MADV_DONTDUMP);
    text = cm_str(p, n);
    if (cm_str_starts(text, CM_S("SQLite format 3")))
        rc = import_sqlite(file, tables, take_row, r, err);
    else
        rc = read_text(r, text, err);
    munmap(p, n);
    return rc;
}

int cm_import_hixai2api(struct cm_import *im, const char *file, struct cm_err *err)
{
    struct reading r = {.im = im, .scratch = {.secret = true}};
    struct stat st;
    int fd = open(file, O_RDONLY | O_CLOEXEC), rc;

    *im = (struct cm_import){.arena = {.secret = true}, .type = "hix"};
    if (fd < 0 || fstat(fd, &st) < 0)
        rc = cm_fail(err, CM_ERR_IO, "%s", strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = cm_fail(err, CM_ERR_IO, "this is no file");
    else
        rc = read_mapped(&r, file, fd, (size_t)st.st_size, err);
    if (fd >= 0)
        close(fd);
    cm_arena_clear(&r.scratch);
    if (rc == 0) {
        find_cookies(&r);
        sort_chats(im);
    }
    cm_map_clear(&r.cookies);
    cm_map_clear(&r.by_hash);
    if (rc == 0 && im->n_keys + im->n_creds + im->n_chats + im->unclear + im->unusable == 0)
        rc = cm_fail(err, CM_ERR_BAD_REQUEST,
                     "there is nothing of hixai2api in it: no rows of api_keys, cookies or chats");
    if (rc < 0)
        cm_import_clear(im);
    return rc;
}
