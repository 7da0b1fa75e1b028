//! Models whose rotary factors depend on the prompt's length: each sequence has those of its own, whoever decodes beside it.

use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::Compression;
use headkv_tests::{Family, random_model_with};
use mistralrs_core::attention_hook::PromptPolicy;
use serde_json::json;

/// Prompts of more tokens have long factors.
const SHORT: usize = 400;
const STEPS: usize = 24;

#[test]
fn the_longest_of_a_batch_does_not_decide_for_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let factors = |from: f64| {
        (0..8)
            .map(|i| from + f64::from(i) / 4.0)
            .collect::<Vec<_>>()
    };
    let changes = json!({
        "original_max_position_embeddings": SHORT,
        "rope_scaling": {"type": "longrope", "short_factor": factors(1.0), "long_factor": factors(4.0)},
    });
    // A window as long as the context hides nothing.
    random_model_with(folder.path(), Family::Phi3, 16_384, 5, &changes);
    // Pieces of a long prompt would begin with short factors: these prompts run whole.
    let options = LoadOptions {
        ignore_end: true,
        prompts: PromptPolicy {
            tokens: 100,
            interleave: true,
        },
        prefix_bytes: 1 << 20,
        ..LoadOptions::new(folder.path())
    };
    let full = Attention::Compressed(Compression::new("full", 16));
    let hooked = Engine::load(options, full).unwrap();
    assert!(hooked.compressed().unwrap().starts_anew().is_some());
    let upstream = Engine::load(LoadOptions::new(folder.path()), Attention::Upstream).unwrap();
    let story = headkv_haystack::text::generate(7, 6_000);
    let story = hooked.encode(&story).unwrap();
    let requests = [300, SHORT + 20].map(|tokens| Request {
        keep_logits: true,
        ..Request::new(story[..tokens].to_vec(), STEPS)
    });
    let together = hooked.generate(&requests).unwrap();
    for (request, answer) in requests.iter().zip(&together) {
        for step in [0, 1, STEPS - 1] {
            let so_far = [&request.prompt, &answer.tokens[..step]].concat();
            let next = Request {
                keep_logits: true,
                ..Request::new(so_far, 1)
            };
            let next = upstream.generate(&[next]).unwrap().remove(0);
            let pairs = answer.logits[step].iter().zip(&next.logits[0]);
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let tokens = request.prompt.len();
            assert!(
                worst <= 1e-3,
                "{tokens} tokens, step {step}: logits differ by {worst}"
            );
        }
    }
}
