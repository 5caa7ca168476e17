/* Files of JSON objects. */
#include "cli/jsonl.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void jsonl_close(jsonl *j) {
    for (size_t i = 0; i < j->n; i++)
        json_decref(j->v[i]);
    free(j->v);
    free(j->line);
    *j = (jsonl){0};
}

int jsonl_failed(const jsonl *j, size_t i, const char *fmt, ...) {
    char what[600], line[40] = "";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (j->line[i])
        snprintf(line, sizeof line, " (line %ld)", j->line[i]);
    return cli_failed("%s: record %zu%s: %s", j->path, i + 1, line, what);
}

/* Takes the value over. */
static int jsonl_add(jsonl *j, json_t *value, long line) {
    if (j->n == j->cap) {
        size_t cap = j->cap ? 2 * j->cap : 64;
        json_t **v = realloc(j->v, cap * sizeof *v);
        j->v = v ? v : j->v;
        long *lines = v ? realloc(j->line, cap * sizeof *lines) : NULL;
        if (!lines) {
            json_decref(value);
            return cli_no_memory();
        }
        j->line = lines;
        j->cap = cap;
    }
    j->v[j->n] = value;
    j->line[j->n++] = line;
    return json_is_object(value) ? CLI_OK : jsonl_failed(j, j->n - 1, "not an object");
}

static int jsonl_lines(jsonl *j, const char *s, size_t len) {
    const char *end = s + len;
    int rc = CLI_OK;
    for (long line = 1; s < end && rc == CLI_OK; line++) {
        const char *nl = memchr(s, '\n', (size_t)(end - s)), *stop = nl ? nl : end;
        if (strspn(s, " \t\r") < (size_t)(stop - s)) {
            json_error_t je;
            json_t *value = json_loadb(s, (size_t)(stop - s), JSON_ALLOW_NUL, &je);
            rc = value ? jsonl_add(j, value, line)
                       : cli_failed("%s: line %ld: no valid JSON (%s), expected one object on each line", j->path, line, je.text);
        }
        s = nl ? nl + 1 : end;
    }
    return rc;
}

static int jsonl_list(jsonl *j, const char *s, size_t len) {
    json_error_t je;
    json_t *list = json_loadb(s, len, JSON_ALLOW_NUL, &je), *value;
    size_t i;
    int rc = CLI_OK;
    if (!list)
        return cli_failed("%s: line %d: no valid JSON (%s), expected a list of objects", j->path, je.line, je.text);
    json_array_foreach(list, i, value) {
        if (rc == CLI_OK)
            rc = jsonl_add(j, json_incref(value), 0);
    }
    json_decref(list);
    return rc;
}

int jsonl_read(const char *path, jsonl *out) {
    char *text;
    size_t len;
    *out = (jsonl){.path = path};
    int rc = cli_read_file(path, &text, &len);
    if (rc)
        return rc;
    size_t mark = len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0, first = mark + strspn(text + mark, " \t\r\n");
    rc = text[first] == '[' ? jsonl_list(out, text + first, len - first) : jsonl_lines(out, text + mark, len - mark);
    free(text);
    if (rc == CLI_OK && out->n == 0)
        rc = cli_failed("%s: holds no record", path);
    if (rc)
        jsonl_close(out);
    return rc;
}
