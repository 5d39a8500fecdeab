// The passes that no convolution can take along: ends of residual blocks, and conversions at the network's borders.
#pragma once

#include <initializer_list>

#include "pack.h"

// An activation: rows of all channels, each of `width` pixels.
struct Activation {
    int32_t batch, height, channels, width, threads;

    int blocks() const { return (batch + LANES - 1) / LANES; }
    Vec lanes(int block) const { return lane_mask(block == blocks() - 1 ? batch - block * LANES : LANES); }
};

// Calls work(part, channel, first float, lanes alive) for each channel of each row, in order within a part.
template <class Work>
void each_row(const Activation& s, Work&& work) {
    parallel(s.threads, [&](int part) {
        const Range rows = share(long(s.blocks()) * s.height, part, s.threads);
        long at = long(rows.begin) * s.channels * s.width * LANES;
        for (int row = rows.begin; row < rows.end; row++) {
            const Vec lanes = s.lanes(row / s.height);
            for (int c = 0; c < s.channels; c++, at += long(s.width) * LANES) work(part, c, at, lanes);
        }
        end_of_streams();
    });
}

// z = relu(a y + b + residual), the residual plain, or with a BatchNorm of its own (ra, rb), or none.
inline void block_end(const Activation& s, float* z, const float* y, const float* a, const float* b,
                      const float* residual, const float* ra, const float* rb) {
    each_row(s, [&](int, int c, long at, const Vec& lanes) {
        const Vec va = broadcast(a[c]), vr = broadcast(ra ? ra[c] : 1), vb = broadcast(b[c] + (rb ? rb[c] : 0));
        for (long end = at + long(s.width) * LANES; at < end; at += LANES) {
            Vec v = multiply_add(va, load(y + at), vb);
            if (residual) v = multiply_add(vr, load(residual + at), v);
            stream(z + at, masked(relu(v), lanes));
        }
    });
}

// g = gradient of z before its ReLU, with sums [threads][channels][3][16] of g, g (y - mean) and, where the residual had
// a BatchNorm too, g (yr - mean_r).
inline void block_end_backward(const Activation& s, float* g, const float* dz, const float* z, const float* y,
                               const float* mean, const float* yr, const float* mean_r, float* sums) {
    const long own = long(s.channels) * 3 * LANES;
    memset(sums, 0, sizeof(float) * s.threads * own);
    each_row(s, [&](int part, int c, long at, const Vec&) {
        float* to = sums + part * own + long(c) * 3 * LANES;
        Vec s0 = load(to), s1 = load(to + LANES), s2 = load(to + 2 * LANES);
        const Vec m = broadcast(mean[c]), mr = broadcast(mean_r ? mean_r[c] : 0);
        for (long end = at + long(s.width) * LANES; at < end; at += LANES) {
            const Vec v = relu_gradient(load(z + at), load(dz + at));
            stream(g + at, v);
            s0 = s0 + v;
            s1 = multiply_add(v, load(y + at) - m, s1);
            if (yr) s2 = multiply_add(v, load(yr + at) - mr, s2);
        }
        store(to, s0);
        store(to + LANES, s1);
        store(to + 2 * LANES, s2);
    });
}

// Means over the pixels, [batch][channels], summed row by row, and their gradient.
inline void mean_forward(const Activation& s, const float* z, float* out) {
    const float scale = 1 / (float(s.height) * s.width);
    parallel(s.threads, [&](int part) {
        const Range blocks = share(s.blocks(), part, s.threads);
        for (int block = blocks.begin; block < blocks.end; block++)
            for (int c = 0; c < s.channels; c++) {
                Vec total = zero();
                for (int row = 0; row < s.height; row++) {
                    const float* p = z + ((long(block) * s.height + row) * s.channels + c) * s.width * LANES;
                    for (int i = 0; i < s.width; i++) total = total + load(p + i * LANES);
                }
                float lanes[LANES];
                memcpy(lanes, &total, sizeof lanes);
                for (int i = 0; i < LANES && block * LANES + i < s.batch; i++)
                    out[(long(block) * LANES + i) * s.channels + c] = lanes[i] * scale;
            }
    });
}

inline void mean_backward(const Activation& s, const float* g, float* dz) {
    const float scale = 1 / (float(s.height) * s.width);
    parallel(s.threads, [&](int part) {
        const Range blocks = share(s.blocks(), part, s.threads);
        for (int block = blocks.begin; block < blocks.end; block++)
            for (int c = 0; c < s.channels; c++) {
                float lanes[LANES];
                for (int i = 0; i < LANES; i++) {
                    const int image = block * LANES + i;
                    lanes[i] = image < s.batch ? g[long(image) * s.channels + c] * scale : 0;
                }
                Vec v;
                memcpy(&v, lanes, sizeof lanes);
                for (int row = 0; row < s.height; row++) {
                    float* p = dz + ((long(block) * s.height + row) * s.channels + c) * s.width * LANES;
                    for (int i = 0; i < s.width; i++) store(p + i * LANES, v);
                }
            }
    });
}

