// What Python passes: plain structs of pointers and int64, which `native.py` declares again.

#pragma once

#include <cstdint>

struct Shape {
    int64_t num_layers, hidden_size, intermediate_size, num_heads, num_kv_heads;
    int64_t quantized;  // 1: the weights are int8
    double eps;
};

// A linear layer as `pack_weight` left it. scale, offset: one for each output; null without int8.
struct LinearWeight {
    const void* panels;
    const float* scale;
    const int32_t* offset;
};

// Norms are in the element type of the kind. qk_norm: (num_heads + num_kv_heads, HEAD_DIM).
struct LayerWeights {
    LinearWeight qkv, output, gate_up, down;
    const void *input_norm, *post_norm, *qk_norm;
};

// Keys and values of some tokens in every layer: [layer][key, value][token][kv_head][HEAD_DIM], of which a layer is
// layer_stride elements, and key and value are value_stride elements apart. Null where there are none.
struct Entry {
    void* data;
    int64_t layer_stride, value_stride;
};

// Tokens to compute, which attend to `base`, the tokens before them, and to themselves. keep: where their keys and
// values go; null for the end of a prompt.
struct Segment {
    int64_t num_tokens, base_len;
    Entry base, keep;
};

// One pass. Segments with `keep` come first; the others may attend to what these keep.
struct Batch {
    int64_t num_tokens, num_segments, num_kept, num_threads;
    const Segment* segments;
    const void* x;          // (num_tokens, hidden_size), in the element type
    const float *cos, *sin; // (num_tokens, HEAD_DIM / 2)
    float* out;             // (num_segments - num_kept, hidden_size): the residual stream at each last position
};
