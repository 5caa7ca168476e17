/* How far the fast path's predictions are from the exact path's, and another program's from them: a JSON line.
 *
 *     logits_kl MODEL IDS [OTHER [THREADS [BATCH]]]
 *
 * IDS: a text's token ids a line. OTHER: logits of all positions of all texts, float32, [tokens][n_vocab], as llama_logits
 * writes them; - is standard input. BATCH: tokens that the fast path takes at a time; 0, as without it: a whole text; 1: as
 * in decoding, with the logits that a token is chosen by. Each figure is over all positions: the mean and the largest KL divergence from the exact path in nats, and how often the most
 * likely token is the same. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { BLOCK = 32 };   /* rows of logits at a time */

typedef struct figures { double sum, largest; size_t same; } figures;
typedef struct side { cmc_runtime *rt; cmc_model *m; float *hidden, *logits; } side;
typedef struct kl { side exact, fast; float *other; FILE *from; size_t batch, n_vocab, n_embd, n_rows; figures f[2]; } kl;

static void die(const char *what) {
    fprintf(stderr, "logits_kl: %s\n", what);
    exit(1);
}

static void check(cmc_status st, const cmc_error *err) {
    if (st != CMC_OK) die(err->message);
}

static void *need(void *p) {
    if (!p) die("out of memory");
    return p;
}

static void open_side(side *s, const char *path, bool exact, int threads) {
    cmc_error err = {0};
    check(cmc_runtime_open(&(cmc_runtime_opts){.threads = threads, .exact = exact}, &s->rt, &err), &err);
    check(cmc_model_open(s->rt, path, &s->m, &err), &err);
    s->logits = need(cmc_alloc(BLOCK * (size_t)cmc_model_n_vocab(s->m), sizeof *s->logits));
}

static void close_side(side *s) {
    free(s->logits);
    cmc_model_free(s->m);
    cmc_runtime_free(s->rt);
}

/* The logarithm of the sum of exponentials; *best: the greatest's place. */
static double log_sum(const float *v, size_t n, size_t *best) {
    double sum = 0;
    *best = 0;
    for (size_t i = 1; i < n; i++)
        if (v[i] > v[*best]) *best = i;
    for (size_t i = 0; i < n; i++) sum += exp((double)v[i] - (double)v[*best]);
    return (double)v[*best] + log(sum);
}

/* KL(p | q) of two rows of logits. */
static void compare(figures *f, const float *p, const float *q, size_t n) {
    size_t best_p, best_q;
    const double lp = log_sum(p, n, &best_p), lq = log_sum(q, n, &best_q);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double log_p = (double)p[i] - lp;
        sum += exp(log_p) * (log_p - ((double)q[i] - lq));
    }
    if (!isfinite(sum)) die("a logit is not finite");
    f->sum += sum;
    f->largest = sum > f->largest ? sum : f->largest;
    f->same += best_p == best_q;
}

static cmc_session *new_session(const side *s, size_t n) {
    cmc_error err = {0};
    cmc_session *session;
    check(cmc_session_new(s->m, (int32_t)n, &session, &err), &err);
    return session;
}

/* The next tokens of ids[0..n), and a row of each. */
static void eval_rows(const side *s, cmc_session *session, const int32_t *ids, size_t n, cmc_want want, size_t rows, float *out) {
    cmc_error err = {0};
    check(cmc_session_sync(session, ids, n, &err), &err);
    check(cmc_eval(s->m, &(cmc_eval_item){session, want, rows, out}, 1, &err), &err);
}

/* The hidden states of a text that is evaluated `batch` tokens at a time. */
static void eval_hidden(side *s, const int32_t *ids, size_t n, size_t batch, size_t n_embd) {
    cmc_session *session = new_session(s, n);
    s->hidden = need(cmc_alloc(n * n_embd, sizeof *s->hidden));
    for (size_t at = 0, rows; at < n; at += rows) {
        rows = n - at < batch ? n - at : batch;
        eval_rows(s, session, ids, at + rows, CMC_WANT_HIDDEN, rows, s->hidden + at * n_embd);
    }
    cmc_session_free(session);
}

