/* Checked allocation, lists of ids, and the clock. */
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum {
    KERNEL_ALIGN = 64, /* a cache line, and the widest vector register */
    LARGE_PAGE = 2 << 20
};

/* n * size, at least 1; false where the product or an object that large cannot be. */
static bool mem_product(size_t n, size_t size, size_t *out) {
    if (__builtin_mul_overflow(n, size, out) || *out > PTRDIFF_MAX) {
        return false;
    }
    *out += *out == 0;
    return true;
}

void *cmc_alloc(size_t n, size_t size) {
    size_t bytes;
    return mem_product(n, size, &bytes) ? malloc(bytes) : NULL;
}

void *cmc_calloc(size_t n, size_t size) {
    size_t bytes;
    return mem_product(n, size, &bytes) ? calloc(1, bytes) : NULL;
}

void *cmc_alloc_aligned(size_t n, size_t size) {
    size_t bytes;
    if (!mem_product(n, size, &bytes) || bytes > PTRDIFF_MAX - KERNEL_ALIGN) {
        return NULL;
    }
    bytes = (bytes + KERNEL_ALIGN - 1) / KERNEL_ALIGN * KERNEL_ALIGN;
    return aligned_alloc(KERNEL_ALIGN, bytes);
}

void *cmc_alloc_large(size_t bytes) {
    if (bytes > PTRDIFF_MAX - LARGE_PAGE) {
        return NULL;
    }
    bytes = bytes / LARGE_PAGE * LARGE_PAGE + LARGE_PAGE; /* 1 more than whole ones need, and never none */
    void *p = aligned_alloc(LARGE_PAGE, bytes);
#ifdef MADV_HUGEPAGE
    if (p != NULL) {
        (void)madvise(p, bytes, MADV_HUGEPAGE); /* a hint: where it is refused, pages are small */
    }
#endif
    return p;
}

void *cmc_realloc(void *p, size_t n, size_t size) {
    size_t bytes;
    return mem_product(n, size, &bytes) ? realloc(p, bytes) : NULL;
}

char *cmc_strndup(const char *s, size_t n) {
    char *copy = n < PTRDIFF_MAX ? cmc_alloc(n + 1, 1) : NULL;
    if (copy != NULL) {
        if (n > 0) {
            memcpy(copy, s, n);
        }
        copy[n] = '\0';
    }
    return copy;
}

bool cmc_grow(void **v, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) {
        return true;
    }
    size_t want = *cap < 16 ? 16 : *cap + *cap / 2; /* *cap elements exist, so this does not overflow */
    if (want < need) {
        want = need;
    }
    void *grown = cmc_realloc(*v, want, size);
    if (grown == NULL) {
        return false;
    }
    *v = grown;
    *cap = want;
    return true;
}

cmc_status cmc_ids_reserve(cmc_ids *ids, size_t cap) {
    void *v = ids->v;
    if (!cmc_grow(&v, &ids->cap, cap, sizeof *ids->v)) {
        return CMC_E_NOMEM;
    }
    ids->v = v;
    return CMC_OK;
}

cmc_status cmc_ids_append(cmc_ids *ids, const int32_t *v, size_t n) {
    if (n > SIZE_MAX - ids->n || cmc_ids_reserve(ids, ids->n + n) != CMC_OK) {
        return CMC_E_NOMEM;
    }
    if (n > 0) {
        memcpy(ids->v + ids->n, v, n * sizeof *v);
        ids->n += n;
    }
    return CMC_OK;
}

cmc_status cmc_ids_push(cmc_ids *ids, int32_t id) { return cmc_ids_append(ids, &id, 1); }

void cmc_ids_free(cmc_ids *ids) {
    if (ids != NULL) {
        free(ids->v);
        *ids = (cmc_ids){0};
    }
}

double cmc_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
