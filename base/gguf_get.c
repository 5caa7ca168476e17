/* Values of a GGUF header as numbers, text and arrays. */
#include "base/gguf.h"
#include "base/error.h"
#include "base/gguf_read.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

const char *gguf_vtype_name(uint32_t type) {
    static const char *const names[] = {"uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
                                        "bool",  "string", "array",  "uint64", "int64",  "float64"};
    return type < sizeof names / sizeof names[0] ? names[type] : "unknown";
}

const char *gguf_show(gguf_str s, char buf[64]) {
    size_t n = s.n <= 60 ? s.n : cmc_utf8_whole((const uint8_t *)s.s, 57);
    for (size_t i = 0; i < n; i++) {
        buf[i] = s.s[i];
        if (buf[i] == '\0') {
            buf[i] = '?';
        }
    }
    memcpy(buf + n, n < s.n ? "..." : "", n < s.n ? 4 : 1);
    return buf;
}

/* An integer as sign and magnitude, so that all 64-bit ones fit. False for types that are no integers. */
static bool value_integer(gguf_vtype type, const uint8_t *p, bool *negative, uint64_t *magnitude) {
    int64_t v;
    switch (type) {
    case GGUF_U8: v = p[0]; break;
    case GGUF_I8: v = (int8_t)p[0]; break;
    case GGUF_U16: v = p[0] | p[1] << 8; break;
    case GGUF_I16: v = (int16_t)(p[0] | p[1] << 8); break;
    case GGUF_U32: v = read_u32(p); break;
    case GGUF_I32: v = (int32_t)read_u32(p); break;
    case GGUF_I64: v = (int64_t)read_u64(p); break;
    case GGUF_U64: *negative = false; *magnitude = read_u64(p); return true;
    default: return false;
    }
    *negative = v < 0;
    *magnitude = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    return true;
}

static bool value_real(gguf_vtype type, const uint8_t *p, double *out) {
    if (type == GGUF_F32) {
        uint32_t bits = read_u32(p);
        float f;
        memcpy(&f, &bits, sizeof f);
        *out = (double)f;
        return true;
    }
    if (type == GGUF_F64) {
        uint64_t bits = read_u64(p);
        memcpy(out, &bits, sizeof *out);
        return true;
    }
    bool negative;
    uint64_t magnitude;
    if (!value_integer(type, p, &negative, &magnitude)) {
        return false;
    }
    *out = negative ? -(double)magnitude : (double)magnitude;
    return true;
}

bool gguf_get_u64(const gguf *g, const char *key, uint64_t *out) {
    const gguf_kv *kv = gguf_find(g, key);
    bool negative;
    uint64_t magnitude;
    if (kv == NULL || !value_integer(kv->type, kv->data, &negative, &magnitude) || negative) {
        return false;
    }
    *out = magnitude;
    return true;
}

bool gguf_get_f64(const gguf *g, const char *key, double *out) {
    const gguf_kv *kv = gguf_find(g, key);
    return kv != NULL && value_real(kv->type, kv->data, out);
}

bool gguf_get_bool(const gguf *g, const char *key, bool *out) {
    const gguf_kv *kv = gguf_find(g, key);
    if (kv == NULL || kv->type != GGUF_BOOL) {
        return false;
    }
    *out = kv->data[0] != 0;
    return true;
}

bool gguf_get_str(const gguf *g, const char *key, gguf_str *out) {
    const gguf_kv *kv = gguf_find(g, key);
    if (kv == NULL || kv->type != GGUF_STRING) {
        return false;
    }
    *out = (gguf_str){(const char *)kv->data + 8, (size_t)read_u64(kv->data)};
    return true;
}

/* What is common to the needs: the key must be there. */
static cmc_status need_key(const gguf *g, const char *key, const gguf_kv **out, cmc_error *err) {
    *out = gguf_find(g, key);
    return *out != NULL ? CMC_OK : cmc_fail(err, CMC_E_FORMAT, "%s: has no key '%s'", g->file.path, key);
}

cmc_status gguf_need_u64(const gguf *g, const char *key, uint64_t lo, uint64_t hi, uint64_t *out, cmc_error *err) {
    const gguf_kv *kv;
    CMC_TRY(need_key(g, key, &kv, err));
    bool negative;
    uint64_t magnitude;
    if (!value_integer(kv->type, kv->data, &negative, &magnitude)) {
        return cmc_fail(err, CMC_E_FORMAT, "%s: key '%s' is of type %s, an integer would be right", g->file.path, key,
                        gguf_vtype_name(kv->type));
    }
    if (negative || magnitude < lo || magnitude > hi) {
        return cmc_fail(err, CMC_E_FORMAT, "%s: key '%s' is %s%" PRIu64 ", %" PRIu64 " to %" PRIu64 " would be right",
                        g->file.path, key, negative ? "-" : "", magnitude, lo, hi);
    }
    *out = magnitude;
    return CMC_OK;
}

cmc_status gguf_need_f64(const gguf *g, const char *key, double *out, cmc_error *err) {
    const gguf_kv *kv;
    CMC_TRY(need_key(g, key, &kv, err));
    double v;
    if (!value_real(kv->type, kv->data, &v)) {
        return cmc_fail(err, CMC_E_FORMAT, "%s: key '%s' is of type %s, a number would be right", g->file.path, key,
                        gguf_vtype_name(kv->type));
    }
    if (!isfinite(v)) {
        return cmc_fail(err, CMC_E_FORMAT, "%s: key '%s' is %f, a finite number would be right", g->file.path, key, v);
    }
    *out = v;
    return CMC_OK;
}

const gguf_kv *gguf_get_array(const gguf *g, const char *key, gguf_vtype elem) {
    const gguf_kv *kv = gguf_find(g, key);
    return kv != NULL && kv->type == GGUF_ARRAY && kv->elem == elem ? kv : NULL;
}

gguf_str gguf_array_next_str(const gguf_kv *kv, const uint8_t **pos) {
    const uint8_t *p = *pos != NULL ? *pos : kv->data;
    gguf_str s = {(const char *)p + 8, (size_t)read_u64(p)};
    *pos = p + 8 + s.n;
    return s;
}

double gguf_array_f64(const gguf_kv *kv, uint64_t i) {
    double v = NAN;
    value_real(kv->elem, kv->data + i * gguf_value_bytes(kv->elem), &v);
    return v;
}

int64_t gguf_array_i64(const gguf_kv *kv, uint64_t i) {
    const uint8_t *p = kv->data + i * gguf_value_bytes(kv->elem);
    bool negative;
    uint64_t magnitude;
    if (kv->elem == GGUF_BOOL) {
        return p[0];
    }
    if (!value_integer(kv->elem, p, &negative, &magnitude)) {
        return 0;
    }
    if (!negative && magnitude > INT64_MAX) {
        return INT64_MAX; /* the one case that does not fit: ids and counts that large are out of any range anyway */
    }
    return negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
}
