/* Guards inside the library: their settings, and where in a response the deltas steer. */
#ifndef CMC_RUNTIME_GUARD_H
#define CMC_RUNTIME_GUARD_H
#include "base/error.h"
#include "tokenmap/map.h"

/* A steering's guards, checked, its texts its own. */
typedef struct guards {
    cmc_guards set;
    shift_bounds bounds;
    bool bounded;            /* there are any */
} guards;

/* opts NULL: none. CMC_E_ARG where a setting is out of range. */
cmc_status guards_init(guards *g, const cmc_guards *opts, cmc_error *err);
void guards_free(guards *g);

/* Where a response stands: one for each. */
typedef struct gate {
    const cmc_guards *set;
    const char *lead;        /* what may stand before the response proper: "" or " " */
    bool begun;              /* it has a byte */
    bool open;
    size_t matched;          /* bytes of the marker looked for that the response ends with */
    size_t token;            /* tokens since it opened */
} gate;

gate gate_start(const guards *g, const char *lead);
/* The response's next token, by its bytes. */
void gate_push(gate *g, const uint8_t *s, size_t n);
/* What the deltas' strengths are to be multiplied by for the token after those pushed; 1 where no guard says otherwise. */
double gate_scale(const gate *g);
#endif
