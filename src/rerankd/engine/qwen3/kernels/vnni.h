// Products of bytes by VNNI: four unsigned bytes of a row × four signed ones of a weight, summed in 32 bits.

#pragma once

#include <immintrin.h>

#include "vector.h"

// Unsigned rows around 128, since that is what the instruction multiplies.
struct VnniArithmetic {
    using Value = uint8_t;
    using Weight = int8_t;
    using Sum = int32_t;
    using Vector = I;
    static constexpr int ZERO_POINT = 128;

    static Vector add(Vector sum, int32_t row, I weight) {
#if defined(__AVX512VNNI__)
        return (I)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(row), (__m512i)weight);
#else
        return (I)_mm256_dpbusd_avx_epi32((__m256i)sum, _mm256_set1_epi32(row), (__m256i)weight);
#endif
    }
};
