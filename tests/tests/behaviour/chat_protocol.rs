//! The chat protocol: the model's own template goes around a prompt, and each of its own stop tokens ends an answer.

use headkv_engine::{Attention, Engine, LoadOptions, Request};
use headkv_eval::{Backend, Failure, Job, Variant, engine::InProcess, sample::Prompt};
use std::{fs, num::NonZeroUsize};

/// The embedded model with that list of end tokens in its generation_config.json.
fn with_ends(ids: [u32; 2]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(headkv_tests::tiny()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    let config = format!(r#"{{"bos_token_id": 0, "eos_token_id": {ids:?}, "pad_token_id": 0}}"#);
    fs::write(dir.path().join("generation_config.json"), config).unwrap();
    dir
}

/// A prompt, what the embedded model goes on with, and two places in that: neither token stands anywhere before.
fn continuation() -> (Vec<u32>, Vec<u32>, [usize; 2]) {
    let options = LoadOptions {
        ignore_end: true,
        ..LoadOptions::new(headkv_tests::tiny())
    };
    let engine = Engine::load(options, Attention::Upstream).unwrap();
    // Digits are texts of the vocabulary, which is how the runtime looks end tokens up; most words have a space in front.
    let text = "One of the special magic numbers for amber anchor is: 4718293. Based on the content of the book, Question: \
                What is the special magic number for amber anchor mentioned in the provided text?\nAnswer:";
    let prompt = engine.encode(text).unwrap();
    let request = Request::new(prompt.clone(), 16);
    let tokens = engine.generate(&[request]).unwrap().remove(0).tokens;
    let vocabulary = engine.tokenizer().get_vocab(true);
    let known = |token: u32| {
        let text = engine.tokenizer().decode(&[token], false).unwrap();
        vocabulary.get(&text) == Some(&token)
    };
    let mut places =
        (1..tokens.len()).filter(|&at| known(tokens[at]) && !tokens[..at].contains(&tokens[at]));
    let two = [places.next(), places.next()].map(|at| at.expect("two such tokens"));
    (prompt, tokens, two)
}

#[test]
fn every_stop_token_of_the_model_ends_an_answer_but_not_its_first_token_if_asked() {
    let (prompt, tokens, [first, second]) = continuation();
    let dir = with_ends([tokens[first], tokens[second]]);
    let engine = Engine::load(LoadOptions::new(dir.path()), Attention::Upstream).unwrap();
    let answer = |shown: usize, min_tokens| {
        let prompt = [&prompt, &tokens[..shown]].concat();
        let request = Request {
            min_tokens,
            ..Request::new(prompt, 64)
        };
        engine.generate(&[request]).unwrap().remove(0)
    };
    assert_eq!(answer(0, 0).tokens, tokens[..=first]);
    let behind = first + 1;
    assert_eq!(answer(behind, 0).tokens, tokens[behind..=second]);
    let empty = answer(first, 0);
    assert_eq!(
        (empty.tokens.as_slice(), &*empty.text),
        (&tokens[first..=first], "")
    );
    let filled = answer(first, 1);
    assert!(![tokens[first], tokens[second]].contains(&filled.tokens[0]));
    assert!(!filled.text.is_empty());
}

const FRAMED: &str = "<|im_start|>user\nWhere is the needle?<|im_end|>\n<|im_start|>assistant\n";

#[test]
fn a_message_gets_the_models_own_template() {
    let backend = InProcess::load(&headkv_tests::tiny(), "cpu", None, NonZeroUsize::MIN).unwrap();
    let engine = backend.engine();
    let framed = engine.encode(FRAMED).unwrap();
    assert_eq!(backend.chat("Where is the needle?").unwrap(), framed);
    // The template asks for the same answer as its text does.
    backend.configure(&Variant::new("full")).unwrap();
    let answer = |text: &str, chat| {
        let prompt = Prompt {
            text: text.into(),
            chat,
            special: false,
            apart: None,
        };
        let job = Job {
            before: None,
            prompt: &prompt,
            min_tokens: 1,
            max_tokens: 12,
            stop: &[],
        };
        backend.complete(&job).unwrap()
    };
    let (chat, text) = (answer("Where is the needle?", true), answer(FRAMED, false));
    assert_eq!(chat.prompt_tokens, framed.len());
    assert_eq!((&chat.text, chat.tokens), (&text.text, text.tokens));
    assert!(chat.tokens > 0);
}

#[test]
fn a_prompt_that_is_too_long_fails_alone() {
    let backend = InProcess::load(&headkv_tests::tiny(), "cpu", None, NonZeroUsize::MIN).unwrap();
    for chat in [false, true] {
        let prompt = Prompt {
            text: "needle ".repeat(9000),
            chat,
            special: !chat,
            apart: None,
        };
        let job = Job {
            before: None,
            prompt: &prompt,
            min_tokens: 0,
            max_tokens: 12,
            stop: &[],
        };
        match backend.complete(&job) {
            Err(Failure::Row(why)) => assert!(why.contains("16384"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}
