/* Stepping streams: hosts and deltas evaluated in batches, the shift, the next token. */
#include "runtime/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/prompt.h"
#include "runtime/runtime.h"

enum { STREAM_FEW = 8 };        /* streams, and rows of a delta, that a step takes without allocating */

/* The streams of one step that still run. */
typedef struct stream_batch {
    cmc_stream **v; size_t n;
    cmc_eval_item *items;       /* [n] */
    bool *done;                 /* [n] */
    int32_t *picks;             /* [n] */
    struct {
        cmc_stream *v[STREAM_FEW];
        cmc_eval_item items[STREAM_FEW];
        bool done[STREAM_FEW];
        int32_t picks[STREAM_FEW];
    } few;                      /* what they point to where n is no more */
} stream_batch;

static cmc_status batch_begin(stream_batch *b, size_t n, cmc_error *err) {
    const bool few = n <= STREAM_FEW;
    b->n = 0;
    b->v = few ? b->few.v : cmc_alloc(n, sizeof *b->v);
    b->items = few ? b->few.items : cmc_alloc(n, sizeof *b->items);
    b->done = few ? b->few.done : cmc_alloc(n, sizeof *b->done);
    b->picks = few ? b->few.picks : cmc_alloc(n, sizeof *b->picks);
    return b->v && b->items && b->done && b->picks ? CMC_OK : cmc_fail_nomem(err, "a batch", n * sizeof *b->items);
}

static void batch_end(stream_batch *b) {
    if (b->v == b->few.v) return;
    free(b->v);
    free(b->items);
    free(b->done);
    free(b->picks);
}

/* ------------------------------------------------------------------------------------------------ the hosts */

/* The deltas' strengths at this step: what the steering says, as far as the guards let it. */
static void set_alphas(cmc_stream *s) {
    double scale = s->unsteered ? 0.0 : gate_scale(&s->gate);
    for (size_t k = 0; k < s->n_deltas; k++) s->alphas[k] = s->st->deltas[k].alpha * scale;
}

/* Which tokens are plausible is not for estimates to say, nor how much of one was moved. */
static cmc_want wanted_row(const cmc_stream *s) {
    bool steered = false;
    for (size_t k = 0; k < s->n_deltas; k++) steered |= steering_active(s->alphas[k]);
    bool all = s->compare || stream_at_prompt(s) || (steered && s->st->guards.set.plausible > 0);
    return all ? CMC_WANT_LOGITS : CMC_WANT_SAMPLING;
}

/* The rows of all streams that lack one, a batch for each host model. */
static cmc_status eval_hosts(stream_batch *b, cmc_error *err) {
    for (size_t i = 0; i < b->n; i++) b->done[i] = b->v[i]->have_row;
    for (size_t i = 0; i < b->n; i++) {
        if (b->done[i]) continue;
        cmc_model *host = b->v[i]->st->host;
        size_t n = 0;
        for (size_t j = i; j < b->n; j++) {
            cmc_stream *s = b->v[j];
            if (b->done[j] || s->st->host != host) continue;
            b->items[n++] = (cmc_eval_item){.session = s->host, .want = wanted_row(s), .n_rows = 1, .out = s->logits};
            b->done[j] = true;
        }
        CMC_TRY(cmc_eval(host, b->items, n, err));
        /* A row stays good when a delta fails after this: the step can be tried again. */
        for (size_t j = i; j < b->n; j++) {
            if (b->v[j]->st->host == host) b->v[j]->have_row = true;
        }
    }
    return CMC_OK;
}

/* ----------------------------------------------------------------------------------------------- the deltas */

/* Brings a delta to life: it catches up with what the host has written. */
static cmc_status start_delta(cmc_stream *s, size_t k, cmc_error *err) {
    stream_delta *d = &s->deltas[k];
    const steering_delta *sd = &s->st->deltas[k];
    size_t n_vocab = (size_t)cmc_model_n_vocab(sd->model);
    if (!d->row) d->row = cmc_alloc_aligned(n_vocab, sizeof *d->row);
    if (!d->row) return cmc_fail_nomem(err, "a delta's logits", n_vocab * sizeof *d->row);
    if (!d->session) CMC_TRY(cmc_session_new(sd->model, 0, &d->session, err));
    follow_start start = {.prompt = d->prompt.v, .n_prompt = d->prompt.n, .text = s->is_text};
    CMC_TRY(follow_init(&d->f, s->st, sd, start, err));
    cmc_status status = s->is_text ? follow_push_text(&d->f, s->seq.v, s->n_prompt, err) : CMC_OK;
    for (size_t i = s->n_prompt; status == CMC_OK && i < s->seq.n; i++) status = follow_push(&d->f, s->seq.v[i], err);
    d->live = status == CMC_OK;
    if (!d->live) follow_free(&d->f);
    return status;
}

