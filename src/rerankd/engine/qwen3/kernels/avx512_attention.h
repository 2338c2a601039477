// Attention for AVX512_BF16: tiles of 6 query rows × panels of 16 keys, and then × their values.
//
// A panel is 16 keys as [64 pairs of dimensions][16 keys][2], and their values as [8 pairs of keys][HEAD_DIM][2]. Panel i
// of a sequence holds the positions 16 i to 16 i + 15 of its prompt, wherever the prefix ends.
//
// Keys pass in blocks that stay in L2: a block is packed, and all rows that see it compute with it before the next one.
// The outputs so far are scaled whenever a row's largest score grows. The blocks begin at fixed positions, so the order
// of a row's sums depends on its position only. A block of which a row sees nothing leaves its bits alone.

#pragma once

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <vector>

#include "avx512_panels.h"
#include "sequences.h"
#include "vector.h"

class Avx512Attention {
    static constexpr int ROWS = 6, VECTORS = 4;  // of a tile: 6 × 4 sums stay in registers
    static constexpr int64_t BLOCK = KeyPanels::BLOCK * KEYS;
    static constexpr int64_t STRIDE = BLOCK + 32;  // of scores and weights; rows 2^n apart would share a set of L1
    static constexpr float EXPONENT_SCALE = SCORE_SCALE * LOG2_E;

    // The softmax of a row so far: its largest score, the sum of its exponentials, what the last block scaled them by.
    struct Softmax {
        float most, total, factor;
    };

  public:
    using Shared = SharedPanels;

    // Of one thread. sums: the outputs of each row so far, not yet divided by the total.
    struct Scratch {
        Buffer<uint32_t> packed;
        Buffer<float> scores, sums;
        Buffer<bf16> weights;
        Buffer<Softmax> softmax;
        Guard guard;
    };

