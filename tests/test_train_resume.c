/* Training that is interrupted: exact resume, kills, damaged files, host states, and whose checkpoint it is. */
#include <glob.h>
#include <math.h>
#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/mem.h"
#include "tests/tiny.h"
#include "tests/train_rig.h"

/* Checks that the log's last run names each step once, in order, from 1. */
static void check_log(const char *path, int64_t steps) {
    cmc_file f = rig_map(path);
    const char *p = (const char *)f.data, *end = p + f.size;
    int64_t next = 1;
    while (p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        assert_non_null(nl);
        char head[64];
        next = strncmp(p, "{\"event\":\"start\"", 16) == 0 ? 1 : next;
        if (strncmp(p, "{\"event\":\"step\"", 15) == 0) {
            int n = snprintf(head, sizeof head, "{\"event\":\"step\",\"step\":%lld,", (long long)next);
            assert_memory_equal(p, head, (size_t)n);
            next++;
        }
        p = nl + 1;
    }
    assert_int_equal(next, steps + 1);
    cmc_file_unmap(&f);
}

/* A process of its own that dies without a word at a step. */
static void run_killed(const char *host, const rig *r, stopper *s) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        cmc_runtime_opts ro = {.threads = 2};
        cmc_runtime *rt;
        cmc_error err = {0};
        cmc_train_opts o = rig_opts(r);
        o.hosts = &host;
        o.log_path = r->log;
        o.resume = true;
        if (cmc_runtime_open(&ro, &rt, &err) == CMC_OK)
            cmc_train(rt, &o, rig_stop, s, NULL, &err);
        _exit(1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

static void test_exact_resume(void **state) {
    (void)state;
    rig r;
    size_t n;
    rig_open(&r, 2, false);
    cmc_train_opts o = rig_opts(&r);
    cmc_train_result whole = rig_run(&r, &o, NULL, NULL, CMC_OK);
    uint8_t *want = rig_bytes(r.out, &n);
    assert_int_equal(unlink(r.out), 0);
    rig_run(&r, &o, NULL, NULL, CMC_OK); /* the same again */
    rig_assert_same(r.out, want, n);
    o.log_path = r.log;
    static const int64_t stop[] = {1, 5, 6, 13, RIG_STEPS};
    for (size_t i = 0; i < sizeof stop / sizeof *stop; i++) {
        stopper s = {"train", stop[i], false};
        unlink(r.log);
        o.resume = false;
        rig_run(&r, &o, rig_stop, &s, CMC_E_CANCELLED);
        rig_assert_same(r.out, want, n); /* untouched until the end */
        assert_true(checkpoint_exists(r.ckpt));
        assert_int_equal(unlink(r.out), 0);
        o.resume = true;
        cmc_train_result res = rig_run(&r, &o, NULL, NULL, CMC_OK);
        assert_true(res.resumed);
        assert_true(res.held_out_steered == whole.held_out_steered && res.tokens == whole.tokens);
        rig_assert_same(r.out, want, n);
        check_log(r.log, RIG_STEPS);
    }
    unlink(r.log);
    static const int64_t kill_at[] = {4, 8, 19}; /* killed three times on the way, each time past the last checkpoint */
    for (size_t i = 0; i < 3; i++) {
        stopper s = {"train", kill_at[i], true};
        run_killed(r.host, &r, &s);
    }
    assert_true(rig_run(&r, &o, NULL, NULL, CMC_OK).resumed);
    rig_assert_same(r.out, want, n);
    check_log(r.log, RIG_STEPS);
    free(want);
    rig_close(&r);
}

/* A process that trains, killed from outside after so many microseconds; true where it had finished before. */
static bool run_for(const cmc_train_opts *o, long microseconds) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        cmc_runtime_opts ro = {.threads = 2};
        cmc_runtime *rt;
        cmc_error err = {0};
        bool ok = cmc_runtime_open(&ro, &rt, &err) == CMC_OK && cmc_train(rt, o, NULL, NULL, NULL, &err) == CMC_OK;
        _exit(ok ? 0 : 1);
    }
    int status;
    struct timespec t = {microseconds / 1000000, microseconds % 1000000 * 1000};
    nanosleep(&t, NULL);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return WIFEXITED(status);
}

static size_t count_files(const char *pattern) {
    glob_t g = {0};
    size_t n = glob(pattern, 0, NULL, &g) == 0 ? g.gl_pathc : 0;
    globfree(&g);
    return n;
}

/* kill -9 at twenty random moments, with a checkpoint after every step so that some fall into its writing (a temporary file
 * is then left beside it); what a run that goes on from there ends with is bit for bit the undisturbed run's. */
