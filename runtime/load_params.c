/* Hyperparameters: the keys of each family, what they default to, and what is refused by name. */
#include "runtime/load.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

typedef struct arch_row {
    const char *name;
    model_arch arch;
    bool halves;         /* RoPE on halves; llama's files have Q and K permuted so that pairs are neighbours */
    bool gelu;
} arch_row;

static const arch_row arch_table[] = {
    {"llama", ARCH_LLAMA, false, false},
    {"qwen2", ARCH_QWEN2, true, false},
    {"qwen3", ARCH_QWEN3, true, false},
    {"gemma3", ARCH_GEMMA3, true, true},
};

const char *load_arch_name(model_arch arch) {
    for (size_t i = 0; i < sizeof arch_table / sizeof *arch_table; i++)
        if (arch_table[i].arch == arch)
            return arch_table[i].name;
    return "?";
}

cmc_status load_arch(const gguf *g, model_arch *out, cmc_error *err) {
    gguf_str s;
    if (!gguf_get_str(g, "general.architecture", &s))
        return cmc_fail(err, CMC_E_FORMAT, "%s: has no key general.architecture, so it is not a model", g->file.path);
    for (size_t i = 0; i < sizeof arch_table / sizeof *arch_table; i++)
        if (s.n == strlen(arch_table[i].name) && memcmp(s.s, arch_table[i].name, s.n) == 0) {
            *out = arch_table[i].arch;
            return CMC_OK;
        }
    return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: architecture \"%.*s\" is not one that cmc runs (llama, qwen2, qwen3, "
                    "gemma3)", g->file.path, s.n < 60 ? (int)s.n : 60, s.s);
}

/* The keys of one file, each read under the architecture's prefix. */
typedef struct params_reader {
    const gguf *g;
    const char *arch;
    char key[96];
    cmc_error *err;
} params_reader;

static const char *params_key(params_reader *r, const char *name) {
    (void)snprintf(r->key, sizeof r->key, "%s.%s", r->arch, name);
    return r->key;
}

/* An integer in [lo, hi]; an array with one value for each layer counts where all are the same. */
static cmc_status params_int(params_reader *r, const char *name, bool must, int32_t lo, int32_t hi, int32_t *out) {
    const char *key = params_key(r, name);
    const gguf_kv *kv = gguf_find(r->g, key);
    if (!kv && !must)
        return CMC_OK;
    uint64_t v = 0;
    if (kv && kv->type == GGUF_ARRAY) {
        if (kv->n == 0 || kv->elem == GGUF_STRING || kv->elem == GGUF_ARRAY || kv->elem == GGUF_F32 ||
            kv->elem == GGUF_F64)
            return cmc_fail(r->err, CMC_E_FORMAT, "%s: %s should be an integer", r->g->file.path, key);
        const int64_t first = gguf_array_i64(kv, 0);
        for (uint64_t i = 1; i < kv->n; i++)
            if (gguf_array_i64(kv, i) != first)
                return cmc_fail(r->err, CMC_E_UNSUPPORTED, "%s: %s differs from layer to layer, which cmc does not do",
                                r->g->file.path, key);
        if (first < lo || first > hi)
            return cmc_fail(r->err, CMC_E_FORMAT, "%s: %s is %lld, which is not between %d and %d", r->g->file.path,
                            key, (long long)first, lo, hi);
        v = (uint64_t)first;
    } else {
        CMC_TRY(gguf_need_u64(r->g, key, (uint64_t)lo, (uint64_t)hi, &v, r->err));
    }
    *out = (int32_t)v;
    return CMC_OK;
}

/* A finite number above zero. */
static cmc_status params_float(params_reader *r, const char *name, bool must, float *out) {
    const char *key = params_key(r, name);
    if (!must && !gguf_find(r->g, key))
        return CMC_OK;
    double v;
    CMC_TRY(gguf_need_f64(r->g, key, &v, r->err));
    if (!isfinite(v) || v <= 0 || v > 1e30 || (float)v <= 0)
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: %s is %g; it should be a finite number above 0", r->g->file.path,
                        key, v);
    *out = (float)v;
    return CMC_OK;
}

