/* cmc train --base: tuning a model by itself, whole or by a LoRA adapter. */
#include "cli/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The first option that is for deltas alone and was given, NULL where none was. */
static const char *base_foreign(const train_args *a) {
    const cmc_train_opts d = cmc_train_defaults(), *t = &a->t;
    const struct {
        const char *name;
        bool given;
    } foreign[] = {
        {"-m", a->hosts.n > 0},
        {"--host-weight", a->weights.n > 0},
        {"--init", t->init_path != NULL},
        {"--cut", t->cut != 0},
        {"--cut-gain", t->cut_gain != 0},
        {"--vocab", t->vocab_path != NULL},
        {"--alpha-host", a->alpha_hosts.n > 0},
        {"--cache", t->cache_dir != NULL},
        {"--delta-template", strcmp(a->delta_template, "auto") != 0},
        {"--embd", t->n_embd != 0},
        {"--layers", t->n_layer != 0},
        {"--heads", t->n_head != 0},
        {"--kv-heads", t->n_head_kv != 0},
        {"--ff", t->n_ff != 0},
        {"--alpha", t->alpha != d.alpha},
        {"--dropout", t->dropout != d.dropout},
        {"--host-temperature", a->temperature != NULL},
        {"--host-mix", t->host_mix != d.host_mix},
        {"--host-mix-with", t->host_mix_with != NULL},
        {"--teacher", t->teacher != NULL},
        {"--cuts", t->cuts != d.cuts},
        {"--prefix-rows", t->prefix_rows},
    };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (foreign[i].given)
            return foreign[i].name;
    return NULL;
}

int train_base_opts(train_args *a, const arg_list *operands, cmc_tune_opts *o) {
    cmc_error err = {0};
    const char *foreign = base_foreign(a);
    if (foreign)
        return cli_usage("%s: is for training a delta, and --base tunes a model by itself", foreign);
    if (operands->n)
        return cli_usage("\"%s\": train takes its records from files: --data FILE", operands->v[0]);
    if (!a->data.n)
        return cli_usage("--data: a file of records is needed: --data FILE");
    if (!a->t.out_path)
        return cli_usage("-o: what is trained needs a name: -o FILE");
    if (train_check_resume(a->t.resume, a->t.fresh))
        return CLI_USAGE;
    if (cmc_template_parse(a->host_template, &a->t.host_template, &err) != CMC_OK)
        return cli_usage("--template: %s", err.message);
    train_take_lists(a);
    int rc = train_take_added(a);
    if (!rc)
        rc = train_check_objective(a);
    if (!rc)
        rc = train_check_keeping(a);
    *o = (cmc_tune_opts){.base = a->base, .how = a->t};
    return rc;
}

static int base_json(const cmc_tune_opts *o, const cmc_train_result *r) {
    jbuild j = jobject();
    jset_string(&j, "out", o->how.out_path);
    jset_string(&j, "kind", o->how.lora_rank ? "lora" : o->how.expand.kind ? "expanded" : "model");
    train_json_result(&j, r);
    jset_real(&j, "held_out_base", r->held_out_host);
    jset_real(&j, "held_out", r->held_out_steered);
    return jout(j);
}

static int base_summary(const cmc_tune_opts *o, const cmc_train_result *r) {
    int rc = out_printf("%s: %s, %" PRIu64 " parameters trained, %" PRId64 " steps, %" PRIu64 " tokens in %.1f s\n",
                        o->how.out_path, o->how.lora_rank ? "an adapter" : o->how.expand.kind ? "an expanded model" : "a model", r->params, r->steps, r->tokens,
                        r->seconds);
    if (rc == CLI_OK)
        rc = out_printf("records: %zu trained on, %zu held out, %zu left out as too long\n", r->records,
                        r->records_held_out, r->records_left_out);
    if (rc == CLI_OK && isfinite(r->held_out_steered))
        rc = out_printf("held out: %.4f nats a token, the base %.4f\n", r->held_out_steered, r->held_out_host);
    return rc;
}

int train_base_main(train_args *a, const arg_list *operands) {
    cmc_runtime *rt = NULL;
    cmc_error err = {0};
    cmc_tune_opts o = {0};
    cmc_train_result result = {0};
    train_state st = {.beside = "base", .last = {.phase = "plan", .held_out = NAN, .held_out_host = NAN}};
    int rc = train_base_opts(a, operands, &o);
    if (!rc)
        rc = train_page_check(a);
    if (rc)
        return rc;
    cmc_runtime_opts rt_opts = cli_runtime_opts(&a->common, a->exact, a->batches);
    if (cmc_runtime_open(&rt_opts, &rt, &err) != CMC_OK)
        return cli_error(NULL, &err);
    train_page_begin(&st, a);
    progress_start(&st.bar);
    cli_catch_interrupt();
    cmc_status status = cmc_tune(rt, &o, train_callback, &st, &result, &err);
    progress_clear(&st.bar);
    cmc_runtime_free(rt);
    rc = train_page_end(&st, status, &result, &err);
    if (rc)
        return rc;
    if (st.stopped && status == CMC_E_CANCELLED)
        return train_interrupted(a, &st);
    if (status != CMC_OK)
        return cli_error(NULL, &err);
    return a->common.json ? base_json(&o, &result) : base_summary(&o, &result);
}
