// Attention for AVX512_BF16: a tile of query rows × panels of 16 keys, softmax, and a tile of weights × pairs of values.
//
// A panel is 16 keys as four halves (layout.h), [64 pairs of dimensions][16 keys], and 16 values as [8 pairs of keys]
// [HEAD_DIM]. The whole panels of a prefix are packed once for all sequences that share it; its last keys stand in front
// of a sequence's own, so that only the end of a sequence is padded.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <vector>

#include "memory.h"
#include "sequences.h"
#include "transpose.h"

class Avx512Attention {
    static constexpr int64_t KEYS = 16;                          // of a panel
    static constexpr int64_t PAIRS = HEAD_DIM / 2;               // of dimensions
    static constexpr int64_t PANEL_WORDS = 2 * KEYS * HEAD_DIM / 2;  // 4 bytes each: keys, then values
    static constexpr int ROWS = 6;                               // of a tile: 6 × 4 sums stay in registers
    static constexpr int64_t VALUE_VECTORS = HEAD_DIM / 16;

  public:
    // Of all threads: the packed prefixes, [prefix][kv_head][panel].
    struct Shared {
        Buffer<uint32_t> panels;
        std::vector<int64_t> first;  // panel of each prefix, for head 0

        void prepare(const Sequences<bf16>& in, int64_t num_kv_heads) {
            int64_t total = 0;
            first.clear();
            for (int64_t i = 0; i < in.num_prefixes; ++i) {
                first.push_back(total);
                total += in.prefixes[i].length / KEYS * num_kv_heads;
            }
            panels.reserve(total * PANEL_WORDS);
        }
        uint32_t* panel(int64_t prefix, int64_t length, int64_t kv_head) const {
            return panels.data() + (first[prefix] + length / KEYS * kv_head) * PANEL_WORDS;
        }
    };

    // Of one thread.
    struct Scratch {
        Buffer<uint32_t> own;
        Buffer<float> scores;
        Buffer<bf16> weights;
        std::vector<const uint32_t*> panels;
    };

