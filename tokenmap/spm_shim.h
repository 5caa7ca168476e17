/* libsentencepiece behind C: the only C++ of the library. No exception leaves it. */
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

#ifdef __cplusplus
}
#endif
#endif
