/* cmc train-search: which layers and modules of a model to tune, by short runs down a tree. */
#include "cli/search_tree.h"
#include "cli/train.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct search_args {
    train_args t;            /* its base, data and how each run goes */
    arg_list keep;
    const char *dir;
    double floor;
} search_args;

static const arg_opt search_opts[] = {
    {.name = "base", .file = ARG_READS, .kind = ARG_STR, .at = offsetof(search_args, t.base), .value = "MODEL",
     .help = "the model to be tuned, a GGUF file"},
    {.name = "data", .file = ARG_READS, .kind = ARG_LIST, .at = offsetof(search_args, t.data), .value = "FILE",
     .help = "records of what is to be learnt (may be repeated); spec is what those gain that are held out"},
    {.name = "keep", .file = ARG_READS, .kind = ARG_LIST, .at = offsetof(search_args, keep), .value = "FILE",
     .help = "records of what is to be kept, never trained on (may be repeated); vers is what they lose"},
    {.name = "out", .letter = 'o', .kind = ARG_STR, .at = offsetof(search_args, dir), .value = "DIR",
     .help = "a folder for the search's state, made where it is not there: the same command goes on from it"},
    {.name = "floor", .kind = ARG_REAL, .at = offsetof(search_args, floor), .value = "X",
     .help = "least spec of what may be chosen, as a share of the first node's", .lo = 0, .hi = 1, .show_default = true},
    {.name = "template", .kind = ARG_STR, .at = offsetof(search_args, t.host_template), .value = "NAME",
     .help = "the prompt template (see cmc run --help)", .show_default = true},
    {.name = "memory", .kind = ARG_STR, .at = offsetof(search_args, t.memory), .value = "SIZE",
     .help = "stay below this (800M, 2G), counted as resident memory"},
    {.name = NULL},
};

typedef struct search_run {
    search_args *a;
    cmc_runtime *rt;
    search_tree tree;
    cmc_records old;
    json_t *found;           /* scores of an earlier process */
    char *state;             /* DIR/search.json */
} search_run;

/* --------------------------------------------------------------------------------------------------- scores */

static int search_score_records(search_run *r, cmc_model *m, double *nll) {
    cmc_steering *st;
    cmc_error err = {0};
    cmc_steering_opts opts = {.host_template = r->a->t.t.host_template};
    size_t tokens = 0;
    double sum = 0;
    int rc = CLI_OK;
    if (cmc_steering_new(m, &opts, &st, &err) != CMC_OK)
        return cli_error(NULL, &err);
    for (size_t i = 0; i < r->old.n && rc == CLI_OK; i++) {
        cmc_score sc = {0};
        if (cli_interrupted())
            rc = CLI_INTERRUPTED;
        else if (cmc_score_record(st, &r->old.v[i], NULL, 0, &sc, &err) != CMC_OK)
            rc = cli_error("--keep", &err);
        for (size_t k = 0; k < sc.n; k++)
            sum -= (double)sc.host_logprob[k];
        tokens += sc.n;
        cmc_score_free(&sc);
    }
    cmc_steering_free(st);
    *nll = search_round(sum / (double)tokens);
    return rc;
}

/* Nats a token of the old records under a model. */
static int search_score(search_run *r, const char *path, double *nll) {
    cmc_model *m;
    cmc_error err = {0};
    if (cmc_model_open(r->rt, path, &m, &err) != CMC_OK)
        return cli_error(NULL, &err);
    int rc = search_score_records(r, m, nll);
    cmc_model_free(m);
    return rc;
}

/* ---------------------------------------------------------------------------------------------------- nodes */

static int search_tune(search_run *r, search_node *n, const char *out, const char *ckpt) {
    const arg_list none = {0};
    cmc_error err = {0};
    cmc_tune_opts o;
    cmc_train_result res = {0};
    train_args *a = &r->a->t;
    train_state st = {.beside = "base", .last = {.phase = "plan", .held_out = NAN, .held_out_host = NAN}};
    a->t.out_path = out;
    a->t.train_layers = n->layers;
    a->t.train_modules = n->modules;
    a->t.resume = access(ckpt, F_OK) == 0;
    int rc = train_base_opts(a, &none, &o);
    if (rc)
        return rc;
    progress_start(&st.bar);
    cmc_status status = cmc_tune(r->rt, &o, train_callback, &st, &res, &err);
    progress_clear(&st.bar);
    if (status == CMC_E_CANCELLED && st.stopped)
        return CLI_INTERRUPTED;
    if (status != CMC_OK)
        return cli_error(NULL, &err);
    r->tree.base_new = search_round(res.held_out_host);
    n->spec = search_round(res.held_out_host - res.held_out_steered);
    n->params = res.params;
    n->seconds = res.seconds;
    return isfinite(n->spec) ? CLI_OK : cli_failed("no record is held out, so nothing can be chosen by; a higher --held-out");
}

