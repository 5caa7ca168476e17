/* cmc train: its options. */
#include "cli/train.h"

#define OBJECTIVES "sft|ga|graddiff|kl|idk|dpo|npo|simnpo|distil"
#define TRAIN_AT(field) offsetof(train_args, t.field)

static const arg_opt train_files[] = {
    {.name = "model", .file = ARG_READS, .letter = 'm', .kind = ARG_LIST, .at = offsetof(train_args, hosts), .value = "HOST",
     .help = "the frozen host, a GGUF file; may be repeated: one delta for all of them"},
    {.name = "host-weight", .kind = ARG_LIST, .at = offsetof(train_args, weights), .value = "X",
     .help = "the share that a host's loss has, one for each -m in their order; otherwise all alike"},
    {.name = "data", .file = ARG_READS, .kind = ARG_LIST, .at = offsetof(train_args, data), .value = "FILE",
     .help = "records with responses, .jsonl or .json (may be repeated): to learn or, by objective, to forget"},
    {.name = "retain", .file = ARG_READS, .kind = ARG_LIST, .at = offsetof(train_args, retain), .value = "FILE",
     .help = "records whose responses are to be kept, where others are to be forgotten (may be repeated)"},
    {.name = "refusals", .file = ARG_READS, .kind = ARG_STR, .at = TRAIN_AT(refusals_path), .value = "FILE",
     .help = "for idk and dpo: what is said instead, one a line; otherwise some of cmc's own"},
    {.name = "teacher", .file = ARG_READS, .kind = ARG_STR, .at = TRAIN_AT(teacher), .value = "MODEL",
     .help = "for distil: a model with the host's vocabulary, whose every prediction the steered host is to make: the host tuned on "
             "the same records, say, or, to forget, what it was tuned from"},
    {.name = "out", .file = ARG_WRITES, .letter = 'o', .kind = ARG_STR, .at = TRAIN_AT(out_path), .value = "DELTA",
     .help = "the delta to write, a GGUF file"},
    {.name = "init", .file = ARG_READS, .kind = ARG_STR, .at = TRAIN_AT(init_path), .value = "FILE",
     .help = "start from this delta, or with --cut from this model; otherwise at random"},
    {.name = "cut", .kind = ARG_INT, .at = TRAIN_AT(cut), .value = "K",
     .help = "start from the embedding and the first K layers of --init, a llama-family model; 0: from all of it", .lo = 0,
     .hi = 1024, .show_default = true},
    {.name = "cut-gain", .kind = ARG_REAL, .at = TRAIN_AT(cut_gain), .value = "X",
     .help = "scale a cut's final norm by this; 0: so that host and delta together begin as the host alone", .lo = 0,
     .hi = 100, .show_default = true},
    {.name = "vocab", .file = ARG_READS, .kind = ARG_STR, .at = TRAIN_AT(vocab_path), .value = "FILE",
     .help = "a GGUF file or SentencePiece .model whose vocabulary the delta gets (see cmc train-vocab); otherwise its "
             "start's, or the first host's"},
    {.name = "alpha-host", .file = ARG_READS, .kind = ARG_LIST, .at = offsetof(train_args, alpha_hosts), .value = "FILE",
     .help = "find the best strength for this host as well (may be repeated)"},
    {.name = "checkpoint", .file = ARG_WRITES, .kind = ARG_STR, .at = TRAIN_AT(checkpoint_path), .value = "FILE",
     .help = "where the state of the training is kept; DELTA.ckpt otherwise"},
    {.name = "cache", .kind = ARG_STR, .at = TRAIN_AT(cache_dir), .value = "DIR",
     .help = "where the host's states are kept, made where it is not there; beside the checkpoint otherwise"},
    {.name = "log", .file = ARG_WRITES, .kind = ARG_STR, .at = TRAIN_AT(log_path), .value = "FILE",
     .help = "write a log, a JSON object a line"},
    {.name = "html", .file = ARG_WRITES, .kind = ARG_STR, .at = offsetof(train_args, html), .value = "FILE",
     .help = "write a page with the run's curves and settings, anew with every held-out score while it runs"},
    {.name = "memory", .kind = ARG_STR, .at = offsetof(train_args, memory), .value = "SIZE",
     .help = "stay below this (800M, 2G), counted as resident memory: the work is cut accordingly; otherwise as fast as it goes"},
    {.name = "resume", .kind = ARG_FLAG, .at = TRAIN_AT(resume), .help = "go on from the checkpoint, where there is one"},
    {.name = "fresh", .kind = ARG_FLAG, .at = TRAIN_AT(fresh), .help = "ignore and replace a checkpoint that is there"},
    {.name = NULL},
};

