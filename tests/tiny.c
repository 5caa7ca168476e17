/* Tiny models: keys, tensors and split files. */
#include "tests/tiny.h"
#include "base/error.h"
#include "base/mem.h"
#include "runtime/quant.h"
#include "runtime/expand.h"
#include "tests/tiny_vocab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARTS = 16 };

/* A model being made: tensors go to the parts in turn. */
typedef struct maker {
    tiny_spec s;                          /* with the defaults put in */
    tiny_vocab vocab;
    gguf_writer *parts[MAX_PARTS]; int n_parts;
    void **buffers; size_t n_tensors, cap;  /* the tensors' data, one each */
    char prefix[32];                      /* of the architecture's keys */
    expand_spec expand;
    const char *block;                    /* before the names of a layer's tensors: "", of an expanded block "cmc_expand." */
    bool copy;                            /* such a block gets its layer's numbers */
    cmc_error *err;
} maker;

static int32_t or_else(int32_t v, int32_t otherwise) { return v != 0 ? v : otherwise; }

static tiny_spec with_defaults(const tiny_spec *spec) {
    tiny_spec s = *spec;
    s.arch = s.arch != NULL ? s.arch : "llama";
    s.pre = s.pre != NULL ? s.pre : strncmp(s.arch, "qwen", 4) == 0 ? "qwen2" : "smollm";
    s.n_embd = or_else(s.n_embd, 64);
    s.n_layer = or_else(s.n_layer, 2);
    s.n_head = or_else(s.n_head, 4);
    s.n_head_kv = or_else(s.n_head_kv, 2);
    s.n_ff = or_else(s.n_ff, 96);
    s.n_ctx = or_else(s.n_ctx, 256);
    s.head_k = or_else(s.head_k, s.n_embd / s.n_head);
    s.head_v = or_else(s.head_v, s.n_embd / s.n_head);
    s.rope_base = s.rope_base > 0 ? s.rope_base : 10000;
    s.name = s.name != NULL ? s.name : "tiny";
    return s;
}

/* ------------------------------------------------------------------------------------------------------- keys */

static const char *arch_key(const maker *m, const char *name, char buf[96]) {
    snprintf(buf, 96, "%s.%s", m->prefix, name);
    return buf;
}

static bool put_arch_u32(const maker *m, const char *name, int32_t v) {
    char key[96];
    return gguf_put_u32(m->parts[0], arch_key(m, name, key), (uint32_t)v);
}

static bool put_arch_f32(const maker *m, const char *name, double v) {
    char key[96];
    return gguf_put_f32(m->parts[0], arch_key(m, name, key), (float)v);
}

static bool put_text(gguf_writer *w, const char *key, const char *s) { return gguf_put_str(w, key, s, strlen(s)); }

static bool put_rope_keys(const maker *m) {
    const tiny_spec *s = &m->s;
    char key[96];
    bool ok = put_arch_f32(m, "rope.freq_base", s->rope_base);
    if (strcmp(s->arch, "llama") == 0) {
        ok = ok && put_arch_u32(m, "rope.dimension_count", s->head_k);
    }
    if (s->rope_base_swa > 0) {
        ok = ok && put_arch_f32(m, "rope.freq_base_swa", s->rope_base_swa);
    }
    if (s->rope_scale > 0) {
        ok = ok && put_text(m->parts[0], arch_key(m, "rope.scaling.type", key), "linear");
        ok = ok && put_arch_f32(m, "rope.scaling.factor", s->rope_scale);
    }
    return ok;
}

