/* The bound on a training run's memory: the figure beforehand, what comes of it, refusals, and that the work stays the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/mem.h"
#include "tests/sanitized.h"
#include "tests/tiny.h"
#include "tests/train_rig.h"

enum { STEPS = 4 };
#define MIB ((uint64_t)1 << 20)

/* A delta that is large beside the program, so that the figure says something of it. */
static cmc_train_opts opts_of(const rig *r) {
    cmc_train_opts o = rig_opts(r);
    o.n_embd = 256;
    o.n_head = 8;
    o.n_head_kv = 8;
    o.n_ff = 1024;
    o.n_layer = 4;
    o.batch = 32;
    o.max_steps = STEPS;
    o.eval_every = 2;
    return o;
}

/* The least bound that is not refused, in MiB, as the refusal says it. */
static uint64_t least_of(const rig *r, const cmc_train_opts *base) {
    cmc_error err = {0};
    cmc_train_opts o = *base;
    o.memory = MIB;
    assert_int_equal(cmc_train(r->rt, &o, NULL, NULL, NULL, &err), CMC_E_NOMEM);
    const char *at = strstr(err.message, "at least ");
    assert_non_null(at);
    return strtoull(at + strlen("at least "), NULL, 10);
}

typedef struct measured {
    cmc_train_result result;
    uint64_t least;
    bool ran;
} measured;

/* A run in a process of its own, whose highest size is this run's. `bound` in MiB: 0 none, 1 the least. */
static measured run_alone(uint64_t bound) {
    measured *m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), out;
    assert_ptr_not_equal(m, MAP_FAILED);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        rig r;
        cmc_error err = {0};
        rig_open(&r, 2, false);
        cmc_train_opts o = opts_of(&r);
        m->least = bound == 1 ? least_of(&r, &o) : bound;
        o.memory = m->least * MIB;
        cmc_status st = cmc_train(r.rt, &o, NULL, NULL, &m->result, &err);
        m->ran = st == CMC_OK;
        if (st != CMC_OK)
            fprintf(stderr, "%s\n", err.message);
        rig_close(&r);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    out = *m;
    munmap(m, sizeof *m);
    return out;
}

/* Within 10 %, and what a tiny run's allocator and libraries do beside. */
static void test_figure(void **state) {
    (void)state;
    const uint64_t bounds[] = {0, 1, 130, 200};
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        measured m = run_alone(bounds[i]);
        assert_true(m.ran);
        double planned = (double)m.result.memory_planned, peak = (double)m.result.memory_peak;
        if (SANITIZED) {
            print_message("SKIP figure: a sanitizer's own memory counts too\n");
            return;
        }
        if (planned > 1.1 * peak + 6.0 * (double)MIB || planned < 0.9 * peak)
            fail_msg("bound %llu MiB: planned %.1f MiB, at its highest %.1f MiB", (unsigned long long)m.least,
                     planned / (double)MIB, peak / (double)MIB);
        if (m.least && peak > (double)(m.least * MIB))
            fail_msg("bound %llu MiB: at its highest %.1f MiB", (unsigned long long)m.least, peak / (double)MIB);
    }
}

/* Smaller pieces and blocks change nothing but the order of sums. */
static void test_same_work(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, false);
    cmc_train_opts o = opts_of(&r);
    cmc_train_result wide = rig_run(&r, &o, NULL, NULL, CMC_OK);
    o.memory = least_of(&r, &o) * MIB;
    cmc_train_result narrow = rig_run(&r, &o, NULL, NULL, CMC_OK);
    assert_true(narrow.memory_planned < wide.memory_planned || SANITIZED);
    assert_float_equal(narrow.held_out_steered, wide.held_out_steered, 1e-4);
    assert_float_equal(narrow.held_out_host, wide.held_out_host, 1e-6);
    assert_int_equal(narrow.tokens, wide.tokens);
    rig_close(&r);
}

/* The cut belongs to the settings: the same one goes on bit for bit, another one is refused. */
static void test_resume(void **state) {
    (void)state;
    rig r;
    size_t n;
    cmc_error err = {0};
    stopper stop = {.phase = "train", .step = 2};
    rig_open(&r, 2, false);
    cmc_train_opts o = opts_of(&r);
    uint64_t least = least_of(&r, &o) * MIB;
    o.memory = least;
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    uint8_t *want = rig_bytes(r.out, &n);
    rig_run(&r, &o, rig_stop, &stop, CMC_E_CANCELLED);
    o.resume = true;
    o.memory = 0;
    assert_int_equal(cmc_train(r.rt, &o, NULL, NULL, NULL, &err), CMC_E_ARG);
    if (!strstr(err.message, "memory pieces of"))
        fail_msg("%s", err.message);
    o.memory = least + MIB / 2;
    rig_run(&r, &o, NULL, NULL, CMC_OK);
    rig_assert_same(r.out, want, n);
    free(want);
    rig_close(&r);
}

/* With every bound that is taken: the plan stays within it, and a larger bound never asks for a finer cut of everything. */
static void test_plans(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, false);
    cmc_train_opts base = opts_of(&r);
    uint64_t least = least_of(&r, &base) * MIB, limit = least + 64 * MIB;
    train_plan last = {0};
    for (uint64_t bound = least; bound <= limit; bound += 4 * MIB) {
        cmc_error err = {0};
        cmc_train_opts o = base;
        o.memory = bound;
        train t = {.rt = r.rt, .o = o};
        if (train_setup(&t, &err) != CMC_OK)
            fail_msg("%s", err.message);
        assert_true(t.plan.bounded);
        assert_true(t.plan.tokens <= t.plan.piece && t.plan.targets <= t.plan.tokens);
        assert_true(t.plan.piece >= last.piece || t.plan.block > last.block || t.plan.heads > last.heads);
        last = t.plan;
        train_release(&t);
    }
    assert_int_equal(last.heads, 1);
    assert_int_equal(last.block, LOSS_BLOCK_BYTES);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figure),
        cmocka_unit_test(test_same_work),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_plans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
