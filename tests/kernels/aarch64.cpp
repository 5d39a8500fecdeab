// The kernels without Python and torch, against loops in double precision: for processors that only an emulator has here.
#include "../../spfde/kernels/cpp/kernels.cpp"

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

using Doubles = std::vector<double>;

// A convolution of random images under a random mask that keeps a third of the weights.
struct Case {
    static constexpr int C = 6, K = 7, H = 9, W = 10;  // channels of input and output, height and width of the input
    Shape s;
    Layout l;
    float *x, *y, *dy, *dx;
    std::vector<float> w, dw;
    std::vector<int32_t> flat;

    Case(int kernel, int stride, int batch)
        : s{batch, C, H, W, K, kernel, stride, 1}, l(s), w(K * C * kernel * kernel), dw(w.size(), 0) {
        x = zeros(input_size()), dx = zeros(input_size());
        y = zeros(output_size()), dy = zeros(output_size());
        std::mt19937 draws(1);
        std::normal_distribution<float> normal;
        for (int i = 0; i < batch; i++) {
            for (int c = 0; c < C; c++)
                for (int row = 0; row < H; row++)
                    for (int column = 0; column < W; column++) x[input(i, c, row, column)] = normal(draws);
            for (int k = 0; k < K; k++)
                for (int row = 0; row < l.out_height; row++)
                    for (int column = 0; column < l.out_width; column++) dy[output(i, k, row, column)] = normal(draws);
        }
        for (size_t i = 0; i < w.size(); i++) {
            w[i] = draws() % 3 ? 0 : normal(draws);
            if (w[i] != 0) flat.push_back(i);
        }
    }

    ~Case() {
        for (float* memory : {x, y, dy, dx}) free(memory);
    }

    static float* zeros(size_t size) {
        float* memory = allocate(size);
        memset(memory, 0, size * sizeof(float));
        return memory;
    }

    size_t input_size() const { return size_t(l.blocks) * l.in_block; }

    size_t output_size() const { return size_t(l.blocks) * l.out_block; }

    size_t input(int i, int c, int row, int column) const {
        return (((size_t(i / LANES) * H + row) * C + c) * W + column) * LANES + i % LANES;
    }

    size_t output(int i, int k, int row, int column) const {
        return (((size_t(i / LANES) * l.out_height + row) * K + k) * l.out_width + column) * LANES + i % LANES;
    }

    void run() {
        const int count = flat.size(), area = s.kernel * s.kernel, classes = s.stride * s.stride;
        const WeightStrides strides{C * area, area, s.kernel, 1};
        std::vector<int32_t> starts(K + 1), offsets(count), index(count);
        std::vector<int32_t> starts_t(classes * C + 1), offsets_t(count), index_t(count);
        std::vector<float> values(count), values_t(count);
        conv_rows(&s, flat.data(), count, &strides, 1, starts.data(), offsets.data(), index.data());
        conv_transposed(&s, flat.data(), count, &strides, 1, starts_t.data(), offsets_t.data(), index_t.data());
        Rows rows{starts.data(), offsets.data(), values.data(), index.data(), K, 1, 1, count};
        Rows transposed{starts_t.data(), offsets_t.data(), values_t.data(), index_t.data(), C, 1, classes, count};
        gather_values(&rows, w.data());
        gather_values(&transposed, w.data());
        Forward forward{s, rows, {PLAIN, x}, y, {}, STORE};
        conv_forward(&forward);
        Backward backward{s, transposed, rows, {PLAIN, x}, {PLAIN, dy}, dx, dw.data(), {}, STORE};
        conv_backward(&backward);
    }

    // The largest difference to plain loops, relative to the largest value, of output and both gradients.
    double error() const {
        Doubles y2(output_size(), 0), dx2(input_size(), 0), dw2(w.size(), 0);
        const int pad = s.kernel / 2;
        for (int i = 0; i < s.batch; i++)
            for (int k = 0; k < K; k++)
                for (int row = 0; row < l.out_height; row++)
                    for (int column = 0; column < l.out_width; column++)
                        for (int c = 0; c < C; c++)
                            for (int a = 0; a < s.kernel; a++)
                                for (int b = 0; b < s.kernel; b++) {
                                    const int down = row * s.stride + a - pad, right = column * s.stride + b - pad;
                                    if (down < 0 || right < 0 || down >= H || right >= W) continue;
                                    const int at = ((k * C + c) * s.kernel + a) * s.kernel + b;
                                    const size_t from = input(i, c, down, right), to = output(i, k, row, column);
                                    y2[to] += double(w[at]) * x[from];
                                    dx2[from] += double(w[at]) * dy[to];
                                    if (w[at] != 0) dw2[at] += double(x[from]) * dy[to];
                                }
        return std::max({apart(y, y2), apart(dx, dx2), apart(dw.data(), dw2)});
    }

    static double apart(const float* found, const Doubles& expected) {
        double most = 0, largest = 0;
        for (size_t i = 0; i < expected.size(); i++) {
            most = std::max(most, std::fabs(found[i] - expected[i]));
            largest = std::max(largest, std::fabs(expected[i]));
        }
        return most / largest;
    }
};

int main() {
    double worst = 0;
    for (int kernel : {1, 3})
        for (int stride : {1, 2})
            for (int batch : {5, 16, 35}) {
                Case one(kernel, stride, batch);
                one.run();
                printf("%dx%d, stride %d, %d images: %.1e\n", kernel, kernel, stride, batch, one.error());
                worst = std::max(worst, one.error());
            }
    return worst > 1e-5;
}
