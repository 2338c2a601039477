// Attention with AMX of 16 positions of one or two query heads, which share every key.
//
// Keys come in panels of 32, 16 KB with their values:
//
//   keys:   [2 groups of 16 keys][4 lines of d][16 pairs of d][16 keys][2]     a tile B each 1 KB
//   values: [8 groups of 16 d][16 pairs of keys][16 d][2]                      a tile B each 1 KB
//
// Many keys pass in blocks of 512 with a running maximum: the output so far is scaled to the new maximum, and is the
// start of the next block's sums.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "amx_pack.h"
#include "sequences.h"
#include "tile.h"
#include "vector.h"

constexpr int64_t PANEL_KEYS = 32;
constexpr int64_t KEY_BYTES = 8 * TILE_BYTES;  // of a panel's keys, and of its values
constexpr int64_t KV_BYTES = 2 * KEY_BYTES;
constexpr int64_t BLOCK_PANELS = 16;
constexpr int64_t BLOCK_KEYS = BLOCK_PANELS * PANEL_KEYS;
constexpr int64_t SCORE_STRIDE = BLOCK_KEYS + 16;  // floats; with 512 all rows of a tile would share one set of L1
constexpr float EXPONENT_SCALE = SCORE_SCALE * LOG2_E;

// 32 rows of keys and values of one head. A row beyond the last is null, and counts as zeros.
struct PanelRows {
    const bf16* keys[PANEL_KEYS] = {};
    const bf16* values[PANEL_KEYS] = {};

    // `count` rows from row `first` of the panel on; k and v: rows `stride` values apart.
    void put(int64_t first, int64_t count, const bf16* k, const bf16* v, int64_t stride) {
        for (int64_t i = 0; i < count; ++i) {
            keys[first + i] = k + i * stride;
            values[first + i] = v + i * stride;
        }
    }
};

inline void pack_panel(const PanelRows& rows, uint8_t* to) {
    for (int group = 0; group < 2; ++group)
        for (int line = 0; line < 4; ++line)
            transpose(rows.keys + group * TILE_ROWS, line * LINE<bf16>, to + (group * 4 + line) * TILE_BYTES);
    uint32_t* pairs = reinterpret_cast<uint32_t*>(to + KEY_BYTES);
    for (int group = 0; group < 8; ++group)
        for (int pair = 0; pair < 16; ++pair)
            interleave(rows.values[2 * pair], rows.values[2 * pair + 1], group * 16, pairs + (group * 16 + pair) * 16);
}

// The panels of a sequence: those of its prefix, then its own.
struct KeyPanels {
    const uint8_t* shared;
    int64_t num_shared;
    const uint8_t* own;

    const uint8_t* keys(int64_t i) const {
        return i < num_shared ? shared + i * KV_BYTES : own + (i - num_shared) * KV_BYTES;
    }

    const uint8_t* values(int64_t i) const { return keys(i) + KEY_BYTES; }
};

// What one thread computes with: 16 positions of two heads.
struct AttentionStep {
    alignas(64) float scores[2][TILE_ROWS][SCORE_STRIDE];
    alignas(64) bf16 weights[2][BLOCK_PANELS][TILE_ROWS][PANEL_KEYS];  // an A tile each panel
    alignas(64) float sums[2][8][TILE_ROWS][16];                       // of the output, by 16 d
    float maximum[2][TILE_ROWS], total[2][TILE_ROWS];
    alignas(64) bf16 ends[2][TILE_ROWS][HEAD_DIM];  // copies of the last queries, behind which no 16 rows are left
    const bf16* queries[2];                         // 16 rows of each head

    // What stands behind the last of `count` rows is computed for nothing.
    void load_queries(const Heads<bf16>& heads, int64_t head, bool both, int64_t row, int64_t count) {
        for (int64_t h = 0; h <= both; ++h) {
            queries[h] = heads.row(head + h, row);
            if (row + TILE_ROWS <= heads.capacity) continue;
            std::memcpy(ends[h], queries[h], count * sizeof ends[h][0]);
            queries[h] = ends[h][0];
        }
    }

    void begin() {
        std::fill_n(&maximum[0][0], 2 * TILE_ROWS, -1e30f);  // not −inf: inf − inf is no number
        std::fill_n(&total[0][0], 2 * TILE_ROWS, 0.f);
    }

    // Weights of one row from its first `seen` scores of the block; those up to num_keys are zero. Scales what the row
    // has so far to its new maximum.
    void softmax(int head, int row, int64_t seen, int64_t num_keys, bool first) {
        const float* s = scores[head][row];
        const int64_t whole = seen / LANES * LANES;
        F top = splat(maximum[head][row]);
        for (int64_t i = 0; i < whole; i += LANES) top = max(top, load(s + i));
        if (whole < seen) top = first_lanes(seen - whole) ? max(top, load(s + whole)) : top;
        const float highest = largest(top), shift = highest * EXPONENT_SCALE;
        const auto at = [&](int64_t i) { return &weights[head][i / PANEL_KEYS][row][i % PANEL_KEYS]; };
        F lanes{};
        for (int64_t i = 0; i < whole; i += LANES) {
            const F weight = exp2(load(s + i) * EXPONENT_SCALE - shift);
            lanes += weight;
            store(at(i), weight);
        }
        for (int64_t i = whole; i < num_keys; i += LANES) {
            const I counts = first_lanes(seen - i);
            const F exponent = counts ? load(s + i) * EXPONENT_SCALE - shift : F{};  // others may be beyond 127
            const F weight = counts ? exp2(exponent) : F{};
            lanes += weight;
            store(at(i), weight);
        }
        // Exactly 1 where the maximum stays: a block of which a row sees nothing leaves its bits alone.
        const float factor = first ? 0.f : exp2(splat((maximum[head][row] - highest) * EXPONENT_SCALE))[0];
        maximum[head][row] = highest;
        total[head][row] = total[head][row] * factor + sum(lanes);
        if (factor != 1.f && !first)
            for (auto& group : sums[head])
                for (int64_t i = 0; i < HALF; i += LANES) store(group[row] + i, load(group[row] + i) * factor);
    }
};

