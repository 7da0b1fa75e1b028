// Checks of linear layers' products, and of taking one apart.
#pragma once
#include "reference.cuh"

namespace {

/// Layers of the same rows, whose products have guards behind them that must stay.
template <typename T> void product(const std::vector<int> &outputs, int inputs, int rows) {
    const int apart = inputs + 24, count = int(outputs.size());
    auto x = random_buffer<T>(size_t(rows) * apart, 1);
    std::vector<Buffer<T>> weights, out;
    HeadkvProduct a = {};
    a.x = x.at, a.x_row = apart, a.rows = rows, a.inputs = inputs, a.type = type_of<T>();
    for (int n = 0; n < count; n++) {
        weights.push_back(random_buffer<T>(size_t(outputs[n]) * inputs, 10 + n));
        out.emplace_back(size_t(rows) * outputs[n] + 64);
        out[n].fill(0x7c);
        a.weights[n] = weights[n].at, a.out[n] = out[n].at, a.outputs[n] = outputs[n];
    }
    CUDA(headkv_product(&a, nullptr));
    const auto host_x = x.host();
    Error error;
    double beyond = 0;
    for (int n = 0; n < count; n++) {
        const auto w = weights[n].host(), got = out[n].host();
        std::vector<double> expected(size_t(rows) * outputs[n]);
        parallel(outputs[n], [&](int o) {
            for (int r = 0; r < rows; r++) {
                double sum = 0;
                for (int i = 0; i < inputs; i++) sum += wide(w[size_t(o) * inputs + i]) * wide(host_x[size_t(r) * apart + i]);
                expected[size_t(r) * outputs[n] + o] = sum;
            }
        });
        for (size_t i = 0; i < expected.size(); i++) error.add(wide(got[i]), expected[i]);
        for (size_t i = expected.size(); i < got.size(); i++) beyond += std::memcmp(&got[i], "\x7c\x7c", 2) != 0;
    }
    std::string layers;
    for (int n : outputs) layers += (layers.empty() ? "" : " + ") + std::to_string(n);
    const std::string what = std::string("product ") + name<T>() + " (" + layers + ") x " + std::to_string(inputs) + ", rows " + std::to_string(rows);
    report(what, error.relative(), 4e-3);
    if (beyond > 0) report(what + ": wrote beyond its end", beyond, 0);
}

template <typename T> void split(const std::vector<int> &widths, int rows) {
    int all = 0;
    for (int width : widths) all += width;
    auto from = random_buffer<T>(size_t(rows) * all, 3);
    std::vector<Buffer<T>> to;
    HeadkvSplit a = {};
    a.from = from.at, a.rows = rows;
    for (size_t n = 0; n < widths.size(); n++) {
        to.emplace_back(size_t(rows) * widths[n]);
        a.to[n] = to[n].at, a.widths[n] = widths[n];
    }
    CUDA(headkv_split(&a, nullptr));
    const auto whole = from.host();
    double wrong = 0;
    int before = 0;
    for (size_t n = 0; n < widths.size(); before += widths[n++]) {
        const auto part = to[n].host();
        for (int r = 0; r < rows; r++)
            wrong += std::memcmp(&part[size_t(r) * widths[n]], &whole[size_t(r) * all + before], widths[n] * sizeof(T)) != 0;
    }
    report(std::string("split ") + name<T>() + " " + std::to_string(all) + " columns, rows " + std::to_string(rows), wrong, 0);
}

template <typename T> void products() {
    for (int rows : {1, 2, 3, 7, 8, 9, 15, 16}) {
        product<T>({40, 8, 24}, 72, rows);
        product<T>({1001}, 520, rows);
        product<T>({3}, 8, rows);
        product<T>({2304, 2304}, 264, rows);
        if (!quick) product<T>({4096, 1024, 1024}, 4096, rows), product<T>({520}, 14336, rows);
    }
    for (int rows : {1, 17, 256}) split<T>({4096, 1024, 1024}, rows), split<T>({8, 64}, rows);
}

} // namespace
