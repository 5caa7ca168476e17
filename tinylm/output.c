/* The paths that runs write. */
#include "tinylm/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

bool output_same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The folder that a path is in, which the caller frees; NULL where memory is out. */
static char *output_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? cmc_strndup(path, slash == path ? 1 : (size_t)(slash - path)) : cmc_strndup(".", 1);
}

/* The folder of `path` must be there and writable. */
static cmc_status output_check_folder(const char *path, cmc_error *err) {
    char *dir = output_folder(path);
    if (!dir)
        return cmc_fail_nomem(err, "a path", strlen(path));
    cmc_status rc = CMC_OK;
    struct stat st;
    if (stat(dir, &st) == 0 && !S_ISDIR(st.st_mode))
        rc = cmc_fail(err, CMC_E_IO, "%s: %s is a file; a folder would be right", path, dir);
    else if (access(dir, W_OK | X_OK) != 0)
        rc = cmc_fail(err, CMC_E_IO, "%s: cannot write in %s: %s", path, dir, strerror(errno));
    free(dir);
    return rc;
}

static const char *output_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* One file, or where neither is there yet what would become one. */
static bool output_same(const char *a, const char *b) {
    if (strcmp(a, b) == 0 || output_same_file(a, b))
        return true;
    if (strcmp(output_name(a), output_name(b)) != 0)
        return false;
    char *in_a = output_folder(a), *in_b = output_folder(b);
    bool same = in_a && in_b && output_same_file(in_a, in_b);
    free(in_a);
    free(in_b);
    return same;
}

cmc_status output_check_own(const char *out, const char *checkpoint, const char *log, cmc_error *err) {
    if (output_same(out, checkpoint))
        return cmc_fail(err, CMC_E_ARG, "%s: named both for what comes out and for the checkpoint", out);
    if (log && (output_same(log, out) || output_same(log, checkpoint)))
        return cmc_fail(err, CMC_E_ARG, "%s: named both for the log and for %s", log, output_same(log, out) ? "what comes out" : "the checkpoint");
    return CMC_OK;
}

cmc_status output_check(const char *path, const output_inputs *inputs, size_t n, cmc_error *err) {
    struct stat st;
    CMC_TRY(output_check_folder(path, err));
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return cmc_fail(err, CMC_E_IO, "%s: not a regular file; name a file to write", path);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < inputs[i].n; k++)
            if (inputs[i].v[k] && output_same_file(path, inputs[i].v[k]))
                return cmc_fail(err, CMC_E_ARG, "%s: is one of this run's inputs; name another output", path);
    return CMC_OK;
}
