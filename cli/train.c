/* cmc train: make a delta. */
#include "cli/json.h"
#include "cli/train.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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
     .help = "for distil: a model with the host's vocabulary, which never learnt what is to be forgotten: what the host was tuned "
             "from, say"},
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
     .help = "sft learns the responses; the others forget them: ga and npo make them less likely, simnpo by length, graddiff and "
             "kl keep others meanwhile, idk learns to refuse, dpo prefers refusals, distil says what a teacher says", .choices = OBJECTIVES,
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

static const arg_group train_groups[] = {
    {"Files", train_files, 0},
    {"The delta", train_delta, 0},
    {"A model by itself, and what is added to it or to a delta", train_model, 0},
    {"Forgetting less, of --init or --base", train_keeping, 0},
    {"What is learnt or forgotten", train_aim, 0},
    {"Beside hosts", train_beside, 0},
    {"Training", train_how, 0},
    {"Every verb", common_opts, offsetof(train_args, common)},
};
enum { TRAIN_GROUPS = sizeof train_groups / sizeof *train_groups };

/* ---------------------------------------------------------------------------------------------------- progress */

bool train_callback(void *user, const cmc_train_progress *p) {
    train_state *st = user;
    char left[16], held[64] = "";
    double held_out = isfinite(p->held_out) ? p->held_out : st->last.held_out;
    double host = isfinite(p->held_out_host) ? p->held_out_host : st->last.held_out_host;
    st->last = *p;
    st->last.held_out = held_out;
    st->last.held_out_host = host;
    st->page_failed = train_html_report(&st->page, p) != CLI_OK;
    if (st->page_failed)
        return false;
    if (strcmp(p->phase, "plan") == 0) {
        if (st->bar.on)
            fprintf(stderr, "memory: %" PRIu64 " MiB at most\n", p->memory_planned >> 20);
        return true;
    }
    progress_time(p->seconds_left, left);
    if (isfinite(held_out) && isfinite(host))
        snprintf(held, sizeof held, ", held-out %.4f (%s %.4f)", held_out, st->beside, host);
    if (strcmp(p->phase, "train") == 0) {
        progress_show(&st->bar, "step %" PRId64 "/%" PRId64 ", loss %.4f%s, %.0f tok/s, %" PRIu64 " MiB, %s left",
                      p->step, p->steps, p->loss, held, p->tokens_per_second, p->memory >> 20, left);
    } else {
        progress_show(&st->bar, "%s: %" PRId64 "/%" PRId64 ", %.0f tok/s, %" PRIu64 " MiB, %s left", p->phase, p->step,
                      p->steps, p->tokens_per_second, p->memory >> 20, left);
    }
    st->stopped = cli_interrupted();
    return !st->stopped;
}

void train_json_result(jbuild *o, const cmc_train_result *r) {
    jset_int(o, "steps", r->steps);
    jset_int(o, "params", (int64_t)r->params);
    jset_int(o, "trained", (int64_t)r->trained);
    jset_int(o, "tokens", (int64_t)r->tokens);
    jset_int(o, "records", (int64_t)r->records);
    jset_int(o, "records_held_out", (int64_t)r->records_held_out);
    jset_int(o, "records_left_out", (int64_t)r->records_left_out);
    jset_int(o, "targets", (int64_t)r->targets);
    jset_real(o, "seconds", r->seconds);
    jset_int(o, "memory_planned", (int64_t)r->memory_planned);
    jset_int(o, "memory_peak", (int64_t)r->memory_peak);
    jset(o, "resumed", json_boolean(r->resumed));
    jset(o, "finished", json_boolean(r->finished));
}

static int train_json(const train_args *a, const cmc_train_result *r) {
    jbuild o = jobject();
    jset_string(&o, "out", a->t.out_path);
    train_json_result(&o, r);
    jset_int(&o, "targets_prefix", (int64_t)r->targets_prefix);
    jset_int(&o, "targets_left_out", (int64_t)r->targets_left_out);
    jset_real(&o, "held_out_host", r->held_out_host);
    jset_real(&o, "held_out_steered", r->held_out_steered);
    jset_real(&o, "alpha", r->alpha);
    jset_real(&o, "blas_gflop", r->blas_flop * 1e-9);
    jset_real(&o, "blas_seconds", r->blas_seconds);
    return jout(o);
}

