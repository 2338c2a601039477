// Kernels in float32 and int8 for AVX2 with AVX_VNNI: Intel's processors for desktops and laptops since 2021.

#include <cpuid.h>

#include "exports.h"
#include "portable_attention.h"
#include "portable_product.h"
#include "vnni.h"

struct AvxVnni {
    using Element = float;
    using FloatProduct = BlockProduct<PortableBlock<FloatArithmetic>>;
    using Int8Product = BlockProduct<PortableBlock<VnniArithmetic>>;
    using Attention = PortableAttention;
    struct Thread {};

    static bool is_available() {
        if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return false;
        unsigned eax, ebx, ecx, edx;  // older compilers have no name for AVX_VNNI
        return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && eax & (1 << 4);
    }
};

EXPORT_KERNELS(AvxVnni)
