/* cmc merge: a model and its LoRA adapters, two models of one shape, or an expanded model and its blocks, as one model. */
#include "cli/json.h"
#include "cli/steer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct merge_args {
    common_args common;
    const char *base, *with, *out, *save_type;
    arg_list loras;
    char *tuned;           /* `with`, taken apart */
    double share;
    bool fold;
    double expand;         /* strength of the blocks that are folded */
} merge_args;

static const arg_opt merge_opts[] = {
    {.name = "model", .file = ARG_READS, .letter = 'm', .kind = ARG_STR, .at = offsetof(merge_args, base), .value = "BASE",
     .help = "the model, a GGUF file"},
    {.name = "lora", .file = ARG_READS_WITH, .kind = ARG_LIST, .at = offsetof(merge_args, loras), .value = "FILE[=SCALE]",
     .help = "a LoRA adapter, a GGUF file, and its strength, 1 where none is given (may be repeated)"},
    {.name = "with", .file = ARG_READS_WITH, .kind = ARG_STR, .at = offsetof(merge_args, with), .value = "TUNED=SHARE",
     .help = "in place of --lora: a model of the same shape, and how far to go to it from BASE, from 0 to 1 (WiSE-FT)"},
    {.name = "fold", .kind = ARG_FLAG, .at = offsetof(merge_args, fold),
     .help = "in place of --lora: make an ordinary model of an expanded one (see cmc train --expand). Blocks beside layers are "
             "averaged with them, which lerp alone allows and which costs some quality; blocks behind layers become layers"},
    {.name = "expand-strength", .kind = ARG_REAL, .at = offsetof(merge_args, expand), .value = "X",
     .help = "with --fold: how far blocks beside layers count, 1 as trained, 0 not at all", .lo = -100, .hi = 100,
     .show_default = true},
    {.name = "out", .file = ARG_WRITES, .letter = 'o', .kind = ARG_STR, .at = offsetof(merge_args, out), .value = "FILE",
     .help = "the model to write, a GGUF file"},
    {.name = "save-type", .kind = ARG_STR, .at = offsetof(merge_args, save_type), .value = "f32|f16|q8_0",
     .help = "how the matrices are stored", .choices = "f32|f16|q8_0", .show_default = true},
    {.name = NULL},
};

/* The base with its adapters, or a model between it and another. */
static int merge_save(const merge_args *a, cmc_runtime *rt, cmc_model *m) {
    cmc_error err = {0};
    cmc_model *tuned = NULL;
    if (a->fold)
        return cmc_model_save_folded(m, a->expand, a->out, a->save_type, &err) == CMC_OK ? CLI_OK : cli_error(NULL, &err);
    if (!a->with) {
        int rc = steer_add_loras(m, &a->loras);
        if (rc)
            return rc;
        return cmc_model_save(m, a->out, a->save_type, &err) == CMC_OK ? CLI_OK : cli_error(NULL, &err);
    }
    bool ok = cmc_model_open(rt, a->tuned, &tuned, &err) == CMC_OK &&
              cmc_model_save_mix(m, tuned, a->share, a->out, a->save_type, &err) == CMC_OK;
    cmc_model_free(tuned);
    return ok ? CLI_OK : cli_error(NULL, &err);
}

static int merge_say_folded(const merge_args *a, const cmc_model *m, int64_t bytes) {
    cmc_expand_info x;
    cmc_file_info *fi;
    cmc_error err = {0};
    (void)cmc_model_expand(m, &x);
    if (cmc_file_info_open(a->out, &fi, &err) != CMC_OK)
        return cli_error(NULL, &err);
    uint64_t params = cmc_file_info_params(fi);
    cmc_file_info_free(fi);
    if (!a->common.json)
        return out_printf("%s: %" PRIu64 " parameters, %" PRId64 " bytes, %zu blocks folded in\n", a->out, params, bytes, x.n);
    jbuild o = jobject();
    jset_string(&o, "out", a->out);
    jset_int(&o, "params", (int64_t)params);
    jset_int(&o, "bytes", bytes);
    jset_int(&o, "blocks", (int64_t)x.n);
    jset_real(&o, "strength", a->expand);
    return jout(o);
}

