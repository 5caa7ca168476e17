/* Attention of a batch's queries to the keys and values of their sessions. */
#ifndef CMC_RUNTIME_ATTENTION_H
#define CMC_RUNTIME_ATTENTION_H
#include "runtime/session.h"

/* Queries of one session: rows row0 .. row0 + n of the batch, at positions pos0 .. pos0 + n. */
typedef struct attn_seq {
    const kv_cache *kv;
    size_t row0, n, pos0;
} attn_seq;

typedef struct attn_job {
    const attn_seq *seqs;
    size_t n_seqs;
    size_t layer, n_head, n_head_kv, head_k, head_v;
    size_t window;          /* positions that a query sees, its own included; 0: all before it */
    const float *q;         /* [rows][n_head][head_k], already scaled */
    float *out;             /* [rows][n_head][head_v] */
    const vec_ops *vec;
    bool exact;             /* each output in one order of summation, whatever the batch */
    bool split;             /* long contexts in parts, which attn_join puts together; not with `exact` */
    int threads;
    size_t max_pos;         /* positions of the longest sequence */
} attn_job;

/* Scratch of all threads; grown as needed. */
typedef struct attn_work {
    float *buf;
    size_t floats, per_thread, parts;
} attn_work;
cmc_status attn_prepare(attn_work *w, const attn_job *job, cmc_error *err);
void attn_work_free(attn_work *w);
/* The part of thread t of nt. */
void attn_run(const attn_job *job, const attn_work *w, int t, int nt);
/* Where a sequence was split: thread t's share of joining, after all threads' attn_run. */
bool attn_is_split(const attn_job *job);
void attn_join(const attn_job *job, const attn_work *w, int t, int nt);
#endif
