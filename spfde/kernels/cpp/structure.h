// From a mask to the rows of nonzeros that the kernels walk along, and from dense weights to their values.
#pragma once

#include "shape.h"

struct WeightStrides {
    int64_t output, input, row, column;
};

// The nonzeros in the order of `rows`: a counting sort by the row that `row` names, which keeps the order within a row.
// flat: positions in [outputs][inputs][kernel][kernel], ascending. The dense weight may have other strides
// (channels_last), and `index` follows them.
template <class Row, class Offset>
void sort_rows(const Shape& s, const int32_t* flat, int count, const WeightStrides& w, int rows, int32_t* start,
               int32_t* offset, int32_t* index, Row&& row, Offset&& offset_of) {
    const int R = s.kernel, area = R * R;
    auto each = [&](auto&& visit) {
        for (int n = 0; n < count; n++) {
            const int i = flat[n] % area, channels = flat[n] / area;
            visit(channels / s.inputs, channels % s.inputs, i / R, i % R);
        }
    };
    std::vector<int32_t> next(rows + 1, 0);
    each([&](int k, int c, int r, int q) { next[row(k, c, r, q) + 1]++; });
    for (int i = 0; i < rows; i++) next[i + 1] += next[i];
    memcpy(start, next.data(), sizeof(int32_t) * (rows + 1));
    each([&](int k, int c, int r, int q) {
        const int at = next[row(k, c, r, q)]++;
        offset[at] = offset_of(k, c, r, q);
        index[at] = int32_t(k * w.output + c * w.input + r * w.row + q * w.column);
    });
}

// Rows are output channels. The offset of weight (k, c, r, q) in a band buffer is that of input channel c, row r and
// column q.
inline void build_rows(const Shape& s, const int32_t* flat, int count, const WeightStrides& w, int blocks, int32_t* start,
                       int32_t* offset, int32_t* index) {
    const Layout l(s);
    const int width = (s.inputs + blocks - 1) / blocks;
    sort_rows(
        s, flat, count, w, blocks * s.outputs, start, offset, index,
        [&](int k, int c, int, int) { return c / width * s.outputs + k; },
        [&](int, int c, int r, int q) { return int32_t(c * l.x_channel + r * l.x_row + q * LANES); });
}

// Rows are input channels. Row y of dx takes weight row r from row (y + pad - r) / stride of dy where that is whole;
// y = stride * i + parity leaves the fixed step (parity + pad - r) / stride from row i, and buffers begin one row above.
inline void build_transposed(const Shape& s, const int32_t* flat, int count, const WeightStrides& w, int blocks,
                             int32_t* start, int32_t* offset, int32_t* index) {
    const Layout l(s);
    const int width = (s.outputs + blocks - 1) / blocks, S = s.stride;
    auto parity = [&](int r) { return (r + l.pad) % S; };  // pad - r and pad + r differ by an even number
    auto step = [&](int r) { return (parity(r) + l.pad - r) / S + 1; };
    sort_rows(
        s, flat, count, w, S * S * blocks * s.inputs, start, offset, index,
        [&](int k, int c, int r, int q) { return ((parity(r) * S + parity(q)) * blocks + k / width) * s.inputs + c; },
        [&](int k, int, int r, int q) { return int32_t(k * l.dy_channel + step(r) * l.dy_row + step(q) * LANES); });
}

inline void gather(const Rows& rows, const float* dense) {
    for (int i = 0; i < rows.entries; i++) rows.value[i] = dense[rows.index[i]];
}