/* Puts delta k's context in its session; s->kinds[k] says whether there is a row to ask for. */
static cmc_status sync_delta(cmc_stream *s, size_t k, cmc_error *err) {
    stream_delta *d = &s->deltas[k];
    s->kinds[k] = STEERING_NO_ROW;
    s->rows[k] = NULL;
    if (!steering_active(s->alphas[k])) return CMC_OK;
    if (!d->live) CMC_TRY(start_delta(s, k, err));
    steering_row kind;
    CMC_TRY(follow_context(&d->f, &kind, err));
    if (kind == STEERING_NO_ROW) return CMC_OK;
    CMC_TRY(cmc_session_sync(d->session, d->f.ctx.v, d->f.ctx.n, err));
    s->kinds[k] = kind;
    s->rows[k] = d->row;
    if (d->f.cut && !s->note[0]) follow_note(&d->f, s->st->deltas[k].model, s->note, sizeof s->note);
    return CMC_OK;
}

/* The next (stream, delta) pair whose row is wanted and whose model is `m`, at or after (*i, *k). */
static bool next_delta(const stream_batch *b, const cmc_model *m, size_t *i, size_t *k) {
    for (; *i < b->n; ++*i, *k = 0) {
        const cmc_stream *s = b->v[*i];
        for (; *k < s->n_deltas; ++*k) {
            if (s->kinds[*k] != STEERING_NO_ROW && s->st->deltas[*k].model == m) return true;
        }
    }
    return false;
}

/* All rows that are wanted of one delta model, as one batch. */
static cmc_status eval_delta_model(stream_batch *b, cmc_model *m, cmc_error *err) {
    cmc_eval_item few[STREAM_FEW], *items = few;
    size_t n = 0;
    for (size_t i = 0, k = 0; next_delta(b, m, &i, &k); k++) n++;
    if (n > STREAM_FEW && !(items = cmc_alloc(n, sizeof *items))) return cmc_fail_nomem(err, "a batch", n * sizeof *items);
    n = 0;
    for (size_t i = 0, k = 0; next_delta(b, m, &i, &k); k++) {
        stream_delta *d = &b->v[i]->deltas[k];
        items[n++] = (cmc_eval_item){.session = d->session, .want = CMC_WANT_LOGITS, .n_rows = 1, .out = d->row};
    }
    cmc_status status = cmc_eval(m, items, n, err);
    if (items != few) free(items);
    return status;
}

/* True where (i, k) is the first pair that wants a row of its model. */
static bool first_of_model(const stream_batch *b, size_t i, size_t k) {
    size_t i0 = 0, k0 = 0;
    return next_delta(b, b->v[i]->st->deltas[k].model, &i0, &k0) && i0 == i && k0 == k;
}

static cmc_status eval_deltas(stream_batch *b, cmc_error *err) {
    for (size_t i = 0; i < b->n; i++) {
        for (size_t k = 0; k < b->v[i]->n_deltas; k++) CMC_TRY(sync_delta(b->v[i], k, err));
    }
    for (size_t i = 0; i < b->n; i++) {
        cmc_stream *s = b->v[i];
        for (size_t k = 0; k < s->n_deltas; k++) {
            if (s->kinds[k] != STEERING_NO_ROW && first_of_model(b, i, k)) {
                CMC_TRY(eval_delta_model(b, s->st->deltas[k].model, err));
            }
        }
    }
    return CMC_OK;
}

/* ---------------------------------------------------------------------------------------------- the new token */

/* For cmc_stream_compare: the shift and the sampler change the logits where they stand. */
static void keep_row(const cmc_stream *s, float *row) {
    if (row) memcpy(row, s->logits, (size_t)cmc_model_n_vocab(s->st->host) * sizeof *row);
}

/* From the steered logits. */
static int32_t choose(cmc_stream *s, cmc_pool *pool) {
    int32_t n_vocab = cmc_model_n_vocab(s->st->host);
    if (s->pick) return s->pick(s->pick_user, s->logits, n_vocab);
    size_t n = s->seq.n;
    if (s->repeat_last_n >= 0 && (size_t)s->repeat_last_n < n) n = (size_t)s->repeat_last_n;
    return sampler_pick(s->sampler, s->logits, s->seq.v + (s->seq.n - n), n, pool);
}

/* The next token, with the pool's threads, or NULL. Where nothing but the greatest logit is asked for, the steered ones are not written. */
static int32_t steer_and_choose(cmc_stream *s, cmc_pool *pool) {
    if (!s->compare && !s->pick && sampler_greedy(s->sampler)) {
        int32_t best = steering_best(s->st, s->alphas, s->rows, s->kinds, s->logits, &s->work, pool);
        if (best >= 0) return best;
    }
    keep_row(s, s->host_row);
    if (pool) steering_shift_by_all(s->st, s->alphas, s->rows, s->kinds, s->logits, &s->work);
    else steering_shift(s->st, s->alphas, s->rows, s->kinds, s->logits, &s->work);
    keep_row(s, s->steered_row);
    return choose(s, pool);
}

