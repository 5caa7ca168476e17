/* tokenizer.json, read: the tokens with their ids and kinds, then each part of the pipeline. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/hf.h"
#include "tokenmap/vocab_build.h"

/* Ids may have holes, so a number alone would decide how much memory is taken. */
enum { MAX_ID = (1 << 21) - 1, MODEL_BPE = 0, MODEL_UNIGRAM };

typedef struct read_token { hf_str s; uint8_t kind; bool model; } read_token;   /* s.s NULL: no token has the id */

typedef struct reader {
    hf_src src;
    const json_t *root, *model;
    int type;                 /* MODEL_BPE, MODEL_UNIGRAM */
    read_token *token;        /* by id */
    size_t n, cap;
    hf_added_token *added;
    size_t n_added;
} reader;

bool hf_is_object(const uint8_t *data, size_t size) {
    size_t i = cmc_utf8_mark(data, size);
    while (i < size && (data[i] == ' ' || data[i] == '\n' || data[i] == '\r' || data[i] == '\t')) {
        i++;
    }
    return i < size && data[i] == '{';
}

/* ------------------------------------------------------------------------------------------- the model's tokens */
static cmc_status read_type(reader *r) {
    hf_str type;
    r->model = json_object_get(r->root, "model");
    if (!json_is_object(r->model)) {
        return cmc_fail(r->src.err, CMC_E_FORMAT, "%s: no object \"model\", so this is no tokenizer.json", r->src.path);
    }
    CMC_TRY(hf_opt_str(&r->src, r->model, "model", "type", &type));
    if (type.s == NULL) { /* as the oldest files have it */
        bool bpe = json_is_array(json_object_get(r->model, "merges"));
        r->type = bpe ? MODEL_BPE : MODEL_UNIGRAM;
        return bpe || json_is_array(json_object_get(r->model, "vocab"))
                   ? CMC_OK : hf_unknown(&r->src, "model", "one without \"type\" and \"merges\"");
    }
    if (!hf_is(type, "BPE") && !hf_is(type, "Unigram")) {
        return cmc_fail(r->src.err, CMC_E_UNSUPPORTED, "%s: model \"%.40s\" is not understood; BPE and Unigram are",
                        r->src.path, type.s);
    }
    r->type = hf_is(type, "BPE") ? MODEL_BPE : MODEL_UNIGRAM;
    return CMC_OK;
}

/* Room for ids under n. */
static cmc_status read_grow(reader *r, size_t n) {
    void *v = r->token;
    if (n <= r->n) {
        return CMC_OK;
    }
    if (!cmc_grow(&v, &r->cap, n, sizeof *r->token)) {
        return cmc_fail_nomem(r->src.err, "tokens", n * sizeof *r->token);
    }
    r->token = v;
    memset(r->token + r->n, 0, (n - r->n) * sizeof *r->token);
    r->n = n;
    return CMC_OK;
}

static cmc_status read_put(reader *r, hf_str s, json_int_t id, cmc_token_kind kind, bool model) {
    if (id < 0 || id > MAX_ID) {
        return cmc_fail(r->src.err, CMC_E_FORMAT, "%s: token \"%.40s\" has id %lld; ids go from 0 to %d", r->src.path,
                        s.s, (long long)id, MAX_ID);
    }
    CMC_TRY(read_grow(r, (size_t)id + 1));
    read_token *t = &r->token[id];
    if (t->s.s != NULL) {
        return cmc_fail(r->src.err, CMC_E_FORMAT, "%s: tokens \"%.40s\" and \"%.40s\" have the same id, %lld",
                        r->src.path, t->s.s, s.s, (long long)id);
    }
    *t = (read_token){s, (uint8_t)kind, model};
    return CMC_OK;
}

static cmc_status read_bpe_vocab(reader *r) {
    json_t *vocab = json_object_get(r->model, "vocab"), *id;
    const char *key;
    size_t n;
    if (!json_is_object(vocab)) {
        return hf_bad(&r->src, "model BPE", "vocab", "an object of ids");
    }
    json_object_keylen_foreach(vocab, key, n, id) {
        if (!json_is_integer(id)) {
            return cmc_fail(r->src.err, CMC_E_FORMAT, "%s: model BPE: the id of \"%.40s\" is not a number", r->src.path,
                            key);
        }
        CMC_TRY(read_put(r, (hf_str){key, n}, json_integer_value(id), CMC_KIND_NORMAL, true));
    }
    return CMC_OK;
}

