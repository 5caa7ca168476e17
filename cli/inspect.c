/* cmc inspect: what a file says of itself. */
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

typedef struct inspect_args { common_args common; } inspect_args;

static json_t *inspect_id(int32_t id) {
    return id < 0 ? json_null() : json_integer(id);
}

static jbuild inspect_vocab_json(const cmc_vocab *v) {
    jbuild o = jobject();
    jbuild ends = jarray();
    jset_string(&o, "kind", cmc_vocab_kind_name(v));
    jset_int(&o, "n", cmc_vocab_size(v));
    jset(&o, "bos", inspect_id(cmc_vocab_role_token(v, CMC_ROLE_BOS)));
    jset(&o, "eos", inspect_id(cmc_vocab_role_token(v, CMC_ROLE_EOS)));
    jset(&o, "adds_bos", json_boolean(cmc_vocab_adds_bos(v)));
    for (int32_t i = 0; i < cmc_vocab_size(v); i++) {
        if (cmc_vocab_is_end(v, i))
            jadd(&ends, json_integer(i));
    }
    jset_built(&o, "ends", ends);
    return o;
}

static jbuild inspect_delta_json(const cmc_delta_info *d) {
    jbuild o = jobject(), alphas = jarray();
    jset_int(&o, "format_version", d->format_version);
    jset_string(&o, "host_template", d->host_template);
    jset_string(&o, "delta_template", d->delta_template);
    jset_real(&o, "alpha", d->alpha);
    for (size_t i = 0; i < d->n_alphas; i++) {
        jbuild e = jobject();
        jset_string(&e, "host", d->alphas[i].host_name);
        jset_string(&e, "host_hash", d->alphas[i].host_hash);
        jset_real(&e, "alpha", d->alphas[i].alpha);
        jset_real(&e, "gain", d->alphas[i].gain);
        jadd_built(&alphas, e);
    }
    jset_built(&o, "alphas", alphas);
    jset_string(&o, "trained_host", d->trained_host);
    jset_string(&o, "trained_host_hash", d->trained_host_hash);
    jset_string(&o, "data_hash", d->data_hash);
    jset_string(&o, "objective", d->objective);
    jset_int(&o, "steps", (int64_t)d->steps);
    jset_int(&o, "seed", (int64_t)d->seed);
    jset_real(&o, "gain", d->gain);
    return o;
}

static jbuild inspect_expand_json(const cmc_expand_info *x) {
    jbuild o = jobject(), blocks = jarray();
    jset_string(&o, "kind", x->kind);
    jset_string(&o, "merge", x->merge);
    for (size_t i = 0; i < x->n; i++) {
        jbuild b = jobject();
        jset_int(&b, "layer", x->points[i].layer);
        jset_string(&b, "place", x->points[i].stack ? "behind" : "beside");
        jadd_built(&blocks, b);
    }
    jset_built(&o, "blocks", blocks);
    return o;
}

static int inspect_json(const cmc_file_info *fi) {
    cmc_expand_info x;
    jbuild o = jobject(), quant = jobject();
    size_t n;
    const cmc_type_count *types = cmc_file_info_types(fi, &n);
    const cmc_vocab *v = cmc_file_info_vocab(fi);
    const cmc_delta_info *d = cmc_file_info_delta(fi);
    jset_string(&o, "arch", cmc_file_info_arch(fi));
    jset_string(&o, "name", cmc_file_info_name(fi));
    jset_int(&o, "params", (int64_t)cmc_file_info_params(fi));
    jset_int(&o, "bytes", (int64_t)cmc_file_info_bytes(fi));
    jset_int(&o, "context", cmc_file_info_context(fi));
    jset_int(&o, "layers", cmc_file_info_layers(fi));
    jset_int(&o, "embd", cmc_file_info_embd(fi));
    if (v)
        jset_built(&o, "vocab", inspect_vocab_json(v));
    else
        jset(&o, "vocab", json_null());
    for (size_t i = 0; i < n; i++) {
        jbuild t = jobject();
        jset_int(&t, "tensors", (int64_t)types[i].tensors);
        jset_int(&t, "params", (int64_t)types[i].params);
        jset_int(&t, "bytes", (int64_t)types[i].bytes);
        jset_built(&quant, types[i].type, t);
    }
    jset_built(&o, "quant", quant);
    if (cmc_file_info_expand(fi, &x))
        jset_built(&o, "expand", inspect_expand_json(&x));
    else
        jset(&o, "expand", json_null());
    if (d)
        jset_built(&o, "delta", inspect_delta_json(d));
    else
        jset(&o, "delta", json_null());
    return jout(o);
}

