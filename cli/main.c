/* The program cmc: picks the verb, reads its options, runs it. */
#include "cli/cli.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const arg_verb *const main_verbs[] = {
    &verb_run, &verb_ab, &verb_score, &verb_map, &verb_tokenize, &verb_inspect, &verb_train, &verb_importance, &verb_merge,
    &verb_train_search, &verb_train_vocab, &verb_eval_nll, &verb_eval_rouge, &verb_eval_tofu, &verb_eval_text,
    &verb_eval_compare, &verb_bench,
};
enum { MAIN_N_VERBS = sizeof main_verbs / sizeof *main_verbs };

const arg_opt common_opts[] = {
    {.name = "json", .kind = ARG_FLAG, .at = offsetof(common_args, json),
     .help = "write JSON, one object a line, figures included"},
    {.name = "threads", .letter = 't', .kind = ARG_INT, .at = offsetof(common_args, threads), .value = "N",
     .help = "worker threads; 0: one for each core", .lo = 0, .hi = 1024, .show_default = true},
    {.name = "seed", .kind = ARG_U64, .at = offsetof(common_args, seed), .value = "N",
     .help = "where random choices start; the same seed gives the same result", .show_default = true},
    {.name = NULL},
};

cmc_runtime_opts cli_runtime_opts(const common_args *c, bool exact, const char *batches) {
    static const char *const names[] = {
        [CMC_BATCHES_AUTO] = "auto", [CMC_BATCHES_FLOAT] = "float", [CMC_BATCHES_INT15] = "int15", [CMC_BATCHES_INT8] = "int8"};
    cmc_runtime_opts o = {.threads = c->threads, .exact = exact};
    for (size_t i = 0; batches && i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], batches) == 0)
            o.batches = (cmc_batches)i;
    return o;
}

/* The name that argv begins with: one word, or two for the verbs of eval. *used: how many. */
static void main_name(int argc, char **argv, char *name, size_t size, int *used) {
    *used = argc > 1 && strcmp(argv[0], "eval") == 0 && argv[1][0] != '-' ? 2 : 1;
    snprintf(name, size, *used == 2 ? "%.60s %.60s" : "%.60s", argv[0], *used == 2 ? argv[1] : "");
}

static const arg_verb *main_find(const char *name) {
    for (size_t i = 0; i < MAIN_N_VERBS; i++) {
        if (strcmp(main_verbs[i]->name, name) == 0)
            return main_verbs[i];
    }
    return NULL;
}

/* eval by itself: its verbs. */
static void main_help_eval(FILE *to) {
    fputs("Usage: cmc eval VERB [options]\n\nMeasures what a host, or a host with deltas, does on a file of records.\n\nVerbs:\n", to);
    for (size_t i = 0; i < MAIN_N_VERBS; i++) {
        if (strncmp(main_verbs[i]->name, "eval ", 5) == 0)
            fprintf(to, "  %-13s%s\n", main_verbs[i]->name + 5, main_verbs[i]->summary);
    }
}

static int main_unknown(const char *name) {
    const char *names[MAIN_N_VERBS + 1];
    for (size_t i = 0; i < MAIN_N_VERBS; i++)
        names[i] = main_verbs[i]->name;
    names[MAIN_N_VERBS] = "help";
    const char *found = arg_suggest(name, names, MAIN_N_VERBS + 1);
    if (found)
        return cli_usage("%s: no such verb; did you mean cmc %s?", name, found);
    return cli_usage("%s: no such verb; see cmc help", name);
}

static void main_help(FILE *to) {
    fputs("cmc - steers a frozen language model (the host) with a tiny trained one (the delta).\n\n"
          "Usage: cmc VERB [options]\n\nVerbs:\n", to);
    for (size_t i = 0; i < MAIN_N_VERBS; i++)
        fprintf(to, "  %-13s%s\n", main_verbs[i]->name, main_verbs[i]->summary);
    fputs("  help         shows this, or a verb's options: cmc help run\n\n"
          "Models and deltas are GGUF files. Text goes to standard output, figures and messages to standard error.\n"
          "Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n", to);
}

