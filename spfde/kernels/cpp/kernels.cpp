// Sparse convolutions for training on a CPU: what Python calls. Each function is described where it is made.
#include "backward.h"
#include "elementwise.h"
#include "forward.h"
#include "norm.h"
#include "structure.h"

#define API extern "C" __attribute__((visibility("default")))

// The best instruction set of this machine that there are kernels for.
API const char* instruction_set() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
        return "avx512";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
#endif
    return "generic";
}

API void use_team(void* start) {
    start_team = (StartTeam)start;
    team_process = getpid();
}

API void* allocate_floats(int64_t count) {
    try {
        return allocate(count);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

API void free_floats(void* memory) { free(memory); }

API int32_t conv_records(const Shape* s) { return Layout(*s).records; }

API void conv_rows(const Shape* s, const int32_t* flat, int32_t count, const WeightStrides* w, int32_t blocks,
                   int32_t* start, int32_t* offset, int32_t* index) {
    build_rows(*s, flat, count, *w, blocks, start, offset, index);
}

API void conv_transposed(const Shape* s, const int32_t* flat, int32_t count, const WeightStrides* w, int32_t blocks,
                         int32_t* start, int32_t* offset, int32_t* index) {
    build_transposed(*s, flat, count, *w, blocks, start, offset, index);
}

API void gather_values(const Rows* rows, const float* dense) { gather(*rows, dense); }

API void conv_forward(const Forward* f) {
    Layout(f->shape).skip == f->shape.stride ? forward<1>(*f) : forward<2>(*f);
}

API void conv_backward(const Backward* f) { f->shape.stride == 1 ? backward<1>(*f) : backward<2>(*f); }

API void batch_norm(const Norm* n, const Shape* s, const float* sums) { norm_forward(*n, s, sums); }

API void batch_norm_backward(const Norm* n, const float* sums, int32_t records, int32_t which, double count,
                             float* out) {
    norm_backward(*n, sums, records, which, count, out);
}

API void residual_end(const Activation* s, float* z, const float* y, const float* a, const float* b, const float* residual,
                      const float* ra, const float* rb) {
    block_end(*s, z, y, a, b, residual, ra, rb);
}

API void residual_end_backward(const Activation* s, float* g, const float* dz, const float* z, const float* y,
                               const float* mean, const float* yr, const float* mean_r, float* sums) {
    block_end_backward(*s, g, dz, z, y, mean, yr, mean_r, sums);
}

API void blocks_from(const Activation* s, const float* x, const Strided* t, float* z) { to_blocks(*s, x, *t, z); }

API void blocks_to(const Activation* s, const float* z, float* x, const Strided* t) { from_blocks(*s, z, x, *t); }

API void mean_of_pixels(const Activation* s, const float* z, float* out) { mean_forward(*s, z, out); }

API void mean_of_pixels_backward(const Activation* s, const float* g, float* dz) { mean_backward(*s, g, dz); }

API void max_of_pixels(const Activation* out, const float* x, float* z, int32_t height, int32_t width) {
    max_forward(*out, x, z, height, width);
}

API void max_of_pixels_backward(const Activation* out, const float* x, const float* z, const float* dz, float* dx,
                                int32_t height, int32_t width) {
    max_backward(*out, x, z, dz, dx, height, width);
}

API void blocks_from_rows(const Activation* s, const float* x, int64_t rows, float* z) {
    rows_to_blocks(*s, x, rows, z);
}

API void blocks_to_rows(const Activation* s, const float* z, float* x, int64_t rows) {
    rows_from_blocks(*s, z, x, rows);
}
