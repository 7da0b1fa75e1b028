// Times every kernel at Llama-3-8B's attention shape. Usage: bench CAPACITIES [decode|compress|prompt|product ...], the capacities
// as capacities.py writes them.
//
// Every timing replays a graph over 32 layers with buffers of their own, so that the L2 cache holds nothing of use.
#include "common.cuh"
#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>

using headkv::bf16;

namespace {

constexpr int LAYERS = 32, HEADS = 32, KV_HEADS = 8, DIM = 128, WINDOW = 8;
double copy_rate = 0;

/// Median microseconds of `work`, captured once and replayed.
double time_us(cudaStream_t stream, int repeats, const std::function<void()> &work) {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    work();
    CUDA(cudaStreamEndCapture(stream, &graph));
    CUDA(cudaGraphInstantiate(&exec, graph, 0));
    std::vector<cudaEvent_t> marks(repeats + 1);
    for (auto &m : marks) CUDA(cudaEventCreate(&m));
    for (int i = 0; i < 3; i++) CUDA(cudaGraphLaunch(exec, stream));
    for (int i = 0; i < repeats; i++) {
        CUDA(cudaEventRecord(marks[i], stream));
        CUDA(cudaGraphLaunch(exec, stream));
    }
    CUDA(cudaEventRecord(marks[repeats], stream));
    CUDA(cudaStreamSynchronize(stream));
    std::vector<float> ms(repeats);
    for (int i = 0; i < repeats; i++) CUDA(cudaEventElapsedTime(&ms[i], marks[i], marks[i + 1]));
    for (auto &m : marks) cudaEventDestroy(m);
    cudaGraphExecDestroy(exec), cudaGraphDestroy(graph);
    std::nth_element(ms.begin(), ms.begin() + repeats / 2, ms.end());
    return ms[repeats / 2] * 1e3;
}

/// Tokens kept by layer and stored head, by mode ("kv" or "query") and mean capacity.
using Capacities = std::map<std::pair<std::string, int>, std::vector<std::vector<int>>>;

Capacities read(const char *path) {
    std::ifstream file(path);
    std::string line;
    Capacities all;
    while (std::getline(file, line)) {
        std::istringstream in(line);
        std::string mode;
        int capacity, layer, kept;
        in >> mode >> capacity >> layer;
        std::vector<int> heads;
        while (in >> kept) heads.push_back(kept);
        all[{mode, capacity}].push_back(heads);
    }
    return all;
}

void copy(cudaStream_t stream) {
    const size_t bytes = size_t(4) << 30;
    auto from = random_buffer<bf16>(bytes / 2, 1);
    Buffer<bf16> to(bytes / 2);
    // Not in a graph: there a copy may go to another engine.
    cudaEvent_t start, end;
    CUDA(cudaEventCreate(&start));
    CUDA(cudaEventCreate(&end));
    std::vector<float> ms(11);
    for (float &x : ms) {
        CUDA(cudaEventRecord(start, stream));
        CUDA(cudaMemcpyAsync(to.at, from.at, bytes, cudaMemcpyDeviceToDevice, stream));
        CUDA(cudaEventRecord(end, stream));
        CUDA(cudaEventSynchronize(end));
        CUDA(cudaEventElapsedTime(&x, start, end));
    }
    std::sort(ms.begin(), ms.end());
    const double us = ms[5] * 1e3;
    copy_rate = 2.0 * bytes / us / 1e6;
    std::printf("device copy: %.2f TB/s (bytes read and written)\n", copy_rate);
}

void decode(cudaStream_t stream, const Capacities &capacities) {
    std::printf("\ndecode, bf16, %d query heads, %d KV heads, d %d, tail of 32 tokens\n", HEADS, KV_HEADS, DIM);
    std::printf("| capacity | kept per | batch | us/layer | TB/s | of copy |\n|---|---|---|---|---|---|\n");
    for (const auto &entry : capacities) {
        const auto &[key, layers] = entry;
        for (int batch : {1, 8, 32}) {
            std::vector<std::unique_ptr<Layer<bf16>>> caches;
            size_t bytes = 0;
            int units = 0, slots = 0;
            for (int l = 0; l < LAYERS; l++) {
                std::vector<int> kept;
                for (int b = 0; b < batch; b++) kept.insert(kept.end(), layers[l].begin(), layers[l].end());
                bytes += (Layer<bf16>::total(kept) + size_t(batch) * KV_HEADS * 32) * DIM * 4;
                caches.push_back(std::make_unique<Layer<bf16>>(batch, HEADS, KV_HEADS, int(layers[l].size()), DIM, kept,
                                                               std::vector<int>(batch, 64), l, multiprocessors()));
                units = std::max(units, caches[l]->units), slots = std::max(slots, caches[l]->slots);
            }
            Buffer<int> arrived(units);
            arrived.fill(0);
            Buffer<char> partials(headkv_decode_partials(slots, DIM) + 16);
            auto q = random_buffer<bf16>(size_t(batch) * HEADS * DIM, 1), k = random_buffer<bf16>(q.count, 2),
                 v = random_buffer<bf16>(q.count, 3);
            Buffer<bf16> out(q.count);
            const auto step = [&](int l) {
                HeadkvDecode a = {};
                a.q = q.at, a.q_batch = HEADS * DIM, a.q_head = DIM, a.k_new = k.at, a.v_new = v.at, a.out = out.at;
                a.k_batch = a.v_batch = KV_HEADS * DIM, a.k_head = a.v_head = DIM;
                a.items = caches[l]->items.at, a.item_count = int(caches[l]->items.count), a.slots = caches[l]->slots;
                a.heads = HEADS, a.head_dim = DIM, a.arrived = arrived.at, a.partials = partials.at;
                a.scale = 1 / std::sqrt(float(DIM));
                for (int b = 0; b < batch; b++) a.tail[b] = 32, a.fresh[b] = 31;
                CUDA(headkv_decode(&a, stream));
            };
            const double us = time_us(stream, 50, [&] {
                for (int l = 0; l < LAYERS; l++) step(l);
            });
            const double rate = bytes / us / 1e6;
            std::printf("| %d | %s head | %d | %.1f | %.2f | %.0f %% |\n", key.second, key.first.c_str(), batch, us / LAYERS,
                        rate, 100 * rate / copy_rate);
            std::fflush(stdout);
        }
    }
}

void compress(cudaStream_t stream, const Capacities &capacities) {
    std::printf("\ncompression of one layer of a prompt, window %d, kernel 7 (us/layer)\n", WINDOW);
    std::printf("| tokens | capacity | kept per | rank | drop | compete | select | gather | rank to gather | drop to gather |\n");
    std::printf("|---|---|---|---|---|---|---|---|---|---|\n");
    for (int tokens : {8192, 32768, 131072}) {
        const int buffers = tokens > 32768 ? 4 : 8;
        auto k = random_buffer<bf16>(size_t(buffers) * KV_HEADS * tokens * DIM, 1),
             v = random_buffer<bf16>(size_t(buffers) * KV_HEADS * tokens * DIM, 2);
        auto q = random_buffer<bf16>(size_t(HEADS) * tokens * DIM, 3);
        HeadkvRank sizes = {};
        sizes.heads = HEADS, sizes.kv_heads = KV_HEADS, sizes.tokens = tokens, sizes.head_dim = DIM, sizes.window = WINDOW;
        sizes.rule = HEADKV_DROP;
        Buffer<char> workspace(headkv_rank_workspace(&sizes));
        for (const auto &entry : capacities) {
            const auto &[key, layers] = entry;
            const int stored = int(layers[0].size());
            const int64_t stride = headkv_score_stride(tokens);
            Buffer<float> scores(stored * stride);
            std::vector<Buffer<int>> counts, offsets;
            std::vector<int> longest(LAYERS), total(LAYERS);
            for (int l = 0; l < LAYERS; l++) {
                std::vector<int> count, offset(1, 0);
                for (int kept : layers[l]) {
                    count.push_back(std::min(kept, tokens) - WINDOW);
                    offset.push_back(offset.back() + count.back() + WINDOW);
                    longest[l] = std::max(longest[l], count.back() + WINDOW);
                }
                total[l] = offset.back();
                counts.emplace_back(count), offsets.emplace_back(offset);
            }
            const int most = *std::max_element(total.begin(), total.end());
            Buffer<uint32_t> positions(most);
            Buffer<bf16> kept_k(size_t(most) * DIM), kept_v(size_t(most) * DIM);
            Buffer<float> weights(std::vector<float>(stored, 1));
            Buffer<char> competition(headkv_compete_workspace(stored));
            Buffer<int> won(stored);
            const auto ranking = [&](int l, int rule) {
                HeadkvRank a = sizes;
                const size_t at = size_t(l % buffers) * KV_HEADS * tokens * DIM;
                a.q = q.at, a.k = k.at + at, a.v = v.at + at, a.rule = rule;
                a.q_head = a.k_head = a.v_head = int64_t(tokens) * DIM, a.q_token = a.k_token = a.v_token = DIM;
                a.scale = 1 / std::sqrt(float(DIM)), a.share = HEADS / stored, a.before = a.after = 3, a.pool_max = 1, a.decay = 1;
                a.workspace = workspace.at, a.scores = scores.at;
                CUDA(headkv_rank(&a, stream));
            };
            const auto rank = [&](int l) { ranking(l, HEADKV_ATTENTION); };
            const auto drop = [&](int l) { ranking(l, HEADKV_DROP); };
            const auto compete = [&](int l) {
                HeadkvCompete a = {};
                a.scores = scores.at, a.stride = stride, a.heads = stored, a.candidates = tokens - WINDOW, a.weights = weights.at;
                a.open = total[l] - stored * WINDOW, a.workspace = competition.at, a.counts = won.at;
                CUDA(headkv_compete(&a, stream));
            };
            const auto select = [&](int l) {
                CUDA(headkv_select(scores.at, stride, stored, tokens - WINDOW, tokens, WINDOW, counts[l].at, offsets[l].at,
                                   positions.at, stream));
            };
            const auto gather = [&](int l) {
                HeadkvGather g = {};
                const size_t at = size_t(l % buffers) * KV_HEADS * tokens * DIM;
                g.k = k.at + at, g.v = v.at + at, g.k_head = g.v_head = int64_t(tokens) * DIM, g.k_token = g.v_token = DIM;
                g.offsets = offsets[l].at, g.positions = positions.at, g.kept_k = kept_k.at, g.kept_v = kept_v.at;
                g.heads = stored, g.share = stored / KV_HEADS, g.longest = longest[l], g.head_dim = DIM;
                CUDA(headkv_gather(&g, stream));
            };
            const auto all_layers = [&](const std::function<void(int)> &f) {
                return time_us(stream, 10, [&] {
                           for (int l = 0; l < LAYERS; l++) f(l);
                       }) / LAYERS;
            };
            const double all = all_layers([&](int l) { rank(l), select(l), gather(l); });
            const double plus = all_layers([&](int l) { drop(l), compete(l), select(l), gather(l); });
            const double ranked = all_layers(rank), dropped = all_layers(drop), competed = all_layers(compete),
                         selected = all_layers(select);
            std::printf("| %d | %d | %s head | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f |\n", tokens, key.second,
                        key.first.c_str(), ranked, dropped, competed, selected, all - ranked - selected, all, plus);
        }
    }
}

/// Linear layers for few rows, one or several in a launch, cycling through enough weights that the L2 cache holds nothing of use.
void products(cudaStream_t stream) {
    std::printf("\nproducts with few rows, bf16\n| outputs | inputs | rows | us | TB/s | of copy |\n|---|---|---|---|---|---|\n");
    struct Shape {
        std::vector<int> outputs;
        int inputs;
    };
    const Shape shapes[] = {{{4096}, 4096},        {{1024}, 4096},  {{4096, 1024, 1024}, 4096}, {{14336}, 4096},
                            {{14336, 14336}, 4096}, {{4096}, 14336}, {{128256}, 4096}};
    for (const Shape &shape : shapes)
        for (int rows : {1, 2}) {
            int outputs = 0;
            std::string name;
            for (int n : shape.outputs) outputs += n, name += (name.empty() ? "" : " + ") + std::to_string(n);
            const size_t each = size_t(outputs) * shape.inputs;
            const int count = int(std::max<size_t>(2, (size_t(1) << 30) / (2 * each)));
            auto weights = random_buffer<bf16>(each * count, 1), x = random_buffer<bf16>(size_t(rows) * shape.inputs, 2);
            Buffer<bf16> out(size_t(rows) * outputs);
            const double us = time_us(stream, 20, [&] {
                for (int i = 0; i < count; i++) {
                    HeadkvProduct a = {};
                    a.x = x.at, a.x_row = shape.inputs, a.rows = rows, a.inputs = shape.inputs, a.type = HEADKV_BF16;
                    size_t before = 0;
                    for (size_t n = 0; n < shape.outputs.size(); before += shape.outputs[n++]) {
                        a.weights[n] = weights.at + i * each + before * shape.inputs;
                        a.out[n] = out.at + before * rows, a.outputs[n] = shape.outputs[n];
                    }
                    CUDA(headkv_product(&a, stream));
                }
            }) / count;
            const double rate = 2.0 * each / us / 1e6;
            std::printf("| %s | %d | %d | %.1f | %.2f | %.0f %% |\n", name.c_str(), shape.inputs, rows, us, rate,
                        100 * rate / copy_rate);
        }
}

/// Milliseconds of `tokens` queries after `past` tokens.
double prompt_ms(cudaStream_t stream, int d, int tokens, int past, bool portable) {
    const int keys = past + tokens, row = HEADS * d + (portable ? 2 : 0);
    auto q = random_buffer<bf16>(size_t(HEADS) * tokens * d, 1), k = random_buffer<bf16>(size_t(KV_HEADS) * keys * d, 2),
         v = random_buffer<bf16>(size_t(KV_HEADS) * keys * d, 3);
    Buffer<bf16> out(size_t(tokens) * row);
    HeadkvPrompt a = {};
    a.q = q.at, a.k = k.at, a.v = v.at, a.out = out.at;
    a.q_token = HEADS * d, a.o_token = row, a.q_head = a.o_head = d, a.k_token = a.v_token = KV_HEADS * d;
    a.k_head = a.v_head = d, a.batch = 1, a.heads = HEADS, a.kv_heads = KV_HEADS, a.tokens = tokens, a.head_dim = d;
    a.past = past, a.scale = 1 / std::sqrt(float(d));
    return time_us(stream, 21, [&] { CUDA(headkv_prompt(&a, stream)); }) / 1e3;
}

void prompt(cudaStream_t stream) {
    std::printf("\ncausal prompt attention, bf16, %d query heads, %d KV heads, medians of 21\n", HEADS, KV_HEADS);
    std::printf("| kernel | d | tokens | after | ms | TFLOP/s |\n|---|---|---|---|---|---|\n");
    const auto row = [&](const char *kernel, int d, int tokens, int past, bool portable) {
        const double ms = prompt_ms(stream, d, tokens, past, portable);
        std::printf("| %s | %d | %d | %d | %.2f | %.0f |\n", kernel, d, tokens, past, ms,
                    4.0 * tokens * (past + tokens / 2.0) * d * HEADS / ms / 1e9);
        std::fflush(stdout);
    };
    for (int d : {128, 64}) {
        row("Hopper", d, 8192, 0, false), row("Hopper", d, 32768, 0, false), row("Hopper", d, 2048, 30720, false);
        row("portable", d, 8192, 0, true), row("portable", d, 32768, 0, true);
    }
    for (int d : {80, 96, 256, 32}) row("portable", d, 8192, 0, false);
}

} // namespace

int main(int argc, char **argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: bench CAPACITIES [decode|compress|prompt|product ...] (written by scripts/gpu/capacities.py)\n");
        return 2;
    }
    const Capacities capacities = read(argv[1]);
    const auto wanted = [&](const char *part) {
        return argc == 2 || std::any_of(argv + 2, argv + argc, [&](const char *x) { return !std::strcmp(x, part); });
    };
    cudaStream_t stream;
    CUDA(cudaStreamCreate(&stream));
    copy(stream);
    if (wanted("decode")) decode(stream, capacities);
    if (wanted("compress")) compress(stream, capacities);
    if (wanted("prompt")) prompt(stream);
    if (wanted("product")) products(stream);
}
