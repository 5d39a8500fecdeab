// Forward pass of a sparse convolution.
#pragma once

#include "tile.h"

struct Forward {
    Shape shape;
    Rows rows;
    Source x;
    float* y;  // [blocks][outputs][out_height][out_width][16]
    Epilogue epilogue;
    int32_t finish;
};

struct ForwardScratch {
    Scratch band, partial;
};

// STRIDE is the step from a position to the next in the band buffer.
template <int STRIDE, int FINISH>
void forward_record(const Forward& f, const Layout& l, int record) {
    static thread_local ForwardScratch scratch;
    const Shape& s = f.shape;
    float* band = scratch.band.get(s.inputs * l.x_channel);
    float* partial = scratch.partial.get(long(s.outputs) * TILE * LANES);
    const int block = l.block(record);
    const Range bands = l.band_range(record);
    const long from = block * l.in_block;
    const Vec lanes = l.lanes(block);
    float* y = f.y + block * l.out_block;
    Epilogue epilogue = f.epilogue;
    if (FINISH == STATISTICS) epilogue.sums += long(record) * s.outputs * 3 * LANES;
    if (FINISH == APPLY && epilogue.other) epilogue.other += block * l.out_block;
    Prefetch prefetch;
    for (int at = bands.begin; at < bands.end; at++) {
        const int top = at * TILE_ROWS;
        const int first = top * s.stride - l.pad;
        pack(band, f.x, from, s.inputs, s.height, s.width, first, l.x_rows, l.pad, l.x_columns, l.skip, lanes,
             at > bands.begin ? l.x_kept : 0);
        const long next = long(block) * s.height + std::min(first + l.x_rows * l.skip, s.height);
        prefetch.start(f.x.p, l.in_row, next, next + TILE_ROWS * s.stride + l.pad, long(l.blocks) * s.height,
                       long(s.outputs) * ((l.out_width - 1) / TILE_COLUMNS + 1));
        for (int left = 0; left < l.out_width; left += TILE_COLUMNS) {
            const float* x = band + left * STRIDE * LANES;
            for (int part = 0; part < f.rows.blocks; part++) {
                const int32_t* segment = f.rows.segment(0, part);
                const bool last = part == f.rows.blocks - 1;
                for (int k = 0; k < s.outputs; k++) {
                    Tile tile;
                    float* sofar = partial + long(k) * TILE * LANES;
                    if (part)
                        EACH_POSITION tile[a][b] = load(sofar + (a * TILE_COLUMNS + b) * LANES);
                    else
                        EACH_POSITION tile[a][b] = zero();
                    multiply<STRIDE>(tile, x, l.x_row, f.rows, segment[k], segment[k + 1]);
                    if (!last) {
                        EACH_POSITION store(sofar + (a * TILE_COLUMNS + b) * LANES, tile[a][b]);
                        continue;
                    }
                    prefetch.step();
                    finish<FINISH>(tile, l.out_height - top, l.out_width - left, epilogue, y,
                                   top * l.out_row + k * l.out_channel + left * LANES, l.out_row, LANES, k, lanes,
                                   at == bands.begin && left == 0);
                }
            }
        }
    }
    end_of_streams();
}

template <int STRIDE>
void forward(const Forward& f) {
    const Layout l(f.shape);
    parallel(f.shape.threads, [&](int part) {
        Range records = share(l.records, part, f.shape.threads);
        for (int record = records.begin; record < records.end; record++) {
            if (f.finish == STATISTICS)
                forward_record<STRIDE, STATISTICS>(f, l, record);
            else if (f.finish == APPLY)
                forward_record<STRIDE, APPLY>(f, l, record);
            else
                forward_record<STRIDE, STORE>(f, l, record);
        }
    });
}
