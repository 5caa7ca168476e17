/* libsentencepiece behind C. */
#include "tokenmap/spm_shim.h"

#include <sentencepiece_processor.h>

#include <cstdio>
#include <exception>
#include <new>
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
