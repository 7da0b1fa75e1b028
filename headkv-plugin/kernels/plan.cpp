// Equal pieces of work: how ragged heads are cut so that no multiprocessor waits for a long one.
#include "headkv.h"
#include <algorithm>
#include <vector>

namespace {

/// Tokens of a tile: pieces are cut at multiples.
constexpr int TILE = 16;
/// Below this many tokens a piece costs more to merge than it saves.
constexpr int SHORTEST = 32;

/// Pieces per multiprocessor: all at once if there is little work, twice as many for balance if there is much.
int pieces(int64_t tokens_per_multiprocessor) { return tokens_per_multiprocessor < 900 ? 3 : 6; }

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int tokens(const HeadkvItem &item) { return item.runs[0].tokens + item.runs[1].tokens; }

/// At most `room` tokens of a segment, from token `done` on.
HeadkvSegment part(HeadkvSegment s, int done, int room, int head_dim) {
    const int64_t bytes = int64_t(done) * head_dim * 2;
    s.keys = static_cast<char *>(s.keys) + bytes;
    s.values = static_cast<char *>(s.values) + bytes;
    s.tokens = std::min(s.tokens - done, room);
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
    const int64_t share = ceil_div(total, multiprocessors);
    const int64_t even = std::max<int64_t>(SHORTEST, ceil_div(share, pieces(share)));

    std::vector<HeadkvItem> plan;
    int slot = 0;
    for (int n = 0; n < count; n++) {
        const HeadkvUnit &unit = units[n];
        const int64_t all = length(unit);
        // Parts may end early where segments end, so there can be more than asked for.
        const int64_t most = std::max<int64_t>(1, HEADKV_MAX_PARTS - 2 * unit.segments);
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
                const HeadkvSegment to = item.runs[run] = part(from, done, room, head_dim);
                // Runs start at a tile of their own.
                room -= int(ceil_div(to.tokens, TILE) * TILE);
                done += to.tokens;
                if (done == from.tokens) segment++, done = 0;
            }
            plan.push_back(item);
        } while (segment < unit.segments);
        const int made = int(plan.size() - first);
        if (made > HEADKV_MAX_PARTS) return -1;
        for (size_t i = first; i < plan.size(); i++) plan[i].parts = made;
        if (made > 1) slot += made;
    }
    std::stable_sort(plan.begin(), plan.end(),
                     [](const HeadkvItem &a, const HeadkvItem &b) { return tokens(a) > tokens(b); });
    std::copy_n(plan.begin(), std::min<size_t>(plan.size(), capacity), items);
    *slots = slot;
    return int32_t(plan.size());
}
