/* Reads everything that an opened GGUF file offers, so that a sanitizer sees any read out of bounds. */
#ifndef CMC_TESTS_GGUF_WALK_H
#define CMC_TESTS_GGUF_WALK_H
#include "base/gguf.h"

/* A value that hangs on every byte read; aborts where the file breaks what gguf.h promises. */
uint64_t gguf_walk(const gguf *g);
#endif
