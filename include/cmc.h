/* cmc.h - the public interface of libcmc: steer a frozen language model with tiny delta models.
 *
 * Copyright (c) 2026 the cmc authors. Licence: Apache-2.0.
 *
 * The method is Cross-model Control (CMC, arXiv 2410.17599): a small model, the delta, runs beside a frozen host; its
 * logits are carried through a token map into the host's vocabulary and added to the host's logits at every step.
 *
 * OWNERSHIP, the one rule. An object that a function gives you through an `out` parameter is yours; free it with the
 * function of the same name that ends in `_free` (which takes NULL too). Everything else is borrowed, pointers in a struct that is
 * filled for you and has no such function among them: what you pass in
 * stays yours and is copied where it is kept, except other cmc objects, which are kept by reference and must outlive the
 * object made from them; a const pointer that you get belongs to the object it came from and lives until that object is
 * changed or freed.
 *
 * ERRORS. A function that can fail returns a cmc_status and fills the caller's cmc_error (which may be NULL). On failure
 * `*out` is left NULL and nothing is half-changed unless the comment says so. The message is one line without a final
 * full stop: which file, what is wrong, where, and what would be right.
 *
 * THREADS. A cmc_runtime owns its worker threads; cmc_map_build, which takes no runtime, starts some of its own for as long as it
 * takes. Objects of one runtime are used from one thread at a time; immutable
 * ones (cmc_vocab, cmc_map) may be shared freely. The library has no global state, never prints and never exits.
 *
 * UNITS. Log-probabilities and NLL are in nats, sizes in bytes, times in seconds. Token ids are int32_t; -1 is "none".
 */
#ifndef CMC_H
#define CMC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CMC_VERSION_MAJOR 0
#define CMC_VERSION_MINOR 1
#define CMC_VERSION_PATCH 0
#define CMC_VERSION "0.1.0"

#if defined(__GNUC__)
#define CMC_API __attribute__((visibility("default")))
#else
#define CMC_API
#endif

/* ---------------------------------------------------------------------------------------------------- status */

typedef enum cmc_status {
    CMC_OK = 0,
    CMC_E_ARG = 1,          /* the caller's arguments do not fit together */
    CMC_E_NOMEM = 2,        /* memory ran out, or would */
    CMC_E_IO = 3,           /* a file could not be opened, read or written */
    CMC_E_FORMAT = 4,       /* a file is damaged or not what it should be */
    CMC_E_UNSUPPORTED = 5,  /* well formed, but of a kind cmc does not know; the message names it */
    CMC_E_RANGE = 6,        /* a context is full, or asked to be longer than the model's */
    CMC_E_CANCELLED = 7,    /* the caller's callback asked to stop */
    CMC_E_DIVERGED = 8      /* training met NaN or infinity */
} cmc_status;

typedef struct cmc_error {
    cmc_status status;
    char message[512];
} cmc_error;

/* The library's version as "major.minor.patch": compare with CMC_VERSION to catch a header that does not fit. */
CMC_API const char *cmc_version(void);

/* A growable list of token ids. Start from {0}; free with cmc_ids_free. */
typedef struct cmc_ids {
    int32_t *v;
    size_t n, cap;
} cmc_ids;
/* CMC_E_NOMEM alone; the list is then as it was. */
CMC_API cmc_status cmc_ids_push(cmc_ids *ids, int32_t id);
CMC_API void cmc_ids_free(cmc_ids *ids);

/* --------------------------------------------------------------------------------------------------- runtime */

typedef struct cmc_runtime cmc_runtime;

/* How batches of tokens are multiplied with quantised weights; single tokens always round activations to 8 bits. The integer
 * ways want AVX-512 VNNI; without it all are FLOAT. */
typedef enum cmc_batches {
    CMC_BATCHES_AUTO,    /* INT15 */
    CMC_BATCHES_FLOAT,   /* weights decoded to float32, BLAS */
    CMC_BATCHES_INT15,   /* activations rounded to 15 bits: next to float32 in its results, and faster */
    CMC_BATCHES_INT8     /* to 8 bits: the fastest */
} cmc_batches;

/* How a session keeps keys and values. */
typedef enum cmc_kv {
    CMC_KV_HALF,         /* float16; float32 with `exact`, and where the machine has no instructions for float16 */
    CMC_KV_FLOAT,        /* float32: twice the memory */
    CMC_KV_INT8          /* 8 bits, and a float32 scale for every 32 dimensions: 9 bits; float32 with `exact` */
} cmc_kv;

/* How the logits are computed that a token is chosen by (CMC_WANT_SAMPLING). */
typedef enum cmc_output {
    CMC_OUTPUT_AUTO,     /* screened with AVX-512 VNNI where that saves 1/6 of what a step reads and 8 MB at least; not for 4
                            sequences or more side by side whose matrices are in strips (cmc_model_copies) */
    CMC_OUTPUT_FULL,     /* all from the output matrix, as CMC_WANT_LOGITS */
    CMC_OUTPUT_SCREENED  /* screened whatever it saves; full still with `exact`, beside an adapter of the output matrix, and
                            where its rows are no multiple of 32 */
} cmc_output;

typedef struct cmc_runtime_opts {
    int threads;      /* 0: one for each core that is online */
    bool exact;       /* float32 activations, weights dequantised, no BLAS, fixed summation order (docs/design.md, "Numbers") */
    cmc_batches batches;   /* no effect with `exact` */
    cmc_kv kv;
    cmc_output output;
} cmc_runtime_opts;

/* opts NULL: all zero. CMC_E_ARG for negative threads. */
CMC_API cmc_status cmc_runtime_open(const cmc_runtime_opts *opts, cmc_runtime **out, cmc_error *err);
CMC_API void cmc_runtime_free(cmc_runtime *rt);
CMC_API int cmc_runtime_threads(const cmc_runtime *rt);
/* The core type OpenBLAS chose ("Haswell", "SkylakeX", ...), or "none" where the library could not be loaded. */
CMC_API const char *cmc_runtime_blas_core(const cmc_runtime *rt);
/* The instruction set of the kernels in use: "portable", "avx2", "avx512-vnni", "neon", "neon-dotprod" */
CMC_API const char *cmc_runtime_isa(const cmc_runtime *rt);
/* The value OPENBLAS_CORETYPE should have on this machine, or NULL where OpenBLAS 0.3.21's own detection is right.
 * The library changes no environment: a program that wants full speed sets it first thing in main. */
CMC_API const char *cmc_blas_core_advice(void);

/* ------------------------------------------------------------------------------------------------ vocabulary */

typedef struct cmc_vocab cmc_vocab;

