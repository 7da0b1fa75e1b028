//! A hooked model's prompts run before generated tokens, as many in one pass as its bound allows.

use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{Compression, HeadKv};
use headkv_tests::{Watch, Watched};
use mistralrs_core::attention_hook::{AttendCx, HookedSequence};
use std::sync::{Arc, Mutex};

/// Notes the first layer's calls: how many sequences, and whether with prompts.
#[derive(Default)]
struct Calls(Mutex<Vec<(usize, bool)>>);

impl Watch for Calls {
    fn attend(&self, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> candle_core::Result<()> {
        if cx.layer == 0 {
            let prompt = seqs.iter().all(|seq| seq.seen(0) == 0);
            self.0.lock().unwrap().push((seqs.len(), prompt));
        }
        Ok(())
    }
}

#[test]
fn prompts_come_first_and_no_pass_holds_too_many() {
    let witness = Arc::new(Calls::default());
    let inner = HeadKv::new(Compression::new("snapkv", 32)).unwrap();
    let options = LoadOptions {
        ignore_end: true,
        ..LoadOptions::new(headkv_tests::tiny())
    };
    let engine = Engine::load(
        options,
        Attention::Hook(Watched::new(inner, witness.clone())),
    )
    .unwrap();
    // Two of them are within the bound of 16,384 tokens, three are not, also where the first one runs before the others came.
    let mut prompt = engine
        .encode(&headkv_haystack::text::generate(3, 40_000))
        .unwrap();
    prompt.truncate(6000);
    assert_eq!(prompt.len(), 6000);
    witness.0.lock().unwrap().clear();
    let answers = engine.generate(&vec![Request::new(prompt, 4); 4]).unwrap();
    assert!(
        answers
            .iter()
            .all(|answer| answer.tokens == answers[0].tokens)
    );

    let calls = witness.0.lock().unwrap();
    let (prompts, steps): (Vec<_>, Vec<_>) = calls.iter().partition(|(_, prompt)| *prompt);
    let sizes = |calls: &[&(usize, bool)]| calls.iter().map(|(size, _)| *size).collect::<Vec<_>>();
    let prompts = sizes(&prompts);
    assert_eq!(prompts.iter().sum::<usize>(), 4, "{calls:?}");
    assert!(prompts.iter().all(|&size| size <= 2), "{calls:?}");
    // All four then decode together, from the first step on.
    assert_eq!(sizes(&steps), [4; 3], "{calls:?}");
    assert!(calls.is_sorted_by_key(|(_, prompt)| !prompt), "{calls:?}");
}