    // Every thread calls this; they share the work. out: (queries, num_heads × HEAD_DIM).
    static void run(const Heads<bf16>& heads, const Sequences<bf16>& in, const Tiles<bf16>& out, const Shared& shared,
                    Scratch& scratch) {
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < in.num_prefixes * heads.num_kv_heads; ++task)
            pack_prefix(in, task / heads.num_kv_heads, task % heads.num_kv_heads, heads.num_kv_heads, shared);
#pragma omp for schedule(dynamic, 2)
        for (int64_t task = 0; task < in.num_sequences * heads.num_kv_heads; ++task) {
            const int64_t kv_head = task % heads.num_kv_heads;
            const Sequence& sequence = in.sequences[task / heads.num_kv_heads];
            const int64_t num_keys = collect(heads, in, sequence, kv_head, shared, scratch);
            attend(heads, sequence, kv_head, num_keys, out, scratch);
        }
    }

  private:
    static void pack_prefix(const Sequences<bf16>& in, int64_t index, int64_t kv_head, int64_t num_kv_heads,
                            const Shared& shared) {
        const Prefix<bf16>& prefix = in.prefixes[index];
        uint32_t* to = shared.panel(index, prefix.length, kv_head);
        const int64_t stride = num_kv_heads * HEAD_DIM;
        for (int64_t key = 0; key + KEYS <= prefix.length; key += KEYS, to += PANEL_WORDS) {
            const bf16 *keys[KEYS], *values[KEYS];
            for (int64_t i = 0; i < KEYS; ++i) {
                keys[i] = prefix.key + (key + i) * stride + kv_head * HEAD_DIM;
                values[i] = prefix.value + (key + i) * stride + kv_head * HEAD_DIM;
            }
            pack(keys, values, KEYS, to);
        }
    }

    // Lists the panels of a sequence, of which it packs its own; returns the number of keys.
    static int64_t collect(const Heads<bf16>& heads, const Sequences<bf16>& in, const Sequence& sequence, int64_t kv_head,
                           const Shared& shared, Scratch& scratch) {
        const Prefix<bf16>& prefix = in.prefixes[sequence.prefix];
        const int64_t shared_panels = prefix.length / KEYS, left = prefix.length % KEYS;
        const int64_t own_panels = divide_up(left + sequence.num_rows, KEYS);
        uint32_t* own = scratch.own.reserve(own_panels * PANEL_WORDS);
        const uint32_t* first = shared.panel(sequence.prefix, prefix.length, kv_head);
        scratch.panels.clear();
        for (int64_t i = 0; i < shared_panels; ++i) scratch.panels.push_back(first + i * PANEL_WORDS);
        const int64_t stride = heads.num_kv_heads * HEAD_DIM, from = prefix.length - left;
        const bf16* key_rows = heads.key + (kv_head * heads.capacity + sequence.first_row) * HEAD_DIM;
        const bf16* value_rows = heads.value + (kv_head * heads.capacity + sequence.first_row) * HEAD_DIM;
        for (int64_t panel = 0; panel < own_panels; ++panel) {
            const bf16 *keys[KEYS], *values[KEYS];
            const int64_t n = std::min(KEYS, left + sequence.num_rows - panel * KEYS);
            for (int64_t i = 0; i < n; ++i) {
                const int64_t at = panel * KEYS + i;
                const int64_t in_prefix = (from + at) * stride + kv_head * HEAD_DIM, in_own = (at - left) * HEAD_DIM;
                keys[i] = at < left ? prefix.key + in_prefix : key_rows + in_own;
                values[i] = at < left ? prefix.value + in_prefix : value_rows + in_own;
            }
            pack(keys, values, n, own + panel * PANEL_WORDS);
            scratch.panels.push_back(own + panel * PANEL_WORDS);
        }
        return prefix.length + sequence.num_rows;
    }

    // n keys and values, zeros up to KEYS → one panel.
    static void pack(const bf16* const* keys, const bf16* const* values, int64_t n, uint32_t* to) {
        const __m512i zero = _mm512_setzero_si512();
        for (int64_t j = 0; j < PAIRS; j += 16) {
            __m512i block[16];
            for (int64_t i = 0; i < KEYS; ++i) block[i] = i < n ? _mm512_loadu_si512((const uint32_t*)keys[i] + j) : zero;
            transpose(block);
            for (int64_t i = 0; i < 16; ++i) _mm512_store_si512(to + (j + i) * KEYS, block[i]);
        }
        to += KEYS * PAIRS;
        for (int64_t i = 0; i < KEYS; i += 2)
            for (int64_t d = 0; d < HEAD_DIM; d += 16) {
                const auto row = [&](int64_t at) {
                    return at < n ? _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(values[at] + d))) : zero;
                };
                _mm512_store_si512(to + i / 2 * HEAD_DIM + d, _mm512_or_si512(row(i), _mm512_slli_epi32(row(i + 1), 16)));
            }
    }

    // The rows of a tile: where each reads and writes, and how many keys it sees.
    struct Tile {
        const bf16* query[ROWS];
        float* scores[ROWS];
        bf16* weights[ROWS];
        int64_t seen[ROWS];
        float norm[ROWS];
    };

    static void attend(const Heads<bf16>& heads, const Sequence& sequence, int64_t kv_head, int64_t num_keys,
                       const Tiles<bf16>& out, Scratch& scratch) {
        const int64_t group = heads.num_heads / heads.num_kv_heads, width = round_up(num_keys, KEYS);
        scratch.scores.reserve(ROWS * width);
        scratch.weights.reserve(ROWS * width);
        const int64_t rows = sequence.num_queries * group;  // the heads of a position lie side by side
        for (int64_t row = 0; row < rows; row += ROWS) {
            Tile tile;
            const int n = std::min<int64_t>(ROWS, rows - row);
            int64_t query_rows[ROWS], query_heads[ROWS];
            for (int r = 0; r < ROWS; ++r) {
                const int64_t i = row + std::min(r, n - 1);  // the last tile repeats its last row
                query_rows[r] = sequence.first_query + i / group;
                query_heads[r] = kv_head * group + i % group;
                tile.query[r] = heads.query + (query_heads[r] * heads.capacity + query_rows[r]) * HEAD_DIM;
                tile.scores[r] = scratch.scores.data() + r * width;
                tile.weights[r] = scratch.weights.data() + r * width;
                tile.seen[r] = num_keys - sequence.num_queries + i / group + 1;
            }
            const int64_t num_panels = divide_up(tile.seen[ROWS - 1], KEYS);
            scores_of(tile, scratch.panels.data(), num_panels);
            for (int r = 0; r < ROWS; ++r) softmax(tile, r, num_panels * KEYS);
            const int64_t pairs = divide_up(tile.seen[ROWS - 1], 2);
            for (int r = 0; r < n; r += 3)
                weigh<3>(tile, r, scratch.panels.data(), pairs, out, query_rows, query_heads);
        }
    }

    static void scores_of(const Tile& tile, const uint32_t* const* panels, int64_t num_panels) {
        int64_t p = 0;
        for (; p + 4 <= num_panels; p += 4) scores_of_panels<4>(tile, panels, p);
        if (p + 2 <= num_panels) {
            scores_of_panels<2>(tile, panels, p);
            p += 2;
        }
        if (p < num_panels) scores_of_panels<1>(tile, panels, p);
    }

    template <int VECTORS>
    static void scores_of_panels(const Tile& tile, const uint32_t* const* panels, int64_t first) {
        __m512 sum[ROWS][VECTORS];
        for (auto& row : sum)
            for (auto& x : row) x = _mm512_setzero_ps();
        for (int64_t j = 0; j < PAIRS; ++j) {
            __m512bh key[VECTORS];
            for (int v = 0; v < VECTORS; ++v) key[v] = (__m512bh)_mm512_load_si512(panels[first + v] + j * KEYS);
            for (int r = 0; r < ROWS; ++r) {
                const __m512bh x = (__m512bh)_mm512_set1_epi32(((const int32_t*)tile.query[r])[j]);
                for (int v = 0; v < VECTORS; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], x, key[v]);
            }
        }
        for (int r = 0; r < ROWS; ++r)
            for (int v = 0; v < VECTORS; ++v) _mm512_store_ps(tile.scores[r] + (first + v) * KEYS, sum[r][v]);
    }

    // Weights of a row's keys, not yet divided by their sum; zero from the last seen key to `padded`.
    static void softmax(Tile& tile, int r, int64_t padded) {
        const float* scores = tile.scores[r];
        const int64_t seen = tile.seen[r], whole = seen / KEYS * KEYS;
        const __mmask16 rest = (1u << (seen - whole)) - 1;
        F top = splat(-1e30f);
        for (int64_t i = 0; i < whole; i += LANES) top = _mm512_max_ps(top, load(scores + i));
        if (rest) top = _mm512_mask_max_ps(top, rest, top, load(scores + whole));
        const float factor = SCORE_SCALE * LOG2_E;
        const float shift = _mm512_reduce_max_ps(top) * factor;
        F total = splat(0.f);
        for (int64_t i = 0; i < padded; i += LANES) {
            F e = exp2(load(scores + i) * factor - shift);
            if (i >= whole) e = _mm512_maskz_mov_ps(i == whole ? rest : 0, e);
            total += e;
            store(tile.weights[r] + i, e);
        }
        tile.norm[r] = 1.f / _mm512_reduce_add_ps(total);
    }

    // Rows first to first + ROWS_EACH of weights × values → out.
    template <int ROWS_EACH>
    static void weigh(const Tile& tile, int first, const uint32_t* const* panels, int64_t pairs, const Tiles<bf16>& out,
                      const int64_t* query_rows, const int64_t* query_heads) {
        __m512 sum[ROWS_EACH][VALUE_VECTORS];
        for (auto& row : sum)
            for (auto& x : row) x = _mm512_setzero_ps();
        for (int64_t j = 0; j < pairs; ++j) {
            const uint32_t* value = panels[j / (KEYS / 2)] + KEYS * PAIRS + j % (KEYS / 2) * HEAD_DIM;
            __m512bh v[VALUE_VECTORS];
            for (int c = 0; c < VALUE_VECTORS; ++c) v[c] = (__m512bh)_mm512_load_si512(value + c * 16);
            for (int r = 0; r < ROWS_EACH; ++r) {
                const __m512bh x = (__m512bh)_mm512_set1_epi32(((const int32_t*)tile.weights[first + r])[j]);
                for (int c = 0; c < VALUE_VECTORS; ++c) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], x, v[c]);
            }
        }
        for (int r = 0; r < ROWS_EACH; ++r)
            for (int c = 0; c < VALUE_VECTORS; ++c)
                store(out.at(query_rows[first + r], query_heads[first + r] * HEAD_DIM + c * 16),
                      sum[r][c] * tile.norm[first + r]);
    }
};
