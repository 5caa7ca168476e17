/* JSON output: objects that remember a failed allocation until they are written. */
#ifndef CMC_CLI_JSON_H
#define CMC_CLI_JSON_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An object or array being built. A NULL value, or memory that runs out, marks it bad; the functions below then do
 * nothing more, and jout fails. */
typedef struct jbuild { json_t *j; bool bad; } jbuild;

jbuild jobject(void);
jbuild jarray(void);
void jset(jbuild *o, const char *key, json_t *value);    /* takes the value over */
void jset_built(jbuild *o, const char *key, jbuild value);
void jset_int(jbuild *o, const char *key, int64_t v);
void jset_real(jbuild *o, const char *key, double v);    /* null where it is not finite */
void jset_text(jbuild *o, const char *key, const char *s, size_t n);
void jset_string(jbuild *o, const char *key, const char *s);
void jadd(jbuild *a, json_t *value);
void jadd_built(jbuild *a, jbuild value);
/* It as one line without a newline, the caller's, and frees it; NULL where it is bad. */
char *jline(jbuild o);
/* Writes it as one line on standard output and frees it; gives the exit status. */
int jout(jbuild o);
/* Writes it as an indented file, whole or not at all, and frees it; gives the exit status. */
int jwrite(jbuild o, const char *path);
void jdrop(jbuild o);

json_t *jreal(double v);                           /* null where it is not finite */
json_t *jfloat(float v);                           /* as few digits as give the float back */
json_t *jids(const int32_t *v, size_t n);
json_t *jtext(const char *s, size_t n);            /* a string; bytes that are not UTF-8 become U+FFFD */
json_t *jpiece(const uint8_t *s, size_t n);        /* a string, or a list of byte values where it is not UTF-8 */
#endif