typedef enum cmc_token_kind {
    CMC_KIND_NORMAL = 0,
    CMC_KIND_CONTROL,
    CMC_KIND_BYTE,
    CMC_KIND_USER,      /* user-defined: text that is never split */
    CMC_KIND_UNUSED
} cmc_token_kind;

enum { /* roles, a bit set */
    CMC_ROLE_BOS = 1, CMC_ROLE_EOS = 2, CMC_ROLE_EOT = 4, CMC_ROLE_PAD = 8, CMC_ROLE_UNK = 16
};

enum { /* flags of cmc_tokenize */
    CMC_TOK_BOS = 1,       /* put BOS first where the model asks for it */
    CMC_TOK_SPECIAL = 2,   /* spellings of control tokens in the text become those tokens; otherwise they are text */
    CMC_TOK_CONTINUE = 4   /* the text continues an earlier one: no BOS, no dummy space before it */
};

/* Opens the vocabulary of a GGUF file (any architecture; tensors are not touched), a SentencePiece .model or a Hugging Face
 * tokenizer.json. A part of a tokenizer that is not understood is refused by name (CMC_E_UNSUPPORTED). */
CMC_API cmc_status cmc_vocab_open(const char *path, cmc_vocab **out, cmc_error *err);
CMC_API void cmc_vocab_free(cmc_vocab *v);
CMC_API int32_t cmc_vocab_size(const cmc_vocab *v);
CMC_API const char *cmc_vocab_kind_name(const cmc_vocab *v); /* "spm", "bpe" or "unigram" */
/* The bytes a token stands for (control and unused tokens: none, length 0). Not NUL-terminated. */
CMC_API const uint8_t *cmc_vocab_bytes(const cmc_vocab *v, int32_t id, size_t *len);
/* The spelling as stored in the file. Not NUL-terminated. */
CMC_API const char *cmc_vocab_spelling(const cmc_vocab *v, int32_t id, size_t *len);
CMC_API cmc_token_kind cmc_vocab_kind(const cmc_vocab *v, int32_t id);
CMC_API unsigned cmc_vocab_roles(const cmc_vocab *v, int32_t id);
/* First token that has the role, or -1. */
CMC_API int32_t cmc_vocab_role_token(const cmc_vocab *v, unsigned role);
/* True for every id that ends a turn (by key, or by known name). */
CMC_API bool cmc_vocab_is_end(const cmc_vocab *v, int32_t id);
/* Finds a control or user-defined token by its exact spelling, -1 if there is none. */
CMC_API int32_t cmc_vocab_find_special(const cmc_vocab *v, const char *spelling);
CMC_API bool cmc_vocab_adds_bos(const cmc_vocab *v);
/* True where both hold the same bytes, kinds and spellings, id by id. */
CMC_API bool cmc_vocab_equal(const cmc_vocab *a, const cmc_vocab *b);
/* The model file's own chat template text, or NULL. */
CMC_API const char *cmc_vocab_chat_template(const cmc_vocab *v);

/* Appends the ids of text[0..len) (any bytes; invalid UTF-8 goes through byte tokens, else U+FFFD) to `out`. */
CMC_API cmc_status cmc_tokenize(const cmc_vocab *v, const char *text, size_t len, unsigned flags, cmc_ids *out,
                                cmc_error *err);

/* --------------------------------------------------------------------------------------------------- the map */

/* PM-MinED token map (arXiv 2410.17599, section 3.3): from each host token to a delta token. */
typedef struct cmc_map cmc_map;

typedef enum cmc_map_rule {
    CMC_RULE_DEFAULT = 0,   /* bytes and roles; text without a token of its own: the first token of the delta's tokenizer */
    CMC_RULE_REFERENCE,     /* the public code's rule on spellings, bit for bit */
    CMC_RULE_PREFIX         /* the paper's nearest by prefix, on bytes and roles */
} cmc_map_rule;

typedef enum cmc_map_how {
    CMC_HOW_NONE = 0, CMC_HOW_ROLE, CMC_HOW_BYTE, CMC_HOW_EXACT, CMC_HOW_PREFIX, CMC_HOW_OVERRIDE
} cmc_map_how;

typedef struct cmc_map_counts {
    int32_t n_host, n_delta;            /* tokens */
    int32_t role, byte, exact, prefix, override_, none;   /* of the host's, by how they were mapped (override is a word of C++) */
    bool identity;                      /* every token maps to its own id */
    double seconds;                     /* to build */
} cmc_map_counts;

/* Vocabularies that are equal token by token map by identity, but under CMC_RULE_REFERENCE. The map keeps neither vocabulary.
 * CMC_E_ARG for a rule that there is not, CMC_E_NOMEM. */
CMC_API cmc_status cmc_map_build(const cmc_vocab *host, const cmc_vocab *delta, cmc_map_rule rule, cmc_map **out,
                                 cmc_error *err);
CMC_API void cmc_map_free(cmc_map *m);
/* The delta token of a host token (-1: none), how it was found, and its distance (default rule: bytes; reference:
 * characters). `how` and `distance` may be NULL. */
CMC_API int32_t cmc_map_get(const cmc_map *m, int32_t host_id, cmc_map_how *how, int32_t *distance);
CMC_API void cmc_map_counts_get(const cmc_map *m, cmc_map_counts *out);
/* The reference's "one2one" form: a JSON list of n_host delta ids, -1 for none. `delta_size` checks the ids read. */
CMC_API cmc_status cmc_map_import(const char *path, int32_t host_size, int32_t delta_size, cmc_map **out,
                                  cmc_error *err);
/* Writes what cmc_map_import reads, whole or not at all. */
CMC_API cmc_status cmc_map_export(const cmc_map *m, const char *path, cmc_error *err);
/* Hand edits: applies a text file of lines `HOST -> DELTA`. A token is its id, or its spelling as stored, as a JSON
 * string ("\u2581the"); none on the right unmaps the host token; # begins a comment. Entries get CMC_HOW_OVERRIDE, or
 * CMC_HOW_NONE. All or nothing: where a line is wrong, it is named and the map stays as it was. Before cmc_steering_add has the map: what
 * that derives from it does not follow. */
CMC_API cmc_status cmc_map_override(cmc_map *m, const cmc_vocab *host, const cmc_vocab *delta, const char *path,
                                    cmc_error *err);

/* --------------------------------------------------------------------------------------------- files, models */

typedef struct cmc_type_count { const char *type; uint64_t tensors, params, bytes; } cmc_type_count;

typedef struct cmc_alpha_entry {
    char host_hash[40];          /* hex, as cmc_model_hash gives */
    char host_name[128];
    double alpha, gain;          /* gain: held-out nats per token saved at that alpha */
} cmc_alpha_entry;

