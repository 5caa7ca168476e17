/* How far a training run is, and which weights scored best. */
#include "tinylm/run.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

cmc_train_progress run_progress(const checkpoint_state *s, const run_pace *pace, const char *phase) {
    double done = (double)(s->step - pace->first_step);
    return (cmc_train_progress){
        .phase = phase,
        .step = s->step,
        .steps = pace->steps,
        .epoch = (double)s->step / (double)pace->steps_per_epoch,
        .loss = s->loss,
        .lr = NAN,
        .grad_norm = NAN,
        .tokens_per_second = pace->busy > 0.0 ? (double)pace->busy_tokens / pace->busy : NAN,
        .seconds_left = done > 0.0 ? (cmc_now() - pace->started) / done * (double)(pace->steps - s->step) : NAN,
        .held_out = s->held_out,
        .best = s->best,
        .memory = cmc_mem_resident(),
    };
}

cmc_status run_log_step(trainlog *log, const cmc_train_progress *p, cmc_error *err) {
    trainlog_field f[] = {{"epoch", p->epoch},
                          {"loss", p->loss},
                          {"lr", p->lr},
                          {"grad_norm", p->grad_norm},
                          {"tokens_per_second", p->tokens_per_second}};
    return trainlog_put(log, "step", p->step, f, sizeof f / sizeof *f, err);
}

cmc_status run_scored(checkpoint_state *s, const checkpoint_arrays *a, const cmc_train_opts *o, double nll,
                      cmc_error *err) {
    s->held_out = nll;
    if (!isfinite(nll))
        return cmc_fail(err, CMC_E_DIVERGED, "step %lld: the held-out loss is no finite number; use a lower lr than %g",
                        (long long)s->step, o->lr);
    if (s->best_step == 0 || nll < s->best) {
        s->best = nll;
        s->best_step = s->step;
        s->evals_since_best = 0;
        memcpy(a->best, a->w, a->n * sizeof(float));
    } else {
        s->evals_since_best++;
    }
    s->stopped = o->patience > 0 && s->evals_since_best >= o->patience;
    return CMC_OK;
}