    // Every thread calls this; they share the work. out: (queries, num_heads × HEAD_DIM).
    static void run(const Heads<bf16>& heads, const Sequences<bf16>& in, const Tiles<bf16>& out, const Shared& shared,
                    Scratch& scratch) {
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < in.num_prefixes * heads.num_kv_heads; ++task)
            shared.pack(in.prefixes, task / heads.num_kv_heads, task % heads.num_kv_heads, heads.num_kv_heads);
        const int64_t whole = in.num_sequences * heads.num_kv_heads;
        const int64_t parts = whole ? divide_up(2 * omp_get_num_threads(), whole) : 1;  // so that each thread has work
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < whole * parts; ++task) {
            const Sequence& sequence = in.sequences[task / parts / heads.num_kv_heads];
            const int64_t kv_head = task / parts % heads.num_kv_heads;
            const Queries queries(heads, sequence, in.prefixes[sequence.prefix].length, kv_head, task % parts, parts);
            if (queries.num_rows)
                scratch.guard.run([&] { attend(queries, {heads, in, sequence, kv_head, shared}, out, scratch); });
        }
    }

  private:
    // A part of the queries of a sequence and key-value head. Rows: the heads of a position lie side by side.
    struct Queries {
        const Heads<bf16>& heads;
        int64_t group, first_head, first, num_rows, first_seen;

        Queries(const Heads<bf16>& heads, const Sequence& sequence, int64_t prefix_len, int64_t kv_head, int64_t part,
                int64_t parts)
            : heads(heads), group(heads.num_heads / heads.num_kv_heads), first_head(kv_head * group) {
            const int64_t begin = sequence.num_queries * part / parts, end = sequence.num_queries * (part + 1) / parts;
            first = sequence.first_query + begin;
            num_rows = (end - begin) * group;
            first_seen = prefix_len + sequence.num_rows - sequence.num_queries + begin + 1;
        }

        int64_t head(int64_t row) const { return first_head + row % group; }
        int64_t position(int64_t row) const { return first + row / group; }
        int64_t seen(int64_t row) const { return first_seen + row / group; }  // keys
        const bf16* at(int64_t row) const { return heads.row(head(row), position(row)); }
    };

    static void attend(const Queries& queries, const KeyPanels& keys, const Tiles<bf16>& out, Scratch& scratch) {
        const int64_t slots = round_up(queries.num_rows, ROWS), seen = queries.seen(queries.num_rows - 1);
        scratch.scores.reserve(ROWS * STRIDE);
        scratch.weights.reserve(ROWS * STRIDE);
        scratch.sums.reserve(slots * HEAD_DIM);
        std::fill_n(scratch.softmax.reserve(slots), slots, Softmax{-1e30f, 0.f, 0.f});  // not −inf: inf − inf
        const uint32_t* panels[KeyPanels::BLOCK];
        for (int64_t key = 0; key < seen; key += BLOCK) {
            keys.collect(key, std::min(BLOCK, seen - key), scratch.packed, panels);
            const int64_t blind = std::max<int64_t>(0, (key - queries.first_seen + 1) * queries.group);
            for (int64_t row = blind / ROWS * ROWS; row < queries.num_rows; row += ROWS)
                Tile(queries, row, key, scratch).compute(panels, out);
        }
    }

    // Rows `row` to row + 5 × the block of keys from `key` on. The last tile repeats its last row, in slots of its own.
    class Tile {
        const Queries& queries_;
        const int64_t row_, key_, last_seen_;  // of the block; may reach beyond it
        const bf16* query_[ROWS];
        float *const scores_, *const sums_;
        bf16* const weights_;
        Softmax* const softmax_;

        int64_t clamped(int r) const { return std::min<int64_t>(row_ + r, queries_.num_rows - 1); }

      public:
        Tile(const Queries& queries, int64_t row, int64_t key, Scratch& scratch)
            : queries_(queries), row_(row), key_(key), last_seen_(queries.seen(clamped(ROWS - 1)) - key),
              scores_(scratch.scores.data()), sums_(scratch.sums.data() + row * HEAD_DIM),
              weights_(scratch.weights.data()), softmax_(scratch.softmax.data() + row) {
            for (int r = 0; r < ROWS; ++r) query_[r] = queries.at(clamped(r));
        }

        void compute(const uint32_t* const* panels, const Tiles<bf16>& out) {
            const int64_t most = std::min(last_seen_, BLOCK), num_panels = divide_up(most, KEYS);
            for (int64_t p = 0, step; p < num_panels; p += step) step = score(panels, p, num_panels - p);
            for (int r = 0; r < ROWS; ++r)
                weigh(r, std::clamp<int64_t>(queries_.seen(clamped(r)) - key_, 0, most), num_panels * KEYS);
            bf16* to[ROWS];
            const bool done = last_seen_ <= BLOCK;
            for (int r = 0; done && r < ROWS; ++r)
                to[r] = out.line(queries_.position(clamped(r)), queries_.head(clamped(r)) * HEAD_DIM / LINE<bf16>);
            for (int64_t d = 0; d < HEAD_DIM; d += VECTORS * LANES) add_values(panels, d, most, done ? to : nullptr);
        }

      private:
        // Scores of up to 4 panels, of which `left` are left; returns how many. Five are 3 + 2: one alone would wait for
        // its own sums.
        int64_t score(const uint32_t* const* panels, int64_t first, int64_t left) {
            switch (left) {
                case 1: return score<1>(panels + first, scores_ + first * KEYS);
                case 2: return score<2>(panels + first, scores_ + first * KEYS);
                case 3:
                case 5: return score<3>(panels + first, scores_ + first * KEYS);
                default: return score<4>(panels + first, scores_ + first * KEYS);
            }
        }

        template <int PANELS>
        int64_t score(const uint32_t* const* panels, float* to) {
            __m512 sum[ROWS][PANELS];
            for (auto& row : sum)
                for (auto& x : row) x = _mm512_setzero_ps();
            for (int64_t j = 0; j < PAIRS; ++j) {
                __m512bh key[PANELS];
                for (int v = 0; v < PANELS; ++v) key[v] = (__m512bh)_mm512_load_si512(panels[v] + j * KEYS);
                for (int r = 0; r < ROWS; ++r) {
                    const __m512bh x = (__m512bh)_mm512_set1_epi32(((const int32_t*)query_[r])[j]);
                    for (int v = 0; v < PANELS; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], x, key[v]);
                }
            }
            for (int r = 0; r < ROWS; ++r)
                for (int v = 0; v < PANELS; ++v) _mm512_store_ps(to + r * STRIDE + v * KEYS, sum[r][v]);
            return PANELS;
        }

        // Weights from the first `seen` scores of a row; those up to `padded` are zero.
        void weigh(int r, int64_t seen, int64_t padded) {
            const float* scores = scores_ + r * STRIDE;
            bf16* const weights = weights_ + r * STRIDE;
            const int64_t whole = seen / LANES * LANES;
            const __mmask16 rest = (1u << (seen - whole)) - 1;
            F top = splat(softmax_[r].most);
            for (int64_t i = 0; i < whole; i += LANES) top = _mm512_max_ps(top, load(scores + i));
            if (rest) top = _mm512_mask_max_ps(top, rest, top, load(scores + whole));
            const float most = _mm512_reduce_max_ps(top), shift = most * EXPONENT_SCALE;
            F total = splat(0.f);
            const auto put = [&](int64_t i, __mmask16 counts) {
                const F weight = _mm512_maskz_mov_ps(counts, exp2(load(scores + i) * EXPONENT_SCALE - shift));
                total += weight;
                store(weights + i, weight);
            };
            for (int64_t i = 0; i < whole; i += LANES) put(i, 0xffff);
            if (rest) put(whole, rest);
            for (int64_t i = whole + (rest ? LANES : 0); i < padded; i += LANES) store(weights + i, splat(0.f));
            const float factor = exp2(splat((softmax_[r].most - most) * EXPONENT_SCALE))[0];
            softmax_[r] = {most, softmax_[r].total * factor + _mm512_reduce_add_ps(total), factor};
        }

        // sums × factor + weights × values, for 64 dimensions from d on; divided by the total → `to`, or kept.
        void add_values(const uint32_t* const* panels, int64_t d, int64_t num_keys, bf16* const* to) {
            __m512 sum[ROWS][VECTORS];
            for (int r = 0; r < ROWS; ++r)
                for (int v = 0; v < VECTORS; ++v)
                    sum[r][v] = key_ ? load(sums_ + r * HEAD_DIM + d + v * LANES) * softmax_[r].factor : splat(0.f);
            for (int64_t key = 0; key < num_keys; key += KEYS) {
                const uint32_t* value = panels[key / KEYS] + KEY_WORDS + d;
                const bf16* weights = weights_ + key;
                for (int64_t pair = 0; pair < divide_up(std::min(KEYS, num_keys - key), 2); ++pair) {
                    __m512bh x[VECTORS];
                    for (int v = 0; v < VECTORS; ++v) x[v] = (__m512bh)_mm512_load_si512(value + v * LANES);
                    for (int r = 0; r < ROWS; ++r) {
                        const __m512bh w = (__m512bh)_mm512_set1_epi32(*(const int32_t*)(weights + r * STRIDE));
                        for (int v = 0; v < VECTORS; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], w, x[v]);
                    }
                    value += HEAD_DIM;
                    weights += 2;
                }
            }
            for (int r = 0; r < ROWS; ++r)
                for (int64_t v = 0; v < VECTORS; ++v) {
                    const int64_t at = d + v * LANES;
                    if (to)
                        store(to[r] + at / LINE<bf16> * TILE_ROWS * LINE<bf16> + at % LINE<bf16>,
                              sum[r][v] * (1.f / softmax_[r].total));
                    else
                        store(sums_ + r * HEAD_DIM + at, F(sum[r][v]));
                }
        }
    };
};
