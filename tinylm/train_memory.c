/* The plan of a run's memory: what each of its phases takes at its highest, in resident bytes as the system counts them,
 * pages of mapped files included, and the choice of how the work is cut. */
#include "tinylm/train_memory.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "runtime/graph.h"
#include "tinylm/train.h"

enum {
    MEMORY_PIECE = 2048,          /* tokens of a piece where memory is no matter */
    MEMORY_PIECE_LEAST = 64,
    MEMORY_PROGRAM = 8 << 20,     /* code, libraries, threads */
    MEMORY_TOKEN = 240,           /* what a vocabulary keeps of a token, and a map */
    MEMORY_RECORD = 1024,
    MEMORY_THREAD = 4 << 20,
    MEMORY_SCORE_ROWS = 64,       /* of logits at a time, where a record is scored */
    MEMORY_CUTS = 6,              /* piece and block are halved so often at most */
    MEMORY_COUNTED = 1 << 22      /* examples whose pieces are counted one by one; beyond that the bound is taken */
};

/* Linux maps pages of a file by so many bytes at once where they are in memory. */
#define MEMORY_AROUND_BYTES ((size_t)64 << 10)

/* --------------------------------------------------------------------------------------------- pieces */

/* The largest piece that comes where a piece has at most `limit` tokens. */
typedef struct memory_piece {
    size_t limit, tokens, targets;
} memory_piece;

/* As batch_pack fills pieces from a list. */
static void piece_list(memory_piece *p, const data_set *d, const size_t *index, size_t n, size_t group) {
    size_t tokens = 0, targets = 0;
    for (size_t i = 0; i < n; i += group) {
        size_t more = 0, more_targets = 0;
        for (size_t g = 0; g < group; g++) {
            more += d->v[index[i + g]].n_delta;
            more_targets += d->v[index[i + g]].n_targets;
        }
        if (tokens + more > p->limit)
            tokens = targets = 0;
        tokens += more;
        targets += more_targets;
        p->tokens = tokens > p->tokens ? tokens : p->tokens;
        p->targets = targets > p->targets ? targets : p->targets;
    }
}

static void piece_step(train *t, int64_t step, memory_piece *p, size_t n_pieces) {
    size_t n;
    const size_t *examples = train_step_examples(t, step, &n), *kept = NULL;
    if (objective_needs(&t->objective, ROLE_RETAIN))
        kept = train_retain_examples(t, step, n);
    for (size_t k = 0; k < t->n_hosts; k++) {
        const data_set *d = &t->hosts[k].data;
        size_t n_index = n;
        const size_t *index = step_pairs(&t->objective, d, examples, &n_index, t->pairs);
        for (size_t i = 0; i < n_pieces; i++) {
            piece_list(&p[i], d, index, n_index, objective_group(&t->objective));
            if (kept)
                piece_list(&p[i], d, kept, n, 1);
        }
    }
}

/* What is held out, and each file that is watched. */
static void piece_scored(memory_piece *p, const data_set *d, size_t n_watch) {
    piece_list(p, d, d->held, d->n_held, 1);
    for (size_t i = 0; i < n_watch; i++)
        piece_list(p, d, d->watch + d->watch_at[i], d->watch_at[i + 1] - d->watch_at[i], 1);
}

/* The largest that any host's data needs of something. */
static size_t piece_longest(const train *t) {
    size_t most = 0;
    for (size_t k = 0; k < t->n_hosts; k++)
        most = t->hosts[k].data.max_delta > most ? t->hosts[k].data.max_delta : most;
    return most * objective_group(&t->objective);
}

