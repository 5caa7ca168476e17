/* Before a model is tuned: checks of the options, the data, the plan of steps, memory, and the start of the weights. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/model_save.h"
#include "tinylm/carve.h"
#include "tinylm/lm_added.h"
#include "tinylm/lm_save.h"
#include "tinylm/lm_train.h"
#include "tinylm/output.h"
#include "tinylm/select.h"

/* A step is worked through in pieces of at most this many tokens, so that memory does not grow with the batch. */
enum { TUNE_PIECE_TOKENS = 1024, TUNE_MIN_EVAL = 10, TUNE_PROGRAM = 48 << 20 /* code, threads, the vocabulary */ };

static const double tune_lr_full = 5e-5;

cmc_tune_opts cmc_tune_defaults(void) {
    cmc_tune_opts o = {.how = cmc_train_defaults()};
    o.how.lr = 0.0;
    return o;
}

/* --------------------------------------------------------------------------------------------- options */

/* What is for deltas alone and would be left out without a word. */
static cmc_status tune_check_foreign(const cmc_train_opts *o, cmc_error *err) {
    const cmc_train_opts d = cmc_train_defaults();
    const struct {
        const char *name;
        bool given;
    } foreign[] = {
        {"hosts", o->n_hosts > 0},          {"init_path", o->init_path != NULL}, {"vocab_path", o->vocab_path != NULL},
        {"alpha_hosts", o->n_alpha_hosts > 0}, {"dropout", o->dropout > 0.0},    {"prefix_rows", o->prefix_rows},
        {"host_temperature_lo", o->host_temperature_lo > 0.0}, {"host_mix", o->host_mix > 0.0},
        {"host_mix_with", o->host_mix_with != NULL}, {"teacher", o->teacher != NULL},
        {"cuts", o->cuts > 0.0},
        {"host_weights", o->host_weights != NULL}, {"cache_dir", o->cache_dir != NULL}, {"cut_gain", o->cut_gain != 0.0},
        {"delta_template", o->delta_template != d.delta_template}, {"alpha", o->alpha != d.alpha},
        {"n_embd", o->n_embd != 0},         {"n_layer", o->n_layer != 0},        {"n_head", o->n_head != 0},
        {"n_head_kv", o->n_head_kv != 0},   {"n_ff", o->n_ff != 0},              {"cut", o->cut != 0},
    };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (foreign[i].given)
            return cmc_fail(err, CMC_E_ARG, "%s is for training a delta, not for tuning a model", foreign[i].name);
    return CMC_OK;
}

/* `path` can be written and is none of the run's inputs. */
static cmc_status tune_check_output(const tune *t, const char *path, cmc_error *err) {
    const cmc_tune_opts *o = &t->o;
    const char *const single[] = {o->base, o->how.keep.soft_mask, o->how.refusals_path};
    const output_inputs in[] = {{single, sizeof single / sizeof *single}, {o->how.data, o->how.n_data},
                                {o->how.retain, o->how.n_retain},
                                {o->how.keep.replay, o->how.keep.n_replay}, {o->how.keep.watch, o->how.keep.n_watch}};
    return output_check(path, in, sizeof in / sizeof *in, err);
}

/* What is trained for, and what does not go with forgetting. */
static cmc_status tune_objective(tune *t, cmc_error *err) {
    const cmc_keep_opts *k = &t->o.how.keep;
    CMC_TRY(objective_of(&t->o.how, &t->objective, err));
    if (t->objective.kind == OBJECTIVE_SFT)
        return CMC_OK;
    if (t->objective.kind == OBJECTIVE_DISTIL)
        return cmc_fail(err, CMC_E_ARG, "objective distil is for training a delta, not for tuning a model");
    t->o.how.held_out = 0.0; /* a record that is held out would not be forgotten */
    if (k->n_replay || k->n_watch)
        return cmc_fail(err, CMC_E_ARG, "objective %s: %s; what is to be kept is its data to retain",
                        objective_name(t->objective.kind),
                        k->n_replay ? "replay is for sft" : "watch goes by held-out scores, and there are none");
    return CMC_OK;
}

