// Kernels for AVX512_BF16 and AVX512_VNNI: AMD since Zen 4, Intel since Sapphire Rapids.

#include "avx512_attention.h"
#include "avx512_product.h"
#include "exports.h"

struct Avx512Bf16 {
    using Element = bf16;
    using FloatProduct = BlockProduct<Avx512Block<Avx512Bf16Arithmetic>>;
    using Int8Product = BlockProduct<Avx512Block<Avx512Int8Arithmetic>>;
    using Attention = Avx512Attention;
    struct Thread {};

    static bool is_available() { return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni"); }
};

EXPORT_KERNELS(Avx512Bf16)
