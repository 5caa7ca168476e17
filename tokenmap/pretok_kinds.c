/* The table of pre-tokenizers: the names that GGUF files use, and the expressions of the tokenizers behind them.
 *
 * The expressions are those of the models' own tokenizer.json, where llama.cpp had to replace one by what its matcher
 * can do (no case folding, no \p{Lu}); the digits, letters and punctuation of Hugging Face's Digits, ByteLevel and
 * Punctuation are spelled out. */
#include "tokenmap/pretok_kinds.h"

#include <stddef.h>
#include <string.h>

#include "tokenmap/regex_space.h"

#define SPACE "[" WS "]"
#define NOT_SPACE "[^" WS "]"
#define TRAILING_SPACE SPACE "+(?!" NOT_SPACE ")|" SPACE "+"

/* ---- ByteLevel of GPT-2 */
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" TRAILING_SPACE

static const char *const GPT2_STAGES[] = {GPT2, NULL};
static const char *const DIGITS_GPT2[] = {"\\p{N}", GPT2, NULL};
/* llama.cpp's choice for files that name none. */
static const char *const DEFAULT[] = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]", NULL};
static const char *const FALCON[] = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]", NULL};
static const char *const CHAMELEON[] = {
    "<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]", GPT2, NULL,
};

/* ---- the family of cl100k, which differs in digits and line breaks */
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LETTERS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SYMBOLS " ?[^" WS "\\p{L}\\p{N}]+"
#define NEWLINES SPACE "*[\\r\\n]+"
#define CL100K_REST(digits) LETTERS "|\\p{N}" digits "|" SYMBOLS "[\\r\\n]*|" NEWLINES "|" TRAILING_SPACE
#define CL100K(digits) CONTRACTION "|" CL100K_REST(digits)
#define LINES "[^\\n]+|\\n+"

static const char *const LLAMA3[] = {CL100K("{1,3}"), NULL};
static const char *const QWEN2[] = {CL100K(""), NULL};
static const char *const MINICPM5[] = {"\\p{N}{1,3}", CL100K("+"), NULL};
static const char *const UFAKZEKA[] = {CL100K_REST(""), NULL};
static const char *const LAGUNA[] = {LINES, CL100K(""), NULL};
static const char *const QWEN35[] = {
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" WS "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" NEWLINES "|"
    TRAILING_SPACE, NULL,
};
static const char *const SEED_CODER[] = {
    CONTRACTION "|" LETTERS "|\\p{N}| ?[^" WS "\\p{L}\\p{N}\\r\\n]+|" NEWLINES "|" TRAILING_SPACE, NULL,
};
static const char *const BAILING[] = {
    "'(?i:[sdmt]|ll|ve|re)|" LETTERS "|\\p{N}|" SYMBOLS "[\\r\\n]*|" SPACE "*[\\r\\n]|" TRAILING_SPACE, NULL,
};
static const char *const EXAONE_MOE[] = {
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}|" SYMBOLS "[\\r\\n/]?|" SPACE
    "*[\\r\\n]|" TRAILING_SPACE, NULL,
};
#define RUN(n) SPACE "{" n "}(?!" NOT_SPACE ")|"
static const char *const JAIS2[] = {
    CONTRACTION "|" LETTERS "|\\p{N}{1,3}|" SYMBOLS "[\\r\\n]*|" NEWLINES "|" RUN("512") RUN("256") RUN("128") RUN("64")
    RUN("32") RUN("16") RUN("8") RUN("4") RUN("1,2") SPACE, NULL,
};

/* ---- the family of o200k: a word is capitals and then small letters, and takes its contraction along */
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define CASED(before, tail) \
    "[^\\r\\n\\p{L}\\p{N}]?(?:" before "[" UPPER "])*(?:" before "[" LOWER "])+" tail \
    "|[^\\r\\n\\p{L}\\p{N}]?(?:" before "[" UPPER "])+(?:" before "[" LOWER "])*" tail
#define O200K(tail, digits) CASED("", tail) "|\\p{N}" digits "|" SYMBOLS "[\\r\\n/]*|" NEWLINES "|" TRAILING_SPACE

