//! Damaged files, and what has to hold for whatever is read of them.
//!
//! A test tries some thousand seeded damages of each kind of file, and the fuzz targets in `fuzz/` try what they come upon.

use candle_core::{Device, quantized::gguf_file};
use head_scoring::{Kind, Settings, session};
use headkv_engine::check;
use headkv_haystack::Patterns;
use headkv_plugin::ScoreLists;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{io::Cursor, path::Path};

/// The header of a GGUF file: what passes, the runtime's own reader takes whole.
pub fn gguf(bytes: &[u8]) {
    let Ok(header) = check::gguf::read(bytes, bytes.len() as u64) else {
        return;
    };
    let mut file = Cursor::new(bytes);
    let content = gguf_file::Content::read(&mut file).expect("what passes the check can be read");
    assert_eq!(content.tensor_infos.len() as u64, header.tensors);
    for name in content.tensor_infos.keys() {
        content
            .tensor(&mut file, name, &Device::Cpu)
            .expect("a tensor that passes the check can be read");
    }
    let _ = check::gguf::fit(&header);
}

/// A safetensors file: what passes, the format's own reader takes.
pub fn safetensors(bytes: &[u8]) {
    if let Ok(names) = check::safetensors::read(bytes, bytes.len() as u64) {
        let read = safetensors::SafeTensors::deserialize(bytes);
        let read = read.expect("what passes the check can be read");
        assert_eq!(read.len(), names.len());
    }
}

/// What a prompt left in a model: what passes has a token for each of its keys.
pub fn state_file(bytes: &[u8]) {
    if let Ok(state) = headkv_engine::state::parse(bytes, "m") {
        for x in state.layers.iter().flatten() {
            assert_eq!(x.dims().get(1), Some(&state.tokens.len()));
        }
    }
}

/// A score file: what passes is a full table that ranks heads.
pub fn score_file(bytes: &[u8]) {
    if let Ok(read) = ScoreLists::parse(&String::from_utf8_lossy(bytes)) {
        assert_eq!(read.lists.len(), read.layers * read.heads);
        assert!(read.lists.iter().all(|list| !list.is_empty()));
        let means = read.means().expect("what passes ranks heads");
        assert!(means.values().iter().all(|mean| *mean >= 0.0));
    }
}

/// The file of an unfinished scoring run, of four examples and two heads.
pub fn part_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(done) = session::parse(&text, &settings(), 4, 2) {
        for (example, outcome) in done {
            assert!(example < 4 && (0.0..=1.0).contains(&outcome.f1));
            assert_eq!(outcome.scores.len(), 2);
            let possible = |score: &f64| score.is_finite() && *score >= 0.0;
            assert!(outcome.scores.iter().all(possible));
        }
    }
}

/// A needle file: what is drawn from it has no variables left.
pub fn needle_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(patterns) = Patterns::parse(Path::new("needles.jsonl"), &text) {
        let _ = patterns.draw(1, 3).map(|drawn| assert_eq!(drawn.len(), 3));
    }
}

/// The settings of a model folder: its tokenizer and its configuration.
pub fn settings_file(bytes: &[u8]) {
    if let (Ok(true), Ok(plain)) = (
        check::tokenizer::read(bytes),
        check::tokenizer::unlimited(bytes),
    ) {
        assert_eq!(check::tokenizer::read(&plain), Ok(false));
    }
    if let Ok(config) = serde_json::from_slice(bytes) {
        let _ = check::config::check(&config, |_| true, &["lm_head.weight".into()]);
    }
}

/// The settings of the unfinished run that [`part_file`] goes on with.
pub fn settings() -> Settings {
    Settings {
        model: "m".into(),
        weights_sha256: "0".into(),
        tokenizer_sha256: "0".into(),
        device: "cpu".into(),
        kind: Kind::Retrieval,
        needles: Vec::new(),
        haystack: "generated".into(),
        lengths: vec![1000],
        depths: vec![0.0],
        template: "plain".into(),
        max_tokens: 50,
        prompts_sha256: "0".into(),
        tool: "head-scoring".into(),
    }
}

/// The original with a few bytes changed, lost or repeated; a seed always gives the same.
pub fn damaged(original: &[u8], seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = original.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(0..bytes.len().max(1)).min(bytes.len());
        let run = rng.random_range(1..=16usize);
        let end = (at + run).min(bytes.len());
        match rng.random_range(0..8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            // Counts and offsets that no file has.
            3 | 4 => {
                let extremes = [0, 1, u64::MAX, u64::MAX / 2, 1 << 31, 1 << 40, 1 << 62];
                let value = extremes[rng.random_range(0..extremes.len())].to_le_bytes();
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
            5 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            _ if at < bytes.len() => bytes[at] = rng.random(),
            _ => {}
        }
    }
    bytes
}