static bool put_model_keys(const maker *m) {
    const tiny_spec *s = &m->s;
    bool ok = put_text(m->parts[0], "general.architecture", s->arch) &&
              put_text(m->parts[0], "general.type", "model") && put_text(m->parts[0], "general.name", s->name) &&
              put_arch_u32(m, "block_count", s->n_layer) && put_arch_u32(m, "context_length", s->n_ctx) &&
              put_arch_u32(m, "embedding_length", s->n_embd) && put_arch_u32(m, "feed_forward_length", s->n_ff) &&
              put_arch_u32(m, "attention.head_count", s->n_head) &&
              put_arch_u32(m, "attention.head_count_kv", s->n_head_kv) &&
              put_arch_f32(m, "attention.layer_norm_rms_epsilon", 1e-5) && put_rope_keys(m);
    if (strcmp(s->arch, "llama") == 0) {
        ok = ok && put_arch_u32(m, "vocab_size", (int32_t)m->vocab.n);
    }
    bool gemma = strcmp(s->arch, "gemma3") == 0;
    if (gemma || s->head_k != s->n_embd / s->n_head || s->head_v != s->n_embd / s->n_head) {
        ok = ok && put_arch_u32(m, "attention.key_length", s->head_k) &&
             put_arch_u32(m, "attention.value_length", s->head_v);
    }
    if (s->swa_window > 0) {
        ok = ok && put_arch_u32(m, "attention.sliding_window", s->swa_window);
    }
    if (s->swa_period > 0) {
        ok = ok && put_arch_u32(m, "attention.sliding_window_pattern", s->swa_period);
    }
    return ok && gguf_put_u32(m->parts[0], "general.quantization_version", 2);
}

static bool put_str_array(gguf_writer *w, const char *key, char **v, size_t n) {
    gguf_str *strings = cmc_alloc(n, sizeof *strings);
    for (size_t i = 0; strings != NULL && i < n; i++) {
        strings[i] = (gguf_str){v[i], strlen(v[i])};
    }
    bool ok = strings != NULL && gguf_put_str_array(w, key, strings, n);
    free(strings);
    return ok;
}

static bool put_id(gguf_writer *w, const char *key, int32_t id) { return id < 0 || gguf_put_u32(w, key, (uint32_t)id); }

static bool put_vocab_keys(const maker *m) {
    const tiny_spec *s = &m->s;
    const tiny_vocab *v = &m->vocab;
    gguf_writer *w = m->parts[0];
    bool spm = tiny_spec_is_spm(s), gemma = strcmp(s->arch, "gemma3") == 0;
    bool ok = put_text(w, "tokenizer.ggml.model", spm ? "llama" : "gpt2") &&
              put_text(w, "tokenizer.ggml.pre", spm ? "default" : s->pre) &&
              put_str_array(w, "tokenizer.ggml.tokens", v->tokens, v->n);
    if (spm) {
        ok = ok && gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, v->scores, v->n);
    }
    ok = ok && gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, v->types, v->n);
    if (!spm) {
        ok = ok && put_str_array(w, "tokenizer.ggml.merges", v->merges, v->n_merges);
    }
    ok = ok && put_id(w, "tokenizer.ggml.bos_token_id", v->bos) && put_id(w, "tokenizer.ggml.eos_token_id", v->eos) &&
         put_id(w, "tokenizer.ggml.unknown_token_id", v->unk) && put_id(w, "tokenizer.ggml.padding_token_id", v->pad) &&
         gguf_put_bool(w, "tokenizer.ggml.add_bos_token", spm || s->add_bos) &&
         gguf_put_bool(w, "tokenizer.ggml.add_eos_token", false) &&
         gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", spm && !gemma);
    if (s->chat_template != NULL) {
        ok = ok && put_text(w, "tokenizer.chat_template", s->chat_template);
    }
    return ok;
}

/* ---------------------------------------------------------------------------------------------------- tensors */

