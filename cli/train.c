/* cmc train: make a delta. */
#include "cli/train.h"

#include <math.h>
#include <stdlib.h>

static int train_main(void *opts, const arg_list *operands) {
    train_args *a = opts;
    cmc_runtime *rt = NULL;
    cmc_error err = {0};
    cmc_train_result result = {0};
    train_state st = {.beside = "host", .last = {.held_out = NAN, .held_out_host = NAN}};
    int rc = train_numbers(a);
    if (!rc && a->base)
        return train_base_main(a, operands);
    if (!rc)
        rc = train_check(a, operands);
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
    .n_groups = N_TRAIN_GROUPS,
    .size = sizeof(train_args),
    .defaults = train_defaults,
    .main = train_main,
};