/* What a delta's file says of itself (the `cmc.*` keys). */
typedef struct cmc_delta_info {
    uint32_t format_version;
    char host_template[32], delta_template[32];
    double alpha;                /* for a host that is not in the table */
    size_t n_alphas;
    const cmc_alpha_entry *alphas;
    char trained_host[128], trained_host_hash[160], data_hash[40], objective[32];   /* of several hosts, commas between them */
    uint64_t steps, seed;
    double gain;                 /* held-out nats per token saved beside the first of them */
} cmc_delta_info;

/* What makes a model an expanded one (Control LLM, arXiv 2501.10979): blocks beside or behind some of its layers, trained while
 * the model stayed as it is. */
typedef struct cmc_expand_point { int32_t layer; bool stack; } cmc_expand_point;   /* counted from 0; stack: behind it */
typedef struct cmc_expand_info {
    const char *kind;            /* "concat": all beside, "stack": all behind, "hybrid": both */
    const char *merge;           /* how outputs of layer and block beside it are merged: "lerp", "dlerp", "dlerpin", "slerp" */
    const cmc_expand_point *points; size_t n;
} cmc_expand_info;

/* What `cmc inspect` shows, read from the header alone. CMC_E_IO, CMC_E_FORMAT, or CMC_E_UNSUPPORTED for a tensor type or a vocabulary
 * that cmc does not know. What it gives is its own: strings, lists, and what
 * cmc_file_info_expand puts into *out. Numbers whose key the file lacks are 0. */
typedef struct cmc_file_info cmc_file_info;
CMC_API cmc_status cmc_file_info_open(const char *path, cmc_file_info **out, cmc_error *err);
CMC_API void cmc_file_info_free(cmc_file_info *fi);
CMC_API const char *cmc_file_info_arch(const cmc_file_info *fi);
CMC_API const char *cmc_file_info_name(const cmc_file_info *fi);
CMC_API uint64_t cmc_file_info_params(const cmc_file_info *fi);
CMC_API uint64_t cmc_file_info_bytes(const cmc_file_info *fi);
CMC_API const cmc_type_count *cmc_file_info_types(const cmc_file_info *fi, size_t *n);
CMC_API const cmc_delta_info *cmc_file_info_delta(const cmc_file_info *fi); /* NULL: not a delta */
CMC_API const cmc_vocab *cmc_file_info_vocab(const cmc_file_info *fi);      /* NULL: the file holds none */
CMC_API bool cmc_file_info_expand(const cmc_file_info *fi, cmc_expand_info *out); /* false: not expanded */
CMC_API int32_t cmc_file_info_context(const cmc_file_info *fi);
CMC_API int32_t cmc_file_info_layers(const cmc_file_info *fi);
CMC_API int32_t cmc_file_info_embd(const cmc_file_info *fi);

/* A model: immutable, memory-mapped, shared by its sessions. A delta is an ordinary model with `cmc.*` keys. */
typedef struct cmc_model cmc_model;
/* CMC_E_IO, CMC_E_FORMAT, or CMC_E_UNSUPPORTED, whose message names the architecture, tensor type or key that cmc does not do. */
CMC_API cmc_status cmc_model_open(cmc_runtime *rt, const char *path, cmc_model **out, cmc_error *err);
CMC_API void cmc_model_free(cmc_model *m);
CMC_API cmc_runtime *cmc_model_runtime(const cmc_model *m);
CMC_API const char *cmc_model_path(const cmc_model *m);
CMC_API const char *cmc_model_name(const cmc_model *m);
CMC_API const cmc_vocab *cmc_model_vocab(const cmc_model *m);
CMC_API const cmc_delta_info *cmc_model_delta_info(const cmc_model *m);
CMC_API int32_t cmc_model_n_vocab(const cmc_model *m);
CMC_API int32_t cmc_model_n_embd(const cmc_model *m);
CMC_API int32_t cmc_model_n_layer(const cmc_model *m);
CMC_API int32_t cmc_model_n_ctx(const cmc_model *m);       /* what it was trained for */
CMC_API uint64_t cmc_model_params(const cmc_model *m);
CMC_API uint64_t cmc_model_bytes(const cmc_model *m);      /* weights, as stored */
/* Bytes of what has been laid out anew beside them so far, for speed: the output matrix in 4.5 bits, when the second token is chosen and
 * that saves reading; the matrices in strips of 16 rows, when 4 sequences or more are first decoded side by side and the strips take no
 * more than a quarter of the memory that can be had, of a model no wider than 256 and of no more than 16 MB when it is opened. */
CMC_API uint64_t cmc_model_copies(const cmc_model *m);
/* 32 hex digits over the header and samples of every tensor: the same file gives the same digits anywhere. */
CMC_API const char *cmc_model_hash(const cmc_model *m);

/* Adds a LoRA adapter, a GGUF file as llama.cpp reads it, to a model that has no sessions yet: beside its matrices, which
 * stay as they are. Several add up. A scale of 0 leaves the adapter out, once it is checked; with any other the model has
 * another hash. Where this fails the model is not to be used further. */
CMC_API cmc_status cmc_model_add_lora(cmc_model *m, const char *path, double scale, cmc_error *err);
/* What blocks it has; false: it is not an expanded model. The points are the model's. */
CMC_API bool cmc_model_expand(const cmc_model *m, cmc_expand_info *out);
/* Writes the model, its adapters merged into its matrices, as one GGUF file with the keys and the tokenizer of its own file.
 * save_type: of the matrices, "f32", "f16" or "q8_0" (where a row is no multiple of 32: f16); the rest is f32. */
CMC_API cmc_status cmc_model_save(const cmc_model *m, const char *path, const char *save_type, cmc_error *err);
/* Writes an expanded model as an ordinary one, as cmc_model_save does otherwise. Blocks behind layers become layers, which
 * changes nothing; a block beside a layer is averaged with it, weight by weight, by its share times `strength`: near what the
 * two give together as long as they are near each other, and 0 gives the base. CMC_E_UNSUPPORTED where outputs are merged
 * otherwise than by lerp, and with blocks behind layers for a strength other than 1 and for gemma3 with its windows. */
CMC_API cmc_status cmc_model_save_folded(const cmc_model *m, double strength, const char *path, const char *save_type,
                                         cmc_error *err);
/* Writes a model on the line between two of one shape and vocabulary, a model and its tuned self say: every weight is
 * (1 - share) a + share b, in float32, however either is stored; share from 0 to 1 (WiSE-FT, arXiv 2109.01903). Keys and
 * tokenizer are a's; adapters of either have no part in it. */
CMC_API cmc_status cmc_model_save_mix(const cmc_model *a, const cmc_model *b, double share, const char *path,
                                      const char *save_type, cmc_error *err);

/* -------------------------------------------------------------------------------------------------- sessions */

