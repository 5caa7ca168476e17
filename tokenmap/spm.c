/* Tokenising with a SentencePiece vocabulary: libsentencepiece merges, the rest is done here. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "tokenmap/spm_pairs.h"
#include "tokenmap/spm_shim.h"
#include "tokenmap/spm_wire.h"
#include "tokenmap/tok.h"

enum { CHUNK = 4096 };

/* libsentencepiece takes longer to load a large vocabulary than everything else about opening it, and maps and listings
 * do not need it: it is loaded by the first call that tokenises, whichever thread makes it. The same for the pairs. */
struct tok_spm {
    pthread_mutex_t lock;
    _Atomic(spm_shim *) shim;
    _Atomic(spm_pairs *) pairs;
    int32_t unk;              /* the model's unknown piece: not a token that is ever given */
    bool byte_fallback;       /* all 256 byte tokens are there, so nothing is unknown */
    bool local;
};

/* Whether an unused piece is two symbols' sum: each a character or a piece. */
static bool spm_joinable(const cmc_vocab *v, const idmap *pieces, int32_t id) {
    const uint8_t *s = (const uint8_t *)v->spell + v->spell_off[id];
    size_t n = v->spell_off[id + 1] - v->spell_off[id], first = 0;
    for (size_t i = 0, len; i < n; i += len) {
        if (cmc_utf8_decode(s + i, n - i, &len) < 0) {
            return false; /* no text has it */
        }
        first = i == 0 ? len : first;
        bool left = i == first || idmap_find(pieces, s, i) >= 0;
        bool right = i + len == n || idmap_find(pieces, s + i, n - i) >= 0;
        if (i > 0 && left && right) {
            return true;
        }
    }
    return false;
}

static bool spm_find_local(cmc_vocab *v) {
    idmap pieces = {0};
    v->spm->local = true;
    if (!idmap_init(&pieces, (size_t)v->n, (const uint8_t *)v->spell, v->spell_off)) {
        return false;
    }
    for (int32_t i = 0; i < v->n; i++) {
        if (v->kind[i] == CMC_KIND_NORMAL || v->kind[i] == CMC_KIND_UNUSED) {
            idmap_add(&pieces, i);
        }
    }
    for (int32_t i = 0; i < v->n && v->spm->local; i++) {
        v->spm->local = v->kind[i] != CMC_KIND_UNUSED || !spm_joinable(v, &pieces, i);
    }
    idmap_free(&pieces);
    return true;
}

bool spm_local(const cmc_vocab *v) {
    return v->spm->local && !v->unigram;
}

bool spm_cuts(const cmc_vocab *v) {
    return v->spm->local || v->unigram;
}

cmc_status spm_new(cmc_vocab *v, cmc_error *err) {
    v->spm = cmc_calloc(1, sizeof *v->spm);
    if (v->spm == NULL) {
        return cmc_fail_nomem(err, "a tokenizer", sizeof *v->spm);
    }
    pthread_mutex_init(&v->spm->lock, NULL);
    v->spm->local = true;
    bool unused = !v->unigram && memchr(v->kind, CMC_KIND_UNUSED, (size_t)v->n) != NULL;
    return !unused || spm_find_local(v) ? CMC_OK : cmc_fail_nomem(err, "an index of pieces", (size_t)v->n * 8);
}

void spm_free(struct tok_spm *t) {
    if (t != NULL) {
        spm_shim_free(t->shim);
        spm_pairs_free(t->pairs);
        pthread_mutex_destroy(&t->lock);
        free(t);
    }
}

static cmc_status spm_load(const cmc_vocab *v, cmc_error *err) {
    uint8_t *wire;
    size_t size;
    char msg[256];
    CMC_TRY(spm_wire_write(v, &wire, &size, &v->spm->unk, &v->spm->byte_fallback, err));
    spm_shim *shim = spm_shim_load(wire, size, msg, sizeof msg);
    free(wire);
    if (shim == NULL) {
        return cmc_fail(err, CMC_E_FORMAT, "%s: libsentencepiece refuses the vocabulary: %s", v->path, msg);
    }
    atomic_store(&v->spm->shim, shim);
    return CMC_OK;
}

static cmc_status spm_ready(const cmc_vocab *v, spm_shim **out, cmc_error *err) {
    cmc_status st = CMC_OK;
    *out = atomic_load(&v->spm->shim);
    if (*out == NULL) {
        pthread_mutex_lock(&v->spm->lock);
        if (atomic_load(&v->spm->shim) == NULL) {
            st = spm_load(v, err);
        }
        pthread_mutex_unlock(&v->spm->lock);
        *out = atomic_load(&v->spm->shim);
    }
    return st;
}

/* Ids go to one of the two. */
typedef struct spm_sink {
    const cmc_vocab *v;
    const char *text;
    cmc_ids *ids;
    tok_pieces *pieces;
} spm_sink;

