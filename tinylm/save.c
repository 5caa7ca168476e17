/* Writing a delta as GGUF, and reading one back as a start for training. */
#include "tinylm/save.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/quant.h"

/* ------------------------------------------------------------------------------------------------- writing */

cmc_status save_type_parse(const char *name, const params_shape *s, uint32_t *type, cmc_error *err) {
    static const struct {
        const char *name;
        uint32_t type;
    } types[] = {{"f32", CMC_F32}, {"f16", CMC_F16}, {"q8_0", CMC_Q8_0}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(name, types[i].name) != 0)
            continue;
        size_t block = cmc_type_block(types[i].type);
        *type = types[i].type;
        if ((size_t)s->n_embd % block != 0 || (size_t)s->n_ff % block != 0)
            return cmc_fail(err, CMC_E_ARG,
                            "%s stores blocks of %zu: an embedding of %d and a feed-forward width of %d are not "
                            "both multiples of it; choose other sizes, or f16",
                            name, block, s->n_embd, s->n_ff);
        return CMC_OK;
    }
    return cmc_fail(err, CMC_E_ARG, "unknown type \"%s\" to save in: f32, f16 or q8_0", name);
}

/* GGUF's number for "mostly this type". */
static uint32_t save_file_type(uint32_t type) {
    return type == CMC_F32 ? 0 : type == CMC_F16 ? 1 : 7;
}

bool save_put_name(gguf_writer *g, const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    return gguf_put_str(g, "general.name", name, dot && dot > name ? (size_t)(dot - name) : strlen(name));
}

static void save_put_keys(gguf_writer *w, const char *path, const params_shape *s, uint32_t type, uint32_t n_ctx) {
    gguf_put_str(w, "general.architecture", "llama", 5);
    gguf_put_str(w, "general.type", "model", 5);
    save_put_name(w, path);
    gguf_put_u32(w, "general.file_type", save_file_type(type));
    gguf_put_u32(w, "general.quantization_version", 2);
    gguf_put_u32(w, "llama.context_length", n_ctx);
    gguf_put_u32(w, "llama.embedding_length", (uint32_t)s->n_embd);
    gguf_put_u32(w, "llama.block_count", (uint32_t)s->n_layer);
    gguf_put_u32(w, "llama.feed_forward_length", (uint32_t)s->n_ff);
    gguf_put_u32(w, "llama.attention.head_count", (uint32_t)s->n_head);
    gguf_put_u32(w, "llama.attention.head_count_kv", (uint32_t)s->n_head_kv);
    gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", s->rms_eps);
    gguf_put_u32(w, "llama.rope.dimension_count", (uint32_t)s->head_dim);
    gguf_put_f32(w, "llama.rope.freq_base", s->rope_base);
    gguf_put_u32(w, "llama.vocab_size", (uint32_t)s->n_vocab);
}

/* Encodes every matrix one after the other into `buf` (sized by save_delta_bytes) and adds the tensors. */
static bool save_put_tensors(gguf_writer *g, const params *p, const float *w, uint32_t type, uint8_t *buf) {
    for (size_t i = 0; i < p->n_tensors; i++) {
        const params_tensor *t = &p->tensors[i];
        uint64_t ne[2] = {t->n_in, t->n_out};
        if (!t->matrix || type == CMC_F32) {
            if (!gguf_put_tensor(g, t->name, CMC_F32, ne, t->matrix ? 2 : 1, w + t->off))
                return false;
            continue;
        }
        size_t row = cmc_type_row_bytes(type, t->n_in);
        for (size_t r = 0; r < t->n_out; r++)
            if (!quant_encode_row(type, w + t->off + r * t->n_in, buf + r * row, t->n_in))
                return false;
        if (!gguf_put_tensor(g, t->name, type, ne, 2, buf))
            return false;
        buf += t->n_out * row;
    }
    return true;
}

size_t save_delta_bytes(const params *p, uint32_t type) {
    size_t n = 0;
    for (size_t i = 0; i < p->n_tensors && type != CMC_F32; i++)
        if (p->tensors[i].matrix)
            n += p->tensors[i].n_out * cmc_type_row_bytes(type, p->tensors[i].n_in);
    return n;
}

cmc_status save_delta(const char *path, const params *p, const float *w, uint32_t type, uint32_t n_ctx,
                      const save_vocab *vocab, const cmc_delta_info *info, cmc_error *err) {
    size_t bytes = save_delta_bytes(p, type);
    gguf_writer *g = gguf_writer_new();
    uint8_t *buf = cmc_alloc(bytes, 1);
    bool ok = g && buf;
    if (ok) {
        save_put_keys(g, path, &p->s, type, n_ctx);
        ok = (vocab->g ? vocab_copy_keys(vocab->g, g) : vocab_put_keys(vocab->v, g)) && delta_info_write(g, info) &&
             save_put_tensors(g, p, w, type, buf);
    }
    cmc_status st = gguf_writer_end(g, ok, "the delta's file", bytes, path, err);
    gguf_writer_free(g);
    free(buf);
    return st;
}

/* ------------------------------------------------------------------------------------------------- reading */

