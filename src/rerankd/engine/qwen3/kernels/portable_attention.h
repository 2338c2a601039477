// Attention in float32 by vectors of any width: for kinds without products of bfloat16.
//
// A panel is LANES keys as [HEAD_DIM][LANES], so that a query meets LANES keys in one step, and their values as
// [HEAD_DIM / TILE_DIM][LANES][TILE_DIM], so that a tile of outputs reads them in one stream. The whole panels of a
// prefix are packed once for all sequences that share it; its last keys stand in front of a sequence's own, so that only
// the end of a sequence is padded.
//
// Keys come in blocks, which stay in the L2 cache. The outputs so far are scaled whenever a row's largest score grows.

#pragma once

#include <algorithm>
#include <vector>

#include "interleave.h"
#include "memory.h"
#include "sequences.h"

class PortableAttention {
    static constexpr int ROWS = 6;                         // of a tile: ROWS × VECTORS sums stay in registers,
    static constexpr int VECTORS = LANES == 8 ? 2 : 4;     // of which AVX2 has 16, and the others 32
    static constexpr int64_t TILE_DIM = VECTORS * LANES;
    static constexpr int64_t KEYS_SIZE = LANES * HEAD_DIM;  // values in the keys of a panel
    static constexpr int64_t PANEL_SIZE = 2 * KEYS_SIZE;
    static constexpr int64_t BLOCK = 512;  // keys
    static_assert(HEAD_DIM % TILE_DIM == 0 && BLOCK % LANES == 0);

    // A row's softmax so far: the largest score, and the sum of the exponentials.
    struct Softmax {
        float most, total;
    };

  public:
    // Of all threads: the packed prefixes, [prefix][kv_head][panel].
    struct Shared {
        Buffer<float> panels;
        std::vector<int64_t> first;  // panel of each prefix, for head 0

        void prepare(const Sequences<float>& in, int64_t num_kv_heads) {
            int64_t total = 0;
            first.clear();
            for (int64_t i = 0; i < in.num_prefixes; ++i) {
                first.push_back(total);
                total += in.prefixes[i].length / LANES * num_kv_heads;
            }
            panels.reserve(total * PANEL_SIZE);
        }
        float* panel(int64_t prefix, int64_t length, int64_t kv_head) const {
            return panels.data() + (first[prefix] + length / LANES * kv_head) * PANEL_SIZE;
        }
    };

    // Of one thread. spare: outputs of the rows that fill up the last tile.
    struct Scratch {
        Buffer<float> own, scores, spare;
        std::vector<const float*> panels;
        std::vector<Softmax> softmax;
        Guard guard;
    };

