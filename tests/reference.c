/* An independent forward pass of the four families, in double precision and without any cache. */
#include "tests/reference.h"

#include <complex.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/gguf.h"
#include "runtime/quant.h"

typedef struct ref_model {
    gguf *g;
    char arch[16];
    size_t embd, heads, kv_heads, wide_k, wide_v, layers, vocab;
    double eps, base, base_local, stretch;
    size_t window, period;
    const char *block;             /* "": a layer's tensors; "cmc_expand.": those of the block that belongs to it */
} ref_model;

typedef struct ref_matrix {
    double *v;
    size_t rows, cols;
} ref_matrix;

static double ref_number(const ref_model *m, const char *name, double otherwise) {
    char key[128];
    double v;
    snprintf(key, sizeof key, "%s.%s", m->arch, name);
    return gguf_get_f64(m->g, key, &v) ? v : otherwise;
}

/* A tensor as rows x cols doubles; v NULL where there is none. */
static ref_matrix ref_tensor(const ref_model *m, int layer, const char *name) {
    char full[128];
    if (layer >= 0)
        snprintf(full, sizeof full, "blk.%d.%s%s", layer, m->block, name);
    else
        snprintf(full, sizeof full, "%s", name);
    const gguf_tensor *t = gguf_find_tensor(m->g, full);
    if (!t)
        return (ref_matrix){0};
    ref_matrix out = {calloc(t->ne[0] * t->ne[1], sizeof(double)), t->ne[1], t->ne[0]};
    float *row = calloc(out.cols, sizeof *row);
    for (size_t r = 0; out.v && row && r < out.rows; r++) {
        quant_decode_row_plain(t->type, t->data + r * cmc_type_row_bytes(t->type, out.cols), row, out.cols);
        for (size_t c = 0; c < out.cols; c++)
            out.v[r * out.cols + c] = (double)row[c];
    }
    free(row);
    return out;
}

static void ref_multiply(const ref_matrix *w, const double *x, double *y) {
    for (size_t r = 0; r < w->rows; r++) {
        y[r] = 0;
        for (size_t c = 0; c < w->cols; c++)
            y[r] += w->v[r * w->cols + c] * x[c];
    }
}

static void ref_norm(const ref_model *m, const ref_matrix *w, double *x, size_t n) {
    double mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += x[i] * x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        x[i] *= w->v[i] / sqrt(mean + m->eps);
}

/* Multiplies pairs, as complex numbers, by e^(i angle). */
static void ref_rope(const ref_model *m, double *head, size_t pos, double base, double stretch,
                     const ref_matrix *factors) {
    const size_t half = m->wide_k / 2;
    const int pairs = strcmp(m->arch, "llama") == 0;
    for (size_t i = 0; i < half; i++) {
        double angle = (double)pos / stretch * pow(base, -(double)i / (double)half);
        if (factors->v)
            angle /= factors->v[i];
        double *re = head + (pairs ? 2 * i : i), *im = head + (pairs ? 2 * i + 1 : i + half);
        const double complex z = (*re + *im * I) * cexp(angle * I);
        *re = creal(z);
        *im = cimag(z);
    }
}

/* One projection of all positions with its bias, if it has one. */
static double *ref_project(const ref_model *m, int layer, const char *name, const double *x, size_t n, size_t *width) {
    char key[64];
    snprintf(key, sizeof key, "%s.weight", name);
    ref_matrix w = ref_tensor(m, layer, key);
    snprintf(key, sizeof key, "%s.bias", name);
    ref_matrix b = ref_tensor(m, layer, key);
    double *y = calloc(n * w.rows, sizeof *y);
    for (size_t i = 0; i < n; i++) {
        ref_multiply(&w, x + i * w.cols, y + i * w.rows);
        for (size_t r = 0; b.v && r < w.rows; r++)
            y[i * w.rows + r] += b.v[r];
    }
    *width = w.rows;
    free(w.v);
    free(b.v);
    return y;
}

static void ref_heads(const ref_model *m, int layer, double *x, size_t n, size_t heads, const char *norm, int local) {
    ref_matrix w = ref_tensor(m, layer, norm);
    ref_matrix factors = local ? (ref_matrix){0} : ref_tensor(m, -1, "rope_freqs.weight");
    for (size_t i = 0; i < n; i++)
        for (size_t h = 0; h < heads; h++) {
            double *head = x + (i * heads + h) * m->wide_k;
            if (w.v)
                ref_norm(m, &w, head, m->wide_k);
            ref_rope(m, head, i, local ? m->base_local : m->base, local ? 1 : m->stretch, &factors);
        }
    free(w.v);
    free(factors.v);
}

