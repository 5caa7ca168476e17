/* A session inside the library: the ids of a sequence, how many of them are evaluated, and their keys and values. */
#ifndef CMC_RUNTIME_SESSION_H
#define CMC_RUNTIME_SESSION_H
#include "runtime/kv.h"
#include "runtime/model.h"

struct cmc_session {
    cmc_model *m;
    int32_t n_ctx;
    cmc_ids ids;       /* evaluated, then pending */
    size_t n_eval;     /* positions whose keys and values are in kv */
    kv_cache kv;       /* of the expanded blocks too, behind the layers', unless their strength is 0 */
    float strength;    /* of the model's expanded blocks */
    bool in_eval;      /* in the batch that is being put together: catches a session that is there twice */
};

/* How sessions of the model keep keys and values; those of its expanded blocks are there with a strength other than 0. */
kv_shape session_kv_shape(const cmc_model *m, float strength);
cmc_status session_check_expand(const cmc_model *m, double strength, cmc_error *err);
#endif
