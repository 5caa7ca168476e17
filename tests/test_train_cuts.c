/* Responses cut at random places: where they are cut, what comes of it for host and delta, by hand on a tiny vocabulary, and
 * whole runs. */
#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "tests/tiny.h"
#include "tests/train_rig.h"
#include "tests/vocab_help.h"
#include "tinylm/data.h"

/* ------------------------------------------------------------------------------------------------- places */

/* Every border of two characters of the responses is as likely as any other; none is elsewhere. */
static void test_places(void **state) {
    (void)state;
    enum { N = 6000 };
    static char ask[] = "a question", one[] = "a\xc3\xa9\xe6\x97\xa5" "b", two[] = "x", three[] = "yz";
    cmc_message m[] = {{CMC_USER, ask, sizeof ask - 1}, {CMC_ASSISTANT, one, sizeof one - 1},
                       {CMC_ASSISTANT, two, sizeof two - 1}, {CMC_ASSISTANT, three, sizeof three - 1}};
    cmc_record chat = {.messages = m, .n_messages = 4}, bare = {.text = one, .text_len = sizeof one - 1};
    static const render_cut places[] = {{1, 1}, {1, 3}, {1, 6}, {3, 1}};
    size_t seen[4] = {0}, in_bare[7] = {0}, cut = 0;
    data_opts o = {.cuts = 0.75};
    for (size_t i = 0; i < N; i++) {
        render_cut at, again;
        bool is = data_cut_draw(&o, &chat, i, &at);
        assert_true(data_cut_draw(&o, &chat, i, &again) == is);
        cut += is;
        size_t k = 0;
        while (is && k < 4 && (places[k].message != at.message || places[k].off != at.off))
            k++;
        assert_true(k < 4 && (!is || (again.message == at.message && again.off == at.off)));
        seen[k] += is;
        if (data_cut_draw(&o, &bare, i, &at))
            in_bare[at.off]++;
    }
    assert_true(fabs((double)cut / N - 0.75) < 0.02);
    for (size_t k = 0; k < 4; k++)
        assert_true(fabs((double)seen[k] / (double)cut - 0.25) < 0.03);
    assert_int_equal(in_bare[1] + in_bare[3] + in_bare[6], cut);
    assert_true(in_bare[1] > N / 5 && in_bare[3] > N / 5 && in_bare[6] > N / 5);
    cmc_record nothing = {.messages = m + 2, .n_messages = 1};
    render_cut at;
    o.cuts = 1.0;
    assert_false(data_cut_draw(&o, &nothing, 0, &at)); /* one character has no border */
    assert_true(data_cut_draw(&o, &bare, 0, &at));
    o.cuts = 0.0;
    assert_false(data_cut_draw(&o, &bare, 0, &at));
}

/* ------------------------------------------------------------------------------------------------ by hand */

static cmc_vocab *vocab_of(const mini_token *tokens) {
    static const mini_key keys[] = {{"tokenizer.ggml.bos_token_id", 1}, {"tokenizer.ggml.unknown_token_id", 0}, {NULL, 0}};
    cmc_vocab *v;
    cmc_error err = {0};
    mini m = {.model = "llama", .tokens = tokens, .keys = keys, .space_prefix = 0, .add_bos = 1};
    if (mini_open(&m, &v, &err) != CMC_OK)
        fail_msg("%s", err.message);
    return v;
}

/* Of the text "abc", the host has "ab" and "abc", the delta "bc". */
enum { BOS = 1, A = 2, B = 3, C = 4, AB = 5, ABC = 6, BC = 5 };
static const mini_token host_tokens[] = {{"<unk>", 2, 0}, {"<s>", 3, 0}, {"a", 1, -9}, {"b", 1, -9}, {"c", 1, -9},
                                         {"ab", 1, -1}, {"abc", 1, -2}, {NULL, 0, 0}};
static const mini_token delta_tokens[] = {{"<unk>", 2, 0}, {"<s>", 3, 0}, {"a", 1, -9}, {"b", 1, -9}, {"c", 1, -9},
                                          {"bc", 1, -1}, {NULL, 0, 0}};

