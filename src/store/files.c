/* Files and folders of the store: private modes from the first moment, durable names. */
#include "store_int.h"

#include "chatmux/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

char *cm_path_join(struct cm_str dir, struct cm_str name)
{
    struct cm_buf b = {0};

    if (dir.n > 0 && !(name.n > 0 && name.p[0] == '/')) {
        cm_buf_append(&b, dir);
        if (dir.p[dir.n - 1] != '/')
            cm_buf_put(&b, '/');
    }
    cm_buf_append(&b, name);
    cm_buf_z(&b);
    return b.p;
}

/* A parent that may not be opened for reading (mode 0711) cannot be synced: then nothing is lost that we could have saved. */
static int sync_dir(const char *path, struct cm_err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 && errno == EACCES)
        return 0;
    if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL && errno != EROFS)) {
        int e = errno;

        if (fd >= 0)
            close(fd);
        return cm_fail(err, CM_ERR_IO, "cannot sync the directory %s: %s", path, strerror(e));
    }
    close(fd);
    return 0;
}

char *cm_parent_of(const char *path)
{
    struct cm_str s = cm_str_of(path);

    while (s.n > 1 && s.p[s.n - 1] == '/')
        s.n--;
    while (s.n > 0 && s.p[s.n - 1] != '/')
        s.n--;
    while (s.n > 1 && s.p[s.n - 1] == '/')
        s.n--;
    return s.n > 0 ? cm_str_dup(s) : cm_strdup(".");
}

int cm_sync_names(const char *path, struct cm_err *err)
{
    char *dir = cm_parent_of(path);
    int rc = sync_dir(dir, err);

    free(dir);
    return rc;
}

int cm_make_dir(const char *path, struct cm_err *err)
{
    struct stat st;
    char *parent;
    int rc;

    if (stat(path, &st) == 0)
        return S_ISDIR(st.st_mode)
                   ? 0
                   : cm_fail(err, CM_ERR_CONFIG,
                             "%s is not a directory: give store.state_dir another one", path);
    if (errno != ENOENT)
        return cm_fail(err, CM_ERR_IO, "cannot look at %s: %s", path, strerror(errno));
    parent = cm_parent_of(path);
    rc = cm_make_dir(parent, err);
    free(parent);
    if (rc < 0)
        return -1;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return cm_fail(err, CM_ERR_IO,
                       "cannot make the directory %s: %s; make it, owned by the user that chatmux "
                       "runs as, or set store.state_dir",
                       path, strerror(errno));
    return cm_sync_names(path, err);
}

int cm_make_file(const char *path, bool *made, struct cm_err *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

    *made = fd >= 0;
    if (fd < 0 && errno == EEXIST)
        return 0;
    if (fd < 0)
        return cm_fail(err, CM_ERR_IO,
                       "cannot create %s: %s; the user that chatmux runs as must be able to write "
                       "to its directory",
                       path, strerror(errno));
    close(fd);
    return cm_sync_names(path, err);
}

int cm_rename_file(const char *from, const char *to, struct cm_err *err)
{
    if (rename(from, to) < 0)
        return cm_fail(err, CM_ERR_IO, "cannot rename %s to %s: %s", from, to, strerror(errno));
    return cm_sync_names(to, err);
}

static int write_all(int fd, struct cm_str text)
{
    while (text.n > 0) {
        ssize_t n = write(fd, text.p, text.n);

        if (n < 0 && errno != EINTR)
            return -1;
        if (n > 0)
            text = cm_str_from(text, (size_t)n);
    }
    return fsync(fd);
}

int cm_write_file(const char *path, struct cm_str text, struct cm_err *err)
{
    struct cm_buf part = {0};
    int fd, e = 0, rc;

    cm_buf_printf(&part, "%s.part", path);
    unlink(part.p);
    fd = open(part.p, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || write_all(fd, text) < 0)
        e = errno;
    if (fd >= 0 && close(fd) < 0 && e == 0)
        e = errno;
    if (e != 0) {
        if (fd >= 0)
            unlink(part.p);
        rc = cm_fail(err, CM_ERR_IO, "cannot write %s: %s", path, strerror(e));
    } else {
        rc = cm_rename_file(part.p, path, err);
    }
    cm_buf_clear(&part);
    return rc;
}