/* What comes, for every limit: counted, or for long runs no more than the limit and what is in as many examples. */
static void piece_sizes(train *t, memory_piece *p, size_t n_pieces) {
    for (size_t i = 0; i < n_pieces; i++) {
        p[i].tokens = piece_longest(t);
        p[i].targets = 1;
    }
    if ((double)t->pace.steps * t->o.batch > MEMORY_COUNTED) {
        for (size_t i = 0; i < n_pieces; i++)
            p[i].tokens = p[i].targets = p[i].limit;
        return;
    }
    for (int64_t step = 0; step < t->pace.steps; step++)
        piece_step(t, step, p, n_pieces);
    for (size_t k = 0; k < t->n_hosts; k++)
        for (size_t i = 0; i < n_pieces; i++)
            piece_scored(&p[i], &t->hosts[k].data, t->o.keep.n_watch);
    t->main.epoch = t->kept.epoch = -1;
}

/* The limits that can be chosen: halves of the usual one, none below the longest example. */
static size_t piece_limits(const train *t, memory_piece p[MEMORY_CUTS]) {
    size_t longest = piece_longest(t), whole = longest * (size_t)t->o.batch, n = 0;
    for (size_t want = MEMORY_PIECE; n < MEMORY_CUTS && want >= MEMORY_PIECE_LEAST; want /= 2) {
        size_t limit = want > longest ? want : longest;
        limit = limit < whole ? limit : whole;
        if (n == 0 || limit < p[n - 1].limit)
            p[n++].limit = limit;
        if (t->o.memory == 0)
            break;
    }
    return n;
}

/* --------------------------------------------------------------------------------------------- phases */

/* Bytes beside what the process has when its hosts and data are open, as far as they do not depend on the cut. */
typedef struct memory_fixed {
    uint64_t states;   /* while the hosts' states are made, all in all */
    uint64_t kept;     /* what stays of that */
    uint64_t save;     /* when the steps are done: for encoding the delta, and the further hosts' scores */
} memory_fixed;

size_t train_longest_sequence(const train *t) {
    size_t most = 0;
    for (size_t k = 0; k < t->n_hosts; k++)
        most = t->hosts[k].data.max_seq > most ? t->hosts[k].data.max_seq : most;
    return most;
}

static uint64_t model_file_bytes(const cmc_model *m) {
    uint64_t n = 0;
    for (size_t i = 0; i < m->n_parts; i++)
        n += m->parts[i]->file.size;
    return n;
}

/* Of the embedding's pages, those that the data touches; an output matrix of its own is not touched. */
static cmc_status model_rows_bytes(const train_host *h, uint64_t *out, cmc_error *err) {
    const weight *w = &h->model->embd;
    size_t n = w->row_bytes * w->n_out / MEMORY_AROUND_BYTES + 2;
    uint8_t *seen = cmc_calloc(n, 1);
    if (!seen)
        return cmc_fail_nomem(err, "a table of pages", n);
    *out = 0;
    for (size_t i = 0; i < h->data.n; i++) {
        for (size_t k = 0; k < h->data.v[i].n_host; k++) {
            size_t at = (size_t)h->data.v[i].host_ids[k] * w->row_bytes / MEMORY_AROUND_BYTES;
            *out += seen[at] ? 0 : MEMORY_AROUND_BYTES;
            seen[at] = 1;
        }
    }
    free(seen);
    return CMC_OK;
}

/* Pages of the host's file that its evaluation touches: the layers', and rows of the embedding. */
static cmc_status model_pages(const train_host *h, uint64_t *layers, uint64_t *rows, cmc_error *err) {
    const cmc_model *m = h->model;
    uint64_t embd = m->embd.row_bytes * m->embd.n_out, head = m->head.row_bytes * m->head.n_out;
    *layers = model_file_bytes(m) - embd - (m->head.data != m->embd.data ? head : 0);
    CMC_TRY(model_rows_bytes(h, rows, err));
    *rows = *rows < embd ? *rows : embd;
    return CMC_OK;
}

static void model_forget(const cmc_model *m) {
    for (size_t i = 0; m && i < m->n_parts; i++)
        if (!m->parts[i]->file.borrowed)
            cmc_map_forget(m->parts[i]->file.data, m->parts[i]->file.size);
}

