/* Model files that are refused, each with the message that says why; and odd ones that are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cmc.h"
#include "tests/tiny.h"

/* What is different in a copy of a tiny model. */
typedef struct edit {
    const char *arch;                 /* of the model that is copied */
    const char *drop_key;
    const char *put_key;              /* a key to set: to `text`, else to `number` */
    const char *text;
    double number;
    bool array;                       /* put_key becomes an array of 2 and 4 */
    const char *drop_tensor;
    const char *turn_tensor;          /* its dimensions change places */
    const char *new_tensor;           /* one more, of 32 zeros */
    const char *retype;               /* gets the type `type` without its data being of it */
    uint32_t type;
    int rows;                         /* token_embd.weight gets so many rows more (or fewer) */
    cmc_status status;
    const char *message;              /* what the message holds; NULL: the file opens */
} edit;

static const edit edits[] = {
    {.arch = "llama"},
    {.arch = "llama",
     .put_key = "general.architecture",
     .text = "mamba",
     .status = CMC_E_UNSUPPORTED,
     .message = "\"mamba\""},
    {.arch = "llama", .drop_key = "general.architecture", .status = CMC_E_FORMAT, .message = "general.architecture"},
    {.arch = "llama",
     .put_key = "llama.expert_count",
     .number = 8,
     .status = CMC_E_UNSUPPORTED,
     .message = "mixture of experts"},
    {.arch = "llama", .put_key = "llama.expert_count", .number = 0},
    {.arch = "llama",
     .put_key = "llama.rope.scaling.type",
     .text = "yarn",
     .status = CMC_E_UNSUPPORTED,
     .message = "yarn"},
    {.arch = "llama",
     .put_key = "llama.rope.scaling.type",
     .text = "longrope",
     .status = CMC_E_UNSUPPORTED,
     .message = "longrope"},
    {.arch = "llama", .put_key = "llama.rope.scaling.type", .text = "none"},
    {.arch = "llama",
     .put_key = "llama.rope.scaling.factor",
     .number = -2,
     .status = CMC_E_FORMAT,
     .message = "above 0"},
    {.arch = "llama", .put_key = "llama.rope.freq_base", .number = 0, .status = CMC_E_FORMAT, .message = "freq_base"},
    {.arch = "llama", .put_key = "llama.rope.dimension_count", .number = 7, .status = CMC_E_FORMAT, .message = "even"},
    {.arch = "llama",
     .put_key = "llama.rope.dimension_count",
     .number = 64,
     .status = CMC_E_FORMAT,
     .message = "dimension_count"},
    {.arch = "llama", .put_key = "llama.rope.dimension_count", .number = 8},
    {.arch = "llama",
     .put_key = "llama.attention.head_count",
     .number = 0,
     .status = CMC_E_FORMAT,
     .message = "head_count"},
    {.arch = "llama",
     .put_key = "llama.attention.head_count",
     .text = "4",
     .status = CMC_E_FORMAT,
     .message = "head_count"},
    {.arch = "llama",
     .put_key = "llama.attention.head_count_kv",
     .number = 3,
     .status = CMC_E_FORMAT,
     .message = "share"},
    {.arch = "llama",
     .put_key = "llama.attention.head_count_kv",
     .array = true,
     .status = CMC_E_UNSUPPORTED,
     .message = "layer to layer"},
    {.arch = "llama", .put_key = "llama.attention.head_count", .number = 3, .status = CMC_E_FORMAT, .message = "heads"},
    {.arch = "llama",
     .put_key = "llama.attention.layer_norm_rms_epsilon",
     .number = -1,
     .status = CMC_E_FORMAT,
     .message = "rms_epsilon"},
    {.arch = "llama",
     .drop_key = "llama.attention.layer_norm_rms_epsilon",
     .status = CMC_E_FORMAT,
     .message = "rms_epsilon"},
    {.arch = "llama", .drop_key = "llama.context_length", .status = CMC_E_FORMAT, .message = "context_length"},
    {.arch = "llama",
     .put_key = "llama.context_length",
     .number = 0,
     .status = CMC_E_FORMAT,
     .message = "context_length"},
    {.arch = "llama", .put_key = "llama.block_count", .number = 3, .status = CMC_E_FORMAT, .message = "blk.2."},
    {.arch = "llama", .put_key = "llama.block_count", .number = 1, .status = CMC_E_UNSUPPORTED, .message = "blk.1."},
    {.arch = "llama", .put_key = "llama.block_count", .number = 4e9, .status = CMC_E_FORMAT, .message = "block_count"},
    {.arch = "qwen2",
     .put_key = "qwen2.embedding_length",
     .number = 32,
     .status = CMC_E_FORMAT,
     .message = "token_embd.weight"},
    {.arch = "llama", .put_key = "llama.feed_forward_length", .number = 64, .status = CMC_E_FORMAT, .message = "ffn_"},
    {.arch = "llama",
     .put_key = "llama.attention.scale",
     .number = 0.5,
     .status = CMC_E_UNSUPPORTED,
     .message = "attention.scale"},
    {.arch = "llama",
     .put_key = "llama.attention.temperature_scale",
     .number = 0.1,
     .status = CMC_E_UNSUPPORTED,
     .message = "temperature"},
    {.arch = "gemma3",
     .put_key = "gemma3.final_logit_softcapping",
     .number = 30,
     .status = CMC_E_UNSUPPORTED,
     .message = "softcapping"},
    {.arch = "gemma3", .put_key = "gemma3.final_logit_softcapping", .number = 0},
    {.arch = "gemma3",
     .put_key = "gemma3.attention.sliding_window_pattern",
     .array = true,
     .status = CMC_E_UNSUPPORTED,
     .message = "array"},
    {.arch = "llama",
     .drop_tensor = "output_norm.weight",
     .status = CMC_E_FORMAT,
     .message = "output_norm.weight is missing"},
    {.arch = "llama",
     .drop_tensor = "token_embd.weight",
     .status = CMC_E_FORMAT,
     .message = "token_embd.weight is missing"},
    {.arch = "llama",
     .drop_tensor = "blk.1.ffn_up.weight",
     .status = CMC_E_FORMAT,
     .message = "blk.1.ffn_up.weight is missing"},
    {.arch = "llama", .drop_tensor = "output.weight"}, /* tied then */
    {.arch = "qwen2",
     .drop_tensor = "blk.0.attn_k.bias",
     .status = CMC_E_FORMAT,
     .message = "blk.0.attn_k.bias is missing"},
    {.arch = "qwen3",
     .drop_tensor = "blk.0.attn_q_norm.weight",
     .status = CMC_E_FORMAT,
     .message = "attn_q_norm.weight is missing"},
    {.arch = "gemma3",
     .drop_tensor = "blk.1.post_ffw_norm.weight",
     .status = CMC_E_FORMAT,
     .message = "post_ffw_norm.weight is missing"},
    {.arch = "llama",
     .turn_tensor = "blk.0.ffn_down.weight",
     .status = CMC_E_FORMAT,
     .message = "blk.0.ffn_down.weight has shape"},
    {.arch = "llama",
     .turn_tensor = "blk.1.attn_k.weight",
     .status = CMC_E_FORMAT,
     .message = "blk.1.attn_k.weight has shape"},
    {.arch = "llama",
     .new_tensor = "blk.0.ffn_gate_inp.weight",
     .status = CMC_E_UNSUPPORTED,
     .message = "blk.0.ffn_gate_inp.weight"},
    {.arch = "llama", .new_tensor = "blk.0.attn_q_norm.weight", .status = CMC_E_UNSUPPORTED, .message = "attn_q_norm"},
    {.arch = "llama", .new_tensor = "output.bias", .status = CMC_E_UNSUPPORTED, .message = "output.bias"},
    {.arch = "llama", .new_tensor = "blk.0.attn.rotary_emb.inv_freq"},
    {.arch = "llama", .new_tensor = "rope_freqs.weight", .status = CMC_E_FORMAT, .message = "rope_freqs.weight"},
    {.arch = "llama",
     .retype = "blk.0.attn_q.weight",
     .type = 16,
     .status = CMC_E_UNSUPPORTED,
     .message = "tensor blk.0.attn_q.weight has type IQ2_XXS, which cmc does not read"},
    {.arch = "llama",
     .retype = "blk.0.attn_norm.weight",
     .type = 24,
     .status = CMC_E_UNSUPPORTED,
     .message = "blk.0.attn_norm.weight"},
    {.arch = "llama", .rows = 10}, /* padded embeddings */
    {.arch = "llama", .rows = -1, .status = CMC_E_FORMAT, .message = "rows"},
};