static const arg_opt train_delta[] = {
    {.name = "template", .kind = ARG_STR, .at = offsetof(train_args, host_template), .value = "NAME",
     .help = "the host's prompt template (see cmc run --help)", .show_default = true},
    {.name = "delta-template", .kind = ARG_STR, .at = offsetof(train_args, delta_template), .value = "NAME",
     .help = "the delta's prompt template", .show_default = true},
    {.name = "embd", .kind = ARG_INT, .at = TRAIN_AT(n_embd), .value = "N", .help = "width; 0: 192", .lo = 0,
     .hi = 65536},
    {.name = "layers", .kind = ARG_STR, .at = offsetof(train_args, layers), .value = "N|WHICH",
     .help = "N: how many layers the delta has, 4 where none is said. WHICH: of --init or --base train only these: A-B%, a part "
             "of the depth, or indices from 0 on and ranges of them, 0,2,4-6 (2-2 for a single one)"},
    {.name = "modules", .kind = ARG_STR, .at = TRAIN_AT(train_modules), .value = "LIST",
     .help = "of --init or --base train only these: q,k,v,o,gate,up,down,norms or some of them, embeddings, output; otherwise "
             "all, with --layers all that a layer has. What is not trained stays as it is"},
    {.name = "heads", .kind = ARG_INT, .at = TRAIN_AT(n_head), .value = "N", 
     .help = "attention heads; 0: one for every 32 of the width", .lo = 0, .hi = 4096},
    {.name = "kv-heads", .kind = ARG_INT, .at = TRAIN_AT(n_head_kv), .value = "N", 
     .help = "key and value heads; 0: as many as heads", .lo = 0, .hi = 4096},
    {.name = "ff", .kind = ARG_INT, .at = TRAIN_AT(n_ff), .value = "N", 
     .help = "width of the feed-forward layers; 0: 8/3 of the width", .lo = 0, .hi = 1 << 20},
    {.name = "save-type", .kind = ARG_STR, .at = TRAIN_AT(save_type), .value = "f32|f16|q8_0",
     .help = "how the delta's weights are stored", .choices = "f32|f16|q8_0", .show_default = true},
    {.name = NULL},
};

