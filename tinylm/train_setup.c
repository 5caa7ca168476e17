/* Before a run: defaults, checks of the options, the plan of steps, memory, and the start of the weights. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tinylm/lm_added.h"
#include "tinylm/output.h"
#include "tinylm/select.h"
#include "tinylm/train.h"

enum { TRAIN_MIN_EVAL = 10, TRAIN_CONTEXT = 2048 };

cmc_train_opts cmc_train_defaults(void) {
    return (cmc_train_opts){
        .max_len = 1024,
        .batch = 8,
        .epochs = 3,
        .lr = 1e-3,
        .warmup = 0.03,
        .min_lr = 0.1,
        .beta1 = 0.9,
        .beta2 = 0.95,
        .eps = 1e-8,
        .weight_decay = 0.1,
        .clip = 1.0,
        .alpha = 1.0,
        .beta = 0.1,
        .retain_weight = 1.0,
        .held_out = 0.05,
        .patience = 10,
        .keep = {.replay_share = 0.05, .wise_ft = 1.0, .mask_on = "update"},
        .expand = {.merge = "lerp", .share = 0.5, .align = "mse", .align_weight = 1.0},
        .save_type = "q8_0",
    };
}

/* --------------------------------------------------------------------------------------------- options */

cmc_status train_check_numbers(const cmc_train_opts *o, cmc_error *err) {
    const struct {
        const char *name;
        double v, lo, hi;
    } range[] = {
        {"lr", o->lr, 1e-12, 10.0},
        {"warmup", o->warmup, 0.0, 1.0},
        {"min_lr", o->min_lr, 0.0, 1.0},
        {"beta1", o->beta1, 0.0, 0.999999},
        {"beta2", o->beta2, 0.0, 0.9999999},
        {"eps", o->eps, 1e-30, 1.0},
        {"weight_decay", o->weight_decay, 0.0, 100.0},
        {"clip", o->clip, 0.0, 1e30},
        {"alpha", o->alpha, 1e-3, 100.0},
        {"held_out", o->held_out, 0.0, 0.9},
        {"dropout", o->dropout, 0.0, 0.9},
        {"beta", o->beta, 1e-6, 1e6},
        {"gamma", o->gamma, -1e6, 1e6},
        {"kl", o->kl, 0.0, 1e6},
        {"host_temperature_lo", o->host_temperature_lo, 0.0, 1000.0},
        {"host_temperature_hi", o->host_temperature_hi, 0.0, 1000.0},
        {"cuts", o->cuts, 0.0, 1.0},
        {"host_mix", o->host_mix, 0.0, 0.999},
        {"retain_weight", o->retain_weight, 0.0, 1e6},
        {"memory", (double)o->memory, 0, 0x1p62},
        {"cut", o->cut, 0, 1024},
        {"cut_gain", o->cut_gain, 0.0, 100.0},
        {"max_len", o->max_len, 2, 1 << 20},
        {"batch", o->batch, 1, 1 << 20},
        {"epochs", o->max_steps > 0 ? 1 : o->epochs, 1, 1 << 20},
        {"eval_every", o->eval_every, 0, 1 << 30},
        {"patience", o->patience, 0, 1 << 30},
        {"checkpoint_every", o->checkpoint_every, 0, 1 << 30},
        {"max_steps", o->max_steps < 0 ? 0.0 : (double)o->max_steps, 0, 1e12},
        {"n_embd", o->n_embd, 0, 65536},
        {"n_layer", o->n_layer, 0, 1024},
        {"n_head", o->n_head, 0, 4096},
        {"n_head_kv", o->n_head_kv, 0, 4096},
        {"n_ff", o->n_ff, 0, 1 << 20},
    };
    for (size_t i = 0; i < sizeof range / sizeof *range; i++)
        if (!(range[i].v >= range[i].lo && range[i].v <= range[i].hi))
            return cmc_fail(err, CMC_E_ARG, "%s is %g; it must be from %g to %g", range[i].name, range[i].v,
                            range[i].lo, range[i].hi);
    return CMC_OK;
}

cmc_status train_check_output(const train *t, const char *path, cmc_error *err) {
    const cmc_train_opts *o = &t->o;
    const char *const single[] = {o->init_path, o->vocab_path, o->host_mix_with, o->refusals_path, o->teacher, o->keep.soft_mask};
    const output_inputs in[] = {{single, sizeof single / sizeof *single}, {o->hosts, o->n_hosts}, {o->data, o->n_data},
                                {o->retain, o->n_retain}, {o->alpha_hosts, o->n_alpha_hosts},
                                {o->keep.replay, o->keep.n_replay}, {o->keep.watch, o->keep.n_watch}};
    return output_check(path, in, sizeof in / sizeof *in, err);
}

