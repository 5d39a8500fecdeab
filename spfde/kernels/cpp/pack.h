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

template <int MODE>
void pack_as(float* to, const Source& s, long from, int channels, int height, int width, int top, int rows, int left,
             int columns, const Vec& lanes) {
    for (int c = 0; c < channels; c++) {
        Vec a, b, d;
        if (MODE != PLAIN) a = broadcast(s.a[c]);
        if (MODE == AFFINE_RELU || MODE == GRADIENT) b = broadcast(s.b[c]);
        if (MODE == GRADIENT) d = broadcast(s.d[c]);
        for (int row = top; row < top + rows; row++, to += columns * LANES) {
            int first = 0, last = 0;  // columns of the buffer that hold pixels
            if (row >= 0 && row < height) {
                first = left;
                last = left + width;
            }
            for (int i = 0; i < first; i++) store(to + i * LANES, zero());
            for (int i = last; i < columns; i++) store(to + i * LANES, zero());
            long line = from + (long(c) * height + row) * width * LANES;
#pragma GCC unroll 4
            for (int i = first; i < last; i++, line += LANES) {
                Vec v = load(s.p + line);
                if (MODE == AFFINE_RELU) v = masked(relu(multiply_add(a, v, b)), lanes);
                if (MODE == GRADIENT) v = masked(multiply_add(a, v, multiply_add(b, load(s.q + line), d)), lanes);
                if (MODE == SCALED) v = masked(a * v, lanes);
                store(to + i * LANES, v);
            }
        }
    }
}

// Rows `top` .. `top + rows` of the planes that begin at `from`, each with `left` zeros before it and zeros up to
// `columns`. Dead lanes become 0 again, which the affine maps would fill.
inline void pack(float* to, const Source& s, long from, int channels, int height, int width, int top, int rows, int left,
                 int columns, const Vec& lanes) {
    auto as = s.mode == PLAIN         ? pack_as<PLAIN>
              : s.mode == AFFINE_RELU ? pack_as<AFFINE_RELU>
              : s.mode == GRADIENT    ? pack_as<GRADIENT>
                                      : pack_as<SCALED>;
    as(to, s, from, channels, height, width, top, rows, left, columns, lanes);
}

// Prefetches rows of many planes, a few cache lines at each step of the loop that works on the band before: packing
// then finds them in the cache. (The hardware does not: the rows of one band are too short a run in each plane.)
struct Prefetch {
    const char* plane = nullptr;
    long stride = 0, lines = 0, line = 0, per_step = 0;
    int planes = 0;

    void start(const float* from, int channels, int height, int width, int top, int rows, long steps) {
        int first = std::max(top, 0), last = std::min(top + rows, height);
        planes = from && last > first ? channels : 0;
        if (!planes) return;
        plane = (const char*)(from + long(first) * width * LANES);
        stride = long(height) * width * LANES * 4;
        lines = long(last - first) * width;
        line = 0;
        per_step = (planes * lines + steps - 1) / steps;
    }

    INLINE void step() {
        for (long i = 0; i < per_step && planes; i++) {
            __builtin_prefetch(plane + line * LANES * 4, 0, 2);
            if (++line == lines) {
                line = 0;
                plane += stride;
                planes--;
            }
        }
    }
};
