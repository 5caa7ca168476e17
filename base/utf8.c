/* UTF-8: strict decoding (Unicode 15, table 3-7), encoding, where a text can be cut, and what is white space. */
#include "base/utf8.h"

#include <string.h>

/* What a lead byte asks for: the character's length (0: no lead byte) and the range of the second byte, which is where
 * overlong forms, surrogates and code points past U+10FFFF show. */
static size_t utf8_lead(uint8_t lead, uint8_t *lo, uint8_t *hi) {
    *lo = 0x80;
    *hi = 0xbf;
    if (lead < 0x80) {
        return 1;
    }
    if (lead >= 0xc2 && lead <= 0xdf) {
        return 2;
    }
    if (lead >= 0xe0 && lead <= 0xef) {
        *lo = lead == 0xe0 ? 0xa0 : 0x80;
        *hi = lead == 0xed ? 0x9f : 0xbf;
        return 3;
    }
    if (lead >= 0xf0 && lead <= 0xf4) {
        *lo = lead == 0xf0 ? 0x90 : 0x80;
        *hi = lead == 0xf4 ? 0x8f : 0xbf;
        return 4;
    }
    return 0;
}

int32_t cmc_utf8_decode(const uint8_t *s, size_t n, size_t *len) {
    static const uint8_t lead_bits[5] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint8_t lo, hi;
    size_t want = utf8_lead(s[0], &lo, &hi);
    *len = 1;
    if (want == 0) {
        return -1;
    }
    int32_t cp = s[0] & lead_bits[want];
    for (size_t i = 1; i < want; i++) {
        if (i == n) {
            *len = n;
            return -2;
        }
        if (s[i] < lo || s[i] > hi) {
            return -1;
        }
        cp = (cp << 6) | (s[i] & 0x3f);
        lo = 0x80;
        hi = 0xbf;
    }
    *len = want;
    return cp;
}

size_t cmc_utf8_encode(int32_t cp, uint8_t out[4]) {
    if (cp < 0 || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) {
        return 0;
    }
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (uint8_t)(0xc0 | (cp >> 6));
        out[1] = (uint8_t)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (uint8_t)(0xe0 | (cp >> 12));
        out[1] = (uint8_t)(0x80 | ((cp >> 6) & 0x3f));
        out[2] = (uint8_t)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | (cp >> 18));
    out[1] = (uint8_t)(0x80 | ((cp >> 12) & 0x3f));
    out[2] = (uint8_t)(0x80 | ((cp >> 6) & 0x3f));
    out[3] = (uint8_t)(0x80 | (cp & 0x3f));
    return 4;
}

bool cmc_utf8_valid(const uint8_t *s, size_t n) {
    size_t len;
    for (size_t i = 0; i < n; i += len) {
        if (cmc_utf8_decode(s + i, n - i, &len) < 0) {
            return false;
        }
    }
    return true;
}

size_t cmc_utf8_whole(const uint8_t *s, size_t n) {
    /* A lead byte is never part of an earlier character, so the last one among the final three bytes decides. */
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        uint8_t c = s[n - back];
        if ((c & 0xc0) == 0x80) {
            continue;
        }
        size_t len;
        return cmc_utf8_decode(s + n - back, back, &len) == -2 ? n - back : n;
    }
    return n;
}

size_t cmc_utf8_count(const uint8_t *s, size_t n) {
    size_t count = 0, len;
    for (size_t i = 0; i < n; i += len, count++) {
        if (cmc_utf8_decode(s + i, n - i, &len) == -2) {
            len = 1; /* each byte of a cut character counts, as each byte of a broken one does */
        }
    }
    return count;
}

bool cmc_utf8_is_space(int32_t cp) {
    return (cp >= 0x09 && cp <= 0x0d) || cp == 0x20 || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f ||
           cp == 0x3000;
}

size_t cmc_utf8_mark(const void *data, size_t size) {
    return size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
}
