/* cmc merge: a model and its LoRA adapters as one model. */
#include "cli/json.h"
#include "cli/steer.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

typedef struct merge_args {
    common_args common;
    const char *base, *out, *save_type;
    arg_list loras;
} merge_args;

static const arg_opt merge_opts[] = {
    {.name = "model", .letter = 'm', .kind = ARG_STR, .at = offsetof(merge_args, base), .value = "BASE",
     .help = "the model, a GGUF file"},
    {.name = "lora", .kind = ARG_LIST, .at = offsetof(merge_args, loras), .value = "FILE[=SCALE]",
     .help = "a LoRA adapter, a GGUF file, and its strength, 1 where none is given (may be repeated)"},
    {.name = "out", .letter = 'o', .kind = ARG_STR, .at = offsetof(merge_args, out), .value = "FILE",
     .help = "the model to write, a GGUF file"},
    {.name = "save-type", .kind = ARG_STR, .at = offsetof(merge_args, save_type), .value = "f32|f16|q8_0",
     .help = "how the matrices are stored", .choices = "f32|f16|q8_0", .show_default = true},
    {.name = NULL},
};

static bool merge_same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int merge_write(const merge_args *a, cmc_model *m) {
    cmc_error err = {0};
    struct stat st;
    int rc = steer_add_loras(m, &a->loras);
    if (rc)
        return rc;
    if (cmc_model_save(m, a->out, a->save_type, &err) != CMC_OK)
        return cli_error(NULL, &err);
    int64_t bytes = stat(a->out, &st) == 0 ? (int64_t)st.st_size : 0;
    if (!a->common.json)
        return out_printf("%s: %" PRIu64 " parameters, %" PRId64 " bytes, %zu adapters merged\n", a->out,
                          cmc_model_params(m), bytes, a->loras.n);
    jbuild o = jobject();
    jset_string(&o, "out", a->out);
    jset_int(&o, "params", (int64_t)cmc_model_params(m));
    jset_int(&o, "bytes", bytes);
    jset_int(&o, "adapters", (int64_t)a->loras.n);
    return jout(o);
}

static int merge_main(void *opts, const arg_list *operands) {
    const merge_args *a = opts;
    cmc_runtime *rt = NULL;
    cmc_model *m = NULL;
    cmc_error err = {0};
    if (operands->n)
        return cli_usage("\"%s\": merge takes no operands", operands->v[0]);
    if (!a->base)
        return cli_usage("-m: a model is needed: cmc merge -m BASE");
    if (!a->loras.n)
        return cli_usage("--lora: an adapter is needed: --lora FILE");
    if (!a->out)
        return cli_usage("-o: the merged model needs a name: -o FILE");
    if (merge_same_file(a->out, a->base))
        return cli_usage("-o: \"%s\" is the model that is read; name another file", a->out);
    cmc_runtime_opts rt_opts = {.threads = a->common.threads};
    int rc = CLI_OK;
    if (cmc_runtime_open(&rt_opts, &rt, &err) != CMC_OK || cmc_model_open(rt, a->base, &m, &err) != CMC_OK)
        rc = cli_error(NULL, &err);
    if (rc == CLI_OK)
        rc = merge_write(a, m);
    cmc_model_free(m);
    cmc_runtime_free(rt);
    return rc;
}

static void merge_defaults(void *opts) {
    merge_args *a = opts;
    a->save_type = "q8_0";
}

static const arg_group merge_groups[] = {
    {"Files", merge_opts, 0},
    {"Every verb", common_opts, offsetof(merge_args, common)},
};

const arg_verb verb_merge = {
    .name = "merge",
    .usage = "-m BASE --lora FILE[=SCALE]... -o FILE [options]",
    .summary = "merge LoRA adapters into a model",
    .text = "Writes a whole model: the base with its adapters' products added to its matrices. Everything else, the "
            "tokenizer too, is the base's.",
    .example = "cmc merge -m base.gguf --lora adapter.gguf -o merged.gguf",
    .groups = merge_groups,
    .n_groups = sizeof merge_groups / sizeof *merge_groups,
    .size = sizeof(merge_args),
    .defaults = merge_defaults,
    .main = merge_main,
};
