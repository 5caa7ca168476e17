/* Writes a delta again with its weights stored as another type: what the trainer saves, without training.
 *
 * usage: delta_save DELTA f32|f16|q8_0 OUT */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "tinylm/save.h"

static cmc_status save_again(cmc_model *m, const char *type_name, const char *out, cmc_error *err) {
    const cmc_delta_info *info = cmc_model_delta_info(m);
    const save_vocab vocab = {cmc_model_vocab(m), m->parts[0]};
    params_shape shape;
    params p;
    uint32_t type;
    if (!info)
        return cmc_fail(err, CMC_E_ARG, "%s: no delta", cmc_model_path(m));
    CMC_TRY(load_shape(m, vocab.v, 0, &shape, err));
    CMC_TRY(save_type_parse(type_name, &shape, &type, err));
    CMC_TRY(params_init(&p, &shape, err));
    float *w = cmc_alloc(p.n, sizeof *w);
    cmc_status st = w ? CMC_OK : cmc_fail_nomem(err, "the weights", p.n * sizeof *w);
    if (st == CMC_OK) {
        load_weights(m, &p, w);
        st = save_delta(out, &p, w, type, (uint32_t)cmc_model_n_ctx(m), &vocab, info, err);
    }
    free(w);
    params_free(&p);
    return st;
}

int main(int argc, char **argv) {
    cmc_runtime *rt = NULL;
    cmc_model *m = NULL;
    cmc_error err = {0};
    if (argc != 4) {
        fputs("usage: delta_save DELTA f32|f16|q8_0 OUT\n", stderr);
        return 2;
    }
    cmc_runtime_opts opts = {.threads = 1};
    cmc_status st = cmc_runtime_open(&opts, &rt, &err);
    if (st == CMC_OK)
        st = cmc_model_open(rt, argv[1], &m, &err);
    if (st == CMC_OK)
        st = save_again(m, argv[2], argv[3], &err);
    if (st != CMC_OK)
        fprintf(stderr, "delta_save: %s\n", err.message);
    cmc_model_free(m);
    cmc_runtime_free(rt);
    return st == CMC_OK ? 0 : 1;
}
