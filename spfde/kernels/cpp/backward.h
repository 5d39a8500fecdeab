// Gradients of a sparse convolution: of its input, and of its weights at chosen positions alone.
#pragma once

#include "tile.h"

struct Backward {
    Shape shape;
    Rows transposed;  // rows are input channels; a class for each parity of row and column where the stride is 2
    Rows positions;   // rows as in the forward pass: where the gradient of the weights is wanted
    Source x, dy;
    float* dx;        // or none
    float* dw;        // dense gradient of the weights, written at the positions alone; or none
    Epilogue epilogue;
    int32_t finish;
};

struct BackwardScratch {
    Scratch x, dy, partial;
};

// Weight gradients of one band: the tile of dy stays in registers, and each position's sum over images and pixels is
// kept in 16 lanes until the end.
template <int STRIDE>
INLINE void gradient_tile(const float* dy, long dy_row, const float* band, long x_row, const Rows& at, int begin, int end,
                          float* lanes) {
    Tile g;
    EACH_POSITION g[a][b] = load(dy + a * dy_row + b * LANES);
    constexpr int CHAINS = TILE < 4 ? TILE : 4;  // independent sums, so that additions need not wait for each other
    for (int i = begin; i < end; i++) {
        const float* x = band + at.offset[i];
        Vec s[CHAINS];
        EACH_POSITION {
            const int n = a * TILE_COLUMNS + b;
            Vec v = load(x + a * STRIDE * x_row + b * STRIDE * LANES);
            s[n % CHAINS] = n < CHAINS ? g[a][b] * v : multiply_add(g[a][b], v, s[n % CHAINS]);
        }
        float* to = lanes + long(i) * LANES;
        Vec total = CHAINS == 4 ? (s[0] + s[1]) + (s[2 % CHAINS] + s[3 % CHAINS]) : s[0] + s[1];
        store(to, load(to) + total);
    }
}

template <int STRIDE>
void weight_gradient_band(const Backward& f, const Layout& l, const float* dy, const float* x, float* lanes,
                          Prefetch& prefetch) {
    const Rows& at = f.positions;
    const int tiles = (l.out_width - 1) / TILE_COLUMNS + 1;
    auto tile = [&](int part, int k, int n) {
        const int32_t* segment = at.segment(0, part);
        if (part == 0) prefetch.step();
        gradient_tile<STRIDE>(dy + k * l.dy_channel + l.dy_row + (1 + n * TILE_COLUMNS) * LANES, l.dy_row,
                              x + n * TILE_COLUMNS * STRIDE * LANES, l.x_row, at, segment[k], segment[k + 1], lanes);
    };
    // Few positions: a row's sums stay in the L1 cache over all tiles. Many: the channels of a block do.
    if (at.blocks == 1)
        for (int k = 0; k < at.rows; k++)
            for (int n = 0; n < tiles; n++) tile(0, k, n);
    else
        for (int part = 0; part < at.blocks; part++)
            for (int n = 0; n < tiles; n++)
                for (int k = 0; k < at.rows; k++) tile(part, k, n);
}

// What the finish of a row of nonzeros reads is asked for so many rows before: a row takes some 100 cycles at 90 % sparsity,
// main memory several times as long.
constexpr int ROWS_AHEAD = 4;

// Input gradient of the rows below one band of dy. Row y of dx takes from row (y + pad - r) / STRIDE of dy, so with
// stride 2 each parity of (row, column) has nonzeros of its own, and is an image of half the size.
template <int STRIDE, int FINISH>
void input_gradient_band(const Backward& f, const Layout& l, int top, const float* dy, float* partial, float* dx,
                         const Epilogue& epilogue, const Vec& lanes, Prefetch* prefetch) {
    const Shape& s = f.shape;
    const Rows& rows = f.transposed;
    // What the finish reads, unless the mask's source was packed just now.
    const float* touched[] = {FINISH == MASK || FINISH == END ? epilogue.other : dx, FINISH == END ? dx : nullptr,
                              FINISH == END ? epilogue.z : nullptr, FINISH == END ? epilogue.second : nullptr};
    for (int cls = 0; cls < STRIDE * STRIDE; cls++) {
        const int down = cls / STRIDE, right = cls % STRIDE;  // parity
        const int height = (s.height - down + STRIDE - 1) / STRIDE - top;
        const int width = (s.width - right + STRIDE - 1) / STRIDE;
        if (height <= 0) continue;
        if (FINISH == ADD && *rows.segment(cls, 0) == *rows.segment(cls + 1, 0)) continue;  // nothing to add
        for (int left = 0; left < width; left += TILE_COLUMNS) {
            const long corner = (top * STRIDE + down) * l.in_row + (left * STRIDE + right) * LANES;
            const bool whole = height >= TILE_ROWS && width - left >= TILE_COLUMNS;
            for (int part = 0; part < rows.blocks; part++) {
                const int32_t* segment = rows.segment(cls, part);
                const bool last = part == rows.blocks - 1;
                for (int c = 0; c < s.inputs; c++) {
                    Tile tile;
                    float* sofar = partial + long(c) * TILE * LANES;
                    if (part)
                        EACH_POSITION tile[a][b] = load(sofar + (a * TILE_COLUMNS + b) * LANES);
                    else
                        EACH_POSITION tile[a][b] = zero();
                    if (last) {
                        prefetch[0].step();
                        prefetch[1].step();
                        if (FINISH != STORE && whole && c + ROWS_AHEAD < s.inputs) {
                            for (const float* p : touched) {
                                if (!p) continue;
                                p += (c + ROWS_AHEAD) * l.in_channel + corner;
                                EACH_POSITION __builtin_prefetch(p + a * STRIDE * l.in_row + b * STRIDE * LANES, 0, 2);
                            }
                        }
                    }
                    multiply<1>(tile, dy + left * LANES, l.dy_row, rows, segment[c], segment[c + 1]);
                    if (!last) {
                        EACH_POSITION store(sofar + (a * TILE_COLUMNS + b) * LANES, tile[a][b]);
                        continue;
                    }
                    finish<FINISH>(tile, height, width - left, epilogue, dx, c * l.in_channel + corner,
                                   STRIDE * l.in_row, STRIDE * LANES, c, lanes, false);
                }
            }
        }
    }
}

