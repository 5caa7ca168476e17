/* Line charts: ranges, ticks at round numbers, lines thinned out to what can be seen. */
#include "cli/chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 900, HEIGHT = 260, SMALL_WIDTH = 480, SMALL_HEIGHT = 170, LEFT = 70, SMALL_LEFT = 52, RIGHT = 12, TOP = 12, FOOT = 40,
       BUCKETS = 450, TICKS = 6 };

typedef struct chart_range { double lo, hi; } chart_range;

typedef struct chart_view {
    html *h;
    const chart *c;
    chart_range x, y;
    int left, width, height;   /* of the plot within its axes */
} chart_view;

/* ------------------------------------------------------------------------------------------------------ ranges */

static bool chart_ok(const chart_line *l, size_t i) {
    return isfinite(l->x[i]) && isfinite(l->y[i]);
}

static bool chart_has_interval(const chart_line *l, size_t i) {
    return l->lo && isfinite(l->lo[i]) && isfinite(l->hi[i]);
}

static void range_add(chart_range *r, double v) {
    r->lo = v < r->lo ? v : r->lo;
    r->hi = v > r->hi ? v : r->hi;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The line's values without the highest hundredth; false where memory is out. */
static bool range_most(chart_range *r, const chart_line *l) {
    double *v = malloc((l->n ? l->n : 1) * sizeof *v);
    size_t n = 0;
    if (!v)
        return false;
    for (size_t i = 0; i < l->n; i++) {
        if (chart_ok(l, i))
            v[n++] = l->y[i];
    }
    qsort(v, n, sizeof *v, compare_doubles);
    if (n) {
        range_add(r, v[0]);
        range_add(r, v[n - 1 - n / 100]);
    }
    free(v);
    return true;
}

/* A range that one can draw: not empty, with a little air. */
static void range_settle(chart_range *r, bool from_zero) {
    if (from_zero && r->lo > 0)
        r->lo = 0;
    double air = (r->hi - r->lo) * 0.04;
    if (!(air > 0))
        air = r->hi != 0 ? fabs(r->hi) * 0.05 : 1;
    r->hi += air;
    if (!from_zero || r->lo < 0)
        r->lo -= air;
}

static bool chart_ranges(chart_view *v) {
    v->x = v->y = (chart_range){HUGE_VAL, -HUGE_VAL};
    for (size_t k = 0; k < v->c->n_lines; k++) {
        const chart_line *l = &v->c->lines[k];
        bool cut = v->c->outliers && l->faint;
        for (size_t i = 0; i < l->n; i++) {
            if (!chart_ok(l, i))
                continue;
            range_add(&v->x, l->x[i]);
            if (!cut)
                range_add(&v->y, l->y[i]);
            if (chart_has_interval(l, i)) {
                range_add(&v->y, l->lo[i]);
                range_add(&v->y, l->hi[i]);
            }
        }
        if (cut && !range_most(&v->y, l))
            v->h->bad = true;
    }
    if (!(v->x.lo <= v->x.hi) || !(v->y.lo <= v->y.hi))
        return false;
    if (v->x.lo == v->x.hi)
        v->x = (chart_range){v->x.lo - 1, v->x.hi + 1};
    range_settle(&v->y, v->c->from_zero);
    return true;
}

static double chart_x(const chart_view *v, double x) {
    return v->left + v->width * (x - v->x.lo) / (v->x.hi - v->x.lo);
}

static double chart_y(const chart_view *v, double y) {
    double at = TOP + v->height * (v->y.hi - y) / (v->y.hi - v->y.lo);
    return at < TOP ? TOP : at > TOP + v->height ? TOP + v->height : at;
}

/* ------------------------------------------------------------------------------------------------------- axes */

/* 1, 2 or 5 times a power of ten: so that there are at most TICKS of them. */
static double tick_step(chart_range r, bool whole) {
    double rough = (r.hi - r.lo) / TICKS, unit = pow(10, floor(log10(rough)));
    double step = rough <= unit ? unit : rough <= 2 * unit ? 2 * unit : rough <= 5 * unit ? 5 * unit : 10 * unit;
    return whole && step < 1 ? 1 : step;
}

/* As many decimals as the step has; very small and very large ones with an exponent. */
static void tick_text(html *h, double value, double step) {
    int decimals = (int)ceil(-log10(step) - 1e-9);
    if (fabs(value) < step / 2)
        value = 0;
    if (decimals > 4 || step >= 1e6)
        html_printf(h, value == 0 ? "0" : "%.3g", value);
    else
        html_printf(h, "%.*f", decimals > 0 ? decimals : 0, value);
}

/* Whether x counts something: ticks between whole numbers would be of no use. */
static bool chart_counts(const chart *c) {
    for (size_t k = 0; k < c->n_lines; k++) {
        for (size_t i = 0; i < c->lines[k].n; i++) {
            if (chart_ok(&c->lines[k], i) && c->lines[k].x[i] != floor(c->lines[k].x[i]))
                return false;
        }
    }
    return true;
}

static void chart_axes(chart_view *v) {
    html *h = v->h;
    double step = tick_step(v->y, false);
    for (double y = ceil(v->y.lo / step) * step; y <= v->y.hi; y += step) {
        double at = chart_y(v, y);
        html_printf(h, "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", v->left, v->left + v->width, at, at);
        html_printf(h, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", v->left - 8, at + 4);
        tick_text(h, y, step);
        html_raw(h, "</text>");
    }
    step = tick_step(v->x, chart_counts(v->c));
    for (double x = ceil(v->x.lo / step) * step; x <= v->x.hi; x += step) {
        double at = chart_x(v, x);
        html_printf(h, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">", at, TOP + v->height + 18);
        tick_text(h, x, step);
        html_raw(h, "</text>");
    }
    html_printf(h, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", v->left + v->width / 2, TOP + v->height + FOOT - 4);
    html_text(h, v->c->x_name);
    html_raw(h, "</text>\n");
}

/* ------------------------------------------------------------------------------------------------------ lines */

static void line_point(chart_view *v, const chart_line *l, size_t i, bool *drawing) {
    html_printf(v->h, "%s%.1f %.1f", *drawing ? "L" : "M", chart_x(v, l->x[i]), chart_y(v, l->y[i]));
    *drawing = true;
}

/* Of more points than can be told apart, the lowest and the highest in each of BUCKETS parts. */
static void line_thinned(chart_view *v, const chart_line *l, bool *drawing) {
    for (size_t b = 0; b < BUCKETS; b++) {
        size_t first = l->n * b / BUCKETS, end = l->n * (b + 1) / BUCKETS, lo = SIZE_MAX, hi = SIZE_MAX;
        for (size_t i = first; i < end; i++) {
            if (!chart_ok(l, i))
                continue;
            lo = lo == SIZE_MAX || l->y[i] < l->y[lo] ? i : lo;
            hi = hi == SIZE_MAX || l->y[i] > l->y[hi] ? i : hi;
        }
        if (lo == SIZE_MAX) {
            *drawing = false;
            continue;
        }
        line_point(v, l, lo < hi ? lo : hi, drawing);
        if (lo != hi)
            line_point(v, l, lo < hi ? hi : lo, drawing);
    }
}

static void chart_intervals(chart_view *v, const chart_line *l) {
    for (size_t i = 0; i < l->n; i++) {
        if (chart_ok(l, i) && chart_has_interval(l, i))
            html_printf(v->h, "<path d=\"M%.1f %.1fV%.1f\" style=\"stroke:var(--t%d);stroke-width:5;stroke-opacity:.35\"/>",
                        chart_x(v, l->x[i]), chart_y(v, l->lo[i]), chart_y(v, l->hi[i]), l->tone);
    }
}

static void chart_draw(chart_view *v, const chart_line *l) {
    bool drawing = false;
    chart_intervals(v, l);
    html_printf(v->h, "<path d=\"");
    if (l->n > 2 * BUCKETS) {
        line_thinned(v, l, &drawing);
    } else {
        for (size_t i = 0; i < l->n; i++) {
            if (chart_ok(l, i))
                line_point(v, l, i, &drawing);
            else
                drawing = false;
        }
    }
    html_printf(v->h, "\" style=\"fill:none;stroke:var(--t%d);stroke-width:%s;stroke-opacity:%s;stroke-linejoin:round\"/>",
                l->tone, l->faint ? "1" : "2", l->faint ? ".45" : "1");
    for (size_t i = 0; l->dots && l->n <= BUCKETS && i < l->n; i++) {
        if (chart_ok(l, i))
            html_printf(v->h, "<circle class=\"f%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>%.6g: %.6g</title></circle>",
                        l->tone, chart_x(v, l->x[i]), chart_y(v, l->y[i]), l->x[i], l->y[i]);
    }
    html_raw(v->h, "\n");
}

static void chart_legend(html *h, const chart *c) {
    size_t named = 0;
    for (size_t k = 0; k < c->n_lines; k++)
        named += c->lines[k].name && c->lines[k].n;
    if (!named)
        return;
    html_raw(h, "<p class=\"soft\">");
    for (size_t k = 0; k < c->n_lines; k++) {
        const chart_line *l = &c->lines[k];
        if (!l->name || !l->n)
            continue;
        html_raw(h, l->faint ? "<span style=\"opacity:.5\">" : "<span>");
        html_swatch(h, l->tone);
        html_raw(h, "</span>");
        html_text(h, l->name);
        html_raw(h, " &ensp; ");
    }
    html_raw(h, "</p>\n");
}

void html_chart(html *h, const chart *c) {
    int width = c->small ? SMALL_WIDTH : WIDTH, height = c->small ? SMALL_HEIGHT : HEIGHT, left = c->small ? SMALL_LEFT : LEFT;
    chart_view v = {.h = h, .c = c, .left = left, .width = width - left - RIGHT, .height = height - TOP - FOOT};
    if (!chart_ranges(&v))
        return;
    html_raw(h, c->small ? "<p class=\"soft\">" : "<h2>");
    html_text(h, c->title);
    html_raw(h, c->small ? "</p>\n" : "</h2>\n");
    chart_legend(h, c);
    html_printf(h, "<svg width=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", width, width, height);
    html_text(h, c->title);
    html_raw(h, "\">\n");
    chart_axes(&v);
    for (size_t k = 0; k < c->n_lines; k++) {
        if (c->lines[k].n)
            chart_draw(&v, &c->lines[k]);
    }
    html_raw(h, "</svg>\n");
}
