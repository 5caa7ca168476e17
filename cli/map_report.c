/* A page about a token map: whether the pair will work, and what maps to what, how far. */
#include "cli/map_report.h"
#include "cli/html.h"
#include "cli/map_script.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { TONE_SAME = 3, TONE_NEAR = 4, TONE_NONE = 6 };

/* The verdict's limits, on the share of tokens that the delta has with the same text. On a text it says what steering
 * will meet; on a vocabulary, where most tokens are rare and many are of other languages, much less. */
enum { LIMIT_GOOD = 95, LIMIT_FAIR = 80, LIMIT_VOCAB_GOOD = 60, LIMIT_VOCAB_FAIR = 5 };

typedef struct report {
    html h;
    const map_view *v;
    map_stats s;
    const char *text_path;
} report;

static const struct { cmc_map_how how; int tone; const char *meaning; } report_hows[STATS_HOWS] = {
    {CMC_HOW_ROLE, 1, "both end a turn; where vocabularies are equal, or by the rule reference, also the same id"},
    {CMC_HOW_BYTE, 2, "a single byte, to the token for that byte"},
    {CMC_HOW_EXACT, 3, "the same text"},
    {CMC_HOW_PREFIX, 4, "the nearest token of which one begins the other"},
    {CMC_HOW_OVERRIDE, 5, "set by hand, or read from a list"},
    {CMC_HOW_NONE, 6, "no delta token: the host decides alone"},
};

bool map_report_is_html(const char *file) {
    const char *dot = strrchr(file, '.');
    return dot && (strcasecmp(dot, ".html") == 0 || strcasecmp(dot, ".htm") == 0);
}

static double report_percent(int64_t part, int64_t total) {
    return total > 0 ? 100 * (double)part / (double)total : 0;
}

/* ------------------------------------------------------------------------------------------------------ verdict */

typedef struct verdict { const char *tone, *headline, *advice; } verdict;

static verdict report_judge(const report *r) {
    const map_reach *a = &r->s.all;
    double same = r->s.text ? report_percent(a->same.uses, a->all.uses) : report_percent(a->same.tokens, a->all.tokens);
    if (r->s.text) {
        if (same >= LIMIT_GOOD)
            return (verdict){"good", "This pair will work well on text like this.", ""};
        if (same >= LIMIT_FAIR)
            return (verdict){"fair", "This pair will work on text like this, with gaps.",
                             "See below which tokens it costs most at."};
        return (verdict){"poor", "This pair will not work well on text like this.",
                         "Too much of it reaches the delta only in part or not at all."};
    }
    if (same >= LIMIT_VOCAB_GOOD)
        return (verdict){"good", "This pair will very likely work.", "Give a text (--text) to be sure of yours."};
    if (same >= LIMIT_VOCAB_FAIR)
        return (verdict){"fair", "Whether this pair works depends on the text.",
                         "A large vocabulary is mostly rare tokens and other languages: give a text of the kind that "
                         "you mean to steer (--text FILE) for a verdict that counts."};
    return (verdict){"poor", "This pair is unlikely to work.", "The vocabularies have next to nothing in common."};
}

/* Whether the delta can end a turn: some host end token maps to one of the delta's. */
static bool report_can_end(const report *r) {
    for (int32_t id = 0; id < r->v->counts.n_host; id++) {
        int32_t to = cmc_map_get(r->v->map, id, NULL, NULL);
        if (to >= 0 && cmc_vocab_is_end(r->v->host, id) && cmc_vocab_is_end(r->v->delta, to))
            return true;
    }
    return false;
}

