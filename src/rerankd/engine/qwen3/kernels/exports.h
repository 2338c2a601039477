// The functions of a library, the same for every kind: `EXPORT_KERNELS(Kind)` ends its source file.

#pragma once

#include <omp.h>

#include "layers.h"
#include "pack.h"

template <class Product>
void pack(const void* weight, const float* scale, int64_t outputs, int64_t inputs, bool halves, void* panels,
          float* scales, int32_t* offsets, int64_t num_threads) {
    using Weight = typename Product::Weight;
    const auto* values = static_cast<const Weight*>(weight);
#pragma omp parallel for schedule(dynamic, 4) num_threads(int(num_threads))
    for (int64_t panel = 0; panel < divide_up(outputs, PANEL); ++panel)
        pack_panels(values, outputs, inputs, halves, static_cast<Weight*>(panels), panel, panel + 1);
    if constexpr (sizeof(Weight) == 1) {
        pack_scales(scale, outputs, halves, scales);
        pack_offsets(values, outputs, inputs, halves, Product::ZERO_POINT, offsets);
    }
}

// is_available: whether processor and system can run this kind; asks the system where it has to permit it.
// packed_size: values of a packed weight, in its own type.
// pack_weight: (outputs, inputs) → panels; scales, offsets: as many as outputs, rounded up to a panel; null without int8.
// new_layers: null if memory is lacking. run_layers: 0, or 1 if memory is lacking.
#define EXPORT_KERNELS(Kind)                                                                                           \
    extern "C" {                                                                                                       \
    int is_available() { return Kind::is_available(); }                                                                \
    int64_t packed_size(int64_t outputs, int64_t inputs, int quantized) {                                              \
        return quantized ? packed_size<typename Kind::Int8Product::Weight>(outputs, inputs)                            \
                         : packed_size<typename Kind::FloatProduct::Weight>(outputs, inputs);                          \
    }                                                                                                                  \
    void pack_weight(const void* weight, const float* scale, int64_t outputs, int64_t inputs, int halves,              \
                     int quantized, void* panels, float* scales, int32_t* offsets, int64_t num_threads) {              \
        (quantized ? pack<typename Kind::Int8Product> : pack<typename Kind::FloatProduct>)(                            \
            weight, scale, outputs, inputs, halves != 0, panels, scales, offsets, num_threads);                        \
    }                                                                                                                  \
    void* new_layers(const Shape* shape, const LayerWeights* weights) try {                                            \
        if (shape->quantized) return static_cast<AnyLayers*>(new Layers<Kind, Kind::Int8Product>(*shape, weights));    \
        return static_cast<AnyLayers*>(new Layers<Kind, Kind::FloatProduct>(*shape, weights));                         \
    } catch (const std::bad_alloc&) {                                                                                  \
        return nullptr;                                                                                                \
    }                                                                                                                  \
    void delete_layers(void* layers) { delete static_cast<AnyLayers*>(layers); }                                       \
    int run_layers(void* layers, const Batch* batch) try {                                                             \
        static_cast<AnyLayers*>(layers)->run(*batch);                                                                  \
        return 0;                                                                                                      \
    } catch (const std::bad_alloc&) {                                                                                  \
        return 1;                                                                                                      \
    }                                                                                                                  \
    }
