// Equal pieces of work: how ragged heads are cut so that no multiprocessor waits for a long one.
//
// A sequence is cut by itself, and keeps its pieces until its tail gets another block; a batch's plan is those of its
// sequences put together. So one sequence that grows, comes or goes costs little, whatever the others hold.
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

int tiles(const HeadkvItem &item) { return (item.runs[0].tokens + item.runs[1].tokens + TILE - 1) / TILE; }

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

extern "C" int32_t headkv_decode_piece(int64_t tokens, int32_t multiprocessors) {
    const int64_t share = ceil_div(tokens, multiprocessors);
    return int32_t(std::max<int64_t>(SHORTEST, ceil_div(share, pieces(share))));
}

extern "C" int32_t headkv_decode_cut(const HeadkvUnit *units, int32_t count, const HeadkvSegment *segments,
                                     int32_t head_dim, int32_t piece, HeadkvItem *items, int32_t capacity, int32_t *slots) {
    std::vector<HeadkvItem> cut;
    int slot = 0;
    for (int n = 0; n < count; n++) {
        const HeadkvUnit &unit = units[n];
        int64_t all = 0;
        for (int s = 0; s < unit.segments; s++) all += segments[unit.first_segment + s].tokens;
        // Parts may end early where segments end, so there can be more than asked for.
        const int64_t most = std::max<int64_t>(1, HEADKV_MAX_PARTS - 2 * unit.segments);
        const int64_t parts = std::min(most, std::max<int64_t>(1, all / piece));
        const int size = int(ceil_div(ceil_div(all, parts), TILE) * TILE);
        const size_t first = cut.size();
        int segment = 0, done = 0;
        do {
            HeadkvItem item = {};
            item.head = unit.head, item.rows = unit.rows, item.kv_head = unit.kv_head;
            item.appends = unit.appends, item.unit = n, item.slot = slot, item.part = int(cut.size() - first);
            int room = size;
            for (int run = 0; run < 2 && segment < unit.segments && room > 0; run++) {
                const HeadkvSegment &from = segments[unit.first_segment + segment];
                const HeadkvSegment to = item.runs[run] = part(from, done, room, head_dim);
                // Runs start at a tile of their own.
                room -= int(ceil_div(to.tokens, TILE) * TILE);
                done += to.tokens;
                if (done == from.tokens) segment++, done = 0;
            }
            cut.push_back(item);
        } while (segment < unit.segments);
        const int made = int(cut.size() - first);
        if (made > HEADKV_MAX_PARTS) return -1;
        for (size_t i = first; i < cut.size(); i++) cut[i].parts = made;
        if (made > 1) slot += made;
    }
    std::copy_n(cut.begin(), std::min<size_t>(cut.size(), capacity), items);
    *slots = slot;
    return int32_t(cut.size());
}

extern "C" int32_t headkv_decode_join(const HeadkvCut *cuts, int32_t count, HeadkvItem *items) {
    // Longest first, by counting: there are few lengths, and thousands of items.
    int longest = 0;
    for (int c = 0; c < count; c++)
        for (int i = 0; i < cuts[c].count; i++) longest = std::max(longest, tiles(cuts[c].items[i]));
    std::vector<int> at(longest + 1, 0);
    for (int c = 0; c < count; c++)
        for (int i = 0; i < cuts[c].count; i++) at[longest - tiles(cuts[c].items[i])]++;
    int before = 0;
    for (int &n : at) before += n, n = before - n;
    int units = 0, slots = 0;
    for (int c = 0; c < count; c++) {
        for (int i = 0; i < cuts[c].count; i++) {
            HeadkvItem &item = items[at[longest - tiles(cuts[c].items[i])]++] = cuts[c].items[i];
            item.sequence = c, item.unit += units, item.slot += slots;
        }
        units += cuts[c].units, slots += cuts[c].slots;
    }
    return slots;
}
