/* BPE: merges by rank within a pre-token, from bytes (GPT-2 and most others) or from characters (Gemma 4). */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/tok.h"

typedef struct merge { uint64_t pair; uint32_t rank; int32_t id; } merge;   /* pair: left id << 32 | right id */

struct tok_bpe {
    merge *slot;              /* open addressing; id -1: free */
    size_t mask;
    idmap whole;              /* bytes of normal tokens, for pre-tokenizers that look for a whole part first */
    idmap chars;              /* bytes of normal tokens, where merging starts from characters */
    pretok *pre;
    int32_t byte_id[256];     /* where merging starts: the token spelled as the byte's character, or -1; from
                               * characters: the byte's own token, for characters that have none */
};

/* ---------------------------------------------------------------------------------------- the GPT-2 alphabet
 * Printable Latin-1 characters stand for themselves; the other 68 bytes, in order, for U+0100 and on. */
static bool bpe_byte_plain(unsigned b) {
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

int32_t bpe_byte_char(uint8_t b) {
    if (bpe_byte_plain(b)) {
        return b;
    }
    return b <= 0x20 ? 0x100 + b : b <= 0xa0 ? 0x100 + 33 + (b - 0x7f) : 0x100 + 67;
}

int bpe_char_byte(int32_t cp) {
    if (cp >= 0 && cp < 0x100) {
        return bpe_byte_plain((unsigned)cp) ? cp : -1;
    }
    int k = cp - 0x100;
    return k < 0 || k > 67 ? -1 : k <= 32 ? k : k < 67 ? 0x7f + (k - 33) : 0xad;
}

/* ------------------------------------------------------------------------------------------------- loading */
static size_t bpe_slot(const struct tok_bpe *b, uint64_t pair) {
    size_t i = (size_t)((pair * 0x9e3779b97f4a7c15u) >> 24) & b->mask;
    while (b->slot[i].id >= 0 && b->slot[i].pair != pair) {
        i = (i + 1) & b->mask;
    }
    return i;
}

static const merge *bpe_find(const struct tok_bpe *b, int32_t left, int32_t right) {
    if (left < 0 || right < 0) {
        return NULL;
    }
    const merge *m = &b->slot[bpe_slot(b, (uint64_t)(uint32_t)left << 32 | (uint32_t)right)];
    return m->id < 0 ? NULL : m;
}

/* "left right" -> ids of left, right and leftright. The separating space is the first one after the first character: a
 * spelling has none, for the alphabet writes a space as U+0120. */
static bool bpe_read_merge(const idmap *spelled, gguf_str s, char *joined, int32_t out[3]) {
    const char *space = s.n > 1 ? memchr(s.s + 1, ' ', s.n - 1) : NULL;
    if (space == NULL) {
        return false;
    }
    size_t left = (size_t)(space - s.s), right = s.n - left - 1;
    memcpy(joined, s.s, left);
    memcpy(joined + left, space + 1, right);
    out[0] = idmap_find(spelled, joined, left);
    out[1] = idmap_find(spelled, joined + left, right);
    out[2] = idmap_find(spelled, joined, left + right);
    return out[0] >= 0 && out[1] >= 0 && out[2] >= 0;
}

static cmc_status bpe_add_merges(const cmc_vocab *v, const gguf_kv *kv, const idmap *spelled, char *joined, size_t cap,
                                 cmc_error *err) {
    struct tok_bpe *b = v->bpe;
    const uint8_t *pos = NULL;
    for (uint64_t i = 0; i < kv->n; i++) {
        gguf_str s = gguf_array_next_str(kv, &pos);
        int32_t ids[3];
        if (s.n > cap || !bpe_read_merge(spelled, s, joined, ids)) {
            return cmc_fail(err, CMC_E_FORMAT,
                            "%s: merge %llu, \"%.*s\", is not two tokens and a space whose sum is a token", v->path,
                            (unsigned long long)i, (int)(s.n < 60 ? s.n : 60), s.s);
        }
        merge *m = &b->slot[bpe_slot(b, (uint64_t)(uint32_t)ids[0] << 32 | (uint32_t)ids[1])];
        if (m->id < 0) { /* a repeated merge has the first one's rank */
            *m = (merge){(uint64_t)(uint32_t)ids[0] << 32 | (uint32_t)ids[1], (uint32_t)i, ids[2]};
        }
    }
    return CMC_OK;
}

static cmc_status bpe_load_merges(cmc_vocab *v, const gguf *g, const idmap *spelled, cmc_error *err) {
    const gguf_kv *kv = gguf_get_array(g, "tokenizer.ggml.merges", GGUF_STRING);
    if (kv == NULL || kv->n > INT32_MAX) {
        return cmc_fail(err, CMC_E_FORMAT,
                        "%s: no array of strings tokenizer.ggml.merges, without which \"gpt2\" tokens cannot be merged",
                        v->path);
    }
    size_t slots = 16, cap = v->spell_off[v->n] + 1u; /* a sum is a spelling, so no merge is longer than all of them */
    while (slots < kv->n * 2) {
        slots *= 2;
    }
    struct tok_bpe *b = v->bpe;
    b->slot = cmc_alloc(slots, sizeof *b->slot);
    char *joined = cmc_alloc(cap, 1);
    if (b->slot == NULL || joined == NULL) {
        free(joined);
        return cmc_fail_nomem(err, "merges", slots * sizeof *b->slot);
    }
    memset(b->slot, 0xff, slots * sizeof *b->slot);
    b->mask = slots - 1;
    cmc_status st = bpe_add_merges(v, kv, spelled, joined, cap, err);
    free(joined);
    return st;
}

static bool bpe_index_bytes(const cmc_vocab *v, idmap *out) {
    if (!idmap_init(out, (size_t)v->n, v->bytes, v->byte_off)) {
        return false;
    }
    for (int32_t id = 0; id < v->n; id++) {
        if (v->kind[id] == CMC_KIND_NORMAL) {
            idmap_add(out, id);
        }
    }
    return true;
}

/* The tokens merging starts from, and the index of whole parts. */
static bool bpe_index(cmc_vocab *v, const idmap *spelled) {
    struct tok_bpe *b = v->bpe;
    if (v->marked) {
        memcpy(b->byte_id, v->byte_token, sizeof b->byte_id);
        return bpe_index_bytes(v, &b->chars);
    }
    for (unsigned i = 0; i < 256; i++) {
        uint8_t c[4];
        size_t n = cmc_utf8_encode(bpe_byte_char((uint8_t)i), c);
        b->byte_id[i] = idmap_find(spelled, c, n);
    }
    return !pretok_ignore_merges(b->pre) || bpe_index_bytes(v, &b->whole);
}

cmc_status bpe_new(cmc_vocab *v, const gguf *g, cmc_error *err) {
    v->bpe = cmc_calloc(1, sizeof *v->bpe);
    idmap spelled = {0};
    if (v->bpe == NULL || !idmap_init(&spelled, (size_t)v->n, (const uint8_t *)v->spell, v->spell_off)) {
        return cmc_fail_nomem(err, "a tokenizer", (size_t)v->n * 8);
    }
    for (int32_t id = 0; id < v->n; id++) {
        idmap_add(&spelled, id);
    }
    cmc_status st = pretok_new(v->pre, v->path, &v->bpe->pre, err);
    if (st == CMC_OK) {
        st = bpe_load_merges(v, g, &spelled, err);
    }
    if (st == CMC_OK && !bpe_index(v, &spelled)) {
        st = cmc_fail_nomem(err, "an index of tokens", (size_t)v->n * 8);
    }
    idmap_free(&spelled);
    return st;
}

void bpe_free(struct tok_bpe *b) {
    if (b != NULL) {
        free(b->slot);
        idmap_free(&b->whole);
        idmap_free(&b->chars);
        pretok_free(b->pre);
        free(b);
    }
}

const pretok *bpe_pretok(const struct tok_bpe *b) {
    return b->pre;
}

/* ------------------------------------------------------------------------------------------------- merging */
typedef struct symbol { int32_t id, prev, next; } symbol;    /* id -2: merged away; -1: a byte without a token */
typedef struct candidate { uint64_t order; int32_t a, b, id; } candidate;  /* order: rank << 32 | left symbol */

struct bpe_scratch {
    symbol *sym; size_t sym_cap;
    candidate *heap; size_t n, heap_cap;   /* least order first */
};

bpe_scratch *bpe_scratch_new(void) {
    return cmc_calloc(1, sizeof(bpe_scratch));
}

void bpe_scratch_free(bpe_scratch *s) {
    if (s != NULL) {
        free(s->sym);
        free(s->heap);
        free(s);
    }
}

static void bpe_heap_push(bpe_scratch *sc, candidate c) {
    size_t i = sc->n++;
    for (; i > 0 && sc->heap[(i - 1) / 2].order > c.order; i = (i - 1) / 2) {
        sc->heap[i] = sc->heap[(i - 1) / 2];
    }
    sc->heap[i] = c;
}

static candidate bpe_heap_pop(bpe_scratch *sc) {
    candidate top = sc->heap[0], last = sc->heap[--sc->n];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < sc->n; i = k) {
        k += k + 1 < sc->n && sc->heap[k + 1].order < sc->heap[k].order;
        if (sc->heap[k].order >= last.order) {
            break;
        }
        sc->heap[i] = sc->heap[k];
    }
    sc->heap[i] = last;
    return top;
}