static void report_verdict(report *r) {
    html *h = &r->h;
    const map_reach *a = &r->s.all;
    bool text = r->s.text;
    int64_t all = text ? a->all.uses : a->all.tokens;
    verdict w = report_judge(r);
    html_printf(h, "<p class=\"verdict %s\"><strong>%s</strong><br>\n", w.tone, w.headline);
    if (text) {
        html_raw(h, "Of the ");
        html_count(h, all);
        html_raw(h, " tokens that the host makes of ");
        html_text(h, r->text_path);
    } else {
        html_raw(h, "Of the host's ");
        html_count(h, all);
        html_raw(h, " tokens");
    }
    html_printf(h, ", the delta has %.1f %% with the same text, %.1f %% as something near, and %.1f %% not at all. %s",
                report_percent(text ? a->same.uses : a->same.tokens, all),
                report_percent(text ? a->near.uses : a->near.tokens, all),
                report_percent(text ? a->none.uses : a->none.tokens, all), w.advice);
    if (!report_can_end(r))
        html_raw(h, " <strong>No end of a turn is mapped</strong>: the delta cannot make the host stop.");
    html_raw(h, "</p>\n");
    if (text)
        html_printf(h, "<p class=\"soft\">Rule of thumb, on the share of the text with the same text in both "
                    "vocabularies: well from %d %%, with gaps from %d %%, badly below.</p>\n", LIMIT_GOOD, LIMIT_FAIR);
    else
        html_printf(h, "<p class=\"soft\">Rule of thumb, on the share of the vocabulary with the same text in both: "
                    "very likely from %d %%, unlikely below %d %%, and in between only a text can tell.</p>\n",
                    LIMIT_VOCAB_GOOD, LIMIT_VOCAB_FAIR);
}

static void report_sources(report *r) {
    html *h = &r->h;
    html_raw(h, "<p>Host: ");
    html_text(h, r->v->host_path);
    html_raw(h, ", ");
    html_count(h, r->v->counts.n_host);
    html_raw(h, " tokens. Delta: ");
    html_text(h, r->v->delta_path);
    html_raw(h, ", ");
    html_count(h, r->v->counts.n_delta);
    html_raw(h, " tokens. Map: ");
    if (r->v->rule)
        html_printf(h, "rule %s", r->v->rule);
    else
        html_raw(h, "read from a list");
    if (r->v->override) {
        html_raw(h, ", hand edits of ");
        html_text(h, r->v->override);
    }
    html_raw(h, r->v->counts.identity ? "; every token maps to its own id.</p>\n" : ".</p>\n");
}

/* ----------------------------------------------------------------------------------------------------- coverage */

static void report_how_bar(report *r, const char *what, bool text) {
    html_part part[STATS_HOWS];
    for (size_t i = 0; i < STATS_HOWS; i++) {
        const map_count *c = &r->s.how[report_hows[i].how];
        part[i] = (html_part){map_how_name(report_hows[i].how), (double)(text ? c->uses : c->tokens),
                              report_hows[i].tone};
    }
    html_printf(&r->h, "<p class=\"soft\">%s</p>\n", what);
    html_bar(&r->h, what, part, STATS_HOWS);
}

static void report_hows_table(report *r) {
    html *h = &r->h;
    const map_reach *a = &r->s.all;
    html_table_begin(h, "Host tokens by how they were mapped", r->s.text
                     ? "How|#Tokens|#Of vocabulary|#In text|#Of text|Meaning" : "How|#Tokens|#Of vocabulary|Meaning");
    for (size_t i = 0; i < STATS_HOWS; i++) {
        const map_count *c = &r->s.how[report_hows[i].how];
        html_raw(h, "<tr><th scope=\"row\">");
        html_swatch(h, report_hows[i].tone);
        html_printf(h, "%s</th>", map_how_name(report_hows[i].how));
        html_cell(h, c->tokens);
        html_cell_share(h, (double)c->tokens, (double)a->all.tokens);
        if (r->s.text) {
            html_cell(h, c->uses);
            html_cell_share(h, (double)c->uses, (double)a->all.uses);
        }
        html_printf(h, "<td>%s</td></tr>\n", report_hows[i].meaning);
    }
    html_table_end(h);
}

static void report_kind_row(report *r, cmc_token_kind kind) {
    html *h = &r->h;
    map_count all = {0, 0};
    for (size_t i = 0; i < STATS_HOWS; i++) {
        all.tokens += r->s.kind[kind][i].tokens;
        all.uses += r->s.kind[kind][i].uses;
    }
    if (!all.tokens)
        return;
    html_printf(h, "<tr><th scope=\"row\">%s</th>", map_kind_name(kind));
    html_cell(h, all.tokens);
    for (size_t i = 0; i < STATS_HOWS; i++)
        html_cell_share(h, (double)r->s.kind[kind][report_hows[i].how].tokens, (double)all.tokens);
    if (r->s.text) {
        html_cell(h, all.uses);
        html_cell_share(h, (double)(all.uses - r->s.kind[kind][CMC_HOW_NONE].uses), (double)all.uses);
    }
    html_raw(h, "</tr>\n");
}