/* One timeline over a model: the KV cache of a sequence of ids. */
typedef struct cmc_session cmc_session;

/* n_ctx 0: the model's own. CMC_E_RANGE where n_ctx is more than the model's; CMC_E_NOMEM, before anything is touched,
 * where the cache does not fit in the memory that is free. The cache grows as it is used. */
CMC_API cmc_status cmc_session_new(cmc_model *m, int32_t n_ctx, cmc_session **out, cmc_error *err);
/* A session of its own with the same ids and what is evaluated of them; either may be freed first. */
CMC_API cmc_status cmc_session_fork(const cmc_session *s, cmc_session **out, cmc_error *err);
CMC_API void cmc_session_free(cmc_session *s);
/* How far the blocks of an expanded model count for this session: their share of what is merged is multiplied by it. 1 as
 * they were trained, and to begin with; 0 evaluates none of them, so that the logits are the base model's, bit for bit; from
 * -100 to 100. Another strength makes all tokens pending again. No effect for a model without such blocks. */
CMC_API cmc_status cmc_session_set_expand(cmc_session *s, double strength, cmc_error *err);
CMC_API double cmc_session_expand(const cmc_session *s);
CMC_API cmc_model *cmc_session_model(const cmc_session *s);
CMC_API int32_t cmc_session_n_ctx(const cmc_session *s);
/* Makes ids[0..n) the sequence: keeps the common prefix that is evaluated, crops the rest, notes what is pending. At
 * least one token stays pending where n > 0 (so that its row can be asked for). CMC_E_RANGE where n > n_ctx. */
CMC_API cmc_status cmc_session_sync(cmc_session *s, const int32_t *ids, size_t n, cmc_error *err);
/* One more. CMC_E_RANGE where the context is full, CMC_E_ARG where it is no token of the model's; the session is then as it was. */
CMC_API cmc_status cmc_session_append(cmc_session *s, int32_t id, cmc_error *err);
CMC_API size_t cmc_session_length(const cmc_session *s);   /* evaluated and pending */
CMC_API size_t cmc_session_pending(const cmc_session *s);

typedef enum cmc_want {
    CMC_WANT_NONE = 0,
    CMC_WANT_LOGITS,     /* every logit from the output matrix as it is */
    CMC_WANT_HIDDEN,     /* final-norm hidden states */
    CMC_WANT_SAMPLING    /* logits to choose a token by. Where a session has one token pending, they may be screened: all are
                            estimated from a copy of the output matrix in 4.5 bits a weight (made the first time; it stays with
                            the model), and the greatest of them, 1,024 at least and 4,096 at most (of few tokens no more than 1
                            in 64 and 1 in 16), until the others have 1/256 of the probability, are computed as CMC_WANT_LOGITS does for the session alone. A logit
                            that is more than 32 nats below the greatest may stay an estimate whatever its rank. The same
                            bits for any number of threads. Else as CMC_WANT_LOGITS, and so for 4 sequences or more that
                            take strips (cmc_output) */
} cmc_want;

typedef struct cmc_eval_item {
    cmc_session *session;
    cmc_want want;
    size_t n_rows;      /* the last n_rows pending positions give a row each; at most pending */
    float *out;         /* caller's [n_rows][n_vocab] logits or [n_rows][n_embd] final-norm hidden states */
} cmc_eval_item;

/* Evaluates every item's pending tokens as one batch. All sessions belong to `m`, none twice. In exact mode the results do
 * not depend on what else is in the batch. On failure the sessions keep their pending tokens. */
CMC_API cmc_status cmc_eval(cmc_model *m, const cmc_eval_item *items, size_t n_items, cmc_error *err);
/* logits[n_rows][n_vocab] from hidden[n_rows][n_embd], as cmc_eval would have given. */
CMC_API cmc_status cmc_model_logits(cmc_model *m, const float *hidden, size_t n_rows, float *logits, cmc_error *err);

/* ------------------------------------------------------------------------------------------ prompts, records */

typedef enum cmc_template {
    CMC_TMPL_AUTO = 0,   /* the model file's own where it is recognised, else plain */
    CMC_TMPL_PLAIN, CMC_TMPL_CHATML, CMC_TMPL_LLAMA2, CMC_TMPL_LLAMA3, CMC_TMPL_GEMMA, CMC_TMPL_MISTRAL,
    CMC_TMPL_ALPACA, CMC_TMPL_VICUNA, CMC_TMPL_ZEPHYR,
    CMC_TMPL_RAW         /* the user's text as it stands */
} cmc_template;

CMC_API const char *cmc_template_name(cmc_template t);
CMC_API cmc_status cmc_template_parse(const char *name, cmc_template *out, cmc_error *err);
/* AUTO resolved for a vocabulary; anything else is returned as it is. */
CMC_API cmc_template cmc_template_resolve(cmc_template t, const cmc_vocab *v);

typedef enum cmc_role { CMC_SYSTEM = 0, CMC_USER, CMC_ASSISTANT } cmc_role;
typedef struct cmc_message { cmc_role role; char *text; size_t len; } cmc_message;

/* One record of data: either a bare text, or messages of which every assistant turn is a response. */
typedef struct cmc_record {
    long line;               /* where it stood, from 1 */
    char *text; size_t text_len;   /* NULL where the record has messages */
    cmc_message *messages; size_t n_messages;
} cmc_record;
typedef struct cmc_records { cmc_record *v; size_t n, cap; char hash[40]; } cmc_records;

/* Reads JSONL or a JSON list of {"instruction","input","output"}, {"question","answer"}, {"prompt","response"},
 * {"messages":[{"role","content"}]}, {"text"}. A bad line is named by number. The response part may be missing where
 * `need_response` is false. Appends to `out`; `hash` covers all that was read so far. */
CMC_API cmc_status cmc_records_read(const char *path, bool need_response, cmc_records *out, cmc_error *err);
CMC_API void cmc_records_free(cmc_records *r);

/* A record rendered and tokenised for one vocabulary. */
typedef struct cmc_span {        /* one response */
    size_t first, n;             /* ids[first .. first+n): the response's tokens; the last is the end token where there is one */
    size_t text_off, text_len;   /* the response's bytes in `text` (for PLAIN with its leading space) */
} cmc_span;
typedef struct cmc_rendered {
    cmc_ids ids;
    cmc_span *spans; size_t n_spans;
    char *text; size_t text_len; /* the responses' bytes, one after the other */
} cmc_rendered;
/* The one function that renders, tokenises, masks and aligns (docs/design.md, "Prompts"). A {"text"} record gives one span from
 * ids[1] on. A record whose last turn is the user's gets the opening of an answer and no span for it. `special`: control
 * token spellings in the record's own text become tokens. */
