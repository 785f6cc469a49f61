/* The master key: where it comes from, and whether it is the one that the database was encrypted with.
 *
 * Sources, the first that is there: store.master_key, store.master_key_file, the systemd credential, a file beside the database. Only the last two
 * kinds of file are ours to replace (not the systemd credential). Replacing: NAME.new is written, the database is encrypted anew, NAME.new becomes
 * NAME. Whoever finds a key that does not fit and a NAME.new that does was interrupted in between, and renames. */
#include "store_int.h"

#include "chatmux/base/enc.h"
#include "chatmux/base/log.h"
#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_FILE "master.key"
#define SYSTEMD_CREDENTIAL "chatmux-master-key"
#define KEY_TEXT_MAX 4096
#define CHECK_TEXT "chatmux master key"

#define WHAT_IS_LOST                                                                               \
    "Lost with it: stored credentials, refreshed tokens, proxy passwords. Not lost: client "       \
    "keys, usage, request log, credentials of the configuration"

int cm_master_derive(struct cm_aead_key *key, struct cm_str text, struct cm_err *err)
{
    return cm_aead_derive(key, text, CM_S("store"), err);
}

void cm_master_make(char out[CM_MASTER_TEXT_CAP])
{
    unsigned char raw[CM_AEAD_KEY_SIZE];
    struct cm_buf hex = {0};

    cm_rand_bytes(raw, sizeof(raw));
    cm_hex(&hex, cm_str((const char *)raw, sizeof(raw)));
    cm_str_copy(out, CM_MASTER_TEXT_CAP, cm_buf_str(&hex));
    cm_wipe(hex.p, hex.n);
    cm_buf_clear(&hex);
    cm_wipe(raw, sizeof(raw));
}

struct cm_str cm_master_seal_check(const struct cm_aead_key *key,
                                   unsigned char buf[CM_MASTER_CHECK_CAP])
{
    cm_aead_seal(key, CM_S("meta/key_check"), CM_S(CHECK_TEXT), buf);
    return cm_str((const char *)buf, CM_S(CHECK_TEXT).n + CM_AEAD_OVERHEAD);
}

bool cm_master_fits(const struct cm_aead_key *key, struct cm_str check)
{
    unsigned char text[CM_MASTER_CHECK_CAP];

    return check.n <= sizeof(text) && cm_aead_open(key, CM_S("meta/key_check"), check, text) == 0 &&
           cm_str_eq(cm_str((const char *)text, check.n - CM_AEAD_OVERHEAD), CM_S(CHECK_TEXT));
}

/* 0, or -1; ENOENT in *missing when there is no such file. */
static int read_key(const char *path, struct cm_aead_key *key, bool *missing, struct cm_err *err)
{
    char text[KEY_TEXT_MAX + 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
    size_t n = 0;
    ssize_t got = 0;
    struct stat st;

    *missing = fd < 0 && errno == ENOENT;
    if (fd < 0)
        return cm_fail(err, CM_ERR_CONFIG, "cannot read the master key file %s: %s", path,
                       strerror(errno));
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 077) != 0)
        cm_warn("store", "the master key file %s can be read by others: chmod 600 it", path);
    while (n < sizeof(text) && (got = read(fd, text + n, sizeof(text) - n)) > 0)
        n += (size_t)got;
    if (got < 0) {
        rc = cm_fail(err, CM_ERR_CONFIG, "cannot read the master key file %s: %s", path,
                     strerror(errno));
    } else if (n > KEY_TEXT_MAX) {
        rc = cm_fail(err, CM_ERR_CONFIG, "%s is no master key file: it has more than %d bytes",
                     path, KEY_TEXT_MAX);
    } else {
        struct cm_err why = {0};

        rc = cm_master_derive(key, cm_str_trim(cm_str(text, n)), &why);
        if (rc < 0)
            cm_fail(err, CM_ERR_CONFIG, "%s: %s", path, why.msg);
    }
    close(fd);
    cm_wipe(text, sizeof(text));
    return rc;
}

static char *with_suffix(const char *path)
{
    struct cm_buf b = {0};

    cm_buf_printf(&b, "%s.new", path);
    return b.p;
}

/* A replacement that was interrupted between the database and the file. */
static bool finish_replacement(struct cm_master *m, struct cm_str check)
{
    char *fresh = with_suffix(m->file);
    struct cm_aead_key key;
    bool missing, fits = read_key(fresh, &key, &missing, NULL) == 0 && cm_master_fits(&key, check);

    if (fits) {
        struct cm_err err = {0};

        m->key = key;
        cm_warn("store", "the key in %s fits and that in %s does not: taking the new one", fresh,
                m->file);
        if (cm_rename_file(fresh, m->file, &err) < 0)
            cm_warn("store", "%s", err.msg);
    }
    cm_wipe(&key, sizeof(key));
    free(fresh);
    return fits;
}

