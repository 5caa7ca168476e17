/* Mixing another model into the host while training: where it stands, the loss by its definition, and whole runs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "tests/scene.h"
#include "tests/slope.h"
#include "tests/tiny.h"
#include "tests/train_rig.h"

/* Another tiny model: with another vocabulary, or with the host's. */
static void other_write(const char *path, bool same_vocab) {
    cmc_error err = {0};
    tiny_spec spec = {.arch = "llama", .vocab = same_vocab ? NULL : "spm", .n_learnt = same_vocab ? 0 : 120, .type = CMC_F32,
                      .n_embd = 32, .seed = 5};
    if (tiny_write(&spec, path, &err) != CMC_OK)
        fail_msg("%s", err.message);
}

/* ------------------------------------------------------------------------------------------ the loss alone */

enum { ROWS = 37, EMBD = 16, DELTA = 90 };

static int32_t map_to(int32_t i, void *user) {
    return uniform(user) < 0.1 ? -1 : i % DELTA;
}

static void logits_of(cmc_model *m, const uint8_t *state, float *out) {
    cmc_error err = {0};
    float *x = cmc_alloc((size_t)cmc_model_n_embd(m), sizeof *x);
    hostcache_unpack(state, x, (size_t)cmc_model_n_embd(m));
    assert_int_equal(cmc_model_logits(m, x, 1, out, &err), CMC_OK);
    free(x);
}

/* The host's distribution p with the mixer's u in it, as logs: p^((1-m)/t) u^m on what the mixer maps, scaled so that those
 * tokens have together what p^((1-m)/t) alone gives them. */
static void defined_mix(const float *h, const float *o, const cmc_map *map, perturb p, size_t v, float *out) {
    double before = 0.0, after = 0.0, top = -INFINITY;
    for (int32_t i = 0; i < map->n_delta; i++)
        top = fmax(top, (double)o[i]);
    for (size_t i = 0; i < v; i++) {
        if (map->to[i] < 0)
            continue;
        before += exp((double)p.scale * (double)h[i]);
        after += exp((double)p.scale * (double)h[i]) * pow(exp((double)o[map->to[i]] - top), (double)p.mix);
    }
    for (size_t i = 0; i < v; i++)
        out[i] = map->to[i] < 0 ? p.scale * h[i]
                                : (float)((double)p.scale * (double)h[i] +
                                          (double)p.mix * ((double)o[map->to[i]] - top) + log(before / after));
}

static double defined_loss(scene *s, cmc_model *other, const cmc_map *map, const uint8_t *const *mixed, const perturb *p,
                           float alpha) {
    size_t v = (size_t)cmc_model_n_vocab(s->host), nd = (size_t)s->p.s.n_vocab;
    float *h = cmc_alloc(v, sizeof *h), *mix = cmc_alloc(v, sizeof *mix), *d = cmc_alloc(nd, sizeof *d);
    float *o = cmc_alloc((size_t)cmc_model_n_vocab(other), sizeof *o), *work = cmc_alloc(2 * v, sizeof *work);
    double nll = 0.0;
    for (size_t i = 0; i < ROWS; i++) {
        logits_of(s->host, s->hrow[i], h);
        for (size_t j = 0; j < v; j++)
            mix[j] = p[i].scale * h[j];
        if (mixed[i]) {
            logits_of(other, mixed[i], o);
            defined_mix(h, o, map, p[i], v, mix);
        }
        scene_delta_logits(s, i, d);
        shift_in in = {s->map, alpha, d};
        shift_apply_plain(mix, (int32_t)v, &in, 1, false, work);
        nll += shift_log_sum_plain(mix, (int32_t)v) - (double)mix[s->targets[i]];
    }
    free(h);
    free(mix);
    free(d);
    free(o);
    free(work);
    return nll;
}

static void mixed_scene(scene *s, int threads, bool decode_head) {
    uint64_t map_rng = 21;
    scene_open(s, threads, true, 0);
    scene_map(s, DELTA, map_to, &map_rng);
    params_shape shape = {.n_vocab = DELTA, .n_embd = EMBD, .n_layer = 1, .n_head = 4, .n_head_kv = 2, .n_ff = 24};
    scene_net(s, shape, ROWS, true, decode_head);
    scene_weights(s);
    scene_random(s, ROWS, 7);
}

