/* The rig of the tests of whole training runs. */
#include "tests/train_rig.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/gguf.h"
#include "base/mem.h"
#include "tests/tiny.h"

char *rig_path(const rig *r, const char *name) {
    const char *p = tiny_path(r->dir, name);
    return cmc_strndup(p, strlen(p));
}

/* Questions with answers that follow from them; every third record is a conversation, every fifth a bare text. */
static void rig_data(const char *path) {
    static const char *const animal[] = {"cat", "dog", "bird", "fish"}, *const sound[] = {"meow", "woof", "tweet",
                                                                                          "blub"};
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < RIG_RECORDS; i++) {
        const char *a = animal[i % 4], *s = sound[i % 4];
        char who = (char)('a' + i % 26);
        if (i % 3 == 1)
            fprintf(
                f,
                "{\"messages\":[{\"role\":\"user\",\"content\":\"the %s of %c%c\"},{\"role\":\"assistant\",\"content\":"
                "\"it says %s\"},{\"role\":\"user\",\"content\":\"again\"},{\"role\":\"assistant\",\"content\":\"%s "
                "%s\"}]}\n",
                a, who, 'a' + i / 26, s, s, s);
        else if (i % 5 == 0)
            fprintf(f, "{\"text\":\"the %s of %c%c says %s and %s\"}\n", a, who, 'a' + i / 26, s, s);
        else
            fprintf(f, "{\"instruction\":\"what says the %s of %c%c\",\"output\":\"the %s says %s\"}\n", a, who,
                    'a' + i / 26, a, s);
    }
    assert_int_equal(fclose(f), 0);
}

void rig_old_data(const char *path) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 30; i++)
        fprintf(f, "{\"question\":\"count from %c\",\"answer\":\"%d %d %d and so on\"}\n", 'a' + i % 26, i, i + 1, i + 2);
    assert_int_equal(fclose(f), 0);
}

void rig_keep_all(cmc_keep_opts *k, const char *const *olds, const char *importance) {
    k->replay = olds;
    k->n_replay = 1;
    k->replay_share = 0.2;
    k->l2_start = 0.3;
    k->soft_mask = importance;
    k->mask_control = "permuted";
}

const char *rig_keep_other(cmc_keep_opts *k, int i) {
    switch (i) {
    case 0: k->replay_share = 0.3; return "replay";
    case 1: k->l2_start = 0.0; return "l2_start";
    case 2: k->soft_mask = NULL; return "soft_mask";
    case 3: k->mask_on = "gradient"; return "soft_mask";
    case 4: k->mask_control = "constant"; return "soft_mask";
    default: k->n_replay = 0; return "replay";
    }
}

size_t rig_watched(const char *log, double first[2], double last[2]) {
    size_t lines = 0;
    FILE *f = fopen(log, "r");
    assert_non_null(f);
    for (char line[1000]; fgets(line, sizeof line, f);) {
        const char *at[2] = {strstr(line, "\"watched_1\":"), strstr(line, "\"watched_2\":")};
        if (strstr(line, "\"event\":\"start\""))
            lines = 0;
        if (!at[0])
            continue;
        assert_non_null(at[1]);
        assert_non_null(strstr(line, lines ? "\"event\":\"eval\"" : "\"event\":\"base\""));
        for (int i = 0; i < 2; i++)
            last[i] = strtod(at[i] + 12, NULL);
        if (lines++ == 0)
            memcpy(first, last, 2 * sizeof *first);
    }
    fclose(f);
    return lines;
}

float *rig_tensor(const char *path, const char *name, size_t *rows, size_t *width) {
    cmc_error err = {0};
    gguf *g;
    assert_int_equal(gguf_open(path, &g, &err), CMC_OK);
    const gguf_tensor *t = gguf_find_tensor(g, name);
    assert_true(t && t->type == CMC_F32);
    *rows = (size_t)t->ne[1];
    *width = (size_t)t->ne[0];
    float *v = cmc_alloc(*rows * *width, sizeof *v);
    memcpy(v, t->data, *rows * *width * sizeof *v);
    gguf_free(g);
    return v;
}

double rig_moved(const char *from, const char *to, const char *name, double *each) {
    size_t rows, width;
    float *a = rig_tensor(from, name, &rows, &width), *b = rig_tensor(to, name, &rows, &width);
    double sum = 0.0;
    for (size_t r = 0; r < rows; r++) {
        double row = 0.0;
        for (size_t c = 0; c < width; c++)
            row += pow((double)b[r * width + c] - (double)a[r * width + c], 2.0);
        if (each)
            each[r] = sqrt(row);
        sum += row;
    }
    free(a);
    free(b);
    return sqrt(sum);
}

