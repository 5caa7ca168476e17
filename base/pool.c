/* The worker threads: started once, handed one function at a time. */
#include "base/pool.h"
#include "base/error.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long to wait before giving way, and then before sleeping. A decode step hands out work every few microseconds, so
 * sleeping between two pieces would cost more than the pieces; a pause is some 40 cycles, a yield about half a
 * microsecond. */
enum { SPIN_PAUSES = 2000, SPIN_YIELDS = 200 };

typedef struct pool_worker { struct cmc_pool *pool; int t; pthread_t thread; } pool_worker;

struct cmc_pool {
    int n;                           /* the caller's thread included */
    int n_started;                   /* workers[1 .. n_started) run */
    int pauses; /* 0 where there are more threads than cores: whoever spins keeps another from working */
    pool_worker *workers;

    cmc_pool_fn fn;                  /* written before `round`, read after it */
    void *arg;
    bool stop;

    _Alignas(64) atomic_uint round;  /* counts runs; a change is the signal to begin */
    _Alignas(64) atomic_int pending; /* workers that have not finished this run */
    _Alignas(64) atomic_int arrived; /* at the barrier */
    _Alignas(64) atomic_uint phase;  /* counts barriers passed; a change lets the waiting ones go */

    /* Sleeping. Who is about to sleep counts itself and then looks again at what it waits for; who changes that looks
     * at the count afterwards (both sequentially consistent): one of the two sees the other. */
    pthread_mutex_t lock;
    pthread_cond_t begin, done;
    atomic_int sleeping_workers, sleeping_caller;
};

static void pool_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* One step of waiting; `i` counts the steps. False when it is time to sleep instead. */
static bool pool_spin(const cmc_pool *p, int i) {
    if (i < p->pauses) {
        pool_pause();
    } else {
        sched_yield();
    }
    return i < p->pauses + SPIN_YIELDS;
}

static void await_round(cmc_pool *p, unsigned seen) {
    for (int i = 0; atomic_load(&p->round) == seen; i++) {
        if (pool_spin(p, i)) {
            continue;
        }
        pthread_mutex_lock(&p->lock);
        atomic_fetch_add(&p->sleeping_workers, 1);
        while (atomic_load(&p->round) == seen) {
            pthread_cond_wait(&p->begin, &p->lock);
        }
        atomic_fetch_sub(&p->sleeping_workers, 1);
        pthread_mutex_unlock(&p->lock);
        return;
    }
}

static void start_round(cmc_pool *p) {
    atomic_fetch_add(&p->round, 1);
    if (atomic_load(&p->sleeping_workers) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->begin);
        pthread_mutex_unlock(&p->lock);
    }
}

static void await_done(cmc_pool *p) {
    for (int i = 0; atomic_load(&p->pending) > 0; i++) {
        if (pool_spin(p, i)) {
            continue;
        }
        pthread_mutex_lock(&p->lock);
        atomic_store(&p->sleeping_caller, 1);
        while (atomic_load(&p->pending) > 0) {
            pthread_cond_wait(&p->done, &p->lock);
        }
        atomic_store(&p->sleeping_caller, 0);
        pthread_mutex_unlock(&p->lock);
        return;
    }
}

static void report_done(cmc_pool *p) {
    if (atomic_fetch_sub(&p->pending, 1) == 1 && atomic_load(&p->sleeping_caller) != 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->lock);
    }
}

static void *worker_main(void *arg) {
    const pool_worker *worker = arg;
    cmc_pool *p = worker->pool;
    for (unsigned seen = 0;; seen++) { /* a run ends only when every worker has done it: rounds are never missed */
        await_round(p, seen);
        if (p->stop) {
            return NULL;
        }
        p->fn(p->arg, worker->t, p->n);
        report_done(p);
    }
}

static int cores_online(void) {
#ifdef __linux__
    cpu_set_t set; /* what this process may use, which a container or taskset makes fewer */
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) {
        return CPU_COUNT(&set);
    }
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > CMC_POOL_MAX ? CMC_POOL_MAX : (int)n;
}

/* Workers take no signals: those are for the program's own threads. */
static int start_workers(cmc_pool *p) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = 0;
    for (; p->n_started < p->n && failed == 0; p->n_started += failed == 0) {
        pool_worker *worker = &p->workers[p->n_started];
        *worker = (pool_worker){.pool = p, .t = p->n_started};
        failed = pthread_create(&worker->thread, NULL, worker_main, worker);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return failed;
}

cmc_status cmc_pool_new(int threads, cmc_pool **out, cmc_error *err) {
    *out = NULL;
    int cores = cores_online();
    if (threads < 0 || threads > CMC_POOL_MAX) {
        return cmc_fail(err, CMC_E_ARG, "%d threads asked for, 1 to %d (or 0: all cores) would be right", threads,
                        CMC_POOL_MAX);
    }
    cmc_pool *p = cmc_alloc_aligned(1, sizeof *p);
    pool_worker *workers = cmc_calloc((size_t)(threads > 0 ? threads : cores), sizeof *workers);
    if (p == NULL || workers == NULL) {
        free(p);
        free(workers);
        return cmc_fail_nomem(err, "the thread pool", sizeof *p);
    }
    memset(p, 0, sizeof *p);
    p->n = threads > 0 ? threads : cores;
    p->n_started = 1;
    p->pauses = p->n <= cores ? SPIN_PAUSES : 0;
    p->workers = workers;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->begin, NULL);
    pthread_cond_init(&p->done, NULL);
    int failed = start_workers(p);
    if (failed != 0) {
        cmc_status status =
            cmc_fail(err, CMC_E_NOMEM, "cannot start thread %d of %d: %s", p->n_started + 1, p->n, strerror(failed));
        cmc_pool_free(p);
        return status;
    }
    *out = p;
    return CMC_OK;
}

void cmc_pool_free(cmc_pool *p) {
    if (p == NULL) {
        return;
    }
    p->stop = true;
    start_round(p);
    for (int t = 1; t < p->n_started; t++) {
        pthread_join(p->workers[t].thread, NULL);
    }
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->begin);
    pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p);
}

int cmc_pool_threads(const cmc_pool *p) { return p->n; }

void cmc_pool_run(cmc_pool *p, cmc_pool_fn fn, void *arg) {
    if (p->n == 1) {
        fn(arg, 0, 1);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    atomic_store(&p->pending, p->n - 1);
    start_round(p);
    fn(arg, 0, p->n);
    await_done(p);
}

void cmc_pool_barrier(cmc_pool *p, int t) {
    (void)t;
    if (p->n == 1) {
        return;
    }
    unsigned phase = atomic_load(&p->phase); /* cannot change before we arrive */
    if (atomic_fetch_add(&p->arrived, 1) == p->n - 1) {
        atomic_store(&p->arrived, 0); /* before the others go: one may be at the next barrier at once */
        atomic_fetch_add(&p->phase, 1);
        return;
    }
    for (int i = 0; atomic_load(&p->phase) == phase;) {
        i += pool_spin(p, i); /* then goes on giving way: the others are at work, not asleep */
    }
}

void cmc_pool_share(size_t n, size_t grain, int t, int nt, size_t *lo, size_t *hi) {
    size_t g = grain > 0 ? grain : 1, units = n / g + (n % g != 0), per = units / (size_t)nt, more = units % (size_t)nt;
    size_t i = (size_t)t; /* the first `more` workers do one unit more */
    size_t first = i * per + (i < more ? i : more), last = first + per + (i < more);
    *lo = first < units ? first * g : n;
    *hi = last < units ? last * g : n;
}
