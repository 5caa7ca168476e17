/* Sessions: one timeline over a model. */
#include "runtime/session.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

kv_shape session_kv_shape(const cmc_model *m, float strength) {
    const model_params *p = &m->p;
    const size_t layers = (size_t)p->n_layer + (strength != 0.0f ? m->expand.n : 0);
    return kv_shape_of(layers, (size_t)p->n_head_kv, (size_t)p->head_k, (size_t)p->head_v, m->rt->kv);
}

static cmc_session *session_alloc(cmc_model *m, int32_t n_ctx, float strength) {
    cmc_session *s = cmc_calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->m = m;
    s->n_ctx = n_ctx;
    s->strength = strength;
    s->kv.shape = session_kv_shape(m, strength);
    return s;
}

cmc_status cmc_session_new(cmc_model *m, int32_t n_ctx, cmc_session **out, cmc_error *err) {
    *out = NULL;
    if (n_ctx < 0)
        return cmc_fail(err, CMC_E_ARG, "%s: a context of %d tokens was asked for; it must be at least 1, or 0 for the "
                        "model's own %d", m->path, n_ctx, m->p.n_ctx_train);
    if (n_ctx > m->p.n_ctx_train)
        return cmc_fail(err, CMC_E_RANGE, "%s: a context of %d tokens was asked for, but the model was trained for %d",
                        m->path, n_ctx, m->p.n_ctx_train);
    cmc_session *s = session_alloc(m, n_ctx ? n_ctx : m->p.n_ctx_train, 1.0f);
    if (!s)
        return cmc_fail_nomem(err, "a session", sizeof *s);
    const uint64_t need = kv_bytes(&s->kv.shape, (size_t)s->n_ctx), have = cmc_mem_available();
    if (have && need > have) {
        const int32_t asked = s->n_ctx;
        cmc_session_free(s);
        return cmc_fail(err, CMC_E_NOMEM,
                        "%s: keys and values of a context of %d tokens take %" PRIu64 " MiB, but only %" PRIu64
                        " MiB of memory are free; a shorter context would fit",
                        m->path, asked, (need >> 20) + 1, have >> 20);
    }
    *out = s;
    return CMC_OK;
}

cmc_status cmc_session_fork(const cmc_session *s, cmc_session **out, cmc_error *err) {
    *out = NULL;
    cmc_session *f = session_alloc(s->m, s->n_ctx, s->strength);
    if (!f)
        return cmc_fail_nomem(err, "a session", sizeof *f);
    cmc_status st = cmc_ids_append(&f->ids, s->ids.v, s->ids.n);
    if (st != CMC_OK)
        st = cmc_fail_nomem(err, "a session's ids", s->ids.n * sizeof *s->ids.v);
    else
        st = kv_copy(&f->kv, &s->kv, s->n_eval, err);
    if (st != CMC_OK) {
        cmc_session_free(f);
        return st;
    }
    f->n_eval = s->n_eval;
    *out = f;
    return CMC_OK;
}

void cmc_session_free(cmc_session *s) {
    if (!s)
        return;
    kv_free(&s->kv);
    cmc_ids_free(&s->ids);
    free(s);
}

cmc_status session_check_expand(const cmc_model *m, double strength, cmc_error *err) {
    if (fabs(strength) <= EXPAND_MOST_STRENGTH)
        return CMC_OK;
    return cmc_fail(err, CMC_E_ARG, "%s: a strength of %g for its expanded blocks; a number from %g to %g would be right", m->path,
                    strength, -EXPAND_MOST_STRENGTH, EXPAND_MOST_STRENGTH);
}

/* What was evaluated under another strength says nothing about this one: all of it is pending again. */
cmc_status cmc_session_set_expand(cmc_session *s, double strength, cmc_error *err) {
    CMC_TRY(session_check_expand(s->m, strength, err));
    if ((float)strength == s->strength || s->m->expand.n == 0)
        return CMC_OK;
    kv_free(&s->kv);
    s->strength = (float)strength;
    s->kv.shape = session_kv_shape(s->m, s->strength);
    s->n_eval = 0;
    return CMC_OK;
}

double cmc_session_expand(const cmc_session *s) {
    return (double)s->strength;
}

cmc_model *cmc_session_model(const cmc_session *s) {
    return s->m;
}

int32_t cmc_session_n_ctx(const cmc_session *s) {
    return s->n_ctx;
}

size_t cmc_session_length(const cmc_session *s) {
    return s->ids.n;
}

size_t cmc_session_pending(const cmc_session *s) {
    return s->ids.n - s->n_eval;
}

static cmc_status session_check_id(const cmc_session *s, int32_t id, size_t at, cmc_error *err) {
    if (id < 0 || id >= s->m->p.n_vocab)
        return cmc_fail(err, CMC_E_ARG, "%s: token id %d at position %zu is not one of the model's %d", s->m->path, id,
                        at, s->m->p.n_vocab);
    return CMC_OK;
}

cmc_status cmc_session_sync(cmc_session *s, const int32_t *ids, size_t n, cmc_error *err) {
    if (n > (size_t)s->n_ctx)
        return cmc_fail(err, CMC_E_RANGE, "%s: %zu tokens do not fit in a context of %d", s->m->path, n, s->n_ctx);
    for (size_t i = 0; i < n; i++)
        CMC_TRY(session_check_id(s, ids[i], i, err));
    if (cmc_ids_reserve(&s->ids, n) != CMC_OK)
        return cmc_fail_nomem(err, "a session's ids", n * sizeof *ids);
    size_t keep = 0;
    while (keep < n && keep < s->n_eval && s->ids.v[keep] == ids[keep])
        keep++;
    if (keep == n && n > 0)
        keep = n - 1;
    if (n > keep)
        memcpy(s->ids.v + keep, ids + keep, (n - keep) * sizeof *ids);
    s->ids.n = n;
    s->n_eval = keep;
    kv_trim(&s->kv,
            n + KV_CHUNK); /* one to spare: a delta's text that is re-tokenised shrinks and grows all the time */
    return CMC_OK;
}

cmc_status cmc_session_append(cmc_session *s, int32_t id, cmc_error *err) {
    if (s->ids.n >= (size_t)s->n_ctx)
        return cmc_fail(err, CMC_E_RANGE, "%s: the context of %d tokens is full", s->m->path, s->n_ctx);
    CMC_TRY(session_check_id(s, id, s->ids.n, err));
    if (cmc_ids_push(&s->ids, id) != CMC_OK)
        return cmc_fail_nomem(err, "a session's ids", (s->ids.n + 1) * sizeof id);
    return CMC_OK;
}