CMC_API cmc_status cmc_render(const cmc_vocab *v, cmc_template t, const cmc_record *r, bool special,
                              cmc_rendered *out, cmc_error *err);
CMC_API void cmc_rendered_free(cmc_rendered *r);

/* -------------------------------------------------------------------------------------------------- steering */

/* A host and the deltas that steer it: models, maps, strengths. Set up once, then used by streams and scores. */
typedef struct cmc_steering cmc_steering;

/* Guards: the sum of logits is blind, and can raise what the host knows to be broken text. They bound what the deltas do to a
 * token's probability, and say where in a response they do it. A response is what a stream writes, or each of a record's
 * responses when it is scored. */
typedef struct cmc_guards {
    /* The bounds are on what all deltas together do to a token's log-probability. Within them the distribution is the nearest, in
     * KL(it || steered), to the steered one. What the map leaves out keeps its probability still; with unmapped_raw the
     * bounds are on what is added to a logit. */
    double plausible;           /* no token rises that the host gives less than this, from 0 (off) to 1, times its greatest
                                   probability: the mask of contrastive decoding (arXiv 2210.15097, its alpha), but what is
                                   below stays possible, at the host's probability at most */
    double shift_limit;         /* no token rises or falls by more nats than this; 0: the host's own logits; INFINITY: off */
    /* The schedule: token t of a response (from 0) is steered with a strength of alpha * scale, scale being 0 up to alpha_start,
     * 1 for alpha_length tokens, then alpha_decay, its square, its cube and so on. */
    int32_t alpha_start;
    int32_t alpha_length;       /* -1: to the end */
    double alpha_decay;         /* from 0 (ends at once) to 1; above 0 only where there is an alpha_length */
    /* Markers: steering is on from the token after the one that completes `from`, and off from the token after the one that completes
     * `until`. With both, it is on between each `from` and the next `until`; with `until` alone it is on to begin
     * with. They are looked for in the response's bytes, wherever these fall into tokens, but for the space that a template puts before
     * an answer. t counts from where steering last went on. NULL: none. */
    const char *from, *until;
} cmc_guards;
CMC_API cmc_guards cmc_guards_defaults(void);      /* all off */

typedef struct cmc_steering_opts {
    cmc_template host_template;
    bool unmapped_raw;          /* C_k = C = 0: the reference's behaviour, for comparison (docs/design.md, "Steering") */
    bool special;               /* parse control tokens in the user's text */
    const cmc_guards *guards;   /* NULL: none */
} cmc_steering_opts;

/* opts NULL: all zero. CMC_E_ARG where a guard is out of its range. */
CMC_API cmc_status cmc_steering_new(cmc_model *host, const cmc_steering_opts *opts, cmc_steering **out, cmc_error *err);
CMC_API void cmc_steering_free(cmc_steering *st);
/* Adds a delta. alpha NaN: the one stored for this host, else the stored default, else 1. `map` NULL: built here by the
 * default rule. `t` AUTO: the template stored in the delta, else the delta file's own. */
CMC_API cmc_status cmc_steering_add(cmc_steering *st, cmc_model *delta, double alpha, const cmc_map *map,
                                    cmc_template t, cmc_error *err);
CMC_API size_t cmc_steering_n_deltas(const cmc_steering *st);
CMC_API double cmc_steering_alpha(const cmc_steering *st, size_t k);
/* k counts from 0 in the order in which they were added. CMC_E_ARG where there is no such delta, or alpha is no number from -1e6 to
 * 1e6. */
CMC_API cmc_status cmc_steering_set_alpha(cmc_steering *st, size_t k, double alpha, cmc_error *err);
/* How far the host's expanded blocks count, 1 at first: cmc_session_set_expand for all streams and scores begun later. */
CMC_API cmc_status cmc_steering_set_expand(cmc_steering *st, double strength, cmc_error *err);
CMC_API const cmc_map *cmc_steering_map(const cmc_steering *st, size_t k);
CMC_API cmc_template cmc_steering_template(const cmc_steering *st); /* the host's, resolved */

/* The arithmetic alone (docs/design.md, "Steering"): logits[n_host] in place, from delta_logits[k][n_delta_k]; a NULL row or an
 * alpha of 0 leaves that delta out. Of the guards the bounds hold; schedule and markers are of responses. */
CMC_API cmc_status cmc_steering_apply(const cmc_steering *st, float *logits, const float *const *delta_logits,
                                      cmc_error *err);

typedef struct cmc_sampling {
    double temperature;      /* 0: greedy */
    int32_t top_k;           /* 0: off */
    double top_p;            /* 1: off */
    double min_p;            /* 0: off */
    double repeat_penalty;   /* 1: off */
    int32_t repeat_last_n;   /* how far back it looks */
    uint64_t seed;
} cmc_sampling;
CMC_API cmc_sampling cmc_sampling_defaults(void);  /* greedy, penalties off, seed 0 */

/* One text being generated. */
typedef struct cmc_stream cmc_stream;

typedef enum cmc_stop { CMC_STOP_NONE = 0, CMC_STOP_EOS, CMC_STOP_LENGTH, CMC_STOP_STRING } cmc_stop;

typedef struct cmc_stream_opts {
    bool unsteered;           /* leave every delta out */
    int32_t n_ctx;            /* host context, 0: the model's */
    int32_t max_tokens;       /* at most this many new tokens; <0: as many as fit */
    bool ignore_end;          /* end tokens are text like any other (benchmarks) */
    cmc_sampling sampling;
    const char *const *stop;  /* stop strings, not part of the text */
    size_t n_stop;
    bool compare;             /* for cmc_stream_compare: every logit is computed (CMC_WANT_LOGITS), and two rows are kept */
} cmc_stream_opts;

/* Renders the record's prompt for host and deltas; an answer that the record ends with is no part of it. Nothing is
 * evaluated until the first step. Deltas added to `st` later have no part in the stream; strengths may change between steps.
 * opts NULL: cmc_sampling_defaults, and as many tokens as fit. */
CMC_API cmc_status cmc_stream_new(const cmc_steering *st, const cmc_record *prompt, const cmc_stream_opts *opts,
                                  cmc_stream **out, cmc_error *err);
/* Another stream with the same prompt that shares the host's evaluated prefix (the prompt is evaluated now if it was not). */
CMC_API cmc_status cmc_stream_fork(cmc_stream *s, const cmc_stream_opts *opts, cmc_stream **out, cmc_error *err);
/* A stream for another prompt, a conversation's next turn say, that keeps what `s` has evaluated of it. `s` may be freed. */
CMC_API cmc_status cmc_stream_next(const cmc_stream *s, const cmc_record *prompt, const cmc_stream_opts *opts,
                                   cmc_stream **out, cmc_error *err);
