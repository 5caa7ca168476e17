/* A model to be mixed into the host: its data from the host's, and which of its rows belongs to which target. */
#include "tinylm/mixer.h"

#include <string.h>

#include "base/mem.h"

cmc_status mixer_open(train *t, cmc_error *err) {
    train_host *h = &t->hosts[0], *m = &t->hosts[t->n_hosts];
    m->path = t->o.teacher ? t->o.teacher : t->o.host_mix_with;
    t->mix = m;
    CMC_TRY(cmc_model_open(t->rt, m->path, &m->model, err));
    const cmc_vocab *v = cmc_model_vocab(m->model);
    if (cmc_vocab_size(v) != cmc_model_n_vocab(m->model))
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: %d tokens but %d logits: it cannot stand beside a host", m->path,
                        cmc_vocab_size(v), cmc_model_n_vocab(m->model));
    if (strcmp(cmc_model_hash(h->model), cmc_model_hash(m->model)) == 0)
        return cmc_fail(err, CMC_E_ARG, "%s: the host itself; %s must be another model", m->path,
                        t->o.teacher ? "a teacher" : "what is mixed in");
    if (t->o.teacher && !cmc_vocab_equal(cmc_model_vocab(h->model), v))
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: a teacher must have the host's vocabulary", m->path);
    m->t = cmc_template_resolve(t->o.host_template, v);
    return cmc_map_build(cmc_model_vocab(h->model), v, CMC_RULE_DEFAULT, &m->map, err);
}

/* Data that pairs the host's targets with rows of a delta becomes data of that delta as a host: its ids are what is
 * evaluated, and its rows those that are kept. */
static void mixer_turn(data_set *d) {
    char name[sizeof d->host_template];
    for (size_t i = 0; i < d->n; i++) {
        data_example *x = &d->v[i], y = *x;
        x->host_ids = y.delta_ids;
        x->n_host = y.n_delta;
        x->host_row = y.delta_row;
        x->delta_ids = y.host_ids;
        x->n_delta = y.n_host;
        x->delta_row = y.host_row;
    }
    memcpy(name, d->host_template, sizeof name);
    memcpy(d->host_template, d->delta_template, sizeof name);
    memcpy(d->delta_template, name, sizeof name);
    data_hash_rows(d);
}

/* The example's row for the host's position `at`; they ascend. */
static size_t mixer_row(const data_example *x, uint32_t at) {
    size_t lo = 0, hi = x->n_targets;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (x->delta_row[mid] < at)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < x->n_targets && x->delta_row[lo] == at ? x->first_row + lo : SIZE_MAX;
}

/* Records that the mixer cannot take (too long) or takes otherwise (cut where the host's is whole) have no row. */
static void mixer_rows(const data_set *host, const data_set *mix, size_t *row) {
    for (size_t i = 0, at = 0; i < host->n; i++) {
        const data_example *x = &host->v[i];
        while (at < mix->n && mix->v[at].record < x->record)
            at++;
        bool same = at < mix->n && mix->v[at].record == x->record && mix->v[at].cut == x->cut;
        for (size_t k = 0; k < x->n_targets; k++)
            row[x->first_row + k] = same ? mixer_row(&mix->v[at], x->host_row[k]) : SIZE_MAX;
    }
}

cmc_status mixer_data(train *t, cmc_error *err) {
    const train_host *h = &t->hosts[0];
    train_host *m = t->mix;
    size_t ctx = (size_t)cmc_model_n_ctx(m->model);
    data_opts d = train_data_opts(t, h);
    d.delta_vocab = m->map->identity ? NULL : cmc_model_vocab(m->model);
    d.delta_template = m->t;
    d.prefix_rows = false;
    d.max_len = ctx < d.max_len ? ctx : d.max_len;
    CMC_TRY(data_open(&d, &m->data, err));
    mixer_turn(&m->data);
    t->mix_row = cmc_alloc(h->data.n_targets, sizeof *t->mix_row);
    if (!t->mix_row)
        return cmc_fail_nomem(err, "the mixer's rows", h->data.n_targets * sizeof *t->mix_row);
    mixer_rows(&h->data, &m->data, t->mix_row);
    for (size_t i = 0; t->o.teacher && i < h->data.n_targets; i++)
        if (t->mix_row[i] == SIZE_MAX)
            return cmc_fail(err, CMC_E_ARG, "%s: a teacher must take every record, and its context is %zu tokens; max_len can be that",
                            m->path, ctx);
    return CMC_OK;
}
