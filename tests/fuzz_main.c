/* A driver for the fuzz targets where libFuzzer is not: runs files through a target, then a fixed number of mutations
 * of them, the same ones for the same seed on every machine. Takes libFuzzer's spelling of the options that both have.
 */
#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_INPUTS = 4096, MAX_CHANGES = 6, MAX_GROWTH = 64 };

typedef struct corpus { cmc_file files[MAX_INPUTS]; size_t n; } corpus;

static uint64_t next_random(uint64_t *state) { /* xorshift64* */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dULL;
}

static size_t below(uint64_t *state, size_t n) { return n > 0 ? (size_t)(next_random(state) >> 11) % n : 0; }

/* Writes a number that readers trip over, in one of the widths that formats use. */
static void put_edge(uint8_t *data, size_t n, uint64_t *state) {
    static const uint64_t edges[] = {0, 1, 2, 7, 8, 9, 31, 32, 255, 256, 65535, 0x7fffffff, 0x80000000, 0xffffffff,
                                     0x100000000, 0x1fffffffffffffff, 0x2000000000000000, 0x7fffffffffffffff,
                                     0x8000000000000000, 0xfffffffffffffff8, 0xffffffffffffffff};
    uint64_t v = edges[below(state, sizeof edges / sizeof edges[0])];
    size_t width = (size_t)1 << below(state, 4), at = below(state, n);
    for (size_t i = 0; i < width && at + i < n; i++) {
        data[at + i] = (uint8_t)(v >> 8 * i);
    }
}

/* One change to data[0..n), which has room for MAX_GROWTH more; gives the new length. */
static size_t change(uint8_t *data, size_t n, const corpus *c, uint64_t *state) {
    size_t kind = below(state, 8), at = below(state, n), len = 1 + below(state, MAX_GROWTH - 1);
    const cmc_file *other = &c->files[below(state, c->n)];
    if (n == 0) {
        data[0] = (uint8_t)next_random(state);
        return 1;
    }
    len = len <= n - at ? len : n - at;
    switch (kind) {
    case 0: data[at] = (uint8_t)(data[at] ^ 1U << below(state, 8)); return n;
    case 1: data[at] = (uint8_t)next_random(state); return n;
    case 2: put_edge(data, n, state); return n;
    case 3: put_edge(data, n < 512 ? n : 512, state); return n; /* in the header, where most is decided */
    case 4: return at;
    case 5: memmove(data + at, data + at + len, n - at - len); return n - len;
    case 6: memmove(data + at + len, data + at, n - at); return n + len; /* doubles a stretch */
    default:
        if (other->size >= len) {
            memcpy(data + at, other->data + below(state, other->size - len + 1), len);
        }
        return n;
    }
}

/* A file of the corpus with a few changes, handed over in a block of exactly its size so that a sanitizer sees the end.
 */
static bool run_mutation(const corpus *c, uint64_t *state) {
    const cmc_file *from = &c->files[below(state, c->n)];
    size_t n = from->size, changes = 1 + below(state, MAX_CHANGES);
    uint8_t *data = cmc_alloc(n + (MAX_CHANGES + 1) * MAX_GROWTH, 1);
    if (data == NULL) {
        return false;
    }
    if (n > 0) {
        memcpy(data, from->data, n);
    }
    while (changes-- > 0) {
        n = change(data, n, c, state);
    }
    uint8_t *exact = cmc_alloc(n, 1);
    if (exact != NULL) {
        memcpy(exact, data, n);
        LLVMFuzzerTestOneInput(exact, n);
    }
    free(data);
    free(exact);
    return exact != NULL;
}

/* Adds a file, or the files of a directory. */
static bool add_input(corpus *c, const char *path) {
    DIR *dir = opendir(path);
    cmc_error err = {0};
    if (dir == NULL) {
        if (c->n == MAX_INPUTS || cmc_file_map(path, &c->files[c->n], &err) != CMC_OK) {
            fprintf(stderr, "fuzz: %s\n", c->n == MAX_INPUTS ? "too many files" : err.message);
            return false;
        }
        c->n++;
        return true;
    }
    bool ok = true;
    for (const struct dirent *e; ok && (e = readdir(dir)) != NULL;) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        ok = e->d_name[0] == '.' || add_input(c, inner);
    }
    closedir(dir);
    return ok;
}

static int compare_files(const void *a, const void *b) {
    return strcmp(((const cmc_file *)a)->path, ((const cmc_file *)b)->path);
}

static int run_all(corpus *c, unsigned long long runs, uint64_t seed) {
    qsort(c->files, c->n, sizeof c->files[0], compare_files); /* directories list in any order */
    for (size_t i = 0; i < c->n; i++) {
        LLVMFuzzerTestOneInput(c->files[i].data, c->files[i].size);
    }
    uint64_t state = seed * 0x9e3779b97f4a7c15ULL | 1;
    for (unsigned long long i = 0; c->n > 0 && i < runs; i++) {
        if (!run_mutation(c, &state)) {
            fputs("fuzz: out of memory\n", stderr);
            return 1;
        }
    }
    printf("%zu files and %llu mutations of them, seed %llu: no crash\n", c->n, c->n > 0 ? runs : 0,
           (unsigned long long)seed);
    return c->n > 0 ? 0 : 2;
}

int main(int argc, char **argv) {
    static corpus c;
    unsigned long long runs = 0, seed = 1;
    int result = 0;
    for (int i = 1; i < argc && result == 0; i++) {
        if (sscanf(argv[i], "-runs=%llu", &runs) == 1 || sscanf(argv[i], "-seed=%llu", &seed) == 1) {
            continue;
        }
        if (argv[i][0] == '-') {
            fprintf(stderr, "usage: %s [-runs=N] [-seed=N] FILE|DIRECTORY...\n", argv[0]);
            result = 2;
        } else {
            result = add_input(&c, argv[i]) ? 0 : 1;
        }
    }
    result = result == 0 ? run_all(&c, runs, seed) : result;
    for (size_t i = 0; i < c.n; i++) {
        cmc_file_unmap(&c.files[i]);
    }
    return result;
}
