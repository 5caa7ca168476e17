/* Checked allocation: sizes are products that come from files, so each is checked for overflow. NULL on failure. */
#ifndef CMC_BASE_MEM_H
#define CMC_BASE_MEM_H
#include "cmc.h"

void *cmc_alloc(size_t n, size_t size);              /* uninitialised n * size bytes; 1 byte where that is 0 */
void *cmc_calloc(size_t n, size_t size);
void *cmc_alloc_aligned(size_t n, size_t size);      /* 64-byte aligned, for kernels; free() frees it */
void *cmc_alloc_large(size_t bytes);                 /* in large pages, where the system has any; free() frees it */
void *cmc_realloc(void *p, size_t n, size_t size);
char *cmc_strndup(const char *s, size_t n);
/* Grows *v (elements of `size` bytes, *cap of them) so that it holds at least `need`; false when memory is out. */
bool cmc_grow(void **v, size_t *cap, size_t need, size_t size);
cmc_status cmc_ids_reserve(cmc_ids *ids, size_t cap);
cmc_status cmc_ids_append(cmc_ids *ids, const int32_t *v, size_t n);
/* Memory that can be had without swapping, in bytes (MemAvailable, less what a cgroup forbids); 0 where unknown. */
uint64_t cmc_mem_available(void);
/* Resident size of this process, in bytes: at its highest since the program began, and now (0 where unknown). Pages of
 * mapped files count while they are mapped in. */
uint64_t cmc_mem_peak(void);
uint64_t cmc_mem_resident(void);
/* Gives the allocator's free memory back to the system. */
void cmc_mem_give_back(void);
double cmc_now(void);                                /* monotonic seconds */
#endif
