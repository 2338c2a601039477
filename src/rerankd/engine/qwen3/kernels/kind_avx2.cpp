// Kernels in float32 for AVX2 and FMA. Int8 products gain nothing without VNNI, and are here for completeness.

#include "exports.h"
#include "portable_attention.h"
#include "portable_product.h"

struct Avx2 {
    using Element = float;
    using FloatProduct = BlockProduct<PortableBlock<FloatArithmetic>>;
    using Int8Product = BlockProduct<PortableBlock<ByteArithmetic>>;
    using Attention = PortableAttention;
    struct Thread {};

    static bool is_available() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
};

EXPORT_KERNELS(Avx2)
