//! What one request breaks, it breaks for itself: its neighbours in the batch answer as alone, the engine goes on, and
//! nothing is held afterwards.

use candle_core::Result;
use headkv_engine::{Attention, Engine, Generation, LoadOptions, Request};
use headkv_plugin::{Compression, HeadKv};
use headkv_tests::{Watch, Watched};
use mistralrs_core::{
    Constraint, NormalRequest, Request as EngineRequest, RequestMessage, Response, SamplingParams,
    attention_hook::{AttendCx, HookedSequence, SeqInfo},
};
use std::{
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{Receiver, channel};

/// Fails where a prompt begins with that token, and notes which sequences there were.
#[derive(Default)]
struct Fragile(Mutex<Vec<Weak<HookedSequence>>>);

const PANICS: u32 = 100;
const FAILS: u32 = 101;
const REFUSES: u32 = 102;
const FAILS_LATER: u32 = 103;

impl Watch for Fragile {
    fn begin(&self, seq: &SeqInfo) -> Result<()> {
        if seq.prompt[0] == REFUSES {
            candle_core::bail!("no state for this prompt");
        }
        Ok(())
    }

    fn attend(&self, cx: &AttendCx<'_>, seqs: &[Arc<HookedSequence>]) -> Result<()> {
        if cx.layer == 0 {
            self.0
                .lock()
                .unwrap()
                .extend(seqs.iter().map(Arc::downgrade));
        }
        for seq in seqs {
            match seq.info().prompt[0] {
                PANICS if cx.layer == 3 => panic!("deliberate"),
                FAILS if cx.layer == 3 => candle_core::bail!("deliberate error"),
                FAILS_LATER if cx.layer == 3 && seq.seen(3) > 6 => {
                    candle_core::bail!("deliberate later error")
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Fragile {
    /// Sequences whose state is still held; the engine drops those of a step in the next one.
    fn alive(&self) -> usize {
        let alive = || {
            self.0
                .lock()
                .unwrap()
                .iter()
                .filter(|seq| seq.strong_count() > 0)
                .count()
        };
        let start = Instant::now();
        while alive() > 0 && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        alive()
    }
}

fn engine(watch: &Arc<Fragile>) -> Engine {
    let inner = HeadKv::new(Compression::new("snapkv", 16)).unwrap();
    let hook = Watched::new(inner, watch.clone());
    Engine::load(
        LoadOptions::new(headkv_tests::tiny()),
        Attention::Hook(hook),
    )
    .unwrap()
}

fn prompt(first: u32) -> Vec<u32> {
    (0..40)
        .map(|i| {
            if i == 0 {
                first
            } else {
                300 + first * 7 + i * 31 % 3000
            }
        })
        .collect()
}

fn ask(first: u32) -> Request {
    Request {
        min_tokens: 12,
        ..Request::new(prompt(first), 12)
    }
}

fn alone(engine: &Engine, first: u32) -> Vec<u32> {
    engine.generate(&[ask(first)]).unwrap().remove(0).tokens
}

#[test]
fn failures_stay_with_their_request() {
    let watch = Arc::new(Fragile::default());
    let engine = engine(&watch);
    let healthy = [150, 151, 152, 153, 154, 155];
    let expected = healthy.map(|first| alone(&engine, first));
    for (first, why) in [
        (PANICS, "deliberate"),
        (FAILS, "deliberate error"),
        (FAILS_LATER, "deliberate later error"),
        (REFUSES, "no state for this prompt"),
    ] {
        let error = engine.generate(&[ask(first)]).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains('\n'), "{error}");

        // All prompts have one length, so that they run in one pass; one is too long for the model.
        let mut requests: Vec<Request> = healthy.map(ask).to_vec();
        requests.insert(3, ask(first));
        requests.push(Request::new(vec![300; 17_000], 12));
        let mut answers = engine.generate_each(&requests);
        let too_long = answers.pop().unwrap().unwrap_err().to_string();
        assert!(
            too_long.contains("17000") || too_long.contains("17,000"),
            "{too_long}"
        );
        let error = answers.remove(3).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains('\n'), "{error}");
        let tokens = |answer: std::result::Result<Generation, _>| answer.unwrap().tokens;
        let answers: Vec<_> = answers.into_iter().map(tokens).collect();
        assert_eq!(answers, expected, "beside {why}");
        // The first error of a batch is reported once the others are answered.
        let error = engine.generate(&requests[..7]).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(alone(&engine, 150), expected[0], "after {why}");
    }
    assert_eq!(watch.alive(), 0, "states that outlive their requests");
}

/// Sends a request of the engine's own kind.
async fn send(engine: &Engine, first: u32, streaming: bool) -> Receiver<Response> {
    let (response, answer) = channel(100);
    let sampling = SamplingParams {
        temperature: Some(0.0),
        max_len: Some(12),
        ..SamplingParams::deterministic()
    };
    let message = RequestMessage::CompletionTokens(prompt(first));
    let id = engine.mistral().next_request_id();
    let request = NormalRequest {
        constraint: Constraint::None,
        is_streaming: streaming,
        ..NormalRequest::new_simple(message, sampling, response, id, None, None)
    };
    let sender = engine.mistral().get_sender(None).unwrap();
    sender
        .send(EngineRequest::Normal(Box::new(request)))
        .await
        .unwrap();
    answer
}

/// Everything that was answered: the text, or the error.
async fn text(mut answer: Receiver<Response>) -> std::result::Result<String, String> {
    let mut text = String::new();
    while let Some(response) = answer.recv().await {
        match response {
            Response::CompletionDone(done) => return Ok(done.choices[0].text.clone()),
            Response::CompletionChunk(chunk) => {
                text += &chunk.choices[0].text;
                if chunk.choices[0].finish_reason.is_some() {
                    return Ok(text);
                }
            }
            Response::InternalError(why) | Response::ValidationError(why) => {
                return Err(why.to_string());
            }
            Response::CompletionModelError(why, _) | Response::ModelError(why, _) => {
                return Err(why);
            }
            _ => return Err("an answer of another kind".into()),
        }
    }
    Err("no answer".into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_go_away_end_nothing_but_their_own_request() {
    let watch = Arc::new(Fragile::default());
    let engine = tokio::task::block_in_place(|| engine(&watch));
    for streaming in [false, true] {
        let mut expected = Vec::new();
        for first in 150..156 {
            expected.push(text(send(&engine, first, streaming).await).await.unwrap());
        }
        for (gone, failing) in [(0, FAILS_LATER), (3, PANICS), (6, FAILS)] {
            let mut answers = Vec::new();
            for first in [150, 151, 152, 153, 154, 155, failing] {
                answers.push(send(&engine, first, streaming).await);
            }
            answers.insert(gone, send(&engine, 156, streaming).await);
            // It reads nothing, and goes while the others decode.
            let vanishing = answers.remove(gone);
            tokio::time::sleep(Duration::from_millis(5)).await;
            drop(vanishing);
            let failed = answers.pop().unwrap();
            for (answer, expected) in answers.into_iter().zip(&expected) {
                assert_eq!(
                    text(answer).await.as_ref(),
                    Ok(expected),
                    "streaming {streaming}"
                );
            }
            let why = text(failed).await.unwrap_err();
            assert!(why.contains("deliberate"), "{why}");
        }
        let after = text(send(&engine, 150, streaming).await).await;
        assert_eq!(after.as_ref(), Ok(&expected[0]));
        assert_eq!(watch.alive(), 0, "states that outlive their requests");
    }
    tokio::task::block_in_place(|| drop(engine));
}
