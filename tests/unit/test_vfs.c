/* The disk of test_vfs.h: an image in memory for each file, written through when it is synced. */
#include "test_vfs.h"

#include "chatmux/base/mem.h"
#include "chatmux/base/rand.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512

struct image { /* one for each path, shared by all handles on it; lives as long as the process */
    struct image *next;
    char *path;
    unsigned char *data;
    int64_t size, cap;
    int handles;
};

struct file {
    sqlite3_file base;
    struct image *image; /* NULL: a nameless temporary file, passed through */
    sqlite3_file *real;  /* behind this struct */
};

static struct {
    sqlite3_vfs vfs, *real;
    pthread_mutex_t mutex;
    struct image *images;
    int64_t calls, refuse_nth, crash_nth;
    int refuse_code;
    bool refuse_forever;
    uint64_t seed;
} disk = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* ---- images */

static void image_load(struct image *img)
{
    int fd = open(img->path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    img->size = 0;
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && st.st_size > 0) {
        img->data = cm_realloc(img->data, (size_t)st.st_size);
        img->cap = st.st_size;
        while (img->size < st.st_size) {
            ssize_t n =
                pread(fd, img->data + img->size, (size_t)(st.st_size - img->size), img->size);

            if (n <= 0)
                break;
            img->size += n;
        }
    }
    close(fd);
}

static struct image *image_of(const char *path)
{
    struct image *img = disk.images;

    while (img && strcmp(img->path, path) != 0)
        img = img->next;
    if (!img) {
        img = CM_NEW(struct image);
        img->path = cm_strdup(path);
        img->next = disk.images;
        disk.images = img;
    }
    return img;
}

static void image_resize(struct image *img, int64_t size)
{
    if (size > img->cap) {
        img->cap = size * 2;
        img->data = cm_realloc(img->data, (size_t)img->cap);
    }
    if (size > img->size)
        memset(img->data + img->size, 0, (size_t)(size - img->size));
    img->size = size;
}

static void write_real(const struct image *img, int64_t from, int64_t n)
{
    int fd = open(img->path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    while (n > 0) {
        ssize_t put = pwrite(fd, img->data + from, (size_t)n, from);

        CM_ASSERT(put > 0);
        from += put;
        n -= put;
    }
    close(fd);
}

static void image_sync(const struct image *img)
{
    write_real(img, 0, img->size);
    CM_ASSERT(truncate(img->path, img->size) == 0 || errno == ENOENT);
}

static void image_lose(const struct image *img, struct cm_rng *rng)
{
    for (int64_t at = 0; at < img->size; at += SECTOR)
        if (cm_rng_below(rng, 2) == 0)
            write_real(img, at, img->size - at < SECTOR ? img->size - at : SECTOR);
}

/* A third of the cuts loses all of it. */
static void lose_and_exit(uint64_t seed)
{
    struct cm_rng rng;

    cm_rng_seed(&rng, seed);
    if (cm_rng_below(&rng, 3) > 0)
        for (struct image *img = disk.images; img; img = img->next)
            if (img->handles > 0)
                image_lose(img, &rng);
    _exit(TEST_VFS_CRASHED);
}

void test_vfs_crash(uint64_t seed)
{
    pthread_mutex_lock(&disk.mutex);
    lose_and_exit(seed);
    __builtin_unreachable();
}

/* Called with the mutex held by everything that changes a file. 0, or the code to refuse with. */
static int refused(void)
{
    int64_t call = ++disk.calls;

    if (disk.crash_nth > 0 && call >= disk.crash_nth)
        lose_and_exit(disk.seed);
    if (disk.refuse_nth > 0 &&
        (call == disk.refuse_nth || (disk.refuse_forever && call > disk.refuse_nth)))
        return disk.refuse_code;
    return SQLITE_OK;
}

/* ---- methods of a file */

static struct file *mine(sqlite3_file *f)
{
    return (struct file *)(void *)f;
}

static int f_close(sqlite3_file *f)
{
    struct file *m = mine(f);

    if (m->image) {
        pthread_mutex_lock(&disk.mutex);
        m->image->handles--;
        pthread_mutex_unlock(&disk.mutex);
    }
    return m->real->pMethods->xClose(m->real);
}

static int f_read(sqlite3_file *f, void *out, int n, sqlite3_int64 at)
{
    struct file *m = mine(f);
    int64_t have;

    if (!m->image)
        return m->real->pMethods->xRead(m->real, out, n, at);
    pthread_mutex_lock(&disk.mutex);
    have = at < m->image->size ? m->image->size - at : 0;
    have = have < n ? have : n;
    if (have > 0)
        memcpy(out, m->image->data + at, (size_t)have);
    pthread_mutex_unlock(&disk.mutex);
    memset((char *)out + have, 0, (size_t)(n - have));
    return have < n ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
}

static int f_write(sqlite3_file *f, const void *in, int n, sqlite3_int64 at)
{
    struct file *m = mine(f);
    int rc;

    if (!m->image)
        return m->real->pMethods->xWrite(m->real, in, n, at);
    pthread_mutex_lock(&disk.mutex);
    rc = refused();
    if (rc == SQLITE_OK) {
        if (at + n > m->image->size)
            image_resize(m->image, at + n);
        memcpy(m->image->data + at, in, (size_t)n);
    }
    pthread_mutex_unlock(&disk.mutex);
    return rc;
}

static int f_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    struct file *m = mine(f);
    int rc;

    if (!m->image)
        return m->real->pMethods->xTruncate(m->real, size);
    pthread_mutex_lock(&disk.mutex);
    rc = refused();
    if (rc == SQLITE_OK)
        image_resize(m->image, size);
    pthread_mutex_unlock(&disk.mutex);
    return rc == SQLITE_OK ? rc : SQLITE_IOERR_TRUNCATE;
}