static void ok(cmc_status st, const cmc_error *err) {
    if (st != CMC_OK)
        fail_msg("%s", err->message);
}

static bool is(gguf_str s, const char *name) {
    return name && s.n == strlen(name) && memcmp(s.s, name, s.n) == 0;
}

static void put_key(gguf_writer *w, const edit *e) {
    const uint32_t pair[] = {2, 4};
    if (e->array)
        assert_true(gguf_put_array(w, e->put_key, GGUF_U32, pair, 2));
    else if (e->text)
        assert_true(gguf_put_str(w, e->put_key, e->text, strlen(e->text)));
    else if (e->number < 0 || e->number != (double)(uint32_t)e->number || strstr(e->put_key, "rope.freq"))
        assert_true(gguf_put_f32(w, e->put_key, (float)e->number));
    else
        assert_true(gguf_put_u32(w, e->put_key, (uint32_t)e->number));
}

/* token_embd.weight with more or fewer rows; the caller frees it. */
static uint8_t *other_rows(const gguf_tensor *t, int rows, uint64_t ne[4]) {
    const size_t row = (size_t)(t->bytes / t->ne[1]);
    ne[1] = (uint64_t)((int64_t)t->ne[1] + rows);
    uint8_t *data = calloc((size_t)ne[1], row);
    memcpy(data, t->data, (size_t)(ne[1] < t->ne[1] ? ne[1] : t->ne[1]) * row);
    return data;
}

