//! What holds for every method: budgets are spent exactly, the window stays, and more capacity keeps more.

use headkv_plugin::{
    Compression, HeadScores,
    config::{Granularity, Pooling, Reduce},
    methods::{self, Budget, Compressor, ModelShape},
    selection::{self, Scores},
};
use proptest::prelude::*;
use std::convert::Infallible;

const MODEL: ModelShape = ModelShape {
    layers: 3,
    heads: 4,
    kv_heads: 2,
    head_dim: 8,
};

/// Scores that hardly tie, from a seed.
fn values(count: usize, seed: u64) -> Vec<f32> {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|_| rng.random_range(0.0f32..1.0).powi(4))
        .collect()
}

fn head_scores(seed: u64) -> HeadScores {
    let values = values(12, seed).into_iter().map(f64::from).collect();
    HeadScores::new(3, 4, values).unwrap()
}

fn config(method: &str, capacity: usize, granularity: Granularity) -> Compression {
    Compression {
        granularity,
        sinks: 1,
        ..Compression::new(method, capacity)
    }
}

/// Kept positions of all layers, `layers x stored heads`.
fn kept(
    config: &Compression,
    prompt: usize,
    scores: &HeadScores,
    window: &[Scores],
) -> Vec<Vec<u32>> {
    let compressor = Compressor::new(config, MODEL, Some(scores)).unwrap();
    let (candidates, stored) = (
        prompt - config.window,
        MODEL.stored_heads(config.granularity),
    );
    let mut all = Vec::new();
    for (layer, window) in window.iter().enumerate() {
        let rank = || {
            Ok::<_, Infallible>(selection::rank(
                window.clone(),
                MODEL.heads / stored,
                config,
            ))
        };
        let Ok(mut layer) =
            selection::select(&compressor.budget(layer, prompt), stored, candidates, rank);
        layer
            .iter_mut()
            .for_each(|head| head.extend(candidates as u32..prompt as u32));
        all.extend(layer);
    }
    all
}

fn windows(prompt: usize, seed: u64) -> Vec<Scores> {
    (0..3)
        .map(|layer| Scores::new(prompt - 8, values(4 * (prompt - 8), seed + layer)))
        .collect()
}

proptest! {
    #[test]
    fn every_method_keeps_valid_positions_and_the_window(
        method in prop::sample::select(vec!["full", "streaming", "snapkv", "pyramidkv", "adakv", "headkv"]),
        capacity in 10..120usize,
        prompt in 9..300usize,
        seed in 0..1000u64,
        per_query_head: bool,
    ) {
        let granularity = if per_query_head { Granularity::QueryHead } else { Granularity::KvHead };
        let config = config(method, capacity, granularity);
        let (scores, windows) = (head_scores(seed), windows(prompt, seed));
        let sets = kept(&config, prompt, &scores, &windows);
        for set in &sets {
            prop_assert!(set.is_sorted_by(|a, b| a < b), "in order and unique");
            prop_assert!(set.iter().all(|&at| (at as usize) < prompt));
            prop_assert!((prompt - 8..prompt).all(|at| set.contains(&(at as u32))), "the window");
        }
        let total: usize = sets.iter().map(Vec::len).sum();
        let budget = sets.len() * capacity.min(prompt);
        match method {
            "full" => prop_assert_eq!(total, sets.len() * prompt),
            "headkv" | "snapkv" | "streaming" => prop_assert_eq!(total, budget),
            // Their own roundings, as in the original.
            "adakv" => prop_assert!(total.abs_diff(budget) <= 3 * sets.len()),
            _ => prop_assert!(total <= budget + 3 * sets.len() * capacity / 10 + sets.len() * 3),
        }
        if method != "pyramidkv" {
            let more = Compression { capacity: capacity + 1, ..config };
            for (less, more) in sets.iter().zip(kept(&more, prompt, &scores, &windows)) {
                if method == "adakv" || method == "streaming" {
                    continue;
                }
                prop_assert!(less.iter().all(|at| more.contains(at)), "more capacity keeps a superset");
            }
        }
    }

    #[test]
    fn permuted_heads_permute_the_result(seed in 0..1000u64, capacity in 10..60usize) {
        let config = config("headkv", capacity, Granularity::QueryHead);
        let (scores, windows) = (head_scores(seed), windows(200, seed));
        let turned = |rows: &[f64]| -> Vec<f64> { rows.chunks(4).flat_map(|r| [r[3], r[0], r[1], r[2]]).collect() };
        let other = HeadScores::new(3, 4, turned(scores.values())).unwrap();
        let turned_windows: Vec<Scores> = windows.iter().map(|w| {
            Scores::new(192, [3, 0, 1, 2].iter().flat_map(|&h| w.row(h).to_vec()).collect())
        }).collect();
        let (a, b) = (kept(&config, 200, &scores, &windows), kept(&config, 200, &other, &turned_windows));
        for (a, b) in a.chunks(4).zip(b.chunks(4)) {
            prop_assert_eq!(vec![&a[3], &a[0], &a[1], &a[2]], b.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn pooling_and_reduction_follow_their_definitions(
        rows in prop::collection::vec(prop::collection::vec(0.0..1.0f32, 20), 4), kernel in 0..4usize,
    ) {
        let kernel = 2 * kernel + 1;
        let scores = Scores::new(20, rows.concat());
        for pooling in [Pooling::Max, Pooling::Average] {
            let pooled = scores.clone().pooled(kernel, pooling);
            for (h, row) in rows.iter().enumerate() {
                for at in 0..20usize {
                    let near = &row[at.saturating_sub(kernel / 2)..(at + kernel / 2 + 1).min(20)];
                    let expected = match pooling {
                        Pooling::Max => near.iter().copied().fold(0.0, f32::max),
                        Pooling::Average => near.iter().sum::<f32>() / kernel as f32,
                    };
                    prop_assert!((pooled.row(h)[at] - expected).abs() < 1e-6);
                }
            }
        }
        for (how, expected) in [(Reduce::Mean, (rows[2][5] + rows[3][5]) / 2.0), (Reduce::Max, rows[2][5].max(rows[3][5]))] {
            prop_assert!((scores.clone().reduced(2, how).row(1)[5] - expected).abs() < 1e-6);
        }
    }
}

#[test]
fn methods_are_found_by_their_names() {
    for (alias, name) in [
        ("FullKV", "full"),
        ("StreamingLLM", "streaming"),
        ("SNAPKV", "snapkv"),
        ("AdativeKV", "adakv"),
        ("ReasonKV", "headkv"),
    ] {
        assert_eq!(methods::find(alias).unwrap().name, name);
    }
    let message = methods::find("snapkb").err().unwrap().to_string();
    assert!(
        message.contains("snapkb") && message.contains("pyramidkv"),
        "{message}"
    );
    let no_scores = Compressor::new(&Compression::default(), MODEL, None)
        .err()
        .unwrap()
        .to_string();
    assert!(no_scores.contains("needs head scores"), "{no_scores}");
}

#[test]
fn a_prompt_within_the_capacity_is_kept_whole() {
    let compressor =
        Compressor::new(&config("snapkv", 64, Granularity::KvHead), MODEL, None).unwrap();
    assert_eq!(compressor.budget(0, 64), Budget::All);
    assert_eq!(compressor.budget(0, 65), Budget::PerHead(vec![56; 2]));
}
