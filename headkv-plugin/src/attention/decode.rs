//! Attention of new tokens over ragged caches: every head has kept a different number of keys.

use super::{
    Element, Segment,
    exponential::{LogitScale, MASKED},
    matrix::{Aligned, multiply, multiply_transposed},
    softmax::State,
};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Tokens per piece of work: long heads are split so that cores share them.
const PIECE: usize = 512;
/// Tokens whose logits are formed at once; a multiple of every vector's lanes.
const KEYS: usize = 64;
/// Multiplications (query rows x tokens x head_dim) below which one core is faster than waking the others.
const PARALLEL: usize = 1 << 18;

/// One stored head of one sequence, and the query heads that read it.
pub struct DecodeUnit<'a, T> {
    /// Queries, `(query heads, new, head_dim)`.
    pub q: &'a [T],
    /// New tokens, the last ones that the head holds: each sees those before it and itself.
    pub new: usize,
    /// Tokens that each of the new ones sees, itself included; `None` shows all.
    pub window: Option<usize>,
    /// By query head, the logit of its attention sink; none where the model has none.
    pub sinks: &'a [f32],
    /// What the head holds.
    pub segments: Vec<Segment<'a, T>>,
    /// The output, as the queries; zero where nothing is held.
    pub out: &'a mut [T],
}

impl<T> DecodeUnit<'_, T> {
    fn tokens(&self, head_dim: usize) -> usize {
        self.segments
            .iter()
            .map(|segment| segment.keys.len() / head_dim)
            .sum()
    }
}

