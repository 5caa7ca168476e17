/* An adapter or blocks that are trained in a model's place: their options, their start. */
#include "tinylm/lm_added.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tinylm/keep.h"

cmc_status added_check(cmc_train_opts *o, cmc_error *err) {
    const cmc_keep_opts *k = &o->keep;
    if (o->lora_alpha == 0.0)
        o->lora_alpha = 2.0 * o->lora_rank;
    if (o->lora_rank && (k->l2_start > 0.0 || k->soft_mask))
        return cmc_fail(err, CMC_E_ARG, "%s is for training weights themselves, not an adapter", k->soft_mask ? "soft_mask" : "l2_start");
    if (o->expand.kind && k->soft_mask)
        return cmc_fail(err, CMC_E_ARG, "soft_mask is for training weights themselves, not blocks beside them");
    if (o->expand.kind && k->wise_ft < 1.0)
        return cmc_fail(err, CMC_E_ARG, "wise_ft is %g; expanded blocks have a strength at run time in its place", k->wise_ft);
    return CMC_OK;
}

/* Blocks: which, how their outputs are merged, and what holds them to their layers. */
static cmc_status added_blocks(const cmc_expand_opts *x, const cmc_model *m, expand_spec *spec, alignment *align, cmc_error *err) {
    expand_kind kind;
    expand_merge merge;
    if (!x->kind)
        return CMC_OK;
    if (!(x->share > 0.0 && x->share < 1.0))
        return cmc_fail(err, CMC_E_ARG, "expand.share is %g; a number between 0 and 1 would be right", x->share);
    if (!(x->align_weight >= 0.0 && x->align_weight <= 1e6))
        return cmc_fail(err, CMC_E_ARG, "expand.align_weight is %g; it must be from 0 to 1e6", x->align_weight);
    CMC_TRY(expand_kind_parse(x->kind, &kind, err));
    CMC_TRY(expand_merge_parse(x->merge, &merge, err));
    CMC_TRY(align_parse(x->align, &align->kind, err));
    align->by_share = x->align_by_share;
    align->through = x->align_through;
    return expand_plan(kind, merge, x->blocks, m->p.n_layer, spec, err);
}

cmc_status added_layout(const cmc_train_opts *o, const cmc_model *m, expand_spec *spec, alignment *align, lm_layout *l, cmc_error *err) {
    CMC_TRY(added_blocks(&o->expand, m, spec, align, err));
    const lm_trainable what = {.rank = o->lora_rank, .alpha = o->lora_alpha, .targets = o->lora_targets, .layers = o->train_layers,
                               .modules = o->train_modules, .expand = o->expand.kind ? spec : NULL,
                               .learn_share = o->expand.learn_share, .unfrozen = o->expand.unfrozen};
    return lm_layout_init(m, &what, l, err);
}

void added_start(const cmc_train_opts *o, const cmc_model *m, const alignment *align, lm_net *n) {
    lm_load(n->l, m, n->w);
    if (o->lora_rank)
        lm_lora_start(n->l, o->seed, n->trained);
    lm_expand_copy(n->l, n->w);
    lm_expand_gates(n->l, log(o->expand.share / (1.0 - o->expand.share)), o->seed, n->w);
    n->align = *align;
}

double added_align_weight(const cmc_train_opts *o, const lm_layout *l, size_t tokens) {
    return l->n_merges ? o->expand.align_weight / ((double)l->n_merges * (double)tokens) : 0.0;
}

void added_on_line(const cmc_train_opts *o, const lm_layout *l, const float *start, float *w) {
    const params *p = lm_trained(l);
    if (!o->lora_rank) {
        keep_on_line(&o->keep, start, w, p->n_trained);
        return;
    }
    for (size_t i = 0; i < p->n_tensors; i++) {
        const params_tensor *a = &p->tensors[i];
        const char *end = strrchr(a->name, '.');
        if (end && strcmp(end, ".lora_b") == 0)
            keep_on_line(&o->keep, start + a->off, w + a->off, a->n_in * a->n_out);
    }
}

void added_expand_setting(const cmc_expand_opts *x, char out[ADDED_SETTING]) {
    out[0] = '\0';
    if (x->kind)
        snprintf(out, ADDED_SETTING, "expand %s %d %s %.17g %d align %s %.17g %d %d%s\n", x->kind, x->blocks, x->merge, x->share,
                 x->learn_share, x->align, x->align_weight, x->align_by_share, x->align_through, x->unfrozen ? " unfrozen" : "");
}
