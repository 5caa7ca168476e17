/* cmc tokenize: text to tokens. */
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct tokenize_args {
    common_args common;
    const char *model, *file;
    bool ids, special, no_bos;
} tokenize_args;

static const arg_opt tokenize_opts[] = {
    {.name = "model", .file = ARG_READS, .letter = 'm', .kind = ARG_STR, .at = offsetof(tokenize_args, model), .value = "FILE",
     .help = "whose vocabulary: a GGUF file, a SentencePiece .model or a tokenizer.json"},
    {.name = "file", .file = ARG_READS, .letter = 'f', .kind = ARG_STR, .at = offsetof(tokenize_args, file), .value = "FILE",
     .help = "the text, every byte of it (- is standard input)"},
    {.name = "ids", .kind = ARG_FLAG, .at = offsetof(tokenize_args, ids), .help = "one line of ids, no pieces"},
    {.name = "special", .kind = ARG_FLAG, .at = offsetof(tokenize_args, special),
     .help = "spellings of control tokens become those tokens"},
    {.name = "no-bos", .kind = ARG_FLAG, .at = offsetof(tokenize_args, no_bos),
     .help = "leave BOS out where the model asks for it"},
    {.name = NULL},
};

/* What a token is shown as: its bytes or, where it has none, its spelling. */
static const uint8_t *tokenize_piece(const cmc_vocab *v, int32_t id, size_t *n) {
    const uint8_t *bytes = cmc_vocab_bytes(v, id, n);
    return *n ? bytes : (const uint8_t *)cmc_vocab_spelling(v, id, n);
}

static int tokenize_json(const cmc_vocab *v, const cmc_ids *ids) {
    jbuild o = jobject(), pieces = jarray();
    for (size_t i = 0; i < ids->n; i++) {
        size_t n;
        const uint8_t *piece = tokenize_piece(v, ids->v[i], &n);
        jadd(&pieces, jpiece(piece, n));
    }
    jset(&o, "ids", jids(ids->v, ids->n));
    jset_built(&o, "pieces", pieces);
    return jout(o);
}

static int tokenize_table(const cmc_vocab *v, const cmc_ids *ids) {
    int rc = CLI_OK;
    for (size_t i = 0; i < ids->n && rc == CLI_OK; i++) {
        size_t n;
        int columns;
        const uint8_t *piece = tokenize_piece(v, ids->v[i], &n);
        rc = out_printf("%7" PRId32 "  ", ids->v[i]);
        if (rc == CLI_OK)
            rc = text_quote((const char *)piece, n, &columns);
        if (rc == CLI_OK)
            rc = out_bytes("\n", 1);
    }
    return rc;
}

static int tokenize_ids(const cmc_ids *ids) {
    int rc = CLI_OK;
    for (size_t i = 0; i < ids->n && rc == CLI_OK; i++)
        rc = out_printf("%s%" PRId32, i ? " " : "", ids->v[i]);
    return rc ? rc : out_bytes("\n", 1);
}

static int tokenize_text(const tokenize_args *a, const char *text, size_t len) {
    cmc_vocab *v = NULL;
    cmc_ids ids = {0};
    cmc_error err = {0};
    unsigned flags = (a->no_bos ? 0u : (unsigned)CMC_TOK_BOS) | (a->special ? (unsigned)CMC_TOK_SPECIAL : 0u);
    int rc;
    if (cmc_vocab_open(a->model, &v, &err) != CMC_OK || cmc_tokenize(v, text, len, flags, &ids, &err) != CMC_OK)
        rc = cli_error(NULL, &err);
    else
        rc = a->common.json ? tokenize_json(v, &ids) : a->ids ? tokenize_ids(&ids) : tokenize_table(v, &ids);
    cmc_ids_free(&ids);
    cmc_vocab_free(v);
    return rc;
}

static int tokenize_main(void *opts, const arg_list *operands) {
    const tokenize_args *a = opts;
    if (!a->model)
        return cli_usage("-m: a vocabulary is needed: cmc tokenize -m FILE");
    if (operands->n > 1)
        return cli_usage("\"%s\": a second text; put the text in quotes", operands->v[1]);
    if ((operands->n == 1) == (a->file != NULL))
        return cli_usage(a->file ? "-f: a text is given on the command line as well"
                                 : "a text is needed: TEXT, or -f FILE (-f - reads standard input)");
    if (!a->file)
        return tokenize_text(a, operands->v[0], strlen(operands->v[0]));
    char *text;
    size_t len;
    int rc = cli_read_file(a->file, &text, &len);
    if (rc == CLI_OK)
        rc = tokenize_text(a, text, len);
    free(text);
    return rc;
}

static const arg_group tokenize_groups[] = {
    {"Options", tokenize_opts, 0},
    {"Every verb", common_opts, offsetof(tokenize_args, common)},
};

const arg_verb verb_tokenize = {
    .name = "tokenize",
    .usage = "-m FILE [--ids] [-f FILE | TEXT] [options]",
    .summary = "text to tokens",
    .text = "Shows the tokens of a text, one a line: the id and the bytes it stands for. BOS comes first where the "
            "model asks for it.",
    .example = "cmc tokenize -m host.gguf \"Hello, world\"",
    .groups = tokenize_groups,
    .n_groups = sizeof tokenize_groups / sizeof *tokenize_groups,
    .size = sizeof(tokenize_args),
    .main = tokenize_main,
};
