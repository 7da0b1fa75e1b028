//! Upstream's attention against ours: prompt and decode speed, KV bytes, peak memory.
//!
//! Every measurement runs in a process of its own, because the peak of resident memory belongs to a process; the
//! configurations take turns, because a machine's speed drifts.

use crate::{engine::Outline, gpu_memory, table};
use anyhow::{Context, Result, bail};
use headkv_engine::{Attention, Device, Engine, Generation, LoadOptions, Request};
use headkv_files::terminal;
use headkv_haystack::text;
use headkv_plugin::Compression;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::Command,
};

/// What to compare.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Model folder or .gguf file [default: the embedded model, tiny]
    #[arg(long, value_name = "DIR|FILE", help_heading = "Model")]
    pub model: Option<PathBuf>,
    /// Prompt lengths in tokens
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1000,4000,8000",
        help_heading = "Benchmark"
    )]
    pub lengths: Vec<usize>,
    /// Paths to compare: upstream, paged (on a GPU), full, or METHOD@CAPACITY
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "upstream,full,headkv@32",
        help_heading = "Method"
    )]
    pub paths: Vec<String>,
    /// Tokens to generate, 2 or more: the first one belongs to the prompt
    #[arg(long, default_value_t = 64, help_heading = "Benchmark")]
    pub decode: usize,
    /// Copies of the prompt that decode together
    #[arg(long, default_value = "1", help_heading = "Benchmark")]
    pub batch: NonZeroUsize,
    /// Measurements of each, of which the median counts
    #[arg(long, default_value = "3", help_heading = "Benchmark")]
    pub rounds: NonZeroUsize,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", help_heading = "Model")]
    pub device: String,
}

/// One measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct One {
    /// Model folder or file.
    #[arg(long)]
    pub model: PathBuf,
    /// Prompt tokens.
    #[arg(long)]
    pub length: usize,
    /// Tokens to generate.
    #[arg(long)]
    pub decode: usize,
    /// Copies of the prompt.
    #[arg(long)]
    pub batch: NonZeroUsize,
    /// The path to measure.
    #[arg(long)]
    pub path: String,
    /// The device.
    #[arg(long)]
    pub device: String,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Measured {
    prompt: f64,
    decode: f64,
    kv_bytes: f64,
    peak_bytes: f64,
    /// What tensors take of the GPU's memory once the last token is there; none on the CPU.
    held_bytes: Option<f64>,
}