/* The token's bytes, for the text and for the deltas. */
static cmc_status take_bytes(cmc_stream *s, int32_t id, cmc_error *err) {
    size_t n;
    const uint8_t *bytes = cmc_vocab_bytes(cmc_model_vocab(s->st->host), id, &n);
    bool stopped = false;
    gate_push(&s->gate, bytes, n);
    CMC_TRY(stream_text_push(&s->text, bytes, n, &stopped, err));
    if (stopped) s->stop = CMC_STOP_STRING;
    for (size_t k = 0; k < s->n_deltas; k++) {
        if (s->deltas[k].live) CMC_TRY(follow_push(&s->deltas[k].f, id, err));
    }
    return CMC_OK;
}

static cmc_status take_token(cmc_stream *s, int32_t id, cmc_error *err) {
    if (id < 0) {
        return cmc_fail(err, CMC_E_FORMAT, "%s: no token can be picked, for every logit is NaN or -infinity",
                        cmc_model_path(s->st->host));
    }
    if (cmc_ids_push(&s->seq, id) != CMC_OK) return cmc_fail_nomem(err, "a stream", s->seq.n * sizeof id);
    s->have_row = false;
    if (!s->ignore_end && cmc_vocab_is_end(cmc_model_vocab(s->st->host), id)) {
        s->stop = CMC_STOP_EOS;
    } else {
        CMC_TRY(take_bytes(s, id, err));
    }
    bool most = s->max_tokens >= 0 && s->seq.n - s->n_prompt >= (size_t)s->max_tokens;
    bool full = cmc_session_length(s->host) >= s->limit; /* there is no room to go on from the new token */
    if (s->stop == CMC_STOP_NONE && (most || full)) s->stop = CMC_STOP_LENGTH;
    if (s->stop != CMC_STOP_NONE) {
        stream_text_finish(&s->text);
        return CMC_OK;
    }
    return cmc_session_append(s->host, id, err);
}

/* Worker t's share of the streams: each has its own logits, scratch and sampler. */
static void pick_share(void *arg, int t, int nt) {
    stream_batch *b = arg;
    for (size_t i = (size_t)t; i < b->n; i += (size_t)nt) {
        b->picks[i] = steer_and_choose(b->v[i], NULL);
    }
}

static cmc_status step_batch(stream_batch *b, cmc_error *err) {
    double t0 = cmc_now();
    for (size_t i = 0; i < b->n; i++) set_alphas(b->v[i]);
    CMC_TRY(eval_hosts(b, err));
    CMC_TRY(eval_deltas(b, err));
    cmc_pool *pool = cmc_model_runtime(b->v[0]->st->host)->pool;
    if (b->n > 1)
        cmc_pool_run(pool, pick_share, b);
    else
        b->picks[0] = steer_and_choose(b->v[0], pool);
    cmc_status status = CMC_OK;
    for (size_t i = 0; i < b->n; i++) { /* one that fails does not keep the others from theirs, whose rows are shifted already */
        cmc_status one = take_token(b->v[i], b->picks[i], status == CMC_OK ? err : NULL);
        status = status == CMC_OK ? one : status;
    }
    double seconds = cmc_now() - t0;
    for (size_t i = 0; i < b->n; i++) { /* the first step is the prompt's; a batch's time is every member's */
        cmc_stream_timing *t = &b->v[i]->timing;
        if (b->v[i]->stepped) {
            t->decode_seconds += seconds;
            t->decode_steps++;
        } else {
            t->prefill_seconds += seconds;
            b->v[i]->stepped = true;
        }
    }
    return status;
}

cmc_status cmc_streams_step(cmc_stream *const *streams, size_t n, cmc_error *err) {
    stream_batch b;
    cmc_status status = batch_begin(&b, n, err);
    if (status == CMC_OK) {
        for (size_t i = 0; i < n; i++) {
            if (streams[i]->stop == CMC_STOP_NONE) b.v[b.n++] = streams[i];
        }
        if (b.n > 0) status = step_batch(&b, err);
    }
    batch_end(&b);
    return status;
}

/* -------------------------------------------------------------------------------------------------- looking */

cmc_stop cmc_stream_stopped(const cmc_stream *s) {
    return s->stop;
}

const char *cmc_stream_text(const cmc_stream *s, size_t *len) {
    size_t n;
    const char *text = stream_text_get(&s->text, &n);
    if (len) *len = n;
    return text;
}

const int32_t *cmc_stream_ids(const cmc_stream *s, size_t *n) {
    if (n) *n = s->seq.n - s->n_prompt;
    return s->seq.v + s->n_prompt;
}

size_t cmc_stream_prompt_tokens(const cmc_stream *s) {
    return s->n_prompt;
}

const char *cmc_stream_note(const cmc_stream *s) {
    return s->note[0] ? s->note : NULL;
}

void cmc_stream_timing_get(const cmc_stream *s, cmc_stream_timing *out) {
    *out = s->timing;
}

void stream_set_pick(cmc_stream *s, stream_pick_fn pick, void *user) {
    s->pick = pick;
    s->pick_user = user;
}

const cmc_ids *stream_delta_context(const cmc_stream *s, size_t k, size_t *n_prompt) {
    if (k >= s->n_deltas || !s->deltas[k].live) return NULL;
    *n_prompt = s->deltas[k].f.n_prompt;
    return &s->deltas[k].f.ctx;
}