static cmc_status read_unigram_vocab(reader *r) {
    const json_t *vocab;
    CMC_TRY(hf_get_list(&r->src, r->model, "model Unigram", "vocab", &vocab));
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const json_t *pair = json_array_get(vocab, i), *s = json_array_get(pair, 0);
        if (json_array_size(pair) != 2 || !json_is_string(s)) {
            return cmc_fail(r->src.err, CMC_E_FORMAT, "%s: model Unigram: token %zu is not [spelling, score]",
                            r->src.path, i);
        }
        CMC_TRY(read_put(r, (hf_str){json_string_value(s), json_string_length(s)}, (json_int_t)i, CMC_KIND_NORMAL,
                         true));
    }
    return CMC_OK;
}

/* Tokens that stand for one byte each, and the one for what is unknown. */
static cmc_status read_model_kinds(reader *r, int32_t *unk) {
    bool bytes = false;
    hf_str name = {NULL, 0};
    const json_t *id = json_object_get(r->model, "unk_id");
    const char *part = r->type == MODEL_BPE ? "model BPE" : "model Unigram";
    CMC_TRY(hf_opt_bool(&r->src, r->model, part, "byte_fallback", &bytes));
    if (r->type == MODEL_BPE) {
        CMC_TRY(hf_opt_str(&r->src, r->model, part, "unk_token", &name));
    }
    *unk = r->type == MODEL_UNIGRAM && json_is_integer(id) && json_integer_value(id) >= 0 &&
                   json_integer_value(id) < (json_int_t)r->n ? (int32_t)json_integer_value(id) : -1;
    for (size_t i = 0; i < r->n; i++) {
        hf_str s = r->token[i].s;
        if (s.s == NULL) {
            continue;
        }
        if (bytes && vocab_byte_spelling(s.s, s.n) >= 0) {
            r->token[i].kind = CMC_KIND_BYTE;
        }
        if (name.s != NULL && s.n == name.n && memcmp(s.s, name.s, s.n) == 0) {
            *unk = (int32_t)i;
        }
    }
    if (*unk >= 0) {
        r->token[*unk].kind = CMC_KIND_CONTROL;
    }
    return CMC_OK;
}

/* ------------------------------------------------------------------------------------------- added tokens */
static cmc_status read_added_fields(reader *r, const json_t *o, hf_added_token *t, json_int_t *id) {
    static const char part[] = "added_tokens";
    const json_t *number = json_object_get(o, "id");
    if (!json_is_object(o) || !json_is_integer(number)) {
        return hf_bad(&r->src, part, "id", "a number");
    }
    *id = json_integer_value(number);
    CMC_TRY(hf_get_str(&r->src, o, part, "content", &t->content));
    CMC_TRY(hf_get_bool(&r->src, o, part, "single_word", &t->single_word));
    CMC_TRY(hf_get_bool(&r->src, o, part, "lstrip", &t->lstrip));
    CMC_TRY(hf_get_bool(&r->src, o, part, "rstrip", &t->rstrip));
    CMC_TRY(hf_get_bool(&r->src, o, part, "normalized", &t->normalized));
    return hf_get_bool(&r->src, o, part, "special", &t->special);
}

/* Where a token of this content is among those added so far; n_added where it is not. */
static size_t read_added_find(const reader *r, int32_t id) {
    size_t i = 0;
    while (i < r->n_added && r->added[i].id != id) {
        i++;
    }
    return i;
}

/* An added token has the id of the model's token of that spelling, else the next one after all; the package gives it
 * that id whatever the file says, so a file that says another is refused. `model` knows the spellings by id. */
