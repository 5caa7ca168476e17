/* Tiny hosts and deltas for tests of steering: opened by one call each. */
#ifndef CMC_TESTS_STEERED_H
#define CMC_TESTS_STEERED_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "runtime/prompt.h"
#include "runtime/stream.h"
#include "tests/tiny.h"

#define OK(expr) do { \
        cmc_status ok_status_ = (expr); \
        if (ok_status_ != CMC_OK) fail_msg("%s: status %d, %s", #expr, (int)ok_status_, err.message); \
    } while (0)

static inline cmc_model *steered_model(cmc_runtime *rt, const char *dir, const tiny_spec *spec) {
    cmc_error err = {0};
    cmc_model *m = NULL;
    const char *path = tiny_path(dir, "m.gguf");
    OK(tiny_write(spec, path, &err));
    OK(cmc_model_open(rt, path, &m, &err));
    remove(path); /* mapped already; each model is a file of its own */
    return m;
}

/* One user's turn and, where it is not NULL, an answer. */
static inline cmc_record steered_record(cmc_message m[2], char *question, char *answer) {
    m[0] = (cmc_message){CMC_USER, question, strlen(question)};
    if (answer) m[1] = (cmc_message){CMC_ASSISTANT, answer, strlen(answer)};
    return (cmc_record){.line = 1, .messages = m, .n_messages = answer ? 2 : 1};
}

/* xorshift64: the same numbers everywhere. */
static inline uint64_t steered_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}
#endif