/* ----------------------------------------------------------------------------------------------- for people */

/* 134515008 as "134.5 M". */
static const char *inspect_count(uint64_t n, char out[32]) {
    if (n >= 1000000000)
        snprintf(out, 32, "%.2f G", (double)n / 1e9);
    else if (n >= 1000000)
        snprintf(out, 32, "%.1f M", (double)n / 1e6);
    else if (n >= 10000)
        snprintf(out, 32, "%.1f k", (double)n / 1e3);
    else
        snprintf(out, 32, "%" PRIu64, n);
    return out;
}

/* A line of the table. What comes from the file may hold anything: it is made fit for a terminal. */
static int inspect_line(const char *label, const char *fmt, ...) CLI_PRINTF(2, 3);
static int inspect_line(const char *label, const char *fmt, ...) {
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    int rc = out_printf("%-14s ", label);
    if (rc == CLI_OK)
        rc = text_put(line, strlen(line), 0, false);
    return rc ? rc : out_bytes("\n", 1);
}

static int inspect_token(const cmc_vocab *v, int32_t id, const char *what) {
    size_t n;
    if (id < 0)
        return CLI_OK;
    const char *s = cmc_vocab_spelling(v, id, &n);
    return inspect_line(what, "%" PRId32 " %.*s", id, (int)(n < 60 ? n : 60), s);
}

static int inspect_vocab(const cmc_vocab *v) {
    int rc = out_printf("vocabulary     %s, %" PRId32 " tokens%s\n", cmc_vocab_kind_name(v), cmc_vocab_size(v),
                        cmc_vocab_adds_bos(v) ? ", BOS put first" : "");
    if (rc == CLI_OK)
        rc = inspect_token(v, cmc_vocab_role_token(v, CMC_ROLE_BOS), "  bos");
    for (int32_t i = 0; i < cmc_vocab_size(v) && rc == CLI_OK; i++) {
        if (cmc_vocab_is_end(v, i))
            rc = inspect_token(v, i, "  end");
    }
    return rc;
}

static int inspect_types(const cmc_file_info *fi) {
    size_t n;
    char params[32], bytes[32];
    const cmc_type_count *types = cmc_file_info_types(fi, &n);
    int rc = out_printf("tensors        type       tensors     params      bytes\n");
    for (size_t i = 0; i < n && rc == CLI_OK; i++) {
        rc = out_printf("               %-8s %9" PRIu64 " %10s %10s\n", types[i].type, types[i].tensors,
                        inspect_count(types[i].params, params), inspect_count(types[i].bytes, bytes));
    }
    return rc;
}

