/* Answers of ab for a page. Tokens are radio buttons: a browser gives each answer one stop of the tab key and the arrow keys within
 * it, and no script is needed. */
#include "cli/ab_tokens.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char ab_tokens_style[] =
    ":root{--up:31 95 168;--down:214 120 0;--a1:.12;--a2:.26;--a3:.42;--a4:.6}\n"
    "@media (prefers-color-scheme:dark){:root{--up:91 148 224;--down:220 130 30;--a1:.24;--a2:.38;--a3:.52;--a4:.66}}\n"
    ".answer{position:relative;white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.75;margin:.25rem 0}\n"
    "ins,del{text-decoration:underline 2px var(--soft);text-underline-offset:4px}del{text-decoration-style:dotted}\n"
    ".t{border-radius:3px;padding:.1em 0;cursor:default;-webkit-box-decoration-break:clone;box-decoration-break:clone}\n"
    ".t input{position:absolute;opacity:0;width:1px;height:1px;margin:0;pointer-events:none}\n"
    ".u1{background:rgb(var(--up)/var(--a1))}.u2{background:rgb(var(--up)/var(--a2))}.u3{background:rgb(var(--up)/var(--a3))}"
    ".u4{background:rgb(var(--up)/var(--a4))}\n"
    ".d1{background:rgb(var(--down)/var(--a1))}.d2{background:rgb(var(--down)/var(--a2))}.d3{background:rgb(var(--down)/var(--a3))}"
    ".d4{background:rgb(var(--down)/var(--a4))}\n"
    ".t .sign{color:inherit}.c{box-shadow:inset 0 0 0 1px var(--soft)}.t:hover{outline:1px solid var(--ink)}.t:focus-within{outline:3px solid var(--ink)}\n"
    ".tip{display:none;position:absolute;left:0;right:0;z-index:1;margin-top:.35rem;padding:.5rem .75rem;background:var(--paper);"
    "border:1px solid var(--soft);border-radius:4px;box-shadow:0 .25rem 1rem rgb(0 0 0/.3);font-size:.85rem;line-height:1.45;"
    "pointer-events:none}\n"
    ".t:hover+.tip,.t:focus-within+.tip{display:block}.t:hover+.tip{z-index:2}\n"
    ".tip b,.tip i{font-style:normal;unicode-bidi:isolate}.tip span{display:inline-block;vertical-align:top;min-width:14rem;max-width:100%;"
    "margin:.35rem 1rem 0 0;white-space:pre;overflow:hidden;text-overflow:ellipsis;tab-size:6rem;"
    "unicode-bidi:plaintext;font-variant-numeric:tabular-nums}\n"
    ".legend .t{padding:.1em .4em;margin-right:.15rem}\n"
    "@media print{.t{print-color-adjust:exact}.tip{display:none!important}}\n"
    "@media (forced-colors:active){.u1,.u2,.u3,.u4{border-bottom:3px solid}.d1,.d2,.d3,.d4{border-bottom:3px dotted}}\n";

/* ------------------------------------------------------------------------------------------------------- text */

int ab_text_make(const cmc_vocab *v, const ab_answer *a, ab_text *out) {
    size_t total = 0, len;
    for (size_t i = 0; i < a->n; i++) {
        cmc_vocab_bytes(v, a->ids[i], &len);
        total += len;
    }
    *out = (ab_text){.s = malloc(total + 1), .len = total};
    if (!out->s)
        return cli_no_memory();
    for (size_t i = 0, at = 0; i < a->n; i++, at += len) {
        const uint8_t *s = cmc_vocab_bytes(v, a->ids[i], &len);
        memcpy(out->s + at, s, len);
    }
    out->skipped = total > 1 && out->s[0] == ' ';
    return CLI_OK;
}

/* Bytes [from, to) with what lies in a run of differing words in <ins> or <del>. */
static void ab_marked(html *h, const ab_text *t, size_t from, size_t to, const diff_run *run, size_t n, const char *tag) {
    for (size_t i = 0; i < n && from < to; i++) {
        size_t first = run[i].first < from ? from : run[i].first, end = run[i].first + run[i].len;
        if (end <= from)
            continue;
        first = first < to ? first : to;
        end = end < to ? end : to;
        html_running(h, t->s + from, first - from);
        if (end > first) {
            html_printf(h, "<%s>", tag);
            html_running(h, t->s + first, end - first);
            html_printf(h, "</%s>", tag);
        }
        from = end;
    }
    html_running(h, t->s + from, to - from);
}

