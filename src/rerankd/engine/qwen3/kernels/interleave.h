// x0 y0 x1 y1 …: of the first halves of two vectors, and of their last halves.

#pragma once

#include "vector.h"

#if defined(__clang__)
#define SHUFFLED(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SHUFFLED(x, y, ...) __builtin_shuffle(x, y, (I){__VA_ARGS__})
#endif

#if defined(__AVX512F__)
inline F interleave_first(F x, F y) {
    return SHUFFLED(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline F interleave_last(F x, F y) {
    return SHUFFLED(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#elif defined(__AVX2__)
inline F interleave_first(F x, F y) { return SHUFFLED(x, y, 0, 8, 1, 9, 2, 10, 3, 11); }
inline F interleave_last(F x, F y) { return SHUFFLED(x, y, 4, 12, 5, 13, 6, 14, 7, 15); }
#else
inline F interleave_first(F x, F y) { return SHUFFLED(x, y, 0, 4, 1, 5); }
inline F interleave_last(F x, F y) { return SHUFFLED(x, y, 2, 6, 3, 7); }
#endif

#undef SHUFFLED