CMC_API void cmc_stream_free(cmc_stream *s);
/* How far the host's expanded blocks count for this stream alone (cmc_session_set_expand), at any time: what it has so far is
 * evaluated anew. */
CMC_API cmc_status cmc_stream_set_expand(cmc_stream *s, double strength, cmc_error *err);
/* One token for every stream that is not stopped, evaluated as a batch. Host logits do not depend on the deltas, so an
 * unsteered stream is the same alone and beside steered ones: bit for bit in exact mode, and in the fast one too where
 * the weights are block-quantised and fewer than 4 sequences are evaluated together. Where a delta fails (its
 * context cannot hold the prompt, say), the step can be tried again once that is mended; where no token can be picked for one stream, the
 * others have taken theirs. */
CMC_API cmc_status cmc_streams_step(cmc_stream *const *streams, size_t n, cmc_error *err);
CMC_API cmc_stop cmc_stream_stopped(const cmc_stream *s);
/* The response so far: whole UTF-8 characters only, less what may yet turn out to be a stop string; all of it once stopped.
 * The space that a template puts before an answer ("Answer: Paris") is no part of it. */
CMC_API const char *cmc_stream_text(const cmc_stream *s, size_t *len);
CMC_API const int32_t *cmc_stream_ids(const cmc_stream *s, size_t *n);        /* new tokens, the end token included */
CMC_API size_t cmc_stream_prompt_tokens(const cmc_stream *s);
/* Why the text differs from what was hoped, e.g. that the delta's context was cut; NULL if there is nothing to say. */
CMC_API const char *cmc_stream_note(const cmc_stream *s);
/* A token's log-probability without the deltas and with them; -infinity where the probability is 0. */
typedef struct cmc_moved { int32_t id; double host_logprob, logprob; } cmc_moved;
enum { CMC_MOVED = 5 };
/* What steering did to the distribution that a stream's newest token was taken from: softmax of the host's logits, and of
 * the steered ones, at temperature 1, without penalties and cuts. */
typedef struct cmc_comparison {
    double kl;                     /* KL(steered || host), at least 0 */
    cmc_moved token;               /* the newest token */
    cmc_moved host_top, top;       /* the likeliest one without the deltas and with them (of equals, the lowest id) */
    cmc_moved raised[CMC_MOVED], lowered[CMC_MOVED];   /* whose probability changed most, the greatest change first */
    size_t n_raised, n_lowered;    /* fewer than CMC_MOVED where fewer changed at all */
    size_t n_deltas, n_waiting;    /* deltas of a strength other than 0 at this step, guards considered; of them, those that gave
                                      nothing, for the text ended inside a character */
} cmc_comparison;
/* Of the last step. CMC_E_ARG where the stream was made without `compare`, or has no token yet. */
CMC_API cmc_status cmc_stream_compare(const cmc_stream *s, cmc_comparison *out, cmc_error *err);
typedef struct cmc_stream_timing { double prefill_seconds, decode_seconds; size_t decode_steps; } cmc_stream_timing;
CMC_API void cmc_stream_timing_get(const cmc_stream *s, cmc_stream_timing *out);

/* Teacher-forced log-probabilities of a record's response tokens. */
typedef struct cmc_score {
    cmc_ids ids;              /* the rendered record */
    size_t n;                 /* scored tokens */
    uint32_t *pos;            /* [n]: the token's index in ids */
    float *logprob;           /* [n_alphas][n]: steered, a block per alpha set */
    float *host_logprob;      /* [n]: unsteered */
    uint8_t *end;             /* [n]: 1 for an end token, which has no bytes */
    uint8_t *top, *host_top;  /* [n_alphas][n] and [n]: 1 where the token is the likeliest of all, steered and unsteered: what
                                 greedy decoding would have taken (of equals, the lowest id) */
    size_t bytes;             /* of the scored tokens */
    char *note;               /* what cmc_stream_note would say, e.g. that the delta's context was full; NULL: nothing */
} cmc_score;
/* Scores under several strengths at once: alphas[n_sets][n_deltas]; n_sets 0 or no deltas: the steering's own alphas,
 * one set; each must be a number from -1e6 to 1e6 (CMC_E_ARG). At every response token the delta sees its own rendering of the prompt and the bytes of the response so far
 * (docs/design.md, "The text is what host and delta share"), exactly as when generating. */
CMC_API cmc_status cmc_score_record(const cmc_steering *st, const cmc_record *r, const double *alphas, size_t n_sets,
                                    cmc_score *out, cmc_error *err);
/* The same of the distributions that sampling at this temperature draws from, the host's and the steered: softmax of the logits divided by
 * it. CMC_E_ARG where it is not from 1e-6 to 1e6. */
CMC_API cmc_status cmc_score_record_at(const cmc_steering *st, const cmc_record *r, double temperature, const double *alphas, size_t n_sets,
                                       cmc_score *out, cmc_error *err);
CMC_API void cmc_score_free(cmc_score *s);

/* -------------------------------------------------------------------------------------------------- training */

/* What keeps a model near what it was while it learns something new: of a delta that begins as another, or of a model that is
 * tuned. */
typedef struct cmc_keep_opts {
    const char *const *replay; size_t n_replay;   /* with sft: records of what it could before; of the records that the steps go
                                           through they are this share, beside as many of `data` as without them */
    double replay_share;                /* 0.05 as cmc_train_defaults has it */
    const char *const *watch; size_t n_watch;   /* files of records, 8 at most, that are scored with every held-out score, for
                                           the log alone: "watched_1" and on, nats a target, and in a line "base" of the start */
    double l2_start;                    /* adds l2_start / 2 |w - start|^2 to the loss (L2-SP, arXiv 1802.01483); 0: not. Scores
                                           and losses that are reported are without it */
    double wise_ft;                     /* what is saved is so far on the line from the start to what was learnt, which keeps more
                                           of the start (WiSE-FT, arXiv 2109.01903); 1, as cmc_train_defaults has it: all the
                                           way. The result's score is of what is saved, the log's are of what was learnt */
    const char *soft_mask;              /* a file of cmc_importance, of the start: rows of q, k, v, up and down are changed the less,
                                           the more their unit's importance stands out (CoFiTune, arXiv 2404.10306); NULL: none */
    const char *mask_on;                /* "update" or NULL: the factor is the step's, decay included;
                                           "gradient": the gradient's, as in CoFiTune's code, which AdamW all but undoes */
    const char *mask_control;           /* in the file's place, for comparison: "permuted", the same values elsewhere in their
                                           layer and kind, by seed; "constant", their mean everywhere; NULL or "none": the file */
} cmc_keep_opts;