// Scores of one panel: 16 positions of HEADS heads × 32 keys.
template <class Tile, int HEADS>
inline void score_panel(const bf16* const (&queries)[2], const uint8_t* keys, float* const (&scores)[2]) {
    constexpr int64_t Q_STRIDE = HEAD_DIM * sizeof(bf16), S_STRIDE = SCORE_STRIDE * sizeof(float);
    Tile::template zero<0>(), Tile::template zero<1>();
    if constexpr (HEADS == 2) Tile::template zero<2>(), Tile::template zero<3>();
    for (int line = 0; line < 4; ++line) {
        Tile::template load<6>(keys + line * TILE_BYTES);
        Tile::template load<7>(keys + (4 + line) * TILE_BYTES);
        Tile::template load<4>(queries[0] + line * 32, Q_STRIDE);
        Tile::template dot_bf16<0, 4, 6>(), Tile::template dot_bf16<1, 4, 7>();
        if constexpr (HEADS == 2) {
            Tile::template load<5>(queries[1] + line * 32, Q_STRIDE);
            Tile::template dot_bf16<2, 5, 6>(), Tile::template dot_bf16<3, 5, 7>();
        }
    }
    Tile::template store<0>(scores[0], S_STRIDE), Tile::template store<1>(scores[0] + 16, S_STRIDE);
    if constexpr (HEADS == 2)
        Tile::template store<2>(scores[1], S_STRIDE), Tile::template store<3>(scores[1] + 16, S_STRIDE);
}

// sums += weights × values, for the two groups of 16 d that begin at `group`.
template <class Tile, int HEADS>
inline void weigh_values(AttentionStep& step, const KeyPanels& panels, int64_t first, int64_t count, int group) {
    const bool fresh = first == 0;
    if (fresh) {
        Tile::template zero<0>(), Tile::template zero<1>();
        if constexpr (HEADS == 2) Tile::template zero<2>(), Tile::template zero<3>();
    } else {
        Tile::template load<0>(step.sums[0][group]), Tile::template load<1>(step.sums[0][group + 1]);
        if constexpr (HEADS == 2)
            Tile::template load<2>(step.sums[1][group]), Tile::template load<3>(step.sums[1][group + 1]);
    }
    for (int64_t i = 0; i < count; ++i) {
        const uint8_t* values = panels.values(first + i) + group * TILE_BYTES;
        Tile::template load<6>(values);
        Tile::template load<7>(values + TILE_BYTES);
        Tile::template load<4>(step.weights[0][i]);
        Tile::template dot_bf16<0, 4, 6>(), Tile::template dot_bf16<1, 4, 7>();
        if constexpr (HEADS == 2) {
            Tile::template load<5>(step.weights[1][i]);
            Tile::template dot_bf16<2, 5, 6>(), Tile::template dot_bf16<3, 5, 7>();
        }
    }
    Tile::template store<0>(step.sums[0][group]), Tile::template store<1>(step.sums[0][group + 1]);
    if constexpr (HEADS == 2)
        Tile::template store<2>(step.sums[1][group]), Tile::template store<3>(step.sums[1][group + 1]);
}

// Up to 16 positions of the queries in `step`; the first sees `seen` keys, each further one sees one more. Leaves sums
// and their totals in `step`.
template <class Tile, int HEADS>
void attend(AttentionStep& step, const KeyPanels& panels, int64_t seen, int num_rows) {
    step.begin();
    const int64_t num_panels = (seen + num_rows - 1 + PANEL_KEYS - 1) / PANEL_KEYS;
    for (int64_t first = 0; first < num_panels; first += BLOCK_PANELS) {
        const int64_t count = std::min(BLOCK_PANELS, num_panels - first), num_keys = count * PANEL_KEYS;
        for (int64_t i = 0; i < count; ++i) {
            float* const scores[2] = {step.scores[0][0] + i * PANEL_KEYS, step.scores[1][0] + i * PANEL_KEYS};
            score_panel<Tile, HEADS>(step.queries, panels.keys(first + i), scores);
        }
        for (int head = 0; head < HEADS; ++head)
            for (int row = 0; row < num_rows; ++row) {
                const int64_t here = seen + row - first * PANEL_KEYS;
                step.softmax(head, row, std::clamp<int64_t>(here, 0, num_keys), num_keys, first == 0);
            }
        for (int group = 0; group < 8; group += 2) weigh_values<Tile, HEADS>(step, panels, first, count, group);
    }
}

// The 128 outputs of one position and head, as lines of `out`.
inline void put_output(const AttentionStep& step, int head, int row, const Tiles<bf16>& out, int64_t out_row,
                       int64_t first_input) {
    const float norm = 1.f / step.total[head][row];
    for (int64_t d = 0; d < HEAD_DIM; d += LANES)
        store(out.at(out_row, first_input + d), load(&step.sums[head][d / 16][row][d % 16]) * norm);
}
