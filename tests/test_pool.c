/* The worker threads: every part is done once, barriers hold, with fewer and with more threads than cores. */
#include "base/mem.h"
#include "base/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

enum { MAX_T = 8 };

static cmc_pool *pool(int threads) {
    cmc_pool *p = NULL;
    cmc_error err = {0};
    if (cmc_pool_new(threads, &p, &err) != CMC_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(cmc_pool_threads(p), threads);
    return p;
}

static void test_share(void **state) {
    (void)state;
    const size_t sizes[] = {0, 1, 7, 8, 63, 64, 65, 1000, 49152, SIZE_MAX / 2, SIZE_MAX}, grains[] = {1, 2, 8, 32, 64};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (size_t g = 0; g < sizeof grains / sizeof grains[0]; g++) {
            for (int nt = 1; nt <= 9; nt++) {
                size_t end = 0, least = SIZE_MAX, most = 0;
                for (int t = 0; t < nt; t++) {
                    size_t lo, hi;
                    cmc_pool_share(sizes[s], grains[g], t, nt, &lo, &hi);
                    assert_true(lo == end && hi >= lo && hi <= sizes[s]);
                    assert_true(lo % grains[g] == 0 || lo == sizes[s]);
                    least = hi - lo < least ? hi - lo : least;
                    most = hi - lo > most ? hi - lo : most;
                    end = hi;
                }
                assert_true(end == sizes[s]);
                assert_true(most - least < 2 * grains[g]); /* no one has more than one unit more */
            }
        }
    }
}

typedef struct sum_job { size_t n; int nt; const uint32_t *v; uint64_t part[MAX_T]; atomic_int calls; } sum_job;

static void sum_part(void *arg, int t, int nt) {
    sum_job *j = arg;
    size_t lo, hi;
    cmc_pool_share(j->n, 16, t, nt, &lo, &hi);
    for (j->part[t] = 0; lo < hi; lo++) {
        j->part[t] += j->v[lo];
    }
    if (t == 0) {
        j->nt = nt;
    }
    atomic_fetch_add(&j->calls, 1);
}

static void test_sums(void **state) {
    (void)state;
    enum { N = 5000, RUNS = 400 };
    uint32_t *v = calloc(N, sizeof *v);
    assert_non_null(v);
    uint64_t want = 0;
    for (uint32_t i = 0; i < N; i++) {
        v[i] = i * 2654435761U;
        want += v[i];
    }
    for (int nt = 1; nt <= MAX_T; nt++) {
        cmc_pool *p = pool(nt);
        for (int run = 0; run < RUNS; run++) {
            sum_job j = {.n = N, .v = v};
            cmc_pool_run(p, sum_part, &j);
            uint64_t got = 0;
            for (int t = 0; t < nt; t++) {
                got += j.part[t];
            }
            assert_true(got == want);
            assert_int_equal(atomic_load(&j.calls), nt);
            assert_int_equal(j.nt, nt);
            if (run % 100 == 99) { /* long enough for the workers to have gone to sleep */
                nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
            }
        }
        cmc_pool_free(p);
    }
    free(v);
}

typedef struct barrier_job { cmc_pool *p; int rounds; int slot[MAX_T]; atomic_int wrong; } barrier_job;

/* In each round every worker writes its slot and, past the barrier, must see everyone's; a second barrier keeps the
 * next round's writes away from this round's reads. Without either, the plain ints race (and ThreadSanitizer says so).
 */
static void barrier_rounds(void *arg, int t, int nt) {
    barrier_job *j = arg;
    for (int round = 1; round <= j->rounds; round++) {
        j->slot[t] = round;
        cmc_pool_barrier(j->p, t);
        for (int i = 0; i < nt; i++) {
            if (j->slot[i] != round) {
                atomic_fetch_add(&j->wrong, 1);
            }
        }
        cmc_pool_barrier(j->p, t);
    }
}

static void test_barrier(void **state) {
    (void)state;
    for (int nt = 1; nt <= MAX_T; nt++) {
        barrier_job j = {.p = pool(nt), .rounds = 150};
        for (int run = 0; run < 4; run++) {
            cmc_pool_run(j.p, barrier_rounds, &j);
            assert_int_equal(atomic_load(&j.wrong), 0);
        }
        cmc_pool_free(j.p);
    }
}

/* One worker is late, whichever: the run ends only when it has. */
typedef struct late_job { int who; atomic_int done; } late_job;

static void late_part(void *arg, int t, int nt) {
    (void)nt;
    late_job *j = arg;
    if (t == j->who) {
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    atomic_fetch_add(&j->done, 1);
}

static void test_late(void **state) {
    (void)state;
    cmc_pool *p = pool(4);
    for (int who = 0; who < 4; who++) {
        late_job j = {.who = who};
        cmc_pool_run(p, late_part, &j);
        assert_int_equal(atomic_load(&j.done), 4);
    }
    cmc_pool_free(p);
}

static void test_arguments(void **state) {
    (void)state;
    cmc_pool *p = NULL;
    cmc_error err = {0};
    assert_int_equal(cmc_pool_new(-1, &p, &err), CMC_E_ARG);
    assert_null(p);
    assert_int_equal(cmc_pool_new(1 << 20, &p, &err), CMC_E_ARG);
    assert_int_equal(cmc_pool_new(0, &p, &err), CMC_OK);
    assert_true(cmc_pool_threads(p) >= 1);
    cmc_pool_free(p);
    cmc_pool_free(NULL);
    for (int i = 0; i < 50; i++) { /* started and stopped without a run */
        cmc_pool_free(pool(1 + i % 5));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_share), cmocka_unit_test(test_sums),      cmocka_unit_test(test_barrier),
        cmocka_unit_test(test_late),  cmocka_unit_test(test_arguments),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