/* Trains and scores a node, unless that was done. */
static int search_visit(search_run *r, int node) {
    search_node *n = &r->tree.node[node];
    char *out = NULL, *ckpt = NULL;
    double nll = NAN;
    search_found(&r->tree, node, r->found);
    if (n->done)
        return CLI_OK;
    cli_note("node %d: layers %s, modules %s", node, n->layers ? n->layers : "all", n->modules);
    int rc = asprintf(&out, "%s/node-%d.gguf", r->a->dir, node) < 0 || asprintf(&ckpt, "%s.ckpt", out) < 0 ? cli_no_memory()
                                                                                                          : CLI_OK;
    if (rc == CLI_OK)
        rc = search_tune(r, n, out, ckpt);
    if (rc == CLI_OK)
        rc = search_score(r, out, &nll);
    if (rc == CLI_OK) {
        n->vers = search_round(r->tree.base_old - nll);
        n->done = true;
        rc = search_save(&r->tree, r->state);
        unlink(out);         /* its score is what is kept of it */
    }
    free(out);
    free(ckpt);
    return rc;
}

static int search_down(search_run *r, int *best) {
    int rc = search_visit(r, 0), node = 0;
    while (node >= 0 && rc == CLI_OK) {
        *best = node;
        int first = r->tree.n, n = search_expand(&r->tree, node);
        for (int i = first; i < first + n && rc == CLI_OK; i++)
            rc = search_visit(r, i);
        node = search_next(&r->tree, node);
        if (node >= 0)
            r->tree.node[node].kept = true;
    }
    return rc;
}

/* ---------------------------------------------------------------------------------------------------- the verb */

/* What decides the scores, as text. */
static char *search_settings(const search_args *a, const char *base, const char *new, const char *old) {
    const cmc_train_opts *t = &a->t.t;
    char *s;
    int n = asprintf(&s, "base %s, data %s, keep %s, template %s, floor %.17g, max_len %d, batch %d, epochs %d, steps %" PRId64
                         ", lr %.17g, warmup %.17g, min_lr %.17g, beta1 %.17g, beta2 %.17g, eps %.17g, weight_decay %.17g, clip "
                         "%.17g, held_out %.17g, eval_every %d, patience %d, seed %" PRIu64, base, new, old, a->t.host_template,
                     a->floor, t->max_len, t->batch, t->epochs, t->max_steps, t->lr, t->warmup, t->min_lr, t->beta1, t->beta2,
                     t->eps, t->weight_decay, t->clip, t->held_out, t->eval_every, t->patience, a->t.common.seed);
    return n < 0 ? NULL : s;
}

static int search_check(const search_args *a, const arg_list *operands) {
    if (operands->n)
        return cli_usage("\"%s\": train-search takes its records from files: --data FILE", operands->v[0]);
    if (!a->t.base)
        return cli_usage("--base: a model is needed: --base MODEL");
    if (!a->t.data.n || !a->keep.n)
        return cli_usage("%s: a file of records is needed: %s FILE", a->t.data.n ? "--keep" : "--data",
                         a->t.data.n ? "--keep" : "--data");
    if (!a->dir)
        return cli_usage("-o: a folder is needed for the search's state: -o DIR");
    return CLI_OK;
}

static int search_read(const arg_list *files, cmc_records *out) {
    cmc_error err = {0};
    for (size_t i = 0; i < files->n; i++)
        if (cmc_records_read(files->v[i], true, out, &err) != CMC_OK)
            return cli_error(NULL, &err);
    return out->n ? CLI_OK : cli_failed("%s: holds no record", files->v[0]);
}

