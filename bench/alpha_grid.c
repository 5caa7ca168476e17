/* The NLL of a data file's responses under many deltas, each at many strengths, the host evaluated once: a JSON line a record.
 *
 *   alpha_grid HOST DATA.jsonl FIRST:STEP:COUNT DELTA[:LESS]=ALPHA,... ...
 *
 * Records FIRST, FIRST + STEP, ... (from 1), COUNT of them. DELTA:LESS is a pair: what the second says is taken away at the same
 * strength. {"n":1,"tokens":T,"bytes":B,"host":X,"nll":[[...],...],"unaligned":[{"tokens":T,"host":X,"nll":[...]},...]}, a list
 * and an object for each delta. A token is unaligned where the delta's tokens of the text before it do not begin those of the
 * whole response, so that the delta reads others than it will have read in the end; a pair's where one's is. Template `plain`
 * on all sides. bench/transfer_table.py makes tables of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tinylm/align.h"

enum { MOST_DELTAS = 64, MOST_ALPHAS = 32 };

typedef struct arm {
    size_t first, n_models, n;          /* its models among the steering's deltas; its strengths */
    double alpha[MOST_ALPHAS];
} arm;

typedef struct grid {
    cmc_runtime *rt;
    cmc_model *host, *model[MOST_DELTAS];
    size_t alike[MOST_DELTAS];          /* the first model with this one's vocabulary */
    cmc_steering *st;
    cmc_records data;
    arm arm[MOST_DELTAS];
    size_t n_models, n_arms, n_sets;
    double *sets;                       /* [n_sets][n_models] */
} grid;

static void check(cmc_status s, const cmc_error *err) {
    if (s != CMC_OK) {
        fprintf(stderr, "alpha_grid: %s\n", err->message);
        exit(1);
    }
}

static void add_model(grid *g, const char *path) {
    cmc_error err = {0};
    if (g->n_models == MOST_DELTAS) {
        fputs("alpha_grid: too many deltas\n", stderr);
        exit(2);
    }
    check(cmc_model_open(g->rt, path, &g->model[g->n_models], &err), &err);
    check(cmc_steering_add(g->st, g->model[g->n_models], NAN, NULL, CMC_TMPL_PLAIN, &err), &err);
    const cmc_vocab *v = cmc_model_vocab(g->model[g->n_models]);
    while (!cmc_vocab_equal(cmc_model_vocab(g->model[g->alike[g->n_models]]), v)) g->alike[g->n_models]++;
    g->n_models++;
}

/* DELTA[:LESS]=ALPHA,... */
static void add_arm(grid *g, char *text) {
    arm *a = &g->arm[g->n_arms++];
    char *alphas = strrchr(text, '='), *less, *rest = NULL;
    if (!alphas) {
        fprintf(stderr, "alpha_grid: %s: no =ALPHA,...\n", text);
        exit(2);
    }
    *alphas++ = '\0';
    less = strchr(text, ':');
    if (less) *less++ = '\0';
    a->first = g->n_models;
    add_model(g, text);
    if (less) add_model(g, less);
    a->n_models = g->n_models - a->first;
    for (char *s = strtok_r(alphas, ",", &rest); s && a->n < MOST_ALPHAS; s = strtok_r(NULL, ",", &rest))
        a->alpha[a->n++] = strtod(s, NULL);
    g->n_sets += a->n;
}

static void make_sets(grid *g) {
    size_t set = 0;
    g->sets = calloc(g->n_sets * g->n_models, sizeof *g->sets);
    if (!g->sets) exit(1);
    for (size_t k = 0; k < g->n_arms; k++) {
        const arm *a = &g->arm[k];
        for (size_t i = 0; i < a->n; i++, set++) {
            g->sets[set * g->n_models + a->first] = a->alpha[i];
            if (a->n_models == 2) g->sets[set * g->n_models + a->first + 1] = -a->alpha[i];
        }
    }
}

/* unaligned[ids.n]: 1 for the host's tokens that are it for a delta of vocabulary v. */
static void mark_unaligned(const grid *g, const cmc_record *r, const cmc_vocab *v, uint8_t *unaligned) {
    cmc_error err = {0};
    cmc_rendered h;
    const cmc_vocab *host = cmc_model_vocab(g->host);
    if (cmc_vocab_equal(host, v)) return;
    check(cmc_render(host, CMC_TMPL_PLAIN, r, false, &h, &err), &err);
    for (size_t k = 0; k < h.n_spans; k++) {
        align_span a;
        const align_in in = align_of((align_side){host, CMC_TMPL_PLAIN}, (align_side){v, CMC_TMPL_PLAIN}, r, &h, k);
        check(align_span_make(&in, &a, &err), &err);
        for (size_t i = 0; i < a.n; i++) unaligned[h.spans[k].first + i] = a.place[i].kind == ALIGN_PREFIX;
        align_span_free(&a);
    }
    cmc_rendered_free(&h);
}

