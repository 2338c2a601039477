// All layers of a pass in one call: the loop that every kind of kernels shares.

#pragma once

#include <omp.h>

#include <memory>
#include <vector>

#include "epilogue.h"
#include "memory.h"
#include "model.h"
#include "product.h"
#include "rows.h"
#include "sequences.h"

class AnyLayers {
  public:
    virtual ~AnyLayers() = default;
    virtual void run(const Batch& batch) = 0;
};

// Product: of the linear layers. One whose values are bytes gets them from RMSNorm at once, and after attention and SiLU
// by a pass over the rows, since a row's scale is known at its end.
template <class Kind, class Product>
class Layers final : public AnyLayers {
    using Element = typename Kind::Element;
    using Value = typename Product::Value;
    using Weight = typename Product::Weight;
    using Attention = typename Kind::Attention;
    static constexpr bool BYTES = sizeof(Value) == 1;
    using Sums = std::conditional_t<BYTES, ScaledSums, PlainSums>;

    struct Thread {
        typename Product::Scratch product;
        typename Attention::Scratch attention;
        Buffer<float> row;
    };

    const Shape shape_;
    const std::vector<LayerWeights> weights_;
    Buffer<Element> query_, key_, value_, attended_, gated_;
    Buffer<Value> normed_values_, attended_values_, gated_values_;
    Buffer<float> x_, scale_;
    std::vector<Prefix<Element>> prefixes_;
    std::vector<int64_t> prefix_segment_;  // one that has it
    std::vector<Sequence> all_, last_;
    typename Attention::Shared shared_;
    std::vector<std::unique_ptr<Thread>> threads_;

    // The state of a pass: after the queries of the last layer, the rows are the last positions only.
    struct Pass {
        float* x;  // the residual stream
        int64_t num_rows;
        Heads<Element> heads;
        Tiles<Value> normed, attended_values, gated_values;
        Tiles<Element> attended, gated;
    };

  public:
    Layers(const Shape& shape, const LayerWeights* weights)
        : shape_(shape), weights_(weights, weights + shape.num_layers) {}

    void run(const Batch& batch) override {
        list_sequences(batch);
        Pass pass = prepare(batch);
        while (int64_t(threads_.size()) < batch.num_threads) threads_.push_back(std::make_unique<Thread>());
        for (const auto& thread : threads_) thread->row.reserve(shape_.hidden_size);
#pragma omp parallel num_threads(int(batch.num_threads)) firstprivate(pass)
        {
            typename Kind::Thread state;
            Thread& mine = *threads_[omp_get_thread_num()];
            widen(batch, pass);
            for (int64_t layer = 0; layer < shape_.num_layers; ++layer) compute(batch, layer, pass, mine);
        }
        bool lacking = false;
        for (const auto& thread : threads_)
            lacking |= thread->product.guard.was_lacking() | thread->attention.guard.was_lacking();
        if (lacking) throw std::bad_alloc();
    }

  private:
    // Segments of one prefix come one after the other.
    void list_sequences(const Batch& batch) {
        prefixes_.clear();
        prefix_segment_.clear();
        all_.clear();
        last_.clear();
        int64_t row = 0;
        for (int64_t i = 0; i < batch.num_segments; ++i) {
            const Segment& segment = batch.segments[i];
            const auto* data = static_cast<const Element*>(segment.base.data);
            if (prefixes_.empty() || prefixes_.back().key != data || prefixes_.back().length != segment.base_len) {
                prefixes_.push_back({data, data, segment.base_len});
                prefix_segment_.push_back(i);
            }
            const int64_t prefix = int64_t(prefixes_.size()) - 1;
            all_.push_back({prefix, row, segment.num_tokens, row, segment.num_tokens});
            if (i >= batch.num_kept) last_.push_back({prefix, row, segment.num_tokens, i - batch.num_kept, 1});
            row += segment.num_tokens;
        }
        shared_.prepare({prefixes_.data(), int64_t(prefixes_.size()), all_.data(), int64_t(all_.size())},
                        shape_.num_kv_heads);
    }

