// Kernels in float32 for 64-bit ARM, whose NEON every such processor has.

#include "exports.h"
#include "portable_attention.h"
#include "portable_product.h"

struct Neon {
    using Element = float;
    using FloatProduct = BlockProduct<PortableBlock<FloatArithmetic>>;
    using Int8Product = BlockProduct<PortableBlock<ByteArithmetic>>;
    using Attention = PortableAttention;
    struct Thread {};

    static bool is_available() { return true; }
};

EXPORT_KERNELS(Neon)
