//! Every family of models, windows shorter than the prompt: with nothing dropped the hooked model says what the model
//! is defined to say, and under compression layers that slide keep their window and no more.
//!
//! The definition of a window of W tokens is that a query sees W keys, its own included. Upstream's prompt pass shows
//! it one more, so that upstream with W - 1 in its configuration is the reference for prompts; what is generated is
//! compared with prompt passes over everything that came before it.

use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::Compression;
use headkv_tests::{Family, HEAD_DIM, KV_HEADS, LAYERS, random_model};
use std::path::Path;

const WINDOW: usize = 96;
const PROMPT: usize = 300;
const STEPS: usize = 64;
/// Logits of prompt passes over so many of the steps are compared.
const CHECKED: [usize; 6] = [0, 1, 2, 20, 40, STEPS - 1];

fn load(folder: &Path, attention: Attention) -> Engine {
    let options = LoadOptions {
        ignore_end: true,
        ..LoadOptions::new(folder)
    };
    Engine::load(options, attention).unwrap()
}

fn prompt(engine: &Engine, from: usize, tokens: usize) -> Vec<u32> {
    let story = headkv_haystack::text::generate(11, 6_000);
    engine.encode(&story).unwrap()[from..from + tokens].to_vec()
}

#[test]
fn full_is_the_definition() {
    for family in Family::ALL {
        let folder = tempfile::tempdir().unwrap();
        let (hooked, reference) = (
            folder.path().join("hooked"),
            folder.path().join("reference"),
        );
        random_model(&hooked, family, WINDOW, 3);
        // Upstream applies Qwen 2's window although its configuration says not to use it.
        let slides = (0..LAYERS).any(|layer| family.slides(layer));
        let window = if slides { WINDOW - 1 } else { 8192 };
        random_model(&reference, family, window, 3);
        let hooked = load(&hooked, Attention::Compressed(Compression::new("full", 16)));
        let prompts = [(0, PROMPT), (40, PROMPT + 37), (7, WINDOW / 2)];
        let requests: Vec<Request> = prompts
            .iter()
            .map(|&(from, tokens)| Request {
                keep_logits: true,
                ..Request::new(prompt(&hooked, from, tokens), STEPS)
            })
            .collect();
        let together = hooked.generate(&requests).unwrap();
        let reference = load(&reference, Attention::Upstream);
        for (request, answer) in requests.iter().zip(&together) {
            let alone = hooked.generate(std::slice::from_ref(request)).unwrap();
            assert_eq!(alone[0].tokens, answer.tokens, "{family:?}: alone");
            for step in CHECKED {
                let so_far = [&request.prompt, &answer.tokens[..step]].concat();
                let next = Request {
                    keep_logits: true,
                    ..Request::new(so_far, 1)
                };
                let next = reference.generate(&[next]).unwrap().remove(0);
                let pairs = answer.logits[step].iter().zip(&next.logits[0]);
                let worst = pairs
                    .map(|(a, b)| (a - b).abs())
                    .max_by(f32::total_cmp)
                    .unwrap();
                assert!(
                    worst <= 1e-3,
                    "{family:?}, step {step}: logits differ by {worst}"
                );
                assert_eq!(
                    answer.tokens[step], next.tokens[0],
                    "{family:?}, step {step}"
                );
            }
        }
    }
}

#[test]
fn layers_that_slide_keep_their_window_and_the_others_the_budget() {
    for family in Family::ALL {
        let folder = tempfile::tempdir().unwrap();
        random_model(folder.path(), family, WINDOW, 3);
        let capacity = 24;
        let snapkv = Compression::new("snapkv", capacity);
        let engine = load(folder.path(), Attention::Compressed(snapkv));
        let request = Request::new(prompt(&engine, 0, PROMPT), STEPS);
        let answer = engine.generate(&[request]).unwrap().remove(0);
        let row = 2 * KV_HEADS * HEAD_DIM * size_of::<f32>();
        let sliding = (0..LAYERS).filter(|&layer| family.slides(layer)).count();
        // Nothing that slides is part of what compression keeps.
        assert_eq!(
            answer.kept_bytes,
            (LAYERS - sliding) * capacity * row,
            "{family:?}"
        );
        let block = headkv_plugin::cache::TAIL_BLOCK;
        let tail = (STEPS - 1).next_multiple_of(block) * (LAYERS - sliding);
        let window = (WINDOW.next_multiple_of(block) + block) * sliding;
        let held = answer.kv_bytes - answer.kept_bytes;
        assert!(
            held <= (tail + window) * row && held >= (tail + WINDOW * sliding) * row,
            "{family:?}: {held} bytes beside what is kept"
        );
    }
}

#[test]
fn the_table_of_models_says_what_is_tested() {
    let text = std::fs::read_to_string(headkv_tests::root().join("docs/models.md")).unwrap();
    let rows: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("| family |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected = Family::ALL.map(|family| {
        let slides: Vec<bool> = (0..LAYERS).map(|layer| family.slides(layer)).collect();
        let (which, compressed) = match slides[..] {
            [false, false, false, false] => ("none", "yes"),
            [true, true, true, true] => ("all", "window only"),
            _ => ("every other", "yes"),
        };
        format!("| {family:?} | {which} | yes | {compressed} |")
    });
    assert_eq!(rows, expected);
}
