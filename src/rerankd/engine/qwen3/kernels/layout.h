// How the kernels lay out rows, weights and heads. Every kind of kernels uses the same layouts.
//
// A line is 64 bytes: 16 float32, 32 bfloat16 or 64 bytes. A tile is 16 rows of one line each, 1 KB without a gap.
//
// Tiles: the input of a product, (rows, inputs). Rows are padded to a multiple of 16, inputs to whole lines. What stands
// in a padding row is arbitrary; inputs beyond the last are zero.
//
//              line 0          line 1               line n-1
//   rows 0-15  ┌─ 16 × 64 B ─┬─ 16 × 64 B ─┬  …  ┬─ 16 × 64 B ─┐    addresses grow from left to right,
//   rows 16-31 ├─ 16 × 64 B ─┼─ 16 × 64 B ─┼  …  ┼─ 16 × 64 B ─┤    then from top to bottom
//
// Panels: the weights of a product. A panel holds 32 outputs, as two halves of 16 for each line of inputs. A half holds
// 16 groups of inputs that fill 4 bytes: 1 float32, 2 bfloat16 or 4 bytes. So one vector of 16 × 4 bytes multiplies one
// group of inputs for 16 outputs, and one half is what an AMX unit calls tile B.
//
//   panel p, line l:   ┌ half 0: group 0 [output 0 … 15], group 1 [output 0 … 15], … group 15 ┐  1 KB
//                      └ half 1: group 0 [output 16 … 31], …                                  ┘  1 KB
//
// A panel of gate_up holds 16 outputs of gate in half 0, and the same 16 of up in half 1: SiLU needs one panel only.
//
// Query, key and value: one head after the other, [head][row][HEAD_DIM], so that the rows of a head have no gap.

#pragma once

#include <cstdint>

struct bf16 {
    uint16_t bits;
};

constexpr int64_t LINE_BYTES = 64;
constexpr int64_t TILE_ROWS = 16;
constexpr int64_t HALF = 16;       // outputs of half a panel
constexpr int64_t PANEL = 32;      // outputs of a panel
constexpr int64_t HEAD_DIM = 128;  // the kernels compute no other
constexpr int64_t PANELS_A_HEAD = HEAD_DIM / PANEL;

template <class T>
constexpr int64_t LINE = LINE_BYTES / sizeof(T);  // values of a line

constexpr int64_t divide_up(int64_t x, int64_t y) { return (x + y - 1) / y; }
constexpr int64_t round_up(int64_t x, int64_t y) { return divide_up(x, y) * y; }

template <class T>
struct Tiles {
    T* data;
    int64_t num_lines;

    // The line that holds input `index × LINE` of a row. Lines of a row are TILE_ROWS lines apart.
    T* line(int64_t row, int64_t index) const {
        return data + ((row / TILE_ROWS * num_lines + index) * TILE_ROWS + row % TILE_ROWS) * LINE<T>;
    }
    T* at(int64_t row, int64_t input) const { return line(row, input / LINE<T>) + input % LINE<T>; }
};

// scale, offset: one for each output, in the order of the panels; only for int8 weights. offset is the product of the
// zero point of the rows with the weights: what the sums have too much.
template <class W>
struct Panels {
    const W* data;
    int64_t num_lines, num_panels;
    const float* scale;
    const int32_t* offset;

    const W* panel(int64_t index) const { return data + index * num_lines * PANEL * LINE<W>; }
};

// What one thread computes of a product: all of these rows × these panels. then: the panels of its next task, as far as
// that can be known; they are fetched meanwhile.
struct Task {
    int64_t first_row, num_rows, first_panel, num_panels;
    const void* then;
};
