/* Temperatures and mixtures with a unigram, drawn for every record of every step. */
#include "tinylm/perturb.h"

#include <math.h>
#include <string.h>

#include "tinylm/params.h"

bool perturb_on(const cmc_train_opts *o) {
    return o->host_temperature_lo > 0.0 || o->host_mix > 0.0;
}

cmc_status perturb_check(const cmc_train_opts *o, objective_kind kind, cmc_error *err) {
    double lo = o->host_temperature_lo, hi = o->host_temperature_hi;
    if ((lo > 0.0) != (hi > 0.0) || lo > hi)
        return cmc_fail(err, CMC_E_ARG, "the host's temperature is from %g to %g; the first must be more than 0, and the "
                        "second no less", lo, hi);
    if (o->host_mix_with && (!(o->host_mix > 0.0) || o->n_hosts != 1))
        return cmc_fail(err, CMC_E_ARG, "%s is to be mixed into the host: that takes a share (host_mix), and one host alone",
                        o->host_mix_with);
    if (perturb_on(o) && kind != OBJECTIVE_SFT)
        return cmc_fail(err, CMC_E_ARG, "objective %s: the host is perturbed with sft only, for the others measure their "
                        "records by the host as it is", objective_name(kind));
    return CMC_OK;
}

static double perturb_uniform(uint64_t *rng) {
    return (double)(params_random(rng) >> 11) * 0x1p-53;
}

perturb perturb_draw(const cmc_train_opts *o, int64_t step, size_t record) {
    uint64_t rng = o->seed * 0x9E3779B97F4A7C15u + (uint64_t)step;
    rng = params_random(&rng) ^ (uint64_t)record;
    double lo = o->host_temperature_lo > 0.0 ? o->host_temperature_lo : 1.0;
    double hi = o->host_temperature_lo > 0.0 ? o->host_temperature_hi : 1.0;
    double t = lo * pow(hi / lo, perturb_uniform(&rng));   /* log-uniform */
    double mix = o->host_mix * perturb_uniform(&rng);
    return (perturb){(float)((1.0 - mix) / t), (float)mix};
}

perturb perturb_unmixed(perturb p) {
    return (perturb){p.scale / (1.0f - p.mix), 0.0f};
}

void perturb_unigram(const data_set *d, size_t n_vocab, float *log_u) {
    double all = (double)n_vocab;
    for (size_t i = 0; i < n_vocab; i++)
        log_u[i] = 1.0f;
    for (size_t i = 0; i < d->n_train; i++) {
        const data_example *x = &d->v[d->train[i]];
        for (size_t k = 0; k < x->n_targets; k++)
            log_u[x->targets[k]] += 1.0f;   /* exact up to 2^24 of one token, and stays there */
        all += (double)x->n_targets;
    }
    for (size_t i = 0; i < n_vocab; i++)
        log_u[i] = (float)log((double)log_u[i] / all);
}
