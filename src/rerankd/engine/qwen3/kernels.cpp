// The operations between the matrix products of Qwen3 on CPU, in bfloat16, for AVX512_BF16.
//
// Each is one pass over memory where PyTorch's operators take several. Sums and exponentials are float32; what is
// stored is bfloat16, rounded to nearest even, or, for the products in int8, bytes with a scale a row. Rows are independent of each other, so results do not depend on what
// else is in the batch. Compiled with: c++ -O3 -march=native -fopenmp -shared -fPIC.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using bf16 = uint16_t;
constexpr int LANES = 16;  // float32 values, or pairs of bfloat16, in a vector

inline __m512 load(const bf16* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}

inline void store(bf16* p, __m512 x) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(x)); }

inline __m512 exp_ps(__m512 x) {  // 2^(x·log2 e) by a polynomial on [-0.5, 0.5]; relative error below 2e-7
    x = _mm512_max_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _mm512_set1_ps(-126.f));
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
    const __m512 f = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_set1_ps(1.5403530e-4f);
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.3333558e-3f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(9.6181291e-3f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(5.5504109e-2f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(2.4022651e-1f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(6.9314718e-1f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.f));
    return _mm512_scalef_ps(y, whole);
}

// rows × 16·VECTORS of S = Q Kᵀ. q: rows of head_dim, `stride` apart; panels: 16 keys each, [head_dim / 2][16] pairs.
template <int ROWS, int VECTORS>
void scores_tile(const bf16* const* q, const uint32_t* const* panels, int pairs, float* const* out, __m512 scale) {
    __m512 sum[ROWS][VECTORS];
    for (auto& row : sum)
        for (auto& x : row) x = _mm512_setzero_ps();
    for (int j = 0; j < pairs; ++j) {
        __m512bh key[VECTORS];
        for (int v = 0; v < VECTORS; ++v) key[v] = (__m512bh)_mm512_loadu_si512(panels[v] + j * LANES);
        for (int r = 0; r < ROWS; ++r) {
            const __m512bh x = (__m512bh)_mm512_set1_epi32(((const int32_t*)q[r])[j]);
            for (int v = 0; v < VECTORS; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], x, key[v]);
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) _mm512_storeu_ps(out[r] + v * LANES, _mm512_mul_ps(sum[r][v], scale));
}

template <int ROWS>
void scores_rows(const bf16* const* q, const std::vector<const uint32_t*>& panels, int num_panels, int pairs,
                 float* const* out, __m512 scale) {
    int p = 0;
    float* at[ROWS];
    for (; p + 4 <= num_panels; p += 4) {
        for (int r = 0; r < ROWS; ++r) at[r] = out[r] + p * LANES;
        scores_tile<ROWS, 4>(q, &panels[p], pairs, at, scale);
    }
    if (p + 2 <= num_panels) {
        for (int r = 0; r < ROWS; ++r) at[r] = out[r] + p * LANES;
        scores_tile<ROWS, 2>(q, &panels[p], pairs, at, scale);
        p += 2;
    }
    for (; p < num_panels; ++p) {
        for (int r = 0; r < ROWS; ++r) at[r] = out[r] + p * LANES;
        scores_tile<ROWS, 1>(q, &panels[p], pairs, at, scale);
    }
}

// Softmax of the first `n` values of s into p (bfloat16, unnormalised, zero up to `padded`); returns 1 / sum. Of the 16
// values at `gap` only those in `gap_mask` count.
float softmax_row(const float* s, bf16* p, int n, int padded, int gap, __mmask16 gap_mask) {
    const auto counts = [=](int i) -> __mmask16 {
        const __mmask16 mask = n - i >= LANES ? 0xffff : n > i ? (1u << (n - i)) - 1 : 0;
        return i == gap ? mask & gap_mask : mask;
    };
    __m512 top = _mm512_set1_ps(-INFINITY);
    for (int i = 0; i < n; i += LANES) top = _mm512_mask_max_ps(top, counts(i), top, _mm512_loadu_ps(s + i));
    const __m512 max = _mm512_set1_ps(_mm512_reduce_max_ps(top));
    __m512 total = _mm512_setzero_ps();
    for (int i = 0; i < padded; i += LANES) {
        const __m512 e = _mm512_maskz_mov_ps(counts(i), exp_ps(_mm512_sub_ps(_mm512_loadu_ps(s + i), max)));
        total = _mm512_add_ps(total, e);
        store(p + i, e);
    }
    return 1.f / _mm512_reduce_add_ps(total);
}

// rows of O = P V. values: pairs of keys, [head_dim][2] each; head_dim = 16·VECTORS.
template <int ROWS, int VECTORS>
void weighted_sum(const bf16* const* p, const std::vector<const uint32_t*>& values, int num_pairs, bf16* const* out,
                  const float* norm) {
    __m512 sum[ROWS][VECTORS];
    for (auto& row : sum)
        for (auto& x : row) x = _mm512_setzero_ps();
    for (int j = 0; j < num_pairs; ++j) {
        const uint32_t* value = values[j / 8] + (j % 8) * VECTORS * LANES;
        __m512bh v[VECTORS];
        for (int c = 0; c < VECTORS; ++c) v[c] = (__m512bh)_mm512_loadu_si512(value + c * LANES);
        for (int r = 0; r < ROWS; ++r) {
            const __m512bh x = (__m512bh)_mm512_set1_epi32(((const int32_t*)p[r])[j]);
            for (int c = 0; c < VECTORS; ++c) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], x, v[c]);
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int c = 0; c < VECTORS; ++c)
            store(out[r] + c * LANES, _mm512_mul_ps(sum[r][c], _mm512_set1_ps(norm[r])));
}

