/* The cmc.* keys: what a delta's file says of itself. Plain GGUF values, so that any GGUF tool can show them. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "runtime/model.h"

#define DELTA_VERSION 1u       /* of the keys; newer files are refused */
#define DELTA_MAX_ALPHAS 65536u

typedef struct delta_text {
    const char *key;
    size_t at, size;           /* of the char array in cmc_delta_info */
} delta_text;

#define DELTA_TEXT(key, field) {key, offsetof(cmc_delta_info, field), sizeof ((cmc_delta_info *)0)->field}
static const delta_text delta_texts[] = {
    DELTA_TEXT("cmc.template.host", host_template),
    DELTA_TEXT("cmc.template.delta", delta_template),
    DELTA_TEXT("cmc.train.host_name", trained_host),
    DELTA_TEXT("cmc.train.host_hash", trained_host_hash),
    DELTA_TEXT("cmc.train.data_hash", data_hash),
    DELTA_TEXT("cmc.train.objective", objective),
};

/* Text of a stranger's file: UTF-8 without control characters (it is printed) that fits. */
static cmc_status delta_copy(const gguf *g, const char *key, gguf_str s, char *to, size_t size, cmc_error *err) {
    if (s.n >= size)
        return cmc_fail(err, CMC_E_FORMAT, "%s: %s is %zu bytes long; at most %zu would be right", g->file.path, key,
                        s.n, size - 1);
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.s[i] < 0x20 || s.s[i] == 0x7f)
            return cmc_fail(err, CMC_E_FORMAT, "%s: %s has a control character at byte %zu", g->file.path, key, i);
    if (!cmc_utf8_valid((const uint8_t *)s.s, s.n))
        return cmc_fail(err, CMC_E_FORMAT, "%s: %s is not UTF-8", g->file.path, key);
    memcpy(to, s.s, s.n);
    to[s.n] = '\0';
    return CMC_OK;
}

static cmc_status delta_read_text(const gguf *g, const delta_text *t, cmc_delta_info *d, cmc_error *err) {
    if (!gguf_find(g, t->key))
        return CMC_OK;
    gguf_str s;
    if (!gguf_get_str(g, t->key, &s))
        return cmc_fail(err, CMC_E_FORMAT, "%s: %s should be a string", g->file.path, t->key);
    return delta_copy(g, t->key, s, (char *)d + t->at, t->size, err);
}

/* Numbers that may be absent: *out stays as it is then. */
static cmc_status delta_read_f64(const gguf *g, const char *key, double *out, cmc_error *err) {
    return gguf_find(g, key) ? gguf_need_f64(g, key, out, err) : CMC_OK;
}

static cmc_status delta_read_u64(const gguf *g, const char *key, uint64_t *out, cmc_error *err) {
    return gguf_find(g, key) ? gguf_need_u64(g, key, 0, UINT64_MAX, out, err) : CMC_OK;
}

/* One of the table's four arrays: absent together or all of the same length. */
static cmc_status delta_array(const gguf *g, const char *key, gguf_vtype elem, uint64_t n, const gguf_kv **out,
                              cmc_error *err) {
    *out = gguf_get_array(g, key, elem);
    if (!*out)
        return cmc_fail(err, CMC_E_FORMAT, "%s: %s should be an array of %s", g->file.path, key,
                        elem == GGUF_STRING ? "strings" : "64-bit floats");
    if ((*out)->n != n)
        return cmc_fail(err, CMC_E_FORMAT, "%s: %s has %" PRIu64 " entries, but cmc.alpha.host_hashes has %" PRIu64,
                        g->file.path, key, (*out)->n, n);
    return CMC_OK;
}

static bool delta_is_hash(const char *s) {
    return strlen(s) == 32 && strspn(s, "0123456789abcdef") == 32;
}

static cmc_status delta_read_alphas(const gguf *g, cmc_delta_info *d, cmc_error *err) {
    const char *const keys[] = {"cmc.alpha.host_hashes", "cmc.alpha.host_names", "cmc.alpha.values", "cmc.alpha.gains"};
    size_t present = 0;
    for (size_t i = 0; i < 4; i++)
        present += gguf_find(g, keys[i]) != NULL;
    if (present == 0)
        return CMC_OK;
    const gguf_kv *hashes = gguf_get_array(g, keys[0], GGUF_STRING);
    const uint64_t n = hashes ? hashes->n : 0;
    if (n > DELTA_MAX_ALPHAS)
        return cmc_fail(err, CMC_E_FORMAT, "%s: %s has %" PRIu64 " entries; at most %u would be right", g->file.path,
                        keys[0], n, DELTA_MAX_ALPHAS);
    const gguf_kv *names, *values, *gains;
    CMC_TRY(delta_array(g, keys[0], GGUF_STRING, n, &hashes, err));
    CMC_TRY(delta_array(g, keys[1], GGUF_STRING, n, &names, err));
    CMC_TRY(delta_array(g, keys[2], GGUF_F64, n, &values, err));
    CMC_TRY(delta_array(g, keys[3], GGUF_F64, n, &gains, err));
    cmc_alpha_entry *table = cmc_calloc((size_t)n, sizeof *table);
    if (!table)
        return cmc_fail_nomem(err, "a delta's table of strengths", (size_t)n * sizeof *table);
    d->alphas = table;
    d->n_alphas = (size_t)n;
    const uint8_t *hash_at = NULL, *name_at = NULL;
    for (uint64_t i = 0; i < n; i++) {
        CMC_TRY(delta_copy(g, keys[0], gguf_array_next_str(hashes, &hash_at), table[i].host_hash,
                           sizeof table[i].host_hash, err));
        CMC_TRY(delta_copy(g, keys[1], gguf_array_next_str(names, &name_at), table[i].host_name,
                           sizeof table[i].host_name, err));
        table[i].alpha = gguf_array_f64(values, i);
        table[i].gain = gguf_array_f64(gains, i);
        if (!delta_is_hash(table[i].host_hash))
            return cmc_fail(err, CMC_E_FORMAT, "%s: entry %" PRIu64 " of %s is \"%s\", which is not 32 hex digits",
                            g->file.path, i, keys[0], table[i].host_hash);
        if (!isfinite(table[i].alpha) || !isfinite(table[i].gain))
            return cmc_fail(err, CMC_E_FORMAT, "%s: entry %" PRIu64 " of %s or %s is not a finite number", g->file.path,
                            i, keys[2], keys[3]);
    }
    return CMC_OK;
}

