/* What each way of carrying a delta's shift across vocabularies gains on held-out responses. For every record a JSON line
 * with the response's NLL in nats under each variant and strength; bench/rule_gain.py makes the table.
 *
 *   rule_gain HOST DELTA DATA.jsonl [MAX_RECORDS [ALPHA...]]
 *
 * Variants. With s the centred shift of the rule `prefix` (docs/design.md, Steering) and lengths in bytes:
 *   prefix, reference    the paper's rule on bytes and roles; its code's on spellings
 *   exact                prefix matches carry nothing
 *   longer               only host tokens that a delta token begins; not those that begin a longer delta token
 *   scale-G              a prefix match's s times (shorter length / longer length)^G, centred again
 *   half                 a prefix match's s times 1/2, centred again
 *   spread               a prefix match's s times its share of the host's probability of all tokens mapped alike
 *   mean                 a host token that begins several delta tokens takes the log of their mean odds
 *   first                the first token of the delta's own tokenisation in place of the nearest prefix (the rule `default`
 *                        is this, less first tokens that are white space alone or end inside a character)
 *   first-half, -scale   the same, times 1/2 or its length / the host token's, centred again
 *   chain-K              `first`, and on the K heaviest of those first tokens the delta's second token as well, from a row
 *                        behind it, centred over the host tokens that begin so
 * Everything that changes s is centred once more, so that unmapped tokens keep their probability throughout. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "runtime/follow.h"
#include "runtime/model.h"
#include "tokenmap/map.h"

enum { MAX_ALPHAS = 8, CHAIN_MOST = 32 };

typedef enum variant {
    V_PREFIX, V_REFERENCE, V_EXACT, V_LONGER, V_SCALE_05, V_SCALE_1, V_SCALE_2, V_HALF, V_SPREAD, V_MEAN, V_FIRST, V_FIRST_HALF, V_FIRST_SCALE,
    V_CHAIN_1, V_CHAIN_8, V_CHAIN_32, N_VARIANTS
} variant;

static const char *const VARIANT_NAMES[N_VARIANTS] = {
    "prefix", "reference", "exact", "longer", "scale-0.5", "scale-1", "scale-2", "half", "spread", "mean", "first", "first-half", "first-scale",
    "chain-1", "chain-8", "chain-32"};

typedef struct bench {
    cmc_runtime *rt;
    cmc_model *host, *delta;
    cmc_steering *st;
    const steering_delta *d;
    cmc_map *prefix, *reference;
    int32_t n_host, n_delta;
    int32_t *first, *second;      /* [n_host] the delta's tokens that spell it; -1: none, or no second */
    float *first_ratio;           /* [n_host] length of the first token / of the host token where it is not all of it, else 1 */
    float *ratio;                 /* [n_host] shorter / longer length of a prefix match, else 1 */
    uint8_t *host_shorter;        /* [n_host] a prefix match whose delta token is the longer one */
    int32_t *ext_off, *ext;       /* for each of those: the delta tokens it begins */
    cmc_map *all;                 /* host to itself, entries set for each variant */
    float *p, *x, *s, *out, *work, *group;
    double alpha[MAX_ALPHAS]; size_t n_alphas;
    double nll[N_VARIANTS][MAX_ALPHAS], nll_prefix[N_VARIANTS][MAX_ALPHAS], host_nll, host_nll_prefix;
    size_t tokens, prefix_tokens, bytes, rows_behind[3], steps;
    double seconds_row, seconds_behind;
} bench;

static void check(cmc_status s, const cmc_error *err) {
    if (s != CMC_OK) {
        fprintf(stderr, "rule_gain: %s\n", err->message);
        exit(1);
    }
}

