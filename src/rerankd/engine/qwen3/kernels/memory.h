// Buffers that are allocated once and kept: fresh memory for each layer would cost a page fault for each 4 KB.

#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "layout.h"

// Zeroed memory, aligned to a line; 2 MB pages where the system has them. Grows, never shrinks.
template <class T>
class Buffer {
    T* data_ = nullptr;
    int64_t size_ = 0;

  public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { std::free(data_); }

    // At least `size` values. What it held is lost where it has to grow; the new memory is zero.
    T* reserve(int64_t size) {
        if (size <= size_) return data_;
        std::free(data_);
        data_ = nullptr;
        size_ = 0;
        constexpr int64_t HUGE_PAGE = 1 << 21;
        const int64_t bytes = round_up(size * int64_t(sizeof(T)), LINE_BYTES);
        const bool huge = bytes >= HUGE_PAGE;
        const int64_t rounded = huge ? round_up(bytes, HUGE_PAGE) : bytes;
        data_ = static_cast<T*>(std::aligned_alloc(huge ? HUGE_PAGE : LINE_BYTES, rounded));
        if (!data_) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
        if (huge) madvise(data_, rounded, MADV_HUGEPAGE);
#endif
        std::memset(static_cast<void*>(data_), 0, rounded);
        size_ = size;
        return data_;
    }

    T* data() const { return data_; }
    int64_t size() const { return size_; }
};

// Runs parts of a parallel region, which no exception may leave, and remembers whether memory was lacking.
class Guard {
    bool lacking_ = false;

  public:
    template <class Part>
    void run(const Part& part) {
        if (lacking_) return;
        try {
            part();
        } catch (const std::bad_alloc&) {
            lacking_ = true;
        }
    }

    // Whether memory was lacking since the last call.
    bool was_lacking() { return std::exchange(lacking_, false); }
};
