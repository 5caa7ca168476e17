/* The JSON objects of a file, one a line or a list of them, for what cmc_records_read leaves aside. */
#ifndef CMC_CLI_JSONL_H
#define CMC_CLI_JSONL_H
#include <jansson.h>

#include "cli/cli.h"

typedef struct jsonl {
    const char *path;
    json_t **v;                /* [n] objects */
    long *line;                /* [n], from 1; 0 in a list */
    size_t n, cap;
} jsonl;

/* Gives an exit status; on failure everything is reported and freed. */
int jsonl_read(const char *path, jsonl *out);
void jsonl_close(jsonl *j);
/* "cmc: FILE: record N (line L): what"; gives CLI_FAILED. */
int jsonl_failed(const jsonl *j, size_t i, const char *fmt, ...) CLI_PRINTF(3, 4);
#endif
