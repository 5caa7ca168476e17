/* Causal attention of a packed batch and its gradient. A work item is a sequence and a key-value head with the query
 * heads that share it, so that each item writes rows and columns of its own and no sum depends on who does what. Scores
 * exist only for a block of rows; the backward pass computes them again from the log-sum-exp (as FlashAttention does).
 */
#include "tinylm/attend.h"

#include <math.h>
#include <string.h>

#include "tinylm/drop.h"
#include "tinylm/rowmath.h"

typedef struct attend_item {
    size_t first, len; /* the sequence's tokens */
    size_t kv;         /* key-value head */
} attend_item;

/* A block of queries and the keys that any of them sees, counted within the sequence. */
typedef struct attend_block {
    size_t r0, rows, c0, cols;
} attend_block;

/* Item i of n_seqs * n_head_kv. */
static attend_item attend_item_get(const attend *a, size_t i) {
    size_t seq = i / a->n_head_kv, first = a->start[seq];
    return (attend_item){first, a->start[seq + 1] - first, i % a->n_head_kv};
}

/* The first key that query i of a sequence sees. */
static size_t attend_from(const attend *a, size_t i) {
    return a->window && i + 1 > a->window ? i + 1 - a->window : 0;
}

static attend_block attend_block_at(const attend *a, attend_item it, size_t r0) {
    size_t rows = it.len - r0 < ATTEND_ROWS ? it.len - r0 : ATTEND_ROWS, c0 = attend_from(a, r0);
    return (attend_block){r0, rows, c0, r0 + rows - c0};
}

static void attend_scores(const attend *a, attend_item it, size_t head, attend_block b, float *s) {
    const float *q = a->q + (it.first + b.r0) * a->ld + head * a->dk;
    const float *k = a->k + (it.first + b.c0) * a->ld + it.kv * a->dk;
    blas_gemm(a->blas, false, false, b.rows, b.cols, a->dk, a->scale, q, a->ld, k, a->ld, 0.0f, s, a->max_seq);
}

/* Zeros what query r of the block does not see; what it does is columns [*from, *to). */
static void attend_mask(const attend *a, attend_block b, size_t r, float *row, size_t *from, size_t *to) {
    *from = attend_from(a, b.r0 + r) - b.c0;
    *to = b.r0 + r + 1 - b.c0;
    memset(row, 0, *from * sizeof(float));
    memset(row + *to, 0, (b.cols - *to) * sizeof(float));
}

enum { ATTEND_DROP_BLOCK = 256 };

/* row[n] times the mask of a token's weights, whose first is for key `key` of its sequence. */
static void attend_drop(const attend *a, size_t token, size_t head, size_t key, float *row, size_t n) {
    float mask[ATTEND_DROP_BLOCK];
    if (!(a->dropout > 0.0f))
        return;
    uint64_t row_key = drop_key(a->drop_key, head, token);
    for (size_t at = 0; at < n; at += ATTEND_DROP_BLOCK) {
        size_t m = n - at < ATTEND_DROP_BLOCK ? n - at : ATTEND_DROP_BLOCK;
        drop_mask(row_key, a->dropout, mask, key + at, m);
        for (size_t c = 0; c < m; c++)
            row[at + c] *= mask[c];
    }
}

/* One query head of an item: att rows and log-sum-exps. */
static void attend_head_forward(const attend *a, attend_item it, size_t head, float *s) {
    size_t h = a->n_head;
    for (size_t r0 = 0; r0 < it.len; r0 += ATTEND_ROWS) {
        attend_block b = attend_block_at(a, it, r0);
        attend_scores(a, it, head, b, s);
        for (size_t r = 0; r < b.rows; r++) {
            size_t from, to;
            float *row = s + r * a->max_seq;
            attend_mask(a, b, r, row, &from, &to);
            float max = row_max(row + from, to - from);
            double sum = row_exp_sum(row + from, to - from, max);
            row_scale(row + from, to - from, (float)(1.0 / sum));
            a->lse[(it.first + r0 + r) * h + head] = max + (float)log(sum);
            attend_drop(a, it.first + r0 + r, head, b.c0 + from, row + from, to - from);
        }
        blas_gemm(a->blas, false, true, b.rows, a->dv, b.cols, 1.0f, s, a->max_seq,
                  a->v + (it.first + b.c0) * a->ld + it.kv * a->dv, a->ld, 0.0f,
                  a->att + (it.first + r0) * h * a->dv + head * a->dv, h * a->dv);
    }
}

