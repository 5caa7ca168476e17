/* libsentencepiece and its trainer behind C: the only C++ of the library. No exception leaves it. */
#ifndef CMC_TOKENMAP_SPM_SHIM_H
#define CMC_TOKENMAP_SPM_SHIM_H
#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct spm_shim spm_shim;
/* From serialised model bytes (borrowed until it returns). NULL on failure, with what went wrong in msg[msg_size]. */
spm_shim *spm_shim_load(const void *data, size_t size, char *msg, size_t msg_size);
void spm_shim_free(spm_shim *s);
/* Gives the pieces of text[0..n) in order: id, and the bytes text[begin..end) that it stands for (unknown characters in
 * a row come as one piece). False on failure, and where emit gives false (msg empty then). Safe from several threads.
 */
typedef bool (*spm_shim_emit)(void *user, int id, size_t begin, size_t end);
bool spm_shim_encode(const spm_shim *s, const char *text, size_t n, bool want_spans, spm_shim_emit emit, void *user,
                     char *msg, size_t msg_size);

/* Training. Sentences are valid UTF-8 of at most max_sentence bytes; pieces are learnt within them. The normaliser is
 * the identity: no space is added, removed or joined with another. Ids: 0 unknown, 1 BOS, 2 EOS, then the control and
 * user symbols, the 256 bytes, and the pieces. The same sentences in the same order give the same model. */
typedef struct spm_shim_training {
    int size;                      /* tokens at most */
    bool unigram;                  /* else BPE */
    bool split_digits;             /* every digit is a piece of its own */
    double coverage;               /* share of the text's characters that get a piece; the others are bytes */
    size_t max_sentence;
    const char *control, *user;    /* symbols, comma-separated with CSV's quotes; "": none */
} spm_shim_training;
/* The next sentence, borrowed until the next call; false where there is none. */
typedef bool (*spm_shim_next)(void *user, const char **s, size_t *n);
/* *model is malloc'd: a serialised model. False on failure, with what went wrong in msg. */
bool spm_shim_train(const spm_shim_training *t, spm_shim_next next, void *user, void **model, size_t *size, char *msg,
                    size_t msg_size);

#ifdef __cplusplus
}
#endif
#endif