static char *setup_format(const char *a, const char *b, const char *c, const char *d) {
    char *s = NULL;
    return asprintf(&s, "%s%s%s%s", a, b, c, d) < 0 ? NULL : s;
}

/* What keeps a delta near its start goes with a start, and with learning. */
static cmc_status setup_check_keeping(const train *t, cmc_error *err) {
    const cmc_keep_opts *k = &t->o.keep;
    CMC_TRY(keep_check(k, err));
    if (!t->o.init_path && (keep_needs_start(k) || k->soft_mask))
        return cmc_fail(err, CMC_E_ARG, "%s keeps weights near a start; name one with init",
                        k->soft_mask ? "soft_mask" : k->l2_start > 0.0 ? "l2_start" : "wise_ft");
    if (t->objective.kind != OBJECTIVE_SFT && (k->n_replay || k->n_watch))
        return cmc_fail(err, CMC_E_ARG, "objective %s: %s", objective_name(t->objective.kind),
                        k->n_replay ? "replay is for sft; what is to be kept is its data to retain"
                                    : "watch goes by held-out scores, and there are none");
    return CMC_OK;
}

/* An adapter or blocks go with a start as it is. */
static cmc_status setup_check_added(train *t, cmc_error *err) {
    cmc_train_opts *o = &t->o;
    const char *what = o->lora_rank ? "lora_rank" : "expand";
    if (!added_any(o))
        return CMC_OK;
    if (!o->init_path)
        return cmc_fail(err, CMC_E_ARG, "%s adds to a start; name one with init", what);
    if (o->cut > 0 || o->dropout > 0.0)
        return cmc_fail(err, CMC_E_ARG, "%s: %s is for a delta whose own weights are trained", what, o->cut > 0 ? "cut" : "dropout");
    return added_check(o, err);
}

static cmc_status setup_options(train *t, cmc_error *err) {
    cmc_train_opts *o = &t->o;
    if (!o->hosts || o->n_hosts == 0 || !o->out_path || !o->data || o->n_data == 0)
        return cmc_fail(err, CMC_E_ARG, "training needs a host, data and a path to write the delta to");
    if (o->cut > 0 && !o->init_path)
        return cmc_fail(err, CMC_E_ARG, "there is nothing to cut %d layers from; name a start with init", o->cut);
    if (o->cut_gain != 0.0 && o->cut == 0)
        return cmc_fail(err, CMC_E_ARG, "cut_gain is %g, and there is no cut", o->cut_gain);
    if ((o->train_layers || o->train_modules) && !o->init_path)
        return cmc_fail(err, CMC_E_ARG, "a random start is trained whole; name a start with init to train some of its layers "
                        "or modules");
    if (o->lr == 0.0)
        o->lr = o->lora_rank ? ADDED_LORA_LR : cmc_train_defaults().lr;
    CMC_TRY(train_check_numbers(o, err));
    for (size_t k = 0; o->host_weights && k < o->n_hosts; k++)
        if (!(o->host_weights[k] > 0.0 && o->host_weights[k] <= 1e6))
            return cmc_fail(err, CMC_E_ARG, "host weight %zu is %g; it must be more than 0", k + 1, o->host_weights[k]);
    o->save_type = o->save_type ? o->save_type : "q8_0";
    CMC_TRY(objective_of(o, &t->objective, err));
    CMC_TRY(perturb_check(o, t->objective.kind, err));
    if ((t->objective.kind == OBJECTIVE_DISTIL) != (o->teacher != NULL) || (o->teacher && o->n_hosts != 1))
        return cmc_fail(err, CMC_E_ARG, "objective distil takes a teacher, beside one host alone; no other objective does");
    if (t->objective.kind != OBJECTIVE_SFT) /* a record that is held out would not be forgotten */
        o->held_out = 0.0;
    CMC_TRY(setup_check_keeping(t, err));
    CMC_TRY(setup_check_added(t, err));
    t->checkpoint = o->checkpoint_path ? cmc_strndup(o->checkpoint_path, strlen(o->checkpoint_path))
                                       : setup_format(o->out_path, ".ckpt", "", "");
    if (!t->checkpoint)
        return cmc_fail_nomem(err, "a path", strlen(o->out_path));
    CMC_TRY(train_check_output(t, o->out_path, err));
    CMC_TRY(train_check_output(t, t->checkpoint, err));
    CMC_TRY(output_check_own(o->out_path, t->checkpoint, o->log_path, err));
    if (o->log_path)
        CMC_TRY(train_check_output(t, o->log_path, err));
    return checkpoint_check(t->checkpoint, o->resume, o->fresh, err);
}

