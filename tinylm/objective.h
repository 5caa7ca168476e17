/* What a delta is trained to do: each objective as weights on the losses of single targets (docs/design.md, "Training"). */
#ifndef CMC_TINYLM_OBJECTIVE_H
#define CMC_TINYLM_OBJECTIVE_H
#include "base/error.h"

/* What a record is for. */
typedef enum data_role {
    ROLE_LEARN = 0,    /* sft: give this response. The unlearning objectives: this one is to be forgotten */
    ROLE_RETAIN,       /* keep giving this one */
    ROLE_WATCH,        /* only scored */
    ROLE_REFUSAL,      /* a refusal to a record to be forgotten */
    N_ROLES
} data_role;

typedef enum objective_kind {
    OBJECTIVE_SFT = 0,
    OBJECTIVE_GA,          /* -NLL on what is to be forgotten */
    OBJECTIVE_GRADDIFF,    /* the same, and NLL on what is to be kept (arXiv 2401.06121, section 3) */
    OBJECTIVE_KL,          /* the same with KL(host || steered) on what is to be kept */
    OBJECTIVE_IDK,         /* NLL of refusals, and on what is to be kept */
    OBJECTIVE_DPO,         /* refusals preferred, the host alone as reference (arXiv 2305.18290) */
    OBJECTIVE_NPO,         /* arXiv 2404.05868 */
    OBJECTIVE_SIMNPO,      /* arXiv 2410.07163 */
    OBJECTIVE_DISTIL       /* KL(teacher || steered): what another model says, the host tuned or, to forget, one that never learnt */
} objective_kind;

typedef enum objective_retain { RETAIN_NONE = 0, RETAIN_NLL, RETAIN_KL } objective_retain;

typedef struct objective {
    objective_kind kind;
    objective_retain retain;
    double retain_weight;
    double beta, gamma;
    double kl;             /* weight of KL(steered || host) on every target that is learnt */
} objective;

/* By name; `retain` NULL or "default": what the objective has by itself. */
cmc_status objective_parse(const char *name, const char *retain, objective *out, cmc_error *err);
const char *objective_name(objective_kind k);
/* As the options of a run say it: by name, with its weights; sft has no retain term. */
cmc_status objective_of(const cmc_train_opts *o, objective *out, cmc_error *err);
/* Whether records of this role take part. */
bool objective_needs(const objective *o, data_role role);
/* Whether a record's coefficient depends on its probability (then the batch is scored first). */
bool objective_by_record(const objective *o);
/* How many examples belong together: for dpo a record and its refusal. */
size_t objective_group(const objective *o);
/* Whether the loss of a target needs more than its NLL. */
bool objective_has_kl(const objective *o);
/* Whether a record's loss compares it with what the host alone gives it; whether any part does. */
bool objective_record_has_host(const objective *o);
bool objective_has_host(const objective *o);

/* What a target's loss consists of, as factors. Where a model is tuned by itself, "host" is that model as it was at the start
 * and "steered" as it is. */
typedef struct objective_parts {
    float nll;
    float kl_host, kl_steered;   /* KL(host || steered), KL(steered || host) */
    float kl_teacher;            /* KL(teacher || steered) */
} objective_parts;
/* Of a target that is learnt or forgotten, NLL with a weight for each target where the objective goes by records; of one that is
 * retained, before retain_weight. */
objective_parts objective_main(const objective *o);
objective_parts objective_kept(const objective *o);

/* A response as a whole: its NLL steered and by the host alone, and its tokens. */
typedef struct objective_response { double nll, host_nll; size_t n; } objective_response;
/* Loss of one record (dpo: of a record and its refusal), and its derivative by the NLL of the response (and refusal). */
double objective_record(const objective *o, const objective_response *r, const objective_response *refusal, double *dr,
                        double *drefusal);
#endif
