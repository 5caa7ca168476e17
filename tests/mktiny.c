/* mktiny: writes tiny models for tests that work from a shell. */
#include "tests/tiny.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: mktiny [OPTIONS] OUT            write a tiny GGUF model to OUT\n"
    "       mktiny --damage FROM [--cut N] [--flip BIT] OUT\n"
    "\n"
    "The same options give the same bytes everywhere. Weights are random, vocabularies learnt from a text within.\n"
    "  --arch NAME        llama (default), qwen2, qwen3, gemma3\n"
    "  --vocab KIND       bpe, spm (default: spm for gemma3, else bpe)\n"
    "  --pre NAME         BPE pre-tokenizer (default: qwen2 for qwen, else smollm)\n"
    "  --learnt N         merges or pieces to learn (default: all there are, some 280)\n"
    "  --control-first    BPE: control tokens come first\n"
    "  --add-bos          BPE: the model asks for BOS\n"
    "  --embd N --layers N --heads N --heads-kv N --ff N --ctx N   sizes (default 64 2 4 2 96 256)\n"
    "  --head-k N --head-v N    widths of a head (default embd / heads)\n"
    "  --type NAME        F32 (default), F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1\n"
    "  --tied             the head is the embedding\n"
    "  --rope-base X --rope-base-swa X --rope-scale X --rope-freqs\n"
    "  --swa-window N --swa-period N       gemma3: sliding-window layers\n"
    "  --chat-template TEXT\n"
    "  --name TEXT        general.name\n"
    "  --seed N           of the weights (default 0)\n"
    "  --vocab-only       no tensors\n"
    "  --split N          OUT is a prefix: write OUT-00001-of-0000N.gguf and on, print the first\n"
    "  --spm-model        write a SentencePiece .model with the vocabulary instead\n"
    "  --text             print the text that vocabularies are learnt from, and stop\n"
    "  --damage FROM      copy FROM instead; --cut N keeps N bytes, --flip BIT turns one bit over\n"
    "  --help\n";

enum opt {
    O_ARCH = 1, O_VOCAB, O_PRE, O_LEARNT, O_CONTROL_FIRST, O_ADD_BOS, O_EMBD, O_LAYERS, O_HEADS, O_HEADS_KV, O_FF,
    O_CTX, O_HEAD_K, O_HEAD_V, O_TYPE, O_TIED, O_ROPE_BASE, O_ROPE_BASE_SWA, O_ROPE_SCALE, O_ROPE_FREQS,
    O_SWA_WINDOW, O_SWA_PERIOD, O_TEMPLATE, O_NAME, O_SEED, O_VOCAB_ONLY, O_SPLIT, O_SPM_MODEL, O_TEXT, O_DAMAGE,
    O_CUT, O_FLIP, O_HELP
};

static const struct option options[] = {
    {"arch", 1, NULL, O_ARCH},
    {"vocab", 1, NULL, O_VOCAB},
    {"pre", 1, NULL, O_PRE},
    {"learnt", 1, NULL, O_LEARNT},
    {"control-first", 0, NULL, O_CONTROL_FIRST},
    {"add-bos", 0, NULL, O_ADD_BOS},
    {"embd", 1, NULL, O_EMBD},
    {"layers", 1, NULL, O_LAYERS},
    {"heads", 1, NULL, O_HEADS},
    {"heads-kv", 1, NULL, O_HEADS_KV},
    {"ff", 1, NULL, O_FF},
    {"ctx", 1, NULL, O_CTX},
    {"head-k", 1, NULL, O_HEAD_K},
    {"head-v", 1, NULL, O_HEAD_V},
    {"type", 1, NULL, O_TYPE},
    {"tied", 0, NULL, O_TIED},
    {"rope-base", 1, NULL, O_ROPE_BASE},
    {"rope-base-swa", 1, NULL, O_ROPE_BASE_SWA},
    {"rope-scale", 1, NULL, O_ROPE_SCALE},
    {"rope-freqs", 0, NULL, O_ROPE_FREQS},
    {"swa-window", 1, NULL, O_SWA_WINDOW},
    {"swa-period", 1, NULL, O_SWA_PERIOD},
    {"chat-template", 1, NULL, O_TEMPLATE},
    {"name", 1, NULL, O_NAME},
    {"seed", 1, NULL, O_SEED},
    {"vocab-only", 0, NULL, O_VOCAB_ONLY},
    {"split", 1, NULL, O_SPLIT},
    {"spm-model", 0, NULL, O_SPM_MODEL},
    {"text", 0, NULL, O_TEXT},
    {"damage", 1, NULL, O_DAMAGE},
    {"cut", 1, NULL, O_CUT},
    {"flip", 1, NULL, O_FLIP},
    {"help", 0, NULL, O_HELP},
    {NULL, 0, NULL, 0},
};

