/* cmc_eval: the pending tokens of many sessions as one batch, in passes of bounded size. */
#include <string.h>

#include "base/error.h"
#include "runtime/graph.h"

#define EVAL_LOGIT_ROWS 32  /* rows of logits that are kept beside when they go to several places */

/* The sessions of a call are different, belong to the model and want no more than they have. */
static cmc_status eval_check(cmc_model *m, const cmc_eval_item *items, size_t n_items, cmc_error *err) {
    for (size_t i = 0; i < n_items; i++) {
        const cmc_eval_item *it = &items[i];
        if (!it->session || it->session->m != m)
            return cmc_fail(err, CMC_E_ARG, "%s: item %zu of the batch has no session of this model", m->path, i);
        const size_t pending = cmc_session_pending(it->session);
        if (it->want == CMC_WANT_NONE ? it->n_rows != 0 : it->n_rows > 0 && !it->out)
            return cmc_fail(err, CMC_E_ARG, "%s: item %zu of the batch asks for %zu rows, but %s", m->path, i,
                            it->n_rows, it->want == CMC_WANT_NONE ? "wants none" : "has no room for them");
        if (it->n_rows > pending)
            return cmc_fail(err, CMC_E_ARG, "%s: item %zu of the batch asks for %zu rows of %zu pending tokens",
                            m->path, i, it->n_rows, pending);
    }
    return CMC_OK;
}

static cmc_status eval_claim(const cmc_eval_item *items, size_t n_items, cmc_error *err) {
    cmc_status st = CMC_OK;
    size_t i = 0;
    for (; i < n_items && st == CMC_OK; i++) {
        if (items[i].session->in_eval)
            st = cmc_fail(err, CMC_E_ARG, "%s: item %zu of the batch has a session that is in it already",
                          items[i].session->m->path, i);
        items[i].session->in_eval = true;
    }
    while (i-- > 0)
        items[i].session->in_eval = false;
    return st;
}

/* Where a call stands: the next token is pending token `at` of item `item`. */
typedef struct eval_cursor {
    size_t item, at;
} eval_cursor;

/* Rows of a pass, in order: where each goes. */
typedef struct eval_rows {
    size_t n;
    float *to[GRAPH_BATCH];
    cmc_want want[GRAPH_BATCH];
} eval_rows;

/* Puts the sequences that go through expanded blocks before the others, their rows with them. */
static void eval_order(graph_seq *seqs, size_t n_seqs, eval_rows *rows) {
    graph_seq from[GRAPH_BATCH];
    eval_rows all = *rows;
    memcpy(from, seqs, n_seqs * sizeof *seqs);
    size_t to = 0, row = 0;
    for (int none = 0; none < 2; none++) {
        for (size_t i = 0, at = 0; i < n_seqs; at += from[i].n_out, i++) {
            if ((from[i].strength == 0.0f) != (none == 1))
                continue;
            memcpy(rows->to + row, all.to + at, from[i].n_out * sizeof *rows->to);
            memcpy(rows->want + row, all.want + at, from[i].n_out * sizeof *rows->want);
            row += from[i].n_out;
            seqs[to++] = from[i];
        }
    }
}

/* The next pass: up to GRAPH_BATCH tokens from the cursor on. */
static size_t eval_fill(const cmc_model *m, const cmc_eval_item *items, size_t n_items, eval_cursor *c, graph_seq *seqs,
                        eval_rows *rows) {
    size_t n_seqs = 0, tokens = 0;
    bool some = false, none = false;   /* through expanded blocks, not through them */
    rows->n = 0;
    while (c->item < n_items && tokens < GRAPH_BATCH) {
        const cmc_eval_item *it = &items[c->item];
        cmc_session *s = it->session;
        const size_t pending = cmc_session_pending(s), left = pending - c->at;
        const size_t n = left < GRAPH_BATCH - tokens ? left : GRAPH_BATCH - tokens;
        const size_t first_row = pending - it->n_rows, end = c->at + n;
        const size_t from = c->at > first_row ? c->at : first_row;
        const size_t width = (size_t)(it->want == CMC_WANT_HIDDEN ? m->p.n_embd : m->p.n_vocab);
        if (n > 0) {
            seqs[n_seqs++] = (graph_seq){&s->kv, s->ids.v + s->n_eval + c->at, n, s->n_eval + c->at, end > from ? end - from : 0,
                                         s->strength};
            *(s->strength != 0.0f ? &some : &none) = true;
        }
        for (size_t i = from; i < end; i++, rows->n++) {
            rows->to[rows->n] = it->out + (i - first_row) * width;
            rows->want[rows->n] = it->want == CMC_WANT_SAMPLING && pending > 1 ? CMC_WANT_LOGITS : it->want;
        }
        tokens += n;
        c->at = end;
        if (end == pending)
            *c = (eval_cursor){c->item + 1, 0};
    }
    if (some && none)
        eval_order(seqs, n_seqs, rows);
    return n_seqs;
}