/* Expanding a model or a delta (Control LLM, arXiv 2501.10979): blocks are added and alone are trained (but see `unfrozen`); out_path
 * becomes the start's file, its tensors as they are stored, with the blocks. */
typedef struct cmc_expand_opts {
    const char *kind;                   /* NULL: none of this. "concat": blocks beside layers, copies of them to begin with;
                                           "stack": behind them, changing nothing to begin with; "hybrid": in turn */
    int32_t blocks;                     /* how many, at even distances: a number that divides the start's layers */
    const char *merge;                  /* of layer and block beside it: "lerp", "dlerp", "dlerpin", "slerp" (cmc_expand_info) */
    double share;                       /* of what is merged, the block's to begin with, above 0 and below 1; of dlerp and
                                           dlerpin before the token has its say, which is trained */
    bool learn_share;                   /* it is trained too */
    const char *align;                  /* what holds a block to the layer beside it, a loss: "none"; "mse", the mean square of
                                           the difference of their outputs; "relative", over that of the layer's; "cosine" */
    double align_weight;                /* of its mean over tokens and merges */
    bool align_by_share;                /* and each token's times the block's share of it */
    bool align_through;                 /* the layer's output learns from it too, by way of earlier blocks */
    bool unfrozen;                      /* the start's own weights are trained too, and stored as save_type: shows what freezing
                                           them is worth. A strength of 0 is then the model without its blocks, not the start */
} cmc_expand_opts;

typedef struct cmc_train_opts {
    const char *const *hosts; size_t n_hosts;   /* the frozen hosts that one delta is trained beside */
    const double *host_weights;         /* [n_hosts] shares of the loss; NULL: equal */
    const char *vocab_path;             /* file whose vocabulary the delta gets, a GGUF file (tensors are not
                                           needed) or a SentencePiece .model; NULL: init_path's, else hosts[0]'s */
    bool prefix_rows;                   /* where vocabularies differ: also the targets whose text so far has other tokens
                                           in the delta than the whole text begins with; a sequence of its own for each */
    const char *const *data; size_t n_data;
    const char *out_path;
    const char *init_path;              /* NULL: random start; else another delta or, to be cut, a llama-family model */
    int32_t cut;                        /* layers to keep of init_path, with its embedding; 0: all of it. A head that is not
                                           the embedding stays behind */
    double cut_gain;                    /* a cut's final norm is scaled by this; 0: so that its first logits are next to 0 */
    const char *checkpoint_path;        /* NULL: out_path with ".ckpt" */
    const char *cache_dir;              /* host states; NULL: beside the checkpoint */
    const char *log_path;               /* JSONL log, NULL: none */
    const char *const *alpha_hosts; size_t n_alpha_hosts;  /* further hosts, for the alpha search only */
    cmc_template host_template, delta_template;
    int32_t n_embd, n_layer, n_head, n_head_kv, n_ff;       /* the delta's shape; 0: 192 wide, 4 layers, a head for every 32, as many
                                           key-value heads, 8/3 of the width */
    const char *train_layers;           /* which layers are trained, of a start or a base: "25-50%", a part of the depth, or
                                           indices and ranges, "0,2,4-6"; NULL: all. The rest stays as it is, the same bits */
    const char *train_modules;          /* and what in them: "q,k,v,o,gate,up,down,norms", or some of these, "embeddings" and
                                           "output" (the last norm, and the matrix where it is not the embedding); NULL: all,
                                           without train_layers the last two as well */
    int32_t max_len;                    /* tokens in a record, longer ones are left out and counted */
    int32_t batch;                      /* records in a step */
    int32_t epochs;
    int64_t max_steps;                  /* <=0: epochs decide */
    double lr, warmup, min_lr, beta1, beta2, eps, weight_decay, clip;  /* lr 0: 1e-3, of an adapter 5e-4; warmup: share of all steps;
                                           min_lr: share of lr */
    double alpha;                       /* strength while training */
    const char *objective;              /* NULL: "sft". "distil" takes `data` for what a teacher is asked about; the others forget
                                           it: "ga", "graddiff", "kl", "idk", "dpo", "npo", "simnpo". Nothing is held out with them */
    const char *teacher;                /* for distil: a model with the host's vocabulary, whose distributions the steered host is
                                           to have on `data`: the host tuned on it; of what is to be forgotten one that never learnt it */
    const char *const *retain; size_t n_retain;   /* records to keep, where the objective has a retain term */
    const char *retain_term;            /* "none", "nll", "kl"; NULL: what the objective has by itself */
    const char *refusals_path;          /* for idk and dpo: a refusal a line; NULL: some of cmc's own */
    double retain_weight, beta, gamma;  /* beta of dpo, npo and simnpo; gamma of simnpo */
    double dropout;                     /* share of each branch's output left out in a step */
    double kl;                          /* weight of KL(steered || host) on what is learnt: holds the delta back */
    double cuts;                        /* with this chance a record that is trained on has its response cut once, at a random
                                           border of two characters; host and delta tokenise the two parts on their own, as
                                           in decoding where a host's token ends inside one of the delta's */
    double host_temperature_lo, host_temperature_hi;   /* while training with sft a host's logits are divided by a temperature
                                           drawn log-uniformly between these, anew for every record of every step; 0, 0: not */
    double host_mix;                    /* and its distribution p becomes p^(1-m) u^m, m drawn from [0, host_mix), u being the
                                           training targets' unigram; 0: not */
    const char *host_mix_with;          /* u is this model's distribution, through a token map, where it stands between two of
                                           its tokens, in place of the unigram; with one host only. NULL: the unigram */
    cmc_keep_opts keep;
    int32_t lora_rank;                  /* 0: none. Else what is trained is an adapter (arXiv 2106.09685) on init_path, which the delta
                                           that comes out has in it */
    double lora_alpha;                  /* what the adapter adds is scaled by alpha / rank; 0: twice the rank */
    const char *lora_targets;           /* matrices with an adapter: "q,k,v,o,gate,up,down", or some of them; NULL: all */
    cmc_expand_opts expand;             /* blocks that are added to init_path, and trained in its place; as cmc_train_defaults has it
                                           none, else 0.5 of lerp, held by mse with a weight of 1 */
    double held_out;                    /* share of records held out; prompts that differ in numbers, case or punctuation alone stay
                                           together */
    int32_t eval_every, patience;       /* steps between held-out scores (0: a tenth of an epoch, at least 10);
                                           scores without gain before it stops */
    int32_t checkpoint_every;           /* steps; 0: as eval_every */
    uint64_t memory;                    /* the process is to stay below so many resident bytes, pages of mapped files included;
                                           0: no bound. The work is cut accordingly */
    bool resume;                        /* goes on from the checkpoint, where there is one */
    bool fresh;                         /* a checkpoint that is there is ignored and replaced */
    uint64_t seed;
    const char *save_type;              /* "f32", "f16" or "q8_0" */
} cmc_train_opts;
CMC_API cmc_train_opts cmc_train_defaults(void);

