/* Teacher-forced log-probabilities of a record's responses, under several strengths at once. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "runtime/prompt.h"
#include "runtime/runtime.h"
#include "runtime/score_delta.h"

enum {
    SCORE_ROWS = 64,                        /* rows of logits at a time, */
    SCORE_ROW_FLOATS = 1 << 25              /* but no more floats of them than this, over all models */
};

/* What scoring one record works with. Rows are those of the n scored tokens. */
typedef struct score_job {
    const cmc_steering *st;
    const double *alphas; size_t n_sets;    /* [n_sets][n deltas] */
    double temperature;
    cmc_score *out;
    double *scale;                          /* [n] what the guards leave of the strengths */
    float *hidden;                          /* [n][n_embd], the host's */
    float **delta_hidden;                   /* [n deltas] of [n][n_embd of the delta]; NULL: that delta is left out */
    steering_row *kinds;                    /* [n deltas][n] */
    float *logits, **delta_logits;          /* of one block */
    size_t first, n_rows;                   /* the block */
    steering_work *work; float **row;       /* for each thread */
    int n_threads;
} score_job;

void cmc_score_free(cmc_score *s) {
    if (!s) return;
    cmc_ids_free(&s->ids);
    free(s->pos);
    free(s->logprob);
    free(s->host_logprob);
    free(s->end);
    free(s->top);
    free(s->host_top);
    free(s->note);
    *s = (cmc_score){0};
}

/* --------------------------------------------------------------------------------------------- what is scored */

/* Bytes of a text record's token ids[i]: the first one with bytes may begin with SentencePiece's dummy space. */
static size_t token_bytes(const cmc_vocab *v, const cmc_ids *ids, size_t i, bool text) {
    size_t n, other;
    const uint8_t *s = cmc_vocab_bytes(v, ids->v[i], &n);
    if (!text || v->model != VOCAB_SPM || !v->add_space_prefix || n == 0 || s[0] != ' ') return n;
    for (size_t k = 0; k < i; k++) {
        cmc_vocab_bytes(v, ids->v[k], &other);
        if (other > 0) return n;
    }
    return n - 1;
}

static cmc_status choose_positions(const cmc_vocab *v, const cmc_rendered *r, bool text, size_t n_sets, cmc_score *out,
                                   cmc_error *err) {
    size_t n = 0;
    for (size_t j = 0; j < r->n_spans; j++) n += r->spans[j].n;
    out->pos = cmc_alloc(n, sizeof *out->pos);
    out->end = cmc_alloc(n, sizeof *out->end);
    out->host_logprob = cmc_alloc(n, sizeof *out->host_logprob);
    out->logprob = cmc_alloc(n_sets * n, sizeof *out->logprob);
    out->top = cmc_alloc(n_sets * n, sizeof *out->top);
    out->host_top = cmc_alloc(n, sizeof *out->host_top);
    if (!out->pos || !out->end || !out->host_logprob || !out->logprob || !out->top || !out->host_top)
        return cmc_fail_nomem(err, "a score", n * n_sets);
    for (size_t j = 0; j < r->n_spans; j++) {
        for (size_t i = r->spans[j].first; i < r->spans[j].first + r->spans[j].n; i++) {
            if (i == 0) continue; /* no row comes before the first token */
            bool end = cmc_vocab_is_end(v, r->ids.v[i]);
            out->pos[out->n] = (uint32_t)i;
            out->end[out->n++] = end;
            if (!end) out->bytes += token_bytes(v, &r->ids, i, text);
        }
    }
    return CMC_OK;
}

/* Response by response, as a stream would have it. */
static cmc_status guard_scales(score_job *job, const cmc_rendered *r, bool text, cmc_error *err) {
    const cmc_vocab *v = cmc_model_vocab(job->st->host);
    size_t q = 0, n;
    job->scale = cmc_alloc(job->out->n, sizeof *job->scale);
    if (!job->scale) return cmc_fail_nomem(err, "a score", job->out->n * sizeof *job->scale);
    for (size_t j = 0; j < r->n_spans; j++) {
        gate g = gate_start(&job->st->guards, text ? "" : job->st->lead);
        for (size_t i = r->spans[j].first; i < r->spans[j].first + r->spans[j].n; i++) {
            if (i == 0) continue;
            job->scale[q++] = gate_scale(&g);
            const uint8_t *bytes = cmc_vocab_bytes(v, r->ids.v[i], &n);
            gate_push(&g, bytes, n);
        }
    }
    return CMC_OK;
}