static cmc_status read_added_token(reader *r, const json_t *o, const idmap *model, json_int_t *next, bool *seen) {
    hf_added_token t = {0};
    json_int_t declared = -1;
    CMC_TRY(read_added_fields(r, o, &t, &declared));
    if (t.content.n == 0) {
        return CMC_OK;
    }
    json_int_t id = idmap_find(model, t.content.s, t.content.n);
    bool again = id < 0 && declared >= 0 && declared < (json_int_t)r->n && seen[declared] &&
                 r->token[declared].s.n == t.content.n &&
                 memcmp(r->token[declared].s.s, t.content.s, t.content.n) == 0;
    id = id >= 0 ? id : again ? declared : *next;
    if (declared != id) {
        return cmc_fail(r->src.err, CMC_E_FORMAT, "%s: added token \"%.40s\" has id %lld where its place gives it %lld",
                        r->src.path, t.content.s, (long long)declared, (long long)id);
    }
    if (id == *next && !again) {
        CMC_TRY(read_put(r, t.content, id, CMC_KIND_NORMAL, false));
        ++*next;
    }
    t.id = (int32_t)id;
    read_token *slot = &r->token[id];
    slot->kind = t.special || slot->kind == CMC_KIND_CONTROL ? CMC_KIND_CONTROL
                 : slot->kind == CMC_KIND_BYTE               ? CMC_KIND_BYTE
                                                             : CMC_KIND_USER;
    size_t at = seen[id] ? read_added_find(r, t.id) : r->n_added; /* the last of equal ones counts */
    seen[id] = true;
    r->added[at] = t;
    r->n_added += at == r->n_added;
    return CMC_OK;
}

static cmc_status read_added(reader *r, const idmap *model, size_t n_model) {
    const json_t *list = json_object_get(r->root, "added_tokens");
    size_t n = json_array_size(list);
    json_int_t next = (json_int_t)n_model;
    if (list != NULL && !json_is_null(list) && !json_is_array(list)) {
        return hf_bad(&r->src, "file", "added_tokens", "a list");
    }
    bool *seen = cmc_calloc(r->n + n + 1, sizeof *seen);
    r->added = cmc_calloc(n, sizeof *r->added);
    cmc_status st = CMC_OK;
    if (seen == NULL || r->added == NULL) {
        st = cmc_fail_nomem(r->src.err, "added tokens", n * sizeof *r->added);
    }
    for (size_t i = 0; i < n && st == CMC_OK; i++) {
        st = read_added_token(r, json_array_get(list, i), model, &next, seen);
    }
    free(seen);
    return st;
}

/* ------------------------------------------------------------------------------------------- putting it together */
/* The model's spellings, to look up added tokens by. */
static cmc_status read_model_index(const reader *r, hf_text *text, uint32_t **off, idmap *map, size_t *count) {
    *count = 0;
    *off = cmc_calloc(r->n + 1, sizeof **off);
    bool ok = *off != NULL;
    for (size_t i = 0; i < r->n && ok; i++) {
        ok = hf_put(text, r->token[i].s.s, r->token[i].s.n);
        (*off)[i + 1] = (uint32_t)text->n;
    }
    if (!ok || !hf_put(text, "", 1) || !idmap_init(map, r->n, text->s, *off)) {
        return cmc_fail_nomem(r->src.err, "an index of tokens", r->n * 8);
    }
    for (size_t i = r->n; i-- > 0;) { /* the last of equal ones counts */
        if (r->token[i].s.s != NULL && idmap_find(map, r->token[i].s.s, r->token[i].s.n) < 0) {
            idmap_add(map, (int32_t)i);
            ++*count;
        }
    }
    return CMC_OK;
}

static cmc_status read_tokens(reader *r, int32_t *unk) {
    hf_text text = {0};
    uint32_t *off = NULL;
    idmap map = {0};
    size_t count;
    CMC_TRY(r->type == MODEL_BPE ? read_bpe_vocab(r) : read_unigram_vocab(r));
    CMC_TRY(read_model_kinds(r, unk));
    cmc_status st = read_model_index(r, &text, &off, &map, &count);
    /* The package counts a BPE model's spellings, and a Unigram model's entries. */
    st = st == CMC_OK ? read_added(r, &map, r->type == MODEL_BPE ? count : r->n) : st;
    idmap_free(&map);
    free(off);
    free(text.s);
    return st;
}

