/* hixai2api's tables: api_keys, cookies, chats. Facts: hix protocol notes, section on its tables. */
#include "import_int.h"

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

struct reading {
    struct cm_import *im;
    struct cm_arena scratch; /* of one row; secret */
    size_t keys_cap, creds_cap;
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

static void take_cookie(struct reading *r, const struct import_row *row)
{
    struct cm_import *im = r->im;
    struct cm_str secret, remark = CM_STR_NONE;

    if (!import_text(&r->scratch, row, "cookie", &secret) || cm_str_trim(secret).n == 0) {
        im->unusable++;
        return;
    }
    (void)import_text(&r->scratch, row, "remark", &remark);
    im->creds = grow(im, im->creds, im->n_creds, &r->creds_cap, sizeof(*im->creds));
    im->creds[im->n_creds++] =
        (struct cm_import_cred){.secret = kept(r, secret),
                                .label = kept(r, remark),
                                .created_s = import_time(&r->scratch, row, "create_time")};
}

static int take_row(void *arg, const struct import_row *row, struct cm_err *err)
{
    struct reading *r = arg;

    if (r->im->n_keys + r->im->n_creds >= ROWS_MAX)
        return cm_fail(err, CM_ERR_BAD_REQUEST, "more than %u rows", ROWS_MAX);
    if (cm_str_eq_nocase(row->table, CM_S("api_keys")))
        take_key(r, row);
    else if (cm_str_eq_nocase(row->table, CM_S("cookies")))
        take_cookie(r, row);
    else if (cm_str_eq_nocase(row->table, CM_S("chats")))
        r->im->chats++;
    cm_arena_clear(&r->scratch);
    return 0;
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
    if (rc == 0 && im->n_keys + im->n_creds + im->chats + im->unusable == 0)
        rc = cm_fail(err, CM_ERR_BAD_REQUEST,
                     "there is nothing of hixai2api in it: no rows of api_keys, cookies or chats");
    if (rc < 0)
        cm_import_clear(im);
    return rc;
}
