// The parts of the AMX kernels one by one, for tests: tiles, products with their epilogues, attention.

#include "kind_amx.cpp"

namespace {

struct Product {
    const void *rows, *panels;  // tiles, panels
    int64_t num_rows, num_lines, outputs;
    const float *row_scale, *scale;  // of int8
    const int32_t* offset;
    int64_t num_threads;
};

template <class Kernel, class Epilogue>
void run(const Product& in, const Epilogue& epilogue) {
    using Value = typename Kernel::Value;
    const Tiles<Value> rows{static_cast<Value*>(const_cast<void*>(in.rows)), in.num_lines};
    const Panels<Value> panels{static_cast<const Value*>(in.panels), in.num_lines, divide_up(in.outputs, PANEL),
                               in.scale, in.offset};
#pragma omp parallel num_threads(int(in.num_threads))
    {
        Amx::Thread state;
        typename Kernel::Scratch scratch;
        multiply<Kernel>(rows, in.num_rows, panels, Following{panels.data, 0}, scratch, epilogue);
    }
}

ScaledSums scaled(const Product& in) { return {in.row_scale, in.scale, in.offset}; }

}  // namespace

extern "C" {

void tile_dot(int quantized, void* c, const void* a, const void* b) {
    Tile::configure();
    Tile::load<2>(c);
    Tile::load<0>(a);
    Tile::stream_load<7>(b);
    quantized ? Tile::dot_int8<2, 0, 7>() : Tile::dot_bf16<2, 0, 7>();
    Tile::store<2>(c);
    Tile::release();
}

void tile_copy(void* to, int64_t to_stride, const void* from, int64_t from_stride) {
    Tile::configure();
    Tile::load<5>(from, from_stride);
    Tile::store<5>(to, to_stride);
    Tile::release();
}

void add_product(const Product* in, bf16* x) {
    if (in->scale)
        run<Amx::Int8Product>(*in, AddTo<bf16, ScaledSums>{scaled(*in), x, in->outputs});
    else
        run<Amx::FloatProduct>(*in, AddTo<bf16, PlainSums>{{}, x, in->outputs});
}

void silu_product(const Product* in, bf16* out) {
    const Tiles<bf16> tiles{out, divide_up(in->outputs / 2, LINE<bf16>)};
    if (in->scale)
        run<Amx::Int8Product>(*in, SiluMul<bf16, ScaledSums>{scaled(*in), tiles});
    else
        run<Amx::FloatProduct>(*in, SiluMul<bf16, PlainSums>{{}, tiles});
}

void norm_rope_product(const Product* in, const Heads<bf16>* heads, const bf16* weights, const float* cos,
                       const float* sin, float eps) {
    if (in->scale)
        run<Amx::Int8Product>(*in, NormRope<bf16, ScaledSums>{scaled(*in), *heads, weights, cos, sin, eps});
    else
        run<Amx::FloatProduct>(*in, NormRope<bf16, PlainSums>{{}, *heads, weights, cos, sin, eps});
}

void attention(const Heads<bf16>* heads, const Sequences<bf16>* in, bf16* out, int64_t num_threads) {
    const Tiles<bf16> tiles{out, heads->num_heads * HEAD_DIM / LINE<bf16>};
    Amx::Attention::Shared shared;
    shared.prepare(*in, heads->num_kv_heads);
#pragma omp parallel num_threads(int(num_threads))
    {
        Amx::Thread state;
        Amx::Attention::Scratch scratch;
        Amx::Attention::run(*heads, *in, tiles, shared, scratch);
    }
}
}
