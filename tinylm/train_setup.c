/* Before a run: defaults, checks of the options, the plan of steps, memory, and the start of the weights. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "tinylm/train.h"

/* A step is worked through in pieces of at most this many tokens, so that memory does not grow with the batch. */
enum { TRAIN_PIECE_TOKENS = 2048, TRAIN_MIN_EVAL = 10, TRAIN_CONTEXT = 2048 };

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
        .held_out = 0.05,
        .patience = 10,
        .save_type = "q8_0",
    };
}

/* --------------------------------------------------------------------------------------------- options */

static cmc_status setup_check_numbers(const cmc_train_opts *o, cmc_error *err) {
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

static bool setup_same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The folder of `path` must be there and writable, and `path` none of the run's own inputs. */
static cmc_status setup_check_output(const train *t, const char *path, cmc_error *err) {
    struct stat st;
    const char *slash = strrchr(path, '/');
    char *dir = slash ? cmc_strndup(path, slash == path ? 1 : (size_t)(slash - path)) : cmc_strndup(".", 1);
    if (!dir)
        return cmc_fail_nomem(err, "a path", strlen(path));
    cmc_status rc = CMC_OK;
    if (access(dir, W_OK | X_OK) != 0)
        rc = cmc_fail(err, CMC_E_IO, "%s: cannot write in %s: %s", path, dir, strerror(errno));
    free(dir);
    CMC_TRY(rc);
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return cmc_fail(err, CMC_E_IO, "%s: not a regular file; name a file to write", path);
    bool input = setup_same_file(path, t->o.host_path) || (t->o.init_path && setup_same_file(path, t->o.init_path));
    for (size_t i = 0; i < t->o.n_data; i++)
        input = input || setup_same_file(path, t->o.data[i]);
    if (input)
        return cmc_fail(err, CMC_E_ARG, "%s: is one of this run's inputs; name another output", path);
    return CMC_OK;
}

static char *setup_format(const char *a, const char *b, const char *c, const char *d) {
    char *s = NULL;
    return asprintf(&s, "%s%s%s%s", a, b, c, d) < 0 ? NULL : s;
}

static cmc_status setup_options(train *t, cmc_error *err) {
    cmc_train_opts *o = &t->o;
    if (!o->host_path || !o->out_path || !o->data || o->n_data == 0)
        return cmc_fail(err, CMC_E_ARG, "training needs a host, data and a path to write the delta to");
    if (o->resume && o->fresh)
        return cmc_fail(err, CMC_E_ARG, "resume and fresh exclude each other");
    CMC_TRY(setup_check_numbers(o, err));
    o->save_type = o->save_type ? o->save_type : "q8_0";
    t->checkpoint = o->checkpoint_path ? cmc_strndup(o->checkpoint_path, strlen(o->checkpoint_path))
                                       : setup_format(o->out_path, ".ckpt", "", "");
    if (!t->checkpoint)
        return cmc_fail_nomem(err, "a path", strlen(o->out_path));
    CMC_TRY(setup_check_output(t, o->out_path, err));
    CMC_TRY(setup_check_output(t, t->checkpoint, err));
    if (strcmp(o->out_path, t->checkpoint) == 0 || setup_same_file(o->out_path, t->checkpoint))
        return cmc_fail(err, CMC_E_ARG, "%s: named both for the delta and for the checkpoint", o->out_path);
    if (o->log_path)
        CMC_TRY(setup_check_output(t, o->log_path, err));
    if (!o->resume && !o->fresh && checkpoint_exists(t->checkpoint))
        return cmc_fail(err, CMC_E_ARG,
                        "%s: a checkpoint of an unfinished run is there; --resume goes on with it, --fresh starts "
                        "again and replaces it",
                        t->checkpoint);
    return CMC_OK;
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
    cmc_status st = load_shape(m, cmc_model_vocab(t->host), s, err);
    snprintf(t->init_hash, sizeof t->init_hash, "%s", cmc_model_hash(m));
    cmc_model_free(m);
    CMC_TRY(st);
    return setup_check_shape(t, s, err);
}

/* Defaults: 192 wide, 4 layers, heads 32 wide, a feed-forward part of 8/3 the width. */
static void setup_shape_default(const train *t, params_shape *s) {
    const cmc_train_opts *o = &t->o;
    *s = (params_shape){.n_vocab = cmc_model_n_vocab(t->host), .rms_eps = 1e-5f, .rope_base = 10000.0f};
    s->n_embd = o->n_embd ? o->n_embd : 192;
    s->n_layer = o->n_layer ? o->n_layer : 4;
    s->n_head = o->n_head ? o->n_head : s->n_embd % 32 == 0 ? s->n_embd / 32 : 1;
    s->n_head_kv = o->n_head_kv ? o->n_head_kv : s->n_head;
    s->n_ff = o->n_ff ? o->n_ff : (int32_t)(((int64_t)s->n_embd * 8 / 3 + 31) / 32 * 32);
    s->head_dim = s->n_head > 0 ? s->n_embd / s->n_head : 0;
}

static cmc_status setup_host(train *t, cmc_error *err) {
    params_shape s;
    CMC_TRY(cmc_model_open(t->rt, t->o.host_path, &t->host, err));
    const cmc_vocab *v = cmc_model_vocab(t->host);
    if (cmc_vocab_size(v) != cmc_model_n_vocab(t->host))
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: %d tokens but %d logits: a delta cannot take over this vocabulary",
                        t->o.host_path, cmc_vocab_size(v), cmc_model_n_vocab(t->host));
    snprintf(t->init_hash, sizeof t->init_hash, "none");
    setup_shape_default(t, &s);
    if (t->o.init_path)
        CMC_TRY(setup_shape_from_init(t, &s, err));
    CMC_TRY(params_init(&t->p, &s, err));
    CMC_TRY(save_type_parse(t->o.save_type, &s, &t->save_type, err));
    t->o.host_template = cmc_template_resolve(t->o.host_template, v);
    if (t->o.delta_template == CMC_TMPL_AUTO) /* the delta has the host's chat template in its file */
        t->o.delta_template = t->o.host_template;
    return CMC_OK;
}

