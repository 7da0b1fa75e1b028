//! What a prompt left in one process is read on from in another, and no file is taken that is not exactly that.

use headkv_engine::{Attention, Engine, Generation, LoadOptions, Request};
use headkv_plugin::{
    Compression,
    prefix::{BLOCK, Place},
};
use headkv_tests::{damage::damaged, random_llama, root, tiny};
use std::{fs, path::Path, sync::LazyLock};
use tempfile::TempDir;

/// Bytes that a token takes in the embedded model.
const TOKEN: usize = 8 * 4 * 32 * 2 * size_of::<f32>();

fn engine(model: &Path, method: &str, prefix_bytes: usize) -> Engine {
    let options = LoadOptions {
        prefix_bytes,
        ignore_end: true,
        ..LoadOptions::new(model)
    };
    let compression = Compression {
        scores: Some(root().join("head_scores/tiny_retrieval.json").into()),
        ..Compression::new(method, 32)
    };
    Engine::load(options, Attention::Compressed(compression)).unwrap()
}

fn text(engine: &Engine) -> Vec<u32> {
    let text = headkv_haystack::text::generate(11, 4_000);
    engine.encode(&text).unwrap()
}

fn answer(engine: &Engine, prompt: &[u32]) -> Generation {
    let request = Request {
        keep_logits: true,
        ..Request::new(prompt.to_vec(), 12)
    };
    engine.generate(&[request]).unwrap().remove(0)
}

/// A state of the embedded model, saved once for all tests.
static SAVED: LazyLock<(TempDir, usize)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&tiny(), "full", 64 << 20);
    let tokens = engine.save_state(&text(&engine), &dir.path().join("state"));
    (dir, tokens.unwrap())
});

fn saved() -> (Vec<u8>, usize) {
    let bytes = fs::read(SAVED.0.path().join("state")).unwrap();
    (bytes, SAVED.1)
}

#[test]
fn what_one_engine_saved_another_reads_on_from() {
    let (bytes, tokens) = saved();
    assert!(bytes.len() > tokens * TOKEN && bytes.len() < tokens * TOKEN + 10_000);
    for method in ["full", "headkv"] {
        let loaded = engine(&tiny(), method, tokens * TOKEN);
        let file = SAVED.0.path().join("state");
        assert_eq!(loaded.load_state(&file).unwrap(), tokens);
        let fresh = engine(&tiny(), method, 0);
        let text = text(&fresh);
        assert_eq!(tokens, text.len() / BLOCK * BLOCK);
        for question in ["What is told?", "Who was there, and why?"] {
            let question = fresh.encode(question).unwrap();
            let prompt = [&text[..], &question[..]].concat();
            let (ours, expected) = (answer(&loaded, &prompt), answer(&fresh, &prompt));
            assert_eq!((ours.reused_tokens, expected.reused_tokens), (tokens, 0));
            assert_eq!(ours.kept_bytes, expected.kept_bytes);
            let pairs = ours.logits[0].iter().zip(&expected.logits[0]);
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-3, "{method}: logits differ by {worst}");
            if method == "full" {
                assert_eq!(ours.tokens, expected.tokens);
            }
        }
    }
}

/// Tries to load a file of these bytes; the message, which is one line.
fn refusal(engine: &Engine, bytes: &[u8]) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("damaged");
    fs::write(&file, bytes).unwrap();
    engine
        .compressed()
        .unwrap()
        .prefixes()
        .restart(64 << 20, Place::Host);
    let message = engine.load_state(&file).err()?.to_string();
    assert!(
        !message.contains('\n') && message.contains("damaged: "),
        "{message}"
    );
    assert_eq!(engine.compressed().unwrap().prefixes().bytes(), 0);
    Some(message)
}

#[test]
fn a_file_that_was_cut_or_changed_is_refused() {
    let engine = engine(&tiny(), "full", 64 << 20);
    let (whole, _) = saved();
    assert_eq!(refusal(&engine, &whole), None);
    for end in [0, 7, 100, 2_000, whole.len() / 2, whole.len() - 1] {
        let message = refusal(&engine, &whole[..end]).unwrap();
        assert!(message.ends_with("save it again"), "{message}");
    }
    // Keys, values and token ids, first and last ones.
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for at in [header, header + 1000, whole.len() / 2, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        let message = refusal(&engine, &changed).unwrap();
        assert!(message.contains("was changed or damaged"), "{message}");
    }
    let text = String::from_utf8_lossy(&whole[..header]).into_owned();
    let other = text.find(r#""version":"1""#).unwrap() + r#""version":""#.len();
    let mut changed = whole.clone();
    changed[other] = b'7';
    let message = refusal(&engine, &changed).unwrap();
    assert!(message.contains("is of version 7"), "{message}");
    for seed in 0..50 {
        let bytes = damaged(&whole[..header + 64], seed);
        let bytes = [&bytes[..], &whole[header + 64..]].concat();
        if bytes != whole {
            refusal(&engine, &bytes).unwrap();
        }
    }
}

#[test]
fn what_is_no_state_of_this_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other");
    random_llama(&other, 1);
    let other = engine(&other, "full", 64 << 20);
    let (whole, tokens) = saved();
    let message = refusal(&other, &whole).unwrap();
    assert!(message.contains("is of another model"), "{message}");

    let small = engine(&tiny(), "full", tokens * TOKEN - 1);
    let file = SAVED.0.path().join("state");
    let message = small.load_state(&file).unwrap_err().to_string();
    assert!(message.contains("raise --prefix-bytes"), "{message}");
    let message = small
        .save_state(&text(&small), &dir.path().join("s"))
        .unwrap_err();
    assert!(
        message.to_string().contains("raise --prefix-bytes"),
        "{message}"
    );
    let weights = small
        .load_state(&tiny().join("model.safetensors"))
        .unwrap_err();
    assert!(
        weights.to_string().contains("is no state of a prompt"),
        "{weights}"
    );
    let missing = small.load_state(&dir.path().join("nowhere")).unwrap_err();
    assert!(missing.to_string().contains("cannot be read"), "{missing}");
    let short = small
        .save_state(&[1, 2, 3], &dir.path().join("s"))
        .unwrap_err();
    assert!(short.to_string().contains("at least 64"), "{short}");
    assert!(!dir.path().join("s").exists());
}