static uint64_t splitmix64(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* Mean 0, variance 1, near enough to normal: four uniforms, by arithmetic that is the same everywhere. */
static float random_normal(uint64_t *state) {
    uint64_t z = splitmix64(state);
    int32_t sum =
        (int32_t)(z & 0xffff) + (int32_t)(z >> 16 & 0xffff) + (int32_t)(z >> 32 & 0xffff) + (int32_t)(z >> 48);
    return (float)(sum - 2 * 65535) * (1.7320508F / 65536.0F);
}

/* A tensor's numbers hang on its name and the seed only, so that specs that differ in one thing agree in the others. */
static uint64_t tensor_seed(const maker *m, const char *name) {
    uint64_t h = 0xcbf29ce484222325ULL ^ m->s.seed * 0x9e3779b97f4a7c15ULL;
    const char *block = m->copy ? strstr(name, m->block) : NULL;
    for (; *name != '\0'; name++) {
        if (name == block) {
            name += strlen(m->block);
        }
        h = (h ^ (uint8_t)*name) * 0x100000001b3ULL;
    }
    return h;
}

/* Encodes n_rows rows of n floats: *out is the caller's to free. */
static cmc_status encode(uint32_t type, const float *values, size_t n, size_t n_rows, void **out, cmc_error *err) {
    size_t row_bytes = cmc_type_row_bytes(type, n);
    uint8_t *data = cmc_alloc_aligned(n_rows, row_bytes);
    if (data == NULL) {
        return cmc_fail_nomem(err, "a tiny model's tensor", n_rows * row_bytes);
    }
    for (size_t i = 0; i < n_rows; i++) {
        bool done = n % cmc_type_block(type) == 0;
        if (done && type == CMC_F32) {
            memcpy(data + i * row_bytes, values + i * n, row_bytes);
        } else if (done) {
            done = quant_encode_row(type, values + i * n, data + i * row_bytes, n);
        }
        if (!done) {
            free(data);
            return cmc_fail(err, CMC_E_ARG, "a row of %zu cannot be encoded as %s", n, cmc_type_name(type));
        }
    }
    *out = data;
    return CMC_OK;
}

/* [n_rows][n] numbers of mean `mean` and standard deviation `sd`; n_rows 0 makes a one-dimensional tensor. */
static cmc_status add_tensor(maker *m, const char *name, uint32_t type, int32_t n, int32_t n_rows, float mean,
                             float sd) {
    size_t row = (size_t)n, rows = n_rows > 0 ? (size_t)n_rows : 1;
    float *values = cmc_alloc(row * rows, sizeof *values);
    void *buffers = m->buffers, *data = NULL;
    if (values == NULL || !cmc_grow(&buffers, &m->cap, m->n_tensors + 1, sizeof *m->buffers)) {
        free(values);
        return cmc_fail_nomem(m->err, "a tiny model's tensor", row * rows * sizeof *values);
    }
    m->buffers = buffers;
    uint64_t state = tensor_seed(m, name);
    for (size_t i = 0; i < row * rows; i++) {
        values[i] = mean + sd * random_normal(&state);
    }
    cmc_status status = encode(type, values, row, rows, &data, m->err);
    free(values);
    CMC_TRY(status);
    uint64_t ne[2] = {row, rows};
    gguf_writer *w = m->parts[m->n_tensors % (size_t)m->n_parts];
    m->buffers[m->n_tensors++] = data;
    if (!gguf_put_tensor(w, name, type, ne, n_rows > 0 ? 2 : 1, data)) {
        return cmc_fail(m->err, CMC_E_ARG, "tensor '%s' cannot be written", name);
    }
    return CMC_OK;
}

static cmc_status add_matrix(maker *m, int32_t layer, const char *part, int32_t n_in, int32_t n_out) {
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s%s.weight", (int)layer, m->block, part);
    return add_tensor(m, name, m->s.type, n_in, n_out, 0, 1.0F / sqrtf((float)n_in));
}

static cmc_status add_norm(maker *m, int32_t layer, const char *part, int32_t n) {
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s%s.weight", (int)layer, m->block, part);
    return add_tensor(m, name, CMC_F32, n, 0, 1.0F, 0.1F);
}

static cmc_status add_bias(maker *m, int32_t layer, const char *part, int32_t n) {
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s%s.bias", (int)layer, m->block, part);
    return add_tensor(m, name, CMC_F32, n, 0, 0, 0.3F);
}

static cmc_status add_layer(maker *m, int32_t i) {
    const tiny_spec *s = &m->s;
    bool gemma = strcmp(s->arch, "gemma3") == 0, qwen2 = strcmp(s->arch, "qwen2") == 0,
         qwen3 = strcmp(s->arch, "qwen3") == 0;
    CMC_TRY(add_norm(m, i, "attn_norm", s->n_embd));
    CMC_TRY(add_matrix(m, i, "attn_q", s->n_embd, s->n_head * s->head_k));
    CMC_TRY(add_matrix(m, i, "attn_k", s->n_embd, s->n_head_kv * s->head_k));
    CMC_TRY(add_matrix(m, i, "attn_v", s->n_embd, s->n_head_kv * s->head_v));
    CMC_TRY(add_matrix(m, i, "attn_output", s->n_head * s->head_v, s->n_embd));
    if (qwen2) {
        CMC_TRY(add_bias(m, i, "attn_q", s->n_head * s->head_k));
        CMC_TRY(add_bias(m, i, "attn_k", s->n_head_kv * s->head_k));
        CMC_TRY(add_bias(m, i, "attn_v", s->n_head_kv * s->head_v));
    }
    if (s->o_bias) {
        CMC_TRY(add_bias(m, i, "attn_output", s->n_embd));
    }
    if (qwen3 || gemma) {
        CMC_TRY(add_norm(m, i, "attn_q_norm", s->head_k));
        CMC_TRY(add_norm(m, i, "attn_k_norm", s->head_k));
    }
    if (gemma) {
        CMC_TRY(add_norm(m, i, "post_attention_norm", s->n_embd));
        CMC_TRY(add_norm(m, i, "post_ffw_norm", s->n_embd));
    }
    CMC_TRY(add_norm(m, i, "ffn_norm", s->n_embd));
    CMC_TRY(add_matrix(m, i, "ffn_gate", s->n_embd, s->n_ff));
    CMC_TRY(add_matrix(m, i, "ffn_up", s->n_embd, s->n_ff));
    return add_matrix(m, i, "ffn_down", s->n_ff, s->n_embd);
}

/* A block, and how what it gives is merged. */
static cmc_status add_expanded(maker *m, const cmc_expand_point *at) {
    char name[64];
    int32_t width = (int32_t)expand_gate_width(m->expand.merge, (size_t)m->s.n_embd);
    m->block = "cmc_expand.";
    m->copy = m->s.expand_copies && !at->stack;
    cmc_status status = add_layer(m, at->layer);
    m->block = "";
    m->copy = false;
    CMC_TRY(status);
    if (at->stack) {
        return CMC_OK;
    }
    snprintf(name, sizeof name, "blk.%d.cmc_merge.bias", (int)at->layer);
    CMC_TRY(add_tensor(m, name, CMC_F32, 1, 0, (float)m->s.expand_f, 0));
    if (width == 0) {
        return CMC_OK;
    }
    snprintf(name, sizeof name, "blk.%d.cmc_merge.weight", (int)at->layer);
    return add_tensor(m, name, CMC_F32, width, 0, 0, 0.5F / sqrtf((float)width));
}

/* The head's rows have a length of 3, so that logits of a normed state spread by about 3. */
static cmc_status add_tensors(maker *m) {
    const tiny_spec *s = &m->s;
    float sd = 3.0F / sqrtf((float)s->n_embd);
    CMC_TRY(add_tensor(m, "token_embd.weight", s->type, s->n_embd, (int32_t)m->vocab.n, 0, sd));
    if (!s->tied) {
        CMC_TRY(add_tensor(m, "output.weight", s->type, s->n_embd, (int32_t)m->vocab.n, 0, sd));
    }
    CMC_TRY(add_tensor(m, "output_norm.weight", CMC_F32, s->n_embd, 0, 1.0F, 0.1F));
    if (s->rope_freqs) {
        CMC_TRY(add_tensor(m, "rope_freqs.weight", CMC_F32, s->head_k / 2, 0, 4.0F, 1.0F));
    }
    for (int32_t i = 0; i < s->n_layer; i++) {
        CMC_TRY(add_layer(m, i));
    }
    for (size_t i = 0; i < m->expand.n; i++) {
        CMC_TRY(add_expanded(m, &m->expand.v[i]));
    }
    return CMC_OK;
}

/* ----------------------------------------------------------------------------------------------------- making */

static void maker_free(maker *m) {
    for (int i = 0; i < m->n_parts; i++) {
        gguf_writer_free(m->parts[i]);
    }
    for (size_t i = 0; i < m->n_tensors; i++) {
        free(m->buffers[i]);
    }
    free(m->buffers);
    expand_spec_free(&m->expand);
    tiny_vocab_free(&m->vocab);
}

static cmc_status check_spec(const tiny_spec *s, int n_parts, cmc_error *err) {
    static const char *const archs[] = {"llama", "qwen2", "qwen3", "gemma3"};
    bool known = false;
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        known = known || strcmp(s->arch, archs[i]) == 0;
    }
    if (!known) {
        return cmc_fail(err, CMC_E_ARG, "tiny models are of llama, qwen2, qwen3 or gemma3, not '%s'", s->arch);
    }
    if (s->n_embd < 1 || s->n_layer < 1 || s->n_head < 1 || s->n_head_kv < 1 || s->n_ff < 1 || s->n_ctx < 1 ||
        s->head_k < 1 || s->head_v < 1 || s->n_learnt < 0 || n_parts < 1 || n_parts > MAX_PARTS || s->n_layer > 1000 ||
        s->n_embd > 1 << 16) {
        return cmc_fail(err, CMC_E_ARG, "a tiny model's sizes are out of range");
    }
    return CMC_OK;
}

