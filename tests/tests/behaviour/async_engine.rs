//! The engine in an asynchronous program: nothing blocks it, answers come in pieces, and scores come by path or by value.

use headkv_engine::{Answer, Attention, Engine, Error, Generation, LoadOptions, Piece, Request};
use headkv_plugin::{Compression, HeadKv, HeadScores, hook::Model};
use headkv_tests::{root, tiny};
use mistralrs_core::{
    DeviceMapSetting, ModelDType, NormalLoaderBuilder, NormalSpecificConfig, TokenSource,
};

const PROMPT: &str =
    "Henry lives in Vienna. Oscar lives in Havana. Question: Where does Oscar live? \nAnswer:";

fn compression() -> Compression {
    Compression::headkv(24).with_scores(root().join("head_scores/tiny_retrieval.json"))
}

fn load() -> Engine {
    Engine::load(
        LoadOptions::new(tiny()),
        Attention::Compressed(compression()),
    )
    .unwrap()
}

fn request(engine: &Engine) -> Request {
    let text = "The sky is blue. ".repeat(20) + PROMPT;
    Request::new(engine.encode(&text).unwrap(), 16)
}

/// The texts of an answer's pieces, joined, and its end.
async fn read(mut answer: Answer<'_>) -> (String, Generation) {
    let (mut text, mut done) = (String::new(), None);
    while let Some(piece) = answer.next().await {
        match piece.unwrap() {
            Piece::Text(more) => {
                assert!(done.is_none() && !more.is_empty());
                text += &more;
            }
            Piece::Done(end) => done = Some(*end),
            other => panic!("{other:?}"),
        }
    }
    (text, done.expect("an answer ends"))
}

/// All but the seconds, which differ from run to run.
fn timeless(answer: &Generation) -> (&str, &[u32], usize, usize, usize) {
    (
        &answer.text,
        &answer.tokens,
        answer.prompt_tokens,
        answer.kv_bytes,
        answer.kept_bytes,
    )
}

#[test]
fn engines_go_from_thread_to_thread() {
    fn everywhere<T: Send + Sync + 'static>() {}
    fn awaited<T: Send>(_: impl FnOnce(&'static Engine) -> T) {}
    everywhere::<Engine>();
    everywhere::<Error>();
    everywhere::<Compression>();
    everywhere::<HeadKv>();
    everywhere::<Model>();
    // What a program spawns on a runtime of several threads.
    awaited(|engine| engine.generate_async(&[]));
    awaited(|engine| engine.encode_chat_async(""));
    fn streamed<T: Send>() {}
    streamed::<Answer<'static>>();
}

/// On one thread, where whatever blocked it would stop everything.
#[tokio::test]
async fn answers_are_those_of_the_blocking_calls() {
    let attention = Attention::Compressed(compression());
    let engine = Engine::load_async(LoadOptions::new(tiny()), attention).await;
    let engine = engine.unwrap();
    let asked = request(&engine);
    // The blocking form waits on a thread that belongs to a runtime, and the engine is dropped there in the end.
    let alone = engine
        .generate(std::slice::from_ref(&asked))
        .unwrap()
        .remove(0);
    let mut other = asked.clone();
    other.prompt.truncate(40);
    let pair = [asked.clone(), other];
    let (both, streamed) = tokio::join!(engine.generate_async(&pair), async {
        read(engine.stream(&asked).await.unwrap()).await
    });
    let both = both.unwrap();
    assert_eq!(timeless(&both[0]), timeless(&alone));
    assert_eq!(both[1].prompt_tokens, 40);
    assert_eq!(timeless(&streamed.1), timeless(&alone));
    assert_eq!(streamed.0, alone.text);
    let chat = engine.encode_chat_async("Who are you?").await.unwrap();
    assert_eq!(chat, engine.encode_chat("Who are you?").unwrap());
}

#[test]
fn a_stream_ends_before_a_stop_text_and_with_its_reader() {
    let engine = load();
    let asked = request(&engine);
    let whole = engine
        .generate(std::slice::from_ref(&asked))
        .unwrap()
        .remove(0);
    let middle = whole.text.len() / 2;
    let middle = (middle..)
        .find(|at| whole.text.is_char_boundary(*at))
        .unwrap();
    // Spread over tokens: nothing of it may have been passed on before it was complete.
    let stop = whole.text[middle..].to_string();
    assert!(stop.len() > 1, "{:?}", whole.text);
    let before = whole.text.split(&stop).next().unwrap();
    let stopped = asked.clone().stop_at(&stop);
    let mut answer = futures::executor::block_on(engine.stream(&stopped)).unwrap();
    let mut text = String::new();
    while let Some(piece) = answer.next_blocking() {
        match piece.unwrap() {
            Piece::Text(more) => text += &more,
            Piece::Done(done) => assert_eq!(done.text, before),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(text, before);

    let mut long = asked.clone();
    long.max_tokens = 2000;
    long.min_tokens = 2000;
    let mut answer = futures::executor::block_on(engine.stream(&long)).unwrap();
    assert!(matches!(answer.next_blocking(), Some(Ok(Piece::Text(_)))));
    drop(answer);
    // The engine sees in its next step that nobody reads; the next request waits for no 2,000 tokens.
    engine.generate(std::slice::from_ref(&asked)).unwrap();
    // A sequence goes one step after its answer.
    let held = || engine.compressed().unwrap().held_bytes();
    while held() > 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A scope around a future: only what loads in it is hooked, whichever thread it comes to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_holds_for_a_future() {
    let hook = HeadKv::new(compression()).unwrap();
    let load = || async {
        tokio::task::yield_now().await;
        let model = tiny().to_string_lossy().into_owned();
        let config = NormalSpecificConfig::default();
        let loader = NormalLoaderBuilder::new(config, None, None, Some(model), false, None)
            .build(None)
            .unwrap();
        let loaded = loader.load_model_from_hf(
            None,
            TokenSource::None,
            &ModelDType::F32,
            &candle_core::Device::Cpu,
            true,
            DeviceMapSetting::dummy(),
            None,
            None,
        );
        Model::of(&*loaded.unwrap().lock().await).is_some()
    };
    let (hooked, plain) = tokio::join!(hook.scope_async(load()), load());
    assert!(hooked && !plain);
}

#[test]
fn a_request_that_does_not_fit_is_refused_before_it_streams() {
    let engine = load();
    let asked = Request::new(vec![1; 10], usize::MAX);
    let refused = futures::executor::block_on(engine.stream(&asked)).err();
    assert!(
        matches!(refused, Some(Error::TooLong { .. })),
        "{refused:?}"
    );
    let upstream = Engine::load(LoadOptions::new(tiny()), Attention::Upstream).unwrap();
    assert!(matches!(
        upstream.compressed().err(),
        Some(Error::NotCompressed)
    ));
}

#[test]
fn scores_by_value_are_as_good_as_their_file() {
    let engine = load();
    let scores = HeadScores::read(&root().join("head_scores/tiny_retrieval.json")).unwrap();
    let asked = request(&engine);
    let by_value = asked
        .clone()
        .compressed(Compression::headkv(24).with_scores(scores));
    let answers = engine.generate(&[asked, by_value]).unwrap();
    assert_eq!(timeless(&answers[0]), timeless(&answers[1]));
    assert!(answers[0].kept_bytes > 0);
}
