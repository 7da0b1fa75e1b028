//! The KV bytes that are reported are the bytes that are held: a counting allocator proves it at 8,000 tokens.

use candle_core::Result;
use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{Compression, HeadKv, config::Granularity};
use headkv_tests::{Counting, Watch, Watched};
use mistralrs_core::attention_hook::{AttendCx, HookedSequence};
use std::sync::{Arc, Mutex};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Notes the live bytes at the first generated token: the prompt has run, the sequence is alive.
#[derive(Default)]
struct AfterPrompt(Mutex<Option<usize>>);

impl Watch for AfterPrompt {
    fn attend(&self, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> Result<()> {
        if seqs[0].seen(0) > 0 && cx.layer == 0 {
            self.0
                .lock()
                .unwrap()
                .get_or_insert_with(|| ALLOCATOR.live());
        }
        Ok(())
    }
}

/// Growth of live bytes since the model was loaded, by its first prompt, of 8,000 tokens; and the bytes that the hook
/// reports.
fn growth(compression: Compression) -> (usize, usize) {
    let inner = HeadKv::new(compression.clone()).unwrap();
    let watch = Arc::new(AfterPrompt::default());
    let hook = Watched::new(inner, watch.clone());
    let options = LoadOptions::new(headkv_tests::tiny());
    let engine = Engine::load(options.clone(), Attention::Hook(hook)).unwrap();
    let prompt: Vec<u32> = (0..8_000).map(|i| 300 + i * 7 % 3000).collect();
    let request = [Request::new(prompt, 2)];
    let loaded = ALLOCATOR.live();
    engine.generate(&request).unwrap();
    let after = watch.0.lock().unwrap().unwrap();
    let plain = Engine::load(options, Attention::Compressed(compression)).unwrap();
    let reported = plain.generate(&request).unwrap()[0].kept_bytes;
    // Dropped, their threads would free the models some time later, in the middle of the next measurement.
    std::mem::forget((engine, plain));
    (after.saturating_sub(loaded), reported)
}

/// At most 1.2 times what is reported, and 3 MB.
fn within(growth: usize, reported: usize) -> bool {
    growth as f64 <= 1.2 * reported as f64 + 3e6
}

#[test]
fn reported_bytes_are_held_bytes() {
    let head_bytes = |tokens: usize| tokens * 2 * 32 * size_of::<f32>();
    let scores = headkv_tests::root().join("head_scores/tiny_retrieval.json");
    let mut compressed = 0;
    for method in ["snapkv", "headkv"] {
        for (granularity, heads) in [(Granularity::KvHead, 4), (Granularity::QueryHead, 8)] {
            let (growth, reported) = growth(Compression {
                scores: Some(scores.clone().into()),
                granularity,
                ..Compression::new(method, 32)
            });
            println!("{method}@32 {granularity:?}: grew by {growth} bytes, reports {reported}");
            assert_eq!(
                reported,
                8 * heads * head_bytes(32),
                "layers x heads x 32 tokens"
            );
            assert!(
                within(growth, reported),
                "{growth} bytes for {reported} reported"
            );
            compressed = reported;
        }
    }

    let (full, all) = growth(Compression::new("full", 32));
    println!("full: grew by {full} bytes, reports {all}");
    assert_eq!(all, 8 * 4 * head_bytes(8_000));
    assert!(within(full, all), "{full} bytes for {all} reported");
    assert!(
        !within(full, compressed),
        "the test would not notice an uncompressed cache"
    );
}