/* ------------------------------------------------------------------------------------------------ shape */

/* A size of the start's that the caller asked for differently. */
static cmc_status setup_check_shape(const train *t, const params_shape *s, cmc_error *err) {
    const struct {
        const char *name;
        int32_t want, have;
    } size[] = {
        {"n_embd", t->o.n_embd, s->n_embd}, {"n_layer", t->o.n_layer, s->n_layer},
        {"n_head", t->o.n_head, s->n_head}, {"n_head_kv", t->o.n_head_kv, s->n_head_kv},
        {"n_ff", t->o.n_ff, s->n_ff},
    };
    for (size_t i = 0; i < sizeof size / sizeof *size; i++)
        if (size[i].want != 0 && size[i].want != size[i].have)
            return cmc_fail(err, CMC_E_ARG, "%s: its %s is %d, not %d; a start brings its own shape", t->o.init_path,
                            size[i].name, size[i].have, size[i].want);
    return CMC_OK;
}

static cmc_status setup_shape_from_init(train *t, params_shape *s, cmc_error *err) {
    cmc_model *m;
    CMC_TRY(cmc_model_open(t->rt, t->o.init_path, &m, err));
    cmc_status st = load_shape(m, t->vocab.v, t->o.cut, s, err);
    if (t->o.cut > 0)
        snprintf(t->init_hash, sizeof t->init_hash, "%s cut %d gain %.9g", cmc_model_hash(m), t->o.cut, t->o.cut_gain);
    else
        snprintf(t->init_hash, sizeof t->init_hash, "%s", cmc_model_hash(m));
    cmc_model_free(m);
    CMC_TRY(st);
    return setup_check_shape(t, s, err);
}

/* Defaults: 192 wide, 4 layers, heads 32 wide, a feed-forward part of 8/3 the width. */
static void setup_shape_default(const train *t, params_shape *s) {
    const cmc_train_opts *o = &t->o;
    *s = (params_shape){.n_vocab = cmc_vocab_size(t->vocab.v), .rms_eps = 1e-5f, .rope_base = 10000.0f};
    s->n_embd = o->n_embd ? o->n_embd : 192;
    s->n_layer = o->n_layer ? o->n_layer : 4;
    s->n_head = o->n_head ? o->n_head : s->n_embd % 32 == 0 ? s->n_embd / 32 : 1;
    s->n_head_kv = o->n_head_kv ? o->n_head_kv : s->n_head;
    s->n_ff = o->n_ff ? o->n_ff : (int32_t)(((int64_t)s->n_embd * 8 / 3 + 31) / 32 * 32);
    s->head_dim = s->n_head > 0 ? s->n_embd / s->n_head : 0;
}

/* The soft mask of what is trained. */
static cmc_status setup_mask(train *t, cmc_error *err) {
    const params_shape *s = &t->p.s;
    const model_params shape = {.n_layer = s->n_layer, .n_embd = s->n_embd, .n_head = s->n_head, .n_head_kv = s->n_head_kv,
                                .head_k = s->head_dim, .head_v = s->head_dim, .n_ff = s->n_ff};
    return keep_mask(&t->o.keep, &t->p, &shape, t->o.seed, &t->mask, err);
}

/* What of the start is trained. */
static cmc_status setup_selection(train *t, cmc_error *err) {
    selection s;
    CMC_TRY(select_parse(t->o.train_layers, t->o.train_modules, t->p.s.n_layer, true, &s, err));
    select_apply(&s, &t->p);
    select_free(&s);
    return CMC_OK;
}

static cmc_status setup_shape(train *t, cmc_error *err) {
    params_shape s;
    snprintf(t->init_hash, sizeof t->init_hash, "none");
    setup_shape_default(t, &s);
    if (t->o.init_path)
        CMC_TRY(setup_shape_from_init(t, &s, err));
    CMC_TRY(params_init(&t->p, &s, err));
    CMC_TRY(body_plan(t->rt, &t->o, &t->p, &t->body, err));
    if (!t->body.start)
        CMC_TRY(setup_selection(t, err));
    CMC_TRY(setup_mask(t, err));
    return save_type_parse(t->o.save_type, &s, &t->save_type, err);
}

