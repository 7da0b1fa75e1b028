// What the checks share: elements as doubles, errors, and attention in float64.
#pragma once
#include "common.cuh"
#include <cmath>
#include <thread>

using headkv::bf16;
using headkv::f16;

namespace {

bool quick = false;
int failures = 0;

double wide(bf16 x) { return __bfloat162float(x); }
double wide(f16 x) { return __half2float(x); }
template <typename T> const char *name();
template <> const char *name<bf16>() { return "bf16"; }
template <> const char *name<f16>() { return "f16"; }
template <typename T> constexpr int type_of() { return std::is_same<T, bf16>::value ? HEADKV_BF16 : HEADKV_F16; }

/// Runs f(0) .. f(n - 1) on all cores.
void parallel(int n, const std::function<void(int)> &f) {
    std::vector<std::thread> threads;
    const int cores = std::max(1u, std::thread::hardware_concurrency());
    for (int c = 0; c < cores; c++)
        threads.emplace_back([&, c] {
            for (int i = c; i < n; i += cores) f(i);
        });
    for (auto &t : threads) t.join();
}

/// |a - b| / |b|; infinite if an element is not a number.
struct Error {
    double difference = 0, size = 0;
    void add(double a, double b) {
        if (!std::isfinite(a)) difference = INFINITY;
        difference += (a - b) * (a - b), size += b * b;
    }
    double relative() const { return size > 0 ? std::sqrt(difference / size) : difference > 0 ? INFINITY : 0; }
};

void report(const std::string &what, double error, double limit) {
    const bool good = error <= limit;
    failures += !good;
    std::printf("%-6s %-72s %.2e\n", good ? "ok" : "FAILED", what.c_str(), error);
}

double capped(double x, double cap) { return cap > 0 ? cap * std::tanh(x / cap) : x; }

/// Attention of one query over rows given by pointers, and to a sink.
template <typename T>
std::vector<double> attend(const T *q, const std::vector<const T *> &k, const std::vector<const T *> &v, int d,
                           double scale, double cap, double sink = -INFINITY) {
    std::vector<double> s(k.size()), out(d, 0);
    double most = sink, sum = 0;
    for (size_t i = 0; i < k.size(); i++) {
        double x = 0;
        for (int j = 0; j < d; j++) x += wide(q[j]) * wide(k[i][j]);
        s[i] = capped(x * scale, cap), most = std::max(most, s[i]);
    }
    for (double &x : s) x = std::exp(x - most), sum += x;
    sum += std::exp(sink - most);
    for (size_t i = 0; i < k.size(); i++)
        for (int j = 0; j < d; j++) out[j] += s[i] / sum * wide(v[i][j]);
    return out;
}

} // namespace