static void assert_list(const char *what, const int32_t *got, size_t n, const int32_t *want, size_t n_want) {
    if (n != n_want || memcmp(got, want, n * sizeof *got) != 0) {
        print_ids("got ", got, n);
        print_ids("want", want, n_want);
        fail_msg("%s", what);
    }
}

static void assert_rows(const uint32_t *got, const uint32_t *want, size_t n) {
    for (size_t i = 0; i < n; i++)
        assert_int_equal(got[i], want[i]);
}

typedef struct by_hand {
    size_t off;              /* where it is cut; 0: whole */
    int32_t host[4], delta[8], targets[4];
    size_t n_host, n_delta, n_targets, n_seqs, left_out, prefix;
    uint32_t host_row[4], delta_row[4];
} by_hand;

static void check_by_hand(const data_opts *base, const by_hand *want) {
    data_opts o = *base;
    data_set d;
    cmc_error err = {0};
    render_cut cut = {0, 0};
    static char abc[] = "abc";
    const cmc_record r = {.text = abc, .text_len = 3};
    o.cuts = want->off ? 1.0 : 0.0;
    while (want->off && (!data_cut_draw(&o, &r, 0, &cut) || cut.off != want->off)) /* a seed that cuts there */
        o.seed++;
    if (data_open(&o, &d, &err) != CMC_OK)
        fail_msg("%s", err.message);
    const data_example *x = &d.v[0];
    assert_int_equal(d.n, 1);
    assert_true(x->cut == (want->off > 0));
    assert_list("host", x->host_ids, x->n_host, want->host, want->n_host);
    assert_list("delta", x->delta_ids, x->n_delta, want->delta, want->n_delta);
    assert_list("targets", x->targets, x->n_targets, want->targets, want->n_targets);
    assert_rows(x->host_row, want->host_row, want->n_targets);
    assert_rows(x->delta_row, want->delta_row, want->n_targets);
    assert_int_equal(x->n_seqs, want->n_seqs);
    assert_int_equal(d.n_left_out, want->left_out);
    assert_int_equal(d.n_prefix, want->prefix);
    assert_int_equal(d.n_targets, want->n_targets);
    data_free(&d);
}

/* "abcab" cut as ab|cab and as abca|b: other tokens in as many rows, whose states must not be taken for each other's. */
static void test_rows_apart(void **state) {
    (void)state;
    static const size_t off[] = {2, 4};
    static char line[] = "abcab";
    const cmc_record r = {.text = line, .text_len = 5};
    rig g;
    data_set d[2];
    cmc_error err = {0};
    rig_open(&g, 1, false);
    cmc_vocab *host = vocab_of(host_tokens);
    FILE *f = fopen(g.data, "w");
    fprintf(f, "{\"text\":\"%s\"}\n", line);
    assert_int_equal(fclose(f), 0);
    data_opts o = {.paths = g.paths, .n_paths = 1, .vocab = host, .host_template = CMC_TMPL_PLAIN,
                   .delta_template = CMC_TMPL_PLAIN, .max_len = 50, .cuts = 1.0};
    for (int k = 0; k < 2; k++) {
        render_cut cut;
        while (!data_cut_draw(&o, &r, 0, &cut) || cut.off != off[k])
            o.seed++;
        assert_int_equal(data_open(&o, &d[k], &err), CMC_OK);
    }
    assert_int_equal(d[0].n_targets, 3);
    assert_int_equal(d[1].n_targets, 3);
    assert_memory_equal(d[0].v->host_row, d[1].v->host_row, 3 * sizeof *d[0].v->host_row);
    assert_memory_not_equal(d[0].v->host_ids, d[1].v->host_ids, 3 * sizeof *d[0].v->host_ids);
    assert_string_equal(d[0].hash, d[1].hash);
    assert_string_not_equal(d[0].rows_hash, d[1].rows_hash);
    data_free(&d[0]);
    data_free(&d[1]);
    cmc_vocab_free(host);
    rig_close(&g);
}