static const arg_opt train_model[] = {
    {.name = "base", .file = ARG_READS, .kind = ARG_STR, .at = offsetof(train_args, base), .value = "MODEL",
     .help = "in place of -m: tune this GGUF model itself, without a host; -o becomes a whole model"},
    {.name = "lora", .kind = ARG_STR, .at = offsetof(train_args, lora), .value = "RANK[:ALPHA]",
     .help = "train an adapter of this rank, ALPHA otherwise twice it. With --base -o becomes a LoRA adapter, for --lora of cmc run and "
             "of llama.cpp (stored as f32, or f16 where --save-type says that); with --init it becomes a delta that has it in it"},
    {.name = "lora-targets", .kind = ARG_STR, .at = TRAIN_AT(lora_targets), .value = "LIST",
     .help = "the matrices with an adapter: q,k,v,o,gate,up,down or some of them; otherwise all"},
    {.name = "expand", .kind = ARG_STR, .at = TRAIN_AT(expand.kind), .value = "concat|stack|hybrid",
     .help = "train new blocks and leave the model of --base, or the delta of --init, as it is: beside layers, fed the same and merged "
             "(concat), behind them (stack), or in turn; -o becomes the model with its blocks, for --expand-strength of cmc run, or the delta",
     .choices = "concat|stack|hybrid"},
    {.name = "blocks", .kind = ARG_INT, .at = TRAIN_AT(expand.blocks), .value = "E",
     .help = "with --expand: how many, at even distances; a number that divides the model's layers", .lo = 1, .hi = 4096},
    {.name = "merge", .kind = ARG_STR, .at = TRAIN_AT(expand.merge), .value = "lerp|dlerp|dlerpin|slerp",
     .help = "how a layer's output is merged with that of the block beside it: with one share for all tokens (lerp; slerp along an "
             "arc), or with one for each token, by the two outputs (dlerp) or by the layer's input (dlerpin)",
     .choices = "lerp|dlerp|dlerpin|slerp", .show_default = true},
    {.name = "merge-share", .kind = ARG_REAL, .at = TRAIN_AT(expand.share), .value = "X",
     .help = "the block's share to begin with", .lo = 1e-6, .hi = 0.999999, .show_default = true},
    {.name = "learn-share", .kind = ARG_FLAG, .at = TRAIN_AT(expand.learn_share), .help = "train the share too"},
    {.name = "align", .kind = ARG_STR, .at = TRAIN_AT(expand.align), .value = "none|mse|relative|cosine",
     .help = "the loss that holds a block to the layer beside it: mean square of the difference of their outputs (mse), that over "
             "the layer's (relative), or by their angle", .choices = "none|mse|relative|cosine", .show_default = true},
    {.name = "align-weight", .kind = ARG_REAL, .at = TRAIN_AT(expand.align_weight), .value = "X",
     .help = "its weight", .lo = 0, .hi = 1e6, .show_default = true},
    {.name = "align-by-share", .kind = ARG_FLAG, .at = TRAIN_AT(expand.align_by_share),
     .help = "times the block's share, token by token"},
    {.name = "align-through", .kind = ARG_FLAG, .at = TRAIN_AT(expand.align_through),
     .help = "the layer's output learns from it too, by way of earlier blocks; otherwise it only teaches"},
    {.name = "unfrozen", .kind = ARG_FLAG, .at = TRAIN_AT(expand.unfrozen),
     .help = "with --expand: train the model's own weights beside the blocks, to see what freezing them is worth; "
             "--expand-strength 0 is then not the base"},
    {.name = NULL},
};

/* Of --init or --base. */
static const arg_opt train_keeping[] = {
    {.name = "replay", .file = ARG_READS, .kind = ARG_LIST, .at = offsetof(train_args, replay), .value = "FILE",
     .help = "records of what it could before, gone through beside --data so that less is forgotten (may be repeated)"},
    {.name = "replay-share", .kind = ARG_REAL, .at = TRAIN_AT(keep.replay_share), .value = "X",
     .help = "the share of all records gone through that are --replay's", .lo = 1e-6, .hi = 0.9, .show_default = true},
    {.name = "watch", .file = ARG_READS, .kind = ARG_LIST, .at = offsetof(train_args, watch), .value = "FILE",
     .help = "records to score with every held-out score, for --log alone: what is forgotten, say (may be repeated)"},
    {.name = "l2-start", .kind = ARG_REAL, .at = TRAIN_AT(keep.l2_start), .value = "X",
     .help = "pull the weights back to where they start: adds X/2 times their squared distance to the loss", .lo = 0, .hi = 1e6,
     .show_default = true},
    {.name = "wise-ft", .kind = ARG_REAL, .at = TRAIN_AT(keep.wise_ft), .value = "SHARE",
     .help = "save what is so far on the line from the start to what was learnt, which keeps more of the start (WiSE-FT); 1: all the way",
     .lo = 1e-3, .hi = 1, .show_default = true},
    {.name = "soft-mask", .file = ARG_READS, .kind = ARG_STR, .at = TRAIN_AT(keep.soft_mask), .value = "FILE",
     .help = "change the rows of q, k, v, up and down the less, the more their importance stands out in this file, from cmc "
             "importance of what is started from"},
    {.name = "mask-on", .kind = ARG_STR, .at = TRAIN_AT(keep.mask_on), .value = "update|gradient",
     .help = "what the mask scales: a step, or its gradient, which AdamW all but undoes", .choices = "update|gradient",
     .show_default = true},
    {.name = "mask-control", .kind = ARG_STR, .at = TRAIN_AT(keep.mask_control), .value = "none|permuted|constant",
     .help = "in the mask's place, to see whether it says anything: its values elsewhere in their layer, or their mean",
     .choices = "none|permuted|constant", .show_default = true},
    {.name = NULL},
};

