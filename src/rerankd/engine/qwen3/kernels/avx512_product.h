// Blocks of 8 rows × a panel of 32 outputs: 16 sums in registers, each step loads 2 vectors of weights and 8 groups of rows.

#pragma once

#include <immintrin.h>

#include "layout.h"

struct Avx512Bf16Arithmetic {
    using Value = bf16;
    using Weight = bf16;
    using Sum = float;
    using Vector = __m512;
    static constexpr int ZERO_POINT = 0;
    static constexpr int64_t ROWS = 8;

    static Vector zero() { return _mm512_setzero_ps(); }
    static Vector add(Vector sum, __m512i row, __m512i weight) {
        return _mm512_dpbf16_ps(sum, (__m512bh)row, (__m512bh)weight);
    }
    static void store(float* to, Vector sum) { _mm512_store_ps(to, sum); }
};

// Unsigned rows around 128, since that is what the instruction multiplies.
struct Avx512Int8Arithmetic {
    using Value = uint8_t;
    using Weight = int8_t;
    using Sum = int32_t;
    using Vector = __m512i;
    static constexpr int ZERO_POINT = 128;
    static constexpr int64_t ROWS = 8;

    static Vector zero() { return _mm512_setzero_si512(); }
    static Vector add(Vector sum, __m512i row, __m512i weight) { return _mm512_dpbusd_epi32(sum, row, weight); }
    static void store(int32_t* to, Vector sum) { _mm512_store_si512(to, sum); }
};

template <class Arithmetic>
struct Avx512Block : Arithmetic {
    using typename Arithmetic::Sum;
    using typename Arithmetic::Value;
    using typename Arithmetic::Vector;
    using typename Arithmetic::Weight;
    using Arithmetic::ROWS;

    // See product.h. rows: of one tile.
    static void block(const Value* rows, const Weight* panel, int64_t num_lines, Sum* sums, int64_t stride,
                      const char* next, int64_t num_next) {
        Vector sum[ROWS][2];
        for (auto& row : sum) row[0] = row[1] = Arithmetic::zero();
        const char *row_at = (const char*)rows, *at = (const char*)panel;
        for (int64_t line = 0; line < num_lines; ++line) {
#pragma GCC unroll 16
            for (int64_t group = 0; group < 16; ++group) step(row_at + 4 * group, at + LINE_BYTES * group, sum);
            const int64_t until = num_next * (line + 1) / num_lines;
            for (int64_t i = num_next * line / num_lines; i < until; ++i)
                _mm_prefetch(next + i * LINE_BYTES, _MM_HINT_T1);
            row_at += TILE_ROWS * LINE_BYTES;
            at += PANEL * LINE_BYTES;
        }
        for (int64_t r = 0; r < ROWS; ++r)
            for (int64_t half = 0; half < 2; ++half) Arithmetic::store(sums + r * stride + half * HALF, sum[r][half]);
    }

  private:
    // One group of inputs: 8 rows × 32 outputs.
    static inline __attribute__((always_inline)) void step(const char* rows, const char* panel, Vector (&sum)[ROWS][2]) {
        const __m512i left = _mm512_load_si512(panel), right = _mm512_load_si512(panel + HALF * LINE_BYTES);
#pragma GCC unroll 16
        for (int64_t r = 0; r < ROWS; ++r) {
            const __m512i row = _mm512_set1_epi32(*(const int32_t*)(rows + r * LINE_BYTES));
            sum[r][0] = Arithmetic::add(sum[r][0], row, left);
            sum[r][1] = Arithmetic::add(sum[r][1], row, right);
        }
    }
};