template <int STRIDE, int FINISH>
void backward_record(const Backward& f, const Layout& l, int record, float* sums_of_weights) {
    static thread_local BackwardScratch scratch;
    const Shape& s = f.shape;
    float* dy = scratch.dy.get(s.outputs * l.dy_channel);
    float* x = f.dw ? scratch.x.get(s.inputs * l.x_channel) : nullptr;
    float* partial = f.dx ? scratch.partial.get(long(s.inputs) * TILE * LANES) : nullptr;
    const int block = l.block(record);
    const Range bands = l.band_range(record);
    const long from_x = block * l.in_block, from_dy = block * l.out_block;
    const Vec lanes = l.lanes(block);
    Epilogue epilogue = f.epilogue;
    if (FINISH == MASK || FINISH == END) {
        epilogue.other += from_x;
        epilogue.sums += long(record) * s.inputs * 3 * LANES;
        memset(epilogue.sums, 0, sizeof(float) * s.inputs * 3 * LANES);
    }
    if (FINISH == END) {
        epilogue.z += from_x;
        if (epilogue.second) epilogue.second += from_x;
    }
    Prefetch next_dy[2], next_x;
    for (int at = bands.begin; at < bands.end; at++) {
        const int top = at * TILE_ROWS;
        pack(dy, f.dy, from_dy, s.outputs, l.out_height, l.out_width, top - 1, l.dy_rows, 1, l.dy_columns, 1, lanes,
             at > bands.begin ? 2 : 0);
        const int tiles = (l.out_width - 1) / TILE_COLUMNS + 1;
        if (f.dx) {
            const long next = long(block) * l.out_height + std::min(top - 1 + l.dy_rows, l.out_height);
            const long count = long(l.blocks) * l.out_height, steps = long(tiles) * s.inputs * STRIDE * STRIDE;
            next_dy[0].start(f.dy.p, l.out_row, next, next + TILE_ROWS + 1, count, steps);
            if (f.dy.mode == GRADIENT) next_dy[1].start(f.dy.q, l.out_row, next, next + TILE_ROWS + 1, count, steps);
        }
        if (f.dw) {
            const int first = top * STRIDE - l.pad;
            const long next = long(block) * s.height + std::min(first + l.x_rows * l.skip, s.height);
            next_x.start(f.x.p, l.in_row, next, next + TILE_ROWS * STRIDE + l.pad, long(l.blocks) * s.height,
                         long(tiles) * s.outputs);
            pack(x, f.x, from_x, s.inputs, s.height, s.width, first, l.x_rows, l.pad, l.x_columns, l.skip, lanes,
                 at > bands.begin ? l.x_kept : 0);
            if (l.skip == STRIDE)
                weight_gradient_band<1>(f, l, dy, x, sums_of_weights, next_x);
            else
                weight_gradient_band<STRIDE>(f, l, dy, x, sums_of_weights, next_x);
        }
        if (f.dx)
            input_gradient_band<STRIDE, FINISH>(f, l, top, dy, partial, f.dx + from_x, epilogue, lanes, next_dy);
    }
    end_of_streams();
}

template <int STRIDE>
void backward(const Backward& f) {
    const Layout l(f.shape);
    const int parts = f.shape.threads, positions = f.positions.entries;
    static thread_local Scratch scratch;  // of the calling thread, used by all: [parts][positions][16]
    float* sums = f.dw ? scratch.get(long(parts) * positions * LANES) : nullptr;
    parallel(parts, [&](int part) {
        float* own = f.dw ? sums + long(part) * positions * LANES : nullptr;
        if (f.dw) memset(own, 0, sizeof(float) * positions * LANES);
        Range records = share(l.records, part, parts);
        for (int record = records.begin; record < records.end; record++) {
            if (f.dx && f.finish == MASK)
                backward_record<STRIDE, MASK>(f, l, record, own);
            else if (f.dx && f.finish == END)
                backward_record<STRIDE, END>(f, l, record, own);
            else if (f.dx && f.finish == ADD)
                backward_record<STRIDE, ADD>(f, l, record, own);
            else
                backward_record<STRIDE, STORE>(f, l, record, own);
        }
    });
    if (!f.dw) return;
    // The threads' sums, in the order of the threads.
    parallel(parts, [&](int part) {
        Range range = share(positions, part, parts);
        for (int i = range.begin; i < range.end; i++) {
            Vec total = load(sums + long(i) * LANES);
            for (int t = 1; t < parts; t++) total = total + load(sums + (long(t) * positions + i) * LANES);
            f.dw[f.positions.index[i]] = sum(total);
        }
    });
}