static int make_key_file(struct cm_master *m, struct cm_err *err)
{
    char text[CM_MASTER_TEXT_CAP + 1];
    int rc;

    cm_master_make(text);
    rc = cm_master_derive(&m->key, cm_str_of(text), err);
    text[CM_MASTER_TEXT_CAP - 1] = '\n';
    if (rc == 0)
        rc = cm_write_file(m->file, cm_str(text, CM_MASTER_TEXT_CAP), err);
    cm_wipe(text, sizeof(text));
    if (rc == 0)
        cm_info("store",
                "made a master key in %s: keep a copy of it elsewhere; beside the database it "
                "protects nothing in a copy of the whole directory",
                m->file);
    return rc;
}

static bool may_replace(const char *path)
{
    char *dir = cm_parent_of(path);
    bool may = faccessat(AT_FDCWD, dir, W_OK, AT_EACCESS) == 0;

    free(dir);
    return may;
}

/* The file beside the database; made when the database is new. */
static int take_key_file(struct cm_master *m, const char *db_name, struct cm_str check,
                         struct cm_err *err)
{
    bool missing;

    if (read_key(m->file, &m->key, &missing, err) == 0)
        return 0;
    if (missing && check.n == 0)
        return make_key_file(m, err);
    if (missing && finish_replacement(m, check))
        return 0;
    if (!missing)
        return -1;
    return cm_fail(
        err, CM_ERR_CONFIG,
        "the master key of %s is missing: put %s back, or set store.master_key. " WHAT_IS_LOST,
        db_name, m->file);
}

int cm_master_find(struct cm_master *m, const struct cm_store_setup *setup, const char *dir,
                   const char *db_name, struct cm_str check, struct cm_err *err)
{
    const char *credentials = getenv("CREDENTIALS_DIRECTORY");
    struct cm_err why = {0};
    bool missing = true;
    int rc = 0;

    *m = (struct cm_master){0};
    if (setup->master_key.n > 0) {
        m->source = cm_strdup("store.master_key");
        rc = cm_master_derive(&m->key, setup->master_key, &why);
        if (rc < 0)
            cm_fail(err, CM_ERR_CONFIG, "store.master_key: %s", why.msg);
    } else if (setup->master_key_file.n > 0) {
        m->file = cm_str_dup(setup->master_key_file);
        rc = read_key(m->file, &m->key, &missing, err);
        if (!may_replace(m->file)) { /* /etc, for example */
            m->source = m->file;
            m->file = NULL;
        }
    } else {
        if (credentials) {
            m->source = cm_path_join(cm_str_of(credentials), CM_S(SYSTEMD_CREDENTIAL));
            rc = read_key(m->source, &m->key, &missing, err);
        }
        if (missing) { /* no credential of ours among systemd's */
            free(m->source), m->source = NULL;
            m->file = cm_path_join(cm_str_of(dir), CM_S(KEY_FILE));
            rc = take_key_file(m, db_name, check, err);
        }
    }
    if (!m->source)
        m->source = cm_strdup(m->file);
    if (rc == 0 && check.n > 0 && !cm_master_fits(&m->key, check) &&
        !(m->file && finish_replacement(m, check)))
        rc = cm_fail(err, CM_ERR_CONFIG,
                     "%s was encrypted with another master key than that of %s: give the right "
                     "one back. " WHAT_IS_LOST,
                     db_name, m->source);
    if (rc < 0)
        cm_master_clear(m);
    return rc;
}

int cm_master_prepare(const struct cm_master *m, struct cm_str text, struct cm_err *err)
{
    char *fresh = with_suffix(m->file);
    struct cm_buf line = {0};
    int rc;

    cm_buf_reserve(&line, text.n + 1);
    cm_buf_append(&line, text);
    cm_buf_put(&line, '\n');
    rc = cm_write_file(fresh, cm_buf_str(&line), err);
    cm_wipe(line.p, line.n);
    cm_buf_clear(&line);
    free(fresh);
    return rc;
}

int cm_master_replace(const struct cm_master *m, struct cm_err *err)
{
    char *fresh = with_suffix(m->file);
    int rc = cm_rename_file(fresh, m->file, err);

    free(fresh);
    return rc;
}

void cm_master_clear(struct cm_master *m)
{
    cm_wipe(&m->key, sizeof(m->key));
    free(m->source), m->source = NULL;
    free(m->file), m->file = NULL;
}