static void copy_edited(const char *from, const char *to, const edit *e) {
    cmc_error err = {0};
    gguf *g;
    ok(gguf_open(from, &g, &err), &err);
    gguf_writer *w = gguf_writer_new();
    static const float zeros[32];
    uint8_t *embd = NULL;
    for (size_t i = 0; i < g->n_kv; i++)
        if (!is(g->kv[i].key, e->drop_key) && !is(g->kv[i].key, e->put_key))
            assert_true(gguf_put_kv(w, &g->kv[i]));
    if (e->put_key)
        put_key(w, e);
    for (size_t i = 0; i < g->n_tensors; i++) {
        const gguf_tensor *t = &g->tensors[i];
        char name[128];
        (void)snprintf(name, sizeof name, "%.*s", (int)t->name.n, t->name.s);
        uint64_t ne[4] = {t->ne[0], t->ne[1], t->ne[2], t->ne[3]};
        const uint8_t *data = t->data;
        if (is(t->name, e->drop_tensor))
            continue;
        if (is(t->name, e->turn_tensor)) {
            ne[0] = t->ne[1];
            ne[1] = t->ne[0];
        }
        if (e->rows && (strcmp(name, "token_embd.weight") == 0))
            data = embd = other_rows(t, e->rows, ne);
        if (e->rows && strcmp(name, "output.weight") == 0)
            continue;
        assert_true(gguf_put_tensor(w, name, t->type, ne, t->n_dims, data));
    }
    const uint64_t ne[1] = {32};
    if (e->new_tensor)
        assert_true(gguf_put_tensor(w, e->new_tensor, CMC_F32, ne, 1, zeros));
    ok(gguf_writer_save(w, to, &err), &err);
    gguf_writer_free(w);
    gguf_free(g);
    free(embd);
}

