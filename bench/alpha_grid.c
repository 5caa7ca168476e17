/* The NLL of a data file's responses under many deltas, each at many strengths, the host evaluated once: a JSON line a record.
 *
 *   alpha_grid HOST DATA.jsonl FIRST:STEP:COUNT DELTA[:LESS]=ALPHA,... ...
 *
 * Records FIRST, FIRST + STEP, ... (from 1), COUNT of them. DELTA:LESS is a pair: what the second says is taken away at the same
 * strength. {"n":1,"tokens":T,"bytes":B,"host":X,"nll":[[...],...]}, a list for each delta. Template `plain` on all sides.
 * bench/transfer_table.py makes tables of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmc.h"

enum { MOST_DELTAS = 64, MOST_ALPHAS = 32 };

typedef struct arm {
    size_t first, n_models, n;          /* its models among the steering's deltas; its strengths */
    double alpha[MOST_ALPHAS];
} arm;

typedef struct grid {
    cmc_runtime *rt;
    cmc_model *host, *model[MOST_DELTAS];
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

static void one_record(const grid *g, size_t n) {
    cmc_error err = {0};
    cmc_score s = {0};
    double host = 0;
    size_t set = 0;
    check(cmc_score_record(g->st, &g->data.v[n - 1], g->sets, g->n_sets, &s, &err), &err);
    for (size_t i = 0; i < s.n; i++) host -= (double)s.host_logprob[i];
    printf("{\"n\":%zu,\"tokens\":%zu,\"bytes\":%zu,\"host\":%.6f,\"nll\":[", n, s.n, s.bytes, host);
    for (size_t k = 0; k < g->n_arms; k++) {
        fputs(k ? ",[" : "[", stdout);
        for (size_t a = 0; a < g->arm[k].n; a++, set++) {
            double nll = 0;
            for (size_t i = 0; i < s.n; i++) nll -= (double)s.logprob[set * s.n + i];
            printf("%s%.6f", a ? "," : "", nll);
        }
        putchar(']');
    }
    puts("]}");
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
