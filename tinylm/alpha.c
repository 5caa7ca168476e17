/* The search for each host's strength on held-out text.
 *
 * For one host the NLL is convex in alpha (a log-sum-exp of something linear in alpha, less something linear), so a
 * coarse grid and a finer one around its best find the optimum. The strength for a host that nobody measured is the mean of
 * the further hosts' where some were measured, else the mean of the training hosts': in docs/training.md that keeps more of
 * what a delta can gain on a host it never saw than any smaller share of it does. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "tinylm/train.h"

enum { ALPHA_RECORDS = 200 };

static const double alpha_coarse[] = {0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0};
static const double alpha_other[] = {0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 2.0};

static size_t alpha_best(const double *nll, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (nll[i] < nll[best])
            best = i;
    return best;
}

static void alpha_entry(cmc_alpha_entry *e, const cmc_model *host, double alpha, double gain) {
    memset(e, 0, sizeof *e);
    snprintf(e->host_hash, sizeof e->host_hash, "%s", cmc_model_hash(host));
    snprintf(e->host_name, sizeof e->host_name, "%s", cmc_model_name(host) ? cmc_model_name(host) : "");
    e->alpha = alpha;
    e->gain = gain;
}

/* A host that was trained beside, through the trainer's own states. */
static cmc_status alpha_training_host(train *t, train_host *h, cmc_alpha_entry *e, cmc_error *err) {
    enum { N = sizeof alpha_coarse / sizeof *alpha_coarse, FINE = 13 };
    double nll[N], fine[FINE], fine_nll[FINE];
    if (h->data.n_held == 0) {
        alpha_entry(e, h->model, t->o.alpha, 0.0);
        return CMC_OK;
    }
    CMC_TRY(train_held_out(t, h, alpha_coarse, N, nll, err));
    size_t b = alpha_best(nll, N);
    double lo = alpha_coarse[b > 0 ? b - 1 : 0], hi = alpha_coarse[b + 1 < N ? b + 1 : N - 1];
    for (int i = 0; i < FINE; i++) /* both ends again, and eleven between */
        fine[i] = lo + (hi - lo) * i / (FINE - 1);
    CMC_TRY(train_held_out(t, h, fine, FINE, fine_nll, err));
    size_t f = alpha_best(fine_nll, FINE);
    alpha_entry(e, h->model, fine[f], nll[0] - fine_nll[f]);
    return CMC_OK;
}

/* Adds the record's NLL under every strength (and the host's own, last) to sum. A record that does not fit is passed
 * over. */
static cmc_status alpha_score(const cmc_steering *st, const cmc_record *r, double *sum, size_t *tokens,
                              cmc_error *err) {
    size_t n = sizeof alpha_other / sizeof *alpha_other;
    cmc_score s = {0};
    cmc_status rc = cmc_score_record(st, r, alpha_other, n, &s, err);
    if (rc == CMC_E_RANGE)
        return CMC_OK;
    CMC_TRY(rc);
    for (size_t a = 0; a < n; a++)
        for (size_t i = 0; i < s.n; i++)
            sum[a] -= (double)s.logprob[a * s.n + i];
    for (size_t i = 0; i < s.n; i++)
        sum[n] -= (double)s.host_logprob[i];
    *tokens += s.n;
    cmc_score_free(&s);
    return CMC_OK;
}

static cmc_status alpha_other_scores(train *t, const cmc_steering *st, size_t host, double *sum, size_t *tokens,
                                     cmc_error *err) {
    size_t n = train_data(t)->n_held < ALPHA_RECORDS ? train_data(t)->n_held : ALPHA_RECORDS;
    for (size_t i = 0; i < n; i++) {
        const data_example *x = &train_data(t)->v[train_data(t)->held[i * train_data(t)->n_held / n]]; /* spread over all of them */
        CMC_TRY(alpha_score(st, &train_data(t)->records.v[x->record], sum, tokens, err));
        cmc_train_progress p = train_progress(t, "alpha");
        p.step = (int64_t)(host * n + i + 1);
        p.steps = (int64_t)(t->o.n_alpha_hosts * n);
        CMC_TRY(train_report(t, &p, err));
    }
    return CMC_OK;
}