/* Logits of rows [lo, hi), which want the same: straight to where they belong if that is one block, else by way of the scratch. */
static cmc_status eval_logits(cmc_model *m, const eval_rows *rows, size_t lo, size_t hi, const float *hidden,
                              cmc_error *err) {
    const size_t v = (size_t)m->p.n_vocab, e = (size_t)m->p.n_embd;
    cmc_status (*const logits)(cmc_model *, const float *, size_t, float *, size_t, cmc_error *) =
        rows->want[lo] == CMC_WANT_SAMPLING ? screen_logits : graph_logits;
    bool block = true;
    for (size_t i = lo + 1; i < hi && block; i++)
        block = rows->to[i] == rows->to[i - 1] + v;
    if (block)
        return logits(m, hidden + lo * e, hi - lo, rows->to[lo], v, err);
    for (size_t i = lo; i < hi; i += EVAL_LOGIT_ROWS) {
        const size_t n = hi - i < EVAL_LOGIT_ROWS ? hi - i : EVAL_LOGIT_ROWS;
        float *buf;
        CMC_TRY(graph_logits_buffer(m, n, &buf, err));
        CMC_TRY(logits(m, hidden + i * e, n, buf, v, err));
        for (size_t k = 0; k < n; k++)
            memcpy(rows->to[i + k], buf + k * v, v * sizeof(float));
    }
    return CMC_OK;
}

static cmc_status eval_deliver(cmc_model *m, const eval_rows *rows, const float *hidden, cmc_error *err) {
    const size_t e = (size_t)m->p.n_embd;
    for (size_t i = 0; i < rows->n;) {
        if (rows->want[i] == CMC_WANT_HIDDEN) {
            memcpy(rows->to[i], hidden + i * e, e * sizeof(float));
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < rows->n && rows->want[end] == rows->want[i])
            end++;
        CMC_TRY(eval_logits(m, rows, i, end, hidden, err));
        i = end;
    }
    return CMC_OK;
}

cmc_status cmc_eval(cmc_model *m, const cmc_eval_item *items, size_t n_items, cmc_error *err) {
    CMC_TRY(eval_check(m, items, n_items, err));
    CMC_TRY(eval_claim(items, n_items, err));
    for (size_t i = 0; i < n_items; i++)
        CMC_TRY(kv_reserve(&items[i].session->kv, items[i].session->ids.n, err));
    graph_seq seqs[GRAPH_BATCH];
    eval_rows rows;
    eval_cursor c = {0, 0};
    while (c.item < n_items) {
        const size_t n_seqs = eval_fill(m, items, n_items, &c, seqs, &rows);
        if (n_seqs == 0)
            break; /* what is left has nothing pending */
        const float *hidden;
        CMC_TRY(graph_forward(m, seqs, n_seqs, &hidden, err));
        CMC_TRY(eval_deliver(m, &rows, hidden, err));
    }
    for (size_t i = 0; i < n_items; i++)
        items[i].session->n_eval = items[i].session->ids.n;
    return CMC_OK;
}

cmc_status cmc_model_logits(cmc_model *m, const float *hidden, size_t n_rows, float *logits, cmc_error *err) {
    return n_rows ? graph_logits(m, hidden, n_rows, logits, (size_t)m->p.n_vocab, err) : CMC_OK;
}
