/* Status and messages. Every failing path ends in one call of cmc_fail. */
#ifndef CMC_BASE_ERROR_H
#define CMC_BASE_ERROR_H
#include "cmc.h"

#if defined(__GNUC__)
#define CMC_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#define CMC_PRINTF(a, b)
#endif

/* Fills err (which may be NULL) and returns status: one can `return cmc_fail(err, CMC_E_FORMAT, "%s: ...", path)`. */
cmc_status cmc_fail(cmc_error *err, cmc_status status, const char *fmt, ...) CMC_PRINTF(3, 4);
/* CMC_E_NOMEM with a message that names what was wanted. */
cmc_status cmc_fail_nomem(cmc_error *err, const char *what, size_t bytes);

/* Runs an expression that gives a status and hands a failure on to the caller of the enclosing function. */
#define CMC_TRY(expr) do { cmc_status try_status_ = (expr); if (try_status_ != CMC_OK) return try_status_; } while (0)
#endif
