/* Opening a host with its deltas. */
#include "cli/steer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double STEER_MOST = 1e6;   /* as the library has it */

const arg_opt steer_opts[] = {
    {.name = "model", .file = ARG_READS, .letter = 'm', .kind = ARG_STR, .at = offsetof(steer_args, host), .value = "HOST",
     .help = "the host, a GGUF file"},
    {.name = "delta", .file = ARG_READS_WITH, .letter = 'd', .kind = ARG_LIST, .at = offsetof(steer_args, deltas), .value = "DELTA[=ALPHA]",
     .help = "a delta and its strength (may be repeated); without ALPHA the one stored in the delta for this host; "
             "0 leaves the delta out, below 0 steers the other way"},
    {.name = "lora", .file = ARG_READS_WITH, .kind = ARG_LIST, .at = offsetof(steer_args, loras), .value = "FILE[=SCALE]",
     .help = "a LoRA adapter for the host, a GGUF file as llama.cpp reads it, and its strength, 1 where none is given (may be "
             "repeated)"},
    {.name = "expand-strength", .kind = ARG_REAL, .at = offsetof(steer_args, expand), .value = "X",
     .help = "how far the blocks of an expanded host count (see cmc train --expand): 1 as trained, 0 the base alone", .lo = -100,
     .hi = 100, .show_default = true},
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
    {.name = "map", .file = ARG_READS_WITH, .kind = ARG_LIST, .at = offsetof(steer_args, maps), .value = "[N=]FILE",
     .help = "a delta's token map, as cmc map --ids writes it, in place of the one built here; with several deltas N "
             "says which one, counted from 1"},
    {.name = "override", .file = ARG_READS_WITH, .kind = ARG_LIST, .at = offsetof(steer_args, overrides), .value = "[N=]FILE",
     .help = "hand edits of a delta's token map, as cmc map --override takes them; N as for --map"},
    {.name = "exact", .kind = ARG_FLAG, .at = offsetof(steer_args, exact),
     .help = "slow and reproducible arithmetic: float32, no BLAS, one order of summation"},
    {.name = "batches", .kind = ARG_STR, .at = offsetof(steer_args, batches), .value = CLI_BATCHES,
     .help = "how batches of tokens are multiplied: in float32, or with activations rounded to 15 or 8 bits where the machine "
             "has AVX-512 VNNI; auto is int15, which is as good as float and faster", .choices = CLI_BATCHES},
    {.name = "kv", .kind = ARG_STR, .at = offsetof(steer_args, kv), .value = "half|int8|float",
     .help = "how the context's keys and values are kept: in float16 (half, the default; float32 with --exact), in 9 bits (int8), "
             "which a long context is read faster from, or in float32",
     .choices = "half|int8|float"},
    {.name = "output", .kind = ARG_STR, .at = offsetof(steer_args, output), .value = "auto|full|screened",
     .help = "how a token's logits are computed when text is written: all from the output matrix (full), or estimated from a copy "
             "in 4 bits and the likeliest from the matrix (screened); auto is screened where that saves a sixth of what a token reads, and 8 MB at least, but not for 4 texts or more side by side",
     .choices = "auto|full|screened"},
    {.name = NULL},
};

void steer_defaults(steer_args *a) {
    a->expand = 1;
    a->host_template = "auto";
    a->delta_template = "auto";
    a->unmapped = "keep";
    a->guards = cmc_guards_defaults();
}

