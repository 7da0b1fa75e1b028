//! A quantized GGUF file runs as the values that it stands for: exactly without a hook, and with one, whose activations have
//! eight bits, near them; its heads can be scored.

use anyhow::{Context, Result};
use candle_core::{
    Module, Tensor,
    quantized::{GgmlDType, QTensor},
};
use head_scoring::{
    Kind, Scorer,
    example::{Example, Grid},
};
use headkv_engine::{Attention, Engine, Generation, LoadOptions, Request};
use headkv_eval::{cli, store::Results};
use headkv_haystack::{Haystack, Patterns, Template, pattern::Builtin};
use headkv_plugin::{Compression, hook::Panels};
use headkv_tests::quantized_tiny;
use mistralrs_core::linear_hook::{self, LinearHook, Quantized};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

fn answer(engine: &Engine, prompt: &str, tokens: usize) -> Result<Generation> {
    let mut request = Request::new(engine.encode(prompt)?, tokens);
    request.keep_logits = true;
    engine.generate(&[request])?.pop().context("no answer")
}

#[test]
fn a_quantized_file_gives_the_logits_of_the_values_it_stands_for() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (file, folder) = quantized_tiny(dir.path(), GgmlDType::Q4_1)?;
    let prompt = "The key to the garden is under the third stone from the door. Where is the key?";
    let [file, folder] = [file, folder].map(|path| -> Result<Generation> {
        answer(
            &Engine::load(LoadOptions::new(path), Attention::Upstream)?,
            prompt,
            16,
        )
    });
    let (file, folder) = (file?, folder?);
    assert_eq!(file.tokens, folder.tokens);
    let pairs = file
        .logits
        .iter()
        .flatten()
        .zip(folder.logits.iter().flatten());
    let differences = pairs.map(|(a, b)| (a - b).abs());
    // Unlike f32::max, the order of all floats does not lose a NaN.
    let worst = differences.max_by(f32::total_cmp).unwrap_or(0.0);
    assert!(worst < 1e-3, "logits differ by {worst}");
    Ok(())
}

/// How far logits are from others, as a share of how far these are spread: the root of the mean square.
fn distance(logits: &[Vec<f32>], others: &[Vec<f32>]) -> f64 {
    let (mut far, mut spread) = (0.0, 0.0);
    for (logits, others) in logits.iter().zip(others) {
        let mean = others.iter().sum::<f32>() / others.len() as f32;
        for (logit, other) in logits.iter().zip(others) {
            far += f64::from(logit - other).powi(2);
            spread += f64::from(other - mean).powi(2);
        }
    }
    (far / spread).sqrt()
}

const PROMPT: &str =
    "The key to the garden is under the third stone from the door. Where is the key?";

fn full() -> Attention {
    Attention::Compressed(Compression::new("full", 16))
}

#[test]
fn rounded_activations_stay_near_the_values_in_every_format() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for format in [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ] {
        let (file, folder) = quantized_tiny(dir.path(), format)?;
        let load = |path: PathBuf, attention| Engine::load(LoadOptions::new(path), attention);
        let exact = answer(&load(folder, Attention::Upstream)?, PROMPT, 8)?;
        let near = answer(&load(file, full())?, PROMPT, 8)?;
        // Tokens after one that differs have another past.
        let same = exact.tokens.iter().zip(&near.tokens);
        let same = same.take_while(|(a, b)| a == b).count() + 1;
        assert!(same >= 2, "{format:?}: the first token differs");
        let same = same.min(exact.logits.len());
        let far = distance(&near.logits[..same], &exact.logits[..same]);
        println!("{format:?}: {far:.5} over {same} tokens");
        assert!(
            far < 0.06,
            "{format:?}: logits are {far} of their spread away"
        );
        assert!(far > 0.0, "{format:?}: activations were not rounded");
    }
    Ok(())
}

/// Counts what it is offered, and takes it as the plugin does.
#[derive(Default)]
struct Counting {
    quantized: AtomicUsize,
    others: AtomicUsize,
}

impl LinearHook for Counting {
    fn linear(
        &self,
        weight: &Tensor,
    ) -> candle_core::Result<Option<Box<dyn Module + Send + Sync>>> {
        self.others.fetch_add(1, Relaxed);
        Panels::default().linear(weight)
    }

    fn quantized(&self, weight: &QTensor) -> candle_core::Result<Option<Arc<dyn Quantized>>> {
        self.quantized.fetch_add(1, Relaxed);
        Panels::default().quantized(weight)
    }
}

