//! Whoever wants to know is told which tokens of a prompt are kept, and what is kept is the same.

use headkv_engine::Request;
use headkv_plugin::{Compression, watch::Watch};
use headkv_tests::tiny_engine;
use std::sync::Arc;

#[test]
fn the_parts_of_the_heads_add_up_to_what_is_held() {
    let engine = tiny_engine(|_| ());
    let shape = engine.shape();
    let token = 2 * shape.layers * shape.kv_heads * shape.head_dim * engine.element_bytes();
    let text = headkv_haystack::text::generate(5, 1_500);
    let prompt = engine.encode(&text).unwrap();
    let scores = headkv_tests::root().join("head_scores/tiny_retrieval.json");
    for method in [
        "full",
        "streaming",
        "snapkv",
        "adakv",
        "headkv",
        "headkv-plus",
        "headkv-pool",
        "kvzip",
    ] {
        let compression = Compression::new(method, 24).with_scores(scores.clone());
        let unwatched = Request::new(prompt.clone(), 8).compressed(compression);
        let watch = Arc::new(Watch::default());
        let watched = Request {
            watch: Some(watch.clone()),
            ..unwatched.clone()
        };
        let answers = engine.generate(&[unwatched, watched]).unwrap();
        assert_eq!(answers[0].tokens, answers[1].tokens, "{method}");
        assert_eq!(answers[0].kept_bytes, answers[1].kept_bytes, "{method}");
        let shares = watch.shares();
        // What is said again is said before the prompt's last token, which stays whole.
        let said_again = usize::from(method == "kvzip");
        assert_eq!(shares.len(), prompt.len() - said_again, "{method}");
        let kept: f64 = shares.iter().copied().map(f64::from).sum();
        let held = answers[1].kept_bytes as f64 / token as f64;
        assert!(
            (kept - held).abs() < 1e-3,
            "{method}: {kept} of {held} tokens"
        );
        assert_eq!(
            shares.last(),
            Some(&1.0),
            "{method}: the last token is kept by all"
        );
    }
}
