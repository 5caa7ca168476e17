/* Files of tests: their directory, and damage to them. */
#include "tests/tiny.h"
#include "base/error.h"
#include "base/mem.h"

#include <ftw.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

cmc_status tiny_damage(const char *from, const char *to, int64_t size, int64_t bit, cmc_error *err) {
    cmc_file f;
    CMC_TRY(cmc_file_map(from, &f, err));
    size_t n = size >= 0 && (size_t)size < f.size ? (size_t)size : f.size;
    uint8_t *copy = cmc_alloc(n, 1);
    if (copy == NULL) {
        cmc_file_unmap(&f);
        return cmc_fail_nomem(err, "a copy", n);
    }
    if (n > 0) {
        memcpy(copy, f.data, n);
    }
    cmc_file_unmap(&f);
    if (bit >= 0 && (size_t)bit / 8 < n) {
        copy[bit / 8] = (uint8_t)(copy[bit / 8] ^ 1U << bit % 8);
    }
    cmc_writer *w;
    cmc_status status = cmc_writer_open(to, &w, err);
    if (status == CMC_OK) {
        status = cmc_writer_put(w, copy, n, err);
        if (status == CMC_OK) {
            status = cmc_writer_commit(w, err);
        } else {
            cmc_writer_abort(w);
        }
    }
    free(copy);
    return status;
}

char *tiny_dir_new(void) {
    const char *base = getenv("TMPDIR");
    char path[512];
    snprintf(path, sizeof path, "%s/cmc-test-XXXXXX", base != NULL && *base != '\0' ? base : "/tmp");
    return mkdtemp(path) != NULL ? cmc_strndup(path, strlen(path)) : NULL;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

void tiny_dir_free(char *dir) {
    if (dir != NULL) {
        (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
        free(dir);
    }
}

const char *tiny_path(const char *dir, const char *name) {
    static char buffers[8][1024];
    static atomic_uint next;
    char *buf = buffers[atomic_fetch_add(&next, 1) % 8];
    snprintf(buf, sizeof buffers[0], "%s/%s", dir, name);
    return buf;
}
