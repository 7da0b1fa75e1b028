//! Plain sequences get the token that upstream's sampler would have drawn with the same random number, ties included,
//! without its sort of the vocabulary; and from the few candidates of a GPU, wherever the answer is certain.

use candle_core::{Device, Tensor};
use mistralrs_core::{
    CustomLogitsProcessor,
    batch_sampling::{Isaac64Rng, Rule, Sampler, Top, certain},
};
use rand::{Rng, SeedableRng, distr::Distribution, distr::Uniform};
use std::sync::{Arc, Mutex};

fn sampler(rule: &Rule) -> Sampler {
    let (top_p, min_p) = (f64::from(rule.top_p), f64::from(rule.min_p));
    Sampler::new(
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
    .unwrap()
}

/// The token drawn; log-probabilities are asked for where upstream's own code shall draw.
fn draw(rule: &Rule, logits: &[f32], seed: u64, upstream: bool) -> Result<u32, String> {
    let rng = Arc::new(Mutex::new(Isaac64Rng::seed_from_u64(seed)));
    let logits = Tensor::new(logits, &Device::Cpu).unwrap();
    sampler(rule)
        .sample(logits, &[0], upstream, rng, false, true)
        .map(|sampled| sampled.token)
        .map_err(|e| e.to_string())
}

/// Every kind of rule, with and without each limit.
fn rule(rng: &mut impl Rng) -> Rule {
    let one =
        |values: &[f64], rng: &mut dyn rand::RngCore| values[rng.random_range(0..values.len())];
    Rule {
        temperature: match one(&[0.0, 0.3, 0.7, 1.0, 1.7], rng) {
            0.0 => None,
            temperature => Some(temperature),
        },
        top_k: [-1, -1, 1, 2, 20, 50, 1000, 100_000][rng.random_range(0..8)],
        top_p: one(&[1.0, 0.0, 0.3, 0.9, 0.95, 0.999], rng) as f32,
        min_p: one(&[0.0, 0.0, 0.02, 0.3], rng) as f32,
    }
}

/// Logits as models give them: peaked or even, in bf16 so that some are equal, or in f32.
fn logits(vocabulary: usize, rng: &mut impl Rng) -> Vec<f32> {
    let spread = [0.3f32, 2.0, 6.0, 12.0][rng.random_range(0..4)];
    let rounded = rng.random_bool(0.8);
    (0..vocabulary)
        .map(|_| {
            // A sum of uniform numbers is close enough to a normal one.
            let sum: f32 = (0..6).map(|_| rng.random_range(-1.0..1.0f32)).sum();
            let x = spread * sum / 1.4;
            if rounded { half_precision(x) } else { x }
        })
        .collect()
}

/// The nearest number with bf16's eight bits.
fn half_precision(x: f32) -> f32 {
    f32::from_bits(x.to_bits().wrapping_add(0x8000) & 0xffff_0000)
}

#[test]
fn ten_thousand_rows_draw_as_upstream_does() {
    let mut rng = Isaac64Rng::seed_from_u64(1);
    for row in 0..10_000 {
        let vocabulary = match row % 100 {
            0 => 128_256,
            n if n % 2 == 0 => 500,
            _ => 4_096,
        };
        let (rule, logits) = (rule(&mut rng), logits(vocabulary, &mut rng));
        assert_eq!(
            draw(&rule, &logits, row, false),
            draw(&rule, &logits, row, true),
            "row {row}: {rule:?}"
        );
    }
}

#[test]
fn equal_logits_draw_as_upstream_does() {
    let mut rng = Isaac64Rng::seed_from_u64(2);
    for row in 0..2_000 {
        let rule = rule(&mut rng);
        let logits: Vec<f32> = (0..3_000).map(|_| rng.random_range(-2..3) as f32).collect();
        assert_eq!(
            draw(&rule, &logits, row, false),
            draw(&rule, &logits, row, true),
            "row {row}: {rule:?}"
        );
    }
}

#[test]
fn logits_that_are_no_numbers_end_as_upstream_does() {
    let infinite = f32::NEG_INFINITY;
    for rule in [
        Rule {
            temperature: None,
            top_k: -1,
            top_p: 1.0,
            min_p: 0.0,
        },
        Rule {
            temperature: Some(1.0),
            top_k: -1,
            top_p: 1.0,
            min_p: 0.0,
        },
        Rule {
            temperature: Some(1.0),
            top_k: 2,
            top_p: 0.9,
            min_p: 0.1,
        },
    ] {
        for logits in [
            [1.0, f32::NAN, 3.0, 2.0, 3.0],
            [1.0, 2.0, 3.0, 2.0, f32::NAN],
            [infinite; 5],
            [infinite, infinite, 1.0, infinite, infinite],
            [0.0, -0.0, -1.0, -0.0, -1.0],
            [1.0, f32::INFINITY, 3.0, 2.0, 3.0],
        ] {
            assert_eq!(
                draw(&rule, &logits, 1, false),
                draw(&rule, &logits, 1, true),
                "{rule:?} {logits:?}"
            );
        }
    }
}

/// What runtime/src/cuda/batch_sampling.cu finds in a row; `None` if it lists too many tokens.
fn top(rule: &Rule, logits: &[f32]) -> Option<Top> {
    let n = logits.len();
    let scale = (1.0 / rule.temperature?) as f32;
    let p = if rule.top_p > 0.0 && rule.top_p < 1.0 {
        rule.top_p
    } else {
        f32::INFINITY
    };
    let k = if rule.top_k > 0 && (rule.top_k as usize) < n {
        rule.top_k as usize
    } else {
        usize::MAX
    };
    let most = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b)) * scale;
    let below = |x: &f32| most - x * scale;
    let total: f64 = logits.iter().map(|x| f64::from((-below(x)).exp())).sum();
    let slack: f64 = logits
        .iter()
        .map(|x| f64::from((-below(x)).exp()).min(2f64.powi(-24)))
        .sum();
    let mut bins = [0usize; 2048];
    for x in logits {
        if let Some(bin) = bins.get_mut((below(x) * 64.0) as usize) {
            *bin += 1;
        }
    }
    let (mut bin, mut mass, mut count) = (0, 0f64, 0);
    while bin < 2048 && mass < 1.002 * f64::from(p) * total && count < k {
        mass += bins[bin] as f64 * (-(bin as f64 + 1.0) / 64.0).exp();
        count += bins[bin];
        bin += 1;
    }
    let end = (bin + 1).min(2048);
    let listed = (0u32..)
        .zip(logits)
        .filter(|(_, x)| ((below(x) * 64.0) as usize) < end);
    let logits: Vec<(u32, f32)> = listed.map(|(token, x)| (token, *x)).collect();
    (logits.len() <= 512).then_some(Top {
        total,
        slack: 1.01 * slack + 1e-5,
        logits,
        reach: end as f32 / 64.0 - 1e-3,
    })
}