static void ref_attend(const ref_model *m, const double *q, const double *k, const double *v, double *out, size_t n,
                       size_t window) {
    double *w = calloc(n, sizeof *w);
    for (size_t i = 0; i < n; i++)
        for (size_t h = 0; h < m->heads; h++) {
            const size_t kv = h * m->kv_heads / m->heads;
            double sum = 0;
            for (size_t j = 0; j <= i; j++) {
                double s = 0;
                for (size_t d = 0; d < m->wide_k; d++)
                    s += q[(i * m->heads + h) * m->wide_k + d] * k[(j * m->kv_heads + kv) * m->wide_k + d];
                w[j] = window && i - j >= window ? 0 : exp(s / sqrt((double)m->wide_k));
                sum += w[j];
            }
            for (size_t d = 0; d < m->wide_v; d++) {
                double o = 0;
                for (size_t j = 0; j <= i; j++)
                    o += w[j] / sum * v[(j * m->kv_heads + kv) * m->wide_v + d];
                out[(i * m->heads + h) * m->wide_v + d] = o;
            }
        }
    free(w);
}

/* x += f, f normed first where the family has a norm of that name. */
static void ref_add(const ref_model *m, int layer, const char *norm, double *x, double *f, size_t n) {
    ref_matrix w = ref_tensor(m, layer, norm);
    for (size_t i = 0; i < n; i++) {
        if (w.v)
            ref_norm(m, &w, f + i * m->embd, m->embd);
        for (size_t d = 0; d < m->embd; d++)
            x[i * m->embd + d] += f[i * m->embd + d];
    }
    free(w.v);
}

static double *ref_normed(const ref_model *m, int layer, const char *norm, const double *x, size_t n) {
    ref_matrix w = ref_tensor(m, layer, norm);
    double *y = calloc(n * m->embd, sizeof *y);
    memcpy(y, x, n * m->embd * sizeof *y);
    for (size_t i = 0; i < n; i++)
        ref_norm(m, &w, y + i * m->embd, m->embd);
    free(w.v);
    return y;
}

