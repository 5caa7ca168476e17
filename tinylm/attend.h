/* Causal attention of a packed batch of sequences, and its gradient, for whatever net holds the rows. */
#ifndef CMC_TINYLM_ATTEND_H
#define CMC_TINYLM_ATTEND_H
#include "runtime/blas.h"

enum { ATTEND_ROWS = 64 };   /* queries whose scores exist at a time */

/* Token r's queries, keys and values are at q + r ld, k + r ld and v + r ld: heads one after the other, rotated. */
typedef struct attend {
    const blas *blas;            /* NULL: plain loops */
    int nt;
    const size_t *start; size_t n_seqs;      /* where each sequence begins, [n_seqs + 1] */
    size_t n_head, n_head_kv, dk, dv;        /* widths of a key's and a value's head */
    float scale;                 /* of the scores */
    size_t window;               /* tokens that one sees, itself included; 0: all before it */
    const float *q, *k, *v; size_t ld;
    float *att;                  /* [T][n_head dv] */
    float *lse;                  /* [T][n_head] log-sum-exp of the scores */
    float dropout;               /* of the weights that the scores become; 0: none */
    uint64_t drop_key;           /* decides which (drop.h) */
    float *scores; size_t max_seq;           /* [nt][2][ATTEND_ROWS][max_seq] */
    const float *datt;           /* backward: the gradient of att, and those of q, k, v (as these, ld apart) */
    float *dq, *dk_out, *dv_out;
} attend;

/* The share of thread t; both run on all nt threads at once. */
void attend_forward(const attend *a, int t);
void attend_backward(const attend *a, int t);
#endif