/* ------------------------------------------------------------------------------------------------- plan */

static cmc_status setup_plan(train *t, cmc_error *err) {
    size_t n_train = train_data(t)->n_train;
    t->pace.steps_per_epoch = (int64_t)((n_train + (size_t)t->o.batch - 1) / (size_t)t->o.batch);
    t->pace.steps = t->o.max_steps > 0 ? t->o.max_steps : t->o.epochs * t->pace.steps_per_epoch;
    t->warmup = (int64_t)llround(t->o.warmup * (double)t->pace.steps);
    if (t->o.eval_every == 0)
        t->o.eval_every =
            (int32_t)(t->pace.steps_per_epoch / 10 > TRAIN_MIN_EVAL ? t->pace.steps_per_epoch / 10 : TRAIN_MIN_EVAL);
    if (t->o.checkpoint_every == 0)
        t->o.checkpoint_every = t->o.eval_every;
    size_t n = (size_t)t->o.batch, n_retain = train_data(t)->n_retain, more = keep_replay_most(&t->o.keep, t->o.batch) + 1;
    bool ok = step_order_new(n_train, n + more, &t->main) && step_order_new(n_retain, n > more ? n : more, &t->kept);
    t->pairs = cmc_alloc(2 * n, sizeof *t->pairs);
    return ok && t->pairs ? CMC_OK : cmc_fail_nomem(err, "the order of the data", (n_train + n_retain) * sizeof(size_t));
}

/* "HASH:TEMPLATE:ROWS:WEIGHT", the hosts one after the other. */
static char *setup_host_settings(const train *t) {
    char *s = cmc_strndup("", 0);
    for (size_t k = 0; k < t->n_hosts && s; k++) {
        const train_host *h = &t->hosts[k];
        char *longer = NULL;
        if (asprintf(&longer, "%s%s%s:%s:%s:%.17g", s, k ? " " : "", cmc_model_hash(h->model), h->data.host_template,
                     h->data.rows_hash, h->weight) < 0)
            longer = NULL;
        free(s);
        s = longer;
    }
    return s;
}

enum { SETUP_CUT = 128 };

/* How the work is cut, which decides the order of sums. Without a bound on memory, what room there is decides whether output
 * matrices are decoded. */
static void setup_cut(const train *t, char out[SETUP_CUT]) {
    char heads[24] = "any";
    if (t->plan.bounded)
        snprintf(heads, sizeof heads, "%zu", t->plan.heads);
    snprintf(out, SETUP_CUT, "pieces of %zu tokens, %zu KiB of logits, heads %s", t->plan.piece, t->plan.block >> 10, heads);
}

/* Lines of options that came later: only where they are given, so that older checkpoints can still be resumed. NULL where memory is
 * out. */
static char *setup_extras(const train *t) {
    const cmc_train_opts *o = &t->o;
    char *all = NULL, expand[ADDED_SETTING];
    size_t n;
    FILE *f = open_memstream(&all, &n);
    if (!f)
        return NULL;
    if (t->mix)
        fprintf(f, "mixed_with %s:%s:%s\n", cmc_model_hash(t->mix->model), t->mix->data.host_template, t->mix->data.rows_hash);
    if (o->cuts > 0.0)
        fprintf(f, "cuts %.17g\n", o->cuts);
    if (o->lora_rank)
        fprintf(f, "lora %d %.17g %s\n", o->lora_rank, o->lora_alpha, o->lora_targets ? o->lora_targets : "all");
    added_expand_setting(&o->expand, expand);
    fputs(expand, f);
    if (perturb_on(o))
        fprintf(f, "host_perturbed %.17g %.17g %.17g\n", o->host_temperature_lo, o->host_temperature_hi, o->host_mix);
    bool ok = !ferror(f);
    if (fclose(f) != 0 || !ok) {
        free(all);
        return NULL;
    }
    return all;
}

