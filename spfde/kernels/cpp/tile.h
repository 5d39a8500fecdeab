// The inner loop that forward pass and input gradient share, and what is done to a finished tile.
#pragma once

#include "pack.h"

typedef Vec Tile[TILE_ROWS][TILE_COLUMNS];

// Adds the nonzeros begin .. end of a row: one weight and TILE operands from the band buffer each. STRIDE is the step
// between neighbouring positions of the tile in the buffer.
template <int STRIDE>
INLINE void multiply(Tile& tile, const float* band, long row, const Rows& rows, int begin, int end) {
    for (int i = begin; i < end; i++) {
        const float* x = band + rows.offset[i];
        Vec w = broadcast(rows.value[i]);
        EACH_POSITION tile[a][b] = multiply_add(w, load(x + a * STRIDE * row + b * STRIDE * LANES), tile[a][b]);
    }
}

// What becomes of a finished tile.
enum Finish : int32_t {
    STORE = 0,
    STATISTICS,  // forward: store, and sums for BatchNorm
    APPLY,       // forward: a y + b (+ residual), ReLU if asked for: a BatchNorm whose statistics are known
    ADD,         // input gradient: add to what is there
    MASK,        // input gradient: through ReLU and to the sums that the BatchNorm before it needs
};

// Sums are kept per lane, [records][channels][3 or 2][16]. STATISTICS shifts by the first value that each lane sees:
// without it the variance of a channel with a large mean would be a difference of two large numbers.
struct Epilogue {
    float* sums;        // of this record
    const float* other; // APPLY: residual or none; MASK: input of the BatchNorm
    const float *a, *b, *mean;
    int32_t relu;
};

template <int FINISH>
struct Finisher {
    Vec s0, s1, shift, a, b, lanes;
    float* out;
    const float* other;
    bool rectified;

    INLINE Finisher(const Epilogue& e, float* out, long offset, int channel, const Vec& lanes, const Vec& first_value,
                    bool first)
        : lanes(lanes), out(out + offset) {
        if (FINISH == STATISTICS) {
            float* s = e.sums + long(channel) * 3 * LANES;
            shift = first ? first_value : load(s);
            s0 = first ? zero() : load(s + LANES);
            s1 = first ? zero() : load(s + 2 * LANES);
            if (first) store(s, shift);
        }
        if (FINISH == MASK) {
            s0 = load(e.sums + long(channel) * 2 * LANES);
            s1 = load(e.sums + long(channel) * 2 * LANES + LANES);
            shift = broadcast(e.mean[channel]);
        }
        if (FINISH == APPLY || FINISH == MASK) {
            a = broadcast(e.a[channel]);
            b = broadcast(e.b[channel]);
            other = e.other ? e.other + offset : nullptr;
            rectified = e.relu;
        }
    }

    INLINE void position(long o, Vec v) {
        if (FINISH == STATISTICS) {
            Vec d = v - shift;
            s0 = s0 + d;
            s1 = multiply_add(d, d, s1);
        }
        if (FINISH == APPLY) {
            v = multiply_add(a, v, b);
            if (other) v = v + load(other + o);
            if (rectified) v = relu(v);
            v = masked(v, lanes);
        }
        if (FINISH == MASK) {
            Vec y = load(other + o);
            v = relu_gradient(multiply_add(a, y, b), v);
            s0 = s0 + v;
            s1 = multiply_add(v, y - shift, s1);
        }
        if (FINISH == ADD)
            store(out + o, v + load(out + o));  // it was read just now: no reason to go past the cache
        else
            stream(out + o, v);
    }

    INLINE void end(const Epilogue& e, int channel) {
        if (FINISH == STATISTICS) {
            store(e.sums + long(channel) * 3 * LANES + LANES, s0);
            store(e.sums + long(channel) * 3 * LANES + 2 * LANES, s1);
        }
        if (FINISH == MASK) {
            store(e.sums + long(channel) * 2 * LANES, s0);
            store(e.sums + long(channel) * 2 * LANES + LANES, s1);
        }
    }
};

// Finishes `rows` x `columns` positions of a tile (all of it but at the right and lower border), `row` and `column`
// floats apart in the output.
template <int FINISH>
INLINE void finish(const Tile& tile, int rows, int columns, const Epilogue& e, float* out, long offset, long row,
                   long column, int channel, const Vec& lanes, bool first) {
    Finisher<FINISH> f(e, out, offset, channel, lanes, tile[0][0], first);
    if (rows >= TILE_ROWS && columns >= TILE_COLUMNS) {
        EACH_POSITION f.position(a * row + b * column, tile[a][b]);
    } else {
        alignas(64) float spilled[TILE * LANES];  // registers have no number that a loop could count
        EACH_POSITION store(spilled + (a * TILE_COLUMNS + b) * LANES, tile[a][b]);
        for (int a = 0; a < std::min(rows, TILE_ROWS); a++)
            for (int b = 0; b < std::min(columns, TILE_COLUMNS); b++)
                f.position(a * row + b * column, load(spilled + (a * TILE_COLUMNS + b) * LANES));
    }
    f.end(e, channel);
}
