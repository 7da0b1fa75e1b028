//! Head scoring needs memory in proportion to the context: only the last query's attention is ever formed.

use head_scoring::{Kind, Scorer, example::Grid};
use headkv_engine::LoadOptions;
use headkv_haystack::{Haystack, Template, needle};
use headkv_tests::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// What one example of that many tokens adds to the live bytes at most, and its largest piece.
fn measured(scorer: &Scorer, tokens: usize) -> (usize, usize) {
    let grid = Grid {
        needles: vec![needle::san_francisco()],
        haystack: Haystack::generated(1),
        lengths: vec![tokens],
        depths: vec![50.0],
        template: Template::plain(),
    };
    let examples = grid.examples(scorer.engine()).unwrap();
    let before = ALLOCATOR.restart();
    let outcomes = scorer.measure(Kind::Enhanced, &[&examples[0]], 20).unwrap();
    assert!(outcomes[0].scores.iter().any(|score| *score > 0.1));
    (ALLOCATOR.peak() - before, ALLOCATOR.largest())
}

#[test]
fn memory_grows_with_the_context_and_not_with_its_square() {
    let scorer = Scorer::load(LoadOptions::new(headkv_tests::tiny())).unwrap();
    // What threads keep for themselves is there after the first time.
    measured(&scorer, 1000);
    let [one, two, four] = [1000, 2000, 4000].map(|tokens| {
        let (peak, largest) = measured(&scorer, tokens);
        println!("{tokens} tokens: peak {peak} bytes, largest piece {largest}");
        // Not even a byte for each pair of tokens.
        assert!(
            tokens < 4000 || largest < tokens * tokens,
            "{largest} bytes in one piece"
        );
        peak as f64
    });
    // From 2000 to 4000 it grows about twice as much as from 1000 to 2000; by the square it would be four times.
    let growth = (four - two) / (two - one);
    assert!(growth < 2.3, "grows {growth} times as much");
}
