// Weights → panels (layout.h), once at load.

#pragma once

#include <cstring>

#include "layout.h"

// The size of a packed weight in values. Outputs and inputs that fill up the last panel and line are zero.
template <class W>
int64_t packed_size(int64_t outputs, int64_t inputs) {
    return divide_up(outputs, PANEL) * divide_up(inputs, LINE<W>) * PANEL * LINE<W>;
}

// The output that stands in a place of the panels. With `halves`, a panel has 16 outputs of the first half of all
// outputs, and the same 16 of the second half.
inline int64_t output_at(int64_t place, int64_t outputs, bool halves) {
    if (!halves) return place;
    const int64_t within = place / PANEL * HALF + place % HALF;
    return place % PANEL < HALF ? within : outputs / 2 + within;
}

// One line of 16 outputs → half of it in a panel: groups of 4 bytes, those of the outputs side by side.
//
// rows: of each output, or null. input, count: the first of them, and how many there are; zeros fill up the line.
template <class W>
void pack_half(const W* const* rows, int64_t input, int64_t count, W* to) {
    constexpr int64_t GROUPS = LINE_BYTES / 4;
    for (int64_t output = 0; output < HALF; ++output) {
        uint32_t groups[GROUPS] = {};
        if (rows[output] && count >= LINE<W>)
            std::memcpy(groups, rows[output] + input, LINE_BYTES);
        else if (rows[output])
            std::memcpy(groups, rows[output] + input, count * sizeof(W));
        for (int64_t group = 0; group < GROUPS; ++group)
            std::memcpy((char*)to + (group * HALF + output) * 4, &groups[group], 4);
    }
}

// weight: (outputs, inputs). Panels first_panel to last_panel, so that threads can share the work.
template <class W>
void pack_panels(const W* weight, int64_t outputs, int64_t inputs, bool halves, W* to, int64_t first_panel,
                 int64_t last_panel) {
    const int64_t num_lines = divide_up(inputs, LINE<W>);
    for (int64_t place = first_panel * PANEL; place < last_panel * PANEL; place += HALF) {
        const W* rows[HALF];
        for (int64_t i = 0; i < HALF; ++i) {
            const int64_t output = output_at(place + i, outputs, halves);
            rows[i] = output < outputs ? weight + output * inputs : nullptr;
        }
        W* at = to + (place / PANEL * num_lines * PANEL + place % PANEL) * LINE<W>;
        for (int64_t line = 0; line < num_lines; ++line, at += PANEL * LINE<W>)
            pack_half(rows, line * LINE<W>, inputs - line * LINE<W>, at);
    }
}

// What each place's sum has too much where rows are stored `zero_point` above their value.
inline void pack_offsets(const int8_t* weight, int64_t outputs, int64_t inputs, bool halves, int zero_point,
                         int32_t* offset) {
    for (int64_t place = 0; place < round_up(outputs, PANEL); ++place) {
        const int64_t output = output_at(place, outputs, halves);
        int32_t sum = 0;
        for (int64_t input = 0; output < outputs && input < inputs; ++input) sum += weight[output * inputs + input];
        offset[place] = zero_point * sum;
    }
}

inline void pack_scales(const float* scale, int64_t outputs, bool halves, float* to) {
    for (int64_t place = 0; place < round_up(outputs, PANEL); ++place) {
        const int64_t output = output_at(place, outputs, halves);
        to[place] = output < outputs ? scale[output] : 0.f;
    }
}