/* The folder, the base's score of what is to be kept, and what is there of an earlier process. */
static int search_open(search_run *r) {
    cmc_model *base;
    cmc_error err = {0};
    cmc_records new = {0};
    search_args *a = r->a;
    int rc = search_read(&a->t.data, &new);
    if (rc == CLI_OK)
        rc = search_read(&a->keep, &r->old);
    char data[40];
    memcpy(data, new.hash, sizeof data);
    cmc_records_free(&new);
    if (rc)
        return rc;
    if (mkdir(a->dir, 0777) != 0 && errno != EEXIST)
        return cli_failed("%s: %s", a->dir, strerror(errno));
    if (cmc_model_open(r->rt, a->t.base, &base, &err) != CMC_OK)
        return cli_error(NULL, &err);
    char *settings = search_settings(a, cmc_model_hash(base), data, r->old.hash);
    rc = settings && asprintf(&r->state, "%s/search.json", a->dir) >= 0 ? CLI_OK : cli_no_memory();
    search_begin(&r->tree, cmc_model_n_layer(base), a->floor, settings);
    if (rc == CLI_OK)
        rc = search_load(&r->tree, r->state, &r->found);
    if (rc == CLI_OK && !isfinite(r->tree.base_old))
        rc = search_score_records(r, base, &r->tree.base_old);
    cmc_model_free(base);
    return rc;
}

static int search_all(search_run *r) {
    int best = 0, rc = search_open(r);
    if (rc == CLI_OK)
        rc = search_down(r, &best);
    if (rc == CLI_OK)
        rc = search_save(&r->tree, r->state);
    if (rc == CLI_OK)
        return search_print(&r->tree, best, r->a->t.common.json);
    if (rc == CLI_INTERRUPTED)
        cli_failed("stopped; what is done is kept in %s; the same command goes on", r->a->dir);
    return rc;
}

static int search_main(void *opts, const arg_list *operands) {
    search_args *a = opts;
    search_run r = {.a = a};
    cmc_error err = {0};
    int rc = search_check(a, operands);
    if (!rc)
        rc = train_bytes(a->t.memory, &a->t.t.memory);
    if (!rc && cmc_template_parse(a->t.host_template, &a->t.t.host_template, &err) != CMC_OK)
        rc = cli_usage("--template: %s", err.message);
    if (rc)
        return rc;
    cmc_runtime_opts rt_opts = cli_runtime_opts(&a->t.common, a->t.exact, a->t.batches);
    if (cmc_runtime_open(&rt_opts, &r.rt, &err) != CMC_OK)
        return cli_error(NULL, &err);
    cli_catch_interrupt();
    rc = search_all(&r);
    search_free(&r.tree);
    cmc_records_free(&r.old);
    json_decref(r.found);
    free(r.state);
    cmc_runtime_free(r.rt);
    return rc;
}

static void search_defaults(void *opts) {
    search_args *a = opts;
    verb_train.defaults(&a->t);
    a->floor = 0.9;
}

static const arg_group search_groups[] = {
    {"Files and choice", search_opts, 0},
    {"Each run", train_how, offsetof(search_args, t)},
    {"Every verb", common_opts, offsetof(search_args, t.common)},
};

const arg_verb verb_train_search = {
    .name = "train-search",
    .usage = "--base MODEL --data FILE... --keep FILE... -o DIR [options]",
    .summary = "find which layers and modules to tune",
    .text = "Looks for a part of a model that learns new records and forgets little when it is tuned alone, by short runs of "
            "cmc train --base down a tree: all layers with q, k, v, up and down; quarters and halves of the depth; of the best "
            "of these attention or the feed-forward part; of that up or down alone. A run's score is spec + vers, in nats a "
            "token: what held-out new records gain, less what the old ones lose. It ends where no child is better. Ctrl-C "
            "leaves what is done; the same command goes on. (CoFiTune's coarse level; the paper's code has no search, and the "
            "rule here is a reconstruction.)",
    .example = "cmc train-search --base base.gguf --data new.jsonl --keep old.jsonl --max-steps 200 -o search",
    .groups = search_groups,
    .n_groups = sizeof search_groups / sizeof *search_groups,
    .size = sizeof(search_args),
    .defaults = search_defaults,
    .main = search_main,
};
