/* Steering: a host, its deltas, their maps and strengths, and the arithmetic of one step. */
#include "runtime/steering.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "runtime/lead.h"
#include "runtime/session.h"
#include "runtime/template.h"

cmc_status cmc_steering_new(cmc_model *host, const cmc_steering_opts *opts, cmc_steering **out, cmc_error *err) {
    *out = NULL;
    cmc_steering *st = cmc_calloc(1, sizeof *st);
    if (!st) return cmc_fail_nomem(err, "a steering", sizeof *st);
    st->host = host;
    st->expand = 1.0;
    if (opts) st->opts = *opts;
    cmc_status s = guards_init(&st->guards, st->opts.guards, err);
    if (s != CMC_OK) {
        free(st);
        return s;
    }
    st->opts.guards = NULL;
    st->t = cmc_template_resolve(st->opts.host_template, cmc_model_vocab(host));
    st->lead = template_lead(st->t, cmc_model_vocab(host));
    *out = st;
    return CMC_OK;
}

void cmc_steering_free(cmc_steering *st) {
    if (!st) return;
    for (size_t k = 0; k < st->n; k++) {
        cmc_map_free(st->deltas[k].own_map);
        cmc_map_free(st->deltas[k].first_map);
    }
    free(st->deltas);
    guards_free(&st->guards);
    free(st);
}

/* The strength stored for this host, else the delta's default, else 1. */
static double stored_alpha(const cmc_model *host, const cmc_model *delta) {
    const cmc_delta_info *info = cmc_model_delta_info(delta);
    if (!info) return 1.0;
    for (size_t i = 0; i < info->n_alphas; i++) {
        if (strcmp(info->alphas[i].host_hash, cmc_model_hash(host)) == 0) return info->alphas[i].alpha;
    }
    return isfinite(info->alpha) ? info->alpha : 1.0;
}

/* The template named, else the one stored in the delta, else the delta file's own, else plain. */
static cmc_status delta_template(const cmc_model *delta, cmc_template t, cmc_template *out, cmc_error *err) {
    const cmc_delta_info *info = cmc_model_delta_info(delta);
    if (t == CMC_TMPL_AUTO && info && info->delta_template[0]) {
        if (cmc_template_parse(info->delta_template, &t, NULL) != CMC_OK) {
            return cmc_fail(err, CMC_E_UNSUPPORTED,
                            "%s: stores the chat template \"%.31s\", which cmc does not know; name one "
                            "that it does",
                            cmc_model_path(delta), info->delta_template);
        }
    }
    *out = cmc_template_resolve(t, cmc_model_vocab(delta));
    return CMC_OK;
}

cmc_status cmc_steering_set_expand(cmc_steering *st, double strength, cmc_error *err) {
    CMC_TRY(session_check_expand(st->host, strength, err));
    st->expand = strength;
    return CMC_OK;
}

cmc_status steering_session(const cmc_steering *st, int32_t n_ctx, cmc_session **out, cmc_error *err) {
    CMC_TRY(cmc_session_new(st->host, n_ctx, out, err));
    return cmc_session_set_expand(*out, st->expand, err);
}

cmc_status steering_check_alpha(const cmc_model *delta, double alpha, cmc_error *err) {
    if (isfinite(alpha) && fabs(alpha) <= 1e6) return CMC_OK;
    return cmc_fail(err, CMC_E_ARG, "%s: the strength %g is no number that can be used, expected one such as 1 or -0.5",
                    cmc_model_path(delta), alpha);
}

/* A tokenizer is loaded by its first use. What goes wrong here comes out where it is used again. */
static void *load_tokenizer(void *vocab) {
    cmc_ids ids = {0};
    (void)cmc_tokenize(vocab, "a", 1, CMC_TOK_CONTINUE, &ids, NULL);
    cmc_ids_free(&ids);
    return NULL;
}

/* The map, and meanwhile the host's tokenizer, which with a large vocabulary takes as long and is needed next. */
static cmc_status build_map(const cmc_vocab *host, const cmc_vocab *delta, cmc_map **out, cmc_error *err) {
    pthread_t thread;
    bool beside = pthread_create(&thread, NULL, load_tokenizer, (void *)(uintptr_t)host) == 0;
    cmc_status status = cmc_map_build(host, delta, CMC_RULE_DEFAULT, out, err);
    if (beside) pthread_join(thread, NULL);
    return status;
}

