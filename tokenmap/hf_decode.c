/* The bytes that a token stands for, by what the file's decoder does to a token alone. */
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "tokenmap/hf.h"

static cmc_status decode_add(const hf_src *src, const char *part, hf_str from, hf_str to, hf_decode *d) {
    if (d->n_replaces == HF_MAX_REPLACES || from.n == 0 || from.n >= sizeof d->replace[0].from || to.n > from.n) {
        return hf_unknown(src, part, "a replacement of such length");
    }
    memcpy(d->replace[d->n_replaces].from, from.s, from.n);
    memcpy(d->replace[d->n_replaces].to, to.s, to.n);
    d->replace[d->n_replaces].n_from = from.n;
    d->replace[d->n_replaces++].n_to = to.n;
    return CMC_OK;
}

static cmc_status decode_metaspace(const hf_src *src, int32_t cp, hf_decode *d) {
    uint8_t c[4];
    size_t n = cmc_utf8_encode(cp, c);
    return decode_add(src, "decoder Metaspace", (hf_str){(const char *)c, n}, (hf_str){" ", 1}, d);
}

static cmc_status decode_replace(const hf_src *src, const json_t *o, hf_decode *d) {
    const json_t *p = json_object_get(o, "pattern");
    hf_str from, to;
    if (!json_is_object(p) || json_object_get(p, "String") == NULL) {
        return hf_unknown(src, "decoder Replace", "a pattern other than a String");
    }
    CMC_TRY(hf_get_str(src, p, "decoder Replace", "String", &from));
    CMC_TRY(hf_get_str(src, o, "decoder Replace", "content", &to));
    return decode_add(src, "decoder Replace", from, to, d);
}

static cmc_status decode_read(const hf_src *src, const json_t *o, int depth, hf_decode *d) {
    hf_str type, s;
    int32_t cp;
    CMC_TRY(hf_get_type(src, o, "decoder", &type));
    if (hf_is(type, "Sequence")) {
        const json_t *list;
        CMC_TRY(hf_get_list(src, o, "decoder Sequence", "decoders", &list));
        if (depth > HF_MAX_DEPTH) {
            return hf_unknown(src, "decoder", "a Sequence of so many parts");
        }
        for (size_t i = 0; i < json_array_size(list); i++) {
            CMC_TRY(decode_read(src, json_array_get(list, i), depth + 1, d));
        }
        return CMC_OK;
    }
    if (hf_is(type, "ByteLevel")) {
        d->byte_level = true;
    } else if (hf_is(type, "Replace")) {
        return decode_replace(src, o, d);
    } else if (hf_is(type, "Metaspace")) {
        CMC_TRY(hf_get_char(src, o, "decoder Metaspace", "replacement", &cp));
        return decode_metaspace(src, cp, d);
    } else if (hf_is(type, "BPEDecoder")) {
        CMC_TRY(hf_get_str(src, o, "decoder BPEDecoder", "suffix", &s));
        return decode_add(src, "decoder BPEDecoder", s, (hf_str){" ", 1}, d);
    } else if (hf_is(type, "WordPiece")) {
        CMC_TRY(hf_get_str(src, o, "decoder WordPiece", "prefix", &s));
        if (s.n >= sizeof d->prefix) {
            return hf_unknown(src, "decoder WordPiece", "a prefix of such length");
        }
        memcpy(d->prefix, s.s, s.n);
    } else if (!hf_is(type, "ByteFallback") && !hf_is(type, "Fuse") && !hf_is(type, "Strip")) {
        return hf_unknown(src, "decoder", type.s); /* those three act on a sequence of tokens */
    }
    return CMC_OK;
}

/* Without a decoder, what the pre-tokenizer does to a text is undone. */
cmc_status hf_decode_read(const hf_src *src, const json_t *decoder, const hf_norm *norm, const hf_pretok *p,
                          hf_decode *out) {
    *out = (hf_decode){0};
    if (decoder != NULL && !json_is_null(decoder)) {
        return decode_read(src, decoder, 0, out);
    }
    int32_t mark = hf_pretok_metaspace(p);
    out->byte_level = hf_pretok_byte_level(p) || hf_norm_byte_level(norm);
    return mark > 0 ? decode_metaspace(src, mark, out) : CMC_OK;
}

/* Characters of the GPT-2 alphabet become their bytes; a spelling with any other character stands for itself. */
static size_t decode_alphabet(const char *s, size_t n, uint8_t *out) {
    size_t k = 0;
    for (size_t i = 0, len; i < n; i += len) {
        int b = bpe_char_byte(cmc_utf8_decode((const uint8_t *)s + i, n - i, &len));
        if (b < 0) {
            memcpy(out, s, n);
            return n;
        }
        out[k++] = (uint8_t)b;
    }
    return k;
}

static size_t decode_replaced(uint8_t *s, size_t n, const char *from, size_t n_from, const char *to, size_t n_to) {
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        if (n - i >= n_from && memcmp(s + i, from, n_from) == 0) {
            memcpy(s + k, to, n_to);
            k += n_to;
            i += n_from;
        } else {
            s[k++] = s[i++];
        }
    }
    return k;
}

size_t hf_decode_token(const hf_decode *d, cmc_token_kind kind, const char *s, size_t n, uint8_t *out) {
    size_t prefix = strlen(d->prefix);
    if (prefix > 0 && n > prefix && memcmp(s, d->prefix, prefix) == 0) {
        s += prefix;
        n -= prefix;
    }
    if (d->byte_level && kind == CMC_KIND_NORMAL) { /* added tokens are spelled as they are */
        return decode_alphabet(s, n, out);
    }
    memcpy(out, s, n);
    for (size_t i = 0; i < d->n_replaces; i++) {
        n = decode_replaced(out, n, d->replace[i].from, d->replace[i].n_from, d->replace[i].to, d->replace[i].n_to);
    }
    return n;
}