static void test_kills(void **state) {
    (void)state;
    rig r;
    size_t n, kills = 0, writing = 0, finished = 0;
    rig_open(&r, 2, false);
    cmc_train_opts o = rig_opts(&r);
    o.max_steps = 40;
    o.n_embd = 128; /* weights enough for the writing to take its time */
    o.n_ff = 512;
    o.checkpoint_every = 1;
    o.eval_every = 1;
    o.patience = 0;
    double began = cmc_now();
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    long whole = (long)(1e6 * (cmc_now() - began));
    uint8_t *want = rig_bytes(r.out, &n);
    assert_int_equal(unlink(r.out), 0);
    char *temps = rig_path(&r, "delta.gguf.ckpt.*");
    uint64_t rng = 13;
    o.resume = true;
    while ((kills < 20 || writing == 0) && kills + finished < 300) {
        bool done = run_for(&o, (long)(params_random(&rng) % (uint64_t)(whole / 2 + 1)));
        kills += !done;
        finished += done;
        writing += count_files(temps) > 0;
        if (done) {
            rig_assert_same(r.out, want, n);
            assert_int_equal(unlink(r.out), 0);
        }
    }
    assert_true(kills >= 20 && writing > 0);
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    rig_assert_same(r.out, want, n);
    assert_int_equal(count_files(temps), 0); /* the next run removes what a killed one left */
    printf("%zu kills, %zu of them while a file was being written; %zu runs finished between them\n", kills, writing, finished);
    free(temps);
    free(want);
    rig_close(&r);
}

/* Host states: a fill that is stopped goes on; damage is found and repaired; what is no cache of ours is left alone. */
static void test_host_states(void **state) {
    (void)state;
    rig r;
    size_t n;
    rig_open(&r, 2, false);
    cmc_train_opts o = rig_opts(&r);
    stopper s = {"host states", 1, false};
    rig_run(&r, &o, rig_stop, &s, CMC_E_CANCELLED);
    assert_false(checkpoint_exists(r.ckpt));
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    uint8_t *want = rig_bytes(r.out, &n);
    glob_t found;
    char pattern[512];
    snprintf(pattern, sizeof pattern, "%s/*.states", r.dir);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    const char *cache = found.gl_pathv[0];
    FILE *f = fopen(cache, "r+b");
    assert_non_null(f);
    fseek(f, -100, SEEK_END);
    fputs("damage", f);
    fclose(f);
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    rig_assert_same(r.out, want, n);
    assert_int_equal(truncate(cache, 5000), 0);
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    rig_assert_same(r.out, want, n);
    f = fopen(cache, "r+b");
    assert_non_null(f);
    fputs("something of the user's", f);
    fclose(f);
    rig_run(&r, &o, NULL, NULL, CMC_E_FORMAT);
    globfree(&found);
    free(want);
    rig_close(&r);
}

static void test_checkpoint_damage(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 1, false);
    cmc_train_opts o = rig_opts(&r);
    stopper s = {"train", 3, false};
    cmc_error err = {0};
    rig_run(&r, &o, rig_stop, &s, CMC_E_CANCELLED);
    char *good = rig_path(&r, "good.ckpt");
    assert_int_equal(rename(r.ckpt, good), 0);
    struct stat st;
    assert_int_equal(stat(good, &st), 0);
    o.resume = true;
    const int64_t cut[] = {0, 1, 15, 39, 40, 71, 200, 5000, st.st_size - 1};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        assert_int_equal(tiny_damage(good, r.ckpt, cut[i], -1, &err), CMC_OK);
        rig_run(&r, &o, NULL, NULL, CMC_E_FORMAT);
    }
    uint64_t rng = 4;
    for (int i = 0; i < 24; i++) {
        int64_t bit = i < 12 ? i * 27 : (int64_t)(params_random(&rng) % (uint64_t)(st.st_size * 8));
        assert_int_equal(tiny_damage(good, r.ckpt, -1, bit, &err), CMC_OK);
        rig_run(&r, &o, NULL, NULL, CMC_E_FORMAT);
    }
    assert_int_equal(rename(good, r.ckpt), 0);
    assert_true(rig_run(&r, &o, NULL, NULL, CMC_OK).resumed);
    free(good);
    rig_close(&r);
}

/* A checkpoint is neither lost nor mixed with other options. */
static void test_checkpoint_rules(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 1, false);
    cmc_error err = {0};
    cmc_train_result res;
    cmc_train_opts o = rig_opts(&r);
    stopper s = {"train", 3, false};
    rig_run(&r, &o, rig_stop, &s, CMC_E_CANCELLED);
    assert_int_equal(cmc_train(r.rt, &o, NULL, NULL, &res, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "--resume"));
    assert_non_null(strstr(err.message, "--fresh"));
    cmc_train_opts other = o;
    other.resume = true;
    other.lr = 1e-4;
    assert_int_equal(cmc_train(r.rt, &other, NULL, NULL, &res, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "\"lr 0.003"));
    other.lr = o.lr;
    other.n_ff = 64;
    assert_int_equal(cmc_train(r.rt, &other, NULL, NULL, &res, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "n_ff"));
    FILE *f = fopen(r.data, "a");
    fputs("{\"prompt\":\"one\",\"response\":\"more\"}\n", f);
    fclose(f);
    other.n_ff = 0;
    assert_int_equal(cmc_train(r.rt, &other, NULL, NULL, &res, &err), CMC_E_ARG);
    assert_non_null(strstr(err.message, "\"data "));
    assert_true(checkpoint_exists(r.ckpt));
    other.resume = false;
    other.fresh = true;
    assert_false(rig_run(&r, &other, NULL, NULL, CMC_OK).resumed);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_resume),
        cmocka_unit_test(test_kills),
        cmocka_unit_test(test_host_states),
        cmocka_unit_test(test_checkpoint_damage),
        cmocka_unit_test(test_checkpoint_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
