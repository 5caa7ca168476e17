/* What every fuzz target that reads a vocabulary then does with it. */
#ifndef CMC_TESTS_FUZZ_TEXT_H
#define CMC_TESTS_FUZZ_TEXT_H
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tokenmap/retok.h"

/* The text under every combination of flags: the ids are the vocabulary's. */
static inline void fuzz_tokenize(const cmc_vocab *v, const char *text, size_t n) {
    for (unsigned flags = 0; flags < 8; flags++) {
        cmc_ids ids = {0};
        cmc_error err = {0};
        if (cmc_tokenize(v, text, n, flags, &ids, &err) == CMC_OK) {
            for (size_t i = 0; i < ids.n; i++) {
                if (ids.v[i] < 0 || ids.v[i] >= cmc_vocab_size(v)) abort();
            }
        }
        cmc_ids_free(&ids);
    }
}

/* The text as it grows by `step` bytes at a time: it has the ids of the whole text, whatever the vocabulary. */
static inline void fuzz_grow(const cmc_vocab *v, const char *text, size_t n, size_t step) {
    retok *r;
    cmc_ids ids = {0};
    const int32_t *got = NULL;
    size_t n_got = 0, kept;
    if (retok_new(v, &r, NULL) != CMC_OK) return;
    bool ok = true;
    for (size_t i = 0; i < n && ok; i += step) {
        ok = retok_append(r, (const uint8_t *)text + i, n - i < step ? n - i : step, NULL) == CMC_OK &&
             retok_ids(r, &got, &n_got, &kept, NULL) == CMC_OK;
    }
    if (ok && cmc_tokenize(v, text, n, CMC_TOK_CONTINUE, &ids, NULL) == CMC_OK && retok_whole(r) &&
        (ids.n != n_got || (ids.n > 0 && memcmp(ids.v, got, ids.n * sizeof *got) != 0))) {
        abort();
    }
    cmc_ids_free(&ids);
    retok_free(r);
}
#endif
