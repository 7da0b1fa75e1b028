// The checks of what becomes of a prompt: ranking, competition, selection, copy.
#pragma once
#include "reference.cuh"

namespace {

/// The competition of all heads against its definition, on these scores.
void compete(const std::vector<float> &scores, int64_t stride, int heads, int candidates) {
    int wrong = 0;
    for (int i = 0; i < 6; i++) {
        // Of some, all are sure or in the competition; some weights make all of a head's scores equal.
        const int floor = std::vector<int>{0, 3, candidates / 3, 1, 0, candidates / 2}[i];
        const int64_t rest = int64_t(heads) * (candidates - floor);
        const int64_t open = i == 4 ? rest : std::max<int64_t>(1, rest * (i + 1) / 23);
        if (rest < 1) continue;
        std::vector<float> weights(heads);
        for (int h = 0; h < heads; h++) weights[h] = i == 3 && h % 2 ? 0 : std::exp(noise(6 + i, h));
        Buffer<float> device_scores(scores), device_weights(weights);
        Buffer<char> workspace(headkv_compete_workspace(heads));
        Buffer<int> counts(heads);
        workspace.fill(0xff), counts.fill(0xff);
        HeadkvCompete a = {};
        a.scores = device_scores.at, a.stride = stride, a.heads = heads, a.candidates = candidates, a.weights = device_weights.at;
        a.floor = floor, a.open = uint32_t(open), a.workspace = workspace.at, a.counts = counts.at;
        CUDA(headkv_compete(&a, nullptr));
        CUDA(cudaDeviceSynchronize());

        std::vector<std::pair<float, int>> all;
        for (int h = 0; h < heads; h++) {
            std::vector<float> row(&scores[h * stride], &scores[h * stride] + candidates);
            std::sort(row.begin(), row.end(), std::greater<float>());
            for (int j = floor; j < candidates; j++) all.push_back({row[j] * weights[h], h});
        }
        std::stable_sort(all.begin(), all.end(), [](auto &x, auto &y) { return x.first > y.first; });
        std::vector<int> expected(heads, floor);
        for (int64_t j = 0; j < open; j++) expected[all[j].second]++;
        wrong += counts.host() != expected;
    }
    report("  competition: wrong cases", wrong, 0);
}

/// Ranking against its definition; selection and copy against the CPU's on the device's own scores.
template <typename T>
void compress(int rule, int d, int heads, int kv_heads, bool per_query_head, int tokens, int window, int kernel,
              bool pool_max, bool share_max, float cap, bool sinks = false) {
    const int group = heads / kv_heads, stored = per_query_head ? heads : kv_heads, share = heads / stored;
    // Not all of the window has to be kept.
    const int candidates = tokens - window, recent = (window + 1) / 2, per_kv = stored / kv_heads;
    auto q = random_buffer<T>(size_t(heads) * tokens * d, 1), k = random_buffer<T>(size_t(kv_heads) * tokens * d, 2),
         v = random_buffer<T>(size_t(kv_heads) * tokens * d, 3);
    const int64_t stride = headkv_score_stride(tokens);
    Buffer<float> scores(stored * stride);
    scores.fill(0xff);
    const float scale = 1 / std::sqrt(float(d));
    HeadkvRank a = {};
    a.q = q.at, a.k = k.at, a.v = v.at, a.q_head = a.k_head = a.v_head = int64_t(tokens) * d;
    a.q_token = a.k_token = a.v_token = d, a.rule = rule;
    a.heads = heads, a.kv_heads = kv_heads, a.tokens = tokens, a.head_dim = d, a.type = type_of<T>(), a.window = window;
    a.scale = scale, a.softcap = cap, a.share = share, a.share_max = share_max, a.pool_max = pool_max;
    a.before = a.after = kernel / 2, a.decay = 1;
    std::vector<float> sink_logits(heads);
    for (int h = 0; h < heads; h++) sink_logits[h] = 2 * noise(9, h);
    Buffer<float> sink(sink_logits);
    if (sinks) a.sinks = sink.at;
    Buffer<char> workspace(headkv_rank_workspace(&a));
    workspace.fill(0xff);
    a.workspace = workspace.at, a.scores = scores.at;
    CUDA(headkv_rank(&a, nullptr));

    std::vector<int> counts(stored), offsets(stored + 1, 0);
    for (int s = 0; s < stored; s++) {
        counts[s] = s == 0 ? 0 : s == 1 ? candidates : int(noise(5, s) * noise(5, s) * candidates / 3) % (candidates + 1);
        offsets[s + 1] = offsets[s] + counts[s] + recent;
    }
    Buffer<int> device_counts(counts), device_offsets(offsets);
    Buffer<uint32_t> positions(offsets[stored]);
    Buffer<T> kept_k(size_t(offsets[stored]) * d), kept_v(size_t(offsets[stored]) * d);
    positions.fill(0xff), kept_k.fill(0xff), kept_v.fill(0xff);
    CUDA(headkv_select(scores.at, stride, stored, candidates, tokens, recent, device_counts.at, device_offsets.at,
                       positions.at, nullptr));
    HeadkvGather g = {};
    g.k = k.at, g.v = v.at, g.k_head = g.v_head = int64_t(tokens) * d, g.k_token = g.v_token = d;
    g.offsets = device_offsets.at, g.positions = positions.at, g.kept_k = kept_k.at, g.kept_v = kept_v.at;
    g.heads = stored, g.share = per_kv, g.head_dim = d;
    g.longest = *std::max_element(counts.begin(), counts.end()) + recent;
    CUDA(headkv_gather(&g, nullptr));
    CUDA(cudaDeviceSynchronize());

    const auto hq = q.host(), hk = k.host(), hv = v.host(), hkk = kept_k.host(), hkv = kept_v.host();
    const auto hs = scores.host();
    const auto hp = positions.host();
    std::vector<std::vector<double>> raw(heads);
    parallel(heads, [&](int h) {
        raw[h].assign(candidates, 0);
        std::vector<double> s(tokens);
        for (int t = candidates; t < tokens; t++) {
            double most = -INFINITY, sum = 0;
            for (int j = 0; j <= t; j++) {
                double x = 0;
                for (int e = 0; e < d; e++)
                    x += wide(hq[(size_t(h) * tokens + t) * d + e]) * wide(hk[(size_t(h / group) * tokens + j) * d + e]);
                s[j] = capped(x * scale, cap), most = std::max(most, s[j]);
            }
            if (sinks) sum = std::exp(sink_logits[h] - most);
            for (int j = 0; j <= t; j++) sum += s[j] = std::exp(s[j] - most);
            const T *values = &hv[size_t(h / group) * tokens * d];
            std::vector<double> out(d, 0);
            for (int j = 0; rule == HEADKV_DROP && j <= t; j++)
                for (int e = 0; e < d; e++) out[e] += s[j] / sum * wide(values[size_t(j) * d + e]);
            for (int j = 0; j < candidates; j++) {
                const double p = s[j] / sum;
                if (rule != HEADKV_DROP) {
                    raw[h][j] += p;
                    continue;
                }
                double distance = 0;
                for (int e = 0; e < d; e++) distance += std::pow(wide(values[size_t(j) * d + e]) - out[e], 2);
                raw[h][j] += std::pow(p / std::max(1 - p, 1e-6), 2) * distance;
            }
        }
    });
    Error error;
    for (int s = 0; s < stored; s++) {
        std::vector<double> reduced(candidates, 0);
        for (int j = 0; j < candidates; j++) {
            for (int h = 0; h < share; h++)
                reduced[j] = share_max ? std::max(reduced[j], raw[s * share + h][j]) : reduced[j] + raw[s * share + h][j] / share;
        }
        for (int j = 0; j < candidates; j++) {
            double pooled = 0;
            for (int i = std::max(0, j - kernel / 2); i < std::min(candidates, j + kernel / 2 + 1); i++)
                pooled = pool_max ? std::max(pooled, reduced[i]) : pooled + reduced[i] / kernel;
            error.add(hs[s * stride + j], pooled);
        }
    }
    char what[200];
    std::snprintf(what, sizeof what, "%s %s d %d heads %d/%d%s%s tokens %d window %d kernel %d %s %s cap %g",
                  rule == HEADKV_DROP ? "drop" : "rank", name<T>(), d, heads, kv_heads, per_query_head ? " per query head" : "",
                  sinks ? " sinks" : "", tokens, window, kernel,
                  pool_max ? "max" : "mean", share_max ? "max" : "mean", cap);
    report(what, error.relative(), rule == HEADKV_DROP ? 1e-4 : 1e-5);
    compete(hs, stride, stored, candidates);

    int wrong = 0;
    for (int s = 0; s < stored; s++) {
        std::vector<uint32_t> order(candidates);
        for (int j = 0; j < candidates; j++) order[j] = j;
        std::stable_sort(order.begin(), order.end(),
                         [&](uint32_t x, uint32_t y) { return hs[s * stride + x] > hs[s * stride + y]; });
        order.resize(counts[s]);
        std::sort(order.begin(), order.end());
        for (int j = tokens - recent; j < tokens; j++) order.push_back(j);
        for (size_t i = 0; i < order.size(); i++) {
            const size_t row = offsets[s] + i, from = (size_t(s / per_kv) * tokens + order[i]) * d;
            wrong += hp[row] != order[i] || std::memcmp(&hkk[row * d], &hk[from], d * 2) ||
                     std::memcmp(&hkv[row * d], &hv[from], d * 2);
        }
    }
    report("  select and gather: wrong rows", wrong, 0);
}

template <typename T> void compressions() {
    const int context = quick ? 600 : 5000;
    for (int rule : {HEADKV_ATTENTION, HEADKV_DROP}) {
        for (int d : {32, 64, 80, 96, 128, 256}) {
            compress<T>(rule, d, 8, 2, false, context + d, 8, 7, true, false, 0);
            compress<T>(rule, d, 4, 2, true, context / 2, 8, 7, false, false, 1.5f);
        }
        compress<T>(rule, 128, 14, 2, false, context, 8, 5, true, true, 0);
        compress<T>(rule, 128, 8, 4, false, context, 1, 1, true, false, 0);
        compress<T>(rule, 64, 16, 1, false, context, 32, 13, false, false, 0);
        compress<T>(rule, 64, 6, 3, false, 9, 8, 7, true, false, 0);
        compress<T>(rule, 64, 16, 2, false, context, 8, 7, true, false, 0, true);
        compress<T>(rule, 64, 4, 4, true, 300, 3, 1, false, true, 0, true);
        if (!quick) compress<T>(rule, 128, 4, 2, false, 70000, 8, 7, true, false, 0);
    }
}

} // namespace