static uint64_t head_bytes(const train_host *h) {
    return (uint64_t)cmc_model_n_vocab(h->model) * (uint64_t)cmc_model_n_embd(h->model) * sizeof(float);
}

/* The delta with its gradient, and activations for the piece; the optimiser's arrays. */
static uint64_t need_delta(const train *t, const train_plan *p) {
    return body_bytes(&t->body, cmc_runtime_threads(t->rt), p->tokens, train_longest_sequence(t)) +
           (keep_needs_start(&t->o.keep) ? 4 : 3) * (uint64_t)t->body.n * sizeof(float);
}

/* Stacks, and what BLAS and the allocator keep for each thread. */
static uint64_t memory_threads(const train *t) {
    return (uint64_t)cmc_runtime_threads(t->rt) * MEMORY_THREAD;
}

/* While the hosts are evaluated: the delta's weights and their gradient are there. `as_cached`: but for hosts whose states
 * an earlier run has left. */
static cmc_status fixed_states(const train *t, bool bounded, bool as_cached, memory_fixed *f, cmc_error *err) {
    uint64_t before = 0;
    for (size_t k = 0; k < train_n_seen(t); k++) {
        const train_host *h = &t->hosts[k];
        size_t fill, file;
        uint64_t layers, rows = 0;
        CMC_TRY(hostcache_bytes(h->model, &h->data, &fill, &file, err));
        if (as_cached && hostcache_whole(h->cache, h->model, &h->data)) { /* only its output matrix will be looked at */
            f->kept += bounded ? 0 : file;
            continue;
        }
        CMC_TRY(model_pages(h, &layers, &rows, err));
        uint64_t all = before + layers + rows + fill;
        f->states = all > f->states ? all : f->states;
        before += bounded ? 0 : layers + rows;
        if (h->model->head.data == h->model->embd.data) /* steps read it whole, these rows too */
            rows = 0;
        f->kept += graph_bytes(h->model, GRAPH_BATCH) + (bounded ? 0 : layers + rows + file);
    }
    f->states += body_weight_bytes(&t->body) + memory_threads(t);
    return CMC_OK;
}

/* Pages of the host states that a piece touches. */
static uint64_t need_window(const train *t, const train_plan *p) {
    uint64_t most = 0;
    for (size_t k = 0; k < train_n_seen(t) && p->bounded; k++) {
        uint64_t n = p->targets * hostcache_row_bytes((size_t)cmc_model_n_embd(t->hosts[k].model)) +
                     (uint64_t)t->o.batch * 2 * MEMORY_AROUND_BYTES; /* at both ends */
        most = n > most ? n : most;
    }
    return most;
}

bool train_decodes_head(const train *t, const train_plan *p, size_t host) {
    return host < p->heads && !loss_integer_head(t->hosts[host].model);
}

/* The mixer's logits and states of a block, its states' places, and its output matrix, which is read with every block. */
static uint64_t need_mixer(const train *t, const train_plan *p) {
    if (!t->mix)
        return 0;
    const cmc_model *m = t->mix->model;
    size_t rows = loss_block_rows(t->hosts[0].model, t->hosts[0].map, p->block);
    return loss_mixer_bytes(m, rows < p->targets ? rows : p->targets) + p->tokens * sizeof *t->mixed +
           matmul_bytes(t->rt, (size_t)m->p.n_embd, p->targets) + m->head.row_bytes * m->head.n_out;
}