static int inspect_delta(const cmc_delta_info *d) {
    int rc = inspect_line("delta", "format %" PRIu32 ", templates: host %s, delta %s", d->format_version,
                          d->host_template, d->delta_template);
    if (rc == CLI_OK)
        rc = inspect_line("  trained on", "%s (%s)", d->trained_host, d->trained_host_hash);
    if (rc == CLI_OK)
        rc = inspect_line("  by", "%s, %" PRIu64 " steps, seed %" PRIu64 ", data %s", d->objective, d->steps, d->seed,
                          d->data_hash);
    if (rc == CLI_OK)
        rc = inspect_line("  gain", "%.4f nats a token on held-out text", d->gain);
    if (rc == CLI_OK)
        rc = inspect_line("  alpha", "%.6g for a host that is not named here", d->alpha);
    for (size_t i = 0; i < d->n_alphas && rc == CLI_OK; i++) {
        rc = inspect_line("", "%.6g for %s (%s), gain %.4f", d->alphas[i].alpha, d->alphas[i].host_name,
                          d->alphas[i].host_hash, d->alphas[i].gain);
    }
    return rc;
}

static int inspect_expand(const cmc_expand_info *x) {
    int rc = inspect_line("expanded", "%s, %zu blocks, merge %s", x->kind, x->n, x->merge);
    for (size_t i = 0; i < x->n && rc == CLI_OK; i++)
        rc = inspect_line("", "%s layer %" PRId32, x->points[i].stack ? "behind" : "beside", x->points[i].layer);
    return rc;
}

static int inspect_table(const char *path, const cmc_file_info *fi) {
    char params[32], bytes[32];
    const char *name = cmc_file_info_name(fi);
    const cmc_vocab *v = cmc_file_info_vocab(fi);
    const cmc_delta_info *d = cmc_file_info_delta(fi);
    cmc_expand_info x;
    int rc = inspect_line("file", "%s", path);
    if (rc == CLI_OK)
        rc = inspect_line("name", "%s", name ? name : "-");
    if (rc == CLI_OK)
        rc = inspect_line("architecture", "%s", cmc_file_info_arch(fi));
    if (rc == CLI_OK)
        rc = inspect_line("parameters", "%s (%" PRIu64 ")", inspect_count(cmc_file_info_params(fi), params),
                          cmc_file_info_params(fi));
    if (rc == CLI_OK)
        rc = inspect_line("size", "%s bytes (%" PRIu64 ")", inspect_count(cmc_file_info_bytes(fi), bytes),
                          cmc_file_info_bytes(fi));
    if (rc == CLI_OK)
        rc = inspect_line("context", "%" PRId32 " tokens", cmc_file_info_context(fi));
    if (rc == CLI_OK)
        rc = inspect_line("layers", "%" PRId32 " of width %" PRId32, cmc_file_info_layers(fi), cmc_file_info_embd(fi));
    if (rc == CLI_OK)
        rc = v ? inspect_vocab(v) : inspect_line("vocabulary", "none");
    if (rc == CLI_OK && cmc_file_info_expand(fi, &x))
        rc = inspect_expand(&x);
    if (rc == CLI_OK)
        rc = inspect_types(fi);
    return rc || !d ? rc : inspect_delta(d);
}

static int inspect_main(void *opts, const arg_list *operands) {
    const inspect_args *a = opts;
    cmc_file_info *fi = NULL;
    cmc_error err = {0};
    if (operands->n != 1)
        return cli_usage("inspect takes one FILE, not %zu", operands->n);
    if (cmc_file_info_open(operands->v[0], &fi, &err) != CMC_OK)
        return cli_error(NULL, &err);
    int rc = a->common.json ? inspect_json(fi) : inspect_table(operands->v[0], fi);
    cmc_file_info_free(fi);
    return rc;
}

static const arg_group inspect_groups[] = {{"Every verb", common_opts, offsetof(inspect_args, common)}};

const arg_verb verb_inspect = {
    .name = "inspect",
    .usage = "FILE [--json]",
    .summary = "what a GGUF file holds",
    .text = "Shows a file's architecture, size, tensor types and vocabulary and, for a delta, how it was trained and "
            "at which strengths it works best. Only the header is read.",
    .example = "cmc inspect delta.gguf",
    .groups = inspect_groups,
    .n_groups = 1,
    .size = sizeof(inspect_args),
    .main = inspect_main,
    .operands_are_files = true,
};
