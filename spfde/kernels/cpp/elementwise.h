// The passes that no convolution can take along: ends of residual blocks, and conversions at the network's borders.
#pragma once

#include "pack.h"

// An activation: blocks * channels planes of `area` pixels.
struct Planes {
    int32_t batch, channels, threads;
    int64_t area;

    int blocks() const { return (batch + LANES - 1) / LANES; }
    Vec lanes(int block) const { return lane_mask(block == blocks() - 1 ? batch - block * LANES : LANES); }
};

template <class Work>
void each_plane(const Planes& s, Work&& work) {
    parallel(s.threads, [&](int part) {
        Range range = share(long(s.blocks()) * s.channels, part, s.threads);
        for (int i = range.begin; i < range.end; i++) work(i, i % s.channels, i * s.area * LANES, s.lanes(i / s.channels));
        end_of_streams();
    });
}

// z = relu(a y + b + residual), the residual plain, or with a BatchNorm of its own (ra, rb), or none.
inline void block_end(const Planes& s, float* z, const float* y, const float* a, const float* b, const float* residual,
                      const float* ra, const float* rb) {
    each_plane(s, [&](int, int c, long at, const Vec& lanes) {
        const Vec va = broadcast(a[c]), vr = broadcast(ra ? ra[c] : 1), vb = broadcast(b[c] + (rb ? rb[c] : 0));
        for (const float* end = y + at + s.area * LANES; y + at < end; at += LANES) {
            Vec v = multiply_add(va, load(y + at), vb);
            if (residual) v = multiply_add(vr, load(residual + at), v);
            stream(z + at, masked(relu(v), lanes));
        }
    });
}

// g = gradient of z before its ReLU, with sums [planes][3][16] of g, g (y - mean) and, where the residual had a
// BatchNorm too, g (yr - mean_r).
inline void block_end_backward(const Planes& s, float* g, const float* dz, const float* z, const float* y,
                               const float* mean, const float* yr, const float* mean_r, float* sums) {
    each_plane(s, [&](int plane, int c, long at, const Vec&) {
        Vec s0 = zero(), s1 = zero(), s2 = zero();
        const Vec m = broadcast(mean[c]), mr = broadcast(mean_r ? mean_r[c] : 0);
        for (const float* end = z + at + s.area * LANES; z + at < end; at += LANES) {
            const Vec v = relu_gradient(load(z + at), load(dz + at));
            stream(g + at, v);
            s0 = s0 + v;
            s1 = multiply_add(v, load(y + at) - m, s1);
            if (yr) s2 = multiply_add(v, load(yr + at) - mr, s2);
        }
        float* to = sums + long(plane) * 3 * LANES;
        store(to, s0);
        store(to + LANES, s1);
        store(to + 2 * LANES, s2);
    });
}

// An ordinary activation [batch][channels][height][width] of any strides (in floats).
struct Strided {
    int64_t image, channel, row, column;
    int32_t height, width;
};

// To and from blocks of 16 images; dead lanes are written 0.
inline void to_blocks(const Planes& s, const float* x, const Strided& t, float* z) {
    each_plane(s, [&](int plane, int c, long at, const Vec&) {
        const int first = plane / s.channels * LANES, live = std::min(LANES, s.batch - first);
        for (int row = 0; row < t.height; row++)
            for (int column = 0; column < t.width; column++, at += LANES) {
                const float* from = x + first * t.image + c * t.channel + row * t.row + column * t.column;
                for (int i = 0; i < LANES; i++) z[at + i] = i < live ? from[i * t.image] : 0;
            }
    });
}

inline void from_blocks(const Planes& s, const float* z, float* x, const Strided& t) {
    each_plane(s, [&](int plane, int c, long at, const Vec&) {
        const int first = plane / s.channels * LANES, live = std::min(LANES, s.batch - first);
        for (int row = 0; row < t.height; row++)
            for (int column = 0; column < t.width; column++, at += LANES) {
                float* to = x + first * t.image + c * t.channel + row * t.row + column * t.column;
                for (int i = 0; i < live; i++) to[i * t.image] = z[at + i];
            }
    });
}
