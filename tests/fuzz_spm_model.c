/* Fuzz target: a SentencePiece model from any bytes, and a text tokenised with it. */
#include <stdlib.h>

#include "base/error.h"
#include "tests/fuzz_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "a  tiny \xe2\x96\x81 text\n<s>\xff\xe4\xb8\xad\0</s>";
    cmc_vocab *v;
    cmc_error err = {0};
    cmc_status s = vocab_from_spm_model(data, size, "fuzz", &v, &err);
    if ((s == CMC_OK) != (v != NULL) || (s != CMC_OK && !err.message[0])) abort();
    if (s != CMC_OK) return 0;
    fuzz_tokenize(v, text, sizeof text - 1);
    cmc_vocab_free(v);
    return 0;
}
