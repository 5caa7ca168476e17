/* Tiny but complete models, made in code: random weights over a vocabulary that is really learnt from a short text, in
 * the keys and tensor names that llama.cpp's converter writes. The same spec gives the same bytes on every machine. */
#ifndef CMC_TESTS_TINY_H
#define CMC_TESTS_TINY_H
#include "base/gguf.h"

typedef struct tiny_spec {
    const char *arch;            /* "llama", "qwen2" (QKV biases), "qwen3" (q/k norms), "gemma3" (both) */
    const char *vocab;           /* "bpe", "spm"; NULL: spm for gemma3, else bpe */
    const char *pre;             /* BPE pre-tokenizer's name; NULL: "qwen2" for qwen, else "smollm" */
    int32_t n_learnt;            /* merges (bpe) or learnt pieces (spm), as far as the text goes (some 280);
                                    0: all. A smaller number gives another vocabulary */
    int32_t n_embd, n_layer, n_head, n_head_kv, n_ff, n_ctx;   /* 0: 64, 2, 4, 2, 96, 256 */
    int32_t head_k, head_v;      /* widths of a head, 0: n_embd / n_head; the key_length and value_length keys are
                                    written where they differ from that, and always for gemma3 */
    uint32_t type;               /* of the matrices: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 (rows of whole 32s) */
    bool o_bias;                 /* llama, qwen2: attention's output has a bias */
    bool tied;                   /* no output.weight: the head is the embedding */
    double rope_base;            /* 0: 10000 */
    double rope_base_swa;        /* gemma3: base of the sliding-window layers, 0: no key */
    double rope_scale;           /* linear scaling factor, 0: no key */
    bool rope_freqs;             /* with a rope_freqs.weight, as Llama 3.1 has */
    int32_t swa_window;          /* gemma3: 0: no key */
    int32_t swa_period;          /* gemma3: every n-th layer attends to all; 0: no key (a reader takes 6) */
    bool control_first;          /* BPE: control tokens before the others, as in SmolLM, not after, as in Qwen */
    bool add_bos;                /* BPE; SPM vocabularies always ask for BOS */
    const char *chat_template;   /* NULL: no key */
    const char *name;            /* general.name; NULL: "tiny" */
    uint64_t seed;               /* of the weights; 0 is a seed like others */
    bool vocab_only;             /* no tensors */
    const char *expand;          /* "concat", "stack", "hybrid": with expanded blocks; NULL: without */
    const char *expand_merge;    /* NULL: "lerp" */
    int32_t expand_blocks;       /* 0: one for each layer */
    double expand_f;             /* f of every merge */
    bool expand_copies;          /* blocks that stand beside their layer are copies of it */
    bool (*extra)(void *user, gguf_writer *w);   /* more keys, `cmc.*` say; false: memory is out */
    void *user;
} tiny_spec;

/* Writes the model to `path`. */
cmc_status tiny_write(const tiny_spec *spec, const char *path, cmc_error *err);
/* Writes it in n parts, PREFIX-00001-of-0000n.gguf and on, and gives the first one's path in first[size]. */
cmc_status tiny_write_split(const tiny_spec *spec, const char *prefix, int n, char *first, size_t size, cmc_error *err);
/* The spec's SPM vocabulary as a SentencePiece .model file. */
cmc_status tiny_write_spm_model(const tiny_spec *spec, const char *path, cmc_error *err);

/* Copies a file with damage: cut to `size` bytes (-1: not), bit `bit` of the whole file turned over (-1: none). */
cmc_status tiny_damage(const char *from, const char *to, int64_t size, int64_t bit, cmc_error *err);

/* The text that the vocabularies are learnt from: English, some French, German, Chinese, Japanese, emoji, code. */
const char *tiny_text(void);

/* A directory for a test's files, made by tiny_dir_new in $TMPDIR or /tmp, removed with all in it by tiny_dir_free. */
char *tiny_dir_new(void);
void tiny_dir_free(char *dir);
/* DIR/NAME in one of eight rotating buffers of static memory: for use at once. */
const char *tiny_path(const char *dir, const char *name);
#endif
