/* cmc_importance: two passes with dropout over the same tokens, how far their predictions are apart, and what gates of 1 on
 * the units would have to do with it. The model's weights get no gradient. */
#include "tinylm/importance.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "tinylm/batch.h"
#include "tinylm/checkpoint.h"
#include "tinylm/lm_kl.h"
#include "tinylm/output.h"

enum { IMPORTANCE_PIECE_TOKENS = 1024, IMPORTANCE_PROGRAM = 48 << 20 };

/* Seconds between checkpoints. */
static const double importance_pause = 30.0;

/* The KL's weight in the method's code: a factor before it, no softmax temperature. */
static const float importance_scale = 0.1f;

cmc_importance_opts cmc_importance_defaults(void) {
    return (cmc_importance_opts){.host_template = CMC_TMPL_AUTO, .max_len = 1024, .batch = 8, .dropout = 0.003,
                                 .absolute = true};
}

typedef struct importance_run {
    cmc_runtime *rt;
    cmc_importance_opts o;
    cmc_train_callback cb; void *user;
    cmc_model *model;
    data_set data;
    lm_layout layout;
    importance_shape shape;
    size_t piece, n_units;
    uint64_t planned;

    lm_net net;
    lm_kl kl;
    batch batch;
    net_batch b;             /* the same sequences with every token a target */
    size_t *rows;            /* [piece] 0, 1, 2, ... */
    float *first;            /* [piece][E] hidden states of the first pass */
    float *d1, *d2;          /* [piece][E] their gradients, and the second's */
    float *gates;            /* [batch][n_units] of a piece's sequences */
    double *sum;             /* [n_units], and a whole number of checkpoint_arrays */
    size_t done, pieces;     /* records, and passes that took them */
    uint64_t tokens;
    double apart;            /* sum of KL over tokens */
    char *checkpoint, *settings;
    double saved;            /* when */
} importance_run;

/* ------------------------------------------------------------------------------------------------- setup */

static cmc_status importance_check(const cmc_importance_opts *o, cmc_error *err) {
    if (!o->model || !o->out_path || !o->data || o->n_data == 0)
        return cmc_fail(err, CMC_E_ARG, "importance needs a model, data and a path to write to");
    if (!(o->dropout >= 0x1p-16 && o->dropout <= 0.5))
        return cmc_fail(err, CMC_E_ARG, "dropout is %g; it must be from 2^-16 to 0.5: without any the two passes are the same",
                        o->dropout);
    if (o->max_len < 2 || o->batch < 1 || o->batch > 4096)
        return cmc_fail(err, CMC_E_ARG, "max_len is %d and batch %d; they must be at least 2 and from 1 to 4096", o->max_len,
                        o->batch);
    return CMC_OK;
}

static cmc_status importance_paths(importance_run *r, cmc_error *err) {
    const cmc_importance_opts *o = &r->o;
    const output_inputs in[] = {{(const char *const[]){o->model}, 1}, {o->data, o->n_data}};
    if (asprintf(&r->checkpoint, "%s.ckpt", o->out_path) < 0) {
        r->checkpoint = NULL;
        return cmc_fail_nomem(err, "a path", strlen(o->out_path));
    }
    CMC_TRY(output_check(o->out_path, in, sizeof in / sizeof *in, err));
    CMC_TRY(output_check(r->checkpoint, in, sizeof in / sizeof *in, err));
    return checkpoint_check(r->checkpoint, o->resume, o->fresh, err);
}

static cmc_status importance_data(importance_run *r, cmc_error *err) {
    const cmc_vocab *v = cmc_model_vocab(r->model);
    int32_t ctx = cmc_model_n_ctx(r->model);
    data_opts d = {.paths = r->o.data, .n_paths = r->o.n_data, .vocab = v,
                   .host_template = cmc_template_resolve(r->o.host_template, v),
                   .max_len = (size_t)(r->o.max_len < ctx ? r->o.max_len : ctx), .seed = r->o.seed};
    d.delta_template = d.host_template;
    CMC_TRY(objective_parse("sft", NULL, &d.objective, err));
    return data_open(&d, &r->data, err);
}

/* A checkpoint has four arrays of floats, so many as two doubles are. */
static size_t importance_sums(const importance_run *r) {
    return (r->n_units + 1) / 2 * 2;
}

static uint64_t importance_bytes(const importance_run *r, size_t piece) {
    size_t e = (size_t)r->layout.p.n_embd;
    return lm_bytes(&r->layout, cmc_runtime_threads(r->rt), piece, r->data.max_seq) + lm_kl_bytes(&r->layout.p) +
           piece * (56 + 3 * e * sizeof(float)) + r->n_units * (size_t)r->o.batch * sizeof(float) + importance_sums(r) * sizeof(double);
}

