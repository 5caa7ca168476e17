/* Fuzz target: the vocabulary of a GGUF file of any bytes; a text tokenised with it, at once and as it grows. */
#include <stdlib.h>

#include "base/error.h"
#include "tests/fuzz_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "a tiny \xe2\x96\x81 text's  12345 \n<s>\xff\xe4\xb8\xad\0<|im_end|> end";
    gguf *g;
    cmc_vocab *v;
    cmc_error err = {0};
    if (gguf_open_memory(data, size, "fuzz", &g, &err) != CMC_OK) return 0;
    cmc_status s = vocab_from_gguf(g, &v, &err);
    gguf_free(g); /* the vocabulary keeps nothing of it */
    if ((s == CMC_OK) != (v != NULL) || (s != CMC_OK && !err.message[0])) abort();
    if (s != CMC_OK) return 0;
    fuzz_tokenize(v, text, sizeof text - 1);
    fuzz_grow(v, text, sizeof text - 1, 3);
    cmc_vocab_free(v);
    return 0;
}
