/* Generating: the options, and a batch that is kept full while prompts last. Shared by run and ab. */
#ifndef CMC_CLI_GENERATE_H
#define CMC_CLI_GENERATE_H
#include "cli/prompts.h"
#include "cli/steer.h"

typedef struct gen_args {
    const char *file, *system;
    int32_t max_tokens, ctx, batch;
    cmc_sampling sampling;        /* its seed comes from the common options */
    arg_list stop;
    bool ignore_eos;
} gen_args;
extern const arg_opt gen_opts[];
void gen_defaults(gen_args *a);

/* One finished text. */
typedef struct gen_side {
    char *text; size_t len;
    int32_t *ids; size_t n_ids;
    size_t prompt_tokens;
    cmc_stop stop;                /* CMC_STOP_NONE: interrupted */
    cmc_stream_timing timing;
    char *note;                   /* NULL: none */
} gen_side;

enum { GEN_UNSTEERED = 0, GEN_STEERED = 1 };

typedef struct gen_job {
    const steer *s;
    const gen_args *args;
    const prompts *p;
    uint64_t seed;                /* prompt i has seed + i, whatever the batch */
    bool both;                    /* each prompt unsteered too, from one prompt evaluation */
    bool compare;                 /* the streams can be asked what steering moved (cmc_stream_compare) */
    void *user;
    /* After every step, with the streams of one live prompt at a time; NULL: not wanted. */
    int (*on_step)(void *user, size_t index, cmc_stream *const side[2]);
    /* In the order of the prompts. side[GEN_UNSTEERED] is empty unless `both`. */
    int (*on_result)(void *user, size_t index, const gen_side side[2]);
} gen_job;

/* Gives an exit status: CLI_INTERRUPTED where Ctrl-C ended it, after the results so far. */
int gen_run(const gen_job *job);
const char *gen_stop_name(cmc_stop stop);         /* "eos", "length", "stop", "interrupted" */
/* Tokens a second, NaN where nothing was timed. */
double gen_prefill_tps(const gen_side *g);
double gen_decode_tps(const gen_side *g);
/* {"text":..,"ids":..,"stop":..,...} into o. */
void gen_json(jbuild *o, const gen_side *g);
#endif
