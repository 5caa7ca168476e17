/* Replay, the pull to the start and the soft mask as options: checks, counts, and what a checkpoint says of them. */
#include "tinylm/keep.h"

#include <stdio.h>
#include <string.h>

#include "tinylm/run.h"

static const char *const keep_controls[] = {"none", "permuted", "constant"};   /* as soft_mask_control */
enum { KEEP_CONTROLS = sizeof keep_controls / sizeof *keep_controls };

static const char *keep_control(const cmc_keep_opts *k) {
    return k->mask_control ? k->mask_control : keep_controls[0];
}

bool keep_masks_gradient(const cmc_keep_opts *k) {
    return k->mask_on && strcmp(k->mask_on, "gradient") == 0;
}

cmc_status keep_check(const cmc_keep_opts *k, cmc_error *err) {
    if (!(k->replay_share > 0.0 && k->replay_share <= 0.9))
        return cmc_fail(err, CMC_E_ARG, "replay_share is %g; it must be above 0, and 0.9 at most", k->replay_share);
    if (k->n_watch > DATA_WATCHED)
        return cmc_fail(err, CMC_E_ARG, "%zu files to watch; %d at most", k->n_watch, DATA_WATCHED);
    if (!(k->l2_start >= 0.0 && k->l2_start <= 1e6))
        return cmc_fail(err, CMC_E_ARG, "l2_start is %g; it must be from 0 to 1e6", k->l2_start);
    if (!(k->wise_ft > 0.0 && k->wise_ft <= 1.0))
        return cmc_fail(err, CMC_E_ARG, "wise_ft is %g; it must be above 0, and 1 at most", k->wise_ft);
    if (k->mask_on && strcmp(k->mask_on, "update") != 0 && strcmp(k->mask_on, "gradient") != 0)
        return cmc_fail(err, CMC_E_ARG, "mask_on is \"%.40s\"; it must be update or gradient", k->mask_on);
    return CMC_OK;
}

bool keep_needs_start(const cmc_keep_opts *k) {
    return k->l2_start > 0.0 || k->wise_ft < 1.0;
}

void keep_on_line(const cmc_keep_opts *k, const float *start, float *w, size_t n) {
    const float share = (float)k->wise_ft;
    for (size_t i = 0; i < n; i++)
        w[i] = (1.0f - share) * start[i] + share * w[i];
}

size_t keep_replay_before(const cmc_keep_opts *k, int32_t batch, int64_t step) {
    return k->n_replay ? (size_t)((double)step * batch * k->replay_share / (1.0 - k->replay_share)) : 0;
}

size_t keep_replay_most(const cmc_keep_opts *k, int32_t batch) {
    return k->n_replay ? keep_replay_before(k, batch, 1) + 2 : 0;
}

cmc_status keep_mask(const cmc_keep_opts *k, const params *tensors, const model_params *shape, uint64_t seed, soft_mask *out,
                     cmc_error *err) {
    size_t i = 0;
    while (i < KEEP_CONTROLS && strcmp(keep_control(k), keep_controls[i]) != 0)
        i++;
    if (i == KEEP_CONTROLS)
        return cmc_fail(err, CMC_E_ARG, "mask_control is \"%.40s\"; it must be none, permuted or constant", keep_control(k));
    if (!k->soft_mask)
        return CMC_OK;
    return soft_mask_open(k->soft_mask, tensors, shape, (soft_mask_control)i, seed, out, err);
}

char *keep_setting(const cmc_keep_opts *k, const char *replay_hash, const soft_mask *m) {
    char replay[80] = "", l2[48] = "", mask[120] = "", *all;
    if (k->n_replay)
        snprintf(replay, sizeof replay, "replay %s %.17g\n", replay_hash, k->replay_share);
    if (k->l2_start > 0.0)
        snprintf(l2, sizeof l2, "l2_start %.17g\n", k->l2_start);
    if (m->rows)
        snprintf(mask, sizeof mask, "soft_mask %s on %s, control %s\n", m->hash, keep_masks_gradient(k) ? "gradient" : "update", keep_control(k));
    return asprintf(&all, "%s%s%s", replay, l2, mask) < 0 ? NULL : all;
}
