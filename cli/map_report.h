/* The page that `cmc map --report FILE.html` writes. */
#ifndef CMC_CLI_MAP_REPORT_H
#define CMC_CLI_MAP_REPORT_H
#include "cli/map_stats.h"

bool map_report_is_html(const char *file);    /* by its name */
/* Whole or not at all; gives the exit status. `text_path`: what `ids` are the tokens of, NULL without a text. */
int map_report_html(const map_view *v, const cmc_ids *ids, const char *text_path, const char *file);
#endif