    Pass prepare(const Batch& batch) {
        const int64_t rows = round_up(batch.num_tokens, 2 * TILE_ROWS), size = rows * HEAD_DIM;
        const int64_t attended = shape_.num_heads * HEAD_DIM;
        Pass pass;
        pass.x = x_.reserve(rows * shape_.hidden_size);
        pass.num_rows = batch.num_tokens;
        pass.heads = {query_.reserve(size * shape_.num_heads), key_.reserve(size * shape_.num_kv_heads),
                      value_.reserve(size * shape_.num_kv_heads), shape_.num_heads, shape_.num_kv_heads, rows};
        pass.normed = tiles(normed_values_, rows, shape_.hidden_size);
        pass.attended = tiles(attended_, rows, attended);
        pass.gated = tiles(gated_, rows, shape_.intermediate_size);
        if constexpr (BYTES) {
            pass.attended_values = tiles(attended_values_, rows, attended);
            pass.gated_values = tiles(gated_values_, rows, shape_.intermediate_size);
        } else {
            pass.attended_values = pass.attended;
            pass.gated_values = pass.gated;
        }
        scale_.reserve(rows);
        return pass;
    }

    template <class T>
    static Tiles<T> tiles(Buffer<T>& buffer, int64_t rows, int64_t size) {
        const int64_t lines = divide_up(size, LINE<T>);
        return {buffer.reserve(rows * lines * LINE<T>), lines};
    }

