/* libsentencepiece and its trainer behind C. */
#include "tokenmap/spm_shim.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

struct spm_shim {
    sentencepiece::SentencePieceProcessor processor;
};

extern "C" spm_shim *spm_shim_load(const void *data, size_t size, char *msg, size_t msg_size) {
    spm_shim *s = nullptr;
    try {
        s = new spm_shim;
        const auto status = s->processor.LoadFromSerializedProto({static_cast<const char *>(data), size});
        if (status.ok()) {
            return s;
        }
        std::snprintf(msg, msg_size, "%s", status.ToString().c_str());
    } catch (const std::exception &e) {
        std::snprintf(msg, msg_size, "%s", e.what());
    } catch (...) {
        std::snprintf(msg, msg_size, "an exception of unknown kind");
    }
    spm_shim_free(s);
    return nullptr;
}

extern "C" void spm_shim_free(spm_shim *s) {
    delete s;
}

/* Ids alone need no spans; where unknown characters have to be looked at, the spans come from the immutable proto. */
static bool encode(const spm_shim *s, absl::string_view text, bool want_spans, spm_shim_emit emit, void *user,
                   char *msg, size_t msg_size) {
    sentencepiece::util::Status status;
    if (!want_spans) {
        std::vector<int> ids;
        status = s->processor.Encode(text, &ids);
        for (size_t i = 0; status.ok() && i < ids.size(); i++) {
            if (!emit(user, ids[i], 0, 0)) {
                return false;
            }
        }
    } else {
        const auto spt = s->processor.EncodeAsImmutableProto(text);
        for (size_t i = 0; i < spt.pieces_size(); i++) {
            const auto piece = spt.pieces(static_cast<int>(i));
            if (!emit(user, static_cast<int>(piece.id()), piece.begin(), piece.end())) {
                return false;
            }
        }
    }
    if (!status.ok()) {
        std::snprintf(msg, msg_size, "%s", status.ToString().c_str());
    }
    return status.ok();
}

extern "C" bool spm_shim_encode(const spm_shim *s, const char *text, size_t n, bool want_spans, spm_shim_emit emit,
                                void *user, char *msg, size_t msg_size) {
    msg[0] = '\0';
    try {
        return encode(s, absl::string_view(text, n), want_spans, emit, user, msg, msg_size);
    } catch (const std::exception &e) {
        std::snprintf(msg, msg_size, "%s", e.what());
    } catch (...) {
        std::snprintf(msg, msg_size, "an exception of unknown kind");
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------- training */

namespace {

using train_args = std::unordered_map<std::string, std::string>;

/* The caller's sentences, one at a time. */
class sentences final : public sentencepiece::SentenceIterator {
  public:
    sentences(spm_shim_next next, void *user) : next_(next), user_(user) {
        Next();
    }
    bool done() const override {
        return done_;
    }
    void Next() override {
        const char *s;
        size_t n;
        done_ = done_ || !next_(user_, &s, &n);
        if (!done_) {
            value_.assign(s, n);
        }
    }
    const std::string &value() const override {
        return value_;
    }
    sentencepiece::util::Status status() const override {
        return {};
    }

  private:
    spm_shim_next next_;
    void *user_;
    std::string value_;
    bool done_ = false;
};

/* One thread for Unigram's sums: their order, and so the last bits of the scores, would go by the number of threads. */
train_args arguments(const spm_shim_training *t) {
    train_args a = {
        {"model_type", t->unigram ? "unigram" : "bpe"},
        {"vocab_size", std::to_string(t->size)},
        {"hard_vocab_limit", "false"},
        {"character_coverage", std::to_string(t->coverage)},
        {"byte_fallback", "true"},
        {"split_digits", t->split_digits ? "true" : "false"},
        {"allow_whitespace_only_pieces", "true"},
        {"max_sentence_length", std::to_string(t->max_sentence)},
        {"normalization_rule_name", "identity"},
        {"remove_extra_whitespaces", "false"},
        {"add_dummy_prefix", "false"},
        {"num_threads", "1"},
        {"minloglevel", "3"},
    };
    if (*t->control != '\0') {
        a["control_symbols"] = t->control;
    }
    if (*t->user != '\0') {
        a["user_defined_symbols"] = t->user;
    }
    return a;
}

} // namespace

extern "C" bool spm_shim_train(const spm_shim_training *t, spm_shim_next next, void *user, void **model, size_t *size,
                               char *msg, size_t msg_size) {
    *model = nullptr;
    *size = 0;
    try {
        sentences text(next, user);
        std::string out;
        const auto status = sentencepiece::SentencePieceTrainer::Train(arguments(t), &text, &out);
        if (!status.ok()) {
            std::snprintf(msg, msg_size, "%s", status.ToString().c_str());
            return false;
        }
        *model = std::malloc(out.size() + 1);
        if (*model == nullptr) {
            throw std::bad_alloc();
        }
        std::memcpy(*model, out.data(), out.size());
        *size = out.size();
        return true;
    } catch (const std::exception &e) {
        std::snprintf(msg, msg_size, "%s", e.what());
    } catch (...) {
        std::snprintf(msg, msg_size, "an exception of unknown kind");
    }
    return false;
}