static cmc_status tune_options(tune *t, cmc_error *err) {
    cmc_train_opts *o = &t->o.how;
    if (!t->o.base || !o->out_path || !o->data || o->n_data == 0)
        return cmc_fail(err, CMC_E_ARG, "tuning needs a base model, data and a path to write to");
    if (o->lr == 0.0)
        o->lr = t->o.how.lora_rank ? ADDED_LORA_LR : tune_lr_full;
    CMC_TRY(tune_check_foreign(o, err));
    CMC_TRY(keep_check(&o->keep, err));
    CMC_TRY(added_check(o, err));
    CMC_TRY(train_check_numbers(o, err));
    CMC_TRY(tune_objective(t, err));
    CMC_TRY(model_save_type(o->save_type ? o->save_type : "q8_0", &t->save_type, err));
    if (o->checkpoint_path ? asprintf(&t->checkpoint, "%s", o->checkpoint_path) < 0
                           : asprintf(&t->checkpoint, "%s.ckpt", o->out_path) < 0) {
        t->checkpoint = NULL;
        return cmc_fail_nomem(err, "a path", strlen(o->out_path));
    }
    CMC_TRY(tune_check_output(t, o->out_path, err));
    CMC_TRY(tune_check_output(t, t->checkpoint, err));
    CMC_TRY(output_check_own(o->out_path, t->checkpoint, o->log_path, err));
    if (o->log_path)
        CMC_TRY(tune_check_output(t, o->log_path, err));
    return checkpoint_check(t->checkpoint, o->resume, o->fresh, err);
}

/* ------------------------------------------------------------------------------------------------- plan */

static cmc_status tune_data(tune *t, cmc_error *err) {
    const cmc_train_opts *o = &t->o.how;
    int32_t ctx = cmc_model_n_ctx(t->base);
    const cmc_vocab *v = cmc_model_vocab(t->base);
    data_opts d = {.paths = o->data, .n_paths = o->n_data, .vocab = v,
                   .host_template = cmc_template_resolve(o->host_template, v),
                   .max_len = (size_t)(o->max_len < ctx ? o->max_len : ctx), .held_out = o->held_out,
                   .objective = t->objective, .retain = o->retain, .n_retain = o->n_retain, .refusals = o->refusals_path,
                   .seed = o->seed};
    d.delta_template = d.host_template;
    CMC_TRY(data_open(&d, &t->data, err));
    d.held_out = 0.0; /* what is replayed or watched: as with sft, which alone has such data */
    d.n_retain = 0;
    if (t->o.how.keep.n_replay) {
        d.paths = t->o.how.keep.replay;
        d.n_paths = t->o.how.keep.n_replay;
        CMC_TRY(data_open(&d, &t->replay, err));
    }
    d.n_paths = 1;
    for (size_t i = 0; i < t->o.how.keep.n_watch; i++) {
        d.paths = &t->o.how.keep.watch[i];
        CMC_TRY(data_open(&d, &t->watch[i], err));
    }
    return CMC_OK;
}

static cmc_status tune_plan(tune *t, cmc_error *err) {
    cmc_train_opts *o = &t->o.how;
    size_t n = t->data.n_train;
    t->pace.steps_per_epoch = (int64_t)((n + (size_t)o->batch - 1) / (size_t)o->batch);
    t->pace.steps = o->max_steps > 0 ? o->max_steps : o->epochs * t->pace.steps_per_epoch;
    t->warmup = (int64_t)llround(o->warmup * (double)t->pace.steps);
    if (o->eval_every == 0)
        o->eval_every =
            (int32_t)(t->pace.steps_per_epoch / 10 > TUNE_MIN_EVAL ? t->pace.steps_per_epoch / 10 : TUNE_MIN_EVAL);
    if (o->checkpoint_every == 0)
        o->checkpoint_every = o->eval_every;
    size_t n_replay = t->replay.n_train, n_kept = t->data.n_retain, most = (size_t)o->batch;
    bool ok = step_order_new(n, most, &t->order) && step_order_new(n_kept, most, &t->kept) &&
              step_order_new(n_replay, keep_replay_most(&o->keep, o->batch) + 1, &t->replay_order);
    t->pairs = cmc_alloc(2 * most, sizeof *t->pairs);
    return ok && t->pairs ? CMC_OK : cmc_fail_nomem(err, "the order of the data", (n + n_replay + n_kept) * sizeof(size_t));
}

/* Lines of options that came later: only where they are given, so that older checkpoints can still be resumed. NULL where
 * memory is out. */
static char *tune_extras(const tune *t) {
    const objective *of = &t->objective;
    char aim[240] = "", expand[ADDED_SETTING], *all = NULL;
    char *trained = select_setting(t->o.how.train_layers, t->o.how.train_modules);
    char *keep = keep_setting(&t->o.how.keep, t->replay.hash, &t->mask);
    if (of->kind != OBJECTIVE_SFT || of->kl > 0.0)
        snprintf(aim, sizeof aim, "objective %s %d %.17g %.17g %.17g %.17g %s\n", objective_name(of->kind), (int)of->retain,
                 of->retain_weight, of->beta, of->gamma, of->kl, t->data.rows_hash);
    added_expand_setting(&t->o.how.expand, expand);
    if (!trained || !keep || asprintf(&all, "%s%s%s%s", trained, aim, keep, expand) < 0)
        all = NULL;
    free(trained);
    free(keep);
    return all;
}