// The transpose of 16 rows of 16.
inline void transpose(__m512i (&x)[LANES]) {
    __m512i y[LANES];
    for (int i = 0; i < LANES; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4)
        for (int j = 0; j < 2; ++j) {
            x[i + 2 * j] = _mm512_unpacklo_epi64(y[i + j], y[i + j + 2]);
            x[i + 2 * j + 1] = _mm512_unpackhi_epi64(y[i + j], y[i + j + 2]);
        }
    for (int i = 0; i < 4; ++i) {
        y[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
        y[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
        y[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
        y[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; ++i) {
        x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
        x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
    }
}

// 16 keys (fewer at the end: zeros) → one panel of keys and one of values.
void pack(const bf16* const* keys, const bf16* const* values, int n, int head_dim, uint32_t* k, uint32_t* v) {
    const __m512i zero = _mm512_setzero_si512();
    for (int j = 0; j < head_dim / 2; j += LANES) {
        __m512i block[LANES];
        for (int i = 0; i < LANES; ++i) block[i] = i < n ? _mm512_loadu_si512((const uint32_t*)keys[i] + j) : zero;
        transpose(block);
        for (int i = 0; i < LANES; ++i) _mm512_storeu_si512(k + (j + i) * LANES, block[i]);
    }
    for (int i = 0; i < LANES; i += 2)
        for (int c = 0; c < head_dim; c += LANES) {
            const auto row = [&](int at) {
                return at < n ? _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(values[at] + c))) : zero;
            };
            const __m512i pair = _mm512_or_si512(row(i), _mm512_slli_epi32(row(i + 1), 16));
            _mm512_storeu_si512(v + i / 2 * head_dim + c, pair);
        }
}

// A row of `size` values, value(i) being the 16 at i: as bfloat16 to out, or, where out_8bit is given, as bytes around
// a zero point of 128 with the row's scale, so that the largest is 127 away. A row with a NaN has NaN for its scale.
template <typename Value>
inline void write_row(int64_t row, int64_t size, bf16* out, uint8_t* out_8bit, float* out_scale, Value value) {
    if (!out_8bit) {
        for (int64_t i = 0; i < size; i += LANES) store(out + row * size + i, value(i));
        return;
    }
    thread_local std::vector<float> kept;
    kept.resize(size);
    __m512 top = _mm512_setzero_ps();
    __mmask16 nan = 0;  // max_ps forgets one
    for (int64_t i = 0; i < size; i += LANES) {
        const __m512 x = value(i);
        _mm512_storeu_ps(kept.data() + i, x);
        top = _mm512_max_ps(top, _mm512_abs_ps(x));
        nan |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    }
    const float max = nan ? NAN : _mm512_reduce_max_ps(top);
    out_scale[row] = max / 127;
    const __m512 inverse = _mm512_set1_ps(max > 0 ? 127 / max : 0);
    for (int64_t i = 0; i < size; i += LANES) {
        const __m512i steps = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(kept.data() + i), inverse));
        const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(steps, _mm512_set1_epi32(128)));
        _mm_storeu_si128((__m128i*)(out_8bit + row * size + i), bytes);
    }
}

