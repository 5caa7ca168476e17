/* A fixed set of worker threads that run one function over a range. Workers spin for a short while, then sleep. */
#ifndef CMC_BASE_POOL_H
#define CMC_BASE_POOL_H
#include "cmc.h"

enum { CMC_POOL_MAX = 1024 };   /* threads, at most */
typedef struct cmc_pool cmc_pool;
/* Worker `t` of `nt` runs fn(arg, t, nt); the caller's thread is worker 0. */
typedef void (*cmc_pool_fn)(void *arg, int t, int nt);
cmc_status cmc_pool_new(int threads, cmc_pool **out, cmc_error *err);  /* 0: all cores that are online */
void cmc_pool_free(cmc_pool *p);
int cmc_pool_threads(const cmc_pool *p);
void cmc_pool_run(cmc_pool *p, cmc_pool_fn fn, void *arg);             /* returns when all are done */
/* Inside fn: waits until all nt workers of this run have come here. */
void cmc_pool_barrier(cmc_pool *p, int t);
/* The part [*lo, *hi) of [0, n) that worker t does, in multiples of `grain` but for the last. */
void cmc_pool_share(size_t n, size_t grain, int t, int nt, size_t *lo, size_t *hi);
#endif