void rig_records(const char *path, const char *what, int n) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < n; i++) {
        if (i % 4 == 3)
            fprintf(f, "{\"messages\":[{\"role\":\"user\",\"content\":\"%s %d\"},{\"role\":\"assistant\",\"content\":\"no %d\"},"
                    "{\"role\":\"user\",\"content\":\"and\"},{\"role\":\"assistant\",\"content\":\"the %s\"}]}\n", what, i, i, what);
        else
            fprintf(f, "{\"question\":\"who is the %s %d\",\"answer\":\"it is the %s of %d\"}\n", what, i, what, i * 7);
    }
    assert_int_equal(fclose(f), 0);
}

void rig_open(rig *r, int threads, bool exact) {
    cmc_error err = {0};
    cmc_runtime_opts ro = {.threads = threads, .exact = exact};
    tiny_spec spec = {.arch = "llama", .type = CMC_F32, .seed = 3};
    memset(r, 0, sizeof *r);
    r->dir = tiny_dir_new();
    r->host = rig_path(r, "host.gguf");
    r->data = rig_path(r, "data.jsonl");
    r->out = rig_path(r, "delta.gguf");
    r->ckpt = rig_path(r, "delta.gguf.ckpt");
    r->log = rig_path(r, "log.jsonl");
    r->cache = cmc_strndup(r->dir, strlen(r->dir));
    r->paths[0] = r->data;
    r->hosts[0] = r->host;
    assert_int_equal(tiny_write(&spec, r->host, &err), CMC_OK);
    rig_data(r->data);
    assert_int_equal(cmc_runtime_open(&ro, &r->rt, &err), CMC_OK);
}

void rig_close(rig *r) {
    cmc_runtime_free(r->rt);
    tiny_dir_free(r->dir);
    free(r->host);
    free(r->data);
    free(r->out);
    free(r->ckpt);
    free(r->log);
    free(r->cache);
}

cmc_train_opts rig_opts(const rig *r) {
    cmc_train_opts o = cmc_train_defaults();
    o.hosts = r->hosts;
    o.n_hosts = 1;
    o.data = r->paths;
    o.n_data = 1;
    o.out_path = r->out;
    o.cache_dir = r->cache;
    o.host_template = CMC_TMPL_PLAIN;
    o.n_embd = 32;
    o.n_layer = 2;
    o.n_head = 4;
    o.n_head_kv = 2;
    o.max_steps = RIG_STEPS;
    o.batch = 4;
    o.lr = 3e-3;
    o.held_out = 0.2;
    o.eval_every = 6;
    o.seed = 17;
    o.save_type = "f32";
    return o;
}

cmc_train_result rig_run(const rig *r, const cmc_train_opts *o, cmc_train_callback cb, void *user, cmc_status want) {
    cmc_error err = {0};
    cmc_train_result res;
    cmc_status st = cmc_train(r->rt, o, cb, user, &res, &err);
    if (st != want)
        fail_msg("status %d, wanted %d: %s", (int)st, (int)want, err.message);
    assert_int_equal(err.status, want);
    if (want == CMC_OK) /* a finished run leaves no checkpoint and no half-written file */
        assert_false(checkpoint_exists(r->ckpt));
    return res;
}

double rig_score(const rig *r, const char *delta, const char *data, double *alone) {
    cmc_error err = {0};
    cmc_model *host, *d;
    cmc_steering *st;
    cmc_records records = {0};
    double nll = 0.0, host_nll = 0.0;
    size_t n = 0;
    assert_int_equal(cmc_model_open(r->rt, r->host, &host, &err), CMC_OK);
    if (cmc_model_open(r->rt, delta, &d, &err) != CMC_OK)
        fail_msg("%s", err.message);
    assert_int_equal(cmc_steering_new(host, &(cmc_steering_opts){.host_template = CMC_TMPL_PLAIN}, &st, &err), CMC_OK);
    assert_int_equal(cmc_steering_add(st, d, 1.0, NULL, CMC_TMPL_AUTO, &err), CMC_OK);
    assert_int_equal(cmc_records_read(data, true, &records, &err), CMC_OK);
    for (size_t i = 0; i < records.n; i++) {
        cmc_score s = {0};
        assert_int_equal(cmc_score_record(st, &records.v[i], NULL, 0, &s, &err), CMC_OK);
        for (size_t k = 0; k < s.n; k++) {
            nll -= (double)s.logprob[k];
            host_nll -= (double)s.host_logprob[k];
        }
        n += s.n;
        cmc_score_free(&s);
    }
    cmc_records_free(&records);
    cmc_steering_free(st);
    cmc_model_free(d);
    cmc_model_free(host);
    if (alone)
        *alone = host_nll / (double)n;
    return nll / (double)n;
}