// The keys and values of one head, packed by 16.
struct Panels {
    int64_t num_panels = 0, head_dim = 0;
    std::vector<uint32_t> packed;  // a panel of keys, then one of values, of head_dim / 2 × 16 each

    void resize(int64_t num_keys, int64_t size) {
        head_dim = size;
        num_panels = (num_keys + LANES - 1) / LANES;
        packed.resize(num_panels * head_dim * LANES);
    }

    // Rows `stride` apart → panels.
    void pack_rows(const bf16* k, const bf16* v, int64_t stride, int64_t num_keys) {
        for (int64_t p = 0; p * LANES < num_keys; ++p) {
            const bf16 *key_rows[LANES], *value_rows[LANES];
            const int n = std::min<int64_t>(LANES, num_keys - p * LANES);
            for (int i = 0; i < n; ++i) {
                key_rows[i] = k + (p * LANES + i) * stride;
                value_rows[i] = v + (p * LANES + i) * stride;
            }
            uint32_t* to = packed.data() + p * head_dim * LANES;
            pack(key_rows, value_rows, n, head_dim, to, to + head_dim / 2 * LANES);
        }
    }

    void append_to(std::vector<const uint32_t*>& keys, std::vector<const uint32_t*>& values) const {
        for (int64_t p = 0; p < num_panels; ++p) {
            keys.push_back(packed.data() + p * head_dim * LANES);
            values.push_back(packed.data() + p * head_dim * LANES + head_dim / 2 * LANES);
        }
    }
};

// What several documents begin with: packed once for all of them.
struct Prefix {
    const bf16 *k, *v;  // (length, num_kv_heads, head_dim)
    int64_t length, num_kv_heads, head_dim;
    Panels* panels = nullptr;  // one a head

    void pack_head(int64_t kv_head) {
        panels[kv_head].resize(length, head_dim);
        const int64_t at = kv_head * head_dim;
        panels[kv_head].pack_rows(k + at, v + at, num_kv_heads * head_dim, length);
    }
};

// Memory for the panels of the prefixes of one call after the other: to map it anew for each layer takes as long as to
// fill it. What one long prefix needed is freed when a call needs little again.
class PanelPool {
    std::vector<std::vector<Panels>> pool_;

  public:
    void lend(std::vector<Prefix>& prefixes) {
        size_t kept = 0, needed = 0;
        for (const auto& heads : pool_)
            for (const Panels& panels : heads) kept += panels.packed.capacity();
        for (const Prefix& prefix : prefixes) needed += prefix.length * prefix.num_kv_heads * prefix.head_dim;
        if (kept > 8 * needed + (1 << 22)) pool_.clear();
        if (pool_.size() < prefixes.size()) pool_.resize(prefixes.size());
        for (size_t i = 0; i < prefixes.size(); ++i) {
            if (pool_[i].size() < size_t(prefixes[i].num_kv_heads)) pool_[i].resize(prefixes[i].num_kv_heads);
            prefixes[i].panels = pool_[i].data();
        }
    }
};

constexpr int ROWS = 6;  // query rows of a tile: 6 × 4 sums stay in registers

}  // namespace

extern "C" {

// x += delta (if given) × its row's scale (if given); out = x / rms(x) × weight. (num_rows, size) each.
void add_rmsnorm(bf16* x, const bf16* delta, const float* delta_scale, const bf16* weight, bf16* out, uint8_t* out_8bit,
                 float* out_scale, int64_t num_rows, int64_t size, float eps) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < num_rows; ++row) {
        bf16* at = x + row * size;
        const __m512 factor = _mm512_set1_ps(delta_scale ? delta_scale[row] : 1.f);
        __m512 squares = _mm512_setzero_ps();
        for (int64_t i = 0; i < size; i += LANES) {
            __m512 value = load(at + i);
            if (delta) {
                store(at + i, _mm512_fmadd_ps(load(delta + row * size + i), factor, value));
                value = load(at + i);
            }
            squares = _mm512_fmadd_ps(value, value, squares);
        }
        const __m512 scale = _mm512_set1_ps(1.f / std::sqrt(_mm512_reduce_add_ps(squares) / size + eps));
        write_row(row, size, out, out_8bit, out_scale, [=](int64_t i) {
            return _mm512_mul_ps(_mm512_mul_ps(load(at + i), scale), load(weight + i));
        });
    }
}