void attend_forward(const attend *a, int t) {
    size_t group = a->n_head / a->n_head_kv, items = a->n_seqs * a->n_head_kv;
    float *s = a->scores + (size_t)t * 2 * ATTEND_ROWS * a->max_seq;
    for (size_t i = (size_t)t; i < items; i += (size_t)a->nt) {
        attend_item it = attend_item_get(a, i);
        for (size_t g = 0; g < group; g++)
            attend_head_forward(a, it, it.kv * group + g, s);
    }
}

/* p: scores -> weights, after dropout; dp: their gradients -> those of the scores, times the scale. */
static void attend_softmax_grad(const attend *a, attend_item it, size_t head, attend_block b, float *p, float *dp) {
    size_t h = a->n_head;
    for (size_t r = 0; r < b.rows; r++) {
        float *pr = p + r * a->max_seq, *dr = dp + r * a->max_seq;
        size_t tok = it.first + b.r0 + r, from, to;
        const float *o = a->att + tok * h * a->dv + head * a->dv, *go = a->datt + tok * h * a->dv + head * a->dv;
        float dot = 0.0f;
        for (size_t j = 0; j < a->dv; j++)
            dot += o[j] * go[j];
        attend_mask(a, b, r, pr, &from, &to);
        attend_mask(a, b, r, dr, &from, &to);
        row_exp_sum(pr + from, to - from, a->lse[tok * h + head]);
        attend_drop(a, tok, head, b.c0 + from, dr + from, to - from);
        for (size_t c = from; c < to; c++)
            dr[c] = pr[c] * (dr[c] - dot) * a->scale;
        attend_drop(a, tok, head, b.c0 + from, pr + from, to - from);
    }
}

static void attend_head_backward(const attend *a, attend_item it, size_t head, float *p, float *dp) {
    size_t dk = a->dk, dv = a->dv, h = a->n_head, ld = a->ld, m = a->max_seq;
    for (size_t r0 = 0; r0 < it.len; r0 += ATTEND_ROWS) {
        attend_block b = attend_block_at(a, it, r0);
        size_t qo = (it.first + r0) * ld + head * dk;
        size_t ko = (it.first + b.c0) * ld + it.kv * dk, vo = (it.first + b.c0) * ld + it.kv * dv;
        const float *go = a->datt + (it.first + r0) * h * dv + head * dv;
        attend_scores(a, it, head, b, p);
        blas_gemm(a->blas, false, false, b.rows, b.cols, dv, 1.0f, go, h * dv, a->v + vo, ld, 0.0f, dp, m);
        attend_softmax_grad(a, it, head, b, p, dp);
        blas_gemm(a->blas, false, true, b.rows, dk, b.cols, 1.0f, dp, m, a->k + ko, ld, 0.0f, a->dq + qo, ld);
        blas_gemm(a->blas, true, true, b.cols, dk, b.rows, 1.0f, dp, m, a->q + qo, ld, 1.0f, a->dk_out + ko, ld);
        blas_gemm(a->blas, true, true, b.cols, dv, b.rows, 1.0f, p, m, go, h * dv, 1.0f, a->dv_out + vo, ld);
    }
}

void attend_backward(const attend *a, int t) {
    size_t group = a->n_head / a->n_head_kv, items = a->n_seqs * a->n_head_kv;
    float *p = a->scores + (size_t)t * 2 * ATTEND_ROWS * a->max_seq, *dp = p + ATTEND_ROWS * a->max_seq;
    for (size_t i = (size_t)t; i < items; i += (size_t)a->nt) {
        attend_item it = attend_item_get(a, i);
        for (size_t r = it.first; r < it.first + it.len; r++) {
            memset(a->dk_out + r * a->ld + it.kv * a->dk, 0, a->dk * sizeof(float));
            memset(a->dv_out + r * a->ld + it.kv * a->dv, 0, a->dv * sizeof(float));
        }
        for (size_t g = 0; g < group; g++)
            attend_head_backward(a, it, it.kv * group + g, p, dp);
    }
}