static cmc_status delta_read_all(const gguf *g, cmc_delta_info *d, cmc_error *err) {
    uint64_t version;
    CMC_TRY(gguf_need_u64(g, "cmc.format_version", 1, UINT32_MAX, &version, err));
    if (version > DELTA_VERSION)
        return cmc_fail(err, CMC_E_UNSUPPORTED,
                        "%s: a delta of format version %" PRIu64 ", but this cmc reads up to %u: a newer "
                        "cmc is needed",
                        g->file.path, version, DELTA_VERSION);
    d->format_version = (uint32_t)version;
    d->alpha = 1.0;
    for (size_t i = 0; i < sizeof delta_texts / sizeof *delta_texts; i++)
        CMC_TRY(delta_read_text(g, &delta_texts[i], d, err));
    CMC_TRY(delta_read_f64(g, "cmc.alpha.default", &d->alpha, err));
    CMC_TRY(delta_read_f64(g, "cmc.train.gain", &d->gain, err));
    CMC_TRY(delta_read_u64(g, "cmc.train.steps", &d->steps, err));
    CMC_TRY(delta_read_u64(g, "cmc.train.seed", &d->seed, err));
    return delta_read_alphas(g, d, err);
}

cmc_status delta_info_read(const gguf *g, cmc_delta_info **out, cmc_error *err) {
    *out = NULL;
    if (!gguf_find(g, "cmc.format_version"))
        return CMC_OK;
    cmc_delta_info *d = cmc_calloc(1, sizeof *d);
    if (!d)
        return cmc_fail_nomem(err, "a delta's description", sizeof *d);
    const cmc_status st = delta_read_all(g, d, err);
    if (st != CMC_OK) {
        delta_info_free(d);
        return st;
    }
    *out = d;
    return CMC_OK;
}

void delta_info_free(cmc_delta_info *d) {
    if (!d)
        return;
    free((void *)(uintptr_t)d->alphas);
    free(d);
}

static bool delta_write_alphas(gguf_writer *w, const cmc_delta_info *d) {
    const size_t n = d->n_alphas;
    gguf_str *text = cmc_alloc(n, sizeof *text);
    double *number = cmc_alloc(n, sizeof *number);
    bool ok = text && number;
    for (size_t i = 0; ok && i < n; i++)
        text[i] = (gguf_str){d->alphas[i].host_hash, strlen(d->alphas[i].host_hash)};
    ok = ok && gguf_put_str_array(w, "cmc.alpha.host_hashes", text, n);
    for (size_t i = 0; ok && i < n; i++)
        text[i] = (gguf_str){d->alphas[i].host_name, strlen(d->alphas[i].host_name)};
    ok = ok && gguf_put_str_array(w, "cmc.alpha.host_names", text, n);
    for (size_t i = 0; ok && i < n; i++)
        number[i] = d->alphas[i].alpha;
    ok = ok && gguf_put_array(w, "cmc.alpha.values", GGUF_F64, number, n);
    for (size_t i = 0; ok && i < n; i++)
        number[i] = d->alphas[i].gain;
    ok = ok && gguf_put_array(w, "cmc.alpha.gains", GGUF_F64, number, n);
    free(text);
    free(number);
    return ok;
}

bool delta_info_write(gguf_writer *w, const cmc_delta_info *d) {
    bool ok = gguf_put_u32(w, "cmc.format_version", DELTA_VERSION);
    for (size_t i = 0; ok && i < sizeof delta_texts / sizeof *delta_texts; i++) {
        const char *s = (const char *)d + delta_texts[i].at;
        ok = s[0] == '\0' || gguf_put_str(w, delta_texts[i].key, s, strlen(s));
    }
    ok = ok && gguf_put_f64(w, "cmc.alpha.default", d->alpha) && gguf_put_f64(w, "cmc.train.gain", d->gain) &&
         gguf_put_u64(w, "cmc.train.steps", d->steps) && gguf_put_u64(w, "cmc.train.seed", d->seed);
    return ok && (d->n_alphas == 0 || delta_write_alphas(w, d));
}