/* ------------------------------------------------------------------------------------------------- plan */

static cmc_status setup_data(train *t, cmc_error *err) {
    int32_t ctx = cmc_model_n_ctx(t->host);
    data_opts d = {.paths = t->o.data,
                   .n_paths = t->o.n_data,
                   .vocab = cmc_model_vocab(t->host),
                   .host_template = t->o.host_template,
                   .delta_template = t->o.delta_template,
                   .max_len = (size_t)(t->o.max_len < ctx ? t->o.max_len : ctx),
                   .held_out = t->o.held_out};
    CMC_TRY(data_open(&d, &t->data, err));
    t->steps_per_epoch = (int64_t)((t->data.n_train + (size_t)t->o.batch - 1) / (size_t)t->o.batch);
    t->steps = t->o.max_steps > 0 ? t->o.max_steps : t->o.epochs * t->steps_per_epoch;
    t->warmup = (int64_t)llround(t->o.warmup * (double)t->steps);
    if (t->o.eval_every == 0)
        t->o.eval_every =
            (int32_t)(t->steps_per_epoch / 10 > TRAIN_MIN_EVAL ? t->steps_per_epoch / 10 : TRAIN_MIN_EVAL);
    if (t->o.checkpoint_every == 0)
        t->o.checkpoint_every = t->o.eval_every;
    t->order = cmc_alloc(t->data.n_train, sizeof *t->order);
    t->order_epoch = -1;
    return t->order ? CMC_OK : cmc_fail_nomem(err, "the order of the data", t->data.n_train * sizeof *t->order);
}

/* Everything that decides what the weights become, as lines; a checkpoint is only resumed where they agree. */
static cmc_status setup_settings(train *t, cmc_error *err) {
    const cmc_train_opts *o = &t->o;
    const params_shape *s = &t->p.s;
    int n = asprintf(
        &t->settings,
        "objective sft\nhost %s\ndata %s\nhost_template %s\ndelta_template %s\ninit %s\nexact %d\nn_embd %d\n"
        "n_layer %d\nn_head %d\nn_head_kv %d\nn_ff %d\nmax_len %d\nbatch %d\nsteps %lld\nlr %.17g\nwarmup %.17g\n"
        "min_lr %.17g\nbeta1 %.17g\nbeta2 %.17g\neps %.17g\nweight_decay %.17g\nclip %.17g\nalpha %.17g\n"
        "held_out %.17g\neval_every %d\npatience %d\nseed %llu\n",
        cmc_model_hash(t->host), t->data.hash, t->data.host_template, t->data.delta_template, t->init_hash,
        t->rt->exact ? 1 : 0, s->n_embd, s->n_layer, s->n_head, s->n_head_kv, s->n_ff, o->max_len, o->batch,
        (long long)t->steps, o->lr, o->warmup, o->min_lr, o->beta1, o->beta2, o->eps, o->weight_decay, o->clip,
        o->alpha, o->held_out, o->eval_every, o->patience, (unsigned long long)o->seed);
    if (n < 0)
        t->settings = NULL;
    return t->settings ? CMC_OK : cmc_fail_nomem(err, "the settings", 1024);
}

/* CACHE_DIR/DIGITS.states, the digits from host, data, template and length; without a folder, beside the checkpoint. */
static cmc_status setup_cache_path(train *t, cmc_error *err) {
    char key[256], hash[40];
    int n = snprintf(key, sizeof key, "%s %s %s %zu %zu %d", cmc_model_hash(t->host), t->data.hash,
                     t->data.host_template, t->data.n, t->data.n_targets, t->rt->exact ? 1 : 0);
    cmc_hash_hex(key, (size_t)n, hash);
    hash[16] = '\0';
    t->own_cache = !t->o.cache_dir;
    t->cache = t->own_cache ? setup_format(t->checkpoint, ".", hash, ".states")
                            : setup_format(t->o.cache_dir, "/", hash, ".states");
    if (!t->cache)
        return cmc_fail_nomem(err, "a path", strlen(t->checkpoint));
    return setup_check_output(t, t->cache, err);
}

