/* Whether a run may write where it is told to, asked before its work. */
#ifndef CMC_TINYLM_OUTPUT_H
#define CMC_TINYLM_OUTPUT_H
#include "base/error.h"

/* Paths that a run reads; NULLs among them are not given. */
typedef struct output_inputs { const char *const *v; size_t n; } output_inputs;

/* `path` can be written and is none of the inputs. */
cmc_status output_check(const char *path, const output_inputs *inputs, size_t n, cmc_error *err);
/* None of a run's own files is another of them: what comes out, the checkpoint, and the log where there is one. */
cmc_status output_check_own(const char *out, const char *checkpoint, const char *log, cmc_error *err);
/* Both are there, and one file. */
bool output_same_file(const char *a, const char *b);
#endif
