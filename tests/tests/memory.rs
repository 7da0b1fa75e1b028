//! The KV bytes that are reported are the bytes that are held: a counting allocator proves it at 8,000 tokens.

use candle_core::{Result, Tensor};
use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{Compression, HeadKv, config::Granularity};
use mistralrs_core::attention_hook::{AttendCx, AttentionHook, ModelInfo, SeqInfo, SeqState};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    any::Any,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// The system's allocator, counting the bytes that live.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator with the caller's own arguments; only a counter is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn live() -> usize {
    LIVE.load(Relaxed)
}

/// HeadKV that notes the live bytes at the first generated token: the prompt has run, the sequence is alive.
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
            self.after_prompt.lock().unwrap().get_or_insert_with(live);
        }
        self.inner.attend(cx, states)
    }
}

/// Growth of live bytes since the model was loaded, by its first prompt, of 8,000 tokens; and the bytes that the hook
/// reports.
fn growth(compression: Compression) -> (usize, usize) {
    let inner = HeadKv::new(compression).unwrap();
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
    let request = [Request::new(prompt, 2)];
    let loaded = live();
    engine.generate(&request).unwrap();
    let after = watch.after_prompt.lock().unwrap().unwrap();
    // Dropped, its thread would free the model some time later, in the middle of the next measurement.
    std::mem::forget(engine);
    (
        after.saturating_sub(loaded),
        inner.usage().last().unwrap().kept_bytes,
    )
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
                scores: Some(scores.clone()),
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
