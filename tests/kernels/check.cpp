// Runs the layers of a kind of kernels beside a plain forward pass in double, without Python, so that it also runs under
// an emulator and under sanitizers. Linked with one kind_*.cpp; define BF16 where its elements are bfloat16. Each
// allocation fails once: the pass has to report it, and the next pass has to be right.
//
// Prints what differs; the status is 1 if anything does.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "layout.h"
#include "model.h"

extern "C" {
int is_available();
int64_t packed_size(int64_t outputs, int64_t inputs, int quantized);
void pack_weight(const void* weight, const float* scale, int64_t outputs, int64_t inputs, int halves, int quantized,
                 void* panels, float* scales, int32_t* offsets, int64_t num_threads);
void* new_layers(const Shape* shape, const LayerWeights* weights);
void delete_layers(void* layers);
int run_layers(void* layers, const Batch* batch);
}

namespace {

int64_t allocations_left = -1;  // until one fails; negative: none does

bool allocation_fails() { return allocations_left >= 0 && allocations_left-- == 0; }

}  // namespace

// The linker calls this in place of aligned_alloc (--wrap).
extern "C" {
void* __real_aligned_alloc(size_t alignment, size_t size);
void* __wrap_aligned_alloc(size_t alignment, size_t size) {
    return allocation_fails() ? nullptr : __real_aligned_alloc(alignment, size);
}
}

void* operator new(size_t size) {
    void* data = allocation_fails() ? nullptr : std::malloc(size);
    if (!data) throw std::bad_alloc();
    return data;
}
void operator delete(void* data) noexcept { std::free(data); }
void operator delete(void* data, size_t) noexcept { std::free(data); }

