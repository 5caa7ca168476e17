/* The logits of every position of every text by llama.cpp, for logits_kl. bench/peers.sh builds it: plain C on llama.h.
 *
 *     llama_logits MODEL IDS [OUT] [THREADS]
 *
 * IDS: a text's token ids a line. OUT (without it, or as -, standard output): float32, [tokens][n_vocab], texts in order. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

enum { BATCH = 64 };   /* tokens, and so rows of logits, at a time */

static void die(const char *what) {
    fprintf(stderr, "llama_logits: %s\n", what);
    exit(1);
}

/* Progress is not wanted; errors are. */
static void on_log(enum ggml_log_level level, const char *text, void *user) {
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

/* The ids of a line, at most as many as it has characters. */
static int32_t parse_ids(const char *line, llama_token *ids, int32_t n_vocab) {
    int32_t n = 0;
    char *end;
    for (long id = strtol(line, &end, 10); end != line; line = end, id = strtol(line, &end, 10)) {
        if (id < 0 || id >= n_vocab) die("IDS: an id that is none of the model's");
        ids[n++] = (llama_token)id;
    }
    return n;
}

static struct llama_context *open_context(struct llama_model *m, int32_t n, int threads) {
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = (uint32_t)n;
    p.n_batch = BATCH;
    p.n_ubatch = BATCH;
    p.n_threads = threads;
    p.n_threads_batch = threads;
    struct llama_context *ctx = llama_init_from_model(m, p);
    if (!ctx) die("no context");
    return ctx;
}

static void one_text(struct llama_model *m, const llama_token *ids, int32_t n, int32_t n_vocab, int threads, FILE *to) {
    struct llama_context *ctx = open_context(m, n, threads);
    struct llama_batch b = llama_batch_init(BATCH, 0, 1);
    for (int32_t at = 0; at < n; at += b.n_tokens) {
        b.n_tokens = n - at < BATCH ? n - at : BATCH;
        for (int32_t i = 0; i < b.n_tokens; i++) {
            b.token[i] = ids[at + i];
            b.pos[i] = at + i;
            b.n_seq_id[i] = 1;
            b.seq_id[i][0] = 0;
            b.logits[i] = 1;
        }
        if (llama_decode(ctx, b) != 0) die("llama_decode failed");
        for (int32_t i = 0; i < b.n_tokens; i++)
            if (fwrite(llama_get_logits_ith(ctx, i), sizeof(float), (size_t)n_vocab, to) != (size_t)n_vocab) die("cannot write");
    }
    llama_batch_free(b);
    llama_free(ctx);
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 5) die("usage: llama_logits MODEL IDS [OUT] [THREADS]");
    const int threads = argc > 4 ? atoi(argv[4]) : 2;
    char *line = NULL;
    size_t cap = 0;
    FILE *in = fopen(argv[2], "r"), *to = argc > 3 && strcmp(argv[3], "-") != 0 ? fopen(argv[3], "wb") : stdout;
    if (!in) die("IDS: cannot be opened");
    if (!to) die("OUT: cannot be opened");
    llama_log_set(on_log, NULL);
    llama_backend_init();
    struct llama_model *m = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!m) die("MODEL: cannot be loaded");
    const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(m));
    while (getline(&line, &cap, in) > 0) {
        llama_token *ids = malloc((strlen(line) + 1) * sizeof *ids);
        if (!ids) die("out of memory");
        const int32_t n = parse_ids(line, ids, n_vocab);
        if (n) one_text(m, ids, n, n_vocab, threads, to);
        free(ids);
    }
    if (fclose(to) != 0) die("cannot write");
    free(line);
    fclose(in);
    llama_model_free(m);
    llama_backend_free();
    return 0;
}
