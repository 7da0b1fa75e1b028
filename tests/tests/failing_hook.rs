//! A hook that panics or fails loses its request, not the engine.

use candle_core::{Result, Tensor};
use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{Compression, HeadKv};
use mistralrs_core::attention_hook::{AttendCx, AttentionHook, ModelInfo, SeqInfo, SeqState};
use std::{any::Any, sync::Arc};

/// Fails where a prompt begins with that token.
struct Fragile(Arc<HeadKv>);

const PANICS: u32 = 100;
const FAILS: u32 = 101;
const REFUSES: u32 = 102;

impl AttentionHook for Fragile {
    fn check_model(&self, model: &ModelInfo) -> Result<()> {
        self.0.check_model(model)
    }
    fn new_state(
        &self,
        layer: usize,
        model: &ModelInfo,
        seq: &SeqInfo,
    ) -> Result<Box<dyn Any + Send>> {
        if seq.prompt[0] == REFUSES {
            candle_core::bail!("no state for this prompt");
        }
        self.0.new_state(layer, model, seq)
    }
    fn attend(&self, cx: &AttendCx<'_>, states: &[SeqState]) -> Result<Tensor> {
        match states[0].seq().prompt[0] {
            PANICS if cx.layer == 3 => panic!("deliberate"),
            FAILS if cx.layer == 3 && states[0].seen() > 0 => {
                candle_core::bail!("deliberate error")
            }
            _ => self.0.attend(cx, states),
        }
    }
}

#[test]
fn failures_stay_with_their_request() {
    let inner = HeadKv::new(Compression::new("snapkv", 16)).unwrap();
    let engine = Engine::load(
        LoadOptions::new(headkv_tests::tiny()),
        Attention::Hook(Arc::new(Fragile(inner))),
    )
    .unwrap();
    let ask = |first: u32| engine.generate(&[Request::new(vec![first, 200, 300, 400], 8)]);
    let expected = ask(150).unwrap().remove(0).tokens;
    for (first, why) in [
        (PANICS, "deliberate"),
        (FAILS, "deliberate error"),
        (REFUSES, "no state for this prompt"),
    ] {
        let error = ask(first).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(!error.contains('\n'), "{error}");
        assert_eq!(ask(150).unwrap().remove(0).tokens, expected, "after {why}");
    }
}
