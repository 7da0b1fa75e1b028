//! A quantized model takes what its file takes: weights are nowhere widened, and a tied head is held once.

use anyhow::{Context, Result};
use candle_core::quantized::GgmlDType;
use headkv_engine::{Attention, Engine, Isq, LoadOptions, Request};
use headkv_plugin::Compression;
use headkv_tests::{Counting, quantized_tiny};
use std::path::{Path, PathBuf};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// What a loaded model holds after an answer, and the most that it held. It stays in `engines`: what ends frees its memory in
/// its own time.
fn held(engines: &mut Vec<Engine>, model: &Path, isq: Option<Isq>) -> Result<(f64, f64)> {
    let before = ALLOCATOR.restart();
    let options = LoadOptions {
        isq,
        ..LoadOptions::new(model)
    };
    let full = Attention::Compressed(Compression::new("full", 16));
    let engine = Engine::load(options, full)?;
    let prompt = engine.encode(&"one two three four five six seven ".repeat(40))?;
    engine.generate(&[Request::new(prompt, 4)])?;
    engines.push(engine);
    let (live, peak) = (ALLOCATOR.live() - before, ALLOCATOR.peak() - before);
    Ok((live as f64, peak as f64))
}

#[test]
fn weights_take_their_files_bytes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let engines = &mut Vec::new();
    let files = [GgmlDType::Q4_0, GgmlDType::Q8_0]
        .map(|format| -> Result<PathBuf> { Ok(quantized_tiny(dir.path(), format)?.0) });
    let [small, large] = files;
    let (small, large) = (small?, large?);
    let size = |file: &Path| -> Result<f64> { Ok(file.metadata()?.len() as f64) };
    // What is there after the first time: threads, and what they keep for themselves.
    held(engines, &small, None)?;
    let (less, less_at_most) = held(engines, &small, None)?;
    let (more, more_at_most) = held(engines, &large, None)?;
    let differ = size(&large)? - size(&small)?;
    println!(
        "{differ} bytes between the files, {} held, {} at most",
        more - less,
        more_at_most - less_at_most
    );
    // All else is the same for both: tokenizer, tables of positions, keys and values.
    assert!(differ > 2e6, "the files are too alike");
    assert!(
        (more - less) < 1.05 * differ,
        "{} for {differ}",
        more - less
    );
    let at_most = more_at_most - less_at_most;
    assert!(at_most < 1.25 * differ, "{at_most} at most for {differ}");

    let tiny = headkv_tests::tiny();
    let (plain, _) = held(engines, &tiny, None)?;
    let (quantized, _) = held(engines, &tiny, Some("q4_0".parse().context("format")?))?;
    // Layers from 16 bits to 4.5; the embedding stays, and its copy in bf16 that was the head is quantized too.
    println!("{plain} held by bf16, {quantized} by q4_0");
    assert!(
        plain - quantized > 0.6 * 2.0 * 5_900_000.0,
        "{quantized} for {plain}"
    );
    Ok(())
}
