/* The logits of every position of every text by llama.cpp, for logits_kl. bench/peers.sh builds it: plain C on llama.h.
 *
 *     llama_logits MODEL IDS [OUT [THREADS [BATCH]]]
 *
 * IDS: a text's token ids a line. OUT (without it, or as -, standard output): float32, [tokens][n_vocab], texts in order.
 * BATCH: tokens that are evaluated at a time, at most and without it 64. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama.h"

enum { MOST = 64 };   /* tokens, and so rows of logits, at a time */

typedef struct bench { struct llama_model *m; int threads; int32_t batch, n_vocab; FILE *to; } bench;

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

static struct llama_context *open_context(const bench *b, int32_t n) {
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = (uint32_t)n;
    p.n_batch = MOST;
    p.n_ubatch = MOST;
    p.n_threads = b->threads;
    p.n_threads_batch = b->threads;
    struct llama_context *ctx = llama_init_from_model(b->m, p);
    if (!ctx) die("no context");
    return ctx;
}

static void one_text(const bench *b, const llama_token *ids, int32_t n) {
    struct llama_context *ctx = open_context(b, n);
    struct llama_batch in = llama_batch_init(MOST, 0, 1);
    for (int32_t at = 0; at < n; at += in.n_tokens) {
        in.n_tokens = n - at < b->batch ? n - at : b->batch;
        for (int32_t i = 0; i < in.n_tokens; i++) {
            in.token[i] = ids[at + i];
            in.pos[i] = at + i;
            in.n_seq_id[i] = 1;
            in.seq_id[i][0] = 0;
            in.logits[i] = 1;
        }
        if (llama_decode(ctx, in) != 0) die("llama_decode failed");
        for (int32_t i = 0; i < in.n_tokens; i++) {
            const size_t row = (size_t)b->n_vocab;
            if (fwrite(llama_get_logits_ith(ctx, i), sizeof(float), row, b->to) != row) die("cannot write");
        }
    }
    llama_batch_free(in);
    llama_free(ctx);
}

static void all_texts(const bench *b, FILE *in) {
    char *line = NULL;
    size_t cap = 0;
    while (getline(&line, &cap, in) > 0) {
        llama_token *ids = malloc((strlen(line) + 1) * sizeof *ids);
        if (!ids) die("out of memory");
        const int32_t n = parse_ids(line, ids, b->n_vocab);
        if (n) one_text(b, ids, n);
        free(ids);
    }
    free(line);
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 6) die("usage: llama_logits MODEL IDS [OUT [THREADS [BATCH]]]");
    bench b = {.threads = argc > 4 ? atoi(argv[4]) : 2, .batch = argc > 5 ? atoi(argv[5]) : MOST, .to = stdout};
    FILE *in = fopen(argv[2], "r");
    if (!in) die("IDS: cannot be opened");
    if (b.threads < 1 || b.batch < 1 || b.batch > MOST) die("THREADS: at least 1; BATCH: 1 to 64");
    if (argc > 3 && strcmp(argv[3], "-") != 0 && !(b.to = fopen(argv[3], "wb"))) die("OUT: cannot be opened");
    llama_log_set(on_log, NULL);
    llama_backend_init();
    b.m = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!b.m) die("MODEL: cannot be loaded");
    b.n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(b.m));
    all_texts(&b, in);
    if (fclose(b.to) != 0) die("cannot write");
    fclose(in);
    llama_model_free(b.m);
    llama_backend_free();
    return 0;
}