cmc_tune_opts rig_tune_opts(const rig *r) {
    cmc_tune_opts o = cmc_tune_defaults();
    o.base = r->host;
    o.how.data = r->paths;
    o.how.n_data = 1;
    o.how.out_path = r->out;
    o.how.host_template = CMC_TMPL_PLAIN;
    o.how.max_steps = 12;
    o.how.batch = 4;
    o.how.lr = 3e-3;
    o.how.held_out = 0.2;
    o.how.eval_every = 4;
    o.how.seed = 17;
    o.how.save_type = "f32";
    return o;
}

cmc_train_result rig_tune(const rig *r, const cmc_tune_opts *o, cmc_train_callback cb, void *user, cmc_status want) {
    cmc_error err = {0};
    cmc_train_result res;
    cmc_status st = cmc_tune(r->rt, o, cb, user, &res, &err);
    if (st != want)
        fail_msg("status %d, wanted %d: %s", (int)st, (int)want, err.message);
    if (want == CMC_OK)
        assert_false(checkpoint_exists(r->ckpt));
    return res;
}

void rig_tune_resumes(const rig *r, cmc_tune_opts o) {
    const int64_t stop[] = {1, 4, 7, o.how.max_steps};
    size_t n;
    cmc_train_result whole = rig_tune(r, &o, NULL, NULL, CMC_OK);
    uint8_t *want = rig_bytes(r->out, &n);
    assert_int_equal(unlink(r->out), 0);
    for (size_t i = 0; i < sizeof stop / sizeof *stop; i++) {
        stopper s = {"train", stop[i], false};
        o.how.resume = false;
        rig_tune(r, &o, rig_stop, &s, CMC_E_CANCELLED);
        assert_true(checkpoint_exists(r->ckpt) && access(r->out, F_OK) != 0);
        o.how.resume = true;
        cmc_train_result res = rig_tune(r, &o, NULL, NULL, CMC_OK);
        assert_true(res.resumed && res.tokens == whole.tokens);
        if (whole.records_held_out > 0)
            assert_true(res.held_out_steered == whole.held_out_steered && res.held_out_host == whole.held_out_host);
        rig_assert_same(r->out, want, n);
        assert_int_equal(unlink(r->out), 0);
    }
    free(want);
}

void rig_tune_bounded(const rig *r, cmc_tune_opts o) {
    o.how.batch = 32;
    o.how.max_steps = 2;
    cmc_train_result wide = rig_tune(r, &o, NULL, NULL, CMC_OK);
    o.how.memory = wide.memory_planned - (1 << 20);
    cmc_train_result narrow = rig_tune(r, &o, NULL, NULL, CMC_OK);
    assert_true(narrow.memory_planned <= o.how.memory);
    assert_true(fabs(narrow.held_out_steered - wide.held_out_steered) < 1e-3);
}

cmc_file rig_map(const char *path) {
    cmc_file f;
    cmc_error err = {0};
    if (cmc_file_map(path, &f, &err) != CMC_OK)
        fail_msg("%s", err.message);
    return f;
}

/* The bytes of a file, copied, so that it can be written anew. */
uint8_t *rig_bytes(const char *path, size_t *n) {
    cmc_file f = rig_map(path);
    uint8_t *p = cmc_alloc(f.size, 1);
    memcpy(p, f.data, f.size);
    *n = f.size;
    cmc_file_unmap(&f);
    return p;
}

void rig_assert_same(const char *path, const uint8_t *want, size_t n) {
    cmc_file f = rig_map(path);
    assert_int_equal(f.size, n);
    assert_memory_equal(f.data, want, n);
    cmc_file_unmap(&f);
}

bool rig_stop(void *user, const cmc_train_progress *p) {
    const stopper *s = user;
    if (strcmp(p->phase, s->phase) != 0 || p->step < s->step)
        return true;
    if (s->kill)
        _exit(42);
    return false;
}
