/* The delta's attention: its layer's rows as attend.h wants them. */
#include <math.h>

#include "tinylm/attend.h"
#include "tinylm/net.h"

static attend net_attend(const net *n, const net_layer *l) {
    const params_shape *s = &n->p->s;
    size_t d = (size_t)s->head_dim, h = (size_t)s->n_head, hk = (size_t)s->n_head_kv;
    attend a = {.blas = n->blas, .nt = n->nt, .start = n->batch->start, .n_seqs = n->batch->n_seqs, .n_head = h,
                .n_head_kv = hk, .dk = d, .dv = d, .scale = 1.0f / sqrtf((float)d), .ld = params_qkv(s),
                .att = l->att, .lse = l->lse, .scores = n->scores, .max_seq = n->max_seq};
    a.q = l->qkv;
    a.k = a.q + h * d;
    a.v = a.k + hk * d;
    return a;
}

void net_attention_worker(net *n, const net_layer *l, int t) {
    attend a = net_attend(n, l);
    attend_forward(&a, t);
}

void net_attention_back_worker(net *n, const net_layer *l, int t) {
    const params_shape *s = &n->p->s;
    attend a = net_attend(n, l);
    a.datt = n->datt;
    a.dq = n->dqkv;
    a.dk_out = a.dq + (size_t)s->n_head * a.dk;
    a.dv_out = a.dk_out + (size_t)s->n_head_kv * a.dk;
    attend_backward(&a, t);
}
