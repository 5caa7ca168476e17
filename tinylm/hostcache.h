/* The host's final-norm states of every response target, computed once and kept in a file: from then on the host costs
 * only its output matrix.
 *
 * The file (little-endian): a header of HOSTCACHE_HEADER bytes, text "key=value\n" lines that say what it holds,
 * zero-padded; one 64-bit XXH3 a group (0: not written yet); then the packed rows. A group is a fixed run of whole
 * examples that is evaluated as one batch, so that a fill that was interrupted goes on and ends with the same bits. */
#ifndef CMC_TINYLM_HOSTCACHE_H
#define CMC_TINYLM_HOSTCACHE_H
#include "tinylm/data.h"

enum { HOSTCACHE_HEADER = 4096 };

typedef struct hostcache {
    char *path;
    uint8_t *map; size_t size;
    const uint8_t *rows;      /* row i of the data set at rows + i * row_bytes */
    size_t row_bytes, n_rows;
    int fd;                   /* holds the lock */
} hostcache;

/* A row: a float that is a power of two, then n halves to be multiplied by it. So no state is too large for a half, and
 * none is rounded more than its row's largest is. */
size_t hostcache_row_bytes(size_t n);
void hostcache_pack(const float *x, uint8_t *row, size_t n);
void hostcache_unpack(const uint8_t *row, float *x, size_t n);

/* Called after every group; false: stop. */
typedef bool (*hostcache_progress)(void *user, size_t done_tokens, size_t all_tokens);

/* Opens the cache of this host and data set at `path`, evaluating what is missing. A file there that is a cache of
 * something else, or no cache, is refused. On CMC_E_CANCELLED what is done stays done. */
cmc_status hostcache_open(const char *path, cmc_model *host, const data_set *d, hostcache_progress cb, void *user,
                          hostcache *out, cmc_error *err);
/* What filling takes at its most beside the model and the file, and the file's size. */
cmc_status hostcache_bytes(cmc_model *host, const data_set *d, size_t *fill, size_t *file, cmc_error *err);
/* The file is there, is this cache, and every group of it is written; what is in them is not looked at. */
bool hostcache_whole(const char *path, cmc_model *host, const data_set *d);
/* How the runtime evaluates a batch: states of one way are not those of another. */
const char *hostcache_arithmetic(const cmc_runtime *rt);
void hostcache_close(hostcache *c);
#endif
