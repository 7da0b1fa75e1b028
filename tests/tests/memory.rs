//! The KV bytes that are reported are the bytes that are held: a counting allocator proves it at 8,000 tokens.

use candle_core::{Result, Tensor};
use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{Compression, HeadKv};
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

/// Growth of live bytes by a prompt of 8,000 tokens, and the bytes that the hook reports.
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
    // Twice: what threads keep for themselves is there after the first time.
    engine.generate(&[Request::new(prompt.clone(), 2)]).unwrap();
    engine.generate(&[Request::new(vec![300; 16], 2)]).unwrap();
    let before = live();
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