static cmc_status plan_expanded(maker *m) {
    const tiny_spec *s = &m->s;
    expand_kind kind;
    expand_merge merge;
    if (s->expand == NULL) {
        return CMC_OK;
    }
    CMC_TRY(expand_kind_parse(s->expand, &kind, m->err));
    CMC_TRY(expand_merge_parse(s->expand_merge != NULL ? s->expand_merge : "lerp", &merge, m->err));
    CMC_TRY(expand_plan(kind, merge, or_else(s->expand_blocks, s->n_layer), s->n_layer, &m->expand, m->err));
    return expand_write(m->parts[0], &m->expand) ? CMC_OK : cmc_fail_nomem(m->err, "a tiny model", 0);
}

/* Frees nothing on failure: maker_free does. */
static cmc_status make(maker *m, const tiny_spec *spec, int n_parts, cmc_error *err) {
    *m = (maker){.s = with_defaults(spec), .block = "", .err = err};
    CMC_TRY(check_spec(&m->s, n_parts, err));
    snprintf(m->prefix, sizeof m->prefix, "%s", m->s.arch);
    bool ok = tiny_vocab_make(&m->s, &m->vocab);
    for (; ok && m->n_parts < n_parts; m->n_parts += ok) {
        m->parts[m->n_parts] = gguf_writer_new();
        ok = m->parts[m->n_parts] != NULL;
    }
    ok = ok && put_model_keys(m) && put_vocab_keys(m) && (m->s.extra == NULL || m->s.extra(m->s.user, m->parts[0]));
    if (!ok) {
        return cmc_fail_nomem(err, "a tiny model", 0);
    }
    CMC_TRY(plan_expanded(m));
    return m->s.vocab_only ? CMC_OK : add_tensors(m);
}