static cmc_status read_vocab(reader *r, int32_t unk, cmc_vocab **out) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < r->n; i++) {
        bytes += r->token[i].s.n;
    }
    CMC_TRY(vocab_new(r->src.path, VOCAB_HF, r->n, bytes, out, r->src.err));
    cmc_vocab *v = *out;
    v->unk = unk;
    v->hf = cmc_calloc(1, sizeof *v->hf);
    if (v->hf == NULL || !idmap_init(&v->hf->ids, r->n, (const uint8_t *)v->spell, v->spell_off)) {
        return cmc_fail_nomem(r->src.err, "a tokenizer", r->n * 8);
    }
    for (int32_t i = 0; i < v->n; i++) {
        const read_token *t = &r->token[i];
        vocab_set_token(v, i, t->s.s, t->s.n, t->s.s == NULL ? CMC_KIND_UNUSED : (cmc_token_kind)t->kind);
        v->marked = v->marked || t->kind == CMC_KIND_BYTE;
    }
    for (int32_t i = v->n - 1; i >= 0; i--) { /* the last of equal ones counts */
        const read_token *t = &r->token[i];
        if (t->s.s != NULL && t->model) {
            idmap_add(&v->hf->ids, i);
        }
    }
    return CMC_OK;
}

static cmc_status read_parts(const reader *r, cmc_vocab *v) {
    const hf_src *src = &r->src;
    struct tok_hf *hf = v->hf;
    hf_str version;
    CMC_TRY(hf_opt_str(src, r->root, "file", "version", &version));
    if (version.s != NULL && !hf_is(version, "1.0")) {
        return hf_unknown(src, "version", version.s);
    }
    const json_t *truncation = json_object_get(r->root, "truncation");
    if (truncation != NULL && !json_is_null(truncation)) {
        return hf_unknown(src, "truncation", "anything but null");
    }
    CMC_TRY(hf_norm_new(src, json_object_get(r->root, "normalizer"), &hf->norm));
    CMC_TRY(hf_pretok_new(src, json_object_get(r->root, "pre_tokenizer"), &hf->pretok));
    CMC_TRY(hf_decode_read(src, json_object_get(r->root, "decoder"), hf->norm, hf->pretok, &hf->decode));
    CMC_TRY(hf_added_new(src, r->added, r->n_added, hf->norm, &hf->added));
    return r->type == MODEL_BPE ? hf_bpe_new(src, r->model, &hf->ids, &hf->bpe)
                                : hf_unigram_new(src, r->model, v, &hf->ids, &hf->unigram);
}

static cmc_status read_all(reader *r, cmc_vocab **out) {
    int32_t unk = -1;
    CMC_TRY(read_type(r));
    CMC_TRY(read_tokens(r, &unk));
    if (r->n == 0) {
        return cmc_fail(r->src.err, CMC_E_FORMAT, "%s: a tokenizer without tokens", r->src.path);
    }
    CMC_TRY(read_vocab(r, unk, out));
    CMC_TRY(read_parts(r, *out));
    CMC_TRY(hf_roles_config(r->src.path, *out, r->src.err));
    CMC_TRY(hf_roles_read(&r->src, r->root, *out));
    return vocab_finish(*out, -1, r->src.err);
}

cmc_status vocab_from_hf(const uint8_t *data, size_t size, const char *path, cmc_vocab **out, cmc_error *err) {
    json_error_t bad;
    size_t bom = cmc_utf8_mark(data, size);
    *out = NULL;
    json_t *root = json_loadb((const char *)data + bom, size - bom, JSON_ALLOW_NUL, &bad);
    if (root == NULL) {
        return cmc_fail(err, CMC_E_FORMAT, "%s: no JSON that can be read: %s in line %d", path, bad.text, bad.line);
    }
    reader r = {.src = {path, err}, .root = root};
    cmc_status st = read_all(&r, out);
    free(r.token);
    free(r.added);
    json_decref(root);
    if (st != CMC_OK) {
        cmc_vocab_free(*out);
        *out = NULL;
    }
    return st;
}
