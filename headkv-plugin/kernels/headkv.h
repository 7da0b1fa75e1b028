// The kernels' C interface: raw device pointers and a stream, no framework.
//
// Every function returns a cudaError_t (0 is success) and only enqueues work: none waits for the device or allocates.
// Shapes are row-major; strides are in elements, and the elements of one head's row are always consecutive.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Element types.
enum HeadkvType { HEADKV_BF16 = 0, HEADKV_F16 = 1 };

/// Sequences that one decode launch takes: their lengths travel as kernel arguments, so that nothing is uploaded per step.
#define HEADKV_MAX_BATCH 256
/// Query rows that share one read of a head; larger groups are several units.
#define HEADKV_MAX_ROWS 8
/// Parts that one unit is cut into at most.
#define HEADKV_MAX_PARTS 128

/// A run of consecutive tokens of one head, `(tokens, head_dim)` keys and values.
typedef struct {
    void *keys;
    void *values;
    /// Tokens there is room for.
    int32_t tokens;
    /// Index of the first token in the sequence's tail; -1 for the compressed part, which is always full.
    int32_t tail_first;
} HeadkvSegment;

/// What one group of query rows attends to: the unit that is cut into equal pieces of work.
typedef struct {
    /// First query head and number of consecutive ones, at most HEADKV_MAX_ROWS.
    int32_t head;
    int32_t rows;
    /// KV head of the new token.
    int32_t kv_head;
    /// 1 if this unit stores the new token in the tail (one unit of each KV head does).
    int32_t appends;
    /// Its segments in the array given to headkv_decode_cut: the compressed part, then the tail's blocks.
    int32_t first_segment;
    int32_t segments;
} HeadkvUnit;

/// One piece of work: at most two runs of tokens of one unit.
typedef struct {
    HeadkvSegment runs[2];
    /// Row of the batch.
    int32_t sequence;
    int32_t head;
    int32_t rows;
    int32_t kv_head;
    int32_t appends;
    /// Number of the unit, of this part of it, and how many parts there are.
    int32_t unit;
    int32_t part;
    int32_t parts;
    /// First of the unit's slots for partial results.
    int32_t slot;
    int32_t reserved[3];
} HeadkvItem;

/// Tokens of a piece, for a device of that many multiprocessors and so many tokens of all units of a batch.
int32_t headkv_decode_piece(int64_t tokens, int32_t multiprocessors);

/// Cuts one sequence's units into items of about `piece` tokens; they hold until the tail gets another block.
///
/// Writes at most `capacity` items and returns how many there are (call again with more room if it is larger);
/// -1 means that a unit has too many segments (over 120); `slots` receives the number of slots for partial results.
int32_t headkv_decode_cut(const HeadkvUnit *units, int32_t count, const HeadkvSegment *segments, int32_t head_dim,
                          int32_t piece, HeadkvItem *items, int32_t capacity, int32_t *slots);

/// A sequence that was cut: its items, and how many units and slots they count.
typedef struct {
    const HeadkvItem *items;
    int32_t count;
    int32_t units;
    int32_t slots;
} HeadkvCut;

/// Puts together the items of a batch's sequences, longest first: as many as the cuts have. Returns the number of slots.
int32_t headkv_decode_join(const HeadkvCut *cuts, int32_t count, HeadkvItem *items);

/// Bytes of HeadkvDecode.partials for that many slots.
size_t headkv_decode_partials(int32_t slots, int32_t head_dim);

/// Attention of one new token per sequence to everything it holds, the new token included; stores the new token.
typedef struct {
    /// `(batch, heads, head_dim)`.
    const void *q;
    int64_t q_batch, q_head;
    /// New keys and values, `(batch, kv_heads, head_dim)`.
    const void *k_new;
    const void *v_new;
    int64_t k_batch, k_head, v_batch, v_head;
    /// `(batch, heads, head_dim)`, contiguous.
    void *out;
    const HeadkvItem *items;
    int32_t item_count, slots;
    int32_t heads, head_dim, type;
    /// Blocks that are done, by unit: zeroed once, and zero again after each launch. Launches of a stream share it.
    int32_t *arrived;
    /// Partial results, which launches of a stream may share.
    void *partials;
    /// Logits of `heads` sinks, which take weight and have no value; null for none.
    const float *sinks;
    float scale;
    /// Soft cap on the scaled logits; 0 for none.
    float softcap;
    /// Tokens in each sequence's tail, the new one included, and which of them it is: the last one, or in a sliding window
    /// that is full the one that was the oldest.
    int32_t tail[HEADKV_MAX_BATCH];
    int32_t fresh[HEADKV_MAX_BATCH];
} HeadkvDecode;

int32_t headkv_decode(const HeadkvDecode *args, cudaStream_t stream);

/// What a position is worth to a query of the window: its attention (SnapKV, arXiv 2404.14469, section 4), or how far the
/// query's output moves if the position is dropped, squared.
enum HeadkvRule { HEADKV_ATTENTION = 0, HEADKV_DROP = 1 };

/// Ranks the positions before the window by what they are worth to the window's queries together.
typedef struct {
    /// `(heads, tokens, head_dim)` and `(kv_heads, tokens, head_dim)` of one sequence; v is read by HEADKV_DROP only.
    const void *q;
    const void *k;
    const void *v;
    int64_t q_head, q_token, k_head, k_token, v_head, v_token;
    int32_t heads, kv_heads, tokens, head_dim, type, rule;
    int32_t window;
    float scale, softcap;
    /// As in HeadkvDecode.
    const float *sinks;
    /// Query heads that share a set of positions, and whether the largest of their scores counts or the mean.
    int32_t share, share_max;
    /// Positions before and after a hit that it counts for, at most 128 each, whether the largest counts or the mean, and
    /// what is left of a hit one position further.
    int32_t before, after, pool_max;
    float decay;
    void *workspace;
    /// `(heads / share, headkv_score_stride(tokens))`: scores of positions 0 .. tokens - window.
    float *scores;
} HeadkvRank;