typedef struct cmc_train_result {
    int64_t steps; uint64_t tokens;
    uint64_t params, trained;           /* of the delta that comes out (cmc_tune: those that are trained); of them, or of the adapter that
                                           went into it, those that were trained */
    size_t records, records_held_out, records_left_out;
    size_t targets, targets_prefix, targets_left_out;   /* over all hosts: as they are; by prefix_rows; without a row */
    double held_out_host, held_out_steered, alpha, seconds;
    uint64_t memory_planned, memory_peak;   /* resident bytes of the process at most: as planned, and as it came */
    double blas_flop, blas_seconds;     /* done in BLAS since the runtime was opened; seconds summed over threads */
    bool resumed, finished;
} cmc_train_result;

typedef struct cmc_train_progress {
    const char *phase;                  /* "plan", once and before anything is computed; "host states", "train", "alpha" */
    int64_t step, steps; double epoch;
    double loss, lr, grad_norm, tokens_per_second, seconds_left;
    double held_out, held_out_host, best;   /* NaN where not known yet */
    uint64_t memory, memory_planned;    /* resident bytes now, and at most as planned */
    bool is_eval;
    const cmc_train_result *result;     /* the run's counts, as far as they are known */
} cmc_train_progress;
/* Called after every step, and now and then in the other phases; return false to stop cleanly (a checkpoint is written first). */
typedef bool (*cmc_train_callback)(void *user, const cmc_train_progress *p);

/* CMC_E_ARG where options do not go together, CMC_E_CANCELLED where the callback stopped it, CMC_E_DIVERGED; of files and memory as
 * elsewhere. *out, which may be NULL, is filled either way: out->finished says whether the delta was written. */
CMC_API cmc_status cmc_train(cmc_runtime *rt, const cmc_train_opts *opts, cmc_train_callback cb, void *user,
                             cmc_train_result *out, cmc_error *err);

/* Tuning a language model itself on the responses of records, without a host: all of it, or a LoRA adapter beside it. */
typedef struct cmc_tune_opts {
    const char *base;                   /* a GGUF model of any architecture that cmc runs */
    cmc_train_opts how;                 /* data, paths, steps, rate (0: 5e-5, of an adapter 5e-4), what is held out, seed,
                                           save_type; the objective, but for distil, with all that belongs to it, in which the host is the base as
                                           it was at the start, steered is as it is tuned, and replay and watch are for sft alone;
                                           what is for deltas alone must be as cmc_train_defaults has it.
                                           lora_rank: out_path becomes an adapter in place of a whole model; expand: of the base */
} cmc_tune_opts;
CMC_API cmc_tune_opts cmc_tune_defaults(void);   /* cmc_train_defaults, but for the rate */
/* As cmc_train, with the base for the host: held_out_host is the base's score, held_out_steered the tuned model's. */
CMC_API cmc_status cmc_tune(cmc_runtime *rt, const cmc_tune_opts *opts, cmc_train_callback cb, void *user,
                            cmc_train_result *out, cmc_error *err);

/* How much the units of a model's layers matter to what it says on records: two passes over the same tokens, each with its own
 * dropout, and what a gate of 1 on a unit would do to KL(second || first) of their predictions. A unit is an attention head, a
 * row of up or a row of down (CoFiTune, arXiv 2404.10306, after DAS, arXiv 2302.03241). */
typedef struct cmc_importance_opts {
    const char *model;                  /* a GGUF model of any architecture that cmc runs */
    const char *const *data; size_t n_data;
    const char *out_path;               /* a GGUF file, for cmc_keep_opts.soft_mask */
    cmc_template host_template;
    int32_t max_len;                    /* tokens in a record, longer ones are left out */
    int32_t batch;                      /* sequences of a pass at most */
    double dropout;                     /* of attention's weights and of the feed-forward part's output */
    bool absolute;                      /* sums |gradient| over sequences, as DAS has it; false: the gradient with its sign, as
                                           CoFiTune's code does */
    uint64_t memory;                    /* as cmc_train_opts.memory */
    uint64_t seed;
    bool resume, fresh;                 /* as cmc_train_opts'; the checkpoint is out_path with .ckpt behind it, and is there while
                                           a run of more than half a minute is not finished */
} cmc_importance_opts;
CMC_API cmc_importance_opts cmc_importance_defaults(void);   /* 1024 tokens, 8 sequences, dropout 0.003, absolute */

typedef struct cmc_importance_result {
    uint64_t records, tokens, units;
    double kl, seconds;                 /* nats a token in the mean */
} cmc_importance_result;
/* The callback is as cmc_train's, with phase "importance"; a run that is stopped writes its checkpoint alone. The same seed, data,
 * threads and bound on memory give the same file, in one go or in several. */
CMC_API cmc_status cmc_importance(cmc_runtime *rt, const cmc_importance_opts *opts, cmc_train_callback cb, void *user,
                                  cmc_importance_result *out, cmc_error *err);

/* A vocabulary learnt from data by SentencePiece's trainer: small, with a token for every byte, so that any text has
 * tokens that stand for exactly it (but for U+2581, which SentencePiece takes for a space). */
typedef struct cmc_vocab_train_opts {
    const char *const *data; size_t n_data; /* records (.jsonl, .json: as cmc_records_read) or texts (any other name) */
    const char *out_path;                   /* .model: a SentencePiece model; any other name: a GGUF file without tensors */
    cmc_template t;                         /* records are rendered under it; its control tokens become tokens */
    int32_t size;                           /* tokens at most; less data gives fewer */
    const char *kind;                       /* "bpe" or "unigram"; NULL: "bpe" */
    double coverage;                        /* share of the data's characters with a token of their own; others are bytes */
    bool split_digits;                      /* every digit is a token of its own */
    const char *const *symbols; size_t n_symbols;   /* texts that are always one token */
    const char *const *control; size_t n_control;   /* further control tokens */
} cmc_vocab_train_opts;
CMC_API cmc_vocab_train_opts cmc_vocab_train_defaults(void);   /* BPE of 8000 tokens, template plain */

typedef struct cmc_vocab_train_result {
    int32_t tokens;
    uint64_t records, bytes;                /* bytes: of text that was learnt from */
    double seconds;
} cmc_vocab_train_result;
/* The same data and options give the same file. */
CMC_API cmc_status cmc_vocab_train(const cmc_vocab_train_opts *opts, cmc_vocab_train_result *out, cmc_error *err);

#ifdef __cplusplus
}
#endif
#endif
