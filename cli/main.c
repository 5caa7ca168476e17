/* The program cmc: picks the verb, reads its options, runs it. */
#include "cli/cli.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const arg_verb *const main_verbs[] = {
    &verb_run, &verb_ab, &verb_score, &verb_map, &verb_tokenize, &verb_inspect, &verb_train, &verb_merge, &verb_train_vocab,
    &verb_bench,
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

static const arg_verb *main_find(const char *name) {
    for (size_t i = 0; i < MAIN_N_VERBS; i++) {
        if (strcmp(main_verbs[i]->name, name) == 0)
            return main_verbs[i];
    }
    return NULL;
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
    const arg_verb *verb = main_find(argv[0]);
    if (!verb)
        return main_unknown(argv[0]);
    arg_help(verb, stdout);
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
        rc = verb->main(opts, &operands);
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
    const arg_verb *verb = main_find(name);
    return verb ? main_verb(verb, argc - 2, argv + 2) : main_unknown(name);
}