static int f_sync(sqlite3_file *f, int flags)
{
    struct file *m = mine(f);
    int rc;

    (void)flags;
    if (!m->image)
        return SQLITE_OK;
    pthread_mutex_lock(&disk.mutex);
    rc = refused();
    if (rc == SQLITE_OK)
        image_sync(m->image);
    pthread_mutex_unlock(&disk.mutex);
    return rc == SQLITE_OK ? rc : SQLITE_IOERR_FSYNC;
}

static int f_size(sqlite3_file *f, sqlite3_int64 *size)
{
    struct file *m = mine(f);

    if (!m->image)
        return m->real->pMethods->xFileSize(m->real, size);
    pthread_mutex_lock(&disk.mutex);
    *size = m->image->size;
    pthread_mutex_unlock(&disk.mutex);
    return SQLITE_OK;
}

static int f_lock(sqlite3_file *f, int kind)
{
    return mine(f)->real->pMethods->xLock(mine(f)->real, kind);
}

static int f_unlock(sqlite3_file *f, int kind)
{
    return mine(f)->real->pMethods->xUnlock(mine(f)->real, kind);
}

static int f_reserved(sqlite3_file *f, int *out)
{
    return mine(f)->real->pMethods->xCheckReservedLock(mine(f)->real, out);
}

/* Hints about sizes would reach the real file. */
static int f_control(sqlite3_file *f, int op, void *arg)
{
    if (op == SQLITE_FCNTL_SIZE_HINT || op == SQLITE_FCNTL_CHUNK_SIZE)
        return SQLITE_OK;
    return mine(f)->real->pMethods->xFileControl(mine(f)->real, op, arg);
}

static int f_sector(sqlite3_file *f)
{
    (void)f;
    return SECTOR;
}

static int f_traits(sqlite3_file *f)
{
    return mine(f)->real->pMethods->xDeviceCharacteristics(mine(f)->real);
}

static int f_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out)
{
    return mine(f)->real->pMethods->xShmMap(mine(f)->real, page, size, extend, out);
}

static int f_shm_lock(sqlite3_file *f, int at, int n, int flags)
{
    return mine(f)->real->pMethods->xShmLock(mine(f)->real, at, n, flags);
}

static void f_shm_barrier(sqlite3_file *f)
{
    mine(f)->real->pMethods->xShmBarrier(mine(f)->real);
}