// In place on each row of qkv, times its scale (if given): RMSNorm of each of the first num_heads heads, then RoPE.
// weights: (num_heads, head_dim); cos, sin: (num_rows, head_dim / 2) float32.
void norm_rope(bf16* qkv, const float* qkv_scale, const bf16* weights, const float* cos, const float* sin,
               int64_t num_rows, int64_t row_size, int64_t num_heads, int64_t head_dim, float eps) {
    const int64_t half = head_dim / 2;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < num_rows; ++row) {
        bf16* values = qkv + row * row_size;
        const __m512 factor = _mm512_set1_ps(qkv_scale ? qkv_scale[row] : 1.f);
        for (int64_t head = 0; head < num_heads; ++head) {
            bf16* at = values + head * head_dim;
            const bf16* weight = weights + head * head_dim;
            __m512 squares = _mm512_setzero_ps();
            for (int64_t i = 0; i < head_dim; i += LANES) {
                const __m512 value = _mm512_mul_ps(load(at + i), factor);
                squares = _mm512_fmadd_ps(value, value, squares);
            }
            const float rms = std::sqrt(_mm512_reduce_add_ps(squares) / head_dim + eps);
            const __m512 scale = _mm512_div_ps(factor, _mm512_set1_ps(rms));
            for (int64_t i = 0; i < half; i += LANES) {
                const __m512 left = _mm512_mul_ps(_mm512_mul_ps(load(at + i), scale), load(weight + i));
                const __m512 right = _mm512_mul_ps(_mm512_mul_ps(load(at + half + i), scale), load(weight + half + i));
                const __m512 c = _mm512_loadu_ps(cos + row * half + i), s = _mm512_loadu_ps(sin + row * half + i);
                store(at + i, _mm512_fmsub_ps(left, c, _mm512_mul_ps(right, s)));
                store(at + half + i, _mm512_fmadd_ps(right, c, _mm512_mul_ps(left, s)));
            }
        }
        if (qkv_scale)
            for (int64_t i = num_heads * head_dim; i < row_size; i += LANES)
                store(values + i, _mm512_mul_ps(load(values + i), factor));
    }
}

// out = silu(gate) × up, both times their row's scale (if given); gate_up: (num_rows, 2 × size).
void silu_mul(const bf16* gate_up, const float* gate_up_scale, bf16* out, uint8_t* out_8bit, float* out_scale,
              int64_t num_rows, int64_t size) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < num_rows; ++row) {
        const bf16* at = gate_up + row * 2 * size;
        const __m512 factor = _mm512_set1_ps(gate_up_scale ? gate_up_scale[row] : 1.f), one = _mm512_set1_ps(1.f);
        write_row(row, size, out, out_8bit, out_scale, [=](int64_t i) {
            const __m512 gate = _mm512_mul_ps(load(at + i), factor), up = _mm512_mul_ps(load(at + size + i), factor);
            const __m512 e = exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), gate));
            return _mm512_mul_ps(_mm512_div_ps(gate, _mm512_add_ps(one, e)), up);
        });
    }
}

// (num_rows, size) → one byte a value and a scale a row.
void quantize_rows(const bf16* x, uint8_t* out_8bit, float* out_scale, int64_t num_rows, int64_t size) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < num_rows; ++row)
        write_row(row, size, nullptr, out_8bit, out_scale, [=](int64_t i) { return load(x + row * size + i); });
}

