/* cmc importance: which units of a model matter, for cmc train --soft-mask. */
#include "cli/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct importance_args {
    common_args common;
    arg_list data;
    const char *template, *memory;
    bool has_sign;
    cmc_importance_opts o;   /* data, template, memory and seed are filled in from the above */
} importance_args;

#define IMPORTANCE_AT(field) offsetof(importance_args, o.field)

static const arg_opt importance_opts[] = {
    {.name = "model", .file = ARG_READS, .letter = 'm', .kind = ARG_STR, .at = IMPORTANCE_AT(model), .value = "MODEL",
     .help = "the model, a GGUF file"},
    {.name = "data", .file = ARG_READS, .kind = ARG_LIST, .at = offsetof(importance_args, data), .value = "FILE",
     .help = "records, .jsonl or .json (may be repeated): those that are to be learnt, as in the paper, or of what is to be kept"},
    {.name = "out", .file = ARG_WRITES, .letter = 'o', .kind = ARG_STR, .at = IMPORTANCE_AT(out_path), .value = "FILE",
     .help = "the importance to write, a GGUF file"},
    {.name = "template", .kind = ARG_STR, .at = offsetof(importance_args, template), .value = "NAME",
     .help = "the prompt template (see cmc run --help)", .show_default = true},
    {.name = "dropout", .kind = ARG_REAL, .at = IMPORTANCE_AT(dropout), .value = "X",
     .help = "share of attention's weights and of the feed-forward part's output that each pass leaves out", .lo = 0x1p-16,
     .hi = 0.5, .show_default = true},
    {.name = "signed", .kind = ARG_FLAG, .at = offsetof(importance_args, has_sign),
     .help = "add up gradients with their sign, as CoFiTune's code does; otherwise each record's without it"},
    {.name = "max-len", .kind = ARG_INT, .at = IMPORTANCE_AT(max_len), .value = "N",
     .help = "tokens in a record; longer ones are left out", .lo = 2, .hi = 1 << 24, .show_default = true},
    {.name = "batch", .kind = ARG_INT, .at = IMPORTANCE_AT(batch), .value = "N", .help = "records in a pass at most", .lo = 1,
     .hi = 4096, .show_default = true},
    {.name = "memory", .kind = ARG_STR, .at = offsetof(importance_args, memory), .value = "SIZE",
     .help = "stay below this (800M, 2G), counted as resident memory"},
    {.name = "resume", .kind = ARG_FLAG, .at = IMPORTANCE_AT(resume), .help = "go on from the checkpoint, FILE.ckpt, where there is one"},
    {.name = "fresh", .kind = ARG_FLAG, .at = IMPORTANCE_AT(fresh), .help = "ignore and replace a checkpoint that is there"},
    {.name = NULL},
};

static bool importance_callback(void *user, const cmc_train_progress *p) {
    char left[16];
    progress_time(p->seconds_left, left);
    progress_show(user, "record %" PRId64 "/%" PRId64 ", KL %.3g, %.0f tok/s, %" PRIu64 " MiB, %s left", p->step, p->steps,
                  p->loss, p->tokens_per_second, p->memory >> 20, left);
    return !cli_interrupted();
}

static int importance_check(importance_args *a, const arg_list *operands) {
    cmc_error err = {0};
    if (operands->n)
        return cli_usage("\"%s\": importance takes its records from files: --data FILE", operands->v[0]);
    if (!a->o.model)
        return cli_usage("-m: a model is needed: -m MODEL");
    if (!a->data.n)
        return cli_usage("--data: a file of records is needed: --data FILE");
    if (!a->o.out_path)
        return cli_usage("-o: the importance needs a name: -o FILE");
    if (train_check_resume(a->o.resume, a->o.fresh))
        return CLI_USAGE;
    if (cmc_template_parse(a->template, &a->o.host_template, &err) != CMC_OK)
        return cli_usage("--template: %s", err.message);
    a->o.data = a->data.v;
    a->o.n_data = a->data.n;
    a->o.seed = a->common.seed;
    a->o.absolute = !a->has_sign;
    return train_bytes(a->memory, &a->o.memory);
}

static int importance_say(const importance_args *a, const cmc_importance_result *r) {
    if (!a->common.json)
        return out_printf("%s: %" PRIu64 " units, from %" PRIu64 " records and %" PRIu64 " tokens in %.1f s; the two passes are "
                          "%.3g nats a token apart\n", a->o.out_path, r->units, r->records, r->tokens, r->seconds, r->kl);
    jbuild o = jobject();
    jset_string(&o, "out", a->o.out_path);
    jset_int(&o, "units", (int64_t)r->units);
    jset_int(&o, "records", (int64_t)r->records);
    jset_int(&o, "tokens", (int64_t)r->tokens);
    jset_real(&o, "kl", r->kl);
    jset_real(&o, "seconds", r->seconds);
    return jout(o);
}

static int importance_main(void *opts, const arg_list *operands) {
    importance_args *a = opts;
    cmc_runtime *rt = NULL;
    cmc_error err = {0};
    cmc_importance_result r;
    progress bar;
    int rc = importance_check(a, operands);
    if (rc)
        return rc;
    cmc_runtime_opts rt_opts = {.threads = a->common.threads};
    if (cmc_runtime_open(&rt_opts, &rt, &err) != CMC_OK)
        return cli_error(NULL, &err);
    progress_start(&bar);
    cli_catch_interrupt();
    cmc_status st = cmc_importance(rt, &a->o, importance_callback, &bar, &r, &err);
    progress_clear(&bar);
    cmc_runtime_free(rt);
    if (st == CMC_E_CANCELLED) {
        cli_failed("%s; the checkpoint is %s.ckpt; the same command with --resume goes on", err.message, a->o.out_path);
        return CLI_INTERRUPTED;
    }
    return st == CMC_OK ? importance_say(a, &r) : cli_error(NULL, &err);
}

static void importance_defaults(void *opts) {
    importance_args *a = opts;
    a->o = cmc_importance_defaults();
    a->template = cmc_template_name(a->o.host_template);
}

static const arg_group importance_groups[] = {
    {"Options", importance_opts, 0},
    {"Every verb", common_opts, offsetof(importance_args, common)},
};

const arg_verb verb_importance = {
    .name = "importance",
    .usage = "-m MODEL --data FILE... -o FILE [options]",
    .summary = "measure which units of a model matter",
    .text = "Writes how much each attention head, feed-forward unit and channel of a model matters to what it says on some "
            "records, for cmc train --soft-mask: the records are gone through twice with a little dropout, and what a unit "
            "counts is how the distance of the two predictions would change with it (CoFiTune). No answers are learnt, and "
            "the model stays as it is.",
    .example = "cmc importance -m base.gguf --data new.jsonl -o importance.gguf",
    .groups = importance_groups,
    .n_groups = sizeof importance_groups / sizeof *importance_groups,
    .size = sizeof(importance_args),
    .defaults = importance_defaults,
    .main = importance_main,
};