// Maximum over squares of 2x2 pixels; `out` describes the smaller activation, `height` and `width` the larger one. An
// odd last row or column is left out, and has no gradient.
inline void max_forward(const Activation& out, const float* x, float* z, int height, int width) {
    each_row(out, [&](int, int c, long at, const Vec&) {
        const long row = at / (long(out.channels) * out.width * LANES);
        const long step = long(out.channels) * width * LANES;  // to the next row of x
        const float* p = x + (row / out.height * height + row % out.height * 2) * step + long(c) * width * LANES;
        for (int i = 0; i < out.width; i++, at += LANES, p += 2 * LANES)
            store(z + at, larger(larger(larger(load(p), load(p + LANES)), load(p + step)), load(p + step + LANES)));
    });
}

// The gradient goes to the first of the square's pixels that is the maximum.
inline void max_backward(const Activation& out, const float* x, const float* z, const float* dz, float* dx, int height,
                         int width) {
    memset(dx, 0, sizeof(float) * out.blocks() * height * out.channels * width * LANES);
    each_row(out, [&](int, int c, long at, const Vec&) {
        const long row = at / (long(out.channels) * out.width * LANES);
        const long step = long(out.channels) * width * LANES;
        const long corner = (row / out.height * height + row % out.height * 2) * step + long(c) * width * LANES;
        for (int i = 0; i < out.width; i++, at += LANES) {
            const Vec m = load(z + at);
            Vec g = load(dz + at);
            for (long o : {0l, long(LANES), step, step + LANES}) {
                const long p = corner + 2 * i * LANES + o;
                const Vec here = same(load(x + p), m);
                store(dx + p, masked(g, here));
                g = without(g, here);
            }
        }
    });
}

// An ordinary activation [batch][channels][height][width] of any strides (in floats).
struct Strided {
    int64_t image, channel, row, column;
};

// To and from blocks of 16 images; dead lanes are written 0. `visit` gets the pixel's floats on both sides.
template <class Visit>
void each_pixel(const Activation& s, const Strided& t, Visit&& visit) {
    parallel(s.threads, [&](int part) {
        const Range rows = share(long(s.blocks()) * s.height, part, s.threads);
        long at = long(rows.begin) * s.channels * s.width * LANES;
        for (int row = rows.begin; row < rows.end; row++) {
            const int first = row / s.height * LANES, live = std::min(LANES, s.batch - first);
            for (int c = 0; c < s.channels; c++)
                for (int column = 0; column < s.width; column++, at += LANES)
                    visit(at, first * t.image + c * t.channel + row % s.height * t.row + column * t.column, live);
        }
    });
}

inline void to_blocks(const Activation& s, const float* x, const Strided& t, float* z) {
    each_pixel(s, t, [&](long to, long from, int live) {
        for (int i = 0; i < LANES; i++) z[to + i] = i < live ? x[from + i * t.image] : 0;
    });
}

inline void from_blocks(const Activation& s, const float* z, float* x, const Strided& t) {
    each_pixel(s, t, [&](long from, long to, int live) {
        for (int i = 0; i < live; i++) x[to + i * t.image] = z[from + i];
    });
}

// Rows of a matrix [rows][channels] as pixels of a block of 16 images whose activation has room for all of them; what is
// left of the room holds 0.
template <class Visit>
void each_row_of_matrix(const Activation& s, Visit&& visit) {
    parallel(s.threads, [&](int part) {
        const Range pixels = share(long(s.height) * s.width, part, s.threads);
        for (int pixel = pixels.begin; pixel < pixels.end; pixel++)
            for (int c = 0; c < s.channels; c++)
                visit(long(pixel) * LANES, c,
                      ((long(pixel / s.width) * s.channels + c) * s.width + pixel % s.width) * LANES);
    });
}

inline void rows_to_blocks(const Activation& s, const float* x, long rows, float* z) {
    each_row_of_matrix(s, [&](long row, int c, long to) {
        for (int i = 0; i < LANES; i++) z[to + i] = row + i < rows ? x[(row + i) * s.channels + c] : 0;
    });
}

inline void rows_from_blocks(const Activation& s, const float* z, float* x, long rows) {
    each_row_of_matrix(s, [&](long row, int c, long from) {
        for (int i = 0; i < LANES && row + i < rows; i++) x[(row + i) * s.channels + c] = z[from + i];
    });
}