static cmc_status host_rows(score_job *job, const cmc_record *r, cmc_error *err) {
    cmc_model *host = job->st->host;
    const cmc_score *out = job->out;
    size_t width = (size_t)cmc_model_n_embd(host), n_ctx = (size_t)cmc_model_n_ctx(host), need = out->pos[out->n - 1];
    if (need > n_ctx) {
        return cmc_fail(err, CMC_E_RANGE, "%s: line %ld of the data has %zu tokens, the context holds %zu",
                        cmc_model_path(host), r->line, out->ids.n, n_ctx);
    }
    job->hidden = cmc_alloc(out->n * width, sizeof(float));
    score_want *want = cmc_alloc(out->n, sizeof *want);
    cmc_session *s = NULL;
    cmc_status status =
        job->hidden && want ? CMC_OK : cmc_fail_nomem(err, "hidden states", out->n * width * sizeof(float));
    if (status == CMC_OK) status = steering_session(job->st, (int32_t)need, &s, err);
    if (status == CMC_OK) {
        for (size_t q = 0; q < out->n; q++)
            want[q] = (score_want){.pos = out->pos[q] - 1u, .out = job->hidden + q * width};
        status = score_rows(s, out->ids.v, want, out->n, err);
    }
    cmc_session_free(s);
    free(want);
    return status;
}

static bool delta_used(const score_job *job, size_t k) {
    for (size_t a = 0; a < job->n_sets; a++) {
        if (steering_active(job->alphas[a * job->st->n + k])) return true;
    }
    return false;
}

static cmc_status delta_rows(score_job *job, const cmc_record *r, const cmc_rendered *host, cmc_error *err) {
    size_t n = job->out->n;
    char note[SCORE_NOTE] = "";
    for (size_t k = 0; k < job->st->n; k++) {
        const steering_delta *d = &job->st->deltas[k];
        if (!delta_used(job, k)) continue;
        size_t width = (size_t)cmc_model_n_embd(d->model);
        job->delta_hidden[k] = cmc_calloc(n * width, sizeof(float)); /* zeros where there is no row */
        if (!job->delta_hidden[k]) return cmc_fail_nomem(err, "hidden states", n * width * sizeof(float));
        CMC_TRY(score_delta(job->st, d, r, host, job->kinds + k * n, job->delta_hidden[k], note, err));
    }
    job->out->note = note[0] ? cmc_strndup(note, strlen(note)) : NULL;
    return job->out->note || !note[0] ? CMC_OK : cmc_fail_nomem(err, "a note", sizeof note);
}

/* -------------------------------------------------------------------------------------------------- the blocks */

/* Whether the sampler, at temperature 0, would take the token: no other is likelier, and of equals it is the first. */
static bool is_top(const float *row, int32_t n, int32_t id) {
    bool beaten = false;
    for (int32_t i = 0; i < id; i++) beaten |= row[i] >= row[id];
    for (int32_t i = id + 1; i < n; i++) beaten |= row[i] > row[id];
    return !beaten;
}

/* A thread's scratch, [n deltas] each. */
typedef struct score_scratch { double *alphas; const float **rows; steering_row *kinds; } score_scratch;

/* Divides a row by the temperature; log sum e^ of what it then is. */
static double cool(float *row, size_t n, double temperature) {
    const float by = (float)(1 / temperature);
    for (size_t i = 0; i < n && temperature != 1; i++) row[i] *= by;
    return shift_log_sum(row, (int32_t)n);
}