void ab_plain(html *h, const ab_text *t, const word_diff *d) {
    html_raw(h, "<div class=\"answer\"><bdi>");
    if (t->len == 0)
        html_raw(h, "<span class=\"soft\">(no text)</span>");
    ab_marked(h, t, t->skipped, t->len, d->run[GEN_UNSTEERED], d->n[GEN_UNSTEERED], "del");
    html_raw(h, "</bdi></div>\n");
}

/* ---------------------------------------------------------------------------------------------------- tooltips */

/* Three digits, but no smaller than can be read. */
static void tip_percent(html *h, double logprob) {
    double p = 100 * exp(logprob);
    if (p < 1e-4)
        html_raw(h, "&lt;0.0001");
    else
        html_printf(h, p >= 99.95 ? "%.0f" : p >= 9.995 ? "%.1f" : p >= 0.9995 ? "%.2f" : p >= 0.09995 ? "%.3f" : "%.4f", p);
}

static void tip_token(html *h, const cmc_vocab *v, int32_t id) {
    size_t n;
    const uint8_t *s = cmc_vocab_bytes(v, id, &n);
    if (n) {
        html_token_text(h, s, n);
        return;
    }
    const char *spelling = cmc_vocab_spelling(v, id, &n);
    html_line(h, spelling, n);
}

/* "<b>token</b> 0.12 to 61.3 %" */
static void tip_moved(html *h, const cmc_vocab *v, const cmc_moved *m, const char *tag, char between) {
    html_printf(h, "<%s>", tag);
    tip_token(h, v, m->id);
    html_printf(h, "</%s>%c", tag, between);
    tip_percent(h, m->host_logprob);
    html_raw(h, " \xE2\x86\x92 ");
    tip_percent(h, m->logprob);
    html_raw(h, " %");
}

static void tip_movers(html *h, const cmc_vocab *v, const char *title, const cmc_moved *m, size_t n) {
    html_printf(h, "<span>%s", title);
    for (size_t i = 0; i < n; i++) {
        html_raw(h, "\n");
        tip_moved(h, v, &m[i], "i", '\t');
    }
    html_raw(h, "</span>");
}

static void tip(html *h, const cmc_vocab *v, const cmc_comparison *c, size_t prompt, size_t token) {
    double times = exp(c->token.logprob - c->token.host_logprob);
    html_printf(h, "<span class=\"tip\" role=\"tooltip\" id=\"d%zu-%zu\"><b>", prompt, token);
    tip_token(h, v, c->token.id);
    html_raw(h, "</b> without steering ");
    tip_percent(h, c->token.host_logprob);
    html_raw(h, " %, with it ");
    tip_percent(h, c->token.logprob);
    html_raw(h, " %");
    if (isfinite(times) && times > 0)
        html_printf(h, " (\xC3\x97%.3g)", times);
    html_printf(h, ". KL here %.3g nats.", c->kl);
    if (c->n_deltas == 0)
        html_raw(h, " No delta steered here.");
    if (c->n_waiting)
        html_raw(h, c->n_waiting == c->n_deltas ? " The delta waited: the text ended inside a character."
                                                : " One of the deltas waited: the text ended inside a character.");
    if (c->top.id != c->host_top.id) {
        html_raw(h, "\nLikeliest without steering: ");
        tip_moved(h, v, &c->host_top, "b", ' ');
    }
    if (c->top.id != c->token.id) {
        html_raw(h, "\nLikeliest with it: ");
        tip_moved(h, v, &c->top, "b", ' ');
    }
    html_raw(h, "\n");
    if (c->n_raised)
        tip_movers(h, v, "Raised most", c->raised, c->n_raised);
    if (c->n_lowered)
        tip_movers(h, v, "Lowered most", c->lowered, c->n_lowered);
    html_raw(h, "</span>");
}

/* ------------------------------------------------------------------------------------------------------ tokens */