    // Every thread calls this; they share the work. out: (queries, num_heads × HEAD_DIM).
    static void run(const Heads<float>& heads, const Sequences<float>& in, const Tiles<float>& out,
                    const Shared& shared, Scratch& scratch) {
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < in.num_prefixes * heads.num_kv_heads; ++task)
            pack_prefix(in, task / heads.num_kv_heads, task % heads.num_kv_heads, heads.num_kv_heads, shared);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < in.num_sequences * heads.num_kv_heads; ++task) {
            const int64_t kv_head = task % heads.num_kv_heads;
            const Sequence& sequence = in.sequences[task / heads.num_kv_heads];
            scratch.guard.run([&] {
                scratch.scores.reserve(ROWS * BLOCK);
                scratch.spare.reserve(TILE_ROWS * HEAD_DIM);
                const int64_t num_keys = collect(heads, in, sequence, kv_head, shared, scratch);
                attend(heads, sequence, kv_head, num_keys, out, scratch);
            });
        }
    }

  private:
    static void pack_prefix(const Sequences<float>& in, int64_t index, int64_t kv_head, int64_t num_kv_heads,
                            const Shared& shared) {
        const Prefix<float>& prefix = in.prefixes[index];
        float* to = shared.panel(index, prefix.length, kv_head);
        const int64_t stride = num_kv_heads * HEAD_DIM;
        for (int64_t key = 0; key + LANES <= prefix.length; key += LANES, to += PANEL_SIZE) {
            const float *keys[LANES], *values[LANES];
            for (int64_t i = 0; i < LANES; ++i) {
                keys[i] = prefix.key + (key + i) * stride + kv_head * HEAD_DIM;
                values[i] = prefix.value + (key + i) * stride + kv_head * HEAD_DIM;
            }
            pack(keys, values, LANES, to);
        }
    }

    // Lists the panels of a sequence, of which it packs its own; returns the number of keys.
    static int64_t collect(const Heads<float>& heads, const Sequences<float>& in, const Sequence& sequence,
                           int64_t kv_head, const Shared& shared, Scratch& scratch) {
        const Prefix<float>& prefix = in.prefixes[sequence.prefix];
        const int64_t shared_panels = prefix.length / LANES, left = prefix.length % LANES;
        const int64_t own_panels = divide_up(left + sequence.num_rows, LANES);
        float* own = scratch.own.reserve(own_panels * PANEL_SIZE);
        const float* first = shared.panel(sequence.prefix, prefix.length, kv_head);
        scratch.panels.clear();
        for (int64_t i = 0; i < shared_panels; ++i) scratch.panels.push_back(first + i * PANEL_SIZE);
        const int64_t stride = heads.num_kv_heads * HEAD_DIM, from = prefix.length - left;
        const int64_t own_row = (kv_head * heads.capacity + sequence.first_row) * HEAD_DIM;
        for (int64_t panel = 0; panel < own_panels; ++panel) {
            const float *keys[LANES], *values[LANES];
            const int64_t n = std::min(LANES, left + sequence.num_rows - panel * LANES);
            for (int64_t i = 0; i < n; ++i) {
                const int64_t at = panel * LANES + i, in_own = own_row + (at - left) * HEAD_DIM;
                const int64_t in_prefix = (from + at) * stride + kv_head * HEAD_DIM;
                keys[i] = at < left ? prefix.key + in_prefix : heads.key + in_own;
                values[i] = at < left ? prefix.value + in_prefix : heads.value + in_own;
            }
            pack(keys, values, n, own + panel * PANEL_SIZE);
            scratch.panels.push_back(own + panel * PANEL_SIZE);
        }
        return prefix.length + sequence.num_rows;
    }

    // n keys and values, zeros up to LANES → one panel.
    static void pack(const float* const* keys, const float* const* values, int64_t n, float* to) {
        const F zero = splat(0.f);
        for (int64_t d = 0; d < HEAD_DIM; d += LANES) {
            F block[LANES];
            for (int64_t i = 0; i < LANES; ++i) block[i] = i < n ? load(keys[i] + d) : zero;
            transpose(block);
            std::memcpy(to + d * LANES, block, sizeof block);
        }
        for (int64_t i = 0; i < LANES; ++i)
            for (int64_t d = 0; d < HEAD_DIM; d += LANES)
                store(to + KEYS_SIZE + (d / TILE_DIM * LANES + i) * TILE_DIM + d % TILE_DIM,
                      i < n ? load(values[i] + d) : zero);
    }

    // Of LANES rows of LANES. Each round interleaves row i with row i + LANES / 2.
    static void transpose(F (&x)[LANES]) {
        for (int64_t round = LANES; round > 1; round /= 2) {
            F y[LANES];
            for (int64_t i = 0; i < LANES / 2; ++i) {
                y[2 * i] = interleave_first(x[i], x[i + LANES / 2]);
                y[2 * i + 1] = interleave_last(x[i], x[i + LANES / 2]);
            }
            std::memcpy(x, y, sizeof x);
        }
    }

    // The rows of a tile: where each reads and writes, and how many keys of the block it sees.
    struct Tile {
        const float* query[ROWS];
        float* out[ROWS];
        int64_t seen[ROWS];
    };

    static void attend(const Heads<float>& heads, const Sequence& sequence, int64_t kv_head, int64_t num_keys,
                       const Tiles<float>& out, Scratch& scratch) {
        const int64_t group = heads.num_heads / heads.num_kv_heads;
        const int64_t rows = sequence.num_queries * group;  // the heads of a position lie side by side
        scratch.softmax.assign(rows, {NONE, 0.f});
        for (int64_t block = 0; block < num_keys; block += BLOCK)
            for (int64_t row = 0; row < rows; row += ROWS) {
                Tile tile;
                const int n = int(std::min<int64_t>(ROWS, rows - row));
                for (int r = 0; r < ROWS; ++r) {
                    const int64_t i = row + std::min(r, n - 1);  // the last tile repeats its last row
                    const int64_t query = sequence.first_query + i / group, head = kv_head * group + i % group;
                    tile.query[r] = heads.query + (head * heads.capacity + query) * HEAD_DIM;
                    tile.out[r] = r < n ? out.at(query, head * HEAD_DIM) : scratch.spare.data() + r * LINE<float>;
                    const int64_t seen = num_keys - sequence.num_queries + i / group + 1;
                    tile.seen[r] = std::clamp<int64_t>(seen - block, 0, BLOCK);
                }
                if (tile.seen[ROWS - 1]) add_block(tile, block, &scratch.softmax[row], n, scratch);
            }
        for (int64_t row = 0; row < rows; ++row) {
            float* at = out.at(sequence.first_query + row / group, (kv_head * group + row % group) * HEAD_DIM);
            const float norm = 1.f / scratch.softmax[row].total;
            for (int64_t d = 0; d < HEAD_DIM; d += LANES) store(at + in_tiles(d), load(at + in_tiles(d)) * norm);
        }
    }

    // Values from the first one of a row of the tiles to another one of the same head.
    static int64_t in_tiles(int64_t d) { return d / LINE<float> * TILE_ROWS * LINE<float> + d % LINE<float>; }

    static void add_block(const Tile& tile, int64_t block, Softmax* softmax, int n, Scratch& scratch) {
        const float* const* panels = scratch.panels.data() + block / LANES;
        const int64_t num_panels = divide_up(tile.seen[ROWS - 1], LANES);
        float* scores = scratch.scores.data();
        int64_t p = 0;
        for (; p + VECTORS <= num_panels; p += VECTORS) scores_of<VECTORS>(tile, panels + p, scores + p * LANES);
        for (; p < num_panels; ++p) scores_of<1>(tile, panels + p, scores + p * LANES);
        float factor[ROWS];
        for (int r = 0; r < ROWS; ++r) {
            Softmax copy{NONE, 0.f};
            factor[r] = weigh(scores + r * BLOCK, tile.seen[r], num_panels * LANES, r < n ? softmax[r] : copy);
        }
        for (int64_t d = 0; d < HEAD_DIM; d += TILE_DIM) add_values(tile, scores, panels, d, factor);
    }

    // Scores of a tile × some panels, rows BLOCK apart.
    template <int COUNT>
    static void scores_of(const Tile& tile, const float* const* panels, float* scores) {
        F sums[ROWS][COUNT] = {};
        for (int64_t d = 0; d < HEAD_DIM; ++d) {
            F key[COUNT];
            for (int p = 0; p < COUNT; ++p) key[p] = load(panels[p] + d * LANES);
            for (int r = 0; r < ROWS; ++r)
                for (int p = 0; p < COUNT; ++p) sums[r][p] += key[p] * tile.query[r][d];
        }
        for (int r = 0; r < ROWS; ++r)
            for (int p = 0; p < COUNT; ++p) store(scores + r * BLOCK + p * LANES, sums[r][p]);
    }

    static constexpr float NONE = -1e30f;  // not infinity: the difference of two is no number

    // Scores of a block → weights, zero from `seen` to `padded`. Returns the factor for what was summed before, zero if
    // nothing was.
    static float weigh(float* scores, int64_t seen, int64_t padded, Softmax& softmax) {
        const int64_t whole = seen / LANES * LANES;
        const I rest = lane_numbers() < splat(int32_t(seen - whole));
        F top = splat(softmax.most);
        for (int64_t i = 0; i < whole; i += LANES) top = max(load(scores + i), top);
        if (whole < seen) top = rest ? max(load(scores + whole), top) : top;
        const float most = largest(top), scale = SCORE_SCALE * LOG2_E;
        F total = splat(0.f);
        for (int64_t i = 0; i < padded; i += LANES) {
            F weight = splat(0.f);
            if (i < seen) weight = exp2(load(scores + i) * scale - most * scale);
            if (i == whole) weight = rest ? weight : splat(0.f);
            total += weight;
            store(scores + i, weight);
        }
        const float factor = softmax.most > NONE ? exp2(splat((softmax.most - most) * scale))[0] : 0.f;
        softmax = {most, softmax.total * factor + sum(total)};
        return factor;
    }

    static I lane_numbers() {
        I lane = splat(0);
        for (int64_t i = 0; i < LANES; ++i) lane[i] = int32_t(i);
        return lane;
    }

    // out × factor + weights × values, TILE_DIM of a head's dimensions.
    static void add_values(const Tile& tile, const float* weights, const float* const* panels, int64_t d,
                           const float* factor) {
        F sums[ROWS][VECTORS] = {};
        const int64_t num_keys = tile.seen[ROWS - 1];
        for (int64_t first = 0; first < num_keys; first += LANES) {
            const float* values = panels[first / LANES] + KEYS_SIZE + d * LANES;
            const int64_t n = std::min(LANES, num_keys - first);
            for (int64_t i = 0; i < n; ++i) {
                F value[VECTORS];
                for (int v = 0; v < VECTORS; ++v) value[v] = load(values + i * TILE_DIM + v * LANES);
                for (int r = 0; r < ROWS; ++r)
                    for (int v = 0; v < VECTORS; ++v) sums[r][v] += value[v] * weights[r * BLOCK + first + i];
            }
        }
        for (int r = 0; r < ROWS; ++r)
            for (int v = 0; v < VECTORS; ++v) {
                float* at = tile.out[r] + in_tiles(d + v * LANES);
                store(at, factor[r] != 0.f ? load(at) * factor[r] + sums[r][v] : sums[r][v]);
            }
    }
};
