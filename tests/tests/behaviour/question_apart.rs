//! A context is compressed before its question is known: the question sees what is kept, decides nothing, and stays whole.

use headkv_engine::{Engine, Request};
use headkv_eval::{
    Backend, Job, Row, Variant,
    datasets::{Target, needle},
    engine::InProcess,
    row::{Model, key},
};
use headkv_haystack::Template;
use headkv_plugin::Compression;
use headkv_tests::tiny_engine;
use mistralrs_core::attention_hook::PromptPolicy;
use std::num::NonZeroUsize;

/// A text, and questions about it.
fn texts(engine: &Engine) -> (Vec<u32>, Vec<Vec<u32>>) {
    let text = headkv_haystack::text::generate(3, 5_000);
    let questions = [
        "\nWho was there?",
        "\nHow did it end, and what did they want?",
    ];
    let encode = |text: &str| engine.encode(text).unwrap();
    (encode(&text), questions.map(encode).to_vec())
}

fn request(context: &[u32], then: &[u32], compression: Option<Compression>) -> Request {
    Request {
        then: then.to_vec(),
        compression,
        ..Request::new(context.to_vec(), 10)
    }
}

#[test]
fn with_nothing_dropped_it_makes_no_difference() {
    let engine = tiny_engine(|_| ());
    let (context, questions) = texts(&engine);
    for question in &questions {
        let together = Request::new([&context[..], question].concat(), 10);
        let apart = request(&context, question, None);
        let answers = engine.generate(&[together, apart]).unwrap();
        assert_eq!(answers[0].tokens, answers[1].tokens);
        assert_eq!(answers[0].prompt_tokens, answers[1].prompt_tokens);
        // What is kept is the context; the question lies with the answer.
        assert!(answers[1].kept_bytes < answers[0].kept_bytes);
    }
}

#[test]
fn the_context_is_kept_within_its_budget_and_the_question_whole() {
    let engine = tiny_engine(|_| ());
    let (context, questions) = texts(&engine);
    let shape = engine.shape();
    let token = 2 * shape.layers * shape.kv_heads * shape.head_dim * engine.element_bytes();
    for method in ["snapkv", "adakv", "streaming"] {
        for capacity in [16, 40] {
            let compression = Some(Compression::new(method, capacity));
            for question in &questions {
                let request = request(&context, question, compression.clone());
                let answer = engine.generate(&[request]).unwrap().remove(0);
                let about = format!("{method}@{capacity}");
                assert_eq!(answer.kept_bytes, capacity * token, "{about}");
                let after = question.len() + answer.tokens.len() - 1;
                assert!(
                    answer.kv_bytes - answer.kept_bytes >= after * token,
                    "{about}"
                );
            }
        }
    }
}

#[test]
fn several_questions_over_one_context_are_answered_as_each_alone() {
    let alone = tiny_engine(|_| ());
    let remembering = tiny_engine(|options| options.prefix_bytes = 1 << 30);
    let pieces = tiny_engine(|options| {
        options.prompts = PromptPolicy {
            tokens: 300,
            interleave: true,
        }
    });
    let (context, questions) = texts(&alone);
    let compression = Some(Compression::new("snapkv", 64));
    let ask = |engine: &Engine, question: &[u32]| {
        let request = request(&context, question, compression.clone());
        engine.generate(&[request]).unwrap().remove(0)
    };
    let batch: Vec<_> = questions
        .iter()
        .map(|question| request(&context, question, compression.clone()))
        .collect();
    let batch = alone.generate(&batch).unwrap();
    for (question, together) in questions.iter().zip(batch) {
        let expected = ask(&alone, question);
        assert_eq!(together.tokens, expected.tokens);
        for other in [&remembering, &pieces] {
            let answer = ask(other, question);
            assert_eq!(answer.kept_bytes, expected.kept_bytes);
            // Rounding may rank two tokens otherwise; the first token is far from undecided.
            assert_eq!(answer.tokens[0], expected.tokens[0]);
        }
    }
}

#[test]
fn a_context_of_nothing_is_refused() {
    let engine = tiny_engine(|_| ());
    let message = engine
        .generate(&[request(&[], &[1, 2, 3], None)])
        .unwrap_err()
        .to_string();
    assert!(message.contains("the prompt is empty"), "{message}");
}

#[test]
fn rows_say_it_and_the_benchmark_asks_it() {
    let backend = InProcess::load(&headkv_tests::tiny(), "cpu", None, NonZeroUsize::MIN).unwrap();
    let samples = |question_apart| {
        let options = needle::Options {
            haystack: None,
            seed: 0,
            needles: "words".into(),
            draws: 1,
            lengths: vec![600],
            depths: vec![50.0],
            template: Template::plain(),
            question_apart,
        };
        let target = Target {
            model: "tiny",
            tokenizer: backend.engine().tokenizer(),
            chat: None,
            context: 8192,
        };
        needle::samples(&options, &target).unwrap().remove(0)
    };
    let (together, apart) = (samples(false), samples(true));
    assert_eq!(together.prompt.text, apart.prompt.text);
    let model = Model {
        name: "tiny".into(),
        digest: "0".into(),
        backend: "cpu".into(),
    };
    let snapkv = Variant::new("snapkv").capacity(16);
    assert_ne!(
        key(&together, &model, &snapkv),
        key(&apart, &model, &snapkv)
    );
    let mut kept = Vec::new();
    for variant in [Variant::new("full"), snapkv] {
        backend.configure(&variant).unwrap();
        let rows = [&together, &apart].map(|sample| {
            let answer = backend.complete(&Job {
                prompt: &sample.prompt,
                before: None,
                min_tokens: 0,
                max_tokens: 20,
                stop: &sample.stop,
            });
            Row::new(sample, &model, &variant, Ok(answer.unwrap()))
        });
        assert_eq!(rows[0].prompt_tokens, rows[1].prompt_tokens);
        assert_eq!(rows[1].protocol, "question apart, plain");
        if variant.method == "full" {
            assert_eq!(rows[0].answer, rows[1].answer);
        }
        kept.push(rows.map(|row| row.kept_bytes.unwrap()));
    }
    // Of the whole prompt full keeps the question too; a budget is a budget in both.
    assert!(kept[0][0] > kept[0][1]);
    assert_eq!(kept[1][0], kept[1][1]);
}