/* Writes another type number into a tensor's entry: after the name come the number of dimensions and their sizes. */
static void retype(const char *path, const char *tensor, uint32_t type) {
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    char buf[1 << 16];
    const size_t n = fread(buf, 1, sizeof buf, f), len = strlen(tensor);
    char *at = memmem(buf, n, tensor, len);
    assert_non_null(at);
    uint32_t dims;
    memcpy(&dims, at + len, 4);
    assert_int_equal(fseek(f, (long)(at - buf) + (long)len + 4 + 8 * (long)dims, SEEK_SET), 0);
    assert_int_equal(fwrite(&type, 4, 1, f), 1);
    assert_int_equal(fclose(f), 0);
}

static cmc_runtime *runtime(void) {
    cmc_error err = {0};
    const cmc_runtime_opts opts = {.threads = 1};
    cmc_runtime *rt;
    ok(cmc_runtime_open(&opts, &rt, &err), &err);
    return rt;
}

static void refused_files(void **state) {
    (void)state;
    char *dir = tiny_dir_new();
    cmc_runtime *rt = runtime();
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        const edit *e = &edits[i];
        /* rows of 256, so that every type's block fits and other types can be claimed */
        const tiny_spec spec = {.arch = e->arch, .type = CMC_F32, .n_embd = e->retype ? 256 : 64};
        cmc_error err = {0};
        ok(tiny_write(&spec, tiny_path(dir, "good.gguf"), &err), &err);
        const char *path = tiny_path(dir, "edited.gguf");
        copy_edited(tiny_path(dir, "good.gguf"), path, e);
        if (e->retype)
            retype(path, e->retype, e->type);
        cmc_model *m;
        const cmc_status st = cmc_model_open(rt, path, &m, &err);
        if (!e->message) {
            if (st != CMC_OK)
                fail_msg("edit %zu should open, but: %s", i, err.message);
            cmc_model_free(m);
            continue;
        }
        assert_null(m);
        if (st != e->status || !strstr(err.message, e->message) || strncmp(err.message, path, strlen(path)) != 0 ||
            strchr(err.message, '\n'))
            fail_msg("edit %zu: status %d, message: %s", i, (int)st, err.message);
    }
    cmc_runtime_free(rt);
    tiny_dir_free(dir);
}

/* Padded embeddings: logits have the embeddings' rows, and every id of them can be evaluated. */
static void padded_rows(void **state) {
    (void)state;
    char *dir = tiny_dir_new();
    cmc_runtime *rt = runtime();
    cmc_error err = {0};
    const tiny_spec spec = {.arch = "llama"};
    const edit e = {.rows = 3};
    ok(tiny_write(&spec, tiny_path(dir, "good.gguf"), &err), &err);
    copy_edited(tiny_path(dir, "good.gguf"), tiny_path(dir, "padded.gguf"), &e);
    cmc_model *m;
    ok(cmc_model_open(rt, tiny_path(dir, "padded.gguf"), &m, &err), &err);
    const int32_t n = cmc_model_n_vocab(m);
    assert_int_equal(n, cmc_vocab_size(cmc_model_vocab(m)) + 3);
    cmc_session *s;
    ok(cmc_session_new(m, 0, &s, &err), &err);
    ok(cmc_session_append(s, n - 1, &err), &err);
    float *logits = calloc((size_t)n, sizeof *logits);
    const cmc_eval_item it = {s, CMC_WANT_LOGITS, 1, logits};
    ok(cmc_eval(m, &it, 1, &err), &err);
    assert_true(logits[n - 1] == 0.0f); /* a row of zeros */
    free(logits);
    cmc_session_free(s);
    cmc_model_free(m);
    cmc_runtime_free(rt);
    tiny_dir_free(dir);
}