static void report_coverage(report *r) {
    html *h = &r->h;
    html_raw(h, "<h2>Coverage</h2>\n");
    if (r->s.text)
        report_how_bar(r, "In the text", true);
    report_how_bar(r, "In the vocabulary", false);
    report_hows_table(r);
    html_table_begin(h, "By the kind of the host token, in per cent of that kind", r->s.text
                     ? "Kind|#Tokens|#role|#byte|#exact|#prefix|#override|#none|#In text|#Mapped in text"
                     : "Kind|#Tokens|#role|#byte|#exact|#prefix|#override|#none");
    for (size_t kind = 0; kind < STATS_KINDS; kind++)
        report_kind_row(r, (cmc_token_kind)kind);
    html_table_end(h);
}

/* ---------------------------------------------------------------------------------------------------- distances */

static void report_distance_plot(report *r, const char *what, bool text) {
    html_part part[STATS_STEPS];
    double total = 0;
    for (size_t i = 0; i < STATS_STEPS; i++) {
        const map_count *c = &r->s.distance[i];
        part[i] = (html_part){map_distance_name(i), (double)(text ? c->uses : c->tokens), TONE_NEAR};
        total += part[i].value;
    }
    if (!(total > 0))
        return;
    html_printf(&r->h, "<p class=\"soft\">%s</p>\n", what);
    html_columns(&r->h, what, part, STATS_STEPS, total);
}

static void report_distances(report *r) {
    html *h = &r->h;
    bool bytes = !r->v->rule || strcmp(r->v->rule, "reference") != 0;
    html_raw(h, "<h2>How far the prefixes reach</h2>\n");
    if (!r->s.how[CMC_HOW_PREFIX].tokens) {
        html_raw(h, "<p>No token is mapped by prefix.</p>\n");
        return;
    }
    html_printf(h, "<p>The distance is what one token has over the other, in %s.</p>\n",
                bytes ? "bytes" : "characters");
    if (r->s.text)
        report_distance_plot(r, "Of the prefix tokens in the text, by distance", true);
    report_distance_plot(r, "Of the prefix tokens in the vocabulary, by distance", false);
    html_table_begin(h, "Tokens mapped by prefix, by distance",
                     r->s.text ? "Distance|#Tokens|#In text" : "Distance|#Tokens");
    for (size_t i = 0; i < STATS_STEPS; i++) {
        html_printf(h, "<tr><th scope=\"row\">%s</th>", map_distance_name(i));
        html_cell(h, r->s.distance[i].tokens);
        if (r->s.text)
            html_cell(h, r->s.distance[i].uses);
        html_raw(h, "</tr>\n");
    }
    html_table_end(h);
}

/* --------------------------------------------------------------------------------------------------- worst matches */

/* A control token stands for no bytes: its spelling is shown. */
static void report_token(html *h, const cmc_vocab *v, int32_t id) {
    size_t n;
    const uint8_t *s = cmc_vocab_bytes(v, id, &n);
    if (!n)
        s = (const uint8_t *)cmc_vocab_spelling(v, id, &n);
    html_token(h, s, n);
}

static void report_entry_row(report *r, int32_t id) {
    html *h = &r->h;
    int32_t distance, to = cmc_map_get(r->v->map, id, NULL, &distance);
    map_words w = map_entry_words(r->v, id);
    html_printf(h, "<tr><td class=\"n\">%d</td><td>", (int)id);
    report_token(h, r->v->host, id);
    html_raw(h, "</td><td>");
    if (to >= 0)
        report_token(h, r->v->delta, to);
    else
        html_raw(h, "\xE2\x80\x93");
    html_raw(h, "</td><td>");
    html_text(h, w.text);
    if (w.rest) {
        html_raw(h, " ");
        html_token(h, w.rest, w.n_rest);
    }
    html_raw(h, "</td>");
    if (to >= 0)
        html_cell(h, distance);
    else
        html_raw(h, "<td class=\"n\">\xE2\x80\x93</td>");
    if (r->s.text)
        html_cell(h, r->s.uses[id]);
    html_raw(h, "</tr>\n");
}

