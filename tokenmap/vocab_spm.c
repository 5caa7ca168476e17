/* SentencePiece .model files: the protobuf wire format of sentencepiece_model.proto, read by hand because Debian ships
 * no header for it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "tokenmap/spm_wire.h"
#include "tokenmap/tok.h"
#include "tokenmap/vocab_build.h"

typedef struct wire {
    const uint8_t *p, *end, *start;
    const char *path;
    cmc_error *err;
} wire;

typedef struct wire_field {
    uint32_t number, type;
    uint64_t value;          /* varint */
    const uint8_t *data;     /* length-delimited: size bytes; 32 and 64 bit: the value, little-endian */
    size_t size;
} wire_field;

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static cmc_status wire_bad(const wire *w, const char *what) {
    return cmc_fail(w->err, CMC_E_FORMAT, "%s: no GGUF file, and no SentencePiece model: %s at byte %zu", w->path, what,
                    (size_t)(w->p - w->start));
}

static cmc_status wire_varint(wire *w, uint64_t *out) {
    *out = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (w->p == w->end) {
            return wire_bad(w, "a number is cut off");
        }
        uint8_t b = *w->p++;
        *out |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) {
            return CMC_OK;
        }
    }
    return wire_bad(w, "a number of more than 64 bits");
}

static cmc_status wire_next(wire *w, wire_field *f) {
    uint64_t tag, size = 0;
    CMC_TRY(wire_varint(w, &tag));
    *f = (wire_field){.number = (uint32_t)(tag >> 3), .type = (uint32_t)tag & 7};
    if (tag >> 3 == 0 || tag >> 32 != 0) {
        return wire_bad(w, "a field number that cannot be");
    }
    switch (f->type) {
    case WIRE_VARINT: return wire_varint(w, &f->value);
    case WIRE_64: size = 8; break;
    case WIRE_32: size = 4; break;
    case WIRE_BYTES: CMC_TRY(wire_varint(w, &size)); break;
    default: return wire_bad(w, "a field of a kind that protobuf does not have");
    }
    if (size > (uint64_t)(w->end - w->p)) {
        return wire_bad(w, "a field that is longer than what holds it");
    }
    f->data = w->p;
    f->size = (size_t)size;
    w->p += size;
    return CMC_OK;
}

static wire wire_inside(const wire *w, const wire_field *f) {
    return (wire){f->data, f->data + f->size, w->start, w->path, w->err};
}

static float wire_float(const wire_field *f) {
    uint32_t bits =
        (uint32_t)f->data[0] | (uint32_t)f->data[1] << 8 | (uint32_t)f->data[2] << 16 | (uint32_t)f->data[3] << 24;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* What a model says besides its pieces. Initial values: the schema's defaults. */
typedef struct spm_spec {
    uint64_t n_pieces, piece_bytes;
    uint64_t model_type;
    int32_t unk, bos, eos, pad;
    bool dummy_prefix, remove_extra_spaces, escape_spaces, space_suffix;
    size_t charsmap;         /* bytes of the precompiled normaliser */
} spm_spec;

typedef struct spm_piece { const char *s; size_t n; float score; uint64_t type; } spm_piece;

static cmc_status spm_read_piece(wire w, spm_piece *out) {
    *out = (spm_piece){.s = "", .type = SPM_NORMAL};
    while (w.p < w.end) {
        wire_field f;
        CMC_TRY(wire_next(&w, &f));
        if (f.number == 1 && f.type == WIRE_BYTES) {
            out->s = (const char *)f.data;
            out->n = f.size;
        } else if (f.number == 2 && f.type == WIRE_32) {
            out->score = wire_float(&f);
        } else if (f.number == 3 && f.type == WIRE_VARINT) {
            out->type = f.value;
        }
    }
    return CMC_OK;
}

static cmc_status spm_read_trainer(wire w, spm_spec *spec) {
    while (w.p < w.end) {
        wire_field f;
        CMC_TRY(wire_next(&w, &f));
        if (f.type != WIRE_VARINT) {
            continue;
        }
        switch (f.number) {
        case 3: spec->model_type = f.value; break;
        case 24: spec->space_suffix = f.value != 0; break;
        case 40: spec->unk = (int32_t)f.value; break;
        case 41: spec->bos = (int32_t)f.value; break;
        case 42: spec->eos = (int32_t)f.value; break;
        case 43: spec->pad = (int32_t)f.value; break;
        default: break;
        }
    }
    return CMC_OK;
}

static cmc_status spm_read_normalizer(wire w, spm_spec *spec) {
    while (w.p < w.end) {
        wire_field f;
        CMC_TRY(wire_next(&w, &f));
        if (f.number == 2 && f.type == WIRE_BYTES) {
            spec->charsmap = f.size;
        } else if (f.number == 3 && f.type == WIRE_VARINT) {
            spec->dummy_prefix = f.value != 0;
        } else if (f.number == 4 && f.type == WIRE_VARINT) {
            spec->remove_extra_spaces = f.value != 0;
        } else if (f.number == 5 && f.type == WIRE_VARINT) {
            spec->escape_spaces = f.value != 0;
        }
    }
    return CMC_OK;
}

static cmc_status spm_read_spec(wire w, spm_spec *spec) {
    while (w.p < w.end) {
        wire_field f;
        CMC_TRY(wire_next(&w, &f));
        if (f.number == 1 && f.type == WIRE_BYTES) {
            spm_piece p;
            CMC_TRY(spm_read_piece(wire_inside(&w, &f), &p));
            spec->n_pieces++;
            spec->piece_bytes += p.n;
        } else if (f.number == 2 && f.type == WIRE_BYTES) {
            CMC_TRY(spm_read_trainer(wire_inside(&w, &f), spec));
        } else if (f.number == 3 && f.type == WIRE_BYTES) {
            CMC_TRY(spm_read_normalizer(wire_inside(&w, &f), spec));
        }
    }
    if (spec->n_pieces == 0) {
        return wire_bad(&w, "no pieces up to the end");
    }
    return CMC_OK;
}

/* Whatever changes a text before it is cut into pieces would break "ids stand for the text's bytes": named, not guessed
 * at. */
static cmc_status spm_check_spec(const char *path, const spm_spec *spec, cmc_error *err) {
    static const char *const models[] = {"?", "UNIGRAM", "BPE", "WORD", "CHAR"};
    if (spec->model_type != SPM_MODEL_BPE && spec->model_type != SPM_MODEL_UNIGRAM) {
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: a SentencePiece model of type %s; BPE and UNIGRAM are read", path,
                        spec->model_type < 5 ? models[spec->model_type] : "?");
    }
    const char *what = spec->charsmap > 0          ? "precompiled_charsmap"
                       : spec->remove_extra_spaces ? "remove_extra_whitespaces"
                       : !spec->escape_spaces      ? "escape_whitespaces = false"
                       : spec->space_suffix        ? "treat_whitespace_as_suffix"
                                                   : NULL;
    if (what != NULL) {
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: the model's normaliser has %s; only the identity is read", path,
                        what);
    }
    return CMC_OK;
}

