/* How fast memory is read, as a JSON line: the roofline that decoding is held against.
 *
 *     memory_speed BYTES [THREADS]
 *
 * All threads read a buffer of BYTES at once, each its own contiguous part, 8 times: the best and the median GB/s. */
#define _DEFAULT_SOURCE   /* madvise */
#include "base/mem.h"
#include "base/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { READS = 8, WORDS = 8, LANES = 4, STEP = LANES * WORDS * 8, HUGE_PAGE = 1 << 21 };   /* STEP: bytes of a turn */

typedef uint64_t wide __attribute__((vector_size(WORDS * 8)));
typedef struct reading { uint8_t *data; size_t n; uint64_t sum[256]; } reading;   /* sum: of each thread */

static void die(const char *what) {
    fprintf(stderr, "memory_speed: %s\n", what);
    exit(1);
}

static void touch(void *arg, int t, int nt) {
    reading *r = arg;
    size_t lo, hi;
    cmc_pool_share(r->n, STEP, t, nt, &lo, &hi);
    memset(r->data + lo, t + 1, hi - lo);
}

#define READ_BODY                                                                                                      \
    wide s[LANES] = {0};                                                                                               \
    for (const wide *p = from, *end = to; p < end; p += LANES)                                                         \
        for (int k = 0; k < LANES; k++) s[k] += p[k];                                                                  \
    uint64_t sum = 0;                                                                                                  \
    for (int k = 0; k < LANES * WORDS; k++) sum += s[k / WORDS][k % WORDS];                                            \
    return sum;

static uint64_t read_plain(const void *from, const void *to) { READ_BODY }
#ifdef __x86_64__
__attribute__((target("avx2"))) static uint64_t read_avx2(const void *from, const void *to) { READ_BODY }
__attribute__((target("avx512f"))) static uint64_t read_avx512(const void *from, const void *to) { READ_BODY }
#endif

static void read_part(void *arg, int t, int nt) {
    reading *r = arg;
    size_t lo, hi;
    uint64_t (*fn)(const void *, const void *) = read_plain;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f")) fn = read_avx512;
    else if (__builtin_cpu_supports("avx2")) fn = read_avx2;
#endif
    cmc_pool_share(r->n, STEP, t, nt, &lo, &hi);
    r->sum[t] += fn(r->data + lo, r->data + hi);
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static size_t number(const char *s, unsigned long long most) {
    char *end;
    const unsigned long long v = strtoull(s, &end, 10);
    if (end == s || *end || *s == '-' || v > most) die("usage: memory_speed BYTES [THREADS]");
    return (size_t)v;
}

int main(int argc, char **argv) {
    if (argc != 2 && argc != 3) die("usage: memory_speed BYTES [THREADS]");
    static reading r;
    cmc_pool *pool;
    cmc_error err = {0};
    double gbps[READS];
    uint64_t sum = 0;
    r.n = number(argv[1], 1ull << 44) / STEP * STEP;
    if (!r.n) die("BYTES: at least 256");
    if (cmc_pool_new(argc == 3 ? (int)number(argv[2], 256) : 0, &pool, &err) != CMC_OK) die(err.message);
    r.data = aligned_alloc(HUGE_PAGE, (r.n + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    if (!r.data) die("no memory for so many bytes");
    (void)madvise(r.data, r.n, MADV_HUGEPAGE);   /* the machine's best: fewer misses of the page tables' cache */
    cmc_pool_run(pool, touch, &r);
    for (int i = 0; i < READS; i++) {
        const double start = cmc_now();
        cmc_pool_run(pool, read_part, &r);
        gbps[i] = (double)r.n / (cmc_now() - start) / 1e9;
    }
    qsort(gbps, READS, sizeof *gbps, compare);
    for (int t = 0; t < cmc_pool_threads(pool); t++) sum += r.sum[t];
    printf("{\"bytes\":%zu,\"threads\":%d,\"reads\":%d,\"gbps_best\":%.2f,\"gbps_median\":%.2f,\"sum\":%llu}\n", r.n,
           cmc_pool_threads(pool), READS, gbps[READS - 1], (gbps[READS / 2 - 1] + gbps[READS / 2]) / 2,
           (unsigned long long)sum);
    cmc_pool_free(pool);
    free(r.data);
    return 0;
}
