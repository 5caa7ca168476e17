/* A host and its deltas, as the options -m and -d name them: opened once for run, ab, score and bench. */
#ifndef CMC_CLI_STEER_H
#define CMC_CLI_STEER_H
#include "cli/guards.h"

typedef struct steer_args {
    const char *host;
    arg_list deltas;              /* FILE or FILE=ALPHA */
    arg_list loras;               /* FILE or FILE=SCALE */
    const char *host_template, *delta_template;
    double expand;                /* strength of the host's expanded blocks */
    bool special, exact;
    const char *batches, *kv, *output;
    const char *unmapped;
    arg_list maps, overrides;     /* FILE, or N=FILE for the N-th delta */
    cmc_guards guards;
} steer_args;
extern const arg_opt steer_opts[];
void steer_defaults(steer_args *a);

typedef struct steer {
    cmc_runtime *rt;
    cmc_model *host;
    cmc_model **deltas;           /* [n] */
    char **paths;                 /* [n], without the alphas */
    cmc_map **maps;               /* [n], NULL where the delta's map is the rule's */
    size_t n;
    cmc_steering *st;
    const cmc_guards *guards;     /* the options' */
    bool noted;                   /* steer_note has said something */
} steer;

/* What there is to say of a text that was made or scored, on standard error, the first time; NULL: nothing. */
void steer_note(steer *s, const char *note);
/* Gives an exit status; on failure everything is reported and freed. */
int steer_open(const steer_args *a, const common_args *common, steer *out);
void steer_close(steer *s);
/* "FILE=ALPHA" apart: the last '=' that a number follows. *path is the caller's; alpha NaN where none is given. */
bool steer_split(const char *arg, char **path, double *alpha);
/* "0,0.5,1": n strengths, an array that is the caller's. Gives an exit status; failures are reported. */
int steer_alphas(const char *option, const char *list, double **out, size_t *n);
/* Adds the adapters that --lora names to a model. Gives an exit status; failures are reported. */
int steer_add_loras(cmc_model *m, const arg_list *loras);
/* A map: the list in a file, or built by the rule where that is NULL; then the hand edits of a file that is not NULL.
 * Gives an exit status; failures are reported. */
int steer_map_open(const cmc_vocab *host, const cmc_vocab *delta, cmc_map_rule rule, const char *list,
                   const char *edits, cmc_map **out);
/* The share of the host's tokens that delta k's map reaches, 0 to 1. */
double steer_coverage(const steer *s, size_t k);
/* "deltas": [{"file":..,"alpha":..,"mapped":..}] into o, and "guards" where there are any. */
void steer_json(jbuild *o, const steer *s);
#endif