static int merge_say(const merge_args *a, const cmc_model *m) {
    struct stat st;
    int64_t bytes = stat(a->out, &st) == 0 ? (int64_t)st.st_size : 0;
    if (a->fold)
        return merge_say_folded(a, m, bytes);
    if (!a->common.json && a->with)
        return out_printf("%s: %" PRIu64 " parameters, %" PRId64 " bytes, %g of the way to %s\n", a->out,
                          cmc_model_params(m), bytes, a->share, a->tuned);
    if (!a->common.json)
        return out_printf("%s: %" PRIu64 " parameters, %" PRId64 " bytes, %zu adapters merged\n", a->out,
                          cmc_model_params(m), bytes, a->loras.n);
    jbuild o = jobject();
    jset_string(&o, "out", a->out);
    jset_int(&o, "params", (int64_t)cmc_model_params(m));
    jset_int(&o, "bytes", bytes);
    jset_int(&o, "adapters", (int64_t)a->loras.n);
    if (a->with)
        jset_real(&o, "share", a->share);
    return jout(o);
}

static int merge_check(merge_args *a, const arg_list *operands) {
    if (operands->n)
        return cli_usage("\"%s\": merge takes no operands", operands->v[0]);
    if (!a->base)
        return cli_usage("-m: a model is needed: cmc merge -m BASE");
    if (!a->loras.n && !a->with && !a->fold)
        return cli_usage("--lora: an adapter is needed: --lora FILE, or --with TUNED=SHARE, or --fold");
    if (a->fold && (a->loras.n || a->with))
        return cli_usage("--fold: makes an ordinary model of an expanded one, and %s is for something else",
                         a->with ? "--with" : "--lora");
    if (!a->fold && a->expand != 1)
        return cli_usage("--expand-strength: is for --fold");
    if (a->loras.n && a->with)
        return cli_usage("--with: mixes two models, and --lora merges adapters into one");
    if (!a->out)
        return cli_usage("-o: the merged model needs a name: -o FILE");
    if (!a->with)
        return CLI_OK;
    if (!steer_split(a->with, &a->tuned, &a->share))
        return cli_no_memory();
    if (!*a->tuned || !(a->share >= 0 && a->share <= 1))
        return cli_usage("--with: \"%s\" is not TUNED=SHARE, a model and a number from 0 to 1", a->with);
    return CLI_OK;
}

static int merge_main(void *opts, const arg_list *operands) {
    merge_args *a = opts;
    cmc_runtime *rt = NULL;
    cmc_model *m = NULL;
    cmc_error err = {0};
    cmc_runtime_opts rt_opts = {.threads = a->common.threads};
    int rc = merge_check(a, operands);
    if (!rc && (cmc_runtime_open(&rt_opts, &rt, &err) != CMC_OK || cmc_model_open(rt, a->base, &m, &err) != CMC_OK))
        rc = cli_error(NULL, &err);
    if (!rc)
        rc = merge_save(a, rt, m);
    if (!rc)
        rc = merge_say(a, m);
    cmc_model_free(m);
    cmc_runtime_free(rt);
    free(a->tuned);
    return rc;
}

static void merge_defaults(void *opts) {
    merge_args *a = opts;
    a->save_type = "q8_0";
    a->expand = 1;
}

static const arg_group merge_groups[] = {
    {"Files", merge_opts, 0},
    {"Every verb", common_opts, offsetof(merge_args, common)},
};

const arg_verb verb_merge = {
    .name = "merge",
    .usage = "-m BASE (--lora FILE[=SCALE]... | --with TUNED=SHARE | --fold) -o FILE [options]",
    .summary = "merge LoRA adapters, another model or expanded blocks into a model",
    .text = "Writes a whole model: the base with its adapters' products added to its matrices, or every weight on the line "
            "between the base's and those of its tuned self, which keeps more of what the base could (WiSE-FT), or an expanded "
            "model's layers with their blocks folded in. Everything "
            "else, the tokenizer too, is the base's.",
    .example = "cmc merge -m base.gguf --lora adapter.gguf -o merged.gguf",
    .groups = merge_groups,
    .n_groups = sizeof merge_groups / sizeof *merge_groups,
    .size = sizeof(merge_args),
    .defaults = merge_defaults,
    .main = merge_main,
};