static void read_other(kl *k, size_t rows) {
    if (fread(k->other, sizeof *k->other * k->n_vocab, rows, k->from) != rows) die("OTHER: fewer logits than tokens");
}

static void one_text(kl *k, const int32_t *ids, size_t n) {
    cmc_error err = {0};
    const size_t v = k->n_vocab, e = k->n_embd;
    cmc_session *decoding = k->batch == 1 ? new_session(&k->fast, n) : NULL;
    eval_hidden(&k->exact, ids, n, n, e);
    if (!decoding) eval_hidden(&k->fast, ids, n, k->batch ? k->batch : n, e);
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t rows = n - at < BLOCK ? n - at : BLOCK;
        check(cmc_model_logits(k->exact.m, k->exact.hidden + at * e, rows, k->exact.logits, &err), &err);
        for (size_t i = 0; decoding && i < rows; i++)
            eval_rows(&k->fast, decoding, ids, at + i + 1, CMC_WANT_SAMPLING, 1, k->fast.logits + i * v);
        if (!decoding) check(cmc_model_logits(k->fast.m, k->fast.hidden + at * e, rows, k->fast.logits, &err), &err);
        if (k->from) read_other(k, rows);
        for (size_t i = 0; i < rows; i++) {
            compare(&k->f[0], k->exact.logits + i * v, k->fast.logits + i * v, v);
            if (k->from) compare(&k->f[1], k->exact.logits + i * v, k->other + i * v, v);
        }
    }
    k->n_rows += n;
    cmc_session_free(decoding);
    free(k->exact.hidden);
    free(k->fast.hidden);
    k->exact.hidden = k->fast.hidden = NULL;
}

static void all_texts(kl *k, const char *path) {
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t cap = 0;
    if (!f) die("IDS: cannot be opened");
    while (getline(&line, &cap, f) > 0) {
        int32_t *ids = need(cmc_alloc(strlen(line), sizeof *ids));   /* more than there are numbers */
        size_t n = 0;
        char *rest = line, *end;
        for (long id = strtol(rest, &end, 10); end != rest; id = strtol(rest = end, &end, 10)) ids[n++] = (int32_t)id;
        if (n) one_text(k, ids, n);
        free(ids);
    }
    free(line);
    fclose(f);
    if (!k->n_rows) die("IDS: no ids");
    if (k->from && fgetc(k->from) != EOF) die("OTHER: more logits than tokens");
}

static void print_figures(const kl *k, const char *name, const figures *f) {
    printf(",\"%s\":{\"mean\":%.9g,\"largest\":%.9g,\"same\":%.6f}", name, f->sum / (double)k->n_rows, f->largest,
           (double)f->same / (double)k->n_rows);
}

int main(int argc, char **argv) {
    static kl k;
    if (argc < 3 || argc > 6) die("usage: logits_kl MODEL IDS [OTHER [THREADS [BATCH]]]");
    const int threads = argc > 4 ? atoi(argv[4]) : 0;
    open_side(&k.exact, argv[1], true, threads);
    open_side(&k.fast, argv[1], false, threads);
    k.batch = argc > 5 ? strtoul(argv[5], NULL, 10) : 0;
    k.n_vocab = (size_t)cmc_model_n_vocab(k.exact.m);
    k.n_embd = (size_t)cmc_model_n_embd(k.exact.m);
    if (argc > 3) {
        k.from = strcmp(argv[3], "-") == 0 ? stdin : fopen(argv[3], "rb");
        if (!k.from) die("OTHER: cannot be opened");
        k.other = need(cmc_alloc(BLOCK * k.n_vocab, sizeof *k.other));
    }
    all_texts(&k, argv[2]);
    printf("{\"tokens\":%zu", k.n_rows);
    print_figures(&k, "fast", &k.f[0]);
    if (k.from) print_figures(&k, "other", &k.f[1]);
    puts("}");
    if (k.from && k.from != stdin) fclose(k.from);
    free(k.other);
    close_side(&k.exact);
    close_side(&k.fast);
    return 0;
}
