// Matrix products with AMX: 32 rows × one panel of 32 outputs a step, in 2 × 2 tiles of sums.
//
// A K block is 16 lines of K: 32 KB of a panel, which stay in L1 while all row blocks pass. Where the rows × K of a task
// fit in half of L2, panels are outside (each row is read from L2 once a panel); else K blocks are outside, and the sums
// of the task's panels stay in L2. Each output is summed in one order, whatever the rows: in K blocks from 0, by the
// tile's own order inside.
//
// The epilogue of a row block runs inside the steps of the next one, two rows a step: the vector ports idle while the
// tiles multiply. The weights of the next block are prefetched into L2 meanwhile.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "layout.h"
#include "memory.h"
#include "tile.h"

constexpr int64_t K_BLOCK = 16;               // lines of K: tiles of a row
constexpr int64_t BLOCK_ROWS = 2 * TILE_ROWS;  // of a step
constexpr int64_t HALF_L2 = 1 << 20;           // of 2 MB, which every processor with AMX has
constexpr int64_t PANEL_TILE_BYTES = 2 * TILE_BYTES;  // a line of K of a panel: two tiles of 16 outputs

// The epilogue of the row block whose sums became whole last.
template <class Epilogue, class Sum>
class Pending {
    const Epilogue& epilogue_;
    const Sum* sums_ = nullptr;
    int64_t stride_ = 0, panel_ = 0, row_ = 0, left_ = 0;

  public:
    explicit Pending(const Epilogue& epilogue) : epilogue_(epilogue) {}

    void begin(int64_t row, int64_t num_rows, int64_t panel, const Sum* sums, int64_t stride) {
        row_ = row, left_ = num_rows, panel_ = panel, sums_ = sums, stride_ = stride;
    }

    void advance(int64_t most) {
        const int64_t num_rows = std::min(most, left_);
        if (!num_rows) return;
        epilogue_.rows(row_, num_rows, panel_, sums_, stride_);
        row_ += num_rows, left_ -= num_rows, sums_ += num_rows * stride_;
    }

    void finish() { advance(left_); }
};

// Lines of the weights that come next, asked for a few at a time.
class Prefetch {
    const uint8_t* at_;
    int64_t lines_a_step_;

  public:
    Prefetch(const uint8_t* at, int64_t row_blocks)
        : at_(at), lines_a_step_((PANEL_TILE_BYTES / LINE_BYTES + row_blocks - 1) / row_blocks) {}

    void step() {
        for (int64_t i = 0; i < lines_a_step_; ++i) __builtin_prefetch(at_ + i * LINE_BYTES, 0, 2);
        at_ += lines_a_step_ * LINE_BYTES;
    }
};

template <class Tile, class Element>
struct AmxDot;

template <class Tile>
struct AmxDot<Tile, bf16> {
    using Sum = float;

    template <int C, int A, int B>
    static void dot() {
        Tile::template dot_bf16<C, A, B>();
    }
};

template <class Tile>
struct AmxDot<Tile, int8_t> {
    using Sum = int32_t;

    template <int C, int A, int B>
    static void dot() {
        Tile::template dot_int8<C, A, B>();
    }
};

// 32 rows (BOTH) or 16 × one panel over `steps` lines of K. Sums are rows of 32, `stride` apart; with `first` they start
// from zero. a: tiles of 16 rows, the second 16 rows `a_stride` bytes behind. `between` runs once a step.
template <class Tile, class Element, bool BOTH, class Between>
inline void multiply_block(const uint8_t* a, int64_t a_stride, const uint8_t* b, int64_t steps, bool first, void* sums,
                     int64_t stride, const Between& between) {
    using Dot = AmxDot<Tile, Element>;
    uint8_t* const at[4] = {(uint8_t*)sums, (uint8_t*)sums + LINE_BYTES, (uint8_t*)sums + TILE_ROWS * stride,
                            (uint8_t*)sums + TILE_ROWS * stride + LINE_BYTES};
    if (first) {
        Tile::template zero<0>(), Tile::template zero<1>();
        if constexpr (BOTH) Tile::template zero<2>(), Tile::template zero<3>();
    } else {
        Tile::template load<0>(at[0], stride), Tile::template load<1>(at[1], stride);
        if constexpr (BOTH) Tile::template load<2>(at[2], stride), Tile::template load<3>(at[3], stride);
    }
    for (int64_t step = 0; step < steps; ++step) {
        Tile::template stream_load<4>(a + step * TILE_BYTES);
        Tile::template load<6>(b + step * PANEL_TILE_BYTES);
        Tile::template load<7>(b + step * PANEL_TILE_BYTES + TILE_BYTES);
        Dot::template dot<0, 4, 6>(), Dot::template dot<1, 4, 7>();
        if constexpr (BOTH) {
            Tile::template stream_load<5>(a + a_stride + step * TILE_BYTES);
            Dot::template dot<2, 5, 6>(), Dot::template dot<3, 5, 7>();
        }
        between();
    }
    Tile::template store<0>(at[0], stride), Tile::template store<1>(at[1], stride);
    if constexpr (BOTH) Tile::template store<2>(at[2], stride), Tile::template store<3>(at[3], stride);
}

// Sums of a task's rows: PANELS panels side by side, as one slot for each group of panels that is in work at once. The
// gap of a line keeps the rows of a tile in different sets of L1.
template <int64_t PANELS>
constexpr int64_t SUMS_STRIDE = PANELS == 1 ? PANEL : PANELS * PANEL + 16;