/* While steps are made. An output matrix that was decoded was read whole; one that was not is read with every block. */
static uint64_t need_steps(const train *t, const train_plan *p) {
    size_t e = (size_t)t->p.s.n_embd;
    int nt = cmc_runtime_threads(t->rt);
    uint64_t n = need_delta(t, p) + need_window(t, p) + p->tokens * (48 + e * sizeof(float)) + memory_threads(t);
    n += (perturb_on(&t->o) ? p->tokens * sizeof(perturb) : 0) + need_mixer(t, p);
    for (size_t k = 0; k < t->n_hosts; k++) {
        const train_host *h = &t->hosts[k];
        bool decoded = train_decodes_head(t, p, k);
        n += loss_bytes(h->model, h->map, e, nt, decoded, p->block, p->targets);
        n += t->o.host_mix > 0.0 && !t->mix ? (uint64_t)cmc_model_n_vocab(h->model) * sizeof(float) : 0;
        n += decoded ? 0 : matmul_bytes(t->rt, (size_t)cmc_model_n_embd(h->model), p->targets);
        n += p->bounded && decoded ? 0 : h->model->head.row_bytes * h->model->head.n_out;
    }
    return n;
}

/* Scoring records of at most n tokens: keys and values, activations, states, and a block of logits. */
static uint64_t need_scoring(const cmc_model *m, size_t n) {
    const model_params *p = &m->p;
    const kv_shape kv = session_kv_shape(m, 1.0f);
    return kv_bytes(&kv, n) + graph_bytes(m, n) + n * (size_t)p->n_embd * sizeof(float) +
           2 * MEMORY_SCORE_ROWS * (uint64_t)p->n_vocab * sizeof(float);
}

/* When the steps are done the output layers are gone; the delta is encoded whole, and other hosts score it. */
static cmc_status fixed_save(const train *t, memory_fixed *f, cmc_error *err) {
    uint64_t file = body_save_bytes(&t->body, &t->p, t->save_type);
    f->save = file;
    for (size_t i = 0; i < t->o.n_alpha_hosts; i++) {
        cmc_model *m;
        CMC_TRY(cmc_model_open(t->rt, t->o.alpha_hosts[i], &m, err));
        uint64_t n = need_scoring(m, train_longest_sequence(t)) + model_file_bytes(m) + file;
        f->save = n > f->save ? n : f->save;
        cmc_model_free(m);
    }
    return CMC_OK;
}

/* The most of all phases. */
static uint64_t memory_need(const train *t, const train_plan *p, const memory_fixed *f) {
    uint64_t steps = f->kept + need_steps(t, p), save = f->kept + need_delta(t, p) + f->save;
    uint64_t most = f->states > steps ? f->states : steps;
    return most > save ? most : save;
}

/* What the process has before, as reckoned: the choice must not hang on what is measured, which differs from run to run. */
static uint64_t memory_base(const train *t) {
    uint64_t n = MEMORY_PROGRAM;
    for (size_t k = 0; k < train_n_seen(t); k++) {
        const data_set *d = &t->hosts[k].data;
        n += (uint64_t)cmc_model_n_vocab(t->hosts[k].model) * MEMORY_TOKEN + d->records.n * MEMORY_RECORD;
        for (size_t i = 0; i < d->n; i++)
            n += (d->v[i].n_host + d->v[i].n_delta) * 4 * sizeof(int32_t);
    }
    bool own = t->vocab_file || t->vocab_own;
    return n + (own ? (uint64_t)cmc_vocab_size(t->vocab.v) * MEMORY_TOKEN : 0);
}

/* --------------------------------------------------------------------------------------------- choice */

/* As many output matrices are decoded as leave plenty of room. */
static cmc_status plan_free(const train *t, train_plan *p, const memory_fixed *f, cmc_error *err) {
    uint64_t room = cmc_mem_available();
    p->heads = t->n_hosts;
    while (room != 0 && p->heads > 0 && memory_need(t, p, f) + head_bytes(&t->hosts[p->heads - 1]) >= room / 2)
        p->heads--;
    uint64_t need = memory_need(t, p, f);
    if (room != 0 && need > room)
        return cmc_fail(err, CMC_E_NOMEM,
                        "training this delta takes about %" PRIu64 " MiB and %" PRIu64 " MiB are free; a smaller n_embd "
                        "or max_len takes less, and so does a bound on memory", need >> 20, room >> 20);
    return CMC_OK;
}

