// What one convolution looks like, and how its band buffers are laid out.
#pragma once

#include <algorithm>

#include "parallel.h"
#include "vector.h"

// Positions of an output tile: as many accumulators as the registers hold beside one weight and one operand.
#if defined(__AVX512F__)
constexpr int TILE_ROWS = 4, TILE_COLUMNS = 4;  // 16 of 32 registers; a weight is loaded once for 16 products
#elif defined(__AVX2__) || defined(__aarch64__)
constexpr int TILE_ROWS = 2, TILE_COLUMNS = 2;  // 8 of 16 registers of 256 bits, or 16 of 32 of 128 bits
#else
constexpr int TILE_ROWS = 1, TILE_COLUMNS = 2;  // 8 of 16 registers of 128 bits
#endif
constexpr int TILE = TILE_ROWS * TILE_COLUMNS;

#define EACH_POSITION                                           \
    _Pragma("GCC unroll 4") for (int a = 0; a < TILE_ROWS; a++) \
        _Pragma("GCC unroll 4") for (int b = 0; b < TILE_COLUMNS; b++)

// Activations are [batch / 16][height][channels][width][16]: a vector holds the same pixel of 16 images, so a weight
// multiplies it as one number, whatever the pattern of zeros; and some rows of all channels, which is what the kernels
// work on at a time, are one run of memory. Kernels are 1x1 or 3x3, padded to keep the size.
struct Shape {
    int32_t batch;  // images
    int32_t inputs, height, width;
    int32_t outputs, kernel, stride;
    int32_t threads;
};

inline int round_up(int n, int to) { return (n + to - 1) / to * to; }

// A *band* is TILE_ROWS rows of the output, with the rows of the input that they need. It is copied, padded with zeros,
// into a buffer [channel][row][column][16] that stays in the L2 cache: the inner loops then know no borders, and
// BatchNorm and ReLU of the input are applied once, on the way. Strides are in floats.
struct Layout {
    int blocks, live;  // blocks of 16 images; live lanes of the last
    int pad, out_height, out_width, bands;
    int skip;  // pixels of x from one to the next that is packed
    long in_channel, in_row, in_block, out_channel, out_row, out_block;  // strides of activations
    int x_rows, x_columns, dy_rows, dy_columns;                          // of one channel in a band buffer
    int x_kept;  // rows that two bands of x share; two of dy do
    long x_row, x_channel, dy_row, dy_channel;                           // strides in a band buffer
    int splits, records;                                                 // see below

    explicit Layout(const Shape& s) {
        blocks = (s.batch + LANES - 1) / LANES;
        live = s.batch - (blocks - 1) * LANES;
        pad = s.kernel / 2;
        out_height = (s.height - 1) / s.stride + 1;
        out_width = (s.width - 1) / s.stride + 1;
        bands = (out_height + TILE_ROWS - 1) / TILE_ROWS;
        in_channel = long(s.width) * LANES;
        in_row = s.inputs * in_channel;
        in_block = s.height * in_row;
        out_channel = long(out_width) * LANES;
        out_row = s.outputs * out_channel;
        out_block = out_height * out_row;
        int columns = round_up(out_width, TILE_COLUMNS);  // tiles may reach over the right border, onto zeros
        // A 1x1 convolution of stride 2 uses every other pixel. Those alone are packed, and it is one of stride 1 then.
        skip = s.kernel == 1 ? s.stride : 1;
        const int step = s.stride / skip;
        x_rows = (TILE_ROWS - 1) * step + s.kernel;
        x_kept = std::max(0, s.kernel - step);
        x_columns = std::max(skip == 1 ? s.width + 2 * pad : out_width, (columns - 1) * step + s.kernel);
        x_columns |= s.kernel == 1;  // an odd number: else windows of all channels fall into the same sets of the L1 cache
        dy_rows = TILE_ROWS + 2;
        dy_columns = columns + 2;
        x_row = long(x_columns) * LANES;
        x_channel = x_rows * x_row;
        dy_row = long(dy_columns) * LANES;
        dy_channel = dy_rows * dy_row;
        // A *record* is what one thread does in one go, and has sums of its own: a block of images, or where there are
        // fewer blocks than threads (or they do not divide) some of its bands. Records, and so the order of all sums,
        // follow from shape and thread count alone.
        splits = 1;
        while (blocks * splits % s.threads && splits < bands) splits++;
        records = blocks * splits;
    }

    int block(int record) const { return record / splits; }

    Range band_range(int record) const { return share(bands, record % splits, splits); }

    int record_rows(int record) const {
        Range r = band_range(record);
        return std::min(out_height, r.end * TILE_ROWS) - std::min(out_height, r.begin * TILE_ROWS);
    }

    Vec lanes(int block) const { return lane_mask(block == blocks - 1 ? live : LANES); }
};

// The nonzeros of a layer, row by row: a row is an output channel (forward) or an input channel (input gradient). A row
// is cut where a block of the other channels ends, so that the part of the band buffer in use fits the L1 cache; entries
// are in the order of their use: class, channel block, row.
struct Rows {
    const int32_t* start;   // [classes * blocks * rows + 1]
    const int32_t* offset;  // [entries] into the band buffer
    float* value;           // [entries] weights, gathered at each step
    const int32_t* index;   // [entries] position in the dense weight
    int32_t rows, blocks, classes, entries;

    const int32_t* segment(int cls, int block) const { return start + (long(cls) * blocks + block) * rows; }
};