/* Everything that decides what the weights become, as lines; a checkpoint is only resumed where they agree. */
static cmc_status setup_settings(train *t, cmc_error *err) {
    const cmc_train_opts *o = &t->o;
    const params_shape *s = &t->p.s;
    char *hosts = setup_host_settings(t), *trained = select_setting(o->train_layers, o->train_modules);
    char *keep = keep_setting(&o->keep, train_data(t)->hash, &t->mask);
    char cut[SETUP_CUT], *extras = setup_extras(t);
    setup_cut(t, cut);
    int n = !hosts || !trained || !keep || !extras ? -1 : asprintf(
        &t->settings,
        "objective %s %d %.17g %.17g %.17g %.17g\ndata %s\nhosts %s\nvocab %s\ndelta_template %s\ninit %s\nexact %d\nprefix_rows %d\n"
        "n_embd %d\nn_layer %d\nn_head %d\nn_head_kv %d\nn_ff %d\nmax_len %d\nbatch %d\nsteps %lld\nlr %.17g\n"
        "dropout %.17g\nwarmup %.17g\nmin_lr %.17g\nbeta1 %.17g\nbeta2 %.17g\neps %.17g\nweight_decay %.17g\nclip %.17g\n"
        "alpha %.17g\nheld_out %.17g\neval_every %d\npatience %d\nseed %llu\nmemory %s\n%s%s%s",
        objective_name(t->objective.kind), (int)t->objective.retain, t->objective.retain_weight, t->objective.beta,
        t->objective.gamma, t->objective.kl, train_data(t)->hash, hosts, t->vocab_hash, train_data(t)->delta_template, t->init_hash,
        t->rt->exact ? 1 : 0, o->prefix_rows ? 1 : 0, s->n_embd, s->n_layer, s->n_head, s->n_head_kv, s->n_ff,
        o->max_len, o->batch, (long long)t->pace.steps, o->lr, o->dropout, o->warmup, o->min_lr, o->beta1, o->beta2,
        o->eps, o->weight_decay, o->clip, o->alpha, o->held_out, o->eval_every, o->patience,
        (unsigned long long)o->seed, cut, extras, trained, keep);
    free(hosts);
    free(trained);
    free(keep);
    free(extras);
    if (n < 0)
        t->settings = NULL;
    return t->settings ? CMC_OK : cmc_fail_nomem(err, "the settings", 1024);
}

uint32_t train_context(const train *t) {
    return t->o.max_len > TRAIN_CONTEXT ? (uint32_t)t->o.max_len : TRAIN_CONTEXT;
}

cmc_status train_setup(train *t, cmc_error *err) {
    CMC_TRY(setup_options(t, err));
    CMC_TRY(train_hosts_open(t, err));
    CMC_TRY(setup_shape(t, err));
    CMC_TRY(train_hosts_data(t, err));
    CMC_TRY(setup_plan(t, err));
    CMC_TRY(train_hosts_caches(t, err));
    CMC_TRY(train_memory_plan(t, err));
    return setup_settings(t, err);
}

/* ------------------------------------------------------------------------------------------------ start */

static cmc_status start_weights(train *t, cmc_error *err) {
    cmc_model *m;
    if (t->body.start) /* body_new has set it */
        return CMC_OK;
    if (!t->o.init_path) {
        params_randomise(&t->p, t->o.seed, t->body.w);
        return CMC_OK;
    }
    CMC_TRY(cmc_model_open(t->rt, t->o.init_path, &m, err));
    load_weights(m, &t->p, t->body.w);
    t->cut_head = m->head.data != m->embd.data;
    cmc_model_free(m);
    if (t->o.cut > 0) {
        float gain = t->o.cut_gain > 0.0 ? (float)t->o.cut_gain : load_quiet(&t->p, t->body.w);
        for (int32_t i = 0; i < t->p.s.n_embd; i++)
            t->body.w[t->p.out_norm + (size_t)i] *= gain;
        t->cut_gain = (double)gain;
    }
    return CMC_OK;
}

static cmc_status start_log(train *t, cmc_error *err) {
    CMC_TRY(trainlog_open(t->o.log_path, t->resumed ? t->s.step : -1, &t->log, err));
    if (t->resumed || t->o.cut == 0)
        return CMC_OK;
    trainlog_field f[] = {{"layers", t->o.cut}, {"gain", t->cut_gain}, {"head_left_behind", t->cut_head}};
    return trainlog_put(&t->log, "cut", 0, f, sizeof f / sizeof *f, err);
}

