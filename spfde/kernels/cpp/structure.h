// From a mask to the rows of nonzeros that the kernels walk along, and from dense weights to their values.
#pragma once

#include "shape.h"

struct WeightStrides {
    int64_t output, input, row, column;
};

// Which channels a block of `channels` holds: block b of `blocks`.
inline Range channel_block(int channels, int b, int blocks) {
    const int width = (channels + blocks - 1) / blocks;
    return {std::min(channels, b * width), std::min(channels, (b + 1) * width)};
}

// Rows are output channels. The offset of weight (k, c, r, q) in a band buffer is that of input channel c, row r and
// column q. mask is [outputs][inputs][kernel][kernel]; the dense weight may have other strides (channels_last).
inline int build_rows(const Shape& s, const uint8_t* mask, const WeightStrides& w, int blocks, int32_t* start, int32_t* offset, int32_t* index) {
    const Layout l(s);
    const int R = s.kernel, area = R * R;
    int n = 0;
    for (int b = 0; b < blocks; b++) {
        const Range channels = channel_block(s.inputs, b, blocks);
        for (int k = 0; k < s.outputs; k++) {
            *start++ = n;
            for (int c = channels.begin; c < channels.end; c++)
                for (int i = 0; i < area; i++) {
                    if (!mask[(k * s.inputs + c) * area + i]) continue;
                    offset[n] = int32_t(c * l.x_channel + i / R * l.x_row + i % R * LANES);
                    index[n++] = int32_t(k * w.output + c * w.input + i / R * w.row + i % R * w.column);
                }
        }
    }
    *start = n;
    return n;
}

// Rows are input channels. Row y of dx takes weight row r from row (y + pad - r) / stride of dy where that is whole;
// y = stride * i + parity leaves the fixed step (parity + pad - r) / stride from row i, and buffers begin one row above.
inline int build_transposed(const Shape& s, const uint8_t* mask, const WeightStrides& w, int blocks, int32_t* start, int32_t* offset,
                            int32_t* index) {
    const Layout l(s);
    const int R = s.kernel, area = R * R, S = s.stride;
    int n = 0;
    for (int parity = 0; parity < S * S; parity++) {
        int tap[9], at_tap[9], taps = 0;
        for (int i = 0; i < area; i++) {
            const int down = parity / S + l.pad - i / R, right = parity % S + l.pad - i % R;
            if (down % S || right % S) continue;
            tap[taps] = i;
            at_tap[taps++] = int((down / S + 1) * l.dy_row + (right / S + 1) * LANES);
        }
        for (int b = 0; b < blocks; b++) {
            const Range channels = channel_block(s.outputs, b, blocks);
            for (int c = 0; c < s.inputs; c++) {
                *start++ = n;
                for (int k = channels.begin; k < channels.end; k++)
                    for (int t = 0; t < taps; t++) {
                        if (!mask[(k * s.inputs + c) * area + tap[t]]) continue;
                        offset[n] = int32_t(k * l.dy_channel + at_tap[t]);
                        index[n++] = int32_t(k * w.output + c * w.input + tap[t] / R * w.row + tap[t] % R * w.column);
                    }
            }
        }
    }
    *start = n;
    return n;
}

inline void gather(const Rows& rows, const float* dense) {
    for (int i = 0; i < rows.entries; i++) rows.value[i] = dense[rows.index[i]];
}
