//! Attention of generated tokens over ragged caches: every head has kept a different number of keys.

use super::{Element, simd, softmax::State};
use crate::cache::Segment;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Tokens per piece of work: long heads are split so that cores share them.
const PIECE: usize = 512;
/// Tokens whose logits are formed at once.
const KEYS: usize = 64;
/// Query rows x tokens below which one core is faster than waking the others.
const PARALLEL: usize = 4096;

/// One stored head of one sequence, and the query heads that read it.
pub struct DecodeUnit<'a, T> {
    /// Queries, `(rows, head_dim)`.
    pub q: &'a [T],
    /// What the head holds.
    pub segments: Vec<Segment<'a, T>>,
    /// The output, `(rows, head_dim)`; zero where nothing is held.
    pub out: &'a mut [T],
}

/// Attention of each unit's queries to everything that its head holds.
pub fn decode_attention<T: Element>(
    units: &mut [DecodeUnit<'_, T>],
    head_dim: usize,
    scale: f32,
    softcap: Option<f32>,
) {
    let arch = Arch::new();
    let scaled = |unit: &DecodeUnit<'_, T>| {
        let mut q = T::widen(unit.q, &mut Vec::new()).to_vec();
        q.iter_mut().for_each(|x| *x *= scale);
        q
    };
    let queries: Vec<Vec<f32>> = units.iter().map(scaled).collect();
    let mut states: Vec<State> = queries
        .iter()
        .map(|q| State::empty(q.len() / head_dim, head_dim))
        .collect();
    let work = |unit: &DecodeUnit<'_, T>| {
        unit.segments
            .iter()
            .map(|s| s.keys.len() / head_dim)
            .sum::<usize>()
    };
    let work: usize = units
        .iter()
        .zip(&states)
        .map(|(unit, state)| work(unit) * state.sum.len())
        .sum();

    if work < PARALLEL {
        for ((unit, q), state) in units.iter().zip(&queries).zip(&mut states) {
            for segment in &unit.segments {
                arch.dispatch(Piece {
                    q,
                    segment: *segment,
                    softcap,
                    state,
                });
            }
        }
    } else {
        let pieces: Vec<(usize, Segment<'_, T>)> = units
            .iter()
            .enumerate()
            .flat_map(|(i, unit)| {
                unit.segments
                    .iter()
                    .flat_map(|s| s.split(PIECE * head_dim))
                    .map(move |s| (i, s))
            })
            .collect();
        let partial = |&(unit, segment): &(usize, Segment<'_, T>)| {
            let q: &[f32] = &queries[unit];
            let mut state = State::empty(q.len() / head_dim, head_dim);
            arch.dispatch(Piece {
                q,
                segment,
                softcap,
                state: &mut state,
            });
            state
        };
        let partials: Vec<State> = pieces.par_iter().map(partial).collect();
        for ((unit, _), partial) in pieces.iter().zip(&partials) {
            states[*unit].merge(partial);
        }
    }
    for (unit, state) in units.iter_mut().zip(&states) {
        for (row, out) in unit.out.chunks_mut(head_dim).enumerate() {
            let (factor, output) = state.finish(row);
            out.iter_mut()
                .zip(output)
                .for_each(|(to, x)| *to = T::narrow(x * factor));
        }
    }
}

/// Attention of one unit's scaled queries to consecutive keys, added to a state.
struct Piece<'a, T> {
    q: &'a [f32],
    segment: Segment<'a, T>,
    softcap: Option<f32>,
    state: &'a mut State,
}

impl<T: Element> WithSimd for Piece<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            q,
            segment,
            softcap,
            state,
        } = self;
        let d = q.len() / state.sum.len();
        let (mut key_buffer, mut value_buffer, mut logits) = (Vec::new(), Vec::new(), [0.0; KEYS]);
        for part in segment.split(KEYS * d) {
            let keys = T::widen(part.keys, &mut key_buffer);
            let values = T::widen(part.values, &mut value_buffer);
            let logits = &mut logits[..keys.len() / d];
            for (row, q) in q.chunks(d).enumerate() {
                for (logit, key) in logits.iter_mut().zip(keys.chunks(d)) {
                    *logit = simd::dot(simd, q, key);
                }
                simd::soft_cap(logits, softcap);
                let most = simd::largest(simd, logits).max(state.largest[row]);
                let mut shrink = (state.largest[row] - most).exp();
                state.largest[row] = most;
                state.sum[row] = state.sum[row] * shrink + simd::exponentials(simd, logits, most);
                let output = &mut state.output[row * d..][..d];
                for (weight, value) in logits.iter().zip(values.chunks(d)) {
                    simd::scale_add(simd, output, shrink, value, *weight);
                    shrink = 1.0;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::reference::{attention, close, random};
    use half::{bf16, f16};
    use proptest::prelude::*;

    fn run<T: Element>(
        q: &[T],
        keys: &[T],
        values: &[T],
        cuts: &[usize],
        d: usize,
        softcap: Option<f32>,
    ) -> Vec<T> {
        let mut out = vec![T::narrow(7.0); q.len()];
        let bounds = cuts.windows(2).map(|w| w[0] * d..w[1] * d);
        let segments = bounds
            .map(|r| Segment {
                keys: &keys[r.clone()],
                values: &values[r],
            })
            .collect();
        decode_attention(
            &mut [DecodeUnit {
                q,
                segments,
                out: &mut out,
            }],
            d,
            0.3,
            softcap,
        );
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
        let out = run(&q, &k, &v, &[0, tokens], d, softcap);
        close(&out, &attention(&q, &k, &v, d, 0.3, softcap), tolerance);
    }

    #[test]
    fn equals_the_definition() {
        for tokens in [1, 7, 63, 64, 65, 257, 3000] {
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
    fn a_head_that_holds_nothing_gives_zeros() {
        assert_eq!(run::<f32>(&[1.0; 8], &[], &[], &[0, 0], 4, None), [0.0; 8]);
    }

    proptest! {
        #[test]
        fn segments_do_not_matter(mut cuts in prop::collection::vec(0..2000usize, 0..6)) {
            let (q, k, v) = (random::<f32>(64, 1), random::<f32>(2000 * 32, 2), random::<f32>(2000 * 32, 3));
            cuts.extend([0, 2000]);
            cuts.sort();
            let whole = run(&q, &k, &v, &[0, 2000], 32, None);
            let parts = run(&q, &k, &v, &cuts, 32, None);
            for (a, b) in whole.iter().zip(parts) {
                prop_assert!((a - b).abs() < 1e-6);
            }
        }
    }
}