size_t train_piece_tokens(const train *t) {
    size_t whole = t->data.max_delta * (size_t)t->o.batch, piece = TRAIN_PIECE_TOKENS;
    if (piece < t->data.max_delta)
        piece = t->data.max_delta;
    return piece < whole ? piece : whole;
}

uint32_t train_context(const train *t) {
    return t->o.max_len > TRAIN_CONTEXT ? (uint32_t)t->o.max_len : TRAIN_CONTEXT;
}

static size_t setup_head_bytes(const train *t) {
    return (size_t)cmc_model_n_vocab(t->host) * (size_t)cmc_model_n_embd(t->host) * sizeof(float);
}

/* Bytes the run will take beside the mapped files. */
static size_t setup_bytes(const train *t, bool head) {
    size_t piece = train_piece_tokens(t), nt = (size_t)cmc_runtime_threads(t->rt);
    return net_bytes(&t->p, (int)nt, piece, t->data.max_delta) + 3 * t->p.n * sizeof(float) +
           loss_bytes(t->host, (size_t)t->p.s.n_embd, (int)nt, head) +
           piece * (32 + (size_t)t->p.s.n_embd * sizeof(float));
}

/* The host's output matrix is decoded where that leaves plenty of room. */
static bool setup_decode_head(const train *t) {
    uint64_t room = cmc_mem_available();
    return room == 0 || setup_bytes(t, true) + setup_head_bytes(t) < room / 2;
}

static cmc_status setup_check_memory(const train *t, cmc_error *err) {
    uint64_t room = cmc_mem_available();
    size_t need = setup_bytes(t, setup_decode_head(t));
    if (room != 0 && need > room)
        return cmc_fail(err, CMC_E_NOMEM,
                        "training this delta takes about %zu MiB and %llu MiB are free; a smaller n_embd or "
                        "max_len takes less",
                        need >> 20, (unsigned long long)(room >> 20));
    return CMC_OK;
}

cmc_status train_setup(train *t, cmc_error *err) {
    t->states.fd = -1;
    CMC_TRY(setup_options(t, err));
    CMC_TRY(setup_host(t, err));
    CMC_TRY(setup_data(t, err));
    CMC_TRY(setup_settings(t, err));
    CMC_TRY(setup_cache_path(t, err));
    return setup_check_memory(t, err);
}

/* ------------------------------------------------------------------------------------------------ start */

static cmc_status start_weights(train *t, cmc_error *err) {
    cmc_model *m;
    if (!t->o.init_path) {
        params_randomise(&t->p, t->o.seed, t->net.w);
        return CMC_OK;
    }
    CMC_TRY(cmc_model_open(t->rt, t->o.init_path, &m, err));
    load_weights(m, &t->p, t->net.w);
    cmc_model_free(m);
    return CMC_OK;
}

static cmc_status start_buffers(train *t, cmc_error *err) {
    size_t n = (t->p.n + 15) / 16 * 16, e = (size_t)t->p.s.n_embd, piece = train_piece_tokens(t);
    CMC_TRY(net_new(t->rt, &t->p, piece, t->data.max_delta, &t->net, err));
    CMC_TRY(loss_new(t->host, e, setup_decode_head(t), &t->loss, err));
    CMC_TRY(batch_new(piece, (size_t)t->o.batch, &t->batch, err));
    t->arena = cmc_alloc_aligned(3 * n + piece * e, sizeof(float));
    if (!t->arena)
        return cmc_fail_nomem(err, "the optimiser's state", (3 * n + piece * e) * sizeof(float));
    memset(t->arena, 0, 3 * n * sizeof(float));
    t->adam = (adamw){t->o.beta1, t->o.beta2, t->o.eps, t->o.weight_decay, t->arena, t->arena + n};
    t->best = t->arena + 2 * n;
    t->dhidden = t->arena + 3 * n;
    return CMC_OK;
}

cmc_status train_start(train *t, cmc_error *err) {
    CMC_TRY(start_buffers(t, err));
    t->s = (checkpoint_state){.best = NAN, .held_out = NAN, .loss = NAN};
    if (t->o.resume && checkpoint_exists(t->checkpoint)) {
        checkpoint_arrays a = {t->net.w, t->best, t->adam.m, t->adam.v, t->p.n};
        CMC_TRY(checkpoint_read(t->checkpoint, t->settings, &t->s, &a, err));
        t->resumed = true;
    } else {
        CMC_TRY(start_weights(t, err));
        memcpy(t->best, t->net.w, t->p.n * sizeof(float));
    }
    t->first_step = t->s.step;
    return trainlog_open(t->o.log_path, t->resumed ? t->s.step : -1, &t->log, err);
}

void train_release(train *t) {
    trainlog_close(&t->log);
    batch_free(&t->batch);
    loss_free(&t->loss);
    net_free(&t->net);
    if (t->states.path)
        hostcache_close(&t->states);
    params_free(&t->p);
    data_free(&t->data);
    cmc_model_free(t->host);
    free(t->arena);
    free(t->order);
    free(t->checkpoint);
    free(t->cache);
    free(t->settings);
    free(t->alphas);
    memset(t, 0, sizeof *t);
}
