// The operations on whole rows: RMSNorm, and rows → bytes with a scale.

#pragma once

#include "vector.h"

// Turns a row of float32 into the tiles of a product: in the element type, or as bytes around the zero point with the
// row's scale, so that the largest is 127 steps away. A row with a NaN has NaN for its scale.
template <class Value, int ZERO_POINT>
struct RowWriter {
    Tiles<Value> tiles;
    float* scale;  // one a row; unused without bytes

    void write(int64_t row, const float* values, int64_t size) const {
        if constexpr (sizeof(Value) > 1) {
            for (int64_t i = 0; i < size; i += LANES) store(tiles.at(row, i), load(values + i));
        } else {
            F top = splat(0.f);
            I nan = splat(0);
            for (int64_t i = 0; i < size; i += LANES) {
                const F x = load(values + i);
                top = max(abs(x), top);
                nan |= x != x;
            }
            const float most = sum(__builtin_convertvector(nan, F)) != 0 ? NAN : largest(top);
            scale[row] = most / 127;
            const F inverse = splat(most > 0 ? 127 / most : 0.f);
            for (int64_t i = 0; i < size; i += LANES) {
                const F steps = round(load(values + i) * inverse);
                store_bytes(tiles.at(row, i), __builtin_convertvector(steps, I) + ZERO_POINT);
            }
        }
    }
};

// x / rms(x) × weight, float32. x: (size,).
template <class Element>
void rmsnorm(const Element* x, const Element* weight, float* out, int64_t size, float eps) {
    F squares = splat(0.f);
    for (int64_t i = 0; i < size; i += LANES) {
        const F value = load(x + i);
        squares += value * value;
    }
    const float scale = 1.f / std::sqrt(sum(squares) / size + eps);
    for (int64_t i = 0; i < size; i += LANES) store(out + i, load(x + i) * scale * load(weight + i));
}
