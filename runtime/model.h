/* A model inside the library: hyperparameters and weights of the llama, qwen2, qwen3 and gemma3 families. */
#ifndef CMC_RUNTIME_MODEL_H
#define CMC_RUNTIME_MODEL_H
#include "runtime/expand.h"
#include "runtime/lora.h"
#include "runtime/matmul.h"
#include "runtime/pack.h"
#include "runtime/screen.h"
#include "tokenmap/vocab.h"

typedef enum model_arch { ARCH_LLAMA = 0, ARCH_QWEN2, ARCH_QWEN3, ARCH_GEMMA3 } model_arch;

typedef struct model_params {
    model_arch arch;
    int32_t n_vocab, n_embd, n_layer, n_head, n_head_kv, n_ff, n_ctx_train;
    int32_t head_k, head_v;        /* widths of a K and a V head; need not be n_embd / n_head */
    int32_t n_rot;                 /* rotated dimensions of a head */
    bool rope_neox;                /* halves (qwen, gemma) rather than neighbouring pairs (llama) */
    float rope_base, rope_base_local;      /* local: gemma3's sliding-window layers */
    float rope_scale;              /* positions are multiplied by this: 1 / linear factor */
    int32_t swa_window;            /* 0: none */
    int32_t swa_period;            /* every swa_period-th layer attends to all (gemma3: 6) */
    float rms_eps, embd_scale, attn_scale;
    bool gelu;                     /* GELU-tanh in place of SiLU */
} model_params;

typedef struct model_layer {
    float *attn_norm, *ffn_norm, *post_attn_norm, *post_ffn_norm;   /* decoded, NULL where absent */
    float *q_norm, *k_norm;
    float *bq, *bk, *bv, *bo;
    weight wq, wk, wv, wo, gate, up, down;
    bool swa;
    const struct model_extra *extra;       /* the block beside it or behind it, NULL where there is none */
} model_layer;

/* A block of an expanded model (expand.h). */
typedef struct model_extra {
    model_layer l;
    bool stack;
    expand_gate gate;                      /* of one that stands beside; w is the model's */
    size_t kv;                             /* its layer in the caches of keys and values */
} model_extra;

struct cmc_model {
    cmc_runtime *rt;
    char *path, *name;
    gguf **parts; size_t n_parts;          /* split files in order */
    model_params p;
    cmc_vocab *vocab;
    cmc_delta_info *delta;
    weight embd, head;                     /* the same where tied */
    lora_set lora;                         /* adapters beside the matrices; empty where there are none */
    float *out_norm;
    float *rope_factors;                   /* [n_rot/2] divisors of the frequencies (Llama 3), or NULL */
    float *rope_inv, *rope_inv_local;      /* [n_rot/2] angle of one position, scaling applied; local may equal rope_inv */
    float rope_mscale;
    model_layer *layers;
    expand_spec expand;
    model_extra *extra;                    /* [expand.n] */
    uint64_t n_params, n_bytes;
    uint64_t extra_bytes;                  /* of them, those of the expanded blocks */
    char hash[40];
    matmul_work work;
    screen screen;                         /* of the output matrix, where it pays */
    pack pack;                             /* of the others, for batches */
    struct model_scratch *scratch;         /* activations of a batch, grown as needed */
};

/* lora_load.c: what adapters add to a tensor, NULL where there are none. */
const lora_weight *lora_of(const cmc_model *m, gguf_str name);

/* delta.c: the cmc.* keys. */
cmc_status delta_info_read(const gguf *g, cmc_delta_info **out, cmc_error *err);   /* *out NULL where there are none */
void delta_info_free(cmc_delta_info *d);
bool delta_info_write(gguf_writer *w, const cmc_delta_info *d);
#endif
