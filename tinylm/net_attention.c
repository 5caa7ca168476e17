/* Causal attention of a packed batch and its gradient. A work item is a sequence and a key-value head with the query
 * heads that share it, so that each item writes rows and columns of its own and no sum depends on who does what. Scores
 * exist only for a block of rows; the backward pass computes them again from the log-sum-exp (as FlashAttention does).
 */
#include <math.h>
#include <string.h>

#include "tinylm/net.h"
#include "tinylm/rowmath.h"

typedef struct attention_item {
    size_t first, len; /* the sequence's tokens */
    size_t kv;         /* key-value head */
} attention_item;

/* Item i of n_seqs * n_head_kv. */
static attention_item attention_item_get(const net *n, size_t i) {
    size_t heads = (size_t)n->p->s.n_head_kv, seq = i / heads;
    size_t first = n->batch->start[seq];
    return (attention_item){first, n->batch->start[seq + 1] - first, i % heads};
}

static void attention_scores(const net *n, const float *q, const float *k, size_t r0, size_t rows, size_t cols,
                             float *s) {
    const params_shape *sh = &n->p->s;
    size_t d = (size_t)sh->head_dim, d3 = params_qkv(sh);
    blas_gemm(n->blas, false, false, rows, cols, d, 1.0f / sqrtf((float)d), q + r0 * d3, d3, k, d3, 0.0f, s,
              n->max_seq);
}

/* One query head of an item: att rows and log-sum-exps. */
static void attention_head_forward(const net *n, const net_layer *l, attention_item it, size_t head, float *s) {
    const params_shape *sh = &n->p->s;
    size_t d = (size_t)sh->head_dim, d3 = params_qkv(sh), h = (size_t)sh->n_head, hk = (size_t)sh->n_head_kv;
    const float *q = l->qkv + it.first * d3 + head * d;
    const float *k = l->qkv + it.first * d3 + (h + it.kv) * d, *v = k + hk * d;
    for (size_t r0 = 0; r0 < it.len; r0 += NET_ATT_ROWS) {
        size_t rows = it.len - r0 < NET_ATT_ROWS ? it.len - r0 : NET_ATT_ROWS, cols = r0 + rows;
        attention_scores(n, q, k, r0, rows, cols, s);
        for (size_t r = 0; r < rows; r++) {
            float *row = s + r * n->max_seq;
            size_t m = r0 + r + 1;
            float max = row_max(row, m);
            double sum = row_exp_sum(row, m, max);
            row_scale(row, m, (float)(1.0 / sum));
            memset(row + m, 0, (cols - m) * sizeof(float));
            l->lse[(it.first + r0 + r) * h + head] = max + (float)log(sum);
        }
        blas_gemm(n->blas, false, true, rows, d, cols, 1.0f, s, n->max_seq, v, d3, 0.0f,
                  l->att + (it.first + r0) * h * d + head * d, h * d);
    }
}

void net_attention_worker(net *n, const net_layer *l, int t) {
    size_t hk = (size_t)n->p->s.n_head_kv, group = (size_t)n->p->s.n_head / hk, items = n->batch->n_seqs * hk;
    float *s = n->scores + (size_t)t * 2 * NET_ATT_ROWS * n->max_seq;
    for (size_t i = (size_t)t; i < items; i += (size_t)n->nt) {
        attention_item it = attention_item_get(n, i);
        for (size_t g = 0; g < group; g++)
            attention_head_forward(n, l, it, it.kv * group + g, s);
    }
}

/* p: scores -> probabilities; dp: their gradients -> those of the scores, times 1/sqrt(d). */
static void attention_softmax_grad(const net *n, const net_layer *l, attention_item it, size_t head, size_t r0,
                                   size_t rows, float *p, float *dp) {
    const params_shape *sh = &n->p->s;
    size_t d = (size_t)sh->head_dim, h = (size_t)sh->n_head, cols = r0 + rows;
    float scale = 1.0f / sqrtf((float)d);
    for (size_t r = 0; r < rows; r++) {
        float *pr = p + r * n->max_seq, *dr = dp + r * n->max_seq;
        size_t tok = it.first + r0 + r, m = r0 + r + 1;
        const float *o = l->att + tok * h * d + head * d, *go = n->datt + tok * h * d + head * d;
        float dot = 0.0f;
        for (size_t j = 0; j < d; j++)
            dot += o[j] * go[j];
        row_exp_sum(pr, m, l->lse[tok * h + head]);
        for (size_t c = 0; c < m; c++)
            dr[c] = pr[c] * (dr[c] - dot) * scale;
        memset(pr + m, 0, (cols - m) * sizeof(float));
        memset(dr + m, 0, (cols - m) * sizeof(float));
    }
}

static void attention_head_backward(const net *n, const net_layer *l, attention_item it, size_t head, float *p,
                                    float *dp) {
    const params_shape *sh = &n->p->s;
    size_t d = (size_t)sh->head_dim, d3 = params_qkv(sh), h = (size_t)sh->n_head, hk = (size_t)sh->n_head_kv;
    size_t qo = it.first * d3 + head * d, ko = it.first * d3 + (h + it.kv) * d, vo = ko + hk * d;
    for (size_t r0 = 0; r0 < it.len; r0 += NET_ATT_ROWS) {
        size_t rows = it.len - r0 < NET_ATT_ROWS ? it.len - r0 : NET_ATT_ROWS, cols = r0 + rows;
        const float *go = n->datt + (it.first + r0) * h * d + head * d;
        attention_scores(n, l->qkv + qo, l->qkv + ko, r0, rows, cols, p);
        blas_gemm(n->blas, false, false, rows, cols, d, 1.0f, go, h * d, l->qkv + vo, d3, 0.0f, dp, n->max_seq);
        attention_softmax_grad(n, l, it, head, r0, rows, p, dp);
        blas_gemm(n->blas, false, true, rows, d, cols, 1.0f, dp, n->max_seq, l->qkv + ko, d3, 0.0f,
                  n->dqkv + qo + r0 * d3, d3);
        blas_gemm(n->blas, true, true, cols, d, rows, 1.0f, dp, n->max_seq, l->qkv + qo + r0 * d3, d3, 1.0f,
                  n->dqkv + ko, d3);
        blas_gemm(n->blas, true, true, cols, d, rows, 1.0f, p, n->max_seq, go, h * d, 1.0f, n->dqkv + vo, d3);
    }
}

void net_attention_back_worker(net *n, const net_layer *l, int t) {
    const params_shape *sh = &n->p->s;
    size_t d = (size_t)sh->head_dim, d3 = params_qkv(sh), h = (size_t)sh->n_head, hk = (size_t)sh->n_head_kv;
    size_t group = h / hk, items = n->batch->n_seqs * hk;
    float *p = n->scores + (size_t)t * 2 * NET_ATT_ROWS * n->max_seq, *dp = p + NET_ATT_ROWS * n->max_seq;
    for (size_t i = (size_t)t; i < items; i += (size_t)n->nt) {
        attention_item it = attention_item_get(n, i);
        for (size_t r = it.first; r < it.first + it.len; r++) {
            memset(n->dqkv + r * d3 + (h + it.kv) * d, 0, d * sizeof(float));
            memset(n->dqkv + r * d3 + (h + hk + it.kv) * d, 0, d * sizeof(float));
        }
        for (size_t g = 0; g < group; g++)
            attention_head_backward(n, l, it, it.kv * group + g, p, dp);
    }
}
