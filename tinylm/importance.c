/* cmc_importance: two passes with dropout over the same tokens, how far their predictions are apart, and what gates of 1 on
 * the units would have to do with it. The model's weights get no gradient. */
#include "tinylm/importance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tinylm/batch.h"
#include "tinylm/lm_kl.h"
#include "tinylm/output.h"

enum { IMPORTANCE_PIECE_TOKENS = 1024, IMPORTANCE_PROGRAM = 48 << 20 };

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
    double *sum;             /* [n_units] */
    uint64_t sequences, tokens;
    double apart;            /* sum of KL over tokens */
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
    const output_inputs in[] = {{(const char *const[]){o->model}, 1}, {o->data, o->n_data}};
    return output_check(o->out_path, in, sizeof in / sizeof *in, err);
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

static uint64_t importance_bytes(const importance_run *r, size_t piece) {
    size_t e = (size_t)r->layout.p.n_embd;
    return lm_bytes(&r->layout, cmc_runtime_threads(r->rt), piece, r->data.max_seq) + lm_kl_bytes(&r->layout.p) +
           piece * (56 + 3 * e * sizeof(float)) + r->n_units * ((size_t)r->o.batch * sizeof(float) + sizeof(double));
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
    r->sum = cmc_calloc(r->n_units, sizeof *r->sum);
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

static cmc_status importance_setup(importance_run *r, cmc_error *err) {
    lm_trainable gates = {.gates = true};
    CMC_TRY(importance_check(&r->o, err));
    CMC_TRY(cmc_model_open(r->rt, r->o.model, &r->model, err));
    CMC_TRY(lm_layout_init(r->model, &gates, &r->layout, err));
    CMC_TRY(importance_data(r, err));
    r->shape = importance_shape_of(&r->layout.p);
    r->n_units = r->shape.n_layer * r->shape.per_layer;
    CMC_TRY(importance_memory(r, err));
    return importance_buffers(r, err);
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
    r->sequences += r->b.n_seqs;
    r->tokens += n;
}

static cmc_status importance_report(const importance_run *r, size_t done, double began, cmc_error *err) {
    size_t all = r->data.n_train;
    double busy = cmc_now() - began;
    cmc_train_progress p = {.phase = "importance", .step = (int64_t)done, .steps = (int64_t)all, .epoch = 0.0,
                            .loss = r->tokens ? r->apart / (double)r->tokens : NAN, .lr = NAN, .grad_norm = NAN,
                            .tokens_per_second = busy > 0.0 ? (double)r->tokens / busy : NAN,
                            .seconds_left = done ? busy / (double)done * (double)(all - done) : NAN, .held_out = NAN,
                            .held_out_host = NAN, .best = NAN, .memory = cmc_mem_resident(), .memory_planned = r->planned};
    if (!r->cb || r->cb(r->user, &p))
        return CMC_OK;
    return cmc_fail(err, CMC_E_CANCELLED, "stopped after %zu of %zu records; nothing is written", done, all);
}

static cmc_status importance_all(importance_run *r, cmc_error *err) {
    const data_set *d = &r->data;
    double began = cmc_now();
    uint64_t key = r->o.seed * 0x9E3779B97F4A7C15u;
    for (size_t done = 0; done < d->n_train; key += 2) {
        done += batch_pack(&r->batch, d, NULL, d->train + done, d->n_train - done, 1);
        r->b = r->batch.b;
        r->b.rows = r->rows;
        r->b.n_targets = r->b.n_tokens;
        importance_piece(r, key);
        CMC_TRY(importance_report(r, done, began, err));
    }
    return CMC_OK;
}

static cmc_status importance_write(const importance_run *r, cmc_error *err) {
    importance_how how = {.model_hash = cmc_model_hash(r->model), .data_hash = r->data.hash, .absolute = r->o.absolute,
                          .dropout = r->o.dropout, .seed = r->o.seed, .sequences = r->sequences, .tokens = r->tokens};
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
    if (out)
        *out = (cmc_importance_result){.records = r.sequences, .tokens = r.tokens, .units = r.n_units,
                                       .kl = r.tokens ? r.apart / (double)r.tokens : NAN, .seconds = cmc_now() - began};
    importance_release(&r);
    return st;
}