/// Elements from one head's scores to the next's.
int64_t headkv_score_stride(int32_t tokens);
/// Bytes of the workspace; its address and the others are not looked at.
size_t headkv_rank_workspace(const HeadkvRank *args);
int32_t headkv_rank(const HeadkvRank *args, cudaStream_t stream);

/// Reduces and pools scores `(heads, stride)` of whatever origin as headkv_rank does its own; of `args` only what says how.
int32_t headkv_pool(const HeadkvRank *args, const float *values, int64_t stride, cudaStream_t stream);

/// How many positions each head keeps where, beyond each head's `floor` best, `open` more are kept of all heads' together, by
/// score times the head's weight, which is not negative. Of equal ones the lower head's are better.
typedef struct {
    /// `(heads, stride)`, as headkv_rank leaves them.
    const float *scores;
    int64_t stride;
    int32_t heads, candidates;
    /// By head.
    const float *weights;
    /// `floor` is at most `candidates`, and `open` from 1 to what is left.
    uint32_t floor, open;
    /// Of headkv_compete_workspace(heads) bytes.
    void *workspace;
    /// By head.
    int32_t *counts;
} HeadkvCompete;

size_t headkv_compete_workspace(int32_t heads);
int32_t headkv_compete(const HeadkvCompete *args, cudaStream_t stream);

/// Positions of each head's `counts[head]` best scores in ascending order, then those of the last `recent` tokens, which are
/// no candidates.
///
/// Of equal scores the lower position is better. Head h writes `counts[h] + recent` positions from
/// `positions[offsets[h]]` on. `counts` (each at most `candidates`) and `offsets` are on the device.
int32_t headkv_select(const float *scores, int64_t stride, int32_t heads, int32_t candidates, int32_t tokens, int32_t recent,
                      const int32_t *counts, const int32_t *offsets, uint32_t *positions, cudaStream_t stream);

/// Copies the kept rows of K and V, in the order of `positions`, from `(kv_heads, tokens, head_dim)`.
///
/// Row `offsets[h] + i` of `kept_*` becomes row `positions[offsets[h] + i]` of head `h / share`; without positions row
/// `i`. `offsets` has one more entry than heads; `longest` bounds a head's rows.
typedef struct {
    const void *k;
    const void *v;
    int64_t k_head, k_token, v_head, v_token;
    const int32_t *offsets;
    const uint32_t *positions;
    void *kept_k;
    void *kept_v;
    /// Stored heads, and how many of them draw on one KV head.
    int32_t heads, share;
    int32_t longest, head_dim;
} HeadkvGather;

int32_t headkv_gather(const HeadkvGather *args, cudaStream_t stream);

/// Causal attention of new tokens to those before them and themselves; query head h reads KV head h / (heads / kv_heads).
typedef struct {
    /// `(batch, heads, tokens, head_dim)`, and `(batch, kv_heads, past + tokens, head_dim)`.
    const void *q;
    const void *k;
    const void *v;
    void *out;
    int64_t q_batch, q_head, q_token;
    int64_t k_batch, k_head, k_token;
    int64_t v_batch, v_head, v_token;
    int64_t o_batch, o_head, o_token;
    int32_t batch, heads, kv_heads, tokens, head_dim, type;
    float scale, softcap;
    /// Logits of `heads` sinks, which take weight and have no value; null for none.
    const float *sinks;
    /// Tokens before the new ones: query i stands at position `past + i`.
    int32_t past;
    /// Latest positions that a query sees, its own included; 0 for all.
    int32_t window;
} HeadkvPrompt;

int32_t headkv_prompt(const HeadkvPrompt *args, cudaStream_t stream);

/// Rows of a linear layer up to which the kernels beat a matrix product.
#define HEADKV_PRODUCT_ROWS 16
/// Linear layers that one launch multiplies the same rows by.
#define HEADKV_PRODUCTS 3

/// Linear layers of at most HEADKV_PRODUCT_ROWS rows, the same ones: out = x weights^T.
typedef struct {
    /// `(outputs, inputs)` each; inputs are a multiple of 8.
    const void *weights[HEADKV_PRODUCTS];
    /// `(rows, outputs)` each, contiguous.
    void *out[HEADKV_PRODUCTS];
    /// 0 behind the last one.
    int32_t outputs[HEADKV_PRODUCTS];
    /// `(rows, inputs)`, and elements from one row to the next, a multiple of 8.
    const void *x;
    int64_t x_row;
    int32_t rows, inputs, type;
} HeadkvProduct;

int32_t headkv_product(const HeadkvProduct *args, cudaStream_t stream);

/// Takes apart the columns of rows of 16-bit elements, as the product of several layers' weights leaves them.
typedef struct {
    /// `(rows, sum of widths)`, contiguous.
    const void *from;
    /// `(rows, width)` each, contiguous.
    void *to[HEADKV_PRODUCTS];
    /// Multiples of 8; 0 behind the last one.
    int32_t widths[HEADKV_PRODUCTS];
    int32_t rows;
} HeadkvSplit;

int32_t headkv_split(const HeadkvSplit *args, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