static int f_shm_unmap(sqlite3_file *f, int delete)
{
    return mine(f)->real->pMethods->xShmUnmap(mine(f)->real, delete);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = f_close,
    .xRead = f_read,
    .xWrite = f_write,
    .xTruncate = f_truncate,
    .xSync = f_sync,
    .xFileSize = f_size,
    .xLock = f_lock,
    .xUnlock = f_unlock,
    .xCheckReservedLock = f_reserved,
    .xFileControl = f_control,
    .xSectorSize = f_sector,
    .xDeviceCharacteristics = f_traits,
    .xShmMap = f_shm_map,
    .xShmLock = f_shm_lock,
    .xShmBarrier = f_shm_barrier,
    .xShmUnmap = f_shm_unmap,
};

/* ---- methods of the VFS */

static int v_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *f, int flags, int *out_flags)
{
    struct file *m = mine(f);
    int rc;

    (void)vfs;
    m->real = (sqlite3_file *)(void *)(m + 1);
    m->image = NULL;
    rc = disk.real->xOpen(disk.real, path, m->real, flags, out_flags);
    m->base.pMethods = m->real->pMethods ? &methods : NULL;
    if (rc != SQLITE_OK || !path)
        return rc;
    pthread_mutex_lock(&disk.mutex);
    m->image = image_of(path);
    if (m->image->handles++ == 0)
        image_load(m->image);
    pthread_mutex_unlock(&disk.mutex);
    return rc;
}

static int v_delete(sqlite3_vfs *vfs, const char *path, int sync_dir)
{
    (void)vfs;
    pthread_mutex_lock(&disk.mutex);
    image_of(path)->size = 0;
    pthread_mutex_unlock(&disk.mutex);
    return disk.real->xDelete(disk.real, path, sync_dir);
}

static int v_access(sqlite3_vfs *vfs, const char *path, int flags, int *out)
{
    (void)vfs;
    return disk.real->xAccess(disk.real, path, flags, out);
}

static int v_full(sqlite3_vfs *vfs, const char *path, int n, char *out)
{
    (void)vfs;
    return disk.real->xFullPathname(disk.real, path, n, out);
}

static int v_random(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs;
    return disk.real->xRandomness(disk.real, n, out);
}

static int v_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    return disk.real->xSleep(disk.real, us);
}

static int v_time(sqlite3_vfs *vfs, sqlite3_int64 *out)
{
    (void)vfs;
    return disk.real->xCurrentTimeInt64(disk.real, out);
}

static int v_last_error(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs;
    return disk.real->xGetLastError(disk.real, n, out);
}

void test_vfs_install(void)
{
    disk.real = sqlite3_vfs_find(NULL);
    disk.vfs = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = (int)sizeof(struct file) + disk.real->szOsFile,
        .mxPathname = disk.real->mxPathname,
        .zName = "test",
        .xOpen = v_open,
        .xDelete = v_delete,
        .xAccess = v_access,
        .xFullPathname = v_full,
        .xRandomness = v_random,
        .xSleep = v_sleep,
        .xGetLastError = v_last_error,
        .xCurrentTimeInt64 = v_time,
    };
    CM_ASSERT(sqlite3_vfs_register(&disk.vfs, 1) == SQLITE_OK);
}

void test_vfs_refuse(int64_t nth, int code, int forever)
{
    pthread_mutex_lock(&disk.mutex);
    disk.calls = 0;
    disk.refuse_nth = nth;
    disk.refuse_code = code;
    disk.refuse_forever = forever != 0;
    pthread_mutex_unlock(&disk.mutex);
}

void test_vfs_crash_at(int64_t nth, uint64_t seed)
{
    pthread_mutex_lock(&disk.mutex);
    disk.calls = 0;
    disk.crash_nth = nth;
    disk.seed = seed;
    pthread_mutex_unlock(&disk.mutex);
}

int64_t test_vfs_calls(void)
{
    int64_t calls;

    pthread_mutex_lock(&disk.mutex);
    calls = disk.calls;
    pthread_mutex_unlock(&disk.mutex);
    return calls;
}
