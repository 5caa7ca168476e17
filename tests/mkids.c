/* Ids of many texts with one vocabulary, for bench/hf_check.py: texts come on standard input, each after its length (32
 * bits, little-endian); a line of ids is given for each, or "! " and the message where there are none. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cmc.h"

/* False at the end of the input. */
static bool read_text(char **text, size_t *cap, size_t *n) {
    uint8_t len[4];
    void *v = *text;
    if (fread(len, 1, sizeof len, stdin) != sizeof len) {
        return false;
    }
    *n = (size_t)len[0] | (size_t)len[1] << 8 | (size_t)len[2] << 16 | (size_t)len[3] << 24;
    if (!cmc_grow(&v, cap, *n + 1, 1)) {
        return false;
    }
    *text = v;
    return fread(*text, 1, *n, stdin) == *n;
}

int main(int argc, char **argv) {
    unsigned flags = 0;
    cmc_vocab *v;
    cmc_error err = {0};
    char *text = NULL;
    size_t cap = 0, n;
    for (int i = 2; i < argc; i++) {
        flags |= strcmp(argv[i], "special") == 0 ? (unsigned)CMC_TOK_SPECIAL : 0;
        flags |= strcmp(argv[i], "bos") == 0 ? (unsigned)CMC_TOK_BOS : 0;
    }
    if (argc < 2 || cmc_vocab_open(argv[1], &v, &err) != CMC_OK) {
        fprintf(stderr, "mkids: %s\n", argc < 2 ? "usage: mkids FILE [special] [bos] < TEXTS" : err.message);
        return 1;
    }
    double start = cmc_now();
    while (read_text(&text, &cap, &n)) {
        cmc_ids ids = {0};
        if (cmc_tokenize(v, text, n, flags, &ids, &err) != CMC_OK) {
            printf("! %s", err.message);
        }
        for (size_t i = 0; i < ids.n; i++) {
            printf(i > 0 ? " %" PRId32 : "%" PRId32, ids.v[i]);
        }
        putchar('\n');
        cmc_ids_free(&ids);
    }
    fprintf(stderr, "%.3f s\n", cmc_now() - start);
    free(text);
    cmc_vocab_free(v);
    return 0;
}