/* Everything that decides what the weights become, as lines; a checkpoint is only resumed where they agree. */
static cmc_status tune_settings(tune *t, cmc_error *err) {
    const cmc_train_opts *o = &t->o.how;
    char *extras = tune_extras(t);
    int n = !extras ? -1 : asprintf(&t->settings,
                     "tune %s\nlora %d %.17g %s\npiece %zu\ndata %s\ntemplate %s\nexact %d\nmax_len %d\n"
                     "batch %d\nsteps %lld\nlr %.17g\nwarmup %.17g\nmin_lr %.17g\nbeta1 %.17g\nbeta2 %.17g\n"
                     "eps %.17g\nweight_decay %.17g\nclip %.17g\nheld_out %.17g\neval_every %d\npatience %d\n"
                     "seed %llu\n%s",
                     cmc_model_hash(t->base), t->o.how.lora_rank, t->o.how.lora_alpha,
                     t->o.how.lora_targets ? t->o.how.lora_targets : "all", t->piece, t->data.hash, t->data.host_template,
                     t->rt->exact ? 1 : 0, o->max_len, o->batch, (long long)t->pace.steps, o->lr, o->warmup,
                     o->min_lr, o->beta1, o->beta2, o->eps, o->weight_decay, o->clip, o->held_out, o->eval_every,
                     o->patience, (unsigned long long)o->seed, extras);
    free(extras);
    if (n < 0)
        t->settings = NULL;
    return t->settings ? CMC_OK : cmc_fail_nomem(err, "the settings", 1024);
}

/* Tokens of the longest record in any of the run's data; without a host a record is one sequence. */
static size_t tune_longest(const tune *t) {
    size_t most = t->replay.max_delta > t->data.max_delta ? t->replay.max_delta : t->data.max_delta;
    for (size_t i = 0; i < t->o.how.keep.n_watch; i++)
        most = t->watch[i].max_delta > most ? t->watch[i].max_delta : most;
    return most;
}

/* Whether what is trained is kept as it was at the start. */
static bool tune_keeps_start(const tune *t) {
    return keep_needs_start(&t->o.how.keep) || objective_has_host(&t->objective);
}

/* Floats of the arrays that are the run's own: moments, best weights and start as long as what is trained is, rows of a piece. */
static size_t tune_floats(const tune *t, size_t piece, size_t n) {
    bool by_record = objective_by_record(&t->objective), host = objective_has_host(&t->objective);
    return (tune_keeps_start(t) ? 4 : 3) * n + (host ? 2 : 1) * piece * (size_t)t->layout.p.n_embd + (by_record ? piece : 0) +
           7 * 16; /* each begins on a boundary (carve.h) */
}

/* Bytes that the run allocates with pieces of so many tokens. */
static uint64_t tune_bytes(const tune *t, size_t piece) {
    int nt = cmc_runtime_threads(t->rt);
    uint64_t n = lm_bytes(&t->layout, nt, piece, tune_longest(t)) + lm_loss_bytes(&t->layout.p, nt) +
                 (objective_has_kl(&t->objective) ? lm_kl_bytes(&t->layout.p) : 0) +
                 tune_floats(t, piece, lm_trained(&t->layout)->n_trained) * sizeof(float) +
                 piece * (48 + (objective_by_record(&t->objective) ? 2 * sizeof(double) : 0));
    if (t->o.how.expand.kind)
        return n + lm_save_expanded_bytes(&t->layout, t->save_type);
    return t->o.how.lora_rank ? n : n + model_save_bytes(t->base, t->save_type);
}

/* How the work is cut so that it fits the bound, if there is one; refused, with figures, where it cannot. */
static cmc_status tune_memory(tune *t, cmc_error *err) {
    size_t longest = tune_longest(t) * objective_group(&t->objective), whole = longest * (size_t)t->o.how.batch;
    uint64_t bound = t->o.how.memory, room = cmc_mem_available(), mapped = cmc_model_bytes(t->base) + TUNE_PROGRAM;
    const char *less = t->o.how.lora_rank ? "" : "an adapter (lora) or ";
    t->piece = longest > TUNE_PIECE_TOKENS ? longest : whole < TUNE_PIECE_TOKENS ? whole : TUNE_PIECE_TOKENS;
    while (bound && t->piece > longest && mapped + tune_bytes(t, t->piece) > bound)
        t->piece = t->piece / 2 > longest ? t->piece / 2 : longest;
    uint64_t need = tune_bytes(t, t->piece);
    t->planned = need + mapped;
    if (bound && t->planned > bound)
        return cmc_fail(err, CMC_E_NOMEM, "tuning this model takes at least %llu MiB and may take %llu; %sa smaller "
                        "max_len takes less", (unsigned long long)(t->planned >> 20),
                        (unsigned long long)(bound >> 20), less);
    if (room != 0 && need > room)
        return cmc_fail(err, CMC_E_NOMEM, "tuning this model takes about %llu MiB and %llu MiB are free; %sa smaller "
                        "max_len takes less", (unsigned long long)(need >> 20), (unsigned long long)(room >> 20), less);
    return CMC_OK;
}