static void ref_layer(const ref_model *m, int layer, double *x, size_t n) {
    const int gemma = strcmp(m->arch, "gemma3") == 0;
    const int windowed = m->window && (!gemma || (size_t)layer % m->period != m->period - 1);
    size_t width, ff;
    double *h = ref_normed(m, layer, "attn_norm.weight", x, n);
    double *q = ref_project(m, layer, "attn_q", h, n, &width), *k = ref_project(m, layer, "attn_k", h, n, &width);
    double *v = ref_project(m, layer, "attn_v", h, n, &width), *o = calloc(n * m->heads * m->wide_v, sizeof *o);
    ref_heads(m, layer, q, n, m->heads, "attn_q_norm.weight", gemma && windowed);
    ref_heads(m, layer, k, n, m->kv_heads, "attn_k_norm.weight", gemma && windowed);
    ref_attend(m, q, k, v, o, n, windowed ? m->window : 0);
    double *a = ref_project(m, layer, "attn_output", o, n, &width);
    ref_add(m, layer, "post_attention_norm.weight", x, a, n);
    double *f = ref_normed(m, layer, "ffn_norm.weight", x, n);
    double *gate = ref_project(m, layer, "ffn_gate", f, n, &ff), *up = ref_project(m, layer, "ffn_up", f, n, &ff);
    for (size_t i = 0; i < n * ff; i++) {
        const double z = gate[i], pi = acos(-1);
        const double act = gemma ? z / 2 * (1 + tanh(sqrt(2 / pi) * (z + 0.044715 * z * z * z))) : z / (1 + exp(-z));
        up[i] *= act;
    }
    double *down = ref_project(m, layer, "ffn_down", up, n, &width);
    ref_add(m, layer, "post_ffw_norm.weight", x, down, n);
    double *all[] = {h, q, k, v, o, a, f, gate, up, down};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* ------------------------------------------------------------------------------------------------ expanded blocks */

static double ref_dot(const double *a, const double *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* p becomes the two merged, by the formulas of arXiv 2501.10979's public code. */
static void ref_merge(const ref_model *m, int layer, gguf_str merge, double strength, const double *x, double *p, const double *e) {
    ref_matrix f = ref_tensor(m, layer, "cmc_merge.bias"), w = ref_tensor(m, layer, "cmc_merge.weight");
    double z = f.v[0], a, t = 0;
    if (merge.n == 5 && merge.s[0] == 'd')
        z += ref_dot(w.v, p, m->embd) + ref_dot(w.v + m->embd, e, m->embd);
    if (merge.n == 7)
        z += ref_dot(w.v, x, m->embd);
    a = strength / (1 + exp(-z));
    if (merge.s[0] == 's')
        t = acos(ref_dot(p, e, m->embd) / sqrt(ref_dot(p, p, m->embd) * ref_dot(e, e, m->embd)));
    for (size_t i = 0; i < m->embd; i++)
        p[i] = t > 1e-4 ? (sin((1 - a) * t) * p[i] + sin(a * t) * e[i]) / sin(t) : (1 - a) * p[i] + a * e[i];
    free(f.v);
    free(w.v);
}

/* A layer with its block: kind 1 beside it, 2 behind it. */
static void ref_expanded(ref_model *m, int layer, int kind, double strength, double *x, size_t n) {
    double *in = calloc(n * m->embd, sizeof *in), *e = calloc(n * m->embd, sizeof *e);
    gguf_str merge = {"", 0};
    gguf_get_str(m->g, "cmc.expand.merge", &merge);
    memcpy(in, x, n * m->embd * sizeof *x);
    ref_layer(m, layer, x, n);
    memcpy(e, kind == 2 ? x : in, n * m->embd * sizeof *x);
    m->block = "cmc_expand.";
    ref_layer(m, layer, e, n);
    m->block = "";
    for (size_t i = 0; i < n; i++) {
        if (kind == 1)
            ref_merge(m, layer, merge, strength, in + i * m->embd, x + i * m->embd, e + i * m->embd);
        for (size_t d = 0; kind == 2 && d < m->embd; d++)
            x[i * m->embd + d] += strength * (e[i * m->embd + d] - x[i * m->embd + d]);
    }
    free(in);
    free(e);
}

/* 0: the layer has no block. */
static int ref_kind(const ref_model *m, size_t layer) {
    const gguf_kv *layers = gguf_get_array(m->g, "cmc.expand.layers", GGUF_U32);
    const gguf_kv *kinds = gguf_get_array(m->g, "cmc.expand.kinds", GGUF_STRING);
    const uint8_t *at = NULL;
    for (uint64_t i = 0; layers && kinds && i < layers->n; i++) {
        const gguf_str kind = gguf_array_next_str(kinds, &at);
        if (gguf_array_i64(layers, i) == (int64_t)layer)
            return kind.s[0] == 's' ? 2 : 1;
    }
    return 0;
}

static int ref_open(ref_model *m, const char *path) {
    m->block = "";
    if (gguf_open(path, &m->g, NULL) != CMC_OK)
        return 0;
    gguf_str arch;
    if (!gguf_get_str(m->g, "general.architecture", &arch) || arch.n >= sizeof m->arch)
        return 0;
    memcpy(m->arch, arch.s, arch.n);
    m->embd = (size_t)ref_number(m, "embedding_length", 0);
    m->layers = (size_t)ref_number(m, "block_count", 0);
    m->heads = (size_t)ref_number(m, "attention.head_count", 0);
    m->kv_heads = (size_t)ref_number(m, "attention.head_count_kv", 0);
    m->wide_k = (size_t)ref_number(m, "attention.key_length", (double)(m->embd / m->heads));
    m->wide_v = (size_t)ref_number(m, "attention.value_length", (double)(m->embd / m->heads));
    m->eps = ref_number(m, "attention.layer_norm_rms_epsilon", 0);
    m->base = ref_number(m, "rope.freq_base", 10000);
    m->base_local = ref_number(m, "rope.freq_base_swa", 10000);
    m->stretch = ref_number(m, "rope.scaling.factor", 1);
    m->window = (size_t)ref_number(m, "attention.sliding_window", 0);
    m->period = (size_t)ref_number(m, "attention.sliding_window_pattern", 6);
    return 1;
}

double *reference_logits(const char *path, const int32_t *ids, size_t n, size_t *n_vocab) {
    return reference_logits_at(path, 1, ids, n, n_vocab);
}

double *reference_logits_at(const char *path, double strength, const int32_t *ids, size_t n, size_t *n_vocab) {
    ref_model m = {0};
    if (!ref_open(&m, path)) {
        gguf_free(m.g);
        return NULL;
    }
    ref_matrix embd = ref_tensor(&m, -1, "token_embd.weight"), head = ref_tensor(&m, -1, "output.weight");
    double *x = calloc(n * m.embd, sizeof *x);
    for (size_t i = 0; i < n; i++)
        for (size_t d = 0; d < m.embd; d++)
            x[i * m.embd + d] =
                embd.v[(size_t)ids[i] * m.embd + d] * (strcmp(m.arch, "gemma3") == 0 ? sqrt((double)m.embd) : 1);
    for (size_t il = 0; il < m.layers; il++) {
        const int kind = strength == 0 ? 0 : ref_kind(&m, il);
        if (kind)
            ref_expanded(&m, (int)il, kind, strength, x, n);
        else
            ref_layer(&m, (int)il, x, n);
    }
    double *h = ref_normed(&m, -1, "output_norm.weight", x, n);
    const ref_matrix *out = head.v ? &head : &embd;
    double *logits = calloc(n * out->rows, sizeof *logits);
    for (size_t i = 0; i < n; i++)
        ref_multiply(out, h + i * m.embd, logits + i * out->rows);
    *n_vocab = out->rows;
    free(x);
    free(h);
    free(embd.v);
    free(head.v);
    gguf_free(m.g);
    return logits;
}
