/* A training run inside the library: what its parts share. */
#ifndef CMC_TINYLM_TRAIN_H
#define CMC_TINYLM_TRAIN_H
#include "tinylm/adamw.h"
#include "tinylm/batch.h"
#include "tinylm/body.h"
#include "tinylm/keep.h"
#include "tinylm/loss.h"
#include "tinylm/run.h"
#include "tinylm/step.h"
#include "tinylm/train_memory.h"

/* A host that the delta is trained beside, and the data as this host sees it: the same records for every host. */
typedef struct train_host {
    const char *path;
    double weight;               /* share of the loss; they add up to 1 */
    cmc_model *model;
    cmc_map *map;                /* NULL: the delta has the same vocabulary */
    cmc_template t;              /* resolved */
    data_set data;
    char *cache;
    hostcache states;
    loss loss;
    float *log_unigram;          /* [n_vocab] of the training targets, where the host is mixed with it (perturb.h), else NULL */
    double held_host;            /* NLL per held-out target without the delta; NaN: nothing held out */
} train_host;

typedef struct train {
    cmc_runtime *rt;
    cmc_train_opts o;            /* as given, with every default filled in */
    cmc_train_callback cb; void *user;

    train_host *hosts; size_t n_hosts;
    train_host *mix;             /* behind the hosts: another model that is mixed into the one host, or teaches it (mixer.h), its
                                    map from the host's tokens to its own; NULL: none */
    size_t *mix_row;             /* [targets of the host] the mixer's row of states; SIZE_MAX: none */
    save_vocab vocab;            /* the delta's: one of the following, or the first host's */
    cmc_model *vocab_file;       /* the start whose vocabulary it is, else NULL */
    cmc_vocab *vocab_own; gguf *vocab_keys;   /* the file named for it, else NULL; no keys: it is no GGUF file */
    char vocab_hash[40];
    params p;
    char init_hash[96];          /* "none": random start; what was cut from it */
    double cut_gain; bool cut_head;   /* of a cut: what its final norm was scaled by; whether its own head was left behind */
    char *checkpoint, *settings;
    uint32_t save_type;
    bool own_cache;              /* the states' files are beside the checkpoint, and removed with it */

    body body;
    batch batch;                 /* of a piece of a step: at most max_tokens */
    adamw adam;
    soft_mask mask;              /* rows NULL: none */
    float *best, *start, *dhidden, *arena;   /* start: where weights are pulled back to, else NULL */
    objective objective;
    train_plan plan;
    step_order main, kept;       /* of what is learnt or forgotten, then what is replayed; of what is to be retained or replayed */
    size_t *pairs;               /* [2 batch] */
    uint64_t piece;              /* of the step: every forward pass has its own dropout */
    double align_loss;           /* of the step: what holds blocks to their layers */
    double *each;                /* [piece][2] NLL of each target, steered and by the host alone */
    float *weights;              /* [piece] */
    perturb *perturb;            /* [piece] of each target, where hosts are perturbed, else NULL */
    const uint8_t **mixed;       /* [piece] the mixer's states at each target, or NULL, where there is a mixer, else NULL */

    run_pace pace;
    int64_t warmup;
    checkpoint_state s;
    cmc_train_result counts;     /* for reports: data and delta, once they are there */
    double held_host;            /* the hosts' NLL per held-out target, by weight; NaN: nothing held out */
    trainlog log;
    bool resumed;

    cmc_alpha_entry *alphas; size_t n_alphas;
    double alpha_default;
} train;

/* What is the same for every host: the records, which of them are held out, and their order. */
static inline const data_set *train_data(const train *t) {
    return &t->hosts[0].data;
}

/* The models whose states are kept: the hosts, and behind them the one that is mixed in. */
static inline size_t train_n_seen(const train *t) {
    return t->n_hosts + (t->mix ? 1 : 0);
}

/* train_hosts.c: opens the hosts and the vocabulary's file, maps them, makes their data and the names of their caches. */
cmc_status train_hosts_open(train *t, cmc_error *err);
cmc_status train_hosts_data(train *t, cmc_error *err);
/* How the run's records become data of a host, whose map is there. */
data_opts train_data_opts(const train *t, const train_host *h);
cmc_status train_hosts_caches(train *t, cmc_error *err);
void train_hosts_free(train *t);

/* train_setup.c: checks, opens and plans; nothing is computed or written but (on success) memory. */
cmc_status train_setup(train *t, cmc_error *err);
/* Allocates weights and moments, and sets the start: random, init_path or checkpoint. */
cmc_status train_start(train *t, cmc_error *err);
/* What the steps need beside that, when the hosts' states are made: output layers, the optimiser's zeros. */
cmc_status train_start_steps(train *t, cmc_error *err);
void train_release(train *t);
/* Every number of the options is in its range. */
cmc_status train_check_numbers(const cmc_train_opts *o, cmc_error *err);
/* `path` can be written and is none of the run's inputs. */
cmc_status train_check_output(const train *t, const char *path, cmc_error *err);
/* The context length that the delta's file names: trained lengths are shorter, but RoPE goes on a while beyond them. */
uint32_t train_context(const train *t);

/* train_memory.c: tokens of the longest sequence in any host's data. */
size_t train_longest_sequence(const train *t);
/* Lets go the pages of the host's states, where memory is bounded. */
void train_memory_forget_states(const train *t, const train_host *h);

/* train_step.c */
/* The examples of a step: *n of t->main.batch, those to replay last; the last step of an epoch may have fewer. */
const size_t *train_step_examples(train *t, int64_t step, size_t *n);
/* As many examples to retain as the step has to forget, in an order of their own. */
const size_t *train_retain_examples(train *t, int64_t step, size_t n);
cmc_status train_step(train *t, run_step *r, cmc_error *err);
/* The objective's loss on the examples index[0..n) and, of their number, the step's share of those to retain; its gradient
 * is added to the net's. */
cmc_status train_gradient(train *t, const size_t *index, size_t n, double *total, uint64_t *targets, cmc_error *err);
/* NLL per target of the examples index[0..n_index) beside one host under each strength, with the net's present weights; NaN where
 * there is none. */
cmc_status train_score(train *t, train_host *h, const size_t *index, size_t n_index, const double *alphas, size_t n, double *nll,
                       cmc_error *err);
/* That of what is held out. */
cmc_status train_held_out(train *t, train_host *h, const double *alphas, size_t n, double *nll, cmc_error *err);

/* alpha.c: the strengths of t->alphas and t->alpha_default, with the best weights. */
cmc_status alpha_search(train *t, cmc_error *err);
/* What the file says of itself; looks into t. */
cmc_delta_info train_info(const train *t);
/* Reports to the caller; CMC_E_CANCELLED where it wants to stop. */
cmc_status train_report(train *t, const cmc_train_progress *p, cmc_error *err);
cmc_train_progress train_progress(const train *t, const char *phase);
#endif