cmc_status tune_setup(tune *t, cmc_error *err) {
    CMC_TRY(tune_options(t, err));
    CMC_TRY(cmc_model_open(t->rt, t->o.base, &t->base, err));
    CMC_TRY(added_layout(&t->o.how, t->base, &t->expand, &t->align, &t->layout, err));
    CMC_TRY(tune_data(t, err));
    CMC_TRY(tune_plan(t, err));
    CMC_TRY(tune_memory(t, err));
    CMC_TRY(keep_mask(&t->o.how.keep, &t->layout.base, &t->layout.p, t->o.how.seed, &t->mask, err));
    return tune_settings(t, err);
}

/* ------------------------------------------------------------------------------------------------ start */

static cmc_status tune_buffers(tune *t, cmc_error *err) {
    size_t n = lm_trained(&t->layout)->n_trained, e = (size_t)t->layout.p.n_embd, piece = t->piece;
    bool by_record = objective_by_record(&t->objective);
    CMC_TRY(lm_new(t->rt, &t->layout, piece, tune_longest(t), &t->net, err));
    CMC_TRY(lm_loss_new(t->rt, &t->layout.p, &t->loss, err));
    CMC_TRY(batch_new(piece, piece, &t->batch, err));
    if (objective_has_kl(&t->objective))
        CMC_TRY(lm_kl_new(t->rt, &t->layout.p, &t->kl, err));
    size_t floats = tune_floats(t, piece, n);
    t->arena = cmc_alloc_aligned(floats, sizeof(float));
    t->nll = cmc_calloc(by_record ? 2 * piece : 0, sizeof *t->nll);
    if (!t->arena || !t->nll)
        return cmc_fail_nomem(err, "the optimiser's state", floats * sizeof(float));
    const cmc_train_opts *o = &t->o.how;
    carver c = {t->arena, 0};
    t->adam = (adamw){.beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps, .weight_decay = o->weight_decay, .m = carve(&c, 1, n),
                      .v = carve(&c, 1, n), .mask = t->mask.rows, .mask_gradient = keep_masks_gradient(&t->o.how.keep)};
    t->best = carve(&c, 1, n);
    t->start = tune_keeps_start(t) ? carve(&c, 1, n) : NULL;
    t->dhidden = carve(&c, piece, e);
    t->host = objective_has_host(&t->objective) ? carve(&c, piece, e) : NULL;
    t->weights = by_record ? carve(&c, 1, piece) : NULL;
    t->host_nll = t->nll + (by_record ? piece : 0);
    memset(t->adam.m, 0, n * sizeof(float));
    memset(t->adam.v, 0, n * sizeof(float));
    return CMC_OK;
}

cmc_status tune_start(tune *t, cmc_error *err) {
    size_t n = lm_trained(&t->layout)->n_trained;
    CMC_TRY(tune_buffers(t, err));
    checkpoint_sweep(t->checkpoint);
    t->s = (checkpoint_state){.best = NAN, .held_out = NAN, .loss = NAN};
    added_start(&t->o.how, t->base, &t->align, &t->net);
    memcpy(t->best, t->net.trained, n * sizeof(float));
    if (t->start)
        memcpy(t->start, t->net.trained, n * sizeof(float));
    if (t->o.how.resume && checkpoint_exists(t->checkpoint)) {
        checkpoint_arrays a = {t->net.trained, t->best, t->adam.m, t->adam.v, n};
        CMC_TRY(checkpoint_read(t->checkpoint, t->settings, &t->s, &a, err));
        t->resumed = true;
    }
    t->pace.first_step = t->s.step;
    return trainlog_open(t->o.how.log_path, t->resumed ? t->s.step : -1, &t->log, err);
}

void tune_release(tune *t) {
    trainlog_close(&t->log);
    batch_free(&t->batch);
    lm_loss_free(&t->loss);
    lm_kl_free(&t->kl);
    lm_free(&t->net);
    lm_layout_free(&t->layout);
    soft_mask_free(&t->mask);
    expand_spec_free(&t->expand);
    data_free(&t->data);
    data_free(&t->replay);
    for (size_t i = 0; i < DATA_WATCHED; i++)
        data_free(&t->watch[i]);
    cmc_model_free(t->base);
    free(t->arena);
    free(t->nll);
    free(t->pairs);
    step_order_free(&t->order);
    step_order_free(&t->kept);
    step_order_free(&t->replay_order);
    free(t->checkpoint);
    free(t->settings);
    memset(t, 0, sizeof *t);
}
