/* The JSONL log of a run. */
#include "tinylm/trainlog.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"

/* Reads a line's event and step; false where it is none of ours. */
static bool trainlog_parse(const char *line, size_t n, bool *is_start, int64_t *step) {
    json_t *j = json_loadb(line, n, 0, NULL);
    const char *event = json_string_value(json_object_get(j, "event"));
    const json_t *s = json_object_get(j, "step");
    bool ok = event && json_is_integer(s);
    if (ok) {
        *is_start = strcmp(event, "start") == 0;
        *step = (int64_t)json_integer_value(s);
    }
    json_decref(j);
    return ok;
}

/* Length of the line at p, its newline included. */
static size_t trainlog_line(const char *p, const char *end) {
    const char *nl = memchr(p, '\n', (size_t)(end - p));
    return nl ? (size_t)(nl - p) + 1 : (size_t)(end - p);
}

/* Writes the file again without the last run's lines of steps after `step`, and without a line that a kill cut short.
 */
static cmc_status trainlog_trim(const char *path, int64_t step, cmc_error *err) {
    cmc_file f;
    cmc_writer *w = NULL;
    CMC_TRY(cmc_file_map(path, &f, err));
    const char *data = (const char *)f.data, *end = data + f.size, *run = data;
    bool start;
    int64_t s;
    for (const char *p = data; p < end; p += trainlog_line(p, end))
        if (trainlog_parse(p, trainlog_line(p, end), &start, &s) && start)
            run = p;
    cmc_status st = cmc_writer_open(path, &w, err);
    if (st == CMC_OK && run > data)
        st = cmc_writer_put(w, data, (size_t)(run - data), err);
    for (const char *p = run; p < end && st == CMC_OK; p += trainlog_line(p, end)) {
        size_t n = trainlog_line(p, end);
        if (trainlog_parse(p, n, &start, &s) && s <= step)
            st = cmc_writer_put(w, p, n, err);
    }
    if (st == CMC_OK)
        st = cmc_writer_commit(w, err);
    else
        cmc_writer_abort(w);
    cmc_file_unmap(&f);
    return st;
}

/* True where the file ends inside a line that a kill cut short. */
static bool trainlog_is_cut(const char *path)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool cut = fseek(f, -1, SEEK_END) == 0 && fgetc(f) != '\n';
    fclose(f);
    return cut;
}

cmc_status trainlog_open(const char *path, int64_t resume_step, trainlog *out, cmc_error *err) {
    struct stat st;
    memset(out, 0, sizeof *out);
    if (!path)
        return CMC_OK;
    if (resume_step >= 0 && stat(path, &st) == 0 && S_ISREG(st.st_mode))
        CMC_TRY(trainlog_trim(path, resume_step, err));
    out->path = cmc_strndup(path, strlen(path));
    if (!out->path)
        return cmc_fail_nomem(err, "a path", strlen(path));
    bool cut = trainlog_is_cut(path);
    out->f = fopen(path, "ae");
    if (!out->f) {
        cmc_status rc = cmc_fail(err, CMC_E_IO, "%s: cannot open the log: %s", path, strerror(errno));
        trainlog_close(out);
        return rc;
    }
    if (cut)
        fputc('\n', out->f);
    return CMC_OK;
}

void trainlog_close(trainlog *l) {
    if (l->f)
        fclose(l->f);
    free(l->path);
    memset(l, 0, sizeof *l);
}

cmc_status trainlog_put(trainlog *l, const char *event, int64_t step, const trainlog_field *fields, size_t n,
                        cmc_error *err) {
    if (!l->f)
        return CMC_OK;
    json_t *j = json_object();
    json_object_set_new(j, "event", json_string(event));
    json_object_set_new(j, "step", json_integer((json_int_t)step));
    for (size_t i = 0; i < n; i++)
        json_object_set_new(j, fields[i].name, isfinite(fields[i].value) ? json_real(fields[i].value) : json_null());
    char *s = json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(j);
    if (!s)
        return cmc_fail_nomem(err, "a line of the log", 256);
    bool ok = fprintf(l->f, "%s\n", s) > 0 && fflush(l->f) == 0;
    free(s);
    return ok ? CMC_OK : cmc_fail(err, CMC_E_IO, "%s: cannot write the log: %s", l->path, strerror(errno));
}