static void report_entries(report *r, const char *caption, const map_list *list) {
    html *h = &r->h;
    if (!list->n)
        return;
    html_table_begin(h, caption, r->s.text ? "#Id|Host token|Delta token|How far|#Distance|#In text"
                                           : "#Id|Host token|Delta token|How far|#Distance");
    for (size_t i = 0; i < list->n; i++)
        report_entry_row(r, list->id[i]);
    html_table_end(h);
}

static void report_worst(report *r) {
    html_raw(&r->h, "<h2>Worst matches</h2>\n");
    if (r->s.text && !r->s.costly.n && !r->s.missed.n)
        html_raw(&r->h, "<p>Every token of the text reaches the delta whole.</p>\n");
    report_entries(r, "In the text, by distance times how often", &r->s.costly);
    report_entries(r, "In the text, and not mapped", &r->s.missed);
    report_entries(r, "In the vocabulary, the greatest distances", &r->s.far);
    if (!r->s.far.n)
        html_raw(&r->h, "<p>No token is mapped at a distance.</p>\n");
}

/* ------------------------------------------------------------------------------------------------------- fan-in */

static int32_t report_example(const report *r, int32_t to, int32_t after) {
    for (int32_t id = after + 1; id < r->v->counts.n_host; id++) {
        if (cmc_map_get(r->v->map, id, NULL, NULL) == to)
            return id;
    }
    return -1;
}

static void report_loaded(report *r) {
    html *h = &r->h;
    html_table_begin(h, "Delta tokens that most host tokens share", "#Id|Delta token|#Host tokens|Some of them");
    for (size_t i = 0; i < r->s.loaded.n; i++) {
        int32_t to = r->s.loaded.id[i];
        html_printf(h, "<tr><td class=\"n\">%d</td><td>", (int)to);
        report_token(h, r->v->delta, to);
        html_raw(h, "</td>");
        html_cell(h, r->s.fan_in[to]);
        html_raw(h, "<td>");
        int32_t id = -1;
        for (int k = 0; k < 4 && (id = report_example(r, to, id)) >= 0; k++) {
            report_token(h, r->v->host, id);
            html_raw(h, " ");
        }
        html_raw(h, "</td></tr>\n");
    }
    html_table_end(h);
}

static void report_fan_in(report *r) {
    html *h = &r->h;
    html_part part[STATS_STEPS];
    html_raw(h, "<h2>How many host tokens share a delta token</h2>\n"
                "<p>Host tokens that share a delta token are moved by the same amount: the delta cannot tell them "
                "apart.</p>\n<p class=\"soft\">Delta tokens by how many host tokens map to them</p>\n");
    for (size_t i = 0; i < STATS_STEPS; i++)
        part[i] = (html_part){map_fan_name(i), (double)r->s.fan[i], TONE_SAME};
    html_columns(h, "Delta tokens by how many host tokens map to them", part, STATS_STEPS, r->v->counts.n_delta);
    html_table_begin(h, "Delta tokens by how many host tokens map to them", "Host tokens|#Delta tokens");
    for (size_t i = 0; i < STATS_STEPS; i++) {
        html_printf(h, "<tr><th scope=\"row\">%s</th>", map_fan_name(i));
        html_cell(h, r->s.fan[i]);
        html_raw(h, "</tr>\n");
    }
    html_table_end(h);
    if (r->s.loaded.n)
        report_loaded(r);
}

/* ------------------------------------------------------------------------------------------------------ scripts */

typedef struct script_row { size_t script; const map_reach *reach; } script_row;

static int report_compare_scripts(const void *a, const void *b) {
    const script_row *x = a, *y = b;
    if (x->reach->all.tokens != y->reach->all.tokens)
        return x->reach->all.tokens < y->reach->all.tokens ? 1 : -1;
    return x->script < y->script ? -1 : x->script > y->script;
}

/* Unicode's names have underscores for spaces. */
static void report_script(html *h, size_t script) {
    char name[64];
    snprintf(name, sizeof name, "%s", map_script_name(script));
    for (char *c = name; *c; c++)
        *c = *c == '_' ? ' ' : *c;
    html_text(h, name);
}

