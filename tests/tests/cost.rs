//! What compression costs: selection is a small part of the prompt pass, and appending a token costs the same whatever
//! is kept.

use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{
    Compression, HeadKv,
    cache::{KvShape, RaggedCache},
};
use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Measurements take turns: the tests of a file run at the same time.
static TURN: Mutex<()> = Mutex::new(());

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn selection_takes_at_most_a_twentieth_of_the_prompt_pass() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for method in ["snapkv", "pyramidkv", "adakv", "headkv"] {
        let scores = headkv_tests::root().join("head_scores/tiny_retrieval.json");
        let hook = HeadKv::new(Compression {
            scores: Some(scores),
            ..Compression::new(method, 64)
        })
        .unwrap();
        let engine = Engine::load(
            LoadOptions::new(headkv_tests::tiny()),
            Attention::Hook(hook.clone()),
        )
        .unwrap();
        let prompt: Vec<u32> = (0..4_000).map(|i| 300 + i * 7 % 3000).collect();
        let parts: Vec<f64> = (0..3)
            .map(|_| {
                let answer = engine
                    .generate(&[Request::new(prompt.clone(), 1)])
                    .unwrap()
                    .remove(0);
                hook.usage().last().unwrap().selection_seconds / answer.prompt_seconds
            })
            .collect();
        let part = median(parts.clone());
        println!("{method}: {:.1} % of the prompt pass", part * 100.0);
        assert!(part <= 0.05, "{method}: {parts:?}");
    }
}

#[test]
fn appending_a_token_does_not_depend_on_what_is_kept() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    const TOKENS: usize = 128;
    let (kv_heads, head_dim) = (8, 128);
    let cache = |tokens: usize| {
        let all = vec![0.5f32; kv_heads * tokens * head_dim];
        let shape = KvShape {
            kv_heads,
            tokens,
            head_dim,
        };
        RaggedCache::keep_all(&all, &all, shape)
    };
    let new = vec![1.0f32; kv_heads * head_dim];
    let seconds = |cache: &mut RaggedCache<f32>| {
        let start = Instant::now();
        for _ in 0..TOKENS {
            cache.append(&new, &new);
        }
        start.elapsed().as_secs_f64() / TOKENS as f64
    };
    // In turns, so that what else the machine does meets both alike.
    let (mut small, mut large) = (cache(64), cache(4096));
    let rounds = (0..41).map(|_| (seconds(&mut small), seconds(&mut large)));
    let (few, many): (Vec<f64>, Vec<f64>) = rounds.unzip();
    let (few, many) = (median(few), median(many));
    println!(
        "{:.2} us a token at 64 kept per head, {:.2} us at 4,096",
        few * 1e6,
        many * 1e6
    );
    // Moving what is kept, as the original does on every token, would take about 64 times as long.
    assert!(many <= 3.0 * few, "{few} s at 64, {many} s at 4,096");
}
