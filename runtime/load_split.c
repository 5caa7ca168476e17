/* Split models: NAME-00001-of-0000N.gguf and its sisters. */
#include "runtime/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"

#define SPLIT_MAX 99999
#define SPLIT_SUFFIX 20 /* strlen("-00001-of-00002.gguf") */

static bool split_digits(const char *s, unsigned long *out) {
    unsigned long v = 0;
    for (int i = 0; i < 5; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        v = v * 10 + (unsigned long)(s[i] - '0');
    }
    *out = v;
    return true;
}

/* The file's number (from 1) and the total as its name has them; false where the name is not of that form. */
static bool split_parse(const char *path, unsigned long *no, unsigned long *count) {
    const size_t n = strlen(path);
    if (n < SPLIT_SUFFIX)
        return false;
    const char *s = path + n - SPLIT_SUFFIX;
    return s[0] == '-' && split_digits(s + 1, no) && memcmp(s + 6, "-of-", 4) == 0 && split_digits(s + 10, count) &&
           strcmp(s + 15, ".gguf") == 0;
}

/* The name of part `no` (from 1) of the set that `path` belongs to. */
static char *split_name(const char *path, unsigned long no, unsigned long count) {
    const size_t stem = strlen(path) - SPLIT_SUFFIX;
    char *name = cmc_alloc(stem + SPLIT_SUFFIX + 1, 1);
    if (!name)
        return NULL;
    memcpy(name, path, stem);
    (void)snprintf(name + stem, SPLIT_SUFFIX + 1, "-%05lu-of-%05lu.gguf", no % 100000, count % 100000);
    return name;
}

/* split.no and split.count of a part against what is expected. */
static cmc_status split_check(const gguf *g, uint64_t no, uint64_t count, cmc_error *err) {
    uint64_t have_no, have_count;
    CMC_TRY(gguf_need_u64(g, "split.count", 1, SPLIT_MAX, &have_count, err));
    CMC_TRY(gguf_need_u64(g, "split.no", 0, SPLIT_MAX, &have_no, err));
    if (have_count != count)
        return cmc_fail(err, CMC_E_FORMAT, "%s: split.count is %llu, but the set has %llu parts", g->file.path,
                        (unsigned long long)have_count, (unsigned long long)count);
    if (have_no != no)
        return cmc_fail(err, CMC_E_FORMAT, "%s: split.no is %llu, but this should be part %llu (counted from 0)",
                        g->file.path, (unsigned long long)have_no, (unsigned long long)no);
    return CMC_OK;
}

/* split.tensors.count, where it is given, against what the parts hold; no tensor in two of them. */
static cmc_status split_check_tensors(gguf *const *parts, size_t n_parts, cmc_error *err) {
    size_t total = 0;
    for (size_t i = 0; i < n_parts; i++)
        total += parts[i]->n_tensors;
    uint64_t want;
    if (gguf_get_u64(parts[0], "split.tensors.count", &want) && want != total)
        return cmc_fail(err, CMC_E_FORMAT, "%s: split.tensors.count is %llu, but the %zu parts hold %zu tensors",
                        parts[0]->file.path, (unsigned long long)want, n_parts, total);
    for (size_t i = 1; i < n_parts; i++)
        for (size_t k = 0; k < parts[i]->n_tensors; k++) {
            const gguf_str name = parts[i]->tensors[k].name;
            char *s = load_strdup(name);
            if (!s)
                return cmc_fail_nomem(err, "a tensor's name", name.n + 1);
            const gguf_tensor *twin = load_find(parts, i, s, NULL);
            free(s);
            if (twin)
                return cmc_fail(err, CMC_E_FORMAT, "%s: tensor %.*s is in an earlier part of the set too",
                                parts[i]->file.path, (int)name.n, name.s);
        }
    return CMC_OK;
}

/* Opens all parts; `given` is the one that the caller named, opened already, and goes into the list. */
static cmc_status split_open(const char *path, gguf *given, size_t given_no, size_t count, gguf **parts,
                             cmc_error *err) {
    parts[given_no] = given;
    for (size_t i = 0; i < count; i++) {
        if (i != given_no) {
            char *name = split_name(path, i + 1, count);
            if (!name)
                return cmc_fail_nomem(err, "a file name", strlen(path));
            const cmc_status st = gguf_open(name, &parts[i], err);
            free(name);
            CMC_TRY(st);
        }
        CMC_TRY(split_check(parts[i], i, count, err));
    }
    return split_check_tensors(parts, count, err);
}

cmc_status load_parts(const char *path, gguf ***parts, size_t *n_parts, cmc_error *err) {
    *parts = NULL;
    *n_parts = 0;
    gguf *g;
    CMC_TRY(gguf_open(path, &g, err));
    uint64_t count = 1;
    if (gguf_find(g, "split.count")) {
        const cmc_status st = gguf_need_u64(g, "split.count", 0, SPLIT_MAX, &count, err);
        if (st != CMC_OK) {
            gguf_free(g);
            return st;
        }
    }
    if (count < 1)
        count = 1;
    unsigned long no = 1, of = 1;
    if (count > 1 && (!split_parse(path, &no, &of) || of != count || no < 1 || no > of)) {
        gguf_free(g);
        return cmc_fail(err, CMC_E_FORMAT, "%s: one of %llu parts of a split model, but its name does not end in "
                        "-NNNNN-of-%05llu.gguf, so that the others cannot be found", path, (unsigned long long)count,
                        (unsigned long long)count);
    }
    gguf **list = cmc_calloc(count, sizeof *list);
    if (!list) {
        gguf_free(g);
        return cmc_fail_nomem(err, "the list of parts", count * sizeof *list);
    }
    list[no - 1] = g;
    if (count > 1) {
        const cmc_status st = split_open(path, g, no - 1, count, list, err);
        if (st != CMC_OK) {
            load_parts_free(list, count);
            return st;
        }
    }
    *parts = list;
    *n_parts = count;
    return CMC_OK;
}

void load_parts_free(gguf **parts, size_t n_parts) {
    for (size_t i = 0; parts && i < n_parts; i++)
        gguf_free(parts[i]);
    free(parts);
}

const gguf_tensor *load_find(gguf *const *parts, size_t n_parts, const char *name, size_t *part) {
    for (size_t i = 0; i < n_parts; i++) {
        const gguf_tensor *t = gguf_find_tensor(parts[i], name);
        if (t) {
            if (part)
                *part = i;
            return t;
        }
    }
    return NULL;
}

char *load_strdup(gguf_str s) {
    return cmc_strndup(s.s, s.n);
}
