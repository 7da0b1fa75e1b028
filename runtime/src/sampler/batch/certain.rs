//! Upstream's choice, from the few tokens that it can be.
//!
//! The device lists the largest logits of a row and sums the exponentials of all. Upstream's own sum is of 32-bit floats
//! in the vocabulary's order, so that it differs a little, and of equal probabilities at a limit its unstable sort keeps
//! some. So every sum and every choice among equals that is possible is tried; the answer counts if all agree on it.

use super::Rule;

/// What the device found in a row.
#[derive(Clone, Debug)]
pub struct Top {
    /// The sum of `exp(x - largest x)` over the vocabulary, `x` being logits over the temperature.
    pub total: f64,
    /// Upstream's sum is within this part of `total`.
    pub slack: f64,
    /// Tokens with logits, in no order: all whose `x` is less than `reach` below the largest, and maybe more.
    pub logits: Vec<(u32, f32)>,
    /// See `logits`.
    pub reach: f32,
}

struct Candidate {
    token: u32,
    /// `exp(x - largest x)`, as upstream computes it.
    weight: f64,
    below: f32,
}

/// Sums that are tried; more mean that the row is too even to tell.
const SUMS: usize = 8;
/// Weights this close may have equal probabilities.
const CLOSE: f64 = 5e-7;
/// Relative error of one operation with 32-bit floats, doubled.
const ROUNDING: f64 = 1.2e-7;

/// The token that upstream draws with `draw` from [0, 1), and its probability (up to rounding); `None` if that is not
/// certain.
pub fn certain(rule: &Rule, top: &Top, vocabulary: usize, draw: f32) -> Option<(u32, f32)> {
    let list = candidates(rule, top)?;
    let (k, p) = (rule.keeps_k(vocabulary), rule.keeps_p());
    let limit = k.unwrap_or(vocabulary);
    if limit == 1 {
        // Of equal ones upstream takes the first; nearly equal ones may have equal probabilities.
        let equal = list.iter().take_while(|c| c.weight == 1.0).count();
        let close = list.iter().take_while(|c| c.weight > 1.0 - CLOSE).count();
        let first = list[..equal].iter().map(|c| c.token).min()?;
        return (close == equal).then_some((first, (1.0 / top.total) as f32));
    }
    // How many are kept if the sum over the vocabulary is `total`.
    let count = |total: f64| {
        let wanted = p.map_or(f64::INFINITY, |p| f64::from(p) * total);
        let (mut sum, mut count) = (0.0, 0);
        while count < limit && sum < wanted {
            sum += list.get(count)?.weight;
            count += 1;
        }
        Some(count)
    };
    let slack = top.slack + (list.len() + 4) as f64 * ROUNDING;
    let fewest = count(top.total * (1.0 - slack))?;
    let most = count(top.total * (1.0 + slack))?;
    let mut agreed = None;
    if most - fewest >= SUMS {
        return None;
    }
    for count in fewest..=most {
        let count = match rule.keeps_min_p().map(f64::from) {
            None => count,
            Some(least) => {
                if list
                    .iter()
                    .any(|c| (c.weight - least).abs() <= least * CLOSE)
                {
                    return None;
                }
                count.min(list.iter().take_while(|c| c.weight > least).count())
            }
        };
        let taken = of_first(&list, count, top.reach, f64::from(draw))?;
        if *agreed.get_or_insert(taken) != taken {
            return None;
        }
    }
    let taken = agreed?;
    let weight = list.iter().find(|c| c.token == taken)?.weight;
    Some((taken, (weight / top.total) as f32))
}

/// The candidates, the most probable first.
fn candidates(rule: &Rule, top: &Top) -> Option<Vec<Candidate>> {
    // As candle divides by a number.
    let scale = (1.0 / rule.temperature?) as f32;
    let largest = top.logits.iter().map(|(_, logit)| logit * scale);
    let largest = largest.fold(f32::NEG_INFINITY, f32::max);
    if !largest.is_finite() || !top.total.is_finite() {
        return None;
    }
    let mut list: Vec<Candidate> = top
        .logits
        .iter()
        .map(|&(token, logit)| {
            let x = logit * scale - largest;
            Candidate {
                token,
                weight: f64::from(x.exp()),
                below: -x,
            }
        })
        .collect();
    list.sort_unstable_by(|a, b| b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token)));
    Some(list)
}

/// The token drawn from the first `count` of the list, whichever of equal ones these are.
fn of_first(list: &[Candidate], count: usize, reach: f32, draw: f64) -> Option<u32> {
    let last = list.get(count.checked_sub(1)?)?;
    // Equal ones might be missing in the list.
    if last.below >= reach {
        return None;
    }
    let sure = list
        .iter()
        .take_while(|c| c.weight > last.weight * (1.0 + CLOSE))
        .count();
    let close = list
        .iter()
        .take_while(|c| c.weight >= last.weight * (1.0 - CLOSE))
        .count();
    let (equal, kept) = (close - sure, count - sure);
    let sure = if kept == equal { close } else { sure };
    let (equal, kept) = (close - sure, count - sure);

    let mut in_order: Vec<(u32, f64, bool)> = list[..close]
        .iter()
        .enumerate()
        .map(|(at, c)| (c.token, c.weight, at < sure))
        .collect();
    in_order.sort_unstable_by_key(|(token, ..)| *token);
    let total: f64 = list[..count].iter().map(|c| c.weight).sum();
    let at = draw * total;
    let margin = total * (count + 16) as f64 * 2.0 * ROUNDING;
    let (mut before, mut equal_before) = (0.0, 0);
    for (token, weight, sure) in in_order {
        if !sure {
            equal_before += 1;
            continue;
        }
        // So many of the equal ones before this token are kept at least and at most.
        let least = kept.saturating_sub(equal - equal_before) as f64;
        let most = kept.min(equal_before) as f64;
        let starts = before + most * last.weight + margin;
        let ends = before + least * last.weight + weight - margin;
        if (starts..ends).contains(&at) {
            return Some(token);
        }
        before += weight;
    }
    None
}
