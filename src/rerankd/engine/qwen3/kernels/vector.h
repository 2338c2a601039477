// Vectors of float32 by the vector extensions of GCC and Clang: as wide as the target has them.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "layout.h"

#if defined(__AVX512F__)
constexpr int64_t VECTOR_BYTES = 64;
#elif defined(__AVX2__)
constexpr int64_t VECTOR_BYTES = 32;
#else
constexpr int64_t VECTOR_BYTES = 16;
#endif
constexpr int64_t LANES = VECTOR_BYTES / 4;  // divides the 16 values of a line of float32

typedef float F __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t I __attribute__((vector_size(VECTOR_BYTES)));
typedef uint16_t Words __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint32_t DoubleWords __attribute__((vector_size(VECTOR_BYTES)));
typedef uint8_t Bytes __attribute__((vector_size(VECTOR_BYTES / 4)));

inline F splat(float x) { return F{} + x; }
inline I splat(int32_t x) { return I{} + x; }

template <class To, class From>
inline To bits_of(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    std::memcpy(&y, &x, sizeof y);
    return y;
}

template <class V, class T>
inline V load_as(const T* p) {
    V x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

inline F load(const float* p) { return load_as<F>(p); }
inline F load(const int32_t* p) { return __builtin_convertvector(load_as<I>(p), F); }
inline F load(const bf16* p) {
    return bits_of<F>(__builtin_convertvector(load_as<Words>(p), DoubleWords) << 16);
}

inline void store(float* p, F x) { std::memcpy(p, &x, sizeof x); }

// Rounds to nearest even.
inline void store(bf16* p, F x) {
#if defined(__AVX512BF16__)
    const auto words = _mm512_cvtneps_pbh(x);
#else
    const DoubleWords bits = bits_of<DoubleWords>(x);
    const DoubleWords rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const DoubleWords quiet = (bits >> 16) | 0x40;  // rounding could carry a NaN into infinity
    const Words words = __builtin_convertvector(x == x ? rounded : quiet, Words);
#endif
    std::memcpy(p, &words, sizeof words);
}

// The integers, each within a byte.
inline void store_bytes(void* p, I x) {
#if defined(__AVX512F__)
    const auto bytes = _mm512_cvtepi32_epi8((__m512i)x);  // GCC 12 would convert byte by byte
#else
    const Bytes bytes = __builtin_convertvector(bits_of<DoubleWords>(x), Bytes);
#endif
    std::memcpy(p, &bytes, sizeof bytes);
}

inline F max(F x, F y) { return x > y ? x : y; }
inline F min(F x, F y) { return x < y ? x : y; }
inline I max(I x, I y) { return x > y ? x : y; }

// The bits of |x|. As integers they are in the order of the magnitudes, and a NaN is the largest.
inline I magnitude(F x) { return bits_of<I>(x) & 0x7fffffff; }

// To the nearest integer; |x| below 2^22.
inline F round(F x) {
    const F magic = splat(12582912.f);  // 1.5 × 2^23: the sum has no bits left for a fraction
    return (x + magic) - magic;
}

// The nearest integer; |x| below 2^22.
inline I to_int(F x) {
#if defined(__AVX512F__)
    return (I)_mm512_cvtps_epi32(x);
#else
    return __builtin_convertvector(round(x), I);
#endif
}

// Sums are by halves, in AVX512's own reduction too, which does not pass through memory.
inline float sum(F x) {
#if defined(__AVX512BF16__)
    return _mm512_reduce_add_ps(x);
#else
    float lanes[LANES];
    store(lanes, x);
    for (int64_t width = LANES / 2; width; width /= 2)
        for (int64_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    return lanes[0];
#endif
}

inline float largest(F x) {
#if defined(__AVX512BF16__)
    return _mm512_reduce_max_ps(x);
#else
    float lanes[LANES];
    store(lanes, x);
    for (int64_t width = LANES / 2; width; width /= 2)
        for (int64_t i = 0; i < width; ++i) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    return lanes[0];
#endif
}

inline int32_t largest(I x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_epi32((__m512i)x);
#else
    int32_t most = x[0];
    for (int64_t i = 1; i < LANES; ++i) most = most < x[i] ? x[i] : most;
    return most;
#endif
}

// 2^x by a polynomial on [-0.5, 0.5]; relative error below 2e-7. x below -126 counts as -126.
inline F exp2(F x) {
    x = max(x, splat(-126.f));
#if defined(__AVX512F__)
    const F whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
#else
    const F whole = round(x);
#endif
    const F f = x - whole;
    F y = splat(1.5403530e-4f);
    y = y * f + 1.3333558e-3f;
    y = y * f + 9.6181291e-3f;
    y = y * f + 5.5504109e-2f;
    y = y * f + 2.4022651e-1f;
    y = y * f + 6.9314718e-1f;
    y = y * f + 1.f;
#if defined(__AVX512F__)
    return _mm512_scalef_ps(y, whole);
#else
    return bits_of<F>(bits_of<I>(y) + (__builtin_convertvector(whole, I) << 23));
#endif
}

constexpr float LOG2_E = 1.44269504f;

// x / (1 + e^-x)
inline F silu(F x) { return x / (1.f + exp2(min(x * -LOG2_E, splat(126.f)))); }
