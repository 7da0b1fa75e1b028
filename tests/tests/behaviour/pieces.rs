//! A long prompt beside running answers comes in pieces, between which they go on; everybody gets what they get alone.

use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::{Compression, HeadKv, hook::Options};
use headkv_tests::{Watch, Watched};
use mistralrs_core::attention_hook::{AttendCx, HookedSequence, PromptPolicy};
use std::sync::{Arc, Mutex};

const PIECE: usize = 512;

/// Notes how many tokens each sequence brought to each pass.
#[derive(Default)]
struct Passes(Mutex<Vec<(usize, Vec<usize>)>>);

impl Watch for Passes {
    fn attend(&self, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> candle_core::Result<()> {
        if cx.layer == 0 {
            let prompts = seqs.iter().map(|seq| seq.info().prompt.len()).collect();
            self.0.lock().unwrap().push((cx.k.dim(2)?, prompts));
        }
        Ok(())
    }
}

fn headkv() -> Compression {
    Compression {
        scores: Some(
            headkv_tests::root()
                .join("head_scores/tiny_retrieval.json")
                .into(),
        ),
        ..Compression::new("headkv", 32)
    }
}

fn requests(engine: &Engine) -> Vec<Request> {
    let story = headkv_haystack::text::generate(3, 40_000);
    let tokens = engine.encode(&story).unwrap();
    let short = (0..8).map(|i| Request::new(tokens[i * 90..i * 90 + 150 + i].to_vec(), 120));
    let mut requests: Vec<_> = short.collect();
    requests.push(Request::new(tokens[..6_100].to_vec(), 24));
    requests.push(Request::new(tokens[500..500 + 2 * PIECE].to_vec(), 24));
    requests
}

#[test]
fn a_long_prompt_lets_the_others_go_on() {
    let options = LoadOptions {
        ignore_end: true,
        ..LoadOptions::new(headkv_tests::tiny())
    };
    let whole = Engine::load(options.clone(), Attention::Compressed(headkv())).unwrap();
    let requests = requests(&whole);
    let alone: Vec<_> = requests
        .iter()
        .map(|request| {
            whole
                .generate(std::slice::from_ref(request))
                .unwrap()
                .remove(0)
        })
        .collect();

    let how = Options {
        prompts: PromptPolicy {
            tokens: PIECE,
            interleave: true,
        },
        ..Options::default()
    };
    let passes = Arc::new(Passes::default());
    let inner = HeadKv::with_options(headkv(), how).unwrap();
    let hook = Watched::new(inner, passes.clone());
    let engine = Engine::load(options, Attention::Hook(hook)).unwrap();
    passes.0.lock().unwrap().clear();
    let together = engine.generate(&requests).unwrap();
    for (i, (ours, alone)) in together.iter().zip(&alone).enumerate() {
        assert_eq!(ours.tokens, alone.tokens, "request {i}");
    }

    let passes = passes.0.lock().unwrap();
    let most = passes.iter().map(|(new, seqs)| new * seqs.len()).max();
    assert!(most.unwrap() <= PIECE, "{most:?} prompt tokens in a pass");
    let pieces: Vec<usize> = (0..passes.len())
        .filter(|&i| passes[i].1 == [6_100] && passes[i].0 > 1)
        .collect();
    assert_eq!(pieces.len(), 6_100usize.div_ceil(PIECE));
    // While others have tokens to come, no two pieces follow each other.
    let others = |pass: &(usize, Vec<usize>)| pass.0 == 1 && pass.1.iter().any(|&n| n < 200);
    let last = passes.iter().rposition(others).unwrap();
    assert!(
        last > pieces[pieces.len() - 1],
        "the answers ended too early to tell"
    );
    for pair in pieces.windows(2) {
        assert!(
            passes[pair[0]..pair[1]].iter().any(others),
            "nobody got a token between passes {} and {}",
            pair[0],
            pair[1]
        );
    }
}

/// Fails the long prompt in its third piece.
struct Third;

impl Watch for Third {
    fn attend(&self, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> candle_core::Result<()> {
        let third = |seq: &Arc<HookedSequence>| {
            seq.info().prompt.len() > 6_000 && seq.seen(0) == 2 * PIECE && cx.layer == 0
        };
        if seqs.iter().any(third) {
            candle_core::bail!("deliberate");
        }
        Ok(())
    }
}

#[test]
fn a_prompt_that_fails_between_its_pieces_ends_alone() {
    let options = LoadOptions {
        ignore_end: true,
        ..LoadOptions::new(headkv_tests::tiny())
    };
    let how = Options {
        prompts: PromptPolicy {
            tokens: PIECE,
            interleave: true,
        },
        ..Options::default()
    };
    let inner = HeadKv::with_options(headkv(), how).unwrap();
    let hook = Watched::new(inner, Arc::new(Third));
    let engine = Engine::load(options, Attention::Hook(hook)).unwrap();
    let requests = requests(&engine);
    let answers = engine.generate_each(&requests);
    for (i, (request, answer)) in requests.iter().zip(answers).enumerate() {
        match answer {
            Ok(answer) => assert_eq!(answer.tokens.len(), request.max_tokens, "request {i}"),
            Err(error) => {
                assert!(request.prompt.len() > 6_000, "request {i}: {error}");
                assert!(error.to_string().contains("deliberate"), "{error}");
            }
        }
    }
}