/* For every model; [n_models][ids.n], the caller's to free. */
static uint8_t *find_unaligned(const grid *g, const cmc_record *r, const cmc_score *s) {
    uint8_t *all = cmc_calloc(g->n_models * s->ids.n, 1);
    if (!all) exit(1);
    for (size_t k = 0; k < g->n_models; k++) {
        uint8_t *own = all + k * s->ids.n;
        if (g->alike[k] < k) memcpy(own, all + g->alike[k] * s->ids.n, s->ids.n);
        else mark_unaligned(g, r, cmc_model_vocab(g->model[k]), own);
    }
    return all;
}

/* The sum of -logprob, over the tokens that are marked in one of the arm's models where `all` is not NULL. */
static double sum_nll(const cmc_score *s, const float *logprob, const arm *a, const uint8_t *all, size_t *n) {
    double nll = 0;
    *n = 0;
    for (size_t i = 0; i < s->n; i++) {
        bool counts = !all;
        for (size_t k = 0; all && k < a->n_models; k++) counts = counts || all[(a->first + k) * s->ids.n + s->pos[i]];
        nll -= counts ? (double)logprob[i] : 0.0;
        *n += counts;
    }
    return nll;
}

/* The arm's list, over all tokens or over those that are unaligned. */
static void put_list(const cmc_score *s, const arm *a, size_t set, const uint8_t *all) {
    size_t n;
    for (size_t i = 0; i < a->n; i++)
        printf("%s%.6f", i ? "," : "[", sum_nll(s, s->logprob + (set + i) * s->n, a, all, &n));
    putchar(']');
}

static void one_record(const grid *g, size_t n) {
    cmc_error err = {0};
    cmc_score s = {0};
    const cmc_record *r = &g->data.v[n - 1];
    size_t set = 0, count;
    check(cmc_score_record(g->st, r, g->sets, g->n_sets, &s, &err), &err);
    uint8_t *all = find_unaligned(g, r, &s);
    printf("{\"n\":%zu,\"tokens\":%zu,\"bytes\":%zu,\"host\":%.6f,\"nll\":[", n, s.n, s.bytes,
           sum_nll(&s, s.host_logprob, NULL, NULL, &count));
    for (size_t k = 0; k < g->n_arms; set += g->arm[k++].n) {
        fputs(k ? "," : "", stdout);
        put_list(&s, &g->arm[k], set, NULL);
    }
    fputs("],\"unaligned\":[", stdout);
    set = 0;
    for (size_t k = 0; k < g->n_arms; set += g->arm[k++].n) {
        double host = sum_nll(&s, s.host_logprob, &g->arm[k], all, &count);
        printf("%s{\"tokens\":%zu,\"host\":%.6f,\"nll\":", k ? "," : "", count, host);
        put_list(&s, &g->arm[k], set, all);
        putchar('}');
    }
    puts("]}");
    free(all);
    cmc_score_free(&s);
}

static void close_all(grid *g) {
    free(g->sets);
    cmc_records_free(&g->data);
    cmc_steering_free(g->st);
    for (size_t k = 0; k < g->n_models; k++) cmc_model_free(g->model[k]);
    cmc_model_free(g->host);
    cmc_runtime_free(g->rt);
}

int main(int argc, char **argv) {
    cmc_error err = {0};
    static grid g;
    size_t first, step, count;
    if (argc < 5 || argc - 4 > MOST_DELTAS || sscanf(argv[3], "%zu:%zu:%zu", &first, &step, &count) != 3 || !first || !step) {
        fputs("usage: alpha_grid HOST DATA.jsonl FIRST:STEP:COUNT DELTA[:LESS]=ALPHA,... ...\n", stderr);
        return 2;
    }
    cmc_runtime_opts ro = {.threads = 0};
    cmc_steering_opts so = {.host_template = CMC_TMPL_PLAIN};
    check(cmc_runtime_open(&ro, &g.rt, &err), &err);
    check(cmc_model_open(g.rt, argv[1], &g.host, &err), &err);
    check(cmc_steering_new(g.host, &so, &g.st, &err), &err);
    for (int k = 4; k < argc; k++) add_arm(&g, argv[k]);
    make_sets(&g);
    check(cmc_records_read(argv[2], true, &g.data, &err), &err);
    for (size_t i = 0, n = first; i < count && n <= g.data.n; i++, n += step) one_record(&g, n);
    close_all(&g);
    return 0;
}
