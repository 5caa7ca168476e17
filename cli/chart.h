/* Line charts as inline SVG, with axes, for pages that html.h builds. */
#ifndef CMC_CLI_CHART_H
#define CMC_CLI_CHART_H
#include "cli/html.h"

/* Points in ascending x. Those that are not finite are left out and part the line. */
typedef struct chart_line {
    const char *name;         /* in the legend; NULL: not there */
    const double *x, *y;
    size_t n;
    const double *lo, *hi;    /* [n] an interval about every point, drawn as a bar; NULL: none */
    int tone;                 /* 1 to HTML_TONES */
    bool faint, dots;         /* thin and pale; a dot at every point */
} chart_line;

typedef struct chart {
    const char *title, *x_name;
    const chart_line *lines;
    size_t n_lines;
    bool from_zero;           /* the y axis begins at 0 */
    bool small;               /* about half as wide, and its title a line of text instead of a heading */
    bool outliers;            /* the highest 1 % of faint points may lie above the plot: they are cut off */
} chart;

/* Nothing where no line has a point. */
void html_chart(html *h, const chart *c);
#endif