static bool spm_put(spm_sink *k, int32_t id, size_t len) {
    if (k->pieces != NULL) {
        return tok_pieces_add(k->pieces, &(tok_piece){id, (uint32_t)len}, 1);
    }
    return id < 0 || cmc_ids_push(k->ids, id) == CMC_OK;
}

/* Characters without a piece: as byte tokens where all their bytes have one, else as the unknown token. */
static bool spm_emit_unknown(spm_sink *k, size_t begin, size_t end) {
    const uint8_t *s = (const uint8_t *)k->text;
    for (size_t i = begin, len; i < end; i += len) {
        cmc_utf8_decode(s + i, end - i, &len);
        bool bytes = true;
        for (size_t j = i; j < i + len; j++) {
            bytes = bytes && k->v->byte_token[s[j]] >= 0;
        }
        for (size_t j = i; bytes && j < i + len; j++) {
            if (!spm_put(k, k->v->byte_token[s[j]], j + 1 == i + len ? len : 0)) {
                return false;
            }
        }
        if (!bytes && !spm_put(k, k->v->unk, len)) {
            return false;
        }
    }
    return true;
}

static bool spm_emit(void *user, int id, size_t begin, size_t end) {
    spm_sink *k = user;
    if (id == k->v->spm->unk && !k->v->spm->byte_fallback) {
        return spm_emit_unknown(k, begin, end);
    }
    return spm_put(k, id, end - begin);
}

static cmc_status spm_find_pairs(const cmc_vocab *v, spm_pairs **out, cmc_error *err) {
    *out = atomic_load(&v->spm->pairs);
    if (*out == NULL) {
        pthread_mutex_lock(&v->spm->lock);
        *out = atomic_load(&v->spm->pairs);
        if (*out == NULL) {
            *out = spm_pairs_new(v);
            atomic_store(&v->spm->pairs, *out);
        }
        pthread_mutex_unlock(&v->spm->lock);
    }
    return *out != NULL ? CMC_OK : cmc_fail_nomem(err, "pairs of characters", (size_t)v->n);
}

cmc_status spm_stable(const cmc_vocab *v, const uint8_t *s, size_t n, size_t from, size_t *out, cmc_error *err) {
    spm_pairs *pairs;
    CMC_TRY(spm_find_pairs(v, &pairs, err));
    *out = spm_pairs_last_cut(pairs, s, n, from);
    return CMC_OK;
}

/* Where to stop for now: all of a short text; of a long one some thousand bytes, up to a cut. Unigram: the first cut,
 * for its sums of scores are rounded, and of two equally good ways the one that wins must not go by what stands before.
 */
static cmc_status spm_chunk(const cmc_vocab *v, const char *s, size_t n, size_t *out, cmc_error *err) {
    const uint8_t *u = (const uint8_t *)s;
    *out = 0;
    if (v->unigram) {
        spm_pairs *pairs;
        CMC_TRY(spm_find_pairs(v, &pairs, err));
        *out = spm_pairs_first_cut(pairs, u, n);
        return CMC_OK;
    }
    for (size_t size = CHUNK; *out == 0 && size < n; size *= 2) {
        CMC_TRY(spm_stable(v, u, cmc_utf8_whole(u, size), 0, out, err));
    }
    *out = *out == 0 ? n : *out;
    return CMC_OK;
}

/* libsentencepiece keeps the whole text's candidates in one heap, which a megabyte makes larger than any cache: a long
 * text goes through it in parts, cut where it makes no difference (spm_pairs.h). */
static cmc_status spm_encode_to(spm_sink sink, const char *s, size_t n, cmc_error *err) {
    const cmc_vocab *v = sink.v;
    bool spans = sink.pieces != NULL;
    spm_shim *shim;
    char msg[256];
    CMC_TRY(spm_ready(v, &shim, err));
    for (size_t i = 0, size; i < n; i += size) {
        CMC_TRY(spm_chunk(v, s + i, n - i, &size, err));
        sink.text = s + i;
        if (!spm_shim_encode(shim, s + i, size, spans || !v->spm->byte_fallback, spm_emit, &sink, msg, sizeof msg)) {
            return msg[0] == '\0'
                       ? cmc_fail_nomem(err, "ids of a text", n)
                       : cmc_fail(err, CMC_E_FORMAT, "%s: libsentencepiece cannot encode a text: %s", v->path, msg);
        }
    }
    return CMC_OK;
}

cmc_status spm_encode(const cmc_vocab *v, const char *s, size_t n, cmc_ids *out, cmc_error *err) {
    return spm_encode_to((spm_sink){.v = v, .ids = out}, s, n, err);
}

cmc_status spm_encode_pieces(const cmc_vocab *v, const char *s, size_t n, tok_pieces *out, cmc_error *err) {
    return spm_encode_to((spm_sink){.v = v, .pieces = out}, s, n, err);
}
