//! With nothing dropped, the hooked model says what the unhooked one says: alone, and decoding in one unequal batch.

use headkv_engine::{Attention, Engine, Generation, LoadOptions, Request};
use headkv_plugin::{Compression, HeadKv};
use headkv_tests::{Watch, Watched};
use mistralrs_core::attention_hook::{AttendCx, HookedSequence};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

const STEPS: usize = 64;

/// Eight prompts of different lengths; some ask for a fact, some just go on.
fn requests(engine: &Engine) -> Vec<Request> {
    let story = headkv_haystack::text::generate(7, 12_000);
    let ask =
        "Based on the content of the book, Question: The best thing to do in Oslo is: \nAnswer:";
    let fact = " The best thing to do in Oslo is read a novel by the old harbor in the evening.";
    (0..8)
        .map(|i| {
            let (head, tail) = (&story[..300 + 700 * i], &story[5_000..5_200 + 400 * i]);
            let text = if i % 2 == 0 {
                format!("{head}{fact}{tail}{ask}")
            } else {
                format!("{head}{tail}")
            };
            let mut request = Request::new(engine.encode(&text).unwrap(), STEPS);
            request.keep_logits = true;
            request
        })
        .collect()
}

/// Notes which lengths met in one call.
#[derive(Default)]
struct Lengths(Mutex<BTreeSet<Vec<usize>>>);

impl Watch for Lengths {
    fn attend(&self, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> candle_core::Result<()> {
        let seen = seqs.iter().map(|seq| seq.seen(cx.layer)).collect();
        self.0.lock().unwrap().insert(seen);
        Ok(())
    }
}

fn compare(ours: &[Generation], reference: &[Generation]) {
    assert_eq!(ours.len(), reference.len());
    for (i, (ours, reference)) in ours.iter().zip(reference).enumerate() {
        assert_eq!(ours.tokens, reference.tokens, "prompt {i}: greedy tokens");
        assert_eq!(ours.text, reference.text);
        let rows = |g: &Generation| g.logits.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(rows(ours), rows(reference), "prompt {i}: rows of logits");
        assert_eq!(ours.logits.len(), STEPS, "prompt {i}: steps");
        let pairs = ours
            .logits
            .iter()
            .flatten()
            .zip(reference.logits.iter().flatten());
        let differences = pairs.map(|(a, b)| (a - b).abs());
        // Unlike f32::max, the order of all floats does not lose a NaN.
        let worst = differences.max_by(f32::total_cmp).unwrap();
        assert!(worst <= 1e-3, "prompt {i}: logits differ by {worst}");
        println!(
            "prompt {i}: {} tokens, {} steps, logits within {worst:.1e}",
            ours.prompt_tokens,
            ours.tokens.len()
        );
    }
}

#[test]
fn full_is_upstream() {
    let options = LoadOptions {
        ignore_end: true,
        ..LoadOptions::new(headkv_tests::tiny())
    };
    let upstream = Engine::load(options.clone(), Attention::Upstream).unwrap();
    let requests = requests(&upstream);
    // One at a time: upstream's own CPU attention is wrong for batches.
    let reference: Vec<Generation> = requests
        .iter()
        .map(|r| {
            upstream
                .generate(std::slice::from_ref(r))
                .unwrap()
                .remove(0)
        })
        .collect();

    let inner = HeadKv::new(Compression::new("full", 128)).unwrap();
    let witness = Arc::new(Lengths::default());
    let hook = Watched::new(inner, witness.clone());
    let hooked = Engine::load(options, Attention::Hook(hook)).unwrap();
    let alone: Vec<Generation> = requests
        .iter()
        .map(|r| hooked.generate(std::slice::from_ref(r)).unwrap().remove(0))
        .collect();
    compare(&alone, &reference);

    witness.0.lock().unwrap().clear();
    let together = hooked.generate(&requests).unwrap();
    compare(&together, &reference);
    let lengths = witness.0.lock().unwrap();
    let most = lengths
        .iter()
        .map(|seen| seen.iter().collect::<BTreeSet<_>>().len())
        .max()
        .unwrap();
    assert!(
        most >= 2,
        "unequal sequences never met in one call: {lengths:?}"
    );
    println!("up to {most} different lengths in one call");
}