/// Measures all paths at all lengths in turn, and prints a table of medians and the ratios to the first path.
///
/// # Errors
/// Wrong input, or a measurement that failed.
pub fn run(options: &Options) -> Result<()> {
    let model = match &options.model {
        Some(model) => model.clone(),
        None => headkv_embedded::model()?,
    };
    let device = options.device.parse::<Device>()?;
    for path in &options.paths {
        attention(path, &model, 0)?;
    }
    check(options, Outline::read(&model)?.context)?;
    let total = options.rounds.get() * options.lengths.len() * options.paths.len();
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} measurements, {eta} left  {msg}")?;
    let bar = ProgressBar::new(total as u64).with_style(style);
    let mut measured: BTreeMap<(usize, usize), Vec<Measured>> = BTreeMap::new();
    for _ in 0..options.rounds.get() {
        for &length in &options.lengths {
            for (number, path) in options.paths.iter().enumerate() {
                bar.set_message(format!("{path} at {length} tokens"));
                let mut command = Command::new(std::env::current_exe()?);
                command
                    .args([
                        "bench-one",
                        "--length",
                        &length.to_string(),
                        "--decode",
                        &options.decode.to_string(),
                        "--batch",
                        &options.batch.to_string(),
                    ])
                    .args(["--path", path, "--device", &options.device, "--model"])
                    .arg(&model)
                    // As the driver's tool counts cards.
                    .env("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
                let (output, gpu_bytes) = gpu_memory::watch(device, || command.output());
                let output = output?;
                if !output.status.success() {
                    bail!(
                        "{path} at {length} tokens ended with {}: {}",
                        output.status,
                        terminal::one_line(&String::from_utf8_lossy(&output.stderr))
                    );
                }
                let mut one: Measured = serde_json::from_slice(&output.stdout)?;
                one.peak_bytes = gpu_bytes.unwrap_or(one.peak_bytes);
                measured.entry((length, number)).or_default().push(one);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    terminal::print(&report(options, &measured))?;
    Ok(())
}

/// Refuses what has no figure, or one of a cut prompt.
fn check(options: &Options, context: Option<usize>) -> Result<()> {
    if options.lengths.is_empty() || options.paths.is_empty() {
        bail!("nothing to run: name lengths with --lengths and paths with --paths");
    }
    if options.decode < 2 {
        bail!(
            "--decode {} leaves no step to measure; use 2 or more",
            options.decode
        );
    }
    let fits = |length: usize| {
        let all = length.saturating_add(options.decode);
        length > 0 && context.is_none_or(|context| all <= context)
    };
    match options.lengths.iter().find(|length| !fits(**length)) {
        None => Ok(()),
        Some(length) => bail!(
            "a prompt of {length} tokens and {} to generate are not 1 to the {} that the model can read; lower --lengths or --decode",
            options.decode,
            context.unwrap_or(usize::MAX)
        ),
    }
}

fn report(options: &Options, measured: &BTreeMap<(usize, usize), Vec<Measured>>) -> String {
    let median = |key: (usize, usize), figure: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = measured
            .get(&key)
            .into_iter()
            .flatten()
            .map(figure)
            .collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    // A GPU's peak is the prompt's activations; what stays is the weights and the cache.
    let on_gpu = measured.values().flatten().any(|m| m.held_bytes.is_some());
    let header = [
        "tokens, path",
        "prompt tok/s",
        "ratio",
        "decode tok/s",
        "ratio",
        "KV bytes",
        "of first",
        "peak memory",
        "held after",
    ];
    let columns = header.len() - usize::from(!on_gpu);
    let lines = measured.keys().map(|&(length, path)| {
        let (ours, first) = ((length, path), (length, 0));
        let ratio = |figure| format!("{:.1}", median(ours, figure) / median(first, figure));
        let mut line = vec![
            match options.batch.get() {
                1 => format!("{length} {}", options.paths[path]),
                batch => format!("{batch} x {length} {}", options.paths[path]),
            },
            format!("{:.0}", median(ours, |m| m.prompt)),
            ratio(|m| m.prompt),
            format!("{:.0}", median(ours, |m| m.decode)),
            ratio(|m| m.decode),
            table::bytes(median(ours, |m| m.kv_bytes)),
            format!(
                "{:.2} %",
                100.0 * median(ours, |m| m.kv_bytes) / median(first, |m| m.kv_bytes)
            ),
            table::bytes(median(ours, |m| m.peak_bytes)),
            table::bytes(median(ours, |m| m.held_bytes.unwrap_or(f64::NAN))),
        ];
        line.truncate(columns);
        line
    });
    let header: Vec<_> = header[..columns].iter().map(ToString::to_string).collect();
    table::markdown(&header, &lines.collect::<Vec<_>>())
}

/// A path by its name; `tokens` is what a paged cache has to hold.
fn attention(path: &str, model: &Path, tokens: usize) -> Result<Attention> {
    match path {
        "upstream" => return Ok(Attention::Upstream),
        "paged" => return Ok(Attention::Paged(tokens)),
        _ => {}
    }
    let (method, capacity) = path.split_once('@').unwrap_or((path, "128"));
    let capacity = capacity
        .parse()
        .with_context(|| format!("`{path}` is not METHOD@CAPACITY"))?;
    let mut compression = Compression::new(method, capacity);
    compression.check()?;
    if headkv_plugin::methods::find(method)?.needs_scores {
        let name = compression.default_scores(Path::new(""), model);
        compression.scores = Some(headkv_embedded::score_file(name)?.into());
    }
    Ok(Attention::Compressed(compression))
}

/// Takes one measurement and prints it as JSON.
///
/// # Errors
/// Wrong input.
pub fn one(one: &One) -> Result<()> {
    let options = LoadOptions {
        device: one.device.parse()?,
        max_batch: one.batch,
        ignore_end: true,
        ..LoadOptions::new(&one.model)
    };
    let batch = one.batch.get();
    let room = batch * (one.length + one.decode) + 1024;
    let engine = Engine::load(options, attention(&one.path, &one.model, room)?)?;
    let mut prompt = engine.encode(&text::generate(1, 8 * one.length))?;
    prompt.truncate(one.length);
    if prompt.len() < one.length {
        bail!(
            "the tokenizer makes too few tokens of a text for {}",
            one.length
        );
    }
    // A short run first: threads and memory are there when the clock starts.
    engine.generate(&[Request::new(prompt[..prompt.len().min(64)].to_vec(), 2)])?;
    let answers = engine.generate(&vec![Request::new(prompt, one.decode); batch])?;
    let sum = |figure: fn(&Generation) -> f64| answers.iter().map(figure).sum::<f64>();
    let longest = |figure: fn(&Generation) -> f64| answers.iter().map(figure).fold(0.0, f64::max);
    // All were sent at once, and decode together once the last prompt is done.
    let prompts = longest(|a| a.prompt_seconds);
    let decoding = longest(|a| a.prompt_seconds + a.decode_seconds) - prompts;
    let measured = Measured {
        prompt: sum(|a| a.prompt_tokens as f64) / prompts,
        decode: sum(|a| (a.tokens.len() - 1) as f64) / decoding,
        kv_bytes: sum(|a| a.kv_bytes as f64),
        peak_bytes: peak_memory().unwrap_or(f64::NAN),
        held_bytes: engine.gpu_bytes()?.map(|bytes| bytes as f64),
    };
    terminal::print(&(serde_json::to_string(&measured)? + "\n"))?;
    Ok(())
}

/// The largest resident memory of this process so far, where the system tells it.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prompt_is_cut_and_no_figure_is_of_nothing() {
        let options = |lengths: &[usize], decode| Options {
            lengths: lengths.to_vec(),
            decode,
            ..crate::grid::defaults()
        };
        let checked = |lengths: &[usize], decode| {
            check(&options(lengths, decode), Some(8192)).map_err(|e| e.to_string())
        };
        checked(&[1000, 8128], 64).unwrap();
        for (lengths, decode) in [
            (&[1000, 9000][..], 64),
            (&[1000], 100_000),
            (&[usize::MAX], 64),
            (&[0], 64),
        ] {
            let message = checked(lengths, decode).unwrap_err();
            assert!(message.contains("8192"), "{message}");
        }
        assert!(checked(&[1000], 1).unwrap_err().contains("--decode 1"));
        assert!(checked(&[], 64).unwrap_err().contains("nothing to run"));
    }
}
