// How keys and values become tiles B of an AMX product.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include "transpose.h"
#endif
#include "vector.h"

// Ones in the first `count` lanes.
inline I first_lanes(int64_t count) {
    int32_t lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return load_as<I>(lane) < splat(int32_t(count < LANES ? count : LANES));
}

// Pairs of a[first + i] and b[first + i], 16 of them. A null row counts as zeros.
inline void interleave(const bf16* a, const bf16* b, int64_t first, uint32_t* to) {
    for (int64_t i = 0; i < 16; i += LANES) {
        const auto wide = [=](const bf16* row) {
            if (!row) return DoubleWords{};
            return DoubleWords(__builtin_convertvector(load_as<Words>(row + first + i), DoubleWords));
        };
        const DoubleWords pairs = wide(a) | wide(b) << 16;
        std::memcpy(to + i, &pairs, sizeof pairs);
    }
}

// 16 rows from value `first` on, 16 pairs each, → 16 columns. A null row counts as zeros.
inline void transpose(const bf16* const* rows, int64_t first, void* to) {
#if defined(__AVX512F__)
    __m512i x[16];
    for (int i = 0; i < 16; ++i) x[i] = rows[i] ? _mm512_loadu_si512(rows[i] + first) : _mm512_setzero_si512();
    transpose(x);
    for (int i = 0; i < 16; ++i) _mm512_storeu_si512((char*)to + i * LINE_BYTES, x[i]);
#else
    std::memset(to, 0, TILE_ROWS * LINE_BYTES);
    for (int i = 0; i < 16; ++i)
        for (int j = 0; rows[i] && j < 16; ++j) std::memcpy((char*)to + j * LINE_BYTES + i * 4, rows[i] + first + 2 * j, 4);
#endif
}
