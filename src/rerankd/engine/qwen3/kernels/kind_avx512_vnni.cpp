// Kernels in float32 and int8 for AVX512_VNNI without AVX512_BF16: Intel's servers since 2019, and virtual machines.

#include "exports.h"
#include "portable_attention.h"
#include "portable_product.h"
#include "vnni.h"

struct Avx512Vnni {
    using Element = float;
    using FloatProduct = BlockProduct<PortableBlock<FloatArithmetic>>;
    using Int8Product = BlockProduct<PortableBlock<VnniArithmetic>>;
    using Attention = PortableAttention;
    struct Thread {};

    static bool is_available() {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni");
    }
};

EXPORT_KERNELS(Avx512Vnni)