/* One row: the host's own value, then each set's. At temperature 1 the host's softmax serves them all (shift_log_sum). */
static void score_one(score_job *job, size_t i, int t, const score_scratch *w) {
    const cmc_steering *st = job->st;
    cmc_score *out = job->out;
    size_t n_vocab = (size_t)cmc_model_n_vocab(st->host), q = job->first + i;
    const float *logits = job->logits + i * n_vocab;
    int32_t id = out->ids.v[out->pos[q]];
    float *row = job->row[t];
    memcpy(row, logits, n_vocab * sizeof *logits);
    const double log_sum = cool(row, n_vocab, job->temperature);
    out->host_logprob[q] = (float)((double)row[id] - log_sum);
    out->host_top[q] = is_top(logits, (int32_t)n_vocab, id);
    for (size_t k = 0; k < st->n; k++) {
        size_t n_delta = (size_t)cmc_model_n_vocab(st->deltas[k].model);
        w->rows[k] = job->delta_hidden[k] ? job->delta_logits[k] + i * n_delta : NULL;
        w->kinds[k] = w->rows[k] ? job->kinds[k * out->n + q] : STEERING_NO_ROW;
    }
    for (size_t a = 0; a < job->n_sets; a++) {
        memcpy(row, logits, n_vocab * sizeof *logits);
        for (size_t k = 0; k < st->n; k++) w->alphas[k] = job->alphas[a * st->n + k] * job->scale[q];
        bool steered = steering_shift(st, w->alphas, w->rows, w->kinds, row, &job->work[t]);
        out->top[a * out->n + q] = steered ? is_top(row, (int32_t)n_vocab, id) : out->host_top[q];
        bool same_sum = !steered || (job->temperature == 1 && !st->opts.unmapped_raw);
        double own_sum = same_sum ? log_sum : cool(row, n_vocab, job->temperature);
        out->logprob[a * out->n + q] = steered ? (float)((double)row[id] - own_sum) : out->host_logprob[q];
    }
}

/* The scratch stands behind the thread's row of logits. */
static void score_thread(void *arg, int t, int nt) {
    score_job *job = arg;
    size_t lo, hi, n_vocab = (size_t)cmc_model_n_vocab(job->st->host);
    float *behind = job->row[t] + (n_vocab + 15) / 16 * 16;
    score_scratch w = {.alphas = (double *)(void *)behind};
    w.rows = (const float **)(void *)(w.alphas + job->st->n);
    w.kinds = (steering_row *)(void *)(w.rows + job->st->n);
    cmc_pool_share(job->n_rows, 1, t, nt, &lo, &hi);
    for (size_t i = lo; i < hi; i++) score_one(job, i, t, &w);
}

static cmc_status alloc_threads(score_job *job, cmc_error *err) {
    size_t n_vocab = ((size_t)cmc_model_n_vocab(job->st->host) + 15) / 16 * 16;
    size_t bytes = n_vocab * sizeof(float) + job->st->n * (sizeof(double) + sizeof(float *) + sizeof(steering_row));
    job->n_threads = cmc_runtime_threads(cmc_model_runtime(job->st->host));
    job->work = cmc_calloc((size_t)job->n_threads, sizeof *job->work);
    job->row = cmc_calloc((size_t)job->n_threads, sizeof *job->row);
    if (!job->work || !job->row) return cmc_fail_nomem(err, "a score", bytes);
    for (int t = 0; t < job->n_threads; t++) {
        job->row[t] = cmc_alloc_aligned(bytes, 1);
        if (!job->row[t]) return cmc_fail_nomem(err, "a score", bytes);
        CMC_TRY(steering_work_new(job->st, &job->work[t], err));
    }
    return CMC_OK;
}

/* How many rows a block has: a row of every model in use is held for each. */
static size_t block_rows(const score_job *job) {
    size_t floats = (size_t)cmc_model_n_vocab(job->st->host);
    for (size_t k = 0; k < job->st->n; k++) {
        if (job->delta_hidden[k]) floats += (size_t)cmc_model_n_vocab(job->st->deltas[k].model);
    }
    size_t rows = SCORE_ROW_FLOATS / floats;
    return rows < 1 ? 1 : rows > SCORE_ROWS ? SCORE_ROWS : rows;
}

static cmc_status score_blocks(score_job *job, cmc_error *err) {
    const cmc_steering *st = job->st;
    size_t n = job->out->n, block = block_rows(job), n_vocab = (size_t)cmc_model_n_vocab(st->host);
    if (block > n) block = n;
    job->logits = cmc_alloc_aligned(block * n_vocab, sizeof(float));
    if (!job->logits) return cmc_fail_nomem(err, "logits", block * n_vocab * sizeof(float));
    for (size_t k = 0; k < st->n; k++) {
        size_t n_delta = (size_t)cmc_model_n_vocab(st->deltas[k].model);
        if (!job->delta_hidden[k]) continue;
        job->delta_logits[k] = cmc_alloc_aligned(block * n_delta, sizeof(float));
        if (!job->delta_logits[k]) return cmc_fail_nomem(err, "logits", block * n_delta * sizeof(float));
    }
    for (size_t q = 0; q < n; q += block) {
        job->first = q;
        job->n_rows = n - q < block ? n - q : block;
        size_t width = (size_t)cmc_model_n_embd(st->host);
        CMC_TRY(cmc_model_logits(st->host, job->hidden + q * width, job->n_rows, job->logits, err));
        for (size_t k = 0; k < st->n; k++) {
            cmc_model *m = st->deltas[k].model;
            const float *h = job->delta_hidden[k] ? job->delta_hidden[k] + q * (size_t)cmc_model_n_embd(m) : NULL;
            if (h) CMC_TRY(cmc_model_logits(m, h, job->n_rows, job->delta_logits[k], err));
        }
        cmc_pool_run(cmc_model_runtime(st->host)->pool, score_thread, job);
    }
    return CMC_OK;
}