static void *need(void *p) {
    if (!p) {
        fputs("rule_gain: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

/* ------------------------------------------------------------------------------------------------- preparation */

static size_t token_len(const cmc_vocab *v, int32_t id) {
    return v->byte_off[id + 1] - v->byte_off[id];
}

/* The tokens that spell a host token in the delta's tokenizer. Those that are no text keep the map's entry. */
static void spell_host_tokens(bench *b, const cmc_vocab *host, const cmc_vocab *delta, cmc_error *err) {
    cmc_ids ids = {0};
    for (int32_t i = 0; i < b->n_host; i++) {
        b->first[i] = b->d->map->to[i];
        b->second[i] = -1;
        if (b->d->map->how[i] != CMC_HOW_PREFIX) continue;
        ids.n = 0;
        const char *s = (const char *)host->bytes + host->byte_off[i];
        check(cmc_tokenize(delta, s, token_len(host, i), CMC_TOK_CONTINUE, &ids, err), err);
        if (ids.n > 0) b->first[i] = ids.v[0];
        if (ids.n > 1) b->second[i] = ids.v[1];
    }
    cmc_ids_free(&ids);
}

static int compare_tokens(const void *a, const void *b, void *user) {
    const cmc_vocab *v = user;
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    size_t nx = token_len(v, x), ny = token_len(v, y);
    int c = memcmp(v->bytes + v->byte_off[x], v->bytes + v->byte_off[y], nx < ny ? nx : ny);
    return c ? c : nx < ny ? -1 : nx > ny;
}

/* For each host token that begins longer delta tokens without being one: those tokens, from the sorted list. */
static void extend_host_tokens(bench *b, const cmc_vocab *host, const cmc_vocab *delta) {
    int32_t *sorted = need(cmc_alloc((size_t)b->n_delta, sizeof *sorted)), n = 0;
    size_t cap = 0, total = 0;
    for (int32_t j = 0; j < b->n_delta; j++) {
        if (delta->kind[j] == CMC_KIND_NORMAL && token_len(delta, j)) sorted[n++] = j;
    }
    qsort_r(sorted, (size_t)n, sizeof *sorted, compare_tokens, (void *)delta);
    for (int32_t i = 0; i < b->n_host; i++) {
        b->ext_off[i] = (int32_t)total;
        if (!b->host_shorter[i]) continue;
        const uint8_t *s = host->bytes + host->byte_off[i];
        size_t len = token_len(host, i);
        int32_t lo = 0, hi = n;
        while (lo < hi) {
            int32_t mid = lo + (hi - lo) / 2;
            size_t m = token_len(delta, sorted[mid]);
            int c = memcmp(delta->bytes + delta->byte_off[sorted[mid]], s, m < len ? m : len);
            if (c < 0 || (c == 0 && m < len)) lo = mid + 1;
            else hi = mid;
        }
        for (; lo < n && token_len(delta, sorted[lo]) >= len; lo++) {
            if (memcmp(delta->bytes + delta->byte_off[sorted[lo]], s, len) != 0) break;
            void *ext = b->ext;
            need(cmc_grow(&ext, &cap, total + 1, sizeof *b->ext) ? b : NULL);
            b->ext = ext;
            b->ext[total++] = sorted[lo];
        }
    }
    b->ext_off[b->n_host] = (int32_t)total;
    free(sorted);
}

static void prepare(bench *b, cmc_error *err) {
    const cmc_vocab *host = cmc_model_vocab(b->host), *delta = cmc_model_vocab(b->delta);
    size_t n = (size_t)b->n_host;
    b->first = need(cmc_alloc(n, sizeof *b->first));
    b->second = need(cmc_alloc(n, sizeof *b->second));
    b->ratio = need(cmc_alloc(n, sizeof *b->ratio));
    b->first_ratio = need(cmc_alloc(n, sizeof *b->first_ratio));
    b->host_shorter = need(cmc_calloc(n, 1));
    b->ext_off = need(cmc_alloc(n + 1, sizeof *b->ext_off));
    float **rows[] = {&b->p, &b->x, &b->s, &b->out};
    for (size_t k = 0; k < 4; k++) *rows[k] = need(cmc_alloc_aligned(n, sizeof(float)));
    b->work = need(cmc_alloc_aligned(2 * n, sizeof(float)));
    b->group = need(cmc_alloc_aligned((size_t)b->n_delta, sizeof(float)));
    check(map_new(b->n_host, b->n_host, &b->all, err), err);
    for (int32_t i = 0; i < b->n_host; i++) {
        const cmc_map *m = b->d->map;
        b->ratio[i] = 1;
        if (m->how[i] != CMC_HOW_PREFIX) continue;
        size_t nh = token_len(host, i), nd = token_len(delta, m->to[i]);
        b->host_shorter[i] = nh < nd;
        b->ratio[i] = (float)(nh < nd ? nh : nd) / (float)(nh < nd ? nd : nh);
    }
    spell_host_tokens(b, host, delta, err);
    for (int32_t i = 0; i < b->n_host; i++) {
        bool whole = b->d->map->how[i] != CMC_HOW_PREFIX || b->first[i] < 0;
        b->first_ratio[i] = whole ? 1 : (float)token_len(delta, b->first[i]) / (float)token_len(host, i);
    }
    extend_host_tokens(b, host, delta);
}

/* ---------------------------------------------------------------------------------------------------- variants */

/* Adds x (NaN: unmapped), centred, to h in b->out, and counts the target. */
static void finish(bench *b, variant v, size_t a, const float *h, double log_z, int32_t target, bool prefix) {
    for (int32_t i = 0; i < b->n_host; i++) b->all->to[i] = isnan(b->x[i]) ? -1 : i;
    b->all->identity = false;
    memcpy(b->out, h, (size_t)b->n_host * sizeof *h);
    shift_in in = {b->all, 1.0f, b->x};
    shift_apply(b->out, b->n_host, &in, 1, false, b->work);
    double nll = log_z - (double)b->out[target];
    b->nll[v][a] += nll;
    if (prefix) b->nll_prefix[v][a] += nll;
}

static void by_map(bench *b, const int32_t *to, const float *d, double alpha) {
    for (int32_t i = 0; i < b->n_host; i++) b->x[i] = to[i] < 0 ? NAN : (float)(alpha * (double)d[to[i]]);
}

static float prefix_weight(const bench *b, variant v, int32_t i) {
    float r = b->ratio[i];
    bool prefix = b->d->map->how[i] == CMC_HOW_PREFIX;
    switch (v) {
    case V_SCALE_05: return sqrtf(r);
    case V_SCALE_1: return r;
    case V_SCALE_2: return r * r;
    case V_HALF: return prefix ? 0.5f : 1.0f;
    case V_SPREAD: return prefix ? b->p[i] / fmaxf(b->group[b->d->map->to[i]], 1e-30f) : 1.0f;
    default: return 1;
    }
}

static void by_weight(bench *b, variant v) {
    const cmc_map *m = b->d->map;
    for (int32_t i = 0; i < b->n_host; i++) {
        bool prefix = m->how[i] == CMC_HOW_PREFIX;
        bool out = m->to[i] < 0 || (v == V_EXACT && prefix) || (v == V_LONGER && prefix && b->host_shorter[i]);
        b->x[i] = out ? NAN : prefix_weight(b, v, i) * b->s[i];
    }
}

/* The centred shift of `first`, in b->s, times a weight for tokens that it is not all of. */
static void by_first_weight(bench *b, variant v) {
    for (int32_t i = 0; i < b->n_host; i++) {
        float w = b->first_ratio[i] == 1 ? 1 : v == V_FIRST_HALF ? 0.5f : b->first_ratio[i];
        b->x[i] = b->first[i] < 0 ? NAN : w * b->s[i];
    }
}

static void by_mean(bench *b, const float *d, double alpha) {
    by_map(b, b->d->map->to, d, alpha);
    for (int32_t i = 0; i < b->n_host; i++) {
        int32_t n = b->ext_off[i + 1] - b->ext_off[i];
        const int32_t *e = b->ext + b->ext_off[i];
        if (n < 1) continue;
        double top = -INFINITY, sum = 0;
        for (int32_t k = 0; k < n; k++) top = fmax(top, alpha * (double)d[e[k]]);
        for (int32_t k = 0; k < n; k++) sum += exp(alpha * (double)d[e[k]] - top);
        b->x[i] = (float)(top + log(sum / n));
    }
}

/* The delta's first tokens whose host tokens of two tokens or more weigh most. */
static size_t heaviest(bench *b, int32_t *out, size_t most) {
    memset(b->group, 0, (size_t)b->n_delta * sizeof *b->group);
    for (int32_t i = 0; i < b->n_host; i++) {
        if (b->second[i] >= 0) b->group[b->first[i]] += b->p[i];
    }
    size_t n = 0;
    for (; n < most; n++) {
        int32_t best = 0;
        for (int32_t j = 1; j < b->n_delta; j++) best = b->group[j] > b->group[best] ? j : best;
        if (!(b->group[best] > 1e-4f)) break; /* less cannot move the sum */
        out[n] = best;
        b->group[best] = 0;
    }
    return n;
}

/* Adds the second token's shift to the host tokens that begin with `first`, centred over them. */
static void add_second(bench *b, int32_t first, const float *row, double alpha) {
    double top = -INFINITY, sum = 0, mass = 0;
    for (int32_t i = 0; i < b->n_host; i++) {
        if (b->first[i] == first && b->second[i] >= 0) top = fmax(top, alpha * (double)row[b->second[i]]);
    }
    for (int32_t i = 0; i < b->n_host; i++) {
        if (b->first[i] != first || b->second[i] < 0) continue;
        sum += (double)b->p[i] * exp(alpha * (double)row[b->second[i]] - top);
        mass += (double)b->p[i];
    }
    if (!(sum > 0)) return;
    double c = top + log(sum) - log(mass);
    for (int32_t i = 0; i < b->n_host; i++) {
        if (b->first[i] == first && b->second[i] >= 0) b->x[i] += (float)(alpha * (double)row[b->second[i]] - c);
    }
}

typedef struct behind { int32_t first[CHAIN_MOST]; size_t n; float *rows; } behind;

static void rows_behind(bench *b, cmc_session *s, behind *c, cmc_error *err) {
    double t0 = cmc_now();
    c->n = heaviest(b, c->first, CHAIN_MOST);
    cmc_eval_item items[CHAIN_MOST];
    for (size_t k = 0; k < c->n; k++) {
        items[k] = (cmc_eval_item){.want = CMC_WANT_LOGITS, .n_rows = 1, .out = c->rows + k * (size_t)b->n_delta};
        check(cmc_session_fork(s, &items[k].session, err), err);
        check(cmc_session_append(items[k].session, c->first[k], err), err);
    }
    if (c->n) check(cmc_eval(b->delta, items, c->n, err), err);
    for (size_t k = 0; k < c->n; k++) cmc_session_free(items[k].session);
    b->seconds_behind += cmc_now() - t0;
}

/* One target under every variant and strength; d NULL: the delta waits here. */
static void step(bench *b, const float *h, const float *d, const behind *c, int32_t target) {
    const cmc_map *m = b->d->map;
    float top = h[0];
    double z = 0;
    for (int32_t i = 1; i < b->n_host; i++) top = fmaxf(top, h[i]);
    for (int32_t i = 0; i < b->n_host; i++) z += (double)expf(h[i] - top);
    double log_z = (double)top + log(z), nll = log_z - (double)h[target];
    bool prefix = m->how[target] == CMC_HOW_PREFIX;
    b->tokens++;
    b->prefix_tokens += prefix;
    b->host_nll += nll;
    b->host_nll_prefix += prefix ? nll : 0;
    for (size_t a = 0; !d && a < b->n_alphas; a++) {
        for (int v = 0; v < N_VARIANTS; v++) {
            b->nll[v][a] += nll;
            b->nll_prefix[v][a] += prefix ? nll : 0;
        }
    }
    for (size_t a = 0; d && a < b->n_alphas; a++) {
        double alpha = b->alpha[a];
        by_map(b, m->to, d, alpha);
        finish(b, V_PREFIX, a, h, log_z, target, prefix);
        for (int32_t i = 0; i < b->n_host; i++) b->s[i] = b->out[i] - h[i];
        memset(b->group, 0, (size_t)b->n_delta * sizeof *b->group);
        for (int32_t i = 0; i < b->n_host; i++) {
            if (m->to[i] >= 0) b->group[m->to[i]] += b->p[i];
        }
        for (variant v = V_EXACT; v <= V_SPREAD; v++) {
            by_weight(b, v);
            finish(b, v, a, h, log_z, target, prefix);
        }
        by_map(b, b->reference->to, d, alpha);
        finish(b, V_REFERENCE, a, h, log_z, target, prefix);
        by_mean(b, d, alpha);
        finish(b, V_MEAN, a, h, log_z, target, prefix);
        by_map(b, b->first, d, alpha);
        finish(b, V_FIRST, a, h, log_z, target, prefix);
        for (int32_t i = 0; i < b->n_host; i++) b->s[i] = b->out[i] - h[i];
        for (variant v = V_FIRST_HALF; v <= V_FIRST_SCALE; v++) {
            by_first_weight(b, v);
            finish(b, v, a, h, log_z, target, prefix);
        }
        static const struct { variant v; size_t k; } CHAINS[] = {{V_CHAIN_1, 1}, {V_CHAIN_8, 8}, {V_CHAIN_32, 32}};
        for (size_t q = 0; q < 3; q++) {
            size_t n = c->n < CHAINS[q].k ? c->n : CHAINS[q].k;
            by_map(b, b->first, d, alpha);
            for (size_t k = 0; k < n; k++) add_second(b, c->first[k], c->rows + k * (size_t)b->n_delta, alpha);
            finish(b, CHAINS[q].v, a, h, log_z, target, prefix);
            if (a == 0) b->rows_behind[q] += n;
        }
    }
}

/* ----------------------------------------------------------------------------------------------------- records */

static void softmax(const float *h, int32_t n, float *p) {
    float top = h[0];
    double z = 0;
    for (int32_t i = 1; i < n; i++) top = fmaxf(top, h[i]);
    for (int32_t i = 0; i < n; i++) z += (double)(p[i] = expf(h[i] - top));
    for (int32_t i = 0; i < n; i++) p[i] = (float)((double)p[i] / z);
}

static void walk(bench *b, const cmc_rendered *host, const cmc_rendered *own, const float *logits, cmc_error *err) {
    follow f;
    cmc_session *s;
    const cmc_span *sp = &host->spans[0];
    float *row = need(cmc_alloc_aligned((size_t)b->n_delta, sizeof *row));
    behind c = {.rows = need(cmc_alloc_aligned((size_t)b->n_delta * CHAIN_MOST, sizeof(float)))};
    follow_start start = {.prompt = own->ids.v, .n_prompt = own->spans[0].first};
    check(follow_init(&f, b->st, b->d, start, err), err);
    check(cmc_session_new(b->delta, 0, &s, err), err);
    for (size_t i = 0; i < sp->n; i++) {
        const float *h = logits + i * (size_t)b->n_host;
        steering_row kind;
        softmax(h, b->n_host, b->p);
        check(follow_context(&f, &kind, err), err);
        if (kind != STEERING_NO_ROW) {
            double t0 = cmc_now();
            check(cmc_session_sync(s, f.ctx.v, f.ctx.n, err), err);
            cmc_eval_item item = {.session = s, .want = CMC_WANT_LOGITS, .n_rows = 1, .out = row};
            check(cmc_eval(b->delta, &item, 1, err), err);
            b->seconds_row += cmc_now() - t0;
            rows_behind(b, s, &c, err);
            b->steps++;
        }
        step(b, h, kind == STEERING_NO_ROW ? NULL : row, &c, host->ids.v[sp->first + i]);
        if (i + 1 < sp->n) check(follow_push(&f, host->ids.v[sp->first + i], err), err);
    }
    cmc_session_free(s);
    follow_free(&f);
    free(row);
    free(c.rows);
}

static void print_values(const bench *b, const char *name, const double v[N_VARIANTS][MAX_ALPHAS]) {
    printf(",\"%s\":{", name);
    for (int k = 0; k < N_VARIANTS; k++) {
        printf("%s\"%s\":[", k ? "," : "", VARIANT_NAMES[k]);
        for (size_t a = 0; a < b->n_alphas; a++) printf("%s%.6f", a ? "," : "", v[k][a]);
        putchar(']');
    }
    putchar('}');
}

static void one_record(bench *b, const cmc_record *r, size_t n, cmc_error *err) {
    cmc_rendered host = {0}, own = {0};
    cmc_session *s;
    check(cmc_render(cmc_model_vocab(b->host), CMC_TMPL_PLAIN, r, false, &host, err), err);
    check(cmc_render(cmc_model_vocab(b->delta), CMC_TMPL_PLAIN, r, false, &own, err), err);
    if (host.n_spans == 1 && own.n_spans == 1) {
        const cmc_span *sp = &host.spans[0];
        float *logits = need(cmc_alloc_aligned(sp->n * (size_t)b->n_host, sizeof *logits));
        check(cmc_session_new(b->host, 0, &s, err), err);
        check(cmc_session_sync(s, host.ids.v, sp->first + sp->n - 1, err), err);
        cmc_eval_item item = {.session = s, .want = CMC_WANT_LOGITS, .n_rows = sp->n, .out = logits};
        check(cmc_eval(b->host, &item, 1, err), err);
        cmc_session_free(s);
        memset(b->nll, 0, sizeof b->nll);
        memset(b->nll_prefix, 0, sizeof b->nll_prefix);
        b->host_nll = b->host_nll_prefix = 0;
        b->tokens = b->prefix_tokens = 0;
        walk(b, &host, &own, logits, err);
        printf("{\"n\":%zu,\"tokens\":%zu,\"prefix_tokens\":%zu,\"bytes\":%zu,\"host\":%.6f,\"host_prefix\":%.6f", n,
               b->tokens, b->prefix_tokens, sp->text_len, b->host_nll, b->host_nll_prefix);
        print_values(b, "nll", (const double (*)[MAX_ALPHAS])b->nll);
        print_values(b, "nll_prefix", (const double (*)[MAX_ALPHAS])b->nll_prefix);
        puts("}");
        fflush(stdout);
        free(logits);
    }
    cmc_rendered_free(&host);
    cmc_rendered_free(&own);
}

static void open_models(bench *b, const char *host, const char *delta, cmc_error *err) {
    cmc_runtime_opts opts = {.threads = 1};
    cmc_steering_opts steer = {.host_template = CMC_TMPL_PLAIN};
    check(cmc_runtime_open(&opts, &b->rt, err), err);
    check(cmc_model_open(b->rt, host, &b->host, err), err);
    check(cmc_model_open(b->rt, delta, &b->delta, err), err);
    check(cmc_steering_new(b->host, &steer, &b->st, err), err);
    const cmc_vocab *hv = cmc_model_vocab(b->host), *dv = cmc_model_vocab(b->delta);
    check(cmc_map_build(hv, dv, CMC_RULE_PREFIX, &b->prefix, err), err);
    check(cmc_steering_add(b->st, b->delta, 1.0, b->prefix, CMC_TMPL_PLAIN, err), err);
    check(cmc_map_build(hv, dv, CMC_RULE_REFERENCE, &b->reference, err), err);
    b->d = &b->st->deltas[0];
    b->n_host = cmc_model_n_vocab(b->host);
    b->n_delta = cmc_model_n_vocab(b->delta);
    prepare(b, err);
}

int main(int argc, char **argv) {
    static bench b;
    cmc_error err = {0};
    cmc_records data = {0};
    if (argc < 4) {
        fputs("usage: rule_gain HOST DELTA DATA.jsonl [MAX_RECORDS [ALPHA...]]\n", stderr);
        return 2;
    }
    for (int k = 5; k < argc && b.n_alphas < MAX_ALPHAS; k++) b.alpha[b.n_alphas++] = strtod(argv[k], NULL);
    if (!b.n_alphas) b.alpha[b.n_alphas++] = 1;
    open_models(&b, argv[1], argv[2], &err);
    check(cmc_records_read(argv[3], true, &data, &err), &err);
    size_t most = argc > 4 ? strtoul(argv[4], NULL, 10) : data.n;
    for (size_t i = 0; i < data.n && i < most; i++) one_record(&b, &data.v[i], i + 1, &err);
    printf("{\"total\":{\"steps\":%zu,\"alphas\":[", b.steps);
    for (size_t a = 0; a < b.n_alphas; a++) printf("%s%g", a ? "," : "", b.alpha[a]);
    double steps = b.steps ? (double)b.steps : 1;
    printf("],\"rows_behind\":[%.3f,%.3f,%.3f],\"row_ms\":%.3f,\"behind_ms\":%.3f}}\n", (double)b.rows_behind[0] / steps,
           (double)b.rows_behind[1] / steps, (double)b.rows_behind[2] / steps, 1e3 * b.seconds_row / steps,
           1e3 * b.seconds_behind / steps);
    return 0;
}
