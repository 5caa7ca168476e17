/* UTF-8 as a stranger writes it. */
#ifndef CMC_BASE_UTF8_H
#define CMC_BASE_UTF8_H
#include "cmc.h"

/* Decodes one character at s[0..n), n > 0. Valid: its code point, *len its length. Invalid: -1 and *len = 1. Unfinished
 * (a valid beginning that the end cuts): -2 and *len = n. Overlong forms, surrogates and > U+10FFFF are invalid. */
int32_t cmc_utf8_decode(const uint8_t *s, size_t n, size_t *len);
size_t cmc_utf8_encode(int32_t cp, uint8_t out[4]);   /* length, 0 if cp is no scalar value */
bool cmc_utf8_valid(const uint8_t *s, size_t n);
/* Length of the longest prefix that does not end inside an unfinished character. */
size_t cmc_utf8_whole(const uint8_t *s, size_t n);
size_t cmc_utf8_count(const uint8_t *s, size_t n);    /* characters; an invalid byte counts as one */
bool cmc_utf8_is_space(int32_t cp);                   /* Unicode's White_Space */
/* Bytes of the byte order mark that a text begins with: 3, or 0 where there is none. */
size_t cmc_utf8_mark(const void *data, size_t size);
#endif