static const arg_opt train_aim[] = {
    {.name = "objective", .kind = ARG_STR, .at = TRAIN_AT(objective), .value = OBJECTIVES,
     .help = "sft learns the responses, distil what a teacher says of them; the others forget them: ga and npo make them less "
             "likely, simnpo by length, graddiff and kl keep others meanwhile, idk learns to refuse, dpo prefers refusals", .choices = OBJECTIVES,
     .show_default = true},
    {.name = "retain-term", .kind = ARG_STR, .at = offsetof(train_args, retain_term), .value = "default|none|nll|kl",
     .help = "how responses are kept: likely (nll), or as the host alone has them, or with --base the model at its start (kl); "
             "default is what the objective has",
     .choices = "default|none|nll|kl", .show_default = true},
    {.name = "retain-weight", .kind = ARG_REAL, .at = TRAIN_AT(retain_weight), .value = "X",
     .help = "weight of the retain term", .lo = 0, .hi = 1e6, .show_default = true},
    {.name = "beta", .kind = ARG_REAL, .at = TRAIN_AT(beta), .value = "X", .help = "beta of dpo, npo and simnpo", .lo = 1e-6,
     .hi = 1e6, .show_default = true},
    {.name = "gamma", .kind = ARG_REAL, .at = TRAIN_AT(gamma), .value = "X", .help = "gamma of simnpo", .lo = -1e6, .hi = 1e6,
     .show_default = true},
    {.name = "kl", .kind = ARG_REAL, .at = TRAIN_AT(kl), .value = "X",
     .help = "weight of KL(steered || host) on what is learnt: holds the delta back, or with --base the model", .lo = 0, .hi = 1e6,
     .show_default = true},
    {.name = NULL},
};

/* Beside hosts. */
static const arg_opt train_beside[] = {
    {.name = "alpha", .kind = ARG_REAL, .at = TRAIN_AT(alpha), .value = "X", .help = "strength while training",
     .lo = 0.001, .hi = 100, .show_default = true},
    {.name = "dropout", .kind = ARG_REAL, .at = TRAIN_AT(dropout), .value = "X",
     .help = "share of each branch's output that a step leaves out", .lo = 0, .hi = 0.9, .show_default = true},
    {.name = "host-temperature", .kind = ARG_STR, .at = offsetof(train_args, temperature), .value = "LO:HI",
     .help = "with sft: divide the host's logits by a temperature between these, drawn anew for every record of every step "
             "(log-uniformly), so that the delta relies less on what is this host's alone; held-out scores are as ever"},
    {.name = "host-mix", .kind = ARG_REAL, .at = TRAIN_AT(host_mix), .value = "M",
     .help = "likewise mix the host's distribution, geometrically, with the training targets' unigram, whose share is drawn "
             "between 0 and this; 0: not", .lo = 0, .hi = 0.999, .show_default = true},
    {.name = "host-mix-with", .file = ARG_READS, .kind = ARG_STR, .at = TRAIN_AT(host_mix_with), .value = "MODEL",
     .help = "beside one host: mix in what this model says, through the token map, in place of the unigram"},
    {.name = "prefix-rows", .kind = ARG_FLAG, .at = TRAIN_AT(prefix_rows),
     .help = "beside a host with another vocabulary: also learn from tokens that begin inside one of the delta's"},
    {.name = "cuts", .kind = ARG_REAL, .at = TRAIN_AT(cuts), .value = "P",
     .help = "chance that a response is cut once, at a random character, into two texts with tokens of their own, as the delta "
             "meets them where a host's token ends inside one of its own; never what is held out", .lo = 0, .hi = 1,
     .show_default = true},
    {.name = NULL},
};