/* Every fourth target has no state of the mixer. */
static uint8_t *mixer_states(const cmc_model *m, const uint8_t *mixed[ROWS]) {
    size_t e = (size_t)cmc_model_n_embd(m), bytes = hostcache_row_bytes(e);
    uint8_t *all = cmc_alloc(ROWS, bytes);
    float *x = cmc_alloc(e, sizeof *x);
    uint64_t rng = 31;
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t c = 0; c < e; c++)
            x[c] = (float)(2.0 * uniform(&rng) - 1.0);
        hostcache_pack(x, all + i * bytes, e);
        mixed[i] = i % 4 == 3 ? NULL : all + i * bytes;
    }
    free(x);
    return all;
}

static void test_loss_is_defined(void **state) {
    (void)state;
    static const cmc_train_opts how = {.host_temperature_lo = 0.3, .host_temperature_hi = 3.0, .host_mix = 0.9};
    for (int k = 0; k < 4; k++) {
        scene s;
        cmc_error err = {0};
        cmc_model *other;
        cmc_map *map;
        perturb p[ROWS];
        const uint8_t *mixed[ROWS];
        mixed_scene(&s, 1 + k % 2, k & 2);
        const char *path = tiny_path(s.dir, "other.gguf");
        other_write(path, false);
        assert_int_equal(cmc_model_open(s.rt, path, &other, &err), CMC_OK);
        assert_int_equal(cmc_map_build(cmc_model_vocab(s.host), cmc_model_vocab(other), CMC_RULE_DEFAULT, &map, &err), CMC_OK);
        assert_int_equal(loss_mix_with(&s.l, other, map, &err), CMC_OK);
        uint8_t *states = mixer_states(other, mixed);
        for (size_t i = 0; i < ROWS; i++) {
            p[i] = perturb_draw(&how, 1, i);
            if (!mixed[i])
                p[i] = perturb_unmixed(p[i]);
        }
        loss_parts parts = {.nll = 1.0f, .perturb = p, .mixed = mixed};
        double nll = 0.0;
        net_forward(&s.n, &s.b);
        assert_int_equal(loss_train(&s.l, net_output(&s.n), &s.b, &parts, 0.6f, 1.0f, s.dhidden, &nll, &err), CMC_OK);
        double want = defined_loss(&s, other, map, mixed, p, 0.6f);
        if (!(fabs(nll - want) < 1e-4 * ROWS))
            fail_msg("loss %.6f, by its definition %.6f", nll, want);
        for (size_t i = 0; i < ROWS; i++)
            p[i] = perturb_unmixed(p[i]);
        assert_true(fabs(nll - defined_loss(&s, other, map, mixed, p, 0.6f)) > 0.1);
        free(states);
        cmc_map_free(map);
        cmc_model_free(other);
        scene_close(&s);
    }
}

/* ------------------------------------------------------------------------------------------- where it stands */

static cmc_train_opts mixed_opts(const rig *r, const char *other) {
    cmc_train_opts o = rig_opts(r);
    o.host_mix = 0.5;
    o.host_mix_with = other;
    return o;
}

/* The text that ids stand for, without spaces: a vocabulary puts some before a text, which are no bytes of it. */
static void text_of(const cmc_vocab *v, const int32_t *ids, size_t n, char *out, size_t cap) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const uint8_t *s = cmc_vocab_bytes(v, ids[i], &len);
        for (size_t k = 0; k < len && !(cmc_vocab_roles(v, ids[i]) & CMC_ROLE_BOS); k++) {
            assert_true(at + 1 < cap);
            out[at] = (char)s[k];
            at += s[k] != ' ';
        }
    }
    out[at] = '\0';
}

