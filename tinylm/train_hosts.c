/* The hosts of a run: models, maps, the data as each sees it, and the files their states are kept in. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "tinylm/mixer.h"
#include "tinylm/train.h"

static cmc_status hosts_open_one(train *t, size_t k, cmc_error *err) {
    train_host *h = &t->hosts[k];
    h->path = t->o.hosts[k];
    CMC_TRY(cmc_model_open(t->rt, h->path, &h->model, err));
    const cmc_vocab *v = cmc_model_vocab(h->model);
    if (cmc_vocab_size(v) != cmc_model_n_vocab(h->model))
        return cmc_fail(err, CMC_E_UNSUPPORTED, "%s: %d tokens but %d logits: a delta cannot be trained beside it",
                        h->path, cmc_vocab_size(v), cmc_model_n_vocab(h->model));
    for (size_t i = 0; i < k; i++)
        if (strcmp(cmc_model_hash(t->hosts[i].model), cmc_model_hash(h->model)) == 0)
            return cmc_fail(err, CMC_E_ARG, "%s: the same model as %s; give each host once", h->path, t->hosts[i].path);
    h->t = cmc_template_resolve(t->o.host_template, v);
    return CMC_OK;
}

/* A file that holds a vocabulary and perhaps no model: the keys of a GGUF file are copied into the delta's; a
 * SentencePiece model is written as such keys; a tokenizer.json says more than those can. */
static cmc_status hosts_open_own_vocab(train *t, const char *path, cmc_error *err) {
    cmc_file f;
    CMC_TRY(cmc_vocab_open(path, &t->vocab_own, err));
    t->vocab.v = t->vocab_own;
    if (t->vocab_own->model == VOCAB_HF)
        return cmc_fail(err, CMC_E_UNSUPPORTED,
                        "%s: a tokenizer.json cannot become a delta's vocabulary; a GGUF file or a SentencePiece .model can",
                        path);
    CMC_TRY(cmc_file_map(path, &f, err));
    bool keys = f.size >= 4 && memcmp(f.data, "GGUF", 4) == 0;
    if (!keys)
        cmc_hash_hex(f.data, f.size, t->vocab_hash);
    cmc_file_unmap(&f);
    if (!keys)
        return CMC_OK;
    CMC_TRY(gguf_open(path, &t->vocab_keys, err));
    t->vocab.g = t->vocab_keys;
    cmc_hash_hex(t->vocab_keys->file.data, t->vocab_keys->header_bytes, t->vocab_hash);
    return CMC_OK;
}

/* The delta's vocabulary: the file named for it, else its start's, else the first host's. */
static cmc_status hosts_open_vocab(train *t, cmc_error *err) {
    if (t->o.vocab_path)
        return hosts_open_own_vocab(t, t->o.vocab_path, err);
    if (t->o.init_path)
        CMC_TRY(cmc_model_open(t->rt, t->o.init_path, &t->vocab_file, err));
    const cmc_model *m = t->vocab_file ? t->vocab_file : t->hosts[0].model;
    t->vocab = (save_vocab){cmc_model_vocab(m), m->parts[0]};
    snprintf(t->vocab_hash, sizeof t->vocab_hash, "%s", cmc_model_hash(m));
    return CMC_OK;
}

cmc_status train_hosts_open(train *t, cmc_error *err) {
    double sum = 0.0;
    t->hosts = cmc_calloc(t->o.n_hosts + 1, sizeof *t->hosts);
    if (!t->hosts)
        return cmc_fail_nomem(err, "the hosts", (t->o.n_hosts + 1) * sizeof *t->hosts);
    for (size_t k = 0; k <= t->o.n_hosts; k++)
        t->hosts[k].states.fd = -1;
    for (size_t k = 0; k < t->o.n_hosts; k++) {
        t->hosts[k].weight = t->o.host_weights ? t->o.host_weights[k] : 1.0;
        sum += t->hosts[k].weight;
    }
    t->n_hosts = t->o.n_hosts;
    for (size_t k = 0; k < t->n_hosts; k++) {
        t->hosts[k].weight /= sum;
        CMC_TRY(hosts_open_one(t, k, err));
    }
    CMC_TRY(hosts_open_vocab(t, err));
    const cmc_vocab *v = t->vocab.v;
    for (size_t k = 0; k < t->n_hosts; k++) {
        train_host *h = &t->hosts[k];
        /* a KL part and a mixer go through a map even where it is the identity (loss.h) */
        if (!cmc_vocab_equal(cmc_model_vocab(h->model), v) || objective_has_kl(&t->objective) || t->o.host_mix_with)
            CMC_TRY(cmc_map_build(cmc_model_vocab(h->model), v, CMC_RULE_DEFAULT, &h->map, err));
    }
    if (t->o.host_mix_with || t->o.teacher)
        CMC_TRY(mixer_open(t, err));
    if (t->o.delta_template == CMC_TMPL_AUTO) /* the delta has its vocabulary's chat template in its file */
        t->o.delta_template = t->vocab_own || t->vocab_file ? cmc_template_resolve(t->o.host_template, v) : t->hosts[0].t;
    return CMC_OK;
}