/* Maps of a delta that is being added: d->map is the caller's, or built here. */
static cmc_status add_maps(const cmc_steering *st, steering_delta *d, cmc_error *err) {
    const cmc_vocab *hv = cmc_model_vocab(st->host), *dv = cmc_model_vocab(d->model);
    if (!d->map) {
        CMC_TRY(build_map(hv, dv, &d->own_map, err));
        d->map = d->own_map;
    }
    int32_t n_host = cmc_model_n_vocab(st->host), n_delta = cmc_model_n_vocab(d->model);
    if (d->map->n_host != n_host || d->map->n_delta != n_delta) {
        return cmc_fail(err, CMC_E_ARG,
                        "%s: the token map goes from %d to %d tokens, expected one from the host's %d to the "
                        "delta's %d",
                        cmc_model_path(d->model), d->map->n_host, d->map->n_delta, n_host, n_delta);
    }
    d->same_vocab = cmc_vocab_equal(hv, dv);
    return d->same_vocab ? CMC_OK : lead_map_new(d->map, dv, st->lead, d->lead, &d->first_map, err);
}

cmc_status cmc_steering_add(cmc_steering *st, cmc_model *delta, double alpha, const cmc_map *map, cmc_template t,
                            cmc_error *err) {
    steering_delta d = {.model = delta, .map = map, .alpha = isnan(alpha) ? stored_alpha(st->host, delta) : alpha};
    CMC_TRY(steering_check_alpha(delta, d.alpha, err));
    CMC_TRY(delta_template(delta, t, &d.t, err));
    d.lead = template_lead(d.t, cmc_model_vocab(delta));
    cmc_status s = add_maps(st, &d, err);
    if (s == CMC_OK && !cmc_grow((void **)&st->deltas, &st->cap, st->n + 1, sizeof d)) {
        s = cmc_fail_nomem(err, "the deltas", (st->n + 1) * sizeof d);
    }
    if (s != CMC_OK) {
        cmc_map_free(d.own_map);
        cmc_map_free(d.first_map);
        return s;
    }
    st->deltas[st->n++] = d;
    return CMC_OK;
}

size_t cmc_steering_n_deltas(const cmc_steering *st) {
    return st->n;
}

double cmc_steering_alpha(const cmc_steering *st, size_t k) {
    return k < st->n ? st->deltas[k].alpha : 0.0;
}

cmc_status cmc_steering_set_alpha(cmc_steering *st, size_t k, double alpha, cmc_error *err) {
    if (k >= st->n) return cmc_fail(err, CMC_E_ARG, "there is no delta %zu, expected one below %zu", k, st->n);
    CMC_TRY(steering_check_alpha(st->deltas[k].model, alpha, err));
    st->deltas[k].alpha = alpha;
    return CMC_OK;
}

const cmc_map *cmc_steering_map(const cmc_steering *st, size_t k) {
    return k < st->n ? st->deltas[k].map : NULL;
}

cmc_template cmc_steering_template(const cmc_steering *st) {
    return st->t;
}

/* -------------------------------------------------------------------------------------------- the arithmetic */

cmc_status steering_work_new(const cmc_steering *st, steering_work *out, cmc_error *err) {
    size_t n = (size_t)cmc_model_n_vocab(st->host);
    out->floats = cmc_alloc_aligned(2 * n, sizeof(float));
    out->in = cmc_calloc(st->n, sizeof *out->in);
    out->n = st->n;
    if (out->floats && out->in) return CMC_OK;
    steering_work_free(out);
    return cmc_fail_nomem(err, "the shift", 2 * n * sizeof(float));
}

void steering_work_free(steering_work *w) {
    free(w->floats);
    free(w->in);
    *w = (steering_work){0};
}

bool steering_active(double alpha) {
    return (float)alpha != 0.0f;
}

/* The deltas that take part, into w->in. */
static size_t steering_inputs(const cmc_steering *st, const double *alphas, const float *const *rows, const steering_row *kinds,
                              steering_work *w) {
    size_t n = 0;
    for (size_t k = 0; k < w->n; k++) {
        const steering_delta *d = &st->deltas[k];
        if (!rows[k] || kinds[k] == STEERING_NO_ROW || !steering_active(alphas[k])) continue;
        const cmc_map *map = kinds[k] == STEERING_FIRST_ROW && d->first_map ? d->first_map : d->map;
        w->in[n++] = (shift_in){.map = map, .alpha = (float)alphas[k], .logits = rows[k]};
    }
    return n;
}

bool steering_shift(const cmc_steering *st, const double *alphas, const float *const *rows, const steering_row *kinds,
                    float *logits, steering_work *w) {
    size_t n = steering_inputs(st, alphas, rows, kinds, w);
    int32_t n_vocab = cmc_model_n_vocab(st->host);
    if (n == 0) return false;
    if (st->guards.bounded) {
        shift_apply_bounded(logits, n_vocab, w->in, n, st->opts.unmapped_raw, &st->guards.bounds, w->floats);
    } else {
        shift_apply(logits, n_vocab, w->in, n, st->opts.unmapped_raw, w->floats);
    }
    return true;
}