static void test_by_hand(void **state) {
    (void)state;
    rig r;
    rig_open(&r, 1, false);
    cmc_vocab *host = vocab_of(host_tokens), *delta = vocab_of(delta_tokens);
    FILE *f = fopen(r.data, "w");
    fputs("{\"text\":\"abc\"}\n", f);
    assert_int_equal(fclose(f), 0);
    data_opts same = {.paths = r.paths, .n_paths = 1, .vocab = host, .host_template = CMC_TMPL_PLAIN,
                      .delta_template = CMC_TMPL_PLAIN, .max_len = 50};
    static const by_hand shared[] = {
        {0, {BOS}, {BOS}, {ABC}, 1, 1, 1, 1, 0, 0, {0}, {0}},
        {1, {BOS, A, B}, {BOS, A, B}, {A, B, C}, 3, 3, 3, 1, 0, 0, {0, 1, 2}, {0, 1, 2}},
        {2, {BOS, AB}, {BOS, AB}, {AB, C}, 2, 2, 2, 1, 0, 0, {0, 1}, {0, 1}},
    };
    for (size_t i = 0; i < 3; i++)
        check_by_hand(&same, &shared[i]);
    /* The delta's tokens: a bc; cut a|bc: a bc; cut ab|c: a b c. The host's c behind a|b begins inside its bc. */
    data_opts other = same;
    other.delta_vocab = delta;
    static const by_hand mapped[] = {
        {0, {BOS}, {BOS}, {ABC}, 1, 1, 1, 1, 0, 0, {0}, {0}},
        {1, {BOS, A}, {BOS, A}, {A, B}, 2, 2, 2, 1, 1, 0, {0, 1}, {0, 1}},
        {2, {BOS, AB}, {BOS, A, B}, {AB, C}, 2, 3, 2, 1, 0, 0, {0, 1}, {0, 2}},
    };
    for (size_t i = 0; i < 3; i++)
        check_by_hand(&other, &mapped[i]);
    other.prefix_rows = true;
    static const by_hand rows = {1, {BOS, A, B}, {BOS, A, BC, BOS, A, B}, {A, B, C}, 3, 6, 3, 2, 0, 1, {0, 1, 2}, {0, 1, 5}};
    check_by_hand(&other, &rows);
    check_by_hand(&other, &mapped[2]);
    cmc_vocab_free(host);
    cmc_vocab_free(delta);
    rig_close(&r);
}

/* -------------------------------------------------------------------------------------------- whole records */

/* The bytes of a rendering's response ids. */
static void bytes_of(const cmc_vocab *v, const cmc_rendered *r, text *out) {
    out->n = 0;
    for (size_t k = 0; k < r->n_spans; k++)
        for (size_t i = 0; i < r->spans[k].n; i++) {
            size_t n;
            const uint8_t *s = cmc_vocab_bytes(v, r->ids.v[r->spans[k].first + i], &n);
            text_add(out, (const char *)s, n);
        }
}

/* One training example that is cut, against renderings with the same cut. */
static void check_cut(const data_opts *o, const cmc_record *r, const data_example *x) {
    cmc_error err = {0};
    cmc_rendered h = {0}, whole = {0}, g = {0};
    text a = {0}, b = {0};
    render_cut cut;
    size_t at, main = x->seq[1];
    assert_true(data_cut_draw(o, r, x->record, &cut));
    assert_int_equal(render_with_cut(o->vocab, o->host_template, r, cut, &h, &at, &err), CMC_OK);
    assert_int_equal(cmc_render(o->vocab, o->host_template, r, false, &whole, &err), CMC_OK);
    bytes_of(o->vocab, &h, &a);
    bytes_of(o->vocab, &whole, &b);
    if (!r->text) /* a bare text's first token is in no span, and may be another */
        assert_true(a.n == b.n && memcmp(a.s, b.s, a.n) == 0);
    assert_true(x->n_host <= h.ids.n);
    assert_memory_equal(x->host_ids, h.ids.v, x->n_host * sizeof *x->host_ids);
    assert_int_equal(render_with_cut(o->delta_vocab ? o->delta_vocab : o->vocab, o->delta_template, r, cut, &g, &at, &err),
                     CMC_OK);
    if (o->delta_vocab && !(r->text && o->delta_vocab->model == VOCAB_SPM)) { /* whose dummy space before a text is not read */
        assert_true(main <= g.ids.n);
        assert_memory_equal(x->delta_ids, g.ids.v, main * sizeof *x->delta_ids);
    }
    for (size_t k = 0; k < x->n_targets; k++)
        assert_int_equal(x->targets[k], h.ids.v[x->host_row[k] + 1]);
    cmc_rendered_free(&h);
    cmc_rendered_free(&whole);
    cmc_rendered_free(&g);
    free(a.s);
    free(b.s);
}