static cmc_status importance_memory(importance_run *r, cmc_error *err) {
    size_t longest = r->data.max_delta, whole = longest * (size_t)r->o.batch;
    uint64_t bound = r->o.memory, room = cmc_mem_available(), mapped = cmc_model_bytes(r->model) + IMPORTANCE_PROGRAM;
    r->piece = longest > IMPORTANCE_PIECE_TOKENS ? longest : whole < IMPORTANCE_PIECE_TOKENS ? whole : IMPORTANCE_PIECE_TOKENS;
    while (bound && r->piece > longest && mapped + importance_bytes(r, r->piece) > bound)
        r->piece = r->piece / 2 > longest ? r->piece / 2 : longest;
    uint64_t need = importance_bytes(r, r->piece);
    r->planned = need + mapped;
    if ((bound && r->planned > bound) || (room != 0 && need > room))
        return cmc_fail(err, CMC_E_NOMEM, "importance of this model takes at least %llu MiB and there are %llu; a smaller "
                        "max_len or batch takes less", (unsigned long long)(r->planned >> 20),
                        (unsigned long long)((bound ? bound : room) >> 20));
    return CMC_OK;
}

static cmc_status importance_buffers(importance_run *r, cmc_error *err) {
    size_t e = (size_t)r->layout.p.n_embd, n = r->piece * e;
    CMC_TRY(lm_new(r->rt, &r->layout, r->piece, r->data.max_seq, &r->net, err));
    CMC_TRY(lm_kl_new(r->rt, &r->layout.p, &r->kl, err));
    CMC_TRY(batch_new(r->piece, (size_t)r->o.batch, &r->batch, err));
    r->rows = cmc_alloc(r->piece, sizeof *r->rows);
    r->first = cmc_alloc_aligned(3 * n, sizeof *r->first);
    r->gates = cmc_alloc((size_t)r->o.batch * r->n_units, sizeof *r->gates);
    r->sum = cmc_calloc(importance_sums(r), sizeof *r->sum);
    if (!r->rows || !r->first || !r->gates || !r->sum)
        return cmc_fail_nomem(err, "the gates' gradients", (size_t)importance_bytes(r, r->piece));
    r->d1 = r->first + n;
    r->d2 = r->d1 + n;
    for (size_t i = 0; i < r->piece; i++)
        r->rows[i] = i;
    lm_load(&r->layout, r->model, r->net.w);
    r->net.gates = r->gates;
    r->net.dropout = (float)r->o.dropout;
    return CMC_OK;
}

static checkpoint_arrays importance_arrays(const importance_run *r) {
    const size_t n = importance_sums(r) / 2;
    float *words = (float *)(void *)r->sum;     /* as bytes they are written and read */
    return (checkpoint_arrays){words, words + n, words + 2 * n, words + 3 * n, n};
}

static cmc_status importance_save_state(importance_run *r, cmc_error *err) {
    const checkpoint_state s = {.step = (int64_t)r->done, .best_step = (int64_t)r->pieces, .tokens = r->tokens, .best = r->apart, .held_out = NAN, .loss = NAN};
    const checkpoint_arrays a = importance_arrays(r);
    r->saved = cmc_now();
    return checkpoint_write(r->checkpoint, r->settings, &s, &a, err);
}

/* Goes on where an earlier run stopped, if one did and that is wanted. */
static cmc_status importance_resume(importance_run *r, cmc_error *err) {
    checkpoint_state s;
    checkpoint_arrays a = importance_arrays(r);
    if (asprintf(&r->settings, "importance of %s\ndata %s\ntemplate %d\ndropout %.17g\nabsolute %d\nmax_len %d\nbatch %d\n"
                 "tokens of a pass %zu\nseed %llu\n", cmc_model_hash(r->model), r->data.hash, (int)r->o.host_template, r->o.dropout,
                 r->o.absolute, r->o.max_len, r->o.batch, r->piece, (unsigned long long)r->o.seed) < 0) {
        r->settings = NULL;
        return cmc_fail_nomem(err, "a checkpoint's settings", 1024);
    }
    checkpoint_sweep(r->checkpoint);
    if (!r->o.resume || !checkpoint_exists(r->checkpoint))
        return CMC_OK;
    CMC_TRY(checkpoint_read(r->checkpoint, r->settings, &s, &a, err));
    r->done = (size_t)s.step;
    r->pieces = (size_t)s.best_step;
    r->tokens = s.tokens;
    r->apart = s.best;
    return CMC_OK;
}

static cmc_status importance_setup(importance_run *r, cmc_error *err) {
    lm_trainable gates = {.gates = true};
    CMC_TRY(importance_check(&r->o, err));
    CMC_TRY(importance_paths(r, err));
    CMC_TRY(cmc_model_open(r->rt, r->o.model, &r->model, err));
    CMC_TRY(lm_layout_init(r->model, &gates, &r->layout, err));
    CMC_TRY(importance_data(r, err));
    r->shape = importance_shape_of(&r->layout.p);
    r->n_units = r->shape.n_layer * r->shape.per_layer;
    CMC_TRY(importance_memory(r, err));
    CMC_TRY(importance_buffers(r, err));
    return importance_resume(r, err);
}

/* ------------------------------------------------------------------------------------------------ passes */

static void importance_forward(importance_run *r, uint64_t key) {
    r->net.drop_key = key;
    lm_forward(&r->net, &r->b);
}

/* The gates' gradients of a piece's sequences, each of its own loss. Only one pass's activations are there at a time: the first
 * is run again for its own way back. */
