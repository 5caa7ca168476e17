/* The NLL of a data file's responses under one delta at many strengths, the host evaluated once: a JSON line a record.
 *
 *   alpha_grid HOST DELTA DATA.jsonl MAX_RECORDS ALPHA...
 *
 * {"n":1,"tokens":T,"bytes":B,"host":X,"nll":[...]}; last {"alphas":[...],"stored":A}, the strength that the delta's file gives for
 * this host. Template `plain` on both sides. bench/transfer_table.py makes tables of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cmc.h"

enum { MOST = 32 };

static void check(cmc_status s, const cmc_error *err) {
    if (s != CMC_OK) {
        fprintf(stderr, "alpha_grid: %s\n", err->message);
        exit(1);
    }
}

static void one_record(const cmc_steering *st, const cmc_record *r, size_t n, const double *alphas, size_t n_alphas) {
    cmc_error err = {0};
    cmc_score s = {0};
    double host = 0;
    check(cmc_score_record(st, r, alphas, n_alphas, &s, &err), &err);
    for (size_t i = 0; i < s.n; i++) host -= (double)s.host_logprob[i];
    printf("{\"n\":%zu,\"tokens\":%zu,\"bytes\":%zu,\"host\":%.6f,\"nll\":[", n, s.n, s.bytes, host);
    for (size_t a = 0; a < n_alphas; a++) {
        double nll = 0;
        for (size_t i = 0; i < s.n; i++) nll -= (double)s.logprob[a * s.n + i];
        printf("%s%.6f", a ? "," : "", nll);
    }
    puts("]}");
    cmc_score_free(&s);
}

int main(int argc, char **argv) {
    cmc_error err = {0};
    cmc_runtime *rt;
    cmc_model *host, *delta;
    cmc_steering *st;
    cmc_records data = {0};
    double alphas[MOST];
    size_t n_alphas = 0;
    if (argc < 6) {
        fputs("usage: alpha_grid HOST DELTA DATA.jsonl MAX_RECORDS ALPHA...\n", stderr);
        return 2;
    }
    for (int k = 5; k < argc && n_alphas < MOST; k++) alphas[n_alphas++] = strtod(argv[k], NULL);
    cmc_runtime_opts ro = {.threads = 0};
    cmc_steering_opts so = {.host_template = CMC_TMPL_PLAIN};
    check(cmc_runtime_open(&ro, &rt, &err), &err);
    check(cmc_model_open(rt, argv[1], &host, &err), &err);
    check(cmc_model_open(rt, argv[2], &delta, &err), &err);
    check(cmc_steering_new(host, &so, &st, &err), &err);
    check(cmc_steering_add(st, delta, NAN, NULL, CMC_TMPL_PLAIN, &err), &err);
    check(cmc_records_read(argv[3], true, &data, &err), &err);
    size_t most = strtoul(argv[4], NULL, 10);
    for (size_t i = 0; i < data.n && i < most; i++) one_record(st, &data.v[i], i + 1, alphas, n_alphas);
    printf("{\"alphas\":[");
    for (size_t a = 0; a < n_alphas; a++) printf("%s%g", a ? "," : "", alphas[a]);
    printf("],\"stored\":%.6g}\n", cmc_steering_alpha(st, 0));
    cmc_records_free(&data);
    cmc_steering_free(st);
    cmc_model_free(delta);
    cmc_model_free(host);
    cmc_runtime_free(rt);
    return 0;
}
