/* Opening a host with its deltas. */
#include "cli/steer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const arg_opt steer_opts[] = {
    {.name = "model", .letter = 'm', .kind = ARG_STR, .at = offsetof(steer_args, host), .value = "HOST",
     .help = "the host, a GGUF file"},
    {.name = "delta", .letter = 'd', .kind = ARG_LIST, .at = offsetof(steer_args, deltas), .value = "DELTA[=ALPHA]",
     .help = "a delta and its strength (may be repeated); without ALPHA the one stored in the delta for this host; "
             "0 leaves the delta out, below 0 steers the other way"},
    {.name = "template", .kind = ARG_STR, .at = offsetof(steer_args, host_template), .value = "NAME",
     .help = "the host's prompt template: auto (the file's own, else plain), plain, chatml, llama2, llama3, gemma, "
             "mistral, alpaca, vicuna, zephyr or raw", .show_default = true},
    {.name = "delta-template", .kind = ARG_STR, .at = offsetof(steer_args, delta_template), .value = "NAME",
     .help = "the deltas' prompt template; auto: the one stored in the delta", .show_default = true},
    {.name = "special", .kind = ARG_FLAG, .at = offsetof(steer_args, special),
     .help = "spellings of control tokens in your text become those tokens"},
    {.name = "unmapped", .kind = ARG_STR, .at = offsetof(steer_args, unmapped), .value = "keep|raw",
     .help = "tokens that no delta maps keep their probability (keep), or their logit (raw, as the paper's code does)",
     .choices = "keep|raw", .show_default = true},
    {.name = "exact", .kind = ARG_FLAG, .at = offsetof(steer_args, exact),
     .help = "slow and reproducible arithmetic: float32, no BLAS, one order of summation"},
    {.name = NULL},
};

void steer_defaults(steer_args *a)
{
    a->host_template = "auto";
    a->delta_template = "auto";
    a->unmapped = "keep";
}

bool steer_split(const char *arg, char **path, double *alpha)
{
    const char *eq = strrchr(arg, '=');
    size_t len = strlen(arg);
    *alpha = NAN;
    if (eq && arg_number(eq + 1, alpha))
        len = (size_t)(eq - arg);
    *path = malloc(len + 1);
    if (!*path)
        return false;
    memcpy(*path, arg, len);
    (*path)[len] = '\0';
    return true;
}

static int steer_template(const char *option, const char *name, cmc_template *out)
{
    cmc_error err = {0};
    if (cmc_template_parse(name, out, &err) == CMC_OK)
        return CLI_OK;
    return cli_usage("%s: %s", option, err.message);
}

static int steer_add(steer *s, const char *arg, cmc_template t)
{
    cmc_error err = {0};
    double alpha;
    char *path;
    if (!steer_split(arg, &path, &alpha))
        return cli_no_memory();
    s->paths[s->n] = path;
    s->deltas[s->n] = NULL;
    size_t k = s->n++;
    if (!*path)
        return cli_usage("-d: \"%s\" names no file", arg);
    if (cmc_model_open(s->rt, path, &s->deltas[k], &err) != CMC_OK)
        return cli_error(NULL, &err);
    if (cmc_steering_add(s->st, s->deltas[k], alpha, NULL, t, &err) != CMC_OK)
        return cli_error(NULL, &err);
    return CLI_OK;
}

static int steer_open_parts(const steer_args *a, const common_args *common, steer *s)
{
    cmc_error err = {0};
    cmc_runtime_opts rt_opts = {.threads = common->threads, .exact = a->exact};
    cmc_steering_opts opts = {.special = a->special, .unmapped_raw = strcmp(a->unmapped, "raw") == 0};
    cmc_template delta_template;
    int rc = steer_template("--template", a->host_template, &opts.host_template);
    if (rc == CLI_OK)
        rc = steer_template("--delta-template", a->delta_template, &delta_template);
    if (rc)
        return rc;
    s->deltas = calloc(a->deltas.n + 1, sizeof *s->deltas);
    s->paths = calloc(a->deltas.n + 1, sizeof *s->paths);
    if (!s->deltas || !s->paths)
        return cli_no_memory();
    if (cmc_runtime_open(&rt_opts, &s->rt, &err) != CMC_OK ||
        cmc_model_open(s->rt, a->host, &s->host, &err) != CMC_OK ||
        cmc_steering_new(s->host, &opts, &s->st, &err) != CMC_OK)
        return cli_error(NULL, &err);
    for (size_t k = 0; k < a->deltas.n && rc == CLI_OK; k++)
        rc = steer_add(s, a->deltas.v[k], delta_template);
    return rc;
}

int steer_open(const steer_args *a, const common_args *common, steer *out)
{
    memset(out, 0, sizeof *out);
    if (!a->host)
        return cli_usage("-m: a host is needed: -m HOST");
    int rc = steer_open_parts(a, common, out);
    if (rc)
        steer_close(out);
    return rc;
}

void steer_close(steer *s)
{
    cmc_steering_free(s->st);
    for (size_t k = 0; k < s->n; k++) {
        cmc_model_free(s->deltas[k]);
        free(s->paths[k]);
    }
    free(s->deltas);
    free(s->paths);
    cmc_model_free(s->host);
    cmc_runtime_free(s->rt);
    memset(s, 0, sizeof *s);
}

double steer_coverage(const steer *s, size_t k)
{
    cmc_map_counts c;
    const cmc_map *map = cmc_steering_map(s->st, k);
    if (!map)
        return 0;
    cmc_map_counts_get(map, &c);
    return c.n_host > 0 ? (double)(c.n_host - c.none) / c.n_host : 0;
}

jbuild steer_json(const steer *s)
{
    jbuild a = jarray();
    for (size_t k = 0; k < s->n; k++) {
        jbuild d = jobject();
        jset_string(&d, "file", s->paths[k]);
        jset_real(&d, "alpha", cmc_steering_alpha(s->st, k));
        jset_real(&d, "mapped", steer_coverage(s, k));
        jadd_built(&a, d);
    }
    return a;
}