static cmc_status alpha_other_host(train *t, const char *delta_path, size_t host, cmc_alpha_entry *e, cmc_error *err) {
    enum { N = sizeof alpha_other / sizeof *alpha_other };
    cmc_model *m = NULL, *delta = NULL;
    cmc_steering *steering = NULL;
    double sum[N + 1] = {0};
    size_t tokens = 0;
    cmc_steering_opts so = {.host_template = CMC_TMPL_AUTO};
    cmc_status st = cmc_model_open(t->rt, t->o.alpha_hosts[host], &m, err);
    if (st == CMC_OK)
        st = cmc_model_open(t->rt, delta_path, &delta, err);
    if (st == CMC_OK)
        st = cmc_steering_new(m, &so, &steering, err);
    if (st == CMC_OK)
        st = cmc_steering_add(steering, delta, 1.0, NULL, t->o.delta_template, err);
    if (st == CMC_OK)
        st = alpha_other_scores(t, steering, host, sum, &tokens, err);
    if (st == CMC_OK && tokens > 0) {
        size_t b = alpha_best(sum, N + 1);
        alpha_entry(e, m, b < N ? alpha_other[b] : 0.0, (sum[N] - sum[b]) / (double)tokens);
    } else if (st == CMC_OK) {
        alpha_entry(e, m, t->alphas[0].alpha, 0.0);
    }
    cmc_steering_free(steering);
    cmc_model_free(delta);
    cmc_model_free(m);
    return st;
}

/* Further hosts score a delta as it will be stored: a file of its own for the time of the search. */
static cmc_status alpha_other_hosts(train *t, cmc_error *err) {
    char *path = NULL;
    if (asprintf(&path, "%s.alpha.%ld", t->o.out_path, (long)getpid()) < 0)
        return cmc_fail_nomem(err, "a path", strlen(t->o.out_path));
    cmc_delta_info info = train_info(t);
    cmc_status st = body_save(&t->body, path, &t->p, t->best, t->save_type, train_context(t), &t->vocab, &info, err);
    double sum = 0.0;
    for (size_t i = 0; i < t->o.n_alpha_hosts && st == CMC_OK; i++) {
        st = alpha_other_host(t, path, i, &t->alphas[t->n_hosts + i], err);
        sum += t->alphas[t->n_hosts + i].alpha;
    }
    unlink(path);
    free(path);
    if (st == CMC_OK) {
        t->n_alphas += t->o.n_alpha_hosts;
        t->alpha_default = sum / (double)t->o.n_alpha_hosts;
    }
    return st;
}

cmc_status alpha_search(train *t, cmc_error *err) {
    size_t n = t->n_hosts + t->o.n_alpha_hosts;
    double sum = 0.0;
    t->alphas = cmc_calloc(n, sizeof *t->alphas);
    if (!t->alphas)
        return cmc_fail_nomem(err, "the table of strengths", n * sizeof *t->alphas);
    memcpy(t->body.w, t->best, t->body.n * sizeof(float));
    for (size_t k = 0; k < t->n_hosts; k++) {
        CMC_TRY(alpha_training_host(t, &t->hosts[k], &t->alphas[k], err));
        sum += t->alphas[k].alpha;
    }
    for (size_t k = 0; k < t->n_hosts; k++) /* what comes now has no more use for them, but for their memory */
        loss_free(&t->hosts[k].loss);
    cmc_mem_give_back();
    t->n_alphas = t->n_hosts;
    t->alpha_default = sum / (double)t->n_hosts;
    return t->o.n_alpha_hosts > 0 ? alpha_other_hosts(t, err) : CMC_OK;
}