/* --------------------------------------------------------------------------------------------------- the whole */

static cmc_status job_alloc(score_job *job, cmc_error *err) {
    size_t n = job->st->n;
    job->delta_hidden = cmc_calloc(n, sizeof *job->delta_hidden);
    job->delta_logits = cmc_calloc(n, sizeof *job->delta_logits);
    job->kinds = cmc_calloc(n * job->out->n, sizeof *job->kinds);
    if (!job->delta_hidden || !job->delta_logits || !job->kinds) return cmc_fail_nomem(err, "a score", job->out->n);
    return alloc_threads(job, err);
}

static void job_free(score_job *job) {
    for (size_t k = 0; k < job->st->n; k++) {
        if (job->delta_hidden) free(job->delta_hidden[k]);
        if (job->delta_logits) free(job->delta_logits[k]);
    }
    for (int t = 0; t < job->n_threads; t++) {
        if (job->work) steering_work_free(&job->work[t]);
        if (job->row) free(job->row[t]);
    }
    free(job->delta_hidden);
    free(job->delta_logits);
    free(job->kinds);
    free(job->scale);
    free(job->work);
    free(job->row);
    free(job->hidden);
    free(job->logits);
}

static cmc_status score_rendered(score_job *job, const cmc_record *r, cmc_rendered *host, cmc_error *err) {
    cmc_score *out = job->out;
    CMC_TRY(choose_positions(cmc_model_vocab(job->st->host), host, r->text != NULL, job->n_sets, out, err));
    if (cmc_ids_append(&out->ids, host->ids.v, host->ids.n) != CMC_OK)
        return cmc_fail_nomem(err, "a score", host->ids.n);
    if (out->n == 0) return CMC_OK;
    CMC_TRY(job_alloc(job, err));
    CMC_TRY(guard_scales(job, host, r->text != NULL, err));
    CMC_TRY(host_rows(job, r, err));
    CMC_TRY(delta_rows(job, r, host, err));
    return score_blocks(job, err);
}

cmc_status cmc_score_record(const cmc_steering *st, const cmc_record *r, const double *alphas, size_t n_sets,
                            cmc_score *out, cmc_error *err) {
    return cmc_score_record_at(st, r, 1, alphas, n_sets, out, err);
}

cmc_status cmc_score_record_at(const cmc_steering *st, const cmc_record *r, double temperature, const double *alphas, size_t n_sets,
                               cmc_score *out, cmc_error *err) {
    *out = (cmc_score){0};
    cmc_rendered host = {0};
    if (!(temperature >= 1e-6 && temperature <= 1e6))
        return cmc_fail(err, CMC_E_ARG, "scores at the temperature %g, expected one from 1e-6 to 1e6", temperature);
    bool given = alphas && n_sets > 0 && st->n > 0;
    for (size_t i = 0; given && i < n_sets * st->n; i++)
        CMC_TRY(steering_check_alpha(st->deltas[i % st->n].model, alphas[i], err));
    double *own = cmc_alloc(st->n, sizeof *own);
    if (!own) return cmc_fail_nomem(err, "a score", st->n * sizeof *own);
    for (size_t k = 0; k < st->n; k++) own[k] = st->deltas[k].alpha;
    score_job job = {.st = st, .alphas = given ? alphas : own, .n_sets = given ? n_sets : 1, .temperature = temperature, .out = out};
    cmc_status s = cmc_render(cmc_model_vocab(st->host), st->t, r, st->opts.special, &host, err);
    if (s == CMC_OK) s = score_rendered(&job, r, &host, err);
    job_free(&job);
    free(own);
    cmc_rendered_free(&host);
    if (s != CMC_OK) cmc_score_free(out);
    return s;
}