static int train_summary(const train_args *a, const cmc_train_result *r) {
    int rc = out_printf("%s: %" PRIu64 " parameters, %" PRId64 " steps, %" PRIu64 " tokens in %.1f s\n", a->t.out_path,
                        r->params, r->steps, r->tokens, r->seconds);
    if (rc == CLI_OK)
        rc = out_printf("records: %zu trained on, %zu held out, %zu left out as too long\n", r->records,
                        r->records_held_out, r->records_left_out);
    size_t all = r->targets + r->targets_left_out;
    if (rc == CLI_OK && r->targets_prefix + r->targets_left_out > 0)
        rc = out_printf("targets: %zu, %.1f %% of them by rows of their own; %.1f %% of the hosts' tokens left out, for they "
                        "begin inside one of the delta's\n", r->targets,
                        100.0 * (double)r->targets_prefix / (double)r->targets,
                        100.0 * (double)r->targets_left_out / (double)all);
    if (rc == CLI_OK && isfinite(r->held_out_steered)) {
        rc = out_printf("held out: %.4f nats a token, the host alone %.4f; best at alpha %.6g\n", r->held_out_steered,
                        r->held_out_host, r->alpha);
    }
    return rc;
}

/* After Ctrl-C: where the training stands and how it goes on. */
int train_interrupted(const train_args *a, const train_state *st) {
    const char *ckpt = a->t.checkpoint_path;
    if (strcmp(st->last.phase, "host states") == 0) {    /* no step was made: there is no checkpoint of this run */
        cli_failed("stopped before the first step; what is evaluated of the host is kept; the same command goes on");
    } else {
        cli_failed("stopped at step %" PRId64 " of %" PRId64 "; the checkpoint is %s%s; the same command with --resume "
                   "goes on", st->last.step, st->last.steps, ckpt ? ckpt : a->t.out_path, ckpt ? "" : ".ckpt");
    }
    return CLI_INTERRUPTED;
}

/* --------------------------------------------------------------------------------------------------- the verb */

/* "800M", "2G", "1.5GiB": bytes, in units of 1024. */
int train_bytes(const char *size, uint64_t *out) {
    static const char units[] = "KMGT";
    char *end;
    if (!size)
        return CLI_OK;
    double bytes = strtod(size, &end);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    for (const char *u = units; unit && u <= unit; u++)
        bytes *= 1024;
    end += unit != NULL;
    end += unit && *end == 'i';
    end += *end == 'B';
    if (end == size || *end || !(bytes >= 1 && bytes < 0x1p62))
        return cli_usage("--memory: \"%s\" is no size; 800M or 2G would be", size);
    *out = (uint64_t)bytes;
    return CLI_OK;
}

/* --layers: a number is the delta's shape, all else says which are trained. */
static int train_layers(train_args *a) {
    char *end;
    if (!a->layers)
        return CLI_OK;
    long n = strtol(a->layers, &end, 10);
    if (end == a->layers || *end != '\0') {
        a->t.train_layers = a->layers;
        return CLI_OK;
    }
    if (n < 0 || n > 1024)
        return cli_usage("--layers: \"%s\" is no number from 0 to 1024", a->layers);
    a->t.n_layer = (int32_t)n;
    return CLI_OK;
}

/* --host-temperature: "LO:HI". */
static int train_temperature(train_args *a) {
    char *end;
    if (!a->temperature)
        return CLI_OK;
    double lo = strtod(a->temperature, &end), hi = 0;
    if (*end != ':' || !arg_number(end + 1, &hi) || !(lo > 0 && lo <= hi && hi <= 1000))
        return cli_usage("--host-temperature: \"%s\" is not LO:HI, two numbers above 0, the second no less", a->temperature);
    a->t.host_temperature_lo = lo;
    a->t.host_temperature_hi = hi;
    return CLI_OK;
}

int train_check_resume(bool resume, bool fresh) {
    return resume && fresh ? cli_usage("--fresh: contradicts --resume") : CLI_OK;
}