/* Keys that change the arithmetic in ways that are not done here: refused where they are there and not neutral. */
static cmc_status params_refuse(params_reader *r) {
    static const struct {
        const char *name;
        double neutral;
        bool zero_counts;   /* 0 is a setting too; of the others it stands for "not there" */
    } table[] = {
        {"expert_count", 0, false},
        {"expert_used_count", 0, false},
        {"final_logit_softcapping", 0, false},
        {"attn_logit_softcapping", 0, false},
        {"attention.temperature_scale", 0, false},
        {"attention.scale", 0, false},
        {"logit_scale", 1, false},
        {"residual_scale", 1, false},
        {"embedding_scale", 1, false},
        {"attention.clamp_kqv", 0, false},
        {"attention.max_alibi_bias", 0, false},
        {"use_parallel_residual", 0, false},
        {"rope.scaling.alpha", 0, false},
        {"rope.scaling.attn_factor", 1, false},
        {"n_cls_out", 0, false},
        {"pooling_type", 0, false},
        {"attention.causal", 1, true},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *key = params_key(r, table[i].name);
        if (!gguf_find(r->g, key))
            continue;
        double v;
        bool flag;
        if (gguf_get_bool(r->g, key, &flag))
            v = flag ? 1 : 0;
        else
            CMC_TRY(gguf_need_f64(r->g, key, &v, r->err));
        if (v == table[i].neutral || (v == 0 && !table[i].zero_counts))
            continue;
        if (strcmp(table[i].name, "expert_count") == 0)
            return cmc_fail(r->err, CMC_E_UNSUPPORTED, "%s: a mixture of experts (%s is %g), which cmc does not run",
                            r->g->file.path, key, v);
        return cmc_fail(r->err, CMC_E_UNSUPPORTED, "%s: %s is %g, which cmc does not do", r->g->file.path, key, v);
    }
    return CMC_OK;
}

static cmc_status params_rope(params_reader *r, model_params *p) {
    p->n_rot = p->head_k;
    CMC_TRY(params_int(r, "rope.dimension_count", false, 2, p->head_k, &p->n_rot));
    if (p->n_rot % 2)
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: %s.rope.dimension_count is %d; it should be even", r->g->file.path,
                        r->arch, p->n_rot);
    p->rope_base = 10000.0f;
    CMC_TRY(params_float(r, "rope.freq_base", false, &p->rope_base));
    p->rope_base_local = p->arch == ARCH_GEMMA3 ? 10000.0f : p->rope_base;
    CMC_TRY(params_float(r, "rope.freq_base_swa", false, &p->rope_base_local));
    p->rope_scale = 1.0f;
    gguf_str type = {"linear", 6}; /* a factor without a type is linear */
    const char *key = params_key(r, "rope.scaling.type");
    if (gguf_find(r->g, key) && !gguf_get_str(r->g, key, &type))
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: %s should be a string", r->g->file.path, key);
    if (type.n == 4 && memcmp(type.s, "none", 4) == 0)
        return CMC_OK;
    if (type.n != 6 || memcmp(type.s, "linear", 6) != 0)
        return cmc_fail(r->err, CMC_E_UNSUPPORTED,
                        "%s: RoPE scaling \"%.*s\" is not one that cmc does (none, linear, or "
                        "factors in rope_freqs.weight)",
                        r->g->file.path, type.n < 40 ? (int)type.n : 40, type.s);
    float factor = 1.0f;
    CMC_TRY(params_float(r, "rope.scale_linear", false, &factor));
    CMC_TRY(params_float(r, "rope.scaling.factor", false, &factor));
    p->rope_scale = 1.0f / factor;
    return CMC_OK;
}

