/* The objectives' names, parts and per-record losses. */
#include "tinylm/objective.h"

#include <math.h>
#include <string.h>

static const struct objective_row {
    const char *name;
    objective_retain retain;   /* by itself */
} OBJECTIVES[] = {
    [OBJECTIVE_SFT] = {"sft", RETAIN_NONE},           [OBJECTIVE_GA] = {"ga", RETAIN_NONE},
    [OBJECTIVE_GRADDIFF] = {"graddiff", RETAIN_NLL},  [OBJECTIVE_KL] = {"kl", RETAIN_KL},
    [OBJECTIVE_IDK] = {"idk", RETAIN_NLL},            [OBJECTIVE_DPO] = {"dpo", RETAIN_NONE},
    [OBJECTIVE_NPO] = {"npo", RETAIN_NONE},           [OBJECTIVE_SIMNPO] = {"simnpo", RETAIN_NONE},
    [OBJECTIVE_DISTIL] = {"distil", RETAIN_NONE},
};

const char *objective_name(objective_kind k) {
    return OBJECTIVES[k].name;
}

cmc_status objective_parse(const char *name, const char *retain, objective *out, cmc_error *err) {
    static const char *const terms[] = {"none", "nll", "kl"};
    size_t k = 0, n = sizeof OBJECTIVES / sizeof *OBJECTIVES, t = 0;
    while (k < n && strcmp(name, OBJECTIVES[k].name) != 0)
        k++;
    if (k == n)
        return cmc_fail(err, CMC_E_ARG,
                        "unknown objective \"%s\": sft, ga, graddiff, kl, idk, dpo, npo, simnpo and distil are known", name);
    *out = (objective){.kind = (objective_kind)k, .retain = OBJECTIVES[k].retain, .retain_weight = 1.0, .beta = 0.1};
    if (!retain || strcmp(retain, "default") == 0)
        return CMC_OK;
    while (t < 3 && strcmp(retain, terms[t]) != 0)
        t++;
    if (t == 3)
        return cmc_fail(err, CMC_E_ARG, "unknown retain term \"%s\": default, none, nll and kl are known", retain);
    out->retain = (objective_retain)t;
    return CMC_OK;
}

cmc_status objective_of(const cmc_train_opts *o, objective *out, cmc_error *err) {
    CMC_TRY(objective_parse(o->objective ? o->objective : "sft", o->retain_term, out, err));
    out->retain_weight = o->retain_weight;
    out->beta = o->beta;
    out->gamma = o->gamma;
    out->kl = o->kl;
    if (out->kind == OBJECTIVE_SFT && out->retain != RETAIN_NONE)
        return cmc_fail(err, CMC_E_ARG, "objective sft takes no retain term");
    if (o->refusals_path && !objective_needs(out, ROLE_REFUSAL))
        return cmc_fail(err, CMC_E_ARG, "%s: refusals are for the objectives idk and dpo, not %s", o->refusals_path, objective_name(out->kind));
    return CMC_OK;
}

bool objective_needs(const objective *o, data_role role) {
    switch (role) {
    case ROLE_LEARN: return o->kind != OBJECTIVE_IDK;
    case ROLE_RETAIN: return o->retain != RETAIN_NONE;
    case ROLE_REFUSAL: return o->kind == OBJECTIVE_IDK || o->kind == OBJECTIVE_DPO;
    case ROLE_WATCH:
    case N_ROLES: break;
    }
    return false;
}

bool objective_by_record(const objective *o) {
    return o->kind == OBJECTIVE_DPO || o->kind == OBJECTIVE_NPO || o->kind == OBJECTIVE_SIMNPO;
}

size_t objective_group(const objective *o) {
    return o->kind == OBJECTIVE_DPO ? 2 : 1;
}

bool objective_has_kl(const objective *o) {
    return o->kl > 0.0 || o->retain == RETAIN_KL || o->kind == OBJECTIVE_DISTIL;
}

bool objective_record_has_host(const objective *o) {
    return o->kind == OBJECTIVE_DPO || o->kind == OBJECTIVE_NPO;
}

bool objective_has_host(const objective *o) {
    return objective_has_kl(o) || objective_record_has_host(o);
}

objective_parts objective_main(const objective *o) {
    bool away = o->kind == OBJECTIVE_GA || o->kind == OBJECTIVE_GRADDIFF || o->kind == OBJECTIVE_KL;
    bool taught = o->kind == OBJECTIVE_DISTIL;
    return (objective_parts){.nll = taught ? 0.0f : away ? -1.0f : 1.0f, .kl_steered = (float)o->kl, .kl_teacher = taught ? 1.0f : 0.0f};
}

objective_parts objective_kept(const objective *o) {
    return (objective_parts){.nll = o->retain == RETAIN_NLL ? 1.0f : 0.0f, .kl_host = o->retain == RETAIN_KL ? 1.0f : 0.0f};
}

/* log(1 + e^x), and its derivative. */
static double softplus(double x) {
    return x > 0.0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

static double sigmoid(double x) {
    return x >= 0.0 ? 1.0 / (1.0 + exp(-x)) : exp(x) / (1.0 + exp(x));
}

/* log p = -NLL throughout; -log sigmoid(x) = softplus(-x). */
double objective_record(const objective *o, const objective_response *r, const objective_response *refusal, double *dr,
                        double *drefusal) {
    double ratio = r->host_nll - r->nll, x;   /* log(p / p_ref) */
    *drefusal = 0.0;
    switch (o->kind) {
    case OBJECTIVE_NPO:
        x = o->beta * ratio;
        *dr = -2.0 * sigmoid(x);
        return 2.0 / o->beta * softplus(x);
    case OBJECTIVE_SIMNPO:
        x = -o->beta * r->nll / (double)r->n + o->gamma;
        *dr = -2.0 * sigmoid(x) / (double)r->n;
        return 2.0 / o->beta * softplus(x);
    case OBJECTIVE_DPO:
        x = o->beta * ((refusal->host_nll - refusal->nll) - ratio);
        *dr = -o->beta * sigmoid(-x);
        *drefusal = o->beta * sigmoid(-x);
        return softplus(-x);
    default:
        *dr = 0.0;
        return 0.0;
    }
}
