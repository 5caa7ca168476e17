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
    kv_cache kv;
    bool in_eval;      /* in the batch that is being put together: catches a session that is there twice */
};

/* How sessions of the model keep keys and values. */
kv_shape session_kv_shape(const cmc_model *m);
#endif