    void widen(const Batch& batch, const Pass& pass) const {
        const auto* x = static_cast<const Element*>(batch.x);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < batch.num_tokens; ++row)
            for (int64_t i = row * shape_.hidden_size; i < (row + 1) * shape_.hidden_size; i += LANES)
                store(pass.x + i, load(x + i));
    }

    void compute(const Batch& batch, int64_t layer, Pass& pass, Thread& mine) {
        const LayerWeights& weights = weights_[layer];
        const bool is_last = layer == shape_.num_layers - 1;
        norm(pass, weights.input_norm, mine);
        multiply_by(qkv(layer), output(layer), pass.normed, pass.num_rows, mine,
                    NormRope<Element, Sums>{sums(weights.qkv), pass.heads, static_cast<const Element*>(weights.qk_norm),
                                            batch.cos, batch.sin, float(shape_.eps)});
        keep(batch, layer, pass.heads);
        if (is_last && !take_last(batch, pass)) return;
        const std::vector<Sequence>& sequences = is_last ? last_ : all_;
        const Sequences<Element> in{prefixes_.data(), int64_t(prefixes_.size()), sequences.data(), int64_t(sequences.size())};
        Attention::run(pass.heads, in, pass.attended, shared_, mine.attention);
        quantize(pass.attended, pass.attended_values, pass.num_rows);
        add_product(output(layer), gate_up(layer), pass.attended_values, pass, mine);
        norm(pass, weights.post_norm, mine);
        multiply_by(gate_up(layer), down(layer), pass.normed, pass.num_rows, mine,
                    SiluMul<Element, Sums>{sums(weights.gate_up), pass.gated});
        quantize(pass.gated, pass.gated_values, pass.num_rows);
        add_product(down(layer), qkv(is_last ? 0 : layer + 1), pass.gated_values, pass, mine);
    }

    // A linear layer. at_least: panels that a task needs together.
    struct Linear {
        const LinearWeight& weight;
        int64_t outputs, inputs, at_least;

        Panels<Weight> panels() const {
            return {static_cast<const Weight*>(weight.panels), divide_up(inputs, LINE<Weight>), divide_up(outputs, PANEL),
                    weight.scale, weight.offset};
        }
    };

    Linear qkv(int64_t layer) const {
        const int64_t outputs = (shape_.num_heads + 2 * shape_.num_kv_heads) * HEAD_DIM;
        return {weights_[layer].qkv, outputs, shape_.hidden_size, PANELS_A_HEAD};
    }
    Linear output(int64_t layer) const {
        return {weights_[layer].output, shape_.hidden_size, shape_.num_heads * HEAD_DIM, 1};
    }
    Linear gate_up(int64_t layer) const {
        return {weights_[layer].gate_up, 2 * shape_.intermediate_size, shape_.hidden_size, 1};
    }
    Linear down(int64_t layer) const {
        return {weights_[layer].down, shape_.hidden_size, shape_.intermediate_size, 1};
    }

    Sums sums(const LinearWeight& weight) const {
        if constexpr (BYTES)
            return {scale_.data(), weight.scale, weight.offset};
        else
            return {};
    }

    // next: the product that comes after this one.
    template <class Epilogue>
    static void multiply_by(const Linear& linear, const Linear& next, const Tiles<Value>& rows, int64_t num_rows,
                            Thread& mine, const Epilogue& epilogue) {
        const Panels<Weight> panels = next.panels();
        const Following following{panels.panel(0), Product::panels_a_task(next.at_least, panels.num_panels) *
                                                       panels.num_lines * PANEL * LINE_BYTES};
        multiply<Product>(rows, num_rows, linear.panels(), following, mine.product, epilogue);
    }

    // x += rows × weight
    void add_product(const Linear& linear, const Linear& next, const Tiles<Value>& rows, const Pass& pass,
                     Thread& mine) const {
        multiply_by(linear, next, rows, pass.num_rows, mine,
                    AddTo<float, Sums>{sums(linear.weight), pass.x, shape_.hidden_size});
    }

    void norm(const Pass& pass, const void* weight, Thread& mine) const {
        const RowWriter<Value, Product::ZERO_POINT> writer{pass.normed, scale_.data()};
        const int64_t size = shape_.hidden_size;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < pass.num_rows; ++row) {
            rmsnorm(pass.x + row * size, static_cast<const Element*>(weight), mine.row.data(), size, float(shape_.eps));
            writer.write(row, mine.row.data(), size);
        }
    }

    // Elements → bytes, where the product needs them.
    void quantize(const Tiles<Element>& from, const Tiles<Value>& to, int64_t num_rows) const {
        if constexpr (BYTES) {
            const RowWriter<Value, Product::ZERO_POINT> writer{to, scale_.data()};
#pragma omp for schedule(static)
            for (int64_t tile = 0; tile < divide_up(num_rows, TILE_ROWS); ++tile) writer.write_tile(tile, from);
        }
    }

    // Copies the layer's keys and values to where the segments keep them, and finds those of the prefixes.
    void keep(const Batch& batch, int64_t layer, const Heads<Element>& heads) {
#pragma omp single nowait
        find_prefixes(batch, layer);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < batch.num_kept * shape_.num_kv_heads; ++task) {
            const Segment& segment = batch.segments[task / shape_.num_kv_heads];
            const int64_t head = task % shape_.num_kv_heads, first = all_[task / shape_.num_kv_heads].first_row;
            auto* const keys = static_cast<Element*>(segment.keep.data) + layer * segment.keep.layer_stride;
            for (int64_t i = 0; i < segment.num_tokens; ++i) {
                Element* at = keys + (i * shape_.num_kv_heads + head) * HEAD_DIM;
                const int64_t from = (head * heads.capacity + first + i) * HEAD_DIM;
                std::memcpy(at, heads.key + from, HEAD_DIM * sizeof(Element));
                std::memcpy(at + segment.keep.value_stride, heads.value + from, HEAD_DIM * sizeof(Element));
            }
        }
    }

    void find_prefixes(const Batch& batch, int64_t layer) {
        for (size_t i = 0; i < prefixes_.size(); ++i) {
            const Entry& base = batch.segments[prefix_segment_[i]].base;
            if (!base.data) continue;
            prefixes_[i].key = static_cast<const Element*>(base.data) + layer * base.layer_stride;
            prefixes_[i].value = prefixes_[i].key + base.value_stride;
        }
    }

    // Goes on with the rows of the last positions; false if no prompt ends in this pass.
    bool take_last(const Batch& batch, Pass& pass) const {
        const int64_t size = shape_.hidden_size;
#pragma omp single
        for (size_t i = 0; i < last_.size(); ++i) {
            const int64_t row = last_[i].first_row + last_[i].num_rows - 1;
            std::memcpy(batch.out + i * size, pass.x + row * size, size * sizeof(float));
            for (int64_t head = 0; head < shape_.num_heads; ++head)
                std::memmove(pass.heads.row(head, i), pass.heads.row(head, row), HEAD_DIM * sizeof(Element));
        }
        pass.x = batch.out;
        pass.num_rows = int64_t(last_.size());
        return !last_.empty();
    }
};