/* Time for a target, in that of a row among very many. A block of logits costs as much as some rows more, for the weights
 * are packed for it and the embedding's gradient is added to, and so does decoding an output matrix; a piece costs some
 * tokens more. */
static double plan_cost(const train *t, const train_plan *p) {
    double cost = 1.0 + 30.0 / (double)p->tokens;
    for (size_t k = 0; k < t->n_hosts; k++) {
        size_t rows = loss_block_rows(t->hosts[k].model, t->hosts[k].map, p->block);
        rows = rows < p->targets ? rows : p->targets;
        cost += t->hosts[k].weight * (k < p->heads || loss_integer_head(t->hosts[k].model) ? 7.0 : 15.0) / (double)rows;
    }
    return cost;
}

/* Of all ways to cut the work that stay within the bound, the one that costs the least. */
static cmc_status plan_bounded(const train *t, const memory_piece *piece, size_t n_pieces, const memory_fixed *f,
                               train_plan *out, cmc_error *err) {
    uint64_t base = memory_base(t), least = UINT64_MAX;
    bool found = false;
    for (size_t i = 0; i < n_pieces; i++) {
        for (size_t cut = 0; cut < MEMORY_CUTS; cut++) {
            for (size_t heads = 0; heads <= t->n_hosts; heads++) {
                train_plan p = {.piece = piece[i].limit, .tokens = piece[i].tokens, .targets = piece[i].targets,
                                .block = LOSS_BLOCK_BYTES >> cut, .heads = heads, .bounded = true};
                uint64_t need = base + memory_need(t, &p, f);
                least = need < least ? need : least;
                if (need <= t->o.memory && (!found || plan_cost(t, &p) < plan_cost(t, out))) {
                    *out = p;
                    found = true;
                }
            }
        }
    }
    if (!found)
        return cmc_fail(err, CMC_E_NOMEM,
                        "memory: %" PRIu64 " MiB are too little for this run; it takes at least %" PRIu64
                        " MiB, and less with a smaller n_embd or max_len", t->o.memory >> 20, (least >> 20) + 1);
    return CMC_OK;
}

cmc_status train_memory_plan(train *t, cmc_error *err) {
    memory_piece piece[MEMORY_CUTS];
    memory_fixed fixed = {0}, now = {0}; /* the choice is the same with states at hand; what it will take is not */
    size_t n = piece_limits(t, piece);
    piece_sizes(t, piece, n);
    CMC_TRY(fixed_states(t, t->o.memory != 0, false, &fixed, err));
    CMC_TRY(fixed_states(t, t->o.memory != 0, true, &now, err));
    CMC_TRY(fixed_save(t, &fixed, err));
    now.save = fixed.save;
    for (size_t k = 0; k < train_n_seen(t); k++) /* reading their headers touched a part, which is not to count twice */
        model_forget(t->hosts[k].model);
    model_forget(t->vocab_file);
    cmc_mem_give_back();
    if (t->o.memory != 0) {
        CMC_TRY(plan_bounded(t, piece, n, &fixed, &t->plan, err));
    } else {
        t->plan = (train_plan){.piece = piece[0].limit, .tokens = piece[0].tokens, .targets = piece[0].targets,
                               .block = LOSS_BLOCK_BYTES};
        CMC_TRY(plan_free(t, &t->plan, &fixed, err));
    }
    uint64_t peak = cmc_mem_peak(), planned = cmc_mem_resident() + memory_need(t, &t->plan, &now);
    t->plan.planned = planned > peak ? planned : peak;
    return CMC_OK;
}

void train_memory_forget_hosts(train *t) {
    cmc_mem_give_back();
    for (size_t k = 0; k < train_n_seen(t) && t->plan.bounded; k++)
        model_forget(t->hosts[k].model);
}

void train_memory_forget_states(const train *t, const train_host *h) {
    if (t->plan.bounded)
        cmc_map_forget(h->states.map, h->states.size);
}
