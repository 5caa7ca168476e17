/* White space as Unicode has it, and all else, as insides of a PCRE2 class (\s counts U+180E too, which is none since
 * Unicode 6.3). */
#ifndef CMC_TOKENMAP_REGEX_SPACE_H
#define CMC_TOKENMAP_REGEX_SPACE_H

#define WS "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_WS                                                                                                         \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x84\\x86-\\x9f\\xa1-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"                \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#endif
