// What happens to the sums of a product while they are in the cache. See product.h for the interface.

#pragma once

#include "vector.h"

// Sums as they are.
struct PlainSums {
    template <class Sum>
    F at(const Sum* sums, int64_t, int64_t) const {
        return load(sums);
    }
};

// Sums of bytes: less the offset of the output, times the scales of row and output.
struct ScaledSums {
    const float *row_scale, *scale;
    const int32_t* offset;

    F at(const int32_t* sums, int64_t row, int64_t output) const {
        const F exact = __builtin_convertvector(load_as<I>(sums) - load_as<I>(offset + output), F);
        return exact * (load(scale + output) * row_scale[row]);
    }
};

// x += sums.
template <class Element, class Sums>
struct AddTo {
    static constexpr int64_t PANELS = 1;
    Sums sums;
    Element* x;    // (rows, size)
    int64_t size;  // a multiple of HALF

    // What `rows` will read, while the product computes: the rows of x are too far apart for the processor to foresee.
    void prefetch(int64_t first, int64_t count, int64_t panel) const {
        for (int64_t r = 0; r < count; ++r)
            for (int64_t i = 0; i < PANEL; i += LINE<Element>)
                __builtin_prefetch(x + (first + r) * size + panel * PANEL + i, 1);
    }

    template <class Sum>
    void rows(int64_t first, int64_t count, int64_t panel, const Sum* values, int64_t stride) const {
        const int64_t width = size - panel * PANEL < PANEL ? HALF : PANEL;
        for (int64_t r = 0; r < count; ++r)
            for (int64_t i = 0; i < width; i += LANES) {
                Element* at = x + (first + r) * size + panel * PANEL + i;
                store(at, load(at) + sums.at(values + r * stride + i, first + r, panel * PANEL + i));
            }
    }
};

// silu(gate) × up → the rows of `down`.
template <class Element, class Sums>
struct SiluMul {
    static constexpr int64_t PANELS = 1;
    Sums sums;
    Tiles<Element> out;

    void prefetch(int64_t, int64_t, int64_t) const {}

    template <class Sum>
    void rows(int64_t first, int64_t count, int64_t panel, const Sum* values, int64_t stride) const {
        for (int64_t r = 0; r < count; ++r)
            for (int64_t i = 0; i < HALF; i += LANES) {
                const Sum* at = values + r * stride + i;
                const F gate = sums.at(at, first + r, panel * PANEL + i);
                const F up = sums.at(at + HALF, first + r, panel * PANEL + HALF + i);
                store(out.at(first + r, panel * HALF + i), silu(gate) * up);
            }
    }
};

// Query, key and value of a pass, one head after the other: [head][row][HEAD_DIM], of which `capacity` rows have room.
template <class Element>
struct Heads {
    Element *query, *key, *value;
    int64_t num_heads, num_kv_heads, capacity;

    // The row of any head, in the order of qkv's outputs.
    Element* row(int64_t head, int64_t row) const {
        Element* const to = head < num_heads ? query : head < num_heads + num_kv_heads ? key : value;
        const int64_t before = head < num_heads ? 0 : head < num_heads + num_kv_heads ? num_heads : num_heads + num_kv_heads;
        return to + ((head - before) * capacity + row) * HEAD_DIM;
    }
};

// RMSNorm and RoPE of a query or key head; a value head as it is.
template <class Element, class Sums>
struct NormRope {
    static constexpr int64_t PANELS = PANELS_A_HEAD;
    Sums sums;
    Heads<Element> heads;
    const Element* weights;  // (num_heads + num_kv_heads, HEAD_DIM)
    const float *cos, *sin;  // (rows, HEAD_DIM / 2)
    float eps;

    void prefetch(int64_t, int64_t, int64_t) const {}

    template <class Sum>
    void rows(int64_t first, int64_t count, int64_t panel, const Sum* values, int64_t stride) const {
        const int64_t head = panel / PANELS;
        const bool is_value = head >= heads.num_heads + heads.num_kv_heads;
        for (int64_t r = 0; r < count; ++r) {
            const int64_t row = first + r;
            F x[HEAD_DIM / LANES];
            for (int64_t i = 0; i < HEAD_DIM / LANES; ++i)
                x[i] = sums.at(values + r * stride + i * LANES, row, panel * PANEL + i * LANES);
            if (is_value)
                for (int64_t i = 0; i < HEAD_DIM / LANES; ++i) store(heads.row(head, row) + i * LANES, x[i]);
            else
                rotate(x, weights + head * HEAD_DIM, row, heads.row(head, row));
        }
    }

  private:
    void rotate(const F (&x)[HEAD_DIM / LANES], const Element* weight, int64_t row, Element* to) const {
        constexpr int64_t PAIRS = HEAD_DIM / 2;
        F squares = splat(0.f);
        for (const F& value : x) squares += value * value;
        const float scale = 1.f / std::sqrt(sum(squares) / HEAD_DIM + eps);
        for (int64_t i = 0; i < PAIRS; i += LANES) {
            const F left = x[i / LANES] * scale * load(weight + i);
            const F right = x[(i + PAIRS) / LANES] * scale * load(weight + PAIRS + i);
            const F c = load(cos + row * PAIRS + i), s = load(sin + row * PAIRS + i);
            store(to + i, left * c - right * s);
            store(to + PAIRS + i, right * c + left * s);
        }
    }
};
