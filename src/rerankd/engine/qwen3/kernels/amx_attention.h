// Causal attention with AMX: one sequence and one key-value head at a time.
//
// Panel i of a sequence holds the positions 32 i to 32 i + 31 of its prompt, wherever the prefix ends: the whole panels
// of a prefix are packed once for all sequences that share it, and its last keys go in front of a sequence's own. So the
// order of a query's sums depends on its position only, not on what was computed before or stands beside it.
#pragma once

#include <vector>

#include "amx_attend.h"
#include "memory.h"

template <class Tile>
class AmxAttention {
  public:
    // Of all threads: the packed prefixes, [prefix][kv_head][panel].
    struct Shared {
        Buffer<uint8_t> panels;
        std::vector<int64_t> first;  // panel of each prefix, for head 0

        void prepare(const Sequences<bf16>& in, int64_t num_kv_heads) {
            int64_t total = 0;
            first.clear();
            for (int64_t i = 0; i < in.num_prefixes; ++i) {
                first.push_back(total);
                total += in.prefixes[i].length / PANEL_KEYS * num_kv_heads;
            }
            panels.reserve(total * KV_BYTES);
        }

        uint8_t* panel(int64_t prefix, int64_t length, int64_t kv_head) const {
            return panels.data() + (first[prefix] + length / PANEL_KEYS * kv_head) * KV_BYTES;
        }
    };

    // Of one thread.
    struct Scratch {
        Buffer<uint8_t> own;
        Buffer<AttentionStep> step;
        Guard guard;
    };

    // Every thread calls this, with its tiles configured; they share the work. out: (queries, num_heads × HEAD_DIM).
    static void run(const Heads<bf16>& heads, const Sequences<bf16>& in, const Tiles<bf16>& out, const Shared& shared,
                    Scratch& scratch) {
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < in.num_prefixes * heads.num_kv_heads; ++task)
            pack_prefix(in, task / heads.num_kv_heads, task % heads.num_kv_heads, heads.num_kv_heads, shared);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < in.num_sequences * heads.num_kv_heads; ++task) {
            const int64_t kv_head = task % heads.num_kv_heads;
            const Sequence& sequence = in.sequences[task / heads.num_kv_heads];
            scratch.guard.run([&] {
                const KeyPanels panels = collect(heads, in, sequence, kv_head, shared, scratch);
                attend_sequence(heads, sequence, in.prefixes[sequence.prefix].length, kv_head, panels, out, scratch);
            });
        }
    }

  private:
    static void pack_prefix(const Sequences<bf16>& in, int64_t index, int64_t kv_head, int64_t num_kv_heads,
                            const Shared& shared) {
        const Prefix<bf16>& prefix = in.prefixes[index];
        const int64_t stride = num_kv_heads * HEAD_DIM;
        uint8_t* to = shared.panel(index, prefix.length, kv_head);
        for (int64_t first = 0; first + PANEL_KEYS <= prefix.length; first += PANEL_KEYS, to += KV_BYTES) {
            const int64_t at = first * stride + kv_head * HEAD_DIM;
            PanelRows rows;
            rows.put(0, PANEL_KEYS, prefix.key + at, prefix.value + at, stride);
            pack_panel(rows, to);
        }
    }

    // Packs the sequence's own panels: the last keys of its prefix, then its rows.
    static KeyPanels collect(const Heads<bf16>& heads, const Sequences<bf16>& in, const Sequence& sequence,
                             int64_t kv_head, const Shared& shared, Scratch& scratch) {
        const Prefix<bf16>& prefix = in.prefixes[sequence.prefix];
        const int64_t num_shared = prefix.length / PANEL_KEYS, left = prefix.length % PANEL_KEYS;
        const int64_t stride = heads.num_kv_heads * HEAD_DIM;
        const int64_t in_prefix = (prefix.length - left) * stride + kv_head * HEAD_DIM;
        const int64_t in_own = (kv_head * heads.capacity + sequence.first_row) * HEAD_DIM;
        const int64_t num_own = divide_up(left + sequence.num_rows, PANEL_KEYS);
        uint8_t* own = scratch.own.reserve(num_own * KV_BYTES);
        for (int64_t panel = 0, row = 0; panel < num_own; ++panel) {
            PanelRows rows;
            const int64_t before = panel ? 0 : left, count = std::min(PANEL_KEYS - before, sequence.num_rows - row);
            if (before) rows.put(0, before, prefix.key + in_prefix, prefix.value + in_prefix, stride);
            const int64_t at = in_own + row * HEAD_DIM;
            rows.put(before, count, heads.key + at, heads.value + at, HEAD_DIM);
            pack_panel(rows, own + panel * KV_BYTES);
            row += count;
        }
        return {shared.panel(sequence.prefix, prefix.length, kv_head), num_shared, own};
    }

    static void attend_sequence(const Heads<bf16>& heads, const Sequence& sequence, int64_t prefix_len, int64_t kv_head,
                                const KeyPanels& panels, const Tiles<bf16>& out, Scratch& scratch) {
        AttentionStep& step = *scratch.step.reserve(1);
        const int64_t group = heads.num_heads / heads.num_kv_heads;
        const int64_t first_seen = prefix_len + sequence.num_rows - sequence.num_queries + 1;
        for (int64_t at = 0; at < sequence.num_queries; at += TILE_ROWS) {
            const int num_rows = std::min(TILE_ROWS, sequence.num_queries - at);
            for (int64_t i = 0; i < group; i += 2) {
                const int64_t head = kv_head * group + i;
                const bool both = i + 1 < group;
                step.load_queries(heads, head, both, sequence.first_query + at, num_rows);
                (both ? attend<Tile, 2> : attend<Tile, 1>)(step, panels, first_seen + at, num_rows);
                for (int64_t h = 0; h <= both; ++h)
                    for (int row = 0; row < num_rows; ++row)
                        put_output(step, h, row, out, sequence.first_query + at + row, (head + h) * HEAD_DIM);
            }
        }
    }
};