// One task, in its loop order.
template <class Tile, class Value, class Epilogue>
class AmxTask {
    using Sum = typename AmxDot<Tile, Value>::Sum;
    static constexpr int64_t PANELS = Epilogue::PANELS, STRIDE = SUMS_STRIDE<PANELS>;
    static constexpr int64_t SLOTS = PANELS == 1 ? 2 : 1;  // two heads would take too much of L2

    const Tiles<Value>& rows_;
    const Panels<Value>& weights_;
    const Task& task_;
    const int64_t lines_, slot_size_, num_slots_;
    Sum* const sums_;
    Pending<Epilogue, Sum> pending_;

  public:
    AmxTask(const Tiles<Value>& rows, const Panels<Value>& weights, const Task& task, Buffer<Sum>& sums, bool k_outside,
            const Epilogue& epilogue)
        : rows_(rows), weights_(weights), task_(task), lines_(weights.num_lines),
          slot_size_(round_up(task.num_rows, TILE_ROWS) * STRIDE), num_slots_(k_outside ? task.num_panels / PANELS : SLOTS),
          sums_(sums.reserve(slot_size_ * num_slots_)), pending_(epilogue) {}

    void panels_outside() {
        for (int64_t panel = 0; panel < task_.num_panels; ++panel) {
            for (int64_t line = 0; line < lines_; line += K_BLOCK)
                block(panel, line, is_last(panel, line) ? then() : weights_at(panel, line + K_BLOCK));
            if (num_slots_ == 1 && panel % PANELS == PANELS - 1) pending_.finish();  // before its sums are overwritten
        }
        pending_.finish();
    }

    void k_outside() {
        for (int64_t line = 0; line < lines_; line += K_BLOCK)
            for (int64_t panel = 0; panel < task_.num_panels; ++panel) {
                const bool next_line = panel + 1 == task_.num_panels;
                const uint8_t* next = next_line ? weights_at(0, line + K_BLOCK) : weights_at(panel + 1, line);
                block(panel, line, is_last(panel, line) ? then() : next);
            }
        pending_.finish();
    }

  private:
    const uint8_t* weights_at(int64_t panel, int64_t line) const {
        return reinterpret_cast<const uint8_t*>(weights_.panel(task_.first_panel + panel)) + line * PANEL_TILE_BYTES;
    }

    bool is_last(int64_t panel, int64_t line) const {
        return panel + 1 == task_.num_panels && line + K_BLOCK >= lines_;
    }

    const uint8_t* then() const { return static_cast<const uint8_t*>(task_.then); }

    // All rows × one panel, over the K block at `line`. next: the block of weights that comes after it.
    void block(int64_t panel, int64_t line, const uint8_t* next) {
        const int64_t steps = std::min(K_BLOCK, lines_ - line), group = panel / PANELS;
        const bool whole = line + steps == lines_ && panel % PANELS == PANELS - 1;
        Prefetch prefetch(next, divide_up(task_.num_rows, BLOCK_ROWS));
        const auto between = [&] {
            prefetch.step();
            pending_.advance(BLOCK_ROWS / K_BLOCK);
        };
        Sum* sums = sums_ + group % num_slots_ * slot_size_;
        for (int64_t row = 0; row < task_.num_rows; row += BLOCK_ROWS, sums += BLOCK_ROWS * STRIDE) {
            const int64_t first_row = task_.first_row + row, left = task_.num_rows - row;
            const auto multiply = [&](auto both) {
                multiply_block<Tile, Value, both.value>(
                    reinterpret_cast<const uint8_t*>(rows_.line(first_row, line)), lines_ * TILE_BYTES,
                    weights_at(panel, line), steps, line == 0, sums + panel % PANELS * PANEL, STRIDE * sizeof(Sum),
                    between);
            };
            left > TILE_ROWS ? multiply(std::true_type{}) : multiply(std::false_type{});
            if (!whole) continue;
            pending_.finish();
            pending_.begin(first_row, std::min(left, BLOCK_ROWS), task_.first_panel + group * PANELS, sums, STRIDE);
        }
    }
};

// Fits `multiply` of product.h.
template <class Tile, class Element>
struct AmxProduct {
    using Value = Element;
    using Weight = Element;
    using Sum = typename AmxDot<Tile, Element>::Sum;
    static constexpr int ZERO_POINT = 0;

    struct Scratch {
        Buffer<Sum> sums;
        Guard guard;
    };

    static int64_t rows_a_task(int64_t) { return 512; }

    // Eight panels let K be outside; fewer where every thread would not get two tasks.
    static int64_t panels_a_task(int64_t at_least, int64_t num_panels) {
        const int64_t panels = std::min<int64_t>(8, num_panels / (2 * omp_get_num_threads()));
        return std::max(at_least, panels / at_least * at_least);
    }

    template <class Epilogue>
    static void task(const Tiles<Value>& rows, const Panels<Weight>& weights, const Task& task, Scratch& scratch,
                     const Epilogue& epilogue) {
        const bool k_outside = task.num_rows * rows.num_lines * LINE_BYTES > HALF_L2;
        AmxTask<Tile, Element, Epilogue> todo(rows, weights, task, scratch.sums, k_outside, epilogue);
        k_outside ? todo.k_outside() : todo.panels_outside();
    }
};