/* ------------------------------------------------------------------------------------------------- data */

data_opts train_data_opts(const train *t, const train_host *h) {
    int32_t ctx = cmc_model_n_ctx(h->model);
    return (data_opts){.paths = t->o.data,
                       .n_paths = t->o.n_data,
                       .vocab = cmc_model_vocab(h->model),
                       .delta_vocab = h->map && !h->map->identity ? t->vocab.v : NULL,
                       .prefix_rows = t->o.prefix_rows,
                       .host_template = h->t,
                       .delta_template = t->o.delta_template,
                       .max_len = (size_t)(t->o.max_len < ctx ? t->o.max_len : ctx),
                       .held_out = t->o.held_out,
                       .objective = t->objective,
                       .retain = t->o.retain,
                       .n_retain = t->o.n_retain,
                       .replay = t->o.keep.replay,
                       .n_replay = t->o.keep.n_replay,
                       .watch = t->o.keep.watch,
                       .n_watch = t->o.keep.n_watch,
                       .refusals = t->o.refusals_path,
                       .seed = t->o.seed,
                       .cuts = t->o.cuts};
}

static cmc_status hosts_data_one(train *t, train_host *h, const uint8_t *only, cmc_error *err) {
    data_opts d = train_data_opts(t, h);
    d.only = only;
    return data_open(&d, &h->data, err);
}

/* Leaves in `only` what every host's data has; *same says whether they agree already. */
static void hosts_common(const train *t, uint8_t *only, bool *same) {
    size_t all = train_data(t)->records.n;
    *same = true;
    memset(only, 1, all);
    for (size_t k = 0; k < t->n_hosts; k++) {
        const data_set *d = &t->hosts[k].data;
        size_t at = 0;
        for (size_t i = 0; i < all; i++) {
            bool has = at < d->n && d->v[at].record == i;
            at += has;
            only[i] = only[i] && has;
        }
        *same = *same && d->n == train_data(t)->n;
    }
    for (size_t i = 0, at = 0; i < all; i++) {
        const data_set *d = train_data(t);
        bool has = at < d->n && d->v[at].record == i;
        at += has;
        *same = *same && has == (bool)only[i];
    }
}

/* A record that one host cannot use (too long, no row at all) is used beside none. */
cmc_status train_hosts_data(train *t, cmc_error *err) {
    bool same = true;
    for (size_t k = 0; k < t->n_hosts; k++)
        CMC_TRY(hosts_data_one(t, &t->hosts[k], NULL, err));
    size_t all = train_data(t)->records.n;
    uint8_t *only = cmc_alloc(all, 1);
    if (!only)
        return cmc_fail_nomem(err, "the records that all hosts can use", all);
    hosts_common(t, only, &same);
    cmc_status st = CMC_OK;
    for (size_t k = 0; k < t->n_hosts && !same && st == CMC_OK; k++) {
        data_free(&t->hosts[k].data);
        st = hosts_data_one(t, &t->hosts[k], only, err);
    }
    free(only);
    return st == CMC_OK && t->mix ? mixer_data(t, err) : st;
}

/* CACHE_DIR/DIGITS.states, the digits from host, data, template and rows; without a folder, beside the checkpoint. */
cmc_status train_hosts_caches(train *t, cmc_error *err) {
    t->own_cache = !t->o.cache_dir;
    if (t->o.cache_dir)
        mkdir(t->o.cache_dir, 0777); /* where that fails, the check of the paths says so */
    for (size_t k = 0; k < train_n_seen(t); k++) {
        train_host *h = &t->hosts[k];
        char key[256], hash[40];
        int n = snprintf(key, sizeof key, "%s %s %s %s %zu %s", cmc_model_hash(h->model), h->data.all_hash,
                         h->data.host_template, h->data.rows_hash, h->data.n,
                         hostcache_arithmetic(t->rt));
        cmc_hash_hex(key, (size_t)n, hash);
        hash[16] = '\0';
        n = t->own_cache ? asprintf(&h->cache, "%s.%s.states", t->checkpoint, hash)
                         : asprintf(&h->cache, "%s/%s.states", t->o.cache_dir, hash);
        if (n < 0) {
            h->cache = NULL;
            return cmc_fail_nomem(err, "a path", strlen(t->checkpoint));
        }
        CMC_TRY(train_check_output(t, h->cache, err));
    }
    return CMC_OK;
}

void train_hosts_free(train *t) {
    for (size_t k = 0; k < train_n_seen(t); k++) {
        train_host *h = &t->hosts[k];
        loss_free(&h->loss);
        if (h->states.path)
            hostcache_close(&h->states);
        data_free(&h->data);
        cmc_map_free(h->map);
        cmc_model_free(h->model);
        free(h->cache);
        free(h->log_unigram);
    }
    cmc_model_free(t->vocab_file);
    cmc_vocab_free(t->vocab_own);
    gguf_free(t->vocab_keys);
    free(t->hosts);
}