static void bpe_try(const struct tok_bpe *b, bpe_scratch *sc, int32_t left, int32_t right) {
    if (left < 0 || right < 0) {
        return;
    }
    const merge *m = bpe_find(b, sc->sym[left].id, sc->sym[right].id);
    if (m != NULL) {
        bpe_heap_push(
            sc, (candidate){(uint64_t)m->rank << 32 | (uint32_t)left, sc->sym[left].id, sc->sym[right].id, m->id});
    }
}

/* Least rank first, the leftmost of equals. A candidate whose symbols have changed since is stale and skipped. */
static void bpe_merge(const struct tok_bpe *b, bpe_scratch *sc) {
    symbol *sym = sc->sym;
    sc->n = 0;
    for (int32_t i = 0; i >= 0; i = sym[i].next) {
        bpe_try(b, sc, i, sym[i].next);
    }
    while (sc->n > 0) {
        candidate c = bpe_heap_pop(sc);
        int32_t left = (int32_t)(uint32_t)c.order, right = sym[left].next;
        if (sym[left].id != c.a || right < 0 || sym[right].id != c.b) {
            continue;
        }
        sym[left].id = c.id;
        sym[left].next = sym[right].next;
        sym[right].id = -2;
        if (sym[left].next >= 0) {
            sym[sym[left].next].prev = left;
        }
        bpe_try(b, sc, sym[left].prev, left);
        bpe_try(b, sc, left, sym[left].next);
    }
}