const arg_opt train_how[] = {
    {.name = "epochs", .kind = ARG_INT, .at = TRAIN_AT(epochs), .value = "N", .help = "passes over the data", .lo = 1,
     .hi = 100000, .show_default = true},
    {.name = "max-steps", .kind = ARG_INT64, .at = TRAIN_AT(max_steps), .value = "N",
     .help = "stop after so many steps; 0: the epochs decide", .lo = 0, .hi = 1e15, .show_default = true},
    {.name = "batch", .kind = ARG_INT, .at = TRAIN_AT(batch), .value = "N", .help = "records in a step", .lo = 1,
     .hi = 65536, .show_default = true},
    {.name = "max-len", .kind = ARG_INT, .at = TRAIN_AT(max_len), .value = "N",
     .help = "tokens in a record; longer ones are left out and counted", .lo = 2, .hi = 1 << 24, .show_default = true},
    {.name = "lr", .kind = ARG_REAL, .at = TRAIN_AT(lr), .value = "X",
     .help = "learning rate at its highest; 0: 0.001, with --base 5e-5, with --lora 5e-4", .lo = 0, .hi = 10},
    {.name = "warmup", .kind = ARG_REAL, .at = TRAIN_AT(warmup), .value = "X",
     .help = "share of the steps in which the rate rises", .lo = 0, .hi = 1, .show_default = true},
    {.name = "min-lr", .kind = ARG_REAL, .at = TRAIN_AT(min_lr), .value = "X",
     .help = "where the rate ends, as a share of --lr", .lo = 0, .hi = 1, .show_default = true},
    {.name = "beta1", .kind = ARG_REAL, .at = TRAIN_AT(beta1), .value = "X", .help = "AdamW's first moment", .lo = 0,
     .hi = 0.999999, .show_default = true},
    {.name = "beta2", .kind = ARG_REAL, .at = TRAIN_AT(beta2), .value = "X", .help = "AdamW's second moment", .lo = 0,
     .hi = 0.9999999, .show_default = true},
    {.name = "eps", .kind = ARG_REAL, .at = TRAIN_AT(eps), .value = "X", .help = "AdamW's epsilon", .lo = 0, .hi = 1,
     .show_default = true},
    {.name = "weight-decay", .kind = ARG_REAL, .at = TRAIN_AT(weight_decay), .value = "X", .help = "weight decay",
     .lo = 0, .hi = 10, .show_default = true},
    {.name = "clip", .kind = ARG_REAL, .at = TRAIN_AT(clip), .value = "X",
     .help = "longest gradient; 0: as long as it is", .lo = 0, .hi = 1e6, .show_default = true},
    {.name = "held-out", .kind = ARG_REAL, .at = TRAIN_AT(held_out), .value = "X",
     .help = "share of the records that is held out; prompts that differ in numbers, case or punctuation alone stay together", .lo = 0, .hi = 0.9, .show_default = true},
    {.name = "eval-every", .kind = ARG_INT, .at = TRAIN_AT(eval_every), .value = "N",
     .help = "steps between scores of what is held out; 0: a tenth of an epoch", .lo = 0, .hi = INT32_MAX,
     .show_default = true},
    {.name = "patience", .kind = ARG_INT, .at = TRAIN_AT(patience), .value = "N",
     .help = "stop after so many scores without gain; 0: never", .lo = 0, .hi = INT32_MAX, .show_default = true},
    {.name = "checkpoint-every", .kind = ARG_INT, .at = TRAIN_AT(checkpoint_every), .value = "N",
     .help = "steps between checkpoints; 0: with every score", .lo = 0, .hi = INT32_MAX, .show_default = true},
    {.name = "exact", .kind = ARG_FLAG, .at = offsetof(train_args, exact),
     .help = "slow and reproducible arithmetic for the host"},
    {.name = "batches", .kind = ARG_STR, .at = offsetof(train_args, batches), .value = CLI_BATCHES,
     .help = "how the host multiplies batches: in float32, or with activations rounded to 15 or 8 bits where the machine has "
             "AVX-512 VNNI; auto is int15", .choices = CLI_BATCHES},
    {.name = NULL},
};

const arg_group train_groups[N_TRAIN_GROUPS] = {
    {"Files", train_files, 0},
    {"The delta", train_delta, 0},
    {"A model by itself, and what is added to it or to a delta", train_model, 0},
    {"Forgetting less, of --init or --base", train_keeping, 0},
    {"What is learnt or forgotten", train_aim, 0},
    {"Beside hosts", train_beside, 0},
    {"Training", train_how, 0},
    {"Every verb", common_opts, offsetof(train_args, common)},
};
