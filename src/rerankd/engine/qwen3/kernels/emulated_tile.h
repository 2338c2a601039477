// The arithmetic of EmulatedTile. Source: Intel's SDM, TDPBF16PS and TDPBSSD.
#pragma once

#include <immintrin.h>

#include "tile.h"
#include "vector.h"

// Subnormal inputs and results count as zero, as in the hardware's products.
class SubnormalsAreZero {
    static constexpr unsigned FLUSH = 0x8040;
    const unsigned before_ = _mm_getcsr();

  public:
    SubnormalsAreZero() { set(before_ | FLUSH); }
    ~SubnormalsAreZero() { set(before_); }

    // The compiler knows no order between arithmetic and the control register, but between arithmetic's memory and this.
    static void set(unsigned control) {
        asm volatile("ldmxcsr %0" ::"m"(control) : "memory");
    }
};

// For each result: one chain of fused multiply-adds over the even elements, one over the odd ones, both from zero; then
// C + (even + odd).
__attribute__((noinline)) inline void EmulatedTile::emulate_dot_bf16(uint8_t* c, const uint8_t* a, const uint8_t* b) {
    const SubnormalsAreZero flushed;
    const auto from_bits = bits_of<float, uint32_t>;
    float b_even[16][16], b_odd[16][16];
    for (int k = 0; k < 16; ++k)
        for (int n = 0; n < 16; ++n) {
            const uint32_t pair = ((const uint32_t*)b)[k * 16 + n];
            b_even[k][n] = from_bits(pair << 16);
            b_odd[k][n] = from_bits(pair & 0xffff0000);
        }
    constexpr int ROWS = 4;  // at once: chains that do not wait for each other
    for (int m = 0; m < 16; m += ROWS) {
        float even[ROWS][16] = {}, odd[ROWS][16] = {};
        for (int k = 0; k < 16; ++k)
            for (int r = 0; r < ROWS; ++r) {
                const uint32_t pair = ((const uint32_t*)a)[(m + r) * 16 + k];
                const float a_even = from_bits(pair << 16), a_odd = from_bits(pair & 0xffff0000);
                for (int n = 0; n < 16; ++n) even[r][n] = __builtin_fmaf(a_even, b_even[k][n], even[r][n]);
                for (int n = 0; n < 16; ++n) odd[r][n] = __builtin_fmaf(a_odd, b_odd[k][n], odd[r][n]);
            }
        float* sum = (float*)c + m * 16;
        for (int r = 0; r < ROWS; ++r)
            for (int n = 0; n < 16; ++n) sum[r * 16 + n] += even[r][n] + odd[r][n];
    }
    asm volatile("" ::: "memory");  // the last sums before the control register changes back
}

// Exact sums of signed bytes; a sum beyond 32 bits wraps.
__attribute__((noinline)) inline void EmulatedTile::emulate_dot_int8(uint8_t* c, const uint8_t* a, const uint8_t* b) {
    int16_t quads[16][4][16];  // of B, by element of the quad
    for (int k = 0; k < 16; ++k)
        for (int i = 0; i < 4; ++i)
            for (int n = 0; n < 16; ++n) quads[k][i][n] = (int8_t)b[(k * 16 + n) * 4 + i];
    for (int m = 0; m < 16; ++m) {
        uint32_t sum[16];
        std::memcpy(sum, c + m * LINE_BYTES, sizeof sum);
        for (int k = 0; k < 16; ++k)
            for (int i = 0; i < 4; ++i) {
                const int32_t factor = (int8_t)a[m * LINE_BYTES + k * 4 + i];
                for (int n = 0; n < 16; ++n) sum[n] += factor * quads[k][i][n];
            }
        std::memcpy(c + m * LINE_BYTES, sum, sizeof sum);
    }
}