/* Sets of parts that are not whole. */
static void broken_splits(void **state) {
    (void)state;
    char *dir = tiny_dir_new();
    cmc_runtime *rt = runtime();
    cmc_error err = {0};
    const tiny_spec spec = {.arch = "llama"}, other = {.arch = "llama", .seed = 1};
    char first[512], path[512], from[512];
    cmc_model *m;

    ok(tiny_write_split(&spec, tiny_path(dir, "m"), 3, first, sizeof first, &err), &err);
    (void)snprintf(path, sizeof path, "%s", tiny_path(dir, "renamed.gguf"));
    ok(tiny_damage(first, path, -1, -1, &err), &err);
    assert_int_equal(cmc_model_open(rt, path, &m, &err), CMC_E_FORMAT);
    assert_non_null(strstr(err.message, "-of-00003.gguf"));

    (void)snprintf(path, sizeof path, "%s", tiny_path(dir, "m-00002-of-00003.gguf"));
    (void)snprintf(from, sizeof from, "%s", tiny_path(dir, "m-00003-of-00003.gguf"));
    ok(tiny_damage(path, tiny_path(dir, "spare.gguf"), -1, -1, &err), &err);
    ok(tiny_damage(from, path, -1, -1, &err), &err); /* the third part under the second's name */
    assert_int_equal(cmc_model_open(rt, first, &m, &err), CMC_E_FORMAT);
    assert_non_null(strstr(err.message, "split.no"));

    assert_int_equal(unlink(path), 0);
    assert_int_equal(cmc_model_open(rt, first, &m, &err), CMC_E_IO);
    assert_non_null(strstr(err.message, "m-00002-of-00003.gguf"));
    assert_int_equal(cmc_model_open(rt, from, &m, &err), CMC_E_IO); /* from any part */

    char two[512];
    ok(tiny_write_split(&other, tiny_path(dir, "n"), 2, two, sizeof two, &err), &err);
    ok(tiny_damage(tiny_path(dir, "n-00002-of-00002.gguf"), path, -1, -1, &err), &err); /* a part of another set */
    assert_int_equal(cmc_model_open(rt, first, &m, &err), CMC_E_FORMAT);
    assert_non_null(strstr(err.message, "split.count"));

    ok(tiny_damage(tiny_path(dir, "spare.gguf"), path, -1, -1, &err), &err); /* all is well again */
    ok(cmc_model_open(rt, first, &m, &err), &err);
    cmc_model_free(m);
    cmc_runtime_free(rt);
    tiny_dir_free(dir);
}

/* Any one bit of the header turned over: opened or refused, never worse; what opens can be evaluated. */
static void turned_bits(void **state) {
    (void)state;
    char *dir = tiny_dir_new();
    cmc_runtime *rt = runtime();
    cmc_error err = {0};
    const tiny_spec spec = {.arch = "gemma3", .n_embd = 32, .n_head = 2, .n_head_kv = 1, .n_ff = 32, .n_layer = 1,
                            .n_learnt = 5, .tied = true};
    ok(tiny_write(&spec, tiny_path(dir, "good.gguf"), &err), &err);
    gguf *g;
    ok(gguf_open(tiny_path(dir, "good.gguf"), &g, &err), &err);
    const int64_t bits = 8 * (int64_t)g->header_bytes;
    gguf_free(g);
    size_t refused = 0, opened = 0;
    for (int64_t bit = 0; bit < bits; bit += 97) {
        ok(tiny_damage(tiny_path(dir, "good.gguf"), tiny_path(dir, "bad.gguf"), -1, bit, &err), &err);
        cmc_model *m;
        if (cmc_model_open(rt, tiny_path(dir, "bad.gguf"), &m, &err) != CMC_OK) {
            refused++;
            continue;
        }
        opened++;
        cmc_session *s;
        if (cmc_session_new(m, 1, &s, &err) == CMC_OK) {
            float *row = calloc((size_t)cmc_model_n_embd(m), sizeof *row);
            const cmc_eval_item it = {s, CMC_WANT_HIDDEN, 1, row};
            ok(cmc_session_append(s, 0, &err), &err);
            ok(cmc_eval(m, &it, 1, &err), &err);
            free(row);
            cmc_session_free(s);
        }
        cmc_model_free(m);
    }
    assert_true(refused > 0 && opened > 0);
    cmc_runtime_free(rt);
    tiny_dir_free(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_files),
        cmocka_unit_test(padded_rows),
        cmocka_unit_test(broken_splits),
        cmocka_unit_test(turned_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
