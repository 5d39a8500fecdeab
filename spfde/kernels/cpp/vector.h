// Sixteen floats, one for each image of a block of the batch: everything in these kernels is made of them.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

constexpr int LANES = 16;

// The registers of the target: one of 512 bits, two of 256 or four of 128. A single vector of 64 bytes would compile
// everywhere, but where the target's registers are smaller gcc keeps it in memory, which is six times slower.
#if defined(__AVX512F__)
constexpr int REGISTER_BYTES = 64;
#elif defined(__AVX2__)
constexpr int REGISTER_BYTES = 32;
#else
constexpr int REGISTER_BYTES = 16;
#endif
constexpr int REGISTERS = LANES * 4 / REGISTER_BYTES;
typedef float Register __attribute__((vector_size(REGISTER_BYTES), may_alias));
typedef int32_t Bits __attribute__((vector_size(REGISTER_BYTES), may_alias));

struct Vec {
    Register r[REGISTERS];
};

#define EACH_REGISTER _Pragma("GCC unroll 4") for (int i = 0; i < REGISTERS; i++)

INLINE Vec load(const float* p) {
    Vec v;
    EACH_REGISTER v.r[i] = *(const Register*)(p + i * REGISTER_BYTES / 4);
    return v;
}

INLINE void store(float* p, const Vec& v) {
    EACH_REGISTER *(Register*)(p + i * REGISTER_BYTES / 4) = v.r[i];
}

// Past the caches: activations of a whole batch are larger than these and would only push out what is still needed.
INLINE void stream(float* p, const Vec& v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(p, (__m512)v.r[0]);
#elif defined(__AVX2__)
    EACH_REGISTER _mm256_stream_ps(p + 8 * i, (__m256)v.r[i]);
#elif defined(__SSE2__)
    EACH_REGISTER _mm_stream_ps(p + 4 * i, (__m128)v.r[i]);
#else
    store(p, v);
#endif
}

// Streamed stores are not ordered with what follows; this must come before another thread may read them.
INLINE void end_of_streams() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

INLINE Vec zero() {
    Vec v;
    EACH_REGISTER v.r[i] = Register{};
    return v;
}

INLINE Vec broadcast(float f) {
    Vec v;
    EACH_REGISTER v.r[i] = f - Register{};
    return v;
}

INLINE Vec operator+(const Vec& x, const Vec& y) {
    Vec v;
    EACH_REGISTER v.r[i] = x.r[i] + y.r[i];
    return v;
}

INLINE Vec operator-(const Vec& x, const Vec& y) {
    Vec v;
    EACH_REGISTER v.r[i] = x.r[i] - y.r[i];
    return v;
}

INLINE Vec operator*(const Vec& x, const Vec& y) {
    Vec v;
    EACH_REGISTER v.r[i] = x.r[i] * y.r[i];
    return v;
}

// x * y + z in one expression, which the compiler contracts to one instruction.
INLINE Vec multiply_add(const Vec& x, const Vec& y, const Vec& z) {
    Vec v;
    EACH_REGISTER v.r[i] = x.r[i] * y.r[i] + z.r[i];
    return v;
}

// ReLU as in torch: NaN stays NaN, so that a network that diverged is seen to have diverged.
INLINE Vec relu(const Vec& x) {
    Vec v;
    EACH_REGISTER v.r[i] = x.r[i] < Register{} ? Register{} : x.r[i];
    return v;
}

// Gradient of ReLU as in torch: g passes unless x <= 0, so also where x is NaN.
INLINE Vec relu_gradient(const Vec& x, const Vec& g) {
    Vec v;
    EACH_REGISTER v.r[i] = x.r[i] <= Register{} ? Register{} : g.r[i];
    return v;
}

// The larger one as torch's pooling takes it: the second if it is larger, or NaN.
INLINE Vec larger(const Vec& x, const Vec& y) {
    Vec v;
    EACH_REGISTER {
        v.r[i] = y.r[i] > x.r[i] ? y.r[i] : x.r[i];
        v.r[i] = y.r[i] == y.r[i] ? v.r[i] : y.r[i];
    }
    return v;
}

// All bits set where x equals y, or both are NaN.
INLINE Vec same(const Vec& x, const Vec& y) {
    Vec v;
    EACH_REGISTER v.r[i] = (Register)((x.r[i] == y.r[i]) | ((x.r[i] != x.r[i]) & (y.r[i] != y.r[i])));
    return v;
}

// x where the bits are 0.
INLINE Vec without(const Vec& x, const Vec& bits) {
    Vec v;
    EACH_REGISTER v.r[i] = (Register)((Bits)x.r[i] & ~(Bits)bits.r[i]);
    return v;
}

// Zeroes the lanes whose bits are 0, whatever they hold.
INLINE Vec masked(const Vec& x, const Vec& lanes) {
    Vec v;
    EACH_REGISTER v.r[i] = (Register)((Bits)x.r[i] & (Bits)lanes.r[i]);
    return v;
}

// All bits set in the first `live` lanes. Lanes beyond the batch are dead and hold 0 in every stored activation.
INLINE Vec lane_mask(int live) {
    int32_t bits[LANES];
    for (int i = 0; i < LANES; i++) bits[i] = i < live ? -1 : 0;
    Vec v;
    memcpy(&v, bits, sizeof v);
    return v;
}

// Sum of all lanes, always added in the same order.
INLINE float sum(const Vec& v) {
    float f[LANES];
    memcpy(f, &v, sizeof f);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) f[i] += f[i + half];
    return f[0];
}
