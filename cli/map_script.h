/* Which script a token is written in, by the Unicode property Script of its letters. */
#ifndef CMC_CLI_MAP_SCRIPT_H
#define CMC_CLI_MAP_SCRIPT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct map_scripts map_scripts;

/* NULL where memory is out, or PCRE2 lacks Unicode. */
map_scripts *map_scripts_new(void);
void map_scripts_free(map_scripts *s);
size_t map_scripts_count(void);
const char *map_script_name(size_t script);       /* script < map_scripts_count() */
bool map_script_is_script(size_t script);         /* and no group such as "digits" */
/* The script of all letters and marks, or one of the groups "several scripts", "digits", "white space",
 * "punctuation and symbols", "parts of characters" and "no text" (no bytes). */
size_t map_script_of(const map_scripts *s, const uint8_t *bytes, size_t n);
#endif