static const char *const GPT4O[] = {O200K(CONTRACTION "?", "{1,3}"), NULL};
static const char *const TEKKEN[] = {O200K("", ""), NULL};
static const char *const KIMI[] = {
    "\\p{Han}+|" CASED("(?!\\p{Han})", CONTRACTION "?") "|\\p{N}{1,3}|" SYMBOLS "[\\r\\n]*|" NEWLINES "|"
    TRAILING_SPACE, NULL,
};
#define CJK "\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}"
static const char *const YOUTU[] = {
    "[\\x{ac00}-\\x{d7a3}\\x{3131}-\\x{318e}]+"
    "|[\\x{ff01}\\x{2026}\\x{201c}\\x{201d}\\x{2018}\\x{2019}\\x{2014}\\x{ff1a}\\x{ff1b}\\x{ff0c}\\x{3001}-\\x{303f}"
    "\\x{fe30}-\\x{fe4f}]+|[\\x{3105}-\\x{312f}]+|[" CJK "]+",
    O200K(CONTRACTION "?", ""), NULL,
};
/* Digits in groups of three, counted from the right. Its \b looks at Unicode's word characters. */
static const char *const TINY_AYA[] = {
    "\\p{Nd}{1,3}(?=(?:\\p{Nd}{3})*+(?![\\p{L}\\p{M}\\p{N}\\p{Pc}]))", O200K(CONTRACTION "?", "{1,3}"), NULL,
};

/* ---- DeepSeek's */
#define DEEPSEEK_WORDS \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+" \
    "| ?[\\p{P}\\p{S}]+"
#define CJK_HANGUL "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
/* Letters that have a case, as of Unicode 12. */
#define CASED_LETTERS \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}" \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}" \
    "\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}" \
    "\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}" \
    "\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}" \
    "\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}" \
    "\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}" \
    "\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}" \
    "\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}" \
    "\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}" \
    "\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}" \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}" \
    "\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}" \
    "\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

static const char *const DEEPSEEK_LLM[] = {
    "[\\r\\n]", SPACE "?[" CASED_LETTERS "]+",
    SPACE "?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
    SPACE "+$", CJK_HANGUL, "\\p{N}+", NULL,
};
static const char *const DEEPSEEK_CODER[] = {
    "[\\r\\n]", SPACE "?\\p{L}+", SPACE "?\\p{P}+", CJK_HANGUL, "\\p{N}", NULL,
};
static const char *const DEEPSEEK3[] = {
    "\\p{N}{1,3}", "[" CJK "]+", DEEPSEEK_WORDS "[\\r\\n]*|" NEWLINES "|" TRAILING_SPACE, NULL,
};
static const char *const SPARK[] = {
    "\\p{N}{1,3}", "[" CJK "]+", DEEPSEEK_WORDS "|[\\r\\n]|" TRAILING_SPACE, "\\p{N}", NULL,
};
static const char *const AFMOE[] = {
    "\\p{N}{1,3}(?=(?:\\p{N}{3})*+(?!\\p{N}))",
    "[\\x{4e00}-\\x{9fff}\\x{3400}-\\x{4dbf}\\x{f900}-\\x{faff}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}"
    "\\x{ff65}-\\x{ff9f}\\x{2f00}-\\x{2fdf}\\x{e40}-\\x{e7f}\\x{e80}-\\x{eff}\\x{1780}-\\x{17ff}\\x{1000}-\\x{109f}"
    "\\x{aa60}-\\x{aa7f}\\x{a9e0}-\\x{a9ff}\\x{ac00}-\\x{d7af}\\x{1100}-\\x{11ff}]+",
    DEEPSEEK_WORDS "[\\r\\n]*|" NEWLINES "|" TRAILING_SPACE, NULL,
};

/* ---- others */
/* A word with the space before it; punctuation and further spaces are what is left over. */
#define BLOOM_WORD \
    " ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"
static const char *const BLOOM[] = {BLOOM_WORD, NULL};
static const char *const VIKING[] = {BLOOM_WORD, "\\p{N}", NULL};
/* The original's second expression matches nothing, before every third digit from the right; this one takes what lies
 * between two such places. */
static const char *const SUPERBPE[] = {"\\p{N}+", "(?s:.+?)(?=(?:\\p{Nd}{3})++(?!\\p{Nd})|\\z)", NULL};
/* Gemma's tokenizer merges within the whole text. Its tokens of line breaks hold nothing else, so lines are apart. */
static const char *const LINE_STAGES[] = {LINES, NULL};