static bool same_example(const data_example *a, const data_example *b) {
    return a->n_host == b->n_host && a->n_delta == b->n_delta && a->n_targets == b->n_targets && a->n_seqs == b->n_seqs &&
           memcmp(a->host_ids, b->host_ids, a->n_host * sizeof *a->host_ids) == 0 &&
           memcmp(a->delta_ids, b->delta_ids, a->n_delta * sizeof *a->delta_ids) == 0 &&
           memcmp(a->targets, b->targets, a->n_targets * sizeof *a->targets) == 0 &&
           memcmp(a->delta_row, b->delta_row, a->n_targets * sizeof *a->delta_row) == 0;
}

/* The same seed cuts the same, another one elsewhere; what is held out stays whole; the counts are those of what is there. */
static void check_records(const data_opts *base) {
    data_set none, d, again, other;
    data_opts o = *base;
    cmc_error err = {0};
    size_t cut = 0, changed = 0, targets = 0, longest = 0;
    assert_int_equal(data_open(&o, &none, &err), CMC_OK);
    o.cuts = 0.7;
    if (data_open(&o, &d, &err) != CMC_OK || data_open(&o, &again, &err) != CMC_OK)
        fail_msg("%s", err.message);
    o.seed++;
    assert_int_equal(data_open(&o, &other, &err), CMC_OK);
    o.seed--;
    assert_true(d.n == none.n && d.n_train == none.n_train && d.n_held == none.n_held && d.n_held > 0);
    for (size_t i = 0; i < d.n_held; i++) {
        assert_int_equal(d.held[i], none.held[i]);
        assert_false(d.v[d.held[i]].cut);
        assert_true(same_example(&d.v[d.held[i]], &none.v[none.held[i]]));
    }
    for (size_t i = 0; i < d.n; i++) {
        assert_true(same_example(&d.v[i], &again.v[i]));
        changed += !same_example(&d.v[i], &other.v[i]);
        cut += d.v[i].cut;
        if (d.v[i].cut)
            check_cut(&o, &d.records.v[d.v[i].record], &d.v[i]);
        else
            assert_true(same_example(&d.v[i], &none.v[i]));
        assert_int_equal(d.v[i].first_row, targets);
        targets += d.v[i].n_targets;
        longest = d.v[i].n_delta > longest ? d.v[i].n_delta : longest;
    }
    assert_true(cut > d.n_train / 2 && cut < d.n_train && changed > cut / 2);
    assert_true(d.n_targets == targets && d.max_delta == longest);
    assert_string_equal(d.rows_hash, again.rows_hash);
    assert_string_not_equal(d.rows_hash, none.rows_hash);
    assert_string_not_equal(d.rows_hash, other.rows_hash);
    data_free(&none);
    data_free(&d);
    data_free(&again);
    data_free(&other);
}

static void test_records(void **state) {
    (void)state;
    static const cmc_template templates[] = {CMC_TMPL_PLAIN, CMC_TMPL_CHATML, CMC_TMPL_ALPACA};
    rig r;
    rig_open(&r, 1, false);
    tiny_spec bpe = {.arch = "llama", .add_bos = true, .seed = 6}, spm = {.arch = "llama", .vocab = "spm", .n_learnt = 120, .seed = 5};
    cmc_vocab *a = vocab_tiny(&bpe), *b = vocab_tiny(&spm);
    for (int k = 0; k < 4 * 9; k++) {
        data_opts o = {.paths = r.paths, .n_paths = 1, .vocab = k & 1 ? a : b, .max_len = 300, .held_out = 0.25,
                       .host_template = templates[k / 4 % 3], .delta_template = templates[k / 12], .seed = 3,
                       .prefix_rows = k & 4};
        if (k & 2)
            o.delta_vocab = k & 1 ? b : a;
        check_records(&o);
    }
    cmc_vocab_free(a);
    cmc_vocab_free(b);
    rig_close(&r);
}

