/* cmc train-vocab: make a small vocabulary from data. */
#include "cli/cli.h"
#include "cli/json.h"

#include <inttypes.h>

typedef struct vocab_args {
    common_args common;
    arg_list data, symbols, control;
    const char *template;
    cmc_vocab_train_opts v;    /* its lists and template are filled in from the above */
} vocab_args;

#define VOCAB_AT(field) offsetof(vocab_args, v.field)

static const arg_opt vocab_opts[] = {
    {.name = "data", .file = ARG_READS, .kind = ARG_LIST, .at = offsetof(vocab_args, data), .value = "FILE",
     .help = "records, .jsonl or .json, or a text under any other name (may be repeated)"},
    {.name = "out", .file = ARG_WRITES, .letter = 'o', .kind = ARG_STR, .at = VOCAB_AT(out_path), .value = "VOCAB",
     .help = "what to write: NAME.model is a SentencePiece model, any other name a GGUF file"},
    {.name = "template", .kind = ARG_STR, .at = offsetof(vocab_args, template), .value = "NAME",
     .help = "how records are rendered (see cmc run --help): the delta's template in training", .show_default = true},
    {.name = "size", .kind = ARG_INT, .at = VOCAB_AT(size), .value = "N",
     .help = "tokens, at most: 256 of them are the bytes", .lo = 260, .hi = 1 << 20, .show_default = true},
    {.name = "kind", .kind = ARG_STR, .at = VOCAB_AT(kind), .value = "bpe|unigram",
     .help = "how a text is cut: by merging pairs, or into the likeliest pieces", .choices = "bpe|unigram",
     .show_default = true},
    {.name = "coverage", .kind = ARG_REAL, .at = VOCAB_AT(coverage), .value = "X",
     .help = "share of the data's characters that get a token; rarer ones are bytes", .lo = 0.98, .hi = 1,
     .show_default = true},
    {.name = "split-digits", .kind = ARG_FLAG, .at = VOCAB_AT(split_digits), 
     .help = "every digit is a token of its own"},
    {.name = "symbol", .kind = ARG_LIST, .at = offsetof(vocab_args, symbols), .value = "TEXT",
     .help = "a text that is always one token (may be repeated)"},
    {.name = "control", .kind = ARG_LIST, .at = offsetof(vocab_args, control), .value = "NAME",
     .help = "a further control token (may be repeated); the template's are there by themselves"},
    {.name = NULL},
};

static int vocab_check(vocab_args *a, const arg_list *operands) {
    cmc_error err = {0};
    if (operands->n)
        return cli_usage("\"%s\": train-vocab takes its text from files: --data FILE", operands->v[0]);
    if (!a->data.n)
        return cli_usage("--data: a file of records or text is needed: --data FILE");
    if (!a->v.out_path)
        return cli_usage("-o: the vocabulary needs a name: -o VOCAB");
    if (cmc_template_parse(a->template, &a->v.t, &err) != CMC_OK)
        return cli_usage("--template: %s", err.message);
    a->v.data = a->data.v;
    a->v.n_data = a->data.n;
    a->v.symbols = a->symbols.v;
    a->v.n_symbols = a->symbols.n;
    a->v.control = a->control.v;
    a->v.n_control = a->control.n;
    return CLI_OK;
}

static int vocab_json(const vocab_args *a, const cmc_vocab_train_result *r) {
    jbuild o = jobject();
    jset_string(&o, "out", a->v.out_path);
    jset_int(&o, "tokens", r->tokens);
    jset_int(&o, "records", (int64_t)r->records);
    jset_int(&o, "bytes", (int64_t)r->bytes);
    jset_real(&o, "seconds", r->seconds);
    return jout(o);
}

static int vocab_main(void *opts, const arg_list *operands) {
    vocab_args *a = opts;
    cmc_vocab_train_result r;
    cmc_error err = {0};
    int rc = vocab_check(a, operands);
    if (rc)
        return rc;
    if (cmc_vocab_train(&a->v, &r, &err) != CMC_OK)
        return cli_error(NULL, &err);
    if (a->common.json)
        return vocab_json(a, &r);
    return out_printf("%s: %" PRId32 " tokens from %" PRIu64 " bytes of text in %.1f s\n", a->v.out_path, r.tokens,
                      r.bytes, r.seconds);
}

static void vocab_defaults(void *opts) {
    vocab_args *a = opts;
    a->v = cmc_vocab_train_defaults();
    a->template = cmc_template_name(a->v.t);
}

static const arg_group vocab_groups[] = {
    {"Options", vocab_opts, 0},
    {"Every verb", common_opts, offsetof(vocab_args, common)},
};

const arg_verb verb_train_vocab = {
    .name = "train-vocab",
    .usage = "--data FILE... -o VOCAB [options]",
    .summary = "make a small vocabulary",
    .text = "Learns a SentencePiece vocabulary from the text of records, for cmc train --vocab: a delta with 8,000 "
            "tokens is a fraction of one with the host's. Every byte has a token, and no space is added or taken away, "
            "so any text comes back as it was. There is no chance in it: neither --seed nor --threads changes the result.",
    .example = "cmc train-vocab --data train.jsonl -o vocab.gguf",
    .groups = vocab_groups,
    .n_groups = sizeof vocab_groups / sizeof *vocab_groups,
    .size = sizeof(vocab_args),
    .defaults = vocab_defaults,
    .main = vocab_main,
};
