/* Packing a model's matrices. */
#include "runtime/pack.h"

#include <stdlib.h>

#include "base/mem.h"
#include "runtime/model.h"
#include "runtime/runtime.h"

enum { PACK_MEMORY_SHARE = 4, PACK_OF_LAYER = 7, PACK_NARROW = 256, PACK_NARROW_BYTES = 16 << 20 };

typedef struct pack_job {
    const quant_packed_kernels *kernels;
    weight **w;
    size_t n;
    uint8_t *tiles;      /* [threads][tile_bytes] */
    size_t tile_bytes;
} pack_job;

static size_t pack_layer(model_layer *l, weight **out) {
    weight *all[PACK_OF_LAYER] = {&l->wq, &l->wk, &l->wv, &l->wo, &l->gate, &l->up, &l->down};
    size_t n = 0;
    for (size_t i = 0; i < PACK_OF_LAYER; i++)
        if (quant_dot_uses_act(all[i]->type))
            out[n++] = all[i];
    return n;
}

/* The weights that are packed, [n]: not an output matrix that is screened whatever it saves. */
static size_t pack_list(cmc_model *m, weight **out) {
    size_t n = 0;
    for (size_t i = 0; i < (size_t)m->p.n_layer; i++)
        n += pack_layer(&m->layers[i], out + n);
    for (size_t i = 0; i < m->expand.n; i++)
        n += pack_layer(&m->extra[i].l, out + n);
    if (quant_dot_uses_act(m->head.type) && m->rt->output != CMC_OUTPUT_SCREENED)
        out[n++] = &m->head;
    return n;
}

static size_t pack_strips(const weight *w) {
    return (w->n_out + QUANT_PACKED_ROWS - 1) / QUANT_PACKED_ROWS;
}

/* Pool worker: its share of each weight's strips. */
static void pack_share(void *arg, int t, int nt) {
    const pack_job *j = arg;
    for (size_t i = 0; i < j->n; i++) {
        const weight *w = j->w[i];
        size_t lo, hi;
        cmc_pool_share(pack_strips(w), 1, t, nt, &lo, &hi);
        for (size_t k = lo; k < hi; k++) {
            const size_t row = k * QUANT_PACKED_ROWS, left = w->n_out - row;
            j->kernels->pack(w->type, w->data + row * w->row_bytes, w->row_bytes, left < QUANT_PACKED_ROWS ? left : QUANT_PACKED_ROWS,
                             w->n_in, w->packed + k * w->strip_bytes, j->tiles + (size_t)t * j->tile_bytes);
        }
    }
}

bool pack_is_narrow(const cmc_model *m) {
    return m->p.n_embd <= PACK_NARROW && m->n_bytes <= PACK_NARROW_BYTES;
}

/* Each weight's strips take their places in `strips`. */
static void pack_place(const cmc_model *m, const pack_job *j, uint8_t *strips) {
    for (size_t i = 0; i < j->n; i++) {
        j->w[i]->packed = strips;
        j->w[i]->packed_from = pack_is_narrow(m) ? 1 : MATMUL_TILE_MIN_COLS;
        strips += pack_strips(j->w[i]) * j->w[i]->strip_bytes;
    }
}

static void pack_make(cmc_model *m, pack_job *j) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < j->n; i++) {
        j->w[i]->strip_bytes = j->kernels->strip_bytes(j->w[i]->type, j->w[i]->n_in);
        bytes += pack_strips(j->w[i]) * j->w[i]->strip_bytes;
        if (quant_gemm_bytes(j->w[i]->n_in) > j->tile_bytes)
            j->tile_bytes = quant_gemm_bytes(j->w[i]->n_in);
    }
    const uint64_t memory = cmc_mem_available();
    if (bytes == 0 || (memory > 0 && bytes > memory / PACK_MEMORY_SHARE))
        return;
    uint8_t *strips = cmc_alloc_large(bytes);
    j->tiles = cmc_alloc_aligned((size_t)cmc_pool_threads(m->rt->pool), j->tile_bytes);
    if (strips && j->tiles) {
        pack_place(m, j, strips);
        cmc_pool_run(m->rt->pool, pack_share, j);
        m->pack.strips = strips;
        m->pack.bytes = bytes;
    } else {
        free(strips);
    }
    free(j->tiles);
}

void pack_model(cmc_model *m) {
    if (m->pack.tried || !m->rt->packed)
        return;
    m->pack.tried = true;
    pack_job j = {.kernels = m->rt->packed, .w = cmc_alloc(PACK_OF_LAYER * ((size_t)m->p.n_layer + m->expand.n) + 1, sizeof *j.w)};
    if (!j.w)
        return;
    j.n = pack_list(m, j.w);
    pack_make(m, &j);
    free(j.w);
}

void pack_free(pack *p) {
    free(p->strips);
    *p = (pack){0};
}
