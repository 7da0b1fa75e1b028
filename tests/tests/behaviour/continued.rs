//! A conversation that goes on from what was kept of its last turn: nothing of that is read or ranked again.

use headkv_engine::{Attention, Engine, Generation, LoadOptions, Request};
use headkv_plugin::{Compression, hook::Reuse};

fn engine(method: &str, reuse: Reuse, prefix_bytes: usize) -> Engine {
    let options = LoadOptions {
        ignore_end: true,
        prefix_bytes,
        reuse,
        ..LoadOptions::new(headkv_tests::tiny())
    };
    let compression = Compression::new(method, 64);
    Engine::load(options, Attention::Compressed(compression)).unwrap()
}

fn text(engine: &Engine, seed: u64) -> Vec<u32> {
    let text = headkv_haystack::text::generate(seed, 5_000);
    engine.encode(&text).unwrap()
}

fn ask(engine: &Engine, prompt: &[u32]) -> Generation {
    let request = Request::new(prompt.to_vec(), 8);
    engine.generate(&[request]).unwrap().remove(0)
}

#[test]
fn with_nothing_dropped_it_is_exact() {
    let (kept, fresh) = (
        engine("full", Reuse::Compressed, 256 << 20),
        engine("full", Reuse::Exact, 0),
    );
    let mut prompt = text(&fresh, 1);
    let mut before = 0;
    for turn in 0..3 {
        let (answer, expected) = (ask(&kept, &prompt), ask(&fresh, &prompt));
        assert_eq!(answer.tokens, expected.tokens, "turn {turn}");
        assert_eq!(answer.reused_tokens, before);
        before = prompt.len();
        prompt.extend(&answer.tokens);
        prompt.extend(fresh.encode("And then? Who was there?").unwrap());
    }
    // Two that go on from one turn do not see each other.
    let others = ["Where?", "What did they want, and why?"]
        .map(|question| Request::new([&prompt[..], &fresh.encode(question).unwrap()].concat(), 8));
    ask(&kept, &prompt);
    let together = kept.generate(&others).unwrap();
    // The second one may find that the first one has taken the turn's place.
    let reused: Vec<_> = together.iter().map(|answer| answer.reused_tokens).collect();
    assert!(reused.contains(&prompt.len()), "{reused:?}");
    for (request, answer) in others.iter().zip(&together) {
        assert_eq!(answer.tokens, ask(&fresh, &request.prompt).tokens);
    }
}

#[test]
fn what_was_kept_stays_and_the_tail_is_bounded() {
    let kept = engine("snapkv", Reuse::Compressed, 256 << 20);
    let model = kept.compressed().unwrap();
    model.conversations().set_tail(100);
    let mut prompt = text(&kept, 2);
    let (first, ranked) = (ask(&kept, &prompt), prompt.len());
    for turn in 1..20 {
        let before = prompt.len();
        prompt.extend(&first.tokens);
        prompt.extend(kept.encode("And then? Who was there?").unwrap());
        let answer = ask(&kept, &prompt);
        if prompt.len() - ranked > 100 {
            assert!(turn > 2, "{turn}");
            assert_eq!(answer.reused_tokens, 0, "read anew");
            return;
        }
        assert_eq!(answer.reused_tokens, before);
        assert_eq!(answer.kept_bytes, first.kept_bytes);
    }
    panic!("the tail grew beyond its limit");
}

#[test]
fn another_configuration_or_another_text_is_read() {
    let kept = engine("snapkv", Reuse::Compressed, 256 << 20);
    let text = text(&kept, 3);
    ask(&kept, &text);
    let next = [&text[..], &[300, 301, 302]].concat();
    let other = Request {
        compression: Some(Compression::new("snapkv", 65)),
        ..Request::new(next.clone(), 2)
    };
    let mut changed = next.clone();
    changed[5] += 1;
    let requests = [other, Request::new(changed, 2), Request::new(next, 2)];
    let answers = kept.generate(&requests).unwrap();
    let reused = answers.iter().map(|answer| answer.reused_tokens);
    assert_eq!(reused.collect::<Vec<_>>(), [0, 0, text.len()]);
}

#[test]
fn a_document_is_compressed_once_for_all_of_its_questions() {
    for method in ["snapkv", "kvzip", "adakv"] {
        let (kept, fresh) = (
            engine(method, Reuse::Compressed, 256 << 20),
            engine(method, Reuse::Exact, 0),
        );
        let document = text(&fresh, 4);
        let questions =
            ["\nWho was there?", "\nHow did it end, and why?", "\nWhere?"].map(|question| {
                Request {
                    then: fresh.encode(question).unwrap(),
                    ..Request::new(document.clone(), 8)
                }
            });
        let expected = fresh.generate(&questions).unwrap();
        let held = |engine: &Engine| engine.compressed().unwrap().conversations().bytes();
        let mut once = None;
        for (at, (question, expected)) in questions.iter().zip(&expected).enumerate() {
            let answer = kept
                .generate(std::slice::from_ref(question))
                .unwrap()
                .remove(0);
            assert_eq!(answer.tokens, expected.tokens, "{method}, question {at}");
            assert_eq!(answer.kept_bytes, expected.kept_bytes);
            let known = if at == 0 { 0 } else { document.len() };
            assert_eq!(answer.reused_tokens, known, "{method}, question {at}");
            // What is remembered is the document, not who asked.
            assert_eq!(*once.get_or_insert(held(&kept)), answer.kept_bytes);
            assert_eq!(Some(held(&kept)), once);
        }
        let together = kept.generate(&questions).unwrap();
        for (answer, expected) in together.iter().zip(&expected) {
            assert_eq!(answer.tokens, expected.tokens, "{method}, together");
        }
        // A document that another one begins with is not that one.
        let longer = Request {
            then: questions[0].then.clone(),
            ..Request::new([&document[..], &[300; 20]].concat(), 2)
        };
        let answer = kept.generate(&[longer]).unwrap().remove(0);
        assert_eq!(answer.reused_tokens, 0, "{method}");
    }
}

#[test]
fn the_bytes_never_exceed_the_limit() {
    let limit = 3 << 20;
    let kept = engine("snapkv", Reuse::Compressed, limit);
    let conversations = kept.compressed().unwrap().conversations();
    let mut most = 0;
    for seed in 0..12 {
        ask(&kept, &text(&kept, seed)[..400]);
        most = most.max(conversations.bytes());
        assert!(conversations.bytes() <= limit);
    }
    // Of each 64 tokens are kept, of 8 KiB.
    assert_eq!(most, limit / (64 * 8192) * (64 * 8192));
    let last = [&text(&kept, 11)[..400], &[300]].concat();
    assert_eq!(ask(&kept, &last).reused_tokens, 400);
    let first = [&text(&kept, 0)[..400], &[300]].concat();
    assert_eq!(ask(&kept, &first).reused_tokens, 0);
}