bool steer_split(const char *arg, char **path, double *alpha) {
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

/* As steer_split, and says so where what follows the last '=' was meant for a number: the whole names no file, and what is before does. */
static int steer_file(const char *option, const char *arg, char **path, double *alpha) {
    const char *eq = strrchr(arg, '=');
    if (!steer_split(arg, path, alpha))
        return cli_no_memory();
    if (!**path)
        return cli_usage("%s: \"%s\" names no file", option, arg);
    char *before = eq && isnan(*alpha) ? strndup(arg, (size_t)(eq - arg)) : NULL;
    bool meant = before && access(arg, F_OK) != 0 && access(before, F_OK) == 0;
    free(before);
    return meant ? cli_usage("%s: \"%s\" is no strength of %.*s; a number such as 0.5 would be right", option, eq + 1, (int)(eq - arg), arg)
                 : CLI_OK;
}

int steer_alphas(const char *option, const char *list, double **out, size_t *n) {
    size_t cap = 1;
    *n = 0;
    for (const char *c = list; *c; c++)
        cap += *c == ',';
    *out = calloc(cap, sizeof **out);
    if (!*out)
        return cli_no_memory();
    while (list) {
        char word[64];
        size_t len = strcspn(list, ",");
        snprintf(word, sizeof word, "%.*s", (int)(len < 63 ? len : 63), list);
        double *v = *out + (*n)++;
        bool number = len <= 63 && arg_number(word, v);
        if (!number || !(fabs(*v) <= STEER_MOST)) {
            free(*out);
            *out = NULL;
            return number ? cli_usage("%s: %s is no strength that can be used; from -1e6 to 1e6 would be right", option, word)
                          : cli_usage("%s: \"%s\" is no number", option, word);
        }
        list = list[len] ? list + len + 1 : NULL;
    }
    return CLI_OK;
}

static int steer_template(const char *option, const char *name, cmc_template *out) {
    cmc_error err = {0};
    if (cmc_template_parse(name, out, &err) == CMC_OK)
        return CLI_OK;
    return cli_usage("%s: %s", option, err.message);
}

/* ------------------------------------------------------------------------------------------------------- maps */

/* "N=FILE" apart; a FILE alone is for the only delta. */
static int steer_which(const char *option, const char *arg, size_t n_deltas, size_t *k, const char **file) {
    size_t digits = strspn(arg, "0123456789");
    *file = arg;
    *k = 0;
    if (n_deltas == 0)
        return cli_usage("%s: \"%s\" is for a delta, and there is none: -d DELTA", option, arg);
    if (digits && arg[digits] == '=') {
        unsigned long n = strtoul(arg, NULL, 10);
        if (n < 1 || n > n_deltas)
            return cli_usage("%s: \"%s\" is for delta %.*s; they are counted from 1 to %zu", option, arg, (int)digits,
                             arg, n_deltas);
        *k = n - 1;
        *file = arg + digits + 1;
    } else if (n_deltas > 1) {
        return cli_usage("%s: there are %zu deltas; say which one \"%s\" is for: %s 1=%s", option, n_deltas, arg,
                         option, arg);
    }
    return **file ? CLI_OK : cli_usage("%s: \"%s\" names no file", option, arg);
}

/* files[n_deltas] from the option's values: each delta's, or NULL. */
static int steer_files(const char *option, const arg_list *values, size_t n_deltas, const char **files) {
    for (size_t i = 0; i < values->n; i++) {
        size_t k;
        const char *file;
        int rc = steer_which(option, values->v[i], n_deltas, &k, &file);
        if (rc)
            return rc;
        if (files[k])
            return cli_usage("%s: delta %zu has two, \"%s\" and \"%s\"", option, k + 1, files[k], file);
        files[k] = file;
    }
    return CLI_OK;
}

int steer_map_open(const cmc_vocab *host, const cmc_vocab *delta, cmc_map_rule rule, const char *list,
                   const char *edits, cmc_map **out) {
    cmc_error err = {0};
    cmc_status st = list ? cmc_map_import(list, cmc_vocab_size(host), cmc_vocab_size(delta), out, &err)
                         : cmc_map_build(host, delta, rule, out, &err);
    if (st == CMC_OK && edits)
        st = cmc_map_override(*out, host, delta, edits, &err);
    if (st == CMC_OK)
        return CLI_OK;
    cmc_map_free(*out);
    *out = NULL;
    return cli_error(NULL, &err);
}

/* ----------------------------------------------------------------------------------------------------- opening */

static int steer_add(steer *s, const char *arg, const char *list, const char *edits, cmc_template t) {
    cmc_error err = {0};
    double alpha;
    char *path = NULL;
    int rc = steer_file("-d", arg, &path, &alpha);
    size_t k = s->n++;
    s->paths[k] = path;
    if (rc)
        return rc;
    if (cmc_model_open(s->rt, path, &s->deltas[k], &err) != CMC_OK)
        return cli_error(NULL, &err);
    if (list || edits)
        rc = steer_map_open(cmc_model_vocab(s->host), cmc_model_vocab(s->deltas[k]), CMC_RULE_DEFAULT, list, edits,
                            &s->maps[k]);
    if (rc)
        return rc;
    if (cmc_steering_add(s->st, s->deltas[k], alpha, s->maps[k], t, &err) != CMC_OK)
        return cli_error(NULL, &err);
    return CLI_OK;
}

/* What the options come to before a file is opened. */
typedef struct steer_plan {
    cmc_steering_opts opts;
    cmc_template delta_template;
    const char **maps, **edits;   /* [n deltas] files, NULL for none; one block */
} steer_plan;

static int steer_make_plan(const steer_args *a, steer_plan *p) {
    size_t n = a->deltas.n;
    p->opts.special = a->special;
    p->opts.unmapped_raw = strcmp(a->unmapped, "raw") == 0;
    p->opts.guards = &a->guards;
    p->maps = calloc(2 * n + 1, sizeof *p->maps);
    if (!p->maps)
        return cli_no_memory();
    p->edits = p->maps + n;
    int rc = guards_check(&a->guards, n);
    if (rc == CLI_OK)
        rc = steer_template("--template", a->host_template, &p->opts.host_template);
    if (rc == CLI_OK)
        rc = steer_template("--delta-template", a->delta_template, &p->delta_template);
    if (rc == CLI_OK)
        rc = steer_files("--map", &a->maps, n, p->maps);
    return rc ? rc : steer_files("--override", &a->overrides, n, p->edits);
}

int steer_add_loras(cmc_model *m, const arg_list *loras) {
    for (size_t i = 0; i < loras->n; i++) {
        cmc_error err = {0};
        double scale;
        char *path = NULL;
        int rc = steer_file("--lora", loras->v[i], &path, &scale);
        if (rc == CLI_OK && cmc_model_add_lora(m, path, isnan(scale) ? 1.0 : scale, &err) != CMC_OK)
            rc = cli_error(NULL, &err);
        free(path);
        if (rc)
            return rc;
    }
    return CLI_OK;
}

static int steer_open_parts(const steer_args *a, const common_args *common, const steer_plan *p, steer *s) {
    cmc_error err = {0};
    cmc_runtime_opts rt_opts = cli_runtime_opts(common, a->exact, a->batches);
    rt_opts.kv = !a->kv || strcmp(a->kv, "half") == 0 ? CMC_KV_HALF : strcmp(a->kv, "int8") == 0 ? CMC_KV_INT8 : CMC_KV_FLOAT;
    rt_opts.output = !a->output || strcmp(a->output, "auto") == 0 ? CMC_OUTPUT_AUTO
                     : strcmp(a->output, "full") == 0             ? CMC_OUTPUT_FULL
                                                                  : CMC_OUTPUT_SCREENED;
    int rc = CLI_OK;
    s->guards = &a->guards;
    s->deltas = calloc(a->deltas.n + 1, sizeof *s->deltas);
    s->paths = calloc(a->deltas.n + 1, sizeof *s->paths);
    s->maps = calloc(a->deltas.n + 1, sizeof *s->maps);
    if (!s->deltas || !s->paths || !s->maps)
        return cli_no_memory();
    if (cmc_runtime_open(&rt_opts, &s->rt, &err) != CMC_OK ||
        cmc_model_open(s->rt, a->host, &s->host, &err) != CMC_OK)
        return cli_error(NULL, &err);
    cmc_expand_info blocks;
    if (a->expand != 1.0 && !cmc_model_expand(s->host, &blocks))
        return cli_usage("--expand-strength: \"%s\" has no expanded blocks; a host from cmc train --expand has", a->host);
    rc = steer_add_loras(s->host, &a->loras);
    if (rc)
        return rc;
    if (cmc_steering_new(s->host, &p->opts, &s->st, &err) != CMC_OK ||
        cmc_steering_set_expand(s->st, a->expand, &err) != CMC_OK)
        return cli_error(NULL, &err);
    for (size_t k = 0; k < a->deltas.n && rc == CLI_OK; k++)
        rc = steer_add(s, a->deltas.v[k], p->maps[k], p->edits[k], p->delta_template);
    return rc;
}

int steer_open(const steer_args *a, const common_args *common, steer *out) {
    memset(out, 0, sizeof *out);
    if (!a->host)
        return cli_usage("-m: a host is needed: -m HOST");
    steer_plan plan = {0};
    int rc = steer_make_plan(a, &plan);
    if (rc == CLI_OK)
        rc = steer_open_parts(a, common, &plan, out);
    free(plan.maps);
    if (rc)
        steer_close(out);
    return rc;
}

void steer_close(steer *s) {
    cmc_steering_free(s->st);
    for (size_t k = 0; k < s->n; k++) {
        cmc_model_free(s->deltas[k]);
        cmc_map_free(s->maps[k]);
        free(s->paths[k]);
    }
    free(s->deltas);
    free(s->paths);
    free(s->maps);
    cmc_model_free(s->host);
    cmc_runtime_free(s->rt);
    memset(s, 0, sizeof *s);
}

double steer_coverage(const steer *s, size_t k) {
    cmc_map_counts c;
    const cmc_map *map = cmc_steering_map(s->st, k);
    if (!map)
        return 0;
    cmc_map_counts_get(map, &c);
    return c.n_host > 0 ? (double)(c.n_host - c.none) / c.n_host : 0;
}

void steer_json(jbuild *o, const steer *s) {
    jbuild a = jarray();
    for (size_t k = 0; k < s->n; k++) {
        jbuild d = jobject();
        jset_string(&d, "file", s->paths[k]);
        jset_real(&d, "alpha", cmc_steering_alpha(s->st, k));
        jset_real(&d, "mapped", steer_coverage(s, k));
        jadd_built(&a, d);
    }
    jset_built(o, "deltas", a);
    guards_json(o, s->guards);
}

void steer_note(steer *s, const char *note) {
    if (note && !s->noted)
        cli_note("%s", note);
    s->noted = s->noted || note;
}