#[test]
fn every_layer_comes_to_the_hook_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (file, _) = quantized_tiny(dir.path(), GgmlDType::Q4_1)?;
    let quantized = LoadOptions {
        isq: Some("q4_1".parse()?),
        ..LoadOptions::new(headkv_tests::tiny())
    };
    // Seven in each of eight layers, and the head, which is the file's embedding too.
    for options in [LoadOptions::new(file), quantized] {
        let hook = Arc::new(Counting::default());
        let load = || Engine::load(options, Attention::Upstream);
        let engine = linear_hook::sync_scope(hook.clone(), load)?;
        assert_eq!(answer(&engine, PROMPT, 2)?.tokens.len(), 2);
        let counted = (hook.quantized.load(Relaxed), hook.others.load(Relaxed));
        assert_eq!(counted, (57, 0));
    }
    Ok(())
}

#[test]
fn a_folder_is_quantized_while_it_loads() -> Result<()> {
    let load = |isq: Option<&str>| -> Result<Engine> {
        let mut options = LoadOptions::new(headkv_tests::tiny());
        options.isq = isq.map(str::parse).transpose()?;
        Ok(Engine::load(options, full())?)
    };
    let plain = load(None)?;
    let exact = answer(&plain, PROMPT, 1)?;
    let mut before = 0.0;
    // Fewer bits are further away.
    for format in ["q8_0", "q6k", "q4k"] {
        let engine = load(Some(format))?;
        assert_eq!(engine.name(), format!("{}:{format}", plain.name()));
        assert_eq!(
            engine.identity()?,
            format!("{format}:{}", plain.identity()?)
        );
        let far = distance(&answer(&engine, PROMPT, 1)?.logits, &exact.logits);
        println!("{format}: {far:.5}");
        assert!(far > before && far < 0.5, "{format}: {far} after {before}");
        before = far;
    }
    Ok(())
}

#[test]
fn what_cannot_be_quantized_while_it_loads_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (file, _) = quantized_tiny(dir.path(), GgmlDType::Q4_1)?;
    let mut options = LoadOptions::new(file);
    options.isq = Some("q4k".parse()?);
    let Err(error) = Engine::load(options, full()) else {
        anyhow::bail!("a file was quantized twice");
    };
    assert!(error.to_string().contains("leave out --isq"), "{error}");
    Ok(())
}

#[test]
fn rows_of_another_quantization_are_another_models() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let tiny = headkv_tests::tiny();
    for isq in [&[][..], &["--isq", "q4_0"], &["--isq", "Q8_0"]] {
        let mut arguments = vec!["headkv-eval", "needle", "--needles", "san-francisco"];
        arguments.extend(["--method", "full", "--lengths", "300"]);
        arguments.extend(["--model", tiny.to_str().context("path")?]);
        arguments.extend(["--out", dir.path().to_str().context("path")?]);
        arguments.extend(isq);
        assert!(cli::run_with(arguments)?, "prompts failed");
    }
    let rows = Results::read(dir.path())?.rows;
    let mut models: Vec<_> = rows.iter().map(|row| &row.model).collect();
    models.sort();
    models.dedup();
    assert_eq!(models, ["tiny", "tiny:q4_0", "tiny:q8_0"]);
    Ok(())
}

#[test]
fn scores_of_a_quantized_file_do_not_depend_on_the_batch() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (file, _) = quantized_tiny(dir.path(), GgmlDType::Q4_1)?;
    let scorer = Scorer::load(LoadOptions::new(file))?;
    let grid = Grid {
        needles: Patterns::builtin(Builtin::Retrieval).draw(1, 3)?,
        haystack: Haystack::generated(1),
        lengths: vec![200, 300],
        depths: vec![0.0, 20.0, 40.0, 60.0, 80.0, 100.0],
        template: Template::plain(),
    };
    let examples = grid.examples(scorer.engine())?;
    let all: Vec<&Example> = examples.iter().collect();
    let measure = |batch: usize| -> Result<Vec<_>> {
        let outcomes = all.chunks(batch);
        let outcomes = outcomes.map(|batch| scorer.measure(Kind::Enhanced, batch, 30));
        Ok(outcomes.collect::<Result<Vec<_>, _>>()?.concat())
    };
    let (alone, together) = (measure(1)?, measure(12)?);
    assert_eq!(alone.len(), 36);
    for (at, (alone, together)) in alone.iter().zip(&together).enumerate() {
        assert_eq!(alone, together, "example {at}");
    }
    Ok(())
}

#[test]
fn smollm2_answers() -> Result<()> {
    let default = headkv_tests::root().join("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    let file = std::env::var_os("HEADKV_SMOLLM2").map_or(default, PathBuf::from);
    if !file.exists() {
        eprintln!(
            "SKIPPED: {} is not there (run scripts/fetch-smollm2.sh)",
            file.display()
        );
        return Ok(());
    }
    let compression = Compression::new("snapkv", 64);
    let engine = Engine::load(LoadOptions::new(file), Attention::Compressed(compression))?;
    let prompt =
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";
    let answer = answer(&engine, prompt, 12)?;
    assert!(answer.text.contains("Paris"), "{}", answer.text);
    Ok(())
}
