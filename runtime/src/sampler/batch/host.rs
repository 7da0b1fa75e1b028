//! One row of logits on the host.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, DType, Error, Result, Storage, Tensor};
use rand::distr::{weighted::WeightedIndex, Distribution};
use rand_isaac::Isaac64Rng;

use super::{token, Rule};
use crate::sampler::{argmax_f32, Logprobs, Sampler};

/// Draws from the logits `(vocabulary)` what upstream's sampler would, without its sort of the vocabulary and its copies.
pub(crate) fn draw(logits: &Tensor, rule: &Rule, rng: &Arc<Mutex<Isaac64Rng>>) -> Result<Logprobs> {
    let logits = logits.to_dtype(DType::F32)?;
    let Some(temperature) = rule.temperature else {
        return with_slice(&logits, |logits| {
            let best = last_largest(logits);
            Ok(token(best, logits[best as usize]))
        });
    };
    // Upstream's own operations: the probabilities are the same to the last bit.
    let probabilities = candle_nn::ops::softmax_last_dim(&(&logits / temperature)?)?;
    with_slice(&probabilities, |probabilities| {
        let Some(kept) = kept(probabilities, rule) else {
            return upstream(probabilities, rule, rng);
        };
        // Weights of zero would not change the sums that the drawing compares.
        let Ok(weights) = WeightedIndex::new(kept.iter().map(|(_, p)| *p)) else {
            return upstream(probabilities, rule, rng);
        };
        let mut rng = rng.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, probability) = kept[weights.sample(&mut *rng)];
        Ok(token(taken, probability))
    })
}

fn with_slice<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.flatten_all()?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) if to > from => {
            f(&values[from..to])
        }
        _ => Err(Error::msg("batch sampling: the logits are not on the host")),
    }
}

/// Upstream's own way from the probabilities on.
fn upstream(probabilities: &[f32], rule: &Rule, rng: &Arc<Mutex<Isaac64Rng>>) -> Result<Logprobs> {
    let (top_p, min_p) = (f64::from(rule.top_p), f64::from(rule.min_p));
    let sampler = Sampler::new(
        rule.temperature,
        0,
        None,
        None,
        None,
        None,
        None,
        rule.top_k,
        top_p,
        min_p,
        Vec::new(),
    )
    .map_err(Error::msg)?;
    let mut probabilities = probabilities.to_vec();
    sampler.sample_top_kp_min_p(
        &mut probabilities,
        rule.top_k,
        rule.top_p,
        rule.min_p,
        false,
        rng.clone(),
    )
}

/// What upstream's `argmax_f32` finds: the last of the largest.
fn last_largest(values: &[f32]) -> u32 {
    const LANES: usize = 16;
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut unordered = false;
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (largest, &value) in largest.iter_mut().zip(chunk) {
            *largest = if value > *largest { value } else { *largest };
            unordered |= value.is_nan();
        }
    }
    unordered |= rest.iter().any(|value| value.is_nan());
    if unordered {
        return argmax_f32(values);
    }
    let largest = largest.iter().chain(rest).copied();
    let largest = largest.fold(f32::NEG_INFINITY, f32::max);
    let at = values.iter().rposition(|value| *value == largest);
    at.unwrap_or(0) as u32
}

/// Tokens that can be drawn, with their probabilities, by token; `None` if only upstream's sort can tell which these are.
fn kept(probabilities: &[f32], rule: &Rule) -> Option<Vec<(u32, f32)>> {
    let n = probabilities.len();
    let (k, p) = (rule.keeps_k(n), rule.keeps_p());
    if k.is_none() && p.is_none() {
        let all = (0u32..).zip(probabilities.iter().copied());
        return Some(all.filter(|(_, p)| *p != 0.0).collect());
    }
    let k = k.unwrap_or(n);
    // Whatever is rarer cannot be among the `k` largest, or is not needed to reach `p`.
    let by_k = (k < n).then(|| k_th_of_maxima(probabilities, k)).flatten();
    let by_p = p.map(|p| (1.0 - p) / n as f32 / 2.0);
    let least = by_k
        .into_iter()
        .chain(by_p)
        .fold(f32::NEG_INFINITY, f32::max);
    let mut sorted: Vec<(u32, f32)> = Vec::new();
    for (block, values) in probabilities.chunks(BLOCK).enumerate() {
        // Most blocks hold none.
        if values.iter().fold(false, |any, v| any | (*v >= least)) {
            let tokens = (block * BLOCK) as u32..;
            sorted.extend(
                tokens
                    .zip(values.iter().copied())
                    .filter(|(_, v)| *v >= least),
            );
        }
    }
    sorted.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));

    // Upstream's loop over the sorted probabilities, with the same sums.
    let mut sum = 0f32;
    let mut count = 0;
    let wanted = p.unwrap_or(f32::INFINITY);
    while count < k && sum < wanted {
        // The list ends before the limit is met.
        let (_, probability) = *sorted.get(count)?;
        sum += probability;
        count += 1;
    }
    // Equal ones on both sides of the limit: of one, upstream takes the first; of more, its sort decides.
    let last = sorted.get(count.checked_sub(1)?)?.1;
    if sorted.get(count).is_some_and(|next| next.1 == last) && k != 1 {
        return None;
    }
    sorted.truncate(count);
    if let Some(min_p) = rule.keeps_min_p() {
        let least = sorted.first()?.1 * min_p;
        sorted.retain(|(_, probability)| !(least >= *probability));
    }
    sorted.sort_unstable_by_key(|(token, _)| *token);
    Some(sorted)
}

/// Elements that are looked at together.
const BLOCK: usize = 64;

/// A value that at least `k` elements reach, if blocks are enough: the `k`-th largest of the blocks' maxima.
fn k_th_of_maxima(values: &[f32], k: usize) -> Option<f32> {
    let block = |block: &[f32]| block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut maxima: Vec<f32> = values.chunks(BLOCK).map(block).collect();
    if k > maxima.len() {
        return None;
    }
    let (_, k_th, _) = maxima.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    Some(*k_th)
}
