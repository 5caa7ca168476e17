/* A host and its deltas inside the library. */
#ifndef CMC_RUNTIME_STEERING_H
#define CMC_RUNTIME_STEERING_H
#include "base/pool.h"
#include "runtime/guard.h"

typedef struct steering_delta {
    cmc_model *model;
    const cmc_map *map;
    cmc_map *own_map;          /* map, where it was built here */
    cmc_map *first_map; /* for the response's first token where host and delta differ in the lead, else NULL (lead.h) */
    double alpha;
    cmc_template t;            /* resolved */
    const char *lead;          /* what the delta's responses begin with */
    bool same_vocab;           /* the delta takes the host's response ids as they are */
} steering_delta;

struct cmc_steering {
    cmc_model *host;
    cmc_steering_opts opts;    /* but for the guards */
    guards guards;
    cmc_template t;            /* the host's, resolved */
    const char *lead;
    double expand;             /* strength of the host's expanded blocks */
    steering_delta *deltas; size_t n, cap;
};

/* What a delta gives to one step. */
typedef enum steering_row {
    STEERING_NO_ROW = 0,       /* nothing: it waits, or is left out */
    STEERING_ROW,
    STEERING_FIRST_ROW         /* the response has no byte yet and the leads differ: first_map applies */
} steering_row;

/* Scratch of steering_shift: for one thread. */
typedef struct steering_work {
    float *floats;
    shift_in *in;
    size_t n;      /* deltas that there were when it was made; of rows, kinds and strengths there are as many */
} steering_work;
cmc_status steering_work_new(const cmc_steering *st, steering_work *out, cmc_error *err);
void steering_work_free(steering_work *w);

/* A session of the host with that strength. */
cmc_status steering_session(const cmc_steering *st, int32_t n_ctx, cmc_session **out, cmc_error *err);

/* Whether a strength steers at all: the arithmetic is float32. */
bool steering_active(double alpha);
/* A strength that can be used: CMC_E_ARG for any other. */
cmc_status steering_check_alpha(const cmc_model *delta, double alpha, cmc_error *err);
/* The shift (docs/design.md, "Steering") and the guards' bounds, on logits[n_host] in place. rows[k] counts where kinds[k] says so and alphas[k] is not 0. True where it
 * did change something. */
bool steering_shift(const cmc_steering *st, const double *alphas, const float *const *rows, const steering_row *kinds,
                    float *logits, steering_work *w);
/* The same, bit for bit, by all threads of the host's pool; not for one of them to call. */
bool steering_shift_by_all(const cmc_steering *st, const double *alphas, const float *const *rows, const steering_row *kinds,
                           float *logits, steering_work *w);
/* The token that greedy decoding takes of the logits that either would leave, which stay as they are; -1 where it takes the shift to say,
 * as with several deltas, bounds, or a near thing. The pool's threads help, if they are free; NULL where they are not. */
int32_t steering_best(const cmc_steering *st, const double *alphas, const float *const *rows, const steering_row *kinds,
                      const float *logits, steering_work *w, cmc_pool *pool);
#endif