/* The scripts of which more than half goes this way, in a sentence: the dozen with the most tokens by name. */
static void report_script_names(report *r, const char *sentence, const script_row *row, size_t n, bool prefix) {
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        const map_reach *reach = row[i].reach;
        bool most = 2 * (prefix ? reach->prefix.tokens : reach->none.tokens) > reach->all.tokens;
        if (!map_script_is_script(row[i].script) || !most || found++ >= 12)
            continue;
        html_raw(&r->h, found > 1 ? ", " : "<p>");
        html_raw(&r->h, found > 1 ? "" : sentence);
        report_script(&r->h, row[i].script);
    }
    if (found > 12)
        html_printf(&r->h, " and %zu more", found - 12);
    html_raw(&r->h, found ? ".</p>\n" : "");
}

static void report_script_row(report *r, const script_row *row) {
    html *h = &r->h;
    const map_reach *a = row->reach;
    const html_part part[] = {{"the same text", (double)a->same.tokens, TONE_SAME},
                              {"something near", (double)a->near.tokens, TONE_NEAR},
                              {"nothing", (double)a->none.tokens, TONE_NONE}};
    html_raw(h, "<tr><th scope=\"row\">");
    report_script(h, row->script);
    html_raw(h, "</th>");
    html_cell(h, a->all.tokens);
    html_cell_share(h, (double)a->same.tokens, (double)a->all.tokens);
    html_cell_share(h, (double)a->near.tokens, (double)a->all.tokens);
    html_cell_share(h, (double)a->none.tokens, (double)a->all.tokens);
    html_raw(h, "<td>");
    html_bar(h, map_script_name(row->script), part, 3);
    html_raw(h, "</td>");
    if (r->s.text) {
        html_cell(h, a->all.uses);
        html_cell_share(h, (double)a->same.uses, (double)a->all.uses);
    }
    html_raw(h, "</tr>\n");
}

static void report_scripts(report *r) {
    html *h = &r->h;
    size_t n = 0;
    script_row *row = calloc(map_scripts_count(), sizeof *row);
    if (!row) {
        h->bad = true;
        return;
    }
    for (size_t i = 0; i < map_scripts_count(); i++) {
        if (r->s.script[i].all.tokens)
            row[n++] = (script_row){i, &r->s.script[i]};
    }
    qsort(row, n, sizeof *row, report_compare_scripts);
    html_raw(h, "<h2>Scripts</h2>\n<p>By the script of a token's letters.</p>\n");
    report_script_names(r, "Not mapped, for the most part: ", row, n, false);
    report_script_names(r, "Reached by prefix only, for the most part: ", row, n, true);
    html_raw(h, "<p>");
    html_swatch(h, TONE_SAME);
    html_raw(h, "the same text &ensp; ");
    html_swatch(h, TONE_NEAR);
    html_raw(h, "something near &ensp; ");
    html_swatch(h, TONE_NONE);
    html_raw(h, "nothing</p>\n");
    html_table_begin(h, "The host's tokens by script", r->s.text
                     ? "Script|#Tokens|#Same text|#Near|#None|Shares|#In text|#Same text in it"
                     : "Script|#Tokens|#Same text|#Near|#None|Shares");
    for (size_t i = 0; i < n; i++)
        report_script_row(r, &row[i]);
    html_table_end(h);
    free(row);
}

/* -------------------------------------------------------------------------------------------------------- page */

int map_report_html(const map_view *v, const cmc_ids *ids, const char *text_path, const char *file) {
    report r = {.v = v, .text_path = text_path && strcmp(text_path, "-") == 0 ? "standard input" : text_path};
    int rc = map_stats_make(v, ids, &r.s);
    if (rc)
        return rc;
    char *title = NULL;
    if (asprintf(&title, "Token map: %s \xE2\x86\x92 %s", cli_file_name(v->host_path),
                 cli_file_name(v->delta_path)) < 0) {
        map_stats_free(&r.s);
        return cli_no_memory();
    }
    html_begin(&r.h, title);
    free(title);
    report_verdict(&r);
    report_sources(&r);
    report_coverage(&r);
    report_scripts(&r);
    report_worst(&r);
    report_distances(&r);
    report_fan_in(&r);
    html_end(&r.h);
    map_stats_free(&r.s);
    return html_write(&r.h, file);
}
