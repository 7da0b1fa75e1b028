//! A hooked model's prompts run before generated tokens, as many in one pass as its bound allows.

use candle_core::Tensor;
use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{Compression, HeadKv};
use mistralrs_core::attention_hook::{AttendCx, AttentionHook, ModelInfo, SeqInfo, SeqState};
use std::{
    any::Any,
    sync::{Arc, Mutex},
};

/// Passes everything on to HeadKV, and notes the first layer's calls: how many sequences, and whether with prompts.
struct Witness {
    inner: Arc<HeadKv>,
    calls: Mutex<Vec<(usize, bool)>>,
}

impl AttentionHook for Witness {
    fn check_model(&self, model: &ModelInfo) -> candle_core::Result<()> {
        self.inner.check_model(model)
    }
    fn new_state(
        &self,
        layer: usize,
        model: &ModelInfo,
        seq: &SeqInfo,
    ) -> candle_core::Result<Box<dyn Any + Send>> {
        self.inner.new_state(layer, model, seq)
    }
    fn attend(&self, cx: &AttendCx<'_>, states: &[SeqState]) -> candle_core::Result<Tensor> {
        if cx.layer == 0 {
            let prompt = states.iter().all(|state| state.seen() == 0);
            self.calls.lock().unwrap().push((states.len(), prompt));
        }
        self.inner.attend(cx, states)
    }
}

#[test]
fn prompts_come_first_and_no_pass_holds_too_many() {
    let witness = Arc::new(Witness {
        inner: HeadKv::new(Compression::new("snapkv", 32)).unwrap(),
        calls: Mutex::default(),
    });
    let options = LoadOptions {
        ignore_end: true,
        ..LoadOptions::new(headkv_tests::tiny())
    };
    let engine = Engine::load(options, Attention::Hook(witness.clone())).unwrap();
    // Two of them are within the bound of 16,384 tokens, three are not, also where the first one runs before the others came.
    let mut prompt = engine
        .encode(&headkv_haystack::text::generate(3, 40_000))
        .unwrap();
    prompt.truncate(6000);
    assert_eq!(prompt.len(), 6000);
    witness.calls.lock().unwrap().clear();
    let answers = engine.generate(&vec![Request::new(prompt, 4); 4]).unwrap();
    assert!(
        answers
            .iter()
            .all(|answer| answer.tokens == answers[0].tokens)
    );

    let calls = witness.calls.lock().unwrap();
    let (prompts, steps): (Vec<_>, Vec<_>) = calls.iter().partition(|(_, prompt)| *prompt);
    let sizes = |calls: &[&(usize, bool)]| calls.iter().map(|(size, _)| *size).collect::<Vec<_>>();
    let prompts = sizes(&prompts);
    assert_eq!(prompts.iter().sum::<usize>(), 4, "{calls:?}");
    assert!(prompts.iter().all(|&size| size <= 2), "{calls:?}");
    // All four then decode together, from the first step on.
    assert_eq!(sizes(&steps), [4; 3], "{calls:?}");
    assert!(calls.is_sorted_by_key(|(_, prompt)| !prompt), "{calls:?}");
}
