/* Fields of tokenizer.json's objects, with messages that name them. */
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "tokenmap/hf.h"

cmc_status hf_bad(const hf_src *src, const char *part, const char *key, const char *what) {
    return cmc_fail(src->err, CMC_E_FORMAT, "%s: %s: \"%s\" is not %s", src->path, part, key, what);
}

cmc_status hf_unknown(const hf_src *src, const char *part, const char *what) {
    return cmc_fail(src->err, CMC_E_UNSUPPORTED, "%s: %s: %s is not understood", src->path, part, what);
}

cmc_status hf_opt_str(const hf_src *src, const json_t *o, const char *part, const char *key, hf_str *out) {
    const json_t *v = json_object_get(o, key);
    *out = (hf_str){NULL, 0};
    if (v == NULL || json_is_null(v)) {
        return CMC_OK;
    }
    if (!json_is_string(v)) {
        return hf_bad(src, part, key, "a string");
    }
    *out = (hf_str){json_string_value(v), json_string_length(v)};
    return CMC_OK;
}

cmc_status hf_get_str(const hf_src *src, const json_t *o, const char *part, const char *key, hf_str *out) {
    CMC_TRY(hf_opt_str(src, o, part, key, out));
    return out->s == NULL ? hf_bad(src, part, key, "given: a string is needed") : CMC_OK;
}

cmc_status hf_opt_bool(const hf_src *src, const json_t *o, const char *part, const char *key, bool *inout) {
    const json_t *v = json_object_get(o, key);
    if (v == NULL || json_is_null(v)) {
        return CMC_OK;
    }
    if (!json_is_boolean(v)) {
        return hf_bad(src, part, key, "true or false");
    }
    *inout = json_is_true(v);
    return CMC_OK;
}

cmc_status hf_get_bool(const hf_src *src, const json_t *o, const char *part, const char *key, bool *out) {
    return json_is_boolean(json_object_get(o, key)) ? hf_opt_bool(src, o, part, key, out)
                                                    : hf_bad(src, part, key, "true or false");
}

cmc_status hf_get_list(const hf_src *src, const json_t *o, const char *part, const char *key, const json_t **out) {
    *out = json_object_get(o, key);
    return json_is_array(*out) ? CMC_OK : hf_bad(src, part, key, "a list");
}

cmc_status hf_get_char(const hf_src *src, const json_t *o, const char *part, const char *key, int32_t *out) {
    hf_str s;
    size_t len = 0;
    CMC_TRY(hf_get_str(src, o, part, key, &s));
    *out = s.n > 0 ? cmc_utf8_decode((const uint8_t *)s.s, s.n, &len) : -1;
    return *out >= 0 && len == s.n ? CMC_OK : hf_bad(src, part, key, "one character");
}

cmc_status hf_get_type(const hf_src *src, const json_t *o, const char *part, hf_str *out) {
    if (!json_is_object(o)) {
        return cmc_fail(src->err, CMC_E_FORMAT, "%s: %s is not an object with a \"type\"", src->path, part);
    }
    return hf_get_str(src, o, part, "type", out);
}

bool hf_is(hf_str s, const char *name) {
    return s.n == strlen(name) && memcmp(s.s, name, s.n) == 0;
}
