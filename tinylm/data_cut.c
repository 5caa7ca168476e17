/* Cuts at random places: what a delta meets where a host's token ends inside one of its own. */
#include "base/utf8.h"
#include "tinylm/data.h"
#include "tinylm/params.h"

/* Borders between two characters inside the text. */
static size_t cut_places(const char *s, size_t n) {
    size_t chars = cmc_utf8_count((const uint8_t *)s, n);
    return chars > 0 ? chars - 1 : 0;
}

/* Where the character after border k begins. */
static size_t cut_offset(const char *s, size_t n, size_t k) {
    size_t at = 0, len;
    for (size_t i = 0; i <= k; i++, at += len)
        cmc_utf8_decode((const uint8_t *)s + at, n - at, &len);
    return at;
}

bool data_cut_draw(const data_opts *o, const cmc_record *r, size_t number, render_cut *out) {
    uint64_t rng = o->seed * 0x9E3779B97F4A7C15u + (uint64_t)number;
    params_random(&rng);
    double x = (double)(params_random(&rng) >> 11) * 0x1p-53;
    size_t places = r->text ? cut_places(r->text, r->text_len) : 0;
    for (size_t i = 0; i < r->n_messages; i++)
        if (r->messages[i].role == CMC_ASSISTANT)
            places += cut_places(r->messages[i].text, r->messages[i].len);
    if (x >= o->cuts || places == 0)
        return false;
    size_t k = (size_t)(params_random(&rng) % places);
    if (r->text) {
        *out = (render_cut){0, cut_offset(r->text, r->text_len, k)};
        return true;
    }
    for (size_t i = 0; i < r->n_messages; i++) {
        const cmc_message *m = &r->messages[i];
        size_t here = m->role == CMC_ASSISTANT ? cut_places(m->text, m->len) : 0;
        if (k < here) {
            *out = (render_cut){i, cut_offset(m->text, m->len, k)};
            return true;
        }
        k -= here;
    }
    return false;
}
