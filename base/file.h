/* Mapped files, whole reads, and writing that is whole or not at all. */
#ifndef CMC_BASE_FILE_H
#define CMC_BASE_FILE_H
#include "cmc.h"

typedef struct cmc_file {
    const uint8_t *data; size_t size; char *path;
    bool borrowed;   /* data is the caller's memory, not a map */
} cmc_file;

/* Maps a regular file read-only (an empty one gives size 0). Directories, pipes, missing files are refused by name. */
cmc_status cmc_file_map(const char *path, cmc_file *out, cmc_error *err);
void cmc_file_unmap(cmc_file *f);
/* Whole pages in [p, p + n) of a map no longer count as resident; when they are read again, the file gives them again. */
void cmc_map_forget(const void *p, size_t n);

/* A file that appears whole or not at all: written beside as PATH.tmp.PID, then fsync and rename. */
typedef struct cmc_writer cmc_writer;
cmc_status cmc_writer_open(const char *path, cmc_writer **out, cmc_error *err);
cmc_status cmc_writer_put(cmc_writer *w, const void *data, size_t n, cmc_error *err);
uint64_t cmc_writer_offset(const cmc_writer *w);
cmc_status cmc_writer_commit(cmc_writer *w, cmc_error *err); /* frees w, whatever happens; on failure nothing is left */
void cmc_writer_abort(cmc_writer *w);                        /* frees w, removes the part-written file; NULL is fine */

/* 128-bit content hash (XXH3) as 32 hex digits + NUL. */
void cmc_hash_hex(const void *data, size_t n, char out[40]);
typedef struct cmc_hasher cmc_hasher;
cmc_hasher *cmc_hasher_new(void);
void cmc_hasher_add(cmc_hasher *h, const void *data, size_t n);
void cmc_hasher_finish(cmc_hasher *h, char out[40]);           /* frees h */
#endif
