// Equal pieces of work: how ragged heads are cut so that no multiprocessor waits for a long one.
#include "headkv.h"
#include <algorithm>
#include <vector>

namespace {

/// Tokens of a tile: pieces are cut at multiples.
constexpr int TILE = 16;
/// Below this many tokens a piece costs more to merge than it saves.
constexpr int SHORTEST = 64;
/// Pieces per multiprocessor that a batch is cut into: enough to balance, few enough to merge.
constexpr int PIECES = 6;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int tokens(const HeadkvItem &item) { return item.runs[0].tokens + item.runs[1].tokens; }

HeadkvSegment skip(HeadkvSegment s, int done) {
    // Elements are two bytes; the pointers are moved by the caller, who knows head_dim.
    s.tokens -= done;
    if (s.tail_first >= 0) s.tail_first += done;
    return s;
}

} // namespace

extern "C" int32_t headkv_decode_plan(const HeadkvUnit *units, int32_t count, const HeadkvSegment *segments,
                                      int32_t head_dim, int32_t multiprocessors, HeadkvItem *items, int32_t capacity,
                                      int32_t *slots) {
    const auto length = [&](const HeadkvUnit &u) {
        int64_t sum = 0;
        for (int s = 0; s < u.segments; s++) sum += segments[u.first_segment + s].tokens;
        return sum;
    };
    int64_t total = 0;
    for (int u = 0; u < count; u++) total += length(units[u]);
    const int64_t even = std::max<int64_t>(SHORTEST, ceil_div(total, int64_t(multiprocessors) * PIECES));

    std::vector<HeadkvItem> plan;
    int slot = 0;
    for (int n = 0; n < count; n++) {
        const HeadkvUnit &unit = units[n];
        const int64_t all = length(unit);
        // A part may end early at its second run's end, so there can be as many more parts as segments.
        const int64_t most = std::max<int64_t>(1, HEADKV_MAX_PARTS - unit.segments);
        const int64_t parts = std::min(most, std::max<int64_t>(1, all / even));
        const int size = int(ceil_div(ceil_div(all, parts), TILE) * TILE);
        const size_t first = plan.size();
        int segment = 0, done = 0;
        do {
            HeadkvItem item = {};
            item.sequence = unit.sequence, item.head = unit.head, item.rows = unit.rows, item.kv_head = unit.kv_head;
            item.appends = unit.appends, item.unit = n, item.slot = slot, item.part = int(plan.size() - first);
            int room = size;
            for (int run = 0; run < 2 && segment < unit.segments && room > 0; run++) {
                const HeadkvSegment &from = segments[unit.first_segment + segment];
                HeadkvSegment to = skip(from, done);
                const int64_t bytes = int64_t(done) * head_dim * 2;
                to.keys = static_cast<char *>(from.keys) + bytes;
                to.values = static_cast<char *>(from.values) + bytes;
                to.tokens = std::min(to.tokens, room);
                item.runs[run] = to;
                // Runs start at a tile of their own.
                room -= int(ceil_div(to.tokens, TILE) * TILE);
                done += to.tokens;
                if (done == from.tokens) segment++, done = 0;
            }
            plan.push_back(item);
        } while (segment < unit.segments);
        const int made = int(plan.size() - first);
        for (size_t i = first; i < plan.size(); i++) plan[i].parts = made;
        if (made > 1) slot += made;
    }
    std::stable_sort(plan.begin(), plan.end(),
                     [](const HeadkvItem &a, const HeadkvItem &b) { return tokens(a) > tokens(b); });
    std::copy_n(plan.begin(), std::min<size_t>(plan.size(), capacity), items);
    *slots = slot;
    return int32_t(plan.size());
}
