// What attention gets of a pass in one layer.

#pragma once

#include "epilogue.h"

// Keys and values of the tokens before a sequence: rows (length, num_kv_heads, HEAD_DIM). Sequences of one query share one.
template <class Element>
struct Prefix {
    const Element *key, *value;
    int64_t length;
};

// A sequence attends to its prefix and, causally, to its own rows of the heads. Its queries are its last positions, and
// stand in rows of their own: the last layer has fewer queries than keys.
struct Sequence {
    int64_t prefix;  // its index
    int64_t first_row, num_rows;
    int64_t first_query, num_queries;
};

template <class Element>
struct Sequences {
    const Prefix<Element>* prefixes;
    int64_t num_prefixes;
    const Sequence* sequences;
    int64_t num_sequences;
};

constexpr float SCORE_SCALE = 0.08838834764f;  // 1 / √HEAD_DIM
