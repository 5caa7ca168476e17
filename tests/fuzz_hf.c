/* Fuzz target: a tokenizer.json of any bytes; a text tokenised with it, at once and as it grows. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tokenmap/hf.h"
#include "tokenmap/retok.h"

static void grow(const cmc_vocab *v, const char *text, size_t n) {
    retok *r;
    cmc_ids ids = {0};
    const int32_t *got = NULL;
    size_t n_got = 0, kept;
    if (retok_new(v, &r, NULL) != CMC_OK) return;
    bool ok = true;
    for (size_t i = 0; i < n && ok; i += 5) {
        ok = retok_append(r, (const uint8_t *)text + i, n - i < 5 ? n - i : 5, NULL) == CMC_OK &&
             retok_ids(r, &got, &n_got, &kept, NULL) == CMC_OK;
    }
    if (ok && cmc_tokenize(v, text, n, CMC_TOK_CONTINUE, &ids, NULL) == CMC_OK && retok_whole(r) &&
        (ids.n != n_got || (ids.n > 0 && memcmp(ids.v, got, ids.n * sizeof *got) != 0))) {
        abort();
    }
    cmc_ids_free(&ids);
    retok_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] =
        "a tiny \xe2\x96\x81 text's  12345 \n<s>\xff\xe4\xb8\xad\0<|im_end|> e\xcc\x81nd \xef\xbc\xa1";
    cmc_vocab *v;
    cmc_error err = {0};
    cmc_status s = vocab_from_hf(data, size, "fuzz", &v, &err);
    if ((s == CMC_OK) != (v != NULL) || (s != CMC_OK && !err.message[0])) abort();
    if (s != CMC_OK) return 0;
    for (unsigned flags = 0; flags < 8; flags++) {
        cmc_ids ids = {0};
        if (cmc_tokenize(v, text, sizeof text - 1, flags, &ids, &err) == CMC_OK) {
            for (size_t i = 0; i < ids.n; i++) {
                if (ids.v[i] < 0 || ids.v[i] >= cmc_vocab_size(v)) abort();
            }
        }
        cmc_ids_free(&ids);
    }
    grow(v, text, sizeof text - 1);
    cmc_vocab_free(v);
    return 0;
}
