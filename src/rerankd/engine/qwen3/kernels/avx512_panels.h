// Keys and values of one head as panels of 16 keys (avx512_attention.h).

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <vector>

#include "memory.h"
#include "sequences.h"
#include "transpose.h"

constexpr int64_t KEYS = 16;                        // of a panel
constexpr int64_t PAIRS = HEAD_DIM / 2;             // of dimensions
constexpr int64_t KEY_WORDS = KEYS * PAIRS;         // 4 bytes each: the keys of a panel
constexpr int64_t PANEL_WORDS = 2 * KEY_WORDS;      // and its values

// 16 rows of keys and values. A row beyond the last is null, and counts as zeros.
struct PanelRows {
    const bf16 *keys[KEYS] = {}, *values[KEYS] = {};

    void pack(uint32_t* to) const {
        for (int64_t j = 0; j < PAIRS; j += 16) {
            __m512i block[16];
            for (int64_t i = 0; i < KEYS; ++i) block[i] = at(keys[i], 2 * j);
            transpose(block);
            for (int64_t i = 0; i < 16; ++i) _mm512_store_si512(to + (j + i) * KEYS, block[i]);
        }
        const auto from_both = [](int first) {  // words first, 32 + first, first + 1, 32 + first + 1, …
            const __m512i one = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            return _mm512_add_epi32(_mm512_mullo_epi32(one, _mm512_set1_epi32(0x10001)),
                                    _mm512_set1_epi32((32 << 16) + first * 0x10001));
        };
        const __m512i low = from_both(0), high = from_both(16);
        for (int64_t i = 0; i < KEYS; i += 2)
            for (int64_t d = 0; d < HEAD_DIM; d += 32) {
                const __m512i even = at(values[i], d), odd = at(values[i + 1], d);
                uint32_t* const pairs = to + KEY_WORDS + i / 2 * HEAD_DIM + d;
                _mm512_store_si512(pairs, _mm512_permutex2var_epi16(even, low, odd));
                _mm512_store_si512(pairs + 16, _mm512_permutex2var_epi16(even, high, odd));
            }
    }

  private:
    static __m512i at(const bf16* row, int64_t first) {
        return row ? _mm512_loadu_si512(row + first) : _mm512_setzero_si512();
    }
};

// The whole panels of the prefixes that several sequences share, packed once for all: [prefix][kv_head][panel].
struct SharedPanels {
    Buffer<uint32_t> panels;
    std::vector<int64_t> first;  // panel of each prefix, for head 0; −1: it is not packed

    void prepare(const Sequences<bf16>& in, int64_t num_kv_heads) {
        std::vector<int64_t> users(in.num_prefixes);
        for (int64_t i = 0; i < in.num_sequences; ++i) ++users[in.sequences[i].prefix];
        int64_t total = 0;
        first.clear();
        for (int64_t i = 0; i < in.num_prefixes; ++i) {
            first.push_back(users[i] > 1 ? total : -1);
            if (users[i] > 1) total += in.prefixes[i].length / KEYS * num_kv_heads;
        }
        panels.reserve(total * PANEL_WORDS);
    }

    // How many panels of the prefix are packed.
    int64_t count(int64_t prefix, int64_t length) const { return first[prefix] < 0 ? 0 : length / KEYS; }

    uint32_t* panel(int64_t prefix, int64_t length, int64_t kv_head) const {
        return panels.data() + (first[prefix] + length / KEYS * kv_head) * PANEL_WORDS;
    }

    void pack(const Prefix<bf16>* prefixes, int64_t index, int64_t kv_head, int64_t num_kv_heads) const {
        const Prefix<bf16>& prefix = prefixes[index];
        const int64_t stride = num_kv_heads * HEAD_DIM;
        for (int64_t panel = 0; panel < count(index, prefix.length); ++panel) {
            PanelRows rows;
            for (int64_t i = 0; i < KEYS; ++i) {
                const int64_t at = (panel * KEYS + i) * stride + kv_head * HEAD_DIM;
                rows.keys[i] = prefix.key + at, rows.values[i] = prefix.value + at;
            }
            rows.pack(this->panel(index, prefix.length, kv_head) + panel * PANEL_WORDS);
        }
    }
};

// The keys that a sequence sees, of one head: those of its prefix, then its own.
class KeyPanels {
    const Heads<bf16>& heads_;
    const Sequence& sequence_;
    const Prefix<bf16>& prefix_;
    const int64_t kv_head_, num_shared_;
    const uint32_t* shared_;

  public:
    static constexpr int64_t BLOCK = 16;  // panels that are in work together

    KeyPanels(const Heads<bf16>& heads, const Sequences<bf16>& in, const Sequence& sequence, int64_t kv_head,
              const SharedPanels& shared)
        : heads_(heads), sequence_(sequence), prefix_(in.prefixes[sequence.prefix]), kv_head_(kv_head),
          num_shared_(shared.count(sequence.prefix, prefix_.length)),
          shared_(num_shared_ ? shared.panel(sequence.prefix, prefix_.length, kv_head) : nullptr) {}

    // Lists the panels of the keys `first` to first + count, and packs those that are not shared.
    void collect(int64_t first, int64_t count, Buffer<uint32_t>& packed, const uint32_t** panels) const {
        uint32_t* to = packed.reserve(BLOCK * PANEL_WORDS);
        for (int64_t key = first; key < first + count; key += KEYS) {
            const bool is_shared = key / KEYS < num_shared_;
            if (!is_shared) rows(key, std::min(KEYS, first + count - key)).pack(to);
            *panels++ = is_shared ? shared_ + key / KEYS * PANEL_WORDS : to;
            to += is_shared ? 0 : PANEL_WORDS;
        }
    }

  private:
    PanelRows rows(int64_t first, int64_t count) const {
        PanelRows rows;
        const int64_t stride = heads_.num_kv_heads * HEAD_DIM;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t own = first + i - prefix_.length;
            const int64_t at = own < 0 ? (first + i) * stride + kv_head_ * HEAD_DIM
                                       : (kv_head_ * heads_.capacity + sequence_.first_row + own) * HEAD_DIM;
            rows.keys[i] = (own < 0 ? prefix_.key : heads_.key) + at;
            rows.values[i] = (own < 0 ? prefix_.value : heads_.value) + at;
        }
        return rows;
    }
};