// Causal attention of each document over its prefix and itself; head_dim must be 128.
//
// q: rows of q_stride, head h at h × head_dim; k, v: rows of kv_stride likewise. Document i is the rows
// k_offsets[i] to k_offsets[i + 1] of k and v; its queries are the rows q_offsets[i] to q_offsets[i + 1] of q, and
// are its last positions. prefix_k, prefix_v: (prefix length, num_kv_heads, head_dim) of each document.
void attention(const bf16* q, const bf16* k, const bf16* v, bf16* out, const bf16* const* prefix_k,
               const bf16* const* prefix_v, const int64_t* prefix_lengths, const int64_t* q_offsets,
               const int64_t* k_offsets, int64_t num_documents, int64_t q_stride, int64_t kv_stride, int64_t num_heads,
               int64_t num_kv_heads, int64_t head_dim) {
    const int64_t group = num_heads / num_kv_heads;
    const __m512 scale = _mm512_set1_ps(1.f / std::sqrt((float)head_dim));
    std::vector<Prefix> prefixes;
    std::vector<int> prefix_of(num_documents);  // documents of one query share one, and come one after the other
    for (int64_t i = 0; i < num_documents; ++i) {
        if (prefixes.empty() || prefixes.back().k != prefix_k[i] || prefixes.back().length != prefix_lengths[i])
            prefixes.push_back({prefix_k[i], prefix_v[i], prefix_lengths[i], num_kv_heads, head_dim});
        prefix_of[i] = prefixes.size() - 1;
    }
    thread_local PanelPool pool;  // of the calling thread; those of the loops below reach it through the prefixes
    pool.lend(prefixes);
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, 1) collapse(2)
        for (size_t i = 0; i < prefixes.size(); ++i)
            for (int64_t kv_head = 0; kv_head < num_kv_heads; ++kv_head) prefixes[i].pack_head(kv_head);
        Panels own;
        std::vector<const uint32_t*> key_panels, value_panels;
        std::vector<float> scores;
        std::vector<bf16> weights;
#pragma omp for schedule(dynamic, 4)
        for (int64_t task = 0; task < num_documents * num_kv_heads; ++task) {
            const int64_t document = task / num_kv_heads, kv_head = task % num_kv_heads;
            const Prefix& prefix = prefixes[prefix_of[document]];
            const int64_t first = k_offsets[document], num_own = k_offsets[document + 1] - first;
            const int64_t num_queries = q_offsets[document + 1] - q_offsets[document];
            own.resize(num_own, head_dim);
            const int64_t at = first * kv_stride + kv_head * head_dim;
            own.pack_rows(k + at, v + at, kv_stride, num_own);
            key_panels.clear();
            value_panels.clear();
            prefix.panels[kv_head].append_to(key_panels, value_panels);
            own.append_to(key_panels, value_panels);
            // The prefix ends in a panel of its own; the columns that fill it up do not count.
            const int64_t own_column = prefix.panels[kv_head].num_panels * LANES;
            const int gap = own_column > prefix.length ? own_column - LANES : -1;
            const __mmask16 gap_mask = (1u << (prefix.length % LANES)) - 1;
            const int64_t width = key_panels.size() * LANES;
            scores.resize(ROWS * width);
            weights.resize(ROWS * width);
            const int64_t rows = num_queries * group;  // the heads of a position lie side by side
            for (int64_t row = 0; row < rows; row += ROWS) {
                const int n = std::min<int64_t>(ROWS, rows - row);
                const bf16 *q_rows[ROWS], *p_rows[ROWS];
                float *s_rows[ROWS], norm[ROWS];
                bf16* out_rows[ROWS];
                int seen[ROWS];
                for (int r = 0; r < ROWS; ++r) {
                    const int64_t i = row + std::min(r, n - 1);  // the last tile repeats its last row
                    const int64_t position = q_offsets[document] + i / group, head = kv_head * group + i % group;
                    q_rows[r] = q + position * q_stride + head * head_dim;
                    out_rows[r] = out + (position * num_heads + head) * head_dim;
                    s_rows[r] = scores.data() + r * width;
                    p_rows[r] = weights.data() + r * width;
                    seen[r] = own_column + num_own - num_queries + i / group + 1;
                }
                const int num_seen = seen[ROWS - 1], tile_panels = (num_seen + LANES - 1) / LANES;
                scores_rows<ROWS>(q_rows, key_panels, tile_panels, head_dim / 2, s_rows, scale);
                for (int r = 0; r < ROWS; ++r)
                    norm[r] = softmax_row(s_rows[r], (bf16*)p_rows[r], seen[r], tile_panels * LANES, gap, gap_mask);
                weighted_sum<3, 8>(p_rows, value_panels, (num_seen + 1) / 2, out_rows, norm);
                if (n > 3) weighted_sum<3, 8>(p_rows + 3, value_panels, (num_seen + 1) / 2, out_rows + 3, norm + 3);
            }
        }
    }
}
}