static cmc_status start_buffers(train *t, cmc_error *err) {
    size_t n = (t->body.n + 15) / 16 * 16, e = (size_t)t->p.s.n_embd, tokens = t->plan.tokens;
    CMC_TRY(body_new(t->rt, &t->o, tokens, train_longest_sequence(t), &t->body, err));
    CMC_TRY(batch_new(tokens, tokens, &t->batch, err));
    t->each = cmc_alloc(tokens, 2 * sizeof *t->each);
    t->weights = cmc_alloc(tokens, sizeof *t->weights);
    if (perturb_on(&t->o))
        t->perturb = cmc_alloc(tokens, sizeof *t->perturb);
    if (t->mix)
        t->mixed = cmc_alloc(tokens, sizeof *t->mixed);
    if (!t->each || !t->weights || (perturb_on(&t->o) && !t->perturb) || (t->mix && !t->mixed))
        return cmc_fail_nomem(err, "the losses of a batch", tokens * 2 * sizeof *t->each);
    size_t arrays = keep_needs_start(&t->o.keep) ? 4 : 3;
    t->arena = cmc_alloc_aligned(arrays * n + tokens * e, sizeof(float));
    if (!t->arena)
        return cmc_fail_nomem(err, "the optimiser's state", (arrays * n + tokens * e) * sizeof(float));
    t->adam = (adamw){.beta1 = t->o.beta1, .beta2 = t->o.beta2, .eps = t->o.eps, .weight_decay = t->o.weight_decay,
                      .m = t->arena, .v = t->arena + n, .mask = t->mask.rows,
                      .mask_gradient = keep_masks_gradient(&t->o.keep)};
    t->best = t->arena + 2 * n;
    t->start = keep_needs_start(&t->o.keep) ? t->arena + 3 * n : NULL;
    t->dhidden = t->arena + arrays * n;
    return CMC_OK;
}

cmc_status train_start(train *t, cmc_error *err) {
    CMC_TRY(start_buffers(t, err));
    checkpoint_sweep(t->checkpoint);
    t->s = (checkpoint_state){.best = NAN, .held_out = NAN, .loss = NAN};
    if (t->o.resume && checkpoint_exists(t->checkpoint)) {
        checkpoint_arrays none = {.n = t->body.n}; /* checked now, and read when there is room for it */
        CMC_TRY(checkpoint_read(t->checkpoint, t->settings, &t->s, &none, err));
        t->resumed = true;
    }
    if (!t->resumed || t->start)
        CMC_TRY(start_weights(t, err));
    if (t->start)
        memcpy(t->start, t->body.w, t->body.n * sizeof(float));
    t->pace.first_step = t->s.step;
    return start_log(t, err);
}

static cmc_status start_unigram(train_host *h, cmc_error *err) {
    size_t n = (size_t)cmc_model_n_vocab(h->model);
    h->log_unigram = cmc_alloc(n, sizeof *h->log_unigram);
    if (!h->log_unigram)
        return cmc_fail_nomem(err, "a unigram", n * sizeof *h->log_unigram);
    perturb_unigram(&h->data, n, h->log_unigram);
    return CMC_OK;
}

cmc_status train_start_steps(train *t, cmc_error *err) {
    for (size_t k = 0; k < t->n_hosts; k++) {
        train_host *h = &t->hosts[k];
        if (t->o.host_mix > 0.0 && !t->mix)
            CMC_TRY(start_unigram(h, err));
        CMC_TRY(loss_new(h->model, h->map, (size_t)t->p.s.n_embd, train_decodes_head(t, &t->plan, k), t->plan.block,
                         &h->loss, err));
    }
    if (t->mix)
        CMC_TRY(loss_mix_with(&t->hosts[0].loss, t->mix->model, t->mix->map, err));
    train_memory_forget_hosts(t); /* what was read of them to decode their output matrices */
    if (t->resumed) {
        checkpoint_arrays a = {t->body.w, t->best, t->adam.m, t->adam.v, t->body.n};
        return checkpoint_read(t->checkpoint, t->settings, &t->s, &a, err);
    }
    memset(t->adam.m, 0, t->body.n * sizeof(float));
    memset(t->adam.v, 0, t->body.n * sizeof(float));
    memcpy(t->best, t->body.w, t->body.n * sizeof(float));
    return CMC_OK;
}

void train_release(train *t) {
    trainlog_close(&t->log);
    batch_free(&t->batch);
    body_free(&t->body);
    params_free(&t->p);
    soft_mask_free(&t->mask);
    train_hosts_free(t);
    free(t->arena);
    step_order_free(&t->main);
    step_order_free(&t->kept);
    free(t->pairs);
    free(t->each);
    free(t->weights);
    free(t->perturb);
    free(t->mixed);
    free(t->mix_row);
    free(t->checkpoint);
    free(t->settings);
    free(t->alphas);
    memset(t, 0, sizeof *t);
}
