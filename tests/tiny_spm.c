/* A SentencePiece .model by hand: protobuf wire format, the fields of sentencepiece_model.proto. */
#include "tests/tiny.h"
#include "base/error.h"
#include "base/mem.h"
#include "tests/tiny_vocab.h"

#include <stdlib.h>
#include <string.h>

enum { WIRE_VARINT = 0, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

typedef struct message { uint8_t *data; size_t n, cap; bool failed; } message;

static void put(message *m, const void *data, size_t n) {
    void *v = m->data;
    if (m->failed || !cmc_grow(&v, &m->cap, m->n + n, 1)) {
        m->failed = true;
        return;
    }
    m->data = v;
    if (n > 0) {
        memcpy(m->data + m->n, data, n);
        m->n += n;
    }
}

static void put_varint(message *m, uint64_t v) {
    for (; v >= 0x80; v >>= 7) {
        put(m, &(uint8_t){(uint8_t)(v | 0x80)}, 1);
    }
    put(m, &(uint8_t){(uint8_t)v}, 1);
}

static void put_tag(message *m, unsigned field, unsigned wire) { put_varint(m, field << 3 | wire); }

static void put_int(message *m, unsigned field, int64_t v) {
    put_tag(m, field, WIRE_VARINT);
    put_varint(m, (uint64_t)v); /* a negative int32 is ten bytes, as protobuf has it */
}

static void put_float(message *m, unsigned field, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    uint8_t b[4] = {(uint8_t)bits, (uint8_t)(bits >> 8), (uint8_t)(bits >> 16), (uint8_t)(bits >> 24)};
    put_tag(m, field, WIRE_FIXED32);
    put(m, b, sizeof b);
}

static void put_blob(message *m, unsigned field, const void *data, size_t n) {
    put_tag(m, field, WIRE_BYTES);
    put_varint(m, n);
    put(m, data, n);
}

/* Takes the part's bytes over and frees it. */
static void put_message(message *m, unsigned field, message *part) {
    put_blob(m, field, part->data, part->n);
    m->failed = m->failed || part->failed;
    free(part->data);
}

/* User-defined spaces are spelt U+2581 here; GGUF has them plain. */
static void put_piece(message *m, const char *token, float score, int32_t type) {
    message piece = {0}, text = {0};
    for (; *token != '\0'; token++) {
        bool space = *token == ' ';
        put(&text, space ? "\342\226\201" : token, space ? 3 : 1);
    }
    put_message(&piece, 1, &text);
    put_float(&piece, 2, score);
    put_int(&piece, 3, type);
    put_message(m, 1, &piece);
}

static message spm_model(const tiny_vocab *v, bool dummy_prefix) {
    message m = {0}, trainer = {0}, normalizer = {0};
    for (size_t i = 0; i < v->n; i++) {
        /* the library insists on one piece of type UNKNOWN; GGUF files of Gemma call it a control token */
        put_piece(&m, v->tokens[i], v->scores[i], (int32_t)i == v->unk ? TINY_UNKNOWN : v->types[i]);
    }
    put_int(&trainer, 3, 2); /* model_type BPE */
    put_int(&trainer, 4, (int64_t)v->n);
    put_int(&trainer, 35, 1); /* byte_fallback */
    put_int(&trainer, 40, v->unk);
    put_int(&trainer, 41, v->bos);
    put_int(&trainer, 42, v->eos);
    put_int(&trainer, 43, v->pad);
    const int32_t ids[] = {v->unk, v->bos, v->eos, v->pad}; /* fields 45 to 48: their spellings */
    for (unsigned i = 0; i < 4; i++) {
        if (ids[i] >= 0) {
            put_blob(&trainer, 45 + i, v->tokens[ids[i]], strlen(v->tokens[ids[i]]));
        }
    }
    put_message(&m, 2, &trainer);
    put_blob(&normalizer, 1, "identity", 8);
    put_int(&normalizer, 3, dummy_prefix);
    put_int(&normalizer, 4, 0); /* remove_extra_whitespaces */
    put_int(&normalizer, 5, 1); /* escape_whitespaces */
    put_message(&m, 3, &normalizer);
    return m;
}

cmc_status tiny_write_spm_model(const tiny_spec *spec, const char *path, cmc_error *err) {
    tiny_spec s = *spec;
    s.vocab = "spm";
    s.arch = s.arch != NULL ? s.arch : "llama";
    tiny_vocab v;
    if (!tiny_vocab_make(&s, &v)) {
        return cmc_fail_nomem(err, "a vocabulary", 0);
    }
    message m = spm_model(&v, strcmp(s.arch, "gemma3") != 0);
    tiny_vocab_free(&v);
    cmc_writer *w = NULL;
    cmc_status status = m.failed ? cmc_fail_nomem(err, "a vocabulary", m.n) : cmc_writer_open(path, &w, err);
    if (status == CMC_OK) {
        status = cmc_writer_put(w, m.data, m.n, err);
        if (status == CMC_OK) {
            status = cmc_writer_commit(w, err);
        } else {
            cmc_writer_abort(w);
        }
    }
    free(m.data);
    return status;
}
