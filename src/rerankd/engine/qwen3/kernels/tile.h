// The eight AMX operations that the kernels use, by the hardware and by an emulation that is exact to the bit.
//
// A tile is 16 rows of 64 bytes: 16 × 32 bfloat16, 16 × 64 int8, or 16 × 16 float32 or int32. A product C += A B takes
// A as rows (16 × K), B as [K / 2 pairs or K / 4 quads][16 outputs], and C as rows. Tile numbers are template
// arguments: an instruction names its tiles as constants.
#pragma once

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "layout.h"

constexpr int64_t TILE_BYTES = TILE_ROWS * LINE_BYTES;

// Every statement clobbers memory: compilers know neither what a tile load reads nor that tiles hold state, and GCC 12
// moves stores behind its own intrinsics. Configuration belongs to a thread, and oneDNN changes it, so each parallel
// region configures at its start and releases at its end.
struct HardwareTile {
    // Linux lends the tiles to a process that asks, before its threads use them.
    static bool is_available() {
        constexpr unsigned AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25, AMX = AMX_BF16 | AMX_TILE | AMX_INT8;
        constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
        unsigned a, b, c, d = 0;
        const bool known = __get_cpuid_count(7, 0, &a, &b, &c, &d);
        const bool vectors = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512dq") &&
                             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
        return known && (d & AMX) == AMX && vectors &&
               syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
    }

    static void configure() {
        struct alignas(64) {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } config;
        static_assert(sizeof config == 64);
        asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
    }

    static void release() { asm volatile("tilerelease" ::: "memory"); }

    template <int T>
    static void zero() {
        asm volatile("tilezero %%tmm%c0" ::"i"(T) : "memory");
    }

    template <int T>
    static void load(const void* from, int64_t stride = LINE_BYTES) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
    }

    // Hints that the data is not needed again soon: it does not push the weights out of L1.
    template <int T>
    static void stream_load(const void* from, int64_t stride = LINE_BYTES) {
        asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
    }

    template <int T>
    static void store(void* to, int64_t stride = LINE_BYTES) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
    }

    template <int C, int A, int B>
    static void dot_bf16() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B) : "memory");
    }

    template <int C, int A, int B>
    static void dot_int8() {
        asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B) : "memory");
    }
};

// Eight tiles of a thread in memory. An operation outside configure() … release() ends the process, as it does on the
// hardware.
class EmulatedTile {
    struct State {
        alignas(64) uint8_t tiles[8][TILE_BYTES];
        bool configured;  // zero at first, as all of it
    };

    static inline thread_local State state_;

    static uint8_t* tile(int index) {
        State& state = state_;
        if (!state.configured) {
            std::fputs("This is a bug: a tile operation without a configuration.\n", stderr);
            std::abort();
        }
        return state.tiles[index];
    }

  public:
    static bool is_available() { return true; }

    static void configure() {
        std::memset(state_.tiles, 0, sizeof state_.tiles);
        state_.configured = true;
    }

    static void release() { state_.configured = false; }

    template <int T>
    static void zero() {
        std::memset(tile(T), 0, TILE_BYTES);
    }

    template <int T>
    static void load(const void* from, int64_t stride = LINE_BYTES) {
        uint8_t* to = tile(T);
        for (int row = 0; row < TILE_ROWS; ++row)
            std::memcpy(to + row * LINE_BYTES, (const uint8_t*)from + row * stride, LINE_BYTES);
    }

    template <int T>
    static void stream_load(const void* from, int64_t stride = LINE_BYTES) {
        load<T>(from, stride);
    }

    template <int T>
    static void store(void* to, int64_t stride = LINE_BYTES) {
        const uint8_t* from = tile(T);
        for (int row = 0; row < TILE_ROWS; ++row)
            std::memcpy((uint8_t*)to + row * stride, from + row * LINE_BYTES, LINE_BYTES);
    }

    template <int C, int A, int B>
    static void dot_bf16() {
        emulate_dot_bf16(tile(C), tile(A), tile(B));
    }

    template <int C, int A, int B>
    static void dot_int8() {
        emulate_dot_int8(tile(C), tile(A), tile(B));
    }

  private:
    static void emulate_dot_bf16(uint8_t* c, const uint8_t* a, const uint8_t* b);
    static void emulate_dot_int8(uint8_t* c, const uint8_t* a, const uint8_t* b);
};

#include "emulated_tile.h"
