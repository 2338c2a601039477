// The operations on whole rows: RMSNorm, and rows → bytes with a scale.

#pragma once

#include <algorithm>

#include "vector.h"

// Turns rows into the input of a product: in the element type, or as bytes around the zero point with the row's scale, so
// that the largest is 127 steps away. A row with a NaN has NaN for its scale.
template <class Value, int ZERO_POINT>
struct RowWriter {
    static constexpr bool BYTES = sizeof(Value) == 1;
    static constexpr int64_t NEXT_LINE = TILE_ROWS * LINE<Value>;
    Tiles<Value> tiles;
    float* scale;  // one a row; unused without bytes

    // values: (size,).
    void write(int64_t row, const float* values, int64_t size) const {
        float inverse = 1;
        if constexpr (BYTES) {
            I most = splat(0);
            for (int64_t i = 0; i < size; i += LANES) most = max(most, magnitude(load(values + i)));
            inverse = put_scale(row, most);
        }
        Value* to = tiles.line(row, 0);
        for (int64_t line = 0; line < size; line += LINE<Value>, to += NEXT_LINE)
            for (int64_t i = 0; i < std::min(LINE<Value>, size - line); i += LANES)
                put(to + i, load(values + line + i), inverse);
    }

    // The rows of one tile, line by line, since the rows of a line lie side by side.
    template <class Element>
    void write_tile(int64_t tile, const Tiles<Element>& from) const {
        static_assert(BYTES && LINE<Value> % LINE<Element> == 0);
        const int64_t row = tile * TILE_ROWS;
        I most[TILE_ROWS] = {};
        for (int64_t line = 0; line < from.num_lines; ++line)
            for_tile(from.line(row, line), [&](int64_t r, int64_t, F x) { most[r] = max(most[r], magnitude(x)); });
        F inverse[TILE_ROWS];
        for (int64_t r = 0; r < TILE_ROWS; ++r) inverse[r] = splat(put_scale(row + r, most[r]));
        for (int64_t line = 0; line < from.num_lines; ++line) {
            const int64_t input = line * LINE<Element>;
            Value* const to = tiles.line(row, input / LINE<Value>) + input % LINE<Value>;
            for_tile(from.line(row, line),
                     [&](int64_t r, int64_t i, F x) { put(to + r * LINE<Value> + i, x, inverse[r]); });
        }
    }

  private:
    // Returns what the row is multiplied by.
    float put_scale(int64_t row, I magnitudes) const {
        const float most = bits_of<float>(largest(magnitudes));
        scale[row] = most / 127;
        return most > 0 ? 127 / most : 0.f;
    }

    template <class Factor>
    static void put(Value* to, F x, Factor inverse) {
        if constexpr (BYTES)
            store_bytes(to, to_int(x * inverse) + ZERO_POINT);
        else
            store(to, x);
    }

    // use(row, its value's place in the line, LANES values).
    template <class Element, class Use>
    static inline __attribute__((always_inline)) void for_tile(const Element* line, const Use& use) {
#pragma GCC unroll 16
        for (int64_t r = 0; r < TILE_ROWS; ++r)
#pragma GCC unroll 4
            for (int64_t i = 0; i < LINE<Element>; i += LANES) use(r, i, load(line + r * LINE<Element> + i));
    }
};

// x / rms(x) × weight. x: (size,).
template <class Element>
void rmsnorm(const float* x, const Element* weight, float* out, int64_t size, float eps) {
    F squares = splat(0.f);
    for (int64_t i = 0; i < size; i += LANES) {
        const F value = load(x + i);
        squares += value * value;
    }
    const float scale = 1.f / std::sqrt(sum(squares) / size + eps);
    for (int64_t i = 0; i < size; i += LANES) store(out + i, load(x + i) * scale * load(weight + i));
}