cmc_status tiny_write(const tiny_spec *spec, const char *path, cmc_error *err) {
    maker m;
    cmc_status status = make(&m, spec, 1, err);
    if (status == CMC_OK) {
        status = gguf_writer_save(m.parts[0], path, err);
    }
    maker_free(&m);
    return status;
}

static bool put_u16(gguf_writer *w, const char *key, int v) {
    uint8_t data[2] = {(uint8_t)v, (uint8_t)(v >> 8)};
    gguf_kv kv = {.key = {key, strlen(key)}, .type = GGUF_U16, .elem = GGUF_U16, .n = 1, .data = data};
    return gguf_put_kv(w, &kv);
}

static bool put_i32(gguf_writer *w, const char *key, int32_t v) {
    uint32_t u = (uint32_t)v;
    uint8_t data[4] = {(uint8_t)u, (uint8_t)(u >> 8), (uint8_t)(u >> 16), (uint8_t)(u >> 24)};
    gguf_kv kv = {.key = {key, strlen(key)}, .type = GGUF_I32, .elem = GGUF_I32, .n = 1, .data = data};
    return gguf_put_kv(w, &kv);
}

cmc_status tiny_write_split(const tiny_spec *spec, const char *prefix, int n, char *first, size_t size,
                            cmc_error *err) {
    maker m;
    cmc_status status = make(&m, spec, n, err);
    for (int i = n - 1; status == CMC_OK && i >= 0; i--) { /* the first one last: its path is what stays in `first` */
        gguf_writer *w = m.parts[i];
        snprintf(first, size, "%s-%05d-of-%05d.gguf", prefix, i + 1, n);
        bool ok = put_u16(w, "split.no", i) && put_u16(w, "split.count", n) &&
                  put_i32(w, "split.tensors.count", (int32_t)m.n_tensors);
        status = ok ? gguf_writer_save(w, first, err) : cmc_fail_nomem(err, "a tiny model", 0);
    }
    maker_free(&m);
    return status;
}
