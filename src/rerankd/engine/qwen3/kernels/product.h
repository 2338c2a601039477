// Products of rows with weights, whose sums go to an epilogue instead of to memory.
//
// The sum of an output is one chain over its inputs from the first to the last, whatever the number of rows: a row's
// result does not depend on the others.

#pragma once

#include <omp.h>

#include <algorithm>

#include "memory.h"

// The weights of the product that comes after one: what the first of its tasks read, `task_bytes` apart.
struct Following {
    const void* weights;
    int64_t task_bytes;
};

// All threads share the tasks of a product, and wait for each other at its end. A task fetches the weights of the next
// task of its thread. Tasks take about the same time, so the threads take turns, and that is the one after those of all
// other threads.
//
// Product::task computes one task; scratch belongs to the thread. epilogue.rows gets finished sums: of num_rows rows,
// Epilogue::PANELS panels side by side, `stride` sums from row to row.
template <class Product, class Value, class Weight, class Scratch, class Epilogue>
void multiply(const Tiles<Value>& rows, int64_t num_rows, const Panels<Weight>& weights, const Following& following,
              Scratch& scratch, const Epilogue& epilogue) {
    const int64_t panels = Product::panels_a_task(Epilogue::PANELS, weights.num_panels);
    const int64_t least_chunks = divide_up(num_rows, Product::rows_a_task(rows.num_lines));
    const int64_t chunk = round_up(divide_up(num_rows, least_chunks), TILE_ROWS), chunks = divide_up(num_rows, chunk);
    const int64_t groups = divide_up(weights.num_panels, panels), tasks = groups * chunks;
#pragma omp for schedule(dynamic, 1)
    for (int64_t index = 0; index < tasks; ++index) {
        // The chunks of rows outside: they stay in the caches while all weights pass.
        const int64_t first_panel = index % groups * panels, first_row = index / groups * chunk;
        const int64_t next = index + omp_get_num_threads();
        const void* then = next < tasks ? static_cast<const void*>(weights.panel(next % groups * panels))
                                        : static_cast<const char*>(following.weights) + (next - tasks) * following.task_bytes;
        const Task task{first_row, std::min(chunk, num_rows - first_row), first_panel,
                        std::min(panels, weights.num_panels - first_panel), then};
        scratch.guard.run([&] { Product::task(rows, weights, task, scratch, epilogue); });
    }
}

// A product from `Kernel::block<ROWS>`, which computes some rows of a tile × one panel, with all inputs:
//
//     block(rows, panel, num_lines, sums, stride, next, num_next)
//
// sums: ROWS × PANEL, rows `stride` apart. It prefetches num_next lines of 64 bytes at `next`.
template <class Kernel>
struct BlockProduct {
    using Value = typename Kernel::Value;
    using Weight = typename Kernel::Weight;
    using Sum = typename Kernel::Sum;
    static constexpr int ZERO_POINT = Kernel::ZERO_POINT;
    static constexpr int64_t ROWS = Kernel::ROWS;  // divides TILE_ROWS
    static constexpr int64_t MOST_ROWS = 512, ROWS_BYTES = 512 * 1024;

    struct Scratch {
        alignas(64) Sum sums[ROWS * PANEL * PANELS_A_HEAD];
        Guard guard;
    };

    // Rows of bytes that fill half of a common L2: products of bytes are so fast that they would wait for L3. Others read
    // the weights once instead.
    static int64_t rows_a_task(int64_t num_lines) {
        if (sizeof(Value) > 1) return MOST_ROWS;
        return std::clamp(ROWS_BYTES / LINE_BYTES / num_lines / TILE_ROWS * TILE_ROWS, 2 * TILE_ROWS, MOST_ROWS);
    }

    static int64_t panels_a_task(int64_t at_least, int64_t num_panels) {
        return num_panels >= 64 ? std::max<int64_t>(at_least, 4) : at_least;
    }

    template <class Epilogue>
    static void task(const Tiles<Value>& rows, const Panels<Weight>& weights, const Task& task, Scratch& scratch,
                     const Epilogue& epilogue) {
        constexpr int64_t PANELS = Epilogue::PANELS, STRIDE = PANELS * PANEL;
        const int64_t panel_bytes = weights.num_lines * PANEL * LINE_BYTES;
        // The panels that come next are fetched meanwhile, a share with each block of rows.
        const int64_t num_next = divide_up(panel_bytes / LINE_BYTES, divide_up(task.num_rows, ROWS));
        const int64_t end = task.first_panel + task.num_panels;
        for (int64_t panel = task.first_panel; panel < end; panel += PANELS) {
            const char* after = (const char*)(panel + PANELS < end ? weights.panel(panel + PANELS) : task.then);
            for (int64_t row = 0; row < task.num_rows; row += ROWS) {
                const int64_t count = std::min(ROWS, task.num_rows - row);
                epilogue.prefetch(task.first_row + row, count, panel);
                for (int64_t p = 0; p < PANELS; ++p) {
                    const char* next = after + p * panel_bytes + row / ROWS * num_next * LINE_BYTES;
                    Kernel::block(rows.line(task.first_row + row, 0), weights.panel(panel + p), weights.num_lines,
                                  scratch.sums + p * PANEL, STRIDE, next, num_next);
                }
                epilogue.rows(task.first_row + row, count, panel, scratch.sums, STRIDE);
            }
        }
    }
};