static void main_man(void) {
    printf(".TH CMC 1 \"\" \"cmc %s\" \"User Commands\"\n.SH NAME\ncmc \\- steer a frozen language model with a tiny "
           "trained one\n.SH SYNOPSIS\n.B cmc\n.I VERB\n[options]\n.SH DESCRIPTION\n", CMC_VERSION);
    fputs("Cross\\-model Control (arXiv 2410.17599): a small model, the delta, runs beside a frozen host. At each step "
          "the delta's logits are carried through a token map into the host's vocabulary and added to the host's.\n"
          ".PP\nModels and deltas are GGUF files. Text goes to standard output, figures and messages to standard "
          "error. Records are JSON lines (or a JSON list) of {\"instruction\",\"input\",\"output\"}, "
          "{\"question\",\"answer\"}, {\"prompt\",\"response\"}, {\"messages\":[...]} or {\"text\"}.\n", stdout);
    for (size_t i = 0; i < MAIN_N_VERBS; i++)
        arg_man(main_verbs[i], stdout);
    fputs(".SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage, 130 interrupted.\n"
          ".SH ENVIRONMENT\n.TP\n.B OPENBLAS_CORETYPE\nThe core type that OpenBLAS takes the machine for. cmc sets it "
          "where OpenBLAS is known to be wrong and it is not set.\n"
          ".TP\n.B COLUMNS\nThe width that\n.B cmc ab\nlays its columns out for.\n", stdout);
}

static int main_help_verb(int argc, char **argv) {
    if (argc < 1) {
        main_help(stdout);
        return out_flush();
    }
    if (strcmp(argv[0], "--man") == 0) {
        main_man();
        return out_flush();
    }
    char name[128];
    int used;
    main_name(argc, argv, name, sizeof name, &used);
    const arg_verb *verb = main_find(name);
    if (verb)
        arg_help(verb, stdout);
    else if (strcmp(name, "eval") == 0)
        main_help_eval(stdout);
    else
        return main_unknown(name);
    return out_flush();
}

static int main_verb(const arg_verb *verb, int argc, char **argv) {
    arg_list operands = {0};
    void *opts = calloc(1, verb->size);
    int rc = CLI_USAGE;
    if (!opts)
        return cli_no_memory();
    if (verb->defaults)
        verb->defaults(opts);
    int parsed = arg_parse(verb, argc, argv, opts, &operands);
    if (parsed == 0) {
        rc = arg_check_files(verb, opts, &operands) ? verb->main(opts, &operands) : CLI_USAGE;
    } else if (parsed == 1) {
        arg_help(verb, stdout);
        rc = CLI_OK;
    }
    int flushed = out_flush();
    arg_release(verb, opts, &operands);
    free(opts);
    return rc ? rc : flushed;
}

/* OpenBLAS reads its core type when it is loaded, which the library does later, by dlopen. */
static void main_advise_blas(void) {
    const char *core = cmc_blas_core_advice();
    if (core)
        setenv("OPENBLAS_CORETYPE", core, 0);
}

int main(int argc, char **argv) {
    main_advise_blas();
    signal(SIGPIPE, SIG_IGN);         /* a reader that went away is a write error, reported as such */
    setlocale(LC_CTYPE, "C.UTF-8");   /* text is UTF-8 whatever the terminal's locale: for wcwidth and mbrtowc */
    if (argc < 2) {
        main_help(stderr);
        return CLI_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0) {
        int rc = out_printf("cmc %s\n", cmc_version());
        return rc ? rc : out_flush();
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return main_help_verb(argc - 2, argv + 2);
    char full[128];
    int used;
    main_name(argc - 1, argv + 1, full, sizeof full, &used);
    const arg_verb *verb = main_find(full);
    if (verb)
        return main_verb(verb, argc - 1 - used, argv + 1 + used);
    if (strcmp(full, "eval") != 0)
        return main_unknown(full);
    bool help = argc > 2 && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0);
    main_help_eval(help ? stdout : stderr);
    return help ? out_flush() : CLI_USAGE;
}