static void importance_piece(importance_run *r, uint64_t key) {
    size_t n = r->b.n_tokens, e = (size_t)r->layout.p.n_embd;
    memset(r->gates, 0, r->b.n_seqs * r->n_units * sizeof *r->gates);
    importance_forward(r, key);
    memcpy(r->first, r->net.hidden, n * e * sizeof *r->first);
    importance_forward(r, key + 1);
    const float *head = r->net.w + r->layout.head;
    lm_kl_side first = {.h = r->first, .head = head, .dh = r->d1}, second = {.h = r->net.hidden, .head = head, .dh = r->d2};
    r->apart += lm_kl_train(&r->kl, &first, &second, n, importance_scale, false);
    lm_backward(&r->net, &r->b, r->d2);
    importance_forward(r, key);
    lm_backward(&r->net, &r->b, r->d1);
    for (size_t s = 0; s < r->b.n_seqs; s++)
        for (size_t u = 0; u < r->n_units; u++) {
            double g = (double)r->gates[s * r->n_units + u];
            r->sum[u] += r->o.absolute ? fabs(g) : g;
        }
    r->tokens += n;
}

/* When the run began, and with how much done. */
typedef struct importance_pace { double began; size_t records; uint64_t tokens; } importance_pace;

static cmc_status importance_report(const importance_run *r, const importance_pace *pace, cmc_error *err) {
    size_t all = r->data.n_train, done = r->done - pace->records;
    double busy = cmc_now() - pace->began;
    cmc_train_progress p = {.phase = "importance", .step = (int64_t)r->done, .steps = (int64_t)all, .epoch = 0.0,
                            .loss = r->tokens ? r->apart / (double)r->tokens : NAN, .lr = NAN, .grad_norm = NAN,
                            .tokens_per_second = busy > 0.0 ? (double)(r->tokens - pace->tokens) / busy : NAN,
                            .seconds_left = done ? busy / (double)done * (double)(all - r->done) : NAN, .held_out = NAN,
                            .held_out_host = NAN, .best = NAN, .memory = cmc_mem_resident(), .memory_planned = r->planned};
    if (!r->cb || r->cb(r->user, &p))
        return CMC_OK;
    return cmc_fail(err, CMC_E_CANCELLED, "stopped after %zu of %zu records", r->done, all);
}

static cmc_status importance_all(importance_run *r, cmc_error *err) {
    const data_set *d = &r->data;
    const importance_pace pace = {cmc_now(), r->done, r->tokens};
    r->saved = pace.began;
    while (r->done < d->n_train) {
        r->done += batch_pack(&r->batch, d, NULL, d->train + r->done, d->n_train - r->done, 1);
        r->b = r->batch.b;
        r->b.rows = r->rows;
        r->b.n_targets = r->b.n_tokens;
        importance_piece(r, r->o.seed * 0x9E3779B97F4A7C15u + 2 * r->pieces++);
        cmc_status st = importance_report(r, &pace, err);
        if (st == CMC_E_CANCELLED || cmc_now() - r->saved > importance_pause)
            CMC_TRY(importance_save_state(r, err));
        CMC_TRY(st);
    }
    return CMC_OK;
}

static cmc_status importance_write(const importance_run *r, cmc_error *err) {
    importance_how how = {.model_hash = cmc_model_hash(r->model), .data_hash = r->data.hash, .absolute = r->o.absolute,
                          .dropout = r->o.dropout, .seed = r->o.seed, .sequences = r->done, .tokens = r->tokens};
    float *v = cmc_alloc(r->n_units, sizeof *v);
    if (!v)
        return cmc_fail_nomem(err, "the importance", r->n_units * sizeof *v);
    for (size_t u = 0; u < r->n_units; u++)
        v[u] = (float)(r->sum[u] / (double)r->tokens);
    cmc_status st = importance_save(r->o.out_path, &r->shape, &how, v, err);
    free(v);
    return st;
}

static void importance_release(importance_run *r) {
    batch_free(&r->batch);
    lm_kl_free(&r->kl);
    lm_free(&r->net);
    lm_layout_free(&r->layout);
    data_free(&r->data);
    cmc_model_free(r->model);
    free(r->rows);
    free(r->first);
    free(r->gates);
    free(r->sum);
    free(r->checkpoint);
    free(r->settings);
}

cmc_status cmc_importance(cmc_runtime *rt, const cmc_importance_opts *opts, cmc_train_callback cb, void *user,
                          cmc_importance_result *out, cmc_error *err) {
    importance_run r = {.rt = rt, .o = *opts, .cb = cb, .user = user};
    double began = cmc_now();
    cmc_status st = importance_setup(&r, err);
    if (st == CMC_OK)
        st = importance_all(&r, err);
    if (st == CMC_OK)
        st = importance_write(&r, err);
    if (st == CMC_OK)
        unlink(r.checkpoint);
    if (out)
        *out = (cmc_importance_result){.records = r.done, .tokens = r.tokens, .units = r.n_units,
                                       .kl = r.tokens ? r.apart / (double)r.tokens : NAN, .seconds = cmc_now() - began};
    importance_release(&r);
    return st;
}
