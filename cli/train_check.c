/* cmc train: what its options come to, and what goes together. */
#include "cli/train.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

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

int train_numbers(train_args *a) {
    int rc = train_bytes(a->memory, &a->t.memory);
    if (!rc)
        rc = train_layers(a);
    return rc ? rc : train_temperature(a);
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

/* --host-weight: as many as hosts, each a number above 0. */
static int train_weights(train_args *a) {
    if (!a->weights.n)
        return CLI_OK;
    if (a->weights.n != a->hosts.n)
        return cli_usage("--host-weight: given %zu times for %zu hosts", a->weights.n, a->hosts.n);
    a->host_weights = calloc(a->weights.n, sizeof *a->host_weights);
    if (!a->host_weights)
        return cli_no_memory();
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

int train_check(train_args *a, const arg_list *operands) {
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
    if (!rc)
        rc = train_check_keeping(a);
    if (!rc)
        rc = train_page_check(a);
    return rc ? rc : train_weights(a);
}
