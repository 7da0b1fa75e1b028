// Checks every kernel against a float64 reference on the CPU. Usage: check [--quick] [decode|compress|prompt|product ...]
#include "check_compress.cuh"
#include "check_product.cuh"

namespace {

/// Three decode steps over ragged heads, so that what one step appends is read by the next.
template <typename T>
void decode(int d, int heads, int kv_heads, bool per_query_head, const std::vector<int> &kept, std::vector<int> tail,
            float cap, bool slides = false, bool sinks = false) {
    const int batch = int(tail.size()), stored = per_query_head ? heads : kv_heads, steps = 3;
    std::vector<int> room = tail;
    if (!slides)
        for (int &n : room) n += steps;
    Layer<T> layer(batch, heads, kv_heads, stored, d, kept, room, 7, multiprocessors());
    Buffer<int> arrived(layer.units);
    arrived.fill(0);
    Buffer<char> partials(headkv_decode_partials(layer.slots, d) + 16);
    partials.fill(0xff);
    const float scale = 1 / std::sqrt(float(d));
    std::vector<float> sink_logits(heads);
    for (int h = 0; h < heads; h++) sink_logits[h] = 2 * noise(9, h);
    Buffer<float> sink(sink_logits);
    Error error;
    double stored_wrong = 0;
    for (int step = 0; step < steps; step++) {
        auto q = random_buffer<T>(size_t(batch) * heads * d, 100 + step);
        auto k = random_buffer<T>(size_t(batch) * kv_heads * d, 200 + step);
        auto v = random_buffer<T>(size_t(batch) * kv_heads * d, 300 + step);
        Buffer<T> out(size_t(batch) * heads * d);
        out.fill(0xff);
        HeadkvDecode a = {};
        a.q = q.at, a.q_batch = heads * d, a.q_head = d, a.k_new = k.at, a.v_new = v.at;
        a.k_batch = a.v_batch = kv_heads * d, a.k_head = a.v_head = d, a.out = out.at;
        a.items = layer.items.at, a.item_count = int(layer.items.count), a.slots = layer.slots;
        a.heads = heads, a.head_dim = d, a.type = type_of<T>(), a.arrived = arrived.at, a.partials = partials.at;
        a.scale = scale, a.softcap = cap, a.sinks = sinks ? sink.at : nullptr;
        // A window that slides is full: the new token takes the oldest one's place.
        for (int b = 0; b < batch; b++) {
            if (slides) a.tail[b] = tail[b], a.fresh[b] = step % tail[b];
            else a.tail[b] = ++tail[b], a.fresh[b] = tail[b] - 1;
        }
        CUDA(headkv_decode(&a, nullptr));
        CUDA(cudaDeviceSynchronize());

        const auto hq = q.host(), hk = k.host(), hv = v.host(), ho = out.host(), keys = layer.keys.host(),
                   values = layer.values.host();
        std::vector<std::vector<std::vector<T>>> tails(batch);
        for (int b = 0; b < batch; b++)
            for (auto &block : layer.tails[b]) tails[b].push_back(block.host());
        std::vector<std::vector<double>> expected(batch * heads);
        parallel(batch * heads, [&](int i) {
            const int b = i / heads, h = i % heads, s = h / (heads / stored), kv = h / (heads / kv_heads);
            std::vector<const T *> ks, vs;
            for (int t = 0; t < kept[b * stored + s]; t++) {
                ks.push_back(&keys[(layer.offsets[b * stored + s] + t) * d]);
                vs.push_back(&values[(layer.offsets[b * stored + s] + t) * d]);
            }
            for (int t = 0, block = 0, first = 0; t < tail[b]; t++) {
                if (t - first == tail_block(block)) first += tail_block(block++);
                const size_t tokens = tail_block(block);
                ks.push_back(&tails[b][block][(kv * tokens + t - first) * d]);
                vs.push_back(&tails[b][block][((kv_heads + kv) * tokens + t - first) * d]);
            }
            expected[i] = attend(&hq[size_t(i) * d], ks, vs, d, scale, cap, sinks ? sink_logits[h] : -INFINITY);
            // The newest token must be where the next step looks for it.
            const size_t newest = kept[b * stored + s] + a.fresh[b];
            if (std::memcmp(ks[newest], &hk[(size_t(b) * kv_heads + kv) * d], d * 2) ||
                std::memcmp(vs[newest], &hv[(size_t(b) * kv_heads + kv) * d], d * 2))
                stored_wrong = 1;
        });
        for (int i = 0; i < batch * heads; i++)
            for (int j = 0; j < d; j++) error.add(wide(ho[size_t(i) * d + j]), expected[i][j]);
    }
    for (int n : arrived.host()) stored_wrong += n != 0;
    char what[200];
    std::snprintf(what, sizeof what, "decode %s d %d heads %d/%d%s%s batch %d longest %d tail %d cap %g", name<T>(), d, heads,
                  kv_heads, slides ? " sliding" : sinks ? " sinks" : "", per_query_head ? " per query head" : "", batch, *std::max_element(kept.begin(), kept.end()),
                  *std::max_element(tail.begin(), tail.end()), cap);
    report(what, stored_wrong ? INFINITY : error.relative(), 5e-3);
}

/// A prompt, or a later part of one.
struct Prompt {
    int d, batch, heads, kv_heads, tokens;
    int past = 0, window = 0;
    bool sinks = false;
    float cap = 0;
    /// Whether the output's rows lie where only the kernel for all GPUs can write them.
    bool portable = false;
    /// One query in so many is compared.
    int every = 1;
};

template <typename T> void prompt(const Prompt &p) {
    const int d = p.d, heads = p.heads, kv_heads = p.kv_heads, tokens = p.tokens, keys = p.past + tokens;
    // As models give them: (batch, tokens, heads, d) seen as (batch, heads, tokens, d).
    auto q = random_buffer<T>(size_t(p.batch) * tokens * heads * d, 1);
    auto k = random_buffer<T>(size_t(p.batch) * keys * kv_heads * d, 2),
         v = random_buffer<T>(size_t(p.batch) * keys * kv_heads * d, 3);
    const int row = heads * d + (p.portable ? 2 : 0);
    Buffer<T> out(size_t(p.batch) * tokens * row);
    out.fill(0xff);
    std::vector<float> sinks(heads);
    for (int h = 0; h < heads; h++) sinks[h] = 3 * noise(4, h) + 2;
    Buffer<float> device_sinks(sinks);
    HeadkvPrompt a = {};
    a.q = q.at, a.k = k.at, a.v = v.at, a.out = out.at;
    a.q_batch = int64_t(tokens) * heads * d, a.q_head = d, a.q_token = heads * d;
    a.o_batch = int64_t(tokens) * row, a.o_head = d, a.o_token = row;
    a.k_batch = a.v_batch = int64_t(keys) * kv_heads * d, a.k_head = a.v_head = d, a.k_token = a.v_token = kv_heads * d;
    a.batch = p.batch, a.heads = heads, a.kv_heads = kv_heads, a.tokens = tokens, a.head_dim = d, a.type = type_of<T>();
    a.scale = 1 / std::sqrt(float(d)), a.softcap = p.cap;
    a.past = p.past, a.window = p.window, a.sinks = p.sinks ? device_sinks.at : nullptr;
    CUDA(headkv_prompt(&a, nullptr));
    CUDA(cudaDeviceSynchronize());
    const auto hq = q.host(), hk = k.host(), hv = v.host(), ho = out.host();
    // Of each head, and of parts of its queries, so that one wrong row counts.
    constexpr int PARTS = 8;
    std::vector<Error> errors(p.batch * heads * PARTS);
    parallel(int(errors.size()), [&](int i) {
        const int b = i / PARTS / heads, h = i / PARTS % heads, kv = h / (heads / kv_heads);
        for (int t = i % PARTS * p.every; t < tokens; t += PARTS * p.every) {
            std::vector<const T *> ks, vs;
            for (int j = p.window ? std::max(0, p.past + t - p.window + 1) : 0; j <= p.past + t; j++) {
                ks.push_back(&hk[((size_t(b) * keys + j) * kv_heads + kv) * d]);
                vs.push_back(&hv[((size_t(b) * keys + j) * kv_heads + kv) * d]);
            }
            const auto expected = attend(&hq[((size_t(b) * tokens + t) * heads + h) * d], ks, vs, d, a.scale, p.cap,
                                         p.sinks ? sinks[h] : -INFINITY);
            for (int j = 0; j < d; j++) errors[i].add(wide(ho[(size_t(b) * tokens + t) * row + h * d + j]), expected[j]);
        }
    });
    double worst = 0;
    for (const Error &e : errors) worst = std::max(worst, e.relative());
    char what[200];
    std::snprintf(what, sizeof what, "prompt %s%s d %d batch %d heads %d/%d tokens %d after %d window %d%s cap %g", name<T>(),
                  p.portable ? " portable" : "", d, p.batch, heads, kv_heads, tokens, p.past, p.window,
                  p.sinks ? " sinks" : "", p.cap);
    report(what, worst, 5e-3);
}

template <typename T> void prompts() {
    const auto both = [](Prompt p) {
        prompt<T>(p);
        // Other sizes have no other kernel.
        if ((p.d == 64 || p.d == 128) && p.cap == 0) p.portable = true, prompt<T>(p);
    };
    const auto make = [](int d, int batch, int heads, int kv_heads, int tokens, int past = 0, int window = 0,
                         bool sinks = false, float cap = 0) {
        Prompt p = {d, batch, heads, kv_heads, tokens};
        p.past = past, p.window = window, p.sinks = sinks, p.cap = cap;
        return p;
    };
    for (int d : {32, 64, 80, 96, 128, 256}) {
        both(make(d, 2, 4, 2, quick ? 150 : 700));
        both(make(d, 1, 3, 1, 129, 0, 0, false, 2));
        both(make(d, 2, 4, 2, quick ? 70 : 300, quick ? 130 : 1001));
        both(make(d, 2, 4, 2, quick ? 150 : 700, 0, 100));
        both(make(d, 1, 6, 2, quick ? 150 : 517, 333, 129, true));
        both(make(d, 1, 2, 1, 200, 55, 0, true, 3));
        both(make(d, 1, 2, 2, 65, 191, 1));
    }
    for (int d : {64, 128})
        for (int tokens : {1, 17, 64, 127, 128, 130, 191, 193, 1000})
            for (int past : {0, 1, 128, 700})
                if (past == 0 || tokens < 1000) both(make(d, 1, 4, 1, quick ? std::min(tokens, 200) : tokens, quick ? past / 4 : past));
    if (quick) return;
    for (int d : {64, 128}) {
        // More pieces of work than multiprocessors, several rounds each.
        Prompt p = make(d, 2, 16, 4, 4103);
        p.every = 41, both(p);
        p = make(d, 1, 8, 2, 8192, 24576, 0, true);
        p.every = 173, both(p);
        p = make(d, 1, 8, 8, 16384, 5000, 1024);
        p.every = 127, both(p);
    }
}

template <typename T> void decodes() {
    const int longest = quick ? 700 : 20000;
    std::mt19937 rng(1);
    const auto lengths = [&](int n, int most) {
        std::vector<int> x(n);
        for (int &y : x) y = 1 + int(rng() % most);
        x[n - 1] = 0;
        return x;
    };
    for (int d : {32, 64, 80, 96, 128, 256}) {
        decode<T>(d, 8, 2, false, lengths(4, longest), {0, 61}, 0);
        decode<T>(d, 4, 2, true, lengths(8, longest / 2), {126, 5}, 2);
    }
    for (int group : {1, 2, 3, 5, 7, 8, 16, 20}) decode<T>(128, group * 2, 2, false, lengths(6, longest / 4), {0, 63, 1500}, 0);
    decode<T>(128, 32, 8, false, lengths(8, longest), {3000}, 0);
    decode<T>(128, 32, 8, false, std::vector<int>(8 * 3, 0), {0, 64, 127}, 0);
    decode<T>(128, 8, 2, false, std::vector<int>(2 * 2, 0), {64, 300}, 0, true);
    decode<T>(64, 64, 8, false, lengths(8 * 2, longest), {300, 7}, 0, false, true);
    decode<T>(64, 16, 2, true, lengths(16 * 2, 200), {0, 64}, 0, false, true);
    decode<T>(64, 4, 4, false, lengths(4 * 64, 300), std::vector<int>(64, 9), 0);
}

} // namespace

int main(int argc, char **argv) {
    std::vector<std::string> parts;
    for (int i = 1; i < argc; i++)
        if (std::string(argv[i]) == "--quick")
            quick = true;
        else
            parts.push_back(argv[i]);
    for (const auto &part : parts)
        if (part != "decode" && part != "compress" && part != "prompt" && part != "product") {
            std::fprintf(stderr, "usage: check [--quick] [decode|compress|prompt|product ...]\n");
            return 2;
        }
    const auto wanted = [&](const char *part) {
        return parts.empty() || std::find(parts.begin(), parts.end(), part) != parts.end();
    };
    if (wanted("decode")) decodes<bf16>();
    if (wanted("compress")) compressions<bf16>();
    if (wanted("prompt")) prompts<bf16>();
    if (wanted("decode") && !quick) decodes<f16>();
    if (wanted("compress") && !quick) compressions<f16>();
    if (wanted("prompt")) prompts<f16>();
    if (wanted("product")) products<bf16>(), products<f16>();
    std::printf("%s\n", failures ? "checks FAILED" : "all checks passed");
    return failures ? 1 : 0;
}