int train_check_keeping(train_args *a) {
    cmc_keep_opts *k = &a->t.keep;
    bool on_gradient = strcmp(k->mask_on, "gradient") == 0;
    if (!k->soft_mask && (on_gradient || strcmp(k->mask_control, "none") != 0))
        return cli_usage("%s: is for a mask: --soft-mask FILE", on_gradient ? "--mask-on" : "--mask-control");
    if (a->watch.n && !a->t.log_path)
        return cli_usage("--watch: its scores go to a log: --log FILE");
    if (!a->replay.n && k->replay_share != cmc_train_defaults().keep.replay_share)
        return cli_usage("--replay-share: is for --replay FILE");
    k->replay = a->replay.v;
    k->n_replay = a->replay.n;
    k->watch = a->watch.v;
    k->n_watch = a->watch.n;
    return CLI_OK;
}

/* What only some objectives have is not passed over in silence. */
int train_check_objective(const train_args *a) {
    const cmc_train_opts *o = &a->t, d = cmc_train_defaults();
    bool simnpo = strcmp(o->objective, "simnpo") == 0;
    bool beta = simnpo || strcmp(o->objective, "dpo") == 0 || strcmp(o->objective, "npo") == 0;
    if (o->beta != d.beta && !beta)
        return cli_usage("--beta: objective %s has none; dpo, npo and simnpo have", o->objective);
    if (o->gamma != d.gamma && !simnpo)
        return cli_usage("--gamma: objective %s has none; simnpo has", o->objective);
    return CLI_OK;
}

void train_take_lists(train_args *a) {
    a->t.hosts = a->hosts.v;
    a->t.n_hosts = a->hosts.n;
    a->t.data = a->data.v;
    a->t.n_data = a->data.n;
    a->t.retain = a->retain.v;
    a->t.n_retain = a->retain.n;
    a->t.retain_term = a->retain_term;
    a->t.alpha_hosts = a->alpha_hosts.v;
    a->t.n_alpha_hosts = a->alpha_hosts.n;
    a->t.seed = a->common.seed;
}

static int train_check(train_args *a, const arg_list *operands) {
    cmc_error err = {0};
    int rc = train_take_added(a);
    if (rc)
        return rc;
    if (operands->n)
        return cli_usage("\"%s\": train takes its records from files: --data FILE", operands->v[0]);
    if (!a->hosts.n)
        return cli_usage("-m: a host is needed: cmc train -m HOST");
    if (!a->data.n)
        return cli_usage("--data: a file of records is needed: --data FILE");
    if (!a->t.out_path)
        return cli_usage("-o: the delta needs a name: -o DELTA");
    if (train_check_resume(a->t.resume, a->t.fresh))
        return CLI_USAGE;
    if (cmc_template_parse(a->host_template, &a->t.host_template, &err) != CMC_OK)
        return cli_usage("--template: %s", err.message);
    if (cmc_template_parse(a->delta_template, &a->t.delta_template, &err) != CMC_OK)
        return cli_usage("--delta-template: %s", err.message);
    train_take_lists(a);
    rc = train_check_objective(a);
    return rc ? rc : train_check_keeping(a);
}

/* --host-weight: as many as hosts, each a number above 0. */
static int train_weights(train_args *a) {
    if (!a->weights.n)
        return CLI_OK;
    if (a->weights.n != a->hosts.n)
        return cli_usage("--host-weight: given %zu times for %zu hosts", a->weights.n, a->hosts.n);
    a->host_weights = calloc(a->weights.n, sizeof *a->host_weights);
    if (!a->host_weights)
        return cli_failed("out of memory");
    for (size_t i = 0; i < a->weights.n; i++) {
        char *end;
        a->host_weights[i] = strtod(a->weights.v[i], &end);
        if (end == a->weights.v[i] || *end || !(a->host_weights[i] > 0 && a->host_weights[i] <= 1e6))
            return cli_usage("--host-weight: \"%s\" is no number above 0", a->weights.v[i]);
    }
    a->t.host_weights = a->host_weights;
    return CLI_OK;
}

