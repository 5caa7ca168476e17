/* Writing a SentencePiece model from a vocabulary's pieces and scores. */
#include "tokenmap/spm_wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "tokenmap/idmap.h"

typedef struct wire_out { uint8_t *v; size_t n, cap; bool failed; } wire_out;

static void wire_put(wire_out *w, const void *data, size_t n) {
    void *v = w->v;
    if (w->failed || !cmc_grow(&v, &w->cap, w->n + n, 1)) {
        w->failed = true;
        return;
    }
    w->v = v;
    if (n > 0) {
        memcpy(w->v + w->n, data, n);
    }
    w->n += n;
}

static size_t wire_varint_bytes(uint64_t x, uint8_t out[10]) {
    size_t n = 0;
    for (; x >= 0x80; x >>= 7) {
        out[n++] = (uint8_t)(x | 0x80);
    }
    out[n++] = (uint8_t)x;
    return n;
}

static void wire_put_varint(wire_out *w, unsigned field, uint64_t x) {
    uint8_t b[20];
    size_t n = wire_varint_bytes((uint64_t)field << 3, b);
    wire_put(w, b, n + wire_varint_bytes(x, b + n));
}

static void wire_put_bytes(wire_out *w, unsigned field, const void *data, size_t size) {
    uint8_t b[20];
    size_t n = wire_varint_bytes((uint64_t)field << 3 | 2, b);
    wire_put(w, b, n + wire_varint_bytes(size, b + n));
    wire_put(w, data, size);
}

static void wire_put_piece(wire_out *w, const char *s, size_t n, float score, unsigned type) {
    uint8_t head[64], f[5] = {2 << 3 | 5};
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    for (unsigned k = 0; k < 4; k++) {
        f[1 + k] = (uint8_t)(bits >> 8 * k);
    }
    size_t len = wire_varint_bytes(n, head); /* the piece's length takes as many bytes */
    size_t inner = 1 + len + n + sizeof f + 2;
    size_t at = 0;
    head[at++] = 1 << 3 | 2;
    at += wire_varint_bytes(inner, head + at);
    head[at++] = 1 << 3 | 2;
    at += wire_varint_bytes(n, head + at);
    wire_put(w, head, at);
    wire_put(w, s, n);
    wire_put(w, f, sizeof f);
    wire_put(w, (const uint8_t[]){3 << 3, (uint8_t)type}, 2);
}

/* A spelling that no text has: texts are valid UTF-8. */
static void wire_put_hidden(wire_out *w, int32_t i, unsigned type) {
    char s[24];
    int n = snprintf(s, sizeof s, "\xff%d", i);
    wire_put_piece(w, s, (size_t)n, 0, type);
}

static unsigned spm_wire_type(const cmc_vocab *v, int32_t i, bool byte_fallback) {
    bool empty = v->spell_off[i + 1] == v->spell_off[i];
    switch (v->kind[i]) {
    case CMC_KIND_NORMAL: return empty ? SPM_CONTROL : SPM_NORMAL;
    case CMC_KIND_UNUSED: return empty ? SPM_CONTROL : SPM_UNUSED;
    case CMC_KIND_BYTE: return byte_fallback && v->byte_token[v->bytes[v->byte_off[i]]] == i ? SPM_BYTE : SPM_CONTROL;
    default: return SPM_CONTROL;
    }
}

static void spm_wire_pieces(wire_out *w, const cmc_vocab *v, idmap *seen, int32_t *unk, bool byte_fallback) {
    *unk = -1;
    for (int32_t i = 0; i < v->n; i++) {
        unsigned type = spm_wire_type(v, i, byte_fallback);
        const char *s = v->spell + v->spell_off[i];
        size_t n = v->spell_off[i + 1] - v->spell_off[i];
        if (type == SPM_NORMAL || type == SPM_UNUSED) {
            idmap_add(seen, i);
            if (idmap_find(seen, s, n) != i) {
                type = SPM_CONTROL; /* a repeated spelling: the lowest id is the token */
            }
        }
        if (type == SPM_CONTROL && *unk < 0) {
            *unk = i;
            type = SPM_UNKNOWN;
        }
        if (type == SPM_CONTROL || type == SPM_UNKNOWN) {
            wire_put_hidden(w, i, type);
        } else {
            wire_put_piece(w, s, n, v->score[i], type);
        }
    }
    if (*unk < 0) {
        *unk = v->n;
        wire_put_hidden(w, v->n, SPM_UNKNOWN);
    }
}

static void spm_wire_specs(wire_out *w, bool unigram, bool byte_fallback) {
    wire_out s = {0};
    wire_put_varint(&s, 3, unigram ? SPM_MODEL_UNIGRAM : SPM_MODEL_BPE);
    wire_put_varint(&s, 35, byte_fallback);
    wire_put_bytes(w, 2, s.v, s.n);
    w->failed |= s.failed;
    s.n = 0;
    wire_put_bytes(&s, 1, "identity", 8);
    wire_put_varint(&s, 3, false); /* add_dummy_prefix */
    wire_put_varint(&s, 4, false); /* remove_extra_whitespaces */
    wire_put_varint(&s, 5, true);  /* escape_whitespaces */
    wire_put_bytes(w, 3, s.v, s.n);
    w->failed |= s.failed;
    free(s.v);
}

cmc_status spm_wire_write(const cmc_vocab *v, uint8_t **out, size_t *size, int32_t *unk, bool *byte_fallback,
                          cmc_error *err) {
    *byte_fallback = true;
    for (size_t b = 0; b < 256; b++) {
        *byte_fallback = *byte_fallback && v->byte_token[b] >= 0;
    }
    idmap seen = {0};
    wire_out w = {0};
    if (!idmap_init(&seen, (size_t)v->n, (const uint8_t *)v->spell, v->spell_off)) {
        return cmc_fail_nomem(err, "the SentencePiece model", (size_t)v->n * 8);
    }
    spm_wire_pieces(&w, v, &seen, unk, *byte_fallback);
    spm_wire_specs(&w, v->unigram, *byte_fallback);
    idmap_free(&seen);
    if (w.failed) {
        free(w.v);
        return cmc_fail_nomem(err, "the SentencePiece model", w.cap);
    }
    *out = w.v;
    *size = w.n;
    return CMC_OK;
}
