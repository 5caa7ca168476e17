/* Regular expressions as tokenizer files spell them (Oniguruma's Ruby syntax), run by PCRE2. Only what means the same
 * in both, or can be translated, is taken; anything else is refused by name. */
#ifndef CMC_TOKENMAP_REGEX_H
#define CMC_TOKENMAP_REGEX_H
#include "cmc.h"

typedef struct regex regex;                   /* immutable: may be shared by threads */
typedef struct regex_scratch regex_scratch;   /* what one thread needs to match */

cmc_status regex_new(const char *pattern, size_t n, const char *path, regex **out, cmc_error *err);
void regex_free(regex *r);
regex_scratch *regex_scratch_new(void);
void regex_scratch_free(regex_scratch *sc);

/* The first match in s[0..n), valid UTF-8, that begins at `from` or later: *found, and where it lies. Fails with
 * CMC_E_RANGE where PCRE2's limit on steps is passed. */
cmc_status regex_find(const regex *r, regex_scratch *sc, const uint8_t *s, size_t n, size_t from, bool *found,
                      size_t *begin, size_t *end, cmc_error *err);

/* The translation: PCRE2's pattern (to be freed), NUL-terminated. */
cmc_status regex_translate(const char *pattern, size_t n, const char *path, char **out, cmc_error *err);
#endif