static cmc_status spm_read_pieces(wire w, cmc_vocab *v) {
    for (int32_t i = 0; w.p < w.end;) {
        wire_field f;
        spm_piece p;
        CMC_TRY(wire_next(&w, &f));
        if (f.number != 1 || f.type != WIRE_BYTES) {
            continue;
        }
        CMC_TRY(spm_read_piece(wire_inside(&w, &f), &p));
        static const cmc_token_kind kinds[] = {CMC_KIND_NORMAL, CMC_KIND_NORMAL, CMC_KIND_CONTROL, CMC_KIND_CONTROL,
                                               CMC_KIND_USER,   CMC_KIND_UNUSED, CMC_KIND_BYTE};
        if (p.type < SPM_NORMAL || p.type > SPM_BYTE || isnan(p.score)) {
            return cmc_fail(w.err, CMC_E_FORMAT,
                            "%s: piece %d has type %llu and score %g; types go from 1 to 6, scores are numbers", w.path,
                            i, (unsigned long long)p.type, (double)p.score);
        }
        vocab_set_token(v, i, p.s, p.n, kinds[p.type]);
        v->score[i] = p.score;
        if (p.type == SPM_UNKNOWN && v->unk < 0) {
            v->unk = i;
        }
        i++;
    }
    return CMC_OK;
}

/* A role's id counts where a control token has it: models without a pad, say, keep the number and not the piece. */
static int32_t spm_role(const cmc_vocab *v, int32_t id) {
    return id >= 0 && id < v->n && v->kind[id] == CMC_KIND_CONTROL ? id : -1;
}

static cmc_status vocab_spm_fill(wire w, const spm_spec *spec, cmc_vocab **out) {
    CMC_TRY(vocab_new(w.path, VOCAB_SPM, spec->n_pieces, spec->piece_bytes, out, w.err));
    cmc_vocab *v = *out;
    v->unigram = spec->model_type == SPM_MODEL_UNIGRAM;
    CMC_TRY(spm_read_pieces(w, v));
    v->bos = spm_role(v, spec->bos);
    v->eos = spm_role(v, spec->eos);
    v->pad = spm_role(v, spec->pad);
    v->add_bos = true;
    v->add_space_prefix = spec->dummy_prefix;
    CMC_TRY(vocab_finish(v, -1, w.err));
    return spm_new(v, w.err);
}

cmc_status vocab_from_spm_model(const uint8_t *data, size_t size, const char *path, cmc_vocab **out, cmc_error *err) {
    *out = NULL;
    spm_spec spec = {.model_type = SPM_MODEL_UNIGRAM, .unk = 0, .bos = 1, .eos = 2, .pad = -1,
                     .dummy_prefix = true, .remove_extra_spaces = true, .escape_spaces = true};
    wire w = {data, data + size, data, path, err};
    CMC_TRY(spm_read_spec(w, &spec));
    CMC_TRY(spm_check_spec(path, &spec, err));
    cmc_status st = vocab_spm_fill(w, &spec, out);
    if (st != CMC_OK) {
        cmc_vocab_free(*out);
        *out = NULL;
    }
    return st;
}