#[test]
fn a_few_candidates_are_enough_where_the_draw_is_certain() {
    let mut rng = Isaac64Rng::seed_from_u64(3);
    let (mut listed, mut decided) = (0, 0);
    for row in 0..10_000 {
        let rule = rule(&mut rng);
        let logits = logits(if row % 20 == 0 { 128_256 } else { 4_096 }, &mut rng);
        let Some(top) = top(&rule, &logits) else {
            continue;
        };
        listed += 1;
        let unit = Uniform::new(0f32, 1f32).unwrap();
        let draw_of = unit.sample(&mut Isaac64Rng::seed_from_u64(row));
        let Some((token, _)) = certain(&rule, &top, logits.len(), draw_of) else {
            continue;
        };
        decided += 1;
        assert_eq!(
            Ok(token),
            draw(&rule, &logits, row, true),
            "row {row}: {rule:?}"
        );
    }
    println!("{listed} rows listed, {decided} decided");
    assert!(
        listed > 3_000 && decided * 10 > listed * 9,
        "{listed} listed, {decided} decided"
    );
}

struct Watcher(Mutex<Vec<u32>>);

impl CustomLogitsProcessor for Watcher {
    fn apply(&self, _: &Tensor, _: &[u32]) -> candle_core::Result<Tensor> {
        candle_core::bail!("a watcher gets no logits")
    }
    fn wants_logits(&self) -> bool {
        false
    }
    fn taken(&self, token: u32) {
        self.0.lock().unwrap().push(token);
    }
}

#[test]
fn a_processor_that_only_watches_gets_no_logits() {
    let watcher = Arc::new(Watcher(Mutex::default()));
    let sampler = Sampler::new(
        None,
        0,
        None,
        None,
        None,
        None,
        None,
        -1,
        1.0,
        0.0,
        vec![watcher],
    )
    .unwrap();
    let rng = Arc::new(Mutex::new(Isaac64Rng::seed_from_u64(1)));
    let logits = Tensor::new(&[1f32, 3.0, 3.0, 2.0], &Device::Cpu).unwrap();
    let sampled = sampler
        .sample(logits, &[0], false, rng, false, false)
        .unwrap();
    assert_eq!(
        sampled.token, 2,
        "the last of equal logits, as upstream takes"
    );
}