/* The token of the character that s[0..n) begins with, and its length. -1 and 1: there is none, or no character begins
 * here, as where merging goes on within one that had none. */
static int32_t bpe_char(const struct tok_bpe *b, const uint8_t *s, size_t n, size_t *len) {
    int32_t cp = cmc_utf8_decode(s, n, len);
    int32_t id = cp < 0 ? -1 : cp == 0x2581 ? idmap_find(&b->chars, " ", 1) : idmap_find(&b->chars, s, *len);
    *len = id < 0 ? 1 : *len;
    return id;
}

static void bpe_symbols(const struct tok_bpe *b, symbol *sym, const uint8_t *s, size_t n) {
    int32_t prev = -1;
    for (size_t i = 0, len = 1; i < n; i += len) {
        int32_t id = b->chars.slot != NULL ? bpe_char(b, s + i, n - i, &len) : -1;
        sym[i] = (symbol){id >= 0 ? id : b->byte_id[s[i]], prev, i + len < n ? (int32_t)(i + len) : -1};
        prev = (int32_t)i;
    }
}

/* The symbols that s[0..n) is merged to, in sc->sym: symbol i begins at byte i. False when memory is out. */
static bool bpe_run(const struct tok_bpe *b, bpe_scratch *sc, const uint8_t *s, size_t n) {
    void *sym = sc->sym, *heap = sc->heap;
    bool ok = cmc_grow(&sym, &sc->sym_cap, n, sizeof *sc->sym);
    sc->sym = sym;
    /* n - 1 candidates at first, at most 2 more for each of at most n - 1 merges. */
    ok = ok && cmc_grow(&heap, &sc->heap_cap, 3 * n, sizeof *sc->heap);
    sc->heap = heap;
    if (!ok) {
        return false;
    }
    bpe_symbols(b, sc->sym, s, n);
    bpe_merge(b, sc);
    return true;
}

int32_t bpe_whole(const cmc_vocab *v, const uint8_t *s, size_t n) {
    return v->bpe->whole.slot != NULL ? idmap_find(&v->bpe->whole, s, n) : -1;
}

/* Bytes without a token give nothing, as in llama.cpp and Hugging Face's tokenizers: SmolLM2 has none for U+0004, say,
 * and its "unknown" token is <|endoftext|>, which no text should turn into. */
bool bpe_word(const cmc_vocab *v, bpe_scratch *sc, const uint8_t *s, size_t n, cmc_ids *out) {
    int32_t whole = bpe_whole(v, s, n);
    if (whole >= 0 || (n == 1 && v->bpe->chars.slot == NULL)) {
        whole = whole >= 0 ? whole : v->bpe->byte_id[s[0]];
        return whole < 0 || cmc_ids_push(out, whole) == CMC_OK;
    }
    if (!bpe_run(v->bpe, sc, s, n)) {
        return false;
    }
    for (int32_t i = 0; i >= 0; i = sc->sym[i].next) {
        if (sc->sym[i].id >= 0 && cmc_ids_push(out, sc->sym[i].id) != CMC_OK) {
            return false;
        }
    }
    return true;
}

bool bpe_pieces(const cmc_vocab *v, bpe_scratch *sc, const uint8_t *s, size_t n, tok_pieces *out) {
    if (!bpe_run(v->bpe, sc, s, n)) {
        return false;
    }
    for (int32_t i = 0, next; i >= 0; i = next) {
        next = sc->sym[i].next;
        uint32_t len = (uint32_t)(next >= 0 ? next : (int32_t)n) - (uint32_t)i;
        if (!tok_pieces_add(out, &(tok_piece){sc->sym[i].id, len}, 1)) {
            return false;
        }
    }
    return true;
}
