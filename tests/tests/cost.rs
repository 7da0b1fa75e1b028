//! What compression costs: selection is a small part of the prompt pass.

use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{Compression, HeadKv};

#[test]
fn selection_takes_at_most_a_twentieth_of_the_prompt_pass() {
    for method in ["snapkv", "pyramidkv", "adakv"] {
        let hook = HeadKv::new(Compression::new(method, 64)).unwrap();
        let engine = Engine::load(
            LoadOptions::new(headkv_tests::tiny()),
            Attention::Hook(hook.clone()),
        )
        .unwrap();
        let prompt: Vec<u32> = (0..4_000).map(|i| 300 + i * 7 % 3000).collect();
        let mut parts: Vec<f64> = (0..3)
            .map(|_| {
                let answer = engine
                    .generate(&[Request::new(prompt.clone(), 1)])
                    .unwrap()
                    .remove(0);
                hook.usage().last().unwrap().selection_seconds / answer.prompt_seconds
            })
            .collect();
        parts.sort_by(f64::total_cmp);
        println!("{method}: {:.1} % of the prompt pass", parts[1] * 100.0);
        assert!(parts[1] <= 0.05, "{method}: {parts:?}");
    }
}
