//! The KV bytes that are reported are the bytes that are held: resident memory proves it at 8,000 tokens.

use candle_core::{Result, Tensor};
use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{Compression, HeadKv};
use mistralrs_core::attention_hook::{AttendCx, AttentionHook, ModelInfo, SeqInfo, SeqState};
use std::{any::Any, sync::Arc, sync::Mutex};

/// Resident memory after what was freed went back to the system.
fn resident() -> usize {
    // SAFETY: malloc_trim takes no pointer and may be called at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 4096
}

/// HeadKV that notes resident memory at the first generated token: the prompt has run, the sequence is alive.
struct Watch {
    inner: Arc<HeadKv>,
    after_prompt: Mutex<Option<usize>>,
}

impl AttentionHook for Watch {
    fn check_model(&self, model: &ModelInfo) -> Result<()> {
        self.inner.check_model(model)
    }
    fn new_state(
        &self,
        layer: usize,
        model: &ModelInfo,
        seq: &SeqInfo,
    ) -> Result<Box<dyn Any + Send>> {
        self.inner.new_state(layer, model, seq)
    }
    fn attend(&self, cx: &AttendCx<'_>, states: &[SeqState]) -> Result<Tensor> {
        if states[0].seen() > 0 && cx.layer == 0 {
            self.after_prompt
                .lock()
                .unwrap()
                .get_or_insert_with(resident);
        }
        self.inner.attend(cx, states)
    }
}

/// Growth of resident memory by a prompt of 8,000 tokens, and the bytes that the hook reports.
fn growth(method: &str) -> (usize, usize) {
    let inner = HeadKv::new(Compression::new(method, 32)).unwrap();
    let watch = Arc::new(Watch {
        inner: inner.clone(),
        after_prompt: Mutex::default(),
    });
    let engine = Engine::load(
        LoadOptions::new(headkv_tests::tiny()),
        Attention::Hook(watch.clone()),
    )
    .unwrap();
    let prompt: Vec<u32> = (0..8_000).map(|i| 300 + i * 7 % 3000).collect();
    // Twice: what threads and allocators keep for themselves is there after the first time.
    engine.generate(&[Request::new(prompt.clone(), 2)]).unwrap();
    engine.generate(&[Request::new(vec![300; 16], 2)]).unwrap();
    let before = resident();
    watch.after_prompt.lock().unwrap().take();
    engine.generate(&[Request::new(prompt, 2)]).unwrap();
    let after = watch.after_prompt.lock().unwrap().unwrap();
    (
        after.saturating_sub(before),
        inner.usage().last().unwrap().kept_bytes,
    )
}

/// At most 1.2 times what is reported, and 3 MB.
fn within(growth: usize, reported: usize) -> bool {
    growth as f64 <= 1.2 * reported as f64 + 3e6
}

#[test]
#[cfg(target_os = "linux")]
fn reported_bytes_are_held_bytes() {
    let (compressed, reported) = growth("snapkv");
    println!("snapkv@32: grew by {compressed} bytes, reports {reported}");
    // 8 layers x 4 KV heads x 32 tokens x (key and value) x 32 elements x 4 bytes.
    assert_eq!(reported, 8 * 4 * 32 * 2 * 32 * 4);
    assert!(within(compressed, reported));

    let (full, all) = growth("full");
    println!("full: grew by {full} bytes, reports {all}");
    assert_eq!(all, 8 * 4 * 8_000 * 2 * 32 * 4);
    assert!(within(full, all));
    assert!(
        !within(full, reported),
        "the test would not notice an uncompressed cache"
    );
}