/* What a cut would make too long stays whole. */
static void test_too_long(void **state) {
    (void)state;
    rig r;
    data_set d;
    cmc_error err = {0};
    rig_open(&r, 1, false);
    tiny_spec bpe = {.arch = "llama", .seed = 6};
    cmc_vocab *v = vocab_tiny(&bpe);
    data_opts o = {.paths = r.paths, .n_paths = 1, .vocab = v, .max_len = 300, .held_out = 0.25,
                   .host_template = CMC_TMPL_PLAIN, .delta_template = CMC_TMPL_PLAIN};
    assert_int_equal(data_open(&o, &d, &err), CMC_OK);
    size_t longest = 0, n = d.n;
    for (size_t i = 0; i < d.n; i++)
        longest = d.v[i].n_host > longest ? d.v[i].n_host : longest;
    data_free(&d);
    o.cuts = 1.0;
    o.max_len = longest + 1; /* with the last target, of which nothing is predicted */
    assert_int_equal(data_open(&o, &d, &err), CMC_OK);
    size_t whole = 0;
    for (size_t i = 0; i < d.n_train; i++)
        whole += !d.v[d.train[i]].cut;
    assert_int_equal(d.n, n);
    assert_int_equal(d.too_long, 0);
    assert_true(whole > 0 && whole < d.n_train);
    for (size_t i = 0; i < d.n; i++)
        assert_true(d.v[i].n_host <= longest);
    data_free(&d);
    cmc_vocab_free(v);
    rig_close(&r);
}

/* ------------------------------------------------------------------------------------------------ whole runs */

static size_t count_states(const rig *r) {
    glob_t g = {0};
    char pattern[512];
    snprintf(pattern, sizeof pattern, "%s/*.states", r->dir);
    size_t n = glob(pattern, 0, NULL, &g) == 0 ? g.gl_pathc : 0;
    globfree(&g);
    return n;
}

/* Two hosts, one of another vocabulary: held-out scores are of whole responses, states are kept apart from those of whole
 * ones, a stopped run goes on to the same bytes, and only with the same share. */
static void test_runs(void **state) {
    (void)state;
    rig r;
    size_t n;
    cmc_error err = {0};
    rig_open(&r, 2, false);
    char *other = rig_path(&r, "other.gguf");
    tiny_spec spec = {.arch = "llama", .vocab = "spm", .n_learnt = 120, .type = CMC_F32, .seed = 5};
    assert_int_equal(tiny_write(&spec, other, &err), CMC_OK);
    const char *both[] = {r.host, other};
    cmc_train_opts o = rig_opts(&r);
    o.hosts = both;
    o.n_hosts = 2;
    cmc_train_result none = rig_run(&r, &o, NULL, NULL, CMC_OK);
    assert_int_equal(count_states(&r), 2);
    o.cuts = 0.8;
    cmc_train_result cut = rig_run(&r, &o, NULL, NULL, CMC_OK);
    assert_int_equal(count_states(&r), 4);
    assert_true(fabs(cut.held_out_host - none.held_out_host) < 1e-5);
    assert_true(cut.targets > none.targets && cut.records == none.records);
    assert_true(cut.held_out_steered < cut.held_out_host - 0.5);
    uint8_t *want = rig_bytes(r.out, &n);
    stopper s = {"train", 9, false};
    rig_run(&r, &o, rig_stop, &s, CMC_E_CANCELLED);
    o.resume = true;
    o.cuts = 0.7;
    assert_int_equal(cmc_train(r.rt, &o, NULL, NULL, NULL, &err), CMC_E_ARG);
    o.cuts = 0.8;
    assert_true(rig_run(&r, &o, NULL, NULL, CMC_OK).resumed);
    rig_assert_same(r.out, want, n);
    o.resume = false;
    static const double bad[] = {-0.1, 1.1, NAN};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        o.cuts = bad[i];
        rig_run(&r, &o, NULL, NULL, CMC_E_ARG);
    }
    free(want);
    free(other);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),   cmocka_unit_test(test_by_hand), cmocka_unit_test(test_records),
        cmocka_unit_test(test_too_long), cmocka_unit_test(test_runs),    cmocka_unit_test(test_rows_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