/* The page is written before anything else is: it must not be the checkpoint that nobody named either. */
int train_page_check(const train_args *a) {
    char *checkpoint = NULL;
    if (!a->html)
        return CLI_OK;
    if (asprintf(&checkpoint, "%s.ckpt", a->t.out_path) < 0)
        return cli_no_memory();
    bool same = !a->t.checkpoint_path && cli_same_file(a->html, checkpoint);
    free(checkpoint);
    return same ? cli_usage("--html: \"%s\" is the run's checkpoint; name another to write", a->html) : cli_check_write(a->html);
}

void train_page_begin(train_state *st, const train_args *a) {
    train_html_begin(&st->page, a->html, &(train_html_run){&a->t, train_groups, TRAIN_GROUPS, a, st->beside});
}

int train_page_end(train_state *st, cmc_status status, const cmc_train_result *r, const cmc_error *err) {
    train_end end = status == CMC_OK && r->finished ? TRAIN_FINISHED : st->stopped ? TRAIN_STOPPED : TRAIN_FAILED;
    int rc = st->page_failed ? CLI_FAILED : train_html_end(&st->page, end, r, end == TRAIN_FAILED ? err->message : NULL);
    train_html_free(&st->page);
    return rc;
}

static int train_main(void *opts, const arg_list *operands) {
    train_args *a = opts;
    cmc_runtime *rt = NULL;
    cmc_error err = {0};
    cmc_train_result result = {0};
    train_state st = {.beside = "host", .last = {.held_out = NAN, .held_out_host = NAN}};
    int rc = train_bytes(a->memory, &a->t.memory);
    if (!rc)
        rc = train_layers(a);
    if (!rc)
        rc = train_temperature(a);
    if (!rc && a->base)
        return train_base_main(a, operands);
    if (!rc)
        rc = train_check(a, operands);
    if (!rc)
        rc = train_page_check(a);
    if (!rc)
        rc = train_weights(a);
    if (rc) {
        free(a->host_weights);
        return rc;
    }
    cmc_runtime_opts rt_opts = cli_runtime_opts(&a->common, a->exact, a->batches);
    if (cmc_runtime_open(&rt_opts, &rt, &err) != CMC_OK) {
        free(a->host_weights);
        return cli_error(NULL, &err);
    }
    train_page_begin(&st, a);
    progress_start(&st.bar);
    cli_catch_interrupt();
    cmc_status status = cmc_train(rt, &a->t, train_callback, &st, &result, &err);
    progress_clear(&st.bar);
    cmc_runtime_free(rt);
    rc = train_page_end(&st, status, &result, &err);
    free(a->host_weights);
    if (rc)
        return rc;
    if (st.stopped && (status == CMC_E_CANCELLED || (status == CMC_OK && !result.finished)))
        return train_interrupted(a, &st);
    if (status != CMC_OK)
        return cli_error(NULL, &err);
    return a->common.json ? train_json(a, &result) : train_summary(a, &result);
}

static void train_defaults(void *opts) {
    train_args *a = opts;
    a->t = cmc_train_defaults();
    a->t.lr = 0;
    a->host_template = cmc_template_name(a->t.host_template);
    a->delta_template = cmc_template_name(a->t.delta_template);
    a->t.objective = "sft";
    a->retain_term = "default";
    a->t.keep.mask_control = "none";
    a->common.seed = a->t.seed;
}

const arg_verb verb_train = {
    .name = "train",
    .usage = "-m HOST... --data FILE... -o DELTA [options], or --base MODEL [--lora RANK | --expand KIND --blocks E] --data FILE... -o FILE",
    .summary = "train a delta, or tune a model",
    .text = "Trains a delta so that host and delta together give the data's responses; the host is not changed. With several "
            "hosts one delta learns to serve them all; a host whose vocabulary is not the delta's is reached through the token "
            "map. Ctrl-C "
            "leaves a checkpoint, from which --resume goes on. At the end the best strength is looked for on what was "
            "held out, and stored in the delta. With --base there is no host and no delta: a model itself is tuned on the "
            "responses, whole, by a LoRA adapter beside it, or by blocks "
            "added to it. It has the same objectives, but for distil; what they compare a host with its steered self by is then the model as it was "
            "at the start.",
    .example = "cmc train -m host.gguf --data train.jsonl -o delta.gguf",
    .groups = train_groups,
    .n_groups = TRAIN_GROUPS,
    .size = sizeof(train_args),
    .defaults = train_defaults,
    .main = train_main,
};
