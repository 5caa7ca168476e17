/* Fuzz target: a SentencePiece model from any bytes, and a text tokenised with it. */
#include <stdlib.h>

#include "base/error.h"
#include "tokenmap/vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "a  tiny \xe2\x96\x81 text\n<s>\xff\xe4\xb8\xad\0</s>";
    cmc_vocab *v;
    cmc_error err = {0};
    cmc_status s = vocab_from_spm_model(data, size, "fuzz", &v, &err);
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
    cmc_vocab_free(v);
    return 0;
}
