/* Mapped files, writing that is whole or not at all, and content hashes. */
#include "base/file.h"
#include "base/error.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* ------------------------------------------------------------------------------------------------- mapping */

static cmc_status map_opened(int fd, const char *path, cmc_file *out, cmc_error *err) {
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return cmc_fail(err, CMC_E_IO, "%s: cannot be read: %s", path, strerror(errno));
    }
    if (S_ISDIR(st.st_mode)) {
        return cmc_fail(err, CMC_E_IO, "%s: is a directory, a file is wanted", path);
    }
    if (!S_ISREG(st.st_mode)) {
        return cmc_fail(err, CMC_E_IO, "%s: is not a regular file", path);
    }
    const uint8_t *data = NULL;
    if (st.st_size > 0) {
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            return cmc_fail(err, CMC_E_IO, "%s: cannot be mapped: %s", path, strerror(errno));
        }
        data = map;
    }
    out->data = data;
    out->size = (size_t)st.st_size;
    return CMC_OK;
}

cmc_status cmc_file_map(const char *path, cmc_file *out, cmc_error *err) {
    *out = (cmc_file){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* NONBLOCK: a pipe without a writer must not hang us */
    if (fd < 0) {
        return cmc_fail(err, CMC_E_IO, "%s: cannot be opened: %s", path, strerror(errno));
    }
    cmc_status status = map_opened(fd, path, out, err);
    close(fd);
    if (status == CMC_OK) {
        out->path = cmc_strndup(path, strlen(path));
        if (out->path == NULL) {
            cmc_file_unmap(out);
            status = cmc_fail_nomem(err, "a path", strlen(path));
        }
    }
    return status;
}

void cmc_file_unmap(cmc_file *f) {
    if (f == NULL) {
        return;
    }
    if (f->data != NULL && !f->borrowed) {
        munmap((void *)(uintptr_t)f->data, f->size);
    }
    free(f->path);
    *f = (cmc_file){0};
}

void cmc_map_forget(const void *p, size_t n) {
    long size = sysconf(_SC_PAGESIZE);
    uintptr_t page = size > 0 ? (uintptr_t)size : 4096;
    uintptr_t first = ((uintptr_t)p + page - 1) / page * page, end = ((uintptr_t)p + n) / page * page;
    if (first < end) {
        madvise((void *)first, end - first, MADV_DONTNEED); /* only advice: nothing is lost where it fails */
    }
}

/* ------------------------------------------------------------------------------------------------- writing */

enum { WRITER_BUFFER = 1 << 16, WRITER_TRIES = 100 };

struct cmc_writer {
    char *path;          /* what will be there; a symbolic link is followed */
    char *temp;          /* what is written */
    int fd;
    bool failed;
    uint64_t offset;
    size_t used;         /* bytes waiting in buffer */
    uint8_t buffer[WRITER_BUFFER];
};

static void writer_free(cmc_writer *w) {
    if (w->fd >= 0) {
        close(w->fd);
    }
    free(w->path);
    free(w->temp);
    free(w);
}

/* Opens a new file beside the target. A name may be taken by a process that died, or by another thread of this one. */
static cmc_status writer_create(cmc_writer *w, cmc_error *err) {
    size_t size = strlen(w->path) + 64;
    w->temp = cmc_alloc(size, 1);
    if (w->temp == NULL) {
        return cmc_fail_nomem(err, "a path", size);
    }
    for (int i = 0; i < WRITER_TRIES; i++) {
        int n = snprintf(w->temp, size, "%s.tmp.%ld", w->path, (long)getpid());
        if (i > 0) {
            snprintf(w->temp + n, size - (size_t)n, ".%d", i);
        }
        w->fd = open(w->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd >= 0) {
            return CMC_OK;
        }
        if (errno != EEXIST) {
            break;
        }
    }
    return cmc_fail(err, CMC_E_IO, "%s: cannot be written: %s", w->path, strerror(errno));
}

cmc_status cmc_writer_open(const char *path, cmc_writer **out, cmc_error *err) {
    *out = NULL;
    size_t n = strlen(path);
    if (n == 0 || path[n - 1] == '/') {
        return cmc_fail(err, CMC_E_IO, "%s: cannot be written: it names no file", path);
    }
    struct stat st;
    bool exists = stat(path, &st) == 0;
    if (exists && !S_ISREG(st.st_mode)) {
        return cmc_fail(err, CMC_E_IO, "%s: is %s, a file is wanted", path,
                        S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
    }
    if (exists && access(path, W_OK) != 0) { /* rename would replace it all the same */
        return cmc_fail(err, CMC_E_IO, "%s: cannot be written: %s", path, strerror(errno));
    }
    cmc_writer *w = cmc_alloc(1, sizeof *w);
    if (w == NULL) {
        return cmc_fail_nomem(err, "a file's buffer", sizeof *w);
    }
    w->fd = -1;
    w->failed = false;
    w->offset = 0;
    w->used = 0;
    w->temp = NULL;
    w->path = exists ? realpath(path, NULL) : cmc_strndup(path, n);
    cmc_status status = w->path != NULL ? writer_create(w, err) : cmc_fail_nomem(err, "a path", PATH_MAX);
    if (status != CMC_OK) {
        writer_free(w);
        return status;
    }
    if (exists && fchmod(w->fd, st.st_mode & 07777) != 0) {
        status = cmc_fail(err, CMC_E_IO, "%s: cannot set its mode: %s", path, strerror(errno));
        cmc_writer_abort(w);
        return status;
    }
    *out = w;
    return CMC_OK;
}

static cmc_status writer_fail(cmc_writer *w, cmc_error *err) {
    int why = errno;
    w->failed = true;
    return cmc_fail(err, CMC_E_IO, "%s: cannot be written, at byte %llu: %s", w->path,
                    (unsigned long long)(w->offset - w->used), strerror(why));
}

static cmc_status writer_write(cmc_writer *w, const uint8_t *p, size_t n, cmc_error *err) {
    while (n > 0) {
        ssize_t done = write(w->fd, p, n < ((size_t)1 << 30) ? n : (size_t)1 << 30);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return writer_fail(w, err);
        }
        p += done;
        n -= (size_t)done;
    }
    return CMC_OK;
}

static cmc_status writer_flush(cmc_writer *w, cmc_error *err) {
    CMC_TRY(writer_write(w, w->buffer, w->used, err));
    w->used = 0;
    return CMC_OK;
}

cmc_status cmc_writer_put(cmc_writer *w, const void *data, size_t n, cmc_error *err) {
    if (w->failed) {
        return cmc_fail(err, CMC_E_IO, "%s: an earlier write to it failed", w->path);
    }
    if (n > sizeof w->buffer - w->used) {
        CMC_TRY(writer_flush(w, err));
    }
    if (n > sizeof w->buffer) {
        CMC_TRY(writer_write(w, data, n, err));
    } else if (n > 0) {
        memcpy(w->buffer + w->used, data, n);
        w->used += n;
    }
    w->offset += n;
    return CMC_OK;
}

uint64_t cmc_writer_offset(const cmc_writer *w) { return w->offset; }

/* Makes the rename last through a power cut. The file is whole by now either way, and some file systems cannot sync a
 * directory at all: no failure. */
static void sync_directory_of(const char *path) {
    const char *slash = strrchr(path, '/');
    char *dir = slash == NULL ? cmc_strndup(".", 1) : cmc_strndup(path, slash == path ? 1 : (size_t)(slash - path));
    int fd = dir != NULL ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(dir);
}

static cmc_status writer_finish(cmc_writer *w, cmc_error *err) {
    if (w->failed) {
        return cmc_fail(err, CMC_E_IO, "%s: an earlier write to it failed", w->path);
    }
    CMC_TRY(writer_flush(w, err));
    if (fsync(w->fd) != 0) {
        return writer_fail(w, err);
    }
    int closed = close(w->fd);
    w->fd = -1;
    if (closed != 0 || rename(w->temp, w->path) != 0) {
        return writer_fail(w, err);
    }
    sync_directory_of(w->path);
    return CMC_OK;
}

cmc_status cmc_writer_commit(cmc_writer *w, cmc_error *err) {
    cmc_status status = writer_finish(w, err);
    if (status != CMC_OK) {
        unlink(w->temp);
    }
    writer_free(w);
    return status;
}

void cmc_writer_abort(cmc_writer *w) {
    if (w != NULL) {
        unlink(w->temp);
        writer_free(w);
    }
}

/* ------------------------------------------------------------------------------------------------- hashes */

static void hash_to_hex(XXH128_hash_t hash, char out[40]) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    for (size_t i = 0; i < sizeof canonical.digest; i++) {
        static const char digits[] = "0123456789abcdef";
        out[2 * i] = digits[canonical.digest[i] >> 4];
        out[2 * i + 1] = digits[canonical.digest[i] & 15];
    }
    out[2 * sizeof canonical.digest] = '\0';
}

void cmc_hash_hex(const void *data, size_t n, char out[40]) { hash_to_hex(XXH3_128bits(data, n), out); }

struct cmc_hasher { XXH3_state_t *state; };

cmc_hasher *cmc_hasher_new(void) {
    cmc_hasher *h = cmc_alloc(1, sizeof *h);
    if (h == NULL) {
        return NULL;
    }
    h->state = XXH3_createState();
    if (h->state == NULL) {
        free(h);
        return NULL;
    }
    XXH3_128bits_reset(h->state);
    return h;
}

void cmc_hasher_add(cmc_hasher *h, const void *data, size_t n) {
    if (n > 0) {
        XXH3_128bits_update(h->state, data, n);
    }
}

void cmc_hasher_finish(cmc_hasher *h, char out[40]) {
    hash_to_hex(XXH3_128bits_digest(h->state), out);
    XXH3_freeState(h->state);
    free(h);
}