/* By factors of 1.1, 2, 10 and 100: 0 to 4. */
static int token_shade(double nats) {
    static const double steps[] = {0.0953, 0.6931, 2.3026, 4.6052};
    int shade = 0;
    while (shade < 4 && fabs(nats) >= steps[shade])
        shade++;
    return shade;
}

static void token_class(html *h, const cmc_comparison *c) {
    double nats = c->token.logprob - c->token.host_logprob;
    int shade = token_shade(nats);
    html_raw(h, "<label class=\"t");
    if (shade)
        html_printf(h, " %c%d", nats > 0 ? 'u' : 'd', shade);
    html_raw(h, c->top.id != c->host_top.id ? " c\">" : "\">");
}

/* A token of the answer: its bytes end at `end`, and the characters that are whole with it are [from, to). */
typedef struct token { int32_t id; size_t from, to, end; } token;

/* Those characters; a sign where none of them shows, three dots where there are none yet. */
static void token_text(html *h, const cmc_vocab *v, const token *k, const ab_text *t, const word_diff *d) {
    if (html_shows(t->s + k->from, k->to - k->from)) {
        ab_marked(h, t, k->from, k->to, d->run[GEN_STEERED], d->n[GEN_STEERED], "ins");
        return;
    }
    html_raw(h, "<span class=\"sign\">");
    if (k->from == k->to && k->end > k->to)
        html_raw(h, "\xE2\x80\xA6");
    else
        tip_token(h, v, k->id);
    html_raw(h, "</span>");
    for (size_t i = k->from; i < k->to; i++)
        html_raw(h, t->s[i] == '\n' ? "\n" : "");
}

/* Where the characters end that are whole within [from, end); a character may go on in the next token. */
static size_t token_whole(const ab_text *t, size_t from, size_t end) {
    wint_t c;
    while (from < end) {
        size_t len = html_next(t->s + from, t->len - from, &c);
        if (from + len > end)
            break;
        from += len;
    }
    return from;
}

void ab_tokens(html *h, const cmc_vocab *v, const ab_entry *e, const ab_text *t, const word_diff *d, size_t prompt) {
    token k = {.to = t->skipped};
    size_t len;
    html_printf(h, "<div class=\"answer\" role=\"radiogroup\" aria-label=\"Steered answer to prompt %zu, token by token: ", prompt);
    html_line(h, t->s + t->skipped, t->len - t->skipped);
    html_raw(h, "\"><bdi>");
    for (size_t i = 0; i < e->n_steps; i++) {
        k.id = e->side[GEN_STEERED].ids[i];
        cmc_vocab_bytes(v, k.id, &len);
        k.end += len;
        k.from = k.to;
        k.to = token_whole(t, k.from, k.end);
        token_class(h, &e->steps[i]);
        html_printf(h, "<input type=\"radio\" name=\"a%zu\" aria-describedby=\"d%zu-%zu\">", prompt, prompt, i);
        token_text(h, v, &k, t, d);
        html_raw(h, "</label>");
        tip(h, v, &e->steps[i], prompt, i);
    }
    html_raw(h, "</bdi></div>\n");
}

void ab_tokens_legend(html *h) {
    static const char *const factors[] = {"1.1", "2", "10", "100"};
    html_raw(h, "<p class=\"legend\">A token of a steered answer is coloured by its probability with steering over that without. "
                "Lowered by a factor of ");
    for (int k = 3; k >= 0; k--)
        html_printf(h, "<span class=\"t d%d\">%s</span>", k + 1, factors[k]);
    html_raw(h, "or more; raised by ");
    for (int k = 0; k < 4; k++)
        html_printf(h, "<span class=\"t u%d\">%s</span>", k + 1, factors[k]);
    html_raw(h, "or more. <span class=\"t c\">Framed</span>: without steering another token was the likeliest at this place. "
                "<del>Dotted</del> and <ins>solid</ins> lines are under words that only the unsteered and only the steered answer "
                "has. Three dots: a token that ends inside a character.</p>\n"
                "<p>Point at a token, or choose it, to see what moved: the tab key goes from answer to answer, the arrow keys "
                "from token to token. Probabilities are of the whole vocabulary at temperature 1, before penalties and cuts; KL "
                "is from the steered distribution to the host's, in nats.</p>\n");
}
