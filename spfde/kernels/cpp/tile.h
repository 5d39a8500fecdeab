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
    MASK,        // input gradient: through ReLU, with the sums that the BatchNorm before it needs
    END,         // input gradient: ADD, and MASK for the block before, whose output the input is
};

// Sums are kept per lane, [records][channels][3][16]. STATISTICS shifts by the first value that each lane sees:
// without it the variance of a channel with a large mean would be a difference of two large numbers.
struct Epilogue {
    float* sums;          // of this record
    const float* other;   // APPLY: residual or none; MASK, END: input of the BatchNorm
    const float* z;       // END: output of the block before
    const float* second;  // END: input of the BatchNorm of that block's shortcut, or none
    const float *a, *b, *mean, *second_mean;
    int32_t relu;
};

template <int FINISH>
struct Finisher {
    Vec s0, s1, s2, shift, second_shift, a, b, lanes;
    float* out;
    const float *other, *z, *second;
    bool rectified;

    INLINE Finisher(const Epilogue& e, float* out, long offset, int channel, const Vec& lanes, const Vec& first_value,
                    bool first)
        : lanes(lanes), out(out + offset) {
        float* s = e.sums + long(channel) * 3 * LANES;
        if (FINISH == STATISTICS) {
            shift = first ? first_value : load(s);
            s0 = first ? zero() : load(s + LANES);
            s1 = first ? zero() : load(s + 2 * LANES);
            if (first) store(s, shift);
        }
        if (FINISH == MASK || FINISH == END) {
            s0 = load(s);
            s1 = load(s + LANES);
            shift = broadcast(e.mean[channel]);
            other = e.other + offset;
        }
        if (FINISH == END) {
            z = e.z + offset;
            second = e.second ? e.second + offset : nullptr;
            if (second) {
                s2 = load(s + 2 * LANES);
                second_shift = broadcast(e.second_mean[channel]);
            }
        }
        if (FINISH == APPLY || FINISH == MASK) {
            a = broadcast(e.a[channel]);
            b = broadcast(e.b[channel]);
        }
        if (FINISH == APPLY) {
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
        if (FINISH == END) {
            v = relu_gradient(load(z + o), v + load(out + o));
            s0 = s0 + v;
            s1 = multiply_add(v, load(other + o) - shift, s1);
            if (second) s2 = multiply_add(v, load(second + o) - second_shift, s2);
        }
        if (FINISH == ADD) v = v + load(out + o);
        if (FINISH == ADD || FINISH == END)
            store(out + o, v);  // it was read just now: no reason to go past the cache
        else
            stream(out + o, v);
    }

    INLINE void end(const Epilogue& e, int channel) {
        float* s = e.sums + long(channel) * 3 * LANES;
        if (FINISH == STATISTICS) {
            store(s + LANES, s0);
            store(s + 2 * LANES, s1);
        }
        if (FINISH == MASK || FINISH == END) {
            store(s, s0);
            store(s + LANES, s1);
        }
        if (FINISH == END && second) store(s + 2 * LANES, s2);
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
