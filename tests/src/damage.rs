//! Damaged files, and what has to hold for whatever is read of them.
//!
//! Tests try some thousand seeded damages of each kind of file and what proptest makes up, and the fuzz targets in `fuzz/`,
//! which compile this file without the runtime, try what they come upon.

use crate::readers::{check, outcome, state};
use candle_core::{Device, quantized::gguf_file};
use headkv_eval::{
    Row,
    datasets::arrow_stream,
    endpoint::answer,
    grid::Grid,
    report::{self, csv, html, markdown, tables},
    store::Results,
};
use headkv_files::lines;
use headkv_haystack::Patterns;
use headkv_plugin::ScoreLists;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    io::{self, Cursor},
    path::Path,
};

/// The header of a GGUF file: what passes, the runtime's own reader takes whole.
pub fn gguf(bytes: &[u8]) -> bool {
    let Ok(header) = check::gguf::read(bytes, bytes.len() as u64) else {
        return false;
    };
    let mut file = Cursor::new(bytes);
    let content = gguf_file::Content::read(&mut file).expect("what passes the check can be read");
    assert_eq!(content.tensor_infos.len() as u64, header.tensors);
    for name in content.tensor_infos.keys() {
        content
            .tensor(&mut file, name, &Device::Cpu)
            .expect("a tensor that passes the check can be read");
    }
    check::gguf::fit(&header).is_ok()
}

/// A safetensors file: what passes, the format's own reader takes.
pub fn safetensors(bytes: &[u8]) -> bool {
    let Ok(names) = check::safetensors::read(bytes, bytes.len() as u64) else {
        return false;
    };
    let read = safetensors::SafeTensors::deserialize(bytes);
    let read = read.expect("what passes the check can be read");
    assert_eq!(read.len(), names.len());
    true
}

/// What a prompt left in a model: what passes has a token for each of its keys.
pub fn state_file(bytes: &[u8]) -> bool {
    let Ok(state) = state::parse(bytes, "m") else {
        return false;
    };
    for x in state.layers.iter().flatten() {
        assert_eq!(x.dims().get(1), Some(&state.tokens.len()));
    }
    true
}

/// A score file: what passes is a full table that ranks heads.
pub fn score_file(bytes: &[u8]) -> bool {
    let Ok(read) = ScoreLists::parse(&String::from_utf8_lossy(bytes)) else {
        return false;
    };
    assert_eq!(read.lists.len(), read.layers * read.heads);
    assert!(read.lists.iter().all(|list| !list.is_empty()));
    let means = read.means().expect("what passes ranks heads");
    assert!(means.values().iter().all(|mean| *mean >= 0.0));
    true
}

/// The file of an unfinished scoring run, of four examples and two heads.
pub fn part_file(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let settings = serde_json::json!({"model": "m"});
    let Ok(done) = outcome::parse(&text, &settings, 4, 2) else {
        return false;
    };
    for (example, outcome) in done {
        assert!(example < 4 && (0.0..=1.0).contains(&outcome.f1));
        assert_eq!(outcome.scores.len(), 2);
        let possible = |score: &f64| score.is_finite() && *score >= 0.0;
        assert!(outcome.scores.iter().all(possible));
    }
    true
}

/// The rows of a folder of results: what passes becomes a report, and its averages are percentages.
pub fn rows_file(bytes: &[u8]) -> bool {
    let Ok(rows) = lines::parse::<Row>(Path::new("rows.jsonl"), bytes) else {
        return false;
    };
    let results = Results::of_rows(rows);
    let tables = tables(&results.rows);
    for line in tables.iter().flat_map(|table| &table.lines) {
        assert!((0.0..=100.0).contains(&line.average.mean), "{line:?}");
    }
    let _ = markdown(&tables);
    let table = csv(&tables);
    let mut reader = ::csv::Reader::from_reader(table.as_bytes());
    let records = reader.records().collect::<Result<Vec<_>, _>>();
    let records = records.expect("every record has the header's fields");
    let expected = tables.iter().map(|t| t.lines.len() * (t.columns.len() + 1));
    assert_eq!(records.len(), expected.sum::<usize>());
    html(&results, &report::Options::default()).expect("what passes is shown");
    true
}

/// A stream of Arrow's batches: rows, as many as there is room for, or an error of one line.
pub fn arrow_stream(bytes: &[u8]) -> bool {
    let open = || io::Result::Ok(Cursor::new(bytes));
    match arrow_stream::stream(Path::new("0.arrow"), open, ["input"], usize::MAX) {
        Ok(rows) => {
            // A text has four bytes of offset.
            assert!(rows.len() <= bytes.len() / 4);
            true
        }
        Err(error) => {
            assert!(!error.to_string().contains('\n'));
            false
        }
    }
}

/// A grid file: what passes is the same grid after it was written down for a report.
pub fn grid_file(bytes: &[u8]) -> bool {
    let Ok(text) = String::from_utf8(bytes.to_vec()) else {
        return false;
    };
    let path = Path::new("grid.toml");
    match Grid::parse(path, text) {
        Ok(grid) => {
            let settings = grid.settings().expect("it was text, and is text again");
            let again = Grid::parse(path, settings.clone()).expect("what is written can be read");
            let again = again.settings().expect("it was text before");
            assert_eq!(again, settings);
            grid.check().is_ok()
        }
        Err(error) => {
            assert!(!error.to_string().contains('\n'));
            false
        }
    }
}

/// What a server answers, to either kind of request: a text that is in the answer, or an error.
pub fn endpoint_answer(bytes: &[u8]) -> bool {
    [false, true].into_iter().all(|chat| {
        answer::read(bytes, chat).is_ok_and(|read| {
            assert!(read.text.len() <= bytes.len());
            true
        })
    })
}

/// A needle file: as many needles are drawn as are asked for, or none.
pub fn needle_file(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let read = Patterns::parse(Path::new("needles.jsonl"), &text);
    read.is_ok_and(|patterns| {
        patterns.draw(1, 3).is_ok_and(|drawn| {
            assert_eq!(drawn.len(), 3);
            true
        })
    })
}

/// The settings of a model folder: a tokenizer cuts no prompt after it was read, and configurations are checked.
pub fn settings_file(bytes: &[u8]) -> bool {
    let tokenizer = check::tokenizer::read(bytes);
    if tokenizer.is_ok()
        && let Ok(plain) = check::tokenizer::unlimited(bytes)
    {
        assert_eq!(check::tokenizer::read(&plain), Ok(false));
    }
    let config = serde_json::from_slice(bytes).is_ok_and(|config| {
        let parts = ["q", "k", "v", "o"].map(|name| format!("self_attn.{name}_proj"));
        let mlp = ["gate", "up", "down"].map(|name| format!("mlp.{name}_proj"));
        let tensors = parts.into_iter().chain(mlp);
        let tensors: Vec<_> = tensors
            .map(|part| format!("model.layers.0.{part}.weight"))
            .collect();
        check::config::check(&config, |_| true, &tensors).is_ok()
    });
    tokenizer.is_ok() || config
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