/* Every row has read the very text that the host has read before the target. */
static void test_rows(void **state) {
    (void)state;
    for (int same = 0; same < 2; same++) {
        rig r;
        cmc_error err = {0};
        rig_open(&r, 1, false);
        char *other = rig_path(&r, "other.gguf");
        other_write(other, same);
        static const tiny_spec bytes = {.arch = "llama", .n_learnt = 1, .type = CMC_F32, .seed = 3};
        if (!same)   /* a host of bytes stands inside the other's tokens */
            assert_int_equal(tiny_write(&bytes, r.host, &err), CMC_OK);
        train t = {.rt = r.rt, .o = mixed_opts(&r, other)};
        if (train_setup(&t, &err) != CMC_OK)
            fail_msg("%s", err.message);
        const data_set *h = &t.hosts[0].data, *m = &t.mix->data;
        size_t with = 0, inside = 0;
        for (size_t i = 0, at = 0; i < h->n; i++) {
            for (size_t k = 0; k < h->v[i].n_targets; k++) {
                char a[512], b[512];
                size_t row = t.mix_row[h->v[i].first_row + k];
                if (row == SIZE_MAX) {
                    inside++;
                    continue;
                }
                while (row >= m->v[at].first_row + m->v[at].n_targets)
                    at++;
                const data_example *y = &m->v[at];
                assert_int_equal(y->record, h->v[i].record);
                text_of(cmc_model_vocab(t.hosts[0].model), h->v[i].host_ids, (size_t)h->v[i].host_row[k] + 1, a, sizeof a);
                text_of(cmc_model_vocab(t.mix->model), y->host_ids, (size_t)y->host_row[row - y->first_row] + 1, b, sizeof b);
                assert_string_equal(a, b);
                with++;
            }
        }
        assert_true(same ? inside == 0 : inside > 0);
        assert_true(with >= h->n);
        train_release(&t);
        free(other);
        rig_close(&r);
    }
}

/* ------------------------------------------------------------------------------------------------ whole runs */

/* It changes what is learnt, but not the host's held-out score; stopped and resumed, it ends with the same bytes. */
static void test_runs(void **state) {
    (void)state;
    for (int same = 0; same < 2; same++) {
        rig r;
        size_t n;
        cmc_error err = {0};
        rig_open(&r, 2, false);
        char *other = rig_path(&r, "other.gguf");
        other_write(other, same);
        cmc_train_opts o = mixed_opts(&r, other);
        o.host_mix_with = NULL;
        cmc_train_result unigram = rig_run(&r, &o, NULL, NULL, CMC_OK);
        uint8_t *bytes = rig_bytes(r.out, &n);
        o.host_mix_with = other;
        cmc_train_result res = rig_run(&r, &o, NULL, NULL, CMC_OK);
        assert_true(fabs(res.held_out_host - unigram.held_out_host) < 1e-6);   /* through a map, where it was without */
        assert_true(res.held_out_steered < res.held_out_host - 0.5);
        cmc_file f = rig_map(r.out);
        assert_true(f.size != n || memcmp(f.data, bytes, n) != 0);
        cmc_file_unmap(&f);
        free(bytes);
        bytes = rig_bytes(r.out, &n);
        stopper s = {"train", 9, false};
        rig_run(&r, &o, rig_stop, &s, CMC_E_CANCELLED);
        o.resume = true;
        cmc_train_opts without = o;
        without.host_mix_with = NULL;
        assert_int_equal(cmc_train(r.rt, &without, NULL, NULL, NULL, &err), CMC_E_ARG);
        assert_non_null(strstr(err.message, "mixed_with"));
        assert_true(rig_run(&r, &o, NULL, NULL, CMC_OK).resumed);
        rig_assert_same(r.out, bytes, n);
        free(bytes);
        free(other);
        rig_close(&r);
    }
}

/* Within a bound on memory it gives the same delta to rounding: pages and blocks of the mixer come and go. */
static void test_bounded(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 2, false);
    char *other = rig_path(&r, "other.gguf");
    other_write(other, false);
    cmc_train_opts o = mixed_opts(&r, other);
    cmc_train_result free_run = rig_run(&r, &o, NULL, NULL, CMC_OK);
    o.memory = 1u << 30;
    cmc_train_result bound = rig_run(&r, &o, NULL, NULL, CMC_OK);
    assert_true(fabs(bound.held_out_steered - free_run.held_out_steered) < 1e-3);
    free(other);
    rig_close(&r);
}

static void test_refused(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 1, false);
    char *other = rig_path(&r, "other.gguf"), *third = rig_path(&r, "third.gguf");
    other_write(other, false);
    other_write(third, true);
    const char *both[] = {r.host, third};
    for (int k = 0; k < 4; k++) {
        cmc_train_opts o = mixed_opts(&r, other);
        switch (k) {
        case 0: o.host_mix = 0.0; break;
        case 1: o.hosts = both; o.n_hosts = 2; break;
        case 2: o.host_mix_with = r.host; break;
        default: o.out_path = other;
        }
        rig_run(&r, &o, NULL, NULL, CMC_E_ARG);
    }
    free(other);
    free(third);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_is_defined), cmocka_unit_test(test_rows),    cmocka_unit_test(test_runs),
        cmocka_unit_test(test_bounded),         cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