static const pretok_kind KINDS[] = {
    {"default", false, false, false, DEFAULT},

    {"gpt-2", false, false, false, GPT2_STAGES},
    {"gpt2", false, false, false, GPT2_STAGES},
    {"a.x-4.0", false, false, false, GPT2_STAGES},
    {"exaone4", false, false, false, GPT2_STAGES},
    {"gigachat", false, false, false, GPT2_STAGES},
    {"granite-docling", false, false, false, GPT2_STAGES},
    {"jais", false, false, false, GPT2_STAGES},
    {"jina-de", false, false, false, GPT2_STAGES},
    {"jina-es", false, false, false, GPT2_STAGES},
    {"jina-v1-en", false, false, false, GPT2_STAGES},
    {"jina-v2-code", false, false, false, GPT2_STAGES},
    {"jina-v2-de", false, false, false, GPT2_STAGES},
    {"jina-v2-es", false, false, false, GPT2_STAGES},
    {"mellum", false, false, false, GPT2_STAGES},
    {"modern-bert", false, false, false, GPT2_STAGES},
    {"mpt", false, false, false, GPT2_STAGES},
    {"olmo", false, false, false, GPT2_STAGES},
    {"phi-2", false, false, false, GPT2_STAGES},
    {"roberta-bpe", false, false, false, GPT2_STAGES},
    {"trillion", false, false, false, GPT2_STAGES},

    {"codeshell", false, false, false, DIGITS_GPT2},
    {"command-r", false, false, false, DIGITS_GPT2},
    {"exaone", false, false, false, DIGITS_GPT2},
    {"mellum2", false, false, false, DIGITS_GPT2},
    {"minerva-7b", false, false, false, DIGITS_GPT2},
    {"refact", false, false, false, DIGITS_GPT2},
    {"smollm", false, false, false, DIGITS_GPT2},
    {"starcoder", false, false, false, DIGITS_GPT2},

    {"chameleon", false, true, false, CHAMELEON},
    {"falcon", false, false, false, FALCON},

    {"llama-bpe", true, true, false, LLAMA3},
    {"llama3", true, true, false, LLAMA3},
    {"llama-v3", true, true, false, LLAMA3},
    {"falcon3", true, true, false, LLAMA3},
    {"falcon-h1", true, true, false, LLAMA3},
    {"jina-v5-nano", true, true, false, LLAMA3},
    {"lfm2", true, true, false, LLAMA3},
    {"midm-2.0", true, true, false, LLAMA3},
    {"pixtral", true, true, false, LLAMA3},
    {"chatglm-bpe", false, false, false, LLAMA3},
    {"dbrx", false, false, false, LLAMA3},
    {"glm4", true, false, false, LLAMA3},
    {"glm5", true, false, false, LLAMA3},
    {"smaug-bpe", false, false, false, LLAMA3},

    {"qwen2", false, false, false, QWEN2},
    {"deepseek-r1-qwen", false, false, false, QWEN2},
    {"f2llmv2", false, false, false, QWEN2},
    {"grok-2", false, false, false, QWEN2},
    {"hunyuan", false, false, false, QWEN2},
    {"kormo", false, false, false, QWEN2},
    {"megrez", false, false, false, QWEN2},
    {"solar-open", false, false, false, QWEN2},
    {"stablelm2", false, false, false, QWEN2},

    {"bailingmoe", false, false, false, BAILING},
    {"bailingmoe2", false, false, false, BAILING},
    {"llada-moe", false, false, false, BAILING},
    {"exaone-moe", false, false, false, EXAONE_MOE},
    {"jais-2", false, false, false, JAIS2},
    {"laguna", false, false, false, LAGUNA},
    {"minicpm5", true, false, false, MINICPM5},
    {"qwen35", false, false, false, QWEN35},
    {"seed-coder", false, false, false, SEED_CODER},
    {"ufakzeka", false, false, false, UFAKZEKA},

    {"gpt-4o", false, false, false, GPT4O},
    {"granite-embed-multi-97m", true, false, false, GPT4O},
    {"kanana2", false, false, false, GPT4O},
    {"llama4", false, false, false, GPT4O},
    {"minimax-m2", false, false, false, GPT4O},
    {"talkie", false, false, false, GPT4O},
    {"cohere2moe", false, false, false, TINY_AYA},
    {"tiny_aya", false, false, false, TINY_AYA},
    {"kimi-k2", false, false, false, KIMI},
    {"tekken", true, true, false, TEKKEN},
    {"youtu", true, false, false, YOUTU},

    {"afmoe", false, false, false, AFMOE},
    {"deepseek-coder", false, false, false, DEEPSEEK_CODER},
    {"deepseek-llm", false, false, false, DEEPSEEK_LLM},
    {"deepseek-v3", false, false, false, DEEPSEEK3},
    {"hunyuan-dense", false, false, false, DEEPSEEK3},
    {"hy_v4", false, false, false, DEEPSEEK3},
    {"joyai-llm", false, false, false, DEEPSEEK3},
    {"spark2_5", false, false, false, SPARK},

    {"bloom", false, false, false, BLOOM},
    {"gpt3-finnish", false, false, false, BLOOM},
    {"poro-chat", false, false, false, BLOOM},
    {"viking", false, false, false, VIKING},
    {"superbpe", false, false, false, SUPERBPE},
    {"gemma4", false, true, true, LINE_STAGES},
    {"granite-embed-multi-311m", false, true, true, LINE_STAGES},
    {"sarvam-moe", false, false, true, LINE_STAGES},
};

const pretok_kind *pretok_kind_find(const char *name) {
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        if (strcmp(KINDS[i].name, name) == 0) {
            return &KINDS[i];
        }
    }
    return NULL;
}