/// Attention of each unit's queries to everything that its head holds.
pub fn decode_attention<T: Element>(
    units: &mut [DecodeUnit<'_, T>],
    head_dim: usize,
    scale: f32,
    softcap: Option<f32>,
) {
    attend(
        Arch::new(),
        units,
        head_dim,
        LogitScale::new(scale, softcap),
    );
}

fn attend<T: Element>(
    arch: Arch,
    units: &mut [DecodeUnit<'_, T>],
    head_dim: usize,
    scale: LogitScale,
) {
    let work: usize = units
        .iter()
        .map(|unit| unit.q.len() * unit.tokens(head_dim))
        .sum();
    let pieces: Vec<(usize, Range<usize>)> = units
        .iter()
        .map(|unit| unit.tokens(head_dim))
        .enumerate()
        .flat_map(|(i, tokens)| {
            (0..tokens)
                .step_by(PIECE)
                .map(move |from| (i, from..tokens.min(from + PIECE)))
        })
        .collect();
    let attend = |scratch: &mut Scratch, (i, tokens): &(usize, Range<usize>)| {
        arch.dispatch(Piece {
            unit: &units[*i],
            tokens: tokens.clone(),
            head_dim,
            scale,
            scratch,
        });
        scratch.state.clone()
    };
    // One core takes the same pieces as many do: what one sequence gets does not depend on which others decode with it.
    let parts: Vec<State> = if work < PARALLEL {
        let mut scratch = Scratch::default();
        let attend = |piece| attend(&mut scratch, piece);
        pieces.iter().map(attend).collect()
    } else {
        pieces
            .par_iter()
            .with_max_len(1)
            .map_init(Scratch::default, attend)
            .collect()
    };

    let mut parts = pieces.iter().zip(parts).peekable();
    for (i, unit) in units.iter_mut().enumerate() {
        let mut state = State::empty(unit.q.len() / head_dim, head_dim);
        while let Some((_, part)) = parts.next_if(|((owner, _), _)| *owner == i) {
            state.merge(&part);
        }
        for (head, &sink) in unit.sinks.iter().enumerate() {
            (0..unit.new).for_each(|t| state.sink(head * unit.new + t, sink));
        }
        T::narrow_all(state.finish(), unit.out);
    }
}

#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    logits: Aligned,
    /// The result.
    state: State,
}

/// Attention of one unit's queries to some of its tokens.
struct Piece<'a, 'b, T> {
    unit: &'a DecodeUnit<'b, T>,
    tokens: Range<usize>,
    head_dim: usize,
    scale: LogitScale,
    scratch: &'a mut Scratch,
}

impl<T: Element> WithSimd for Piece<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            unit,
            tokens,
            head_dim: d,
            scale,
            scratch,
        } = self;
        let Scratch {
            queries,
            keys,
            values,
            logits,
            state,
        } = scratch;
        let rows = unit.q.len() / d;
        queries.clear();
        queries.extend(T::widen(unit.q, keys).iter().map(|x| x * scale.query));
        state.clear(rows, d);
        let logits = logits.get(rows * KEYS);
        // Tokens that the first of the new ones does not see yet.
        let hidden = unit.new - 1;
        let all_see = unit.tokens(d).saturating_sub(hidden);

        let mut start = 0;
        for segment in &unit.segments {
            let end = start + segment.keys.len() / d;
            let (from, to) = (tokens.start.max(start), tokens.end.min(end));
            if from < to {
                let elements = (from - start) * d..(to - start) * d;
                let parts = segment.keys[elements.clone()]
                    .chunks(KEYS * d)
                    .zip(segment.values[elements].chunks(KEYS * d));
                let mut at = from;
                for (k, v) in parts {
                    let count = k.len() / d;
                    multiply_transposed(simd, queries, T::widen(k, keys), (logits, KEYS), d);
                    for (row, logits) in logits.chunks_mut(KEYS).enumerate() {
                        // Whole vectors, the rest of the last one masked.
                        let logits = &mut logits[..count.next_multiple_of(S::F32_LANES)];
                        scale.cap(simd, logits);
                        let end = all_see + row % unit.new;
                        let seen = end.saturating_sub(at).min(count);
                        let left = unit.window.map_or(0, |window| end.saturating_sub(window));
                        let hidden = left.saturating_sub(at).min(seen);
                        logits[..hidden].fill(MASKED);
                        logits[seen..].fill(MASKED);
                        state.weigh(simd, row, logits);
                        logits[..hidden].fill(0.0);
                        logits[seen..].fill(0.0);
                    }
                    let values = (T::widen(v, values), d);
                    multiply::<S, true>(
                        simd,
                        (logits, KEYS),
                        values,
                        (state.output(), d),
                        [rows, count, d],
                    );
                    at += count;
                }
            }
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::reference::{attention, close, levels, random, with_sink};
    use half::{bf16, f16};
    use proptest::prelude::*;

    const SCALE: f32 = 0.3;

    /// Attention to segments that end at the given tokens.
    fn run<T: Element>(
        arch: Arch,
        [q, keys, values]: [&[T]; 3],
        cuts: &[usize],
        d: usize,
        softcap: Option<f32>,
    ) -> Vec<T> {
        let mut out = vec![T::narrow(7.0); q.len()];
        let bounds = cuts.windows(2).map(|w| w[0] * d..w[1] * d);
        let segment = |r: Range<usize>| Segment {
            keys: &keys[r.clone()],
            values: &values[r],
        };
        let unit = DecodeUnit {
            q,
            new: 1,
            window: None,
            sinks: &[],
            segments: bounds.map(segment).collect(),
            out: &mut out,
        };
        attend(arch, &mut [unit], d, LogitScale::new(SCALE, softcap));
        out
    }

    fn matches<T: Element>(
        rows: usize,
        tokens: usize,
        d: usize,
        softcap: Option<f32>,
        tolerance: f32,
    ) {
        let (q, k, v) = (
            random::<T>(rows * d, 1),
            random::<T>(tokens * d, 2),
            random::<T>(tokens * d, 3),
        );
        let exact = attention(&q, &k, &v, d, SCALE, softcap);
        for level in levels() {
            close(
                &run(level, [&q, &k, &v], &[0, tokens], d, softcap),
                &exact,
                tolerance,
            );
        }
    }

    #[test]
    fn equals_the_definition() {
        for tokens in [1, 7, 8, 63, 64, 65, 257, 1000, 3000] {
            for d in [32, 64, 80, 96, 128, 256, 20] {
                for rows in [1, 2, 3, 4, 8] {
                    matches::<f32>(rows, tokens, d, None, 2e-6);
                }
                matches::<f32>(4, tokens, d, Some(2.0), 2e-6);
                matches::<bf16>(4, tokens, d, None, 4e-3);
                matches::<f16>(4, tokens, d, None, 1e-3);
            }
        }
    }

    #[test]
    fn units_of_different_lengths_do_not_mix() {
        let (rows, d) = (2, 32);
        for lengths in [[5, 0, 3], [4000, 0, 100]] {
            let inputs: Vec<[Vec<f32>; 3]> = (lengths.iter())
                .zip(1..)
                .map(|(tokens, seed)| [rows, *tokens, *tokens].map(|n| random(n * d, seed)))
                .collect();
            let mut outs = vec![vec![7.0; rows * d]; lengths.len()];
            let mut units: Vec<DecodeUnit<'_, f32>> = (inputs.iter())
                .zip(&mut outs)
                .map(|([q, keys, values], out)| DecodeUnit {
                    q,
                    new: 1,
                    window: None,
                    sinks: &[],
                    segments: vec![Segment { keys, values }],
                    out,
                })
                .collect();
            decode_attention(&mut units, d, SCALE, None);
            for ([q, k, v], out) in inputs.iter().zip(&outs) {
                let exact = if k.is_empty() {
                    vec![0.0; rows * d]
                } else {
                    attention(q, k, v, d, SCALE, None)
                };
                close(out, &exact, 2e-6);
            }
        }
    }

    #[test]
    fn what_else_decodes_changes_no_bit() {
        let (rows, d) = (2, 32);
        // Alone it is work for one core, with the other for several.
        let inputs = [1000, 6000].map(|tokens| [rows, tokens, tokens].map(|n| random(n * d, 1)));
        let outputs = |count: usize| {
            let mut outs = vec![vec![7.0f32; rows * d]; count];
            let mut units: Vec<DecodeUnit<'_, f32>> = (inputs.iter())
                .zip(&mut outs)
                .map(|([q, keys, values], out)| DecodeUnit {
                    q,
                    new: 1,
                    window: None,
                    sinks: &[],
                    segments: vec![Segment { keys, values }],
                    out,
                })
                .collect();
            decode_attention(&mut units, d, SCALE, None);
            outs.swap_remove(0)
        };
        assert_eq!(outputs(1), outputs(2));
    }

    #[test]
    fn a_head_that_holds_nothing_gives_zeros() {
        for level in levels() {
            assert_eq!(
                run::<f32>(level, [&[1.0; 8], &[], &[]], &[0, 0], 4, None),
                [0.0; 8]
            );
        }
    }

    /// Panics where the attention of several new tokens differs from what it is exactly.
    fn equals(
        [q, keys, values]: [&[f32]; 3],
        d: usize,
        new: usize,
        window: Option<usize>,
        sinks: &[f32],
        exact: &[f32],
    ) {
        for level in levels() {
            let mut out = vec![7.0; q.len()];
            let unit = DecodeUnit {
                q,
                new,
                window,
                sinks,
                segments: vec![Segment { keys, values }],
                out: &mut out,
            };
            attend(level, &mut [unit], d, LogitScale::new(SCALE, None));
            close(&out, exact, 2e-6);
        }
    }

    #[test]
    fn a_window_shows_each_new_token_its_last_ones() {
        let (rows, d) = (2, 32);
        for (tokens, new, window) in [(5, 1, 3), (700, 1, 600), (700, 7, 9), (700, 100, 513)] {
            let [q, k, v] =
                [(rows * new, 1), (tokens, 2), (tokens, 3)].map(|(n, s)| random::<f32>(n * d, s));
            let exact: Vec<f32> = (0..rows * new)
                .flat_map(|row| {
                    let end = tokens - new + row % new + 1;
                    let seen = end.saturating_sub(window) * d..end * d;
                    attention(
                        &q[row * d..][..d],
                        &k[seen.clone()],
                        &v[seen],
                        d,
                        SCALE,
                        None,
                    )
                })
                .collect();
            equals([&q, &k, &v], d, new, Some(window), &[], &exact);
        }
    }

    #[test]
    fn a_sink_counts_as_a_key_of_no_value() {
        let (heads, new, tokens, d) = (2, 3, 700, 32);
        let [q, k, v] =
            [(heads * new, 1), (tokens, 2), (tokens, 3)].map(|(n, s)| random::<f32>(n * d, s));
        let sinks = [0.7, -1.3];
        let exact: Vec<f32> = (0..heads * new)
            .flat_map(|row| {
                let end = (tokens - new + row % new + 1) * d;
                let q = &q[row * d..][..d];
                with_sink(q, &k[..end], &v[..end], SCALE, None, sinks[row / new])
            })
            .collect();
        equals([&q, &k, &v], d, new, None, &sinks, &exact);
    }

    proptest! {
        #[test]
        fn segments_do_not_matter(mut cuts in prop::collection::vec(0..6000usize, 0..6)) {
            // Long enough to be split among the cores.
            let (rows, tokens, d) = (2, 6000, 32);
            let [q, k, v] = [(rows, 1), (tokens, 2), (tokens, 3)].map(|(n, seed)| random::<f32>(n * d, seed));
            cuts.extend([0, tokens]);
            cuts.sort();
            let whole = run(Arch::new(), [&q, &k, &v], &[0, tokens], d, None);
            let parts = run(Arch::new(), [&q, &k, &v], &cuts, d, None);
            for (a, b) in whole.iter().zip(parts) {
                prop_assert!((a - b).abs() < 1e-6);
            }
        }
    }
}