static const char *load_unfit(const cmc_model *m, bool cut) {
    const model_params *p = &m->p;
    if (m->expand.n)
        return "it is an expanded model";
    if (!cut && m->head.data != m->embd.data)
        return "its output matrix is not tied to its embedding";
    if (p->head_k != p->head_v || p->n_rot != p->head_k || p->head_k * p->n_head != p->n_embd)
        return "its heads are not embedding / heads wide and rotated whole";
    if (p->rope_neox || m->rope_factors || p->rope_scale != 1.0f || m->rope_mscale != 1.0f)
        return "its positions are scaled";
    if (p->swa_window != 0 || p->gelu || p->embd_scale != 1.0f)
        return "it is no plain llama";
    if (fabsf(p->attn_scale * sqrtf((float)p->head_k) - 1.0f) > 1e-5f)
        return "its attention scale is not 1/sqrt(head width)";
    for (int32_t i = 0; i < p->n_layer; i++)
        if (m->layers[i].bq || m->layers[i].bk || m->layers[i].bv || m->layers[i].bo)
            return "its attention has biases";
    return NULL;
}

cmc_status load_shape(const cmc_model *m, const cmc_vocab *vocab, int32_t cut, params_shape *s, cmc_error *err) {
    const model_params *p = &m->p;
    gguf_str arch = {"?", 1};
    gguf_get_str(m->parts[0], "general.architecture", &arch);
    if (p->arch != ARCH_LLAMA)
        return cmc_fail(err, CMC_E_UNSUPPORTED,
                        "%s: cannot be a start for a delta: its architecture is %.*s; a delta's is llama",
                        cmc_model_path(m), (int)(arch.n < 40 ? arch.n : 40), arch.s);
    const char *why = load_unfit(m, cut > 0);
    if (why)
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: cannot be a start for a delta: %s", cmc_model_path(m), why);
    if (!cmc_vocab_equal(cmc_model_vocab(m), vocab))
        return cmc_fail(err, CMC_E_ARG, "%s: its vocabulary is not that of %s; a start brings its own vocabulary",
                        cmc_model_path(m), vocab->path);
    if (cut > p->n_layer)
        return cmc_fail(err, CMC_E_ARG, "%s: cannot be cut to %d layers: it has %d", cmc_model_path(m), cut, p->n_layer);
    if (p->n_vocab < cmc_vocab_size(vocab)) /* more rows than tokens are padding, and stay behind */
        return cmc_fail(err, CMC_E_FORMAT, "%s: %d rows of its embedding for %d tokens", cmc_model_path(m), p->n_vocab,
                        cmc_vocab_size(vocab));
    *s = (params_shape){.n_vocab = cmc_vocab_size(vocab),
                        .n_embd = p->n_embd,
                        .n_layer = cut > 0 ? cut : p->n_layer,
                        .n_head = p->n_head,
                        .n_head_kv = p->n_head_kv,
                        .head_dim = p->head_k,
                        .n_ff = p->n_ff,
                        .rms_eps = p->rms_eps,
                        .rope_base = p->rope_base};
    return CMC_OK;
}

static void load_rows(const weight *m, size_t n, float *w) {
    for (size_t r = 0; r < n; r++)
        weight_row(m, r, w + r * m->n_in);
}

static void load_matrix(const weight *m, float *w) {
    load_rows(m, m->n_out, w);
}

void load_weights(const cmc_model *m, const params *p, float *w) {
    size_t norm = (size_t)p->s.n_embd * sizeof(float);
    load_rows(&m->embd, (size_t)p->s.n_vocab, w + p->embd);
    memcpy(w + p->out_norm, m->out_norm, norm);
    for (int32_t i = 0; i < p->s.n_layer; i++) {
        const model_layer *l = &m->layers[i];
        const params_layer *o = &p->layers[i];
        memcpy(w + o->attn_norm, l->attn_norm, norm);
        memcpy(w + o->ffn_norm, l->ffn_norm, norm);
        load_matrix(&l->wq, w + o->wq);
        load_matrix(&l->wk, w + o->wk);
        load_matrix(&l->wv, w + o->wv);
        load_matrix(&l->wo, w + o->wo);
        load_matrix(&l->gate, w + o->gate);
        load_matrix(&l->up, w + o->up);
        load_matrix(&l->down, w + o->down);
    }
}

/* Normed states have a mean square of 1 in each channel, about, so the variance of the logits over the vocabulary is
 * the sum over channels of gain^2 times the mean square of the embedding's column. The gain is scaled to make its root
 * 0.02. A random start's is 0.3, without leaning to any token; a cut's logits lean to what comes often, so they must be
 * smaller for the steered host to start as good as the host alone (within 1 %). The price is time: AdamW moves a gain
 * by the learning rate a step, however small it is. */
float load_quiet(const params *p, const float *w) {
    size_t e = (size_t)p->s.n_embd, n = (size_t)p->s.n_vocab;
    const float *gain = w + p->out_norm, *embd = w + p->embd;
    double sum = 0.0;
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < e; i++) {
            double x = (double)gain[i] * (double)embd[r * e + i];
            sum += x * x;
        }
    double spread = sqrt(sum / (double)n);
    return spread > 0.02 ? (float)(0.02 / spread) : 1.0f;
}