/* One delta's shift, as the pool's threads see it. */
typedef struct shift_job {
    const cmc_steering *st;
    float *logits;
    const shift_in *in;
    shift_sums sums[SHIFT_PARTS];
} shift_job;

/* Parts that lie side by side: a thread's memory is then read ahead for it alone. */
static void shift_share(void *arg, int t, int nt) {
    shift_job *j = arg;
    const int32_t n = cmc_model_n_vocab(j->st->host);
    const int lo = SHIFT_PARTS * t / nt, hi = SHIFT_PARTS * (t + 1) / nt;
    for (int p = lo; p < hi; p++) shift_part_add(j->logits, n, j->in, j->st->opts.unmapped_raw, p, &j->sums[p]);
    cmc_pool_barrier(j->st->host->rt->pool, t);
    const double centre = shift_parts_centre(j->sums);
    for (int p = lo; p < hi; p++) shift_part_centre(j->logits, n, j->in, centre, p);
}

/* What greedy decoding takes, as threads see it: each looks at the parts that it has in steering_shift_by_all. */
typedef struct best_job {
    const cmc_steering *st;
    cmc_pool *pool;            /* NULL: one thread, by itself */
    const float *logits;
    const shift_in *in;
    shift_span spans[SHIFT_PARTS];
    shift_best best[SHIFT_PARTS];      /* a thread's under its first part */
} best_job;

static void best_share(void *arg, int t, int nt) {
    best_job *j = arg;
    const int lo = SHIFT_PARTS * t / nt, hi = SHIFT_PARTS * (t + 1) / nt;
    for (int p = lo; p < hi; p++) shift_part_span(j->in, p, &j->spans[p]);
    if (j->pool) cmc_pool_barrier(j->pool, t);
    const shift_span span = shift_all_spans(j->spans, SHIFT_PARTS);
    for (int p = lo; p < hi; p++) shift_part_best(j->logits, cmc_model_n_vocab(j->st->host), j->in, &span, p, &j->best[lo]);
}

int32_t steering_best(const cmc_steering *st, const double *alphas, const float *const *rows, const steering_row *kinds,
                      const float *logits, steering_work *w, cmc_pool *pool) {
    best_job j = {.st = st, .pool = pool, .logits = logits, .in = w->in};
    if (st->guards.bounded || steering_inputs(st, alphas, rows, kinds, w) != 1) return -1;
    for (int p = 0; p < SHIFT_PARTS; p++) {
        j.spans[p] = SHIFT_NO_SPAN;
        j.best[p] = SHIFT_NO_BEST;
    }
    if (pool) cmc_pool_run(pool, best_share, &j);
    else best_share(&j, 0, 1);
    const shift_span span = shift_all_spans(j.spans, SHIFT_PARTS);
    return shift_best_id(j.best, SHIFT_PARTS, &span, st->opts.unmapped_raw);
}

bool steering_shift_by_all(const cmc_steering *st, const double *alphas, const float *const *rows, const steering_row *kinds,
                           float *logits, steering_work *w) {
    cmc_pool *pool = st->host->rt->pool;
    shift_job j = {.st = st, .logits = logits, .in = w->in};
    if (cmc_pool_threads(pool) == 1 || !shift_has_parts() || st->guards.bounded ||
        steering_inputs(st, alphas, rows, kinds, w) != 1)
        return steering_shift(st, alphas, rows, kinds, logits, w);
    cmc_pool_run(pool, shift_share, &j);
    return true;
}

cmc_status cmc_steering_apply(const cmc_steering *st, float *logits, const float *const *delta_logits, cmc_error *err) {
    steering_work w = {0};
    double *alphas = cmc_alloc(st->n, sizeof *alphas);
    steering_row *kinds = cmc_alloc(st->n, sizeof *kinds);
    cmc_status s =
        alphas && kinds ? steering_work_new(st, &w, err) : cmc_fail_nomem(err, "the shift", st->n * sizeof *alphas);
    if (s == CMC_OK) {
        for (size_t k = 0; k < st->n; k++) {
            alphas[k] = st->deltas[k].alpha;
            kinds[k] = STEERING_ROW;
        }
        steering_shift(st, alphas, delta_logits, kinds, logits, &w);
    }
    steering_work_free(&w);
    free(alphas);
    free(kinds);
    return s;
}