namespace {

#if defined(BF16)
using Element = bf16;
float value(bf16 x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
    float y;
    std::memcpy(&y, &bits, sizeof y);
    return y;
}
bf16 element(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
constexpr double TOLERANCE = 0.2;
#else
using Element = float;
float value(float x) { return x; }
float element(float x) { return x; }
constexpr double TOLERANCE = 2e-4;
#endif

std::vector<Element> elements(const std::vector<float>& values) {
    std::vector<Element> result;
    for (float x : values) result.push_back(element(x));
    return result;
}

// Inputs that fill no whole line of bytes, and outputs that fill no whole panel.
constexpr int64_t LAYERS = 2, HIDDEN = 96, INTERMEDIATE = 80, HEADS = 4, KV_HEADS = 2;
constexpr int64_t QKV = (HEADS + 2 * KV_HEADS) * HEAD_DIM;
constexpr double EPS = 1e-6;

int failures = 0;

void expect(bool holds, const char* what, double value) {
    std::printf("%s %s: %g\n", holds ? "ok  " : "FAIL", what, value);
    failures += !holds;
}

float random_value() {  // in [-1, 1]
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return float(int32_t(state >> 32)) / 2147483648.f;
}

std::vector<float> random_values(int64_t size, float scale, float mean = 0.f) {
    std::vector<float> values(size);
    for (float& x : values) x = value(element(mean + scale * random_value()));
    return values;
}

// A linear layer: its exact weight, and what the kernels get.
struct Linear {
    int64_t outputs, inputs;
    std::vector<float> weight, scale, scales;
    std::vector<int8_t> bytes;
    std::vector<int32_t> offsets;
    std::unique_ptr<void, decltype(&std::free)> panels{nullptr, &std::free};

    Linear(int64_t outputs, int64_t inputs, bool halves, bool quantized)
        : outputs(outputs), inputs(inputs), weight(random_values(outputs * inputs, 2.f / std::sqrt(float(inputs)))) {
        const int64_t size = packed_size(outputs, inputs, quantized), places = round_up(outputs, PANEL);
        panels.reset(std::aligned_alloc(LINE_BYTES, round_up(size * (quantized ? 1 : sizeof(Element)), LINE_BYTES)));
        if (quantized) quantize();
        scales.resize(places);
        offsets.resize(places);
        const std::vector<Element> given = elements(weight);
        pack_weight(quantized ? (void*)bytes.data() : (void*)given.data(), quantized ? scale.data() : nullptr, outputs,
                    inputs, halves, quantized, panels.get(), quantized ? scales.data() : nullptr,
                    quantized ? offsets.data() : nullptr, 1);
    }
    LinearWeight given() const { return {panels.get(), scales.data(), offsets.data()}; }

    void quantize() {
        bytes.resize(weight.size());
        for (int64_t output = 0; output < outputs; ++output) {
            float most = 0.f;
            for (int64_t i = 0; i < inputs; ++i) most = std::fmax(most, std::fabs(weight[output * inputs + i]));
            scale.push_back(most / 127);
            for (int64_t i = output * inputs; i < (output + 1) * inputs; ++i) {
                bytes[i] = int8_t(std::lrint(weight[i] / scale.back()));
                weight[i] = bytes[i] * scale.back();
            }
        }
    }

    std::vector<double> operator()(std::vector<double> row, bool quantized) const {
        double most = 0;
        for (double x : row) most = std::fmax(most, std::fabs(x));
        if (quantized)
            for (double& x : row) x = std::nearbyint(x * 127 / most) * most / 127;
        std::vector<double> result(outputs);
        for (int64_t output = 0; output < outputs; ++output)
            for (int64_t i = 0; i < inputs; ++i) result[output] += row[i] * weight[output * inputs + i];
        return result;
    }
};

struct Layer {
    Linear qkv, output, gate_up, down;
    std::vector<float> input_norm, post_norm, qk_norm;
    std::vector<Element> given_norms[3];

    explicit Layer(bool quantized)
        : qkv(QKV, HIDDEN, false, quantized), output(HIDDEN, HEADS * HEAD_DIM, false, quantized),
          gate_up(2 * INTERMEDIATE, HIDDEN, true, quantized), down(HIDDEN, INTERMEDIATE, false, quantized),
          input_norm(random_values(HIDDEN, 0.2f, 1.f)), post_norm(random_values(HIDDEN, 0.2f, 1.f)),
          qk_norm(random_values((HEADS + KV_HEADS) * HEAD_DIM, 0.2f, 1.f)),
          given_norms{elements(input_norm), elements(post_norm), elements(qk_norm)} {}
    LayerWeights given() const {
        return {qkv.given(),           output.given(),        gate_up.given(),      down.given(),
                given_norms[0].data(), given_norms[1].data(), given_norms[2].data()};
    }
};

// Keys and values of some tokens, as `Entry` describes them.
struct Kept {
    int64_t length;
    std::vector<Element> data;

    explicit Kept(int64_t length)
        : length(length), data(elements(random_values(LAYERS * 2 * length * KV_HEADS * HEAD_DIM, 1.f))) {}
    Entry entry() { return {data.data(), 2 * length * KV_HEADS * HEAD_DIM, length * KV_HEADS * HEAD_DIM}; }
    Element* at(int64_t layer, bool is_value, int64_t token, int64_t kv_head) {
        return data.data() + (((layer * 2 + is_value) * length + token) * KV_HEADS + kv_head) * HEAD_DIM;
    }
};

struct Piece {
    int64_t length;
    Kept *base, *keep;
    std::vector<float> x;

    Piece(int64_t length, Kept* base, Kept* keep = nullptr)
        : length(length), base(base), keep(keep), x(random_values(length * HIDDEN, 1.f)) {}
    int64_t base_len() const { return base ? base->length : 0; }
};

std::vector<double> normed(const std::vector<double>& row, const float* weight) {
    double squares = 0;
    for (double x : row) squares += x * x;
    std::vector<double> result;
    for (size_t i = 0; i < row.size(); ++i)
        result.push_back(row[i] / std::sqrt(squares / double(row.size()) + EPS) * weight[i]);
    return result;
}

double angle(int64_t position, int64_t pair) { return double(position) * std::pow(10000., -double(pair) / 64); }

std::vector<double> rotated(const std::vector<double>& head, int64_t position) {
    std::vector<double> result(HEAD_DIM);
    for (int64_t i = 0; i < HEAD_DIM / 2; ++i) {
        const double c = std::cos(angle(position, i)), s = std::sin(angle(position, i));
        result[i] = head[i] * c - head[i + 64] * s;
        result[i + 64] = head[i + 64] * c + head[i] * s;
    }
    return result;
}

using Rows = std::vector<std::vector<double>>;

// The plain forward pass of one piece: its residual stream. Keys and values go to `keep`.
Rows specification(const std::vector<Layer>& layers, Piece& piece, bool quantized) {
    Rows x;
    for (int64_t t = 0; t < piece.length; ++t)
        x.emplace_back(piece.x.begin() + t * HIDDEN, piece.x.begin() + (t + 1) * HIDDEN);
    for (int64_t index = 0; index < LAYERS; ++index) {
        const Layer& layer = layers[index];
        std::vector<Rows> heads(HEADS + 2 * KV_HEADS);
        for (int64_t t = 0; t < piece.length; ++t) {
            const auto qkv = layer.qkv(normed(x[t], layer.input_norm.data()), quantized);
            for (int64_t head = 0; head < HEADS + 2 * KV_HEADS; ++head) {
                const std::vector<double> plain(qkv.begin() + head * HEAD_DIM, qkv.begin() + (head + 1) * HEAD_DIM);
                const bool is_value = head >= HEADS + KV_HEADS;
                heads[head].push_back(is_value ? plain
                                               : rotated(normed(plain, layer.qk_norm.data() + head * HEAD_DIM),
                                                         piece.base_len() + t));
            }
            for (int64_t head = HEADS; piece.keep && head < HEADS + 2 * KV_HEADS; ++head)
                for (int64_t d = 0; d < HEAD_DIM; ++d)
                    piece.keep->at(index, head >= HEADS + KV_HEADS, t, (head - HEADS) % KV_HEADS)[d] =
                        element(float(heads[head][t][d]));
        }
        for (int64_t t = 0; t < piece.length; ++t) {
            std::vector<double> attended;
            for (int64_t head = 0; head < HEADS; ++head) {
                const int64_t kv = head / (HEADS / KV_HEADS), before = piece.base_len();
                std::vector<double> weight(before + t + 1), sum(HEAD_DIM);
                double most = -1e300, total = 0;
                for (size_t key = 0; key < weight.size(); ++key) {
                    for (int64_t d = 0; d < HEAD_DIM; ++d)
                        weight[key] += heads[head][t][d] * (int64_t(key) < before ? value(piece.base->at(index, false, key, kv)[d])
                                                                                  : heads[HEADS + kv][key - before][d]);
                    weight[key] /= std::sqrt(double(HEAD_DIM));
                    most = std::fmax(most, weight[key]);
                }
                for (double& w : weight) total += w = std::exp(w - most);
                for (size_t key = 0; key < weight.size(); ++key)
                    for (int64_t d = 0; d < HEAD_DIM; ++d)
                        sum[d] += weight[key] / total *
                                  (int64_t(key) < before ? value(piece.base->at(index, true, key, kv)[d])
                                                         : heads[HEADS + KV_HEADS + kv][key - before][d]);
                attended.insert(attended.end(), sum.begin(), sum.end());
            }
            const auto output = layer.output(attended, quantized);
            for (int64_t i = 0; i < HIDDEN; ++i) x[t][i] += output[i];
            const auto gate_up = layer.gate_up(normed(x[t], layer.post_norm.data()), quantized);
            std::vector<double> gated;
            for (int64_t i = 0; i < INTERMEDIATE; ++i)
                gated.push_back(gate_up[i] / (1 + std::exp(-gate_up[i])) * gate_up[INTERMEDIATE + i]);
            const auto down = layer.down(gated, quantized);
            for (int64_t i = 0; i < HIDDEN; ++i) x[t][i] += down[i];
        }
    }
    return x;
}

// The residual stream at the last position of each piece without `keep`, from the kernels. The allocation after
// allocations_before others fails, unless that is negative; empty if it did.
std::vector<float> kernels(void* layers, const std::vector<Piece*>& pieces, int64_t num_threads,
                           int64_t allocations_before = -1) {
    std::vector<Segment> segments;
    std::vector<Element> x;
    std::vector<float> cos, sin;
    int64_t num_tokens = 0, num_kept = 0;
    for (Piece* piece : pieces) {
        segments.push_back({piece->length, piece->base_len(), piece->base ? piece->base->entry() : Entry{},
                            piece->keep ? piece->keep->entry() : Entry{}});
        for (float one : piece->x) x.push_back(element(one));
        for (int64_t t = 0; t < piece->length; ++t)
            for (int64_t i = 0; i < HEAD_DIM / 2; ++i) {
                cos.push_back(float(std::cos(angle(piece->base_len() + t, i))));
                sin.push_back(float(std::sin(angle(piece->base_len() + t, i))));
            }
        num_tokens += piece->length;
        num_kept += piece->keep != nullptr;
    }
    std::vector<float> out((pieces.size() - num_kept) * HIDDEN);
    const Batch batch{num_tokens, int64_t(pieces.size()), num_kept, num_threads, segments.data(), x.data(), cos.data(),
                      sin.data(), out.data()};
    if (allocations_before >= 0) {
        allocations_left = allocations_before;
        const bool lacking = run_layers(layers, &batch);
        const bool failed = allocations_left < 0;
        allocations_left = -1;
        if (failed != lacking) expect(false, "a pass says that memory is lacking, allocations before", allocations_before);
        if (failed) return {};
    }
    if (run_layers(layers, &batch)) expect(false, "enough memory", 0);
    return out;
}

void check(bool quantized) {
    // A value between two steps may be rounded to the other one: seldom, so it moves the largest error, not the mean.
    const double tolerance = std::fmax(TOLERANCE, quantized ? 0.15 : 0), mean_tolerance = std::fmax(TOLERANCE, quantized ? 0.01 : 0);
    std::vector<Layer> layers;
    std::vector<LayerWeights> given;
    for (int64_t i = 0; i < LAYERS; ++i) layers.emplace_back(quantized);
    for (const Layer& layer : layers) given.push_back(layer.given());
    const Shape shape{LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, quantized, EPS};
    void* loaded = new_layers(&shape, given.data());

    Kept first(45), other(77), whole(32), expected(45);
    Piece kept(45, nullptr, &first);
    std::vector<Piece> ending;
    for (int64_t length : {20, 33, 1}) ending.emplace_back(length, &first);
    for (int64_t length : {1, 15, 16, 17, 530}) ending.emplace_back(length, nullptr);
    for (int64_t length : {1, 31, 500}) ending.emplace_back(length, &other);
    for (int64_t length : {3, 64}) ending.emplace_back(length, &whole);
    std::vector<Piece*> all{&kept};
    for (Piece& piece : ending) all.push_back(&piece);

    const std::vector<float> out = kernels(loaded, all, 2);
    int64_t failed = 0;
    for (bool lacking = true; lacking; ++failed) {
        void* fresh = new_layers(&shape, given.data());
        lacking = kernels(fresh, all, 1, failed).empty();
        if (failed % 16 == 8 && kernels(fresh, all, 1) != out) expect(false, "right after allocation", double(failed));
        delete_layers(fresh);
    }
    expect(failed > 20, "allocations that failed", double(failed));
    expected.data = first.data;
    specification(layers, kept, quantized);
    double kept_error = 0, error = 0, squares = 0;
    for (size_t i = 0; i < first.data.size(); ++i)
        kept_error = std::fmax(kept_error, std::fabs(value(first.data[i]) - value(expected.data[i])));
    expect(kept_error < tolerance, "kept keys and values", kept_error);
    for (size_t i = 0; i < ending.size(); ++i) {
        const auto last = specification(layers, ending[i], quantized).back();
        for (int64_t d = 0; d < HIDDEN; ++d) {
            const double difference = last[d] - out[i * HIDDEN + d];
            error = std::fmax(error, std::fabs(difference));
            squares += difference * difference;
        }
        if (!std::isfinite(out[i * HIDDEN])) error = INFINITY;
    }
    const double mean = std::sqrt(squares / double(ending.size() * HIDDEN));
    expect(mean < mean_tolerance, quantized ? "int8, root mean square error" : "float, root mean square error", mean);
    expect(error < tolerance, quantized ? "int8, largest error" : "float, largest error", error);

    first.data = expected.data;
    for (size_t i = 0; i < ending.size(); ++i) {
        const std::vector<float> alone = kernels(loaded, {&ending[i]}, 2);
        const bool same = !std::memcmp(alone.data(), out.data() + i * HIDDEN, HIDDEN * sizeof(float));
        expect(same, "the same bits alone, tokens", double(ending[i].length));
    }
    delete_layers(loaded);
}

}  // namespace

int main() {
    if (!is_available()) {
        std::printf("this processor cannot run these kernels\n");
        return 77;
    }
    check(false);
    check(true);
    std::printf("%d failures\n", failures);
    return failures > 0;
}
