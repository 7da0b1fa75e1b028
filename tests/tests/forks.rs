//! A hundred questions over one text hold what it left once, whole or compressed: a counting allocator proves it.

use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{
    Compression,
    hook::Reuse,
    prefix::{BLOCK, Place},
};
use headkv_tests::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Bytes that a token takes in the embedded model.
const TOKEN: usize = 8 * 4 * 32 * 2 * size_of::<f32>();

#[test]
fn a_hundred_forks_of_a_text_hold_it_once() {
    let options = LoadOptions {
        prefix_bytes: 256 << 20,
        ..LoadOptions::new(headkv_tests::tiny())
    };
    let attention = Attention::Compressed(Compression::new("snapkv", 32));
    let engine = Engine::load(options, attention).unwrap();
    let prefixes = engine.compressed().unwrap().prefixes();
    let text: Vec<u32> = (0..2_000).map(|i| 300 + i * 7 % 3000).collect();
    let questions: Vec<_> = (0..100)
        .map(|i| {
            let question = (0..100).map(|j| 300 + (i * 31 + j * 11) % 3000);
            Request::new(text.iter().copied().chain(question).collect(), 2)
        })
        .collect();
    // Whatever the first prompt makes for good.
    engine.generate(&[Request::new(vec![300; 500], 2)]).unwrap();
    prefixes.restart(256 << 20, Place::Host);
    let before = ALLOCATOR.live();
    engine.generate(&[Request::new(text.clone(), 2)]).unwrap();
    let blocks = |tokens: usize| tokens / BLOCK * BLOCK;
    assert_eq!(prefixes.bytes(), blocks(text.len()) * TOKEN);

    let answers = engine.generate(&questions).unwrap();
    assert!(
        answers
            .iter()
            .all(|one| one.reused_tokens >= blocks(text.len()))
    );
    let own = blocks(text.len() + 100) - blocks(text.len());
    let once = (blocks(text.len()) + 100 * own) * TOKEN;
    assert_eq!(prefixes.bytes(), once);
    drop(answers);
    // The engine drops sequences a moment after their answers.
    while engine.compressed().unwrap().held_bytes() > 0 {
        std::thread::yield_now();
    }
    let grown = ALLOCATOR.live().saturating_sub(before);
    println!("grew by {grown} bytes, remembers {once}");
    assert!(
        grown as f64 <= 1.2 * once as f64 + 3e6,
        "{grown} bytes for {once}"
    );
    assert!(
        once < 8 * blocks(text.len()) * TOKEN,
        "the test would not notice a text for each"
    );
    running_forks_share_what_is_kept(&text);
}

/// In the same test: the allocator counts for all threads.
fn running_forks_share_what_is_kept(text: &[u32]) {
    const KEPT: usize = 512;
    let options = LoadOptions {
        prefix_bytes: 256 << 20,
        reuse: Reuse::Compressed,
        ignore_end: true,
        max_batch: 100.try_into().unwrap(),
        ..LoadOptions::new(headkv_tests::tiny())
    };
    let attention = Attention::Compressed(Compression::new("snapkv", KEPT));
    let engine = Engine::load(options, attention).unwrap();
    let model = engine.compressed().unwrap().clone();
    let ask = |i: usize, tokens| Request {
        then: (0..10)
            .map(|j| 300 + (i * 31 + j * 11) as u32 % 3000)
            .collect(),
        ..Request::new(text.to_vec(), tokens)
    };
    engine.generate(&[ask(0, 2)]).unwrap();
    let kept = KEPT * TOKEN;
    assert_eq!(model.conversations().bytes(), kept);
    while model.held_bytes() > 0 {
        std::thread::yield_now();
    }
    let before = ALLOCATOR.live();
    let requests: Vec<_> = (0..100).map(|i| ask(i, 20)).collect();
    // Seen while they run: what their own tokens take, and the document once.
    let (mut most, mut counted) = (0, 0);
    let answers = std::thread::scope(|scope| {
        let answers = scope.spawn(|| engine.generate(&requests).unwrap());
        while !answers.is_finished() {
            most = most.max(ALLOCATOR.live().saturating_sub(before));
            counted = counted.max(model.held_bytes());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        answers.join().unwrap()
    });
    assert!(answers.iter().all(|one| one.reused_tokens == text.len()));
    // A block of 32 tokens behind it for each.
    let own = 100 * 32 * TOKEN;
    println!("at most {most} bytes beside the document, {counted} counted");
    assert!(counted > kept + own / 2, "the forks never ran together");
    assert_eq!(counted, kept + own);
    assert!(most < own + 20 * kept, "{most} bytes for {own}");
}
