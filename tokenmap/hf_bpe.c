/* BPE on characters, as the package `tokenizers` does it: byte fallback, unknown characters, prefixes and suffixes. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/hf.h"

typedef struct bpe_merge { uint64_t pair; uint32_t rank; int32_t id; } bpe_merge;    /* pair: left << 32 | right */

enum { NO_UNK = -1, UNK_MISSING = -2, MAX_AFFIX = 64 };

struct hf_bpe {
    const idmap *ids;
    bpe_merge *slot;          /* open addressing; id -1: free */
    size_t mask;
    int32_t byte_id[256];     /* tokens <0x00> to <0xFF>, -1 where there is none */
    int32_t unk;
    bool byte_fallback, fuse_unk, ignore_merges;
    char prefix[MAX_AFFIX], suffix[MAX_AFFIX];
    size_t n_prefix, n_suffix;
};

/* ------------------------------------------------------------------------------------------------- reading */
static size_t bpe_slot(const hf_bpe *b, uint64_t pair) {
    size_t i = (size_t)((pair * 0x9e3779b97f4a7c15u) >> 24) & b->mask;
    while (b->slot[i].id >= 0 && b->slot[i].pair != pair) {
        i = (i + 1) & b->mask;
    }
    return i;
}

static uint64_t bpe_pair(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* "a b" or ["a", "b"]. */
static bool bpe_merge_parts(const json_t *m, hf_str part[2]) {
    if (json_is_array(m)) {
        for (size_t k = 0; k < 2; k++) {
            const json_t *s = json_array_get(m, k);
            part[k] = (hf_str){json_string_value(s), json_string_length(s)};
        }
        return json_array_size(m) == 2 && part[0].s != NULL && part[1].s != NULL;
    }
    const char *s = json_string_value(m);
    size_t n = json_string_length(m);
    const char *space = s != NULL ? memchr(s, ' ', n) : NULL;
    if (space == NULL || memchr(space + 1, ' ', n - (size_t)(space + 1 - s)) != NULL) {
        return false;
    }
    part[0] = (hf_str){s, (size_t)(space - s)};
    part[1] = (hf_str){space + 1, n - part[0].n - 1};
    return true;
}

static bool bpe_merge_ids(const hf_bpe *b, const hf_str part[2], hf_text *joined, int32_t id[3]) {
    if (part[1].n < b->n_prefix) {
        return false;
    }
    joined->n = 0;
    if (!hf_put(joined, part[0].s, part[0].n) ||
        !hf_put(joined, part[1].s + b->n_prefix, part[1].n - b->n_prefix)) {
        return false;
    }
    id[0] = idmap_find(b->ids, part[0].s, part[0].n);
    id[1] = idmap_find(b->ids, part[1].s, part[1].n);
    id[2] = idmap_find(b->ids, joined->s, joined->n);
    return id[0] >= 0 && id[1] >= 0 && id[2] >= 0;
}

static cmc_status bpe_read_merges(const hf_src *src, const json_t *list, hf_bpe *b) {
    hf_text joined = {0};
    uint32_t rank = 0;
    cmc_status st = CMC_OK;
    for (size_t i = 0; i < json_array_size(list) && st == CMC_OK; i++) {
        const json_t *m = json_array_get(list, i);
        hf_str part[2];
        int32_t id[3];
        if (json_is_string(m) && strncmp(json_string_value(m), "#version", 8) == 0) {
            continue;
        }
        if (!bpe_merge_parts(m, part) || !bpe_merge_ids(b, part, &joined, id)) {
            st = cmc_fail(src->err, CMC_E_FORMAT,
                          "%s: model BPE: merge %zu is not two tokens of the vocabulary whose sum is one", src->path,
                          i);
            break;
        }
        /* A repeated merge has the last one's rank. */
        b->slot[bpe_slot(b, bpe_pair(id[0], id[1]))] = (bpe_merge){bpe_pair(id[0], id[1]), rank++, id[2]};
    }
    free(joined.s);
    return st;
}

static cmc_status bpe_alloc_merges(const hf_src *src, const json_t *model, hf_bpe *b) {
    const json_t *list;
    CMC_TRY(hf_get_list(src, model, "model BPE", "merges", &list));
    size_t slots = 16;
    while (slots < json_array_size(list) * 2) {
        slots *= 2;
    }
    b->slot = cmc_alloc(slots, sizeof *b->slot);
    if (b->slot == NULL) {
        return cmc_fail_nomem(src->err, "merges", slots * sizeof *b->slot);
    }
    memset(b->slot, 0xff, slots * sizeof *b->slot);
    b->mask = slots - 1;
    return bpe_read_merges(src, list, b);
}

static cmc_status bpe_affix(const hf_src *src, const json_t *model, const char *key, char out[MAX_AFFIX], size_t *n) {
    hf_str s;
    CMC_TRY(hf_opt_str(src, model, "model BPE", key, &s));
    if (s.n >= MAX_AFFIX) {
        return hf_bad(src, "model BPE", key, "of under 64 bytes");
    }
    memcpy(out, s.s != NULL ? s.s : "", s.n);
    *n = s.n;
    return CMC_OK;
}

static cmc_status bpe_options(const hf_src *src, const json_t *model, hf_bpe *b) {
    static const char part[] = "model BPE";
    const json_t *dropout = json_object_get(model, "dropout");
    hf_str unk;
    if (dropout != NULL && !json_is_null(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0)) {
        return hf_unknown(src, part, "dropout other than null");
    }
    CMC_TRY(hf_opt_bool(src, model, part, "fuse_unk", &b->fuse_unk));
    CMC_TRY(hf_opt_bool(src, model, part, "byte_fallback", &b->byte_fallback));
    CMC_TRY(hf_opt_bool(src, model, part, "ignore_merges", &b->ignore_merges));
    CMC_TRY(bpe_affix(src, model, "continuing_subword_prefix", b->prefix, &b->n_prefix));
    CMC_TRY(bpe_affix(src, model, "end_of_word_suffix", b->suffix, &b->n_suffix));
    CMC_TRY(hf_opt_str(src, model, part, "unk_token", &unk));
    b->unk = unk.s == NULL ? NO_UNK : idmap_find(b->ids, unk.s, unk.n);
    b->unk = unk.s != NULL && b->unk < 0 ? UNK_MISSING : b->unk;
    for (unsigned i = 0; i < 256; i++) {
        static const char hex[] = "0123456789ABCDEF";
        const char s[6] = {'<', '0', 'x', hex[i >> 4], hex[i & 15], '>'};
        b->byte_id[i] = idmap_find(b->ids, s, sizeof s);
    }
    return CMC_OK;
}

cmc_status hf_bpe_new(const hf_src *src, const json_t *model, const idmap *ids, hf_bpe **out) {
    hf_bpe *b = cmc_calloc(1, sizeof *b);
    *out = NULL;
    if (b == NULL) {
        return cmc_fail_nomem(src->err, "a tokenizer", sizeof *b);
    }
    b->ids = ids;
    cmc_status st = bpe_options(src, model, b);
    st = st == CMC_OK ? bpe_alloc_merges(src, model, b) : st;
    if (st != CMC_OK) {
        hf_bpe_free(b);
        return st;
    }
    *out = b;
    return CMC_OK;
}

void hf_bpe_free(hf_bpe *b) {
    if (b != NULL) {
        free(b->slot);
        free(b);
    }
}

/* ------------------------------------------------------------------------------------------------- merging */
typedef struct symbol { int32_t id, prev, next; } symbol;             /* id -1: merged away */
typedef struct candidate { uint64_t order; int32_t id; } candidate;   /* order: rank << 32 | left symbol */

struct hf_symbols {
    symbol *v;
    size_t n, cap;
    candidate *heap;          /* least order first */
    size_t n_heap, heap_cap;
    hf_text word;             /* a character with its prefix and suffix */
};

void hf_symbols_free(struct hf_symbols *s) {
    if (s != NULL) {
        free(s->v);
        free(s->heap);
        free(s->word.s);
        free(s);
    }
}

static bool bpe_push(struct hf_symbols *s, int32_t id) {
    void *v = s->v;
    if (s->n >= INT32_MAX / 2 || !cmc_grow(&v, &s->cap, s->n + 1, sizeof *s->v)) {
        return false;
    }
    s->v = v;
    s->v[s->n] = (symbol){id, (int32_t)s->n - 1, (int32_t)s->n + 1};
    s->n++;
    return true;
}

static bool bpe_heap_push(struct hf_symbols *s, candidate c) {
    void *v = s->heap;
    if (!cmc_grow(&v, &s->heap_cap, s->n_heap + 1, sizeof *s->heap)) {
        return false;
    }
    s->heap = v;
    size_t i = s->n_heap++;
    for (; i > 0 && s->heap[(i - 1) / 2].order > c.order; i = (i - 1) / 2) {
        s->heap[i] = s->heap[(i - 1) / 2];
    }
    s->heap[i] = c;
    return true;
}

static candidate bpe_heap_pop(struct hf_symbols *s) {
    candidate top = s->heap[0], last = s->heap[--s->n_heap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < s->n_heap; i = k) {
        k += k + 1 < s->n_heap && s->heap[k + 1].order < s->heap[k].order;
        if (s->heap[k].order >= last.order) {
            break;
        }
        s->heap[i] = s->heap[k];
    }
    s->heap[i] = last;
    return top;
}

/* A control token never comes of text that is to be nothing but text. */
static bool bpe_allowed(const hf_run *run, int32_t id) {
    return id >= 0 && (run->special || run->v->kind[id] != CMC_KIND_CONTROL);
}

static const bpe_merge *bpe_find(const hf_bpe *b, const hf_run *run, int32_t left, int32_t right) {
    const bpe_merge *m = &b->slot[bpe_slot(b, bpe_pair(left, right))];
    return bpe_allowed(run, m->id) ? m : NULL;
}

static bool bpe_try(const hf_bpe *b, const hf_run *run, int32_t left, int32_t right) {
    struct hf_symbols *s = run->symbols;
    if (left < 0 || right >= (int32_t)s->n) {
        return true;
    }
    const bpe_merge *m = bpe_find(b, run, s->v[left].id, s->v[right].id);
    return m == NULL || bpe_heap_push(s, (candidate){(uint64_t)m->rank << 32 | (uint32_t)left, m->id});
}

/* Least rank first, the leftmost of equals. A candidate counts as long as the pair in its place makes the same token.
 */
static bool bpe_merge_all(const hf_bpe *b, const hf_run *run) {
    struct hf_symbols *s = run->symbols;
    s->n_heap = 0;
    for (int32_t i = 0; i + 1 < (int32_t)s->n; i++) {
        if (!bpe_try(b, run, i, i + 1)) {
            return false;
        }
    }
    while (s->n_heap > 0) {
        candidate c = bpe_heap_pop(s);
        int32_t left = (int32_t)(uint32_t)c.order, right = s->v[left].next;
        if (s->v[left].id < 0 || right >= (int32_t)s->n) {
            continue;
        }
        const bpe_merge *m = bpe_find(b, run, s->v[left].id, s->v[right].id);
        if (m == NULL || m->id != c.id) {
            continue;
        }
        s->v[left].id = c.id;
        s->v[left].next = s->v[right].next;
        s->v[right].id = -1;
        if (s->v[left].next < (int32_t)s->n) {
            s->v[s->v[left].next].prev = left;
        }
        if (!bpe_try(b, run, s->v[left].prev, left) || !bpe_try(b, run, left, s->v[left].next)) {
            return false;
        }
    }
    return true;
}

/* The bytes of a character that is no token, where all of them are tokens. */
static bool bpe_bytes(const hf_bpe *b, const hf_text *word) {
    for (size_t i = 0; i < word->n; i++) {
        if (b->byte_id[word->s[i]] < 0) {
            return false;
        }
    }
    return b->byte_fallback;
}

/* s[0..n) with its prefix and suffix, in symbols->word. */
static bool bpe_affixed(const hf_bpe *b, hf_text *word, const uint8_t *s, size_t n, bool first, bool last) {
    word->n = 0;
    return (first || hf_put(word, b->prefix, b->n_prefix)) && hf_put(word, s, n) &&
           (!last || hf_put(word, b->suffix, b->n_suffix));
}

/* The symbols that merging begins with. An unknown character waits: the next may be fused with it, and byte tokens
 * overtake it. */
static cmc_status bpe_start(const hf_bpe *b, hf_run *run, const uint8_t *s, size_t n) {
    struct hf_symbols *sym = run->symbols;
    bool unk = false, ok = true;
    sym->n = 0;
    for (size_t i = 0, len; i < n && ok; i += len) {
        cmc_utf8_decode(s + i, n - i, &len);
        ok = bpe_affixed(b, &sym->word, s + i, len, i == 0, i + len == n);
        int32_t id = ok ? idmap_find(b->ids, sym->word.s, sym->word.n) : -1;
        if (bpe_allowed(run, id)) {
            ok = ok && (!unk || bpe_push(sym, b->unk)) && bpe_push(sym, id);
            unk = false;
        } else if (bpe_bytes(b, &sym->word)) {
            for (size_t k = 0; k < sym->word.n && ok; k++) {
                ok = bpe_push(sym, b->byte_id[sym->word.s[k]]);
            }
        } else if (b->unk == UNK_MISSING) {
            return cmc_fail(run->err, CMC_E_FORMAT, "%s: model BPE: \"unk_token\" is no token of the vocabulary",
                            run->v->path);
        } else if (b->unk >= 0) {
            ok = ok && (!unk || b->fuse_unk || bpe_push(sym, b->unk));
            unk = true;
        }
    }
    ok = ok && (!unk || bpe_push(sym, b->unk));
    return ok ? CMC_OK : cmc_fail_nomem(run->err, "ids of a text", n);
}

cmc_status hf_bpe_run(const hf_bpe *b, hf_run *run, const uint8_t *s, size_t n) {
    int32_t whole = b->ignore_merges ? idmap_find(b->ids, s, n) : -1;
    if (run->symbols == NULL && (run->symbols = cmc_calloc(1, sizeof *run->symbols)) == NULL) {
        return cmc_fail_nomem(run->err, "a tokenizer", sizeof *run->symbols);
    }
    if (bpe_allowed(run, whole)) {
        return cmc_ids_push(run->out, whole) == CMC_OK ? CMC_OK : cmc_fail_nomem(run->err, "ids of a text", n);
    }
    CMC_TRY(bpe_start(b, run, s, n));
    bool ok = bpe_merge_all(b, run);
    const struct hf_symbols *sym = run->symbols;
    for (size_t i = 0; i < sym->n && ok; i = (size_t)sym->v[i].next) {
        ok = cmc_ids_push(run->out, sym->v[i].id) == CMC_OK;
    }
    return ok ? CMC_OK : cmc_fail_nomem(run->err, "ids of a text", n);
}
