// Copying a band of an activation into its padded buffer, and asking for the next band ahead of time.
#pragma once

#include "shape.h"

// What the elements of an activation are made of while they are copied.
enum SourceMode : int32_t {
    PLAIN = 0,      // p
    AFFINE_RELU,    // relu(a p + b): BatchNorm and ReLU of a stored convolution
    GRADIENT,       // a p + b q + d: gradient behind a BatchNorm from that before it (p) and its input (q)
    SCALED,         // a p: the same where statistics are constants
};

struct Source {
    int32_t mode;
    const float *p, *q;
    const float *a, *b, *d;  // [channels]
};

// Rows of all channels are one run of memory, so what comes next is known: 4 KB ahead is far enough for the L2 cache.
constexpr int AHEAD = 64 * LANES;

template <int MODE>
void pack_as(float* to, const Source& s, long from, int channels, int height, int width, int top, int rows, int left,
             int columns, int skip, const Vec& lanes, int kept) {
    for (int c = 0; kept && c < channels; c++) {
        float* first = to + long(c) * rows * columns * LANES;
        memmove(first, first + long(rows - kept) * columns * LANES, sizeof(float) * kept * columns * LANES);
    }
    const float *p = s.p + from, *q = MODE == GRADIENT ? s.q + from : nullptr;
    const int pixels = (width + skip - 1) / skip;
    for (int y = kept; y < rows; y++) {
        const int row = top + y * skip;
        const bool inside = row >= 0 && row < height;
        for (int c = 0; c < channels; c++) {
            long line = (long(row) * channels + c) * width * LANES;
            float* out = to + (long(c) * rows + y) * columns * LANES;
            if (!inside) {
                for (int i = 0; i < columns; i++) store(out + i * LANES, zero());
                continue;
            }
            Vec a, b, d;
            if (MODE != PLAIN) a = broadcast(s.a[c]);
            if (MODE == AFFINE_RELU || MODE == GRADIENT) b = broadcast(s.b[c]);
            if (MODE == GRADIENT) d = broadcast(s.d[c]);
            for (int i = 0; i < left; i++) store(out + i * LANES, zero());
            for (int i = left + pixels; i < columns; i++) store(out + i * LANES, zero());
            out += left * LANES;
#pragma GCC unroll 4
            for (int i = 0; i < pixels; i++, line += skip * LANES, out += LANES) {
                __builtin_prefetch(p + line + AHEAD);
                if (MODE == GRADIENT) __builtin_prefetch(q + line + AHEAD);
                Vec v = load(p + line);
                if (MODE == AFFINE_RELU) v = masked(relu(multiply_add(a, v, b)), lanes);
                if (MODE == GRADIENT) v = masked(multiply_add(a, v, multiply_add(b, load(q + line), d)), lanes);
                if (MODE == SCALED) v = masked(a * v, lanes);
                store(out, v);
            }
        }
    }
}

// Rows `top` .. `top + rows` of the block of images that begins at `from`, each with `left` zeros before it and zeros up
// to `columns`; every `skip`-th row and pixel. Dead lanes become 0 again, which the affine maps would fill. The first
// `kept` rows were the last ones of the band before, and are moved instead of made again.
inline void pack(float* to, const Source& s, long from, int channels, int height, int width, int top, int rows, int left,
                 int columns, int skip, const Vec& lanes, int kept) {
    auto as = s.mode == PLAIN         ? pack_as<PLAIN>
              : s.mode == AFFINE_RELU ? pack_as<AFFINE_RELU>
              : s.mode == GRADIENT    ? pack_as<GRADIENT>
                                      : pack_as<SCALED>;
    as(to, s, from, channels, height, width, top, rows, left, columns, skip, lanes, kept);
}

// Asks for the rows of the next band, a few cache lines at each step of the loop that works on this one: packing then
// finds them in the cache. Blocks of images follow each other, so behind the last row of one is the first of the next.
struct Prefetch {
    const char *at = nullptr, *end = nullptr;
    long per_step = 0;

    // Rows `first` .. `last` of all the `count` rows of an activation, spread over `steps` steps.
    void start(const float* from, long row, long first, long last, long count, long steps) {
        at = (const char*)(from + std::min(first, count) * row);
        end = (const char*)(from + std::min(last, count) * row);
        per_step = ((end - at) / (LANES * 4) + steps - 1) / steps * LANES * 4;
    }

    INLINE void step() {
        const char* until = std::min(at + per_step, end);
        for (; at < until; at += LANES * 4) __builtin_prefetch(at, 0, 2);
    }
};
