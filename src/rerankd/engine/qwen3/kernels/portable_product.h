// Blocks of rows × a panel of 32 outputs by vectors of any width, in parts whose sums stay in registers.

#pragma once

#include "vector.h"

struct FloatArithmetic {
    using Value = float;
    using Weight = float;
    using Sum = float;
    using Vector = F;
    static constexpr int ZERO_POINT = 0;

    static Vector add(Vector sum, int32_t row, I weight) { return sum + bits_of<F>(weight) * bits_of<float>(row); }
};

// Four bytes at a time by shifts: exact and slow. For kinds whose int8 products nobody should choose.
struct ByteArithmetic {
    using Value = uint8_t;
    using Weight = int8_t;
    using Sum = int32_t;
    using Vector = I;
    static constexpr int ZERO_POINT = 128;

    static Vector add(Vector sum, int32_t row, I weight) {
        for (int byte = 0; byte < 4; ++byte) sum += (weight << (24 - 8 * byte) >> 24) * (row >> 8 * byte & 0xff);
        return sum;
    }
};

template <class Arithmetic>
struct PortableBlock : Arithmetic {
    using typename Arithmetic::Sum;
    using typename Arithmetic::Value;
    using typename Arithmetic::Vector;
    using typename Arithmetic::Weight;
    static constexpr int64_t ROWS = LANES == 8 ? 16 : 8;

    // See product.h. rows: of one tile.
    static void block(const Value* rows, const Weight* panel, int64_t num_lines, Sum* sums, int64_t stride,
                      const char* next, int64_t num_next) {
        compute<0>((const char*)rows, (const char*)panel, num_lines, sums, stride, next, num_next);
    }

  private:
    // Sums stay in registers, of which AVX2 has 16, and the others 32. More than 8, or they would wait for each other.
    static constexpr int64_t VECTORS = LANES == 16 ? 2 : HALF / LANES;
    static constexpr int64_t MOST_ROWS = LANES == 16 ? 8 : LANES == 8 ? 6 : 4;
    static constexpr int64_t OUTPUTS = VECTORS * LANES;
    static constexpr int64_t ROW_PARTS = divide_up(ROWS, MOST_ROWS), PARTS = ROW_PARTS * (PANEL / OUTPUTS);

    static constexpr int64_t at_output(int64_t output) {
        return output / HALF * HALF * LINE_BYTES + output % HALF * 4;
    }

    // The rows of a part and of those after it.
    template <int64_t PART>
    static void compute(const char* rows, const char* panel, int64_t num_lines, Sum* sums, int64_t stride,
                        const char* next, int64_t num_next) {
        constexpr int64_t ROW = ROWS * PART / ROW_PARTS, COUNT = ROWS * (PART + 1) / ROW_PARTS - ROW;
        for (int64_t output = 0; output < PANEL; output += OUTPUTS) {
            const int64_t part = PART * (PANEL / OUTPUTS) + output / OUTPUTS;
            const int64_t first = num_next * part / PARTS, last = num_next * (part + 1) / PARTS;
            sums_of<COUNT>(rows + ROW * LINE_BYTES, panel + at_output(output), num_lines, sums + ROW * stride + output,
                           stride, next + first * LINE_BYTES, last - first);
        }
        if constexpr (PART + 1 < ROW_PARTS) compute<PART + 1>(rows, panel, num_lines, sums, stride, next, num_next);
    }

    // All loops over `sums` are unrolled: else they would not stay in registers.
    template <int64_t COUNT>
    static void sums_of(const char* rows, const char* panel, int64_t num_lines, Sum* to, int64_t stride,
                        const char* next, int64_t num_next) {
        Vector sums[COUNT][VECTORS] = {};
        for (int64_t line = 0; line < num_lines; ++line) {
#pragma GCC unroll 16
            for (int64_t group = 0; group < LINE_BYTES / 4; ++group)
                step(rows + group * 4, panel + group * LINE_BYTES, sums);
            const int64_t until = num_next * (line + 1) / num_lines;
            for (int64_t i = num_next * line / num_lines; i < until; ++i)
                __builtin_prefetch(next + i * LINE_BYTES, 0, 2);
            rows += TILE_ROWS * LINE_BYTES;
            panel += PANEL * LINE_BYTES;
        }
#pragma GCC unroll 16
        for (int64_t r = 0; r < COUNT; ++r)
#pragma GCC unroll 16
            for (int64_t v = 0; v < VECTORS; ++v)
                std::memcpy(to + r * stride + v * LANES, &sums[r][v], sizeof(Vector));
    }

    // One group of inputs.
    template <int64_t COUNT>
    static inline __attribute__((always_inline)) void step(const char* rows, const char* panel,
                                                           Vector (&sums)[COUNT][VECTORS]) {
        I weight[VECTORS];
        for (int64_t v = 0; v < VECTORS; ++v) weight[v] = load_as<I>(panel + at_output(v * LANES));
#pragma GCC unroll 16
        for (int64_t r = 0; r < COUNT; ++r) {
            const int32_t row = load_as<int32_t>(rows + r * LINE_BYTES);
#pragma GCC unroll 16
            for (int64_t v = 0; v < VECTORS; ++v) sums[r][v] = Arithmetic::add(sums[r][v], row, weight[v]);
        }
    }
};