typedef struct job {
    tiny_spec spec;
    int n_split;
    bool spm_model;
    const char *damage;
    int64_t cut, flip;
    bool failed;
} job;

static int64_t whole(job *j, const char *s, int64_t hi) {
    char *end;
    long long v = strtoll(s, &end, 10);
    if (end == s || *end != '\0' || v < 0 || v > hi) {
        fprintf(stderr, "mktiny: '%s' is no number from 0 to %lld\n", s, (long long)hi);
        j->failed = true;
        return 0;
    }
    return v;
}

static int32_t whole32(job *j, const char *s) { return (int32_t)whole(j, s, INT32_MAX); }

static double real(job *j, const char *s) {
    char *end;
    double v = strtod(s, &end);
    if (end == s || *end != '\0' || !(v > 0)) {
        fprintf(stderr, "mktiny: '%s' is no number above 0\n", s);
        j->failed = true;
    }
    return v;
}

static uint32_t type_of(job *j, const char *s) {
    for (uint32_t t = 0; t < 64; t++) {
        if (cmc_type_supported(t) && strcmp(cmc_type_name(t), s) == 0) {
            return t;
        }
    }
    fprintf(stderr, "mktiny: '%s' is no type\n", s);
    j->failed = true;
    return CMC_F32;
}

static void take(job *j, int opt, const char *arg) {
    tiny_spec *s = &j->spec;
    switch ((enum opt)opt) {
    case O_ARCH: s->arch = arg; break;
    case O_VOCAB: s->vocab = arg; break;
    case O_PRE: s->pre = arg; break;
    case O_LEARNT: s->n_learnt = whole32(j, arg); break;
    case O_CONTROL_FIRST: s->control_first = true; break;
    case O_ADD_BOS: s->add_bos = true; break;
    case O_EMBD: s->n_embd = whole32(j, arg); break;
    case O_LAYERS: s->n_layer = whole32(j, arg); break;
    case O_HEADS: s->n_head = whole32(j, arg); break;
    case O_HEADS_KV: s->n_head_kv = whole32(j, arg); break;
    case O_FF: s->n_ff = whole32(j, arg); break;
    case O_CTX: s->n_ctx = whole32(j, arg); break;
    case O_HEAD_K: s->head_k = whole32(j, arg); break;
    case O_HEAD_V: s->head_v = whole32(j, arg); break;
    case O_TYPE: s->type = type_of(j, arg); break;
    case O_TIED: s->tied = true; break;
    case O_ROPE_BASE: s->rope_base = real(j, arg); break;
    case O_ROPE_BASE_SWA: s->rope_base_swa = real(j, arg); break;
    case O_ROPE_SCALE: s->rope_scale = real(j, arg); break;
    case O_ROPE_FREQS: s->rope_freqs = true; break;
    case O_SWA_WINDOW: s->swa_window = whole32(j, arg); break;
    case O_SWA_PERIOD: s->swa_period = whole32(j, arg); break;
    case O_TEMPLATE: s->chat_template = arg; break;
    case O_NAME: s->name = arg; break;
    case O_SEED: s->seed = (uint64_t)whole(j, arg, INT64_MAX); break;
    case O_VOCAB_ONLY: s->vocab_only = true; break;
    case O_SPLIT: j->n_split = whole32(j, arg); break;
    case O_SPM_MODEL: j->spm_model = true; break;
    case O_DAMAGE: j->damage = arg; break;
    case O_CUT: j->cut = whole(j, arg, INT64_MAX); break;
    case O_FLIP: j->flip = whole(j, arg, INT64_MAX); break;
    case O_TEXT: fputs(tiny_text(), stdout); exit(0);
    case O_HELP: fputs(usage, stdout); exit(0);
    default: j->failed = true;
    }
}

int main(int argc, char **argv) {
    job j = {.cut = -1, .flip = -1};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        take(&j, c, optarg);
    }
    if (j.failed || optind != argc - 1) {
        fputs("mktiny: see mktiny --help\n", stderr);
        return 2;
    }
    const char *out = argv[optind];
    cmc_error err = {0};
    cmc_status status;
    if (j.damage != NULL) {
        status = tiny_damage(j.damage, out, j.cut, j.flip, &err);
    } else if (j.spm_model) {
        status = tiny_write_spm_model(&j.spec, out, &err);
    } else if (j.n_split > 0) {
        char first[4096];
        status = tiny_write_split(&j.spec, out, j.n_split, first, sizeof first, &err);
        if (status == CMC_OK) {
            puts(first);
        }
    } else {
        status = tiny_write(&j.spec, out, &err);
    }
    if (status != CMC_OK) {
        fprintf(stderr, "mktiny: %s\n", err.message);
        return 1;
    }
    return 0;
}