/* Sliding windows: gemma3's on all but every sixth layer, anyone else's on all layers. */
static cmc_status params_window(params_reader *r, model_params *p) {
    CMC_TRY(params_int(r, "attention.sliding_window", false, 0, INT32_MAX, &p->swa_window));
    const char *key = params_key(r, "attention.sliding_window_pattern");
    const gguf_kv *kv = gguf_find(r->g, key);
    if (p->arch == ARCH_GEMMA3) {
        p->swa_period = 6;
        if (kv && kv->type == GGUF_ARRAY)
            return cmc_fail(r->err, CMC_E_UNSUPPORTED, "%s: %s is an array; cmc reads a period", r->g->file.path, key);
        CMC_TRY(params_int(r, "attention.sliding_window_pattern", false, 0, 1024, &p->swa_period));
    } else if (kv && p->swa_window) {
        return cmc_fail(r->err, CMC_E_UNSUPPORTED, "%s: %s is given, which cmc knows for gemma3 only", r->g->file.path,
                        key);
    }
    if (!p->swa_window)
        p->swa_period = 0;
    return CMC_OK;
}

static cmc_status params_heads(params_reader *r, model_params *p) {
    CMC_TRY(params_int(r, "attention.head_count", true, 1, 4096, &p->n_head));
    p->n_head_kv = p->n_head;
    CMC_TRY(params_int(r, "attention.head_count_kv", false, 1, p->n_head, &p->n_head_kv));
    if (p->n_head % p->n_head_kv)
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: %d heads do not share %d K/V heads evenly", r->g->file.path,
                        p->n_head, p->n_head_kv);
    const bool given = gguf_find(r->g, params_key(r, "attention.key_length")) != NULL;
    if (!given && p->n_embd % p->n_head)
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: %d heads do not divide a width of %d, and there is no "
                        "%s.attention.key_length", r->g->file.path, p->n_head, p->n_embd, r->arch);
    p->head_k = p->head_v = p->n_embd / p->n_head;
    CMC_TRY(params_int(r, "attention.key_length", false, 2, 8192, &p->head_k));
    p->head_v = given ? p->head_k : p->head_v;
    CMC_TRY(params_int(r, "attention.value_length", false, 1, 8192, &p->head_v));
    if (p->head_k < 2 || p->head_k % 2)
        return cmc_fail(r->err, CMC_E_FORMAT, "%s: a head's width is %d; it should be even", r->g->file.path,
                        p->head_k);
    p->attn_scale = 1.0f / sqrtf((float)p->head_k);
    if (p->arch == ARCH_GEMMA3 && p->n_layer == 62) /* the 27B model scales by its nominal head width */
        p->attn_scale = 1.0f / sqrtf((float)(p->n_embd / p->n_head));
    return CMC_OK;
}

cmc_status load_params(const gguf *g, model_params *p, cmc_error *err) {
    *p = (model_params){0};
    CMC_TRY(load_arch(g, &p->arch, err));
    params_reader r = {.g = g, .arch = load_arch_name(p->arch), .err = err};
    CMC_TRY(params_refuse(&r));
    CMC_TRY(params_int(&r, "embedding_length", true, 1, 1 << 20, &p->n_embd));
    CMC_TRY(params_int(&r, "block_count", true, 1, 4096, &p->n_layer));
    CMC_TRY(params_int(&r, "feed_forward_length", true, 1, 1 << 24, &p->n_ff));
    CMC_TRY(params_int(&r, "context_length", true, 1, 1 << 28, &p->n_ctx_train));
    CMC_TRY(params_float(&r, "attention.layer_norm_rms_epsilon", true, &p->rms_eps));
    CMC_TRY(params_heads(&r, p));
    CMC_TRY(params_rope(&r, p));
    CMC_TRY(params_window(&r, p));
    p->embd_scale = p->arch == ARCH_GEMMA3 ? sqrtf((float)p->n_embd) : 1.0f;
    for (size_t i = 0; i < sizeof arch_table / sizeof *arch_table; i++)
        if (arch_table[i].arch == p->arch) {
            p->rope_neox = arch_table[i].halves;
            p->gelu = arch_table[i].gelu;
        }
    return CMC_OK;
}
