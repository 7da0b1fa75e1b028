//! A prompt that begins as an earlier one did is read on from there, and its answer is that of a fresh prompt.
//!
//! Up to rounding: the sums of a short pass are not those of a long one to the last bit, and where two tokens rank all but
//! equally at the cut, another one is kept. So under compression the prompt's own logits are compared, and how much is
//! kept; with nothing dropped, every token.

use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{Compression, HeadKv, hook::Options};
use headkv_tests::{Watch, Watched};
use mistralrs_core::attention_hook::{AttendCx, HookedSequence};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Counts the tokens that ran in prompts.
#[derive(Default)]
struct Ran(AtomicUsize);

impl Watch for Ran {
    fn attend(&self, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> candle_core::Result<()> {
        if cx.layer == 0 && seqs.iter().all(|seq| seq.seen(0) < seq.info().prompt.len()) {
            self.0.fetch_add(cx.k.dim(2)? * seqs.len(), Relaxed);
        }
        Ok(())
    }
}

fn configuration(method: &str) -> Compression {
    Compression {
        scores: Some(
            headkv_tests::root()
                .join("head_scores/tiny_retrieval.json")
                .into(),
        ),
        ..Compression::new(method, 32)
    }
}

fn engine(method: &str, prefix_bytes: usize) -> (Engine, Arc<Ran>) {
    let how = Options {
        prefix_bytes,
        ..Options::default()
    };
    let ran = Arc::new(Ran::default());
    let inner = HeadKv::with_options(configuration(method), how).unwrap();
    let options = LoadOptions {
        ignore_end: true,
        ..LoadOptions::new(headkv_tests::tiny())
    };
    let hook = Attention::Hook(Watched::new(inner, ran.clone()));
    (Engine::load(options, hook).unwrap(), ran)
}

/// The turns of a conversation over a text: each prompt is the last one, its answer and a question.
fn turns(engine: &Engine, seed: u64) -> (Vec<u32>, Vec<Vec<u32>>) {
    let text = headkv_haystack::text::generate(seed, 9_000);
    let questions = [
        "What is told?",
        "Who was there, and what did they want?",
        "How did it end?",
    ];
    let encode = |text: &str| engine.encode(text).unwrap();
    (encode(&text), questions.map(encode).to_vec())
}

fn ask(engine: &Engine, prompt: &[u32]) -> Vec<u32> {
    let request = Request::new(prompt.to_vec(), 12);
    engine.generate(&[request]).unwrap().remove(0).tokens
}

#[test]
fn turns_are_read_on_from_the_last() {
    for method in ["headkv", "snapkv", "full"] {
        let (remembering, ran) = engine(method, 1 << 30);
        let (fresh, _) = engine(method, 0);
        let (mut prompt, questions) = turns(&fresh, 5);
        for (turn, question) in questions.iter().enumerate() {
            let before = prompt.len();
            prompt.extend(question);
            ran.0.store(0, Relaxed);
            let request = Request {
                keep_logits: true,
                ..Request::new(prompt.clone(), 12)
            };
            let one = std::slice::from_ref(&request);
            let answer = remembering.generate(one).unwrap().remove(0);
            let count = ran.0.load(Relaxed);
            let expected = fresh.generate(one).unwrap().remove(0);
            let pairs = answer.logits[0].iter().zip(&expected.logits[0]);
            let worst = pairs
                .map(|(a, b)| (a - b).abs())
                .max_by(f32::total_cmp)
                .unwrap();
            assert!(
                worst < 1e-3,
                "{method}, turn {turn}: logits differ by {worst}"
            );
            assert_eq!(
                answer.kept_bytes, expected.kept_bytes,
                "{method}, turn {turn}"
            );
            let answer = match method {
                "full" => {
                    assert_eq!(answer.tokens, expected.tokens, "turn {turn}");
                    answer.tokens
                }
                _ => expected.tokens,
            };
            let most = if turn == 0 {
                prompt.len()
            } else {
                // The last answer, what is short of a block, and the question.
                prompt.len() - before + 12 + headkv_plugin::prefix::BLOCK
            };
            assert!(
                count <= most,
                "{method}, turn {turn}: {count} tokens ran, not {most}"
            );
            prompt.extend(&answer);
        }
    }
}

#[test]
fn two_requests_go_on_from_one_text_differently_at_once() {
    let (remembering, ran) = engine("full", 1 << 30);
    let (fresh, _) = engine("full", 0);
    let (text, questions) = turns(&fresh, 6);
    ask(&remembering, &text);
    ran.0.store(0, Relaxed);
    let requests: Vec<_> = questions
        .iter()
        .map(|question| Request::new([&text[..], question].concat(), 12))
        .collect();
    let together = remembering.generate(&requests).unwrap();
    let count = ran.0.load(Relaxed);
    for (request, answer) in requests.iter().zip(&together) {
        assert_eq!(answer.tokens, ask(&fresh, &request.prompt));
    }
    assert!(count < text.len() / 2, "{count} tokens ran");
}

#[test]
fn what_does_not_fit_is_read_again() {
    let (small, ran) = engine("headkv", 100_000);
    let (fresh, _) = engine("headkv", 0);
    let (text, _) = turns(&fresh, 7);
    let first = ask(&small, &text);
    ran.0.store(0, Relaxed);
    assert_eq!(ask(&small, &text), first);
    assert_eq!(ran.0.load(Relaxed), text.len());
}

fn compressed(method: &str, prefix_bytes: usize) -> Engine {
    let options = LoadOptions {
        ignore_end: true,
        prefix_bytes,
        ..LoadOptions::new(headkv_tests::tiny())
    };
    Engine::load(options, Attention::Compressed(configuration(method))).unwrap()
}

#[test]
fn more_prompts_than_memory_never_exceed_it() {
    const LIMIT: usize = 16 << 20;
    let (small, fresh) = (compressed("full", LIMIT), compressed("full", 0));
    let prefixes = small.compressed().unwrap().prefixes();
    let mut most = 0;
    for round in 0..2 {
        let mut requests = Vec::new();
        for seed in 20..24 {
            let (text, questions) = turns(&fresh, seed);
            let text = &text[..1_200];
            requests.extend(
                questions
                    .iter()
                    .map(|question| Request::new([text, question].concat(), 4)),
            );
        }
        let answers = small.generate(&requests).unwrap();
        let expected = fresh.generate(&requests).unwrap();
        for (i, (answer, expected)) in answers.iter().zip(&expected).enumerate() {
            assert_eq!(answer.tokens, expected.tokens, "round {round}, request {i}");
        }
        most = most.max(prefixes.bytes());
        assert!(prefixes.bytes() <= LIMIT);
    }
    assert!(most > LIMIT / 2, "{most} of {LIMIT} bytes used");
}

#[test]
fn what_is_kept_of_a_prompt_does_not_matter_to_the_next() {
    let (one, fresh) = (compressed("full", 1 << 30), compressed("full", 0));
    let (text, questions) = turns(&fresh, 9);
    one.generate(&[Request::new(text.clone(), 1)]).unwrap();
    for (method, question) in ["snapkv", "headkv", "full"].iter().zip(&questions) {
        let request = Request {
            keep_logits: true,
            compression: Some(configuration(method)),
            ..Request::new([&text[..], question].concat(), 4)
        };
        let request = std::slice::from_ref(&request);
        let answer = one.generate(request).unwrap().remove(0);
        let expected = fresh.generate(request).unwrap().remove(0);
        assert!(answer.reused_tokens > text.len() - 64, "{method}");
        assert_eq!(answer.kept_bytes, expected.kept_bytes, "{method}");
        let pairs = answer.logits[0].iter().zip(&expected.logits[0]);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "{method}: logits differ by {worst}");
    }
}

#[test]
fn another_model_does_not_read_on_from_it() {
    let dir = tempfile::tempdir().unwrap();
    headkv_tests::random_llama(dir.path(), 3);
    let load = |model: &std::path::Path| {
        let options = LoadOptions {
            prefix_bytes: 1 << 30,
            ..LoadOptions::new(model)
        };
        let full = Attention::Compressed(Compression::new("full", 32));
        Engine::load(options, full).unwrap()
    };
    let (tiny, other) = (load(&headkv_tests::tiny()), load(dir.path()));
    let (text, _) = turns(&tiny, 12);
    let reused = |engine: &Engine| {
        let request = Request::new(text.clone(), 2);
        engine.generate(&[request]).unwrap()[0].reused_tokens
    };
    assert_eq!((reused(&tiny), reused(&other)), (0, 0));
    assert!(reused(&tiny) > 0 && reused(&other) > 0);
}
