// BatchNorm: coefficients from the sums that convolutions leave behind. All of it in double precision.
#pragma once

#include <cmath>

#include "shape.h"

struct Norm {
    int32_t channels;
    int32_t training;    // statistics of the batch, or the running ones
    double eps, momentum;
    const float *weight, *bias;         // none: 1 and 0
    float *running_mean, *running_var;  // none: not kept
    float *mean, *inverse;              // [channels] of what was used; inverse: 1 / sqrt(var + eps)
    float *a, *b;                       // the normalisation as an affine map
};

inline void set_affine(const Norm& n, int k, double mean, double var) {
    const double inverse = 1 / std::sqrt(var + n.eps);
    const double a = (n.weight ? n.weight[k] : 1) * inverse;
    n.mean[k] = float(mean);
    n.inverse[k] = float(inverse);
    n.a[k] = float(a);
    n.b[k] = float((n.bias ? n.bias[k] : 0) - mean * a);
}

// Joins the lanes' means and squared deviations, which are taken around different shifts (Chan et al. 1979).
inline void norm_forward(const Norm& n, const Shape* s, const float* sums) {
    if (!n.training) {
        for (int k = 0; k < n.channels; k++) set_affine(n, k, n.running_mean[k], n.running_var[k]);
        return;
    }
    const Layout l(*s);
    const double total = double(s->batch) * l.out_height * l.out_width;
    for (int k = 0; k < n.channels; k++) {
        auto each = [&](auto&& visit) {
            for (int r = 0; r < l.records; r++) {
                const float* p = sums + (long(r) * n.channels + k) * 3 * LANES;
                const int lanes = l.block(r) == l.blocks - 1 ? l.live : LANES;
                const double count = double(l.record_rows(r)) * l.out_width;
                for (int i = 0; i < lanes; i++) visit(count, double(p[i]), p[LANES + i] / count, double(p[2 * LANES + i]));
            }
        };
        double mean = 0, squares = 0;
        each([&](double count, double shift, double d, double) { mean += count * (shift + d); });
        mean /= total;
        each([&](double count, double shift, double d, double s1) {
            const double away = shift + d - mean;
            squares += s1 - count * d * d + count * away * away;
        });
        if (squares < 0) squares = 0;
        set_affine(n, k, mean, squares / total);
        if (n.running_mean) {
            n.running_mean[k] = float((1 - n.momentum) * n.running_mean[k] + n.momentum * mean);
            n.running_var[k] = float((1 - n.momentum) * n.running_var[k] + n.momentum * squares / (total - 1));
        }
    }
}

// From the sums of g and g (y - mean) to the gradient behind the BatchNorm, dy = A g + B y + D, and those of its
// parameters. sums: [records][channels][3][16], with those of g (y - mean) at `which`. count: values a channel; 0 where
// statistics are constants. out: [5][channels] A, B, D, gradients of weight and bias.
inline void norm_backward(const Norm& n, const float* sums, int records, int which, double count, float* out) {
    float *A = out, *B = A + n.channels, *D = B + n.channels, *weight_gradient = D + n.channels,
          *bias_gradient = weight_gradient + n.channels;
    for (int k = 0; k < n.channels; k++) {
        double g = 0, gy = 0;
        for (int r = 0; r < records; r++) {
            const float* p = sums + (long(r) * n.channels + k) * 3 * LANES;
            for (int i = 0; i < LANES; i++) {
                g += p[i];
                gy += p[which * LANES + i];
            }
        }
        const double inverse = n.inverse[k], dw = inverse * gy, a = (n.weight ? n.weight[k] : 1) * inverse;
        weight_gradient[k] = float(dw);
        bias_gradient[k] = float(g);
        A[k] = float(a);
        B[k] = count ? float(-a * inverse * dw / count) : 0;
        D[k] = count ? float(-a * g / count + a * inverse * n.mean[k] * dw / count) : 0;
    }
}
