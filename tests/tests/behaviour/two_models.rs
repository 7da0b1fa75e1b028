//! Models of different shapes, methods and score files work side by side in one process, and an unhooked one beside
//! them is upstream's.

use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_plugin::Compression;
use std::thread;

fn requests(engine: &Engine) -> Vec<Request> {
    let story = headkv_haystack::text::generate(5, 4_000);
    let cut = |from: usize, to: usize| engine.encode(&story[from..to]).unwrap();
    let prompts = [cut(0, 900), cut(700, 2_000), cut(1_500, 3_900)];
    prompts.map(|prompt| Request::new(prompt, 24)).to_vec()
}

fn tokens(engine: &Engine, requests: &[Request]) -> Vec<Vec<u32>> {
    let answers = engine.generate(requests).unwrap();
    answers.into_iter().map(|answer| answer.tokens).collect()
}

#[test]
fn models_do_not_know_each_other() {
    let folder = tempfile::tempdir().unwrap();
    headkv_tests::random_llama(folder.path(), 1);
    let options = |path: &std::path::Path| LoadOptions {
        ignore_end: true,
        ..LoadOptions::new(path)
    };
    let (tiny, random) = (options(&headkv_tests::tiny()), options(folder.path()));
    let headkv = || {
        Attention::Compressed(Compression {
            scores: Some(
                headkv_tests::root()
                    .join("head_scores/tiny_retrieval.json")
                    .into(),
            ),
            ..Compression::new("headkv", 24)
        })
    };
    let snapkv = || Attention::Compressed(Compression::new("snapkv", 40));

    // Each alone: the other is not even loaded.
    let alone = |options: &LoadOptions, attention: Attention| {
        let engine = Engine::load(options.clone(), attention).unwrap();
        tokens(&engine, &requests(&engine))
    };
    let expected = [alone(&tiny, headkv()), alone(&random, snapkv())];
    // One by one: upstream's own attention is wrong for batches on the CPU.
    let upstream = |engine: &Engine| -> Vec<Vec<u32>> {
        let one = |request| tokens(engine, std::slice::from_ref(request)).remove(0);
        requests(engine).iter().map(one).collect()
    };
    let unhooked = upstream(&Engine::load(tiny.clone(), Attention::Upstream).unwrap());

    let models = [
        Engine::load(tiny.clone(), headkv()).unwrap(),
        Engine::load(random, snapkv()).unwrap(),
    ];
    let beside = Engine::load(tiny, Attention::Upstream).unwrap();
    assert!(
        beside.compressed().is_err(),
        "it was loaded outside the scopes"
    );
    assert_ne!(models[0].shape(), models[1].shape());
    thread::scope(|scope| {
        let running = models.iter().zip(&expected).map(|(model, expected)| {
            scope.spawn(move || {
                for round in 0..3 {
                    assert_eq!(&tokens(model, &requests(model)), expected, "round {round}");
                }
            })
        });
        let running: Vec<_> = running.collect();
        assert_eq!(upstream(&beside), unhooked);
        for thread in running {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_request_has_its_own_configuration_and_its_own_usage() {
    let options = LoadOptions::new(headkv_tests::tiny());
    let full = Attention::Compressed(Compression::new("full", 16));
    let engine = Engine::load(options.clone(), full).unwrap();
    let plain = requests(&engine).remove(2);
    let with = |capacity: usize| Request {
        compression: Some(Compression::new("snapkv", capacity)),
        ..plain.clone()
    };
    let together = [with(16), plain.clone(), with(64)];
    let answers = engine.generate(&together).unwrap();
    let token_bytes = 2 * 8 * 4 * 32 * size_of::<f32>();
    let kept: Vec<usize> = answers
        .iter()
        .map(|answer| answer.kept_bytes / token_bytes)
        .collect();
    assert_eq!(kept, [16, plain.prompt.len(), 64]);
    for (request, answer) in together.iter().zip(&answers) {
        let alone = engine.generate(std::slice::from_ref(request)).unwrap();
        assert_eq!(alone[0].tokens, answer.tokens);
    }
    let wrong = Request {
        compression: Some(Compression::new("snapkb", 16)),
        ..plain
    };
    let message = engine.generate(&[wrong]).unwrap_err().to_string();
    assert!(message.contains("snapkb"), "{message}");
    let model = engine.compressed().unwrap();
    let held = || model.held_bytes();
    let start = std::time::Instant::now();
    while held() > 0 && start.elapsed().as_secs() < 20 {
        thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(held(), 0, "bytes held after all answers");
}
