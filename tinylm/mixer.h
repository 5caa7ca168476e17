/* Another frozen model whose distribution is mixed into the host's while training (perturb.h), or is what the steered host is
 * to have (objective distil). It reads the same text in its
 * own tokens, as a delta would; where it stands at one of the host's targets is what align.h says, and its states there are
 * evaluated once and kept, as a host's are. */
#ifndef CMC_TINYLM_MIXER_H
#define CMC_TINYLM_MIXER_H
#include "tinylm/train.h"

/* Opens the model and the map to it, as t->mix. */
cmc_status mixer_open(train *t, cmc_error *err);
/* Its data, when the host's is there, and t->mix_row. */
cmc_status mixer_data(train *t, cmc_error *err);
#endif
