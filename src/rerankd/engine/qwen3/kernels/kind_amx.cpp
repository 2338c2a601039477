// Kernels for AMX: Intel server processors since Sapphire Rapids. With EMULATED_TILES the same kernels run, slowly, on any
// x86-64 processor, so that they can be tested there.

#include "amx_attention.h"
#include "amx_product.h"
#include "exports.h"

#if defined(EMULATED_TILES)
using Tile = EmulatedTile;
#else
using Tile = HardwareTile;
#endif

struct Amx {
    using Element = bf16;
    using FloatProduct = AmxProduct<Tile, bf16>;
    using Int8Product = AmxProduct<Tile, int8_t>;
    using Attention = AmxAttention<Tile>;

    struct Thread {
        Thread() { Tile::configure(); }
        ~Thread() { Tile::release(); }
        Thread(const Thread&) = delete;
        Thread& operator=(const Thread&) = delete;
    };

    static bool is_available() { return Tile::is_available(); }
};

EXPORT_KERNELS(Amx)
